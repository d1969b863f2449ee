//! Writes in sessions, as the leader sees them: where one stands before it is run, and when sessions end.
//!
//! A session ends by an entry, which the state takes only if its time is over in the log's time. A leader proposes it
//! when, besides, the session's whole time has passed on its own steady clock without a sign of life since it saw that:
//! a calendar that is set, a leader that is new, or a cluster that stood still takes nothing of anybody's time (R2.27).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Request, repeat};
use crate::base::id::CallId;
use crate::base::metric::Id;
use crate::base::time::{Instant, SteadyTime, WallTime};
use crate::consensus::Resolution;
use crate::state::State;
use crate::state::answers::Answered;
use crate::state::sessions::{Place, Session};
use crate::wire::body::session::WriteStamp;
use crate::wire::class::{Class, OUTCOME_UNKNOWN};
use crate::wire::entry::Command;

use super::Server;
pub use super::forwarding::OWN_TTL;
use super::writing::Internal;

/// Sessions named in one entry (R8.22).
const IDS_AN_ENTRY: usize = 1_024;
/// Between two looks at sessions whose time is over.
const PAUSE: Duration = Duration::from_millis(500);
/// So often at least, while there are any.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// When to look again, and who is watched.
#[derive(Debug, Default)]
pub(super) struct SessionEnds {
    time: SteadyTime,
    next: Option<Instant>,
    in_flight: bool,
    /// Sessions past their deadline: their last sign of life, and since when this leader has seen none after it.
    silent: BTreeMap<u64, (i64, Instant)>,
}

impl SessionEnds {
    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }
}

impl Server {
    /// Looks where a stamped write stands. True when it is settled: answered, or refused.
    pub(super) fn settle_by_session(&mut self, now: Instant, id: CallId, stamp: &WriteStamp) -> bool {
        let place = repeat::place(stamp, &self.root.load());
        match place {
            Ok(Place::Free) => return false,
            Ok(Place::Answered(answered)) => self.answer_again(now, id, &answered),
            Ok(Place::Refused(text)) => self.answer_error(now, id, &text),
            Err(text) => self.session_refused(now, id, text),
        }
        true
    }

    /// A write that was applied before is answered as it was then.
    pub(super) fn answer_again(&mut self, now: Instant, id: CallId, answered: &Answered) {
        self.metrics.count(Id::SessionRepeats);
        let Some(active) = self.active(id) else { return };
        let (query, stamp) = (active.query.clone(), active.stamp.clone());
        self.fresh_ctx(query.method.heartbeat);
        self.ctx.stamp = stamp;
        let (method, last_run) = (query.method, true);
        let request =
            Request { method: method.name, body: &query.body, base: query.base, caller: &query.caller, last_run };
        let outcome = repeat::repeat(method, &request, answered, &self.root.load(), &self.ctx);
        self.ctx.stamp = None;
        self.on_outcome(now, id, outcome);
    }

    /// The session of a write is over, or not its caller's. One of ours is given up; a write that was not sent before is
    /// tried anew.
    pub(super) fn session_refused(&mut self, now: Instant, id: CallId, text: &str) {
        let Some(active) = self.active(id) else { return };
        let ours = active.stamp.take_if(|_| active.fields.stamp.is_none());
        let Some(stamp) = ours else { return self.answer_error(now, id, text) };
        let unsure = active.unsure;
        if unsure {
            active.stamp = Some(Arc::clone(&stamp));
        }
        if Class::of_text(text) == Class::SessionExpired {
            self.own_session_is_over(stamp.id);
        }
        if unsure { self.answer_error(now, id, text) } else { self.hold(now, id) }
    }

    /// What a caller is told when an earlier try of its write may have been applied.
    pub(super) fn unsure_text(stamp: Option<&WriteStamp>, text: &str) -> String {
        let place = stamp.map(|stamp| format!(" (session {}, write {})", stamp.id, stamp.sequence));
        format!("{OUTCOME_UNKNOWN}: an earlier try may have been applied{}: {text}", place.unwrap_or_default())
    }

