//! Registration, heartbeats and what else only nodes call: who is let through, and what they hear.

use super::*;
use crate::state::node::NodeStatus;
use crate::wire::body::node_call::{NodeClientAllocsResponse, NodeUpdateResponse};

fn prove() -> Effect {
    Effect::ProveNode(NODE.into())
}

fn bind() -> Effect {
    Effect::BindNode(NODE.into())
}

fn reset() -> Effect {
    Effect::ResetHeartbeat(NODE.into())
}

/// A register request for a node without one field, or with another value in it.
fn altered(key: &str, value: Option<Vec<u8>>) -> Vec<u8> {
    let whole = node_map(NODE, SECRET, "2.0.5");
    let mut d = crate::wire::msgpack::Decoder::new(&whole);
    let mut fields = Vec::new();
    for _ in 0..d.map().unwrap().unwrap() {
        let name = d.str().unwrap();
        let old = d.raw().unwrap().to_vec();
        if name != key {
            fields.push((name, old));
        }
    }
    if let Some(value) = value {
        fields.push((key, value));
    }
    map(&[("Node", map(&fields)), ("Region", text("global"))])
}

#[test]
fn register_says_what_is_missing() {
    let pool = |name: &str| Some(text(name));
    for (key, value, error) in [
        ("ID", None, "missing node ID for client registration"),
        ("Datacenter", None, "missing datacenter for client registration"),
        ("Name", None, "missing node name for client registration"),
        ("Attributes", None, "missing attributes for client registration"),
        ("Attributes", Some(map(&[])), "missing attributes for client registration"),
        ("SecretID", Some(text("")), "missing node secret ID for client registration"),
        ("NodePool", pool("all"), "node is not allowed to register in node pool \"all\""),
        ("NodePool", pool("a b"), "invalid node pool: invalid name \"a b\", must match regex ^[a-zA-Z0-9-_]{1,128}$"),
        ("Status", pool("ill"), "invalid status for node"),
    ] {
        let mut world = World::new();
        let came = world.call_bytes("Node.Register", &altered(key, value));
        assert_eq!(came.error(), error);
        assert!(world.written.is_empty() && world.effects.is_empty());
    }
    let mut world = World::new();
    for body in [&b"\xc0"[..], b"\x80", b"\x81\xa4Node\xc0"] {
        assert_eq!(world.call_bytes("Node.Register", body).error(), "missing node for client registration");
    }
    assert!(matches!(world.call_bytes("Node.Register", b"\x81\xa4Node\x90"), Came::BadArguments(_)));
}

#[test]
fn register_tells_the_servers_and_starts_the_heartbeat() {
    let mut world = World::new();
    let reply: NodeUpdateResponse = world.register(NODE, SECRET).body();
    assert_eq!(world.effects, [prove(), bind(), reset()]);
    assert_eq!(reply.heartbeat_ttl, 14_500_000_000);
    assert_eq!((reply.node_modify_index, reply.meta.index, reply.num_nodes), (1, 1, 1));
    assert!(!reply.meta.known_leader);
    assert_eq!(reply.servers.unwrap()[0].rpc_advertise_addr, "127.0.0.1:24647");
    assert_eq!(reply.scheduling_eligibility, "eligible");
    assert_eq!(reply.signed_identity, None);

    // Every register is an entry, also when nothing changed.
    assert_eq!(world.register(NODE, SECRET).body::<NodeUpdateResponse>().meta.index, 2);

    // A node that is down gets no TTL: its next heartbeat revives it.
    world.call("Node.UpdateStatus", &heartbeat(NODE, "down", SECRET));
    assert_eq!(world.effects.last(), Some(&Effect::ClearHeartbeat(NODE.into())));
    let reply: NodeUpdateResponse = world.register(NODE, SECRET).body();
    assert_eq!(reply.heartbeat_ttl, 0);
    assert_eq!(world.effects, [prove(), bind()]);
}

/// Agents take an empty list of servers for a failure.
#[test]
fn servers_are_never_empty() {
    let mut world = World::new();
    world.ctx.servers = Arc::from([]);
    let reply: NodeUpdateResponse = world.register(NODE, SECRET).body();
    assert_eq!(reply.servers.unwrap()[0].rpc_advertise_addr, "127.0.0.1:24647");
}

