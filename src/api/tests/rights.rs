//! Who may call what: every method of the table, for every kind of caller.
//!
//! One file over five hundred lines: it is one table, a row a method.

use super::super::access::{Identity, identify};
use super::super::methods::{METHODS, STREAMING};
use super::acl_world::*;
use super::*;
use crate::wire::body::acl::WhoAmIResponse;
use crate::wire::body::node_call::{NodeClientAllocsResponse, NodeUpdateResponse};

/// What a method wants.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wants {
    /// Nothing: it tells what everybody may know, or nothing is behind it.
    Nothing,
    /// A proof that the caller is a node, in its own way.
    Proof,
    /// A token that is known, whatever it allows.
    Token,
    /// A token that is known; what it answers is cut down to what the caller may see.
    CutDown,
    /// A right that only this part of the rules gives: `node`, `agent`, `operator`, `namespace`.
    Rule(&'static str),
    /// A management token.
    Management,
}

/// One row for each method. A method without a row fails the test.
fn wants(name: &str) -> Wants {
    use Wants::{CutDown, Management, Nothing, Proof, Rule};
    match name {
        "Status.Ping" | "Status.Leader" | "Status.Peers" | "Status.RaftStats" | "Status.HasNodeConn"
        | "Region.List" | "Keyring.ListPublic" | "ACL.Bootstrap" | "ACL.ResolveToken" => Nothing,
        // Nothing is behind these; the last refuses everybody.
        "ACL.CreateClientIntroductionToken"
        | "ACL.DeleteAuthMethods"
        | "ACL.DeleteBindingRules"
        | "ACL.ExchangeOneTimeToken"
        | "ACL.ExpireOneTimeTokens"
        | "ACL.GetAuthMethod"
        | "ACL.GetAuthMethods"
        | "ACL.GetBindingRule"
        | "ACL.GetBindingRules"
        | "ACL.Login"
        | "ACL.OIDCAuthURL"
        | "ACL.OIDCCompleteAuth"
        | "ACL.UpsertAuthMethods"
        | "ACL.UpsertBindingRules"
        | "ACL.UpsertOneTimeToken"
        | "ACL.GetClaimPolicies" => Nothing,
        "Session.Open" => Wants::Token,
        // The key of a session.
        "Session.Close" | "Session.KeepAlive" | "Session.Outcome" => Proof,
        "Node.EmitEvents" | "Node.GetClientAllocs" | "Node.Register" | "Node.UpdateAlloc" | "Node.UpdateStatus" => {
            Proof
        }
        "ACL.WhoAmI"
        | "ACL.ListAuthMethods"
        | "ACL.ListPolicies"
        | "ACL.ListRoles"
        | "Namespace.ListNamespaces"
        | "Variables.List"
        | "Holdfast.LockList"
        | "Search.PrefixSearch" => CutDown,
        "ACL.DeletePolicies"
        | "ACL.DeleteRolesByID"
        | "ACL.DeleteTokens"
        | "ACL.GetPolicies"
        | "ACL.GetPolicy"
        | "ACL.GetRoleByID"
        | "ACL.GetRoleByName"
        | "ACL.GetRolesByID"
        | "ACL.GetToken"
        | "ACL.GetTokens"
        | "ACL.ListBindingRules"
        | "ACL.ListTokens"
        | "ACL.UpsertPolicies"
        | "ACL.UpsertRoles"
        | "ACL.UpsertTokens"
        | "Namespace.DeleteNamespaces"
        | "Namespace.GetNamespaces"
        | "Namespace.UpsertNamespaces"
        | "Operator.RaftGetConfiguration"
        | "Operator.RaftRemovePeerByAddress"
        | "Operator.RaftRemovePeerByID"
        | "Operator.TransferLeadershipToPeer"
        | "Operator.SnapshotRestore" => Management,
        "Agent.Host" | "Agent.Profile" | "Agent.Monitor" | "Holdfast.AgentSelf" | "Holdfast.Reload" => Rule("agent"),
        "ClientAllocations.GarbageCollectAll"
        | "ClientStats.Stats"
        | "NodeIdentity.Get"
        | "NodeIdentity.Renew"
        | "NodeMeta.Apply"
        | "NodeMeta.Read"
        | "Node.BatchDeregister"
        | "Node.Deregister"
        | "Node.Evaluate"
        | "Node.GetAllocs"
        | "Node.GetNode"
        | "Node.List"
        | "Node.UpdateDrain"
        | "Node.UpdateEligibility"
        | "Status.Members"
        | "Event.Stream" => Rule("node"),
        "Holdfast.Connections"
        | "Keyring.Delete"
        | "Keyring.List"
        | "Keyring.Rotate"
        | "Operator.SnapshotSave"
        | "Operator.AutopilotGetConfiguration"
        | "Operator.AutopilotSetConfiguration"
        | "Operator.SchedulerGetConfiguration"
        | "Operator.SchedulerSetConfiguration"
        | "Operator.ServerHealth"
        | "Session.List" => Rule("operator"),
        "Namespace.GetNamespace"
        | "Variables.Apply"
        | "Variables.Read"
        | "Variables.RenewLock"
        | "Holdfast.LockBreak"
        | "Holdfast.LockRead"
        | "Holdfast.VariablesTxn"
        | "Allocations.Exec" => Rule("namespace"),
        _ if name.starts_with("ClientAllocations.") || name.starts_with("FileSystem.") => Rule("namespace"),
        _ => panic!("{name} has no row"),
    }
}

