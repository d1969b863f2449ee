//! One HTTP/1.1 exchange after another (RFC 9112). Never knows what a path means.
//!
//! A request that cannot be read is answered with its status and a line of text, and the connection is closed
//! (section 9.6): what follows it has no meaning.

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::http;
use crate::wire::http::BodyLength;
use crate::wire::http::ChunkError;
use crate::wire::http::ChunkedBody;
use crate::wire::http::HeadError;
use crate::wire::http::HttpReply;
use crate::wire::http::HttpRequest;
use crate::wire::http::LengthError;
use crate::wire::http::RequestHead;

use super::Event;
use super::report::Cause;
use super::report::Report;
use super::single::STREAM;
use super::stream::World;

/// Bytes of further requests that wait while one is in hand; over it nothing is read.
const MAX_PIPELINED_BYTES: usize = 16 * 1024;

/// How far the current exchange is.
#[derive(Debug)]
enum Stage {
    /// Between two requests.
    Idle,
    /// Within a head.
    Head,
    /// Within a body.
    Body(Box<(HttpRequest, Remaining)>),
    /// The owner has a request.
    InHand,
    /// No more is read.
    Over,
}

/// What of a body is still to come.
#[derive(Debug)]
enum Remaining {
    Bytes(u64),
    Chunks(ChunkedBody),
}

/// Whether more can be done with the bytes that are there.
#[derive(PartialEq, Eq)]
enum Progress {
    Made,
    Waits,
}

/// The HTTP layer of a connection.
#[derive(Debug)]
pub(super) struct Http {
    stage: Stage,
    deadline: Option<Instant>,
    /// Bytes that were not used so far.
    input: Vec<u8>,
    /// How many of them were searched for the end of the head.
    searched: usize,
    /// What is known of the request in hand.
    is_head: bool,
    keeps_alive: bool,
    minor_version: u8,
    peer_finished: bool,
    draining: bool,
}

impl Http {
    pub(super) fn new(world: &World<'_>) -> Http {
        Http {
            stage: Stage::Idle,
            deadline: after(world.now, world.limits.http_idle_timeout),
            input: Vec::new(),
            searched: 0,
            is_head: false,
            keeps_alive: true,
            minor_version: 1,
            peer_finished: false,
            draining: false,
        }
    }

