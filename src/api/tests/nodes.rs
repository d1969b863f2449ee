//! Reading nodes, and what operators do to them.

use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::keyring::ListPublicResponse;
use crate::wire::body::node_call::{
    NodeAllocsResponse, NodeChangeResponse, NodeListResponse, NodeUpdateResponse, SingleNodeResponse,
};
use crate::wire::body::status::{NodeConnQueryResponse, RaftStatsResponse, ServerMembersResponse};

fn id(nth: u32) -> String {
    format!("{nth:08x}-0001-0002-0003-00000000abcd")
}

/// With this many nodes, named from 0.
fn fleet(count: u32) -> World {
    let mut world = World::new();
    for nth in 0..count {
        world.register(&id(nth * 0x1000_0000), &format!("5ec7e700-0001-0002-0003-{nth:012x}"));
    }
    world.caller = World::connection();
    world
}

fn listed(world: &mut World, fields: &[(&str, Vec<u8>)]) -> (Vec<String>, String) {
    let reply: NodeListResponse = world.call("Node.List", fields).body();
    (reply.nodes.into_iter().map(|node| node.id).collect(), reply.meta.next_token)
}

#[test]
fn a_node_is_read_whole_and_without_its_secret() {
    let mut world = World::with_node();
    let reply: SingleNodeResponse = world.call("Node.GetNode", &[("NodeID", text(NODE))]).body();
    assert_eq!(reply.meta.index, 1);
    assert!(!reply.node.is_nil());
    let holds = |part: &[u8]| reply.node.0.windows(part.len()).any(|window| window == part);
    assert!(holds(b"\xa8MemoryMB") && holds(b"\xa8SecretID\xa0") && !holds(SECRET.as_bytes()));

    let reply: SingleNodeResponse = world.call("Node.GetNode", &[("NodeID", text(OTHER))]).body();
    assert!(reply.node.is_nil() && reply.meta.index == 1);
    for (node, error) in
        [("", "missing node ID"), ("a1b2", "node lookup failed: index error: UUID must be 36 characters")]
    {
        assert_eq!(world.call("Node.GetNode", &[("NodeID", text(node))]).error(), error);
    }
    let ask = |node: &str, min: u64| vec![("NodeID", text(node)), ("MinQueryIndex", number(min))];
    for node in [NODE, OTHER] {
        let Came::Park(park) = world.call("Node.GetNode", &ask(node, 1)) else { panic!() };
        assert_eq!(park.keys, [WatchKey::node(node)]);
    }
    let reply: SingleNodeResponse = World::new().call("Node.GetNode", &[("NodeID", text(NODE))]).body();
    assert_eq!(reply.meta.index, 1); // R1.84
}

/// R1.85 to R1.91
#[test]
fn queries_wait_until_there_is_something_newer() {
    let mut world = World::with_node();
    world.register(OTHER, OTHER_SECRET);
    let ask = |min: u64, time: i64| vec![("MinQueryIndex", number(min)), ("MaxQueryTime", time.to_bytes())];
    for (min, time, last_run, answered) in [
        (0, 5, false, true),
        (1, 0, false, true),
        (2, 0, false, false),
        (2, -3, false, false),
        (1 << 40, 2_000_000_000, false, false),
        (2, 2_000_000_000, true, true),
    ] {
        world.last_run = last_run;
        match world.call("Node.List", &ask(min, time)) {
            Came::Park(park) => {
                assert!(!answered);
                assert_eq!(park.keys, [WatchKey::nodes()]);
                assert_eq!(park.max_query_time, Duration::from_nanos(time.max(0).unsigned_abs()));
            }
            came => {
                assert!(answered);
                assert_eq!(came.body::<NodeListResponse>().meta.index, 2);
            }
        }
    }
}

/// R1.83
#[test]
fn followers_say_how_old_their_answer_may_be() {
    for (leads, since, known, contact, is_known) in [
        (true, Duration::from_secs(3), false, 0, true),
        (false, Duration::from_secs(3), true, 3_000_000_000, true),
        (false, Duration::MAX, false, i64::MAX, false),
    ] {
        let mut world = World::with_node();
        world.ctx.is_leader = leads;
        world.ctx.last_contact = since;
        world.ctx.known_leader = known;
        let reply: NodeListResponse = world.call("Node.List", &[]).body();
        assert_eq!((reply.meta.last_contact, reply.meta.known_leader), (contact, is_known));
    }
}

#[test]
fn lists_take_a_prefix_of_any_length() {
    let mut world = fleet(4);
    for (prefix, count) in [("", 4), ("2", 1), ("20", 1), ("200", 1), ("2000000-", 0), (&*id(0), 1), ("zz", 0)] {
        assert_eq!(listed(&mut world, &[("Prefix", text(prefix))]).0.len(), count, "{prefix}");
    }
}

