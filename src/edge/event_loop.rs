//! The event loop: one thread that owns every socket. mio's events become inputs of the machine, its outputs become
//! system calls.
//!
//! It never waits but in the poll, and there only for what the machine or a timer of its own has asked for: an idle
//! daemon is woken by its peers, by the watchdog and, when it has certificates, once an hour. A turn is bounded
//! everywhere: what is left over is done in the next, after everybody else had their part.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError};
use mio::{Events, Interest, Poll, Token};

use crate::base::id::ConnId;
use crate::base::time::{Clock, Instant};
use crate::base::timers::Timers;
use crate::consensus::Notice;
use crate::server::port::{ClusterFile, Input, Listener, LogLine};

use super::audit::Audit;
use super::backup_folder::BackupFolder;
use super::bootstrap_reset::BootstrapReset;
use super::certificates::Expiry;
use super::clock::SystemClock;
use super::connections::Connections;
use super::consensus_lane::ConsensusLane;
use super::dialer::Dials;
use super::doors::Door;
use super::facts::DiskSpace;
use super::file_worker::FileWorker;
use super::handler_pool::HandlerPool;
use super::inbox::{Bell, Post, Told};
use super::keyring::Keyring;
use super::logging::Logs;
use super::machine::Machine;
use super::proposals::Proposals;
use super::reload::Reloader;
use super::signals::Signals;
use super::snapshot_in::SnapshotKeeper;
use super::snapshot_out::SnapshotReaders;
use super::systemd::Notifier;

/// The token of the bell; the poll's owner makes it with this.
pub const BELL_TOKEN: Token = Token(0);
const SIGNALS_TOKEN: Token = Token(1);
/// And up, a door each.
const FIRST_DOOR_TOKEN: usize = 2;

/// Events taken from the poll at once.
const EVENTS_MAX: usize = 1024;
/// Messages of each channel in a turn.
const MESSAGES_PER_TURN: usize = 1024;
/// Bytes read with one call, into a buffer that all connections share.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Certificates are looked at so often, since the calendar may be set in between.
const CERTIFICATES_LOOK: Duration = Duration::from_secs(3600);
/// Between two tries to tell a service manager that had no room.
const NOTIFY_RETRY: Duration = Duration::from_millis(100);
/// Between two tries to get a signing key from a disk that failed.
const SIGNING_KEY_RETRY: Duration = Duration::from_secs(10);
/// At the end, for closed connections that still have bytes to write.
const LAST_BYTES_WAIT: Duration = Duration::from_secs(1);

/// What the loop's own timers are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    /// A door was shut by a refusal.
    Door(usize),
    /// A closed connection has had its time.
    Parting(ConnId),
    /// The watchdog wants to be fed.
    Watchdog,
    /// Proposals wait for room.
    Proposals,
    /// The service manager had no room.
    Notify,
    /// A certificate may be near its end.
    Certificates,
    /// The disk gave no signing key.
    SigningKey,
    /// A dial, or one of its addresses, takes too long.
    Dial(u64),
    /// The consensus thread had no room.
    Consensus,
    /// The disk is short of room: is there more?
    Facts,
}

/// All that outputs are performed with, but for the sockets.
#[derive(Debug)]
pub struct Hands {
    /// Runs jobs.
    pub pool: HandlerPool,
    /// The way to the consensus thread.
    pub proposals: Proposals,
    /// The way to it for everything else.
    pub consensus: ConsensusLane,
    /// Small files; `None`: none can be kept.
    pub files: Option<FileWorker>,
    /// Takes snapshots that come in; `None`: none can be.
    pub snapshot_keeper: Option<SnapshotKeeper>,
    /// The disk that is watched, if any.
    pub disk: Option<DiskSpace>,
    /// The log, for monitors and the filter; `None`: monitors see nothing.
    pub logs: Option<Logs>,
    /// The audit log, where there is one.
    pub audit: Option<Audit>,
    /// The folder of backups; `None`: none can be taken.
    pub backups: Option<BackupFolder>,
    /// The service manager.
    pub notifier: Notifier,
    /// Signing keys; `None`: none can be made.
    pub keyring: Option<Keyring>,
    /// The configuration; `None`: it cannot be read again.
    pub reloader: Option<Reloader>,
    /// The ends of certificates.
    pub expiry: Expiry,
    /// Lets a lost management token be replaced; `None`: nothing does.
    pub bootstrap_reset: Option<BootstrapReset>,
    /// For threads that the loop starts.
    pub post: Post,
}

