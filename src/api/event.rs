//! Event.Stream: which events a subscriber wants.
//!
//! Source: endpoint notes, section 6.

use crate::state::State;
use crate::state::events::{Event, TOPIC_NODE, TOPIC_VARIABLE};
use crate::wire::body::event::EventStreamRequest;

use super::access::{Access, NotKnown, identify};
use super::answer::{PERMISSION_DENIED, arguments};
use super::outcome::{EventFilter, StreamOutcome, VariableRights};
use super::stream_error::refuse;
use super::{Ctx, Request};

/// Topics and keys of one subscription, together.
pub const MAX_TOPIC_KEYS: usize = 1024;

/// How a stream ends that its caller may open again.
pub const RESUBSCRIBE: &str = "subscription closed by server, client should resubscribe";

/// Event.Stream. A topic that does not exist is no error: nothing of it ever happens.
pub(super) fn stream(request: &Request<'_>, state: &State, ctx: &Ctx) -> StreamOutcome {
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
    let mut filter = EventFilter {
        topics: if args.topics.is_empty() { everything() } else { args.topics.into_iter().collect() },
        namespace: if args.query.namespace.is_empty() { "default".to_owned() } else { args.query.namespace },
        index: args.index,
        auth_token: args.query.auth_token,
        variables: None,
    };
    let found = identify(&filter.auth_token, state, ctx).ok().and_then(|access| rights(&filter, &access));
    let Some(variables) = found else { return refuse(request.method, 403, PERMISSION_DENIED) };
    filter.variables = variables;
    StreamOutcome::Events(filter)
}

/// What a caller may see of the variables that a subscription wants, `None` for all of it; no rights at all when one of
/// its topics is not for that caller.
fn rights(filter: &EventFilter, access: &Access) -> Option<Option<VariableRights>> {
    let acl = &access.acl;
    if acl.management {
        return Some(None);
    }
    let namespace = filter.namespace.as_str();
    let allowed = |topic: &str| match topic {
        TOPIC_NODE => acl.node_read(),
        TOPIC_VARIABLE => acl.has_variable_rules(namespace),
        "Operator" => acl.operator_read(),
        // Nothing ever happens to these: there are none.
        "Allocation" | "CSIVolume" | "Deployment" | "Evaluation" | "HostVolume" | "Job" | "Service" => {
            acl.sees_namespace(namespace)
        }
        _ => false,
    };
    if !filter.topics.iter().all(|(topic, _)| allowed(topic)) {
        return None;
    }
    let of_variables = filter.topics.iter().any(|(topic, _)| topic == TOPIC_VARIABLE);
    Some(of_variables.then(|| VariableRights::of(access.acl.clone())))
}

/// Whether a subscription may go on: asked when tokens, policies or roles have changed, and when its token may have
/// ended. Who lost a right, or whose rights on variables are not what they were, subscribes again.
///
/// # Errors
/// The text that the stream ends with.
pub fn still_allowed(filter: &EventFilter, state: &State, ctx: &Ctx) -> Result<(), String> {
    match identify(&filter.auth_token, state, ctx) {
        Ok(access) if rights(filter, &access).is_some_and(|now| now == filter.variables) => Ok(()),
        Err(why @ NotKnown::Expired) => Err(why.reason().to_owned()),
        _ => Err(RESUBSCRIBE.to_owned()),
    }
}

/// Whether a filter lets an event through. Asked once for each event: one that several keys name is sent once.
pub(super) fn wanted(filter: &EventFilter, event: &Event) -> bool {
    let namespace = &*event.namespace;
    if !namespace.is_empty() && filter.namespace != "*" && filter.namespace != namespace {
        return false;
    }
    let hidden = |rights: &VariableRights| !rights.may_list(namespace, &event.key);
    if event.topic == TOPIC_VARIABLE && filter.variables.as_ref().is_some_and(hidden) {
        return false;
    }
    let is_event =
        |key: &String| key == "*" || **key == *event.key || event.filter_keys.iter().any(|other| **key == **other);
    filter.topics.iter().any(|(topic, keys)| (topic == "*" || topic == event.topic) && keys.iter().any(is_event))
}
