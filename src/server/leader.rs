//! What is known of who leads, and what a leader has to do beside answering: keys, heartbeats, drains left half done.

use std::time::Duration;

use log::Level;

use crate::base::id::ReplicaId;
use crate::base::metric::Id;
use crate::base::time::{Instant, WallTime};
use crate::consensus::{Leadership, Resolution};
use crate::state::ApplyResult;
use crate::state::node::NodeStatus;
use crate::wire::body::node::{NodeEvent, go_time};
use crate::wire::entry::Command;

use super::Server;
use super::port::Output;
use super::route::LeaderView;
use super::writing::Internal;

/// Nodes whose expiry may be on its way at once: each is an entry of its own, so that no entry grows with the fleet
/// (R8.22).
const EXPIRIES_IN_FLIGHT: usize = 1024;
/// A certificate that ends sooner is told of in the status.
const CERTIFICATE_WARNING_DAYS: i64 = 30;
/// A node whose expiry could not be written is looked at again after this.
const EXPIRY_RETRY: Duration = Duration::from_secs(1);

/// Who leads, as this server knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Leader {
    pub(super) known: Leadership,
    /// When a leader was last heard; `None` for never.
    pub(super) heard: Option<Instant>,
    /// Who was last known to lead, and since when.
    pub(super) named: Option<ReplicaId>,
    pub(super) since: Option<WallTime>,
    /// Nobody else leads before then.
    pub(super) lease: Instant,
    /// The keys are there that this leadership seals and signs with.
    has_keys: bool,
    /// The state differs from that of the other servers: nothing is served any more.
    pub(super) diverged: bool,
}

impl Leader {
    pub(super) fn view(&self) -> LeaderView {
        LeaderView { is_self: self.known.is_self, ready: self.known.ready && self.has_keys }
    }
}

impl Server {
    pub(super) fn on_leadership(&mut self, now: Instant, known: Leadership) {
        let known = match self.leader.diverged {
            true => Leadership { term: known.term, ..Leadership::default() },
            false => known,
        };
        let (was_ready, was_self) = (self.leader.known.ready, self.leader.known.is_self);
        self.leader.known = known;
        let begins = self.leader.known.is_self && self.leader.known.ready && !was_ready;
        self.leader.has_keys &= !begins;
        let view = self.leader.view();
        if self.leader.known.leader != self.leader.named {
            self.leader.named = self.leader.known.leader;
            self.leader.since = Some(self.wall);
        }
        self.ctx.leader_rpc_addr = self.leader_rpc_addr().into();
        self.ctx.is_leader = view.is_self && view.ready;
        self.ctx.known_leader = self.leader.known.leader.is_some();
        if view.is_self {
            self.leader.heard = Some(now);
        }
        if view.is_self != was_self {
            self.on_leading(now);
        }
        if begins {
            let term = self.leader.known.term;
            self.log(Level::Info, format!("cluster leadership acquired: term={term}"));
            self.begin_to_lead(now);
        } else if was_self && !view.is_self {
            self.log(Level::Info, "cluster leadership lost".to_owned());
            self.heartbeats.clear_all();
            self.reroute_lines(now);
            self.stop_resealing();
            self.peers.keys.stop_spreading();
            self.end_all_sending();
        }
        self.end_handing_over(now);
        self.backups_lead(now);
        if !self.is_alone() {
            self.refresh_servers(now);
        }
        self.begin_to_follow();
        self.say_status();
        if view.ready || view.is_self != was_self {
            self.retry_held(now);
        }
    }

    pub(super) fn begin_to_lead(&mut self, now: Instant) {
        let state = self.root.load_full();
        let alive = state.nodes_from("").filter(|node| node.status != NodeStatus::Down);
        self.heartbeats.lead(now, alive.map(|node| &node.id));
        for node in state.nodes_from("").filter(|node| node.drain.is_some()) {
            let node_id = node.id.to_string();
            self.propose_internal(Command::NodeDrainComplete { node_id }, Internal::Other);
        }
        if self.shares_keys() {
            return self.use_shared_keys(now);
        }
        let key_id = state.signing_keys().last().map(|key| key.key_id.clone());
        self.output(Output::MakeSigningKey { key_id, fresh: false });
    }

