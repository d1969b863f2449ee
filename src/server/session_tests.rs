//! Sessions at a leader: a write that comes again is answered again, and every session ends.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::port::Input;
use super::rig::Rig;
use crate::base::id::{ConnId, ReplicaId, Term};
use crate::base::metric::Id;
use crate::consensus::{Leadership, Notice};
use crate::forward::patch::{Patch, patched};
use crate::wire::body::acl::AclTokenUpsertResponse;
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::session::{
    SessionKey, SessionOpenRequest, SessionOutcomeReply, SessionOutcomeRequest, SessionReply, SessionRequest,
    WriteStamp,
};
use crate::wire::body::var::{Variable, VariablesApplyRequest};
use crate::wire::class::Class;
use crate::wire::entry::Command;
use crate::wire::entry::session::SessionOpen;
use crate::wire::msgpack::{Decoder, Msg, Raw};
use crate::wire::rpc::ReplyHead;

fn write() -> WriteRequest {
    WriteRequest { region: "global".to_owned(), ..WriteRequest::default() }
}

fn open(rig: &mut Rig, ttl: Duration) -> SessionReply {
    let ttl = i64::try_from(ttl.as_nanos()).unwrap();
    let conn = rig.call("Session.Open", &SessionOpenRequest { ttl, write: write(), ..SessionOpenRequest::default() });
    rig.answer(conn).unwrap()
}

fn set(path: &str, value: &str) -> Vec<u8> {
    let items = [("k".to_owned(), value.to_owned())].into();
    let var = Variable { path: path.to_owned(), items: Some(items), ..Variable::default() };
    VariablesApplyRequest { op: "set".to_owned(), var: Some(var), write: write(), ..Default::default() }.to_bytes()
}

fn stamped(session: &SessionReply, sequence: u64, body: &[u8]) -> Raw {
    let stamp = WriteStamp { id: session.id, key: session.key.clone(), sequence, acknowledged_below: sequence.min(1) };
    Raw(patched(body, &Patch { stamp: Some(&stamp), ..Patch::default() }).unwrap().into())
}

/// All bytes of an answer.
fn bytes(rig: &mut Rig, method: &str, body: &Raw) -> Vec<u8> {
    let conn = rig.call(method, body);
    rig.heard(conn)
}

fn class_of(rig: &mut Rig, conn: ConnId) -> (Class, String) {
    let bytes = rig.heard(conn);
    let head = ReplyHead::decode(&mut Decoder::new(&bytes)).unwrap();
    (Class::of(&head.class, &head.error), head.error)
}

// R2.24: the same bytes again, the same answer, one change.
#[test]
fn a_write_that_comes_again_is_answered_byte_for_byte() {
    let mut rig = Rig::new();
    let session = open(&mut rig, Duration::ZERO);
    assert_eq!(session.key.0.len(), 16);
    let lock = {
        let var = Variable { path: "locked".to_owned(), lock: Some(Default::default()), ..Variable::default() };
        VariablesApplyRequest { op: "lock-acquire".to_owned(), var: Some(var), write: write(), ..Default::default() }
            .to_bytes()
    };
    let delete = VariablesApplyRequest {
        op: "delete-cas".to_owned(),
        var: Some(Variable { path: "a".to_owned(), modify_index: 1, ..Variable::default() }),
        write: write(),
        ..Default::default()
    };
    let writes = [set("a", "one"), set("a", "two"), delete.to_bytes(), lock];
    for (sequence, body) in (1..).zip(writes) {
        let body = stamped(&session, sequence, &body);
        let first = bytes(&mut rig, "Variables.Apply", &body);
        let proposed = rig.proposed.len();
        for _ in 0..2 {
            assert_eq!(bytes(&mut rig, "Variables.Apply", &body), first, "write {sequence}");
        }
        assert_eq!(rig.proposed.len(), proposed, "what is known is not proposed again");
    }
    assert_eq!(rig.server.metrics().counter(Id::SessionRepeats), 8);
    // After another leader took over it is the same.
    rig.lead(3);
    let again = stamped(&session, 1, &set("a", "one"));
    let answered = bytes(&mut rig, "Variables.Apply", &again);
    assert_eq!(answered, bytes(&mut rig, "Variables.Apply", &again));
}

