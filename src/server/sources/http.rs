//! Streaming calls that end in an HTTP reply: begun by a request, fed by an upload, sent as the client reads.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::StreamingMethod;
use crate::base::id::{ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::wire::http::HttpReply;

use super::super::Server;
use super::super::http_stream::{Act, BLOCKED_MAX, Form, HttpStream};
use super::super::links::Busy;
use super::{Kind, Source};

/// The stream of an HTTP connection.
const STREAM: StreamId = StreamId(0);

/// How a server that ends answers who waited for a stream to begin.
const STOPPING: &str = "server is shutting down";

/// A request that is a streaming call.
pub(in crate::server) struct HttpCall {
    pub(in crate::server) method: &'static StreamingMethod,
    pub(in crate::server) argument: Vec<u8>,
    pub(in crate::server) form: Form,
    /// What is there of an upload, and whether that is all.
    pub(in crate::server) upload: (Vec<u8>, bool),
}

impl Server {
    /// Begins a streaming call whose messages are the reply to a request.
    pub(in crate::server) fn begin_http_stream(&mut self, now: Instant, conn: ConnId, call: HttpCall) {
        let stream = HttpStream::new(call.form, self.settings.conn.max_message_bytes);
        // Whoever closed has gone, as far as can be told (R1.97).
        if stream.is_endless() && self.has_peer_finished(conn) {
            self.with_conn(now, conn, |now, c| c.close(now));
            return;
        }
        self.metrics.count(Id::StreamingRequest);
        let (early, finished) = call.upload;
        let kind = Kind::Starting { body: call.argument.into(), base: 0, early, finished };
        let key = self
            .sources
            .insert(Source { http: Some(Box::new(stream)), ..Source::new(conn, STREAM, call.method, kind) });
        self.set_busy(conn, STREAM, Some(Busy::Source(key)));
        self.route_stream(now, key);
    }

    /// The client of a connection sends no more: whether it waits for a reply that has no end.
    pub(in crate::server) fn is_endless_reply(&self, key: Key) -> bool {
        self.sources.get(key).and_then(|source| source.http.as_ref()).is_some_and(|http| http.is_endless())
    }

    /// Begins the reply before there is anything to send.
    pub(super) fn begin_reply(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let conn = source.conn;
        if let Some(act) = source.http.as_mut().and_then(|http| http.begin()) {
            self.act(now, conn, act, &mut VecDeque::new());
        }
    }

    /// Sends as much of a source's messages as its client has room for; says how many bytes of them are done with, and
    /// whether the reply is over.
    pub(super) fn send_unwrapped(
        &mut self,
        now: Instant,
        conn: ConnId,
        http: &mut HttpStream,
        messages: &mut VecDeque<(Arc<[u8]>, usize)>,
    ) -> (usize, bool) {
        let (mut used, mut sent) = (0, 0);
        loop {
            sent += self.send_queue(now, (conn, STREAM), &mut http.out);
            if !http.out.is_empty() {
                break;
            }
            let Some((message, _)) = messages.pop_front() else { break };
            used += message.len();
            for act in http.take(&message) {
                if self.act(now, conn, act, &mut http.out) {
                    return (used, true);
                }
            }
        }
        if http.out.is_empty() {
            http.blocked_until = None;
        } else if sent > 0 || http.blocked_until.is_none() {
            http.blocked_until = Some(now + BLOCKED_MAX);
        }
        (used, false)
    }

    /// Does what a message asks for; true when nothing follows.
    fn act(&mut self, now: Instant, conn: ConnId, act: Act, out: &mut VecDeque<(Arc<[u8]>, usize)>) -> bool {
        match act {
            Act::Begin(headers) => self.http_begin(now, conn, headers),
            Act::Body(bytes) => out.push_back((bytes, 0)),
            Act::Reply(reply) => {
                self.set_busy(conn, STREAM, None);
                self.http_send(now, conn, reply, false);
                return true;
            }
            Act::BreakOff => {
                self.send_queue(now, (conn, STREAM), out);
                self.with_conn(now, conn, |now, c| c.http_abort(now));
                return true;
            }
        }
        false
    }

    /// A source has ended without an answer: it gets one all the same.
    pub(super) fn answer_ended(&mut self, now: Instant, source: &Source) {
        let Some(http) = &source.http else { return };
        if http.is_answered() {
            return;
        }
        if self.draining.is_some() {
            let body = STOPPING.into();
            let headers = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
            self.http_send(now, source.conn, HttpReply { status: 503, headers, body }, false);
        } else {
            self.http_send(now, source.conn, HttpReply { status: 200, ..HttpReply::default() }, false);
        }
    }

    /// Whether a client has read nothing for so long that it is given up.
    pub(super) fn gave_up_reading(&self, now: Instant, key: Key) -> bool {
        let http = self.sources.get(key).and_then(|source| source.http.as_ref());
        http.and_then(|http| http.blocked_until).is_some_and(|until| until <= now)
    }
}
