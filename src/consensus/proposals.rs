//! What was proposed and is not resolved yet, by the index it was given.
//!
//! A proposal is settled by its index and term (R2.18): applied with its term, it succeeded, even if leadership was
//! lost between; another entry applied at its index, it surely did not happen. Only what neither settles in time is
//! unknown. Never guesses from leadership alone.

use std::collections::BTreeMap;

use crate::base::id::{CallId, Index, Term};
use crate::base::time::Instant;
use crate::consensus::{Notice, Resolution};
use crate::state::ApplyResult;
use crate::wire::entry::Command;

/// Encoded bytes of all waiting proposals together; one more is rejected.
pub(crate) const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;

/// The waiting proposals.
pub(crate) struct Proposals {
    /// By index and term: one index can be given twice, when leadership was lost and won again.
    by_place: BTreeMap<(Index, Term), Waiting>,
    bytes: usize,
    max_waiting: usize,
    /// When those that are left become unknown; set when leadership was lost.
    deadline: Option<Instant>,
}

struct Waiting {
    id: CallId,
    bytes: usize,
}

impl Proposals {
    /// None waits; at most `max_waiting` will.
    pub(crate) fn new(max_waiting: usize) -> Proposals {
        Proposals { by_place: BTreeMap::new(), bytes: 0, max_waiting, deadline: None }
    }

    /// Why no proposal of this many bytes can be taken beside `more` others of `more_bytes` that are on their way
    /// in; `None` when it can.
    pub(crate) fn refuse(&self, bytes: usize, more: usize, more_bytes: usize) -> Option<String> {
        if self.by_place.len() + more >= self.max_waiting {
            return Some(format!("too many writes wait to be agreed on (limit {})", self.max_waiting));
        }
        if self.bytes + more_bytes + bytes > MAX_WAITING_BYTES {
            return Some(format!("the writes that wait to be agreed on are over {MAX_WAITING_BYTES} bytes"));
        }
        None
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// Takes in a proposal that was appended.
    pub(crate) fn insert(&mut self, id: CallId, index: Index, term: Term, bytes: usize) {
        self.bytes += bytes;
        self.by_place.insert((index, term), Waiting { id, bytes });
    }

    /// The entry at `index` was applied: adds what that says to those that wait there.
    pub(crate) fn settle(&mut self, index: Index, term: Term, result: ApplyResult, notices: &mut Vec<Notice>) {
        let mut result = Some(result);
        while let Some(first) = self.by_place.first_entry().filter(|first| first.key().0 <= index) {
            let (place, waiting) = first.remove_entry();
            self.bytes -= waiting.bytes;
            let resolution = match result.take_if(|_| place == (index, term)) {
                Some(result) => Resolution::Applied { index, result },
                None => Resolution::NotLeader,
            };
            notices.push(resolved(waiting.id, resolution));
        }
        if self.by_place.is_empty() {
            self.deadline = None;
        }
    }

    /// A leader's snapshot took the place of all entries up to `index`: what they were cannot be known here.
    pub(crate) fn skip_to(&mut self, index: Index, notices: &mut Vec<Notice>) {
        while let Some(first) = self.by_place.first_entry().filter(|first| first.key().0 <= index) {
            let waiting = first.remove();
            self.bytes -= waiting.bytes;
            notices.push(resolved(waiting.id, Resolution::Unknown));
        }
        if self.by_place.is_empty() {
            self.deadline = None;
        }
    }

    /// Leadership was lost, or is given up: who waits gets until `deadline`.
    pub(crate) fn leadership_lost(&mut self, deadline: Instant) {
        if !self.by_place.is_empty() && self.deadline.is_none() {
            self.deadline = Some(deadline);
        }
    }

    /// When [`Proposals::expire`] is wanted.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Ends the wait of all, once the deadline has passed.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Notice> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Vec::new();
        }
        self.deadline = None;
        self.bytes = 0;
        std::mem::take(&mut self.by_place)
            .into_values()
            .map(|waiting| resolved(waiting.id, Resolution::Unknown))
            .collect()
    }
}

/// The notice that a proposal has ended.
pub(crate) fn resolved(id: CallId, resolution: Resolution) -> Notice {
    Notice::Resolved { id, resolution }
}

