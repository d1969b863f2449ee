//! Puts a field of ours into the body of a request: a write's place in its session, or what a read is to have seen.

use crate::forward::patch::{Patch, patched};
use crate::wire::body::session::WriteStamp;

/// The body with its place in a session. `None` for a body whose fields have no names.
pub(crate) fn stamped(body: &[u8], stamp: &WriteStamp) -> Option<Vec<u8>> {
    patched(body, &Patch { stamp: Some(stamp), ..Patch::default() })
}

/// The body of a read that is to see at least this index.
pub(crate) fn seeing(body: &[u8], index: u64) -> Option<Vec<u8>> {
    patched(body, &Patch { seen: Some(index), ..Patch::default() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::body::query::{QueryOptions, WriteRequest};
    use crate::wire::body::session::{STAMP, SessionKey};
    use crate::wire::msgpack::{Decoder, Msg};

    // R2.23: what is put in lies beside all that was there, and is read back.
    #[test]
    fn a_stamp_lies_beside_the_other_fields_once() {
        let write = WriteRequest { region: "global".to_owned(), auth_token: "t".to_owned(), ..WriteRequest::default() };
        let stamp = WriteStamp { id: 7, key: SessionKey(vec![1; 16]), sequence: 2, acknowledged_below: 1 };
        let once = stamped(&write.to_bytes(), &stamp).unwrap();
        let twice = stamped(&once, &stamp).unwrap();
        assert_eq!(once, twice);
        assert_eq!(WriteRequest::from_bytes(&twice), Ok(write));
        let at = once.windows(STAMP.len()).position(|part| part == STAMP.as_bytes()).unwrap();
        let mut d = Decoder::new(&once[at + STAMP.len()..]);
        assert_eq!(WriteStamp::from_bytes(d.raw().unwrap()), Ok(stamp));
        for none in [&b""[..], b"\xc0", b"\x80"] {
            assert!(seeing(none, 9).is_some());
        }
        assert_eq!(seeing(b"\x91\x01", 9), None);
    }

    proptest! {
        #[test]
        fn any_body_gives_a_verdict(body in prop::collection::vec(any::<u8>(), 0..60), index: u64) {
            if let Some(out) = seeing(&body, index) {
                prop_assert!(Decoder::new(&out).raw().is_ok());
                prop_assert_eq!(seeing(&out, index), Some(out.clone()));
                if let Ok(before) = QueryOptions::from_bytes(&body) {
                    prop_assert_eq!(QueryOptions::from_bytes(&out), Ok(before));
                }
            }
        }
    }
}
