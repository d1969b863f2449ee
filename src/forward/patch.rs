//! The body of a call as another server is to get it: a few fields changed, all others as they came, in their order.

use crate::wire::body::query::{CONSISTENT, HOP};
use crate::wire::body::session::{SEEN, STAMP, WriteStamp};
use crate::wire::msgpack::{Decoder, Encoder, Kind, Msg};

/// What is changed; a field that is `None` or false stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch<'a> {
    /// Another server passes it on: `Forwarded` is set.
    pub forwarded: bool,
    /// It was passed on within its region and is not to be passed on there again (R1.73).
    pub hop: bool,
    /// It is to be true of the moment it was asked (Consistent).
    pub consistent: bool,
    /// What is left of the time that the caller will wait, nanoseconds.
    pub max_query_time: Option<i64>,
    /// The region that is meant.
    pub region: Option<&'a str>,
    /// Who asks.
    pub auth_token: Option<&'a str>,
    /// The place of a write in a session.
    pub stamp: Option<&'a WriteStamp>,
    /// The index up to which a read is to see all.
    pub seen: Option<u64>,
    /// Which server is meant (Agent.Monitor): cleared once that server is asked.
    pub server_id: Option<&'a str>,
}

impl Patch<'_> {
    fn names(&self, key: &[u8]) -> bool {
        match key {
            b"Forwarded" => self.forwarded,
            b"MaxQueryTime" => self.max_query_time.is_some(),
            b"Region" => self.region.is_some(),
            b"AuthToken" => self.auth_token.is_some(),
            b"ServerID" => self.server_id.is_some(),
            key if key == STAMP.as_bytes() => self.stamp.is_some(),
            key if key == SEEN.as_bytes() => self.seen.is_some(),
            key if key == HOP.as_bytes() => self.hop,
            key if key == CONSISTENT.as_bytes() => self.consistent,
            _ => false,
        }
    }

    fn write(&self, e: &mut Encoder) -> usize {
        let mut count = 0;
        for (name, set) in [("Forwarded", self.forwarded), (HOP, self.hop), (CONSISTENT, self.consistent)] {
            if set {
                e.str(name);
                e.bool(true);
                count += 1;
            }
        }
        if let Some(nanos) = self.max_query_time {
            e.str("MaxQueryTime");
            e.i64(nanos);
            count += 1;
        }
        if let Some(stamp) = self.stamp {
            e.str(STAMP);
            stamp.encode(e);
            count += 1;
        }
        if let Some(index) = self.seen {
            e.str(SEEN);
            e.u64(index);
            count += 1;
        }
        for (name, text) in [("Region", self.region), ("AuthToken", self.auth_token), ("ServerID", self.server_id)] {
            if let Some(text) = text {
                e.str(name);
                e.str(text);
                count += 1;
            }
        }
        count
    }
}

/// The body with these changes. `None` for one that cannot be read, or whose fields have no names.
pub fn patched(body: &[u8], patch: &Patch<'_>) -> Option<Vec<u8>> {
    let mut d = Decoder::new(body);
    let len = match body.first() {
        None => 0,
        Some(_) => match d.kind().ok()? {
            Kind::Map => d.map().ok()?.unwrap_or(0),
            Kind::Nil => 0,
            _ => return None,
        },
    };
    let mut fields = Encoder { out: Vec::with_capacity(body.len() + 96) };
    let mut count = patch.write(&mut fields);
    for _ in 0..len {
        let key = d.raw().ok()?;
        let value = d.raw().ok()?;
        if !Decoder::new(key).bytes().is_ok_and(|name| patch.names(name)) {
            fields.raw(key);
            fields.raw(value);
            count += 1;
        }
    }
    let mut whole = Encoder { out: Vec::with_capacity(fields.out.len() + 5) };
    whole.map(count);
    whole.raw(&fields.out);
    Some(whole.out)
}

