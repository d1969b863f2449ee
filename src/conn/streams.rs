//! The streams of one yamux session (0x03 and 0x06): which codec each speaks, and their deadlines.
//!
//! Source: transport notes, sections 3.8 and 4; requirements R1.34 to R1.43. Unlike Go peers, a stream that stays
//! silent, or ends before its byte, harms no other (R1.40).

mod calling;
mod draining;

use std::collections::BTreeSet;
use std::collections::VecDeque;

use crate::base::id::StreamId;
use crate::base::sorted::SortedMap;
use crate::base::time::Instant;
use crate::base::timers::Timers;
use crate::mux::session;
use crate::mux::session::EndReason;
use crate::mux::session::MuxSession;
use crate::mux::session::Side;
use crate::wire::first_byte::FirstByte;

use super::Answer;
use super::CannotOpen;
use super::Event;
use super::outbox::OUTBOX_BYTES;
use super::report::Cause;
use super::report::Report;
use super::rpc_server::RpcServer;
use super::stream::Context;
use super::stream::Fate;
use super::stream::Pipe;
use super::stream::Stream;
use super::stream::Tally;
use super::stream::World;
use super::stream::report;
use super::streaming::Streaming;

/// A session and its streams.
pub(super) struct Streams {
    mux: MuxSession,
    /// We dialled: the peer serves, and streams are kept for further calls.
    dialled: bool,
    /// Each stream begins with a byte of its own (v2).
    first_bytes: bool,
    streams: SortedMap<StreamId, Stream>,
    /// The deadlines of streams.
    timers: Timers<StreamId>,
    tally: Tally,
    /// The sequence number of the next call that we make.
    next_seq: u64,
    draining: bool,
    /// While it drains: calls are taken until then, or until the peer has read that we go away.
    grace: Option<Instant>,
    peer_gone: bool,
    over: bool,
    blocked: bool,
    /// Calls wait on some stream until fewer replies do.
    stalled: bool,
    /// Streams whose sender waits until the outbox has room.
    starved: BTreeSet<StreamId>,
    /// Kept streams whose last answer the owner has taken.
    idle: Vec<StreamId>,
    /// Calls that wait until their streams can be opened, the first one first.
    waiting: VecDeque<StreamId>,
    /// Calls were given up of which nothing had left: what waits for the socket must not go out.
    drops_unsent: bool,
}

impl Streams {
    /// A session that the peer dialled.
    pub(super) fn new(now: Instant, limits: &session::Limits, first_bytes: bool) -> Streams {
        Streams::of(MuxSession::new(Side::Server, limits.clone(), now), false, first_bytes)
    }

    /// A session that we dialled.
    pub(super) fn dialled(now: Instant, limits: &session::Limits) -> Streams {
        Streams::of(MuxSession::new(Side::Client, limits.clone(), now), true, true)
    }

    fn of(mux: MuxSession, dialled: bool, first_bytes: bool) -> Streams {
        Streams {
            mux,
            dialled,
            first_bytes,
            streams: SortedMap::default(),
            timers: Timers::default(),
            tally: Tally::default(),
            next_seq: 1,
            draining: false,
            grace: None,
            peer_gone: false,
            over: false,
            blocked: false,
            stalled: false,
            starved: BTreeSet::new(),
            idle: Vec::new(),
            waiting: VecDeque::new(),
            drops_unsent: false,
        }
    }

