//! One HTTP/1.1 exchange after another (RFC 9112). Never knows what a path means.
//!
//! How requests are read is in `reading`, how they are answered in `answering`. A request that cannot be read is
//! answered with its status and a line of text, and the connection is closed (section 9.6): what follows it has no
//! meaning.

mod answering;
mod reading;

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::http::ChunkedBody;
use crate::wire::http::HttpRequest;

use super::Event;
use super::outbox::OUTBOX_BYTES;
use super::single::STREAM;
use super::stream::World;

use self::answering::Framing;

/// Bytes of further requests that wait while one is in hand; over it nothing is read.
const MAX_PIPELINED_BYTES: usize = 16 * 1024;

/// Bytes of an upload that the owner was given and has not used; over it nothing is read.
pub(super) const UPLOAD_WINDOW_BYTES: usize = 64 * 1024;

/// How far the current exchange is.
#[derive(Debug)]
enum Stage {
    /// Between two requests.
    Idle,
    /// Within a head.
    Head,
    /// Within a body.
    Body(Box<(HttpRequest, Remaining)>),
    /// The owner has the head of an upload, and gets its body as it comes.
    Upload(Remaining),
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
    /// The client of an upload waits to be told to go on.
    expects_continue: bool,
    /// Bytes of an upload that the owner has not used.
    unused_bytes: usize,
    /// A reply in pieces has begun.
    answering: Option<Framing>,
    /// The owner waits until the outbox has room.
    starved: bool,
    /// What comes is dropped: the rest of an upload that was answered before its end.
    deaf: bool,
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
            expects_continue: false,
            unused_bytes: 0,
            answering: None,
            starved: false,
            deaf: false,
            peer_finished: false,
            draining: false,
        }
    }

    pub(super) fn bytes(&mut self, world: &mut World<'_>, bytes: &[u8]) {
        if !matches!(self.stage, Stage::Over) && !self.peer_finished && !self.deaf {
            self.input.extend_from_slice(bytes);
            self.advance(world);
        }
    }

    /// The peer sends no more; the request in hand is still answered. Whether that is worth the while, the owner
    /// knows ([`super::Conn::peer_finished`]).
    pub(super) fn eof(&mut self, world: &mut World<'_>) {
        self.peer_finished = true;
        self.advance(world);
    }

    pub(super) fn failure(&mut self, world: &mut World<'_>) {
        if self.is_with_owner() {
            world.events.push_back(Event::Gone(STREAM));
        }
        self.over();
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

    /// The socket took bytes.
    pub(super) fn sent(&mut self, world: &mut World<'_>) {
        if matches!(self.stage, Stage::Idle) && !self.input.is_empty() {
            self.advance(world);
        }
        if self.starved && world.waiting_bytes <= OUTBOX_BYTES / 2 {
            self.starved = false;
            if self.can_send() {
                world.events.push_back(Event::Writable(STREAM));
            }
        }
    }

    /// The owner has used bytes of an upload.
    pub(super) fn consumed(&mut self, world: &mut World<'_>, count: usize) {
        self.unused_bytes = self.unused_bytes.saturating_sub(count);
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
        match self.stage {
            Stage::InHand => self.input.len() < MAX_PIPELINED_BYTES,
            Stage::Upload(_) => self.unused_bytes + self.input.len() < UPLOAD_WINDOW_BYTES,
            Stage::Idle | Stage::Head | Stage::Body(_) | Stage::Over => true,
        }
    }

    /// Bytes that came and wait to be used.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let body = match &self.stage {
            Stage::Body(body) => body.0.body.len(),
            _ => 0,
        };
        self.input.len() + self.unused_bytes + body
    }

    /// The owner knows of a request that was not answered.
    fn is_with_owner(&self) -> bool {
        matches!(self.stage, Stage::InHand | Stage::Upload(_))
    }

    fn advance(&mut self, world: &mut World<'_>) {
        while self.step(world) == Progress::Made {}
        if self.peer_finished {
            self.end_of_input(world);
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// Nothing follows what is there. An upload may wait for its owner, and a request for the client to read, rather
    /// than for bytes.
    fn end_of_input(&mut self, world: &mut World<'_>) {
        match self.stage {
            Stage::InHand => {}
            Stage::Idle if !self.input.is_empty() && !world.takes_calls(0) => {}
            Stage::Upload(_) if self.unused_bytes >= UPLOAD_WINDOW_BYTES && !self.input.is_empty() => {}
            Stage::Upload(_) => self.failure(world),
            Stage::Idle | Stage::Head | Stage::Body(_) | Stage::Over => self.over(),
        }
    }

    fn step(&mut self, world: &mut World<'_>) -> Progress {
        match &mut self.stage {
            Stage::Idle => self.begin(world),
            Stage::Head => self.read_head(world),
            Stage::Body(_) => self.read_body(world),
            Stage::Upload(_) => self.read_upload(world),
            Stage::InHand | Stage::Over => Progress::Waits,
        }
    }

    fn over(&mut self) {
        self.stage = Stage::Over;
        self.deadline = None;
        self.answering = None;
        self.input = Vec::new();
    }
}

fn after(now: Instant, time: Duration) -> Option<Instant> {
    (!time.is_zero()).then(|| now + time)
}
