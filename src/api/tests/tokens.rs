//! ACL.Bootstrap and the methods about tokens: what is written, what is refused, what is shown.

use super::acl_world::*;
use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::acl::{
    AclTokenListResponse, AclTokenSetResponse, AclTokenUpsertResponse, SingleAclTokenResponse,
};
use crate::wire::body::node::{go_time, go_zero_time};
use crate::wire::body::query::GenericResponse;

/// A token of these fields, one request.
fn asked(fields: &[(&str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    vec![("Tokens", list(&[map(fields)]))]
}

fn client(more: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    [("Type", text("client")), ("Policies", list_of(&["p"]))].into_iter().chain(more.iter().cloned()).collect()
}

fn in_seconds(seconds: i64) -> Vec<u8> {
    go_time(NOW + seconds * 1_000_000_000).to_bytes()
}

fn ttl(seconds: i64) -> Vec<u8> {
    (seconds * 1_000_000_000).to_bytes()
}

#[track_caller]
fn one(came: &Came) -> crate::wire::body::acl::AclToken {
    let reply: AclTokenUpsertResponse = came.body();
    let [token] = &*reply.tokens else { panic!("{reply:?}") };
    assert_eq!(reply.meta.index, token.modify_index);
    token.clone()
}

#[test]
fn the_first_token_is_made_once() {
    let mut world = World::new();
    world.turn_acls_on();
    assert_eq!(
        world.call_as("", "ACL.Bootstrap", &[("BootstrapSecret", text("secret"))]).error(),
        "RPC Error:: 400,invalid acl token"
    );
    // A file without need does no harm.
    world.ctx.acl_bootstrap_reset = Some(77);
    let token = one(&world.call_as("", "ACL.Bootstrap", &[]));
    assert_eq!((&*token.name, &*token.kind, token.global), ("Bootstrap Token", "management", true));
    assert!(auth::is_uuid(&token.accessor_id) && auth::is_uuid(&token.secret_id));
    assert_ne!(token.accessor_id, token.secret_id);
    assert_eq!(token.create_time, go_time(NOW));
    assert!(matches!(world.call_as(&token.secret_id, "ACL.ListTokens", &[]), Came::Body(_)));
    let made = token.create_index;
    for (file, error) in [
        (None, format!("ACL bootstrap already done (reset index: {made})")),
        (Some(0), format!("ACL bootstrap already done (reset index: {made})")),
        (Some(made + 1), format!("Invalid bootstrap reset index (specified {}, reset index: {made})", made + 1)),
    ] {
        world.ctx.acl_bootstrap_reset = file;
        let came = world.call_as("", "ACL.Bootstrap", &[]);
        assert_eq!(came.error(), format!("RPC Error:: 400,{error}"), "{file:?}");
    }
    world.ctx.acl_bootstrap_reset = Some(made);
    let used = [("BootstrapSecret", text(&token.secret_id))];
    assert_eq!(world.call_as("", "ACL.Bootstrap", &used).error(), "RPC Error:: 400,invalid acl token");
    let second = one(&world.call_as("", "ACL.Bootstrap", &[("BootstrapSecret", text(NOBODY))]));
    assert_eq!(second.secret_id, NOBODY);
    assert!(matches!(world.call_as(NOBODY, "ACL.ListTokens", &[]), Came::Body(_)));
    // The file has been used up.
    let text = format!(
        "RPC Error:: 400,Invalid bootstrap reset index (specified {made}, reset index: {})",
        second.create_index
    );
    assert_eq!(world.call_as("", "ACL.Bootstrap", &[]).error(), text);
}

#[test]
fn a_token_is_made_by_the_server() {
    let mut world = World::with_acls();
    world.write_role("r1", "role-1", &["p"]);
    let role = |id: &str, name: &str| map(&[("ID", text(id)), ("Name", text(name))]);
    let roles = list(&[role("", "role-1"), role("r1", ""), role("r1", "another")]);
    let given =
        client(&[("Name", text("n")), ("Roles", roles), ("SecretID", text("mine")), ("ExpirationTTL", ttl(600))]);
    let token = one(&world.call_as(ROOT, "ACL.UpsertTokens", &asked(&given)));
    assert!(auth::is_uuid(&token.accessor_id) && auth::is_uuid(&token.secret_id));
    assert_eq!((token.name.as_str(), token.create_time), ("n", go_time(NOW)));
    assert_eq!(token.expiration_time, Some(go_time(NOW + 600_000_000_000)));
    let links = token.roles.unwrap();
    assert_eq!((links.len(), &*links[0].id, &*links[0].name), (1, "r1", "role-1"));
    assert!(!token.hash.is_nil());

    // A role that is renamed or removed is shown as it is now.
    world.write_role("r1", "renamed", &["p"]);
    let read = |world: &mut World| {
        let ask = [("AccessorID", text(&token.accessor_id))];
        world.call_as(ROOT, "ACL.GetToken", &ask).body::<SingleAclTokenResponse>().token.unwrap()
    };
    assert_eq!(read(&mut world).roles.unwrap()[0].name, "renamed");
    world.write(Command::AclDeleteRoles { ids: vec!["r1".to_owned()] });
    assert_eq!(read(&mut world).roles.unwrap(), []);

    // Two in one request, and in one made after it, are four.
    let pair = [("Tokens", list(&[map(&client(&[])), map(&client(&[]))]))];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let reply: AclTokenUpsertResponse = world.call_as(ROOT, "ACL.UpsertTokens", &pair).body();
        for token in reply.tokens {
            assert!(seen.insert(token.accessor_id) && seen.insert(token.secret_id));
        }
    }
    assert_eq!(seen.len(), 8);
}

#[test]
fn a_token_that_is_made_is_checked() {
    let invalid = |faults: &str| format!("token 0 invalid: {faults}");
    let one = |fault: &str| invalid(&format!("1 error occurred:\n\t* {fault}\n\n"));
    let of_kind = |kind: &str| vec![("Type", text(kind))];
    let roles = list(&[map(&[("Name", text("gone"))])]);
    let many: Vec<String> = (0..1025).map(|nth| format!("p{nth}")).collect();
    let many = list(&many.iter().map(|name| text(name)).collect::<Vec<_>>());
    let soon = "expiration time cannot be less than 1m0s in the future (was 59s)";
    for (fields, error) in [
        (of_kind("client"), one("client token missing policies or roles")),
        (of_kind(""), one("token type must be client or management")),
        (of_kind("root"), one("token type must be client or management")),
        (
            vec![("Type", text("management")), ("Policies", list_of(&["p"]))],
            one("management token cannot be associated with policies or roles"),
        ),
        (client(&[("Name", text(&"n".repeat(257)))]), one("token name too long")),
        (vec![("Type", text("client")), ("Policies", many)], one("more than 1024 policies and roles")),
        (client(&[("ExpirationTTL", ttl(59))]), one(soon)),
        (client(&[("ExpirationTime", in_seconds(59))]), one(soon)),
        (
            client(&[("ExpirationTTL", ttl(86_401))]),
            one("expiration time cannot be more than 24h0m0s in the future (was 24h0m1s)"),
        ),
        (
            client(&[("ExpirationTTL", ttl(-5))]),
            invalid(
                "3 errors occurred:\n\t* token expiration TTL '-5s' should not be negative\n\
                 \t* expiration time cannot be before create time\n\
                 \t* expiration time cannot be less than 1m0s in the future (was -5s)\n\n",
            ),
        ),
        (client(&[("ExpirationTime", b"\xa3abc".to_vec())]), one("expiration time is not a time")),
        (vec![("Type", text("client")), ("Roles", roles)], "cannot find role gone".to_owned()),
        (client(&[("AccessorID", text(NOBODY))]), format!("cannot find token {NOBODY}")),
        (client(&[("AccessorID", text("x")), ("SecretID", text(NOBODY))]), "cannot find token x".to_owned()),
        (
            vec![("Type", text("management")), ("AccessorID", text(NOBODY)), ("SecretID", text(NOBODY))],
            format!("cannot find token {NOBODY}"),
        ),
        (client(&[("AccessorID", text(NOBODY)), ("SecretID", text(ROOT))]), one("secret ID is in use")),
        (client(&[("AccessorID", text(NOBODY)), ("SecretID", text(SECRET))]), one("secret ID is in use")),
    ] {
        let mut world = World::with_acls();
        let before = world.written.len();
        let came = world.call_as(ROOT, "ACL.UpsertTokens", &asked(&fields));
        assert_eq!(came.error(), format!("RPC Error:: 400,{error}"));
        assert_eq!(world.written.len(), before);
    }
    for fields in [
        client(&[("ExpirationTTL", ttl(60))]),
        client(&[("ExpirationTTL", ttl(86_400))]),
        client(&[("ExpirationTime", go_zero_time().to_bytes())]),
        client(&[("Name", text(&"n".repeat(256)))]),
        client(&[("AccessorID", text(NOBODY)), ("SecretID", text(NOBODY))]),
        vec![("Type", text("management"))],
    ] {
        let came = World::with_acls().call_as(ROOT, "ACL.UpsertTokens", &asked(&fields));
        assert!(matches!(came, Came::Body(_)), "{came:?}");
    }
}

#[test]
fn several_tokens_are_of_one_kind_and_each_once() {
    let mut world = World::with_acls();
    let mut upsert = |tokens: &[Vec<u8>]| world.call_as(ROOT, "ACL.UpsertTokens", &[("Tokens", list(tokens))]);
    assert_eq!(upsert(&[]).error(), "RPC Error:: 400,must specify as least one token");
    let global = map(&client(&[("Global", truth(true))]));
    let text_of_mixed = "RPC Error:: 400,cannot upsert mixed global and non-global tokens";
    assert_eq!(upsert(&[global, map(&client(&[]))]).error(), text_of_mixed);
    let upload = |id: &str, secret: &str| map(&client(&[("AccessorID", text(id)), ("SecretID", text(secret))]));
    let twice = "RPC Error:: 400,token 1 invalid: 1 error occurred:\n\t* it is given twice\n\n";
    assert_eq!(upsert(&[upload(NOBODY, NOBODY), upload(NOBODY, OTHER)]).error(), twice);
    assert_eq!(upsert(&[upload(NOBODY, NOBODY), upload(OTHER, NOBODY)]).error(), twice);
    // The number is that of the one that is wrong.
    let came = upsert(&[map(&client(&[])), map(&[("Type", text("x"))])]);
    assert!(came.error().starts_with("RPC Error:: 400,token 1 invalid: "), "{came:?}");
}

#[test]
fn what_a_token_is_cannot_be_changed() {
    let mut world = World::with_acls();
    let token = one(&world.call_as(ROOT, "ACL.UpsertTokens", &asked(&client(&[("ExpirationTTL", ttl(600))]))));
    let known = |more: &[(&'static str, Vec<u8>)]| {
        let mut fields = vec![
            ("AccessorID", text(&token.accessor_id)),
            ("SecretID", text("another")),
            ("Type", text("client")),
            ("Name", text("new name")),
            ("Policies", list_of(&["q"])),
            ("ExpirationTTL", ttl(600)),
            ("ExpirationTime", in_seconds(600)),
        ];
        fields.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        fields.extend(more.iter().cloned());
        fields
    };
    for (more, fault) in [
        (("Global", truth(true)), "cannot toggle global mode"),
        (("ExpirationTTL", ttl(601)), "cannot update expiration TTL"),
        (("ExpirationTime", in_seconds(601)), "cannot update expiration time"),
        (("ExpirationTime", b"\xc0".to_vec()), "cannot update expiration time"),
    ] {
        let came = world.call_as(ROOT, "ACL.UpsertTokens", &asked(&known(&[more])));
        let error = format!("RPC Error:: 400,token 0 invalid: 1 error occurred:\n\t* {fault}\n\n");
        assert_eq!(came.error(), error);
    }
    // Near its end it can still be written.
    world.ctx.wall = WallTime::from_unix_nanos(NOW + 590_000_000_000);
    let written = one(&world.call_as(ROOT, "ACL.UpsertTokens", &asked(&known(&[]))));
    assert_eq!((&written.secret_id, &written.create_time), (&token.secret_id, &token.create_time));
    assert_eq!((written.create_index, written.name.as_str()), (token.create_index, "new name"));
    assert_eq!(written.policies, Some(vec!["q".to_owned()]));
    assert!(written.modify_index > token.modify_index && written.hash != token.hash);
}

#[test]
fn tokens_are_removed_all_or_none() {
    let mut world = World::with_acls();
    world.write_token(1, &["p"], &[], 0);
    world.write_token(2, &["p"], &[], 0);
    let mut delete = |ids: &[&str]| world.call_as(ROOT, "ACL.DeleteTokens", &[("AccessorIDs", list_of(ids))]);
    let (one, two) = (accessor(1), accessor(2));
    for (ids, error) in [
        (&[][..], "must specify as least one token".to_owned()),
        (&["a", &*one, "b"], "Cannot delete nonexistent tokens: a, b".to_owned()),
        (&[&*one, ROOT_ACCESSOR], "cannot delete mixed global and non-global tokens".to_owned()),
    ] {
        assert_eq!(delete(ids).error(), format!("RPC Error:: 400,{error}"));
    }
    assert!(delete(&[&one, &two]).body::<GenericResponse>().meta.index > 0);
    assert_eq!(delete(&[&one]).error(), format!("RPC Error:: 400,Cannot delete nonexistent tokens: {one}"));
}

fn listed(world: &mut World, fields: &[(&str, Vec<u8>)]) -> (Vec<String>, String) {
    let came = world.call_as(ROOT, "ACL.ListTokens", fields);
    let reply: AclTokenListResponse = came.body();
    let Came::Body(bytes) = &came else { unreachable!() };
    let shown = String::from_utf8_lossy(bytes);
    assert!(!shown.contains("5ec0de00") && !shown.contains(ROOT) && !shown.contains("SecretID"), "{shown}");
    (reply.tokens.into_iter().map(|token| token.accessor_id).collect(), reply.meta.next_token)
}

#[test]
fn tokens_are_listed_in_the_order_they_were_made() {
    let mut world = World::with_acls();
    // Made in another order than that of their accessors.
    for nth in [3, 1, 2] {
        world.write_token(nth, &["p"], &[], 0);
    }
    let made = [ROOT_ACCESSOR.to_owned(), accessor(3), accessor(1), accessor(2)];
    assert_eq!(listed(&mut world, &[]), (made.to_vec(), String::new()));
    assert_eq!(listed(&mut world, &[("GlobalOnly", truth(true))]).0, [ROOT_ACCESSOR]);
    assert_eq!(listed(&mut world, &[("Prefix", text("acce"))]).0, [accessor(1), accessor(2), accessor(3)]);
    assert_eq!(listed(&mut world, &[("Prefix", text(&accessor(2)))]).0, [accessor(2)]);
    assert_eq!(listed(&mut world, &[("Filter", text("Name == \"token 3\""))]).0, [accessor(3)]);
    // Not even a filter finds out a secret.
    let filter = [("Filter", text(&format!("SecretID == \"{ROOT}\"")))];
    assert_eq!(listed(&mut world, &filter).0, Vec::<String>::new());

    let index = |nth: u8| world.state.token(&accessor(nth)).unwrap().body.create_index;
    let (third, first) = (format!("{}.{}", index(3), accessor(3)), format!("{}.{}", index(1), accessor(1)));
    let page = |size: u64, token: &str, reverse: bool| {
        [("PerPage", number(size)), ("NextToken", text(token)), ("Reverse", truth(reverse))]
    };
    assert_eq!(listed(&mut world, &page(2, "", false)), (made[..2].to_vec(), first.clone()));
    assert_eq!(listed(&mut world, &page(2, &first, false)), (made[2..].to_vec(), String::new()));
    assert_eq!(listed(&mut world, &page(2, "", true)), (vec![accessor(2), accessor(1)], third.clone()));
    assert_eq!(listed(&mut world, &page(2, &third, true)).0, [accessor(3), ROOT_ACCESSOR.to_owned()]);
    let mut by_accessor = page(2, "", false).to_vec();
    by_accessor.push(("Prefix", text("acce")));
    assert_eq!(listed(&mut world, &by_accessor), (vec![accessor(1), accessor(2)], accessor(3)));
    let came = world.call_as(ROOT, "ACL.ListTokens", &page(2, "x", false));
    assert!(came.error().starts_with("RPC Error:: 400,failed to create result paginator: "), "{came:?}");
}

#[test]
fn a_prefix_is_the_beginning_of_a_uuid() {
    let mut world = World::with_acls();
    for (prefix, why) in [
        ("a", "Input (without hyphens) must be even length"),
        ("acce5500-0", "Input (without hyphens) must be even length"),
        ("zz", "Invalid UUID: encoding/hex: invalid byte: U+007A 'z'"),
        ("a-b-c-d-e-f", "UUID should have maximum of 4 \"-\"; got 5"),
        (&*"a".repeat(38), "Invalid UUID length. UUID have 36 characters; got 38"),
    ] {
        let came = world.call_as(ROOT, "ACL.ListTokens", &[("Prefix", text(prefix))]);
        assert_eq!(came.error(), format!("acl token lookup failed: index error: {why}"));
    }
}

#[test]
fn a_token_is_read_by_its_owner_and_by_management() {
    let mut world = World::with_acls();
    let (first, second) = (world.write_token(1, &["p"], &[], 0), world.write_token(2, &["p"], &[], 0));
    let mut get = |token: &str, id: &str| world.call_as(token, "ACL.GetToken", &[("AccessorID", text(id))]);
    for (token, id, allowed) in [
        (&*first, 1, true),
        (&first, 2, false),
        (&second, 2, true),
        (ROOT, 1, true),
        ("", 1, false),
        (SECRET, 1, false),
    ] {
        let came = get(token, &accessor(id));
        match allowed {
            true => {
                let reply: SingleAclTokenResponse = came.body();
                let token = reply.token.unwrap();
                assert_eq!((token.accessor_id, reply.meta.index), (accessor(id), token.modify_index));
                assert!(!token.secret_id.is_empty());
            }
            false => assert_eq!(came.error(), DENIED),
        }
    }
    assert_eq!(get(&first, NOBODY).error(), DENIED);
    let reply: SingleAclTokenResponse = get(ROOT, NOBODY).body();
    assert_eq!((reply.token, reply.meta.index), (None, 4));
    let wrong = "acl token lookup failed: index error: UUID must be 36 characters";
    assert_eq!((get(ROOT, "x").error(), get(ROOT, "").error()), (wrong, wrong));
    let ask = [("AccessorID", text(NOBODY)), ("MinQueryIndex", number(4))];
    let Came::Park(park) = world.call_as(ROOT, "ACL.GetToken", &ask) else { panic!() };
    assert_eq!(park.keys, [WatchKey::acl()]);
    let ids = list_of(&[&accessor(1), NOBODY, ROOT_ACCESSOR]);
    let reply: AclTokenSetResponse = world.call_as(ROOT, "ACL.GetTokens", &[("AccessorIDS", ids)]).body();
    assert_eq!(reply.tokens.keys().collect::<Vec<_>>(), [ROOT_ACCESSOR, &accessor(1)]);
}

#[test]
fn a_secret_resolves_to_its_token() {
    let mut world = World::with_acls();
    let token = world.write_token(1, &["p"], &[], 60);
    let resolve = |world: &mut World, secret: &str| {
        let reply: SingleAclTokenResponse = world.call_as("", "ACL.ResolveToken", &[("SecretID", text(secret))]).body();
        assert!(reply.meta.index >= 1);
        reply.token.map(|token| token.accessor_id)
    };
    assert_eq!(resolve(&mut world, &token), Some(accessor(1)));
    for nobody in ["", NOBODY, SECRET, &accessor(1)] {
        assert_eq!(resolve(&mut world, nobody), None);
    }
    world.ctx.wall = WallTime::from_unix_nanos(NOW + 60_000_000_000);
    assert_eq!(resolve(&mut world, &token), None);
}

#[test]
fn what_is_not_served_says_so() {
    let mut world = World::with_acls();
    for method in ["ACL.Login", "ACL.OIDCAuthURL", "ACL.UpsertOneTimeToken", "ACL.CreateClientIntroductionToken"] {
        for token in ["", ROOT] {
            let error = format!("RPC Error:: 501,not served by holdfast: {method}");
            assert_eq!(world.call_as(token, method, &[]).error(), error);
        }
    }
    for (method, name) in [("ACL.ListAuthMethods", "AuthMethods"), ("ACL.ListBindingRules", "ACLBindingRules")] {
        let Came::Body(bytes) = world.call_as(ROOT, method, &[]) else { panic!() };
        let mut json = String::new();
        crate::wire::json::to_json(&bytes, &mut json).unwrap();
        assert!(json.contains(&format!("\"{name}\":[]")) && json.contains("\"Index\":1"), "{json}");
    }
    assert_eq!(world.call_as("", "ACL.ListBindingRules", &[]).error(), DENIED);
}
