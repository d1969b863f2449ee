//! Variables, and the fences of removed ones, as rows of a snapshot.
//!
//! A row holds everything, locks with their ids too: a snapshot is as secret as the log.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::fences::MAX_FENCES;
use crate::state::sections::{Section, tag};
use crate::state::snapshot::{encode, fields};
use crate::state::var::{Var, VarLock};
use crate::state::vars::{Vars, key_of};
use crate::wire::msgpack::{Decoder, Encoder, Msg, Result as Decoded};

/// Values of a variable's row.
pub(super) const VAR_FIELDS: usize = 9;

/// Variables in the order of namespace and path.
pub(super) const VARS: Section = Section {
    tag: tag::VARS,
    index: State::vars_index,
    rows: |state| Box::new(state.vars.table.rows().map(|var| encode(|e| encode_var(var, e)))),
    restore_row: |state, d| {
        let at = d.error("variables are out of order");
        let var = fields(d, VAR_FIELDS, decode_var)?;
        if state.vars.restore(var) { Ok(()) } else { Err(at) }
    },
    restore_index: |state, index| state.vars.table.touch(index),
};

/// The floor, then the fences of removed variables in the order of namespace and path. Their table has no index.
pub(super) const FENCES: Section = Section {
    tag: tag::FENCES,
    index: |_| Index(0),
    rows: |state| {
        let fences = &state.vars.fences;
        let floor = (fences.floor() > 0).then(|| encode(|e| encode_fence("", fences.floor(), e)));
        Box::new(floor.into_iter().chain(fences.all().map(|(key, fence)| encode(|e| encode_fence(key, fence, e)))))
    },
    restore_row: |state, d| {
        let at = d.error("a fence is not one of a removed variable, or out of order");
        let (key, fence) = fields(d, 2, |d| Ok((Arc::<str>::decode(d)?, d.u64()?)))?;
        if state.vars.restore_fence(key, fence) { Ok(()) } else { Err(at) }
    },
    restore_index: |_, _| {},
};

impl Vars {
    /// Puts back a variable; false when it comes out of order.
    fn restore(&mut self, var: Var) -> bool {
        let key = key_of(&var.namespace, &var.path);
        let last = self.table.rows().next_back();
        if last.is_some_and(|last| key_of(&last.namespace, &last.path) >= key) {
            return false;
        }
        // Variables of one namespace share its name, those under one key its id.
        let namespace = last.map(|last| &last.namespace).filter(|last| ***last == *var.namespace);
        let namespace = Arc::clone(namespace.unwrap_or(&var.namespace));
        let sealed = self.sealed(None, var.sealed.as_ref());
        let lock = var.lock.clone();
        // A variable's own index may be below that of the table, which is restored apart.
        let index = Index(var.modify_index);
        self.table.put(index, key.as_str().into(), Arc::new(Var { namespace, sealed, ..var }));
        if lock.is_some() {
            self.note_lock(&key, lock.as_deref());
        }
        true
    }

    /// Puts back a fence, or the floor, which has no key; false when it comes out of order, or is needless.
    fn restore_fence(&mut self, key: Arc<str>, fence: u64) -> bool {
        if key.is_empty() {
            let is_first = self.fences.floor() == 0 && self.fences.len() == 0 && fence > 0;
            self.fences.raise_floor(fence);
            return is_first;
        }
        let is_next = self.fences.last_key().is_none_or(|last| **last < *key);
        let is_needed = fence > self.fences.floor() && self.table.row(&key).is_none();
        let has_room = self.fences.len() < MAX_FENCES;
        self.fences.keep(key, fence);
        is_next && is_needed && has_room
    }
}

fn encode_fence(key: &str, fence: u64, e: &mut Encoder) {
    e.array(2);
    e.str(key);
    e.u64(fence);
}

/// Appends a variable, all of it.
pub(super) fn encode_var(var: &Var, e: &mut Encoder) {
    e.array(VAR_FIELDS);
    e.str(&var.namespace);
    e.str(&var.path);
    var.sealed.encode(e);
    match &var.lock {
        Some(lock) => encode_lock(lock, e),
        None => e.nil(),
    }
    e.u64(var.fence);
    e.u64(var.create_index);
    e.i64(var.create_time);
    e.u64(var.modify_index);
    e.i64(var.modify_time);
}

/// Reads what [`encode_var`] wrote, without the list around it.
pub(super) fn decode_var(d: &mut Decoder<'_>) -> Decoded<Var> {
    Ok(Var {
        namespace: Msg::decode(d)?,
        path: Msg::decode(d)?,
        sealed: Msg::decode(d)?,
        lock: decode_lock(d)?,
        fence: d.u64()?,
        create_index: d.u64()?,
        create_time: d.i64()?,
        modify_index: d.u64()?,
        modify_time: d.i64()?,
    })
}

fn encode_lock(lock: &VarLock, e: &mut Encoder) {
    e.array(7);
    e.str(&lock.id);
    e.i64(lock.ttl);
    e.i64(lock.delay);
    e.str(&lock.owner);
    e.i64(lock.since);
    e.i64(lock.deadline);
    e.bool(lock.graced);
}

fn decode_lock(d: &mut Decoder<'_>) -> Decoded<Option<Arc<VarLock>>> {
    if d.nil()? {
        return Ok(None);
    }
    let lock = fields(d, 7, |d| {
        Ok(VarLock {
            id: Msg::decode(d)?,
            ttl: d.i64()?,
            delay: d.i64()?,
            owner: Msg::decode(d)?,
            since: d.i64()?,
            deadline: d.i64()?,
            graced: d.bool()?,
        })
    })?;
    Ok(Some(Arc::new(lock)))
}
