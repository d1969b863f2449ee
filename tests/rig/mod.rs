//! What the tests of the daemon share: a daemon of their own, a peer that writes bytes itself, and recorded sessions.
//!
//! Nothing here uses holdfast's library: the peer has its own msgpack and its own yamux. Every wait is on a condition
//! and has a deadline. Each test takes what it needs, so no one test uses all of it.

#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod cli;
pub mod daemon;
pub mod heard;
pub mod http;
pub mod msgpack;
pub mod nodes;
pub mod peer;
pub mod recorded;
pub mod talk;
pub mod tls;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use daemon::{Daemon, Setup};
pub use http::Web;
pub use peer::Peer;
pub use serde_json::{Value, json};
pub use talk::{Reply, Talk};

/// How long a condition may take before the test has failed. Far above what anything here needs.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// A program under test: the one of this build, or that of the folder which a measurement names in `HOLDFAST_BIN`.
pub fn built(name: &str, of_this_build: &str) -> PathBuf {
    std::env::var_os("HOLDFAST_BIN").map_or_else(|| of_this_build.into(), |folder| PathBuf::from(folder).join(name))
}

/// When that is, from now on.
pub fn patience() -> Instant {
    Instant::now() + PATIENCE
}

/// Asks again and again until the answer is there.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = patience();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not in {PATIENCE:?}");
        breathe();
    }
}

/// Lets a little time go by between two looks at something that has no event of its own.
pub fn breathe() {
    quiet_for(Duration::from_millis(10));
}

/// Lets time pass that a test must see pass: for what must not happen in it.
pub fn quiet_for(time: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

pub fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
