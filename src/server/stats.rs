//! Figures for Holdfast.AgentSelf: texts in groups, as `nomad agent-info` prints them.
//!
//! Source: HTTP notes, section 2.

use std::sync::Arc;

use serde_json::json;

use crate::api::ServerStatus;

use super::Server;

impl Server {
    /// The figures, as JSON.
    pub(super) fn stats_json(&self) -> Arc<str> {
        let known = &self.leader.known;
        let state = self.root.load();
        let (index, term) = (state.index().0.to_string(), known.term.0.to_string());
        let role = match (known.is_self, known.leader) {
            (true, _) => "Leader",
            (false, Some(_)) => "Follower",
            (false, None) => "Candidate",
        };
        let last_contact = match self.leader.heard {
            _ if known.is_self => "0".to_owned(),
            Some(_) => format!("{:?}", self.ctx.last_contact),
            None => "never".to_owned(),
        };
        let servers = self.ctx.servers.len();
        let count = |status| self.ctx.servers.iter().filter(|server| server.status == status).count().to_string();
        let members = self.ctx.servers.iter().filter(|server| server.is_member);
        let voters: Vec<String> = members
            .map(|server| {
                let suffrage = if server.voter { "Voter" } else { "Nonvoter" };
                format!("{{Suffrage:{suffrage} ID:{} Address:{}}}", server.id, server.rpc_addr)
            })
            .collect();
        let (digest_index, digest) = self.peers.digests.own();
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let stats = json!({
            "nomad": {
                "server": "true",
                "leader": known.is_self.to_string(),
                "leader_addr": &*self.ctx.leader_rpc_addr,
                "bootstrap": (self.settings.bootstrap_expect == 1).to_string(),
                "known_regions": self.ctx.server.regions.len().to_string(),
            },
            "raft": {
                "state": role,
                "term": term,
                "last_log_index": index,
                "last_log_term": term,
                "commit_index": index,
                "applied_index": index,
                "fsm_pending": "0",
                "latest_configuration": format!("[{}]", voters.join(" ")),
                "num_peers": voters.len().saturating_sub(1).to_string(),
                "last_contact": last_contact,
                "protocol_version": "3",
            },
            "serf": {
                "members": servers.to_string(),
                "failed": count(ServerStatus::Failed),
                "left": count(ServerStatus::Left),
            },
            "runtime": {
                "version": self.settings.version,
            },
            "holdfast": {
                "nodes": state.node_count().to_string(),
                "node_connections": self.nodes.len().to_string(),
                "variables": state.var_count().to_string(),
                "locks": state.lock_count().to_string(),
                "connections": self.link_count().to_string(),
                "calls": self.calls.len().to_string(),
                "parked": self.parked.waiters().to_string(),
                "subscribers": self.subscribers().to_string(),
                "digest_index": digest_index.to_string(),
                "digest": digest,
            },
        });
        stats.to_string().into()
    }
}
