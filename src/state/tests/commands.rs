//! What each command but the drain's does, and what it refuses.

use super::*;
use crate::state::node::{MAX_EVENTS, NodeStatus};
use crate::wire::body::node::go_time;
use crate::wire::msgpack::Bytes;

fn seconds_at(index: u64) -> i64 {
    time_at(index) / 1_000_000_000
}

#[test]
fn a_new_node_gets_the_defaults() {
    let mut world = World::default();
    let applied = world.apply(sent("a").command());
    assert_eq!(applied.result, ApplyResult::Done);
    assert_eq!(applied.touched.keys, [WatchKey::nodes(), WatchKey::node("a")]);
    assert_eq!(kinds(&applied), ["NodeRegistration"]);
    let node = world.node("a");
    assert_eq!((node.create_index, node.modify_index), (1, 1));
    assert_eq!((node.status, node.eligible), (NodeStatus::Initializing, true));
    assert_eq!((&*node.node_pool, &*node.version, &*node.http_addr), ("default", "2.0.5", "127.0.0.1:4646"));
    assert_eq!(node.status_updated_at, seconds_at(1));
    assert!(node.computed_class.starts_with("v1:"));
    // The first event alone says index 0, and has whole seconds.
    let registered = NodeEvent {
        message: "Node registered".into(),
        subsystem: "Cluster".into(),
        details: None,
        timestamp: go_time(seconds_at(1) * 1_000_000_000),
        create_index: 0,
    };
    assert_eq!(node.events, [registered]);
    assert_eq!((world.state.nodes_index(), world.state.node_count()), (Index(1), 1));
    assert_eq!(world.state.node_by_secret("secret-a").map(|node| &*node.id), Some("a"));
    assert!(world.state.node_by_secret("secret-b").is_none());
}

#[test]
fn a_new_node_keeps_what_it_says_of_itself() {
    let said = sent("a").status("ready").with("NodePool", "gpu".to_owned()).with("NodeClass", "big".to_owned());
    let said = said.with("SchedulingEligibility", "ineligible".to_owned());
    let said = said.with("IdentitySigningKeyID", "k".to_owned()).with("StatusDescription", "d".to_owned());
    let world = World::of([said.command()]);
    let node = world.node("a");
    assert_eq!((&*node.node_pool, &*node.node_class, &*node.status_description), ("gpu", "big", "d"));
    assert_eq!((node.status, node.eligible, &*node.identity_signing_key_id), (NodeStatus::Ready, false, "k"));
}

#[test]
fn what_the_server_owns_does_not_come_from_agents() {
    let said = sent("a").with("CreateIndex", 77u64).with("ModifyIndex", 77u64).with("StatusUpdatedAt", 7i64);
    let said = said.with("LastMissedHeartbeatIndex", 7u64).with("Events", vec![NodeEvent::default()]);
    let said = said.with("DrainStrategy", DrainStrategy::default()).with("ComputedClass", "mine".to_owned());
    let world = World::of([said.command()]);
    assert_eq!(world.node("a"), World::of([sent("a").command()]).node("a"));
}

#[test]
fn a_known_node_keeps_what_the_server_owns() {
    let missed = NodeEvent { message: "Node heartbeat missed".into(), ..NodeEvent::default() };
    let down = Command::NodeUpdateStatus {
        node_id: "a".into(),
        status: "down".into(),
        event: Some(missed),
        updated_at: 0,
        identity_signing_key_id: "k1".into(),
        expected_modify_index: None,
    };
    let mut world = World::of([sent("a").command(), drain("a", Some(DrainStrategy::default()), false), down]);
    let before = world.node("a").clone();
    let applied = world.apply(sent("a").status("ready").with("NodeClass", "new".to_owned()).command());
    assert_eq!(kinds(&applied), ["NodeRegistration"]);
    let node = world.node("a");
    assert_eq!((&*node.node_class, node.status_updated_at), ("new", seconds_at(4)));
    assert_ne!(node.computed_class, before.computed_class);
    let mut expected = before.clone();
    expected.modify_index = 4;
    expected.node_class = "new".into();
    expected.computed_class = node.computed_class.clone();
    expected.status_updated_at = seconds_at(4);
    assert_eq!(*node, expected, "status down, events, drain, key and the first index stay");
}

