//! A server whose edge is a few lines of memory, for tests of what goes through all of it: calls in, entries applied at
//! once, answers out.

#![allow(clippy::unwrap_used)]

use super::Server;
use super::port::{Input, JobOutcome, Listener, Output, Settings};
use super::run::run_job;
use crate::api::identity::Signer;
use crate::api::seal::{Sealer, SealingKey};
use crate::api::secrets::Entropy;
use crate::base::id::{ConnId, Index, ReplicaId, Term};
use crate::base::time::{Instant, WallTime};
use crate::conn::{Limits, Security};
use crate::consensus::{LEASE_FOR_EVER, Leadership, Notice, Proposal, Resolution};
use crate::mux::session;
use crate::state::State;
use crate::wire::entry::session::SessionStamp;
use crate::wire::entry::{Command, Entry};
use crate::wire::msgpack::{Decoder, Msg};
use crate::wire::rpc::{ReplyHead, RequestHead};
use arc_swap::ArcSwap;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub(super) const START: i64 = 1_795_261_300_000_000_000;

/// What becomes of proposals.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Log {
    Applies,
    /// As after leadership was lost.
    Loses,
}

pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) root: Arc<ArcSwap<State>>,
    pub(super) now: Instant,
    pub(super) keys: BTreeMap<String, [u8; 32]>,
    /// Whether keys can be made, and whether they are made at once.
    pub(super) disk: Result<bool, &'static str>,
    pub(super) wanted: VecDeque<(Option<String>, bool)>,
    pub(super) log: Log,
    /// All that was proposed.
    pub(super) proposed: Vec<Command>,
    /// Lines of the audit log.
    pub(super) audited: Vec<String>,
    /// Keys that were laid aside.
    pub(super) forgotten: Vec<String>,
    pub(super) lines: Vec<String>,
    pub(super) heard: BTreeMap<ConnId, Vec<u8>>,
    pub(super) conns: u64,
    /// Jobs are run at once.
    pub(super) runs: bool,
    /// A peer that takes no bytes.
    pub(super) deaf: Option<ConnId>,
}

