//! `bench read`, `bench list` and `bench write`: variables in a closed loop. Those that a bench makes it removes.

use std::collections::BTreeMap;

use crate::cli::Failure;
use crate::cli::args::{Shape, Span};
use crate::cli::bench::closed_loop::{self, Repeat, Source};
use crate::cli::bench::link::Speech;
use crate::cli::bench::report::Report;
use crate::cli::bench::{Bench, fleet, shape_parameters, span_parameters};
use crate::wire::body::query::{GenericRequest, QueryOptions, WriteMeta, WriteRequest};
use crate::wire::body::var::{Variable, VariablesApplyRequest, VariablesReadRequest};
use crate::wire::msgpack::Msg;

/// Connections that prepare variables, and streams on each.
const PREPARING: Shape = Shape { connections: 2, streams: 16 };

/// Variables of one run, below a folder of its own.
pub(crate) struct BenchVars {
    folder: String,
    count: usize,
    value: String,
    write: WriteRequest,
}

impl BenchVars {
    /// `count` variables with a value of `bytes` bytes each.
    pub(crate) fn new(bench: &Bench<'_>, count: usize, bytes: usize) -> BenchVars {
        let write = WriteRequest {
            region: bench.context.region.clone(),
            auth_token: bench.context.token.clone(),
            ..WriteRequest::default()
        };
        let folder = format!("bench/{}/", std::process::id());
        BenchVars { folder, count, value: "x".repeat(bytes), write }
    }

    /// The path of one of them.
    pub(crate) fn path(&self, nth: usize) -> String {
        format!("{}{nth:06}", self.folder)
    }

    /// What writes one of them.
    pub(crate) fn set(&self, nth: usize) -> VariablesApplyRequest {
        let items = BTreeMap::from([("value".to_owned(), self.value.clone())]);
        let var = Variable { path: self.path(nth), items: Some(items), ..Variable::default() };
        VariablesApplyRequest {
            op: "set".to_owned(),
            var: Some(var),
            write: self.write.clone(),
            ..VariablesApplyRequest::default()
        }
    }

    fn delete(&self, nth: usize) -> VariablesApplyRequest {
        let var = Variable { path: self.path(nth), ..Variable::default() };
        VariablesApplyRequest { op: "delete".to_owned(), var: Some(var), ..self.set(nth) }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Writes all of them, once; gives the index of each one's write.
    ///
    /// # Errors
    /// See [`closed_loop::run`].
    pub(crate) fn make(&self, bench: &Bench<'_>) -> Result<Vec<u64>, Failure> {
        self.once(bench, |nth| self.set(nth))
    }

    /// Removes all of them.
    ///
    /// # Errors
    /// See [`closed_loop::run`].
    pub(crate) fn remove(&self, bench: &Bench<'_>) -> Result<(), Failure> {
        self.once(bench, |nth| self.delete(nth)).map(|_| ())
    }

    fn once(&self, bench: &Bench<'_>, request: impl Fn(usize) -> VariablesApplyRequest) -> Result<Vec<u64>, Failure> {
        let mut net = bench.net(Speech::Multiplex, PREPARING.streams, PREPARING.connections)?;
        closed_loop::connect(&mut net, PREPARING.connections, bench.patience())?;
        let mut source = Once { indexes: vec![0; self.count], begun: 0, request };
        closed_loop::run(&mut net, PREPARING.streams, &mut source, &bench.to_the_end(), &bench.meter)?;
        Ok(source.indexes)
    }
}

/// One write for each variable.
struct Once<F> {
    /// Of each write, as answered.
    indexes: Vec<u64>,
    begun: usize,
    request: F,
}

impl<F: Fn(usize) -> VariablesApplyRequest> Source for Once<F> {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        if self.begun == self.indexes.len() {
            return None;
        }
        fleet::append(&(self.request)(self.begun), body);
        self.begun += 1;
        Some(("Variables.Apply", self.begun - 1))
    }

