//! Options and meta that lie flat in every request and reply, and the few of them that routing reads.
//!
//! Source: transport notes, section 5.1; endpoint notes, section 1.1.

use std::sync::Arc;

use crate::wire::body::session::{SEEN, STAMP, WriteStamp};
use crate::wire::msgpack::{Decoder, Encoder, Kind, Msg, Result};
use crate::wire_structs;

wire_structs! {
    /// Options of a read.
    pub struct QueryOptions {
        /// Which region is meant.
        region: String = "Region",
        /// Empty means `default`.
        namespace: String = "Namespace",
        /// Above 0: answer once the result's index is above it.
        min_query_index: u64 = "MinQueryIndex",
        /// Nanoseconds to wait at most; 0 means the default.
        max_query_time: i64 = "MaxQueryTime",
        /// Any server may answer.
        allow_stale: bool = "AllowStale",
        /// Limits a list to ids that begin with it.
        prefix: String = "Prefix",
        /// Who is asking.
        auth_token: String = "AuthToken",
        /// A go-bexpr expression.
        filter: String = "Filter",
        /// Items of a page; 0 means all.
        per_page: i32 = "PerPage",
        /// Where the page begins.
        next_token: String = "NextToken",
        /// Descending order.
        reverse: bool = "Reverse",
        /// Another server passed the request on.
        forwarded: bool = "Forwarded",
    }
    /// Options of a write.
    pub struct WriteRequest {
        /// Which region is meant.
        region: String = "Region",
        /// Empty means `default`.
        namespace: String = "Namespace",
        /// Who is asking.
        auth_token: String = "AuthToken",
        /// Used by jobs only.
        idempotency_token: String = "IdempotencyToken",
        /// Another server passed the request on.
        forwarded: bool = "Forwarded",
    }
    /// What a read reply says about itself.
    pub struct QueryMeta {
        /// The index of the result.
        index: u64 = "Index",
        /// Nanoseconds since the leader was heard; 0 from the leader.
        last_contact: i64 = "LastContact",
        /// Whether a leader is known.
        known_leader: bool = "KnownLeader",
        /// Where the next page begins; empty on the last.
        next_token: String = "NextToken",
    }
    /// What a write reply says about itself.
    pub struct WriteMeta {
        /// The log index of the write.
        index: u64 = "Index",
    }
    /// A request with options only.
    pub struct GenericRequest {
        ..query: QueryOptions,
    }
    /// A reply with meta only.
    pub struct GenericResponse {
        ..meta: WriteMeta,
    }
}

/// The field that says that a request was passed on within its region already; Nomad's Forwarded is set between regions
/// too. Go peers skip it.
pub const HOP: &str = "HoldfastHop";

/// The field of a read that is to be true of the moment it was asked, on whichever server.
pub const CONSISTENT: &str = "Consistent";

/// The fields of a request's body that decide where it is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFields {
    /// Region.
    pub region: String,
    /// AllowStale.
    pub allow_stale: bool,
    /// Forwarded.
    pub forwarded: bool,
    /// MinQueryIndex.
    pub min_query_index: u64,
    /// MaxQueryTime, nanoseconds.
    pub max_query_time: i64,
    /// [`HOP`].
    pub hop: bool,
    /// [`CONSISTENT`].
    pub consistent: bool,
    /// [`STAMP`].
    pub stamp: Option<Arc<WriteStamp>>,
    /// [`SEEN`].
    pub seen: u64,
}

/// Reads the routing fields in one pass over a body. A body that is no map gives the defaults; one that is an array
/// too (its fields have no names; the handler decodes it whole and reads the region there).
///
/// # Errors
/// Where a field is of another kind.
pub fn route_fields(body: &[u8], base: u64) -> Result<RouteFields> {
    let mut fields = RouteFields::default();
    let mut d = Decoder::with_base(body, base);
    if body.is_empty() || d.kind()? != Kind::Map {
        return Ok(fields);
    }
    for _ in 0..d.map()?.unwrap_or(0) {
        match d.bytes()? {
            b"Region" => fields.region = d.str()?.to_owned(),
            b"AllowStale" => fields.allow_stale = d.bool()?,
            b"Forwarded" => fields.forwarded = d.bool()?,
            b"MinQueryIndex" => fields.min_query_index = d.u64()?,
            b"MaxQueryTime" => fields.max_query_time = d.i64()?,
            key if key == HOP.as_bytes() => fields.hop = d.bool()?,
            key if key == CONSISTENT.as_bytes() => fields.consistent = d.bool()?,
            key if key == STAMP.as_bytes() => fields.stamp = Option::decode(&mut d)?.map(Arc::new),
            key if key == SEEN.as_bytes() => fields.seen = d.u64()?,
            _ => d.skip()?,
        }
    }
    Ok(fields)
}

