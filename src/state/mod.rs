//! What is replicated: an immutable root over persistent maps, and the one function that changes it.
//!
//! Knows no clock: all time comes from the entries. The same entries give the same state, and the same bytes in a
//! snapshot, on every server.

pub mod events;
pub mod keyring;
pub mod node;
pub mod snapshot;
pub mod table;
pub mod watch;

use std::sync::Arc;

use crate::base::id::{Index, Term};
use crate::wire::entry::Entry;

use self::events::Event;
use self::keyring::SigningKey;
use self::node::Node;
use self::watch::WatchKey;

/// The root of the state. A clone is a snapshot, at no cost.
#[derive(Clone, Default)]
pub struct State {
    // state helper: imbl maps
}

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// For whoever proposed it.
    pub result: ApplyResult,
    /// What changed, for parked queries.
    pub touched: Vec<WatchKey>,
    /// What happened, for event streams. All of one entry carry its index.
    pub events: Vec<Event>,
}

/// What the state answers to the proposer of an entry. A refusal used up an index and changed nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ApplyResult {
    /// Done, at the entry's index.
    #[default]
    Done,
    /// A drain was set on a node that has nothing to move: its completion is to be proposed.
    DrainStarted,
    /// Refused, with the text that the caller sees (`node not found`).
    Refused(String),
}

impl std::fmt::Debug for State {
    /// Says how far it is; never what it holds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "State(index {})", self.index())
    }
}

impl State {
    /// The state before any entry.
    pub fn new() -> State {
        State::default()
    }

    /// Applies one entry. Indexes rise by one from entry to entry.
    ///
    /// Never fails: an entry that cannot be applied is refused in its result, alike on every replica.
    pub fn apply(&mut self, index: Index, term: Term, entry: &Entry) -> Applied {
        let _ = (index, term, entry);
        todo!("state helper")
    }

    /// The index of the last entry applied.
    pub fn index(&self) -> Index {
        todo!("state helper")
    }

    /// The time of the last entry applied, nanoseconds since the Unix epoch.
    pub fn time_unix_nanos(&self) -> i64 {
        todo!("state helper")
    }

    /// The node with this id.
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        let _ = id;
        todo!("state helper")
    }

    /// The node whose SecretID this is. Found by a keyed hash, so the time taken tells nothing of other secrets.
    pub fn node_by_secret(&self, secret_id: &str) -> Option<&Arc<Node>> {
        let _ = secret_id;
        todo!("state helper")
    }

    /// Nodes in the order of their ids, from the first id at or after `from`.
    pub fn nodes_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Node>> + 'a {
        let _ = from;
        [].into_iter()
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        todo!("state helper")
    }

    /// The index of the last change of the nodes table; 0 when it was never written.
    pub fn nodes_index(&self) -> Index {
        todo!("state helper")
    }

    /// The index of the last change of the allocations table: none is ever written, so 0.
    pub fn allocs_index(&self) -> Index {
        todo!("state helper")
    }

    /// The public signing keys, newest last.
    pub fn signing_keys(&self) -> &[Arc<SigningKey>] {
        todo!("state helper")
    }

    /// The index of the last change of the signing keys; 0 when there is none.
    pub fn signing_keys_index(&self) -> Index {
        todo!("state helper")
    }
}
