//! Builds the daemon: settings, threads and the loop; runs it, and takes it down in order.

use std::net::SocketAddr;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use log::{error, info, warn};
use mio::Poll;
use ring::digest::{SHA256, digest};

use crate::base::id::ReplicaId;
use crate::base::time::Clock;
use crate::config::Config;
use crate::conn;
use crate::consensus::raft::RaftReplica;
use crate::consensus::{Notice, Proposal, Recovered};
use crate::mux::session;
use crate::server::Server;
use crate::server::port::{ClusterFile, Listener, Settings};
use crate::state::State;

use super::audit::Audit;
use super::backup_folder::BackupFolder;
use super::bootstrap_reset::BootstrapReset;
use super::clock::SystemClock;
use super::cluster_file;
use super::config_json::config_json;
use super::consensus_lane::ConsensusLane;
use super::consensus_thread::{self, ConsensusCommand, ConsensusParts};
use super::data_dir::DataDir;
use super::doors;
use super::event_loop::{BELL_TOKEN, Channels, EventLoop, Hands, Parts};
use super::facts::DiskSpace;
use super::file_worker::FileWorker;
use super::files::DataFolder;
use super::handler_pool::{self, HandlerPool};
use super::inbox::{Bell, Post};
use super::keyring::Keyring;
use super::logging::{self, Logs, Style};
use super::members::Members;
use super::proposals::Proposals;
use super::reload::{ConfigSource, Reloaded, Reloader};
use super::signals::Signals;
use super::snapshot_in::SnapshotKeeper;
use super::systemd::{self, Notifier};
use super::{certificates, entropy};

/// Stopped as asked.
pub const STOPPED: u8 = 0;
/// Bad configuration or usage.
pub const BAD_CONFIGURATION: u8 = 1;
/// Could not start.
pub const NO_START: u8 = 2;
/// Lost what it needs to go on.
pub const LOST: u8 = 3;

/// Batches of proposals that may wait for the consensus thread.
const COMMANDS_MAX: usize = 1024;
/// Batches of notices that may wait for the loop; the consensus thread waits when there are more.
const NOTICES_MAX: usize = 1024;
/// At the end: for the last lines of the log.
const LAST_LINES_WAIT: Duration = Duration::from_secs(1);
/// At the end: for the consensus thread to settle what it has and to close its log. A disk that hangs is left alone.
const LAST_ENTRIES_WAIT: Duration = Duration::from_secs(10);

/// Incomplete requests of all streams of a connection together.
const PARTIAL_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Replies that a connection's peer has not read.
const UNSENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const HTTP_HEAD_BYTES_MAX: usize = 16 * 1024;
const HTTP_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(60);
const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a server until it is asked to stop. Gives the exit status.
pub fn run(source: &ConfigSource, signals: Signals) -> u8 {
    let loaded = match source.read_all() {
        Ok(loaded) => loaded,
        Err(errors) => {
            report(&errors);
            return BAD_CONFIGURATION;
        }
    };
    let filter = logging::filter_of(loaded.config.log_filter.as_deref());
    let logs = match Logs::start(&filter, Style::detect(), std::io::stderr()) {
        Ok(logs) => logs,
        Err(error) => {
            report(&[format!("the log could not be started: {error}")]);
            return NO_START;
        }
    };
    logs.install();
    // A panic is a line of the log like any other, and never waits for whoever reads standard error.
    panic::set_hook(Box::new(|panic| error!("panic: {}", panic.to_string().replace('\n', " "))));
    let status = match serve(source, loaded, signals, logs.clone()) {
        Ok(status) => status,
        Err(why) => {
            error!("could not start: {why}");
            NO_START
        }
    };
    logs.flush(LAST_LINES_WAIT);
    status
}

/// Tells the operator before there is a log.
#[allow(clippy::print_stderr)]
fn report(lines: &[String]) {
    for line in lines {
        eprintln!("holdfastd: {line}");
    }
}

/// The consensus thread, from outside.
struct Consensus {
    commands: Sender<ConsensusCommand>,
    /// Until the loop takes it.
    lane: Option<ConsensusLane>,
    replica: ReplicaId,
    notices: Receiver<Vec<Notice>>,
    thread: thread::JoinHandle<()>,
    root: Arc<ArcSwap<State>>,
    /// Kept until the log is closed.
    _lock: super::data_dir::DataDirLock,
}

