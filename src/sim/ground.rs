//! What everything in the world stands on: the time, the seed, the queue of what is to come, the wires, the machines,
//! and what is written down. Decides nothing by itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::base::id::{CallId, Index};
use crate::base::rng::Rng;
use crate::base::time::{Instant, WallTime};
use crate::consensus::{self, Notice, Proposal};
use crate::server::port::JobOutcome;

use super::errands::Errand;
use super::fault::Fault;
use super::history::History;
use super::nemesis::ClusterNemesis;
use super::network::{LinkId, Network, Side};
use super::options::Options;
use super::sessions::Holder;
use super::site::{Site, SiteNumber};
use super::trace::Trace;
use super::truth::Truth;
use super::watch::Watch;

/// Where the calendar of the world begins: 2026-01-01T00:00:00Z.
const EPOCH_UNIX_NANOS: i64 = 1_767_225_600_000_000_000;

/// Log lines of the server kept for whoever looks at a failure.
const LOG_LINES_KEPT: usize = 400;

/// Something that is to happen.
#[derive(Debug)]
pub enum Event {
    /// On a wire.
    Net(Net),
    /// Between the threads of one process; the number is the process's.
    Process(usize, Inner),
    /// A lane of a client acts.
    Lane(usize, usize),
    /// A client's connection has a deadline.
    ClientTimer(usize),
    /// A client looks whether an operation was answered in time.
    Patience(usize, usize),
    /// A client answers a call of the server's: its connection's number, the stream, and what.
    Answer(usize, u64, u32, Vec<u8>),
    /// The world does something to a server.
    Nemesis(SiteNumber, Nemesis),
    /// The world does something to the cluster.
    Cluster(ClusterNemesis),
}

/// On a wire.
#[derive(Debug)]
pub enum Net {
    /// A connection reaches a server.
    Accept(LinkId),
    /// A server that dialled learns that its connection is there.
    Connected(LinkId),
    /// Bytes reach an end.
    Arrive(LinkId, Side, Vec<u8>),
    /// The word that no more will come reaches an end.
    Fin(LinkId, Side),
    /// A reset reaches an end.
    Reset(LinkId, Side),
    /// An end reads.
    Read(LinkId, Side),
    /// An end can write again.
    Writable(LinkId, Side),
    /// The system gives up a connection that has gone silent.
    Expire(LinkId),
    /// The same when bytes are held back still since then.
    GiveUp(LinkId, u64),
}

/// Between the threads of a process.
#[derive(Debug)]
pub enum Inner {
    /// Proposals reach the consensus thread.
    Commands(Vec<Proposal>),
    /// Inputs for the replica, before any proposal that waits.
    Lane(Vec<consensus::Input>),
    /// What was asked of the machine beside the log is done.
    Done(Errand),
    /// A dial has had its time.
    DialTimeout(LinkId),
    /// Proposals that wait for room are tried again, or given up.
    RetryProposals,
    /// A root is published late (a planted fault).
    LateRoot,
    /// A sync is over.
    Synced,
    /// A snapshot is on disk.
    SnapshotWritten(Index),
    /// Notices reach the loop.
    Notices(Vec<Notice>),
    /// A handler thread takes a job.
    RunJob(u64),
    /// A job's outcome reaches the loop.
    Ran(CallId, Box<JobOutcome>),
    /// A signing key reaches the loop: the one wanted, or a new one in any case.
    SigningKey(Option<String>, bool),
    /// The loop writes to sockets, at the end of its turn.
    Flush,
    /// A closed socket has had its time.
    Parting(LinkId, Side),
    /// The process reads its own facts.
    Facts,
}

/// What the world does to the server.
#[derive(Clone, Debug)]
pub enum Nemesis {
    /// The power goes.
    CutPower,
    /// The process is killed; the disk's cache survives.
    Kill,
    /// SIGTERM.
    Terminate,
    /// The process begins.
    Start,
    /// The process stands still for a while.
    Pause(Duration),
    /// The calendar is set, by this many nanoseconds.
    SetCalendar(i64),
    /// The next sync fails.
    FailDisk,
    /// Syncs take as long, until the next word about it.
    SlowDisk(Duration),
    /// Clients begin nothing new.
    Quiet,
    /// Clients hang up.
    HangUp,
}

/// What is to come, by time and then in the order in which it was put in.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<(Instant, u64), Event>,
    next: u64,
}

impl Queue {
    /// Puts something in.
    pub fn push(&mut self, at: Instant, event: Event) {
        self.next += 1;
        self.events.insert((at, self.next), event);
    }

