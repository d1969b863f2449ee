//! What must hold between servers at every moment, looked at as it happens: one leader in a term, no two leases at
//! once, one cluster, the same entry at the same index, the same state after it. (Goals 1, 8, 15.)

use std::collections::{BTreeMap, BTreeSet};

use crate::base::id::ReplicaId;
use crate::base::time::Instant;
use crate::consensus::{Leadership, Notice};
use crate::state::State;

use super::ground::Ground;
use super::site::SiteNumber;

/// States of every so many indexes are held against each other.
const DIGEST_EVERY: u64 = 4;

/// When a server led and served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Which process.
    pub life: usize,
    /// In which term.
    pub term: u64,
    /// It was ready from here on.
    pub from: Instant,
    /// Until it knew better, or ended.
    pub to: Option<Instant>,
}

/// What one server believes.
#[derive(Clone, Debug, Default)]
struct Belief {
    leadership: Leadership,
    /// As the clock of its machine shows it: what is done to that clock counts.
    lease: Instant,
}

/// What was seen so far.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    leaders: BTreeMap<u64, SiteNumber>,
    beliefs: BTreeMap<SiteNumber, Belief>,
    clusters: BTreeSet<String>,
    foundings: BTreeSet<Vec<ReplicaId>>,
    digests: BTreeMap<u64, [u8; 32]>,
}

impl Watch {
    /// The server that leads and is ready, as far as it knows itself; that of the highest term.
    pub fn leader(&self) -> Option<SiteNumber> {
        let ready = self.beliefs.iter().filter(|(_, belief)| belief.leadership.is_self && belief.leadership.ready);
        ready.max_by_key(|(_, belief)| belief.leadership.term).map(|(site, _)| *site)
    }

    /// Clusters that were founded.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }
}

impl Ground {
    /// A replica told its server something.
    pub(super) fn watch_notice(&mut self, site: SiteNumber, life: usize, notice: &Notice) {
        match notice {
            Notice::Leadership(known) => self.watch_leadership(site, life, known),
            Notice::Applied { index, .. } => self.witness(site, index.0),
            _ => {}
        }
    }

    /// A server is told how long it may serve reads.
    pub(super) fn watch_lease(&mut self, site: SiteNumber, notice: &Notice) {
        if let Notice::Lease(until) = notice {
            self.watch.beliefs.entry(site).or_default().lease = *until;
            self.watch_leases(site);
        }
    }

    fn watch_leadership(&mut self, site: SiteNumber, life: usize, known: &Leadership) {
        let now = self.now;
        self.watch.beliefs.entry(site).or_default().leadership = known.clone();
        if known.is_self {
            let first = *self.watch.leaders.entry(known.term.0).or_insert(site);
            if first != site {
                self.wrong(format!("two leaders in the term {}: servers {first} and {site}", known.term));
            }
        }
        self.end_reign(life, if known.is_self { Some(known.term.0) } else { None });
        let reigns = self.history.reigns.iter().any(|one| one.life == life && one.to.is_none());
        if known.is_self && known.ready && !reigns {
            let reign = Reign { life, term: known.term.0, from: now, to: None };
            self.note(&format!("server {site} leads: {reign:?}"));
            self.history.reigns.push(reign);
        }
        self.watch_leases(site);
    }

    fn end_reign(&mut self, life: usize, but: Option<u64>) {
        let now = self.now;
        let reigns = self.history.reigns.iter_mut().filter(|one| one.life == life && one.to.is_none());
        for reign in reigns.filter(|one| Some(one.term) != but) {
            reign.to = Some(now);
        }
    }

    /// A process has ended: it believes nothing any more.
    pub(super) fn watch_end(&mut self, site: SiteNumber, life: usize) {
        self.watch.beliefs.remove(&site);
        self.end_reign(life, None);
    }

    fn holds_lease(&self, site: SiteNumber) -> bool {
        let leads = |belief: &&Belief| belief.leadership.is_self && belief.leadership.ready;
        self.watch.beliefs.get(&site).filter(leads).is_some_and(|belief| belief.lease > self.clock(site))
    }

    /// Whether a server takes itself for the leader although its lease is over.
    pub(super) fn is_past_its_lease(&self, site: SiteNumber) -> bool {
        let leads = |belief: &&Belief| belief.leadership.is_self && belief.leadership.ready;
        self.watch.beliefs.get(&site).filter(leads).is_some_and(|belief| belief.lease <= self.clock(site))
    }

    /// The lease that a server was told last, as its clock shows it.
    pub(super) fn lease_of(&self, site: SiteNumber) -> Instant {
        self.watch.beliefs.get(&site).map_or(Instant::ZERO, |belief| belief.lease)
    }

    /// No two servers may serve reads by a lease at once.
    fn watch_leases(&mut self, site: SiteNumber) {
        if !self.holds_lease(site) {
            return;
        }
        let other = self.watch.beliefs.keys().copied().find(|other| *other != site && self.holds_lease(*other));
        if let Some(other) = other {
            self.wrong(format!("servers {other} and {site} hold a lease at once"));
        }
    }

    /// A server has promised itself to a cluster.
    pub(super) fn watch_cluster(&mut self, cluster_id: &str) {
        if !cluster_id.is_empty() && self.watch.clusters.insert(cluster_id.to_owned()) && self.watch.clusters.len() > 1
        {
            self.wrong(format!("two clusters: {:?}", self.watch.clusters));
        }
    }

    /// A server founds its group.
    pub(super) fn watch_founding(&mut self, voters: &[ReplicaId]) {
        if self.watch.foundings.insert(voters.to_vec()) && self.watch.foundings.len() > 1 {
            self.wrong(format!("two foundings: {:?}", self.watch.foundings));
        }
    }

    /// An entry is applied: it is the truth from now on.
    fn witness(&mut self, site: SiteNumber, index: u64) {
        let Some(entry) = self.site(site).log.get(index).cloned() else {
            self.site(site).unseen.insert(index);
            return;
        };
        if let Err(why) = self.truth.witness(&entry) {
            self.wrong(format!("server {site}: {why}"));
        }
    }

    /// Entries were written that may have been applied before.
    pub(super) fn witness_written(&mut self, site: SiteNumber) {
        for index in std::mem::take(&mut self.site(site).unseen) {
            self.witness(site, index);
        }
    }

    /// A root was published: all servers have the same one at the same index.
    pub(super) fn watch_root(&mut self, site: SiteNumber, root: &State) {
        let index = root.index().0;
        if self.options.servers < 2 || !index.is_multiple_of(DIGEST_EVERY) {
            return;
        }
        let digest = root.digest();
        let first = *self.watch.digests.entry(index).or_insert(digest);
        if first != digest {
            self.wrong(format!("server {site} has another state at {index} than was seen before"));
        }
    }
}
