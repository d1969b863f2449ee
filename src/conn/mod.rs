//! One connection: the stack of layers from bytes to calls. A balancer's header, TLS, first byte, yamux, then calls,
//! streams or HTTP.
//!
//! A state machine without I/O. Its owner hands in bytes and time, takes all events, then sends what is in the
//! outbox. Knows no state, no leader and no other connection.
//!
//! **Invariants:** no byte is lost where one layer hands over to the next, however the bytes are cut; what the peer
//! has not read is never buffered beyond the caps in [`Limits`]; a connection that says nothing holds no buffer.
//!
//! Over 500 lines, since half of it is what the owner meets: limits, events, and a method for each thing to do.

pub mod dial;
pub mod http;
mod layers;
pub mod liveness;
mod message;
pub mod outbox;
mod proxied;
pub mod raft_link;
pub mod report;
pub mod rpc_client;
pub mod rpc_server;
mod single;
pub mod sniff;
mod stream;
pub mod streaming;
mod streams;
pub mod tls;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session;
use crate::wire::class::Class;
use crate::wire::first_byte::FirstByte;
use crate::wire::http::HttpReply;
use crate::wire::http::HttpRequest;
use crate::wire::raft::RaftFrame;

use self::layers::Layer;
use self::outbox::OUTBOX_BYTES;
use self::outbox::Outbox;
use self::report::Report;
use self::single::STREAM;
use self::tls::PeerCertificate;
use self::tls::Tls;
use self::tls::TlsServer;

/// Caps and times of a connection.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the first byte, for a TLS handshake, for the first byte of a v2 stream, and for a streaming header and
    /// its argument. Zero: none.
    pub handshake_timeout: Duration,
    /// One request or reply, head and body.
    pub max_message_bytes: usize,
    /// Incomplete requests of all streams of a connection together. The stream that goes over it is reset.
    pub max_partial_bytes: usize,
    /// Encoded replies that wait for the peer to read, of all streams of a connection together; over it the
    /// connection takes no more requests until the peer reads.
    pub max_unsent_bytes: usize,
    /// Idle streams that a dialled session keeps for further calls (64, as Nomad's servers).
    pub idle_streams: usize,
    /// Frames of a raft link that wait for the peer to read.
    pub max_raft_unsent_bytes: usize,
    /// Yamux.
    pub mux: session::Limits,
    /// HTTP: request line and headers together.
    pub http_max_head_bytes: usize,
    /// HTTP: one request's body.
    pub http_max_body_bytes: usize,
    /// HTTP: from the first byte of a head to its end.
    pub http_head_timeout: Duration,
    /// HTTP: from the end of a head to the end of its body; of an upload, between two pieces of its body.
    pub http_body_timeout: Duration,
    /// HTTP: between two requests.
    pub http_idle_timeout: Duration,
    /// HTTP: method and path of requests whose bodies come as [`Event::Bytes`] rather than whole; of any size.
    pub http_uploads: &'static [(&'static str, &'static str)],
}

/// What kind of plain connections a listener lets in.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Set when TLS is configured for this listener.
    pub tls: Option<Arc<TlsServer>>,
    /// Plain connections are refused (RPC: `tls.rpc` without `rpc_upgrade_mode`).
    pub require_tls: bool,
    /// The name that a certificate must carry for raft's byte (`server.<region>.nomad`), when names are verified.
    pub raft_name: Option<Arc<str>>,
}

/// What a connection speaks, once that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Nothing said yet, or in a TLS handshake.
    Unknown,
    /// One of the first bytes but TLS.
    Rpc(FirstByte),
    /// HTTP/1.1.
    Http,
}

/// A call that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcCall {
    /// The stream it came on; [`StreamId`] 0 on a plain connection.
    pub stream: StreamId,
    /// Echoed in the reply.
    pub seq: u64,
    /// Echoed in the reply.
    pub method: String,
    /// One msgpack value.
    pub body: Box<[u8]>,
    /// Where the body began on its stream.
    pub base: u64,
}