#[test]
fn forwarded_calls_say_nothing_of_the_connection() {
    let mut world = World::new();
    let node = node_map(NODE, SECRET, "2.0.5");
    world.call("Node.Register", &[("Node", node), ("Region", text("global")), ("Forwarded", truth(true))]);
    assert_eq!(world.effects, [reset()]);
    let mut beat = heartbeat(NODE, "ready", SECRET);
    beat.push(("Forwarded", truth(true)));
    world.call("Node.UpdateStatus", &beat);
    assert_eq!(world.effects, [reset()]);
    let fields = [("NodeID", text(NODE)), ("SecretID", text(SECRET)), ("Forwarded", truth(true))];
    world.call("Node.GetClientAllocs", &fields);
    assert_eq!(world.effects, []);
    assert_eq!(world.caller.proven_node, None);
}

/// R8.21
#[test]
fn a_cloned_machine_is_told_who_holds_its_id() {
    let mut world = World::with_node();
    for _ in 0..3 {
        let came = world.register(NODE, OTHER_SECRET);
        let error = came.error();
        assert!(error.starts_with("node secret ID does not match. Not registering node."), "{error}");
        for detail in ["golden-node", "127.0.0.1:24700", "index 1", "2026-11-21T11:41:40Z", "client-id", "data_dir"] {
            assert!(error.contains(detail), "{detail} in {error}");
        }
        assert_eq!(world.effects, []);
        assert_eq!(world.caller.proven_node, None);
    }
    // The holder learns of it once for an address, however often it is tried.
    let told: Vec<_> = world.state.node(NODE).unwrap().events.iter().filter_map(|e| e.details.clone()).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["from"], "192.0.2.7");
    assert_eq!(told[0]["holder_http_addr"], "127.0.0.1:24700");
    world.caller.peer = "192.0.2.8:1".parse().unwrap();
    world.register(NODE, OTHER_SECRET);
    assert_eq!(world.state.node(NODE).unwrap().events.len(), 3);
    assert_eq!(*world.state.node(NODE).unwrap().secret_id, *SECRET);
}

#[test]
fn heartbeats_write_only_what_changes() {
    let mut world = World::with_node();
    let reply: NodeUpdateResponse = world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", SECRET)).body();
    assert_eq!((reply.node_modify_index, reply.meta.index), (2, 2));
    assert_eq!(world.effects, [prove(), bind(), reset()]);
    assert_eq!(world.state.node(NODE).unwrap().status, NodeStatus::Ready);
    let writes = world.written.len();
    for _ in 0..3 {
        let reply: NodeUpdateResponse = world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", SECRET)).body();
        assert_eq!((reply.node_modify_index, reply.meta.index), (0, 0));
        assert_eq!(reply.heartbeat_ttl, 14_500_000_000);
        assert_eq!(world.effects, [prove(), bind(), reset()]);
    }
    assert_eq!(world.written.len(), writes);
    let mut with_event = heartbeat(NODE, "ready", SECRET);
    with_event.push(("NodeEvent", map(&[("Message", text("hello"))])));
    let reply: NodeUpdateResponse = world.call("Node.UpdateStatus", &with_event).body();
    assert_eq!(reply.meta.index, 3);
    assert_eq!(world.state.node(NODE).unwrap().events.last().unwrap().message, "hello");
}

