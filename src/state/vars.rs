//! The table of variables: what is read of it, and how a row comes, changes and goes.
//!
//! What each command does is in `var_writes` and `locks`. Source: endpoint notes, section 4.
//!
//! **Invariants:** a held lock, and no other, is among the locks with the time at which it is due; each key of the key
//! ring is counted once for every variable under it; no variable that is there has a fence among those of removed
//! ones.

use std::sync::Arc;

use imbl::OrdMap;

use crate::base::id::Index;
use crate::state::events::{Event, Payload, TOPIC_VARIABLE, VARIABLE_UPDATED};
use crate::state::fences::Fences;
use crate::state::locks::Locks;
use crate::state::nodes::At;
use crate::state::table::Table;
use crate::state::var::{DueLock, Var};
use crate::state::{Applied, ApplyResult, State};
use crate::wire::entry::Command;
use crate::wire::entry::var::Sealed;

/// Variables, their locks' deadlines, and the fences of those that were removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Vars {
    pub(super) table: Table<Var>,
    pub(super) locks: Locks,
    pub(super) fences: Fences,
    pub(super) sealing: SealingKeys,
}

/// How many variables are under each key of the key ring.
#[derive(Clone, Debug, Default)]
pub(super) struct SealingKeys {
    counts: OrdMap<Arc<str>, u64>,
}

impl SealingKeys {
    /// Counts one more variable under a key. Hands back the one text that all of them share.
    fn add(&mut self, id: &Arc<str>) -> Arc<str> {
        if let Some((known, count)) = self.counts.get_key_value_mut(&**id) {
            *count += 1;
            return Arc::clone(known);
        }
        self.counts.insert(Arc::clone(id), 1);
        Arc::clone(id)
    }

    /// Counts one less.
    fn remove(&mut self, id: &str) {
        if let Some(count) = self.counts.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(id);
            }
        }
    }

    fn of(&self, id: &str) -> u64 {
        self.counts.get(id).copied().unwrap_or(0)
    }

    fn of_others(&self, id: &str) -> u64 {
        self.counts.iter().filter(|(other, _)| &***other != id).map(|(_, count)| count).sum()
    }
}

/// The key of a row: namespaces and paths hold no NUL, so rows come in the order of namespace and path.
pub(super) fn key_of(namespace: &str, path: &str) -> String {
    let mut key = String::with_capacity(namespace.len() + 1 + path.len());
    key.push_str(namespace);
    key.push('\0');
    key.push_str(path);
    key
}

impl Vars {
    pub(super) fn row(&self, namespace: &str, path: &str) -> Option<&Arc<Var>> {
        self.table.row(&key_of(namespace, path))
    }

    /// Any variable of the namespace.
    pub(super) fn any_in(&self, namespace: &str) -> Option<&Arc<Var>> {
        self.table.rows_from(&key_of(namespace, "")).next().filter(|var| *var.namespace == *namespace)
    }

    /// Items as a row keeps them in place of the old ones; counts what is under which key.
    pub(super) fn sealed(&mut self, old: Option<&Sealed>, new: Option<&Sealed>) -> Option<Sealed> {
        let key_id = match (old, new) {
            (Some(old), Some(new)) if old.key_id == new.key_id => Some(Arc::clone(&old.key_id)),
            _ => {
                if let Some(old) = old {
                    self.sealing.remove(&old.key_id);
                }
                new.map(|new| self.sealing.add(&new.key_id))
            }
        };
        let (key_id, new) = key_id.zip(new)?;
        Some(Sealed { key_id, bytes: new.bytes.clone() })
    }

    /// Puts a row where one is already; counts as no change of the table.
    pub(super) fn replace_unseen(&mut self, key: &str, row: Arc<Var>) {
        if let Some(place) = self.table.row_mut(key) {
            *place = row;
        }
    }

    /// Puts a row where one is already.
    pub(super) fn replace(&mut self, at: At, key: &str, row: Arc<Var>, applied: &mut Applied) {
        note(&row, false, applied);
        self.replace_unseen(key, row);
        self.table.touch(at.index);
    }

    /// Adds a row.
    pub(super) fn insert(&mut self, at: At, key: &str, row: Arc<Var>, applied: &mut Applied) {
        note(&row, false, applied);
        self.fences.forget(key);
        self.table.put(at.index, key.into(), row);
    }

    /// Removes a row that holds no lock; its fence stays.
    pub(super) fn remove(&mut self, at: At, key: &str, fence: u64, applied: &mut Applied) {
        let kept = self.table.key(key).map(Arc::clone);
        let (Some(removed), Some(kept)) = (self.table.remove(at.index, key), kept) else { return };
        if let Some(sealed) = &removed.sealed {
            self.sealing.remove(&sealed.key_id);
        }
        self.fences.keep(kept, fence);
        note(&removed, true, applied);
    }

    /// Makes every index above `most` that one, and the table's own too. Fences stay: they are above any index that a
    /// later lock would get, and locks heed that.
    pub(super) fn lower_indexes(&mut self, most: Index) {
        self.table.lower(most, |var| {
            let (create_index, modify_index) = (var.create_index.min(most.0), var.modify_index.min(most.0));
            let is_low = (create_index, modify_index) == (var.create_index, var.modify_index);
            (!is_low).then(|| Var { create_index, modify_index, ..var.clone() })
        });
    }

