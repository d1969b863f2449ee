//! The consensus thread: owns the replica and its log, and does what the replica asks for.
//!
//! It gathers all proposals that wait, so that they share a sync, but looks at the lane of raft's messages first and in
//! between (R8.23); publishes the root before it tells anyone what changed; and sleeps without a timer when there is
//! nothing to do. It never touches a socket. After an error of the disk it stops: nothing is synced twice.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, after, bounded, never, select};

use crate::base::id::Index;
use crate::base::time::{Clock, Instant};
use crate::consensus::proposals::resolved;
use crate::consensus::{Input, Log, Membership, Notice, Output, Proposal, Replica, Resolution, SnapshotMeta};
use crate::edge::disk_thread::{Disk, Done, Job};
use crate::edge::log_store::panic_text;
use crate::state::State;

/// Proposals that are handed over at once; the rest wait for the next sync, and for raft's messages before it.
const MAX_GATHERED: usize = 4096;

/// Batches of other inputs that are taken before proposals are looked at.
const MAX_INPUTS: usize = 256;

/// A proposal that waited longer for this thread is rejected: whoever asked has given up (R8.23).
const PROPOSAL_AGE_MAX: Duration = Duration::from_secs(30);

/// What the thread can be told.
#[derive(Debug)]
pub enum ConsensusCommand {
    /// Proposals that came together, and when they were sent.
    Propose(Instant, Vec<Proposal>),
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
    /// Everything else that goes to the replica, in order; bounded too, and emptied before commands. `never()` for a
    /// server that will always be alone.
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
        let ConsensusParts { replica, log, write_snapshot, commands, inputs, root, notices, wake, clock } = parts;
        let disk = Disk::new(log, Arc::clone(&write_snapshot));
        let mut thread = ConsensusThread {
            replica,
            disk,
            write_snapshot,
            commands,
            inputs,
            root,
            notices,
            wake,
            clock,
            told: Vec::new(),
            members: Membership::default(),
            snapshot: None,
            stopping: false,
        };
        let ended = catch_unwind(AssertUnwindSafe(|| thread.run()));
        let why = match ended {
            Ok(Ok(())) => match thread.disk.end() {
                Ok(()) => return,
                Err(why) => {
                    let _ = thread.notices.send(vec![Notice::Fatal(why)]);
                    (thread.wake)();
                    return;
                }
            },
            Ok(Err(End::Told)) => None,
            Ok(Err(End::Failed(why))) => Some(why),
            Err(panic) => Some(format!("the consensus thread panicked: {}", panic_text(&*panic))),
        };
        if let Some(why) = why {
            let _ = thread.notices.send(vec![Notice::Fatal(why)]);
            (thread.wake)();
        }
        // The log is not closed in order: that would sync what already failed, or wait for it. The process ends now.
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
    replica: Box<dyn Replica + Send>,
    disk: Disk,
    write_snapshot: Arc<SnapshotWriter>,
    commands: Receiver<ConsensusCommand>,
    inputs: Receiver<Vec<Input>>,
    root: Arc<ArcSwap<State>>,
    notices: Sender<Vec<Notice>>,
    wake: Box<dyn Fn() + Send>,
    clock: Box<dyn Clock + Send>,
    /// Not sent yet.
    told: Vec<Notice>,
    /// As told last: a server that is alone writes its log here.
    members: Membership,
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
    Inputs(Vec<Input>),
    Command(ConsensusCommand),
    Stored(Done),
    Written(Result<Index, String>),
    Deadline,
    Alone,
    Again,
}

impl ConsensusThread {
    fn run(&mut self) -> Result<(), End> {
        self.follow_outputs()?;
        while !(self.stopping && self.replica.poll_timeout().is_none()) {
            self.empty_inputs()?;
            match self.wait() {
                Woken::Inputs(inputs) => self.take_inputs(inputs)?,
                Woken::Command(command) => self.gather(command)?,
                Woken::Stored(done) => self.stored(done)?,
                Woken::Written(written) => self.snapshot_written(written)?,
                Woken::Deadline => self.input(Input::Timeout)?,
                Woken::Alone => self.stop()?,
                Woken::Again => {}
            }
        }
        // A snapshot that is on its way is finished; what was still sent here is answered.
        if let Some(writing) = &self.snapshot {
            let written = writing.done.recv().unwrap_or_else(|_| Err("the snapshot writer ended".to_owned()));
            self.snapshot_written(written)?;
        }
        while let Ok(command) = self.commands.try_recv() {
            self.gather(command)?;
        }
        Ok(())
    }

    /// Sleeps until there is something to do. Without a deadline there is no timer.
    fn wait(&mut self) -> Woken {
        let deadline = self.replica.poll_timeout();
        if deadline.is_some_and(|at| at <= self.clock.now()) {
            return Woken::Deadline;
        }
        let timer = deadline.map_or_else(never, |at| after(at.since(self.clock.now())));
        let (no_snapshot, no_store) = (never(), never());
        let written = self.snapshot.as_ref().map_or(&no_snapshot, |writing| &writing.done);
        let stored = self.disk.done().unwrap_or(&no_store);
        // While stopping, a channel that nobody fills would wake the thread for ever.
        let quiet = never();
        let commands = if self.stopping && self.commands.is_empty() { &quiet } else { &self.commands };
        select! {
            recv(self.inputs) -> inputs => match inputs {
                Ok(inputs) => Woken::Inputs(inputs),
                Err(_) => {
                    self.inputs = never();
                    Woken::Again
                }
            },
            recv(commands) -> command => command.map_or(Woken::Alone, Woken::Command),
            recv(stored) -> done => {
                Woken::Stored(done.unwrap_or_else(|_| Err("the thread that writes the log has ended".to_owned())))
            }
            recv(written) -> written => {
                Woken::Written(written.unwrap_or_else(|_| Err("the snapshot writer ended".to_owned())))
            }
            recv(timer) -> _ => Woken::Deadline,
        }
    }

