//! The files under raft-engine: names the one that failed, never syncs again after a sync that failed, and refuses
//! to cut off what was promised.
//!
//! raft-engine cuts its newest file at the first record it cannot read. That is right after a power cut, which tears
//! the record that was being written; but a damaged record with whole ones behind it was on disk once, and cutting
//! there would lose acknowledged writes in silence. Each record therefore carries a [`Stamp`] with a number that
//! rises by one, and a cut that would take more than the one record being written is an error (reliability goal 15).

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use crate::base::crc32c::crc32c;
use crate::base::id::{Index, ReplicaId, Term};
use crate::consensus::HardState;

type PlainHandle = <DefaultFileSystem as FileSystem>::Handle;
type PlainFile = <DefaultFileSystem as FileSystem>::Reader;

/// Begins a stamp; long enough to occur nowhere else by chance.
const STAMP_MAGIC: &[u8; 16] = b"holdfast:stamp:1";

/// Length of a stamp: magic, four numbers, checksum.
const STAMP_BYTES: usize = 16 + 4 * 8 + 4;

/// Where the first record begins; what is before it heads the file: a magic, a version, an alignment.
const FILE_HEAD_BYTES: u64 = 69;

/// Where the alignment stands in the head. It is 0, and the engine would not notice another.
const ALIGNMENT_AT: u64 = 61;

/// What every record of the log carries: its number and the hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Counted from 1, without a gap.
    pub(crate) number: u64,
    pub(crate) hard_state: HardState,
}

impl Stamp {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STAMP_BYTES);
        bytes.extend_from_slice(STAMP_MAGIC);
        for number in [self.number, self.hard_state.term.0, self.hard_state.vote.0, self.hard_state.commit.0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The stamp that `bytes` begin with, when they do.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Stamp> {
        let bytes = bytes.get(..STAMP_BYTES)?;
        let (body, sum) = bytes.split_at_checked(STAMP_BYTES - 4)?;
        if !body.starts_with(STAMP_MAGIC) || crc32c(body).to_le_bytes() != sum {
            return None;
        }
        let number = |at: usize| body.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (term, vote, commit) = (Term(number(24)?), ReplicaId(number(32)?), Index(number(40)?));
        Some(Stamp { number: number(16)?, hard_state: HardState { term, vote, commit } })
    }

    /// The numbers of all whole stamps in `bytes`.
    fn numbers_in(bytes: &[u8]) -> impl Iterator<Item = u64> {
        let places = bytes.windows(STAMP_MAGIC.len()).enumerate();
        let places = places.filter(|(_, window)| *window == STAMP_MAGIC);
        places.filter_map(|(at, _)| Stamp::decode(bytes.get(at..)?)).map(|stamp| stamp.number)
    }
}

/// What all files of one log share.
#[derive(Default)]
struct Shared {
    opening: AtomicBool,
    /// Set by a sync that failed; nothing is synced afterwards.
    sync_failed: AtomicBool,
    trouble: Mutex<Option<String>>,
    /// The file and the place that were read last.
    last_read: Mutex<(PathBuf, u64)>,
}

impl Shared {
    /// Keeps the first trouble; what follows from it says less.
    fn note(&self, what: String) -> io::Error {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let first = trouble.get_or_insert(what);
        io::Error::other(first.clone())
    }

    fn failed(&self, doing: &str, path: &Path, error: io::Error) -> io::Error {
        let kind = error.kind();
        // raft-engine looks for a word in the text of a full disk; the kind keeps its meaning.
        let text = self.note(format!("{doing} {}: {error} ({kind})", path.display())).to_string();
        io::Error::new(kind, text)
    }
}

/// The file system that a log is opened with.
#[derive(Clone, Default)]
pub(crate) struct LogFiles {
    shared: Arc<Shared>,
}

impl LogFiles {
    /// For a log that is about to be opened: until [`LogFiles::opened`], a cut must not lose what was promised.
    pub(crate) fn opening() -> LogFiles {
        let files = LogFiles::default();
        files.shared.opening.store(true, Ordering::Relaxed);
        files
    }

    /// The log is open: from here on cuts are the engine's own business.
    pub(crate) fn opened(&self) {
        self.shared.opening.store(false, Ordering::Relaxed);
    }

