//! The table of nodes and what each command does to it.
//!
//! Nothing here waits or asks: a command is applied or refused as a whole, alike on every replica. Source: endpoint
//! notes, 3.2.
//!
//! **Invariant:** the secrets lead to exactly the nodes that are in the table.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::base::id::Index;
use crate::state::events::{self, Event};
use crate::state::node::{MAX_EVENTS, Node, NodeStatus};
use crate::state::registration::Registration;
use crate::state::secret::{SecretIndex, same_secret};
use crate::state::table::Table;
use crate::state::watch::WatchKey;
use crate::state::{Applied, ApplyResult};
use crate::wire::body::node::{DrainStrategy, LastDrain, NodeEvent, go_time, go_zero_time};
use crate::wire::msgpack::Bytes;

const NOT_FOUND: &str = "node not found";
const CLUSTER: &str = "Cluster";
const DRAIN: &str = "Drain";

/// When an entry is applied: its index, and the leader's time in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) index: Index,
    /// Nanoseconds since the Unix epoch.
    pub(super) time_unix_nanos: i64,
}

impl At {
    fn unix_seconds(self) -> i64 {
        self.time_unix_nanos.div_euclid(1_000_000_000)
    }

    fn event(self, subsystem: &str, message: &str) -> NodeEvent {
        NodeEvent {
            message: message.to_owned(),
            subsystem: subsystem.to_owned(),
            details: None,
            timestamp: go_time(self.time_unix_nanos),
            create_index: self.index.0,
        }
    }
}

/// What a status update asks for, beside the node.
pub(super) struct StatusUpdate<'a> {
    pub(super) status: &'a str,
    pub(super) event: Option<&'a NodeEvent>,
    /// Seconds since the Unix epoch; 0 for the entry's time.
    pub(super) updated_at: i64,
    pub(super) identity_signing_key_id: &'a str,
    pub(super) expected_modify_index: Option<u64>,
}

/// What a drain update asks for, beside the node.
pub(super) struct DrainUpdate<'a> {
    pub(super) strategy: Option<&'a DrainStrategy>,
    pub(super) mark_eligible: bool,
    pub(super) meta: &'a BTreeMap<String, String>,
    pub(super) accessor_id: &'a str,
}

/// The nodes, and which secret is whose.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    table: Table<Node>,
    secrets: SecretIndex,
}

impl Nodes {
    pub(super) fn table(&self) -> &Table<Node> {
        &self.table
    }

    pub(super) fn by_secret(&self, secret_id: &str) -> Option<&Arc<Node>> {
        let candidates = self.secrets.candidates(secret_id).iter();
        candidates.filter_map(|id| self.table.row(id)).find(|node| same_secret(&node.secret_id, secret_id))
    }

    /// Puts back a node that a snapshot holds.
    pub(super) fn restore(&mut self, node: Node) {
        self.secrets.add(&node.secret_id, &node.id);
        // A node's own index may be below that of the table, which is restored apart.
        self.table.put(Index(node.modify_index), Arc::clone(&node.id), Arc::new(node));
    }

    /// Puts back the table's index.
    pub(super) fn restore_index(&mut self, index: Index) {
        self.table.touch(index);
    }

    /// Makes every index above `most` that one, and the table's own too.
    pub(super) fn lower_indexes(&mut self, most: Index) {
        let most_of = |node: &Node| {
            let own = [node.modify_index, node.last_missed_heartbeat_index, node.last_alloc_update_index];
            let events = node.events.iter().map(|event| event.create_index).max();
            own.into_iter().chain(events).max().unwrap_or(0).max(node.create_index)
        };
        self.table.lower(most, |node| {
            if most_of(node) <= most.0 {
                return None;
            }
            let mut node = node.clone();
            for index in [
                &mut node.create_index,
                &mut node.modify_index,
                &mut node.last_missed_heartbeat_index,
                &mut node.last_alloc_update_index,
            ] {
                *index = (*index).min(most.0);
            }
            for event in &mut node.events {
                event.create_index = event.create_index.min(most.0);
            }
            Some(node)
        });
    }