fn serve(source: &ConfigSource, loaded: Reloaded, signals: Signals, logs: Logs) -> Result<u8, String> {
    let config = &loaded.config;
    let clock = SystemClock::start();
    let system = |error: std::io::Error| error.to_string();
    let folder = match &config.data_dir {
        Some(path) => DataFolder::open(path)?,
        None => DataFolder::temporary()?,
    };
    let server_id = folder.server_id()?;
    let remembered = cluster_file::read(folder.path())?;
    let seed = entropy::seed()?;
    let poll = Poll::new().map_err(system)?;
    let bell = Arc::new(Bell::new(poll.registry(), BELL_TOKEN).map_err(system)?);
    let (post, told) = Post::new(bell.clone());
    let listeners = open_listeners(config)?;
    let mut consensus = start_consensus(config, &folder, &server_id, seed, clock, &bell)?;
    let threads = handler_pool::thread_count(config.handler_threads);
    let pool = HandlerPool::start(threads, handler_pool::QUEUED_JOBS_MAX, &consensus.root, &post).map_err(system)?;
    let settings = settings(config, &loaded, server_id, seed, &listeners)?;
    let settings = Settings { replica: consensus.replica, cluster: remembered, ..settings };
    if config.bootstrap_expect > 1 && config.bootstrap_expect.is_multiple_of(2) {
        warn!("an even number of servers survives no more failures than one server fewer");
    }
    let (rpc, http) = (address_of(&listeners, Listener::Rpc)?, address_of(&listeners, Listener::Http)?);
    info!(
        "starting: name={} region={} datacenter={} id={} engine=raft bootstrap_expect={} version={}",
        settings.name,
        settings.region,
        settings.datacenter,
        settings.server_id,
        settings.bootstrap_expect,
        settings.version
    );
    info!("listening: rpc={rpc} http={http}");
    let machine = Server::new(settings, consensus.root.clone(), clock.now(), clock.wall());
    let mut expiry = certificates::Expiry::default();
    expiry.watch(&loaded.tls.ends);
    let channels = Channels { told, notices: consensus.notices.clone(), log_lines: logs.connect_tap(&bell) };
    let hands = Hands {
        pool,
        proposals: Proposals::new(hand_over(consensus.commands.clone(), clock)),
        consensus: consensus.lane.take().ok_or("the consensus thread has no lane")?,
        files: Some(FileWorker::start(folder.path(), &post).map_err(system)?),
        snapshot_keeper: Some(SnapshotKeeper::start(folder.path(), &post).map_err(system)?),
        disk: Some(DiskSpace::new(folder.path(), config.min_free_bytes)),
        logs: Some(logs),
        audit: config.audit_file.as_deref().map(Audit::start).transpose()?,
        backups: Some(BackupFolder::new(config, folder.path())),
        notifier: Notifier::from_environment(),
        keyring: Some(Keyring::new(folder.path())),
        reloader: Some(Reloader::new(source.clone(), loaded.clone())),
        expiry,
        bootstrap_reset: config.acl_enabled.then(|| BootstrapReset::new(folder.path())),
        post,
    };
    let parts = Parts { machine, poll, bell, clock, listeners, signals: Some(signals), channels, hands };
    let status = run_loop(EventLoop::new(parts).map_err(system)?).map_err(system)?;
    end_consensus(consensus, status);
    info!("stopped: status={status}");
    Ok(status)
}

/// Runs the loop on a thread that carries its name, and stops the handlers after it.
fn run_loop(event_loop: EventLoop<Server>) -> std::io::Result<u8> {
    let thread = thread::Builder::new().name("event-loop".to_owned()).spawn(|| event_loop.run())?;
    match thread.join() {
        Ok(Ok((status, hands))) => {
            if !hands.pool.stop() {
                warn!("a handler still runs: it ends with the process");
            }
            if let Some(audit) = hands.audit {
                audit.finish();
            }
            Ok(status)
        }
        Ok(Err(error)) => {
            error!("the event loop ended: error=\"{error}\"");
            Ok(LOST)
        }
        // The panic's own line is in the log.
        Err(_) => Ok(LOST),
    }
}