#[test]
fn only_old_agents_register_their_status() {
    let cases = [
        // stored, version, said, then
        ("initializing", "1.1.2", "ready", NodeStatus::Ready),
        ("initializing", "1.1.18", "ready", NodeStatus::Ready),
        ("initializing", "0.12.12", "ready", NodeStatus::Ready),
        ("initializing", "1.2.0", "ready", NodeStatus::Initializing),
        ("initializing", "1.10.2", "ready", NodeStatus::Initializing),
        ("initializing", "2.0.5", "ready", NodeStatus::Initializing),
        ("initializing", "", "ready", NodeStatus::Initializing),
        ("initializing", "1", "ready", NodeStatus::Initializing),
        ("initializing", "one.1.2", "ready", NodeStatus::Initializing),
        ("ready", "1.1.2", "initializing", NodeStatus::Ready),
        ("ready", "1.1.2", "down", NodeStatus::Ready),
        ("ready", "1.1.2", "", NodeStatus::Ready),
        ("ready", "2.0.5", "initializing", NodeStatus::Ready),
        ("down", "1.1.2", "ready", NodeStatus::Down),
        ("down", "2.0.5", "ready", NodeStatus::Down),
    ];
    for (stored, version, said, then) in cases {
        let again = sent("a").version(version).status(said).command();
        let world = World::of([sent("a").command(), heartbeat("a", stored), again]);
        assert_eq!(world.node("a").status, then, "{stored} {version:?} {said}");
    }
}

#[test]
fn registrations_that_are_refused() {
    let mut world = World::of([sent("a").command()]);
    let mut stranger = sent("a");
    stranger.secret = "secret-b".into();
    // R8.21
    assert_eq!(world.refuse(stranger.command()), "node secret ID does not match. Not registering node.");
    assert_eq!(world.refuse(sent("b").status("disconnected").command()), "invalid status for node");
    assert_eq!(world.refuse(sent("").command()), "missing node ID for client registration");
    let unknown = Sent { secret: String::new(), ..sent("b") };
    assert_eq!(world.refuse(unknown.command()), "missing node secret ID for client registration");
    let mut deep = vec![0x91; 500];
    deep.push(0xc0);
    let malformed: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "EOF"),
        (vec![0xc0], "a node is a map"),
        (vec![0x93, 1, 2, 3], "got: 0x93"),
        (vec![0x81, 1, 2], "got: 0x01"),
        (b"\x81\xa2ID\x05".to_vec(), "got: 0x05"),
        (b"\x81\xa2ID\x91\xa1a".to_vec(), "got: 0x91"),
        (b"\x81\xa2ID\xa1\xff".to_vec(), "UTF-8"),
        (b"\x81\xa1\xff\xc0".to_vec(), "UTF-8"),
        (b"\x82\xa2ID\xa1a".to_vec(), "EOF"),
        (b"\x81\xa1x\xc0\xc0".to_vec(), "bytes after the node"),
        (b"\x81\xa1x\xd4\x01\x01".to_vec(), "no agent sends this"),
        (b"\x81\xa1x\x81\x90\x01".to_vec(), "no agent sends this"),
        (b"\x81\xaaAttributes\x81\xa1a\x80".to_vec(), "got: 0x80"),
        ([b"\x81\xa1x", &deep[..]].concat(), "nested too deeply"),
        ([b"\x81\xa6Events", &vec![0x91; 1200][..]].concat(), "nested too deeply"),
    ];
    for (bytes, words) in malformed {
        let why = world.refuse(Command::NodeRegister { node: Raw(bytes.clone().into()) });
        assert!(why.starts_with("node is malformed: ") && why.contains(words), "{why}, not {words}");
    }
    assert_eq!(world.state.index(), Index(20), "a refusal has an index too"); // R1.82
}

