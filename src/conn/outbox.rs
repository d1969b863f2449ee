//! Bytes that wait for the socket. Never decides what is sent; holds nothing while it is empty.

/// What streaming calls may fill the outbox to, in bytes; replies to calls may go over it, up to
/// `max_unsent_bytes`.
pub(crate) const OUTBOX_BYTES: usize = 256 * 1024;

/// Bytes in the order in which they go out.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    /// Bytes that were taken from it since the connection began.
    total_sent: u64,
}

impl Outbox {
    /// Bytes that were taken from it since the connection began.
    pub fn total_sent(&self) -> u64 {
        self.total_sent
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Where more is appended. An empty vector when nothing waits, so that a full one can be swapped in.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        // Moving what is left costs no more than sending what went before it did.
        if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        &mut self.bytes
    }

    /// The first `count` bytes are on their way.
    pub fn sent(&mut self, count: usize) {
        let count = count.min(self.len());
        self.sent += count;
        self.total_sent = self.total_sent.saturating_add(count as u64);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        *self = Outbox { total_sent: self.total_sent, ..Outbox::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_out_in_order_and_an_empty_outbox_holds_nothing() {
        let mut outbox = Outbox::default();
        outbox.tail().extend_from_slice(b"abcdef");
        outbox.sent(4);
        assert_eq!(outbox.waiting(), b"ef");
        outbox.tail().extend_from_slice(b"gh");
        assert_eq!((outbox.waiting(), outbox.len()), (&b"efgh"[..], 4));
        outbox.sent(9);
        assert!(outbox.is_empty());
        assert_eq!(outbox.tail().capacity(), 0);
        assert_eq!(outbox.total_sent(), 8);
    }
}
