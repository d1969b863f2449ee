//! Blocking queries: each ends by its deadline, is woken by a change of what it reads, never sleeps past a write, is
//! never answered early with nothing new, and its index never goes back. (R1.85 to R1.98; goal 7.)

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;

use super::super::history::{Answered, Asked, Operation, Outcome};
use super::super::options::HOLD_TIMEOUT;
use super::super::truth::Step;
use super::super::variables::{VarAnswered, VarAsked};
use super::super::watch::Reign;
use super::{Case, SLACK};

/// A millisecond's rounding is no early answer.
const EARLY: Duration = Duration::from_millis(1);

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    check_order(case, wrongs);
    let acknowledged = acknowledged(case);
    for operation in &case.history.operations {
        if operation.outcome == Outcome::TimedOut {
            wrongs.push(format!("never answered: {operation:?}"));
        }
        let Some((min, wait_nanos)) = operation.asked.query() else { continue };
        if let Some(index) = index_of(operation) {
            let wait = Duration::from_nanos(wait_nanos);
            check_answer(case, operation, (min, wait, index), wrongs);
            if let Some(change) = passed_over(case, &acknowledged, operation, (min, wait, index)) {
                wrongs.push(format!("its last answer is older than entry {change}: {operation:?}"));
            }
        }
    }
}

/// The index that a read was answered with.
fn index_of(operation: &Operation) -> Option<u64> {
    match &operation.outcome {
        Outcome::Done(Answered::Node(index, _) | Answered::Nodes(index, _)) => Some(*index),
        Outcome::Done(Answered::Var(VarAnswered::Read(index, _) | VarAnswered::List(index, _))) => Some(*index),
        _ => None,
    }
}

/// What a read is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Node(usize),
    Nodes,
    Var(usize),
    Vars(&'static str),
}

fn object_of(asked: &Asked) -> Object {
    match asked {
        Asked::Var(VarAsked::Read { path, .. }) => Object::Var(*path),
        Asked::Var(VarAsked::List { prefix, .. }) => Object::Vars(prefix),
        asked => asked.node().map_or(Object::Nodes, Object::Node),
    }
}

/// When, whether it is an answer, the index in it, and which operation.
type Moment = (Instant, bool, u64, usize);

/// Whoever asks after an answer was given is not told of less.
fn check_order(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let mut by_object: BTreeMap<Object, Vec<Moment>> = BTreeMap::new();
    for (at, operation) in case.history.operations.iter().enumerate() {
        let Some(index) = index_of(operation) else { continue };
        let times = by_object.entry(object_of(&operation.asked)).or_default();
        times.push((operation.invoked, false, index, at));
        times.push((operation.returned, true, index, at));
    }
    for mut times in by_object.into_values() {
        times.sort_unstable();
        let mut told = 0;
        let mut asked_at = BTreeMap::new();
        for (_, is_answer, index, at) in times {
            if !is_answer {
                asked_at.insert(at, told);
            } else if asked_at.get(&at).is_some_and(|before| index < *before) {
                wrongs.push(format!("the index went back: {:?}", case.history.operations.get(at)));
            } else {
                told = told.max(index);
            }
        }
    }
}

fn check_answer(case: &Case<'_>, operation: &Operation, asked: (u64, Duration, u64), wrongs: &mut Vec<String>) {
    let (min, wait, index) = asked;
    let took = operation.returned - operation.invoked;
    let drained = match case.history.is_cluster {
        true => case.is_stopping(operation.invoked, operation.returned),
        false => {
            let stopping = case.history.lives.get(operation.life).and_then(|life| life.stopping);
            stopping.is_some_and(|at| at <= operation.returned)
        }
    };
    let well = !case.history.is_cluster || case.is_steady(operation.invoked, operation.returned);
    if index == 0 {
        wrongs.push(format!("answered with the index 0: {operation:?}"));
    }
    if min > 0 && index <= min && took + EARLY + case.skew(wait) < wait && !drained {
        wrongs.push(format!("answered after {took:?} with nothing new: {operation:?}"));
    }
    let longest = if min > 0 { wait + wait / 16 } else { Duration::ZERO } + HOLD_TIMEOUT + SLACK;
    if took > longest && well {
        wrongs.push(format!("answered after {took:?}, {longest:?} is the most: {operation:?}"));
    }
    if let Some(change) = change_at(case, operation, min)
        && well
        && operation.returned > change.max(operation.invoked) + SLACK + HOLD_TIMEOUT / 5
        && min > 0
    {
        wrongs.push(format!("slept past a write at t={change}: {operation:?}"));
    }
}

/// When the writer of each entry was told of it.
fn acknowledged(case: &Case<'_>) -> BTreeMap<u64, Instant> {
    let mut times = BTreeMap::new();
    for operation in &case.history.operations {
        if let Outcome::Done(
            Answered::Written(index)
            | Answered::Heard(index, _)
            | Answered::Var(VarAnswered::Written { index, ok: true, .. }),
        ) = &operation.outcome
        {
            let at = times.entry(*index).or_insert(operation.returned);
            *at = (*at).min(operation.returned);
        }
    }
    times
}

/// A query that waits to its deadline and is told of nothing new is answered from what was true then, whoever led when
/// it was asked (R1.89, R1.99): an entry that it was to wait for, and whose writer was told before.
fn passed_over(
    case: &Case<'_>,
    acknowledged: &BTreeMap<u64, Instant>,
    operation: &Operation,
    asked: (u64, Duration, u64),
) -> Option<u64> {
    let (min, wait, index) = asked;
    if min == 0 || index > min || case.is_stopping(operation.invoked, operation.returned) {
        return None;
    }
    let deadline = operation.invoked + wait.saturating_sub(EARLY + case.skew(wait));
    let known = |index: &u64| acknowledged.get(index).is_some_and(|at| *at < deadline);
    let steps = case.steps.iter().filter(|step| step.index > min && known(&step.index));
    steps.into_iter().find(|step| concerns(case, operation, step)).map(|step| step.index)
}

/// Whether an entry changed what a query reads.
fn concerns(case: &Case<'_>, operation: &Operation, step: &Step) -> bool {
    let id = operation.asked.node().and_then(|node| case.history.nodes.get(node));
    match (&operation.asked, id) {
        (Asked::Var(asked), _) => step.vars.iter().any(|path| asked.reads(path)),
        (_, Some(id)) => step.touched.contains(id),
        (_, None) => step.touched_nodes,
    }
}

/// When the first entry that the query waits for could be read.
fn change_at(case: &Case<'_>, operation: &Operation, min: u64) -> Option<Instant> {
    // In a cluster the leader answers, whoever was asked.
    let leads =
        |reign: &&Reign| reign.from <= operation.invoked && reign.to.is_none_or(|end| end >= operation.returned);
    let life = match case.history.is_cluster {
        true => case.history.reigns.iter().find(leads)?.life,
        false => operation.life,
    };
    let life = case.history.lives.get(life)?;
    let first = case.steps.iter().filter(|step| step.index > min).find(|step| concerns(case, operation, step))?;
    let last_applied = *life.applied.last_key_value()?.0;
    if first.index > last_applied {
        return None;
    }
    // An entry of before this process was there from its beginning.
    let ready = if case.history.is_cluster { life.started } else { life.ready? };
    // One that came in a snapshot was there with the first that is applied since.
    let there = match case.history.is_cluster {
        true => life.applied.range(first.index..).next().map(|(_, at)| *at),
        false => life.applied.get(&first.index).copied(),
    };
    Some(there.unwrap_or(life.started).max(ready))
}
