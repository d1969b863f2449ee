//! Finds one whole reply at the beginning of bytes, without copying any of them.

use crate::client::MAX_REPLY_BYTES;
use crate::wire::msgpack::{DecodeError, Decoder, Scan, Scanner};
use crate::wire::rpc;

/// A reply, or none that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// More bytes are needed.
    Partial,
    /// A reply.
    Whole {
        /// Its bytes, head and body.
        len: usize,
        /// The request's number.
        seq: u64,
        /// Empty when the call succeeded.
        error: String,
        /// One msgpack value.
        body: &'a [u8],
    },
}

/// Looks for a reply.
///
/// # Errors
/// Bytes that cannot become one.
pub(crate) fn find(bytes: &[u8]) -> Result<Found<'_>, DecodeError> {
    let Scan::Complete(head_len) = Scanner::default().scan(bytes, MAX_REPLY_BYTES)? else { return Ok(Found::Partial) };
    let (head, rest) = bytes.split_at(head_len.min(bytes.len()));
    let Scan::Complete(body_len) = Scanner::default().scan(rest, MAX_REPLY_BYTES)? else { return Ok(Found::Partial) };
    let body = rest.get(..body_len).unwrap_or_default();
    let len = head_len + body_len;
    // The head that every server sends, read without an allocation.
    if let Some(seq) = plain_success(head) {
        return Ok(Found::Whole { len, seq, error: String::new(), body });
    }
    let head = rpc::decode_reply_head(head)?;
    Ok(Found::Whole { len, seq: head.seq, error: head.error, body })
}

/// The number in a head of the usual form without an error.
fn plain_success(head: &[u8]) -> Option<u64> {
    let rest = head.strip_prefix(b"\x83\xa5Error\xa0\xa3Seq")?;
    Decoder::new(rest).u64().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::msgpack::Encoder;

    fn reply(error: &str, seq: u64, body: &[u8]) -> Vec<u8> {
        let mut e = Encoder::new();
        rpc::encode_reply_head(&mut e, error, seq, "Status.Ping");
        e.raw(body);
        e.out
    }

    #[test]
    fn replies_are_found_once_whole_and_no_sooner() {
        for (error, seq, body) in
            [("", 1, &b"\x80"[..]), ("", 70_000, b"\x81\xa1a\x01"), ("No cluster leader", 3, b"\x80")]
        {
            let mut bytes = reply(error, seq, body);
            let len = bytes.len();
            for cut in 0..len {
                assert_eq!(find(&bytes[..cut]).unwrap(), Found::Partial);
            }
            bytes.extend(b"\x83next");
            assert_eq!(find(&bytes).unwrap(), Found::Whole { len, seq, error: error.to_owned(), body });
        }
    }

    #[test]
    fn other_forms_of_the_head_are_read_too() {
        let bytes = b"\x93\xabStatus.Ping\x07\xa0\x80";
        assert_eq!(
            find(bytes).unwrap(),
            Found::Whole { len: bytes.len(), seq: 7, error: String::new(), body: b"\x80" }
        );
        assert!(find(b"\xc1").is_err());
        assert!(find(b"\x05\x80").is_err());
    }
}
