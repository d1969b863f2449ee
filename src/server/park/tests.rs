//! Groups of queries: who waits, who is woken, and that no touch is lost.

use super::*;
use crate::api::outcome::{Outcome, Reply};
use crate::api::{Access, Weight};

static METHOD: Method = Method {
    name: "Test.Get",
    access: Access::Read,
    weight: Weight::Light,
    heartbeat: false,
    run: |_, _, _| Outcome::Reply(Reply::default()),
};

fn query(body: &[u8]) -> Query {
    let caller = Caller { peer: ([127, 0, 0, 1], 1).into(), tls_names: None, proven_node: None, good_token: None };
    Query { method: &METHOD, body: body.into(), base: 0, caller: Arc::new(caller) }
}

#[test]
fn equal_queries_are_one_group_and_wake_once() {
    let mut parked = Parked::default();
    let key = WatchKey::node("a");
    let a = parked.park(CallId(1), query(b"x"), &[key], 0).expect("parks");
    let b = parked.park(CallId(2), query(b"x"), &[key], 0).expect("parks");
    let c = parked.park(CallId(3), query(b"y"), &[WatchKey::node("b")], 0).expect("parks");
    assert_eq!((a.group, parked.groups(), parked.waiters()), (b.group, 2, 3));
    assert_ne!(a.group, c.group);
    // R1.87: another key wakes nobody.
    assert!(parked.touch(&vec![WatchKey::node("c")].into(), 5).is_empty());
    assert_eq!(parked.touch(&vec![key].into(), 6), [a.group]);
    assert!(parked.start(a.group));
    assert_eq!(parked.resolve(a.group), [CallId(1), CallId(2)]);
    assert_eq!((parked.groups(), parked.waiters()), (1, 1));
}

#[test]
fn a_touch_during_a_run_is_never_lost() {
    // R1.94
    let mut parked = Parked::default();
    let key = WatchKey::nodes();
    let place = parked.park(CallId(1), query(b"x"), &[key], 0).expect("parks");
    assert!(parked.start(place.group));
    assert!(parked.touch(&vec![key].into(), 7).is_empty());
    assert!(parked.wait_on(place.group, &[key], 0), "touched while it ran: again");
    assert!(parked.start(place.group));
    assert!(!parked.wait_on(place.group, &[key], 7));
    // A first run that began before the touch and parks after it.
    assert_eq!(parked.park(CallId(2), query(b"y"), &[key], 6), None);
    assert!(parked.park(CallId(2), query(b"y"), &[key], 7).is_some());
}

#[test]
fn leaving_tells_who_moved_and_empties_the_tables() {
    // R1.97
    let mut parked = Parked::default();
    let key = WatchKey::nodes();
    let places: Vec<Place> = (1..=3).map(|n| parked.park(CallId(n), query(b"x"), &[key], 0).expect("parks")).collect();
    assert_eq!(parked.leave(places[0]), Some(CallId(3)));
    assert_eq!(parked.leave(Place { group: places[0].group, at: 1 }), None);
    assert_eq!(parked.leave(Place { group: places[0].group, at: 0 }), None);
    assert_eq!((parked.groups(), parked.waiters(), parked.by_watch.len(), parked.by_query.len()), (0, 0, 0, 0));
}

fn var(namespace: &str, path: &str) -> Touched {
    Touched { vars: vec![(namespace.into(), path.into())], ..Touched::default() }
}

// R1.87: per path and per prefix.
#[test]
fn a_variable_wakes_its_own_readers_and_those_of_its_prefixes() {
    let mut parked = Parked::default();
    let keys = [
        WatchKey::var("default", "app/db"),
        WatchKey::vars_under("default", "app/"),
        WatchKey::vars_under("default", ""),
        WatchKey::vars_under("*", "app"),
        WatchKey::vars_under("other", "app/"),
        WatchKey::vars_under("default", "app/db/one"),
        WatchKey::var("default", "app/dc"),
    ];
    let groups: Vec<Key> = (0..)
        .zip(&keys)
        .map(|(n, key)| parked.park(CallId(n), query(&[n as u8]), &[*key], 0).expect("parks").group)
        .collect();
    assert_eq!(parked.touch(&var("default", "app/db"), 1), groups[..4]);
    assert!(parked.touch(&var("other", "app"), 2).is_empty(), "too short for one, woken already the other");
    assert_eq!(parked.touch(&var("other", "app/x"), 3), [groups[4]]);
    for group in &groups {
        parked.resolve(*group);
    }
    assert!(parked.lengths.is_empty() && parked.by_watch.is_empty(), "nothing is left of those who went");
}