/// What other threads send; `crossbeam_channel::never()` where there is no such thread.
#[derive(Debug)]
pub struct Channels {
    /// Everything that has no channel of its own.
    pub told: Receiver<Told>,
    /// From the consensus thread. Its end without a word ends the daemon.
    pub notices: Receiver<Vec<Notice>>,
    /// From the log's tap.
    pub log_lines: Receiver<Arc<LogLine>>,
}

/// What an event loop is made of.
#[derive(Debug)]
pub struct Parts<M> {
    /// What it drives.
    pub machine: M,
    /// Where events come from; the bell belongs to it.
    pub poll: Poll,
    /// Ends its sleep.
    pub bell: Arc<Bell>,
    /// Time.
    pub clock: SystemClock,
    /// Open listening sockets.
    pub listeners: Vec<(Listener, std::net::TcpListener)>,
    /// Signals, when this loop is the process's own.
    pub signals: Option<Signals>,
    /// Other threads.
    pub channels: Channels,
    /// Everything else.
    pub hands: Hands,
}

/// The loop.
pub struct EventLoop<M> {
    pub(super) machine: M,
    pub(super) poll: Poll,
    bell: Arc<Bell>,
    pub(super) clock: SystemClock,
    pub(super) doors: Vec<Door>,
    signals: Option<Signals>,
    channels: Channels,
    pub(super) hands: Hands,
    pub(super) connections: Connections,
    pub(super) dials: Dials,
    pub(super) timers: Timers<Alarm>,
    /// Inputs that came of performing outputs.
    pub(super) follow_ups: VecDeque<Input<'static>>,
    /// The one timer of [`Alarm::Proposals`].
    pub(super) proposals_alarm: Option<Instant>,
    /// The one timer of [`Alarm::Consensus`].
    pub(super) consensus_alarm: Option<Instant>,
    /// States that are being sent.
    pub(super) snapshot_readers: SnapshotReaders,
    /// What the thread of files had no room for.
    pub(super) cluster_to_keep: Option<ClusterFile>,
    /// The disk has less room than it should.
    pub(super) disk_is_short: bool,
    /// The key that was asked for and did not come.
    pub(super) wanted_key: Option<String>,
    /// A channel may hold more than a turn took.
    more_messages: bool,
    /// The machine has said that it can serve.
    pub(super) ready: bool,
    /// HUP came before that, or while the configuration was being read.
    pub(super) reload_wanted: bool,
    stopping: bool,
    pub(super) facts_at: Option<Instant>,
    pub(super) exit: Option<u8>,
    pub(super) buffer: Vec<u8>,
}

impl<M: Machine> EventLoop<M> {
    /// Puts a loop together. Nothing is accepted before [`EventLoop::run`].
    ///
    /// # Errors
    /// When the poll cannot watch a socket.
    pub fn new(mut parts: Parts<M>) -> io::Result<EventLoop<M>> {
        let mut doors = Vec::new();
        for (number, (listener, socket)) in parts.listeners.into_iter().enumerate() {
            let mut door = Door::new(listener, socket)?;
            let token = Token(FIRST_DOOR_TOKEN + number);
            parts.poll.registry().register(&mut door.socket, token, Interest::READABLE)?;
            doors.push(door);
        }
        if let Some(signals) = &mut parts.signals {
            signals.register(parts.poll.registry(), SIGNALS_TOKEN)?;
        }
        let mut timers = Timers::default();
        timers.set(Instant::ZERO, Alarm::Certificates);
        if parts.hands.notifier.watchdog_interval().is_some() {
            timers.set(Instant::ZERO, Alarm::Watchdog);
        }
        let snapshot_readers = SnapshotReaders::new(&parts.hands.post);
        Ok(EventLoop {
            machine: parts.machine,
            poll: parts.poll,
            bell: parts.bell,
            clock: parts.clock,
            doors,
            signals: parts.signals,
            channels: parts.channels,
            hands: parts.hands,
            connections: Connections::default(),
            dials: Dials::default(),
            timers,
            follow_ups: VecDeque::new(),
            proposals_alarm: None,
            consensus_alarm: None,
            snapshot_readers,
            cluster_to_keep: None,
            disk_is_short: false,
            wanted_key: None,
            more_messages: false,
            ready: false,
            reload_wanted: false,
            stopping: false,
            facts_at: None,
            exit: None,
            buffer: vec![0; READ_BUFFER_BYTES],
        })
    }