    /// Looks which sessions are over, and when to look again. Cheap when none can be.
    pub(super) fn look_at_sessions(&mut self, now: Instant) {
        self.session_ends.next = None;
        let known = &self.leader.known;
        if !known.is_self || !known.ready {
            self.session_ends.silent.clear();
            self.session_ends.in_flight = false;
            self.session_ends.time = SteadyTime::default();
            return;
        }
        if self.session_ends.in_flight {
            return;
        }
        let state = self.root.load_full();
        let Some(look) = state.next_session_look() else { return self.session_ends.silent.clear() };
        // The log's time, carried on: a calendar says nothing of when an entry will be stamped.
        let time = self.session_ends.time.read(now, WallTime::default(), state.time_unix_nanos(), false);
        if look > time {
            let wait = Duration::from_nanos(u64::try_from(look.saturating_sub(time)).unwrap_or(0));
            // One that is opened later may be over sooner.
            self.session_ends.next = Some(now + wait.clamp(PAUSE, LONGEST_PAUSE));
            return;
        }
        let (over, later) = self.sessions_over(now, time, &state);
        let wait = Duration::from_nanos(u64::try_from(later.saturating_sub(time)).unwrap_or(0));
        self.session_ends.next = Some(now + wait.clamp(PAUSE, LONGEST_PAUSE));
        if !over.is_empty() {
            self.session_ends.in_flight = true;
            self.propose_internal(Command::SessionsExpire { ids: over.clone() }, Internal::SessionsExpired(over));
        }
    }

    /// The state may have sessions now that it had not before, or a leader.
    pub(super) fn look_at_sessions_again(&mut self, now: Instant) {
        if self.session_ends.next.is_none() && !self.session_ends.in_flight {
            self.look_at_sessions(now);
        }
    }

    /// Those that were silent for their whole time, and the first deadline of others. Nobody else is named in an entry:
    /// the log's time may leap before that is stamped, and would end a session that lives.
    fn sessions_over(&mut self, now: Instant, time: i64, state: &State) -> (Vec<u64>, i64) {
        let due = state.sessions_to_look_at(time, usize::MAX);
        let silent = &mut self.session_ends.silent;
        let (mut over, mut later) = (Vec::new(), i64::MAX);
        for session in &due {
            if session.deadline() > time {
                later = later.min(session.deadline());
                silent.remove(&session.id);
                continue;
            }
            let seen = silent.entry(session.id).or_insert((session.active, now));
            if seen.0 != session.active {
                *seen = (session.active, now);
            }
            if now.since(seen.1) >= wait_of(session) {
                over.push(session.id);
            } else {
                later = time;
            }
        }
        silent.retain(|id, _| state.session(*id).is_some());
        over.truncate(IDS_AN_ENTRY);
        (over, later)
    }

    pub(super) fn on_sessions_resolved(&mut self, now: Instant, ids: &[u64], resolution: &Resolution) {
        self.session_ends.in_flight = false;
        // Where the log's time is behind what was reckoned, nothing has ended: reckoned anew, from its last entry.
        self.session_ends.time = SteadyTime::default();
        if matches!(resolution, Resolution::Applied { .. }) {
            let state = self.root.load();
            let over = ids.iter().filter(|id| state.session(**id).is_none()).count();
            self.metrics.add(Id::SessionsExpired, over as u64);
        }
        self.look_at_sessions(now);
    }

    /// The look that was wanted is due.
    pub(super) fn on_sessions_due(&mut self, now: Instant) {
        if self.session_ends.next.is_some_and(|at| at <= now) {
            self.look_at_sessions(now);
        }
    }
}

/// How long a leader waits for a sign of life after a session's deadline. When the log's time leapt ahead, the last one
/// may be as young as that.
fn wait_of(session: &Session) -> Duration {
    Duration::from_nanos(u64::try_from(session.open.ttl).unwrap_or(0))
}
