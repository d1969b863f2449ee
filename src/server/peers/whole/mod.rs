//! Whole servers with their replicas, in one thread and virtual time: bytes between them, disks of memory.
//!
//! One file over five hundred lines: the world, which the tests beside it share.

#![allow(clippy::unwrap_used)]

mod basics;
mod changes;
mod keys;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::api::identity::Signer;
use crate::api::seal::{Sealer, SealingKey};
use crate::base::id::{CallId, ConnId, Index, ReplicaId};
use crate::base::time::{Instant, WallTime};
use crate::consensus::raft::RaftReplica;
use crate::consensus::{
    self, HardState, Limits, LogEntry, Notice, Persist, Proposal, Recovered, Replica, SnapshotMeta,
};
use crate::server::Server;
use crate::server::port::{ClusterOutput, Input, Listener, Output, Settings};
use crate::server::rig::{pkcs8, settings};
use crate::server::run::run_job;
use crate::state::{State, snapshot};
use crate::wire::entry::Command;
use crate::wire::raft::KeyFile;

const START: i64 = 1_795_261_300_000_000_000;
const DELAY: Duration = Duration::from_millis(1);

struct Host {
    settings: Settings,
    server: Option<Server>,
    replica: Option<RaftReplica>,
    root: Arc<ArcSwap<State>>,
    keys: BTreeMap<String, Vec<u8>>,
    chunks: BTreeMap<u64, VecDeque<(u32, Vec<u8>, bool)>>,
    kept: BTreeMap<u64, Vec<u8>>,
    lines: Vec<String>,
    exited: bool,
    disk: Disk,
}

/// What a replica has on disk.
#[derive(Clone, Default)]
struct Disk {
    entries: Vec<LogEntry>,
    hard_state: HardState,
    snapshot: Option<(SnapshotMeta, State)>,
}

impl Disk {
    fn persist(&mut self, what: &Persist) {
        if let Some(first) = what.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(what.entries.iter().cloned());
        }
        self.hard_state = what.hard_state.unwrap_or(self.hard_state);
    }

    fn recovered(&self) -> Recovered {
        let after = self.snapshot.as_ref().map_or(Index(0), |(meta, _)| meta.index);
        let entries = self.entries.iter().filter(|entry| entry.index > after).cloned().collect();
        Recovered { snapshot: self.snapshot.clone(), entries, hard_state: self.hard_state }
    }
}

#[allow(clippy::large_enum_variant)]
enum Event {
    Input(Input<'static>),
    Bytes(ConnId, Vec<u8>),
    /// A slow link may take more.
    Flush(ConnId),
    Dial(u64, String),
    Persisted(u64),
}

struct World {
    now: Instant,
    hosts: Vec<Host>,
    events: BTreeMap<(Instant, u64), (usize, Event)>,
    posted: u64,
    conns: u64,
    /// The other end of each connection.
    ends: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    /// Who reaches nobody, and is not reached.
    cut: BTreeSet<usize>,
    /// What clients heard on their connections.
    heard: BTreeMap<(usize, ConnId), Vec<u8>>,
    /// A server that takes bytes in slowly, so many a second on each connection; and when it has taken what was sent.
    slow: Option<(usize, u64)>,
    slow_until: BTreeMap<ConnId, Instant>,
    flushes: BTreeSet<(usize, ConnId)>,
    /// Each chunk of a snapshot that was sent: from, and its number.
    chunks: Vec<(usize, u32)>,
}

fn limits(snapshot_entries: u64) -> Limits {
    Limits {
        max_entry_bytes: 1 << 20,
        warn_entry_bytes: 1 << 20,
        snapshot_entries,
        snapshot_bytes: 1 << 40,
        tick: Duration::from_millis(25),
        election_ticks: 20,
        heartbeat_ticks: 4,
        stalled_sync: Duration::from_secs(10),
        max_waiting_proposals: 1000,
    }
}

impl World {
    fn new(count: usize, founders: usize) -> World {
        let join: Vec<String> = (0..founders).map(|n| format!("10.0.0.{n}:4647")).collect();
        let host = |n: usize| Host {
            settings: Settings {
                server_id: format!("00000000-0000-4000-8000-{n:012}"),
                name: format!("s{n}"),
                advertise_rpc: format!("10.0.0.{n}:4647"),
                bootstrap_expect: founders as u64,
                join: join.clone(),
                replica: ReplicaId(100 + n as u64),
                seed: n as u64,
                dead_server_after: Duration::from_secs(60),
                ..settings()
            },
            server: None,
            replica: None,
            root: Arc::new(ArcSwap::from_pointee(State::new())),
            keys: BTreeMap::new(),
            chunks: BTreeMap::new(),
            kept: BTreeMap::new(),
            lines: Vec::new(),
            exited: false,
            disk: Disk::default(),
        };
        World {
            now: Instant::ZERO + Duration::from_secs(1),
            hosts: (0..count).map(host).collect(),
            events: BTreeMap::new(),
            posted: 0,
            conns: 0,
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            heard: BTreeMap::new(),
            slow: None,
            slow_until: BTreeMap::new(),
            flushes: BTreeSet::new(),
            chunks: Vec::new(),
        }
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(START + i64::try_from(self.now.as_nanos()).unwrap())
    }

