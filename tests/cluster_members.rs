//! Servers come, go, and hand over the lead while the cluster serves (R8.20, and autopilot's part in it).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::time::Duration;

use cluster_rig::load::Work;
use cluster_rig::{Cluster, Load, Shape};
use rig::{eventually, quiet_for};

const GAP_MAX: Duration = Duration::from_secs(10);

fn stable_at_once(cluster: &Cluster) {
    cluster.autopilot(cluster.until_leader(), &[("ServerStabilizationTime", "200ms".into())]);
}

#[test]
fn a_new_server_is_first_a_learner_and_then_a_voter() {
    let mut cluster = Cluster::three();
    let leader = cluster.until_leader();
    cluster.autopilot(leader, &[("ServerStabilizationTime", "2s".into())]);
    cluster.put(leader, "added/before", 4).unwrap();
    let load = Load::start(&cluster, Work::through(&[0, 1, 2]));
    let fourth = cluster.more();
    cluster.run(fourth);
    let first = eventually("a fourth peer", || cluster.peer(leader, fourth));
    assert_eq!(first["voter"], false, "it votes before it is known to be stable");
    cluster.until_held(fourth, "added/before", 4);
    cluster.until_voters(leader, 4);
    load.until_more(50);
    load.finish().assert_sound(GAP_MAX);
    // It serves as any other.
    cluster.put(fourth, "added/after", 5).unwrap();
    assert_eq!(cluster.get(leader, "added/after", ""), Ok(Some(5)));
}

#[test]
fn a_dead_server_is_removed_by_command() {
    let mut cluster = Cluster::three();
    let leader = cluster.until_leader();
    let dead = cluster.running_but(leader)[0];
    let id = cluster.id_of(leader, dead);
    cluster.kill(dead);
    let asked = cluster.running_but(leader)[0];
    let ran = cluster.daemon(asked).holdfast(&["operator", "raft", "remove-peer", &id]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    cluster.until_voters(leader, 2);
    // Who is not there cannot be removed.
    let ran = cluster.daemon(asked).holdfast(&["operator", "raft", "remove-peer", &id]);
    assert_ne!(ran.status, Some(0), "{ran:?}");
    cluster.put(asked, "removed/one", 1).unwrap();
    // It comes back, and disturbs nobody.
    cluster.run(dead);
    quiet_for(Duration::from_secs(2));
    assert_eq!(cluster.until_leader_of(&[leader, asked]), leader);
    cluster.put(asked, "removed/two", 2).unwrap();
}

#[test]
fn a_dead_server_is_removed_by_itself_and_a_new_one_takes_its_place() {
    let shape = Shape::of(3).cluster("dead_server_after = \"2s\"");
    let mut cluster = Cluster::start(shape);
    stable_at_once(&cluster);
    let leader = cluster.until_leader();
    let dead = cluster.running_but(leader)[0];
    cluster.kill(dead);
    let fresh = cluster.more();
    cluster.run(fresh);
    eventually("the dead one's removal", || {
        let peers = cluster.peers(leader);
        let gone = !peers.is_empty() && cluster.peer(leader, dead).is_none();
        gone.then_some(())
    });
    cluster.until_voters(leader, 3);
    cluster.put(fresh, "replaced", 1).unwrap();
}

#[test]
fn the_lead_is_handed_over_by_command() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let load = Load::start(&cluster, Work::through(&[0, 1, 2]));
    load.until_more(50);
    let next = cluster.running_but(leader)[0];
    let id = cluster.id_of(leader, next);
    // Asked of one that does not lead.
    let ran = cluster.daemon(next).holdfast(&["operator", "raft", "transfer-leadership", &id]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    eventually("the new leader", || (cluster.until_leader() == next).then_some(()));
    load.until_more(50);
    let report = load.finish();
    eprintln!("{}", report.line("transfer"));
    report.assert_sound(GAP_MAX);
    // To the one that leads already: nothing to do.
    let ran = cluster.daemon(leader).holdfast(&["operator", "raft", "transfer-leadership", &id]);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    assert_eq!(cluster.until_leader(), next);
}

// R8.20: two of three are gone for good.
#[test]
fn a_lost_quorum_is_given_up_by_command_and_the_dead_stay_out() {
    let mut cluster = Cluster::three();
    cluster.put(0, "recover/kept", 6).unwrap();
    let survivor = cluster.until_leader();
    cluster.until_held(survivor, "recover/kept", 6);
    (0..3).for_each(|at| cluster.kill(at));
    let data = cluster.servers[survivor].setup.data_dir();
    let recover = |more: &[&str]| {
        let mut command = rig::cli::program();
        command.args(["operator", "recover"]).args(more).arg(&data);
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    // It says what it will drop, and does nothing without being told so.
    let (_, said) = recover(&[]);
    assert!(said.contains("Dropped") && said.contains("--yes"), "{said}");
    let (status, said) = recover(&["--yes"]);
    assert_eq!(status, Some(0), "{said}");
    cluster.run(survivor);
    cluster.until_leader_of(&[survivor]);
    eventually("a write", || cluster.put(survivor, "recover/after", 7).ok());
    assert_eq!(cluster.get(survivor, "recover/kept", ""), Ok(Some(6)));
    // The dead come back: they are strangers now, and cannot elect each other into it.
    let dead: Vec<usize> = (0..3).filter(|at| *at != survivor).collect();
    dead.iter().for_each(|at| cluster.run(*at));
    quiet_for(Duration::from_secs(2));
    assert_eq!(cluster.leader_by(survivor), Some(survivor));
    assert_eq!(cluster.peers(survivor).len(), 1);
    cluster.put(survivor, "recover/alone", 8).unwrap();
    assert_eq!(cluster.get(survivor, "recover/alone", ""), Ok(Some(8)));
}
