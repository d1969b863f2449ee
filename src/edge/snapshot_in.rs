//! A snapshot that comes in chunks: kept in a file beside those in force until it is whole, then read and checked.
//!
//! On one thread, so that no disk holds up the loop. What is in force is never touched: that is the consensus thread's.
//! The files end in `.tmp`; what a dead process left of them is removed when the folder is opened.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::state::State;
use crate::state::snapshot;

use super::inbox::{Post, Told};

/// Chunks that may wait for the disk.
const WAITING_MAX: usize = 128;
/// Snapshots that come in at once; a server has one leader, and perhaps one before it.
const INCOMING_MAX: usize = 4;

/// What is to be done.
#[derive(Debug)]
enum Wish {
    Keep { ticket: u64, number: u32, bytes: Vec<u8>, last: bool },
    Forget(u64),
}

/// The thread, from outside. It ends with this value.
#[derive(Debug)]
pub struct SnapshotKeeper {
    wishes: Sender<Wish>,
}

impl SnapshotKeeper {
    /// Starts the thread; the files are made in `<data_dir>/snapshots`.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub fn start(data_dir: &Path, post: &Post) -> io::Result<SnapshotKeeper> {
        let (wishes, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        let mut keeper = Keeper { folder: data_dir.join("snapshots"), incoming: BTreeMap::new() };
        let post = post.clone();
        thread::Builder::new().name("snapshot-in".to_owned()).spawn(move || keeper.run(&receiver, &post))?;
        Ok(SnapshotKeeper { wishes })
    }

    /// Keeps a chunk. The last one, and one that cannot be kept, is answered with [`Told::SnapshotWhole`].
    ///
    /// # Errors
    /// The disk is too slow: the snapshot is to be begun anew.
    pub(super) fn keep(&self, ticket: u64, number: u32, bytes: Vec<u8>, last: bool) -> Result<(), String> {
        let kept = self.wishes.try_send(Wish::Keep { ticket, number, bytes, last });
        kept.map_err(|_| "the disk takes its chunks too slowly".to_owned())
    }

    /// Forgets what was kept of one. True when it could be asked for.
    pub(super) fn forget(&self, ticket: u64) -> bool {
        self.wishes.try_send(Wish::Forget(ticket)).is_ok()
    }
}

/// A snapshot that is not whole.
struct Incoming {
    path: PathBuf,
    /// Gone once something went wrong: what still comes of it is thrown away.
    file: Option<File>,
    /// The chunk that comes next.
    next: u32,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // One that is not there is as good as removed.
        let _ = fs::remove_file(&self.path);
    }
}

struct Keeper {
    folder: PathBuf,
    incoming: BTreeMap<u64, Incoming>,
}

impl Keeper {
    fn run(&mut self, wishes: &Receiver<Wish>, post: &Post) {
        for wish in wishes {
            let (ticket, result) = match wish {
                Wish::Keep { ticket, number, bytes, last } => (ticket, self.keep(ticket, number, &bytes, last)),
                Wish::Forget(ticket) => {
                    self.incoming.remove(&ticket);
                    continue;
                }
            };
            let Some(result) = result.transpose() else { continue };
            if !post.tell(Told::SnapshotWhole { ticket, result: result.map(Arc::new) }) {
                return;
            }
        }
    }

    /// The state, when this was the last chunk of it.
    fn keep(&mut self, ticket: u64, number: u32, bytes: &[u8], last: bool) -> Result<Option<State>, String> {
        if number == 0 {
            self.begin(ticket)?;
        }
        // What follows a failure that was told, or a snapshot that was forgotten, is nobody's.
        let Some(incoming) = self.incoming.get_mut(&ticket) else {
            return Err("its first chunks are not here any more".to_owned());
        };
        let Some(file) = &mut incoming.file else { return Ok(None) };
        if number < incoming.next {
            return Ok(None);
        }
        let path = incoming.path.clone();
        let written = if number == incoming.next {
            file.write_all(bytes).map_err(|error| format!("writing {}: {error}", path.display()))
        } else {
            Err(format!("chunk {number} came where {} was due", incoming.next))
        };
        if written.is_err() {
            incoming.file = None;
            // A full disk gets its room back.
            let _ = fs::remove_file(&path);
        }
        written?;
        incoming.next += 1;
        if !last {
            return Ok(None);
        }
        let state = read_whole(&path);
        self.incoming.remove(&ticket);
        state.map(Some)
    }

