//! Snapshots on disk: `<data_dir>/snapshots/<term>-<index>.snap`, the newest two.
//!
//! A file is written under another name, synced, renamed, and its folder synced, so that a name that ends in `.snap`
//! stands for a whole file. An older one is removed only when the new one is in place.
//!
//! ```text
//! "HFSNAP1\n"   u32 length of meta   meta   CRC-32C of all so far   chunks of the state, each with its own
//! meta: u64 index, u64 term, u32 voters, u64 each, u32 learners, u64 each (all little-endian)
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::base::crc32c::crc32c;
use crate::base::id::{Index, ReplicaId, Term};
use crate::consensus::SnapshotMeta;
use crate::edge::log_store::{make_folder, sync_folder};
use crate::state::State;
use crate::state::snapshot::{self, SnapshotError};

/// Begins each file.
const MAGIC: &[u8; 8] = b"HFSNAP1\n";

/// Bytes of the largest meta that is read.
const MAX_META_BYTES: usize = 64 * 1024;

/// Members of the largest group that is read.
const MAX_MEMBERS: u32 = 1024;

/// How many snapshots are kept.
const KEPT: usize = 2;

/// The snapshots of one server.
#[derive(Clone, Debug)]
pub struct SnapshotFiles {
    folder: PathBuf,
}

impl SnapshotFiles {
    /// Opens the folder, or makes it, and removes files whose writing was cut short.
    ///
    /// # Errors
    /// Whatever the disk said, with the path.
    pub fn open(data_dir: &Path) -> Result<SnapshotFiles, String> {
        let folder = data_dir.join("snapshots");
        make_folder(&folder)?;
        let files = SnapshotFiles { folder };
        for path in files.list_paths()? {
            if path.extension().is_some_and(|kind| kind == "tmp") {
                fs::remove_file(&path).map_err(|e| said("removing", &path, &e))?;
            }
        }
        Ok(files)
    }

    /// The snapshots there are, newest first.
    ///
    /// # Errors
    /// Whatever the disk said, with the path.
    pub fn list(&self) -> Result<Vec<PathBuf>, String> {
        let mut found: Vec<(u64, u64, PathBuf)> = Vec::new();
        for path in self.list_paths()? {
            if let Some((term, index)) = parse_name(&path) {
                found.push((index, term, path));
            }
        }
        found.sort_unstable();
        Ok(found.into_iter().rev().map(|(_, _, path)| path).collect())
    }

