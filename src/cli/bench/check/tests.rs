//! The judge against planted harm and against histories of a model that is right; the whole command against a server
//! made of threads.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use super::history::{CONFLICT, Kind, Outcome, Record};
use super::judge::{Judgement, judge};
use crate::base::rng::Rng;
use crate::cli::Exit;
use crate::cli::bench::tests::{Harm, bench, figure, variables};

fn record(kind: Kind, key: &str, value: Option<&str>, times: (u64, u64), index: u64) -> Record {
    Record {
        process: 0,
        kind,
        key: key.to_owned(),
        value: value.map(str::to_owned),
        base: None,
        call_ns: times.0,
        return_ns: times.1,
        outcome: Outcome::Ok,
        index,
        create_index: 0,
        class: String::new(),
        is_final: false,
    }
}

fn append(element: &str, base: u64, times: (u64, u64), index: u64) -> Record {
    Record { base: Some(base), ..record(Kind::Append, "list", Some(element), times, index) }
}

fn set(element: &str, times: (u64, u64), index: u64) -> Record {
    record(Kind::Set, "one", Some(element), times, index)
}

fn read(key: &str, value: &str, times: (u64, u64), index: u64) -> Record {
    let value = (!value.is_empty()).then_some(value);
    Record { create_index: index.min(5), ..record(Kind::Read, key, value, times, index) }
}

fn unknown(write: Record) -> Record {
    Record { outcome: Outcome::Unknown, index: 0, class: "broken".to_owned(), ..write }
}

fn refused(write: Record, class: &str) -> Record {
    Record { outcome: Outcome::Fail, index: 0, class: class.to_owned(), ..write }
}

/// Lost, doubled, stale, refused and there, invented, variables without an order.
fn found(judgement: &Judgement) -> [u64; 6] {
    [
        judgement.lost,
        judgement.doubled,
        judgement.stale,
        judgement.refused_there,
        judgement.invented,
        judgement.unordered,
    ]
}

// R2.34: what is right is accepted, with unknown outcomes either way.
#[test]
fn histories_that_are_right_are_accepted() {
    let a = || append("a", 0, (1, 2), 5);
    for history in [
        vec![],
        vec![read("list", "", (0, 1), 0), a(), read("list", "a", (3, 4), 5)],
        // At the same time, either order.
        vec![append("a", 0, (1, 6), 5), read("list", "", (2, 3), 0), read("list", "a", (7, 8), 5)],
        vec![append("a", 0, (1, 6), 5), read("list", "a", (2, 3), 5), read("list", "a", (7, 8), 5)],
        // Another came first.
        vec![a(), refused(append("b", 0, (3, 4), 0), CONFLICT), read("list", "a", (5, 6), 5)],
        // Unknown: never, at once, late; one after the other.
        vec![a(), unknown(append("b", 5, (3, 4), 0)), read("list", "a", (5, 6), 5)],
        vec![a(), unknown(append("b", 5, (3, 4), 0)), read("list", "a b", (5, 6), 9)],
        vec![a(), unknown(append("b", 5, (3, 4), 0)), read("list", "a", (5, 6), 5), read("list", "a b", (7, 8), 9)],
        vec![
            a(),
            unknown(append("b", 5, (3, 4), 0)),
            unknown(append("c", 5, (3, 4), 0)),
            read("list", "a c", (7, 8), 9),
        ],
        vec![a(), refused(append("b", 5, (3, 4), 0), "not-leader"), read("list", "a", (5, 6), 5)],
        vec![set("a", (1, 2), 5), read("one", "a", (3, 4), 5)],
        vec![unknown(set("a", (1, 2), 0)), read("one", "", (3, 4), 0), read("one", "a", (5, 6), 5)],
    ] {
        let judgement = judge(&history);
        assert_eq!(found(&judgement), [0; 6], "{:?}", judgement.examples);
        assert!(!judgement.is_broken() && judgement.is_whole());
    }
}

