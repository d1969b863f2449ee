//! Sessions: opened, kept, closed, and asked about (R2.12, R2.22 to R2.29).
//!
//! Whoever shows a session's key is its owner. With ACLs on, a token opens one; a server opens one for itself by
//! naming its cluster, whose id is told to servers alone.

use std::sync::Arc;
use std::time::Duration;

use crate::base::id::Index;
use crate::base::time::format_duration;
use crate::state::ApplyResult;
use crate::state::State;
use crate::state::sessions::{Place, Session};
use crate::state::var::VarOutcome;
use crate::wire::body::query::{GenericRequest, WriteMeta};
use crate::wire::body::session::{
    KEY_BYTES, MAX_NAME_BYTES, SessionKey, SessionListReply, SessionOpenRequest, SessionOutcomeReply,
    SessionOutcomeRequest, SessionReply, SessionRequest, SessionStub,
};
use crate::wire::class::{SESSION_EXPIRED, WRONG_SESSION_KEY};
use crate::wire::entry::Command;
use crate::wire::entry::session::SessionOpen;

use super::access::{Identity, access};
use super::answer::{Answer, PERMISSION_DENIED, arguments, body, coded, nanos, query_meta};
use super::outcome::{Finish, Outcome};
use super::secrets::secret_bits;
use super::{Ctx, Request};

/// The time without a sign of life that a session has when its owner does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(60);
/// The shortest, which an election and a few keep-alives fit into.
pub const MIN_TTL: Duration = Duration::from_secs(5);
/// The longest.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Session.Open.
pub(super) fn open(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: SessionOpenRequest = arguments(request)?;
    let accessor_id = if args.server_id.is_empty() {
        let access = access(&args.write.auth_token, request, state, ctx)?;
        access.require(!matches!(access.identity, Identity::Anonymous))?;
        if ctx.server.acl_enabled { access.accessor() } else { String::new() }
    } else if !ctx.cluster_id.is_empty() && args.cluster_id == *ctx.cluster_id {
        String::new()
    } else {
        return Err(PERMISSION_DENIED.into());
    };
    if args.name.len() > MAX_NAME_BYTES || args.server_id.len() > MAX_NAME_BYTES {
        return Err(coded(400, format_args!("session name is limited to {MAX_NAME_BYTES} bytes")));
    }
    let ttl = match args.ttl {
        0 => DEFAULT_TTL,
        ttl => Duration::from_nanos(u64::try_from(ttl).unwrap_or(0)),
    };
    if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
        let (least, most) = (format_duration(MIN_TTL), format_duration(MAX_TTL));
        return Err(coded(400, format_args!("session TTL must be between {least} and {most}")));
    }
    let key = session_key(ctx);
    let ttl = nanos(ttl);
    let finish = Finish::SessionOpen { key: key.clone(), ttl };
    let open = SessionOpen { key, ttl, name: args.name, server_id: args.server_id, accessor_id };
    Ok(Outcome::Propose { command: Command::SessionOpen(open), finish })
}

/// A key that cannot be guessed.
pub fn session_key(ctx: &Ctx) -> SessionKey {
    SessionKey(secret_bits(ctx, 0).to_be_bytes().into_iter().take(KEY_BYTES).collect())
}

/// The reply of Session.Open.
pub(super) fn finish_open(key: &SessionKey, ttl: i64, index: Index) -> Answer {
    Ok(body(&SessionReply { id: index.0, key: key.clone(), ttl, meta: WriteMeta { index: index.0 } }))
}

/// Session.KeepAlive.
pub(super) fn keep_alive(request: &Request<'_>, state: &State, _ctx: &Ctx) -> Answer {
    let args: SessionRequest = arguments(request)?;
    let session = owned(args.id, &args.key, state)?;
    let finish = Finish::SessionKept { id: session.id, ttl: session.open.ttl };
    Ok(Outcome::Propose { command: Command::SessionKeepAlive { id: args.id }, finish })
}

/// The reply of Session.KeepAlive.
pub(super) fn finish_keep_alive(id: u64, ttl: i64, index: Index) -> Answer {
    Ok(body(&SessionReply { id, key: SessionKey::default(), ttl, meta: WriteMeta { index: index.0 } }))
}

/// Session.Close.
pub(super) fn close(request: &Request<'_>, state: &State, _ctx: &Ctx) -> Answer {
    let args: SessionRequest = arguments(request)?;
    owned(args.id, &args.key, state)?;
    Ok(Outcome::Propose { command: Command::SessionClose { id: args.id }, finish: Finish::WriteMeta })
}

/// Session.Outcome.
pub(super) fn outcome(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: SessionOutcomeRequest = arguments(request)?;
    let meta = query_meta(ctx, state.index().0.max(1));
    let told = |outcome: &str, write_index, error: String| {
        Ok(body(&SessionOutcomeReply { outcome: outcome.to_owned(), write_index, error, meta: meta.clone() }))
    };
    let session = match owned(args.id, &args.key, state) {
        Err(SESSION_EXPIRED) => return told("expired", 0, String::new()),
        session => session?,
    };
    if args.sequence > 0 && args.sequence < session.acknowledged_below {
        return told("acknowledged", 0, String::new());
    }
    match session.place(args.sequence, None) {
        Place::Free => told("not-applied", 0, String::new()),
        Place::Refused(text) => Err(coded(400, text)),
        Place::Answered(answered) => match refusal(&answered.result) {
            None => told("applied", answered.index.0, String::new()),
            Some(text) => told("refused", answered.index.0, text),
        },
    }
}

/// Why the state refused a write.
fn refusal(result: &ApplyResult) -> Option<String> {
    match result {
        ApplyResult::Refused(text) => Some(text.clone()),
        result if !result.is_refusal() => None,
        ApplyResult::Vars(outcomes) => {
            let refused = outcomes.iter().find_map(|outcome| match outcome {
                VarOutcome::Refused(text) => Some(text.to_string()),
                _ => None,
            });
            Some(refused.unwrap_or_else(|| "conflict".to_owned()))
        }
        _ => Some("conflict".to_owned()),
    }
}

/// Session.List.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: GenericRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator_read())?;
    let meta = query_meta(ctx, state.sessions_index().0.max(1));
    Ok(body(&SessionListReply { sessions: state.sessions().map(|session| stub(session)).collect(), meta }))
}

fn stub(session: &Session) -> SessionStub {
    let (replies, reply_bytes) = session.kept();
    SessionStub {
        id: session.id,
        name: session.open.name.clone(),
        server_id: session.open.server_id.clone(),
        accessor_id: session.open.accessor_id.clone(),
        ttl: session.open.ttl,
        opened: session.opened,
        deadline: session.deadline(),
        acknowledged_below: session.acknowledged_below,
        replies: replies as u64,
        reply_bytes: reply_bytes as u64,
    }
}

/// The session, if whoever asks is its owner.
///
/// # Errors
/// It is over, or not theirs.
pub(super) fn owned<'a>(id: u64, key: &SessionKey, state: &'a State) -> Result<&'a Arc<Session>, &'static str> {
    let session = state.session(id).ok_or(SESSION_EXPIRED)?;
    if session.has_key(&key.0) { Ok(session) } else { Err(WRONG_SESSION_KEY) }
}
