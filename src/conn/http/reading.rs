//! Requests: heads, bodies, uploads. Never knows what a path means.

use crate::conn::Event;
use crate::conn::single::STREAM;
use crate::conn::stream::World;
use crate::wire::http;
use crate::wire::http::BodyLength;
use crate::wire::http::ChunkError;
use crate::wire::http::ChunkedBody;
use crate::wire::http::HeadError;
use crate::wire::http::HttpRequest;
use crate::wire::http::LengthError;
use crate::wire::http::RequestHead;

use super::Http;
use super::Progress;
use super::Remaining;
use super::Stage;
use super::UPLOAD_WINDOW_BYTES;
use super::after;

impl Http {
    /// Passes over empty lines before a request (RFC 9112 section 2.2), then looks at its first byte.
    pub(super) fn begin(&mut self, world: &mut World<'_>) -> Progress {
        let blank = self.input.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.input.drain(..blank);
        let Some(first) = self.input.first() else { return Progress::Waits };
        // Whoever does not read is not answered further, however much it has asked before.
        if !world.takes_calls(0) {
            return Progress::Waits;
        }
        if !first.is_ascii_graphic() {
            self.refuse(world, 400, "malformed request");
            return Progress::Waits;
        }
        self.stage = Stage::Head;
        self.searched = 0;
        self.deadline = after(world.now, world.limits.http_head_timeout);
        Progress::Made
    }

    pub(super) fn read_head(&mut self, world: &mut World<'_>) -> Progress {
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
        let waits = expects && self.input.is_empty() && !matches!(remaining, Remaining::Bytes(0));
        let Some(request) = request(head) else { return self.refuse(world, 400, "malformed request target") };
        self.deadline = after(world.now, world.limits.http_body_timeout);
        if is_upload(world, &request) {
            self.expects_continue = waits;
            self.stage = Stage::Upload(remaining);
            return world.events.push_back(Event::Http(HttpRequest { upload: true, ..request }));
        }
        match remaining {
            Remaining::Bytes(len) if len > world.limits.http_max_body_bytes as u64 => {
                return self.refuse(world, 413, "request body is too large");
            }
            _ => {}
        }
        if waits {
            http::encode_reply_head(world.out, 100, []);
        }
        self.stage = Stage::Body(Box::new((request, remaining)));
    }

    pub(super) fn read_body(&mut self, world: &mut World<'_>) -> Progress {
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
            Err(error) => return self.refuse_chunk(world, error),
        }
        if done {
            world.events.push_back(Event::Http(std::mem::take(request)));
            self.stage = Stage::InHand;
            self.deadline = None;
        }
        Progress::Waits
    }

    /// Passes on as much of an upload as its owner takes. Time runs only while bytes are awaited.
    pub(super) fn read_upload(&mut self, world: &mut World<'_>) -> Progress {
        let room = UPLOAD_WINDOW_BYTES.saturating_sub(self.unused_bytes);
        let Stage::Upload(remaining) = &mut self.stage else { return Progress::Waits };
        let there = self.input.get(..room.min(self.input.len())).unwrap_or_default();
        let mut piece = Vec::new();
        let (taken, done) = match remaining {
            Remaining::Bytes(left) => {
                let taken = there.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                piece.extend_from_slice(there.get(..taken).unwrap_or_default());
                *left -= taken as u64;
                (Ok(taken), *left == 0)
            }
            Remaining::Chunks(chunks) => (chunks.take(there, &mut piece, usize::MAX), chunks.is_done()),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => return self.refuse_chunk(world, error),
        };
        self.input.drain(..taken);
        self.expects_continue &= taken == 0;
        self.unused_bytes += piece.len();
        let window_full = self.unused_bytes >= UPLOAD_WINDOW_BYTES;
        if window_full {
            self.deadline = None;
        } else if !piece.is_empty() || self.deadline.is_none() {
            self.deadline = after(world.now, world.limits.http_body_timeout);
        }
        if !piece.is_empty() {
            world.events.push_back(Event::Bytes { stream: STREAM, bytes: piece });
        }
        if done {
            world.events.push_back(Event::Finished(STREAM));
            self.stage = Stage::InHand;
            self.deadline = None;
        }
        if done || window_full || taken == 0 { Progress::Waits } else { Progress::Made }
    }

    fn refuse_chunk(&mut self, world: &mut World<'_>, error: ChunkError) -> Progress {
        match error {
            ChunkError::Syntax => self.refuse(world, 400, "malformed chunk"),
            ChunkError::TooLarge => self.refuse(world, 413, "request body is too large"),
        }
        Progress::Waits
    }
}

fn is_upload(world: &World<'_>, request: &HttpRequest) -> bool {
    world.limits.http_uploads.contains(&(&*request.method, &*request.path))
}

/// `None` for a target that is neither a path nor a whole address nor `*`.
fn request(head: RequestHead) -> Option<HttpRequest> {
    let (path, query) = http::split_target(&head.target)?;
    Some(HttpRequest {
        path: path.to_owned(),
        query: query.to_owned(),
        method: head.method,
        headers: head.headers,
        body: Vec::new(),
        upload: false,
    })
}
