//! Sessions: a write is applied once, whoever sends it again is answered the same, and everything has an end.

use proptest::prelude::*;

use super::*;
use crate::state::sessions::{MAX_ANSWER_BYTES, MAX_ANSWERS, MAX_SERVER_SESSIONS, MAX_SESSIONS};
use crate::wire::body::session::SessionKey;
use crate::wire::entry::session::{SessionOpen, SessionStamp};
use crate::wire::entry::var::{Sealed, VarApply, VarOp, VarOpKind};
use crate::wire::msgpack::Bytes;

const SECOND: i64 = 1_000_000_000;

/// A state, and the time of its next entry in seconds.
struct Rig {
    state: State,
    now: i64,
}

impl Rig {
    fn new() -> Rig {
        Rig { state: State::new(), now: 0 }
    }

    fn apply(&mut self, session: Option<SessionStamp>, command: Command) -> ApplyResult {
        let entry = Entry { time_unix_nanos: START + self.now * SECOND, session, command };
        let entry = Entry::decode(&entry.encode()).unwrap();
        self.state.apply(Index(self.state.index().0 + 1), Term(1), &entry).result
    }

    fn open(&mut self) -> u64 {
        assert_eq!(self.apply(None, open("")), ApplyResult::Done);
        self.state.index().0
    }

    /// Sets a variable to a value, in a session.
    fn set(&mut self, stamp: SessionStamp, path: &str) -> ApplyResult {
        self.apply(Some(stamp), write(VarOpKind::Set, path, 0))
    }

    fn index_of(&self, path: &str) -> u64 {
        self.state.var("default", path).map_or(0, |var| var.modify_index)
    }
}

fn open(server_id: &str) -> Command {
    let key = SessionKey(vec![7; 16]);
    Command::SessionOpen(SessionOpen {
        key,
        ttl: 60 * SECOND,
        server_id: server_id.to_owned(),
        ..SessionOpen::default()
    })
}

fn write(kind: VarOpKind, path: &str, check_index: u64) -> Command {
    let sealed = Some(Sealed { key_id: "k".into(), bytes: Bytes(b"sealed".to_vec()) });
    let (namespace, path) = ("default".into(), path.into());
    Command::VarApply(VarApply { ops: vec![VarOp { kind, namespace, path, sealed, check_index, ..VarOp::default() }] })
}

fn stamp(session: u64, sequence: u64, acknowledged_below: u64) -> SessionStamp {
    SessionStamp { session, sequence, acknowledged_below, ..SessionStamp::default() }
}

fn repeated(result: ApplyResult) -> Arc<Answered> {
    match result {
        ApplyResult::Repeated(answered) => answered,
        other => panic!("{other:?}"),
    }
}

fn refused(result: ApplyResult) -> String {
    match result {
        ApplyResult::Refused(text) | ApplyResult::OutOfPlace(text) => text,
        other => panic!("{other:?}"),
    }
}

// R2.22, R2.24
#[test]
fn a_write_that_comes_again_is_answered_and_not_applied() {
    let mut rig = Rig::new();
    let (one, other) = (rig.open(), rig.open());
    assert_ne!(one, other);
    let of = SessionStamp { finish: Arc::from(&b"how"[..]), ..stamp(one, 1, 1) };
    let first = rig.set(of.clone(), "a");
    let index = rig.state.index();
    for _ in 0..2 {
        let again = repeated(rig.set(of.clone(), "a"));
        assert_eq!((again.index, &*again.finish), (index, &b"how"[..]));
        let (ApplyResult::Vars(was), ApplyResult::Vars(is)) = (&first, &again.result) else { panic!("{first:?}") };
        assert_eq!(was.len(), is.len());
    }
    assert_eq!(rig.index_of("a"), index.0, "only once");
    // A refusal is answered again too, although it would be no refusal by now.
    let refusal = rig.apply(Some(stamp(one, 2, 1)), write(VarOpKind::Cas, "b", 9));
    assert!(refusal.is_refusal());
    assert!(repeated(rig.apply(Some(stamp(one, 2, 1)), write(VarOpKind::Cas, "b", 9))).result.is_refusal());
    assert_eq!(rig.index_of("b"), 0);
    // The same number in another session is another write; another write under one number is none.
    assert!(!rig.set(stamp(other, 1, 1), "c").is_refusal());
    let text = refused(rig.apply(Some(stamp(one, 1, 1)), Command::NodeDeregister { node_ids: Vec::new() }));
    assert_eq!(text, format!("write 1 of session {one} was another one"));
}

// R2.25
#[test]
fn what_is_acknowledged_is_forgotten_and_never_applied_again() {
    let mut rig = Rig::new();
    let id = rig.open();
    for sequence in 1..=10 {
        rig.set(stamp(id, sequence, 1), "a");
    }
    assert_eq!(rig.state.session(id).unwrap().kept().0, 10);
    rig.set(stamp(id, 11, 9), "a");
    assert_eq!(rig.state.session(id).unwrap().kept().0, 3);
    let index = rig.index_of("a");
    let text = refused(rig.set(stamp(id, 8, 1), "a"));
    assert_eq!(text, format!("write 8 of session {id} was acknowledged: its answer is gone"));
    assert!(refused(rig.set(stamp(id, 0, 1), "a")).contains("from 1 on"));
    assert_eq!(rig.index_of("a"), index);
    assert_eq!(repeated(rig.set(stamp(id, 9, 9), "a")).index.0 + 2, index, "it was not acknowledged");
    // Whoever says that it has the answer to what it is asking for is not believed.
    assert!(!rig.set(stamp(id, 12, 99), "a").is_refusal());
    assert_eq!(rig.state.session(id).unwrap().kept().0, 1);
}

