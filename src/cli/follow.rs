//! `holdfast events` and `holdfast monitor`: what a server tells, as it tells it, until one of the two ends.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use crate::cli::args::{EventsArgs, MonitorArgs};
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::agent::MonitorRequest;
use crate::wire::body::event::EventStreamRequest;
use crate::wire::body::query::QueryOptions;
use crate::wire::msgpack::Msg;
use crate::wire::streaming::{EventStreamWrapper, StreamErrWrapper, StreamError};

/// Servers say each 30 s that an event stream lives.
const EVENTS_SILENCE_MAX: Duration = Duration::from_secs(75);
/// A plain monitor says nothing while nothing is logged.
const MONITOR_SILENCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Prints events, a document a line.
///
/// # Errors
/// The client's, and the end that the server gave a reason for.
pub(crate) fn events(context: &Context, out: &mut dyn Write, args: &EventsArgs) -> Result<Exit, Failure> {
    let mut topics: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for topic in &args.topic {
        let (name, key) = topic.split_once(':').unwrap_or((topic, "*"));
        topics.entry(name.to_owned()).or_default().push(key.to_owned());
    }
    if topics.is_empty() {
        topics.insert("*".to_owned(), vec!["*".to_owned()]);
    }
    let query = QueryOptions { namespace: args.namespace.clone(), ..context.query() };
    let request = EventStreamRequest { topics, index: args.index, query };
    let mut stream = context.client().stream("Event.Stream", &request)?;
    while let Some(message) = stream.next(EVENTS_SILENCE_MAX)? {
        let message = read::<EventStreamWrapper>(&message)?;
        refused(message.error)?;
        let document = message.event.map(|event| event.data.0).unwrap_or_default();
        if document != b"{}" {
            out.write_all(&document)?;
            out.write_all(b"\n")?;
            out.flush()?;
        }
    }
    Ok(Exit::Done)
}

/// Prints lines of a log.
///
/// # Errors
/// As [`events`].
pub(crate) fn monitor(context: &Context, out: &mut dyn Write, args: &MonitorArgs) -> Result<Exit, Failure> {
    let request = MonitorRequest {
        log_level: args.level.clone(),
        log_json: context.json,
        node_id: args.node.clone(),
        server_id: args.server.clone(),
        plain_text: true,
        query: context.query(),
        ..MonitorRequest::default()
    };
    let mut stream = context.client().stream("Agent.Monitor", &request)?;
    while let Some(message) = stream.next(MONITOR_SILENCE_MAX)? {
        let message = read::<StreamErrWrapper>(&message)?;
        refused(message.error)?;
        out.write_all(&message.payload.map(|payload| payload.0).unwrap_or_default())?;
        out.flush()?;
    }
    Ok(Exit::Done)
}

fn read<T: Msg>(message: &[u8]) -> Result<T, Failure> {
    T::from_bytes(message).map_err(|error| Failure::Other(format!("message cannot be read: {error}")))
}

/// An error within a stream ends it.
fn refused(error: Option<StreamError>) -> Result<(), Failure> {
    match error {
        Some(error) => Err(Failure::Other(error.message)),
        None => Ok(()),
    }
}
