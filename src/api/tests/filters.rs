//! Filters: what passes, what is refused, and that no text makes the reader or the evaluation panic.

use proptest::prelude::*;

use super::super::filter::{Filter, MAX_FILTER_DEPTH};
use super::*;
use crate::wire::body::node_call::NodeListResponse;

fn node() -> Vec<u8> {
    let world = World::with_node();
    let mut e = Encoder::new();
    world.state.node(NODE).unwrap().encode(&mut e);
    e.out
}

#[test]
fn expressions_are_evaluated() {
    let node = node();
    for (text, passes) in [
        ("Name == \"golden-node\"", true),
        ("Name == `golden-node`", true),
        ("Status == initializing", true),
        ("Status!=initializing", false),
        ("\"gold\" in Name", true),
        ("Name contains \"gold\"", true),
        ("Name not contains gold", false),
        ("\"gold\" not in Name", false),
        ("Attributes[\"nomad.version\"] == \"2.0.5\"", true),
        ("Attributes.missing == \"\"", false),
        ("Attributes.missing != \"x\"", true),
        ("Attributes.missing is empty", true),
        ("\"os.name\" in Attributes", true),
        ("Attributes contains \"os.nam\"", false),
        ("\"/Meta/rack\" == \"r1\"", true),
        ("Meta.rack == r1 and Datacenter == dc1", true),
        ("Meta.rack == r2 and Nope == 1", false),
        ("Meta.rack == r1 or Nope == 1", true),
        ("Meta.rack == r2 or Datacenter == dc2 or Datacenter == dc1", true),
        ("not Meta.rack == r1", false),
        ("not (Meta.rack == r2) and (Name is not empty)", true),
        ("NodeClass is empty", true),
        ("NodePool == default", true),
        ("CreateIndex == 1", true),
        ("CreateIndex != 2", true),
        ("Drivers.raw_exec.Healthy == true", true),
        ("Drivers.raw_exec.Healthy == f", false),
        ("Drivers.docker.Healthy == true", false),
        ("raw_exec in Drivers", true),
        ("NodeResources.Memory.MemoryMB == 4096", true),
        ("Events.0.Message == \"Node registered\"", true),
        ("Events is not empty", true),
        ("DrainStrategy is empty", true),
        ("DrainStrategy.Deadline == 5", false),
        ("HostVolumes is empty", true),
        ("NodeMaxAllocs == 0", true),
        ("CgroupParent == \"\"", true),
        ("SecretID == \"\"", true),
        ("Name == \"a\\\"b\\\\\"", false),
        ("Name matches \"^golden-[a-z]+$\"", true),
        ("Name matches `GOLDEN`", false),
        ("Name not matches \"(?i)GOLDEN\"", false),
        ("NodeClass matches \"^$\"", true),
        ("Meta.nothing matches \".*\"", false),
    ] {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(filter.matches(&node), Ok(passes), "{text}");
    }
}

#[test]
fn what_cannot_be_evaluated_says_why() {
    let node = node();
    for (text, error) in [
        ("X == 1", "error finding value in datum: /X at part 0: couldn't find key: struct field with name \"X\""),
        (
            "NodeResources.Cpu.X == 1",
            "error finding value in datum: /NodeResources/Cpu/X at part 1: couldn't find key: struct field with name \
             \"Cpu\"",
        ),
        (
            "Name.X == 1",
            "error finding value in datum: /Name/X at part 1: couldn't find key: struct field with name \"X\"",
        ),
        ("Attributes == x", "unable to find suitable primitive comparison function for matching"),
        ("CreateIndex matches \"1\"", "only texts can be matched with a regular expression"),
        ("CreateIndex == x", "error getting match value in expression: \"x\" is no number"),
        ("Drivers.raw_exec.Healthy == yes", "error getting match value in expression: \"yes\" is no truth value"),
        ("1 in CreateIndex", "cannot perform in/contains operations on this field: it holds a single value"),
        ("CreateIndex is empty", "cannot perform is empty operations on this field: it holds a single value"),
        ("Events.9.Message == x", "error finding value in datum: /Events/9/Message at part 1: index 9 is out of range"),
    ] {
        assert_eq!(Filter::parse(text).unwrap().matches(&node), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn bad_syntax_is_refused() {
    for text in [
        "",
        "Name",
        "Name ==",
        "== x",
        "Name = x",
        "Name == \"x",
        "Name == x)",
        "(Name == x",
        "Name is",
        "Name is x",
        "Name == x and",
        "Name == x Name == y",
        "Name[\"x\" == y",
        "Name. == x",
        "\"x\" == Name",
        "5 is empty",
        "Name matches \"(\"",
        "Name matches \"[z-a]\"",
        "Name matches \"(a{1000}){1000}\"",
        "\"x\" matches \"x\"",
        "any Events as e { e.Message == x }",
        "Name == \"\\q\"",
        "é == x",
    ] {
        assert!(Filter::parse(text).is_err(), "{text}");
    }
    let deep = |levels: usize| format!("{}A == b{}", "(".repeat(levels), ")".repeat(levels));
    assert!(Filter::parse(&deep(MAX_FILTER_DEPTH - 1)).is_ok());
    for text in [deep(MAX_FILTER_DEPTH), "not ".repeat(5000) + "A == b", "A == b or ".repeat(5000)] {
        assert!(Filter::parse(&text).is_err());
    }
    // A long chain is no depth.
    assert!(Filter::parse(&("A == b or ".repeat(1000) + "A == b")).is_ok());
}

/// Endpoint notes, 1.5.
#[test]
fn lists_answer_bad_filters_with_coded_errors() {
    let mut world = World::with_node();
    let mut ask = |filter: &str| world.call("Node.List", &[("Filter", text(filter))]);
    assert_eq!(ask("Name == \"golden-node\"").body::<NodeListResponse>().nodes.len(), 1);
    assert_eq!(ask("Name == other").body::<NodeListResponse>().nodes.len(), 0);
    let came = ask("Name = x");
    let start = "RPC Error:: 400,failed to create result paginator: failed to read filter expression: ";
    assert!(came.error().starts_with(start), "{came:?}");
    assert!(ask("Name matches \"(\"").error().starts_with(start));
    assert_eq!(ask("Name matches \"^gold[a-z]+-\"").body::<NodeListResponse>().nodes.len(), 1);
    assert_eq!(
        ask("X == 1").error(),
        "RPC Error:: 400,failed to read result page: error finding value in datum: /X at part 0: couldn't find key: \
         struct field with name \"X\""
    );
}

proptest! {
    #[test]
    fn no_text_makes_a_filter_panic(
        wild in "\\PC{0,40}",
        words in prop::collection::vec(
            prop::sample::select(vec![
                "Name", "Attributes", "Events.0", ".", "[", "]", "\"a\"", "\"", "`", "==", "!=", "in", "not",
                "contains", "is", "empty", "and", "or", "(", ")", "matches", "5", "-", "\\", "é", "\"/A/~1\"",
            ]),
            0..12,
        ),
        datum in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for text in [wild, words.join(" "), words.concat()] {
            if let Ok(filter) = Filter::parse(&text) {
                let _ = filter.matches(&datum);
                let _ = filter.matches(&node());
            }
        }
    }
}