#[test]
fn lists_come_in_pages() {
    let mut world = fleet(5);
    let all: Vec<String> = (0..5).map(|nth| id(nth * 0x1000_0000)).collect();
    for reverse in [false, true] {
        for size in 1..7 {
            let mut seen = Vec::new();
            let mut token = String::new();
            loop {
                let fields = [("PerPage", number(size)), ("NextToken", text(&token)), ("Reverse", truth(reverse))];
                let (page, next) = listed(&mut world, &fields);
                assert!(page.len() <= usize::try_from(size).unwrap());
                seen.extend(page);
                token = next;
                if token.is_empty() {
                    break;
                }
            }
            if reverse {
                seen.reverse();
            }
            assert_eq!(seen, all, "{size} {reverse}");
        }
    }
    // The token names the first node that was not returned, and does no harm when that is gone.
    let (page, token) = listed(&mut world, &[("PerPage", number(2))]);
    assert_eq!((page.len(), &token), (2, &all[2]));
    world.call("Node.Deregister", &[("NodeID", text(&token))]);
    let (page, _) = listed(&mut world, &[("PerPage", number(2)), ("NextToken", text(&token))]);
    assert_eq!(page, all[3..5]);
    // A page counts what the filter lets through.
    let fields = [("PerPage", number(1)), ("Filter", text(&format!("ID != \"{}\"", all[0])))];
    assert_eq!(listed(&mut world, &fields), (vec![all[1].clone()], all[3].clone()));
}

#[test]
fn items_hold_what_was_asked_for() {
    let mut world = World::with_node();
    let item = |world: &mut World, fields: Vec<u8>| {
        world.call("Node.List", &[("Fields", fields)]).body::<NodeListResponse>().nodes.remove(0)
    };
    let plain = item(&mut world, vec![0xc0]);
    assert_eq!((plain.address.as_str(), plain.version.as_str()), ("127.0.0.1", "2.0.5"));
    assert!(plain.attributes.is_none() && plain.node_resources.is_nil() && plain.reserved_resources.is_nil());
    assert!(!plain.drivers.is_nil() && plain.host_volumes.is_nil());
    let full = item(&mut world, map(&[("Resources", truth(true)), ("OS", truth(true))]));
    assert_eq!(full.attributes.unwrap(), [("os.name".to_owned(), "debian".to_owned())].into());
    assert!(!full.node_resources.is_nil() && !full.reserved_resources.is_nil());
}

#[test]
fn nodes_are_removed_all_or_none() {
    let mut world = fleet(3);
    let list = |ids: &[String]| vec![("NodeIDs", ids.to_vec().to_bytes())];
    for (method, fields, error) in [
        ("Node.Deregister", vec![], "missing node ID for client deregistration"),
        ("Node.BatchDeregister", vec![], "missing node IDs for client deregistration"),
        ("Node.Deregister", vec![("NodeID", text(NODE))], "node not found"),
        ("Node.BatchDeregister", list(&[id(0), NODE.to_owned()]), "node not found"),
    ] {
        assert_eq!(world.call(method, &fields).error(), error);
        assert_eq!(world.state.node_count(), 3);
    }
    let reply: NodeUpdateResponse = world.call("Node.BatchDeregister", &list(&[id(0), id(0)])).body();
    assert_eq!((reply.meta.index, reply.node_modify_index), (4, 4));
    assert_eq!((reply.servers, reply.leader_rpc_addr.as_str()), (None, ""));
    assert_eq!(world.effects, [Effect::ClearHeartbeat(id(0).into())]);
    world.call("Node.Deregister", &[("NodeID", text(&id(0x1000_0000)))]);
    assert_eq!(world.state.node_count(), 1);
}

#[test]
fn a_drain_ends_as_soon_as_it_began() {
    let mut world = World::with_node();
    let event = map(&[("Message", text("x"))]);
    for (fields, error) in [
        (vec![], "missing node ID for drain update"),
        (vec![("NodeID", text(NODE)), ("NodeEvent", event)], "node event must not be set"),
        (vec![("NodeID", text(OTHER))], "node not found"),
    ] {
        assert_eq!(world.call("Node.UpdateDrain", &fields).error(), error);
    }
    let strategy = map(&[("Deadline", number(3_600_000_000_000)), ("IgnoreSystemJobs", truth(true))]);
    let meta = texts(&[("why", "test")]);
    let reply: NodeChangeResponse =
        world.call("Node.UpdateDrain", &[("NodeID", text(NODE)), ("DrainStrategy", strategy), ("Meta", meta)]).body();
    assert_eq!((reply.node_modify_index, reply.meta.index), (2, 2));
    assert_eq!(world.written.len(), 3);
    let node = world.state.node(NODE).unwrap();
    let last = node.last_drain.as_ref().unwrap();
    assert!(node.drain.is_none() && !node.eligible);
    assert_eq!((last.status.as_str(), last.accessor_id.as_str()), ("complete", "token:acls-disabled"));
    assert_eq!(last.meta.as_ref().unwrap()["why"], "test");
    let messages: Vec<_> = node.events.iter().map(|event| event.message.as_str()).collect();
    assert_eq!(messages, ["Node registered", "Node drain strategy set", "Node drain complete"]);
}

