//! Locks by the time at which they are to be ended, and what the commands about them do.
//!
//! A lock is in the row of its variable; here is only when it is due. Source: endpoint notes, section 4, "Lock life";
//! requirements R8.3, R8.10.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::state::Applied;
use crate::state::nodes::At;
use crate::state::secret::same_secret;
use crate::state::var::{Var, VarLock};
use crate::state::vars::{Vars, key_of};
use crate::wire::entry::var::{LockName, Resealed};

/// What a release of a lock is told when there is no variable.
pub(super) const NO_VARIABLE: &str = "variable doesn't exist";
/// What a release of a lock is told when there is none.
pub(super) const NO_LOCK: &str = "variable doesn't hold a lock";

/// Which locks are held, and when each is due: its deadline and its delay.
#[derive(Clone, Debug, Default)]
pub(super) struct Locks {
    by_key: OrdMap<Arc<str>, i64>,
    by_due: OrdSet<(i64, Arc<str>)>,
}

impl Locks {
    /// Notes when the lock of a variable is due.
    pub(super) fn put(&mut self, key: Arc<str>, due: i64) {
        if let Some(before) = self.by_key.insert(Arc::clone(&key), due) {
            if before == due {
                return;
            }
            self.by_due.remove(&(before, Arc::clone(&key)));
        }
        self.by_due.insert((due, key));
    }

    /// Forgets the lock of a variable.
    pub(super) fn remove(&mut self, key: &str) {
        if let Some((key, due)) = self.by_key.remove_with_key(key) {
            self.by_due.remove(&(due, key));
        }
    }

    /// Keys of variables that are locked, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_key.keys()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// When the first is due.
    pub(super) fn next_due(&self) -> Option<i64> {
        self.by_due.get_min().map(|(due, _)| *due)
    }

    /// Keys of those that are due at this time, the first ones first.
    pub(super) fn due(&self, unix_nanos: i64) -> impl Iterator<Item = &Arc<str>> {
        self.by_due.iter().take_while(move |(due, _)| *due <= unix_nanos).map(|(_, key)| key)
    }

    /// Panics unless exactly these are held.
    #[cfg(test)]
    pub(super) fn check_invariants(&self, locked: &[(String, i64)]) {
        let held: Vec<_> = self.by_key.iter().map(|(key, due)| (key.to_string(), *due)).collect();
        assert_eq!(held, locked);
        let by_due: OrdSet<_> = self.by_key.iter().map(|(key, due)| (*due, Arc::clone(key))).collect();
        assert_eq!(by_due, self.by_due);
    }
}

impl VarLock {
    /// When it is to be ended, nanoseconds since the Unix epoch.
    pub(super) fn due(&self) -> i64 {
        self.deadline.saturating_add(self.delay.max(0))
    }
}

impl Var {
    /// Whether it is locked with this id.
    pub(super) fn is_locked_by(&self, lock_id: &str) -> bool {
        self.lock.as_ref().is_some_and(|lock| same_secret(lock_id, &lock.id))
    }

    /// Names its lock.
    pub(super) fn lock_name(&self) -> Option<LockName> {
        let lock_id = self.lock.as_ref()?.id.to_string();
        Some(LockName { namespace: Arc::clone(&self.namespace), path: Arc::clone(&self.path), lock_id })
    }
}

impl Vars {
    /// Notes the lock that the row of this key now holds, or that it holds none.
    pub(super) fn note_lock(&mut self, key: &str, lock: Option<&VarLock>) {
        match (lock, self.table.key(key)) {
            (Some(lock), Some(key)) => self.locks.put(Arc::clone(key), lock.due()),
            _ => self.locks.remove(key),
        }
    }

    /// Takes the lock off a variable, whoever holds it. Its items and its ModifyTime stay (seen with 2.0.5).
    pub(super) fn unlock(&mut self, at: At, key: &str, var: &Var, fence: u64, applied: &mut Applied) -> Arc<Var> {
        let row = Arc::new(Var { lock: None, fence, modify_index: at.index.0, ..var.clone() });
        self.note_lock(key, None);
        self.replace(at, key, Arc::clone(&row), applied);
        row
    }

