//! Tests of the state as a whole: what each command does, what replicas share, what a snapshot keeps.

mod acl;
mod commands;
mod drain;
mod fences;
mod forms;
mod locks;
mod namespaces;
mod operators;
mod random;
mod sections;
mod sessions;
mod snapshots;
mod var_model;
mod vars;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::node::{DrainStrategy, NodeEvent};
use crate::wire::msgpack::{Encoder, Msg, Raw};

/// Nanoseconds; entry `n` has the time `n` seconds and a half after this.
const START: i64 = 1_795_262_155_000_000_000;

/// A node as an agent sends it, with the fields that tests change.
#[derive(Clone, Debug)]
struct Sent {
    id: String,
    secret: String,
    status: String,
    version: String,
    /// More fields: name and value as msgpack.
    more: Vec<(&'static str, Vec<u8>)>,
}

fn sent(id: &str) -> Sent {
    Sent {
        id: id.into(),
        secret: format!("secret-{id}"),
        status: "initializing".into(),
        version: "2.0.5".into(),
        more: Vec::new(),
    }
}

impl Sent {
    fn status(mut self, status: &str) -> Sent {
        self.status = status.into();
        self
    }

    fn version(mut self, version: &str) -> Sent {
        self.version = version.into();
        self
    }

    fn with(mut self, name: &'static str, value: impl Msg) -> Sent {
        self.more.push((name, value.to_bytes()));
        self
    }

    fn command(&self) -> Command {
        let mut e = Encoder::new();
        e.map(7 + self.more.len());
        for (name, value) in [
            ("ID", &*self.id),
            ("SecretID", &*self.secret),
            ("Datacenter", "dc1"),
            ("Name", "name"),
            ("HTTPAddr", "127.0.0.1:4646"),
            ("Status", &*self.status),
        ] {
            e.str(name);
            e.str(value);
        }
        e.str("Attributes");
        let attributes = [("nomad.version", &*self.version), ("unique.hostname", &*self.id)];
        texts(&attributes).encode(&mut e);
        for (name, value) in &self.more {
            e.str(name);
            e.raw(value);
        }
        Command::NodeRegister { node: Raw(e.out.into()) }
    }
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn heartbeat(id: &str, status: &str) -> Command {
    Command::NodeUpdateStatus {
        node_id: id.into(),
        status: status.into(),
        event: None,
        updated_at: 0,
        identity_signing_key_id: String::new(),
        expected_modify_index: None,
    }
}

fn deregister(ids: &[&str]) -> Command {
    Command::NodeDeregister { node_ids: ids.iter().map(|id| id.to_string()).collect() }
}

fn drain(id: &str, strategy: Option<DrainStrategy>, mark_eligible: bool) -> Command {
    Command::NodeUpdateDrain {
        node_id: id.into(),
        strategy,
        mark_eligible,
        meta: texts(&[("why", "rust")]),
        accessor_id: "token:a".into(),
    }
}

fn complete(id: &str) -> Command {
    Command::NodeDrainComplete { node_id: id.into() }
}

fn eligibility(id: &str, eligibility: &str) -> Command {
    Command::NodeUpdateEligibility { node_id: id.into(), eligibility: eligibility.into() }
}

fn emit(id: &str, messages: &[&str]) -> Command {
    let event =
        |message: &&str| NodeEvent { message: message.to_string(), subsystem: "Driver".into(), ..NodeEvent::default() };
    Command::NodeEmitEvents { events: [(id.to_owned(), messages.iter().map(event).collect())].into() }
}

fn signing_key(id: &str) -> Command {
    Command::SigningKeyAdd { key_id: id.into(), public_key: vec![id.len() as u8; 32], create_time: 9 }
}

/// The time of the entry at `index`.
fn time_at(index: u64) -> i64 {
    START + index as i64 * 1_000_000_000 + 500_000_000
}

/// A state and the entries that made it.
#[derive(Clone, Default)]
struct World {
    state: State,
}

impl World {
    fn of(commands: impl IntoIterator<Item = Command>) -> World {
        let mut world = World::default();
        for command in commands {
            world.apply(command);
        }
        world
    }

    /// Applies a command at the next index.
    fn apply(&mut self, command: Command) -> Applied {
        self.apply_at(time_at(self.state.index().0 + 1), command)
    }

    /// Applies a command at the next index, with another time in its entry.
    fn apply_at(&mut self, time_unix_nanos: i64, command: Command) -> Applied {
        let entry = Entry { time_unix_nanos, session: None, command };
        let applied = self.state.apply(Index(self.state.index().0 + 1), Term(1), &entry);
        self.state.nodes.check_invariants();
        self.state.vars.check_invariants();
        applied
    }

    /// Applies a command that is refused, and sees that it changed nothing but the place in the log.
    fn refuse(&mut self, command: Command) -> String {
        let before = self.state.clone();
        let applied = self.apply(command);
        assert_eq!((applied.touched.keys, applied.events), (vec![], vec![]));
        assert_eq!(nodes(&before), nodes(&self.state));
        assert_eq!(before.nodes_index(), self.state.nodes_index());
        match applied.result {
            ApplyResult::Refused(why) => why,
            other => panic!("{other:?} is no refusal"),
        }
    }

    fn node(&self, id: &str) -> &Node {
        self.state.node(id).unwrap()
    }
}

fn nodes(state: &State) -> Vec<Arc<Node>> {
    state.nodes_from("").cloned().collect()
}

/// Kinds of the events of one entry, each checked to be about the node as it now is.
fn kinds(applied: &Applied) -> Vec<&'static str> {
    for event in &applied.events {
        assert_eq!((event.topic, &*event.namespace, event.filter_keys.len()), ("Node", "", 0));
        let payload: serde_json::Value = serde_json::from_str(&event.payload.json()).unwrap();
        assert_eq!(payload["Node"]["ID"], *event.key);
        assert_eq!(payload["Node"]["SecretID"], "");
    }
    applied.events.iter().map(|event| event.kind).collect()
}

/// The messages of a node's events, oldest first.
fn messages(node: &Node) -> Vec<&str> {
    node.events.iter().map(|event| &*event.message).collect()
}