#[test]
fn classes_are_alike_but_for_what_is_unique() {
    let class = |said: Sent| World::of([said.command()]).state.nodes_from("").next().unwrap().computed_class.clone();
    let plain = class(sent("a"));
    assert_eq!(class(sent("b")), plain, "id, secret and unique attributes do not count");
    let unique = sent("a").with("Meta", texts(&[("unique.x", "1")]));
    assert_eq!(class(unique), plain);
    let moved = [
        class(sent("a").version("2.0.6")),
        class(sent("a").with("Meta", texts(&[("x", "1")]))),
        class(sent("a").with("NodeClass", "x".to_owned())),
        class(sent("a").with("Datacenter", "dc2".to_owned())),
    ];
    for other in moved {
        assert_ne!(other, plain);
    }
    assert_eq!(&*plain, "v1:2489499576387036498", "stable across builds");
}

#[test]
fn a_heartbeat_that_changes_the_status_is_written() {
    let mut world = World::of([sent("a").command()]);
    let applied = world.apply(heartbeat("a", "ready"));
    assert_eq!(kinds(&applied), ["NodeStreamEvent"]);
    assert_eq!(applied.touched.keys, [WatchKey::nodes(), WatchKey::node("a")]);
    let node = world.node("a");
    assert_eq!((node.status, node.modify_index, node.create_index), (NodeStatus::Ready, 2, 1));
    assert_eq!((messages(node), node.status_updated_at), (vec!["Node registered"], seconds_at(2)));

    world.apply(heartbeat("a", "down"));
    assert_eq!(world.node("a").last_missed_heartbeat_index, 3);
    world.apply(heartbeat("a", "down"));
    assert_eq!(world.node("a").last_missed_heartbeat_index, 3, "it was down already");
    world.apply(heartbeat("a", "initializing"));
    assert_eq!(world.node("a").last_missed_heartbeat_index, 3);
    world.apply(heartbeat("a", "ready"));
    let node = world.node("a");
    assert_eq!(node.last_missed_heartbeat_index, 0);
    assert_eq!(messages(node), ["Node registered", "Node reregistered by heartbeat"]);
    assert_eq!((&*node.events[1].subsystem, node.events[1].create_index), ("Cluster", 5));
    assert_eq!(node.events[1].timestamp, go_time(time_at(5)));
}

#[test]
fn a_heartbeat_brings_an_event_a_time_and_a_key() {
    let update = |expected: Option<u64>, key: &str| Command::NodeUpdateStatus {
        node_id: "a".into(),
        status: "down".into(),
        event: Some(NodeEvent { message: "Node heartbeat missed".into(), ..NodeEvent::default() }),
        updated_at: 42,
        identity_signing_key_id: key.into(),
        expected_modify_index: expected,
    };
    let mut world = World::of([sent("a").command()]);
    assert_eq!(world.refuse(update(Some(7), "")), "node was written meanwhile");
    world.apply(update(Some(1), "key"));
    let node = world.node("a");
    assert_eq!((node.status, node.status_updated_at, &*node.identity_signing_key_id), (NodeStatus::Down, 42, "key"));
    assert_eq!((messages(node), node.events[1].create_index), (vec!["Node registered", "Node heartbeat missed"], 3));
    assert_eq!(world.refuse(update(Some(1), "")), "node was written meanwhile");
    world.apply(update(None, ""));
    assert_eq!(&*world.node("a").identity_signing_key_id, "key", "an empty key keeps the old one");
}

