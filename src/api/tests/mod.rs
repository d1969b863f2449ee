//! A server's state, its facts and one connection, driven as the server drives handlers: without a clock or a socket.

#![allow(clippy::unwrap_used)]

mod acl_world;
mod agents;
mod cluster;
mod filters;
mod identities;
mod locks;
mod methods;
mod namespaces;
mod nodes;
mod operators;
mod policies;
mod rights;
mod streams;
mod subscriptions;
mod tokens;
mod variable_checks;
mod variable_lists;
mod variable_rights;
mod variable_txn;
mod variable_vectors;
mod variables;
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use super::outcome::{Effect, Outcome, Park, ReplyResult, Resolved, ToNode};
use super::*;
use crate::base::id::{Index, Term};
use crate::wire::entry::{Command, Entry};
use crate::wire::msgpack::{Encoder, Msg, Raw};

pub(super) const NODE: &str = "a1b2c3d4-0001-0002-0003-00000000abcd";
pub(super) const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";
pub(super) const OTHER: &str = "b1b2c3d4-0001-0002-0003-00000000abcd";
pub(super) const OTHER_SECRET: &str = "6ec7e700-0001-0002-0003-00000000abcd";
/// 2026-11-21T11:41:40Z.
pub(super) const NOW: i64 = 1_795_261_300_000_000_000;

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Came {
    /// What a server would go on with.
    Other(Outcome),
    Body(Vec<u8>),
    Error(String),
    BadArguments(String),
    Park(Park),
    ToNode(ToNode),
}

impl Came {
    #[track_caller]
    pub(super) fn body<T: Msg>(&self) -> T {
        let Came::Body(bytes) = self else { panic!("no body: {self:?}") };
        T::from_bytes(bytes).unwrap()
    }

    #[track_caller]
    pub(super) fn error(&self) -> &str {
        let Came::Error(text) = self else { panic!("no error: {self:?}") };
        text
    }
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) ctx: Ctx,
    pub(super) caller: Caller,
    pub(super) last_run: bool,
    /// Effects of the last call, without the writes, which are applied.
    pub(super) effects: Vec<Effect>,
    /// Entries written so far.
    pub(super) written: Vec<Command>,
}

impl World {
    pub(super) fn new() -> World {
        let server = |name: &str, addr: &str| ServerEntry {
            name: name.to_owned(),
            id: "ac5f8898-16df-9985-dd63-14f4b415308e".to_owned(),
            rpc_addr: addr.to_owned(),
            datacenter: "dc1".to_owned(),
            voter: true,
            is_member: true,
            ..ServerEntry::default()
        };
        let facts = ServerFacts {
            name: "golden".to_owned(),
            id: "ac5f8898-16df-9985-dd63-14f4b415308e".to_owned(),
            region: "global".to_owned(),
            datacenter: "dc1".to_owned(),
            regions: vec!["global".to_owned()],
            rpc_addr: "127.0.0.1:24647".to_owned(),
            bootstrap_expect: 1,
            verify_tls_names: false,
            acl_enabled: false,
            variables_max_bytes: 65_536,
            locks_min_ttl: Duration::from_secs(10),
            entropy: secrets::Entropy([7; 32]),
            config_json: "{}".into(),
        };
        World {
            state: State::new(),
            ctx: Ctx {
                server: Arc::new(facts),
                leader_rpc_addr: "127.0.0.1:24647".into(),
                is_leader: true,
                raft: RaftFacts { last_term: 2, last_index: 77, applied: 77, voters: 1, ..RaftFacts::default() },
                servers: Arc::from([server("golden", "127.0.0.1:24647")]),
                last_contact: Duration::ZERO,
                known_leader: true,
                wall: WallTime::from_unix_nanos(NOW),
                heartbeat_ttl: Duration::from_millis(14_500),
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
            },
            caller: World::connection(),
            last_run: false,
            effects: Vec::new(),
            written: Vec::new(),
        }
    }

    /// A connection that showed nothing.
    pub(super) fn connection() -> Caller {
        Caller { peer: "192.0.2.7:4000".parse().unwrap(), tls_names: None, proven_node: None, good_token: None }
    }

    /// With a node that a fresh connection registered.
    pub(super) fn with_node() -> World {
        let mut world = World::new();
        world.register(NODE, SECRET);
        world.caller = World::connection();
        world
    }

