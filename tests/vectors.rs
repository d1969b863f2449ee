//! Bytes captured from real peers, against the decoders and encoders: whole, in pieces, and back.
//!
//! The vectors and how each was made are described in `tests/vectors/index.json`. Nothing here opens a connection.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use holdfast::wire::body::node::{go_time, go_zero_time};
use holdfast::wire::body::query::{GenericRequest, GenericResponse, QueryMeta, QueryOptions, WriteMeta, route_fields};
use holdfast::wire::msgpack::{Bytes, Decoder, Encoder, Msg, Scan, Scanner};
use holdfast::wire::rpc::{self, ReplyHead, RequestHead};
use holdfast::wire::streaming::{
    EventData, EventStreamWrapper, StreamErrWrapper, StreamError, StreamingAck, StreamingHeader,
};
use holdfast::wire::yamux;
use serde_json::Value;

const MAX_BYTES: usize = 16 << 20;

fn vectors() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
        .iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
        })
        .collect()
}

fn vector(name: &str) -> Value {
    vectors().into_iter().find(|(found, _)| found == name).unwrap().1
}

fn unhex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// One message of a vector.
struct Message {
    /// Vector, and its place in it.
    place: String,
    kind: String,
    bytes: Vec<u8>,
    decoded: Value,
    /// A Go peer wrote it, not a test by hand.
    from_go: bool,
}

fn messages() -> Vec<Message> {
    let mut found = Vec::new();
    for (name, vector) in vectors() {
        let by_hand = vector["client"].as_str().is_none_or(|client| client.contains("hand-made"))
            || vector["layer"].as_str().is_some_and(|layer| layer.contains("hand-made"));
        let streams = items(&vector, "streams").iter().map(|stream| items(stream, "messages"));
        for (nth, message) in streams.chain([items(&vector, "messages")]).flatten().enumerate() {
            let kind = message["kind"].as_str().unwrap().to_owned();
            if kind == "undecodable" {
                continue;
            }
            // Very long ones are noted by their beginning only.
            let hex = message["hex"].as_str().unwrap();
            if hex.contains("...") {
                continue;
            }
            let bytes = unhex(hex);
            assert_eq!(bytes.len() as u64, message["len"].as_u64().unwrap());
            found.push(Message {
                place: format!("{name} #{nth} {kind}"),
                kind,
                bytes,
                decoded: message["decoded"].clone(),
                from_go: !by_hand || message["dir"] == "s2c",
            });
        }
    }
    found
}

/// The vectors' own notation for the next value.
fn to_notation(d: &mut Decoder<'_>) -> Value {
    use holdfast::wire::msgpack::Kind;
    let first = d.clone().raw().unwrap()[0];
    match d.kind().unwrap() {
        Kind::Nil => {
            assert!(d.nil().unwrap());
            Value::Null
        }
        Kind::Bool => d.bool().unwrap().into(),
        Kind::Int if first == 0xcf => d.u64().unwrap().into(),
        Kind::Int => d.i64().unwrap().into(),
        Kind::Float => serde_json::json!({ "$f64": d.f64().unwrap() }),
        Kind::Str => {
            let bytes = d.bytes().unwrap();
            let text = std::str::from_utf8(bytes).map_err(|_| ());
            match (first, text) {
                (0xd9, Ok(text)) => serde_json::json!({ "$str8": text }),
                (0xc4, Ok(text)) => serde_json::json!({ "$bin8": text }),
                (_, Ok(text)) => text.into(),
                (_, Err(())) => {
                    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    serde_json::json!({ "$raw_hex": digits })
                }
            }
        }
        Kind::Array => (0..d.array().unwrap().unwrap()).map(|_| to_notation(d)).collect(),
        Kind::Map => {
            let mut map = serde_json::Map::new();
            for _ in 0..d.map().unwrap().unwrap() {
                let key = d.str().unwrap().to_owned();
                map.insert(key, to_notation(d));
            }
            map.into()
        }
        Kind::Ext => panic!("no peer sends extensions"),
    }
}

/// Folds away where the notation has a choice: printable text may be noted as hex too.
fn fold(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(fold).collect(),
        Value::Object(map) => {
            if let Some(Value::String(digits)) = map.get("$raw_hex")
                && let Ok(text) = String::from_utf8(unhex(digits))
            {
                return text.into();
            }
            map.iter().map(|(key, value)| (key.clone(), fold(value))).collect()
        }
        other => other.clone(),
    }
}

#[test]
fn there_are_vectors() {
    assert!(vectors().len() > 100);
    assert!(messages().len() > 750);
}

