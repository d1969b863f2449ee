//! A server in memory for fuzz targets: its outputs performed at once, its log a state without a disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast::api::{Caller, Ctx, RaftFacts, ServerEntry, ServerFacts};
use holdfast::base::id::{ConnId, Index, ReplicaId, Term};
use holdfast::base::time::{Instant, WallTime};
use holdfast::conn::{Limits, Security};
use holdfast::consensus::{Leadership, Notice, Proposal, Resolution};
use holdfast::mux::limits::Limits as MuxLimits;
use holdfast::server::Server;
use holdfast::server::port::{Input, Listener, Output, Settings};
use holdfast::server::run::run_job;
use holdfast::state::State;
use holdfast::wire::entry::{Command, Entry};

use crate::hostile_rig::nodes;

/// Methods that do more than refuse.
pub const METHODS: &[&str] = &[
    "ACL.GetClaimPolicies",
    "ACL.WhoAmI",
    "Agent.Host",
    "ClientAllocations.Stats",
    "ClientStats.Stats",
    "FileSystem.List",
    "Keyring.ListPublic",
    "Node.BatchDeregister",
    "Node.Deregister",
    "Node.EmitEvents",
    "Node.Evaluate",
    "Node.GetAllocs",
    "Node.GetClientAllocs",
    "Node.GetNode",
    "Node.List",
    "Node.Register",
    "Node.UpdateAlloc",
    "Node.UpdateDrain",
    "Node.UpdateEligibility",
    "Node.UpdateStatus",
    "NodeMeta.Apply",
    "Region.List",
    "Status.HasNodeConn",
    "Status.Leader",
    "Status.Members",
    "Status.Peers",
    "Status.Ping",
    "Status.RaftStats",
];

/// 2026-11-21T11:41:40Z.
const NOW: i64 = 1_795_261_300_000_000_000;

/// Small caps, so that they are met.
pub fn conn_limits() -> Limits {
    Limits {
        handshake_timeout: Duration::from_secs(5),
        max_message_bytes: 64 << 10,
        max_partial_bytes: 128 << 10,
        idle_streams: 64,
        max_raft_unsent_bytes: 1 << 20,
        max_unsent_bytes: 64 << 10,
        mux: MuxLimits { max_streams: 64, accept_backlog: 16, ..MuxLimits::default() },
        http_max_head_bytes: 4 << 10,
        http_max_body_bytes: 16 << 10,
        http_head_timeout: Duration::from_secs(10),
        http_body_timeout: Duration::from_secs(10),
        http_idle_timeout: Duration::from_secs(30),
        http_uploads: &[("PUT", "/v1/operator/snapshot")],
    }
}

pub fn caller() -> Caller {
    Caller { peer: "192.0.2.7:4000".parse().unwrap(), tls_names: None, proven_node: None, good_token: None }
}

pub fn state_with_nodes() -> State {
    let mut state = State::new();
    for number in 1..=3 {
        let command = Command::NodeRegister { node: nodes::register(number, number, 40).node.raw };
        let entry = Entry { time_unix_nanos: NOW, session: None, command };
        state.apply(Index(number), Term(1), &entry);
    }
    assert_eq!(state.node_count(), 3);
    state
}

pub fn ctx() -> Ctx {
    let server = ServerEntry {
        name: "hf1".into(),
        id: nodes::node_id(99),
        rpc_addr: "127.0.0.1:4647".into(),
        datacenter: "dc1".into(),
        voter: true,
        ..ServerEntry::default()
    };
    let facts = ServerFacts {
        name: "hf1".into(),
        id: nodes::node_id(99),
        region: "global".into(),
        datacenter: "dc1".into(),
        regions: vec!["global".into()],
        rpc_addr: "127.0.0.1:4647".into(),
        bootstrap_expect: 1,
        verify_tls_names: false,
        acl_enabled: false,
        variables_max_bytes: 65_536,
        locks_min_ttl: Duration::from_secs(10),
        entropy: holdfast::api::secrets::Entropy([7; 32]),
        config_json: "{}".into(),
    };
    Ctx {
        server: Arc::new(facts),
        leader_rpc_addr: "127.0.0.1:4647".into(),
        is_leader: true,
        raft: RaftFacts { last_term: 2, last_index: 77, ..RaftFacts::default() },
        servers: Arc::from([server]),
        last_contact: Duration::ZERO,
        known_leader: true,
        wall: WallTime::from_unix_nanos(NOW),
        heartbeat_ttl: Duration::from_secs(14),
        seed: 7,
        stamp: None,
        cluster_id: "".into(),
        signer: None,
        sealer: None,
        acl_bootstrap_reset: None,
        lock_waiters: 0,
        stats_json: None,
        node_conn_established: None,
        connections: None,
    }
}

