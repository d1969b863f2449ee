//! Is there an order of all operations on one node that fits what everybody saw? A search over partial orders (Wing
//! and Gong 1993; Lowe 2017): an operation takes effect at one moment between its question and its answer, and one
//! whose answer never came at any moment after its question, or never.

use std::collections::BTreeSet;

use crate::base::time::Instant;

use super::super::history::{Answered, Asked, NodeNumber, Operation, Outcome};
use super::model::Node;
use super::{Case, is_unsure};

/// States of the search that are looked at before it is given up.
const MAX_STATES: usize = 400_000;

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    for (node, id) in case.history.nodes.iter().enumerate() {
        let operations = of_node(&case.history.operations, node, id);
        match search(&operations, node) {
            Verdict::Fits => {}
            Verdict::TooLarge => wrongs.push(format!("too many orders of the operations on node {node}: unsure")),
            Verdict::Wrong(stuck) => wrongs.push(format!("no order of the operations on node {node} fits: {stuck}")),
        }
    }
}

/// An operation and when it had ended at the latest.
struct Span<'a> {
    operation: &'a Operation,
    until: Instant,
    /// It may never have happened.
    optional: bool,
    reads: bool,
    /// Of a write whose writer was told.
    index: Option<u64>,
}

fn of_node<'a>(all: &'a [Operation], node: NodeNumber, id: &str) -> Vec<Span<'a>> {
    let touches = |operation: &Operation| match &operation.asked {
        Asked::List { prefix, .. } => id.starts_with(prefix.as_str()),
        Asked::CallNode { .. } | Asked::Ping | Asked::Var(_) | Asked::Stamped(_) | Asked::Session(_) => false,
        asked => asked.node() == Some(node),
    };
    let gone: Vec<(Instant, Instant)> = all
        .iter()
        .filter(|one| touches(one) && matches!(one.asked, Asked::Deregister { .. }))
        .filter(|one| !matches!(one.outcome, Outcome::Refused(_)))
        .map(|one| (one.invoked, if matches!(one.outcome, Outcome::Done(_)) { one.returned } else { NEVER }))
        .collect();
    let mut spans = Vec::new();
    for operation in all.iter().filter(|operation| touches(operation)) {
        let (writes, reads) = (operation.asked.writes(), !operation.asked.writes());
        // What is told of a node that went meanwhile: it may have been written before.
        let races = gone.iter().any(|(from, to)| *from <= operation.returned && operation.invoked <= *to);
        let unsure = match &operation.outcome {
            Outcome::Done(_) => false,
            Outcome::Refused(text) if text == "node not found" => races && writes && operation.asked.node().is_some(),
            Outcome::Refused(text) => is_unsure(text),
            Outcome::Unknown | Outcome::Pending | Outcome::TimedOut => true,
        };
        if reads && (unsure || matches!(operation.outcome, Outcome::Refused(_))) {
            continue;
        }
        let until = if unsure { NEVER } else { operation.returned };
        let index = match operation.outcome {
            Outcome::Done(Answered::Written(index) | Answered::Heard(index, _)) if index > 0 => Some(index),
            _ => None,
        };
        spans.push(Span { operation, until, optional: unsure, reads, index });
    }
    spans.sort_by_key(|span| span.operation.invoked);
    spans
}

const NEVER: Instant = Instant::from_nanos(u64::MAX);

enum Verdict {
    Fits,
    TooLarge,
    Wrong(String),
}

/// Which operations are placed: those before `first` all, then one bit each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    first: usize,
    bits: Vec<u64>,
    node: Node,
}

impl Placed {
    fn has(&self, at: usize) -> bool {
        at < self.first
            || self.bits.get((at - self.first) / 64).is_some_and(|word| word >> ((at - self.first) % 64) & 1 == 1)
    }

    fn with(&self, at: usize, node: Node) -> Placed {
        let mut next = self.clone();
        next.node = node;
        let word = (at - self.first) / 64;
        if next.bits.len() <= word {
            next.bits.resize(word + 1, 0);
        }
        if let Some(word) = next.bits.get_mut(word) {
            *word |= 1 << ((at - self.first) % 64);
        }
        // Whole words at the front are dropped, so that states stay small.
        while next.bits.first() == Some(&u64::MAX) {
            next.bits.remove(0);
            next.first += 64;
        }
        while next.bits.last() == Some(&0) {
            next.bits.pop();
        }
        next
    }
}

