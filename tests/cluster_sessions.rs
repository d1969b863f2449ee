//! Writes that happen once: plain clients through a server that lives do not notice what becomes of leaders, and a write
//! with a place in a session is applied once wherever it is sent (R2.20, R2.24, R2.29 to R2.32).
//!
//! `HOLDFAST_SESSION_ROUNDS` has leaders die more often than the default.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::env;
use std::time::Duration;

use cluster_rig::load::Work;
use cluster_rig::{Cluster, Load, Rule};
use rig::eventually;

/// Where the plain clients are; it never dies.
const HOME: usize = 0;

fn rounds() -> usize {
    env::var("HOLDFAST_SESSION_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

/// Some other server than the clients' own leads.
fn until_another_leads(cluster: &Cluster) -> usize {
    eventually("another leader than the clients' server", || {
        let leader = cluster.until_leader();
        if leader == HOME {
            let other = cluster.id_of(HOME, HOME + 1);
            cluster.daemon(HOME).holdfast(&["operator", "raft", "transfer-leadership", &other]);
        }
        (leader != HOME).then_some(leader)
    })
}

// R2.20, R2.31, R2.32
#[test]
fn no_write_through_a_server_that_lives_is_lost_doubled_failed_or_unknown() {
    let mut cluster = Cluster::three();
    until_another_leads(&cluster);
    let load = Load::start(&cluster, Work::through(&[HOME]));
    for round in 0..rounds() {
        let leader = until_another_leads(&cluster);
        load.until_more(100);
        match round % 4 {
            0 => {
                cluster.kill(leader);
                load.until_more(50);
                cluster.run(leader);
            }
            1 => {
                cluster.pause(leader);
                load.until_more(50);
                cluster.resume(leader);
            }
            2 => {
                let others = cluster.running_but(leader);
                for other in others {
                    cluster.net.rule(other, leader, Rule::Cut);
                    cluster.net.rule(leader, other, Rule::Cut);
                }
                load.until_more(50);
                cluster.net.heal();
            }
            _ => {
                assert_eq!(cluster.stop(leader), Some(0));
                load.until_more(50);
                cluster.run(leader);
            }
        }
        cluster.until_leader();
    }
    load.until_more(50);
    let report = load.finish();
    eprintln!("{}", report.line(&format!("{} rounds", rounds())));
    report.assert_sound(Duration::from_secs(10));
    assert_eq!(report.unknown, 0, "their server lived");
    // It did so by sending some again; the table of what was answered is bounded.
    let metrics = cluster_rig::Caller::default().get(cluster.http(HOME), "/v1/metrics").unwrap().json();
    let sample = |name: &str| {
        let all = [&metrics["Counters"], &metrics["Gauges"]].into_iter().filter_map(|list| list.as_array()).flatten();
        all.filter(|one| one["Name"] == name)
            .filter_map(|one| one["Count"].as_f64().or(one["Value"].as_f64()))
            .sum::<f64>()
    };
    eprintln!("stamped {} sent again {}", sample("holdfast.session.stamped"), sample("holdfast.forward.retry"));
    assert!(sample("holdfast.session.stamped") > 100.0, "{metrics}");
    assert!(sample("holdfast.session.answer_bytes") < 1_000_000.0, "{metrics}");
}
