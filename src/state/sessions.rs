//! Sessions: who writes exactly once, and what was answered (Raft dissertation, 6.3; requirements R2.22 to R2.29).
//!
//! A write in a session is applied at most once: whoever sends it again is answered what was answered before. A session
//! ends by an entry alone, so that it ends at the same place on every replica.
//!
//! **Invariants:** a session has no answer below what its owner has acknowledged; sizes are those of the answers that
//! are kept; every session is once in the index of times, at a time no later than its deadline.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::base::id::Index;
use crate::state::answers::Answered;
use crate::state::nodes::At;
use crate::state::secret::same_secret_bytes;
use crate::state::{Applied, ApplyResult, State};
use crate::wire::class::SESSION_EXPIRED;
use crate::wire::entry::Command;
use crate::wire::entry::session::{SessionOpen, SessionStamp};

/// Sessions of clients at once.
pub const MAX_SESSIONS: usize = 16_384;
/// Sessions that one server has for itself; one more ends the oldest.
pub const MAX_SERVER_SESSIONS: usize = 8;
/// Answers that are kept of one session.
pub const MAX_ANSWERS: usize = 4_096;
/// Bytes of the answers that are kept of one session.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Bytes of the answers that are kept of all sessions together; beyond it, a session keeps [`MIN_ANSWER_BYTES`].
pub const MAX_ALL_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of answers that every session may keep, whatever others do.
pub const MIN_ANSWER_BYTES: usize = 16 * 1024;
/// What an answer takes beside its own bytes.
const ANSWER_OVERHEAD_BYTES: usize = 64;

/// A session.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The index of the entry that opened it.
    pub id: u64,
    /// How it began.
    pub open: Arc<SessionOpen>,
    /// Nanoseconds since the Unix epoch, of the entry that opened it.
    pub opened: i64,
    /// Nanoseconds since the Unix epoch, of the last sign of life.
    pub active: i64,
    /// Every write below this number was answered, and will not be asked for again.
    pub acknowledged_below: u64,
    pub(super) answers: OrdMap<u64, Arc<[u8]>>,
    pub(super) answer_bytes: usize,
    /// Its time in the index of times.
    noted: i64,
}

/// What a session says to a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// It was not answered before.
    Free,
    /// It was applied before.
    Answered(Arc<Answered>),
    /// Never to be applied, and why.
    Refused(String),
}

/// The sessions.
#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    by_id: OrdMap<u64, Arc<Session>>,
    /// When to look at each: at its deadline, or before it when there were signs of life since.
    by_time: OrdSet<(i64, u64)>,
    of_clients: usize,
    answer_bytes: usize,
    index: Index,
}

impl Session {
    /// One from a snapshot; `times` are those of its opening and of its last sign of life.
    pub(super) fn restored(
        id: u64,
        open: Arc<SessionOpen>,
        times: (i64, i64),
        acknowledged_below: u64,
        answers: OrdMap<u64, Arc<[u8]>>,
    ) -> Session {
        let answer_bytes = answers.values().map(|answer| size_of(answer)).sum();
        let (opened, active) = times;
        Session { id, open, opened, active, acknowledged_below, answers, answer_bytes, noted: 0 }
    }

    /// When its time is over, nanoseconds since the Unix epoch.
    pub fn deadline(&self) -> i64 {
        self.active.saturating_add(self.open.ttl)
    }

    /// Whether this is the key that its owner was given. Takes the same time for every wrong one.
    pub fn has_key(&self, key: &[u8]) -> bool {
        same_secret_bytes(key, &self.open.key.0)
    }

    /// How many answers are kept, and their bytes.
    pub fn kept(&self) -> (usize, usize) {
        (self.answers.len(), self.answer_bytes)
    }

    /// What became of a write; `None` when it was never applied.
    pub fn answer(&self, sequence: u64) -> Option<Answered> {
        self.answers.get(&sequence).and_then(|bytes| Answered::decode(bytes).ok())
    }

    /// Where a write with this number stands. `tag` is that of its command, when it is known.
    pub fn place(&self, sequence: u64, tag: Option<u64>) -> Place {
        let id = self.id;
        if sequence == 0 {
            return Place::Refused(format!("writes in session {id} have numbers from 1 on"));
        }
        if sequence < self.acknowledged_below {
            return Place::Refused(format!("write {sequence} of session {id} was acknowledged: its answer is gone"));
        }
        match self.answer(sequence) {
            None => Place::Free,
            Some(answered) if tag.is_some_and(|tag| tag != answered.tag) => {
                Place::Refused(format!("write {sequence} of session {id} was another one"))
            }
            Some(answered) => Place::Answered(Arc::new(answered)),
        }
    }

