//! Links: the connections on which servers speak raft. One is dialled to each known server, and one from each comes in.
//!
//! A machine without connections of its own: it is told what happened and says whom to dial, what to send and what to
//! close. A link is used once both sides have said who they are. The dialler says now and then that it is there; one
//! that gets no answer to that is closed and dialled anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::base::rng::Rng;
use crate::base::time::Instant;

/// The first wait before an address is dialled again; doubled each time.
const REDIAL_MIN: Duration = Duration::from_millis(50);
/// The longest one.
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// A dial that takes longer, with the handshake and the first hello, is begun anew.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Whoever connects says who it is within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A link that came in and says nothing for so long is closed: its dialler is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A link that was refused is kept so long, for the reason to arrive.
const REFUSED_LINGER: Duration = Duration::from_secs(1);
/// An address of a server that another address has a link to rests for so long.
const ALIAS_LOOK: Duration = Duration::from_secs(60);
/// Links that came in, at most.
const INCOMING_MAX: usize = 128;
/// Addresses to dial, at most.
const TARGETS_MAX: usize = 128;

/// Times of links; they follow from the election timeout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Between two beats.
    pub(super) beat: Duration,
    /// A link without an answer for so long is dead.
    pub(super) dead: Duration,
}

impl Pace {
    pub(in crate::server) fn of(election_timeout: Duration) -> Pace {
        let beat = (election_timeout / 2).clamp(Duration::from_millis(100), Duration::from_millis(500));
        Pace { beat, dead: (election_timeout * 2).max(Duration::from_secs(1)) }
    }
}

/// What becomes of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialling {
    /// Dialled again at this time.
    Idle(Instant),
    /// Being dialled since, and with a connection, being secured.
    Underway(Instant, Option<ConnId>),
    /// A connection is there.
    Up(ConnId),
    /// It leads to this server.
    Itself,
}

#[derive(Debug)]
struct Target {
    /// Of the configuration: never forgotten.
    joined: bool,
    /// Whom it led to, or is said to lead to.
    id: Option<String>,
    state: Dialling,
    failures: u32,
}

/// A link that this server dialled.
#[derive(Debug)]
struct Outgoing {
    address: Arc<str>,
    id: Option<String>,
    replica: u64,
    answered: Instant,
    beat_at: Instant,
    number: u64,
    /// It is being closed.
    over: bool,
}

/// A link that another server dialled.
#[derive(Debug)]
struct Incoming {
    id: Option<String>,
    replica: u64,
    deadline: Instant,
    over: bool,
}

/// What a link is, for a frame that came on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// We dialled it; with the other's id once it has said it.
    Outgoing(Option<String>),
    /// It came in; with the other's id once it has said it.
    Incoming(Option<String>),
}

/// What is to be done about links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// Dial this address.
    Dial(Arc<str>),
    /// End this link, for this reason.
    Close(ConnId, &'static str),
    /// Say on this link that this server is there, with this number.
    Beat(ConnId, u64),
}

/// All links, and the addresses to dial.
#[derive(Debug)]
pub(in crate::server) struct Links {
    pace: Pace,
    rng: Rng,
    own_address: String,
    targets: BTreeMap<Arc<str>, Target>,
    outgoing: BTreeMap<ConnId, Outgoing>,
    incoming: BTreeMap<ConnId, Incoming>,
    /// The link to each server that can be used.
    by_id: BTreeMap<String, ConnId>,
    by_replica: BTreeMap<u64, ConnId>,
}

impl Links {
    pub(super) fn new(pace: Pace, rng: Rng, own_address: &str) -> Links {
        Links {
            pace,
            rng,
            own_address: own_address.to_owned(),
            targets: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            by_id: BTreeMap::new(),
            by_replica: BTreeMap::new(),
        }
    }

