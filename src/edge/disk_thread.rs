//! Writes of the log, in order: on the thread that asks while the group is one server, which saves a change of threads
//! for each sync, and otherwise on a thread of their own, so that a leader whose disk stands still goes on ticking and
//! can step down (R8.4). One write is one sync either way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::base::id::Index;
use crate::consensus::{HardState, Log, Persist, SnapshotMeta};
use crate::edge::consensus_thread::SnapshotWriter;
use crate::edge::log_store::panic_text;
use crate::state::State;

/// Writes that may wait. There is one of the replica's at a time, and now and then a compaction.
const JOBS_MAX: usize = 64;

/// What is to be written.
pub(super) enum Job {
    Persist(Persist),
    Compact(Index),
    /// A leader's snapshot, and the log anew behind it.
    Install(u64, SnapshotMeta, Arc<State>, HardState),
}

/// The ticket that is to be answered, if there is one; or what the disk said.
pub(super) type Done = Result<Option<u64>, String>;

/// The log and who writes it.
pub(super) struct Disk {
    log: Arc<Mutex<Box<dyn Log + Send>>>,
    write_snapshot: Arc<SnapshotWriter>,
    thread: Option<DiskThread>,
    /// Given to the thread, and not done.
    under_way: usize,
}

struct DiskThread {
    jobs: Sender<Job>,
    done: Receiver<Done>,
    thread: JoinHandle<()>,
}

impl Disk {
    pub(super) fn new(log: Box<dyn Log + Send>, write_snapshot: Arc<SnapshotWriter>) -> Disk {
        Disk { log: Arc::new(Mutex::new(log)), write_snapshot, thread: None, under_way: 0 }
    }

    /// Writes at once, or has it written: then [`Disk::done`] tells the end. `None` for the latter.
    pub(super) fn write(&mut self, job: Job, at_once: bool) -> Option<Done> {
        if at_once && self.under_way == 0 {
            return Some(perform(&self.log, &*self.write_snapshot, job));
        }
        let thread = match self.thread.take().map_or_else(|| self.start(), Ok) {
            Ok(thread) => self.thread.insert(thread),
            Err(why) => return Some(Err(why)),
        };
        self.under_way += 1;
        match thread.jobs.send(job) {
            Ok(()) => None,
            Err(_) => Some(Err("the thread that writes the log has ended".to_owned())),
        }
    }

    /// Where the thread tells what it has done; `None` while there is nothing to wait for.
    pub(super) fn done(&self) -> Option<&Receiver<Done>> {
        self.thread.as_ref().filter(|_| self.under_way > 0).map(|thread| &thread.done)
    }

    /// One of the thread's writes was taken note of.
    pub(super) fn took_note(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Waits for what is under way.
    pub(super) fn end(mut self) -> Result<(), String> {
        let Some(DiskThread { jobs, done, thread }) = self.thread.take() else { return Ok(()) };
        drop(jobs);
        let failed = done.iter().find_map(Result::err);
        let _ = thread.join();
        failed.map_or(Ok(()), Err)
    }

    fn start(&self) -> Result<DiskThread, String> {
        let (jobs, inbox) = bounded::<Job>(JOBS_MAX);
        let (outbox, done) = bounded(JOBS_MAX * 2);
        let (log, write_snapshot) = (Arc::clone(&self.log), Arc::clone(&self.write_snapshot));
        let work = move || {
            for job in inbox {
                let written = catch_unwind(AssertUnwindSafe(|| perform(&log, &*write_snapshot, job)));
                let written = written.unwrap_or_else(|panic| Err(panic_text(&*panic)));
                let failed = written.is_err();
                if outbox.send(written).is_err() || failed {
                    return;
                }
            }
        };
        let thread = Builder::new().name("log".to_owned()).spawn(work);
        let thread = thread.map_err(|e| format!("starting the thread that writes the log: {e}"))?;
        Ok(DiskThread { jobs, done, thread })
    }
}

fn perform(log: &Mutex<Box<dyn Log + Send>>, write_snapshot: &SnapshotWriter, job: Job) -> Done {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    match job {
        Job::Persist(persist) => log.persist(&persist).map(|()| Some(persist.ticket)),
        Job::Compact(index) => log.compact(index).map(|()| None),
        Job::Install(ticket, meta, state, hard_state) => {
            // The snapshot first: a crash between finds it whole, and drops what the old log holds behind it.
            write_snapshot(&meta, &state)?;
            log.begin_anew(hard_state).map(|()| Some(ticket))
        }
    }
}
