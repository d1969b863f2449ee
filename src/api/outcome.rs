//! What a handler asks for: an answer, a wait, a write, a call to a node, or a stream.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::Index;
use crate::state::ApplyResult;
use crate::state::acl::rules::{Acl, VarCapability};
use crate::state::watch::WatchKey;
use crate::wire::body::session::SessionKey;
use crate::wire::entry::Command;
use crate::wire::entry::var::VarOpKind;

/// What a handler wants done with its request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Answer.
    Reply(Reply),
    /// Nothing newer than what the caller has seen: wait for one of these, then run again.
    Park(Park),
    /// Write, then go on with [`super::finish`].
    Propose {
        /// What to write.
        command: Command,
        /// How to go on.
        finish: Finish,
    },
    /// Pass the request on to a node over the connection it dialled; its answer is the answer.
    ToNode(ToNode),
    /// Wait for one's turn at a lock, then run again from the start; at the end of the wait run for the last time.
    Queue(Queue),
    /// Have a new key made and put on disk, then go on with [`super::finish`] and its id in
    /// [`super::Resolved::result`]'s place: the server proposes [`Command::SigningKeyAdd`] for it.
    MakeKey {
        /// How to go on.
        finish: Finish,
    },
    /// Change who the cluster's servers are or who leads them, through raft's own configuration.
    Cluster {
        /// What to change.
        change: ClusterChange,
        /// The answer once it was done.
        reply: Box<Reply>,
    },
}

/// A change of the cluster that is no write to the state. Ids are those of servers, UUIDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A member is to be none any more.
    RemovePeer {
        /// Which.
        id: String,
    },
    /// Another voter is to lead.
    TransferLeadership {
        /// Which; `None`: whoever is best off.
        to: Option<String>,
    },
}

/// A wait for one's turn at a variable's lock (R8.28). Turns are taken in the order of arrival at this server: the
/// first in line runs when the lock is free, the others go on waiting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The variable's namespace.
    pub namespace: Arc<str>,
    /// Its path.
    pub path: Arc<str>,
    /// How long the caller will wait, from when it was first seen.
    pub wait: Duration,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reply {
    /// The body, one msgpack value, or the text of an error.
    pub result: ReplyResult,
    /// What is to happen beside it, in order, before the answer is sent.
    pub effects: Vec<Effect>,
}

/// A body, or the text of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyResult {
    /// The body, shared so that equal parked queries can be answered with one.
    Body(Arc<[u8]>),
    /// The error of the method; the stream stays usable.
    Error(String),
    /// The arguments could not be read: the error is sent, then the stream is closed (transport notes, 4.2).
    BadArguments(String),
}

impl Default for ReplyResult {
    fn default() -> Self {
        ReplyResult::Body(Arc::from(crate::wire::rpc::EMPTY_BODY))
    }
}

/// What the server does beside an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The caller showed this node's SecretID (only when the request was not forwarded).
    ProveNode(Arc<str>),
    /// The token of this mark needs no other look on this connection until then, seconds since the Unix epoch.
    TokenIsGoodUntil(u64, i64),
    /// This connection leads to the node (only when the request was not forwarded).
    BindNode(Arc<str>),
    /// The node was heard: its timer is set to the TTL it was told ([`super::Ctx::heartbeat_ttl`]) plus grace.
    ResetHeartbeat(Arc<str>),
    /// The node is gone: its timer is dropped.
    ClearHeartbeat(Arc<str>),
    /// A write that follows from this one and that nobody waits for.
    Propose(Command),
    /// Read the configuration again, as SIGHUP does.
    Reload,
    /// Put all variables under the newest key, in the background.
    Reseal,
    /// This key was deleted: its file is laid aside.
    ForgetKey(String),
}

/// A wait for a change.
#[derive(Clone, Debug, PartialEq)]
pub struct Park {
    /// Wake on any of these.
    pub keys: Vec<WatchKey>,
    /// How long the caller will wait; zero or less for the default. Not clamped, no jitter.
    pub max_query_time: Duration,
    /// What is to happen at once, when the caller is seen for the first time.
    pub effects: Vec<Effect>,
}

