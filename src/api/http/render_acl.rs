//! Tokens as JSON. Their secrets are shown: whoever gets one here made it, or may see it.
//!
//! Source: HTTP notes, section 9.

use crate::wire::body::acl::{AclToken, AclTokenUpsertResponse, SingleAclTokenResponse, WhoAmIResponse};
use crate::wire::http::HttpReply;
use crate::wire::json::{JsonStyle, go_time_text, push_go_duration, push_json_string, to_json_in_style};
use crate::wire::msgpack::{Decoder, Msg, Raw, Result};

use super::super::acl::DISABLED_ACCESSOR;
use super::render::{NIL, split};
use super::reply::{empty_reply, json_reply, read_headers, text_reply, write_headers};

/// ACL.GetToken.
pub(super) fn token(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = SingleAclTokenResponse::from_bytes(body)?;
    let mut reply = match &response.token {
        Some(token) => json_reply(200, json(token)?, pretty),
        None => text_reply(404, "ACL token not found"),
    };
    reply.headers.extend(read_headers(&response.meta));
    Ok(reply)
}

/// ACL.UpsertTokens and ACL.Bootstrap: one token was asked for.
pub(super) fn written(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = AclTokenUpsertResponse::from_bytes(body)?;
    let mut reply = match response.tokens.first() {
        Some(token) => json_reply(200, json(token)?, pretty),
        None => empty_reply(200),
    };
    reply.headers.extend(write_headers(response.meta.index));
    Ok(reply)
}

/// ACL.WhoAmI: the caller's token.
pub(super) fn caller(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = WhoAmIResponse::from_bytes(body)?;
    let mut reply = match response.identity.and_then(|identity| identity.acl_token) {
        Some(token) if token.accessor_id == DISABLED_ACCESSOR => text_reply(400, "ACL support disabled"),
        Some(token) => json_reply(200, json(&token)?, pretty),
        None => text_reply(404, "ACL token not found"),
    };
    reply.headers.extend(read_headers(&response.meta));
    Ok(reply)
}

/// ACL.ExchangeOneTimeToken.
pub(super) fn exchanged(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([token], meta) = split(body, ["Token"])?;
    let token = Option::<AclToken>::decode(&mut Decoder::new(token.unwrap_or(NIL)))?;
    let token = token.as_ref().map_or(Ok("null".to_owned()), json)?;
    let mut reply = json_reply(200, format!("{{\"Index\":{},\"Token\":{token}}}", meta.index), pretty);
    reply.headers.extend(write_headers(meta.index));
    Ok(reply)
}

/// A token: the duration first, as its own encoder in the peer has it.
fn json(token: &AclToken) -> Result<String> {
    let mut out = String::from("{\"ExpirationTTL\":\"");
    if token.expiration_ttl != 0 {
        push_go_duration(token.expiration_ttl, &mut out);
    }
    out.push('"');
    for (name, value) in [
        ("AccessorID", &token.accessor_id),
        ("SecretID", &token.secret_id),
        ("Name", &token.name),
        ("Type", &token.kind),
    ] {
        key(name, &mut out);
        push_json_string(value, &mut out);
    }
    key("Policies", &mut out);
    match &token.policies {
        None => out.push_str("null"),
        Some(policies) => list(policies, &mut out, |name, out| push_json_string(name, out)),
    }
    key("Roles", &mut out);
    match &token.roles {
        None => out.push_str("null"),
        Some(roles) => list(roles, &mut out, |role, out| {
            out.push_str("{\"ID\":");
            push_json_string(&role.id, out);
            key("Name", out);
            push_json_string(&role.name, out);
            out.push('}');
        }),
    }
    key("Global", &mut out);
    out.push_str(if token.global { "true" } else { "false" });
    push_hash(&token.hash, &mut out)?;
    key("CreateTime", &mut out);
    push_time(Some(&token.create_time.0), &mut out);
    key("ExpirationTime", &mut out);
    push_time(token.expiration_time.as_ref().map(|time| &*time.0), &mut out);
    key("CreateIndex", &mut out);
    out.push_str(&token.create_index.to_string());
    key("ModifyIndex", &mut out);
    out.push_str(&token.modify_index.to_string());
    out.push('}');
    Ok(out)
}

fn key(name: &str, out: &mut String) {
    out.push_str(",\"");
    out.push_str(name);
    out.push_str("\":");
}

fn list<T>(values: &[T], out: &mut String, push: impl Fn(&T, &mut String)) {
    out.push('[');
    for (nth, value) in values.iter().enumerate() {
        if nth > 0 {
            out.push(',');
        }
        push(value, out);
    }
    out.push(']');
}

fn push_hash(hash: &Raw, out: &mut String) -> Result<()> {
    // As a field of its name, so that it is taken for bytes.
    let value = if hash.is_nil() { NIL } else { &hash.0 };
    let field = [&b"\x81\xa4Hash"[..], value].concat();
    let mut object = String::new();
    to_json_in_style(&field, JsonStyle::PUBLIC, &mut object)?;
    out.push(',');
    out.push_str(object.trim_start_matches('{').trim_end_matches('}'));
    Ok(())
}

fn push_time(bytes: Option<&[u8]>, out: &mut String) {
    match bytes {
        None => out.push_str("null"),
        Some(bytes) => {
            let text = go_time_text(bytes).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned());
            push_json_string(&text, out);
        }
    }
}
