//! Connections to other servers: which one to use, when to dial, who waits for a dial, when one is given back
//! (requirements R1.76, R1.77, R3.5, R3.6, R3.12).
//!
//! **Invariant:** for an address there is at most one dial under way, and nobody waits while none is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::time::Instant;

/// Sessions for one address: a second one is dialled only when the first takes no more streams.
const MAX_SESSIONS: usize = 4;
/// Calls and streams that wait for one dial.
const MAX_WAITING: usize = 4096;
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 1024;
/// After a dial that failed, the next comes not before this; doubled each time.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// But never later than this.
const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// All pooled connections; `W` is what waits for one.
#[derive(Debug)]
pub struct Pool<W> {
    idle_timeout: Duration,
    places: BTreeMap<Arc<str>, Place<W>>,
}

#[derive(Debug)]
struct Place<W> {
    sessions: Vec<Session>,
    dialling: bool,
    waiting: Vec<W>,
    /// Dials that failed, one after the other.
    failed: u32,
    /// The last error, and until when no other dial is made.
    refused: Option<(Instant, Arc<str>)>,
}

#[derive(Debug)]
struct Session {
    conn: ConnId,
    busy: usize,
    used: Instant,
}

/// What to do with somebody who found no connection to use.
#[derive(Debug, PartialEq, Eq)]
pub enum Wait<W> {
    /// They wait, and the address is to be dialled.
    Dial,
    /// They wait for a dial that is under way.
    Waits,
    /// They do not: the last dial failed just now with this error, or too many wait.
    Refused(W, Arc<str>),
}

impl<W> Pool<W> {
    /// An empty one, whose connections end after so long without a call.
    pub fn new(idle_timeout: Duration) -> Pool<W> {
        Pool { idle_timeout, places: BTreeMap::new() }
    }

    /// Connections to an address, in the order in which they are to be tried.
    pub fn sessions(&self, address: &str) -> Vec<ConnId> {
        self.places.get(address).into_iter().flat_map(|place| &place.sessions).map(|session| session.conn).collect()
    }

    /// No connection took a call: it waits for another one, if that can be.
    pub fn wait(&mut self, now: Instant, address: &Arc<str>, who: W) -> Wait<W> {
        if !self.places.contains_key(address) && self.places.len() >= MAX_ADDRESSES {
            self.places.retain(|_, place| place.dialling || !place.sessions.is_empty());
            if self.places.len() >= MAX_ADDRESSES {
                return Wait::Refused(who, "too many servers".into());
            }
        }
        let place = self.place(address);
        if let Some((until, error)) = &place.refused
            && now < *until
        {
            return Wait::Refused(who, Arc::clone(error));
        }
        if place.waiting.len() >= MAX_WAITING || (!place.dialling && place.sessions.len() >= MAX_SESSIONS) {
            return Wait::Refused(who, "too many calls to this server".into());
        }
        place.waiting.push(who);
        if place.dialling {
            return Wait::Waits;
        }
        place.dialling = true;
        Wait::Dial
    }

    fn place(&mut self, address: &Arc<str>) -> &mut Place<W> {
        self.places.entry(Arc::clone(address)).or_insert_with(|| Place {
            sessions: Vec::new(),
            dialling: false,
            waiting: Vec::new(),
            failed: 0,
            refused: None,
        })
    }

    /// A dialled connection can be used; gives those who waited.
    pub fn ready(&mut self, now: Instant, address: &Arc<str>, conn: ConnId) -> Vec<W> {
        let place = self.place(address);
        (place.dialling, place.failed, place.refused) = (false, 0, None);
        // The newest first: it has the most room.
        place.sessions.insert(0, Session { conn, busy: 0, used: now });
        std::mem::take(&mut place.waiting)
    }

    /// A dial failed; gives those who waited.
    pub fn dial_failed(&mut self, now: Instant, address: &str, error: &str) -> Vec<W> {
        let Some(place) = self.places.get_mut(address) else { return Vec::new() };
        place.dialling = false;
        let backoff = FIRST_BACKOFF.saturating_mul(1 << place.failed.min(8)).min(MAX_BACKOFF);
        place.failed += 1;
        place.refused = Some((now + backoff, error.into()));
        std::mem::take(&mut place.waiting)
    }

