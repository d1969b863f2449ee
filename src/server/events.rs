//! The last events, bounded in bytes and number, for subscribers to read at their own pace.
//!
//! Source: endpoint notes, section 6; requirements R1j "events", R8.6.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::api::outcome::EventFilter;
use crate::state::events::Event;
use crate::wire::msgpack::{Bytes, Msg};
use crate::wire::streaming::{EventData, EventStreamWrapper, StreamError};

/// Events kept although they are over the cap in bytes.
pub const MIN_EVENTS: usize = 20_000;
/// But never more bytes than the cap this many times.
const MAX_OVER_CAP: usize = 8;

/// All events of one log entry.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The entry.
    pub index: u64,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// The message for a subscriber who wants all of them, made when the first one asks.
    whole: Option<Arc<[u8]>>,
}

/// The buffer.
#[derive(Clone, Debug)]
pub struct EventBuffer {
    batches: VecDeque<Batch>,
    /// The position of the first batch held; positions are never used again.
    first: u64,
    /// Entries up to this index may have had events that are no longer held.
    gone_up_to: u64,
    events: usize,
    bytes: usize,
    cap_bytes: usize,
}

/// What a subscriber reads next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing until more happens.
    Nothing,
    /// This message, and then from this position.
    Message(Arc<[u8]>, u64),
    /// Nothing that is wanted up to this position.
    Skipped(u64),
    /// Events were dropped before they could be read: from one index to another.
    Gap {
        /// The first index that may be missing.
        from: u64,
        /// The last one.
        to: u64,
        /// Where reading goes on.
        position: u64,
    },
}

/// Batches looked at in one step, so that a filter that matches little does not hold up the loop.
const BATCHES_A_STEP: usize = 256;

impl EventBuffer {
    /// An empty buffer of a server whose state is at `index`: what happened before is not held.
    pub fn new(cap_bytes: usize, index: u64) -> EventBuffer {
        EventBuffer { batches: VecDeque::new(), first: 0, gone_up_to: index, events: 0, bytes: 0, cap_bytes }
    }

    /// Adds the events of an entry; says how many old ones made room. Those of an entry that counts as gone are not
    /// held again: a process that begins is told once more of what it has applied.
    pub fn push(&mut self, index: u64, events: Vec<Event>) -> usize {
        if index <= self.gone_up_to {
            return 0;
        }
        self.events += events.len();
        self.bytes += events.iter().map(event_bytes).sum::<usize>();
        self.batches.push_back(Batch { index, events, whole: None });
        let mut dropped = 0;
        while self.is_over() {
            let Some(old) = self.batches.pop_front() else { break };
            self.first += 1;
            self.gone_up_to = old.index;
            self.events -= old.events.len();
            self.bytes -= old.events.iter().map(event_bytes).sum::<usize>();
            if let Some(whole) = old.whole {
                self.bytes -= whole.len();
            }
            dropped += old.events.len();
        }
        dropped
    }

    /// The state was replaced by the entry at `index`: what was told of the old one leads nowhere.
    pub fn begin_anew(&mut self, index: u64) {
        let end = self.end();
        let gone_up_to = self.gone_up_to.max(index);
        *self = EventBuffer { first: end, ..EventBuffer::new(self.cap_bytes, gone_up_to) };
    }

    /// Over the cap with more events than are kept whatever their size, or over the cap many times.
    fn is_over(&self) -> bool {
        self.bytes > self.cap_bytes
            && (self.events > MIN_EVENTS || self.bytes > self.cap_bytes.saturating_mul(MAX_OVER_CAP))
    }

    /// Events held.
    pub fn len(&self) -> usize {
        self.events
    }

