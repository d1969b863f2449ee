//! The log, kept apart from the disks and never compacted: as one server wrote it, and as it was applied by all of
//! them. What a replay of the second one gives is what every server must hold.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::Index;
use crate::consensus::{LogEntry, Recovered};
use crate::state::State;
use crate::state::events::Event;
use crate::state::node::NodeStatus;
use crate::state::{Applied, ApplyResult};
use crate::wire::entry::session::SessionStamp;
use crate::wire::entry::{Command, Entry as WireEntry};

/// Every entry that stands.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    entries: BTreeMap<u64, LogEntry>,
    /// What stood there when the disk was synced last; a crash may bring it back.
    replaced: BTreeMap<u64, LogEntry>,
}

/// What one entry of the replay did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its index.
    pub index: u64,
    /// Its time, nanoseconds since the Unix epoch.
    pub time: i64,
    /// What it did; nothing where it has no place in its session.
    pub command: Command,
    /// Its place in a session.
    pub stamp: Option<SessionStamp>,
    /// What the state answered.
    pub result: ApplyResult,
    /// What happened.
    pub events: Vec<Event>,
    /// Paths of variables that came, went, or have a new index.
    pub vars: Vec<String>,
    /// The nodes table was written.
    pub touched_nodes: bool,
    /// Nodes that came, went, or have a new index.
    pub touched: Vec<String>,
    /// Those of them that are there and not down.
    pub alive: Vec<String>,
}

impl Truth {
    /// Entries were written; they take the place of what was there and of what followed.
    pub fn write(&mut self, entries: &[LogEntry]) {
        for entry in entries {
            self.replaced.append(&mut self.entries.split_off(&entry.index.0));
            self.entries.insert(entry.index.0, entry.clone());
        }
    }

    /// What was written is safe, and what it replaced is gone.
    pub fn synced(&mut self) {
        self.replaced.clear();
    }

    /// A process began with this: entries that the disk lost are gone. Says what the disk gives that was never
    /// written.
    ///
    /// # Errors
    /// A sentence about the difference.
    pub fn recover(&mut self, recovered: &Recovered) -> Result<(), String> {
        let snapshot = recovered.snapshot.as_ref().map_or(0, |(meta, _)| meta.index.0);
        let last = recovered.entries.last().map_or(snapshot, |entry| entry.index.0);
        drop(self.entries.split_off(&(last + 1)));
        let replaced = std::mem::take(&mut self.replaced);
        for entry in &recovered.entries {
            // What took its place was never synced.
            if replaced.get(&entry.index.0) == Some(entry) {
                self.entries.insert(entry.index.0, entry.clone());
            }
            if self.entries.get(&entry.index.0) != Some(entry) {
                return Err(format!("the disk gives another entry {} than was written", entry.index));
            }
        }
        Ok(())
    }

    /// A snapshot of a disk holds what the log says.
    ///
    /// # Errors
    /// A sentence about the difference.
    pub fn check_snapshot(&self, recovered: &Recovered) -> Result<(), String> {
        match &recovered.snapshot {
            Some((meta, state)) if state.digest() != self.replay_to(meta.index.0).digest() => {
                Err(format!("the snapshot at {} is not what the log says", meta.index))
            }
            _ => Ok(()),
        }
    }

    /// A server has applied this entry: no other one ever stands at its place.
    ///
    /// # Errors
    /// Another one does.
    pub fn witness(&mut self, entry: &LogEntry) -> Result<(), String> {
        match self.entries.entry(entry.index.0) {
            Entry::Vacant(place) => drop(place.insert(entry.clone())),
            Entry::Occupied(known) if known.get() == entry => {}
            Entry::Occupied(known) => {
                let (index, first, second) = (entry.index, known.get().term, entry.term);
                return Err(format!("entry {index} of term {second} was applied, before it was one of term {first}"));
            }
        }
        Ok(())
    }

    /// The entry at an index, as it was written.
    pub fn get(&self, index: u64) -> Option<&LogEntry> {
        self.entries.get(&index)
    }

    /// All entries are gone: a snapshot took their place.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.replaced.clear();
    }

    /// The last index.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The entry at an index, read.
    pub fn entry(&self, index: u64) -> Option<WireEntry> {
        self.entries.get(&index).filter(|entry| entry.kind == 0).and_then(|entry| WireEntry::decode(&entry.data).ok())
    }

    /// The state after all entries up to an index.
    pub fn replay_to(&self, last: u64) -> State {
        let mut state = State::new();
        for entry in self.entries.range(..=last).map(|(_, entry)| entry) {
            apply(&mut state, entry);
        }
        state
    }

    /// What each entry did, in order.
    pub fn replay(&self) -> Vec<Step> {
        let mut state = State::new();
        let mut steps = Vec::new();
        for (index, entry) in &self.entries {
            let before = state.clone();
            let (command, stamp, applied) = apply(&mut state, entry);
            let is_passed_over = matches!(applied.result, ApplyResult::Repeated(_) | ApplyResult::OutOfPlace(_));
            let command = if is_passed_over { Command::Noop } else { command };
            let ids: BTreeSet<&str> = before.nodes_from("").chain(state.nodes_from("")).map(|node| &*node.id).collect();
            let modified = |state: &State, id: &str| state.node(id).map(|node| node.modify_index);
            let touched: Vec<String> =
                ids.into_iter().filter(|id| modified(&before, id) != modified(&state, id)).map(str::to_owned).collect();
            let vars = changed_vars(&before, &state);
            let is_alive = |id: &&String| state.node(id).is_some_and(|node| node.status != NodeStatus::Down);
            let alive = touched.iter().filter(is_alive).cloned().collect();
            steps.push(Step {
                alive,
                index: *index,
                time: state.time_unix_nanos(),
                vars,
                command,
                stamp,
                result: applied.result,
                events: applied.events,
                touched_nodes: before.nodes_index() != state.nodes_index(),
                touched,
            });
        }
        steps
    }
}

fn changed_vars(before: &State, after: &State) -> Vec<String> {
    let indexes = |state: &State| -> BTreeMap<String, u64> {
        state.vars_from("", "").map(|var| (var.path.to_string(), var.modify_index)).collect()
    };
    let (before, after) = (indexes(before), indexes(after));
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    paths.into_iter().filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

fn apply(state: &mut State, entry: &LogEntry) -> (Command, Option<SessionStamp>, Applied) {
    let noop = WireEntry { time_unix_nanos: state.time_unix_nanos(), session: None, command: Command::Noop };
    let read = match entry.kind {
        0 if !entry.data.is_empty() => WireEntry::decode(&entry.data).unwrap_or_else(|_| noop.clone()),
        _ => noop,
    };
    let applied = state.apply(Index(entry.index.0), entry.term, &read);
    (read.command, read.session, applied)
}
