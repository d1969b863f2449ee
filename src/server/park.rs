//! Blocking queries that wait for a change; equal ones are one group and are run once (requirements R1.85 to R1.98).
//!
//! **Invariant:** a group is idle, and then every touch of its keys since its last run has been seen; or it is being
//! run, and then a touch marks it to be run again. A length of prefix is in the table of lengths exactly while a group
//! waits for a prefix of that length.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::api::{Caller, Method};
use crate::base::id::CallId;
use crate::base::slab::{Key, Slab};
use crate::state::watch::{Touched, WatchKey};
use crate::wire::body::query::without_zeros;

/// A query as it is run, again and again.
#[derive(Clone, Debug)]
pub struct Query {
    /// What to run.
    pub method: &'static Method,
    /// The request's body.
    pub body: Arc<[u8]>,
    /// Where it began on its stream.
    pub base: u64,
    /// Who asked.
    pub caller: Arc<Caller>,
}

impl Query {
    /// The same query in fewer bytes, since very many may be kept.
    fn compact(self) -> Query {
        match without_zeros(&self.body) {
            Some(body) if body.len() < self.body.len() => Query { body: body.into(), ..self },
            _ => self,
        }
    }

    /// Whether the two must get the same answer.
    fn same(&self, other: &Query) -> bool {
        std::ptr::eq(self.method, other.method)
            && self.body == other.body
            && self.caller.proven_node == other.caller.proven_node
            && self.caller.tls_names == other.caller.tls_names
    }

    fn hash(&self) -> u64 {
        let name = self.method.name.as_bytes();
        name.iter().chain(self.body.iter()).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// A list that mostly holds one: that one needs no memory of its own.
enum Few<T> {
    One(T),
    Many(Vec<T>),
}

impl<T: Copy> Few<T> {
    fn of(items: &[T]) -> Few<T> {
        match items {
            [only] => Few::One(*only),
            several => Few::Many(several.to_vec()),
        }
    }

    fn as_slice(&self) -> &[T] {
        match self {
            Few::One(only) => std::slice::from_ref(only),
            Few::Many(several) => several,
        }
    }

    fn push(&mut self, item: T) {
        match self {
            Few::Many(none) if none.is_empty() => *self = Few::One(item),
            Few::Many(several) => several.push(item),
            Few::One(first) => *self = Few::Many(vec![*first, item]),
        }
    }

    /// Takes one out; the last one takes its place.
    fn swap_remove(&mut self, at: usize) {
        match self {
            Few::One(_) => *self = Few::Many(Vec::new()),
            Few::Many(several) => {
                several.swap_remove(at);
            }
        }
    }

    fn into_vec(self) -> Vec<T> {
        match self {
            Few::One(only) => vec![only],
            Few::Many(several) => several,
        }
    }
}

struct Group {
    query: Query,
    hash: u64,
    keys: Few<WatchKey>,
    waiters: Few<CallId>,
    running: bool,
    /// Touched while it was being run.
    touched: bool,
    /// Touched, and to be run soon.
    woken: bool,
}

/// All groups.
#[derive(Default)]
pub struct Parked {
    groups: Slab<Group>,
    by_query: BTreeMap<u64, Key>,
    by_watch: BTreeSet<(WatchKey, Key)>,
    /// How many keys of prefixes wait, by the prefixes' length: a write asks for no other length.
    lengths: BTreeMap<usize, usize>,
    waiters: usize,
    recent: Recent,
}

/// Stands for all namespaces in a key of a prefix.
const EVERY_NAMESPACE: &str = "*";

/// Touches remembered for queries that were being run on another thread meanwhile.
const RECENT_TOUCHES: usize = 4096;

#[derive(Default)]
struct Recent {
    last: BTreeMap<WatchKey, u64>,
    /// Variables that were touched, in the order of the entries: the prefixes of all their paths were too.
    vars: VecDeque<(u64, Arc<str>, Arc<str>)>,
    /// Touches up to this index may have been forgotten.
    floor: u64,
    index: u64,
}

/// Where a waiter stands in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The group.
    pub group: Key,
    /// The place in it.
    pub at: u32,
}

impl Parked {
    /// Waits for one of `keys`. `None` when one of them was touched after index `since`, which the query's run may
    /// not have seen: it is to be run again.
    pub fn park(&mut self, call: CallId, query: Query, keys: &[WatchKey], since: u64) -> Option<Place> {
        if self.recent.touched_after(keys, since) {
            return None;
        }
        let query = query.compact();
        let hash = query.hash();
        let group = match self.by_query.get(&hash).copied().filter(|key| self.is_same(*key, &query)) {
            Some(key) => key,
            None => {
                let group = Group {
                    query,
                    hash,
                    keys: Few::of(keys),
                    waiters: Few::of(&[]),
                    running: false,
                    touched: false,
                    woken: false,
                };
                let key = self.groups.insert(group);
                self.by_query.entry(hash).or_insert(key);
                self.watch(key, keys);
                key
            }
        };
        let waiters = &mut self.groups.get_mut(group)?.waiters;
        waiters.push(call);
        self.waiters += 1;
        let at = waiters.as_slice().len() as u32 - 1;
        Some(Place { group, at })
    }

