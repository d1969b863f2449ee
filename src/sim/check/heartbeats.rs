//! Heartbeats: a node that is heard in time is never down, and one that is not is down after its TTL and the grace,
//! not before. (Endpoint notes, 3.2.)

use std::time::Duration;

use crate::base::time::Instant;

use super::super::history::{Answered, Asked, NodeNumber, Operation, Outcome, SERVER};
use super::super::options::{FAILOVER_TTL, GRACE, MIN_TTL};
use super::{Case, WRITE_SLACK};

/// What a clock that goes wrong makes of the longest wait.
const SKEW: Duration = Duration::from_millis(30);

/// Something that may have set a node's timer.
#[derive(Clone, Copy, Debug)]
struct Reset {
    /// Not before.
    from: Instant,
    /// Not after.
    to: Instant,
    least: Duration,
    most: Duration,
    /// It surely did.
    sure: bool,
}

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    if case.history.is_cluster {
        return check_cluster(case, wrongs);
    }
    for life in 0..case.history.lives.len() {
        for node in 0..case.history.nodes.len() {
            check_node(case, life, node, wrongs);
        }
    }
}

/// Whoever leads marks no node down that was heard by it in time, and none soon after it began: what was heard is not
/// known to it.
fn check_cluster(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let expiries = case.history.operations.iter().filter(|one| one.client == SERVER);
    for expiry in expiries.filter(|one| matches!(one.asked, Asked::Expire { .. })) {
        let (node, at) = (expiry.asked.node(), expiry.invoked);
        let reigns = case.history.reigns.iter().filter(|reign| reign.life == expiry.life && reign.from <= at);
        let Some(began) = reigns.map(|reign| reign.from).max() else {
            wrongs.push(format!("node {node:?} was down by a server that does not lead at t={at}"));
            continue;
        };
        let heard = case.history.operations.iter().filter(|one| one.asked.node() == node && one.invoked >= began);
        let heard = heard.filter(|one| one.returned <= at).filter_map(reset).filter(|reset| reset.sure);
        let last = heard.max_by_key(|reset| reset.from);
        // A heartbeat whose answer was lost may have set a shorter time, and so may one that was asked before.
        let unsure = |from: Instant| {
            let others = case.history.operations.iter().filter(|one| one.asked.node() == node && one.returned >= from);
            let resets = others.filter(|one| one.invoked <= at).filter_map(reset);
            resets.into_iter().any(|reset| !reset.sure || reset.from < began)
        };
        match last {
            Some(last) if at + SKEW < last.from + last.least + GRACE && !unsure(last.from) => {
                wrongs.push(format!("node {node:?} was down at t={at}, heard at t={} for {:?}", last.from, last.least));
            }
            None if at + SKEW < began + FAILOVER_TTL && !unsure(began) => {
                wrongs.push(format!("node {node:?} was down at t={at}, the leader began at t={began}"));
            }
            _ => {}
        }
    }
}

fn check_node(case: &Case<'_>, life: usize, node: NodeNumber, wrongs: &mut Vec<String>) {
    let Some(of_life) = case.history.lives.get(life) else { return };
    let in_life = |one: &&Operation| one.life == life && one.asked.node() == Some(node);
    let resets: Vec<Reset> = case.history.operations.iter().filter(in_life).filter_map(reset).collect();
    let expiries = case.history.operations.iter().filter(in_life);
    let expiries = expiries.filter(|one| one.client == SERVER && matches!(one.asked, Asked::Expire { .. }));
    for expiry in expiries {
        let at = expiry.invoked;
        let before: Vec<&Reset> = resets.iter().filter(|reset| reset.from <= at).collect();
        // A reset that another one surely followed before the expiry does not count any more.
        let counts = |one: &&&Reset| !before.iter().any(|other| other.sure && other.from > one.to && other.to <= at);
        let least = before.iter().filter(counts).map(|reset| reset.from + reset.least + GRACE).min();
        let any_sure = before.iter().any(|reset| reset.sure && reset.to <= at);
        let failover = (!any_sure).then_some(of_life.started + FAILOVER_TTL);
        if let Some(least) = least.into_iter().chain(failover).min()
            && at < least
        {
            wrongs.push(format!("node {node} was down at t={at}, heard until t={least}"));
        }
    }
    check_downs(case, life, node, &resets, wrongs);
}

fn reset(operation: &Operation) -> Option<Reset> {
    if !matches!(operation.asked, Asked::Register { .. } | Asked::Status { .. }) {
        return None;
    }
    let (from, to) = (operation.invoked, operation.returned);
    match &operation.outcome {
        Outcome::Done(Answered::Heard(_, 0)) | Outcome::Refused(_) => None,
        Outcome::Done(Answered::Heard(_, ttl)) => {
            let ttl = Duration::from_nanos(*ttl);
            Some(Reset { from, to, least: ttl, most: ttl, sure: true })
        }
        // Nobody knows what became of it, nor when.
        _ => Some(Reset { from, to: to + WRITE_SLACK, least: MIN_TTL, most: 2 * MIN_TTL, sure: false }),
    }
}

/// Whenever a node was there and not down, something must have set its timer shortly before.
fn check_downs(case: &Case<'_>, life: usize, node: NodeNumber, resets: &[Reset], wrongs: &mut Vec<String>) {
    let (Some(of_life), Some(id)) = (case.history.lives.get(life), case.history.nodes.get(node)) else { return };
    let Some(ready) = of_life.ready else { return };
    let end = of_life.ended.unwrap_or(case.end).min(of_life.stopping.unwrap_or(case.end));
    let mut alive = false;
    let mut changes: Vec<(Instant, bool)> = Vec::new();
    for step in case.steps.iter().filter(|step| step.touched.contains(id)) {
        alive = step.alive.contains(id);
        let at = of_life.applied.get(&step.index).copied();
        match at {
            Some(at) => changes.push((at, alive)),
            None if step.index < of_life.applied.keys().next().copied().unwrap_or(u64::MAX) => {
                changes.push((of_life.started, alive));
            }
            None => {}
        }
    }
    let _ = alive;
    changes.push((end, changes.last().is_some_and(|(_, alive)| *alive)));
    let mut is_alive = false;
    for (at, now_alive) in changes {
        if is_alive && at > ready {
            let failover = ready + FAILOVER_TTL + GRACE;
            let of_resets = resets.iter().filter(|reset| reset.from <= at).map(|reset| reset.to + reset.most + GRACE);
            let latest = of_resets.chain([failover]).max().unwrap_or(failover) + WRITE_SLACK;
            if at > latest {
                wrongs.push(format!("node {node} was up at t={at}, heard for the last time until t={latest}"));
                return;
            }
        }
        is_alive = now_alive;
    }
}
