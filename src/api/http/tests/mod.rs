//! Requests and what they stand for, replies and how they look.

#![allow(clippy::unwrap_used)]

mod acl;
mod agent;
mod common;
mod nodes;
mod operator;
mod sessions;
mod vars;

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;

use super::super::methods::{METHODS, STREAMING};
use super::*;
use crate::wire::json::{JsonStyle, to_json_in_style};
use crate::wire::msgpack::Msg;

/// A request line with its body, the method it calls, and some of the fields of the arguments.
pub(super) type Row = (&'static str, &'static str, &'static str, &'static str);

/// A request line that is answered at once: status and body.
pub(super) type Refused = (&'static str, &'static str, u16, &'static str);

pub(super) fn request(line: &str, body: &str) -> HttpRequest {
    let (method, target) = line.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = vec![("x-nomad-token".to_owned(), " secret ".to_owned())];
    if path.starts_with("/v1/holdfast/session/") {
        headers.push(("x-holdfast-session".to_owned(), sessions::OWNER.to_owned()));
    }
    HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers,
        body: body.as_bytes().to_vec(),
        upload: false,
    }
}

pub(super) fn planned_for(request: &HttpRequest) -> Plan {
    plan(request, &HttpFacts { region: Arc::from("west") })
}

/// The plan of a request line with a body.
pub(super) fn plan_of(line: &str, body: &str) -> Plan {
    planned_for(&request(line, body))
}

fn json(bytes: &[u8]) -> Value {
    let mut text = String::new();
    to_json_in_style(bytes, JsonStyle::PLAIN, &mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The method that a plan calls, and its arguments.
fn called(plan: &Plan) -> (&'static str, Value) {
    match plan {
        Plan::Call { method, body, .. } => (method.name, json(body)),
        Plan::Stream { method, argument, .. } | Plan::Upload { method, argument } => (method.name, json(argument)),
        other => panic!("no call: {other:?}"),
    }
}

/// Whether every field of `expected` is in `actual`, with the same value.
fn holds(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            expected.iter().all(|(key, value)| actual.get(key).is_some_and(|other| holds(value, other)))
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(e, a)| holds(e, a))
        }
        _ => expected == actual,
    }
}

pub(super) fn check_calls(rows: &[Row]) {
    for (line, body, method, fields) in rows {
        let (name, arguments) = called(&plan_of(line, body));
        assert_eq!(name, *method, "{line}");
        let expected: Value = serde_json::from_str(fields).unwrap();
        assert!(holds(&expected, &arguments), "{line}: {arguments}");
        assert_eq!(arguments["AuthToken"], "secret", "{line}");
        let region = if line.contains("region=east") { "east" } else { "west" };
        assert_eq!(arguments["Region"], region, "{line}");
    }
}

pub(super) fn check_refused(rows: &[Refused]) {
    for (line, body, status, text) in rows {
        let Plan::Reply(reply) = plan_of(line, body) else { panic!("{line} is not refused") };
        assert_eq!((reply.status, String::from_utf8(reply.body).unwrap()), (*status, (*text).to_owned()), "{line}");
        if *status != 204 && !text.is_empty() && *status >= 400 {
            assert_eq!(reply.headers.first().unwrap().1, "text/plain; charset=utf-8", "{line}");
        }
    }
}

/// An answer, its headers as lines.
#[derive(Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) headers: Vec<String>,
}

pub(super) fn shown(reply: HttpReply) -> Shown {
    Shown {
        status: reply.status,
        body: String::from_utf8(reply.body).unwrap(),
        headers: reply.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
    }
}

pub(super) fn view_of(line: &str, body: &str) -> View {
    match plan_of(line, body) {
        Plan::Call { view, .. } => view,
        other => panic!("no call: {other:?}"),
    }
}

/// How the answer to a request looks when the method answers this.
pub(super) fn answered(line: &str, body: &str, result: &impl Msg) -> Shown {
    shown(render(&view_of(line, body), &ReplyResult::Body(Arc::from(result.to_bytes()))))
}

/// How the answer to a request looks when the method fails.
pub(super) fn failed(line: &str, body: &str, text: &str) -> Shown {
    shown(render(&view_of(line, body), &ReplyResult::Error(text.to_owned())))
}

