//! Every metric once: its name in Nomad's dotted form and in Prometheus' form, what it counts, and its values.
//!
//! Values are plain numbers owned by the loop thread; nothing here is shared between threads.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Dotted, as in JSON and in the log dump.
    pub name: &'static str,
    /// As Prometheus' linter wants it: base units, `_total`.
    pub prometheus: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The name of its label, where it has one.
    pub label: Option<&'static str>,
    /// When it moves, and its unit.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident: $kind:ident $name:literal $prometheus:literal $label:expr, $help:literal;)*) => {
        /// A metric's identity.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Id { $($id),* }

        /// Every metric, in the order of [`Id`].
        pub static ALL: &[(Id, Metric)] = &[$((Id::$id, Metric {
            name: $name,
            prometheus: $prometheus,
            kind: Kind::$kind,
            label: $label,
            help: $help,
        })),*];
    };
}

metrics! {
    RpcAcceptConn: Counter "holdfast.rpc.accept_conn" "holdfast_rpc_connections_accepted_total" None,
        "Connections admitted on the RPC port; of those from a balancer, once it has named the client.";
    RpcRejectConn: Counter "holdfast.rpc.reject_conn" "holdfast_rpc_connections_rejected_total" None,
        "Connections refused on the RPC port because their address, or the name in their certificate at that address, \
         has as many as limits.rpc_max_conns_per_client lets it have; or because too many of a balancer's \
         have named no client.";
    RpcRaftHandoff: Counter "holdfast.rpc.raft_handoff" "holdfast_rpc_raft_handoffs_total" None,
        "Connections that spoke raft's first byte.";
    RpcRequest: Counter "holdfast.rpc.request" "holdfast_rpc_requests_total" None,
        "Calls served, whatever their result.";
    RpcRequestError: Counter "holdfast.rpc.request_error" "holdfast_rpc_request_errors_total" None,
        "Calls that could not be read or named no method; their stream was closed.";
    RpcQuery: Counter "holdfast.rpc.query" "holdfast_rpc_queries_total" None,
        "Runs of reads, each run of a blocking query too.";
    RpcQueryShared: Counter "holdfast.rpc.query_shared" "holdfast_rpc_queries_shared_total" None,
        "Answers given to parked queries from a run that another one paid for.";
    RpcCrossRegion: Counter "holdfast.rpc.cross-region" "holdfast_rpc_cross_region_requests_total" Some("region"),
        "Calls passed on to another region.";
    Forwarded: Counter "holdfast.forward.calls" "holdfast_forwarded_calls_total" Some("outcome"),
        "Calls passed on to another server, by how that ended: ok, error, unsent, lost, timeout.";
    ForwardRetry: Counter "holdfast.forward.retry" "holdfast_forwarded_calls_retried_total" None,
        "Calls passed on once more, or served here after all, since the first try surely changed nothing.";
    OutcomeUnknown: Counter "holdfast.forward.outcome_unknown" "holdfast_forwarded_writes_unknown_total" None,
        "Writes passed on to a leader that was lost before it answered: they may or may not have happened.";
    Stamped: Counter "holdfast.session.stamped" "holdfast_session_stamped_total" None,
        "Writes without a place in a session that this server gave one in its own.";
    SessionRepeats: Counter "holdfast.session.repeats" "holdfast_session_repeats_total" None,
        "Writes that were applied before and were answered again from their session.";
    Sessions: Gauge "holdfast.session.open" "holdfast_sessions" None,
        "Sessions, of clients and of servers.";
    SessionAnswerBytes: Gauge "holdfast.session.answer_bytes" "holdfast_session_answer_bytes" None,
        "Size of the answers that are kept for sessions until they are acknowledged.";
    SessionsExpired: Counter "holdfast.session.expired" "holdfast_sessions_expired_total" None,
        "Sessions whose time was over, counted by the leader that ended them.";
    Holds: Counter "holdfast.forward.holds" "holdfast_holds_total" None,
        "Times that a request was made to wait for a leader.";
    PoolOpen: Gauge "holdfast.pool.open" "holdfast_pool_connections" None,
        "Connections to other servers that calls are passed on over.";
    PoolIdle: Gauge "holdfast.pool.idle" "holdfast_pool_connections_idle" None,
        "Those of them that no call uses.";
    PoolWaiting: Gauge "holdfast.pool.waiting" "holdfast_pool_waiting_calls" None,
        "Calls and streams that wait for such a connection.";
    PoolDial: Counter "holdfast.pool.dial" "holdfast_pool_dials_total" None,
        "Dials of other servers for calls.";
    PoolCheck: Counter "holdfast.pool.check" "holdfast_pool_checks_total" None,
        "Looks at a kept connection to another server before something was sent over it.";
    PoolCheckDead: Counter "holdfast.pool.check_dead" "holdfast_pool_checks_failed_total" None,
        "Those that found it dead, so that another one was used.";
    PoolRetry: Counter "holdfast.pool.retry" "holdfast_pool_retries_total" None,
        "Calls tried again because the connection they had was lost, where that surely did no harm.";
    PoolFresh: Counter "holdfast.pool.fresh" "holdfast_pool_fresh_total" None,
        "Calls that were lost twice and went over a connection dialled after that.";
    PoolDiscard: Counter "holdfast.pool.discard" "holdfast_pool_discards_total" Some("reason"),
        "Connections to other servers that were not used any more, by the reason.";
    StreamingRequest: Counter "holdfast.streaming_rpc.request" "holdfast_streaming_rpc_requests_total" None,
        "Streaming calls whose handler ran.";
    StreamingRequestError: Counter "holdfast.streaming_rpc.request_error"
        "holdfast_streaming_rpc_request_errors_total" None,
        "Streaming calls that could not be read or named no method.";
    HttpAcceptConn: Counter "holdfast.http.accept_conn" "holdfast_http_connections_accepted_total" None,
        "Connections admitted on the HTTP port; of those from a balancer, once it has named the client.";
    HttpRejectConn: Counter "holdfast.http.reject_conn" "holdfast_http_connections_rejected_total" None,
        "Connections refused on the HTTP port because their address, or the name in their certificate at that address, \
         has as many as limits.http_max_conns_per_client lets it have; or because too many of a balancer's \
         have named no client.";
    ProxyReject: Counter "holdfast.proxy.reject" "holdfast_proxy_headers_rejected_total" None,
        "Connections from a source in listen.proxy_protocol_from, to either port, that were closed because their \
         PROXY header was missing, wrong or late.";
    HttpRequest: Counter "holdfast.http.request" "holdfast_http_requests_total" None,
        "HTTP requests that could be read.";
    HttpAnswer: Counter "holdfast.http.answer" "holdfast_http_answers_total" Some("class"),
        "Answers to HTTP requests by class of status: 2xx, 3xx, 4xx, 5xx.";
    HeartbeatInvalidate: Counter "holdfast.heartbeat.invalidate" "holdfast_heartbeats_missed_total" None,
        "Nodes marked down because no heartbeat came in time.";
    LockGraces: Counter "holdfast.locks.graces" "holdfast_lock_graces_total" None,
        "Times that this server began to lead and gave all held locks their grace.";
    LocksExpired: Counter "holdfast.locks.expired" "holdfast_locks_expired_total" None,
        "Locks that this server ended because they were not renewed in time.";
    Refused: Counter "holdfast.rpc.refused" "holdfast_rpc_refusals_total" Some("reason"),
        "Calls and streams that their caller was not allowed.";
    LogSuppressed: Counter "holdfast.log.suppressed" "holdfast_log_lines_suppressed_total" None,
        "Log lines left out by the rate limit of their cause.";
    LogLost: Gauge "holdfast.log.lost" "holdfast_log_lines_lost" None,
        "Log lines dropped because standard error was not read.";
    AuditLines: Counter "holdfast.audit.lines" "holdfast_audit_lines_total" None,
        "Lines given to the audit log.";
    AuditLost: Gauge "holdfast.audit.lost" "holdfast_audit_lines_lost" None,
        "Lines of the audit log that could not be written, or for which there was no room.";
    HandlerPanic: Counter "holdfast.handler.panic" "holdfast_handler_panics_total" None,
        "Handlers that failed by a fault of ours; the caller got an error.";
    HandlerOverload: Counter "holdfast.handler.overload" "holdfast_handler_overloads_total" None,
        "Calls refused because the queue of the handler pool was full.";
    EventsDropped: Counter "holdfast.events.dropped" "holdfast_events_dropped_total" None,
        "Events that left the buffer to make room.";
    EventsGap: Counter "holdfast.events.gap" "holdfast_events_gaps_total" None,
        "Gaps announced to subscribers that were too slow or asked for events no longer held.";
    SnapshotSaved: Counter "holdfast.snapshot.saved" "holdfast_snapshots_saved_total" None,
        "Snapshots given to operators.";
    SnapshotRestored: Counter "holdfast.snapshot.restored" "holdfast_snapshots_restored_total" None,
        "Snapshots that took the place of the state, by this server as the leader.";
    BackupTaken: Counter "holdfast.backup.taken" "holdfast_backups_taken_total" None,
        "Backups taken, read back from disk and found good.";
    BackupFailed: Counter "holdfast.backup.failed" "holdfast_backup_failures_total" None,
        "Times that a backup could not be taken, or the folder of backups could not be looked through.";
    BackupAge: Gauge "holdfast.backup.age" "holdfast_backup_age_seconds" None,
        "Seconds by the calendar since the newest good backup was taken; 0 without one, and on any but the leader.";
    BackupSize: Gauge "holdfast.backup.size" "holdfast_backup_size_bytes" None,
        "Size of that backup, bytes; 0 without one, and on any but the leader.";
    BackupKept: Gauge "holdfast.backup.kept" "holdfast_backups" None,
        "Good backups in the folder, as they were last read back; 0 on any but the leader.";
    BackupDamaged: Gauge "holdfast.backup.damaged" "holdfast_backups_damaged" None,
        "Damaged backups in the folder, as they were last read back; 0 on any but the leader.";
    Connections: Gauge "holdfast.connections" "holdfast_connections" Some("protocol"),
        "Open connections by what they speak.";
    Streams: Gauge "holdfast.streams" "holdfast_streams" None,
        "Open streams of multiplexed connections.";
    Calls: Gauge "holdfast.calls" "holdfast_calls_in_flight" None,
        "Calls in hand, parked and held ones included.";
    Parked: Gauge "holdfast.parked" "holdfast_parked_queries" None,
        "Blocking queries that wait for a change.";
    ParkedGroups: Gauge "holdfast.parked.groups" "holdfast_parked_query_groups" None,
        "Different blocking queries among them.";
    Held: Gauge "holdfast.held" "holdfast_held_requests" None,
        "Requests that wait for a leader.";
    ForwardedInFlight: Gauge "holdfast.forwarded" "holdfast_forwarded_in_flight" None,
        "Calls passed on to a node or another server and not answered yet.";
    Subscribers: Gauge "holdfast.events.subscribers" "holdfast_event_subscribers" None,
        "Open event streams.";
    EventsBuffered: Gauge "holdfast.events.buffered" "holdfast_events_buffered" None,
        "Events held for subscribers.";
    EventsBufferedBytes: Gauge "holdfast.events.buffered_bytes" "holdfast_events_buffered_bytes" None,
        "Bytes of events held for subscribers.";
    Locks: Gauge "holdfast.locks" "holdfast_locks_held" None,
        "Locks that are held, their delay included.";
    LockWaiters: Gauge "holdfast.locks.waiters" "holdfast_lock_waiters" None,
        "Calls that wait at this server for their turn at a lock.";
    Variables: Gauge "holdfast.variables" "holdfast_variables" None,
        "Variables.";
    HandlerQueue: Gauge "holdfast.handler.queue" "holdfast_handler_queue_jobs" None,
        "Jobs that wait for a handler thread.";
    HeartbeatActive: Gauge "holdfast.heartbeat.active" "holdfast_heartbeat_timers" None,
        "Nodes whose heartbeat is awaited by this leader.";
    Nodes: Gauge "holdfast.nodes" "holdfast_nodes" None,
        "Registered nodes.";
    NodeConns: Gauge "holdfast.node_conns" "holdfast_node_connections" None,
        "Connections that lead to a node.";
    RaftApplied: Gauge "holdfast.raft.applied_index" "holdfast_raft_applied_index" None,
        "Index of the last entry applied.";
    RaftTerm: Gauge "holdfast.raft.term" "holdfast_raft_term" None,
        "The term.";
    RaftDiverged: Gauge "holdfast.raft.diverged" "holdfast_raft_diverged" None,
        "1 once this server's state was found to differ from that of the others.";
    Leader: Gauge "holdfast.raft.leader" "holdfast_raft_is_leader" None,
        "1 while this server leads and serves consistent reads.";
    CertificateExpiry: Gauge "holdfast.tls.certificate_expiry" "holdfast_tls_certificate_expiry_timestamp_seconds"
        Some("file"),
        "When a certificate or CA ends, seconds since the Unix epoch.";
    Resident: Gauge "holdfast.process.resident" "holdfast_process_resident_memory_bytes" None,
        "Memory of the process, bytes.";
    Descriptors: Gauge "holdfast.process.descriptors" "holdfast_process_open_fds" None,
        "Open file descriptors.";
    CallTime: Histogram "holdfast.rpc.call_time" "holdfast_rpc_call_duration_seconds" Some("class"),
        "From a request's arrival to its answer, by class of method; time parked is not counted. Seconds.";
}

