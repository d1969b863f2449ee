//! Performs: the one room of the daemon that touches the kernel. Sockets, files, threads, clocks, signals, the log and
//! the service manager; each source of effect has a file of its own.
//!
//! Decides nothing about the protocol: what is to be done, the server machine says.

mod any_name;
mod audit;
pub mod backup_folder;
pub mod bootstrap_reset;
pub mod certificates;
pub mod clock;
mod cluster;
pub mod cluster_file;
mod config_json;
mod connections;
pub mod consensus_lane;
pub mod consensus_thread;
pub mod daemon;
pub mod data_dir;
mod dialer;
mod disk_thread;
pub mod doors;
pub mod entropy;
pub mod event_loop;
pub mod facts;
pub mod file_worker;
pub mod files;
pub mod format;
pub mod handler_pool;
pub mod inbox;
pub mod keyring;
pub(crate) mod log_files;
pub mod log_store;
pub mod logging;
pub mod machine;
mod members;
mod os;
mod perform;
mod process_facts;
pub mod proposals;
pub mod recover;
pub mod reload;
mod resolver;
pub mod signals;
pub mod snapshot_in;
mod snapshot_out;
pub mod snapshots;
mod socket;
pub mod systemd;
pub mod tls_files;
mod traffic;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod dial_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod double;
#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod tls_tests;
