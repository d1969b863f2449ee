//! What each write to a variable does: every row of the endpoint notes, section 4, and what follows from several.

use std::sync::Arc;

use super::*;
use crate::state::var::{Var, VarOutcome};
use crate::wire::entry::var::{Resealed, Sealed, VarApply, VarOp, VarOpKind};
use crate::wire::msgpack::Bytes;

pub(super) const ID: &str = "0c5fc1d0-0000-4000-8000-000000000001";
pub(super) const OTHER: &str = "0c5fc1d0-0000-4000-8000-000000000002";
pub(super) const SECOND: i64 = 1_000_000_000;

pub(super) fn sealed(key_id: &str, items: &str) -> Sealed {
    Sealed { key_id: key_id.into(), bytes: Bytes(items.into()) }
}

/// A write to `default` and this path. What writes items writes `new`.
pub(super) fn op(kind: VarOpKind, path: &str) -> VarOp {
    let writes = matches!(kind, VarOpKind::Set | VarOpKind::Cas | VarOpKind::LockAcquire);
    VarOp {
        kind,
        namespace: "default".into(),
        path: path.into(),
        sealed: writes.then(|| sealed("k1", "new")),
        ..VarOp::default()
    }
}

pub(super) fn set(path: &str) -> VarOp {
    op(VarOpKind::Set, path)
}

pub(super) fn cas(path: &str, check_index: u64) -> VarOp {
    VarOp { check_index, ..op(VarOpKind::Cas, path) }
}

pub(super) fn delete(path: &str) -> VarOp {
    op(VarOpKind::Delete, path)
}

pub(super) fn delete_cas(path: &str, check_index: u64) -> VarOp {
    VarOp { check_index, ..op(VarOpKind::DeleteCas, path) }
}

/// Holds for 15 seconds, with a delay of 10.
pub(super) fn acquire(path: &str, lock_id: &str) -> VarOp {
    let owner = format!("owner of {path}");
    let (ttl, lock_delay) = (15 * SECOND, 10 * SECOND);
    VarOp { lock_id: lock_id.into(), ttl, lock_delay, owner, ..op(VarOpKind::LockAcquire, path) }
}

pub(super) fn release(path: &str, lock_id: &str) -> VarOp {
    VarOp { lock_id: lock_id.into(), ..op(VarOpKind::LockRelease, path) }
}

pub(super) fn under(lock_id: &str, op: VarOp) -> VarOp {
    VarOp { lock_id: lock_id.into(), ..op }
}

pub(super) fn fenced(fence: u64, op: VarOp) -> VarOp {
    VarOp { fence, ..op }
}

pub(super) fn all(ops: impl IntoIterator<Item = VarOp>) -> Command {
    Command::VarApply(VarApply { ops: ops.into_iter().collect() })
}

pub(super) fn rows(state: &State) -> Vec<Arc<Var>> {
    state.vars_from("", "").cloned().collect()
}

impl World {
    /// What became of one write.
    pub(super) fn write(&mut self, op: VarOp) -> VarOutcome {
        outcomes(&self.apply(all([op]))).remove(0)
    }

