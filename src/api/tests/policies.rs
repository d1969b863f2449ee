//! The methods about policies and roles.

use super::acl_world::*;
use super::*;
use crate::wire::body::acl::{
    AclPolicyListResponse, AclPolicySetResponse, AclRoleListResponse, AclRoleUpsertResponse, AclRolesByIdResponse,
    SingleAclPolicyResponse, SingleAclRoleResponse,
};
use crate::wire::body::query::GenericResponse;

const READS_NODES: &str = "node {\n policy = \"read\"\n}";

fn policy(fields: &[(&str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    vec![("Policies", list(&[map(fields)]))]
}

#[test]
fn policies_are_checked_when_they_are_written() {
    let one = |fault: &str| format!("policy 0 invalid: 1 error occurred:\n\t* {fault}\n\n");
    let named = |more: (&'static str, Vec<u8>)| policy(&[("Name", text("p")), more]);
    let job = |pairs: &[(&str, &str)]| named(("JobACL", texts(pairs)));
    for (fields, error) in [
        (vec![("Policies", list(&[]))], "must specify as least one policy".to_owned()),
        (policy(&[("Name", text("a b"))]), one("invalid name 'a b'")),
        (policy(&[("Name", text(""))]), one("invalid name ''")),
        (policy(&[("Name", text(&"n".repeat(129)))]), one(&format!("invalid name '{}'", "n".repeat(129)))),
        (named(("Description", text(&"d".repeat(257)))), one("description longer than 256")),
        (
            named(("Rules", text("node {\n policy = \"bogus\"\n}"))),
            one("failed to parse rules: Invalid node policy: \"bogus\""),
        ),
        (job(&[("JobID", "j")]), one("namespace must be set to set job ID")),
        (job(&[("Group", "g"), ("Namespace", "n")]), one("job ID must be set to set group")),
        (job(&[("Task", "t"), ("JobID", "j"), ("Namespace", "n")]), one("group must be set to set task")),
        (named(("JobACL", number(7))), one("job ACL is not a map of strings")),
        (
            policy(&[("Name", text("a.b")), ("Description", text(&"d".repeat(257)))]),
            "policy 0 invalid: 2 errors occurred:\n\t* invalid name 'a.b'\n\t* description longer than 256\n\n"
                .to_owned(),
        ),
    ] {
        let mut world = World::with_acls();
        let before = world.written.len();
        let came = world.call_as(ROOT, "ACL.UpsertPolicies", &fields);
        // The parser's own words are its own tests' matter: here it counts that they are there.
        let (came, error) = (came.error().replace('"', ""), format!("RPC Error:: 400,{error}").replace('"', ""));
        let cut = |text: &str| text.split_once("bogus").map_or(text.to_owned(), |(head, _)| head.to_owned());
        assert_eq!(cut(&came), cut(&error));
        assert_eq!(world.written.len(), before);
    }
    // Empty rules are fine.
    let mut world = World::with_acls();
    let came = world.call_as(ROOT, "ACL.UpsertPolicies", &policy(&[("Name", text("p"))]));
    assert!(came.body::<GenericResponse>().meta.index > 0);
}

#[test]
fn a_policy_is_read_with_its_rules_parsed() {
    let mut world = World::with_acls();
    let fields = policy(&[
        ("Name", text("p")),
        ("Description", text("d")),
        ("Rules", text(READS_NODES)),
        ("RulesJSON", texts(&[("Node", "a lie")])),
        ("JobACL", texts(&[("Namespace", "n"), ("JobID", "j")])),
    ]);
    let index = world.call_as(ROOT, "ACL.UpsertPolicies", &fields).body::<GenericResponse>().meta.index;
    let reply: SingleAclPolicyResponse = world.call_as(ROOT, "ACL.GetPolicy", &[("Name", text("p"))]).body();
    let read = reply.policy.unwrap();
    assert_eq!((read.rules.as_str(), read.description.as_str(), reply.meta.index), (READS_NODES, "d", index));
    assert_eq!((read.create_index, read.modify_index, read.hash.is_nil()), (index, index, false));
    let mut json = String::new();
    crate::wire::json::to_json(&read.rules_json.0, &mut json).unwrap();
    assert!(json.contains("\"Node\":{\"Policy\":\"read\"}"), "{json}");
    assert!(!read.job_acl.is_nil());
    // Only that method shows it.
    let reply: AclPolicySetResponse =
        world.call_as(ROOT, "ACL.GetPolicies", &[("Names", list_of(&["p", "gone"]))]).body();
    assert_eq!(reply.policies.len(), 1);
    assert!(reply.policies["p"].rules_json.is_nil() && reply.policies["p"].rules == READS_NODES);
    // One that is not there: whoever waits is woken by any change.
    let missing: SingleAclPolicyResponse = world.call_as(ROOT, "ACL.GetPolicy", &[("Name", text("gone"))]).body();
    assert_eq!((missing.policy, missing.meta.index), (None, index));
    let deleted = world.call_as(ROOT, "ACL.DeletePolicies", &[("Names", list_of(&["p", "gone"]))]);
    assert!(deleted.body::<GenericResponse>().meta.index > index);
    assert_eq!(
        world.call_as(ROOT, "ACL.DeletePolicies", &[]).error(),
        "RPC Error:: 400,must specify as least one policy"
    );
    assert!(world.state.policy("p").is_none());
}

fn listed(world: &mut World, token: &str, fields: &[(&str, Vec<u8>)]) -> (Vec<String>, String) {
    let reply: AclPolicyListResponse = world.call_as(token, "ACL.ListPolicies", fields).body();
    assert!(reply.meta.index >= 1);
    (reply.policies.into_iter().map(|policy| policy.name).collect(), reply.meta.next_token)
}

#[test]
fn callers_see_the_policies_they_hold() {
    let mut world = World::with_acls();
    assert_eq!(listed(&mut world, ROOT, &[]).0, Vec::<String>::new());
    for name in ["a", "anonymous", "b", "by-role", "c"] {
        world.write_policy(name, READS_NODES);
    }
    world.write_role("r1", "role-1", &["by-role", "gone"]);
    let token = world.write_token(1, &["a", "gone"], &["r1"], 0);
    assert_eq!(listed(&mut world, &token, &[]).0, ["a", "by-role"]);
    assert_eq!(listed(&mut world, "", &[]).0, ["anonymous"]);
    assert_eq!(listed(&mut world, ROOT, &[]).0, ["a", "anonymous", "b", "by-role", "c"]);
    assert_eq!(listed(&mut world, ROOT, &[("Prefix", text("b"))]).0, ["b", "by-role"]);
    let page =
        |token: &str, reverse: bool| [("PerPage", number(2)), ("NextToken", text(token)), ("Reverse", truth(reverse))];
    assert_eq!(listed(&mut world, ROOT, &page("", false)), (vec!["a".into(), "anonymous".into()], "b".into()));
    assert_eq!(listed(&mut world, ROOT, &page("c", false)), (vec!["c".into()], String::new()));
    assert_eq!(listed(&mut world, ROOT, &page("", true)), (vec!["c".into(), "by-role".into()], "b".into()));
    assert_eq!(listed(&mut world, ROOT, &[("Filter", text("Name == \"c\""))]).0, ["c"]);

    for (name, allowed) in [("a", true), ("by-role", true), ("gone", true), ("anonymous", true), ("b", false)] {
        let came = world.call_as(&token, "ACL.GetPolicy", &[("Name", text(name))]);
        assert_eq!(matches!(came, Came::Body(_)), allowed, "{name}: {came:?}");
    }
    for (names, allowed) in [(&["a", "by-role"][..], true), (&[], true), (&["a", "b"], false), (&["anonymous"], false)]
    {
        let came = world.call_as(&token, "ACL.GetPolicies", &[("Names", list_of(names))]);
        assert_eq!(matches!(came, Came::Body(_)), allowed, "{names:?}: {came:?}");
    }
}

fn role(fields: &[(&str, Vec<u8>)]) -> Vec<u8> {
    map(fields)
}

fn links(names: &[&str]) -> Vec<u8> {
    list(&names.iter().map(|name| texts(&[("Name", name)])).collect::<Vec<_>>())
}

#[test]
fn roles_are_checked_when_they_are_written() {
    let one = |fault: &str| format!("400,role 0 invalid: 1 error occurred:\n\t* {fault}\n\n");
    let good = |more: &[(&str, Vec<u8>)]| {
        let fields = [("Name", text("r")), ("Policies", links(&["p"]))];
        role(&fields.into_iter().chain(more.iter().cloned()).collect::<Vec<_>>())
    };
    for (roles, error) in [
        (vec![], "400,must specify as least one role".to_owned()),
        (vec![role(&[("Name", text("a b")), ("Policies", links(&["p"]))])], one("invalid name 'a b'")),
        (vec![role(&[("Name", text("r"))])], one("at least one policy should be specified")),
        (vec![good(&[("Description", text(&"d".repeat(257)))])], one("description longer than 256")),
        (vec![good(&[("ID", text("gone"))])], "404,cannot find role gone".to_owned()),
        (
            vec![role(&[("Name", text("known")), ("Policies", links(&["p"]))])],
            "400,role with name known already exists".to_owned(),
        ),
        (
            vec![role(&[("Name", text("r")), ("Policies", links(&["p", "gone"]))])],
            "400,cannot find policy gone".to_owned(),
        ),
        (vec![good(&[]), good(&[])], "400,role with name r is given twice".to_owned()),
    ] {
        let mut world = World::with_acls();
        world.write_policy("p", "");
        world.write_role("r1", "known", &["p"]);
        let before = world.written.len();
        let came = world.call_as(ROOT, "ACL.UpsertRoles", &[("ACLRoles", list(&roles))]);
        assert_eq!(came.error(), format!("RPC Error:: {error}"));
        assert_eq!(world.written.len(), before);
    }
}

#[test]
fn roles_are_made_replaced_and_removed() {
    let mut world = World::with_acls();
    world.write_policy("p", "");
    let roles = |fields: &[(&str, Vec<u8>)]| ("ACLRoles", list(&[role(fields)]));
    let made = roles(&[("Name", text("r")), ("Policies", links(&["p", "p"]))]);
    let reply: AclRoleUpsertResponse = world.call_as(ROOT, "ACL.UpsertRoles", &[made]).body();
    let first = reply.roles[0].clone();
    assert!(auth::is_uuid(&first.id) && !first.hash.is_nil());
    assert_eq!((first.policies.unwrap().len(), first.create_index), (1, reply.meta.index));
    let changed = roles(&[("ID", text(&first.id)), ("Name", text("renamed")), ("Policies", links(&["later"]))]);
    let lenient = [changed, ("AllowMissingPolicies", truth(true))];
    let reply: AclRoleUpsertResponse = world.call_as(ROOT, "ACL.UpsertRoles", &lenient).body();
    assert_eq!((&reply.roles[0].id, reply.roles[0].create_index), (&first.id, first.create_index));

    let mut by_name = |name: &str| {
        let reply: SingleAclRoleResponse = world.call_as(ROOT, "ACL.GetRoleByName", &[("RoleName", text(name))]).body();
        reply.role.map(|role| role.id)
    };
    assert_eq!((by_name("renamed"), by_name("r")), (Some(first.id.clone()), None));
    for (ids, error) in
        [(&[][..], "400,must specify as least one role"), (&[&*first.id, "gone"], "404,ACL role not found")]
    {
        let came = world.call_as(ROOT, "ACL.DeleteRolesByID", &[("ACLRoleIDs", list_of(ids))]);
        assert_eq!(came.error(), format!("RPC Error:: {error}"));
    }
    let gone = [("ACLRoleIDs", list_of(&[&first.id]))];
    assert!(world.call_as(ROOT, "ACL.DeleteRolesByID", &gone).body::<GenericResponse>().meta.index > 0);
    assert!(world.state.role(&first.id).is_none());
}

#[test]
fn callers_see_the_roles_they_hold() {
    let mut world = World::with_acls();
    for (id, name) in [("a1", "one"), ("a2", "two"), ("b1", "three")] {
        world.write_role(id, name, &["p"]);
    }
    let token = world.write_token(1, &[], &["a1", "b1", "gone"], 0);
    let mut listed = |token: &str, prefix: &str| {
        let reply: AclRoleListResponse = world.call_as(token, "ACL.ListRoles", &[("Prefix", text(prefix))]).body();
        assert!(reply.meta.index >= 1);
        reply.roles.into_iter().map(|role| role.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(ROOT, ""), ["a1", "a2", "b1"]);
    assert_eq!(listed(ROOT, "a"), ["a1", "a2"]);
    assert_eq!(listed(&token, ""), ["a1", "b1"]);
    assert_eq!(listed("", ""), Vec::<String>::new());
    for (id, name, allowed) in [("a1", "one", true), ("b1", "three", true), ("a2", "two", false)] {
        for (method, key, value) in [("ACL.GetRoleByID", "RoleID", id), ("ACL.GetRoleByName", "RoleName", name)] {
            let came = world.call_as(&token, method, &[(key, text(value))]);
            match allowed {
                true => assert_eq!(came.body::<SingleAclRoleResponse>().role.unwrap().id, id),
                false => assert_eq!(came.error(), DENIED),
            }
        }
    }
    assert_eq!(world.call_as(&token, "ACL.GetRoleByName", &[("RoleName", text("nope"))]).error(), DENIED);
    for (ids, allowed) in [(&["a1", "b1"][..], true), (&["a1", "a2"], false)] {
        let came = world.call_as(&token, "ACL.GetRolesByID", &[("ACLRoleIDs", list_of(ids))]);
        match allowed {
            true => assert_eq!(came.body::<AclRolesByIdResponse>().roles.len(), 2),
            false => assert_eq!(came.error(), DENIED),
        }
    }
}
