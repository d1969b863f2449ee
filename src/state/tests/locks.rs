//! How a lock lives: taken, renewed, graced, given back, ended by time, broken.

use super::vars::*;
use super::*;
use crate::state::var::{VarLock, VarOutcome};
use crate::wire::entry::var::{LockName, VarOp};

fn name(path: &str, lock_id: &str) -> LockName {
    LockName { namespace: "default".into(), path: path.into(), lock_id: lock_id.into() }
}

fn renew(path: &str, lock_id: &str) -> Command {
    Command::LockRenew(name(path, lock_id))
}

fn expire(locks: &[(&str, &str)]) -> Command {
    Command::LocksExpire { locks: locks.iter().map(|(path, lock_id)| name(path, lock_id)).collect() }
}

fn break_lock(path: &str) -> Command {
    Command::LockBreak { namespace: "default".into(), path: path.into() }
}

fn grace(seconds: i64) -> Command {
    Command::LocksGrace { grace: seconds * SECOND }
}

impl World {
    fn lock(&self, path: &str) -> Option<&VarLock> {
        self.var(path).lock.as_deref()
    }

    /// Paths of locks that are due this many seconds after [`START`].
    fn due(&self, seconds: i64) -> Vec<String> {
        let due = self.state.locks_due(START + seconds * SECOND, 99);
        due.iter().map(|lock| lock.path.to_string()).collect()
    }

    /// Applies a command so many seconds after [`START`].
    fn after(&mut self, seconds: i64, command: Command) -> Applied {
        self.apply_at(START + seconds * SECOND, command)
    }

    /// Applies a command that neither changes a table nor is seen by anybody.
    fn unseen(&mut self, seconds: i64, command: Command) -> ApplyResult {
        let index = self.state.vars_index();
        let applied = self.after(seconds, command);
        assert!(applied.touched.is_empty() && applied.events.is_empty());
        assert_eq!(self.state.vars_index(), index);
        applied.result
    }
}

/// Refused, with this text.
fn refused(why: &str) -> ApplyResult {
    ApplyResult::Refused(why.into())
}

const GONE: &str = "RPC Error:: 409,attempting to modify locked variable";

#[test]
fn a_lock_is_taken_and_given_back() {
    let mut world = World::default();
    world.after(1, all([set("a")]));
    let applied = world.after(2, all([VarOp { sealed: None, ..acquire("a", ID) }]));
    assert_eq!(outcomes(&applied), [VarOutcome::Ok(world.state.var("default", "a").cloned())]);
    let var = world.var("a");
    assert_eq!((var.create_index, var.modify_index, var.fence), (1, 2, 2));
    assert_eq!(var.sealed, None, "no items given: emptied");
    let lock = world.lock("a").unwrap();
    let expected = VarLock {
        id: ID.into(),
        ttl: 15 * SECOND,
        delay: 10 * SECOND,
        owner: "owner of a".into(),
        since: START + 2 * SECOND,
        deadline: START + 17 * SECOND,
        graced: false,
    };
    assert_eq!(*lock, expected);
    assert_eq!((world.state.next_lock_due(), world.state.lock_count()), (Some(START + 27 * SECOND), 1));
    assert_eq!(world.state.locked_vars().count(), 1);

    world.after(3, all([under(ID, set("a"))]));
    assert_eq!(world.lock("a"), Some(&expected), "a write under the lock keeps it as it is");
    let written = world.var("a").clone();
    world.after(4, all([release("a", ID)]));
    let var = world.var("a");
    assert_eq!((var.modify_index, var.modify_time), (4, written.modify_time), "ModifyTime stays");
    assert_eq!((&var.sealed, var.fence, &var.lock), (&written.sealed, 2, &None));
    assert_eq!((world.state.next_lock_due(), world.state.lock_count()), (None, 0));
}

