//! One simulated client: a connection, dialled again whenever it is lost, and lanes that ask one thing after another
//! on it. Answers the server's calls when it is a node. What it does with event streams is in `subscriber.rs`.
//!
//! One file over five hundred lines: a client is one state machine, and its lanes share a connection.

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::first_byte::FirstByte;

use super::ground::{Event, Ground};
use super::history::{Asked, OperationId, Outcome};
use super::network::{Fate, Got, LinkId, Place, Side, Written};
use super::requests;
use super::site::SiteNumber;
use super::transport::{Heard, Transport};
use super::workload::{Next, Role};

/// Beyond its own wait, a client waits so long for an answer.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What goes on on a lane.
#[derive(Debug)]
pub(super) enum Busy {
    Call { operation: OperationId, asked: Asked, stream: u32, seq: u64 },
    Events { subscription: usize, stream: u32, acked: bool },
}

impl Busy {
    fn stream(&self) -> u32 {
        match self {
            Busy::Call { stream, .. } | Busy::Events { stream, .. } => *stream,
        }
    }
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) role: Role,
    pub(super) busy: Option<Busy>,
    /// A stream of calls that is used again.
    stream: Option<u32>,
}

pub(super) struct Connection {
    link: LinkId,
    /// Which of this client's connections it is.
    number: u64,
    pub(super) transport: Transport,
}

/// One client.
pub struct Client {
    pub(super) number: usize,
    /// The server that it calls, or called last.
    pub(super) site: SiteNumber,
    kinds: Vec<FirstByte>,
    pub(super) lanes: Vec<Lane>,
    pub(super) connection: Option<Connection>,
    connections: u64,
    timer: Option<Instant>,
    seq: u64,
    noise: Vec<LinkId>,
    /// The server to call next, whatever chance says.
    aim: Option<SiteNumber>,
}

impl Client {
    /// A client with a lane for each role, whose connections speak one of `kinds`.
    pub fn new(number: usize, kinds: &[FirstByte], roles: Vec<Role>) -> Client {
        let lanes = roles.into_iter().map(|role| Lane { role, busy: None, stream: None }).collect();
        Client {
            number,
            site: number,
            kinds: kinds.to_vec(),
            lanes,
            connection: None,
            connections: 0,
            timer: None,
            seq: 0,
            noise: Vec::new(),
            aim: None,
        }
    }

    /// How many lanes it has.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Something is to be asked by an administrator: of this server, or of any.
    pub fn administer(&mut self, ground: &mut Ground, asked: Asked, at: Option<SiteNumber>) {
        let Some(Role::Administrator(administrator)) = self.lanes.first_mut().map(|lane| &mut lane.role) else {
            return;
        };
        administrator.asks.push_back(asked);
        if at.is_some() {
            self.hang_up(ground);
            self.aim = at;
        }
    }

    /// Whether it has something to do when others begin nothing new.
    fn has_duties(&self) -> bool {
        let has = |lane: &Lane| matches!(&lane.role, Role::Administrator(one) if !one.asks.is_empty());
        self.lanes.iter().any(has)
    }

    /// A lane acts.
    pub fn act(&mut self, ground: &mut Ground, lane: usize) {
        if (ground.quiet && !self.has_duties()) || self.lanes.get(lane).is_none_or(|lane| lane.busy.is_some()) {
            return;
        }
        let Some(next) = self.lanes.get_mut(lane).map(|lane| lane.role.next(ground)) else { return };
        match next {
            Next::Sleep(wait) => self.act_after(ground, lane, wait),
            Next::Noise => self.make_noise(ground, lane),
            Next::Ask(asked) => self.ask(ground, lane, asked),
            Next::Subscribe { node, from } => self.subscribe(ground, lane, node, from),
        }
    }

    pub(super) fn act_after(&mut self, ground: &mut Ground, lane: usize, wait: Duration) {
        let wait = wait + Duration::from_micros(50);
        ground.after(wait, Event::Lane(self.number, lane));
    }