pub(super) const READ: [&str; 3] = ["X-Nomad-Index: 7", "X-Nomad-LastContact: 1500", "X-Nomad-KnownLeader: true"];

/// An answer in JSON with these headers.
pub(super) fn json_shown(status: u16, body: &str, headers: &[&str]) -> Shown {
    let headers = [&["Content-Type: application/json"], headers].concat();
    Shown { status, body: body.to_owned(), headers: headers.into_iter().map(str::to_owned).collect() }
}

/// An answer in plain text with these headers.
pub(super) fn text_shown(status: u16, body: &str, headers: &[&str]) -> Shown {
    let headers = [&["Content-Type: text/plain; charset=utf-8"], headers].concat();
    Shown { status, body: body.to_owned(), headers: headers.into_iter().map(str::to_owned).collect() }
}

/// An answer without a body.
pub(super) fn empty_shown(status: u16, headers: &[&str]) -> Shown {
    Shown { status, body: String::new(), headers: headers.iter().map(|header| (*header).to_owned()).collect() }
}

pub(super) fn meta() -> crate::wire::body::query::QueryMeta {
    crate::wire::body::query::QueryMeta {
        index: 7,
        last_contact: 1_500_000_000,
        known_leader: true,
        next_token: String::new(),
    }
}

const ALL_CALLS: &[&[Row]] = &[acl::CALLS, agent::CALLS, nodes::CALLS, operator::CALLS, sessions::CALLS, vars::CALLS];

/// What only other servers, nodes and clients of the RPC port call, or what is not served over HTTP.
const NOT_OVER_HTTP: &[&str] = &[
    "ACL.DeleteAuthMethods",
    "ACL.DeleteBindingRules",
    "ACL.ExpireOneTimeTokens",
    "ACL.GetAuthMethod",
    "ACL.GetAuthMethods",
    "ACL.GetBindingRule",
    "ACL.GetBindingRules",
    "ACL.GetClaimPolicies",
    "ACL.GetPolicies",
    "ACL.GetRolesByID",
    "ACL.GetTokens",
    "ACL.ListAuthMethods",
    "ACL.ListBindingRules",
    "ACL.Login",
    "ACL.OIDCAuthURL",
    "ACL.OIDCCompleteAuth",
    "ACL.ResolveToken",
    "ACL.UpsertAuthMethods",
    "ACL.UpsertBindingRules",
    "Agent.Profile",
    "Allocations.Exec",
    "ClientAllocations.Checks",
    "ClientAllocations.GarbageCollect",
    "ClientAllocations.GetPauseState",
    "ClientAllocations.Restart",
    "ClientAllocations.SetPauseState",
    "ClientAllocations.Signal",
    "ClientAllocations.Stats",
    "FileSystem.List",
    "FileSystem.Logs",
    "FileSystem.Stat",
    "FileSystem.Stream",
    "Namespace.GetNamespaces",
    "Node.BatchDeregister",
    "Node.EmitEvents",
    "Node.GetClientAllocs",
    "Node.Register",
    "Node.UpdateAlloc",
    "Node.UpdateStatus",
    "Operator.RaftRemovePeerByAddress",
    "Status.HasNodeConn",
    "Status.Ping",
    "Status.RaftStats",
];

