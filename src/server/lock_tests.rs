//! What a server does around locks, tokens and the audit log, on the rig of the operators' tests.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use super::port::Input;
use super::rig::{Log, Rig, settings};
use crate::base::id::{ConnId, Index, ReplicaId, Term};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::consensus::{Leadership, Notice};
use crate::state::State;
use crate::wire::body::acl::{AclPolicy, AclToken};
use crate::wire::body::event::EventStreamRequest;
use crate::wire::body::query::GenericRequest;
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::{
    LockReadRequest, LockReadResponse, Variable, VariableLock, VariablesApplyRequest, VariablesApplyResponse,
    VariablesListResponse,
};
use crate::wire::entry::var::{VarApply, VarOp, VarOpKind};
use crate::wire::entry::{Command, Entry};
use crate::wire::msgpack::Msg;
use crate::wire::streaming::EventStreamWrapper;

const TTL: Duration = Duration::from_secs(10);
const DELAY: Duration = Duration::from_secs(2);

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap()
}

fn write() -> WriteRequest {
    WriteRequest { region: "global".to_owned(), ..WriteRequest::default() }
}

fn apply(op: &str, lock_id: &str, wait: Duration) -> VariablesApplyRequest {
    let lock = VariableLock { id: lock_id.to_owned(), ttl: nanos(TTL), lock_delay: nanos(DELAY) };
    let var = Variable { path: "lock".to_owned(), lock: Some(lock), ..Variable::default() };
    let (op, var, wait_time) = (op.to_owned(), Some(var), nanos(wait));
    VariablesApplyRequest { op, var, wait_time, write: write(), ..VariablesApplyRequest::default() }
}

fn acquire(rig: &mut Rig, lock_id: &str, wait: u64) -> ConnId {
    rig.call("Variables.Apply", &apply("lock-acquire", lock_id, Duration::from_secs(wait)))
}

fn release(rig: &mut Rig, lock_id: &str) {
    let conn = rig.call("Variables.Apply", &apply("lock-release", lock_id, Duration::ZERO));
    assert_eq!(result(rig, conn).as_deref(), Some("ok"));
}

/// What a call was answered, if it was.
fn result(rig: &mut Rig, conn: ConnId) -> Option<String> {
    let bytes = rig.heard(conn);
    if bytes.is_empty() {
        return None;
    }
    let mut d = crate::wire::msgpack::Decoder::new(&bytes);
    let head = crate::wire::rpc::ReplyHead::decode(&mut d).unwrap();
    Some(match head.error.as_str() {
        "" => VariablesApplyResponse::decode(&mut d).unwrap().result,
        error => error.to_owned(),
    })
}

fn locked(count: usize) -> State {
    let mut state = State::new();
    let op = |n: usize| VarOp {
        kind: VarOpKind::LockAcquire,
        namespace: "default".into(),
        path: format!("p{n}").into(),
        lock_id: format!("id{n}"),
        ttl: nanos(TTL),
        lock_delay: nanos(DELAY),
        ..VarOp::default()
    };
    for n in 0..count {
        let command = Command::VarApply(VarApply { ops: vec![op(n)] });
        let entry = Entry { time_unix_nanos: 1_795_261_300_000_000_000, session: None, command };
        state.apply(Index(n as u64 + 1), Term(1), &entry);
    }
    state
}

fn expiries(rig: &Rig) -> Vec<usize> {
    let names = |command: &Command| match command {
        Command::LocksExpire { locks } => Some(locks.len()),
        _ => None,
    };
    rig.proposed.iter().filter_map(names).collect()
}

// R8.3: at its time and its delay, not before; whoever waited has it then.
#[test]
fn a_lock_ends_at_its_time_and_delay() {
    let mut rig = Rig::new();
    let first = acquire(&mut rig, "one", 0);
    assert_eq!(result(&mut rig, first).as_deref(), Some("ok"));
    let second = acquire(&mut rig, "two", 60);
    rig.wait(TTL + DELAY - Duration::from_millis(50));
    assert_eq!((result(&mut rig, second), expiries(&rig)), (None, vec![]));
    rig.wait(Duration::from_millis(60));
    assert_eq!(result(&mut rig, second).as_deref(), Some("ok"));
    assert_eq!((expiries(&rig), rig.server.metrics().counter(Id::LocksExpired)), (vec![1], 1));
}

