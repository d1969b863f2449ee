//! Tokens, policies and roles: what each command does; with namespaces, what a snapshot keeps and replicas share.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::sections::{what, with_sections};
use super::*;
use crate::state::acl::Token;
use crate::state::acl::rules::{Acl, VarCapability};
use crate::state::snapshot;
use crate::wire::body::acl::{AclPolicy, AclPolicyLink, AclRole, AclRoleLink, AclToken};
use crate::wire::body::namespace::Namespace;
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::msgpack::Bytes;

fn token(accessor: &str) -> AclToken {
    AclToken {
        accessor_id: accessor.into(),
        secret_id: format!("secret-of-{accessor}"),
        name: format!("name of {accessor}"),
        kind: "client".into(),
        policies: Some(vec!["p".into()]),
        create_time: go_time(START),
        ..AclToken::default()
    }
}

/// A token that ends with the entry at this index.
fn ending(accessor: &str, index: u64) -> AclToken {
    AclToken { expiration_time: Some(go_time(time_at(index))), ..token(accessor) }
}

fn upsert(tokens: &[AclToken]) -> Command {
    Command::AclUpsertTokens { tokens: tokens.to_vec() }
}

pub(super) fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn delete(accessors: &[&str]) -> Command {
    Command::AclDeleteTokens { accessor_ids: owned(accessors) }
}

fn expire(accessors: &[&str]) -> Command {
    Command::AclExpireTokens { accessor_ids: owned(accessors) }
}

fn bootstrap(accessor: &str, reset_index: u64) -> Command {
    let token = AclToken { kind: "management".into(), policies: None, global: true, ..token(accessor) };
    Command::AclBootstrap { token: Box::new(token), reset_index }
}

fn policy(name: &str, rules: &str) -> Command {
    let policy = AclPolicy { name: name.into(), rules: rules.into(), ..AclPolicy::default() };
    Command::AclUpsertPolicies { policies: vec![policy] }
}

fn role(id: &str, name: &str) -> AclRole {
    let policies = Some(vec![AclPolicyLink { name: "p".into() }]);
    AclRole { id: id.into(), name: name.into(), policies, ..AclRole::default() }
}

pub(super) fn namespace(name: &str) -> Command {
    let namespace = Namespace { name: name.into(), meta: Some(texts(&[("a", name)])), ..Namespace::default() };
    Command::NamespaceUpsert { namespaces: vec![namespace] }
}

pub(super) fn remove_namespaces(names: &[&str]) -> Command {
    Command::NamespaceDelete { names: owned(names) }
}

pub(super) fn refusal(applied: Applied) -> String {
    assert_eq!((applied.touched.keys, applied.events), (vec![], vec![]));
    match applied.result {
        ApplyResult::Refused(why) => why,
        other => panic!("{other:?} is no refusal"),
    }
}

/// Topic, kind and key of each event; no event may show a secret.
fn told(applied: &Applied) -> Vec<String> {
    let event = |event: &Event| {
        assert_eq!((&*event.namespace, event.filter_keys.len()), ("", 0));
        assert!(!event.payload.json().contains("secret-of"), "{}", event.payload.json());
        assert!(!format!("{event:?}").contains("secret-of"), "{event:?}"); // R8.15
        format!("{} {} {}", event.topic, event.kind, event.key)
    };
    applied.events.iter().map(event).collect()
}

fn acl_touched(applied: &Applied) -> bool {
    assert!(applied.touched.keys.iter().all(|key| *key == WatchKey::acl()));
    !applied.touched.is_empty()
}

fn accessors(state: &State) -> Vec<&str> {
    state.tokens_from("").map(|token| &*token.body.accessor_id).collect()
}