// R2.34: each kind of harm is told by its name.
#[test]
fn planted_harm_is_found() {
    let (a, b) = (|| append("a", 0, (1, 2), 5), || append("b", 5, (3, 4), 6));
    for (history, expected) in [
        // Lost, when it was acknowledged and when it was only seen.
        (vec![a(), b(), read("list", "a", (5, 6), 5)], [1, 0, 0, 0, 0, 1]),
        (vec![set("a", (1, 2), 5), read("one", "", (3, 4), 0)], [1, 0, 0, 0, 0, 1]),
        (
            vec![a(), unknown(append("b", 5, (3, 4), 0)), read("list", "a b", (5, 6), 6), read("list", "a", (7, 8), 5)],
            [1, 0, 0, 0, 0, 1],
        ),
        // Doubled: twice there, or there once by two writes.
        (vec![a(), b(), read("list", "a b b", (5, 6), 7)], [0, 1, 0, 0, 0, 1]),
        (vec![set("a", (1, 2), 5), read("one", "a", (3, 4), 6)], [0, 1, 0, 0, 0, 1]),
        (vec![unknown(set("a", (1, 2), 0)), read("one", "a", (3, 4), 6)], [0, 1, 0, 0, 0, 0]),
        (
            vec![unknown(append("a", 0, (1, 2), 0)), read("list", "a", (3, 4), 5), read("list", "a", (5, 6), 8)],
            [0, 1, 0, 0, 0, 1],
        ),
        // A stale read, of what was acknowledged and of what another has seen.
        (vec![a(), b(), read("list", "a", (5, 6), 5), read("list", "a b", (7, 8), 6)], [0, 0, 1, 0, 0, 1]),
        (
            vec![
                append("a", 0, (1, 9), 5),
                read("list", "a", (2, 3), 5),
                read("list", "", (4, 5), 0),
                read("list", "a", (10, 11), 5),
            ],
            [0, 0, 1, 0, 0, 1],
        ),
        // Refused, and there all the same; also when it was tried twice, and the second try came second.
        (vec![refused(a(), "not-leader"), read("list", "a", (5, 6), 5)], [0, 0, 0, 1, 0, 1]),
        (vec![refused(a(), CONFLICT), read("list", "a", (5, 6), 5)], [0, 0, 0, 1, 0, 1]),
        // In another order than they were acknowledged.
        (vec![a(), b(), read("list", "b a", (5, 6), 6)], [0, 0, 0, 0, 0, 1]),
        (vec![a(), append("b", 5, (1, 2), 4), read("list", "a b", (5, 6), 4)], [0, 0, 0, 0, 0, 1]),
        // Nobody wrote it, or only later.
        (vec![a(), read("list", "a z", (5, 6), 6)], [0, 0, 0, 0, 1, 1]),
        (
            vec![read("list", "a", (0, 1), 5), append("a", 0, (2, 3), 5), read("list", "a", (4, 5), 5)],
            [0, 0, 0, 0, 1, 1],
        ),
        // Accepted although another had been.
        (vec![a(), append("b", 0, (3, 4), 6), read("list", "a b", (5, 6), 6)], [0, 0, 0, 0, 0, 1]),
        // Refused although nothing had changed.
        (vec![a(), refused(append("b", 5, (3, 4), 0), CONFLICT), read("list", "a", (5, 6), 5)], [0, 0, 0, 0, 0, 1]),
    ] {
        let judgement = judge(&history);
        assert_eq!(found(&judgement), expected, "{:?} of {history:?}", judgement.examples);
        assert!(judgement.is_broken());
    }
}

#[test]
fn what_nobody_read_back_is_not_proven() {
    let judgement = judge(&[append("a", 0, (1, 4), 5), read("list", "a", (2, 3), 5)]);
    assert_eq!((judgement.unread, judgement.is_broken(), judgement.is_whole()), (1, false, false));
}

