//! Clients that write exactly once: each opens a session, gives its writes a place in it, and sends a write again in the
//! same place when its answer was lost, wherever. Some fall silent for longer than their session lives. Others send what
//! they have seen once more, or write in sessions that are not theirs.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::base::time::Instant;
use crate::forward::patch::{Patch, patched};
use crate::wire::body::query::{GenericResponse, WriteRequest};
use crate::wire::body::session::{KEY_BYTES, SessionKey, SessionOpenRequest, SessionReply, SessionRequest, WriteStamp};
use crate::wire::class::Class;
use crate::wire::entry::var::VarOpKind;
use crate::wire::msgpack::Msg;

use super::fault::Fault;
use super::ground::Ground;
use super::history::{Answered, Asked, Outcome};
use super::keepers::write;
use super::options::REGION;
use super::variables::{self, FIRST_LOCK, VarAsked, VarWrite};
use super::workload::Next;

/// Writes that are remembered for those who send them once more.
const SENT_KEPT: usize = 24;
/// Between two looks whether there is a session.
const LOOKS: Duration = Duration::from_millis(300);

/// A write with its place in a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The place.
    pub stamp: WriteStamp,
    /// The write.
    pub write: VarAsked,
    /// Whoever sends it does not know the session's key.
    pub stranger: bool,
}

/// What is asked about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAsked {
    /// Session.Open.
    Open {
        /// Without a sign of life for so long it is over.
        ttl: Duration,
    },
    /// Session.KeepAlive.
    KeepAlive {
        /// Which.
        id: u64,
        /// Its key.
        key: SessionKey,
    },
    /// Session.Close.
    Close {
        /// Which.
        id: u64,
        /// Its key.
        key: SessionKey,
    },
}

/// Method and body.
pub fn request(asked: &SessionAsked) -> (&'static str, Vec<u8>) {
    let write = WriteRequest { region: REGION.to_owned(), ..WriteRequest::default() };
    let of = |id: &u64, key: &SessionKey, write| SessionRequest { id: *id, key: key.clone(), write }.to_bytes();
    match asked {
        SessionAsked::Open { ttl } => {
            let ttl = i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX);
            let name = "sim".to_owned();
            ("Session.Open", SessionOpenRequest { ttl, name, write, ..SessionOpenRequest::default() }.to_bytes())
        }
        SessionAsked::KeepAlive { id, key } => ("Session.KeepAlive", of(id, key, write)),
        SessionAsked::Close { id, key } => ("Session.Close", of(id, key, write)),
    }
}

/// The same of a write with a place.
pub fn stamped_request(stamped: &Stamped) -> (&'static str, Vec<u8>) {
    let (method, body) = variables::request(&stamped.write);
    let patch = Patch { stamp: Some(&stamped.stamp), ..Patch::default() };
    (method, patched(&body, &patch).unwrap_or_default())
}

/// Reads the answer.
///
/// # Errors
/// A body that no server gives to this request: says why.
pub fn answer(asked: &SessionAsked, body: &[u8]) -> Result<Answered, String> {
    let wrong = |error: crate::wire::msgpack::DecodeError| format!("the answer to {asked:?}: {error}");
    match asked {
        SessionAsked::Open { .. } => {
            let reply = SessionReply::from_bytes(body).map_err(wrong)?;
            let right = reply.id == reply.meta.index && reply.key.0.len() == KEY_BYTES;
            if right { Ok(Answered::Session(reply.id, reply.key)) } else { Err(format!("{asked:?} gave {reply:?}")) }
        }
        SessionAsked::KeepAlive { id, .. } => {
            let reply = SessionReply::from_bytes(body).map_err(wrong)?;
            let right = reply.id == *id && reply.key.0.is_empty();
            if right { Ok(Answered::Written(reply.meta.index)) } else { Err(format!("{asked:?} gave {reply:?}")) }
        }
        SessionAsked::Close { .. } => {
            GenericResponse::from_bytes(body).map(|reply| Answered::Written(reply.meta.index)).map_err(wrong)
        }
    }
}

