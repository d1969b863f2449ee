//! The table of namespaces. `default` is there from the start and cannot be removed.
//!
//! Source: endpoint notes, section 10.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::id::Index;
use crate::state::acl::{hashes, settle_nil};
use crate::state::nodes::At;
use crate::state::sections::{Section, tag};
use crate::state::table::Table;
use crate::state::watch::WatchKey;
use crate::state::{Applied, ApplyResult, State};
use crate::wire::body::namespace::Namespace;
use crate::wire::entry::Command;
use crate::wire::msgpack::Msg;

/// The namespace that is always there.
const DEFAULT: &str = "default";

/// The namespaces.
#[derive(Clone, Debug)]
pub(super) struct Namespaces {
    table: Table<Namespace>,
}

impl Default for Namespaces {
    fn default() -> Namespaces {
        let mut namespace = Namespace {
            name: DEFAULT.to_owned(),
            description: "Default shared namespace".to_owned(),
            create_index: 1,
            modify_index: 1,
            ..Namespace::default()
        };
        namespace.hash = hashes::of_namespace(&namespace);
        let mut namespaces = Namespaces { table: Table::default() };
        namespaces.put(Index(1), namespace);
        namespaces
    }
}

impl Namespaces {
    /// Adds or replaces a namespace.
    fn put(&mut self, index: Index, mut namespace: Namespace) {
        let Namespace { capabilities, node_pool_configuration, vault_configuration, .. } = &mut namespace;
        [capabilities, node_pool_configuration, vault_configuration].into_iter().for_each(settle_nil);
        let Namespace { consul_configuration, required_extra_claims, optional_extra_claims, .. } = &mut namespace;
        [consul_configuration, required_extra_claims, optional_extra_claims].into_iter().for_each(settle_nil);
        self.table.put(index, namespace.name.as_str().into(), Arc::new(namespace));
    }

    /// Makes every index above `most` that one, and the table's own too.
    pub(super) fn lower_indexes(&mut self, most: Index) {
        self.table.lower(most, |namespace| {
            let (create_index, modify_index) = (namespace.create_index.min(most.0), namespace.modify_index.min(most.0));
            let is_low = (create_index, modify_index) == (namespace.create_index, namespace.modify_index);
            (!is_low).then(|| Namespace { create_index, modify_index, ..namespace.clone() })
        });
    }

    fn upsert(&mut self, at: At, asked: &[Namespace]) -> Applied {
        for one in asked {
            let mut namespace = one.clone();
            namespace.create_index = self.table.row(&one.name).map_or(at.index.0, |known| known.create_index);
            namespace.modify_index = at.index.0;
            namespace.hash = hashes::of_namespace(&namespace);
            self.put(at.index, namespace);
        }
        if asked.is_empty() { Applied::default() } else { changed() }
    }
}

/// The namespaces in a snapshot. `default` is there before any row is read, for those of older builds.
pub(super) const SECTION: Section = Section {
    tag: tag::NAMESPACES,
    index: State::namespaces_index,
    rows: |state| Box::new(state.namespaces.table.rows().map(|namespace| namespace.to_bytes())),
    restore_row: |state, d| {
        let disorder = d.error("namespaces are out of order");
        let namespace = Namespace::decode(d)?;
        if state.namespaces_from(&namespace.name).any(|later| later.name != DEFAULT) {
            return Err(disorder);
        }
        state.namespaces.put(Index(namespace.modify_index), namespace);
        Ok(())
    },
    restore_index: |state, index| state.namespaces.table.touch(index),
};

fn changed() -> Applied {
    Applied { touched: vec![WatchKey::namespaces()].into(), ..Applied::default() }
}

impl State {
    /// Applies a command about namespaces.
    pub(super) fn apply_to_namespaces(&mut self, at: At, command: &Command) -> Applied {
        match command {
            Command::NamespaceUpsert { namespaces } => self.namespaces.upsert(at, namespaces),
            Command::NamespaceDelete { names } => self.delete_namespaces(at, names),
            _ => Applied::default(),
        }
    }

    /// All of the namespaces, or none.
    fn delete_namespaces(&mut self, at: At, names: &[String]) -> Applied {
        let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
        for name in &names {
            let why = if *name == DEFAULT {
                "can not delete default namespace".to_owned()
            } else if self.namespace(name).is_none() {
                "namespace not found".to_owned()
            } else if self.has_vars_in(name) {
                format!("namespace {name:?} has variables associated with it")
            } else {
                continue;
            };
            return Applied { result: ApplyResult::Refused(why), ..Applied::default() };
        }
        for name in &names {
            self.namespaces.table.remove(at.index, name);
        }
        if names.is_empty() { Applied::default() } else { changed() }
    }

    /// The namespace of this name.
    pub fn namespace(&self, name: &str) -> Option<&Arc<Namespace>> {
        self.namespaces.table.row(name)
    }

    /// Namespaces in the order of their names, from the first at or after `from`.
    pub fn namespaces_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Namespace>> + use<'a> {
        self.namespaces.table.rows_from(from)
    }

    /// The index of the last change of the namespaces; 1 at the start.
    pub fn namespaces_index(&self) -> Index {
        self.namespaces.table.index()
    }
}
