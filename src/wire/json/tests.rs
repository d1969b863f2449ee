//! Values and their text.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::msgpack::Encoder;

fn plain(value: &[u8]) -> String {
    let mut out = String::new();
    to_json_in_style(value, JsonStyle::PLAIN, &mut out).unwrap();
    out
}

#[test]
fn durations_are_told_as_go_does() {
    for (nanos, text) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5\u{b5}s"),
        (-250_000_000, "-250ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (3_600_250_000_000, "1h0m0.25s"),
        (86_400_000_000_000, "24h0m0s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(go_duration_text(nanos), text);
    }
}

#[test]
fn values_become_json() {
    for (value, json) in [
        (&b"\xc0"[..], "null"),
        (b"\xc3", "true"),
        (b"\xc2", "false"),
        (b"\x07", "7"),
        (b"\xff", "-1"),
        (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
        (b"\xd3\x80\x00\x00\x00\x00\x00\x00\x00", "-9223372036854775808"),
        (b"\xcb\x3f\xf8\x00\x00\x00\x00\x00\x00", "1.5"),
        (b"\xcb\x40\x49\x00\x00\x00\x00\x00\x00", "50"),
        (b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", "null"),
        (b"\xa0", "\"\""),
        (b"\xa5<a>&\"", "\"<a>&\\\"\""),
        (b"\xa4a\n\x01\\", "\"a\\n\\u0001\\\\\""),
        (b"\xa2\xc3\xa4", "\"\u{e4}\""),
        (b"\xa2\xfe\xff", "\"/v8=\""),
        (b"\xa3\xfe\xff\x00", "\"/v8A\""),
        (b"\xa1\xff", "\"/w==\""),
        (b"\x90", "[]"),
        (b"\x92\x01\x91\xc0", "[1,[null]]"),
        (b"\x80", "{}"),
        (b"\x82\xa1b\x01\xa1a\x80", "{\"b\":1,\"a\":{}}"),
        (b"\x81\x05\x06", "{\"5\":6}"),
    ] {
        assert_eq!(plain(value), json, "{value:02x?}");
    }
}

#[test]
fn keys_are_sorted_and_secrets_blanked() {
    let value = b"\x84\xa4Name\xa1n\xa8SecretID\xa3abc\xa2ID\xa1i\xa3Sub\x82\xa8SecretID\xc0\xa1A\x92\x01\x02";
    let mut out = String::from("x");
    to_json(value, &mut out).unwrap();
    assert_eq!(out, r#"x{"ID":"i","Name":"n","SecretID":"","Sub":{"A":[1,2],"SecretID":""}}"#);
    let kept = r#"{"Name":"n","SecretID":"abc","ID":"i","Sub":{"SecretID":null,"A":[1,2]}}"#;
    assert_eq!(plain(value), kept);
}

#[test]
fn times_are_known_by_name_and_shape() {
    let zone = |digits: [u8; 2]| {
        let mut bytes = b"\x01\x00\x00\x00\x0e\xe0\xe9\x10\x85\x00\x00\x00\x00".to_vec();
        bytes.extend(digits);
        bytes
    };
    for (bytes, text) in [
        (go_time(1_767_323_045_678_901_234).0, "2026-01-02T03:04:05.678901234Z"),
        (go_zero_time().0, "0001-01-01T00:00:00Z"),
        // Captured in msgpack_values: the same wall time at +02:00 and, with other seconds, at -05:30.
        (zone([0x00, 0x78]), "2026-01-02T03:04:05+02:00"),
        (b"\x01\x00\x00\x00\x0e\xe0\xe9\x79\xfd\x00\x00\x00\x00\xfe\xb6".to_vec(), "2026-01-02T03:04:05-05:30"),
    ] {
        assert_eq!(go_time_text(&bytes).as_deref(), Some(text));
        let mut e = Encoder::new();
        e.map(2);
        e.str("UpdateTime");
        e.bytes(&bytes);
        e.str("Other");
        e.bytes(&bytes);
        let json: serde_json::Value = serde_json::from_str(&plain(&e.out)).unwrap();
        assert_eq!(json["UpdateTime"], text);
        assert_ne!(json["Other"], text);
    }
    for none in [&b""[..], &[1; 14], &[2; 15], &[1; 16], &zone([0x7f, 0xff])] {
        assert_eq!(go_time_text(none), None, "{none:02x?}");
    }
    assert_eq!(go_time_text(&[[1u8, 0x7f].as_slice(), &[0xff; 13]].concat()), None);
    // The same name with an integer, as a variable has it.
    assert_eq!(plain(b"\x81\xaaCreateTime\x05"), "{\"CreateTime\":5}");
}

#[test]
fn what_owners_wrote_is_shown_as_they_wrote_it() {
    let mut e = Encoder::new();
    e.map(2);
    for field in ["Meta", "Other"] {
        e.str(field);
        e.map(3);
        for (key, value) in [("SecretID", &b"mine"[..]), ("Time", &go_zero_time().0), ("Hash", b"abc")] {
            e.str(key);
            e.bytes(value);
        }
    }
    let mut out = String::new();
    to_json(&e.out, &mut out).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&meta["Meta"]["SecretID"], &meta["Meta"]["Hash"]), (&"mine".into(), &"abc".into()));
    assert_ne!(meta["Meta"]["Time"], "0001-01-01T00:00:00Z");
    assert_eq!((&meta["Other"]["SecretID"], &meta["Other"]["Hash"]), (&"".into(), &"YWJj".into()));
    assert_eq!(meta["Other"]["Time"], "0001-01-01T00:00:00Z");
}

#[test]
fn durations_are_words_and_nil_fields_are_left_out_where_a_style_says_so() {
    let style = JsonStyle { durations: &["TTL"], omitted: &["A"], ..JsonStyle::PUBLIC };
    let shown = |value: &[u8]| {
        let mut out = String::new();
        to_json_in_style(value, style, &mut out).unwrap();
        out
    };
    let value = b"\x91\x84\xa3TTL\xd3\x00\x00\x00\x03\x7e\x11\xd6\x00\xa1A\xc0\xa1B\x81\xa1A\xc0\xa1C\x01";
    assert_eq!(shown(value), r#"[{"B":{"A":null},"C":1,"TTL":"15s"}]"#);
    assert_eq!(shown(b"\x82\xa1A\xc0\xa3TTL\x00"), r#"{"TTL":""}"#);
    assert_eq!(shown(b"\x82\xa1A\x01\xa1B\xc0"), r#"{"A":1,"B":null}"#);
}

#[test]
fn durations_are_told_as_go_does() {
    for (nanos, text) in [
        (0, "0s"),
        (7, "7ns"),
        (1_500, "1.5\u{b5}s"),
        (-250_000_000, "-250ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (3_600_250_000_000, "1h0m0.25s"),
        (86_400_000_000_000, "24h0m0s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        assert_eq!(go_duration_text(nanos), text);
    }
}

#[test]
fn durations_print_as_gos_do() {
    for (nanos, text) in [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1\u{b5}s"),
        (2_200_000, "2.2ms"),
        (200_000_000, "200ms"),
        (15_000_000_000, "15s"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (3_600_000_000_000, "1h0m0s"),
        (86_400_000_000_000, "24h0m0s"),
        (3_661_000_000_001, "1h1m1.000000001s"),
        (-15_000_000_000, "-15s"),
        (i64::MAX, "2562047h47m16.854775807s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ] {
        let mut out = String::new();
        push_go_duration(nanos, &mut out);
        assert_eq!(out, text);
    }
}

#[test]
fn pretty_text_is_indented_by_four_and_ends_its_line() {
    let mut out = String::new();
    push_pretty(r#"{"a":[],"b":{"c":[1,"x{\"}:,"],"d":{}}}"#, &mut out);
    let lines = ["{", "    \"a\": [],", "    \"b\": {", "        \"c\": [", "            1,"];
    let rest = ["            \"x{\\\"}:,\"", "        ],", "        \"d\": {}", "    }", "}", ""];
    assert_eq!(out.split('\n').collect::<Vec<_>>(), [&lines[..], &rest[..]].concat());
    out.clear();
    push_pretty("7", &mut out);
    assert_eq!(out, "7\n");
}

#[test]
fn what_is_no_value_is_an_error() {
    let deep = vec![0x91; MAX_JSON_DEPTH + 1];
    let deep = [deep, vec![0xc0]].concat();
    for value in [&b""[..], b"\xc1", b"\xd4\x01\x02", b"\x81\x80\x01", b"\x92\x01", b"\x01\x02", &deep] {
        assert!(to_json(value, &mut String::new()).is_err(), "{value:02x?}");
    }
    assert!(to_json(&deep[2..], &mut String::new()).is_ok());
}

proptest! {
    #[test]
    fn the_text_is_always_json(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xa4], 0..60)) {
        let mut out = String::new();
        if to_json(&bytes, &mut out).is_ok() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
        }
    }

    #[test]
    fn pretty_text_means_the_same(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xa4], 0..60)) {
        let mut out = String::new();
        if to_json(&bytes, &mut out).is_ok() {
            let mut pretty = String::new();
            push_pretty(&out, &mut pretty);
            let [plain, pretty] = [&out, &pretty].map(|text| serde_json::from_str::<serde_json::Value>(text).ok());
            prop_assert!(plain.is_some());
            prop_assert_eq!(plain, pretty);
        }
    }

    #[test]
    fn strings_escape_as_json_does(text: String) {
        let mut out = String::new();
        push_json_string(&text, &mut out);
        prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
    }
}
