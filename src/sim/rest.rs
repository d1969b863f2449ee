//! The end of a world: when all clients are gone, nothing of them may be left at any server, and the state of each is
//! what the log says.

use crate::base::metric::{Id, Value};

use super::process::Process;
use super::site::SiteNumber;
use super::world::World;

/// What must be zero at a server that nobody uses.
const OF_CLIENTS: [(Id, &str); 11] = [
    (Id::Calls, "calls"),
    (Id::Parked, "parked queries"),
    (Id::ParkedGroups, "groups of parked queries"),
    (Id::Held, "held requests"),
    (Id::ForwardedInFlight, "calls at nodes"),
    (Id::Subscribers, "subscribers"),
    (Id::Streams, "streams"),
    (Id::NodeConns, "connections to nodes"),
    (Id::HeartbeatActive, "timers of heartbeats"),
    (Id::LockWaiters, "calls that wait for a lock"),
    (Id::Locks, "locks that are held"),
];

impl World {
    /// All servers that are left.
    pub(super) fn look_at_rest(&mut self) {
        let mut left = Vec::new();
        let several = self.ground.options.servers > 1;
        for site in 0..self.ground.sites.len() {
            if !self.ground.site(site).gone {
                self.look_at(site, several, &mut left);
            }
        }
        if several && self.ground.watch.leader().is_none() {
            left.push("no server leads at the end".to_owned());
        }
        for text in left {
            self.ground.wrong(text);
        }
    }

    fn look_at(&mut self, site: SiteNumber, several: bool, left: &mut Vec<String>) {
        let truth = self.ground.truth.last();
        let last = if several { truth } else { self.ground.site(site).log.last() };
        let open = self.ground.network.open_at_server();
        let Some(process) = self.process_mut(site) else {
            left.push(format!("server {site} does not run at the end"));
            return;
        };
        let mut text = |what: String| left.push(if several { format!("server {site}: {what}") } else { what });
        let alone = (!several).then_some((Id::Connections, "connections"));
        for (id, what) in OF_CLIENTS.into_iter().chain(alone) {
            let sum = sum(process, id);
            // Servers keep their own sessions alive, and streams to each other for the next time; calls tell enough.
            if sum != 0.0 && !(several && id == Id::Streams) {
                text(format!("at rest there are {sum} {what}"));
            }
        }
        if !several && (process.socket_count() > 0 || open > 0) {
            text(format!("at rest {} sockets are open", process.socket_count()));
        }
        if !process.is_disk_idle() {
            text("at rest the disk is busy".to_owned());
        }
        let (root, published) = (process.replica_root(), process.published_root());
        if root.index().0 != last || truth != last {
            text(format!("the state is at {}, the log at {last}, applied was {truth}", root.index()));
        }
        let sessions = root.sessions().filter(|session| session.open.server_id.is_empty()).count();
        if sessions > 0 {
            text(format!("at rest there are {sessions} sessions of clients"));
        }
        let replayed = self.ground.truth.replay_to(root.index().0);
        if root.digest() != replayed.digest() || published.digest() != replayed.digest() {
            text("the state is not what a replay of the log gives".to_owned());
        }
    }
}

/// A metric of a server; of all its labels together.
pub(super) fn sum(process: &mut Process, id: Id) -> f64 {
    let values = process.server.metrics().values();
    values
        .iter()
        .filter(|(metric, _, _)| metric.name == id.metric().name)
        .map(|(_, _, value)| match value {
            Value::Count(n) => *n as f64,
            Value::Number(n) => *n,
            Value::Distribution(_) => 0.0,
        })
        .sum()
}
