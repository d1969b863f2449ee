//! Answers of the common kinds: plain text, JSON, an error by its text.
//!
//! Source: HTTP notes, sections 1.2 and 1.3.

use crate::wire::body::query::QueryMeta;
use crate::wire::class::{Class, WRONG_SESSION_KEY, without_prefixes};
use crate::wire::http::HttpReply;
use crate::wire::json::{push_json_string, push_pretty};

/// The type of errors, and of what is said to people.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// The type of everything else.
pub(super) const JSON: &str = "application/json";

/// What a wrong method is answered.
pub(super) const INVALID_METHOD: &str = "Invalid method";

/// An answer that ends a request early.
pub(super) type Refusal = Box<HttpReply>;

/// An answer in plain text, on its way out.
pub(super) fn refusal(status: u16, text: &str) -> Refusal {
    Box::new(text_reply(status, text))
}

/// An answer in plain text.
pub(super) fn text_reply(status: u16, text: &str) -> HttpReply {
    HttpReply { status, headers: vec![("Content-Type", TEXT.to_owned())], body: text.as_bytes().to_vec() }
}

/// An answer without a body.
pub(super) fn empty_reply(status: u16) -> HttpReply {
    HttpReply { status, ..HttpReply::default() }
}

/// An answer in JSON.
pub(super) fn json_reply(status: u16, json: String, pretty: bool) -> HttpReply {
    let body = if pretty {
        let mut out = String::with_capacity(json.len() * 2);
        push_pretty(&json, &mut out);
        out
    } else {
        json
    };
    HttpReply { status, headers: vec![("Content-Type", JSON.to_owned())], body: body.into_bytes() }
}

/// The answer to an error of a call, by its text.
pub(super) fn error_reply(text: &str) -> HttpReply {
    if let Some((status, rest)) = coded(text) {
        return text_reply(status, rest);
    }
    for (end, status) in SUFFIXES {
        if text.ends_with(end) {
            return text_reply(*status, end);
        }
    }
    let (status, code) = match Class::of_text(text) {
        // R2.12: neither failure nor success, so that neither is assumed.
        Class::OutcomeUnknown | Class::LeadershipLost => (504, "outcome_unknown"),
        // R2.28: it was there, and will not be again.
        Class::SessionExpired => (410, "session_expired"),
        _ => return text_reply(500, text),
    };
    let mut body = format!("{{\"Code\":\"{code}\",\"Error\":");
    push_json_string(without_prefixes(text), &mut body);
    body.push('}');
    json_reply(status, body, false)
}

/// Ends of texts that have a status of their own, whatever a hop put before them.
const SUFFIXES: &[(&str, u16)] = &[
    ("Permission denied", 403),
    ("ACL token not found", 403),
    (WRONG_SESSION_KEY, 403),
    ("Job registration, dispatch, and scale are disabled by the scheduler configuration", 403),
    ("Filter expression cannot be used with other filter parameters", 400),
];

/// The status that a text carries (`RPC Error:: 404,...`), and the text behind it.
pub(super) fn coded(text: &str) -> Option<(u16, &str)> {
    let (code, rest) = text.strip_prefix("RPC Error:: ")?.split_once(',')?;
    let status = code.parse().ok().filter(|status| (400..=599).contains(status))?;
    Some((status, rest))
}

/// Whether an error says that nobody leads, so that asking again shortly is of use (R8.7).
pub(super) fn is_leaderless(text: &str) -> bool {
    Class::of_text(text) == Class::NotLeader
}

/// What every read says about itself.
pub(super) fn read_headers(meta: &QueryMeta) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-Nomad-Index", meta.index.to_string()),
        ("X-Nomad-LastContact", (meta.last_contact.max(0) / 1_000_000).to_string()),
        ("X-Nomad-KnownLeader", meta.known_leader.to_string()),
    ];
    if !meta.next_token.is_empty() {
        headers.push(("X-Nomad-NextToken", meta.next_token.clone()));
    }
    headers
}

/// What every write says about itself.
pub(super) fn write_headers(index: u64) -> Vec<(&'static str, String)> {
    vec![("X-Nomad-Index", index.to_string())]
}
