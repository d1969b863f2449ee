//! Node.Register: an agent says who it is.
//!
//! Keeps what others have: a node's id belongs to who holds its SecretID. Source: endpoint notes, sections 3.2 and
//! 3.3; Nomad `nomad/node_endpoint.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::Index;
use crate::base::time::format_rfc3339;
use crate::state::State;
use crate::state::node::{Node, NodeStatus};
use crate::wire::body::node::{NodeEvent, go_time};
use crate::wire::body::node_call::{NodeHead, NodeRegisterRequest};
use crate::wire::entry::Command;
use crate::wire::msgpack::{Decoder, Encoder, Raw, Result as Decoded};

use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, body_with};
use super::auth::{is_uuid, may_have_been, same_secret};
use super::heartbeat::{heard, identity_for, registers_for_identity, servers_reply};
use super::outcome::{Effect, Finish, Outcome, Reply, ReplyResult};
use super::{Caller, Ctx, Request};

/// Message of the event on a node whose id another machine tried to register.
const CONFLICT: &str = "Node registration with another secret refused";

/// The key of a node that the server sets when it signs an identity.
const SIGNING_KEY: &str = "IdentitySigningKeyID";

/// Node.Register.
pub(super) fn register(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeRegisterRequest = arguments(request)?;
    if ctx.server.acl_enabled && !may_register(&args.write.auth_token, args.node.head.as_ref(), state, ctx) {
        return Err(PERMISSION_DENIED.into());
    }
    let Some(head) = args.node.head else { return Err("missing node for client registration".into()) };
    check(&head)?;
    if let Some(stored) = state.node(&head.id)
        && !same_secret(&head.secret_id, &stored.secret_id)
    {
        return Ok(conflict(&head, stored, request.caller, ctx));
    }
    let version = head.attributes.get("nomad.version").map_or("", String::as_str);
    let sign = registers_for_identity(version, &args.write.auth_token, state, ctx);
    let node = match ctx.signer.as_deref().filter(|_| sign) {
        Some(signer) => signed_by(&args.node.raw, signer.key_id())?,
        None => args.node.raw,
    };
    let finish = Finish::NodeRegister { node_id: Arc::from(head.id), direct: !args.write.forwarded, sign };
    Ok(Outcome::Propose { command: Command::NodeRegister { node }, finish })
}

/// The reply, once it is applied. A node that is down has no TTL: its next heartbeat revives it.
pub(super) fn finish(node_id: &str, direct: bool, sign: bool, index: Index, state: &State, ctx: &Ctx) -> Answer {
    let node = state.node(node_id).ok_or("node not found")?;
    let mut effects = Vec::with_capacity(3);
    if direct {
        effects.push(Effect::ProveNode(node.id.clone()));
        effects.push(Effect::BindNode(node.id.clone()));
    }
    let mut reply = servers_reply(node, state, ctx);
    reply.node_modify_index = index.0;
    reply.meta.index = index.0;
    if node.status != NodeStatus::Down {
        reply.heartbeat_ttl = heard(node, &mut effects, ctx)?;
    }
    reply.signed_identity = identity_for(node, sign, ctx);
    Ok(body_with(&reply, effects))
}

/// Whether what is shown fits whoever wants to register: nothing, the secret that is to be registered, or an identity
/// of that node. One that is over, or of keys that are gone, is let through as nothing would be: the secret decides.
///
/// An agent remembers its secret and its identity on disk, and shows them also to servers that have lost its node.
fn may_register(token: &str, head: Option<&NodeHead>, state: &State, ctx: &Ctx) -> bool {
    if token.is_empty() {
        return true;
    }
    let Some(head) = head else { return false };
    if is_uuid(token) { same_secret(token, &head.secret_id) } else { may_have_been(&head.id, token, state, ctx) }
}

/// What must be there, in the order Nomad looks.
fn check(head: &NodeHead) -> Result<(), Failure> {
    for (missing, what) in [
        (head.id.is_empty(), "ID"),
        (head.datacenter.is_empty(), "datacenter"),
        (head.name.is_empty(), "name"),
        (head.attributes.is_empty(), "attributes"),
        (head.secret_id.is_empty(), "secret ID"),
    ] {
        if missing {
            return Err(match what {
                "datacenter" | "attributes" => format!("missing {what} for client registration"),
                _ => format!("missing node {what} for client registration"),
            }
            .into());
        }
    }
    let pool = &head.node_pool;
    if pool == "all" {
        return Err(format!("node is not allowed to register in node pool {pool:?}").into());
    }
    if !pool.is_empty() && !is_pool_name(pool) {
        let rule = "must match regex ^[a-zA-Z0-9-_]{1,128}$";
        return Err(format!("invalid node pool: invalid name {pool:?}, {rule}").into());
    }
    if !head.status.is_empty() && NodeStatus::from_word(&head.status).is_none() {
        return Err("invalid status for node".into());
    }
    Ok(())
}

fn is_pool_name(name: &str) -> bool {
    name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The node with the key that signs its identity in place.
fn signed_by(node: &Raw, key_id: &str) -> Decoded<Raw> {
    let mut d = Decoder::new(&node.0);
    let mut kept = Encoder::new();
    let mut count = 0;
    for _ in 0..d.map()?.unwrap_or(0) {
        let (key, value) = (d.bytes()?, d.raw()?);
        if key != SIGNING_KEY.as_bytes() {
            kept.bytes(key);
            kept.raw(value);
            count += 1;
        }
    }
    let mut e = Encoder::new();
    e.map(count + 1);
    e.raw(&kept.out);
    e.str(SIGNING_KEY);
    e.str(key_id);
    Ok(Raw(Arc::from(e.out)))
}

/// Refuses a node whose id is held by another secret, and says by whom and what to do (R8.21). The holder gets an
/// event with both addresses, one for each address that tries.
fn conflict(head: &NodeHead, stored: &Node, caller: &Caller, ctx: &Ctx) -> Outcome {
    let text = format!(
        "node secret ID does not match. Not registering node. Node ID {} is held by node {:?} at {}, registered at \
         index {}, status {:?} since {}. If this machine was cloned from that one, stop its agent, remove the files \
         \"client-id\" and \"secret-id\" from the directory \"client\" below the agent's data_dir, and start it again",
        stored.id,
        stored.name,
        stored.http_addr,
        stored.create_index,
        stored.status.as_str(),
        format_rfc3339(stored.status_updated_at, 0),
    );
    let from = caller.peer.ip().to_string();
    let known = |event: &NodeEvent| {
        event.message == CONFLICT && event.details.as_ref().and_then(|details| details.get("from")) == Some(&from)
    };
    let mut effects = Vec::new();
    if !stored.events.iter().any(known) {
        let details: BTreeMap<_, _> = [
            ("from".to_owned(), from),
            ("http_addr".to_owned(), head.http_addr.chars().take(256).collect()),
            ("holder_http_addr".to_owned(), stored.http_addr.to_string()),
        ]
        .into();
        let event = NodeEvent {
            message: CONFLICT.to_owned(),
            subsystem: "Cluster".to_owned(),
            details: Some(details),
            timestamp: go_time(ctx.wall.unix_nanos()),
            create_index: 0,
        };
        let events = [(stored.id.to_string(), vec![event])].into();
        effects.push(Effect::Propose(Command::NodeEmitEvents { events }));
    }
    Outcome::Reply(Reply { result: ReplyResult::Error(text), effects })
}
