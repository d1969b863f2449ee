//! The log on disk: raft-engine in `<data_dir>/raft`, one write and one sync for each [`Persist`].
//!
//! Read only when a process begins. Never used again after an error: what the kernel kept of it is not known.
//! (raft-engine 0.4.2; its files are watched by `log_files`.)

use std::fs;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::Entry;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use crate::base::id::{Index, Term};
use crate::consensus::log::{from_raft, to_raft};
use crate::consensus::{HardState, Log, LogEntry, Persist};
use crate::edge::files::make_private_folder;
use crate::edge::log_files::{LogFiles, Stamp};

/// raft-engine keeps many groups in one log; this daemon has one.
const GROUP: u64 = 1;

/// Where the stamp is kept, beside the entries.
const STAMP_KEY: &[u8] = b"stamp";

/// A file is closed, and the next one begun, at this size.
const FILE_BYTES: ReadableSize = ReadableSize::mb(16);

/// Files whose entries are all dropped are deleted once all of them are over this size together.
const PURGE_BYTES: ReadableSize = ReadableSize::mb(16);

/// The log of one server.
pub struct RaftEngineLog {
    /// Gone after an error.
    engine: Option<Engine<LogFiles>>,
    files: LogFiles,
    folder: PathBuf,
    /// Kept for its buffer.
    batch: LogBatch,
    stamp: Stamp,
}

impl RaftEngineLog {
    /// Opens the log in `<data_dir>/raft`, or makes an empty one. What a power cut tore off at the end is dropped.
    ///
    /// # Errors
    /// A disk that fails, or a log that is damaged where it was once whole: says which file, and where.
    pub fn open(data_dir: &Path) -> Result<RaftEngineLog, String> {
        let folder = data_dir.join("raft");
        make_folder(&folder)?;
        let files = LogFiles::opening();
        let opened = catch_unwind(AssertUnwindSafe(|| {
            Engine::open_with_file_system(config(&folder), Arc::new(files.clone())).map_err(|e| e.to_string())
        }));
        let engine = opened.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|e| {
            let (file, byte) = files.last_read();
            files.trouble().unwrap_or_else(|| format!("{} is damaged near byte {byte}: {e}", file.display()))
        })?;
        files.opened();
        sync_folder(&folder)?;
        let stamp = engine.get(GROUP, STAMP_KEY).unwrap_or_default();
        let stamp = if stamp.is_empty() {
            Stamp::default()
        } else {
            Stamp::decode(&stamp).ok_or_else(|| format!("{}: the stored state is damaged", folder.display()))?
        };
        Ok(RaftEngineLog { engine: Some(engine), files, folder, batch: LogBatch::default(), stamp })
    }

    /// The hard state stored last.
    pub fn hard_state(&self) -> HardState {
        self.stamp.hard_state
    }

    /// The entries after `index`, which a snapshot on disk holds (or 0).
    ///
    /// # Errors
    /// The log begins later, or is damaged; names the file.
    pub fn entries_after(&mut self, index: Index) -> Result<Vec<LogEntry>, String> {
        let engine = self.engine.as_ref().ok_or("the log failed before")?;
        let (Some(first), Some(last)) = (engine.first_index(GROUP), engine.last_index(GROUP)) else {
            return Ok(Vec::new());
        };
        if last < index.0 {
            // All of it is in the snapshot; entries appended behind it must not leave a gap.
            self.compact(index)?;
            return Ok(Vec::new());
        }
        if first > index.0 + 1 {
            return Err(format!("the log in {} begins at entry {first}", self.folder.display()));
        }
        let mut entries: Vec<Entry> = Vec::new();
        let read = catch_unwind(AssertUnwindSafe(|| {
            let fetched = engine.fetch_entries_to::<RaftEntries>(GROUP, index.0 + 1, last + 1, None, &mut entries);
            fetched.map_err(|e| e.to_string())
        }));
        read.unwrap_or_else(|panic| Err(panic_text(&*panic))).map_err(|e| {
            let (file, byte) = self.files.last_read();
            format!("{} is damaged in the record at byte {byte}: {e}", file.display())
        })?;
        Ok(entries.iter().map(from_raft).collect())
    }

    /// The entries after a snapshot's place. Those of a log that was about to be replaced by that snapshot when the
    /// process ended are dropped: they go on from another entry at its place, and were never agreed on.
    ///
    /// # Errors
    /// As [`RaftEngineLog::entries_after`].
    pub fn entries_behind(&mut self, index: Index, term: Term) -> Result<Vec<LogEntry>, String> {
        let engine = self.engine.as_ref().ok_or("the log failed before")?;
        let holds = index.0 > 0
            && engine.first_index(GROUP).is_some_and(|first| first <= index.0)
            && engine.last_index(GROUP).is_some_and(|last| last >= index.0);
        if holds {
            let mut entries = self.entries_after(Index(index.0 - 1))?;
            if entries.first().is_some_and(|entry| entry.term == term) {
                entries.remove(0);
                return Ok(entries);
            }
            self.begin_anew(self.stamp.hard_state)?;
            return Ok(Vec::new());
        }
        self.entries_after(index)
    }

    /// One record, one sync.
    fn write(&mut self, hard_state: Option<HardState>) -> Result<(), String> {
        let stamp = Stamp { number: self.stamp.number + 1, hard_state: hard_state.unwrap_or(self.stamp.hard_state) };
        let engine = self.engine.as_ref().ok_or("the log failed before")?;
        let batch = &mut self.batch;
        // raft-engine panics where a sync fails.
        let written = catch_unwind(AssertUnwindSafe(|| {
            batch.put(GROUP, STAMP_KEY.to_vec(), stamp.encode())?;
            engine.write(batch, true)
        }));
        match written {
            Ok(Ok(_)) if self.files.trouble().is_none() => {
                self.stamp = stamp;
                Ok(())
            }
            Ok(Ok(_)) => Err(self.fail("a write failed".to_owned())),
            Ok(Err(e)) => Err(self.fail(e.to_string())),
            Err(panic) => Err(self.fail(panic_text(&*panic))),
        }
    }

    /// Gives up the engine without closing its files: that would sync them again.
    fn fail(&mut self, why: String) -> String {
        if let Some(engine) = self.engine.take() {
            mem::forget(engine);
        }
        self.files.trouble().unwrap_or_else(|| format!("the log in {}: {why}", self.folder.display()))
    }
}

