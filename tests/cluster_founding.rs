//! How a cluster begins: one of all who belong together, never two, and nobody else gets in (R8.19, and the
//! cluster's identity and TLS between servers).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::time::Duration;

use cluster_rig::load::Work;
use cluster_rig::{Caller, Cluster, Load, Rule, Shape};
use rig::tls::{Authority, Files};
use rig::{Setup, eventually, quiet_for};

/// Long enough for several elections.
const A_WHILE: Duration = Duration::from_secs(3);

#[test]
fn three_found_one_cluster_and_read_what_any_of_them_wrote() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    for writer in 0..3 {
        let (path, number) = (format!("founding/{writer}"), 10 + writer as u64);
        cluster.put(writer, &path, number).unwrap();
        for reader in 0..3 {
            assert_eq!(cluster.get(reader, &path, ""), Ok(Some(number)), "{writer} to {reader}");
            cluster.until_held(reader, &path, number);
        }
    }
    cluster.until_voters(leader, 3);
    for at in 0..3 {
        let peers = cluster.peers(at);
        let leads = |peer: &&rig::Value| peer["leader"] == true;
        assert_eq!((peers.len(), peers.iter().filter(leads).count()), (3, 1), "{peers:?}");
        // Stale reads tell whether they may be old.
        let (_, answer) = Caller::default().read_var(cluster.http(at), "founding/0", "?stale").unwrap();
        assert_eq!(answer.known_leader, Some(true));
        assert!(answer.last_contact.unwrap() < 5_000, "{answer:?}");
    }
    let health = cluster.daemon(leader).holdfast(&["operator", "health"]);
    assert_eq!(health.status, Some(0), "{health:?}");
}

#[test]
fn two_of_three_wait_for_the_third() {
    let mut cluster = Cluster::prepare(Shape::of(3).cluster("election_timeout = \"250ms\""));
    cluster.run(0);
    cluster.run(1);
    quiet_for(A_WHILE);
    for at in 0..2 {
        assert_eq!(cluster.leader_by(at), None);
        let (_, answer) = Caller::default().read_var(cluster.http(at), "x", "?stale").unwrap();
        assert_eq!((answer.status, answer.known_leader), (404, Some(false)));
    }
    cluster.run(2);
    cluster.until_ready();
    cluster.until_voters(0, 3);
}

// Two halves that do not see each other, each too small; together they are one cluster with all four in it.
#[test]
fn two_halves_found_nothing_and_then_one_cluster() {
    let mut cluster = Cluster::prepare(Shape { expect: 3, ..Shape::of(4).cluster("election_timeout = \"250ms\"") });
    let pairs = [(0, 2), (0, 3), (1, 2), (1, 3)];
    for (a, b) in pairs {
        cluster.net.rule(a, b, Rule::Cut);
        cluster.net.rule(b, a, Rule::Cut);
    }
    (0..4).for_each(|at| cluster.run(at));
    quiet_for(A_WHILE);
    assert!((0..4).all(|at| cluster.leader_by(at).is_none()), "a half leads itself");
    cluster.net.heal();
    let leader = cluster.until_leader();
    cluster.autopilot(leader, &[("ServerStabilizationTime", "200ms".into())]);
    cluster.until_voters(leader, 4);
    cluster.until_ready();
}

#[test]
fn a_founding_that_halves_could_each_do_is_refused() {
    let join = |count: usize| (1..=count).map(|n| format!("\"10.0.0.{n}:4647\"")).collect::<Vec<_>>().join(", ");
    for (expect, others, good) in
        [(3, 2, true), (3, 4, true), (3, 5, false), (2, 3, false), (1, 1, false), (1, 0, true)]
    {
        let setup = Setup::new(&format!("[cluster]\nbootstrap_expect = {expect}\njoin = [{}]\n", join(others)));
        let ran = rig::daemon::program().arg("-c").arg(setup.config_file()).arg("-t").output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(i32::from(!good)), "{expect} of {others} and itself: {said}");
        assert!(good || said.contains("cluster.bootstrap_expect: "), "{said}");
    }
}

