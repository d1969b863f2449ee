//! A disk that is full: writes are refused with a clear text, reads go on, and it is over by itself (R8.17). A disk
//! that gives back something else than the others hold: its server stops serving (R8.18).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_rig::{Caller, Cluster, Shape};
use holdfast::base::id::Index;
use holdfast::consensus::{Log, Persist};
use holdfast::edge::log_store::RaftEngineLog;
use rig::eventually;
use rig::nodes::{id, registration};
use rig::talk::call_once;

/// A file system in memory; taken down when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where that is not allowed.
    fn at(folder: &Path, size: &str) -> Option<Mounted> {
        fs::create_dir_all(folder).unwrap();
        let options = format!("size={size},mode=0700");
        let status =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output().ok()?.status;
        status.success().then(|| Mounted(folder.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: the server may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Fills all but the last MiB.
fn fill(folder: &Path) -> PathBuf {
    let file = folder.join("ballast");
    let free = rustix::fs::statvfs(folder).unwrap();
    let bytes = usize::try_from((free.f_bavail * free.f_frsize).saturating_sub(1 << 20)).unwrap();
    fs::write(&file, vec![0u8; bytes]).unwrap();
    file
}

// R8.17
#[test]
fn full_disks_refuse_writes_and_recover_by_themselves() {
    let mut cluster = Cluster::prepare(Shape::of(3).cluster("min_free_space = \"16MiB\""));
    let mut mounted = Vec::new();
    for at in 0..3 {
        let Some(one) = Mounted::at(&cluster.servers[at].setup.data_dir(), "160m") else {
            eprintln!("SKIPPED: no file system can be mounted here");
            return;
        };
        mounted.push(one);
    }
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    cluster.put(0, "full/before", 1).unwrap();
    let ballast: Vec<PathBuf> = (0..3).map(|at| fill(&cluster.servers[at].setup.data_dir())).collect();
    let refused = eventually("a refusal", || (0..3).find_map(|at| cluster.put(at, "full/during", 2).err()));
    eprintln!("refused: {refused}");
    assert!(refused.contains("writes are refused: the disk"), "{refused}");
    for at in 0..3 {
        assert_eq!(cluster.get(at, "full/before", ""), Ok(Some(1)), "reads go on");
    }
    ballast.iter().for_each(|file| fs::remove_file(file).unwrap());
    for at in 0..3 {
        eventually("writes again", || cluster.put(at, "full/after", 3).ok());
    }
    (0..3).for_each(|at| cluster.kill(at));
}

// A leader whose own disk is full does not stop the others.
// R8.17
#[test]
fn one_full_disk_stops_nobody_else() {
    let mut cluster = Cluster::prepare(Shape::of(3).cluster("min_free_space = \"16MiB\""));
    let Some(_mounted) = Mounted::at(&cluster.servers[0].setup.data_dir(), "160m") else {
        eprintln!("SKIPPED: no file system can be mounted here");
        return;
    };
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    let id = cluster.id_of(0, 0);
    eventually("the first one's lead", || {
        cluster.daemon(1).holdfast(&["operator", "raft", "transfer-leadership", &id]);
        (cluster.until_leader() == 0).then_some(())
    });
    let ballast = fill(&cluster.servers[0].setup.data_dir());
    // Reads go on; writes are refused or served by another leader, and never hang.
    cluster.put(1, "full/one", 1).unwrap_or_default();
    assert!(cluster.get(2, "full/one", "").is_ok());
    fs::remove_file(ballast).unwrap();
    eventually("writes again", || cluster.put(1, "full/two", 2).ok());
    (0..3).for_each(|at| cluster.kill(at));
}

/// Writes another text into the log of a server that is down, over one of the same length.
fn alter_log(data_dir: &Path, text: &str, other: &str) {
    assert_eq!(text.len(), other.len());
    let mut log = RaftEngineLog::open(data_dir).unwrap();
    let mut entries = log.entries_after(Index(0)).unwrap();
    let holds = |data: &[u8]| data.windows(text.len()).position(|window| window == text.as_bytes());
    let first = entries.iter().position(|entry| holds(&entry.data).is_some()).unwrap();
    entries.drain(..first);
    let at = holds(&entries[0].data).unwrap();
    entries[0].data[at..at + other.len()].copy_from_slice(other.as_bytes());
    log.persist(&Persist { ticket: 0, entries, hard_state: None }).unwrap();
}

// R8.18
#[test]
fn a_server_whose_state_differs_stops_serving_and_says_where() {
    let mut cluster = Cluster::start(Shape::of(3).cluster("digest_entries = 50"));
    let register = |name: &str| {
        let mut body = registration(&id(1));
        body["Node"]["Attributes"]["colour"] = name.into();
        body
    };
    call_once(cluster.daemon(0).rpc, "Node.Register", &register("green")).ok();
    let wrong = cluster.running_but(cluster.until_leader())[0];
    assert_eq!(cluster.stop(wrong), Some(0));
    alter_log(&cluster.servers[wrong].setup.data_dir(), "green", "brown");
    cluster.run(wrong);
    let others = cluster.running_but(wrong);
    let mut number = 0;
    eventually("the verdict", || {
        number += 1;
        cluster.put(others[0], "digest/more", number).unwrap();
        (cluster.daemon(wrong).log.count("this server's state differs from the others'") > 0).then_some(())
    });
    let line = cluster.daemon(wrong).log.until("this server's state differs from the others'");
    assert!(line.contains(" ERROR ") && line.contains("tables=\"nodes\""), "{line}");
    cluster.daemon(wrong).until_metric("holdfast.raft.diverged", 1.0);
    assert_ne!(Caller::default().get(cluster.http(wrong), "/readyz").unwrap().status, 200);
    for path in ["/v1/nodes", "/v1/nodes?stale", "/v1/var/digest/more?stale"] {
        let answer = Caller::default().get(cluster.http(wrong), path).unwrap();
        assert_ne!(answer.status, 200, "{path} {}", answer.text());
    }
    // The others are the same and go on.
    for at in &others {
        assert_eq!(cluster.daemon(*at).metric("holdfast.raft.diverged"), 0.0);
        cluster.put(*at, "digest/after", 7).unwrap();
    }
    // As it is told to do: with an empty folder it is one of them again.
    cluster.kill(wrong);
    fs::remove_dir_all(cluster.servers[wrong].setup.data_dir()).unwrap();
    cluster.run(wrong);
    cluster.until_held(wrong, "digest/after", 7);
}
