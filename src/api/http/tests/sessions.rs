//! Sessions over HTTP: their paths, and the headers that put a write into one.

use super::super::session_heads::{Owner, SessionHeads};
use super::*;
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::session::{
    SessionKey, SessionListReply, SessionOutcomeReply, SessionReply, SessionStub, WriteStamp,
};

/// Shows session 7; every request to one of its paths has it.
pub(super) const OWNER: &str = "7:ffeeddccbbaa99887766554433221100";
const KEY: [u8; 16] = [0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00];

pub(super) const CALLS: &[Row] = &[
    (
        "PUT /v1/holdfast/session",
        r#"{"TTL":"30s","Name":"web","ServerID":"x"}"#,
        "Session.Open",
        r#"{"TTL":30000000000,"Name":"web","ServerID":"","ClusterID":""}"#,
    ),
    ("POST /v1/holdfast/session?region=east", "", "Session.Open", r#"{"TTL":0,"Name":""}"#),
    ("PUT /v1/holdfast/session/7", "", "Session.KeepAlive", r#"{"ID":7,"Key":"/+7dzLuqmYh3ZlVEMyIRAA=="}"#),
    ("DELETE /v1/holdfast/session/7", "", "Session.Close", r#"{"ID":7,"Key":"/+7dzLuqmYh3ZlVEMyIRAA=="}"#),
    (
        "GET /v1/holdfast/session/7/outcome/12?stale",
        "",
        "Session.Outcome",
        r#"{"ID":7,"Key":"/+7dzLuqmYh3ZlVEMyIRAA==","Sequence":12,"AllowStale":true}"#,
    ),
    ("GET /v1/holdfast/sessions?index=5", "", "Session.List", r#"{"MinQueryIndex":5}"#),
];

fn with(line: &str, body: &str, headers: &[(&str, &str)]) -> Plan {
    let mut request = request(line, body);
    request.headers.extend(headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())));
    planned_for(&request)
}

fn refused(plan: Plan) -> (u16, String) {
    match plan {
        Plan::Reply(reply) => (reply.status, String::from_utf8(reply.body).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn stamp(sequence: u64, acknowledged_below: u64) -> WriteStamp {
    WriteStamp { id: 7, key: SessionKey(KEY.to_vec()), sequence, acknowledged_below }
}

#[test]
fn what_is_no_request_about_a_session_is_refused() {
    check_refused(&[
        ("GET /v1/holdfast/session", "", 405, "Invalid method"),
        ("GET /v1/holdfast/session/7", "", 405, "Invalid method"),
        ("PUT /v1/holdfast/session/8", "", 400, "X-Holdfast-Session is of another session than the path"),
        ("DELETE /v1/holdfast/session/x", "", 400, "session id: strconv.ParseUint: parsing \"x\": invalid syntax"),
        ("PUT /v1/holdfast/session/7/outcome/1", "", 405, "Invalid method"),
        (
            "GET /v1/holdfast/session/7/outcome/-1",
            "",
            400,
            "sequence: strconv.ParseUint: parsing \"-1\": invalid syntax",
        ),
        ("GET /v1/holdfast/session/7/outcome", "", 404, ""),
        ("PUT /v1/holdfast/sessions", "", 405, "Invalid method"),
    ]);
    let (status, text) = refused(plan_of("PUT /v1/holdfast/session", r#"{"TTL":"soon"}"#));
    assert!(status == 400 && text.starts_with("time: invalid duration \"soon\""), "{text}");
    let mut bare = request("DELETE /v1/holdfast/session/7?key=ffeeddccbbaa99887766554433221100", "");
    bare.headers.retain(|(name, _)| name != "x-holdfast-session");
    assert_eq!(refused(planned_for(&bare)), (400, "X-Holdfast-Session is missing".to_owned()));
}

// R2.23, R2.25, R2.30
#[test]
fn headers_put_a_write_into_a_session() {
    let write = "PUT /v1/var/a";
    let body = r#"{"Items":{"k":"v"}}"#;
    let seq = |value| (SEQUENCE, value);
    let below = |value| (ACKNOWLEDGED_BELOW, value);
    let session = (SESSION, OWNER);
    let marks = |plan| match plan {
        Plan::Call { marks, .. } => marks,
        other => panic!("{other:?}"),
    };
    for (headers, expected) in [
        (&[][..], None),
        (&[session, seq("1")], Some(stamp(1, 1))),
        (&[session, seq(" 18446744073709551615 ")], Some(stamp(u64::MAX, u64::MAX))),
        (&[session, seq("12"), below("3")], Some(stamp(12, 3))),
        (&[session, seq("12"), below("0")], Some(stamp(12, 0))),
        (&[(SESSION, "7:FFEEDDCCBBAA99887766554433221100"), seq("2"), below("2")], Some(stamp(2, 2))),
        (&[(SEEN, "4")], None),
    ] {
        assert_eq!(marks(with(write, body, headers)), Marks { stamp: expected, seen: None }, "{headers:?}");
    }
    for read in ["GET /v1/var/a?stale", "GET /v1/status/leader", "GET /v1/holdfast/sessions"] {
        assert_eq!(marks(with(read, "", &[(SEEN, "18446744073709551615")])).seen, Some(u64::MAX), "{read}");
    }
}

#[test]
fn a_header_that_means_nothing_here_is_named() {
    let write = ("PUT /v1/var/a", r#"{"Items":{"k":"v"}}"#);
    let session = (SESSION, OWNER);
    let one = (SEQUENCE, "1");
    let wanted = "X-Holdfast-Session is malformed: it has to be ID:KEY, a number and 32 hexadecimal digits";
    for bad in [
        "",
        ":",
        "7",
        "7:",
        "x:ffeeddccbbaa99887766554433221100",
        "0:ffeeddccbbaa99887766554433221100",
        "-7:ffeeddccbbaa99887766554433221100",
        "18446744073709551616:ffeeddccbbaa99887766554433221100",
        "7:ffeeddccbbaa9988776655443322110",
        "7:ffeeddccbbaa998877665544332211000",
        "7:ffeeddccbbaa9988776655443322110g",
        "7:+feeddccbbaa99887766554433221100",
        "7: ffeeddccbbaa99887766554433221100",
        "\u{e4}:\u{e4}",
    ] {
        assert_eq!(refused(with(write.0, write.1, &[(SESSION, bad), one])), (400, wanted.to_owned()), "{bad}");
    }
    let number = |name: &str, from: &str| format!("{name} is malformed: it has to be a number{from}");
    for (headers, text) in [
        (&[session, (SEQUENCE, "0")][..], number(SEQUENCE, " from 1 on")),
        (&[session, (SEQUENCE, "")], number(SEQUENCE, " from 1 on")),
        (&[session, (SEQUENCE, "+1")], number(SEQUENCE, " from 1 on")),
        (&[session, one, (ACKNOWLEDGED_BELOW, "x")], number(ACKNOWLEDGED_BELOW, "")),
        (&[(SEEN, "1.5")], number(SEEN, "")),
        (
            &[session, one, (ACKNOWLEDGED_BELOW, "2")],
            "X-Holdfast-Acknowledged-Below is above X-Holdfast-Sequence".into(),
        ),
        (&[one], "X-Holdfast-Session is missing beside X-Holdfast-Sequence".into()),
        (&[session], "X-Holdfast-Sequence is missing beside X-Holdfast-Session".into()),
        (
            &[(ACKNOWLEDGED_BELOW, "1")],
            "X-Holdfast-Session and X-Holdfast-Sequence are missing beside X-Holdfast-Acknowledged-Below".into(),
        ),
        (&[session, one, one], "X-Holdfast-Sequence is there twice".into()),
        (&[session, session, one], "X-Holdfast-Session is there twice".into()),
    ] {
        assert_eq!(refused(with(write.0, write.1, headers)), (400, text), "{headers:?}");
    }
    for (line, headers, text) in [
        ("GET /v1/vars", &[session, one][..], "X-Holdfast-Session is not taken by Variables.List"),
        ("GET /v1/vars", &[one], "X-Holdfast-Sequence is not taken by Variables.List"),
        ("GET /v1/vars", &[(ACKNOWLEDGED_BELOW, "1")], "X-Holdfast-Acknowledged-Below is not taken by Variables.List"),
        ("PUT /v1/holdfast/session/7", &[one], "X-Holdfast-Sequence is not taken by Session.KeepAlive"),
        ("PUT /v1/holdfast/session", &[session], "X-Holdfast-Session is not taken by Session.Open"),
        (
            "DELETE /v1/operator/raft/peer?id=a",
            &[session, one],
            "X-Holdfast-Session is not taken by Operator.RaftRemovePeerByID",
        ),
        ("PUT /v1/operator/keyring/rotate", &[session, one], "X-Holdfast-Session is not taken by Keyring.Rotate"),
        ("GET /v1/event/stream", &[session], "X-Holdfast-Session is not taken by Event.Stream"),
        ("GET /v1/event/stream", &[(SEEN, "1")], "X-Holdfast-Seen is not taken by Event.Stream"),
        ("PUT /v1/operator/snapshot", &[session, one], "X-Holdfast-Session is not taken by Operator.SnapshotRestore"),
        ("GET /v1/holdfast/connections", &[(SEEN, "1")], "X-Holdfast-Seen is not taken by Holdfast.Connections"),
    ] {
        assert_eq!(refused(with(line, "", headers)), (400, text.to_owned()), "{line} {headers:?}");
    }
}

#[test]
fn sessions_are_shown_and_their_keys_once() {
    let write = WriteMeta { index: 9 };
    let opened = SessionReply { id: 7, key: SessionKey(KEY.to_vec()), ttl: 30_000_000_000, meta: write.clone() };
    let json = r#"{"ID":7,"Index":9,"Key":"ffeeddccbbaa99887766554433221100","TTL":"30s"}"#;
    let heads = ["X-Nomad-Index: 9"];
    assert_eq!(answered("PUT /v1/holdfast/session", "{}", &opened), json_shown(200, json, &heads));
    let kept = SessionReply { key: SessionKey::default(), ..opened };
    let json = r#"{"ID":7,"Index":9,"TTL":"30s"}"#;
    assert_eq!(answered("PUT /v1/holdfast/session/7", "", &kept), json_shown(200, json, &heads));
    let closed = GenericResponse { meta: write };
    assert_eq!(answered("DELETE /v1/holdfast/session/7", "", &closed), empty_shown(200, &heads));
    let stub = SessionStub {
        id: 7,
        name: "web".to_owned(),
        ttl: 90_000_000_000,
        opened: 5,
        deadline: 6,
        acknowledged_below: 4,
        replies: 2,
        reply_bytes: 300,
        ..SessionStub::default()
    };
    let list = SessionListReply { sessions: vec![stub], meta: meta() };
    let json = r#"[{"AccessorID":"","AcknowledgedBelow":4,"Deadline":6,"ID":7,"Name":"web","Opened":5,"Replies":2,"ReplyBytes":300,"ServerID":"","TTL":"1m30s"}]"#;
    assert_eq!(answered("GET /v1/holdfast/sessions", "", &list), json_shown(200, json, &READ));
    let told = SessionOutcomeReply {
        outcome: "refused".to_owned(),
        write_index: 8,
        error: "no \"b\"".to_owned(),
        meta: meta(),
    };
    let json = r#"{"Error":"no \"b\"","Outcome":"refused","WriteIndex":8}"#;
    assert_eq!(answered("GET /v1/holdfast/session/7/outcome/1", "", &told), json_shown(200, json, &READ));
}

// R2.12, R2.28
#[test]
fn the_end_of_a_session_and_an_unknown_outcome_have_a_status_of_their_own() {
    let put = ("PUT /v1/var/a", r#"{"Items":{"k":"v"}}"#);
    for (text, status, code, told) in [
        ("session expired", 410, "session_expired", "session expired"),
        ("rpc error: rpc error: session expired", 410, "session_expired", "session expired"),
        ("outcome unknown: x: session expired", 504, "outcome_unknown", "outcome unknown: x: session expired"),
        (
            "rpc error: leadership lost while committing log",
            504,
            "outcome_unknown",
            "leadership lost while committing log",
        ),
    ] {
        let json = format!(r#"{{"Code":"{code}","Error":"{told}"}}"#);
        assert_eq!(failed(put.0, put.1, text), json_shown(status, &json, &[]), "{text}");
    }
    assert_eq!(failed(put.0, put.1, "session key is wrong"), text_shown(403, "session key is wrong", &[]));
    assert_eq!(failed(put.0, put.1, "no session expired"), text_shown(500, "no session expired", &[]));
}

// Keys are secrets: whatever is printed while a request is worked on has none.
#[test]
fn no_key_is_printed() {
    let hex = OWNER.split_once(':').unwrap().1;
    let shown = request("PUT /v1/holdfast/session/7", "");
    let heads = SessionHeads::read(&shown.headers).unwrap();
    let marks = Marks { stamp: Some(stamp(1, 1)), seen: None };
    for text in [format!("{shown:?}"), format!("{heads:?}"), format!("{marks:?}")] {
        let decimals = format!("{:?}", &KEY[..4]);
        assert!(!text.contains(hex) && !text.contains(decimals.trim_matches(['[', ']'])), "{text}");
    }
}

proptest! {
    #[test]
    fn what_an_owner_shows_is_read_back(id in 1u64.., key: [u8; 16], sequence in 1u64.., seen: u64) {
        let key = SessionKey(key.to_vec());
        let headers = [
            (SESSION.to_owned(), format!("{id}:{}", key.to_hex())),
            (SEQUENCE.to_owned(), sequence.to_string()),
            (SEEN.to_owned(), seen.to_string()),
        ];
        let heads = SessionHeads::read(&headers).unwrap();
        prop_assert_eq!(heads.owner.clone(), Some(Owner { id, key: key.clone() }));
        let write = crate::api::method("Variables.Apply").unwrap();
        let stamp = WriteStamp { id, key, sequence, acknowledged_below: sequence };
        prop_assert_eq!(heads.marks(write), Ok(Marks { stamp: Some(stamp), seen: None }));
    }

    /// Whatever stands in the headers, a write has the place that they give it, or is refused.
    #[test]
    fn no_header_harms_and_none_is_lost(
        values in prop::collection::vec((0usize..4, prop_oneof!["[0-9]{0,21}", "[0-9]{1,3}:[0-9a-fA-F]{30,34}", ".{0,40}"]), 0..5),
        nth: prop::sample::Index,
    ) {
        let names = [SESSION, SEQUENCE, ACKNOWLEDGED_BELOW, SEEN];
        let headers: Vec<_> =
            values.into_iter().map(|(at, value)| (names[at].to_ascii_lowercase(), value)).collect();
        let has = |name: &str| headers.iter().any(|(held, _)| held.eq_ignore_ascii_case(name));
        let method = &METHODS[nth.index(METHODS.len())];
        if let Ok(marks) = SessionHeads::read(&headers).and_then(|heads| heads.marks(method)) {
            prop_assert_eq!(marks.stamp.is_some(), has(SEQUENCE));
            prop_assert!(marks.stamp.is_none() || (has(SESSION) && method.takes_stamp()));
            prop_assert!(!has(ACKNOWLEDGED_BELOW) || marks.stamp.is_some());
        }
    }
}