#[test]
fn heartbeats_are_refused_without_proof() {
    for (id, status, token, error) in [
        ("", "ready", SECRET, "missing node ID for client status update"),
        (NODE, "", SECRET, "invalid status for node"),
        (NODE, "disconnected", SECRET, "invalid status for node"),
        // Nothing is shown: the agent registers again, with its secret.
        (NODE, "ready", "", "node not found"),
        // Something wrong is shown.
        (NODE, "ready", OTHER_SECRET, "Permission denied"),
        (NODE, "ready", "rubbish", "Permission denied"),
        (NODE, "ready", "a.b.c", "Permission denied"),
        // A node that is not there: whoever may have been it registers again.
        (OTHER, "ready", "", "node not found"),
        (OTHER, "ready", OTHER_SECRET, "node not found"),
        (OTHER, "ready", "rubbish", "Permission denied"),
    ] {
        let mut world = World::with_node();
        assert_eq!(world.call("Node.UpdateStatus", &heartbeat(id, status, token)).error(), error, "{id} {token}");
        assert_eq!((world.effects.len(), world.written.len()), (0, 1));
        // A connection of another node proves nothing.
        world.caller.proven_node = Some(OTHER.into());
        if id == NODE && status == "ready" {
            assert_eq!(world.call("Node.UpdateStatus", &heartbeat(id, status, token)).error(), error);
        }
    }
}

/// Agents of the 1.1 line send no token, and those of the 2.x line may send one of another cluster.
#[test]
fn a_proven_connection_is_enough() {
    let mut world = World::new();
    world.register(NODE, SECRET);
    assert_eq!(world.caller.proven_node.as_deref(), Some(NODE));
    for token in ["", "a.b.c", "rubbish", OTHER_SECRET] {
        let came = world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", token));
        assert!(matches!(came, Came::Body(_)), "{came:?}");
    }
}

