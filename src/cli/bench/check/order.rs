//! Is there an order of all calls on one variable that fits what everybody was told? A search (Wing and Gong 1993;
//! Lowe 2017): a call takes effect at one moment between its question and its answer; a write of unknown outcome at any
//! moment after its question, or never. Variables are independent of each other, so each is searched by itself.
//!
//! Writes that were acknowledged are ordered by their indexes, and what changes nothing is placed as soon as it fits:
//! only writes of unknown outcome are left to be tried here or there.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::bench::check::history::{Kind, Outcome, Record};

/// Looks at calls in the search of one variable: so many, and so many for each of its calls, before it is given up.
const LOOKS_MIN: usize = 1_000_000;
const LOOKS_A_CALL: usize = 200;

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// There is one.
    Fits,
    /// There is none; where it got stuck.
    None(String),
    /// Too many to look at.
    Undecided,
}

/// A list of elements, by number; equal lists have equal numbers.
type List = u32;
/// The list of a variable that is not there.
const NOTHING: List = 0;

/// Numbers lists.
#[derive(Default)]
struct Lists<'a> {
    elements: BTreeMap<&'a str, u32>,
    longer: BTreeMap<(List, u32), List>,
}

impl<'a> Lists<'a> {
    fn element(&mut self, element: &'a str) -> u32 {
        let next = u32::try_from(self.elements.len()).unwrap_or(u32::MAX);
        *self.elements.entry(element).or_insert(next)
    }

    fn with(&mut self, list: List, element: u32) -> List {
        let next = u32::try_from(self.longer.len()).unwrap_or(u32::MAX - 1) + 1;
        *self.longer.entry((list, element)).or_insert(next)
    }
}

/// What a call does to the variable, or says of it.
#[derive(Clone, Copy, Debug)]
enum Effect {
    Append {
        element: u32,
        base: Option<u64>,
    },
    Set {
        element: u32,
    },
    /// An append was refused because the index was another.
    Conflict {
        base: Option<u64>,
    },
    Read {
        list: List,
        index: u64,
    },
}

struct Call<'a> {
    record: &'a Record,
    effect: Effect,
    until: u64,
    /// Of a write that was acknowledged: how many of them come before it.
    rank: Option<usize>,
}

impl Call<'_> {
    fn is_passive(&self) -> bool {
        matches!(self.effect, Effect::Conflict { .. } | Effect::Read { .. })
    }
}

/// The variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Variable {
    list: List,
    /// Not known after a write of unknown outcome, until it is read.
    index: Option<u64>,
    /// The highest index that was known.
    last: u64,
}

/// How far an order goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    /// All calls of known outcome before this one are placed,
    first: usize,
    /// and these behind it, sorted.
    ahead: Vec<usize>,
    /// Writes that were acknowledged and are placed.
    rank: usize,
    /// Writes of unknown outcome that are placed and could be again.
    used: BTreeSet<usize>,
    variable: Variable,
}

impl Position {
    fn place(&mut self, at: usize) {
        if let Err(slot) = self.ahead.binary_search(&at) {
            self.ahead.insert(slot, at);
        }
        let gone = self.ahead.iter().enumerate().take_while(|(nth, at)| **at == self.first + nth).count();
        self.ahead.drain(..gone);
        self.first += gone;
    }
}

/// The calls on one variable.
struct Search<'a> {
    lists: Lists<'a>,
    /// Those whose outcome is known, by when they were asked.
    sure: Vec<Call<'a>>,
    /// Writes of unknown outcome, likewise.
    unsure: Vec<Call<'a>>,
    /// Of those the appends by the index that they name, and the rest.
    by_base: BTreeMap<u64, Vec<usize>>,
    free: Vec<usize>,
    looks: usize,
}

/// Looks for an order of the calls on one variable.
pub(crate) fn find(records: &[&Record]) -> Order {
    let mut search = Search::new(records);
    search.run()
}