// R2.24: what a handler would refuse by now was done all the same.
#[test]
fn a_write_whose_handler_looks_at_the_state_is_answered_from_the_session() {
    let mut settings = super::rig::settings();
    settings.acl_enabled = true;
    let mut rig = Rig::with(settings, crate::state::State::new(), Default::default());
    let bootstrap = write().to_bytes();
    let first: AclTokenUpsertResponse = {
        let conn = rig.call("ACL.Bootstrap", &Raw(bootstrap.as_slice().into()));
        rig.answer(conn).unwrap()
    };
    let token = first.tokens[0].secret_id.clone();
    let with_token = WriteRequest { auth_token: token, ..write() };
    let conn = rig.call("Session.Open", &SessionOpenRequest { write: write(), ..SessionOpenRequest::default() });
    assert_eq!(rig.answer::<SessionReply>(conn).unwrap_err(), "Permission denied");
    let conn = rig.call("Session.Open", &SessionOpenRequest { write: with_token.clone(), ..Default::default() });
    let session: SessionReply = rig.answer(conn).unwrap();
    // Deleting it twice is an error, deleting it once and asking again is none.
    let namespaces = crate::wire::body::namespace::NamespaceUpsertRequest {
        namespaces: vec![crate::wire::body::namespace::Namespace { name: "n".to_owned(), ..Default::default() }],
        write: with_token.clone(),
    };
    let _ = rig.call("Namespace.UpsertNamespaces", &namespaces);
    let delete =
        crate::wire::body::namespace::NamespaceDeleteRequest { namespaces: vec!["n".to_owned()], write: with_token };
    let body = stamped(&session, 1, &delete.to_bytes());
    let first = bytes(&mut rig, "Namespace.DeleteNamespaces", &body);
    assert_eq!(bytes(&mut rig, "Namespace.DeleteNamespaces", &body), first);
    let conn = rig.call("Namespace.DeleteNamespaces", &delete);
    assert!(rig.answer::<Raw>(conn).is_err(), "a plain one is refused by now");
}

// R2.12, R2.13, R2.28
#[test]
fn errors_about_sessions_say_their_class() {
    let mut rig = Rig::new();
    let session = open(&mut rig, Duration::ZERO);
    let other = SessionReply { key: SessionKey(vec![0; 16]), ..session.clone() };
    let gone = SessionReply { id: 999, ..session.clone() };
    for (of, sequence, class, text) in [
        (&other, 1, Class::Refused, "session key is wrong"),
        (&gone, 1, Class::SessionExpired, "session expired"),
        (&session, 0, Class::Refused, "have numbers from 1 on"),
    ] {
        let conn = rig.call("Variables.Apply", &stamped(of, sequence, &set("a", "x")));
        let (said, error) = class_of(&mut rig, conn);
        assert!(said == class && error.contains(text), "{said} {error}");
    }
    // Whoever does not show that it knows the field does not get it.
    let conn = rig.call("Variables.Apply", &Raw(b"\x81\xa6Region\xa6global".as_slice().into()));
    let bytes = rig.heard(conn);
    assert!(!String::from_utf8_lossy(&bytes).contains("HoldfastClass"));
}

// R2.31: what was lost with a leader's office is held, and said to be unknown only at the end.
#[test]
fn a_stamped_write_outlives_the_loss_of_leadership() {
    let mut rig = Rig::new();
    let session = open(&mut rig, Duration::ZERO);
    rig.log = super::rig::Log::Loses;
    let conn = rig.call("Variables.Apply", &stamped(&session, 1, &set("a", "one")));
    assert!(rig.heard(conn).is_empty());
    rig.log = super::rig::Log::Applies;
    rig.wait(Duration::from_millis(400));
    let reply = rig.answer::<Raw>(conn);
    assert!(reply.is_ok(), "{reply:?}");

    rig.log = super::rig::Log::Loses;
    let conn = rig.call("Variables.Apply", &stamped(&session, 2, &set("a", "two")));
    let nobody = Leadership { term: Term(4), leader: None::<ReplicaId>, is_self: false, ready: false };
    rig.feed(Input::Notices(vec![Notice::Leadership(nobody)]));
    for _ in 0..80 {
        rig.wait(Duration::from_millis(100));
    }
    let (class, error) = class_of(&mut rig, conn);
    assert_eq!(class, Class::OutcomeUnknown, "{error}");
    assert!(error.contains(&format!("(session {}, write 2)", session.id)), "{error}");
}