/// What happened on a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The PROXY header of a connection from a balancer: the client's address, or none where the balancer's own counts.
    /// Comes first and once; what follows waits for [`Conn::admit`].
    Proxied(Option<SocketAddr>),
    /// It is known what the connection speaks. Comes once. `Rpc(Raft)` and `Rpc(Streaming)` wait for
    /// [`Conn::admit`] before anything of theirs is read.
    Protocol(Protocol),
    /// The TLS handshake is done.
    Secured(Option<Arc<PeerCertificate>>),
    /// A call; the next one of its stream comes after [`Conn::reply`].
    Call(RpcCall),
    /// The header of a streaming call; go on with [`Conn::streaming_ack`].
    Streaming {
        /// Its stream; 0 on a connection of its own.
        stream: StreamId,
        /// The method named.
        method: String,
    },
    /// The argument of a streaming call that was acknowledged.
    Argument {
        /// Its stream.
        stream: StreamId,
        /// One msgpack value.
        body: Box<[u8]>,
        /// Where it began on its stream.
        base: u64,
    },
    /// More bytes on a streaming stream, after the argument (or, on one that we opened, after the ack), or of an
    /// HTTP upload. They count against the window until [`Conn::consumed`].
    Bytes {
        /// Its stream.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The peer sends no more on a stream with a streaming call, or on one that we opened; an HTTP upload is whole.
    Finished(StreamId),
    /// A stream is gone, and with it any call on it: the peer reset or closed it, or broke a rule on it.
    Gone(StreamId),
    /// A streaming stream can take more bytes, after [`Conn::send_bytes`] took less than it was given.
    Writable(StreamId),
    /// The answer to a call that we made: a body, or the error text.
    Answer {
        /// The stream of [`Conn::call`].
        stream: StreamId,
        /// A body, or the error.
        result: Result<Box<[u8]>, Refusal>,
    },
    /// A call of ours has ended without an answer: its stream or its connection is gone. Its last event, in place of
    /// [`Event::Gone`], which is of other streams.
    Lost {
        /// The stream of [`Conn::call`].
        stream: StreamId,
        /// Whether any byte of it may have been read by the peer (R3.9); when not, it has not happened and cannot
        /// happen: none has left this process and none will, or the peer refused its stream unread.
        written: bool,
    },
    /// A frame of a raft link.
    Raft(Box<RaftFrame>),
    /// A connection that we dialled is ready: its TLS handshake is done, and calls, streams or frames can be sent.
    Ready,
    /// The ack of a streaming stream that we opened: empty, or the error.
    Acked {
        /// The stream of [`Conn::open_streaming`].
        stream: StreamId,
        /// Empty, or the text of the error.
        error: String,
    },
    /// An HTTP request; the next one comes after its reply.
    Http(HttpRequest),
    /// Something for the log, and for counters.
    Report(Report),
    /// The connection is over: send what is in the outbox, then close it. No event follows.
    Closed,
}

impl Event {
    /// The stream it is of, if it is of one.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Event::Call(RpcCall { stream, .. })
            | Event::Streaming { stream, .. }
            | Event::Argument { stream, .. }
            | Event::Bytes { stream, .. }
            | Event::Finished(stream)
            | Event::Gone(stream)
            | Event::Writable(stream)
            | Event::Answer { stream, .. }
            | Event::Lost { stream, .. }
            | Event::Acked { stream, .. } => Some(*stream),
            Event::Raft(_)
            | Event::Ready
            | Event::Proxied(_)
            | Event::Protocol(_)
            | Event::Secured(_)
            | Event::Http(_)
            | Event::Report(_)
            | Event::Closed => None,
        }
    }
}

