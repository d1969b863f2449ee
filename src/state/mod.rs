//! What is replicated: an immutable root over persistent maps, and the one function that changes it.
//!
//! Knows no clock: all time comes from the entries. The same entries give the same state, and the same bytes in a
//! snapshot, on every server.

pub mod acl;
pub mod answers;
pub mod events;
mod fences;
pub mod keyring;
mod locks;
mod namespaces;
pub mod node;
mod nodes;
mod operator;
mod registration;
mod secret;
mod sections;
mod servers;
mod session_rows;
pub mod sessions;
pub mod snapshot;
pub mod table;
pub mod table_digests;
pub mod var;
mod var_rows;
mod var_writes;
mod vars;
pub mod watch;

use std::sync::Arc;

use ring::digest;

use crate::base::id::{Index, Term};
use crate::wire::entry::{Command, Entry};

use self::acl::tokens::AclTables;
use self::answers::Answered;
use self::events::Event;
use self::keyring::{SigningKey, SigningKeys};
use self::namespaces::Namespaces;
use self::node::Node;
use self::nodes::{At, DrainUpdate, Nodes, StatusUpdate};
use self::operator::Operator;
use self::servers::Servers;
use self::sessions::{Place, Sessions};
use self::var::VarOutcome;
use self::vars::Vars;
use self::watch::Touched;

/// The root of the state. A clone is a snapshot, at no cost.
#[derive(Clone, Default)]
pub struct State {
    index: Index,
    time_unix_nanos: i64,
    nodes: Nodes,
    signing_keys: SigningKeys,
    vars: Vars,
    acl: AclTables,
    namespaces: Namespaces,
    operator: Operator,
    servers: Servers,
    sessions: Sessions,
}

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// For whoever proposed it.
    pub result: ApplyResult,
    /// What changed, for parked queries.
    pub touched: Touched,
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
    /// One for each write of a [`Command::VarApply`].
    Vars(Vec<VarOutcome>),
    /// A check-and-set of a configuration found another one.
    NoMatch,
    /// The write was applied before, at another index; now nothing was (R2.24).
    Repeated(Arc<Answered>),
    /// The write has no place in its session, and why: nothing was applied.
    OutOfPlace(String),
}

impl ApplyResult {
    /// Whether nothing changed.
    pub fn is_refusal(&self) -> bool {
        match self {
            ApplyResult::Done | ApplyResult::DrainStarted => false,
            ApplyResult::Refused(_) | ApplyResult::NoMatch | ApplyResult::OutOfPlace(_) => true,
            ApplyResult::Vars(outcomes) => !outcomes.iter().all(|outcome| matches!(outcome, VarOutcome::Ok(_))),
            ApplyResult::Repeated(answered) => answered.result.is_refusal(),
        }
    }
}

impl PartialEq for State {
    /// The same bytes in a snapshot. Reads both whole.
    fn eq(&self, other: &State) -> bool {
        self.index == other.index && self.digest() == other.digest()
    }
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
    /// Never fails: an entry that cannot be applied is refused in its result, alike on every replica. The term
    /// changes nothing in the state.
    pub fn apply(&mut self, index: Index, _term: Term, entry: &Entry) -> Applied {
        debug_assert!(index > self.index, "entry {index} came after {}", self.index);
        self.index = self.index.max(index);
        // The leader never stamps an entry before the one in front of it; if one did, time would stand still.
        self.time_unix_nanos = self.time_unix_nanos.max(entry.time_unix_nanos);
        let at = At { index: self.index, time_unix_nanos: self.time_unix_nanos };
        let Some(stamp) = &entry.session else { return self.apply_command(at, &entry.command) };
        let result = match self.sessions.admit(at, stamp, entry.command.tag()) {
            Place::Free => {
                let applied = self.apply_command(at, &entry.command);
                self.sessions.keep(at, stamp, &entry.command, &applied.result);
                return applied;
            }
            Place::Answered(answered) => ApplyResult::Repeated(answered),
            Place::Refused(why) => ApplyResult::OutOfPlace(why),
        };
        Applied { result, ..Applied::default() }
    }

