//! All that the outside can tell a server, and all that a server can ask of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api::http::View;
use crate::api::identity::Signer;
use crate::api::outcome::{Finish, Outcome, ReplyResult, Resolved, StreamOutcome};
use crate::api::seal::Sealer;
use crate::api::secrets::Entropy;
use crate::api::{Caller, Ctx, Method, StreamingMethod};
use crate::base::id::{CallId, ConnId, ReplicaId};
use crate::base::network::Network;
use crate::conn::Security;
use crate::conn::tls::TlsClient;
use crate::consensus::{Notice, Proposal};
use crate::state::State;
use crate::wire::http::HttpReply;
use crate::wire::raft::KeyFile;

pub use super::cluster_port::ClusterOutput;

use super::backups::{BackupReport, BackupWish};
use super::keyring::Batch;
use super::restore::Unpacked;

/// Which port a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Listener {
    /// First-byte dispatch.
    Rpc,
    /// HTTP.
    Http,
}

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection was accepted; it has this id from now on.
    Accepted {
        /// Chosen by the edge.
        conn: ConnId,
        /// Where.
        listener: Listener,
        /// The other end, an IPv4-mapped address already turned into IPv4.
        peer: SocketAddr,
    },
    /// Bytes arrived.
    Received {
        /// Where.
        conn: ConnId,
        /// Which; used up in the call.
        bytes: &'a [u8],
    },
    /// The peer sends no more.
    Eof {
        /// Where.
        conn: ConnId,
    },
    /// The socket failed, and is closed already.
    Failed {
        /// Which.
        conn: ConnId,
        /// The system's text.
        error: String,
    },
    /// The connection of [`ClusterOutput::Dial`] is there, and nothing was said on it.
    Dialled {
        /// Of the wish.
        ticket: u64,
        /// Its id from now on.
        conn: ConnId,
        /// The other end.
        peer: SocketAddr,
    },
    /// It could not be made: the name has no address, nobody listens there, or it took too long. No byte was sent.
    DialFailed {
        /// Of the wish.
        ticket: u64,
        /// The system's text, as Go has it (`dial tcp HOST:PORT: connect: connection refused`).
        error: String,
    },
    /// What [`ClusterOutput::KeepCluster`] asked for is on disk.
    ClusterKept,
    /// A chunk of the snapshot of [`ClusterOutput::ReadSnapshot`].
    SnapshotChunk {
        /// Of which.
        ticket: u64,
        /// Counted from 0.
        number: u32,
        /// The chunk.
        bytes: Vec<u8>,
        /// Nothing follows.
        last: bool,
    },
    /// All chunks of [`ClusterOutput::KeepChunk`] are there and make a whole snapshot; or they do not.
    SnapshotWhole {
        /// Of which.
        ticket: u64,
        /// What it holds; or what is wrong with it.
        result: Result<Arc<State>, String>,
    },
    /// Keys' files that [`ClusterOutput::ReadKeys`] asked for; those that are not there are left out.
    KeyFiles(Vec<(String, KeyFile)>),
    /// What became of [`ClusterOutput::KeepKey`].
    KeyKept {
        /// Which.
        key_id: String,
        /// A sentence that names the file, when it failed.
        error: Option<String>,
    },
    /// What became of [`Output::Backup`].
    BackedUp(BackupReport),
    /// A job has run.
    Ran {
        /// Which.
        job: CallId,
        /// What its handler wants.
        outcome: JobOutcome,
    },
    /// The consensus thread tells; what it published can be seen already.
    Notices(Vec<Notice>),
    /// A proposal could not be handed to the consensus thread in time (R1.81).
    NotEnqueued {
        /// Which.
        id: CallId,
    },
    /// The keys of this server are on disk and ready; both use the one that was asked for or made last.
    Keys {
        /// Signs identities.
        signer: Arc<Signer>,
        /// Seals and opens the items of variables.
        sealer: Arc<Sealer>,
    },
    /// A fresh key could not be put on disk.
    NoKey {
        /// A sentence that names the file.
        error: String,
    },
    /// A line of the log, for monitors; only while [`Output::Monitor`] asked for its level.
    LogLine(Arc<LogLine>),
    /// New settings that can change while running (SIGHUP).
    Reload(Box<Reload>),
    /// SIGTERM or SIGINT: drain and stop; the second one ends at once.
    Stop,
    /// SIGUSR1: dump the metrics to the log.
    DumpMetrics,
    /// A deadline may be due.
    Timeout,
    /// Facts that only the edge can read, each 10 s: memory, descriptors, certificates' ends.
    Process(ProcessFacts),
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When: the calendar, nanoseconds since the Unix epoch.
    pub unix_nanos: i64,
    /// How severe.
    pub level: Level,
    /// From where.
    pub target: String,
    /// The message.
    pub text: String,
    /// File and line.
    pub location: Option<String>,
}

