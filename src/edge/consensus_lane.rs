//! What the server tells the consensus thread beside proposals: other replicas' messages before all, on a lane of its
//! own, so that no flood of writes holds up a heartbeat (requirement R8.23).
//!
//! Never waits: what finds no room stays here, in order, up to a cap; over it messages are dropped, which raft is made
//! for, and nothing else is.

use std::collections::VecDeque;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::base::time::Instant;
use crate::consensus::Input;

/// Batches that may wait in the channel.
pub const LANE_BATCHES_MAX: usize = 1024;
/// Batches that may wait behind it; messages are dropped over that.
const WAITING_MAX: usize = 1024;
/// Between two tries while some wait.
const RETRY: Duration = Duration::from_millis(5);

/// The way to the consensus thread for everything but proposals.
#[derive(Debug)]
pub struct ConsensusLane {
    sender: Sender<Vec<Input>>,
    waiting: VecDeque<Vec<Input>>,
    dropped: u64,
}

impl ConsensusLane {
    /// A lane, and its end at the consensus thread.
    pub fn new() -> (ConsensusLane, Receiver<Vec<Input>>) {
        let (sender, receiver) = crossbeam_channel::bounded(LANE_BATCHES_MAX);
        (ConsensusLane { sender, waiting: VecDeque::new(), dropped: 0 }, receiver)
    }

    /// Hands these over, after those that wait already.
    pub fn send(&mut self, mut inputs: Vec<Input>) {
        if self.waiting.len() >= WAITING_MAX {
            let before = inputs.len();
            inputs.retain(|input| !matches!(input, Input::Messages(_)));
            self.dropped += (before - inputs.len()) as u64;
        }
        if !inputs.is_empty() {
            self.waiting.push_back(inputs);
        }
        self.retry();
    }

    /// Tries again to hand over what waits.
    pub fn retry(&mut self) {
        while let Some(inputs) = self.waiting.pop_front() {
            match self.sender.try_send(inputs) {
                Ok(()) => {}
                Err(TrySendError::Full(inputs)) => return self.waiting.push_front(inputs),
                // The end of the thread is told by its notices.
                Err(TrySendError::Disconnected(_)) => return self.waiting.clear(),
            }
        }
        if self.dropped > 0 {
            log::warn!("the consensus thread was too slow: dropped_batches={}", self.dropped);
            self.dropped = 0;
        }
    }

    /// When [`ConsensusLane::retry`] is wanted.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| now + RETRY)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::base::id::{CallId, ReplicaId};

    fn read(id: u64) -> Vec<Input> {
        vec![Input::ReadIndex { id: CallId(id) }]
    }

    fn id_of(batch: &[Input]) -> u64 {
        match batch {
            [Input::ReadIndex { id }] => id.0,
            other => panic!("{other:?}"),
        }
    }

    // R8.23
    #[test]
    fn what_finds_no_room_waits_in_order() {
        let (mut lane, receiver) = ConsensusLane::new();
        let count = LANE_BATCHES_MAX as u64 + 10;
        (0..count).for_each(|id| lane.send(read(id)));
        assert!(lane.next_retry(Instant::ZERO).is_some());
        let mut seen = Vec::new();
        while seen.len() < count as usize {
            seen.extend(receiver.try_iter().map(|batch| id_of(&batch)));
            lane.retry();
        }
        assert!(seen.into_iter().eq(0..count));
        assert_eq!(lane.next_retry(Instant::ZERO), None);
    }

    // R8.23
    #[test]
    fn over_the_cap_only_messages_are_dropped() {
        let (mut lane, receiver) = ConsensusLane::new();
        let count = (LANE_BATCHES_MAX + WAITING_MAX) as u64;
        (0..count).for_each(|id| lane.send(read(id)));
        lane.send(vec![Input::Messages(Vec::new()), Input::Unreachable(ReplicaId(1))]);
        lane.send(vec![Input::Messages(Vec::new())]);
        let mut last = None;
        for _ in 0..3 {
            last = receiver.try_iter().last().or(last);
            lane.retry();
        }
        assert!(matches!(last.unwrap().as_slice(), [Input::Unreachable(ReplicaId(1))]));
    }
}
