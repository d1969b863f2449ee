//! The event stream as an iterator: opened again where it broke, with gaps as items of their own.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::error::{Class, Error};
use crate::client::retry::Pauses;
use crate::client::scope::Scope;
use crate::client::{Client, Stream};
use crate::wire::body::event::EventStreamRequest;
use crate::wire::msgpack::Msg;
use crate::wire::streaming::EventStreamWrapper;

/// Servers say each 30 s that a stream lives.
const SILENCE_MAX: Duration = Duration::from_secs(75);
/// An iterator bears with errors that pass for so long before it says so.
const TROUBLE: Duration = Duration::from_secs(60);
/// How a stream ends that its caller is to open again.
const RESUBSCRIBE: &str = "client should resubscribe";

/// An item of an event stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// What one entry of the log brought about.
    Events {
        /// Its index.
        index: u64,
        /// Each as the server's JSON object.
        events: Vec<Value>,
    },
    /// Events from one index to another, both included, are lost to this stream: the server holds them no longer.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
}

/// Events from some index on. It goes on after the last one that was heard when its connection is lost.
///
/// ```no_run
/// use holdfast::client::{Client, Events, Heard, Scope, Settings};
///
/// let client = Client::new(Settings::new("10.0.0.1:4647,10.0.0.2:4647"));
/// for heard in Events::new(&client, Scope::default(), &[("Node", "*")], 0) {
///     match heard? {
///         Heard::Events { index, events } => println!("{index}: {} events", events.len()),
///         Heard::Gap { from, to } => println!("{from} to {to} are lost: read everything again"),
///     }
/// }
/// # Ok::<(), holdfast::client::Error>(())
/// ```
#[derive(Debug)]
pub struct Events {
    client: Client,
    scope: Scope,
    topics: BTreeMap<String, Vec<String>>,
    /// The index that the next event has at least.
    next: u64,
    stream: Option<Stream>,
}

impl Events {
    /// Events of these topics and keys, `*` for any, from `index` on; 0 begins with the oldest that is still held.
    pub fn new(client: &Client, scope: Scope, topics: &[(&str, &str)], index: u64) -> Events {
        let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (topic, key) in topics {
            by_name.entry((*topic).to_owned()).or_default().push((*key).to_owned());
        }
        if by_name.is_empty() {
            by_name.insert("*".to_owned(), vec!["*".to_owned()]);
        }
        Events { client: client.clone(), scope, topics: by_name, next: index, stream: None }
    }

    /// The next item; `None` when nothing happened within `limit`.
    ///
    /// # Errors
    /// A server's refusal, and errors that did not pass within `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Heard>, Error> {
        let deadline = Instant::now() + limit;
        let client = self.client.clone();
        let mut pauses = Pauses::new(&client.core.rng);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match self.hear(left.min(SILENCE_MAX)) {
                Ok(Some(heard)) => return Ok(Some(heard)),
                // A sign of life.
                Ok(None) => {}
                // The stream is whole, and quiet.
                Err(Error::Deadline { .. }) if left < SILENCE_MAX && self.stream.is_some() => return Ok(None),
                Err(error) => {
                    self.stream = None;
                    if !passes(&error) || !pauses.wait(deadline) {
                        return Err(error);
                    }
                    log::debug!("the event stream goes on at {} after: {error}", self.next);
                }
            }
        }
    }

    /// One message, of a stream that is opened when there is none.
    fn hear(&mut self, limit: Duration) -> Result<Option<Heard>, Error> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.open()?,
        };
        let message = stream.next(limit);
        if !matches!(&message, Err(error) if !matches!(error, Error::Deadline { .. })) {
            self.stream = Some(stream);
        }
        let message = message?.ok_or_else(|| Error::Broken("the server ended the stream".to_owned()))?;
        let message = EventStreamWrapper::from_bytes(&message).map_err(|error| Error::Malformed(error.to_string()))?;
        if let Some(error) = message.error {
            return Err(Error::answered(error.message));
        }
        let document = message.event.map(|event| event.data.0).unwrap_or_default();
        let heard = read(&document)?;
        let end = match &heard {
            Some(Heard::Events { index, .. }) => *index,
            Some(Heard::Gap { to, .. }) => *to,
            None => return Ok(None),
        };
        // What was heard before the stream was opened again is not told twice.
        if end < self.next {
            return Ok(None);
        }
        self.next = end.saturating_add(1);
        Ok(heard)
    }

    fn open(&self) -> Result<Stream, Error> {
        let request = EventStreamRequest {
            topics: self.topics.clone(),
            index: i64::try_from(self.next).unwrap_or(i64::MAX),
            query: self.scope.query(),
        };
        self.client.stream("Event.Stream", &request)
    }
}

impl Iterator for Events {
    type Item = Result<Heard, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(TROUBLE) {
                Ok(None) => {}
                Ok(Some(heard)) => return Some(Ok(heard)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A document; `None` for a sign of life.
fn read(document: &[u8]) -> Result<Option<Heard>, Error> {
    let wrong = |what: &str| Error::Malformed(format!("an event cannot be read: {what}"));
    let json: Value = serde_json::from_slice(document).map_err(|error| wrong(&error.to_string()))?;
    let Some(index) = json.get("Index").and_then(Value::as_u64) else { return Ok(None) };
    if let Some(gap) = json.get("Gap") {
        let bound = |name: &str| gap.get(name).and_then(Value::as_u64).ok_or_else(|| wrong("a gap without bounds"));
        return Ok(Some(Heard::Gap { from: bound("From")?, to: bound("To")? }));
    }
    let events = json.get("Events").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(Some(Heard::Events { index, events }))
}

/// Whether the stream may be opened again: it was lost, or the server asks for that.
fn passes(error: &Error) -> bool {
    error.class().may_try_again(true)
        || error.class() == Class::Broken
        || error.answer().is_some_and(|text| text.ends_with(RESUBSCRIBE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn documents_are_events_gaps_or_signs_of_life() {
        assert_eq!(read(b"{}").unwrap(), None);
        let gap = br#"{"Index":7,"Events":[],"Gap":{"From":3,"To":7}}"#;
        assert_eq!(read(gap).unwrap(), Some(Heard::Gap { from: 3, to: 7 }));
        let Some(Heard::Events { index, events }) = read(br#"{"Index":9,"Events":[{"Topic":"Node"}]}"#).unwrap() else {
            panic!("no events")
        };
        assert_eq!((index, events.len()), (9, 1));
        for wrong in [&b""[..], b"{", b"{\"Index\":1,\"Gap\":{}}"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_document_gives_a_verdict(document in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read(&document);
        }
    }
}