    /// Whether an equal query waits and is not being run: a run would find nothing newer now.
    pub fn has_idle(&self, query: &Query) -> bool {
        let query = &query.clone().compact();
        let twin = self.by_query.get(&query.hash()).and_then(|key| self.groups.get(*key));
        twin.is_some_and(|group| !group.running && !group.woken && group.query.same(query))
    }

    fn is_same(&self, key: Key, query: &Query) -> bool {
        self.groups.get(key).is_some_and(|group| group.query.same(query))
    }

    /// Takes a waiter out; says which other one has taken its place. The group goes with its last waiter.
    pub fn leave(&mut self, place: Place) -> Option<CallId> {
        let group = self.groups.get_mut(place.group)?;
        let at = place.at as usize;
        if at >= group.waiters.as_slice().len() {
            return None;
        }
        group.waiters.swap_remove(at);
        self.waiters -= 1;
        let moved = group.waiters.as_slice().get(at).copied();
        if group.waiters.as_slice().is_empty() && !group.running {
            self.remove(place.group);
        }
        moved
    }

    /// The query of a group.
    pub fn query(&self, group: Key) -> Option<&Query> {
        self.groups.get(group).map(|group| &group.query)
    }

    /// Who waits in a group.
    pub fn waiters_of(&self, group: Key) -> Vec<CallId> {
        self.groups.get(group).map(|group| group.waiters.as_slice().to_vec()).unwrap_or_default()
    }

    /// This was touched by the entry at `index`. Gives the groups to be run now.
    pub fn touch(&mut self, touched: &Touched, index: u64) -> Vec<Key> {
        self.recent.note(touched, index);
        if self.groups.is_empty() {
            return Vec::new();
        }
        let mut to_run = BTreeSet::new();
        if touched.everything {
            for key in self.groups.keys() {
                self.wake(key, &mut to_run);
            }
            return to_run.into_iter().collect();
        }
        for key in &touched.keys {
            self.wake_watchers(*key, &mut to_run);
        }
        for (namespace, path) in &touched.vars {
            self.wake_watchers(WatchKey::var(namespace, path), &mut to_run);
            let lengths: Vec<usize> = self.lengths.range(..=path.len()).map(|(length, _)| *length).collect();
            for prefix in lengths.into_iter().filter_map(|length| path.get(..length)) {
                self.wake_watchers(WatchKey::vars_under(namespace, prefix), &mut to_run);
                self.wake_watchers(WatchKey::vars_under(EVERY_NAMESPACE, prefix), &mut to_run);
            }
        }
        to_run.into_iter().collect()
    }

    fn wake_watchers(&mut self, key: WatchKey, to_run: &mut BTreeSet<Key>) {
        let groups: Vec<Key> = self.by_watch.range((key, 0)..=(key, u64::MAX)).map(|(_, group)| *group).collect();
        for group in groups {
            self.wake(group, to_run);
        }
    }

    fn wake(&mut self, key: Key, to_run: &mut BTreeSet<Key>) {
        let Some(group) = self.groups.get_mut(key) else { return };
        if group.running {
            group.touched = true;
        } else if !group.woken {
            group.woken = true;
            to_run.insert(key);
        }
    }