#[test]
fn heartbeats_that_are_refused() {
    let mut world = World::of([sent("a").command()]);
    // Agents register again when they read these words.
    assert_eq!(world.refuse(heartbeat("b", "ready")), "node not found");
    assert_eq!(world.refuse(heartbeat("a", "disconnected")), "invalid status for node");
}

#[test]
fn nodes_go_all_or_none() {
    let mut world = World::of(["a", "b", "c"].map(|id| sent(id).command()));
    assert_eq!(world.refuse(deregister(&["a", "x"])), "node not found");
    assert_eq!(world.refuse(deregister(&[])), "missing node IDs for client deregistration");
    let applied = world.apply(deregister(&["c", "a", "c"]));
    assert_eq!(kinds(&applied), ["NodeDeregistration", "NodeDeregistration"]);
    assert_eq!(applied.touched.keys, [WatchKey::nodes(), WatchKey::node("a"), WatchKey::node("c")]);
    assert_eq!(world.state.nodes_index(), Index(6));
    assert_eq!(nodes(&world.state).iter().map(|node| &*node.id).collect::<Vec<_>>(), ["b"]);
    assert!(world.state.node_by_secret("secret-a").is_none());
    // An agent that was only purged comes back as a new node.
    world.apply(sent("a").command());
    assert_eq!((world.node("a").create_index, messages(world.node("a"))), (7, vec!["Node registered"]));
}

#[test]
fn eligibility_is_switched() {
    let mut world = World::of([sent("a").command()]);
    let before = world.state.digest();
    let applied = world.apply(eligibility("a", "eligible"));
    assert_eq!(applied, Applied::default(), "it was so already");
    assert_ne!(before, world.state.digest(), "the index moves on");
    assert_eq!(world.node("a").modify_index, 1);
    let applied = world.apply(eligibility("a", "ineligible"));
    assert_eq!(kinds(&applied), ["NodeEligibility"]);
    assert!(!world.node("a").eligible);
    world.apply(eligibility("a", "eligible"));
    let node = world.node("a");
    assert!(node.eligible);
    let expected =
        ["Node registered", "Node marked as ineligible for scheduling", "Node marked as eligible for scheduling"];
    assert_eq!((messages(node), &*node.events[1].subsystem), (expected.to_vec(), "Cluster"));
    assert_eq!((node.modify_index, node.status_updated_at), (4, seconds_at(4)));

    assert_eq!(world.refuse(eligibility("b", "eligible")), "node not found");
    assert_eq!(world.refuse(eligibility("a", "maybe")), "invalid scheduling eligibility \"maybe\"");
    world.apply(drain("a", Some(DrainStrategy::default()), false));
    let why = world.refuse(eligibility("a", "eligible"));
    assert_eq!(why, "can not set node's scheduling eligibility to eligible while it is draining");
}

#[test]
fn emitted_events_leave_the_node_unchanged() {
    let mut world = World::of([sent("a").command()]);
    let applied = world.apply(emit("a", &["one", "two"]));
    assert_eq!(kinds(&applied), ["NodeStreamEvent"]);
    assert_eq!(applied.touched.keys, [WatchKey::nodes()], "whoever waits for the node is not answered");
    let node = world.node("a");
    assert_eq!((node.modify_index, world.state.nodes_index()), (1, Index(2)));
    assert_eq!((node.events[1].create_index, node.events[2].create_index), (2, 2));
    assert_eq!(node.events[1].timestamp, go_time(time_at(2)), "an event without a time gets the entry's");
    let timed = NodeEvent { timestamp: Bytes(go_time(5).0), create_index: 99, ..NodeEvent::default() };
    world.apply(Command::NodeEmitEvents { events: [("a".to_owned(), vec![timed])].into() });
    let last = world.node("a").events.last().unwrap();
    assert_eq!((&last.timestamp, last.create_index), (&go_time(5), 3));
}

