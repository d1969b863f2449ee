//! Decides: takes an input, passes it to the machine it concerns, and says what the outside is to do.
//!
//! One value of [`Server`] holds all that the loop thread knows. It never blocks, reads no clock and touches no
//! socket: `handle_input`, then `poll_output` until `None`, then sleep until `poll_timeout`.
//!
//! One file over five hundred lines: the fields, and the one list of what comes in and where it goes.

pub mod admit;
mod answers;
mod audit;
pub mod backups;
mod calls;
mod cluster_port;
mod dials;
pub mod events;
mod forwarding;
pub mod heartbeat;
mod http;
mod http_stream;
#[cfg(test)]
mod http_tests;
pub mod keyring;
mod leader;
mod links;
pub mod lock_queue;
#[cfg(test)]
mod lock_tests;
pub mod locks;
mod monitor;
mod node_calls;
pub mod nodes;
#[cfg(test)]
mod operator_tests;
pub mod park;
mod parking;
mod peers;
pub mod port;
pub mod restore;
#[cfg(test)]
mod rig;
pub mod route;
pub mod run;
#[cfg(test)]
mod session_tests;
pub mod sessions;
mod sources;
mod stats;
mod writing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use log::Level;

use crate::api::{Ctx, RaftFacts, ServerEntry, ServerFacts};
use crate::base::id::{CallId, ConnId};
use crate::base::metric::{Id, Metrics};
use crate::base::rng::Rng;
use crate::base::slab::{Key, Slab};
use crate::base::time::{Instant, WallTime};
use crate::base::timers::Timers;
use crate::conn::report::Cause;
use crate::consensus::{self, Notice, Proposal};
use crate::forward::regions::Regions;
use crate::state::State;
use crate::state::watch::Touched;

use self::admit::{LogLimiter, Places};
use self::backups::Backups;
use self::calls::Call;
use self::dials::Dials;
use self::events::EventBuffer;
use self::forwarding::Forwarding;
use self::heartbeat::{Heartbeats, Times};
use self::http::HttpDesk;
use self::keyring::Keys;
use self::leader::Leader;
use self::links::{Closing, Link};
use self::lock_queue::LockQueue;
use self::locks::Ends;
use self::nodes::NodeConns;
use self::park::Parked;
use self::parking::Fanout;
use self::peers::Peers;
use self::port::{ClusterOutput, Input, Output, ProcessFacts, Reload, Settings};
use self::restore::Restore;
use self::sessions::SessionEnds;
use self::sources::Source;
use self::sources::subscribers::Telling;
use self::writing::Internal;

/// Where ids of the server's own proposals begin; no key of a table reaches it.
const FIRST_INTERNAL: u64 = 1 << 62;

/// Everything that the loop thread knows.
pub struct Server {
    settings: Settings,
    conn_limits: Arc<crate::conn::Limits>,
    root: Arc<ArcSwap<State>>,
    ctx: Ctx,
    wall: WallTime,
    rng: Rng,
    metrics: Metrics,
    outputs: VecDeque<Output>,
    // Connections.
    links: Vec<Option<Box<Link>>>,
    open_links: usize,
    closing: BTreeMap<ConnId, Closing>,
    unsettled: Vec<ConnId>,
    conn_timers: Timers<ConnId>,
    rpc_places: Places,
    http_places: Places,
    log_limiter: LogLimiter,
    // Calls.
    calls: Slab<Call>,
    call_timers: Timers<CallId>,
    held: BTreeSet<CallId>,
    parked: Parked,
    woken: VecDeque<Key>,
    fanouts: VecDeque<Fanout>,
    group_jobs: BTreeMap<CallId, (Key, u64)>,
    next_group_job: u64,
    lock_queue: LockQueue,
    proposals: Vec<Proposal>,
    http: HttpDesk,
    internal: BTreeMap<CallId, Internal>,
    next_internal: u64,
    at_node: usize,
    /// Every entry up to this one has been told to the parked queries.
    notified_index: u64,
    // Streams.
    sources: Slab<Source>,
    source_timers: Timers<Key>,
    telling: Telling,
    stream_jobs: BTreeMap<CallId, Key>,
    events: EventBuffer,
    monitor_level: Option<Level>,
    // The fleet.
    leader: Leader,
    nodes: NodeConns,
    heartbeats: Heartbeats,
    expiries: usize,
    ends: Ends,
    session_ends: SessionEnds,
    // What operators do.
    keys: Keys,
    restore: Option<Restore>,
    backups: Backups,
    // Other servers.
    dials: Dials,
    peers: Peers,
    forwarding: Forwarding,
    /// Inputs for the consensus thread that came of this input.
    to_consensus: Vec<consensus::Input>,
    // Itself.
    draining: Option<Instant>,
    ended: bool,
    said_ready: bool,
    said_status: String,
    /// Leadership is being handed over before the drain, until this time at most.
    handing_over: Option<Instant>,
    /// Free bytes on the disk of the data folder, while they are too few for writes.
    short_of_space: Option<u64>,
    /// The certificate that ends first, and when (seconds since the Unix epoch).
    certificate_ends: Option<(String, i64)>,
}

