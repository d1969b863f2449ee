//! `bench park`: blocking queries that wait; the memory of each, what they cost while they wait, and what waking costs.
//!
//! The nodes asked for are registered and then reported `down`, by themselves: a server gives no time limit to a node
//! that is down, so nothing but this bench's own writes changes them. A wake is one more registration of such a node.
//! It is written by a thread and a connection of its own, so that its latency is not the generator's.

use std::time::Duration;

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::args::{Query, Shape, Waiting};
use crate::cli::bench::closed_loop;
use crate::cli::bench::fleet::{self, BenchNode, Registrations, StatusChanges};
use crate::cli::bench::idle::memory_rows;
use crate::cli::bench::link::{After, Answer, Link, Load, Speech};
use crate::cli::bench::meter::Usage;
use crate::cli::bench::net::Net;
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::bench::vars::BenchVars;
use crate::cli::bench::{Bench, PING, shape_parameters};
use crate::client::Client;
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::query::{GenericRequest, QueryMeta, QueryOptions};
use crate::wire::body::var::VariablesReadRequest;
use crate::wire::msgpack::{Msg, Raw};

/// Connections that prepare the nodes, and streams on each.
const PREPARING: Shape = Shape { connections: 2, streams: 16 };
/// Bytes of a variable's value.
const VALUE_BYTES: usize = 100;
/// Time a query asks to wait at most: the longest that servers grant.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Answers that nobody's write explains, for each query; more mean that the server does not let queries wait.
const EARLY_MAX: u64 = 10;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask {
    pub(crate) query: Query,
    pub(crate) shape: Shape,
    pub(crate) waiting: Waiting,
    pub(crate) wakes: usize,
    pub(crate) keep: bool,
}

impl Ask {
    fn queries(&self) -> usize {
        self.shape.connections * self.shape.streams
    }

    /// Nodes or variables that are asked for.
    fn subjects(&self) -> usize {
        match self.query {
            Query::List | Query::Node | Query::Var => 1,
            Query::Nodes | Query::Allocs | Query::Vars => self.queries(),
        }
    }

    /// Queries that one write wakes.
    fn woken(&self) -> usize {
        match self.query {
            Query::List | Query::Node | Query::Var => self.queries(),
            Query::Nodes | Query::Vars => 1,
            Query::Allocs => 0,
        }
    }

    fn name(&self) -> &'static str {
        match self.query {
            Query::List => "list",
            Query::Node => "node",
            Query::Nodes => "nodes",
            Query::Allocs => "allocs",
            Query::Var => "var",
            Query::Vars => "vars",
        }
    }
}

/// What is asked for, and changes.
enum Subjects {
    Nodes(Vec<BenchNode>),
    Vars(BenchVars),
}

impl Subjects {
    fn new(bench: &Bench<'_>, ask: &Ask) -> Subjects {
        match ask.query {
            Query::Var | Query::Vars => Subjects::Vars(BenchVars::new(bench, ask.subjects(), VALUE_BYTES)),
            Query::List | Query::Node | Query::Nodes | Query::Allocs => Subjects::Nodes(fleet::invent(ask.subjects())),
        }
    }

    fn len(&self) -> usize {
        match self {
            Subjects::Nodes(nodes) => nodes.len(),
            Subjects::Vars(vars) => vars.len(),
        }
    }

    /// Makes them; gives the index of each one's last change.
    fn make(&self, bench: &Bench<'_>) -> Result<Vec<u64>, Failure> {
        match self {
            Subjects::Nodes(nodes) => make_nodes(bench, nodes),
            Subjects::Vars(vars) => vars.make(bench),
        }
    }

    fn remove(&self, bench: &Bench<'_>) -> Result<(), Failure> {
        match self {
            Subjects::Nodes(nodes) => fleet::deregister(bench.context, &mut bench.context.client(), nodes),
            Subjects::Vars(vars) => vars.remove(bench),
        }
    }

