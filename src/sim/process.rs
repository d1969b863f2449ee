//! One process of the server, in memory: what `edge::event_loop` does around the machine, with every output performed
//! on the ground. The thread of the consensus is in [`super::writer`], the handler threads in [`super::jobs`],
//! its sockets in `sockets.rs`.
//!
//! Planted faults are here and there, never in the product.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::api::identity::Signer;
use crate::api::seal::{Sealer, SealingKey};
use crate::base::id::{CallId, ConnId, ReplicaId};
use crate::base::slab::Slab;
use crate::base::time::Instant;
use crate::consensus::{Notice, Proposal, Resolution};
use crate::server::Server;
use crate::server::port::{Input, Output, ProcessFacts};
use crate::state::State;
use crate::wire::entry::Command;

use super::cluster_harm::ClusterHarm;
use super::errands::Errands;
use super::fault::Fault;
use super::ground::{Event, Ground, Inner};
use super::harm::Harm;
use super::history::{Answered, Asked, OperationId, Outcome, SERVER};
use super::jobs::Jobs;
use super::network::{LinkId, Side};
use super::once_harm::OnceHarm;
use super::options::ELECTION_TIMEOUT;
use super::site::{SiteNumber, replica_id};
use super::sockets::Socket;
use super::writer::Writer;

/// How long a proposal waits for room in the channel to the consensus thread.
const ENQUEUE_WAIT: Duration = Duration::from_secs(30);
/// Between two tries.
const ENQUEUE_RETRY: Duration = Duration::from_millis(10);
/// How often the process reads its own facts, when it does anything at all.
const FACTS_EVERY: Duration = Duration::from_secs(10);

/// One process.
pub struct Process {
    /// Its number, from 0, among all processes.
    pub life: usize,
    /// The machine that it runs on.
    pub site: SiteNumber,
    /// The machine.
    pub server: Server,
    pub(super) root: Arc<ArcSwap<State>>,
    pub(super) writer: Writer,
    pub(super) jobs: Jobs,
    pub(super) sockets: BTreeMap<ConnId, Socket>,
    pub(super) ids: Slab<()>,
    pub(super) by_link: BTreeMap<(LinkId, Side), ConnId>,
    pub(super) dirty: BTreeSet<ConnId>,
    pub(super) flush_queued: bool,
    /// Inputs that came of performing outputs.
    pub(super) follow_ups: VecDeque<Input<'static>>,
    waiting: VecDeque<(Instant, Vec<Proposal>)>,
    retry_queued: bool,
    /// The server's own proposals.
    own: BTreeMap<CallId, OperationId>,
    pub(super) accepting: bool,
    /// The exit status, once it has asked to end.
    pub exit: Option<u8>,
    /// Stands still until then.
    pub paused_until: Instant,
    last_commands_at: Instant,
    pub(super) last_lane_at: Instant,
    pub(super) last_notices_at: Instant,
    pub(super) errands: Errands,
    pub(super) harm: Harm,
    pub(super) cluster_harm: ClusterHarm,
    pub(super) once_harm: OnceHarm,
    /// Not published yet (a planted fault).
    pub(super) late_root: Option<Arc<State>>,
    /// Who leads, as the loop was told.
    told_leader: Option<ReplicaId>,
}

