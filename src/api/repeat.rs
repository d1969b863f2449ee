//! A write of a session that was applied before: how its answer was to be made is kept with it, and is made again
//! (R2.24).
//!
//! Only what the request does not tell is kept. A write of variables is prepared again from the request, which brings
//! its items along; ids that a server makes for it come out the same ([`super::secrets`]).

use std::sync::Arc;

use crate::state::State;
use crate::state::answers::Answered;
use crate::state::sessions::Place;
use crate::wire::body::session::WriteStamp;
use crate::wire::class::OUTCOME_UNKNOWN;
use crate::wire::msgpack::{Decoder, Encoder, Msg, Result as Decoded};

use super::answer::settle;
use super::outcome::{Finish, Hidden, Outcome, Resolved};
use super::session::owned;
use super::{Ctx, Method, Request, finish};

/// Kinds of what is kept. Never given out twice.
mod kind {
    pub(super) const NOTHING: u64 = 0;
    pub(super) const NODE_REGISTER: u64 = 1;
    pub(super) const NODE_UPDATE_STATUS: u64 = 2;
    pub(super) const NODE_DEREGISTER: u64 = 3;
    pub(super) const NODE_UPDATE_DRAIN: u64 = 4;
    pub(super) const NODE_UPDATE_ELIGIBILITY: u64 = 5;
    pub(super) const WRITE_META: u64 = 6;
    pub(super) const LOCK_RENEW: u64 = 7;
    pub(super) const ACL_TOKENS: u64 = 8;
    pub(super) const ACL_ROLES: u64 = 9;
    pub(super) const NAMESPACE_DELETE: u64 = 10;
    pub(super) const KEYRING_ROTATE: u64 = 11;
    pub(super) const KEYRING_DELETE: u64 = 12;
    pub(super) const AUTOPILOT_SET: u64 = 13;
    pub(super) const SCHEDULER_SET: u64 = 14;
}

/// What is kept with a write of how its answer is made; empty when the request itself tells.
pub fn kept(finish: &Finish) -> Arc<[u8]> {
    let mut e = Encoder::new();
    let mut head = |kind, len: usize| {
        e.array(1 + len);
        e.u64(kind);
    };
    match finish {
        Finish::VarApply(_) | Finish::VarTxn(_) | Finish::SessionOpen { .. } | Finish::SessionKept { .. } => {}
        Finish::Nothing => head(kind::NOTHING, 0),
        Finish::NodeRegister { node_id, direct, sign } | Finish::NodeUpdateStatus { node_id, direct, sign } => {
            let is_register = matches!(finish, Finish::NodeRegister { .. });
            head(if is_register { kind::NODE_REGISTER } else { kind::NODE_UPDATE_STATUS }, 3);
            e.str(node_id);
            e.bool(*direct);
            e.bool(*sign);
        }
        Finish::NodeDeregister { node_ids } => {
            head(kind::NODE_DEREGISTER, 1);
            node_ids.encode(&mut e);
        }
        Finish::NodeUpdateDrain { node_id } => {
            head(kind::NODE_UPDATE_DRAIN, 1);
            e.str(node_id);
        }
        Finish::NodeUpdateEligibility => head(kind::NODE_UPDATE_ELIGIBILITY, 0),
        Finish::WriteMeta => head(kind::WRITE_META, 0),
        Finish::LockRenew { namespace, path, lock_id } => {
            head(kind::LOCK_RENEW, 3);
            e.str(namespace);
            e.str(path);
            e.str(&lock_id.0);
        }
        Finish::AclTokens(ids) => {
            head(kind::ACL_TOKENS, 1);
            ids.encode(&mut e);
        }
        Finish::AclRoles(ids) => {
            head(kind::ACL_ROLES, 1);
            ids.encode(&mut e);
        }
        Finish::NamespaceDelete => head(kind::NAMESPACE_DELETE, 0),
        Finish::KeyringRotate { full } => {
            head(kind::KEYRING_ROTATE, 1);
            e.bool(*full);
        }
        Finish::KeyringDelete { key_id } => {
            head(kind::KEYRING_DELETE, 1);
            e.str(key_id);
        }
        Finish::AutopilotSet => head(kind::AUTOPILOT_SET, 0),
        Finish::SchedulerSet => head(kind::SCHEDULER_SET, 0),
    }
    e.out.into()
}