/// Settings that SIGHUP reads anew.
#[derive(Debug)]
pub struct Reload {
    /// RPC listener.
    pub rpc_security: Security,
    /// HTTP listener.
    pub http_security: Security,
    /// Whether keys, certificates or the CA changed, so that connections made under the old ones end (R1.13).
    pub tls_changed: bool,
    /// Connections an address may have; 0 for no limit.
    pub rpc_max_conns_per_client: usize,
    /// The same for HTTP.
    pub http_max_conns_per_client: usize,
    /// Sources whose connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<Network>,
    /// How servers are dialled: with TLS when it is set.
    pub dial_tls: Option<TlsClient>,
    /// Time between two backups; zero: none are taken.
    pub backup_every: Duration,
    /// Good backups that are kept.
    pub backup_keep: usize,
}

/// What the edge reads of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// For each certificate and CA: its file and when it ends, seconds since the Unix epoch.
    pub certificates: Vec<(String, i64)>,
    /// Jobs waiting for the handler pool.
    pub handler_queue: usize,
    /// Log lines lost because nobody read them.
    pub log_lines_lost: u64,
    /// Audit lines lost because they could not be written.
    pub audit_lines_lost: u64,
    /// The number in `acl-bootstrap-reset` of the data folder, when that file is there.
    pub acl_bootstrap_reset: Option<u64>,
    /// Bytes free on the data folder's disk for this process; `None` when it cannot be told.
    pub disk_free_bytes: Option<u64>,
}

/// What a handler is to run.
#[derive(Clone, Debug)]
pub struct Job {
    /// Names it in [`Input::Ran`].
    pub id: CallId,
    /// What it is.
    pub work: Work,
    /// Who sent the request.
    pub caller: Arc<Caller>,
    /// What it may know.
    pub ctx: Arc<Ctx>,
}

/// The kinds of jobs.
#[derive(Clone, Debug)]
pub enum Work {
    /// A call.
    Call {
        /// What to run.
        method: &'static Method,
        /// The request's body.
        body: Arc<[u8]>,
        /// Where it began on its stream.
        base: u64,
        /// A parked query's last run: it answers.
        last_run: bool,
    },
    /// The argument of a streaming call.
    Streaming {
        /// What to run.
        method: &'static StreamingMethod,
        /// The argument.
        body: Arc<[u8]>,
        /// Where it began on its stream.
        base: u64,
    },
    /// The end of a write.
    Finish {
        /// How to go on.
        finish: Finish,
        /// What became of it.
        resolved: Resolved,
    },
    /// Turns the large answer of a call into that of an HTTP request, and packs it.
    Show {
        /// How.
        view: View,
        /// The call's answer.
        result: ReplyResult,
    },
    /// Variables that are not under the newest key: opens and seals some.
    Reseal {
        /// So many are looked at.
        most: usize,
    },
    /// Takes a digest of each table of a state.
    Digest {
        /// The entry whose state it is.
        index: u64,
        /// That state.
        state: Arc<State>,
    },
    /// Unpacks a snapshot and looks whether all of it is whole.
    Restore {
        /// The archive.
        archive: Arc<Vec<u8>>,
    },
}