    /// The first thing that went wrong, with its path.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file that was read last, and from which byte on.
    pub(crate) fn last_read(&self) -> (PathBuf, u64) {
        self.shared.last_read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wrap(&self, path: &Path, plain: io::Result<PlainHandle>, doing: &str) -> io::Result<LogHandle> {
        let plain = plain.map_err(|e| self.shared.failed(doing, path, e))?;
        Ok(LogHandle { plain: Arc::new(plain), path: path.to_owned(), shared: Arc::clone(&self.shared) })
    }
}

impl FileSystem for LogFiles {
    type Handle = LogHandle;
    type Reader = LogFile;
    type Writer = LogFile;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<LogHandle> {
        self.wrap(path.as_ref(), DefaultFileSystem.create(&path), "creating")
    }

    fn open<P: AsRef<Path>>(&self, path: P, perm: Permission) -> io::Result<LogHandle> {
        check_head(path.as_ref()).map_err(|why| self.shared.note(why))?;
        self.wrap(path.as_ref(), DefaultFileSystem.open(&path, perm), "opening")
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(&path).map_err(|e| self.shared.failed("deleting", path.as_ref(), e))
    }

    fn rename<P: AsRef<Path>>(&self, src_path: P, dst_path: P) -> io::Result<()> {
        let done = DefaultFileSystem.rename(&src_path, &dst_path);
        done.map_err(|e| self.shared.failed("renaming", src_path.as_ref(), e))
    }

    fn new_reader(&self, handle: Arc<LogHandle>) -> io::Result<LogFile> {
        let plain = DefaultFileSystem.new_reader(Arc::clone(&handle.plain))?;
        Ok(LogFile { plain, handle, at: 0 })
    }

    fn new_writer(&self, handle: Arc<LogHandle>) -> io::Result<LogFile> {
        let plain = DefaultFileSystem.new_writer(Arc::clone(&handle.plain))?;
        Ok(LogFile { plain, handle, at: 0 })
    }
}

/// An open file.
pub(crate) struct LogHandle {
    plain: Arc<PlainHandle>,
    path: PathBuf,
    shared: Arc<Shared>,
}

impl LogHandle {
    fn failed(&self, doing: &str, error: io::Error) -> io::Error {
        self.shared.failed(doing, &self.path, error)
    }
}

impl Handle for LogHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        if self.shared.opening.load(Ordering::Relaxed) {
            may_cut(&self.path, offset as u64).map_err(|why| self.shared.note(why))?;
        }
        Handle::truncate(&*self.plain, offset).map_err(|e| self.failed("truncating", e))
    }

    fn file_size(&self) -> io::Result<usize> {
        self.plain.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        // After a failed sync the kernel may have dropped the pages: a second one would succeed and mean nothing.
        if self.shared.sync_failed.load(Ordering::Relaxed) {
            return Err(self.shared.note("a sync failed before".to_owned()));
        }
        self.plain.sync().map_err(|e| {
            self.shared.sync_failed.store(true, Ordering::Relaxed);
            self.failed("syncing", e)
        })
    }
}

/// A place in an open file.
pub(crate) struct LogFile {
    plain: PlainFile,
    handle: Arc<LogHandle>,
    at: u64,
}

impl Read for LogFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut last = self.handle.shared.last_read.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != self.handle.path {
            last.0.clone_from(&self.handle.path);
        }
        last.1 = self.at;
        drop(last);
        let read = self.plain.read(buf).map_err(|e| self.handle.failed("reading", e))?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for LogFile {
    fn seek(&mut self, pos: SeekFrom) -> io::Result<u64> {
        self.at = self.plain.seek(pos).map_err(|e| self.handle.failed("seeking in", e))?;
        Ok(self.at)
    }
}

impl Write for LogFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.plain.write(buf).map_err(|e| self.handle.failed("writing", e))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.plain.flush()
    }
}

impl WriteExt for LogFile {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        WriteExt::truncate(&mut self.plain, offset).map_err(|e| self.handle.failed("truncating", e))
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.plain.allocate(offset, size)
    }
}

/// Checks what the engine reads of a file's head and does not check. A head that was never finished is its business.
fn check_head(path: &Path) -> Result<(), String> {
    let mut alignment = [0; 8];
    let file = fs::File::open(path).map_err(|e| format!("opening {}: {e}", path.display()))?;
    match file.read_exact_at(&mut alignment, ALIGNMENT_AT) {
        Ok(()) if alignment != [0; 8] => Err(format!("{} is damaged at byte {ALIGNMENT_AT}", path.display())),
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
        Err(e) => Err(format!("reading {}: {e}", path.display())),
    }
}