    pub(super) fn bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) {
        let blocked = world.waiting_bytes > 0;
        if blocked != self.blocked {
            self.blocked = blocked;
            self.mux.set_blocked(blocked);
        }
        self.mux.handle_bytes(world.now, bytes);
        self.settle(world, bytes);
    }

    /// The session is over without a word, unless it was cut within a frame (R1.36).
    pub(super) fn eof(&mut self, world: &mut World<'_>) {
        let cut = self.mux.is_within_frame().then_some("unexpected EOF");
        self.end(world, cut);
    }

    pub(super) fn failure(&mut self, world: &mut World<'_>, error: &str) {
        self.end(world, Some(error));
    }

    pub(super) fn timeout(&mut self, world: &mut World<'_>) {
        self.grace = self.grace.filter(|grace| *grace > world.now);
        self.mux.handle_timeout(world.now);
        self.settle(world, &[]);
        while let Some((_, stream)) = self.timers.pop_due(world.now) {
            self.act(world, stream, Stream::timeout);
        }
        self.settle(world, &[]);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.mux.poll_timeout().into_iter().chain(self.timers.next()).chain(self.grace).min()
    }

    /// The socket took bytes.
    pub(super) fn sent(&mut self, world: &mut World<'_>) {
        if world.waiting_bytes <= OUTBOX_BYTES / 2 {
            for stream in std::mem::take(&mut self.starved) {
                if self.can_send(stream) {
                    world.events.push_back(Event::Writable(stream));
                }
            }
        }
        self.settle(world, &[]);
    }

    pub(super) fn reply(
        &mut self,
        world: &mut World<'_>,
        stream: StreamId,
        seq: u64,
        method: &str,
        answer: Answer<'_>,
    ) {
        self.act(world, stream, |stream, cx| match stream {
            Stream::Rpc(rpc) => rpc.reply(cx, seq, method, answer),
            _ => Fate::Open,
        });
        self.settle(world, &[]);
    }

    pub(super) fn ack(&mut self, world: &mut World<'_>, stream: StreamId, error: &str) {
        self.act(world, stream, |stream, cx| match stream {
            Stream::Streaming(streaming) => streaming.ack(cx, error),
            _ => Fate::Open,
        });
        self.settle(world, &[]);
    }

    pub(super) fn credit(&self, stream: StreamId) -> usize {
        if self.can_send(stream) { self.mux.credit(stream) } else { 0 }
    }

    pub(super) fn send_bytes(&mut self, world: &World<'_>, stream: StreamId, bytes: &[u8]) -> usize {
        if !self.can_send(stream) {
            return 0;
        }
        let (now, later) = bytes.split_at(bytes.len().min(world.room()));
        let sent = self.mux.send(stream, now).unwrap_or(0);
        // What the window does not permit, the session tells of itself.
        if sent == now.len() && !later.is_empty() {
            self.starved.insert(stream);
        }
        sent
    }

    pub(super) fn consumed(&mut self, world: &mut World<'_>, stream: StreamId, count: usize) {
        self.act(world, stream, |stream, cx| {
            if let Stream::Streaming(streaming) = stream {
                streaming.consumed(cx, count);
            }
            Fate::Open
        });
    }

    /// We send no more on a streaming stream.
    pub(super) fn finish(&mut self, world: &mut World<'_>, stream: StreamId) {
        let Some(Stream::Streaming(streaming)) = self.streams.get_mut(stream) else { return };
        if streaming.finish() {
            self.mux.finish(world.now, stream);
            self.settle(world, &[]);
        }
    }

    pub(super) fn reset(&mut self, world: &mut World<'_>, stream: StreamId) {
        self.mux.reset(stream);
        self.forget(stream);
        self.settle(world, &[]);
    }

    pub(super) fn open_streaming(&mut self, world: &mut World<'_>, method: &str) -> Result<StreamId, CannotOpen> {
        self.open(world, |cx| Streaming::start(cx, method).map(|streaming| Stream::Streaming(Box::new(streaming))))
    }

    pub(super) fn can_open(&self) -> bool {
        !self.draining && !self.peer_gone && !self.over && !self.tally.stray && self.mux.has_ids()
    }

    pub(super) fn streams(&self) -> usize {
        self.mux.streams()
    }

    /// Bytes of unfinished requests; the tally is what the streams hold.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let held: usize = self.streams.values().map(|stream| stream.held().0).sum();
        assert_eq!(held, self.tally.partial_bytes);
        assert_eq!(self.streams.values().map(|stream| stream.held().1).sum::<usize>(), self.tally.unsent_bytes);
        held
    }

    /// Frames to be sent.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        if self.mux.has_output() {
            self.mux.take_output(out);
        }
    }

    fn can_send(&self, stream: StreamId) -> bool {
        matches!(self.streams.get(stream), Some(Stream::Streaming(streaming)) if streaming.can_send())
    }

    fn takes_calls(&self, world: &World<'_>) -> bool {
        (!self.draining || self.grace.is_some()) && world.takes_calls(self.tally.unsent_bytes)
    }

    fn open(
        &mut self,
        world: &mut World<'_>,
        start: impl FnOnce(&mut Context<'_>) -> Option<Stream>,
    ) -> Result<StreamId, CannotOpen> {
        if !self.can_open() {
            return Err(CannotOpen);
        }
        let stream = self.mux.open(world.now).map_err(|_| CannotOpen)?;
        let mut cx = Context {
            now: world.now,
            stream,
            limits: world.limits,
            takes_calls: false,
            reply_room: 0,
            tally: &mut self.tally,
            queued: world.queued(),
            events: world.events,
            pipe: Pipe::Mux(&mut self.mux),
        };
        let Some(started) = start(&mut cx) else {
            self.mux.reset(stream);
            return Err(CannotOpen);
        };
        self.streams.insert(stream, started);
        Ok(stream)
    }

    /// Serves all that the session has to tell, until there is nothing more.
    fn settle(&mut self, world: &mut World<'_>, bytes: &[u8]) {
        while !self.over {
            let Some(event) = self.mux.poll_event() else {
                if !self.resume(world) && !self.open_waiting(world) {
                    break;
                }
                continue;
            };
            self.serve(world, event, bytes);
        }
        // After all that came with the sign.
        if self.mux.is_probe_answered() {
            self.grace = None;
        }
    }

    /// Takes calls that had to wait; false when there are none.
    fn resume(&mut self, world: &mut World<'_>) -> bool {
        if !self.stalled || !self.takes_calls(world) {
            return false;
        }
        self.stalled = false;
        let stalled = self.streams.iter().filter(|(_, stream)| is_stalled(stream)).map(|(stream, _)| stream);
        for stream in stalled.collect::<Vec<_>>() {
            self.act(world, stream, Stream::writable);
        }
        true
    }

    fn serve(&mut self, world: &mut World<'_>, event: session::Event, bytes: &[u8]) {
        match event {
            // Nothing is served to a server that we dialled.
            session::Event::Opened(stream) if self.dialled => self.mux.reset(stream),
            session::Event::Opened(stream) => self.opened(world, stream),
            session::Event::Data(stream, range) => {
                let data = bytes.get(range).unwrap_or_default();
                if matches!(self.streams.get(stream), Some(Stream::Fresh(_))) {
                    self.first_data(world, stream, data);
                } else {
                    self.act(world, stream, |stream, cx| stream.data(cx, data));
                }
            }
            session::Event::Finished(stream) => {
                self.mux.accept(stream);
                self.act(world, stream, Stream::finished);
            }
            session::Event::Reset(stream) => {
                self.act(world, stream, |stream, cx| {
                    stream.lost(cx, Some("connection reset"));
                    Fate::Open
                });
                self.forget(stream);
            }
            session::Event::Refused(stream) => {
                self.act(world, stream, Stream::refused);
                self.forget(stream);
            }
            session::Event::Closed(stream) => self.forget(stream),
            session::Event::Writable(stream) => self.act(world, stream, Stream::writable),
            session::Event::GoAway => {
                self.peer_gone = true;
                self.give_up_waiting(world);
            }
            session::Event::Ended(reason) => self.end(world, Some(text(&reason))),
        }
    }

    /// It stays in the backlog until something comes on it.
    fn opened(&mut self, world: &World<'_>, stream: StreamId) {
        let limited = self.first_bytes && !world.limits.handshake_timeout.is_zero();
        let deadline = limited.then(|| world.now + world.limits.handshake_timeout);
        if let Some(at) = deadline {
            self.timers.set(at, stream);
        }
        self.streams.insert(stream, Stream::Fresh(deadline));
    }

    fn first_data(&mut self, world: &mut World<'_>, stream: StreamId, bytes: &[u8]) {
        let Some((&byte, rest)) = bytes.split_first() else { return };
        self.mux.accept(stream);
        if !self.first_bytes {
            self.act(world, stream, |stream, cx| {
                *stream = Stream::Rpc(RpcServer::default());
                stream.data(cx, bytes)
            });
            return;
        }
        let speaks = FirstByte::from_byte(byte);
        if !matches!(speaks, Some(FirstByte::Rpc | FirstByte::Streaming)) {
            let fields = format!("byte={byte:#04x}");
            world.events.push_back(Event::Report(Report { cause: Cause::V2UnknownByte, fields }));
            self.end(world, None);
            return;
        }
        self.mux.consume(stream, 1);
        self.act(world, stream, |stream, cx| {
            *stream = match speaks {
                Some(FirstByte::Streaming) => Stream::Streaming(Box::new(Streaming::accept(cx))),
                _ => Stream::Rpc(RpcServer::default()),
            };
            stream.data(cx, rest)
        });
    }

    /// Lets a stream's codec act, then does what it decided.
    fn act(&mut self, world: &mut World<'_>, id: StreamId, act: impl FnOnce(&mut Stream, &mut Context<'_>) -> Fate) {
        let takes_calls = self.takes_calls(world);
        let reply_room = world.reply_room(self.tally.unsent_bytes);
        let Some(stream) = self.streams.get_mut(id) else { return };
        let takes_calls = takes_calls || (self.draining && draining::is_partial(stream));
        let before = stream.deadline();
        let mut cx = Context {
            now: world.now,
            stream: id,
            limits: world.limits,
            takes_calls,
            reply_room,
            tally: &mut self.tally,
            queued: world.queued(),
            events: world.events,
            pipe: Pipe::Mux(&mut self.mux),
        };
        let fate = act(stream, &mut cx);
        self.stalled |= is_stalled(stream);
        if fate == Fate::Finish {
            stream.release(&mut self.tally);
            self.idle.retain(|idle| *idle != id);
        }
        let after = stream.deadline();
        if before != after {
            before.map(|at| self.timers.cancel(at, id));
            after.into_iter().for_each(|at| self.timers.set(at, id));
        }
        match fate {
            Fate::Open => {}
            Fate::Finish => self.mux.finish(world.now, id),
            Fate::Reset => {
                self.mux.reset(id);
                self.forget(id);
            }
        }
    }

    fn forget(&mut self, id: StreamId) {
        self.starved.remove(&id);
        self.idle.retain(|idle| *idle != id);
        let Some(mut stream) = self.streams.remove(id) else { return };
        if let Some(at) = stream.deadline() {
            self.timers.cancel(at, id);
        }
        stream.release(&mut self.tally);
    }

    /// Ends the session and all on it; `error` is why, if that is worth a word.
    fn end(&mut self, world: &mut World<'_>, error: Option<&str>) {
        if let Some(error) = error {
            let cause = match (self.dialled, self.first_bytes) {
                (true, _) => Cause::Dialled,
                (false, true) => Cause::MultiplexV2Accept,
                (false, false) => Cause::MultiplexAccept,
            };
            world.events.push_back(report(cause, error));
        }
        let (sent, dialled) = (world.sent_bytes, self.dialled);
        self.drops_unsent |= dialled && self.streams.values().any(Stream::is_busy);
        let streams = self.streams.keys().collect::<Vec<_>>();
        for stream in streams {
            self.act(world, stream, |stream, cx| {
                match stream {
                    Stream::Client(client) if dialled => client.cut(cx, sent),
                    _ => stream.lost(cx, None),
                }
                Fate::Open
            });
        }
        self.streams.clear();
        self.timers.clear();
        self.starved.clear();
        self.idle.clear();
        self.waiting.clear();
        self.tally = Tally::default();
        self.over = true;
    }
}

fn is_stalled(stream: &Stream) -> bool {
    matches!(stream, Stream::Rpc(rpc) if rpc.is_stalled())
}

/// The texts are those of Go's library where it has one.
fn text(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Violation(what) => what,
        EndReason::PeerError(1) => "yamux protocol error",
        EndReason::PeerError(2) => "remote yamux internal error",
        EndReason::PeerError(_) => "unexpected go away received",
        EndReason::KeepaliveTimeout => "keepalive timeout",
        EndReason::OpenTimeout => "stream open timeout",
    }
}