    /// Begins with what is on its disk.
    fn start(&mut self, n: usize, snapshot_entries: u64) {
        let (now, wall) = (self.now, self.wall());
        let host = &mut self.hosts[n];
        let (id, limits) = (host.settings.replica, limits(snapshot_entries));
        self.posted += 1;
        let seed = n as u64 + self.posted * 100;
        let replica = RaftReplica::new(id, seed, limits, host.disk.recovered(), None, now).unwrap();
        host.root = Arc::new(ArcSwap::new(replica.root()));
        host.server = Some(Server::new(host.settings.clone(), Arc::clone(&host.root), now, wall));
        host.replica = Some(replica);
        self.drain(n);
    }

    /// Its process ends, and all its connections with it.
    fn kill(&mut self, n: usize) {
        let host = &mut self.hosts[n];
        (host.server, host.replica) = (None, None);
        host.kept.clear();
        host.chunks.clear();
        self.end_conns(n);
        self.events.retain(|_, (host, _)| *host != n);
    }

    /// Ends all connections of a server as a network does that forgets them.
    fn end_conns(&mut self, n: usize) {
        let ends: Vec<_> = self.ends.iter().filter(|((host, _), _)| *host == n).map(|(a, b)| (*a, *b)).collect();
        for (own, other) in ends {
            self.ends.remove(&own);
            self.ends.remove(&other);
            for (host, conn) in [own, other] {
                self.post(host, Event::Input(Input::Failed { conn, error: "connection reset".to_owned() }));
            }
        }
    }

    /// From now on a server reaches nobody.
    fn cut(&mut self, n: usize) {
        self.cut.insert(n);
        self.end_conns(n);
    }

    /// Asks for something by HTTP; [`World::heard`] has the answer.
    fn ask(&mut self, n: usize, method: &str, target: &str) -> ConnId {
        self.conns += 2;
        let conn = ConnId(self.conns);
        let peer = "10.0.0.8:1".parse().unwrap();
        self.heard.insert((n, conn), Vec::new());
        self.input(n, Input::Accepted { conn, listener: Listener::Http, peer });
        let text = format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        self.input(n, Input::Received { conn, bytes: text.as_bytes() });
        conn
    }

    fn heard(&self, n: usize, conn: ConnId) -> String {
        String::from_utf8_lossy(&self.heard[&(n, conn)]).into_owned()
    }

    fn post(&mut self, host: usize, event: Event) {
        self.post_at(self.now + DELAY, host, event);
    }

    fn post_at(&mut self, at: Instant, host: usize, event: Event) {
        self.posted += 1;
        self.events.insert((at, self.posted), (host, event));
    }

    fn input(&mut self, n: usize, input: Input<'_>) {
        let (now, wall) = (self.now, self.wall());
        if let Some(server) = &mut self.hosts[n].server {
            server.handle_input(now, wall, input);
            self.drain(n);
        }
    }

