//! Nodes on several servers: a call for a node reaches it over whichever server has its session, and a change of leader
//! marks nobody down (R1.57 to R1.62, the failover TTL).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use cluster_rig::{Caller, Cluster, Shape};
use rig::nodes::{Callers, beat, id, registration, session};
use rig::{Talk, Value, eventually, json, quiet_for};

// R1.57, R1.59, R1.61
#[test]
fn a_call_for_a_node_reaches_it_over_the_server_that_has_it() {
    let cluster = Cluster::three();
    let mut callers = Callers::at((0..3).map(|at| cluster.daemon(at).rpc), &id(1));
    for home in 0..3 {
        let mut node = session(cluster.daemon(home).rpc, &id(1));
        callers.all_reach(&mut node, 2, &format!("at {home}"));
        // Gone from there, it is nowhere.
        drop(node);
        cluster.daemon(home).until_metric("holdfast.node_conns", 0.0);
        callers.none_reaches();
    }
}

// R1.57: the latest of all connections, wherever it is; who has one itself uses that. R1.58: when it ends, the one
// before it is the latest again, and the end of an older one takes nothing away.
#[test]
fn the_latest_session_is_the_one_that_is_called() {
    let cluster = Cluster::three();
    let mut callers = Callers::at([1, 2].map(|at| cluster.daemon(at).rpc), &id(2));
    let mut oldest = session(cluster.daemon(0).rpc, &id(2));
    callers.all_reach(&mut oldest, 2, "oldest");
    let mut middle = session(cluster.daemon(1).rpc, &id(2));
    callers.all_reach(&mut middle, 2, "middle");
    let mut newest = session(cluster.daemon(1).rpc, &id(2));
    callers.all_reach(&mut newest, 2, "newest");
    Callers::at([cluster.daemon(0).rpc], &id(2)).all_reach(&mut oldest, 6, "its own");
    drop(oldest);
    cluster.daemon(0).until_metric("holdfast.node_conns", 0.0);
    callers.all_reach(&mut newest, 6, "newest still");
    // R1.59: by a reset too.
    let sessions = || cluster.daemon(1).metrics().labelled("holdfast.connections", "multiplex_v2");
    let with_both = sessions();
    newest.peer.abort();
    eventually("the end of the newest", || (sessions() < with_both).then_some(()));
    callers.all_reach(&mut middle, 6, "middle again");
}

// R1.62
#[test]
fn a_node_on_a_plain_connection_is_reached_by_nobody() {
    let cluster = Cluster::three();
    let mut plain = Talk::dial(cluster.daemon(0).rpc, 1);
    plain.call(0, "Node.Register", &registration(&id(3))).ok();
    Callers::at((0..3).map(|at| cluster.daemon(at).rpc), &id(3)).none_reaches();
    plain.call(0, "Status.Ping", &json!({})).ok();
}

/// One node's agent: beats as often as it is told to; errors are tried again, as agents do.
fn agent(rpc: SocketAddr, number: u64, ends: &AtomicBool, beats: &AtomicU64) {
    let mut talk = session(rpc, &id(number));
    let stream = talk.open();
    while !ends.load(Ordering::Relaxed) {
        let reply = talk.call(stream, "Node.UpdateStatus", &beat(&id(number)));
        let mut wait = Duration::from_millis(200);
        if reply.error.is_empty() {
            beats.fetch_add(1, Ordering::Relaxed);
            wait = Duration::from_nanos(reply.body["HeartbeatTTL"].as_u64().unwrap_or(0)).max(wait);
        }
        // In pieces, so that the end is seen.
        for _ in 0..wait.as_millis() / 50 {
            if ends.load(Ordering::Relaxed) {
                break;
            }
            quiet_for(Duration::from_millis(50));
        }
    }
}

fn down(cluster: &Cluster, at: usize) -> Vec<String> {
    let Ok(answer) = Caller::default().get(cluster.http(at), "/v1/nodes?stale") else { return Vec::new() };
    let nodes = answer.json().as_array().cloned().unwrap_or_default();
    let is_down = |node: &&Value| matches!(node["Status"].as_str(), Some("down" | "disconnected"));
    nodes.iter().filter(is_down).map(|node| node["ID"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_change_of_leader_marks_no_node_down() {
    let heartbeat = "[heartbeat]\nmin_ttl = \"1s\"\ngrace = \"2s\"\nfailover_ttl = \"5s\"\nmax_per_second = 1000.0\n";
    let mut cluster = Cluster::start(Shape::of(3).tables(heartbeat));
    let leader = cluster.until_leader();
    let followers = cluster.running_but(leader);
    let (ends, beats) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let agents: Vec<_> = (0..50)
        .map(|number| {
            let rpc = cluster.daemon(followers[usize::try_from(number).unwrap() % 2]).rpc;
            let (ends, beats) = (ends.clone(), beats.clone());
            thread::spawn(move || agent(rpc, number, &ends, &beats))
        })
        .collect();
    let until_more = |count: u64| {
        let before = beats.load(Ordering::Relaxed);
        eventually("heartbeats", || (beats.load(Ordering::Relaxed) >= before + count).then_some(()));
    };
    until_more(100);
    cluster.kill(leader);
    let mut seen = Vec::new();
    // As long as a timer that was not carried over could take to fire.
    for _ in 0..80 {
        followers.iter().for_each(|at| seen.extend(down(&cluster, *at)));
        quiet_for(Duration::from_millis(100));
    }
    until_more(100);
    ends.store(true, Ordering::Relaxed);
    agents.into_iter().for_each(|agent| agent.join().unwrap());
    assert!(seen.is_empty(), "marked down: {seen:?}");
    let listed = Caller::default().get(cluster.http(followers[0]), "/v1/nodes").unwrap().json();
    let ready = |node: &&Value| node["Status"] == "ready";
    assert_eq!(listed.as_array().unwrap().iter().filter(ready).count(), 50);
    eprintln!("{} heartbeats, none late", beats.load(Ordering::Relaxed));
}
