//! What several policies allow together: which rule is chosen, and how sets add up.

use proptest::prelude::*;

use super::*;

fn acl(policies: &[&str]) -> Acl {
    let parse = |text: &&str| Arc::new(Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")));
    Acl { management: false, policies: policies.iter().map(parse).collect() }
}

/// A policy of one namespace with paths of variables: `app/* read,write; x deny`.
fn variables(namespace: &str, paths: &str) -> String {
    let paths = paths.split(';').map(|path| {
        let (path, words) = path.trim().split_once(' ').unwrap();
        let words = words.split(',').map(|word| format!("{word:?}")).collect::<Vec<_>>().join(",");
        format!("path {path:?} {{ capabilities = [{words}] }}\n")
    });
    format!("namespace {namespace:?} {{ variables {{ {} }} }}", paths.collect::<String>())
}

/// What is allowed on a variable: `lrwdL` for list, read, write, destroy and lock-read.
fn allowed(acl: &Acl, namespace: &str, path: &str) -> String {
    let all = [
        (VarCapability::List, 'l'),
        (VarCapability::Read, 'r'),
        (VarCapability::Write, 'w'),
        (VarCapability::Destroy, 'd'),
        (VarCapability::LockRead, 'L'),
    ];
    all.into_iter().filter(|(what, _)| acl.allows_variable(namespace, path, *what)).map(|(_, letter)| letter).collect()
}

#[test]
fn capabilities_imply_others() {
    for (words, letters) in [
        ("list", "l"),
        ("read", "lrL"), // R8.10
        ("write", "w"),
        ("destroy", "d"),
        ("lock-read", "L"),
        ("write,destroy,list", "lwd"),
        ("read,write,deny", ""),
    ] {
        let acl = acl(&[&variables("default", &format!("p {words}"))]);
        assert_eq!(allowed(&acl, "default", "p"), letters, "{words}");
        assert_eq!(allowed(&acl, "default", "q"), "", "{words}");
        assert_eq!(allowed(&acl, "other", "p"), "", "{words}");
    }
}

/// Policies by namespace and paths, a path in the namespace `default`, and what is allowed there.
type Choice<'a> = (&'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn one_rule_is_chosen() {
    let cases: &[Choice<'_>] = &[
        // A wildcard is any run of characters, `/` too, and none.
        (&[("default", "app/* read")], "app/a/b", "lrL"),
        (&[("default", "app/* read")], "app/", "lrL"),
        (&[("default", "app/* read")], "app", ""),
        (&[("default", "a*c read")], "abcabc", "lrL"),
        (&[("default", "a*b*c read")], "a-b-b-c", "lrL"),
        (&[("default", "a*b*c read")], "a-c-b", ""),
        (&[("default", "*b* read")], "abc", "lrL"),
        (&[("default", "a*a read")], "a", ""),
        (&[("default", "** write")], "a", "w"),
        // Rules are not added up: an exact name hides globs, a better glob hides others.
        (&[("default", "app/w write; app/* read")], "app/w", "w"),
        (&[("default", "app/* read; app/w* write")], "app/w", "w"),
        (&[("default", "app/* read; app/w* write")], "app/x", "lrL"),
        (&[("default", "app/* read; * write")], "app/x", "lrL"),
        (&[("default", "app/* deny; * write")], "app/x", ""),
        (&[("default", "app/x read; app/* deny")], "app/x", "lrL"),
        (&[("default", "*/x write; app/* read")], "app/x", "lrL"),
        // Equally good: the first by name.
        (&[("default", "ap* read; *pp write")], "app", "w"),
        // A namespace's wildcard makes a rule a glob, and its characters count with the path's.
        (&[("def*", "app/x read"), ("default", "app/* write")], "app/x", "w"),
        (&[("def*", "app/xyz read"), ("default", "* write")], "app/xyz", "lrL"),
        (&[("*", "app/x deny"), ("default", "app/x write")], "app/x", "w"),
        (&[("*", "* read")], "any/thing", "lrL"),
        // The same rule in several policies, or twice in one: the sum.
        (&[("default", "p read"), ("default", "p write")], "p", "lrwL"),
        (&[("default", "p/* read"), ("default", "p/* destroy; q write")], "p/x", "lrdL"),
        (&[("default", "p/* read; p/* write")], "p/x", "lrwL"),
        // What is denied stays denied, in either order.
        (&[("default", "p deny"), ("default", "p write")], "p", ""),
        (&[("default", "p write"), ("default", "p deny")], "p", ""),
        (&[("default", "p/* write"), ("default", "p/* deny")], "p/x", ""),
        // One policy's exact name hides another's glob.
        (&[("default", "p/x list"), ("default", "p/* write")], "p/x", "l"),
        (&[("default", "p/* write"), ("default", "p/x* list")], "p/x", "l"),
    ];
    for (policies, path, letters) in cases {
        let texts: Vec<String> = policies.iter().map(|(namespace, paths)| variables(namespace, paths)).collect();
        let mut texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(allowed(&acl(&texts), "default", path), *letters, "{policies:?} {path}");
        texts.reverse();
        assert_eq!(allowed(&acl(&texts), "default", path), *letters, "reversed: {policies:?} {path}");
        let joined = texts.join("\n");
        assert_eq!(allowed(&acl(&[&joined]), "default", path), *letters, "in one text: {policies:?} {path}");
    }
}

#[test]
fn a_namespaces_policy_gives_no_variables() {
    for word in ["read", "write"] {
        let acl = acl(&[&format!("namespace \"default\" {{ policy = \"{word}\" }}")]);
        assert_eq!(allowed(&acl, "default", "p"), "");
        assert!(acl.sees_namespace("default") && !acl.has_variable_rules("default"));
    }
}

#[test]
fn variable_rules_stand_in_namespaces() {
    let acl = acl(&[&variables("dev-*", "p read"), &variables("prod", "* deny; q write")]);
    for (namespace, stands) in
        [("dev-1", true), ("dev-", true), ("prod", true), ("*", true), ("dev", false), ("prod2", false), ("", false)]
    {
        assert_eq!(acl.has_variable_rules(namespace), stands, "{namespace}");
    }
    assert!(!self::acl(&[]).has_variable_rules("*"));
    assert!(!self::acl(&["namespace \"*\" { policy = \"write\" }"]).has_variable_rules("*"));
    assert!(self::acl(&[&variables("*", "p read")]).has_variable_rules("any"));
}

#[test]
fn namespaces_are_seen_with_any_capability() {
    let read = |name: &str, word: &str| format!("namespace {name:?} {{ policy = {word:?} }}");
    for (policies, namespace, sees) in [
        (vec![], "default", false),
        (vec![read("default", "read")], "default", true),
        (vec![read("default", "read")], "other", false),
        (vec![read("*", "scale")], "other", true),
        (vec![read("*", "read"), read("secret-*", "deny")], "secret-1", false),
        (vec![read("*", "deny"), read("secret-1", "read")], "secret-1", true),
        (vec![read("default", "deny"), read("default", "write")], "default", false),
        (vec![read("default", "write"), read("default", "deny")], "default", false),
        (vec!["namespace \"default\" {}".to_owned(), read("*", "read")], "default", false),
        (vec![variables("default", "p read")], "default", false),
        (vec!["namespace \"default\" { capabilities = [\"read-fs\"] }".to_owned()], "default", true),
        (vec![read("default", "read")], "*", true),
        (vec![read("default", "deny")], "*", false),
    ] {
        let texts: Vec<&str> = policies.iter().map(String::as_str).collect();
        assert_eq!(acl(&texts).sees_namespace(namespace), sees, "{policies:?} {namespace}");
    }
}

#[test]
fn the_larger_word_counts_and_deny_most() {
    for (words, read, write) in [
        (&[][..], false, false),
        (&["scale"], false, false),
        (&["read"], true, false),
        (&["write"], true, true),
        (&["read", "write"], true, true),
        (&["write", "read"], true, true),
        (&["write", "deny"], false, false),
        (&["deny", "read", "write"], false, false),
    ] {
        let of = |kind: &str| {
            let texts: Vec<_> = words.iter().map(|word| format!("{kind} {{ policy = {word:?} }}")).collect();
            acl(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let (node, agent, operator) = (of("node"), of("agent"), of("operator"));
        assert_eq!((node.node_read(), node.node_write()), (read, write), "{words:?}");
        assert_eq!((agent.agent_read(), agent.agent_write()), (read, write), "{words:?}");
        assert_eq!((operator.operator_read(), operator.operator_write()), (read, write), "{words:?}");
        assert_eq!(operator.operator(OperatorCapability::SnapshotSave), write, "{words:?}");
        assert!(!node.agent_read() && !node.operator_read() && !agent.node_read() && !operator.node_read());
    }
}

#[test]
fn operators_have_capabilities() {
    use OperatorCapability::*;
    let all = [SnapshotSave, LicenseRead, KeyringRead, KeyringRotate, KeyringDelete];
    for (policies, held) in [
        (&["operator { capabilities = [\"snapshot-save\"] }"][..], vec![SnapshotSave]),
        (&["operator { capabilities = [\"keyring-rotate\", \"keyring-delete\"] }"], vec![KeyringRotate, KeyringDelete]),
        (&["operator { policy = \"read\" }"], vec![LicenseRead, KeyringRead]),
        (&["operator { policy = \"write\" }"], all.to_vec()),
        (&["operator { policy = \"write\" capabilities = [\"deny\"] }"], vec![]),
        (
            &["operator { capabilities = [\"snapshot-save\"] }", "operator { policy = \"read\" }"],
            vec![SnapshotSave, LicenseRead, KeyringRead],
        ),
        (&["operator { capabilities = [\"snapshot-save\"] }", "operator { policy = \"deny\" }"], vec![]),
        (&["node { policy = \"write\" }"], vec![]),
    ] {
        let acl = acl(policies);
        let found: Vec<_> = all.into_iter().filter(|capability| acl.operator(*capability)).collect();
        assert_eq!(found, held, "{policies:?}");
    }
}

#[test]
fn management_may_do_everything_and_nobody_nothing() {
    let everything = Acl::everything();
    let nothing = Acl::default();
    for (acl, expected) in [(&everything, true), (&nothing, false)] {
        assert_eq!(allowed(acl, "n", "p") == "lrwdL", expected);
        let answers = [
            acl.has_variable_rules("n"),
            acl.sees_namespace("n"),
            acl.node_read(),
            acl.node_write(),
            acl.agent_read(),
            acl.agent_write(),
            acl.operator_read(),
            acl.operator_write(),
            acl.operator(OperatorCapability::KeyringDelete),
        ];
        assert_eq!(answers, [expected; 9]);
    }
}

/// The same by trying every way, for short texts.
fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, _) => name.is_empty(),
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skipped| matches_slowly(rest, &name[skipped..])),
        (Some((a, pattern)), Some((b, name))) => a == b && matches_slowly(pattern, name),
        (Some(_), None) => false,
    }
}

