//! Calls at other servers, as this one sees them: the other end is a session whose answers the test makes up.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use super::{Forwarding, Purpose};
use crate::api::{ServerEntry, ServerStatus};
use crate::base::id::{CallId, ConnId, ReplicaId, StreamId, Term};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::conn::Refusal;
use crate::consensus::{LEASE_FOR_EVER, Leadership, Notice};
use crate::forward::retry::LOST_AFTER_SENT;
use crate::server::port::{Input, Settings};
use crate::server::rig::{Rig, settings};
use crate::state::State;
use crate::wire::body::node::go_time;
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::operator::{SchedulerConfiguration, SnapshotSaveResponse};
use crate::wire::body::query::{GenericRequest, QueryOptions, WriteRequest};
use crate::wire::body::status::NodeConnQueryResponse;
use crate::wire::msgpack::Msg;

pub(super) const SECOND: &str = "10.0.0.2:4647";
pub(super) const THIRD: &str = "10.0.0.3:4647";

fn rig_with(settings: Settings) -> Rig {
    let mut rig = Rig::with(settings, State::new(), Default::default());
    let own = rig.server.ctx.servers[0].clone();
    let other = |nth: u64, address: &str| ServerEntry {
        name: format!("hf{nth}"),
        id: format!("00000000-0000-4000-8000-00000000000{nth}"),
        rpc_addr: address.to_owned(),
        replica: nth,
        status: ServerStatus::Alive,
        is_member: true,
        ..ServerEntry::default()
    };
    rig.server.ctx.servers = Arc::new([own, other(2, SECOND), other(3, THIRD)]);
    rig
}

/// A follower of the server with this number, whose leader gives it no session.
fn follower(leader: u64) -> Rig {
    let mut rig = stamping_follower(leader);
    rig.server.forwarding.stamps.refuse();
    rig
}

/// The same with a leader that gives it one.
pub(super) fn stamping_follower(leader: u64) -> Rig {
    let mut rig = rig_with(settings());
    follow(&mut rig, Some(leader));
    rig
}

pub(super) fn follow(rig: &mut Rig, leader: Option<u64>) {
    let known = Leadership { term: Term(9), leader: leader.map(ReplicaId), is_self: false, ready: false };
    rig.feed(Input::Notices(vec![Notice::Lease(Instant::ZERO), Notice::Leadership(known)]));
}

/// A pooled connection to a server. It is one that was accepted: a session is a session.
pub(super) fn connect(rig: &mut Rig, address: &str) -> ConnId {
    let conn = rig.dial(6);
    let address: Arc<str> = address.into();
    let now = rig.now;
    rig.server.on_pool_ready(now, conn, &address);
    rig.feed(Input::Timeout);
    conn
}

/// What is under way, by address.
pub(super) fn in_flight(forwarding: &Forwarding) -> Vec<(String, ConnId, StreamId)> {
    forwarding.in_flight.iter().map(|((conn, stream), (address, _))| (address.to_string(), *conn, *stream)).collect()
}

/// Answers the only call under way.
pub(super) fn answer(rig: &mut Rig, result: Result<Vec<u8>, &str>) {
    let flights = in_flight(&rig.server.forwarding);
    let [(_, conn, stream)] = flights.as_slice() else { panic!("one call under way: {flights:?}") };
    let result = result.map(Vec::into_boxed_slice).map_err(Refusal::from);
    let now = rig.now;
    rig.server.on_forward_answer(now, *conn, *stream, CallId(0), result);
    rig.feed(Input::Timeout);
}

pub(super) fn lose(rig: &mut Rig, written: bool) {
    let flights = in_flight(&rig.server.forwarding);
    let [(_, conn, stream)] = flights.as_slice() else { panic!("one call under way: {flights:?}") };
    let now = rig.now;
    rig.server.on_call_lost(now, *conn, *stream, written);
    rig.feed(Input::Timeout);
}

fn read(rig: &mut Rig, region: &str, stale: bool) -> ConnId {
    let query = QueryOptions { region: region.to_owned(), allow_stale: stale, ..QueryOptions::default() };
    rig.call("Status.Leader", &GenericRequest { query })
}

