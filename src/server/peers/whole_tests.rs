//! Whole servers with their replicas, in one thread and virtual time: bytes between them, disks of memory.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::api::identity::Signer;
use crate::api::seal::{Sealer, SealingKey};
use crate::base::id::{CallId, ConnId, ReplicaId};
use crate::base::time::{Instant, WallTime};
use crate::consensus::raft::RaftReplica;
use crate::consensus::{self, Limits, Notice, Proposal, Recovered, Replica};
use crate::server::Server;
use crate::server::operator_tests::{pkcs8, settings};
use crate::server::port::{ClusterFile, Input, Listener, Output, Settings};
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
}

#[allow(clippy::large_enum_variant)]
enum Event {
    Input(Input<'static>),
    Bytes(ConnId, Vec<u8>),
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
        };
        World {
            now: Instant::ZERO + Duration::from_secs(1),
            hosts: (0..count).map(host).collect(),
            events: BTreeMap::new(),
            posted: 0,
            conns: 0,
            ends: BTreeMap::new(),
        }
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_nanos(START + i64::try_from(self.now.as_nanos()).unwrap())
    }

    /// Begins with an empty disk.
    fn start(&mut self, n: usize, snapshot_entries: u64) {
        let (now, wall) = (self.now, self.wall());
        let host = &mut self.hosts[n];
        let (id, limits) = (host.settings.replica, limits(snapshot_entries));
        let replica = RaftReplica::new(id, n as u64, limits, Recovered::default(), None, now).unwrap();
        host.server = Some(Server::new(host.settings.clone(), Arc::clone(&host.root), now, wall));
        host.replica = Some(replica);
        self.drain(n);
    }

    fn kill(&mut self, n: usize) {
        self.hosts[n].server = None;
        self.hosts[n].replica = None;
        let ends: Vec<_> = self.ends.iter().filter(|((host, _), _)| *host == n).map(|(_, other)| *other).collect();
        for (host, conn) in ends {
            self.post(host, Event::Input(Input::Failed { conn, error: "connection reset".to_owned() }));
        }
        self.ends.retain(|(host, _), (other, _)| *host != n && *other != n);
        self.events.retain(|_, (host, _)| *host != n);
    }

    fn post(&mut self, host: usize, event: Event) {
        self.posted += 1;
        self.events.insert((self.now + DELAY, self.posted), (host, event));
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
            consensus::Output::Persist(persist) => self.post(n, Event::Persisted(persist.ticket)),
            consensus::Output::Install { ticket, .. } => self.post(n, Event::Persisted(ticket)),
            consensus::Output::Publish { root, notices } => {
                if let Some(root) = root {
                    self.hosts[n].root.store(root);
                }
                for notice in &notices {
                    assert!(!matches!(notice, Notice::Fatal(_)), "server {n}: {notice:?}");
                }
                self.input(n, Input::Notices(notices));
            }
            consensus::Output::WriteSnapshot(meta, _) => {
                self.consensus(n, consensus::Input::SnapshotWritten { index: meta.index });
            }
            consensus::Output::Compact(_) => {}
        }
    }

    fn perform(&mut self, n: usize, output: Output) {
        match output {
            Output::Flush(conn) => {
                let now = self.now;
                let Some(server) = &mut self.hosts[n].server else { return };
                let bytes = server.to_send(conn).to_vec();
                server.sent(now, conn, bytes.len());
                if let Some((host, conn)) = self.ends.get(&(n, conn)).copied() {
                    self.post(host, Event::Bytes(conn, bytes));
                }
            }
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
            Output::Consensus(inputs) => inputs.into_iter().for_each(|input| self.consensus(n, input)),
            Output::Dial { ticket, address, .. } => self.post(n, Event::Dial(ticket, address)),
            Output::KeepCluster(file) => {
                self.hosts[n].settings.cluster = file;
                self.post(n, Event::Input(Input::ClusterKept));
            }
            Output::Log { text, .. } => self.hosts[n].lines.push(text),
            Output::Exit { .. } => self.hosts[n].exited = true,
            output => self.perform_files(n, output),
        }
    }

    fn perform_files(&mut self, n: usize, output: Output) {
        let host = &mut self.hosts[n];
        match output {
            Output::ReadSnapshot { ticket, state, from } => {
                let all: Vec<Vec<u8>> = snapshot::write(&state).collect();
                let count = all.len();
                let numbered = all.into_iter().enumerate().skip(from as usize);
                let chunks = numbered.map(|(nth, bytes)| (nth as u32, bytes, nth + 1 == count)).collect();
                host.chunks.insert(ticket, chunks);
            }
            Output::NextChunk { ticket } => {
                let next = host.chunks.get_mut(&ticket).and_then(VecDeque::pop_front);
                if let Some((number, bytes, last)) = next {
                    self.post(n, Event::Input(Input::SnapshotChunk { ticket, number, bytes, last }));
                }
            }
            Output::KeepChunk { ticket, number, bytes, last } => {
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
            Output::ReadKeys(ids) => {
                let there = ids.into_iter().filter_map(|id| Some((id.clone(), KeyFile(host.keys.get(&id)?.clone()))));
                let files = there.collect();
                self.post(n, Event::Input(Input::KeyFiles(files)));
            }
            Output::KeepKey { key_id, secret } => {
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
            Event::Persisted(ticket) => {
                self.consensus(n, consensus::Input::Persisted { ticket });
                self.drain(n);
            }
            Event::Dial(ticket, address) => {
                let there = (0..self.hosts.len())
                    .find(|n| self.hosts[*n].settings.advertise_rpc == address && self.hosts[*n].server.is_some());
                let Some(there) = there else {
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
        loop {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let servers = self.hosts.iter().filter_map(|host| host.server.as_ref()?.poll_timeout());
            let replicas = self.hosts.iter().filter_map(|host| host.replica.as_ref()?.poll_timeout());
            let next = event.into_iter().chain(servers).chain(replicas).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
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

    fn leader(&self) -> Option<usize> {
        (0..self.hosts.len()).find(|n| self.hosts[*n].server.as_ref().is_some_and(|server| server.ctx.is_leader))
    }

    fn server(&self, n: usize) -> &Server {
        self.hosts[n].server.as_ref().unwrap()
    }

    fn write(&mut self, n: usize, count: u64) {
        for nth in 0..count {
            let proposals = vec![Proposal { id: CallId(nth + 1), session: None, command: Command::Noop }];
            self.consensus(n, consensus::Input::Propose(proposals));
            self.drain(n);
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

#[test]
fn three_servers_found_elect_and_share_a_key() {
    let (world, leader) = cluster();
    let address = &world.hosts[leader].settings.advertise_rpc;
    for n in 0..3 {
        let server = world.server(n);
        assert_eq!(*server.ctx.leader_rpc_addr, **address, "server {n}");
        assert_eq!(server.ctx.servers.iter().filter(|entry| entry.voter).count(), 3, "server {n}");
        assert!(server.root.load().signing_keys().len() == 1, "server {n}");
        let key = server.ctx.signer.as_ref().map(|signer| signer.key_id().to_owned());
        assert_eq!(key.as_deref(), Some(&*server.root.load().signing_keys()[0].key_id), "server {n}");
        assert_eq!(server.root.load().servers().count(), 3, "server {n}");
    }
}

#[test]
fn another_leads_after_a_death_and_the_dead_is_removed() {
    let (mut world, leader) = cluster();
    world.kill(leader);
    world.run(Duration::from_secs(3));
    let next = world.leader().unwrap();
    assert_ne!(next, leader);
    assert_eq!(world.server(next).root.load().signing_keys().len(), 1, "it has the key already");
    world.run(Duration::from_secs(70));
    assert_eq!(world.server(next).peers.members.as_ref().unwrap().voters.len(), 2, "{:#?}", world.hosts[next].lines);
    assert_eq!(world.server(next).root.load().servers().count(), 2);
}

#[test]
fn a_server_that_joins_gets_a_snapshot_and_then_its_vote() {
    let mut world = World::new(4, 3);
    (0..3).for_each(|n| world.start(n, 200));
    world.run(Duration::from_secs(5));
    let leader = world.leader().unwrap();
    world.write(leader, 3_000);
    world.start(3, 200);
    world.run(Duration::from_secs(20));
    let members = world.server(leader).peers.members.clone().unwrap();
    assert_eq!(members.voters.len(), 4, "{:#?} {:#?}", world.hosts[leader].lines, world.hosts[3].lines);
    assert_eq!(world.server(3).root.load().index(), world.server(leader).root.load().index());
    assert!(world.said(3, "a snapshot comes in"), "{:#?}", world.hosts[3].lines);
    assert!(world.server(3).ctx.signer.is_some(), "it asked for the key");
}

#[test]
fn a_leader_that_stops_hands_over_first() {
    let (mut world, leader) = cluster();
    world.input(leader, Input::Stop);
    world.run(Duration::from_millis(300));
    let next = world.leader();
    assert!(next.is_some_and(|next| next != leader), "{:#?}", world.hosts[leader].lines);
    assert!(world.hosts[leader].exited, "{:#?}", world.hosts[leader].lines);
}

#[test]
fn a_file_of_the_cluster_is_kept() {
    let (world, _) = cluster();
    let ids: Vec<String> = world.hosts.iter().take(3).map(|host| host.settings.cluster.cluster_id.clone()).collect();
    assert!(!ids[0].is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let ClusterFile { known, founders, .. } = &world.hosts[0].settings.cluster;
    assert_eq!((known.len(), founders.len()), (2, 3));
}

#[test]
fn replicas_compare_themselves_and_one_that_differs_stops_serving() {
    // R8.18
    let mut world = World::new(3, 3);
    (0..3).for_each(|n| world.hosts[n].settings.digest_entries = 100);
    (0..3).for_each(|n| world.start(n, 1 << 40));
    world.run(Duration::from_secs(5));
    let leader = world.leader().unwrap();
    world.write(leader, 300);
    world.run(Duration::from_secs(2));
    assert!((0..3).all(|n| !world.server(n).leader.diverged), "all the same");
    let wrong = (leader + 1) % 3;
    let server = world.hosts[wrong].server.as_mut().unwrap();
    // What a mark found is not what the others found.
    let (mark, mut digest) = server.peers.digests.own();
    assert!(mark > 0);
    digest[3] ^= 1;
    let now = world.now;
    let server = world.hosts[wrong].server.as_mut().unwrap();
    server.on_digested(now, mark, digest);
    world.drain(wrong);
    world.run(Duration::from_secs(1));
    assert!(world.server(wrong).leader.diverged);
    assert!(!world.server(wrong).ctx.known_leader);
    assert!(world.said(wrong, "tables=\"nodes\""), "{:#?}", world.hosts[wrong].lines);
    assert!((0..3).all(|n| n == wrong || !world.server(n).leader.diverged));
}

#[test]
fn a_server_that_was_removed_learns_it_and_stays_away() {
    let (mut world, leader) = cluster();
    let gone = (leader + 1) % 3;
    let change = consensus::MemberChange::Remove(world.hosts[gone].settings.replica);
    world.consensus(leader, consensus::Input::ChangeMember { id: CallId(77), change });
    world.drain(leader);
    world.run(Duration::from_secs(30));
    assert_eq!(world.server(leader).peers.members.as_ref().unwrap().voters.len(), 2);
    assert!(world.said(gone, "was removed from the cluster"), "{:#?}", world.hosts[gone].lines);
    assert!(world.server(gone).peers.machine.is_removed());
    assert!(world.leader().is_some_and(|leader| leader != gone));
    assert_eq!(world.server(leader).root.load().servers().count(), 2, "{:#?}", world.hosts[leader].lines);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    // R8.17
    use crate::server::port::ProcessFacts;
    let mut world = World::new(1, 1);
    world.hosts[0].settings.min_free_bytes = 1000;
    world.start(0, 1 << 40);
    for (free, refused) in [(5000, false), (999, true), (1050, true), (1100, false), (1000, false), (0, true)] {
        let facts = ProcessFacts { disk_free_bytes: Some(free), ..ProcessFacts::default() };
        world.input(0, Input::Process(facts));
        assert_eq!(world.server(0).refused_for_space().is_some(), refused, "{free}");
    }
    let text = world.server(0).refused_for_space().unwrap();
    assert_eq!(text, "writes are refused: the disk of the data folder has 0 bytes free, the least is 1000");
}