/// A body without the fields whose value is the zero of its kind: a missing field means the same, and Go writes them
/// all. `None` for a body that is no map, or not whole.
pub fn without_zeros(body: &[u8]) -> Option<Vec<u8>> {
    let mut d = Decoder::new(body);
    if d.kind().ok()? != Kind::Map {
        return None;
    }
    let len = d.map().ok()??;
    let mut kept = Encoder::new();
    let mut count = 0;
    for _ in 0..len {
        let (key, value) = (d.raw().ok()?, d.raw().ok()?);
        // nil, false, 0, and the empty string, list and map are a byte each.
        if !matches!(value, [0xc0 | 0xc2 | 0x00 | 0xa0 | 0x90 | 0x80]) {
            kept.raw(key);
            kept.raw(value);
            count += 1;
        }
    }
    let mut whole = Encoder::new();
    whole.map(count);
    whole.raw(&kept.out);
    Some(whole.out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_body_without_its_zeros_means_the_same() {
        let whole = QueryOptions {
            region: "global".to_owned(),
            min_query_index: 300,
            allow_stale: true,
            auth_token: "t".repeat(40),
            ..QueryOptions::default()
        };
        let bytes = whole.to_bytes();
        let short = without_zeros(&bytes).expect("a map");
        assert!(short.len() < bytes.len() - 60, "{} of {}", short.len(), bytes.len());
        assert_eq!(QueryOptions::from_bytes(&short), Ok(whole));
        assert_eq!(without_zeros(&QueryOptions::default().to_bytes()).as_deref(), Some(&[0x80][..]));
        for other in [&b"\x91\x01"[..], b"\xc0", b"", b"\x82\xa1a", b"\x81\xa1a"] {
            assert_eq!(without_zeros(other), None, "{other:02x?}");
        }
    }

    #[test]
    fn routing_fields_are_found_wherever_they_lie() {
        let body =
            b"\x87\xa5Other\x82\x01\x92\x02\xa1x\xa1y\xc0\xa6Region\xa6global\xaaAllowStale\xc3\xa9Forwarded\xc3\
            \xadMinQueryIndex\xcc\xc8\xacMaxQueryTime\xd3\x00\x00\x00\x02\x54\x0b\xe4\x00\xa1z\xc4\x01\x00";
        let fields = RouteFields {
            region: "global".to_owned(),
            allow_stale: true,
            forwarded: true,
            min_query_index: 200,
            max_query_time: 10_000_000_000,
            ..RouteFields::default()
        };
        assert_eq!(route_fields(body, 0), Ok(fields));
    }

    #[test]
    fn bodies_without_names_give_the_defaults() {
        for body in
            [&b""[..], b"\xc0", b"\x80", b"\x90", b"\x92\xa6global\xc3", b"\x07", b"\xa3abc", b"\x81\xa6Region\xc0"]
        {
            assert_eq!(route_fields(body, 0), Ok(RouteFields::default()), "{body:02x?}");
        }
    }

    #[test]
    fn a_field_of_another_kind_is_an_error_at_its_place() {
        let error = route_fields(b"\x82\xa1x\x01\xa6Region\x05", 33).unwrap_err();
        assert_eq!(
            error.to_string(),
            "msgpack decode error [pos 45]: invalid byte descriptor for decoding bytes, got: 0x05"
        );
        for body in [
            &b"\x81\xaaAllowStale\x01"[..],
            b"\x81\xadMinQueryIndex\xff",
            b"\x81\xacMaxQueryTime\xa1x",
            b"\x81\x05\x05",
            b"\x82\xa1x\x01",
            b"\x81\xa1x",
            b"\xc1",
        ] {
            assert!(route_fields(body, 0).is_err(), "{body:02x?}");
        }
    }

    #[test]
    fn routing_reads_what_the_whole_decoder_reads() {
        let query = QueryOptions {
            region: "west".to_owned(),
            namespace: "n".to_owned(),
            min_query_index: 70_000,
            max_query_time: 300_000_000_000,
            allow_stale: true,
            per_page: -1,
            forwarded: true,
            ..QueryOptions::default()
        };
        let fields = route_fields(&GenericRequest { query: query.clone() }.to_bytes(), 0).unwrap();
        assert_eq!(fields.region, query.region);
        assert_eq!(fields.min_query_index, query.min_query_index);
        assert_eq!(fields.max_query_time, query.max_query_time);
        assert!(fields.allow_stale && fields.forwarded);
    }

    proptest! {
        #[test]
        fn routing_agrees_with_the_whole_decoder(
            body in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..80),
                // Maps of the right names with values of any kind.
                prop::collection::vec(
                    (
                        prop::sample::select(vec!["Region", "AllowStale", "Forwarded", "MinQueryIndex", "MaxQueryTime", "X"]),
                        prop::sample::select(vec![&b"\xc0"[..], b"\xc3", b"\xa1a", b"\x05", b"\xff", b"\x92\x01\x80", b"\x81\xa1a\xc2"]),
                    ),
                    0..8,
                ).prop_map(|entries| {
                    let mut e = Encoder::new();
                    e.map(entries.len());
                    for (key, value) in entries {
                        e.str(key);
                        e.raw(value);
                    }
                    e.out
                }),
            ],
            base: u64,
        ) {
            let found = route_fields(&body, base);
            if body.first().is_some_and(|first| *first == 0xde || first & 0xf0 == 0x80)
                && let Ok(whole) = QueryOptions::from_bytes(&body)
            {
                prop_assert_eq!(found, Ok(RouteFields {
                    region: whole.region,
                    allow_stale: whole.allow_stale,
                    forwarded: whole.forwarded,
                    min_query_index: whole.min_query_index,
                    max_query_time: whole.max_query_time,
                    ..RouteFields::default()
                }));
            }
        }
    }
}
