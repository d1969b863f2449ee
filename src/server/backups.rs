//! When a backup is taken: on the leader, each time that the newest good one is old enough (R8.16).
//!
//! Decides only, from who leads, what time it is and what was found in the folder. Files are the edge's: it answers
//! each [`BackupWish`] with a [`BackupReport`], and there is one wish at a time. A server that begins to lead looks at
//! its own folder first. Backups and their ages are gauges of the leader alone.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api;
use crate::base::metric::Id;
use crate::base::time::{Instant, WallTime};
use crate::state::State;
use crate::wire::archive::Meta;

use super::Server;
use super::port::Output;

/// After a failure: a tenth of the interval, within these bounds, and never longer than the interval itself.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// What is to be done in the folder of backups.
#[derive(Clone, Debug)]
pub enum BackupWish {
    /// Read back those that are there, and remove what a dead process left half written.
    Look {
        /// How many are kept.
        keep: usize,
    },
    /// The same, then take one, read it back, and remove old ones beyond those that are kept.
    Take {
        /// How many are kept.
        keep: usize,
        /// What it holds.
        state: Arc<State>,
        /// What it is of.
        meta: Meta,
        /// The time that it bears in its name.
        at: WallTime,
    },
}

/// A good backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// When it was taken, as its name says.
    pub at: WallTime,
    /// Its size.
    pub bytes: u64,
    /// Its path.
    pub file: String,
}

/// What became of a [`BackupWish`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// The folder was looked through: what follows is what it holds.
    pub looked: bool,
    /// The newest good one.
    pub newest: Option<Backup>,
    /// How many good ones there are, up to those that are kept.
    pub good: usize,
    /// What is wrong with others, a sentence each that names the file.
    pub damaged: Vec<String>,
    /// The newest one was taken just now.
    pub taken: bool,
    /// What went wrong besides, a sentence each that names the path: an old one that could not be removed.
    pub troubles: Vec<String>,
    /// Why none was taken, or the folder not looked through; names the path.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// This server does not lead, or none are wanted.
    Off,
    /// The folder is to be looked at.
    New(Instant),
    /// The next one is taken at this time.
    Due(Instant),
    /// A wish is out: what for, since when, and whether its end still matters.
    Out { take: bool, since: Instant, matters: bool },
}

/// What a wish is to be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Look,
    Take,
}

/// The decision.
#[derive(Clone, Debug)]
pub(super) struct Backups {
    every: Duration,
    keep: usize,
    leads: bool,
    phase: Phase,
    newest: Option<Backup>,
    good: usize,
    damaged: usize,
}

impl Backups {
    pub(super) fn new(every: Duration, keep: usize) -> Backups {
        Backups { every, keep, leads: false, phase: Phase::Off, newest: None, good: 0, damaged: 0 }
    }

    /// Takes other settings over.
    pub(super) fn set(&mut self, now: Instant, every: Duration, keep: usize) {
        let changed = (self.every, self.keep) != (every, keep);
        (self.every, self.keep) = (every, keep);
        if changed {
            self.begin_anew(now);
        }
    }

    /// Whether this server leads and can serve.
    pub(super) fn lead(&mut self, now: Instant, leads: bool) {
        if self.leads != leads {
            self.leads = leads;
            self.begin_anew(now);
        }
    }

    fn begin_anew(&mut self, now: Instant) {
        let wanted = self.leads && !self.every.is_zero();
        if !wanted {
            (self.newest, self.good, self.damaged) = (None, 0, 0);
        }
        self.phase = match self.phase {
            // One at a time: whatever comes next waits for its end.
            Phase::Out { take, since, .. } => Phase::Out { take, since, matters: false },
            _ if wanted => Phase::New(now),
            _ => Phase::Off,
        };
    }

    /// When [`Backups::step`] has something.
    pub(super) fn next(&self) -> Option<Instant> {
        match self.phase {
            Phase::New(at) | Phase::Due(at) => Some(at),
            Phase::Off | Phase::Out { .. } => None,
        }
    }

    fn step(&mut self, now: Instant) -> Option<Step> {
        if self.next().is_none_or(|at| at > now) {
            return None;
        }
        let take = matches!(self.phase, Phase::Due(_));
        self.phase = Phase::Out { take, since: now, matters: true };
        Some(if take { Step::Take } else { Step::Look })
    }

