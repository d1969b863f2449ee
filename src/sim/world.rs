//! The world: one server, its clients and a clock in one thread. [`World::run`] lives through all of a seed and
//! hands what was written down to the checkers.

use std::time::Duration;

use crate::base::metric::{Id, Value};
use crate::base::time::Instant;
use crate::server::port::Input;
use crate::wire::first_byte::FirstByte;

use super::check;
use super::client::{Client, PATIENCE};
use super::ground::{Event, Ground, Nemesis, Net};
use super::history::{Life, Outcome};
use super::keepers::{Follower, Keeper, Locker, lock_path};
use super::network::Side;
use super::options::{FAILOVER_TTL, GRACE, MIN_TTL, Options};
use super::process::Process;
use super::workload::Role;

/// The longest wait of a query, with its jitter.
const LONGEST_WAIT: Duration = Duration::from_secs(22);
/// Beyond what can be reckoned, at the end.
const REST: Duration = Duration::from_secs(30);
/// A world that does more than this has run away.
const MAX_STEPS: u64 = 3_000_000;

/// What came of a world.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed that replays it.
    pub seed: u64,
    /// The hash of everything that happened.
    pub hash: u64,
    /// How much happened.
    pub steps: u64,
    /// Operations that were answered.
    pub answered: usize,
    /// Entries of the log.
    pub entries: u64,
    /// Processes of the server.
    pub lives: usize,
    /// Documents that subscribers got.
    pub documents: usize,
    /// Times at which the planted fault was in effect.
    pub faults_done: u64,
    /// What is wrong; empty when all is well.
    pub wrongs: Vec<String>,
    /// The last lines of what happened, when they were kept.
    pub log: Vec<String>,
}

/// A world.
pub struct World {
    /// What everything stands on.
    pub ground: Ground,
    process: Option<Process>,
    clients: Vec<Client>,
    end: Instant,
    broken: bool,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(options: Options) -> World {
        let mut ground = Ground::new(options);
        let quiet = ground.options.quiet_at();
        let hang_up = quiet + LONGEST_WAIT + PATIENCE + REST;
        let end = hang_up + FAILOVER_TTL + 2 * MIN_TTL + 2 * GRACE + REST + Duration::from_secs(60);
        ground.queue.push(quiet, Event::Nemesis(Nemesis::Quiet));
        ground.queue.push(hang_up, Event::Nemesis(Nemesis::HangUp));
        ground.queue.push(Instant::ZERO, Event::Nemesis(Nemesis::Start));
        let clients = clients(&mut ground);
        for (number, client) in clients.iter().enumerate() {
            for lane in 0..client.lanes() {
                let wait = ground.rng.jitter(Duration::from_secs(2));
                ground.after(wait, Event::Lane(number, lane));
            }
        }
        plan_nemeses(&mut ground);
        World { ground, process: None, clients, end, broken: false }
    }

    /// Lives through it all and looks at what came of it.
    pub fn run(mut self) -> Report {
        while self.step() {}
        self.finish()
    }

    /// Lives until a time, or until the end.
    pub fn run_until(&mut self, until: Instant) {
        while self.ground.now < until && self.step() {}
    }

    /// The next thing happens. False at the end of the world.
    pub fn step(&mut self) -> bool {
        let queued = self.ground.queue.next_at();
        let own = self.process.as_ref().and_then(|process| process.next_at(&self.ground));
        let Some(at) = [queued, own].into_iter().flatten().min() else { return false };
        if at >= self.end || self.broken || self.ground.trace.steps() > MAX_STEPS {
            return false;
        }
        self.ground.now = self.ground.now.max(at);
        if queued == Some(at) {
            if let Some((_, event)) = self.ground.queue.pop() {
                self.happen(event);
            }
        } else if let Some(process) = &mut self.process {
            process.timeouts(&mut self.ground);
        }
        self.bury();
        true
    }

