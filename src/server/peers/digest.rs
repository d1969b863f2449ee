//! Replicas that compare themselves (R8.18): at marks in the log each takes a digest of its state at exactly that
//! entry, and tells it with its beats. One that differs from the others stops serving.
//!
//! The digest is taken of a root that shares everything with the state, by the handler pool, so that nothing waits for
//! it. Its cost follows from the size of the state; `digest_entries` says how often it is paid.

use std::collections::BTreeMap;
use std::sync::Arc;

use log::Level;

use crate::base::id::{CallId, Index};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::consensus::{self, Leadership};
use crate::state::State;
use crate::state::table_digests::differing_tables;
use crate::wire::entry::Command;

use super::super::Server;
use super::super::port::{Job, Output, Work};
use super::super::writing::Internal;

/// Marks whose digests are remembered.
const MARKS_MAX: usize = 4;
/// While a digest is taken so many marks are passed over.
const PASSED_OVER_MAX: u32 = 8;

/// Digests by the index of their mark, and by replica.
#[derive(Debug, Default)]
pub(in crate::server) struct Digests {
    by_mark: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    /// The last one that was taken here.
    own: Option<(u64, Vec<u8>)>,
    /// One is being taken; so many marks were passed over since.
    running: Option<u32>,
    /// The index at which the last mark was seen or asked for.
    marked_at: u64,
}

impl Digests {
    /// The last digest that was taken here, and the index of its mark: for beats, and for who asks.
    pub(in crate::server) fn own(&self) -> (u64, Vec<u8>) {
        self.own.clone().unwrap_or_default()
    }

    /// Notes what a replica found at a mark. True when that was news.
    fn note(&mut self, mark: u64, replica: u64, digest: &[u8]) -> bool {
        let oldest = self.by_mark.keys().next().copied();
        if mark == 0 || self.by_mark.len() >= MARKS_MAX && oldest.is_some_and(|oldest| mark < oldest) {
            return false;
        }
        let news = self.by_mark.entry(mark).or_default().insert(replica, digest.to_vec()).is_none();
        while self.by_mark.len() > MARKS_MAX {
            self.by_mark.pop_first();
        }
        news
    }

    /// What the others found at a mark where this replica found something else, and is the one in the wrong: most
    /// voters agree with each other, or, of two, the leader is taken at its word.
    fn verdict(&self, own: u64, voters: &[u64], leader: u64) -> Option<(u64, &[u8])> {
        self.by_mark.iter().find_map(|(mark, found)| {
            let mine = found.get(&own)?;
            let others = voters.iter().filter(|voter| **voter != own).filter_map(|voter| found.get(voter));
            let other = others.clone().find(|digest| {
                *digest != mine && others.clone().filter(|other| other == digest).count() * 2 > voters.len()
            });
            let leaders = found.get(&leader).filter(|digest| voters.len() == 2 && leader != own && *digest != mine);
            other.or(leaders).map(|digest| (*mark, digest.as_slice()))
        })
    }
}

impl Server {
    /// An entry asks all replicas to compare themselves; this is the state at it.
    pub(in crate::server) fn on_marked(&mut self, index: Index, state: Arc<State>) {
        let digests = &mut self.peers.digests;
        digests.marked_at = digests.marked_at.max(index.0);
        if let Some(passed) = &mut digests.running
            && *passed < PASSED_OVER_MAX
        {
            *passed += 1;
            return;
        }
        digests.running = Some(0);
        self.next_group_job -= 1;
        let id = CallId(self.next_group_job);
        self.fresh_ctx(false);
        let (caller, ctx) = (self.own_caller(), Arc::new(self.ctx.clone()));
        self.output(Output::Run(Job { id, work: Work::Digest { index: index.0, state }, caller, ctx }));
    }

    /// The digest of a mark is there.
    pub(in crate::server) fn on_digested(&mut self, now: Instant, index: u64, digest: Vec<u8>) {
        let own = self.settings.replica.0;
        let digests = &mut self.peers.digests;
        digests.running = None;
        digests.note(index, own, &digest);
        digests.own = Some((index, digest));
        self.compare(now);
    }

    /// Takes what beats brought, and asks for the next mark when it is time.
    pub(super) fn look_at_digests(&mut self, now: Instant) {
        let mut news = false;
        for (_, peer) in self.peers.machine.book.peers() {
            let beat = &peer.beat;
            news |= self.peers.digests.note(beat.digest_index, peer.server.replica, &beat.digest);
        }
        if news {
            self.compare(now);
        }
        let (every, index) = (self.settings.digest_entries, self.notified_index);
        let leads = self.leader.known.is_self && self.leader.known.ready && self.shares_keys();
        if leads && every > 0 && index >= self.peers.digests.marked_at.saturating_add(every) {
            self.peers.digests.marked_at = index;
            self.propose_internal(Command::DigestMark, Internal::Other);
        }
    }

    fn compare(&mut self, now: Instant) {
        if self.leader.diverged {
            return;
        }
        let Some(members) = &self.peers.members else { return };
        let voters: Vec<u64> = members.voters.iter().map(|replica| replica.0).collect();
        let leader = self.leader.known.leader.map_or(0, |leader| leader.0);
        let own = self.settings.replica.0;
        let Some((mark, theirs)) = self.peers.digests.verdict(own, &voters, leader) else { return };
        let mine = self.peers.digests.by_mark.get(&mark).and_then(|found| found.get(&own));
        let tables = differing_tables(mine.map_or(&[], Vec::as_slice), theirs).join(", ");
        let text = "this server's state differs from the others', it stops serving; start it with an empty data folder";
        self.log(Level::Error, format!("{text}: index={mark} tables={tables:?}"));
        self.metrics.set(Id::RaftDiverged, 1.0);
        self.leader.diverged = true;
        if self.leader.known.is_self {
            let _ = self.hand_over();
            self.to_consensus.push(consensus::Input::Stop);
        }
        let term = self.leader.known.term;
        self.on_leadership(now, Leadership { term, ..Leadership::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_differs_from_the_others_is_in_the_wrong() {
        // R8.18
        type Case = (&'static str, &'static [(u64, u8)], &'static [u64], u64, bool);
        let cases: [Case; 7] = [
            ("all the same", &[(1, 7), (2, 7), (3, 7)], &[1, 2, 3], 2, false),
            ("it alone", &[(1, 9), (2, 7), (3, 7)], &[1, 2, 3], 2, true),
            ("another", &[(1, 7), (2, 7), (3, 9)], &[1, 2, 3], 2, false),
            ("not all have told", &[(1, 9), (2, 7)], &[1, 2, 3], 2, false),
            ("it leads and is alone", &[(1, 9), (2, 7), (3, 7)], &[1, 2, 3], 1, true),
            ("of two the leader is right", &[(1, 9), (2, 7)], &[1, 2], 2, true),
            ("and it is the leader", &[(1, 9), (2, 7)], &[1, 2], 1, false),
        ];
        for (name, found, voters, leader, wrong) in cases {
            let mut digests = Digests::default();
            for (replica, digest) in found {
                assert!(digests.note(5, *replica, &[*digest]));
            }
            assert_eq!(digests.verdict(1, voters, leader), wrong.then_some((5, [7].as_slice())), "{name}");
        }
        let mut digests = Digests::default();
        for mark in 1..100 {
            digests.note(mark, 1, &[1]);
        }
        assert_eq!(digests.by_mark.len(), MARKS_MAX);
        assert!(!digests.note(3, 2, &[1]), "that mark is forgotten");
    }
}