    /// Takes what waits on the lane of raft's messages, up to a cap.
    fn empty_inputs(&mut self) -> Result<(), End> {
        let inputs: Vec<Input> = self.inputs.try_iter().take(MAX_INPUTS).flatten().collect();
        if inputs.is_empty() { Ok(()) } else { self.take_inputs(inputs) }
    }

    /// Hands inputs in; messages that stand side by side as one.
    fn take_inputs(&mut self, inputs: Vec<Input>) -> Result<(), End> {
        let mut messages = Vec::new();
        for input in inputs {
            match input {
                Input::Messages(mut more) => messages.append(&mut more),
                other => {
                    if !messages.is_empty() {
                        self.input(Input::Messages(std::mem::take(&mut messages)))?;
                    }
                    self.input(other)?;
                }
            }
        }
        if messages.is_empty() { Ok(()) } else { self.input(Input::Messages(messages)) }
    }

    /// Takes all proposals that wait, in order, and hands them over as one.
    fn gather(&mut self, first: ConsensusCommand) -> Result<(), End> {
        let mut proposals = Vec::new();
        let mut next = Some(first);
        let mut stop = false;
        let now = self.clock.now();
        while let Some(command) = next {
            match command {
                ConsensusCommand::Propose(at, more) if now.since(at) > PROPOSAL_AGE_MAX => self.reject(&more),
                ConsensusCommand::Propose(_, more) => proposals.extend(more),
                ConsensusCommand::Stop => {
                    stop = true;
                    break;
                }
            }
            if proposals.len() >= MAX_GATHERED {
                break;
            }
            next = self.commands.try_recv().ok();
        }
        if !proposals.is_empty() {
            self.input(Input::Propose(proposals))?;
        }
        if stop { self.stop() } else { self.tell() }
    }

    fn reject(&mut self, proposals: &[Proposal]) {
        let why = format!("the write waited longer than {} s for the log", PROPOSAL_AGE_MAX.as_secs());
        let late = proposals.iter().map(|one| resolved(one.id, Resolution::Rejected(why.clone())));
        self.told.extend(late);
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
        let (now, wall) = (self.clock.now(), self.clock.wall());
        self.replica.handle_input(now, wall, input);
    }

    /// Does what the replica asks for, until it asks for nothing more; then tells the server, once.
    fn follow_outputs(&mut self) -> Result<(), End> {
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Publish { root, notices } => {
                    if let Some(root) = root {
                        self.root.store(root);
                    }
                    self.told.extend(notices);
                }
                Output::Persist(persist) => self.write(Job::Persist(persist))?,
                Output::WriteSnapshot(meta, state) => self.write_snapshot(meta, state)?,
                Output::Install { ticket, meta, state, hard_state } => {
                    self.write(Job::Install(ticket, meta, state, hard_state))?;
                }
                Output::Compact(index) => self.write(Job::Compact(index))?,
            }
        }
        self.tell()
    }

    fn write(&mut self, job: Job) -> Result<(), End> {
        // Nobody waits for a sync that is not his.
        self.tell()?;
        let alone = self.members.voters.len() <= 1
            && self.members.learners.is_empty()
            && self.members.voters_outgoing.is_empty();
        let at_once = alone && !matches!(job, Job::Install(..));
        match self.disk.write(job, at_once) {
            Some(Ok(Some(ticket))) => self.hand_in(Input::Persisted { ticket }),
            Some(Err(why)) => return Err(End::Failed(why)),
            Some(Ok(None)) | None => {}
        }
        Ok(())
    }

    fn stored(&mut self, done: Done) -> Result<(), End> {
        self.disk.took_note();
        match done.map_err(End::Failed)? {
            Some(ticket) => self.input(Input::Persisted { ticket }),
            None => Ok(()),
        }
    }

    fn tell(&mut self) -> Result<(), End> {
        if self.told.is_empty() {
            return Ok(());
        }
        for notice in &self.told {
            if let Notice::Members(members) = notice {
                self.members = members.clone();
            }
        }
        let fatal = self.told.iter().any(|notice| matches!(notice, Notice::Fatal(_)));
        let heard = self.notices.send(std::mem::take(&mut self.told)).is_ok();
        (self.wake)();
        if fatal || !heard { Err(End::Told) } else { Ok(()) }
    }

    fn write_snapshot(&mut self, meta: SnapshotMeta, state: Arc<State>) -> Result<(), End> {
        let (sender, done) = bounded(1);
        let write = Arc::clone(&self.write_snapshot);
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
mod group_tests;
#[cfg(test)]
mod tests;