    /// The process, while one runs.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Nemesis(nemesis) => self.nemesis(nemesis),
            Event::Lane(client, lane) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.act(&mut self.ground, lane);
                }
            }
            Event::ClientTimer(client) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.timeout(&mut self.ground);
                }
            }
            Event::Patience(client, operation) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.lose_patience(&mut self.ground, operation);
                }
            }
            Event::Answer(client, connection, stream, bytes) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.answer(&mut self.ground, connection, stream, &bytes);
                }
            }
            Event::Process(life, inner) => {
                let paused = self.paused();
                let Some(process) = self.process.as_mut().filter(|process| process.life == life) else { return };
                match paused {
                    Some(until) => self.ground.queue.push(until, Event::Process(life, inner)),
                    None => process.inner(&mut self.ground, inner),
                }
            }
            Event::Net(net) => self.net(net),
        }
    }

    fn paused(&self) -> Option<Instant> {
        self.process.as_ref().map(|process| process.paused_until).filter(|until| *until > self.ground.now)
    }

    fn net(&mut self, net: Net) {
        let at_server = matches!(
            net,
            Net::Accept(_) | Net::Read(_, Side::Server) | Net::Writable(_, Side::Server) | Net::Reset(_, Side::Server)
        );
        if at_server && let Some(until) = self.paused() {
            self.ground.queue.push(until, Event::Net(net));
            return;
        }
        let ground = &mut self.ground;
        match net {
            Net::Accept(link) => match &mut self.process {
                Some(process) => process.accept(ground, link),
                None => ground.abort(link, Side::Server),
            },
            Net::Arrive(link, side, bytes) => ground.arrive(link, side, &bytes),
            Net::Fin(link, side) => ground.fin_arrives(link, side),
            Net::Expire(link) => {
                self.net(Net::Reset(link, Side::Client));
                self.net(Net::Reset(link, Side::Server));
            }
            Net::Reset(link, side) => {
                let client = ground.network.link(link).map(|link| link.client);
                ground.reset_arrives(link, side);
                match side {
                    Side::Server => {
                        if let Some(process) = &mut self.process {
                            process.broken(ground, link);
                        }
                    }
                    Side::Client => {
                        if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
                            client.broken(ground, link);
                        }
                    }
                }
            }
            Net::Read(link, Side::Server) => {
                if let Some(process) = &mut self.process {
                    process.read(ground, link);
                }
            }
            Net::Writable(link, Side::Server) => {
                if let Some(process) = &mut self.process {
                    process.writable(ground, link);
                }
            }
            Net::Read(link, Side::Client) | Net::Writable(link, Side::Client) => {
                let writes = matches!(net, Net::Writable(..));
                let client = ground.network.link(link).map(|link| link.client);
                if let Some(client) = client.and_then(|client| self.clients.get_mut(client)) {
                    if writes { client.flush(ground) } else { client.read(ground, link) }
                }
            }
        }
    }

    fn nemesis(&mut self, nemesis: Nemesis) {
        self.ground.note(&format!("{nemesis:?}"));
        let now = self.ground.now;
        match nemesis {
            Nemesis::Start => self.start(),
            Nemesis::CutPower => {
                let disk = &self.ground.disk;
                let (synced, len) = (disk.synced(), disk.len());
                let offset = synced + self.ground.rng.below((len - synced) as u64 + 1) as usize;
                self.die();
                // What cannot be read is found, and told, when the next process begins.
                let _ = self.ground.disk.crash(offset);
            }
            Nemesis::Kill => self.die(),
            Nemesis::Terminate => {
                if let Some(process) = &mut self.process {
                    if let Some(life) = self.ground.history.life() {
                        life.stopping.get_or_insert(now);
                    }
                    process.feed(&mut self.ground, Input::Stop);
                }
            }
            Nemesis::Pause(time) => {
                if let Some(process) = &mut self.process {
                    process.paused_until = now + time;
                }
            }
            Nemesis::SetCalendar(nanos) => self.ground.calendar_offset = nanos,
            Nemesis::FailDisk => self.ground.disk_fails = self.process.is_some(),
            Nemesis::SlowDisk(time) => self.ground.sync_time = time,
            Nemesis::Quiet => {
                self.ground.quiet = true;
                self.ground.disk_fails = false;
                self.ground.sync_time = self.ground.options.sync_time;
            }
            Nemesis::HangUp => {
                for client in &mut self.clients {
                    if client.is_waiting() {
                        self.ground.wrong("a client still waits long after its patience".to_owned());
                    }
                    client.hang_up_all(&mut self.ground);
                }
            }
        }
    }

    fn start(&mut self) {
        if self.process.is_some() {
            return;
        }
        let life = self.ground.history.lives.len();
        let (started, applied) = (self.ground.now, std::collections::BTreeMap::new());
        self.ground.history.lives.push(Life { started, ready: None, stopping: None, ended: None, applied });
        match Process::start(&mut self.ground, life) {
            Ok(process) => self.process = Some(process),
            Err(why) => {
                self.ground.wrong(format!("the server does not start: {why}"));
                self.broken = true;
            }
        }
    }

    /// The process has gone; another one begins soon.
    fn die(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.end(&mut self.ground);
            let now = self.ground.now;
            self.ground.disk_fails = false;
            if let Some(life) = self.ground.history.life() {
                life.ended = Some(now);
            }
            let wait = Duration::from_millis(20) + self.ground.rng.jitter(Duration::from_secs(3));
            self.ground.after(wait, Event::Nemesis(Nemesis::Start));
        }
    }

    /// A process that asked to end, ends.
    fn bury(&mut self) {
        if let Some(status) = self.process.as_ref().and_then(|process| process.exit) {
            self.ground.note(&format!("exit {status}"));
            let stopping = self.ground.history.life().is_some_and(|life| life.stopping.is_some());
            if status == 0 && !stopping {
                self.ground.wrong("the server ended without being asked".to_owned());
            }
            self.die();
        }
    }

    fn finish(mut self) -> Report {
        let now = self.ground.now;
        if self.ground.trace.steps() > MAX_STEPS {
            self.ground.wrong("the world does not come to rest".to_owned());
        }
        if !self.broken {
            self.look_at_rest();
        }
        for operation in 0..self.ground.history.operations.len() {
            self.ground.history.end(operation, now, Outcome::Unknown);
        }
        let mut wrongs = std::mem::take(&mut self.ground.history.wrongs);
        if !self.broken {
            wrongs.extend(check::all(&self.ground.history, &self.ground.truth, now));
        }
        let history = &self.ground.history;
        Report {
            seed: self.ground.options.seed,
            hash: self.ground.trace.hash(),
            steps: self.ground.trace.steps(),
            answered: history.operations.iter().filter(|one| matches!(one.outcome, Outcome::Done(_))).count(),
            entries: self.ground.truth.last(),
            lives: history.lives.len(),
            documents: history.subscriptions.iter().map(|one| one.documents.len()).sum(),
            faults_done: self.ground.faults_done,
            wrongs,
            log: self.ground.log.into_iter().collect(),
        }
    }

    /// When all clients are gone, nothing of them may be left, and the state is what the log says.
    fn look_at_rest(&mut self) {
        let Some(process) = &mut self.process else {
            self.ground.wrong("no server runs at the end".to_owned());
            return;
        };
        let mut left = Vec::new();
        for (id, value) in [
            (Id::Calls, "calls"),
            (Id::Parked, "parked queries"),
            (Id::ParkedGroups, "groups of parked queries"),
            (Id::Held, "held requests"),
            (Id::ForwardedInFlight, "calls at nodes"),
            (Id::Subscribers, "subscribers"),
            (Id::Streams, "streams"),
            (Id::Connections, "connections"),
            (Id::NodeConns, "connections to nodes"),
            (Id::HeartbeatActive, "timers of heartbeats"),
            (Id::LockWaiters, "calls that wait for a lock"),
            (Id::Locks, "locks that are held"),
        ] {
            let values = process.server.metrics().values();
            let sum: f64 = values
                .iter()
                .filter(|(metric, _, _)| metric.name == id.metric().name)
                .map(|(_, _, value)| match value {
                    Value::Count(n) => *n as f64,
                    Value::Number(n) => *n,
                    Value::Distribution(_) => 0.0,
                })
                .sum();
            if sum != 0.0 {
                left.push(format!("at rest there are {sum} {value}"));
            }
        }
        if process.socket_count() > 0 || self.ground.network.open_at_server() > 0 {
            left.push(format!("at rest {} sockets are open", process.socket_count()));
        }
        if !process.is_disk_idle() {
            left.push("at rest the disk is busy".to_owned());
        }
        let root = process.replica_root();
        let published = process.published_root();
        let replayed = self.ground.truth.replay_to(root.index().0);
        if root.index().0 != self.ground.truth.last() {
            left.push(format!("the state is at {}, the log at {}", root.index(), self.ground.truth.last()));
        }
        if root.digest() != replayed.digest() || published.digest() != replayed.digest() {
            left.push("the state is not what a replay of the log gives".to_owned());
        }
        for text in left {
            self.ground.wrong(text);
        }
    }
}