    fn consensus(&mut self, n: usize, input: consensus::Input) {
        let (now, wall) = (self.now, self.wall());
        if let Some(replica) = &mut self.hosts[n].replica {
            replica.handle_input(now, wall, input);
        }
    }

    /// Performs all that server and replica want.
    fn drain(&mut self, n: usize) {
        loop {
            if let Some(output) = self.hosts[n].server.as_mut().and_then(Server::poll_output) {
                self.perform(n, output);
            } else if let Some(output) = self.hosts[n].replica.as_mut().and_then(RaftReplica::poll_output) {
                self.perform_consensus(n, output);
            } else {
                return;
            }
        }
    }

    fn perform_consensus(&mut self, n: usize, output: consensus::Output) {
        match output {
            consensus::Output::Persist(persist) => {
                self.hosts[n].disk.persist(&persist);
                self.post(n, Event::Persisted(persist.ticket));
            }
            consensus::Output::Install { ticket, meta, state, hard_state } => {
                self.hosts[n].disk = Disk { entries: Vec::new(), hard_state, snapshot: Some((meta, (*state).clone())) };
                self.post(n, Event::Persisted(ticket));
            }
            consensus::Output::Publish { root, notices } => {
                if let Some(root) = root {
                    self.hosts[n].root.store(root);
                }
                for notice in &notices {
                    assert!(!matches!(notice, Notice::Fatal(_)), "server {n}: {notice:?}");
                }
                self.input(n, Input::Notices(notices));
            }
            consensus::Output::WriteSnapshot(meta, state) => {
                self.hosts[n].disk.snapshot = Some((meta.clone(), (*state).clone()));
                self.consensus(n, consensus::Input::SnapshotWritten { index: meta.index });
            }
            consensus::Output::Compact(index) => self.hosts[n].disk.entries.retain(|entry| entry.index > index),
        }
    }

    fn perform(&mut self, n: usize, output: Output) {
        match output {
            Output::Flush(conn) => self.flush(n, conn),
            Output::Close { conn, .. } => {
                if let Some((host, other)) = self.ends.remove(&(n, conn)) {
                    self.ends.remove(&(host, other));
                    self.post(host, Event::Input(Input::Eof { conn: other }));
                }
            }
            Output::Run(job) => {
                let outcome = run_job(&job, &self.hosts[n].root.load());
                self.post(n, Event::Input(Input::Ran { job: job.id, outcome }));
            }
            Output::Propose(proposals) => self.consensus(n, consensus::Input::Propose(proposals)),
            Output::Cluster(ClusterOutput::Consensus(inputs)) => {
                inputs.into_iter().for_each(|input| self.consensus(n, input))
            }
            Output::Cluster(ClusterOutput::Dial { ticket, address, .. }) => self.post(n, Event::Dial(ticket, address)),
            Output::Cluster(ClusterOutput::KeepCluster(file)) => {
                self.hosts[n].settings.cluster = file;
                self.post(n, Event::Input(Input::ClusterKept));
            }
            Output::Log { text, .. } => self.hosts[n].lines.push(text),
            Output::Exit { .. } => self.hosts[n].exited = true,
            output => self.perform_files(n, output),
        }
    }

    /// Bytes are taken from a server as fast as its peer takes them in.
    fn flush(&mut self, n: usize, conn: ConnId) {
        let now = self.now;
        let other = self.ends.get(&(n, conn)).copied();
        let Some(server) = &mut self.hosts[n].server else { return };
        if server.to_send(conn).is_empty() {
            return;
        }
        let mut bytes = server.to_send(conn).to_vec();
        if let (Some((host, other)), Some((slow, per_second))) = (other, self.slow)
            && host == slow
        {
            let until = self.slow_until.get(&conn).copied().unwrap_or(now);
            if until > now {
                return self.flush_at(until, n, conn);
            }
            let most = usize::try_from(per_second / 50).unwrap();
            bytes.truncate(most);
            let nanos = bytes.len() as u64 * 1_000_000_000 / per_second;
            let at = now + Duration::from_nanos(nanos);
            self.slow_until.insert(conn, at);
            server.sent(now, conn, bytes.len());
            self.post_at(at, host, Event::Bytes(other, bytes));
            return self.flush_at(at, n, conn);
        }
        server.sent(now, conn, bytes.len());
        if let Some((host, conn)) = other {
            self.post(host, Event::Bytes(conn, bytes));
        } else if let Some(heard) = self.heard.get_mut(&(n, conn)) {
            heard.extend(bytes);
        }
    }

