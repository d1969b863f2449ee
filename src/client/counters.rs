//! What a client counts: errors by class, and what became of its connections.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::wire::class::Class;

/// What moves while calls are made; shared by all handles of a client.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    pub(crate) open: AtomicU64,
    pub(crate) idle: AtomicU64,
    pub(crate) check: AtomicU64,
    pub(crate) check_dead: AtomicU64,
    pub(crate) retry: AtomicU64,
    pub(crate) fresh: AtomicU64,
    named: Mutex<BTreeMap<String, u64>>,
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) fn subtract(counter: &AtomicU64) {
    counter.fetch_sub(1, Ordering::Relaxed);
}

impl Counting {
    /// An attempt, or a call, ended so.
    pub(crate) fn error(&self, class: Class) {
        self.named(format!("holdfast.client.error.{class}"));
    }

    /// A connection was closed for this reason.
    pub(crate) fn discard(&self, reason: &str) {
        self.named(format!("holdfast.pool.discard.{reason}"));
    }

    fn named(&self, name: String) {
        *self.named.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_insert(0) += 1;
    }

    /// All of them as they are now.
    pub(crate) fn read(&self) -> Counters {
        let mut values = self.named.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (name, counter) in [
            ("holdfast.pool.open", &self.open),
            ("holdfast.pool.idle", &self.idle),
            ("holdfast.pool.check", &self.check),
            ("holdfast.pool.check_dead", &self.check_dead),
            ("holdfast.pool.retry", &self.retry),
            ("holdfast.pool.fresh", &self.fresh),
        ] {
            values.insert(name.to_owned(), counter.load(Ordering::Relaxed));
        }
        Counters { values }
    }
}

/// The counters of a client at one moment.
///
/// | name | what it counts |
/// |---|---|
/// | `holdfast.client.error.<class>` | tries that ended with an error of that class, those made again too; and writes that were told `outcome-unknown` |
/// | `holdfast.pool.open` | connections that stand now |
/// | `holdfast.pool.idle` | those of them that no call uses |
/// | `holdfast.pool.check` | looks at a kept connection before its next use |
/// | `holdfast.pool.check_dead` | looks that found it dead |
/// | `holdfast.pool.retry` | calls made again because their connection was lost |
/// | `holdfast.pool.fresh` | calls that lost two connections and then went over one dialled after that |
/// | `holdfast.pool.discard.<reason>` | connections that were closed, by the reason |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    values: BTreeMap<String, u64>,
}

impl Counters {
    /// The value of one; 0 when it never moved.
    pub fn value(&self, name: &str) -> u64 {
        self.values.get(name).copied().unwrap_or(0)
    }

    /// How often a try, or a write, ended with this class.
    pub fn errors(&self, class: Class) -> u64 {
        self.value(&format!("holdfast.client.error.{class}"))
    }

    /// All that moved, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.values.iter().map(|(name, value)| (name.as_str(), *value))
    }
}
