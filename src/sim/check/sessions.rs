//! Sessions: a write with a place in one is done once at most, whoever sends it how often; whoever sends it again is
//! told the same; a session lives as long as its owner gives signs of life, and nothing is done in it afterwards.
//! (R2.22 to R2.32.)
//!
//! Follows the log in a few rules of its own, and holds them against what the state did and what clients were told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;
use crate::state::ApplyResult;
use crate::state::sessions::MAX_SERVER_SESSIONS;
use crate::wire::class::Class;
use crate::wire::entry::Command;

use super::super::history::{Answered, Asked, Operation, Outcome};
use super::super::sessions::{SessionAsked, Stamped};
use super::super::truth::Step;
use super::super::variables::VarAnswered;
use super::Case;
use super::rules::Replay;
use super::vars::check_written;

/// A session as the log makes it.
#[derive(Debug, Default)]
struct Row {
    server_id: String,
    ttl: i64,
    active: i64,
    below: u64,
    /// The entries of the writes that were done.
    answers: BTreeMap<u64, u64>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Expired,
    /// A server has too many of its own.
    Replaced,
}

/// What the log did to sessions.
#[derive(Debug, Default)]
struct Sessions {
    rows: BTreeMap<u64, Row>,
    /// The entry that ended each.
    ended: BTreeMap<u64, (u64, End)>,
}

/// What the rules say of an entry with a place.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Done,
    Repeated(u64),
    Nothing,
}

impl Sessions {
    fn end(&mut self, id: u64, index: u64, how: End) {
        if self.rows.remove(&id).is_some() {
            self.ended.insert(id, (index, how));
        }
    }

    fn expected(&mut self, step: &Step) -> Option<Expected> {
        let stamp = step.stamp.as_ref()?;
        let Some(row) = self.rows.get_mut(&stamp.session) else { return Some(Expected::Nothing) };
        row.active = row.active.max(step.time);
        row.below = row.below.max(stamp.acknowledged_below.min(stamp.sequence));
        let below = row.below;
        row.answers.retain(|sequence, _| *sequence >= below);
        if stamp.sequence < below {
            return Some(Expected::Nothing);
        }
        if let Some(index) = row.answers.get(&stamp.sequence) {
            return Some(Expected::Repeated(*index));
        }
        if !(stamp.forgets_refusal && step.result.is_refusal()) {
            row.answers.insert(stamp.sequence, step.index);
        }
        Some(Expected::Done)
    }

    fn follow(&mut self, step: &Step) {
        let refused = step.result.is_refusal();
        match &step.command {
            Command::SessionOpen(open) if !refused => {
                if !open.server_id.is_empty() {
                    let own = self.rows.iter().filter(|(_, row)| row.server_id == open.server_id);
                    let own: Vec<u64> = own.map(|(id, _)| *id).collect();
                    let too_many = (own.len() + 1).saturating_sub(MAX_SERVER_SESSIONS);
                    own.into_iter().take(too_many).for_each(|id| self.end(id, step.index, End::Replaced));
                }
                let (server_id, ttl, active) = (open.server_id.clone(), open.ttl, step.time);
                self.rows.insert(step.index, Row { server_id, ttl, active, ..Row::default() });
            }
            Command::SessionKeepAlive { id } => {
                if let Some(row) = self.rows.get_mut(id) {
                    row.active = row.active.max(step.time);
                }
            }
            Command::SessionClose { id } => self.end(*id, step.index, End::Closed),
            Command::SessionsExpire { ids } => {
                for id in ids {
                    if self.rows.get(id).is_some_and(|row| row.active + row.ttl <= step.time) {
                        self.end(*id, step.index, End::Expired);
                    }
                }
            }
            _ => {}
        }
    }
}