// R2.26
#[test]
fn over_a_bound_one_session_is_refused_and_others_are_not() {
    let mut rig = Rig::new();
    let (full, other) = (rig.open(), rig.open());
    for sequence in 1..=MAX_ANSWERS as u64 {
        assert!(!rig.apply(Some(stamp(full, sequence, 1)), Command::Noop).is_refusal());
    }
    let next = MAX_ANSWERS as u64 + 1;
    assert!(refused(rig.set(stamp(full, next, 1), "a")).contains("unacknowledged answers"));
    assert_eq!(rig.index_of("a"), 0);
    assert!(!rig.set(stamp(other, 1, 1), "a").is_refusal());
    assert!(!rig.set(stamp(full, next, 2), "a").is_refusal(), "one acknowledged makes room for one");

    // By size: answers that carry much.
    let mut rig = Rig::new();
    let id = rig.open();
    let finish: Arc<[u8]> = vec![0; 64 * 1024].into();
    let taken = (1..).take_while(|sequence| {
        let of = SessionStamp { finish: Arc::clone(&finish), ..stamp(id, *sequence, 1) };
        !rig.apply(Some(of), Command::Noop).is_refusal()
    });
    assert_eq!(taken.count(), MAX_ANSWER_BYTES / finish.len());
    assert_eq!(rig.state.session_answer_bytes(), rig.state.session(id).unwrap().kept().1);
    rig.apply(None, Command::SessionClose { id });
    assert_eq!(rig.state.session_answer_bytes(), 0);
}

// R2.26
#[test]
fn sessions_are_bounded_and_a_server_keeps_its_newest() {
    let mut rig = Rig::new();
    for _ in 0..MAX_SESSIONS {
        rig.apply(None, open(""));
    }
    assert!(refused(rig.apply(None, open(""))).contains("16384 sessions"));
    let first = rig.state.index().0 + 1;
    for nth in 0..MAX_SERVER_SESSIONS as u64 + 2 {
        assert_eq!(rig.apply(None, open("server")), ApplyResult::Done, "{nth}");
    }
    assert!(rig.state.session(first).is_none() && rig.state.session(first + 1).is_none());
    assert_eq!(rig.state.session_count(), MAX_SESSIONS + MAX_SERVER_SESSIONS);
    rig.apply(None, Command::SessionClose { id: 1 });
    assert_eq!(rig.apply(None, open("")), ApplyResult::Done);
}

// R2.27, R2.28
#[test]
fn a_session_ends_by_an_entry_and_by_the_logs_time() {
    let mut rig = Rig::new();
    let (silent, writing, kept) = (rig.open(), rig.open(), rig.open());
    assert_eq!(rig.state.next_session_look(), Some(START + 60 * SECOND));
    rig.now = 59;
    rig.set(stamp(writing, 1, 1), "a");
    assert_eq!(rig.apply(None, Command::SessionKeepAlive { id: kept }), ApplyResult::Done);
    rig.now = 61;
    let look = rig.state.sessions_to_look_at(START + 61 * SECOND, 10);
    assert_eq!(look.iter().map(|session| session.id).collect::<Vec<_>>(), [silent, writing, kept]);
    // Until the entry, it lives: a write is a sign of life.
    let ids = vec![silent, writing, kept, 999];
    assert_eq!(rig.apply(None, Command::SessionsExpire { ids: ids.clone() }), ApplyResult::Done);
    assert!(rig.state.session(silent).is_none());
    assert_eq!(refused(rig.set(stamp(silent, 1, 1), "b")), "session expired");
    assert_eq!(refused(rig.apply(None, Command::SessionKeepAlive { id: silent })), "session expired");
    assert_eq!(refused(rig.apply(None, Command::SessionClose { id: silent })), "session expired");
    assert_eq!(rig.index_of("b"), 0);
    assert_eq!(rig.state.next_session_look(), Some(START + 119 * SECOND));
    rig.now = 119;
    rig.apply(None, Command::SessionsExpire { ids });
    assert_eq!((rig.state.session_count(), rig.state.next_session_look()), (0, None));
}

// R8.22: all that ends at once ends quickly, whatever order.
#[test]
fn a_command_may_end_the_session_it_came_in() {
    let mut rig = Rig::new();
    let id = rig.open();
    assert_eq!(rig.apply(Some(stamp(id, 1, 1)), Command::SessionClose { id }), ApplyResult::Done);
    assert_eq!((rig.state.session_count(), rig.state.session_answer_bytes()), (0, 0));
}