#[test]
fn events_beyond_the_tenth_go() {
    let mut world = World::of([sent("a").command()]);
    for round in 0..12 {
        world.apply(emit("a", &[&format!("round {round}")]));
    }
    assert_eq!(messages(world.node("a")).len(), MAX_EVENTS);
    assert_eq!(messages(world.node("a"))[0], "round 2");
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    world.apply(emit("a", &many.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(messages(world.node("a")), ["90", "91", "92", "93", "94", "95", "96", "97", "98", "99"]);
}

#[test]
fn emitted_events_that_are_refused() {
    let mut world = World::of([sent("a").command()]);
    assert_eq!(world.refuse(Command::NodeEmitEvents { events: BTreeMap::new() }), "no node events given");
    assert_eq!(world.refuse(emit("a", &[])), "no node events given for node \"a\"");
    let both =
        Command::NodeEmitEvents { events: ["a", "b"].map(|id| (id.to_owned(), vec![NodeEvent::default()])).into() };
    assert_eq!(world.refuse(both), "node not found");
}

#[test]
fn signing_keys_are_added_once() {
    let mut world = World::default();
    assert_eq!((world.state.signing_keys().len(), world.state.signing_keys_index()), (0, Index(0)));
    let applied = world.apply(signing_key("k"));
    assert_eq!((applied.touched.keys, applied.events), (vec![WatchKey::signing_keys()], vec![]));
    assert_eq!(world.apply(signing_key("k")), Applied::default());
    world.apply(signing_key("j2"));
    let ids: Vec<_> = world.state.signing_keys().iter().map(|key| (&*key.key_id, key.create_index)).collect();
    assert_eq!(ids, [("k", 1), ("j2", 3)], "newest last");
    assert_eq!(world.state.signing_keys_index(), Index(3));
    let short = Command::SigningKeyAdd { key_id: "s".into(), public_key: vec![1; 31], create_time: 0 };
    assert_eq!(world.refuse(short), "a signing key has an id and 32 bytes");
    assert_eq!(world.state.nodes_index(), Index(0));
}

#[test]
fn noop_and_time_move_on() {
    let mut world = World::default();
    assert_eq!(world.state.allocs_index(), Index(0));
    assert_eq!(world.apply(Command::Noop), Applied::default());
    assert_eq!((world.state.index(), world.state.time_unix_nanos()), (Index(1), time_at(1)));
    let early = Entry { time_unix_nanos: 5, session: None, command: Command::Noop };
    world.state.apply(Index(9), Term(2), &early);
    assert_eq!((world.state.index(), world.state.time_unix_nanos()), (Index(9), time_at(1)));
}

#[test]
fn a_clone_is_a_snapshot() {
    // R1.94: a reader's root never changes under it.
    let mut world = World::of([sent("a").command()]);
    let before = world.state.clone();
    world.apply(heartbeat("a", "ready"));
    world.apply(sent("b").command());
    assert_eq!((before.index(), before.node_count()), (Index(1), 1));
    assert_eq!(before.node("a").unwrap().status, NodeStatus::Initializing);
}

#[test]
fn two_ids_may_share_a_secret() {
    let twin = Sent { secret: "secret-a".into(), ..sent("b") };
    let mut world = World::of([twin.command(), sent("a").command()]);
    assert_eq!(world.state.node_by_secret("secret-a").map(|node| &*node.id), Some("a"));
    world.apply(deregister(&["a"]));
    assert_eq!(world.state.node_by_secret("secret-a").map(|node| &*node.id), Some("b"));
}

#[test]
fn nodes_are_listed_by_id() {
    let world = World::of(["b", "a", "c"].map(|id| sent(id).command()));
    let ids = |from: &str| world.state.nodes_from(from).map(|node| &*node.id).collect::<Vec<_>>();
    assert_eq!((ids(""), ids("b"), ids("bb"), ids("d")), (vec!["a", "b", "c"], vec!["b", "c"], vec!["c"], vec![]));
    assert_eq!(world.state.nodes_from("").next_back().map(|node| &*node.id), Some("c"));
}