impl Server {
    /// A server whose state is published in `root`.
    pub fn new(settings: Settings, root: Arc<ArcSwap<State>>, now: Instant, wall: WallTime) -> Server {
        let facts = ServerFacts {
            name: settings.name.clone(),
            id: settings.server_id.clone(),
            region: settings.region.clone(),
            datacenter: settings.datacenter.clone(),
            regions: Regions::new(&settings.region, &settings.regions).names(),
            rpc_addr: settings.advertise_rpc.clone(),
            bootstrap_expect: settings.bootstrap_expect,
            verify_tls_names: settings.verify_tls_names,
            acl_enabled: settings.acl_enabled,
            variables_max_bytes: settings.variables_max_bytes,
            locks_min_ttl: settings.locks_min_ttl,
            entropy: settings.entropy.clone(),
            config_json: settings.config_json.clone(),
        };
        let itself = ServerEntry {
            name: facts.name.clone(),
            id: facts.id.clone(),
            rpc_addr: facts.rpc_addr.clone(),
            datacenter: facts.datacenter.clone(),
            voter: true,
            is_member: true,
            replica: settings.replica.0,
            http_addr: settings.advertise_http.clone(),
            build: settings.version.clone(),
            last_heard: Some(Duration::ZERO),
            ..ServerEntry::default()
        };
        let index = root.load().index().0;
        // What raft writes on its own account is no event: a fresh server has lost none.
        let events_index = events_index(&root.load());
        let ctx = Ctx {
            server: Arc::new(facts),
            leader_rpc_addr: "".into(),
            is_leader: false,
            raft: RaftFacts::default(),
            servers: Arc::new([itself]),
            last_contact: Duration::MAX,
            known_leader: false,
            wall,
            heartbeat_ttl: Duration::ZERO,
            seed: 0,
            stamp: None,
            cluster_id: "".into(),
            signer: None,
            sealer: None,
            acl_bootstrap_reset: None,
            lock_waiters: 0,
            stats_json: None,
            node_conn_established: None,
            connections: None,
        };
        let times = Times {
            min_ttl: settings.heartbeat_min_ttl,
            grace: settings.heartbeat_grace,
            max_per_second: settings.heartbeat_max_per_second,
            failover_ttl: settings.heartbeat_failover_ttl,
        };
        Server {
            conn_limits: Arc::new(settings.conn.clone()),
            root,
            ctx,
            wall,
            rng: Rng::from_seed(settings.seed),
            metrics: http::metrics(),
            outputs: VecDeque::new(),
            links: Vec::new(),
            open_links: 0,
            closing: BTreeMap::new(),
            unsettled: Vec::new(),
            conn_timers: Timers::default(),
            rpc_places: Places::new(settings.rpc_max_conns_per_client),
            http_places: Places::new(settings.http_max_conns_per_client),
            log_limiter: LogLimiter::default(),
            calls: Slab::default(),
            call_timers: Timers::default(),
            held: BTreeSet::new(),
            parked: Parked::default(),
            woken: VecDeque::new(),
            fanouts: VecDeque::new(),
            group_jobs: BTreeMap::new(),
            next_group_job: u64::MAX,
            lock_queue: LockQueue::default(),
            proposals: Vec::new(),
            http: HttpDesk::new(&settings.region),
            internal: BTreeMap::new(),
            next_internal: FIRST_INTERNAL,
            at_node: 0,
            notified_index: index,
            sources: Slab::default(),
            source_timers: Timers::default(),
            telling: Telling::default(),
            stream_jobs: BTreeMap::new(),
            events: EventBuffer::new(settings.events_buffer_bytes, events_index),
            monitor_level: None,
            leader: Leader::default(),
            nodes: NodeConns::default(),
            heartbeats: Heartbeats::new(times),
            expiries: 0,
            ends: Ends::default(),
            session_ends: SessionEnds::default(),
            keys: Keys::default(),
            restore: None,
            backups: Backups::new(settings.backup_every, settings.backup_keep),
            dials: Dials::default(),
            peers: Peers::new(&settings, now, wall),
            forwarding: Forwarding::new(&settings),
            to_consensus: Vec::new(),
            draining: None,
            handing_over: None,
            short_of_space: None,
            ended: false,
            said_ready: false,
            said_status: String::new(),
            certificate_ends: None,
            settings,
        }
    }

