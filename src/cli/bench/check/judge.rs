//! What a history says: how many calls ended how, and which promises were broken. Pure: it knows the history only, so
//! that one written by any other program can be judged.
//!
//! Each variable is judged by itself, and that every call on it fits one order ([`order`]) is the whole of the promise;
//! the rules beside it say in what way it was broken.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::bench::check::history::{Kind, Outcome, Record};
use crate::cli::bench::check::order;
use crate::cli::bench::check::order::Order;

/// Broken promises that are told with their words.
const EXAMPLES_MAX: usize = 8;

/// What a history says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Calls of the load: those made after it to see what is there are not counted here.
    pub(crate) calls: u64,
    pub(crate) writes: u64,
    pub(crate) reads: u64,
    /// Calls that surely had no effect because of the cluster's state; of reads, those without an answer.
    pub(crate) failed: u64,
    /// Appends that were refused because another came first.
    pub(crate) conflicts: u64,
    pub(crate) unknown: u64,
    /// Of the unknown, those that were seen.
    pub(crate) unknown_applied: u64,
    /// Calls that failed or have an unknown outcome, by what the error meant.
    pub(crate) classes: BTreeMap<(Outcome, String), u64>,
    /// Longest time that one process waited from one success to the next.
    pub(crate) longest_gap_ns: u64,
    /// From the first question of the load to its last answer.
    pub(crate) span_ns: u64,
    pub(crate) keys: u64,
    /// Writes that were acknowledged or seen, and are not there in the end.
    pub(crate) lost: u64,
    /// Writes that took place twice.
    pub(crate) doubled: u64,
    /// Reads of what was replaced before they were asked.
    pub(crate) stale: u64,
    /// Writes that were refused and are there.
    pub(crate) refused_there: u64,
    /// Elements that were seen and nobody wrote, or not before they were seen.
    pub(crate) invented: u64,
    /// Variables without an order of their calls that fits.
    pub(crate) unordered: u64,
    /// Variables with too many orders to look at.
    pub(crate) undecided: u64,
    /// Variables with acknowledged writes that nobody read afterwards.
    pub(crate) unread: u64,
    /// What was found, in words.
    pub(crate) examples: Vec<String>,
}

impl Judgement {
    /// Whether a promise was broken.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost + self.doubled + self.stale + self.refused_there + self.invented + self.unordered > 0
    }

    /// Whether all was judged.
    pub(crate) fn is_whole(&self) -> bool {
        self.undecided + self.unread == 0
    }

    fn say(&mut self, what: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what());
        }
    }
}

/// Judges a history.
pub(crate) fn judge(records: &[Record]) -> Judgement {
    let mut judgement = Judgement::default();
    count(records, &mut judgement);
    let mut by_key: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in records {
        by_key.entry(&record.key).or_default().push(record);
    }
    for (key, records) in by_key {
        judgement.keys += 1;
        rules(key, &records, &mut judgement);
        match order::find(&records) {
            Order::Fits => {}
            Order::None(stuck) => {
                judgement.unordered += 1;
                judgement.say(|| format!("no order of the calls on {key} fits: {stuck}"));
            }
            Order::Undecided => {
                judgement.undecided += 1;
                judgement.say(|| format!("too many orders of the calls on {key} to look at"));
            }
        }
    }
    judgement
}

fn count(records: &[Record], into: &mut Judgement) {
    let load = || records.iter().filter(|record| !record.is_final);
    let begin = load().map(|record| record.call_ns).min().unwrap_or(0);
    let end = load().map(|record| record.return_ns).max().unwrap_or(0);
    into.span_ns = end.saturating_sub(begin);
    let mut processes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in load() {
        into.calls += 1;
        *if record.kind == Kind::Read { &mut into.reads } else { &mut into.writes } += 1;
        let successes = processes.entry(record.process).or_insert_with(|| vec![begin, end]);
        match record.outcome {
            // A server that says no because another came first is well.
            _ if record.outcome == Outcome::Ok || record.is_conflict() => {
                into.conflicts += u64::from(record.is_conflict());
                successes.push(record.return_ns);
                continue;
            }
            Outcome::Unknown => into.unknown += 1,
            Outcome::Ok | Outcome::Fail => into.failed += 1,
        }
        *into.classes.entry((record.outcome, record.class.clone())).or_insert(0) += 1;
    }
    for mut successes in processes.into_values() {
        successes.sort_unstable();
        let gaps = successes.iter().zip(successes.iter().skip(1)).map(|(one, next)| next - one);
        into.longest_gap_ns = into.longest_gap_ns.max(gaps.max().unwrap_or(0));
    }
}

/// The calls on one variable, as the rules need them.
struct OfKey<'a> {
    key: &'a str,
    writers: BTreeMap<&'a str, &'a Record>,
    /// Reads with an answer.
    reads: Vec<&'a Record>,
    /// The read after all that was acknowledged.
    last: Option<&'a Record>,
    seen: BTreeSet<&'a str>,
}

