//! Several servers on this machine, each with its data in a folder of its own and behind a door of the test's.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{Daemon, Setup, eventually};

use super::caller::{Caller, number_of};
use super::doors::{Door, Net};

/// One cluster at a time in one process: two debug builds under load would take each other's time.
static TURN: Mutex<()> = Mutex::new(());

/// What servers are started with.
#[derive(Clone)]
pub struct Shape {
    pub count: usize,
    pub expect: usize,
    /// Lines of their configuration that stand in no table.
    pub top: String,
    /// Tables, after ours.
    pub tables: String,
    /// Lines of `[cluster]`.
    pub cluster: String,
    /// Servers reach each other without doors: for measurements.
    pub direct: bool,
}

impl Shape {
    /// As many servers, which found one cluster.
    pub fn of(count: usize) -> Shape {
        let empty = String::new;
        Shape { count, expect: count, top: empty(), tables: empty(), cluster: empty(), direct: false }
    }

    pub fn tables(mut self, tables: &str) -> Shape {
        tables.clone_into(&mut self.tables);
        self
    }

    pub fn cluster(mut self, lines: &str) -> Shape {
        lines.clone_into(&mut self.cluster);
        self
    }

    pub fn direct(mut self) -> Shape {
        self.direct = true;
        self
    }
}

/// One server, running or not.
pub struct Server {
    pub name: String,
    pub setup: Setup,
    pub daemon: Option<Daemon>,
    pub door: Door,
    /// More tables of its own.
    pub own_tables: String,
    /// Whom it joins, where that is not all others.
    pub join: Option<Vec<SocketAddr>>,
    pub is_paused: bool,
}

/// HTTP addresses by server, `None` while it is down: what clients know.
pub type Addresses = Arc<Mutex<Vec<Option<SocketAddr>>>>;