/// The text at a path of field names of a body, when it is there: a node's id, mostly.
pub fn text_at<'a>(body: &'a [u8], path: &[&str]) -> Option<&'a str> {
    let (first, rest) = path.split_first()?;
    let mut d = Decoder::new(body);
    if body.is_empty() || d.kind().ok()? != Kind::Map {
        return None;
    }
    for _ in 0..d.map().ok()?? {
        let key = d.bytes().ok()?;
        let value = d.raw().ok()?;
        if key == first.as_bytes() {
            return if rest.is_empty() { Decoder::new(value).str().ok() } else { text_at(value, rest) };
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::body::query::{GenericRequest, QueryOptions, route_fields};

    #[test]
    fn what_is_named_is_changed_and_the_rest_stays_as_it_came() {
        // R1.67, R1.78
        let query = QueryOptions {
            region: "global".to_owned(),
            auth_token: "secret".to_owned(),
            min_query_index: 9,
            max_query_time: 300,
            per_page: 7,
            ..QueryOptions::default()
        };
        let body = GenericRequest { query: query.clone() }.to_bytes();
        let patch = Patch { forwarded: true, hop: true, max_query_time: Some(20), ..Patch::default() };
        let out = patched(&body, &patch).unwrap();
        let expected = QueryOptions { forwarded: true, max_query_time: 20, ..query };
        assert_eq!(GenericRequest::from_bytes(&out), Ok(GenericRequest { query: expected }));
        let fields = route_fields(&out, 0).unwrap();
        assert!(fields.forwarded && fields.hop && !fields.consistent);
        let again = patched(&out, &patch).unwrap();
        assert_eq!(again, out, "done twice, it is as if done once");
    }

    // R2.23, R2.30
    #[test]
    fn a_place_in_a_session_and_what_was_seen_take_the_place_of_others() {
        let stamp = WriteStamp { id: 7, sequence: 3, acknowledged_below: 2, ..WriteStamp::default() };
        let patch = Patch { stamp: Some(&stamp), seen: Some(9), ..Patch::default() };
        let out = patched(b"\x82\xa1x\x01\xacHoldfastSeen\x05", &patch).unwrap();
        let fields = route_fields(&out, 0).unwrap();
        assert_eq!((fields.stamp.as_deref(), fields.seen), (Some(&stamp), 9));
        assert_eq!(patched(&out, &patch), Some(out));
    }

    #[test]
    fn bodies_of_other_forms() {
        let patch = Patch { region: Some("west"), auth_token: Some("t"), ..Patch::default() };
        for none in [&b""[..], b"\xc0", b"\x80"] {
            let out = patched(none, &patch).unwrap();
            assert_eq!(text_at(&out, &["Region"]), Some("west"));
        }
        for other in [&b"\x91\x01"[..], b"\x07", b"\x82\xa1a", b"\x81\xa1a", b"\xc1"] {
            assert_eq!(patched(other, &patch), None, "{other:02x?}");
        }
    }

    #[test]
    fn a_text_is_found_by_its_path() {
        let body = b"\x82\xa1x\x01\xa4Node\x82\xa1y\xc0\xa2ID\xa3abc";
        assert_eq!(text_at(body, &["Node", "ID"]), Some("abc"));
        for path in [&["Node"][..], &["ID"], &["Node", "y", "z"], &[]] {
            assert_eq!(text_at(body, path), None, "{path:?}");
        }
        assert_eq!(text_at(b"\x82\xa1x", &["x"]), None);
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_makes_it_fail_badly(body in prop::collection::vec(any::<u8>(), 0..60)) {
            let patch = Patch { forwarded: true, hop: true, region: Some("r"), ..Patch::default() };
            if let Some(out) = patched(&body, &patch) {
                let fields = route_fields(&out, 0);
                prop_assert!(fields.is_err() || fields.is_ok_and(|fields| fields.forwarded && fields.hop));
            }
            let _ = text_at(&body, &["Node", "ID"]);
        }
    }
}
