//! HTTP notes, section 5: raft, autopilot, scheduler, snapshots, key ring, search.

use super::*;
use crate::wire::body::keyring::{KeyringListResponse, KeyringRotateResponse, RootKeyMeta};
use crate::wire::body::node::go_time;
use crate::wire::body::operator::{
    AutopilotConfig, LeadershipTransferResponse, OperatorHealthReply, RaftConfigurationResponse, RaftIdAddress,
    RaftServer, SchedulerConfigurationResponse, SchedulerSetConfigurationResponse, ServerHealth,
};
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::search::SearchResponse;
use crate::wire::msgpack::Raw;

const ID: &str = "a1b2c3d4-0001-0002-0003-00000000abcd";

pub(super) const CALLS: &[Row] = &[
    ("GET /v1/operator/raft/configuration?stale", "", "Operator.RaftGetConfiguration", r#"{"AllowStale":true}"#),
    ("DELETE /v1/operator/raft/peer?id=zz", "", "Operator.RaftRemovePeerByID", r#"{"ID":"zz"}"#),
    (
        "PUT /v1/operator/raft/transfer-leadership?id=a1b2c3d4-0001-0002-0003-00000000abcd",
        "",
        "Operator.TransferLeadershipToPeer",
        r#"{"ID":"a1b2c3d4-0001-0002-0003-00000000abcd","Address":""}"#,
    ),
    (
        "POST /v1/operator/raft/transfer-leadership?address=127.0.0.1:4647",
        "",
        "Operator.TransferLeadershipToPeer",
        r#"{"Address":"127.0.0.1:4647","ID":""}"#,
    ),
    ("GET /v1/operator/autopilot/configuration", "", "Operator.AutopilotGetConfiguration", "{}"),
    (
        "PUT /v1/operator/autopilot/configuration",
        r#"{"CleanupDeadServers":true,"LastContactThreshold":"200ms","ServerStabilizationTime":10000000000,"MaxTrailingLogs":250}"#,
        "Operator.AutopilotSetConfiguration",
        r#"{"CAS":false,"Config":{"CleanupDeadServers":true,"LastContactThreshold":200000000,"ServerStabilizationTime":10000000000,"MaxTrailingLogs":250}}"#,
    ),
    (
        "PUT /v1/operator/autopilot/configuration?cas=7",
        r#"{"ModifyIndex":3}"#,
        "Operator.AutopilotSetConfiguration",
        r#"{"CAS":true,"Config":{"ModifyIndex":7}}"#,
    ),
    ("GET /v1/operator/autopilot/health", "", "Operator.ServerHealth", "{}"),
    ("GET /v1/operator/scheduler/configuration", "", "Operator.SchedulerGetConfiguration", "{}"),
    (
        "POST /v1/operator/scheduler/configuration?cas=2",
        r#"{"SchedulerAlgorithm":"spread","PreemptionConfig":{"SystemSchedulerEnabled":true}}"#,
        "Operator.SchedulerSetConfiguration",
        r#"{"CAS":true,"Config":{"ModifyIndex":2,"SchedulerAlgorithm":"spread","PreemptionConfig":{"SystemSchedulerEnabled":true}}}"#,
    ),
    ("GET /v1/operator/snapshot?stale", "", "Operator.SnapshotSave", r#"{"AllowStale":true}"#),
    ("PUT /v1/operator/snapshot", "", "Operator.SnapshotRestore", r#"{"Namespace":"default"}"#),
    ("GET /v1/operator/keyring/keys", "", "Keyring.List", "{}"),
    ("PUT /v1/operator/keyring/rotate", "", "Keyring.Rotate", r#"{"Full":false,"Algorithm":"","PublishTime":0}"#),
    (
        "POST /v1/operator/keyring/rotate?full=&algorithm=aes256-gcm&publish_time=5",
        "",
        "Keyring.Rotate",
        r#"{"Full":true,"Algorithm":"aes256-gcm","PublishTime":5}"#,
    ),
    ("PUT /v1/operator/keyring/rotate?full=false&algo=x", "", "Keyring.Rotate", r#"{"Full":false,"Algorithm":"x"}"#),
    ("DELETE /v1/operator/keyring/key/k1", "", "Keyring.Delete", r#"{"KeyID":"k1"}"#),
    (
        "POST /v1/search",
        r#"{"Prefix":"a","Context":"vars"}"#,
        "Search.PrefixSearch",
        r#"{"Prefix":"a","Context":"vars","Namespace":"default"}"#,
    ),
    (
        "PUT /v1/search?namespace=q&prefix=b",
        r#"{"Prefix":"a","Context":"all","Namespace":"n","Region":"west"}"#,
        "Search.PrefixSearch",
        r#"{"Prefix":"b","Namespace":"q"}"#,
    ),
    (
        "PUT /v1/search",
        r#"{"Prefix":"a","Context":"all","Namespace":"n"}"#,
        "Search.PrefixSearch",
        r#"{"Namespace":"n"}"#,
    ),
];

#[test]
fn requests_become_calls() {
    check_calls(CALLS);
    let Plan::Stream { body, .. } = plan_of("GET /v1/operator/snapshot", "") else { panic!("no stream") };
    assert_eq!(body, StreamBody::Snapshot);
    assert!(matches!(plan_of("POST /v1/operator/snapshot", ""), Plan::Upload { .. }));
}

#[test]
fn what_is_wrong_is_said() {
    let by_address = "Removing a peer by address is not supported in the current raft protocol version";
    let cas = "Error parsing cas value: strconv.ParseUint: parsing \"x\": invalid syntax";
    let transfer = |query: &str| format!("PUT /v1/operator/raft/transfer-leadership?{query}");
    for (query, text) in [
        ("", "must specify id or address"),
        ("id=a&address=b", "must specify either id or address"),
        ("id=", "id must be non-empty"),
        ("id=a&id=b", "must specify only one id"),
        ("address=", "address must be non-empty"),
        ("address=a&address=b", "must specify only one address"),
        ("id=zz", "id must be a uuid: uuid string is wrong length"),
        ("id=a1b2c3d4x0001-0002-0003-00000000abcd", "id must be a uuid: uuid is improperly formatted"),
        ("id=g1b2c3d4-0001-0002-0003-00000000abcd", "id must be a uuid: uuid is improperly formatted"),
    ] {
        check_refused(&[(transfer(query).leak(), "", 400, text)]);
    }
    let Plan::Reply(reply) = plan_of(&transfer("address=localhost"), "") else { panic!("a call") };
    assert!(String::from_utf8(reply.body).unwrap().starts_with("address must be in IP:port format: "));
    check_refused(&[
        ("PUT /v1/operator/raft/configuration", "", 405, ""),
        ("GET /v1/operator/raft/peer?id=x", "", 404, "Invalid method"),
        ("DELETE /v1/operator/raft/peer", "", 400, "Must specify the peer's ID to remove"),
        ("DELETE /v1/operator/raft/peer?address=a", "", 400, by_address),
        ("GET /v1/operator/raft/transfer-leadership", "", 405, "Invalid method"),
        ("GET /v1/operator/raft/other", "", 501, "not served by holdfast: GET /v1/operator/raft/other"),
        ("POST /v1/operator/autopilot/configuration", "{}", 404, "Invalid method"),
        ("PUT /v1/operator/autopilot/configuration", "", 400, "Error parsing autopilot config: Request body is empty"),
        ("PUT /v1/operator/autopilot/configuration?cas=x", "{}", 400, cas),
        ("PUT /v1/operator/autopilot/health", "", 404, "Invalid method"),
        ("DELETE /v1/operator/scheduler/configuration", "", 405, "Invalid method"),
        ("PUT /v1/operator/scheduler/configuration", "", 400, "Error parsing scheduler config: Request body is empty"),
        ("PUT /v1/operator/scheduler/configuration?cas=x", "{}", 400, cas),
        ("DELETE /v1/operator/snapshot", "", 405, "Invalid method"),
        ("GET /v1/operator/license", "", 204, ""),
        ("PUT /v1/operator/license", "", 501, "not served by holdfast: PUT /v1/operator/license"),
        ("PUT /v1/operator/keyring/keys", "", 405, "Invalid method"),
        ("GET /v1/operator/keyring/rotate", "", 405, "Invalid method"),
        ("GET /v1/operator/keyring/key/k", "", 405, "Invalid method"),
        ("PUT /v1/system/gc", "", 200, ""),
        ("GET /v1/system/gc", "", 405, "Invalid method"),
        ("GET /v1/search", "", 405, "Invalid method"),
        ("POST /v1/search", "", 400, "Request body is empty"),
    ]);
}

#[test]
fn raft_is_shown_without_an_index_header() {
    let server = RaftServer {
        id: ID.to_owned(),
        node: "srv1.global".to_owned(),
        address: "127.0.0.1:4647".to_owned(),
        leader: true,
        voter: true,
        raft_protocol: "3".to_owned(),
    };
    let json = format!(
        r#"{{"Index":0,"Servers":[{{"Address":"127.0.0.1:4647","ID":"{ID}","Leader":true,"Node":"srv1.global","RaftProtocol":"3","Voter":true}}]}}"#
    );
    let response = RaftConfigurationResponse { servers: vec![server], index: 0 };
    assert_eq!(answered("GET /v1/operator/raft/configuration", "", &response), json_shown(200, &json, &[]));
    let peer = |id: &str| RaftIdAddress { address: "a:1".to_owned(), id: id.to_owned() };
    let response = LeadershipTransferResponse { from: peer("x"), to: peer("y"), noop: false, err: Raw::default() };
    let json = r#"{"Err":null,"From":{"Address":"a:1","ID":"x"},"Noop":false,"To":{"Address":"a:1","ID":"y"}}"#;
    let line = format!("PUT /v1/operator/raft/transfer-leadership?id={ID}");
    assert_eq!(answered(&line, "", &response), json_shown(200, json, &[]));
    let gone = Raw((&b"\x80"[..]).into());
    assert_eq!(answered("DELETE /v1/operator/raft/peer?id=x", "", &gone), empty_shown(200, &[]));
}

#[test]
fn autopilot_has_durations_in_words() {
    let config = AutopilotConfig {
        cleanup_dead_servers: true,
        server_stabilization_time: 10_000_000_000,
        last_contact_threshold: 200_000_000,
        max_trailing_logs: 250,
        create_index: 4,
        modify_index: 4,
        ..AutopilotConfig::default()
    };
    let json = r#"{"LastContactThreshold":"200ms","ServerStabilizationTime":"10s","CleanupDeadServers":true,"MaxTrailingLogs":250,"MinQuorum":0,"EnableRedundancyZones":false,"DisableUpgradeMigration":false,"EnableCustomUpgrades":false,"CreateIndex":4,"ModifyIndex":4}"#;
    assert_eq!(answered("GET /v1/operator/autopilot/configuration", "", &config), json_shown(200, json, &[]));
    for (query, written, json) in [("", false, "true"), ("?cas=3", false, "false"), ("?cas=3", true, "true")] {
        let line = format!("PUT /v1/operator/autopilot/configuration{query}");
        assert_eq!(answered(&line, "{}", &written), json_shown(200, json, &[]), "{line} {written}");
    }
}

#[test]
fn a_sick_cluster_is_429() {
    let server = ServerHealth {
        id: ID.to_owned(),
        name: "srv1.global".to_owned(),
        address: "127.0.0.1:4647".to_owned(),
        serf_status: 1,
        version: "2.0.5".to_owned(),
        leader: true,
        last_contact: 0,
        last_term: 2,
        last_index: 9,
        healthy: true,
        voter: true,
        stable_since: go_time(1_767_323_045_000_000_000),
    };
    let mut reply = OperatorHealthReply {
        healthy: true,
        failure_tolerance: 0,
        servers: vec![server],
        leader: ID.to_owned(),
        voters: vec![ID.to_owned()],
    };
    let json = format!(
        r#"{{"FailureTolerance":0,"Healthy":true,"Leader":"{ID}","Servers":[{{"LastContact":"0s","ID":"{ID}","Name":"srv1.global","Address":"127.0.0.1:4647","SerfStatus":"alive","Version":"2.0.5","Leader":true,"LastTerm":2,"LastIndex":9,"Healthy":true,"Voter":true,"StableSince":"2026-01-02T03:04:05Z"}}],"Voters":["{ID}"]}}"#
    );
    assert_eq!(answered("GET /v1/operator/autopilot/health", "", &reply), json_shown(200, &json, &[]));
    reply.healthy = false;
    let json = json.replacen("\"Healthy\":true", "\"Healthy\":false", 1);
    assert_eq!(answered("GET /v1/operator/autopilot/health", "", &reply), json_shown(429, &json, &[]));
}

#[test]
fn the_scheduler_is_shown_though_there_is_none() {
    let response = SchedulerConfigurationResponse { scheduler_config: None, meta: meta() };
    let json = r#"{"Index":7,"KnownLeader":true,"LastContact":1500000000,"NextToken":"","SchedulerConfig":null}"#;
    assert_eq!(answered("GET /v1/operator/scheduler/configuration", "", &response), json_shown(200, json, &READ));
    let set = SchedulerSetConfigurationResponse { updated: true, meta: WriteMeta { index: 9 } };
    let json = r#"{"Index":9,"Updated":true}"#;
    let shown = answered("PUT /v1/operator/scheduler/configuration", "{}", &set);
    assert_eq!(shown, json_shown(200, json, &["X-Nomad-Index: 9"]));
}

#[test]
fn keys_are_named_and_never_shown() {
    let key = RootKeyMeta {
        key_id: "k".to_owned(),
        algorithm: "aes256-gcm".to_owned(),
        create_time: 5,
        state: "active".to_owned(),
        ..RootKeyMeta::default()
    };
    let json = r#"{"Algorithm":"aes256-gcm","CreateIndex":0,"CreateTime":5,"KeyID":"k","ModifyIndex":0,"PublishTime":0,"State":"active"}"#;
    let list = KeyringListResponse { keys: vec![key.clone()], meta: meta() };
    assert_eq!(answered("GET /v1/operator/keyring/keys", "", &list), json_shown(200, &format!("[{json}]"), &READ));
    let rotated = KeyringRotateResponse { key: Some(key), meta: WriteMeta { index: 9 } };
    let shown = answered("PUT /v1/operator/keyring/rotate", "", &rotated);
    assert_eq!(shown, json_shown(200, &format!(r#"{{"Index":9,"Key":{json}}}"#), &["X-Nomad-Index: 9"]));
    let gone = GenericResponse { meta: WriteMeta { index: 9 } };
    let shown = answered("DELETE /v1/operator/keyring/key/k", "", &gone);
    assert_eq!(shown, json_shown(200, r#"{"Index":9}"#, &["X-Nomad-Index: 9"]));
}

#[test]
fn a_search_is_answered_with_all_of_it() {
    let response = SearchResponse {
        matches: [("vars".to_owned(), vec!["a/b".to_owned()])].into(),
        truncations: [("vars".to_owned(), false)].into(),
        meta: meta(),
    };
    let json = r#"{"Index":7,"KnownLeader":true,"LastContact":1500000000,"Matches":{"vars":["a/b"]},"NextToken":"","Truncations":{"vars":false}}"#;
    assert_eq!(answered("POST /v1/search", "{}", &response), json_shown(200, json, &READ));
}