    /// Variables.RenewLock. Why it is refused, as peers read it; else nothing.
    ///
    /// After its deadline a lock is not renewed, though it is held until its delay is over.
    pub(super) fn renew(&mut self, at: At, name: &LockName) -> Option<&'static str> {
        let key = key_of(&name.namespace, &name.path);
        let Some(var) = self.table.row(&key) else { return Some("RPC Error:: 404,variable doesn't exist") };
        let Some(lock) = &var.lock else { return Some("RPC Error:: 409,variable doesn't hold a lock") };
        if !same_secret(&name.lock_id, &lock.id) || at.time_unix_nanos > lock.deadline {
            return Some("RPC Error:: 409,attempting to modify locked variable");
        }
        let deadline = at.time_unix_nanos.saturating_add(lock.ttl);
        let renewed = VarLock { deadline, graced: false, ..VarLock::clone(lock) };
        self.set_lock(&key, renewed);
        None
    }

    /// Ends locks whose time is over. One that was renewed, given back or taken by another since is left alone.
    pub(super) fn expire(&mut self, at: At, names: &[LockName], applied: &mut Applied) {
        for name in names {
            let key = key_of(&name.namespace, &name.path);
            let Some(var) = self.table.row(&key).cloned() else { continue };
            let is_due = var.lock.as_ref().is_some_and(|lock| lock.due() <= at.time_unix_nanos);
            if is_due && var.is_locked_by(&name.lock_id) {
                self.unlock(at, &key, &var, var.fence, applied);
            }
        }
    }

    /// A new leader's grace: whoever holds a lock gets this time to find it. Once for each lock until it is renewed,
    /// so that leaders that follow each other quickly cannot keep a dead holder's lock (R8.3).
    pub(super) fn grace(&mut self, at: At, grace: i64) {
        let least = at.time_unix_nanos.saturating_add(grace);
        let keys: Vec<Arc<str>> = self.locks.keys().cloned().collect();
        for key in keys {
            let lock = self.table.row(&key).and_then(|var| var.lock.as_ref());
            if let Some(lock) = lock.filter(|lock| !lock.graced && lock.deadline < least) {
                let graced = VarLock { deadline: least, graced: true, ..VarLock::clone(lock) };
                self.set_lock(&key, graced);
            }
        }
    }

    /// Ends a lock at once, whoever holds it (R8.10). Why it is refused; else nothing.
    pub(super) fn break_lock(
        &mut self,
        at: At,
        namespace: &str,
        path: &str,
        applied: &mut Applied,
    ) -> Option<&'static str> {
        let key = key_of(namespace, path);
        let Some(var) = self.table.row(&key).cloned() else { return Some(NO_VARIABLE) };
        if var.lock.is_none() {
            return Some(NO_LOCK);
        }
        self.unlock(at, &key, &var, var.fence, applied);
        None
    }

    /// Puts items under another key, unless the variable was written since. Nobody sees a change.
    pub(super) fn reseal(&mut self, item: &Resealed) {
        let key = key_of(&item.namespace, &item.path);
        let Some(var) = self.table.row(&key).filter(|var| var.modify_index == item.modify_index) else { return };
        let var = Arc::clone(var);
        let sealed = self.sealed(var.sealed.as_ref(), Some(&item.sealed));
        self.replace_unseen(&key, Arc::new(Var { sealed, ..without_items(&var) }));
    }

    /// Changes the time of a lock, which is no change of its variable.
    fn set_lock(&mut self, key: &str, lock: VarLock) {
        self.note_lock(key, Some(&lock));
        if let Some(row) = self.table.row_mut(key) {
            Arc::make_mut(row).lock = Some(Arc::new(lock));
        }
    }
}

/// A copy of everything but the items, which may be many bytes.
pub(super) fn without_items(var: &Var) -> Var {
    Var {
        namespace: Arc::clone(&var.namespace),
        path: Arc::clone(&var.path),
        sealed: None,
        lock: var.lock.clone(),
        ..*var
    }
}
