//! Links between servers that are cut, held, or slow, in one direction or both (R8.5, R8.23, R6.8).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::thread;
use std::time::Duration;

use cluster_rig::load::Work;
use cluster_rig::{Caller, Cluster, Load, Rule, Shape};
use rig::{Talk, eventually, json, quiet_for};

const GAP_MAX: Duration = Duration::from_secs(10);

// The rig itself: a door knows who dials it.
#[test]
fn the_doors_know_who_dials_them() {
    let cluster = Cluster::three();
    let net = &cluster.net;
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            eventually("links between all", || (net.let_in(from, to) > 0).then_some(()));
        }
    }
}

/// A cluster with writes under way through the two that follow; who leads, and who follows.
fn under_load() -> (Cluster, Load, usize, Vec<usize>) {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let others = cluster.running_but(leader);
    let load = Load::start(&cluster, Work::through(&others));
    load.until_more(50);
    (cluster, load, leader, others)
}

// R8.5: nobody can dial the leader any more, while it reaches all others.
#[test]
fn a_leader_that_nobody_can_dial_gives_up() {
    let (cluster, load, leader, others) = under_load();
    others.iter().for_each(|other| cluster.net.rule(*other, leader, Rule::Cut));
    let next = cluster.until_leader_of(&others);
    assert!(others.contains(&next));
    load.until_more(100);
    cluster.net.heal();
    cluster.until_leader();
    let report = load.finish();
    eprintln!("{}", report.line("inbound cut"));
    report.assert_sound(GAP_MAX);
}

#[test]
fn a_leader_that_is_cut_off_serves_no_old_reads() {
    let (cluster, load, leader, others) = under_load();
    for other in &others {
        cluster.net.rule(*other, leader, Rule::Cut);
        cluster.net.rule(leader, *other, Rule::Cut);
    }
    let next = cluster.until_leader_of(&others);
    cluster.put(next, "cut/new", 2).unwrap();
    // No answer but an error: it cannot know what is written.
    let read = cluster.get(leader, "cut/new", "");
    assert!(read.is_err(), "a server without others answered {read:?}");
    assert_eq!(cluster.get(leader, "cut/new", "?stale"), Ok(None));
    cluster.net.heal();
    cluster.until_leader();
    cluster.until_held(leader, "cut/new", 2);
    let report = load.finish();
    eprintln!("{}", report.line("leader cut off"));
    report.assert_sound(GAP_MAX);
}

// What the leader says reaches nobody, what it is told does; and the other way round.
#[test]
fn one_way_silence_moves_the_lead_or_harms_nobody() {
    for leader_is_mute in [true, false] {
        let (cluster, load, leader, others) = under_load();
        for other in &others {
            let (from, to) = if leader_is_mute { (leader, *other) } else { (*other, leader) };
            cluster.net.mute(from, to);
        }
        let next = cluster.until_leader_of(&others);
        load.until_more(100);
        cluster.net.heal();
        cluster.until_leader();
        let report = load.finish();
        eprintln!("{} next={next}", report.line(if leader_is_mute { "leader mute" } else { "leader deaf" }));
        report.assert_sound(GAP_MAX);
    }
}

// A follower that was away brings no election when it comes back: pre-vote.
#[test]
fn a_follower_is_cut_off_and_healed_without_an_election() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let away = cluster.running_but(leader)[0];
    let others = cluster.running_but(away);
    let load = Load::start(&cluster, Work::through(&others));
    for other in &others {
        cluster.net.rule(away, *other, Rule::Cut);
        cluster.net.rule(*other, away, Rule::Cut);
    }
    load.until_more(200);
    quiet_for(Duration::from_secs(2));
    cluster.net.heal();
    cluster.put(leader, "away/done", 5).unwrap();
    cluster.until_held(away, "away/done", 5);
    let report = load.finish();
    eprintln!("{}", report.line("follower cut"));
    report.assert_sound(GAP_MAX);
    assert_eq!((cluster.until_leader(), report.unknown), (leader, 0));
}