    fn forget_below(&mut self, below: u64) {
        self.acknowledged_below = self.acknowledged_below.max(below);
        while let Some((first, bytes)) = self.answers.get_min().filter(|(first, _)| *first < self.acknowledged_below) {
            let (first, size) = (*first, size_of(bytes));
            self.answer_bytes = self.answer_bytes.saturating_sub(size);
            self.answers.remove(&first);
        }
    }
}

fn size_of(answer: &[u8]) -> usize {
    answer.len() + ANSWER_OVERHEAD_BYTES
}

impl Sessions {
    /// What a write in a session meets; a sign of life of the session, whatever it is.
    pub(super) fn admit(&mut self, at: At, stamp: &SessionStamp, tag: u64) -> Place {
        let Some(session) = self.by_id.get_mut(&stamp.session) else {
            return Place::Refused(SESSION_EXPIRED.to_owned());
        };
        let session = Arc::make_mut(session);
        let before = session.answer_bytes;
        session.active = session.active.max(at.time_unix_nanos);
        // What is asked for now cannot have been answered.
        session.forget_below(stamp.acknowledged_below.min(stamp.sequence));
        self.answer_bytes -= before - session.answer_bytes;
        match session.place(stamp.sequence, Some(tag)) {
            Place::Free if session.answers.len() >= MAX_ANSWERS => {
                Place::Refused(format!("session {} has {MAX_ANSWERS} unacknowledged answers", session.id))
            }
            Place::Free if !has_room(session.answer_bytes, self.answer_bytes) => {
                let (id, bytes) = (session.id, session.answer_bytes);
                Place::Refused(format!("session {id} has unacknowledged answers of {bytes} bytes"))
            }
            place => place,
        }
    }

    /// Keeps the answer to a write that was just applied.
    pub(super) fn keep(&mut self, at: At, stamp: &SessionStamp, command: &Command, result: &ApplyResult) {
        if stamp.forgets_refusal && result.is_refusal() {
            return;
        }
        // A command may end its own session.
        let Some(session) = self.by_id.get_mut(&stamp.session) else { return };
        let bytes: Arc<[u8]> = Answered::encode(at.index, command, result, &stamp.finish).into();
        let session = Arc::make_mut(session);
        session.answer_bytes += size_of(&bytes);
        self.answer_bytes += size_of(&bytes);
        session.answers.insert(stamp.sequence, bytes);
    }

    fn open(&mut self, at: At, open: &SessionOpen) -> Applied {
        if open.server_id.is_empty() {
            if self.of_clients >= MAX_SESSIONS {
                return refused(&format!("there are {MAX_SESSIONS} sessions, more are not kept"));
            }
        } else {
            let own: Vec<u64> = self.of_server(&open.server_id).map(|session| session.id).collect();
            let too_many = (own.len() + 1).saturating_sub(MAX_SERVER_SESSIONS);
            own.into_iter().take(too_many).for_each(|id| self.remove(at.index, id));
        }
        let session = Session {
            id: at.index.0,
            open: Arc::new(open.clone()),
            opened: at.time_unix_nanos,
            active: at.time_unix_nanos,
            ..Session::default()
        };
        self.put(Arc::new(session));
        self.index = at.index;
        Applied::default()
    }

    fn of_server(&self, server_id: &str) -> impl Iterator<Item = &Arc<Session>> {
        self.by_id.values().filter(move |session| session.open.server_id == server_id)
    }

    fn put(&mut self, mut session: Arc<Session>) {
        let noted = session.deadline();
        Arc::make_mut(&mut session).noted = noted;
        self.by_time.insert((noted, session.id));
        self.of_clients += usize::from(session.open.server_id.is_empty());
        self.answer_bytes += session.answer_bytes;
        self.by_id.insert(session.id, session);
    }

    fn remove(&mut self, index: Index, id: u64) {
        let Some(session) = self.by_id.remove(&id) else { return };
        self.of_clients -= usize::from(session.open.server_id.is_empty());
        self.answer_bytes -= session.answer_bytes;
        self.index = index;
        self.by_time.remove(&(session.noted, id));
    }

