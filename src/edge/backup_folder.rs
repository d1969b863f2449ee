//! The folder of backups: archives such as `holdfast operator snapshot save` writes, taken and read back on a thread of
//! their own (R8.16).
//!
//! A file is written under another name, synced, renamed, and its folder synced; then it is read back and looked
//! through as a restore would, and only then is it one. Files that do not bear our names are never touched, and a good
//! one is removed only for being older than as many good ones as are kept. When, the server machine says.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread;

use ring::digest::{SHA256, digest};
use rustix::fs::{Advice, fadvise};

use crate::base::time::WallTime;
use crate::config::Config;
use crate::server::backups::{Backup, BackupReport, BackupWish};
use crate::server::restore::look_through;
use crate::state::{State, snapshot};
use crate::wire::archive::{self, MAX_ARCHIVE_BYTES, Meta};

use super::facts::free_bytes;
use super::inbox::{Post, Told};
use super::log_store::{panic_text, sync_folder};

/// Where backups are when nothing else is said, in the data folder.
const FOLDER: &str = "backups";
/// After the name of one that is being written.
const UNFINISHED: &str = ".tmp";
/// Bytes of the time in a name.
const TIME_BYTES: usize = 16;
/// What a name tells is whole seconds.
const ONE_SECOND_NANOS: i64 = 1_000_000_000;

/// The folder.
#[derive(Clone, Debug)]
pub struct BackupFolder {
    path: PathBuf,
    region: String,
    /// So much is left free on its file system, bytes.
    floor_bytes: u64,
}

/// A file that bears our name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    at: WallTime,
    name: String,
}

/// What the folder holds, newest first.
#[derive(Debug, Default)]
struct Found {
    all: Vec<Named>,
    /// At most as many as are kept; older ones were not read.
    good: Vec<(Named, u64)>,
    damaged: Vec<(Named, String)>,
}

impl BackupFolder {
    /// As it is configured; nothing is touched before the first wish.
    pub fn new(config: &Config, data_dir: &Path) -> BackupFolder {
        let path = config.backup_dir.clone().unwrap_or_else(|| data_dir.join(FOLDER));
        BackupFolder { path, region: config.region.clone(), floor_bytes: config.min_free_bytes }
    }

    /// Grants a wish on a thread of its own; the loop is told [`Told::BackedUp`].
    ///
    /// # Errors
    /// When the system has no more threads.
    pub(super) fn start(&self, wish: BackupWish, post: &Post) -> Result<(), String> {
        let (folder, post) = (self.clone(), post.clone());
        let work = move || {
            let done = catch_unwind(AssertUnwindSafe(|| folder.perform(wish)));
            let report = done.unwrap_or_else(|panic| {
                let error = format!("{}: {}", folder.path.display(), panic_text(&*panic));
                BackupReport { error: Some(error), ..BackupReport::default() }
            });
            post.tell(Told::BackedUp(Box::new(report)));
        };
        let started = thread::Builder::new().name("backup".to_owned()).spawn(work);
        started.map(drop).map_err(|error| format!("starting the thread for backups: {error}"))
    }

    fn perform(&self, wish: BackupWish) -> BackupReport {
        let (BackupWish::Look { keep } | BackupWish::Take { keep, .. }) = wish;
        let mut report = BackupReport::default();
        let mut found = match self.look(keep, &mut report.troubles) {
            Ok(found) => found,
            Err(error) => return BackupReport { error: Some(error), ..report },
        };
        if let BackupWish::Take { state, meta, at, .. } = wish {
            match self.take(&found, &state, meta, at) {
                Ok((named, bytes)) => {
                    report.taken = true;
                    found.all.insert(0, named.clone());
                    found.good.insert(0, (named, bytes));
                    self.remove_old(&mut found, keep, &mut report.troubles);
                }
                Err(error) => report.error = Some(error),
            }
        }
        report.looked = true;
        report.good = found.good.len();
        report.newest = found.good.first().map(|(named, bytes)| {
            let file = self.path.join(&named.name).display().to_string();
            Backup { at: named.at, bytes: *bytes, file }
        });
        report.damaged = found.damaged.into_iter().map(|(_, what)| what).collect();
        report
    }

