//! How every handler answers: bodies, errors, what a reply says about itself, and when a query waits.
//!
//! Source: transport notes, sections 4.2, 8 and 10; endpoint notes, section 1.2.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::Index;
use crate::state::watch::WatchKey;
use crate::wire::body::query::{QueryMeta, QueryOptions};
use crate::wire::msgpack::{DecodeError, Decoder, Encoder, Msg};

use super::outcome::{Effect, Outcome, Park, Reply, ReplyResult};
use super::{Ctx, Request};

/// The text of whoever may not.
pub(super) const PERMISSION_DENIED: &str = "Permission denied";

/// Why a handler gives no body.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// The method's own error; the stream stays usable.
    Text(String),
    /// The arguments could not be read; the stream is closed after the answer.
    Arguments(DecodeError),
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Failure {
        Failure::Arguments(error)
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Text(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Failure {
        Failure::Text(text.to_owned())
    }
}

/// What a handler gives.
pub(super) type Answer = Result<Outcome, Failure>;

/// The outcome of an answer.
pub(super) fn settle(answer: Answer) -> Outcome {
    let result = match answer {
        Ok(outcome) => return outcome,
        Err(Failure::Text(text)) => ReplyResult::Error(text),
        Err(Failure::Arguments(error)) => ReplyResult::BadArguments(error.to_string()),
    };
    Outcome::Reply(Reply { result, effects: Vec::new() })
}

/// Reads a request's arguments, in memory of the order of their size.
pub(super) fn arguments<T: Msg>(request: &Request<'_>) -> Result<T, DecodeError> {
    T::decode(&mut Decoder::with_base(request.body, request.base).within_own_size())
}

/// An error with an HTTP status in its text, as `structs.NewErrRPCCoded` of Nomad writes it.
pub(super) fn coded(code: u16, text: impl fmt::Display) -> Failure {
    Failure::Text(format!("RPC Error:: {code},{text}"))
}

/// An answer with a body.
pub(super) fn body(value: &impl Msg) -> Outcome {
    body_with(value, Vec::new())
}

/// An answer with a body and effects.
pub(super) fn body_with(value: &impl Msg, effects: Vec<Effect>) -> Outcome {
    let mut e = Encoder::new();
    value.encode(&mut e);
    Outcome::Reply(Reply { result: ReplyResult::Body(Arc::from(e.out)), effects })
}

/// What a read reply says about itself (R1.83).
pub(super) fn query_meta(ctx: &Ctx, index: u64) -> QueryMeta {
    QueryMeta {
        index,
        last_contact: if ctx.is_leader { 0 } else { nanos(ctx.last_contact) },
        known_leader: ctx.is_leader || ctx.known_leader,
        next_token: String::new(),
    }
}

/// Nanoseconds as Go's durations hold them.
pub(super) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Answers a query that may wait, or has it wait until its result is newer than what the caller has seen (R1.85 to
/// R1.89). The index of the reply is never 0 (R1.84): who asks for more than 0 could not wait.
pub(super) fn blocking(
    request: &Request<'_>,
    ctx: &Ctx,
    query: &QueryOptions,
    index: Index,
    keys: impl FnOnce() -> Vec<WatchKey>,
    answer: impl FnOnce(QueryMeta) -> Answer,
) -> Answer {
    let index = index.0.max(1);
    if query.min_query_index >= index && !request.last_run {
        let wait = Duration::from_nanos(u64::try_from(query.max_query_time).unwrap_or(0));
        return Ok(Outcome::Park(Park { keys: keys(), max_query_time: wait, effects: Vec::new() }));
    }
    answer(query_meta(ctx, index))
}