    pub(super) fn register(&mut self, id: &str, secret: &str) -> Came {
        let node = node_map(id, secret, "2.0.5");
        self.call("Node.Register", &[("Node", raw(&node)), ("Region", text("global"))])
    }

    /// Calls with a body of these fields.
    pub(super) fn call(&mut self, method: &str, fields: &[(&str, Vec<u8>)]) -> Came {
        self.call_bytes(method, &map(fields))
    }

    /// Calls, writes what is to be written, and does what the server does with effects.
    pub(super) fn call_bytes(&mut self, name: &str, body: &[u8]) -> Came {
        let method = method(name).unwrap();
        let mut outcome = run_call(method, body, 100, &self.caller, self.last_run, &self.state, &self.ctx);
        self.effects.clear();
        if let Outcome::Propose { command, finish: then } = outcome {
            let resolved = self.write(command);
            outcome = finish(&then, &resolved, &self.state, &self.ctx);
        }
        match outcome {
            Outcome::Reply(reply) => {
                for effect in reply.effects {
                    match effect {
                        Effect::Propose(command) => {
                            self.write(command);
                        }
                        Effect::ProveNode(id) => {
                            self.caller.proven_node = Some(id.clone());
                            self.effects.push(Effect::ProveNode(id));
                        }
                        other => self.effects.push(other),
                    }
                }
                match reply.result {
                    ReplyResult::Body(bytes) => Came::Body(bytes.to_vec()),
                    ReplyResult::Error(text) => Came::Error(text),
                    ReplyResult::BadArguments(text) => Came::BadArguments(text),
                }
            }
            Outcome::Park(park) => Came::Park(park),
            Outcome::ToNode(call) => Came::ToNode(call),
            other @ (Outcome::Propose { .. }
            | Outcome::Queue(_)
            | Outcome::MakeKey { .. }
            | Outcome::Cluster { .. }) => Came::Other(other),
        }
    }

    pub(super) fn write(&mut self, command: Command) -> Resolved {
        let index = Index(self.state.index().0 + 1);
        self.written.push(command.clone());
        let entry = Entry { time_unix_nanos: NOW, session: None, command };
        let applied = self.state.apply(index, Term(1), &entry);
        Resolved { index, result: applied.result }
    }

    /// Calls a streaming method.
    pub(super) fn stream(&self, name: &str, body: &[u8]) -> outcome::StreamOutcome {
        run_streaming(streaming_method(name).unwrap(), body, 40, &self.caller, &self.state, &self.ctx)
    }
}

/// A map of these fields.
pub(super) fn map(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut e = Encoder::new();
    e.map(fields.len());
    for (key, value) in fields {
        e.str(key);
        e.raw(value);
    }
    e.out
}

pub(super) fn text(value: &str) -> Vec<u8> {
    value.to_owned().to_bytes()
}

pub(super) fn number(value: u64) -> Vec<u8> {
    value.to_bytes()
}

pub(super) fn truth(value: bool) -> Vec<u8> {
    value.to_bytes()
}

pub(super) fn raw(value: &[u8]) -> Vec<u8> {
    value.to_vec()
}

pub(super) fn texts(pairs: &[(&str, &str)]) -> Vec<u8> {
    map(&pairs.iter().map(|(key, value)| (*key, text(value))).collect::<Vec<_>>())
}

/// A node as an agent sends it.
pub(super) fn node_map(id: &str, secret: &str, version: &str) -> Vec<u8> {
    map(&[
        ("ID", text(id)),
        ("SecretID", text(secret)),
        ("Datacenter", text("dc1")),
        ("Name", text("golden-node")),
        ("HTTPAddr", text("127.0.0.1:24700")),
        ("Attributes", texts(&[("nomad.version", version), ("os.name", "debian"), ("unique.hostname", "h1")])),
        ("Meta", texts(&[("rack", "r1")])),
        ("NodeResources", map(&[("Memory", map(&[("MemoryMB", number(4096))]))])),
        ("ReservedResources", map(&[])),
        ("Drivers", map(&[("raw_exec", map(&[("Healthy", truth(true))]))])),
        ("HostVolumes", Raw::default().to_bytes()),
        ("Status", text("initializing")),
    ])
}

/// A heartbeat.
pub(super) fn heartbeat(id: &str, status: &str, token: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![("NodeID", text(id)), ("Status", text(status)), ("AuthToken", text(token)), ("Region", text("global"))]
}
