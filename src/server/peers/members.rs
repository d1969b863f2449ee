//! What a leader does about members: their records in the log, servers that join, and those that are gone for good.
//!
//! One change at a time, and the next look after a while: whatever is not done is seen again.

use std::collections::BTreeSet;
use std::time::Duration;

use log::Level;

use crate::api::outcome::{ClusterChange, Reply};
use crate::base::id::{CallId, ReplicaId};
use crate::base::time::Instant;
use crate::consensus::{self, MemberChange, Membership, Progress, Resolution};
use crate::wire::body::operator::AutopilotConfig;
use crate::wire::class::LEADERSHIP_LOST;
use crate::wire::entry::Command;
use crate::wire::entry::server::ServerRecord;
use crate::wire::raft::{Beat, RaftFrame, ServerHello};

use super::super::Server;
use super::super::audit::Written;
use super::super::writing::Internal;
use super::machine::REMOVED;

/// Between two looks of a leader at its members.
const LOOK: Duration = Duration::from_secs(1);
/// A change that was not settled by then is given up; a look finds it done or not.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the leader is about to change.
#[derive(Debug, Default)]
pub(in crate::server) struct Changes {
    /// When members are looked at next; none while there is nothing to look at.
    pub(super) look_at: Option<Instant>,
    /// A change of raft's configuration is under way, and when it is given up.
    under_way: Option<Instant>,
    /// Records that were proposed and not settled.
    writing: usize,
    /// Since when this server leads, for those who were never heard in that time.
    leads_since: Option<Instant>,
    /// Replicas that this leader removed.
    removed: BTreeSet<u64>,
}

/// A change of the cluster and who waits for it.
#[derive(Clone, Debug)]
pub(in crate::server) struct Change {
    call: Option<(CallId, Box<Reply>)>,
    what: String,
    /// The replica that is none any more, once this is done.
    removes: Option<u64>,
    /// Whoever leads then is asked again: this server removes itself by handing over first.
    again: bool,
}

/// How a member is, for the decision whether it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) replica: u64,
    pub(super) voter: bool,
    /// For how long it was not heard.
    pub(super) silence: Duration,
    /// It said that it stops, and comes back perhaps.
    pub(super) leaving: bool,
}

/// The member that is to be removed, if one is: the one that was silent longest. What remains keeps a majority of
/// itself alive, and is not below a majority of the servers that the cluster began with.
pub(super) fn dead_member(members: &[Health], after: Duration, alive_below: Duration, expect: u64) -> Option<u64> {
    if after.is_zero() {
        return None;
    }
    let dead = members.iter().filter(|member| member.silence >= after && !member.leaving);
    let gone = dead.max_by_key(|member| (member.silence, member.replica))?;
    if !gone.voter {
        return Some(gone.replica);
    }
    let rest = || members.iter().filter(|member| member.voter && member.replica != gone.replica);
    let alive = rest().filter(|member| member.silence < alive_below).count();
    let enough = alive * 2 > rest().count() && rest().count() as u64 > expect / 2;
    enough.then_some(gone.replica)
}

fn record_of(server: &ServerHello) -> ServerRecord {
    ServerRecord {
        id: server.id.clone(),
        replica: server.replica,
        name: server.name.clone(),
        datacenter: server.datacenter.clone(),
        rpc_addr: server.rpc_addr.clone(),
        http_addr: server.http_addr.clone(),
        build: server.build.clone(),
        ..ServerRecord::default()
    }
}

fn is_same(known: &ServerRecord, new: &ServerRecord) -> bool {
    let bare = ServerRecord { create_index: 0, modify_index: 0, ..known.clone() };
    bare == *new
}

impl Server {
    pub(in crate::server) fn on_members(&mut self, now: Instant, members: Membership) {
        let own = self.settings.replica;
        let was = self.peers.is_member(own.0);
        self.peers.machine.on_members(now, &members);
        self.peers.members = Some(members);
        if was && !self.peers.is_member(own.0) {
            self.peers.machine.set_removed(now, "the log");
        }
        self.perform_peers(now);
        self.refresh_servers(now);
        self.look_soon(now);
        self.look_at_keys(now);
    }

    pub(in crate::server) fn on_progress(&mut self, now: Instant, progress: Vec<Progress>) {
        // What was written since is not yet anybody's lag.
        self.peers.progress_index = self.notified_index;
        self.peers.progress = progress.into_iter().map(|one| (one.replica.0, one)).collect();
        self.refresh_servers(now);
    }

    /// Leadership begins or ends here.
    pub(in crate::server) fn on_leading(&mut self, now: Instant) {
        let leads = self.leader.known.is_self;
        self.peers.changes = Changes { leads_since: leads.then_some(now), ..Changes::default() };
        if !leads {
            self.peers.progress.clear();
        }
        self.peers.machine.book.each(|peer| peer.stable = None);
        self.look_soon(now);
    }

