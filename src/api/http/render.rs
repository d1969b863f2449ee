//! What a call answered, as the body and the headers of an HTTP answer. Never trusts a reply to be well formed: it may
//! come from another server.
//!
//! Text is written straight from msgpack, without a tree of values between. Source: HTTP notes, section 1.2.

use crate::wire::body::query::QueryMeta;
use crate::wire::http::HttpReply;
use crate::wire::json::{JsonStyle, to_json_in_style};
use crate::wire::msgpack::{Decoder, Encoder, Msg, Result};

use super::reply::{
    coded, empty_reply, error_reply, is_leaderless, json_reply, read_headers, text_reply, write_headers,
};
use super::{View, render_acl, render_agent, render_session, render_var};

/// Which headers an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// No index.
    None,
    /// Those of a read.
    Read,
    /// The index of the write.
    Write,
}

/// What is shown of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// All of it.
    Whole(Heads),
    /// Nothing but the headers.
    Empty(Heads),
    /// `true`, whatever it says.
    True,
    /// An object of these fields.
    Only(&'static [&'static str]),
    /// The same, of a call that went on to a node.
    OfNode(&'static [&'static str]),
    /// Nothing, of a call that went on to a node.
    OfNodeEmpty,
    /// The list in this field of a read, never null.
    List(&'static str),
    /// The object in this field of a read; nil is a 404 with this text.
    Item(&'static str, &'static str),
    /// The first of the list in this field of a write.
    First(&'static str),
    /// The whole is a list of strings, never null.
    Strings,
    /// Status.Leader as `/v1/agent/health` shows it, with or without a line for the role that is not here.
    Health {
        /// That role was asked for too.
        client: bool,
    },
    /// Status.Leader as `/readyz` shows it.
    Ready,
    /// Status.Members.
    Members,
    /// Holdfast.AgentSelf.
    AgentSelf,
    /// Keyring.ListPublic.
    Jwks,
    /// ClientStats.Stats.
    HostStats,
    /// Node.GetNode.
    Node,
    /// Operator.AutopilotGetConfiguration.
    Autopilot,
    /// Operator.ServerHealth.
    ServerHealth,
    /// Variables.List.
    Variables,
    /// Variables.Read.
    Variable,
    /// Variables.Apply of items or, with `lock`, of a lock.
    VariableWritten {
        /// See there.
        lock: bool,
    },
    /// Variables.Apply of a delete.
    VariableDeleted,
    /// Variables.RenewLock.
    LockRenewed,
    /// Holdfast.VariablesTxn.
    Txn,
    /// ACL.GetToken.
    Token,
    /// ACL.UpsertTokens and ACL.Bootstrap.
    TokenWritten,
    /// ACL.WhoAmI.
    Caller,
    /// ACL.ExchangeOneTimeToken.
    Exchanged,
    /// Session.Open and Session.KeepAlive.
    Session,
    /// Session.Outcome.
    SessionOutcome,
}

/// How locks and sessions look: with their durations in words.
pub(super) const IN_WORDS: JsonStyle = JsonStyle { durations: &["TTL", "LockDelay"], ..JsonStyle::PUBLIC };

/// How a list of nodes looks: without what was not asked for.
const NODES: JsonStyle =
    JsonStyle { omitted: &["Attributes", "NodeResources", "ReservedResources"], ..JsonStyle::PUBLIC };

/// The answer to a call that succeeded.
///
/// # Errors
/// A reply that is not what the method answers.
pub(super) fn body(view: &View, body: &[u8]) -> Result<HttpReply> {
    let pretty = view.pretty;
    match view.kind {
        Show::Whole(heads) => {
            let mut reply = json_reply(200, json_of(body, JsonStyle::PUBLIC)?, pretty);
            reply.headers.extend(headers(heads, body)?);
            Ok(reply)
        }
        Show::Empty(heads) => Ok(HttpReply { status: 200, headers: headers(heads, body)?, body: Vec::new() }),
        Show::True => Ok(json_reply(200, "true".to_owned(), pretty)),
        Show::Only(names) | Show::OfNode(names) => only(body, names, pretty),
        Show::OfNodeEmpty => Ok(empty_reply(200)),
        Show::List(field) => list(body, field, pretty),
        Show::Item(field, missing) => item(body, field, missing, pretty),
        Show::First(field) => first(body, field, pretty),
        Show::Strings => strings(body, pretty),
        Show::Health { client } => Ok(render_agent::health(leader_known(body)?, client, pretty)),
        Show::Ready => Ok(match leader_known(body)? {
            Ok(()) => text_reply(200, "ok"),
            Err(reason) => text_reply(503, reason),
        }),
        Show::Members => render_agent::members(body, pretty),
        Show::AgentSelf => render_agent::agent_self(body, pretty),
        Show::Jwks => render_agent::jwks(body, pretty),
        Show::HostStats => {
            let ([stats], _) = split(body, ["HostStats"])?;
            Ok(json_reply(200, json_of(stats.unwrap_or(NIL), JsonStyle::PUBLIC)?, pretty))
        }
        Show::Node => render_agent::node(body, pretty),
        Show::Autopilot => render_agent::autopilot(body, pretty),
        Show::ServerHealth => render_agent::server_health(body, pretty),
        Show::Variables => render_var::list(body, pretty),
        Show::Variable => render_var::read(body, pretty),
        Show::VariableWritten { lock } => render_var::written(body, lock, pretty),
        Show::VariableDeleted => render_var::deleted(body, pretty),
        Show::LockRenewed => render_var::renewed(body, pretty),
        Show::Txn => render_var::txn(body, pretty),
        Show::Token => render_acl::token(body, pretty),
        Show::TokenWritten => render_acl::written(body, pretty),
        Show::Caller => render_acl::caller(body, pretty),
        Show::Exchanged => render_acl::exchanged(body, pretty),
        Show::Session => render_session::session(body, pretty),
        Show::SessionOutcome => render_session::outcome(body, pretty),
    }
}

/// The answer to a call that failed.
pub(super) fn error(view: &View, text: &str) -> HttpReply {
    let mut reply = match view.kind {
        Show::Health { client } => render_agent::health(Err(text), client, view.pretty),
        Show::Ready => text_reply(503, text),
        Show::HostStats | Show::OfNode(_) | Show::OfNodeEmpty if is_unreachable(text) => text_reply(404, text),
        // A token that nobody has, and a text that cannot be one: refused like any other, in the same words.
        Show::Caller if text.ends_with("ACL token not found") || text.contains("parse signed token") => {
            text_reply(403, "Permission denied")
        }
        _ => error_reply(text),
    };
    if is_leaderless(text) && reply.status >= 500 {
        reply.headers.push(("Retry-After", view.retry_after_seconds.to_string()));
    }
    reply
}

/// Whether an error says that no connection leads to the node, or that there is no such node.
fn is_unreachable(text: &str) -> bool {
    coded(text).is_none() && (text.ends_with("No path to node") || text.contains("Unknown node"))
}

/// The encoding of nil.
pub(super) const NIL: &[u8] = &[0xc0];

/// Whether bytes are nothing: left out, or nil.
pub(super) fn is_nil(value: Option<&[u8]>) -> bool {
    value.is_none_or(|value| value == NIL)
}

/// The values of these fields of a reply as they came, and its meta, in one pass.
pub(super) fn split<'a, const N: usize>(
    body: &'a [u8],
    names: [&str; N],
) -> Result<([Option<&'a [u8]>; N], QueryMeta)> {
    let mut d = Decoder::new(body);
    let (mut values, mut meta) = ([None; N], QueryMeta::default());
    for _ in 0..d.map()?.unwrap_or(0) {
        let key = d.bytes()?;
        if let Some((value, _)) = values.iter_mut().zip(names).find(|(_, name)| name.as_bytes() == key) {
            *value = Some(d.raw()?);
            continue;
        }
        match key {
            b"Index" => meta.index = d.u64()?,
            b"LastContact" => meta.last_contact = d.i64()?,
            b"KnownLeader" => meta.known_leader = d.bool()?,
            b"NextToken" => meta.next_token = d.str()?.to_owned(),
            _ => d.skip()?,
        }
    }
    Ok((values, meta))
}

/// One value as JSON.
pub(super) fn json_of(value: &[u8], style: JsonStyle) -> Result<String> {
    // JSON is as long as the msgpack of it, and a little longer.
    let mut out = String::with_capacity(value.len() + value.len() / 4 + 64);
    to_json_in_style(value, style, &mut out)?;
    Ok(out)
}

fn style_of(field: &str) -> JsonStyle {
    match field {
        "Lock" | "Locks" | "Sessions" => IN_WORDS,
        "Nodes" => NODES,
        _ => JsonStyle::PUBLIC,
    }
}

fn headers(heads: Heads, body: &[u8]) -> Result<Vec<(&'static str, String)>> {
    if heads == Heads::None {
        return Ok(Vec::new());
    }
    let ([], meta) = split(body, [])?;
    Ok(if heads == Heads::Read { read_headers(&meta) } else { write_headers(meta.index) })
}

fn list(body: &[u8], field: &str, pretty: bool) -> Result<HttpReply> {
    let ([value], meta) = split(body, [field])?;
    let json = match value.filter(|value| *value != NIL) {
        Some(value) => json_of(value, style_of(field))?,
        None => "[]".to_owned(),
    };
    let mut reply = json_reply(200, json, pretty);
    reply.headers.extend(read_headers(&meta));
    Ok(reply)
}

fn item(body: &[u8], field: &str, missing: &str, pretty: bool) -> Result<HttpReply> {
    let ([value], meta) = split(body, [field])?;
    let mut reply = match value.filter(|value| *value != NIL) {
        Some(value) => json_reply(200, json_of(value, style_of(field))?, pretty),
        None => text_reply(404, missing),
    };
    reply.headers.extend(read_headers(&meta));
    Ok(reply)
}

fn first(body: &[u8], field: &str, pretty: bool) -> Result<HttpReply> {
    let ([value], meta) = split(body, [field])?;
    let mut d = Decoder::new(value.unwrap_or(NIL));
    let mut reply = match d.array()? {
        Some(1..) => json_reply(200, json_of(d.raw()?, style_of(field))?, pretty),
        _ => empty_reply(200),
    };
    reply.headers.extend(write_headers(meta.index));
    Ok(reply)
}

fn only(body: &[u8], names: &[&str], pretty: bool) -> Result<HttpReply> {
    let mut object = Encoder::new();
    object.map(names.len());
    for name in names {
        let ([value], _) = split(body, [name])?;
        object.str(name);
        object.raw(value.unwrap_or(NIL));
    }
    Ok(json_reply(200, json_of(&object.out, JsonStyle::PUBLIC)?, pretty))
}

fn strings(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let json = if body == NIL { "[]".to_owned() } else { json_of(body, JsonStyle::PUBLIC)? };
    Ok(json_reply(200, json, pretty))
}

/// What Status.Leader answered: whether there is one, or why not.
fn leader_known(body: &[u8]) -> Result<std::result::Result<(), &'static str>> {
    let leader = String::from_bytes(body)?;
    Ok(if leader.is_empty() { Err("no leader") } else { Ok(()) })
}