/// Says a request on a connection of its own, and gives back all of the answer.
fn http(rig: &mut Rig, line: &str, headers: &str, body: &str) -> String {
    let conn = rig.dial_http();
    let text = format!("{line} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
    rig.say(conn, text.as_bytes());
    String::from_utf8_lossy(&rig.heard(conn)).into_owned()
}

// R2.12, R2.22, R2.24, R2.28: the whole life of a session over HTTP.
#[test]
fn a_session_over_http_makes_a_write_happen_once() {
    let mut rig = Rig::new();
    let opened = http(&mut rig, "PUT /v1/holdfast/session", "", r#"{"TTL":"30s","Name":"web"}"#);
    let json: serde_json::Value = serde_json::from_str(opened.split_once("\r\n\r\n").unwrap().1).unwrap();
    let (id, key) = (json["ID"].as_u64().unwrap(), json["Key"].as_str().unwrap().to_owned());
    assert_eq!((json["TTL"].as_str(), key.len()), (Some("30s"), 32), "{opened}");
    let owner = format!("X-Holdfast-Session: {id}:{key}\r\n");
    let first = format!("{owner}X-Holdfast-Sequence: 1\r\n");
    let put = |rig: &mut Rig, headers: &str| http(rig, "PUT /v1/var/a?cas=0", headers, r#"{"Items":{"k":"v"}}"#);
    let answer = put(&mut rig, &first);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let proposed = rig.proposed.len();
    assert_eq!(put(&mut rig, &first), answer, "sent again");
    assert_eq!(rig.proposed.len(), proposed);
    assert!(put(&mut rig, "").starts_with("HTTP/1.1 409"), "without a session it comes too late");
    let about = format!("/v1/holdfast/session/{id}");
    let told = http(&mut rig, &format!("GET {about}/outcome/1"), &owner, "");
    assert!(told.contains(r#""Outcome":"applied""#), "{told}");
    assert!(http(&mut rig, &format!("PUT {about}"), &owner, "").starts_with("HTTP/1.1 200"));
    let listed = http(&mut rig, "GET /v1/holdfast/sessions", "", "");
    assert!(listed.contains(r#""Name":"web""#) && !listed.contains(&key), "{listed}");
    let wrong = format!("X-Holdfast-Session: {id}:{}\r\n", "0".repeat(32));
    assert!(http(&mut rig, &format!("DELETE {about}"), &wrong, "").starts_with("HTTP/1.1 403"));
    assert!(http(&mut rig, &format!("DELETE {about}"), &owner, "").starts_with("HTTP/1.1 200"));
    let over = put(&mut rig, &format!("{owner}X-Holdfast-Sequence: 2\r\n"));
    assert!(over.starts_with("HTTP/1.1 410") && over.contains(r#"{"Code":"session_expired""#), "{over}");
    let refused = put(&mut rig, "X-Holdfast-Sequence: 2\r\n");
    assert!(refused.starts_with("HTTP/1.1 400") && refused.contains("X-Holdfast-Session is missing"), "{refused}");
}

// R2.12
#[test]
fn what_became_of_a_write_can_be_asked() {
    let mut rig = Rig::new();
    let session = open(&mut rig, Duration::ZERO);
    let body = stamped(&session, 1, &set("a", "one"));
    let _ = bytes(&mut rig, "Variables.Apply", &body);
    let mut ask = |session: &SessionReply, sequence| {
        let query = QueryOptions { region: "global".to_owned(), ..QueryOptions::default() };
        let request = SessionOutcomeRequest { id: session.id, key: session.key.clone(), sequence, query };
        let conn = rig.call("Session.Outcome", &request);
        rig.answer::<SessionOutcomeReply>(conn).map(|reply| (reply.outcome, reply.write_index > 0))
    };
    assert_eq!(ask(&session, 1), Ok(("applied".to_owned(), true)));
    assert_eq!(ask(&session, 2), Ok(("not-applied".to_owned(), false)));
    assert_eq!(ask(&SessionReply { id: 999, ..session.clone() }, 1), Ok(("expired".to_owned(), false)));
    assert!(ask(&SessionReply { key: SessionKey(vec![1]), ..session }, 1).is_err());
}

// R2.27: a session that is opened after a longer one, and is over before it, does not wait for that.
#[test]
fn a_short_session_ends_before_a_long_one() {
    let mut rig = Rig::new();
    let long = open(&mut rig, Duration::from_secs(3_600));
    rig.wait(Duration::from_secs(1));
    let short = open(&mut rig, Duration::from_secs(20));
    for _ in 0..100 {
        rig.wait(Duration::from_millis(500));
    }
    let state = rig.root.load();
    assert!(state.session(short.id).is_none() && state.session(long.id).is_some());
}

// R2.27: only whoever was silent for its time on the leader's own clock is ended, and by an entry.
#[test]
fn a_leader_ends_silent_sessions_and_no_others() {
    let mut rig = Rig::new();
    let ttl = Duration::from_secs(20);
    let (silent, kept) = (open(&mut rig, ttl), open(&mut rig, ttl));
    for _ in 0..100 {
        rig.wait(Duration::from_millis(500));
        let request = SessionRequest { id: kept.id, key: kept.key.clone(), write: write() };
        let conn = rig.call("Session.KeepAlive", &request);
        assert!(rig.answer::<SessionReply>(conn).is_ok());
    }
    let state = rig.root.load_full();
    assert!(state.session(silent.id).is_none() && state.session(kept.id).is_some());
    assert_eq!(rig.server.metrics().counter(Id::SessionsExpired), 1);
    // A new leader, long after: it gives everybody the whole of its time to say something.
    drop(state);
    rig.now += Duration::from_secs(3_600);
    rig.lead(9);
    rig.wait(Duration::from_secs(19));
    assert!(rig.root.load().session(kept.id).is_some());
    let request = SessionRequest { id: kept.id, key: kept.key.clone(), write: write() };
    let conn = rig.call("Session.KeepAlive", &request);
    assert!(rig.answer::<SessionReply>(conn).is_ok());
    rig.wait(Duration::from_secs(15));
    assert!(rig.root.load().session(kept.id).is_some());
    let conn = rig.call("Session.Close", &SessionRequest { id: kept.id, key: kept.key, write: write() });
    assert!(rig.answer::<Raw>(conn).is_ok());
    assert_eq!(rig.root.load().session_count(), 0);
}

// R8.22: what ends together ends in entries of a bounded size.
#[test]
fn thousands_of_sessions_end_together_in_a_few_entries() {
    let mut rig = Rig::new();
    for _ in 0..2_500 {
        let key = SessionKey(vec![1; 16]);
        rig.apply(Command::SessionOpen(SessionOpen { key, ttl: 5_000_000_000, ..SessionOpen::default() }));
    }
    // Somebody tells the server that there is news.
    rig.lead(3);
    rig.wait(Duration::from_secs(6));
    for _ in 0..40 {
        rig.wait(Duration::from_millis(500));
    }
    assert_eq!(rig.root.load().session_count(), 0);
    let ends = rig.proposed.iter().filter_map(|command| match command {
        Command::SessionsExpire { ids } => Some(ids.len()),
        _ => None,
    });
    let ends: Vec<usize> = ends.collect();
    assert!(ends.iter().all(|ids| *ids <= 1_024) && ends.len() >= 3, "{ends:?}");
}