    /// Node.Register: a new node, or new words of a known one.
    pub(super) fn register(&mut self, at: At, node: &[u8]) -> Applied {
        let said = match Registration::read(node) {
            Ok(said) => said,
            Err(error) => return refused(format!("node is malformed: {error}")),
        };
        if let Some(lacking) = lacking(&said) {
            return refused(format!("missing {lacking} for client registration"));
        }
        if !said.status.is_empty() && NodeStatus::from_word(said.status).is_none() {
            return refused("invalid status for node");
        }
        let node = match self.table.row(said.id) {
            Some(stored) if !same_secret(&stored.secret_id, said.secret_id) => {
                return refused("node secret ID does not match. Not registering node.");
            }
            Some(stored) => known_node(at, &said, stored),
            None => new_node(at, &said),
        };
        self.secrets.add(&node.secret_id, &node.id);
        self.put(at, node, events::NODE_REGISTRATION)
    }

    /// Node.UpdateStatus: a heartbeat that changes something, or one that was missed.
    pub(super) fn update_status(&mut self, at: At, id: &str, update: &StatusUpdate<'_>) -> Applied {
        let Some(stored) = self.table.row(id) else { return refused(NOT_FOUND) };
        let Some(status) = NodeStatus::from_word(update.status) else { return refused("invalid status for node") };
        if update.expected_modify_index.is_some_and(|expected| expected != stored.modify_index) {
            return refused("node was written meanwhile");
        }
        let mut node = Node::clone(stored);
        if let Some(event) = update.event {
            push_event(&mut node, at, event.clone());
        }
        if node.status == NodeStatus::Down && status != NodeStatus::Down {
            push_event(&mut node, at, at.event(CLUSTER, "Node reregistered by heartbeat"));
        }
        if status == NodeStatus::Ready {
            node.last_missed_heartbeat_index = 0;
        } else if status == NodeStatus::Down && node.status != NodeStatus::Down {
            node.last_missed_heartbeat_index = at.index.0;
        }
        node.status = status;
        node.status_updated_at = if update.updated_at == 0 { at.unix_seconds() } else { update.updated_at };
        if !update.identity_signing_key_id.is_empty() {
            node.identity_signing_key_id = update.identity_signing_key_id.into();
        }
        self.write(at, node, events::NODE_STREAM_EVENT)
    }

    /// Node.Deregister and Node.BatchDeregister: all of the nodes, or none.
    pub(super) fn deregister(&mut self, at: At, ids: &[String]) -> Applied {
        let ids: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        if ids.is_empty() {
            return refused("missing node IDs for client deregistration");
        }
        if ids.iter().any(|id| self.table.row(id).is_none()) {
            return refused(NOT_FOUND);
        }
        let mut applied = Applied { touched: vec![WatchKey::nodes()].into(), ..Applied::default() };
        for id in ids {
            if let Some(node) = self.table.remove(at.index, id) {
                self.secrets.remove(&node.secret_id, id);
                applied.touched.keys.push(WatchKey::node(id));
                applied.events.push(Event::of_node(events::NODE_DEREGISTRATION, &node));
            }
        }
        applied
    }

    /// Node.UpdateDrain: a strategy is set, changed or removed.
    pub(super) fn update_drain(&mut self, at: At, id: &str, update: &DrainUpdate<'_>) -> Applied {
        let Some(stored) = self.table.row(id) else { return refused(NOT_FOUND) };
        let mut node = Node::clone(stored);
        let message = match (&node.drain, update.strategy) {
            (None, Some(_)) => Some("Node drain strategy set"),
            (Some(_), Some(_)) => Some("Node drain strategy updated"),
            (Some(_), None) => Some("Node drain disabled"),
            (None, None) => None,
        };
        if let Some(message) = message {
            push_event(&mut node, at, at.event(DRAIN, message));
            note_drain(&mut node, at, update);
        }
        node.drain = update.strategy.map(|asked| timed_strategy(asked, at, node.drain.as_ref()));
        node.eligible = node.drain.is_none() && (node.eligible || update.mark_eligible);
        node.status_updated_at = at.unix_seconds();
        let mut applied = self.write(at, node, events::NODE_DRAIN);
        if update.strategy.is_some() {
            applied.result = ApplyResult::DrainStarted;
        }
        applied
    }

