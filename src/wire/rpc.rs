//! Heads of net/rpc requests and replies (`net/rpc`, with the codec of net-rpc-msgpackrpc).
//!
//! A message is a head and a body back to back, without a length or a separator. Heads are written in name order.

use crate::wire::class::Class;
use crate::wire::msgpack::{Decoder, Encoder, Kind, Msg, Result};
use crate::wire_structs;

wire_structs! {
    /// The head of a request. Source: transport notes, section 4.1.
    pub struct RequestHead {
        /// Chosen by the client; echoed.
        seq: u64 = "Seq",
        /// `Service.Method`, split at the last dot.
        service_method: String = "ServiceMethod",
    }
    /// The head of a reply.
    pub struct ReplyHead {
        /// Empty, or why the call failed; then the body is an empty map.
        error: String = "Error",
        /// The request's.
        seq: u64 = "Seq",
        /// The request's.
        service_method: String = "ServiceMethod",
        /// What the error means, in a word of [`crate::wire::class::Class`]; from holdfast to holdfast alone.
        class: String = "HoldfastClass",
    }
}

/// The body of a reply that carries an error: an empty map.
pub const EMPTY_BODY: &[u8] = &[0x80];

/// Reads a request's head from exactly its bytes. An array in place of the map has its elements in the order
/// ServiceMethod, Seq: the declaration order of Go's `rpc.Request`, which differs from the name order written.
///
/// # Errors
/// Where the bytes are no request head.
pub fn decode_request_head(bytes: &[u8]) -> Result<RequestHead> {
    decode_head(bytes, |head: &mut RequestHead, nth, d| {
        match nth {
            0 => head.service_method = Msg::decode(d)?,
            1 => head.seq = Msg::decode(d)?,
            _ => d.skip()?,
        }
        Ok(())
    })
}

/// Reads a reply's head from exactly its bytes. An array has the order ServiceMethod, Seq, Error.
///
/// # Errors
/// Where the bytes are no reply head.
pub fn decode_reply_head(bytes: &[u8]) -> Result<ReplyHead> {
    decode_head(bytes, |head: &mut ReplyHead, nth, d| {
        match nth {
            0 => head.service_method = Msg::decode(d)?,
            1 => head.seq = Msg::decode(d)?,
            2 => head.error = Msg::decode(d)?,
            _ => d.skip()?,
        }
        Ok(())
    })
}

/// Appends a request's head.
pub fn encode_request_head(e: &mut Encoder, seq: u64, service_method: &str) {
    e.map(2);
    e.str("Seq");
    e.u64(seq);
    e.str("ServiceMethod");
    e.str(service_method);
}

/// Appends a reply's head.
pub fn encode_reply_head(e: &mut Encoder, error: &str, seq: u64, service_method: &str) {
    e.map(3);
    e.str("Error");
    e.str(error);
    e.str("Seq");
    e.u64(seq);
    e.str("ServiceMethod");
    e.str(service_method);
}

/// Appends a reply's head that says what its error means, for a peer that knows the field.
pub fn encode_classed_head(e: &mut Encoder, error: &str, class: Class, seq: u64, service_method: &str) {
    e.map(4);
    e.str("Error");
    e.str(error);
    e.str("HoldfastClass");
    e.str(class.word());
    e.str("Seq");
    e.u64(seq);
    e.str("ServiceMethod");
    e.str(service_method);
}