    /// Something changed that a leader may act on.
    pub(super) fn look_soon(&mut self, now: Instant) {
        if self.leader.known.is_self && !self.is_alone() {
            self.peers.changes.look_at = Some(now);
        }
    }

    /// Looks at the members, on the leader.
    pub(super) fn look_at_members(&mut self, now: Instant) {
        if self.peers.changes.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.peers.changes.look_at = None;
        if !self.leader.known.is_self || self.is_alone() {
            return;
        }
        self.peers.changes.look_at = Some(now + LOOK);
        if !self.leader.known.ready {
            return;
        }
        self.note_stability(now);
        self.tell_removed();
        if self.peers.changes.writing == 0 {
            self.write_records();
        }
        if self.peers.changes.under_way.is_some_and(|until| now < until) || self.draining.is_some() {
            return;
        }
        self.peers.changes.under_way = None;
        if let Some((change, what)) = self.next_change(now) {
            let removes = if let MemberChange::Remove(replica) = change { Some(replica.0) } else { None };
            self.log(Level::Info, format!("changing the cluster: {what}"));
            self.change_member(now, change, Change { call: None, what, removes, again: false });
        }
    }

    /// Since when each server is reached and keeps up.
    fn note_stability(&mut self, now: Instant) {
        let config = self.root.load().autopilot_config();
        let (own_index, wall) = (self.peers.progress_index, self.wall);
        let limit = self.settings.election_timeout * 2;
        let links = &self.peers.machine.links;
        let linked: BTreeSet<String> = self
            .peers
            .machine
            .book
            .peers()
            .map(|(id, _)| id)
            .filter(|id| links.to_server(id).is_some())
            .cloned()
            .collect();
        let progress = &self.peers.progress;
        self.peers.machine.book.each(|peer| {
            let known = progress.get(&peer.server.replica);
            let heard = peer.heard.max(known.and_then(|known| known.heard));
            let matched = known.map_or(0, |known| known.matched.0);
            let fine = linked.contains(&peer.server.id)
                && heard.is_some_and(|heard| now.since(heard) < limit)
                && matched.saturating_add(config.max_trailing_logs) >= own_index;
            peer.stable = if fine { peer.stable.or(Some((now, wall))) } else { None };
        });
    }

    /// Servers of this cluster whose log is not empty were members once: they are told that they are none any more.
    fn tell_removed(&mut self) {
        let machine = &self.peers.machine;
        let gone = machine.book.peers().filter(|(_, peer)| {
            let told = peer.told.as_ref().is_some_and(|told| !told.removed && told.cluster_id == machine.cluster_id());
            told && peer.beat.last_index > 0 && !self.peers.is_member(peer.server.replica)
        });
        let links: Vec<_> = gone.filter_map(|(id, _)| machine.links.to_server(id)).collect();
        let beat = Beat { number: 0, ..machine.own_beat.clone() };
        for conn in links {
            // The beat shows that it is the leader of this term who says so.
            self.peers.machine.send(conn, RaftFrame::Beat(beat.clone()));
            self.peers.machine.send(conn, RaftFrame::Refused { reason: REMOVED.to_owned() });
        }
    }

    /// Makes the records in the log true: of members that were heard, and of servers about to be added.
    fn write_records(&mut self) {
        let state = self.root.load_full();
        let machine = &self.peers.machine;
        let mut commands = Vec::new();
        let heard = machine.book.peers().filter(|(id, peer)| {
            let is_ours = peer.told.as_ref().is_some_and(|told| told.cluster_id == machine.cluster_id());
            is_ours && machine.links.to_server(id).is_some()
        });
        let servers = heard.map(|(_, peer)| &peer.server).chain([machine.book.own()]);
        for server in servers.filter(|server| self.peers.is_member(server.replica)) {
            let record = record_of(server);
            if state.server(&record.id).is_none_or(|known| !is_same(known, &record)) {
                commands.push(Command::ServerUpsert(record));
            }
        }
        for record in state.servers() {
            let joins = machine.book.peer(&record.id).is_some_and(|peer| {
                peer.told.as_ref().is_some_and(|told| !told.removed) && machine.links.to_server(&record.id).is_some()
            });
            if !self.peers.is_member(record.replica) && (!joins || self.peers.changes.removed.contains(&record.replica))
            {
                commands.push(Command::ServerRemove { id: record.id.clone() });
            }
        }
        self.peers.changes.writing = commands.len();
        for command in commands {
            self.propose_internal(command, Internal::ServerWritten);
        }
    }

