//! The rules of variables and locks once more, in few words: what each entry of the log must have done. Knows nothing
//! of the state that the server keeps; the two are held against each other.

use std::collections::BTreeMap;

use crate::wire::entry::Command;
use crate::wire::entry::var::{VarOp, VarOpKind};

use super::super::truth::Step;
use super::super::variables::{PATHS, PathNumber, sealed_nonce};

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    id: String,
    ttl: i64,
    delay: i64,
    deadline: i64,
    graced: bool,
}

/// A variable and what outlives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Row {
    /// ModifyIndex and nonce.
    stands: Option<(u64, u64)>,
    lock: Option<Lock>,
    fence: u64,
}

/// How a variable looked from an index on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// The first index.
    pub(super) from: u64,
    /// ModifyIndex, nonce, and whether it is locked; `None` where there was none.
    pub(super) seen: Option<(u64, u64, bool)>,
}

/// How one hold of a lock went.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) path: PathNumber,
    pub(super) id: String,
    /// The entry that took it.
    pub(super) acquired: u64,
    /// The last entry that gave it more time.
    pub(super) renewed: u64,
    pub(super) ttl: i64,
    pub(super) delay: i64,
    /// The entry that ended it.
    pub(super) ended: Option<u64>,
    /// By its time.
    pub(super) expired: bool,
}

/// What the log did to variables.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// For each entry of a write: whether it was done, and the fence of the first variable after it.
    pub(super) results: BTreeMap<u64, (bool, u64)>,
    /// For each path.
    pub(super) versions: Vec<Vec<Version>>,
    /// Indexes at which the table changed.
    pub(super) table: Vec<u64>,
    /// In the order in which they were taken.
    pub(super) holds: Vec<Hold>,
    /// The entry that did the write with each nonce.
    pub(super) done: BTreeMap<u64, u64>,
    /// Nonces of writes that were done twice, with the two entries.
    pub(super) doubled: Vec<(u64, u64, u64)>,
    rows: Vec<Row>,
}

impl Replay {
    /// Follows the log.
    pub(super) fn of(steps: &[Step]) -> Replay {
        let versions = vec![vec![Version { from: 0, seen: None }]; PATHS.len()];
        let mut replay = Replay { versions, rows: vec![Row::default(); PATHS.len()], ..Replay::default() };
        for step in steps {
            replay.step(step);
        }
        replay
    }

    fn step(&mut self, step: &Step) {
        let before = self.rows.clone();
        let (index, time) = (step.index, step.time);
        match &step.command {
            Command::VarApply(body) => {
                let done = body.ops.iter().all(|op| self.write(op, index, time));
                if done {
                    body.ops.iter().for_each(|op| self.note_done(op, index));
                } else {
                    self.rows.clone_from(&before);
                }
                let first = body.ops.first().and_then(|op| row_number(&op.path)).and_then(|at| self.rows.get(at));
                self.results.insert(index, (done, first.map_or(0, |row| row.fence)));
            }
            Command::LockRenew(name) => {
                let lock = row_number(&name.path).and_then(|at| self.rows.get_mut(at)?.lock.as_mut());
                let renewed = lock.is_some_and(|lock| {
                    let may = lock.id == name.lock_id && time <= lock.deadline;
                    if may {
                        (lock.deadline, lock.graced) = (time + lock.ttl, false);
                    }
                    may
                });
                if renewed && let Some(hold) = self.holds.iter_mut().rev().find(|hold| hold.id == name.lock_id) {
                    hold.renewed = index;
                }
                self.results.insert(index, (renewed, 0));
            }
            Command::LocksExpire { locks } => {
                for name in locks {
                    let Some(row) = row_number(&name.path).and_then(|at| self.rows.get_mut(at)) else { continue };
                    let due = |lock: &Lock| lock.id == name.lock_id && lock.deadline + lock.delay <= time;
                    if row.lock.as_ref().is_some_and(due) {
                        unlock(row, index);
                    }
                }
            }
            Command::LocksGrace { grace } => {
                for lock in self.rows.iter_mut().filter_map(|row| row.lock.as_mut()) {
                    if !lock.graced && lock.deadline < time + grace {
                        (lock.deadline, lock.graced) = (time + grace, true);
                    }
                }
            }
            Command::LockBreak { path, .. } => {
                if let Some(row) = row_number(path).and_then(|at| self.rows.get_mut(at)) {
                    unlock(row, index);
                }
            }
            _ => {}
        }
        self.note(&before, step);
    }

