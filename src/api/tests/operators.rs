//! What operators ask and set, in the peers' words (endpoint notes, sections 5 and 11).

use serde_json::Value;

use super::*;
use crate::api::outcome::{Finish, StreamOutcome};
use crate::wire::archive;
use crate::wire::body::keyring::{KeyringDeleteRequest, KeyringListResponse, KeyringRotateRequest};
use crate::wire::body::operator::*;
use crate::wire::body::query::{GenericRequest, GenericResponse, QueryOptions, WriteRequest};
use crate::wire::body::search::{SearchRequest, SearchResponse};
use crate::wire::entry::key::RootKey;
use crate::wire::entry::var::{Sealed, VarApply, VarOp};
use crate::wire::msgpack::{Bytes, Decoder};

const ID: &str = "ac5f8898-16df-9985-dd63-14f4b415308e";
const RECORDED: &str = include_str!("../../../tests/vectors/raft_get_configuration.json");

fn call(world: &mut World, method: &str, body: &impl Msg) -> Came {
    world.call_bytes(method, &body.to_bytes())
}

fn ask(world: &mut World, method: &str) -> Came {
    call(world, method, &GenericRequest::default())
}

fn key(id: &str, rekey: bool) -> Command {
    let public_key = Bytes(vec![7; 32]);
    Command::RootKeyAdd(RootKey { key_id: id.to_owned(), public_key, create_time: NOW, rekey })
}

fn put(path: &str, key_id: &str) -> Command {
    let sealed = Some(Sealed { key_id: key_id.into(), bytes: Bytes(vec![1; 40]) });
    let op = VarOp { namespace: "default".into(), path: path.into(), sealed, ..VarOp::default() };
    Command::VarApply(VarApply { ops: vec![op] })
}

