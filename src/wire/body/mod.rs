//! Bodies of requests and replies, a file for each group of endpoints.

pub mod acl;
pub mod agent;
pub mod event;
pub mod keyring;
pub mod namespace;
pub mod node;
pub mod node_call;
pub mod operator;
pub mod query;
pub mod search;
pub mod session;
pub mod status;
pub mod var;
