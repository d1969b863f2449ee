//! Random commands about variables and locks, against a model without indexes and without sharing; and what holds
//! whatever comes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::vars::*;
use super::*;
use crate::state::snapshot;
use crate::state::var::{Var, VarLock, VarOutcome};
use crate::wire::entry::var::{LockName, Resealed, Sealed, VarApply, VarOp, VarOpKind};

const PATHS: [&str; 4] = ["a", "a/b", "b", "c"];

fn path() -> impl Strategy<Value = &'static str> {
    select(&PATHS[..])
}

fn lock_id() -> impl Strategy<Value = &'static str> {
    select(vec!["", "one", "one", "two", "two", "tw"])
}

fn items() -> impl Strategy<Value = Option<Sealed>> {
    let sealed = (select(vec!["k1", "k2"]), "[xyz]").prop_map(|(key, items)| sealed(key, &items));
    prop::option::weighted(0.9, sealed)
}

fn write() -> impl Strategy<Value = VarOp> {
    use VarOpKind::*;
    let kind = select(vec![Set, Set, Cas, Cas, Cas, Delete, DeleteCas, LockAcquire, LockAcquire, LockRelease]);
    let fence = prop_oneof![4 => Just(0u64), 2 => 1u64..40, 1 => Just(u64::MAX)];
    let times = (0i64..30, 0i64..10, any::<bool>());
    (kind, path(), items(), prop_oneof![Just(0u64), 1u64..40], lock_id(), times, fence).prop_map(
        |(kind, path, sealed, check_index, lock_id, (ttl, delay, keep_items), fence)| VarOp {
            kind,
            namespace: if path == "c" { "other" } else { "default" }.into(),
            path: path.into(),
            sealed,
            check_index,
            lock_id: lock_id.into(),
            ttl: ttl * SECOND,
            lock_delay: delay * SECOND,
            owner: "me".into(),
            fence,
            keep_items,
        },
    )
}

fn lock_name() -> impl Strategy<Value = LockName> {
    (path(), lock_id()).prop_map(|(path, lock_id)| LockName {
        namespace: "default".into(),
        path: path.into(),
        lock_id: lock_id.into(),
    })
}

fn reseal() -> impl Strategy<Value = Resealed> {
    (path(), 0u64..40, select(vec!["k1", "k3"])).prop_map(|(path, modify_index, key)| Resealed {
        namespace: "default".into(),
        path: path.into(),
        modify_index,
        sealed: sealed(key, "again"),
    })
}

pub(super) fn command() -> impl Strategy<Value = Command> {
    let break_lock = |path: &str| Command::LockBreak { namespace: "default".into(), path: path.into() };
    prop_oneof![
        8 => write().prop_map(|op| all([op])),
        3 => prop::collection::vec(write(), 0..4).prop_map(all),
        2 => lock_name().prop_map(Command::LockRenew),
        2 => prop::collection::vec(lock_name(), 0..4).prop_map(|locks| Command::LocksExpire { locks }),
        1 => (0i64..30).prop_map(|seconds| Command::LocksGrace { grace: seconds * SECOND }),
        1 => path().prop_map(break_lock),
        1 => prop::collection::vec(reseal(), 0..4).prop_map(|items| Command::VarReseal { items }),
    ]
}

/// Variables as one would write them down: nothing shared, nothing counted.
#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<(String, String), Var>,
    fences: BTreeMap<(String, String), u64>,
}

/// In one word: `None` for done, else why not.
type Verdict = Option<&'static str>;

impl Model {
    fn apply(&mut self, index: u64, now: i64, command: &Command) -> Vec<Verdict> {
        match command {
            Command::VarApply(VarApply { ops }) => {
                let before = self.clone();
                let verdicts: Vec<Verdict> = ops.iter().map(|op| self.write(index, now, op).err()).collect();
                if verdicts.iter().any(Option::is_some) {
                    *self = before;
                }
                return verdicts;
            }
            Command::LockRenew(name) => {
                return vec![self.lock(name).filter(|lock| now <= lock.deadline).map_or(Some("refused"), |lock| {
                    *lock = VarLock { deadline: now + lock.ttl, graced: false, ..lock.clone() };
                    None
                })];
            }
            Command::LocksExpire { locks } => {
                for name in locks {
                    if self.lock(name).is_some_and(|lock| lock.deadline + lock.delay <= now) {
                        self.unlock(index, &name.namespace, &name.path);
                    }
                }
            }
            Command::LocksGrace { grace } => {
                for lock in self.rows.values_mut().filter_map(|var| var.lock.as_mut()) {
                    if !lock.graced && lock.deadline < now + grace {
                        *lock = VarLock { deadline: now + grace, graced: true, ..VarLock::clone(lock) }.into();
                    }
                }
            }
            Command::LockBreak { namespace, path } => {
                let row = self.rows.get(&(namespace.clone(), path.clone()));
                if row.is_none_or(|var| var.lock.is_none()) {
                    return vec![Some("refused")];
                }
                self.unlock(index, namespace, path);
            }
            Command::VarReseal { items } => {
                for item in items {
                    let row = self.rows.get_mut(&(item.namespace.to_string(), item.path.to_string()));
                    if let Some(var) = row.filter(|var| var.modify_index == item.modify_index) {
                        var.sealed = Some(item.sealed.clone());
                    }
                }
            }
            other => panic!("{other:?}"),
        }
        vec![None]
    }

