//! Backups that the leader takes by itself (R8.16): at intervals, as many as are kept, read back, and good for a
//! restore.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cluster_rig::{Cluster, Shape};
use rig::{Daemon, Setup, Value, eventually};

const TAKEN: &str = "holdfast.backup.taken";
const KEPT: &str = "holdfast.backup.kept";
const DAMAGED: &str = "holdfast.backup.damaged";
const FAILED: &str = "holdfast.backup.failed";

/// A server's own place for backups.
fn folder(setup: &Setup) -> PathBuf {
    setup.data_dir().join("backups")
}

/// Files with the names of backups of the first region, oldest first.
fn backups(folder: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(folder) else { return Vec::new() };
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("holdfast-global-2") && name.ends_with(".snap")
    };
    let mut found: Vec<PathBuf> = listing.map(|entry| entry.unwrap().path()).filter(is_one).collect();
    found.sort();
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[track_caller]
fn until_at_least(daemon: &Daemon, metric: &str, value: f64) {
    eventually(metric, || (daemon.metric(metric) >= value).then_some(()));
}

/// Other lines of configuration, put in force while it runs.
#[track_caller]
fn reconfigure(daemon: &Daemon, config: &str) {
    daemon.setup.clone().config(config);
    daemon.reload();
}

fn inspect(daemon: &Daemon, file: &Path) -> Option<Value> {
    let ran = daemon.holdfast(&["--json", "operator", "snapshot", "inspect", file.to_str().unwrap()]);
    (ran.status == Some(0)).then(|| serde_json::from_str(&ran.out).unwrap())
}

/// The newest one of at least this entry.
#[track_caller]
fn until_backup_of(daemon: &Daemon, folder: &Path, index: u64) -> PathBuf {
    eventually("a backup with what was written", || {
        let newest = backups(folder).pop()?;
        // It may have been removed for a newer one meanwhile.
        (inspect(daemon, &newest)?["index"].as_u64()? >= index).then_some(newest)
    })
}

// R8.16
#[test]
fn backups_come_at_intervals_and_as_many_as_are_kept_stay() {
    let setup = Setup::new("[backup]\nevery = \"1s\"\nkeep = 2");
    let folder = folder(&setup);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).unwrap();
    let foreign = ["notes", "holdfast-west-20200101T000000Z-7.snap", "holdfast-global-20200101T000000Z.snap"];
    foreign.iter().for_each(|name| fs::write(folder.join(name), name).unwrap());
    let left = folder.join("holdfast-global-20200101T000000Z-7.snap.tmp");
    fs::write(&left, "half").unwrap();
    let daemon = setup.start().with_keys();
    daemon.holdfast(&["var", "put", "app/db", "password=s3cret"]).ok();
    until_at_least(&daemon, TAKEN, 4.0);
    let kept = eventually("two backups", || {
        let found = backups(&folder);
        (found.len() == 3).then_some(found)
    });
    // The third is foreign: its name lacks the entry.
    assert!(!left.exists(), "what was left half written is gone");
    foreign.iter().for_each(|name| assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), *name));
    assert!(kept[0].ends_with(foreign[2]), "{kept:?}");
    assert_eq!(mode(&folder), 0o700);
    assert_eq!((daemon.metric(KEPT), daemon.metric(DAMAGED), daemon.metric(FAILED)), (2.0, 0.0, 0.0));

    reconfigure(&daemon, "[backup]\nevery = \"0s\"");
    eventually("the end of backups", || {
        let before = daemon.metric(TAKEN);
        rig::quiet_for(std::time::Duration::from_millis(1500));
        (daemon.metric(TAKEN) == before).then_some(())
    });
    assert_eq!((daemon.metric(KEPT), daemon.metric("holdfast.backup.age")), (0.0, 0.0), "none are looked after");
    let newest = backups(&folder).pop().unwrap();
    assert_eq!(mode(&newest), 0o600);
    let held = inspect(&daemon, &newest).unwrap();
    assert_eq!(held["holds"]["variables"], 1, "{held}");
    assert!(!String::from_utf8_lossy(&fs::read(&newest).unwrap()).contains("s3cret"));

    // Turned on again, at an interval that has not gone by: the age of what is there counts.
    reconfigure(&daemon, "[backup]\nevery = \"1h\"\nkeep = 2");
    daemon.until_metric(KEPT, 2.0);
    until_at_least(&daemon, "holdfast.backup.age", 1.0);
    assert_eq!(daemon.metric("holdfast.backup.size"), fs::metadata(&newest).unwrap().len() as f64);
    assert_eq!(backups(&folder).pop().unwrap(), newest);
}