/// All of them.
pub struct Cluster {
    pub servers: Vec<Server>,
    pub net: Arc<Net>,
    pub shape: Shape,
    pub addresses: Addresses,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Cluster {
    /// Starts all and waits until each serves writes.
    #[track_caller]
    pub fn start(shape: Shape) -> Cluster {
        let mut cluster = Cluster::prepare(shape);
        (0..cluster.shape.count).for_each(|at| cluster.run(at));
        cluster.until_ready();
        cluster
    }

    /// Three.
    #[track_caller]
    pub fn three() -> Cluster {
        Cluster::start(Shape::of(3))
    }

    /// Starts none.
    pub fn prepare(shape: Shape) -> Cluster {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = Cluster::beside(shape);
        cluster._turn = Some(turn);
        cluster
    }

    /// One more beside one that is there.
    pub fn beside(shape: Shape) -> Cluster {
        let mut cluster =
            Cluster { servers: Vec::new(), net: Net::new(), shape, addresses: Arc::default(), _turn: None };
        (0..cluster.shape.count).for_each(|_| {
            cluster.more();
        });
        cluster
    }

    /// One more, with an empty disk, not started yet.
    pub fn more(&mut self) -> usize {
        let at = self.servers.len();
        let door = Door::new(&self.net, at);
        let setup = Setup::new("").without_leader().filter("info");
        let setup = if self.shape.direct { setup.rpc(&door.address.to_string()) } else { setup };
        let (name, own_tables) = (format!("s{}", at + 1), String::new());
        self.servers.push(Server { name, setup, daemon: None, door, own_tables, join: None, is_paused: false });
        self.addresses.lock().unwrap().push(None);
        at
    }

    /// The address that others are told.
    pub fn address(&self, at: usize) -> SocketAddr {
        self.servers[at].door.address
    }

    fn config_of(&self, at: usize) -> String {
        let server = &self.servers[at];
        let others = || (0..self.servers.len()).filter(|other| *other != at).map(|other| self.address(other)).collect();
        let join: Vec<SocketAddr> = server.join.clone().unwrap_or_else(others);
        let join: Vec<String> = join.iter().map(|address| format!("\"{address}\"")).collect();
        let Shape { top, cluster, tables, expect, .. } = &self.shape;
        format!(
            "name = \"{}\"\n{top}\n[advertise]\nrpc = \"{}\"\n[cluster]\nbootstrap_expect = {expect}\njoin = [{}]\n\
             {cluster}\n[limits]\nrpc_max_conns_per_client = 0\nhttp_max_conns_per_client = 0\n{tables}\n{}\n",
            server.name,
            server.door.address,
            join.join(", "),
            server.own_tables,
        )
    }

    /// Starts one, on the data that it has.
    #[track_caller]
    pub fn run(&mut self, at: usize) {
        let config = self.config_of(at);
        let server = &mut self.servers[at];
        assert!(server.daemon.is_none(), "{} runs", server.name);
        server.setup = server.setup.clone().config(&config);
        let mut daemon = server.setup.spawn();
        self.net.runs(daemon.child.id(), at);
        daemon.take_ports();
        if !self.shape.direct {
            server.door.open(daemon.rpc);
        }
        self.addresses.lock().unwrap()[at] = Some(daemon.http);
        server.daemon = Some(daemon);
        server.is_paused = false;
    }

    pub fn daemon(&self, at: usize) -> &Daemon {
        self.servers[at].daemon.as_ref().unwrap_or_else(|| panic!("{} is down", self.servers[at].name))
    }

    pub fn http(&self, at: usize) -> SocketAddr {
        self.daemon(at).http
    }

    /// Those that run and are not paused.
    pub fn running(&self) -> Vec<usize> {
        let runs = |at: &usize| self.servers[*at].daemon.is_some() && !self.servers[*at].is_paused;
        (0..self.servers.len()).filter(runs).collect()
    }

    pub fn running_but(&self, but: usize) -> Vec<usize> {
        self.running().into_iter().filter(|at| *at != but).collect()
    }

    /// Ends it as a loss of power would. Who dials it is refused from then on.
    pub fn kill(&mut self, at: usize) {
        let mut daemon = self.down(at);
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }

    /// Stops it in order; gives its exit status. Its door is shut when it no longer listens itself.
    #[track_caller]
    pub fn stop(&mut self, at: usize) -> Option<i32> {
        let mut daemon = self.servers[at].daemon.take().unwrap();
        daemon.signal(Signal::TERM);
        eventually("the end of listening", || TcpStream::connect(daemon.rpc).is_err().then_some(()));
        self.servers[at].door.shut();
        let status = daemon.exit().code();
        self.addresses.lock().unwrap()[at] = None;
        status
    }

    fn down(&mut self, at: usize) -> Daemon {
        self.servers[at].door.shut();
        self.addresses.lock().unwrap()[at] = None;
        self.servers[at].daemon.take().unwrap()
    }

    pub fn pause(&mut self, at: usize) {
        self.servers[at].is_paused = true;
        self.daemon(at).signal(Signal::STOP);
    }

    pub fn resume(&mut self, at: usize) {
        self.daemon(at).signal(Signal::CONT);
        self.servers[at].is_paused = false;
    }

    /// It is reached at another address from its next start on.
    pub fn moves(&mut self, at: usize) {
        self.servers[at].door = Door::new(&self.net, at);
    }

    /// Whom a server takes for the leader.
    pub fn leader_by(&self, at: usize) -> Option<usize> {
        let answer = Caller::default().get(self.http(at), "/v1/status/leader").ok()?;
        let address = answer.json().as_str()?.parse::<SocketAddr>().ok()?;
        (0..self.servers.len()).find(|server| self.address(*server) == address)
    }

    /// The leader on which all of these agree.
    #[track_caller]
    pub fn until_leader_of(&self, servers: &[usize]) -> usize {
        eventually("a leader", || {
            let named: Vec<Option<usize>> = servers.iter().map(|at| self.leader_by(*at)).collect();
            let first = named.first().copied().flatten()?;
            (named.iter().all(|leader| *leader == Some(first)) && servers.contains(&first)).then_some(first)
        })
    }

    #[track_caller]
    pub fn until_leader(&self) -> usize {
        self.until_leader_of(&self.running())
    }

    /// Waits until all that run say that they are ready, and a write through each is done.
    #[track_caller]
    pub fn until_ready(&self) {
        self.until_leader();
        for at in self.running() {
            let ready = || Caller::default().get(self.http(at), "/readyz").is_ok_and(|answer| answer.status == 200);
            eventually("readiness", || ready().then_some(()));
            eventually("a write", || self.put(at, "rig/first", 1).ok());
        }
    }

    /// Writes a number through one server; gives the variable's index.
    pub fn put(&self, at: usize, path: &str, number: u64) -> Result<u64, String> {
        let answer = Caller::default().write_var(self.http(at), path, number, "").map_err(|e| format!("{e:?}"))?;
        number_of(&answer).map(|(_, index)| index).ok_or_else(|| format!("{}: {}", answer.status, answer.text()))
    }

    /// Reads it through one server, `query` as in `?stale`.
    pub fn get(&self, at: usize, path: &str, query: &str) -> Result<Option<u64>, String> {
        let read = Caller::default().read_var(self.http(at), path, query).map_err(|e| format!("{e:?}"))?;
        match read {
            (Some((number, _)), _) => Ok(Some(number)),
            (None, answer) if answer.status == 404 => Ok(None),
            (None, answer) => Err(format!("{}: {}", answer.status, answer.text())),
        }
    }

    /// Waits until a server itself holds this number, whatever the others do.
    #[track_caller]
    pub fn until_held(&self, at: usize, path: &str, number: u64) {
        let holds = || self.get(at, path, "?stale") == Ok(Some(number));
        eventually("a number on a server's own disk", || holds().then_some(()));
    }

    /// `operator raft list-peers` as one server answers it.
    pub fn peers(&self, at: usize) -> Vec<Value> {
        let ran = self.daemon(at).holdfast(&["--json", "operator", "raft", "list-peers"]);
        let listed: Option<Value> = serde_json::from_str(&ran.out).ok();
        listed.and_then(|listed| listed.as_array().cloned()).unwrap_or_default()
    }

    /// The entry of one server in another's list.
    pub fn peer(&self, asked: usize, at: usize) -> Option<Value> {
        let address = self.address(at).to_string();
        self.peers(asked).into_iter().find(|peer| peer["address"] == address.as_str())
    }

    /// Waits until so many voters are listed, and no one else.
    #[track_caller]
    pub fn until_voters(&self, asked: usize, count: usize) {
        eventually("voters", || {
            let peers = self.peers(asked);
            (peers.len() == count && peers.iter().all(|peer| peer["voter"] == true)).then_some(())
        });
    }

    /// Raft's id of a server.
    #[track_caller]
    pub fn id_of(&self, asked: usize, at: usize) -> String {
        eventually("a listed server", || Some(self.peer(asked, at)?["id"].as_str()?.to_owned()))
    }

    /// Changes autopilot's configuration; only what is named.
    #[track_caller]
    pub fn autopilot(&self, at: usize, changes: &[(&str, Value)]) {
        let (path, mut caller) = ("/v1/operator/autopilot/configuration", Caller::default());
        let mut config = caller.get(self.http(at), path).unwrap().json();
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        let body = config.to_string();
        let answer = caller.ask(self.http(at), "PUT", path, body.as_bytes(), Duration::from_secs(10)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.net.end();
    }
}