    /// An address to keep a link to; `id` of the server that is said to be there.
    pub(super) fn add_target(&mut self, now: Instant, address: &str, id: Option<&str>, joined: bool) {
        if address == self.own_address || address.is_empty() {
            return;
        }
        if let Some(target) = self.targets.get_mut(address) {
            if let Some(id) = id
                && target.id.as_deref() != Some(id)
                && !matches!(target.state, Dialling::Up(_))
            {
                target.id = Some(id.to_owned());
                target.failures = 0;
                if matches!(target.state, Dialling::Idle(_)) {
                    target.state = Dialling::Idle(now);
                }
            }
            return;
        }
        if self.targets.len() < TARGETS_MAX {
            let id = id.map(str::to_owned);
            let target = Target { joined, id, state: Dialling::Idle(now), failures: 0 };
            self.targets.insert(address.into(), target);
        }
    }

    /// Forgets addresses that are neither of the configuration nor wanted any more.
    pub(super) fn retain_targets(&mut self, wanted: impl Fn(&str) -> bool) {
        self.targets.retain(|address, target| {
            target.joined || !matches!(target.state, Dialling::Idle(_) | Dialling::Itself) || wanted(address)
        });
    }

    /// Whether nothing is to be dialled and nobody is connected.
    pub(super) fn is_empty(&self) -> bool {
        let is_itself = |target: &Target| target.state == Dialling::Itself;
        self.targets.values().all(is_itself) && self.outgoing.is_empty() && self.incoming.is_empty()
    }

    // What happened.

    /// The connection for an address is there, and is being secured.
    pub(in crate::server) fn on_dialled(&mut self, now: Instant, address: &Arc<str>, conn: ConnId) {
        if let Some(target) = self.targets.get_mut(address) {
            target.state = Dialling::Underway(now, Some(conn));
        }
    }

    /// Frames can be sent: the hello goes out next.
    pub(super) fn on_ready(&mut self, now: Instant, conn: ConnId, address: &Arc<str>) {
        if let Some(target) = self.targets.get_mut(address) {
            target.state = Dialling::Up(conn);
        }
        let link = Outgoing {
            address: Arc::clone(address),
            id: None,
            replica: 0,
            answered: now,
            beat_at: now + self.pace.beat,
            number: 0,
            over: false,
        };
        self.outgoing.insert(conn, link);
    }

    pub(super) fn on_dial_failed(&mut self, now: Instant, address: &Arc<str>) {
        self.redial_later(now, address, false);
    }

    /// Somebody wants to speak raft. False when there are too many.
    pub(super) fn on_accepted(&mut self, now: Instant, conn: ConnId) -> bool {
        if self.incoming.len() >= INCOMING_MAX {
            return false;
        }
        let link = Incoming { id: None, replica: 0, deadline: now + HELLO_TIMEOUT, over: false };
        self.incoming.insert(conn, link);
        true
    }

    /// A link has ended. The id of its server, when it was the link to it.
    pub(super) fn on_closed(&mut self, now: Instant, conn: ConnId, address: Option<&Arc<str>>) -> Option<String> {
        self.incoming.remove(&conn);
        let link = self.outgoing.remove(&conn);
        if let Some(address) = address {
            let settled = link.as_ref().is_some_and(|link| link.id.is_some());
            self.redial_later(now, address, settled);
        }
        let link = link?;
        let id = link.id.filter(|id| self.by_id.get(id) == Some(&conn))?;
        self.by_id.remove(&id);
        if self.by_replica.get(&link.replica) == Some(&conn) {
            self.by_replica.remove(&link.replica);
        }
        // Every address that is said to lead to it is tried at once.
        for (other, target) in &mut self.targets {
            if Some(other) != address
                && target.id.as_deref() == Some(id.as_str())
                && matches!(target.state, Dialling::Idle(_))
            {
                target.state = Dialling::Idle(now + self.rng.jitter(REDIAL_MIN));
            }
        }
        Some(id)
    }

