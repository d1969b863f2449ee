//! Errors of streaming calls: one wrapped message, then the end.
//!
//! Source: transport notes, section 6.

use crate::wire::msgpack::Msg;
use crate::wire::streaming::{EventStreamWrapper, StreamErrWrapper, StreamError};

use super::outcome::StreamOutcome;

/// The message that ends a stream of `method` with an error, in the wrapper of that method. A text that begins with
/// `RPC Error:: N,` has its code taken out of it; any other has the code 500.
pub fn stream_error(method: &str, text: &str) -> Vec<u8> {
    let coded = text.strip_prefix("RPC Error:: ").and_then(|rest| rest.split_once(','));
    match coded.and_then(|(code, rest)| Some((code.parse::<u16>().ok()?, rest))) {
        Some((code, rest)) => message(method, code, rest),
        None => message(method, 500, text),
    }
}

/// Ends a stream with an error.
pub(super) fn refuse(method: &str, code: u16, text: &str) -> StreamOutcome {
    StreamOutcome::Refuse(message(method, code, text))
}

fn message(method: &str, code: u16, text: &str) -> Vec<u8> {
    if matches!(method, "Operator.SnapshotSave" | "Operator.SnapshotRestore") {
        return super::snapshot::response(code, text);
    }
    let error = Some(StreamError { message: text.to_owned(), code: Some(i64::from(code)) });
    if method == "Event.Stream" {
        EventStreamWrapper { error, event: None }.to_bytes()
    } else {
        StreamErrWrapper { error, payload: None }.to_bytes()
    }
}
