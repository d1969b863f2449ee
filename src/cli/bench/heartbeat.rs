//! `bench heartbeat`: registrations of many nodes, then their heartbeats.

use crate::cli::Failure;
use crate::cli::args::{Shape, Span};
use crate::cli::bench::closed_loop::{self, Outcome};
use crate::cli::bench::fleet::{self, BenchNode, Heartbeats, Registrations, StatusChanges};
use crate::cli::bench::link::Speech;
use crate::cli::bench::report::Report;
use crate::cli::bench::{Bench, shape_parameters, span_parameters};

/// Runs it. The nodes are removed also when it fails, unless they shall be kept.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn run(bench: &Bench<'_>, count: usize, shape: Shape, span: &Span, keep: bool) -> Result<Report, Failure> {
    let mut report = bench.report("heartbeat");
    report.parameter("nodes", count);
    shape_parameters(&mut report, shape);
    span_parameters(&mut report, span);
    let nodes = fleet::invent(count);
    let outcome = load(bench, &nodes, shape, span);
    let removed = if keep { Ok(()) } else { fleet::deregister(bench.context, &mut bench.context.client(), &nodes) };
    let (registered, beaten) = outcome?;
    report.calls("registration", "registration", registered.count, &registered.latencies, &registered.usage);
    report.calls("heartbeat", "heartbeat", beaten.count, &beaten.latencies, &beaten.usage);
    if let Err(failure) = removed {
        report.note(format!("the nodes could not be removed: {failure}"));
    }
    Ok(report)
}

/// What registering and what heartbeats measured.
fn load(bench: &Bench<'_>, nodes: &[BenchNode], shape: Shape, span: &Span) -> Result<(Outcome, Outcome), Failure> {
    let region = &bench.context.region;
    let mut net = bench.net(Speech::Multiplex, shape.streams, shape.connections)?;
    closed_loop::connect(&mut net, shape.connections, bench.patience())?;
    let to_the_end = bench.to_the_end();
    let mut source = Registrations::new(nodes, region);
    let registered = closed_loop::run(&mut net, shape.streams, &mut source, &to_the_end, &bench.meter)?;
    // The first heartbeat of each makes it ready, which is a write; only those after it are what heartbeats cost.
    let mut source = StatusChanges::new(nodes, region, "ready");
    closed_loop::run(&mut net, shape.streams, &mut source, &to_the_end, &bench.meter)?;
    let mut source = Heartbeats::new(nodes, region);
    let beaten = closed_loop::run(&mut net, shape.streams, &mut source, &bench.stretch(span), &bench.meter)?;
    Ok((registered, beaten))
}
