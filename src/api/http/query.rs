//! The parameters of a request, and what every read and write takes of them. Never fails otherwise than with the
//! answer that says what is wrong.
//!
//! Source: HTTP notes, section 1.1. Words of errors are those of Go's strconv, which clients print.

use std::borrow::Cow;

use crate::base::time::parse_duration;
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::http::HttpRequest;

use super::reply::{Refusal, refusal};

/// Parameters of one request.
pub(super) const MAX_PARAMETERS: usize = 1024;

/// The parameters of a request, in order.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads what follows `?`.
    pub(super) fn parse(text: &'a str) -> Result<Query<'a>, Refusal> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(refusal(400, &format!("too many parameters: {MAX_PARAMETERS} is the limit")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (percent_decode(name, true), percent_decode(value, true)) {
                (Some(name), Some(value)) => pairs.push((name, value)),
                _ => return Err(refusal(400, "invalid URL escape in query")),
            }
        }
        Ok(Query(pairs))
    }

    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The first value, when it is there and not empty: most parameters mean the same empty and left out.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// The same as a text of its own; empty when it is not there.
    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default().to_owned()
    }

    /// Whether a parameter is there, with or without a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All values of a parameter, in order.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(held, _)| held == name).map(|(_, value)| &**value)
    }

    /// Present and not `0`: how `pretty` is asked for.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0")
    }

    /// A truth value; `None` when it is left out or empty.
    ///
    /// # Errors
    /// Go's words.
    pub(super) fn bool(&self, name: &str) -> Result<Option<bool>, String> {
        self.filled(name).map(parse_bool).transpose()
    }

    /// A number; `None` when it is left out or empty. The answer to another text begins with `what`.
    pub(super) fn number(&self, name: &str, what: &str) -> Result<Option<u64>, Refusal> {
        let read = |text: &str| parse_uint(text).map_err(|error| refusal(400, &format!("{what}: {error}")));
        self.filled(name).map(read).transpose()
    }

    /// `wait`, nanoseconds; 0 when it is left out.
    pub(super) fn wait(&self) -> Result<i64, Refusal> {
        let read = |text: &str| go_duration(text).ok_or_else(|| refusal(400, "Invalid wait time"));
        self.filled("wait").map_or(Ok(0), read)
    }

    /// What a read takes.
    pub(super) fn read_options(&self, request: &HttpRequest, own_region: &str) -> Result<QueryOptions, Refusal> {
        let mut options = self.unwaiting_options(request, own_region)?;
        options.max_query_time = self.wait()?;
        if let Some(text) = self.filled("index") {
            options.min_query_index = parse_uint(text).map_err(|_| refusal(400, "Invalid index"))?;
        }
        Ok(options)
    }

    /// What a read takes that never waits: `index` and `wait` are not looked at.
    pub(super) fn unwaiting_options(&self, request: &HttpRequest, own_region: &str) -> Result<QueryOptions, Refusal> {
        let allow_stale = match self.get("stale") {
            None => false,
            Some("") => true,
            Some(text) => parse_bool(text)
                .map_err(|_| refusal(400, "Expect `true` or `false` for `stale` query string parameter"))?,
        };
        let per_page = match self.filled("per_page") {
            None => 0,
            Some(text) => {
                text.parse().map_err(|_| refusal(400, "Expect a number for `per_page` query string parameter"))?
            }
        };
        Ok(QueryOptions {
            region: self.filled("region").unwrap_or(own_region).to_owned(),
            namespace: self.filled("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            allow_stale,
            prefix: self.text("prefix"),
            auth_token: token(request).to_owned(),
            filter: self.text("filter"),
            per_page,
            next_token: self.text("next_token"),
            reverse: self.get("reverse") == Some("true"),
            ..QueryOptions::default()
        })
    }

    /// What a write takes.
    pub(super) fn write_request(&self, request: &HttpRequest, own_region: &str) -> WriteRequest {
        WriteRequest {
            region: self.filled("region").unwrap_or(own_region).to_owned(),
            namespace: self.filled("namespace").unwrap_or(DEFAULT_NAMESPACE).to_owned(),
            auth_token: token(request).to_owned(),
            idempotency_token: self.text("idempotency_token"),
            forwarded: false,
        }
    }
}

/// What a request that names no namespace means.
const DEFAULT_NAMESPACE: &str = "default";

/// The secret of whoever asks: `X-Nomad-Token`, else the bearer token of `Authorization`; empty for none.
pub(super) fn token(request: &HttpRequest) -> &str {
    if let Some(token) = request.header("x-nomad-token").filter(|value| !value.is_empty()) {
        return token.trim();
    }
    match request.header("authorization").and_then(|value| value.split_once(' ')) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => {
            rest.split_ascii_whitespace().next().unwrap_or_default()
        }
        _ => "",
    }
}

/// `%41` to what it stands for, and `+` to a space where `plus` says so (queries do, paths do not); `None` for a
/// broken escape or text that is not UTF-8.
pub(super) fn percent_decode(text: &str, plus: bool) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || (plus && byte == b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' if plus => bytes.push(b' '),
            b'%' => {
                let (hi, lo) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                bytes.push(u8::try_from(hi << 4 | lo).ok()?);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// An unsigned number in decimal digits.
///
/// # Errors
/// The words of Go's `strconv.ParseUint`.
pub(super) fn parse_uint(text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.ParseUint: parsing {text:?}: invalid syntax"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

/// A signed number in decimal digits.
///
/// # Errors
/// The words of Go's `strconv.Atoi`.
pub(super) fn parse_int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
    }
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {text:?}: value out of range"))
}

/// A truth value in any of the words that Go takes for one.
///
/// # Errors
/// The words of Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {text:?}: invalid syntax")),
    }
}

/// A duration in Go's words, with a sign or without; nanoseconds.
pub(super) fn go_duration(text: &str) -> Option<i64> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let nanos = i64::try_from(parse_duration(rest).ok()?.as_nanos()).ok()?;
    Some(if negative { -nanos } else { nanos })
}