/// The clients of a world: an agent for each node, and others.
fn clients(ground: &mut Ground) -> Vec<Client> {
    const MUX: [FirstByte; 4] =
        [FirstByte::MultiplexV2, FirstByte::MultiplexV2, FirstByte::MultiplexV2, FirstByte::MultiplexV1];
    const ANY: [FirstByte; 3] = [FirstByte::MultiplexV2, FirstByte::MultiplexV1, FirstByte::Rpc];
    const EVENTS: [FirstByte; 2] = [FirstByte::MultiplexV2, FirstByte::Streaming];
    let nodes = ground.options.nodes;
    let mut clients = Vec::new();
    if ground.options.silent_nodes > 0 {
        clients.push(Client::new(0, &ANY, vec![Role::Registrar { node: nodes }]));
    }
    for node in 0..nodes {
        let mut roles = vec![Role::Agent { node, registered: false, ttl: MIN_TTL }];
        if ground.rng.chance(1, 2) {
            roles.push(Role::Watcher { node: Some(node), seen: 0 });
        }
        clients.push(Client::new(clients.len(), &MUX, roles));
    }
    for nth in 0..ground.options.others {
        let number = clients.len();
        let node = ground.rng.below(nodes as u64) as usize;
        let one = Some(node).filter(|_| ground.rng.chance(1, 2));
        clients.push(match nth {
            0 => Client::new(number, &ANY, vec![Role::Operator]),
            1 => Client::new(number, &EVENTS, vec![Role::Subscriber { node: one, from: 0 }]),
            2 => Client::new(number, &ANY, vec![Role::Watcher { node: one, seen: 0 }]),
            _ => Client::new(number, &MUX, vec![Role::Operator, Role::Watcher { node: one, seen: 0 }]),
        });
        if nth == 2 {
            clients.push(Client::new(number + 1, &ANY, vec![Role::Noise]));
        }
    }
    for _ in 0..ground.options.keepers {
        let mut roles = vec![Role::Keeper(Keeper::default()), Role::Follower(Follower::any(ground))];
        if ground.rng.chance(1, 2) {
            roles.push(Role::Follower(Follower::any(ground)));
        }
        clients.push(Client::new(clients.len(), &MUX, roles));
    }
    for _ in 0..ground.options.lockers {
        let path = lock_path(ground);
        clients.push(Client::new(clients.len(), &ANY, vec![Role::Locker(Locker::new(path))]));
    }
    clients
}

/// When what is done to the server.
fn plan_nemeses(ground: &mut Ground) {
    let busy = ground.options.busy;
    for _ in 0..ground.options.nemeses {
        let at = Instant::ZERO + Duration::from_millis(500) + ground.rng.jitter(busy - Duration::from_secs(1));
        let what = match ground.rng.below(9) {
            0..3 => Nemesis::CutPower,
            3 => Nemesis::Kill,
            4 => Nemesis::Terminate,
            5 => Nemesis::Pause(ground.rng.jitter(Duration::from_secs(2))),
            6 => Nemesis::SetCalendar((ground.rng.below(7200) as i64 - 3600) * 1_000_000_000),
            7 => Nemesis::FailDisk,
            _ => {
                let until = at + ground.rng.jitter(Duration::from_secs(6));
                ground.queue.push(until, Event::Nemesis(Nemesis::SlowDisk(ground.options.sync_time)));
                Nemesis::SlowDisk(Duration::from_secs(1) + ground.rng.jitter(Duration::from_secs(1)))
            }
        };
        ground.queue.push(at, Event::Nemesis(what));
    }
}
