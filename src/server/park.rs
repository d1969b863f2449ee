//! Blocking queries that wait for a change; equal ones are one group and are run once (requirements R1.85 to R1.98).
//!
//! **Invariant:** a group is idle, and then every touch of its keys since its last run has been seen; or it is being
//! run, and then a touch marks it to be run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Caller, Method};
use crate::base::id::CallId;
use crate::base::slab::{Key, Slab};
use crate::state::watch::WatchKey;
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
    waiters: usize,
    recent: Recent,
}

/// Touches remembered for queries that were being run on another thread meanwhile.
const RECENT_TOUCHES: usize = 4096;

#[derive(Default)]
struct Recent {
    last: BTreeMap<WatchKey, u64>,
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
                self.by_watch.extend(keys.iter().map(|watch| (*watch, key)));
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

    /// These keys were touched by the entry at `index`. Gives the groups to be run now.
    pub fn touch(&mut self, keys: &[WatchKey], index: u64) -> Vec<Key> {
        self.recent.note(keys, index);
        let mut to_run = BTreeSet::new();
        for key in keys {
            for (_, group_key) in self.by_watch.range((*key, 0)..=(*key, u64::MAX)) {
                if let Some(group) = self.groups.get_mut(*group_key) {
                    if group.running {
                        group.touched = true;
                    } else if !group.woken {
                        group.woken = true;
                        to_run.insert(*group_key);
                    }
                }
            }
        }
        to_run.into_iter().collect()
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
            for key in old.as_slice() {
                self.by_watch.remove(&(*key, group_key));
            }
            self.by_watch.extend(keys.iter().map(|key| (*key, group_key)));
        }
        again
    }

    /// The run has an answer: the group is over. Gives those who wait for it.
    pub fn resolve(&mut self, group: Key) -> Vec<CallId> {
        self.remove(group)
    }

    fn remove(&mut self, key: Key) -> Vec<CallId> {
        let Some(group) = self.groups.remove(key) else { return Vec::new() };
        for watch in group.keys.as_slice() {
            self.by_watch.remove(&(*watch, key));
        }
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
    fn note(&mut self, keys: &[WatchKey], index: u64) {
        self.index = self.index.max(index);
        for key in keys {
            self.last.insert(*key, index);
        }
        if self.last.len() > RECENT_TOUCHES {
            self.last.clear();
            self.floor = self.index;
        }
    }

    fn touched_after(&self, keys: &[WatchKey], since: u64) -> bool {
        since < self.floor || keys.iter().any(|key| self.last.get(key).is_some_and(|index| *index > since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::outcome::{Outcome, Reply};
    use crate::api::{Access, Weight};

    static METHOD: Method = Method {
        name: "Test.Get",
        access: Access::Read,
        weight: Weight::Light,
        heartbeat: false,
        run: |_, _, _| Outcome::Reply(Reply::default()),
    };

    fn query(body: &[u8]) -> Query {
        let caller = Caller { peer: ([127, 0, 0, 1], 1).into(), tls_names: None, proven_node: None, good_token: None };
        Query { method: &METHOD, body: body.into(), base: 0, caller: Arc::new(caller) }
    }

    #[test]
    fn equal_queries_are_one_group_and_wake_once() {
        let mut parked = Parked::default();
        let key = WatchKey::node("a");
        let a = parked.park(CallId(1), query(b"x"), &[key], 0).expect("parks");
        let b = parked.park(CallId(2), query(b"x"), &[key], 0).expect("parks");
        let c = parked.park(CallId(3), query(b"y"), &[WatchKey::node("b")], 0).expect("parks");
        assert_eq!((a.group, parked.groups(), parked.waiters()), (b.group, 2, 3));
        assert_ne!(a.group, c.group);
        // R1.87: another key wakes nobody.
        assert!(parked.touch(&[WatchKey::node("c")], 5).is_empty());
        assert_eq!(parked.touch(&[key], 6), [a.group]);
        assert!(parked.start(a.group));
        assert_eq!(parked.resolve(a.group), [CallId(1), CallId(2)]);
        assert_eq!((parked.groups(), parked.waiters()), (1, 1));
    }

    #[test]
    fn a_touch_during_a_run_is_never_lost() {
        // R1.94
        let mut parked = Parked::default();
        let key = WatchKey::nodes();
        let place = parked.park(CallId(1), query(b"x"), &[key], 0).expect("parks");
        assert!(parked.start(place.group));
        assert!(parked.touch(&[key], 7).is_empty());
        assert!(parked.wait_on(place.group, &[key], 0), "touched while it ran: again");
        assert!(parked.start(place.group));
        assert!(!parked.wait_on(place.group, &[key], 7));
        // A first run that began before the touch and parks after it.
        assert_eq!(parked.park(CallId(2), query(b"y"), &[key], 6), None);
        assert!(parked.park(CallId(2), query(b"y"), &[key], 7).is_some());
    }

    #[test]
    fn leaving_tells_who_moved_and_empties_the_tables() {
        // R1.97
        let mut parked = Parked::default();
        let key = WatchKey::nodes();
        let places: Vec<Place> =
            (1..=3).map(|n| parked.park(CallId(n), query(b"x"), &[key], 0).expect("parks")).collect();
        assert_eq!(parked.leave(places[0]), Some(CallId(3)));
        assert_eq!(parked.leave(Place { group: places[0].group, at: 1 }), None);
        assert_eq!(parked.leave(Place { group: places[0].group, at: 0 }), None);
        assert_eq!((parked.groups(), parked.waiters(), parked.by_watch.len(), parked.by_query.len()), (0, 0, 0, 0));
    }
}
