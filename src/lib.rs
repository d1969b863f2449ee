//! holdfast: a coordination server for fleets of machines, as sans-IO state machines and the programs around them.
//!
//! # The map
//!
//! Rooms stand in rows. **A room imports only rooms from rows above it; rooms of one row do not know each other.
//! Only the rooms of rows 7 (but `sim`), 8 and 9 touch the kernel.** `tests/layout.rs` reads this table and holds
//! the source to it.
//!
//! ```text
//! 1  base
//! 2  config  wire
//! 3  mux  state
//! 4  conn  consensus  api
//! 5  forward
//! 6  server
//! 7  edge  sim  client
//! 8  cli
//! 9  bin
//! ```
//!
//! # One request, in one direction
//!
//! ```text
//! kernel -> edge::event_loop --Input--> server ..................................  --Output--> edge -> kernel
//!                                         |                                            ^
//!    conn: proxied -> tls -> sniff -> mux -> rpc_server => Call                        |
//!    server::route =>  Here   -> Run(job) ... api::run(job, state) =>  Reply ----------+
//!                |                                                    Park    ... touched or deadline -> Run
//!                |                                                    Propose ... consensus => Applied | ...
//!                |                                                    Stream  -> conn::streaming
//!                |                                                    ToNode  -> the session that the node dialled,
//!                |                                                               here or at another server
//!                +->  Hold            ... leader known, or jittered deadline -> route again
//!                +->  Leader, Region  -> patched, over a pooled session to another server ... answered | lost
//!                                                                                 lost: route again, or unknown
//! ```
//!
//! Each `...` is a wait, and a wait is an entry in a table with a deadline, never a blocked thread.
//!
//! # One way to drive every machine
//!
//! `handle_input(now, input)`, then `poll_output()` until `None`, then sleep until `poll_timeout()`. Time is the
//! argument `now`; chance comes from [`base::rng`]; the order of iteration is part of the behaviour.

pub mod api;
pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod conn;
pub mod consensus;
pub mod edge;
pub mod forward;
pub mod mux;
pub mod server;
#[doc(hidden)]
pub mod sim;
pub mod state;
pub mod wire;