impl Process {
    /// A process that begins with what the disk gives.
    ///
    /// # Errors
    /// What the disk gives makes no sense.
    pub fn start(ground: &mut Ground, site: SiteNumber, life: usize) -> Result<Process, String> {
        let recovered = ground.site(site).disk.recover()?;
        ground.site(site).log.recover(&recovered)?;
        ground.truth.check_snapshot(&recovered)?;
        let seed = ground.rng.next_u64();
        let (now, shown, wall) = (ground.now, ground.clock(site), ground.wall(site));
        // Planted fault: it was told that it began longer ago, so that it has nothing to wait for.
        let since = if ground.fault(Fault::VoteAtOnce, 100) { ELECTION_TIMEOUT } else { Duration::ZERO };
        let began = Instant::from_nanos(shown.as_nanos().saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(0)));
        let writer = Writer::new(&ground.options, site, seed, recovered, began)?;
        let root = Arc::new(ArcSwap::from(writer.replica_root()));
        let cluster = ground.site(site).cluster.clone();
        let settings = ground.options.settings(site, life, cluster);
        let server = Server::new(settings, Arc::clone(&root), shown, wall);
        ground.trace.step("start", &[life as u64, root.load().index().0]);
        let mut process = Process {
            life,
            site,
            server,
            root,
            writer,
            jobs: Jobs::default(),
            sockets: BTreeMap::new(),
            ids: Slab::default(),
            by_link: BTreeMap::new(),
            dirty: BTreeSet::new(),
            flush_queued: false,
            follow_ups: VecDeque::new(),
            waiting: VecDeque::new(),
            retry_queued: false,
            own: BTreeMap::new(),
            accepting: true,
            exit: None,
            paused_until: Instant::ZERO,
            last_commands_at: now,
            last_lane_at: now,
            last_notices_at: now,
            errands: Errands::default(),
            harm: Harm::default(),
            cluster_harm: ClusterHarm::default(),
            once_harm: OnceHarm::default(),
            late_root: None,
            told_leader: None,
        };
        process.inner(ground, Inner::Facts);
        process.turn_writer(ground);
        Ok(process)
    }

    /// When the process wants to act by itself.
    pub fn next_at(&self, ground: &Ground) -> Option<Instant> {
        let late =
            if ground.options.fault == Some(Fault::LateTimeouts) { Duration::from_secs(60) } else { Duration::ZERO };
        let server = self.server.poll_timeout().map(|at| if at == Instant::ZERO { at } else { at + late });
        let server = server.map(|at| self.unskewed(ground, at));
        let writer = self.writer.next_at().map(|at| ground.when(self.site, at));
        let at = [server, writer].into_iter().flatten().min()?;
        Some(at.max(self.paused_until))
    }

    /// Planted fault: the loop's clock follows the calendar.
    pub(super) fn loop_now(&self, ground: &Ground) -> Instant {
        let shown = ground.clock(self.site);
        match ground.options.fault {
            Some(Fault::SkewedTimers) => {
                let offset = ground.sites.get(self.site).map_or(0, |site| site.calendar_offset);
                shown + Duration::from_nanos(offset.clamp(0, 3_600_000_000_000).unsigned_abs())
            }
            _ => shown,
        }
    }

    /// When, in the world, the loop's clock shows this.
    fn unskewed(&self, ground: &Ground, at: Instant) -> Instant {
        let skew = self.loop_now(ground).since(ground.clock(self.site));
        let shown = at.as_nanos().saturating_sub(u64::try_from(skew.as_nanos()).unwrap_or(0));
        ground.when(self.site, Instant::from_nanos(shown))
    }

    /// Deadlines that are due.
    pub fn timeouts(&mut self, ground: &mut Ground) {
        if self.writer.next_at().is_some_and(|at| at <= ground.clock(self.site)) {
            self.turn_writer_timeout(ground);
        }
        let now = self.loop_now(ground);
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            let real_lease = self.lease_at_deadline(ground);
            self.feed(ground, Input::Timeout);
            if let Some(lease) = real_lease {
                self.feed(ground, Input::Notices(vec![Notice::Lease(lease)]));
            }
        }
    }

    /// Hands an input in and performs what comes of it, and what comes of that.
    pub fn feed(&mut self, ground: &mut Ground, input: Input<'_>) {
        self.feed_one(ground, input);
        while let Some(input) = self.follow_ups.pop_front() {
            self.feed_one(ground, input);
        }
    }

    pub(super) fn feed_one(&mut self, ground: &mut Ground, input: Input<'_>) {
        trace_input(ground, &input);
        let (now, wall) = (self.loop_now(ground), ground.wall(self.site));
        self.server.handle_input(now, wall, input);
        self.drain_outputs(ground);
    }

    pub(super) fn drain_outputs(&mut self, ground: &mut Ground) {
        while let Some(output) = self.server.poll_output() {
            self.perform(ground, output);
        }
    }

    fn perform(&mut self, ground: &mut Ground, output: Output) {
        match output {
            Output::Flush(conn) => {
                ground.trace.step("flush", &[conn.0]);
                self.dirty.insert(conn);
                if !std::mem::replace(&mut self.flush_queued, true) {
                    let wait = ground.a_while(Duration::from_micros(200));
                    ground.after(wait, Event::Process(self.life, Inner::Flush));
                }
            }
            Output::Close { conn, linger, abort } => self.close(ground, conn, linger, abort),
            Output::Read { conn, on } => {
                ground.trace.step("read", &[conn.0, u64::from(on)]);
                if let Some(socket) = self.sockets.get(&conn).filter(|socket| socket.parting.is_none()) {
                    ground.set_reading(socket.link, socket.side, on);
                }
            }
            Output::Cluster(output) => self.run_errand(ground, output),
            Output::Run(job) => {
                ground.trace.step("run", &[job.id.0]);
                if let Some((job, outcome)) = self.jobs.take(ground, self.life, job) {
                    self.follow_ups.push_back(Input::Ran { job, outcome });
                }
            }
            Output::Propose(proposals) => self.propose(ground, proposals),
            Output::MakeSigningKey { key_id, fresh } => {
                let wait = ground.a_while(Duration::from_millis(50));
                ground.after(wait, Event::Process(self.life, Inner::SigningKey(key_id, fresh)));
            }
            Output::ForgetKey { key_id } => {
                ground.trace.bytes(key_id.as_bytes());
                ground.site(self.site).signing_keys.remove(&key_id);
            }
            Output::Log { text, .. } => {
                ground.trace.bytes(text.as_bytes());
                ground.note(&text);
            }
            // None are taken: a simulated server is given no interval.
            Output::Backup(_) => {}
            Output::Audit(line) => ground.trace.bytes(line.as_bytes()),
            Output::Reload => ground.trace.step("reload", &[]),
            Output::Monitor(_) => ground.trace.step("monitor", &[]),
            Output::StopAccepting => {
                ground.trace.step("stop accepting", &[]);
                self.accepting = false;
            }
            Output::Status(text) => ground.trace.bytes(text.as_bytes()),
            Output::Ready => {
                let now = ground.now;
                ground.trace.step("ready", &[now.as_nanos()]);
                if let Some(life) = ground.history.lives.get_mut(self.life) {
                    life.ready = Some(now);
                }
            }
            Output::Exit { status } => {
                ground.trace.step("exit", &[u64::from(status)]);
                self.exit = Some(status);
            }
        }
    }

    // Proposals.

    fn propose(&mut self, ground: &mut Ground, mut proposals: Vec<Proposal>) {
        self.harm.proposals(ground, self.site, &self.root.load(), &mut proposals);
        self.once_harm.proposals(ground, self.site, &self.root.load(), &mut proposals);
        for proposal in &proposals {
            ground.trace.step("propose", &[proposal.id.0]);
            self.note_own(ground, proposal);
        }
        self.waiting.push_back((ground.now + ENQUEUE_WAIT, proposals));
        self.hand_over(ground);
    }

    fn note_own(&mut self, ground: &mut Ground, proposal: &Proposal) {
        let asked = match &proposal.command {
            Command::NodeUpdateStatus { node_id, expected_modify_index: Some(expected), .. } => {
                ground.history.number(node_id).map(|node| Asked::Expire { node, expected: *expected })
            }
            Command::NodeDrainComplete { node_id } => {
                ground.history.number(node_id).map(|node| Asked::DrainComplete { node })
            }
            _ => None,
        };
        if let Some(asked) = asked {
            let operation = ground.history.ask(SERVER, self.life, ground.now, asked);
            self.own.insert(proposal.id, operation);
        }
    }

    /// Hands waiting proposals over as far as there is room, and refuses those that waited too long.
    fn hand_over(&mut self, ground: &mut Ground) {
        while self.writer.commands() < ground.options.commands_max
            && let Some((_, proposals)) = self.waiting.pop_front()
        {
            let wait = ground.a_while(ground.options.thread_delay);
            let at = (ground.now + wait).max(self.last_commands_at);
            self.last_commands_at = at;
            self.writer.expect_command();
            ground.queue.push(at, Event::Process(self.life, Inner::Commands(proposals)));
        }
        while self.waiting.front().is_some_and(|(deadline, _)| *deadline <= ground.now) {
            let Some((_, late)) = self.waiting.pop_front() else { break };
            self.follow_ups.extend(late.iter().map(|proposal| Input::NotEnqueued { id: proposal.id }));
        }
        if !self.waiting.is_empty() && !std::mem::replace(&mut self.retry_queued, true) {
            ground.after(ENQUEUE_RETRY, Event::Process(self.life, Inner::RetryProposals));
        }
    }

    /// What the loop learns of who leads is part of the history.
    fn note_leadership(&mut self, ground: &mut Ground, notices: &[Notice]) {
        let now = ground.now;
        for notice in notices {
            let Notice::Leadership(known) = notice else { continue };
            self.told_leader = known.leader;
            let Some(life) = ground.history.lives.get_mut(self.life) else { continue };
            let open = life.led.last_mut().filter(|(_, to)| to.is_none());
            match (known.is_self, open) {
                (true, None) => life.led.push((now, None)),
                (false, Some((_, to))) => *to = Some(now),
                _ => {}
            }
        }
    }

    /// Whether the loop takes itself for the leader.
    pub(super) fn takes_itself_for_leader(&self) -> bool {
        self.told_leader == Some(replica_id(self.site))
    }

    /// Something of another server is about to be read: it may be the leader's word.
    pub(super) fn note_heard(&self, ground: &mut Ground, from: SiteNumber) {
        let now = ground.now;
        if self.told_leader == Some(replica_id(from))
            && let Some(life) = ground.history.lives.get_mut(self.life)
        {
            life.heard.push(now);
        }
    }

    /// What the loop learns of its own proposals is part of the history.
    fn note_resolved(&mut self, ground: &mut Ground, notices: &[Notice]) {
        for notice in notices {
            let Notice::Resolved { id, resolution } = notice else { continue };
            let Some(operation) = self.own.remove(id) else { continue };
            let outcome = match resolution {
                Resolution::Applied { index, result: crate::state::ApplyResult::Refused(text) } => {
                    let _ = index;
                    Outcome::Refused(text.clone())
                }
                Resolution::Applied { index, .. } => Outcome::Done(Answered::Written(index.0)),
                Resolution::Unknown => Outcome::Unknown,
                other => Outcome::Refused(format!("{other:?}")),
            };
            ground.history.end(operation, ground.now, outcome);
        }
    }

    /// Something from another thread.
    pub fn inner(&mut self, ground: &mut Ground, inner: Inner) {
        match inner {
            Inner::Commands(proposals) => {
                self.writer.command(proposals);
                self.turn_writer(ground);
            }
            Inner::Lane(inputs) => {
                self.writer.lane(inputs);
                self.turn_writer(ground);
            }
            Inner::Done(errand) => self.errand_done(ground, errand),
            Inner::DialTimeout(link) => self.dial_timeout(ground, link),
            Inner::RetryProposals => {
                self.retry_queued = false;
                self.hand_over(ground);
                while let Some(input) = self.follow_ups.pop_front() {
                    self.feed_one(ground, input);
                }
            }
            Inner::LateRoot => {
                if let Some(root) = self.late_root.take() {
                    self.root.store(root);
                }
            }
            Inner::Synced => self.synced(ground),
            Inner::SnapshotWritten(index) => self.snapshot_written(ground, index),
            Inner::Notices(notices) => {
                self.note_resolved(ground, &notices);
                self.note_leadership(ground, &notices);
                self.feed(ground, Input::Notices(notices));
            }
            Inner::RunJob(key) => self.jobs.run(ground, self.life, key, &self.root),
            Inner::Ran(job, outcome) => self.feed(ground, Input::Ran { job, outcome: *outcome }),
            Inner::SigningKey(wanted, fresh) => self.signing_key(ground, wanted, fresh),
            Inner::Flush => self.flush(ground),
            Inner::Parting(link, side) => self.end_parting(ground, link, side),
            Inner::Facts => {
                let facts = ProcessFacts { handler_queue: self.jobs.waiting(), ..ProcessFacts::default() };
                self.feed(ground, Input::Process(facts));
                ground.after(FACTS_EVERY, Event::Process(self.life, Inner::Facts));
            }
        }
    }

    fn signing_key(&mut self, ground: &mut Ground, wanted: Option<String>, fresh: bool) {
        let keys = &ground.site(self.site).signing_keys;
        let known = wanted.filter(|id| keys.contains_key(id));
        let id = match known.or_else(|| keys.keys().next().filter(|_| !fresh).cloned()) {
            Some(id) => id,
            None => {
                let id = ground.rng.uuid();
                let mut seed = [0; 32];
                for part in seed.chunks_exact_mut(8) {
                    part.copy_from_slice(&ground.rng.next_u64().to_le_bytes());
                }
                ground.site(self.site).signing_keys.insert(id.clone(), seed);
                id
            }
        };
        let keys = &ground.site(self.site).signing_keys;
        let signer = keys.get(&id).and_then(pkcs8).and_then(|bytes| Signer::new(&id, &bytes).ok());
        match signer {
            Some(signer) => {
                let keys = keys.keys().filter_map(|id| SealingKey::derive(id, id.as_bytes()).ok());
                let sealer = Sealer::new(keys.collect(), &id);
                if let Some(sealer) = sealer {
                    self.feed(ground, Input::Keys { signer: Arc::new(signer), sealer: Arc::new(sealer) });
                }
            }
            None => ground.wrong("a signing key cannot be made".to_owned()),
        }
    }

    /// The process has ended: the system closes its sockets, and writes what was handed over for parting.
    pub fn end(&mut self, ground: &mut Ground) {
        for (conn, socket) in std::mem::take(&mut self.sockets) {
            let _ = conn;
            if socket.parting.is_some() || ground.rng.chance(1, 2) {
                ground.close(socket.link, socket.side);
            } else {
                ground.abort(socket.link, socket.side);
            }
        }
        self.end_errands(ground);
        self.end_writer(ground);
        ground.watch_end(self.site, self.life);
        for operation in std::mem::take(&mut self.own).into_values() {
            ground.history.end(operation, ground.now, Outcome::Unknown);
        }
    }

    /// The state that readers see.
    pub fn published_root(&self) -> Arc<State> {
        self.root.load_full()
    }

    /// Sockets that are open.
    pub fn socket_count(&self) -> usize {
        self.sockets.len()
    }
}