#[test]
fn a_token_is_written_and_found() {
    let mut world = World::default();
    world.apply(Command::Noop);
    let applied = world.apply(upsert(&[token("b"), token("a")]));
    assert_eq!(told(&applied), ["ACLToken ACLTokenUpserted b", "ACLToken ACLTokenUpserted a"]);
    assert!(acl_touched(&applied));
    let state = &world.state;
    assert_eq!((accessors(state), state.tokens_index()), (vec!["a", "b"], Index(2)));
    let a = state.token_by_secret("secret-of-a").unwrap();
    assert_eq!(Some(a), state.token("a"));
    assert_eq!((a.body.create_index, a.body.modify_index, a.expires_unix_nanos), (2, 2, None));
    assert_eq!(Bytes::from_bytes(&a.body.hash.0).unwrap().0.len(), 32);
    assert_ne!(a.body.hash, state.token("b").unwrap().body.hash);
    for unknown in ["", "a", "secret-of-c", "secret-of-"] {
        assert_eq!(state.token_by_secret(unknown), None);
    }
    assert!(!a.is_management());
}

#[test]
fn a_known_token_keeps_its_secret_and_its_beginning() {
    let mut world = World::of([upsert(&[token("a")])]);
    let first = Arc::clone(world.state.token("a").unwrap());
    let asked = AclToken {
        secret_id: "secret-of-z".into(),
        name: "another".into(),
        create_time: go_time(1),
        create_index: 77,
        hash: Raw(vec![1].into()),
        ..token("a")
    };
    world.apply(upsert(&[asked]));
    let now = world.state.token("a").unwrap();
    assert_eq!((&*now.body.secret_id, &*now.body.name), ("secret-of-a", "another"));
    assert_eq!((now.body.create_index, now.body.modify_index), (1, 2));
    assert_eq!(now.body.create_time, first.body.create_time);
    assert_ne!(now.body.hash, first.body.hash);
    assert_eq!(world.state.token_by_secret("secret-of-z"), None);
    world.apply(upsert(&[token("a")]));
    assert_eq!(world.state.token("a").unwrap().body.hash, first.body.hash, "the same token has the same hash");
}

#[test]
fn tokens_are_written_all_or_none() {
    let mut world = World::default();
    let no_time = AclToken { expiration_time: Some(Bytes(vec![1, 2, 3])), ..token("b") };
    let why = refusal(world.apply(upsert(&[token("a"), no_time])));
    assert_eq!(why, "the token's expiration time is malformed");
    for lacking in [token(""), AclToken { secret_id: String::new(), ..token("b") }] {
        assert_eq!(refusal(world.apply(upsert(&[token("a"), lacking]))), "a token has an accessor and a secret");
    }
    assert!(accessors(&world.state).is_empty());
    assert_eq!(world.apply(upsert(&[])), Applied::default());
    assert_eq!(world.state.tokens_index(), Index(0));
}

#[test]
fn removed_tokens_are_gone() {
    let mut world = World::of([upsert(&[token("a"), ending("b", 9), token("c")])]);
    let applied = world.apply(delete(&["b", "x", "a", "a"]));
    assert_eq!(told(&applied), ["ACLToken ACLTokenDeleted b", "ACLToken ACLTokenDeleted a"]);
    assert!(acl_touched(&applied));
    assert_eq!((accessors(&world.state), world.state.tokens_index()), (vec!["c"], Index(2)));
    assert_eq!((world.state.token_by_secret("secret-of-b"), world.state.next_token_expiry()), (None, None));
    assert_eq!(world.apply(delete(&["a"])), Applied::default());
    assert_eq!(world.state.tokens_index(), Index(2));
}

#[test]
fn two_tokens_with_one_secret_are_both_there() {
    let twin = AclToken { secret_id: "secret-of-a".into(), ..token("b") };
    let mut world = World::of([upsert(&[twin, token("a")])]);
    assert_eq!(world.state.token_by_secret("secret-of-a").unwrap().body.accessor_id, "a");
    world.apply(delete(&["a"]));
    assert_eq!(world.state.token_by_secret("secret-of-a").unwrap().body.accessor_id, "b");
}

