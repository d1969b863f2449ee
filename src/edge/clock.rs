//! The clocks of the machine: monotonic and calendar. The only file that reads either for the daemon.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::base::time::{Clock, Instant, WallTime};

/// The system's clocks; its monotonic time begins when it is made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    began: std::time::Instant,
}

impl SystemClock {
    /// A clock that stands at zero now.
    pub fn start() -> SystemClock {
        SystemClock { began: std::time::Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wall(&self) -> WallTime {
        wall()
    }
}

/// The calendar.
pub fn wall() -> WallTime {
    // Before 1970 only on a machine whose calendar was never set: the epoch is as good as any other wrong time.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_begins_at_zero_and_never_goes_back() {
        let clock = SystemClock::start();
        let first = clock.now();
        assert!(first.as_nanos() < 10_000_000_000);
        assert!(clock.now() >= first);
        assert!(clock.wall().unix_seconds() > 1_700_000_000);
    }
}
