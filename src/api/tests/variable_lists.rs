//! Lists of variables: prefixes, pages and filters.

use proptest::prelude::*;

use super::variables::{ID, applied, changed, lock, set, world, write};
use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::query::QueryOptions;
use crate::wire::body::var::VariablesListResponse;

pub(super) fn list(world: &mut World, query: &QueryOptions) -> Came {
    world.call_bytes("Variables.List", &query.to_bytes())
}

pub(super) fn paths(reply: &VariablesListResponse) -> Vec<String> {
    reply.data.iter().map(|var| format!("{}.{}", var.namespace, var.path)).collect()
}

#[test]
fn lists_hold_what_lies_under_a_prefix() {
    let mut world = world();
    let empty: VariablesListResponse = list(&mut world, &QueryOptions::default()).body();
    assert_eq!((empty.data.len(), empty.meta.index), (0, 1));
    for (namespace, path) in
        [("default", "b"), ("default", "a/2"), ("default", "a/1"), ("n1", "a/9"), ("", "a"), ("n-0", "b"), ("z", "a/0")]
    {
        set(&mut world, namespace, path);
    }
    for (namespace, prefix, expected) in [
        ("", "", &["default.a", "default.a/1", "default.a/2", "default.b"][..]),
        ("default", "a/", &["default.a/1", "default.a/2"]),
        ("default", "a/1", &["default.a/1"]),
        ("default", "c", &[]),
        ("n1", "", &["n1.a/9"]),
        ("n", "", &[]),
        ("*", "a/", &["default.a/1", "default.a/2", "n1.a/9", "z.a/0"]),
        ("*", "b", &["default.b", "n-0.b"]),
        ("*", "", &["default.a", "default.a/1", "default.a/2", "default.b", "n-0.b", "n1.a/9", "z.a/0"]),
    ] {
        let query =
            QueryOptions { namespace: namespace.to_owned(), prefix: prefix.to_owned(), ..QueryOptions::default() };
        let reply: VariablesListResponse = list(&mut world, &query).body();
        assert_eq!(paths(&reply), expected, "{namespace} {prefix}");
        assert_eq!((reply.meta.index, reply.meta.next_token.as_str()), (7, ""));

        let reverse = QueryOptions { reverse: true, ..query.clone() };
        let reply: VariablesListResponse = list(&mut world, &reverse).body();
        let backwards: Vec<_> = expected.iter().rev().collect();
        assert_eq!(paths(&reply).iter().collect::<Vec<_>>(), backwards);

        let waiting = QueryOptions { min_query_index: 7, ..query };
        let Came::Park(park) = list(&mut world, &waiting) else { panic!() };
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        assert_eq!(park.keys, [WatchKey::vars_under(namespace, prefix)]);
    }
}

#[test]
fn a_page_begins_where_the_one_before_ended() {
    let mut world = world();
    for path in ["a", "b", "c", "d", "e"] {
        set(&mut world, "", path);
    }
    let page = |token: &str, reverse| QueryOptions {
        per_page: 2,
        next_token: token.to_owned(),
        reverse,
        ..QueryOptions::default()
    };
    let reply: VariablesListResponse = list(&mut world, &page("", false)).body();
    assert_eq!(
        (paths(&reply), reply.meta.next_token.as_str()),
        (vec!["default.a".into(), "default.b".into()], "default.c")
    );
    // What the token names is gone: the next page begins behind it.
    applied(&mut world, &write("delete", "c"));
    let reply: VariablesListResponse = list(&mut world, &page("default.c", false)).body();
    assert_eq!((paths(&reply), reply.meta.next_token.as_str()), (vec!["default.d".into(), "default.e".into()], ""));
    let reply: VariablesListResponse = list(&mut world, &page("default.c", true)).body();
    assert_eq!((paths(&reply), reply.meta.next_token.as_str()), (vec!["default.b".into(), "default.a".into()], ""));
    for (token, reverse, count) in [("zz.a", false, 0), ("aa.a", false, 2), ("zz", true, 2), ("aa", true, 0)] {
        let reply: VariablesListResponse = list(&mut world, &page(token, reverse)).body();
        assert_eq!(reply.data.len(), count, "{token} {reverse}");
    }
}

#[test]
fn lists_are_filtered_by_either_spelling() {
    let mut world = world();
    for path in ["a", "b", "ab"] {
        set(&mut world, "", path);
    }
    applied(&mut world, &changed(write("lock-acquire", "b"), |var| var.lock = lock(ID)));
    for (filter, expected) in [
        ("Path contains \"a\"", &["default.a", "default.ab"][..]),
        ("VariableMetadata.Path contains \"a\"", &["default.a", "default.ab"]),
        ("Path == b and Namespace == default", &["default.b"]),
        ("CreateIndex == 3", &["default.ab"]),
        ("VariableMetadata.ModifyIndex == 4", &["default.b"]),
        ("Lock is empty", &["default.a", "default.ab"]),
        ("Lock.TTL == 15000000000", &["default.b"]),
        (" ", &["default.a", "default.ab", "default.b"]),
    ] {
        let reply: VariablesListResponse =
            list(&mut world, &QueryOptions { filter: filter.to_owned(), ..QueryOptions::default() }).body();
        assert_eq!(paths(&reply), expected, "{filter}");
    }
    let bounded = QueryOptions { filter: "Path != ab".to_owned(), per_page: 1, ..QueryOptions::default() };
    let reply: VariablesListResponse = list(&mut world, &bounded).body();
    assert_eq!((paths(&reply), reply.meta.next_token.as_str()), (vec!["default.a".into()], "default.b"));
    for (filter, text) in [
        ("Path ==", "failed to create result paginator: failed to read filter expression: "),
        (
            "Name == x",
            "failed to read result page: error finding value in datum: /Name at part 0: couldn't find key: struct field \
             with name \"Name\"",
        ),
    ] {
        let came = list(&mut world, &QueryOptions { filter: filter.to_owned(), ..QueryOptions::default() });
        assert!(came.error().starts_with(&format!("RPC Error:: 400,{text}")), "{came:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Pages of any size, in either order and of any part, put together are the whole list.
    #[test]
    fn pages_together_are_the_list(
        places in prop::collection::btree_set(("[a-c]", "[a-c/]{1,3}"), 0..20),
        per_page in 1..6_i32,
        reverse: bool,
        namespace in prop::sample::select(vec!["*", "a", "b"]),
        prefix in prop::sample::select(vec!["", "a", "b/"]),
    ) {
        let mut world = world();
        for (namespace, path) in &places {
            set(&mut world, namespace, path);
        }
        let whole = |(of, path): &&(String, String)| (namespace == "*" || of == namespace) && path.starts_with(prefix);
        let mut expected: Vec<String> = places.iter().filter(whole).map(|(of, path)| format!("{of}.{path}")).collect();
        if reverse {
            expected.reverse();
        }
        let mut query = QueryOptions {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
            per_page,
            reverse,
            ..QueryOptions::default()
        };
        let mut found = Vec::new();
        for _ in 0..=places.len() {
            let reply: VariablesListResponse = list(&mut world, &query).body();
            prop_assert!(reply.data.len() <= usize::try_from(per_page).unwrap());
            found.extend(paths(&reply));
            query.next_token = reply.meta.next_token;
            if query.next_token.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, expected);
    }
}