#[test]
fn tokens_end_at_their_time_and_not_before() {
    let never = AclToken { expiration_time: Some(go_zero_time()), ..token("n") };
    let mut world = World::of([upsert(&[ending("late", 9), ending("soon", 3), ending("also", 3), never, token("m")])]);
    assert_eq!(world.state.next_token_expiry(), Some(time_at(3)));
    assert_eq!(world.state.tokens_expired(time_at(3) - 1, 9), Vec::<String>::new());
    assert_eq!(world.state.tokens_expired(time_at(3), 9), ["also", "soon"]);
    assert_eq!(world.state.tokens_expired(time_at(9), 2), ["also", "soon"]);
    assert_eq!(world.state.tokens_expired(i64::MAX, 9), ["also", "soon", "late"]);
    let soon = world.state.token("soon").unwrap();
    assert!(!soon.is_expired(time_at(3) - 1) && soon.is_expired(time_at(3)));
    assert!(!world.state.token("n").unwrap().is_expired(i64::MAX));

    let all = ["also", "late", "m", "n", "soon", "unknown"];
    assert_eq!(world.apply(expire(&all)), Applied::default(), "the entry's time is that of index 2");
    let applied = world.apply(expire(&all));
    assert_eq!(told(&applied), ["ACLToken ACLTokenDeleted also", "ACLToken ACLTokenDeleted soon"]);
    assert_eq!(accessors(&world.state), ["late", "m", "n"]);
    assert_eq!(world.state.next_token_expiry(), Some(time_at(9)));
    // A token that is given another end is found under that one only.
    world.apply(upsert(&[ending("late", 20)]));
    assert_eq!(world.state.tokens_expired(time_at(19), 9), Vec::<String>::new());
    assert_eq!(world.state.next_token_expiry(), Some(time_at(20)));
}

#[test]
fn the_first_token_is_made_once() {
    let mut world = World::default();
    assert_eq!(
        refusal(world.apply(bootstrap("a", 7))),
        "RPC Error:: 400,Invalid bootstrap reset index (specified 7, reset index: 0)"
    );
    assert_eq!(world.state.acl_bootstrap_index(), Index(0));
    let applied = world.apply(bootstrap("a", 0));
    assert_eq!((&applied.result, told(&applied).len()), (&ApplyResult::Done, 0));
    assert!(acl_touched(&applied));
    let made = world.state.token("a").unwrap();
    assert!(made.is_management() && made.body.create_index == 2 && !made.body.hash.is_nil());
    assert_eq!(world.state.acl_bootstrap_index(), Index(2));

    assert_eq!(refusal(world.apply(bootstrap("b", 0))), "RPC Error:: 400,ACL bootstrap already done (reset index: 2)");
    assert_eq!(
        refusal(world.apply(bootstrap("b", 3))),
        "RPC Error:: 400,Invalid bootstrap reset index (specified 3, reset index: 2)"
    );
    assert_eq!(world.state.token("b"), None);
    world.apply(bootstrap("b", 2));
    assert_eq!((accessors(&world.state), world.state.acl_bootstrap_index()), (vec!["a", "b"], Index(5)));
    assert_eq!(
        refusal(world.apply(bootstrap("c", 2))),
        "RPC Error:: 400,Invalid bootstrap reset index (specified 2, reset index: 5)"
    );
    // Removing the token does not open the door again.
    world.apply(delete(&["a", "b"]));
    assert_eq!(refusal(world.apply(bootstrap("c", 0))), "RPC Error:: 400,ACL bootstrap already done (reset index: 5)");
}

#[test]
fn policies_come_and_go() {
    let read = "namespace \"default\" { variables { path \"*\" { capabilities = [\"read\"] } } }";
    let mut world = World::of([upsert(&[token("a")])]);
    let applied = world.apply(policy("p", read));
    assert_eq!((told(&applied), acl_touched(&applied)), (vec!["ACLPolicy ACLPolicyUpserted p".to_owned()], true));
    let first = Arc::clone(world.state.policy("p").unwrap());
    let acl = Acl { management: false, policies: vec![Arc::clone(&first.rules)] };
    assert!(acl.allows_variable("default", "x", VarCapability::Read));
    assert_eq!((first.body.create_index, first.body.modify_index), (2, 2));
    world.apply(policy("o", ""));
    world.apply(policy("p", ""));
    let second = world.state.policy("p").unwrap();
    assert_eq!((second.body.create_index, second.body.modify_index), (2, 4));
    assert_ne!((&second.body.hash, &second.rules), (&first.body.hash, &first.rules));
    assert_eq!(world.state.policies_from("").map(|policy| &*policy.body.name).collect::<Vec<_>>(), ["o", "p"]);

    let applied = world.apply(Command::AclDeletePolicies { names: owned(&["p", "q"]) });
    assert_eq!(told(&applied), ["ACLPolicy ACLPolicyDeleted p"]);
    assert_eq!((world.state.policy("p"), world.state.policies_index()), (None, Index(5)));
    assert_eq!(world.apply(Command::AclDeletePolicies { names: owned(&["p"]) }), Applied::default());
    assert_eq!(world.state.token("a").unwrap().body.policies, Some(owned(&["p"])), "the name stays");
    world.apply(policy("unreadable", "node {"));
    let acl = Acl { management: false, policies: vec![Arc::clone(&world.state.policy("unreadable").unwrap().rules)] };
    assert!(!acl.node_read());
}

