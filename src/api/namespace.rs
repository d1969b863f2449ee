//! Namespace.*.
//!
//! Source: endpoint notes, section 10.

use crate::state::State;

use super::answer::Answer;
use super::{Ctx, Request};

/// Namespace.ListNamespaces.
pub(super) fn list(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("namespaces")
}

/// Namespace.GetNamespace.
pub(super) fn get(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("namespaces")
}

/// Namespace.GetNamespaces.
pub(super) fn get_set(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("namespaces")
}

/// Namespace.UpsertNamespaces.
pub(super) fn upsert(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("namespaces")
}

/// Namespace.DeleteNamespaces.
pub(super) fn delete(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("namespaces")
}