    /// What changes one of them.
    fn change(&self, bench: &Bench<'_>, nth: usize) -> Option<(&'static str, Raw)> {
        let raw = |bytes: Vec<u8>| Raw(bytes.into());
        match self {
            Subjects::Nodes(nodes) => {
                let node = nodes.get(nth)?;
                Some(("Node.Register", raw(node.registration(&bench.context.region).to_bytes())))
            }
            Subjects::Vars(vars) => Some(("Variables.Apply", raw(vars.set(nth).to_bytes()))),
        }
    }
}

/// Runs it. The nodes are removed also when it fails, unless they shall be kept.
///
/// # Errors
/// A server's refusal, a lost connection, silence, queries that are not let wait.
pub(crate) fn run(bench: &Bench<'_>, ask: &Ask) -> Result<Report, Failure> {
    let mut report = bench.report("park");
    report.parameter("query", ask.name());
    shape_parameters(&mut report, ask.shape);
    report.parameter("hold", format!("{:?}", ask.waiting.hold));
    report.parameter("settle", format!("{:?}", ask.waiting.settle));
    report.parameter("wakes", ask.wakes);
    let subjects = Subjects::new(bench, ask);
    let outcome = load(bench, ask, &subjects, &mut report);
    let removed = if ask.keep { Ok(()) } else { subjects.remove(bench) };
    outcome?;
    if let Err(failure) = removed {
        report.note(format!("what was asked for could not be removed: {failure}"));
    }
    Ok(report)
}

fn load(bench: &Bench<'_>, ask: &Ask, subjects: &Subjects, report: &mut Report) -> Result<(), Failure> {
    let indexes = subjects.make(bench)?;
    let mut writer = bench.context.client();
    writer.call::<_, Raw>(PING, &GenericRequest { query: bench.query() })?;
    let mut parked = Parked::new(bench, ask, subjects, indexes);
    let mut net = bench.net(Speech::Multiplex, ask.shape.streams, ask.shape.connections)?;
    closed_loop::connect(&mut net, ask.shape.connections, bench.patience())?;
    wait(&mut net, &mut parked, ask.waiting.settle)?;
    let empty = bench.meter.memory()?;

    for link in net.ids() {
        for channel in 0..ask.shape.streams {
            let (method, body) = parked.request(link * ask.shape.streams + channel);
            net.call(link, channel, method, &body)?;
        }
    }
    while net.opening() > 0 {
        let now = net.now();
        net.turn(&mut parked, now + bench.patience())?;
    }
    wait(&mut net, &mut parked, ask.waiting.settle)?;
    let full = bench.meter.memory()?;

    let start = bench.meter.read()?;
    let early = parked.early;
    wait(&mut net, &mut parked, ask.waiting.hold)?;
    let held = bench.meter.since(&start)?;
    report.generator(&held);
    report.row("queries", "parked queries", ask.queries() as f64, "");
    memory_rows(report, empty, full, ask.queries(), "parked query");
    report.row_if("hold_server_cores", "server CPU while they wait", held.server_cores(), "cores");
    report.row("hold_early_answers", "answers while they wait", (parked.early - early) as f64, "");
    wake_all(bench, ask, subjects, &mut net, &mut parked, &mut writer, report)
}

/// Registers the nodes and reports them down; gives the index of each one's last change.
fn make_nodes(bench: &Bench<'_>, nodes: &[BenchNode]) -> Result<Vec<u64>, Failure> {
    let region = &bench.context.region;
    let mut net = bench.net(Speech::Multiplex, PREPARING.streams, PREPARING.connections)?;
    closed_loop::connect(&mut net, PREPARING.connections, bench.patience())?;
    let to_the_end = bench.to_the_end();
    let mut source = Registrations::new(nodes, region);
    closed_loop::run(&mut net, PREPARING.streams, &mut source, &to_the_end, &bench.meter)?;
    let mut source = StatusChanges::new(nodes, region, "down");
    closed_loop::run(&mut net, PREPARING.streams, &mut source, &to_the_end, &bench.meter)?;
    Ok(source.indexes)
}

/// Lets time pass; queries that are answered meanwhile are asked again.
fn wait(net: &mut Net, parked: &mut Parked<'_>, time: Duration) -> Result<(), Failure> {
    let until = net.now() + time;
    while net.now() < until {
        net.turn(parked, until)?;
    }
    Ok(())
}

