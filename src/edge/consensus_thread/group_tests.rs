//! The thread beside others: a disk that stands still, a flood of writes, proposals that waited too long.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crossbeam_channel::unbounded;

use super::tests::{limits, proposal};
use super::*;
use crate::base::id::{ReplicaId, Term};
use crate::base::time::WallTime;
use crate::consensus::raft::RaftReplica;
use crate::consensus::{HardState, Persist, Recovered};
use crate::wire::raft::RaftMessage;

/// Goes on when it is told to.
#[derive(Clone, Default)]
struct HandClock(Arc<AtomicU64>);

impl HandClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(1)
    }
}

/// Stands still while it is told to.
#[derive(Clone, Default)]
struct HangingLog(Arc<(Mutex<bool>, Condvar)>);

impl HangingLog {
    fn hang(&self, hangs: bool) {
        *self.0.0.lock().unwrap() = hangs;
        self.0.1.notify_all();
    }
}

impl Log for HangingLog {
    fn persist(&mut self, _what: &Persist) -> Result<(), String> {
        let hangs = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(hangs, |hangs| *hangs).unwrap());
        Ok(())
    }

    fn compact(&mut self, _up_to: Index) -> Result<(), String> {
        Ok(())
    }

    fn begin_anew(&mut self, _hard_state: HardState) -> Result<(), String> {
        Ok(())
    }
}

struct Running {
    commands: Sender<ConsensusCommand>,
    inputs: Sender<Vec<Input>>,
    notices: Receiver<Vec<Notice>>,
    clock: HandClock,
    thread: JoinHandle<()>,
}

/// The lane has no room of its own: whatever was sent on it has been taken.
fn start(replica: Box<dyn Replica + Send>, log: Box<dyn Log + Send>, lane: usize) -> Running {
    let (commands, inbox) = bounded(64);
    let (inputs, lane) = bounded(lane);
    let (told, notices) = unbounded();
    let clock = HandClock::default();
    let parts = ConsensusParts {
        replica,
        log,
        write_snapshot: Arc::new(|_, _| Ok(())),
        commands: inbox,
        inputs: lane,
        root: Arc::new(ArcSwap::from_pointee(State::new())),
        notices: told,
        wake: Box::new(|| ()),
        clock: Box::new(clock.clone()),
    };
    Running { commands, inputs, notices, clock, thread: spawn(parts).unwrap() }
}

/// Two replicas beside the thread's, on disks that never wait.
struct Others {
    replicas: Vec<RaftReplica>,
    told: Vec<Notice>,
    to_first: VecDeque<RaftMessage>,
}

