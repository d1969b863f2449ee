//! Writes to variables (Variables.Apply): conditions in the order of the endpoint notes, section 4.
//!
//! Where it does otherwise than the peers (2.0.5): a write under a lock that is gone is refused and stores no lock
//! that nobody would end; a holder that takes its lock again gets its whole time again.

use std::sync::Arc;

use crate::state::Applied;
use crate::state::locks::{NO_LOCK, NO_VARIABLE, without_items};
use crate::state::nodes::At;
use crate::state::var::{Var, VarLock, VarOutcome};
use crate::state::vars::{Vars, key_of};
use crate::state::watch::Touched;
use crate::wire::entry::var::{VarOp, VarOpKind};

/// The highest fence that a write may bring: above it there is room for those that locks get.
pub(super) const MAX_FENCE: u64 = 1 << 63;

/// A write, and what it meets.
struct Write<'a> {
    at: At,
    op: &'a VarOp,
    key: String,
    stored: Option<Arc<Var>>,
    /// The highest fence seen at the path, the write's own included.
    fence: u64,
}

impl Vars {
    /// Does all of the writes, or none: each sees those before it. Says what became of each.
    pub(super) fn write_all(&mut self, at: At, ops: &[VarOp], applied: &mut Applied) -> Vec<VarOutcome> {
        // A write that is refused has changed nothing by itself.
        let before = (ops.len() > 1).then(|| self.clone());
        let mut outcomes: Vec<VarOutcome> = ops.iter().map(|op| self.write(at, op, applied)).collect();
        if !outcomes.iter().all(|outcome| matches!(outcome, VarOutcome::Ok(_))) {
            if let Some(before) = before {
                *self = before;
            }
            applied.touched = Touched::default();
            applied.events = Vec::new();
            for outcome in outcomes.iter_mut().filter(|outcome| matches!(outcome, VarOutcome::Ok(_))) {
                *outcome = VarOutcome::Skipped;
            }
        }
        outcomes
    }

    fn write(&mut self, at: At, op: &VarOp, applied: &mut Applied) -> VarOutcome {
        if op.namespace.contains('\0') || op.path.contains('\0') {
            return VarOutcome::Refused("a namespace and a path have no NUL".into());
        }
        if op.fence > MAX_FENCE {
            return VarOutcome::Refused("fence is too high".into());
        }
        let key = key_of(&op.namespace, &op.path);
        let stored = self.table.row(&key).cloned();
        let fence = stored.as_ref().map_or_else(|| self.fences.of(&key), |var| var.fence);
        // R8.1: whoever was overtaken hears so, whatever else stands in its way.
        if op.fence > 0 && op.fence < fence {
            return VarOutcome::Conflict(stored);
        }
        let is_check = matches!(op.kind, VarOpKind::Cas | VarOpKind::DeleteCas);
        if is_check && op.check_index != stored.as_ref().map_or(0, |var| var.modify_index) {
            return VarOutcome::Conflict(stored);
        }
        let write = Write { at, op, key, stored, fence: fence.max(op.fence) };
        match op.kind {
            VarOpKind::Set | VarOpKind::Cas => self.set(&write, applied),
            VarOpKind::Delete | VarOpKind::DeleteCas => self.delete(&write, applied),
            VarOpKind::LockAcquire => self.acquire(&write, applied),
            VarOpKind::LockRelease => self.release(&write, applied),
        }
    }

    /// Writes items. A locked variable is written with its lock's id alone.
    ///
    /// A lock id given for a variable that is not locked is refused like a wrong one: the writer believes to hold a lock
    /// that is gone. (The peers store it as a lock that nothing ends.)
    fn set(&mut self, write: &Write<'_>, applied: &mut Applied) -> VarOutcome {
        let lock = write.stored.as_ref().and_then(|var| var.lock.as_ref());
        let may_write = match (lock, &write.stored) {
            (Some(_), Some(var)) => var.is_locked_by(&write.op.lock_id),
            _ => write.op.lock_id.is_empty(),
        };
        if !may_write {
            return VarOutcome::Conflict(None);
        }
        let lock = lock.cloned();
        VarOutcome::Ok(Some(self.put(write, lock, write.fence, applied)))
    }

