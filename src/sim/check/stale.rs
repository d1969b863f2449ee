//! Reads that any server may answer from what it holds: it was there once, a server never goes back, and what it says
//! of its leader is so. (R1.83, R1.99; goal 8.)

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;

use super::super::history::{Answered, Asked, Life, Operation, Outcome};
use super::super::variables::{SeenVar, VarAnswered, VarAsked};
use super::Case;
use super::rules::Replay;
use super::vars::{check_index, meet};

pub(super) fn check(case: &Case<'_>, replay: &Replay, wrongs: &mut Vec<String>) {
    // The index that each process has told of a path: when it was answered.
    let mut told: BTreeMap<(usize, usize), Vec<(Instant, u64)>> = BTreeMap::new();
    for operation in &case.history.operations {
        let (Asked::Var(VarAsked::Glance { path }), Outcome::Done(Answered::Var(answered))) =
            (&operation.asked, &operation.outcome)
        else {
            continue;
        };
        let VarAnswered::Glanced { index, seen, last_contact } = answered else { continue };
        let Some(life) = case.history.lives.get(operation.life) else { continue };
        let began_before = life.started <= operation.invoked;
        let applied = life.applied.iter().filter(|(_, at)| **at <= operation.returned).map(|(index, _)| *index).max();
        // A process that has applied nothing yet holds what its disk gave.
        let most = applied.unwrap_or(u64::MAX);
        let expected = seen.map(|SeenVar { modify_index, nonce, locked }| (modify_index, nonce, locked));
        let spans = meet(&replay.spans(*path, |version| version.seen == expected), &[(0, most)]);
        if spans.is_empty() {
            wrongs.push(format!("nothing like it was ever there up to {most}: {operation:?}"));
        } else if let Err(why) = check_index(replay, *index, seen.map(|seen| seen.modify_index), &spans) {
            wrongs.push(format!("{why}: {operation:?}"));
        }
        if began_before && !was_heard(case, operation, life, *last_contact) {
            wrongs.push(format!("it had not heard its leader {last_contact:?} before: {operation:?}"));
        }
        if began_before {
            told.entry((operation.life, *path)).or_default().push((operation.returned, *index));
            let before = told.get(&(operation.life, *path)).map_or(&[][..], Vec::as_slice);
            if before.iter().any(|(at, before)| *at < operation.invoked && before > index) {
                wrongs.push(format!("a server went back: {operation:?}"));
            }
        }
    }
}

/// Whether the server heard whom it took for its leader, or led itself, so long before it answered. It answered at some
/// moment between the question and the answer; its clock may go a little wrong meanwhile.
fn was_heard(case: &Case<'_>, operation: &Operation, life: &Life, before: Duration) -> bool {
    let skew = case.skew(before);
    let back = |from: Instant, by: Duration| Some(Instant::ZERO + from.since(Instant::ZERO).checked_sub(by)?);
    let Some(to) = back(operation.returned + skew, before) else {
        // It never heard one, it says.
        return true;
    };
    let from = back(operation.invoked, before + skew).unwrap_or(Instant::ZERO);
    let led = life.led.iter().any(|(begin, end)| *begin <= to && end.is_none_or(|end| end >= from));
    led || life.heard.get(life.heard.partition_point(|at| *at < from)).is_some_and(|at| *at <= to)
}
