//! Handler jobs: each runs when the seed says, against the root that is published then, and its outcome reaches the
//! loop later still, in any order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::base::id::CallId;
use crate::server::port::{Job, JobOutcome};
use crate::server::run::run_job;
use crate::state::State;

use super::fault::Fault;
use super::ground::{Event, Ground, Inner};

/// Roots kept for the planted fault that reads old ones.
const OLD_ROOTS: usize = 4;

/// Jobs that wait for a thread.
#[derive(Default)]
pub struct Jobs {
    waiting: BTreeMap<u64, Job>,
    next: u64,
    old_roots: VecDeque<Arc<State>>,
    held_back: Option<(CallId, JobOutcome)>,
}

impl Jobs {
    /// Takes a job; gives it back with its outcome when the queue is full.
    pub fn take(&mut self, ground: &mut Ground, life: usize, job: Job) -> Option<(CallId, JobOutcome)> {
        if ground.rng.chance(ground.options.pool_full, 100) {
            return Some((job.id, JobOutcome::Overloaded));
        }
        self.next += 1;
        self.waiting.insert(self.next, job);
        let wait = ground.a_while(ground.options.thread_delay);
        ground.after(wait, Event::Process(life, Inner::RunJob(self.next)));
        None
    }

    /// Jobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A root was published.
    pub fn published(&mut self, root: &Arc<State>) {
        self.old_roots.push_back(Arc::clone(root));
        if self.old_roots.len() > OLD_ROOTS {
            self.old_roots.pop_front();
        }
    }

    /// A thread runs a job.
    pub fn run(&mut self, ground: &mut Ground, life: usize, key: u64, root: &ArcSwap<State>) {
        let Some(job) = self.waiting.remove(&key) else { return };
        let mut state = root.load_full();
        if ground.fault(Fault::OldRoot, 30)
            && let Some(old) = self.old_roots.front()
        {
            state = Arc::clone(old);
        }
        let outcome = run_job(&job, &state);
        if ground.fault(Fault::LoseOutcome, 10) {
            return;
        }
        let (mut id, mut outcome) = (job.id, outcome);
        if matches!(outcome, JobOutcome::Call(_)) && ground.fault(Fault::SwapOutcomes, 100) {
            match self.held_back.take() {
                None => {
                    self.held_back = Some((id, outcome));
                    return;
                }
                Some((other_id, other)) => {
                    self.tell(ground, life, id, other);
                    (id, outcome) = (other_id, outcome);
                }
            }
        }
        if let JobOutcome::Panicked(text) = &mut outcome {
            ground.wrong(format!("a handler panicked: {text}"));
        }
        self.tell(ground, life, id, outcome);
    }

    fn tell(&mut self, ground: &mut Ground, life: usize, job: CallId, outcome: JobOutcome) {
        let wait = ground.a_while(ground.options.thread_delay);
        ground.after(wait, Event::Process(life, Inner::Ran(job, Box::new(outcome))));
    }
}
