//! edge helper
pub mod consensus_thread;
pub mod data_dir;
pub(crate) mod log_files;
pub mod log_store;
pub mod snapshots;
