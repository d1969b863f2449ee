//! HTTP notes, sections 2, 6, 7 and 8: status, regions, agent, events, monitor, metrics.

use super::*;
use crate::wire::body::keyring::{ListPublicResponse, PublicKey};
use crate::wire::body::operator::{AgentSelfResponse, ConnectionsResponse};
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::status::{Member, ServerMembersResponse};
use crate::wire::msgpack::Bytes;

pub(super) const CALLS: &[Row] = &[
    ("GET /v1/status/leader?stale&region=east", "", "Status.Leader", r#"{"AllowStale":true}"#),
    ("GET /v1/status/peers", "", "Status.Peers", r#"{"AllowStale":false}"#),
    ("GET /v1/regions", "", "Region.List", "{}"),
    ("GET /v1/agent/health", "", "Status.Leader", r#"{"AllowStale":false}"#),
    ("GET /v1/agent/health?type=server", "", "Status.Leader", "{}"),
    ("GET /v1/agent/members", "", "Status.Members", "{}"),
    ("GET /v1/agent/self", "", "Holdfast.AgentSelf", "{}"),
    ("PUT /v1/agent/reload", "", "Holdfast.Reload", "{}"),
    ("GET /v1/agent/host?node_id=abc", "", "Agent.Host", r#"{"NodeID":"abc"}"#),
    (
        "GET /v1/agent/monitor",
        "",
        "Agent.Monitor",
        r#"{"LogLevel":"INFO","LogJSON":false,"PlainText":false,"LogIncludeLocation":false,"NodeID":"","ServerID":""}"#,
    ),
    (
        "GET /v1/agent/monitor?log_level=warn&log_json=true&plain=1&log_include_location=t&server_id=leader",
        "",
        "Agent.Monitor",
        r#"{"LogLevel":"warn","LogJSON":true,"PlainText":true,"LogIncludeLocation":true,"ServerID":"leader"}"#,
    ),
    ("GET /v1/event/stream", "", "Event.Stream", r#"{"Topics":{"*":["*"]},"Index":0,"Namespace":"default"}"#),
    (
        "GET /v1/event/stream?topic=Node&topic=Variable:a/b&topic=Variable:&topic=Node:x&index=-1&namespace=*",
        "",
        "Event.Stream",
        r#"{"Topics":{"Node":["*","x"],"Variable":["a/b",""]},"Index":-1,"Namespace":"*","MinQueryIndex":0}"#,
    ),
    ("GET /.well-known/jwks.json?index=3", "", "Keyring.ListPublic", r#"{"MinQueryIndex":3}"#),
    ("GET /readyz", "", "Status.Leader", r#"{"AllowStale":true}"#),
    ("HEAD /readyz", "", "Status.Leader", r#"{"AllowStale":true}"#),
    ("GET /v1/holdfast/connections", "", "Holdfast.Connections", "{}"),
];

#[test]
fn requests_become_calls() {
    check_calls(CALLS);
}

#[test]
fn what_is_wrong_is_said() {
    let client = r#"{"client":{"ok":false,"message":"client not enabled"}}"#;
    let index = "Unable to parse index: strconv.Atoi: parsing \"x\": invalid syntax";
    let topic = "Invalid topic query: error parsing topics: Invalid key value pair for topic, topic: a:b:c";
    let plain = "Unknown option for plain: strconv.ParseBool: parsing \"x\": invalid syntax";
    let json = "Unknown option for log json: strconv.ParseBool: parsing \"x\": invalid syntax";
    check_refused(&[
        ("PUT /v1/status/leader", "", 405, "Invalid method"),
        ("HEAD /v1/regions", "", 405, "Invalid method"),
        ("POST /v1/agent/health", "", 405, "Invalid method"),
        ("GET /v1/agent/health?type=client", "", 500, client),
        ("PUT /v1/agent/members", "", 405, "Invalid method"),
        ("PUT /v1/agent/self", "", 405, "Invalid method"),
        ("GET /v1/agent/servers", "", 501, "Invalid method"),
        ("PUT /v1/agent/servers?address=a", "", 501, "Invalid method"),
        ("DELETE /v1/agent/servers", "", 405, "Invalid method"),
        ("PUT /v1/agent/join", "", 400, "missing address to join"),
        ("GET /v1/agent/join?address=a", "", 405, "Invalid method"),
        ("PUT /v1/agent/force-leave", "", 400, "missing node to force leave"),
        ("PUT /v1/agent/force-leave?node=x&prune=maybe", "", 400, "invalid prune value"),
        ("PUT /v1/agent/force-leave?node=x&prune=true", "", 200, ""),
        ("GET /v1/agent/reload", "", 405, "Invalid method"),
        ("PUT /v1/metrics", "", 405, "Invalid method"),
        ("PUT /v1/event/stream", "", 405, "Invalid method"),
        ("GET /v1/event/stream?topic=a:b:c", "", 400, topic),
        ("GET /v1/event/stream?index=x", "", 400, index),
        ("GET /v1/event/stream?stale=x", "", 400, "Expect `true` or `false` for `stale` query string parameter"),
        ("GET /v1/agent/monitor?log_level=bogus", "", 400, "Unknown log level: bogus"),
        ("GET /v1/agent/monitor?plain=x", "", 400, plain),
        ("GET /v1/agent/monitor?log_json=x", "", 400, json),
        ("GET /v1/agent/monitor?node_id=a&server_id=b", "", 400, "Cannot target node and server simultaneously"),
        ("PUT /v1/agent/monitor", "", 405, "Invalid method"),
        ("PUT /.well-known/jwks.json", "", 405, "Invalid method"),
        ("GET /livez", "", 200, "ok"),
        ("HEAD /livez", "", 200, "ok"),
        ("PUT /livez", "", 405, "Invalid method"),
        ("PUT /readyz", "", 405, "Invalid method"),
    ]);
    let Plan::Reply(join) = plan_of("PUT /v1/agent/join?address=a", "") else { panic!("a call") };
    let json = r#"{"error":"servers join by their configuration: cluster.join","num_joined":0,"warning":""}"#;
    assert_eq!(shown(join), json_shown(200, json, &[]));
}

#[test]
fn streams_say_what_they_become() {
    for (line, body) in [
        ("GET /v1/event/stream", StreamBody::Events),
        ("GET /v1/agent/monitor", StreamBody::MonitorJson),
        ("GET /v1/agent/monitor?plain=true", StreamBody::MonitorPlain),
    ] {
        let Plan::Stream { body: planned, .. } = plan_of(line, "") else { panic!("{line}") };
        assert_eq!(planned, body, "{line}");
    }
    for (line, expected) in [
        ("GET /v1/metrics", (false, false)),
        ("GET /v1/metrics?format=prometheus&pretty", (true, true)),
        ("GET /v1/metrics?format=other", (false, false)),
    ] {
        let Plan::Metrics { prometheus, pretty } = plan_of(line, "") else { panic!("{line}") };
        assert_eq!((prometheus, pretty), expected, "{line}");
    }
}

#[test]
fn status_has_no_index() {
    let leader = "127.0.0.1:4647".to_owned();
    assert_eq!(answered("GET /v1/status/leader", "", &leader), json_shown(200, r#""127.0.0.1:4647""#, &[]));
    assert_eq!(answered("GET /v1/status/leader?stale", "", &String::new()), json_shown(200, r#""""#, &[]));
    assert_eq!(answered("GET /v1/status/peers", "", &vec![leader]), json_shown(200, r#"["127.0.0.1:4647"]"#, &[]));
    assert_eq!(answered("GET /v1/status/peers", "", &Option::<String>::None), json_shown(200, "[]", &[]));
    assert_eq!(answered("GET /v1/regions", "", &vec!["global".to_owned()]), json_shown(200, r#"["global"]"#, &[]));
}

#[test]
fn health_is_that_a_leader_is_known() {
    let leader = "127.0.0.1:4647".to_owned();
    let ok = json_shown(200, r#"{"server":{"message":"ok","ok":true}}"#, &[]);
    assert_eq!(answered("GET /v1/agent/health", "", &leader), ok);
    let none = text_shown(500, r#"{"server":{"ok":false,"message":"no leader"}}"#, &[]);
    assert_eq!(answered("GET /v1/agent/health?type=server", "", &String::new()), none);
    assert_eq!(failed("GET /v1/agent/health", "", "a \"b\"").body, r#"{"server":{"ok":false,"message":"a \"b\""}}"#);
    let both = answered("GET /v1/agent/health?type=server&type=client", "", &leader);
    let json = r#"{"client":{"ok":false,"message":"client not enabled"},"server":{"ok":true,"message":"ok"}}"#;
    assert_eq!(both, text_shown(500, json, &[]));
    assert_eq!(answered("GET /readyz", "", &leader), text_shown(200, "ok", &[]));
    assert_eq!(answered("GET /readyz", "", &String::new()), text_shown(503, "no leader", &[]));
    assert_eq!(failed("GET /readyz", "", "boom"), text_shown(503, "boom", &[]));
}

#[test]
fn members_have_addresses_as_text() {
    let member = Member {
        name: "srv1.global".to_owned(),
        addr: Bytes(vec![127, 0, 0, 1]),
        port: 4648,
        tags: [("role".to_owned(), "nomad".to_owned())].into(),
        status: "alive".to_owned(),
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    };
    let addr = |bytes: &[u8]| {
        let response = ServerMembersResponse {
            server_name: "srv1".to_owned(),
            server_region: "global".to_owned(),
            server_dc: "dc1".to_owned(),
            members: vec![Member { addr: Bytes(bytes.to_vec()), ..member.clone() }],
        };
        answered("GET /v1/agent/members", "", &response)
    };
    let json = r#"{"Members":[{"Addr":"127.0.0.1","DelegateCur":4,"DelegateMax":5,"DelegateMin":2,"Name":"srv1.global","Port":4648,"ProtocolCur":2,"ProtocolMax":5,"ProtocolMin":1,"Status":"alive","Tags":{"role":"nomad"}}],"ServerDC":"dc1","ServerName":"srv1","ServerRegion":"global"}"#;
    assert_eq!(addr(&[127, 0, 0, 1]), json_shown(200, json, &[]));
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    assert_eq!(addr(&mapped).body, json);
    assert!(addr(&[]).body.contains(r#""Addr":"""#));
}

#[test]
fn an_agent_says_what_clients_read_of_it() {
    let config = r#"{"Region":"west","Datacenter":"dc7","NodeName":"hf1","AdvertiseAddrs":{"RPC":"[::1]:4647"},"Version":{"Version":"2.0.5"},"ACL":{"Enabled":true}}"#;
    let response =
        AgentSelfResponse { config_json: config.to_owned(), stats_json: r#"{"nomad":{"leader":"true"}}"#.to_owned() };
    let shown = answered("GET /v1/agent/self", "", &response);
    let json: Value = serde_json::from_str(&shown.body).unwrap();
    for (place, value) in [
        ("/member/Name", "hf1.west"),
        ("/member/Addr", "::1"),
        ("/member/Tags/dc", "dc7"),
        ("/member/Tags/build", "2.0.5"),
        ("/member/Tags/port", "4647"),
        ("/config/Datacenter", "dc7"),
        ("/stats/nomad/leader", "true"),
    ] {
        assert_eq!(json.pointer(place).unwrap(), value, "{place}");
    }
    assert_eq!(json["config"]["UI"], serde_json::json!({ "Enabled": false, "ShowCLIHints": false }));
    assert_eq!(json["config"]["ACL"]["Enabled"], true);
    assert_eq!(json["member"]["Port"], 4647);
    // Even of nothing at all.
    let shown = answered("GET /v1/agent/self", "", &AgentSelfResponse::default());
    let json: Value = serde_json::from_str(&shown.body).unwrap();
    assert_eq!(
        (shown.status, &json["stats"], &json["member"]["Status"]),
        (200, &serde_json::json!({}), &"alive".into())
    );
    let done = GenericResponse { meta: WriteMeta { index: 3 } };
    assert_eq!(answered("PUT /v1/agent/reload", "", &done), empty_shown(200, &[]));
}

#[test]
fn public_keys_are_a_key_set() {
    let key = PublicKey {
        key_id: "a1b2".to_owned(),
        public_key: Bytes(vec![0xfb, 0xff, 0xfe, 1]),
        algorithm: "EdDSA".to_owned(),
        usage: "sig".to_owned(),
        create_time: 5,
    };
    let response = ListPublicResponse { public_keys: vec![key], rotation_threshold: 5, meta: meta() };
    let json = r#"{"keys":[{"use":"sig","kty":"OKP","kid":"a1b2","crv":"Ed25519","alg":"EdDSA","x":"-__-AQ"}]}"#;
    let heads = [&["Cache-Control: max-age=300"], &READ[..]].concat();
    assert_eq!(answered("GET /.well-known/jwks.json", "", &response), json_shown(200, json, &heads));
}

#[test]
fn connections_are_shown_whole() {
    let response = ConnectionsResponse { connections: vec![], total: 5 };
    let shown = answered("GET /v1/holdfast/connections", "", &response);
    assert_eq!(shown, json_shown(200, r#"{"Connections":[],"Total":5}"#, &[]));
}