/// Whether the engine may cut `path` at `offset` because it cannot read on there: only if the cut takes nothing but
/// the one record that was being written.
fn may_cut(path: &Path, offset: u64) -> Result<(), String> {
    let damaged = |what: &str| format!("{} is damaged at byte {offset}: {what}", path.display());
    let read = |path: &Path| fs::read(path).map_err(|e| format!("reading {}: {e}", path.display()));
    let bytes = read(path)?;
    let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let (kept, cut) = bytes.split_at(at);
    let Some(newest_cut) = Stamp::numbers_in(cut).max() else { return Ok(()) };
    if offset < FILE_HEAD_BYTES {
        // The head of a file is synced before the first record is written behind it.
        return Err(damaged("its head cannot be read, but records follow it"));
    }
    let mut newest_kept = Stamp::numbers_in(kept).max();
    for other in other_log_files(path)? {
        if newer(&other, path) {
            return Err(damaged("a record cannot be read, but there is a newer file"));
        }
        newest_kept = newest_kept.max(Stamp::numbers_in(&read(&other)?).max());
    }
    if newest_cut > newest_kept.unwrap_or(0) + 1 {
        return Err(damaged("a record cannot be read, but later ones can"));
    }
    Ok(())
}

fn other_log_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    let listing = fs::read_dir(folder).map_err(|e| format!("listing {}: {e}", folder.display()))?;
    let mut others = Vec::new();
    for entry in listing {
        let other = entry.map_err(|e| format!("listing {}: {e}", folder.display()))?.path();
        let is_log = other.extension().is_some_and(|kind| kind == "raftlog" || kind == "rewrite");
        if is_log && other != path {
            others.push(other);
        }
    }
    Ok(others)
}

/// Whether `other` continues the same queue of files; their names are numbers of one width.
fn newer(other: &Path, path: &Path) -> bool {
    other.extension() == path.extension() && other.file_stem() > path.file_stem()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_and_no_flipped_one_does() {
        let hard_state = HardState { term: Term(3), vote: ReplicaId(1), commit: Index(77) };
        let stamp = Stamp { number: 12, hard_state };
        let bytes = stamp.encode();
        assert_eq!(bytes.len(), STAMP_BYTES);
        assert_eq!(Stamp::decode(&bytes), Some(stamp));
        for bit in 0..STAMP_BYTES * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::decode(&damaged), None, "bit {bit}");
        }
        for len in 0..STAMP_BYTES {
            assert_eq!(Stamp::decode(&bytes[..len]), None);
        }
        let row = [b"holdfast:st".to_vec(), bytes.clone(), vec![0; 9], bytes].concat();
        assert_eq!(Stamp::numbers_in(&row).collect::<Vec<_>>(), [12, 12]);
    }

    #[test]
    fn a_cut_takes_at_most_the_record_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("1.raftlog"), folder.path().join("2.raftlog"));
        let head = vec![b'h'; 100];
        let stamp = |number| Stamp { number, ..Stamp::default() }.encode();
        let write = |path: &Path, numbers: &[u64]| {
            let stamps: Vec<u8> = numbers.iter().flat_map(|number| stamp(*number)).collect();
            fs::write(path, [head.clone(), stamps].concat()).unwrap();
        };
        let at = |record: usize| (100 + record * STAMP_BYTES) as u64;

        write(&first, &[1, 2, 3]);
        assert_eq!(may_cut(&first, at(3)), Ok(()));
        assert_eq!(may_cut(&first, at(2)), Ok(()));
        assert!(may_cut(&first, at(1)).unwrap_err().contains("1.raftlog is damaged at byte 152"));
        assert!(may_cut(&first, 0).unwrap_err().contains("head"));

        // The stamp of the damaged record itself may be the damage.
        let mut bytes = fs::read(&first).unwrap();
        bytes[usize::try_from(at(1)).unwrap() + 20] ^= 1;
        fs::write(&first, bytes).unwrap();
        assert!(may_cut(&first, at(1)).is_err());

        write(&first, &[1, 2, 3]);
        write(&second, &[4, 5]);
        assert!(may_cut(&first, at(2)).unwrap_err().contains("newer file"));
        assert_eq!(may_cut(&second, at(1)), Ok(()));
        assert!(may_cut(&second, at(0)).is_err());
        fs::write(&second, &head).unwrap();
        assert_eq!(may_cut(&second, 0), Ok(()), "a head alone was never followed by anything");
    }
}