/// The error that a peer answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In its words.
    pub text: String,
    /// What it means, as the peer said, or as the text tells.
    pub class: Class,
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Refusal {
        Refusal { text: text.to_owned(), class: Class::of_text(text) }
    }
}

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// With a body.
    Body(&'a [u8]),
    /// With the text of an error; the stream stays usable.
    Error(&'a str),
    /// The same, with what it means: for a peer that knows the field.
    Classed(&'a str, Class),
    /// With the text of an error, and then the stream is closed (unknown method, unreadable arguments).
    LastError(&'a str),
}

/// A stream to the peer cannot be opened: not a yamux session, or it is closing, or has too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotOpen;

/// One connection.
///
/// After every call take all events, and send what is in the outbox. Of each stream, [`Event::Gone`] is the last
/// event; so are [`Event::Lost`], an [`Event::Acked`] with an error, and [`Event::Answer`] until the stream is used for
/// another call. An owner that answers within the loop
/// over events may be told that a stream is gone after it was done with it.
pub struct Conn {
    limits: Arc<Limits>,
    security: Security,
    events: VecDeque<Event>,
    outbox: Outbox,
    tls: Option<Box<Tls>>,
    layer: Layer,
    protocol: Protocol,
    /// It came in on the HTTP port.
    is_http: bool,
    /// The peer sends no more.
    peer_finished: bool,
}

impl Conn {
    /// A connection accepted on the RPC port.
    pub fn accept_rpc(now: Instant, limits: Arc<Limits>, security: &Security) -> Conn {
        let mut conn = Conn::new(limits, security, false);
        conn.begin_accepted(now);
        conn
    }

    /// A connection accepted on the HTTP port. With TLS in `security` the handshake is expected at once.
    pub fn accept_http(now: Instant, limits: Arc<Limits>, security: &Security) -> Conn {
        let mut conn = Conn::new(limits, security, true);
        conn.begin_accepted(now);
        conn
    }

    fn new(limits: Arc<Limits>, security: &Security, is_http: bool) -> Conn {
        Conn {
            limits,
            security: security.clone(),
            events: VecDeque::new(),
            outbox: Outbox::default(),
            tls: None,
            layer: Layer::Sniff(None),
            protocol: Protocol::Unknown,
            is_http,
            peer_finished: false,
        }
    }

    /// Takes bytes from the socket, all of them.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.take_bytes(now, bytes);
        self.settle(now);
    }

    /// The peer sends no more.
    pub fn handle_eof(&mut self, now: Instant) {
        self.eof(now);
        self.settle(now);
    }

    /// The socket failed; the text is the system's.
    pub fn handle_failure(&mut self, now: Instant, error: &str) {
        self.failure(now, error);
        self.settle(now);
    }

    /// Deadlines may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.timeout(now);
        self.settle(now);
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if let (Some(Event::Answer { stream, .. }), Layer::Streams(streams)) = (&event, &mut self.layer) {
            streams.answer_taken(*stream);
        }
        if event.is_none() && self.events.capacity() > 0 {
            self.events = VecDeque::new();
        }
        event
    }

    /// When [`Conn::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.layer {
            Layer::Sniff(deadline) | Layer::Handshake(deadline) => *deadline,
            Layer::Introduced(_) | Layer::Over => None,
            Layer::Proxied(awaited) => Some(awaited.deadline),
            Layer::Waiting { deadline, .. } => *deadline,
            Layer::Dialling { deadline, .. } => Some(*deadline),
            Layer::Raft(link) => Some(link.deadline()),
            Layer::Single(single) => single.deadline(),
            Layer::Streams(streams) => streams.deadline(),
            Layer::Http(http) => http.deadline(),
        }
    }

    /// Bytes to write next, empty when there are none. The rest comes after [`Conn::sent`].
    pub fn to_send(&self) -> &[u8] {
        self.outbox.waiting()
    }

    /// The socket took this many of [`Conn::to_send`].
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        self.outbox.sent(bytes);
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) => single.sent(&mut world),
            Layer::Streams(streams) => streams.sent(&mut world),
            Layer::Http(http) => http.sent(&mut world),
            _ => return,
        }
        self.settle(now);
    }

    /// False while so much waits to be sent, or to be served, that nothing more should be read from the socket.
    ///
    /// A reply that waits for a yamux window does not count: only reading brings the grant. While such replies
    /// are over `max_unsent_bytes` no call is taken.
    pub fn wants_read(&self) -> bool {
        let few_wait = self.outbox.len() <= self.limits.max_unsent_bytes;
        // What comes on a link is little for what goes, and what goes has a cap of its own.
        (few_wait || matches!(self.layer, Layer::Raft(_)))
            && match &self.layer {
                Layer::Proxied(_) | Layer::Sniff(_) | Layer::Handshake(_) | Layer::Dialling { .. } => true,
                Layer::Raft(_) | Layer::Streams(_) => true,
                Layer::Waiting { .. } | Layer::Introduced(_) | Layer::Over => false,
                Layer::Single(single) => {
                    single.is_reading() || single.held_bytes() < self.limits.mux.window_bytes as usize
                }
                Layer::Http(http) => http.wants_read(),
            }
    }

    /// Lets a connection go on: one from a balancer after [`Event::Proxied`], a raft or streaming one after
    /// [`Event::Protocol`].
    pub fn admit(&mut self, now: Instant) {
        self.admitted(now);
        self.settle(now);
    }

    /// Answers a call.
    pub fn reply(&mut self, now: Instant, stream: StreamId, seq: u64, method: &str, answer: Answer<'_>) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) if stream == STREAM => single.reply(&mut world, seq, method, answer),
            Layer::Streams(streams) => streams.reply(&mut world, stream, seq, method, answer),
            _ => return,
        }
        self.settle(now);
    }

    /// Acknowledges a streaming call; with an error, its stream is closed after it.
    pub fn streaming_ack(&mut self, now: Instant, stream: StreamId, error: &str) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) if stream == STREAM => single.ack(&mut world, error),
            Layer::Streams(streams) => streams.ack(&mut world, stream, error),
            _ => return,
        }
        self.settle(now);
    }

    /// Bytes that [`Conn::send_bytes`] would take now.
    pub fn send_credit(&self, stream: StreamId) -> usize {
        let room = OUTBOX_BYTES.saturating_sub(self.outbox.len());
        match &self.layer {
            Layer::Single(single) if stream == STREAM && single.can_send() => room,
            Layer::Http(http) if stream == STREAM && http.can_send() => room,
            Layer::Streams(streams) => streams.credit(stream).min(room),
            _ => 0,
        }
    }

    /// Sends on a streaming stream, or as a piece of an HTTP reply that was begun ([`StreamId`] 0); says how many
    /// bytes were taken. 0 for one that is gone.
    pub fn send_bytes(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        let (mut world, layer) = self.parts(now);
        let taken = match layer {
            Layer::Single(single) if stream == STREAM => single.send_bytes(&mut world, bytes),
            Layer::Streams(streams) => streams.send_bytes(&world, stream, bytes),
            Layer::Http(http) if stream == STREAM => http.send_bytes(&mut world, bytes),
            _ => return 0,
        };
        self.settle(now);
        taken
    }

    /// The bytes of [`Event::Bytes`] were used: the peer may send as many again.
    pub fn consumed(&mut self, now: Instant, stream: StreamId, bytes: usize) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) if stream == STREAM => single.consumed(&mut world, bytes),
            Layer::Streams(streams) => streams.consumed(&mut world, stream, bytes),
            Layer::Http(http) if stream == STREAM => http.consumed(&mut world, bytes),
            _ => return,
        }
        self.settle(now);
    }

    /// We send no more on a streaming stream. What the peer still sends goes on to come, but for a connection that
    /// is one streaming call: that one is over. An HTTP reply in pieces is whole then.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) if stream == STREAM => single.finish(),
            Layer::Streams(streams) => streams.finish(&mut world, stream),
            Layer::Http(http) if stream == STREAM => http.end_reply(&mut world),
            _ => return,
        }
        self.settle(now);
    }

    /// Ends a stream at once. No further event comes of it.
    pub fn reset(&mut self, now: Instant, stream: StreamId) {
        let (mut world, layer) = self.parts(now);
        world.events.retain(|event| event.stream() != Some(stream));
        match layer {
            Layer::Single(_) | Layer::Http(_) if stream == STREAM => return self.close(now),
            Layer::Streams(streams) => streams.reset(&mut world, stream),
            _ => return,
        }
        self.settle(now);
    }

    /// Makes a call to the peer: [`Event::Answer`] or [`Event::Lost`] follows, one of them, once, unless the stream is
    /// reset first. On a connection that we dialled it uses the stream that was idle last, or opens one (first byte
    /// 0x01, head, body), or waits until one can be opened; after a success the stream is kept for the next call, up to
    /// [`Limits::idle_streams`]. To a peer that dialled us each call has a stream of its own.
    ///
    /// A stream is given to another call only after the owner has taken the answer to the one before.
    ///
    /// # Errors
    /// When the call cannot be taken: no session, or one that ends or that too much waits on. Nothing was sent.
    pub fn call(&mut self, now: Instant, method: &str, body: &[u8]) -> Result<StreamId, CannotOpen> {
        let (mut world, layer) = self.parts(now);
        let Layer::Streams(streams) = layer else { return Err(CannotOpen) };
        let stream = streams.call(&mut world, method, body)?;
        self.settle(now);
        Ok(stream)
    }

    /// Opens a streaming stream to the peer: first byte 0x05, header. [`Event::Acked`] follows.
    ///
    /// # Errors
    /// When no stream can be opened.
    pub fn open_streaming(&mut self, now: Instant, method: &str) -> Result<StreamId, CannotOpen> {
        let (mut world, layer) = self.parts(now);
        let Layer::Streams(streams) = layer else { return Err(CannotOpen) };
        let stream = streams.open_streaming(&mut world, method)?;
        self.settle(now);
        Ok(stream)
    }

    /// Whether streams can be opened to the peer: the connection is a yamux session.
    pub fn can_open(&self) -> bool {
        matches!(&self.layer, Layer::Streams(streams) if streams.can_open())
    }

    /// Begins an HTTP reply that comes in pieces: [`Conn::send_bytes`] and [`Conn::finish`] of [`StreamId`] 0 go on
    /// with it, and [`Event::Writable`] tells of room.
    pub fn http_begin(&mut self, now: Instant, status: u16, headers: &[(&'static str, String)]) {
        let (mut world, layer) = self.parts(now);
        if let Layer::Http(http) = layer {
            http.begin_reply(&mut world, status, headers);
            self.settle(now);
        }
    }

    /// Breaks an HTTP reply in pieces off: the client gets what waits, and sees that it is not whole.
    pub fn http_abort(&mut self, now: Instant) {
        if let (_, Layer::Http(http)) = self.parts(now) {
            http.abort_reply();
            self.settle(now);
        }
    }

    /// The upload whose head was given is wanted: a client that asks first is told to send it.
    pub fn http_continue(&mut self, now: Instant) {
        let (mut world, layer) = self.parts(now);
        if let Layer::Http(http) = layer {
            http.go_on(&mut world);
            self.settle(now);
        }
    }

    /// Answers an HTTP request.
    pub fn http_reply(&mut self, now: Instant, reply: HttpReply) {
        let (mut world, layer) = self.parts(now);
        if let Layer::Http(http) = layer {
            http.reply(&mut world, &reply);
            self.settle(now);
        }
    }

    /// Takes no new calls and streams: GoAway(0) on yamux, `Connection: close` on HTTP. Those in hand go on; when
    /// none is left, [`Event::Closed`] comes.
    pub fn drain(&mut self, now: Instant) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Sniff(_) | Layer::Handshake(_) | Layer::Dialling { .. } | Layer::Waiting { .. } => self.end(),
            Layer::Proxied(_) | Layer::Introduced(_) => self.end(),
            Layer::Raft(link) => link.end(),
            Layer::Single(single) => single.drain(),
            Layer::Streams(streams) => streams.drain(&mut world),
            Layer::Http(http) => http.drain(),
            Layer::Over => {}
        }
        self.settle(now);
    }

    /// Ends everything at once: what waits to be sent is dropped, and of what was in hand nothing more is told.
    pub fn close(&mut self, _now: Instant) {
        if !matches!(self.layer, Layer::Over) {
            self.layer = Layer::Over;
            self.outbox.clear();
            self.events.retain(|event| matches!(event, Event::Report(_)));
            self.events.push_back(Event::Closed);
        }
    }

    /// Does not let a connection in after all: these bytes are the last, within TLS where that is on.
    pub fn turn_away(&mut self, now: Instant, bytes: &[u8]) {
        self.end_with(now, bytes);
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Whether the peer has said that it sends no more; what it asked for may still be wanted (`nc -N`).
    pub fn peer_finished(&self) -> bool {
        self.peer_finished
    }

    /// Whether it is inside TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The peer's certificate, when TLS verified one.
    pub fn certificate(&self) -> Option<&Arc<PeerCertificate>> {
        self.tls.as_ref().and_then(|tls| tls.certificate.as_ref())
    }

    /// Open streams of a yamux session; 0 or 1 otherwise.
    pub fn streams(&self) -> usize {
        match &self.layer {
            Layer::Single(_) | Layer::Http(_) | Layer::Raft(_) => 1,
            Layer::Streams(streams) => streams.streams(),
            _ => 0,
        }
    }
}