    fn lock(&mut self, name: &LockName) -> Option<&mut VarLock> {
        let row = self.rows.get_mut(&(name.namespace.to_string(), name.path.to_string()))?;
        let lock = row.lock.as_mut().filter(|lock| *lock.id == name.lock_id)?;
        Some(Arc::make_mut(lock))
    }

    fn unlock(&mut self, index: u64, namespace: &str, path: &str) {
        let row = self.rows.get_mut(&(namespace.to_owned(), path.to_owned())).unwrap();
        row.lock = None;
        row.modify_index = index;
    }

    fn write(&mut self, index: u64, now: i64, op: &VarOp) -> Result<(), &'static str> {
        use VarOpKind::*;
        let place = (op.namespace.to_string(), op.path.to_string());
        let fence = self.fences.get(&place).copied().unwrap_or(0);
        let row = self.rows.get(&place);
        let (is_there, stored_index) = (row.is_some(), row.map_or(0, |var| var.modify_index));
        let held = row.and_then(|var| var.lock.clone());
        let mine = held.as_ref().is_some_and(|lock| *lock.id == op.lock_id);
        if op.fence == u64::MAX {
            return Err("refused");
        }
        if op.fence > 0 && op.fence < fence || matches!(op.kind, Cas | DeleteCas) && op.check_index != stored_index {
            return Err(if is_there { "conflict, stored" } else { "conflict, empty" });
        }
        match op.kind {
            Set | Cas if !(mine || held.is_none() && op.lock_id.is_empty()) => return Err("conflict, empty"),
            Delete | DeleteCas if held.is_some() => return Err("conflict, empty"),
            LockAcquire if op.lock_id.is_empty() => return Err("refused"),
            LockAcquire if held.is_some() && !mine => return Err("conflict, empty"),
            LockRelease if held.is_none() => return Err("refused"),
            LockRelease if !mine => return Err("conflict, empty"),
            _ => {}
        }
        let fresh = op.kind == LockAcquire && held.is_none();
        let fence = if fresh { index.max(fence.max(op.fence) + 1) } else { fence.max(op.fence) };
        self.fences.insert(place.clone(), fence);
        if matches!(op.kind, Delete | DeleteCas) {
            self.rows.remove(&place);
            return Ok(());
        }
        let new = Var { create_index: index, create_time: now, ..Var::default() };
        let row = self.rows.entry(place).or_insert(new);
        (row.namespace, row.path) = (op.namespace.clone(), op.path.clone());
        (row.fence, row.modify_index) = (fence, index);
        if op.kind == LockRelease {
            row.lock = None;
            return Ok(());
        }
        row.modify_time = now;
        if !(is_there && op.keep_items && op.kind == LockAcquire) {
            row.sealed = op.sealed.clone();
        }
        if op.kind == LockAcquire {
            row.lock = Some(Arc::new(VarLock {
                id: op.lock_id.as_str().into(),
                ttl: op.ttl,
                delay: op.lock_delay,
                owner: op.owner.as_str().into(),
                since: held.map_or(now, |lock| lock.since),
                deadline: now + op.ttl,
                graced: false,
            }));
        }
        Ok(())
    }
}

fn verdicts(result: &ApplyResult) -> Vec<Verdict> {
    let of_one = |outcome: &VarOutcome| match outcome {
        VarOutcome::Ok(_) | VarOutcome::Skipped => None,
        VarOutcome::Conflict(None) => Some("conflict, empty"),
        VarOutcome::Conflict(Some(_)) => Some("conflict, stored"),
        VarOutcome::Refused(_) => Some("refused"),
    };
    match result {
        ApplyResult::Vars(outcomes) => outcomes.iter().map(of_one).collect(),
        ApplyResult::Done => vec![None],
        ApplyResult::Refused(_) => vec![Some("refused")],
        other => panic!("{other:?}"),
    }
}

/// The highest fence seen at a path, whether a variable is there or not.
fn fence_at(state: &State, namespace: &str, path: &str) -> u64 {
    let key = format!("{namespace}\0{path}");
    state.var(namespace, path).map_or_else(|| state.vars.fences.of(&key), |var| var.fence)
}

