//! Variables and their locks: what each write does, alike on every replica.
//!
//! Items are sealed before they come here: neither a variable nor its key is ever readable in the state. All time is
//! the entries'. Source: endpoint notes, section 4; requirements R8.1, R8.3, R8.29.
//!
//! **Invariants:** every held lock has its deadline in the index of deadlines, and no other lock is in it; a
//! variable's fence never falls, also when the variable is removed and made again.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::base::time::format_duration;
use crate::wire::entry::var::{LockName, Sealed};
use crate::wire::json::push_json_string;

/// A variable.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Var {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its path.
    pub path: Arc<str>,
    /// Its items; `None` when a lock made it without any.
    pub sealed: Option<Sealed>,
    /// The lock that is held on it, through its delay.
    pub lock: Option<Arc<VarLock>>,
    /// The highest fence seen here: the index of the last lock-acquire, or what a fenced write brought; 0 for none.
    pub fence: u64,
    /// When it was made.
    pub create_index: u64,
    /// Nanoseconds since the Unix epoch.
    pub create_time: i64,
    /// When it last changed. A renewal of its lock is no change.
    pub modify_index: u64,
    /// Nanoseconds since the Unix epoch.
    pub modify_time: i64,
}

impl Var {
    /// Appends its metadata as JSON, as the HTTP API shows it to whoever does not hold its lock: the lock is there, its
    /// id is not. `Fence` is an extension, left out when it is 0. Source: HTTP notes, section 4.
    pub fn write_json(&self, out: &mut String) {
        // Writing to a text cannot fail.
        let _ = write!(out, "{{\"CreateIndex\":{},\"CreateTime\":{}", self.create_index, self.create_time);
        if self.fence != 0 {
            let _ = write!(out, ",\"Fence\":{}", self.fence);
        }
        if let Some(lock) = &self.lock {
            let text = |nanos: i64| format_duration(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)));
            let (ttl, delay) = (text(lock.ttl), text(lock.delay));
            let _ = write!(out, ",\"Lock\":{{\"ID\":\"\",\"LockDelay\":\"{delay}\",\"TTL\":\"{ttl}\"}}");
        }
        let _ = write!(out, ",\"ModifyIndex\":{},\"ModifyTime\":{}", self.modify_index, self.modify_time);
        out.push_str(",\"Namespace\":");
        push_json_string(&self.namespace, out);
        out.push_str(",\"Path\":");
        push_json_string(&self.path, out);
        out.push('}');
    }
}

/// A lock that is held.
#[derive(Clone, Default, PartialEq)]
pub struct VarLock {
    /// Its id, a bearer secret.
    pub id: Arc<str>,
    /// Nanoseconds.
    pub ttl: i64,
    /// Nanoseconds.
    pub delay: i64,
    /// What people call the holder.
    pub owner: Arc<str>,
    /// Nanoseconds since the Unix epoch, of the entry that acquired it.
    pub since: i64,
    /// Nanoseconds since the Unix epoch: it cannot be renewed any more after this time, and is ended at this time and
    /// its delay.
    pub deadline: i64,
    /// A new leader's grace was added since the last renewal.
    pub graced: bool,
}

impl std::fmt::Debug for VarLock {
    /// Without the id.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lock = f.debug_struct("VarLock");
        lock.field("owner", &self.owner).field("ttl", &self.ttl).field("delay", &self.delay);
        lock.field("since", &self.since).field("deadline", &self.deadline).field("graced", &self.graced);
        lock.finish_non_exhaustive()
    }
}

/// What became of one write of a [`crate::wire::entry::Command::VarApply`].
#[derive(Clone, Debug, PartialEq)]
pub enum VarOutcome {
    /// Done: the variable as it is now; `None` for a delete.
    Ok(Option<Arc<Var>>),
    /// Refused: the variable that stands in the way, where the caller is to see it; `None` for the peers' empty
    /// conflict.
    Conflict(Option<Arc<Var>>),
    /// Refused, with the text of a plain error (`variable doesn't exist`).
    Refused(Cow<'static, str>),
    /// It could have been done, but another write of the same entry was refused.
    Skipped,
}

/// A lock whose time is over, for the leader to end.
pub type DueLock = LockName;