    /// Panics unless everything that follows from the rows is as they say.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        let mut counts: OrdMap<Arc<str>, u64> = OrdMap::new();
        let mut locked = Vec::new();
        for var in self.table.rows() {
            let key = key_of(&var.namespace, &var.path);
            assert_eq!(self.table.row(&key), Some(var));
            assert!(var.create_index <= var.modify_index && var.modify_index <= self.table.index().0);
            assert!(self.fences.all().all(|(removed, _)| **removed != *key));
            if let Some(sealed) = &var.sealed {
                *counts.entry(Arc::clone(&sealed.key_id)).or_default() += 1;
            }
            if let Some(lock) = &var.lock {
                assert!(!lock.id.is_empty() && var.fence > 0);
                locked.push((key, lock.due()));
            }
        }
        assert_eq!(counts, self.sealing.counts);
        self.locks.check_invariants(&locked);
        self.fences.check_invariants();
    }
}

/// Notes that a variable changed, for those who wait and those who listen.
fn note(var: &Arc<Var>, deleted: bool, applied: &mut Applied) {
    applied.touched.vars.push((Arc::clone(&var.namespace), Arc::clone(&var.path)));
    applied.events.push(Event {
        topic: TOPIC_VARIABLE,
        kind: VARIABLE_UPDATED,
        key: Arc::clone(&var.path),
        filter_keys: Vec::new(),
        namespace: Arc::clone(&var.namespace),
        payload: Payload::Variable(Arc::clone(var), deleted),
    });
}

impl State {
    /// Applies a command about variables and locks.
    pub(super) fn apply_to_vars(&mut self, at: At, command: &Command) -> Applied {
        let vars = &mut self.vars;
        let mut applied = Applied::default();
        let refusal = match command {
            Command::VarApply(body) => {
                let outcomes = vars.write_all(at, &body.ops, &mut applied);
                applied.result = ApplyResult::Vars(outcomes);
                return applied;
            }
            Command::LockRenew(name) => vars.renew(at, name),
            Command::LocksExpire { locks } => {
                vars.expire(at, locks, &mut applied);
                None
            }
            Command::LocksGrace { grace } => {
                vars.grace(at, *grace);
                None
            }
            Command::LockBreak { namespace, path } => vars.break_lock(at, namespace, path, &mut applied),
            Command::VarReseal { items } => {
                items.iter().for_each(|item| vars.reseal(item));
                None
            }
            _ => None,
        };
        if let Some(why) = refusal {
            applied.result = ApplyResult::Refused(why.to_owned());
        }
        applied
    }

    /// The variable at a path.
    pub fn var(&self, namespace: &str, path: &str) -> Option<&Arc<Var>> {
        self.vars.row(namespace, path)
    }

    /// Variables in the order of namespace and path, from the first at or after this place. Ends by itself nowhere:
    /// the caller stops at the end of a namespace or a prefix.
    pub fn vars_from<'a>(
        &'a self,
        namespace: &str,
        path: &str,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Var>> + use<'a> {
        self.vars.table.rows_from(&key_of(namespace, path))
    }

    /// How many variables there are.
    pub fn var_count(&self) -> usize {
        self.vars.table.len()
    }

    /// The index of the last change of the variables table; 0 when it was never written.
    pub fn vars_index(&self) -> Index {
        self.vars.table.index()
    }

    /// Whether any variable of the namespace is there.
    pub fn has_vars_in(&self, namespace: &str) -> bool {
        self.vars.any_in(namespace).is_some()
    }

    /// Locks that are held, in the order of namespace and path.
    pub fn locked_vars(&self) -> impl Iterator<Item = &Arc<Var>> {
        self.vars.locks.keys().filter_map(|key| self.vars.table.row(key))
    }

    /// How many locks are held.
    pub fn lock_count(&self) -> usize {
        self.vars.locks.len()
    }

    /// When the first lock is to be ended (its deadline and its delay), nanoseconds since the Unix epoch.
    pub fn next_lock_due(&self) -> Option<i64> {
        self.vars.locks.next_due()
    }

    /// Locks to be ended at this time, the first ones first, at most so many.
    pub fn locks_due(&self, unix_nanos: i64, most: usize) -> Vec<DueLock> {
        let due = self.vars.locks.due(unix_nanos).take(most);
        due.filter_map(|key| self.vars.table.row(key)?.lock_name()).collect()
    }

    /// Whether a variable's items are under this key.
    pub fn is_key_used(&self, key_id: &str) -> bool {
        self.vars.sealing.of(key_id) > 0
    }

    /// Variables whose items are under another key than this one, in the order of namespace and path, at most so many.
    pub fn vars_not_under(&self, key_id: &str, most: usize) -> Vec<Arc<Var>> {
        let there = usize::try_from(self.vars.sealing.of_others(key_id)).unwrap_or(usize::MAX);
        let is_under_another = |var: &&Arc<Var>| var.sealed.as_ref().is_some_and(|sealed| *sealed.key_id != *key_id);
        // As many as there are: the rest of the table is not looked at once they are found.
        self.vars.table.rows().filter(is_under_another).take(most.min(there)).cloned().collect()
    }
}