    fn answered(&mut self, tag: usize, body: &[u8]) -> Result<(), Failure> {
        let reply = WriteMeta::from_bytes(body).map_err(|error| Failure::Other(error.to_string()))?;
        if let Some(index) = self.indexes.get_mut(tag) {
            *index = reply.index;
        }
        Ok(())
    }
}

/// Requests made beforehand, in turn, without end.
struct Rounds {
    method: &'static str,
    bodies: Vec<Vec<u8>>,
    next: usize,
}

impl Source for Rounds {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        body.extend_from_slice(self.bodies.get(self.next)?);
        self.next = (self.next + 1) % self.bodies.len();
        Some((self.method, 0))
    }
}

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// Variables.
    pub(crate) count: usize,
    /// Bytes of the value of each.
    pub(crate) bytes: usize,
    /// Over what it is spread.
    pub(crate) shape: Shape,
    /// How long it runs.
    pub(crate) span: &'a Span,
}

/// Reads of one variable after the other.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn read(bench: &Bench<'_>, ask: &Ask<'_>) -> Result<Report, Failure> {
    let vars = BenchVars::new(bench, ask.count, ask.bytes);
    let query = QueryOptions { allow_stale: false, ..bench.query() };
    let body = |nth| VariablesReadRequest { path: vars.path(nth), query: query.clone() }.to_bytes();
    let bodies = (0..ask.count).map(body).collect();
    with_vars(bench, &vars, || load(bench, "read", ask, &mut Rounds { method: "Variables.Read", bodies, next: 0 }))
}

/// The same list again and again.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn list(bench: &Bench<'_>, ask: &Ask<'_>) -> Result<Report, Failure> {
    let vars = BenchVars::new(bench, ask.count, ask.bytes);
    let query = QueryOptions { allow_stale: false, prefix: vars.folder.clone(), ..bench.query() };
    let body = GenericRequest { query }.to_bytes();
    with_vars(bench, &vars, || load(bench, "list", ask, &mut Repeat { method: "Variables.List", body }))
}

/// Writes of one variable after the other.
///
/// # Errors
/// See [`closed_loop::run`].
pub(crate) fn write(bench: &Bench<'_>, ask: &Ask<'_>) -> Result<Report, Failure> {
    let vars = BenchVars::new(bench, ask.count, ask.bytes);
    let bodies = (0..ask.count).map(|nth| vars.set(nth).to_bytes()).collect();
    let mut report = load(bench, "write", ask, &mut Rounds { method: "Variables.Apply", bodies, next: 0 })?;
    if let Err(failure) = vars.remove(bench) {
        report.note(format!("the variables could not be removed: {failure}"));
    }
    Ok(report)
}

/// Makes the variables, runs, and removes them also when it fails.
fn with_vars(
    bench: &Bench<'_>,
    vars: &BenchVars,
    run: impl FnOnce() -> Result<Report, Failure>,
) -> Result<Report, Failure> {
    vars.make(bench)?;
    let outcome = run();
    let removed = vars.remove(bench);
    let mut report = outcome?;
    if let Err(failure) = removed {
        report.note(format!("the variables could not be removed: {failure}"));
    }
    Ok(report)
}

fn load(bench: &Bench<'_>, name: &'static str, ask: &Ask<'_>, source: &mut impl Source) -> Result<Report, Failure> {
    let mut report = bench.report(name);
    report.parameter("vars", ask.count);
    report.parameter("size", ask.bytes);
    shape_parameters(&mut report, ask.shape);
    span_parameters(&mut report, ask.span);
    let mut net = bench.net(Speech::Multiplex, ask.shape.streams, ask.shape.connections)?;
    closed_loop::connect(&mut net, ask.shape.connections, bench.patience())?;
    let outcome = closed_loop::run(&mut net, ask.shape.streams, source, &bench.stretch(ask.span), &bench.meter)?;
    report.calls("", "call", outcome.count, &outcome.latencies, &outcome.usage);
    Ok(report)
}
