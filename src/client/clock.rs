//! The monotonic clock, as the sans-IO parts want it.

use std::sync::OnceLock;
use std::time;

use crate::base::time::Instant;

/// The time since this was first asked.
pub(crate) fn now() -> Instant {
    static START: OnceLock<time::Instant> = OnceLock::new();
    Instant::ZERO + START.get_or_init(time::Instant::now).elapsed()
}
