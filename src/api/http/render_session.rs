//! How sessions look.

use crate::wire::body::session::{SessionOutcomeReply, SessionReply};
use crate::wire::http::HttpReply;
use crate::wire::msgpack::{Encoder, Msg, Result};

use super::render::{IN_WORDS, json_of};
use super::reply::{json_reply, read_headers, write_headers};

/// Session.Open and Session.KeepAlive: the key is there where it was given out.
pub(super) fn session(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let session = SessionReply::from_bytes(body)?;
    let key = session.key.to_hex();
    let mut e = Encoder::new();
    e.map(if key.is_empty() { 3 } else { 4 });
    for (name, number) in [("ID", session.id), ("Index", session.meta.index)] {
        e.str(name);
        e.u64(number);
    }
    e.str("TTL");
    e.i64(session.ttl);
    if !key.is_empty() {
        e.str("Key");
        e.str(&key);
    }
    let mut reply = json_reply(200, json_of(&e.out, IN_WORDS)?, pretty);
    reply.headers.extend(write_headers(session.meta.index));
    Ok(reply)
}

/// Session.Outcome.
pub(super) fn outcome(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let told = SessionOutcomeReply::from_bytes(body)?;
    let mut e = Encoder::new();
    e.map(3);
    for (name, text) in [("Outcome", &told.outcome), ("Error", &told.error)] {
        e.str(name);
        e.str(text);
    }
    e.str("WriteIndex");
    e.u64(told.write_index);
    let mut reply = json_reply(200, json_of(&e.out, IN_WORDS)?, pretty);
    reply.headers.extend(read_headers(&told.meta));
    Ok(reply)
}
