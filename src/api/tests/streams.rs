//! Streaming methods: what is opened and what is refused, and which events a filter lets through.

use super::super::outcome::{EventFilter, MonitorOptions, StreamOutcome};
use super::*;
use crate::state::events::Event;
use crate::wire::streaming::{EventStreamWrapper, StreamErrWrapper};

#[track_caller]
fn refused(outcome: StreamOutcome) -> (String, Option<i64>) {
    let StreamOutcome::Refuse(bytes) = outcome else { panic!("{outcome:?}") };
    let error = StreamErrWrapper::from_bytes(&bytes).unwrap().error.unwrap();
    (error.message, error.code)
}

#[test]
fn monitors_are_of_this_server_or_of_a_node() {
    let mut world = World::with_node();
    let second = ServerEntry {
        name: "second".to_owned(),
        id: "id-2".to_owned(),
        rpc_addr: "10.0.0.2:4647".to_owned(),
        datacenter: "dc1".to_owned(),
        voter: true,
        ..ServerEntry::default()
    };
    world.ctx.servers = world.ctx.servers.iter().cloned().chain([second]).collect();
    let ask = |level: &str, node: &str, server: &str, region: &str| {
        let fields = [
            ("LogLevel", text(level)),
            ("NodeID", text(node)),
            ("ServerID", text(server)),
            ("Region", text(region)),
            ("PlainText", truth(true)),
        ];
        world.stream("Agent.Monitor", &map(&fields))
    };
    let elsewhere = "this server is not second, which is reached at 10.0.0.2:4647";
    for (level, node, server, region, code, message) in [
        ("bogus", "", "", "global", 400, "Unknown log level".to_owned()),
        ("", OTHER, "", "global", 404, format!("Unknown node \"{OTHER}\"")),
        ("", "", "", "", 400, "missing target region".to_owned()),
        ("", "", "", "mars", 500, "No path to region".to_owned()),
        ("", "", "nobody", "global", 400, "unknown Nomad server nobody".to_owned()),
        ("", "", "second", "global", 400, elsewhere.to_owned()),
    ] {
        assert_eq!(refused(ask(level, node, server, region)), (message, Some(code)));
    }
    for (word, level) in [
        ("", log::Level::Info),
        ("TRACE", log::Level::Trace),
        ("debug", log::Level::Debug),
        ("Warn", log::Level::Warn),
        ("error", log::Level::Error),
    ] {
        for server in ["", "golden", "golden.global", "leader", &*world.ctx.server.id] {
            let options = MonitorOptions { level, json: false, plain: true, location: false };
            assert_eq!(ask(word, "", server, "global"), StreamOutcome::Monitor(options));
        }
    }
    let StreamOutcome::ToNode(call) = ask("debug", NODE, "", "") else { panic!() };
    assert_eq!((&*call.node_id, call.method.as_str()), (NODE, "Agent.Monitor"));
    assert_eq!(
        refused(StreamOutcome::Refuse(stream_error("Agent.Monitor", &call.no_path))),
        ("No path to node".into(), Some(404))
    );
}

#[test]
fn a_follower_does_not_pass_for_the_leader() {
    let mut world = World::new();
    world.ctx.is_leader = false;
    world.ctx.leader_rpc_addr = "10.0.0.9:4647".into();
    let ask = map(&[("ServerID", text("leader")), ("Region", text("global"))]);
    assert!(refused(world.stream("Agent.Monitor", &ask)).0.ends_with("reached at 10.0.0.9:4647"));
    world.ctx.leader_rpc_addr = "".into();
    assert_eq!(refused(world.stream("Agent.Monitor", &ask)).0, "No cluster leader");
}

#[test]
fn streams_of_allocations_are_refused() {
    let world = World::new();
    for method in ["FileSystem.Logs", "FileSystem.Stream", "Allocations.Exec"] {
        let ask = map(&[("AllocID", text("a1"))]);
        assert_eq!(refused(world.stream(method, &ask)), ("Unknown allocation \"a1\"".to_owned(), Some(404)));
        assert_eq!(refused(world.stream(method, &[0x80])), ("Missing allocation ID".to_owned(), Some(400)));
        assert_eq!(refused(world.stream(method, b"\x01")).1, Some(500));
    }
}

/// Topic and keys, as an argument.
fn topics(pairs: &[(&str, &[&str])]) -> Vec<u8> {
    let list = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>().to_bytes();
    map(&pairs.iter().map(|(topic, keys)| (*topic, list(keys))).collect::<Vec<_>>())
}

fn event(topic: &'static str, key: &str, namespace: &str) -> Event {
    Event {
        topic,
        kind: "NodeRegistration",
        key: key.into(),
        filter_keys: vec!["also".into()],
        namespace: namespace.into(),
        payload: crate::state::events::Payload::Node(Default::default()),
    }
}

#[test]
fn subscriptions_are_read() {
    let world = World::new();
    let filter = |fields: &[(&str, Vec<u8>)]| match world.stream("Event.Stream", &map(fields)) {
        StreamOutcome::Events(filter) => filter,
        other => panic!("{other:?}"),
    };
    let everything = EventFilter {
        topics: vec![("*".to_owned(), vec!["*".to_owned()])],
        namespace: "default".to_owned(),
        ..EventFilter::default()
    };
    assert_eq!(filter(&[]), everything);
    assert_eq!(filter(&[("Region", text("global")), ("Topics", topics(&[]))]), everything);
    let asked = filter(&[
        ("Topics", topics(&[("Node", &["a", "b"]), ("Nope", &[])])),
        ("Index", (-1i64).to_bytes()),
        ("Namespace", text("*")),
    ]);
    assert_eq!((asked.topics.len(), asked.index, asked.namespace.as_str()), (2, -1, "*"));

    let refused = |body: &[u8]| match world.stream("Event.Stream", body) {
        StreamOutcome::Refuse(bytes) => EventStreamWrapper::from_bytes(&bytes).unwrap().error.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&map(&[("Region", text("mars"))])).message, "No path to region");
    let keys: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
    let many: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(refused(&map(&[("Topics", topics(&[("Node", &many)]))])).code, Some(400));
    assert_eq!(refused(b"\x01").code, Some(500));
}

#[test]
fn filters_choose_events() {
    for (topics, namespace, event, wanted) in [
        (&[("*", &["*"][..])][..], "default", event("Node", NODE, ""), true),
        (&[("Node", &["*"])], "default", event("Node", NODE, ""), true),
        (&[("Node", &["x", NODE])], "default", event("Node", NODE, ""), true),
        (&[("Node", &["also"])], "default", event("Node", NODE, ""), true),
        (&[("*", &[NODE])], "default", event("Node", NODE, ""), true),
        (&[("Node", &["x"])], "default", event("Node", NODE, ""), false),
        (&[("Node", &[])], "default", event("Node", NODE, ""), false),
        (&[("Variable", &["*"])], "default", event("Node", NODE, ""), false),
        (&[("*", &["*"])], "default", event("Variable", "p", "other"), false),
        (&[("*", &["*"])], "other", event("Variable", "p", "other"), true),
        (&[("*", &["*"])], "*", event("Variable", "p", "other"), true),
        (&[], "*", event("Node", NODE, ""), false),
    ] {
        let topics = topics
            .iter()
            .map(|(topic, keys)| ((*topic).to_owned(), keys.iter().map(|key| (*key).to_owned()).collect()))
            .collect();
        let filter = EventFilter { topics, namespace: namespace.to_owned(), ..EventFilter::default() };
        assert_eq!(filter.matches(&event), wanted, "{filter:?}");
    }
}
