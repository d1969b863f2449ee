//! A cluster under chance: messages late, lost, doubled and out of order, replicas that crash with torn disks, members
//! that change; and what must hold all the same.

mod late;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Disk, Rig, limits, proposal};
use crate::base::id::{CallId, ReplicaId};
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::consensus::{Input, LEASE_FOR_EVER, Limits, MemberChange, Membership, Notice, Replica, Resolution};
use crate::state::State;
use crate::wire::raft::RaftMessage;

const STEP: Duration = Duration::from_millis(5);

/// What travels.
enum Packet {
    Message(RaftMessage),
    Snapshot(RaftMessage, Arc<State>),
}

struct World {
    rng: Rng,
    now: Instant,
    limits: Limits,
    /// By id; `None` while it is down, with its disk beside it.
    rigs: BTreeMap<u64, Option<Rig>>,
    disks: BTreeMap<u64, Disk>,
    /// By the time of arrival and a number.
    queue: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
    /// Whether messages are lost, doubled and delayed.
    rough: bool,
    cut: Vec<u64>,
    /// Leases as told: by whom, until when.
    leases: BTreeMap<u64, Instant>,
    members: BTreeMap<u64, Membership>,
    /// How each proposal ended.
    ended: BTreeMap<u64, Resolution>,
    other_ends: BTreeMap<u64, Resolution>,
    reads: BTreeMap<u64, bool>,
    /// What was agreed at each index, by its digest.
    agreed: BTreeMap<u64, [u8; 32]>,
    /// Where each replica's digest was looked at last.
    looked_at: BTreeMap<u64, u64>,
    installed: usize,
}

fn id(n: u64) -> ReplicaId {
    ReplicaId(n)
}

fn cluster_limits() -> Limits {
    Limits { tick: Duration::from_millis(25), election_ticks: 20, heartbeat_ticks: 4, ..limits() }
}

impl World {
    fn new(seed: u64, founders: u64, limits: Limits) -> World {
        let mut world = World {
            rng: Rng::from_seed(seed),
            now: Instant::ZERO,
            limits,
            rigs: BTreeMap::new(),
            disks: BTreeMap::new(),
            queue: BTreeMap::new(),
            sent: 0,
            rough: false,
            cut: Vec::new(),
            leases: BTreeMap::new(),
            members: BTreeMap::new(),
            ended: BTreeMap::new(),
            other_ends: BTreeMap::new(),
            reads: BTreeMap::new(),
            agreed: BTreeMap::new(),
            looked_at: BTreeMap::new(),
            installed: 0,
        };
        for n in 1..=founders {
            world.start(n);
        }
        let voters: Vec<ReplicaId> = (1..=founders).map(id).collect();
        for n in 1..=founders {
            world.input(n, Input::Bootstrap(voters.clone()));
        }
        world
    }

    fn start(&mut self, n: u64) {
        let disk = self.disks.remove(&n).unwrap_or_default();
        let seed = self.rng.next_u64();
        let mut rig = Rig::start_at(n, seed, self.limits.clone(), disk, None, self.now);
        rig.now = self.now;
        self.rigs.insert(n, Some(rig));
        self.collect(n);
    }

    /// What was being written may be on disk or not.
    fn crash(&mut self, n: u64) {
        let Some(rig) = self.rigs.get_mut(&n).and_then(Option::take) else { return };
        let mut disk = rig.disk.clone();
        if let Some(persist) = rig.asked.front() {
            if self.rng.chance(1, 2) {
                disk.persist(persist);
            } else if persist.hard_state.is_none() && self.rng.chance(1, 2) {
                let mut torn = persist.clone();
                torn.entries.truncate(torn.entries.len() / 2);
                disk.persist(&torn);
            }
        }
        if let Some((_, meta, state, hard_state)) = &rig.asked_install
            && self.rng.chance(1, 2)
        {
            disk =
                Disk { entries: Vec::new(), hard_state: *hard_state, snapshots: vec![(meta.clone(), state.clone())] };
        }
        self.leases.remove(&n);
        self.disks.insert(n, disk);
    }

    fn input(&mut self, n: u64, input: Input) {
        let now = self.now;
        if let Some(Some(rig)) = self.rigs.get_mut(&n) {
            rig.now = now;
            rig.wall = 1_000 + i64::try_from(now.as_nanos()).unwrap();
            rig.input(input);
            self.collect(n);
        }
    }

