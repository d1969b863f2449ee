//! Replies: whole, or in pieces as they come. Never decides when a request is answered.
//!
//! A reply in pieces is chunked (RFC 9112 section 7.1), or for HTTP/1.0 ends with the connection (section 6.3).

use crate::conn::Event;
use crate::conn::report::Cause;
use crate::conn::report::Report;
use crate::conn::single::STREAM;
use crate::conn::stream::World;
use crate::wire::http;
use crate::wire::http::HttpReply;

use super::Http;
use super::Stage;
use super::after;

/// How the end of a reply in pieces is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a last chunk.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

impl Http {
    /// A whole reply.
    pub(in crate::conn) fn reply(&mut self, world: &mut World<'_>, reply: &HttpReply) {
        if !self.is_with_owner() || self.answering.is_some() {
            return;
        }
        self.keeps_alive &= !self.draining && !matches!(self.stage, Stage::Upload(_));
        forget_upload(world);
        self.write(world, reply, self.keeps_alive);
        self.answered(world);
    }

    /// Begins a reply in pieces. What is left of an upload is dropped as it comes.
    pub(in crate::conn) fn begin_reply(&mut self, world: &mut World<'_>, status: u16, headers: &[(&str, String)]) {
        if !self.is_with_owner() || self.answering.is_some() {
            return;
        }
        forget_upload(world);
        let framing = if self.minor_version > 0 { Framing::Chunked } else { Framing::UntilClose };
        self.keeps_alive &= !self.draining && framing == Framing::Chunked;
        if matches!(self.stage, Stage::Upload(_)) {
            self.keeps_alive = false;
            self.deaf = true;
            self.stage = Stage::InHand;
            self.deadline = None;
            self.input = Vec::new();
        }
        self.answering = Some(framing);
        let headers = headers.iter().map(|(name, value)| (*name, value.as_str()));
        let chunked = (framing == Framing::Chunked).then_some(("Transfer-Encoding", "chunked"));
        let close = (!self.keeps_alive).then_some(("Connection", "close"));
        let added = [Some(("Vary", "Accept-Encoding")), chunked, close];
        http::encode_reply_head(world.out, status, headers.chain(added.into_iter().flatten()));
    }

    /// A reply in pieces has begun and not ended.
    pub(in crate::conn) fn can_send(&self) -> bool {
        self.answering.is_some()
    }

    /// A piece of the reply, as much as the outbox has room for; says how much that was.
    pub(in crate::conn) fn send_bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) -> usize {
        let Some(framing) = self.answering else { return 0 };
        if self.is_head {
            return bytes.len();
        }
        let (now, later) = bytes.split_at(bytes.len().min(world.room()));
        self.starved |= !later.is_empty();
        match framing {
            Framing::Chunked => http::encode_chunk(world.out, now),
            Framing::UntilClose => world.out.extend_from_slice(now),
        }
        now.len()
    }

    /// The reply in pieces is not whole, and that is all there will be of it.
    pub(in crate::conn) fn abort_reply(&mut self) {
        if self.answering.is_some() {
            self.over();
        }
    }

    /// The reply in pieces is whole.
    pub(in crate::conn) fn end_reply(&mut self, world: &mut World<'_>) {
        let Some(framing) = self.answering.take() else { return };
        if framing == Framing::Chunked && !self.is_head {
            world.out.extend_from_slice(http::LAST_CHUNK);
        }
        self.answered(world);
    }

    /// Tells a client that waits for it to send its upload.
    pub(in crate::conn) fn go_on(&mut self, world: &mut World<'_>) {
        if std::mem::take(&mut self.expects_continue) && matches!(self.stage, Stage::Upload(_)) {
            http::encode_reply_head(world.out, 100, []);
        }
    }

    /// Refuses what came, and all that follows it.
    pub(super) fn refuse(&mut self, world: &mut World<'_>, status: u16, text: &str) {
        if matches!(self.stage, Stage::Upload(_)) {
            world.events.push_back(Event::Gone(STREAM));
        }
        let fields = format!("status={status} error={text:?}");
        world.events.push_back(Event::Report(Report { cause: Cause::Http, fields }));
        let content_type = ("Content-Type", "text/plain; charset=utf-8".to_owned());
        self.write(world, &HttpReply { status, headers: vec![content_type], body: text.into() }, false);
        self.over();
    }

    /// The request in hand is answered: on to the next one, or to the end.
    fn answered(&mut self, world: &mut World<'_>) {
        self.starved = false;
        if !self.keeps_alive || self.draining {
            return self.over();
        }
        self.stage = Stage::Idle;
        self.unused_bytes = 0;
        self.deadline = after(world.now, world.limits.http_idle_timeout);
        self.advance(world);
    }

    fn write(&self, world: &mut World<'_>, reply: &HttpReply, keeps_alive: bool) {
        let has_body = !matches!(reply.status, 100..=199 | 204 | 304);
        let length = reply.body.len().to_string();
        let connection = match (keeps_alive, self.minor_version) {
            (false, _) => Some(("Connection", "close")),
            (true, 0) => Some(("Connection", "keep-alive")),
            (true, _) => None,
        };
        let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let added = [Some(("Vary", "Accept-Encoding")), has_body.then_some(("Content-Length", &*length)), connection];
        http::encode_reply_head(world.out, reply.status, headers.chain(added.into_iter().flatten()));
        if has_body && !self.is_head {
            world.out.extend_from_slice(&reply.body);
        }
    }
}

/// Whoever answers wants no more of an upload.
fn forget_upload(world: &mut World<'_>) {
    world.events.retain(|event| !matches!(event, Event::Bytes { .. } | Event::Finished(_)));
}