fn check_step(before: &State, after: &State, applied: &Applied) {
    for (namespace, path) in PATHS.iter().flat_map(|path| [("default", path), ("other", path)]) {
        assert!(fence_at(before, namespace, path) <= fence_at(after, namespace, path), "a fence fell"); // R8.1
        let index = |state: &State| state.var(namespace, path).map(|var| var.modify_index);
        let is_touched = applied.touched.vars.contains(&(namespace.into(), (*path).into()));
        // R1.87: what changed is touched. What was made and removed in one entry may be touched too.
        assert!(index(before) == index(after) || is_touched, "{path} changed unseen");
        assert!(index(before).or(index(after)).is_some() || !is_touched || applied.touched.vars.len() > 1);
    }
    let has_changed = !applied.touched.vars.is_empty();
    assert_eq!(after.vars_index(), if has_changed { after.index() } else { before.vars_index() });
    assert_eq!(applied.events.len(), applied.touched.vars.len());
    assert!(applied.touched.keys.is_empty() && !applied.touched.everything);
    let first_due = rows(after).iter().filter_map(|var| var.lock.as_ref().map(|lock| lock.due())).min();
    assert_eq!(after.next_lock_due(), first_due);
    assert_eq!(after.lock_count(), after.locked_vars().count());
    for key in ["k1", "k2", "k3"] {
        let is_under = |var: &&Arc<Var>| var.sealed.as_ref().is_some_and(|sealed| &*sealed.key_id == key);
        assert_eq!(after.is_key_used(key), rows(after).iter().any(|var| is_under(&var)));
        let sealed = rows(after).iter().filter(|var| var.sealed.is_some()).count();
        assert_eq!(after.vars_not_under(key, 99).len(), sealed - rows(after).iter().filter(is_under).count());
    }
}

/// Amounts on accounts, as items that anybody can read.
fn amount(state: &State, account: &str) -> (i64, u64) {
    let var = state.var("default", account).unwrap();
    let text = std::str::from_utf8(&var.sealed.as_ref().unwrap().bytes.0).unwrap();
    (text.parse().unwrap(), var.modify_index)
}

proptest! {
    #[test]
    fn the_state_does_what_the_model_does(steps in prop::collection::vec((command(), 0i64..8), 0..60)) {
        let (mut world, mut model, mut now) = (World::default(), Model::default(), START);
        for (command, seconds) in steps {
            now += seconds * SECOND;
            let before = world.state.clone();
            let applied = world.apply_at(now, command.clone());
            let expected = model.apply(world.state.index().0, now, &command);
            prop_assert_eq!(verdicts(&applied.result), expected, "{:?}", command);
            let stored: Vec<Var> = rows(&world.state).iter().map(|var| Var::clone(var)).collect();
            prop_assert_eq!(stored, model.rows.values().cloned().collect::<Vec<_>>(), "{:?}", command);
            check_step(&before, &world.state, &applied);
        }
    }

    #[test]
    fn replicas_and_snapshots_agree(
        steps in prop::collection::vec((command(), 0i64..8), 0..60), restored_at in 0usize..60,
    ) {
        let (mut first, mut second, mut now) = (World::default(), World::default(), START);
        for (nth, (command, seconds)) in steps.into_iter().enumerate() {
            now += seconds * SECOND;
            // The second got every entry as bytes, and was restored from a snapshot on the way.
            if nth == restored_at {
                let bytes: Vec<u8> = snapshot::write(&second.state).flatten().collect();
                second.state = snapshot::read(&bytes).unwrap();
                second.state.vars.check_invariants();
            }
            let entry = Entry { time_unix_nanos: now, session: None, command };
            let copy = Entry::decode(&entry.encode()).unwrap();
            prop_assert_eq!(first.apply_at(now, entry.command), second.apply_at(now, copy.command));
        }
        prop_assert_eq!(rows(&first.state), rows(&second.state));
        prop_assert_eq!(first.state.digest(), second.state.digest());
        let bytes: Vec<u8> = snapshot::write(&first.state).flatten().collect();
        let again = snapshot::read(&bytes).unwrap();
        again.vars.check_invariants();
        prop_assert_eq!(again.digest(), first.state.digest());
        prop_assert_eq!(again.next_lock_due(), first.state.next_lock_due());
        prop_assert_eq!(again.vars_index(), first.state.vars_index());
    }

    // R8.29
    #[test]
    fn transfers_keep_the_sum(transfers in prop::collection::vec((0usize..3, 0usize..3, 1i64..50, 0usize..4), 0..60)) {
        const ACCOUNTS: [&str; 3] = ["account/1", "account/2", "account/3"];
        let account = |name: &str, amount: i64, check_index: u64| VarOp {
            sealed: Some(sealed("k1", &amount.to_string())),
            ..cas(name, check_index)
        };
        let mut world = World::of([all(ACCOUNTS.map(|name| account(name, 100, 0)))]);
        let mut seen = vec![world.state.clone()];
        let mut done = 0;
        for (from, to, sum, ago) in transfers {
            // Whoever moves it has read a state that may be old by now.
            let read = &seen[seen.len().saturating_sub(ago + 1)];
            let ((has, from_index), (gets, to_index)) = (amount(read, ACCOUNTS[from]), amount(read, ACCOUNTS[to]));
            let applied = world.apply(all([
                account(ACCOUNTS[from], has - sum, from_index),
                account(ACCOUNTS[to], gets + sum, to_index),
            ]));
            done += usize::from(applied.touched.vars.len() == 2);
            seen.push(world.state.clone());
            let total: i64 = ACCOUNTS.iter().map(|name| amount(&world.state, name).0).sum();
            prop_assert_eq!(total, 300);
        }
        prop_assert_eq!(world.state.vars_index() > Index(1), done > 0);
    }
}
