//! A disk that is full: writes are refused with a clear text, reads go on, and it is over by itself (R8.17).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_rig::{Cluster, Shape};
use rig::eventually;

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