#[test]
fn every_message_ends_where_it_ended_on_the_wire() {
    for message in messages() {
        let mut followed = message.bytes.clone();
        followed.extend(b"\x82\xa3Seq");
        let len = message.bytes.len();
        assert_eq!(Scanner::default().scan(&followed, MAX_BYTES), Ok(Scan::Complete(len)), "{}", message.place);
        assert_eq!(Scanner::default().scan(&message.bytes, len), Ok(Scan::Complete(len)), "{}", message.place);
        // Cut in two anywhere, and dripped in byte by byte.
        let mut dripped = Scanner::default();
        for cut in 0..len {
            let mut halves = Scanner::default();
            assert_eq!(halves.scan(&message.bytes[..cut], MAX_BYTES), Ok(Scan::Partial), "{}", message.place);
            assert_eq!(halves.scan(&followed, MAX_BYTES), Ok(Scan::Complete(len)), "{}", message.place);
            assert_eq!(dripped.scan(&message.bytes[..cut], MAX_BYTES), Ok(Scan::Partial), "{}", message.place);
        }
        assert_eq!(dripped.scan(&message.bytes, MAX_BYTES), Ok(Scan::Complete(len)), "{}", message.place);
    }
}

#[test]
fn every_message_decodes_to_what_was_noted() {
    for message in messages() {
        let mut d = Decoder::new(&message.bytes);
        assert_eq!(fold(&to_notation(&mut d)), fold(&message.decoded), "{}", message.place);
        assert!(d.at_end());
    }
}

#[test]
fn heads_decode_and_go_heads_come_back_byte_for_byte() {
    let mut from_go = 0;
    for message in messages() {
        let Message { place, bytes, decoded, .. } = &message;
        let mut e = Encoder::new();
        match message.kind.as_str() {
            // Captured to show what a server does not take (codec_string_header, data_after_fin).
            "request-header" if !decoded.is_object() && !decoded.is_array() => {
                assert!(rpc::decode_request_head(bytes).is_err(), "{place}");
                continue;
            }
            "request-header" => {
                let RequestHead { seq, service_method } = rpc::decode_request_head(bytes).expect(place);
                if let Some(noted) = decoded["Seq"].as_u64() {
                    assert_eq!(seq, noted, "{place}");
                }
                if message.from_go {
                    assert_eq!(decoded["ServiceMethod"], service_method, "{place}");
                }
                rpc::encode_request_head(&mut e, seq, &service_method);
            }
            "response-header" => {
                let ReplyHead { error, seq, service_method, .. } = rpc::decode_reply_head(bytes).expect(place);
                assert_eq!(decoded["Error"], error, "{place}");
                rpc::encode_reply_head(&mut e, &error, seq, &service_method);
            }
            "streaming-header" => {
                let header = StreamingHeader::from_bytes(bytes).unwrap();
                assert_eq!(decoded["Method"], header.method, "{place}");
                header.encode(&mut e);
            }
            "streaming-ack" => {
                let ack = StreamingAck::from_bytes(bytes).unwrap();
                assert_eq!(decoded["Error"], ack.error, "{place}");
                ack.encode(&mut e);
            }
            _ => continue,
        }
        if message.from_go {
            from_go += 1;
            assert_eq!(&e.out, bytes, "{place}");
        }
    }
    assert!(from_go > 350, "{from_go}");
}

// R1j "decoder": bin and str8, an array for the map, any order, a nil body.
#[test]
fn hand_made_heads_mean_what_the_peer_took_them_for() {
    let first = |name: &str| -> (Vec<u8>, Vec<u8>) {
        let place = format!("{name} #");
        let mut found = messages().into_iter().filter(|message| message.place.starts_with(&place));
        (found.next().unwrap().bytes, found.next().unwrap().bytes)
    };
    for (name, seq) in [("codec_header_seq_first", 256), ("codec_header_array", 7), ("args_nil_body", 32)] {
        let (head, body) = first(name);
        let head = rpc::decode_request_head(&head).unwrap();
        assert_eq!((head.seq, head.service_method.as_str()), (seq, "Status.Ping"), "{name}");
        assert_eq!(route_fields(&body, 0).unwrap(), Default::default(), "{name}");
        assert_eq!(GenericRequest::from_bytes(&body).unwrap(), GenericRequest::default(), "{name}");
    }
}

// The error of a body that does not fit is the peer's own, position and all.
#[test]
fn a_bad_body_is_refused_in_the_words_of_the_peer() {
    for name in ["error_bad_body", "error_bad_body__v112"] {
        let place = format!("{name} #");
        let found: Vec<Message> = messages().into_iter().filter(|message| message.place.starts_with(&place)).collect();
        let [head, body, reply, ..] = found.as_slice() else { panic!("{name}") };
        let error = route_fields(&body.bytes, head.bytes.len() as u64).unwrap_err();
        assert_eq!(rpc::decode_reply_head(&reply.bytes).unwrap().error, error.to_string());
    }
}

