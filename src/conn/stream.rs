//! One stream of calls, whatever carries it: a yamux stream, or a whole connection. Holds what they share; the
//! codecs are in [`super::rpc_server`], [`super::rpc_client`] and [`super::streaming`].

use std::collections::VecDeque;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session::MuxSession;

use super::Event;
use super::Limits;
use super::outbox::OUTBOX_BYTES;
use super::report::Cause;
use super::report::Report;
use super::rpc_client::RpcClient;
use super::rpc_server::RpcServer;
use super::streaming::Streaming;

/// What a deadline that passed is called, as Go peers do.
pub(super) const TIMEOUT: &str = "i/o timeout";

/// What becomes of a stream after it was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Open,
    /// We send no more on it, and what still comes is dropped.
    Finish,
    /// It ends at once.
    Reset,
}

/// Bytes held for all streams of a connection together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) partial_bytes: usize,
    pub(super) unsent_bytes: usize,
    /// Streams of ours that are kept for further calls.
    pub(super) kept: usize,
    /// Bytes came that nobody asked for.
    pub(super) stray: bool,
}

/// What carries a stream.
pub(super) enum Pipe<'a> {
    /// Nothing but the connection itself: it has no window, all is taken.
    Outbox(&'a mut Vec<u8>),
    /// A yamux session.
    Mux(&'a mut MuxSession),
}

/// What a codec works with.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) stream: StreamId,
    pub(super) limits: &'a Limits,
    /// False while calls are not taken: too many answers wait, or the connection drains.
    pub(super) takes_calls: bool,
    /// Bytes of replies that may still wait for the peer; a larger reply is refused.
    pub(super) reply_room: usize,
    pub(super) tally: &'a mut Tally,
    pub(super) events: &'a mut VecDeque<Event>,
    pub(super) pipe: Pipe<'a>,
    /// Bytes of the connection that were queued for the socket so far.
    pub(super) queued: u64,
}

impl Context<'_> {
    /// Where in all that goes to the socket the next byte will be, or before it: within TLS it is later.
    pub(super) fn position(&self) -> u64 {
        let waiting = match &self.pipe {
            Pipe::Outbox(out) => out.len(),
            Pipe::Mux(mux) => mux.output_bytes(),
        };
        self.queued.saturating_add(waiting as u64)
    }

    /// Sends what the peer's window permits and says how much that was. On a stream that is gone all is taken and
    /// dropped: its end comes as an event of its own.
    pub(super) fn send(&mut self, bytes: &[u8]) -> usize {
        match &mut self.pipe {
            Pipe::Outbox(out) => {
                out.extend_from_slice(bytes);
                bytes.len()
            }
            Pipe::Mux(mux) => mux.send(self.stream, bytes).unwrap_or(bytes.len()),
        }
    }

    /// Grants the peer as many bytes more.
    pub(super) fn consume(&mut self, count: usize) {
        if let (Pipe::Mux(mux), 1..) = (&mut self.pipe, count) {
            mux.consume(self.stream, count);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn report(&mut self, cause: Cause, error: &str) {
        self.events.push_back(report(cause, error));
    }
}

/// What a layer works with.
pub(super) struct World<'a> {
    pub(super) now: Instant,
    pub(super) limits: &'a Limits,
    pub(super) events: &'a mut VecDeque<Event>,
    /// Where the layer's bytes go.
    pub(super) out: &'a mut Vec<u8>,
    /// Bytes that the socket has not taken.
    pub(super) waiting_bytes: usize,
    /// Bytes that it has taken since the connection began.
    pub(super) sent_bytes: u64,
}

impl World<'_> {
    /// Bytes that were queued for the socket since the connection began.
    pub(super) fn queued(&self) -> u64 {
        self.sent_bytes.saturating_add(self.waiting_bytes as u64)
    }

    /// Bytes that streaming calls may send now.
    pub(super) fn room(&self) -> usize {
        OUTBOX_BYTES.saturating_sub(self.waiting_bytes)
    }

    /// Bytes that replies may add to `unsent_bytes` of others. Calls that were taken together may all have large
    /// replies, and so may parked queries: these can be no more than the peer lets pass, or two large messages over
    /// the bound at which no more calls are taken.
    pub(super) fn reply_room(&self, unsent_bytes: usize) -> usize {
        let most = self.limits.max_unsent_bytes.saturating_add(self.limits.max_message_bytes.saturating_mul(2));
        most.saturating_sub(self.waiting_bytes.saturating_add(unsent_bytes))
    }

    /// Whether so little waits, `unsent_bytes` of replies among it, that calls may be taken.
    pub(super) fn takes_calls(&self, unsent_bytes: usize) -> bool {
        self.waiting_bytes.saturating_add(unsent_bytes) <= self.limits.max_unsent_bytes
    }
}

