//! Writes that this server stamps: sent again with the same place, and never told as done or failed when neither is
//! known.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::tests::{SECOND, THIRD, answer, connect, follow, in_flight, lose, stamping_follower, write};
use super::{Forwarding, Purpose};
use crate::base::metric::Id;
use crate::server::calls::Phase;
use crate::server::rig::Rig;
use crate::wire::body::operator::SchedulerConfiguration;
use crate::wire::body::query::WriteMeta;
use crate::wire::body::session::{SessionKey, SessionReply, WriteStamp};
use crate::wire::msgpack::Msg;

fn is_opening(forwarding: &Forwarding) -> bool {
    forwarding.in_flight.values().any(|(_, purpose)| *purpose == Purpose::Session)
}

/// The leader's answer to Session.Open.
fn session(id: u64) -> Vec<u8> {
    let meta = WriteMeta { index: id };
    SessionReply { id, key: SessionKey(vec![5; 16]), ttl: 1, meta }.to_bytes()
}

/// A follower with a session, connected to both others.
fn with_session(id: u64) -> Rig {
    let mut rig = stamping_follower(2);
    connect(&mut rig, SECOND);
    connect(&mut rig, THIRD);
    let first = write(&mut rig);
    assert!(is_opening(&rig.server.forwarding), "a write waits for a session");
    answer(&mut rig, Ok(session(id)));
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(rig.answer::<SchedulerConfiguration>(first).is_ok());
    rig
}

/// The places of the writes that are under way.
fn places(rig: &Rig) -> Vec<WriteStamp> {
    let active = rig.server.calls.iter().filter_map(|(_, call)| match &call.phase {
        Phase::Active(active) => active.stamp.as_deref().cloned(),
        Phase::Parked { .. } => None,
    });
    active.collect()
}

// R2.31, R2.32
#[test]
fn a_write_that_was_lost_goes_to_the_new_leader_with_the_same_place() {
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    let place = places(&rig);
    assert_eq!(
        place.iter().map(|one| (one.id, one.sequence, one.acknowledged_below)).collect::<Vec<_>>(),
        [(70, 2, 2)]
    );
    lose(&mut rig, true);
    assert!(rig.heard(conn).is_empty(), "neither failed nor unknown");
    follow(&mut rig, Some(3));
    assert_eq!(in_flight(&rig.server.forwarding)[0].0, THIRD);
    assert_eq!(places(&rig), place);
    // The new leader has lost its office before it could say.
    answer(&mut rig, Err("leadership lost while committing log"));
    follow(&mut rig, Some(2));
    assert_eq!((in_flight(&rig.server.forwarding)[0].0.as_str(), places(&rig)), (SECOND, place));
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(rig.answer::<SchedulerConfiguration>(conn).is_ok());
    assert_eq!(rig.server.metrics().counter(Id::OutcomeUnknown), 0);
    assert_eq!(rig.server.metrics().counter(Id::Stamped), 2);
}

// R1j on R1.67, R2.31: a stamped write at a leader that is silent is taken to the next one at once.
#[test]
fn a_write_at_a_silent_leader_is_taken_back() {
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    let place = places(&rig);
    follow(&mut rig, Some(3));
    assert_eq!((in_flight(&rig.server.forwarding)[0].0.as_str(), places(&rig)), (THIRD, place));
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(rig.answer::<SchedulerConfiguration>(conn).is_ok());
}

// R2.12, R2.28
#[test]
fn whatever_an_earlier_try_may_have_done_is_said_to_be_unknown() {
    // Nobody leads any more.
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    lose(&mut rig, true);
    follow(&mut rig, None);
    for _ in 0..100 {
        rig.wait(Duration::from_millis(100));
    }
    let error = rig.answer::<SchedulerConfiguration>(conn).unwrap_err();
    assert!(error.starts_with("outcome unknown: ") && error.contains("(session 70, write 2)"), "{error}");

    // The session is over by then.
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    lose(&mut rig, true);
    follow(&mut rig, Some(3));
    answer(&mut rig, Err("session expired"));
    let error = rig.answer::<SchedulerConfiguration>(conn).unwrap_err();
    assert!(error.starts_with("outcome unknown: "), "{error}");
    // A refusal is one all the same: the leader that says so knows that the first try was not applied.
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    lose(&mut rig, true);
    follow(&mut rig, Some(3));
    answer(&mut rig, Err("Permission denied"));
    assert_eq!(rig.answer::<SchedulerConfiguration>(conn).unwrap_err(), "rpc error: Permission denied");
}

// R2.28, R2.32
#[test]
fn a_write_that_meets_an_old_session_gets_a_place_in_a_new_one() {
    let mut rig = with_session(70);
    let conn = write(&mut rig);
    answer(&mut rig, Err("session expired"));
    rig.wait(Duration::from_millis(400));
    assert!(is_opening(&rig.server.forwarding));
    answer(&mut rig, Ok(session(90)));
    assert_eq!(places(&rig).iter().map(|one| (one.id, one.sequence)).collect::<Vec<_>>(), [(90, 1)]);
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(rig.answer::<SchedulerConfiguration>(conn).is_ok());
}

// A leader that gives no session serves the write all the same.
#[test]
fn a_leader_without_sessions_is_sent_plain_writes() {
    let mut rig = stamping_follower(2);
    connect(&mut rig, SECOND);
    let conn = write(&mut rig);
    answer(&mut rig, Err("rpc: can't find service Session.Open"));
    rig.wait(Duration::from_millis(400));
    assert!(places(&rig).is_empty() && !is_opening(&rig.server.forwarding));
    answer(&mut rig, Ok(b"\x80".to_vec()));
    assert!(rig.answer::<SchedulerConfiguration>(conn).is_ok());
}