fn trace_input(ground: &mut Ground, input: &Input<'_>) {
    let now = ground.now.as_nanos();
    match input {
        Input::Accepted { conn, .. } => ground.trace.step("accepted", &[now, conn.0]),
        Input::Received { conn, bytes } => {
            ground.trace.step("received", &[now, conn.0]);
            ground.trace.bytes(bytes);
        }
        Input::Eof { conn } => ground.trace.step("eof", &[now, conn.0]),
        Input::Failed { conn, .. } => ground.trace.step("failed", &[now, conn.0]),
        Input::Ran { job, .. } => ground.trace.step("ran", &[now, job.0]),
        Input::Notices(notices) => ground.trace.step("notices", &[now, notices.len() as u64]),
        Input::NotEnqueued { id } => ground.trace.step("not enqueued", &[now, id.0]),
        Input::Timeout => ground.trace.step("timeout", &[now]),
        Input::Stop => ground.trace.step("stop", &[now]),
        _ => ground.trace.step("other", &[now]),
    }
}

/// An Ed25519 key in PKCS#8 version 2 form (RFC 8410, section 7; RFC 5958).
fn pkcs8(seed: &[u8; 32]) -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
    let mut der = vec![0x30, 0x51, 0x02, 0x01, 0x01, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend(seed);
    der.extend([0x81, 0x21, 0x00]);
    der.extend(pair.public_key().as_ref());
    Some(der)
}