/// What a handler wants.
#[derive(Clone, Debug, PartialEq)]
pub enum JobOutcome {
    /// Of [`Work::Show`].
    Shown(HttpReply),
    /// Of a call or the end of a write.
    Call(Outcome),
    /// Of a streaming call.
    Streaming(StreamOutcome),
    /// Of [`Work::Reseal`].
    Resealed(Batch),
    /// Of [`Work::Digest`].
    Digested {
        /// The entry.
        index: u64,
        /// The tables' digests.
        digest: Vec<u8>,
    },
    /// Of [`Work::Restore`]; or why not, as the caller is told.
    Unpacked(Result<Arc<Unpacked>, String>),
    /// The handler panicked: a fault of ours. The text is for the log; the caller sees `internal error`.
    Panicked(String),
    /// The queue of the handler pool is full: nothing was run.
    Overloaded,
}

/// What the outside is to do.
#[derive(Debug)]
pub enum Output {
    /// Something waits in [`super::Server::to_send`] of this connection.
    Flush(ConnId),
    /// Close it, once what waits was written (`linger`) or at once.
    Close {
        /// Which.
        conn: ConnId,
        /// Write what waits first.
        linger: bool,
        /// End with an RST: nothing was ever read from it.
        abort: bool,
    },
    /// Stop or go on reading from it.
    Read {
        /// Which.
        conn: ConnId,
        /// Whether to read.
        on: bool,
    },
    /// Run this on the handler pool; answer with [`Input::Ran`]. (Light work was run inside already.)
    Run(Job),
    /// Hand these to the consensus thread; at most 30 s.
    Propose(Vec<Proposal>),
    /// About other servers, and what a server keeps for them.
    Cluster(ClusterOutput),
    /// Load the keys on disk, and make one when there is none or a new one is wanted; answer with [`Input::Keys`].
    MakeSigningKey {
        /// The one to sign and seal with, rather than the first found.
        key_id: Option<String>,
        /// Make a new one in any case.
        fresh: bool,
    },
    /// A key was deleted: lay its file aside, so that nothing is sealed or opened with it at the next start.
    ForgetKey {
        /// Which.
        key_id: String,
    },
    /// Write a line to the audit log.
    Audit(String),
    /// Look through the folder of backups, or take one; answer with [`Input::BackedUp`].
    Backup(BackupWish),
    /// Read the configuration again, as for SIGHUP.
    Reload,
    /// Write a line to the log.
    Log {
        /// How severe.
        level: Level,
        /// `holdfast::server` and its like.
        target: &'static str,
        /// The line.
        text: String,
    },
    /// Send log lines of this level and above as [`Input::LogLine`]; `None`: none.
    Monitor(Option<Level>),
    /// Stop accepting on both listeners.
    StopAccepting,
    /// Tell the init system (`STATUS=`), when the text changed.
    Status(String),
    /// Requests can be served: `READY=1`. Comes once.
    Ready,
    /// Stop the threads and end. 0: as asked; 3: lost what it needs.
    Exit {
        /// The exit status.
        status: u8,
    },
}

/// What a server remembers of its cluster beside raft's log; a file of its own in the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFile {
    /// Which cluster it belongs to; empty while it belongs to none.
    pub cluster_id: String,
    /// The founders it has promised itself to, their ids sorted; empty while it has not.
    pub founders: Vec<String>,
    /// Servers by id that were reached before: where to look for them after a restart.
    pub known: Vec<(String, String)>,
}

