//! What the event loop drives: the server machine, or a double of it in tests.

use crate::base::id::ConnId;
use crate::base::time::{Instant, WallTime};
use crate::server::Server;
use crate::server::port::{Input, Output};

/// A machine with the drive contract of `server::Server`.
///
/// The loop hands in an input, takes outputs until there is none, and sleeps until the timeout. Two rules tie the
/// outputs to the bytes:
/// - [`Output::Flush`] is performed at the end of the turn: one write for all that was queued in it;
/// - [`Output::Close`] with `linger` takes all that waits by [`Machine::to_send`] and [`Machine::sent`] while that
///   output is performed, before another input or output. Afterwards the machine may forget the connection.
pub trait Machine {
    /// Takes an input.
    fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input<'_>);
    /// The next thing to do, in order.
    #[must_use]
    fn poll_output(&mut self) -> Option<Output>;
    /// When [`Input::Timeout`] is wanted next.
    #[must_use]
    fn poll_timeout(&self) -> Option<Instant>;
    /// Bytes that wait to be written to a connection; empty when none do, or when it is unknown.
    #[must_use]
    fn to_send(&self, conn: ConnId) -> &[u8];
    /// The socket took this many of [`Machine::to_send`].
    fn sent(&mut self, now: Instant, conn: ConnId, bytes: usize);
}

impl Machine for Server {
    fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input<'_>) {
        Server::handle_input(self, now, wall, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        Server::poll_output(self)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Server::poll_timeout(self)
    }

    fn to_send(&self, conn: ConnId) -> &[u8] {
        Server::to_send(self, conn)
    }

    fn sent(&mut self, now: Instant, conn: ConnId, bytes: usize) {
        Server::sent(self, now, conn, bytes);
    }
}
