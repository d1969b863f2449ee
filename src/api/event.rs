//! Event.Stream: which events a subscriber wants.
//!
//! Source: endpoint notes, section 6.

use crate::state::State;
use crate::state::events::Event;
use crate::wire::body::event::EventStreamRequest;

use super::answer::arguments;
use super::outcome::{EventFilter, StreamOutcome};
use super::stream_error::refuse;
use super::{Ctx, Request};

/// Topics and keys of one subscription, together.
pub const MAX_TOPIC_KEYS: usize = 1024;

/// Event.Stream. A topic that does not exist is no error: nothing of it ever happens.
pub(super) fn stream(request: &Request<'_>, _: &State, ctx: &Ctx) -> StreamOutcome {
    let args: EventStreamRequest = match arguments(request) {
        Ok(args) => args,
        Err(error) => return refuse(request.method, 500, &error.to_string()),
    };
    if !args.query.region.is_empty() && args.query.region != ctx.server.region {
        return refuse(request.method, 500, "No path to region");
    }
    if args.topics.values().map(|keys| keys.len() + 1).sum::<usize>() > MAX_TOPIC_KEYS {
        let text = format!("too many topics and keys: {MAX_TOPIC_KEYS} is the limit");
        return refuse(request.method, 400, &text);
    }
    let everything = || vec![("*".to_owned(), vec!["*".to_owned()])];
    StreamOutcome::Events(EventFilter {
        topics: if args.topics.is_empty() { everything() } else { args.topics.into_iter().collect() },
        namespace: if args.query.namespace.is_empty() { "default".to_owned() } else { args.query.namespace },
        index: args.index,
        auth_token: args.query.auth_token,
    })
}

/// Whether a filter lets an event through. Asked once for each event: one that several keys name is sent once.
pub(super) fn wanted(filter: &EventFilter, event: &Event) -> bool {
    let namespace = &*event.namespace;
    if !namespace.is_empty() && filter.namespace != "*" && filter.namespace != namespace {
        return false;
    }
    let is_event =
        |key: &String| key == "*" || **key == *event.key || event.filter_keys.iter().any(|other| **key == **other);
    filter.topics.iter().any(|(topic, keys)| (topic == "*" || topic == event.topic) && keys.iter().any(is_event))
}