/// Arguments with which each method gets to the point where it looks who is calling, and beyond.
fn arguments_of(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let var = map(&[("Path", text("planted/var")), ("Items", texts(&[("k", "v")]))]);
    let mut fields = vec![
        ("NodeID", text(NODE)),
        ("NodeIDs", list_of(&[NODE])),
        ("Namespace", text("default")),
        ("Path", text("planted/var")),
        ("LockID", text("planted")),
        ("Op", text("set")),
        ("Var", var.clone()),
        ("Ops", list(&[map(&[("Op", text("set")), ("Var", var)])])),
        ("Name", text("planted")),
        ("AccessorID", text(ROOT_ACCESSOR)),
        ("AccessorIDs", list_of(&[ROOT_ACCESSOR])),
        ("AccessorIDS", list_of(&[ROOT_ACCESSOR])),
        ("Names", list_of(&["planted"])),
        ("RoleID", text("planted")),
        ("RoleName", text("planted")),
        ("ACLRoleIDs", list_of(&["planted"])),
        ("Eligibility", text("ineligible")),
        ("Topics", map(&[("Node", list_of(&["*"]))])),
    ];
    if name == "Namespace.GetNamespaces" {
        fields.push(("Namespaces", list_of(&["planted"])));
    }
    fields
}

/// With things that nobody may see who is not allowed to.
fn planted() -> World {
    let mut world = World::with_acls();
    world.write_policy("planted", "");
    world.write_role("planted", "planted", &["planted"]);
    let namespace = crate::wire::body::namespace::Namespace { name: "planted".to_owned(), ..Default::default() };
    world.write(Command::NamespaceUpsert { namespaces: vec![namespace] });
    world
}

fn is_denied(came: &Came) -> bool {
    matches!(came, Came::Error(text) if text.ends_with(DENIED))
}