    /// A record was written, or was not.
    pub(in crate::server) fn on_server_written(&mut self, now: Instant) {
        self.peers.changes.writing = self.peers.changes.writing.saturating_sub(1);
        self.refresh_servers(now);
    }

    /// The next change of raft's configuration that makes sense.
    fn next_change(&self, now: Instant) -> Option<(MemberChange, String)> {
        let config = self.root.load().autopilot_config();
        self.joining()
            .or_else(|| self.promotion(now, &config))
            .or_else(|| if config.cleanup_dead_servers { self.removal(now) } else { None })
    }

    fn joining(&self) -> Option<(MemberChange, String)> {
        let machine = &self.peers.machine;
        let (_, peer) = machine.book.peers().find(|(id, peer)| {
            let replica = peer.server.replica;
            let joins = peer.told.as_ref().is_some_and(|told| !told.removed && told.cluster_id == machine.cluster_id());
            let is_new = peer.beat.number > 0 && peer.beat.last_index == 0 && !self.peers.is_member(replica);
            joins && is_new && !self.peers.changes.removed.contains(&replica) && machine.links.to_server(id).is_some()
        })?;
        let what = format!("adding a server: name={} id={}", peer.server.name, peer.server.id);
        Some((MemberChange::AddLearner(ReplicaId(peer.server.replica)), what))
    }

    fn promotion(&self, now: Instant, config: &AutopilotConfig) -> Option<(MemberChange, String)> {
        let wait = Duration::from_nanos(u64::try_from(config.server_stabilization_time).unwrap_or(0));
        let learners = &self.peers.members.as_ref()?.learners;
        let peer = learners.iter().find_map(|replica| {
            let peer = self.peers.machine.book.by_replica(replica.0)?;
            peer.stable.is_some_and(|(since, _)| now.since(since) >= wait).then_some(peer)
        })?;
        let what = format!("giving a server its vote: name={} id={}", peer.server.name, peer.server.id);
        Some((MemberChange::Promote(ReplicaId(peer.server.replica)), what))
    }

    fn removal(&self, now: Instant) -> Option<(MemberChange, String)> {
        let members = self.peers.members.as_ref()?;
        let since = self.peers.changes.leads_since?;
        let own = self.settings.replica;
        let health = |replica: &ReplicaId, voter: bool| {
            let peer = self.peers.machine.book.by_replica(replica.0);
            let progress = self.peers.progress.get(&replica.0).and_then(|progress| progress.heard);
            // Nobody is silent for longer than this server has been listening as the leader.
            let heard = peer.and_then(|peer| peer.heard).max(progress).unwrap_or(since).max(since);
            Health {
                replica: replica.0,
                voter,
                silence: if *replica == own { Duration::ZERO } else { now.since(heard) },
                leaving: peer.is_some_and(|peer| peer.beat.leaving),
            }
        };
        let voters = members.voters.iter().map(|replica| health(replica, true));
        let all: Vec<Health> = voters.chain(members.learners.iter().map(|replica| health(replica, false))).collect();
        let alive = self.settings.election_timeout * 2;
        let dead = dead_member(&all, self.settings.dead_server_after, alive, self.settings.bootstrap_expect)?;
        let name = self.peers.machine.book.by_replica(dead).map(|peer| peer.server.name.clone()).unwrap_or_default();
        let after = self.settings.dead_server_after;
        let what = format!("removing a server that was not heard: name={name} replica={dead} limit={after:?}");
        Some((MemberChange::Remove(ReplicaId(dead)), what))
    }

    fn change_member(&mut self, now: Instant, change: MemberChange, waits: Change) {
        self.peers.changes.under_way = Some(now + CHANGE_TIMEOUT);
        let id = self.internal_id(Internal::Member(Box::new(waits)));
        self.to_consensus.push(consensus::Input::ChangeMember { id, change });
    }

    /// What became of a change.
    pub(in crate::server) fn on_change_resolved(&mut self, now: Instant, change: Change, resolution: Resolution) {
        self.peers.changes.under_way = None;
        if let (Some(replica), Resolution::Applied { .. }) = (change.removes, &resolution) {
            self.peers.changes.removed.insert(replica);
        }
        let line = match &resolution {
            Resolution::Applied { .. } => (Level::Info, format!("cluster changed: {}", change.what)),
            Resolution::NotLeader => (Level::Info, format!("cluster not changed, leadership lost: {}", change.what)),
            Resolution::Rejected(why) => (Level::Warn, format!("cluster not changed: {} error={why:?}", change.what)),
            Resolution::Unknown => (Level::Warn, format!("cluster perhaps changed: {}", change.what)),
        };
        self.log(line.0, line.1);
        self.look_soon(now);
        let Some((call, reply)) = change.call else { return };
        if self.active(call).is_none() {
            return;
        }
        match resolution {
            Resolution::Applied { .. } if change.again => self.hold(now, call),
            Resolution::Applied { index, .. } => {
                if let Some(active) = self.active(call) {
                    active.written = Some(Written::at(index));
                }
                self.answer(now, call, *reply);
            }
            Resolution::NotLeader => self.hold(now, call),
            Resolution::Rejected(why) => self.answer_error(now, call, &why),
            Resolution::Unknown => self.answer_error(now, call, LEADERSHIP_LOST),
        }
    }

