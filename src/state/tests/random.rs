//! Random sequences of commands: what holds after each, and that replicas agree.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::state::snapshot;

fn id() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn status() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["initializing", "ready", "down", "", "lost"])
}

fn registration() -> impl Strategy<Value = Command> {
    (id(), id(), any::<bool>(), status(), prop::sample::select(vec!["1.1.2", "2.0.5"])).prop_map(
        |(id, other, own, status, version)| {
            let mut said = sent(id).status(status).version(version);
            if !own {
                said.secret = format!("secret-{other}");
            }
            said.command()
        },
    )
}

fn command() -> impl Strategy<Value = Command> {
    let update = (id(), status(), any::<bool>(), prop::option::of(0u64..40)).prop_map(
        |(id, status, with_event, expected_modify_index)| Command::NodeUpdateStatus {
            node_id: id.into(),
            status: status.into(),
            event: with_event.then(NodeEvent::default),
            updated_at: 0,
            identity_signing_key_id: String::new(),
            expected_modify_index,
        },
    );
    let strategy = prop::option::of(any::<i64>())
        .prop_map(|deadline| deadline.map(|deadline| DrainStrategy { deadline, ..DrainStrategy::default() }));
    prop_oneof![
        4 => registration(),
        3 => update,
        3 => (id(), status()).prop_map(|(id, status)| heartbeat(id, status)),
        1 => prop::collection::vec(id(), 0..3).prop_map(|ids| deregister(&ids)),
        2 => (id(), strategy, any::<bool>()).prop_map(|(id, strategy, mark)| drain(id, strategy, mark)),
        2 => id().prop_map(complete),
        2 => (id(), prop::sample::select(vec!["eligible", "ineligible", "?"])).prop_map(|(id, to)| eligibility(id, to)),
        2 => (id(), 0usize..14).prop_map(|(id, count)| emit(id, &vec!["e"; count])),
        1 => id().prop_map(signing_key),
        1 => Just(Command::Noop),
        1 => prop::collection::vec(any::<u8>(), 0..50).prop_map(|node| Command::NodeRegister { node: Raw(node.into()) }),
    ]
}

/// Nodes whose ModifyIndex or presence differs.
fn changed(before: &State, after: &State) -> BTreeSet<String> {
    let both = nodes(before).into_iter().chain(nodes(after));
    let index = |state: &State, id: &str| state.node(id).map(|node| (node.create_index, node.modify_index));
    both.map(|node| node.id.to_string()).filter(|id| index(before, id) != index(after, id)).collect()
}

fn check_step(before: &State, after: &State, applied: &Applied) {
    assert_eq!(after.index().0, before.index().0 + 1);
    assert!(after.nodes_index() >= before.nodes_index());
    assert!(after.signing_keys_index() >= before.signing_keys_index());
    assert!(after.time_unix_nanos() >= before.time_unix_nanos());
    let changed = changed(before, after);
    for id in &changed {
        assert!(applied.touched.keys.contains(&WatchKey::node(id)), "{id} changed unseen");
    }
    let of_nodes =
        applied.touched.keys.iter().filter(|key| changed.iter().any(|id| **key == WatchKey::node(id))).count();
    assert_eq!(of_nodes, changed.len(), "nothing is touched that did not change"); // R1.87
    let table_changed = nodes(before) != nodes(after);
    assert_eq!(applied.touched.keys.contains(&WatchKey::nodes()), after.nodes_index() == after.index());
    assert!(!table_changed || after.nodes_index() == after.index());
    assert_eq!(applied.events.is_empty(), !table_changed);
    let keys_changed = before.signing_keys() != after.signing_keys();
    assert_eq!(applied.touched.keys.contains(&WatchKey::signing_keys()), keys_changed);
    if matches!(applied.result, ApplyResult::Refused(_)) {
        assert!(!table_changed && !keys_changed && applied.touched.keys.is_empty());
    }
    kinds(applied);
}

proptest! {
    #[test]
    fn invariants_hold_after_each_command(commands in prop::collection::vec(command(), 0..40)) {
        let mut world = World::default();
        for command in commands {
            let before = world.state.clone();
            let applied = world.apply(command);
            check_step(&before, &world.state, &applied);
            for node in world.state.nodes_from("") {
                let found = world.state.node_by_secret(&node.secret_id).unwrap();
                prop_assert_eq!(&found.secret_id, &node.secret_id);
            }
        }
    }

    #[test]
    fn replicas_that_apply_the_same_are_the_same(
        commands in prop::collection::vec(command(), 0..40), restored_at in 0usize..40,
    ) {
        let mut first = World::default();
        let mut second = World::default();
        for (nth, command) in commands.into_iter().enumerate() {
            // The second got every entry as bytes, and was restored from a snapshot on the way.
            if nth == restored_at {
                let bytes: Vec<u8> = snapshot::write(&second.state).flatten().collect();
                second.state = snapshot::read(&bytes).unwrap();
            }
            let entry = Entry { time_unix_nanos: 0, session: None, command };
            let copy = Entry::decode(&entry.encode()).unwrap();
            prop_assert_eq!(first.apply(entry.command), second.apply(copy.command));
        }
        prop_assert_eq!(first.state.digest(), second.state.digest());
        prop_assert_eq!(nodes(&first.state), nodes(&second.state));
    }
}
