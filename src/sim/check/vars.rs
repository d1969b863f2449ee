//! Variables: the log did what its rules say, whoever was answered was told what the log did, and there is an order of
//! all operations that fits what everybody saw. (Goals 1, 4, 5; R8.29.)
//!
//! The order is that of the log: a read saw the state at one of its indexes, none before what was acknowledged when it
//! was asked, and none after what was applied when it was answered.

use std::collections::BTreeMap;

use crate::base::time::Instant;
use crate::state::ApplyResult;
use crate::state::var::VarOutcome;
use crate::wire::entry::Command;
use crate::wire::entry::var::{VarOp, VarOpKind};

use super::super::history::{Answered, Asked, Operation, Outcome};
use super::super::truth::Step;
use super::super::variables::{PATHS, SeenVar, VarAnswered, VarAsked, VarWrite, sealed_nonce};
use super::rules::Replay;
use super::{Case, is_unsure};

pub(super) fn check(case: &Case<'_>, replay: &Replay, wrongs: &mut Vec<String>) {
    check_state(case, replay, wrongs);
    let times = Times::of(case);
    for (nonce, first, again) in &replay.doubled {
        wrongs.push(format!("the write with the nonce {nonce} was done at {first} and at {again}"));
    }
    let by_index: BTreeMap<u64, &Step> = case.steps.iter().map(|step| (step.index, step)).collect();
    for operation in &case.history.operations {
        let Asked::Var(asked) = &operation.asked else { continue };
        let verdict = match &operation.outcome {
            Outcome::Done(Answered::Var(answered)) => {
                check_answer(&times, replay, &by_index, operation, asked, answered)
            }
            Outcome::Refused(text) if !is_unsure(text) => {
                let happened =
                    asked.all_writes().iter().any(|one| one.nonce > 0 && replay.done.contains_key(&one.nonce));
                if happened { Err("a refused write happened".to_owned()) } else { Ok(()) }
            }
            _ => Ok(()),
        };
        if let Err(why) = verdict {
            wrongs.push(format!("{why}: {operation:?}"));
        }
    }
}

/// The state answered each write as the rules do.
fn check_state(case: &Case<'_>, replay: &Replay, wrongs: &mut Vec<String>) {
    for step in case.steps {
        let Some((expected, _)) = replay.results.get(&step.index) else { continue };
        let done = match &step.result {
            ApplyResult::Vars(outcomes) => outcomes.iter().all(|one| matches!(one, VarOutcome::Ok(_))),
            ApplyResult::Done => true,
            _ => false,
        };
        if done != *expected {
            wrongs.push(format!("the rules say {expected} to {:?}, the state {:?}", step.command, step.result));
        }
    }
}

/// What was acknowledged and what was applied, when.
struct Times {
    /// When an answer was given, and the highest index in answers up to then.
    acknowledged: Vec<(Instant, u64)>,
    /// For each process: when something was applied, and the index.
    applied: Vec<Vec<(Instant, u64)>>,
    /// When anything was first applied by any of several servers, with the highest index up to then.
    anywhere: Option<Vec<(Instant, u64)>>,
}

impl Times {
    fn of(case: &Case<'_>) -> Times {
        let mut acknowledged: Vec<(Instant, u64)> = Vec::new();
        for operation in &case.history.operations {
            let index = match &operation.outcome {
                Outcome::Done(Answered::Written(index) | Answered::Heard(index, _)) => *index,
                Outcome::Done(Answered::Var(VarAnswered::Written { index, .. })) => *index,
                _ => continue,
            };
            acknowledged.push((operation.returned, index));
        }
        acknowledged.sort_unstable();
        let mut highest = 0;
        for (_, index) in &mut acknowledged {
            highest = highest.max(*index);
            *index = highest;
        }
        let lives = case.history.lives.iter();
        let applied: Vec<Vec<(Instant, u64)>> =
            lives.map(|life| life.applied.iter().map(|(index, at)| (*at, *index)).collect()).collect();
        let anywhere = case.history.is_cluster.then(|| {
            let mut all: Vec<(Instant, u64)> = applied.iter().flatten().copied().collect();
            all.sort_unstable();
            let mut highest = 0;
            for (_, index) in &mut all {
                highest = highest.max(*index);
                *index = highest;
            }
            all
        });
        Times { acknowledged, applied, anywhere }
    }

    /// The first index that a read may have seen, and the last.
    fn window(&self, operation: &Operation) -> (u64, u64) {
        let before = self.acknowledged.partition_point(|(at, _)| *at < operation.invoked);
        let least = before.checked_sub(1).and_then(|at| self.acknowledged.get(at)).map_or(0, |(_, index)| *index);
        let of_life = self.applied.get(operation.life).map_or(&[][..], Vec::as_slice);
        // In a cluster any server may have answered.
        let applied = self.anywhere.as_deref().unwrap_or(of_life);
        let until = applied.partition_point(|(at, _)| *at <= operation.returned);
        let most = match until.checked_sub(1).and_then(|at| applied.get(at)) {
            Some((_, index)) => *index,
            None => applied.first().map_or(u64::MAX, |(_, index)| index - 1),
        };
        (least, most)
    }
}