#[test]
fn its_holder_takes_it_again() {
    let mut world = World::default();
    world.after(1, all([acquire("a", ID)]));
    let again = VarOp { sealed: Some(sealed("k1", "x")), ttl: 20 * SECOND, owner: "me".into(), ..acquire("a", ID) };
    world.after(9, all([again]));
    let (var, lock) = (world.var("a"), world.lock("a").unwrap());
    assert_eq!((var.sealed.as_ref(), var.fence, var.modify_index), (Some(&sealed("k1", "x")), 1, 2));
    // The peers do not restart the time.
    assert_eq!((lock.since, lock.deadline), (START + SECOND, START + 29 * SECOND));
    assert_eq!((lock.ttl, &*lock.owner), (20 * SECOND, "me"));
    // Its delay runs: nobody took it, so it is still its own.
    world.after(35, all([acquire("a", ID)]));
    assert_eq!((world.lock("a").unwrap().deadline, world.var("a").fence), (START + 50 * SECOND, 1));
}

#[test]
fn a_renewal_moves_the_deadline_and_nothing_else() {
    let mut world = World::default();
    world.after(1, all([set("free"), acquire("a", ID)]));
    let before = world.var("a").clone();
    assert_eq!(world.unseen(2, renew("missing", ID)), refused("RPC Error:: 404,variable doesn't exist"));
    assert_eq!(world.unseen(2, renew("free", ID)), refused("RPC Error:: 409,variable doesn't hold a lock"));
    assert_eq!(world.unseen(2, renew("a", OTHER)), refused(GONE));
    assert_eq!(world.var("a"), &before);
    // Up to the deadline itself.
    assert_eq!(world.unseen(16, renew("a", ID)), ApplyResult::Done);
    let lock = VarLock { deadline: START + 31 * SECOND, ..before.lock.as_deref().unwrap().clone() };
    let mut expected = before.clone();
    expected.lock = Some(Arc::new(lock));
    assert_eq!(world.var("a"), &expected);
    assert_eq!(world.state.next_lock_due(), Some(START + 41 * SECOND));
    assert_eq!(world.apply_at(START + 31 * SECOND + 1, renew("a", ID)).result, refused(GONE), "its time is over");
    assert_eq!(world.lock("a").unwrap().deadline, START + 31 * SECOND);
}

#[test]
fn in_its_delay_it_is_held() {
    let mut world = World::default();
    world.after(1, all([acquire("a", ID)]));
    for (op, expected) in [
        (acquire("a", OTHER), VarOutcome::Conflict(None)),
        (set("a"), VarOutcome::Conflict(None)),
        (delete("a"), VarOutcome::Conflict(None)),
    ] {
        assert_eq!(outcomes(&world.after(20, all([op]))), [expected]);
    }
    assert!(matches!(outcomes(&world.after(20, all([release("a", ID)])))[..], [VarOutcome::Ok(Some(_))]));
    assert!(matches!(outcomes(&world.after(20, all([acquire("a", OTHER)])))[..], [VarOutcome::Ok(Some(_))]));
}

#[test]
fn time_ends_the_lock_that_is_named() {
    // R8.3
    let mut world = World::default();
    world.after(1, all([acquire("a", ID), acquire("b", ID), VarOp { ttl: 12 * SECOND, ..acquire("c", ID) }]));
    assert_eq!(
        (world.due(22), world.due(23), world.due(26)),
        (vec![], vec!["c".into()], vec!["c".into(), "a".into(), "b".into()])
    );
    assert_eq!(world.state.locks_due(START + 26 * SECOND, 2).len(), 2);
    let named = &world.state.locks_due(START + 26 * SECOND, 9)[1];
    assert_eq!(*named, name("a", ID));

    assert_eq!(world.unseen(25, expire(&[("a", ID), ("b", ID)])), ApplyResult::Done, "too early");
    assert_eq!(world.unseen(26, expire(&[("a", OTHER), ("x", ID)])), ApplyResult::Done, "not those");
    let applied = world.after(26, expire(&[("b", ID), ("a", ID), ("b", ID)]));
    let paths: Vec<&str> = applied.touched.vars.iter().map(|(_, path)| &**path).collect();
    assert_eq!((paths, applied.events.len(), applied.result), (vec!["b", "a"], 2, ApplyResult::Done));
    let var = world.var("a");
    assert_eq!((&var.lock, var.fence, var.modify_index), (&None, 1, 4));
    assert_eq!(var.modify_time, START + SECOND, "as if it was given back");
    assert_eq!(world.due(99), ["c"]);

    // A late end never frees what another took meanwhile.
    world.after(26, all([acquire("a", OTHER)]));
    assert_eq!(world.unseen(99, expire(&[("a", ID)])), ApplyResult::Done);
    assert_eq!(&*world.lock("a").unwrap().id, OTHER);
}

