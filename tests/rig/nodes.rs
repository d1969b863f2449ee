//! Nodes that a test plays: what they register with, their sessions, and how they answer a call that a server makes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::heard::{ACK, Item, WINDOW, frame};
use super::{Talk, msgpack};

/// The secret of all nodes of tests.
pub const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";

/// The id of the node of this number.
pub fn id(number: u64) -> String {
    format!("aaaaaaaa-0001-0002-0003-{number:012x}")
}

/// What a node registers with.
pub fn registration(id: &str) -> Value {
    let node = json!({
        "ID": id, "SecretID": SECRET, "Datacenter": "dc1", "Name": id, "Status": "initializing",
        "Attributes": { "nomad.version": "2.0.5" },
    });
    json!({ "Region": "global", "Node": node })
}

/// A heartbeat.
pub fn beat(id: &str) -> Value {
    json!({ "Region": "global", "NodeID": id, "Status": "ready", "AuthToken": SECRET })
}

/// A node's session, and its registration on it.
#[track_caller]
pub fn session(rpc: SocketAddr, id: &str) -> Talk {
    let mut talk = Talk::dial(rpc, 6);
    let stream = talk.open();
    talk.call(stream, "Node.Register", &registration(id)).ok();
    talk
}

/// What the call that [`answer`] answers is asked with.
pub fn read(id: &str) -> Value {
    json!({ "Region": "global", "NodeID": id })
}

/// Answers `NodeMeta.Read` on a stream that a server opened; gives what it asked.
#[track_caller]
pub fn answer(node: &mut Talk, stream: u32, text: &str) -> Value {
    assert_eq!(node.item(stream), Item::Kind(1));
    let (head, body) = (node.value(stream), node.value(stream));
    assert_eq!(head["ServiceMethod"], "NodeMeta.Read");
    node.peer.write(&frame(WINDOW, ACK, stream, 0));
    let mut bytes = msgpack::pack(&json!({ "Error": "", "Seq": head["Seq"], "ServiceMethod": "NodeMeta.Read" }));
    bytes.extend(msgpack::pack(&json!({ "Meta": { "from": text } })));
    node.say(stream, &bytes);
    // One call a stream, closed by who opened it.
    assert_eq!(node.item(stream), Item::Fin);
    node.fin(stream);
    body
}

/// Many callers of one node.
pub struct Callers {
    talks: Vec<(Talk, u32)>,
    id: String,
}

impl Callers {
    /// One at each of these servers.
    pub fn at(servers: impl IntoIterator<Item = SocketAddr>, id: &str) -> Callers {
        let dial = |rpc| {
            let mut talk = Talk::dial(rpc, 6);
            let stream = talk.open();
            (talk, stream)
        };
        Callers { talks: servers.into_iter().map(dial).collect(), id: id.to_owned() }
    }

    /// Each calls the node in turn, which answers on the streams from this number on.
    #[track_caller]
    pub fn all_reach(&mut self, node: &mut Talk, first: u32, text: &str) {
        for ((caller, stream), even) in self.talks.iter_mut().zip((first..).step_by(2)) {
            caller.request(*stream, "NodeMeta.Read", &read(&self.id));
            assert_eq!(answer(node, even, text)["NodeID"], *self.id);
            assert_eq!(caller.reply(*stream).ok()["Meta"]["from"], text);
        }
    }

    /// Each is told that nobody has it.
    #[track_caller]
    pub fn none_reaches(&mut self) {
        for (caller, stream) in &mut self.talks {
            caller.request(*stream, "NodeMeta.Read", &read(&self.id));
            assert_eq!(caller.reply(*stream).err(), "No path to node");
        }
    }
}
