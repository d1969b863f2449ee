//! `bench failover`: what callers see while somebody else kills, stops or moves the leader.
//!
//! Each writer counts in a variable of its own, and each write names the index of the last one: a write that was
//! acknowledged and got lost, or was applied twice, breaks the chain at the next. Whoever gets no certain answer reads
//! until it knows. Readers compare with what was acknowledged before they asked. Every worker is a thread with a
//! connection to one server, and stays there whatever happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::cli::args::Workers;
use crate::cli::bench::Bench;
use crate::cli::bench::report::{Latencies, Report};
use crate::client;
use crate::client::{Client, Settings};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::{
    Variable, VariablesApplyRequest, VariablesApplyResponse, VariablesReadRequest, VariablesReadResponse,
};

/// After an error a worker waits so long: a server that refuses connections is not to be flooded.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the last reading waits for a leader.
const SETTLE: Duration = Duration::from_secs(30);
/// Different error texts that are told.
const TEXTS_MAX: usize = 8;
/// The item that holds the count.
const ITEM: &str = "n";

/// What workers saw.
#[derive(Debug, Default)]
struct Tally {
    done: u64,
    failed: u64,
    unknown: u64,
    /// Of the unknown, those that were found to be applied.
    applied: u64,
    lost: u64,
    doubled: u64,
    stale: u64,
    /// The longest time that one worker waited from one success to the next.
    longest: Duration,
    texts: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.done += other.done;
        self.failed += other.failed;
        self.unknown += other.unknown;
        self.applied += other.applied;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.stale += other.stale;
        self.longest = self.longest.max(other.longest);
        for (text, count) in &other.texts {
            self.note(text, *count);
        }
    }

    fn note(&mut self, text: &str, count: u64) {
        if self.texts.len() < TEXTS_MAX || self.texts.contains_key(text) {
            *self.texts.entry(text.to_owned()).or_insert(0) += count;
        }
    }

    fn is_broken(&self) -> bool {
        self.lost + self.doubled + self.stale > 0
    }
}

/// What all workers share.
struct Shared {
    over: AtomicBool,
    /// What each writer has had acknowledged.
    acknowledged: Vec<AtomicU64>,
    begun: Instant,
    /// When anybody's write was acknowledged last, nanoseconds from the begin, and the longest time without.
    last_write: AtomicU64,
    longest_without: AtomicU64,
    latencies: [Mutex<Latencies>; 2],
}

/// Index of the latencies of writes and of reads.
const WRITES: usize = 0;
const READS: usize = 1;

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn took(&self, what: usize, time: Duration) {
        if let Some(latencies) = self.latencies.get(what) {
            latencies.lock().unwrap_or_else(PoisonError::into_inner).record(time);
        }
    }

    fn write_acknowledged(&self) {
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let before = self.last_write.fetch_max(now, Ordering::Relaxed);
        self.longest_without.fetch_max(now.saturating_sub(before), Ordering::Relaxed);
    }
}

/// How one call ended.
enum Ended<T> {
    Done(T),
    /// Surely without effect.
    Failed(String),
    Unknown(String),
}

fn ended<T>(result: Result<T, client::Error>) -> Ended<T> {
    match result {
        Ok(value) => Ended::Done(value),
        Err(error) => {
            let text = Failure::from(error.clone()).to_string();
            if !error.class().surely_not_applied() { Ended::Unknown(text) } else { Ended::Failed(text) }
        }
    }
}

/// One thread and its connection.
struct Worker {
    client: Client,
    shared: Arc<Shared>,
    query: QueryOptions,
    write: WriteRequest,
    tally: Tally,
    since: Instant,
}

/// The count in a variable and the index of its write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    count: u64,
    index: u64,
}

impl Worker {
    /// A success: the gap since the last one ends.
    fn succeeded(&mut self, what: usize, began: Instant) {
        self.shared.took(what, began.elapsed());
        self.tally.done += 1;
        self.tally.longest = self.tally.longest.max(self.since.elapsed());
        self.since = Instant::now();
    }

    fn troubled(&mut self, text: &str) {
        self.tally.note(text, 1);
        thread::sleep(PAUSE);
    }