    /// The end of a wish. Gives how long to wait after a failure.
    fn end(&mut self, now: Instant, wall: WallTime, report: &BackupReport) -> Option<Duration> {
        let Phase::Out { take, since, matters } = self.phase else { return None };
        self.phase = Phase::Off;
        if !matters {
            self.begin_anew(now);
            return None;
        }
        if report.looked {
            (self.newest, self.good, self.damaged) = (report.newest.clone(), report.good, report.damaged.len());
        }
        if report.error.is_some() {
            let retry = (self.every / 10).clamp(RETRY_MIN, RETRY_MAX).min(self.every);
            self.phase = if take { Phase::Due(now + retry) } else { Phase::New(now + retry) };
            return Some(retry);
        }
        // One from before is as old as the calendar says. A calendar that was set back makes none older than now.
        let (from, age) = match &report.newest {
            _ if report.taken => (since, Duration::ZERO),
            Some(newest) => (now, age(wall, newest)),
            None => (now, self.every),
        };
        self.phase = Phase::Due(from + self.every.saturating_sub(age));
        None
    }
}

fn age(wall: WallTime, of: &Backup) -> Duration {
    let nanos = wall.unix_nanos().saturating_sub(of.at.unix_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

impl Server {
    /// Makes the wish that is due, if one is.
    pub(super) fn on_backups_due(&mut self, now: Instant) {
        let keep = self.backups.keep;
        let wish = match self.backups.step(now) {
            None => return,
            Some(Step::Look) => BackupWish::Look { keep },
            Some(Step::Take) => {
                self.fresh_ctx(false);
                let state = self.root.load_full();
                let meta = api::snapshot::meta(&state, &self.ctx);
                BackupWish::Take { keep, state, meta, at: self.wall }
            }
        };
        self.output(Output::Backup(wish));
    }

    /// Leadership began or ended, or the server is about to stop.
    pub(super) fn backups_lead(&mut self, now: Instant) {
        let leads = self.ctx.is_leader && !self.is_leaving();
        self.backups.lead(now, leads);
    }

    /// What became of a wish.
    pub(super) fn on_backed_up(&mut self, now: Instant, report: &BackupReport) {
        let retry = self.backups.end(now, self.wall, report);
        if report.taken
            && let Some(Backup { bytes, file, .. }) = &report.newest
        {
            self.metrics.count(Id::BackupTaken);
            self.log(Level::Info, format!("backup taken: file={file} bytes={bytes} kept={}", report.good));
        }
        for damage in &report.damaged {
            self.log(Level::Error, format!("backup is damaged: error={damage:?}"));
        }
        for trouble in &report.troubles {
            self.log(Level::Error, format!("backups: error={trouble:?}"));
        }
        if let Some(error) = &report.error {
            self.metrics.count(Id::BackupFailed);
            let retry = retry.map(|retry| format!(" retry={retry:?}")).unwrap_or_default();
            self.log(Level::Error, format!("no backup: error={error:?}{retry}"));
        }
    }

    /// Makes the gauges true.
    pub(super) fn backup_gauges(&mut self) {
        let newest = self.backups.newest.as_ref();
        let (age, bytes) = newest.map_or((0.0, 0), |newest| (age(self.wall, newest).as_secs_f64(), newest.bytes));
        self.metrics.set(Id::BackupAge, age.floor());
        self.metrics.set(Id::BackupSize, bytes as f64);
        self.metrics.set(Id::BackupKept, self.backups.good as f64);
        self.metrics.set(Id::BackupDamaged, self.backups.damaged as f64);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const MINUTE: Duration = Duration::from_secs(60);
    const WALL: WallTime = WallTime::from_unix_nanos(1_795_317_300_000_000_000);

    fn at(span: Duration) -> Instant {
        Instant::ZERO + span
    }

    fn wall(span: Duration) -> WallTime {
        WallTime::from_unix_nanos(WALL.unix_nanos() + i64::try_from(span.as_nanos()).unwrap())
    }

    fn holds(newest: Option<WallTime>) -> BackupReport {
        let newest = newest.map(|at| Backup { at, bytes: 9, file: "/b/one".to_owned() });
        BackupReport { looked: true, good: usize::from(newest.is_some()), newest, ..BackupReport::default() }
    }

    fn failed() -> BackupReport {
        BackupReport { error: Some("/b: no".to_owned()), ..BackupReport::default() }
    }

    /// One that leads, and has looked at a folder in which this is the newest.
    fn leading(newest: Option<WallTime>) -> Backups {
        let mut backups = Backups::new(HOUR, 7);
        backups.lead(at(HOUR), true);
        assert_eq!(backups.step(at(HOUR)), Some(Step::Look));
        assert_eq!(backups.end(at(HOUR), WALL, &holds(newest)), None);
        backups
    }

    // R8.16
    #[test]
    fn only_a_leader_takes_any_and_only_when_they_are_wanted() {
        let mut backups = Backups::new(HOUR, 7);
        assert_eq!((backups.next(), backups.step(at(HOUR * 9))), (None, None));
        backups.lead(at(HOUR), true);
        assert_eq!(backups.next(), Some(at(HOUR)));
        backups.lead(at(HOUR), false);
        assert_eq!((backups.next(), backups.step(at(HOUR * 9))), (None, None));
        let mut never = Backups::new(Duration::ZERO, 7);
        never.lead(at(HOUR), true);
        assert_eq!(never.next(), None);
    }

    #[test]
    fn a_new_leader_takes_one_when_the_newest_is_old_enough() {
        let from_now = |newest| leading(newest).next().unwrap().since(at(HOUR));
        assert_eq!(from_now(None), Duration::ZERO);
        let before = |span: Duration| Some(WallTime::from_unix_nanos(WALL.unix_nanos() - span.as_nanos() as i64));
        assert_eq!(from_now(before(MINUTE * 20)), MINUTE * 40);
        assert_eq!(from_now(before(HOUR * 100)), Duration::ZERO);
        // A calendar that was set back.
        assert_eq!(from_now(Some(wall(HOUR * 100))), HOUR);
    }

    #[test]
    fn the_next_one_is_counted_from_the_beginning_of_the_last() {
        let mut backups = leading(None);
        let began = at(HOUR * 2);
        assert_eq!(backups.step(began), Some(Step::Take));
        assert_eq!((backups.next(), backups.step(began + HOUR * 3)), (None, None), "one at a time");
        let taken = BackupReport { taken: true, ..holds(Some(WALL)) };
        assert_eq!(backups.end(began + MINUTE * 5, wall(MINUTE * 5), &taken), None);
        assert_eq!(backups.next(), Some(began + HOUR));
        assert_eq!(backups.newest.as_ref().map(|newest| age(wall(MINUTE * 5), newest)), Some(MINUTE * 5));
    }

    #[test]
    fn a_failure_is_tried_again_after_a_bounded_while() {
        for (every, retry) in [(1, 1), (60, 10), (3600, 360), (86_400, 600)] {
            let (every, retry) = (Duration::from_secs(every), Duration::from_secs(retry));
            let mut backups = Backups::new(every, 7);
            backups.lead(at(HOUR), true);
            for _ in 0..3 {
                let now = backups.next().unwrap();
                assert_eq!(backups.step(now), Some(Step::Look));
                assert_eq!(backups.end(now, WALL, &failed()), Some(retry), "{every:?}");
                assert_eq!(backups.next(), Some(now + retry));
            }
            let now = backups.next().unwrap();
            backups.step(now);
            backups.end(now, WALL, &holds(None));
            assert_eq!(backups.step(now), Some(Step::Take));
            assert_eq!(backups.end(now, WALL, &failed()), Some(retry));
            assert_eq!(backups.next(), Some(now + retry));
            assert_eq!(backups.step(now + retry), Some(Step::Take), "what failed is what is tried again");
        }
    }

    #[test]
    fn what_was_found_is_remembered_through_a_failure() {
        let mut backups = leading(Some(WALL));
        backups.step(at(HOUR * 3));
        backups.end(at(HOUR * 3), wall(HOUR), &failed());
        assert_eq!((backups.good, backups.newest.is_some()), (1, true), "its age goes on");
        let damaged = vec!["/b/x: is cut short".to_owned()];
        backups.step(at(HOUR * 4));
        backups.end(at(HOUR * 4), wall(HOUR), &BackupReport { looked: true, damaged, ..failed() });
        assert_eq!((backups.good, backups.damaged, backups.newest), (0, 1, None), "the folder was looked through");
    }

    #[test]
    fn what_was_begun_before_leadership_or_settings_changed_ends_before_the_next_begins() {
        let mut backups = leading(None);
        assert_eq!(backups.step(at(HOUR)), Some(Step::Take));
        backups.lead(at(HOUR), false);
        backups.lead(at(HOUR), true);
        assert_eq!(backups.next(), None);
        assert_eq!(backups.end(at(HOUR * 2), WALL, &failed()), None);
        assert_eq!(backups.step(at(HOUR * 2)), Some(Step::Look));
        backups.set(at(HOUR * 2), Duration::ZERO, 7);
        backups.end(at(HOUR * 2), WALL, &holds(Some(WALL)));
        assert_eq!((backups.next(), backups.newest), (None, None));
        let mut same = leading(Some(WALL));
        let due = same.next();
        same.set(at(HOUR), HOUR, 7);
        assert_eq!(same.next(), due);
        same.set(at(HOUR), MINUTE, 7);
        assert_eq!(same.next(), Some(at(HOUR)));
    }
}
