//! Event streams of a simulated client: opened, read, and written down.

use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::msgpack::Msg;
use crate::wire::streaming::{EventStreamWrapper, StreamingAck};

use super::client::{Busy, Client};
use super::ground::Ground;
use super::history::{Document, Subscription};
use super::requests;
use super::workload::Role;

impl Client {
    /// Opens an event stream.
    pub(super) fn subscribe(&mut self, ground: &mut Ground, lane: usize, node: Option<usize>, from: i64) {
        self.dial(ground);
        let id = node.and_then(|node| ground.fleet.get(node)).map(|node| node.id.clone());
        let argument = requests::event_stream(from, id.as_deref());
        let now = ground.now;
        let Some(connection) = &mut self.connection else { return };
        let Some(stream) = connection.transport.open_streaming(now, "Event.Stream", &argument) else {
            self.hang_up(ground);
            return self.act_after(ground, lane, Duration::from_millis(100));
        };
        let life = ground.history.current_life(self.site);
        let subscription = ground.history.subscriptions.len();
        ground.history.subscriptions.push(Subscription {
            client: self.number,
            life,
            node,
            from,
            opened: now,
            begun: None,
            documents: Vec::new(),
            ended: None,
            whole: false,
        });
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.busy = Some(Busy::Events { subscription, stream, acked: false });
        }
        self.flush(ground);
    }

    /// Bytes came on a lane's event stream.
    pub(super) fn on_events(&mut self, ground: &mut Ground, lane: usize) {
        loop {
            let (Some(connection), Some(held)) = (&mut self.connection, self.lanes.get_mut(lane)) else { return };
            let Some(Busy::Events { subscription, stream, acked }) = &mut held.busy else { return };
            let value = match connection.transport.take_value(*stream) {
                Ok(None) => return,
                Ok(Some(value)) => value,
                Err(why) => return self.garbled(ground, &why),
            };
            let (subscription, stream) = (*subscription, *stream);
            if !std::mem::replace(acked, true) {
                match StreamingAck::from_bytes(&value) {
                    Ok(ack) if ack.error.is_empty() => continue,
                    Ok(_) => return self.stream_ended(ground, stream),
                    Err(why) => return self.garbled(ground, &format!("an ack: {why}")),
                }
            }
            let wrapper = match EventStreamWrapper::from_bytes(&value) {
                Ok(wrapper) => wrapper,
                Err(why) => return self.garbled(ground, &format!("an event: {why}")),
            };
            let Some(event) = wrapper.event.filter(|_| wrapper.error.is_none()) else {
                return self.stream_ended(ground, stream);
            };
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&event.data.0) else {
                return self.garbled(ground, "an event's document is no JSON");
            };
            let now = ground.now;
            let Some(seen) = ground.history.subscriptions.get_mut(subscription) else { return };
            seen.begun.get_or_insert(now);
            if let Some(document) = document(now, &json) {
                if let Role::Subscriber { from, .. } = &mut held.role {
                    *from = (*from).max(i64::try_from(document.index).unwrap_or(0) + 1);
                }
                seen.documents.push(document);
            }
        }
    }
}

/// A document with events or a gap; `None` for a sign of life.
fn document(at: Instant, json: &serde_json::Value) -> Option<Document> {
    let index = json.get("Index")?.as_u64()?;
    let text = |event: &serde_json::Value, key: &str| event.get(key).and_then(|v| v.as_str()).unwrap_or("").to_owned();
    let events = json.get("Events").and_then(|events| events.as_array());
    let events = events.map(|events| {
        let one = |event: &serde_json::Value| (text(event, "Type"), text(event, "Key"), hash_of(event.get("Payload")));
        events.iter().map(one).collect()
    });
    let gap = json.get("Gap").and_then(|gap| Some((gap.get("From")?.as_u64()?, gap.get("To")?.as_u64()?)));
    Some(Document { at, index, events: events.unwrap_or_default(), gap })
}

/// A hash of a JSON value, the same for equal values.
pub(super) fn hash_of(value: Option<&serde_json::Value>) -> u64 {
    let mut trace = super::trace::Trace::default();
    if let Some(value) = value {
        trace.bytes(value.to_string().as_bytes());
    }
    trace.hash()
}
