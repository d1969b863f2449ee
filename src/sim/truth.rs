//! The log as it was written, kept apart from the disk and never compacted: what a replay of it gives is what the
//! server must hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::Index;
use crate::consensus::{LogEntry, Recovered};
use crate::state::State;
use crate::state::events::Event;
use crate::state::node::NodeStatus;
use crate::state::{Applied, ApplyResult};
use crate::wire::entry::{Command, Entry};

/// Every entry that stands.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    entries: BTreeMap<u64, LogEntry>,
}

/// What one entry of the replay did.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its index.
    pub index: u64,
    /// Its time, nanoseconds since the Unix epoch.
    pub time: i64,
    /// What it says.
    pub command: Command,
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
            drop(self.entries.split_off(&entry.index.0));
            self.entries.insert(entry.index.0, entry.clone());
        }
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
        let last_known = self.entries.last_key_value().map_or(0, |(index, _)| *index);
        if last_known < last {
            return Err(format!("the disk gives entry {last}, the last one written is {last_known}"));
        }
        for entry in &recovered.entries {
            if self.entries.get(&entry.index.0) != Some(entry) {
                return Err(format!("the disk gives another entry {} than was written", entry.index));
            }
        }
        if let Some((meta, state)) = &recovered.snapshot
            && state.digest() != self.replay_to(meta.index.0).digest()
        {
            return Err(format!("the snapshot at {} is not what the log says", meta.index));
        }
        Ok(())
    }

    /// The last index.
    pub fn last(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(index, _)| *index)
    }

    /// The entry at an index, read.
    pub fn entry(&self, index: u64) -> Option<Entry> {
        self.entries.get(&index).filter(|entry| entry.kind == 0).and_then(|entry| Entry::decode(&entry.data).ok())
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
            let (command, applied) = apply(&mut state, entry);
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

fn apply(state: &mut State, entry: &LogEntry) -> (Command, Applied) {
    let noop = Entry { time_unix_nanos: state.time_unix_nanos(), session: None, command: Command::Noop };
    let read = match entry.kind {
        0 if !entry.data.is_empty() => Entry::decode(&entry.data).unwrap_or_else(|_| noop.clone()),
        _ => noop,
    };
    let applied = state.apply(Index(entry.index.0), entry.term, &read);
    (read.command, applied)
}