// R8.3, R8.22: one grace when it begins to lead, before anything is ended; then entries of bounded size.
#[test]
fn a_new_leader_gives_a_grace_and_then_ends_many_in_bounded_entries() {
    let mut rig = Rig::on(locked(1500), BTreeMap::new());
    assert!(matches!(rig.proposed.first(), Some(Command::LocksGrace { grace: 10_000_000_000 })));
    assert_eq!(rig.server.metrics().counter(Id::LockGraces), 1);
    rig.wait(Duration::from_secs(3600));
    for _ in 0..20 {
        rig.wait(Duration::from_millis(25));
    }
    assert_eq!((rig.root.load().lock_count(), expiries(&rig)), (0, vec![256, 256, 256, 256, 256, 220]));
}

#[test]
fn a_grace_that_is_lost_is_given_again_and_nothing_ends_before() {
    let mut rig = Rig::with(settings(), locked(1), BTreeMap::new());
    // Another leadership, whose first entries are lost.
    let lost = Leadership { term: Term(3), leader: None, is_self: false, ready: false };
    rig.feed(Input::Notices(vec![Notice::Leadership(lost)]));
    rig.proposed.clear();
    rig.log = Log::Loses;
    rig.wait(Duration::from_secs(3600));
    assert!(rig.proposed.is_empty(), "who does not lead ends nothing");
    rig.lead(4);
    rig.wait(Duration::from_secs(2));
    assert!(expiries(&rig).is_empty());
    rig.log = Log::Applies;
    rig.wait(Duration::from_secs(2));
    let graces = rig.proposed.iter().filter(|command| matches!(command, Command::LocksGrace { .. })).count();
    assert!(graces >= 2, "{graces}");
    assert_eq!(rig.server.metrics().counter(Id::LockGraces), 2);
}

// R8.28
#[test]
fn turns_come_in_order_and_nobody_overtakes() {
    let mut rig = Rig::new();
    let first = acquire(&mut rig, "0", 0);
    assert_eq!(result(&mut rig, first).as_deref(), Some("ok"));
    let waiting: Vec<ConnId> = (1..=5).map(|n| acquire(&mut rig, &n.to_string(), 250)).collect();
    let entries = rig.proposed.len();
    let request = LockReadRequest {
        path: "lock".to_owned(),
        query: QueryOptions { region: "global".to_owned(), ..QueryOptions::default() },
    };
    let conn = rig.call("Holdfast.LockRead", &request);
    assert_eq!(rig.answer::<LockReadResponse>(conn).unwrap().lock.unwrap().waiters, 5);
    // The lock is given back, and somebody asks for it before this server is told of that.
    let op = VarOp {
        kind: VarOpKind::LockRelease,
        namespace: "default".into(),
        path: "lock".into(),
        lock_id: "0".to_owned(),
        ..VarOp::default()
    };
    let (index, applied) = rig.apply(Command::VarApply(VarApply { ops: vec![op] }));
    let late = acquire(&mut rig, "late", 250);
    assert_eq!(rig.proposed.len() - entries, 1, "the first in line asks, and nobody else");
    assert_eq!((result(&mut rig, late), result(&mut rig, waiting[0]).as_deref()), (None, Some("ok")));
    rig.feed(Input::Notices(vec![Notice::Applied { index, touched: applied.touched, events: Vec::new() }]));
    // The third goes away; the others have their turns, one at a time, and the late one last.
    rig.feed(Input::Failed { conn: waiting[2], error: "reset".to_owned() });
    let mut holder = "1".to_owned();
    for (conn, id) in [(waiting[1], "2"), (waiting[3], "4"), (waiting[4], "5"), (late, "late")] {
        let entries = rig.proposed.len();
        release(&mut rig, &holder);
        assert_eq!(result(&mut rig, conn).as_deref(), Some("ok"), "{id}");
        assert_eq!(rig.proposed.len() - entries, 2, "a release and one acquire");
        holder = id.to_owned();
    }
}