/// No token, and tokens that are nobody's or allow nothing.
#[test]
fn no_method_is_reached_without_a_right() {
    for known in METHODS {
        let mut world = planted();
        let weak = world.write_token(1, &["none"], &["none"], 0);
        let over = world.write_token(2, &["none"], &[], 1);
        world.ctx.wall = WallTime::from_unix_nanos(NOW + 1_000_000_000);
        let before = world.written.len();
        let arguments = arguments_of(known.name);
        let wants = wants(known.name);
        for bad in [NOBODY, over.as_str(), "rubbish", "a.b.c", "e30.e30.e30"] {
            let came = world.call_as(bad, known.name, &arguments);
            match wants {
                Wants::Nothing | Wants::Proof => {}
                // Says why.
                Wants::CutDown if known.name == "ACL.WhoAmI" => assert!(matches!(came, Came::Error(_)), "{came:?}"),
                _ if matches!(known.name, "ACL.GetToken" | "ACL.GetTokens") => {
                    assert!(matches!(came, Came::Error(_)), "{came:?}");
                }
                _ => assert!(is_denied(&came), "{} {bad}: {came:?}", known.name),
            }
        }
        for token in ["", &weak] {
            let came = world.call_as(token, known.name, &arguments);
            match wants {
                Wants::Nothing | Wants::Proof => {}
                Wants::Token => assert_eq!(is_denied(&came), token.is_empty(), "{}: {came:?}", known.name),
                Wants::CutDown => {
                    let Came::Body(bytes) = &came else { panic!("{}: {came:?}", known.name) };
                    assert!(!String::from_utf8_lossy(bytes).contains("planted"), "{}", known.name);
                }
                _ => assert!(is_denied(&came), "{} {token:?}: {came:?}", known.name),
            }
        }
        if !matches!(wants, Wants::Nothing | Wants::Token) {
            assert_eq!(world.written.len(), before, "{}", known.name);
        }
    }
}

#[test]
fn the_right_rule_opens_a_method_and_all_others_do_not() {
    for known in METHODS {
        let wanted = wants(known.name);
        let (rule, others) = match wanted {
            Wants::Rule(rule) => (rule, all_rules_but(rule)),
            Wants::Management => ("", all_rules_but("")),
            _ => continue,
        };
        let arguments = arguments_of(known.name);
        let mut world = planted();
        let lacking = world.token_with(1, &others);
        let came = world.call_as(&lacking, known.name, &arguments);
        assert!(is_denied(&came), "{}: {came:?}", known.name);
        if !rule.is_empty() {
            let whole = all_rules_but("");
            let having = world.token_with(2, &whole);
            let came = world.call_as(&having, known.name, &arguments);
            assert!(!is_denied(&came), "{}: {came:?}", known.name);
        }
        let mut world = planted();
        let came = world.call_as(ROOT, known.name, &arguments);
        assert!(!is_denied(&came), "{}: {came:?}", known.name);
    }
}

/// Reading needs read, and writing more than that.
#[test]
fn read_is_less_than_write() {
    let read = "node {\n policy = \"read\"\n}\nagent {\n policy = \"read\"\n}\noperator {\n policy = \"read\"\n}\n";
    for (method, allowed) in [
        ("Node.List", true),
        ("Node.GetNode", true),
        ("Node.GetAllocs", true),
        ("Status.Members", true),
        ("ClientStats.Stats", true),
        ("NodeMeta.Read", true),
        ("NodeIdentity.Get", true),
        ("Agent.Host", true),
        ("Holdfast.Connections", true),
        ("Node.Deregister", false),
        ("Node.BatchDeregister", false),
        ("Node.Evaluate", false),
        ("Node.UpdateDrain", false),
        ("Node.UpdateEligibility", false),
        ("NodeMeta.Apply", false),
        ("NodeIdentity.Renew", false),
        ("ClientAllocations.GarbageCollectAll", false),
        ("Agent.Profile", false),
    ] {
        let mut world = planted();
        let token = world.token_with(1, read);
        let came = world.call_as(&token, method, &arguments_of(method));
        assert_eq!(is_denied(&came), !allowed, "{method}: {came:?}");
    }
}

#[test]
fn streams_are_refused_without_a_right() {
    let mut world = planted();
    for known in STREAMING {
        let rule = match wants(known.name) {
            Wants::Rule(rule) => rule,
            _ => "",
        };
        let lacking = world.token_with(1, &all_rules_but(rule));
        let having = world.token_with(2, &all_rules_but(""));
        for (token, allowed) in [
            ("", false),
            (NOBODY, false),
            ("rubbish", false),
            (&*lacking, false),
            (&*having, !rule.is_empty()),
            (ROOT, true),
        ] {
            let mut fields = arguments_of(known.name);
            fields.extend([("AuthToken", text(token)), ("Region", text("global"))]);
            let outcome = world.stream(known.name, &map(&fields));
            let denied = matches!(&outcome, outcome::StreamOutcome::Refuse(bytes)
                if String::from_utf8_lossy(bytes).contains(DENIED));
            assert_eq!(denied, !allowed, "{} {token}: {outcome:?}", known.name);
        }
    }
}