    /// The keys are there: what was held is served, since nothing of it needs to be told to come again.
    pub(super) fn begin_to_serve(&mut self, now: Instant) {
        if self.leader.has_keys || self.ctx.sealer.is_none() || !self.leader.known.ready {
            return;
        }
        self.leader.has_keys = true;
        self.ctx.is_leader = self.leader.known.is_self;
        self.backups_lead(now);
        self.say_ready();
        self.say_status();
        self.retry_held(now);
    }

    /// Another server leads, and can be asked: whatever comes is passed on to it.
    pub(super) fn begin_to_follow(&mut self) {
        if !self.leader.known.is_self && self.leader.known.leader.is_some() && !self.ctx.leader_rpc_addr.is_empty() {
            self.say_ready();
        }
    }

    fn say_ready(&mut self) {
        if self.said_ready {
            return;
        }
        self.said_ready = true;
        let state = self.root.load_full();
        let (nodes, variables) = (state.node_count(), state.var_count());
        let text = format!("serving requests: nodes={nodes} variables={variables} index={}", state.index());
        self.log(Level::Info, text);
        self.output(Output::Ready);
    }

    /// Nodes that were not heard in time are marked down.
    pub(super) fn expire_heartbeats(&mut self, now: Instant) {
        while self.expiries < EXPIRIES_IN_FLIGHT
            && let Some(node_id) = self.heartbeats.pop_missed(now)
        {
            let state = self.root.load_full();
            let Some(node) = state.node(&node_id) else { continue };
            if node.status == NodeStatus::Down {
                continue;
            }
            self.metrics.count(Id::HeartbeatInvalidate);
            self.log(Level::Warn, format!("node TTL expired: node_id={node_id}"));
            let event = NodeEvent {
                message: "Node heartbeat missed".to_owned(),
                subsystem: "Cluster".to_owned(),
                timestamp: go_time(self.wall.unix_nanos()),
                ..NodeEvent::default()
            };
            let command = Command::NodeUpdateStatus {
                node_id: node_id.to_string(),
                status: NodeStatus::Down.as_str().to_owned(),
                event: Some(event),
                updated_at: self.wall.unix_seconds(),
                identity_signing_key_id: String::new(),
                expected_modify_index: Some(node.modify_index),
            };
            self.expiries += 1;
            self.propose_internal(command, Internal::NodeDown(node_id));
        }
    }

    pub(super) fn on_internal_resolved(&mut self, now: Instant, internal: Internal, resolution: Resolution) {
        let node_id = match internal {
            Internal::NodeDown(node_id) => node_id,
            Internal::Grace => return self.on_grace_resolved(now, &resolution),
            Internal::LocksExpired(locks) => return self.on_locks_resolved(now, &locks, &resolution),
            Internal::TokensExpired => return self.on_tokens_resolved(now),
            Internal::NewKey => return self.on_new_key_resolved(now, resolution),
            Internal::Reseal => return self.on_reseal_resolved(now, &resolution),
            Internal::Restore(id) => return self.on_restore_resolved(now, id, resolution),
            Internal::ServerWritten => return self.on_server_written(now),
            Internal::Member(change) => return self.on_change_resolved(now, *change, resolution),
            Internal::SessionsExpired(ids) => return self.on_sessions_resolved(now, &ids, &resolution),
            Internal::OwnSession(key) => return self.on_own_session(now, key, &resolution),
            Internal::Other => return,
        };
        self.expiries -= 1;
        // Not written, or refused since the node was written meanwhile, by an operator perhaps: the node is looked at
        // again, by whoever leads then.
        let down = matches!(resolution, Resolution::Applied { result: ApplyResult::Done, .. });
        if !down && self.leader.view().is_self {
            self.heartbeats.retry(now + EXPIRY_RETRY, &node_id);
        }
    }

    /// Tells the init system, when it is news.
    pub(super) fn say_status(&mut self) {
        let view = self.leader.view();
        let role = match (view.is_self, view.ready) {
            (true, true) => "leader",
            (true, false) => "leader, catching up",
            _ if self.leader.known.leader.is_some() => "follower",
            _ => "server without a leader",
        };
        let mut text = format!("{role}, region {}", self.settings.region);
        if let Some((file, ends)) = &self.certificate_ends {
            // R8.14: an operator who looks at the unit sees it coming.
            let days = (ends - self.wall.unix_seconds()).div_euclid(86_400);
            if days < CERTIFICATE_WARNING_DAYS {
                text.push_str(&format!(", certificate {file} ends in {days} days"));
            }
        }
        if text != self.said_status {
            self.said_status.clone_from(&text);
            self.output(Output::Status(text));
        }
    }
}
