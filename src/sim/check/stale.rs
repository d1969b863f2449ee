//! Reads that any server may answer from what it holds: it was there once, a server never goes back, and only a leader
//! says that it is the leader. (R1.99; goal 8.)

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;

use super::super::history::{Answered, Asked, Outcome};
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
        let leads = |from: Instant, to: Instant| {
            let reigns = case.history.reigns.iter().filter(|reign| reign.life == operation.life);
            reigns.into_iter().any(|reign| reign.from <= to && reign.to.is_none_or(|end| end + LAG >= from))
        };
        // After a pause the leader's word and the question are read in the same moment.
        let mut pauses = case.history.pauses.iter().filter(|(site, ..)| *site == life.site);
        let paused = pauses.any(|(_, from, to)| *from <= operation.returned && operation.invoked <= *to);
        if *last_contact == Duration::ZERO && began_before && !paused && !leads(operation.invoked, operation.returned) {
            wrongs.push(format!("a server that does not lead says that it has just heard the leader: {operation:?}"));
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

/// What a server that is no longer the leader may take to know it.
const LAG: Duration = Duration::from_secs(1);
