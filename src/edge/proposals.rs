//! Proposals and everything else on their way to the consensus thread. When its queue is full, proposals wait here, in
//! order, and not for ever (requirement R1.81); the rest has a queue of its own, so that raft's messages never stand
//! behind writes (R8.23).

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::CallId;
use crate::base::time::Instant;
use crate::consensus::{Input, Proposal};

/// How long a proposal waits for room.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two tries while some wait.
const RETRY: Duration = Duration::from_millis(10);
/// Proposals that may wait; the ones after are refused at once.
const WAITING_MAX: usize = 65_536;

/// Hands proposals over without waiting; gives them back when there is no room.
pub type HandOver = Box<dyn FnMut(Vec<Proposal>) -> Result<(), Vec<Proposal>> + Send>;

/// Inputs that are no proposals and wait; raft's messages above are dropped, as a network would.
const INPUTS_WAITING_MAX: usize = 16_384;

/// Hands inputs over without waiting; gives them back when there is no room.
pub type Tell = Box<dyn FnMut(Vec<Input>) -> Result<(), Vec<Input>> + Send>;

/// The way to the consensus thread.
pub struct Proposals {
    hand_over: HandOver,
    /// `None`: nobody takes any.
    tell: Option<Tell>,
    inputs: Vec<Input>,
    waiting: VecDeque<(Instant, Vec<Proposal>)>,
    count: usize,
}

impl std::fmt::Debug for Proposals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proposals").field("waiting", &self.count).finish_non_exhaustive()
    }
}

impl Proposals {
    /// A way with nobody on it.
    pub fn new(hand_over: HandOver) -> Proposals {
        Proposals { hand_over, tell: None, inputs: Vec::new(), waiting: VecDeque::new(), count: 0 }
    }

    /// The same, with a lane for all that is no proposal.
    #[must_use]
    pub fn with_inputs(self, tell: Tell) -> Proposals {
        Proposals { tell: Some(tell), ..self }
    }

    /// Hands inputs over, after those that wait already.
    pub fn tell(&mut self, mut inputs: Vec<Input>) {
        if self.inputs.len() >= INPUTS_WAITING_MAX {
            inputs.retain(|input| !matches!(input, Input::Messages(_)));
        }
        self.inputs.append(&mut inputs);
        self.tell_waiting();
    }

    fn tell_waiting(&mut self) {
        let Some(tell) = &mut self.tell else {
            self.inputs.clear();
            return;
        };
        if !self.inputs.is_empty()
            && let Err(inputs) = tell(std::mem::take(&mut self.inputs))
        {
            self.inputs = inputs;
        }
    }

    /// Hands these over, after those that wait already. Says which are refused because too many wait.
    #[must_use]
    pub fn propose(&mut self, now: Instant, proposals: Vec<Proposal>) -> Vec<CallId> {
        let proposals = if self.waiting.is_empty() {
            match (self.hand_over)(proposals) {
                Ok(()) => return Vec::new(),
                Err(proposals) => proposals,
            }
        } else {
            proposals
        };
        if self.count + proposals.len() > WAITING_MAX {
            return proposals.iter().map(|proposal| proposal.id).collect();
        }
        self.count += proposals.len();
        self.waiting.push_back((now + WAIT_MAX, proposals));
        Vec::new()
    }

    /// Tries again. Says which have waited too long; they were never handed over.
    #[must_use]
    pub fn retry(&mut self, now: Instant) -> Vec<CallId> {
        self.tell_waiting();
        while let Some((deadline, proposals)) = self.waiting.pop_front() {
            let count = proposals.len();
            if let Err(proposals) = (self.hand_over)(proposals) {
                self.waiting.push_front((deadline, proposals));
                break;
            }
            self.count -= count;
        }
        let mut late = Vec::new();
        // They wait in the order of their deadlines.
        let due = self.waiting.partition_point(|(deadline, _)| *deadline <= now);
        for (_, proposals) in self.waiting.drain(..due) {
            self.count -= proposals.len();
            late.extend(proposals.iter().map(|proposal| proposal.id));
        }
        late
    }

    /// When [`Proposals::retry`] is wanted.
    pub fn next_retry(&self, now: Instant) -> Option<Instant> {
        let soon = (!self.inputs.is_empty()).then_some(now + RETRY);
        let proposals = self.waiting.front().map(|(deadline, _)| (now + RETRY).min(*deadline));
        soon.into_iter().chain(proposals).min()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::entry::Command;
    use std::sync::{Arc, Mutex};

    type Taken = Arc<Mutex<(usize, Vec<u64>)>>;

    /// Takes as many batches as the first number says.
    fn way() -> (Proposals, Taken) {
        let taken: Taken = Arc::default();
        let inner = Arc::clone(&taken);
        let hand_over: HandOver = Box::new(move |proposals: Vec<Proposal>| {
            let mut taken = inner.lock().unwrap();
            if taken.0 == 0 {
                return Err(proposals);
            }
            taken.0 -= 1;
            taken.1.extend(proposals.iter().map(|proposal| proposal.id.0));
            Ok(())
        });
        (Proposals::new(hand_over), taken)
    }

    fn batch(ids: std::ops::Range<u64>) -> Vec<Proposal> {
        ids.map(|id| Proposal { id: CallId(id), session: None, command: Command::Noop }).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    // R1.81
    #[test]
    fn they_wait_in_order_and_not_for_ever() {
        let (mut way, taken) = way();
        taken.lock().unwrap().0 = 1;
        assert!(way.propose(at(0), batch(0..2)).is_empty());
        assert_eq!(way.next_retry(at(0)), None);
        for (time, ids) in [(0, 2..3), (1, 3..5), (2, 5..6)] {
            assert!(way.propose(at(time), batch(ids)).is_empty());
        }
        assert_eq!(way.next_retry(at(0)), Some(at(0) + RETRY));
        taken.lock().unwrap().0 = 1;
        assert!(way.retry(at(3)).is_empty());
        assert_eq!(taken.lock().unwrap().1, [0, 1, 2]);
        assert_eq!(way.retry(at(31)), [CallId(3), CallId(4)]);
        // A late one never overtakes one that waits.
        taken.lock().unwrap().0 = 9;
        assert!(way.propose(at(31), batch(6..7)).is_empty());
        assert!(way.retry(at(31)).is_empty());
        assert_eq!(taken.lock().unwrap().1, [0, 1, 2, 5, 6]);
        assert_eq!((way.count, way.next_retry(at(31))), (0, None));
    }

    #[test]
    fn too_many_are_refused_at_once() {
        let (mut way, _) = way();
        assert!(way.propose(at(0), batch(0..WAITING_MAX as u64)).is_empty());
        assert_eq!(way.propose(at(0), batch(0..2)), [CallId(0), CallId(1)]);
    }
}
