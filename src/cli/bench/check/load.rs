//! The workers: writers that append to lists and set variables of their own, and readers of both. Each is a thread
//! with a client of its own, and writes down each call.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::base::rng::Rng;
use crate::cli::Failure;
use crate::cli::args::{CheckLoad, CheckMode};
use crate::cli::bench::Bench;
use crate::cli::bench::check::fault;
use crate::cli::bench::check::fault::Faults;
use crate::cli::bench::check::history::{CONFLICT, Kind, Outcome, RECORDS_MAX, Record};
use crate::cli::bench::meter::Usage;
use crate::client;
use crate::client::{Client, Session, SessionOptions, Settings};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::{
    Variable, VariablesApplyRequest, VariablesApplyResponse, VariablesReadRequest, VariablesReadResponse,
};

/// After an error a worker waits so long: a server that refuses connections is not to be flooded.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the last reading of one variable goes on; then the cluster is taken for dead.
const SETTLE: Duration = Duration::from_secs(30);
/// How long what was written is removed; what is left then stays.
const CLEAN_UP: Duration = Duration::from_secs(30);
/// Elements of one list; then the next is begun.
const ELEMENTS_MAX: usize = 32;
/// Writers that append to the same list.
const WRITERS_A_LIST: usize = 2;
/// Variables that readers choose from, those written last.
const RECENT_MAX: usize = 64;
/// Threads that read everything back.
const FINAL_READERS: usize = 8;
/// The item that holds the elements.
const ITEM: &str = "e";

/// What a run left.
pub(crate) struct Loaded {
    pub(crate) records: Vec<Record>,
    pub(crate) usage: Option<Usage>,
    pub(crate) faults: Faults,
    pub(crate) notes: Vec<String>,
}

/// How a worker calls.
enum Way {
    Plain(Client),
    Library(Client),
    Session(Session),
}

/// The file that each call is written to.
struct Sink {
    out: BufWriter<File>,
    /// Why no more was written.
    failed: Option<std::io::Error>,
}

/// What all workers share.
struct Shared {
    over: AtomicBool,
    begun: Instant,
    folder: String,
    recent: Mutex<VecDeque<String>>,
    sink: Option<Mutex<Sink>>,
    /// Calls that one worker may write down.
    records_max: usize,
    query: QueryOptions,
    write: WriteRequest,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn recent(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_new(&self, key: &str) {
        let mut recent = self.recent();
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(key.to_owned());
    }
}

/// One thread.
struct Worker {
    way: Way,
    shared: Arc<Shared>,
    process: u32,
    records: Vec<Record>,
    rng: Rng,
    is_final: bool,
}

/// A list as its last reader or writer knows it.
struct Known {
    index: u64,
    elements: Vec<String>,
}

/// What an error means for a write: whether it may have been carried out, and why.
fn meaning(error: &client::Error) -> (Outcome, String) {
    match error {
        client::Error::OutcomeUnknown { cause, .. } => (Outcome::Unknown, cause.class().word().to_owned()),
        error if error.class().surely_not_applied() => (Outcome::Fail, error.class().word().to_owned()),
        error => (Outcome::Unknown, error.class().word().to_owned()),
    }
}

impl Worker {
    /// Writes a call down.
    fn wrote_down(&mut self, record: Record) {
        if let Some(sink) = &self.shared.sink {
            let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
            if sink.failed.is_none()
                && let Err(error) = record.write(&mut sink.out)
            {
                sink.failed = Some(error);
            }
        }
        self.records.push(record);
    }

    fn is_over(&self) -> bool {
        self.shared.over.load(Ordering::Relaxed) || self.records.len() >= self.shared.records_max
    }

    /// A call that was not answered yet.
    fn asked(&self, kind: Kind, key: &str, value: Option<String>) -> Record {
        Record {
            process: self.process,
            kind,
            key: key.to_owned(),
            value,
            base: None,
            call_ns: self.shared.now(),
            return_ns: 0,
            outcome: Outcome::Unknown,
            index: 0,
            create_index: 0,
            class: String::new(),
            is_final: self.is_final,
        }
    }