    fn begin(&mut self, ticket: u64) -> Result<(), String> {
        self.incoming.remove(&ticket);
        if self.incoming.len() >= INCOMING_MAX {
            // The oldest ticket is the one that somebody gave up without a word.
            self.incoming.pop_first();
        }
        let path = self.folder.join(format!("incoming-{ticket}.tmp"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = file.map_err(|error| format!("making {}: {error}", path.display()))?;
        self.incoming.insert(ticket, Incoming { path, file: Some(file), next: 0 });
        Ok(())
    }
}

fn read_whole(path: &Path) -> Result<State, String> {
    let bytes = fs::read(path).map_err(|error| format!("reading {}: {error}", path.display()))?;
    snapshot::read(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::snapshot_out::tests::large_state;
    use super::*;

    fn chunks() -> Vec<Vec<u8>> {
        snapshot::write(&large_state()).collect()
    }

    fn keeper() -> (tempfile::TempDir, Keeper) {
        let folder = tempfile::tempdir().unwrap();
        let keeper = Keeper { folder: folder.path().to_owned(), incoming: BTreeMap::new() };
        (folder, keeper)
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path()).unwrap().count()
    }

    fn give(keeper: &mut Keeper, ticket: u64, chunks: &[Vec<u8>], from: usize) -> Result<Option<State>, String> {
        let mut last = Ok(None);
        for (number, chunk) in chunks.iter().enumerate().skip(from) {
            last = keeper.keep(ticket, number as u32, chunk, number + 1 == chunks.len());
            if number + 1 < chunks.len() {
                assert!(matches!(last, Ok(None)), "chunk {number}");
            }
        }
        last
    }

    #[test]
    fn chunks_become_the_state_and_leave_no_file() {
        let (folder, mut keeper) = keeper();
        let chunks = chunks();
        let (some, _) = chunks.split_at(3);
        some.iter()
            .enumerate()
            .for_each(|(at, chunk)| assert!(matches!(keeper.keep(1, at as u32, chunk, false), Ok(None))));
        assert_eq!(files(&folder), 1);
        // One that came twice changes nothing; the rest goes on from the middle.
        assert!(matches!(keeper.keep(1, 1, &chunks[1], false), Ok(None)));
        let state = give(&mut keeper, 1, &chunks, 3).unwrap().unwrap();
        assert_eq!(state.digest(), large_state().digest());
        assert_eq!(files(&folder), 0);
        // Another try from the beginning is another snapshot.
        assert!(give(&mut keeper, 1, &chunks, 0).unwrap().is_some());
    }

    // Reliability goal 15
    #[test]
    fn damage_and_gaps_are_told_and_nothing_is_left() {
        let (folder, mut keeper) = keeper();
        let whole = chunks();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at][50 % whole[at].len()] ^= 4;
            assert!(give(&mut keeper, 1, &damaged, 0).is_err(), "{at}");
            assert_eq!(files(&folder), 0);
        }
        keeper.keep(1, 0, &whole[0], false).unwrap();
        assert_eq!(keeper.keep(1, 2, &whole[2], false).err().unwrap(), "chunk 2 came where 1 was due");
        assert_eq!(files(&folder), 0);
        assert!(matches!(keeper.keep(1, 3, &whole[3], true), Ok(None)), "a failure is told once");
        assert!(keeper.keep(2, 7, &whole[0], false).err().unwrap().contains("not here any more"));
    }

    #[test]
    fn what_nobody_ends_is_bounded() {
        let (folder, mut keeper) = keeper();
        let whole = chunks();
        for ticket in 0..20 {
            keeper.keep(ticket, 0, &whole[0], false).unwrap();
        }
        assert_eq!(files(&folder), INCOMING_MAX);
        drop(keeper);
        assert_eq!(files(&folder), 0);
    }
}