impl Id {
    /// What the metric is.
    pub fn metric(self) -> &'static Metric {
        &ALL[self as usize].1
    }
}

/// Upper bounds of the histogram's buckets, seconds.
pub const BUCKETS_SECONDS: [f64; 16] =
    [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// A distribution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// Observations up to each bound, not cumulative; the last is above all bounds.
    pub buckets: [u64; BUCKETS_SECONDS.len() + 1],
    /// How many.
    pub count: u64,
    /// Of all, seconds.
    pub sum: f64,
    /// Of the squares.
    pub sum_of_squares: f64,
    /// The least, seconds.
    pub min: f64,
    /// The most, seconds.
    pub max: f64,
}

impl Histogram {
    fn observe(&mut self, seconds: f64) {
        let at = BUCKETS_SECONDS.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS_SECONDS.len());
        self.buckets[at] += 1;
        self.min = if self.count == 0 { seconds } else { self.min.min(seconds) };
        self.max = self.max.max(seconds);
        self.count += 1;
        self.sum += seconds;
        self.sum_of_squares += seconds * seconds;
    }
}

/// The values of all metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    plain: Vec<f64>,
    counters: Vec<u64>,
    labelled: BTreeMap<(Id, String), f64>,
    histograms: BTreeMap<(Id, &'static str), Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            plain: vec![0.0; ALL.len()],
            counters: vec![0; ALL.len()],
            labelled: BTreeMap::new(),
            histograms: BTreeMap::new(),
        }
    }
}