#[test]
fn who_lost_leadership_resets_no_timer() {
    let mut world = World::with_node();
    world.ctx.is_leader = false;
    let error = "failed to reset heartbeat since server is not leader";
    assert_eq!(world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", SECRET)).error(), error);
    assert_eq!(world.register(NODE, SECRET).error(), error);
    assert_eq!(world.effects, []);
}

#[test]
fn client_allocs_prove_and_wait() {
    let ask = |secret: &str, token: &str, min: u64| {
        vec![
            ("NodeID", text(NODE)),
            ("SecretID", text(secret)),
            ("AuthToken", text(token)),
            ("MinQueryIndex", number(min)),
        ]
    };
    // Before it is registered, anybody is answered and nothing is proven.
    let mut world = World::new();
    let reply: NodeClientAllocsResponse = world.call("Node.GetClientAllocs", &ask(SECRET, "", 0)).body();
    assert_eq!(reply.meta.index, 1); // R1.84
    assert_eq!(world.effects, []);

    for (secret, token, error) in [
        ("", "", "missing node secret ID for client status update"),
        (OTHER_SECRET, "", "node secret ID does not match"),
        (OTHER_SECRET, OTHER_SECRET, "Permission denied"),
        ("", "rubbish", "Permission denied"),
    ] {
        let mut world = World::with_node();
        assert_eq!(world.call("Node.GetClientAllocs", &ask(secret, token, 0)).error(), error);
    }
    for (secret, token) in [(SECRET, ""), (SECRET, "rubbish"), ("", SECRET), (OTHER_SECRET, SECRET)] {
        let mut world = World::with_node();
        let came = world.call("Node.GetClientAllocs", &ask(secret, token, 0));
        let Came::Body(bytes) = &came else { panic!("{came:?}") };
        // Both maps are there, empty, not nil.
        assert!(bytes.starts_with(b"\x86\xa6Allocs\x80\xadMigrateTokens\x80\xa5Index\x01"), "{bytes:02x?}");
        assert_eq!(world.effects, [prove(), bind()]);
        let came = world.call("Node.GetClientAllocs", &ask(secret, token, 1));
        let keys = vec![crate::state::watch::WatchKey::node_allocs(NODE)];
        assert_eq!(came, Came::Park(Park { keys, max_query_time: Duration::ZERO, effects: vec![prove(), bind()] }));
        world.last_run = true; // R1.89
        assert_eq!(
            world.call("Node.GetClientAllocs", &ask(secret, token, 1)).body::<NodeClientAllocsResponse>().meta.index,
            1
        );
    }
    let mut world = World::new();
    assert_eq!(world.call("Node.GetClientAllocs", &[]).error(), "missing node ID");
}

#[test]
fn allocations_do_not_exist() {
    let alloc = |node: &str| map(&[("ID", text("07070707")), ("NodeID", text(node))]);
    let list = |items: &[Vec<u8>]| {
        let mut e = Encoder::new();
        e.array(items.len());
        items.iter().for_each(|item| e.raw(item));
        e.out
    };
    let ask = |items: &[Vec<u8>], evals: &[Vec<u8>], token: &str| {
        vec![("Alloc", list(items)), ("Evals", list(evals)), ("AuthToken", text(token))]
    };
    let mut world = World::with_node();
    for (fields, error) in [
        (ask(&[], &[], SECRET), "must update at least one allocation".to_owned()),
        (ask(&[alloc("")], &[], SECRET), "missing node ID".to_owned()),
        (ask(&[alloc(OTHER)], &[], SECRET), format!("node {OTHER} not found")),
        (ask(&[alloc(NODE)], &[], ""), "Permission denied".to_owned()),
        (ask(&[alloc(NODE)], &[], OTHER_SECRET), "Permission denied".to_owned()),
        (ask(&[alloc(NODE)], &[map(&[])], SECRET), "evals field must not be set".to_owned()),
        (ask(&[alloc(NODE)], &[], SECRET), "Unknown allocation \"07070707\"".to_owned()),
    ] {
        assert_eq!(world.call("Node.UpdateAlloc", &fields).error(), error);
    }
    world.call("Node.UpdateStatus", &heartbeat(NODE, "down", SECRET));
    let error = format!("node {NODE} is not allowed to update allocs while in status down");
    assert_eq!(world.call("Node.UpdateAlloc", &ask(&[alloc(NODE)], &[], SECRET)).error(), error);
}

#[test]
fn nodes_emit_events_of_their_own() {
    let events = |id: &str, messages: &[&str]| {
        let mut e = Encoder::new();
        e.array(messages.len());
        messages.iter().for_each(|message| e.raw(&map(&[("Message", text(message)), ("Subsystem", text("Driver"))])));
        map(&[(id, e.out)])
    };
    let ask = |events: Vec<u8>, token: &str| vec![("NodeEvents", events), ("AuthToken", text(token))];
    let mut world = World::with_node();
    world.register(OTHER, OTHER_SECRET);
    world.caller = World::connection();
    for (fields, error) in [
        (ask(map(&[]), SECRET), "no node events given".to_owned()),
        (ask(events(NODE, &[]), SECRET), format!("no node events given for node \"{NODE}\"")),
        (ask(events(NODE, &["x"]), ""), "Permission denied".to_owned()),
        (ask(events(NODE, &["x"]), OTHER_SECRET), "Permission denied".to_owned()),
        (ask(events("nobody", &["x"]), SECRET), "Permission denied".to_owned()),
    ] {
        assert_eq!(world.call("Node.EmitEvents", &fields).error(), error);
    }
    let before = world.state.node(NODE).unwrap().modify_index;
    let reply = world.call("Node.EmitEvents", &ask(events(NODE, &["hot"]), SECRET));
    assert_eq!(reply, Came::Body(b"\x81\xa5Index\x03".to_vec()));
    let node = world.state.node(NODE).unwrap();
    assert_eq!((node.events.last().unwrap().message.as_str(), node.modify_index), ("hot", before));
}

/// With certificates whose names are checked, only agents and servers of the region get through.
#[test]
fn certificates_must_name_an_agent_or_a_server() {
    let fields = [("NodeID", text(NODE)), ("SecretID", text(SECRET))];
    for (names, allowed) in [
        (None, false),
        (Some(vec!["cli.global.nomad"]), false),
        (Some(vec!["client.west.nomad"]), false),
        (Some(vec!["localhost", "client.global.nomad"]), true),
        (Some(vec!["server.global.nomad"]), true),
    ] {
        let mut world = World::with_node();
        let mut facts = ServerFacts::clone(&world.ctx.server);
        facts.verify_tls_names = true;
        world.ctx.server = Arc::new(facts);
        world.caller.tls_names = names.map(|names| names.into_iter().map(str::to_owned).collect());
        for method in ["Node.GetClientAllocs", "Node.EmitEvents", "Node.UpdateAlloc"] {
            let came = world.call(method, &fields);
            assert_eq!(came == Came::Error("Permission denied".to_owned()), !allowed, "{method} {came:?}");
        }
    }
}