    fn note_done(&mut self, op: &VarOp, index: u64) {
        let nonce = sealed_nonce(&op.path, op.sealed.as_ref()).unwrap_or(0);
        if nonce > 0
            && let Some(first) = self.done.insert(nonce, index)
        {
            self.doubled.push((nonce, first, index));
        }
    }

    /// One write; false where it is refused.
    fn write(&mut self, op: &VarOp, index: u64, time: i64) -> bool {
        let Some(row) = row_number(&op.path).and_then(|at| self.rows.get_mut(at)) else { return false };
        if op.fence > 0 && op.fence < row.fence {
            return false;
        }
        let is_check = matches!(op.kind, VarOpKind::Cas | VarOpKind::DeleteCas);
        if is_check && op.check_index != row.stands.map_or(0, |(modify_index, _)| modify_index) {
            return false;
        }
        let fence = row.fence.max(op.fence);
        let held = row.lock.as_ref().map(|lock| lock.id == op.lock_id);
        let nonce = sealed_nonce(&op.path, op.sealed.as_ref()).unwrap_or(0);
        let done = match op.kind {
            VarOpKind::Set | VarOpKind::Cas => held.unwrap_or(op.lock_id.is_empty()),
            VarOpKind::Delete | VarOpKind::DeleteCas => held.is_none(),
            VarOpKind::LockAcquire => held.unwrap_or(true),
            VarOpKind::LockRelease => held.unwrap_or(false) && row.stands.is_some(),
        };
        if !done {
            return false;
        }
        row.fence = fence;
        match op.kind {
            VarOpKind::Set | VarOpKind::Cas => row.stands = Some((index, nonce)),
            VarOpKind::Delete | VarOpKind::DeleteCas => row.stands = None,
            VarOpKind::LockRelease => unlock(row, index),
            VarOpKind::LockAcquire => {
                if held.is_none() {
                    row.fence = index.max(fence + 1);
                }
                row.stands = Some((index, nonce));
                let (id, ttl, delay) = (op.lock_id.clone(), op.ttl, op.lock_delay);
                row.lock = Some(Lock { id, ttl, delay, deadline: time + ttl, graced: false });
            }
        }
        true
    }

    /// Writes down what changed.
    fn note(&mut self, before: &[Row], step: &Step) {
        let index = step.index;
        let expired = matches!(step.command, Command::LocksExpire { .. });
        let mut changed = false;
        for (path, (old, new)) in before.iter().zip(&self.rows).enumerate() {
            let id = |row: &Row| row.lock.as_ref().map(|lock| lock.id.clone());
            if id(old) != id(new)
                && let Some(hold) = self.holds.iter_mut().rev().find(|hold| Some(&hold.id) == id(old).as_ref())
            {
                (hold.ended, hold.expired) = (Some(index), expired);
            }
            match &new.lock {
                Some(lock) if id(old) != id(new) => self.holds.push(Hold {
                    path,
                    id: lock.id.clone(),
                    acquired: index,
                    renewed: index,
                    ttl: lock.ttl,
                    delay: lock.delay,
                    ended: None,
                    expired: false,
                }),
                _ => {}
            }
            let seen = |row: &Row| row.stands.map(|(modify, nonce)| (modify, nonce, row.lock.is_some()));
            if seen(old) != seen(new) {
                changed = true;
                if let Some(versions) = self.versions.get_mut(path) {
                    versions.push(Version { from: index, seen: seen(new) });
                }
            }
        }
        if changed {
            self.table.push(index);
        }
    }

    /// The index of the table at an index.
    pub(super) fn table_at(&self, index: u64) -> u64 {
        let before = self.table.partition_point(|change| *change <= index);
        before.checked_sub(1).and_then(|at| self.table.get(at)).copied().unwrap_or(0)
    }

    /// From which to which index a path looked so.
    pub(super) fn spans(&self, path: PathNumber, is: impl Fn(&Version) -> bool) -> Vec<(u64, u64)> {
        let versions = self.versions.get(path).map_or(&[][..], Vec::as_slice);
        let ends = versions.iter().skip(1).map(|next| next.from - 1).chain([u64::MAX]);
        versions.iter().zip(ends).filter(|(version, _)| is(version)).map(|(version, to)| (version.from, to)).collect()
    }
}

fn unlock(row: &mut Row, index: u64) {
    if row.lock.take().is_some()
        && let Some((modify_index, _)) = &mut row.stands
    {
        *modify_index = index;
    }
}

fn row_number(path: &str) -> Option<PathNumber> {
    PATHS.iter().position(|known| *known == path)
}
