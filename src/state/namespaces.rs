//! The table of namespaces. `default` is there from the start and cannot be removed.
//!
//! Source: endpoint notes, section 10.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::nodes::At;
use crate::state::{Applied, State};
use crate::wire::body::namespace::Namespace;
use crate::wire::entry::Command;

/// The namespaces.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {}

#[allow(unused_variables)]
impl State {
    /// Applies a command about namespaces.
    pub(super) fn apply_to_namespaces(&mut self, at: At, command: &Command) -> Applied {
        todo!("namespaces")
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        None
    }

    /// Namespaces in the order of their names, from the first at or after `from`.
    pub fn namespaces_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Namespace>> + use<'a> {
        std::iter::empty()
    }

    /// The index of the last change of the namespaces; 1 at the start.
    pub fn namespaces_index(&self) -> Index {
        Index(1)
    }
}