    pub(super) fn bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) {
        if !matches!(self.stage, Stage::Over) && !self.peer_finished {
            self.input.extend_from_slice(bytes);
            self.advance(world);
        }
    }

    /// The peer sends no more; the request in hand is still answered.
    pub(super) fn eof(&mut self, world: &mut World<'_>) {
        self.peer_finished = true;
        self.advance(world);
    }

    pub(super) fn failure(&mut self, world: &mut World<'_>) {
        if matches!(self.stage, Stage::InHand) {
            world.events.push_back(Event::Gone(STREAM));
        }
        self.stage = Stage::Over;
    }

    /// A head or body that does not come is told of; an idle connection is closed without a word.
    pub(super) fn timeout(&mut self, world: &mut World<'_>) {
        if self.deadline.is_some_and(|deadline| deadline <= world.now) {
            match self.stage {
                Stage::Idle => self.over(),
                _ => self.refuse(world, 408, "request timed out"),
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn reply(&mut self, world: &mut World<'_>, reply: &HttpReply) {
        if !matches!(self.stage, Stage::InHand) {
            return;
        }
        let keeps_alive = self.keeps_alive && !self.draining;
        self.write(world, reply, keeps_alive);
        if !keeps_alive {
            return self.over();
        }
        self.stage = Stage::Idle;
        self.deadline = after(world.now, world.limits.http_idle_timeout);
        self.advance(world);
    }

    /// No request is taken after the one that has begun.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        if matches!(self.stage, Stage::Idle) {
            self.over();
        }
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Over)
    }

    pub(super) fn wants_read(&self) -> bool {
        !matches!(self.stage, Stage::InHand) || self.input.len() < MAX_PIPELINED_BYTES
    }

    fn advance(&mut self, world: &mut World<'_>) {
        while self.step(world) == Progress::Made {}
        if self.peer_finished && !matches!(self.stage, Stage::InHand) {
            self.over();
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    fn step(&mut self, world: &mut World<'_>) -> Progress {
        match &mut self.stage {
            Stage::Idle => self.begin(world),
            Stage::Head => self.read_head(world),
            Stage::Body(_) => self.read_body(world),
            Stage::InHand | Stage::Over => Progress::Waits,
        }
    }

    /// Passes over empty lines before a request (RFC 9112 section 2.2), then looks at its first byte.
    fn begin(&mut self, world: &mut World<'_>) -> Progress {
        let blank = self.input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.input.drain(..blank);
        let Some(first) = self.input.first() else { return Progress::Waits };
        if !first.is_ascii_graphic() {
            self.refuse(world, 400, "malformed request");
            return Progress::Waits;
        }
        self.stage = Stage::Head;
        self.searched = 0;
        self.deadline = after(world.now, world.limits.http_head_timeout);
        Progress::Made
    }

    fn read_head(&mut self, world: &mut World<'_>) -> Progress {
        let end = http::head_end(&self.input, self.searched);
        // Parsed at most twice, so that a head that drips in is not read again for each byte: once the request
        // line is there, and once all is.
        let first_line = self.input.iter().take(self.searched).all(|b| *b != b'\n')
            && self.input.iter().skip(self.searched).any(|b| *b == b'\n');
        self.searched = self.input.len();
        let too_large = end.unwrap_or(self.input.len()) > world.limits.http_max_head_bytes;
        if too_large {
            self.refuse(world, 431, "request head is too large");
            return Progress::Waits;
        }
        if end.is_none() && !first_line {
            return Progress::Waits;
        }
        match http::parse_request_head(&self.input) {
            Ok(Some((head, len))) => {
                self.input.drain(..len);
                self.begin_body(world, head);
                Progress::Made
            }
            Ok(None) => {
                if end.is_some() {
                    self.refuse(world, 400, "malformed request");
                }
                Progress::Waits
            }
            Err(error) => {
                let (status, text) = match error {
                    HeadError::Syntax => (400, "malformed request"),
                    HeadError::Version => (505, "only HTTP/1.0 and HTTP/1.1 are spoken here"),
                    HeadError::TooManyHeaders => (431, "too many header fields"),
                };
                self.refuse(world, status, text);
                Progress::Waits
            }
        }
    }

    fn begin_body(&mut self, world: &mut World<'_>, head: RequestHead) {
        self.is_head = head.method == "HEAD";
        self.minor_version = head.minor_version;
        self.keeps_alive = head.keeps_alive();
        let hosts = head.values("host").count();
        if hosts > 1 || (hosts == 0 && head.minor_version > 0) {
            return self.refuse(world, 400, "a request has one Host header");
        }
        let remaining = match head.body_length() {
            Ok(BodyLength::Bytes(len)) if len > world.limits.http_max_body_bytes as u64 => {
                return self.refuse(world, 413, "request body is too large");
            }
            Ok(BodyLength::Bytes(len)) => Remaining::Bytes(len),
            Ok(BodyLength::Chunked) => Remaining::Chunks(ChunkedBody::default()),
            Err(LengthError::BadContentLength) => return self.refuse(world, 400, "bad Content-Length"),
            Err(LengthError::Ambiguous) => {
                return self.refuse(world, 400, "Transfer-Encoding beside Content-Length, or in HTTP/1.0");
            }
            Err(LengthError::UnknownCoding) => return self.refuse(world, 501, "unsupported transfer coding"),
        };
        let expects = head.values("expect").next().is_some() && head.minor_version > 0;
        if expects && !head.lists("expect", "100-continue") {
            return self.refuse(world, 417, "unknown expectation");
        }
        let comes = !matches!(remaining, Remaining::Bytes(0));
        if expects && comes && self.input.is_empty() {
            http::encode_reply_head(world.out, 100, []);
        }
        self.deadline = after(world.now, world.limits.http_body_timeout);
        self.stage = Stage::Body(Box::new((request(head), remaining)));
    }

    fn read_body(&mut self, world: &mut World<'_>) -> Progress {
        let Stage::Body(body) = &mut self.stage else { return Progress::Waits };
        let (request, remaining) = body.as_mut();
        let max_bytes = world.limits.http_max_body_bytes;
        let (taken, done) = match remaining {
            Remaining::Bytes(left) => {
                let taken = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                request.body.extend(self.input.drain(..taken));
                *left -= taken as u64;
                (Ok(0), *left == 0)
            }
            Remaining::Chunks(chunks) => (chunks.take(&self.input, &mut request.body, max_bytes), chunks.is_done()),
        };
        match taken {
            Ok(taken) => {
                self.input.drain(..taken);
            }
            Err(ChunkError::Syntax) => {
                self.refuse(world, 400, "malformed chunk");
                return Progress::Waits;
            }
            Err(ChunkError::TooLarge) => {
                self.refuse(world, 413, "request body is too large");
                return Progress::Waits;
            }
        }
        if done {
            world.events.push_back(Event::Http(std::mem::take(request)));
            self.stage = Stage::InHand;
            self.deadline = None;
        }
        Progress::Waits
    }

    fn refuse(&mut self, world: &mut World<'_>, status: u16, text: &str) {
        let fields = format!("status={status} error={text:?}");
        world.events.push_back(Event::Report(Report { cause: Cause::Http, fields }));
        let content_type = ("Content-Type", "text/plain; charset=utf-8".to_owned());
        self.write(world, &HttpReply { status, headers: vec![content_type], body: text.into() }, false);
        self.over();
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

    fn over(&mut self) {
        self.stage = Stage::Over;
        self.deadline = None;
        self.input = Vec::new();
    }
}

fn after(now: Instant, time: Duration) -> Option<Instant> {
    (!time.is_zero()).then(|| now + time)
}

fn request(head: RequestHead) -> HttpRequest {
    // A proxy's form of the target names the authority too (RFC 9112 section 3.2.2).
    let target = match head.target.strip_prefix("http://").or_else(|| head.target.strip_prefix("https://")) {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => &head.target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    HttpRequest {
        method: head.method,
        path: path.to_owned(),
        query: query.to_owned(),
        headers: head.headers,
        body: Vec::new(),
        upload: false,
    }
}