/// Opens the data folder, begins the replica with what it holds, and starts the consensus thread.
fn start_consensus(
    config: &Config,
    folder: &DataFolder,
    server_id: &str,
    seed: u64,
    clock: SystemClock,
    bell: &Arc<Bell>,
) -> Result<Consensus, String> {
    let dir = DataDir::open(folder.path())?;
    for warning in &dir.warnings {
        warn!("{warning}");
    }
    let id = replica_of_disk(server_id, &dir.recovered)?;
    // Several found their group once they know each other: the server machine says when.
    let bootstrap = (config.bootstrap_expect == 1).then(|| vec![id]);
    let replica = RaftReplica::new(id, seed, consensus_limits(config), dir.recovered, bootstrap, clock.now())?;
    let root = Arc::new(ArcSwap::new(replica.root().clone()));
    let (commands, receiver) = crossbeam_channel::bounded(COMMANDS_MAX);
    let (sender, notices) = crossbeam_channel::bounded(NOTICES_MAX);
    let (lane, inputs) = ConsensusLane::new();
    let (snapshots, ring) = (dir.snapshots, bell.clone());
    let parts = ConsensusParts {
        replica: Box::new(replica),
        log: Box::new(dir.log),
        write_snapshot: Arc::new(move |meta, state| snapshots.write(meta, state)),
        commands: receiver,
        inputs,
        root: root.clone(),
        notices: sender,
        wake: Box::new(move || ring.ring()),
        clock: Box::new(clock),
    };
    let thread = consensus_thread::spawn(parts).map_err(|error| format!("the consensus thread: {error}"))?;
    Ok(Consensus { commands, lane: Some(lane), replica: id, notices, thread, root, _lock: dir.lock })
}

/// The number of the replica whose disk this is. A lone server that was founded as number 1 stays that.
pub(super) fn replica_of_disk(server_id: &str, recovered: &Recovered) -> Result<ReplicaId, String> {
    let id = replica_id(server_id);
    let members = Members::of(recovered)?;
    let is_first = members.voters.contains(&ReplicaId(1)) && !members.voters.contains(&id);
    Ok(if is_first { ReplicaId(1) } else { id })
}

/// A replica's number follows from the server's id, so that it is the same after a restart. Never 0.
pub(super) fn replica_id(server_id: &str) -> ReplicaId {
    let hash = digest(&SHA256, server_id.as_bytes());
    let number = hash.as_ref().iter().take(8).fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    ReplicaId(number.max(1))
}

fn consensus_limits(config: &Config) -> crate::consensus::Limits {
    crate::consensus::Limits {
        max_entry_bytes: 16 * 1024 * 1024,
        warn_entry_bytes: 1024 * 1024,
        snapshot_entries: 10_000,
        snapshot_bytes: 64 * 1024 * 1024,
        tick: config.election_timeout / 20,
        election_ticks: 20,
        heartbeat_ticks: 4,
        stalled_sync: config.stalled_sync,
        max_waiting_proposals: 65_536,
    }
}

/// Proposals go to the consensus thread without waiting; a full channel gives them back.
fn hand_over(commands: Sender<ConsensusCommand>, clock: SystemClock) -> super::proposals::HandOver {
    Box::new(move |proposals: Vec<Proposal>| {
        match commands.try_send(ConsensusCommand::Propose(clock.now(), proposals)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => match command {
                ConsensusCommand::Propose(_, proposals) => Err(proposals),
                ConsensusCommand::Stop => Ok(()),
            },
        }
    })
}

/// Has the log closed in order. One that failed is left alone: nothing is synced after a failed sync.
fn end_consensus(consensus: Consensus, status: u8) {
    if status == LOST {
        std::mem::forget(consensus);
        return;
    }
    let Consensus { commands, notices, thread, .. } = consensus;
    let deadline = std::time::Instant::now() + LAST_ENTRIES_WAIT;
    let mut stop = Some(ConsensusCommand::Stop);
    // It may be waiting for room to say something, so it is listened to until it has hung up.
    loop {
        if let Some(command) = stop.take()
            && let Err(TrySendError::Full(command)) = commands.try_send(command)
        {
            stop = Some(command);
        }
        match notices.recv_timeout(Duration::from_millis(50)) {
            Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) if std::time::Instant::now() < deadline => {}
            Ok(_) | Err(RecvTimeoutError::Timeout) => {
                warn!("the log was not closed in time; what it holds is on disk");
                return;
            }
        }
    }
    let _ = thread.join();
}

/// The sockets that the service manager has opened, or those that the configuration names.
fn open_listeners(config: &Config) -> Result<Vec<(Listener, std::net::TcpListener)>, String> {
    let mut listeners = systemd::inherited_listeners()?;
    for (listener, address, key) in
        [(Listener::Rpc, config.listen_rpc, "listen.rpc"), (Listener::Http, config.listen_http, "listen.http")]
    {
        if listeners.iter().all(|(held, _)| *held != listener) {
            let socket = doors::listen(address).map_err(|error| format!("{key} = \"{address}\": {error}"))?;
            listeners.push((listener, socket));
        }
    }
    Ok(listeners)
}

fn address_of(listeners: &[(Listener, std::net::TcpListener)], wanted: Listener) -> Result<SocketAddr, String> {
    let (_, socket) = listeners
        .iter()
        .find(|(listener, _)| *listener == wanted)
        .ok_or_else(|| format!("no socket for {wanted:?}"))?;
    systemd::address_of(socket).map_err(|error| error.to_string())
}

