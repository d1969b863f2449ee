//! Several machines on a network of a few lines, in virtual time: links, and how a cluster comes to be.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::machine::{Act, Machine};
use crate::base::id::{ConnId, ReplicaId};
use crate::base::rng::Rng;
use crate::base::time::{Instant, WallTime};
use crate::consensus::Membership;
use crate::server::port::{ClusterFile, Settings, cluster_id_of};
use crate::server::rig::settings;
use crate::wire::raft::RaftFrame;

/// One server: its machine, while it runs, and its disk.
struct Host {
    settings: Settings,
    machine: Option<Machine>,
    /// What is on disk of the cluster.
    file: ClusterFile,
    /// The voters that its log begins with.
    voters: Option<Vec<ReplicaId>>,
    lines: Vec<String>,
}

/// What is on its way.
#[derive(Clone, Debug)]
enum Parcel {
    Dialled { address: Arc<str>, to: usize },
    Frame { conn: u64, to: usize, frame: Box<RaftFrame> },
    Closed { conn: u64, to: usize },
    Kept,
}

struct Net {
    now: Instant,
    rng: Rng,
    hosts: Vec<Host>,
    /// (when, number, whose, what): in order.
    parcels: BTreeMap<(Instant, u64), (usize, Parcel)>,
    sent: u64,
    conns: u64,
    /// Both ends of each connection: dialler with the address, acceptor.
    ends: BTreeMap<u64, (usize, Arc<str>, usize)>,
    /// Pairs that cannot talk.
    cut: BTreeSet<(usize, usize)>,
    /// Dials of a hundred that fail.
    loss: u64,
}