/// One value for display.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// A counter.
    Count(u64),
    /// A gauge.
    Number(f64),
    /// A histogram.
    Distribution(&'a Histogram),
}

impl Metrics {
    /// Counts one more.
    pub fn count(&mut self, id: Id) {
        self.counters[id as usize] += 1;
    }

    /// Counts `by` more.
    pub fn add(&mut self, id: Id, by: u64) {
        self.counters[id as usize] += by;
    }

    /// A counter's value.
    pub fn counter(&self, id: Id) -> u64 {
        self.counters[id as usize]
    }

    /// Counts one more under a label.
    pub fn count_labelled(&mut self, id: Id, label: &str) {
        *self.labelled.entry((id, label.to_owned())).or_default() += 1.0;
    }

    /// Makes a label known, so that it is shown before anything was counted under it.
    pub fn declare(&mut self, id: Id, label: &str) {
        self.labelled.entry((id, label.to_owned())).or_default();
    }

    /// Sets a gauge.
    pub fn set(&mut self, id: Id, value: f64) {
        self.plain[id as usize] = value;
    }

    /// Sets a gauge under a label.
    pub fn set_labelled(&mut self, id: Id, label: &str, value: f64) {
        self.labelled.insert((id, label.to_owned()), value);
    }

    /// Takes all labels of a metric away.
    pub fn clear_labelled(&mut self, id: Id) {
        self.labelled.retain(|(held, _), _| *held != id);
    }

