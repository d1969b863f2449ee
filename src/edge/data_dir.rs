//! The data directory of a server: who may use it, and what it held when the process began.
//!
//! ```text
//! <data_dir>/format                  the version of all this
//! <data_dir>/lock                    held while a process uses the directory
//! <data_dir>/raft/                   the log
//! <data_dir>/snapshots/              the newest two snapshots
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::base::id::{Index, Term};
use crate::consensus::{Recovered, SnapshotMeta};
use crate::edge::format;
use crate::edge::log_store::{RaftEngineLog, make_folder};
use crate::edge::snapshots::{self, SnapshotFiles};
use crate::state::State;

/// An open data directory.
pub struct DataDir {
    /// The log, ready for more.
    pub log: RaftEngineLog,
    /// Where snapshots are written.
    pub snapshots: SnapshotFiles,
    /// What the replica begins with.
    pub recovered: Recovered,
    /// What was wrong and could be helped; for the operator.
    pub warnings: Vec<String>,
    /// Keeps other processes out: to be dropped after the log, or to end with the process.
    pub lock: DataDirLock,
}

impl DataDir {
    /// Opens the directory, or makes an empty one.
    ///
    /// A newest snapshot that is damaged is set aside for the one before, when the log reaches back to that.
    ///
    /// # Errors
    /// Another process uses it, it is of a later format, a disk that fails, or damage that cannot be helped: says which file, and where.
    pub fn open(path: &Path) -> Result<DataDir, String> {
        make_folder(path)?;
        format::check(path)?;
        let lock = DataDirLock::take(path)?;
        format::check_and_mark(path)?;
        let snapshots = SnapshotFiles::open(path)?;
        let mut log = RaftEngineLog::open(path)?;
        let mut warnings = Vec::new();
        let recovered = recover(&snapshots, &mut log, &mut warnings)?;
        Ok(DataDir { log, snapshots, recovered, warnings, lock })
    }
}

fn recover(files: &SnapshotFiles, log: &mut RaftEngineLog, warnings: &mut Vec<String>) -> Result<Recovered, String> {
    let mut set_aside = Vec::new();
    let mut snapshot = None;
    for path in files.list()? {
        match files.read(&path) {
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
    let (index, term) =
        snapshot.as_ref().map_or((Index(0), Term(0)), |(meta, _): &(SnapshotMeta, State)| (meta.index, meta.term));
    let entries = log.entries_behind(index, term).and_then(|entries| {
        // What is left must hold all that the damaged snapshots did.
        let reaches = index.0.max(entries.last().map_or(0, |entry| entry.index.0));
        let lost = set_aside.iter().filter_map(|path| snapshots::parse_name(path)).map(|(_, index)| index).max();
        if lost.is_none_or(|lost| reaches >= lost) {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::base::id::{ReplicaId, Term};
    use crate::consensus::{HardState, Log, LogEntry, Persist, SnapshotMeta};
    use crate::wire::entry::{Command, Entry};

    /// Entries 1 to 30, snapshots at 10 and 20, the log cut up to `cut`.
    fn filled(cut: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut dir = DataDir::open(folder.path()).unwrap();
        let mut state = State::new();
        for index in 1..=30 {
            let entry = Entry { time_unix_nanos: 1, session: None, command: Command::Noop };
            let data = entry.encode();
            let hard_state = Some(HardState { term: Term(1), vote: ReplicaId(1), commit: Index(index - 1) });
            let logged = LogEntry { index: Index(index), term: Term(1), kind: 0, data };
            dir.log.persist(&Persist { ticket: index, entries: vec![logged], hard_state }).unwrap();
            state.apply(Index(index), Term(1), &entry);
            if index % 10 == 0 && index < 30 {
                let meta = SnapshotMeta { index: Index(index), term: Term(1), ..SnapshotMeta::default() };
                dir.snapshots.write(&meta, &state).unwrap();
            }
        }
        if cut > 0 {
            dir.log.compact(Index(cut)).unwrap();
        }
        folder
    }

    fn damage(folder: &Path, name: &str) {
        let path = folder.join("snapshots").join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
    }

    fn found(folder: &Path) -> Result<(u64, usize, usize), String> {
        let dir = DataDir::open(folder)?;
        let index = dir.recovered.snapshot.as_ref().map_or(0, |(meta, _)| meta.index.0);
        Ok((index, dir.recovered.entries.len(), dir.warnings.len()))
    }

    #[test]
    fn the_newest_snapshot_and_the_entries_after_it_come_back() {
        let folder = filled(10);
        assert_eq!(found(folder.path()), Ok((20, 10, 0)));
        assert_eq!(DataDir::open(folder.path()).unwrap().recovered.hard_state.commit, Index(29));
    }

    // R6.18: without a service manager too.
    #[test]
    fn a_folder_that_is_made_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("above/data");
        DataDir::open(&path).unwrap();
        for made in [&path, &path.join("raft"), &path.join("snapshots")] {
            assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
        }
    }

    // Reliability goal 15
    #[test]
    fn a_damaged_snapshot_is_made_up_for_only_as_far_as_the_log_reaches() {
        let folder = filled(10);
        damage(folder.path(), "1-20.snap");
        assert_eq!(found(folder.path()), Ok((10, 20, 2)));
        assert!(folder.path().join("snapshots/1-20.damaged").exists());
        assert_eq!(found(folder.path()), Ok((10, 20, 0)), "it was set aside");
        damage(folder.path(), "1-10.snap");
        let why = found(folder.path()).unwrap_err();
        assert!(why.contains("1-10.snap is damaged at byte ") && why.contains("begins at entry 11"), "{why}");

        let folder = filled(20);
        damage(folder.path(), "1-20.snap");
        let why = found(folder.path()).unwrap_err();
        assert!(why.contains("1-20.snap is damaged at byte ") && why.contains("begins at entry 21"), "{why}");
        assert!(folder.path().join("snapshots/1-20.snap").exists(), "and nothing was moved");

        let folder = filled(0);
        damage(folder.path(), "1-20.snap");
        damage(folder.path(), "1-10.snap");
        assert_eq!(found(folder.path()), Ok((0, 30, 4)), "the log alone is enough");
    }

    #[test]
    fn a_log_that_is_gone_does_not_make_up_for_a_damaged_snapshot() {
        let folder = filled(10);
        damage(folder.path(), "1-20.snap");
        fs::remove_dir_all(folder.path().join("raft")).unwrap();
        assert!(found(folder.path()).unwrap_err().contains("1-20.snap"));
    }

    #[test]
    fn two_processes_never_share_a_directory() {
        let folder = tempfile::tempdir().unwrap();
        let first = DataDir::open(folder.path()).unwrap();
        let why = found(folder.path()).unwrap_err();
        assert!(why.contains(&format!("in use by process {}", std::process::id())), "{why}");
        drop(first);
        assert!(found(folder.path()).is_ok());
    }
}