pub(super) fn check(case: &Case<'_>, replay: &Replay, wrongs: &mut Vec<String>) {
    let mut sessions = Sessions::default();
    for step in case.steps {
        let right = match (sessions.expected(step), &step.result) {
            (None, _) => true,
            (Some(Expected::Done), result) => !matches!(result, ApplyResult::Repeated(_) | ApplyResult::OutOfPlace(_)),
            (Some(Expected::Repeated(index)), ApplyResult::Repeated(answered)) => answered.index.0 == index,
            (Some(Expected::Nothing), result) => matches!(result, ApplyResult::OutOfPlace(_)),
            (Some(Expected::Repeated(_)), _) => false,
        };
        if !right {
            wrongs.push(format!("an entry has another place than its session says: {step:?}"));
        }
        sessions.follow(step);
    }
    let first_applied = first_applied(case);
    let tries = tries(case);
    for (place, tries) in &tries {
        check_tries(case, replay, (place, tries), wrongs);
    }
    check_told(case, &sessions, &first_applied, wrongs);
    check_ends(case, &sessions, &first_applied, &tries, wrongs);
}

/// When each entry was first applied by any server.
fn first_applied(case: &Case<'_>) -> BTreeMap<u64, Instant> {
    let mut first: BTreeMap<u64, Instant> = BTreeMap::new();
    for (index, at) in case.history.lives.iter().flat_map(|life| &life.applied) {
        let known = first.entry(*index).or_insert(*at);
        *known = (*known).min(*at);
    }
    first
}

/// All that was sent for a place: session and number.
type Tries<'a> = BTreeMap<(u64, u64), Vec<(&'a Operation, &'a Stamped)>>;

fn tries<'a>(case: &Case<'a>) -> Tries<'a> {
    let mut tries = Tries::new();
    for operation in &case.history.operations {
        let Asked::Stamped(stamped) = &operation.asked else { continue };
        if !stamped.stranger {
            let place = (stamped.stamp.id, stamped.stamp.sequence);
            tries.entry(place).or_default().push((operation, stamped));
        }
    }
    tries
}

fn written(operation: &Operation) -> Option<&VarAnswered> {
    match &operation.outcome {
        Outcome::Done(Answered::Var(answered)) => Some(answered),
        _ => None,
    }
}

/// All who were answered were told the same, and what they were told is in the log.
fn check_tries(
    case: &Case<'_>,
    replay: &Replay,
    (place, tries): (&(u64, u64), &Vec<(&Operation, &Stamped)>),
    wrongs: &mut Vec<String>,
) {
    let mut answers = tries.iter().filter_map(|(operation, stamped)| Some((*operation, *stamped, written(operation)?)));
    let done_in_log = |operation: &Operation| {
        let nonces: Vec<u64> = match &operation.asked {
            Asked::Stamped(stamped) => stamped.write.all_writes().iter().map(|one| one.nonce).collect(),
            _ => Vec::new(),
        };
        nonces.iter().any(|nonce| *nonce > 0 && replay.done.contains_key(nonce))
    };
    let Some((operation, stamped, first)) = answers.next() else {
        // Whoever hears refusals alone is right to believe that nothing was done.
        let all_refused = tries.iter().all(|(operation, _)| {
            matches!(&operation.outcome, Outcome::Refused(text) if Class::of_text(text) == Class::Refused)
        });
        if all_refused && tries.first().is_some_and(|(operation, _)| done_in_log(operation)) {
            wrongs.push(format!("a refused write happened: {:?}", tries.first()));
        }
        return;
    };
    if let Err(why) = check_written(case, replay, &stamped.write, first) {
        wrongs.push(format!("{why}: {operation:?}"));
    }
    if let Some((other, _, _)) = answers.find(|(_, _, answer)| *answer != first) {
        wrongs.push(format!("the write at {place:?} was answered in two ways: {operation:?}, {other:?}"));
    }
}

