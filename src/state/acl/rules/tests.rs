//! The policy language: every row and every error of the endpoint notes, section 9.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::wire::json::{JsonStyle, to_json_in_style};

fn rules_json(text: &str) -> Json {
    let rules = Rules::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut out = String::new();
    to_json_in_style(&rules.to_rules_json().0, JsonStyle::PLAIN, &mut out).unwrap();
    serde_json::from_str(&out).unwrap()
}

/// Rules without the text they came from.
fn bare(text: &str) -> Result<Rules, String> {
    Rules::parse(text).map(|rules| Rules { raw: String::new(), ..rules })
}

#[test]
fn a_policy_is_shown_as_the_peers_show_it() {
    let text = r#"
        # The team's own.
        namespace "dev-*" {
          policy       = "read"
          capabilities = ["submit-job"]
          variables {
            path "app/*" { capabilities = ["read", "write"] }
            path "app/keys" { capabilities = ["read", "deny"] }
          }
        }
        namespace "default" { capabilities = ["host-volume-create"] }
        node_pool "gpu_1" { policy = "write" }
        host_volume "disk*" { policy = "read" }
        agent    { policy = "read" }
        node     { policy = "write" }
        operator { policy = "read" capabilities = ["snapshot-save"] }
        quota    { policy = "deny" }
        plugin   { policy = "list" }
    "#;
    let named = |name: &str, policy: &str, capabilities: &[&str]| json!({"Name": name, "Policy": policy, "Capabilities": capabilities});
    assert_eq!(
        rules_json(text),
        json!({
            "Namespaces": [
                {
                    "Name": "dev-*",
                    "Policy": "read",
                    "Capabilities": [
                        "submit-job", "list-jobs", "parse-job", "read-job", "csi-list-volume", "csi-read-volume",
                        "read-job-scaling", "list-scaling-policies", "read-scaling-policy", "host-volume-read",
                    ],
                    "Variables": {"Paths": [
                        {"PathSpec": "app/*", "Capabilities": ["read", "write", "list"]},
                        {"PathSpec": "app/keys", "Capabilities": ["deny"]},
                    ]},
                },
                {
                    "Name": "default",
                    "Policy": "",
                    "Capabilities": ["host-volume-create", "host-volume-read"],
                    "Variables": null,
                },
            ],
            "NodePools": [named("gpu_1", "write", &["delete", "read", "write"])],
            "HostVolumes": [named("disk*", "read", &["mount-readonly"])],
            "Agent": {"Policy": "read"},
            "Node": {"Policy": "write"},
            "Operator": {"Policy": "read", "Capabilities": ["snapshot-save", "license-read", "keyring-read"]},
            "Sentinel": null,
            "Quota": {"Policy": "deny"},
            "Plugin": {"Policy": "list"},
            "Raw": text,
            "ExtraKeysHCL": null,
        })
    );
}

#[test]
fn an_empty_policy_says_nothing() {
    let shown = rules_json("");
    assert_eq!(shown["Raw"], "");
    assert!(shown.as_object().unwrap().iter().all(|(key, value)| key == "Raw" || value.is_null()));
    assert_eq!(Rules::parse(""), Ok(Rules::default()));
}