#[test]
fn calls_gaps_and_classes_are_counted() {
    let second = 1_000_000_000;
    let history = [
        append("a", 0, (second, second + 1), 5),
        refused(append("b", 5, (second, 2 * second), 0), "not-sent"),
        refused(append("c", 5, (2 * second, 2 * second), 0), CONFLICT),
        unknown(append("d", 5, (2 * second, 3 * second), 0)),
        read("list", "a d", (4 * second, 5 * second), 6),
        Record { is_final: true, ..read("list", "a d", (9 * second, 9 * second), 6) },
    ];
    let judgement = judge(&history);
    assert_eq!((judgement.calls, judgement.writes, judgement.reads), (5, 4, 1));
    assert_eq!((judgement.failed, judgement.conflicts, judgement.unknown, judgement.unknown_applied), (1, 1, 1, 1));
    assert_eq!((judgement.span_ns, judgement.longest_gap_ns), (4 * second, 3 * second));
    let classes = [((Outcome::Fail, "not-sent".to_owned()), 1), ((Outcome::Unknown, "broken".to_owned()), 1)];
    assert_eq!(judgement.classes, BTreeMap::from(classes));
}

/// A cluster that is right, and callers that are not always told.
struct Model {
    rng: Rng,
    now: u64,
    index: u64,
    /// Create index, modify index, elements.
    vars: BTreeMap<String, (u64, u64, String)>,
    /// Writes that may yet be applied.
    late: Vec<Record>,
    records: Vec<Record>,
    troubled: u64,
}

impl Model {
    fn apply(&mut self, write: &Record) -> Option<u64> {
        let known = self.vars.get(&write.key).cloned().unwrap_or_default();
        if write.base.is_some_and(|base| base != known.1) {
            return None;
        }
        self.index += 1 + self.rng.below(3);
        let element = write.value.clone().unwrap();
        let list = if known.2.is_empty() { element } else { format!("{} {element}", known.2) };
        let created = if known.0 == 0 { self.index } else { known.0 };
        self.vars.insert(write.key.clone(), (created, self.index, list));
        Some(self.index)
    }

    fn see(&self, read: &mut Record) {
        if let Some((created, index, list)) = self.vars.get(&read.key) {
            (read.create_index, read.index, read.value) = (*created, *index, Some(list.clone()));
        }
        read.outcome = Outcome::Ok;
    }

    /// The moment at which a call takes effect.
    fn effect(&mut self, call: &mut Record) {
        if call.kind == Kind::Read {
            return self.see(call);
        }
        match self.rng.below(100) {
            chance if chance < self.troubled => {
                *call = unknown(call.clone());
                match self.rng.below(3) {
                    0 => drop(self.apply(call)),
                    1 => self.late.push(call.clone()),
                    _ => {}
                }
            }
            chance if chance < 2 * self.troubled => *call = refused(call.clone(), "not-leader"),
            _ => match self.apply(call) {
                Some(index) => (call.index, call.outcome) = (index, Outcome::Ok),
                None => *call = refused(call.clone(), CONFLICT),
            },
        }
    }

    /// Runs `calls` calls of 4 processes on some lists and variables, then reads all back.
    fn run(seed: u64, calls: u64, lists: u64, troubled: u64) -> Vec<Record> {
        let rng = Rng::from_seed(seed);
        let (vars, late, records) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut model = Model { rng, now: 0, index: 1, vars, late, records, troubled };
        // Of each process its call, whether it took effect, and the indexes that it knows.
        let mut processes: [Process; 4] = Default::default();
        let mut begun = 0;
        while begun < calls || processes.iter().any(|(call, _)| call.is_some()) {
            model.now += 1;
            if model.rng.chance(1, 20) && !model.late.is_empty() {
                let write = model.late.swap_remove(0);
                model.apply(&write);
            }
            let nth = model.rng.below(4);
            let (call, known) = &mut processes[nth as usize];
            match call.take() {
                Some((mut one, false)) => {
                    model.effect(&mut one);
                    *call = Some((one, true));
                }
                Some((mut one, true)) => {
                    one.return_ns = model.now;
                    if one.outcome == Outcome::Ok {
                        known.insert(one.key.clone(), one.index);
                    }
                    model.records.push(one);
                }
                None if begun < calls => {
                    begun += 1;
                    let list = format!("list{}", model.rng.below(lists));
                    let element = format!("{nth}.{begun}");
                    let mut one = match model.rng.below(3) {
                        0 => record(Kind::Set, &format!("set{element}"), Some(&element), (model.now, 0), 0),
                        1 => record(Kind::Read, &list, None, (model.now, 0), 0),
                        _ => {
                            let base = Some(known.get(&list).copied().unwrap_or(0));
                            Record { base, ..record(Kind::Append, &list, Some(&element), (model.now, 0), 0) }
                        }
                    };
                    one.process = nth as u32;
                    *call = Some((one, false));
                }
                None => {}
            }
        }
        let keys: std::collections::BTreeSet<String> = model.records.iter().map(|one| one.key.clone()).collect();
        for key in keys {
            model.now += 1;
            let mut last = Record { is_final: true, ..record(Kind::Read, &key, None, (model.now, model.now), 0) };
            model.see(&mut last);
            model.records.push(last);
        }
        model.records
    }
}