// The cluster's id refuses strangers, and both sides say why.
#[test]
fn a_server_of_another_cluster_is_refused() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let mut other = Cluster::beside(Shape::of(1));
    other.run(0);
    other.until_ready();
    let (own_path, number) = ("stranger/own", 5);
    other.put(0, own_path, number).unwrap();
    other.kill(0);
    // The same data, told to join the three.
    other.shape.expect = 3;
    other.servers[0].join = Some((0..3).map(|at| cluster.address(at)).take(2).collect());
    other.run(0);
    let told = || other.daemon(0).log.errors().into_iter().find(|line| line.contains("cluster"));
    let line = eventually("a refusal in the log", told);
    eprintln!("the stranger says: {line}");
    quiet_for(Duration::from_secs(1));
    assert_eq!(cluster.peers(leader).len(), 3);
    assert_eq!(cluster.get(leader, own_path, ""), Ok(None));
    assert_eq!(cluster.until_leader(), leader, "strangers start no elections");
    cluster.put(leader, "stranger/here", 1).unwrap();
}

// R8.19
#[test]
fn servers_move_to_new_addresses_with_their_data() {
    let mut cluster = Cluster::three();
    cluster.put(0, "moved/before", 3).unwrap();
    let before: Vec<_> = (0..3).map(|at| cluster.address(at)).collect();
    (0..3).for_each(|at| cluster.kill(at));
    (0..3).for_each(|at| cluster.moves(at));
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    assert!((0..3).all(|at| !before.contains(&cluster.address(at))));
    for at in 0..3 {
        assert_eq!(cluster.get(at, "moved/before", ""), Ok(Some(3)));
        // The list of peers names where they are now.
        eventually("new addresses", || (0..3).all(|other| cluster.peer(at, other).is_some()).then_some(()));
    }
}

// One of them moves while the others go on, and only it is told anything new.
// R8.19
#[test]
fn a_server_that_moves_tells_the_others_where_it_is() {
    let mut cluster = Cluster::three();
    let leader = cluster.until_leader();
    let mover = cluster.running_but(leader)[0];
    cluster.kill(mover);
    cluster.moves(mover);
    cluster.run(mover);
    cluster.put(leader, "moved/one", 9).unwrap();
    cluster.until_held(mover, "moved/one", 9);
    eventually("its new address", || cluster.peer(leader, mover));
}

fn with_certificates(authority: &Authority, cluster: &mut Cluster, at: usize, name: &str) {
    let folder = cluster.servers[at].setup.folder().to_owned();
    let files = Files::write(&folder, authority, &authority.issue(name, 10 + at as u64));
    cluster.servers[at].own_tables = files.table("verify_server_hostname = true");
}

// R1.19 to R1.24 between servers: TLS both ways, and the name is looked at.
#[test]
fn servers_show_each_other_certificates_and_names_are_checked() {
    let authority = Authority::new();
    let mut cluster = Cluster::prepare(Shape::of(3));
    for at in 0..3 {
        with_certificates(&authority, &mut cluster, at, "server.global.nomad");
    }
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    let leader = cluster.until_leader();
    let follower = cluster.running_but(leader)[0];
    cluster.put(follower, "tls/one", 1).unwrap();
    // A certificate of the same authority for a client's name is none of a server.
    cluster.kill(follower);
    with_certificates(&authority, &mut cluster, follower, "client.global.nomad");
    cluster.run(follower);
    cluster.put(leader, "tls/two", 2).unwrap();
    quiet_for(A_WHILE);
    assert_eq!(cluster.get(follower, "tls/two", "?stale"), Ok(None), "it heard what is not meant for it");
    // With the right one it catches up.
    cluster.kill(follower);
    with_certificates(&authority, &mut cluster, follower, "server.global.nomad");
    cluster.run(follower);
    cluster.until_held(follower, "tls/two", 2);
}

// Also while all of them have clients.
#[test]
fn a_cluster_is_founded_under_the_eyes_of_clients() {
    let mut cluster = Cluster::prepare(Shape::of(3));
    let load = Load::start(&cluster, Work { writers: 3, readers: 2, waiters: 1, servers: vec![0, 1, 2] });
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    load.until_more(30);
    let report = load.finish();
    eprintln!("{}", report.line("founding"));
    report.history.judge().assert_clean();
}