    fn redial_later(&mut self, now: Instant, address: &Arc<str>, settled: bool) {
        let Some(target) = self.targets.get_mut(address) else { return };
        if target.state == Dialling::Itself {
            return;
        }
        if settled {
            target.failures = 0;
        }
        let wait = (REDIAL_MIN * 2u32.saturating_pow(target.failures.min(8))).min(REDIAL_MAX);
        target.failures += 1;
        target.state = Dialling::Idle(now + wait / 2 + self.rng.jitter(wait / 2));
    }

    /// What kind of link this is; `None` for one that is over.
    pub(super) fn kind(&self, conn: ConnId) -> Option<Kind> {
        if let Some(link) = self.outgoing.get(&conn) {
            return (!link.over).then(|| Kind::Outgoing(link.id.clone()));
        }
        let link = self.incoming.get(&conn)?;
        (!link.over).then(|| Kind::Incoming(link.id.clone()))
    }

    /// Whom messages on a link that came in are from.
    pub(super) fn sender(&self, conn: ConnId) -> Option<u64> {
        self.incoming.get(&conn).filter(|link| link.id.is_some()).map(|link| link.replica)
    }

    /// The other side of a link that we dialled has said who it is. False when there is a link to it already.
    pub(super) fn settle_outgoing(&mut self, now: Instant, conn: ConnId, id: &str, replica: u64) -> bool {
        let Some(link) = self.outgoing.get_mut(&conn) else { return false };
        link.answered = now;
        if let Some(target) = self.targets.get_mut(&link.address) {
            target.id = Some(id.to_owned());
            target.failures = 0;
        }
        if let Some(other) = self.by_id.get(id) {
            return *other == conn;
        }
        link.id = Some(id.to_owned());
        link.replica = replica;
        self.by_id.insert(id.to_owned(), conn);
        self.by_replica.insert(replica, conn);
        true
    }

    /// Whoever dialled us has said who it is. An older link of the same server is over, and given back to be closed.
    pub(super) fn settle_incoming(&mut self, now: Instant, conn: ConnId, id: &str, replica: u64) -> Option<ConnId> {
        let same = |(other, link): (&ConnId, &Incoming)| {
            (*other != conn && !link.over && link.id.as_deref() == Some(id)).then_some(*other)
        };
        let older = self.incoming.iter().find_map(same);
        if let Some(link) = self.incoming.get_mut(&conn) {
            link.id = Some(id.to_owned());
            link.replica = replica;
            link.deadline = now + SILENCE_MAX;
        }
        older
    }

    /// Something came on a link.
    pub(super) fn on_heard(&mut self, now: Instant, conn: ConnId) {
        if let Some(link) = self.outgoing.get_mut(&conn) {
            link.answered = now;
        } else if let Some(link) = self.incoming.get_mut(&conn)
            && link.id.is_some()
            && !link.over
        {
            link.deadline = now + SILENCE_MAX;
        }
    }

    /// The address of a link leads to this server.
    pub(super) fn is_itself(&mut self, conn: ConnId) {
        if let Some(link) = self.outgoing.get(&conn)
            && let Some(target) = self.targets.get_mut(&link.address)
        {
            target.state = Dialling::Itself;
        }
    }

    /// The other side of a link that we dialled refused us: there is no hurry to try again.
    pub(super) fn on_refused(&mut self, conn: ConnId) {
        if let Some(link) = self.outgoing.get(&conn)
            && let Some(target) = self.targets.get_mut(&link.address)
        {
            target.failures = 8;
        }
    }

    /// A link that came in was refused: it ends when the reason has arrived.
    pub(super) fn refuse(&mut self, now: Instant, conn: ConnId) {
        if let Some(link) = self.incoming.get_mut(&conn) {
            link.id = None;
            link.deadline = now + REFUSED_LINGER;
        }
    }

    /// No frame of this link counts any more.
    pub(super) fn mark_over(&mut self, conn: ConnId) {
        if let Some(link) = self.outgoing.get_mut(&conn) {
            link.over = true;
        }
        if let Some(link) = self.incoming.get_mut(&conn) {
            link.over = true;
        }
    }

