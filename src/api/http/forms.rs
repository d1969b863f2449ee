//! The shapes of JSON bodies by request, and arguments of calls that only this interface makes.
//!
//! Source: HTTP notes, sections 3 to 10; endpoint notes for the fields.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::VariableLock;
use crate::wire_structs;

use super::body::Fields;
use super::body::Shape::{Any, Bool, Duration, List, Map, Struct, Text, Time, Unsigned};

const LOCK: Fields = &[("ID", Text), ("TTL", Duration), ("LockDelay", Duration)];

/// A variable, and what comes with the lock operations on one.
pub(super) const VARIABLE: Fields = &[
    ("Namespace", Text),
    ("Path", Text),
    ("Lock", Struct(LOCK)),
    ("CreateIndex", Unsigned),
    ("ModifyIndex", Unsigned),
    ("Items", Map(&Text)),
];

/// Several writes at once.
pub(super) const TXN: Fields =
    &[("Ops", List(&Struct(&[("Op", Text), ("Var", Struct(VARIABLE)), ("Fence", Unsigned)])))];

/// A token.
pub(super) const TOKEN: Fields = &[
    ("AccessorID", Text),
    ("SecretID", Text),
    ("Name", Text),
    ("Type", Text),
    ("Policies", List(&Text)),
    ("Roles", List(&Struct(&[("ID", Text), ("Name", Text)]))),
    ("Global", Bool),
    ("CreateTime", Time),
    ("ExpirationTime", Time),
    ("ExpirationTTL", Duration),
    ("CreateIndex", Unsigned),
    ("ModifyIndex", Unsigned),
];

/// A policy.
pub(super) const POLICY: Fields = &[
    ("Name", Text),
    ("Description", Text),
    ("Rules", Text),
    ("JobACL", Any),
    ("CreateIndex", Unsigned),
    ("ModifyIndex", Unsigned),
];

/// A role.
pub(super) const ROLE: Fields = &[
    ("ID", Text),
    ("Name", Text),
    ("Description", Text),
    ("Policies", List(&Struct(&[("Name", Text)]))),
    ("CreateIndex", Unsigned),
    ("ModifyIndex", Unsigned),
];

/// The secret that the first token is to have.
pub(super) const BOOTSTRAP: Fields = &[("BootstrapSecret", Text)];

/// A one-time token's secret.
pub(super) const EXCHANGE: Fields = &[("OneTimeSecretID", Text)];

/// Whom an introduction is for.
pub(super) const INTRODUCTION: Fields = &[("TTL", Duration), ("NodeName", Text), ("NodePool", Text)];

/// A namespace.
pub(super) const NAMESPACE: Fields = &[
    ("Name", Text),
    ("Description", Text),
    ("Quota", Text),
    ("Capabilities", Any),
    ("NodePoolConfiguration", Any),
    ("VaultConfiguration", Any),
    ("ConsulConfiguration", Any),
    ("Meta", Map(&Text)),
    ("CreateIndex", Unsigned),
    ("ModifyIndex", Unsigned),
    ("RequiredExtraClaims", Any),
    ("OptionalExtraClaims", Any),
];

/// A drain.
pub(super) const DRAIN: Fields = &[
    ("DrainSpec", Struct(&[("Deadline", Duration), ("IgnoreSystemJobs", Bool)])),
    ("MarkEligible", Bool),
    ("Meta", Map(&Text)),
];

/// Whether a node takes work.
pub(super) const ELIGIBILITY: Fields = &[("NodeID", Text), ("Eligibility", Text)];

/// What is noted about a node.
pub(super) const NODE_META: Fields = &[("NodeID", Text), ("Meta", Map(&Text))];

/// A node, and nothing else.
pub(super) const NODE_ONLY: Fields = &[("NodeID", Text)];

/// How servers are looked after.
pub(super) const AUTOPILOT: Fields = &[
    ("CleanupDeadServers", Bool),
    ("LastContactThreshold", Duration),
    ("ServerStabilizationTime", Duration),
    ("MaxTrailingLogs", Unsigned),
    ("MinQuorum", Unsigned),
    ("EnableRedundancyZones", Bool),
    ("DisableUpgradeMigration", Bool),
    ("EnableCustomUpgrades", Bool),
    ("ModifyIndex", Unsigned),
];

/// The scheduler's configuration.
pub(super) const SCHEDULER: Fields = &[
    ("SchedulerAlgorithm", Text),
    (
        "PreemptionConfig",
        Struct(&[
            ("SystemSchedulerEnabled", Bool),
            ("SysBatchSchedulerEnabled", Bool),
            ("BatchSchedulerEnabled", Bool),
            ("ServiceSchedulerEnabled", Bool),
        ]),
    ),
    ("MemoryOversubscriptionEnabled", Bool),
    ("RejectJobRegistration", Bool),
    ("PauseEvalBroker", Bool),
    ("NodeLimitForFeasibilityChecks", Unsigned),
    ("ModifyIndex", Unsigned),
];

/// What a shell wants completed.
pub(super) const SEARCH: Fields = &[("Prefix", Text), ("Context", Text), ("Namespace", Text), ("Region", Text)];

/// A session that is to be opened.
pub(super) const SESSION: Fields = &[("TTL", Duration), ("Name", Text)];

wire_structs! {
    /// Body of a drain.
    pub struct DrainBody {
        /// `nil` ends the drain.
        drain_spec: Option<DrainSpec> = "DrainSpec",
        /// Makes the node eligible when the drain ends.
        mark_eligible: bool = "MarkEligible",
        /// Kept in LastDrain.
        meta: BTreeMap<String, String> = "Meta",
    }
    /// How a node is to be drained.
    pub struct DrainSpec {
        /// Nanoseconds.
        deadline: i64 = "Deadline",
        /// Leaves system jobs alone.
        ignore_system_jobs: bool = "IgnoreSystemJobs",
    }
    /// Body of a lock's renewal: of the variable, only what is needed.
    pub struct RenewBody {
        /// The namespace; empty for the request's.
        namespace: String = "Namespace",
        /// The lock.
        lock: Option<VariableLock> = "Lock",
    }
    /// Body of a search.
    pub struct SearchBody {
        /// What names begin with.
        prefix: String = "Prefix",
        /// What kind of names.
        context: String = "Context",
        /// Where.
        namespace: String = "Namespace",
        /// Where.
        region: String = "Region",
    }
    /// Arguments of NodeMeta.Apply.
    pub struct NodeMetaApplyRequest {
        /// Which node.
        node_id: String = "NodeID",
        /// What is to be noted; nil removes.
        meta: BTreeMap<String, Option<String>> = "Meta",
        ..query: QueryOptions,
    }
    /// Arguments of ACL.ExchangeOneTimeToken.
    pub struct OneTimeTokenExchangeRequest {
        /// Its secret.
        one_time_secret_id: String = "OneTimeSecretID",
        ..write: WriteRequest,
    }
    /// Arguments of ACL.UpsertOneTimeToken.
    pub struct OneTimeTokenUpsertRequest {
        ..write: WriteRequest,
    }
    /// Arguments of ACL.CreateClientIntroductionToken.
    pub struct IntroductionTokenRequest {
        /// Nanoseconds; 0 for the usual.
        ttl: i64 = "TTL",
        /// The node's name; empty for any.
        node_name: String = "NodeName",
        /// The node's pool.
        node_pool: String = "NodePool",
        ..write: WriteRequest,
    }
}
