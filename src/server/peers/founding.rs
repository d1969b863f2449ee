//! How a cluster comes to be: `bootstrap_expect` servers with empty disks promise themselves to each other.
//!
//! A promise is on disk before anybody hears of it, and is never taken back. A group is founded only by servers that
//! have all promised themselves to exactly each other, so that of two sets which share a server at most one is ever
//! founded. Sets without a server in common are excluded by the configuration: [`is_majority`].
//!
//! **Invariant:** what is told in a hello is on disk.

use crate::base::id::ReplicaId;
use crate::server::port::{ClusterFile, cluster_id_of};

use super::book::Book;

/// Whether so many founders are more than half of all that the configuration names.
pub(super) fn is_majority(bootstrap_expect: u64, servers: usize) -> bool {
    bootstrap_expect * 2 > servers as u64
}

/// What the replica's disk held when the process began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disk {
    /// Not told yet.
    Unread,
    /// Nothing: it belongs to no group.
    Empty,
    /// A group.
    Group,
}

/// Where the founding stands.
#[derive(Debug)]
pub(super) struct Founding {
    expect: u64,
    own_id: String,
    /// What is on disk, and so may be told.
    kept: ClusterFile,
    /// On its way to the disk.
    keeping: Option<ClusterFile>,
    disk: Disk,
    /// The group was founded by this process.
    founded: bool,
    /// Whether the configuration lets it found.
    allowed: bool,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Keep this, then say so with [`Founding::kept`].
    Keep(ClusterFile, String),
    /// Found the group with these voters.
    Found(Vec<ReplicaId>),
}

impl Founding {
    pub(super) fn new(expect: u64, own_id: &str, kept: ClusterFile, allowed: bool) -> Founding {
        let mut kept = kept;
        // A server that founds alone needs no promise; its cluster's id follows from its own.
        if expect == 1 && kept.cluster_id.is_empty() {
            kept.cluster_id = cluster_id_of(&[own_id.to_owned()]);
        }
        let own_id = own_id.to_owned();
        Founding { expect, own_id, kept, keeping: None, disk: Disk::Unread, founded: false, allowed }
    }

    /// Which cluster this server belongs to; empty for none.
    pub(super) fn cluster_id(&self) -> &str {
        &self.kept.cluster_id
    }

    /// The founders it has promised itself to.
    pub(super) fn founders(&self) -> &[String] {
        &self.kept.founders
    }

    /// Whether it still waits to become part of a cluster.
    pub(super) fn is_waiting(&self) -> bool {
        self.kept.cluster_id.is_empty()
    }

    /// How many servers found.
    pub(super) fn expect(&self) -> u64 {
        self.expect
    }

    /// Who is a member, as the replica's disk says; told first when the process begins.
    pub(super) fn on_members(&mut self, voters: &[ReplicaId], own: ReplicaId) {
        if voters.is_empty() {
            if self.disk == Disk::Unread {
                self.disk = Disk::Empty;
            }
            return;
        }
        self.disk = Disk::Group;
        if self.kept.cluster_id.is_empty() && self.keeping.is_none() {
            // The log was written and the file was not, or the server was founded alone.
            if !self.kept.founders.is_empty() {
                self.kept.cluster_id = cluster_id_of(&self.kept.founders);
            } else if voters == [own] {
                self.kept.cluster_id = cluster_id_of(std::slice::from_ref(&self.own_id));
            }
        }
    }

    /// What was to be kept is on disk.
    pub(super) fn kept(&mut self) {
        if let Some(kept) = self.keeping.take() {
            self.kept = kept;
        }
    }

    /// Servers that were reached, for the next start; `None` while nothing is to be written.
    pub(super) fn remember(&mut self, known: Vec<(String, String)>) -> Option<ClusterFile> {
        if self.keeping.is_some() || self.kept.known == known {
            return None;
        }
        let file = ClusterFile { known, ..self.kept.clone() };
        self.keeping = Some(file.clone());
        Some(file)
    }

    /// The next step, when there is one. `is_linked` says who can be reached now.
    pub(super) fn step(&mut self, book: &Book, is_linked: impl Fn(&str) -> bool) -> Option<Step> {
        if self.keeping.is_some() {
            return None;
        }
        if !self.kept.cluster_id.is_empty() {
            return self.found(book);
        }
        if self.disk == Disk::Unread {
            return None;
        }
        if let Some(step) = self.take_over(book) {
            return Some(step);
        }
        if self.disk != Disk::Empty || !self.allowed {
            return None;
        }
        if self.kept.founders.is_empty() { self.promise(book, is_linked) } else { self.conclude(book) }
    }

    fn keep(&mut self, file: ClusterFile, line: String) -> Option<Step> {
        self.keeping = Some(file.clone());
        Some(Step::Keep(file, line))
    }

    /// All know the same founders: what is left is to begin.
    fn found(&mut self, book: &Book) -> Option<Step> {
        let founders = &self.kept.founders;
        let is_founder = founders.contains(&self.own_id) && self.kept.cluster_id == cluster_id_of(founders);
        if self.founded || self.disk != Disk::Empty || !is_founder {
            return None;
        }
        let own = book.own();
        let replica = |id: &String| match *id == own.id {
            true => Some(own.replica),
            false => book.peer(id).map(|peer| peer.server.replica),
        };
        let mut voters: Vec<ReplicaId> =
            founders.iter().map(replica).collect::<Option<Vec<u64>>>()?.into_iter().map(ReplicaId).collect();
        voters.sort_unstable();
        self.founded = true;
        Some(Step::Found(voters))
    }