    /// Takes an input. Then poll outputs until there is none.
    pub fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input<'_>) {
        self.wall = wall;
        self.ctx.last_contact = self.leader.heard.map_or(Duration::MAX, |heard| now.since(heard));
        match input {
            Input::Accepted { conn, listener, peer } => self.on_accepted(now, conn, listener, peer),
            Input::Received { conn, bytes } => self.drive(now, conn, |now, c| c.handle_bytes(now, bytes)),
            Input::Eof { conn } => self.on_eof(now, conn),
            Input::Failed { conn, error } => self.on_failed(now, conn, &error),
            Input::Dialled { ticket, conn, peer } => self.on_dialled(now, ticket, conn, peer),
            Input::DialFailed { ticket, error } => self.on_dial_failed(now, ticket, &error),
            Input::ClusterKept => self.on_cluster_kept(now),
            Input::SnapshotChunk { ticket, number, bytes, last } => {
                self.on_snapshot_chunk(now, ticket, number, bytes, last);
            }
            Input::SnapshotWhole { ticket, result } => self.on_snapshot_whole(now, ticket, result),
            Input::KeyFiles(files) => self.on_key_files(now, files),
            Input::KeyKept { key_id, error } => self.on_key_kept(now, &key_id, error),
            Input::BackedUp(report) => self.on_backed_up(now, &report),
            Input::Ran { job, outcome } => self.on_ran(now, job, outcome),
            Input::Notices(notices) => self.on_notices(now, notices),
            Input::NotEnqueued { id } => self.on_not_enqueued(now, id),
            Input::Keys { signer, sealer } => self.on_keys(now, signer, sealer),
            Input::NoKey { error } => self.on_no_key(now, &error),
            Input::LogLine(line) => self.on_log_line(now, &line),
            Input::Reload(reload) => self.on_reload(now, *reload),
            Input::Stop => self.on_stop(now),
            Input::DumpMetrics => self.dump_metrics(),
            Input::Timeout => self.on_timeout(now),
            Input::Process(facts) => self.on_process(&facts),
        }
        self.settle_all(now);
        if !self.to_consensus.is_empty() {
            let inputs = std::mem::take(&mut self.to_consensus);
            self.output_for_cluster(ClusterOutput::Consensus(inputs));
        }
        if !self.proposals.is_empty() {
            let proposals = std::mem::take(&mut self.proposals);
            self.output(Output::Propose(proposals));
        }
        self.end_when_drained(now);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is wanted next; a time in the past means at once, after what else is waiting.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.woken.is_empty() || !self.fanouts.is_empty() || self.telling.goes_on() {
            return Some(Instant::ZERO);
        }
        let expiry = if self.expiries == 0 { self.heartbeats.next() } else { None };
        let times = [
            self.conn_timers.next(),
            self.call_timers.next(),
            self.source_timers.next(),
            expiry,
            self.keys.next(),
            self.ends.next(),
            self.session_ends.next(),
            self.peers.next(),
            self.forwarding.next(),
            self.backups.next(),
            self.draining,
            self.handing_over,
        ];
        times.into_iter().flatten().min()
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn output_for_cluster(&mut self, output: ClusterOutput) {
        self.outputs.push_back(output.into());
    }