#[test]
fn roles_have_names_of_their_own() {
    let mut world = World::default();
    let upsert = |roles: &[AclRole]| Command::AclUpsertRoles { roles: roles.to_vec() };
    let applied = world.apply(upsert(&[role("2", "two"), role("1", "one")]));
    assert!(acl_touched(&applied) && applied.events.is_empty());
    assert_eq!(world.state.role_by_name("two").unwrap().id, "2");
    assert_eq!(
        refusal(world.apply(upsert(&[role("3", "three"), role("1", "two")]))),
        "role with name two already exists"
    );
    assert_eq!((world.state.role("3"), world.state.role_by_name("three")), (None, None));
    world.apply(upsert(&[role("1", "uno")]));
    assert_eq!((world.state.role_by_name("one"), world.state.roles_index()), (None, Index(3)));
    let uno = world.state.role_by_name("uno").unwrap();
    assert_eq!((uno.create_index, uno.modify_index, uno.hash.is_nil()), (1, 3, false));
    assert_eq!(world.state.roles_from("").map(|role| &*role.id).collect::<Vec<_>>(), ["1", "2"]);

    assert!(acl_touched(&world.apply(Command::AclDeleteRoles { ids: owned(&["1", "9"]) })));
    assert_eq!((world.state.role("1"), world.state.role_by_name("uno")), (None, None));
    assert_eq!(world.apply(Command::AclDeleteRoles { ids: owned(&["1"]) }), Applied::default());
    world.apply(upsert(&[role("4", "uno")]));
    assert_eq!(world.state.role_by_name("uno").unwrap().id, "4");
}

#[test]
fn a_token_is_told_as_the_peers_tell_it() {
    let link = AclRoleLink { id: "r".into(), name: "a \"role\"".into() };
    let written = AclToken {
        roles: Some(vec![link]),
        expiration_ttl: 3_600_000_000_000,
        expiration_time: Some(go_time(1_767_323_045_678_901_234)),
        ..token("a")
    };
    let applied = World::default().apply(upsert(&[written]));
    let text = applied.events[0].payload.json();
    let shown: Value = serde_json::from_str(&text).unwrap();
    let hash = shown["ACLToken"]["Hash"].as_str().unwrap();
    assert_eq!((hash.len(), hash.ends_with('=')), (44, true));
    assert_eq!(
        shown,
        json!({"ACLToken": {
            "ExpirationTTL": "1h0m0s", "AccessorID": "a", "SecretID": "", "Name": "name of a", "Type": "client",
            "Policies": ["p"], "Roles": [{"ID": "r", "Name": "a \"role\""}], "Global": false, "Hash": hash,
            "CreateTime": "2026-11-21T11:55:55Z", "ExpirationTime": "2026-01-02T03:04:05.678901234Z",
            "CreateIndex": 1, "ModifyIndex": 1,
        }})
    );
    let applied = World::default().apply(upsert(&[AclToken { policies: None, ..token("a") }]));
    let shown: Value = serde_json::from_str(&applied.events[0].payload.json()).unwrap();
    let shown = &shown["ACLToken"];
    assert_eq!((&shown["ExpirationTTL"], &shown["ExpirationTime"]), (&json!(""), &Value::Null));
    assert_eq!((&shown["Policies"], &shown["Roles"]), (&Value::Null, &Value::Null));
    let order = ["ExpirationTTL", "AccessorID", "SecretID", "Name", "Type", "Policies", "Roles", "Global", "Hash"];
    let places: Vec<_> = order.iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
    assert!(places.is_sorted());
}

