//! HTTP notes, section 3: nodes, and calls that go on to one.

use super::*;
use crate::wire::body::node_call::{
    NodeAllocsResponse, NodeChangeResponse, NodeListItem, NodeListResponse, NodeUpdateResponse,
};
use crate::wire::body::query::WriteMeta;
use crate::wire::msgpack::{Encoder, Raw};

pub(super) const CALLS: &[Row] = &[
    ("GET /v1/nodes", "", "Node.List", r#"{"Prefix":"","Fields":{"Resources":false,"OS":false}}"#),
    (
        "GET /v1/nodes?prefix=a1b2&resources=true&os=1&region=east",
        "",
        "Node.List",
        r#"{"Prefix":"a1b2","Fields":{"Resources":true,"OS":true}}"#,
    ),
    ("GET /v1/node/abc?index=5", "", "Node.GetNode", r#"{"NodeID":"abc","MinQueryIndex":5,"SecretID":""}"#),
    ("GET /v1/node/abc/allocations", "", "Node.GetAllocs", r#"{"NodeID":"abc"}"#),
    (
        "PUT /v1/node/abc/drain",
        r#"{"DrainSpec":{"Deadline":-1,"IgnoreSystemJobs":true},"MarkEligible":false,"Meta":{"m":"x"}}"#,
        "Node.UpdateDrain",
        r#"{"NodeID":"abc","DrainStrategy":{"Deadline":-1,"IgnoreSystemJobs":true},"MarkEligible":false,"Meta":{"m":"x"},"NodeEvent":null}"#,
    ),
    (
        "POST /v1/node/abc/drain",
        r#"{"DrainSpec":null,"MarkEligible":true}"#,
        "Node.UpdateDrain",
        r#"{"DrainStrategy":null,"MarkEligible":true}"#,
    ),
    (
        "PUT /v1/node/abc/eligibility",
        r#"{"Eligibility":"eligible"}"#,
        "Node.UpdateEligibility",
        r#"{"NodeID":"abc","Eligibility":"eligible"}"#,
    ),
    (
        "POST /v1/node/abc/eligibility",
        r#"{"Eligibility":"ineligible","NodeID":"other"}"#,
        "Node.UpdateEligibility",
        r#"{"NodeID":"other"}"#,
    ),
    ("PUT /v1/node/abc/purge", "", "Node.Deregister", r#"{"NodeID":"abc"}"#),
    ("POST /v1/node/abc/evaluate", "", "Node.Evaluate", r#"{"NodeID":"abc"}"#),
    ("GET /v1/client/stats?node_id=abc", "", "ClientStats.Stats", r#"{"NodeID":"abc"}"#),
    ("GET /v1/client/metadata?node_id=abc", "", "NodeMeta.Read", r#"{"NodeID":"abc"}"#),
    (
        "POST /v1/client/metadata?node_id=abc",
        r#"{"NodeID":"","Meta":{"k":"v","gone":null}}"#,
        "NodeMeta.Apply",
        r#"{"NodeID":"abc","Meta":{"k":"v","gone":null}}"#,
    ),
    ("POST /v1/client/metadata", r#"{"NodeID":"abc","Meta":{}}"#, "NodeMeta.Apply", r#"{"NodeID":"abc","Meta":{}}"#),
    ("GET /v1/client/identity?node_id=abc", "", "NodeIdentity.Get", r#"{"NodeID":"abc"}"#),
    ("PUT /v1/client/identity/renew?node_id=abc", "", "NodeIdentity.Renew", r#"{"NodeID":"abc"}"#),
    ("POST /v1/client/identity/renew", r#"{"NodeID":"abc"}"#, "NodeIdentity.Renew", r#"{"NodeID":"abc"}"#),
    ("PUT /v1/client/gc?node_id=abc", "", "ClientAllocations.GarbageCollectAll", r#"{"NodeID":"abc"}"#),
];

#[test]
fn requests_become_calls() {
    check_calls(CALLS);
}

#[test]
fn what_is_wrong_is_said() {
    let bad_bool = "Failed to parse node list fields: Failed to parse value of \"resources\" (maybe) as a bool: \
                    strconv.ParseBool: parsing \"maybe\": invalid syntax";
    let no_node = "No local Node and node_id not provided";
    check_refused(&[
        ("PUT /v1/nodes", "", 405, "Invalid method"),
        ("GET /v1/nodes?resources=maybe", "", 400, bad_bool),
        ("DELETE /v1/node/abc", "", 405, "Invalid method"),
        ("PUT /v1/node/abc/allocations", "", 405, "Invalid method"),
        ("GET /v1/node/abc/drain", "", 405, "Invalid method"),
        ("PUT /v1/node/abc/drain?enable=true", "", 400, "Request body is empty"),
        ("PUT /v1/node/abc/eligibility", "", 400, "Request body is empty"),
        ("GET /v1/node/abc/purge", "", 405, "Invalid method"),
        ("GET /v1/node/abc/evaluate", "", 405, "Invalid method"),
        ("GET /v1/client/stats", "", 400, no_node),
        ("POST /v1/client/stats?node_id=x", "", 405, "Invalid method"),
        ("GET /v1/client/metadata", "", 400, no_node),
        ("POST /v1/client/metadata", "", 400, "Request body is empty"),
        ("DELETE /v1/client/metadata", "", 405, "Invalid method"),
        ("GET /v1/client/identity?node_id=", "", 400, no_node),
        ("PUT /v1/client/identity/renew", r#"{"NodeID":""}"#, 400, no_node),
        ("GET /v1/client/identity/renew", "", 405, "Invalid method"),
        ("PUT /v1/node/pools", "", 501, "not served by holdfast: PUT /v1/node/pools"),
        ("GET /v1/node/pool/other", "", 404, "node pool not found"),
        ("GET /v1/node/abc/other", "", 501, "not served by holdfast: GET /v1/node/abc/other"),
        ("GET /v1/node/", "", 501, "not served by holdfast: GET /v1/node/"),
    ]);
}

#[test]
fn nodes_are_listed_without_what_was_not_asked_for() {
    let node = NodeListItem { id: "abc".to_owned(), name: "n".to_owned(), ..NodeListItem::default() };
    let asked = NodeListItem { attributes: Some([("os.name".to_owned(), "x".to_owned())].into()), ..node.clone() };
    let response = NodeListResponse { nodes: vec![node, asked], meta: meta() };
    let shown = answered("GET /v1/nodes", "", &response);
    let item = r#"{"Address":"","CreateIndex":0,"Datacenter":"","Drain":false,"Drivers":null,"HostVolumes":null,"ID":"abc","LastDrain":null,"ModifyIndex":0,"Name":"n","NodeClass":"","NodePool":"","SchedulingEligibility":"","Status":"","StatusDescription":"","Version":""}"#;
    let other = item.replace(r#""CreateIndex""#, r#""Attributes":{"os.name":"x"},"CreateIndex""#);
    assert_eq!(shown, json_shown(200, &format!("[{item},{other}]"), &READ));
    let none = NodeListResponse { nodes: vec![], meta: meta() };
    assert_eq!(answered("GET /v1/nodes", "", &none), json_shown(200, "[]", &READ));
}

/// A reply with this field, and meta.
fn with(field: &str, value: &[u8]) -> Raw {
    let mut e = Encoder::new();
    e.map(4);
    e.str(field);
    e.raw(value);
    e.str("Index");
    e.u64(7);
    e.str("LastContact");
    e.i64(1_500_000_000);
    e.str("KnownLeader");
    e.bool(true);
    Raw(e.out.into())
}

#[test]
fn a_node_has_no_secret_and_says_whether_it_is_drained() {
    let node = |strategy: &[u8], old: bool| {
        let mut e = Encoder::new();
        e.map(5);
        for (key, value) in
            [("SecretID", &b"\xa6secret"[..]), ("ID", b"\xa3abc"), ("Meta", b"\x81\xa8SecretID\xa4mine")]
        {
            e.str(key);
            e.raw(value);
        }
        e.str("Drain");
        e.bool(old);
        e.str("DrainStrategy");
        e.raw(strategy);
        answered("GET /v1/node/abc", "", &with("Node", &e.out))
    };
    let json = |drain: &str, strategy: &str| {
        format!(
            r#"{{"Drain":{drain},"DrainStrategy":{strategy},"ID":"abc","Meta":{{"SecretID":"mine"}},"SecretID":""}}"#
        )
    };
    assert_eq!(node(b"\xc0", true), json_shown(200, &json("false", "null"), &READ));
    assert_eq!(node(b"\x81\xa8Deadline\x05", false), json_shown(200, &json("true", r#"{"Deadline":5}"#), &READ));
    let missing = answered("GET /v1/node/abc", "", &with("Node", b"\xc0"));
    assert_eq!(missing, text_shown(404, "node not found", &READ));
    let text = "node lookup failed: index error: UUID must be 36 characters";
    assert_eq!(failed("GET /v1/node/abc", "", text), text_shown(500, text, &[]));
    let none = NodeAllocsResponse { allocs: None, meta: meta() };
    assert_eq!(answered("GET /v1/node/abc/allocations", "", &none), json_shown(200, "[]", &READ));
}

#[test]
fn changes_of_a_node_answer_with_their_index() {
    let change =
        NodeChangeResponse { node_modify_index: 9, meta: WriteMeta { index: 9 }, ..NodeChangeResponse::default() };
    let json = r#"{"EvalCreateIndex":0,"EvalIDs":null,"Index":9,"NodeModifyIndex":9}"#;
    for (line, body) in [("PUT /v1/node/abc/drain", "{}"), ("PUT /v1/node/abc/eligibility", "{}")] {
        assert_eq!(answered(line, body, &change), json_shown(200, json, &["X-Nomad-Index: 9"]), "{line}");
    }
    let update = NodeUpdateResponse {
        num_nodes: 2,
        leader_rpc_addr: "a:1".to_owned(),
        meta: meta(),
        ..NodeUpdateResponse::default()
    };
    let json = r#"{"EvalCreateIndex":0,"EvalIDs":null,"Features":0,"HeartbeatTTL":0,"Index":7,"KnownLeader":true,"LastContact":1500000000,"LeaderRPCAddr":"a:1","NextToken":"","NodeModifyIndex":0,"NumNodes":2,"SchedulingEligibility":"","Servers":null,"SignedIdentity":null}"#;
    for line in ["PUT /v1/node/abc/purge", "PUT /v1/node/abc/evaluate"] {
        assert_eq!(answered(line, "", &update), json_shown(200, json, &["X-Nomad-Index: 7"]), "{line}");
    }
    assert_eq!(failed("PUT /v1/node/abc/purge", "", "node not found"), text_shown(500, "node not found", &[]));
}

#[test]
fn what_a_node_answers_is_passed_on() {
    let stats = with("HostStats", b"\x82\xa6Uptime\x05\xa3CPU\x90");
    let line = "GET /v1/client/stats?node_id=abc";
    assert_eq!(answered(line, "", &stats), json_shown(200, r#"{"CPU":[],"Uptime":5}"#, &[]));
    let metadata = b"\x83\xa4Meta\x81\xa8SecretID\xa1x\xa7Dynamic\x81\xa4gone\xc0\xa6Static\x80".to_vec();
    let json = r#"{"Dynamic":{"gone":null},"Meta":{"SecretID":"x"},"Static":{}}"#;
    let metadata = Raw(metadata.into());
    assert_eq!(answered("GET /v1/client/metadata?node_id=abc", "", &metadata), json_shown(200, json, &[]));
    let claims = with("Claims", b"\x81\xa3exp\x05");
    let line = "GET /v1/client/identity?node_id=abc";
    assert_eq!(answered(line, "", &claims), json_shown(200, r#"{"Claims":{"exp":5}}"#, &[]));
    let empty = Raw((&b"\x81\xa5Index\x05"[..]).into());
    assert_eq!(answered("PUT /v1/client/identity/renew?node_id=abc", "", &empty), json_shown(200, "{}", &[]));
    assert_eq!(answered("PUT /v1/client/gc?node_id=abc", "", &empty), empty_shown(200, &[]));
    for path in ["stats", "metadata", "identity"] {
        let line = format!("GET /v1/client/{path}?node_id=abc");
        for (text, status) in [
            ("Unknown node abc", 404),
            ("rpc error: No path to node", 404),
            ("Node does not support RPC; requires 0.8 or later", 500),
            ("rpc: can't find service NodeMeta.Read", 500),
        ] {
            assert_eq!(failed(&line, "", text), text_shown(status, text, &[]), "{line} {text}");
        }
    }
}

#[test]
fn the_pools_are_those_that_are_built_in() {
    let Plan::Reply(reply) = plan_of("GET /v1/node/pools", "") else { panic!("a call") };
    let json: Value = serde_json::from_slice(&reply.body).unwrap();
    let names: Vec<_> = json.as_array().unwrap().iter().map(|pool| pool["Name"].as_str().unwrap()).collect();
    assert_eq!((reply.status, names), (200, vec!["all", "default"]));
    let Plan::Reply(reply) = plan_of("GET /v1/node/pool/default", "") else { panic!("a call") };
    assert_eq!(serde_json::from_slice::<Value>(&reply.body).unwrap(), json[1]);
}
