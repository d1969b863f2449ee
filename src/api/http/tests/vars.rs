//! HTTP notes, section 4: variables, locks and our extensions to them.

use super::*;
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::var::{
    LockListResponse, LockReadResponse, LockStub, TxnResponse, TxnResult, Variable, VariableLock, VariableMetadata,
    VariablesApplyResponse, VariablesListResponse, VariablesReadResponse, VariablesRenewLockResponse,
};

pub(super) const CALLS: &[Row] = &[
    (
        "GET /v1/vars?prefix=a/&namespace=*&per_page=2",
        "",
        "Variables.List",
        r#"{"Prefix":"a/","Namespace":"*","PerPage":2}"#,
    ),
    (
        "GET /v1/var/a/b?index=7&wait=10s&region=east",
        "",
        "Variables.Read",
        r#"{"Path":"a/b","MinQueryIndex":7,"MaxQueryTime":10000000000}"#,
    ),
    ("GET /v1/var/a%2Fb%20+c", "", "Variables.Read", r#"{"Path":"a/b +c","Namespace":"default"}"#),
    (
        "PUT /v1/var/a/b",
        r#"{"Items":{"k":"v"},"Path":"other"}"#,
        "Variables.Apply",
        r#"{"Op":"set","Fence":0,"WaitTime":0,"Owner":"","Var":{"Path":"a/b","Items":{"k":"v"},"Lock":null,"ModifyIndex":0,"Namespace":""}}"#,
    ),
    (
        "POST /v1/var/a?namespace=q&cas=",
        r#"{"items":{"k":"v"},"Namespace":"b"}"#,
        "Variables.Apply",
        r#"{"Op":"set","Namespace":"q","Var":{"Namespace":"b","Path":"a"}}"#,
    ),
    (
        "PUT /v1/var/a?cas=7&fence=3",
        r#"{"Items":{"k":"v"},"Lock":{"ID":"l"},"ModifyIndex":9}"#,
        "Variables.Apply",
        r#"{"Op":"cas","Fence":3,"Var":{"ModifyIndex":7,"Lock":{"ID":"l","TTL":0}}}"#,
    ),
    ("PUT /v1/var/a?cas=0", r#"{"Items":{"k":"v"}}"#, "Variables.Apply", r#"{"Op":"cas","Var":{"ModifyIndex":0}}"#),
    (
        "DELETE /v1/var/a/b?namespace=n",
        "",
        "Variables.Apply",
        r#"{"Op":"delete","Namespace":"n","Var":{"Path":"a/b","Items":null}}"#,
    ),
    (
        "DELETE /v1/var/a?cas=18446744073709551615&fence=2",
        "",
        "Variables.Apply",
        r#"{"Op":"delete-cas","Fence":2,"Var":{"ModifyIndex":18446744073709551615}}"#,
    ),
    (
        "PUT /v1/var/a?lock-acquire",
        "{}",
        "Variables.Apply",
        r#"{"Op":"lock-acquire","Var":{"Path":"a","Lock":null,"Items":null}}"#,
    ),
    (
        "PUT /v1/var/a?lock-acquire=&wait=10s&owner=me%20too",
        r#"{"Lock":{"TTL":"15s","LockDelay":1000000000},"Items":{"k":"v"}}"#,
        "Variables.Apply",
        r#"{"Op":"lock-acquire","Owner":"me too","WaitTime":10000000000,"Var":{"Lock":{"TTL":15000000000,"LockDelay":1000000000},"Items":{"k":"v"}}}"#,
    ),
    ("PUT /v1/var/a?lock-acquire&wait=-1s", "{}", "Variables.Apply", r#"{"WaitTime":0}"#),
    (
        "PUT /v1/var/a?lock-release&wait=10s&owner=x",
        r#"{"Lock":{"ID":"l"}}"#,
        "Variables.Apply",
        r#"{"Op":"lock-release","Owner":"","WaitTime":0,"Var":{"Lock":{"ID":"l"}}}"#,
    ),
    (
        "PUT /v1/var/a/b?lock-renew&namespace=q",
        r#"{"Lock":{"ID":"l"}}"#,
        "Variables.RenewLock",
        r#"{"Path":"a/b","LockID":"l","Namespace":"q"}"#,
    ),
    (
        "POST /v1/var/a?lock-renew=",
        r#"{"Lock":{"ID":"l"},"Namespace":"b"}"#,
        "Variables.RenewLock",
        r#"{"Namespace":"b"}"#,
    ),
    ("PUT /v1/var/a?lock-renew", "{}", "Variables.RenewLock", r#"{"LockID":""}"#),
    ("GET /v1/holdfast/locks?prefix=a", "", "Holdfast.LockList", r#"{"Prefix":"a"}"#),
    ("GET /v1/holdfast/lock/a/b", "", "Holdfast.LockRead", r#"{"Path":"a/b"}"#),
    ("DELETE /v1/holdfast/lock/a/b?namespace=n", "", "Holdfast.LockBreak", r#"{"Path":"a/b","Namespace":"n"}"#),
    (
        "PUT /v1/holdfast/txn",
        r#"{"ops":[{"op":"cas","var":{"Path":"a","ModifyIndex":3,"Items":{"k":"v"}},"fence":2},{"Op":"delete","Var":{"Path":"b"}}]}"#,
        "Holdfast.VariablesTxn",
        r#"{"Ops":[{"Op":"cas","Fence":2,"Var":{"Path":"a","ModifyIndex":3,"Items":{"k":"v"}}},{"Op":"delete","Fence":0,"Var":{"Path":"b"}}]}"#,
    ),
];

#[test]
fn requests_become_calls() {
    check_calls(CALLS);
}

#[test]
fn what_is_wrong_is_said() {
    let invalid = |what: &str| format!("can not parse {what}: strconv.ParseUint: parsing \"abc\": invalid syntax");
    let (cas, fence) = (invalid("cas").leak(), invalid("fence").leak());
    check_refused(&[
        ("PUT /v1/vars", "{}", 405, "Invalid method"),
        ("HEAD /v1/vars", "", 405, "Invalid method"),
        ("GET /v1/vars?index=x", "", 400, "Invalid index"),
        ("GET /v1/var/", "", 400, "missing variable path"),
        ("GET /v1/var", "", 400, "missing variable path"),
        ("PATCH /v1/var/a", "", 400, "Invalid method"),
        ("HEAD /v1/var/a", "", 400, "Invalid method"),
        ("GET /v1/var/a?wait=x", "", 400, "Invalid wait time"),
        ("GET /v1/var/%zz", "", 400, "invalid URL escape in path"),
        ("PUT /v1/var/a", "", 400, "Request body is empty"),
        ("PUT /v1/var/a?lock-acquire", "", 400, "Request body is empty"),
        ("PUT /v1/var/a?lock-renew", "", 400, "Request body is empty"),
        ("PUT /v1/var/a", "{}", 400, "variable missing required Items object"),
        ("PUT /v1/var/a?cas=1", r#"{"Items":{}}"#, 400, "variable missing required Items object"),
        ("PUT /v1/var/a?cas=abc", r#"{"Items":{"k":"v"}}"#, 400, cas),
        ("DELETE /v1/var/a?cas=abc", "", 400, cas),
        ("PUT /v1/var/a?fence=abc", r#"{"Items":{"k":"v"}}"#, 400, fence),
        ("PUT /v1/var/a?lock-acquire&cas=1", "{}", 400, "CAS can't be used with lock operations"),
        ("PUT /v1/var/a?lock-renew&cas=1", "{}", 400, "CAS can't be used with lock operations"),
        ("PUT /v1/var/a?lock-acquire&lock-release", "{}", 400, "multiple lock operations"),
        ("PUT /v1/var/a?lock-renew&lock-release", "{}", 400, "multiple lock operations"),
        ("PUT /v1/var/a?lock-acquire&lock-renew&lock-release", "{}", 400, "multiple lock operations"),
        ("PUT /v1/var/a?lock-acquire&wait=x", "{}", 400, "Invalid wait time"),
        ("PUT /v1/holdfast/lock/a", "{}", 405, "Invalid method"),
        ("GET /v1/holdfast/lock/", "", 400, "missing variable path"),
        ("GET /v1/holdfast/txn", "", 405, "Invalid method"),
        ("PUT /v1/holdfast/txn", "", 400, "Request body is empty"),
    ]);
}

/// The variable of the notes.
fn variable() -> Variable {
    Variable {
        namespace: "default".to_owned(),
        path: "a/b".to_owned(),
        lock: Some(VariableLock { id: "i".to_owned(), ttl: 15_000_000_000, lock_delay: 15_000_000_000 }),
        create_index: 11,
        create_time: 1_795_261_300_539_945_900,
        modify_index: 11,
        modify_time: 1_795_261_300_539_945_901,
        items: Some([("k".to_owned(), "v".to_owned())].into()),
    }
}

const VARIABLE: &str = r#"{"CreateIndex":11,"CreateTime":1795261300539945900,"Items":{"k":"v"},"Lock":{"TTL":"15s","LockDelay":"15s","ID":"i"},"ModifyIndex":11,"ModifyTime":1795261300539945901,"Namespace":"default","Path":"a/b"}"#;

#[test]
fn a_variable_is_shown_as_the_notes_show_it() {
    let response = VariablesReadResponse { data: Some(variable()), meta: meta() };
    assert_eq!(answered("GET /v1/var/a/b", "", &response), json_shown(200, VARIABLE, &READ));
    let missing = VariablesReadResponse { data: None, meta: meta() };
    assert_eq!(answered("GET /v1/var/a/b", "", &missing), text_shown(404, "variable not found", &READ));
    // The empty lock of a release, and no items: left out.
    let bare = Variable { lock: None, items: Some([].into()), ..variable() };
    let response = VariablesReadResponse { data: Some(bare), meta: meta() };
    let json = VARIABLE
        .replace(r#""Items":{"k":"v"},"#, "")
        .replace(r#""Lock":{"TTL":"15s","LockDelay":"15s","ID":"i"},"#, "");
    assert_eq!(answered("GET /v1/var/a/b", "", &response), json_shown(200, &json, &READ));
    let pretty = answered("GET /v1/var/a/b?pretty", "", &response).body;
    assert!(pretty.starts_with("{\n    \"CreateIndex\": 11,\n") && pretty.ends_with("\"\n}\n"), "{pretty}");
}

#[test]
fn what_owners_keep_in_a_variable_is_shown_as_it_is() {
    let time = String::from_utf8(vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]).unwrap();
    let items = [("SecretID", "shown"), ("Time", &*time), ("Hash", "abc"), ("TTL", "1"), ("q\"<", "\n\u{e4}&")];
    let items = items.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let var = Variable { items: Some(items.clone().into()), ..variable() };
    let shown = answered("GET /v1/var/a/b", "", &VariablesReadResponse { data: Some(var), meta: meta() });
    let json: Value = serde_json::from_str(&shown.body).unwrap();
    for (name, value) in items {
        assert_eq!(json["Items"][&name], value, "{name}");
    }
}

#[test]
fn numbers_are_exact() {
    for (index, time) in [(0, 0), (9, -1), (10, i64::MAX), (u64::MAX, i64::MIN)] {
        let var = Variable { create_index: index, modify_time: time, ..variable() };
        let shown = answered("GET /v1/var/a/b", "", &VariablesReadResponse { data: Some(var), meta: meta() }).body;
        let wanted = [format!("{{\"CreateIndex\":{index},"), format!(",\"ModifyTime\":{time},")];
        assert!(wanted.iter().all(|text| shown.contains(text)), "{shown}");
    }
}

#[test]
fn lists_are_never_null_and_have_next_pages() {
    let metadata =
        VariableMetadata { namespace: "default".to_owned(), path: "a".to_owned(), ..VariableMetadata::default() };
    let item = r#"{"CreateIndex":0,"CreateTime":0,"ModifyIndex":0,"ModifyTime":0,"Namespace":"default","Path":"a"}"#;
    let response = VariablesListResponse { data: vec![metadata.clone(), metadata], meta: meta() };
    assert_eq!(answered("GET /v1/vars", "", &response), json_shown(200, &format!("[{item},{item}]"), &READ));
    let mut page = meta();
    page.next_token = "default.b".to_owned();
    let page = answered("GET /v1/vars", "", &VariablesListResponse { data: vec![], meta: page });
    assert_eq!(page, json_shown(200, "[]", &[&READ[..], &["X-Nomad-NextToken: default.b"]].concat()));
    // As a Go peer writes an empty list, and never in contact with a leader (R1.83).
    let body = b"\x83\xa4Data\xc0\xabLastContact\xd3\x7f\xff\xff\xff\xff\xff\xff\xff\xabKnownLeader\xc2";
    let never = shown(render(&view_of("GET /v1/vars?stale", ""), &ReplyResult::Body(Arc::from(&body[..]))));
    let heads = ["X-Nomad-Index: 0", "X-Nomad-LastContact: 9223372036854", "X-Nomad-KnownLeader: false"];
    assert_eq!(never, json_shown(200, "[]", &heads));
}

const PUT: (&str, &str) = ("PUT /v1/var/a/b", r#"{"Items":{"k":"v"}}"#);
const ACQUIRE: (&str, &str) = ("PUT /v1/var/a/b?lock-acquire", "{}");

fn applied(request: (&str, &str), response: &VariablesApplyResponse) -> Shown {
    answered(request.0, request.1, response)
}

#[test]
fn writes_answer_what_was_written() {
    let ok = VariablesApplyResponse {
        result: "ok".to_owned(),
        input: Some(Variable::default()),
        output: Some(variable()),
        meta: WriteMeta { index: 12 },
        ..VariablesApplyResponse::default()
    };
    assert_eq!(applied(PUT, &ok), json_shown(200, VARIABLE, &["X-Nomad-Index: 12"]));
    // R8.1: the fence of an acquire.
    let fenced = VariablesApplyResponse { fence: 5, ..ok.clone() };
    let json = VARIABLE.replace(r#""Items""#, r#""Fence":5,"Items""#);
    assert_eq!(applied(ACQUIRE, &fenced), json_shown(200, &json, &["X-Nomad-Index: 12"]));
    let deleted = VariablesApplyResponse { output: None, ..ok.clone() };
    assert_eq!(applied(("DELETE /v1/var/a/b", ""), &deleted), empty_shown(204, &["X-Nomad-Index: 12"]));
    // Durations of all sizes in Go's words.
    let lock = VariableLock { id: String::new(), ttl: 86_400_000_000_000, lock_delay: 0 };
    let locked = VariablesApplyResponse { output: Some(Variable { lock: Some(lock), ..variable() }), ..ok };
    assert!(applied(ACQUIRE, &locked).body.contains(r#""Lock":{"TTL":"24h0m0s","LockDelay":"","ID":""}"#));
}

#[test]
fn conflicts_answer_what_stood_in_the_way() {
    let conflict = |var: Variable| VariablesApplyResponse {
        result: "conflict".to_owned(),
        conflict: Some(var),
        meta: WriteMeta { index: 12 },
        ..VariablesApplyResponse::default()
    };
    let stored = conflict(variable());
    for request in [PUT, ("PUT /v1/var/a/b?cas=3", PUT.1), ("DELETE /v1/var/a/b?cas=3", "")] {
        assert_eq!(applied(request, &stored), json_shown(409, VARIABLE, &["X-Nomad-Index: 11"]), "{request:?}");
    }
    let empty = conflict(Variable { namespace: "default".to_owned(), path: "zz".to_owned(), ..Variable::default() });
    let json = r#"{"CreateIndex":0,"CreateTime":0,"ModifyIndex":0,"ModifyTime":0,"Namespace":"default","Path":"zz"}"#;
    assert_eq!(applied(("PUT /v1/var/zz?cas=3", PUT.1), &empty), json_shown(409, json, &["X-Nomad-Index: 0"]));
    assert_eq!(applied(("DELETE /v1/var/zz", ""), &empty), json_shown(409, json, &["X-Nomad-Index: 0"]));
    for request in [ACQUIRE, ("PUT /v1/var/zz?lock-release", r#"{"Lock":{"ID":"x"}}"#)] {
        assert_eq!(applied(request, &empty), json_shown(409, json, &[]), "{request:?}");
    }
}

#[test]
fn renewals_have_no_index() {
    let var = variable();
    let var_meta = VariableMetadata {
        namespace: var.namespace,
        path: var.path,
        lock: var.lock,
        create_index: var.create_index,
        create_time: var.create_time,
        modify_index: var.modify_index,
        modify_time: var.modify_time,
    };
    let renew = ("PUT /v1/var/a/b?lock-renew", r#"{"Lock":{"ID":"i"}}"#);
    let response = VariablesRenewLockResponse { var_meta: Some(var_meta), meta: WriteMeta { index: 11 } };
    let json = VARIABLE.replace(r#""Items":{"k":"v"},"#, "");
    assert_eq!(answered(renew.0, renew.1, &response), json_shown(200, &json, &[]));
    for (error, status, text) in [
        ("RPC Error:: 404,variable doesn't exist", 404, "variable doesn't exist"),
        ("RPC Error:: 409,variable doesn't hold a lock", 409, "variable doesn't hold a lock"),
        ("RPC Error:: 409,attempting to modify locked variable", 409, "attempting to modify locked variable"),
        ("1 error occurred:\n\t* missing lock ID\n\n", 500, "1 error occurred:\n\t* missing lock ID\n\n"),
    ] {
        assert_eq!(failed(renew.0, renew.1, error), text_shown(status, text, &[]), "{error}");
    }
}

// R8.10.
#[test]
fn locks_are_shown_with_durations_in_words() {
    let lock = LockStub {
        namespace: "default".to_owned(),
        path: "a".to_owned(),
        held: true,
        owner: "me".to_owned(),
        since: 5,
        deadline: 6,
        ttl: 15_000_000_000,
        lock_delay: 1_000_000_000,
        fence: 3,
        waiters: 2,
    };
    let json = r#"{"Deadline":6,"Fence":3,"Held":true,"LockDelay":"1s","Namespace":"default","Owner":"me","Path":"a","Since":5,"TTL":"15s","Waiters":2}"#;
    let list = LockListResponse { locks: vec![lock.clone()], meta: meta() };
    assert_eq!(answered("GET /v1/holdfast/locks", "", &list), json_shown(200, &format!("[{json}]"), &READ));
    let one = LockReadResponse { lock: Some(lock), meta: meta() };
    assert_eq!(answered("GET /v1/holdfast/lock/a", "", &one), json_shown(200, json, &READ));
    let none = LockReadResponse { lock: None, meta: meta() };
    assert_eq!(answered("GET /v1/holdfast/lock/a", "", &none), text_shown(404, "lock not found", &READ));
    let broken = GenericResponse { meta: WriteMeta { index: 9 } };
    assert_eq!(answered("DELETE /v1/holdfast/lock/a", "", &broken), empty_shown(200, &["X-Nomad-Index: 9"]));
}

// R8.29.
#[test]
fn several_writes_are_answered_one_by_one() {
    let result = |result: &str, conflict| TxnResult { result: result.to_owned(), conflict, output: None };
    let request = ("PUT /v1/holdfast/txn", r#"{"Ops":[]}"#);
    let ok = TxnResponse { result: "ok".to_owned(), results: vec![result("ok", None)], meta: WriteMeta { index: 9 } };
    let json = r#"{"Index":9,"Result":"ok","Results":[{"Conflict":null,"Output":null,"Result":"ok"}]}"#;
    assert_eq!(answered(request.0, request.1, &ok), json_shown(200, json, &["X-Nomad-Index: 9"]));
    let results = vec![result("skipped", None), result("conflict", Some(variable()))];
    let conflict = TxnResponse { result: "conflict".to_owned(), results, meta: WriteMeta { index: 9 } };
    let json = format!(
        r#"{{"Index":9,"Result":"conflict","Results":[{{"Conflict":null,"Output":null,"Result":"skipped"}},{{"Conflict":{VARIABLE},"Output":null,"Result":"conflict"}}]}}"#
    );
    assert_eq!(answered(request.0, request.1, &conflict), json_shown(409, &json, &[]));
}