    /// A read by the leader.
    fn read(&mut self, key: &str) -> Result<Option<Variable>, client::Error> {
        let request = VariablesReadRequest { path: key.to_owned(), query: self.shared.query.clone() };
        let method = "Variables.Read";
        let reply: Result<VariablesReadResponse, _> = match &self.way {
            Way::Plain(client) => client.call_once(method, &request),
            Way::Library(client) => client.call(method, &request),
            Way::Session(session) => session.call(method, &request),
        };
        reply.map(|reply| reply.data)
    }

    /// The same, written down.
    fn look(&mut self, key: &str) -> Option<Known> {
        let mut record = self.asked(Kind::Read, key, None);
        let read = self.read(key);
        record.return_ns = self.shared.now();
        let known = match read {
            Ok(var) => {
                let items = var.as_ref().and_then(|var| var.items.as_ref());
                record.value =
                    var.as_ref().map(|_| items.and_then(|items| items.get(ITEM)).cloned().unwrap_or_default());
                record.outcome = Outcome::Ok;
                (record.index, record.create_index) = var.map_or((0, 0), |var| (var.modify_index, var.create_index));
                Some(Known { index: record.index, elements: record.elements().map(str::to_owned).collect() })
            }
            Err(error) => {
                (record.outcome, record.class) = (Outcome::Fail, error.class().word().to_owned());
                None
            }
        };
        self.wrote_down(record);
        if known.is_none() {
            thread::sleep(PAUSE);
        }
        known
    }

    fn apply(&mut self, op: &str, var: Variable) -> Result<VariablesApplyResponse, client::Error> {
        let (op, write) = (op.to_owned(), self.shared.write.clone());
        let request = VariablesApplyRequest { op, var: Some(var), write, ..VariablesApplyRequest::default() };
        let method = "Variables.Apply";
        match &self.way {
            Way::Plain(client) => client.call_once(method, &request),
            Way::Library(client) => client.call(method, &request),
            Way::Session(session) => session.call(method, &request),
        }
    }

    /// A write, written down; its index when it was acknowledged.
    fn write(&mut self, kind: Kind, key: &str, element: String, known: Option<&Known>) -> Option<u64> {
        let text = known.map_or_else(String::new, |known| known.elements.iter().map(|one| format!("{one} ")).collect());
        let items = BTreeMap::from([(ITEM.to_owned(), text + &element)]);
        let modify_index = known.map_or(0, |known| known.index);
        let var = Variable { path: key.to_owned(), items: Some(items), modify_index, ..Variable::default() };
        let mut record = self.asked(kind, key, Some(element));
        record.base = known.map(|known| known.index);
        let reply = self.apply(if kind == Kind::Append { "cas" } else { "set" }, var);
        record.return_ns = self.shared.now();
        let mut is_troubled = false;
        match reply {
            Ok(reply) if reply.result == "ok" => {
                record.outcome = Outcome::Ok;
                record.index = reply.output.map_or(reply.meta.index, |var| var.modify_index);
            }
            Ok(_) => (record.outcome, record.class) = (Outcome::Fail, CONFLICT.to_owned()),
            Err(error) => {
                (record.outcome, record.class) = meaning(&error);
                is_troubled = true;
            }
        }
        let index = (record.outcome == Outcome::Ok).then_some(record.index);
        self.wrote_down(record);
        if is_troubled {
            thread::sleep(PAUSE);
        }
        index
    }

