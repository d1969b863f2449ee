//! Namespace.*.

use super::acl_world::*;
use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::namespace::{NamespaceListResponse, NamespaceSetResponse, SingleNamespaceResponse};
use crate::wire::body::query::GenericResponse;
use crate::wire::entry::var::{VarApply, VarOp};

fn named(names: &[&str]) -> [(&'static str, Vec<u8>); 1] {
    [("Namespaces", list(&names.iter().map(|name| texts(&[("Name", name)])).collect::<Vec<_>>()))]
}

fn listed(world: &mut World, token: &str, prefix: &str) -> (Vec<String>, u64) {
    let reply: NamespaceListResponse =
        world.call_as(token, "Namespace.ListNamespaces", &[("Prefix", text(prefix))]).body();
    (reply.namespaces.into_iter().map(|namespace| namespace.name).collect(), reply.meta.index)
}

#[test]
fn the_default_namespace_is_there_from_the_start() {
    let mut world = World::new();
    assert_eq!(listed(&mut world, "", ""), (vec!["default".to_owned()], 1));
    let ask = [("Name", text("default"))];
    let reply: SingleNamespaceResponse = world.call_as("", "Namespace.GetNamespace", &ask).body();
    let default = reply.namespace.unwrap();
    assert_eq!((&*default.description, default.create_index, reply.meta.index), ("Default shared namespace", 1, 1));
}

#[test]
fn namespaces_are_checked_when_they_are_written() {
    let one = |name: &str, fault: &str| format!("Invalid namespace {name:?}: 1 error occurred:\n\t* {fault}\n\n");
    let bad = "invalid name \"a b\". Must match regex ^[a-zA-Z0-9-]{1,128}$";
    let long = map(&[("Name", text("n")), ("Description", text(&"d".repeat(257)))]);
    for (fields, error) in [
        (vec![], "must specify at least one namespace".to_owned()),
        (named(&["ok", "a b"]).to_vec(), one("a b", bad)),
        (named(&["*"]).to_vec(), one("*", &bad.replace("a b", "*"))),
        (named(&[""]).to_vec(), one("", &bad.replace("a b", ""))),
        (vec![("Namespaces", list(&[long]))], one("n", "description longer than 256")),
    ] {
        let mut world = World::new();
        assert_eq!(world.call_as("", "Namespace.UpsertNamespaces", &fields).error(), error);
        assert!(world.written.is_empty());
    }
}

#[test]
fn namespaces_are_made_read_and_removed() {
    let mut world = World::new();
    let one = map(&[
        ("Name", text("apps")),
        ("Description", text("d")),
        ("Quota", text("q")),
        ("Meta", texts(&[("owner", "us")])),
        ("Capabilities", map(&[("EnabledTaskDrivers", list_of(&["docker"]))])),
    ]);
    let index = world.call_as("", "Namespace.UpsertNamespaces", &[("Namespaces", list(&[one]))]);
    let index = index.body::<GenericResponse>().meta.index;
    let reply: SingleNamespaceResponse = world.call_as("", "Namespace.GetNamespace", &[("Name", text("apps"))]).body();
    let apps = reply.namespace.unwrap();
    assert_eq!((apps.description.as_str(), apps.quota.as_str(), apps.create_index), ("d", "q", index));
    assert_eq!(
        (apps.meta.unwrap()["owner"].as_str(), apps.capabilities.is_nil(), reply.meta.index),
        ("us", false, index)
    );
    let set = [("Namespaces", list_of(&["apps", "gone"]))];
    let reply: NamespaceSetResponse = world.call_as("", "Namespace.GetNamespaces", &set).body();
    assert_eq!(reply.namespaces.keys().collect::<Vec<_>>(), ["apps"]);
    assert_eq!(listed(&mut world, "", "a").0, ["apps"]);
    let wait = [("Name", text("gone")), ("MinQueryIndex", number(index))];
    let Came::Park(park) = world.call_as("", "Namespace.GetNamespace", &wait) else { panic!() };
    assert_eq!(park.keys, [WatchKey::namespaces()]);

    let mut delete = |names: &[&str]| {
        let before = world.written.len();
        let came = world.call_as("", "Namespace.DeleteNamespaces", &[("Namespaces", list_of(names))]);
        (came, world.written.len() - before)
    };
    for (names, error, entries) in [
        (&[][..], "must specify at least one namespace to delete", 0),
        (&["apps", "default"], "can not delete default namespace", 0),
        // An entry is used up, as in Nomad.
        (&["apps", "gone"], "namespace not found", 1),
    ] {
        let (came, used) = delete(names);
        assert_eq!((came.error(), used), (error, entries));
    }
    assert!(delete(&["apps"]).0.body::<GenericResponse>().meta.index > index);
    assert_eq!(delete(&["apps"]).0.error(), "namespace not found");
}

/// What stands in the way is named with its region, also when it was written just before.
#[test]
fn a_namespace_with_variables_stays() {
    let mut world = World::new();
    world.call_as("", "Namespace.UpsertNamespaces", &named(&["apps"]));
    let op = VarOp { namespace: "apps".into(), path: "p".into(), ..VarOp::default() };
    let request = map(&[("Namespaces", list_of(&["apps"])), ("Region", text("global"))]);
    let early = run_call(
        method("Namespace.DeleteNamespaces").unwrap(),
        &request,
        0,
        &world.caller,
        false,
        &world.state,
        &world.ctx,
    );
    world.write(Command::VarApply(VarApply { ops: vec![op] }));
    let error = "1 error occurred:\n\t* namespace \"apps\" has variables associated with it in regions: [global]\n\n";
    let came = world.call_as("", "Namespace.DeleteNamespaces", &[("Namespaces", list_of(&["apps"]))]);
    assert_eq!(came.error(), error);
    let Outcome::Propose { command, finish: then } = early else { panic!("{early:?}") };
    let resolved = world.write(command);
    let Outcome::Reply(reply) = finish(&then, &resolved, &world.state, &world.ctx) else { panic!() };
    assert_eq!(reply.result, ReplyResult::Error(error.to_owned()));
    assert!(world.state.namespace("apps").is_some());
}

#[test]
fn callers_see_the_namespaces_they_have_rights_in() {
    let mut world = World::with_acls();
    let made = world.call_as(ROOT, "Namespace.UpsertNamespaces", &named(&["apps", "apps-2", "web"]));
    assert!(matches!(made, Came::Body(_)), "{made:?}");
    let token = world
        .token_with(1, "namespace \"apps*\" {\n policy = \"read\"\n}\nnamespace \"apps-2\" {\n policy = \"deny\"\n}");
    assert_eq!(listed(&mut world, &token, "").0, ["apps"]);
    assert_eq!(listed(&mut world, "", "").0, Vec::<String>::new());
    assert_eq!(listed(&mut world, ROOT, "").0, ["apps", "apps-2", "default", "web"]);
    for (name, allowed) in [("apps", true), ("apps-9", true), ("apps-2", false), ("web", false), ("default", false)] {
        let came = world.call_as(&token, "Namespace.GetNamespace", &[("Name", text(name))]);
        assert_eq!(matches!(came, Came::Body(_)), allowed, "{name}");
    }
}
