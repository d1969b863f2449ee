//! The endpoints: pure functions from a request and a root of the state to an outcome. They never wait and never
//! write; what they need done, the outcome asks for.

mod access;
pub mod acl;
mod acl_policies;
mod acl_roles;
mod acl_token_write;
mod acl_tokens;
pub mod agent;
mod answer;
pub mod audit;
pub mod auth;
mod autopilot;
pub mod event;
mod filter;
mod filter_parse;
mod heartbeat;
pub mod http;
pub mod identity;
pub mod keyring;
mod methods;
mod namespace;
pub mod node;
mod node_admin;
mod node_client;
mod operator;
pub mod outcome;
mod page;
mod registration;
pub mod repeat;
pub mod seal;
mod search;
pub mod secrets;
pub mod session;
pub mod snapshot;
pub mod status;
mod stream_error;
#[cfg(test)]
mod tests;
pub mod to_node;
mod var;
mod var_check;
mod var_lock;
mod var_write;
mod version;

pub use self::session::session_key;
pub use self::stream_error::stream_error;
pub use self::var::lacks_a_key;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::WallTime;
use crate::state::{ApplyResult, State};
use crate::wire::body::operator::ConnectionsResponse;
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::session::WriteStamp;

use self::answer::{body, settle};
use self::outcome::{Finish, Outcome, Reply, Resolved};

/// How a method is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Answered by whoever was asked, without a region or a leader (Status.Ping, Region.List).
    Local,
    /// As a read, with the server's own region when none is named (Status.Leader, Status.Peers).
    LocalRegion,
    /// By the leader, or by any server when AllowStale is set.
    Read,
    /// By the leader.
    Write,
    /// By any server of the region, as a stale read always is (calls toward a node).
    AnyServer,
}

/// Where a handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// On the event loop: microseconds, whatever the state holds.
    Light,
    /// On the handler pool: it may read much.
    Heavy,
}

/// A method that can be called.
#[derive(Debug)]
pub struct Method {
    /// `Service.Method`.
    pub name: &'static str,
    /// How it is served.
    pub access: Access,
    /// Where it runs.
    pub weight: Weight,
    /// Whether its success starts or renews a heartbeat, so that [`Ctx::heartbeat_ttl`] is drawn for it.
    pub heartbeat: bool,
    /// What runs.
    pub run: fn(&Request<'_>, &State, &Ctx) -> Outcome,
}

impl Method {
    /// Whether it is a write that is one entry, so that a place in a session makes it happen once. The others change
    /// the cluster rather than the state, or are about sessions, or take more than an entry.
    pub fn takes_stamp(&self) -> bool {
        const OTHERS: [&str; 4] = ["Keyring.Rotate", "Operator.Raft", "Operator.Transfer", "Session."];
        self.access == Access::Write && !OTHERS.iter().any(|prefix| self.name.starts_with(prefix))
    }

    /// How it is served by a server with or without ACLs: without, what needs them is refused by whoever was asked.
    pub fn served(&self, acl_enabled: bool) -> Access {
        let refused = !acl_enabled
            && self.name.starts_with("ACL.")
            && !matches!(self.name, "ACL.WhoAmI" | "ACL.GetClaimPolicies");
        if refused { Access::Local } else { self.access }
    }
}

/// A streaming method.
#[derive(Debug)]
pub struct StreamingMethod {
    /// `Service.Method`.
    pub name: &'static str,
    /// What runs once the argument is there.
    pub run: fn(&Request<'_>, &State, &Ctx) -> outcome::StreamOutcome,
}

/// Why a name is no method; the text is net/rpc's own (R1.47).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownMethod(pub String);

/// Finds a method.
///
/// # Errors
/// `rpc: can't find service X`, `rpc: can't find method X` or `rpc: service/method request ill-formed: X`, with the
/// whole name as X.
pub fn method(name: &str) -> Result<&'static Method, UnknownMethod> {
    methods::find(name)
}

/// Finds a streaming method.
///
/// # Errors
/// `Unknown rpc method: "X"`.
pub fn streaming_method(name: &str) -> Result<&'static StreamingMethod, UnknownMethod> {
    methods::find_streaming(name)
}

/// Runs a method on the body of a request. See [`Request`] for what the arguments mean.
pub fn run_call(
    method: &Method,
    body: &[u8],
    base: u64,
    caller: &Caller,
    last_run: bool,
    state: &State,
    ctx: &Ctx,
) -> Outcome {
    (method.run)(&Request { method: method.name, body, base, caller, last_run }, state, ctx)
}