fn search(spans: &[Span<'_>], node: NodeNumber) -> Verdict {
    let mut seen = BTreeSet::new();
    let known: BTreeSet<u64> = spans.iter().filter_map(|span| span.index).collect();
    let mut stack = vec![Placed { first: 0, bits: Vec::new(), node: Node::nothing() }];
    let (mut best, mut stuck) = (0, String::new());
    while let Some(placed) = stack.pop() {
        if seen.len() > MAX_STATES {
            return Verdict::TooLarge;
        }
        let mut earliest_end = NEVER;
        let mut left = 0;
        for (at, span) in spans.iter().enumerate().skip(placed.first) {
            if !placed.has(at) && !span.optional {
                left += 1;
                earliest_end = earliest_end.min(span.until);
            }
        }
        if left == 0 {
            return Verdict::Fits;
        }
        let done = spans.len() - left;
        if done > best {
            best = done;
            stuck = describe(spans, &placed, node);
        }
        // The log orders writes by their indexes: none with a higher one can go first.
        let lowest = spans.iter().enumerate().skip(placed.first).filter(|(at, _)| !placed.has(*at));
        let lowest = lowest.filter_map(|(_, span)| span.index).min().unwrap_or(u64::MAX);
        let candidates = spans.iter().enumerate().skip(placed.first);
        let candidates = candidates.filter(|(_, span)| span.index.is_none_or(|index| index <= lowest));
        let candidates = candidates.filter(|(at, span)| !placed.has(*at) && span.operation.invoked <= earliest_end);
        let mut nexts = Vec::new();
        for (at, span) in candidates {
            let mut operation = span.operation.clone();
            if span.optional {
                operation.outcome = Outcome::Unknown;
            }
            let Some(after) = placed.node.after(&operation, node) else { continue };
            // A read that tells the index of a write whose writer was not told: no other write may have it.
            if span.reads && after != placed.node && after.index().is_some_and(|index| known.contains(&index)) {
                continue;
            }
            let next = placed.with(at, after);
            if span.reads && after == placed.node {
                // A read that fits now changes nothing: to place it at once is never wrong.
                nexts = vec![(span.until, next)];
                break;
            }
            // Of lost operations that would do the same, the first asked is tried; one that does nothing never is.
            let tried = |(other, earlier): &(usize, &Span<'_>)| {
                earlier.optional && !placed.has(*other) && same_effect(&earlier.operation.asked, &span.operation.asked)
            };
            if span.optional
                && (after == placed.node || spans.iter().enumerate().take(at).skip(placed.first).any(|one| tried(&one)))
            {
                continue;
            }
            nexts.push((span.until, next));
        }
        // Those that ended first are tried first: the stack gives back the last one.
        nexts.sort_by_key(|(until, _)| std::cmp::Reverse(*until));
        for (_, next) in nexts {
            if seen.insert(next.clone()) {
                stack.push(next);
            }
        }
    }
    Verdict::Wrong(stuck)
}

fn same_effect(a: &Asked, b: &Asked) -> bool {
    match (a, b) {
        (Asked::Register { .. }, Asked::Register { .. }) | (Asked::Drain { .. }, Asked::Drain { .. }) => true,
        (Asked::EndDrain { mark, .. }, Asked::EndDrain { mark: other, .. }) => mark == other,
        (a, b) => a == b,
    }
}

fn describe(spans: &[Span<'_>], placed: &Placed, node: NodeNumber) -> String {
    let mut left: Vec<&Span<'_>> = spans
        .iter()
        .enumerate()
        .filter(|(at, span)| !placed.has(*at) && !span.optional)
        .map(|(_, span)| span)
        .collect();
    left.sort_by_key(|span| span.until);
    let next: Vec<String> = left
        .iter()
        .take(3)
        .map(|span| {
            format!(
                "{} {:?} {:?} t={}..{}",
                span.operation.client, span.operation.asked, span.operation.outcome, span.operation.invoked, span.until
            )
        })
        .collect();
    format!("node {node} is {:?}, next {next:?}", placed.node)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::super::history::Seen;
    use super::*;
    use crate::state::node::NodeStatus;

    fn op(asked: Asked, times: (u64, u64), outcome: Outcome) -> Operation {
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        Operation { client: 0, life: 0, asked, invoked: at(times.0), returned: at(times.1), outcome }
    }

    fn register(times: (u64, u64), index: u64) -> Operation {
        op(Asked::Register { node: 0, nonce: index }, times, Outcome::Done(Answered::Heard(index, 1)))
    }

    fn eligibility(times: (u64, u64), eligible: bool, outcome: Outcome) -> Operation {
        op(Asked::Eligibility { node: 0, eligible }, times, outcome)
    }

    fn read(times: (u64, u64), eligible: bool, modify_index: u64) -> Operation {
        let status = NodeStatus::Initializing;
        let seen = Seen { status, eligible, draining: false, create_index: 1, modify_index };
        let outcome = Outcome::Done(Answered::Node(modify_index, Some(seen)));
        op(Asked::Get { node: 0, min: 0, wait_nanos: 0 }, times, outcome)
    }

    fn nothing(times: (u64, u64)) -> Operation {
        op(Asked::Get { node: 0, min: 0, wait_nanos: 0 }, times, Outcome::Done(Answered::Node(1, None)))
    }

    fn fits(operations: &[Operation]) -> bool {
        matches!(search(&of_node(operations, 0, "a"), 0), Verdict::Fits)
    }

    #[test]
    fn what_one_server_can_do_fits() {
        let written = |index| Outcome::Done(Answered::Written(index));
        assert!(fits(&[nothing((0, 1)), register((1, 2), 5), read((3, 4), true, 5)]));
        // At the same time, either order.
        assert!(fits(&[register((1, 4), 5), nothing((2, 3))]));
        assert!(fits(&[register((1, 4), 5), read((2, 3), true, 5)]));
        // An answer that never came: it happened, later than it seemed, or never.
        let lost = eligibility((3, 4), false, Outcome::Unknown);
        assert!(fits(&[register((1, 2), 5), lost.clone(), read((5, 6), true, 5)]));
        assert!(fits(&[register((1, 2), 5), lost.clone(), read((5, 6), false, 7)]));
        assert!(fits(&[register((1, 2), 5), lost, read((5, 6), true, 5), read((7, 8), false, 7)]));
        assert!(fits(&[register((1, 2), 5), eligibility((3, 4), true, written(0))]));
        assert!(fits(&[register((1, 2), 5), eligibility((3, 6), false, written(6)), read((4, 5), true, 5)]));
    }

    #[test]
    fn what_no_server_may_do_does_not() {
        let written = |index| Outcome::Done(Answered::Written(index));
        // Read before and after it was there.
        assert!(!fits(&[register((1, 2), 5), nothing((3, 4))]));
        assert!(!fits(&[read((0, 1), true, 5), register((2, 3), 5)]));
        // A stale read.
        let set = eligibility((3, 4), false, written(6));
        assert!(!fits(&[register((1, 2), 5), set.clone(), read((5, 6), true, 5)]));
        // Two readers that disagree about the order.
        assert!(!fits(&[
            register((1, 2), 5),
            eligibility((3, 9), false, written(6)),
            read((4, 5), false, 6),
            read((6, 7), true, 5)
        ]));
        // Indexes that go back.
        assert!(!fits(&[register((1, 2), 5), eligibility((3, 4), false, written(4))]));
        // A change that nobody made.
        assert!(!fits(&[register((1, 2), 5), read((3, 4), false, 6)]));
        // A write that happened twice.
        let lost = eligibility((3, 4), false, Outcome::Unknown);
        let back = eligibility((5, 6), true, written(7));
        assert!(!fits(&[register((1, 2), 5), lost, read((4, 5), false, 6), back, read((7, 8), false, 8)]));
    }
}
