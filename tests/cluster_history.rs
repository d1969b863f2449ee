//! The judge of the cluster tests is judged itself: a sound history passes, and each kind of fault that is planted is
//! found under its own name.

#![allow(clippy::unwrap_used, unreachable_pub)]

#[allow(dead_code, missing_docs)]
#[path = "cluster_rig/history.rs"]
mod history;

use history::{History, Outcome, Read, Verdict, Write};

const SECOND: u64 = 1_000_000_000;

fn write(number: u64, begin: u64, end: u64, outcome: Outcome) -> Write {
    Write { path: "v".to_owned(), number, begin, end, outcome }
}

fn read(number: u64, modify_index: u64, begin: u64, end: u64) -> Read {
    Read { path: "v".to_owned(), number, modify_index, index: modify_index, begin, end, waited: None }
}

fn waited(read: Read, index: u64) -> Read {
    Read { waited: Some(index), ..read }
}

/// Three writes, acknowledged at indexes 10, 20 and 30, at 1 s, 2 s and 3 s.
fn sound() -> History {
    let writes = (1..=3).map(|n| write(n, n * SECOND - 10, n * SECOND, Outcome::Done(n * 10)));
    let reads = vec![
        read(0, 0, 5, 6),
        read(1, 10, SECOND + 1, SECOND + 2),
        // While the second was under way both are right, in this order.
        read(1, 10, 2 * SECOND - 9, 2 * SECOND - 8),
        read(2, 20, 2 * SECOND - 5, 2 * SECOND - 4),
        waited(read(2, 20, SECOND + 1, 2 * SECOND), 10),
        waited(read(3, 30, 2 * SECOND + 1, 3 * SECOND + 1), 20),
        read(3, 30, 4 * SECOND, 4 * SECOND + 1),
    ];
    History { writes: writes.collect(), reads }
}

fn judged(plant: impl FnOnce(&mut History)) -> Verdict {
    let mut history = sound();
    plant(&mut history);
    history.judge()
}

#[test]
fn a_sound_history_is_clean() {
    let verdict = judged(|_| {});
    assert!(verdict.is_clean(), "{verdict:?}");
    verdict.assert_clean();
    // What nobody knows of may be seen or not, and a refused write is not seen.
    for seen in [3, 4] {
        let verdict = judged(|history| {
            history.writes.push(write(4, 5 * SECOND, 6 * SECOND, Outcome::Unknown));
            history.reads.push(read(seen, if seen == 3 { 30 } else { 40 }, 7 * SECOND, 7 * SECOND + 1));
        });
        assert!(verdict.is_clean(), "{seen}: {verdict:?}");
    }
}

#[test]
fn a_lost_write_is_found() {
    let verdict = judged(|history| history.reads.push(read(2, 20, 9 * SECOND, 9 * SECOND + 1)));
    assert_eq!((verdict.lost.len(), verdict.stale.len()), (1, 1), "{verdict:?}");
}

#[test]
fn a_stale_read_is_found() {
    let verdict = judged(|history| history.reads.insert(3, read(1, 10, 2 * SECOND + 5, 2 * SECOND + 6)));
    assert_eq!((verdict.stale.len(), verdict.lost.len()), (1, 0), "{verdict:?}");
}

#[test]
fn reads_that_go_back_are_found() {
    // Both lie within the write, and still the second forgets what the first has shown.
    let verdict = judged(|history| {
        history.writes.push(write(4, 5 * SECOND, 6 * SECOND, Outcome::Done(40)));
        history.reads.push(read(4, 40, 5 * SECOND + 1, 5 * SECOND + 2));
        history.reads.push(read(3, 30, 5 * SECOND + 3, 5 * SECOND + 4));
    });
    assert_eq!((verdict.backward.len(), verdict.stale.len()), (1, 0), "{verdict:?}");
    let verdict = judged(|history| history.reads.push(waited(read(3, 30, 5 * SECOND, 6 * SECOND), 31)));
    assert_eq!(verdict.backward.len(), 1, "{verdict:?}");
}

#[test]
fn a_doubled_write_is_found() {
    let verdict = judged(|history| history.reads.push(read(3, 31, 9 * SECOND, 9 * SECOND + 1)));
    assert_eq!(verdict.doubled.len(), 1, "{verdict:?}");
    let verdict = judged(|history| history.writes.push(write(4, 5 * SECOND, 6 * SECOND, Outcome::Conflict)));
    assert_eq!(verdict.doubled.len(), 1, "{verdict:?}");
}

#[test]
fn an_old_answer_at_a_deadline_is_found() {
    // Parked before the third write was acknowledged, answered long after it with the second.
    let late = waited(read(2, 20, 2 * SECOND + 2, 3 * SECOND + 1_500_000_000), 20);
    let verdict = judged(|history| history.reads.push(late));
    assert_eq!((verdict.stale_at_deadline.len(), verdict.stale.len()), (1, 0), "{verdict:?}");
}

#[test]
fn what_was_never_written_is_found() {
    let verdict = judged(|history| history.reads.push(read(9, 90, 9 * SECOND, 9 * SECOND + 1)));
    assert_eq!(verdict.invented.len(), 1, "{verdict:?}");
    let verdict = judged(|history| {
        history.writes.push(write(4, 5 * SECOND, 6 * SECOND, Outcome::Failed));
        history.reads.push(read(4, 40, 7 * SECOND, 7 * SECOND + 1));
    });
    assert_eq!(verdict.invented.len(), 1, "{verdict:?}");
    // Seen before it began.
    let verdict = judged(|history| history.reads.insert(0, read(2, 20, 1, 2)));
    assert_eq!(verdict.invented.len(), 1, "{verdict:?}");
}
