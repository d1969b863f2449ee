//! Several replicas over messages handed from one to another: the rules that a group of one never needs.

use super::{Disk, Rig, applied, limits};
use crate::base::id::ReplicaId;
use crate::consensus::{Input, Replica, Resolution};

struct Group {
    rigs: Vec<Rig>,
    /// Who hears nobody, and is not heard.
    cut: Vec<u64>,
}

impl Group {
    fn start() -> Group {
        let voters: Vec<ReplicaId> = (1..=3).map(ReplicaId).collect();
        let rigs = (1..=3).map(|id| Rig::start(id, limits(), Disk::default(), Some(voters.clone()))).collect();
        Group { rigs, cut: Vec::new() }
    }

    fn deliver(&mut self) {
        loop {
            let mut messages = Vec::new();
            for rig in &mut self.rigs {
                rig.settle();
                messages.append(&mut rig.outbox);
            }
            messages.retain(|message| !self.cut.contains(&message.from) && !self.cut.contains(&message.to));
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let rig = self.rigs.iter_mut().find(|rig| rig.replica.id.0 == message.to).unwrap();
                rig.input(Input::Messages(vec![message]));
            }
        }
    }

    fn tick(&mut self) {
        for rig in &mut self.rigs {
            rig.now += limits().tick;
            rig.input(Input::Timeout);
        }
        self.deliver();
    }

    fn leader(&self, among: &[u64]) -> Option<usize> {
        let ready = |rig: &Rig| rig.replica.leadership().ready && among.contains(&rig.replica.id.0);
        self.rigs.iter().position(ready)
    }

    fn elect(&mut self, among: &[u64]) -> usize {
        for _ in 0..200 {
            self.tick();
            if let Some(leader) = self.leader(among) {
                return leader;
            }
        }
        panic!("nobody was elected");
    }
}

fn others(of: u64) -> Vec<u64> {
    (1..=3).filter(|id| *id != of).collect()
}

#[test]
fn three_agree_and_runs_replay() {
    let run = || {
        let mut group = Group::start();
        assert!(group.rigs[0].replica.poll_timeout().is_some(), "a group of several ticks");
        let leader = group.elect(&[1, 2, 3]);
        group.rigs[leader].propose(1..=5);
        group.deliver();
        let first = group.rigs[leader].resolved();
        assert_eq!(first, (1..=5).map(|id| (id, applied(id + 4))).collect::<Vec<_>>());
        for _ in 0..3 {
            group.tick();
        }
        let digests: Vec<_> = group.rigs.iter().map(|rig| rig.root.digest()).collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]));
        (leader, group.rigs[leader].now, group.rigs[leader].replica.leadership().clone())
    };
    let first = run();
    assert!((0..10).all(|_| run() == first));
}

// R2.18, R2.19
#[test]
fn a_deposed_leaders_proposals_are_settled_by_their_index() {
    let mut group = Group::start();
    let old = group.elect(&[1, 2, 3]);
    let old_id = group.rigs[old].replica.id.0;
    group.cut = vec![old_id];
    group.rigs[old].propose([1]);
    group.deliver();
    let new = group.elect(&others(old_id));
    group.rigs[new].propose([2]);
    group.deliver();
    group.cut.clear();
    for _ in 0..5 {
        group.tick();
    }
    assert_eq!(group.rigs[old].resolved(), [(1, Resolution::NotLeader)], "another entry stands at its index");
    assert!(matches!(group.rigs[new].resolved()[..], [(2, Resolution::Applied { .. })]));
    group.rigs[old].propose([3]);
    assert_eq!(group.rigs[old].resolved(), [(3, Resolution::NotLeader)]);
    let leads = group.rigs[old].replica.leadership();
    assert_eq!(leads.leader, Some(group.rigs[new].replica.id), "with a hint");
}

// R2.18
#[test]
fn a_proposal_that_outlived_its_leadership_succeeded() {
    let mut group = Group::start();
    let old = group.elect(&[1, 2, 3]);
    let old_id = group.rigs[old].replica.id.0;
    // The followers get the entry, and their answers do not come back.
    group.rigs[old].propose([1]);
    group.rigs[old].settle();
    let messages: Vec<_> = group.rigs[old].outbox.drain(..).collect();
    for message in messages {
        let rig = group.rigs.iter_mut().find(|rig| rig.replica.id.0 == message.to).unwrap();
        rig.input(Input::Messages(vec![message]));
    }
    group.cut = vec![old_id];
    group.deliver();
    group.elect(&others(old_id));
    group.cut.clear();
    for _ in 0..5 {
        group.tick();
    }
    assert!(!group.rigs[old].replica.leadership().is_self);
    assert!(matches!(group.rigs[old].resolved()[..], [(1, Resolution::Applied { .. })]));
}

// R2.14, R2.18
#[test]
fn what_nothing_settles_is_unknown_after_a_bounded_wait() {
    let mut group = Group::start();
    let old = group.elect(&[1, 2, 3]);
    group.cut = vec![group.rigs[old].replica.id.0];
    group.rigs[old].propose([1]);
    let mut ticks = 0;
    let ended = loop {
        group.tick();
        ticks += 1;
        let ended = group.rigs[old].resolved();
        if !ended.is_empty() {
            break ended;
        }
        assert!(ticks < 200);
    };
    assert_eq!(ended, [(1, Resolution::Unknown)]);
    assert!(ticks > 100, "after it stepped down and waited, not at once: {ticks}");
}
