//! A state as chunks, for a server that is far behind: encoded on a thread of its own, one chunk each time one is asked
//! for, so that never more than two of them are in memory.
//!
//! The same state gives the same chunks: a transfer that broke off goes on with the chunk after the last one that
//! arrived, which costs encoding what is skipped and not sending it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender};

use crate::state::State;
use crate::state::snapshot;

use super::inbox::{Post, Told};

/// Chunks of the snapshot's own format in one that is sent.
const PARTS_PER_CHUNK: usize = 2;
/// States that are encoded at once; a group has at most six that are behind.
const READERS_MAX: usize = 4;
/// States that wait for their turn.
const WAITING_MAX: usize = 16;

/// Wishes for chunks that may wait at a reader: the server asks for one at a time.
const WISHES_MAX: usize = 64;

/// One whose turn has not come.
#[derive(Debug)]
struct Waiting {
    ticket: u64,
    state: Arc<State>,
    from: u32,
    /// Chunks that were asked for.
    asked: usize,
}

/// All states that are being sent.
#[derive(Debug)]
pub(super) struct SnapshotReaders {
    post: Post,
    readers: BTreeMap<u64, Sender<()>>,
    waiting: VecDeque<Waiting>,
}

impl SnapshotReaders {
    pub(super) fn new(post: &Post) -> SnapshotReaders {
        SnapshotReaders { post: post.clone(), readers: BTreeMap::new(), waiting: VecDeque::new() }
    }

    /// Begins one, in the place of another with its ticket.
    pub(super) fn begin(&mut self, ticket: u64, state: Arc<State>, from: u32) {
        self.end(ticket);
        if self.waiting.len() >= WAITING_MAX {
            log::error!("too many snapshots are to be sent: ticket={ticket}");
            return;
        }
        self.waiting.push_back(Waiting { ticket, state, from, asked: 0 });
        self.start_waiting();
    }

    /// Asks for the next chunk; the loop is told [`Told::SnapshotChunk`].
    pub(super) fn next(&mut self, ticket: u64) {
        match self.readers.get(&ticket) {
            // A full channel means that as many chunks are on their way already.
            Some(reader) => {
                let _ = reader.try_send(());
            }
            None => {
                if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.ticket == ticket) {
                    waiting.asked = (waiting.asked + 1).min(WISHES_MAX);
                }
            }
        }
    }

    /// No more of it is wanted.
    pub(super) fn end(&mut self, ticket: u64) {
        self.readers.remove(&ticket);
        self.waiting.retain(|waiting| waiting.ticket != ticket);
        self.start_waiting();
    }

    fn start_waiting(&mut self) {
        while self.readers.len() < READERS_MAX {
            let Some(next) = self.waiting.pop_front() else { return };
            let (wishes, receiver) = crossbeam_channel::bounded(WISHES_MAX);
            for _ in 0..next.asked {
                let _ = wishes.try_send(());
            }
            let (post, ticket) = (self.post.clone(), next.ticket);
            let job = move || give_chunks(next.ticket, &next.state, next.from, &receiver, &post);
            match thread::Builder::new().name("snapshot-out".to_owned()).spawn(job) {
                Ok(_) => drop(self.readers.insert(ticket, wishes)),
                // Whoever waits for it gives it up in time and asks again.
                Err(error) => log::error!("a snapshot cannot be sent: error=\"{error}\""),
            }
        }
    }
}

/// Gives a chunk for each wish, until nobody wishes any more.
fn give_chunks(ticket: u64, state: &State, from: u32, wishes: &Receiver<()>, post: &Post) {
    let mut parts = snapshot::write(state);
    let mut chunks = std::iter::from_fn(|| join(&mut parts)).skip(from as usize).peekable();
    for (number, ()) in (from..).zip(wishes) {
        // After the end there is an empty chunk, so that a wish is always answered.
        let bytes = chunks.next().unwrap_or_default();
        let last = chunks.peek().is_none();
        if !post.tell(Told::SnapshotChunk { ticket, number, bytes, last }) || last {
            return;
        }
    }
}

