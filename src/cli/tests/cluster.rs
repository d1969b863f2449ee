//! What operators of several servers type.

use super::*;
use crate::wire::body::operator::{
    LeadershipTransferResponse, OperatorHealthReply, RaftConfigurationResponse, RaftIdAddress, RaftPeerByIdRequest,
    RaftPeerRequest, RaftServer, ServerHealth,
};

const ADDRESSES: [&str; 3] = ["10.0.0.1:4647", "10.0.0.2:4647", "10.0.0.3:4647"];

fn member(nth: usize, status: &str) -> Member {
    let mut tags: BTreeMap<String, String> =
        [("port", "4647"), ("dc", "dc1"), ("region", "global"), ("id", IDS[nth]), ("holdfast", "0.1.0")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    if nth == 2 {
        tags.insert("nonvoter".to_owned(), "1".to_owned());
    }
    Member {
        name: format!("hf{}.global", nth + 1),
        addr: Bytes(vec![10, 0, 0, nth as u8 + 1]),
        port: 4647,
        tags,
        status: status.to_owned(),
        ..Member::default()
    }
}

fn of_three() -> ServerMembersResponse {
    let members = ["alive", "failed", "alive"].iter().enumerate().map(|(nth, status)| member(nth, status)).collect();
    ServerMembersResponse {
        server_name: "hf3".into(),
        server_region: "global".into(),
        server_dc: "dc1".into(),
        members,
    }
}

fn health(nth: usize) -> ServerHealth {
    let healthy = nth != 1;
    ServerHealth {
        id: IDS[nth].into(),
        name: format!("hf{}.global", nth + 1),
        address: ADDRESSES[nth].into(),
        serf_status: if healthy { 1 } else { 4 },
        leader: nth == 0,
        last_contact: [0, i64::MAX, 40_000_000][nth],
        last_term: 3,
        last_index: 70 + nth as u64,
        healthy,
        voter: nth != 2,
        stable_since: go_time(1_700_000_000_500_000_000),
        ..ServerHealth::default()
    }
}

fn cluster() -> String {
    serve(None, |method, body| match method {
        "Status.Members" => reply(&of_three()),
        "Status.Leader" => reply(&ADDRESSES[0].to_owned()),
        "Operator.ServerHealth" => {
            // Only the leader knows.
            assert!(!GenericRequest::from_bytes(body).unwrap().query.allow_stale);
            let servers = (0..3).map(health).collect();
            reply(&OperatorHealthReply { servers, leader: IDS[0].into(), ..OperatorHealthReply::default() })
        }
        "Operator.RaftGetConfiguration" => {
            let server = |nth: usize| RaftServer {
                id: IDS[nth].into(),
                node: format!("hf{}.global", nth + 1),
                address: ADDRESSES[nth].into(),
                leader: nth == 0,
                voter: nth != 2,
                raft_protocol: "3".into(),
            };
            reply(&RaftConfigurationResponse { servers: (0..3).map(server).collect(), index: 0 })
        }
        "Operator.RaftRemovePeerByID" => {
            let id = RaftPeerByIdRequest::from_bytes(body).unwrap().id;
            if id == IDS[1] { Act::Reply(vec![0x80]) } else { Act::Refuse("RPC Error:: 400,server cannot be removed") }
        }
        "Operator.TransferLeadershipToPeer" => {
            let request = RaftPeerRequest::from_bytes(body).unwrap();
            let nth = (0..3).find(|nth| request.id == IDS[*nth] || request.address == ADDRESSES[*nth]).unwrap();
            let named = |nth: usize| RaftIdAddress { address: ADDRESSES[nth].into(), id: IDS[nth].into() };
            let (from, to) = (named(0), named(nth));
            reply(&LeadershipTransferResponse { from, to, noop: nth == 0, ..Default::default() })
        }
        _ => Act::Refuse("unexpected"),
    })
}

#[test]
fn members_and_who_leads_are_shown() {
    let address = cluster();
    let (exit, out, err) = holdfast(&["server", "members", "--address", &address]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["Name", "ID", "Address", "Status", "Voter", "Leader", "Datacenter", "Build"]);
    assert_eq!(lines[1], ["hf1.global", IDS[0], ADDRESSES[0], "alive", "yes", "yes", "dc1", "0.1.0"]);
    assert_eq!(lines[2][3..6], ["failed", "yes", "no"]);
    assert_eq!(lines[3][3..6], ["alive", "no", "no"]);
    let (_, out, _) = holdfast(&["server", "members", "--json", "--address", &address]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&value[0]["leader"], &value[2]["asked"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!((&value[1]["status"], &value[2]["voter"]), (&Value::from("failed"), &Value::Bool(false)));
}

#[test]
fn health_says_who_is_not_well_and_fails() {
    let address = cluster();
    for line in [["server", "health"], ["operator", "health"]] {
        let (exit, out, err) = holdfast(&[line[0], line[1], "--address", &address]);
        assert_eq!((exit, err.as_str()), (Exit::Failed, ""));
        let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(out.starts_with("Healthy: no, servers that may fail: 0\n\n"), "{out}");
        let since = "2023-11-14T22:13:20Z";
        let second = ["hf2.global", ADDRESSES[1], "failed", "no", "no", "yes", "never", "3", "71", since];
        assert_eq!(lines[3], ["hf1.global", ADDRESSES[0], "alive", "yes", "yes", "yes", "0s", "3", "70", since]);
        assert_eq!((&lines[4][..], lines[5][6]), (&second[..], "40ms"));
    }
    let (exit, out, _) = holdfast(&["server", "health", "--json", "--address", &address]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &value["servers"][1]["last_contact"]), (Exit::Failed, &Value::Null));
    assert_eq!(value["servers"][0]["status"], "alive");
}

#[test]
fn leadership_is_handed_to_an_id_or_an_address() {
    let address = cluster();
    for (to, text) in [
        (IDS[1], "It leads now: 10.0.0.2:4647\n"),
        (ADDRESSES[1], "It leads now: 10.0.0.2:4647\n"),
        (IDS[0], "It leads already: 10.0.0.1:4647\n"),
    ] {
        let (exit, out, err) = holdfast(&["operator", "raft", "transfer-leadership", to, "--address", &address]);
        assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Done, text, ""));
    }
    let (_, out, _) = holdfast(&["operator", "raft", "list-peers", "--address", &address]);
    assert_eq!(out.lines().count(), 4);
}

#[test]
fn a_peer_is_removed_or_the_reason_is_told() {
    let address = cluster();
    let (exit, out, _) = holdfast(&["operator", "raft", "remove-peer", IDS[1], "--address", &address]);
    assert_eq!((exit, out), (Exit::Done, format!("Removed {}\n", IDS[1])));
    let (exit, out, err) = holdfast(&["operator", "raft", "remove-peer", "zz", "--address", &address]);
    assert_eq!((exit, out.as_str(), err.as_str()), (Exit::Failed, "", "holdfast: server cannot be removed\n"));
}

#[test]
fn the_next_server_is_asked_when_one_is_down() {
    let down = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (exit, out, err) = holdfast(&["server", "members", "--address", &format!("{down},{}", cluster())]);
    assert_eq!((exit, out.lines().count(), err.as_str()), (Exit::Done, 4, ""));
    let (exit, _, err) = holdfast(&["server", "members", "--address", " , "]);
    assert_eq!((exit, err.as_str()), (Exit::Usage, "holdfast: --address names no server\n"));
}
