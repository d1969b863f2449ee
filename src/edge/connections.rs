//! The sockets of all connections under their ids, and the two lists of a turn: which to read, which to write.
//!
//! **Invariant:** an event, a list entry or a timer that names a connection that is gone finds nothing, also when its
//! slot is used again: ids carry a generation.

use std::collections::VecDeque;
use std::mem;

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::base::id::ConnId;
use crate::base::slab::Slab;

use super::socket::Socket;

/// Tokens below this are not connections.
pub(super) const FIRST_TOKEN: usize = 16;

/// All open connections.
#[derive(Default)]
pub(super) struct Connections {
    sockets: Slab<Socket>,
    /// The id in each slot, for events: their token is the slot.
    ids: Vec<ConnId>,
    /// Those that may have something to read and whose owner wants it.
    to_read: VecDeque<ConnId>,
    /// Those that may have something to write.
    to_write: Vec<ConnId>,
    /// Those on their way to somebody, of which the system has said something.
    dialling: Vec<ConnId>,
}

fn slot_of(conn: ConnId) -> usize {
    // The low half of a slab's key; it fits a usize wherever mio runs.
    (conn.0 & 0xffff_ffff) as usize
}

impl Connections {
    /// Takes over a socket. No event of it comes before [`Connections::register`].
    pub(super) fn insert(&mut self, stream: TcpStream) -> ConnId {
        let conn = ConnId(self.sockets.insert(Socket::new(stream)));
        let slot = slot_of(conn);
        if self.ids.len() <= slot {
            self.ids.resize(slot + 1, conn);
        }
        if let Some(id) = self.ids.get_mut(slot) {
            *id = conn;
        }
        conn
    }

    /// Takes over a socket that is on its way to somebody, for a dial.
    pub(super) fn insert_dialling(&mut self, stream: TcpStream, ticket: u64) -> ConnId {
        let conn = self.insert(stream);
        if let Some(socket) = self.sockets.get_mut(conn.0) {
            socket.dialling = Some(ticket);
        }
        conn
    }

    /// Those on their way of which the system has said something since this was asked last.
    pub(super) fn take_dialling(&mut self) -> Vec<ConnId> {
        mem::take(&mut self.dialling)
    }

    /// Asks for the events of a socket, once for its whole life.
    pub(super) fn register(&mut self, conn: ConnId, registry: &Registry) -> std::io::Result<()> {
        let Some(socket) = self.sockets.get_mut(conn.0) else { return Ok(()) };
        let token = Token(FIRST_TOKEN + slot_of(conn));
        registry.register(&mut socket.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Socket> {
        self.sockets.get_mut(conn.0)
    }

    /// Takes a socket out; closing it is dropping it.
    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Socket> {
        self.sockets.remove(conn.0)
    }

    /// Notes what an event says. Gives the connection back when the system reports an error on it.
    pub(super) fn note(&mut self, event: &Event) -> Option<ConnId> {
        let slot = event.token().0.checked_sub(FIRST_TOKEN)?;
        let conn = *self.ids.get(slot)?;
        let socket = self.sockets.get_mut(conn.0)?;
        socket.readable |= event.is_readable() || event.is_read_closed();
        socket.peer_ended |= event.is_read_closed();
        if socket.dialling.is_some() {
            // It may be connected, or have failed; nothing is read or written before that is known.
            self.dialling.push(conn);
            return None;
        }
        if event.is_writable() && !socket.writable {
            socket.writable = true;
            self.queue_write(conn);
        }
        self.queue_read(conn);
        event.is_error().then_some(conn)
    }

    /// Puts a connection on the list to read, when it has something and its owner wants it.
    pub(super) fn queue_read(&mut self, conn: ConnId) {
        let Some(socket) = self.sockets.get_mut(conn.0) else { return };
        let wanted = socket.reading || socket.parting.is_some();
        if socket.dialling.is_none() && socket.readable && wanted && !socket.eof && !socket.queued {
            socket.queued = true;
            self.to_read.push_back(conn);
        }
    }

    /// Puts a connection on the list to write.
    pub(super) fn queue_write(&mut self, conn: ConnId) {
        let Some(socket) = self.sockets.get_mut(conn.0) else { return };
        if !socket.dirty {
            socket.dirty = true;
            self.to_write.push(conn);
        }
    }

    /// How many wait to be read.
    pub(super) fn reads_waiting(&self) -> usize {
        self.to_read.len()
    }

    /// Whether any waits to be written.
    pub(super) fn has_writes(&self) -> bool {
        !self.to_write.is_empty()
    }

    /// The next one to read.
    pub(super) fn next_read(&mut self) -> Option<ConnId> {
        let conn = self.to_read.pop_front()?;
        if let Some(socket) = self.sockets.get_mut(conn.0) {
            socket.queued = false;
        }
        Some(conn)
    }

    /// All to write; the list is empty afterwards.
    pub(super) fn take_writes(&mut self) -> Vec<ConnId> {
        let list = mem::take(&mut self.to_write);
        for conn in &list {
            if let Some(socket) = self.sockets.get_mut(conn.0) {
                socket.dirty = false;
            }
        }
        list
    }

    /// Gives the list's memory back to the next turn.
    pub(super) fn reuse(&mut self, mut list: Vec<ConnId>) {
        if self.to_write.is_empty() {
            list.clear();
            self.to_write = list;
        }
    }

    /// Closed connections that still have bytes to write.
    pub(super) fn tails(&self) -> usize {
        self.sockets.iter().filter(|(_, socket)| socket.has_tail()).count()
    }

    /// Closes all but those that still have bytes to write.
    pub(super) fn keep_tails(&mut self) {
        for key in self.sockets.keys() {
            if self.sockets.get(key).is_some_and(|socket| !socket.has_tail()) {
                self.sockets.remove(key);
            }
        }
    }
}
