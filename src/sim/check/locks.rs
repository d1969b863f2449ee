//! Locks, as their holders see them: never two holders at once, no write that a demanded fence should have kept out,
//! turns in the order of arrival, and an end in time. (Goal 6; R8.1, R8.3, R8.28.)

use std::time::Duration;

use crate::base::time::Instant;
use crate::server::locks::LOCK_LEADER_GRACE;
use crate::wire::entry::var::VarOpKind;

use super::super::history::{Answered, Asked, Operation, Outcome};
use super::super::variables::{PATHS, PathNumber, VarAnswered, VarAsked, VarWrite};
use super::rules::{Hold, Replay};
use super::{Case, SLACK, WRITE_SLACK};

/// A lock that its holder was told to have.
struct Held<'a> {
    write: &'a VarWrite,
    operation: &'a Operation,
    index: u64,
    fence: u64,
    /// It is the holder's at least until then.
    until: Instant,
    /// Its holder gave it back, or may have.
    released: Option<Instant>,
}

/// What became of an operation with one write.
fn written(operation: &Operation) -> Option<(&VarWrite, u64, bool, u64)> {
    match (&operation.asked, &operation.outcome) {
        (
            Asked::Var(VarAsked::Apply(write)),
            Outcome::Done(Answered::Var(VarAnswered::Written { index, ok, fence })),
        ) => Some((write, *index, *ok, *fence)),
        _ => None,
    }
}

pub(super) fn check(case: &Case<'_>, replay: &Replay, wrongs: &mut Vec<String>) {
    for path in 0..PATHS.len() {
        let holds = holds(case, path);
        check_holders(case, &holds, wrongs);
        check_fences(case, path, &holds, wrongs);
        check_turns(case, path, wrongs);
    }
    for hold in &replay.holds {
        check_end(case, hold, wrongs);
    }
}

fn holds<'a>(case: &Case<'a>, path: PathNumber) -> Vec<Held<'a>> {
    let mut holds = Vec::new();
    for operation in &case.history.operations {
        let Some((write, index, true, fence)) = written(operation) else { continue };
        if write.path != path || write.kind != VarOpKind::LockAcquire {
            continue;
        }
        let mut until = operation.invoked + write.ttl;
        let mut released = None;
        for other in &case.history.operations {
            match &other.asked {
                Asked::Var(VarAsked::Renew { lock_id, .. })
                    if *lock_id == write.lock_id && matches!(other.outcome, Outcome::Done(_)) =>
                {
                    until = until.max(other.invoked + write.ttl);
                }
                Asked::Var(VarAsked::Apply(one))
                    if one.kind == VarOpKind::LockRelease && one.lock_id == write.lock_id =>
                {
                    released = released.or(Some(other.invoked));
                }
                _ => {}
            }
        }
        // A wait for one's turn is no time of the lock's.
        until = until.max(operation.invoked + write.ttl);
        holds.push(Held { write, operation, index, fence, until, released });
    }
    holds.sort_by_key(|held| held.index);
    holds
}

/// Whoever is told to hold a lock is the only one, and no one gets it before the last one's delay is over.
fn check_holders(case: &Case<'_>, holds: &[Held<'_>], wrongs: &mut Vec<String>) {
    for (first, second) in holds.iter().zip(holds.iter().skip(1)) {
        let told = second.operation.returned;
        let least = first.write.ttl + first.write.delay;
        let early = told + case.skew(least) < first.until + first.write.delay;
        if first.released.is_none_or(|at| at > told) && early {
            wrongs.push(format!(
                "two holders: one until t={} and its delay {:?}, the next at t={told}: {:?} and {:?}",
                first.until, first.write.delay, first.operation, second.operation
            ));
        }
        if second.fence <= first.fence {
            wrongs.push(format!("the fence {} after {}: {:?}", second.fence, first.fence, second.operation));
        }
    }
}

/// A write that demands a fence is not done when somebody else has had the lock since.
fn check_fences(case: &Case<'_>, path: PathNumber, holds: &[Held<'_>], wrongs: &mut Vec<String>) {
    for operation in &case.history.operations {
        let Some((write, index, true, _)) = written(operation) else { continue };
        if write.path != path || write.fence == 0 {
            continue;
        }
        if let Some(newer) = holds.iter().find(|held| held.index < index && held.fence > write.fence) {
            wrongs.push(format!("a write came through with an old fence, {} was given: {operation:?}", newer.fence));
        }
    }
}

/// Who waits for a turn and came first has it first.
fn check_turns(case: &Case<'_>, path: PathNumber, wrongs: &mut Vec<String>) {
    let waits = |operation: &&Operation| match &operation.asked {
        Asked::Var(VarAsked::Apply(write)) => {
            write.path == path && write.kind == VarOpKind::LockAcquire && !write.wait.is_zero()
        }
        _ => false,
    };
    let waiters: Vec<&Operation> = case.history.operations.iter().filter(waits).collect();
    for first in &waiters {
        let Some((write, own, ok, _)) = written(first) else { continue };
        let same = |one: &&&Operation| match case.history.is_cluster {
            true => case.is_steady(first.invoked, first.returned.max(one.returned)),
            false => one.life == first.life,
        };
        for second in waiters.iter().filter(|one| one.invoked > first.invoked + SLACK).filter(same) {
            // The first one waited all the time from before the second one came.
            let waited =
                first.returned > second.returned + SLACK && first.invoked + write.wait > second.returned + SLACK;
            if waited
                && let Some((_, other, true, _)) = written(second)
                && (!ok || other < own)
            {
                wrongs.push(format!("had its turn before {first:?}: {second:?}"));
            }
        }
    }
}

