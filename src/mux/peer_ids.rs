//! Which stream ids a peer has used, so that none is used twice. It holds no streams.
//!
//! Source: yamux `spec.md`, "StreamID Field". Go's library numbers a stream first and queues its SYN afterwards, so
//! calls that open streams at the same time may put SYN 5 on the wire before SYN 3 (yamux 0.1.2 `session.go`,
//! `OpenStream`; seen in every third session that opens 64 streams at once). Ids that were skipped are therefore
//! remembered for a while, as ranges.

/// Why an id cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdError {
    /// Id 0 is the session.
    Zero,
    /// An id of our own half: even ids are the server's, odd ones the client's.
    WrongSide,
    /// It was used before, or skipped too long ago.
    Used,
}

/// Ids that were skipped: `first`, `first + 2`, ... `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    first: u32,
    last: u32,
}

/// The ids that a peer has used.
///
/// **Invariant:** the gaps ascend, do not touch, and lie below the highest id used.
#[derive(Clone, Debug)]
pub struct PeerIds {
    /// The lowest id that the peer may use that was never used nor skipped; above `u32::MAX` when there is none.
    next: u64,
    gaps: Vec<Gap>,
}

impl PeerIds {
    /// Nothing used; `first` is the peer's first id: 1 for a client, 2 for a server.
    pub const fn new(first: u32) -> PeerIds {
        PeerIds { next: first as u64, gaps: Vec::new() }
    }

    /// Marks an id as used. Of the ranges of ids that were skipped, the latest `max_gaps` are remembered; with 0 each
    /// id must be higher than all before it.
    ///
    /// # Errors
    /// The id is not the peer's to use, or not any more.
    pub fn claim(&mut self, id: u32, max_gaps: usize) -> Result<(), IdError> {
        if id == 0 {
            return Err(IdError::Zero);
        }
        if u64::from(id) % 2 != self.next % 2 {
            return Err(IdError::WrongSide);
        }
        if u64::from(id) < self.next {
            self.fill(id)?;
        } else {
            if let Ok(first) = u32::try_from(self.next)
                && first < id
            {
                self.gaps.push(Gap { first, last: id - 2 });
            }
            self.next = u64::from(id) + 2;
        }
        if self.gaps.len() > max_gaps {
            self.gaps.remove(0);
        }
        Ok(())
    }

    /// Gives back memory that is not in use.
    pub fn release_memory(&mut self) {
        self.gaps.shrink_to_fit();
    }

    /// Uses an id that was skipped.
    fn fill(&mut self, id: u32) -> Result<(), IdError> {
        let at = self.gaps.partition_point(|gap| gap.last < id);
        let gap = self.gaps.get_mut(at).filter(|gap| gap.first <= id).ok_or(IdError::Used)?;
        match (gap.first == id, gap.last == id) {
            (true, true) => {
                self.gaps.remove(at);
            }
            (true, false) => gap.first += 2,
            (false, true) => gap.last -= 2,
            (false, false) => {
                let upper = Gap { first: id + 2, last: gap.last };
                gap.last = id - 2;
                self.gaps.insert(at + 1, upper);
            }
        }
        Ok(())
    }

    /// Panics when the gaps are out of order.
    pub fn check_invariants(&self) {
        let ordered = self.gaps.windows(2).all(|pair| matches!(pair, [a, b] if a.last < b.first));
        let sound = self.gaps.iter().all(|gap| gap.first <= gap.last && u64::from(gap.last) < self.next);
        assert!(ordered && sound, "gaps {:?} below {}", self.gaps, self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_id_is_good_once() {
        // R1.42
        let mut ids = PeerIds::new(1);
        for (id, result) in [
            (0, Err(IdError::Zero)),
            (2, Err(IdError::WrongSide)),
            (1, Ok(())),
            (1, Err(IdError::Used)),
            (9, Ok(())),
            (9, Err(IdError::Used)),
            (5, Ok(())),
            (5, Err(IdError::Used)),
            (3, Ok(())),
            (7, Ok(())),
            (7, Err(IdError::Used)),
            (11, Ok(())),
            (u32::MAX, Ok(())),
            (u32::MAX, Err(IdError::Used)),
            (u32::MAX - 2, Ok(())),
            (13, Ok(())),
            (13, Err(IdError::Used)),
        ] {
            assert_eq!(ids.claim(id, 8), result, "{id}");
            ids.check_invariants();
        }
        let mut ids = PeerIds::new(2);
        assert_eq!((ids.claim(3, 8), ids.claim(2, 8)), (Err(IdError::WrongSide), Ok(())));
        assert_eq!((ids.claim(u32::MAX - 1, 8), ids.claim(u32::MAX - 1, 8)), (Ok(()), Err(IdError::Used)));
    }

    #[test]
    fn without_gaps_ids_must_rise() {
        let mut ids = PeerIds::new(1);
        assert_eq!((ids.claim(5, 0), ids.claim(3, 0), ids.claim(7, 0)), (Ok(()), Err(IdError::Used), Ok(())));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut ids = PeerIds::new(1);
        for step in 0..1000 {
            assert_eq!(ids.claim(step * 4 + 3, 8), Ok(()));
            assert!(ids.gaps.len() <= 8);
        }
        assert_eq!((ids.claim(1, 8), ids.claim(3997, 8)), (Err(IdError::Used), Ok(())));
    }

    proptest! {
        #[test]
        fn it_is_a_set(wanted in proptest::collection::vec(0u32..64, 0..200)) {
            // R1.42
            let mut ids = PeerIds::new(1);
            let mut used = std::collections::BTreeSet::new();
            for n in wanted {
                let id = n * 2 + 1;
                prop_assert_eq!(ids.claim(id, 64).is_ok(), used.insert(id));
                ids.check_invariants();
            }
        }
    }
}