    /// Another server belongs to a cluster: this one joins it, unless it could still found one itself.
    fn take_over(&mut self, book: &Book) -> Option<Step> {
        let told = book.peers().filter_map(|(id, peer)| Some((id, peer.told.as_ref()?)));
        let mut clusters = told.filter(|(_, told)| !told.cluster_id.is_empty() && !told.removed);
        let promised = !self.kept.founders.is_empty();
        let own_cluster = promised.then(|| cluster_id_of(&self.kept.founders));
        let is_void = self.is_void(book);
        let fits = |cluster: &str| own_cluster.as_deref().is_none_or(|own| own == cluster || is_void);
        let (from, told) = clusters.find(|(_, told)| fits(&told.cluster_id))?;
        let cluster_id = told.cluster_id.clone();
        let line = format!("belonging to the cluster of another server: cluster_id={cluster_id} server={from}");
        let founders = if own_cluster.as_ref() == Some(&cluster_id) { self.kept.founders.clone() } else { Vec::new() };
        let file = ClusterFile { cluster_id, founders, known: self.kept.known.clone() };
        self.keep(file, line)
    }

    /// Whether the promised group can never be founded: one of its founders promised itself to another, for good.
    fn is_void(&self, book: &Book) -> bool {
        let own = cluster_id_of(&self.kept.founders);
        self.kept.founders.iter().filter_map(|id| book.peer(id)?.told.as_ref()).any(|told| {
            let elsewhere = !told.founders.is_empty() && told.founders != self.kept.founders;
            elsewhere || !told.cluster_id.is_empty() && told.cluster_id != own
        })
    }

    /// Promises itself: to those that another has named, or, being the first of enough servers, to the first ones.
    fn promise(&mut self, book: &Book, is_linked: impl Fn(&str) -> bool) -> Option<Step> {
        let expect = usize::try_from(self.expect).ok()?;
        let fits = |id: &str| {
            let told = book.peer(id).and_then(|peer| peer.told.as_ref());
            told.is_some_and(|told| told.cluster_id.is_empty() && told.bootstrap_expect == self.expect)
        };
        let proposed = book.peers().filter(|(id, _)| fits(id)).filter_map(|(id, peer)| {
            let founders = &peer.told.as_ref()?.founders;
            let whole = founders.len() == expect && founders.is_sorted_by(|a, b| a < b);
            (whole && founders.contains(&self.own_id) && founders.contains(id)).then_some(founders)
        });
        let founders = match proposed.min() {
            Some(founders) => founders.clone(),
            None => {
                let others = book.peers().map(|(id, _)| id).filter(|id| fits(id) && is_linked(id)).cloned();
                let mut unfounded: Vec<String> = others.chain([self.own_id.clone()]).collect();
                unfounded.sort();
                if unfounded.len() < expect || unfounded.first() != Some(&self.own_id) {
                    return None;
                }
                unfounded.truncate(expect);
                unfounded
            }
        };
        let line = format!("founding a cluster, promised to: servers={}", founders.join(","));
        let file = ClusterFile { founders, ..self.kept.clone() };
        self.keep(file, line)
    }

    /// The cluster is there once all its founders have promised the same.
    fn conclude(&mut self, book: &Book) -> Option<Step> {
        let agreed = |id: &String| {
            *id == self.own_id
                || book
                    .peer(id)
                    .and_then(|peer| peer.told.as_ref())
                    .is_some_and(|told| told.founders == self.kept.founders)
        };
        if !self.kept.founders.iter().all(agreed) {
            return None;
        }
        let cluster_id = cluster_id_of(&self.kept.founders);
        let line = format!("all founders agree: cluster_id={cluster_id}");
        self.keep(ClusterFile { cluster_id, ..self.kept.clone() }, line)
    }

    /// For operators who wait: who is missing.
    pub(super) fn missing(&self, book: &Book) -> String {
        let name = |id: &str| match book.peer(id) {
            Some(peer) => peer.server.name.clone(),
            None => id.to_owned(),
        };
        if !self.allowed {
            return "bootstrap_expect is not more than half of the servers that join names: nothing is founded; set it to \
                    how many of them found the cluster, alike on all"
                .to_owned();
        }
        if self.kept.founders.is_empty() {
            let known: Vec<&str> = book
                .peers()
                .filter(|(_, peer)| peer.told.is_some())
                .map(|(_, peer)| peer.server.name.as_str())
                .collect();
            return format!("waiting for {} servers, know {}: {}", self.expect, known.len() + 1, known.join(","));
        }
        let agreed = |id: &&String| {
            **id != self.own_id
                && book
                    .peer(id)
                    .and_then(|peer| peer.told.as_ref())
                    .is_none_or(|told| told.founders != self.kept.founders)
        };
        let silent: Vec<String> = self.kept.founders.iter().filter(agreed).map(|id| name(id)).collect();
        format!(
            "waiting for founders that have not agreed: {}; one that is lost for good, or began anew with an empty data \
             folder, never will: then stop all of them, empty their data folders and start them together",
            silent.join(",")
        )
    }
}
