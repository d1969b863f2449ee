//! How a drain begins, changes, ends and completes.

use super::*;
use crate::wire::body::node::{LastDrain, go_time, go_zero_time};

fn strategy(deadline: i64) -> Option<DrainStrategy> {
    Some(DrainStrategy { deadline, ignore_system_jobs: true, ..DrainStrategy::default() })
}

fn last(started: u64, updated: u64, status: &str) -> LastDrain {
    LastDrain {
        started_at: go_time(time_at(started)),
        updated_at: go_time(time_at(updated)),
        status: status.into(),
        accessor_id: "token:a".into(),
        meta: Some(texts(&[("why", "rust")])),
    }
}

#[test]
fn a_drain_begins_and_completes() {
    let mut world = World::of([sent("a").command()]);
    let applied = world.apply(drain("a", strategy(60_000_000_000), false));
    assert_eq!(applied.result, ApplyResult::DrainStarted);
    assert_eq!(kinds(&applied), ["NodeDrain"]);
    assert_eq!(applied.touched.keys, [WatchKey::nodes(), WatchKey::node("a")]);
    let node = world.node("a");
    let set = node.drain.clone().unwrap();
    assert_eq!((set.deadline, set.ignore_system_jobs), (60_000_000_000, true));
    assert_eq!((set.started_at, set.force_deadline), (go_time(time_at(2)), go_time(time_at(62))));
    assert_eq!((node.eligible, node.modify_index), (false, 2));
    assert_eq!(node.last_drain, Some(last(2, 2, "draining")));
    assert_eq!((messages(node)[1], &*node.events[1].subsystem), ("Node drain strategy set", "Drain"));

    let applied = world.apply(complete("a"));
    assert_eq!((applied.result.clone(), kinds(&applied)), (ApplyResult::Done, vec!["NodeDrain"]));
    let node = world.node("a");
    assert_eq!((node.drain.clone(), node.eligible), (None, false), "still ineligible");
    assert_eq!(node.last_drain, Some(last(2, 3, "complete")));
    assert_eq!((messages(node)[2], &*node.events[2].subsystem), ("Node drain complete", "Drain"));
    assert_eq!(world.refuse(complete("a")), "node is not draining");
    assert_eq!(world.refuse(complete("b")), "node not found");
}

#[test]
fn a_running_drain_is_changed() {
    let mut world = World::of([sent("a").command(), drain("a", strategy(1), false)]);
    let mut update = drain("a", strategy(0), false);
    if let Command::NodeUpdateDrain { meta, accessor_id, .. } = &mut update {
        meta.clear();
        *accessor_id = "token:b".into();
    }
    assert_eq!(world.apply(update).result, ApplyResult::DrainStarted);
    let node = world.node("a");
    let changed = node.drain.clone().unwrap();
    assert_eq!(changed.started_at, go_time(time_at(2)), "it began when it began");
    assert_eq!(changed.force_deadline, go_zero_time(), "no deadline, no time of it");
    let expected = LastDrain { accessor_id: "token:b".into(), ..last(2, 3, "draining") };
    assert_eq!(node.last_drain, Some(expected), "no new words keep the old ones");
    assert_eq!(messages(node)[2], "Node drain strategy updated");
    world.apply(drain("a", strategy(-1), false));
    assert_eq!(world.node("a").drain.clone().unwrap().force_deadline, go_zero_time(), "forced now");
}

#[test]
fn a_drain_is_called_off() {
    for mark_eligible in [false, true] {
        let mut world = World::of([sent("a").command(), drain("a", strategy(0), true)]);
        assert!(!world.node("a").eligible, "a strategy is stronger than the mark");
        let applied = world.apply(drain("a", None, mark_eligible));
        assert_eq!((applied.result.clone(), kinds(&applied)), (ApplyResult::Done, vec!["NodeDrain"]));
        let node = world.node("a");
        assert_eq!((node.drain.clone(), node.eligible), (None, mark_eligible));
        assert_eq!(node.last_drain, Some(last(2, 3, "canceled")));
        assert_eq!(messages(node)[2], "Node drain disabled");
        // The next one is a new one.
        world.apply(drain("a", strategy(0), false));
        assert_eq!(world.node("a").last_drain, Some(last(4, 4, "draining")));
    }
}

#[test]
fn no_drain_to_call_off() {
    let mut world = World::of([sent("a").command(), eligibility("a", "ineligible")]);
    let before = messages(world.node("a")).len();
    world.apply(drain("a", None, false));
    assert!(!world.node("a").eligible);
    world.apply(drain("a", None, true));
    let node = world.node("a");
    assert_eq!((node.eligible, node.last_drain.clone(), messages(node).len()), (true, None, before));
    assert_eq!(world.refuse(drain("b", None, true)), "node not found");
    world.apply(drain("a", strategy(i64::MAX), false));
    assert_eq!(world.node("a").drain.clone().unwrap().force_deadline, go_time(i64::MAX), "the end of time");
}