// R2.24: a caller that waits for a lock proposes the same write again.
#[test]
fn a_refusal_is_not_kept_when_the_caller_will_propose_again() {
    let mut rig = Rig::new();
    let id = rig.open();
    let of = SessionStamp { forgets_refusal: true, ..stamp(id, 1, 1) };
    assert!(rig.apply(Some(of.clone()), write(VarOpKind::Cas, "a", 9)).is_refusal());
    assert!(!rig.apply(Some(of.clone()), write(VarOpKind::Cas, "a", 0)).is_refusal());
    assert!(!repeated(rig.apply(Some(of), write(VarOpKind::Cas, "a", 0))).result.is_refusal());
}

// R2.29
#[test]
fn sessions_and_answers_are_in_snapshots() {
    let mut rig = Rig::new();
    let id = rig.open();
    rig.set(SessionStamp { finish: Arc::from(&b"how"[..]), ..stamp(id, 1, 1) }, "a");
    rig.apply(Some(stamp(id, 2, 1)), write(VarOpKind::Cas, "a", 99));
    rig.apply(Some(stamp(id, 5, 2)), Command::NodeDeregister { node_ids: vec!["none".to_owned()] });
    let bytes: Vec<u8> = snapshot::write(&rig.state).flatten().collect();
    let read = snapshot::read(&bytes).unwrap();
    assert_eq!((read.digest(), read.session_count()), (rig.state.digest(), 1));
    let (was, is) = (rig.state.session(id).unwrap(), read.session(id).unwrap());
    assert_eq!((was.kept(), was.deadline(), &was.open), (is.kept(), is.deadline(), &is.open));
    assert_eq!(read.session_answer_bytes(), rig.state.session_answer_bytes());
    for sequence in [2, 5] {
        assert_eq!(was.answer(sequence), is.answer(sequence));
        assert!(is.answer(sequence).is_some());
    }
    rig.state = read;
    assert!(repeated(rig.apply(Some(stamp(id, 2, 2)), write(VarOpKind::Cas, "a", 99))).result.is_refusal());
}

// Items that are large are not kept twice; small ones are where the answer needs them.
#[test]
fn what_is_kept_of_a_conflict_is_small() {
    let mut rig = Rig::new();
    let id = rig.open();
    let mut large = write(VarOpKind::Set, "large", 0);
    if let Command::VarApply(apply) = &mut large {
        apply.ops[0].sealed.as_mut().unwrap().bytes = Bytes(vec![1; 500_000]);
    }
    rig.apply(Some(stamp(id, 1, 1)), large);
    rig.set(stamp(id, 2, 1), "small");
    for (sequence, path) in [(3, "large"), (4, "small")] {
        rig.apply(Some(stamp(id, sequence, 1)), write(VarOpKind::Cas, path, 99));
    }
    assert!(rig.state.session_answer_bytes() < 1_500, "{}", rig.state.session_answer_bytes());
    let session = rig.state.session(id).unwrap();
    let shown = |sequence| match session.answer(sequence).unwrap().result {
        ApplyResult::Vars(outcomes) => outcomes[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(shown(3), VarOutcome::Conflict(None));
    let small = rig.state.var("default", "small").cloned();
    assert_eq!(shown(4), VarOutcome::Conflict(small));
}

proptest! {
    // R2.24, R2.25: whatever is sent again, and in whatever order, every write is applied once at most, and replicas
    // that began from a snapshot in the middle agree.
    #[test]
    fn any_history_applies_each_write_once(
        steps in prop::collection::vec((1u64..12, 0u64..14, any::<bool>()), 1..120),
        cut in 0usize..120,
    ) {
        let mut rig = Rig::new();
        let id = rig.open();
        let mut other = None;
        let mut applied = BTreeMap::new();
        for (nth, (sequence, below, is_bad)) in steps.into_iter().enumerate() {
            if nth == cut {
                let bytes: Vec<u8> = snapshot::write(&rig.state).flatten().collect();
                other = Some(snapshot::read(&bytes).unwrap());
            }
            let command = write(VarOpKind::Cas, &format!("p{sequence}"), if is_bad { 1_000_000 } else { 0 });
            let entry = Entry { time_unix_nanos: START, session: Some(stamp(id, sequence, below)), command };
            let index = Index(rig.state.index().0 + 1);
            let done = rig.state.apply(index, Term(1), &entry);
            if let Some(other) = &mut other {
                prop_assert_eq!(other.apply(index, Term(1), &entry), done.clone());
            }
            match done.result {
                ApplyResult::Vars(outcomes) => prop_assert!(applied.insert(sequence, (index, outcomes)).is_none()),
                ApplyResult::Repeated(answered) => {
                    let (index, outcomes) = &applied[&sequence];
                    prop_assert_eq!(answered.index, *index);
                    let ApplyResult::Vars(again) = &answered.result else { panic!("{answered:?}") };
                    prop_assert_eq!(again.len(), outcomes.len());
                }
                ApplyResult::OutOfPlace(text) => prop_assert!(text.contains("acknowledged"), "{}", text),
                other => panic!("{other:?}"),
            }
        }
        if let Some(other) = other {
            prop_assert_eq!(other.digest(), rig.state.digest());
        }
    }
}
