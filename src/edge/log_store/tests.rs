//! The log on a real disk: what comes back after each step, and after damage at each byte.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::base::id::{ReplicaId, Term};

fn entry(index: u64, term: u64) -> LogEntry {
    let data = format!("entry {index} of term {term}").into_bytes();
    LogEntry { index: Index(index), term: Term(term), kind: 0, data }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState { term: Term(term), vote: ReplicaId(1), commit: Index(commit) }
}

fn persist(log: &mut RaftEngineLog, entries: &[LogEntry], hard_state: Option<HardState>) {
    log.persist(&Persist { ticket: 1, entries: entries.to_vec(), hard_state }).unwrap();
}

fn read(folder: &Path, after: u64) -> Result<(Vec<LogEntry>, HardState), String> {
    let mut log = RaftEngineLog::open(folder)?;
    let entries = log.entries_after(Index(after))?;
    Ok((entries, log.hard_state()))
}

/// A copy of the files as they stand, as a kill or a power cut leaves them.
fn copy(folder: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    fs::create_dir(to.path().join("raft")).unwrap();
    for file in fs::read_dir(folder.join("raft")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join("raft").join(file.file_name())).unwrap();
    }
    to
}

fn newest(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("raft")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "raftlog")).max().unwrap()
}

#[test]
fn each_step_is_there_when_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RaftEngineLog::open(folder.path()).unwrap();
    assert_eq!(log.entries_after(Index(0)), Ok(vec![]));
    assert_eq!(log.hard_state(), HardState::default());
    let check = |after: u64, expected: &[LogEntry], stored: HardState| {
        assert_eq!(read(copy(folder.path()).path(), after), Ok((expected.to_vec(), stored)));
    };
    let stored = hard_state(1, 0);
    persist(&mut log, &[], Some(stored));
    check(0, &[], stored);
    persist(&mut log, &[entry(1, 1), entry(2, 1), entry(3, 1)], None);
    check(0, &[entry(1, 1), entry(2, 1), entry(3, 1)], stored);
    let stored = hard_state(2, 1);
    persist(&mut log, &[entry(2, 2)], Some(stored));
    check(0, &[entry(1, 1), entry(2, 2)], stored);
    persist(&mut log, &[entry(3, 2), LogEntry { kind: 2, data: vec![], ..entry(4, 2) }], None);
    check(2, &[entry(3, 2), LogEntry { kind: 2, data: vec![], ..entry(4, 2) }], stored);
    log.compact(Index(2)).unwrap();
    check(2, &[entry(3, 2), LogEntry { kind: 2, data: vec![], ..entry(4, 2) }], stored);
    assert!(read(copy(folder.path()).path(), 1).unwrap_err().contains("begins at entry 3"));
    log.compact(Index(4)).unwrap();
    check(4, &[], stored);
    persist(&mut log, &[entry(5, 2)], None);
    check(4, &[entry(5, 2)], stored);
    drop(log);
    check(4, &[entry(5, 2)], stored);
}

/// A leader's snapshot replaces the log; a crash before it did leaves entries that were never agreed on.
#[test]
fn a_log_begins_anew_behind_a_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RaftEngineLog::open(folder.path()).unwrap();
    persist(&mut log, &[entry(1, 1), entry(2, 1), entry(3, 1), entry(4, 1)], Some(hard_state(1, 1)));
    let before = copy(folder.path());
    log.begin_anew(hard_state(5, 3)).unwrap();
    assert_eq!(read(copy(folder.path()).path(), 3), Ok((vec![], hard_state(5, 3))));
    persist(&mut log, &[entry(4, 5), entry(5, 5)], None);
    drop(log);
    assert_eq!(read(folder.path(), 3), Ok((vec![entry(4, 5), entry(5, 5)], hard_state(5, 3))));

    let mut log = RaftEngineLog::open(before.path()).unwrap();
    assert_eq!(log.entries_behind(Index(3), Term(1)), Ok(vec![entry(4, 1)]), "the same entry: the log goes on");
    assert_eq!(log.entries_behind(Index(3), Term(4)), Ok(vec![]), "another one");
    persist(&mut log, &[entry(4, 5)], None);
    drop(log);
    assert_eq!(read(before.path(), 3), Ok((vec![entry(4, 5)], hard_state(1, 1))));
}

