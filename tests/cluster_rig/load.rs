//! Clients that write, read and wait while servers die: each notes when it asked, when it heard and what. A client that
//! finds nobody at its server goes to the next one, as real ones do.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::caller::{Answer, Caller, Trouble, number_of};
use super::history::{History, Outcome, Read, Write};
use super::servers::{Addresses, Cluster};
use crate::rig::{breathe, eventually};

/// Who works against which servers.
#[derive(Clone)]
pub struct Work {
    /// One variable each: the even ones set, the odd ones check and set.
    pub writers: usize,
    pub readers: usize,
    /// Clients with a blocking query each.
    pub waiters: usize,
    /// Homes of the clients, in turn; they go to the others of these when nobody is there.
    pub servers: Vec<usize>,
}

impl Work {
    /// A little of all through these servers.
    pub fn through(servers: &[usize]) -> Work {
        Work { writers: 6, readers: 3, waiters: 3, servers: servers.to_vec() }
    }
}

/// Clients at work.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    work: Work,
    addresses: Addresses,
    start: Instant,
    ends: AtomicBool,
    acknowledged: AtomicU64,
    /// The variable that each writer writes to now.
    paths: Mutex<Vec<String>>,
    history: Mutex<History>,
    failures: Mutex<Vec<String>>,
    moved: AtomicU64,
    unanswered: AtomicU64,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    pub history: History,
    /// Calls that ended in an error, each with its words.
    pub failures: Vec<String>,
    pub done: usize,
    /// Writes of which nobody knows.
    pub unknown: usize,
    /// Calls that went to another server, since nobody listened at the first.
    pub moved: u64,
    /// Of the unknown, and of reads that were asked again: the connection ended without an answer.
    pub unanswered: u64,
    /// The longest time in which no write was acknowledged.
    pub longest_gap: Duration,
    /// The longest that a single write took, whatever came of it.
    pub longest_write: Duration,
}

/// How long a call may take before it counts as failed.
const CALL_TIME_MAX: Duration = Duration::from_secs(15);

impl Load {
    pub fn start(cluster: &Cluster, work: Work) -> Load {
        static LOADS: AtomicU64 = AtomicU64::new(0);
        let load = LOADS.fetch_add(1, Ordering::Relaxed);
        let paths = (0..work.writers).map(|writer| format!("load{load}/w{writer}/0")).collect();
        let shared = Arc::new(Shared {
            addresses: cluster.addresses.clone(),
            start: Instant::now(),
            ends: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            paths: Mutex::new(paths),
            history: Mutex::default(),
            failures: Mutex::default(),
            moved: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
            work,
        });
        let mut threads = Vec::new();
        let mut begin = |count: usize, run: fn(Client, usize)| {
            for number in 0..count {
                let client = Client { shared: shared.clone(), caller: Caller::default(), home: number };
                threads.push(thread::spawn(move || run(client, number)));
            }
        };
        begin(shared.work.writers, Client::write);
        begin(shared.work.readers, Client::read);
        begin(shared.work.waiters, Client::wait);
        Load { shared, threads }
    }

