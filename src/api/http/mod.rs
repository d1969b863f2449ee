//! The HTTP API: which call a request stands for, and how its answer looks. Pure: no socket, no state.
//!
//! A new path is a row of `paths`. Source: HTTP notes.

mod body;
mod forms;
mod paths;
mod paths_acl;
mod paths_agent;
mod paths_nodes;
mod paths_operator;
mod paths_others;
mod paths_sessions;
mod paths_vars;
mod query;
mod render;
mod render_acl;
mod render_agent;
mod render_session;
mod render_var;
mod reply;
mod session_heads;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::wire::http::{HttpReply, HttpRequest};

use self::paths::{Ask, Found, Planned};
use self::query::{Query, percent_decode};
pub use self::render::{Heads, Show};
use self::reply::{coded, empty_reply, error_reply, refusal, text_reply};
use self::session_heads::SessionHeads;
pub use self::session_heads::{ACKNOWLEDGED_BELOW, Marks, SEEN, SEQUENCE, SESSION};
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
        /// What is to be added to it.
        marks: Marks,
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
    /// Whether the answer is for another origin's page too: the request has an Origin, on a path that permits it.
    pub cors: bool,
    /// Seconds after which to ask again, should nobody lead (R8.7).
    pub retry_after_seconds: u8,
    /// What is taken of the reply's body, and which headers go with it.
    pub kind: Show,
}

/// What planning knows of the server.
#[derive(Clone, Debug)]
pub struct HttpFacts {
    /// The server's own region.
    pub region: Arc<str>,
}

/// Decides what a request needs. Never fails: what cannot be read is answered.
pub fn plan(request: &HttpRequest, facts: &HttpFacts) -> Plan {
    let cors = permits_origins(&request.path) && request.header("origin").is_some();
    match planned(request, facts, cors) {
        Ok(Plan::Reply(mut reply)) => {
            add_cors(cors, &mut reply);
            Plan::Reply(reply)
        }
        Ok(plan) => plan,
        Err(mut reply) => {
            add_cors(cors, &mut reply);
            Plan::Reply(*reply)
        }
    }
}

fn planned(request: &HttpRequest, facts: &HttpFacts, cors: bool) -> Planned {
    if let Some(mut location) = paths::cleaned(&request.path) {
        if !request.query.is_empty() {
            location.push('?');
            location.push_str(&request.query);
        }
        let mut reply = empty_reply(307);
        reply.headers.push(("Location", location));
        return Ok(Plan::Reply(reply));
    }
    let (path, parts) = match paths::find(&request.path) {
        Found::Here(path, parts) => (path, parts),
        Found::NotServed => return Err(Box::new(not_served(request))),
        Found::Nothing => return Err(Box::new(empty_reply(404))),
    };
    if let Some(reply) = preflight(request, cors) {
        return Ok(Plan::Reply(reply));
    }
    let parts: Option<Vec<_>> = parts.into_iter().map(|part| percent_decode(part, false)).collect();
    let parts = parts.ok_or_else(|| refusal(400, "invalid URL escape in path"))?;
    let query = Query::parse(&request.query)?;
    let view = View {
        pretty: query.flag("pretty"),
        gzip: accepts_gzip(request),
        cors,
        retry_after_seconds: retry_after_seconds(request),
        kind: Show::Empty(Heads::None),
    };
    marked((path.plan)(&Ask { request, facts, query, parts, view })?, request)
}

/// A plan with what the headers about sessions say, or their refusal.
fn marked(plan: Plan, request: &HttpRequest) -> Planned {
    let wrong = |text: String| refusal(400, &text);
    let heads = SessionHeads::read(&request.headers).map_err(wrong)?;
    match plan {
        Plan::Call { method, body, view, .. } => {
            Ok(Plan::Call { method, body, marks: heads.marks(method).map_err(wrong)?, view })
        }
        Plan::Stream { method, .. } | Plan::Upload { method, .. } => {
            heads.refuse_all(method.name).map_err(wrong)?;
            Ok(plan)
        }
        Plan::Reply(_) | Plan::Metrics { .. } => Ok(plan),
    }
}

/// The answer to a call.
pub fn render(view: &View, result: &ReplyResult) -> HttpReply {
    let mut reply = match result {
        ReplyResult::Body(body) => render::body(view, body)
            .unwrap_or_else(|error| text_reply(500, &format!("the reply cannot be shown: {error}"))),
        ReplyResult::Error(text) | ReplyResult::BadArguments(text) => render::error(view, text),
    };
    add_cors(view.cors, &mut reply);
    reply
}

/// The answer to a streaming call whose first message is an error: the status is the code, where it is one.
pub fn render_stream_error(code: i64, text: &str) -> HttpReply {
    match u16::try_from(code) {
        Ok(status) if (400..=599).contains(&status) && status != 500 => {
            text_reply(status, coded(text).map_or(text, |(_, rest)| rest))
        }
        _ => error_reply(text),
    }
}

/// The answer where the peer serves something and we do not.
fn not_served(request: &HttpRequest) -> HttpReply {
    text_reply(501, &format!("not served by holdfast: {} {}", request.method, request.path))
}

/// Whether pages of other origins may read what is at a path.
fn permits_origins(path: &str) -> bool {
    path == "/v1/vars" || path.starts_with("/v1/var/") || path.starts_with("/v1/client/")
}

fn add_cors(cors: bool, reply: &mut HttpReply) {
    if cors && !reply.headers.iter().any(|(name, _)| *name == ALLOW_ORIGIN) {
        reply.headers.push((ALLOW_ORIGIN, "*".to_owned()));
        reply.headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
    }
}

const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

/// The answer to a browser that asks whether it may ask. A method that it may not use is not named.
fn preflight(request: &HttpRequest, cors: bool) -> Option<HttpReply> {
    let method = request.header("access-control-request-method")?;
    if !cors || request.method != "OPTIONS" {
        return None;
    }
    let mut reply = empty_reply(204);
    let writes = request.path.starts_with("/v1/var/") && matches!(method, "PUT" | "DELETE");
    if writes || matches!(method, "GET" | "HEAD") {
        reply.headers.push(("Access-Control-Allow-Methods", method.to_owned()));
        if let Some(headers) = request.header("access-control-request-headers") {
            reply.headers.push(("Access-Control-Allow-Headers", headers.to_owned()));
        }
    }
    Some(reply)
}

/// Whether the answer may be packed: an Accept-Encoding lists gzip with a weight above 0 (RFC 9110 section 12.5.3).
pub fn accepts_gzip(request: &HttpRequest) -> bool {
    request.header("accept-encoding").unwrap_or_default().split(',').any(|coding| {
        let (name, rest) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = rest.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// One or two seconds, by what was asked and by whom, so that not all come back at once (R8.7). FNV-1a; the token is
/// left out of it.
fn retry_after_seconds(request: &HttpRequest) -> u8 {
    let parts = [&request.path, &request.query].into_iter().map(String::as_bytes);
    let headers = request.headers.iter().filter(|(name, _)| matches!(name.as_str(), "host" | "user-agent"));
    let bytes = parts.chain(headers.map(|(_, value)| value.as_bytes())).flatten();
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    if (hash >> 32) % 2 == 0 { 1 } else { 2 }
}
