//! The world: servers, their clients and a clock in one thread. [`World::run`] lives through all of a seed and hands
//! what was written down to the checkers. What is done to servers is in `nemesis.rs`, how they end in `rest.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;
use crate::server::port::Input;
use crate::wire::first_byte::FirstByte;

use super::check;
use super::client::{Client, PATIENCE};
use super::ground::{Event, Ground, Nemesis, Net};
use super::history::{Answered, Asked, Life, Operation, Outcome, SERVER};
use super::keepers::{Follower, Keeper, Locker, lock_path};
use super::nemesis;
use super::network::{LinkId, Place, Side};
use super::options::{FAILOVER_TTL, GRACE, HOLD_TIMEOUT, MIN_TTL, Options};
use super::process::Process;
use super::sessions::{Holder, Once};
use super::site::SiteNumber;
use super::workload::{Administrator, Role};

/// The longest wait of a query, with its jitter.
const LONGEST_WAIT: Duration = Duration::from_secs(22);
/// Beyond what can be reckoned, at the end.
const REST: Duration = Duration::from_secs(30);
/// The shortest session that can be had.
const SESSION_TTL: Duration = Duration::from_secs(5);
/// Writes that a client with a session has under way at once.
const WRITERS: usize = 3;

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
    /// Processes of the servers.
    pub lives: usize,
    /// How long the world was.
    pub time: Duration,
    /// Times that a server began to lead.
    pub reigns: usize,
    /// What was done to servers, by kind.
    pub injected: BTreeMap<&'static str, u64>,
    /// Documents that subscribers got.
    pub documents: usize,
    /// Writes with a place in a session that were answered.
    pub stamped: usize,
    /// Sessions of clients that were opened.
    pub sessions: usize,
    /// Writes without a place that were answered with words that nobody knows what became of them.
    pub unknown: usize,
    /// Those of them that were answered sooner than a call is held for.
    pub hurried: usize,
    /// Writes without a place whose connection, or server, went before the answer.
    pub lost: usize,
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
    processes: Vec<Option<Process>>,
    /// When each process wants to act, while nothing has happened to it; it takes long to find out.
    wants: Vec<Option<Option<Instant>>>,
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
        ground.queue.push(quiet, Event::Nemesis(0, Nemesis::Quiet));
        ground.queue.push(hang_up, Event::Nemesis(0, Nemesis::HangUp));
        ground.queue.push(Instant::ZERO, Event::Nemesis(0, Nemesis::Start));
        for site in 1..ground.options.servers {
            let wait = ground.rng.jitter(Duration::from_secs(2));
            ground.after(wait, Event::Nemesis(site, Nemesis::Start));
        }
        let clients = clients(&mut ground);
        for (number, client) in clients.iter().enumerate() {
            for lane in 0..client.lanes() {
                let wait = ground.rng.jitter(Duration::from_secs(2));
                ground.after(wait, Event::Lane(number, lane));
            }
        }
        nemesis::plan(&mut ground);
        let processes = ground.sites.iter().map(|_| None).collect();
        let wants = vec![None; ground.sites.len()];
        World { ground, processes, wants, clients, end, broken: false }
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
        let own = self.next_own();
        let Some(at) = queued.into_iter().chain(own.map(|(at, _)| at)).min() else { return false };
        // What follows a mistake that was found shows nothing more, and may end in anything.
        let found = self.ground.options.fault.is_some() && !self.ground.history.wrongs.is_empty();
        if found {
            self.broken = true;
        }
        if at >= self.end || self.broken || self.ground.trace.steps() > self.ground.options.max_steps() {
            return false;
        }
        self.ground.now = self.ground.now.max(at);
        if queued == Some(at) {
            if let Some((_, event)) = self.ground.queue.pop() {
                self.unsettle(&event);
                self.happen(event);
            }
        } else if let Some((_, site)) = own {
            self.forget_wants(Some(site));
            if let Some(process) = self.processes.get_mut(site).and_then(Option::as_mut) {
                process.timeouts(&mut self.ground);
            }
        }
        self.bury();
        true
    }

    /// The process that wants to act first, and when.
    fn next_own(&mut self) -> Option<(Instant, SiteNumber)> {
        let mut first = None;
        for (process, wants) in self.processes.iter().zip(&mut self.wants) {
            let Some(process) = process else { continue };
            let Some(at) = *wants.get_or_insert_with(|| process.next_at(&self.ground)) else { continue };
            let own = (at.max(self.ground.now), process.site);
            first = Some(first.map_or(own, |first: (Instant, SiteNumber)| first.min(own)));
        }
        first
    }

    /// Something happens to this process, or to any.
    fn forget_wants(&mut self, site: Option<SiteNumber>) {
        let all = self.wants.iter_mut().enumerate();
        all.filter(|(one, _)| site.is_none_or(|site| site == *one)).for_each(|(_, wants)| *wants = None);
    }

    /// What a process wants may change with this.
    fn unsettle(&mut self, event: &Event) {
        let site = match event {
            Event::Lane(..) | Event::ClientTimer(_) | Event::Patience(..) | Event::Answer(..) => return,
            Event::Net(Net::Arrive(..) | Net::Fin(..)) => return,
            Event::Net(Net::Expire(_) | Net::GiveUp(..)) | Event::Nemesis(..) | Event::Cluster(_) => None,
            Event::Net(net) => match self.actor(net) {
                Some(Place::Site(site)) => Some(site),
                _ => return,
            },
            Event::Process(life, _) => self.ground.history.lives.get(*life).map(|life| life.site),
        };
        self.forget_wants(site);
    }

    /// The process of a machine, while one runs.
    pub fn process(&self, site: SiteNumber) -> Option<&Process> {
        self.processes.get(site)?.as_ref()
    }

    pub(super) fn process_mut(&mut self, site: SiteNumber) -> Option<&mut Process> {
        self.processes.get_mut(site)?.as_mut()
    }

    pub(super) fn feed(&mut self, site: SiteNumber, input: Input<'_>) {
        if let Some(process) = self.processes.get_mut(site).and_then(Option::as_mut) {
            process.feed(&mut self.ground, input);
        }
    }

    /// An operator asks something of the cluster: of this server, or of any.
    pub(super) fn administer(&mut self, asked: Asked, at: Option<SiteNumber>) {
        if let Some(client) = self.clients.last_mut() {
            client.administer(&mut self.ground, asked, at);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Nemesis(site, nemesis) => self.nemesis(site, nemesis),
            Event::Cluster(nemesis) => self.cluster_nemesis(nemesis),
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
                let of_life = |process: &&mut Process| process.life == life;
                let Some(process) = self.processes.iter_mut().flatten().find(of_life) else { return };
                if process.paused_until > self.ground.now {
                    self.ground.queue.push(process.paused_until, Event::Process(life, inner));
                } else {
                    process.inner(&mut self.ground, inner);
                }
            }
            Event::Net(net) => self.net(net),
        }
    }

    /// Whose end of a wire is about to do something.
    fn actor(&self, net: &Net) -> Option<Place> {
        let (link, side) = match net {
            Net::Accept(link) => (link, Side::Server),
            Net::Connected(link) => (link, Side::Client),
            Net::Read(link, side) | Net::Writable(link, side) | Net::Reset(link, side) => (link, *side),
            Net::Arrive(..) | Net::Fin(..) | Net::Expire(_) | Net::GiveUp(..) => return None,
        };
        Some(self.ground.network.link(*link)?.place(side))
    }

    fn net(&mut self, net: Net) {
        let actor = self.actor(&net);
        let site = match actor {
            Some(Place::Site(site)) => Some(site),
            _ => None,
        };
        if let Some(process) = site.and_then(|site| self.process(site))
            && process.paused_until > self.ground.now
        {
            self.ground.queue.push(process.paused_until, Event::Net(net));
            return;
        }
        let ground = &mut self.ground;
        let process = site.and_then(|site| self.processes.get_mut(site)?.as_mut());
        let client = match actor {
            Some(Place::Client(client)) => self.clients.get_mut(client),
            _ => None,
        };
        match net {
            Net::Arrive(link, side, bytes) => ground.arrive(link, side, &bytes),
            Net::Fin(link, side) => ground.fin_arrives(link, side),
            Net::Accept(link) => accept(ground, process, link),
            Net::Connected(link) => {
                if let Some(process) = process {
                    process.connected(ground, link);
                }
            }
            Net::GiveUp(link, holds) => {
                if ground.gives_up(link, holds) {
                    self.net(Net::Expire(link));
                }
            }
            Net::Expire(link) => {
                self.net(Net::Reset(link, Side::Client));
                self.net(Net::Reset(link, Side::Server));
            }
            Net::Reset(link, side) => {
                ground.reset_arrives(link, side);
                match (process, client) {
                    (Some(process), _) => process.broken(ground, link, side),
                    (_, Some(client)) => client.broken(ground, link),
                    _ => {}
                }
            }
            Net::Read(link, side) => match (process, client) {
                (Some(process), _) => process.read(ground, link, side),
                (_, Some(client)) => client.read(ground, link),
                _ => {}
            },
            Net::Writable(link, side) => match (process, client) {
                (Some(process), _) => process.writable(ground, link, side),
                (_, Some(client)) => client.flush(ground),
                _ => {}
            },
        }
    }

    /// Clients hang up.
    pub(super) fn hang_up(&mut self) {
        for client in &mut self.clients {
            if client.is_waiting() {
                self.ground.wrong("a client still waits long after its patience".to_owned());
            }
            client.hang_up_all(&mut self.ground);
        }
    }

    pub(super) fn start(&mut self, site: SiteNumber) {
        if self.process(site).is_some() || self.ground.site(site).gone {
            return;
        }
        let life = self.ground.history.lives.len();
        let (started, applied) = (self.ground.now, BTreeMap::new());
        let life_of = Life { site, started, applied, ..Life::default() };
        self.ground.history.lives.push(life_of);
        self.ground.site(site).life = Some(life);
        match (Process::start(&mut self.ground, site, life), self.processes.get_mut(site)) {
            (Ok(process), Some(place)) => *place = Some(process),
            (Err(why), _) => {
                self.ground.wrong(format!("server {site} does not start: {why}"));
                self.broken = true;
            }
            _ => {}
        }
    }

    /// The process has gone; another one begins soon.
    pub(super) fn die(&mut self, site: SiteNumber) {
        let Some(mut process) = self.processes.get_mut(site).and_then(Option::take) else { return };
        process.end(&mut self.ground);
        let now = self.ground.now;
        self.ground.site(site).disk_fails = false;
        self.ground.site(site).life = None;
        if let Some(life) = self.ground.history.lives.get_mut(process.life) {
            life.ended = Some(now);
        }
        let wait = Duration::from_millis(20) + self.ground.rng.jitter(Duration::from_secs(3));
        self.ground.trouble(wait);
        self.ground.after(wait, Event::Nemesis(site, Nemesis::Start));
    }

    /// A process that asked to end, ends.
    fn bury(&mut self) {
        let asks = |process: &Process| Some((process.exit?, process.site, process.life));
        let asked: Vec<(u8, SiteNumber, usize)> = self.processes.iter().flatten().filter_map(asks).collect();
        for (status, site, life) in asked {
            self.forget_wants(Some(site));
            self.ground.note(&format!("server {site}: exit {status}"));
            let stopping = self.ground.history.lives.get(life).is_some_and(|life| life.stopping.is_some());
            if status == 0 && !stopping {
                self.ground.wrong("the server ended without being asked".to_owned());
            }
            self.die(site);
        }
    }

    fn finish(mut self) -> Report {
        let now = self.ground.now;
        if self.ground.trace.steps() > self.ground.options.max_steps() {
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
            time: now.since(Instant::ZERO),
            reigns: history.reigns.len(),
            injected: self.ground.injected.clone(),
            stamped: history.count(|one| matches!((&one.asked, &one.outcome), (Asked::Stamped(_), Outcome::Done(_)))),
            sessions: history.count(|one| matches!(one.outcome, Outcome::Done(Answered::Session(..)))),
            unknown: history.count(|one| is_plain_write(one) && check::is_told_unsure(one)),
            hurried: history.count(|one| {
                is_plain_write(one) && check::is_told_unsure(one) && one.returned < one.invoked + HOLD_TIMEOUT
            }),
            lost: history.count(|one| is_plain_write(one) && one.outcome == Outcome::Unknown),
            documents: history.subscriptions.iter().map(|one| one.documents.len()).sum(),
            faults_done: self.ground.faults_done,
            wrongs,
            log: self.ground.log.into_iter().collect(),
        }
    }
}