#[test]
fn every_method_that_http_has_a_path_for_is_called_by_some_request() {
    let called: BTreeSet<_> = ALL_CALLS.iter().copied().flatten().map(|(_, _, method, _)| *method).collect();
    let known: BTreeSet<_> = METHODS.iter().map(|m| m.name).chain(STREAMING.iter().map(|m| m.name)).collect();
    let missing: Vec<_> =
        known.iter().filter(|name| !called.contains(*name) && !NOT_OVER_HTTP.contains(name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let odd: Vec<_> = NOT_OVER_HTTP.iter().filter(|name| called.contains(*name)).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// Whatever a reply holds, it is shown or refused: it may come from another server.
fn every_view() -> Vec<View> {
    let rows = ALL_CALLS.iter().copied().flatten();
    let plans = rows.map(|(line, body, _, _)| plan_of(line, body));
    let views = plans.filter_map(|plan| match plan {
        Plan::Call { view, .. } => Some(view),
        _ => None,
    });
    let views: Vec<View> = views.chain([view_of("GET /readyz", ""), view_of("GET /v1/agent/health", "")]).collect();
    assert!(views.len() > 60, "{}", views.len());
    views
}

#[test]
fn any_reply_and_any_error_is_shown() {
    for view in every_view() {
        for pretty in [false, true] {
            let view = View { pretty, ..view };
            for bytes in
                [&b"\xc0"[..], b"\x80", b"", b"\xc1", b"\x81\xa4Data\x91\x05", b"\x91\xa1x", b"\x81\xa5Index\xa1x"]
            {
                let reply = render(&view, &ReplyResult::Body(Arc::from(bytes)));
                assert!(
                    reply.status == 200 || !reply.headers.is_empty() || reply.body.is_empty(),
                    "{view:?} {bytes:02x?}"
                );
            }
            for text in ["", "RPC Error:: 404,x", "No cluster leader", "Permission denied", "\u{0}\r\n"] {
                assert!(render(&view, &ReplyResult::Error(text.to_owned())).status >= 400, "{view:?} {text:?}");
            }
        }
    }
}

/// Paths made of words that there are, with anything between and behind.
fn path() -> impl Strategy<Value = String> {
    let rows = || ALL_CALLS.iter().copied().flatten().map(|(line, _, _, _)| *line);
    let words: BTreeSet<&str> = rows()
        .filter_map(|line| line.split_once(' ')?.1.split('?').next())
        .flat_map(|path| path.split('/'))
        .chain(["..", ".", "", "%2F", "%zz", "%ff", "\u{e4}"])
        .collect();
    let words: Vec<&str> = words.into_iter().collect();
    let made =
        prop::collection::vec(prop::sample::select(words), 0..6).prop_map(|words| format!("/v1/{}", words.join("/")));
    prop_oneof![made, ".{0,30}", "/.{0,30}"]
}

fn query() -> impl Strategy<Value = String> {
    let names =
        ["cas", "index", "wait", "stale", "per_page", "topic", "id", "address", "lock-acquire", "fence", "pretty"];
    let pair = (prop::sample::select(names.to_vec()), "(=.{0,6}|=[0-9]{0,22}|)")
        .prop_map(|(name, rest)| name.to_owned() + &rest);
    prop_oneof![prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&")), ".{0,30}"]
}

fn body_bytes() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just("{\"Items\":{\"a\":\"b\"}}".to_owned()),
        Just("{\"Lock\":{\"TTL\":\"1h\",\"ID\":1}}".to_owned()),
        Just("[".repeat(300)),
        Just(format!("{{\"Capabilities\":{}1{}}}", "[".repeat(60), "]".repeat(60))),
        "\\{\"[A-Za-z]{1,9}\":[0-9\\[\\]{}\",.e-]{0,20}\\}",
    ];
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), json.prop_map(String::into_bytes)]
}

proptest! {
    #[test]
    fn no_request_harms(
        method in prop_oneof![prop::sample::select(vec!["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD"]).prop_map(str::to_owned), ".{0,8}"],
        path in path(),
        query in query(),
        header in ".{0,40}",
        body in body_bytes(),
    ) {
        let names =
            ["authorization", "accept-encoding", "origin", "access-control-request-method", "x-holdfast-session"];
        let headers = names.map(|name| (name.to_owned(), header.clone())).to_vec();
        let planned = planned_for(&HttpRequest { method, path: path.clone(), query, headers, body, upload: false });
        if let Plan::Reply(reply) = &planned {
            prop_assert!((200..=599).contains(&reply.status));
            if reply.status == 307 && let Some((_, location)) = reply.headers.first() {
                prop_assert!(location.starts_with('/') && !location.starts_with("//"), "{} to {}", path, location);
            }
        }
        if let Plan::Call { body, .. } = &planned {
            let mut text = String::new();
            prop_assert!(to_json_in_style(body, JsonStyle::PLAIN, &mut text).is_ok());
        }
    }

    #[test]
    fn no_reply_harms(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xa4], 0..60), nth: prop::sample::Index) {
        let views = every_view();
        let _ = render(nth.get(&views), &ReplyResult::Body(Arc::from(bytes)));
    }

    #[test]
    fn stream_errors_have_a_status_of_errors(code: i64, text: String) {
        prop_assert!((400..=599).contains(&render_stream_error(code, &text).status));
    }
}
