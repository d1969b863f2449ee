//! Links, the book and the founding as one machine: hellos and beats in, whom to dial and what to tell out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::base::id::{ConnId, ReplicaId};
use crate::base::rng::Rng;
use crate::base::time::{Instant, WallTime};
use crate::consensus::Membership;
use crate::server::port::{ClusterFile, Settings};
use crate::wire::raft::{Beat, Hello, RaftFrame, ServerHello};

use super::book::Book;
use super::founding::{Founding, Step, is_majority};
use super::links::{Kind, Links, Pace, Want};

/// Version of what servers say to each other.
pub(super) const VERSION: u64 = 1;
/// What a leader says to a server that was a member and is none any more.
pub(super) const REMOVED: &str = "this server was removed from the cluster";
/// The same line is written once in this time.
const SAME_LINE: Duration = Duration::from_secs(10);
/// Lines that are remembered for that.
const LINES_MAX: usize = 64;

/// What the owner is to do.
#[derive(Debug, PartialEq)]
pub(super) enum Act {
    /// Dial this address for raft.
    Dial(Arc<str>),
    /// Let a link that came in go on.
    Admit(ConnId),
    /// Send this.
    Send(ConnId, RaftFrame),
    /// End a link at once.
    Close(ConnId),
    /// Keep this on disk, then call [`Machine::on_kept`].
    Keep(ClusterFile),
    /// Found the group with these voters.
    Found(Vec<ReplicaId>),
    /// Take in what another server knows of other regions.
    Regions(Vec<(String, Vec<String>)>),
    /// Write a line to the log.
    Log(Level, String),
}

/// What a link brought that is no hello and no beat.
#[derive(Debug, PartialEq)]
pub(super) enum Passed {
    /// The link to this replica can be used from now on.
    Up(u64),
    /// Something was said about servers, or about how one is.
    News,
    /// A frame of the server with this id, and whether it came on a link that the server dialled.
    Frame { replica: u64, incoming: bool, frame: RaftFrame },
}

/// Servers, the links to them, and how a cluster begins.
#[derive(Debug)]
pub(in crate::server) struct Machine {
    pub(in crate::server) book: Book,
    pub(in crate::server) links: Links,
    pub(super) founding: Founding,
    /// What beats say of this server.
    pub(super) own_beat: Beat,
    /// This server was a member and is none any more.
    pub(super) removed: bool,
    /// What other servers are told of other regions.
    pub(in crate::server) regions: Vec<(String, Vec<String>)>,
    acts: VecDeque<Act>,
    said: BTreeMap<String, Instant>,
    /// What hellos say has changed since they were sent.
    hello_is_old: bool,
    /// When it is told who is missing.
    waiting_at: Instant,
}

impl Machine {
    pub(super) fn new(settings: &Settings, now: Instant, wall: WallTime) -> Machine {
        let own = ServerHello {
            id: settings.server_id.clone(),
            replica: settings.replica.0,
            name: settings.name.clone(),
            region: settings.region.clone(),
            datacenter: settings.datacenter.clone(),
            rpc_addr: settings.advertise_rpc.clone(),
            http_addr: settings.advertise_http.clone(),
            build: settings.version.clone(),
            since: wall.unix_nanos(),
        };
        let named = settings.join.iter().filter(|address| **address != settings.advertise_rpc).count();
        let allowed = is_majority(settings.bootstrap_expect, named + 1);
        let founding = Founding::new(settings.bootstrap_expect, &own.id, settings.cluster.clone(), allowed);
        let rng = Rng::from_seed(settings.seed ^ settings.replica.0.rotate_left(17));
        let mut links = Links::new(Pace::of(settings.election_timeout), rng, &own.rpc_addr);
        for address in &settings.join {
            links.add_target(now, address, None, true);
        }
        for (id, address) in settings.cluster.known.iter().filter(|(id, _)| *id != own.id) {
            links.add_target(now, address, Some(id), false);
        }
        Machine {
            book: Book::new(own),
            links,
            founding,
            own_beat: Beat::default(),
            removed: false,
            regions: settings.regions.clone(),
            acts: VecDeque::new(),
            said: BTreeMap::new(),
            hello_is_old: false,
            waiting_at: now + SAME_LINE,
        }
    }