    fn collect(&mut self, n: u64) {
        let Some(Some(rig)) = self.rigs.get_mut(&n) else { return };
        let notices: Vec<Notice> = rig.notices.drain(..).collect();
        let messages: Vec<RaftMessage> = rig.outbox.drain(..).collect();
        let (root, digest_at) = (rig.root.clone(), rig.root.index().0);
        for notice in notices {
            match notice {
                Notice::Resolved { id, resolution } if id.0 < 1_000_000 => {
                    assert!(self.ended.insert(id.0, resolution).is_none(), "ended twice");
                }
                Notice::Resolved { id, resolution } => drop(self.other_ends.insert(id.0, resolution)),
                Notice::Lease(until) => self.take_lease(n, until),
                Notice::Members(members) => drop(self.members.insert(n, members)),
                Notice::SendSnapshot { message, state } => self.post(Packet::Snapshot(*message, state)),
                Notice::Installed { .. } => self.installed += 1,
                Notice::ReadReady { id, ok } => drop(self.reads.insert(id.0, ok)),
                Notice::Fatal(why) => panic!("replica {n}: {why}"),
                _ => {}
            }
        }
        for message in messages {
            self.post(Packet::Message(message));
        }
        if digest_at > 0 && self.looked_at.insert(n, digest_at) != Some(digest_at) {
            let digest = *self.agreed.entry(digest_at).or_insert_with(|| root.digest());
            assert_eq!(digest, root.digest(), "replica {n} differs at {digest_at}");
        }
    }

    /// **Two leaders never hold a lease at the same time.**
    fn take_lease(&mut self, n: u64, until: Instant) {
        self.leases.insert(n, until);
        if until > self.now {
            for (other, theirs) in &self.leases {
                assert!(
                    *other == n || *theirs <= self.now,
                    "replicas {n} and {other} both hold a lease at {}",
                    self.now
                );
            }
        }
    }

    fn post(&mut self, packet: Packet) {
        self.sent += 1;
        let rough = self.rough;
        if rough && self.rng.chance(1, 12) {
            if let Packet::Snapshot(message, _) = packet {
                let (from, to) = (message.from, id(message.to));
                self.input(from, Input::SnapshotSent { to, ok: false });
            }
            return;
        }
        let far = if rough && self.rng.chance(1, 10) { 800 } else { 4 };
        let wait = Duration::from_micros(200) + self.rng.jitter(Duration::from_millis(far));
        if let Packet::Message(message) = &packet
            && rough
            && self.rng.chance(1, 15)
        {
            let again = wait + self.rng.jitter(Duration::from_millis(1500));
            self.queue.insert((self.now + again, self.sent + (1 << 40)), Packet::Message(message.clone()));
        }
        self.queue.insert((self.now + wait, self.sent), packet);
    }

    fn step(&mut self) {
        self.now += STEP;
        while let Some(first) = self.queue.first_entry().filter(|first| first.key().0 <= self.now) {
            match first.remove() {
                Packet::Message(message) => {
                    if !self.cut.contains(&message.from) && !self.cut.contains(&message.to) {
                        self.input(message.to, Input::Messages(vec![message]));
                    }
                }
                Packet::Snapshot(message, state) => {
                    let (from, to) = (message.from, message.to);
                    let up = !self.cut.contains(&from) && !self.cut.contains(&to) && self.is_up(to);
                    if up {
                        self.input(to, Input::SnapshotReceived { message: Box::new(message), state });
                    }
                    self.input(from, Input::SnapshotSent { to: id(to), ok: up });
                }
            }
        }
        let all: Vec<u64> = self.rigs.keys().copied().collect();
        for n in all {
            let due = self.rigs[&n].as_ref().and_then(|rig| rig.replica.poll_timeout());
            if due.is_some_and(|at| at <= self.now) {
                self.input(n, Input::Timeout);
            }
            if (!self.rough || self.rng.chance(2, 3))
                && let Some(Some(rig)) = self.rigs.get_mut(&n)
            {
                rig.now = self.now;
                rig.sync();
                rig.snapshot();
            }
            self.collect(n);
        }
    }

