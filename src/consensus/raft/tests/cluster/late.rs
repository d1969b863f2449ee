//! Messages that come so late that another leads.

use std::time::Duration;

use super::{Packet, World, cluster_limits, id};
use crate::base::id::CallId;
use crate::consensus::{Input, Resolution};

/// MsgTimeoutNow, as raft's messages are numbered.
const TIMEOUT_NOW: u8 = 14;

// The lease (Raft dissertation 6.4.1) against the right to campaign that a hand-over gives away (3.10)
#[test]
fn a_right_to_campaign_that_comes_late_takes_no_lease() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3, cluster_limits());
        let leader = world.elect();
        world.run(Duration::from_millis(500));
        let term = world.rig(leader).replica.leadership().term;
        let to = leader % 3 + 1;
        world.input(leader, Input::Transfer { id: CallId(1_000_001), to: Some(id(to)) });
        let mut late = Vec::new();
        for _ in 0..4 {
            let is_told = |packet: &Packet| matches!(packet, Packet::Message(message) if message.kind == TIMEOUT_NOW);
            let keys: Vec<_> = world.queue.iter().filter(|(_, packet)| is_told(packet)).map(|(key, _)| *key).collect();
            late.extend(keys.into_iter().filter_map(|key| world.queue.remove(&key)));
            world.step();
        }
        assert_eq!(late.len(), 1, "it was told once");
        // It hears nothing else either; the others elect one of them.
        world.cut = vec![to];
        world.run(Duration::from_secs(4));
        assert!(matches!(world.other_ends[&1_000_001], Resolution::Rejected(_)), "{:?}", world.other_ends);
        let next = world.elect();
        let new_term = world.rig(next).replica.leadership().term;
        assert!(new_term > term, "whoever gave the right away leads no more in that term");
        world.run(Duration::from_secs(1));
        assert!(world.leases[&next] > world.now);
        world.cut.clear();
        for packet in late {
            let Packet::Message(message) = packet else { continue };
            world.input(to, Input::Messages(vec![message]));
        }
        // That no two hold a lease is looked at whenever one is told.
        for _ in 0..200 {
            world.step();
            assert!(world.leases[&next] > world.now, "seed {seed}: the lease of {next} is over at {}", world.now);
        }
        assert_eq!(world.rig(next).replica.leadership().term, new_term, "seed {seed}");
        world.settle_and_check();
    }
}