    /// A read by the leader; nothing there is a count of 0 at index 0.
    fn read(&mut self, path: &str) -> Ended<Seen> {
        let request = VariablesReadRequest { path: path.to_owned(), query: self.query.clone() };
        let read: Result<VariablesReadResponse, _> = self.client.call("Variables.Read", &request);
        ended(read.map(|reply| reply.data.map_or_else(Seen::default, |var| seen(&var))))
    }

    /// Reads until there is an answer, or until `patience` is over.
    fn read_surely(&mut self, path: &str, patience: Duration) -> Option<Seen> {
        let until = Instant::now() + patience;
        loop {
            match self.read(path) {
                Ended::Done(seen) => return Some(seen),
                Ended::Failed(_) | Ended::Unknown(_) if Instant::now() >= until => return None,
                Ended::Failed(_) | Ended::Unknown(_) => thread::sleep(PAUSE),
            }
        }
    }

    fn set(&mut self, path: &str, count: u64, index: u64) -> Ended<VariablesApplyResponse> {
        let items = BTreeMap::from([(ITEM.to_owned(), count.to_string())]);
        let var = Variable { path: path.to_owned(), items: Some(items), modify_index: index, ..Variable::default() };
        let request = VariablesApplyRequest {
            op: "cas".to_owned(),
            var: Some(var),
            write: self.write.clone(),
            ..VariablesApplyRequest::default()
        };
        ended(self.client.call("Variables.Apply", &request))
    }

    /// Counts until it is told to stop; gives what must be there in the end.
    fn count(&mut self, path: &str, nth: usize) {
        let mut chain = Chain::default();
        while !self.shared.is_over() {
            let (count, began) = (chain.next + 1, Instant::now());
            chain.next = count;
            match self.set(path, count, chain.last.index) {
                Ended::Done(reply) if reply.result == "ok" => {
                    let index = reply.output.map_or(reply.meta.index, |var| var.modify_index);
                    chain.acknowledged(Seen { count, index });
                    if let Some(slot) = self.shared.acknowledged.get(nth) {
                        slot.store(count, Ordering::Release);
                    }
                    self.shared.write_acknowledged();
                    self.succeeded(WRITES, began);
                }
                // A write of unknown outcome came late, or this very one is there although it was refused.
                Ended::Done(_) => {
                    let before = chain.last;
                    self.look(path, &mut chain, SETTLE);
                    if chain.last == before {
                        self.tally.failed += 1;
                        self.troubled("conflict with a variable that has not changed");
                    }
                }
                Ended::Failed(text) => {
                    self.tally.failed += 1;
                    self.troubled(&text);
                }
                Ended::Unknown(text) => {
                    self.tally.unknown += 1;
                    chain.unknown.insert(count);
                    self.troubled(&text);
                    self.look(path, &mut chain, SETTLE);
                }
            }
        }
        self.look(path, &mut chain, SETTLE);
    }

    /// Compares what is there with what should be.
    fn look(&mut self, path: &str, chain: &mut Chain, patience: Duration) {
        match self.read_surely(path, patience) {
            None => self.tally.note("a variable could not be read back", 1),
            Some(there) => match chain.found(there) {
                Verdict::AsTold => {}
                Verdict::Applied => self.tally.applied += 1,
                Verdict::Lost => self.tally.lost += 1,
                Verdict::Doubled => self.tally.doubled += 1,
            },
        }
    }

    /// Reads one writer's variable after the other.
    fn watch(&mut self, paths: &[String]) {
        for nth in (0..paths.len()).cycle() {
            let (Some(path), Some(slot)) = (paths.get(nth), self.shared.acknowledged.get(nth)) else { return };
            if self.shared.is_over() {
                return;
            }
            let (before, began) = (slot.load(Ordering::Acquire), Instant::now());
            match self.read(path) {
                Ended::Done(seen) => {
                    self.tally.stale += u64::from(seen.count < before);
                    self.succeeded(READS, began);
                }
                Ended::Failed(text) | Ended::Unknown(text) => {
                    self.tally.failed += 1;
                    self.troubled(&text);
                }
            }
        }
    }
}