fn settings(
    config: &Config,
    loaded: &Reloaded,
    server_id: String,
    seed: u64,
    listeners: &[(Listener, std::net::TcpListener)],
) -> Result<Settings, String> {
    let advertised = |given: &Option<String>, listener| match given {
        Some(address) => Ok(address.clone()),
        None => address_of(listeners, listener).map(|address| address.to_string()),
    };
    let (rpc, http) =
        (advertised(&config.advertise_rpc, Listener::Rpc)?, advertised(&config.advertise_http, Listener::Http)?);
    Ok(Settings {
        name: config.name.clone(),
        server_id,
        region: config.region.clone(),
        datacenter: config.datacenter.clone(),
        bootstrap_expect: config.bootstrap_expect,
        join: config.join.clone(),
        regions: config.regions.clone(),
        replica: ReplicaId(0),
        cluster: ClusterFile::default(),
        dial_tls: loaded.tls.dial.clone(),
        dead_server_after: config.dead_server_after,
        election_timeout: config.election_timeout,
        min_free_bytes: config.min_free_bytes,
        digest_entries: config.digest_entries,
        pool_idle_timeout: config.pool_idle_timeout,
        conn: conn_limits(config),
        rpc_security: loaded.tls.rpc.clone(),
        http_security: loaded.tls.http.clone(),
        verify_tls_names: config.tls.rpc && config.tls.verify_server_hostname,
        rpc_max_conns_per_client: config.rpc_max_conns_per_client,
        http_max_conns_per_client: config.http_max_conns_per_client,
        proxy_protocol_from: config.proxy_protocol_from.clone(),
        hold_timeout: config.hold_timeout,
        max_query_time: config.max_query_time,
        default_query_time: config.default_query_time,
        drain_timeout: config.drain_timeout,
        heartbeat_min_ttl: config.heartbeat_min_ttl,
        heartbeat_grace: config.heartbeat_grace,
        heartbeat_max_per_second: config.heartbeat_max_per_second,
        heartbeat_failover_ttl: config.heartbeat_failover_ttl,
        events_buffer_bytes: config.events_buffer_bytes,
        prometheus: config.prometheus,
        seed,
        entropy: crate::api::secrets::Entropy(entropy::bytes()?),
        acl_enabled: config.acl_enabled,
        variables_max_bytes: config.variables_max_size_bytes,
        locks_min_ttl: config.locks_min_ttl,
        audit: config.audit_file.is_some(),
        backup_every: config.backup_every,
        backup_keep: config.backup_keep,
        config_json: config_json(config, &rpc, &http, config.acl_enabled).into(),
        advertise_rpc: rpc,
        advertise_http: http,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

fn conn_limits(config: &Config) -> conn::Limits {
    conn::Limits {
        handshake_timeout: config.handshake_timeout,
        max_message_bytes: config.max_message_bytes,
        max_partial_bytes: PARTIAL_BYTES_MAX.max(config.max_message_bytes),
        max_unsent_bytes: UNSENT_BYTES_MAX,
        idle_streams: 64,
        max_raft_unsent_bytes: 8 * 1024 * 1024,
        mux: session::Limits::default(),
        http_max_head_bytes: HTTP_HEAD_BYTES_MAX,
        http_max_body_bytes: HTTP_BODY_BYTES_MAX,
        http_head_timeout: HTTP_HEAD_TIMEOUT,
        http_body_timeout: HTTP_BODY_TIMEOUT,
        http_idle_timeout: HTTP_IDLE_TIMEOUT,
        http_uploads: &[("PUT", "/v1/operator/snapshot"), ("POST", "/v1/operator/snapshot")],
    }
}

/// The name of this machine, for servers that are given none.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    // Up to the first dot: the rest is the domain.
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("holdfast").to_owned()
}

/// What `--version` prints.
pub fn version_text() -> String {
    format!(
        "holdfastd {}\ncommit: {}\nrustc: {}\ntls: rustls with ring, 1.2 and 1.3\nengines: raft\nprotocols: net/rpc over msgpack, \
         yamux 0, streaming; HTTP/1.1\nentry format: {}\nsnapshot format: {}\ndata directory format: {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("HOLDFAST_COMMIT").unwrap_or("unknown"),
        option_env!("HOLDFAST_RUSTC").unwrap_or("unknown"),
        crate::wire::entry::ENTRY_VERSION,
        crate::state::snapshot::SNAPSHOT_VERSION,
        super::format::DATA_FORMAT,
    )
}
