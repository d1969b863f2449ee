//! What is asked of one server, and of the cluster as a whole. Values of variables are never asked for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::{Context, web};
use crate::client::{Client, Settings, Speech};
use crate::wire::body::agent::MonitorRequest;
use crate::wire::body::operator::AgentSelfResponse;
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::json::to_json;
use crate::wire::msgpack::{Msg, Raw};
use crate::wire::streaming::StreamErrWrapper;

use super::bundle::{Content, FILE_BYTES_MAX, Item};

/// Rows of a list that are asked for.
const ROWS_MAX: i32 = 2_000;
/// What the cluster is asked: file, method, whether the leader must answer, namespace.
const OF_CLUSTER: [(&str, &str, bool, &str); 9] = [
    ("members", "Status.Members", false, ""),
    ("leader", "Status.Leader", false, ""),
    ("regions", "Region.List", false, ""),
    ("raft-configuration", "Operator.RaftGetConfiguration", false, ""),
    ("autopilot-health", "Operator.ServerHealth", true, ""),
    ("autopilot-configuration", "Operator.AutopilotGetConfiguration", false, ""),
    ("locks", "Holdfast.LockList", false, "*"),
    ("sessions", "Session.List", false, ""),
    ("nodes", "Node.List", false, ""),
];

/// A server that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Its folder in the archive.
    pub(super) folder: String,
    /// Its RPC address.
    pub(super) rpc: String,
    /// Its HTTP address; empty when it is not known.
    pub(super) http: String,
}

/// How long its log is listened to, and how much of it.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    pub(super) duration: Duration,
    pub(super) level: String,
}

/// What is asked of the cluster.
pub(super) fn cluster(context: &Context) -> Vec<Item> {
    let client = context.client();
    let ask = |(file, method, needs_leader, namespace): (&str, &str, bool, &str)| {
        let query = QueryOptions {
            namespace: namespace.to_owned(),
            per_page: ROWS_MAX,
            allow_stale: !needs_leader,
            ..context.query()
        };
        Item { file: format!("cluster/{file}.json"), source: method.to_owned(), content: call(&client, method, query) }
    };
    OF_CLUSTER.into_iter().map(ask).collect()
}

/// What is asked of one server; its log is listened to between the first figures and the last.
pub(super) fn server(context: &Context, target: &Target, listening: &Listening) -> Vec<Item> {
    let address = target.rpc.clone();
    let client = Client::new(Settings { address, speech: Speech::Plain, ..context.settings.clone() });
    let item = |file: &str, source: &str, content| Item {
        file: format!("{}/{file}", target.folder),
        source: source.to_owned(),
        content,
    };
    let configuration = agent_self(&client, context);
    // Without its own word it is asked as it is over RPC.
    let secure = match &configuration {
        Ok(told) => told.pointer("/config/TLSConfig/EnableHTTP") == Some(&Value::Bool(true)),
        Err(_) => context.settings.tls.is_some(),
    };
    let metrics = |when: &str, query: &str, end: &str| {
        let path = format!("/v1/metrics{query}");
        let source = format!("GET {path}");
        item(&format!("metrics-{when}.{end}"), &source, web_text(context, target, secure, &path))
    };
    let ask = |method: &str| call(&client, method, context.query());
    let mut items = vec![item("agent-self.json", "Holdfast.AgentSelf", configuration.map(Content::Json))];
    items.push(item("connections.json", "Holdfast.Connections", ask("Holdfast.Connections")));
    items.push(item("raft-begin.json", "Status.RaftStats", ask("Status.RaftStats")));
    items.push(json_of_text(metrics("begin", "", "json")));
    items.push(metrics("begin", "?format=prometheus", "prom"));
    items.push(item("log.txt", "Agent.Monitor", log(&client, context, listening).map(Content::Text)));
    items.push(json_of_text(metrics("end", "", "json")));
    items.push(metrics("end", "?format=prometheus", "prom"));
    items.push(item("raft-end.json", "Status.RaftStats", ask("Status.RaftStats")));
    let at_end = agent_self(&client, context).map(|told| told.get("stats").cloned().unwrap_or_default());
    items.push(item("stats-end.json", "Holdfast.AgentSelf", at_end.map(Content::Json)));
    items
}

fn call(client: &Client, method: &str, query: QueryOptions) -> Result<Content, String> {
    let reply: Raw = client.call(method, &GenericRequest { query }).map_err(|error| error.to_string())?;
    let mut text = String::new();
    to_json(&reply.0, &mut text).map_err(|error| format!("the answer cannot be read: {error}"))?;
    serde_json::from_str(&text).map(Content::Json).map_err(|error| error.to_string())
}

/// The configuration in force, and figures: with them how far its log is, and its state's digest.
fn agent_self(client: &Client, context: &Context) -> Result<Value, String> {
    let request = GenericRequest { query: context.query() };
    let told: AgentSelfResponse = client.call("Holdfast.AgentSelf", &request).map_err(|error| error.to_string())?;
    let read = |text: &str| serde_json::from_str::<Value>(text).map_err(|error| error.to_string());
    Ok(json!({ "config": read(&told.config_json)?, "stats": read(&told.stats_json)? }))
}

fn web_text(context: &Context, target: &Target, secure: bool, path: &str) -> Result<Content, String> {
    if target.http.is_empty() {
        return Err("its HTTP address is not known".to_owned());
    }
    let tls = context.settings.tls.as_ref().filter(|_| secure);
    if secure && tls.is_none() {
        return Err("its HTTP port wants TLS: see --ca-file".to_owned());
    }
    let site = web::Site { address: &target.http, tls, token: &context.token };
    let answer = web::get(site, path, context.settings.timeout, FILE_BYTES_MAX)?;
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body).trim()));
    }
    Ok(Content::Text(answer.body))
}

/// Text that is JSON, as JSON: so that fields are redacted by their names.
fn json_of_text(mut item: Item) -> Item {
    item.content = item.content.and_then(|content| match content {
        Content::Text(text) => serde_json::from_slice(&text).map(Content::Json).map_err(|error| error.to_string()),
        json => Ok(json),
    });
    item
}

/// Lines that are logged in the time, to the end of a line.
fn log(client: &Client, context: &Context, listening: &Listening) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + listening.duration;
    let request = MonitorRequest {
        log_level: listening.level.clone(),
        plain_text: true,
        query: context.query(),
        ..MonitorRequest::default()
    };
    let mut stream = client.stream("Agent.Monitor", &request).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // One byte more than fits says that there was more.
        if left.is_zero() || lines.len() > FILE_BYTES_MAX {
            return Ok(lines);
        }
        match stream.next(left) {
            // The time is up.
            Err(crate::client::Error::Deadline { .. }) => return Ok(lines),
            Err(error) if lines.is_empty() => return Err(error.to_string()),
            Err(_) | Ok(None) => return Ok(lines),
            Ok(Some(message)) => {
                let message = StreamErrWrapper::from_bytes(&message).map_err(|error| error.to_string())?;
                if let Some(error) = message.error {
                    return Err(error.message);
                }
                lines.extend(message.payload.map(|payload| payload.0).unwrap_or_default());
            }
        }
    }
}