/// One client's session; its lanes share it.
#[derive(Clone, Debug, Default)]
pub struct Holder {
    /// Its id and key, while there is one.
    place: Option<(u64, SessionKey)>,
    ttl: Duration,
    next: u64,
    /// Numbers of writes that are not acknowledged.
    open: BTreeSet<u64>,
    /// It says nothing until then.
    silent_until: Instant,
    /// What was sent last, whatever became of it.
    sent: VecDeque<Stamped>,
}

impl Holder {
    /// One without a session.
    pub fn new(ttl: Duration) -> Holder {
        Holder { ttl, ..Holder::default() }
    }

    fn begin(&mut self, id: u64, key: SessionKey) {
        (self.place, self.next) = (Some((id, key)), 0);
        self.open.clear();
    }

    fn is_in(&self, id: u64) -> bool {
        self.place.as_ref().is_some_and(|(own, _)| *own == id)
    }

    fn end(&mut self, id: u64) {
        self.place.take_if(|(own, _)| *own == id);
    }

    fn lowest(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next + 1)
    }

    /// The place of a new write.
    fn stamp(&mut self) -> Option<WriteStamp> {
        let (id, key) = self.place.clone()?;
        self.next += 1;
        self.open.insert(self.next);
        Some(WriteStamp { id, key, sequence: self.next, acknowledged_below: self.lowest() })
    }

    fn sending(&mut self, stamped: &Stamped) {
        self.sent.push_back(stamped.clone());
        if self.sent.len() > SENT_KEPT {
            self.sent.pop_front();
        }
    }

    fn acknowledge(&mut self, stamp: &WriteStamp) {
        if self.is_in(stamp.id) {
            self.open.remove(&stamp.sequence);
        }
    }

    fn silence(&self, now: Instant) -> Option<Duration> {
        (self.silent_until > now).then(|| self.silent_until.since(now))
    }
}

/// What a lane does about sessions.
#[derive(Clone, Debug)]
pub enum Once {
    /// Opens a session, keeps it alive, lets it end.
    Keep {
        /// Whose.
        of: usize,
    },
    /// Writes in it.
    Write {
        /// Whose.
        of: usize,
        /// What was sent and may be sent again; and whether it was answered already.
        pending: Option<(Stamped, bool)>,
    },
    /// Sends what others have sent, or writes in their sessions.
    Echo,
}

impl Once {
    /// What to do next.
    pub fn next(&mut self, ground: &mut Ground) -> Next {
        match self {
            Once::Keep { of } => keep(ground, *of),
            Once::Write { of, pending } => next_write(ground, *of, pending),
            Once::Echo => echo(ground),
        }
    }

    /// How it went; says how long to wait before the next.
    pub fn learn(&mut self, ground: &mut Ground, asked: &Asked, outcome: &Outcome) -> Duration {
        match (self, asked) {
            (Once::Keep { of }, Asked::Session(asked)) => {
                let Some(holder) = ground.holders.get_mut(*of) else { return LOOKS };
                match (asked, outcome) {
                    (_, Outcome::Done(Answered::Session(id, key))) => holder.begin(*id, key.clone()),
                    // Nobody may count on a session that was perhaps closed.
                    (SessionAsked::Close { id, .. }, _) => holder.end(*id),
                    (SessionAsked::KeepAlive { id, .. }, Outcome::Refused(text)) if is_over(text) => holder.end(*id),
                    _ => {}
                }
                let third = holder.ttl / 3;
                ground.rng.jitter(third)
            }
            (Once::Write { of, pending }, Asked::Stamped(_)) => {
                learn_write(ground, *of, pending, outcome);
                ground.rng.jitter(Duration::from_millis(400))
            }
            _ => ground.rng.jitter(Duration::from_millis(600)),
        }
    }
}

fn is_over(text: &str) -> bool {
    Class::of_text(text) == Class::SessionExpired
}

fn keep(ground: &mut Ground, of: usize) -> Next {
    let (now, draw, many) = (ground.now, ground.rng.below(100), ground.rng.below(4));
    let Some(holder) = ground.holders.get_mut(of) else { return Next::Sleep(LOOKS) };
    if let Some(left) = holder.silence(now) {
        return Next::Sleep(left);
    }
    let ttl = holder.ttl;
    let Some((id, key)) = holder.place.clone() else { return Next::Ask(Asked::Session(SessionAsked::Open { ttl })) };
    match draw {
        0..4 => Next::Ask(Asked::Session(SessionAsked::Close { id, key })),
        4..12 => {
            holder.silent_until = now + ttl * (u32::try_from(many).unwrap_or(0) + 1);
            Next::Sleep(ttl)
        }
        _ => Next::Ask(Asked::Session(SessionAsked::KeepAlive { id, key })),
    }
}

