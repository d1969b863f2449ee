//! HTTP requests: each goes the way it was planned, and is answered. What a request means and how an answer looks, is
//! said by [`crate::api::http`]; this room packs, dates and counts.
//!
//! Source: http notes, sections 1 and 8.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use log::Level;

use crate::api::http::{self as paths, HttpFacts, Marks, Plan, View};
use crate::api::outcome::ReplyResult;
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::{Id, Metrics};
use crate::base::time::{Instant, WallTime};
use crate::conn::Protocol;
use crate::forward::patch::{Patch, patched};
use crate::wire::gzip::Packer;
use crate::wire::http::{HttpReply, HttpRequest};

use super::Server;
use super::calls::Origin;
use super::http_stream::Form;
use super::links::Busy;
use super::port::{Job, Output, Work};
use super::run::panic_text;
use super::sources::http::HttpCall;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Replies of calls up to this are turned into answers on the loop; larger ones, of which the text is made and packed
/// at some 100 MB/s, on the pool. Bytes of msgpack.
const SHOWN_HERE_MAX_BYTES: usize = 64 * 1024;

/// Answers up to this are kept for others that wait for the same, bytes.
const SHARED_MAX_BYTES: usize = 64 * 1024;

/// Classes of statuses, as answers are counted.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// What is kept for HTTP.
pub(super) struct HttpDesk {
    facts: HttpFacts,
    packer: Packer,
    /// The second that `date` tells.
    date_second: i64,
    date: String,
    /// Answers that are being made on the pool.
    showing: BTreeMap<CallId, Showing>,
    /// The last answer that many waited for.
    shared: Option<Shared>,
}

struct Showing {
    conn: ConnId,
    view: View,
    result: ReplyResult,
}

struct Shared {
    body: Arc<[u8]>,
    view: View,
    reply: HttpReply,
}

impl HttpDesk {
    pub(super) fn new(region: &str) -> HttpDesk {
        HttpDesk {
            facts: HttpFacts { region: region.into() },
            packer: Packer::default(),
            date_second: i64::MIN,
            date: String::new(),
            showing: BTreeMap::new(),
            shared: None,
        }
    }

    fn date(&mut self, wall: WallTime) -> String {
        if self.date_second != wall.unix_seconds() {
            self.date_second = wall.unix_seconds();
            self.date = wall.http_date();
        }
        self.date.clone()
    }
}

impl Server {
    pub(super) fn on_http(&mut self, now: Instant, conn: ConnId, request: HttpRequest) {
        self.metrics.count(Id::HttpRequest);
        let facts = self.http.facts.clone();
        let Some(plan) = self.guarded(now, conn, || paths::plan(&request, &facts)) else { return };
        match plan {
            Plan::Reply(reply) => self.http_send(now, conn, reply, paths::accepts_gzip(&request)),
            Plan::Metrics { prometheus, pretty } => {
                let reply = self.http_metrics(prometheus, pretty);
                self.http_send(now, conn, reply, paths::accepts_gzip(&request));
            }
            Plan::Call { method, body, marks, view } => {
                let Some(caller) = self.caller_of(conn) else { return };
                let Some(body) = marked(body, asks_consistent(&request), &marks) else {
                    return self.http_send(now, conn, text_reply(500, "internal error"), false);
                };
                let id = self.begin(now, Origin::Http { conn, view }, method, body.into(), 0, caller);
                self.set_busy(conn, StreamId(0), Some(Busy::Call(id)));
                self.route_call(now, id);
            }
            Plan::Stream { method, argument, body } => {
                let form = Form::Body(body);
                self.begin_http_stream(now, conn, HttpCall { method, argument, form, upload: (Vec::new(), false) });
            }
            Plan::Upload { method, argument } => {
                let upload = (request.body, !request.upload);
                self.begin_http_stream(now, conn, HttpCall { method, argument, form: Form::Restored, upload });
            }
        }
    }

    /// Answers a request with what its call has answered; `shared` when others wait for the same.
    pub(super) fn http_answer(&mut self, now: Instant, conn: ConnId, view: View, result: &ReplyResult, shared: bool) {
        if let ReplyResult::Body(body) = result {
            if body.len() > SHOWN_HERE_MAX_BYTES {
                return self.show_on_pool(conn, view, result.clone());
            }
            let same = |shared: &&Shared| Arc::ptr_eq(&shared.body, body) && shared.view == view;
            if let Some(reply) = self.http.shared.as_ref().filter(same).map(|shared| shared.reply.clone()) {
                return self.http_send_packed(now, conn, reply);
            }
        }
        let Some(reply) = self.guarded(now, conn, || paths::render(&view, result)) else { return };
        let reply = pack(&mut self.http.packer, reply, view.gzip);
        if let ReplyResult::Body(body) = result
            && shared
            && reply.body.len() <= SHARED_MAX_BYTES
        {
            self.http.shared = Some(Shared { body: Arc::clone(body), view, reply: reply.clone() });
        }
        self.http_send_packed(now, conn, reply);
    }

