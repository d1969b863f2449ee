//! Which nodes are heard from: a timer each, on the leader only.
//!
//! Source: Nomad's `heartbeat.go`, by the endpoint notes, section 3.2 "Heartbeat timing".

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::base::slab::{Key, Slab};
use crate::base::time::Instant;
use crate::base::timers::Timers;

/// Times of heartbeats.
#[derive(Clone, Debug)]
pub struct Times {
    /// The least TTL.
    pub min_ttl: Duration,
    /// Added to the TTL before the node is down.
    pub grace: Duration,
    /// Of all nodes together.
    pub max_per_second: f64,
    /// What each node gets from a new leader.
    pub failover_ttl: Duration,
}

struct Timer {
    node_id: Arc<str>,
    at: Instant,
}

/// The timers of all nodes that are not down.
pub struct Heartbeats {
    times: Times,
    slots: Slab<Timer>,
    by_node: BTreeMap<Arc<str>, Key>,
    timers: Timers<Key>,
}

impl Heartbeats {
    /// No timers.
    pub fn new(times: Times) -> Heartbeats {
        Heartbeats { times, slots: Slab::default(), by_node: BTreeMap::new(), timers: Timers::default() }
    }

    /// A TTL for a node to be told: at least the minimum, more when there are many nodes, and up to twice that by
    /// chance so that they do not come all at once.
    pub fn draw_ttl(&self, rng: &mut Rng) -> Duration {
        const ONE_A_DAY: f64 = 1.0 / 86_400.0;
        let mut ttl = self.times.min_ttl;
        if self.times.max_per_second > ONE_A_DAY {
            let spread = self.by_node.len() as f64 / self.times.max_per_second;
            ttl = ttl.max(Duration::try_from_secs_f64(spread).unwrap_or(ttl));
        }
        ttl + rng.jitter(ttl)
    }

    /// The node was told this TTL just now.
    pub fn reset(&mut self, now: Instant, node_id: &Arc<str>, ttl: Duration) {
        self.set(now + ttl + self.times.grace, node_id);
    }

    /// The node is missed at this time unless it is heard before, or was heard meanwhile and has a timer already.
    pub fn retry(&mut self, at: Instant, node_id: &Arc<str>) {
        if !self.by_node.contains_key(node_id) {
            self.set(at, node_id);
        }
    }

    /// This server leads from now on: every node that is not down has the failover TTL to be heard.
    pub fn lead<'a>(&mut self, now: Instant, nodes: impl Iterator<Item = &'a Arc<str>>) {
        for node_id in nodes {
            if !self.by_node.contains_key(node_id) {
                self.set(now + self.times.failover_ttl, node_id);
            }
        }
    }

    fn set(&mut self, at: Instant, node_id: &Arc<str>) {
        let key = match self.by_node.get(node_id) {
            Some(key) => *key,
            None => {
                let key = self.slots.insert(Timer { node_id: node_id.clone(), at });
                self.by_node.insert(node_id.clone(), key);
                key
            }
        };
        if let Some(timer) = self.slots.get_mut(key) {
            self.timers.cancel(timer.at, key);
            timer.at = at;
            self.timers.set(at, key);
        }
    }

    /// The node is gone or down: nothing is awaited of it.
    pub fn clear(&mut self, node_id: &str) {
        if let Some(key) = self.by_node.remove(node_id)
            && let Some(timer) = self.slots.remove(key)
        {
            self.timers.cancel(timer.at, key);
        }
    }

    /// This server does not lead any more.
    pub fn clear_all(&mut self) {
        self.slots = Slab::default();
        self.by_node.clear();
        self.timers.clear();
    }

    /// A node that was not heard in time; its timer is gone.
    pub fn pop_missed(&mut self, now: Instant) -> Option<Arc<str>> {
        let (_, key) = self.timers.pop_due(now)?;
        let timer = self.slots.remove(key)?;
        self.by_node.remove(&timer.node_id);
        Some(timer.node_id)
    }

    /// When the next one is missed.
    pub fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// How many nodes are awaited.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeats() -> Heartbeats {
        Heartbeats::new(Times {
            min_ttl: Duration::from_secs(10),
            grace: Duration::from_secs(10),
            max_per_second: 50.0,
            failover_ttl: Duration::from_secs(300),
        })
    }

    #[test]
    fn a_node_is_missed_after_its_ttl_and_grace_and_once() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut all = heartbeats();
        all.reset(at(0), &a, Duration::from_secs(12));
        all.reset(at(0), &b, Duration::from_secs(12));
        all.reset(at(10), &b, Duration::from_secs(12));
        assert_eq!(all.pop_missed(at(21)), None);
        assert_eq!(all.pop_missed(at(22)), Some(a.clone()));
        assert_eq!(all.pop_missed(at(31)), None);
        all.clear("b");
        assert_eq!((all.pop_missed(at(100)), all.next()), (None, None));
    }

    #[test]
    fn looking_again_never_shortens_what_a_heartbeat_gave() {
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let a: Arc<str> = "a".into();
        let mut all = heartbeats();
        all.reset(at(0), &a, Duration::from_secs(12));
        assert_eq!(all.pop_missed(at(22)), Some(a.clone()));
        all.retry(at(23), &a);
        assert_eq!(all.next(), Some(at(23)));
        all.reset(at(22), &a, Duration::from_secs(12));
        all.retry(at(23), &a);
        assert_eq!(all.next(), Some(at(44)));
    }

    #[test]
    fn the_ttl_grows_with_the_fleet() {
        let mut rng = Rng::from_seed(1);
        let mut all = heartbeats();
        let within = |ttl: Duration, low: u64| ttl >= Duration::from_secs(low) && ttl < Duration::from_secs(2 * low);
        assert!((0..100).all(|_| within(all.draw_ttl(&mut rng), 10)));
        let ids: Vec<Arc<str>> = (0..5000).map(|n| Arc::from(n.to_string())).collect();
        all.lead(Instant::ZERO, ids.iter());
        assert!((0..100).all(|_| within(all.draw_ttl(&mut rng), 100)));
        assert_eq!(all.next(), Some(Instant::ZERO + Duration::from_secs(300)));
    }
}
