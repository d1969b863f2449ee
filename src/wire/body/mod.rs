//! Bodies of requests and replies, a file for each group of endpoints.

pub mod node;
pub mod query;