    fn apply_command(&mut self, at: At, command: &Command) -> Applied {
        match command {
            Command::Noop => Applied::default(),
            Command::SigningKeyAdd { key_id, public_key, create_time } => {
                let (key_id, public_key) = (key_id.clone(), public_key.clone());
                let key = SigningKey { key_id, public_key, create_time: *create_time, ..SigningKey::default() };
                self.signing_keys.add(at.index, key)
            }
            Command::RootKeyAdd(key) => self.signing_keys.add(
                at.index,
                SigningKey {
                    key_id: key.key_id.clone(),
                    public_key: key.public_key.0.clone(),
                    create_time: key.create_time,
                    rekey: key.rekey,
                    ..SigningKey::default()
                },
            ),
            command @ (Command::VarApply(_)
            | Command::LockRenew(_)
            | Command::LocksExpire { .. }
            | Command::LocksGrace { .. }
            | Command::LockBreak { .. }
            | Command::VarReseal { .. }) => self.apply_to_vars(at, command),
            command @ (Command::AclBootstrap { .. }
            | Command::AclUpsertTokens { .. }
            | Command::AclDeleteTokens { .. }
            | Command::AclExpireTokens { .. }
            | Command::AclUpsertPolicies { .. }
            | Command::AclDeletePolicies { .. }
            | Command::AclUpsertRoles { .. }
            | Command::AclDeleteRoles { .. }) => self.apply_to_acl(at, command),
            command @ (Command::NamespaceUpsert { .. } | Command::NamespaceDelete { .. }) => {
                self.apply_to_namespaces(at, command)
            }
            command @ (Command::RootKeyDelete { .. }
            | Command::AutopilotSet { .. }
            | Command::SchedulerSet { .. }
            | Command::RestoreBegin(_)
            | Command::RestoreChunk(_)
            | Command::RestoreEnd(_)) => self.apply_to_operator(at, command),
            command @ (Command::ServerUpsert(_) | Command::ServerRemove { .. } | Command::DigestMark) => {
                self.apply_to_servers(at, command)
            }
            command @ (Command::SessionOpen(_)
            | Command::SessionKeepAlive { .. }
            | Command::SessionClose { .. }
            | Command::SessionsExpire { .. }) => self.apply_to_sessions(at, command),
            command => self.apply_to_nodes(at, command),
        }
    }

    fn apply_to_nodes(&mut self, at: At, command: &Command) -> Applied {
        let nodes = &mut self.nodes;
        match command {
            Command::NodeRegister { node } => nodes.register(at, &node.0),
            Command::NodeUpdateStatus {
                node_id,
                status,
                event,
                updated_at,
                identity_signing_key_id,
                expected_modify_index,
            } => {
                let update = StatusUpdate {
                    status,
                    event: event.as_ref(),
                    updated_at: *updated_at,
                    identity_signing_key_id,
                    expected_modify_index: *expected_modify_index,
                };
                nodes.update_status(at, node_id, &update)
            }
            Command::NodeDeregister { node_ids } => nodes.deregister(at, node_ids),
            Command::NodeUpdateDrain { node_id, strategy, mark_eligible, meta, accessor_id } => {
                let update =
                    DrainUpdate { strategy: strategy.as_ref(), mark_eligible: *mark_eligible, meta, accessor_id };
                nodes.update_drain(at, node_id, &update)
            }
            Command::NodeDrainComplete { node_id } => nodes.drain_complete(at, node_id),
            Command::NodeUpdateEligibility { node_id, eligibility } => {
                nodes.update_eligibility(at, node_id, eligibility)
            }
            Command::NodeEmitEvents { events } => nodes.emit_events(at, events),
            _ => Applied::default(),
        }
    }

    /// The index of the last entry applied.
    pub fn index(&self) -> Index {
        self.index
    }

    /// The time of the last entry applied, nanoseconds since the Unix epoch.
    pub fn time_unix_nanos(&self) -> i64 {
        self.time_unix_nanos
    }

    /// The node with this id.
    pub fn node(&self, id: &str) -> Option<&Arc<Node>> {
        self.nodes.table().row(id)
    }

    /// The node whose SecretID this is. Found by a hash, so the time taken tells nothing of other secrets. When
    /// several nodes share it, the one with the first id.
    pub fn node_by_secret(&self, secret_id: &str) -> Option<&Arc<Node>> {
        self.nodes.by_secret(secret_id)
    }

    /// Nodes in the order of their ids, from the first id at or after `from`.
    pub fn nodes_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<Node>> + use<'a> {
        self.nodes.table().rows_from(from)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.table().len()
    }

    /// The index of the last change of the nodes table; 0 when it was never written.
    pub fn nodes_index(&self) -> Index {
        self.nodes.table().index()
    }

    /// The index of the last change of the allocations table: none is ever written, so 0.
    pub fn allocs_index(&self) -> Index {
        Index(0)
    }

    /// The public signing keys, newest last.
    pub fn signing_keys(&self) -> &[Arc<SigningKey>] {
        self.signing_keys.all()
    }

    /// The index of the last change of the signing keys; 0 when there is none.
    pub fn signing_keys_index(&self) -> Index {
        self.signing_keys.index()
    }

    /// SHA-256 over the bytes of a snapshot: two replicas with the same are the same. Reads the whole state.
    pub fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        for chunk in snapshot::write(self) {
            context.update(&chunk);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
