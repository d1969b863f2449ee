//! The consensus thread: owns the replica and its log, and does what the replica asks for.
//!
//! It gathers all proposals that wait, so that they share a sync; publishes the root before it tells anyone what
//! changed; and sleeps without a timer when there is nothing to do. It never touches a socket. After an error of the
//! disk it stops: nothing is synced twice.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use crate::base::id::Index;
use crate::base::time::Clock;
use crate::consensus::{Input, Log, Notice, Output, Proposal, Replica, SnapshotMeta};
use crate::edge::log_store::panic_text;
use crate::state::State;

/// Proposals that are handed over at once; the rest wait for the next sync.
const MAX_GATHERED: usize = 8192;

/// What the thread can be told.
#[derive(Debug)]
pub enum ConsensusCommand {
    /// Proposals that came together.
    Propose(Vec<Proposal>),
    /// Settle what can be settled, then end.
    Stop,
}

/// Writes a snapshot; synced when it returns, an error with the path.
pub type SnapshotWriter = dyn Fn(&SnapshotMeta, &State) -> Result<(), String> + Send + Sync;

/// All that the thread works with.
pub struct ConsensusParts {
    /// The replica.
    pub replica: Box<dyn Replica + Send>,
    /// Its log.
    pub log: Box<dyn Log + Send>,
    /// Writes one snapshot, on a thread of its own.
    pub write_snapshot: Arc<SnapshotWriter>,
    /// Commands. A bounded channel: a full one is answered where it is filled.
    pub commands: Receiver<ConsensusCommand>,
    /// Everything but proposals; goes before them (R8.23).
    pub inputs: Receiver<Vec<Input>>,
    /// Where the root is published.
    pub root: Arc<ArcSwap<State>>,
    /// Notices to the server, all of a round together. After [`Notice::Fatal`] the thread has ended.
    pub notices: Sender<Vec<Notice>>,
    /// Called after each send.
    pub wake: Box<dyn Fn() + Send>,
    /// The time.
    pub clock: Box<dyn Clock + Send>,
}

/// Starts the thread. It ends after [`ConsensusCommand::Stop`], when nobody is left to send one, or when it cannot
/// go on.
///
/// # Errors
/// The system has no thread to give.
pub fn spawn(parts: ConsensusParts) -> io::Result<JoinHandle<()>> {
    Builder::new().name("consensus".to_owned()).spawn(move || {
        let mut thread = ConsensusThread { parts, told: Vec::new(), snapshot: None, stopping: false };
        let ended = catch_unwind(AssertUnwindSafe(|| thread.run()));
        let why = match ended {
            Ok(Ok(())) => return,
            Ok(Err(End::Told)) => return,
            Ok(Err(End::Failed(why))) => why,
            Err(panic) => format!("the consensus thread panicked: {}", panic_text(&*panic)),
        };
        // The log is not closed in order: that would sync what already failed. The process ends now.
        let _ = thread.parts.notices.send(vec![Notice::Fatal(why)]);
        (thread.parts.wake)();
        std::mem::forget(thread);
    })
}

/// Why the thread ends before it was asked to.
enum End {
    /// The replica said so itself, or nobody listens.
    Told,
    /// To be told.
    Failed(String),
}

struct ConsensusThread {
    parts: ConsensusParts,
    /// Not sent yet.
    told: Vec<Notice>,
    snapshot: Option<Writing>,
    stopping: bool,
}

/// A snapshot that is being written.
struct Writing {
    done: Receiver<Result<Index, String>>,
    thread: JoinHandle<()>,
}

/// What woke the thread.
enum Woken {
    Command(ConsensusCommand),
    Written(Result<Index, String>),
    Deadline,
    Alone,
}

impl ConsensusThread {
    fn run(&mut self) -> Result<(), End> {
        self.follow_outputs()?;
        while !(self.stopping && self.parts.replica.poll_timeout().is_none()) {
            match self.wait() {
                Woken::Command(command) => self.gather(command)?,
                Woken::Written(written) => self.snapshot_written(written)?,
                Woken::Deadline => self.input(Input::Timeout)?,
                Woken::Alone => self.stop()?,
            }
        }
        // A snapshot that is on its way is finished; what was still sent here is answered.
        if let Some(writing) = &self.snapshot {
            let written = writing.done.recv().unwrap_or_else(|_| Err("the snapshot writer ended".to_owned()));
            self.snapshot_written(written)?;
        }
        while let Ok(command) = self.parts.commands.try_recv() {
            self.gather(command)?;
        }
        Ok(())
    }

