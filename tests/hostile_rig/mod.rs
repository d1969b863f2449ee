//! What the hostile and the kill tests share: a real daemon over real sockets, peers written by hand, and chance
//! from a seed.
//!
//! Never waits without a limit. The daemon's contract: it logs `listening` with `rpc=` and `http=`, then `serving
//! requests`.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]

pub mod daemon;
pub mod kit;
pub mod mutate;
pub mod nodes;
pub mod peer;

use std::time::Duration;

/// Nothing in these tests takes longer, unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A number from the environment, or what stands here.
pub fn number_from_env(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?}")))
}

/// The seed of a run: `HOLDFAST_SEED`, or a fresh one; printed, so that a failure can be tried again.
pub fn seed(what: &str) -> u64 {
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number_from_env("HOLDFAST_SEED", fresh);
    eprintln!("{what}: HOLDFAST_SEED={seed}");
    seed
}

/// Looks again and again until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, &mut is_so);
}

/// The same with a limit of its own.
#[track_caller]
pub fn wait_within(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < limit, "waited {limit:?} for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