    fn watch(&mut self, group: Key, keys: &[WatchKey]) {
        for key in keys {
            if self.by_watch.insert((*key, group))
                && let Some(length) = key.prefix_bytes()
            {
                *self.lengths.entry(length).or_insert(0) += 1;
            }
        }
    }

    fn unwatch(&mut self, group: Key, keys: &[WatchKey]) {
        for key in keys {
            if self.by_watch.remove(&(*key, group))
                && let Some(length) = key.prefix_bytes()
                && let Some(count) = self.lengths.get_mut(&length)
            {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&length);
                }
            }
        }
    }

    /// All groups, to be run for the last time or on a new store.
    pub fn all(&self) -> Vec<Key> {
        self.groups.keys()
    }

    /// The group is being run from now on. False when it is gone, or runs already (then it will run again).
    pub fn start(&mut self, group: Key) -> bool {
        match self.groups.get_mut(group) {
            Some(group) if group.running => {
                group.touched = true;
                false
            }
            Some(group) => {
                (group.running, group.touched, group.woken) = (true, false, false);
                true
            }
            None => false,
        }
    }

    /// The run found nothing newer: the group waits on, for `keys`. True when it is to be run again at once, since a
    /// key was touched meanwhile; the caller starts it again.
    pub fn wait_on(&mut self, group_key: Key, keys: &[WatchKey], since: u64) -> bool {
        let touched_since = self.recent.touched_after(keys, since);
        let Some(group) = self.groups.get_mut(group_key) else { return false };
        group.running = false;
        let again = group.touched || touched_since;
        if group.waiters.as_slice().is_empty() {
            self.remove(group_key);
            return false;
        }
        if group.keys.as_slice() != keys {
            let old = std::mem::replace(&mut group.keys, Few::of(keys));
            self.unwatch(group_key, old.as_slice());
            self.watch(group_key, keys);
        }
        again
    }

    /// The run has an answer: the group is over. Gives those who wait for it.
    pub fn resolve(&mut self, group: Key) -> Vec<CallId> {
        self.remove(group)
    }

    fn remove(&mut self, key: Key) -> Vec<CallId> {
        let Some(group) = self.groups.remove(key) else { return Vec::new() };
        self.unwatch(key, group.keys.as_slice());
        if self.by_query.get(&group.hash) == Some(&key) {
            self.by_query.remove(&group.hash);
        }
        self.waiters -= group.waiters.as_slice().len();
        group.waiters.into_vec()
    }

    /// Queries that wait.
    pub fn waiters(&self) -> usize {
        self.waiters
    }

    /// Different ones among them.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }
}

impl Recent {
    fn note(&mut self, touched: &Touched, index: u64) {
        self.index = self.index.max(index);
        for key in &touched.keys {
            self.last.insert(*key, index);
        }
        for (namespace, path) in &touched.vars {
            self.last.insert(WatchKey::var(namespace, path), index);
            self.vars.push_back((index, Arc::clone(namespace), Arc::clone(path)));
        }
        if touched.everything || self.last.len() > RECENT_TOUCHES {
            self.last.clear();
            self.vars.clear();
            self.floor = self.index;
        }
        while self.vars.len() > RECENT_TOUCHES
            && let Some((forgotten, ..)) = self.vars.pop_front()
        {
            self.floor = self.floor.max(forgotten);
        }
    }

    fn touched_after(&self, keys: &[WatchKey], since: u64) -> bool {
        since < self.floor
            || keys.iter().any(|key| match key.prefix_bytes() {
                None => self.last.get(key).is_some_and(|index| *index > since),
                Some(length) => self.prefix_touched_after(*key, length, since),
            })
    }

    fn prefix_touched_after(&self, key: WatchKey, length: usize, since: u64) -> bool {
        let newer = self.vars.iter().rev().take_while(|(index, ..)| *index > since);
        newer.filter_map(|(_, namespace, path)| Some((namespace, path.get(..length)?))).any(|(namespace, prefix)| {
            key == WatchKey::vars_under(namespace, prefix) || key == WatchKey::vars_under(EVERY_NAMESPACE, prefix)
        })
    }
}

#[cfg(test)]
mod tests;