#[test]
fn routing_fields_are_found_in_every_captured_body() {
    let mut with_region = 0;
    for message in messages() {
        if message.kind != "request-body" || message.place.starts_with("error_bad_body") {
            continue;
        }
        let fields = route_fields(&message.bytes, 0).unwrap();
        let text = |key: &str| message.decoded[key].as_str().unwrap_or_default().to_owned();
        assert_eq!(fields.region, text("Region"), "{}", message.place);
        assert_eq!(fields.allow_stale, message.decoded["AllowStale"].as_bool().unwrap_or_default());
        assert_eq!(fields.forwarded, message.decoded["Forwarded"].as_bool().unwrap_or_default());
        assert_eq!(fields.min_query_index, message.decoded["MinQueryIndex"].as_u64().unwrap_or_default());
        assert_eq!(fields.max_query_time, message.decoded["MaxQueryTime"].as_i64().unwrap_or_default());
        with_region += usize::from(!fields.region.is_empty());
    }
    assert!(with_region > 100, "{with_region}");
}

/// The bytes that our encoder makes of a case of `msgpack_values`; `None` for types that no struct here has.
fn encode_case(kind: &str, value: &str) -> Option<Vec<u8>> {
    let mut e = Encoder::new();
    match kind {
        "int64" | "int32" => e.i64(value.parse().unwrap()),
        "*int64" => Some(value.parse::<i64>().unwrap()).encode(&mut e),
        "uint64" | "uint8" => e.u64(value.parse().unwrap()),
        "bool" => e.bool(value.parse().unwrap()),
        "float64" => e.f64(value.parse().unwrap()),
        "string" if value.starts_with("non UTF-8") => e.bytes(&[0xfe, 0xff]),
        "string" => e.str(&"a".repeat(value.split(' ').next().unwrap().parse().unwrap())),
        "[]byte" => match value {
            "nil" => None::<Bytes>.encode(&mut e),
            "empty, not nil" => Bytes::default().encode(&mut e),
            "01 02 ff" => Bytes(vec![1, 2, 255]).encode(&mut e),
            "40 bytes of 07" => Bytes(vec![7; 40]).encode(&mut e),
            other => panic!("{other}"),
        },
        "[]string" => match value {
            "nil" => None::<Vec<String>>.encode(&mut e),
            "empty, not nil" => Vec::<String>::new().encode(&mut e),
            "a, b" => vec!["a".to_owned(), "b".to_owned()].encode(&mut e),
            other => panic!("{other}"),
        },
        "[]int" => vec![0i64; 16].encode(&mut e),
        "map[string]string" => match value {
            "nil" => None::<BTreeMap<String, String>>.encode(&mut e),
            "empty, not nil" => BTreeMap::<String, String>::new().encode(&mut e),
            "k: v" => BTreeMap::from([("k".to_owned(), "v".to_owned())]).encode(&mut e),
            other => panic!("{other}"),
        },
        "nil interface" | "*T field" => e.nil(),
        "time.Duration" => e.i64(match value {
            "10s" => 10_000_000_000,
            "300s" => 300_000_000_000,
            "1 hour" => 3_600_000_000_000,
            other => panic!("{other}"),
        }),
        "time.Time UTC" => go_time(1_767_323_045_678_901_234).encode(&mut e),
        "time.Time" => go_zero_time().encode(&mut e),
        "net.IP" if value.contains("4-byte") => e.bytes(&[127, 0, 0, 1]),
        "struct{}" => e.map(0),
        "GenericRequest" | "*GenericRequest" => GenericRequest {
            query: QueryOptions {
                region: "global".to_owned(),
                min_query_index: 300,
                max_query_time: 200,
                ..QueryOptions::default()
            },
        }
        .encode(&mut e),
        "GenericResponse" => GenericResponse { meta: WriteMeta { index: 7 } }.encode(&mut e),
        "StreamingRpcHeader" => StreamingHeader { method: "Event.Stream".to_owned() }.encode(&mut e),
        "StreamingRpcAck" => StreamingAck::default().encode(&mut e),
        "StreamErrWrapper" if value == "payload abc" => {
            StreamErrWrapper { error: None, payload: Some(Bytes(b"abc".to_vec())) }.encode(&mut e);
        }
        "StreamErrWrapper" => {
            // The note of the vector says 404; the bytes that Go wrote say 400.
            let code = value.contains("404").then_some(400);
            StreamErrWrapper { error: Some(StreamError { message: "nope".to_owned(), code }), payload: None }
                .encode(&mut e);
        }
        "EventStreamWrapper" if value == "heartbeat" => {
            EventStreamWrapper { error: None, event: Some(EventData { data: Bytes(b"{}".to_vec()) }) }.encode(&mut e);
        }
        "EventStreamWrapper" => EventStreamWrapper {
            error: Some(StreamError { message: "No path to region".to_owned(), code: Some(500) }),
            event: None,
        }
        .encode(&mut e),
        _ => return None,
    }
    Some(e.out)
}