    /// Does a write that must be done.
    pub(super) fn ok(&mut self, op: VarOp) -> Option<Arc<Var>> {
        match self.write(op) {
            VarOutcome::Ok(var) => var,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn var(&self, path: &str) -> &Var {
        self.state.var("default", path).unwrap()
    }
}

pub(super) fn outcomes(applied: &Applied) -> Vec<VarOutcome> {
    match &applied.result {
        ApplyResult::Vars(outcomes) => outcomes.clone(),
        other => panic!("{other:?}"),
    }
}

fn items(var: &Var) -> Option<&[u8]> {
    var.sealed.as_ref().map(|sealed| &sealed.bytes.0[..])
}

/// What a write is to come to.
enum Then {
    Written,
    Removed,
    /// Done, and nothing changed.
    Nothing,
    Empty,
    /// A conflict that shows the stored variable.
    Stored,
    Refused(&'static str),
}

#[test]
fn every_row_of_the_notes() {
    use Then::*;
    // At 1 `a` is written, at 2 `held` is locked, at 3 and 4 `freed` was locked and given back.
    let cases = [
        ("set, missing", set("new"), Written),
        ("set, there, equal items", set("a"), Written),
        ("set, locked, no id", set("held"), Empty),
        ("set, locked, another id", under(OTHER, set("held")), Empty),
        ("set, locked, an id that begins like it", under(&ID[..9], set("held")), Empty),
        ("set, locked, its id", under(ID, set("held")), Written),
        ("set, not locked, an id", under(ID, set("a")), Empty),
        ("set, missing, an id", under(ID, set("new")), Empty),
        ("set, given back, its old id", under(ID, set("freed")), Empty),
        ("set, a deeper path", set("a/b"), Written),
        ("cas, there, 0", cas("a", 0), Stored),
        ("cas, there, older", cas("freed", 3), Stored),
        ("cas, there, newer", cas("a", 2), Stored),
        ("cas, there, as said", cas("a", 1), Written),
        ("cas, missing, 0", cas("new", 0), Written),
        ("cas, missing, not 0", cas("new", 1), Empty),
        ("cas, locked, as said, no id", cas("held", 2), Empty),
        ("cas, locked, as said, another id", under(OTHER, cas("held", 2)), Empty),
        ("cas, locked, as said, its id", under(ID, cas("held", 2)), Written),
        ("cas, locked, not as said, its id", under(ID, cas("held", 1)), Stored),
        ("cas, locked, not as said, no id", cas("held", 0), Stored),
        ("cas, not locked, an id", under(ID, cas("a", 1)), Empty),
        ("delete, there", delete("a"), Removed),
        ("delete, missing", delete("new"), Nothing),
        ("delete, locked", delete("held"), Empty),
        ("delete, locked, its id", under(ID, delete("held")), Empty),
        ("delete-cas, missing, 0", delete_cas("new", 0), Nothing),
        ("delete-cas, missing, not 0", delete_cas("new", 7), Empty),
        ("delete-cas, there, 0", delete_cas("a", 0), Stored),
        ("delete-cas, there, not as said", delete_cas("a", 2), Stored),
        ("delete-cas, there, as said", delete_cas("a", 1), Removed),
        ("delete-cas, locked, as said", delete_cas("held", 2), Empty),
        ("delete-cas, locked, not as said", delete_cas("held", 1), Stored),
        ("lock-acquire, missing", acquire("new", ID), Written),
        ("lock-acquire, there", acquire("a", ID), Written),
        ("lock-acquire, locked by another", acquire("held", OTHER), Empty),
        ("lock-acquire, locked by this", acquire("held", ID), Written),
        ("lock-acquire, given back", acquire("freed", OTHER), Written),
        ("lock-acquire, no id", acquire("a", ""), Refused("missing lock ID")),
        ("lock-release, missing", release("new", ID), Refused("variable doesn't exist")),
        ("lock-release, no lock", release("a", ID), Refused("variable doesn't hold a lock")),
        ("lock-release, given back already", release("freed", ID), Refused("variable doesn't hold a lock")),
        ("lock-release, another id", release("held", OTHER), Empty),
        ("lock-release, no id", release("held", ""), Empty),
        ("lock-release, its id", release("held", ID), Written),
        ("NUL in the path", set("a\0b"), Refused("a namespace and a path have no NUL")),
        ("a fence beyond all", fenced(1 << 63 | 1, set("a")), Refused("fence is too high")),
    ];
    let start =
        World::of([set("a"), acquire("held", ID), acquire("freed", ID), release("freed", ID)].map(|op| all([op])));
    for (name, op, then) in cases {
        let mut world = start.clone();
        let before = world.state.var("default", &op.path).cloned();
        let applied = world.apply(all([op.clone()]));
        let after = world.state.var("default", &op.path).cloned();
        let outcome = outcomes(&applied).remove(0);
        let is_change = matches!(then, Written | Removed);
        match then {
            Written => {
                assert_eq!(outcome, VarOutcome::Ok(after.clone()), "{name}");
                let (after, is_new) = (after.unwrap(), before.is_none());
                assert_eq!(after.modify_index, 5, "{name}");
                assert_eq!(after.create_index, before.as_ref().map_or(5, |var| var.create_index), "{name}");
                assert_eq!(is_new, after.create_time == time_at(5), "{name}");
            }
            Removed => assert_eq!((outcome, after), (VarOutcome::Ok(None), None), "{name}"),
            Nothing => assert_eq!((outcome, after), (VarOutcome::Ok(None), None), "{name}"),
            Empty => assert_eq!((outcome, &after), (VarOutcome::Conflict(None), &before), "{name}"),
            Stored => {
                assert!(after.is_some(), "{name}");
                assert_eq!((outcome, &after), (VarOutcome::Conflict(before.clone()), &before), "{name}");
            }
            Refused(why) => assert_eq!((outcome, &after), (VarOutcome::Refused(why.into()), &before), "{name}"),
        }
        // Conflicts have an index and change nothing.
        assert_eq!(world.state.index(), Index(5), "{name}");
        assert_eq!(world.state.vars_index(), Index(if is_change { 5 } else { 4 }), "{name}");
        let expected = if is_change { vec![("default".into(), Arc::clone(&op.path))] } else { vec![] };
        assert_eq!((&applied.touched.vars, applied.touched.keys.len()), (&expected, 0), "{name}"); // R1.87
        assert_eq!(applied.events.len(), expected.len(), "{name}");
        assert!(is_change || rows(&world.state) == rows(&start.state), "{name}");
    }
}

#[test]
fn a_write_keeps_when_the_variable_was_made() {
    let mut world = World::default();
    world.ok(set("a"));
    let var = world.ok(VarOp { sealed: Some(sealed("k2", "other")), ..set("a") }).unwrap();
    assert_eq!((var.create_index, var.create_time), (1, time_at(1)));
    assert_eq!((var.modify_index, var.modify_time), (2, time_at(2)));
    assert_eq!((items(&var), &*var.namespace, &*var.path), (Some(&b"other"[..]), "default", "a"));
    assert_eq!((var.fence, &var.lock), (0, &None));
    world.ok(delete("a"));
    assert!(world.state.var("default", "a").is_none());
    assert_eq!((world.state.var_count(), world.state.vars_index()), (0, Index(3)));
    let var = world.ok(set("a")).unwrap();
    assert_eq!((var.create_index, var.create_time), (4, time_at(4)), "a new one");
    // Nobody sends this; it is no reason to fall over.
    let var = world.ok(VarOp { sealed: None, ..set("a") }).unwrap();
    assert_eq!(items(&var), None);
}

#[test]
fn namespaces_and_paths_are_in_order() {
    let mut world = World::default();
    // A namespace that begins like another comes after all of its paths.
    for (namespace, path) in [("ab", "a"), ("a", "b"), ("a", "a/b"), ("a-b", "z"), ("a", "a"), ("a", "~")] {
        world.ok(VarOp { namespace: namespace.into(), ..set(path) });
    }
    let names = |from: (&str, &str)| -> Vec<(String, String)> {
        let vars = world.state.vars_from(from.0, from.1);
        vars.map(|var| (var.namespace.to_string(), var.path.to_string())).collect()
    };
    let all = [("a", "a"), ("a", "a/b"), ("a", "b"), ("a", "~"), ("a-b", "z"), ("ab", "a")]
        .map(|(namespace, path)| (namespace.to_owned(), path.to_owned()));
    assert_eq!(names(("", "")), all);
    assert_eq!(names(("a", "a/")), all[1..]);
    assert_eq!(names(("a-b", "")), all[4..]);
    assert_eq!(names(("b", "")), []);
    assert_eq!(world.state.vars_from("", "").next_back().unwrap().namespace, "ab".into());
    let has = ["a", "a-", "a-b", "ab", "abc", "", "b"].map(|namespace| world.state.has_vars_in(namespace));
    assert_eq!(has, [true, false, true, true, false, false, false]);
    // One text for all of a namespace.
    let shared = rows(&world.state);
    assert!(Arc::ptr_eq(&shared[0].namespace, &shared[3].namespace));
}

#[test]
fn all_or_nothing() {
    // R8.29
    let start = World::of([all([set("a")]), all([acquire("held", ID)])]);
    let skipped = || VarOutcome::Skipped;
    let mut world = start.clone();
    let stored = world.state.var("default", "a").cloned();
    let cases = [
        (vec![set("b"), cas("a", 0), set("c")], vec![skipped(), VarOutcome::Conflict(stored.clone()), skipped()]),
        (vec![delete("a"), delete("held")], vec![skipped(), VarOutcome::Conflict(None)]),
        (vec![release("b", ID), set("b")], vec![VarOutcome::Refused("variable doesn't exist".into()), skipped()]),
        (vec![cas("a", 0), cas("b", 4)], vec![VarOutcome::Conflict(stored), VarOutcome::Conflict(None)]),
        // Each sees those before it.
        (vec![cas("b", 0), cas("b", 0)], vec![skipped(), world.seen_as("b", 3)]),
    ];
    for (ops, expected) in cases {
        let mut world = start.clone();
        let applied = world.apply(all(ops.clone()));
        assert_eq!(outcomes(&applied), expected, "{ops:?}");
        assert!(applied.touched.is_empty() && applied.events.is_empty());
        assert_eq!(rows(&world.state), rows(&start.state));
        assert_eq!(world.state.vars_index(), Index(2));
        assert!(!world.state.is_key_used("k9"));
    }
    let other_key = VarOp { sealed: Some(sealed("k2", "moved")), ..cas("b", 0) };
    let applied = world.apply(all([delete("a"), other_key, release("held", ID), cas("b", 3)]));
    let done = outcomes(&applied);
    assert!(done.iter().all(|outcome| matches!(outcome, VarOutcome::Ok(_))), "{done:?}");
    assert_eq!(done[0], VarOutcome::Ok(None));
    let paths: Vec<&str> = applied.touched.vars.iter().map(|(_, path)| &**path).collect();
    assert_eq!(paths, ["a", "b", "held", "b"]);
    let events: Vec<&str> = applied.events.iter().map(|event| &*event.key).collect();
    assert_eq!(events, paths);
    assert_eq!((world.state.var_count(), world.state.lock_count()), (2, 0));
    assert_eq!(outcomes(&world.apply(all([]))), []);
}

impl World {
    /// The conflict with a variable that the entry at `index` itself wrote before.
    fn seen_as(&self, path: &str, index: u64) -> VarOutcome {
        let mut world = self.clone();
        while world.state.index().0 + 1 < index {
            world.apply(Command::Noop);
        }
        VarOutcome::Conflict(world.ok(set(path)))
    }
}

#[test]
fn events_tell_no_secret() {
    let mut world = World::default();
    let json = |applied: &Applied| -> serde_json::Value {
        let event = &applied.events[0];
        assert_eq!((applied.events.len(), event.topic, event.kind), (1, "Variable", "VariableUpdated"));
        assert_eq!((&*event.key, &*event.namespace, event.filter_keys.len()), ("a \"b\"", "default", 0));
        let text = event.payload.json();
        assert!(!text.contains(ID) && !text.contains("Items"), "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let path = "a \"b\"";
    let told = json(&world.apply(all([set(path)])));
    let mut expected = serde_json::json!({"Metadata": {
        "CreateIndex": 1, "CreateTime": time_at(1), "ModifyIndex": 1, "ModifyTime": time_at(1),
        "Namespace": "default", "Path": path}, "Deleted": false});
    assert_eq!(told, expected);

    let told = json(&world.apply(all([acquire(path, ID)])));
    expected["Metadata"]["ModifyIndex"] = 2.into();
    expected["Metadata"]["ModifyTime"] = time_at(2).into();
    expected["Metadata"]["Fence"] = 2.into();
    expected["Metadata"]["Lock"] = serde_json::json!({"ID": "", "TTL": "15s", "LockDelay": "10s"});
    assert_eq!(told, expected);

    let told = json(&world.apply(all([release(path, ID)])));
    expected["Metadata"]["ModifyIndex"] = 3.into();
    expected["Metadata"].as_object_mut().unwrap().remove("Lock");
    assert_eq!(told, expected);

    let told = json(&world.apply(all([delete(path)])));
    expected["Deleted"] = true.into();
    assert_eq!(told, expected, "as it was before it went");
    let shown = format!("{:?}", world.apply(all([acquire(path, ID)])));
    assert!(!shown.contains(ID), "{shown}");
}

#[test]
fn sealing_keys_are_counted() {
    let mut world = World::default();
    let under_key = |key: &str, path: &str| VarOp { sealed: Some(sealed(key, "x")), ..set(path) };
    let used = |world: &World| ["k1", "k2", "k3"].map(|key| world.state.is_key_used(key));
    assert_eq!(used(&world), [false; 3]);
    for op in [under_key("k1", "a"), under_key("k1", "b"), under_key("k2", "c"), acquire("d", ID)] {
        world.ok(op);
    }
    assert_eq!(used(&world), [true, true, false]);
    let paths = |world: &World, key: &str, most: usize| -> Vec<String> {
        world.state.vars_not_under(key, most).iter().map(|var| var.path.to_string()).collect()
    };
    assert_eq!(paths(&world, "k2", 9), ["a", "b", "d"]);
    assert_eq!(paths(&world, "k2", 2), ["a", "b"]);
    assert_eq!(paths(&world, "k3", 9), ["a", "b", "c", "d"]);
    assert!(Arc::ptr_eq(
        &world.var("a").sealed.as_ref().unwrap().key_id,
        &world.var("d").sealed.as_ref().unwrap().key_id
    ));
    world.ok(under_key("k2", "a"));
    world.ok(delete("b"));
    assert_eq!(used(&world), [true, true, false]);
    world.ok(VarOp { sealed: None, ..acquire("d", ID) });
    assert_eq!((used(&world), paths(&world, "k2", 9)), ([false, true, false], vec![]), "no items, no key");
}

#[test]
fn resealing_is_no_change() {
    let mut world = World::of([all([set("a")]), all([acquire("b", ID)]), all([set("c")])]);
    let (index, before) = (world.state.vars_index(), rows(&world.state));
    let item = |path: &str, modify_index: u64| Resealed {
        namespace: "default".into(),
        path: path.into(),
        modify_index,
        sealed: sealed("k2", "again"),
    };
    // `c` was written since it was read, `d` is not there any more.
    let applied =
        world.apply(Command::VarReseal { items: vec![item("a", 1), item("b", 2), item("c", 2), item("d", 0)] });
    assert_eq!(applied, Applied::default());
    assert_eq!(world.state.vars_index(), index);
    for (old, new) in before.iter().zip(rows(&world.state)) {
        let resealed = &*old.path != "c";
        assert_eq!(new.sealed == Some(sealed("k2", "again")), resealed, "{}", old.path);
        assert_eq!(Var { sealed: None, ..Var::clone(old) }, Var { sealed: None, ..Var::clone(&new) });
    }
    assert!(world.state.is_key_used("k2"));
    assert_eq!(world.state.vars_not_under("k2", 9).len(), 1);
}