/// A write without much of a body.
pub(super) fn write(rig: &mut Rig) -> ConnId {
    let write = WriteRequest { region: "global".to_owned(), ..WriteRequest::default() };
    rig.call("Operator.SchedulerSetConfiguration", &write)
}

#[test]
fn a_follower_passes_calls_on_and_gives_answers_back_as_they_came() {
    // R1.67, R1.77, R1.78
    let mut rig = follower(2);
    let (first, second) = (read(&mut rig, "global", false), write(&mut rig));
    assert_eq!(rig.server.forwarding.pool.waiting(), 2, "both wait for the one dial");
    assert!(rig.heard(first).is_empty());
    connect(&mut rig, SECOND);
    assert_eq!(in_flight(&rig.server.forwarding).len(), 2);
    for (nth, (_, conn, stream)) in in_flight(&rig.server.forwarding).into_iter().enumerate() {
        let now = rig.now;
        let result = if nth == 0 { Ok(b"\xa3abc".as_slice().into()) } else { Err("Permission denied".into()) };
        rig.server.on_forward_answer(now, conn, stream, CallId(0), result);
        rig.feed(Input::Timeout);
    }
    assert_eq!(rig.answer::<String>(first), Ok("abc".to_owned()));
    assert_eq!(rig.answer::<SchedulerConfiguration>(second).unwrap_err(), "rpc error: Permission denied");
    assert!(rig.server.forwarding.carried.is_empty());
    assert_eq!(rig.server.forwarding.pool.counts(), (1, 1));
}

#[test]
fn stale_reads_are_answered_where_they_were_asked() {
    // R1.65
    let mut rig = follower(2);
    let conn = read(&mut rig, "global", true);
    assert!(rig.answer::<String>(conn).is_ok());
    assert!(in_flight(&rig.server.forwarding).is_empty());
}

#[test]
fn a_read_goes_to_the_next_leader_and_a_write_that_was_sent_is_of_unknown_outcome() {
    // R1.67, R1.70, R2.20, R3.10
    let mut rig = follower(2);
    let conn = read(&mut rig, "global", false);
    connect(&mut rig, SECOND);
    connect(&mut rig, THIRD);
    follow(&mut rig, None);
    lose(&mut rig, true);
    assert!(rig.heard(conn).is_empty(), "it is held");
    follow(&mut rig, Some(3));
    assert_eq!(in_flight(&rig.server.forwarding)[0].0, THIRD);
    answer(&mut rig, Ok(b"\xa1x".to_vec()));
    assert_eq!(rig.answer::<String>(conn), Ok("x".to_owned()));
    // A write.
    let conn = write(&mut rig);
    lose(&mut rig, true);
    assert_eq!(rig.answer::<SchedulerConfiguration>(conn).unwrap_err(), LOST_AFTER_SENT);
    assert_eq!(rig.server.metrics().counter(Id::OutcomeUnknown), 1);
    // A write of which no byte has left is not lost.
    let conn = write(&mut rig);
    lose(&mut rig, false);
    assert!(rig.heard(conn).is_empty());
    follow(&mut rig, Some(2));
    assert_eq!(in_flight(&rig.server.forwarding)[0].0, SECOND);
}

#[test]
fn a_call_at_a_silent_leader_is_taken_back_when_another_leads() {
    // R1.67: a read goes there; a write has the hold timeout left, and no answer is given twice.
    let mut rig = follower(2);
    connect(&mut rig, SECOND);
    connect(&mut rig, THIRD);
    let (first, second) = (read(&mut rig, "global", false), write(&mut rig));
    follow(&mut rig, Some(3));
    let addresses: Vec<String> = in_flight(&rig.server.forwarding).into_iter().map(|flight| flight.0).collect();
    assert!(addresses.contains(&SECOND.to_owned()) && addresses.contains(&THIRD.to_owned()), "{addresses:?}");
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.answer::<SchedulerConfiguration>(second).unwrap_err(), LOST_AFTER_SENT);
    answer(&mut rig, Ok(b"\xa1y".to_vec()));
    assert_eq!(rig.answer::<String>(first), Ok("y".to_owned()));
}