    /// When the first one is.
    pub fn next_at(&self) -> Option<Instant> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes the first one out.
    pub fn pop(&mut self) -> Option<(Instant, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}

/// What everything stands on.
pub struct Ground {
    /// The time.
    pub now: Instant,
    /// All chance.
    pub rng: Rng,
    /// What is to come.
    pub queue: Queue,
    /// The hash of what was.
    pub trace: Trace,
    /// The wires.
    pub network: Network,
    /// The machines of the servers.
    pub sites: Vec<Site>,
    /// What was asked and answered.
    pub history: History,
    /// What was applied.
    pub truth: Truth,
    /// What is looked at as it happens.
    pub watch: Watch,
    /// Things done to the servers, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// What this world is like.
    pub options: Options,
    /// The last lines of the server's log, with their times.
    pub log: VecDeque<String>,
    /// Times at which the planted fault was in effect.
    pub faults_done: u64,
    /// The nodes, by number.
    pub fleet: Vec<FleetNode>,
    /// Clients begin nothing new.
    pub quiet: bool,
    /// The sessions of those who write exactly once.
    pub holders: Vec<Holder>,
    next_nonce: u64,
}

/// A machine of the fleet.
#[derive(Clone, Debug)]
pub struct FleetNode {
    /// Its id.
    pub id: String,
    /// Its SecretID.
    pub secret: String,
    /// Its name.
    pub name: String,
    /// Its agent's version.
    pub version: &'static str,
}

fn site(options: &Options, rng: &mut Rng) -> Site {
    let mut site = Site { sync_time: options.sync_time, ..Site::default() };
    site.disk.trusts_tail = options.fault == Some(Fault::ForgetTornTail);
    if options.servers > 1 {
        let most = options.skew_ppm;
        site.clock.ppm = i64::try_from(rng.below(2 * most.unsigned_abs() + 1)).unwrap_or(0) - most;
        site.clock.offset = rng.below(1_000_000_000_000);
    }
    site
}

impl Ground {
    /// A world's ground, before anything has happened.
    pub fn new(options: Options) -> Ground {
        let mut rng = Rng::from_seed(options.seed);
        let fleet: Vec<FleetNode> = (0..options.nodes + options.silent_nodes)
            .map(|number| FleetNode {
                id: rng.uuid(),
                secret: rng.uuid(),
                name: format!("node-{number}"),
                version: ["1.8.2", "2.0.5"][number % 2],
            })
            .collect();
        let nodes = fleet.iter().map(|node| node.id.clone()).collect();
        let history = History { nodes, is_cluster: options.servers > 1, ..History::default() };
        let sites = (0..options.servers + options.spares).map(|_| site(&options, &mut rng)).collect();
        Ground {
            now: Instant::ZERO,
            rng,
            queue: Queue::default(),
            trace: Trace::default(),
            network: Network::default(),
            sites,
            history,
            truth: Truth::default(),
            watch: Watch::default(),
            injected: BTreeMap::new(),
            log: VecDeque::new(),
            faults_done: 0,
            fleet,
            quiet: false,
            holders: Vec::new(),
            next_nonce: 0,
            options,
        }
    }

    /// The calendar of a machine.
    pub fn wall(&self, site: SiteNumber) -> WallTime {
        let nanos = i64::try_from(self.now.as_nanos()).unwrap_or(i64::MAX);
        let offset = self.sites.get(site).map_or(0, |site| site.calendar_offset);
        WallTime::from_unix_nanos(EPOCH_UNIX_NANOS.saturating_add(nanos).saturating_add(offset))
    }

    /// The monotonic clock of a machine.
    pub fn clock(&self, site: SiteNumber) -> Instant {
        self.sites.get(site).map_or(self.now, |site| site.clock.read(self.now))
    }

    /// When the monotonic clock of a machine shows this.
    pub fn when(&self, site: SiteNumber, shown: Instant) -> Instant {
        self.sites.get(site).map_or(shown, |site| site.clock.when(shown))
    }

    /// A machine.
    pub fn site(&mut self, site: SiteNumber) -> &mut Site {
        &mut self.sites[site]
    }

    /// Counts something that is done to the servers.
    pub fn inject(&mut self, kind: &'static str) {
        *self.injected.entry(kind).or_default() += 1;
    }

    /// Something happens after a while.
    pub fn after(&mut self, wait: Duration, event: Event) {
        self.queue.push(self.now + wait, event);
    }

    /// A number that is used once.
    pub fn nonce(&mut self) -> u64 {
        self.next_nonce += 1;
        self.next_nonce
    }

    /// A while: mostly short, now and then up to `most`.
    pub fn a_while(&mut self, most: Duration) -> Duration {
        match self.rng.below(20) {
            0 => self.rng.jitter(most),
            1..6 => self.rng.jitter(most / 10),
            _ => self.rng.jitter(most / 200),
        }
    }

    /// Whether the planted fault is this one and is to show now, in `of` of a hundred cases.
    pub fn fault(&mut self, fault: Fault, of: u64) -> bool {
        if fault.is_of_cluster() && self.options.servers == 1 {
            return false;
        }
        // Chance is drawn in any case: a planted fault does not change the rest of the run before it shows.
        let draw = self.rng.chance(of, 100);
        let now = draw && self.options.fault == Some(fault);
        self.faults_done += u64::from(now);
        now
    }

    /// How much of a machine's log a power cut leaves.
    pub fn torn_at(&mut self, site: SiteNumber) -> usize {
        let disk = &self.site(site).disk;
        let (synced, len) = (disk.synced(), disk.len());
        synced + self.rng.below((len - synced) as u64 + 1) as usize
    }

    /// Keeps a line for whoever looks at a failure.
    pub fn note(&mut self, text: &str) {
        if self.options.keep_log {
            self.log.push_back(format!("t={} {text}", self.now));
            if self.log.len() > LOG_LINES_KEPT {
                self.log.pop_front();
            }
        }
    }

    /// Something is wrong, whatever the checkers say.
    pub fn wrong(&mut self, text: String) {
        let text = format!("t={} {text}", self.now);
        self.note(&text);
        self.history.wrongs.push(text);
    }
}