/// Harm done to a history afterwards; true when there was something to harm.
fn harm(records: &mut [Record], how: usize) -> bool {
    let there: Vec<String> =
        records.iter().filter(|one| one.is_final).flat_map(|one| one.elements().map(str::to_owned)).collect();
    let Some(at) = records.iter().position(|one| {
        one.outcome == Outcome::Ok && one.element().is_some_and(|element| there.iter().any(|other| other == element))
    }) else {
        return false;
    };
    let (key, element, returned) = (records[at].key.clone(), records[at].value.clone().unwrap(), records[at].return_ns);
    let reads = records.iter_mut().filter(|one| one.kind == Kind::Read && one.key == key && one.value.is_some());
    let edit = |read: &mut Record, to: &dyn Fn(&str) -> Vec<String>| {
        let list: Vec<String> = read.elements().flat_map(to).collect();
        read.value = (!list.is_empty()).then(|| list.join(" "));
    };
    match how {
        0 => reads.for_each(|read| edit(read, &|one| if one == element { vec![] } else { vec![one.to_owned()] })),
        1 => reads.for_each(|read| edit(read, &|one| vec![one.to_owned(); 1 + usize::from(one == element)])),
        2 => {
            let late = reads.filter(|read| !read.is_final && read.call_ns > returned).last();
            let Some(late) = late else { return false };
            (late.value, late.index, late.create_index) = (None, 0, 0);
        }
        3 => records[at] = refused(records[at].clone(), "refused"),
        _ => {
            let mut any = false;
            for read in reads.filter(|read| read.elements().count() > 1) {
                let mut list: Vec<&str> = read.elements().collect();
                list.swap(0, 1);
                read.value = Some(list.join(" "));
                any = true;
            }
            return any;
        }
    }
    true
}

/// The call that a process is in, with whether it will be answered, and what it has seen.
type Process = (Option<(Record, bool)>, BTreeMap<String, u64>);

proptest! {
    // R2.34: whatever a cluster that is right does is accepted, and each harm that is done to it afterwards is found.
    #[test]
    fn what_the_model_does_is_accepted_and_harm_to_it_is_not(seed: u64, calls in 1u64..150, lists in 1u64..4) {
        let records = Model::run(seed, calls, lists, 10);
        let judgement = judge(&records);
        prop_assert_eq!(found(&judgement), [0; 6], "{:?} of {:#?}", judgement.examples, records);
        prop_assert!(judgement.is_whole());
        for how in 0..5 {
            let mut harmed = records.clone();
            if harm(&mut harmed, how) {
                let found = found(&judge(&harmed));
                // A reordering has no figure of its own.
                let figure = if how == 4 { 5 } else { how };
                prop_assert!(found[figure] > 0, "harm {} gave {:?}", how, found);
            }
        }
    }
}

#[test]
fn a_hundred_thousand_calls_are_judged() {
    let records = Model::run(7, 100_000, 40, 5);
    let judgement = judge(&records);
    assert_eq!((judgement.calls, found(&judgement)), (100_000, [0; 6]), "{:?}", judgement.examples);
    assert!(judgement.is_whole() && judgement.unknown > 1000);
}

