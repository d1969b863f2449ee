//! A connection that is one stream: plain calls (0x01) or one streaming call (0x05), without yamux.

use crate::base::id::StreamId;
use crate::base::time::Instant;

use super::Answer;
use super::Event;
use super::outbox::OUTBOX_BYTES;
use super::rpc_server::RpcServer;
use super::stream::Context;
use super::stream::Fate;
use super::stream::Pipe;
use super::stream::Stream;
use super::stream::Tally;
use super::stream::World;
use super::streaming::Streaming;

/// The stream's name in events.
pub(super) const STREAM: StreamId = StreamId(0);

/// The only stream of a connection.
#[derive(Debug)]
pub(super) struct Single {
    stream: Stream,
    tally: Tally,
    draining: bool,
    over: bool,
    /// A sender waits until the outbox has room.
    starved: bool,
}

impl Single {
    pub(super) fn rpc() -> Single {
        Single::new(Stream::Rpc(RpcServer::default()))
    }

    pub(super) fn streaming(world: &mut World<'_>) -> Single {
        let mut single = Single::new(Stream::Spent);
        single.act(world, |stream, cx| {
            *stream = Stream::Streaming(Box::new(Streaming::accept(cx)));
            Fate::Open
        });
        single
    }

    fn new(stream: Stream) -> Single {
        Single { stream, tally: Tally::default(), draining: false, over: false, starved: false }
    }

    pub(super) fn bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) {
        self.act(world, |stream, cx| stream.data(cx, bytes));
    }

    pub(super) fn eof(&mut self, world: &mut World<'_>) {
        self.act(world, Stream::finished);
    }

    pub(super) fn failure(&mut self, world: &mut World<'_>, error: &str) {
        self.act(world, |stream, cx| {
            stream.lost(cx, Some(error));
            Fate::Reset
        });
    }

    pub(super) fn timeout(&mut self, world: &mut World<'_>) {
        if self.stream.deadline().is_some_and(|deadline| deadline <= world.now) {
            self.act(world, Stream::timeout);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stream.deadline()
    }

    /// The socket took bytes.
    pub(super) fn sent(&mut self, world: &mut World<'_>) {
        if self.starved && world.waiting_bytes <= OUTBOX_BYTES / 2 {
            self.starved = false;
            world.events.push_back(Event::Writable(STREAM));
        }
        if matches!(&self.stream, Stream::Rpc(rpc) if rpc.is_stalled()) {
            self.act(world, Stream::writable);
        }
    }

    pub(super) fn reply(&mut self, world: &mut World<'_>, seq: u64, method: &str, answer: Answer<'_>) {
        self.act(world, |stream, cx| match stream {
            Stream::Rpc(rpc) => rpc.reply(cx, seq, method, answer),
            _ => Fate::Open,
        });
    }

    pub(super) fn ack(&mut self, world: &mut World<'_>, error: &str) {
        self.act(world, |stream, cx| match stream {
            Stream::Streaming(streaming) => streaming.ack(cx, error),
            _ => Fate::Open,
        });
    }

    pub(super) fn can_send(&self) -> bool {
        !self.over && matches!(&self.stream, Stream::Streaming(streaming) if streaming.can_send())
    }

    pub(super) fn send_bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) -> usize {
        if !self.can_send() {
            return 0;
        }
        let (now, later) = bytes.split_at(bytes.len().min(world.room()));
        self.starved |= !later.is_empty();
        world.out.extend_from_slice(now);
        now.len()
    }

    pub(super) fn consumed(&mut self, world: &mut World<'_>, count: usize) {
        self.act(world, |stream, cx| {
            if let Stream::Streaming(streaming) = stream {
                streaming.consumed(cx, count);
            }
            Fate::Open
        });
    }

    /// We send no more; a connection that is one call ends with it.
    pub(super) fn finish(&mut self) {
        self.over |= matches!(self.stream, Stream::Streaming(_));
    }

    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over || (self.draining && !self.stream.is_busy())
    }

    /// Bytes that came and wait to be used.
    pub(super) fn held_bytes(&self) -> usize {
        match &self.stream {
            Stream::Rpc(rpc) => rpc.held().0,
            Stream::Streaming(streaming) => streaming.held() + streaming.unused_bytes,
            _ => 0,
        }
    }

    /// Whether what comes is needed at once, because nothing is in hand.
    pub(super) fn is_reading(&self) -> bool {
        match &self.stream {
            Stream::Rpc(rpc) => !rpc.is_busy() && !rpc.is_stalled(),
            Stream::Streaming(streaming) => streaming.is_reading(),
            _ => false,
        }
    }

    fn act(&mut self, world: &mut World<'_>, act: impl FnOnce(&mut Stream, &mut Context<'_>) -> Fate) {
        if self.over {
            return;
        }
        let mut cx = Context {
            now: world.now,
            stream: STREAM,
            limits: world.limits,
            takes_calls: !self.draining && world.takes_calls(0),
            reply_room: world.reply_room(0),
            tally: &mut self.tally,
            events: world.events,
            queued: world.sent_bytes.saturating_add(world.waiting_bytes as u64),
            pipe: Pipe::Outbox(world.out),
        };
        if act(&mut self.stream, &mut cx) != Fate::Open {
            self.stream.release(&mut self.tally);
            self.over = true;
        }
    }
}