/// Reads a head from a map or, element by element, from an array. Unlike a body, a head cannot be nil, and nothing
/// may follow it.
fn decode_head<T: Msg + Default>(
    bytes: &[u8],
    set_nth: impl Fn(&mut T, usize, &mut Decoder<'_>) -> Result<()>,
) -> Result<T> {
    let mut d = Decoder::new(bytes);
    let head = match d.kind()? {
        Kind::Map => T::decode(&mut d)?,
        Kind::Array => {
            let mut head = T::default();
            for nth in 0..d.array()?.unwrap_or(0) {
                set_nth(&mut head, nth, &mut d)?;
            }
            head
        }
        _ => return Err(d.error("only encoded map or array can be decoded into a struct")),
    };
    if d.at_end() { Ok(head) } else { Err(d.error("bytes after the head")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(seq: u64, service_method: &str) -> RequestHead {
        RequestHead { seq, service_method: service_method.to_owned() }
    }

    // R1.45, R1j "decoder": what a Go peer takes for a head.
    #[test]
    fn request_heads_are_read_leniently() {
        for (bytes, head) in [
            (&b"\x82\xa3Seq\x01\xadServiceMethod\xabStatus.Ping"[..], request(1, "Status.Ping")),
            (b"\x82\xadServiceMethod\xabStatus.Ping\xa3Seq\x01", request(1, "Status.Ping")),
            // str8 keys and values, an unknown key (captured: codec_header_seq_first).
            (
                b"\x83\xd9\x03Seq\xcd\x01\x00\xd9\x0dServiceMethod\xd9\x0bStatus.Ping\xa1X\xc0",
                request(256, "Status.Ping"),
            ),
            (b"\x82\xc4\x03Seq\xd3\0\0\0\0\0\0\0\x09\xadServiceMethod\xc4\x01a", request(9, "a")),
            (b"\x82\xa3Seq\xc0\xadServiceMethod\xa1a", request(0, "a")),
            (b"\x81\xadServiceMethod\xa1a", request(0, "a")),
            (b"\x83\xa3Seq\x01\xa3Seq\x02\xadServiceMethod\xa1a", request(2, "a")),
            (b"\x82\xa3Seq\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xadServiceMethod\xa1a", request(u64::MAX, "a")),
            // Keys are case-sensitive.
            (b"\x82\xa3seq\x01\xadServiceMethod\xa1a", request(0, "a")),
            // A key that only replies have is an unknown one.
            (b"\x82\xa5Error\x07\xadServiceMethod\xa1a", request(0, "a")),
            (b"\x92\xabStatus.Ping\x07", request(7, "Status.Ping")),
            (b"\x91\xa1a", request(0, "a")),
            (b"\x93\xa1a\x07\x91\x80", request(7, "a")),
            (b"\x92\xa1a\xc0", request(0, "a")),
            (b"\x80", request(0, "")),
            (b"\x90", request(0, "")),
        ] {
            assert_eq!(decode_request_head(bytes), Ok(head), "{bytes:02x?}");
        }
    }

    #[test]
    fn reply_heads_are_read_leniently() {
        let head = ReplyHead { error: "no".to_owned(), seq: 3, service_method: "A.B".to_owned(), class: String::new() };
        for bytes in [
            &b"\x83\xa5Error\xa2no\xa3Seq\x03\xadServiceMethod\xa3A.B"[..],
            b"\x84\xadServiceMethod\xa3A.B\xa1X\x81\x01\x02\xa3Seq\x03\xa5Error\xd9\x02no",
            b"\x93\xa3A.B\x03\xa2no",
        ] {
            assert_eq!(decode_reply_head(bytes).as_ref(), Ok(&head), "{bytes:02x?}");
        }
        assert_eq!(decode_reply_head(b"\x92\xa3A.B\x03").unwrap().error, "");
    }

    #[test]
    fn anything_else_is_no_head() {
        for bytes in [
            &b""[..],
            b"\xc0",
            b"\xa3abc",
            b"\xc1\xc1\xc1",
            b"\x07",
            b"\x81\xa3Seq",
            b"\x81\x01\x02",
            b"\x81\xa3Seq\xff",
            b"\x81\xa3Seq\xa1x",
            b"\x81\xadServiceMethod\x05",
            b"\x80\x80",
            b"\x91\x05",
            b"\xdf\xff\xff\xff\xff",
            b"\xdd\xff\xff\xff\xff",
        ] {
            assert!(decode_request_head(bytes).is_err(), "{bytes:02x?}");
            assert!(decode_reply_head(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn heads_are_written_in_name_order() {
        let mut e = Encoder::new();
        encode_request_head(&mut e, 32, "Status.Ping");
        assert_eq!(e.out, b"\x82\xa3Seq\x20\xadServiceMethod\xabStatus.Ping");
        let mut e = Encoder::new();
        encode_reply_head(&mut e, "", 200, "Status.Ping");
        assert_eq!(e.out, b"\x83\xa5Error\xa0\xa3Seq\xcc\xc8\xadServiceMethod\xabStatus.Ping");
    }

    proptest! {
        #[test]
        fn heads_come_back_as_written(error: String, seq: u64, service_method: String, junk in prop::collection::vec(any::<u8>(), 1..40)) {
            let mut e = Encoder::new();
            encode_request_head(&mut e, seq, &service_method);
            prop_assert_eq!(decode_request_head(&e.out), Ok(request(seq, &service_method)));
            prop_assert_eq!(&request(seq, &service_method).to_bytes(), &e.out);
            let mut e = Encoder::new();
            encode_reply_head(&mut e, &error, seq, &service_method);
            let head = ReplyHead { error, seq, service_method, class: String::new() };
            prop_assert_eq!(decode_reply_head(&e.out), Ok(head.clone()));
            let mut classed = Encoder::new();
            encode_classed_head(&mut classed, &head.error, Class::NotLeader, seq, &head.service_method);
            let head = ReplyHead { class: "not-leader".to_owned(), ..head };
            prop_assert_eq!(decode_reply_head(&classed.out), Ok(head));
            // Anything at all gives a verdict, and anything behind a head is refused.
            let _ = (decode_request_head(&junk), decode_reply_head(&junk));
            e.raw(&junk);
            prop_assert!(decode_reply_head(&e.out).is_err());
        }
    }
}
