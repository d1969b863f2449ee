//! Decides: takes an input, passes it to the machine it concerns, and says what the outside is to do.

pub mod port;
pub mod run;