#[test]
fn a_renewal_that_came_first_keeps_the_lock() {
    let mut world = World::default();
    world.after(1, all([acquire("a", ID)]));
    world.after(15, renew("a", ID));
    assert_eq!(world.unseen(26, expire(&[("a", ID)])), ApplyResult::Done);
    assert!(world.lock("a").is_some());
    assert_eq!(world.due(40), ["a"]);
}

#[test]
fn leaders_give_one_grace() {
    // R8.3: five elections add one grace at most, until the holder renews.
    let mut world = World::default();
    world.after(1, all([acquire("a", ID), VarOp { ttl: 60 * SECOND, ..acquire("long", ID) }, set("free")]));
    for seconds in 5..10 {
        assert_eq!(world.unseen(seconds, grace(14)), ApplyResult::Done);
    }
    let lock = world.lock("a").unwrap();
    assert_eq!((lock.deadline, lock.graced), (START + 19 * SECOND, true), "16, and what the first leader gave");
    let long = world.lock("long").unwrap();
    assert_eq!((long.deadline, long.graced), (START + 61 * SECOND, false), "it has longer anyway");
    assert_eq!(world.state.next_lock_due(), Some(START + 29 * SECOND));
    world.unseen(12, renew("a", ID));
    let lock = world.lock("a").unwrap();
    assert_eq!((lock.deadline, lock.graced), (START + 27 * SECOND, false));
    world.unseen(20, grace(14));
    assert_eq!(world.lock("a").unwrap().deadline, START + 34 * SECOND);
}

#[test]
fn an_operator_breaks_a_lock() {
    // R8.10
    let mut world = World::of([all([set("free")]), all([acquire("a", ID)])]);
    assert_eq!(world.unseen(3, break_lock("missing")), refused("variable doesn't exist"));
    assert_eq!(world.unseen(3, break_lock("free")), refused("variable doesn't hold a lock"));
    let applied = world.after(3, break_lock("a"));
    assert_eq!((applied.result, applied.touched.vars.len(), applied.events.len()), (ApplyResult::Done, 1, 1));
    assert_eq!((world.lock("a"), world.var("a").fence, world.var("a").modify_index), (None, 2, 5));
    // No delay: it can be taken at once; the old holder is told that it is gone.
    assert_eq!(world.write(under(ID, set("a"))), VarOutcome::Conflict(None));
    world.ok(acquire("a", OTHER));
    assert_eq!(world.var("a").fence, 7);
}

#[test]
fn times_beyond_all_do_no_harm() {
    let mut world = World::default();
    let endless = VarOp { ttl: i64::MAX, lock_delay: i64::MAX, ..acquire("a", ID) };
    world.ok(endless);
    assert_eq!((world.lock("a").unwrap().deadline, world.state.next_lock_due()), (i64::MAX, Some(i64::MAX)));
    world.ok(VarOp { ttl: -5, lock_delay: i64::MIN, ..acquire("b", ID) });
    assert_eq!(world.state.next_lock_due(), Some(time_at(2) - 5));
    world.apply(Command::LocksGrace { grace: i64::MAX });
    world.apply(Command::LocksGrace { grace: i64::MIN });
    assert_eq!(world.lock("b").unwrap().deadline, i64::MAX);
}
