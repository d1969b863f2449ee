//! Variables.*: reading and writing variables, and their locks; and the extensions over several of them.
//!
//! Source: endpoint notes, section 4; requirements R8.1, R8.10, R8.25, R8.28, R8.29.

use crate::state::State;

use super::answer::Answer;
use super::{Ctx, Request};

/// Variables.Apply.
pub(super) fn apply(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Variables.Read.
pub(super) fn read(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Variables.List.
pub(super) fn list(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Variables.RenewLock.
pub(super) fn renew_lock(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Holdfast.VariablesTxn (R8.29).
pub(super) fn txn(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Holdfast.LockList (R8.10).
pub(super) fn lock_list(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Holdfast.LockRead (R8.10).
pub(super) fn lock_read(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}

/// Holdfast.LockBreak (R8.10).
pub(super) fn lock_break(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("variables")
}