/// With ACLs off a token is not even looked at.
#[test]
fn acls_off_lets_everybody_in() {
    for token in ["", NOBODY, "rubbish", "a.b.c"] {
        let mut world = World::with_node();
        for method in ["Node.List", "Status.Members", "Node.GetAllocs", "Holdfast.Connections"] {
            assert!(matches!(world.call_as(token, method, &arguments_of(method)), Came::Body(_)));
        }
    }
}

#[test]
fn callers_are_told_apart() {
    let mut world = World::with_acls();
    world.write_policy("own", "node {\n policy = \"read\"\n}");
    world.write_policy("of-role", "agent {\n policy = \"read\"\n}");
    world.write_role("r1", "role-1", &["of-role", "gone"]);
    let token = world.write_token(1, &["own", "gone", "own"], &["r1", "gone"], 0);
    let who = |world: &World, token: &str| identify(token, &world.state, &world.ctx);
    let known = who(&world, &token).unwrap();
    assert_eq!(known.policy_names(&world.state), ["gone", "of-role", "own"]);
    assert!(known.acl.node_read() && known.acl.agent_read() && !known.acl.node_write() && !known.acl.management);
    assert_eq!((known.accessor(), known.subject()), (accessor(1), format!("token:{}", accessor(1))));
    assert!(known.holds_role("r1") && !known.holds_role("r2"));
    let root = who(&world, ROOT).unwrap();
    assert!(root.acl.management && root.node(&world.state).is_none());
    let node = who(&world, SECRET).unwrap();
    assert_eq!((node.subject(), node.acl.node_read()), (format!("client:{NODE}"), false));
    assert_eq!(*node.node(&world.state).unwrap().id, *NODE);

    // A secret never shows, whoever is asked how a caller looks.
    for (known, secret) in [(&known, token.as_str()), (&root, ROOT), (&node, SECRET)] {
        assert!(!format!("{known:?}").contains(secret), "{known:?}");
    }
    // What is taken away counts at once.
    world.write(Command::AclDeletePolicies { names: vec!["own".to_owned()] });
    assert!(!who(&world, &token).unwrap().acl.node_read());
    world.write(Command::AclDeleteRoles { ids: vec!["r1".to_owned()] });
    assert!(!who(&world, &token).unwrap().acl.agent_read());
    world.write(Command::AclDeleteTokens { accessor_ids: vec![accessor(1)] });
    assert!(who(&world, &token).is_err());
}

#[test]
fn whoever_shows_nothing_has_the_policy_anonymous() {
    let mut world = World::with_acls();
    assert_eq!(world.call_as("", "Node.List", &[]).error(), DENIED);
    world.write_policy("anonymous", "node {\n policy = \"read\"\n}");
    assert!(matches!(world.call_as("", "Node.List", &[]), Came::Body(_)));
    assert_eq!(world.call_as("", "Node.Deregister", &arguments_of("")).error(), DENIED);
    // Nor does a token that is known nothing of get it.
    assert_eq!(world.call_as(NOBODY, "Node.List", &[]).error(), DENIED);
    assert!(matches!(identify("", &world.state, &world.ctx).unwrap().identity, Identity::Anonymous));
}

#[test]
fn a_token_ends_at_its_time() {
    let mut world = World::with_acls();
    world.write_policy("p", "node {\n policy = \"read\"\n}");
    let token = world.write_token(1, &["p"], &[], 60);
    for (seconds, allowed) in [(0, true), (59, true), (60, false), (61, false)] {
        world.ctx.wall = WallTime::from_unix_nanos(NOW + seconds * 1_000_000_000);
        let came = world.call_as(&token, "Node.List", &[]);
        assert_eq!(is_denied(&came), !allowed, "{seconds}");
        for method in ["ACL.WhoAmI", "ACL.GetToken", "ACL.GetTokens"] {
            let came = world.call_as(&token, method, &[("AccessorID", text(&accessor(1)))]);
            match (allowed, method) {
                (false, _) => assert_eq!(came.error(), "ACL token expired", "{method}"),
                (true, "ACL.GetTokens") => assert_eq!(came.error(), DENIED),
                (true, _) => assert!(matches!(came, Came::Body(_)), "{method}: {came:?}"),
            }
        }
    }
}

