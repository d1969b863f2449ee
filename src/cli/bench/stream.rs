//! `bench stream`: many subscribers of events, and what it costs to tell them of a write.
//!
//! Each subscriber is an `Event.Stream` on a stream of its own. Variables are written one after another by a thread and
//! a connection of its own; a write is over when every subscriber was told of it.

use std::time::Duration;

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::args::Shape;
use crate::cli::bench::closed_loop;
use crate::cli::bench::idle::memory_rows;
use crate::cli::bench::link::{After, Answer, Link, Load, Speech};
use crate::cli::bench::net::Net;
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::bench::vars::BenchVars;
use crate::cli::bench::{Bench, PING, shape_parameters};
use crate::wire::body::event::EventStreamRequest;
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::{Msg, Raw};
use crate::wire::streaming::{EventStreamWrapper, StreamingAck};

/// Variables that are written in turn.
const PATHS: usize = 100;
/// A message that is shorter holds no event: an ack or a heartbeat.
const EVENT_BYTES_MIN: usize = 64;

/// Runs it.
///
/// # Errors
/// A server's refusal, a lost connection, silence.
pub(crate) fn run(bench: &Bench<'_>, shape: Shape, writes: usize, settle: Duration) -> Result<Report, Failure> {
    let mut report = bench.report("stream");
    shape_parameters(&mut report, shape);
    report.parameter("writes", writes);
    report.parameter("settle", format!("{settle:?}"));
    let vars = BenchVars::new(bench, PATHS, 100);
    let writer = bench.context.client();
    writer.call::<_, Raw>(PING, &GenericRequest { query: bench.query() })?;
    let mut net = bench.net(Speech::Multiplex, shape.streams, shape.connections)?;
    closed_loop::connect(&mut net, shape.connections, bench.patience())?;
    let mut told = Subscribers { began: 0, told: 0 };
    rest(&mut net, &mut told, settle)?;
    let empty = bench.meter.memory()?;
    subscribe(bench, shape, &mut net, &mut told)?;
    rest(&mut net, &mut told, settle)?;
    let full = bench.meter.memory()?;
    let subscribers = shape.connections * shape.streams;
    report.row("subscribers", "subscribers", subscribers as f64, "");
    memory_rows(&mut report, empty, full, subscribers, "subscriber");

    let mut writes_took = Latencies::new()?;
    let mut last_told = Latencies::new()?;
    let start = bench.meter.read()?;
    for nth in 0..writes {
        told.told = 0;
        let request = vars.set(nth % PATHS);
        let until = net.now() + bench.patience();
        let (written, heard) = std::thread::scope(|scope| {
            let write = scope.spawn(|| {
                let begun = std::time::Instant::now();
                writer.call::<_, Raw>("Variables.Apply", &request).map(|_| (begun, begun.elapsed()))
            });
            let heard = net.turn_while(&mut told, until, "telling", |told| told.told < subscribers);
            (write.join(), heard)
        });
        let (begun, latency) = written.map_err(|_| Failure::Other("the writing thread failed".to_owned()))??;
        heard?;
        writes_took.record(latency);
        last_told.record(net.now() - net.at(begun));
    }
    let usage = bench.meter.since(&start)?;
    report.generator(&usage);
    report.quantiles("write_latency", "writer's own answer", &writes_took);
    report.quantiles("last_told", "last subscriber told", &last_told);
    let each = usage.server_micros_each((writes * subscribers) as u64);
    report.row_if("event_server_cpu_us", "server CPU an event and subscriber, the write's share with it", each, "us");
    if let Err(failure) = vars.remove(bench) {
        report.note(format!("the variables could not be removed: {failure}"));
    }
    Ok(report)
}

/// Opens every stream, and waits until each has said that it lives.
fn subscribe(bench: &Bench<'_>, shape: Shape, net: &mut Net, told: &mut Subscribers) -> Result<(), Failure> {
    let topics = [("Variable".to_owned(), vec!["*".to_owned()])].into();
    let argument = EventStreamRequest { topics, index: -1, query: bench.query() }.to_bytes();
    let mut begun = 0;
    for link in net.ids() {
        for channel in 0..shape.streams {
            net.stream(link, channel, "Event.Stream", &argument)?;
            begun += 1;
        }
        // A server queues few streams that it has not taken yet.
        let until = net.now() + bench.patience();
        net.turn_while(told, until, "subscribing", |told| told.began < begun)?;
    }
    Ok(())
}

/// Lets time pass.
fn rest(net: &mut Net, told: &mut Subscribers, time: Duration) -> Result<(), Failure> {
    let until = net.now() + time;
    while net.now() < until {
        net.turn(told, until)?;
    }
    Ok(())
}

/// What was heard.
struct Subscribers {
    /// Streams that have said that they live.
    began: usize,
    /// Events since it was last set to 0.
    told: usize,
}

impl Load for Subscribers {
    fn up(&mut self, _link: &mut Link, _now: Instant) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(&mut self, _link: &mut Link, answer: Answer<'_>) -> Result<After, Failure> {
        if answer.body.len() >= EVENT_BYTES_MIN {
            self.told += 1;
            return Ok(After::Keep);
        }
        let malformed = |error: crate::wire::msgpack::DecodeError| Failure::Other(error.to_string());
        let ack = StreamingAck::from_bytes(answer.body).map_err(malformed)?;
        if !ack.error.is_empty() {
            return Err(Failure::Other(ack.error));
        }
        let message = EventStreamWrapper::from_bytes(answer.body).unwrap_or_default();
        if let Some(error) = message.error {
            return Err(Failure::Other(error.message));
        }
        self.began += usize::from(message.event.is_some());
        Ok(After::Keep)
    }
}