    /// Ends the drain of a node that has nothing left to move. It stays ineligible.
    pub(super) fn drain_complete(&mut self, at: At, id: &str) -> Applied {
        let Some(stored) = self.table.row(id) else { return refused(NOT_FOUND) };
        if stored.drain.is_none() {
            return refused("node is not draining");
        }
        let mut node = Node::clone(stored);
        push_event(&mut node, at, at.event(DRAIN, "Node drain complete"));
        node.drain = None;
        node.status_updated_at = at.unix_seconds();
        if let Some(last) = &mut node.last_drain {
            last.status = "complete".to_owned();
            last.updated_at = go_time(at.time_unix_nanos);
        }
        self.write(at, node, events::NODE_DRAIN)
    }

    /// Node.UpdateEligibility. A node that is already so stays as it is.
    pub(super) fn update_eligibility(&mut self, at: At, id: &str, eligibility: &str) -> Applied {
        let eligible = match eligibility {
            "eligible" => true,
            "ineligible" => false,
            other => return refused(format!("invalid scheduling eligibility {other:?}")),
        };
        let Some(stored) = self.table.row(id) else { return refused(NOT_FOUND) };
        if eligible && stored.drain.is_some() {
            return refused("can not set node's scheduling eligibility to eligible while it is draining");
        }
        if stored.eligible == eligible {
            return Applied::default();
        }
        let mut node = Node::clone(stored);
        let message = if eligible {
            "Node marked as eligible for scheduling"
        } else {
            "Node marked as ineligible for scheduling"
        };
        push_event(&mut node, at, at.event(CLUSTER, message));
        node.eligible = eligible;
        node.status_updated_at = at.unix_seconds();
        self.write(at, node, events::NODE_ELIGIBILITY)
    }

    /// Node.EmitEvents: all of the events, or none. The nodes themselves count as unchanged, so that whoever waits
    /// for one of them is not answered.
    pub(super) fn emit_events(&mut self, at: At, emitted: &BTreeMap<String, Vec<NodeEvent>>) -> Applied {
        if emitted.is_empty() {
            return refused("no node events given");
        }
        if let Some((id, _)) = emitted.iter().find(|(_, events)| events.is_empty()) {
            return refused(format!("no node events given for node {id:?}"));
        }
        let mut changed = Vec::with_capacity(emitted.len());
        for (id, events) in emitted {
            let Some(stored) = self.table.row(id) else { return refused(NOT_FOUND) };
            let mut node = Node::clone(stored);
            // Of many, only the last are kept anyway.
            for event in &events[events.len().saturating_sub(MAX_EVENTS)..] {
                push_event(&mut node, at, event.clone());
            }
            changed.push(Arc::new(node));
        }
        let mut applied = Applied { touched: vec![WatchKey::nodes()].into(), ..Applied::default() };
        for node in changed {
            applied.events.push(Event::of_node(events::NODE_STREAM_EVENT, &node));
            self.table.put(at.index, Arc::clone(&node.id), node);
        }
        applied
    }

    /// Stores a changed node.
    fn write(&mut self, at: At, mut node: Node, kind: &'static str) -> Applied {
        node.modify_index = at.index.0;
        self.put(at, node, kind)
    }

    fn put(&mut self, at: At, node: Node, kind: &'static str) -> Applied {
        let node = Arc::new(node);
        let applied = Applied {
            result: ApplyResult::Done,
            touched: vec![WatchKey::nodes(), WatchKey::node(&node.id)].into(),
            events: vec![Event::of_node(kind, &node)],
        };
        self.table.put(at.index, Arc::clone(&node.id), node);
        applied
    }

    /// Panics unless the secrets and the table fit together.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.secrets.pairs(), self.table.len());
        for node in self.table.rows_from("") {
            assert!(self.secrets.candidates(&node.secret_id).contains(&node.id));
            assert!(node.events.len() <= MAX_EVENTS);
            assert!(node.create_index <= node.modify_index && node.modify_index <= self.table.index().0);
            assert!(!(node.eligible && node.drain.is_some()));
        }
    }
}

fn refused(why: impl Into<String>) -> Applied {
    Applied { result: ApplyResult::Refused(why.into()), ..Applied::default() }
}

