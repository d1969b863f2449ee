//! Who is let in: connections counted by address and certificate, and log lines counted by cause.
//!
//! Source: requirements R1.2, R1.8 to R1.12, R1.28, R1.102, R8.12.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::conn::report::Cause;

/// Places kept free of streaming connections, so that plain calls always find room (R1.2).
const RESERVED_FROM_STREAMING: usize = 20;

/// Connections of one balancer that have not said who their client is. A balancer says it at once, so that these are as
/// many as come within a round trip; they wait apart, so that they take no places of any client.
const UNNAMED_MAX: usize = 4096;

/// What a connection is counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A balancer's address, until its PROXY header is there.
    Unnamed(IpAddr),
    /// The client's address.
    Address(IpAddr),
    /// The client's address and the name in its certificate: clients that share an address have places of their own,
    /// and a fleet that shares a certificate is counted by address as before.
    Certificate(IpAddr, Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unnamed(address) => write!(f, "address {address} before its PROXY headers"),
            Place::Address(address) => write!(f, "address {address}"),
            Place::Certificate(address, name) => write!(f, "certificate {name} at {address}"),
        }
    }
}

/// Counts of connections by place, for one listener.
#[derive(Clone, Debug, Default)]
pub struct Places {
    limit: usize,
    taken: BTreeMap<Place, (usize, usize)>,
}

impl Places {
    /// `limit` connections a place; 0 for no limit.
    pub fn new(limit: usize) -> Places {
        Places { limit, taken: BTreeMap::new() }
    }

    /// Changes the limit; nobody who is in is put out (R1.12).
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Whether nobody is in.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// How many connections a place has; 0 for no limit.
    pub fn limit_of(&self, place: &Place) -> usize {
        match place {
            Place::Unnamed(_) => UNNAMED_MAX,
            Place::Address(_) | Place::Certificate(..) => self.limit,
        }
    }

    /// The limit of streaming connections, when there is one.
    pub fn streaming_limit(&self) -> Option<usize> {
        (self.limit > 0).then(|| self.limit.saturating_sub(RESERVED_FROM_STREAMING))
    }

    /// Takes a place. False, with nothing taken, when there is no more.
    pub fn enter(&mut self, place: &Place) -> bool {
        let limit = self.limit_of(place);
        let (all, _) = self.taken.entry(place.clone()).or_default();
        if limit > 0 && *all >= limit {
            return false;
        }
        *all += 1;
        true
    }

    /// Takes a place among the streaming ones for a connection that is in already.
    pub fn enter_streaming(&mut self, place: &Place) -> bool {
        let limit = self.streaming_limit();
        let (_, streaming) = self.taken.entry(place.clone()).or_default();
        if limit.is_some_and(|limit| *streaming >= limit) {
            return false;
        }
        *streaming += 1;
        true
    }

    /// Gives a place back, and the streaming one where it was taken.
    pub fn leave(&mut self, place: &Place, streaming: bool) {
        if let Some((all, of_streaming)) = self.taken.get_mut(place) {
            *all = all.saturating_sub(1);
            *of_streaming = of_streaming.saturating_sub(usize::from(streaming));
            if *all == 0 {
                self.taken.remove(place);
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

    fn address(last: u8) -> Place {
        Place::Address([127, 0, 0, last].into())
    }

    #[test]
    fn an_address_has_its_places_and_no_more() {
        // R1.8, R1.9, R1.10
        let (a, b) = (address(1), address(2));
        let mut places = Places::new(26);
        assert!((0..26).all(|_| places.enter(&a)));
        assert!(!places.enter(&a) && places.enter(&b));
        places.leave(&a, false);
        assert!(places.enter(&a) && !places.enter(&a));
        // R1.12
        places.set_limit(10);
        assert!(!places.enter(&a));
        places.set_limit(0);
        assert!((0..1000).all(|_| places.enter(&a)));
    }

    #[test]
    fn names_at_an_address_have_places_of_their_own() {
        // R8.12
        let at = |last: u8, name: &str| Place::Certificate([127, 0, 0, last].into(), name.into());
        let mut places = Places::new(26);
        for place in [address(1), at(1, "web-1"), at(1, "web-2"), at(2, "web-1")] {
            assert!((0..26).all(|_| places.enter(&place)) && !places.enter(&place), "{place}");
        }
        let unnamed = Place::Unnamed([127, 0, 0, 1].into());
        assert!((0..UNNAMED_MAX).all(|_| places.enter(&unnamed)) && !places.enter(&unnamed));
        // They have a limit of their own, also where clients have none.
        places.set_limit(0);
        assert!(!places.enter(&unnamed) && places.enter(&address(1)));
        for (place, text) in [
            (address(1), "address 127.0.0.1"),
            (at(1, "web-1"), "certificate web-1 at 127.0.0.1"),
            (unnamed, "address 127.0.0.1 before its PROXY headers"),
        ] {
            assert_eq!(place.to_string(), text);
        }
    }

    #[test]
    fn streaming_leaves_room_for_calls() {
        // R1.28
        let a = address(1);
        let mut places = Places::new(30);
        assert!((0..11).all(|_| places.enter(&a)));
        assert!((0..10).all(|_| places.enter_streaming(&a)));
        assert!(!places.enter_streaming(&a));
        places.leave(&a, true);
        assert!(places.enter(&a) && places.enter_streaming(&a));
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
