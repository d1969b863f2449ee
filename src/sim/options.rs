//! What a world is like: everything follows from its seed, so that a seed alone replays it.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::conn;
use crate::conn::Security;
use crate::consensus;
use crate::mux::limits::Limits as MuxLimits;
use crate::server::port::Settings;

use super::fault::Fault;

/// What a world is like.
#[derive(Clone, Debug)]
pub struct Options {
    /// All chance.
    pub seed: u64,
    /// A mistake of the edge.
    pub fault: Option<Fault>,
    /// Keeps the last lines of what happened.
    pub keep_log: bool,
    /// How long clients are busy.
    pub busy: Duration,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// More nodes, that are registered once and never heard again: a list of so many is run on a handler thread.
    pub silent_nodes: usize,
    /// Clients beside the nodes.
    pub others: usize,
    /// Clients that take turns at locks.
    pub lockers: usize,
    /// Clients that write and read variables.
    pub keepers: usize,
    /// Of one way over a wire, about.
    pub latency: Duration,
    /// What a sync takes, about.
    pub sync_time: Duration,
    /// Between the threads of the server, at most.
    pub thread_delay: Duration,
    /// Of a hundred wires, how many come to a bad end.
    pub bad_wires: u64,
    /// Things done to the server.
    pub nemeses: u64,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Bytes of a yamux window.
    pub window_bytes: u32,
    /// Of a hundred jobs, how many find the queue of the handler threads full.
    pub pool_full: u64,
    /// Batches of proposals that may wait for the consensus thread.
    pub commands_max: usize,
}

impl Options {
    /// The world of a seed.
    pub fn from_seed(seed: u64) -> Options {
        let mut rng = Rng::from_seed(seed ^ 0x7369_6d00);
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.below(from.len() as u64) as usize];
        let silent_nodes = pick(&mut rng, &[0, 0, 0, 0, 0, 70]) as usize;
        Options {
            seed,
            silent_nodes,
            fault: None,
            keep_log: false,
            busy: Duration::from_secs(pick(&mut rng, &[20, 40, 70])),
            nodes: pick(&mut rng, &[1, 2, 3, 5]) as usize,
            others: pick(&mut rng, &[2, 3, 4]) as usize,
            latency: Duration::from_micros(pick(&mut rng, &[50, 1_000, 20_000])),
            sync_time: Duration::from_micros(pick(&mut rng, &[50, 2_000, 50_000])),
            thread_delay: Duration::from_micros(pick(&mut rng, &[20, 2_000, 100_000])),
            bad_wires: pick(&mut rng, &[0, 15, 40]),
            nemeses: pick(&mut rng, &[0, 2, 4, 6]),
            snapshot_entries: pick(&mut rng, &[8, 30, 10_000]),
            window_bytes: pick(&mut rng, &[2 * 1024, 16 * 1024, 256 * 1024]).max(silent_nodes as u64 * 256) as u32,
            pool_full: pick(&mut rng, &[0, 0, 0, 15]),
            commands_max: pick(&mut rng, &[2, 1024, 1024]) as usize,
            lockers: pick(&mut rng, &[0, 2, 3, 4]) as usize,
            keepers: pick(&mut rng, &[0, 1, 1]) as usize,
        }
    }

    /// When clients stop to begin new things.
    pub fn quiet_at(&self) -> Instant {
        Instant::ZERO + self.busy
    }

    /// Yamux, of both sides.
    pub fn mux(&self) -> MuxLimits {
        MuxLimits { window_bytes: self.window_bytes, ..MuxLimits::default() }
    }

    /// Of the replica.
    pub fn replica(&self) -> consensus::Limits {
        consensus::Limits {
            max_entry_bytes: 1024 * 1024,
            warn_entry_bytes: 1024 * 1024,
            snapshot_entries: self.snapshot_entries,
            snapshot_bytes: 64 * 1024 * 1024,
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 1,
            stalled_sync: Duration::from_secs(10),
            max_waiting_proposals: 4096,
        }
    }

    /// Of the server. `life` numbers its processes.
    pub fn settings(&self, life: usize) -> Settings {
        Settings {
            name: "hf1".to_owned(),
            server_id: "00000000-0000-4000-8000-000000000001".to_owned(),
            region: REGION.to_owned(),
            datacenter: "dc1".to_owned(),
            advertise_rpc: "10.0.0.1:4647".to_owned(),
            advertise_http: "10.0.0.1:4646".to_owned(),
            bootstrap_expect: 1,
            join: Vec::new(),
            regions: Vec::new(),
            replica: crate::base::id::ReplicaId(1),
            cluster: crate::server::port::ClusterFile::default(),
            dial_tls: None,
            dead_server_after: Duration::ZERO,
            election_timeout: Duration::from_millis(500),
            min_free_bytes: 0,
            digest_entries: 0,
            pool_idle_timeout: Duration::from_secs(120),
            conn: conn::Limits {
                handshake_timeout: Duration::from_secs(5),
                max_message_bytes: 1024 * 1024,
                max_partial_bytes: 1024 * 1024,
                max_unsent_bytes: 1024 * 1024,
                idle_streams: 64,
                max_raft_unsent_bytes: 8 * 1024 * 1024,
                mux: self.mux(),
                http_max_head_bytes: 16 * 1024,
                http_max_body_bytes: 64 * 1024,
                http_head_timeout: Duration::from_secs(10),
                http_body_timeout: Duration::from_secs(30),
                http_idle_timeout: Duration::from_secs(120),
                http_uploads: &[],
            },
            rpc_security: Security::default(),
            http_security: Security::default(),
            verify_tls_names: false,
            rpc_max_conns_per_client: 0,
            http_max_conns_per_client: 0,
            hold_timeout: HOLD_TIMEOUT,
            max_query_time: Duration::from_secs(300),
            default_query_time: Duration::from_secs(300),
            drain_timeout: Duration::from_secs(10),
            heartbeat_min_ttl: MIN_TTL,
            heartbeat_grace: GRACE,
            heartbeat_max_per_second: 50.0,
            heartbeat_failover_ttl: FAILOVER_TTL,
            events_buffer_bytes: 32 * 1024 * 1024,
            prometheus: false,
            entropy: crate::api::secrets::Entropy([life as u8; 32]),
            acl_enabled: false,
            variables_max_bytes: 64 << 10,
            locks_min_ttl: Duration::from_secs(2),
            audit: false,
            config_json: "{}".into(),
            seed: self.seed.wrapping_mul(31).wrapping_add(life as u64),
            version: "sim".to_owned(),
        }
    }
}

/// The region of the world.
pub const REGION: &str = "global";
/// How long a request waits for a leader.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(5);
/// The least TTL of a heartbeat.
pub const MIN_TTL: Duration = Duration::from_secs(10);
/// Added to it before a node is down.
pub const GRACE: Duration = Duration::from_secs(5);
/// What nodes get from a process that has just begun to lead.
pub const FAILOVER_TTL: Duration = Duration::from_secs(30);
