//! What clients asked and heard, and a judge of it. Each variable has one writer, which writes 1, 2, 3 and so on and
//! leaves the variable for good once it does not know what became of a write: so every read has a least and a greatest
//! number that it may show.
//!
//! Pure: it is handed times, as nanoseconds of one clock.

use std::collections::BTreeMap;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, with the variable's index.
    Done(u64),
    /// Nobody knows: it may be there, now or later.
    Unknown,
    /// Refused: it must never be seen.
    Failed,
    /// A check-and-set found another index than its only writer knew.
    Conflict,
}

/// A write of a number.
#[derive(Clone, Debug)]
pub struct Write {
    pub path: String,
    pub number: u64,
    pub begin: u64,
    pub end: u64,
    pub outcome: Outcome,
}

/// A read with default consistency, plain or parked.
#[derive(Clone, Debug)]
pub struct Read {
    pub path: String,
    /// 0 where there was no variable.
    pub number: u64,
    /// The variable's.
    pub modify_index: u64,
    /// The answer's.
    pub index: u64,
    pub begin: u64,
    pub end: u64,
    /// The index that it waited to be passed; `None` for a plain read.
    pub waited: Option<u64>,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
}

/// What is wrong, in words; nothing where all is well.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Acknowledged, and not in the last read.
    pub lost: Vec<String>,
    /// Applied twice, or done again after it was done.
    pub doubled: Vec<String>,
    /// Older than a write that was acknowledged before the read began.
    pub stale: Vec<String>,
    /// Parked, and answered with what was long over at its deadline.
    pub stale_at_deadline: Vec<String>,
    /// Older than what a read before it had shown, or an index that went back.
    pub backward: Vec<String>,
    /// Never written, refused, or not begun yet.
    pub invented: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.all().is_empty()
    }

    fn all(&self) -> Vec<&String> {
        let lists = [&self.lost, &self.doubled, &self.stale, &self.stale_at_deadline, &self.backward, &self.invented];
        lists.into_iter().flatten().collect()
    }

    #[track_caller]
    pub fn assert_clean(&self) {
        let all = self.all();
        assert!(all.is_empty(), "{} faults, of them: {:#?}", all.len(), &all[..all.len().min(12)]);
    }
}

/// How old an answer at a deadline may be: it is made there, and then takes its way back.
const DEADLINE_SLACK_NANOS: u64 = 1_000_000_000;

impl History {
    /// Looks at each variable by itself.
    pub fn judge(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let mut by_path: BTreeMap<&str, (Vec<&Write>, Vec<&Read>)> = BTreeMap::new();
        for write in &self.writes {
            by_path.entry(&write.path).or_default().0.push(write);
        }
        for read in &self.reads {
            by_path.entry(&read.path).or_default().1.push(read);
        }
        for (writes, reads) in by_path.values_mut() {
            writes.sort_by_key(|write| write.number);
            reads.sort_by_key(|read| read.end);
            judge_writes(writes, &mut verdict);
            judge_reads(writes, reads, &mut verdict);
            judge_order(reads, &mut verdict);
            judge_indexes(writes, reads, &mut verdict);
            judge_last(writes, reads, &mut verdict);
        }
        verdict
    }
}

fn judge_writes(writes: &[&Write], verdict: &mut Verdict) {
    let mut last = 0;
    for write in writes {
        match write.outcome {
            Outcome::Conflict => verdict.doubled.push(format!("a conflict without another writer: {write:?}")),
            Outcome::Done(index) if index <= last => {
                verdict.backward.push(format!("written at {index} after {last}: {write:?}"));
            }
            Outcome::Done(index) => last = index,
            Outcome::Unknown | Outcome::Failed => {}
        }
    }
}

/// The greatest number that was acknowledged before a time. Numbers and times rise together: one writer.
fn acknowledged_before(writes: &[&Write], time: u64) -> u64 {
    let begun = writes.partition_point(|write| write.begin < time);
    let is_done = |write: &&&Write| matches!(write.outcome, Outcome::Done(_)) && write.end < time;
    writes[..begun].iter().rev().find(is_done).map_or(0, |write| write.number)
}

fn judge_reads(writes: &[&Write], reads: &[&Read], verdict: &mut Verdict) {
    for read in reads {
        let floor = acknowledged_before(writes, read.begin);
        if read.number < floor {
            verdict.stale.push(format!("{floor} was acknowledged before it began: {read:?}"));
        }
        let due = acknowledged_before(writes, read.end.saturating_sub(DEADLINE_SLACK_NANOS));
        if read.waited.is_some() && read.number < due && read.number >= floor {
            verdict.stale_at_deadline.push(format!("{due} was acknowledged long before its end: {read:?}"));
        }
        let found = writes.binary_search_by_key(&read.number, |write| write.number).ok().map(|at| writes[at]);
        let may_be = match found {
            None => read.number == 0,
            Some(write) => write.outcome != Outcome::Failed && write.begin <= read.end,
        };
        if !may_be {
            verdict.invented.push(format!("{found:?} seen by {read:?}"));
        }
    }
}

/// What one read has shown, no read that began after its end may have forgotten; and a query that waited for more than
/// an index never answers with less.
fn judge_order(reads: &[&Read], verdict: &mut Verdict) {
    let mut begun: Vec<&Read> = reads.to_vec();
    begun.sort_by_key(|read| read.begin);
    let (mut ended, mut greatest) = (reads.iter().peekable(), 0);
    for read in begun {
        while let Some(before) = ended.next_if(|before| before.end < read.begin) {
            greatest = greatest.max(before.number);
        }
        if read.number < greatest {
            verdict.backward.push(format!("{greatest} was seen before it began: {read:?}"));
        }
        if read.waited.is_some_and(|index| read.index < index) {
            verdict.backward.push(format!("an index went back: {read:?}"));
        }
    }
}

/// One write leaves one index, the one that was acknowledged.
fn judge_indexes(writes: &[&Write], reads: &[&Read], verdict: &mut Verdict) {
    let mut indexes: BTreeMap<u64, u64> = BTreeMap::new();
    for write in writes {
        if let Outcome::Done(index) = write.outcome {
            indexes.insert(write.number, index);
        }
    }
    for read in reads.iter().filter(|read| read.number > 0) {
        let index = *indexes.entry(read.number).or_insert(read.modify_index);
        if index != read.modify_index {
            verdict.doubled.push(format!("written at {index}: {read:?}"));
        }
    }
}

fn judge_last(writes: &[&Write], reads: &[&Read], verdict: &mut Verdict) {
    let acknowledged = acknowledged_before(writes, u64::MAX);
    let last = reads.iter().max_by_key(|read| read.begin);
    let over = writes.iter().map(|write| write.end).max().unwrap_or(0);
    if let Some(read) = last.filter(|read| read.begin > over && read.number < acknowledged) {
        verdict.lost.push(format!("{acknowledged} was acknowledged: {read:?}"));
    }
}