    /// Writes until it is told to stop; gives the variables that it wrote.
    fn work(&mut self, nth: usize) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let (mut known, mut generation, mut list): (Option<Known>, u64, String) = (None, 0, String::new());
        let mut number = 0u64;
        while !self.is_over() {
            number += 1;
            // It is a part of paths too, which have no dots.
            let element = format!("{nth}-{number}");
            if self.rng.chance(1, 2) {
                let key = format!("{}/set/{element}", self.shared.folder);
                keys.insert(key.clone());
                self.shared.is_new(&key);
                self.write(Kind::Set, &key, element, None);
                continue;
            }
            if list.is_empty() || known.as_ref().is_some_and(|known| known.elements.len() >= ELEMENTS_MAX) {
                generation += u64::from(!list.is_empty());
                list = format!("{}/list/{}/{generation}", self.shared.folder, nth / WRITERS_A_LIST);
                known = Some(Known { index: 0, elements: Vec::new() });
                keys.insert(list.clone());
                self.shared.is_new(&list);
            }
            // Whoever was refused, or does not know, looks first.
            let Some(was) = known.take().or_else(|| self.look(&list)) else { continue };
            if was.elements.len() >= ELEMENTS_MAX {
                known = Some(was);
                continue;
            }
            let index = self.write(Kind::Append, &list, element.clone(), Some(&was));
            known = index.map(|index| {
                let elements = was.elements.into_iter().chain([element]).collect();
                Known { index, elements }
            });
        }
        keys
    }

    /// Reads until it is told to stop.
    fn watch(&mut self) {
        while !self.is_over() {
            let key = {
                let recent = self.shared.recent();
                let at = usize::try_from(self.rng.below(recent.len() as u64)).unwrap_or(0);
                recent.get(at).cloned()
            };
            match key {
                Some(key) => drop(self.look(&key)),
                None => thread::sleep(PAUSE),
            }
        }
    }

    /// Reads these until there is an answer for each, and then removes them; gives how many are left.
    fn look_back(&mut self, keys: &[String]) -> usize {
        for key in keys {
            let until = Instant::now() + SETTLE;
            while self.look(key).is_none() {
                // Who does not answer for so long is not asked for the rest.
                if Instant::now() >= until {
                    return keys.len();
                }
            }
        }
        let until = Instant::now() + CLEAN_UP;
        let mut left = keys.len();
        for key in keys {
            if Instant::now() >= until {
                break;
            }
            let var = Variable { path: key.clone(), ..Variable::default() };
            left -= usize::from(self.apply("delete", var).is_ok());
        }
        left
    }
}

/// Runs the load, reads everything back, and removes it.
///
/// # Errors
/// A server that cannot be reached at the beginning; a file that cannot be written.
pub(crate) fn run(bench: &Bench<'_>, ask: &CheckLoad) -> Result<Loaded, Failure> {
    let begun = Instant::now();
    let workers = ask.workers.writers + ask.workers.readers;
    let shared = Arc::new(Shared {
        over: AtomicBool::new(false),
        begun,
        folder: format!("bench/check/{}", std::process::id()),
        recent: Mutex::default(),
        sink: sink(ask)?,
        // A half is left for what is read back.
        records_max: RECORDS_MAX / 2 / workers.max(1),
        query: bench.context.fresh_query(),
        write: bench.context.write(),
    });
    let workers: Vec<Worker> =
        (0..workers).map(|nth| worker(bench, ask.mode, nth, &shared)).collect::<Result<_, _>>()?;
    let start = bench.meter.read()?;
    let mut loaded = Loaded { records: Vec::new(), usage: None, faults: Faults::default(), notes: Vec::new() };
    let mut keys = BTreeSet::new();
    thread::scope(|scope| {
        let working: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(nth, mut worker)| {
                scope.spawn(move || {
                    let keys = if nth < ask.workers.writers { worker.work(nth) } else { BTreeSet::new() };
                    if nth >= ask.workers.writers {
                        worker.watch();
                    }
                    (keys, worker.records)
                })
            })
            .collect();
        let harm = ask.exec_fault.as_ref().map(|command| {
            let over = &shared.over;
            scope.spawn(move || fault::run(command, ask.every, over))
        });
        thread::sleep(ask.workers.duration);
        shared.over.store(true, Ordering::Relaxed);
        // A thread that panicked has said so itself.
        for (written, records) in working.into_iter().filter_map(|thread| thread.join().ok()) {
            if records.len() >= shared.records_max {
                loaded.notes.push(format!("a worker ended early, after {} calls", records.len()));
            }
            keys.extend(written);
            loaded.records.extend(records);
        }
        loaded.usage = bench.meter.since(&start).ok();
        loaded.faults = harm.and_then(|thread| thread.join().ok()).unwrap_or_default();
    });
    let keys: Vec<String> = keys.into_iter().collect();
    let left = look_back(bench, &shared, &keys, &mut loaded.records);
    if left > 0 {
        loaded.notes.push(format!("{left} variables under {} could not be removed in time", shared.folder));
    }
    flush(&shared, ask)?;
    Ok(loaded)
}