#[test]
fn a_policy_is_told_as_the_peers_tell_it() {
    let applied = World::default().apply(policy("p", "node { policy = \"read\" }"));
    let shown: Value = serde_json::from_str(&applied.events[0].payload.json()).unwrap();
    let hash = &shown["ACLPolicy"]["Hash"];
    assert_eq!(
        shown,
        json!({"ACLPolicy": {
            "Name": "p", "Description": "", "Rules": "node { policy = \"read\" }", "RulesJSON": null, "JobACL": null,
            "Hash": hash, "CreateIndex": 1, "ModifyIndex": 1,
        }})
    );
    let job = Raw(b"\x81\xa5JobID\xa1j".to_vec().into());
    let with_job = AclPolicy { name: "p".into(), job_acl: job, ..AclPolicy::default() };
    let applied = World::default().apply(Command::AclUpsertPolicies { policies: vec![with_job] });
    let shown: Value = serde_json::from_str(&applied.events[0].payload.json()).unwrap();
    assert_eq!(shown["ACLPolicy"]["JobACL"], json!({"JobID": "j"}));
}

/// Everything of a state that this file is about.
fn all(state: &State) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        state.tokens_from("").cloned().collect::<Vec<_>>(),
        state.policies_from("").cloned().collect::<Vec<_>>(),
        state.roles_from("").cloned().collect::<Vec<_>>(),
        state.namespaces_from("").cloned().collect::<Vec<_>>(),
        [state.tokens_index(), state.policies_index(), state.roles_index(), state.namespaces_index()],
        (state.acl_bootstrap_index(), state.next_token_expiry(), state.tokens_expired(i64::MAX, usize::MAX)),
    )
}

fn restored(state: &State) -> State {
    let bytes: Vec<u8> = snapshot::write(state).flatten().collect();
    let again = snapshot::read(&bytes).unwrap();
    again.acl.check_invariants();
    assert_eq!(again.digest(), state.digest());
    again
}

#[test]
fn a_snapshot_keeps_all_of_it() {
    let mut world = World::of([
        bootstrap("m", 0),
        upsert(&[token("a"), ending("b", 30), ending("c", 20)]),
        policy("p", "node { policy = \"read\" }"),
        policy("unreadable", "node {"),
        Command::AclUpsertRoles { roles: vec![role("1", "one"), role("2", "two")] },
        namespace("zoo"),
        namespace("ant"),
        namespace("default"),
    ]);
    let again = restored(&world.state);
    assert_eq!(all(&again), all(&world.state));
    assert_eq!(again.token_by_secret("secret-of-b"), world.state.token("b"));
    assert_eq!(again.role_by_name("two").unwrap().id, "2");
    // What was removed leaves the tables' indexes.
    world.apply(delete(&["a", "b", "c", "m"]));
    world.apply(Command::AclDeletePolicies { names: owned(&["p", "unreadable"]) });
    world.apply(Command::AclDeleteRoles { ids: owned(&["1", "2"]) });
    world.apply(remove_namespaces(&["ant", "zoo"]));
    let again = restored(&world.state);
    assert_eq!(all(&again), all(&world.state));
    assert_eq!((again.tokens_index(), again.acl_bootstrap_index()), (Index(9), Index(1)));
    assert_eq!(all(&restored(&State::new())), all(&State::new()));
}

