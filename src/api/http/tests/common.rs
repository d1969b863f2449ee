//! What holds for every path: parameters, bodies, errors, redirects, other origins.

use super::super::body::{decode, go_time_of};
use super::super::forms;
use super::super::query::{MAX_PARAMETERS, go_duration, token};
use super::*;
use crate::wire::body::namespace::Namespace;
use crate::wire::body::node::go_zero_time;
use crate::wire::body::query::QueryOptions;
use crate::wire::body::var::{Variable, VariableLock};
use crate::wire::json::go_time_text;

fn options(query: &str) -> Result<QueryOptions, (u16, String)> {
    match plan_of(&format!("GET /v1/vars?{query}"), "") {
        Plan::Call { body, .. } => Ok(QueryOptions::from_bytes(&body).unwrap()),
        Plan::Reply(reply) => Err((reply.status, String::from_utf8(reply.body).unwrap())),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parameters_are_read_as_the_peers_read_them() {
    let own = || QueryOptions {
        region: "west".to_owned(),
        namespace: "default".to_owned(),
        auth_token: "secret".to_owned(),
        ..QueryOptions::default()
    };
    let read = options(
        "stale&index=18446744073709551615&wait=1m30s&region=m%61rs&namespace=%2A&prefix=a+b%2Fc&filter=Path%3D%3D%22x%22\
         &per_page=3&next_token=default.x&reverse=true&consistent&pretty",
    );
    let whole = QueryOptions {
        region: "mars".to_owned(),
        namespace: "*".to_owned(),
        min_query_index: u64::MAX,
        max_query_time: 90_000_000_000,
        allow_stale: true,
        prefix: "a b/c".to_owned(),
        auth_token: "secret".to_owned(),
        filter: "Path==\"x\"".to_owned(),
        per_page: 3,
        next_token: "default.x".to_owned(),
        reverse: true,
        forwarded: false,
    };
    assert_eq!(read, Ok(whole));
    // Empty means left out, and `consistent` nothing.
    assert_eq!(options("index=&wait=&region=&namespace=&per_page=&reverse=1&consistent=x&forwarded=true"), Ok(own()));
    assert_eq!(options("stale=false&&=&a"), Ok(own()));
    assert_eq!(options("wait=1500ms"), Ok(QueryOptions { max_query_time: 1_500_000_000, ..own() }));
    assert_eq!(options("stale=true&stale=x"), Ok(QueryOptions { allow_stale: true, ..own() }));
    let stale = "Expect `true` or `false` for `stale` query string parameter";
    for (bad, text) in [
        ("stale=maybe", stale),
        ("index=-1", "Invalid index"),
        ("index=%2B1", "Invalid index"),
        ("index=18446744073709551616", "Invalid index"),
        ("wait=5", "Invalid wait time"),
        ("wait=abc", "Invalid wait time"),
        ("per_page=x", "Expect a number for `per_page` query string parameter"),
        ("per_page=4294967296", "Expect a number for `per_page` query string parameter"),
        ("region=%4", "invalid URL escape in query"),
        ("region=%ff", "invalid URL escape in query"),
        ("region=%+1", "invalid URL escape in query"),
    ] {
        assert_eq!(options(bad), Err((400, text.to_owned())), "{bad}");
    }
    assert!(options(&"a&".repeat(MAX_PARAMETERS)).is_ok());
    assert_eq!(options(&"a&".repeat(MAX_PARAMETERS + 1)).unwrap_err().0, 400);
}

#[test]
fn tokens_come_in_headers_only() {
    for (headers, secret) in [
        (&[("x-nomad-token", " a ")][..], "a"),
        (&[("authorization", "Bearer b")], "b"),
        (&[("authorization", "bEARER  b c")], "b"),
        (&[("authorization", "Basic b")], ""),
        (&[("authorization", "Bearer")], ""),
        (&[("authorization", "Bearer ")], ""),
        (&[("authorization", "Bearer b"), ("x-nomad-token", "a")], "a"),
        (&[("authorization", "Bearer b"), ("x-nomad-token", "")], "b"),
        (&[("x-vault-token", "a")], ""),
    ] {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let request =
            HttpRequest { headers, query: "token=z&X-Nomad-Token=z".to_owned(), ..request("GET /v1/vars", "") };
        assert_eq!(token(&request), secret, "{:?}", request.headers);
    }
}

#[test]
fn paths_are_cleaned_by_a_redirect() {
    for (line, location) in [
        ("GET /v1//vars", "/v1/vars"),
        ("GET //v1/vars?a=b", "/v1/vars?a=b"),
        ("PUT /v1/var/a/../b/", "/v1/var/b/"),
        ("GET /v1/var/a//b%2F%2E%2E", "/v1/var/a/b%2F%2E%2E"),
        ("GET /../..", "/"),
        ("GET /v1/./regions", "/v1/regions"),
        ("GET //evil.example/", "/evil.example/"),
        ("GET /?x=y", "/ui/?x=y"),
        ("GET /", "/ui/"),
    ] {
        let Plan::Reply(reply) = plan_of(line, "") else { panic!("{line}") };
        assert_eq!(shown(reply), empty_shown(307, &[&format!("Location: {location}")]), "{line}");
    }
}

#[test]
fn what_is_not_there_and_what_is_not_served_are_told_apart() {
    check_refused(&[
        ("GET /v2/vars", "", 404, ""),
        ("GET /v1", "", 404, ""),
        ("GET /v1/", "", 404, ""),
        ("GET /v1/nothing", "", 404, ""),
        ("GET /v1/nothing?index=x&%zz", "", 404, ""),
        ("GET /nothing?%zz", "", 404, ""),
        ("GET /v1/holdfast/nothing", "", 404, ""),
        ("GET /v1/holdfast", "", 404, ""),
        ("GET *", "", 404, ""),
        ("GET http://a/v1/vars", "", 404, ""),
        ("GET /ui/jobs", "", 501, "not served by holdfast: GET /ui/jobs"),
        ("PUT /v1/jobs", "{}", 501, "not served by holdfast: PUT /v1/jobs"),
        ("POST /v1/jobs/parse", "{}", 501, "not served by holdfast: POST /v1/jobs/parse"),
        ("GET /v1/job/x", "", 501, "not served by holdfast: GET /v1/job/x"),
        ("GET /v1/volumes?type=csi", "", 501, "not served by holdfast: GET /v1/volumes"),
        ("GET /v1/services", "", 501, "not served by holdfast: GET /v1/services"),
        ("GET /v1/deployment/x", "", 501, "not served by holdfast: GET /v1/deployment/x"),
        ("GET /v1/evaluation/x", "", 501, "not served by holdfast: GET /v1/evaluation/x"),
        ("GET /v1/acl/auth-methods", "", 501, "not served by holdfast: GET /v1/acl/auth-methods"),
        ("POST /v1/acl/login", "{}", 501, "not served by holdfast: POST /v1/acl/login"),
        ("GET /v1/client/fs/ls/x", "", 501, "not served by holdfast: GET /v1/client/fs/ls/x"),
        ("POST /v1/search/fuzzy", "{}", 501, "not served by holdfast: POST /v1/search/fuzzy"),
        ("GET /v1/scaling/policies", "", 501, "not served by holdfast: GET /v1/scaling/policies"),
        ("GET /v1/sentinel/policies", "", 501, "not served by holdfast: GET /v1/sentinel/policies"),
        ("GET /v1/quotas", "", 501, "not served by holdfast: GET /v1/quotas"),
        ("GET /v1/recommendations", "", 501, "not served by holdfast: GET /v1/recommendations"),
        ("GET /v1/plugins", "", 501, "not served by holdfast: GET /v1/plugins"),
        ("GET /v1/agent/pprof/heap", "", 501, "not served by holdfast: GET /v1/agent/pprof/heap"),
    ]);
    for list in ["jobs", "allocations", "evaluations", "deployments"] {
        let Plan::Reply(reply) = plan_of(&format!("GET /v1/{list}?prefix=x"), "") else { panic!("{list}") };
        let heads = ["X-Nomad-Index: 0", "X-Nomad-LastContact: 0", "X-Nomad-KnownLeader: true"];
        assert_eq!(shown(reply), json_shown(200, "[]", &heads), "{list}");
    }
}

// HTTP notes, section 1.3.
#[test]
fn errors_get_the_status_that_clients_expect() {
    for (text, status, body) in [
        ("RPC Error:: 404,No path to node", 404, "No path to node"),
        ("RPC Error:: 400,RPC Error:: 400,invalid path \"a b\"", 400, "RPC Error:: 400,invalid path \"a b\""),
        ("RPC Error:: 409,variable doesn't hold a lock", 409, "variable doesn't hold a lock"),
        ("rpc error: Permission denied", 403, "Permission denied"),
        ("rpc error: rpc error: ACL token not found", 403, "ACL token not found"),
        (
            "x: Filter expression cannot be used with other filter parameters",
            400,
            "Filter expression cannot be used with other filter parameters",
        ),
        ("rpc error: variable doesn't exist", 500, "rpc error: variable doesn't exist"),
        ("No path to region", 500, "No path to region"),
        ("Permission denied to all", 500, "Permission denied to all"),
        ("RPC Error:: 99999,x", 500, "RPC Error:: 99999,x"),
        ("RPC Error:: 200,x", 500, "RPC Error:: 200,x"),
        ("RPC Error:: 404", 500, "RPC Error:: 404"),
    ] {
        assert_eq!(failed("GET /v1/vars", "", text), text_shown(status, body, &[]), "{text}");
    }
    // R2.12.
    let unknown = json_shown(504, r#"{"Code":"outcome_unknown","Error":"outcome unknown: session s, \"5\""}"#, &[]);
    assert_eq!(failed("GET /v1/vars", "", "rpc error: outcome unknown: session s, \"5\""), unknown);
}

// R8.7.
#[test]
fn who_finds_no_leader_is_told_when_to_ask_again() {
    let mut seen = BTreeSet::new();
    for nth in 0..20 {
        let line = format!("GET /v1/var/a{nth}");
        for text in ["No cluster leader", "rpc error: No cluster leader", "Not ready to serve consistent reads"] {
            let reply = failed(&line, "", text);
            assert_eq!((reply.status, reply.body.as_str()), (500, text));
            let header = reply.headers.iter().find_map(|header| header.strip_prefix("Retry-After: ")).unwrap();
            seen.insert(header.to_owned());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(!failed("GET /v1/vars", "", "boom").headers.iter().any(|header| header.starts_with("Retry")));
    assert!(failed("GET /v1/agent/health", "", "No cluster leader").headers.iter().any(|h| h.starts_with("Retry")));
}

#[test]
fn stream_errors_are_whole_answers() {
    for (code, text, status, body) in [
        (403, "Permission denied", 403, "Permission denied"),
        (400, "unknown Nomad server zz", 400, "unknown Nomad server zz"),
        (404, "RPC Error:: 404,No path to node", 404, "No path to node"),
        (500, "RPC Error:: 404,No path to node", 404, "No path to node"),
        (500, "rpc error: Permission denied", 403, "Permission denied"),
        (0, "boom", 500, "boom"),
        (200, "boom", 500, "boom"),
        (-1, "boom", 500, "boom"),
        (70_000, "boom", 500, "boom"),
    ] {
        assert_eq!(shown(render_stream_error(code, text)), text_shown(status, body, &[]), "{code} {text}");
    }
}

#[test]
fn answers_can_be_packed_and_pretty_when_asked() {
    for (value, packed) in [
        ("gzip", true),
        ("deflate, gzip;q=0.5", true),
        ("GZIP", true),
        ("gzip;q=0", false),
        ("gzip; q=0.0", false),
        ("gzip;q=x", false),
        ("identity, br", false),
        ("", false),
    ] {
        let mut request = request("GET /v1/vars", "");
        request.headers.push(("accept-encoding".to_owned(), value.to_owned()));
        let Plan::Call { view, .. } = planned_for(&request) else { panic!("{value}") };
        assert_eq!(view.gzip, packed, "{value}");
    }
    for (query, pretty) in [("pretty", true), ("pretty=", true), ("pretty=1", true), ("pretty=0", false), ("", false)] {
        assert_eq!(view_of(&format!("GET /v1/vars?{query}"), "").pretty, pretty, "{query}");
    }
    let answer = answered("GET /v1/regions?pretty", "", &vec!["global".to_owned()]);
    assert_eq!(answer, json_shown(200, "[\n    \"global\"\n]\n", &[]));
}

#[test]
fn other_origins_are_let_in_where_the_peer_lets_them_in() {
    let from = |line: &str, headers: &[(&str, &str)]| {
        let mut request = request(line, "");
        request.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        planned_for(&request)
    };
    let origin = ("origin", "https://a.example");
    let allowed = ["Access-Control-Allow-Origin: *", "Access-Control-Allow-Credentials: true"];
    for (line, cors) in [
        ("GET /v1/vars", true),
        ("GET /v1/var/a", true),
        ("GET /v1/client/stats?node_id=x", true),
        ("GET /v1/nodes", false),
        ("GET /v1/varsity", false),
    ] {
        for headers in [&[origin][..], &[]] {
            match from(line, headers) {
                Plan::Call { view, .. } => {
                    assert_eq!(view.cors, cors && !headers.is_empty(), "{line}");
                    let reply = shown(render(&view, &ReplyResult::Error("x".to_owned())));
                    assert_eq!(reply.headers.ends_with(&allowed.map(str::to_owned)), view.cors, "{line}");
                }
                Plan::Reply(reply) => assert_eq!(shown(reply), empty_shown(404, &[]), "{line}"),
                other => panic!("{other:?}"),
            }
        }
    }
    let Plan::Reply(refused) = from("GET /v1/vars?index=x", &[origin]) else { panic!("not refused") };
    assert_eq!(shown(refused), text_shown(400, "Invalid index", &allowed));
    let asks = |method| {
        [origin, ("access-control-request-method", method), ("access-control-request-headers", "x-nomad-token")]
    };
    let Plan::Reply(reply) = from("OPTIONS /v1/var/a", &asks("PUT")) else { panic!("no preflight") };
    let may = ["Access-Control-Allow-Methods: PUT", "Access-Control-Allow-Headers: x-nomad-token"];
    assert_eq!(shown(reply), empty_shown(204, &[&may[..], &allowed].concat()));
    let Plan::Reply(reply) = from("OPTIONS /v1/vars", &asks("PUT")) else { panic!("no preflight") };
    assert_eq!(shown(reply), empty_shown(204, &allowed));
    let Plan::Reply(reply) = from("OPTIONS /v1/nodes", &asks("GET")) else { panic!("a call") };
    assert_eq!(reply.status, 405);
    let Plan::Reply(reply) = from("OPTIONS /v1/vars", &[origin]) else { panic!("a call") };
    assert_eq!(reply.status, 405, "without the header it is a method like any other");
}

#[test]
fn bodies_are_read_as_go_reads_them() {
    let read = |body: &str| decode::<Variable>(forms::VARIABLE, body.as_bytes());
    let var = read(
        r#" {"namespace":"n","ITEMS":{"Items":"1","path":"\u00e4","x":null},"modifyindex":18446744073709551615,"Unknown":[{"a":1}],
        "Lock":{"ttl":"1m30s","LockDelay":15000000000,"ID":"id"},"Path":"first","path":"last"} trailing"#,
    )
    .unwrap();
    let items =
        [("Items", "1"), ("path", "\u{e4}"), ("x", "")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let expected = Variable {
        namespace: "n".to_owned(),
        path: "last".to_owned(),
        lock: Some(VariableLock { id: "id".to_owned(), ttl: 90_000_000_000, lock_delay: 15_000_000_000 }),
        modify_index: u64::MAX,
        items: Some(items.into()),
        ..Variable::default()
    };
    assert_eq!(var, expected);
    assert_eq!(read("null").unwrap(), Variable::default());
    assert_eq!(read(r#"{"Lock":null,"Items":null,"Path":null}"#).unwrap(), Variable::default());
    let lock = |text: &str| read(&format!("{{\"Lock\":{{\"TTL\":{text}}}}}")).map(|var| var.lock.unwrap().ttl);
    assert_eq!((lock("1.5e10"), lock("-1"), lock("\"\"")), (Ok(15_000_000_000), Ok(-1), Ok(0)));
    for (body, error) in [
        ("", "Request body is empty"),
        (" ", "EOF while parsing a value at line 2 column 0"),
        ("{", "EOF while parsing an object at line 1 column 1"),
        ("nonsense", "expected ident at line 1 column 2"),
        (r#"{"Lock":{"TTL":"5"}}"#, "time: invalid duration \"5\" at line 1 column 18"),
        (r#"{"ModifyIndex":-1}"#, "invalid type: integer `-1`, expected an unsigned integer at line 1 column 17"),
        (
            r#"{"ModifyIndex":1.5}"#,
            "invalid type: floating point `1.5`, expected an unsigned integer at line 1 column 18",
        ),
        (r#"{"Path":7}"#, "invalid type: integer `7`, expected a string at line 1 column 9"),
        (r#"{"Items":[]}"#, "invalid type: sequence, expected an object at line 1 column 9"),
        ("[]", "invalid type: sequence, expected an object at line 1 column 0"),
        ("7", "invalid type: integer `7`, expected an object at line 1 column 1"),
    ] {
        let text = read(body).unwrap_err();
        let words = |text: &str| text.split(" at line").next().unwrap().to_owned();
        assert_eq!(words(&text), words(error), "{body}");
    }
}

#[test]
fn what_has_no_shape_is_kept_as_it_is() {
    let body = br#"{"Capabilities":{"SecretID":"x","a":[1,-2,1.5,true,null,"t",{"z":{},"y":18446744073709551615}]}}"#;
    let namespace: Namespace = decode(forms::NAMESPACE, body).unwrap();
    let mut out = String::new();
    to_json_in_style(&namespace.capabilities.0, JsonStyle::PLAIN, &mut out).unwrap();
    assert_eq!(out, r#"{"SecretID":"x","a":[1,-2,1.5,true,null,"t",{"z":{},"y":18446744073709551615}]}"#);
    let nested = |depth: usize| format!("{{\"Capabilities\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(decode::<Namespace>(forms::NAMESPACE, nested(32).as_bytes()).is_ok());
    let error = decode::<Namespace>(forms::NAMESPACE, nested(33).as_bytes()).unwrap_err();
    assert!(error.starts_with("nested too deeply"), "{error}");
    // Passed over without being built.
    assert!(decode::<Namespace>(forms::NAMESPACE, nested(100).replace("Cap", "Other").as_bytes()).is_ok());
}

#[test]
fn lists_of_very_many_tiny_values_are_refused() {
    let many = format!("{{\"Policies\":[{}\"\"]}}", "\"\",".repeat(1_000_000));
    let error = decode::<crate::wire::body::acl::AclToken>(forms::TOKEN, many.as_bytes()).unwrap_err();
    assert!(error.contains("too many elements"), "{error}");
}

#[test]
fn times_are_read_as_rfc_3339_writes_them() {
    for (text, shown) in [
        ("2026-01-02T03:04:05.678901234Z", "2026-01-02T03:04:05.678901234Z"),
        ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("2026-01-02T03:04:05.5-05:30", "2026-01-02T08:34:05.5Z"),
        ("2024-02-29T23:59:59z", "2024-02-29T23:59:59Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
    ] {
        assert_eq!(go_time_text(&go_time_of(text).unwrap()).as_deref(), Some(shown), "{text}");
    }
    assert_eq!(go_time_of("0001-01-01T00:00:00Z"), Some(go_zero_time().0));
    for bad in [
        "",
        "2026-01-02",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:05",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05+25:00",
        "2026-01-02T03:04:05Zx",
        "0000-01-01T00:00:00Z",
        "2026-01-02 03:04:05Z",
        "\u{e4}026-01-02T03:04:05Z",
        "+026-01-02T03:04:05Z",
    ] {
        assert_eq!(go_time_of(bad), None, "{bad}");
    }
}

#[test]
fn durations_have_a_sign() {
    for (text, nanos) in [
        ("10s", Some(10_000_000_000)),
        ("-1m30s", Some(-90_000_000_000)),
        ("+1ms", Some(1_000_000)),
        ("0", Some(0)),
        ("", None),
        ("-", None),
        ("--1s", None),
        ("5", None),
        ("9999999h", None),
    ] {
        assert_eq!(go_duration(text), nanos, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_harms_the_readers(text in ".{0,40}") {
        let _ = (go_time_of(&text), go_duration(&text));
    }

    #[test]
    fn times_are_read_back(seconds in -62_135_596_800i64..253_402_300_800, nanos in 0u32..1_000_000_000) {
        let text = crate::base::time::format_rfc3339(seconds, nanos);
        prop_assert_eq!(go_time_of(&text).and_then(|bytes| go_time_text(&bytes)), Some(text));
    }
}