/// Whether it is a client's write without a place in a session.
fn is_plain_write(operation: &Operation) -> bool {
    operation.client != SERVER && operation.asked.writes() && !matches!(operation.asked, Asked::Stamped(_))
}

/// A handshake goes both ways, and is tried again.
fn accept(ground: &mut Ground, process: Option<&mut Process>, link: LinkId) {
    let Some((from, to)) = ground.network.link(link).map(|link| (link.from, Place::Site(link.to))) else { return };
    if ground.network.is_apart(from, to) {
        return ground.after(Duration::from_secs(1), Event::Net(Net::Accept(link)));
    }
    match process {
        Some(process) => process.accept(ground, link),
        None => ground.abort(link, Side::Server),
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
    for of in 0..ground.options.sessions {
        let ttl = SESSION_TTL + ground.rng.jitter(SESSION_TTL / 2);
        ground.holders.push(Holder::new(ttl));
        let mut roles = vec![Role::Once(Once::Keep { of })];
        roles.extend((0..WRITERS).map(|_| Role::Once(Once::Write { of, pending: None })));
        clients.push(Client::new(clients.len(), &MUX, roles));
        clients.push(Client::new(clients.len(), &ANY, vec![Role::Once(Once::Echo)]));
    }
    if ground.options.servers > 1 {
        clients.push(Client::new(clients.len(), &MUX, vec![Role::Administrator(Administrator::default())]));
    }
    clients
}