    /// True when none is held.
    pub fn is_empty(&self) -> bool {
        self.events == 0
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a new subscriber begins: index 0 with the oldest held, below 0 with the next to come, otherwise with
    /// the first at or after that index. The second value is the gap before it, when an index was named and some of
    /// what followed it is gone.
    pub fn begin(&self, index: i64) -> (u64, Option<(u64, u64)>) {
        let end = self.first + self.batches.len() as u64;
        match u64::try_from(index) {
            Err(_) => (end, None),
            Ok(0) => (self.first, None),
            Ok(index) => {
                let skipped = self.batches.partition_point(|batch| batch.index < index) as u64;
                let gap = (index <= self.gone_up_to).then_some((index, self.gone_up_to));
                (self.first + skipped, gap)
            }
        }
    }

    /// What a subscriber at `position` reads next; `seen` is the index it has read up to.
    pub fn next(&mut self, position: u64, seen: u64, filter: &EventFilter) -> Next {
        if position < self.first {
            return Next::Gap { from: seen + 1, to: self.gone_up_to, position: self.first };
        }
        let start = (position - self.first) as usize;
        for at in start..(start + BATCHES_A_STEP).min(self.batches.len()) {
            let batch = &mut self.batches[at];
            // Also when an index was asked for that is yet to come (R1j "events"): nothing below it is repeated.
            if i64::try_from(batch.index).is_ok_and(|index| index < filter.index) {
                continue;
            }
            let wanted = batch.events.iter().filter(|event| filter.matches(event)).count();
            let after = self.first + at as u64 + 1;
            if wanted == 0 {
                continue;
            }
            if wanted < batch.events.len() {
                let events: Vec<&Event> = batch.events.iter().filter(|event| filter.matches(event)).collect();
                return Next::Message(event_message(batch.index, &events), after);
            }
            if batch.whole.is_none() {
                let whole = event_message(batch.index, &batch.events.iter().collect::<Vec<_>>());
                self.bytes += whole.len();
                batch.whole = Some(whole);
            }
            if let Some(whole) = &batch.whole {
                return Next::Message(whole.clone(), after);
            }
        }
        let read = (start + BATCHES_A_STEP).min(self.batches.len()) as u64 + self.first;
        if read > position { Next::Skipped(read) } else { Next::Nothing }
    }

    /// The position after the last batch held.
    pub fn end(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// The index of the batch before a position, if it is held.
    pub fn index_before(&self, position: u64) -> Option<u64> {
        let at = position.checked_sub(self.first + 1)?;
        self.batches.get(at as usize).map(|batch| batch.index)
    }
}

fn event_bytes(event: &Event) -> usize {
    event.payload.held_bytes() + event.key.len() + 128
}

fn wrap(json: String) -> Arc<[u8]> {
    let event = Some(EventData { data: Bytes(json.into_bytes()) });
    EventStreamWrapper { error: None, event }.to_bytes().into()
}

/// The message that says only that the stream lives.
pub fn heartbeat_message() -> Arc<[u8]> {
    wrap("{}".to_owned())
}

/// The last message of a stream that failed.
pub fn error_message(message: &str, code: i64) -> Arc<[u8]> {
    let error = Some(StreamError { message: message.to_owned(), code: Some(code) });
    EventStreamWrapper { error, event: None }.to_bytes().into()
}

/// A gap as a document without events that names its bounds: clients that do not know the field pass over it.
pub fn gap_message(from: u64, to: u64) -> Arc<[u8]> {
    wrap(format!("{{\"Index\":{to},\"Events\":[],\"Gap\":{{\"From\":{from},\"To\":{to}}}}}"))
}

fn event_message(index: u64, events: &[&Event]) -> Arc<[u8]> {
    let mut json = format!("{{\"Index\":{index},\"Events\":[");
    for (at, event) in events.iter().enumerate() {
        let text = |s: &str| serde_json::Value::from(s).to_string();
        let filter_keys = if event.filter_keys.is_empty() {
            "null".to_owned()
        } else {
            serde_json::Value::from(event.filter_keys.iter().map(|k| k.to_string()).collect::<Vec<_>>()).to_string()
        };
        if at > 0 {
            json.push(',');
        }
        json.push_str(&format!(
            "{{\"Topic\":{},\"Type\":{},\"Key\":{},\"Namespace\":{},\"FilterKeys\":{filter_keys},\"Index\":{index},\
             \"Payload\":{}}}",
            text(event.topic),
            text(event.kind),
            text(&event.key),
            text(&event.namespace),
            event.payload.json(),
        ));
    }
    json.push_str("]}");
    wrap(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Vec<Event> {
        vec![Event {
            topic: "Node",
            kind: "NodeRegistration",
            key: "a".into(),
            filter_keys: Vec::new(),
            namespace: "".into(),
            payload: crate::state::events::Payload::Node(Arc::default()),
        }]
    }

    fn wants(index: i64) -> EventFilter {
        EventFilter {
            topics: vec![("*".to_owned(), vec!["*".to_owned()])],
            namespace: "*".to_owned(),
            index,
            ..EventFilter::default()
        }
    }

    // R1j "events": a process that begins announces what it does not hold, and does not tell it afterwards.
    #[test]
    fn what_counts_as_gone_is_not_held_again() {
        let mut buffer = EventBuffer::new(1 << 20, 7);
        assert_eq!(buffer.begin(5), (0, Some((5, 7))));
        for index in 6..=8 {
            buffer.push(index, event());
        }
        assert_eq!(buffer.len(), 1);
        assert!(matches!(buffer.next(0, 7, &wants(5)), Next::Message(_, 1)));
        assert_eq!(buffer.index_before(1), Some(8));
    }

    // R1j "events": only indexes from the one asked for, also when that one is yet to come.
    #[test]
    fn nothing_below_the_index_asked_for_is_told() {
        let mut buffer = EventBuffer::new(1 << 20, 0);
        let (position, gap) = buffer.begin(9);
        assert_eq!((position, gap), (0, None));
        buffer.push(8, event());
        assert_eq!(buffer.next(position, 0, &wants(9)), Next::Skipped(1));
        buffer.push(9, event());
        assert!(matches!(buffer.next(1, 8, &wants(9)), Next::Message(_, 2)));
        assert!(matches!(buffer.next(0, 0, &wants(-1)), Next::Message(_, 1)));
    }
}
