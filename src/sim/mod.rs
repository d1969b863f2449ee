//! A seeded world: one server, or a cluster of them, with its clients in one thread on virtual time, with faults of the
//! network, the disks, the clocks, the processes and the members, and checkers that look at what came of it. Everything
//! follows from a seed, so that a seed replays whatever was found.
//!
//! Performs the outputs of the server and of the replica in memory, as `edge` does with the kernel. Touches no clock,
//! socket, file or thread. (Reliability notes, goals 1 to 4 and 15; models: TigerBeetle `src/vopr.zig`, FoundationDB.)
//!
//! ```text
//! world      time, and what happens next
//! ground     what all of it stands on        process, sockets        a server's event loop
//! site       a server's machine              writer, jobs, errands   its other threads
//! nemesis    what is done to servers         drills                  the same trouble again and again
//! rest       how they end
//! watch      what must always hold between servers
//! network    wires                           client, subscriber      the other end of them
//!                                            transport, requests     what they say and hear
//! disk       the log and the snapshots       workload                what they do
//! history    what was asked and answered     truth                   what the log should hold
//! variables  what is asked about variables   keepers                 who keeps them and takes turns at locks
//! sessions   who writes exactly once
//! harm, cluster_harm, once_harm   what goes wrong, when a mistake is planted
//! check      is all of that right?           fault                   mistakes, to see that it can be wrong
//! ```

pub mod check;
pub mod client;
mod cluster_harm;
pub mod cuts;
pub mod disk;
pub mod drills;
pub mod errands;
pub mod fault;
pub mod ground;
mod harm;
pub mod history;
pub mod jobs;
pub mod keepers;
pub mod nemesis;
pub mod network;
mod once_harm;
pub mod options;
pub mod process;
pub mod requests;
mod rest;
pub mod sessions;
pub mod site;
mod sockets;
mod subscriber;
pub mod trace;
pub mod transport;
pub mod truth;
pub mod variables;
pub mod watch;
pub mod workload;
pub mod world;
pub mod writer;

pub use fault::Fault;
pub use options::Options;
pub use world::{Report, World};