    /// Does what an operator asked for, on the leader.
    pub(in crate::server) fn change_cluster(
        &mut self,
        now: Instant,
        call: CallId,
        change: ClusterChange,
        reply: Reply,
    ) {
        if !self.leader.view().is_self {
            return self.hold(now, call);
        }
        let (ClusterChange::RemovePeer { id } | ClusterChange::TransferLeadership { to: Some(id) }) = &change else {
            return self.transfer(None, Change::asked(call, reply, "handing leadership over".to_owned()));
        };
        let server = self.ctx.servers.iter().find(|server| server.id == *id && server.is_member);
        let replica = server.map(|server| ReplicaId(server.replica));
        let Some(replica) = replica else {
            let text = format!("id {id:?} was not found in the Raft configuration");
            return self.answer_error(now, call, &text);
        };
        let is_self = replica == self.settings.replica;
        match change {
            ClusterChange::TransferLeadership { .. } if is_self => self.answer(now, call, reply),
            ClusterChange::TransferLeadership { .. } => {
                let what = format!("handing leadership over: to={id}");
                self.transfer(Some(replica), Change::asked(call, reply, what));
            }
            ClusterChange::RemovePeer { .. } if is_self => {
                let what = format!("handing leadership over, to be removed: id={id}");
                self.transfer(None, Change { again: true, ..Change::asked(call, reply, what) });
            }
            ClusterChange::RemovePeer { .. } => {
                let what = format!("removing a server as asked: id={id}");
                let waits = Change { removes: Some(replica.0), ..Change::asked(call, reply, what) };
                self.change_member(now, MemberChange::Remove(replica), waits);
            }
        }
    }

    fn transfer(&mut self, to: Option<ReplicaId>, waits: Change) {
        let id = self.internal_id(Internal::Member(Box::new(waits)));
        self.to_consensus.push(consensus::Input::Transfer { id, to });
    }

    /// Hands leadership over before this server stops. False when there is nobody to hand it to.
    pub(in crate::server) fn hand_over(&mut self) -> bool {
        let voters = self.peers.members.as_ref().map_or(0, |members| members.voters.len());
        if !self.leader.known.is_self || voters < 2 {
            return false;
        }
        let what = "handing leadership over before the stop".to_owned();
        self.transfer(None, Change { call: None, what, removes: None, again: false });
        true
    }
}

impl Change {
    fn asked(call: CallId, reply: Reply, what: String) -> Change {
        Change { call: Some((call, Box::new(reply))), what, removes: None, again: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_member_goes_only_while_the_rest_can_do_without() {
        let s = Duration::from_secs;
        let member = |replica, silence| Health { replica, voter: true, silence: s(silence), leaving: false };
        let learner = |replica, silence| Health { voter: false, ..member(replica, silence) };
        let leaving = |replica, silence| Health { leaving: true, ..member(replica, silence) };
        type Case = (&'static str, Vec<Health>, u64, Option<u64>);
        let cases: Vec<Case> = vec![
            ("all alive", vec![member(1, 0), member(2, 0), member(3, 1)], 3, None),
            ("one of three", vec![member(1, 0), member(2, 0), member(3, 99)], 3, Some(3)),
            ("two of three", vec![member(1, 0), member(2, 99), member(3, 99)], 3, None),
            ("it only restarts", vec![member(1, 0), member(2, 0), leaving(3, 99)], 3, None),
            ("one of two that are left of three", vec![member(1, 0), member(2, 99)], 3, None),
            (
                "two of five, one after the other",
                vec![member(1, 0), member(2, 0), member(3, 0), member(4, 70), member(5, 99)],
                5,
                Some(5),
            ),
            ("below the majority of five", vec![member(1, 0), member(2, 0), member(3, 99)], 5, None),
            ("a learner", vec![member(1, 0), member(2, 99), learner(3, 100)], 3, Some(3)),
        ];
        for (name, members, expect, gone) in cases {
            assert_eq!(dead_member(&members, s(60), s(1), expect), gone, "{name}");
        }
        let members = [member(1, 0), member(2, 0), member(3, 99)];
        assert_eq!(dead_member(&members, s(0), s(1), 3), None, "never, when it is so configured");
    }
}
