//! Members that come, go and change places while the cluster serves.

use std::time::Duration;

use super::{World, cluster};
use crate::base::id::ReplicaId;

fn voters(world: &World, n: usize) -> Vec<u64> {
    let members = world.server(n).peers.members.clone().unwrap();
    members.voters.iter().map(|replica| replica.0).collect()
}

fn remove(id: &str) -> String {
    format!("/v1/operator/raft/peer?id={id}")
}

fn transfer(id: &str) -> String {
    format!("/v1/operator/raft/transfer-leadership?id={id}")
}

// R8.9
#[test]
fn an_operator_removes_a_follower_and_the_leader() {
    let (mut world, leader) = cluster();
    let follower = (leader + 1) % 3;
    let id = world.hosts[follower].settings.server_id.clone();
    let conn = world.ask(leader, "DELETE", &remove(&id));
    world.run(Duration::from_secs(2));
    assert!(world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    assert!(!voters(&world, leader).contains(&(100 + follower as u64)));
    assert!(world.said(follower, "was removed from the cluster"), "{:#?}", world.hosts[follower].lines);
    world.run(Duration::from_secs(20));
    assert_eq!(voters(&world, leader).len(), 2, "it does not come back by itself");
    assert_eq!(world.server(leader).root.load().servers().count(), 2);

    // It hands leadership over, and who leads then removes it.
    let id = world.hosts[leader].settings.server_id.clone();
    let conn = world.ask(leader, "DELETE", &remove(&id));
    world.run(Duration::from_secs(5));
    let next = 3 - leader - follower;
    assert_eq!(world.leader(), Some(next), "{:#?} {:#?}", world.hosts[leader].lines, world.hosts[next].lines);
    assert_eq!(voters(&world, next), [100 + next as u64], "{:#?}", world.hosts[next].lines);
    assert!(world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    assert!(world.said(leader, "was removed from the cluster"), "{:#?}", world.hosts[leader].lines);
}

#[test]
fn an_operator_names_who_leads_next() {
    let (mut world, leader) = cluster();
    for to in [(leader + 1) % 3, (leader + 2) % 3, leader] {
        let now = world.leader().unwrap();
        let id = world.hosts[to].settings.server_id.clone();
        let conn = world.ask(now, "PUT", &transfer(&id));
        world.run(Duration::from_secs(1));
        assert_eq!(world.leader(), Some(to), "{:#?}", world.hosts[now].lines);
        assert!(world.heard(now, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(now, conn));
    }
    // To itself: nothing is to be done. Asked of a follower: passed on.
    let own = world.hosts[leader].settings.server_id.clone();
    let follower = (leader + 1) % 3;
    for (asked, to) in [(leader, &own), (follower, &own)] {
        let conn = world.ask(asked, "PUT", &transfer(to));
        world.run(Duration::from_secs(1));
        assert!(world.heard(asked, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(asked, conn));
        assert_eq!(world.leader(), Some(leader));
    }
}

#[test]
fn an_unknown_member_is_refused() {
    let (mut world, leader) = cluster();
    let nobody = "99999999-0000-4000-8000-000000000000";
    for n in [leader, (leader + 1) % 3] {
        for (method, target) in [("DELETE", remove(nobody)), ("PUT", transfer(nobody))] {
            let conn = world.ask(n, method, &target);
            world.run(Duration::from_secs(1));
            let heard = world.heard(n, conn);
            assert!(!heard.starts_with("HTTP/1.1 2") && heard.contains("was not found"), "{method} {heard}");
        }
    }
    assert_eq!(voters(&world, leader).len(), 3);
}

// R8.9: a learner gets its vote while writes go on
#[test]
fn a_server_joins_while_writes_go_on() {
    let mut world = World::new(4, 3);
    (0..3).for_each(|n| world.start(n, 200));
    world.run(Duration::from_secs(5));
    let leader = world.leader().unwrap();
    world.write(leader, 1_000);
    world.start(3, 200);
    let mut was_learner = false;
    for _ in 0..60 {
        world.write(leader, 40);
        was_learner |= world.server(leader).peers.members.as_ref().unwrap().learners == [ReplicaId(103)];
    }
    assert!(was_learner, "{:#?}", world.hosts[leader].lines);
    assert_eq!(voters(&world, leader).len(), 4, "{:#?}", world.hosts[leader].lines);
    assert_eq!(world.leader(), Some(leader), "nobody is disturbed");
    world.run(Duration::from_secs(1));
    assert_eq!(world.server(3).root.load().digest(), world.server(leader).root.load().digest());
}

// R8.13: never below a majority of what the cluster began with
#[test]
fn a_dead_server_is_removed_only_while_the_rest_can_do_without() {
    let mut world = World::new(5, 5);
    (0..5).for_each(|n| world.start(n, 1 << 40));
    world.run(Duration::from_secs(5));
    let mut alive: Vec<usize> = (0..5).collect();
    for left in [4, 3, 3] {
        let leader = world.leader().unwrap();
        let dead = *alive.iter().find(|n| **n != leader).unwrap();
        alive.retain(|n| *n != dead);
        world.kill(dead);
        world.run(Duration::from_secs(55));
        let leader = world.leader().unwrap();
        assert!(voters(&world, leader).contains(&(100 + dead as u64)), "not before its time");
        world.run(Duration::from_secs(60));
        assert_eq!(voters(&world, leader).len(), left, "{:#?}", world.hosts[leader].lines);
    }
    // One that was removed comes back with its old disk: it learns it, and disturbs nobody.
    let leader = world.leader().unwrap();
    let gone = (0..5).find(|n| !voters(&world, leader).contains(&(100 + *n as u64))).unwrap();
    world.start(gone, 1 << 40);
    world.run(Duration::from_secs(20));
    assert_eq!(world.leader(), Some(leader));
    assert!(world.said(gone, "was removed from the cluster"), "{:#?}", world.hosts[gone].lines);
}

// A machine that is replaced: the same name and address, another id and an empty disk
#[test]
fn a_replaced_server_joins_and_the_old_one_goes() {
    let (mut world, leader) = cluster();
    let old = (leader + 1) % 3;
    world.kill(old);
    world.run(Duration::from_secs(2));
    let name = world.hosts[old].settings.name.clone();
    let address = world.hosts[old].settings.advertise_rpc.clone();
    let settings = &mut world.hosts[3].settings;
    (settings.name, settings.advertise_rpc) = (name.clone(), address.clone());
    world.start(3, 1 << 40);
    world.run(Duration::from_secs(30));
    assert!(voters(&world, leader).contains(&103), "{:#?}", world.hosts[leader].lines);
    world.run(Duration::from_secs(60));
    let mut all = voters(&world, leader);
    all.sort_unstable();
    let mut expected: Vec<u64> = (0..3).filter(|n| *n != old).map(|n| 100 + n as u64).chain([103]).collect();
    expected.sort_unstable();
    assert_eq!(all, expected, "{:#?}", world.hosts[leader].lines);
    let state = world.server(leader).root.load_full();
    let same: Vec<_> = state.servers().filter(|server| server.name == name).map(|server| server.replica).collect();
    assert_eq!(same, [103]);
}