/// The command as Nomad's `raft_type` names it in its warning of a large entry.
pub(crate) fn command_kind(command: &Command) -> &'static str {
    match command {
        Command::Noop | Command::DigestMark => "NoopRequestType",
        Command::ServerUpsert(_) | Command::ServerRemove { .. } => "ServerUpsertRequestType",
        Command::NodeRegister { .. } => "NodeRegisterRequestType",
        Command::NodeUpdateStatus { .. } => "NodeUpdateStatusRequestType",
        Command::NodeDeregister { .. } => "NodeBatchDeregisterRequestType",
        Command::NodeUpdateDrain { .. } | Command::NodeDrainComplete { .. } => "NodeUpdateDrainRequestType",
        Command::NodeUpdateEligibility { .. } => "NodeUpdateEligibilityRequestType",
        Command::NodeEmitEvents { .. } => "UpsertNodeEventsType",
        Command::SigningKeyAdd { .. } | Command::RootKeyAdd(_) => "RootKeyMetaUpsertRequestType",
        Command::VarApply(_)
        | Command::LockRenew(_)
        | Command::LocksExpire { .. }
        | Command::LocksGrace { .. }
        | Command::LockBreak { .. }
        | Command::VarReseal { .. } => "VarApplyStateRequestType",
        Command::AclBootstrap { .. } => "ACLTokenBootstrapRequestType",
        Command::AclUpsertTokens { .. } => "ACLTokenUpsertRequestType",
        Command::AclDeleteTokens { .. } | Command::AclExpireTokens { .. } => "ACLTokenDeleteRequestType",
        Command::AclUpsertPolicies { .. } => "ACLPolicyUpsertRequestType",
        Command::AclDeletePolicies { .. } => "ACLPolicyDeleteRequestType",
        Command::AclUpsertRoles { .. } => "ACLRolesUpsertRequestType",
        Command::AclDeleteRoles { .. } => "ACLRolesDeleteByIDRequestType",
        Command::NamespaceUpsert { .. } => "NamespaceUpsertRequestType",
        Command::NamespaceDelete { .. } => "NamespaceDeleteRequestType",
        Command::RootKeyDelete { .. } => "RootKeyMetaDeleteRequestType",
        Command::AutopilotSet { .. } => "AutopilotRequestType",
        Command::SchedulerSet { .. } => "SchedulerConfigRequestType",
        Command::SessionOpen(_)
        | Command::SessionKeepAlive { .. }
        | Command::SessionClose { .. }
        | Command::SessionsExpire { .. } => "SessionRequestType",
        Command::RestoreBegin(_) | Command::RestoreChunk(_) | Command::RestoreEnd(_) => "RestoreRequestType",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn waiting() -> Proposals {
        let mut proposals = Proposals::new(3);
        proposals.insert(CallId(1), Index(11), Term(2), 10);
        proposals.insert(CallId(2), Index(12), Term(2), 10);
        proposals
    }

    fn settle(proposals: &mut Proposals, index: u64, term: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        proposals.settle(Index(index), Term(term), ApplyResult::Done, &mut notices);
        notices
    }

    fn applied(index: u64) -> Resolution {
        Resolution::Applied { index: Index(index), result: ApplyResult::Done }
    }

    // R2.18
    #[test]
    fn index_and_term_settle_a_proposal_in_one_of_three_ways() {
        let mut proposals = waiting();
        proposals.leadership_lost(Instant::ZERO + Duration::from_secs(5));
        let done = vec![resolved(CallId(1), applied(11))];
        assert_eq!(settle(&mut proposals, 11, 2), done, "applied with its term, although leadership was lost");
        let gone = vec![resolved(CallId(2), Resolution::NotLeader)];
        assert_eq!(settle(&mut proposals, 12, 3), gone, "another entry at its index");
        assert_eq!(settle(&mut proposals, 13, 3), vec![]);
        assert_eq!((proposals.poll_timeout(), proposals.bytes), (None, 0));

        let mut proposals = waiting();
        let deadline = Instant::ZERO + Duration::from_secs(5);
        proposals.leadership_lost(deadline);
        proposals.leadership_lost(deadline + Duration::from_secs(5));
        assert_eq!(proposals.poll_timeout(), Some(deadline), "a second loss does not put it off");
        assert_eq!(proposals.expire(Instant::from_nanos(deadline.as_nanos() - 1)), Vec::new());
        let unknown = [1, 2].map(|id| resolved(CallId(id), Resolution::Unknown));
        assert_eq!(proposals.expire(deadline), unknown);
        assert_eq!((proposals.poll_timeout(), proposals.bytes), (None, 0));
    }

    #[test]
    fn an_index_given_twice_is_settled_for_both() {
        for (term, first, second) in [(2, applied(12), Resolution::NotLeader), (4, Resolution::NotLeader, applied(12))]
        {
            let mut proposals = waiting();
            settle(&mut proposals, 11, 2);
            proposals.insert(CallId(3), Index(12), Term(4), 5);
            assert_eq!(settle(&mut proposals, 12, term), vec![resolved(CallId(2), first), resolved(CallId(3), second)]);
            assert_eq!(proposals.bytes, 0);
        }
    }

    #[test]
    fn both_caps_hold() {
        let proposals = waiting();
        assert_eq!(proposals.refuse(1, 0, 0), None);
        assert!(proposals.refuse(1, 1, 1).is_some_and(|why| why.contains("limit 3")));
        assert_eq!(proposals.refuse(MAX_WAITING_BYTES - 20, 0, 0), None);
        assert!(proposals.refuse(MAX_WAITING_BYTES - 19, 0, 0).is_some());
        assert!(proposals.refuse(MAX_WAITING_BYTES - 20, 0, 1).is_some());
    }
}