    fn flush_at(&mut self, at: Instant, n: usize, conn: ConnId) {
        if self.flushes.insert((n, conn)) {
            self.post_at(at, n, Event::Flush(conn));
        }
    }

    fn perform_files(&mut self, n: usize, output: Output) {
        let host = &mut self.hosts[n];
        match output {
            Output::Cluster(ClusterOutput::ReadSnapshot { ticket, state, from }) => {
                let parts: Vec<Vec<u8>> = snapshot::write(&state).collect();
                let all: Vec<Vec<u8>> = parts.chunks(2).map(<[Vec<u8>]>::concat).collect();
                let count = all.len();
                let numbered = all.into_iter().enumerate().skip(from as usize);
                let chunks = numbered.map(|(nth, bytes)| (nth as u32, bytes, nth + 1 == count)).collect();
                host.chunks.insert(ticket, chunks);
            }
            Output::Cluster(ClusterOutput::NextChunk { ticket }) => {
                let next = host.chunks.get_mut(&ticket).and_then(VecDeque::pop_front);
                if let Some((number, bytes, last)) = next {
                    self.chunks.push((n, number));
                    self.post(n, Event::Input(Input::SnapshotChunk { ticket, number, bytes, last }));
                }
            }
            Output::Cluster(ClusterOutput::KeepChunk { ticket, number, bytes, last }) => {
                let kept = host.kept.entry(ticket).or_default();
                if number == 0 {
                    kept.clear();
                }
                kept.extend(bytes);
                if last {
                    let result = snapshot::read(kept).map(Arc::new).map_err(|error| error.to_string());
                    self.post(n, Event::Input(Input::SnapshotWhole { ticket, result }));
                }
            }
            Output::Cluster(ClusterOutput::ReadKeys(ids)) => {
                let there = ids.into_iter().filter_map(|id| Some((id.clone(), KeyFile(host.keys.get(&id)?.clone()))));
                let files = there.collect();
                self.post(n, Event::Input(Input::KeyFiles(files)));
            }
            Output::Cluster(ClusterOutput::KeepKey { key_id, secret }) => {
                host.keys.insert(key_id.clone(), secret.0);
                self.post(n, Event::Input(Input::KeyKept { key_id, error: None }));
            }
            Output::MakeSigningKey { key_id, fresh } => {
                let known = key_id.filter(|id| host.keys.contains_key(id)).or_else(|| host.keys.keys().next().cloned());
                let id = known.filter(|_| !fresh).unwrap_or_else(|| {
                    let id = format!("00000000-0000-4000-8000-{n:06}{:06}", host.keys.len());
                    host.keys.insert(id.clone(), vec![n as u8 + 1; 32]);
                    id
                });
                let seed: [u8; 32] = host.keys[&id].clone().try_into().unwrap();
                let signer = Signer::new(&id, &pkcs8(&seed)).unwrap();
                let keys = host.keys.iter().map(|(id, seed)| {
                    let seed: [u8; 32] = seed.clone().try_into().unwrap();
                    SealingKey::derive(id, &seed).unwrap()
                });
                let sealer = Sealer::new(keys.collect(), &id).unwrap();
                let input = Input::Keys { signer: Arc::new(signer), sealer: Arc::new(sealer) };
                self.post(n, Event::Input(input));
            }
            _ => {}
        }
    }