    fn is_up(&self, n: u64) -> bool {
        self.rigs.get(&n).is_some_and(Option::is_some)
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn leader(&self) -> Option<u64> {
        let leads = |(n, rig): (&u64, &Option<Rig>)| {
            rig.as_ref().filter(|rig| rig.replica.leadership().ready && !self.cut.contains(n)).map(|_| *n)
        };
        self.rigs.iter().filter_map(leads).max_by_key(|n| self.rig(*n).replica.leadership().term)
    }

    fn rig(&self, n: u64) -> &Rig {
        self.rigs[&n].as_ref().expect("it runs")
    }

    fn elect(&mut self) -> u64 {
        for _ in 0..4000 {
            self.step();
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("nobody leads");
    }

    fn propose(&mut self, n: u64, call: u64) {
        self.input(n, Input::Propose(vec![proposal(call, 0)]));
    }

    /// Asks for a change at whoever leads, until it is done.
    fn change(&mut self, call: u64, change: MemberChange) -> Resolution {
        for round in 0..40 {
            let leader = self.elect();
            let call = CallId(1_000_000 + call * 100 + round);
            self.input(leader, Input::ChangeMember { id: call, change });
            for _ in 0..1200 {
                if self.other_ends.contains_key(&call.0) {
                    break;
                }
                self.step();
            }
            match self.other_ends.get(&call.0).expect("it ends") {
                Resolution::Applied { index, result } => {
                    return Resolution::Applied { index: *index, result: result.clone() };
                }
                Resolution::Rejected(why) if !why.contains("behind") && !why.contains("way") => {
                    return Resolution::Rejected(why.clone());
                }
                _ => self.run(Duration::from_millis(300)),
            }
        }
        panic!("{change:?} never came to an end");
    }

    /// Everybody is back and hears everybody; what was said is true.
    fn settle_and_check(&mut self) {
        self.rough = false;
        self.cut.clear();
        let down: Vec<u64> = self.disks.keys().copied().collect();
        for n in down {
            self.start(n);
        }
        self.run(Duration::from_secs(8));
        let leader = self.elect();
        self.run(Duration::from_secs(2));
        let root = self.rig(leader).root.clone();
        let has = |call: u64| root.signing_keys().iter().any(|key| key.key_id == format!("key-{call}"));
        for (call, ended) in &self.ended {
            match ended {
                Resolution::Applied { .. } => assert!(has(*call), "{call} was acknowledged and is lost"),
                Resolution::NotLeader | Resolution::Rejected(_) => assert!(!has(*call), "{call} did not happen"),
                Resolution::Unknown => {}
            }
        }
        for n in &self.rig(leader).replica.members.voters {
            assert_eq!(self.rig(n.0).root.index(), root.index(), "replica {n} is behind");
        }
    }
}

#[test]
fn they_are_founded_by_an_input_and_hold_a_lease() {
    let mut world = World::new(1, 3, cluster_limits());
    let leader = world.elect();
    world.run(Duration::from_millis(300));
    assert!(world.leases[&leader] > world.now && world.leases[&leader] != LEASE_FOR_EVER);
    assert_eq!(world.members[&leader].voters, [id(1), id(2), id(3)]);
    let term = world.rig(leader).replica.leadership().term;
    world.run(Duration::from_secs(60));
    assert_eq!(world.rig(leader).replica.leadership().term, term, "nobody disturbs it");
    for n in 1..=3 {
        world.input(n, Input::ReadIndex { id: CallId(n) });
    }
    world.run(Duration::from_millis(50));
    assert_eq!(world.reads, [(1, true), (2, true), (3, true)].into_iter().collect());
    world.settle_and_check();
}

// Reliability goals 1-4; R2.18
#[test]
fn what_was_said_holds_in_any_weather() {
    for seed in 0..60 {
        let limits = Limits { snapshot_entries: 20, ..cluster_limits() };
        let mut world = World::new(seed, if seed % 3 == 0 { 5 } else { 3 }, limits);
        world.elect();
        world.rough = true;
        let mut call = 0;
        for _ in 0..60 {
            world.run(Duration::from_millis(60));
            let all: Vec<u64> = world.rigs.keys().copied().collect();
            let any = all[world.rng.below(all.len() as u64) as usize];
            match world.rng.below(12) {
                0 => world.crash(any),
                1 | 2 => {
                    let down: Vec<u64> = world.disks.keys().copied().collect();
                    down.into_iter().for_each(|n| world.start(n));
                }
                3 => world.cut = vec![any],
                4 => world.cut.clear(),
                5 => {
                    let transfer = Input::Transfer { id: CallId(2_000_000 + call), to: Some(id(any)) };
                    if let Some(leader) = world.leader() {
                        world.input(leader, transfer);
                    }
                }
                _ => {
                    for n in all {
                        call += 1;
                        world.propose(n, call);
                    }
                }
            }
        }
        world.settle_and_check();
    }
}

#[test]
fn members_come_and_go() {
    for seed in 0..10 {
        let mut world = World::new(seed, 3, Limits { snapshot_entries: 10, ..cluster_limits() });
        let leader = world.elect();
        for call in 1..60 {
            world.propose(leader, call);
            world.step();
        }
        world.start(4);
        assert!(matches!(world.change(1, MemberChange::Promote(id(4))), Resolution::Rejected(_)), "no member");
        assert!(matches!(world.change(2, MemberChange::AddLearner(id(4))), Resolution::Applied { .. }));
        assert!(matches!(world.change(3, MemberChange::AddLearner(id(4))), Resolution::Rejected(_)), "twice");
        world.run(Duration::from_secs(2));
        assert!(matches!(world.change(4, MemberChange::Promote(id(4))), Resolution::Applied { .. }));
        let leader = world.elect();
        assert_eq!(world.members[&leader].voters.len(), 4);
        // The leader itself: another one removes it.
        assert!(matches!(world.change(5, MemberChange::Remove(id(leader))), Resolution::Applied { .. }));
        let next = world.elect();
        assert_ne!(next, leader);
        world.start(5);
        assert!(matches!(world.change(6, MemberChange::AddLearner(id(5))), Resolution::Applied { .. }));
        world.run(Duration::from_secs(2));
        let old = id((1..=4).find(|n| *n != leader && *n != next).unwrap());
        let replace = MemberChange::Replace { old, new: id(5) };
        assert!(matches!(world.change(7, replace), Resolution::Applied { .. }));
        assert!(world.installed > 0, "the log no longer reached back to the beginning");
        let last = world.elect();
        let members = &world.members[&last];
        assert!(members.voters_outgoing.is_empty() && !members.voters.contains(&old), "{members:?}");
        assert_eq!(members.voters.len(), 3);
        world.settle_and_check();
    }
}

#[test]
fn leadership_is_handed_over_and_given_up_before_the_end() {
    let mut world = World::new(7, 3, cluster_limits());
    let leader = world.elect();
    world.run(Duration::from_millis(500));
    let to = leader % 3 + 1;
    world.input(leader, Input::Transfer { id: CallId(1_000_001), to: Some(id(to)) });
    assert!(world.leases[&leader] <= world.now, "the lease ends first");
    world.run(Duration::from_millis(300));
    assert!(matches!(world.other_ends[&1_000_001], Resolution::Applied { .. }));
    assert_eq!(world.elect(), to);
    world.run(Duration::from_millis(500));
    let before = world.now;
    world.input(to, Input::Stop);
    while world.leader().is_none_or(|leader| leader == to) {
        world.step();
    }
    assert!(world.now.since(before) < Duration::from_millis(300), "no election timeout passes");
    world.run(Duration::from_millis(100));
    assert_eq!(world.rig(to).replica.poll_timeout(), None, "it has ended");
}

// R8.4
#[test]
fn a_leader_on_a_stalled_disk_steps_down() {
    let limits = Limits { stalled_sync: Duration::from_secs(2), ..cluster_limits() };
    let mut world = World::new(3, 3, limits);
    let leader = world.elect();
    world.run(Duration::from_millis(200));
    world.propose(leader, 1);
    // Its disk answers nothing: the write stays where it was asked for.
    let stuck = world.rigs.get_mut(&leader).unwrap().as_mut().unwrap();
    let asked = std::mem::take(&mut stuck.asked);
    assert_eq!(asked.len(), 1);
    world.run(Duration::from_secs(3));
    assert_ne!(world.elect(), leader);
    assert!(!world.rig(leader).replica.leadership().is_self);
    let ticket = asked[0].ticket;
    world.rigs.get_mut(&leader).unwrap().as_mut().unwrap().disk.persist(&asked[0]);
    world.input(leader, Input::Persisted { ticket });
    world.settle_and_check();
    assert!(matches!(world.ended[&1], Resolution::Applied { .. }));
}

/// Whatever a peer says, the process goes on.
#[test]
fn no_message_of_a_peer_is_believed_blindly() {
    let mut world = World::new(5, 3, cluster_limits());
    world.elect();
    let mut rng = Rng::from_seed(9);
    for _ in 0..40_000 {
        let pick = |rng: &mut Rng| match rng.below(6) {
            0 => 0,
            1 => u64::MAX,
            _ => rng.below(12),
        };
        let to = 1 + rng.below(3);
        let entries = (0..rng.below(3)).map(|_| crate::wire::raft::RaftEntry {
            kind: u8::try_from(rng.below(4)).unwrap(),
            term: pick(&mut rng),
            index: pick(&mut rng),
            data: vec![0xc1; 3],
        });
        let mut message = RaftMessage { entries: entries.collect(), ..RaftMessage::default() };
        message.kind = u8::try_from(rng.below(21)).unwrap();
        (message.to, message.from, message.term) = (to, 1 + rng.below(4), rng.below(6));
        (message.index, message.log_term, message.commit) = (pick(&mut rng), pick(&mut rng), 0);
        (message.reject, message.reject_hint) = (rng.chance(1, 2), pick(&mut rng));
        if message.kind == 8 {
            message.commit = pick(&mut rng);
        }
        let rig = world.rigs.get_mut(&to).unwrap().as_mut().unwrap();
        rig.input(Input::Messages(vec![message]));
        rig.settle();
        rig.notices.clear();
        rig.outbox.clear();
    }
}
