//! Credit of one stream, both ways: how much we may send, how much the peer may send. It counts bytes and holds none.
//!
//! Source: yamux `spec.md`, "Flow Control"; when a Go peer grants, `stream.go` of yamux 0.1.2.

/// What the peer may no longer be asked to take: a grant that does not fit in 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow;

/// How much the peer still permits us to send, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendWindow {
    credit: u32,
}

impl SendWindow {
    /// The window of a fresh stream.
    pub const fn new(window_bytes: u32) -> SendWindow {
        SendWindow { credit: window_bytes }
    }

    /// Bytes that may be sent now.
    pub const fn credit(self) -> u32 {
        self.credit
    }

    /// Takes as much of `wanted` bytes as there is credit for, and says how much that was.
    pub fn take(&mut self, wanted: usize) -> u32 {
        let taken = u32::try_from(wanted).unwrap_or(u32::MAX).min(self.credit);
        self.credit -= taken;
        taken
    }

    /// The peer permits `delta` bytes more.
    ///
    /// # Errors
    /// The sum does not fit; a Go peer lets it wrap and then holds the stream for ever.
    pub fn grant(&mut self, delta: u32) -> Result<(), Overflow> {
        self.credit = self.credit.checked_add(delta).ok_or(Overflow)?;
        Ok(())
    }
}

/// How much the peer may still send, and what we owe it, in bytes.
///
/// **Invariant:** credit + owed + (arrived and not read) = the whole window; so what the peer can make us hold for a
/// stream is never more than the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecvWindow {
    /// What the peer may send now.
    credit: u32,
    /// What the application has read and the peer was not granted again.
    owed: u32,
}

impl RecvWindow {
    /// The window of a fresh stream.
    pub const fn new(window_bytes: u32) -> RecvWindow {
        RecvWindow { credit: window_bytes, owed: 0 }
    }

    /// Bytes that the peer may send now.
    pub const fn credit(self) -> u32 {
        self.credit
    }

    /// Bytes that arrived and were not read. `window_bytes` is the whole window.
    pub const fn unread(self, window_bytes: u32) -> u32 {
        window_bytes.saturating_sub(self.credit).saturating_sub(self.owed)
    }

    /// `bytes` bytes arrived. The caller has compared the frame's length with [`RecvWindow::credit`].
    pub fn arrived(&mut self, bytes: u32) {
        debug_assert!(bytes <= self.credit, "a frame beyond the window is refused at its header");
        self.credit = self.credit.saturating_sub(bytes);
    }

    /// The application has read `bytes` bytes; more than has arrived counts as all that has.
    pub fn read(&mut self, bytes: usize, window_bytes: u32) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.owed += bytes.min(self.unread(window_bytes));
    }

    /// Grants the peer what is owed, once that is half of the window.
    ///
    /// `None` while less is owed: it would not be worth a frame.
    pub fn next_grant(&mut self, window_bytes: u32) -> Option<u32> {
        if self.owed == 0 || self.owed < window_bytes / 2 {
            return None;
        }
        let delta = self.owed;
        self.credit += delta;
        self.owed = 0;
        Some(delta)
    }

    /// Panics when the sum of the parts is more than the window.
    pub fn check_invariants(self, window_bytes: u32) {
        let sum = u64::from(self.credit) + u64::from(self.owed);
        assert!(sum <= u64::from(window_bytes), "credit {} and owed {} of {window_bytes}", self.credit, self.owed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_stops_at_the_credit() {
        // R1.41
        let mut window = SendWindow::new(10);
        assert_eq!((window.take(4), window.take(usize::MAX), window.take(1), window.take(0)), (4, 6, 0, 0));
        assert_eq!((window.grant(u32::MAX), window.credit()), (Ok(()), u32::MAX));
        assert_eq!(window.grant(1), Err(Overflow));
        assert_eq!((window.grant(0), window.credit()), (Ok(()), u32::MAX));
    }

    #[test]
    fn a_grant_comes_with_half_of_the_window_and_only_for_what_was_read() {
        // R1.41; the numbers are those of the vector yamux_window.
        let whole = 262_144;
        let mut window = RecvWindow::new(whole);
        window.arrived(whole);
        assert_eq!((window.credit(), window.unread(whole)), (0, whole));
        window.read(100_000, whole);
        assert_eq!(window.next_grant(whole), None);
        window.read(31_071, whole);
        assert_eq!(window.next_grant(whole), None);
        window.read(1, whole);
        assert_eq!(window.next_grant(whole), Some(131_072));
        assert_eq!((window.credit(), window.unread(whole)), (131_072, 131_072));
        window.read(usize::MAX, whole);
        assert_eq!(window.next_grant(whole), Some(131_072));
        window.read(1, whole);
        assert_eq!((window.next_grant(whole), window.credit()), (None, whole));
        window.check_invariants(whole);
    }

    #[test]
    fn tiny_windows_work() {
        for whole in [0, 1, 2, 3] {
            let mut window = RecvWindow::new(whole);
            window.read(5, whole);
            assert_eq!(window.next_grant(whole), None, "nothing arrived, window {whole}");
            window.arrived(whole);
            window.read(5, whole);
            assert_eq!(window.next_grant(whole), (whole > 0).then_some(whole), "window {whole}");
            window.check_invariants(whole);
        }
    }
}
