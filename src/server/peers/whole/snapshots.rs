//! Snapshots on links that break, to receivers that begin anew, of senders that lead no more.

use std::time::Duration;

use super::World;
use crate::base::rng::Rng;
use crate::wire::entry::Command;
use crate::wire::msgpack::{Encoder, Raw};

/// A cluster whose log no longer reaches back, with enough state for several chunks, and a fourth server that joins.
fn joining() -> (World, usize) {
    let mut world = World::new(4, 3);
    (0..3).for_each(|n| world.start(n, 20));
    world.run(Duration::from_secs(5));
    let leader = world.leader().unwrap();
    fill(&mut world, leader);
    (world, leader)
}

fn fill(world: &mut World, leader: usize) {
    // Texts that no compression makes shorter than half.
    let mut rng = Rng::from_seed(3);
    for number in 0..120 {
        let ballast: String = (0..3_000).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let mut e = Encoder::new();
        e.map(5);
        for (key, value) in [
            ("ID", format!("{number:08x}-0000-4000-8000-000000000000")),
            ("SecretID", format!("{number:08x}-0000-4000-8000-000000000001")),
            ("Datacenter", "dc1".to_owned()),
            ("Name", ballast),
            ("Status", "ready".to_owned()),
        ] {
            e.str(key);
            e.str(&value);
        }
        world.propose(leader, Command::NodeRegister { node: Raw(e.out.into()) });
        world.run(Duration::from_millis(20));
    }
    assert_eq!(world.server(leader).root.load().node_count(), 120);
}

impl World {
    fn until_chunks(&mut self, count: usize) {
        self.chunks.clear();
        for _ in 0..200_000 {
            if self.chunks.len() >= count {
                return;
            }
            self.run(Duration::from_micros(500));
        }
        panic!("{} chunks of {count}", self.chunks.len());
    }
}

#[test]
fn a_snapshot_goes_on_where_a_lost_link_left_off() {
    let (mut world, leader) = joining();
    world.start(3, 20);
    world.until_chunks(4);
    let sent = world.chunks.iter().map(|(_, number)| *number).max().unwrap();
    world.end_conns(3);
    world.run(Duration::from_secs(10));
    let again = world.chunks[4..].iter().map(|(_, number)| *number).min().unwrap();
    assert!(again > 0 && again <= sent + 1, "from {again} after {sent}: {:?}", world.chunks);
    assert_eq!(world.server(3).root.load().digest(), world.server(leader).root.load().digest());
    let begun = world.hosts[3].lines.iter().filter(|line| line.contains("a snapshot comes in")).count();
    assert_eq!(begun, 1, "{:#?}", world.hosts[3].lines);
}

#[test]
fn a_receiver_that_begins_anew_gets_all_of_it() {
    let (mut world, leader) = joining();
    world.start(3, 20);
    world.until_chunks(4);
    world.kill(3);
    world.run(Duration::from_millis(500));
    world.start(3, 20);
    let from = world.chunks.len();
    world.run(Duration::from_secs(15));
    assert_eq!(world.chunks[from..].iter().map(|(_, number)| *number).min(), Some(0), "{:?}", world.chunks);
    assert_eq!(world.server(3).root.load().digest(), world.server(leader).root.load().digest());
}

#[test]
fn the_next_leader_sends_what_the_last_one_did_not() {
    let (mut world, leader) = joining();
    world.start(3, 20);
    world.until_chunks(4);
    let next = (leader + 1) % 3;
    let id = world.hosts[next].settings.server_id.clone();
    world.ask(leader, "PUT", &format!("/v1/operator/raft/transfer-leadership?id={id}"));
    world.run(Duration::from_secs(15));
    assert_eq!(world.leader(), Some(next), "{:#?}", world.hosts[leader].lines);
    assert!(world.server(leader).peers.transfers.is_idle(), "{:#?}", world.hosts[leader].lines);
    assert!(world.chunks.iter().any(|(from, _)| *from == next), "{:?}", world.chunks);
    assert_eq!(world.server(3).root.load().digest(), world.server(next).root.load().digest());
}

#[test]
fn a_receiver_that_is_gone_holds_nothing_up() {
    let (mut world, leader) = joining();
    world.start(3, 20);
    world.until_chunks(4);
    world.cut(3);
    world.run(Duration::from_secs(40));
    assert!(world.server(leader).peers.transfers.is_idle(), "{:#?}", world.hosts[leader].lines);
    world.cut.clear();
    world.run(Duration::from_secs(15));
    assert_eq!(world.server(3).root.load().digest(), world.server(leader).root.load().digest());
}

// R8.23: raft's messages get through beside a snapshot, also where its receiver is needed for the majority
#[test]
fn a_snapshot_on_a_slow_link_causes_no_election() {
    let mut world = World::new(3, 3);
    (0..3).for_each(|n| world.start(n, 20));
    world.run(Duration::from_secs(5));
    let leader = world.leader().unwrap();
    let (slow, dead) = ((leader + 1) % 3, (leader + 2) % 3);
    world.kill(slow);
    fill(&mut world, leader);
    world.slow = Some((slow, 3_000_000));
    world.start(slow, 20);
    world.until_chunks(1);
    world.kill(dead);
    let term = world.hosts[leader].replica.as_ref().unwrap().leadership().term;
    for step in 0..100 {
        world.run(Duration::from_millis(100));
        let replica = world.hosts[leader].replica.as_ref().unwrap();
        let leads = (replica.leadership().term, replica.leadership().is_self);
        assert_eq!(leads, (term, true), "{step} {:?} {:#?}", world.chunks, world.hosts[slow].lines);
        assert!(world.server(leader).ctx.is_leader);
    }
    assert!(world.said(slow, "a snapshot comes in"), "{:#?}", world.hosts[slow].lines);
    assert_eq!(world.server(slow).root.load().digest(), world.server(leader).root.load().digest());
}
