//! Calls and streams that another server serves, over real sockets: of another region, of the leader, of the server that
//! a node is connected to (R1.57 to R1.78, R1.99, R3.14, R8.24).

#![allow(clippy::unwrap_used, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use cluster_rig::caller::number_of;
use cluster_rig::{Caller, Cluster, Shape};
use rig::heard::{ACK, Item, WINDOW, frame};
use rig::talk::call_once;
use rig::{Talk, Value, Web, eventually, json, msgpack, patience, tls};

const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";
const NODE: &str = "aaaaaaaa-0001-0002-0003-00000000abcd";

fn get(to: SocketAddr, target: &str) -> cluster_rig::caller::Answer {
    Caller::default().ask(to, "GET", target, b"", Duration::from_secs(20)).unwrap()
}

fn registration() -> Value {
    let node = json!({
        "ID": NODE, "SecretID": SECRET, "Datacenter": "dc1", "Name": "n", "Status": "initializing",
        "Attributes": { "nomad.version": "2.0.5" },
    });
    json!({ "Region": "global", "Node": node })
}

/// A node's session.
fn session(rpc: SocketAddr) -> Talk {
    let mut talk = Talk::dial(rpc, 6);
    let stream = talk.open();
    talk.call(stream, "Node.Register", &registration()).ok();
    talk
}

/// Answers the next call on a stream that a server opened.
fn answer(node: &mut Talk, stream: u32, text: &str) {
    assert_eq!(node.item(stream), Item::Kind(1));
    let (head, _) = (node.value(stream), node.value(stream));
    assert_eq!(head["ServiceMethod"], "NodeMeta.Read");
    node.peer.write(&frame(WINDOW, ACK, stream, 0));
    let mut bytes = msgpack::pack(&json!({ "Error": "", "Seq": head["Seq"], "ServiceMethod": "NodeMeta.Read" }));
    bytes.extend(msgpack::pack(&json!({ "Meta": { "from": text } })));
    node.say(stream, &bytes);
    assert_eq!(node.item(stream), Item::Fin);
    node.fin(stream);
}

/// One server of another region beside a cluster.
fn region(name: &str, tables: &str) -> Cluster {
    let mut shape = Shape::of(1).tables(tables);
    shape.top = format!("region = {name:?}");
    let mut cluster = Cluster::beside(shape);
    cluster.run(0);
    eventually("a lone leader", || (get(cluster.http(0), "/readyz").status == 200).then_some(()));
    cluster
}

// R1.64, R1.65, R1.77, R8.24
#[test]
fn two_regions_reach_each_other() {
    // Only one server of `global` is told of `west`, and that one knows one server of `global`.
    let mut global = Cluster::prepare(Shape::of(3).tables("[rpc]\npool_idle_timeout = \"1s\""));
    let mut west = Cluster::beside(Shape::of(0));
    west.shape.top = "region = \"west\"".to_owned();
    west.shape.expect = 1;
    west.more();
    west.servers[0].own_tables = format!("[regions]\nglobal = [\"{}\"]", global.address(0));
    // Nobody listens at the other one's address.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    global.servers[0].own_tables = format!("[regions]\nwest = [\"{nobody}\", \"{}\"]", west.address(0));
    west.run(0);
    (0..3).for_each(|at| global.run(at));
    global.until_ready();
    eventually("a lone leader", || (get(west.http(0), "/readyz").status == 200).then_some(()));

    // Everybody learns of both, by a hello or by the table of a neighbour.
    for server in [global.http(0), global.http(1), global.http(2), west.http(0)] {
        eventually("both regions", || (get(server, "/v1/regions").json() == json!(["global", "west"])).then_some(()));
    }
    // HTTP: written through each server of one region, read in the other.
    for at in 0..3 {
        let (path, number) = (format!("far/{at}"), at as u64 + 7);
        let written = eventually("a write into the other region", || {
            let answer = Caller::default().write_var(global.http(at), &path, number, "?region=west").unwrap();
            number_of(&answer)
        });
        assert_eq!(west.get(0, &path, ""), Ok(Some(number)));
        assert_eq!(west.get(0, &path, "?stale"), Ok(Some(number)));
        assert_eq!(global.get(at, &path, "?region=west&stale"), Ok(Some(number)), "a stale read goes there too");
        assert_eq!(global.get(at, &path, ""), Ok(None), "{written:?}");
        assert!(global.put(at, "near", number).is_ok());
        assert_eq!(west.get(0, "near", "?region=global"), Ok(Some(number)));
    }
    // A call by msgpack, with the reply of over there.
    let leader = |to: SocketAddr, region: &str| call_once(to, "Status.Leader", &json!({ "Region": region })).ok();
    for at in 0..3 {
        assert_eq!(leader(global.daemon(at).rpc, "west"), west.address(0).to_string());
    }
    let led = global.address(global.until_leader()).to_string();
    assert_eq!(leader(west.daemon(0).rpc, "global"), led);
    assert!(global.daemon(1).metrics().labelled("holdfast.rpc.cross-region", "west") >= 3.0);
    // R1.64: the calls of one server reach all servers over there.
    let served = |at: usize| global.daemon(at).metric("holdfast.rpc.request");
    let before: Vec<f64> = (0..3).map(served).collect();
    let mut caller = Talk::dial(west.daemon(0).rpc, 6);
    let stream = caller.open();
    eventually("calls at all three", || {
        caller.call(stream, "Status.Leader", &json!({ "Region": "global", "AllowStale": true })).ok();
        (0..3).all(|at| served(at) > before[at] + 1.0).then_some(())
    });
    // Streams too: an archive of over there, and its events.
    let mut web = Web::dial(global.http(2));
    let archive = web.get("/v1/operator/snapshot?region=west");
    assert_eq!((archive.status, &archive.body[..2]), (200, &[0x1f, 0x8b][..]));

    // A region nobody has heard of.
    let answer = get(global.http(0), "/v1/vars?region=mars");
    assert_eq!((answer.status, answer.text().as_str()), (500, "No path to region"));
    let line = global.daemon(0).log.until("no path found to region");
    assert!(line.contains("region=\"mars\"") && line.contains("Variables.List"), "{line}");

    // R1.77: connections that nobody uses are given back.
    global.daemon(1).until_metric("holdfast.pool.open", 0.0);
    assert!(global.daemon(1).metrics().labelled("holdfast.pool.discard", "idle") >= 1.0);

    // One server of a region is down: another is asked, at once.
    global.kill(0);
    let rest = global.running();
    global.until_leader_of(&rest);
    for number in 0..6 {
        let answer = Caller::default().write_var(west.http(0), "near", number, "?region=global").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // All of them are.
    west.kill(0);
    let answer = get(global.http(1), "/v1/vars?region=west");
    let text = answer.text();
    assert!(answer.status == 500 && text.starts_with("rpc error: failed to get conn: "), "{text}");
    let line = global.daemon(1).log.until("no server of a region can be reached");
    assert!(line.contains("region=west") && line.contains(&format!("{}: ", west.address(0))), "{line}");
    assert!(line.contains("refused") || line.contains("reset") || line.contains("closed"), "{line}");
}
