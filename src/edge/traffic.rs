//! The loop's work on sockets: accepting, reading, writing and closing, each bounded in a turn.

use std::io;
use std::mem;
use std::net::SocketAddr;

use mio::net::TcpStream;

use crate::base::id::ConnId;
use crate::base::time::{Clock, Instant};
use crate::server::port::{Input, Listener};

use super::doors::Accepted;
use super::event_loop::{Alarm, EventLoop};
use super::machine::Machine;
use super::socket::{ReadStep, WriteStep};

/// Connections accepted by each listener in a turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Bytes read from each connection in a turn.
const READ_BYTES_PER_TURN: usize = 256 * 1024;
/// Bytes written to each connection in a turn.
const WRITE_BYTES_PER_TURN: usize = 1024 * 1024;
/// Bytes that a closed connection may still have to write; the rest is dropped with it.
const TAIL_BYTES_MAX: usize = 192 * 1024 * 1024;
/// Bytes of the buffer on the stack into which a closed connection's are read.
const DRAIN_BUFFER_BYTES: usize = 8 * 1024;

impl<M: Machine> EventLoop<M> {
    pub(super) fn accept(&mut self) {
        for number in 0..self.doors.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                // Accepting may have closed the doors.
                let Some(door) = self.doors.get_mut(number) else { break };
                if !door.ready || door.shut_until.is_some() {
                    break;
                }
                match door.accept() {
                    Accepted::Connection(stream, peer) => {
                        let listener = door.listener;
                        self.admit(listener, stream, peer);
                    }
                    Accepted::Nobody => break,
                    Accepted::Refused { error, delay } => {
                        let until = self.clock.now() + delay;
                        log::error!("failed to accept {} conn: error=\"{error}\" delay={delay:?}", door.name());
                        door.shut_until = Some(until);
                        self.timers.set(until, Alarm::Door(number));
                    }
                }
            }
        }
    }

    fn admit(&mut self, listener: Listener, stream: TcpStream, peer: SocketAddr) {
        let conn = self.connections.insert(stream);
        self.feed(Input::Accepted { conn, listener, peer });
        // One that was rejected at once is gone, and never costs a registration.
        if let Err(error) = self.connections.register(conn, self.poll.registry()) {
            self.fail(conn, &error);
        }
    }

    pub(super) fn read_sockets(&mut self) {
        let mut buffer = mem::take(&mut self.buffer);
        for _ in 0..self.connections.reads_waiting() {
            if let Some(conn) = self.connections.next_read() {
                self.read_socket(conn, &mut buffer);
            }
        }
        self.buffer = buffer;
    }

    fn read_socket(&mut self, conn: ConnId, buffer: &mut [u8]) {
        let mut left = READ_BYTES_PER_TURN;
        loop {
            let Some(socket) = self.connections.get_mut(conn) else { return };
            if socket.parting.is_some() {
                return self.go_on_parting(conn);
            }
            if !socket.reading || !socket.readable {
                return;
            }
            if left == 0 {
                // The others first.
                return self.connections.queue_read(conn);
            }
            match socket.read(buffer) {
                ReadStep::Bytes(count) => {
                    left = left.saturating_sub(count);
                    let bytes = buffer.get(..count).unwrap_or_default();
                    self.feed(Input::Received { conn, bytes });
                }
                ReadStep::Eof => return self.feed(Input::Eof { conn }),
                ReadStep::Blocked => return,
                ReadStep::Failed(error) => return self.fail(conn, &error),
            }
        }
    }

    pub(super) fn write_sockets(&mut self) {
        let list = self.connections.take_writes();
        for conn in &list {
            self.write_socket(*conn);
        }
        self.connections.reuse(list);
    }

    fn write_socket(&mut self, conn: ConnId) {
        let now = self.clock.now();
        let mut left = WRITE_BYTES_PER_TURN;
        loop {
            let Some(socket) = self.connections.get_mut(conn) else { return };
            if socket.parting.is_some() {
                return self.go_on_parting(conn);
            }
            if !socket.writable {
                // The event that says so puts it on the list again.
                return;
            }
            let bytes = self.machine.to_send(conn);
            if bytes.is_empty() {
                return;
            }
            if left == 0 {
                return self.connections.queue_write(conn);
            }
            match socket.write(bytes) {
                WriteStep::Took(count) => {
                    left = left.saturating_sub(count);
                    self.machine.sent(now, conn, count);
                    self.drain_outputs();
                }
                WriteStep::Blocked => return,
                WriteStep::Failed(error) => return self.fail(conn, &error),
            }
        }
    }

    /// A socket broke: it is closed, then the machine is told.
    fn fail(&mut self, conn: ConnId, error: &io::Error) {
        if self.forget(conn) {
            self.feed(Input::Failed { conn, error: error.to_string() });
        }
    }

    /// Closes a socket. True when its owner had not closed it before.
    fn forget(&mut self, conn: ConnId) -> bool {
        let Some(socket) = self.connections.remove(conn) else { return false };
        if let Some(deadline) = socket.parting_deadline() {
            self.timers.cancel(deadline, Alarm::Parting(conn));
        }
        socket.parting.is_none()
    }

    /// The system reported an error on a socket: also one that is not read at present ends now.
    pub(super) fn check_broken(&mut self, conn: ConnId) {
        let Some(socket) = self.connections.get_mut(conn) else { return };
        if let Ok(Some(error)) | Err(error) = socket.stream.take_error() {
            self.fail(conn, &error);
        }
    }

    pub(super) fn set_reading(&mut self, conn: ConnId, on: bool) {
        let Some(socket) = self.connections.get_mut(conn) else { return };
        if socket.parting.is_none() {
            socket.reading = on;
            self.connections.queue_read(conn);
        }
    }

    pub(super) fn close(&mut self, conn: ConnId, linger: bool, abort: bool) {
        let now = self.clock.now();
        if abort || !linger {
            if let Some(socket) = self.connections.get_mut(conn)
                && abort
            {
                socket.abort_on_close();
            }
            self.forget(conn);
            return;
        }
        let tail = self.take_tail(now, conn);
        let Some(socket) = self.connections.get_mut(conn) else { return };
        if socket.parting.is_some() {
            return;
        }
        socket.part(now, tail);
        if let Some(deadline) = socket.parting_deadline() {
            self.timers.set(deadline, Alarm::Parting(conn));
        }
        self.go_on_parting(conn);
    }

    /// All that the machine has for a connection: it may forget it then.
    fn take_tail(&mut self, now: Instant, conn: ConnId) -> Vec<u8> {
        let mut tail = Vec::new();
        loop {
            let bytes = self.machine.to_send(conn);
            if bytes.is_empty() || tail.len() >= TAIL_BYTES_MAX {
                return tail;
            }
            tail.extend_from_slice(bytes);
            let count = bytes.len();
            self.machine.sent(now, conn, count);
        }
    }

    pub(super) fn go_on_parting(&mut self, conn: ConnId) {
        let now = self.clock.now();
        let Some(socket) = self.connections.get_mut(conn) else { return };
        let Some(before) = socket.parting_deadline() else { return };
        if socket.go_on_parting(now, &mut [0; DRAIN_BUFFER_BYTES]) {
            self.forget(conn);
            return;
        }
        if let Some(after) = socket.parting_deadline().filter(|after| *after != before) {
            self.timers.cancel(before, Alarm::Parting(conn));
            self.timers.set(after, Alarm::Parting(conn));
        }
    }
}
