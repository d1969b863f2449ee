//! `bench pool`: what the look at a kept connection costs, before each call, with it and without, turn by turn (R3.16).
//!
//! Each thread has two clients of the library, one that looks and one that does not, with a connection each. They take
//! turns that are short beside the run, so that whatever else the machine does falls on both.

use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::cli::args::Span;
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::bench::{Bench, PING, span_parameters};
use crate::client;
use crate::client::{Client, PoolLimits, Settings, Speech};
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::Raw;

/// How long one of the two goes on before it is the other's turn.
const TURN: Duration = Duration::from_millis(50);

/// What one of the two did.
struct Tally {
    calls: u64,
    spent: Duration,
    latencies: Latencies,
}

impl Tally {
    fn new() -> Result<Tally, Failure> {
        Ok(Tally { calls: 0, spent: Duration::ZERO, latencies: Latencies::new()? })
    }

    fn rate(&self, threads: usize) -> f64 {
        self.calls as f64 * threads as f64 / self.spent.as_secs_f64().max(1e-9)
    }
}

/// Runs it on as many threads as there are to be connections in use.
///
/// # Errors
/// The first error of any call ends the run.
pub(crate) fn run(bench: &Bench<'_>, connections: usize, plain: bool, span: &Span) -> Result<Report, Failure> {
    let speech = if plain { Speech::Plain } else { Speech::Multiplexed };
    let mut report = bench.report("pool");
    report.parameter("connections", connections);
    report.parameter("speech", if plain { "plain" } else { "yamux" });
    span_parameters(&mut report, span);
    let client = |check| {
        let pool = PoolLimits { check, ..PoolLimits::default() };
        Client::new(Settings { speech, pool, ..bench.context.settings.clone() })
    };
    let request = GenericRequest { query: bench.query() };
    let before = bench.meter.read()?;
    let tallies = thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|_| scope.spawn(|| take_turns(&[client(true), client(false)], &request, span)))
            .collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.collect::<Result<Vec<_>, _>>().map_err(|_| Failure::Other("a thread of the bench failed".to_owned()))
    })?;
    let usage = bench.meter.since(&before)?;
    let mut sums = [Tally::new()?, Tally::new()?];
    for tally in tallies {
        for (sum, part) in sums.iter_mut().zip(tally?) {
            sum.calls += part.calls;
            sum.spent += part.spent;
            sum.latencies.add(&part.latencies);
        }
    }
    let [with, without] = &sums;
    for (key, words, tally) in [("check", "with the check", with), ("no_check", "without", without)] {
        report.row(&format!("{key}_count"), &format!("{words}, count"), tally.calls as f64, "");
        report.row(&format!("{key}_rate_per_s"), &format!("{words}, rate"), tally.rate(connections), "/s");
        report.quantiles(&format!("{key}_latency"), &format!("{words}, latency"), &tally.latencies);
    }
    let share = 1.0 - with.rate(connections) / without.rate(connections).max(1e-9);
    report.row("check_cost_percent", "cost of the check", share * 100.0, "%");
    report.generator(&usage);
    Ok(report)
}

/// The two clients, turn by turn, until the time or the count is used up; each has one turn at least.
fn take_turns(clients: &[Client; 2], request: &GenericRequest, span: &Span) -> Result<[Tally; 2], Failure> {
    let warm = Instant::now() + span.warmup;
    while Instant::now() < warm {
        for client in clients {
            turn(client, request, &mut Tally::new()?)?;
        }
    }
    let mut tallies = [Tally::new()?, Tally::new()?];
    let end = Instant::now() + span.duration;
    loop {
        for (client, tally) in clients.iter().zip(&mut tallies) {
            turn(client, request, tally)?;
        }
        let calls: u64 = tallies.iter().map(|tally| tally.calls).sum();
        if Instant::now() >= end || span.count.is_some_and(|most| calls >= most) {
            return Ok(tallies);
        }
    }
}

fn turn(client: &Client, request: &GenericRequest, tally: &mut Tally) -> Result<(), client::Error> {
    let begin = Instant::now();
    let mut at = begin;
    while at < begin + TURN {
        client.call::<_, Raw>(PING, request)?;
        let now = Instant::now();
        tally.latencies.record(now - at);
        tally.calls += 1;
        at = now;
    }
    tally.spent += at - begin;
    Ok(())
}