    /// Sleeps until there is something to do. Without a deadline there is no timer.
    fn wait(&self) -> Woken {
        let commands = &self.parts.commands;
        let deadline = self.parts.replica.poll_timeout();
        if deadline.is_none() && self.snapshot.is_none() {
            return commands.recv().map_or(Woken::Alone, Woken::Command);
        }
        let timer = deadline.map_or_else(never, |at| after(at.since(self.parts.clock.now())));
        let nothing = never();
        let done = self.snapshot.as_ref().map_or(&nothing, |writing| &writing.done);
        // While stopping, a channel that nobody fills would wake the thread for ever.
        let quiet = never();
        let commands = if self.stopping && commands.is_empty() { &quiet } else { commands };
        select! {
            recv(commands) -> command => command.map_or(Woken::Alone, Woken::Command),
            recv(done) -> written => {
                Woken::Written(written.unwrap_or_else(|_| Err("the snapshot writer ended".to_owned())))
            }
            recv(timer) -> _ => Woken::Deadline,
        }
    }

    /// Takes all proposals that wait, in order, and hands them over as one.
    fn gather(&mut self, first: ConsensusCommand) -> Result<(), End> {
        let mut proposals = Vec::new();
        let mut next = Some(first);
        let mut stop = false;
        while let Some(command) = next {
            match command {
                ConsensusCommand::Propose(more) => proposals.extend(more),
                ConsensusCommand::Stop => {
                    stop = true;
                    break;
                }
            }
            if proposals.len() >= MAX_GATHERED {
                break;
            }
            next = self.parts.commands.try_recv().ok();
        }
        if !proposals.is_empty() {
            self.input(Input::Propose(proposals))?;
        }
        if stop { self.stop() } else { Ok(()) }
    }

    fn stop(&mut self) -> Result<(), End> {
        self.stopping = true;
        self.input(Input::Stop)
    }

    fn input(&mut self, input: Input) -> Result<(), End> {
        self.hand_in(input);
        self.follow_outputs()
    }

    fn hand_in(&mut self, input: Input) {
        let (now, wall) = (self.parts.clock.now(), self.parts.clock.wall());
        self.parts.replica.handle_input(now, wall, input);
    }

    /// Does what the replica asks for, until it asks for nothing more; then tells the server, once.
    fn follow_outputs(&mut self) -> Result<(), End> {
        while let Some(output) = self.parts.replica.poll_output() {
            match output {
                Output::Publish { root, notices } => {
                    if let Some(root) = root {
                        self.parts.root.store(root);
                    }
                    self.told.extend(notices);
                }
                Output::Persist(persist) => {
                    // Nobody waits for a sync that is not his.
                    self.tell()?;
                    self.parts.log.persist(&persist).map_err(End::Failed)?;
                    self.hand_in(Input::Persisted { ticket: persist.ticket });
                }
                Output::WriteSnapshot(meta, state) => self.write_snapshot(meta, state)?,
                Output::Install { .. } => {}
                Output::Compact(index) => {
                    self.tell()?;
                    self.parts.log.compact(index).map_err(End::Failed)?;
                }
            }
        }
        self.tell()
    }

    fn tell(&mut self) -> Result<(), End> {
        if self.told.is_empty() {
            return Ok(());
        }
        let fatal = self.told.iter().any(|notice| matches!(notice, Notice::Fatal(_)));
        let heard = self.parts.notices.send(std::mem::take(&mut self.told)).is_ok();
        (self.parts.wake)();
        if fatal || !heard { Err(End::Told) } else { Ok(()) }
    }

    fn write_snapshot(&mut self, meta: SnapshotMeta, state: Arc<State>) -> Result<(), End> {
        let (sender, done) = bounded(1);
        let write = Arc::clone(&self.parts.write_snapshot);
        let job = move || {
            let written = catch_unwind(AssertUnwindSafe(|| write(&meta, &state).map(|()| meta.index)));
            let _ = sender.send(written.unwrap_or_else(|panic| Err(panic_text(&*panic))));
        };
        let thread = Builder::new().name("snapshot".to_owned()).spawn(job);
        let thread = thread.map_err(|e| End::Failed(format!("starting the snapshot writer: {e}")))?;
        self.snapshot = Some(Writing { done, thread });
        Ok(())
    }

    fn snapshot_written(&mut self, written: Result<Index, String>) -> Result<(), End> {
        if let Some(writing) = self.snapshot.take() {
            // It has sent its last word; the join only waits for its stack to go.
            let _ = writing.thread.join();
        }
        let index = written.map_err(End::Failed)?;
        self.input(Input::SnapshotWritten { index })
    }
}

#[cfg(test)]
mod tests;