/// A report with an error.
pub(super) fn report(cause: Cause, error: &str) -> Event {
    Event::Report(Report { cause, fields: format!("error={error:?}") })
}

/// A stream and its codec.
#[derive(Debug)]
pub(super) enum Stream {
    /// Nothing came on it so far. It has until then for its first byte, if that is limited.
    Fresh(Option<Instant>),
    /// Calls of the peer.
    Rpc(RpcServer),
    /// A streaming call, of either side.
    Streaming(Box<Streaming>),
    /// A call that we made.
    Client(Box<RpcClient>),
    /// We have finished it. What comes is neither read nor granted.
    Spent,
}

impl Stream {
    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Fate {
        match self {
            Stream::Rpc(rpc) => rpc.data(cx, bytes),
            Stream::Streaming(streaming) => streaming.data(cx, bytes),
            Stream::Client(client) => client.data(cx, bytes),
            Stream::Fresh(_) | Stream::Spent => Fate::Open,
        }
    }

    /// The peer sends no more.
    pub(super) fn finished(&mut self, cx: &mut Context<'_>) -> Fate {
        match self {
            Stream::Fresh(_) => Fate::Finish,
            Stream::Rpc(rpc) => rpc.finished(cx),
            Stream::Streaming(streaming) => streaming.finished(cx),
            Stream::Client(client) => client.finished(cx),
            Stream::Spent => Fate::Open,
        }
    }

    /// The peer granted more.
    pub(super) fn writable(&mut self, cx: &mut Context<'_>) -> Fate {
        match self {
            Stream::Rpc(rpc) => rpc.writable(cx),
            Stream::Streaming(_) => {
                cx.event(Event::Writable(cx.stream));
                Fate::Open
            }
            Stream::Client(client) => client.writable(cx),
            Stream::Fresh(_) | Stream::Spent => Fate::Open,
        }
    }

    /// The stream is lost. `error` is the peer's doing; `None` when the whole connection ends, which is told once
    /// and elsewhere.
    pub(super) fn lost(&mut self, cx: &mut Context<'_>, error: Option<&str>) {
        match self {
            Stream::Rpc(rpc) => rpc.lost(cx, error),
            Stream::Streaming(streaming) => streaming.lost(cx, error),
            Stream::Client(client) => client.lost(cx),
            Stream::Fresh(_) | Stream::Spent => {}
        }
    }

    /// The peer did not take a stream of ours up.
    pub(super) fn refused(&mut self, cx: &mut Context<'_>) -> Fate {
        match self {
            Stream::Client(client) => client.refused(cx),
            _ => {
                self.lost(cx, None);
                Fate::Open
            }
        }
    }

    /// When [`Stream::timeout`] is wanted.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Stream::Fresh(deadline) => *deadline,
            Stream::Streaming(streaming) => streaming.deadline,
            _ => None,
        }
    }

    /// The deadline is due.
    pub(super) fn timeout(&mut self, cx: &mut Context<'_>) -> Fate {
        if let Stream::Streaming(streaming) = self {
            streaming.failed(cx, TIMEOUT);
        }
        Fate::Reset
    }

    /// Whether something is in hand that a draining connection waits for.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Stream::Rpc(rpc) => rpc.is_busy(),
            Stream::Streaming(streaming) => streaming.is_busy(),
            Stream::Client(client) => client.is_busy(),
            Stream::Fresh(_) | Stream::Spent => false,
        }
    }

    /// Bytes held of what comes, and of what goes out.
    pub(super) fn held(&self) -> (usize, usize) {
        match self {
            Stream::Rpc(rpc) => rpc.held(),
            Stream::Streaming(streaming) => (streaming.held(), 0),
            Stream::Client(client) => client.held(),
            Stream::Fresh(_) | Stream::Spent => (0, 0),
        }
    }

    /// Gives back what the stream held; it is spent from now on.
    pub(super) fn release(&mut self, tally: &mut Tally) {
        let (partial, unsent) = self.held();
        tally.partial_bytes = tally.partial_bytes.saturating_sub(partial);
        tally.unsent_bytes = tally.unsent_bytes.saturating_sub(unsent);
        if matches!(self, Stream::Client(client) if client.is_kept()) {
            tally.kept = tally.kept.saturating_sub(1);
        }
        *self = Stream::Spent;
    }
}
