//! `bench ping` and `bench raw`: Status.Ping in a closed loop, on streams or on plain connections.

use crate::cli::Failure;
use crate::cli::args::{Shape, Span};
use crate::cli::bench::closed_loop::{self, Repeat};
use crate::cli::bench::link::Speech;
use crate::cli::bench::report::Report;
use crate::cli::bench::{Bench, PING, shape_parameters, span_parameters};

/// On multiplexed streams.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn run(bench: &Bench<'_>, shape: Shape, span: &Span) -> Result<Report, Failure> {
    let mut report = bench.report("ping");
    shape_parameters(&mut report, shape);
    ping(bench, Speech::Multiplex, shape, span, report)
}

/// On plain connections.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn run_raw(bench: &Bench<'_>, connections: usize, span: &Span) -> Result<Report, Failure> {
    let mut report = bench.report("raw");
    report.parameter("connections", connections);
    ping(bench, Speech::Plain, Shape { connections, streams: 1 }, span, report)
}

fn ping(bench: &Bench<'_>, speech: Speech, shape: Shape, span: &Span, mut report: Report) -> Result<Report, Failure> {
    span_parameters(&mut report, span);
    let mut net = bench.net(speech, shape.streams, shape.connections)?;
    closed_loop::connect(&mut net, shape.connections, bench.patience())?;
    let mut source = Repeat { method: PING, body: bench.ping_body() };
    let outcome = closed_loop::run(&mut net, shape.streams, &mut source, &bench.stretch(span), &bench.meter)?;
    report.calls("", "call", outcome.count, &outcome.latencies, &outcome.usage);
    Ok(report)
}