#[test]
fn a_snapshot_beyond_the_log_leaves_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RaftEngineLog::open(folder.path()).unwrap();
    persist(&mut log, &[entry(1, 1), entry(2, 1)], None);
    assert_eq!(log.entries_after(Index(7)), Ok(vec![]));
    persist(&mut log, &[entry(8, 1)], None);
    drop(log);
    assert_eq!(read(folder.path(), 7).unwrap().0, [entry(8, 1)]);
}

#[test]
fn old_files_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RaftEngineLog::open(folder.path()).unwrap();
    let large = |index| LogEntry { data: vec![1; 2 * 1024 * 1024], ..entry(index, 1) };
    for index in 1..=40 {
        persist(&mut log, &[large(index)], Some(hard_state(1, index - 1)));
        if index % 5 == 0 {
            log.compact(Index(index - 2)).unwrap();
        }
    }
    let bytes: u64 =
        fs::read_dir(folder.path().join("raft")).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 40 * 1024 * 1024, "{bytes} bytes are left of 80 MiB");
    drop(log);
    assert_eq!(read(folder.path(), 38).unwrap(), (vec![large(39), large(40)], hard_state(1, 39)));
}

/// Five records, the last one with two entries; where each record begins, and where the last one ends.
fn five_records(folder: &Path) -> Vec<usize> {
    let mut places = Vec::new();
    for number in 1..=5 {
        let mut log = RaftEngineLog::open(folder).unwrap();
        // Opening writes the head of a new file, which closing makes visible.
        drop(mem::replace(&mut log, RaftEngineLog::open(tempfile::tempdir().unwrap().path()).unwrap()));
        places.push(usize::try_from(fs::metadata(newest(folder)).unwrap().len()).unwrap());
        let mut log = RaftEngineLog::open(folder).unwrap();
        let entries = if number == 5 { vec![entry(5, 1), entry(6, 1)] } else { vec![entry(number, 1)] };
        persist(&mut log, &entries, Some(hard_state(1, number - 1)));
    }
    places.push(usize::try_from(fs::metadata(newest(folder)).unwrap().len()).unwrap());
    places
}

// Reliability goal 4
#[test]
fn a_last_record_torn_at_any_byte_costs_nothing_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let places = five_records(folder.path());
    let before: Vec<LogEntry> = (1..=4).map(|index| entry(index, 1)).collect();
    let (begin, end) = (places[4], places[5]);
    let whole = fs::read(newest(folder.path())).unwrap();
    for at in begin..end {
        for torn in [whole[..at].to_vec(), [&whole[..at], &vec![0; 5000]].concat()] {
            let copy = copy(folder.path());
            fs::write(newest(copy.path()), torn).unwrap();
            assert_eq!(read(copy.path(), 0), Ok((before.clone(), hard_state(1, 3))), "cut at {at}");
            let mut log = RaftEngineLog::open(copy.path()).unwrap();
            persist(&mut log, &[entry(5, 2)], None);
            drop(log);
            assert_eq!(read(copy.path(), 4).unwrap().0, [entry(5, 2)], "and it goes on");
        }
    }
}

// Reliability goal 15
#[test]
fn a_flipped_byte_is_found_wherever_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let places = five_records(folder.path());
    let before: Vec<LogEntry> = (1..=4).map(|index| entry(index, 1)).collect();
    let path = newest(folder.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let copy = copy(folder.path());
        let mut damaged = whole.clone();
        damaged[at] ^= 0x04;
        fs::write(newest(copy.path()), damaged).unwrap();
        let found = read(copy.path(), 0);
        if at < places[4] {
            let why = found.err().unwrap_or_else(|| panic!("byte {at} went unnoticed"));
            assert!(why.contains(path.file_name().unwrap().to_str().unwrap()), "byte {at}: {why}");
            assert!(why.contains("is damaged"), "byte {at}: {why}");
        } else {
            // The last record cannot be told from one that a power cut tore.
            assert_eq!(found, Ok((before.clone(), hard_state(1, 3))), "byte {at}");
        }
    }
}

// Reliability goal 16
#[test]
fn after_an_error_the_log_is_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RaftEngineLog::open(folder.path()).unwrap();
    persist(&mut log, &[entry(1, 1)], None);
    // A gap is refused by the engine, by a panic.
    let gap = Persist { ticket: 1, entries: vec![entry(9, 1)], hard_state: None };
    assert!(log.persist(&gap).unwrap_err().contains("the log in "));
    let next = Persist { ticket: 2, entries: vec![entry(2, 1)], hard_state: None };
    assert_eq!(log.persist(&next), Err("the log failed before".to_owned()));
    assert!(log.compact(Index(1)).is_err());
}