/// A lock that is not renewed ends in time.
fn check_end(case: &Case<'_>, hold: &Hold, wrongs: &mut Vec<String>) {
    let applied = |index: u64| case.history.lives.iter().filter_map(move |life| life.applied.get(&index)).min();
    let ended = match hold.ended {
        Some(_) if !hold.expired => return,
        Some(index) => applied(index).copied().unwrap_or(case.end),
        None => case.end,
    };
    let renewed = applied(hold.renewed).copied().unwrap_or(Instant::ZERO);
    // Whoever began to lead since had to find the lock, and gave it a grace.
    let ready = if case.history.is_cluster {
        let reigns = case.history.reigns.iter().filter(|reign| reign.from <= ended);
        reigns.map(|reign| reign.from).max().filter(|from| case.history.is_calm(*from, ended))
    } else {
        let mut lives = case.history.lives.iter().filter(|life| life.started <= ended);
        lives.next_back().and_then(|life| life.ready)
    };
    let Some(ready) = ready else { return };
    let time = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    let latest = renewed.max(ready) + time(hold.ttl) + LOCK_LEADER_GRACE + time(hold.delay) + WRITE_SLACK;
    if ended > latest {
        let path = PATHS.get(hold.path);
        wrongs.push(format!("a lock on {path:?} of index {} ended at t={ended}, not by t={latest}", hold.acquired));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::history::History;
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn write(kind: VarOpKind, lock_id: &str, fence: u64, wait: u64) -> VarWrite {
        VarWrite {
            kind,
            path: 4,
            nonce: 1,
            check: 0,
            lock_id: lock_id.to_owned(),
            ttl: Duration::from_secs(5),
            delay: Duration::from_secs(2),
            fence,
            wait: Duration::from_secs(wait),
        }
    }

    fn op(write: VarWrite, times: (u64, u64), index: u64, ok: bool, fence: u64) -> Operation {
        let outcome = Outcome::Done(Answered::Var(VarAnswered::Written { index, ok, fence }));
        let asked = Asked::Var(VarAsked::Apply(write));
        Operation { client: 0, life: 0, asked, invoked: at(times.0), returned: at(times.1), outcome }
    }

    fn wrongs(operations: Vec<Operation>) -> usize {
        let history = History { operations, ..History::default() };
        let case = Case { history: &history, steps: &[], end: at(100) };
        let mut wrongs = Vec::new();
        check(&case, &Replay::of(&[]), &mut wrongs);
        wrongs.len()
    }

    fn acquire(lock_id: &str, times: (u64, u64), index: u64) -> Operation {
        op(write(VarOpKind::LockAcquire, lock_id, 0, 0), times, index, true, index)
    }

    #[test]
    fn two_holders_at_once_are_told() {
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), acquire("b", (8, 9), 20)]), 0, "its time and delay were over");
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), acquire("b", (3, 4), 20)]), 1);
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), acquire("b", (5, 6), 20)]), 1, "in its delay");
        let release = op(write(VarOpKind::LockRelease, "a", 0, 0), (2, 3), 15, true, 10);
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), release, acquire("b", (3, 4), 20)]), 0);
        let asked = Asked::Var(VarAsked::Renew { path: 4, lock_id: "a".to_owned() });
        let outcome = Outcome::Done(Answered::Var(VarAnswered::Renewed));
        let renewal = Operation { client: 0, life: 0, asked, invoked: at(4), returned: at(5), outcome };
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), renewal, acquire("b", (8, 9), 20)]), 1, "it was renewed");
        let again = op(write(VarOpKind::LockAcquire, "b", 0, 0), (8, 9), 20, true, 10);
        assert_eq!(wrongs(vec![acquire("a", (0, 1), 10), again]), 1, "the fence did not rise");
    }

    #[test]
    fn an_old_fence_that_comes_through_is_told() {
        let late = |fence, ok| op(write(VarOpKind::Set, "", fence, 0), (20, 21), 30, ok, 30);
        let holds = || vec![acquire("a", (0, 1), 10), acquire("b", (8, 9), 20)];
        for (fence, ok, expected) in [(10, true, 1), (10, false, 0), (20, true, 0), (0, true, 0)] {
            let operations = holds().into_iter().chain([late(fence, ok)]).collect();
            assert_eq!(wrongs(operations), expected, "fence {fence} done {ok}");
        }
    }

    #[test]
    fn a_turn_out_of_order_is_told() {
        let wait =
            |lock_id: &str, times, index| op(write(VarOpKind::LockAcquire, lock_id, 0, 60), times, index, true, index);
        assert_eq!(wrongs(vec![wait("a", (0, 30), 10), wait("b", (10, 40), 20)]), 0);
        assert_eq!(wrongs(vec![wait("a", (0, 40), 20), wait("b", (10, 30), 10)]), 1);
        assert_eq!(wrongs(vec![wait("a", (9, 40), 20), wait("b", (10, 30), 10)]), 0, "nobody knows who was first");
    }
}