fn seen(var: &Variable) -> Seen {
    let text = var.items.as_ref().and_then(|items| items.get(ITEM));
    Seen { count: text.and_then(|text| text.parse().ok()).unwrap_or(0), index: var.modify_index }
}

/// What one writer knows of its variable.
#[derive(Debug, Default)]
struct Chain {
    last: Seen,
    /// The count that was tried last.
    next: u64,
    /// Counts whose writes may still be applied.
    unknown: BTreeSet<u64>,
}

/// What is there, compared with what was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    AsTold,
    /// A write of unknown outcome took place.
    Applied,
    /// What was acknowledged is not there.
    Lost,
    /// A write took place again, or one that was refused did.
    Doubled,
}

impl Chain {
    /// Writes of before can not be applied any more: they named an older index.
    fn acknowledged(&mut self, seen: Seen) {
        self.last = seen;
        self.unknown.clear();
    }

    fn found(&mut self, there: Seen) -> Verdict {
        let verdict = if there == self.last {
            Verdict::AsTold
        } else if there.count < self.last.count || there.index < self.last.index {
            Verdict::Lost
        } else if there.count == self.last.count {
            Verdict::Doubled
        } else if self.unknown.contains(&there.count) {
            Verdict::Applied
        } else {
            Verdict::Doubled
        };
        if verdict != Verdict::AsTold {
            self.acknowledged(there);
        }
        verdict
    }
}

/// Runs it. Whether a promise was broken goes with the report.
///
/// # Errors
/// A server that cannot be reached at the beginning.
pub(crate) fn run(bench: &Bench<'_>, ask: &Workers) -> Result<(Report, bool), Failure> {
    let addresses: Vec<&str> = bench.context.settings.addresses();
    let paths: Vec<String> =
        (0..ask.writers).map(|nth| format!("bench/failover/{}/{nth}", std::process::id())).collect();
    let shared = Arc::new(Shared {
        over: AtomicBool::new(false),
        acknowledged: paths.iter().map(|_| AtomicU64::new(0)).collect(),
        begun: Instant::now(),
        last_write: AtomicU64::new(0),
        longest_without: AtomicU64::new(0),
        latencies: [Mutex::new(Latencies::new()?), Mutex::new(Latencies::new()?)],
    });
    let worker = |nth: usize| {
        let address = addresses.get(nth % addresses.len().max(1)).copied().unwrap_or_default();
        let settings = Settings { address: address.to_owned(), ..bench.context.settings.clone() };
        Worker {
            client: Client::new(settings),
            shared: Arc::clone(&shared),
            query: bench.context.fresh_query(),
            write: bench.context.write(),
            tally: Tally::default(),
            since: Instant::now(),
        }
    };
    for (nth, path) in paths.iter().enumerate() {
        if let Ended::Failed(text) | Ended::Unknown(text) = worker(nth).read(path) {
            return Err(Failure::Other(format!("before the beginning: {text}")));
        }
    }
    let start = bench.meter.read()?;
    let (mut writers, mut readers) = (Tally::default(), Tally::default());
    thread::scope(|scope| {
        let writing: Vec<_> = paths
            .iter()
            .enumerate()
            .map(|(nth, path)| {
                let mut worker = worker(nth);
                scope.spawn(move || {
                    worker.count(path, nth);
                    worker.tally
                })
            })
            .collect();
        let reading: Vec<_> = (0..ask.readers)
            .map(|nth| {
                let (mut worker, paths) = (worker(nth), &paths);
                scope.spawn(move || {
                    worker.watch(paths);
                    worker.tally
                })
            })
            .collect();
        thread::sleep(ask.duration);
        shared.over.store(true, Ordering::Relaxed);
        // A thread that panicked has said so itself.
        writing.into_iter().filter_map(|thread| thread.join().ok()).for_each(|tally| writers.add(&tally));
        reading.into_iter().filter_map(|thread| thread.join().ok()).for_each(|tally| readers.add(&tally));
    });
    let usage = bench.meter.since(&start).ok();
    for (nth, path) in paths.iter().enumerate() {
        clean_up(&mut worker(nth), path);
    }
    let mut report = report(bench, ask, &shared, &writers, &readers);
    // A server that was killed meanwhile has no figures.
    if let Some(usage) = usage {
        report.generator(&usage);
    }
    Ok((report, writers.is_broken() || readers.is_broken()))
}