    pub(super) fn dial(&mut self, ground: &mut Ground) {
        if self.connection.is_some() {
            return;
        }
        let kind = self.kinds.get(ground.rng.below(self.kinds.len() as u64) as usize).copied();
        let kind = kind.unwrap_or(FirstByte::Rpc);
        let mut fate = Fate::default();
        let (bad, silent) = (ground.rng.chance(ground.options.bad_wires, 100), ground.rng.chance(1, 3));
        let after = Some(ground.rng.below(12_000));
        match (bad && !ground.quiet, silent) {
            (false, _) => {}
            (true, false) => fate.reset_after = after,
            (true, true) => fate.silent_after = after,
        }
        let site = self.any_site(ground);
        let link = ground.dial(Place::Client(self.number), site, fate);
        let transport = Transport::new(kind, ground.options.mux(), ground.now);
        self.connections += 1;
        self.connection = Some(Connection { link, number: self.connections, transport });
    }

    /// The server to call: the one of before, or, once that failed, any.
    fn any_site(&mut self, ground: &mut Ground) -> SiteNumber {
        let servers = ground.options.servers;
        if let Some(site) = self.aim.take() {
            self.site = site;
            return site;
        }
        if servers > 1 && (self.site >= servers || ground.rng.chance(1, 2)) {
            self.site = ground.rng.below(servers as u64) as usize;
        }
        self.site = self.site.min(servers - 1);
        self.site
    }