#[test]
fn who_cannot_reach_the_leader_is_held_and_then_told() {
    // R1.68, R1.69, R1.72
    for leader in [None, Some(2), Some(77)] {
        let mut rig = follower(2);
        follow(&mut rig, leader);
        let conn = write(&mut rig);
        for _ in 0..60 {
            if rig.server.forwarding.pool.waiting() > 0 {
                let now = rig.now;
                rig.server.on_pool_dial_failed(now, &SECOND.into(), "connection refused");
            }
            rig.wait(Duration::from_millis(80));
        }
        assert!(rig.heard(conn).is_empty(), "{leader:?}");
        rig.wait(Duration::from_millis(600));
        assert_eq!(rig.answer::<SchedulerConfiguration>(conn).unwrap_err(), "No cluster leader");
    }
}

#[test]
fn a_deposed_or_sleeping_leader_serves_nothing_by_itself() {
    // R1.66, R1.72: without a lease nothing says that nobody else leads.
    let mut rig = rig_with(settings());
    rig.feed(Input::Notices(vec![Notice::Lease(Instant::ZERO)]));
    let conn = read(&mut rig, "global", false);
    assert!(rig.heard(conn).is_empty());
    rig.feed(Input::Notices(vec![Notice::Lease(LEASE_FOR_EVER)]));
    assert!(rig.answer::<String>(conn).is_ok(), "served at once when the lease is renewed");
    rig.feed(Input::Notices(vec![Notice::Lease(Instant::ZERO)]));
    let conn = read(&mut rig, "global", false);
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.answer::<String>(conn).unwrap_err(), "Not ready to serve consistent reads");
}

#[test]
fn queries_parked_at_a_deposed_leader_go_to_the_new_one() {
    // R1.89, R1.99
    let mut rig = rig_with(settings());
    let ask = |stale: bool| QueryOptions {
        region: "global".to_owned(),
        min_query_index: 1 << 40,
        max_query_time: 60_000_000_000,
        allow_stale: stale,
        ..QueryOptions::default()
    };
    let consistent = rig.call("Namespace.ListNamespaces", &GenericRequest { query: ask(false) });
    let stale = rig.call("Namespace.ListNamespaces", &GenericRequest { query: ask(true) });
    assert_eq!(rig.server.parked.waiters(), 2);
    follow(&mut rig, Some(2));
    assert_eq!(rig.server.parked.waiters(), 1, "who allows stale answers stays");
    connect(&mut rig, SECOND);
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(!rig.heard(consistent).is_empty() && rig.heard(stale).is_empty());
}

#[test]
fn a_caller_that_is_gone_is_not_waited_for() {
    // R1.97
    let mut rig = follower(2);
    connect(&mut rig, SECOND);
    let conn = read(&mut rig, "global", false);
    assert_eq!(in_flight(&rig.server.forwarding).len(), 1);
    rig.feed(Input::Failed { conn, error: "reset".to_owned() });
    assert!(in_flight(&rig.server.forwarding).is_empty() && rig.server.forwarding.carried.is_empty());
    assert_eq!(rig.server.forwarding.pool.counts(), (1, 1));
}

#[test]
fn another_region_is_reached_by_any_of_its_servers() {
    // R1.64, R8.24
    let mut settings = settings();
    settings.regions = vec![("west".to_owned(), vec!["w1:1".to_owned(), "w2:1".to_owned()])];
    let mut rig = rig_with(settings);
    let conn = read(&mut rig, "west", true);
    let mut tried = 0;
    while rig.server.forwarding.pool.waiting() > 0 && tried < 4 {
        tried += 1;
        let now = rig.now;
        for address in ["w1:1", "w2:1"] {
            rig.server.on_pool_dial_failed(now, &address.into(), "connection refused");
        }
        rig.feed(Input::Timeout);
    }
    assert_eq!(rig.answer::<String>(conn).unwrap_err(), "rpc error: failed to get conn: connection refused");
    let conn = read(&mut rig, "mars", false);
    assert_eq!(rig.answer::<String>(conn).unwrap_err(), "No path to region");
    rig.server.learn_regions(&[("mars".to_owned(), vec!["m:1".to_owned()])]);
    assert_eq!(rig.server.ctx.server.regions, ["global", "mars", "west"]);
    assert_eq!(rig.server.peers.machine.regions.len(), 2);
}

