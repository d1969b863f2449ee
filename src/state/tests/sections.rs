//! Tables in snapshots: what each keeps, what older snapshots are, what is refused.

use super::vars::*;
use super::*;
use crate::base::crc32c;
use crate::state::fences::MAX_FENCES;
use crate::state::snapshot::{CHUNK_BYTES, SnapshotError, encode, read, write};
use crate::wire::entry::var::VarOp;

fn bytes(state: &State) -> Vec<u8> {
    write(state).flatten().collect()
}

/// A snapshot with these records, whole and undamaged.
fn snapshot_of(payload: &[u8]) -> Vec<u8> {
    let chunk = |kind: u16, number: u32, payload: &[u8]| {
        let mut bytes = b"HFSN\x00\x01".to_vec();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(number.to_be_bytes());
        bytes.extend((payload.len() as u32).to_be_bytes());
        bytes.extend(crc32c::crc32c(&bytes).to_be_bytes());
        bytes.extend(payload);
        bytes.extend(crc32c::crc32c(payload).to_be_bytes());
        bytes
    };
    let mut bytes = Vec::new();
    let mut number = 0;
    for part in payload.chunks(CHUNK_BYTES) {
        bytes.extend(chunk(1, number, part));
        number += 1;
    }
    let end = encode(|e| {
        e.array(2);
        e.u64(u64::from(number));
        e.u64(payload.len() as u64);
    });
    bytes.extend(chunk(2, number, &end));
    bytes
}

/// A head without nodes and keys, that names these sections by tag, index and rows; then their rows.
pub(super) fn with_sections(sections: &[(u64, u64, u64)], rows: &[Vec<u8>]) -> Result<State, SnapshotError> {
    let head = encode(|e| {
        e.array(7);
        [9, 9, 0, 0, 0, 0].into_iter().for_each(|value| e.u64(value));
        e.array(sections.len());
        for (tag, index, rows) in sections {
            e.array(3);
            [*tag, *index, *rows].into_iter().for_each(|value| e.u64(value));
        }
    });
    read(&snapshot_of(&[head, rows.concat()].concat()))
}

