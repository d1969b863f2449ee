//! Keys of what queries wait for.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn keys_of_different_things_differ() {
    let keys = [
        WatchKey::node("a"),
        WatchKey::node("b"),
        WatchKey::nodes(),
        WatchKey::node_allocs("a"),
        WatchKey::signing_keys(),
        WatchKey::var("default", "a"),
        WatchKey::var("default", "b"),
        WatchKey::var("other", "a"),
        WatchKey::vars_under("default", "a"),
        WatchKey::vars_under("default", ""),
        WatchKey::vars_under("*", "a"),
        WatchKey::vars_under("*", ""),
        WatchKey::vars_under("", "*"),
        WatchKey::vars_under("other", "a"),
        WatchKey::acl(),
        WatchKey::namespaces(),
        WatchKey::operator(),
        // The same letters, cut at another place.
        WatchKey::var("ab", "c"),
        WatchKey::var("a", "bc"),
    ];
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), keys.len());
}

#[test]
fn a_prefix_tells_its_length() {
    for (prefix, bytes) in [("", 0), ("a", 1), ("a/b/", 4), ("ü", 2), (&*"x".repeat(128), 128)] {
        assert_eq!(WatchKey::vars_under("default", prefix).prefix_bytes(), Some(bytes), "{prefix}");
    }
    // Longer than any path: not mixed up with a short one.
    assert_eq!(WatchKey::vars_under("default", &"x".repeat(700)).prefix_bytes(), Some(254));
    for key in [WatchKey::node("a"), WatchKey::nodes(), WatchKey::var("default", "a"), WatchKey::acl()] {
        assert_eq!(key.prefix_bytes(), None);
    }
}

#[test]
fn whatever_was_touched_is_not_empty() {
    assert!(Touched::default().is_empty());
    assert!(!Touched::from(vec![WatchKey::acl()]).is_empty());
    assert!(!Touched { vars: vec![("default".into(), "a".into())], ..Touched::default() }.is_empty());
    // R1.95
    assert!(!Touched { everything: true, ..Touched::default() }.is_empty());
}

proptest! {
    #[test]
    fn names_lead_to_keys_of_their_own(a in "[a-z/]{0,20}", b in "[a-z/]{0,20}") {
        prop_assert_eq!(a == b, WatchKey::var("default", &a) == WatchKey::var("default", &b));
        prop_assert_eq!(a == b, WatchKey::vars_under("*", &a) == WatchKey::vars_under("*", &b));
        prop_assert_eq!(a == b, WatchKey::node(&a) == WatchKey::node(&b));
    }
}