    /// Adds to a distribution.
    pub fn observe(&mut self, id: Id, label: &'static str, duration: Duration) {
        self.histograms.entry((id, label)).or_default().observe(duration.as_secs_f64());
    }

    /// Every metric with its label and value, in the order of the table. Unlabelled ones are there from the start.
    pub fn values(&self) -> Vec<(&'static Metric, Option<&str>, Value<'_>)> {
        let mut values = Vec::new();
        for (id, metric) in ALL {
            match (metric.kind, metric.label) {
                (Kind::Counter, None) => values.push((metric, None, Value::Count(self.counters[*id as usize]))),
                (Kind::Gauge, None) => values.push((metric, None, Value::Number(self.plain[*id as usize]))),
                (Kind::Histogram, _) => {
                    for ((_, label), histogram) in self.histograms.range((*id, "")..).take_while(|(k, _)| k.0 == *id) {
                        values.push((metric, Some(*label), Value::Distribution(histogram)));
                    }
                }
                (kind, Some(_)) => {
                    for ((_, label), value) in
                        self.labelled.range((*id, String::new())..).take_while(|(k, _)| k.0 == *id)
                    {
                        let value =
                            if kind == Kind::Counter { Value::Count(*value as u64) } else { Value::Number(*value) };
                        values.push((metric, Some(label.as_str()), value));
                    }
                }
            }
        }
        values
    }

