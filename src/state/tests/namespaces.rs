//! Namespaces: what each command does.

use super::acl::{namespace, owned, refusal, remove_namespaces};
use super::vars::{all, delete, set};
use super::*;
use crate::wire::entry::var::VarOp;

#[test]
fn namespaces_come_and_go_but_for_default() {
    let mut world = World::default();
    let names = |state: &State| state.namespaces_from("").map(|one| one.name.clone()).collect::<Vec<_>>();
    for state in [&State::new(), &world.state] {
        let default = state.namespace("default").unwrap();
        assert_eq!((names(state), state.namespaces_index()), (owned(&["default"]), Index(1)));
        assert_eq!(
            (&*default.description, default.create_index, default.modify_index),
            ("Default shared namespace", 1, 1)
        );
    }
    world.apply(Command::Noop);
    let applied = world.apply(namespace("dev"));
    assert_eq!((&applied.touched.keys[..], &applied.events[..]), (&[WatchKey::namespaces()][..], &[][..]));
    world.apply(namespace("ops"));
    world.apply(namespace("dev"));
    let dev = world.state.namespace("dev").unwrap();
    assert_eq!((dev.create_index, dev.modify_index, dev.hash.is_nil()), (2, 4, false));
    world.apply(namespace("default"));
    let default = world.state.namespace("default").unwrap();
    assert_eq!((default.create_index, default.modify_index, &*default.description), (1, 5, ""));

    for (asked, why) in
        [(&["dev", "default"][..], "can not delete default namespace"), (&["dev", "nope"], "namespace not found")]
    {
        assert_eq!(refusal(world.apply(remove_namespaces(asked))), why);
    }
    assert_eq!((names(&world.state), world.state.namespaces_index()), (owned(&["default", "dev", "ops"]), Index(5)));
    let applied = world.apply(remove_namespaces(&["dev", "ops", "dev"]));
    assert_eq!(applied.touched.keys, [WatchKey::namespaces()]);
    assert_eq!((names(&world.state), world.state.namespaces_index()), (owned(&["default"]), Index(8)));
    assert_eq!(world.apply(remove_namespaces(&[])), Applied::default());
    assert_eq!(world.apply(Command::NamespaceUpsert { namespaces: vec![] }), Applied::default());
}

#[test]
fn a_namespace_with_variables_stays() {
    let mut world = World::of([namespace("dev"), namespace("ops")]);
    let in_dev = |op: VarOp| VarOp { namespace: "dev".into(), ..op };
    world.apply(all([in_dev(set("a"))]));
    for asked in [&["dev"][..], &["ops", "dev"]] {
        let why = refusal(world.apply(remove_namespaces(asked)));
        assert_eq!(why, "namespace \"dev\" has variables associated with it");
    }
    world.apply(all([in_dev(delete("a"))]));
    assert_eq!(world.apply(remove_namespaces(&["dev"])).result, ApplyResult::Done);
    assert!(world.state.namespace("dev").is_none() && world.state.namespace("ops").is_some());
}
