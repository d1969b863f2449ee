//! What one node of the registry is, as clients can tell: which results each operation may have, and what it leaves.

use crate::state::node::NodeStatus;

use super::super::history::{Answered, Asked, NodeNumber, Operation, Outcome, Seen};

/// What one node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node {
    /// Registered.
    pub(super) there: bool,
    status: NodeStatus,
    eligible: bool,
    draining: bool,
    /// Its ModifyIndex; `None` after a write whose index nobody was told.
    index: Option<u64>,
    /// Every later write has an index above this one.
    last: u64,
}

impl Node {
    /// Before anything.
    pub(super) fn nothing() -> Node {
        Node { there: false, status: NodeStatus::Initializing, eligible: true, draining: false, index: None, last: 0 }
    }

    /// Its ModifyIndex, as far as it was told.
    pub(super) fn index(self) -> Option<u64> {
        self.index
    }

    /// A write at this index, if that is known.
    fn written(mut self, index: Option<u64>) -> Option<Node> {
        if let Some(index) = index {
            if index <= self.last {
                return None;
            }
            self.last = index;
        }
        self.index = index;
        Some(self)
    }

    /// What the node is after an operation took effect with its result; `None` where that cannot be.
    pub(super) fn after(self, operation: &Operation, node: NodeNumber) -> Option<Node> {
        match (&operation.asked, &operation.outcome) {
            (Asked::Get { .. }, Outcome::Done(Answered::Node(_, seen))) => self.is_seen(seen.as_ref()),
            (Asked::List { .. }, Outcome::Done(Answered::Nodes(_, nodes))) => self.is_seen(nodes.get(&node)),
            (_, Outcome::Done(Answered::Written(0) | Answered::Heard(0, _))) => self.unchanged(&operation.asked),
            (asked, Outcome::Done(Answered::Written(index) | Answered::Heard(index, _))) => {
                self.change(asked, Some(*index))
            }
            (asked, Outcome::Refused(text)) => self.refused(asked, text),
            (asked, _) => self.change(asked, None),
        }
    }

    /// Reads it; the first one after a write without a known index tells that index.
    fn is_seen(mut self, seen: Option<&Seen>) -> Option<Node> {
        let Some(seen) = seen else { return (!self.there).then_some(self) };
        let same = (self.there, self.status, self.eligible, self.draining)
            == (true, seen.status, seen.eligible, seen.draining);
        if !same || self.index.is_some_and(|index| index != seen.modify_index) {
            return None;
        }
        if self.index.is_none() {
            if seen.modify_index <= self.last {
                return None;
            }
            self.index = Some(seen.modify_index);
            self.last = seen.modify_index;
        }
        Some(self)
    }

    /// A write that found nothing to do.
    fn unchanged(self, asked: &Asked) -> Option<Node> {
        let is_so = match asked {
            Asked::Status { status, .. } => self.status == *status,
            Asked::Eligibility { eligible, .. } => self.eligible == *eligible,
            _ => false,
        };
        (self.there && is_so).then_some(self)
    }

    fn refused(self, asked: &Asked, text: &str) -> Option<Node> {
        let may = match (asked, text) {
            (Asked::DrainComplete { .. } | Asked::Expire { .. }, _) => true,
            (_, "node not found") => !self.there,
            (Asked::Eligibility { .. }, text) if text.starts_with("can not set node's") => self.there && self.draining,
            _ => true,
        };
        may.then_some(self)
    }

    fn change(mut self, asked: &Asked, index: Option<u64>) -> Option<Node> {
        if !self.there && !matches!(asked, Asked::Register { .. }) {
            return None;
        }
        match asked {
            Asked::Register { .. } => {
                if !self.there {
                    self = Node { there: true, index: None, last: self.last, ..Node::nothing() };
                }
            }
            Asked::Status { status, .. } => self.status = *status,
            Asked::Expire { expected, .. } => {
                if self.index.is_some_and(|index| index != *expected) {
                    return None;
                }
                self.status = NodeStatus::Down;
            }
            Asked::Drain { .. } => (self.draining, self.eligible) = (true, false),
            Asked::EndDrain { mark, .. } => {
                self.draining = false;
                self.eligible |= mark;
            }
            Asked::DrainComplete { .. } => {
                if !self.draining {
                    return None;
                }
                self.draining = false;
            }
            Asked::Eligibility { eligible, .. } => {
                if *eligible && self.draining {
                    return None;
                }
                if self.eligible == *eligible {
                    return Some(self);
                }
                self.eligible = *eligible;
            }
            Asked::Deregister { .. } => self.there = false,
            // The node counts as unchanged.
            Asked::Emit { .. } => return Some(self),
            Asked::Ping | Asked::Get { .. } | Asked::List { .. } | Asked::CallNode { .. } => return Some(self),
            Asked::Var(_) | Asked::Transfer { .. } | Asked::Remove { .. } => return Some(self),
            Asked::Stamped(_) | Asked::Session(_) => return Some(self),
        }
        self.written(index)
    }
}
