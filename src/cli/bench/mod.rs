//! `holdfast bench`: a load generator over the real protocol, for any server that speaks it.
//!
//! One thread drives all connections ([`net`]); each [`link`] is our own yamux, or a plain connection, over one
//! [`pipe`]. A bench is a [`link::Load`]: most are a [`closed_loop`]. What the server cost comes from [`meter`], what is
//! printed from [`report`]. Nothing is tried again: a server's first error ends the run with its text.

mod check;
mod closed_loop;
mod conn;
mod failover;
mod fleet;
mod heartbeat;
mod idle;
mod link;
mod meter;
mod net;
mod park;
mod ping;
mod pipe;
mod pool;
mod reply;
mod report;
mod stream;
mod vars;

use std::io::Write;
use std::time::Duration;

use crate::cli::args::{BenchCommand, Common, Shape, Span, Variables};
use crate::cli::bench::closed_loop::Stretch;
use crate::cli::bench::link::Speech;
use crate::cli::bench::meter::Meter;
use crate::cli::bench::net::{Net, Plan};
use crate::cli::bench::report::Report;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::msgpack::Msg;

/// The method every server answers with nothing.
const PING: &str = "Status.Ping";

/// Runs a bench and prints its report.
///
/// # Errors
/// A server's refusal, a lost connection, silence, a process that cannot be measured.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &BenchCommand) -> Result<Exit, Failure> {
    let report = match command {
        BenchCommand::Ping { shape, span, common } => ping::run(&bench(context, common)?, *shape, span),
        BenchCommand::Raw { connections, span, common } => ping::run_raw(&bench(context, common)?, *connections, span),
        BenchCommand::Pool { connections, plain, span, common } => {
            pool::run(&bench(context, common)?, *connections, *plain, span)
        }
        BenchCommand::Conn { concurrency, span, common } => conn::run(&bench(context, common)?, *concurrency, span),
        BenchCommand::Idle { count, open, waiting, common } => {
            idle::run(&bench(context, common)?, *count, *open, waiting)
        }
        BenchCommand::Park { query, shape, waiting, wakes, keep, common } => {
            let ask = park::Ask { query: *query, shape: *shape, waiting: *waiting, wakes: *wakes, keep: *keep };
            park::run(&bench(context, common)?, &ask)
        }
        BenchCommand::Heartbeat { nodes, shape, span, keep, common } => {
            heartbeat::run(&bench(context, common)?, *nodes, *shape, span, *keep)
        }
        BenchCommand::Read { variables, shape, span, common } => {
            vars::read(&bench(context, common)?, &variables.ask(*shape, span))
        }
        BenchCommand::List { variables, shape, span, common } => {
            vars::list(&bench(context, common)?, &variables.ask(*shape, span))
        }
        BenchCommand::Write { variables, shape, span, common } => {
            vars::write(&bench(context, common)?, &variables.ask(*shape, span))
        }
        BenchCommand::Failover { workers, common } => {
            let (report, broken) = failover::run(&bench(context, common)?, workers)?;
            report.print(out, context.json)?;
            return Ok(if broken { Exit::Failed } else { Exit::Done });
        }
        BenchCommand::Check { load, common } => {
            let (report, exit) = check::run(&bench(context, common)?, load)?;
            report.print(out, context.json)?;
            return Ok(exit);
        }
        BenchCommand::Stream { shape, writes, settle, common } => {
            stream::run(&bench(context, common)?, *shape, *writes, *settle)
        }
    }?;
    report.print(out, context.json)?;
    Ok(Exit::Done)
}

impl Variables {
    fn ask<'a>(&self, shape: Shape, span: &'a Span) -> vars::Ask<'a> {
        vars::Ask { count: self.vars, bytes: self.size, shape, span }
    }
}

/// What every bench works with.
struct Bench<'a> {
    context: &'a Context,
    common: Common,
    meter: Meter,
}

fn bench<'a>(context: &'a Context, common: &Common) -> Result<Bench<'a>, Failure> {
    Ok(Bench { context, common: common.clone(), meter: Meter::new(common.pid.clone())? })
}

impl Bench<'_> {
    /// A loop for connections of one kind.
    fn net(&self, speech: Speech, streams: usize, connections: usize) -> Result<Net, Failure> {
        let plan = Plan { speech, streams, batch: !self.common.no_batch, sources: self.common.sources };
        Net::new(&self.context.settings, plan, connections)
    }

    /// How long is waited for one answer.
    fn patience(&self) -> Duration {
        self.context.settings.timeout
    }

    fn stretch(&self, span: &Span) -> Stretch {
        Stretch { warmup: span.warmup, duration: Some(span.duration), count: span.count, patience: self.patience() }
    }

    /// Until the source has no more, from the first call on.
    fn to_the_end(&self) -> Stretch {
        Stretch { warmup: Duration::ZERO, duration: None, count: None, patience: self.patience() }
    }

    /// Options of a read that any server may answer.
    fn query(&self) -> QueryOptions {
        self.context.query()
    }

    /// Body of a ping.
    fn ping_body(&self) -> Vec<u8> {
        GenericRequest { query: self.query() }.to_bytes()
    }

    fn report(&self, name: &'static str) -> Report {
        let settings = &self.context.settings;
        let mut report = Report::new(name, &settings.address, settings.tls.is_some());
        if !self.common.pid.is_empty() {
            report.parameter("pid", self.common.pid.iter().map(u32::to_string).collect::<Vec<_>>().join(","));
        }
        if self.common.no_batch {
            report.parameter("batch", "no");
        }
        if self.common.sources > 1 {
            report.parameter("sources", self.common.sources);
        }
        report
    }
}

/// Names the parameters of a span.
fn span_parameters(report: &mut Report, span: &Span) {
    report.parameter("duration", format!("{:?}", span.duration));
    if let Some(count) = span.count {
        report.parameter("count", count);
    }
    report.parameter("warmup", format!("{:?}", span.warmup));
}

/// Names the parameters of a shape.
fn shape_parameters(report: &mut Report, shape: Shape) {
    report.parameter("connections", shape.connections);
    report.parameter("streams", shape.streams);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod fake;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
