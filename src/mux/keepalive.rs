//! Our own pings: when the next one is due and by when it must be answered. Answers to the peer's are not its matter.
//!
//! Source: yamux `spec.md`, "Ping"; the times of `keepalive()` in yamux 0.1.2 `session.go`: an interval runs from the
//! start or from the last answer, never from the last ping.

use std::time::Duration;

use crate::base::time::Instant;

/// A deadline that never comes.
pub const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// The deadline `after` from `now`; zero means never.
pub fn deadline(now: Instant, after: Duration) -> Instant {
    if after.is_zero() { NEVER } else { now + after }
}

/// What a deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It has not come.
    Nothing,
    /// A ping with this value is to be sent.
    Ping(u32),
    /// The last ping was not answered in time.
    Dead,
}

/// The clockwork of our pings: at most one is under way.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Of the next ping, or of the answer to the last one.
    deadline: Instant,
    /// Value of the next ping; they count up from 0.
    next_value: u32,
    waiting: bool,
}

impl Keepalive {
    /// A session that starts now. With an interval of zero no ping is ever sent.
    pub fn new(now: Instant, interval: Duration) -> Keepalive {
        Keepalive { deadline: deadline(now, interval), next_value: 0, waiting: false }
    }

    /// When [`Keepalive::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        (self.deadline != NEVER).then_some(self.deadline)
    }

    /// What is due. A ping that is due counts as sent, and its answer is due within `timeout` (zero: any time).
    pub fn handle_timeout(&mut self, now: Instant, timeout: Duration) -> Due {
        if self.deadline == NEVER || now < self.deadline {
            return Due::Nothing;
        }
        if self.waiting {
            return Due::Dead;
        }
        let value = self.next_value;
        self.next_value = value.wrapping_add(1);
        self.waiting = true;
        self.deadline = deadline(now, timeout);
        Due::Ping(value)
    }

    /// The peer answered a ping. An answer to anything but the ping under way is ignored.
    pub fn answered(&mut self, now: Instant, value: u32, interval: Duration) {
        if self.waiting && value == self.next_value.wrapping_sub(1) {
            self.waiting = false;
            self.deadline = deadline(now, interval);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn an_interval_runs_from_the_last_answer() {
        // R1.32
        let mut keepalive = Keepalive::new(at(0), INTERVAL);
        assert_eq!(keepalive.poll_timeout(), Some(at(30)));
        assert_eq!(keepalive.handle_timeout(at(29), TIMEOUT), Due::Nothing);
        assert_eq!(keepalive.handle_timeout(at(31), TIMEOUT), Due::Ping(0));
        assert_eq!(keepalive.poll_timeout(), Some(at(41)));
        for unknown in [1, 7, u32::MAX] {
            keepalive.answered(at(32), unknown, INTERVAL);
            assert_eq!(keepalive.poll_timeout(), Some(at(41)), "{unknown}");
        }
        keepalive.answered(at(33), 0, INTERVAL);
        keepalive.answered(at(50), 0, INTERVAL);
        assert_eq!(keepalive.poll_timeout(), Some(at(63)));
        assert_eq!(keepalive.handle_timeout(at(63), TIMEOUT), Due::Ping(1));
        assert_eq!(keepalive.handle_timeout(at(72), TIMEOUT), Due::Nothing);
        assert_eq!(keepalive.handle_timeout(at(73), TIMEOUT), Due::Dead);
    }

    #[test]
    fn zero_is_never() {
        let mut keepalive = Keepalive::new(at(0), Duration::ZERO);
        assert_eq!((keepalive.poll_timeout(), keepalive.handle_timeout(NEVER, TIMEOUT)), (None, Due::Nothing));
        let mut keepalive = Keepalive::new(at(0), INTERVAL);
        assert_eq!(keepalive.handle_timeout(at(30), Duration::ZERO), Due::Ping(0));
        assert_eq!(keepalive.poll_timeout(), None);
    }
}