    /// Text exposition format 0.0.4, as Prometheus scrapes it.
    pub fn prometheus(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let mut last = "";
        for (metric, label, value) in self.values() {
            if last != metric.prometheus {
                last = metric.prometheus;
                let kind = match metric.kind {
                    Kind::Counter => "counter",
                    Kind::Gauge => "gauge",
                    Kind::Histogram => "histogram",
                };
                let _ = writeln!(out, "# HELP {last} {}\n# TYPE {last} {kind}", metric.help);
            }
            let pair = match (metric.label, label) {
                (Some(name), Some(text)) => {
                    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                    format!("{name}=\"{text}\"")
                }
                _ => String::new(),
            };
            let braces = if pair.is_empty() { String::new() } else { format!("{{{pair}}}") };
            match value {
                Value::Count(n) => {
                    let _ = writeln!(out, "{last}{braces} {n}");
                }
                Value::Number(n) => {
                    let _ = writeln!(out, "{last}{braces} {n}");
                }
                Value::Distribution(h) => {
                    let mut total = 0;
                    for (bound, n) in BUCKETS_SECONDS.iter().zip(h.buckets) {
                        total += n;
                        let _ = writeln!(out, "{last}_bucket{{{pair},le=\"{bound}\"}} {total}");
                    }
                    let _ = writeln!(out, "{last}_bucket{{{pair},le=\"+Inf\"}} {}", h.count);
                    let _ = writeln!(out, "{last}_sum{braces} {}\n{last}_count{braces} {}", h.sum, h.count);
                }
            }
        }
        out
    }

