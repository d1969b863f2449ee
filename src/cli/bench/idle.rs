//! `bench idle`: connections that do nothing; what each costs in memory, what they cost in CPU time, and whether they
//! live.

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::args::{Open, Waiting};
use crate::cli::bench::link::{After, Answer, Link, Load, Speech};
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::bench::{Bench, PING};

/// Connections being made, or pinged, at the same time.
const AT_ONCE: usize = 100;

/// Counts connections as they get where they shall be.
struct Idlers {
    /// Body of the ping each makes when it is up, if it makes one.
    ping_first: Option<Vec<u8>>,
    arrived: usize,
    latencies: Latencies,
    /// Connections that the server ended.
    lost: u64,
    /// From here on, a lost connection is counted and no failure.
    holding: bool,
    first_loss: Option<String>,
}

impl Load for Idlers {
    fn up(&mut self, link: &mut Link, now: Instant) -> Result<(), Failure> {
        match &self.ping_first {
            Some(ping) => link.call(0, PING, ping, now),
            None => {
                self.arrived += 1;
                Ok(())
            }
        }
    }

    fn answer(&mut self, _link: &mut Link, answer: Answer<'_>) -> Result<After, Failure> {
        self.arrived += 1;
        self.latencies.record(answer.now - answer.sent);
        Ok(After::Keep)
    }

    fn lost(&mut self, cause: &str) -> Result<(), Failure> {
        if !self.holding {
            return Err(Failure::Lost(format!("connection {} was lost: {cause}", self.arrived + 1)));
        }
        self.lost += 1;
        self.first_loss.get_or_insert_with(|| cause.to_owned());
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// A connection that cannot be made, or is refused a ping.
pub(crate) fn run(bench: &Bench<'_>, count: usize, open: Open, waiting: &Waiting) -> Result<Report, Failure> {
    let mut report = bench.report("idle");
    report.parameter("count", count);
    report.parameter("open", if open == Open::Byte { "byte" } else { "stream" });
    report.parameter("hold", format!("{:?}", waiting.hold));
    report.parameter("settle", format!("{:?}", waiting.settle));
    let mut net = bench.net(Speech::Multiplex, 1, count)?;
    let mut idlers = Idlers {
        ping_first: (open == Open::Stream).then(|| bench.ping_body()),
        arrived: 0,
        latencies: Latencies::new()?,
        lost: 0,
        holding: false,
        first_loss: None,
    };
    let empty = bench.meter.memory()?;
    for begun in 1..=count {
        net.open()?;
        let until = net.now() + bench.patience();
        let allowed = if begun == count { 0 } else { AT_ONCE };
        net.turn_while(&mut idlers, until, "connecting", |idlers| begun - idlers.arrived > allowed)?;
    }
    idlers.holding = true;
    let settled = net.now() + waiting.settle;
    while net.now() < settled {
        net.turn(&mut idlers, settled)?;
    }
    let full = bench.meter.memory()?;
    let start = bench.meter.read()?;
    let held = net.now() + waiting.hold;
    while net.now() < held {
        net.turn(&mut idlers, held)?;
    }
    let usage = bench.meter.since(&start)?;
    report.generator(&usage);

    // Every one that is left is asked whether it lives.
    idlers.arrived = 0;
    idlers.latencies.clear();
    idlers.holding = false;
    let ping = bench.ping_body();
    let alive = net.ids();
    for (asked, link) in alive.iter().enumerate() {
        net.call(*link, 0, PING, &ping)?;
        let until = net.now() + bench.patience();
        net.turn_while(&mut idlers, until, "pinging", |idlers| asked + 1 - idlers.arrived > AT_ONCE)?;
    }
    let until = net.now() + bench.patience();
    net.turn_while(&mut idlers, until, "pinging", |idlers| idlers.arrived < alive.len())?;

    report.row("connections", "connections", count as f64, "");
    report.row("alive", "alive after the hold", alive.len() as f64, "");
    if let Some(cause) = &idlers.first_loss {
        report.note(format!("{} connections were lost while idle, the first: {cause}", idlers.lost));
    }
    memory_rows(&mut report, empty, full, count, "connection");
    report.row_if("hold_server_cores", "server CPU while idle", usage.server_cores(), "cores");
    report.quantiles("ping_latency", "ping latency", &idlers.latencies);
    Ok(report)
}

/// Memory before and after, and what that makes for each of `count` things.
pub(crate) fn memory_rows(report: &mut Report, before: Option<u64>, after: Option<u64>, count: usize, thing: &str) {
    let Some((before, after)) = before.zip(after) else { return };
    report.row("memory_before_bytes", "server memory before", before as f64, "bytes");
    report.row("memory_after_bytes", "server memory after", after as f64, "bytes");
    let each = (after as f64 - before as f64) / count.max(1) as f64;
    report.row(&format!("memory_per_{}_bytes", thing.replace(' ', "_")), &format!("memory a {thing}"), each, "bytes");
}
