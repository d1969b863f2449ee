//! The table, and that no bytes make a handler panic.

use proptest::prelude::*;

use super::super::methods::{METHODS, STREAMING};
use super::acl_world::ROOT;
use super::*;

#[test]
fn tables_are_sorted_and_every_name_is_found() {
    for pair in METHODS.windows(2) {
        assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
    }
    for pair in STREAMING.windows(2) {
        assert!(pair[0].name < pair[1].name, "{} {}", pair[0].name, pair[1].name);
    }
    for known in METHODS {
        assert_eq!(method(known.name).unwrap().name, known.name);
    }
    for known in STREAMING {
        assert_eq!(streaming_method(known.name).unwrap().name, known.name);
    }
}

/// R1.47, and the whole name in the text (R1j).
#[test]
fn unknown_names_are_refused_in_the_words_of_net_rpc() {
    for (name, error) in [
        ("Status.Version", "rpc: can't find method Status.Version"),
        ("Nope.Nothing", "rpc: can't find service Nope.Nothing"),
        ("StatusPing", "rpc: service/method request ill-formed: StatusPing"),
        ("", "rpc: service/method request ill-formed: "),
        ("Status.", "rpc: can't find method Status."),
        ("A.Status.Ping", "rpc: can't find service A.Status.Ping"),
        ("status.ping", "rpc: can't find service status.ping"),
        ("Event.Stream", "rpc: can't find service Event.Stream"),
    ] {
        assert_eq!(method(name).unwrap_err(), UnknownMethod(error.to_owned()));
    }
    for name in ["Nope.Stream", "Agent.MonitorExport", "Operator.Snapshot", ""] {
        let error = format!("Unknown rpc method: \"{name}\"");
        assert_eq!(streaming_method(name).unwrap_err(), UnknownMethod(error));
    }
}

#[test]
fn heartbeats_and_access_are_marked() {
    let heartbeats: Vec<_> = METHODS.iter().filter(|m| m.heartbeat).map(|m| m.name).collect();
    assert_eq!(heartbeats, ["Node.Register", "Node.UpdateStatus"]);
    for (name, access) in [
        ("Status.Ping", Access::Local),
        ("Region.List", Access::Local),
        ("Status.Leader", Access::LocalRegion),
        ("Node.List", Access::Read),
        ("Node.Register", Access::Write),
        ("ClientStats.Stats", Access::AnyServer),
    ] {
        assert_eq!(method(name).unwrap().access, access, "{name}");
    }
}

/// Positions in decode errors count from where the body began on its stream.
#[test]
fn unreadable_arguments_close_the_stream() {
    let mut world = World::new();
    let body = map(&[("Region", map(&[]))]);
    for known in METHODS {
        let came = world.call_bytes(known.name, &body);
        let reads_region = !known.name.starts_with("ACL.") && matches!(known.access, Access::Read | Access::Write);
        if reads_region {
            let Came::BadArguments(text) = came else { panic!("{}: {came:?}", known.name) };
            assert!(text.starts_with("msgpack decode error [pos 109]: "), "{}: {text}", known.name);
        }
    }
    assert!(matches!(world.call_bytes("Status.Ping", b"\xa1x"), Came::BadArguments(_)));
    assert!(matches!(world.call_bytes("Node.UpdateStatus", b"\x81\xa6NodeID"), Came::BadArguments(_)));
}

#[test]
fn acls_are_off() {
    let mut world = World::new();
    for known in METHODS.iter().filter(|m| m.name.starts_with("ACL.")) {
        let came = world.call(known.name, &[("Region", text("global"))]);
        match known.name {
            "ACL.WhoAmI" => {
                let who: crate::wire::body::acl::WhoAmIResponse = came.body();
                let identity = who.identity.unwrap();
                assert_eq!(identity.acl_token.unwrap().accessor_id, "acls-disabled");
                assert_eq!(identity.remote_ip.0, [192, 0, 2, 7]);
                assert!(who.meta.index >= 1 && who.meta.known_leader);
            }
            "ACL.GetClaimPolicies" => assert_eq!(came.error(), "Permission denied"),
            _ => assert_eq!(came.error(), "RPC Error:: 400,ACL support disabled", "{}", known.name),
        }
    }
}

/// A value of any shape, as msgpack.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(vec![0xc0]),
        any::<bool>().prop_map(|b| b.to_bytes()),
        any::<u64>().prop_map(|n| n.to_bytes()),
        any::<i64>().prop_map(|n| n.to_bytes()),
        "\\PC{0,12}".prop_map(|s| s.to_bytes()),
        prop::sample::select(vec![
            NODE,
            SECRET,
            ROOT,
            "ready",
            "down",
            "*",
            "eligible",
            "a.b.c",
            "Status == ready",
            "set",
            "lock-acquire"
        ])
        .prop_map(text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| {
                let mut e = Encoder::new();
                e.array(items.len());
                items.iter().for_each(|item| e.raw(item));
                e.out
            }),
            prop::collection::vec((any_key(), inner), 0..6).prop_map(|pairs| {
                map(&pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect::<Vec<_>>())
            }),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known = vec![
        "NodeID",
        "NodeIDs",
        "Node",
        "ID",
        "SecretID",
        "Status",
        "NodeEvents",
        "NodeEvent",
        "Topics",
        "Index",
        "DrainStrategy",
        "Deadline",
        "Eligibility",
        "Alloc",
        "AllocID",
        "Evals",
        "Fields",
        "OS",
        "Prefix",
        "Filter",
        "PerPage",
        "NextToken",
        "Reverse",
        "MinQueryIndex",
        "MaxQueryTime",
        "AuthToken",
        "Region",
        "LogLevel",
        "Attributes",
        "Name",
        "Datacenter",
        "Meta",
        "Tokens",
        "Policies",
        "Roles",
        "ACLRoles",
        "AccessorID",
        "AccessorIDs",
        "ExpirationTime",
        "ExpirationTTL",
        "Rules",
        "Type",
        "Names",
        "Namespaces",
        "Namespace",
        "Op",
        "Ops",
        "Var",
        "Path",
        "Items",
        "Lock",
        "LockID",
        "TTL",
        "WaitTime",
        NODE,
    ];
    prop_oneof![8 => prop::sample::select(known).prop_map(str::to_owned), 1 => "\\PC{0,8}"]
}

/// A map as a call might bring it.
fn any_arguments() -> impl Strategy<Value = Vec<u8>> {
    (prop::collection::vec((any_key(), any_value()), 0..8), any::<bool>()).prop_map(|(mut pairs, by_root)| {
        if by_root {
            pairs.push(("AuthToken".to_owned(), text(ROOT)));
        }
        map(&pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect::<Vec<_>>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_a_handler_panic(
        wild in prop::collection::vec(any::<u8>(), 0..64),
        shaped in any_arguments(),
        cut in any::<prop::sample::Index>(),
        last_run: bool,
        acls: bool,
    ) {
        let mut world = if acls { World::with_acls() } else { World::with_node() };
        world.last_run = last_run;
        let short = &shaped[..cut.index(shaped.len())];
        for body in [wild.as_slice(), shaped.as_slice(), short, &[], &[0xc0], &[0x90]] {
            for known in METHODS {
                world.call_bytes(known.name, body);
            }
            for known in STREAMING {
                world.stream(known.name, body);
            }
        }
    }
}