    /// The JSON form of Nomad's `/v1/metrics`, values since the start.
    ///
    /// `timestamp` is the calendar as Go prints it (`2026-11-21 11:51:50 +0000 UTC`).
    pub fn json(&self, timestamp: &str) -> serde_json::Value {
        let labels = |metric: &Metric, label: Option<&str>| match (metric.label, label) {
            (Some(name), Some(text)) => serde_json::json!({ name: text }),
            _ => serde_json::json!({}),
        };
        let (mut counters, mut gauges, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for (metric, label, value) in self.values() {
            let (name, labels) = (metric.name, labels(metric, label));
            match value {
                Value::Count(n) => counters.push(serde_json::json!({
                    "Count": n, "Labels": labels, "Max": 1, "Mean": 1, "Min": 1, "Name": name, "Rate": 0,
                    "Stddev": 0, "Sum": n,
                })),
                Value::Number(n) => {
                    gauges.push(serde_json::json!({ "Labels": labels, "Name": name, "Value": n }));
                }
                Value::Distribution(h) => {
                    let count = h.count.max(1) as f64;
                    let mean = h.sum / count;
                    let variance = (h.sum_of_squares / count - mean * mean).max(0.0);
                    // Nomad's samples are milliseconds.
                    samples.push(serde_json::json!({
                        "Count": h.count, "Labels": labels, "Max": h.max * 1e3, "Mean": mean * 1e3,
                        "Min": h.min * 1e3, "Name": name, "Rate": 0, "Stddev": variance.sqrt() * 1e3,
                        "Sum": h.sum * 1e3,
                    }));
                }
            }
        }
        serde_json::json!({
            "Counters": counters, "Gauges": gauges, "Points": [], "PrecisionGauges": [], "Samples": samples,
            "Timestamp": timestamp,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_its_names_are_clean() {
        // R8.27: what promtool's linter looks for.
        for (at, (id, metric)) in ALL.iter().enumerate() {
            assert_eq!(at, *id as usize);
            assert!(metric.name.starts_with("holdfast.") && metric.prometheus.starts_with("holdfast_"));
            assert_eq!(metric.kind == Kind::Counter, metric.prometheus.ends_with("_total"), "{}", metric.prometheus);
            assert!(metric.help.ends_with('.'), "{}", metric.help);
            for bad in ["milliseconds", "_ms", "microseconds", "_count", "_sum", "_bucket", "__"] {
                assert!(!metric.prometheus.contains(bad), "{}", metric.prometheus);
            }
            assert!(metric.prometheus.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
        }
    }

    #[test]
    fn both_forms_show_every_plain_metric_at_zero() {
        // R1.100
        let metrics = Metrics::default();
        let (text, json) = (metrics.prometheus(), metrics.json("now").to_string());
        for (_, metric) in ALL.iter().filter(|(_, m)| m.label.is_none()) {
            assert!(text.contains(&format!("\n{} 0\n", metric.prometheus)), "{}", metric.prometheus);
            assert!(json.contains(&format!("\"{}\"", metric.name)));
        }
    }

    #[test]
    fn distributions_are_cumulative_in_prometheus() {
        let mut metrics = Metrics::default();
        metrics.observe(Id::CallTime, "read", Duration::from_micros(60));
        metrics.observe(Id::CallTime, "read", Duration::from_secs(100));
        let text = metrics.prometheus();
        assert!(text.contains("_bucket{class=\"read\",le=\"0.00005\"} 0\n"));
        assert!(text.contains("_bucket{class=\"read\",le=\"0.0001\"} 1\n"));
        assert!(text.contains("_bucket{class=\"read\",le=\"+Inf\"} 2\n"));
    }
}
