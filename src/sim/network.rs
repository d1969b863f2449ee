//! Wires between clients and servers, and between servers: delay, cut and merged pieces, full buffers, resets at any
//! byte, ends that go silent, clients that vanish, and ways that are cut: what is sent on them is held back until they
//! are mended, or until the system gives the wire up. Knows nothing of what flows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::time::Instant;

use super::cuts::{Held, Slow};
use super::ground::{Event, Ground, Net};
use super::site::SiteNumber;

/// Names a connection; never used again.
pub type LinkId = u64;

/// Between two reads of one end.
const READ_PAUSE: Duration = Duration::from_micros(40);
/// Bytes of the smallest buffer between servers.
const SERVER_ROOM: usize = 8 * 1024;

/// An end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The other one.
    Server,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// What is to become of a wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    /// It is reset after so many bytes of both directions.
    pub reset_after: Option<u64>,
    /// It goes silent after so many bytes.
    pub silent_after: Option<u64>,
}

/// What a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// So many bytes were taken.
    Took(usize),
    /// None; a [`Net::Writable`] comes.
    Blocked,
    /// The wire is gone.
    Gone,
}

/// What a read came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing at present.
    Nothing,
    /// The other end sends no more.
    Eof,
}

#[derive(Debug)]
pub(super) struct End {
    open: bool,
    arrived: VecDeque<u8>,
    flying: usize,
    fin: bool,
    fin_told: bool,
    pub(super) last_arrival: Instant,
    reading: bool,
    read_queued: bool,
    /// The other end waits for room here.
    other_blocked: bool,
}

impl End {
    fn new(now: Instant) -> End {
        End {
            open: true,
            arrived: VecDeque::new(),
            flying: 0,
            fin: false,
            fin_told: false,
            last_arrival: now,
            reading: true,
            read_queued: false,
            other_blocked: false,
        }
    }
}

/// Who stands at an end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A client.
    Client(usize),
    /// A server's machine.
    Site(SiteNumber),
}

/// One wire.
#[derive(Debug)]
pub struct Link {
    /// Who dialled.
    pub from: Place,
    /// Whom.
    pub to: SiteNumber,
    /// Nothing passes any more, and nobody is told.
    pub silent: bool,
    pub(super) latency: Duration,
    room: usize,
    fate: Fate,
    bytes: u64,
    ends: [End; 2],
    accepted: bool,
    /// By the end that it goes to.
    pub(super) held: [VecDeque<Held>; 2],
    /// How often something was held back.
    pub(super) holds: u64,
}

impl Link {
    /// Who stands at an end.
    pub fn place(&self, side: Side) -> Place {
        match side {
            Side::Client => self.from,
            Side::Server => Place::Site(self.to),
        }
    }

    pub(super) fn held(&mut self, to: Side) -> &mut VecDeque<Held> {
        let [client, server] = &mut self.held;
        match to {
            Side::Client => client,
            Side::Server => server,
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        let [client, server] = &mut self.ends;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }
}

/// All wires.
#[derive(Debug, Default)]
pub struct Network {
    pub(super) links: BTreeMap<LinkId, Link>,
    next: LinkId,
    /// Ways on which nothing gets through: from and to.
    pub(super) cuts: BTreeSet<(Place, Place)>,
    pub(super) slow: BTreeMap<(Place, Place), Slow>,
}

impl Network {
    /// How many wires there are that are still open at the server's end.
    pub fn open_at_server(&self) -> usize {
        self.links.values().filter(|link| link.ends[1].open).count()
    }

    /// A wire.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// All wires.
    pub fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }
}

impl Ground {
    /// Somebody dials a server.
    pub fn dial(&mut self, from: Place, to: SiteNumber, fate: Fate) -> LinkId {
        self.network.next += 1;
        let id = self.network.next;
        let latency = self.rng.jitter(self.options.latency);
        // A long list through a small buffer takes long, and is no more of a test.
        let least = if matches!(from, Place::Site(_)) { SERVER_ROOM } else { self.options.silent_nodes * 128 };
        let room = (256 << self.rng.below(9)).max(least);
        let ends = [End::new(self.now), End::new(self.now)];
        let held = [VecDeque::new(), VecDeque::new()];
        let link =
            Link { from, to, silent: false, latency, room, fate, bytes: 0, ends, accepted: false, held, holds: 0 };
        self.network.links.insert(id, link);
        self.after(latency, Event::Net(Net::Accept(id)));
        id
    }