/// Says in what way a promise was broken.
fn rules(key: &str, records: &[&Record], into: &mut Judgement) {
    let writers: BTreeMap<&str, &Record> =
        records.iter().filter_map(|record| Some((record.element()?, *record))).collect();
    let reads: Vec<&Record> =
        records.iter().filter(|one| one.kind == Kind::Read && one.outcome == Outcome::Ok).copied().collect();
    let acknowledged = writers.values().filter(|write| write.outcome == Outcome::Ok);
    let settled = acknowledged.map(|write| write.return_ns).max();
    let last = reads.iter().max_by_key(|read| read.call_ns).copied();
    let last = last.filter(|read| settled.is_none_or(|settled| read.call_ns >= settled));
    let seen = reads.iter().flat_map(|read| read.elements()).collect();
    let of = OfKey { key, writers, reads, last, seen };
    if settled.is_some() && of.last.is_none() {
        into.unread += 1;
        into.say(|| format!("{key} was not read after its last write"));
    }
    let unknown = of.seen.iter().filter_map(|element| of.writers.get(element));
    into.unknown_applied += unknown.filter(|write| write.outcome == Outcome::Unknown).count() as u64;
    refused_there(&of, into);
    invented(&of, into);
    doubled(&of, into);
    // Where values replace each other only the order tells.
    let is_list = of.writers.values().all(|write| write.kind == Kind::Append);
    if is_list || of.writers.len() == 1 {
        lost(&of, into);
        stale(&of, into);
    }
}

fn refused_there(of: &OfKey<'_>, into: &mut Judgement) {
    for (element, write) in &of.writers {
        if write.outcome == Outcome::Fail && of.seen.contains(element) {
            into.refused_there += 1;
            into.say(|| format!("{element} was refused ({}) and is in {}", write.class, of.key));
        }
    }
}

fn invented(of: &OfKey<'_>, into: &mut Judgement) {
    let mut told = BTreeSet::new();
    for read in &of.reads {
        for element in read.elements() {
            let known = of.writers.get(element).is_some_and(|write| write.call_ns <= read.return_ns);
            if !known && told.insert(element) {
                into.invented += 1;
                into.say(|| format!("{element} was seen in {} before anybody wrote it", of.key));
            }
        }
    }
}

fn doubled(of: &OfKey<'_>, into: &mut Judgement) {
    let mut twice: BTreeMap<&str, String> = BTreeMap::new();
    let mut indexes: BTreeMap<&str, u64> = BTreeMap::new();
    let acknowledged = of.writers.values().filter(|write| write.outcome == Outcome::Ok);
    let told: BTreeSet<u64> = acknowledged.map(|write| write.index).collect();
    for read in &of.reads {
        let mut once = BTreeSet::new();
        for element in read.elements().filter(|element| !once.insert(*element)) {
            twice.entry(element).or_insert_with(|| format!("{element} is twice in {}", of.key));
        }
        let Some(newest) = read.elements().last() else { continue };
        let known = *indexes.entry(read.value.as_deref().unwrap_or_default()).or_insert(read.index);
        // At the index of another write it is in the wrong place, and there once.
        let is_misplaced = told.contains(&read.index);
        let written = of.writers.get(newest).filter(|write| write.outcome == Outcome::Ok && !is_misplaced);
        let written = written.map_or(read.index, |write| write.index);
        for other in [known, written] {
            if other != read.index {
                let words = || format!("{newest} was written to {} at {other} and at {}", of.key, read.index);
                twice.entry(newest).or_insert_with(words);
            }
        }
        let is_single = of.writers.len() == 1 && of.writers.contains_key(newest) && read.create_index > 0;
        if is_single && read.create_index != read.index {
            let words = || format!("{newest} was written to {} at {} and at {}", of.key, read.create_index, read.index);
            twice.entry(newest).or_insert_with(words);
        }
    }
    into.doubled += twice.len() as u64;
    for words in twice.into_values() {
        into.say(|| words);
    }
}

fn lost(of: &OfKey<'_>, into: &mut Judgement) {
    let Some(last) = of.last else { return };
    let there: BTreeSet<&str> = last.elements().collect();
    for (element, write) in &of.writers {
        let was_there = write.outcome == Outcome::Ok || of.seen.contains(element);
        if was_there && !there.contains(element) {
            into.lost += 1;
            into.say(|| format!("{element}, written to {} at index {}, is not there in the end", of.key, write.index));
        }
    }
}

/// Reads of an index below one that was told before they were asked, unless that one is lost.
fn stale(of: &OfKey<'_>, into: &mut Judgement) {
    let Some(last) = of.last else { return };
    let writes = of.writers.values().filter(|write| write.outcome == Outcome::Ok).copied();
    let mut told: Vec<(u64, u64)> = writes
        .chain(of.reads.iter().copied())
        .filter(|one| one.index <= last.index)
        .map(|one| (one.return_ns, one.index))
        .collect();
    told.sort_unstable();
    let mut highest = 0;
    for (_, index) in &mut told {
        highest = highest.max(*index);
        *index = highest;
    }
    for read in &of.reads {
        let before = told.partition_point(|(at, _)| *at < read.call_ns);
        let least = before.checked_sub(1).and_then(|at| told.get(at)).map_or(0, |(_, index)| *index);
        if read.index < least {
            into.stale += 1;
            into.say(|| {
                format!(
                    "a read of {} by process {} saw index {}, and {least} was told before",
                    of.key, read.process, read.index
                )
            });
        }
    }
}