impl Log for RaftEngineLog {
    fn persist(&mut self, what: &Persist) -> Result<(), String> {
        let entries: Result<Vec<Entry>, String> = what.entries.iter().map(to_raft).collect();
        let added = entries
            .and_then(|entries| self.batch.add_entries::<RaftEntries>(GROUP, &entries).map_err(|e| e.to_string()));
        added.map_err(|e| self.fail(e))?;
        self.write(what.hard_state)
    }

    fn compact(&mut self, up_to: Index) -> Result<(), String> {
        self.batch.add_command(GROUP, Command::Compact { index: up_to.0 + 1 });
        self.write(None)?;
        let engine = self.engine.as_ref().ok_or("the log failed before")?;
        let purged = catch_unwind(AssertUnwindSafe(|| engine.purge_expired_files().map_err(|e| e.to_string())));
        match purged.unwrap_or_else(|panic| Err(panic_text(&*panic))) {
            Ok(_) => Ok(()),
            Err(why) => Err(self.fail(why)),
        }
    }

    fn begin_anew(&mut self, hard_state: HardState) -> Result<(), String> {
        // The stamp follows in the same record: either both happened or none.
        self.batch.add_command(GROUP, Command::Clean);
        self.write(Some(hard_state))
    }
}

/// How raft-engine finds an entry's index.
struct RaftEntries;

impl MessageExt for RaftEntries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

fn config(folder: &Path) -> Config {
    Config {
        dir: folder.to_string_lossy().into_owned(),
        // The watch over the files decides which tails may be cut.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        recovery_threads: 1,
        // The stamps must be readable in the files, and a compressor's tables are memory at rest.
        batch_compression_threshold: ReadableSize(0),
        target_file_size: FILE_BYTES,
        purge_threshold: PURGE_BYTES,
        // An old file's records would stand behind the new ones.
        enable_log_recycle: false,
        ..Config::default()
    }
}

/// What a panic said, when it said it in words.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// Makes a folder and what is above it, if they are missing: for their owner only, whatever the umask.
pub(crate) fn make_folder(folder: &Path) -> Result<(), String> {
    make_private_folder(folder).map_err(|e| format!("making the folder {}: {e}", folder.display()))
}

/// Syncs a folder, so that the names in it last.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), String> {
    let synced = fs::File::open(folder).and_then(|open| open.sync_all());
    synced.map_err(|e| format!("syncing the folder {}: {e}", folder.display()))
}

#[cfg(test)]
mod tests;
