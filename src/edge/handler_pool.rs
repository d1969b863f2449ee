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
        if !post.tell(Told::Ran { job: job.id, outcome: Box::new(outcome) }) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Mutex;

    use crate::api::outcome::{Outcome, Reply, ReplyResult};
    use crate::api::{Access, Caller, Ctx, Method, RaftFacts, Request, ServerFacts, Weight};
    use crate::base::id::CallId;
    use crate::base::time::WallTime;
    use crate::edge::inbox::Bell;
    use crate::server::port::Work;

    fn ctx() -> Ctx {
        let server = ServerFacts {
            name: "hf1".to_owned(),
            id: String::new(),
            region: "global".to_owned(),
            datacenter: "dc1".to_owned(),
            regions: Vec::new(),
            rpc_addr: String::new(),
            bootstrap_expect: 1,
            verify_tls_names: false,
            acl_enabled: false,
            variables_max_bytes: 65_536,
            locks_min_ttl: Duration::from_secs(10),
            entropy: crate::api::secrets::Entropy([7; 32]),
            config_json: "{}".into(),
        };
        Ctx {
            server: Arc::new(server),
            leader_rpc_addr: Arc::from(""),
            is_leader: true,
            raft: RaftFacts::default(),
            servers: Arc::new([]),
            last_contact: Duration::ZERO,
            known_leader: true,
            wall: WallTime::default(),
            heartbeat_ttl: Duration::ZERO,
            seed: 0,
            stamp: None,
            cluster_id: "".into(),
            signer: None,
            sealer: None,
            acl_bootstrap_reset: None,
            lock_waiters: 0,
            stats_json: None,
            node_conn_established: None,
            connections: None,
        }
    }

    fn job(id: u64, method: &'static Method) -> Job {
        let caller =
            Caller { peer: "127.0.0.1:1".parse().unwrap(), tls_names: None, proven_node: None, good_token: None };
        let work = Work::Call { method, body: Arc::from([]), base: 0, last_run: false };
        Job { id: CallId(id), work, caller: Arc::new(caller), ctx: Arc::new(ctx()) }
    }

    const fn method(name: &'static str, run: fn(&Request<'_>, &State, &Ctx) -> Outcome) -> Method {
        Method { name, access: Access::Local, weight: Weight::Heavy, heartbeat: false, run }
    }

    /// A handler is held up while this is locked.
    static GATE: Mutex<()> = Mutex::new(());
    static WAITS: Method = method("Test.Waits", |request, _, _| {
        drop(GATE.lock());
        Outcome::Reply(Reply { result: ReplyResult::Error(request.method.to_owned()), effects: Vec::new() })
    });
    static PANICS: Method = method("Test.Panics", |_, _, _| panic!("a fault of ours"));

    fn answer() -> JobOutcome {
        let result = ReplyResult::Error("Test.Waits".to_owned());
        JobOutcome::Call(Outcome::Reply(Reply { result, effects: Vec::new() }))
    }

    // R6.7, R6.9
    #[test]
    fn a_full_queue_answers_at_once_and_a_panic_harms_only_its_own() {
        let poll = mio::Poll::new().unwrap();
        let bell = Arc::new(Bell::new(poll.registry(), mio::Token(0)).unwrap());
        let (post, inbox) = Post::new(bell);
        let root = Arc::new(ArcSwap::from_pointee(State::default()));
        let pool = HandlerPool::start(2, 3, &root, &post).unwrap();
        let gate = GATE.lock().unwrap();
        // Two run, three wait; which of the first two a thread takes when is the system's choice, so all are offered
        // until one comes back.
        let mut taken = 0;
        let refused = loop {
            match pool.run(job(taken, &WAITS)) {
                None => taken += 1,
                Some((job, outcome)) => {
                    assert_eq!(outcome, JobOutcome::Overloaded);
                    break job.id;
                }
            }
        };
        assert!((3..=5).contains(&taken) && refused == CallId(taken));
        assert!(inbox.is_empty());
        drop(gate);
        let told = |inbox: &Receiver<Told>| match inbox.recv_timeout(Duration::from_secs(60)).unwrap() {
            Told::Ran { job, outcome } => (job.0, *outcome),
            other => panic!("{other:?}"),
        };
        let mut done: Vec<u64> = (0..taken)
            .map(|_| {
                let (job, outcome) = told(&inbox);
                assert_eq!(outcome, answer());
                job
            })
            .collect();
        done.sort_unstable();
        assert_eq!(done, (0..taken).collect::<Vec<_>>());
        assert!(pool.run(job(100, &PANICS)).is_none());
        assert_eq!(told(&inbox), (100, JobOutcome::Panicked("a fault of ours".to_owned())));
        assert!(pool.run(job(101, &WAITS)).is_none());
        assert_eq!(told(&inbox), (101, answer()));
        assert!(pool.stop());
    }
}