fn settings() -> Settings {
    Settings {
        name: "hf1".into(),
        server_id: nodes::node_id(99),
        region: "global".into(),
        datacenter: "dc1".into(),
        advertise_rpc: "127.0.0.1:4647".into(),
        advertise_http: "127.0.0.1:4646".into(),
        bootstrap_expect: 1,
        join: Vec::new(),
        regions: Vec::new(),
        replica: ReplicaId(1),
        cluster: holdfast::server::port::ClusterFile::default(),
        dial_tls: None,
        dead_server_after: Duration::ZERO,
        election_timeout: Duration::from_millis(500),
        min_free_bytes: 0,
        digest_entries: 0,
        pool_idle_timeout: Duration::from_secs(120),
        conn: conn_limits(),
        rpc_security: Security::default(),
        http_security: Security::default(),
        verify_tls_names: false,
        acl_enabled: false,
        variables_max_bytes: 65_536,
        locks_min_ttl: Duration::from_secs(10),
        entropy: holdfast::api::secrets::Entropy([7; 32]),
        audit: false,
        backup_every: Duration::ZERO,
        backup_keep: 1,
        config_json: "{}".into(),
        rpc_max_conns_per_client: 26,
        http_max_conns_per_client: 26,
        proxy_protocol_from: Vec::new(),
        hold_timeout: Duration::from_secs(5),
        max_query_time: Duration::from_secs(300),
        default_query_time: Duration::from_secs(300),
        drain_timeout: Duration::from_secs(10),
        heartbeat_min_ttl: Duration::from_secs(10),
        heartbeat_grace: Duration::from_secs(10),
        heartbeat_max_per_second: 50.0,
        heartbeat_failover_ttl: Duration::from_secs(300),
        events_buffer_bytes: 1 << 20,
        prometheus: true,
        seed: 1,
        version: "0".into(),
    }
}

/// The server and its outside.
pub struct Rig {
    server: Server,
    root: Arc<ArcSwap<State>>,
    now: Instant,
    next_conn: u64,
    open: Vec<ConnId>,
    turn: usize,
}

impl Rig {
    pub fn new() -> Rig {
        let root = Arc::new(ArcSwap::from_pointee(state_with_nodes()));
        let wall = WallTime::from_unix_nanos(NOW);
        let server = Server::new(settings(), root.clone(), Instant::ZERO, wall);
        let mut rig = Rig { server, root, now: Instant::ZERO, next_conn: 0, open: Vec::new(), turn: 0 };
        let leader = Some(ReplicaId(1));
        let leadership = Leadership { term: Term(2), leader, is_self: true, ready: true };
        rig.input(Input::Notices(vec![Notice::Leadership(leadership)]));
        rig
    }