/// The id of the cluster that these servers found: a UUID that follows from their ids, in whatever order they come.
pub fn cluster_id_of(founders: &[String]) -> String {
    let mut sorted: Vec<&str> = founders.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    let hash = ring::digest::digest(&ring::digest::SHA256, sorted.join("\n").as_bytes());
    let hex: Vec<String> = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..4], &hex[4..6], &hex[6..8], &hex[8..10], &hex[10..]];
    parts.map(<[String]>::concat).join("-")
}

/// Settings of a server, as plain values; the edge makes them from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name without the region.
    pub name: String,
    /// A UUID, kept in the data folder.
    pub server_id: String,
    /// The region.
    pub region: String,
    /// The datacenter.
    pub datacenter: String,
    /// `ip:port` that others reach the RPC port at.
    pub advertise_rpc: String,
    /// The same for HTTP.
    pub advertise_http: String,
    /// Servers that the cluster starts with.
    pub bootstrap_expect: u64,
    /// Addresses of other servers of the region.
    pub join: Vec<String>,
    /// Addresses of servers of other regions.
    pub regions: Vec<(String, Vec<String>)>,
    /// As raft names this server.
    pub replica: ReplicaId,
    /// What was remembered of the cluster.
    pub cluster: ClusterFile,
    /// How servers are dialled: with TLS when it is set.
    pub dial_tls: Option<TlsClient>,
    /// A server that was not heard for so long is removed, when the others can do without it; zero: never.
    pub dead_server_after: Duration,
    /// Without a word for so long, a leader is elected anew.
    pub election_timeout: Duration,
    /// Writes are refused while the disk has less room, bytes; 0: never (R8.17).
    pub min_free_bytes: u64,
    /// Entries between two digests of the state that servers compare; 0: never (R8.18).
    pub digest_entries: u64,
    /// Pooled connections to servers end after so long without a call.
    pub pool_idle_timeout: Duration,
    /// Connections, frames, messages.
    pub conn: crate::conn::Limits,
    /// RPC listener.
    pub rpc_security: Security,
    /// HTTP listener.
    pub http_security: Security,
    /// Whether certificates' names are checked for methods.
    pub verify_tls_names: bool,
    /// Connections an address may have; 0 for no limit.
    pub rpc_max_conns_per_client: usize,
    /// The same for HTTP.
    pub http_max_conns_per_client: usize,
    /// Sources whose connections, to both listeners, begin with a PROXY header (R8.12).
    pub proxy_protocol_from: Vec<Network>,
    /// How long a request waits for a leader.
    pub hold_timeout: Duration,
    /// A blocking query waits this long at most.
    pub max_query_time: Duration,
    /// And this long when it does not say.
    pub default_query_time: Duration,
    /// Between the wish to stop and the end.
    pub drain_timeout: Duration,
    /// Heartbeats: the least TTL.
    pub heartbeat_min_ttl: Duration,
    /// Heartbeats: added to the TTL before a node is down.
    pub heartbeat_grace: Duration,
    /// Heartbeats: of all nodes together.
    pub heartbeat_max_per_second: f64,
    /// Heartbeats: what each node gets from a new leader.
    pub heartbeat_failover_ttl: Duration,
    /// Bytes of events kept.
    pub events_buffer_bytes: usize,
    /// Whether metrics are served in Prometheus' form.
    pub prometheus: bool,
    /// Where all chance begins.
    pub seed: u64,
    /// For secrets that are made here.
    pub entropy: Entropy,
    /// Whether callers need a token.
    pub acl_enabled: bool,
    /// Names and values of one variable together, bytes.
    pub variables_max_bytes: usize,
    /// The shortest TTL of a lock.
    pub locks_min_ttl: Duration,
    /// Whether [`Output::Audit`] is wanted.
    pub audit: bool,
    /// Time between two backups; zero: none are taken.
    pub backup_every: Duration,
    /// Good backups that are kept.
    pub backup_keep: usize,
    /// The configuration in force, without secrets, as JSON.
    pub config_json: Arc<str>,
    /// What `--version` prints, for Status and metrics.
    pub version: String,
}