// R8.28: a wait ends at its time, and when the server is about to end; both say what stands in the way.
#[test]
fn a_wait_for_a_turn_ends() {
    let mut rig = Rig::new();
    acquire(&mut rig, "0", 0);
    let (short, long) = (acquire(&mut rig, "1", 3), acquire(&mut rig, "2", 250));
    rig.wait(Duration::from_secs(2));
    assert_eq!(result(&mut rig, short), None);
    rig.wait(Duration::from_millis(1100));
    assert_eq!((result(&mut rig, short).as_deref(), result(&mut rig, long)), (Some("conflict"), None));
    rig.feed(Input::Stop);
    assert_eq!(result(&mut rig, long).as_deref(), Some("conflict"));
}

#[test]
fn who_waits_keeps_the_place_over_a_change_of_leader() {
    let mut rig = Rig::new();
    acquire(&mut rig, "0", 0);
    let waiting: Vec<ConnId> = (1..=3).map(|n| acquire(&mut rig, &n.to_string(), 250)).collect();
    let lost = Leadership { term: Term(3), leader: Some(ReplicaId(2)), is_self: false, ready: false };
    rig.feed(Input::Notices(vec![Notice::Leadership(lost)]));
    rig.wait(Duration::from_secs(1));
    rig.lead(4);
    assert!(waiting.iter().all(|conn| result(&mut rig, *conn).is_none()));
    let mut holder = "0".to_owned();
    for (conn, id) in waiting.iter().zip(["1", "2", "3"]) {
        release(&mut rig, &holder);
        assert_eq!(result(&mut rig, *conn).as_deref(), Some("ok"), "{id}");
        holder = id.to_owned();
    }
}

#[test]
fn too_many_who_wait_for_one_lock_are_told() {
    let mut rig = Rig::new();
    acquire(&mut rig, "0", 0);
    let waiting: Vec<ConnId> = (0..1000).map(|n| acquire(&mut rig, &format!("w{n}"), 250)).collect();
    let over = acquire(&mut rig, "over", 250);
    assert!(result(&mut rig, over).is_some_and(|text| text.contains("1000 is the limit")));
    assert_eq!(result(&mut rig, waiting[999]), None);
}

// R1.87, R1.95: a list waits for its prefix, and is woken when the state is replaced.
#[test]
fn a_list_waits_for_its_prefix() {
    let mut rig = Rig::new();
    let conn = acquire(&mut rig, "0", 0);
    result(&mut rig, conn);
    let list = |rig: &mut Rig, prefix: &str| {
        let query = QueryOptions {
            region: "global".to_owned(),
            prefix: prefix.to_owned(),
            min_query_index: rig.root.load().vars_index().0,
            ..QueryOptions::default()
        };
        rig.call("Variables.List", &GenericRequest { query })
    };
    let (of_locks, of_others) = (list(&mut rig, "lo"), list(&mut rig, "other"));
    release(&mut rig, "0");
    assert_eq!(rig.answer::<VariablesListResponse>(of_locks).unwrap().data.len(), 1);
    assert!(rig.heard(of_others).is_empty());
}

fn with_acl() -> Rig {
    let mut settings = settings();
    (settings.acl_enabled, settings.audit) = (true, true);
    let mut rig = Rig::with(settings, State::new(), BTreeMap::new());
    let token = AclToken {
        accessor_id: "acce5500-0000-4000-8000-000000000001".to_owned(),
        secret_id: "5ec2e700-0000-4000-8000-000000000001".to_owned(),
        kind: "management".to_owned(),
        global: true,
        ..AclToken::default()
    };
    rig.apply(Command::AclUpsertTokens { tokens: vec![token] });
    rig
}

fn subscribe(rig: &mut Rig) -> ConnId {
    let query = QueryOptions {
        region: "global".to_owned(),
        auth_token: "5ec2e700-0000-4000-8000-000000000001".to_owned(),
        ..QueryOptions::default()
    };
    let topics = BTreeMap::from([("*".to_owned(), vec!["*".to_owned()])]);
    let conn = rig.stream("Event.Stream", &EventStreamRequest { topics, index: -1, query });
    let first = EventStreamWrapper::from_bytes(&rig.heard(conn)).unwrap();
    assert!(first.error.is_none(), "{first:?}");
    conn
}

