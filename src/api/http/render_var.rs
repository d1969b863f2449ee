//! Variables and their locks as JSON. Written by hand, since they are read most and their values are their owners':
//! nothing in them is taken for a time or a secret.
//!
//! Source: HTTP notes, section 4.

use crate::wire::http::HttpReply;
use crate::wire::json::{push_go_duration, push_json_string};
use crate::wire::msgpack::{Decoder, Result};

use super::render::{NIL, is_nil, split};
use super::reply::{empty_reply, json_reply, read_headers, text_reply, write_headers};

/// A variable in a reply, its texts where they lie.
#[derive(Default)]
struct Variable<'a> {
    namespace: &'a [u8],
    path: &'a [u8],
    lock: Option<Lock<'a>>,
    create_index: u64,
    create_time: i64,
    modify_index: u64,
    modify_time: i64,
    /// A map as it came.
    items: Option<&'a [u8]>,
    fence: u64,
}

/// A lock in a reply.
#[derive(Default)]
struct Lock<'a> {
    id: &'a [u8],
    ttl: i64,
    delay: i64,
}

impl<'a> Variable<'a> {
    fn decode(d: &mut Decoder<'a>) -> Result<Variable<'a>> {
        let mut var = Variable::default();
        for _ in 0..d.map()?.unwrap_or(0) {
            match d.bytes()? {
                b"Namespace" => var.namespace = d.bytes()?,
                b"Path" => var.path = d.bytes()?,
                b"Lock" => var.lock = if d.nil()? { None } else { Some(Lock::decode(d)?) },
                b"CreateIndex" => var.create_index = d.u64()?,
                b"CreateTime" => var.create_time = d.i64()?,
                b"ModifyIndex" => var.modify_index = d.u64()?,
                b"ModifyTime" => var.modify_time = d.i64()?,
                b"Items" => var.items = Some(d.raw()?),
                b"Fence" => var.fence = d.u64()?,
                _ => d.skip()?,
            }
        }
        Ok(var)
    }

    /// Appends it, fields in the order of their names. Items and Lock are left out when there are none, the fence
    /// (an extension, R8.1) when it is 0.
    fn push(&self, out: &mut String) -> Result<()> {
        number(out, "{\"CreateIndex\":", self.create_index);
        time(out, ",\"CreateTime\":", self.create_time);
        if self.fence > 0 {
            number(out, ",\"Fence\":", self.fence);
        }
        push_items(self.items.unwrap_or(NIL), out)?;
        if let Some(lock) = &self.lock {
            lock.push(out);
        }
        number(out, ",\"ModifyIndex\":", self.modify_index);
        time(out, ",\"ModifyTime\":", self.modify_time);
        out.push_str(",\"Namespace\":");
        push_text(self.namespace, out);
        out.push_str(",\"Path\":");
        push_text(self.path, out);
        out.push('}');
        Ok(())
    }
}

impl<'a> Lock<'a> {
    fn decode(d: &mut Decoder<'a>) -> Result<Lock<'a>> {
        let mut lock = Lock::default();
        for _ in 0..d.map()?.unwrap_or(0) {
            match d.bytes()? {
                b"ID" => lock.id = d.bytes()?,
                b"TTL" => lock.ttl = d.i64()?,
                b"LockDelay" => lock.delay = d.i64()?,
                _ => d.skip()?,
            }
        }
        Ok(lock)
    }

    fn push(&self, out: &mut String) {
        out.push_str(",\"Lock\":{\"TTL\":\"");
        push_duration(self.ttl, out);
        out.push_str("\",\"LockDelay\":\"");
        push_duration(self.delay, out);
        out.push_str("\",\"ID\":");
        push_text(self.id, out);
        out.push('}');
    }
}

/// Appends a name and a number. By hand: lists hold four of them an item.
fn number(out: &mut String, name: &str, value: u64) {
    out.push_str(name);
    let (mut digits, mut at, mut rest) = ([b'0'; 20], 20, value);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(digits.get(at..).unwrap_or_default()).unwrap_or_default());
}

/// Appends a name and a time.
fn time(out: &mut String, name: &str, nanos: i64) {
    match u64::try_from(nanos) {
        Ok(nanos) => number(out, name, nanos),
        Err(_) => {
            out.push_str(name);
            number(out, "-", nanos.unsigned_abs());
        }
    }
}

/// None at all is the empty text, as the peer writes it.
fn push_duration(nanos: i64, out: &mut String) {
    if nanos != 0 {
        push_go_duration(nanos, out);
    }
}

/// Go's strings need not be UTF-8; what is not is replaced, as its encoder does.
fn push_text(bytes: &[u8], out: &mut String) {
    push_json_string(&String::from_utf8_lossy(bytes), out);
}

fn push_items(items: &[u8], out: &mut String) -> Result<()> {
    let mut d = Decoder::new(items);
    let len = d.map()?.unwrap_or(0);
    for nth in 0..len {
        out.push_str(if nth == 0 { ",\"Items\":{" } else { "," });
        push_text(d.bytes()?, out);
        out.push(':');
        push_text(d.bytes()?, out);
    }
    if len > 0 {
        out.push('}');
    }
    Ok(())
}

/// Room for the JSON of so many bytes of msgpack: names are as long, numbers longer.
fn text_for(value: &[u8]) -> String {
    String::with_capacity(value.len() + value.len() / 2 + 64)
}

fn json(value: &[u8], fence: u64) -> Result<String> {
    let mut out = text_for(value);
    let mut var = Variable::decode(&mut Decoder::new(value))?;
    var.fence = var.fence.max(fence);
    var.push(&mut out)?;
    Ok(out)
}

/// Variables.List.
pub(super) fn list(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([data], meta) = split(body, ["Data"])?;
    let data = data.unwrap_or(NIL);
    let mut out = text_for(data);
    let mut d = Decoder::new(data);
    out.push('[');
    for nth in 0..d.array()?.unwrap_or(0) {
        if nth > 0 {
            out.push(',');
        }
        Variable::decode(&mut d)?.push(&mut out)?;
    }
    out.push(']');
    let mut reply = json_reply(200, out, pretty);
    reply.headers.extend(read_headers(&meta));
    Ok(reply)
}

/// Variables.Read. A 404 has the headers too, so that one can wait until the variable is made.
pub(super) fn read(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([data], meta) = split(body, ["Data"])?;
    let mut reply = match data.filter(|data| *data != NIL) {
        Some(data) => json_reply(200, json(data, 0)?, pretty),
        None => text_reply(404, "variable not found"),
    };
    reply.headers.extend(read_headers(&meta));
    Ok(reply)
}

/// Variables.Apply of a set, a check-and-set or, with `lock`, a lock.
pub(super) fn written(body: &[u8], lock: bool, pretty: bool) -> Result<HttpReply> {
    let ([conflict, output, fence], meta) = split(body, ["Conflict", "Output", "Fence"])?;
    if let Some(conflict) = conflict.filter(|conflict| *conflict != NIL) {
        return conflicted(conflict, !lock, pretty);
    }
    let fence = Decoder::new(fence.unwrap_or(NIL)).u64()?;
    let mut reply = match output.filter(|output| *output != NIL) {
        Some(output) => json_reply(200, json(output, fence)?, pretty),
        None => empty_reply(200),
    };
    reply.headers.extend(write_headers(meta.index));
    Ok(reply)
}

/// Variables.Apply of a delete.
pub(super) fn deleted(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([conflict], meta) = split(body, ["Conflict"])?;
    if let Some(conflict) = conflict.filter(|conflict| *conflict != NIL) {
        return conflicted(conflict, true, pretty);
    }
    Ok(HttpReply { status: 204, headers: write_headers(meta.index), body: Vec::new() })
}

/// What stood in the way, and its index, with which the write can be tried again.
fn conflicted(conflict: &[u8], with_index: bool, pretty: bool) -> Result<HttpReply> {
    let var = Variable::decode(&mut Decoder::new(conflict))?;
    let mut out = text_for(conflict);
    var.push(&mut out)?;
    let mut reply = json_reply(409, out, pretty);
    if with_index {
        reply.headers.extend(write_headers(var.modify_index));
    }
    Ok(reply)
}

/// Variables.RenewLock: no headers.
pub(super) fn renewed(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([var], _) = split(body, ["VarMeta"])?;
    Ok(json_reply(200, json(var.unwrap_or(NIL), 0)?, pretty))
}

/// Holdfast.VariablesTxn: 200 when all was written, 409 when nothing was.
pub(super) fn txn(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([result, results], meta) = split(body, ["Result", "Results"])?;
    let result = Decoder::new(result.unwrap_or(NIL)).str()?;
    let mut out = text_for(body);
    number(&mut out, "{\"Index\":", meta.index);
    out.push_str(",\"Result\":");
    push_json_string(result, &mut out);
    out.push_str(",\"Results\":[");
    let mut d = Decoder::new(results.unwrap_or(NIL));
    for nth in 0..d.array()?.unwrap_or(0) {
        let ([conflict, output, result], _) = split(d.raw()?, ["Conflict", "Output", "Result"])?;
        out.push_str(if nth == 0 { "{" } else { ",{" });
        for (name, var) in [("\"Conflict\":", conflict), (",\"Output\":", output)] {
            out.push_str(name);
            match var.filter(|_| !is_nil(var)) {
                Some(var) => Variable::decode(&mut Decoder::new(var))?.push(&mut out)?,
                None => out.push_str("null"),
            }
        }
        out.push_str(",\"Result\":");
        push_text(Decoder::new(result.unwrap_or(NIL)).bytes()?, &mut out);
        out.push('}');
    }
    out.push_str("]}");
    let written = result == "ok";
    let mut reply = json_reply(if written { 200 } else { 409 }, out, pretty);
    if written {
        reply.headers.extend(write_headers(meta.index));
    }
    Ok(reply)
}