    fn log(&mut self, level: Level, text: String) {
        self.output(Output::Log { level, target: "holdfast::server", text });
    }

    /// A line that a remote party can cause at will.
    fn log_limited(&mut self, now: Instant, cause: Cause, level: Level, mut text: String) {
        match self.log_limiter.admit(now, cause) {
            None => self.metrics.count(Id::LogSuppressed),
            Some(left_out) => {
                if left_out > 0 {
                    text.push_str(&format!(" left_out={left_out}"));
                }
                // The framer's own lines can be shown or hidden apart (R1.33).
                let framer = matches!(cause, Cause::MultiplexAccept | Cause::MultiplexV2Accept);
                let target = if framer { "holdfast::yamux" } else { "holdfast::server" };
                self.output(Output::Log { level, target, text });
            }
        }
    }

    /// Makes what handlers may know true for the request at hand.
    fn fresh_ctx(&mut self, heartbeat: bool) {
        self.ctx.wall = self.wall;
        self.ctx.seed = self.rng.next_u64();
        if heartbeat {
            self.ctx.heartbeat_ttl = self.heartbeats.draw_ttl(&mut self.rng);
        }
        if self.ctx.is_leader {
            self.ctx.last_contact = Duration::ZERO;
        }
        if *self.ctx.cluster_id != *self.peers.machine.cluster_id() {
            self.ctx.cluster_id = self.peers.machine.cluster_id().into();
        }
        let term = self.leader.known.term.0;
        let members = self.peers.members.as_ref();
        self.ctx.raft = RaftFacts {
            last_term: term,
            last_index: self.notified_index,
            stable_since: self.leader.since,
            applied: self.notified_index,
            voters: members.map_or(1, |members| members.voters.len().max(1)) as u64,
            learners: members.map_or(0, |members| members.learners.len()) as u64,
        };
    }

    fn on_failed(&mut self, now: Instant, conn: ConnId, error: &str) {
        self.with_conn(now, conn, |now, c| c.handle_failure(now, error));
        self.settle_all(now);
        self.on_closed(now, conn, false);
        // Nothing can be written to it any more.
        self.closing.remove(&conn);
    }

    /// The consensus thread tells. Whoever wrote is answered before anybody is woken by the write.
    fn on_notices(&mut self, now: Instant, notices: Vec<Notice>) {
        for notice in notices {
            match notice {
                Notice::Applied { index, touched, events } => {
                    self.on_touched(now, index, &touched);
                    if !events.is_empty() {
                        self.tell_subscribers();
                        let dropped = self.events.push(index.0, events);
                        self.metrics.add(Id::EventsDropped, dropped as u64);
                    }
                }
                Notice::Marked { index, state } => self.on_marked(index, state),
                Notice::Resolved { id, resolution } => self.on_resolved(now, id, resolution),
                Notice::Leadership(leadership) => {
                    self.on_leadership(now, leadership);
                    self.on_leader_news(now);
                }
                Notice::Send(message) => self.on_raft_send(now, *message),
                Notice::SendSnapshot { message, state } => self.on_send_snapshot(now, *message, state),
                Notice::Members(members) => self.on_members(now, members),
                Notice::Progress(progress) => self.on_progress(now, progress),
                Notice::Lease(until) => self.on_lease(now, until),
                Notice::ReadReady { id, ok } => self.on_read_ready(now, id, ok),
                Notice::Installed { index } => {
                    self.on_touched(now, index, &Touched { everything: true, ..Touched::default() });
                }
                Notice::DiskStalled { took } => {
                    self.log(Level::Error, format!("the log's disk stalled: took={took:?}"));
                }
                Notice::LargeEntry { kind, bytes } => {
                    let text = format!("attempting to apply large raft entry: raft_type={kind} bytes={bytes}");
                    self.log(Level::Warn, text);
                }
                Notice::Fatal(text) => {
                    self.log(Level::Error, format!("the log cannot be used any more: {text}"));
                    self.end(3);
                }
            }
        }
        self.look_at_ends(now);
        self.look_at_sessions_again(now);
    }