fn id_of(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn address_of(n: usize) -> String {
    format!("10.0.0.{n}:4647")
}

impl Net {
    fn new(count: usize, expect: u64, seed: u64) -> Net {
        let join: Vec<String> = (0..count).map(address_of).collect();
        let host = |n: usize| {
            let settings = Settings {
                server_id: id_of(n),
                name: format!("s{n}"),
                advertise_rpc: address_of(n),
                bootstrap_expect: expect,
                join: join.clone(),
                replica: ReplicaId(100 + n as u64),
                seed: seed ^ n as u64,
                ..settings()
            };
            Host { settings, machine: None, file: ClusterFile::default(), voters: None, lines: Vec::new() }
        };
        Net {
            now: Instant::ZERO,
            rng: Rng::from_seed(seed),
            hosts: (0..count).map(host).collect(),
            parcels: BTreeMap::new(),
            sent: 0,
            conns: 0,
            ends: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
        }
    }

    fn start(&mut self, n: usize) {
        let wall = WallTime::from_unix_nanos(1_000 + i64::try_from(self.now.as_nanos()).unwrap());
        let host = &mut self.hosts[n];
        host.settings.cluster = host.file.clone();
        let mut machine = Machine::new(&host.settings, self.now, wall);
        let members = Membership { voters: host.voters.clone().unwrap_or_default(), ..Membership::default() };
        machine.on_members(self.now, &members);
        host.machine = Some(machine);
        self.take(n);
    }

    /// The process ends; what was not on disk is lost.
    fn kill(&mut self, n: usize) {
        self.hosts[n].machine = None;
        self.parcels.retain(|_, (whose, parcel)| !(*whose == n && matches!(parcel, Parcel::Kept)));
        let of = |(dialler, _, acceptor): &(usize, Arc<str>, usize)| *dialler == n || *acceptor == n;
        let over: Vec<u64> = self.ends.iter().filter(|(_, ends)| of(ends)).map(|(conn, _)| *conn).collect();
        for conn in over {
            self.close(conn, n);
        }
    }

    fn post(&mut self, whose: usize, parcel: Parcel) {
        let delay = Duration::from_micros(200 + self.rng.below(3_000));
        // A connection keeps its order.
        let mut at = self.now + delay;
        if let Parcel::Frame { conn, to, .. } | Parcel::Closed { conn, to } = &parcel {
            let last = self.parcels.iter().rev().find_map(|((at, _), (_, other))| match other {
                Parcel::Frame { conn: c, to: t, .. } if c == conn && t == to => Some(*at),
                _ => None,
            });
            at = last.map_or(at, |last| last.max(at));
        }
        self.sent += 1;
        self.parcels.insert((at, self.sent), (whose, parcel));
    }

    /// One end closes a connection: the other hears of it.
    fn close(&mut self, conn: u64, by: usize) {
        let Some((dialler, _, acceptor)) = self.ends.get(&conn).cloned() else { return };
        for to in [dialler, acceptor] {
            if to != by || dialler == acceptor {
                self.post(by, Parcel::Closed { conn, to });
            }
        }
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Performs what a machine wants.
    fn take(&mut self, n: usize) {
        while let Some(act) = self.hosts[n].machine.as_mut().and_then(Machine::poll_act) {
            match act {
                Act::Dial(address) => {
                    let to = (0..self.hosts.len()).find(|n| address_of(*n) == *address).unwrap();
                    self.post(n, Parcel::Dialled { address, to });
                }
                Act::Admit(_) => {}
                Act::Send(conn, frame) => {
                    let Some((dialler, _, acceptor)) = self.ends.get(&(conn.0 / 2)) else { continue };
                    let to = if conn.0 % 2 == 0 { *acceptor } else { *dialler };
                    let own = n;
                    if !self.is_cut(own, to) {
                        // The other end's name of the connection differs in its last bit.
                        self.post(n, Parcel::Frame { conn: conn.0 ^ 1, to, frame: Box::new(frame) });
                    }
                }
                Act::Close(conn) => {
                    self.close(conn.0 / 2, n);
                    self.on_closed(n, conn.0);
                }
                Act::Keep(file) => {
                    self.hosts[n].file_to_be(file);
                    self.post(n, Parcel::Kept);
                }
                Act::Found(voters) => {
                    assert!(self.hosts[n].voters.is_none(), "founded twice");
                    self.hosts[n].voters = Some(voters.clone());
                    let members = Membership { voters, ..Membership::default() };
                    let now = self.now;
                    self.hosts[n].machine.as_mut().unwrap().on_members(now, &members);
                }
                Act::Regions(_) => {}
                Act::Log(_, line) => self.hosts[n].lines.push(line),
            }
        }
    }

    fn on_closed(&mut self, n: usize, conn: u64) {
        let address =
            conn.is_multiple_of(2).then(|| self.ends.get(&(conn / 2)).map(|ends| Arc::clone(&ends.1))).flatten();
        if let Some(machine) = &mut self.hosts[n].machine {
            machine.on_closed(self.now, ConnId(conn), address.as_ref());
            self.take(n);
        }
    }

    fn deliver(&mut self, whose: usize, parcel: Parcel) {
        match parcel {
            Parcel::Kept => {
                let host = &mut self.hosts[whose];
                if let Some(machine) = &mut host.machine {
                    host.file = host.settings.cluster.clone();
                    machine.on_kept(self.now);
                    self.take(whose);
                }
            }
            Parcel::Dialled { address, to } => {
                if self.hosts[whose].machine.is_none() {
                    return;
                }
                let now = self.now;
                let lost = self.rng.below(100) < self.loss;
                if lost || self.is_cut(whose, to) || self.hosts[to].machine.is_none() {
                    let machine = self.hosts[whose].machine.as_mut().unwrap();
                    machine.on_dial_failed(now, &address, "connection refused");
                } else {
                    self.conns += 1;
                    self.ends.insert(self.conns, (whose, Arc::clone(&address), to));
                    let conn = self.conns * 2;
                    self.hosts[to].machine.as_mut().unwrap().on_accepted(now, ConnId(conn + 1));
                    self.hosts[whose].machine.as_mut().unwrap().on_ready(now, ConnId(conn), &address);
                    self.take(to);
                }
                self.take(whose);
            }
            Parcel::Frame { conn, to, frame } => {
                let now = self.now;
                if let Some(machine) = &mut self.hosts[to].machine {
                    machine.on_frame(now, ConnId(conn), *frame);
                    self.take(to);
                }
            }
            Parcel::Closed { conn, to } => {
                let Some((dialler, ..)) = self.ends.get(&conn).cloned() else { return };
                if dialler == to {
                    self.on_closed(to, conn * 2);
                }
                self.on_closed(to, conn * 2 + 1);
            }
        }
    }

    /// Runs until this time.
    fn run(&mut self, until: Duration) {
        let until = Instant::ZERO + until;
        loop {
            let parcel = self.parcels.first_key_value().map(|((at, _), _)| *at);
            let due = self.hosts.iter().filter_map(|host| host.machine.as_ref()?.next()).min();
            let Some(next) = parcel.into_iter().chain(due).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            if parcel == Some(next) {
                let (_, (whose, parcel)) = self.parcels.pop_first().unwrap();
                self.deliver(whose, parcel);
                continue;
            }
            for n in 0..self.hosts.len() {
                let now = self.now;
                if let Some(machine) = &mut self.hosts[n].machine
                    && machine.next().is_some_and(|due| due <= now)
                {
                    machine.on_due(now);
                    self.take(n);
                }
            }
        }
        self.now = until;
    }

    /// Which clusters were founded, and that each has the voters that it is named after.
    fn clusters(&self) -> BTreeSet<String> {
        let mut clusters = BTreeSet::new();
        for host in self.hosts.iter() {
            let Some(voters) = &host.voters else { continue };
            let ids: Vec<String> = voters.iter().map(|replica| id_of(replica.0 as usize - 100)).collect();
            assert_eq!(host.file.cluster_id, cluster_id_of(&ids));
            assert!(voters.contains(&host.settings.replica));
            clusters.insert(host.file.cluster_id.clone());
        }
        clusters
    }

    fn joined(&self) -> usize {
        self.hosts.iter().filter(|host| !host.file.cluster_id.is_empty()).count()
    }
}

impl Host {
    /// Written when the parcel arrives; settings hold it until then.
    fn file_to_be(&mut self, file: ClusterFile) {
        self.settings.cluster = file;
    }
}

#[test]
fn servers_that_can_all_talk_found_one_cluster() {
    // R8 notes: bootstrap
    for seed in 0..24 {
        for count in [2, 3, 5] {
            let mut net = Net::new(count, count as u64, seed);
            net.loss = seed % 3 * 20;
            (0..count).for_each(|n| net.start(n));
            net.run(Duration::from_secs(if net.loss == 0 { 2 } else { 20 }));
            assert_eq!((net.clusters().len(), net.joined()), (1, count), "seed {seed}, {count} servers");
        }
    }
}

#[test]
fn all_are_linked_both_ways_within_a_second() {
    let mut net = Net::new(3, 3, 1);
    (0..3).for_each(|n| net.start(n));
    net.run(Duration::from_secs(1));
    for n in 0..3 {
        let machine = net.hosts[n].machine.as_ref().unwrap();
        assert_eq!(machine.links.usable().len(), 2, "server {n}");
        assert_eq!(machine.links.count(), 4, "server {n}");
    }
}

#[test]
fn restarts_between_promise_and_founding_change_nothing() {
    for seed in 0..40 {
        let mut net = Net::new(3, 3, seed);
        net.loss = 10;
        let mut rng = Rng::from_seed(seed);
        (0..3).for_each(|n| net.start(n));
        let mut at = Duration::ZERO;
        for _ in 0..12 {
            at += Duration::from_micros(500 + rng.below(30_000));
            net.run(at);
            let n = rng.below(3) as usize;
            net.kill(n);
            at += rng.jitter(Duration::from_millis(20));
            net.run(at);
            net.start(n);
        }
        net.run(at + Duration::from_secs(30));
        assert_eq!((net.clusters().len(), net.joined()), (1, 3), "seed {seed}");
    }
}

#[test]
fn two_halves_with_a_shared_server_found_at_most_one() {
    // 0 and 1 see only 2; 3 and 4 see only 2.
    for seed in 0..30 {
        let mut net = Net::new(5, 3, seed);
        for (a, b) in [(0, 3), (0, 4), (1, 3), (1, 4)] {
            net.cut.insert((a, b));
        }
        let mut rng = Rng::from_seed(seed);
        let mut order = [0, 1, 2, 3, 4];
        for n in (1..5).rev() {
            order.swap(n, rng.below(n as u64 + 1) as usize);
        }
        let mut at = Duration::ZERO;
        for n in order {
            net.start(n);
            at += rng.jitter(Duration::from_millis(50));
            net.run(at);
        }
        net.run(at + Duration::from_secs(5));
        assert!(net.clusters().len() <= 1, "seed {seed}: {:?}", net.clusters());
        net.cut.clear();
        net.run(at + Duration::from_secs(30));
        assert!(net.clusters().len() <= 1, "seed {seed}");
    }
}

#[test]
fn fewer_than_half_of_those_that_are_named_found_nothing() {
    let mut net = Net::new(4, 2, 1);
    (0..4).for_each(|n| net.start(n));
    net.run(Duration::from_secs(20));
    assert_eq!(net.joined(), 0);
    assert!(net.hosts[0].lines.iter().any(|line| line.contains("more than half")), "{:?}", net.hosts[0].lines);
}

#[test]
fn a_late_server_takes_the_cluster_over_and_a_stranger_is_refused() {
    let mut net = Net::new(4, 3, 3);
    (0..3).for_each(|n| net.start(n));
    net.run(Duration::from_secs(2));
    net.start(3);
    net.run(Duration::from_secs(6));
    let cluster = net.hosts[0].file.cluster_id.clone();
    assert_eq!(net.hosts[3].file.cluster_id, cluster);
    assert_eq!(net.hosts[3].voters, None, "it waits to be added");
    net.kill(3);
    net.hosts[3].file = ClusterFile { cluster_id: cluster_id_of(&[id_of(9)]), ..ClusterFile::default() };
    net.hosts[3].voters = Some(vec![ReplicaId(103)]);
    net.start(3);
    net.run(Duration::from_secs(10));
    let machine = net.hosts[0].machine.as_ref().unwrap();
    assert_eq!(machine.links.to_server(&id_of(3)), None);
    assert!(net.hosts[0].lines.iter().any(|line| line.contains("belongs to cluster")), "{:?}", net.hosts[0].lines);
}

#[test]
fn operators_are_told_who_is_missing() {
    let mut net = Net::new(3, 3, 1);
    (0..2).for_each(|n| net.start(n));
    net.run(Duration::from_secs(25));
    let said = net.hosts[0].lines.iter().filter(|line| *line == "waiting for 3 servers, know 2: s1").count();
    assert_eq!(said, 2, "{:?}", net.hosts[0].lines);
}

#[test]
fn servers_that_all_moved_find_each_other_by_what_is_configured() {
    // R8.19: the configuration names the new addresses; what was remembered is of the past.
    let mut net = Net::new(3, 3, 1);
    (0..3).for_each(|n| net.start(n));
    net.run(Duration::from_secs(2));
    (0..3).for_each(|n| net.kill(n));
    for n in 0..3 {
        let known = (0..3).filter(|other| *other != n).map(|other| (id_of(other), address_of((other + 1) % 3)));
        net.hosts[n].file.known = known.collect();
        net.start(n);
    }
    net.run(Duration::from_secs(10));
    for n in 0..3 {
        assert_eq!(net.hosts[n].machine.as_ref().unwrap().links.usable().len(), 2, "server {n}");
    }
}