#[test]
fn who_am_i_says_it_or_says_why_not() {
    let mut world = World::with_acls();
    world.write_policy("p", "");
    world.write_role("r1", "role-1", &["p"]);
    let token = world.write_token(1, &["p"], &["r1", "gone"], 0);
    let who = |world: &mut World, token: &str| {
        let reply: WhoAmIResponse = world.call_as(token, "ACL.WhoAmI", &[]).body();
        (reply.identity.unwrap(), reply.meta.index)
    };
    let (identity, index) = who(&mut world, &token);
    let shown = identity.acl_token.unwrap();
    assert_eq!((shown.accessor_id, shown.secret_id, index), (accessor(1), token, shown.modify_index));
    let roles: Vec<_> = shown.roles.unwrap().into_iter().map(|role| (role.id, role.name)).collect();
    assert_eq!(roles, [("r1".to_owned(), "role-1".to_owned())]);
    let (identity, index) = who(&mut world, "");
    let shown = identity.acl_token.unwrap();
    assert_eq!((&*shown.accessor_id, &*shown.name, &*shown.kind), ("anonymous", "Anonymous Token", "client"));
    assert_eq!((shown.policies, shown.secret_id, index), (Some(vec!["anonymous".to_owned()]), String::new(), 1));
    let (identity, _) = who(&mut world, SECRET);
    assert_eq!((identity.acl_token, identity.client_id), (None, NODE.to_owned()));
    let no_form = "failed to parse signed token: go-jose/go-jose: compact JWS format must have three parts";
    for (token, reason) in [
        (NOBODY, DENIED),
        ("rubbish", no_form),
        ("a.b", no_form),
        ("a.b.c", "failed to verify signed token: not a valid identity of a registered node"),
    ] {
        assert_eq!(world.call_as(token, "ACL.WhoAmI", &[]).error(), reason, "{token}");
        assert_eq!(world.call_as(token, "Node.List", &[]).error(), DENIED, "{token}");
    }
}

/// R1.26: agents of both lines go on with ACLs on. One of the 1.1 line sends no token at all.
#[test]
fn agents_need_no_token_of_their_own() {
    for token in ["", SECRET] {
        let mut world = World::new();
        world.turn_acls_on();
        let node = node_map(NODE, SECRET, "1.1.2");
        let reply: NodeUpdateResponse = world.call_as("", "Node.Register", &[("Node", node.clone())]).body();
        assert!(reply.heartbeat_ttl > 0);
        let beat = |world: &mut World| world.call("Node.UpdateStatus", &heartbeat(NODE, "ready", token));
        assert!(beat(&mut world).body::<NodeUpdateResponse>().heartbeat_ttl > 0);
        let ask = [("NodeID", text(NODE)), ("SecretID", text(SECRET))];
        let reply: NodeClientAllocsResponse = world.call_as(token, "Node.GetClientAllocs", &ask).body();
        assert_eq!(reply.meta.index, 1);
        let event = list(&[map(&[("Message", text("x"))])]);
        let events = [("NodeEvents", map(&[(NODE, event)]))];
        assert!(matches!(world.call_as(token, "Node.EmitEvents", &events), Came::Body(_)));
        let again: NodeUpdateResponse = world.call_as(token, "Node.Register", &[("Node", node)]).body();
        assert!(again.heartbeat_ttl > 0);
        // A connection that showed nothing is nobody's.
        world.caller = World::connection();
        if token.is_empty() {
            assert_eq!(beat(&mut world).error(), "node not found");
            assert_eq!(world.call_as(token, "Node.EmitEvents", &events).error(), DENIED);
        } else {
            assert!(matches!(beat(&mut world), Came::Body(_)));
        }
    }
}