    fn show_on_pool(&mut self, conn: ConnId, view: View, result: ReplyResult) {
        let Some(caller) = self.caller_of(conn) else { return };
        self.next_group_job -= 1;
        let id = CallId(self.next_group_job);
        self.http.showing.insert(id, Showing { conn, view, result: result.clone() });
        let work = Work::Show { view, result };
        self.output(Output::Run(Job { id, work, caller, ctx: Arc::new(self.ctx.clone()) }));
    }

    /// An answer was made on the pool.
    pub(super) fn on_shown(&mut self, now: Instant, job: CallId, reply: HttpReply) {
        if let Some(showing) = self.http.showing.remove(&job) {
            self.http_send_packed(now, showing.conn, reply);
        }
    }

    /// Whether a job of the pool makes an answer.
    pub(super) fn is_show_job(&self, job: CallId) -> bool {
        self.http.showing.contains_key(&job)
    }

    /// The pool had no room for it: what the call has done is done, so the answer is made here.
    pub(super) fn show_here(&mut self, now: Instant, job: CallId) {
        let Some(Showing { conn, view, result }) = self.http.showing.remove(&job) else { return };
        let Some(reply) = self.guarded(now, conn, || paths::render(&view, &result)) else { return };
        self.http_send(now, conn, reply, view.gzip);
    }

    /// It could not be made.
    pub(super) fn fail_show_job(&mut self, now: Instant, job: CallId, text: &str) {
        if let Some(showing) = self.http.showing.remove(&job) {
            self.http_send(now, showing.conn, text_reply(500, text), false);
        }
    }

    /// Runs what looks into requests and replies: a fault in it ends with an error for that request, and nothing else.
    fn guarded<T>(&mut self, now: Instant, conn: ConnId, run: impl FnOnce() -> T) -> Option<T> {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(value) => Some(value),
            Err(payload) => {
                self.metrics.count(Id::HandlerPanic);
                let text = panic_text(payload.as_ref());
                self.log(Level::Error, format!("an HTTP request failed, please report this: {text}"));
                self.http_send(now, conn, text_reply(500, "internal error"), false);
                None
            }
        }
    }

    /// No HTTP connection takes a request after the one in hand.
    pub(super) fn drain_http(&mut self, now: Instant) {
        for id in self.link_ids() {
            self.with_conn(now, id, |now, c| {
                if c.protocol() == Protocol::Http {
                    c.drain(now);
                }
            });
        }
    }

    /// Answers a request.
    pub(super) fn http_send(&mut self, now: Instant, conn: ConnId, reply: HttpReply, gzip: bool) {
        let reply = pack(&mut self.http.packer, reply, gzip);
        self.http_send_packed(now, conn, reply);
    }

    fn http_send_packed(&mut self, now: Instant, conn: ConnId, mut reply: HttpReply) {
        self.count_answer(reply.status);
        reply.headers.push(("Date", self.http.date(self.wall)));
        self.with_conn(now, conn, |now, c| c.http_reply(now, reply));
    }

    /// Begins an answer in pieces.
    pub(super) fn http_begin(&mut self, now: Instant, conn: ConnId, mut headers: Vec<(&'static str, String)>) {
        self.count_answer(200);
        headers.push(("Date", self.http.date(self.wall)));
        self.with_conn(now, conn, |now, c| c.http_begin(now, 200, &headers));
    }

    fn count_answer(&mut self, status: u16) {
        let [success, redirection, client_fault, server_fault] = CLASSES;
        let class = match status {
            200..=299 => success,
            300..=399 => redirection,
            400..=499 => client_fault,
            _ => server_fault,
        };
        self.metrics.count_labelled(Id::HttpAnswer, class);
    }

    fn http_metrics(&mut self, prometheus: bool, pretty: bool) -> HttpReply {
        self.refresh_gauges();
        if prometheus {
            if !self.settings.prometheus {
                return text_reply(415, "Prometheus is not enabled");
            }
            let headers = vec![("Content-Type", "text/plain; version=0.0.4; charset=utf-8".to_owned())];
            return HttpReply { status: 200, headers, body: self.metrics.prometheus().into_bytes() };
        }
        let value = self.metrics.json(&go_time_text(self.wall));
        let body = if pretty { pretty_json(&value) } else { value.to_string() };
        HttpReply { status: 200, headers: vec![("Content-Type", JSON.to_owned())], body: body.into_bytes() }
    }
}