#[test]
fn words_stand_for_capabilities() {
    let of = |text: &str, pointer: &str| {
        let shown = rules_json(text);
        let list = shown.pointer(pointer).unwrap().as_array().cloned().unwrap_or_default();
        list.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let namespace = |body: &str| of(&format!("namespace \"n\" {{ {body} }}"), "/Namespaces/0/Capabilities");
    assert_eq!(namespace("policy = \"deny\""), "deny");
    assert!(namespace("policy = \"write\"").starts_with("list-jobs parse-job "));
    assert!(namespace("policy = \"write\"").ends_with(" submit-recommendation host-volume-create host-volume-read"));
    assert!(namespace("policy = \"scale\"").contains("scale-job"));
    assert_eq!(namespace(""), "");
    assert_eq!(
        namespace("capabilities = [\"host-volume-write\"]"),
        "host-volume-write host-volume-register host-volume-create host-volume-delete host-volume-read"
    );
    assert_eq!(
        namespace("capabilities = [\"host-volume-register\"]"),
        "host-volume-register host-volume-create host-volume-read"
    );
    let path = |words: &str| {
        let text = format!("namespace \"n\" {{ variables {{ path \"p\" {{ capabilities = [{words}] }} }} }}");
        of(&text, "/Namespaces/0/Variables/Paths/0/Capabilities")
    };
    for (words, all) in [
        ("", ""),
        (r#""read""#, "read list"),
        (r#""list", "read""#, "list read"),
        (r#""write""#, "write"),
        (r#""destroy", "lock-read""#, "destroy lock-read"),
        (r#""read", "deny", "write""#, "deny"),
    ] {
        assert_eq!(path(words), all, "{words}");
    }
    let operator = |word: &str| of(&format!("operator {{ policy = \"{word}\" }}"), "/Operator/Capabilities");
    assert_eq!(operator("write"), "snapshot-save license-read keyring-read keyring-rotate keyring-delete");
    assert_eq!((operator("deny"), operator("scale")), ("deny".into(), String::new()));
}

#[test]
fn what_is_refused_is_refused_with_these_words() {
    let long = "n".repeat(129);
    for (text, error) in [
        ("  ", "Invalid policy:   "),
        ("foo { policy = \"read\" }", "Invalid policy: foo { policy = \"read\" }"),
        ("{\"Name\": \"x\"}", "Invalid policy: {\"Name\": \"x\"}"),
        ("node {", "Failed to parse ACL Policy: At 1:7: object expected closing RBRACE got: EOF"),
        ("node = 1", "Failed to parse ACL Policy: node: a block is expected"),
        ("node \"x\" {}", "Failed to parse ACL Policy: node: a label is not expected"),
        ("node { policy = [] }", "Failed to parse ACL Policy: policy: a string is expected"),
        ("namespace = \"x\"", "Failed to parse ACL Policy: namespace: a block with one label is expected"),
        ("namespace \"a\" \"b\" {}", "Failed to parse ACL Policy: namespace: a block with one label is expected"),
        ("namespace = { \"a\" \"b\" {} }", "Failed to parse ACL Policy: namespace: a block with one label is expected"),
        ("operator { capabilities = [[]] }", "Failed to parse ACL Policy: capabilities: a list of strings is expected"),
        ("namespace {}", "Invalid namespace name: \"\""),
        ("namespace { policy = \"read\" }", "Invalid namespace name: \"\""),
        ("{\"namespace\": {\"policy\": \"read\"}}", "Invalid namespace name: \"\""),
        ("namespace \"a b\" {}", "Invalid namespace name: \"a b\""),
        ("namespace \"a_b\" {}", "Invalid namespace name: \"a_b\""),
        (&format!("namespace \"{long}\" {{}}"), &format!("Invalid namespace name: \"{long}\"")),
        ("namespace \"a\" { policy = \"list\" }", "Invalid namespace policy: \"list\" in namespace \"a\""),
        ("namespace \"a\" { capabilities = [\"fly\"] }", "Invalid namespace capability 'fly': in namespace \"a\""),
        ("namespace \"a\" { variables {} }", "Invalid variable policy: no variable paths in namespace a"),
        ("namespace \"a\" { variables { path {} } }", "Invalid missing variable path in namespace a"),
        ("namespace \"a\" { variables { path \"\" {} } }", "Invalid missing variable path in namespace a"),
        (
            "namespace \"a\" { variables { path \"/p\" {} } }",
            "Invalid variable path \"/p\" in namespace a: cannot start with a leading '/'`",
        ),
        (
            "namespace \"a\" { variables { path \"p\" { capabilities = [\"fly\"] } } }",
            "Invalid variable capability 'fly' in namespace a",
        ),
        ("node_pool \"a b\" {}", "Invalid node pool name 'a b'"),
        ("node_pool \"a\" { policy = \"x\" }", "Invalid node pool policy 'x' for 'a'"),
        ("node_pool \"a\" { capabilities = [\"x\"] }", "Invalid node pool capability 'x' for 'a'"),
        ("host_volume \"a_b\" {}", "Invalid host volume name: \"a_b\""),
        ("host_volume \"a\" { policy = \"x\" }", "Invalid host volume policy: \"x\" for \"a\""),
        ("host_volume \"a\" { capabilities = [\"x\"] }", "Invalid host volume capability 'x': for \"a\""),
        ("agent { policy = \"list\" }", "Invalid agent policy: \"list\""),
        ("agent {}", "Invalid agent policy: \"\""),
        ("node { policy = \"READ\" }", "Invalid node policy: \"READ\""),
        ("operator { policy = \"x\" }", "Invalid operator policy: \"x\""),
        ("operator { capabilities = [\"x\"] }", "Invalid operator capability 'x'"),
        ("sentinel { policy = \"x\" }", "Invalid sentinel policy: \"x\""),
        ("quota { policy = \"x\" }", "Invalid quota policy: \"x\""),
        ("plugin { policy = \"scale\" }", "Invalid plugin policy: \"scale\""),
        ("node { policy = \"read\" }\nnod {}\nx = 1", "Invalid or duplicate policy keys: nod, x"),
        ("a {}\nnode { policy = \"read\" }\nnode { policy = \"deny\" }", "Invalid or duplicate policy keys: a, node"),
        ("{\"agent\": [{\"policy\": \"read\"}, {\"policy\": \"read\"}]}", "Invalid or duplicate policy keys: agent"),
    ] {
        assert_eq!(Rules::parse(text), Err(error.to_owned()), "{text}");
    }
    assert!(Rules::parse(&" ".repeat(1024 * 1024 + 1)).is_err());
}

#[test]
fn a_stored_policy_is_read_as_far_as_it_can_be() {
    let text = "node { policy = \"read\" }\nnew-kind {}\nnode { policy = \"deny\" }";
    assert!(Rules::parse(text).is_err());
    let rules = Rules::parse_stored(text);
    assert_eq!((rules.node.as_deref(), &*rules.raw), (Some("deny"), text));
    let nothing = Rules::parse_stored("node {");
    assert_eq!(nothing, Rules { raw: "node {".into(), ..Rules::default() });
    assert_eq!(Rules::parse_stored("node { policy = \"read\" }"), Rules::parse("node { policy = \"read\" }").unwrap());
}

#[test]
fn ways_to_write_the_same() {
    let first = bare("namespace \"a\" { policy = \"read\" capabilities = [\"read-fs\"] } node { policy = \"read\" }");
    assert!(first.is_ok());
    for text in [
        "namespace a { policy = \"read\", capabilities = [\"read-fs\",], }\nnode { policy = \"read\" }",
        "\"namespace\" \"a\" {\n\"policy\" = \"read\"\ncapabilities = \"read-fs\"\n}\nnode = { policy = \"read\" }",
        "namespace = { a = { policy = \"read\" capabilities = [\"read-fs\"] } } node = [{ policy = \"read\" }]",
        "namespace = [{ a { policy = \"read\" capabilities = [\"read-fs\"] } }] node { policy = <<-X\nread\n X\n}",
        r#"{"namespace": {"a": {"policy": "read", "capabilities": ["read-fs"]}}, "node": {"policy": "read"}}"#,
        r#" {"namespace": [{"a": [{"policy": "read", "capabilities": ["read-fs"]}]}], "node": [{"policy": "read"}]}"#,
        r#"{"namespace": {"a": {"policy": "read", "capabilities": ["read-fs"], "variables": null, "x": 1}},
            "node": {"policy": "read"}, "agent": null}"#,
    ] {
        let read = bare(text);
        // A heredoc ends with a new line, which is no word.
        if text.contains("<<-") {
            assert_eq!(read, Err("Invalid node policy: \"read\\n\"".into()));
        } else {
            assert_eq!(read, first, "{text}");
        }
    }
}

type Words = Vec<&'static str>;
/// Name, policy, capabilities, and paths of variables with theirs.
type WrittenNamespace = (String, &'static str, Words, Vec<(String, Words)>);

/// A policy that can be written in both forms.
#[derive(Clone, Debug)]
struct Written {
    namespaces: Vec<WrittenNamespace>,
    node: Option<&'static str>,
    operator: Option<Words>,
}

fn written() -> impl Strategy<Value = Written> {
    let words = |from: &'static [&'static str]| prop::collection::vec(prop::sample::select(from), 0..4);
    let policy = || prop::sample::select(words::POLICIES);
    let path = ("[a-c*]{1,3}(/[a-c*\"\\\\é]{0,3})?", words(words::VARIABLE_CAPABILITIES));
    let namespace = ("[a-c*-]{1,4}", policy(), words(words::NAMESPACE_CAPABILITIES), prop::collection::vec(path, 0..4));
    let namespaces = prop::collection::vec(namespace, 1..4);
    let operator = prop::option::of(words(words::OPERATOR_CAPABILITIES));
    (namespaces, prop::option::of(policy()), operator).prop_map(|(namespaces, node, operator)| Written {
        namespaces,
        node,
        operator,
    })
}

impl Written {
    fn hcl(&self) -> String {
        let mut text = String::new();
        for (name, policy, capabilities, paths) in &self.namespaces {
            text += &format!(
                "namespace {} {{\n  policy = \"{policy}\"\n  capabilities = {}\n",
                json!(name),
                json!(capabilities)
            );
            if !paths.is_empty() {
                text += "  variables {\n";
                for (path, capabilities) in paths {
                    text += &format!("    path {} {{ capabilities = {} }} # one\n", json!(path), json!(capabilities));
                }
                text += "  }\n";
            }
            text += "}\n";
        }
        if let Some(policy) = self.node {
            text += &format!("node {{ policy = \"{policy}\" }}\n");
        }
        if let Some(capabilities) = &self.operator {
            text += &format!("operator {{ capabilities = {} }}", json!(capabilities));
        }
        text
    }

    fn json(&self) -> String {
        let namespaces = self.namespaces.iter().map(|(name, policy, capabilities, paths)| {
            let mut body = json!({"policy": policy, "capabilities": capabilities});
            if !paths.is_empty() {
                let paths = paths.iter().map(|(path, words)| json!({path: {"capabilities": words}}));
                body["variables"] = json!({"path": paths.collect::<Vec<_>>()});
            }
            json!({name: body})
        });
        let mut policy = json!({"namespace": namespaces.collect::<Vec<_>>()});
        if let Some(word) = self.node {
            policy["node"] = json!({"policy": word});
        }
        if let Some(capabilities) = &self.operator {
            policy["operator"] = json!([{"capabilities": capabilities}]);
        }
        policy.to_string()
    }
}

proptest! {
    #[test]
    fn both_forms_mean_the_same(written in written()) {
        let hcl = bare(&written.hcl());
        prop_assert!(hcl.is_ok(), "{}: {:?}", written.hcl(), hcl);
        prop_assert_eq!(hcl, bare(&written.json()));
    }

    #[test]
    fn any_text_is_a_policy_or_an_error(text: String) {
        if let Ok(rules) = Rules::parse(&text) {
            rules.to_rules_json();
        }
        Rules::parse_stored(&text);
    }

    #[test]
    fn a_damaged_policy_is_a_policy_or_an_error(written in written(), at: prop::sample::Index, with: char, json: bool) {
        let mut text: Vec<char> = if json { written.json() } else { written.hcl() }.chars().collect();
        let at = at.index(text.len());
        text[at] = with;
        if let Ok(rules) = Rules::parse(&text.into_iter().collect::<String>()) {
            let mut out = String::new();
            prop_assert!(to_json_in_style(&rules.to_rules_json().0, JsonStyle::PLAIN, &mut out).is_ok());
        }
    }
}