    /// The next thing to do.
    pub(super) fn poll_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When [`Machine::on_due`] is wanted next.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = (self.founding.is_waiting() && !self.links.is_empty()).then_some(self.waiting_at);
        self.links.next().into_iter().chain(waiting).min()
    }

    /// Which cluster this server belongs to; empty for none.
    pub(in crate::server) fn cluster_id(&self) -> &str {
        self.founding.cluster_id()
    }

    /// Whether this server was a member and is none any more.
    pub(in crate::server) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Sends a frame, when its turn comes.
    pub(super) fn send(&mut self, conn: ConnId, frame: RaftFrame) {
        self.acts.push_back(Act::Send(conn, frame));
    }

    /// All links are told at once how this server is.
    pub(super) fn beat_now(&mut self, now: Instant) {
        self.links.beat_now(now);
        self.on_due(now);
    }

    fn log(&mut self, level: Level, text: String) {
        self.acts.push_back(Act::Log(level, text));
    }

    /// A line that can come again and again.
    pub(super) fn log_seldom(&mut self, now: Instant, level: Level, text: String) {
        self.said.retain(|_, at| now.since(*at) < SAME_LINE);
        if self.said.len() < LINES_MAX && !self.said.contains_key(&text) {
            self.said.insert(text.clone(), now);
            self.log(level, text);
        }
    }

    // Who is a member, and what is on disk.

    /// Who is a member changed, or is told for the first time.
    pub(super) fn on_members(&mut self, now: Instant, members: &Membership) {
        let own = ReplicaId(self.book.own().replica);
        self.founding.on_members(&members.voters, own);
        self.step(now);
    }

    /// What [`Act::Keep`] asked for is on disk.
    pub(super) fn on_kept(&mut self, now: Instant) {
        let (cluster, founders) = (self.founding.cluster_id().to_owned(), self.founding.founders().to_vec());
        self.founding.kept();
        self.hello_is_old |= self.founding.cluster_id() != cluster || self.founding.founders() != founders;
        self.step(now);
    }

    /// Goes on with the founding, and tells what has changed.
    fn step(&mut self, now: Instant) {
        let links = &self.links;
        match self.founding.step(&self.book, |id| links.to_server(id).is_some()) {
            Some(Step::Keep(file, line)) => {
                self.log(Level::Info, line);
                self.acts.push_back(Act::Keep(file));
            }
            Some(Step::Found(voters)) => {
                let (cluster, count) = (self.founding.cluster_id().to_owned(), voters.len());
                self.log(Level::Info, format!("cluster founded: cluster_id={cluster} servers={count}"));
                self.acts.push_back(Act::Found(voters));
            }
            None => self.remember(),
        }
        if std::mem::take(&mut self.hello_is_old) {
            // On those from the others too: an older answer on its way there must not be the last word.
            for conn in self.links.greeted() {
                let hello = self.hello();
                self.acts.push_back(Act::Send(conn, RaftFrame::Hello(Box::new(hello))));
            }
        }
        self.add_targets(now);
    }

    /// Keeps where the others are, for the next start.
    fn remember(&mut self) {
        if self.founding.is_waiting() {
            return;
        }
        let heard = self.book.peers().filter(|(_, peer)| peer.told.is_some());
        let known = heard.map(|(id, peer)| (id.clone(), peer.server.rpc_addr.clone())).collect::<Vec<_>>();
        if known.is_empty() {
            return;
        }
        if let Some(file) = self.founding.remember(known) {
            self.acts.push_back(Act::Keep(file));
        }
    }

    fn add_targets(&mut self, now: Instant) {
        for (id, peer) in self.book.peers() {
            if self.book.at_address(&peer.server.rpc_addr) == Some(id.as_str()) {
                self.links.add_target(now, &peer.server.rpc_addr, Some(id), false);
            }
        }
        let book = &self.book;
        self.links.retain_targets(|address| book.at_address(address).is_some() || book.peers().next().is_none());
    }

    /// What this server says of itself.
    fn hello(&self) -> Hello {
        Hello {
            version: VERSION,
            cluster_id: self.founding.cluster_id().to_owned(),
            server: self.book.own().clone(),
            bootstrap_expect: self.founding.expect(),
            founders: self.founding.founders().to_vec(),
            known: self.book.known(),
            regions: self.regions.clone(),
            removed: self.removed,
        }
    }

    // Links.

    /// Somebody wants to speak raft.
    pub(super) fn on_accepted(&mut self, now: Instant, conn: ConnId) {
        let act = if self.links.on_accepted(now, conn) { Act::Admit(conn) } else { Act::Close(conn) };
        self.acts.push_back(act);
    }

    /// A link that was dialled can be used: this server says who it is.
    pub(super) fn on_ready(&mut self, now: Instant, conn: ConnId, address: &Arc<str>) {
        self.links.on_ready(now, conn, address);
        let hello = self.hello();
        self.acts.push_back(Act::Send(conn, RaftFrame::Hello(Box::new(hello))));
    }

    pub(super) fn on_dial_failed(&mut self, now: Instant, address: &Arc<str>, error: &str) {
        self.links.on_dial_failed(now, address);
        let text = format!("server cannot be reached: address={address} error={error:?}");
        self.log_seldom(now, Level::Warn, text);
    }

    /// A link has ended; the id of the server that it was the link to.
    pub(super) fn on_closed(&mut self, now: Instant, conn: ConnId, address: Option<&Arc<str>>) -> Option<String> {
        let id = self.links.on_closed(now, conn, address);
        if let Some(peer) = id.as_deref().and_then(|id| self.book.peer(id)) {
            let text = format!("link to a server ended: name={} id={}", peer.server.name, peer.server.id);
            self.log(Level::Info, text);
        }
        id
    }

    /// A frame came.
    pub(super) fn on_frame(&mut self, now: Instant, conn: ConnId, frame: RaftFrame) -> Option<Passed> {
        let kind = self.links.kind(conn)?;
        self.links.on_heard(now, conn);
        let (id, frame) = match (&kind, frame) {
            (_, RaftFrame::Hello(hello)) => return self.on_hello(now, conn, &kind, &hello),
            (Kind::Outgoing(_), RaftFrame::Refused { reason }) => {
                self.on_refused(now, conn, &reason);
                return None;
            }
            (Kind::Incoming(None), _) | (Kind::Outgoing(None), _) => {
                // Nothing counts before a hello.
                self.close(conn);
                return None;
            }
            (Kind::Outgoing(Some(id)), RaftFrame::Beat(beat)) => {
                self.hear(now, id, Some(beat));
                return None;
            }
            (Kind::Incoming(Some(id)), RaftFrame::Beat(beat)) => {
                let number = beat.number;
                self.hear(now, id, Some(beat));
                let beat = Beat { number, ..self.own_beat.clone() };
                self.acts.push_back(Act::Send(conn, RaftFrame::Beat(beat)));
                return None;
            }
            (Kind::Incoming(Some(id)), RaftFrame::Refused { reason }) => {
                self.on_told_removed(now, id, &reason);
                return None;
            }
            (Kind::Outgoing(Some(id)), frame) => {
                self.hear(now, id, None);
                let replica = self.book.peer(id)?.server.replica;
                return Some(Passed::Frame { replica, incoming: false, frame });
            }
            (Kind::Incoming(Some(id)), frame) => (id.clone(), frame),
        };
        self.hear(now, &id, None);
        let replica = self.links.sender(conn)?;
        if let RaftFrame::Message(message) = &frame
            && message.from != replica
        {
            let text = format!("raft message dropped, it names another sender: server={id} from={}", message.from);
            self.log_seldom(now, Level::Warn, text);
            return None;
        }
        Some(Passed::Frame { replica, incoming: true, frame })
    }

    fn hear(&mut self, now: Instant, id: &str, beat: Option<Beat>) {
        if let Some(peer) = self.book.peer_mut(id) {
            peer.heard = Some(now);
            if let Some(beat) = beat {
                peer.beat = beat;
            }
        }
    }

    fn close(&mut self, conn: ConnId) {
        self.links.mark_over(conn);
        self.acts.push_back(Act::Close(conn));
    }

    fn on_hello(&mut self, now: Instant, conn: ConnId, kind: &Kind, hello: &Hello) -> Option<Passed> {
        let (Kind::Outgoing(known) | Kind::Incoming(known)) = kind;
        let is_incoming = matches!(kind, Kind::Incoming(_));
        if hello.server.id == self.book.own().id {
            self.on_own_hello(now, conn, is_incoming, hello);
            return None;
        }
        let other = known.as_ref().is_some_and(|id| *id != hello.server.id);
        let objection = if other { Some("it was another server before".to_owned()) } else { self.objection(hello) };
        if let Some(why) = objection {
            let Hello { server, .. } = hello;
            let text = format!("refused a server: name={} address={} error={why:?}", server.name, server.rpc_addr);
            self.log_seldom(now, Level::Error, text);
            if is_incoming {
                self.acts.push_back(Act::Send(conn, RaftFrame::Refused { reason: why }));
                self.links.refuse(now, conn);
            } else {
                self.links.on_refused(conn);
                self.close(conn);
            }
            return None;
        }
        self.hello_is_old |= self.book.hear(now, hello);
        if !hello.regions.is_empty() {
            self.acts.push_back(Act::Regions(hello.regions.clone()));
        }
        let (id, replica) = (&hello.server.id, hello.server.replica);
        if is_incoming {
            if let Some(older) = self.links.settle_incoming(now, conn, id, replica) {
                self.close(older);
            }
            let answer = self.hello();
            self.acts.push_back(Act::Send(conn, RaftFrame::Hello(Box::new(answer))));
        } else if !self.links.settle_outgoing(now, conn, id, replica) {
            self.close(conn);
            self.step(now);
            return None;
        }
        self.step(now);
        let is_new = !is_incoming && known.is_none();
        if is_new {
            let address = self.links.address_of(conn).map(|address| address.to_string()).unwrap_or_default();
            self.log(Level::Info, format!("linked to a server: name={} id={id} address={address}", hello.server.name));
        }
        Some(if is_new { Passed::Up(replica) } else { Passed::News })
    }

    fn objection(&self, hello: &Hello) -> Option<String> {
        self.book.objection(hello, VERSION, self.founding.cluster_id())
    }

    /// The address leads to this server, or to one that was copied from it.
    fn on_own_hello(&mut self, now: Instant, conn: ConnId, is_incoming: bool, hello: &Hello) {
        if is_incoming {
            let answer = self.hello();
            self.acts.push_back(Act::Send(conn, RaftFrame::Hello(Box::new(answer))));
            self.links.refuse(now, conn);
            return;
        }
        if hello.server == *self.book.own() {
            self.links.is_itself(conn);
        } else {
            let text =
                format!("another server has this server's id, a copied data folder? address={}", hello.server.rpc_addr);
            self.log_seldom(now, Level::Error, text);
            self.links.on_refused(conn);
        }
        self.close(conn);
    }

    /// A server refused this one.
    fn on_refused(&mut self, now: Instant, conn: ConnId, reason: &str) {
        let address = self.links.address_of(conn).map(|address| address.to_string()).unwrap_or_default();
        let short: String = reason.chars().take(200).collect();
        self.log_seldom(now, Level::Error, format!("a server refused this one: address={address} error={short:?}"));
        self.links.on_refused(conn);
        self.close(conn);
    }

    /// The leader says that this server was removed. Only a leader that is not of the past is believed.
    fn on_told_removed(&mut self, now: Instant, id: &str, reason: &str) {
        let Some(peer) = self.book.peer(id) else { return };
        let leads = peer.beat.leader == peer.server.replica && peer.beat.term >= self.own_beat.term;
        if reason == REMOVED && leads {
            let by = peer.server.name.clone();
            self.set_removed(now, &by);
        }
    }

    /// This server is no member any more, and does not become one by itself.
    pub(super) fn set_removed(&mut self, now: Instant, by: &str) {
        if !self.removed {
            self.removed = true;
            self.hello_is_old = true;
            let text = "this server was removed from the cluster; to add it again, start it with an empty data folder";
            self.log(Level::Error, format!("{text}: by={by}"));
            self.step(now);
        }
    }

    // Time.

    /// Something may be due.
    pub(super) fn on_due(&mut self, now: Instant) {
        for want in self.links.due(now) {
            match want {
                Want::Dial(address) => self.acts.push_back(Act::Dial(address)),
                Want::Beat(conn, number) => {
                    let beat = Beat { number, ..self.own_beat.clone() };
                    self.acts.push_back(Act::Send(conn, RaftFrame::Beat(beat)));
                }
                Want::Close(conn, why) => {
                    if let Some(address) = self.links.address_of(conn) {
                        let text = format!("closing the link to a server: address={address} error={why:?}");
                        self.log_seldom(now, Level::Warn, text);
                    }
                    self.acts.push_back(Act::Close(conn));
                }
            }
        }
        if self.founding.is_waiting() && self.waiting_at <= now {
            self.waiting_at = now + SAME_LINE;
            let missing = self.founding.missing(&self.book);
            self.log(Level::Info, missing);
        }
    }
}
