//! Nodes on several servers: a call for a node reaches it over whichever server has its session, and a change of leader
//! marks nobody down (R1.57 to R1.62, the failover TTL).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::time::{Duration, Instant};

use cluster_rig::{Caller, Cluster, Fleet, Shape};
use rig::nodes::{Callers, id, registration, session};
use rig::{Talk, eventually, json, quiet_for};

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

/// The statuses of nodes that are taken for lost.
const LOST: &str = "/v1/nodes?stale&filter=Status+%3D%3D+%22down%22+or+Status+%3D%3D+%22disconnected%22";

/// How many nodes a server takes for lost.
fn lost(cluster: &Cluster, at: usize) -> usize {
    let answer = Caller::default().get(cluster.http(at), LOST).unwrap();
    answer.json().as_array().unwrap_or_else(|| panic!("{}", answer.text())).len()
}

/// Looks for so long, and has seen none that is lost.
#[track_caller]
fn none_is_lost(cluster: &Cluster, time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        for at in cluster.running() {
            assert_eq!(lost(cluster, at), 0, "nodes are marked down");
        }
        quiet_for(Duration::from_millis(500));
    }
    for at in cluster.running() {
        assert_eq!(cluster.daemon(at).metric("holdfast.heartbeat.invalidate"), 0.0);
    }
}

/// How many nodes a server has that are ready.
fn ready(cluster: &Cluster, at: usize) -> u64 {
    let listed = Caller::default().get(cluster.http(at), "/v1/nodes").unwrap().json();
    listed.as_array().unwrap().iter().filter(|node| node["Status"] == "ready").count() as u64
}

/// Who began and ceased to lead, as the servers tell it.
fn leaderships(cluster: &Cluster) -> Vec<String> {
    let lines = cluster.running().into_iter().flat_map(|at| cluster.daemon(at).log.lines());
    let mut lines: Vec<String> = lines.filter(|line| line.contains("leadership")).collect();
    lines.sort();
    lines
}

/// All agents must be ready by then.
const READY_MAX: Duration = Duration::from_secs(60);

/// Agents at all three register at once; the leader is killed, and theirs go elsewhere; nobody is marked down for as
/// long as a timer that was not carried over could take to fire.
fn a_fleet_outlives_a_leader(heartbeat: &str, count: u64, quiet: Duration) {
    let mut cluster = Cluster::start(Shape::of(3).tables(heartbeat).direct());
    let fleet = Fleet::start((0..3).map(|at| cluster.daemon(at).rpc).collect(), count);
    let deadline = Instant::now() + READY_MAX;
    while fleet.ready() < count {
        assert!(Instant::now() < deadline, "{} of {count} agents are ready, {:?}", fleet.ready(), fleet.errors());
        quiet_for(Duration::from_millis(20));
    }
    eprintln!("{count} agents ready after {:?}, errors {:?}", fleet.ready_at(), fleet.errors());
    let terms = (0..3).map(|at| cluster.daemon(at).metric("holdfast.raft.term"));
    eprintln!("terms {:?}, {}", terms.collect::<Vec<_>>(), leaderships(&cluster).join("\n"));
    // Each has been heard twice.
    fleet.until_more(count);
    let leader = cluster.until_leader();
    cluster.kill(leader);
    let from = Instant::now();
    let next = cluster.until_leader();
    eprintln!("another leader after {:?}", from.elapsed());
    none_is_lost(&cluster, quiet);
    fleet.until_more(count);
    assert_eq!(ready(&cluster, next), count);
    let (beats, moves) = (fleet.beats(), fleet.moves());
    eprintln!("{beats} heartbeats, {moves} moves, none marked down in {quiet:?}; errors {:?}", fleet.errors());
    fleet.end();
}

#[test]
fn a_change_of_leader_marks_no_node_down() {
    let heartbeat = "[heartbeat]\nmin_ttl = \"1s\"\ngrace = \"2s\"\nfailover_ttl = \"5s\"\nmax_per_second = 1000.0\n";
    a_fleet_outlives_a_leader(heartbeat, 60, Duration::from_secs(9));
}

#[test]
#[ignore = "measures rather than checks: run it by tests/bench/cluster_fleet"]
fn ten_thousand_agents_register_at_once_and_outlive_a_leader() {
    let heartbeat =
        "[heartbeat]\nmin_ttl = \"10s\"\ngrace = \"10s\"\nfailover_ttl = \"45s\"\nmax_per_second = 1000.0\n";
    let number = |name: &str, or: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(or);
    let quiet = Duration::from_secs(number("HOLDFAST_FLEET_SECONDS", 150));
    a_fleet_outlives_a_leader(heartbeat, number("HOLDFAST_FLEET_AGENTS", 10_000), quiet);
}