/// Metrics of a server that has answered nothing: all classes of answers are there from the start.
pub(super) fn metrics() -> Metrics {
    let mut metrics = Metrics::default();
    CLASSES.iter().for_each(|class| metrics.declare(Id::HttpAnswer, class));
    metrics
}

/// Whether a request is to be answered with what is true now, on whichever server (`?consistent`).
fn asks_consistent(request: &HttpRequest) -> bool {
    let mut parameters = request.query.split('&');
    parameters.any(|pair| matches!(pair, "consistent" | "consistent=" | "consistent=true" | "consistent=1"))
}

/// The same call, to be answered with what is true now, or with its place in a session. `None` for a body that cannot
/// take them: a write must not go without its place.
fn marked(body: Vec<u8>, consistent: bool, marks: &Marks) -> Option<Vec<u8>> {
    if !consistent && *marks == Marks::default() {
        return Some(body);
    }
    let patch = Patch { consistent, stamp: marks.stamp.as_ref(), seen: marks.seen, ..Patch::default() };
    patched(&body, &patch)
}

/// The answer to a call, packed where that is wanted: what a job of the pool does.
pub(super) fn show(view: &View, result: &ReplyResult) -> HttpReply {
    pack(&mut Packer::default(), paths::render(view, result), view.gzip)
}

/// Packs a body for whoever takes it so.
fn pack(packer: &mut Packer, mut reply: HttpReply, gzip: bool) -> HttpReply {
    if gzip && !reply.body.is_empty() {
        reply.body = packer.pack(&reply.body);
        reply.headers.push(("Content-Encoding", "gzip".to_owned()));
    }
    reply
}

fn text_reply(status: u16, text: &str) -> HttpReply {
    HttpReply { status, headers: vec![("Content-Type", TEXT.to_owned())], body: text.as_bytes().to_vec() }
}

/// A calendar time as Go's `time.Time.String` prints it, in whole seconds.
fn go_time_text(wall: WallTime) -> String {
    let text = WallTime::from_unix_nanos(wall.unix_seconds() * 1_000_000_000).rfc3339();
    text.replace('T', " ").replace('Z', " +0000 UTC")
}

/// Four spaces and a final newline, as Go's encoder indents.
fn pretty_json(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        return value.to_string();
    }
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

/// A whole reply for a connection whose request is not read.
pub(super) fn bare_reply(status: u16, text: &str) -> Vec<u8> {
    let reason = if status == 429 { "Too Many Requests" } else { "Error" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_look_like_gos() {
        assert_eq!(go_time_text(WallTime::from_unix_nanos(1_795_261_910_500_000_000)), "2026-11-21 11:51:50 +0000 UTC");
    }

    #[test]
    fn the_date_is_made_once_a_second() {
        let mut desk = HttpDesk::new("global");
        let at = |nanos: i64| WallTime::from_unix_nanos(1_795_261_910_000_000_000 + nanos);
        assert_eq!(desk.date(at(0)), "Sat, 21 Nov 2026 11:51:50 GMT");
        assert_eq!(desk.date(at(999_999_999)), "Sat, 21 Nov 2026 11:51:50 GMT");
        assert_eq!(desk.date(at(1_000_000_000)), "Sat, 21 Nov 2026 11:51:51 GMT");
        assert_eq!(desk.date(at(-1)), "Sat, 21 Nov 2026 11:51:49 GMT");
    }

    #[test]
    fn a_body_is_packed_for_whoever_takes_it_so_and_an_empty_one_never() {
        let mut packer = Packer::default();
        let packed = pack(&mut packer, text_reply(404, "no"), true);
        assert!(
            packed.body.starts_with(&[0x1f, 0x8b])
                && packed.headers.iter().any(|(name, _)| *name == "Content-Encoding")
        );
        for (reply, gzip) in [(text_reply(404, "no"), false), (HttpReply { status: 204, ..HttpReply::default() }, true)]
        {
            assert_eq!(pack(&mut packer, reply.clone(), gzip), reply);
        }
    }
}