// Endpoint notes, section 6: a token that is gone ends its subscriptions; R1.95: so does another state.
#[test]
fn subscriptions_end_with_their_right_and_with_the_state() {
    let mut rig = with_acl();
    let conn = subscribe(&mut rig);
    let told = |rig: &mut Rig, command: Command| {
        let (index, applied) = rig.apply(command);
        rig.feed(Input::Notices(vec![Notice::Applied { index, touched: applied.touched, events: applied.events }]));
    };
    let closed = "subscription closed by server, client should resubscribe";
    let error = |rig: &mut Rig| EventStreamWrapper::from_bytes(&rig.heard(conn)).unwrap().error.unwrap();
    let other = AclToken { accessor_id: "other".to_owned(), kind: "client".to_owned(), ..AclToken::default() };
    told(&mut rig, Command::AclUpsertTokens { tokens: vec![other] });
    let news = rig.heard(conn);
    assert!(!String::from_utf8_lossy(&news).contains(closed), "somebody else's token is no reason");
    let accessor_ids = vec!["acce5500-0000-4000-8000-000000000001".to_owned()];
    told(&mut rig, Command::AclDeleteTokens { accessor_ids });
    let said = error(&mut rig);
    assert_eq!((said.message.as_str(), said.code), (closed, Some(500)));

    let mut rig = with_acl();
    let conn = subscribe(&mut rig);
    let everything = crate::state::watch::Touched { everything: true, ..Default::default() };
    let index = Index(rig.root.load().index().0);
    rig.feed(Input::Notices(vec![Notice::Applied { index, touched: everything, events: Vec::new() }]));
    let said = EventStreamWrapper::from_bytes(&rig.heard(conn)).unwrap().error.unwrap();
    assert_eq!((said.message.as_str(), said.code), (closed, Some(500)));
}

// Whoever wrote is not held up by those who want to hear of it.
#[test]
fn a_crowd_of_subscribers_is_told_a_few_at_a_time() {
    let mut rig = with_acl();
    let crowd: Vec<ConnId> = (0..600).map(|_| subscribe(&mut rig)).collect();
    let policy = AclPolicy { name: "p".to_owned(), ..AclPolicy::default() };
    let (index, applied) = rig.apply(Command::AclUpsertPolicies { policies: vec![policy] });
    let news = Notice::Applied { index, touched: applied.touched, events: applied.events };
    let told = |rig: &Rig| crowd.iter().filter(|conn| !rig.server.to_send(**conn).is_empty()).count();
    rig.hand_in(Input::Notices(vec![news]));
    assert_eq!(told(&rig), 0);
    for so_far in [256, 512, 600] {
        assert_eq!(rig.server.poll_timeout(), Some(Instant::ZERO), "more is to be done at once");
        rig.hand_in(Input::Timeout);
        assert_eq!(told(&rig), so_far);
    }
    assert_ne!(rig.server.poll_timeout(), Some(Instant::ZERO));
}

// R8.15
#[test]
fn writes_and_refusals_are_audited_and_reads_are_not() {
    let mut rig = with_acl();
    let conn = acquire(&mut rig, "10c4-secret", 0);
    assert_eq!(result(&mut rig, conn).as_deref(), Some("Permission denied"));
    let mut allowed = apply("lock-acquire", "10c4-secret", Duration::ZERO);
    allowed.write.auth_token = "5ec2e700-0000-4000-8000-000000000001".to_owned();
    let conn = rig.call("Variables.Apply", &allowed);
    assert_eq!(result(&mut rig, conn).as_deref(), Some("ok"));
    let query = QueryOptions {
        region: "global".to_owned(),
        auth_token: allowed.write.auth_token.clone(),
        ..QueryOptions::default()
    };
    rig.call("Variables.List", &GenericRequest { query });
    let lines: Vec<serde_json::Value> = rig.audited.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let results: Vec<_> =
        lines.iter().map(|line| (line["result"].as_str().unwrap(), line["accessor"].as_str())).collect();
    let accessor = "acce5500-0000-4000-8000-000000000001";
    assert_eq!(results, [("refused", Some("anonymous")), ("ok", Some(accessor))]);
    assert!(rig.audited.iter().all(|line| !line.contains("10c4-secret") && !line.contains("5ec2e700")));
    assert_eq!(lines[1]["index"].as_u64().unwrap(), rig.root.load().index().0);
}