// R8.16
#[test]
fn a_damaged_one_is_told_and_never_counted() {
    let daemon = Daemon::start("[backup]\nevery = \"1s\"\nkeep = 3");
    let folder = folder(&daemon.setup);
    daemon.until_metric(KEPT, 3.0);
    reconfigure(&daemon, "[backup]\nevery = \"1h\"\nkeep = 3");
    let three = eventually("three at rest", || {
        let found = backups(&folder);
        (found.len() == 3 && daemon.metric(KEPT) == 3.0).then_some(found)
    });
    let mut bytes = fs::read(&three[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&three[1], &bytes).unwrap();

    // Read back at the next round: here that of a change.
    reconfigure(&daemon, "[backup]\nevery = \"1h\"\nkeep = 4");
    let line = daemon.log.until("backup is damaged: ");
    assert!(line.contains(" ERROR ") && line.contains(three[1].to_str().unwrap()), "{line}");
    daemon.until_metric(DAMAGED, 1.0);
    assert_eq!(daemon.metric(KEPT), 2.0);
    assert_eq!(backups(&folder), three, "the two good ones are there, and the damaged one to be looked at");

    // With the two good ones a third and a fourth are kept: the damaged one takes no place.
    let taken = daemon.metric(TAKEN);
    reconfigure(&daemon, "[backup]\nevery = \"1s\"\nkeep = 4");
    until_at_least(&daemon, TAKEN, taken + 2.0);
    daemon.until_metric(KEPT, 4.0);
    eventually("the end of the damaged one", || (!three[1].exists()).then_some(()));
    daemon.until_metric(DAMAGED, 0.0);
    assert_eq!(daemon.metric(FAILED), 0.0);
}

// R8.16
#[test]
fn a_folder_that_is_missing_is_told_and_harms_nothing_until_it_is_there() {
    let outside = tempfile::tempdir().unwrap();
    let mount = outside.path().join("mount");
    let dir = mount.join("holdfast");
    let daemon = Daemon::start(&format!("[backup]\nevery = \"1s\"\ndir = {dir:?}")).with_keys();
    until_at_least(&daemon, FAILED, 2.0);
    let line = daemon.log.until("no backup: ");
    assert!(line.contains(" ERROR ") && line.contains(dir.to_str().unwrap()), "{line}");
    assert!(line.contains("No such file or directory") && line.contains("retry=1s"), "{line}");
    assert!(!mount.exists(), "nothing is put in the place of what is not mounted");
    daemon.holdfast(&["var", "put", "app/db", "k=v"]).ok();
    assert_eq!((daemon.metric(TAKEN), daemon.metric(KEPT)), (0.0, 0.0));
    fs::create_dir(&mount).unwrap();
    until_at_least(&daemon, TAKEN, 1.0);
    assert_eq!(mode(&dir), 0o700);
}

// R8.16: the drill of holdfast-backup(7).
#[test]
fn a_backup_and_the_key_ring_make_a_new_server_of_the_same_state() {
    let daemon = Daemon::start("[backup]\nevery = \"1s\"").with_keys();
    daemon.holdfast(&["var", "put", "app/db", "password=s3cret"]).ok();
    let index = daemon.holdfast(&["--json", "var", "get", "app/db"]).json()["modify_index"].as_u64().unwrap();
    let backup = until_backup_of(&daemon, &folder(&daemon.setup), index);
    let fresh = Setup::new("");
    let (ring, copy) = (daemon.setup.data_dir().join("keyring"), fresh.data_dir().join("keyring"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&copy).unwrap();
    for entry in fs::read_dir(&ring).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let kept = fresh.folder().join("kept.snap");
    fs::copy(&backup, &kept).unwrap();
    drop(daemon);

    let restored = fresh.start();
    restored.holdfast(&["operator", "snapshot", "restore", kept.to_str().unwrap()]).ok();
    let read = eventually("the variable", || {
        let ran = restored.holdfast(&["--json", "var", "get", "app/db"]);
        (ran.status == Some(0)).then(|| serde_json::from_str::<Value>(&ran.out).unwrap())
    });
    assert_eq!(read["items"]["password"], "s3cret");
    restored.holdfast(&["var", "put", "app/other", "k=v"]).ok();

    // Without the keys there is everything but the items.
    let without = Setup::new("").start();
    without.holdfast(&["operator", "snapshot", "restore", kept.to_str().unwrap()]).ok();
    let listed = without.holdfast(&["var", "list"]).ok();
    assert!(listed.contains("app/db"), "{listed}");
    let refused = without.holdfast(&["var", "get", "app/db"]);
    assert!(refused.status != Some(0) && !refused.out.contains("s3cret"), "{refused:?}");
}

// R8.16
#[test]
fn the_leader_of_three_takes_them_and_after_it_the_next_one() {
    let mut cluster = Cluster::start(Shape::of(3).tables("[backup]\nevery = \"1s\"\nkeep = 3"));
    let folder_of = |cluster: &Cluster, at: usize| folder(&cluster.servers[at].setup);
    let first = eventually("a backup by the leader", || {
        let leader = cluster.until_leader();
        (!backups(&folder_of(&cluster, leader)).is_empty()).then_some(leader)
    });
    for at in 0..3 {
        let led = cluster.daemon(at).log.count("cluster leadership acquired") > 0;
        assert!(led || !folder_of(&cluster, at).exists(), "one that never led has none");
    }
    let others = cluster.running_but(first);
    cluster.kill(first);
    let next = cluster.until_leader_of(&others);
    let index = cluster.put(next, "rig/after", 7).unwrap();
    until_backup_of(cluster.daemon(next), &folder_of(&cluster, next), index);
    let old = backups(&folder_of(&cluster, first));
    assert!(!old.is_empty(), "those of the old leader stay where they are");
}