/// Runs a streaming method on its argument.
pub fn run_streaming(
    method: &StreamingMethod,
    body: &[u8],
    base: u64,
    caller: &Caller,
    state: &State,
    ctx: &Ctx,
) -> outcome::StreamOutcome {
    (method.run)(&Request { method: method.name, body, base, caller, last_run: true }, state, ctx)
}

/// Goes on with a write once its proposal was applied, to make the reply. `state` holds the write.
pub fn finish(finish: &Finish, resolved: &Resolved, state: &State, ctx: &Ctx) -> Outcome {
    let index = resolved.index;
    if let ApplyResult::Refused(text) = &resolved.result {
        return settle(Err(match finish {
            Finish::NamespaceDelete => namespace::refused(text, ctx).into(),
            _ => text.as_str().into(),
        }));
    }
    settle(match finish {
        Finish::Nothing => Ok(Outcome::Reply(Reply::default())),
        Finish::NodeRegister { node_id, direct, sign } => {
            registration::finish(node_id, *direct, *sign, index, state, ctx)
        }
        Finish::NodeUpdateStatus { node_id, direct, sign } => {
            heartbeat::finish(node_id, *direct, *sign, index, state, ctx)
        }
        Finish::NodeDeregister { node_ids } => node_admin::finish_deregister(node_ids, index),
        Finish::NodeUpdateDrain { node_id } => node_admin::finish_drain(node_id, index, &resolved.result),
        Finish::NodeUpdateEligibility => node_admin::finish_eligibility(index),
        Finish::WriteMeta | Finish::NamespaceDelete => {
            Ok(body(&GenericResponse { meta: WriteMeta { index: index.0 } }))
        }
        Finish::VarApply(of) => var_write::finish_apply(of, resolved, state, ctx),
        Finish::VarTxn(of) => var_write::finish_txn(of, resolved, ctx),
        Finish::LockRenew { namespace, path, lock_id } => var_lock::finish_renew(namespace, path, lock_id, state),
        Finish::AclTokens(accessor_ids) => acl_tokens::finish_upsert(accessor_ids, index, state),
        Finish::AclRoles(ids) => acl_roles::finish_upsert(ids, index, state),
        Finish::KeyringRotate { full } => keyring::finish_rotate(*full, index, state),
        Finish::KeyringDelete { key_id } => keyring::finish_delete(key_id, index),
        Finish::AutopilotSet => autopilot::finish_set(&resolved.result),
        Finish::SchedulerSet => autopilot::finish_set_scheduler(index, &resolved.result),
        Finish::SessionOpen { key, ttl } => session::finish_open(key, *ttl, index),
        Finish::SessionKept { id, ttl } => session::finish_keep_alive(*id, *ttl, index),
    })
}

/// A request, as a handler sees it.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The method's name.
    pub method: &'a str,
    /// The body: one msgpack value.
    pub body: &'a [u8],
    /// Where the body began on its stream, for positions in decode errors.
    pub base: u64,
    /// Who sent it.
    pub caller: &'a Caller,
    /// True when a parked query is run for the last time: it must answer, not park.
    pub last_run: bool,
}

/// What is known of the connection that a request came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The other end.
    pub peer: SocketAddr,
    /// Names in the verified client certificate (common name and DNS names), when there is one.
    pub tls_names: Option<Arc<[String]>>,
    /// The node whose SecretID was shown on this connection.
    pub proven_node: Option<Arc<str>>,
    /// A token shown on this connection that needs no other look until then: its mark, seconds since the Unix epoch.
    pub good_token: Option<(u64, i64)>,
}

/// How a server of the region is, as far as this one knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerStatus {
    /// It was heard a short while ago, or is this server.
    #[default]
    Alive,
    /// It was not heard for longer than the failure detector allows.
    Failed,
    /// It said that it stops, or was removed.
    Left,
}

