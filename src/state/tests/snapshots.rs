//! Snapshots: the same state gives the same bytes, and nothing but these is read.

use proptest::prelude::*;

use super::*;
use crate::base::crc32c;
use crate::state::snapshot::{CHUNK_BYTES, SnapshotError, read, write};

fn bytes(state: &State) -> Vec<u8> {
    write(state).flatten().collect()
}

/// A state with a little of everything.
fn small() -> State {
    let mut world = World::of(["a", "b"].map(|id| sent(id).command()));
    world.apply(heartbeat("a", "ready"));
    world.apply(drain("b", Some(DrainStrategy::default()), false));
    world.apply(emit("a", &["one"]));
    world.apply(signing_key("k"));
    world.apply(deregister(&["b"]));
    world.apply(sent("c").command());
    world.apply(drain("c", Some(DrainStrategy { deadline: 7, ..DrainStrategy::default() }), false));
    world.state
}

/// A state of several chunks, with one node larger than a chunk.
fn large() -> State {
    let mut world = World::default();
    for nth in 0..200 {
        let size = if nth == 50 { 2 * CHUNK_BYTES + 17 } else { 3000 };
        world.apply(sent(&format!("node-{nth:04}")).with("Links", "x".repeat(size)).command());
    }
    world.state
}

fn chunk_at(chunks: &[usize], offset: usize) -> usize {
    let mut end = 0;
    chunks
        .iter()
        .position(|len| {
            end += len;
            offset < end
        })
        .unwrap()
}

#[test]
fn what_was_written_is_read() {
    for state in [State::new(), small(), large()] {
        let written = bytes(&state);
        let again = read(&written).unwrap();
        again.nodes.check_invariants();
        assert_eq!(bytes(&again), written);
        assert_eq!(again.digest(), state.digest());
        assert_eq!(nodes(&again), nodes(&state));
        assert_eq!(again.signing_keys(), state.signing_keys());
        assert_eq!((again.index(), again.time_unix_nanos()), (state.index(), state.time_unix_nanos()));
        assert_eq!(again.nodes_index(), state.nodes_index());
        assert_eq!(again.signing_keys_index(), state.signing_keys_index());
        for node in state.nodes_from("") {
            assert_eq!(again.node_by_secret(&node.secret_id), Some(node));
        }
    }
}

#[test]
fn chunks_are_bounded() {
    let chunks: Vec<usize> = write(&large()).map(|chunk| chunk.len()).collect();
    assert!(chunks.len() > 4, "{chunks:?}");
    assert!(chunks.iter().all(|len| *len <= CHUNK_BYTES + 24), "{chunks:?}");
    assert_eq!(write(&State::new()).count(), 2);
}

#[test]
fn any_changed_byte_is_found() {
    let written = bytes(&small());
    let chunks: Vec<usize> = write(&small()).map(|chunk| chunk.len()).collect();
    for offset in 0..written.len() {
        for flip in [1, 0x80, 0xff] {
            let mut damaged = written.clone();
            damaged[offset] ^= flip;
            let Err(SnapshotError::Damaged { chunk, offset: begins, what }) = read(&damaged) else {
                panic!("byte {offset} was not found");
            };
            assert_eq!(chunk, chunk_at(&chunks, offset), "{what}");
            assert_eq!(begins as usize, chunks[..chunk].iter().sum::<usize>());
        }
    }
}

#[test]
fn any_end_but_the_right_one_is_found() {
    let written = bytes(&small());
    for end in 0..written.len() {
        assert_eq!(read(&written[..end]).err(), Some(SnapshotError::Truncated), "{end}");
    }
    let longer = [&written[..], &[0]].concat();
    assert!(matches!(read(&longer), Err(SnapshotError::Damaged { chunk: 1, .. })));
}

#[test]
fn chunks_are_not_mixed() {
    let chunks: Vec<Vec<u8>> = write(&large()).collect();
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    let error = read(&swapped.concat()).err().unwrap();
    assert_eq!(error.to_string(), "snapshot is damaged in chunk 1 at byte 262168: chunk is out of order");
    let mut missing = chunks.clone();
    missing.remove(2);
    assert!(matches!(read(&missing.concat()), Err(SnapshotError::Damaged { chunk: 2, .. })));
    let mut ended_early = chunks.clone();
    let end = write(&small()).last().unwrap();
    ended_early.splice(1.., [end]);
    assert!(matches!(read(&ended_early.concat()), Err(SnapshotError::Damaged { chunk: 1, .. })));
}

#[test]
fn another_version_is_named() {
    let mut written = bytes(&State::new());
    written[5] = 9;
    let sum = crc32c::crc32c(&written[..16]);
    written[16..20].copy_from_slice(&sum.to_be_bytes());
    let error = read(&written).err().unwrap();
    assert_eq!(error, SnapshotError::Version(9));
    assert_eq!(error.to_string(), "snapshot is of version 9, known is 1");
}

#[test]
fn the_digest_tells_states_apart() {
    let state = small();
    assert_eq!(state.digest(), small().digest());
    let mut other = state.clone();
    let entry = Entry { time_unix_nanos: state.time_unix_nanos(), session: None, command: Command::Noop };
    other.apply(Index(state.index().0 + 1), Term(1), &entry);
    assert_ne!(other.digest(), state.digest());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_changed_byte_of_many_chunks_is_found(at: prop::sample::Index, flip in 1u8..) {
        thread_local! {
            static WRITTEN: Vec<u8> = bytes(&large());
        }
        let mut damaged = WRITTEN.with(Vec::clone);
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        let found = matches!(read(&damaged), Err(SnapshotError::Damaged { .. }));
        prop_assert!(found);
        prop_assert_eq!(read(&WRITTEN.with(|written| written[..at].to_vec())).err(), Some(SnapshotError::Truncated));
    }
}