#[test]
fn a_node_is_looked_for_at_all_other_servers() {
    // R1.61
    let mut rig = rig_with(settings());
    let call = |rig: &mut Rig| {
        let query = QueryOptions { region: "global".to_owned(), ..QueryOptions::default() };
        let node_id = "00000000-0000-4000-8000-0000000000aa".to_owned();
        let request = NodeSpecificRequest { node_id, query, ..NodeSpecificRequest::default() };
        let conn = rig.dial(1);
        let to_node = crate::api::outcome::ToNode {
            node_id: "n".into(),
            method: "ClientStats.Stats".to_owned(),
            body: request.to_bytes().into(),
            no_path: "No path to node".to_owned(),
        };
        let caller = rig.server.caller_of(conn).unwrap();
        let origin = crate::server::calls::Origin::Rpc { conn, stream: StreamId(0), seq: 1 };
        let method = crate::api::method("ClientStats.Stats").unwrap();
        let now = rig.now;
        let id = rig.server.begin(now, origin, method, to_node.body.clone(), 0, caller);
        rig.server.call_node(now, id, &to_node);
        rig.feed(Input::Timeout);
        id
    };
    connect(&mut rig, SECOND);
    connect(&mut rig, THIRD);
    let id = call(&mut rig);
    assert_eq!(in_flight(&rig.server.forwarding).len(), 2);
    for (address, conn, stream) in in_flight(&rig.server.forwarding) {
        let established = go_time(if address == THIRD { 2_000_000_000 } else { 1_000_000_000 });
        let reply = NodeConnQueryResponse { connected: true, established, ..NodeConnQueryResponse::default() };
        let now = rig.now;
        rig.server.on_forward_answer(now, conn, stream, CallId(0), Ok(reply.to_bytes().into()));
    }
    let flights = in_flight(&rig.server.forwarding);
    assert_eq!((flights.len(), flights[0].0.as_str()), (1, THIRD), "the newest connection is used");
    assert!(matches!(
        rig.server.forwarding.in_flight.values().next(),
        Some((_, Purpose::Call { id: its, .. })) if *its == id
    ));
    answer(&mut rig, Ok(b"\x80".to_vec()));
    // Nobody has it, and one does not answer.
    call(&mut rig);
    let first = in_flight(&rig.server.forwarding)[0].clone();
    let now = rig.now;
    let none = NodeConnQueryResponse::default().to_bytes();
    rig.server.on_forward_answer(now, first.1, first.2, CallId(0), Ok(none.into()));
    assert_eq!(rig.server.calls.len(), 1);
    rig.wait(Duration::from_secs(6));
    assert_eq!(rig.server.calls.len(), 0, "answered without it");
}

#[test]
fn a_consistent_read_waits_until_this_replica_has_caught_up() {
    let mut rig = follower(2);
    let query = QueryOptions { region: "global".to_owned(), ..QueryOptions::default() };
    let body = GenericRequest { query }.to_bytes();
    let patch = crate::forward::patch::Patch { consistent: true, ..Default::default() };
    let body = crate::forward::patch::patched(&body, &patch).unwrap();
    let conn = rig.call("Status.Peers", &crate::wire::msgpack::Raw(body.into()));
    assert!(rig.heard(conn).is_empty() && in_flight(&rig.server.forwarding).is_empty());
    let id = CallId(rig.server.calls.keys()[0]);
    rig.feed(Input::Notices(vec![Notice::ReadReady { id, ok: false }]));
    assert!(rig.heard(conn).is_empty(), "it is held and asked for again");
    rig.wait(Duration::from_millis(400));
    rig.feed(Input::Notices(vec![Notice::ReadReady { id, ok: true }]));
    assert_eq!(rig.answer::<Vec<String>>(conn).map(|peers| peers.len()), Ok(3));
}

