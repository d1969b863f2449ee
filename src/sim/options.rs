//! What a world is like: everything follows from its seed, so that a seed alone replays it.

use std::time::Duration;

use crate::base::id::ReplicaId;
use crate::base::rng::Rng;
use crate::base::time::Instant;
use crate::conn;
use crate::conn::Security;
use crate::consensus;
use crate::mux::limits::Limits as MuxLimits;
use crate::server::port::{ClusterFile, Settings};

use super::drills::Drill;
use super::fault::Fault;
use super::site::{SiteNumber, address, replica_id, server_id};

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
    /// Servers that the world begins with.
    pub servers: usize,
    /// More machines, whose servers join later.
    pub spares: usize,
    /// The consensus thread does nothing else while it syncs.
    pub disk_blocks: bool,
    /// How wrong the monotonic clocks of machines go at most, millionths.
    pub skew_ppm: i64,
    /// Bytes of a snapshot's chunk between servers.
    pub chunk_bytes: usize,
    /// Clients that take turns at locks.
    pub lockers: usize,
    /// Clients that write and read variables.
    pub keepers: usize,
    /// Clients that write in sessions.
    pub sessions: usize,
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
    /// One kind of trouble that comes beside them, again and again.
    pub drill: Option<Drill>,
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
            sessions: pick(&mut rng, &[0, 0, 1]) as usize,
            drill: None,
            servers: 1,
            spares: 0,
            disk_blocks: true,
            skew_ppm: 0,
            chunk_bytes: 64 * 1024,
        }
    }

    /// The world of a seed with several servers.
    pub fn cluster(seed: u64) -> Options {
        let mut rng = Rng::from_seed(seed ^ 0x636c_7573_7465_7200);
        let pick = |rng: &mut Rng, from: &[u64]| from[rng.below(from.len() as u64) as usize];
        let alone = Options::from_seed(seed);
        let drills = [
            Drill::KillLeader,
            Drill::PauseLeader,
            Drill::ChangeAlone,
            Drill::Restart,
            Drill::Blackout,
            Drill::Minority,
            Drill::FlipFlop,
            Drill::Calendars,
        ];
        Options {
            silent_nodes: 0,
            nodes: alone.nodes.min(3),
            busy: Duration::from_secs(pick(&mut rng, &[30, 40, 60])),
            latency: Duration::from_micros(pick(&mut rng, &[50, 1_000, 5_000])),
            sync_time: Duration::from_micros(pick(&mut rng, &[50, 1_000, 5_000])),
            thread_delay: Duration::from_micros(pick(&mut rng, &[20, 500, 5_000])),
            bad_wires: pick(&mut rng, &[0, 0, 10]),
            nemeses: pick(&mut rng, &[0, 3, 6, 10]),
            snapshot_entries: pick(&mut rng, &[8, 30, 10_000]),
            window_bytes: 256 * 1024,
            commands_max: 1024,
            lockers: alone.lockers.min(2),
            servers: pick(&mut rng, &[3, 3, 3, 5]) as usize,
            spares: pick(&mut rng, &[0, 0, 1]) as usize,
            disk_blocks: pick(&mut rng, &[0, 1]) == 1,
            skew_ppm: i64::try_from(pick(&mut rng, &[0, 50, 500])).unwrap_or(0),
            chunk_bytes: pick(&mut rng, &[200, 4096, 256 * 1024]) as usize,
            drill: drills.get(rng.below(24) as usize).copied(),
            sessions: pick(&mut rng, &[0, 1, 2]) as usize,
            ..alone
        }
    }

    /// The world of a seed with several servers and a mistake in it: much happens, so that the mistake shows soon.
    pub fn planted(seed: u64, fault: Fault) -> Options {
        let usual = Options::cluster(seed);
        let usual = Options { fault: Some(fault), nemeses: usual.nemeses.max(8), ..usual };
        let drill = |drill| Options { drill: Some(drill), nemeses: 0, ..usual.clone() };
        match fault {
            Fault::SnapshotWithoutTail | Fault::ForgetInstall => Options { snapshot_entries: 8, ..usual },
            Fault::RetrySentWrite => {
                let latency = Duration::from_millis(20);
                Options { keepers: 3, lockers: 0, latency, ..drill(Drill::KillLeader) }
            }
            Fault::ClockStopsInPause => drill(Drill::PauseLeader),
            // Many wait, and many write.
            Fault::StaleAtDeadline => Options { others: 4, keepers: 4, lockers: 0, ..drill(Drill::PauseLeader) },
            // Long enough for the power to go in between.
            Fault::AckBeforeSync => Options { sync_time: Duration::from_millis(50), ..drill(Drill::Blackout) },
            // Of three, two are a majority whatever is counted.
            Fault::SwapSender => Options { servers: 5, ..drill(Drill::Minority) },
            Fault::ChangeAtOnce => Options { servers: 5, ..drill(Drill::ChangeAlone) },
            Fault::VoteAtOnce => Options { servers: 3, ..drill(Drill::Restart) },
            Fault::NewSequence | Fault::LeaderMemory => Options { sessions: 3, ..drill(Drill::KillLeader) },
            // Writes are under way for a while.
            Fault::Restamp => {
                let latency = Duration::from_millis(20);
                Options { keepers: 8, lockers: 0, sessions: 0, latency, ..drill(Drill::KillLeader) }
            }
            Fault::LocalExpiry | Fault::CalendarExpiry => Options { sessions: 3, ..drill(Drill::Calendars) },
            Fault::DropReplies | Fault::AnyKey => Options { sessions: 3, ..usual },
            _ => usual,
        }
    }

    /// The world of a seed with one server and a mistake in it.
    pub fn planted_in_one(seed: u64, fault: Fault) -> Options {
        Options { fault: Some(fault), ..Options::from_seed(seed) }
    }

    /// As raft names the server of a machine.
    pub fn replica_id(&self, site: SiteNumber) -> ReplicaId {
        if self.servers == 1 { ReplicaId(1) } else { replica_id(site) }
    }

    /// When clients stop to begin new things.
    pub fn quiet_at(&self) -> Instant {
        Instant::ZERO + self.busy
    }

    /// A world that does more than this has run away.
    pub fn max_steps(&self) -> u64 {
        if self.servers == 1 { 3_000_000 } else { 30_000_000 }
    }

    /// Yamux, of both sides.
    pub fn mux(&self) -> MuxLimits {
        MuxLimits { window_bytes: self.window_bytes, ..MuxLimits::default() }
    }

    /// Of the replica.
    pub fn replica(&self) -> consensus::Limits {
        let alone = self.servers == 1;
        consensus::Limits {
            max_entry_bytes: 1024 * 1024,
            warn_entry_bytes: 1024 * 1024,
            snapshot_entries: self.snapshot_entries,
            snapshot_bytes: 64 * 1024 * 1024,
            tick: if alone { Duration::from_millis(100) } else { ELECTION_TIMEOUT / 20 },
            election_ticks: if alone { 10 } else { 20 },
            heartbeat_ticks: if alone { 1 } else { 4 },
            stalled_sync: if alone { Duration::from_secs(10) } else { 2 * ELECTION_TIMEOUT },
            max_waiting_proposals: 4096,
        }
    }

    /// Of the server of a machine. `life` numbers its processes, `cluster` is what the last one kept.
    pub fn settings(&self, site: SiteNumber, life: usize, cluster: ClusterFile) -> Settings {
        let founders = 0..self.servers;
        Settings {
            name: format!("hf{}", site + 1),
            server_id: server_id(site),
            region: REGION.to_owned(),
            datacenter: "dc1".to_owned(),
            advertise_rpc: address(site),
            advertise_http: format!("10.0.0.{}:4646", site + 1),
            bootstrap_expect: self.servers as u64,
            join: founders.filter(|other| *other != site).map(address).collect(),
            regions: Vec::new(),
            replica: self.replica_id(site),
            cluster,
            dial_tls: None,
            dead_server_after: Duration::ZERO,
            election_timeout: ELECTION_TIMEOUT,
            min_free_bytes: 0,
            digest_entries: if self.servers == 1 { 0 } else { 16 },
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
            proxy_protocol_from: Vec::new(),
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
            backup_every: Duration::ZERO,
            backup_keep: 1,
            config_json: "{}".into(),
            seed: self.seed.wrapping_mul(31).wrapping_add(life as u64),
            version: "sim".to_owned(),
        }
    }
}

/// The region of the world.
pub const REGION: &str = "global";
/// Without a word for so long, a leader is elected anew.
pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a request waits for a leader.
pub const HOLD_TIMEOUT: Duration = Duration::from_secs(5);
/// The least TTL of a heartbeat.
pub const MIN_TTL: Duration = Duration::from_secs(10);
/// Added to it before a node is down.
pub const GRACE: Duration = Duration::from_secs(5);
/// What nodes get from a process that has just begun to lead.
pub const FAILOVER_TTL: Duration = Duration::from_secs(30);