/// How to go on after a write. Holds what the reply needs of the request, not the request.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// Nobody waits for it.
    Nothing,
    /// Node.Register.
    NodeRegister {
        /// The node.
        node_id: Arc<str>,
        /// Whether the request came straight from the agent.
        direct: bool,
        /// Whether an identity is to be signed.
        sign: bool,
    },
    /// Node.UpdateStatus.
    NodeUpdateStatus {
        /// The node.
        node_id: Arc<str>,
        /// Whether the request came straight from the agent.
        direct: bool,
        /// Whether an identity is to be signed.
        sign: bool,
    },
    /// Node.Deregister and Node.BatchDeregister.
    NodeDeregister {
        /// The nodes.
        node_ids: Vec<Arc<str>>,
    },
    /// Node.UpdateDrain.
    NodeUpdateDrain {
        /// The node.
        node_id: Arc<str>,
    },
    /// Node.UpdateEligibility.
    NodeUpdateEligibility,
    /// A reply that holds the index only (WriteMeta).
    WriteMeta,
    /// Variables.Apply: what the reply repeats of the request.
    VarApply(Box<VarFinish>),
    /// Variables.RenewLock.
    LockRenew {
        /// The variable's namespace.
        namespace: Arc<str>,
        /// Its path.
        path: Arc<str>,
        /// The lock's id, which the caller showed.
        lock_id: Hidden,
    },
    /// Holdfast.VariablesTxn.
    VarTxn(Box<[VarFinish]>),
    /// ACL.Bootstrap and ACL.UpsertTokens: accessors of what was written.
    AclTokens(Vec<String>),
    /// ACL.UpsertRoles: ids of what was written.
    AclRoles(Vec<String>),
    /// Namespace.DeleteNamespaces.
    NamespaceDelete,
    /// Keyring.Rotate: whether everything is to be put under the new key.
    KeyringRotate {
        /// See there.
        full: bool,
    },
    /// Keyring.Delete.
    KeyringDelete {
        /// Which key.
        key_id: String,
    },
    /// Operator.AutopilotSetConfiguration: a bare boolean.
    AutopilotSet,
    /// Operator.SchedulerSetConfiguration.
    SchedulerSet,
    /// Session.Open.
    SessionOpen {
        /// What its owner is to show.
        key: SessionKey,
        /// Nanoseconds.
        ttl: i64,
    },
    /// Session.KeepAlive.
    SessionKept {
        /// Which.
        id: u64,
        /// Nanoseconds.
        ttl: i64,
    },
}

/// A secret that is carried along and never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// What the reply to a write of a variable needs of its request.
#[derive(Clone, PartialEq)]
pub struct VarFinish {
    /// What was asked for.
    pub kind: VarOpKind,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The path.
    pub path: Arc<str>,
    /// The variable of the request as the reply repeats it (`Input`), one msgpack map.
    pub input: Arc<[u8]>,
    /// The items as they were given, one msgpack map; empty for none.
    pub items: Arc<[u8]>,
    /// Whether those of a variable that is there are kept instead.
    pub keep_items: bool,
    /// Whether the caller may read the variable.
    pub may_read: bool,
    /// Whether the caller may see locks' ids.
    pub management: bool,
    /// The lock id that the caller showed or was given.
    pub lock_id: String,
    /// The fence that was demanded; 0 for none.
    pub fence: u64,
    /// Longer than zero: a lock-acquire waits for its turn rather than be refused.
    pub wait: Duration,
}

impl fmt::Debug for VarFinish {
    /// Never shows items or a lock's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VarFinish({} {:?} {:?})", self.kind.as_word(), self.namespace, self.path)
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The index of its entry.
    pub index: Index,
    /// What the state answered.
    pub result: ApplyResult,
}

/// A call for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToNode {
    /// Which node.
    pub node_id: Arc<str>,
    /// The method's name on the node.
    pub method: String,
    /// The body to send.
    pub body: Arc<[u8]>,
    /// The error when no server has a connection to the node (`No path to node`, coded where the method says so).
    pub no_path: String,
}

/// What a streaming handler wants.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamOutcome {
    /// Send one message with an error and close. The bytes are the whole message.
    Refuse(Vec<u8>),
    /// Event.Stream.
    Events(EventFilter),
    /// Agent.Monitor of this server.
    Monitor(MonitorOptions),
    /// Send these bytes as they are, then close (Operator.SnapshotSave: a message, then the archive).
    Send(Vec<Arc<[u8]>>),
    /// Take an archive in frames, then restore it (Operator.SnapshotRestore).
    Restore,
    /// Bridge to a node: open a streaming stream there with this method, send the argument, then pass bytes both ways.
    ToNode(ToNode),
}

/// Which events a subscriber wants.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Topic and keys; `*` stands for any of either.
    pub topics: Vec<(String, Vec<String>)>,
    /// The namespace, or `*`.
    pub namespace: String,
    /// Begin at this index; 0 with the oldest still held, below 0 with the next to come.
    pub index: i64,
    /// The token that the subscription was allowed by; it is looked at again when tokens or policies change.
    pub auth_token: String,
    /// Which variables the subscriber may list; `None`: all of them.
    pub variables: Option<VariableRights>,
}

impl fmt::Debug for EventFilter {
    /// Never shows the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventFilter({:?} in {:?} from {}, {:?})", self.topics, self.namespace, self.index, self.variables)
    }
}

/// Rights on variables, as they were when somebody subscribed.
#[derive(Clone)]
pub struct VariableRights(Acl);

impl VariableRights {
    pub(super) fn of(acl: Acl) -> VariableRights {
        VariableRights(acl)
    }

    pub(super) fn may_list(&self, namespace: &str, path: &str) -> bool {
        self.0.allows_variable(namespace, path, VarCapability::List)
    }
}

impl PartialEq for VariableRights {
    /// The same policies with the same rules.
    fn eq(&self, other: &VariableRights) -> bool {
        self.0.management == other.0.management && self.0.policies == other.0.policies
    }
}

impl Eq for VariableRights {}

impl fmt::Debug for VariableRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VariableRights({} policies)", self.0.policies.len())
    }
}

impl EventFilter {
    /// Whether an event is wanted.
    pub fn matches(&self, event: &crate::state::events::Event) -> bool {
        super::event::wanted(self, event)
    }
}

/// How log lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonitorOptions {
    /// The least severe level that is sent.
    pub level: log::Level,
    /// Lines as JSON objects.
    pub json: bool,
    /// Lines as they are, not in frames.
    pub plain: bool,
    /// With file and line.
    pub location: bool,
}