pub(super) fn settings() -> Settings {
    Settings {
        name: "hf1".to_owned(),
        server_id: "00000000-0000-4000-8000-000000000001".to_owned(),
        region: "global".to_owned(),
        datacenter: "dc1".to_owned(),
        advertise_rpc: "10.0.0.1:4647".to_owned(),
        advertise_http: "10.0.0.1:4646".to_owned(),
        bootstrap_expect: 1,
        join: Vec::new(),
        regions: Vec::new(),
        replica: ReplicaId(1),
        cluster: crate::server::port::ClusterFile::default(),
        dial_tls: None,
        dead_server_after: Duration::ZERO,
        election_timeout: Duration::from_millis(500),
        min_free_bytes: 0,
        digest_entries: 0,
        pool_idle_timeout: Duration::from_secs(120),
        conn: Limits {
            handshake_timeout: Duration::ZERO,
            max_message_bytes: 1024 * 1024,
            max_partial_bytes: 1024 * 1024,
            max_unsent_bytes: 64 * 1024 * 1024,
            idle_streams: 64,
            max_raft_unsent_bytes: 8 * 1024 * 1024,
            mux: session::Limits::default(),
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
        hold_timeout: Duration::from_secs(5),
        max_query_time: Duration::from_secs(300),
        default_query_time: Duration::from_secs(300),
        drain_timeout: Duration::from_secs(10),
        heartbeat_min_ttl: Duration::from_secs(10),
        heartbeat_grace: Duration::from_secs(10),
        heartbeat_max_per_second: 50.0,
        heartbeat_failover_ttl: Duration::from_secs(300),
        events_buffer_bytes: 1024 * 1024,
        prometheus: false,
        seed: 7,
        entropy: Entropy([7; 32]),
        acl_enabled: false,
        variables_max_bytes: 64 << 10,
        locks_min_ttl: Duration::from_secs(10),
        audit: false,
        backup_every: Duration::ZERO,
        backup_keep: 1,
        config_json: "{}".into(),
        version: "test".to_owned(),
    }
}

/// An Ed25519 key in PKCS#8 version 2 form (RFC 8410, section 7; RFC 5958).
pub(super) fn pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
    let mut der = vec![0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend(seed);
    der.extend([0x81, 0x21, 0x00]);
    der.extend(pair.public_key().as_ref());
    der
}

impl Rig {
    /// A server that leads, on a state.
    pub(super) fn on(state: State, keys: BTreeMap<String, [u8; 32]>) -> Rig {
        Rig::with(settings(), state, keys)
    }

    pub(super) fn with(settings: Settings, state: State, keys: BTreeMap<String, [u8; 32]>) -> Rig {
        let root = Arc::new(ArcSwap::from_pointee(state));
        let now = Instant::ZERO + Duration::from_secs(1);
        let server = Server::new(settings, Arc::clone(&root), now, WallTime::from_unix_nanos(START));
        let mut rig = Rig {
            server,
            root,
            now,
            keys,
            disk: Ok(true),
            wanted: VecDeque::new(),
            log: Log::Applies,
            proposed: Vec::new(),
            audited: Vec::new(),
            forgotten: Vec::new(),
            lines: Vec::new(),
            heard: BTreeMap::new(),
            conns: 0,
            runs: true,
            deaf: None,
        };
        rig.lead(2);
        rig
    }

    pub(super) fn new() -> Rig {
        Rig::on(State::new(), BTreeMap::new())
    }

    pub(super) fn lead(&mut self, term: u64) {
        let leadership = Leadership { term: Term(term), leader: Some(ReplicaId(1)), is_self: true, ready: true };
        self.feed(Input::Notices(vec![Notice::Lease(LEASE_FOR_EVER), Notice::Leadership(leadership)]));
    }

    pub(super) fn feed(&mut self, input: Input<'_>) {
        let wall = WallTime::from_unix_nanos(START);
        self.server.handle_input(self.now, wall, input);
        loop {
            let Some(output) = self.server.poll_output() else {
                match self.server.poll_timeout() {
                    Some(at) if at <= self.now => self.server.handle_input(self.now, wall, Input::Timeout),
                    _ => return,
                }
                continue;
            };
            for input in self.perform(output) {
                self.server.handle_input(self.now, wall, input);
            }
        }
    }

    fn perform(&mut self, output: Output) -> Vec<Input<'static>> {
        match output {
            Output::Propose(proposals) => vec![Input::Notices(self.propose(proposals))],
            Output::Run(job) if self.runs => {
                vec![Input::Ran { job: job.id, outcome: run_job(&job, &self.root.load()) }]
            }
            Output::Run(job) => vec![Input::Ran { job: job.id, outcome: JobOutcome::Overloaded }],
            Output::MakeSigningKey { key_id, fresh } => {
                self.wanted.push_back((key_id, fresh));
                match self.disk {
                    Ok(true) => self.answer_keys(),
                    _ => Vec::new(),
                }
            }
            Output::ForgetKey { key_id } => {
                self.keys.remove(&key_id);
                self.forgotten.push(key_id);
                Vec::new()
            }
            Output::Flush(conn) if self.deaf == Some(conn) => Vec::new(),
            Output::Flush(conn) => {
                let bytes = self.server.to_send(conn).to_vec();
                self.heard.entry(conn).or_default().extend(&bytes);
                self.server.sent(self.now, conn, bytes.len());
                Vec::new()
            }
            Output::Audit(line) => {
                self.audited.push(line);
                Vec::new()
            }
            Output::Log { text, .. } => {
                self.lines.push(text);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn propose(&mut self, proposals: Vec<Proposal>) -> Vec<Notice> {
        let mut notices = Vec::new();
        for Proposal { id, session, command } in proposals {
            self.proposed.push(command.clone());
            if self.log == Log::Loses {
                notices.push(Notice::Resolved { id, resolution: Resolution::Unknown });
                continue;
            }
            let (index, applied) = self.apply_in(session, command);
            notices.push(Notice::Applied { index, touched: applied.touched, events: applied.events });
            let resolution = Resolution::Applied { index, result: applied.result };
            notices.push(Notice::Resolved { id, resolution });
        }
        notices
    }

    pub(super) fn apply(&mut self, command: Command) -> (Index, crate::state::Applied) {
        self.apply_in(None, command)
    }

    pub(super) fn apply_in(
        &mut self,
        session: Option<SessionStamp>,
        command: Command,
    ) -> (Index, crate::state::Applied) {
        let mut state = State::clone(&self.root.load());
        let index = Index(state.index().0 + 1);
        let passed = i64::try_from(self.now.since(Instant::ZERO).as_nanos()).unwrap();
        let entry = Entry { time_unix_nanos: START + passed, session, command };
        let applied = state.apply(index, Term(2), &entry);
        self.root.store(Arc::new(state));
        (index, applied)
    }

    /// What the keys' thread answers.
    pub(super) fn answer_keys(&mut self) -> Vec<Input<'static>> {
        let Some((wanted, fresh)) = self.wanted.pop_front() else { return Vec::new() };
        if let Err(error) = self.disk {
            return vec![Input::NoKey { error: error.to_owned() }];
        }
        let known = wanted.filter(|id| self.keys.contains_key(id)).or_else(|| self.keys.keys().next().cloned());
        let id = match known.filter(|_| !fresh) {
            Some(id) => id,
            None => {
                let nth = self.keys.len() as u8 + self.forgotten.len() as u8;
                let id = format!("00000000-0000-4000-8000-0000000000{nth:02}");
                self.keys.insert(id.clone(), [nth; 32]);
                id
            }
        };
        let signer = Signer::new(&id, &pkcs8(&self.keys[&id])).unwrap();
        vec![Input::Keys { signer: Arc::new(signer), sealer: Arc::new(self.sealer(&id)) }]
    }

    pub(super) fn sealer(&self, active: &str) -> Sealer {
        let keys = self.keys.iter().map(|(id, seed)| SealingKey::derive(id, seed).unwrap());
        Sealer::new(keys.collect(), active).unwrap()
    }

    /// Hands an input in and does nothing of what it asks for.
    pub(super) fn hand_in(&mut self, input: Input<'_>) {
        self.server.handle_input(self.now, WallTime::from_unix_nanos(START), input);
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.feed(Input::Timeout);
    }

    /// A connection that said its first byte.
    pub(super) fn dial(&mut self, first: u8) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let peer = "192.0.2.7:4000".parse().unwrap();
        self.feed(Input::Accepted { conn, listener: Listener::Rpc, peer });
        self.feed(Input::Received { conn, bytes: &[first] });
        conn
    }

    /// A connection to the HTTP port.
    pub(super) fn dial_http(&mut self) -> ConnId {
        self.conns += 1;
        let conn = ConnId(self.conns);
        let peer = "192.0.2.7:4000".parse().unwrap();
        self.feed(Input::Accepted { conn, listener: Listener::Http, peer });
        conn
    }

    pub(super) fn say(&mut self, conn: ConnId, bytes: &[u8]) {
        self.feed(Input::Received { conn, bytes });
    }

    /// All that came on a connection since the last look.
    pub(super) fn heard(&mut self, conn: ConnId) -> Vec<u8> {
        std::mem::take(self.heard.entry(conn).or_default())
    }

    /// Begins a call on a connection of its own.
    pub(super) fn call(&mut self, method: &str, body: &impl Msg) -> ConnId {
        let conn = self.dial(1);
        let head = RequestHead { seq: 1, service_method: method.to_owned() };
        self.say(conn, &[head.to_bytes(), body.to_bytes()].concat());
        conn
    }

    /// The answer to a call, or the text of its error.
    pub(super) fn answer<T: Msg>(&mut self, conn: ConnId) -> Result<T, String> {
        let bytes = self.heard(conn);
        let mut d = Decoder::new(&bytes);
        let head = ReplyHead::decode(&mut d).unwrap();
        if head.error.is_empty() { Ok(T::decode(&mut d).unwrap()) } else { Err(head.error) }
    }
}
