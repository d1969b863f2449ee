//! Calls that are passed on to other servers: over which connection, with which body, and what is tried next.
//!
//! Pure tables and machines. They know no connection but by its id, and never look into what a method means.
//! Source: transport notes, sections 7 to 10; requirements R1.57 to R1.78 and R3.

pub mod patch;
pub mod pool;
pub mod regions;
pub mod retry;
