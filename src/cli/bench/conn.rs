//! `bench conn`: connect, one stream, one ping, close; then the next.

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::args::Span;
use crate::cli::bench::link::{After, Answer, Link, Load, Speech};
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::bench::{Bench, PING, span_parameters};

/// Counts connections that did all of it.
struct Visits {
    ping: Vec<u8>,
    latencies: Latencies,
    /// Connections that ended since they were last replaced.
    ended: usize,
    counting: bool,
}

impl Load for Visits {
    fn up(&mut self, link: &mut Link, now: Instant) -> Result<(), Failure> {
        link.call(0, PING, &self.ping, now)
    }

    fn answer(&mut self, link: &mut Link, answer: Answer<'_>) -> Result<After, Failure> {
        if self.counting {
            self.latencies.record(answer.now - link.since);
        }
        self.ended += 1;
        Ok(After::Close)
    }
}

/// Runs it. Latency is from the first system call to the ping's answer.
///
/// # Errors
/// A connection that fails in any way.
pub(crate) fn run(bench: &Bench<'_>, concurrency: usize, span: &Span) -> Result<Report, Failure> {
    let mut report = bench.report("conn");
    report.parameter("concurrency", concurrency);
    span_parameters(&mut report, span);
    let mut net = bench.net(Speech::Multiplex, 1, concurrency)?;
    let mut visits = Visits { ping: bench.ping_body(), latencies: Latencies::new()?, ended: 0, counting: false };
    for _ in 0..concurrency {
        net.open()?;
    }
    let warm_until = net.now() + span.warmup;
    let mut end = Instant::from_nanos(u64::MAX);
    let mut start = bench.meter.read()?;
    let mut heard = net.now();
    loop {
        let now = net.now();
        if !visits.counting && now >= warm_until {
            visits.counting = true;
            start = bench.meter.read()?;
            end = net.now() + span.duration;
        }
        if now >= end || span.count.is_some_and(|count| visits.latencies.len() >= count) {
            break;
        }
        if visits.ended > 0 {
            heard = now;
        } else if now >= heard + bench.patience() {
            return Err(Failure::Lost("no answer in time".to_owned()));
        }
        for _ in 0..std::mem::take(&mut visits.ended) {
            net.open()?;
        }
        let pause = if visits.counting { end } else { warm_until };
        net.turn(&mut visits, pause.min(heard + bench.patience()))?;
    }
    let usage = bench.meter.since(&start)?;
    report.calls("", "connection", visits.latencies.len(), &visits.latencies, &usage);
    Ok(report)
}
