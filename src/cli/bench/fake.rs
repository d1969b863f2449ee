//! A server for the bench's tests: a thread for each connection, plain or multiplexed, with nodes and blocking queries.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session::{Event, Limits, MuxSession, Side};
use crate::wire::body::node_call::{
    NodeBatchDeregisterRequest, NodeRegisterRequest, NodeSpecificRequest, NodeUpdateResponse, NodeUpdateStatusRequest,
};
use crate::wire::body::query::{QueryMeta, QueryOptions};
use crate::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use crate::wire::rpc;
use crate::wire::rpc::RequestHead;

/// What the server knows and has seen.
#[derive(Default)]
pub(crate) struct World {
    /// Index of the last write.
    pub(crate) index: u64,
    /// Secret of each node, by id.
    pub(crate) nodes: BTreeMap<String, String>,
    /// Calls, by method.
    pub(crate) calls: BTreeMap<String, u64>,
    /// Connections accepted.
    pub(crate) connections: usize,
    /// Most queries that waited at the same time.
    pub(crate) most_waiting: usize,
    /// Method that is refused, and how.
    pub(crate) refuse: Option<(&'static str, &'static str)>,
    /// Answer blocking queries at once.
    pub(crate) never_blocks: bool,
    waiting: Vec<Waiter>,
}

/// A query that waits.
struct Waiter {
    connection: Arc<Mutex<Connection>>,
    stream: StreamId,
    head: RequestHead,
    node: Option<String>,
}

/// The writing side of a connection.
struct Connection {
    session: Option<MuxSession>,
    socket: TcpStream,
    /// Requests that have not arrived whole, by stream; 0 is the connection itself.
    partial: BTreeMap<StreamId, Vec<u8>>,
    /// Streams whose first byte has come.
    greeted: BTreeSet<StreamId>,
}

impl Connection {
    fn reply(&mut self, stream: StreamId, head: &RequestHead, error: &str, body: &[u8]) {
        let mut e = Encoder::new();
        rpc::encode_reply_head(&mut e, error, head.seq, &head.service_method);
        e.raw(body);
        if let Some(session) = &mut self.session {
            assert_eq!(session.send(stream, &e.out).unwrap(), e.out.len());
            self.flush();
        } else {
            let _ = self.socket.write_all(&e.out);
        }
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        if let Some(session) = &mut self.session {
            session.take_output(&mut out);
        }
        // A client may well be gone.
        let _ = self.socket.write_all(&out);
    }
}

/// Starts a server on a free port.
pub(crate) fn start() -> (String, Arc<Mutex<World>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let world = Arc::new(Mutex::new(World { index: 5, ..World::default() }));
    let shared = Arc::clone(&world);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let world = Arc::clone(&shared);
            thread::spawn(move || serve(socket, &world));
        }
    });
    (address, world)
}

fn serve(mut socket: TcpStream, world: &Mutex<World>) {
    world.lock().unwrap().connections += 1;
    let mut first = [0];
    if socket.read_exact(&mut first).is_err() {
        return;
    }
    let session = (first == [6]).then(|| MuxSession::new(Side::Server, Limits::default(), Instant::ZERO));
    assert!(session.is_some() || first == [1]);
    let connection =
        Connection { session, socket: socket.try_clone().unwrap(), partial: BTreeMap::new(), greeted: BTreeSet::new() };
    let connection = Arc::new(Mutex::new(connection));
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(len @ 1..) = socket.read(&mut buffer) {
        // Not in the loop's head, where the lock would be held over the loop.
        let requests = requests(&mut connection.lock().unwrap(), &buffer[..len]);
        for (stream, head, body) in requests {
            handle(&mut world.lock().unwrap(), &connection, stream, head, &body);
        }
    }
}

/// The requests that bytes complete.
fn requests(connection: &mut Connection, bytes: &[u8]) -> Vec<(StreamId, RequestHead, Vec<u8>)> {
    let mut arrived: Vec<(StreamId, Vec<u8>)> = Vec::new();
    match &mut connection.session {
        None => arrived.push((StreamId(0), bytes.to_vec())),
        Some(session) => {
            session.handle_bytes(Instant::ZERO, bytes);
            while let Some(event) = session.poll_event() {
                match event {
                    Event::Opened(stream) => session.accept(stream),
                    Event::Data(stream, range) => {
                        session.consume(stream, range.len());
                        let mut data = bytes[range].to_vec();
                        if connection.greeted.insert(stream) {
                            assert_eq!(data.remove(0), 1);
                        }
                        arrived.push((stream, data));
                    }
                    _ => {}
                }
            }
        }
    }
    connection.flush();
    let mut requests = Vec::new();
    for (stream, data) in arrived {
        let partial = connection.partial.entry(stream).or_default();
        partial.extend(data);
        while let Some((head, body, len)) = request(partial) {
            requests.push((stream, head, body));
            partial.drain(..len);
        }
    }
    requests
}