#[test]
fn rows_that_cannot_be_are_refused() {
    use crate::state::sections::tag::{ACL_BOOTSTRAP, NAMESPACES, POLICIES, ROLES, TOKENS};
    let tokens = |accessors: &[&str]| accessors.iter().map(|accessor| token(accessor).to_bytes()).collect::<Vec<_>>();
    let named = |name: &str| Namespace { name: name.into(), ..Namespace::default() }.to_bytes();
    let policy = |name: &str| AclPolicy { name: name.into(), ..AclPolicy::default() }.to_bytes();
    let no_time = AclToken { expiration_time: Some(Bytes(vec![9])), ..token("a") }.to_bytes();
    for (tag, rows, why) in [
        (TOKENS, tokens(&["b", "a"]), "tokens are out of order"),
        (TOKENS, tokens(&["a", "a"]), "tokens are out of order"),
        (TOKENS, vec![no_time], "the token's expiration time is malformed"),
        (POLICIES, vec![policy("b"), policy("a")], "policies are out of order"),
        (
            ROLES,
            vec![role("b", "1").to_bytes(), role("a", "2").to_bytes()],
            "roles are out of order, or two have one name",
        ),
        (
            ROLES,
            vec![role("a", "1").to_bytes(), role("b", "1").to_bytes()],
            "roles are out of order, or two have one name",
        ),
        (NAMESPACES, vec![named("b"), named("a")], "namespaces are out of order"),
        (NAMESPACES, vec![named("z"), named("default")], "namespaces are out of order"),
        (ACL_BOOTSTRAP, vec![vec![0xc0]], "a row where none belongs"),
    ] {
        let result = with_sections(&[(tag, 5, rows.len() as u64)], &rows);
        assert_eq!(what(result), why, "{tag}");
    }
    // As many namespaces as there may be, around the one that is always there; and none at all, of an older build.
    let state = with_sections(&[(NAMESPACES, 5, 3)], &["a", "default", "z"].map(named)).unwrap();
    assert_eq!((state.namespaces_from("").count(), state.namespaces_index()), (3, Index(5)));
    let state = with_sections(&[], &[]).unwrap();
    assert_eq!(state.namespace("default"), State::new().namespace("default"));
}

fn id() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

fn ids() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(prop::sample::select(vec!["a", "b", "c", "default"]), 0..3)
        .prop_map(|ids: BTreeSet<_>| ids.into_iter().map(str::to_owned).collect())
}

fn command() -> impl Strategy<Value = Command> {
    let one = (id(), id(), prop::option::of(0u64..40)).prop_map(|(accessor, secret, end)| AclToken {
        secret_id: format!("secret-of-{secret}"),
        expiration_time: end.map(|index| go_time(time_at(index))),
        ..token(accessor)
    });
    prop_oneof![
        4 => prop::collection::vec(one, 0..3).prop_map(|tokens| upsert(&tokens)),
        1 => ids().prop_map(|accessor_ids| Command::AclDeleteTokens { accessor_ids }),
        2 => ids().prop_map(|accessor_ids| Command::AclExpireTokens { accessor_ids }),
        1 => (id(), 0u64..20).prop_map(|(accessor, reset_index)| bootstrap(accessor, reset_index % 3)),
        1 => (id(), prop::sample::select(vec!["", "node { policy = \"read\" }", "{"])).prop_map(|(name, text)| policy(name, text)),
        1 => ids().prop_map(|names| Command::AclDeletePolicies { names }),
        2 => (id(), id()).prop_map(|(id, name)| Command::AclUpsertRoles { roles: vec![role(id, name)] }),
        1 => ids().prop_map(|ids| Command::AclDeleteRoles { ids }),
        1 => id().prop_map(namespace),
        1 => ids().prop_map(|names| Command::NamespaceDelete { names }),
    ]
}

proptest! {
    #[test]
    fn replicas_agree_and_invariants_hold(commands in prop::collection::vec(command(), 0..40), restored_at in 0usize..40) {
        let (mut first, mut second) = (World::default(), World::default());
        for (nth, command) in commands.into_iter().enumerate() {
            if nth == restored_at {
                second.state = restored(&second.state);
            }
            let before = first.state.clone();
            let entry = Entry { time_unix_nanos: 0, session: None, command };
            let copy = Entry::decode(&entry.encode()).unwrap();
            let applied = first.apply(entry.command);
            prop_assert_eq!(&applied, &second.apply(copy.command));
            first.state.acl.check_invariants();
            // Whatever changed is told to those who wait, and nothing else is.
            let changed = format!("{:?}", all(&before)) != format!("{:?}", all(&first.state));
            prop_assert_eq!(changed, !applied.touched.is_empty());
            told(&applied);
            for token in first.state.tokens_from("") {
                let found: &Arc<Token> = first.state.token_by_secret(&token.body.secret_id).unwrap();
                prop_assert_eq!(&found.body.secret_id, &token.body.secret_id);
            }
        }
        prop_assert_eq!(first.state.digest(), second.state.digest());
        prop_assert_eq!(all(&first.state), all(&second.state));
    }
}