    /// A connection has ended. Gives those who waited for it, when it had not become ready.
    pub fn closed(&mut self, now: Instant, address: &str, conn: ConnId) -> Vec<W> {
        if self.forget(address, conn) {
            return Vec::new();
        }
        match self.places.get(address) {
            Some(place) if place.dialling => self.dial_failed(now, address, "connection closed before it was ready"),
            _ => Vec::new(),
        }
    }

    /// How long nobody has used a connection; `None` for one that is not there.
    pub fn idle_for(&self, now: Instant, address: &str, conn: ConnId) -> Option<Duration> {
        let session = self.places.get(address)?.sessions.iter().find(|session| session.conn == conn)?;
        Some(if session.busy > 0 { Duration::ZERO } else { now.since(session.used) })
    }

    /// No call is to use it any more; false when it was not there.
    pub fn forget(&mut self, address: &str, conn: ConnId) -> bool {
        let Some(place) = self.places.get_mut(address) else { return false };
        let before = place.sessions.len();
        place.sessions.retain(|session| session.conn != conn);
        before != place.sessions.len()
    }

    /// A call or stream began on it.
    pub fn began(&mut self, now: Instant, address: &str, conn: ConnId) {
        if let Some(session) = self.session(address, conn) {
            (session.busy, session.used) = (session.busy + 1, now);
        }
    }

    /// A call or stream on it has ended.
    pub fn ended(&mut self, now: Instant, address: &str, conn: ConnId) {
        if let Some(session) = self.session(address, conn) {
            (session.busy, session.used) = (session.busy.saturating_sub(1), now);
        }
    }

    fn session(&mut self, address: &str, conn: ConnId) -> Option<&mut Session> {
        self.places.get_mut(address)?.sessions.iter_mut().find(|session| session.conn == conn)
    }

    /// When a connection will have been idle for long enough.
    pub fn next(&self) -> Option<Instant> {
        let sessions = self.places.values().flat_map(|place| &place.sessions);
        sessions.filter(|session| session.busy == 0).map(|session| session.used + self.idle_timeout).min()
    }

    /// Connections without a call for too long: each is to be forgotten and closed in an orderly way, or touched.
    pub fn idle(&self, now: Instant) -> Vec<(Arc<str>, ConnId)> {
        let is_idle = |session: &&Session| session.busy == 0 && session.used + self.idle_timeout <= now;
        let of = |(address, place): (&Arc<str>, &Place<W>)| -> Vec<(Arc<str>, ConnId)> {
            let idle = place.sessions.iter().filter(is_idle);
            idle.map(|session| (Arc::clone(address), session.conn)).collect()
        };
        self.places.iter().flat_map(of).collect()
    }

    /// Something else than a call goes on on it.
    pub fn touch(&mut self, now: Instant, address: &str, conn: ConnId) {
        if let Some(session) = self.session(address, conn) {
            session.used = now;
        }
    }

    /// Open connections, and those among them that nobody uses.
    pub fn counts(&self) -> (usize, usize) {
        let sessions = || self.places.values().flat_map(|place| &place.sessions);
        (sessions().count(), sessions().filter(|session| session.busy == 0).count())
    }

