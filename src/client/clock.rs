//! The monotonic clocks, as the sans-IO parts want them.

use std::sync::OnceLock;
use std::time;

use rustix::time::{ClockId, clock_gettime};

use crate::base::time::Instant;

/// The time since this was first asked.
pub(crate) fn now() -> Instant {
    static START: OnceLock<time::Instant> = OnceLock::new();
    Instant::ZERO + START.get_or_init(time::Instant::now).elapsed()
}

/// Time since the machine started, its sleep included.
pub(crate) fn boot_now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let nanos = time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec);
    Instant::from_nanos(u64::try_from(nanos).unwrap_or(0))
}
