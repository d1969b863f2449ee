//! Calls and streams that another server serves, over real sockets: of another region, of the leader, of the server that
//! a node is connected to (R1.57 to R1.78, R1.99, R3.14, R8.24).

#![allow(clippy::unwrap_used, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_rig::caller::number_of;
use cluster_rig::{Caller, Cluster, Shape};
use rig::heard::{ACK, Item, WINDOW, frame};
use rig::http::request;
use rig::nodes::{Callers, registration, session};
use rig::talk::call_once;
use rig::{Talk, Value, Web, eventually, json, msgpack, quiet_for, tls};

const NODE: &str = "aaaaaaaa-0001-0002-0003-00000000abcd";

fn get(to: SocketAddr, target: &str) -> cluster_rig::caller::Answer {
    Caller::default().ask(to, "GET", target, b"", Duration::from_secs(20)).unwrap()
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

    // R1.77, R3.14: connections that nobody uses are given back.
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

/// The two that do not lead.
fn followers(cluster: &Cluster) -> (usize, usize, usize) {
    let leader = cluster.until_leader();
    let others = cluster.running_but(leader);
    (leader, others[0], others[1])
}

// R1.50, R1.67, R1.75
#[test]
fn streams_go_through_whichever_server_is_asked() {
    let cluster = Cluster::three();
    let (leader, one, other) = followers(&cluster);
    // An archive is the leader's, whoever is asked; and is restored by it, whoever gets it.
    cluster.put(one, "kept", 1).unwrap();
    let mut web = Web::dial(cluster.http(one));
    let saved = web.get("/v1/operator/snapshot");
    assert_eq!((saved.status, saved.header("content-type")), (200, Some("application/x-gzip")));
    assert!(saved.header("digest").unwrap().starts_with("sha-256="));
    assert_eq!(cluster.daemon(leader).metric("holdfast.snapshot.saved"), 1.0);
    let stale = web.get("/v1/operator/snapshot?stale");
    assert_eq!((stale.status, cluster.daemon(one).metric("holdfast.snapshot.saved")), (200, 1.0));
    cluster.put(other, "kept", 2).unwrap();
    let mut upload = Web::dial(cluster.http(other));
    for archive in [&b"garbage"[..], &saved.body[..saved.body.len() / 2]] {
        let answer = upload.ask("PUT", "/v1/operator/snapshot", &[], archive);
        assert_eq!(answer.status, 500);
        assert!(answer.text().starts_with("failed to restore from snapshot: "), "{}", answer.text());
        assert_eq!(cluster.get(one, "kept", ""), Ok(Some(2)));
    }
    let answer = upload.ask("PUT", "/v1/operator/snapshot", &[], &saved.body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-nomad-index").is_some());
    (0..3).for_each(|at| cluster.until_held(at, "kept", 1));
    // In chunks, after a word.
    cluster.put(leader, "kept", 3).unwrap();
    upload.peer.write(&request(
        "PUT",
        "/v1/operator/snapshot",
        &["Transfer-Encoding: chunked", "Expect: 100-continue"],
        b"",
    ));
    assert_eq!(upload.head().status, 100);
    for piece in saved.body.chunks(100) {
        upload.peer.write(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
    }
    upload.peer.write(b"0\r\n\r\n");
    let answer = upload.answer();
    assert_eq!(answer.status, 200, "{}", answer.text());
    (0..3).for_each(|at| cluster.until_held(at, "kept", 1));

    // Events of what was written through another server.
    let mut events = Web::dial(cluster.http(one));
    events.peer.write(&request("GET", "/v1/event/stream?topic=Node", &[], b""));
    assert_eq!(events.head().status, 200);
    cluster.daemon(one).until_metric("holdfast.events.subscribers", 1.0);
    call_once(cluster.daemon(other).rpc, "Node.Register", &registration(NODE)).ok();
    let event = events.document().unwrap();
    assert_eq!(event["Events"][0]["Key"], NODE);

    // The log of a server, by its name, its full name, its id and as the leader, through each of the others.
    let (name, id) = (cluster.servers[leader].name.clone(), cluster.id_of(one, leader));
    for (from, wanted) in
        [(one, name.clone()), (other, format!("{name}.global")), (one, "leader".to_owned()), (one, id)]
    {
        let mut monitor = Web::dial(cluster.http(from));
        let target = format!("/v1/agent/monitor?log_level=info&plain=true&server_id={wanted}");
        monitor.peer.write(&request("GET", &target, &[], b""));
        let head = monitor.head();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/plain")), "{wanted}");
        cluster.daemon(leader).reload();
        while !monitor.line().unwrap().contains("configuration reloaded") {}
    }
    // R1.75
    let nowhere = web.get("/v1/agent/monitor?server_id=s1&region=mars");
    assert_eq!((nowhere.status, nowhere.text().as_str()), (500, "No path to region"));
    cluster.daemon(one).log.until("no path found to region: region=\"mars\" method=Agent.Monitor");
    let unknown = web.get("/v1/agent/monitor?server_id=zz");
    assert_eq!((unknown.status, unknown.text().as_str()), (400, "unknown Nomad server zz"));
}

/// A streaming call to a node, and the stream by which it reaches it.
fn stream_to_node(caller: &mut Talk, node: &mut Talk, even: u32) -> u32 {
    let stream = caller.open_kind(5);
    let header = msgpack::pack(&json!({ "Method": "Agent.Monitor" }));
    let argument = json!({ "Region": "global", "NodeID": NODE, "PlainText": true, "LogLevel": "info" });
    caller.say(stream, &[header.clone(), msgpack::pack(&argument)].concat());
    assert_eq!(caller.value(stream), json!({ "Error": "" }));
    // R1.60
    assert_eq!(node.item(even), Item::Kind(5));
    assert_eq!(node.value(even), json!({ "Method": "Agent.Monitor" }));
    node.peer.write(&frame(WINDOW, ACK, even, 0));
    node.say(even, &msgpack::pack(&json!({ "Error": "" })));
    assert_eq!(node.value(even)["NodeID"], NODE);
    stream
}

// R1.57, R1.60, R1.61
#[test]
fn nodes_are_reached_at_whichever_server_they_are() {
    let mut cluster = Cluster::three();
    let (leader, home, asked) = followers(&cluster);
    let read = json!({ "Region": "global", "NodeID": NODE });
    let mut node = session(cluster.daemon(home).rpc, NODE);
    let mut callers = Callers::at((0..3).map(|at| cluster.daemon(at).rpc), NODE);
    callers.all_reach(&mut node, 2, "at home");

    // A stream to it, by a server that has it not; the node's words come, and what stops it goes there.
    let mut caller = Talk::dial(cluster.daemon(asked).rpc, 6);
    let stream = stream_to_node(&mut caller, &mut node, 8);
    node.say(8, &msgpack::pack(&json!({ "Payload": "one" })));
    assert_eq!(caller.value(stream)["Payload"], "one");
    caller.fin(stream);
    assert_eq!(node.item(8), Item::Fin);
    // Its own end is told too.
    let stream = stream_to_node(&mut caller, &mut node, 10);
    node.fin(10);
    assert_eq!(caller.item(stream), Item::Fin);

    // A reader that reads nothing makes the node wait: no server between them takes more than its window.
    caller.grants = false;
    let stream = stream_to_node(&mut caller, &mut node, 12);
    let message = msgpack::pack(&json!({ "Payload": "x".repeat(8_000) }));
    let (mut sent, mut count, total) = (0u64, 0, 4 << 20);
    loop {
        let room = |node: &Talk| 256 * 1024 + node.heard.streams.get(&12).map_or(0, |said| said.granted);
        while sent + message.len() as u64 <= room(&node) && sent < total {
            node.say(12, &message);
            (sent, count) = (sent + message.len() as u64, count + 1);
        }
        let until = Instant::now() + Duration::from_millis(400);
        if sent >= total
            || !node.pump(until, |heard| sent + message.len() as u64 <= 256 * 1024 + heard.streams[&12].granted)
        {
            break;
        }
    }
    assert!((256 * 1024..1 << 20).contains(&sent), "{sent} bytes were taken for a reader that reads nothing");
    caller.grants = true;
    caller.listen(Duration::ZERO);
    caller.peer.write(&frame(WINDOW, 0, stream, 256 * 1024));
    for _ in 0..count {
        assert_eq!(caller.value(stream)["Payload"].as_str().map(str::len), Some(8_000));
    }
    caller.rst(stream);
    assert!(matches!(node.item(12), Item::Fin | Item::Rst));

    // It moves to another server, and is reached there.
    let moved_to = leader;
    let mut moved = session(cluster.daemon(moved_to).rpc, NODE);
    drop(node);
    cluster.daemon(home).until_metric("holdfast.node_conns", 0.0);
    callers.all_reach(&mut moved, 2, "moved");
    // The node goes while it is called from afar.
    let mut caller = Talk::dial(cluster.daemon(asked).rpc, 6);
    let stream = caller.open();
    caller.request(stream, "NodeMeta.Read", &read);
    assert_eq!(moved.item(8), Item::Kind(1));
    moved.peer.abort();
    let text = caller.reply(stream).err();
    assert!(text.starts_with("rpc error: "), "{text}");
    // Nobody has it.
    cluster.daemon(moved_to).until_metric("holdfast.node_conns", 0.0);
    callers.none_reaches();
    let stream = caller.open_kind(5);
    let argument = json!({ "Region": "global", "NodeID": NODE, "PlainText": true });
    caller.say(stream, &msgpack::pack(&json!({ "Method": "Agent.Monitor" })));
    assert_eq!(caller.value(stream), json!({ "Error": "" }));
    caller.say(stream, &msgpack::pack(&argument));
    assert_eq!(
        caller.value(stream),
        json!({ "Error": { "Message": "No path to node", "Code": 404 }, "Payload": null })
    );
    // The server that it was connected to is gone: whoever was asked and could not say is named.
    let address = cluster.address(home).to_string();
    cluster.kill(home);
    let text = eventually("an error of the asked", || {
        let text = call_once(cluster.daemon(asked).rpc, "NodeMeta.Read", &read).err();
        (text != "No cluster leader").then_some(text)
    });
    assert!(text == "No path to node" || text.starts_with(&format!("failed querying server {address:?}: ")), "{text}");
}

// R1.65, R1.67, R1.99, R2.20, R3.6
#[test]
fn reads_on_followers_say_where_they_come_from_and_are_never_of_the_past() {
    let mut cluster = Cluster::three();
    let (leader, one, other) = followers(&cluster);
    for number in 1..=20 {
        let (writer, reader) = if number % 2 == 0 { (one, other) } else { (other, one) };
        let index = cluster.put(writer, "x", number).unwrap();
        for query in ["", "?consistent"] {
            let (held, answer) = Caller::default().read_var(cluster.http(reader), "x", query).unwrap();
            assert_eq!(held, Some((number, index)), "{query} {} {}", answer.status, answer.text());
            assert!(answer.index >= index && answer.known_leader == Some(true), "{query} {answer:?}");
        }
    }
    let (_, answer) = Caller::default().read_var(cluster.http(one), "x", "").unwrap();
    assert_eq!((answer.known_leader, answer.last_contact), (Some(true), Some(0)), "the leader's own words");
    let (held, answer) = Caller::default().read_var(cluster.http(one), "x", "?stale").unwrap();
    assert!(held.is_some() && answer.known_leader == Some(true), "{answer:?}");
    assert!(answer.last_contact.is_some_and(|millis| millis < 10_000), "{answer:?}");

    // Queries that wait at each server, while the leader stands still and another one takes over.
    let index = answer.index;
    let asks: Vec<(usize, Web)> = (0..3)
        .map(|at| {
            let mut web = Web::dial(cluster.http(at));
            let target = format!("/v1/var/x?index={index}&wait=6s");
            web.peer.write(&request("GET", &target, &[], b""));
            (at, web)
        })
        .collect();
    cluster.daemon(leader).until_metric("holdfast.parked", 3.0);
    cluster.pause(leader);
    let rest = cluster.running();
    cluster.until_leader_of(&rest);
    cluster.put(one, "x", 99).unwrap();
    let number = |answer: &rig::http::Answer| answer.json()["Items"]["n"].as_str().map(str::to_owned);
    for (at, mut web) in asks {
        if at == leader {
            // It wakes up when its query is due, and must not answer from what it held then.
            cluster.resume(leader);
        }
        let answer = web.answer();
        assert_eq!((answer.status, number(&answer)), (200, Some("99".to_owned())), "server {at}, leader {leader}");
    }
    // Nobody leads: a stale read is answered and says so, others are not.
    let leader = cluster.until_leader();
    let rest = cluster.running_but(leader);
    let alone = rest[0];
    // R3.6: connections that end leave the pool without anybody using them.
    cluster.get(alone, "x", "").unwrap();
    assert!(cluster.daemon(alone).metric("holdfast.pool.open") >= 1.0);
    cluster.kill(leader);
    cluster.kill(rest[1]);
    cluster.daemon(alone).until_metric("holdfast.pool.open", 0.0);
    assert!(cluster.daemon(alone).metrics().labelled("holdfast.pool.discard", "closed") >= 1.0);
    let answer = eventually("a server without a leader", || {
        let (held, answer) = Caller::default().read_var(cluster.http(alone), "x", "?stale").unwrap();
        assert_eq!(held.map(|(number, _)| number), Some(99));
        (answer.known_leader == Some(false)).then_some(answer)
    });
    assert!(answer.last_contact.is_some_and(|millis| millis > 0), "{answer:?}");
    let from = Instant::now();
    let answer = get(cluster.http(alone), "/v1/var/x");
    assert_eq!((answer.status, answer.text().as_str()), (500, "No cluster leader"));
    assert!(from.elapsed() > Duration::from_secs(4), "it was held: {:?}", from.elapsed());
}

// R1.70: those who make a leader possible come while a call is held, and it is served.
#[test]
fn calls_that_are_held_are_served_once_there_is_a_leader() {
    let mut cluster = Cluster::prepare(Shape::of(3).tables("[rpc]\nhold_timeout = \"60s\""));
    cluster.run(0);
    let rpc = cluster.daemon(0).rpc;
    let mut node = Talk::dial(rpc, 6);
    let (writes, reads) = (node.open(), node.open());
    node.request(writes, "Node.Register", &registration(NODE));
    node.request(reads, "Node.List", &json!({ "Region": "global" }));
    cluster.daemon(0).until_metric("holdfast.held", 2.0);
    quiet_for(Duration::from_secs(2));
    assert!(!node.has_item(writes) && !node.has_item(reads));
    (1..3).for_each(|at| cluster.run(at));
    assert!(node.reply(writes).ok()["Index"].as_u64().unwrap() > 0);
    assert_eq!(node.reply(reads).ok()["KnownLeader"], true);
    // The same for a cluster that comes back, at each of its servers.
    cluster.until_ready();
    (0..3).for_each(|at| cluster.kill(at));
    cluster.run(1);
    let mut caller = Talk::dial(cluster.daemon(1).rpc, 6);
    let stream = caller.open();
    caller.request(stream, "Node.GetNode", &json!({ "Region": "global", "NodeID": NODE }));
    cluster.daemon(1).until_metric("holdfast.held", 1.0);
    cluster.run(2);
    assert_eq!(caller.reply(stream).ok()["Node"]["ID"], NODE);
}

// R1.73: what a server passed on within its region is not passed on again there, whoever the next one takes for the
// leader; what came from another region is.
#[test]
fn a_call_is_passed_on_once_within_its_region() {
    let cluster = Cluster::three();
    let (leader, one, other) = followers(&cluster);
    let marked = |marks: Value| {
        let mut body = registration(NODE);
        body.as_object_mut().unwrap().extend(marks.as_object().unwrap().clone());
        body
    };
    let sent = || cluster.daemon(one).metric("holdfast.forward.calls");
    call_once(cluster.daemon(one).rpc, "Status.Leader", &json!({ "Region": "global" })).ok();
    let before = sent();
    assert!(before > 0.0);
    let passed_on = marked(json!({ "Forwarded": true, "HoldfastHop": true }));
    assert_eq!(call_once(cluster.daemon(one).rpc, "Node.Register", &passed_on).err(), "No cluster leader");
    assert_eq!(sent(), before, "it went on");
    assert_eq!(get(cluster.http(leader), "/v1/nodes").json(), json!([]));
    // The leader itself takes it; and from afar it may come by any server.
    call_once(cluster.daemon(leader).rpc, "Node.Register", &passed_on).ok();
    call_once(cluster.daemon(other).rpc, "Node.Register", &marked(json!({ "Forwarded": true }))).ok();
    // From afar for yet another region: that would go round.
    let lost = json!({ "Region": "mars", "Forwarded": true });
    assert_eq!(call_once(cluster.daemon(one).rpc, "Node.List", &lost).err(), "No path to region");
}

/// The `[tls]` table of a server with a certificate of this name, its files in its folder.
fn certified(cluster: &mut Cluster, at: usize, authority: &tls::Authority, name: &str) {
    let identity = authority.issue(name, at as u64 + 2);
    let files = tls::Files::write(cluster.servers[at].setup.folder(), authority, &identity);
    cluster.servers[at].own_tables = files.table("");
}

// R1.16, R1.76: servers show one another certificates for their role and region.
#[test]
fn servers_talk_within_tls_and_refuse_who_is_none() {
    let authority = tls::Authority::new();
    let mut cluster = Cluster::prepare(Shape::of(3));
    (0..3).for_each(|at| certified(&mut cluster, at, &authority, "server.global.nomad"));
    (0..3).for_each(|at| cluster.run(at));
    cluster.until_ready();
    let (leader, one, other) = followers(&cluster);
    cluster.put(one, "x", 5).unwrap();
    assert_eq!(cluster.get(other, "x", ""), Ok(Some(5)));
    assert!(cluster.daemon(one).metric("holdfast.pool.open") >= 1.0);
    // One whose certificate is a client's, and one of an authority that nobody knows.
    let stranger = tls::Authority::new();
    for (authority, name, words) in [
        (&authority, "client.global.nomad", "raft connection attempted with a certificate that is no server's"),
        (&stranger, "server.global.nomad", "failed TLS handshake"),
    ] {
        let at = cluster.more();
        certified(&mut cluster, at, authority, name);
        cluster.run(at);
        cluster.daemon(leader).log.until(words);
        assert_ne!(get(cluster.http(at), "/readyz").status, 200);
        assert_eq!(cluster.daemon(at).log.count("linked to a server"), 0, "{name}");
        let members = get(cluster.http(leader), "/v1/operator/raft/configuration").json();
        assert_eq!(members["Servers"].as_array().map(Vec::len), Some(3), "{name}: {members}");
        cluster.kill(at);
    }
    assert_eq!(cluster.get(one, "x", ""), Ok(Some(5)));
}