    /// Runs until the machine asks to end; gives the exit status and what is left to be taken down.
    ///
    /// # Errors
    /// When the poll fails, which leaves the daemon without ears.
    pub fn run(mut self) -> io::Result<(u8, Hands)> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.drain_outputs();
        while self.exit.is_none() {
            self.wait(&mut events)?;
            self.turn(&events);
        }
        self.write_last_bytes(&mut events)?;
        Ok((self.exit.unwrap_or(3), self.hands))
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let busy = self.more_messages
            || !self.follow_ups.is_empty()
            || self.connections.reads_waiting() > 0
            || self.connections.has_writes()
            || self.doors.iter().any(|door| door.ready && door.shut_until.is_none());
        let timeout = if busy {
            Some(Duration::ZERO)
        } else {
            let next = [self.machine.poll_timeout(), self.timers.next()].into_iter().flatten().min();
            next.map(|at| at.since(self.clock.now()))
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    fn turn(&mut self, events: &Events) {
        let mut signals = false;
        let mut broken = Vec::new();
        for event in events {
            match event.token() {
                BELL_TOKEN => {}
                SIGNALS_TOKEN => signals = true,
                Token(number) => match number.checked_sub(FIRST_DOOR_TOKEN).and_then(|at| self.doors.get_mut(at)) {
                    Some(door) => door.ready = true,
                    None => broken.extend(self.connections.note(event)),
                },
            }
        }
        self.tell_facts();
        for conn in broken {
            self.check_broken(conn);
        }
        if signals {
            self.hear_signals();
        }
        self.hear_threads();
        self.go_on_dialling();
        self.accept();
        self.read_sockets();
        self.ring_alarms();
        for _ in 0..self.follow_ups.len() {
            if let Some(input) = self.follow_ups.pop_front() {
                self.feed(input);
            }
        }
        self.write_sockets();
    }

    /// Hands an input in and performs what comes of it.
    pub(super) fn feed(&mut self, input: Input<'_>) {
        self.machine.handle_input(self.clock.now(), self.clock.wall(), input);
        self.drain_outputs();
    }

    pub(super) fn drain_outputs(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            self.perform(output);
        }
    }

    fn hear_signals(&mut self) {
        let Some(caught) = self.signals.as_mut().map(Signals::take) else { return };
        for _ in 0..caught.stop {
            if !self.stopping {
                self.stopping = true;
                self.hands.notifier.stopping();
                self.notify_waiting();
            }
            self.feed(Input::Stop);
        }
        if caught.dump_metrics {
            self.feed(Input::DumpMetrics);
        }
        if caught.reload {
            self.reopen_audit();
        }
        if caught.reload && !self.stopping {
            self.reload_wanted = true;
            self.start_reload();
        }
    }

    fn hear_threads(&mut self) {
        self.bell.hush();
        let mut taken = 0;
        while taken < MESSAGES_PER_TURN {
            let Ok(told) = self.channels.told.try_recv() else { break };
            taken += 1;
            self.hear(told);
        }
        self.more_messages = taken == MESSAGES_PER_TURN;
        self.hear_notices();
        for _ in 0..MESSAGES_PER_TURN {
            let Ok(line) = self.channels.log_lines.try_recv() else { return };
            self.feed(Input::LogLine(line));
        }
        self.more_messages = true;
    }