    fn on_timeout(&mut self, now: Instant) {
        while let Some((at, id)) = self.conn_timers.pop_due(now) {
            self.on_conn_due(now, id, at);
        }
        while let Some((_, id)) = self.call_timers.pop_due(now) {
            self.on_call_due(now, id);
        }
        while let Some((_, key)) = self.source_timers.pop_due(now) {
            self.on_source_due(now, key);
        }
        self.expire_heartbeats(now);
        self.on_ends_due(now);
        self.on_sessions_due(now);
        self.on_keys_due(now);
        self.on_peers_due(now);
        self.end_handing_over(now);
        self.on_forwarding_due(now);
        self.on_backups_due(now);
        self.step_wakes(now);
        self.step_fanouts(now);
        self.step_telling(now);
    }

    fn on_reload(&mut self, now: Instant, reload: Reload) {
        self.settings.rpc_security = reload.rpc_security;
        self.settings.http_security = reload.http_security;
        self.settings.dial_tls = reload.dial_tls;
        self.rpc_places.set_limit(reload.rpc_max_conns_per_client);
        self.http_places.set_limit(reload.http_max_conns_per_client);
        self.settings.proxy_protocol_from = reload.proxy_protocol_from;
        self.backups.set(now, reload.backup_every, reload.backup_keep);
        self.recheck_links(now, reload.tls_changed);
    }

    /// Takes no more, answers what waits, and ends; the second wish ends at once.
    fn on_stop(&mut self, now: Instant) {
        if self.is_leaving() {
            return self.end(0);
        }
        if self.hand_over() {
            // Whoever is served here is served by the next leader first.
            self.handing_over = Some(now + self.settings.election_timeout * 2);
            self.say_leaving(now);
            self.backups_lead(now);
            return;
        }
        self.begin_drain(now);
    }

    /// Whether this server is about to stop.
    fn is_leaving(&self) -> bool {
        self.draining.is_some() || self.handing_over.is_some()
    }

    /// Another server leads, or none does in time: the drain begins.
    fn end_handing_over(&mut self, now: Instant) {
        let Some(until) = self.handing_over else { return };
        let moved = !self.leader.known.is_self && self.leader.known.leader.is_some();
        if moved || now >= until {
            self.handing_over = None;
            self.begin_drain(now);
        }
    }

    fn begin_drain(&mut self, now: Instant) {
        self.log(Level::Info, "closing server RPC connection: draining".to_owned());
        self.draining = Some(now + self.settings.drain_timeout);
        self.backups_lead(now);
        self.output(Output::StopAccepting);
        // What is answered from now on says that its connection ends.
        self.drain_http(now);
        self.answer_all_parked(now);
        self.end_sources(now);
        self.say_leaving(now);
        // Raft's links go on to the end: what is answered until then may need them.
        for id in self.link_ids() {
            if !self.carries_raft(id) {
                self.with_conn(now, id, |now, c| c.drain(now));
            }
        }
    }