// R1.94: a list that ran on another thread while a variable under its prefix was written.
#[test]
fn a_prefix_touched_before_it_is_parked_is_not_lost() {
    let mut parked = Parked::default();
    parked.touch(&var("default", "app/db"), 7);
    for key in
        [WatchKey::vars_under("default", "app/"), WatchKey::vars_under("*", ""), WatchKey::var("default", "app/db")]
    {
        assert_eq!(parked.park(CallId(1), query(b"x"), &[key], 6), None);
    }
    assert!(parked.park(CallId(1), query(b"y"), &[WatchKey::vars_under("default", "web/")], 6).is_some());
    let place = parked.park(CallId(2), query(b"x"), &[WatchKey::vars_under("default", "app/")], 7).expect("parks");
    // What was forgotten counts as touched.
    for index in 8..8 + 2 * RECENT_TOUCHES as u64 {
        parked.touch(&var("default", &format!("web/{index}")), index);
    }
    assert_eq!(parked.park(CallId(3), query(b"z"), &[WatchKey::vars_under("default", "app/")], 8), None);
    assert!(parked.recent.vars.len() <= RECENT_TOUCHES && parked.recent.last.len() <= RECENT_TOUCHES);
    assert!(parked.start(place.group), "nobody woke it for other prefixes");
}

// R1.95
#[test]
fn a_restored_state_wakes_everybody() {
    let mut parked = Parked::default();
    let keys = [WatchKey::node("a"), WatchKey::vars_under("*", "x"), WatchKey::namespaces()];
    let groups: Vec<Key> = (0..)
        .zip(&keys)
        .map(|(n, key)| parked.park(CallId(n), query(&[n as u8]), &[*key], 0).expect("parks").group)
        .collect();
    assert!(parked.start(groups[0]));
    let everything = Touched { everything: true, ..Touched::default() };
    assert_eq!(parked.touch(&everything, 9), groups[1..]);
    assert!(parked.wait_on(groups[0], &keys[..1], 5), "touched while it ran");
    assert_eq!(parked.park(CallId(9), query(b"new"), &[WatchKey::node("b")], 8), None);
}

// Against asking every waiting key about every touch.
#[test]
fn no_touch_is_lost_whatever_waits() {
    let mut rng = crate::base::rng::Rng::from_seed(4);
    let path = |rng: &mut crate::base::rng::Rng| -> String {
        let length = rng.below(6);
        (0..length).map(|_| ['a', '/'][rng.below(2) as usize]).collect()
    };
    for _ in 0..200 {
        let mut parked = Parked::default();
        let mut waiting = Vec::new();
        for n in 0..rng.below(8) {
            let (exact, prefix) = (rng.chance(1, 3), path(&mut rng));
            let namespace = ["d", "e", "*"][rng.below(3) as usize];
            let key = if exact { WatchKey::var(namespace, &prefix) } else { WatchKey::vars_under(namespace, &prefix) };
            let place = parked.park(CallId(n), query(&[n as u8]), &[key], 0).expect("parks");
            waiting.push((place.group, exact, namespace, prefix));
        }
        let (namespace, touched) = (["d", "e"][rng.below(2) as usize], path(&mut rng));
        let expected: Vec<Key> = waiting
            .iter()
            .filter(|(_, exact, of, prefix)| match exact {
                true => *of == namespace && *prefix == touched,
                false => (*of == "*" || *of == namespace) && touched.starts_with(prefix.as_str()),
            })
            .map(|(group, ..)| *group)
            .collect();
        assert_eq!(parked.touch(&var(namespace, &touched), 1), expected);
    }
}
