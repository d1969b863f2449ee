//! What clients do with variables: keep them, follow them, take turns at locks; and stand still with a lock in hand.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::wire::entry::var::VarOpKind;

use super::ground::Ground;
use super::history::{Answered, Asked, Outcome};
use super::variables::{FIRST_LOCK, PATHS, PREFIXES, PathNumber, VarAnswered, VarAsked, VarWrite};
use super::workload::Next;

/// Writes and reads any variable.
#[derive(Clone, Debug, Default)]
pub struct Keeper {
    /// What it last heard of each.
    seen: BTreeMap<PathNumber, u64>,
}

/// Follows one variable, or all under a prefix.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Which one; `None` for a prefix.
    pub path: Option<PathNumber>,
    /// The prefix.
    pub prefix: &'static str,
    /// The index last seen.
    pub seen: u64,
}

/// Takes a lock, renews it, writes under it, gives it back; or stands still with it and goes on as if nothing was.
#[derive(Clone, Debug)]
pub struct Locker {
    /// On which path.
    pub path: PathNumber,
    lock_id: String,
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    fence: u64,
    ttl: Duration,
    /// It stood still, and its lock may be somebody else's.
    stale: bool,
}

fn pick<T: Copy>(ground: &mut Ground, from: &[T], or: T) -> T {
    from.get(ground.rng.below(from.len() as u64) as usize).copied().unwrap_or(or)
}

/// A write that demands nothing, with a nonce where it has items.
pub(super) fn write(ground: &mut Ground, kind: VarOpKind, path: PathNumber) -> VarWrite {
    let has_items = !matches!(kind, VarOpKind::Delete | VarOpKind::DeleteCas | VarOpKind::LockRelease);
    VarWrite {
        kind,
        path,
        nonce: if has_items { ground.nonce() } else { 0 },
        check: 0,
        lock_id: String::new(),
        ttl: Duration::ZERO,
        delay: Duration::ZERO,
        fence: 0,
        wait: Duration::ZERO,
    }
}

impl Keeper {
    /// What to do next.
    pub fn next(&mut self, ground: &mut Ground) -> Next {
        let path = ground.rng.below(PATHS.len() as u64) as usize;
        if ground.options.servers > 1 && ground.rng.chance(1, 4) {
            return Next::Ask(Asked::Var(VarAsked::Glance { path }));
        }
        let asked = match ground.rng.below(100) {
            0..60 => VarAsked::Apply(self.write(ground, path)),
            60..70 => {
                let other = (path + 1 + ground.rng.below(PATHS.len() as u64 - 1) as usize) % PATHS.len();
                VarAsked::Txn(vec![self.write(ground, path), self.write(ground, other)])
            }
            70..86 => VarAsked::Read { path, min: 0, wait_nanos: 0 },
            _ => VarAsked::List { prefix: pick(ground, &PREFIXES, ""), min: 0, wait_nanos: 0 },
        };
        Next::Ask(Asked::Var(asked))
    }

    fn write(&self, ground: &mut Ground, path: PathNumber) -> VarWrite {
        let seen = self.seen.get(&path).copied().unwrap_or(0);
        let (kind, check) = match ground.rng.below(10) {
            0..4 => (VarOpKind::Set, 0),
            4..7 => (VarOpKind::Cas, seen),
            7..9 => (VarOpKind::Delete, 0),
            _ => (VarOpKind::DeleteCas, seen),
        };
        VarWrite { check, ..write(ground, kind, path) }
    }

    /// How it went.
    pub fn learn(&mut self, ground: &mut Ground, asked: &VarAsked, outcome: &Outcome) -> Duration {
        match (asked, outcome) {
            (VarAsked::Read { path, .. }, Outcome::Done(Answered::Var(VarAnswered::Read(_, seen)))) => {
                self.seen.insert(*path, seen.map_or(0, |seen| seen.modify_index));
            }
            (asked, Outcome::Done(Answered::Var(VarAnswered::Written { index, ok: true, .. }))) => {
                for write in asked.all_writes() {
                    self.seen.insert(write.path, if write.nonce > 0 { *index } else { 0 });
                }
            }
            _ => {}
        }
        ground.rng.jitter(Duration::from_millis(900))
    }
}

impl Follower {
    /// What to do next.
    pub fn next(&mut self, ground: &mut Ground) -> Next {
        let wait_nanos = pick(ground, &[2, 9, 20], 2) * 1_000_000_000;
        let min = if ground.rng.chance(1, 20) { 0 } else { self.seen };
        Next::Ask(Asked::Var(match self.path {
            Some(path) => VarAsked::Read { path, min, wait_nanos },
            None => VarAsked::List { prefix: self.prefix, min, wait_nanos },
        }))
    }