    /// A connection that brings these bytes, among some that are there already.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.turn += 1;
        if self.open.len() < 26 {
            self.accept();
        }
        let conn = self.open[self.turn % self.open.len()];
        let size = if self.turn.is_multiple_of(5) { 7 } else { 4096 };
        for piece in bytes.chunks(size) {
            if self.open.contains(&conn) {
                self.input(Input::Received { conn, bytes: piece });
            }
        }
        match self.turn % 4 {
            0 => self.input(Input::Eof { conn }),
            1 if self.open.contains(&conn) => {
                self.open.retain(|open| *open != conn);
                self.input(Input::Failed { conn, error: "Connection reset by peer".into() });
            }
            2 => self.pass(Duration::from_millis(700)),
            _ => {}
        }
        if self.turn.is_multiple_of(97) {
            self.pass(Duration::from_secs(20));
        }
    }

    fn accept(&mut self) {
        // The slots of a slab with generations: the same ones are used again.
        let slot = (0..64).find(|slot| !self.open.iter().any(|open| open.0 & 0xffff_ffff == *slot)).unwrap();
        self.next_conn += 1;
        let conn = ConnId(self.next_conn << 32 | slot);
        let listener = if self.next_conn.is_multiple_of(4) { Listener::Http } else { Listener::Rpc };
        let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
        self.open.push(conn);
        self.input(Input::Accepted { conn, listener, peer });
        assert!(self.open.contains(&conn), "a place was not given back");
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.server.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
    }

    fn input(&mut self, input: Input<'_>) {
        self.server.handle_input(self.now, WallTime::from_unix_nanos(NOW), input);
        while let Some(output) = self.server.poll_output() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Flush(conn) => self.flush(conn),
            Output::Close { conn, .. } => {
                self.flush(conn);
                self.open.retain(|open| *open != conn);
            }
            Output::Run(job) => {
                let outcome = run_job(&job, &self.root.load());
                assert!(!format!("{outcome:?}").contains("Panicked"), "a handler panicked: {outcome:?}");
                self.server.handle_input(self.now, WallTime::from_unix_nanos(NOW), Input::Ran { job: job.id, outcome });
            }
            Output::Propose(proposals) => self.apply(proposals),
            Output::Exit { status } => panic!("it ended with {status}"),
            _ => {}
        }
    }

    fn flush(&mut self, conn: ConnId) {
        for _ in 0..1000 {
            let waiting = self.server.to_send(conn).len();
            if waiting == 0 {
                return;
            }
            self.server.sent(self.now, conn, waiting);
        }
        panic!("a connection sends without an end");
    }

    fn apply(&mut self, proposals: Vec<Proposal>) {
        let mut state = State::clone(&self.root.load());
        let mut notices = Vec::new();
        for proposal in proposals {
            let index = Index(state.index().0 + 1);
            let entry = Entry { time_unix_nanos: NOW, session: None, command: proposal.command };
            let read = Entry::decode(&entry.encode()).expect("what is proposed can be read");
            let applied = state.apply(index, Term(2), &read);
            let resolution = Resolution::Applied { index, result: applied.result };
            notices.push(Notice::Applied { index, touched: applied.touched, events: applied.events });
            notices.push(Notice::Resolved { id: proposal.id, resolution });
        }
        self.root.store(Arc::new(state));
        self.server.handle_input(self.now, WallTime::from_unix_nanos(NOW), Input::Notices(notices));
    }

    /// A peer breaks while an answer waits to be written; then the server is asked to stop. Says whether it ends at
    /// once: nothing of the connection may be waited for.
    pub fn ends_at_once_after_a_break(mut self, bytes: &[u8]) -> bool {
        let wall = WallTime::from_unix_nanos(NOW);
        let conn = ConnId(1 << 32);
        let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
        for input in [
            Input::Accepted { conn, listener: Listener::Rpc, peer },
            Input::Received { conn, bytes },
            Input::Failed { conn, error: "Broken pipe".into() },
            Input::Stop,
        ] {
            self.server.handle_input(self.now, wall, input);
        }
        std::iter::from_fn(|| self.server.poll_output()).any(|output| matches!(output, Output::Exit { status: 0 }))
    }

    /// All connections end: nothing of them is left, and all places can be taken (R1.10).
    pub fn assert_empty(&mut self) {
        for conn in std::mem::take(&mut self.open) {
            self.input(Input::Failed { conn, error: "Connection reset by peer".into() });
        }
        let peer = SocketAddr::from(([192, 0, 2, 7], 4000));
        for number in 0..26 {
            let conn = ConnId((u64::MAX - (63 - number)) & !0xffff_ffff | number);
            self.open.push(conn);
            self.input(Input::Accepted { conn, listener: Listener::Rpc, peer });
        }
        assert_eq!(self.open.len(), 26, "connection places were lost");
    }
}
