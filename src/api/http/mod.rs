//! The HTTP API: which call a request stands for, and how its answer looks. Pure: no socket, no state.
//!
//! A new path is a row of [`paths`]. Source: HTTP notes.

use std::sync::Arc;

use crate::wire::http::{HttpReply, HttpRequest};

use super::outcome::ReplyResult;
use super::{Method, StreamingMethod};

/// What a request needs.
#[derive(Debug)]
pub enum Plan {
    /// Nothing more: this is the answer.
    Reply(HttpReply),
    /// A call; its result is shown by [`render`].
    Call {
        /// Which method.
        method: &'static Method,
        /// Its body.
        body: Vec<u8>,
        /// How its answer is shown.
        view: View,
    },
    /// A streaming call whose messages become the body.
    Stream {
        /// Which method.
        method: &'static StreamingMethod,
        /// Its argument.
        argument: Vec<u8>,
        /// What its messages are turned into.
        body: StreamBody,
    },
    /// An upload, fed to a streaming call ([`HttpRequest::upload`]).
    Upload {
        /// Which method.
        method: &'static StreamingMethod,
        /// Its argument.
        argument: Vec<u8>,
    },
    /// The server's metrics.
    Metrics {
        /// In Prometheus' text form.
        prometheus: bool,
        /// With line breaks.
        pretty: bool,
    },
}

/// What the messages of a streaming call become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamBody {
    /// Event.Stream: a document a line.
    Events,
    /// Agent.Monitor: payloads as they are, `text/plain`.
    MonitorPlain,
    /// Agent.Monitor: payloads as they are, `application/json`.
    MonitorJson,
    /// Operator.SnapshotSave: the archive, with its digest in a header.
    Snapshot,
}

/// How the answer of a call is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// With line breaks.
    pub pretty: bool,
    /// Send it packed: the request accepts gzip.
    pub gzip: bool,
    /// The request's Origin, on paths that answer to other origins.
    pub cors: bool,
    /// What is taken of the reply's body, and which headers go with it.
    pub kind: u16,
}

/// What planning knows of the server.
#[derive(Clone, Debug)]
pub struct HttpFacts {
    /// The server's own region.
    pub region: Arc<str>,
}

/// Whether the answer may be packed.
pub fn accepts_gzip(_request: &HttpRequest) -> bool {
    todo!("http")
}

/// Decides what a request needs. Never fails: what cannot be read is answered.
pub fn plan(_request: &HttpRequest, _facts: &HttpFacts) -> Plan {
    todo!("http")
}

/// The answer to a call.
pub fn render(_view: &View, _result: &ReplyResult) -> HttpReply {
    todo!("http")
}

/// The head of a streaming answer: status 200 and its headers. `first` is the first message of the call, unwrapped:
/// an error in it is the whole answer instead.
pub fn render_stream_error(_code: i64, _text: &str) -> HttpReply {
    todo!("http")
}