    /// How many wait for a dial.
    pub fn waiting(&self) -> usize {
        self.places.values().map(|place| place.waiting.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn pool() -> (Pool<u32>, Arc<str>) {
        (Pool::new(Duration::from_secs(120)), "a:1".into())
    }

    #[test]
    fn many_first_calls_share_one_dial_and_one_connection() {
        // R1.77
        let (mut pool, a) = pool();
        assert_eq!(pool.wait(at(0), &a, 0), Wait::Dial);
        for who in 1..200 {
            assert_eq!(pool.wait(at(0), &a, who), Wait::Waits);
        }
        assert_eq!(pool.ready(at(1), &a, ConnId(9)), (0..200).collect::<Vec<_>>());
        assert_eq!(pool.sessions(&a), [ConnId(9)]);
        assert_eq!((pool.counts(), pool.waiting()), ((1, 1), 0));
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_dialled_for_each_call() {
        // R3.12
        let (mut pool, a) = pool();
        assert_eq!(pool.wait(at(0), &a, 1), Wait::Dial);
        assert_eq!(pool.dial_failed(at(0), &a, "refused"), [1]);
        assert_eq!(pool.wait(at(99), &a, 2), Wait::Refused(2, "refused".into()));
        assert_eq!(pool.wait(at(100), &a, 3), Wait::Dial);
        assert_eq!(pool.closed(at(100), &a, ConnId(1)), [3], "it ended in its handshake");
        assert_eq!(pool.wait(at(299), &a, 4), Wait::Refused(4, "connection closed before it was ready".into()));
        assert_eq!(pool.wait(at(300), &a, 5), Wait::Dial);
        pool.ready(at(300), &a, ConnId(2));
        assert!(pool.closed(at(301), &a, ConnId(2)).is_empty());
        assert_eq!(pool.wait(at(302), &a, 6), Wait::Dial, "one that worked is dialled again at once");
    }

    #[test]
    fn idle_connections_are_given_back_and_used_ones_stay() {
        // R1.77, R3.14
        let (mut pool, a) = pool();
        pool.wait(at(0), &a, 1);
        pool.ready(at(0), &a, ConnId(1));
        pool.began(at(5), &a, ConnId(1));
        assert_eq!(pool.next(), None);
        assert!(pool.idle(at(900_000)).is_empty());
        assert_eq!(pool.idle_for(at(900_000), &a, ConnId(1)), Some(Duration::ZERO));
        pool.ended(at(1_000_000), &a, ConnId(1));
        assert_eq!(pool.idle_for(at(1_000_500), &a, ConnId(1)), Some(Duration::from_millis(500)));
        assert_eq!(pool.idle_for(at(1_000_500), &a, ConnId(2)), None);
        assert_eq!(pool.next(), Some(at(1_120_000)));
        assert!(pool.idle(at(1_119_999)).is_empty());
        assert_eq!(pool.idle(at(1_120_000)), [(Arc::clone(&a), ConnId(1))]);
        pool.touch(at(1_120_000), &a, ConnId(1));
        assert!(pool.idle(at(1_120_000)).is_empty());
        assert!(pool.forget(&a, ConnId(1)));
        assert!(pool.sessions(&a).is_empty());
    }

    #[test]
    fn sessions_of_an_address_are_bounded() {
        let (mut pool, a) = pool();
        for conn in 0..MAX_SESSIONS as u64 {
            assert_eq!(pool.wait(at(0), &a, 0), Wait::Dial);
            pool.ready(at(0), &a, ConnId(conn));
        }
        assert!(matches!(pool.wait(at(0), &a, 0), Wait::Refused(..)));
    }

    proptest! {
        #[test]
        fn whoever_waits_comes_out_once(steps in prop::collection::vec((0u8..6, 0u64..4), 0..80)) {
            let (mut pool, a) = pool();
            let (mut inside, mut dialling, mut who, mut conn) = (Vec::new(), false, 0, 0);
            for (at_step, (step, n)) in steps.into_iter().enumerate() {
                let now = at(at_step as u64 * 50);
                let out = match step {
                    0 | 1 => {
                        who += 1;
                        match pool.wait(now, &a, who) {
                            Wait::Dial => { prop_assert!(!dialling); dialling = true; inside.push(who); }
                            Wait::Waits => { prop_assert!(dialling); inside.push(who); }
                            Wait::Refused(back, _) => prop_assert_eq!(back, who),
                        }
                        continue;
                    }
                    2 if dialling => { dialling = false; conn += 1; pool.ready(now, &a, ConnId(conn)) }
                    3 if dialling => { dialling = false; pool.dial_failed(now, &a, "no") }
                    4 => { pool.forget(&a, ConnId(n)); continue; }
                    _ => continue,
                };
                prop_assert_eq!(out, std::mem::take(&mut inside));
                prop_assert_eq!(pool.waiting(), 0);
            }
        }
    }
}
