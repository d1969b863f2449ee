//! One connection: the stack of layers from bytes to calls. TLS, first byte, yamux, then calls, streams or HTTP.
//!
//! A state machine without I/O. Its owner hands in bytes and time, takes all events, then sends what is in the
//! outbox. Knows no state, no leader and no other connection.
//!
//! **Invariants:** no byte is lost where one layer hands over to the next, however the bytes are cut; what the peer
//! has not read is never buffered beyond the caps in [`Limits`]; a connection that says nothing holds no buffer.

pub mod http;
pub mod outbox;
pub mod report;
pub mod rpc_client;
pub mod rpc_server;
pub mod sniff;
pub mod streaming;
pub mod tls;

use std::sync::Arc;
use std::time::Duration;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session;
use crate::wire::first_byte::FirstByte;

use self::http::{HttpReply, HttpRequest};
use self::report::Report;
use self::tls::{PeerCertificate, TlsServer};

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
    /// Yamux.
    pub mux: session::Limits,
    /// HTTP: request line and headers together.
    pub http_max_head_bytes: usize,
    /// HTTP: one request's body.
    pub http_max_body_bytes: usize,
    /// HTTP: from the first byte of a head to its end.
    pub http_head_timeout: Duration,
    /// HTTP: from the end of a head to the end of its body.
    pub http_body_timeout: Duration,
    /// HTTP: between two requests.
    pub http_idle_timeout: Duration,
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
    /// More bytes on a streaming stream, after the argument (or, on one that we opened, after the ack). They count
    /// against the window until [`Conn::consumed`].
    Bytes {
        /// Its stream.
        stream: StreamId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// The peer sends no more on a stream with a streaming call, or on one that we opened.
    Finished(StreamId),
    /// A stream is gone, and with it any call on it: the peer reset or closed it, or broke a rule on it.
    Gone(StreamId),
    /// A streaming stream can take more bytes, after [`Conn::send_bytes`] took less than it was given.
    Writable(StreamId),
    /// The answer to a call that we made: a body, or the error text.
    Answer {
        /// The stream of [`Conn::call`].
        stream: StreamId,
        /// A body, or the text of the error.
        result: Result<Box<[u8]>, String>,
    },
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

/// How a call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// With a body.
    Body(&'a [u8]),
    /// With the text of an error; the stream stays usable.
    Error(&'a str),
    /// With the text of an error, and then the stream is closed (unknown method, unreadable arguments).
    LastError(&'a str),
}

/// A stream to the peer cannot be opened: not a yamux session, or it is closing, or has too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CannotOpen;

/// One connection.
pub struct Conn {
    // conn helper
}

#[allow(unused_variables)]
impl Conn {
    /// A connection accepted on the RPC port.
    pub fn accept_rpc(now: Instant, limits: Arc<Limits>, security: &Security) -> Conn {
        todo!("conn helper")
    }

    /// A connection accepted on the HTTP port. With TLS in `security` the handshake is expected at once.
    pub fn accept_http(now: Instant, limits: Arc<Limits>, security: &Security) -> Conn {
        todo!("conn helper")
    }

    /// Takes bytes from the socket, all of them.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        todo!("conn helper")
    }

    /// The peer sends no more.
    pub fn handle_eof(&mut self, now: Instant) {
        todo!("conn helper")
    }

    /// The socket failed; the text is the system's.
    pub fn handle_failure(&mut self, now: Instant, error: &str) {
        todo!("conn helper")
    }

    /// Deadlines may be due.
    pub fn handle_timeout(&mut self, now: Instant) {
        todo!("conn helper")
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!("conn helper")
    }

    /// When [`Conn::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!("conn helper")
    }

    /// Bytes to write next, empty when there are none. The rest comes after [`Conn::sent`].
    pub fn to_send(&self) -> &[u8] {
        todo!("conn helper")
    }

    /// The socket took this many of [`Conn::to_send`].
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        todo!("conn helper")
    }

    /// False while so much waits to be sent, or to be served, that nothing more should be read from the socket.
    pub fn wants_read(&self) -> bool {
        todo!("conn helper")
    }

    /// Lets a raft or streaming connection go on, after [`Event::Protocol`].
    pub fn admit(&mut self, now: Instant) {
        todo!("conn helper")
    }

    /// Answers a call.
    pub fn reply(&mut self, now: Instant, stream: StreamId, seq: u64, method: &str, answer: Answer<'_>) {
        todo!("conn helper")
    }

    /// Acknowledges a streaming call; with an error, its stream is closed after it.
    pub fn streaming_ack(&mut self, now: Instant, stream: StreamId, error: &str) {
        todo!("conn helper")
    }

    /// Bytes that [`Conn::send_bytes`] would take now.
    pub fn send_credit(&self, stream: StreamId) -> usize {
        todo!("conn helper")
    }

    /// Sends on a streaming stream; says how many bytes were taken. 0 for one that is gone.
    pub fn send_bytes(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) -> usize {
        todo!("conn helper")
    }

    /// The bytes of [`Event::Bytes`] were used: the peer may send as many again.
    pub fn consumed(&mut self, now: Instant, stream: StreamId, bytes: usize) {
        todo!("conn helper")
    }

    /// We send no more on a streaming stream.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        todo!("conn helper")
    }

    /// Ends a stream at once.
    pub fn reset(&mut self, now: Instant, stream: StreamId) {
        todo!("conn helper")
    }

    /// Opens a stream to the peer and makes a call on it: first byte 0x01, head, body. The stream is closed after
    /// its answer.
    ///
    /// # Errors
    /// When no stream can be opened.
    pub fn call(&mut self, now: Instant, method: &str, body: &[u8]) -> Result<StreamId, CannotOpen> {
        todo!("conn helper")
    }

    /// Opens a streaming stream to the peer: first byte 0x05, header. [`Event::Acked`] follows.
    ///
    /// # Errors
    /// When no stream can be opened.
    pub fn open_streaming(&mut self, now: Instant, method: &str) -> Result<StreamId, CannotOpen> {
        todo!("conn helper")
    }

    /// Whether streams can be opened to the peer: the connection is a yamux session.
    pub fn can_open(&self) -> bool {
        todo!("conn helper")
    }

    /// Answers an HTTP request.
    pub fn http_reply(&mut self, now: Instant, reply: HttpReply) {
        todo!("conn helper")
    }

    /// Takes no new calls and streams: GoAway(0) on yamux, `Connection: close` on HTTP. Those in hand go on; when
    /// none is left, [`Event::Closed`] comes.
    pub fn drain(&mut self, now: Instant) {
        todo!("conn helper")
    }

    /// Ends everything at once.
    pub fn close(&mut self, now: Instant) {
        todo!("conn helper")
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        todo!("conn helper")
    }

    /// The peer's certificate, when TLS verified one.
    pub fn certificate(&self) -> Option<&Arc<PeerCertificate>> {
        todo!("conn helper")
    }

    /// Open streams of a yamux session; 0 or 1 otherwise.
    pub fn streams(&self) -> usize {
        todo!("conn helper")
    }
}