    fn keep_alive(&mut self, at: At, id: u64) -> Applied {
        let Some(session) = self.by_id.get_mut(&id) else { return refused(SESSION_EXPIRED) };
        let session = Arc::make_mut(session);
        session.active = session.active.max(at.time_unix_nanos);
        Applied::default()
    }

    fn close(&mut self, at: At, id: u64) -> Applied {
        if !self.by_id.contains_key(&id) {
            return refused(SESSION_EXPIRED);
        }
        self.remove(at.index, id);
        Applied::default()
    }

    /// Ends those whose time is over at the entry's time; the others are looked at again at theirs.
    fn expire(&mut self, at: At, ids: &[u64]) -> Applied {
        for id in ids {
            let Some(session) = self.by_id.get_mut(id) else { continue };
            let deadline = session.deadline();
            if deadline <= at.time_unix_nanos {
                self.remove(at.index, *id);
            } else if session.noted != deadline {
                self.by_time.remove(&(session.noted, *id));
                self.by_time.insert((deadline, *id));
                Arc::make_mut(session).noted = deadline;
            }
        }
        Applied::default()
    }

    /// After a restore: sessions of those who are connected now go on, whatever was saved. An id that this log has
    /// still to give out cannot stay.
    pub(super) fn join(&mut self, current: &Sessions, most: Index) {
        let beyond: Vec<u64> = self.by_id.keys().copied().filter(|id| *id >= most.0).collect();
        beyond.into_iter().for_each(|id| self.remove(most, id));
        for session in current.by_id.values() {
            self.remove(most, session.id);
            self.put(Arc::clone(session));
        }
        self.index = most;
    }

    pub(super) fn set_index(&mut self, index: Index) {
        self.index = index;
    }

    /// Puts back a session from a snapshot; false when it comes out of order.
    pub(super) fn restore(&mut self, session: Session) -> bool {
        let is_next = self.by_id.get_max().is_none_or(|(last, _)| *last < session.id);
        self.put(Arc::new(session));
        is_next
    }
}

/// Whether one more answer may be kept.
fn has_room(own: usize, all: usize) -> bool {
    own < MAX_ANSWER_BYTES && (all < MAX_ALL_ANSWER_BYTES || own < MIN_ANSWER_BYTES)
}

fn refused(why: &str) -> Applied {
    Applied { result: ApplyResult::Refused(why.to_owned()), ..Applied::default() }
}

impl State {
    /// Applies a command about sessions.
    pub(super) fn apply_to_sessions(&mut self, at: At, command: &Command) -> Applied {
        match command {
            Command::SessionOpen(open) => self.sessions.open(at, open),
            Command::SessionKeepAlive { id } => self.sessions.keep_alive(at, *id),
            Command::SessionClose { id } => self.sessions.close(at, *id),
            Command::SessionsExpire { ids } => self.sessions.expire(at, ids),
            _ => Applied::default(),
        }
    }

    /// The session with this id.
    pub fn session(&self, id: u64) -> Option<&Arc<Session>> {
        self.sessions.by_id.get(&id)
    }

    /// The sessions in the order in which they were opened.
    pub fn sessions(&self) -> impl ExactSizeIterator<Item = &Arc<Session>> {
        self.sessions.by_id.values()
    }

    /// How many there are.
    pub fn session_count(&self) -> usize {
        self.sessions.by_id.len()
    }

    /// Bytes of all answers that are kept for them.
    pub fn session_answer_bytes(&self) -> usize {
        self.sessions.answer_bytes
    }

    /// The index of the last session that was opened or ended; 0 when there never was one.
    pub fn sessions_index(&self) -> Index {
        self.sessions.index
    }

    /// When to look at sessions next, nanoseconds since the Unix epoch.
    pub fn next_session_look(&self) -> Option<i64> {
        self.sessions.by_time.get_min().map(|(time, _)| *time)
    }

    /// Sessions to be looked at by this time, the first ones first: some may have given a sign of life since.
    pub fn sessions_to_look_at(&self, unix_nanos: i64, most: usize) -> Vec<Arc<Session>> {
        let due = self.sessions.by_time.iter().take_while(|(time, _)| *time <= unix_nanos);
        due.take(most).filter_map(|(_, id)| self.sessions.by_id.get(id).cloned()).collect()
    }
}