pub(super) fn what(result: Result<State, SnapshotError>) -> String {
    match result {
        Err(SnapshotError::Damaged { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

fn var_row(namespace: &str, path: &str) -> Vec<u8> {
    encode(|e| {
        e.array(9);
        e.str(namespace);
        e.str(path);
        e.nil();
        e.nil();
        [7, 1, 1, 2, 2].into_iter().for_each(|value| e.u64(value));
    })
}

fn fence_row(key: &str, fence: u64) -> Vec<u8> {
    encode(|e| {
        e.array(2);
        e.str(key);
        e.u64(fence);
    })
}

/// A state with all that a variable can be.
fn small() -> World {
    let mut world = World::of([
        all([set("a"), VarOp { namespace: "other".into(), ..set("z") }]),
        all([acquire("held", ID), acquire("graced", OTHER), VarOp { sealed: None, ..acquire("empty", ID) }]),
        Command::LocksGrace { grace: 14 * SECOND + SECOND / 2 },
        all([acquire("freed", ID), release("freed", ID)]),
        all([delete("freed"), fenced(77, delete("never"))]),
    ]);
    world.apply_at(time_at(9), Command::LocksGrace { grace: 14 * SECOND });
    world.state.vars.fences.raise_floor(3);
    world
}

#[test]
fn everything_of_a_variable_is_kept() {
    let state = small().state;
    assert!(state.locked_vars().any(|var| var.lock.as_ref().unwrap().graced));
    let again = read(&bytes(&state)).unwrap();
    again.vars.check_invariants();
    assert_eq!(rows(&again), rows(&state));
    assert_eq!((again.vars_index(), again.next_lock_due()), (state.vars_index(), state.next_lock_due()));
    assert_eq!(again.locks_due(i64::MAX, 99), state.locks_due(i64::MAX, 99));
    assert_eq!((again.vars.fences.floor(), again.vars.fences.len()), (3, 2));
    assert_eq!(again.vars.fences.of("default\0never"), 77);
    assert!(again.is_key_used("k1"));
    assert_eq!(again.digest(), state.digest());
    // Texts are shared again.
    let shared = rows(&again);
    assert!(Arc::ptr_eq(&shared[0].namespace, &shared[1].namespace));
    let key = |nth: usize| &shared[nth].sealed.as_ref().unwrap().key_id;
    assert!(Arc::ptr_eq(key(0), key(shared.len() - 1)));
}

#[test]
fn each_detail_changes_the_digest() {
    let world = small();
    let changes: [fn(&mut World); 6] = [
        |world| drop(world.ok(VarOp { sealed: Some(sealed("k2", "new")), ..set("a") })),
        |world| drop(world.apply(Command::LockRenew(world.var("held").lock_name().unwrap()))),
        |world| drop(world.ok(fenced(78, delete("never")))),
        |world| world.state.vars.fences.raise_floor(4),
        |world| drop(world.ok(VarOp { owner: "x".into(), ..acquire("held", ID) })),
        |world| drop(world.ok(under(ID, fenced(99, set("held"))))),
    ];
    let mut digests = vec![world.state.digest()];
    for change in changes {
        let mut changed = world.clone();
        change(&mut changed);
        changed.state.index = world.state.index;
        changed.state.time_unix_nanos = world.state.time_unix_nanos;
        assert!(!digests.contains(&changed.state.digest()));
        digests.push(changed.state.digest());
    }
}

#[test]
fn a_table_that_was_emptied_keeps_its_index() {
    let world = World::of([all([set("a")]), all([delete("a")])]);
    let again = read(&bytes(&world.state)).unwrap();
    assert_eq!((again.vars_index(), again.var_count()), (Index(2), 0));
}

#[test]
fn a_snapshot_from_before_sections_is_read() {
    // As it was written then: index 5, time 1000, keys of index 5, no node, one key.
    let mut payload = vec![0x96, 5, 0xcd, 0x03, 0xe8, 0, 5, 0, 1, 0x94, 0xa1, b'k', 0xc4, 32];
    payload.extend([1; 32]);
    payload.extend([9, 5]);
    let state = read(&snapshot_of(&payload)).unwrap();
    assert_eq!((state.index(), state.time_unix_nanos(), state.var_count()), (Index(5), 1000, 0));
    assert_eq!((state.signing_keys().len(), state.vars_index()), (1, Index(0)));
    // Read as it is, written as it is now, and still the same.
    assert_eq!(read(&bytes(&state)).unwrap().digest(), state.digest());
}

#[test]
fn a_section_that_is_not_known_is_named() {
    let error = with_sections(&[(1, 2, 1), (99, 0, 1)], &[var_row("n", "a"), vec![0xc0]]).err().unwrap();
    assert_eq!(error, SnapshotError::Section(99));
    let text = "snapshot holds section 99, which this build does not know: a later build wrote it";
    assert_eq!(error.to_string(), text);
}

#[test]
fn sections_that_are_wrong_are_refused() {
    let both = with_sections(&[(1, 2, 1), (2, 0, 2)], &[var_row("n", "a"), fence_row("", 3), fence_row("n\0b", 4)]);
    let state = both.unwrap();
    state.vars.check_invariants();
    assert_eq!((state.var("n", "a").unwrap().fence, state.vars.fences.of("n\0b")), (7, 4));

    assert_eq!(what(with_sections(&[(1, 2, 1), (1, 2, 1)], &[])), "a section comes twice");
    let many: Vec<_> = (0..65).map(|tag| (tag, 1, 0)).collect();
    assert_eq!(what(with_sections(&many, &[])), "too many sections");
    assert_eq!(
        what(with_sections(&[(1, 2, 1)], &[var_row("n", "a"), var_row("n", "b")])),
        "bytes after the last record"
    );
    what(with_sections(&[(1, 2, 2)], &[var_row("n", "a")]));
    what(with_sections(&[(1, 2, u64::MAX)], &[]));
    for second in ["a", "A"] {
        let rows = [var_row("n", "a"), var_row("n", second)];
        assert_eq!(what(with_sections(&[(1, 2, 2)], &rows)), "variables are out of order", "{second}");
    }
    let fences = |rows: &[Vec<u8>]| {
        let all = [&[var_row("n", "a")], rows].concat();
        what(with_sections(&[(1, 2, 1), (2, 0, rows.len() as u64)], &all))
    };
    let wrong = "a fence is not one of a removed variable, or out of order";
    assert_eq!(fences(&[fence_row("n\0c", 3), fence_row("n\0b", 3)]), wrong);
    assert_eq!(fences(&[fence_row("n\0b", 3), fence_row("n\0b", 4)]), wrong);
    assert_eq!(fences(&[fence_row("n\0a", 3)]), wrong, "the variable is there");
    assert_eq!(fences(&[fence_row("n\0b", 0)]), wrong);
    assert_eq!(fences(&[fence_row("", 3), fence_row("n\0b", 3)]), wrong, "the floor says so");
    assert_eq!(fences(&[fence_row("n\0b", 3), fence_row("", 2)]), wrong, "the floor comes first");
    assert_eq!(fences(&[fence_row("", 0)]), wrong);
    let many: Vec<_> = (0..=MAX_FENCES).map(|nth| fence_row(&format!("n\0b{nth:06}"), 3)).collect();
    assert_eq!(fences(&many), wrong, "more than are ever kept");
}

#[test]
fn values_of_a_later_build_are_passed_over() {
    let row = |row: Vec<u8>| [&[row[0] + 1], &row[1..], &[0x92, 1, 2]].concat();
    let rows = [row(var_row("n", "a")), row(fence_row("n\0b", 4))];
    let state = with_sections(&[(1, 2, 1), (2, 0, 1)], &rows).unwrap();
    assert_eq!((state.var_count(), state.vars.fences.of("n\0b")), (1, 4));
}

#[test]
fn any_changed_byte_is_found() {
    let written = bytes(&small().state);
    for offset in 0..written.len() {
        let mut damaged = written.clone();
        damaged[offset] ^= 0x41;
        assert!(read(&damaged).is_err(), "byte {offset}");
        assert!(read(&written[..offset]).is_err(), "{offset} bytes");
    }
}