    /// Since its start.
    pub fn time(&self) -> Duration {
        self.shared.start.elapsed()
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes are acknowledged.
    #[track_caller]
    pub fn until_more(&self, count: u64) {
        let before = self.acknowledged();
        eventually("writes", || (self.acknowledged() >= before + count).then_some(()));
    }

    /// Ends the clients, reads every variable once more, and counts.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        self.shared.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        self.read_last();
        let history = std::mem::take(&mut *self.shared.history.lock().unwrap());
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        let mut ends: Vec<u64> = Vec::new();
        let mut longest_write = 0;
        for write in &history.writes {
            longest_write = longest_write.max(write.end - write.begin);
            if matches!(write.outcome, Outcome::Done(_)) {
                ends.push(write.end);
            }
        }
        ends.sort_unstable();
        let gap = ends.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0);
        Report {
            failures,
            done: ends.len(),
            unknown: history.writes.iter().filter(|write| write.outcome == Outcome::Unknown).count(),
            moved: self.shared.moved.load(Ordering::Relaxed),
            unanswered: self.shared.unanswered.load(Ordering::Relaxed),
            longest_gap: Duration::from_nanos(gap),
            longest_write: Duration::from_nanos(longest_write),
            history,
        }
    }

    /// What every variable holds in the end, asked of each server in turn.
    #[track_caller]
    fn read_last(&self) {
        let mut paths: Vec<String> =
            self.shared.history.lock().unwrap().writes.iter().map(|w| w.path.clone()).collect();
        paths.sort();
        paths.dedup();
        for (number, path) in paths.iter().enumerate() {
            let mut client = Client { shared: self.shared.clone(), caller: Caller::default(), home: number };
            eventually("a last read", || client.read_once(path, None));
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

struct Client {
    shared: Arc<Shared>,
    caller: Caller,
    home: usize,
}

impl Client {
    fn now(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_nanos()).unwrap()
    }

    fn goes_on(&self) -> bool {
        !self.shared.ends.load(Ordering::Relaxed)
    }

    fn server(&self) -> Option<SocketAddr> {
        let servers = &self.shared.work.servers;
        self.shared.addresses.lock().unwrap()[servers[self.home % servers.len()]]
    }

    fn fail(&self, what: String) {
        let at = self.shared.start.elapsed();
        self.shared.failures.lock().unwrap().push(format!("{at:?}: {what}"));
    }

    /// Asks, at another server where nobody listens at the first. `None`: the answer never came.
    fn ask(
        &mut self,
        mut ask: impl FnMut(&mut Caller, SocketAddr) -> Result<Answer, Trouble>,
    ) -> Result<Option<Answer>, String> {
        let deadline = Instant::now() + CALL_TIME_MAX;
        loop {
            let trouble = match self.server() {
                None => "no server".to_owned(),
                Some(server) => match ask(&mut self.caller, server) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(Trouble::TooLate) => return Err("no answer in time".to_owned()),
                    Err(Trouble::NoAnswer(_)) => {
                        self.shared.unanswered.fetch_add(1, Ordering::Relaxed);
                        self.home += 1;
                        return Ok(None);
                    }
                    Err(Trouble::NotSent(error)) => error.to_string(),
                },
            };
            self.home += 1;
            self.shared.moved.fetch_add(1, Ordering::Relaxed);
            if Instant::now() > deadline {
                return Err(trouble);
            }
            breathe();
        }
    }

    fn write(mut self, writer: usize) {
        let (mut number, mut index, mut generation) = (0, 0, 0);
        while self.goes_on() {
            let path = self.shared.paths.lock().unwrap()[writer].clone();
            number += 1;
            let query = if writer % 2 == 1 { format!("?cas={index}") } else { String::new() };
            let begin = self.now();
            let asked = self.ask(|caller, server| caller.write_var(server, &path, number, &query));
            let end = self.now();
            let outcome = match asked {
                Ok(Some(answer)) => self.outcome_of(&answer, number),
                Ok(None) => Outcome::Unknown,
                Err(what) => {
                    self.fail(format!("write {path} {number}: {what}"));
                    Outcome::Unknown
                }
            };
            let write = Write { path: path.clone(), number, begin, end, outcome };
            self.shared.history.lock().unwrap().writes.push(write);
            if let Outcome::Done(at) = outcome {
                index = at;
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                // Whatever it was, it may still come: nobody writes here any more.
                generation += 1;
                (number, index) = (0, 0);
                let base = path.rsplit_once('/').unwrap().0;
                self.shared.paths.lock().unwrap()[writer] = format!("{base}/{generation}");
            }
        }
    }

    fn outcome_of(&self, answer: &Answer, number: u64) -> Outcome {
        match number_of(answer) {
            Some((written, index)) if written == number => return Outcome::Done(index),
            Some((written, _)) => self.fail(format!("wrote {number}, answered {written}")),
            None => {}
        }
        let text = answer.text();
        match answer.status {
            409 => Outcome::Conflict,
            // The second is what the leader itself says when it loses the lead with the write under way.
            _ if text.contains("outcome unknown") || text.contains("leadership lost") => Outcome::Unknown,
            status => {
                self.fail(format!("write: {status} {text}"));
                // What is refused without knowing is not said to be refused.
                if status < 500 { Outcome::Failed } else { Outcome::Unknown }
            }
        }
    }

    fn read(mut self, reader: usize) {
        let mut turn = reader;
        while self.goes_on() {
            turn += 1;
            let path = self.path(turn);
            self.read_once(&path, None);
            // Readers leave the machine to the writers.
            breathe();
        }
    }

    fn wait(mut self, waiter: usize) {
        let (mut last, mut turn) = (None, waiter);
        while self.goes_on() {
            let path = match &last {
                Some((path, _)) => String::clone(path),
                None => self.path(turn),
            };
            let index = last.as_ref().map_or(0, |(_, index)| *index);
            let came = self.read_once(&path, (index > 0).then_some(index));
            turn += 1;
            // After some answers it goes to the variable that is written now.
            last = came.filter(|_| !turn.is_multiple_of(16)).map(|index| (path, index));
        }
    }

    fn path(&self, turn: usize) -> String {
        let paths = self.shared.paths.lock().unwrap();
        paths[turn % paths.len()].clone()
    }

    /// One read that is noted; gives the answer's index.
    fn read_once(&mut self, path: &str, waited: Option<u64>) -> Option<u64> {
        let target = match waited {
            None => format!("/v1/var/{path}"),
            Some(index) => format!("/v1/var/{path}?index={index}&wait=1500ms"),
        };
        let begin = self.now();
        let asked = self.ask(|caller, server| caller.ask(server, "GET", &target, b"", CALL_TIME_MAX));
        let end = self.now();
        let answer = match asked {
            Ok(answer) => answer?,
            Err(what) => {
                self.fail(format!("read {target}: {what}"));
                return None;
            }
        };
        if !matches!(answer.status, 200 | 404) {
            self.fail(format!("read {target}: {} {}", answer.status, answer.text()));
            return None;
        }
        let (number, modify_index) = number_of(&answer).unwrap_or((0, 0));
        let read = Read { path: path.to_owned(), number, modify_index, index: answer.index, begin, end, waited };
        self.shared.history.lock().unwrap().reads.push(read);
        Some(answer.index)
    }
}

impl Report {
    /// One line of a table.
    pub fn line(&self, what: &str) -> String {
        let verdict = self.history.judge();
        format!(
            "{what:<16} done {:>6}  failed {:>3}  unknown {:>3}  gap {:>6} ms  slowest {:>6} ms  lost {}  doubled {}  stale {}  at deadline {}",
            self.done,
            self.failures.len(),
            self.unknown,
            self.longest_gap.as_millis(),
            self.longest_write.as_millis(),
            verdict.lost.len(),
            verdict.doubled.len(),
            verdict.stale.len() + verdict.backward.len() + verdict.invented.len(),
            verdict.stale_at_deadline.len(),
        )
    }

    /// No call failed, no gap is longer, and the notes hold no contradiction.
    #[track_caller]
    pub fn assert_sound(&self, gap_max: Duration) {
        self.history.judge().assert_clean();
        assert!(
            self.failures.is_empty(),
            "{} failed: {:#?}",
            self.failures.len(),
            &self.failures[..self.failures.len().min(12)]
        );
        assert!(self.longest_gap < gap_max, "{:?} without a write", self.longest_gap);
        assert!(self.done > 0, "nothing was written");
    }
}