    // What is known.

    /// The link to a server.
    pub(in crate::server) fn to_server(&self, id: &str) -> Option<ConnId> {
        self.by_id.get(id).copied()
    }

    /// The link to a replica.
    pub(in crate::server) fn to_replica(&self, replica: u64) -> Option<ConnId> {
        self.by_replica.get(&replica).copied()
    }

    /// The address that the link to a server was dialled at.
    pub(super) fn address_of(&self, conn: ConnId) -> Option<&Arc<str>> {
        self.outgoing.get(&conn).map(|link| &link.address)
    }

    /// All links that we dialled and that can be used.
    pub(in crate::server) fn usable(&self) -> Vec<ConnId> {
        self.by_id.values().copied().collect()
    }

    /// All links on which a hello of ours went out, as the first word or as an answer.
    pub(super) fn greeted(&self) -> Vec<ConnId> {
        let dialled = self.outgoing.iter().filter(|(_, link)| !link.over).map(|(conn, _)| *conn);
        let answered = self.incoming.iter().filter(|(_, link)| !link.over && link.id.is_some()).map(|(conn, _)| *conn);
        dialled.chain(answered).collect()
    }

    /// How many connections of raft there are, both ways.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.outgoing.len() + self.incoming.len()
    }

    // Time.

    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let targets = self.targets.values().filter_map(|target| match target.state {
            Dialling::Idle(at) if self.is_wanted(target) => Some(at),
            Dialling::Underway(since, Some(_)) => Some(since + SETTLE_TIMEOUT),
            _ => None,
        });
        let outgoing = self.outgoing.values().filter(|link| !link.over).map(|link| match link.id {
            Some(_) => link.beat_at.min(link.answered + self.pace.dead),
            None => link.answered + SETTLE_TIMEOUT,
        });
        let incoming = self.incoming.values().filter(|link| !link.over).map(|link| link.deadline);
        targets.chain(outgoing).chain(incoming).min()
    }

    /// Whether an address is to be dialled: nobody else leads to the same server.
    fn is_wanted(&self, target: &Target) -> bool {
        target.id.as_ref().is_none_or(|id| !self.by_id.contains_key(id))
    }

    /// The next beats go out now.
    pub(super) fn beat_now(&mut self, now: Instant) {
        for link in self.outgoing.values_mut() {
            link.beat_at = now;
        }
    }

    /// What is due.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Want> {
        let mut wants = Vec::new();
        for (address, target) in &mut self.targets {
            match target.state {
                Dialling::Idle(at) if at <= now => {
                    let wanted = target.id.as_ref().is_none_or(|id| !self.by_id.contains_key(id));
                    if wanted {
                        target.state = Dialling::Underway(now, None);
                        wants.push(Want::Dial(Arc::clone(address)));
                    } else {
                        target.state = Dialling::Idle(now + ALIAS_LOOK);
                    }
                }
                Dialling::Underway(since, Some(conn)) if since + SETTLE_TIMEOUT <= now => {
                    // Its end is told, and then it is dialled again.
                    target.state = Dialling::Underway(now, Some(conn));
                    wants.push(Want::Close(conn, "no handshake in time"));
                }
                _ => {}
            }
        }
        for (conn, link) in &mut self.outgoing {
            let limit = if link.id.is_some() { self.pace.dead } else { SETTLE_TIMEOUT };
            if link.over {
                continue;
            }
            if link.answered + limit <= now {
                link.over = true;
                wants
                    .push(Want::Close(*conn, if link.id.is_some() { "no answer in time" } else { "no hello in time" }));
            } else if link.id.is_some() && link.beat_at <= now {
                link.number += 1;
                link.beat_at = now + self.pace.beat;
                wants.push(Want::Beat(*conn, link.number));
            }
        }
        for (conn, link) in &mut self.incoming {
            if !link.over && link.deadline <= now {
                link.over = true;
                wants.push(Want::Close(*conn, "nothing heard in time"));
            }
        }
        wants
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