/// The queries and their answers.
struct Parked<'a> {
    bench: &'a Bench<'a>,
    ask: &'a Ask,
    subjects: &'a Subjects,
    /// Index that each query has seen; equal queries share the first.
    indexes: Vec<u64>,
    /// Answers that are still to come of a write that was made; 0 while none was.
    awaited: usize,
    /// When each of them came, and to whom: connection and channel.
    came: Vec<(Instant, usize, usize)>,
    /// Answers that no write of ours explains.
    early: u64,
}

impl<'a> Parked<'a> {
    fn new(bench: &'a Bench<'a>, ask: &'a Ask, subjects: &'a Subjects, mut indexes: Vec<u64>) -> Parked<'a> {
        if ask.query == Query::Allocs {
            // Index of a table that nothing was ever written to.
            indexes.fill(1);
        }
        Parked { bench, ask, subjects, indexes, awaited: 0, came: Vec::with_capacity(ask.queries()), early: 0 }
    }

    /// Place of what a query asks for, and of its index.
    fn place(&self, slot: usize) -> usize {
        if self.subjects.len() > 1 { slot } else { 0 }
    }

    /// A query, as it is sent.
    fn request(&self, slot: usize) -> (&'static str, Vec<u8>) {
        let place = self.place(slot);
        let query = QueryOptions {
            min_query_index: self.indexes.get(place).copied().unwrap_or(0).max(1),
            max_query_time: i64::try_from(LONGEST_WAIT.as_nanos()).unwrap_or(i64::MAX),
            ..self.bench.query()
        };
        let nodes = match self.subjects {
            Subjects::Nodes(nodes) => nodes,
            Subjects::Vars(vars) => {
                return ("Variables.Read", VariablesReadRequest { path: vars.path(place), query }.to_bytes());
            }
        };
        let node = nodes.get(place);
        let id = node.map(|node| node.id.clone()).unwrap_or_default();
        match self.ask.query {
            Query::List | Query::Var | Query::Vars => ("Node.List", GenericRequest { query }.to_bytes()),
            Query::Node | Query::Nodes => {
                ("Node.GetNode", NodeSpecificRequest { node_id: id, secret_id: String::new(), query }.to_bytes())
            }
            Query::Allocs => {
                let secret = node.map(|node| node.secret.clone()).unwrap_or_default();
                let query = QueryOptions { auth_token: secret.clone(), ..query };
                ("Node.GetClientAllocs", NodeSpecificRequest { node_id: id, secret_id: secret, query }.to_bytes())
            }
        }
    }

    /// Takes note of the index in an answer.
    fn note_index(&mut self, slot: usize, body: &[u8]) -> Result<(), Failure> {
        let meta = QueryMeta::from_bytes(body).map_err(|error| Failure::Other(error.to_string()))?;
        let place = self.place(slot);
        if let Some(index) = self.indexes.get_mut(place) {
            *index = meta.index.max(*index);
        }
        Ok(())
    }
}

impl Load for Parked<'_> {
    fn up(&mut self, _link: &mut Link, _now: Instant) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(&mut self, link: &mut Link, answer: Answer<'_>) -> Result<After, Failure> {
        let slot = link.id * self.ask.shape.streams + answer.channel;
        if self.awaited > 0 {
            // Equal queries have equal answers: one is enough to learn the index, and the rest is not held up by it.
            if self.came.is_empty() {
                self.note_index(slot, answer.body)?;
            }
            self.awaited -= 1;
            self.came.push((answer.now, link.id, answer.channel));
            return Ok(After::Keep);
        }
        self.early += 1;
        if self.early > EARLY_MAX * self.ask.queries() as u64 + EARLY_MAX {
            return Err(Failure::Other("the server answers blocking queries at once".to_owned()));
        }
        self.note_index(slot, answer.body)?;
        let (method, body) = self.request(slot);
        link.call(answer.channel, method, &body, answer.now)?;
        Ok(After::Keep)
    }
}

