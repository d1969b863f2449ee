//! What the tests of the simulation share: many seeds, one seed that shows what happened, the same seed twice, and
//! mistakes that must be caught. [`Worlds`] says which worlds.
//!
//! `HOLDFAST_SIM_SEEDS=N` tries N seeds, from `HOLDFAST_SIM_FROM` on when that is set. A failure prints the seed;
//! `HOLDFAST_SIM_SEED=N` lives through that one again and prints what happened in it last.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, unreachable_pub)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use holdfast::sim::{Fault, Options, Report, World};

/// A mistake that is not caught in so many seeds is not caught.
const MOST_SEEDS: u64 = 1000;

/// Worlds of one kind.
pub struct Worlds {
    /// Seeds of a build, when nothing else is said.
    pub seeds: u64,
    /// The world of a seed.
    pub of: fn(u64) -> Options,
    /// The same with a mistake in it.
    pub planted: fn(u64, Fault) -> Options,
}

/// What came of many seeds.
#[derive(Default)]
struct Sum {
    seeds: u64,
    time: Duration,
    answered: usize,
    entries: u64,
    documents: usize,
    lives: usize,
    reigns: usize,
    stamped: usize,
    sessions: usize,
    unknown: usize,
    hurried: usize,
    lost: usize,
    injected: BTreeMap<&'static str, u64>,
}

impl Sum {
    const fn new() -> Sum {
        Sum {
            seeds: 0,
            time: Duration::ZERO,
            answered: 0,
            entries: 0,
            documents: 0,
            lives: 0,
            reigns: 0,
            stamped: 0,
            sessions: 0,
            unknown: 0,
            hurried: 0,
            lost: 0,
            injected: BTreeMap::new(),
        }
    }

    fn add(&mut self, more: &Sum) {
        self.seeds += more.seeds;
        self.time += more.time;
        self.answered += more.answered;
        self.entries += more.entries;
        self.documents += more.documents;
        self.lives += more.lives;
        self.reigns += more.reigns;
        self.stamped += more.stamped;
        self.sessions += more.sessions;
        self.unknown += more.unknown;
        self.hurried += more.hurried;
        self.lost += more.lost;
        for (kind, count) in &more.injected {
            *self.injected.entry(kind).or_default() += count;
        }
    }

    fn print(&self, what: &str) {
        let hours = self.time.as_secs_f64() / 3600.0;
        let Sum {
            seeds, answered, entries, documents, lives, reigns, stamped, sessions, unknown, hurried, lost, ..
        } = self;
        println!("{what}: seeds {seeds}, virtual hours {hours:.1}, processes {lives}, leaderships {reigns}");
        println!("{what}: answered {answered}, entries {entries}, documents {documents}");
        println!(
            "{what}: in {sessions} sessions {stamped} writes answered; of others {unknown} unknown ({hurried} soon), {lost} lost"
        );
        println!("{what}: injected {} in all, {:?}", self.injected.values().sum::<u64>(), self.injected);
    }
}

impl From<Report> for Sum {
    fn from(report: Report) -> Sum {
        let Report { time, answered, entries, documents, lives, reigns, injected, .. } = report;
        let Report { stamped, sessions, unknown, hurried, lost, .. } = report;
        let seeds = 1;
        Sum {
            seeds,
            time,
            answered,
            entries,
            documents,
            lives,
            reigns,
            stamped,
            sessions,
            unknown,
            hurried,
            lost,
            injected,
        }
    }
}

/// Of all tests of this program that have ended.
static SO_FAR: Mutex<Sum> = Mutex::new(Sum::new());

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

impl Worlds {
    fn run(&self, seed: u64) -> Report {
        World::new((self.of)(seed)).run()
    }

    /// Every second seed, so that two tests share the work.
    pub fn try_seeds(&self, odd: u64) {
        let from = number("HOLDFAST_SIM_FROM").unwrap_or(0);
        let mut sum = Sum::default();
        for seed in (from..from + number("HOLDFAST_SIM_SEEDS").unwrap_or(self.seeds)).filter(|seed| seed % 2 == odd) {
            let report = self.run(seed);
            let shown = report.wrongs.join("\n");
            assert!(report.wrongs.is_empty(), "seed {seed} (HOLDFAST_SIM_SEED={seed} shows it again):\n{shown}");
            sum.add(&report.into());
        }
        sum.print("here");
        // The worlds are not empty.
        assert!(sum.answered > 500 && sum.entries > 100 && sum.documents > 20 && sum.lives > 10 && sum.reigns > 3);
        let mut so_far = SO_FAR.lock().unwrap();
        so_far.add(&sum);
        so_far.print("so far");
    }

    /// Shows what happened in the seed that was asked for, if one was.
    pub fn show_one(&self) {
        let Some(seed) = number("HOLDFAST_SIM_SEED") else { return };
        let report = World::new(Options { keep_log: true, ..(self.of)(seed) }).run();
        println!("{}", report.log.join("\n"));
        assert!(report.wrongs.is_empty(), "seed {seed}:\n{}", report.wrongs.join("\n"));
    }

    /// The same seed gives the same trace, and each seed another. (Goal 3.)
    pub fn replay(&self, seeds: u64) {
        let mut hashes = BTreeSet::new();
        for seed in 0..seeds {
            let (first, second) = (self.run(seed), self.run(seed));
            let key = |report: &Report| (report.hash, report.steps, report.entries);
            assert_eq!(key(&first), key(&second), "seed {seed}");
            // What is kept for people changes nothing.
            let shown = World::new(Options { keep_log: true, ..(self.of)(seed) }).run();
            assert_eq!(shown.hash, first.hash, "seed {seed}");
            hashes.insert(first.hash);
        }
        assert_eq!(hashes.len() as u64, seeds);
    }

    /// A mistake is caught, and not before it is made. (Goal 2.)
    pub fn catch(&self, fault: Fault) {
        let found = (0..MOST_SEEDS).find_map(|seed| {
            let report = World::new((self.planted)(seed, fault)).run();
            let shown = report.wrongs.into_iter().next()?;
            let made = report.faults_done > 0 || !is_counted(fault);
            assert!(made, "seed {seed} is wrong before the mistake is made: {shown}");
            Some((seed, shown))
        });
        let Some((seed, shown)) = found else { panic!("{fault:?} was not caught in {MOST_SEEDS} seeds") };
        println!("{fault:?} was caught in {} seeds: {shown}", seed + 1);
    }
}

/// Whether the world counts how often the mistake is made; some are there all the time.
fn is_counted(fault: Fault) -> bool {
    !matches!(fault, Fault::SkewedTimers | Fault::LateTimeouts | Fault::ForgetTornTail)
}

/// A test for each mistake, and one that none of a list is left out.
macro_rules! faults {
    ($worlds:expr, all of $all:expr; $($name:ident: $fault:ident;)*) => {
        $(
            #[test]
            fn $name() {
                $worlds.catch(Fault::$fault);
            }
        )*

        #[test]
        fn every_mistake_has_a_test() {
            assert_eq!([$(Fault::$fault),*].as_slice(), $all.as_slice());
        }
    };
}