    /// How it went.
    pub fn learn(&mut self, ground: &mut Ground, outcome: &Outcome) -> Duration {
        if let Outcome::Done(Answered::Var(VarAnswered::Read(index, _) | VarAnswered::List(index, _))) = outcome {
            self.seen = *index;
        }
        ground.rng.jitter(Duration::from_millis(100))
    }

    /// One that follows a path or a prefix, by chance.
    pub fn any(ground: &mut Ground) -> Follower {
        let path = ground.rng.below(PATHS.len() as u64) as usize;
        let prefix = pick(ground, &PREFIXES, "");
        let one = ground.rng.chance(1, 2);
        Follower { path: one.then_some(path), prefix, seen: 0 }
    }
}

impl Locker {
    /// One that holds nothing.
    pub fn new(path: PathNumber) -> Locker {
        Locker { path, lock_id: String::new(), held: None }
    }

    /// What to do next.
    pub fn next(&mut self, ground: &mut Ground) -> Next {
        let Some(held) = self.held else { return self.acquire(ground) };
        let path = self.path;
        let under = |ground: &mut Ground, lock_id: &str| VarWrite {
            lock_id: lock_id.to_owned(),
            fence: held.fence,
            ..write(ground, VarOpKind::Set, path)
        };
        if held.stale {
            // It believes to hold the lock still; or it has never heard of locks, and has a fence only.
            let what = ground.rng.below(10);
            self.held = None;
            return Next::Ask(Asked::Var(match what {
                0..6 => VarAsked::Apply(under(ground, "")),
                6..8 => VarAsked::Apply(under(ground, &self.lock_id)),
                8 => VarAsked::Renew { path, lock_id: self.lock_id.clone() },
                _ => self.release(ground),
            }));
        }
        match ground.rng.below(100) {
            0..55 => Next::Ask(Asked::Var(VarAsked::Renew { path, lock_id: self.lock_id.clone() })),
            55..75 => Next::Ask(Asked::Var(VarAsked::Apply(under(ground, &self.lock_id)))),
            75..88 => {
                let release = self.release(ground);
                if ground.rng.chance(1, 2) {
                    self.held = None;
                } else {
                    self.held = Some(Held { stale: true, ..held });
                }
                Next::Ask(Asked::Var(release))
            }
            88..94 => {
                self.held = None;
                Next::Sleep(ground.rng.jitter(held.ttl))
            }
            _ => {
                self.held = Some(Held { stale: true, ..held });
                Next::Sleep(2 * held.ttl + ground.rng.jitter(Duration::from_secs(8)))
            }
        }
    }

    fn acquire(&mut self, ground: &mut Ground) -> Next {
        self.lock_id = ground.rng.uuid();
        let ttl = Duration::from_secs(pick(ground, &[2, 3, 5], 2));
        let delay = Duration::from_millis(pick(ground, &[1, 1000, 2500], 1));
        let wait = Duration::from_secs(pick(ground, &[0, 0, 6, 20], 0));
        let lock_id = self.lock_id.clone();
        let acquire = VarWrite { lock_id, ttl, delay, wait, ..write(ground, VarOpKind::LockAcquire, self.path) };
        Next::Ask(Asked::Var(VarAsked::Apply(acquire)))
    }

    fn release(&self, ground: &mut Ground) -> VarAsked {
        let lock_id = self.lock_id.clone();
        VarAsked::Apply(VarWrite { lock_id, ..write(ground, VarOpKind::LockRelease, self.path) })
    }

    /// How it went.
    pub fn learn(&mut self, ground: &mut Ground, asked: &VarAsked, outcome: &Outcome) -> Duration {
        let acquired = match asked {
            VarAsked::Apply(write) if write.kind == VarOpKind::LockAcquire => Some(write.ttl),
            _ => None,
        };
        match (acquired, outcome) {
            (Some(ttl), Outcome::Done(Answered::Var(VarAnswered::Written { ok: true, fence, .. }))) => {
                self.held = Some(Held { fence: *fence, ttl, stale: false });
            }
            (Some(_), _) | (None, Outcome::Refused(_) | Outcome::Unknown) => self.held = None,
            (None, Outcome::Done(Answered::Var(VarAnswered::Written { ok: false, .. }))) => self.held = None,
            _ => {}
        }
        match self.held {
            Some(held) if held.stale => ground.rng.jitter(Duration::from_secs(10)),
            Some(held) => held.ttl.mul_f64(0.2) + ground.rng.jitter(held.ttl.mul_f64(0.4)),
            None => ground.rng.jitter(Duration::from_millis(1500)),
        }
    }
}

/// Roles for a world: whoever takes turns at a lock does so on the last paths.
pub fn lock_path(ground: &mut Ground) -> PathNumber {
    // Mostly the same one, so that there is something to wait for.
    if ground.rng.chance(3, 4) { FIRST_LOCK } else { FIRST_LOCK + 1 }
}