fn join(parts: &mut impl Iterator<Item = Vec<u8>>) -> Option<Vec<u8>> {
    let mut chunk = parts.next()?;
    for part in parts.take(PARTS_PER_CHUNK - 1) {
        chunk.extend_from_slice(&part);
    }
    Some(chunk)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::inbox::Bell;
    use super::*;
    use crate::base::id::{Index, Term};
    use crate::wire::entry::server::ServerRecord;
    use crate::wire::entry::{Command, Entry};
    use crate::wire::raft::CHUNK_BYTES_MAX;
    use std::time::Duration;

    /// A state of several chunks.
    pub(in crate::edge) fn large_state() -> State {
        let mut state = State::new();
        for at in 1..=4000u64 {
            let id = format!("server-{at}");
            let command = Command::ServerUpsert(ServerRecord { id, name: "n".repeat(500), ..ServerRecord::default() });
            state.apply(Index(at), Term(2), &Entry { time_unix_nanos: 5, session: None, command });
        }
        state
    }

    fn inbox() -> (Post, Receiver<Told>, mio::Poll) {
        let poll = mio::Poll::new().unwrap();
        let bell = Arc::new(Bell::new(poll.registry(), mio::Token(0)).unwrap());
        let (post, told) = Post::new(bell);
        (post, told, poll)
    }

    fn take(told: &Receiver<Told>, wanted: u64) -> (u32, Vec<u8>, bool) {
        match told.recv_timeout(Duration::from_secs(60)).unwrap() {
            Told::SnapshotChunk { ticket, number, bytes, last } if ticket == wanted => (number, bytes, last),
            other => panic!("{other:?}"),
        }
    }

    fn all_from(from: u32) -> Vec<Vec<u8>> {
        let (post, told, _poll) = inbox();
        let mut readers = SnapshotReaders::new(&post);
        readers.begin(3, Arc::new(large_state()), from);
        let mut chunks = Vec::new();
        loop {
            assert!(told.is_empty(), "a chunk comes only when it is asked for");
            readers.next(3);
            let (number, bytes, last) = take(&told, 3);
            assert_eq!(number as usize, from as usize + chunks.len());
            chunks.push(bytes);
            if last {
                return chunks;
            }
        }
    }

    #[test]
    fn chunks_make_the_state_and_can_be_taken_from_the_middle_on() {
        let whole = all_from(0);
        assert!(whole.len() > 3 && whole.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
        let state = snapshot::read(&whole.concat()).unwrap();
        assert_eq!(state.digest(), large_state().digest());
        for from in 1..whole.len() {
            assert_eq!(all_from(from as u32), whole[from..], "from {from}");
        }
        assert_eq!(all_from(whole.len() as u32 + 5), [Vec::<u8>::new()]);
    }

    #[test]
    fn no_more_than_a_few_are_encoded_at_once_and_the_others_get_their_turn() {
        let (post, told, _poll) = inbox();
        let mut readers = SnapshotReaders::new(&post);
        let state = Arc::new(large_state());
        let count = READERS_MAX as u64 + 2;
        for ticket in 0..count {
            readers.begin(ticket, Arc::clone(&state), 0);
            readers.next(ticket);
        }
        assert_eq!((readers.readers.len(), readers.waiting.len()), (READERS_MAX, 2));
        let mut first: Vec<u64> = (0..READERS_MAX).map(|_| ticket_of(&told)).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1, 2, 3]);
        readers.end(2);
        assert_eq!(ticket_of(&told), 4);
        readers.end(5);
        (0..count).for_each(|ticket| readers.end(ticket));
        assert!(readers.readers.is_empty() && readers.waiting.is_empty());
        assert!(told.is_empty());
    }

    fn ticket_of(told: &Receiver<Told>) -> u64 {
        match told.recv_timeout(Duration::from_secs(60)).unwrap() {
            Told::SnapshotChunk { ticket, number: 0, last: false, .. } => ticket,
            other => panic!("{other:?}"),
        }
    }
}