fn a_write(ground: &mut Ground) -> VarAsked {
    let path = ground.rng.below(FIRST_LOCK as u64) as usize;
    let one = |ground: &mut Ground, path| {
        let (kind, check) = match ground.rng.below(10) {
            0..6 => (VarOpKind::Set, 0),
            // Only where there is none: it conflicts mostly.
            6..9 => (VarOpKind::Cas, 0),
            _ => (VarOpKind::Delete, 0),
        };
        VarWrite { check, ..write(ground, kind, path) }
    };
    if ground.rng.chance(1, 8) {
        let other = (path + 1) % FIRST_LOCK;
        return VarAsked::Txn(vec![one(ground, path), one(ground, other)]);
    }
    VarAsked::Apply(one(ground, path))
}

fn next_write(ground: &mut Ground, of: usize, pending: &mut Option<(Stamped, bool)>) -> Next {
    let now = ground.now;
    let Some(holder) = ground.holders.get_mut(of) else { return Next::Sleep(LOOKS) };
    if let Some(left) = holder.silence(now) {
        return Next::Sleep(left);
    }
    // What became of a write in a session that is over will not be known (R2.28).
    pending.take_if(|(stamped, _)| !holder.is_in(stamped.stamp.id));
    if let Some((stamped, _)) = pending {
        stamped.stamp.acknowledged_below = holder.lowest();
        if ground.fault(Fault::NewSequence, 100)
            && let Some(stamp) = ground.holders.get_mut(of).and_then(Holder::stamp)
        {
            stamped.stamp = stamp;
        }
        return Next::Ask(Asked::Stamped(stamped.clone()));
    }
    if holder.place.is_none() {
        return Next::Sleep(LOOKS);
    }
    let write = a_write(ground);
    let Some(holder) = ground.holders.get_mut(of) else { return Next::Sleep(LOOKS) };
    let Some(stamp) = holder.stamp() else { return Next::Sleep(LOOKS) };
    let stamped = Stamped { stamp, write, stranger: false };
    holder.sending(&stamped);
    *pending = Some((stamped.clone(), false));
    Next::Ask(Asked::Stamped(stamped))
}

fn learn_write(ground: &mut Ground, of: usize, pending: &mut Option<(Stamped, bool)>, outcome: &Outcome) {
    let again = ground.rng.chance(1, 8);
    let Some(holder) = ground.holders.get_mut(of) else { return };
    let Some((stamped, was_answered)) = pending else { return };
    let settled = match outcome {
        // Some answers are not believed at once.
        Outcome::Done(_) => !again || std::mem::replace(was_answered, true),
        Outcome::Refused(text) => match Class::of_text(text) {
            Class::SessionExpired => {
                holder.end(stamped.stamp.id);
                true
            }
            Class::Refused => true,
            _ => false,
        },
        _ => false,
    };
    if settled {
        holder.acknowledge(&stamped.stamp);
        *pending = None;
    }
}

fn echo(ground: &mut Ground) -> Next {
    let of = ground.rng.below(ground.holders.len().max(1) as u64) as usize;
    let (nth, is_stranger, ahead) =
        (ground.rng.below(SENT_KEPT as u64) as usize, ground.rng.chance(1, 4), ground.rng.below(3));
    let wait = ground.rng.jitter(Duration::from_secs(1));
    let Some(mut stamped) = ground.holders.get(of).and_then(|holder| holder.sent.get(nth)).cloned() else {
        return Next::Sleep(wait);
    };
    if is_stranger {
        stamped.stranger = true;
        stamped.write = a_write(ground);
        stamped.stamp.sequence += ahead;
        // The planted fault is a server that does not look at it.
        if !ground.fault(Fault::AnyKey, 100) {
            let key = ground.rng.next_u64().to_be_bytes();
            stamped.stamp.key = SessionKey([key, key].concat());
        }
    }
    Next::Ask(Asked::Stamped(stamped))
}