    fn hear_notices(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            match self.channels.notices.try_recv() {
                Ok(notices) => self.feed(Input::Notices(notices)),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    if self.exit.is_none() && !self.stopping {
                        log::error!("the consensus thread has ended: nothing can be written any more");
                        self.exit = Some(3);
                    }
                    self.channels.notices = crossbeam_channel::never();
                    return;
                }
            }
        }
        self.more_messages = true;
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Ran { job, outcome } => self.feed(Input::Ran { job, outcome: *outcome }),
            Told::SigningKey { result: Ok((signer, sealer)), .. } => self.feed(Input::Keys { signer, sealer }),
            Told::SigningKey { fresh: true, result: Err(error), .. } => {
                log::error!("no new key: error=\"{error}\"");
                self.feed(Input::NoKey { error });
            }
            Told::SigningKey { wanted, result: Err(error), .. } => {
                log::error!("no signing key: error=\"{error}\" retry={SIGNING_KEY_RETRY:?}");
                self.wanted_key = wanted;
                self.timers.set(self.clock.now() + SIGNING_KEY_RETRY, Alarm::SigningKey);
            }
            Told::Reloaded(result) => self.end_reload(result),
            Told::BackedUp(report) => self.feed(Input::BackedUp(*report)),
            other => self.hear_for_cluster(other),
        }
    }

    fn ring_alarms(&mut self) {
        let now = self.clock.now();
        while let Some((_, alarm)) = self.timers.pop_due(now) {
            self.ring(now, alarm);
        }
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.feed(Input::Timeout);
        }
        // Room may have come with the notices of this turn.
        self.retry_consensus();
        self.retry_proposals();
    }

    fn ring(&mut self, now: Instant, alarm: Alarm) {
        match alarm {
            Alarm::Door(number) => {
                if let Some(door) = self.doors.get_mut(number) {
                    door.shut_until = None;
                }
            }
            Alarm::Parting(conn) => self.go_on_parting(conn),
            Alarm::Dial(ticket) => self.dial_is_late(now, ticket),
            Alarm::Watchdog => {
                // A server that waits for others to found a cluster, or for a majority, has nothing to gain by being ended.
                if !self.ready {
                    self.hands.notifier.still_starting();
                }
                self.hands.notifier.feed_watchdog();
                self.notify_waiting();
                if let Some(interval) = self.hands.notifier.watchdog_interval() {
                    self.timers.set(now + interval, Alarm::Watchdog);
                }
            }
            // Every turn tries; this one only had to happen.
            Alarm::Proposals => self.proposals_alarm = None,
            Alarm::Consensus => self.consensus_alarm = None,
            Alarm::Facts => {}
            Alarm::Notify => self.notify_waiting(),
            Alarm::Certificates => self.look_at_certificates(),
            Alarm::SigningKey => {
                let wanted = self.wanted_key.take();
                self.fetch_signing_key(wanted, false);
            }
        }
    }

    fn look_at_certificates(&mut self) {
        let wall = self.clock.wall();
        for (level, text) in self.hands.expiry.due(wall) {
            log::log!(level, "{text}");
        }
        if let Some(wait) = self.hands.expiry.next(wall) {
            self.timers.set(self.clock.now() + wait.min(CERTIFICATES_LOOK), Alarm::Certificates);
        }
    }

    /// Sends what the service manager had no room for, and comes back when it still has none.
    pub(super) fn notify_waiting(&mut self) {
        if self.hands.notifier.send_waiting() {
            self.timers.set(self.clock.now() + NOTIFY_RETRY, Alarm::Notify);
        }
    }

    fn write_last_bytes(&mut self, events: &mut Events) -> io::Result<()> {
        self.give_up_dials();
        self.write_sockets();
        self.connections.keep_tails();
        let deadline = self.clock.now() + LAST_BYTES_WAIT;
        while self.connections.tails() > 0 && self.clock.now() < deadline {
            match self.poll.poll(events, Some(deadline.since(self.clock.now()))) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                polled => polled?,
            }
            for event in &*events {
                self.connections.note(event);
            }
            self.read_sockets();
            self.write_sockets();
            self.connections.keep_tails();
        }
        Ok(())
    }
}
