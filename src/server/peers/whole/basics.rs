//! Three servers found their cluster, elect, and go on when one is gone.

use std::time::Duration;

use super::{World, cluster};
use crate::base::id::CallId;
use crate::consensus;
use crate::server::port::{ClusterFile, Input};

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
