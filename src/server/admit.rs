//! Who is let in: connections counted by address, and log lines counted by cause.
//!
//! Source: requirements R1.2, R1.8 to R1.12, R1.28, R1.102.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::base::time::Instant;
use crate::conn::report::Cause;

/// Places kept free of streaming connections, so that plain calls always find room (R1.2).
const RESERVED_FROM_STREAMING: usize = 20;

/// Counts of connections by address, for one listener.
#[derive(Clone, Debug, Default)]
pub struct Places {
    limit: usize,
    taken: BTreeMap<IpAddr, (usize, usize)>,
}

impl Places {
    /// `limit` connections an address; 0 for no limit.
    pub fn new(limit: usize) -> Places {
        Places { limit, taken: BTreeMap::new() }
    }

    /// Changes the limit; nobody who is in is put out (R1.12).
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The limit of streaming connections, when there is one.
    pub fn streaming_limit(&self) -> Option<usize> {
        (self.limit > 0).then(|| self.limit.saturating_sub(RESERVED_FROM_STREAMING))
    }

    /// Takes a place. False, with nothing taken, when the address has no more.
    pub fn enter(&mut self, address: IpAddr) -> bool {
        let (all, _) = self.taken.entry(address).or_default();
        if self.limit > 0 && *all >= self.limit {
            return false;
        }
        *all += 1;
        true
    }

    /// Takes a place among the streaming ones for a connection that is in already.
    pub fn enter_streaming(&mut self, address: IpAddr) -> bool {
        let limit = self.streaming_limit();
        let (_, streaming) = self.taken.entry(address).or_default();
        if limit.is_some_and(|limit| *streaming >= limit) {
            return false;
        }
        *streaming += 1;
        true
    }

    /// Gives a place back, and the streaming one where it was taken.
    pub fn leave(&mut self, address: IpAddr, streaming: bool) {
        if let Some((all, of_streaming)) = self.taken.get_mut(&address) {
            *all = all.saturating_sub(1);
            *of_streaming = of_streaming.saturating_sub(usize::from(streaming));
            if *all == 0 {
                self.taken.remove(&address);
            }
        }
    }
}

/// Lines that one cause may write in [`WINDOW`].
const LINES_A_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Keeps what a remote party can cause at will from flooding the log.
#[derive(Clone, Debug, Default)]
pub struct LogLimiter {
    causes: BTreeMap<Cause, (Instant, u32, u64)>,
}

impl LogLimiter {
    /// Whether a line may be written now; if so, how many were left out before it.
    pub fn admit(&mut self, now: Instant, cause: Cause) -> Option<u64> {
        let (since, written, left_out) = self.causes.entry(cause).or_insert((now, 0, 0));
        if now.since(*since) >= WINDOW {
            (*since, *written) = (now, 0);
        }
        if *written >= LINES_A_WINDOW {
            *left_out += 1;
            return None;
        }
        *written += 1;
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_places_and_no_more() {
        // R1.8, R1.9, R1.10
        let (a, b): (IpAddr, IpAddr) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let mut places = Places::new(26);
        assert!((0..26).all(|_| places.enter(a)));
        assert!(!places.enter(a) && places.enter(b));
        places.leave(a, false);
        assert!(places.enter(a) && !places.enter(a));
        // R1.12
        places.set_limit(10);
        assert!(!places.enter(a));
        places.set_limit(0);
        assert!((0..1000).all(|_| places.enter(a)));
    }

    #[test]
    fn streaming_leaves_room_for_calls() {
        // R1.28
        let a: IpAddr = [127, 0, 0, 1].into();
        let mut places = Places::new(30);
        assert!((0..11).all(|_| places.enter(a)));
        assert!((0..10).all(|_| places.enter_streaming(a)));
        assert!(!places.enter_streaming(a));
        places.leave(a, true);
        assert!(places.enter(a) && places.enter_streaming(a));
    }

    #[test]
    fn a_flood_writes_few_lines_and_says_how_many_it_left_out() {
        let mut limiter = LogLimiter::default();
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let written = (0..1000).filter(|_| limiter.admit(at(0), Cause::UnknownByte).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(limiter.admit(at(0), Cause::NonTls), Some(0));
        assert_eq!(limiter.admit(at(1000), Cause::UnknownByte), Some(990));
    }
}
