//! Streaming calls that are being served: event streams, log monitors, and bridges to a node.

mod bridge;
mod due;
pub(super) mod http;
pub(super) mod subscribers;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::api::outcome::{EventFilter, MonitorOptions, StreamOutcome};
use crate::api::{self, StreamingMethod};
use crate::base::bounded::Queue;
use crate::base::id::{CallId, ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::conn::report::Cause;
use crate::wire::body::query::route_fields;

use super::Server;
use super::events::{self, Next};
use super::http_stream::HttpStream;
use super::links::Busy;
use super::monitor;
use super::port::{Job, LogLine, Output, Work};
use super::restore::{UPLOAD_IDLE, Upload};

use self::bridge::Bridge;

/// Between two heartbeats of an event stream (transport notes, section 6).
const EVENT_HEARTBEAT: Duration = Duration::from_secs(30);
/// Between two heartbeats of a monitor.
const MONITOR_HEARTBEAT: Duration = Duration::from_secs(1);
/// Log lines are gathered this long.
const MONITOR_BATCH: Duration = Duration::from_millis(200);
/// Why a subscription ends that its reader may begin again.
const SUBSCRIPTION_CLOSED: &str = "subscription closed by server, client should resubscribe";
/// Log lines that wait for a slow reader; what is over is counted and told.
const MONITOR_LINES: usize = 512;

/// One streaming call.
pub(super) struct Source {
    conn: ConnId,
    stream: StreamId,
    method: &'static StreamingMethod,
    /// When something of its kind is due.
    due: Option<Instant>,
    /// When it is looked at next.
    timer: Option<Instant>,
    /// Set when its messages are the body of an HTTP reply.
    http: Option<Box<HttpStream>>,
    /// Bytes of messages that the peer has no credit for yet.
    unsent: VecDeque<(Arc<[u8]>, usize)>,
    /// Nothing is added any more: it is closed once the rest was sent.
    ending: bool,
    kind: Kind,
}

impl Source {
    fn new(conn: ConnId, stream: StreamId, method: &'static StreamingMethod, kind: Kind) -> Source {
        let unsent = VecDeque::new();
        Source { conn, stream, method, due: None, timer: None, http: None, unsent, ending: false, kind }
    }
}

enum Kind {
    /// The header was acknowledged.
    AwaitsArgument,
    /// The handler runs on this argument. What comes meanwhile is kept; without credit it is no more than a window.
    /// It may also wait for another server that is to serve it.
    Starting {
        body: Arc<[u8]>,
        base: u64,
        early: Vec<u8>,
        finished: bool,
    },
    Events {
        filter: EventFilter,
        position: u64,
        seen: u64,
        heartbeat_at: Instant,
    },
    Monitor {
        options: MonitorOptions,
        lines: Queue<Arc<LogLine>>,
        dropped: u64,
        send_at: Option<Instant>,
        heartbeat_at: Instant,
    },
    /// An archive comes in, and is restored.
    Restore(Upload),
    /// Toward a node or another server, on another connection.
    Bridge(Box<Bridge>),
}

impl Server {
    pub(super) fn on_streaming(&mut self, now: Instant, conn: ConnId, stream: StreamId, name: &str) {
        match api::streaming_method(name) {
            Ok(method) => {
                self.metrics.count(Id::StreamingRequest);
                let key = self.sources.insert(Source::new(conn, stream, method, Kind::AwaitsArgument));
                self.set_busy(conn, stream, Some(Busy::Source(key)));
                self.with_conn(now, conn, |now, c| c.streaming_ack(now, stream, ""));
            }
            Err(unknown) => {
                self.metrics.count(Id::StreamingRequestError);
                let text = format!("{}: error={:?}", Cause::StreamingRpc.text(), unknown.0);
                self.log_limited(now, Cause::StreamingRpc, Cause::StreamingRpc.level(), text);
                self.with_conn(now, conn, |now, c| c.streaming_ack(now, stream, &unknown.0));
            }
        }
    }

    pub(super) fn on_argument(&mut self, now: Instant, conn: ConnId, stream: StreamId, body: Box<[u8]>, base: u64) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        let Some(source) = self.sources.get_mut(key) else { return };
        let Kind::AwaitsArgument = source.kind else { return };
        source.kind = Kind::Starting { body: body.into(), base, early: Vec::new(), finished: false };
        self.route_stream(now, key);
    }

    /// Has the handler of a streaming call run here.
    pub(super) fn run_streaming(&mut self, key: Key) {
        let Some(Source { conn, method, kind: Kind::Starting { body, base, .. }, .. }) = self.sources.get(key) else {
            return;
        };
        let (conn, work) = (*conn, Work::Streaming { method, body: Arc::clone(body), base: *base });
        let Some(caller) = self.caller_of(conn) else { return };
        self.next_group_job -= 1;
        let id = CallId(self.next_group_job);
        self.stream_jobs.insert(id, key);
        self.fresh_ctx(false);
        let job = Job { id, work, caller, ctx: Arc::new(self.ctx.clone()) };
        self.output(Output::Run(job));
    }

    pub(super) fn on_stream_outcome(&mut self, now: Instant, job: CallId, outcome: StreamOutcome) {
        let Some(key) = self.stream_jobs.remove(&job) else { return };
        let end = self.events.end();
        if let StreamOutcome::Refuse(message) = &outcome {
            self.audit_refused_stream(key, message);
        }
        let Some(source) = self.sources.get_mut(key) else { return };
        let (conn, stream) = (source.conn, source.stream);
        let (early, finished, is_hop) = match &mut source.kind {
            Kind::Starting { body, base, early, finished } => {
                let is_hop = route_fields(body, *base).is_ok_and(|fields| fields.hop);
                (std::mem::take(early), *finished, is_hop)
            }
            _ => (Vec::new(), false, false),
        };
        if !matches!(outcome, StreamOutcome::Restore | StreamOutcome::ToNode(_)) && !early.is_empty() {
            let count = early.len();
            self.with_conn(now, conn, |now, c| c.consumed(now, stream, count));
        }
        let Some(source) = self.sources.get_mut(key) else { return };
        match outcome {
            StreamOutcome::Refuse(message) => {
                source.unsent.push_back((message.into(), 0));
                self.end_after_sending(now, key);
            }
            StreamOutcome::Events(filter) => {
                let (position, gap) = self.events.begin(filter.index);
                let seen = self.events.index_before(position).unwrap_or_default();
                source.unsent.push_back((events::heartbeat_message(), 0));
                if let Some((from, to)) = gap {
                    self.metrics.count(Id::EventsGap);
                    source.unsent.push_back((events::gap_message(from, to), 0));
                }
                debug_assert!(position <= end);
                source.kind = Kind::Events { filter, position, seen, heartbeat_at: now + EVENT_HEARTBEAT };
                self.set_source_timer(key, Some(now + EVENT_HEARTBEAT));
                self.pump(now, key);
            }
            StreamOutcome::Monitor(options) => {
                let heartbeat_at = now + MONITOR_HEARTBEAT;
                let lines = Queue::new(MONITOR_LINES);
                if options.plain && is_hop {
                    // Plain monitors have no signs of life; the server that passes this on learns that it has begun.
                    source.unsent.push_back((monitor::begun(), 0));
                }
                source.kind = Kind::Monitor { options, lines, dropped: 0, send_at: None, heartbeat_at };
                self.set_source_timer(key, Some(heartbeat_at));
                self.update_monitor_level();
                self.begin_reply(now, key);
                self.pump(now, key);
            }
            StreamOutcome::ToNode(to_node) => self.bridge(now, key, &to_node, early),
            StreamOutcome::Send(messages) => {
                self.metrics.count(Id::SnapshotSaved);
                source.unsent.extend(messages.into_iter().map(|message| (message, 0)));
                self.end_after_sending(now, key);
            }
            StreamOutcome::Restore => {
                source.kind = Kind::Restore(Upload::default());
                if let Err((code, text)) = self.restore_begin(key) {
                    return self.restore_ended(now, key, Err((code, text)));
                }
                self.set_source_timer(key, Some(now + UPLOAD_IDLE));
                self.with_conn(now, conn, |now, c| c.http_continue(now));
                self.take_upload(now, key, &early);
                if finished {
                    self.on_stream_finished(now, conn, stream);
                }
            }
        }
    }

    /// The handler of a streaming call did not run, or failed.
    pub(super) fn fail_stream_job(&mut self, now: Instant, job: CallId, text: &str) {
        if let Some(key) = self.stream_jobs.remove(&job) {
            self.refuse_stream(now, key, &format!("RPC Error:: 500,{text}"));
        }
    }

    // Uploads.

    /// Takes bytes of an upload; as many may come again.
    fn take_upload(&mut self, now: Instant, key: Key, bytes: &[u8]) {
        let Some(source) = self.sources.get(key) else { return };
        let framed = source.http.is_none();
        self.with_upload(key, |server, upload| match framed {
            true => server.on_upload(now, key, upload, bytes),
            false => server.on_archive(now, key, upload, bytes),
        });
        let Some(source) = self.sources.get(key) else { return };
        let (conn, stream) = (source.conn, source.stream);
        let idle = !source.ending && !self.restore_is_running(key);
        self.set_source_timer(key, idle.then(|| now + UPLOAD_IDLE));
        self.with_conn(now, conn, |now, c| c.consumed(now, stream, bytes.len()));
    }

    /// Does something with the upload of a source. The source may be gone afterwards.
    fn with_upload(&mut self, key: Key, act: impl FnOnce(&mut Server, &mut Upload)) {
        let Some(Source { kind: Kind::Restore(upload), .. }) = self.sources.get_mut(key) else { return };
        let mut taken = std::mem::take(upload);
        act(self, &mut taken);
        if let Some(Source { kind: Kind::Restore(upload), .. }) = self.sources.get_mut(key) {
            *upload = taken;
        }
    }

    /// Sends a stream's last message.
    pub(super) fn send_last(&mut self, now: Instant, key: Key, message: Arc<[u8]>) {
        if let Some(source) = self.sources.get_mut(key) {
            source.unsent.push_back((message, 0));
        }
        self.end_after_sending(now, key);
    }

    /// Ends a stream with an error, in the wrapper of its method.
    pub(super) fn refuse_stream(&mut self, now: Instant, key: Key, text: &str) {
        let Some(source) = self.sources.get(key) else { return };
        let message = api::stream_error(source.method.name, text);
        self.send_last(now, key, message.into());
    }

    pub(super) fn on_stream_bytes(&mut self, now: Instant, conn: ConnId, stream: StreamId, bytes: Vec<u8>) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        let Some(source) = self.sources.get_mut(key) else { return };
        let from_node = (source.conn, source.stream) != (conn, stream);
        match &mut source.kind {
            Kind::Bridge(_) => self.on_bridge_bytes(now, key, from_node, bytes),
            Kind::Starting { early, .. } => early.extend(bytes),
            Kind::Restore(_) => self.take_upload(now, key, &bytes),
            // Nothing is expected from the caller of the other kinds; what comes is dropped.
            _ => {
                let count = bytes.len();
                self.with_conn(now, conn, |now, c| c.consumed(now, stream, count));
            }
        }
    }

    /// Sends as much of a queue as a stream takes; says how many bytes.
    fn send_queue(&mut self, now: Instant, to: (ConnId, StreamId), queue: &mut VecDeque<(Arc<[u8]>, usize)>) -> usize {
        let mut total = 0;
        while let Some((bytes, sent)) = queue.front_mut() {
            let rest = bytes.get(*sent..).unwrap_or(&[]);
            let taken = self.with_conn(now, to.0, |now, c| c.send_bytes(now, to.1, rest)).unwrap_or(0);
            total += taken;
            *sent += taken;
            if *sent < bytes.len() {
                break;
            }
            queue.pop_front();
        }
        total
    }

    // Sending to the caller.

    /// Sends what a source has, as far as its peer has credit.
    fn pump(&mut self, now: Instant, key: Key) {
        loop {
            let Some(source) = self.sources.get_mut(key) else { return };
            let to = (source.conn, source.stream);
            let mut unsent = std::mem::take(&mut source.unsent);
            let mut http = source.http.take();
            let (sent, over) = match &mut http {
                Some(http) => self.send_unwrapped(now, to.0, http, &mut unsent),
                None => (self.send_queue(now, to, &mut unsent), false),
            };
            let Some(source) = self.sources.get_mut(key) else { return };
            let blocked = !unsent.is_empty() || http.as_ref().is_some_and(|http| !http.out.is_empty());
            (source.unsent, source.http) = (unsent, http);
            if over {
                return self.drop_source(now, key);
            }
            self.set_timer(key);
            let Some(source) = self.sources.get_mut(key) else { return };
            if source.ending {
                if !blocked {
                    self.close_source(now, key);
                }
                return;
            }
            match &mut source.kind {
                Kind::Bridge(bridge) => {
                    let (conn, stream) = bridge.to;
                    if sent > 0 {
                        self.with_conn(now, conn, |now, c| c.consumed(now, stream, sent));
                    }
                    return;
                }
                Kind::Events { filter, position, seen, .. } if !blocked => {
                    let message = match self.events.next(*position, *seen, filter) {
                        Next::Nothing => return,
                        Next::Skipped(to) => {
                            *position = to;
                            continue;
                        }
                        Next::Message(message, to) => {
                            *position = to;
                            *seen = self.events.index_before(to).unwrap_or(*seen);
                            message
                        }
                        Next::Gap { from, to, position: first } => {
                            (*position, *seen) = (first, to);
                            self.metrics.count(Id::EventsGap);
                            events::gap_message(from, to)
                        }
                    };
                    source.unsent.push_back((message, 0));
                }
                _ => return,
            }
        }
    }

    pub(super) fn on_stream_writable(&mut self, now: Instant, conn: ConnId, stream: StreamId) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        let Some(source) = self.sources.get(key) else { return };
        if (source.conn, source.stream) == (conn, stream) {
            self.pump(now, key);
        } else {
            self.pump_to_node(now, key);
        }
    }

    // The end.

    /// Half-closes once the rest was sent, as far as the peer reads it.
    fn end_after_sending(&mut self, now: Instant, key: Key) {
        self.set_source_timer(key, None);
        if let Some(source) = self.sources.get_mut(key) {
            source.ending = true;
        }
        self.pump(now, key);
    }

    fn close_source(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.remove(key) else { return };
        if let Some(at) = source.timer {
            self.source_timers.cancel(at, key);
        }
        let (conn, stream) = (source.conn, source.stream);
        self.set_busy(conn, stream, None);
        self.answer_ended(now, &source);
        self.with_conn(now, conn, |now, c| c.finish(now, stream));
        self.update_monitor_level();
    }

    pub(super) fn on_stream_finished(&mut self, now: Instant, conn: ConnId, stream: StreamId) {
        let Some(Busy::Source(key)) = self.busy(conn, stream) else { return };
        let Some(source) = self.sources.get_mut(key) else { return };
        match &mut source.kind {
            // One message is asked for: whoever closes its half waits for it.
            Kind::Starting { finished, .. } if is_of_snapshots(source.method) => {
                *finished = true;
                return;
            }
            Kind::Restore(_) => {
                let framed = source.http.is_none();
                return self.with_upload(key, |server, upload| match framed {
                    true => server.on_upload_finished(now, key, upload),
                    false => server.on_archive_finished(key, upload),
                });
            }
            Kind::Bridge(bridge) if is_of_snapshots(source.method) && bridge.to != (conn, stream) => {
                return self.on_bridged_upload(now, key);
            }
            _ => {}
        }
        let other = match &source.kind {
            Kind::Bridge(bridge) => Some(bridge.to),
            _ => None,
        };
        // A caller stops a stream by closing its half; a node ends one by closing its own.
        if let Some((to_conn, to_stream)) = other {
            self.set_busy(to_conn, to_stream, None);
            self.with_conn(now, to_conn, |now, c| c.finish(now, to_stream));
        }
        self.end_after_sending(now, key);
    }

    /// One of a source's streams was reset, or its connection has ended.
    pub(super) fn on_source_gone(&mut self, now: Instant, key: Key, conn: ConnId, stream: StreamId) {
        if self.far_end_is_lost(now, key, (conn, stream)) {
            return;
        }
        self.remove_source(now, key, Some((conn, stream)));
    }

    /// The reply of a source is over, before its messages are.
    fn drop_source(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.get(key) else { return };
        let end = (source.conn, source.stream);
        self.set_busy(end.0, end.1, None);
        self.remove_source(now, key, Some(end));
    }

    /// Takes a source out, and ends its streams but for the one that has ended.
    fn remove_source(&mut self, now: Instant, key: Key, ended: Option<(ConnId, StreamId)>) {
        let Some(source) = self.sources.remove(key) else { return };
        if let Some(at) = source.timer {
            self.source_timers.cancel(at, key);
        }
        if matches!(source.kind, Kind::Restore(_)) {
            self.restore_abandoned(key);
        }
        let mut ends = vec![(source.conn, source.stream)];
        if let Kind::Bridge(bridge) = source.kind {
            ends.push(bridge.to);
        }
        for (other_conn, other_stream) in ends {
            if Some((other_conn, other_stream)) != ended {
                self.set_busy(other_conn, other_stream, None);
                self.with_conn(now, other_conn, |now, c| c.reset(now, other_stream));
            }
        }
        self.update_monitor_level();
    }

    /// The server is about to end: every stream is closed in an orderly way.
    pub(super) fn end_sources(&mut self, now: Instant) {
        for key in self.sources.keys() {
            // What is about to be changed is told to whoever asked.
            if self.restore_is_running(key) {
                continue;
            }
            self.restore_abandoned(key);
            if let Some(Source { kind: Kind::Bridge(bridge), .. }) = self.sources.get(key) {
                let (conn, stream) = bridge.to;
                self.set_busy(conn, stream, None);
                self.with_conn(now, conn, |now, c| c.finish(now, stream));
            }
            self.end_after_sending(now, key);
        }
    }

    /// Whose stream it is, how it came, and what it asked for, while its handler runs.
    pub(super) fn starting_stream(&self, key: Key) -> Option<(ConnId, &'static str, &'static str, Arc<[u8]>)> {
        let source = self.sources.get(key)?;
        let via = if source.http.is_some() { "http" } else { "rpc" };
        match &source.kind {
            Kind::Starting { body, .. } => Some((source.conn, via, source.method.name, Arc::clone(body))),
            _ => None,
        }
    }
}

/// Whether a stream answers once, rather than for as long as its caller listens.
fn is_of_snapshots(method: &StreamingMethod) -> bool {
    matches!(method.name, "Operator.SnapshotSave" | "Operator.SnapshotRestore")
}
