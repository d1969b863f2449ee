//! The data directory of a server: who may use it, and what it held when the process began.
//!
//! ```text
//! <data_dir>/lock                    held while a process uses the directory
//! <data_dir>/raft/                   the log
//! <data_dir>/snapshots/              the newest two snapshots
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::base::id::Index;
use crate::consensus::Recovered;
use crate::edge::log_store::{RaftEngineLog, make_folder};
use crate::edge::snapshots::SnapshotFiles;
use crate::state::State;

/// An open data directory. The lock is let go when this is dropped, or when the process ends.
pub struct DataDir {
    /// Keeps other processes out.
    pub lock: DataDirLock,
    /// The log, ready for more.
    pub log: RaftEngineLog,
    /// Where snapshots are written.
    pub snapshots: SnapshotFiles,
    /// What the replica begins with.
    pub recovered: Recovered,
    /// What was wrong and could be helped; for the operator.
    pub warnings: Vec<String>,
}

impl DataDir {
    /// Opens the directory, or makes an empty one.
    ///
    /// A newest snapshot that is damaged is set aside for the one before, when the log reaches back to that.
    ///
    /// # Errors
    /// Another process uses it, a disk that fails, or damage that cannot be helped: says which file, and where.
    pub fn open(path: &Path) -> Result<DataDir, String> {
        make_folder(path)?;
        let lock = DataDirLock::take(path)?;
        let snapshots = SnapshotFiles::open(path)?;
        let mut log = RaftEngineLog::open(path)?;
        let mut warnings = Vec::new();
        let recovered = recover(&snapshots, &mut log, &mut warnings)?;
        Ok(DataDir { lock, log, snapshots, recovered, warnings })
    }
}

fn recover(
    snapshots: &SnapshotFiles,
    log: &mut RaftEngineLog,
    warnings: &mut Vec<String>,
) -> Result<Recovered, String> {
    let mut set_aside = Vec::new();
    let mut snapshot = None;
    for path in snapshots.list()? {
        match snapshots.read(&path) {
            Ok(found) => {
                snapshot = Some(found);
                break;
            }
            Err(why) => {
                warnings.push(why);
                set_aside.push(path);
            }
        }
    }
    let index = snapshot.as_ref().map_or(Index(0), |(meta, _): &(_, State)| meta.index);
    let entries = log.entries_after(index).and_then(|entries| {
        // Without its newest snapshot, the log must itself hold all that was ever committed.
        let reaches = index.0.max(entries.last().map_or(0, |entry| entry.index.0));
        if set_aside.is_empty() || reaches >= log.hard_state().commit.0 && reaches > 0 {
            return Ok(entries);
        }
        Err(format!("the log ends at entry {reaches}"))
    });
    let entries = entries.map_err(|why| match warnings.first() {
        Some(damage) => format!("{damage}; what is left does not make up for it: {why}"),
        None => why,
    })?;
    for path in set_aside {
        let aside = path.with_extension("damaged");
        fs::rename(&path, &aside).map_err(|e| format!("renaming {}: {e}", path.display()))?;
        warnings.push(format!("{} was set aside; the log makes up for it", aside.display()));
    }
    Ok(Recovered { snapshot, entries, hard_state: log.hard_state() })
}

/// The lock of a data directory: two processes never share one.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Takes the lock `<data_dir>/lock`, and writes this process's id into it.
    ///
    /// # Errors
    /// Another process holds it: says which, when it is known. Or whatever the disk said.
    pub fn take(data_dir: &Path) -> Result<DataDirLock, String> {
        let path = data_dir.join("lock");
        let said = |e: std::io::Error| format!("the lock {}: {e}", path.display());
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(said)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(held(data_dir, &mut file)),
            Err(e) => return Err(said(e.into())),
        }
        file.set_len(0).map_err(said)?;
        file.seek(SeekFrom::Start(0)).map_err(said)?;
        writeln!(file, "{}", std::process::id()).map_err(said)?;
        Ok(DataDirLock { _file: file })
    }
}

fn held(data_dir: &Path, file: &mut File) -> String {
    let mut text = String::new();
    let known = file.take(32).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let holder = known.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    format!("the data directory {} is in use by {holder}", data_dir.display())
}