#[test]
fn eligibility_is_written_when_it_changes() {
    let mut world = World::with_node();
    let ask = |word: &str| vec![("NodeID", text(NODE)), ("Eligibility", text(word))];
    let event = map(&[("Message", text("x"))]);
    for (fields, error) in [
        (vec![], "missing node ID for setting scheduling eligibility"),
        (vec![("NodeID", text(NODE)), ("NodeEvent", event)], "node event must not be set"),
        (ask("maybe"), "invalid scheduling eligibility \"maybe\""),
        (vec![("NodeID", text(OTHER)), ("Eligibility", text("eligible"))], "node not found"),
    ] {
        assert_eq!(world.call("Node.UpdateEligibility", &fields).error(), error);
    }
    for (word, index, writes) in [("eligible", 0, 1), ("ineligible", 2, 2), ("ineligible", 0, 2), ("eligible", 3, 3)] {
        let reply: NodeChangeResponse = world.call("Node.UpdateEligibility", &ask(word)).body();
        assert_eq!((reply.node_modify_index, reply.meta.index, world.written.len()), (0, index, writes), "{word}");
    }
    let command = Command::NodeUpdateDrain {
        node_id: NODE.to_owned(),
        strategy: Some(crate::wire::body::node::DrainStrategy::default()),
        mark_eligible: false,
        meta: std::collections::BTreeMap::new(),
        accessor_id: String::new(),
    };
    world.write(command);
    let error = "can not set node's scheduling eligibility to eligible while it is draining";
    assert_eq!(world.call("Node.UpdateEligibility", &ask("eligible")).error(), error);
}

#[test]
fn evaluate_writes_nothing() {
    let mut world = World::with_node();
    assert_eq!(world.call("Node.Evaluate", &[]).error(), "missing node ID for evaluation");
    assert_eq!(world.call("Node.Evaluate", &[("NodeID", text(OTHER))]).error(), "node not found");
    let reply: NodeUpdateResponse = world.call("Node.Evaluate", &[("NodeID", text(NODE))]).body();
    assert_eq!((reply.meta.index, reply.num_nodes, reply.heartbeat_ttl), (0, 1, 0));
    assert_eq!(reply.servers.unwrap().len(), 1);
    assert_eq!((world.written.len(), world.effects.len()), (1, 0));
}

#[test]
fn allocations_of_a_node_are_none() {
    let mut world = World::with_node();
    assert_eq!(world.call("Node.GetAllocs", &[]).error(), "missing node ID");
    let reply: NodeAllocsResponse = world.call("Node.GetAllocs", &[("NodeID", text(NODE))]).body();
    assert_eq!((reply.allocs, reply.meta.index), (None, 1));
    let fields = [("NodeID", text(NODE)), ("MinQueryIndex", number(1))];
    assert!(matches!(world.call("Node.GetAllocs", &fields), Came::Park(_)));
}

#[test]
fn public_keys_can_be_waited_for() {
    let mut world = World::new();
    let reply: ListPublicResponse = world.call("Keyring.ListPublic", &[]).body();
    assert_eq!((reply.public_keys.len(), reply.meta.index), (0, 1));
    let ask = [("MinQueryIndex", number(1))];
    let Came::Park(park) = world.call("Keyring.ListPublic", &ask) else { panic!() };
    assert_eq!(park.keys, [WatchKey::signing_keys()]);
    world.write(Command::Noop);
    world.write(Command::SigningKeyAdd { key_id: NODE.to_owned(), public_key: vec![7; 32], create_time: 9 });
    let reply: ListPublicResponse = world.call("Keyring.ListPublic", &ask).body();
    let key = &reply.public_keys[0];
    assert_eq!((key.key_id.as_str(), key.public_key.0.len(), key.create_time), (NODE, 32, 9));
    assert_eq!((key.algorithm.as_str(), key.usage.as_str(), reply.meta.index), ("EdDSA", "sig", 2));
}