/// Reads all back by several threads, each through any server; gives how many variables are left.
fn look_back(bench: &Bench<'_>, shared: &Arc<Shared>, keys: &[String], records: &mut Vec<Record>) -> usize {
    let client = Client::new(bench.context.settings.clone());
    let mut left = 0;
    thread::scope(|scope| {
        let chunks = keys.chunks(keys.len().div_ceil(FINAL_READERS).max(1));
        let reading: Vec<_> = chunks
            .enumerate()
            .map(|(nth, keys)| {
                let way = Way::Library(client.clone());
                let process = u32::try_from(nth).unwrap_or(u32::MAX);
                let rng = Rng::from_seed(0);
                let mut worker =
                    Worker { way, shared: Arc::clone(shared), process, records: Vec::new(), rng, is_final: true };
                scope.spawn(move || (worker.look_back(keys), worker.records))
            })
            .collect();
        for (some, read) in reading.into_iter().filter_map(|thread| thread.join().ok()) {
            left += some;
            records.extend(read);
        }
    });
    left
}

/// One that begins with another server than its neighbour.
fn worker(bench: &Bench<'_>, mode: CheckMode, nth: usize, shared: &Arc<Shared>) -> Result<Worker, Failure> {
    let settings = &bench.context.settings;
    let mut addresses = settings.addresses();
    let first = nth.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(first);
    let is_plain = mode == CheckMode::Plain;
    addresses.truncate(if is_plain { 1 } else { usize::MAX });
    let waits_for_leader = !is_plain && settings.waits_for_leader;
    let client = Client::new(Settings { address: addresses.join(","), waits_for_leader, ..settings.clone() });
    let way = match mode {
        CheckMode::Plain => Way::Plain(client),
        CheckMode::Library => Way::Library(client),
        CheckMode::Session => {
            let (region, token) = (bench.context.region.clone(), bench.context.token.clone());
            let name = format!("bench check {nth}");
            Way::Session(client.session(SessionOptions { name, region, token, ..SessionOptions::default() })?)
        }
    };
    let process = u32::try_from(nth).unwrap_or(u32::MAX);
    let rng = Rng::from_seed(u64::from(process));
    let mut worker = Worker { way, shared: Arc::clone(shared), process, records: Vec::new(), rng, is_final: false };
    worker.read(&shared.folder).map_err(|error| Failure::Other(format!("before the beginning: {error}")))?;
    Ok(worker)
}

fn sink(ask: &CheckLoad) -> Result<Option<Mutex<Sink>>, Failure> {
    let Some(path) = &ask.history else { return Ok(None) };
    let file = File::create(path).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    Ok(Some(Mutex::new(Sink { out: BufWriter::new(file), failed: None })))
}

fn flush(shared: &Shared, ask: &CheckLoad) -> Result<(), Failure> {
    let (Some(sink), Some(path)) = (&shared.sink, &ask.history) else { return Ok(()) };
    let mut sink = sink.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = sink.failed.take().map_or_else(|| sink.out.flush(), Err);
    failed.map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}
