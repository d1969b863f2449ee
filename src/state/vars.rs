//! The table of variables: what is read of it, and what each command does to it.
//!
//! Source: endpoint notes, section 4.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::nodes::At;
use crate::state::var::{DueLock, Var};
use crate::state::{Applied, State};
use crate::wire::entry::Command;

/// Variables, their locks' deadlines, and the fences of those that were removed.
#[derive(Clone, Debug, Default)]
pub(super) struct Vars {}

#[allow(unused_variables)]
impl State {
    /// Applies a command about variables and locks.
    pub(super) fn apply_to_vars(&mut self, at: At, command: &Command) -> Applied {
        todo!("variables")
    }

    /// The variable at a path.
    pub fn var(&self, namespace: &str, path: &str) -> Option<&Arc<Var>> {
        todo!("variables")
    }

    /// Variables in the order of namespace and path, from the first at or after this place. Ends by itself nowhere:
    /// the caller stops at the end of a namespace or a prefix.
    pub fn vars_from<'a>(
        &'a self,
        namespace: &str,
        path: &str,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Var>> + use<'a> {
        std::iter::empty()
    }

    /// How many variables there are.
    pub fn var_count(&self) -> usize {
        0
    }

    /// The index of the last change of the variables table; 0 when it was never written.
    pub fn vars_index(&self) -> Index {
        Index(0)
    }

    /// Whether any variable of the namespace is there.
    pub fn has_vars_in(&self, namespace: &str) -> bool {
        false
    }

    /// Locks that are held, in the order of namespace and path.
    pub fn locked_vars(&self) -> impl Iterator<Item = &Arc<Var>> {
        std::iter::empty()
    }

    /// How many locks are held.
    pub fn lock_count(&self) -> usize {
        0
    }

    /// When the first lock is to be ended (its deadline and its delay), nanoseconds since the Unix epoch.
    pub fn next_lock_due(&self) -> Option<i64> {
        None
    }

    /// Locks to be ended at this time, the first ones first, at most so many.
    pub fn locks_due(&self, unix_nanos: i64, most: usize) -> Vec<DueLock> {
        Vec::new()
    }

    /// Whether a variable's items are under this key.
    pub fn is_key_used(&self, key_id: &str) -> bool {
        false
    }

    /// Variables whose items are under another key than this one, from a place on, at most so many.
    pub fn vars_not_under(&self, key_id: &str, most: usize) -> Vec<Arc<Var>> {
        Vec::new()
    }
}