    fn ask(&mut self, ground: &mut Ground, lane: usize, asked: Asked) {
        self.dial(ground);
        let now = ground.now;
        let others_busy = self.lanes.iter().any(|lane| lane.busy.is_some());
        let held = self.lanes.get_mut(lane).and_then(|lane| lane.stream.take());
        let Some(connection) = &mut self.connection else { return };
        let transport = &mut connection.transport;
        if others_busy && !transport.is_mux() {
            return self.act_after(ground, lane, Duration::from_millis(20));
        }
        let stream = if transport.takes_calls() { held.or_else(|| transport.open(now)) } else { None };
        let Some(stream) = stream else {
            self.hang_up(ground);
            return self.act_after(ground, lane, Duration::from_millis(100));
        };
        self.seq += 1;
        let (method, body) = requests::request(&asked, &ground.fleet);
        transport.call(stream, self.seq, method, &body);
        let life = ground.history.current_life(self.site);
        let operation = ground.history.ask(self.number, life, now, asked.clone());
        ground.after(asked.wait() + PATIENCE, Event::Patience(self.number, operation));
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.busy = Some(Busy::Call { operation, asked, stream, seq: self.seq });
        }
        self.flush(ground);
    }

    /// Bytes that mean nothing, or the beginning of something, on a wire of its own.
    fn make_noise(&mut self, ground: &mut Ground, lane: usize) {
        for old in std::mem::take(&mut self.noise) {
            match ground.rng.below(3) {
                0 => ground.close(old, Side::Client),
                1 => ground.abort(old, Side::Client),
                _ => ground.vanish(old),
            }
        }
        let site = self.any_site(ground);
        let link = ground.dial(Place::Client(self.number), site, Fate::default());
        ground.set_reading(link, Side::Client, false);
        let mut bytes: Vec<u8> = match ground.rng.below(4) {
            0 => b"\x06\x00\x01\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00".to_vec(),
            1 => b"\x01\x82\xa3Seq\x01\xadServiceMethod\xabStatus.Ping".to_vec(),
            2 => b"\x05\x81\xa6Method\xacEvent.Stream".to_vec(),
            _ => Vec::new(),
        };
        let junk = ground.rng.below(40);
        bytes.extend((0..junk).map(|_| ground.rng.below(256) as u8));
        if !bytes.is_empty() {
            ground.write(link, Side::Client, &bytes);
        }
        self.noise.push(link);
        let wait = ground.rng.jitter(Duration::from_secs(8));
        self.act_after(ground, lane, wait);
    }

    // The wire.

    /// The client's end reads.
    pub fn read(&mut self, ground: &mut Ground, link: LinkId) {
        if self.connection.as_ref().is_none_or(|connection| connection.link != link) {
            ground.read(link, Side::Client);
            return;
        }
        match ground.read(link, Side::Client) {
            Got::Nothing => {}
            Got::Eof => {
                ground.close(link, Side::Client);
                self.lost(ground);
            }
            Got::Bytes(bytes) => {
                ground.trace.step("client read", &[self.number as u64]);
                let now = ground.now;
                let heard = match &mut self.connection {
                    Some(connection) => connection.transport.handle_bytes(now, &bytes),
                    None => return,
                };
                self.hear_all(ground, heard);
            }
        }
    }

    /// The wire broke.
    pub fn broken(&mut self, ground: &mut Ground, link: LinkId) {
        if self.connection.as_ref().is_some_and(|connection| connection.link == link) {
            self.lost(ground);
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self, ground: &mut Ground) {
        let Some(connection) = &mut self.connection else { return };
        let link = connection.link;
        loop {
            let out = connection.transport.output();
            if out.is_empty() {
                break;
            }
            match ground.write(link, Side::Client, out) {
                Written::Took(taken) => drop(out.drain(..taken)),
                Written::Blocked => break,
                Written::Gone => return self.lost(ground),
            }
        }
        let deadline = connection.transport.poll_timeout();
        if let Some(at) = deadline.filter(|at| self.timer.is_none_or(|set| *at < set)) {
            self.timer = Some(at);
            ground.queue.push(at.max(ground.now), Event::ClientTimer(self.number));
        }
    }

    /// A deadline of the connection may be due.
    pub fn timeout(&mut self, ground: &mut Ground) {
        self.timer = None;
        let now = ground.now;
        let Some(connection) = &mut self.connection else { return };
        let heard = connection.transport.handle_timeout(now);
        self.hear_all(ground, heard);
    }

    fn hear_all(&mut self, ground: &mut Ground, heard: Vec<Heard>) {
        for one in heard {
            self.hear(ground, one);
        }
        self.flush(ground);
    }

    fn hear(&mut self, ground: &mut Ground, heard: Heard) {
        match heard {
            Heard::GoAway => {}
            Heard::Over(why) => {
                // Only our own patience with a silent wire is no fault of the server's.
                if !why.contains("KeepaliveTimeout") && !why.contains("OpenTimeout") {
                    ground.wrong(format!("client {}: the session ended: {why}", self.number));
                }
                self.hang_up(ground);
            }
            Heard::Data(stream) => self.on_data(ground, stream),
            Heard::Finished(stream) => {
                if let Some(connection) = &mut self.connection {
                    connection.transport.finish(ground.now, stream);
                }
                self.stream_ended(ground, stream);
            }
            Heard::Gone(stream) => self.stream_ended(ground, stream),
        }
    }

    fn on_data(&mut self, ground: &mut Ground, stream: u32) {
        let Some(connection) = &mut self.connection else { return };
        if connection.transport.is_incoming(stream) {
            return self.on_request(ground, stream);
        }
        let lane = self.lanes.iter().position(|lane| lane.busy.as_ref().is_some_and(|busy| busy.stream() == stream));
        let Some(lane) = lane else {
            // A stream that was given up may still bring its answer; a plain connection has nothing else on it.
            if !connection.transport.is_mux() {
                ground.wrong(format!("client {}: bytes that nobody asked for", self.number));
                self.hang_up(ground);
            }
            return;
        };
        match self.lanes.get(lane).and_then(|lane| lane.busy.as_ref()) {
            Some(Busy::Call { .. }) => self.on_reply(ground, lane),
            Some(Busy::Events { .. }) => self.on_events(ground, lane),
            None => {}
        }
    }

    fn on_reply(&mut self, ground: &mut Ground, lane: usize) {
        let (Some(connection), Some(held)) = (&mut self.connection, self.lanes.get_mut(lane)) else { return };
        let Some(Busy::Call { operation, asked, stream, seq }) = &held.busy else { return };
        let (operation, stream) = (*operation, *stream);
        let (head, body) = match connection.transport.take_reply(stream) {
            Ok(None) => return,
            Ok(Some(reply)) => reply,
            Err(why) => return self.garbled(ground, &why),
        };
        let (method, _) = requests::request(asked, &[]);
        if head.seq != *seq || head.service_method != method {
            let why = format!("asked {seq} {method}, answered {} {}", head.seq, head.service_method);
            return self.garbled(ground, &why);
        }
        let outcome = if head.error.is_empty() {
            match requests::answer(asked, &body, &ground.fleet) {
                Ok(answered) => Outcome::Done(answered),
                Err(why) => return self.garbled(ground, &why),
            }
        } else {
            // A server that passed the call on says so.
            Outcome::Refused(head.error.trim_start_matches("rpc error: ").to_owned())
        };
        ground.note(&format!("client {} {asked:?} -> {outcome:?}", self.number));
        ground.history.end(operation, ground.now, outcome.clone());
        let wait = held.role.learn(ground, asked, &outcome);
        held.busy = None;
        if connection.transport.is_mux() && ground.rng.chance(1, 2) {
            connection.transport.finish(ground.now, stream);
        } else {
            held.stream = Some(stream);
        }
        if ground.rng.chance(ground.options.bad_wires, 2000) {
            self.walk_away(ground);
        }
        self.act_after(ground, lane, wait);
    }

    /// Leaves its connection in some way.
    fn walk_away(&mut self, ground: &mut Ground) {
        let Some(link) = self.connection.as_ref().map(|connection| connection.link) else { return };
        match ground.rng.below(3) {
            0 => ground.close(link, Side::Client),
            1 => ground.abort(link, Side::Client),
            _ => ground.vanish(link),
        }
        self.lost(ground);
    }

    pub(super) fn garbled(&mut self, ground: &mut Ground, why: &str) {
        ground.wrong(format!("client {}: {why}", self.number));
        self.hang_up(ground);
    }

    pub(super) fn stream_ended(&mut self, ground: &mut Ground, stream: u32) {
        let now = ground.now;
        let mut ended = Vec::new();
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if lane.stream == Some(stream) {
                lane.stream = None;
            }
            let busy = lane.busy.take_if(|busy| busy.stream() == stream);
            match busy {
                None => continue,
                Some(Busy::Call { operation, .. }) => ground.history.end(operation, now, Outcome::Unknown),
                Some(Busy::Events { subscription, .. }) => {
                    if let Some(seen) = ground.history.subscriptions.get_mut(subscription) {
                        seen.ended = Some(now);
                    }
                }
            }
            ended.push(number);
        }
        for lane in ended {
            let wait = ground.rng.jitter(Duration::from_secs(1));
            self.act_after(ground, lane, wait);
        }
    }

    // Calls of the server's.

    fn on_request(&mut self, ground: &mut Ground, stream: u32) {
        let Some(connection) = &mut self.connection else { return };
        match connection.transport.take_request(stream) {
            Ok(None) => {}
            Ok(Some((head, body))) => {
                let own = self.lanes.iter().find_map(|lane| match lane.role {
                    Role::Agent { node, .. } => ground.fleet.get(node),
                    _ => None,
                });
                let Ok((asked, nonce)) = requests::read_call_body(&body) else {
                    return self.garbled(ground, "a call to a node that is none");
                };
                if own.is_none_or(|own| own.id != asked) || head.service_method != "ClientStats.Stats" {
                    return self.garbled(ground, "a call to another node");
                }
                // Now and then a node does not answer, or ends the stream.
                match ground.rng.below(12) {
                    0 => connection.transport.reset(stream),
                    1 => {}
                    _ => {
                        let mut reply = Transport::new(FirstByte::Rpc, ground.options.mux(), ground.now);
                        reply.output().clear();
                        reply.answer(0, &head, &requests::call_body(&asked, nonce));
                        let bytes = std::mem::take(reply.output());
                        let (number, wait) = (connection.number, ground.rng.jitter(Duration::from_millis(300)));
                        ground.after(wait, Event::Answer(self.number, number, stream, bytes));
                    }
                }
            }
            Err(why) => self.garbled(ground, &why),
        }
    }

    /// Answers a call of the server's, if the connection is still the same.
    pub fn answer(&mut self, ground: &mut Ground, connection: u64, stream: u32, bytes: &[u8]) {
        if let Some(held) = self.connection.as_mut().filter(|held| held.number == connection) {
            held.transport.send(stream, bytes);
            held.transport.finish(ground.now, stream);
        }
        self.flush(ground);
    }

    // The end of a connection.

    /// An operation should have been answered by now.
    pub fn lose_patience(&mut self, ground: &mut Ground, operation: OperationId) {
        let waits = |lane: &Lane| matches!(lane.busy, Some(Busy::Call { operation: held, .. }) if held == operation);
        if !self.lanes.iter().any(waits) {
            return;
        }
        let link = self.connection.as_ref().and_then(|connection| ground.network.link(connection.link));
        // A node may take its time; for everything else a wire that is whole brings an answer.
        let is_call =
            matches!(ground.history.operations.get(operation).map(|o| &o.asked), Some(Asked::CallNode { .. }));
        let calm =
            ground.history.is_calm(Instant::ZERO + (ground.now - Instant::ZERO).saturating_sub(PATIENCE), ground.now);
        let whole = link.is_some_and(|link| !link.silent) && !is_call && calm;
        let outcome = if whole { Outcome::TimedOut } else { Outcome::Unknown };
        ground.history.end(operation, ground.now, outcome);
        self.walk_away(ground);
    }

    /// Closes the connection in order.
    pub fn hang_up(&mut self, ground: &mut Ground) {
        if let Some(link) = self.connection.as_ref().map(|connection| connection.link) {
            let whole = ground.network.link(link).is_some_and(|link| !link.silent);
            for lane in &self.lanes {
                if let Some(Busy::Events { subscription, .. }) = &lane.busy
                    && let Some(seen) = ground.history.subscriptions.get_mut(*subscription)
                {
                    seen.whole = whole;
                }
            }
            ground.close(link, Side::Client);
        }
        self.lost(ground);
    }

    /// Closes everything, noise too.
    pub fn hang_up_all(&mut self, ground: &mut Ground) {
        for link in std::mem::take(&mut self.noise) {
            ground.close(link, Side::Client);
        }
        for lane in &mut self.lanes {
            if let Role::Administrator(administrator) = &mut lane.role {
                administrator.asks.clear();
            }
        }
        self.hang_up(ground);
    }

    fn lost(&mut self, ground: &mut Ground) {
        self.connection = None;
        let now = ground.now;
        for number in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            lane.stream = None;
            match lane.busy.take() {
                None => continue,
                Some(Busy::Call { operation, asked, .. }) => {
                    ground.history.end(operation, now, Outcome::Unknown);
                    lane.role.learn(ground, &asked, &Outcome::Unknown);
                }
                Some(Busy::Events { subscription, .. }) => {
                    if let Some(seen) = ground.history.subscriptions.get_mut(subscription) {
                        seen.ended = Some(now);
                    }
                }
            }
            let wait = ground.rng.jitter(Duration::from_millis(800));
            self.act_after(ground, number, wait);
        }
    }

    /// Whether something was asked and not answered.
    pub fn is_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| matches!(lane.busy, Some(Busy::Call { .. })))
    }
}
