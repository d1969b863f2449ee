//! Nodes as agents register them, and what is read of them again.

use holdfast::wire::body::node_call::{
    NodeArgument, NodeListRequest, NodeListResponse, NodeRegisterRequest, NodeSpecificRequest, NodeUpdateResponse,
    NodeUpdateStatusRequest, SingleNodeResponse,
};
use holdfast::wire::body::query::{GenericRequest, QueryOptions, WriteRequest};
use holdfast::wire::body::status::RaftStatsResponse;
use holdfast::wire::msgpack::{Decoder, Encoder, Raw};

/// The id of a node by number.
pub fn node_id(number: u64) -> String {
    format!("{:08x}-0000-4000-8000-{:012x}", number >> 16, number)
}

/// What proves it.
pub fn secret_id(number: u64) -> String {
    format!("{:08x}-5ec7-4000-8000-{:012x}", number >> 16, number)
}

fn write() -> WriteRequest {
    WriteRequest { region: "global".into(), ..WriteRequest::default() }
}

/// Options of a read.
pub fn options() -> QueryOptions {
    QueryOptions { region: "global".into(), ..QueryOptions::default() }
}

/// Arguments of Node.Register: a node with a mark in its attributes, and so many bytes beside it.
pub fn register(number: u64, mark: u64, ballast_bytes: usize) -> NodeRegisterRequest {
    let mut e = Encoder::new();
    e.map(7);
    for (key, value) in [
        ("ID", node_id(number)),
        ("SecretID", secret_id(number)),
        ("Datacenter", "dc1".to_owned()),
        ("Name", format!("node-{number}")),
        ("Status", "ready".to_owned()),
    ] {
        e.str(key);
        e.str(&value);
    }
    e.str("Attributes");
    e.map(1);
    e.str("mark");
    e.str(&mark.to_string());
    e.str("Drivers");
    e.map(1);
    e.str("ballast");
    e.bytes(&vec![b'x'; ballast_bytes]);
    let raw = Raw(e.out.into());
    NodeRegisterRequest { node: NodeArgument { head: None, raw }, write: write(), ..NodeRegisterRequest::default() }
}

/// Arguments of Node.UpdateStatus.
pub fn update_status(number: u64, status: &str) -> NodeUpdateStatusRequest {
    NodeUpdateStatusRequest {
        node_id: node_id(number),
        status: status.to_owned(),
        write: WriteRequest { auth_token: secret_id(number), ..write() },
        ..NodeUpdateStatusRequest::default()
    }
}

/// Arguments of Node.GetNode.
pub fn get_node(number: u64) -> NodeSpecificRequest {
    NodeSpecificRequest { node_id: node_id(number), query: options(), ..NodeSpecificRequest::default() }
}

/// What a read tells of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub mark: u64,
    pub status: String,
    pub modify_index: u64,
}

/// The node that was read; `None` when there is none.
pub fn node_of(reply: &SingleNodeResponse) -> Option<Found> {
    if reply.node.is_nil() {
        return None;
    }
    let (mut status, mut modify_index) = (None, None);
    let mut d = Decoder::new(&reply.node.0);
    for _ in 0..d.map().unwrap().unwrap() {
        match d.bytes().unwrap() {
            b"Status" => status = Some(d.str().unwrap().to_owned()),
            b"ModifyIndex" => modify_index = Some(d.u64().unwrap()),
            _ => d.skip().unwrap(),
        }
    }
    Some(Found { mark: mark_in(&reply.node).unwrap(), status: status.unwrap(), modify_index: modify_index.unwrap() })
}

/// The mark of a node that was read, and its modify index.
pub fn mark_of(reply: &SingleNodeResponse) -> Option<(u64, u64)> {
    node_of(reply).map(|found| (found.mark, found.modify_index))
}

/// The mark among the attributes of a node's map.
pub fn mark_in(node: &Raw) -> Option<u64> {
    let mut mark = None;
    let mut d = Decoder::new(&node.0);
    for _ in 0..d.map().ok()?? {
        if d.bytes().ok()? != b"Attributes" {
            d.skip().ok()?;
            continue;
        }
        for _ in 0..d.map().ok()?? {
            let (key, value) = (d.bytes().ok()?, d.str().ok()?);
            if key == b"mark" {
                mark = value.parse().ok();
            }
        }
    }
    mark
}

/// Arguments that are options only.
pub fn options_only() -> GenericRequest {
    GenericRequest { query: options() }
}

pub type Registered = NodeUpdateResponse;
pub type List = NodeListRequest;
pub type Listed = NodeListResponse;
pub type One = SingleNodeResponse;
pub type Stats = RaftStatsResponse;

/// Arguments of Node.List.
pub fn list_all() -> NodeListRequest {
    NodeListRequest { query: options(), ..NodeListRequest::default() }
}