#[test]
fn what_a_key_is_missing_for_is_read_at_the_leader() {
    let mut rig = follower(2);
    connect(&mut rig, SECOND);
    let query = QueryOptions { region: "global".to_owned(), allow_stale: true, ..QueryOptions::default() };
    for (text, asked) in [("key ring is not ready", true), ("variable not found", false)] {
        let body: Arc<[u8]> = GenericRequest { query: query.clone() }.to_bytes().into();
        let conn = rig.dial(1);
        let caller = rig.server.caller_of(conn).unwrap();
        let origin = crate::server::calls::Origin::Rpc { conn, stream: StreamId(0), seq: 1 };
        let (now, method) = (rig.now, crate::api::method("Variables.Read").unwrap());
        let id = rig.server.begin(now, origin, method, body, 0, caller);
        let result = crate::api::outcome::ReplyResult::Error(text.to_owned());
        let reply = crate::api::outcome::Reply { result, effects: Vec::new() };
        rig.server.on_outcome(now, id, crate::api::outcome::Outcome::Reply(reply));
        assert_eq!(in_flight(&rig.server.forwarding).len(), usize::from(asked), "{text}");
        if asked {
            answer(&mut rig, Ok(b"\x80".to_vec()));
        }
        rig.feed(Input::Timeout);
        assert_eq!(rig.server.calls.len(), 0);
    }
}

#[test]
fn a_call_that_was_lost_twice_goes_over_a_connection_made_for_it() {
    // R3.11, R3.18
    let mut rig = follower(2);
    for _ in 0..3 {
        connect(&mut rig, SECOND);
    }
    assert_eq!(rig.server.forwarding.pool.counts().0, 3);
    let conn = read(&mut rig, "global", false);
    for _ in 0..2 {
        lose(&mut rig, true);
        // It waits a little, and looks again.
        (0..4).for_each(|_| rig.wait(Duration::from_millis(100)));
    }
    assert!(in_flight(&rig.server.forwarding).is_empty());
    assert_eq!((rig.server.forwarding.pool.counts().0, rig.server.forwarding.pool.waiting()), (0, 1));
    for (id, expected) in [(Id::PoolRetry, 2), (Id::PoolFresh, 1), (Id::PoolCheck, 2), (Id::PoolCheckDead, 0)] {
        assert_eq!(rig.server.metrics.counter(id), expected, "{id:?}");
    }
    connect(&mut rig, SECOND);
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(!rig.heard(conn).is_empty());
}

#[test]
fn idle_connections_are_given_back() {
    // R1.77
    let mut rig = follower(2);
    connect(&mut rig, SECOND);
    assert_eq!(rig.server.forwarding.pool.counts(), (1, 1));
    rig.wait(Duration::from_secs(121));
    assert_eq!(rig.server.forwarding.pool.counts(), (0, 0));
}

#[test]
fn a_snapshot_is_the_leaders_whoever_is_asked() {
    let mut rig = follower(2);
    let options = QueryOptions { region: "global".to_owned(), ..QueryOptions::default() };
    let conn = rig.stream("Operator.SnapshotSave", &options);
    assert!(rig.heard(conn).is_empty(), "it waits for the dial");
    let far = connect(&mut rig, SECOND);
    let (now, stream) = (rig.now, StreamId(2));
    assert!(matches!(rig.server.busy(far, stream), Some(crate::server::links::Busy::Source(_))));
    rig.server.on_stream_acked(now, far, stream, "");
    rig.server.on_stream_bytes(now, far, stream, b"archive".to_vec());
    rig.server.on_stream_finished(now, far, stream);
    rig.feed(Input::Timeout);
    assert_eq!(rig.heard(conn), b"archive");
    // The leader is lost before it said anything.
    let conn = rig.stream("Operator.SnapshotSave", &options);
    rig.server.on_stream_acked(now, far, StreamId(4), "");
    rig.feed(Input::Failed { conn: far, error: "reset".to_owned() });
    let reply = SnapshotSaveResponse::from_bytes(&rig.heard(conn)).unwrap();
    assert_eq!((reply.error_code, reply.error_msg.as_str()), (500, "rpc error: stream closed"));
    // Nobody leads.
    follow(&mut rig, None);
    let conn = rig.stream("Operator.SnapshotSave", &options);
    for _ in 0..20 {
        rig.wait(Duration::from_millis(300));
    }
    let reply = SnapshotSaveResponse::from_bytes(&rig.heard(conn)).unwrap();
    assert_eq!((reply.error_code, reply.error_msg.as_str()), (500, "No cluster leader"));
}