impl Others {
    fn settle(&mut self, now: Instant) {
        for replica in &mut self.replicas {
            while let Some(output) = replica.poll_output() {
                match output {
                    Output::Persist(persist) => {
                        let input = Input::Persisted { ticket: persist.ticket };
                        replica.handle_input(now, WallTime::from_unix_nanos(1), input);
                    }
                    Output::Publish { notices, .. } => {
                        for notice in notices {
                            if let Notice::Send(message) = notice {
                                self.to_first.extend((message.to == 1).then_some(*message));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// Time passes; what was said is heard. Only the thread's replica counts time, so that it leads.
    fn step(&mut self, running: &Running) {
        running.clock.pass(Duration::from_millis(50));
        let now = running.clock.now();
        for _ in 0..2 {
            // The second one is taken when all of the first is done.
            let messages: Vec<RaftMessage> = self.to_first.drain(..).collect();
            // A thread that has ended keeps its end of the lane, and takes nothing.
            let _ = running.inputs.send_timeout(vec![Input::Messages(messages)], Duration::from_secs(2));
        }
        for notice in running.notices.try_iter().flatten() {
            if let Notice::Send(message) = &notice
                && let Some(replica) = self.replicas.get_mut(usize::try_from(message.to - 2).unwrap())
            {
                let input = Input::Messages(vec![(**message).clone()]);
                replica.handle_input(now, WallTime::from_unix_nanos(1), input);
            } else {
                self.told.push(notice);
            }
        }
        self.settle(now);
    }

    fn until(&mut self, running: &Running, what: impl Fn(&Notice) -> bool) -> Notice {
        for _ in 0..5_000 {
            if let Some(at) = self.told.iter().position(&what) {
                return self.told.drain(..=at).next_back().unwrap();
            }
            self.step(running);
        }
        panic!("it was never told: {:?}", self.told);
    }
}

// R8.4
#[test]
fn a_leader_whose_disk_stands_still_steps_down_and_ends() {
    let voters: Vec<ReplicaId> = (1..=3).map(ReplicaId).collect();
    let replica = |id| {
        let voters = Some(voters.clone());
        RaftReplica::new(ReplicaId(id), id, limits(), Recovered::default(), voters, Instant::ZERO).unwrap()
    };
    let log = HangingLog::default();
    let running = start(Box::new(replica(1)), Box::new(log.clone()), 0);
    let mut others = Others { replicas: vec![replica(2), replica(3)], told: Vec::new(), to_first: VecDeque::new() };
    others.settle(Instant::ZERO);
    let ready = others.until(&running, |notice| matches!(notice, Notice::Leadership(known) if known.ready));
    assert!(matches!(ready, Notice::Leadership(known) if known.term > Term(0)));
    log.hang(true);
    let since = running.clock.now();
    running.commands.send(ConsensusCommand::Propose(since, vec![proposal(1)])).unwrap();
    let lost = others.until(&running, |notice| {
        matches!(notice, Notice::DiskStalled { .. })
            || matches!(notice, Notice::Leadership(known) if !known.is_self)
            || matches!(notice, Notice::Lease(until) if *until == Instant::ZERO)
    });
    assert_eq!(lost, Notice::Lease(Instant::ZERO), "no read is answered here any more, first of all");
    assert!(running.clock.now().since(since) >= limits().stalled_sync, "its own ticks went on until then");
    others.until(&running, |notice| matches!(notice, Notice::Leadership(known) if !known.is_self));
    others.until(&running, |notice| matches!(notice, Notice::Fatal(why) if why.contains("has not finished a sync")));
    assert!(running.clock.now().since(since) >= limits().stalled_sync * 3);
    running.thread.join().unwrap();
    log.hang(false);
}

// R8.23
#[test]
fn what_waited_too_long_is_rejected_and_not_written() {
    let bootstrap = Some(vec![ReplicaId(1)]);
    let replica = RaftReplica::new(ReplicaId(1), 1, limits(), Recovered::default(), bootstrap, Instant::ZERO);
    let running = start(Box::new(replica.unwrap()), Box::new(HangingLog::default()), 0);
    running.clock.pass(PROPOSAL_AGE_MAX + Duration::from_millis(1));
    let now = running.clock.now();
    for (id, sent) in [(1, Instant::ZERO), (2, now), (3, Instant::ZERO)] {
        running.commands.send(ConsensusCommand::Propose(sent, vec![proposal(id)])).unwrap();
    }
    running.commands.send(ConsensusCommand::Stop).unwrap();
    running.thread.join().unwrap();
    let mut ended: Vec<(u64, bool)> = running
        .notices
        .try_iter()
        .flatten()
        .filter_map(|notice| match notice {
            Notice::Resolved { id, resolution: Resolution::Rejected(why) } => {
                assert_eq!(why, "the write waited longer than 30 s for the log");
                Some((id.0, false))
            }
            Notice::Resolved { id, .. } => Some((id.0, true)),
            _ => None,
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [(1, false), (2, true), (3, false)]);
}

/// Writes down what it gets, and is sent a message whenever it gets proposals.
struct Recorder {
    seen: Arc<Mutex<Vec<usize>>>,
    lane: Sender<Vec<Input>>,
}

impl Replica for Recorder {
    fn handle_input(&mut self, _now: Instant, _wall: WallTime, input: Input) {
        match input {
            Input::Propose(proposals) => {
                self.seen.lock().unwrap().push(proposals.len());
                let _ = self.lane.try_send(vec![Input::Messages(vec![RaftMessage::default()])]);
            }
            Input::Messages(_) => self.seen.lock().unwrap().push(0),
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

// R8.23: a flood of writes holds up no message by more than one batch
#[test]
fn messages_are_looked_at_between_batches_of_a_flood() {
    const BATCH: usize = 1500;
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (lane, inputs) = bounded(16);
    let (commands, inbox) = bounded(64);
    let (told, _notices) = unbounded();
    for batch in 0..60 {
        let proposals = (0..BATCH as u64).map(|nth| proposal(batch * 10_000 + nth)).collect();
        commands.send(ConsensusCommand::Propose(Instant::ZERO, proposals)).unwrap();
    }
    commands.send(ConsensusCommand::Stop).unwrap();
    let parts = ConsensusParts {
        replica: Box::new(Recorder { seen: Arc::clone(&seen), lane }),
        log: Box::new(HangingLog::default()),
        write_snapshot: Arc::new(|_, _| Ok(())),
        commands: inbox,
        inputs,
        root: Arc::new(ArcSwap::from_pointee(State::new())),
        notices: told,
        wake: Box::new(|| ()),
        clock: Box::new(HandClock::default()),
    };
    spawn(parts).unwrap().join().unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().sum::<usize>(), 60 * BATCH);
    assert!(seen.iter().all(|count| *count < MAX_GATHERED + BATCH), "{seen:?}");
    let batches: Vec<usize> = (0..seen.len()).filter(|at| seen[*at] > 0).collect();
    assert!(batches.len() > 10);
    for pair in batches.windows(2) {
        assert_eq!(pair[1] - pair[0], 2, "a message between each two: {seen:?}");
    }
}