    /// Reads back what is there.
    fn look(&self, keep: usize, troubles: &mut Vec<String>) -> Result<Found, String> {
        // Only the last folder is made: what should lie on a disk that is not mounted is not put elsewhere.
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(said("making", &self.path, &error)),
            _ => {}
        }
        let mut found = Found { all: self.list(troubles)?, ..Found::default() };
        for named in &found.all {
            if found.good.len() >= keep {
                break;
            }
            let path = self.path.join(&named.name);
            match check(&path) {
                Ok(bytes) => found.good.push((named.clone(), bytes)),
                // Somebody has just removed it.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => found.damaged.push((named.clone(), format!("{}: {error}", path.display()))),
            }
        }
        Ok(found)
    }

    /// Those that bear our names, newest first. What a dead process left half written is removed.
    fn list(&self, troubles: &mut Vec<String>) -> Result<Vec<Named>, String> {
        let listing = |error: io::Error| said("listing", &self.path, &error);
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            if let Some(at) = self.time_of(&name) {
                all.push(Named { at, name });
            } else if name.strip_suffix(UNFINISHED).and_then(|name| self.time_of(name)).is_some() {
                self.remove(&name, troubles);
            }
        }
        all.sort_unstable_by(|one, other| other.cmp(one));
        Ok(all)
    }

    /// The time in a name of ours.
    fn time_of(&self, name: &str) -> Option<WallTime> {
        let rest = name.strip_prefix("holdfast-")?.strip_prefix(&self.region)?.strip_prefix('-')?;
        let (time, rest) = rest.split_at_checked(TIME_BYTES)?;
        let index = rest.strip_prefix('-')?.strip_suffix(".snap")?;
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        WallTime::from_basic_utc(time).filter(|_| is_index)
    }

    /// Writes one and reads it back.
    fn take(&self, found: &Found, state: &State, meta: Meta, at: WallTime) -> Result<(Named, u64), String> {
        self.has_room(0)?;
        let index = meta.index;
        let packed = archive::write(meta, || snapshot::write(state));
        let packed = packed.map_err(|error| format!("{}: {error}", self.path.display()))?;
        let bytes: u64 = packed.pieces.iter().map(|piece| piece.len() as u64).sum();
        self.has_room(bytes)?;
        // The order of the names is that in which they were taken, also when the calendar was set back.
        let after = found.all.first().map(|newest| newest.at.unix_nanos().saturating_add(ONE_SECOND_NANOS));
        let at = WallTime::from_unix_nanos(after.unwrap_or(i64::MIN).max(at.unix_nanos()));
        let name = format!("holdfast-{}-{}-{index}.snap", self.region, at.basic_utc());
        let (path, unfinished) = (self.path.join(&name), self.path.join(format!("{name}{UNFINISHED}")));
        let written = write(&unfinished, &packed.pieces).map_err(|error| said("writing", &unfinished, &error));
        let renamed = written
            .and_then(|()| fs::rename(&unfinished, &path).map_err(|error| said("renaming", &unfinished, &error)));
        if let Err(error) = renamed {
            // A full disk gets its room back; the error that counts is the first.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
        let sound = sync_folder(&self.path).and_then(|()| {
            let read = read(&path).and_then(|held| check_bytes(&held).map(|()| held));
            let read = read.map_err(|error| format!("reading back {}: {error}", path.display()))?;
            let same = digest(&SHA256, &read).as_ref() == packed.sha256;
            same.then_some(()).ok_or_else(|| format!("reading back {}: other bytes than were written", path.display()))
        });
        if let Err(error) = sound {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok((Named { at: self.time_of(&name).unwrap_or(at), name }, bytes))
    }

    /// Backups never take the room that the floor keeps free (R8.17).
    fn has_room(&self, bytes: u64) -> Result<(), String> {
        let Some(free) = free_bytes(&self.path) else { return Ok(()) };
        if free >= self.floor_bytes.saturating_add(bytes) {
            return Ok(());
        }
        let floor = self.floor_bytes;
        let path = self.path.display();
        Err(format!("{path}: {free} bytes are free on its disk; {bytes} are needed, and {floor} are kept free"))
    }

    /// Removes what is older than as many good ones as are kept. One that was found damaged just now stays for another
    /// round, for somebody to look at.
    fn remove_old(&self, found: &mut Found, keep: usize, troubles: &mut Vec<String>) {
        found.good.truncate(keep);
        let Some((oldest, _)) = found.good.get(keep.saturating_sub(1)) else { return };
        for old in found.all.iter().filter(|one| *one < oldest) {
            if found.damaged.iter().all(|(damaged, _)| damaged != old) {
                self.remove(&old.name, troubles);
            }
        }
    }

    fn remove(&self, name: &str, troubles: &mut Vec<String>) {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => troubles.push(said("removing", &path, &error)),
            _ => {}
        }
    }
}

fn said(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}

fn write(path: &Path, pieces: &[impl AsRef<[u8]>]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    for piece in pieces {
        file.write_all(piece.as_ref())?;
    }
    file.sync_all()
}

/// The size of a backup that a restore would take.
fn check(path: &Path) -> io::Result<u64> {
    let bytes = read(path)?;
    check_bytes(&bytes)?;
    Ok(bytes.len() as u64)
}

fn check_bytes(bytes: &[u8]) -> io::Result<()> {
    look_through(bytes).map(drop).map_err(io::Error::other)
}

/// Reads a file, as far as the system can be asked to from the disk and not from what it remembers of it.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    // Whoever does not support it gives what it has.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let most = u64::try_from(MAX_ARCHIVE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "backup_folder_tests.rs"]
mod tests;