/// What a node cannot be kept without.
fn lacking(said: &Registration<'_>) -> Option<&'static str> {
    let needed = [
        (said.id, "node ID"),
        (said.datacenter, "datacenter"),
        (said.name, "node name"),
        (said.secret_id, "node secret ID"),
    ];
    needed.into_iter().find(|(value, _)| value.is_empty()).map(|(_, name)| name)
}

/// A node that was not there before.
fn new_node(at: At, said: &Registration<'_>) -> Node {
    let (rest, rest_len) = said.rest();
    // Whole seconds and index 0: as Nomad writes its first event.
    let timestamp = go_time(at.unix_seconds().saturating_mul(1_000_000_000));
    let registered = NodeEvent { timestamp, create_index: 0, ..at.event(CLUSTER, "Node registered") };
    Node {
        id: said.id.into(),
        secret_id: said.secret_id.into(),
        name: said.name.into(),
        datacenter: said.datacenter.into(),
        node_pool: if said.node_pool.is_empty() { "default" } else { said.node_pool }.into(),
        node_class: said.node_class.into(),
        computed_class: said.computed_class(),
        http_addr: said.http_addr.into(),
        version: said.version().into(),
        status: NodeStatus::from_word(said.status).unwrap_or_default(),
        status_description: said.status_description.into(),
        status_updated_at: at.unix_seconds(),
        eligible: said.eligibility != "ineligible",
        drain: None,
        last_drain: None,
        events: vec![registered],
        last_missed_heartbeat_index: 0,
        last_alloc_update_index: 0,
        identity_signing_key_id: said.identity_signing_key_id.into(),
        create_index: at.index.0,
        modify_index: at.index.0,
        rest,
        rest_len,
    }
}

/// A node that registers again: what it says of itself is new, what the server owns stays.
fn known_node(at: At, said: &Registration<'_>, stored: &Node) -> Node {
    let mut node = Node {
        id: Arc::clone(&stored.id),
        secret_id: Arc::clone(&stored.secret_id),
        status: stored.status,
        eligible: stored.eligible,
        drain: stored.drain.clone(),
        last_drain: stored.last_drain.clone(),
        events: stored.events.clone(),
        last_missed_heartbeat_index: stored.last_missed_heartbeat_index,
        last_alloc_update_index: stored.last_alloc_update_index,
        create_index: stored.create_index,
        ..new_node(at, said)
    };
    if node.identity_signing_key_id.is_empty() {
        node.identity_signing_key_id = Arc::clone(&stored.identity_signing_key_id);
    }
    // Only a heartbeat changes the status, and only it brings back a node that is down. Agents of the 1.1 line
    // however say with their second registration that they are ready, and wait for it (seen with 1.1.2).
    if said.status == NodeStatus::Ready.as_str() && stored.status != NodeStatus::Down && said.registers_its_status() {
        node.status = NodeStatus::Ready;
        node.last_missed_heartbeat_index = 0;
    }
    node
}

/// Appends an event of this entry; the oldest goes when there are too many.
fn push_event(node: &mut Node, at: At, mut event: NodeEvent) {
    event.create_index = at.index.0;
    if event.timestamp == Bytes::default() {
        event.timestamp = go_time(at.time_unix_nanos);
    }
    node.events.push(event);
    let surplus = node.events.len().saturating_sub(MAX_EVENTS);
    node.events.drain(..surplus);
}

/// The strategy with its times: it begins now, or when the drain that it changes began.
fn timed_strategy(asked: &DrainStrategy, at: At, running: Option<&DrainStrategy>) -> DrainStrategy {
    let force_deadline = match asked.deadline {
        1.. => go_time(at.time_unix_nanos.saturating_add(asked.deadline)),
        _ => go_zero_time(),
    };
    let started_at = running.map_or_else(|| go_time(at.time_unix_nanos), |running| running.started_at.clone());
    DrainStrategy { force_deadline, started_at, ..asked.clone() }
}

/// Brings LastDrain up to date, before the strategy is changed.
fn note_drain(node: &mut Node, at: At, update: &DrainUpdate<'_>) {
    let now = go_time(at.time_unix_nanos);
    let status = if update.strategy.is_some() { "draining" } else { "canceled" };
    let running = node.last_drain.take().filter(|_| node.drain.is_some());
    let meta = Some(update.meta.clone()).filter(|meta| !meta.is_empty());
    node.last_drain = Some(LastDrain {
        started_at: running.as_ref().map_or_else(|| now.clone(), |last| last.started_at.clone()),
        updated_at: now,
        status: status.to_owned(),
        accessor_id: update.accessor_id.to_owned(),
        meta: meta.or_else(|| running.and_then(|last| last.meta)),
    });
}
