//! Bodies of Operator.* and of methods of this project's own that operators use.
//!
//! Source: endpoint notes, section 5.

use crate::wire::body::query::{QueryMeta, WriteMeta, WriteRequest};
use crate::wire::msgpack::{Bytes, Raw};
use crate::wire_structs;

wire_structs! {
    /// One connection.
    pub struct ConnectionStub {
        /// The other end, `ip:port`.
        peer: String = "Peer",
        /// `rpc`, `multiplex_v1`, `multiplex_v2`, `streaming`, `raft`, `http`, or `unknown` before it has said.
        protocol: String = "Protocol",
        /// Whether it is inside TLS.
        tls: bool = "TLS",
        /// Names in the verified certificate of the other end.
        certificate_names: Vec<String> = "CertificateNames",
        /// The node that it leads to; empty when it leads to none.
        node_id: String = "NodeID",
        /// Open streams.
        streams: u64 = "Streams",
        /// Calls in hand, parked ones included.
        calls: u64 = "Calls",
    }
    /// Reply of Holdfast.Connections.
    pub struct ConnectionsResponse {
        /// In the order of their places.
        connections: Vec<ConnectionStub> = "Connections",
        /// How many there are; more than are listed when they are very many.
        total: u64 = "Total",
    }
    /// How servers are looked after. Durations are nanoseconds.
    pub struct AutopilotConfig {
        /// Remove servers that are gone.
        cleanup_dead_servers: bool = "CleanupDeadServers",
        /// How long a new server must be healthy before it votes.
        server_stabilization_time: i64 = "ServerStabilizationTime",
        /// Silence of a healthy server.
        last_contact_threshold: i64 = "LastContactThreshold",
        /// Entries that a healthy server may be behind.
        max_trailing_logs: u64 = "MaxTrailingLogs",
        /// Never fewer servers than this by removal.
        min_quorum: u64 = "MinQuorum",
        /// Kept as given.
        enable_redundancy_zones: bool = "EnableRedundancyZones",
        /// Kept as given.
        disable_upgrade_migration: bool = "DisableUpgradeMigration",
        /// Kept as given.
        enable_custom_upgrades: bool = "EnableCustomUpgrades",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// Arguments of Operator.AutopilotSetConfiguration.
    pub struct AutopilotSetConfigRequest {
        /// Ignored.
        datacenter: String = "Datacenter",
        /// The configuration.
        config: AutopilotConfig = "Config",
        /// Only if its ModifyIndex is that of the stored one.
        cas: bool = "CAS",
        ..write: WriteRequest,
    }
    /// Preemption, kept as given.
    pub struct PreemptionConfig {
        /// Kept as given.
        system: bool = "SystemSchedulerEnabled",
        /// Kept as given.
        sys_batch: bool = "SysBatchSchedulerEnabled",
        /// Kept as given.
        batch: bool = "BatchSchedulerEnabled",
        /// Kept as given.
        service: bool = "ServiceSchedulerEnabled",
    }
    /// The scheduler's configuration: there is no scheduler, it is kept for those who ask.
    pub struct SchedulerConfiguration {
        /// `binpack` or `spread`.
        scheduler_algorithm: String = "SchedulerAlgorithm",
        /// Preemption.
        preemption_config: PreemptionConfig = "PreemptionConfig",
        /// Kept as given.
        memory_oversubscription_enabled: bool = "MemoryOversubscriptionEnabled",
        /// Kept as given.
        reject_job_registration: bool = "RejectJobRegistration",
        /// Kept as given.
        pause_eval_broker: bool = "PauseEvalBroker",
        /// Kept as given.
        node_limit_for_feasibility_checks: u64 = "NodeLimitForFeasibilityChecks",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
    }
    /// Reply of Operator.SchedulerGetConfiguration.
    pub struct SchedulerConfigurationResponse {
        /// The configuration.
        scheduler_config: Option<SchedulerConfiguration> = "SchedulerConfig",
        ..meta: QueryMeta,
    }
    /// Arguments of Operator.SchedulerSetConfiguration.
    pub struct SchedulerSetConfigurationRequest {
        /// The configuration.
        config: SchedulerConfiguration = "Config",
        /// Only if its ModifyIndex is that of the stored one.
        cas: bool = "CAS",
        ..write: WriteRequest,
    }
    /// Reply of Operator.SchedulerSetConfiguration.
    pub struct SchedulerSetConfigurationResponse {
        /// Whether it was written.
        updated: bool = "Updated",
        ..meta: WriteMeta,
    }
    /// A server in raft's configuration.
    pub struct RaftServer {
        /// A UUID.
        id: String = "ID",
        /// Name with the region.
        node: String = "Node",
        /// `ip:port`.
        address: String = "Address",
        /// Whether it leads.
        leader: bool = "Leader",
        /// Whether it votes.
        voter: bool = "Voter",
        /// `3`.
        raft_protocol: String = "RaftProtocol",
    }
    /// Reply of Operator.RaftGetConfiguration.
    pub struct RaftConfigurationResponse {
        /// All servers.
        servers: Vec<RaftServer> = "Servers",
        /// Always 0, as the peer answers.
        index: u64 = "Index",
    }
    /// Arguments of Operator.RaftRemovePeerByID.
    pub struct RaftPeerByIdRequest {
        /// Which.
        id: String = "ID",
        ..write: WriteRequest,
    }
    /// Arguments of Operator.TransferLeadershipToPeer.
    pub struct RaftPeerRequest {
        /// `ip:port`.
        address: String = "Address",
        /// Or its id.
        id: String = "ID",
        ..write: WriteRequest,
    }
    /// A server, by both its names.
    pub struct RaftIdAddress {
        /// `ip:port`.
        address: String = "Address",
        /// A UUID.
        id: String = "ID",
    }
    /// Reply of Operator.TransferLeadershipToPeer.
    pub struct LeadershipTransferResponse {
        /// Who led.
        from: RaftIdAddress = "From",
        /// Who leads.
        to: RaftIdAddress = "To",
        /// Whether nothing had to be done.
        noop: bool = "Noop",
        /// Always nil.
        err: Raw = "Err",
    }
    /// How a server is.
    pub struct ServerHealth {
        /// A UUID.
        id: String = "ID",
        /// Name with the region.
        name: String = "Name",
        /// `ip:port`.
        address: String = "Address",
        /// 1 alive, 2 leaving, 3 left, 4 failed.
        serf_status: i64 = "SerfStatus",
        /// Its build.
        version: String = "Version",
        /// Whether it leads.
        leader: bool = "Leader",
        /// Nanoseconds since it was heard.
        last_contact: i64 = "LastContact",
        /// Its term.
        last_term: u64 = "LastTerm",
        /// Its last index.
        last_index: u64 = "LastIndex",
        /// Whether it is healthy.
        healthy: bool = "Healthy",
        /// Whether it votes.
        voter: bool = "Voter",
        /// Go's binary time: since when it is so.
        stable_since: Bytes = "StableSince",
    }
    /// Reply of Operator.ServerHealth.
    pub struct OperatorHealthReply {
        /// Whether all are.
        healthy: bool = "Healthy",
        /// Servers that may fail before nothing can be written.
        failure_tolerance: i64 = "FailureTolerance",
        /// All servers.
        servers: Vec<ServerHealth> = "Servers",
        /// The leader's id.
        leader: String = "Leader",
        /// Ids of those that vote.
        voters: Vec<String> = "Voters",
    }
    /// First message of Operator.SnapshotSave after the options, and last of Operator.SnapshotRestore.
    pub struct SnapshotSaveResponse {
        /// `sha-256=<base64>` of the archive.
        snapshot_checksum: String = "SnapshotChecksum",
        /// An HTTP status, or 0.
        error_code: i64 = "ErrorCode",
        /// What went wrong.
        error_msg: String = "ErrorMsg",
        ..meta: QueryMeta,
    }
    /// Reply of `Holdfast.AgentSelf`: what `/v1/agent/self` shows.
    pub struct AgentSelfResponse {
        /// JSON: the configuration in force, without secrets.
        config_json: String = "ConfigJSON",
        /// JSON: figures, as texts in groups.
        stats_json: String = "StatsJSON",
    }
}