/// Nobody was told of an end that was not, of a key that fits, or of an answer that is gone before its time.
fn check_told(case: &Case<'_>, sessions: &Sessions, first_applied: &BTreeMap<u64, Instant>, wrongs: &mut Vec<String>) {
    // The highest number below which all of a session was acknowledged, and when that was first sent.
    let mut acknowledged: BTreeMap<u64, BTreeMap<u64, Instant>> = BTreeMap::new();
    for operation in &case.history.operations {
        if let Asked::Stamped(stamped) = &operation.asked {
            let of = acknowledged.entry(stamped.stamp.id).or_default();
            of.entry(stamped.stamp.acknowledged_below).or_insert(operation.invoked);
        }
    }
    for operation in &case.history.operations {
        let (id, stamped) = match &operation.asked {
            Asked::Stamped(stamped) => (stamped.stamp.id, Some(stamped)),
            Asked::Session(SessionAsked::KeepAlive { id, .. } | SessionAsked::Close { id, .. }) => (*id, None),
            _ => continue,
        };
        let stranger = stamped.is_some_and(|stamped| stamped.stranger);
        if stranger && matches!(operation.outcome, Outcome::Done(_)) {
            wrongs.push(format!("a stranger wrote in a session: {operation:?}"));
        }
        let Outcome::Refused(text) = &operation.outcome else { continue };
        if Class::of_text(text) == Class::SessionExpired {
            let over = sessions.ended.get(&id).and_then(|(index, _)| first_applied.get(index));
            if over.is_none_or(|over| *over > operation.returned) {
                wrongs.push(format!("a session that lives was told to be over: {operation:?}"));
            }
        }
        if text.contains("session key is wrong") && !stranger {
            wrongs.push(format!("the right key was refused: {operation:?}"));
        }
        if text.contains("was acknowledged")
            && let Some(stamped) = stamped
        {
            let of = acknowledged.get(&id);
            let above = of.map(|of| of.range(stamped.stamp.sequence + 1..));
            if !above.is_some_and(|mut above| above.any(|(_, sent)| *sent <= operation.returned)) {
                wrongs.push(format!("an answer that nobody acknowledged is gone: {operation:?}"));
            }
        }
    }
}

/// A session ends because its owner wants it, or because it was silent for its time.
fn check_ends(
    case: &Case<'_>,
    sessions: &Sessions,
    first_applied: &BTreeMap<u64, Instant>,
    tries: &Tries<'_>,
    wrongs: &mut Vec<String>,
) {
    let mut closed: BTreeMap<u64, Instant> = BTreeMap::new();
    // Signs of life that were answered: their entries, and when they were given at the earliest.
    let mut signs: BTreeMap<u64, Vec<(u64, Instant)>> = BTreeMap::new();
    let mut ttls: BTreeMap<u64, Duration> = BTreeMap::new();
    for operation in &case.history.operations {
        match (&operation.asked, &operation.outcome) {
            (Asked::Session(SessionAsked::Close { id, .. }), _) => {
                closed.entry(*id).or_insert(operation.invoked);
            }
            (Asked::Session(SessionAsked::Open { ttl }), Outcome::Done(Answered::Session(id, _))) => {
                ttls.insert(*id, *ttl);
                signs.entry(*id).or_default().push((*id, operation.invoked));
            }
            (Asked::Session(SessionAsked::KeepAlive { id, .. }), Outcome::Done(Answered::Written(index))) => {
                signs.entry(*id).or_default().push((*index, operation.invoked))
            }
            _ => {}
        }
    }
    for ((id, _), tries) in tries {
        let first = tries.iter().map(|(operation, _)| operation.invoked).min();
        let index = tries.iter().find_map(|(operation, _)| match written(operation)? {
            VarAnswered::Written { index, .. } => Some(*index),
            _ => None,
        });
        if let (Some(first), Some(index)) = (first, index) {
            signs.entry(*id).or_default().push((index, first));
        }
    }
    for (id, (index, how)) in &sessions.ended {
        let Some(at) = first_applied.get(index) else { continue };
        let Some(ttl) = ttls.get(id) else { continue };
        match how {
            End::Closed if closed.get(id).is_none_or(|asked| asked > at) => {
                wrongs.push(format!("session {id} was closed by nobody, at entry {index}"));
            }
            End::Expired => {
                let least = *ttl - case.skew(*ttl);
                let of = signs.get(id).into_iter().flatten();
                if let Some((sign, given)) = of.filter(|(sign, _)| sign < index).find(|(_, given)| *given + least > *at)
                {
                    wrongs.push(format!(
                        "session {id} ended at t={at}, entry {index}: entry {sign} was a sign of life at t={given}, {ttl:?} are its time"
                    ));
                }
            }
            _ => {}
        }
    }
}