    /// Removes a variable; a locked one is not removed, whoever asks.
    fn delete(&mut self, write: &Write<'_>, applied: &mut Applied) -> VarOutcome {
        match &write.stored {
            Some(var) if var.lock.is_some() => return VarOutcome::Conflict(None),
            Some(_) => self.remove(write.at, &write.key, write.fence, applied),
            // Nothing changes that anybody sees; but older writers are refused from now on.
            None => self.fences.keep(write.key.as_str().into(), write.fence),
        }
        VarOutcome::Ok(None)
    }

    /// Takes a lock, and replaces the items by those given, unless they are to be kept. Its holder keeps its fence, and gets its whole time again.
    fn acquire(&mut self, write: &Write<'_>, applied: &mut Applied) -> VarOutcome {
        let op = write.op;
        if op.lock_id.is_empty() {
            return VarOutcome::Refused("missing lock ID".into());
        }
        let held = write.stored.as_ref().and_then(|var| var.lock.as_ref());
        let is_mine = write.stored.as_ref().is_some_and(|var| var.is_locked_by(&op.lock_id));
        if held.is_some() && !is_mine {
            return VarOutcome::Conflict(None);
        }
        let now = write.at.time_unix_nanos;
        let lock = Arc::new(VarLock {
            id: held.map_or_else(|| op.lock_id.as_str().into(), |held| Arc::clone(&held.id)),
            ttl: op.ttl,
            delay: op.lock_delay,
            owner: op.owner.as_str().into(),
            since: held.map_or(now, |held| held.since),
            deadline: now.saturating_add(op.ttl),
            graced: false,
        });
        // The index is higher than every fence that a lock got; a write may have brought a higher one.
        let fence = if is_mine { write.fence } else { write.at.index.0.max(write.fence.saturating_add(1)) };
        let row = self.put(write, Some(Arc::clone(&lock)), fence, applied);
        self.note_lock(&write.key, Some(&lock));
        VarOutcome::Ok(Some(row))
    }

    /// Gives a lock back. The items stay, and so does ModifyTime (seen with 2.0.5).
    fn release(&mut self, write: &Write<'_>, applied: &mut Applied) -> VarOutcome {
        let Some(var) = &write.stored else { return VarOutcome::Refused(NO_VARIABLE.into()) };
        if var.lock.is_none() {
            return VarOutcome::Refused(NO_LOCK.into());
        }
        if !var.is_locked_by(&write.op.lock_id) {
            return VarOutcome::Conflict(None);
        }
        VarOutcome::Ok(Some(self.unlock(write.at, &write.key, var, write.fence, applied)))
    }

    /// Writes the row with the items, the lock and the fence given.
    fn put(&mut self, write: &Write<'_>, lock: Option<Arc<VarLock>>, fence: u64, applied: &mut Applied) -> Arc<Var> {
        let (index, now) = (write.at.index.0, write.at.time_unix_nanos);
        let Some(stored) = &write.stored else {
            // Variables of one namespace share its name.
            let namespace = self.any_in(&write.op.namespace).map_or(&write.op.namespace, |var| &var.namespace);
            let row = Var {
                namespace: Arc::clone(namespace),
                path: Arc::clone(&write.op.path),
                sealed: None,
                lock,
                fence,
                create_index: index,
                create_time: now,
                modify_index: index,
                modify_time: now,
            };
            let sealed = self.sealed(None, write.op.sealed.as_ref());
            let row = Arc::new(Var { sealed, ..row });
            self.insert(write.at, &write.key, Arc::clone(&row), applied);
            return row;
        };
        let keeps = write.op.keep_items && write.op.kind == VarOpKind::LockAcquire;
        let sealed =
            if keeps { stored.sealed.clone() } else { self.sealed(stored.sealed.as_ref(), write.op.sealed.as_ref()) };
        let row = Var { sealed, lock, fence, modify_index: index, modify_time: now, ..without_items(stored) };
        let row = Arc::new(row);
        self.replace(write.at, &write.key, Arc::clone(&row), applied);
        row
    }
}
