//! What everybody may read of nodes: one, or a list of them.
//!
//! Source: endpoint notes, sections 1.5 and 3.2; Nomad `nomad/node_endpoint.go`, `nomad/state/paginator`.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::id::Index;
use crate::state::State;
use crate::state::node::Node;
use crate::state::watch::WatchKey;
use crate::wire::body::node_call::{
    NodeItemFields, NodeListItem, NodeListRequest, NodeListResponse, NodeSpecificRequest, SingleNodeResponse,
};
use crate::wire::body::query::QueryOptions;
use crate::wire::msgpack::{Decoder, Encoder, Raw};

use super::access::access;
use super::answer::{Answer, Failure, arguments, blocking, body};
use super::filter::Filter;
use super::{Ctx, Request, page};

/// Length of a full id, bytes.
const UUID_BYTES: usize = 36;

/// Node.GetNode. A waiter on a node that is not there wakes when one is.
pub(super) fn get_node(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeSpecificRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    let node = state.node(&args.node_id);
    // A node may read the nodes of its own pool.
    let own_pool = || access.node(state).zip(node).is_some_and(|(caller, node)| caller.node_pool == node.node_pool);
    access.require(access.acl.node_read() || own_pool())?;
    if args.node_id.is_empty() {
        return Err("missing node ID".into());
    }
    if node.is_none() && args.node_id.len() != UUID_BYTES {
        return Err("node lookup failed: index error: UUID must be 36 characters".into());
    }
    let index = node.map_or(state.nodes_index(), |node| Index(node.modify_index));
    let keys = || vec![WatchKey::node(&args.node_id)];
    blocking(request, ctx, &args.query, index, keys, |meta| {
        let node = node.map_or_else(Raw::default, |node| {
            let mut e = Encoder::new();
            node.encode(&mut e);
            Raw(Arc::from(e.out))
        });
        Ok(body(&SingleNodeResponse { node, meta }))
    })
}

/// Node.List.
pub(super) fn list(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: NodeListRequest = arguments(request)?;
    let access = access(&args.query.auth_token, request, state, ctx)?;
    access.require(access.acl.node_read())?;
    let filter = page::filter(&args.query)?;
    let fields = args.list.fields.unwrap_or_default();
    let keys = || vec![WatchKey::nodes()];
    blocking(request, ctx, &args.query, state.nodes_index(), keys, |mut meta| {
        let (nodes, next) = page(state, &args.query, filter.as_ref())?;
        meta.next_token = next;
        Ok(body(&NodeListResponse { nodes: nodes.into_iter().map(|node| item(node, &fields)).collect(), meta }))
    })
}

/// The nodes of a page, and where the next begins.
fn page<'a>(
    state: &'a State,
    query: &'a QueryOptions,
    filter: Option<&Filter>,
) -> Result<(Vec<&'a Arc<Node>>, String), Failure> {
    let (prefix, token) = (query.prefix.as_str(), query.next_token.as_str());
    let rows = matching(state, prefix, if query.reverse { prefix } else { prefix.max(token) });
    let rows = page::in_order(query, rows, move |node| &*node.id > token);
    let (nodes, next) = page::page(query, rows, |node| {
        let Some(filter) = filter else { return Ok(true) };
        let mut e = Encoder::new();
        node.encode(&mut e);
        filter.matches(&e.out).map_err(page::unreadable)
    })?;
    Ok((nodes, next.map_or_else(String::new, |node| node.id.to_string())))
}

/// Nodes whose ids begin with a prefix, from an id on.
fn matching<'a>(state: &'a State, prefix: &'a str, from: &'a str) -> impl Iterator<Item = &'a Arc<Node>> + 'a {
    state.nodes_from(from).take_while(move |node| node.id.starts_with(prefix))
}

/// What a list shows of a node.
fn item(node: &Arc<Node>, fields: &NodeItemFields) -> NodeListItem {
    let as_it_came = |key| node.field(key).map_or_else(Raw::default, |value| Raw(value.into()));
    let resource = |key| if fields.resources { as_it_came(key) } else { Raw::default() };
    NodeListItem {
        address: host(&node.http_addr),
        id: node.id.to_string(),
        attributes: fields.os.then(|| os_name(node).into_iter().map(|name| ("os.name".to_owned(), name)).collect()),
        datacenter: node.datacenter.to_string(),
        name: node.name.to_string(),
        node_pool: node.node_pool.to_string(),
        node_class: node.node_class.to_string(),
        version: node.version.to_string(),
        drain: node.drain.is_some(),
        scheduling_eligibility: node.eligibility().to_owned(),
        status: node.status.as_str().to_owned(),
        status_description: node.status_description.to_string(),
        drivers: as_it_came("Drivers"),
        host_volumes: as_it_came("HostVolumes"),
        node_resources: resource("NodeResources"),
        reserved_resources: resource("ReservedResources"),
        last_drain: node.last_drain.clone(),
        create_index: node.create_index,
        modify_index: node.modify_index,
    }
}

/// The host of `host:port`; empty when it is something else.
fn host(addr: &str) -> String {
    if let Ok(addr) = addr.parse::<SocketAddr>() {
        return addr.ip().to_string();
    }
    addr.rsplit_once(':').map_or("", |(host, _)| host).to_owned()
}

/// The attribute `os.name`.
fn os_name(node: &Node) -> Option<String> {
    let mut d = Decoder::new(node.field("Attributes")?);
    for _ in 0..d.map().ok()?.unwrap_or(0) {
        if d.bytes().ok()? == b"os.name" {
            return d.str().ok().map(str::to_owned);
        }
        d.skip().ok()?;
    }
    None
}