#[test]
fn a_proven_connection_gives_its_users_nothing() {
    let mut world = World::with_acls();
    world.caller.proven_node = Some(NODE.into());
    assert_eq!(world.call_as("", "Node.GetNode", &arguments_of("")).error(), DENIED);
    assert_eq!(world.call_as("", "Node.UpdateDrain", &arguments_of("")).error(), DENIED);
}

#[test]
fn a_node_reads_its_pool_and_drains_itself() {
    let mut world = World::with_acls();
    let register = |world: &mut World, id: &str, secret: &str, pool: &str| {
        let node = node_map(id, secret, "2.0.5");
        let mut d = crate::wire::msgpack::Decoder::new(&node);
        let len = d.map().unwrap().unwrap();
        let mut e = Encoder::new();
        e.map(len + 1);
        for _ in 0..2 * len {
            e.raw(d.raw().unwrap());
        }
        e.str("NodePool");
        e.str(pool);
        let came = world.call_as("", "Node.Register", &[("Node", e.out)]);
        assert!(matches!(came, Came::Body(_)), "{came:?}");
        world.caller = World::connection();
    };
    register(&mut world, OTHER, OTHER_SECRET, "west");
    let third = "c1b2c3d4-0001-0002-0003-00000000abcd";
    register(&mut world, third, "7ec7e700-0001-0002-0003-00000000abcd", "west");
    for (secret, id, reads, drains) in [
        (OTHER_SECRET, OTHER, true, true),
        (OTHER_SECRET, third, true, false),
        (OTHER_SECRET, NODE, false, false),
        (SECRET, NODE, true, true),
        (SECRET, NOBODY, false, false),
    ] {
        let ask = [("NodeID", text(id))];
        assert_eq!(is_denied(&world.call_as(secret, "Node.GetNode", &ask)), !reads, "{id}");
        assert_eq!(is_denied(&world.call_as(secret, "Node.UpdateDrain", &ask)), !drains, "{id}");
        for method in ["Node.UpdateEligibility", "Node.Deregister", "Node.List", "Status.Members", "ACL.ListPolicies"] {
            assert_eq!(world.call_as(secret, method, &ask).error(), DENIED, "{method}");
        }
    }
    let drained_by = |command: &Command| match command {
        Command::NodeUpdateDrain { accessor_id, .. } => Some(accessor_id.clone()),
        _ => None,
    };
    world.call_as(ROOT, "Node.UpdateDrain", &[("NodeID", text(third))]);
    let by: Vec<_> = world.written.iter().filter_map(drained_by).collect();
    assert_eq!(by, [format!("client:{OTHER}"), format!("client:{NODE}"), format!("token:{ROOT_ACCESSOR}")]);
}

#[test]
fn who_registers_shows_nothing_or_what_is_its_own() {
    for (token, allowed) in [
        ("", true),
        (SECRET, true),
        (OTHER_SECRET, false),
        (NOBODY, false),
        (ROOT, false),
        ("rubbish", false),
        ("a.b.c", false),
    ] {
        let mut world = World::with_acls();
        world.call_as("", "Node.Register", &[("Node", node_map(OTHER, OTHER_SECRET, "2.0.5"))]);
        world.caller = World::connection();
        for id in [NODE, "d1b2c3d4-0001-0002-0003-00000000abcd"] {
            let came = world.call_as(token, "Node.Register", &[("Node", node_map(id, SECRET, "2.0.5"))]);
            assert_eq!(is_denied(&came), !allowed, "{token} {id}: {came:?}");
        }
        assert_eq!(is_denied(&world.call_as(token, "Node.Register", &[])), !token.is_empty());
    }
}

#[test]
fn methods_are_served_by_whoever_was_asked_while_acls_are_off() {
    for known in METHODS {
        let by_itself = known.name.starts_with("ACL.") && !["ACL.WhoAmI", "ACL.GetClaimPolicies"].contains(&known.name);
        let off = if by_itself { Access::Local } else { known.access };
        assert_eq!((known.served(true), known.served(false)), (known.access, off), "{}", known.name);
    }
    assert_eq!(method("ACL.UpsertTokens").unwrap().access, Access::Write);
    assert_eq!(method("ACL.ListTokens").unwrap().access, Access::Read);
}
