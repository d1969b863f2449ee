//! Planted faults that are about sessions: mistakes of servers that would do a write twice, or end a session that lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::base::id::CallId;
use crate::consensus::{Notice, Proposal, Resolution};
use crate::state::State;
use crate::wire::body::session::{STAMP, WriteStamp};
use crate::wire::entry::Command;
use crate::wire::entry::Entry;
use crate::wire::msgpack::{Decoder, Msg};

use super::fault::Fault;
use super::ground::Ground;
use super::site::SiteNumber;

/// Session and number.
type Place = (u64, u64);

/// How the number of a write begins in its place.
const SEQUENCE: &[u8] = b"Sequence";

/// What planted faults remember of one process.
#[derive(Debug, Default)]
pub(super) struct OnceHarm {
    /// Writes that this process has proposed, and what became of them.
    places: BTreeMap<Place, Option<Resolution>>,
    proposed: BTreeMap<CallId, Place>,
    /// Writes that wait for the end of the same one.
    waiting: Vec<(Place, CallId)>,
    /// Sessions of servers that are not to be had.
    refused: Vec<CallId>,
    /// Places that were sent to another server.
    sent: BTreeSet<Place>,
    /// The state as this server alone sees it.
    own: Option<Arc<State>>,
}

impl OnceHarm {
    /// Writes leave the server.
    pub(super) fn proposals(
        &mut self,
        ground: &mut Ground,
        site: SiteNumber,
        state: &State,
        proposals: &mut Vec<Proposal>,
    ) {
        let mut left = Vec::with_capacity(proposals.len());
        for mut proposal in std::mem::take(proposals) {
            if needs_plain_writes(ground) && is_own_session(&proposal.command) {
                self.refused.push(proposal.id);
                continue;
            }
            if let Some(stamp) = &mut proposal.session
                && stamp.acknowledged_below < stamp.sequence
                && ground.fault(Fault::DropReplies, 50)
            {
                stamp.acknowledged_below = stamp.sequence;
            }
            if let Some(stamp) = &proposal.session
                && ground.fault(Fault::LeaderMemory, 100)
            {
                let place = (stamp.session, stamp.sequence);
                if self.places.contains_key(&place) {
                    self.waiting.push((place, proposal.id));
                    continue;
                }
                self.places.insert(place, None);
                self.proposed.insert(proposal.id, place);
                proposal.session = None;
            }
            left.push(proposal);
        }
        let wall = ground.wall(site).unix_nanos();
        for session in state.sessions().filter(|session| session.deadline() <= wall) {
            if ground.fault(Fault::CalendarExpiry, 100) {
                let command = Command::SessionClose { id: session.id };
                left.push(Proposal { id: CallId(u64::MAX), session: None, command });
            }
        }
        *proposals = left;
    }

    /// The server is told what became of its writes.
    pub(super) fn notices(&mut self, notices: &mut Vec<Notice>) {
        for notice in notices.iter() {
            let Notice::Resolved { id, resolution } = notice else { continue };
            let Some(place) = self.proposed.remove(id) else { continue };
            match resolution {
                Resolution::Applied { .. } => drop(self.places.insert(place, Some(resolution.clone()))),
                _ => drop(self.places.remove(&place)),
            }
        }
        for id in std::mem::take(&mut self.refused) {
            notices.push(Notice::Resolved { id, resolution: Resolution::Rejected("no session".to_owned()) });
        }
        for (place, id) in std::mem::take(&mut self.waiting) {
            match self.places.get(&place) {
                Some(Some(resolution)) => notices.push(Notice::Resolved { id, resolution: resolution.clone() }),
                Some(None) => self.waiting.push((place, id)),
                None => notices.push(Notice::Resolved { id, resolution: Resolution::NotLeader }),
            }
        }
    }

    /// Bytes leave for another server: a write in a place that was sent before gets another number. `None` when nothing
    /// is altered.
    pub(super) fn restamped(&mut self, ground: &mut Ground, bytes: &[u8]) -> Option<Vec<u8>> {
        if ground.options.fault != Some(Fault::Restamp) {
            return None;
        }
        let mut said = bytes.to_vec();
        let mut from = 0;
        while let Some(at) = find(said.get(from..)?, STAMP.as_bytes()) {
            from += at + STAMP.len();
            let Ok(stamp) = WriteStamp::decode(&mut Decoder::new(said.get(from..)?)) else { continue };
            if self.sent.insert((stamp.id, stamp.sequence)) {
                continue;
            }
            let number = from + find(said.get(from..)?, SEQUENCE)? + SEQUENCE.len();
            // A number of as many bytes: the highest bit but that which says how many there are.
            let (at, bit) = match *said.get(number)? {
                marker if marker < 0x80 => (number, 0x40),
                _ => (number + 1, 0x80),
            };
            let byte = said.get_mut(at)?;
            if *byte & bit == 0 && ground.fault(Fault::Restamp, 100) {
                *byte |= bit;
            }
        }
        (said != bytes).then_some(said)
    }

    /// A root that is published: sessions have ended by this server's calendar where the log says when to look.
    pub(super) fn root(&mut self, ground: &mut Ground, site: SiteNumber, root: Arc<State>) -> Arc<State> {
        if ground.options.fault != Some(Fault::LocalExpiry) {
            return root;
        }
        let wall = ground.wall(site).unix_nanos();
        let mut own = match self.own.take() {
            Some(own) => (*own).clone(),
            None => return self.keep(root),
        };
        for index in own.index().0 + 1..=root.index().0 {
            let log = ground.sites.get(site).and_then(|site| site.log.get(index)).cloned();
            let Some(entry) = log else { return self.keep(root) };
            let Ok(mut read) = Entry::decode(&entry.data) else { return self.keep(root) };
            if let Command::SessionsExpire { ids } = &mut read.command {
                let before = ids.len();
                ids.retain(|id| own.session(*id).is_none_or(|session| session.deadline() <= wall));
                if ids.len() != before {
                    ground.fault(Fault::LocalExpiry, 100);
                }
            }
            own.apply(entry.index, entry.term, &read);
        }
        self.keep(Arc::new(own))
    }

    fn keep(&mut self, root: Arc<State>) -> Arc<State> {
        self.own = Some(Arc::clone(&root));
        root
    }
}

/// Some mistakes do no harm to a write with a place in a session: servers get none of their own.
fn needs_plain_writes(ground: &Ground) -> bool {
    matches!(ground.options.fault, Some(Fault::RetrySentWrite | Fault::UnknownAsRefused))
}

fn is_own_session(command: &Command) -> bool {
    matches!(command, Command::SessionOpen(open) if !open.server_id.is_empty())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
