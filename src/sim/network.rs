//! Wires between clients and the server: delay, cut and merged pieces, full buffers, resets at any byte, ends that go
//! silent, and clients that vanish. Knows nothing of what flows.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::time::Instant;

use super::ground::{Event, Ground, Net};

/// Names a connection; never used again.
pub type LinkId = u64;

/// Between two reads of one end.
const READ_PAUSE: Duration = Duration::from_micros(40);

/// An end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The other one.
    Server,
}

impl Side {
    fn other(self) -> Side {
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
struct End {
    open: bool,
    arrived: VecDeque<u8>,
    flying: usize,
    fin: bool,
    fin_told: bool,
    last_arrival: Instant,
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

/// One wire.
#[derive(Debug)]
pub struct Link {
    /// Who dialled.
    pub client: usize,
    /// Nothing passes any more, and nobody is told.
    pub silent: bool,
    latency: Duration,
    room: usize,
    fate: Fate,
    bytes: u64,
    ends: [End; 2],
}

impl Link {
    fn end(&mut self, side: Side) -> &mut End {
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
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
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
    /// A client dials.
    pub fn dial(&mut self, client: usize, fate: Fate) -> LinkId {
        self.network.next += 1;
        let id = self.network.next;
        let latency = self.rng.jitter(self.options.latency);
        // A long list through a small buffer takes long, and is no more of a test.
        let room = (256 << self.rng.below(9)).max(self.options.silent_nodes * 128);
        let ends = [End::new(self.now), End::new(self.now)];
        self.network.links.insert(id, Link { client, silent: false, latency, room, fate, bytes: 0, ends });
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
        let arrival = (now + link.latency + delay).max(link.end(from.other()).last_arrival);
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
        if something && end.reading && end.open && !end.read_queued {
            end.read_queued = true;
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
        if !silent {
            self.queue.push(at, Event::Net(Net::Fin(id, from.other())));
        }
        self.forget_if_over(id);
    }

    /// An end closes with a reset: what was on its way to the other one is lost.
    pub fn abort(&mut self, id: LinkId, from: Side) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.end(from).open = false;
        let (latency, silent) = (link.latency, link.silent);
        if !silent {
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
        if other_open && !silent {
            self.after(latency, Event::Net(Net::Reset(id, to.other())));
        }
        self.forget_if_over(id);
        was_open
    }

    fn forget_if_over(&mut self, id: LinkId) {
        if self.network.links.get(&id).is_some_and(|link| link.ends.iter().all(|end| !end.open)) {
            self.network.links.remove(&id);
        }
    }
}