/// What each wake measured, over all wakes.
struct Wakes {
    write: Latencies,
    first: Latencies,
    median: Latencies,
    last: Latencies,
    server: Option<Duration>,
}

/// Makes the writes and reports on them.
fn wake_all(
    bench: &Bench<'_>,
    ask: &Ask,
    subjects: &Subjects,
    net: &mut Net,
    parked: &mut Parked<'_>,
    writer: &mut Client,
    report: &mut Report,
) -> Result<(), Failure> {
    let wakes = if ask.woken() == 0 { 0 } else { ask.wakes };
    let mut times = Wakes {
        write: Latencies::new()?,
        first: Latencies::new()?,
        median: Latencies::new()?,
        last: Latencies::new()?,
        server: None,
    };
    for wake in 0..wakes {
        if wake > 0 {
            // All must be parked again, or the next write finds some on their way.
            wait(net, parked, if ask.woken() > 1 { ask.waiting.settle } else { Duration::from_millis(2) })?;
        }
        // Any but the last one woken; steps of a large prime pass all of them.
        let change = subjects.change(bench, wake.wrapping_mul(7919) % subjects.len().max(1));
        let Some(change) = change else { return Ok(()) };
        let usage = wake_once(bench, ask, &change, net, parked, writer, &mut times)?;
        // One answer is over too soon to say who was slow.
        if ask.woken() > 1 {
            report.generator(&usage);
        }
        times.server = usage.server().map(|server| server + times.server.unwrap_or_default());
        for (_, link, channel) in std::mem::take(&mut parked.came) {
            let (method, body) = parked.request(link * ask.shape.streams + channel);
            net.call(link, channel, method, &body)?;
        }
    }
    if wakes > 0 {
        wake_rows(ask, wakes, &times, report);
    }
    Ok(())
}

/// One write, and all answers it sets off.
fn wake_once(
    bench: &Bench<'_>,
    ask: &Ask,
    (method, request): &(&'static str, Raw),
    net: &mut Net,
    parked: &mut Parked<'_>,
    writer: &mut Client,
    times: &mut Wakes,
) -> Result<Usage, Failure> {
    parked.came.clear();
    parked.awaited = ask.woken();
    let start = bench.meter.read()?;
    let until = net.now() + bench.patience();
    let (written, answered) = std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            let begun = std::time::Instant::now();
            writer.call::<_, Raw>(method, request).map(|_| (begun, begun.elapsed()))
        });
        let answered = net.turn_while(parked, until, "waking", |parked| parked.awaited > 0);
        (write.join(), answered)
    });
    let (begun, latency) = written.map_err(|_| Failure::Other("the writing thread failed".to_owned()))??;
    answered?;
    let usage = bench.meter.since(&start)?;
    times.write.record(latency);
    let begun = net.at(begun);
    let series = [(&mut times.first, 0), (&mut times.median, parked.came.len() / 2)];
    for (latencies, nth) in series {
        latencies.record(parked.came.get(nth).map_or(Duration::ZERO, |(at, ..)| *at - begun));
    }
    times.last.record(parked.came.last().map_or(Duration::ZERO, |(at, ..)| *at - begun));
    Ok(usage)
}

fn wake_rows(ask: &Ask, wakes: usize, times: &Wakes, report: &mut Report) {
    let all: [(&str, &str, &Latencies); 4] = [
        ("write_latency", "writer's own answer", &times.write),
        ("first_answer", "first answer", &times.first),
        ("median_answer", "median answer", &times.median),
        ("last_answer", "last answer", &times.last),
    ];
    // Where one write wakes one query, first, median and last are the same.
    let shown = if ask.woken() > 1 { &all[..] } else { &all[..2] };
    for (key, words, latencies) in shown {
        if wakes == 1 {
            report.row(&format!("{key}_us"), words, latencies.micros(1.0), "us");
        } else {
            report.quantiles(key, words, latencies);
        }
    }
    let woken = (wakes * ask.woken()) as f64;
    let each = times.server.map(|server| server.as_secs_f64() * 1e6 / woken);
    report.row_if("wake_server_cpu_us", "server CPU a wake", each, "us");
}