fn check_answer(
    times: &Times,
    replay: &Replay,
    by_index: &BTreeMap<u64, &Step>,
    operation: &Operation,
    asked: &VarAsked,
    answered: &VarAnswered,
) -> Result<(), String> {
    let (least, most) = times.window(operation);
    match (asked, answered) {
        (asked, VarAnswered::Written { index, ok, fence }) => {
            if *index <= least {
                return Err(format!("written at an index that is not above {least}"));
            }
            check_entry(by_index.get(index).copied(), replay, asked, (*index, *ok, *fence))
        }
        (VarAsked::Read { path, .. }, VarAnswered::Read(index, seen)) => {
            let expected = seen.map(|SeenVar { modify_index, nonce, locked }| (modify_index, nonce, locked));
            let spans = replay.spans(*path, |version| version.seen == expected);
            let spans = meet(&spans, &[(least, most)]);
            if spans.is_empty() {
                let versions = replay.versions.get(*path).map_or(&[][..], Vec::as_slice);
                return Err(format!("nothing like it was there from {least} to {most}: {versions:?}"));
            }
            check_index(replay, *index, seen.map(|seen| seen.modify_index), &spans)
        }
        (VarAsked::List { prefix, .. }, VarAnswered::List(index, listed)) => {
            let mut spans = vec![(least, most)];
            for (path, name) in PATHS.iter().enumerate().filter(|(_, name)| name.starts_with(prefix)) {
                let modify_index = listed.get(&path).copied();
                let of_path = replay.spans(path, |version| version.seen.map(|(index, ..)| index) == modify_index);
                spans = meet(&spans, &of_path);
                if spans.is_empty() {
                    return Err(format!("no such list was there from {least} to {most}, {name} does not fit"));
                }
            }
            check_index(replay, *index, None, &spans)
        }
        _ => Ok(()),
    }
}

/// What a write was answered with is what its entry did.
pub(super) fn check_written(
    case: &Case<'_>,
    replay: &Replay,
    asked: &VarAsked,
    answered: &VarAnswered,
) -> Result<(), String> {
    let VarAnswered::Written { index, ok, fence } = answered else { return Err("no answer to a write".to_owned()) };
    check_entry(case.steps.iter().find(|step| step.index == *index), replay, asked, (*index, *ok, *fence))
}

fn check_entry(
    step: Option<&Step>,
    replay: &Replay,
    asked: &VarAsked,
    (index, ok, fence): (u64, bool, u64),
) -> Result<(), String> {
    let Some(Command::VarApply(body)) = step.map(|step| &step.command) else {
        return Err("an acknowledged write is lost".to_owned());
    };
    let writes = asked.all_writes();
    if body.ops.len() != writes.len() || !body.ops.iter().zip(writes).all(|(op, one)| is_of(op, one)) {
        return Err(format!("its entry is another one: {body:?}"));
    }
    match replay.results.get(&index) {
        Some((done, of_entry)) if *done == ok && (!ok || fence == 0 || fence == *of_entry) => Ok(()),
        other => Err(format!("the rules say {other:?}")),
    }
}

/// The index of a reply: the variable's own, or the table's at one of the times at which it may have been read.
pub(super) fn check_index(replay: &Replay, index: u64, own: Option<u64>, spans: &[(u64, u64)]) -> Result<(), String> {
    let fits = |(from, to): &(u64, u64)| match own {
        Some(own) => index == own,
        None => (replay.table_at(*from).max(1)..=replay.table_at(*to).max(1)).contains(&index),
    };
    if spans.iter().any(fits) { Ok(()) } else { Err(format!("its index does not fit what was there in {spans:?}")) }
}

/// Where two lists of spans meet.
pub(super) fn meet(some: &[(u64, u64)], others: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let both = some.iter().flat_map(|a| others.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
    both.filter(|(from, to)| from <= to).collect()
}

/// Whether a write of an entry is that which was asked for.
fn is_of(op: &VarOp, asked: &VarWrite) -> bool {
    let is_lock = asked.kind == VarOpKind::LockAcquire;
    op.kind == asked.kind
        && PATHS.get(asked.path) == Some(&&*op.path)
        && sealed_nonce(&op.path, op.sealed.as_ref()) == Some(asked.nonce)
        && op.check_index == asked.check
        && op.fence == asked.fence
        && op.lock_id == asked.lock_id
        && (!is_lock || (op.ttl, op.lock_delay) == (nanos(asked.ttl), nanos(asked.delay)))
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
