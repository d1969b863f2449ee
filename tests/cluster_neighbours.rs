//! Servers of this version and of the one before in one cluster, and one's data under the other: an upgrade is done
//! server by server, under load, and callers do not notice.
//!
//! `HOLDFASTD_PREVIOUS` names the program of the version before; `tests/run` builds it from the last tag that there is.
//! Without it there is nothing to compare, and the tests say so.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use cluster_rig::load::Work;
use cluster_rig::{Cluster, Load, Shape};
use rig::Setup;

/// Far above what a change of leader may take, for a machine with other work.
const GAP_MAX: Duration = Duration::from_secs(10);

fn previous() -> Option<PathBuf> {
    let found = env::var_os("HOLDFASTD_PREVIOUS").map(PathBuf::from);
    if found.is_none() {
        eprintln!("HOLDFASTD_PREVIOUS is not set: NEIGHBOURING VERSIONS WERE NOT TESTED");
    }
    found
}

// R6.19
#[test]
fn a_cluster_is_upgraded_server_by_server_under_load() {
    let Some(previous) = previous() else { return };
    let mut cluster = Cluster::prepare(Shape::of(3));
    for at in 0..3 {
        cluster.servers[at].setup = cluster.servers[at].setup.clone().program(Some(&previous));
        cluster.run(at);
    }
    cluster.until_ready();
    let load = Load::start(&cluster, Work::through(&[0, 1, 2]));
    load.until_more(50);
    for at in 0..3 {
        assert_eq!(cluster.stop(at), Some(0));
        load.until_more(20);
        cluster.servers[at].setup = cluster.servers[at].setup.clone().program(None);
        cluster.run(at);
        cluster.until_leader();
        // Whoever leads now, each server takes calls and passes them on to the other version.
        let mark = 100 + at as u64;
        for asked in 0..3 {
            cluster.put(asked, &format!("mixed/{at}/{asked}"), mark).unwrap();
            (0..3).for_each(|held| cluster.until_held(held, &format!("mixed/{at}/{asked}"), mark));
        }
    }
    load.until_more(50);
    let report = load.finish();
    eprintln!("{}", report.line("upgrade"));
    report.assert_sound(GAP_MAX);
}

// R6.20
#[test]
fn the_data_of_the_version_before_is_opened() {
    let Some(previous) = previous() else { return };
    let setup = Setup::new("").filter("info");
    let daemon = setup.clone().program(Some(&previous)).start();
    daemon.holdfast(&["var", "put", "app/db", "user=web"]).ok();
    drop(daemon);
    let daemon = setup.start();
    assert_eq!(daemon.holdfast(&["var", "get", "--item", "user", "app/db"]).ok().trim_end(), "web");
}
