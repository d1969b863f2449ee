//! Calls of ours on a session: on a stream that is idle, on a fresh one, or in line for one.
//!
//! Source: transport notes, sections 3.3 and 7: at most 256 streams may wait to be taken up, so that a burst of more
//! calls has to wait; the stream used last is used next.

use crate::base::id::StreamId;
use crate::conn::CannotOpen;
use crate::conn::liveness::Meant;
use crate::conn::rpc_client::Request;
use crate::conn::rpc_client::RpcClient;
use crate::conn::stream::Context;
use crate::conn::stream::Fate;
use crate::conn::stream::Stream;
use crate::conn::stream::World;
use crate::mux::event::OpenError;

use super::Streams;

/// Calls of a session that wait for a stream; one more is refused.
const MAX_WAITING_CALLS: usize = 4096;

impl Streams {
    pub(in crate::conn) fn call(
        &mut self,
        world: &mut World<'_>,
        method: &str,
        body: &[u8],
    ) -> Result<StreamId, CannotOpen> {
        let full = world.waiting_bytes.saturating_add(self.tally.unsent_bytes) > world.limits.max_unsent_bytes;
        if !self.can_open() || (self.dialled && full) {
            return Err(CannotOpen);
        }
        let request = Request { seq: self.next_seq, method, body };
        let stream = match self.idle.pop() {
            Some(stream) => {
                self.act(world, stream, |stream, cx| match stream {
                    Stream::Client(client) => client.next(cx, &request),
                    _ => Fate::Open,
                });
                stream
            }
            None => self.call_on_fresh(world, &request)?,
        };
        self.next_seq += 1;
        Ok(stream)
    }

    fn call_on_fresh(&mut self, world: &mut World<'_>, request: &Request<'_>) -> Result<StreamId, CannotOpen> {
        let keeps = self.dialled;
        match self.mux.may_open() {
            Ok(()) if self.waiting.is_empty() => {
                self.open(world, |cx| Some(Stream::Client(Box::new(RpcClient::start(cx, request, keeps)))))
            }
            Ok(()) | Err(OpenError::TooMany) if self.dialled && self.waiting.len() < MAX_WAITING_CALLS => {
                let stream = self.mux.reserve().map_err(|_| CannotOpen)?;
                self.waiting.push_back(stream);
                self.streams.insert(stream, Stream::Spent);
                self.act(world, stream, |stream, cx| {
                    *stream = Stream::Client(Box::new(RpcClient::wait(cx, request)));
                    Fate::Open
                });
                Ok(stream)
            }
            _ => Err(CannotOpen),
        }
    }

    /// Opens streams for calls that wait, as many as can be; false when there are none.
    pub(super) fn open_waiting(&mut self, world: &mut World<'_>) -> bool {
        let mut opened = false;
        while self.mux.may_open().is_ok()
            && let Some(stream) = self.waiting.pop_front()
        {
            if self.is_waiting(stream) && self.mux.open_reserved(world.now, stream).is_ok() {
                self.act(world, stream, |stream, cx| with_client(stream, cx, RpcClient::opened));
                opened = true;
            }
        }
        opened
    }

    /// No stream will be opened any more: calls that wait for one have not happened.
    pub(super) fn give_up_waiting(&mut self, world: &mut World<'_>) {
        for stream in std::mem::take(&mut self.waiting) {
            if self.is_waiting(stream) {
                self.act(world, stream, Stream::refused);
                self.forget(stream);
            }
        }
    }

    fn is_waiting(&self, stream: StreamId) -> bool {
        matches!(self.streams.get(stream), Some(Stream::Client(client)) if client.is_waiting())
    }

    /// The owner has taken the answer of a stream's call: another call may use it.
    pub(in crate::conn) fn answer_taken(&mut self, stream: StreamId) {
        if matches!(self.streams.get(stream), Some(Stream::Client(client)) if client.is_kept()) {
            self.idle.push(stream);
        }
    }

    /// What the bytes so far mean for whoever wants to use the session.
    pub(in crate::conn) fn meant(&self) -> Meant {
        let gone_away = self.peer_gone || self.draining;
        Meant::Session { over: self.over, gone_away, data: self.tally.stray }
    }

    /// Whether streams can be opened for ever, as far as ids go.
    pub(in crate::conn) fn has_ids(&self) -> bool {
        self.mux.has_ids()
    }

    /// What waits for the socket must not go out any more.
    pub(in crate::conn) fn drops_unsent(&self) -> bool {
        self.drops_unsent
    }

    /// Goes on with ids from here.
    #[cfg(test)]
    pub(in crate::conn) fn skip_ids(&mut self, next: u32) {
        self.mux.skip_ids(next);
    }
}

fn with_client(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    act: impl FnOnce(&mut RpcClient, &mut Context<'_>) -> Fate,
) -> Fate {
    match stream {
        Stream::Client(client) => act(client, cx),
        _ => Fate::Open,
    }
}
