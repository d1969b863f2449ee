//! What a session remembers of its writes: which numbers were given out, and which are answered. No calls, no clock.

use std::collections::{BTreeSet, VecDeque};

use crate::wire::body::session::{SessionKey, WriteStamp};

/// Writes whose outcome is unknown, and that the server is still to remember; the oldest is given up first.
pub(crate) const MAX_UNKNOWN: usize = 64;
/// Sessions before this one that can still be asked about.
const MAX_PAST: usize = 8;

/// The sessions of one handle: the one that writes go to now, and those that were over before.
#[derive(Debug, Default)]
pub(crate) struct Book {
    id: u64,
    key: SessionKey,
    /// No session stands: none was opened, or the last is over.
    is_over: bool,
    next: u64,
    /// Numbers that may be asked for again.
    unanswered: BTreeSet<u64>,
    unknown: VecDeque<u64>,
    past: VecDeque<(u64, SessionKey)>,
}

impl Book {
    pub(crate) fn new() -> Book {
        Book { is_over: true, ..Book::default() }
    }

    /// Turns to a new session.
    pub(crate) fn open(&mut self, id: u64, key: SessionKey) {
        if self.id != 0 {
            self.past.push_back((self.id, std::mem::take(&mut self.key)));
            if self.past.len() > MAX_PAST {
                self.past.pop_front();
            }
        }
        (self.id, self.key, self.is_over, self.next) = (id, key, false, 1);
        self.unanswered.clear();
        self.unknown.clear();
    }

    /// The session that stands, if one does.
    pub(crate) fn current(&self) -> Option<u64> {
        (!self.is_over).then_some(self.id)
    }

    /// The key of a session, this one or an earlier one.
    pub(crate) fn key(&self, id: u64) -> Option<SessionKey> {
        if id == self.id && id != 0 {
            return Some(self.key.clone());
        }
        self.past.iter().find(|(past, _)| *past == id).map(|(_, key)| key.clone())
    }

    /// A session is over.
    pub(crate) fn end(&mut self, id: u64) {
        self.is_over |= id == self.id;
    }

    /// A number for a write; `None` when no session stands.
    pub(crate) fn begin(&mut self) -> Option<(u64, u64)> {
        let id = self.current()?;
        let sequence = self.next;
        self.next += 1;
        self.unanswered.insert(sequence);
        Some((id, sequence))
    }

    /// The stamp of a write as it is to be sent now; `None` when its session is over.
    pub(crate) fn stamp(&self, id: u64, sequence: u64) -> Option<WriteStamp> {
        if self.current() != Some(id) {
            return None;
        }
        let acknowledged_below = self.unanswered.first().copied().unwrap_or(self.next);
        Some(WriteStamp { id, key: self.key.clone(), sequence, acknowledged_below })
    }

    /// A write will not be asked for again.
    pub(crate) fn settle(&mut self, id: u64, sequence: u64) {
        if id == self.id {
            self.unanswered.remove(&sequence);
            self.unknown.retain(|unknown| *unknown != sequence);
        }
    }

    /// The outcome of a write is unknown: the server is to remember it, for a while.
    pub(crate) fn forget_later(&mut self, id: u64, sequence: u64) {
        if id != self.id {
            return;
        }
        self.unknown.push_back(sequence);
        if self.unknown.len() > MAX_UNKNOWN
            && let Some(oldest) = self.unknown.pop_front()
        {
            self.unanswered.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // R2.25: the lowest number that may be asked for again is told with each write.
    #[test]
    fn what_is_answered_is_acknowledged_in_order() {
        let mut book = Book::new();
        assert_eq!((book.begin(), book.current()), (None, None));
        book.open(9, SessionKey(vec![1]));
        let numbers: Vec<u64> = (0..4).map(|_| book.begin().unwrap().1).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        let below = |book: &Book| book.stamp(9, 4).unwrap().acknowledged_below;
        book.settle(9, 2);
        assert_eq!(below(&book), 1);
        book.settle(9, 1);
        assert_eq!(below(&book), 3);
        book.settle(9, 3);
        book.settle(9, 4);
        assert_eq!(below(&book), 5);
    }

    // R2.28: a session that is over stamps nothing more, and can be asked about.
    #[test]
    fn a_session_that_is_over_is_left_behind() {
        let mut book = Book::new();
        book.open(9, SessionKey(vec![1]));
        let (id, sequence) = book.begin().unwrap();
        book.end(9);
        assert_eq!((book.stamp(id, sequence), book.begin()), (None, None));
        book.open(20, SessionKey(vec![2]));
        book.end(9);
        assert_eq!(book.begin(), Some((20, 1)));
        assert_eq!(book.stamp(id, sequence), None);
        book.settle(id, sequence);
        assert_eq!(book.stamp(20, 1).unwrap().acknowledged_below, 1, "the number of another session");
        assert_eq!(book.key(9), Some(SessionKey(vec![1])));
        assert_eq!(book.key(5), None);
    }

    #[test]
    fn writes_of_unknown_outcome_are_given_up_at_last() {
        let mut book = Book::new();
        book.open(9, SessionKey(vec![1]));
        for _ in 0..=MAX_UNKNOWN {
            let (id, sequence) = book.begin().unwrap();
            book.forget_later(id, sequence);
        }
        assert_eq!(book.stamp(9, 1).unwrap().acknowledged_below, 2);
    }
}
