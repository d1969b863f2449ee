//! The data folder: whose it is, how much room there is, and how long its disk takes to keep a write for good.
//!
//! Writes 8 KiB into a file of its own in the folder, and removes it.

use std::fs;
use std::fs::{File, OpenOptions};
use std::io;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::base::time::format_duration;
use crate::config::Config;

use super::finding::Finding;

/// Writes that are timed.
const WRITES: usize = 32;
/// Bytes of each.
const WRITE_BYTES: usize = 256;
/// The writes end after this long, however few they were.
const MEASURING_MAX: Duration = Duration::from_millis(2_500);
/// Above this each write that clients make is slow.
const SLOW_SYNC: Duration = Duration::from_millis(10);

/// Looks at the data folder.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let Some(dir) = config.data_dir.as_deref() else { return Vec::new() };
    let meta = match fs::metadata(dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return vec![missing(dir)],
        Err(error) => return vec![Finding::unseen("data_dir", &error)],
    };
    if !meta.is_dir() {
        return vec![Finding::fail("data_dir", format!("{} is no folder", dir.display()), "")];
    }
    let mut found = vec![owner(dir, meta.uid(), meta.mode())];
    found.extend(space(dir, config.min_free_bytes));
    found.extend(kind(dir));
    found.push(match time_syncs(dir) {
        Ok(times) => judge(times, config.election_timeout),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::note(
            "sync",
            format!("cannot be measured by this user: {error}"),
            format!("run it as the user that the server runs as: {}", user_hint(meta.uid())),
        ),
        Err(error) => Finding::fail("sync", format!("{}: {error}", dir.display()), "the server could not write either"),
    });
    found
}

fn user_hint(uid: u32) -> String {
    format!("setpriv --reuid {uid} --clear-groups holdfast doctor")
}

/// The server makes the last folder itself.
fn missing(dir: &Path) -> Finding {
    let parent = dir.parent().unwrap_or(Path::new("/"));
    if parent.is_dir() {
        let hint = "the server makes it when it may write in the folder above";
        return Finding::note("data_dir", format!("{} is not there", dir.display()), hint);
    }
    let hint = format!("mkdir -p {} and give it to the user that the server runs as", dir.display());
    Finding::fail("data_dir", format!("neither {} is there nor the folder above", dir.display()), hint)
}

fn owner(dir: &Path, uid: u32, mode: u32) -> Finding {
    let (name, mode) = (dir.display(), mode & 0o777);
    match mode {
        _ if mode & 0o022 != 0 => {
            let detail = format!("{name}, of user {uid}, mode {mode:03o}: more than its owner may write there");
            Finding::fail("data_dir", detail, format!("chmod 0700 {name}"))
        }
        // Its group may list it: the package makes it so, and what is in it is closed to the group.
        _ if mode & 0o005 != 0 => {
            let detail = format!("{name}, of user {uid}, mode {mode:03o}: everybody may look into it");
            Finding::warn("data_dir", detail, format!("chmod 0700 {name}"))
        }
        _ => Finding::ok("data_dir", format!("{name}, of user {uid}, mode {mode:03o}")),
    }
}

fn space(dir: &Path, floor_bytes: u64) -> Option<Finding> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(judge_space(found.f_bavail.saturating_mul(found.f_frsize), floor_bytes))
}

fn judge_space(free_bytes: u64, floor_bytes: u64) -> Finding {
    let detail = format!("{} MiB free, writes are refused below {} MiB", free_bytes >> 20, floor_bytes >> 20);
    let hint = "make room, or see cluster.min_free_space";
    match free_bytes {
        _ if free_bytes < floor_bytes => Finding::fail("space", detail, hint),
        _ if free_bytes < floor_bytes.saturating_mul(2) => Finding::warn("space", detail, hint),
        _ => Finding::ok("space", detail),
    }
}

/// File systems that keep nothing, or not here (`statfs(2)`).
fn kind(dir: &Path) -> Option<Finding> {
    let kind = rustix::fs::statfs(dir).ok()?.f_type;
    match u64::try_from(kind).ok()? {
        0x0102_1994 => Some(Finding::warn(
            "file system",
            "tmpfs: the data is gone with the machine's next start",
            "put data_dir on a disk",
        )),
        0x6969 | 0xff53_4d42 | 0xfe53_4d42 => Some(Finding::warn(
            "file system",
            "a network's: a server stalls when the network does",
            "put data_dir on a disk of this machine",
        )),
        _ => None,
    }
}

/// A file that is removed whatever happens.
struct Probe {
    file: File,
    path: PathBuf,
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Nobody reads it, were it left.
        let _ = fs::remove_file(&self.path);
    }
}

fn time_syncs(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let mut probe = Probe { file, path };
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.len() < WRITES && began.elapsed() < MEASURING_MAX {
        let at = Instant::now();
        probe.file.write_all(&[0xa5; WRITE_BYTES])?;
        probe.file.sync_data()?;
        times.push(at.elapsed());
    }
    Ok(times)
}

fn judge(mut times: Vec<Duration>, election_timeout: Duration) -> Finding {
    times.sort();
    let half = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let short = |time: Duration| format_duration(Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0)));
    let detail = format!("{} synced writes: half within {}, all within {}", times.len(), short(half), short(worst));
    if worst > election_timeout {
        let hint =
            format!("a leader on it loses its office each {}: use another disk", format_duration(election_timeout));
        return Finding::fail("sync", detail, hint);
    }
    if half > SLOW_SYNC {
        return Finding::warn("sync", detail, "each write of a client takes at least that long: use a faster disk");
    }
    Finding::ok("sync", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_slow_disk_is_told_from_a_hopeless_one() {
        let times = |millis: u64, worst: u64| {
            let mut times = vec![Duration::from_millis(millis); 31];
            times.push(Duration::from_millis(worst));
            judge(times, Duration::from_secs(1)).verdict
        };
        assert_eq!((times(1, 9), times(11, 12), times(1, 1001)), (Verdict::Ok, Verdict::Warn, Verdict::Fail));
        assert_eq!(times(1, 900), Verdict::Ok, "once is no rule");
    }

    // R8.17
    #[test]
    fn room_is_measured_against_the_floor() {
        for (free, verdict) in [(99, Verdict::Fail), (150, Verdict::Warn), (200, Verdict::Ok)] {
            assert_eq!(judge_space(free << 20, 100 << 20).verdict, verdict, "{free}");
        }
        assert_eq!(judge_space(0, 0).verdict, Verdict::Ok, "without a floor there is none to be below");
    }

    #[test]
    fn the_folder_is_closed_to_others() {
        let verdicts = [(0o700, Verdict::Ok), (0o750, Verdict::Ok), (0o755, Verdict::Warn), (0o770, Verdict::Fail)];
        for (mode, verdict) in verdicts {
            assert_eq!(owner(Path::new("/data"), 7, mode).verdict, verdict, "{mode:o}");
        }
        assert_eq!(missing(Path::new("/tmp/data-that-is-not-there")).verdict, Verdict::Note);
        assert_eq!(missing(Path::new("/nowhere/at/all")).verdict, Verdict::Fail);
    }

    #[test]
    fn measuring_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let times = time_syncs(folder.path()).unwrap();
        assert!(!times.is_empty() && times.len() <= WRITES);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(time_syncs(Path::new("/nowhere/at/all")).is_err());
    }
}