impl<'a> Search<'a> {
    fn new(records: &[&'a Record]) -> Search<'a> {
        let (mut lists, mut sure, mut unsure) = (Lists::default(), Vec::new(), Vec::new());
        for record in records {
            let element = record.element().map(|element| lists.element(element)).unwrap_or_default();
            let effect = match (record.kind, record.outcome) {
                (Kind::Append, Outcome::Fail) if record.is_conflict() => Effect::Conflict { base: record.base },
                (_, Outcome::Fail) => continue,
                (Kind::Append, _) => Effect::Append { element, base: record.base },
                (Kind::Set, _) => Effect::Set { element },
                (Kind::Read, _) => {
                    let list = record.elements().fold(NOTHING, |list, element| {
                        let element = lists.element(element);
                        lists.with(list, element)
                    });
                    Effect::Read { list, index: record.index }
                }
            };
            let is_sure = record.outcome != Outcome::Unknown;
            let until = if is_sure { record.return_ns } else { u64::MAX };
            let into = if is_sure { &mut sure } else { &mut unsure };
            into.push(Call { record, effect, until, rank: None });
        }
        sure.sort_by_key(|call| (call.record.call_ns, call.until));
        unsure.sort_by_key(|call| call.record.call_ns);
        let mut writes: Vec<(u64, usize)> = sure
            .iter()
            .enumerate()
            .filter(|(_, call)| !call.is_passive())
            .map(|(at, call)| (call.record.index, at))
            .collect();
        writes.sort_unstable();
        for (rank, (_, at)) in writes.into_iter().enumerate() {
            if let Some(call) = sure.get_mut(at) {
                call.rank = Some(rank);
            }
        }
        let mut search = Search { lists, sure, unsure, by_base: BTreeMap::new(), free: Vec::new(), looks: LOOKS_MIN };
        search.looks += LOOKS_A_CALL * records.len();
        search.sort_out();
        search
    }

    /// What was written blindly and never seen matters only where somebody names indexes.
    fn sort_out(&mut self) {
        let names_index = |call: &Call<'_>| {
            matches!(call.effect, Effect::Append { base: Some(_), .. } | Effect::Conflict { base: Some(_) })
        };
        let is_checked = self.sure.iter().chain(&self.unsure).any(names_index);
        let seen: BTreeSet<&str> = self.sure.iter().filter(|call| call.is_passive()).flat_map(seen_by).collect();
        for (at, call) in self.unsure.iter().enumerate() {
            match call.effect {
                Effect::Append { base: Some(base), .. } => self.by_base.entry(base).or_default().push(at),
                _ if is_checked || call.record.element().is_some_and(|element| seen.contains(element)) => {
                    self.free.push(at);
                }
                _ => {}
            }
        }
    }

    fn run(&mut self) -> Order {
        let variable = Variable { list: NOTHING, index: Some(0), last: 0 };
        let start = Position { first: 0, ahead: Vec::new(), rank: 0, used: BTreeSet::new(), variable };
        let (mut stack, mut tried) = (vec![start], BTreeSet::new());
        let mut furthest: Option<Position> = None;
        while let Some(mut position) = stack.pop() {
            let Some(nexts) = self.nexts(&mut position) else { return Order::Undecided };
            if position.first >= self.sure.len() {
                return Order::Fits;
            }
            let placed = |position: &Position| position.first + position.ahead.len();
            if furthest.as_ref().is_none_or(|furthest| placed(furthest) < placed(&position)) {
                furthest = Some(position);
            }
            // Without a choice there is nothing to remember.
            let is_forced = nexts.len() == 1 && stack.is_empty();
            for next in nexts {
                let size = 1 + next.ahead.len() + next.used.len();
                let Some(left) = self.looks.checked_sub(size) else { return Order::Undecided };
                self.looks = left;
                if is_forced || tried.insert(next.clone()) {
                    stack.push(next);
                }
            }
        }
        Order::None(furthest.map(|position| self.describe(&position)).unwrap_or_default())
    }

    /// Places all that fits and changes nothing; gives what can come then, the likeliest last. Nothing when it is too
    /// much work.
    fn nexts(&mut self, position: &mut Position) -> Option<Vec<Position>> {
        loop {
            let (mut earliest_end, mut acknowledged, mut passive) = (u64::MAX, None, None);
            let mut ahead = position.ahead.iter().peekable();
            for (at, call) in self.sure.iter().enumerate().skip(position.first) {
                self.looks = self.looks.checked_sub(1)?;
                if ahead.next_if(|placed| **placed == at).is_some() {
                    continue;
                }
                if call.record.call_ns > earliest_end {
                    break;
                }
                earliest_end = earliest_end.min(call.until);
                if call.is_passive() {
                    passive = after(&mut self.lists, call, position.variable).map(|variable| (at, variable));
                    if passive.is_some() {
                        break;
                    }
                } else if call.rank == Some(position.rank) {
                    acknowledged = Some(at);
                }
            }
            if let Some((at, variable)) = passive {
                position.variable = variable;
                position.place(at);
                continue;
            }
            let mut nexts = self.unsure_nexts(position, earliest_end)?;
            if let Some(at) = acknowledged
                && let Some(call) = self.sure.get(at)
                && let Some(variable) = after(&mut self.lists, call, position.variable)
            {
                let mut next = Position { variable, rank: position.rank + 1, ..position.clone() };
                next.place(at);
                nexts.push(next);
            }
            return Some(nexts);
        }
    }

    /// Writes of unknown outcome that can come next.
    fn unsure_nexts(&mut self, position: &Position, earliest_end: u64) -> Option<Vec<Position>> {
        let named = position.variable.index.and_then(|index| self.by_base.get(&index));
        let mut nexts = Vec::new();
        for (at, is_free) in
            named.into_iter().flatten().map(|at| (*at, false)).chain(self.free.iter().map(|at| (*at, true)))
        {
            self.looks = self.looks.checked_sub(1)?;
            let Some(call) = self.unsure.get(at) else { continue };
            if call.record.call_ns > earliest_end || position.used.contains(&at) {
                continue;
            }
            if let Some(variable) = after(&mut self.lists, call, position.variable) {
                let mut next = Position { variable, ..position.clone() };
                // One that names an index can never be placed again: indexes only rise.
                if is_free {
                    next.used.insert(at);
                }
                nexts.push(next);
            }
        }
        Some(nexts)
    }

    fn describe(&self, position: &Position) -> String {
        let mut left: Vec<&Call<'_>> = self
            .sure
            .iter()
            .enumerate()
            .skip(position.first)
            .filter(|(at, _)| position.ahead.binary_search(at).is_err())
            .map(|(_, call)| call)
            .take(64)
            .collect();
        left.sort_by_key(|call| call.until);
        let index =
            position.variable.index.map_or("an index that nobody was told".to_owned(), |index| index.to_string());
        let next = left.first().map(|call| call.record).map(|record| {
            let what = match record.kind {
                Kind::Read => "read",
                Kind::Append if record.is_conflict() => "refused append",
                Kind::Append => "append",
                Kind::Set => "set",
            };
            let value: String = record.value.as_deref().unwrap_or("nothing").chars().rev().take(60).collect();
            let value: String = value.chars().rev().collect();
            format!(
                "the {what} of {value:?} at index {} by process {}, from {} to {} ns",
                record.index, record.process, record.call_ns, record.return_ns
            )
        });
        format!("at {index}, {} does not fit", next.unwrap_or_default())
    }
}

fn seen_by<'a>(call: &Call<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let record: &'a Record = call.record;
    record.elements().filter(move |_| record.kind == Kind::Read)
}

/// The variable after a call; nothing when the call does not fit.
fn after(lists: &mut Lists<'_>, call: &Call<'_>, now: Variable) -> Option<Variable> {
    let named = |base: Option<u64>| base.is_none() || base == now.index;
    let written = |list: List| {
        let index = (call.record.outcome == Outcome::Ok).then_some(call.record.index);
        index.is_none_or(|index| index > now.last).then(|| Variable { list, index, last: index.unwrap_or(now.last) })
    };
    match call.effect {
        Effect::Append { base, .. } if !named(base) => None,
        Effect::Append { element, .. } => written(lists.with(now.list, element)),
        Effect::Set { element } => written(lists.with(NOTHING, element)),
        Effect::Conflict { base } => (base.is_none() || base != now.index).then_some(now),
        Effect::Read { list, index } => {
            let fits = list == now.list && now.index.map_or(index > now.last, |known| known == index);
            fits.then_some(Variable { list, index: Some(index), last: index })
        }
    }
}
