//! The sockets of one process, in memory: what `edge::traffic` does with the kernel's.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::server::port::{Input, Listener};

use super::cluster_harm::says_just_heard;
use super::fault::Fault;
use super::ground::{Event, Ground, Inner, Net};
use super::network::{Got, LinkId, Place, Side, Written};
use super::process::Process;

/// How long a closed socket may take for its last bytes.
const PARTING_WAIT: Duration = Duration::from_secs(5);

/// One socket.
pub(super) struct Socket {
    pub(super) link: LinkId,
    /// Our end of it.
    pub(super) side: Side,
    /// Its last bytes, once the server has closed it.
    pub(super) parting: Option<VecDeque<u8>>,
    /// Bytes that were written, of which the server does not know that (a planted fault).
    pub(super) untold: usize,
}

impl Socket {
    pub(super) fn new(link: LinkId, side: Side) -> Socket {
        Socket { link, side, parting: None, untold: 0 }
    }
}

impl Process {
    /// A connection reaches the server.
    pub fn accept(&mut self, ground: &mut Ground, link: LinkId) {
        let Some(from) = ground.network.link(link).map(|link| link.from) else { return };
        if !self.accepting {
            ground.abort(link, Side::Server);
            return;
        }
        let host = match from {
            Place::Client(client) => [10, 0, 1, (client % 250) as u8],
            Place::Site(site) => {
                let wait = ground.latency_of(link);
                ground.after(wait, Event::Net(Net::Connected(link)));
                [10, 0, 0, (site + 1) as u8]
            }
        };
        ground.accepted(link);
        let conn = ConnId(self.ids.insert(()));
        self.sockets.insert(conn, Socket::new(link, Side::Server));
        self.by_link.insert((link, Side::Server), conn);
        let peer = (host, 40_000 + (link % 20_000) as u16).into();
        self.feed(ground, Input::Accepted { conn, listener: Listener::Rpc, peer });
    }

    /// The server's end of a wire reads.
    pub fn read(&mut self, ground: &mut Ground, link: LinkId, side: Side) {
        let Some(conn) = self.by_link.get(&(link, side)).copied() else { return };
        let got = ground.read(link, side);
        if self.sockets.get(&conn).is_none_or(|socket| socket.parting.is_some()) {
            return;
        }
        match got {
            Got::Nothing => {}
            Got::Bytes(bytes) => {
                if let Some(Place::Site(from)) = ground.network.link(link).map(|link| link.place(side.other())) {
                    self.note_heard(ground, from);
                }
                self.feed(ground, Input::Received { conn, bytes: &bytes });
            }
            Got::Eof => {
                if !ground.fault(Fault::LoseEof, 100) {
                    self.feed(ground, Input::Eof { conn });
                }
            }
        }
    }

    /// A wire broke at the server's end.
    pub fn broken(&mut self, ground: &mut Ground, link: LinkId, side: Side) {
        if side == Side::Client && self.dial_broken(ground, link, "connect: connection refused") {
            return;
        }
        let Some(conn) = self.by_link.get(&(link, side)).copied() else { return };
        let told = self.sockets.get(&conn).is_some_and(|socket| socket.parting.is_none());
        self.forget(conn);
        if told {
            self.feed(ground, Input::Failed { conn, error: "connection reset by peer".to_owned() });
        }
    }