/// Reads what [`kept`] wrote; `None` when the request tells.
fn read(bytes: &[u8]) -> Decoded<Option<Finish>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut d = Decoder::new(bytes);
    let d = &mut d;
    let lacking = d.error("what is kept of a write is malformed");
    if d.array()?.unwrap_or(0) == 0 {
        return Err(lacking);
    }
    Ok(Some(match d.u64()? {
        kind::NOTHING => Finish::Nothing,
        kind::NODE_REGISTER => {
            Finish::NodeRegister { node_id: Msg::decode(d)?, direct: Msg::decode(d)?, sign: Msg::decode(d)? }
        }
        kind::NODE_UPDATE_STATUS => {
            Finish::NodeUpdateStatus { node_id: Msg::decode(d)?, direct: Msg::decode(d)?, sign: Msg::decode(d)? }
        }
        kind::NODE_DEREGISTER => Finish::NodeDeregister { node_ids: Msg::decode(d)? },
        kind::NODE_UPDATE_DRAIN => Finish::NodeUpdateDrain { node_id: Msg::decode(d)? },
        kind::NODE_UPDATE_ELIGIBILITY => Finish::NodeUpdateEligibility,
        kind::WRITE_META => Finish::WriteMeta,
        kind::LOCK_RENEW => {
            let (namespace, path) = (Msg::decode(d)?, Msg::decode(d)?);
            Finish::LockRenew { namespace, path, lock_id: Hidden(Msg::decode(d)?) }
        }
        kind::ACL_TOKENS => Finish::AclTokens(Msg::decode(d)?),
        kind::ACL_ROLES => Finish::AclRoles(Msg::decode(d)?),
        kind::NAMESPACE_DELETE => Finish::NamespaceDelete,
        kind::KEYRING_ROTATE => Finish::KeyringRotate { full: Msg::decode(d)? },
        kind::KEYRING_DELETE => Finish::KeyringDelete { key_id: Msg::decode(d)? },
        kind::AUTOPILOT_SET => Finish::AutopilotSet,
        kind::SCHEDULER_SET => Finish::SchedulerSet,
        _ => return Err(lacking),
    }))
}

/// Where a write with this stamp stands, by what is known now.
///
/// # Errors
/// The session is over, or is not the caller's.
pub fn place(stamp: &WriteStamp, state: &State) -> Result<Place, &'static str> {
    owned(stamp.id, &stamp.key, state).map(|session| session.place(stamp.sequence, None))
}

/// The answer to a write that was applied before: the one that was, or would have been, given then.
pub fn repeat(method: &Method, request: &Request<'_>, answered: &Answered, state: &State, ctx: &Ctx) -> Outcome {
    let resolved = Resolved { index: answered.index, result: answered.result.clone() };
    match read(&answered.finish) {
        Ok(Some(kept)) => finish(&kept, &resolved, state, ctx),
        Ok(None) => match (method.run)(&Request { last_run: true, ..request.clone() }, state, ctx) {
            Outcome::Propose { finish: how, .. } => finish(&how, &resolved, state, ctx),
            refused @ Outcome::Reply(_) => refused,
            _ => lost(answered),
        },
        Err(_) => lost(answered),
    }
}

/// It was done, and what was answered cannot be told.
fn lost(answered: &Answered) -> Outcome {
    settle(Err(format!("{OUTCOME_UNKNOWN}: applied at index {}, its answer is lost", answered.index).into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // R2.24: every way to make an answer is kept whole, or made again from the request.
    #[test]
    fn what_is_kept_is_read() {
        let text = || Arc::<str>::from("some-id");
        for finish in [
            Finish::Nothing,
            Finish::NodeRegister { node_id: text(), direct: true, sign: false },
            Finish::NodeUpdateStatus { node_id: text(), direct: false, sign: true },
            Finish::NodeDeregister { node_ids: vec![text(), text()] },
            Finish::NodeUpdateDrain { node_id: text() },
            Finish::NodeUpdateEligibility,
            Finish::WriteMeta,
            Finish::LockRenew { namespace: text(), path: text(), lock_id: Hidden("secret".to_owned()) },
            Finish::AclTokens(vec!["a".to_owned()]),
            Finish::AclRoles(Vec::new()),
            Finish::NamespaceDelete,
            Finish::KeyringRotate { full: true },
            Finish::KeyringDelete { key_id: "k".to_owned() },
            Finish::AutopilotSet,
            Finish::SchedulerSet,
        ] {
            assert_eq!(read(&kept(&finish)).unwrap(), Some(finish));
        }
        assert_eq!(read(&[]), Ok(None));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), kind in 0u8..17) {
            let _ = read(&bytes);
            let _ = read(&[&[0x94, kind], &bytes[..]].concat());
        }
    }
}