    /// Writes a snapshot, and removes all but the newest two. All is synced when it returns.
    ///
    /// # Errors
    /// Whatever the disk said, with the path. The snapshots that were there before still are.
    pub fn write(&self, meta: &SnapshotMeta, state: &State) -> Result<(), String> {
        let path = self.folder.join(format!("{}-{}.snap", meta.term, meta.index));
        let temporary = path.with_extension("tmp");
        let written = write_file(&temporary, meta, state);
        if let Err(e) = written {
            // A full disk gets its space back; the error that counts is the first.
            let _ = fs::remove_file(&temporary);
            return Err(said("writing", &temporary, &e));
        }
        fs::rename(&temporary, &path).map_err(|e| said("renaming", &temporary, &e))?;
        sync_folder(&self.folder)?;
        for old in self.list()?.into_iter().skip(KEPT) {
            match fs::remove_file(&old) {
                // A leader's snapshot and one of this server's own may be written at the same time.
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(said("removing", &old, &e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// It is damaged: says which file and where. Or whatever the disk said.
    pub fn read(&self, path: &Path) -> Result<(SnapshotMeta, State), String> {
        let bytes = fs::read(path).map_err(|e| said("reading", path, &e))?;
        let damaged = |byte: u64, what: &str| format!("{} is damaged at byte {byte}: {what}", path.display());
        let (meta, head) = read_head(&bytes).map_err(|(byte, what)| damaged(byte, what))?;
        if parse_name(path) != Some((meta.term.0, meta.index.0)) {
            return Err(damaged(0, "it holds another snapshot than its name says"));
        }
        let chunks = bytes.get(head..).unwrap_or_default();
        let state = snapshot::read(chunks).map_err(|e| match e {
            SnapshotError::Damaged { chunk, offset, what } => {
                damaged(offset + head as u64, &format!("chunk {chunk}: {what}"))
            }
            SnapshotError::Version(version) => {
                format!("{} is of version {version}, which this build does not know", path.display())
            }
            SnapshotError::Section(_) => format!("{}: {e}", path.display()),
            SnapshotError::Truncated => damaged(bytes.len() as u64, "it ends early"),
        })?;
        if state.index() != meta.index {
            return Err(damaged(head as u64, &format!("its state is at entry {}", state.index())));
        }
        Ok((meta, state))
    }

    fn list_paths(&self) -> Result<Vec<PathBuf>, String> {
        let listing = fs::read_dir(&self.folder).map_err(|e| said("listing", &self.folder, &e))?;
        listing.map(|entry| entry.map(|e| e.path()).map_err(|e| said("listing", &self.folder, &e))).collect()
    }
}

fn said(doing: &str, path: &Path, error: &io::Error) -> String {
    format!("{doing} {}: {error}", path.display())
}

/// Term and index of the snapshot that a file is named after.
pub(crate) fn parse_name(path: &Path) -> Option<(u64, u64)> {
    if path.extension()? != "snap" {
        return None;
    }
    let (term, index) = path.file_stem()?.to_str()?.split_once('-')?;
    Some((term.parse().ok()?, index.parse().ok()?))
}

fn write_file(path: &Path, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    out.write_all(&head(meta))?;
    for chunk in snapshot::write(state) {
        out.write_all(&chunk)?;
    }
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()
}

fn head(meta: &SnapshotMeta) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&meta.index.0.to_le_bytes());
    body.extend_from_slice(&meta.term.0.to_le_bytes());
    for members in [&meta.voters, &meta.learners] {
        let count = u32::try_from(members.len()).expect("a group of raft has few members");
        body.extend_from_slice(&count.to_le_bytes());
        members.iter().for_each(|id| body.extend_from_slice(&id.0.to_le_bytes()));
    }
    let len = u32::try_from(body.len()).expect("a group of raft has few members");
    let mut bytes = [MAGIC.as_slice(), &len.to_le_bytes(), &body].concat();
    let sum = crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// The meta, and where the chunks begin; or where it is damaged, and how.
fn read_head(bytes: &[u8]) -> Result<(SnapshotMeta, usize), (u64, &'static str)> {
    let mut rest = bytes;
    if take::<8>(&mut rest) != Some(*MAGIC) {
        return Err((0, "it does not begin as a snapshot does"));
    }
    let len = take(&mut rest).map(u32::from_le_bytes).ok_or((8, "it ends early"))?;
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_META_BYTES).ok_or((8, "its head is too long"))?;
    let end = MAGIC.len() + 4 + len;
    let (Some(body), Some(sum)) = (bytes.get(12..end), bytes.get(end..end + 4)) else {
        return Err((12, "it ends early"));
    };
    if crc32c(bytes.get(..end).unwrap_or_default()).to_le_bytes() != sum {
        return Err((12, "the checksum of its head is another"));
    }
    let meta = read_meta(body).ok_or((12, "its head makes no sense"))?;
    Ok((meta, end + 4))
}

fn read_meta(mut body: &[u8]) -> Option<SnapshotMeta> {
    let body = &mut body;
    let index = Index(u64::from_le_bytes(take(body)?));
    let term = Term(u64::from_le_bytes(take(body)?));
    let mut members = || -> Option<Vec<ReplicaId>> {
        let count = u32::from_le_bytes(take(body)?);
        if count > MAX_MEMBERS {
            return None;
        }
        (0..count).map(|_| take(body).map(|id| ReplicaId(u64::from_le_bytes(id)))).collect()
    };
    let (voters, learners) = (members()?, members()?);
    body.is_empty().then_some(SnapshotMeta { index, term, voters, learners })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::entry::{Command, Entry};

    fn state(index: u64) -> State {
        let mut state = State::new();
        for at in 1..=index {
            let command =
                Command::SigningKeyAdd { key_id: format!("key-{at}"), public_key: vec![7; 32], create_time: 1 };
            state.apply(Index(at), Term(2), &Entry { time_unix_nanos: 5, session: None, command });
        }
        state
    }

    fn meta(index: u64) -> SnapshotMeta {
        let ids = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
        SnapshotMeta { index: Index(index), term: Term(2), voters: ids(&[1, 2]), learners: ids(&[9]) }
    }

    #[test]
    fn the_newest_two_are_kept_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        assert!(files.list().unwrap().is_empty());
        for index in [1, 2, 10] {
            files.write(&meta(index), &state(index)).unwrap();
        }
        fs::write(folder.path().join("snapshots/3-11.tmp"), b"cut short").unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        let names: Vec<_> = files.list().unwrap().iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        assert_eq!(names, ["2-10.snap", "2-2.snap"]);
        assert_eq!(fs::read_dir(folder.path().join("snapshots")).unwrap().count(), 2);
        let (found, root) = files.read(&files.list().unwrap()[0]).unwrap();
        assert_eq!((found, root.digest()), (meta(10), state(10).digest()));
    }

    // Reliability goal 15
    #[test]
    fn every_flipped_byte_and_every_missing_end_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        files.write(&meta(3), &state(3)).unwrap();
        let path = files.list().unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            let why = files.read(&path).map(|_| ()).unwrap_err();
            assert!(why.contains("2-3.snap is damaged at byte ") || why.contains("is of version"), "{at}: {why}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(files.read(&path).is_err(), "{at} bytes of {}", whole.len());
        }
        fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
        assert!(files.read(&path).is_err(), "nothing follows the end");
    }

    #[test]
    fn a_snapshot_under_another_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        files.write(&meta(3), &state(3)).unwrap();
        let other = folder.path().join("snapshots/2-4.snap");
        fs::rename(files.list().unwrap().remove(0), &other).unwrap();
        assert!(files.read(&other).is_err());
    }

    #[test]
    fn a_disk_that_refuses_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::open(folder.path()).unwrap();
        files.write(&meta(3), &state(3)).unwrap();
        // A folder where the temporary file is to be.
        fs::create_dir(folder.path().join("snapshots/2-4.tmp")).unwrap();
        let why = files.write(&meta(4), &state(4)).unwrap_err();
        assert!(why.contains("2-4.tmp"), "{why}");
        assert!(files.read(&files.list().unwrap()[0]).is_ok());
    }
}
