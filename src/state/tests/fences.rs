//! Fences: a holder that was asleep does no harm, also when the variable went and came meanwhile (R8.1).

use super::vars::*;
use super::*;
use crate::state::fences::{Fences, MAX_FENCES};
use crate::state::var::VarOutcome;

#[test]
fn whoever_was_overtaken_is_refused() {
    let mut world = World::default();
    let first = world.ok(acquire("a", ID)).unwrap().fence;
    world.apply(Command::LockBreak { namespace: "default".into(), path: "a".into() });
    let second = world.ok(acquire("a", OTHER)).unwrap().fence;
    assert!(second > first && first > 0);
    world.ok(release("a", OTHER));
    let stored = world.state.var("default", "a").cloned();
    for op in [set("a"), cas("a", 4), delete("a"), delete_cas("a", 4), acquire("a", ID), release("a", ID)] {
        assert_eq!(world.write(fenced(first, op)), VarOutcome::Conflict(stored.clone()));
    }
    world.ok(fenced(second, set("a")));
    world.ok(set("a"));
    assert_eq!(world.var("a").fence, second, "a write without a fence lowers nothing");
    world.ok(fenced(second + 100, set("a")));
    assert_eq!(world.write(fenced(second, set("a"))), VarOutcome::Conflict(world.state.var("default", "a").cloned()));
    let third = world.ok(acquire("a", ID)).unwrap().fence;
    assert_eq!(third, second + 101, "never below what a write brought");
}

#[test]
fn a_fence_outlives_its_variable() {
    let mut world = World::default();
    let fence = world.ok(acquire("a", ID)).unwrap().fence;
    world.ok(release("a", ID));
    world.ok(fenced(fence + 50, delete("a")));
    assert_eq!(world.write(fenced(fence, set("a"))), VarOutcome::Conflict(None));
    assert_eq!(world.write(fenced(fence, delete("a"))), VarOutcome::Conflict(None));
    assert_eq!(world.ok(set("a")).unwrap().fence, fence + 50);
    world.ok(delete("a"));
    assert_eq!(world.ok(acquire("a", ID)).unwrap().fence, fence + 51);
    // Also where there was nothing to remove: an older writer may come yet.
    world.ok(fenced(9, delete("b")));
    assert_eq!(world.state.vars_index().0, world.state.index().0 - 1);
    assert_eq!(world.write(fenced(8, set("b"))), VarOutcome::Conflict(None));
    // What is not done changes no fence.
    assert_eq!(world.write(fenced(99, cas("b", 7))), VarOutcome::Conflict(None));
    world.ok(fenced(9, set("b")));
    let applied = world.apply(all([fenced(1000, set("b")), cas("b", 1)]));
    assert_eq!(outcomes(&applied)[0], VarOutcome::Skipped);
    assert_eq!(world.var("b").fence, 9);
}

#[test]
fn fences_are_bounded() {
    let mut fences = Fences::default();
    let most = MAX_FENCES as u64;
    for nth in 1..=most {
        fences.keep(format!("ns\0p{nth}").into(), 10 + nth);
    }
    assert_eq!((fences.len(), fences.floor(), fences.of("ns\0x")), (MAX_FENCES, 0, 0));
    fences.keep("ns\0new".into(), 3);
    assert_eq!((fences.len(), fences.floor()), (MAX_FENCES, 3), "the lowest goes, though it came last");
    assert_eq!((fences.of("ns\0new"), fences.of("ns\0p1")), (3, 11));
    fences.keep("ns\0newer".into(), 9999);
    assert_eq!((fences.len(), fences.floor(), fences.of("ns\0p1"), fences.of("ns\0x")), (MAX_FENCES, 11, 11, 11));
    fences.keep("ns\0older".into(), 11);
    assert_eq!(fences.len(), MAX_FENCES, "the floor says so already");
    fences.forget("ns\0newer");
    fences.keep("ns\0again".into(), 12);
    fences.keep("ns\0again".into(), 11);
    assert_eq!((fences.len(), fences.of("ns\0again")), (MAX_FENCES, 12), "what is kept never falls");
    fences.raise_floor(5);
    assert_eq!(fences.floor(), 11);
    fences.raise_floor(13);
    assert_eq!((fences.len(), fences.of("ns\0p2")), (MAX_FENCES - 3, 13), "2, 3 and the new one");
    fences.check_invariants();
}

#[test]
fn the_floor_refuses_what_was_forgotten() {
    let mut world = World::default();
    world.state.vars.fences.raise_floor(20);
    assert_eq!(world.write(fenced(19, set("a"))), VarOutcome::Conflict(None));
    world.ok(fenced(20, set("a")));
    assert_eq!(world.ok(set("b")).unwrap().fence, 20, "else an older write would be let in now");
    assert_eq!(world.ok(acquire("c", ID)).unwrap().fence, 21);
    world.ok(delete("a"));
    assert_eq!(world.state.vars.fences.len(), 0);
}
