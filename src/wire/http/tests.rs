//! Heads and bodies of HTTP, as they come and as they should not.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn head(text: &str) -> Result<Option<(RequestHead, usize)>, HeadError> {
    parse_request_head(text.as_bytes())
}

#[test]
fn heads_are_read() {
    let (read, len) = head("GET /v1/x?a=b HTTP/1.1\r\nHost: a\r\nX-Y:  z \r\n\r\nrest").unwrap().unwrap();
    assert_eq!((read.method.as_str(), read.target.as_str(), read.minor_version), ("GET", "/v1/x?a=b", 1));
    assert_eq!(read.headers, [("host".into(), "a".into()), ("x-y".into(), "z".into())]);
    assert_eq!(len, 45);
    for (text, wrong) in [
        ("GET / HTTP/2.0\r\n\r\n", HeadError::Version),
        ("GET / FTP/1.1\r\n\r\n", HeadError::Version),
        ("GET  / HTTP/1.1\r\n\r\n", HeadError::Syntax),
        ("\u{1}\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\nA b: c\r\n\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\nA : c\r\n\r\n", HeadError::Syntax),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", HeadError::Syntax),
    ] {
        assert_eq!(head(text), Err(wrong), "{text:?}");
    }
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
    assert_eq!(head(&many), Err(HeadError::TooManyHeaders));
}

#[test]
fn the_end_of_a_head_is_found_wherever_the_last_look_stopped() {
    for (text, end) in [("a\r\n\r\nb", Some(5)), ("a\n\nb", Some(3)), ("a\n\r\n", Some(4)), ("a\r\nb\r\n", None)] {
        for from in 0..=text.len().min(end.unwrap_or(text.len())) {
            if from < 2 || end.is_none_or(|end| from < end) {
                assert_eq!(head_end(text.as_bytes(), from), end, "{text:?} from {from}");
            }
        }
    }
}

#[test]
fn the_length_of_a_body_is_never_guessed() {
    use BodyLength::{Bytes, Chunked};
    for (headers, version, length) in [
        ("", 1, Ok(Bytes(0))),
        ("Content-Length: 5\r\n", 1, Ok(Bytes(5))),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", 1, Ok(Bytes(5))),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", 1, Err(LengthError::BadContentLength)),
        ("Content-Length: 5, 5\r\n", 1, Err(LengthError::BadContentLength)),
        ("Content-Length: +5\r\n", 1, Err(LengthError::BadContentLength)),
        ("Content-Length: \r\n", 1, Err(LengthError::BadContentLength)),
        ("Content-Length: 99999999999999999999\r\n", 1, Err(LengthError::BadContentLength)),
        ("Transfer-Encoding: chunked\r\n", 1, Ok(Chunked)),
        ("Transfer-Encoding: Chunked\r\n", 1, Ok(Chunked)),
        ("Transfer-Encoding: chunked\r\n", 0, Err(LengthError::Ambiguous)),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", 1, Err(LengthError::Ambiguous)),
        ("Transfer-Encoding: gzip, chunked\r\n", 1, Err(LengthError::UnknownCoding)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 1, Err(LengthError::UnknownCoding)),
        ("Transfer-Encoding: identity\r\n", 1, Err(LengthError::UnknownCoding)),
    ] {
        let (read, _) = head(&format!("PUT / HTTP/1.{version}\r\n{headers}\r\n")).unwrap().unwrap();
        assert_eq!(read.body_length(), length, "{headers:?}");
    }
}

fn chunks(text: &[u8], cut: usize, max: usize) -> Result<(Vec<u8>, usize), ChunkError> {
    let mut body = Vec::new();
    let mut reader = ChunkedBody::default();
    let mut taken = reader.take(&text[..cut], &mut body, max)?;
    if taken == cut {
        taken += reader.take(&text[cut..], &mut body, max)?;
    }
    assert!(reader.is_done() || taken == text.len());
    Ok((if reader.is_done() { body } else { b"partial".to_vec() }, taken))
}

#[test]
fn chunks_are_joined_however_they_are_cut() {
    for (text, body) in [
        (&b"0\r\n\r\n"[..], Ok((&b""[..], 5))),
        (b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n000\r\nT: v\r\n\r\nGET", Ok((b"abc0123456789", 40))),
        (b"3\r\nabc", Ok((b"partial", 6))),
        (b"3\nabc\r\n", Err(ChunkError::Syntax)),
        (b"\r\n", Err(ChunkError::Syntax)),
        (b"-1\r\n", Err(ChunkError::Syntax)),
        (b"3\r\nabcd\r\n", Err(ChunkError::Syntax)),
        (b"3;a\nb\r\n", Err(ChunkError::Syntax)),
        (b"ffffffffffffffffff\r\n", Err(ChunkError::TooLarge)),
        (b"15\r\n", Err(ChunkError::TooLarge)),
    ] {
        for cut in 0..=text.len() {
            let read = chunks(text, cut, 20);
            assert_eq!(read.as_ref().map(|(b, n)| (&b[..], *n)).map_err(|e| *e), body, "{text:?} at {cut}");
        }
    }
    assert_eq!(chunks(b"00000000000000000\r\n\r\n", 0, 20), Err(ChunkError::TooLarge));
    let long = [b"0;".to_vec(), vec![b'x'; MAX_CHUNK_OVERHEAD_BYTES + 1]].concat();
    assert_eq!(chunks(&long, 0, 20), Err(ChunkError::TooLarge));
}

#[test]
fn targets_are_paths_whole_addresses_or_a_star() {
    for (target, split) in [
        ("/", Some(("/", ""))),
        ("/v1/x?a=b?c", Some(("/v1/x", "a=b?c"))),
        ("http://a:1/b?c", Some(("/b", "c"))),
        ("HTTPS://a", Some(("/", ""))),
        ("http://a?x=/y", Some(("/", "x=/y"))),
        ("http:///b", Some(("/b", ""))),
        ("//a/b", Some(("//a/b", ""))),
        ("*", Some(("*", ""))),
        ("a:443", None),
        ("v1/x", None),
        ("ftp://a/b", None),
        ("é", None),
    ] {
        assert_eq!(split_target(target), split, "{target}");
    }
}

#[test]
fn a_value_cannot_begin_a_field() {
    let mut out = Vec::new();
    encode_reply_head(&mut out, 200, [("A", "b\r\nC: d")]);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\nA: b  C: d\r\n\r\n");
}

proptest! {
    #[test]
    fn no_bytes_harm_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_request_head(&bytes);
        let _ = head_end(&bytes, 0);
        let mut body = Vec::new();
        let _ = ChunkedBody::default().take(&bytes, &mut body, 50);
        prop_assert!(body.len() <= 50);
        let _ = split_target(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn what_is_sent_in_chunks_is_read_again(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut sent = Vec::new();
        pieces.iter().for_each(|piece| encode_chunk(&mut sent, piece));
        sent.extend_from_slice(LAST_CHUNK);
        let (body, taken) = chunks(&sent, cut.index(sent.len()), usize::MAX).unwrap();
        prop_assert_eq!((body, taken), (pieces.concat(), sent.len()));
    }
}