    /// An end writes; less than all may be taken.
    pub fn write(&mut self, id: LinkId, from: Side, bytes: &[u8]) -> Written {
        let short = self.rng.below(4) == 0;
        let cut = self.rng.below(bytes.len() as u64) as usize + 1;
        let Some(link) = self.network.links.get_mut(&id) else { return Written::Gone };
        if !link.end(from).open {
            return Written::Gone;
        }
        let room = link.room;
        let silent = link.silent;
        let end = link.end(from.other());
        let used = end.flying + end.arrived.len();
        let most = room.saturating_sub(used).min(bytes.len());
        if most == 0 {
            end.other_blocked = true;
            return Written::Blocked;
        }
        let taken = if short { cut.min(most) } else { most };
        end.flying += taken;
        if !silent {
            self.fly(id, from, bytes.get(..taken).unwrap_or_default());
        }
        Written::Took(taken)
    }

    /// Sends bytes on their way, as far as the wire's fate lets them.
    fn fly(&mut self, id: LinkId, from: Side, bytes: &[u8]) {
        let delay = self.a_while(self.options.latency * 8);
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let left = |after: Option<u64>| after.map(|after| after.saturating_sub(link.bytes)).unwrap_or(u64::MAX);
        let (to_reset, to_silence) = (left(link.fate.reset_after), left(link.fate.silent_after));
        let passed = (bytes.len() as u64).min(to_reset).min(to_silence);
        link.bytes += passed;
        let (near, far) = (link.place(from), link.place(from.other()));
        if self.network.is_cut(near, far) || !self.network.holds_nothing(id, from.other()) {
            return self.hold(id, from.other(), Held::Bytes(bytes.get(..passed as usize).unwrap_or_default().to_vec()));
        }
        let slow = self.network.slow.get(&(near, far)).copied().unwrap_or_default();
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let mut arrival = (now + link.latency + slow.latency + delay).max(link.end(from.other()).last_arrival);
        if let Some(pace) = slow.bytes_per_second {
            arrival += Duration::from_micros(passed * 1_000_000 / pace.max(1));
        }
        link.end(from.other()).last_arrival = arrival;
        let went_silent = passed == to_silence;
        link.silent |= went_silent;
        let piece = bytes.get(..passed as usize).unwrap_or_default().to_vec();
        if !piece.is_empty() {
            self.queue.push(arrival, Event::Net(Net::Arrive(id, from.other(), piece)));
        }
        if went_silent {
            let wait = Duration::from_secs(20) + self.rng.jitter(Duration::from_secs(40));
            self.after(wait, Event::Net(Net::Expire(id)));
        } else if passed == to_reset {
            self.queue.push(arrival, Event::Net(Net::Reset(id, from.other())));
            self.after(delay, Event::Net(Net::Reset(id, from)));
        }
    }