/// What cannot be removed stays: the server is in trouble, and the report says so.
fn clean_up(worker: &mut Worker, path: &str) {
    let var = Variable { path: path.to_owned(), ..Variable::default() };
    let (op, write) = ("delete".to_owned(), worker.write.clone());
    let request = VariablesApplyRequest { op, var: Some(var), write, ..VariablesApplyRequest::default() };
    let _ = worker.client.call::<_, VariablesApplyResponse>("Variables.Apply", &request);
}

fn report(bench: &Bench<'_>, ask: &Workers, shared: &Shared, writers: &Tally, readers: &Tally) -> Report {
    let mut report = bench.report("failover");
    report.parameter("writers", ask.writers);
    report.parameter("readers", ask.readers);
    report.parameter("duration", format!("{:?}", ask.duration));
    for (text, count) in writers.texts.iter().chain(&readers.texts) {
        report.note(format!("{count} times: {text}"));
    }
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    for (what, tally, word) in [("writes", writers, "acknowledged"), ("reads", readers, "answered")] {
        report.row(&format!("{what}_{word}"), &format!("{what} {word}"), tally.done as f64, "");
        report.row(&format!("{what}_failed"), &format!("{what} failed"), tally.failed as f64, "");
        let key = format!("{what}_longest_gap_ms");
        report.row(&key, &format!("{what}: longest gap of one caller"), millis(tally.longest), "ms");
    }
    let without = Duration::from_nanos(shared.longest_without.load(Ordering::Relaxed));
    report.row("no_write_longest_ms", "longest time without any write", millis(without), "ms");
    report.row("writes_unknown", "writes of unknown outcome", writers.unknown as f64, "");
    report.row("writes_unknown_applied", "  of them applied", writers.applied as f64, "");
    report.row("writes_lost", "acknowledged writes lost", writers.lost as f64, "");
    report.row("writes_doubled", "writes doubled", writers.doubled as f64, "");
    report.row("reads_stale", "reads older than what was acknowledged", readers.stale as f64, "");
    for (what, latencies) in ["writes", "reads"].iter().zip(&shared.latencies) {
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        report.quantiles(&format!("{what}_latency"), &format!("{what} latency"), &latencies);
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(count: u64, index: u64) -> Seen {
        Seen { count, index }
    }

    #[test]
    fn the_chain_tells_lost_from_doubled() {
        let chain = || Chain { last: at(5, 50), next: 7, unknown: BTreeSet::from([6]) };
        for (there, verdict) in [
            (at(5, 50), Verdict::AsTold),
            (at(6, 51), Verdict::Applied),
            (at(4, 40), Verdict::Lost),
            (at(0, 0), Verdict::Lost),
            (at(6, 49), Verdict::Lost),
            (at(5, 52), Verdict::Doubled),
            (at(7, 52), Verdict::Doubled),
        ] {
            let mut chain = chain();
            assert_eq!(chain.found(there), verdict, "{there:?}");
            assert_eq!((chain.last, chain.found(there)), (there, Verdict::AsTold), "it goes on from there");
        }
    }

    #[test]
    fn unknown_is_told_from_failed() {
        use client::Error;
        let is_unknown = |error| matches!(ended::<()>(Err(error)), Ended::Unknown(_));
        for (error, unknown) in [
            (Error::answered("No cluster leader"), false),
            (Error::answered("rpc error: outcome unknown: leader lost"), true),
            (Error::Connect { address: String::new(), cause: String::new() }, false),
            (Error::NotSent(String::new()), false),
            (Error::Broken(String::new()), true),
            (Error::Deadline { sent: false }, false),
            (Error::Deadline { sent: true }, true),
        ] {
            assert_eq!(is_unknown(error.clone()), unknown, "{error:?}");
        }
    }
}