// A link that carries bytes, late: no election, and calls through it are late too.
#[test]
fn slow_links_make_calls_slow_and_nothing_else() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    for from in 0..3 {
        (0..3)
            .filter(|to| *to != from)
            .for_each(|to| cluster.net.rule(from, to, Rule::Slow(Duration::from_millis(30))));
    }
    let load = Load::start(&cluster, Work::through(&[0, 1, 2]));
    load.until_more(100);
    quiet_for(Duration::from_secs(2));
    let report = load.finish();
    eprintln!("{}", report.line("slow links"));
    report.assert_sound(GAP_MAX);
    assert_eq!(cluster.until_leader(), leader);
}

// A pair that cannot talk, both with the third: whoever leads, all goes on.
#[test]
fn two_that_do_not_see_each_other_work_through_the_third() {
    let cluster = Cluster::three();
    let leader = cluster.until_leader();
    let other = cluster.running_but(leader)[0];
    let third = cluster.running_but(leader)[1];
    let load = Load::start(&cluster, Work::through(&[third]));
    load.until_more(50);
    cluster.net.rule(leader, other, Rule::Cut);
    cluster.net.rule(other, leader, Rule::Cut);
    load.until_more(100);
    quiet_for(Duration::from_secs(2));
    load.until_more(100);
    let report = load.finish();
    eprintln!("{}", report.line("pair cut"));
    report.assert_sound(GAP_MAX);
    cluster.net.heal();
    cluster.until_leader();
}

/// Writes many entries at once: registrations of nodes, answered out of turn.
fn write_many(cluster: &Cluster, at: usize, count: u64) {
    let rpc = cluster.daemon(at).rpc;
    let lanes = 32;
    thread::scope(|scope| {
        for lane in 0..lanes {
            scope.spawn(move || {
                let mut talk = Talk::dial(rpc, 6);
                let streams: Vec<u32> = (0..4).map(|_| talk.open()).collect();
                for turn in 0..count / lanes / 4 {
                    for (number, stream) in streams.iter().enumerate() {
                        let id = format!("{lane:08x}-{number:04x}-4000-8000-{:012x}", turn % 3);
                        let attributes = json!({ "nomad.version": "2.0.5", "turn": turn.to_string() });
                        let node = json!({
                            "ID": id, "SecretID": id, "Datacenter": "dc1", "Name": "many", "Status": "ready",
                            "Attributes": attributes,
                        });
                        talk.request(*stream, "Node.Register", &json!({ "Region": "global", "Node": node }));
                    }
                    for stream in &streams {
                        talk.reply(*stream).ok();
                    }
                }
            });
        }
    });
}

// More entries than a log keeps: who missed them gets a snapshot, in chunks, while the others serve.
#[test]
fn a_follower_far_behind_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(Shape::of(3).tables("[heartbeat]\nmin_ttl = \"300s\"\n"));
    let leader = cluster.until_leader();
    let away = cluster.running_but(leader)[0];
    cluster.put(leader, "behind/before", 1).unwrap();
    cluster.kill(away);
    let is_snapshot = |file: &std::fs::DirEntry| file.path().extension().is_some_and(|kind| kind == "snap");
    let folder = cluster.servers[leader].setup.data_dir().join("snapshots");
    let snapshots = || std::fs::read_dir(&folder).into_iter().flatten().flatten().filter(is_snapshot).count();
    write_many(&cluster, leader, 24_000);
    eventually("a snapshot at the leader", || (snapshots() > 0).then_some(()));
    cluster.put(leader, "behind/after", 2).unwrap();
    let load = Load::start(&cluster, Work::through(&cluster.running()));
    cluster.run(away);
    cluster.until_held(away, "behind/after", 2);
    load.until_more(20);
    let report = load.finish();
    eprintln!("{}", report.line("catching up"));
    report.assert_sound(GAP_MAX);
    assert_eq!(cluster.until_leader(), leader);
    // It came as a snapshot: the follower holds one too.
    let own = cluster.servers[away].setup.data_dir().join("snapshots");
    assert!(std::fs::read_dir(own).unwrap().flatten().any(|file| is_snapshot(&file)));
    let listed = Caller::default().get(cluster.http(away), "/v1/nodes?stale").unwrap();
    assert_eq!(listed.json().as_array().unwrap().len(), 32 * 4 * 3);
}