    fn end_when_drained(&mut self, now: Instant) {
        let Some(deadline) = self.draining else { return };
        if self.ended {
            return;
        }
        if self.other_links() == 0 && self.closing.is_empty() {
            self.end(0);
        } else if now >= deadline {
            let (open, calls) = (self.link_count(), self.calls.len());
            self.log(Level::Warn, format!("drain timeout: closing what is left: connections={open} calls={calls}"));
            self.end(0);
        }
    }

    fn end(&mut self, status: u8) {
        if !self.ended {
            self.ended = true;
            self.output(Output::Exit { status });
        }
    }

    fn on_process(&mut self, facts: &ProcessFacts) {
        self.metrics.set(Id::Resident, facts.resident_bytes as f64);
        self.metrics.set(Id::Descriptors, facts.descriptors as f64);
        self.metrics.set(Id::HandlerQueue, facts.handler_queue as f64);
        self.metrics.set(Id::LogLost, facts.log_lines_lost as f64);
        self.metrics.set(Id::AuditLost, facts.audit_lines_lost as f64);
        for (file, ends) in &facts.certificates {
            self.metrics.set_labelled(Id::CertificateExpiry, file, *ends as f64);
        }
        self.ctx.acl_bootstrap_reset = facts.acl_bootstrap_reset;
        self.note_space(facts.disk_free_bytes);
        let next = facts.certificates.iter().min_by_key(|(_, ends)| *ends);
        self.certificate_ends = next.cloned();
        self.say_status();
    }

    /// Makes the gauges true.
    fn refresh_gauges(&mut self) {
        self.count_links();
        let state = self.root.load_full();
        let leads = self.ctx.is_leader;
        for (id, value) in [
            (Id::Calls, self.calls.len()),
            (Id::Parked, self.parked.waiters()),
            (Id::ParkedGroups, self.parked.groups()),
            (Id::Held, self.held.len()),
            (Id::ForwardedInFlight, self.at_node + self.forwarded()),
            (Id::Subscribers, self.subscribers()),
            (Id::EventsBuffered, self.events.len()),
            (Id::EventsBufferedBytes, self.events.bytes()),
            (Id::HeartbeatActive, self.heartbeats.len()),
            (Id::Nodes, state.node_count()),
            (Id::Variables, state.var_count()),
            (Id::Locks, state.lock_count()),
            (Id::Sessions, state.session_count()),
            (Id::SessionAnswerBytes, state.session_answer_bytes()),
            (Id::LockWaiters, self.lock_queue.len()),
            (Id::NodeConns, self.nodes.len()),
            (Id::Leader, usize::from(leads)),
        ] {
            self.metrics.set(id, value as f64);
        }
        self.metrics.set(Id::RaftApplied, state.index().0 as f64);
        self.backup_gauges();
        self.metrics.set(Id::RaftTerm, self.leader.known.term.0 as f64);
    }

    /// The values of all metrics, gauges made true.
    pub fn metrics(&mut self) -> &Metrics {
        self.refresh_gauges();
        &self.metrics
    }

    fn dump_metrics(&mut self) {
        self.refresh_gauges();
        let mut lines = Vec::new();
        for (metric, label, value) in self.metrics.values() {
            let label = label.map(|text| format!("{{{text}}}")).unwrap_or_default();
            let value = match value {
                crate::base::metric::Value::Count(n) => n.to_string(),
                crate::base::metric::Value::Number(n) => n.to_string(),
                crate::base::metric::Value::Distribution(h) => {
                    format!("count={} sum={}s max={}s", h.count, h.sum, h.max)
                }
            };
            lines.push(format!("metric: {}{label}={value}", metric.name));
        }
        for line in lines {
            self.log(Level::Info, line);
        }
    }
}

/// The last index whose entry may have made events: a server that begins holds none of them.
fn events_index(state: &State) -> u64 {
    let tables =
        [state.nodes_index(), state.vars_index(), state.tokens_index(), state.policies_index(), state.roles_index()];
    tables.into_iter().map(|index| index.0).max().unwrap_or(0)
}