    /// Bytes reach an end.
    pub fn arrive(&mut self, id: LinkId, to: Side, bytes: &[u8]) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let end = link.end(to);
        end.flying = end.flying.saturating_sub(bytes.len());
        if end.open {
            end.arrived.extend(bytes);
        }
        self.queue_read(id, to);
    }

    /// The word that no more comes reaches an end.
    pub fn fin_arrives(&mut self, id: LinkId, to: Side) {
        if let Some(link) = self.network.links.get_mut(&id) {
            link.end(to).fin = true;
        }
        self.queue_read(id, to);
        self.forget_if_over(id);
    }

    fn queue_read(&mut self, id: LinkId, to: Side) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let end = link.end(to);
        let something = !end.arrived.is_empty() || (end.fin && !end.fin_told);
        let ready = end.reading && end.open && !end.read_queued;
        if something && ready && (link.accepted || to == Side::Client) {
            link.end(to).read_queued = true;
            self.after(READ_PAUSE, Event::Net(Net::Read(id, to)));
        }
    }

    /// Stops an end's reading, or goes on with it.
    pub fn set_reading(&mut self, id: LinkId, side: Side, on: bool) {
        if let Some(link) = self.network.links.get_mut(&id) {
            link.end(side).reading = on;
        }
        self.queue_read(id, side);
    }

    /// An end reads what a read may give: one byte, some, or all.
    pub fn read(&mut self, id: LinkId, side: Side) -> Got {
        let (all, one) = (self.rng.below(3) > 0, self.rng.below(8) == 0);
        let draw = self.rng.next_u64();
        let Some(link) = self.network.links.get_mut(&id) else { return Got::Nothing };
        let end = link.end(side);
        end.read_queued = false;
        if !end.open || !end.reading {
            return Got::Nothing;
        }
        let waiting = end.arrived.len();
        if waiting == 0 {
            let eof = end.fin && !end.fin_told;
            end.fin_told |= eof;
            return if eof { Got::Eof } else { Got::Nothing };
        }
        let count = match (all, one) {
            (true, _) => waiting,
            (_, true) => 1,
            _ => (draw % waiting as u64) as usize + 1,
        };
        let bytes: Vec<u8> = end.arrived.drain(..count).collect();
        let unblocks = std::mem::take(&mut end.other_blocked);
        let latency = link.latency;
        if unblocks {
            self.after(latency, Event::Net(Net::Writable(id, side.other())));
        }
        self.queue_read(id, side);
        Got::Bytes(bytes)
    }

    /// An end closes in order: the other one reads what was sent, then the end of it.
    pub fn close(&mut self, id: LinkId, from: Side) {
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else { return };
        if !std::mem::replace(&mut link.end(from).open, false) {
            return;
        }
        link.end(from).arrived.clear();
        let at = (now + link.latency).max(link.end(from.other()).last_arrival);
        let silent = link.silent;
        if !silent && !self.held_back(id, from.other(), Held::Fin) {
            self.queue.push(at, Event::Net(Net::Fin(id, from.other())));
        }
        self.forget_if_over(id);
    }

    /// An end closes with a reset: what was on its way to the other one is lost.
    pub fn abort(&mut self, id: LinkId, from: Side) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.end(from).open = false;
        let (latency, silent) = (link.latency, link.silent);
        if !silent && !self.held_back(id, from.other(), Held::Reset) {
            self.after(latency, Event::Net(Net::Reset(id, from.other())));
        }
        self.forget_if_over(id);
    }

    /// A client goes without a word.
    pub fn vanish(&mut self, id: LinkId) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.silent = true;
        link.end(Side::Client).open = false;
        let wait = Duration::from_secs(20) + self.rng.jitter(Duration::from_secs(40));
        self.after(wait, Event::Net(Net::Expire(id)));
        self.forget_if_over(id);
    }

    /// A reset reached an end: true when that end was open until now.
    pub fn reset_arrives(&mut self, id: LinkId, to: Side) -> bool {
        let Some(link) = self.network.links.get_mut(&id) else { return false };
        let was_open = std::mem::replace(&mut link.end(to).open, false);
        // The other end's packets meet a socket that is gone.
        let other_open = link.end(to.other()).open;
        let (latency, silent) = (link.latency, link.silent);
        if other_open && !silent && !self.held_back(id, to.other(), Held::Reset) {
            self.after(latency, Event::Net(Net::Reset(id, to.other())));
        }
        self.forget_if_over(id);
        was_open
    }

    /// A server took the connection: what came before is read.
    pub fn accepted(&mut self, id: LinkId) {
        if let Some(link) = self.network.links.get_mut(&id) {
            link.accepted = true;
        }
        self.queue_read(id, Side::Server);
    }

    /// How long one way takes on a wire.
    pub fn latency_of(&self, id: LinkId) -> Duration {
        self.network.links.get(&id).map_or(Duration::ZERO, |link| link.latency)
    }

    fn forget_if_over(&mut self, id: LinkId) {
        if self.network.links.get(&id).is_some_and(|link| link.ends.iter().all(|end| !end.open)) {
            self.network.links.remove(&id);
        }
    }
}
