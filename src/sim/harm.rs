//! Planted faults that are about variables and locks: mistakes of a server that forgets a rule, made where its writes
//! leave it and where it is told of changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::CallId;
use crate::consensus::{Proposal, Resolution};
use crate::state::ApplyResult;
use crate::state::State;
use crate::state::var::VarOutcome;
use crate::state::watch::{Touched, WatchKey};
use crate::wire::entry::Command;
use crate::wire::entry::var::{LockName, VarOp, VarOpKind};

use super::fault::Fault;
use super::ground::Ground;
use super::site::SiteNumber;

/// What planted faults remember of one process.
#[derive(Debug, Default)]
pub(super) struct Harm {
    /// Transactions of which the second half was left out, and how many writes that was.
    halved: BTreeMap<CallId, usize>,
    /// Entries that were left out, and are told as done.
    left_out: Vec<CallId>,
    /// The last write that found its lock taken, by path.
    late: BTreeMap<Arc<str>, VarOp>,
}

impl Harm {
    /// Writes leave the server.
    pub(super) fn proposals(
        &mut self,
        ground: &mut Ground,
        site: SiteNumber,
        state: &State,
        proposals: &mut Vec<Proposal>,
    ) {
        let mut before = Vec::new();
        for proposal in proposals.iter_mut() {
            match &mut proposal.command {
                Command::VarApply(body) => {
                    if body.ops.len() > 1 && ground.fault(Fault::HalfTransaction, 50) {
                        self.halved.insert(proposal.id, body.ops.len());
                        body.ops.truncate(1);
                    }
                    for op in &mut body.ops {
                        self.harm_write(ground, state, op);
                        if let Some(name) = lock_in_delay(ground, site, state, op) {
                            before.push(name);
                        }
                    }
                }
                Command::LocksGrace { .. } if ground.fault(Fault::ForgetGrace, 100) => {
                    self.left_out.push(proposal.id);
                }
                Command::LocksExpire { .. } if ground.fault(Fault::ForgetExpiry, 100) => {
                    self.left_out.push(proposal.id);
                }
                Command::LockRenew(_) if ground.fault(Fault::ForgetRenewal, 60) => {
                    // The holder is told that all is well.
                    self.left_out.push(proposal.id);
                }
                _ => {}
            }
        }
        for proposal in proposals.iter_mut().filter(|proposal| self.left_out.contains(&proposal.id)) {
            proposal.command = Command::Noop;
        }
        let breaks = before.into_iter().map(|name| Proposal {
            id: CallId(u64::MAX),
            session: None,
            command: Command::LockBreak { namespace: name.namespace.to_string(), path: name.path.to_string() },
        });
        let breaks: Vec<Proposal> = breaks.collect();
        proposals.splice(0..0, breaks);
    }

    fn harm_write(&mut self, ground: &mut Ground, state: &State, op: &mut VarOp) {
        let var = state.var(&op.namespace, &op.path);
        let held = var.and_then(|var| var.lock.as_ref()).map(|lock| lock.id.to_string());
        let other = held.filter(|id| *id != op.lock_id);
        match op.kind {
            VarOpKind::LockRelease => {
                if let Some(id) = other
                    && ground.fault(Fault::ReleaseAnybodysLock, 100)
                {
                    op.lock_id = id;
                }
            }
            VarOpKind::Set => {
                if let Some(id) = other
                    && !op.lock_id.is_empty()
                    && ground.fault(Fault::AcceptStaleLock, 100)
                {
                    op.lock_id = id;
                }
                if op.fence > 0 && ground.fault(Fault::ForgetFence, 100) {
                    op.fence = 0;
                }
                if op.fence > 0 && var.is_none() && ground.fault(Fault::LoseFenceOnDelete, 100) {
                    op.fence = 0;
                }
            }
            VarOpKind::LockAcquire => {
                if other.is_some() {
                    self.late.insert(Arc::clone(&op.path), op.clone());
                } else if let Some(late) = self.late.remove(&op.path)
                    && late.lock_id != op.lock_id
                    && ground.fault(Fault::QueueOutOfOrder, 100)
                {
                    *op = late;
                }
            }
            _ => {}
        }
    }

    /// The server is told what became of its writes.
    pub(super) fn resolution(&mut self, id: CallId, resolution: &mut Resolution) {
        if let Resolution::Applied { result: ApplyResult::Vars(outcomes), .. } = resolution
            && let Some(count) = self.halved.remove(&id)
            && outcomes.iter().all(|one| matches!(one, VarOutcome::Ok(_)))
        {
            outcomes.resize(count, VarOutcome::Ok(None));
        }
    }
}

/// A lock that is over but for its delay, which a caller gets all the same.
fn lock_in_delay(ground: &mut Ground, site: SiteNumber, state: &State, op: &VarOp) -> Option<LockName> {
    let var = state.var(&op.namespace, &op.path)?;
    let lock = var.lock.as_ref()?;
    let over =
        op.kind == VarOpKind::LockAcquire && *lock.id != *op.lock_id && lock.deadline <= ground.wall(site).unix_nanos();
    if !over || !ground.fault(Fault::AcquireInDelay, 100) {
        return None;
    }
    Some(LockName { namespace: Arc::clone(&op.namespace), path: Arc::clone(&op.path), lock_id: lock.id.to_string() })
}

/// What an entry touched, as the server is told it.
pub(super) fn touched(ground: &mut Ground, touched: &mut Touched) {
    if touched.vars.is_empty() {
        return;
    }
    if ground.fault(Fault::LosePrefixTouch, 60) {
        for (namespace, path) in std::mem::take(&mut touched.vars) {
            touched.keys.push(WatchKey::var(&namespace, &path));
        }
    }
    if ground.fault(Fault::LoseVariableTouch, 60) {
        touched.vars.clear();
    }
}