    fn happen(&mut self, n: usize, event: Event) {
        match event {
            Event::Input(input) => self.input(n, input),
            Event::Bytes(conn, bytes) => self.input(n, Input::Received { conn, bytes: &bytes }),
            Event::Flush(conn) => {
                self.flushes.remove(&(n, conn));
                self.flush(n, conn);
                self.drain(n);
            }
            Event::Persisted(ticket) => {
                self.consensus(n, consensus::Input::Persisted { ticket });
                self.drain(n);
            }
            Event::Dial(ticket, address) => {
                let is_there = |other: &usize| {
                    let host = &self.hosts[*other];
                    let is_cut = *other != n && (self.cut.contains(other) || self.cut.contains(&n));
                    host.settings.advertise_rpc == address && host.server.is_some() && !is_cut
                };
                let Some(there) = (0..self.hosts.len()).find(is_there) else {
                    return self.input(n, Input::DialFailed { ticket, error: "connection refused".to_owned() });
                };
                self.conns += 2;
                let (own, other) = (ConnId(self.conns), ConnId(self.conns + 1));
                self.ends.insert((n, own), (there, other));
                self.ends.insert((there, other), (n, own));
                let peer = "10.0.0.9:1".parse().unwrap();
                self.input(there, Input::Accepted { conn: other, listener: Listener::Rpc, peer });
                self.input(n, Input::Dialled { ticket, conn: own, peer });
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut still = 0;
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let servers = self.hosts.iter().filter_map(|host| host.server.as_ref()?.poll_timeout());
            let replicas = self.hosts.iter().filter_map(|host| host.replica.as_ref()?.poll_timeout());
            let next = event.into_iter().chain(servers).chain(replicas).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            // Whoever wants a timeout again and again does not see to it when it comes.
            still = if next > self.now { 0 } else { still + 1 };
            assert!(still < 100_000, "at {}: event={event:?} {:?}", self.now, self.timeouts());
            self.now = self.now.max(next);
            if event == Some(next) {
                let (_, (n, event)) = self.events.pop_first().unwrap();
                self.happen(n, event);
                continue;
            }
            for n in 0..self.hosts.len() {
                let now = self.now;
                if self.hosts[n].server.as_ref().and_then(Server::poll_timeout).is_some_and(|at| at <= now) {
                    self.input(n, Input::Timeout);
                }
                if self.hosts[n].replica.as_ref().and_then(RaftReplica::poll_timeout).is_some_and(|at| at <= now) {
                    self.consensus(n, consensus::Input::Timeout);
                    self.drain(n);
                }
            }
        }
        self.now = until;
    }

    fn timeouts(&self) -> Vec<(Option<Instant>, Option<Instant>, String)> {
        let of = |host: &Host| {
            let server = host.server.as_ref();
            let peers = server.map(|server| format!("{:?} {:?}", server.peers.next(), server.peers.transfers));
            let due = server.and_then(Server::poll_timeout);
            (due, host.replica.as_ref().and_then(RaftReplica::poll_timeout), peers.unwrap_or_default())
        };
        self.hosts.iter().map(of).collect()
    }

    fn leader(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|n| self.hosts[*n].server.as_ref().is_some_and(|server| server.ctx.is_leader))
    }

    fn server(&self, n: usize) -> &Server {
        self.hosts[n].server.as_ref().unwrap()
    }

    fn propose(&mut self, n: usize, command: Command) {
        self.posted += 1;
        let proposals = vec![Proposal { id: CallId(self.posted), session: None, command }];
        self.consensus(n, consensus::Input::Propose(proposals));
        self.drain(n);
    }

    fn write(&mut self, n: usize, count: u64) {
        for nth in 0..count {
            self.propose(n, Command::Noop);
            if nth % 50 == 0 {
                self.run(Duration::from_millis(5));
            }
        }
        self.run(Duration::from_millis(200));
    }

    fn said(&self, n: usize, part: &str) -> bool {
        self.hosts[n].lines.iter().any(|line| line.contains(part))
    }
}

fn cluster() -> (World, usize) {
    let mut world = World::new(4, 3);
    (0..3).for_each(|n| world.start(n, 1 << 40));
    world.run(Duration::from_secs(5));
    let leader = world.leader();
    let leader = leader.unwrap_or_else(|| panic!("no leader: {:#?}", world.hosts[0].lines));
    (world, leader)
}