#[test]
fn the_raft_configuration_is_told_as_a_real_server_tells_it() {
    let mut world = World::new();
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let messages = recorded["streams"][0]["messages"].as_array().unwrap();
    let message = messages.iter().find(|message| message["kind"] == "response-body").unwrap();
    let digits = message["hex"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect();
    assert_eq!(ask(&mut world, "Operator.RaftGetConfiguration"), Came::Body(bytes));
    world.ctx.leader_rpc_addr = "".into();
    let reply: RaftConfigurationResponse = ask(&mut world, "Operator.RaftGetConfiguration").body();
    assert!(!reply.servers[0].leader);
}

#[test]
fn the_only_server_stays_and_leads() {
    let mut world = World::new();
    let mut remove = |id: &str| {
        let request = RaftPeerByIdRequest { id: id.to_owned(), ..Default::default() };
        call(&mut world, "Operator.RaftRemovePeerByID", &request).error().to_owned()
    };
    assert_eq!(remove("zz"), "id \"zz\" was not found in the Raft configuration");
    let only = remove(ID);
    assert!(only.starts_with("RPC Error:: 400,") && only.contains("it is the only one"), "{only}");
    let gone = call(&mut world, "Operator.RaftRemovePeerByAddress", &WriteRequest::default());
    assert_eq!(gone.error(), "RPC Error:: 400,Operator.RaftRemovePeerByAddress has been removed");
    let mut transfer = |address: &str, id: &str| {
        let request = RaftPeerRequest { address: address.to_owned(), id: id.to_owned(), ..Default::default() };
        call(&mut world, "Operator.TransferLeadershipToPeer", &request)
    };
    for (address, id, text) in [
        ("", "", "must provide peer id or address"),
        ("", "zz", "id \"zz\" was not found in the Raft configuration"),
        ("1.2.3.4:5", "", "address \"1.2.3.4:5\" was not found in the Raft configuration"),
    ] {
        assert_eq!(transfer(address, id).error(), format!("RPC Error:: 400,{text}"));
    }
    for came in [transfer("", ID), transfer("127.0.0.1:24647", "")] {
        let reply: LeadershipTransferResponse = came.body();
        assert!(reply.noop && reply.err.is_nil());
        assert_eq!((reply.from.id.as_str(), reply.to.address.as_str()), (ID, "127.0.0.1:24647"));
        assert_eq!(reply.from, reply.to);
    }
    world.ctx.leader_rpc_addr = "".into();
    let nobody = call(&mut world, "Operator.TransferLeadershipToPeer", &RaftPeerRequest::default());
    assert_eq!(nobody.error(), "RPC Error:: 503,No cluster leader");
}

#[test]
fn configurations_are_given_and_set() {
    let mut world = World::new();
    let config: AutopilotConfig = ask(&mut world, "Operator.AutopilotGetConfiguration").body();
    assert!(config.cleanup_dead_servers && config.max_trailing_logs == 250 && config.modify_index == 1);
    let mut set = |cas: bool, modify_index: u64| -> bool {
        let config = AutopilotConfig { max_trailing_logs: 7, modify_index, ..AutopilotConfig::default() };
        let request = AutopilotSetConfigRequest { config, cas, ..Default::default() };
        call(&mut world, "Operator.AutopilotSetConfiguration", &request).body()
    };
    assert!(!set(true, 0));
    assert!(set(true, 1) && set(false, 0));
    let bad = AutopilotConfig { last_contact_threshold: -1, ..AutopilotConfig::default() };
    let request = AutopilotSetConfigRequest { config: bad, ..Default::default() };
    let text = call(&mut world, "Operator.AutopilotSetConfiguration", &request);
    assert_eq!(text.error(), "RPC Error:: 400,LastContactThreshold must not be negative");

    let reply: SchedulerConfigurationResponse = ask(&mut world, "Operator.SchedulerGetConfiguration").body();
    let config = reply.scheduler_config.unwrap();
    assert_eq!((config.scheduler_algorithm.as_str(), reply.meta.index), ("binpack", 1));
    let mut set = |algorithm: &str, cas: bool| {
        let config = SchedulerConfiguration { scheduler_algorithm: algorithm.to_owned(), ..config.clone() };
        let request = SchedulerSetConfigurationRequest { config, cas, ..Default::default() };
        call(&mut world, "Operator.SchedulerSetConfiguration", &request)
    };
    let reply: SchedulerSetConfigurationResponse = set("spread", true).body();
    assert!(reply.updated && reply.meta.index > 1);
    let reply: SchedulerSetConfigurationResponse = set("spread", true).body();
    assert!(!reply.updated, "its index is another now");
    assert_eq!(set("best", false).error(), "invalid scheduler algorithm: best");
    set("", false);
    assert_eq!(world.state.scheduler_config().scheduler_algorithm, "binpack");
}

#[test]
fn health_is_that_of_all_servers() {
    let mut world = World::new();
    let reply: OperatorHealthReply = ask(&mut world, "Operator.ServerHealth").body();
    assert_eq!((reply.healthy, reply.failure_tolerance, reply.leader.as_str()), (true, 0, ID));
    assert_eq!(reply.voters, [ID]);
    let server = &reply.servers[0];
    assert_eq!((server.name.as_str(), server.version.as_str()), ("golden.global", "2.0.5"));
    assert_eq!((server.serf_status, server.last_contact, server.last_term, server.last_index), (1, 0, 2, 77));
    assert!(server.healthy && server.leader && server.voter);
    // Without a leader nobody is well.
    world.ctx.leader_rpc_addr = "".into();
    (world.ctx.is_leader, world.ctx.known_leader, world.ctx.last_contact) = (false, false, Duration::MAX);
    let reply: OperatorHealthReply = ask(&mut world, "Operator.ServerHealth").body();
    assert_eq!((reply.healthy, reply.leader.as_str(), reply.servers[0].healthy), (false, "", false));
}

#[test]
fn keys_are_listed_made_and_deleted() {
    let mut world = World::new();
    let rotate = |world: &mut World, request: KeyringRotateRequest| call(world, "Keyring.Rotate", &request);
    let none = rotate(&mut world, KeyringRotateRequest::default());
    assert_eq!(none.error(), "RPC Error:: 503,keyring has not been initialized yet");
    for command in [key("a", false), key("b", false), put("x", "a"), key("c", true)] {
        world.write(command);
    }
    let listed = |world: &mut World| -> Vec<(String, String)> {
        let reply: KeyringListResponse = ask(world, "Keyring.List").body();
        assert_eq!(reply.meta.index, world.state.signing_keys_index().0);
        reply.keys.into_iter().map(|key| (key.key_id, key.state)).collect()
    };
    let said = |pairs: [(&str, &str); 3]| pairs.map(|(id, state)| (id.to_owned(), state.to_owned()));
    assert_eq!(listed(&mut world), said([("c", "active"), ("b", "inactive"), ("a", "rekeying")]));
    world.write(put("x", "c"));
    assert_eq!(listed(&mut world), said([("c", "active"), ("b", "inactive"), ("a", "inactive")]));
    let mut delete = |id: &str| {
        let came =
            call(&mut world, "Keyring.Delete", &KeyringDeleteRequest { key_id: id.to_owned(), ..Default::default() });
        (came, std::mem::take(&mut world.effects))
    };
    for (id, text) in [("", "must specify key ID"), ("c", "active root key cannot be deleted - call rotate first")] {
        assert_eq!(delete(id).0.error(), format!("RPC Error:: 400,{text}"));
    }
    let (came, effects) = delete("b");
    assert_eq!((came.body::<GenericResponse>().meta.index, effects), (6, vec![Effect::ForgetKey("b".to_owned())]));
    let (came, effects) = delete("b");
    assert_eq!((came.body::<GenericResponse>(), effects), (GenericResponse::default(), vec![]), "gone already");
    world.write(put("y", "a"));
    let came =
        call(&mut world, "Keyring.Delete", &KeyringDeleteRequest { key_id: "a".to_owned(), ..Default::default() });
    assert_eq!(came.error(), "RPC Error:: 400,root key in use, cannot delete");

    world.ctx.signer = Some(identities::signer("c"));
    for full in [false, true] {
        let came = rotate(&mut world, KeyringRotateRequest { full, ..Default::default() });
        assert_eq!(came, Came::Other(Outcome::MakeKey { finish: Finish::KeyringRotate { full } }));
    }
    for (request, words) in [
        (KeyringRotateRequest { algorithm: "xor".to_owned(), ..Default::default() }, "unknown algorithm \"xor\""),
        (KeyringRotateRequest { publish_time: 5, ..Default::default() }, "publish time must be 0"),
    ] {
        let came = rotate(&mut world, request);
        assert!(came.error().starts_with("RPC Error:: 400,") && came.error().contains(words), "{came:?}");
    }
    let request = KeyringRotateRequest { algorithm: "aes256-gcm".to_owned(), ..Default::default() };
    assert!(matches!(rotate(&mut world, request), Came::Other(Outcome::MakeKey { .. })));
}

#[test]
fn a_saved_snapshot_is_one_message_and_an_archive() {
    let mut world = World::with_node();
    world.write(put("a/b", "k"));
    let options = |region: &str| QueryOptions { region: region.to_owned(), ..QueryOptions::default() }.to_bytes();
    let StreamOutcome::Send(messages) = world.stream("Operator.SnapshotSave", &options("global")) else { panic!() };
    let first = SnapshotSaveResponse::from_bytes(&messages[0]).unwrap();
    let index = world.state.index().0;
    assert_eq!((first.error_code, first.meta.index, first.meta.known_leader), (0, index, true));
    let bytes = messages[1..].concat();
    let mut sum = "sha-256=".to_owned();
    crate::wire::json::push_base64(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref(), &mut sum);
    assert_eq!(first.snapshot_checksum, sum, "the sum is that of the archive");
    let (meta, state) = archive::read(&bytes).unwrap();
    assert_eq!((meta.index, meta.term, meta.configuration.servers[0].id.as_str()), (index, 2, ID));
    let again = crate::state::snapshot::read(&state).unwrap();
    assert_eq!(again.digest(), world.state.digest());

    let refused = |outcome: StreamOutcome| {
        let StreamOutcome::Refuse(bytes) = outcome else { panic!("{outcome:?}") };
        let reply = SnapshotSaveResponse::decode(&mut Decoder::new(&bytes)).unwrap();
        (reply.error_code, reply.error_msg)
    };
    let no = |code: i64, text: &str| (code, text.to_owned());
    for method in ["Operator.SnapshotSave", "Operator.SnapshotRestore"] {
        assert_eq!(refused(world.stream(method, &options(""))), no(400, "missing target region"));
        assert_eq!(refused(world.stream(method, &options("mars"))), no(500, "No path to region"));
        assert_eq!(refused(world.stream(method, &[0x01])).0, 500);
    }
    assert_eq!(world.stream("Operator.SnapshotRestore", &options("global")), StreamOutcome::Restore);
    world.ctx.is_leader = false;
    for method in ["Operator.SnapshotSave", "Operator.SnapshotRestore"] {
        assert_eq!(refused(world.stream(method, &options("global"))), no(500, "No cluster leader"));
    }
    let stale = QueryOptions { region: "global".to_owned(), allow_stale: true, ..QueryOptions::default() };
    assert!(matches!(world.stream("Operator.SnapshotSave", &stale.to_bytes()), StreamOutcome::Send(_)));
}

#[test]
fn names_are_completed() {
    let mut world = World::with_node();
    world.register(OTHER, OTHER_SECRET);
    for nth in 0..25 {
        world.write(put(&format!("app/{nth:02}"), "k"));
    }
    world.write(put("base", "k"));
    let mut search = |context: &str, prefix: &str, namespace: &str| -> SearchResponse {
        let query = QueryOptions { prefix: prefix.to_owned(), namespace: namespace.to_owned(), ..Default::default() };
        call(&mut world, "Search.PrefixSearch", &SearchRequest { context: context.to_owned(), query }).body()
    };
    let reply = search("vars", "app/", "");
    assert_eq!((reply.matches["vars"].len(), reply.truncations["vars"]), (20, true));
    assert_eq!((reply.matches["vars"][19].as_str(), reply.matches.len()), ("app/19", 1));
    let reply = search("vars", "app/2", "default");
    assert_eq!((reply.matches["vars"].len(), reply.truncations["vars"]), (5, false));
    assert_eq!(search("vars", "base", "*").matches["vars"], ["base"]);
    assert!(search("vars", "base", "other").matches["vars"].is_empty());
    let reply = search("nodes", &NODE[..8], "");
    assert_eq!((&reply.matches["nodes"], reply.meta.known_leader), (&vec![NODE.to_owned()], true));
    let all = search("all", "b", "");
    assert_eq!((&all.matches["nodes"], &all.matches["vars"]), (&vec![OTHER.to_owned()], &vec!["base".to_owned()]));
    assert!(all.matches["namespaces"].is_empty() && all.truncations.values().all(|more| !more));
    assert_eq!(search("", "def", "").matches["namespaces"], ["default"]);
    let none = search("jobs", "x", "");
    assert!(none.matches.is_empty() && none.truncations.is_empty() && none.meta.index > 0);
}

#[test]
fn the_agent_tells_of_itself_and_reads_its_configuration_again() {
    let mut world = World::new();
    let reply: AgentSelfResponse = ask(&mut world, "Holdfast.AgentSelf").body();
    assert_eq!((reply.config_json.as_str(), reply.stats_json.as_str()), ("{}", "{}"));
    world.ctx.stats_json = Some("{\"raft\":{}}".into());
    let reply: AgentSelfResponse = ask(&mut world, "Holdfast.AgentSelf").body();
    assert_eq!(reply.stats_json, "{\"raft\":{}}");
    assert!(matches!(ask(&mut world, "Holdfast.Reload"), Came::Body(_)));
    assert_eq!(world.effects, [Effect::Reload]);
}

/// A world with ACLs on, where each token carries one policy; the secret of the nth of them.
fn with_policies(policies: &[&str]) -> World {
    use crate::wire::body::acl::{AclPolicy, AclToken};
    let mut world = World::new();
    world.write(key("a", false));
    world.write(key("b", false));
    world.ctx.server = Arc::new(ServerFacts { acl_enabled: true, ..(*world.ctx.server).clone() });
    world.ctx.signer = Some(identities::signer("b"));
    for (nth, rules) in policies.iter().enumerate() {
        let name = format!("policy-{nth}");
        let policy = AclPolicy { name: name.clone(), rules: (*rules).to_owned(), ..AclPolicy::default() };
        world.write(Command::AclUpsertPolicies { policies: vec![policy] });
        let management = *rules == "management";
        let token = AclToken {
            accessor_id: format!("accessor-{nth}"),
            secret_id: secret(nth),
            kind: if management { "management" } else { "client" }.to_owned(),
            policies: (!management).then(|| vec![name]),
            ..AclToken::default()
        };
        world.write(Command::AclUpsertTokens { tokens: vec![token] });
    }
    world
}

fn secret(nth: usize) -> String {
    format!("00000000-0000-4000-8000-0000000000{nth:02}")
}

// R8.15
#[test]
fn each_method_wants_its_own_right() {
    let policies = [
        "management",
        "operator { policy = \"read\" }",
        "operator { policy = \"write\" }",
        "operator { capabilities = [\"keyring-read\"] }",
        "operator { capabilities = [\"keyring-rotate\"] }",
        "operator { capabilities = [\"keyring-delete\"] }",
        "operator { capabilities = [\"snapshot-save\"] }",
        "agent { policy = \"read\" }",
        "agent { policy = \"write\" }",
        "node { policy = \"read\" }",
    ];
    let (read, write) = (vec![0, 1, 2], vec![0, 2]);
    for (method, allowed) in [
        ("Operator.RaftGetConfiguration", vec![0]),
        ("Operator.RaftRemovePeerByID", vec![0]),
        ("Operator.RaftRemovePeerByAddress", vec![0]),
        ("Operator.TransferLeadershipToPeer", vec![0]),
        ("Operator.AutopilotGetConfiguration", read.clone()),
        ("Operator.AutopilotSetConfiguration", write.clone()),
        ("Operator.ServerHealth", read.clone()),
        ("Operator.SchedulerGetConfiguration", read),
        ("Operator.SchedulerSetConfiguration", write),
        ("Keyring.List", vec![0, 1, 2, 3]),
        ("Keyring.Rotate", vec![0, 2, 4]),
        ("Keyring.Delete", vec![0, 2, 5]),
        ("Holdfast.AgentSelf", vec![0, 7, 8]),
        ("Holdfast.Reload", vec![0, 8]),
        ("Operator.SnapshotSave", vec![0, 2, 6]),
        ("Operator.SnapshotRestore", vec![0]),
    ] {
        let may = |nth: Option<usize>| {
            let mut world = with_policies(&policies);
            let token = nth.map(secret).unwrap_or_default();
            let body = map(&[("AuthToken", text(&token)), ("KeyID", text("a")), ("Region", text("global"))]);
            if method.starts_with("Operator.Snapshot") {
                let denied = snapshot::response(403, "Permission denied");
                return world.stream(method, &body) != StreamOutcome::Refuse(denied);
            }
            let before = world.written.len();
            let denied = matches!(world.call_bytes(method, &body), Came::Error(text) if text == "Permission denied");
            assert!(!denied || world.written.len() == before, "{method}: nothing is written for whoever may not");
            !denied
        };
        let seen: Vec<usize> = (0..policies.len()).filter(|nth| may(Some(*nth))).collect();
        assert_eq!(seen, allowed, "{method}");
        assert!(!may(None) && !may(Some(99)), "{method}: nobody, and a token that is not known");
    }
}

#[test]
fn only_what_may_be_seen_is_completed() {
    let policies = [
        "node { policy = \"read\" }",
        "namespace \"default\" { variables { path \"app/*\" { capabilities = [\"list\"] } } }",
    ];
    let mut world = with_policies(&policies);
    world.write(put("app/x", "a"));
    world.write(put("other/x", "a"));
    let mut search = |nth: usize, context: &str| {
        let query = QueryOptions { auth_token: secret(nth), ..QueryOptions::default() };
        call(&mut world, "Search.PrefixSearch", &SearchRequest { context: context.to_owned(), query })
    };
    let nodes: SearchResponse = search(0, "all").body();
    let contexts: Vec<&str> = nodes.matches.keys().map(String::as_str).collect();
    assert_eq!(contexts, ["namespaces", "nodes"]);
    assert!(nodes.matches["namespaces"].is_empty());
    assert_eq!(search(0, "vars").error(), "Permission denied");
    let vars: SearchResponse = search(1, "vars").body();
    assert_eq!(vars.matches["vars"], ["app/x"]);
    assert_eq!(search(1, "nodes").error(), "Permission denied");
}
