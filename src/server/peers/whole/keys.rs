//! Keys of the key ring on three servers: on a majority's disks before the log names them, and asked for by whoever
//! lacks them.

use std::time::Duration;

use super::{World, cluster};

const ROTATE: &str = "/v1/operator/keyring/rotate";

fn newest(world: &World, n: usize) -> String {
    world.server(n).root.load().signing_keys().last().unwrap().key_id.clone()
}

fn held(world: &World, n: usize) -> Option<String> {
    world.server(n).ctx.signer.as_ref().map(|signer| signer.key_id().to_owned())
}

#[test]
fn a_fresh_key_is_on_a_majority_before_the_log_names_it() {
    let (mut world, leader) = cluster();
    let first = newest(&world, leader);
    let conn = world.ask(leader, "PUT", ROTATE);
    let mut named = false;
    for _ in 0..1000 {
        world.run(Duration::from_millis(1));
        for n in 0..3 {
            let keys: Vec<String> =
                world.server(n).root.load().signing_keys().iter().map(|key| key.key_id.clone()).collect();
            for key in &keys {
                let copies = world.hosts.iter().filter(|host| host.keys.contains_key(key)).count();
                assert!(copies >= 2, "{key} is on {copies} disks and in the log");
            }
            named |= keys.len() == 2;
        }
    }
    assert!(named);
    assert!(world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    let key = newest(&world, leader);
    assert_ne!(key, first);
    for n in 0..3 {
        assert_eq!((newest(&world, n), held(&world, n)), (key.clone(), Some(key.clone())), "server {n}");
        assert!(world.hosts[n].keys.contains_key(&key), "server {n}");
    }
}

#[test]
fn no_key_is_made_without_a_majority() {
    let (mut world, leader) = cluster();
    let others: Vec<usize> = (0..3).filter(|n| *n != leader).collect();
    others.iter().for_each(|n| world.cut(*n));
    let conn = world.ask(leader, "PUT", ROTATE);
    world.run(Duration::from_secs(60));
    assert!(!world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    world.cut.clear();
    world.run(Duration::from_secs(10));
    for n in 0..3 {
        assert_eq!(world.server(n).root.load().signing_keys().len(), 1, "server {n}");
    }
    // The next wish is granted.
    let leader = world.leader().unwrap();
    let conn = world.ask(leader, "PUT", ROTATE);
    world.run(Duration::from_secs(2));
    assert!(world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    assert_eq!(world.server(leader).root.load().signing_keys().len(), 2);
}

#[test]
fn a_server_that_was_away_asks_for_what_it_lacks() {
    let (mut world, leader) = cluster();
    let away = (leader + 1) % 3;
    world.kill(away);
    for _ in 0..2 {
        let conn = world.ask(leader, "PUT", ROTATE);
        world.run(Duration::from_secs(2));
        assert!(world.heard(leader, conn).starts_with("HTTP/1.1 200"), "{}", world.heard(leader, conn));
    }
    assert_eq!(world.hosts[away].keys.len(), 1);
    // And it lost the one it had.
    world.hosts[away].keys.clear();
    world.start(away, 1 << 40);
    world.run(Duration::from_secs(5));
    assert_eq!(world.hosts[away].keys.len(), 3, "{:#?}", world.hosts[away].lines);
    assert_eq!(held(&world, away), Some(newest(&world, leader)));
    // Whoever leads next has it, whichever that is.
    world.kill(leader);
    world.run(Duration::from_secs(5));
    let next = world.leader().unwrap();
    assert_eq!(held(&world, next), Some(newest(&world, next)));
}

#[test]
fn a_leader_that_lost_its_keys_gets_them_before_it_serves() {
    let (mut world, leader) = cluster();
    let key = newest(&world, leader);
    (0..3).for_each(|n| world.kill(n));
    // Two of three have lost their key files; the third one has them still.
    let keeps = (leader + 1) % 3;
    (0..3).filter(|n| *n != keeps).for_each(|n| world.hosts[n].keys.clear());
    (0..3).for_each(|n| world.start(n, 1 << 40));
    world.run(Duration::from_secs(10));
    let next = world.leader().unwrap();
    assert!(world.server(next).leader.view().ready, "{:#?}", world.hosts[next].lines);
    for n in 0..3 {
        assert_eq!(held(&world, n), Some(key.clone()), "server {n}");
        assert_eq!(world.server(n).root.load().signing_keys().len(), 1, "nobody made another one");
    }
}