    /// A socket can be written to again.
    pub fn writable(&mut self, ground: &mut Ground, link: LinkId, side: Side) {
        if let Some(conn) = self.by_link.get(&(link, side)).copied() {
            self.dirty.insert(conn);
            self.flush(ground);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some(socket) = self.sockets.remove(&conn) {
            self.by_link.remove(&(socket.link, socket.side));
            self.ids.remove(conn.0);
        }
    }

    pub(super) fn flush(&mut self, ground: &mut Ground) {
        self.flush_queued = false;
        for conn in std::mem::take(&mut self.dirty) {
            self.write(ground, conn);
        }
        while let Some(input) = self.follow_ups.pop_front() {
            self.feed_one(ground, input);
        }
    }

    fn write(&mut self, ground: &mut Ground, conn: ConnId) {
        self.tell_written(ground, conn);
        let leads = self.takes_itself_for_leader();
        loop {
            let Some(socket) = self.sockets.get_mut(&conn) else { return };
            let (link, side) = (socket.link, socket.side);
            if socket.parting.is_some() {
                return self.go_on_parting(ground, conn);
            }
            let bytes = self.server.to_send(conn);
            if bytes.is_empty() {
                return;
            }
            let mut to = (link, side);
            if ground.fault(Fault::WrongSocket, 3) {
                to = self.by_link.keys().copied().find(|other| *other != to).unwrap_or(to);
            }
            let whole = bytes.len();
            let said = match side {
                Side::Server if !leads => says_just_heard(ground, bytes),
                Side::Server => None,
                Side::Client => self.once_harm.restamped(ground, bytes),
            };
            let written = ground.write(to.0, to.1, said.as_deref().unwrap_or(bytes));
            match written {
                Written::Took(taken) => {
                    ground.trace.step("wrote", &[conn.0, taken as u64]);
                    ground.trace.bytes(self.server.to_send(conn).get(..taken).unwrap_or_default());
                    if taken == whole && side == Side::Client && ground.fault(Fault::RetrySentWrite, 100) {
                        socket.untold = taken;
                        return;
                    }
                    let short = taken < whole && ground.fault(Fault::ForgetShortWrite, 30);
                    let now = self.loop_now(ground);
                    self.server.sent(now, conn, if short { whole } else { taken });
                    self.drain_outputs(ground);
                }
                Written::Blocked | Written::Gone => return,
            }
        }
    }

    pub(super) fn close(&mut self, ground: &mut Ground, conn: ConnId, linger: bool, abort: bool) {
        ground.trace.step("close", &[conn.0, u64::from(linger), u64::from(abort)]);
        let tail = if linger && !abort { self.take_tail(ground, conn) } else { VecDeque::new() };
        if ground.fault(Fault::LeakSocket, 30) {
            return;
        }
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        let (link, side) = (socket.link, socket.side);
        if !linger || abort {
            self.forget(conn);
            return ground.abort(link, side);
        }
        if socket.parting.is_none() {
            socket.parting = Some(tail);
            // What the peer still sends is read and dropped, so that it reads our last bytes.
            ground.set_reading(link, side, true);
            ground.after(PARTING_WAIT, Event::Process(self.life, Inner::Parting(link, side)));
            self.go_on_parting(ground, conn);
        }
    }

    /// All that the server has for a connection: it may forget it then.
    fn take_tail(&mut self, ground: &mut Ground, conn: ConnId) -> VecDeque<u8> {
        self.tell_written(ground, conn);
        let now = self.loop_now(ground);
        let mut tail = VecDeque::new();
        loop {
            let bytes = self.server.to_send(conn);
            if bytes.is_empty() {
                return tail;
            }
            tail.extend(bytes);
            let count = bytes.len();
            self.server.sent(now, conn, count);
        }
    }

    fn go_on_parting(&mut self, ground: &mut Ground, conn: ConnId) {
        let Some(socket) = self.sockets.get_mut(&conn) else { return };
        let (link, side) = (socket.link, socket.side);
        let Some(tail) = &mut socket.parting else { return };
        while !tail.is_empty() {
            match ground.write(link, side, tail.make_contiguous()) {
                Written::Took(taken) => drop(tail.drain(..taken)),
                Written::Blocked => return,
                Written::Gone => break,
            }
        }
        self.forget(conn);
        ground.close(link, side);
    }

    /// A closed socket has had its time.
    pub(super) fn end_parting(&mut self, ground: &mut Ground, link: LinkId, side: Side) {
        if let Some(conn) = self.by_link.get(&(link, side)).copied()
            && self.sockets.get(&conn).is_some_and(|socket| socket.parting.is_some())
        {
            self.forget(conn);
            ground.abort(link, side);
        }
    }
}
