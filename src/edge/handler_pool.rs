//! The handler threads and their bounded queue: heavy requests are answered here, against the root that was published
//! when they began.
//!
//! A handler never waits; what it wants to wait for, it returns. A full queue answers at once with an error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::server::port::{Job, JobOutcome};
use crate::server::run::run_job;
use crate::state::State;

use super::inbox::{Post, Told};

/// Jobs that may wait for a thread; one more is answered with [`JobOutcome::Overloaded`].
pub const QUEUED_JOBS_MAX: usize = 4096;
/// How long the end of the process waits for handlers that are running.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// Threads that run jobs.
#[derive(Debug)]
pub struct HandlerPool {
    queue: Sender<Job>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Nothing is ever sent: it disconnects when the last thread has ended.
    all_ended: Receiver<()>,
}

/// A thread pool's size for the setting `rpc.handler_threads`: 0 stands for one a core.
pub fn thread_count(setting: usize) -> usize {
    match setting {
        0 => thread::available_parallelism().map_or(1, std::num::NonZero::get),
        count => count,
    }
}

impl HandlerPool {
    /// Starts `threads` threads with a queue of `queued_max` jobs before them.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(
        threads: usize,
        queued_max: usize,
        root: &Arc<ArcSwap<State>>,
        post: &Post,
    ) -> io::Result<HandlerPool> {
        let (queue, jobs) = crossbeam_channel::bounded(queued_max);
        let (ended, all_ended) = crossbeam_channel::bounded::<()>(0);
        let stopping = Arc::new(AtomicBool::new(false));
        let mut pool = HandlerPool { queue, stopping, threads: Vec::new(), all_ended };
        for number in 0..threads {
            let (jobs, root, post, ended) = (jobs.clone(), Arc::clone(root), post.clone(), ended.clone());
            let stopping = Arc::clone(&pool.stopping);
            let thread = thread::Builder::new().name(format!("handler-{number}")).spawn(move || {
                work(&jobs, &root, &post, &stopping);
                drop(ended);
            })?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    /// Hands a job over. `None`: its outcome comes by the inbox; otherwise this is its outcome.
    pub fn run(&self, job: Job) -> Option<(Job, JobOutcome)> {
        match self.queue.try_send(job) {
            Ok(()) => None,
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some((job, JobOutcome::Overloaded)),
        }
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Ends the threads: what waits is dropped, what runs is waited for, at most two seconds. False when a handler
    /// still ran then; its thread ends with the process.
    pub fn stop(self) -> bool {
        self.stopping.store(true, Ordering::SeqCst);
        drop(self.queue);
        if self.all_ended.recv_timeout(STOP_WAIT_MAX) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        self.threads.into_iter().all(|thread| thread.join().is_ok())
    }
}

fn work(jobs: &Receiver<Job>, root: &ArcSwap<State>, post: &Post, stopping: &AtomicBool) {
    for job in jobs {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let outcome = run_job(&job, &root.load());
        if !post.tell(Told::Ran { job: job.id, outcome }) {
            return;
        }
    }
}
