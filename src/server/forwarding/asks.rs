//! Which server a node is connected to: all others of the region are asked at once (R1.61).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::api::ServerStatus;
use crate::api::outcome::ToNode;
use crate::base::id::CallId;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::wire::body::node::go_time_unix_nanos;
use crate::wire::body::node_call::NodeSpecificRequest;
use crate::wire::body::query::QueryOptions;
use crate::wire::body::status::NodeConnQueryResponse;
use crate::wire::msgpack::Msg;

use super::super::Server;
use super::super::calls::Step;
use super::{Outgoing, Purpose};

/// Servers that have not answered by then are taken to have no connection.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Servers that are asked.
const MAX_ASKED: usize = 16;

/// Questions under way.
#[derive(Debug, Default)]
pub(super) struct Asks {
    by_id: BTreeMap<u64, Asked>,
    last: u64,
}

impl Asks {
    pub(super) fn next(&self) -> Option<Instant> {
        // All have the same time limit, so the first that was asked is the first that is due.
        self.by_id.values().next().map(|asked| asked.deadline)
    }
}

#[derive(Debug)]
struct Asked {
    who: Who,
    no_path: String,
    left: usize,
    /// The server whose connection is the newest, and since when it is.
    newest: Option<(i64, Arc<str>)>,
    errors: Vec<String>,
    deadline: Instant,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug)]
enum Who {
    Call(CallId),
    Stream(Key),
}

impl Server {
    /// A call for a node that is not connected here.
    pub(in crate::server) fn ask_for_call(&mut self, now: Instant, id: CallId, to_node: &ToNode) {
        let ask = self.next_ask();
        let Some(active) = self.active(id) else { return };
        active.step = Step::Asking { ask };
        self.ask_servers(now, ask, Who::Call(id), to_node);
    }

    /// A streaming call for a node that is not connected here.
    pub(in crate::server) fn ask_for_stream(&mut self, now: Instant, key: Key, to_node: &ToNode) {
        let ask = self.next_ask();
        self.ask_servers(now, ask, Who::Stream(key), to_node);
    }

    fn next_ask(&mut self) -> u64 {
        self.forwarding.asks.last += 1;
        self.forwarding.asks.last
    }

    fn ask_servers(&mut self, now: Instant, ask: u64, who: Who, to_node: &ToNode) {
        let servers = Arc::clone(&self.ctx.servers);
        let others = servers.iter().filter(|server| {
            server.id != self.settings.server_id && !server.rpc_addr.is_empty() && server.status == ServerStatus::Alive
        });
        let others: Vec<Arc<str>> = others.take(MAX_ASKED).map(|server| server.rpc_addr.as_str().into()).collect();
        let asked = Asked {
            who,
            no_path: to_node.no_path.clone(),
            left: others.len(),
            newest: None,
            errors: Vec::new(),
            deadline: now + ASK_LIMIT,
        };
        self.forwarding.asks.by_id.insert(ask, asked);
        let query = QueryOptions { region: self.settings.region.clone(), allow_stale: true, ..QueryOptions::default() };
        let request = NodeSpecificRequest { node_id: to_node.node_id.to_string(), query, ..Default::default() };
        let body: Arc<[u8]> = request.to_bytes().into();
        for address in &others {
            let purpose = Purpose::Ask { ask, address: Arc::clone(address) };
            let out = Outgoing { purpose, method: "Status.HasNodeConn".into(), body: Arc::clone(&body), fresh: false };
            self.send_out(now, address, out);
        }
        self.look_at_ask(now, ask);
    }

    pub(super) fn on_asked(&mut self, now: Instant, ask: u64, address: &Arc<str>, result: Result<Box<[u8]>, String>) {
        let Some(asked) = self.forwarding.asks.by_id.get_mut(&ask) else { return };
        asked.left = asked.left.saturating_sub(1);
        let decoded =
            result.and_then(|body| NodeConnQueryResponse::from_bytes(&body).map_err(|error| error.to_string()));
        match decoded {
            Ok(reply) if reply.connected => {
                let since = go_time_unix_nanos(&reply.established.0).unwrap_or(0);
                if asked.newest.as_ref().is_none_or(|(other, _)| since > *other) {
                    asked.newest = Some((since, Arc::clone(address)));
                }
            }
            Ok(_) => {}
            Err(error) => asked.errors.push(format!("failed querying server {:?}: {error}", &**address)),
        }
        self.look_at_ask(now, ask);
    }

    /// Goes on, once all have answered or time is over.
    fn look_at_ask(&mut self, now: Instant, ask: u64) {
        let Some(asked) = self.forwarding.asks.by_id.get(&ask) else { return };
        if asked.left > 0 && now < asked.deadline {
            return;
        }
        let Some(asked) = self.forwarding.asks.by_id.remove(&ask) else { return };
        let error = if asked.errors.is_empty() { asked.no_path.clone() } else { asked.errors.join("; ") };
        match (asked.who, asked.newest) {
            (Who::Call(id), newest) => {
                // It may be gone, or its place in the table another's.
                if !matches!(self.active(id).map(|active| &active.step), Some(Step::Asking { ask: its }) if *its == ask)
                {
                    return;
                }
                match newest {
                    Some((_, to)) => self.forward_to_node_owner(now, id, to, asked.no_path),
                    None => self.answer_error(now, id, &error),
                }
            }
            (Who::Stream(key), Some((_, to))) => self.stream_to_node_owner(now, key, to, asked.no_path),
            (Who::Stream(key), None) => self.refuse_stream(now, key, &error),
        }
    }

    pub(super) fn on_asks_due(&mut self, now: Instant) {
        while let Some((ask, asked)) = self.forwarding.asks.by_id.first_key_value()
            && asked.deadline <= now
        {
            let ask = *ask;
            self.look_at_ask(now, ask);
        }
    }
}
