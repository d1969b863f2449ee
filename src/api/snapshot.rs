//! Operator.SnapshotSave and Operator.SnapshotRestore: the whole state, to a file and back (R1.95).
//!
//! What is saved is packed here, from one root, so that it is of one moment. What comes back is taken by the server:
//! the log carries it to every replica. Source: endpoint notes, section 5; transport notes, section 6.

use std::sync::Arc;

use crate::state::{State, snapshot};
use crate::wire::archive::{self, Configuration, Meta, Server};
use crate::wire::body::operator::SnapshotSaveResponse;
use crate::wire::body::query::GenericRequest;
use crate::wire::class::NO_LEADER;
use crate::wire::json;
use crate::wire::msgpack::Msg;

use super::access::access;
use super::answer::{Failure, PERMISSION_DENIED, arguments, query_meta};
use super::operator::WriteOnly;
use super::outcome::StreamOutcome;
use super::{Ctx, Request};
use crate::state::acl::rules::OperatorCapability;

/// What is put before the reason why nothing was restored.
pub const RESTORE_FAILED: &str = "failed to restore from snapshot: ";

/// Operator.SnapshotSave.
pub(super) fn save(request: &Request<'_>, state: &State, ctx: &Ctx) -> StreamOutcome {
    match pack(request, state, ctx) {
        Ok(messages) => StreamOutcome::Send(messages),
        Err(failure) => refuse(&failure),
    }
}

fn pack(request: &Request<'_>, state: &State, ctx: &Ctx) -> Result<Vec<Arc<[u8]>>, Failure> {
    let args: GenericRequest = arguments(request)?;
    is_here(&args.query.region, args.query.allow_stale, ctx)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.operator(OperatorCapability::SnapshotSave))?;
    let packed = archive::write(meta(state, ctx), || snapshot::write(state)).map_err(|error| error.to_string())?;
    let mut snapshot_checksum = "sha-256=".to_owned();
    json::push_base64(&packed.sha256, &mut snapshot_checksum);
    let meta = query_meta(ctx, state.index().0);
    let first = SnapshotSaveResponse { snapshot_checksum, meta, ..SnapshotSaveResponse::default() };
    Ok([Arc::from(first.to_bytes())].into_iter().chain(packed.pieces).collect())
}

/// What an archive of this state says of itself.
pub fn meta(state: &State, ctx: &Ctx) -> Meta {
    let servers = ctx.servers.iter().map(|server| Server {
        suffrage: u64::from(!server.voter),
        id: server.id.clone(),
        address: server.rpc_addr.clone(),
    });
    let (index, term) = (state.index().0, ctx.raft.last_term);
    Meta {
        id: format!("{term}-{index}-{}", state.time_unix_nanos() / 1_000_000),
        index,
        term,
        configuration: Configuration { servers: servers.collect() },
        ..Meta::default()
    }
}

/// Operator.SnapshotRestore: what follows is the server's.
pub(super) fn restore(request: &Request<'_>, state: &State, ctx: &Ctx) -> StreamOutcome {
    let allowed = || -> Result<(), Failure> {
        let args: WriteOnly = arguments(request)?;
        is_here(&args.write.region, false, ctx)?;
        access(&args.write.auth_token, request, state, ctx)?.require_management()
    };
    match allowed() {
        Ok(()) => StreamOutcome::Restore,
        Err(failure) => refuse(&failure),
    }
}

/// Whether this server is the one to ask.
fn is_here(region: &str, allow_stale: bool, ctx: &Ctx) -> Result<(), Failure> {
    if region.is_empty() {
        return Err(super::answer::coded(400, "missing target region"));
    }
    if region != ctx.server.region {
        return Err("No path to region".into());
    }
    if !allow_stale && !ctx.is_leader {
        return Err(NO_LEADER.into());
    }
    Ok(())
}

fn refuse(failure: &Failure) -> StreamOutcome {
    let text = match failure {
        Failure::Text(text) => text.clone(),
        Failure::Arguments(error) => error.to_string(),
    };
    let (code, text) = split_code(&text);
    StreamOutcome::Refuse(response(code, text))
}

/// Code and text of an error; 403 and 500 where none is said.
fn split_code(text: &str) -> (u16, &str) {
    let coded = text.strip_prefix("RPC Error:: ").and_then(|rest| rest.split_once(','));
    match coded.and_then(|(code, rest)| Some((code.parse().ok()?, rest))) {
        Some(coded) => coded,
        None if text.ends_with(PERMISSION_DENIED) => (403, text),
        None => (500, text),
    }
}

/// The message that tells an error of these two methods.
pub fn response(code: u16, text: &str) -> Vec<u8> {
    SnapshotSaveResponse { error_code: i64::from(code), error_msg: text.to_owned(), ..SnapshotSaveResponse::default() }
        .to_bytes()
}

/// The message that tells of a restore: its index.
pub fn restored(ctx: &Ctx, index: u64) -> Vec<u8> {
    SnapshotSaveResponse { meta: query_meta(ctx, index), ..SnapshotSaveResponse::default() }.to_bytes()
}