fn request(bytes: &[u8]) -> Option<(RequestHead, Vec<u8>, usize)> {
    let whole = |bytes: &[u8]| match Scanner::default().scan(bytes, usize::MAX - 1).unwrap() {
        Scan::Complete(len) => Some(len),
        Scan::Partial => None,
    };
    let head = whole(bytes)?;
    let body = whole(&bytes[head..])?;
    let decoded = rpc::decode_request_head(&bytes[..head]).unwrap();
    Some((decoded, bytes[head..head + body].to_vec(), head + body))
}

fn handle(world: &mut World, connection: &Arc<Mutex<Connection>>, stream: StreamId, head: RequestHead, body: &[u8]) {
    *world.calls.entry(head.service_method.clone()).or_insert(0) += 1;
    let reply = |error: &str, body: &[u8]| connection.lock().unwrap().reply(stream, &head, error, body);
    if let Some((method, text)) = world.refuse
        && method == head.service_method
    {
        return reply(text, &[0x80]);
    }
    match head.service_method.as_str() {
        "Status.Ping" => reply("", &[0x80]),
        "Node.Register" => {
            let node = NodeRegisterRequest::from_bytes(body).unwrap().node.head.unwrap();
            world.nodes.entry(node.id.clone()).or_insert(node.secret_id);
            reply("", &written(world, Some(&node.id)));
        }
        "Node.UpdateStatus" => {
            let request = NodeUpdateStatusRequest::from_bytes(body).unwrap();
            let known = world.nodes.get(&request.node_id).cloned();
            match known {
                None => reply("node not found", &[0x80]),
                Some(secret) if secret != request.write.auth_token => reply("Permission denied", &[0x80]),
                Some(_) => reply("", &written(world, Some(&request.node_id))),
            }
        }
        "Node.BatchDeregister" => {
            let request = NodeBatchDeregisterRequest::from_bytes(body).unwrap();
            if request.node_ids.iter().any(|id| !world.nodes.contains_key(id)) {
                return reply("node not found", &[0x80]);
            }
            request.node_ids.iter().for_each(|id| drop(world.nodes.remove(id)));
            reply("", &written(world, None));
        }
        _ => {
            let asked = NodeSpecificRequest::from_bytes(body).unwrap();
            let query = QueryOptions::from_bytes(body).unwrap();
            let allocs = head.service_method == "Node.GetClientAllocs";
            let index = if allocs { 1 } else { world.index };
            if index > query.min_query_index || world.never_blocks {
                let meta = QueryMeta { index, ..QueryMeta::default() };
                return reply("", &meta.to_bytes());
            }
            let node =
                (head.service_method != "Node.List").then_some(if allocs { String::new() } else { asked.node_id });
            world.waiting.push(Waiter { connection: Arc::clone(connection), stream, head, node });
            world.most_waiting = world.most_waiting.max(world.waiting.len());
        }
    }
}

/// Makes a write of it: a new index, an answer for whoever waited for it, and the writer's reply.
fn written(world: &mut World, node: Option<&str>) -> Vec<u8> {
    world.index += 1;
    let meta = QueryMeta { index: world.index, known_leader: true, ..QueryMeta::default() };
    let body = meta.to_bytes();
    let (woken, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut world.waiting)
        .into_iter()
        .partition(|waiter| waiter.node.as_deref().is_none_or(|waits_for| Some(waits_for) == node));
    world.waiting = waiting;
    for waiter in woken {
        waiter.connection.lock().unwrap().reply(waiter.stream, &waiter.head, "", &body);
    }
    let reply = NodeUpdateResponse {
        heartbeat_ttl: 10_000_000_000,
        node_modify_index: world.index,
        meta,
        ..NodeUpdateResponse::default()
    };
    reply.to_bytes()
}