/// The rule that counts by reading all of them, for the property below.
fn chosen_slowly(rules: &[(String, String, VarCapability)], namespace: &str, path: &str) -> Vec<VarCapability> {
    let stars = |text: &str| text.matches('*').count();
    let matching = rules.iter().filter(|(rule_namespace, rule_path, _)| {
        matches_slowly(rule_namespace.as_bytes(), namespace.as_bytes())
            && matches_slowly(rule_path.as_bytes(), path.as_bytes())
    });
    let best = matching.map(|(namespace_rule, path_rule, _)| {
        let wildcards = stars(namespace_rule) + stars(path_rule);
        let difference = namespace.len() + path.len() + wildcards - namespace_rule.len() - path_rule.len();
        (wildcards > 0, difference, namespace_rule, path_rule)
    });
    let Some((.., namespace, path)) = best.min() else { return Vec::new() };
    rules.iter().filter(|rule| (&rule.0, &rule.1) == (namespace, path)).map(|rule| rule.2).collect()
}

proptest! {
    #[test]
    fn patterns_match_as_if_every_way_was_tried(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
        prop_assert_eq!(Pattern(pattern.as_str().into()).matches(&name), matches_slowly(pattern.as_bytes(), name.as_bytes()));
    }

    #[test]
    fn the_rule_is_the_one_found_by_reading_all(
        rules in prop::collection::vec(("[ab*]{1,3}", "[ab*]{1,4}", prop::sample::select(vec![
            VarCapability::List, VarCapability::Write, VarCapability::Destroy,
        ]), 0usize..3), 0..10),
        namespace in "[ab]{1,3}",
        path in "[ab]{1,4}",
    ) {
        let mut texts = [const { String::new() }; 3];
        for (namespace, path, capability, nth) in &rules {
            let word = match capability {
                VarCapability::List => "list",
                VarCapability::Write => "write",
                _ => "destroy",
            };
            texts[*nth] += &(variables(namespace, &format!("{path} {word}")) + "\n");
        }
        let acl = acl(&[&texts[0], &texts[1], &texts[2]]);
        let rules: Vec<_> = rules.into_iter().map(|(namespace, path, capability, _)| (namespace, path, capability)).collect();
        let expected = chosen_slowly(&rules, &namespace, &path);
        for capability in [VarCapability::List, VarCapability::Write, VarCapability::Destroy] {
            let allows = acl.allows_variable(&namespace, &path, capability);
            prop_assert_eq!(allows, expected.contains(&capability), "{:?} {:?}", rules, capability);
        }
    }
}