#[test]
fn orders_without_number_are_given_up() {
    // Any of these writes may be there or not, in any order, and what is read fits none of them.
    let mut history: Vec<Record> =
        (0..40).map(|nth| unknown(Record { base: None, ..append(&format!("e{nth}"), 0, (1, 2), 0) })).collect();
    let all: Vec<String> = (0..40).map(|nth| format!("e{nth}")).collect();
    history.push(read("list", &format!("{} e0", all.join(" ")), (3, 4), 99));
    history.push(refused(append("x", 1, (1, 9), 0), CONFLICT));
    assert_eq!(judge(&history).undecided, 1);
}

// R2.34 from the command line to the exit status; the file says the same again.
#[test]
fn the_command_tells_broken_promises_from_bad_luck() {
    let folder = tempfile::tempdir().unwrap();
    for (harm, mode, finding, exit) in [
        (Harm::None, "plain", "", Exit::Done),
        (Harm::None, "library", "", Exit::Done),
        (Harm::Drop, "plain", "unknown_applied", Exit::Done),
        (Harm::Drop, "library", "unknown_applied", Exit::Done),
        (Harm::Lose, "plain", "lost", Exit::Failed),
        (Harm::Double, "library", "doubled", Exit::Failed),
    ] {
        let path = folder.path().join("history").to_str().unwrap().to_owned();
        let line = format!("check --writers 2 --readers 1 --duration 300ms --json --mode {mode} --history {path}");
        let (ended, out, err) = bench(&variables(harm), &line);
        assert_eq!((ended, err.as_str()), (exit, ""), "{finding} {out}");
        let report: Value = serde_json::from_str(&out).unwrap();
        for key in ["unknown_applied", "lost", "doubled"] {
            assert_eq!(figure(&report["results"], key) > 0.0, key == finding, "{finding}: {key} in {out}");
        }
        assert_eq!(figure(&report["results"], "failed"), 0.0, "{out}");
        assert!(figure(&report["results"], "writes") > 2.0 && figure(&report["results"], "reads") > 2.0, "{out}");
        let (again, out, err) = bench("127.0.0.1:1", &format!("check --json --verify {path}"));
        assert_eq!((again, err.as_str()), (exit, ""), "{out}");
        let verified: Value = serde_json::from_str(&out).unwrap();
        for key in ["calls", "rate_per_s", "longest_gap_ms", "unknown", "lost", "doubled", "keys"] {
            assert_eq!(figure(&verified["results"], key), figure(&report["results"], key), "{key}");
        }
    }
}

#[test]
fn faults_come_at_intervals_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let marks = folder.path().join("marks").to_str().unwrap().to_owned();
    let line = format!(
        "bench check --writers 1 --readers 0 --duration 2s --json --every 50ms --address {}",
        variables(Harm::None)
    );
    let command = format!("echo $HOLDFAST_FAULT >>{marks}; [ $HOLDFAST_FAULT != 2 ]");
    let words = std::iter::once("holdfast").chain(line.split(' ')).chain(["--exec-fault", &command]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(crate::cli::run(words.map(Into::into), &mut out, &mut err), Exit::Done);
    let report: Value = serde_json::from_slice(&out).unwrap();
    let written = std::fs::read_to_string(&marks).unwrap();
    assert!(written.starts_with("1\n2\n"), "{written}");
    assert_eq!(figure(&report["results"], "faults"), written.lines().count() as f64);
    assert_eq!(figure(&report["results"], "faults_failed"), 1.0);
}

#[test]
fn a_file_that_is_no_history_is_a_wrong_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("garbage").to_str().unwrap().to_owned();
    std::fs::write(&path, "{\"process\":1}\n").unwrap();
    let (exit, out, err) = bench("127.0.0.1:1", &format!("check --verify {path}"));
    assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
    assert!(err.starts_with(&format!("holdfast: {path}: line 1: missing field")), "{err}");
    assert_eq!(bench("127.0.0.1:1", "check --verify /nowhere/at/all").0, Exit::Usage);
    assert_eq!(bench("127.0.0.1:1", "check --history /nowhere/at/all").0, Exit::Usage);
}