/// A server of this region, as agents are told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEntry {
    /// Name without the region.
    pub name: String,
    /// The id, a UUID.
    pub id: String,
    /// `ip:port` that agents and servers dial.
    pub rpc_addr: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Whether it has a vote.
    pub voter: bool,
    /// Whether it is in raft's configuration, with a vote or without.
    pub is_member: bool,
    /// As raft names it.
    pub replica: u64,
    /// `ip:port` of its HTTP listener; empty when not known.
    pub http_addr: String,
    /// Its build; empty when not known.
    pub build: String,
    /// How it is.
    pub status: ServerStatus,
    /// How long ago it was heard; zero for this server, `None` when never.
    pub last_heard: Option<Duration>,
    /// A silence up to this says nothing: it is heard no more often.
    pub patience: Duration,
    /// The last entry of its log, as it said last.
    pub last_index: u64,
    /// Its term, as it said last.
    pub last_term: u64,
    /// The last entry that is known to be on its disk; known to the leader only, 0 elsewhere.
    pub matched: u64,
    /// Since when it is as healthy as it is now, as the leader saw it.
    pub stable_since: Option<WallTime>,
}

/// What handlers know beside the state. Read-only, the same for every request of a turn but for the last fields.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// What does not change while the server runs.
    pub server: Arc<ServerFacts>,
    /// Who leads, `ip:port`; empty when unknown.
    pub leader_rpc_addr: Arc<str>,
    /// Whether this server leads and is ready for consistent reads.
    pub is_leader: bool,
    /// Raft's last term, index and applied index, for Status.RaftStats.
    pub raft: RaftFacts,
    /// All servers of this region, this one included.
    pub servers: Arc<[ServerEntry]>,
    /// Time since the leader was heard; zero on the leader, [`Duration::MAX`] when never.
    pub last_contact: Duration,
    /// Whether a leader is known.
    pub known_leader: bool,
    /// The calendar, read once for this request.
    pub wall: WallTime,
    /// What to tell an agent as its HeartbeatTTL, drawn for this request.
    pub heartbeat_ttl: Duration,
    /// Chance for ids made in this request.
    pub seed: u64,
    /// The place of the write at hand in its session: its ids are made from it, so that they come out the same again.
    pub stamp: Option<Arc<WriteStamp>>,
    /// The id of the cluster, which is told to servers alone; empty until it is founded.
    pub cluster_id: Arc<str>,
    /// Signs node identities, once there is a key.
    pub signer: Option<Arc<identity::Signer>>,
    /// Seals and opens the items of variables, once there is a key.
    pub sealer: Option<Arc<seal::Sealer>>,
    /// The number in `acl-bootstrap-reset` of the data folder, when that file is there.
    pub acl_bootstrap_reset: Option<u64>,
    /// Callers that wait for the lock of the variable at hand: set by the server for Holdfast.LockRead.
    pub lock_waiters: u64,
    /// Figures for Holdfast.AgentSelf, JSON: set by the server for that method.
    pub stats_json: Option<Arc<str>>,
    /// Which connections lead to a node: set by the server for Status.HasNodeConn, when the node has one.
    /// Seconds and nanoseconds since the Unix epoch of the newest.
    pub node_conn_established: Option<WallTime>,
    /// Who is connected: set by the server for Holdfast.Connections.
    pub connections: Option<Arc<ConnectionsResponse>>,
}

/// What a raft replica says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftFacts {
    /// The last term.
    pub last_term: u64,
    /// The last index in the log.
    pub last_index: u64,
    /// Since when this server knows who leads.
    pub stable_since: Option<WallTime>,
    /// The last index that is applied here, and so known to be committed.
    pub applied: u64,
    /// Members with a vote.
    pub voters: u64,
    /// Members without one.
    pub learners: u64,
}

/// What does not change while a server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// Name without the region.
    pub name: String,
    /// A UUID.
    pub id: String,
    /// The region.
    pub region: String,
    /// The datacenter.
    pub datacenter: String,
    /// All known regions, sorted.
    pub regions: Vec<String>,
    /// What this server is reached at, `ip:port`.
    pub rpc_addr: String,
    /// Servers that the cluster was started with.
    pub bootstrap_expect: u64,
    /// Whether certificates' names are to be checked (TLS and `tls.verify_server_hostname`).
    pub verify_tls_names: bool,
    /// Whether callers need a token.
    pub acl_enabled: bool,
    /// Names and values of one variable together, bytes.
    pub variables_max_bytes: usize,
    /// The shortest TTL of a lock.
    pub locks_min_ttl: Duration,
    /// For secrets that are made here.
    pub entropy: secrets::Entropy,
    /// The configuration in force, without secrets, as JSON; for Holdfast.AgentSelf.
    pub config_json: Arc<str>,
}