#[test]
fn status_tells_members_and_raft() {
    let mut world = World::new();
    let other = ServerEntry {
        name: "second".to_owned(),
        id: "x".to_owned(),
        rpc_addr: "[2001:db8::1]:4647".to_owned(),
        datacenter: "dc2".to_owned(),
        voter: false,
        is_member: true,
        ..ServerEntry::default()
    };
    world.ctx.servers = world.ctx.servers.iter().cloned().chain([other]).collect();
    let reply: ServerMembersResponse = world.call("Status.Members", &[]).body();
    let second = &reply.members[1];
    assert_eq!((second.name.as_str(), second.addr.0.len(), second.port), ("second.global", 16, 4647));
    for (tag, value) in [("port", "4647"), ("rpc_addr", "2001:db8::1"), ("dc", "dc2"), ("nonvoter", "1")] {
        assert_eq!(second.tags[tag], value);
    }
    assert!(!reply.members[0].tags.contains_key("nonvoter"));
    let peers: Vec<String> = world.call("Status.Peers", &[]).body();
    assert_eq!(peers, ["127.0.0.1:24647", "[2001:db8::1]:4647"]);

    for (leads, since, told) in
        [(true, Duration::MAX, "0"), (false, Duration::MAX, "never"), (false, Duration::from_millis(1500), "1.5s")]
    {
        world.ctx.is_leader = leads;
        world.ctx.last_contact = since;
        let reply: RaftStatsResponse = world.call("Status.RaftStats", &[]).body();
        assert_eq!((reply.last_contact.as_str(), reply.last_term, reply.last_index), (told, 2, 77));
    }

    assert_eq!(world.call("Status.HasNodeConn", &[]).error(), "Must provide the NodeID");
    let fields = [("NodeID", text(NODE))];
    let reply: NodeConnQueryResponse = world.call("Status.HasNodeConn", &fields).body();
    assert_eq!((reply.connected, reply.established), (false, crate::wire::body::node::go_zero_time()));
    world.ctx.node_conn_established = Some(world.ctx.wall);
    let reply: NodeConnQueryResponse = world.call("Status.HasNodeConn", &fields).body();
    assert_eq!((reply.connected, reply.established), (true, crate::wire::body::node::go_time(NOW)));
}

#[test]
fn calls_for_a_node_are_checked_and_passed_on() {
    let mut world = World::with_node();
    for (id, version) in [("v-none", ""), ("v-odd", "nightly"), ("v-old", "0.7.1")] {
        let node = node_map(id, SECRET, version);
        world.call("Node.Register", &[("Node", node)]);
    }
    for (method, id, error) in [
        ("ClientStats.Stats", "", "missing NodeID".to_owned()),
        ("ClientStats.Stats", OTHER, format!("Unknown node {OTHER}")),
        ("NodeMeta.Read", "v-none", "Unable to determine Nomad version".to_owned()),
        ("NodeMeta.Apply", "v-odd", "Unable to determine Nomad version".to_owned()),
        ("NodeIdentity.Get", "v-old", "Node does not support RPC; requires 0.8 or later".to_owned()),
        ("Agent.Host", OTHER, format!("RPC Error:: 404,Unknown node \"{OTHER}\"")),
        ("Agent.Profile", "v-old", "RPC Error:: 400,Node does not support RPC; requires 0.8 or later".to_owned()),
        ("ClientAllocations.GarbageCollectAll", "", "missing NodeID".to_owned()),
    ] {
        assert_eq!(world.call(method, &[("NodeID", text(id))]).error(), error);
    }
    for (method, on_node, no_path) in [
        ("ClientStats.Stats", "ClientStats.Stats", "No path to node"),
        ("NodeMeta.Apply", "NodeMeta.Apply", "No path to node"),
        ("NodeMeta.Read", "NodeMeta.Read", "No path to node"),
        ("NodeIdentity.Get", "NodeIdentity.Get", "No path to node"),
        ("NodeIdentity.Renew", "NodeIdentity.Renew", "No path to node"),
        ("ClientAllocations.GarbageCollectAll", "Allocations.GarbageCollectAll", "No path to node"),
        ("Agent.Host", "Agent.Host", "RPC Error:: 404,No path to node"),
    ] {
        let body = map(&[("NodeID", text(NODE)), ("Extra", number(5))]);
        let expected = ToNode {
            node_id: NODE.into(),
            method: on_node.to_owned(),
            body: body.clone().into(),
            no_path: no_path.to_owned(),
        };
        assert_eq!(world.call_bytes(method, &body), Came::ToNode(expected));
    }
    for method in ["ClientAllocations.Stats", "ClientAllocations.Restart", "FileSystem.List"] {
        let came = world.call(method, &[("AllocID", text("a1"))]);
        assert_eq!(came.error(), "Unknown allocation \"a1\"");
        assert_eq!(world.call(method, &[]).error(), "Missing allocation ID");
    }
}