#[test]
fn values_are_written_as_go_writes_them() {
    let file = vector("msgpack_values");
    let mut expressed = 0;
    for case in items(&file, "values") {
        let (kind, value) = (case["type"].as_str().unwrap(), case["value"].as_str().unwrap());
        let Some(ours) = encode_case(kind, value) else { continue };
        expressed += 1;
        let hex = case["hex"].as_str().unwrap();
        match hex.split_once("...") {
            None => assert_eq!(ours, unhex(hex), "{kind} {value}"),
            Some((begin, total)) => {
                assert!(ours.starts_with(&unhex(begin)), "{kind} {value}");
                assert_eq!(format!("{} bytes in all", ours.len()), total, "{kind} {value}");
            }
        }
    }
    assert!(expressed >= 70, "{expressed}");
}

#[test]
fn every_value_of_go_is_measured_and_skipped() {
    let file = vector("msgpack_values");
    for case in items(&file, "values") {
        for hex in [&case["hex"], &case["hex_name_order"]].into_iter().filter_map(Value::as_str) {
            if hex.contains("...") {
                continue;
            }
            let bytes = unhex(hex);
            assert_eq!(Scanner::default().scan(&bytes, MAX_BYTES), Ok(Scan::Complete(bytes.len())), "{case}");
            assert_eq!(Decoder::new(&bytes).raw(), Ok(bytes.as_slice()), "{case}");
        }
    }
}

#[test]
fn both_field_orders_mean_the_same() {
    let file = vector("msgpack_values");
    let mut compared = 0;
    for case in items(&file, "values") {
        let Some(by_name) = case["hex_name_order"].as_str() else { continue };
        let (declared, by_name) = (unhex(case["hex"].as_str().unwrap()), unhex(by_name));
        fn same<T: Msg + PartialEq + std::fmt::Debug>(a: &[u8], b: &[u8]) {
            assert_eq!(T::from_bytes(a).unwrap(), T::from_bytes(b).unwrap());
        }
        match case["type"].as_str().unwrap() {
            "StreamErrWrapper" => same::<StreamErrWrapper>(&declared, &by_name),
            "EventStreamWrapper" => same::<EventStreamWrapper>(&declared, &by_name),
            "GenericRequest" | "*GenericRequest" => same::<GenericRequest>(&declared, &by_name),
            "NodeListResponse" | "QueryMeta inside NodeListResponse" => same::<QueryMeta>(&declared, &by_name),
            _ => continue,
        }
        compared += 1;
    }
    assert!(compared >= 5, "{compared}");
}

#[test]
fn yamux_headers_of_go_come_back_byte_for_byte() {
    let mut compared = 0;
    let file = vector("yamux_frames");
    let groups = items(&file, "frames").iter().flat_map(|group| {
        let (kind, flags) = (group["type"].clone(), group["flags"].clone());
        items(group, "samples").iter().map(move |sample| (kind.clone(), flags.clone(), sample.clone()))
    });
    let captured: Vec<Value> = vectors()
        .into_iter()
        .filter(|(name, vector)| name != "yamux_frames" && vector["client"] != "hand-made bytes")
        .flat_map(|(_, vector)| items(&vector, "frames").to_vec())
        .collect();
    let captured = captured.into_iter().map(|frame| (frame["type"].clone(), frame["flags"].clone(), frame));
    for (kind, flags, frame) in groups.chain(captured) {
        let bytes: [u8; yamux::HEADER_BYTES] = unhex(frame["header"].as_str().unwrap()).try_into().unwrap();
        let header = yamux::Header::decode(&bytes).unwrap();
        assert_eq!(header.encode(), bytes);
        assert_eq!(kind, format!("{:?}", header.frame_type), "{frame}");
        assert_eq!(frame["stream"], header.stream, "{frame}");
        assert_eq!(frame["length"], header.length, "{frame}");
        let named = [(yamux::SYN, "SYN"), (yamux::ACK, "ACK"), (yamux::FIN, "FIN"), (yamux::RST, "RST")];
        for (bit, name) in named {
            assert_eq!(header.flags & bit != 0, flags.as_str().unwrap().contains(name), "{frame}");
        }
        compared += 1;
    }
    assert!(compared > 500, "{compared}");
}
