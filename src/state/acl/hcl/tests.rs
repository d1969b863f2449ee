//! Texts and their trees; what is wrong, and where; bounds.

use proptest::prelude::*;

use super::*;

/// A tree as short text: `a b{..}` for a block, `a=..` for an attribute.
fn told(items: &[Item]) -> String {
    let item = |item: &Item| {
        let sign = if item.is_block { "" } else { "=" };
        format!("{}{sign}{}", item.keys.join(" "), value(&item.value))
    };
    items.iter().map(item).collect::<Vec<_>>().join(" ")
}

fn value(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("{text:?}"),
        Value::Bool(bool) => bool.to_string(),
        Value::Null => "null".to_owned(),
        Value::List(values) => format!("[{}]", values.iter().map(self::value).collect::<Vec<_>>().join(",")),
        Value::Object(items) => format!("{{{}}}", told(items)),
    }
}

#[test]
fn texts_are_trees() {
    for (text, tree) in [
        ("", ""),
        (" \t\r\n# a comment\n// another\n/* and\none more */ /**/", ""),
        ("a = 1", "a=\"1\""),
        ("a = true\nb = false # why\nc = \"x\" // why", "a=true b=false c=\"x\""),
        ("a = -1.5e3 b=0x1F c = 2e-3", "a=\"-1.5e3\" b=\"0x1F\" c=\"2e-3\""),
        ("node { policy = \"read\" } agent{policy=\"deny\"}", "node{policy=\"read\"} agent{policy=\"deny\"}"),
        ("namespace \"a\" {}\nnamespace b { c = 1, d = 2, }", "namespace a{} namespace b{c=\"1\" d=\"2\"}"),
        ("\"quoted\" \"label\" third { }", "quoted label third{}"),
        ("a = []\nb = [\"x\", 1, true, [ ], {c = 1},]", "a=[] b=[\"x\",\"1\",true,[],{c=\"1\"}]"),
        ("a = [ # one\n \"x\", # two\n // three\n]", "a=[\"x\"]"),
        (
            r#"a = "\"\\\n\t\r\a\b\f\v\x41\u00e9\U0001F600 ${b}""#,
            "a=\"\\\"\\\\\\n\\t\\r\\u{7}\\u{8}\\u{c}\\u{b}Aé😀 ${b}\"",
        ),
        ("a = <<EOF\none\n  two\nEOF\nb = 1", "a=\"one\\n  two\\n\" b=\"1\""),
        ("a = <<-EOF\n    one\n      two\n    EOF\n", "a=\"one\\n  two\\n\""),
        ("a = <<-EOF\n  one\n    two\n    EOF", "a=\"  one\\n    two\\n\""),
        ("a = <<E\r\nE\r\n", "a=\"\""),
        ("Über-key.x_1 = 1", "Über-key.x_1=\"1\""),
        ("a = { b = { c {} } }", "a={b={c{}}}"),
        ("{}", ""),
        (
            " {\"a\": {\"b c\": [1, -2, 1.5, null, \"x\\u00e9\\/\"]}, \"a\": true}",
            "a={b c=[\"1\",\"-2\",\"1.5\",null,\"xé/\"]} a=true",
        ),
    ] {
        assert_eq!(read(text).map(|items| told(&items)).as_deref(), Ok(tree), "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    for (text, error) in [
        ("a", "At 1:2: expected: IDENT | STRING | ASSIGN | LBRACE got: EOF"),
        ("a = ", "At 1:5: Unknown token: a value is expected"),
        ("a = x", "At 1:5: Unknown token: a value is expected"),
        ("a = <x", "At 1:5: Unknown token: a value is expected"),
        ("a b = 1", "At 1:6: nested object expected: LBRACE got: ASSIGN"),
        ("\n\n a {", "At 3:5: object expected closing RBRACE got: EOF"),
        ("a {} }", "At 1:6: expected: IDENT | STRING got: '}'"),
        ("= 1", "At 1:1: expected: IDENT | STRING got: '='"),
        ("a , b", "At 1:3: expected: IDENT | STRING | ASSIGN | LBRACE got: ','"),
        ("a = [1 2]", "At 1:8: error parsing list, expected comma or list end"),
        ("a = [1", "At 1:7: error parsing list, expected comma or list end"),
        ("a = [,]", "At 1:6: Unknown token: a value is expected"),
        ("é = \"x", "At 1:5: literal not terminated"),
        ("a = \"x\ny\"", "At 1:5: literal not terminated"),
        ("a = \"\\q\"", "At 1:8: illegal char escape"),
        ("a = \"\\ud800\"", "At 1:12: illegal char escape"),
        ("a = \"\\u00é0\"", "At 1:8: illegal char escape"),
        ("a = 1.2.3", "At 1:5: \"1.2.3\" is no number"),
        ("a = 0x", "At 1:5: \"0x\" is no number"),
        ("a = -", "At 1:5: \"-\" is no number"),
        ("a /* b", "At 1:3: comment not terminated"),
        ("a = <<\nEOF", "At 1:7: heredoc anchor and a new line are expected"),
        ("a = <<EOF\nb", "At 1:5: heredoc not terminated"),
        ("{\"a\": }", "expected value at line 1 column 7"),
        ("{} x", "trailing characters at line 1 column 4"),
    ] {
        assert_eq!(read(text), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn depth_and_size_are_bounded() {
    for (open, close) in [("a {", "}"), ("a = {", "}"), ("a = [[[", "]]]")] {
        let error = read(&(open.repeat(100_000) + &close.repeat(100_000))).unwrap_err();
        assert!(error.ends_with(": nested more than 32 deep") || error.contains("expected"), "{open}: {error}");
    }
    let lists = |depth: usize| format!("a = {}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(read(&lists(MAX_NESTING)).is_ok());
    assert!(read(&lists(MAX_NESTING + 1)).unwrap_err().ends_with("nested more than 32 deep"));
    let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    assert!(read(&objects(MAX_NESTING + 1)).is_ok());
    assert!(read(&objects(MAX_NESTING + 2)).unwrap_err().starts_with("nested more than 32 deep"));
    assert!(read(&objects(100_000)).is_err());
    let long = "#".repeat(MAX_TEXT_BYTES + 1);
    assert_eq!(read(&long), Err("the text is longer than 1048576 bytes".to_owned()));
    assert_eq!(read(&long[1..]), Ok(Vec::new()));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text: String) {
        let _ = read(&text);
    }

    #[test]
    fn likely_text_is_read_or_refused(
        parts in prop::collection::vec(prop::sample::select(vec![
            "a", "b", " ", "\n", "=", "{", "}", "[", "]", ",", "\"", "\\", "<<E", "<<-E", "E", "#", "//", "/*", "*/",
            "1", "-", "0x", ".", "true", "é", ":", "null", "\r",
        ]), 0..40),
        json: bool,
    ) {
        let text = format!("{}{}", if json { "{" } else { "" }, parts.concat());
        let _ = read(&text);
    }

    #[test]
    fn a_string_is_read_back(text in "[^\u{0}]{0,40}") {
        let mut quoted = String::new();
        for letter in text.chars() {
            quoted.push_str(&format!("\\U{:08x}", u32::from(letter)));
        }
        let items = read(&format!("a = \"{quoted}\"")).unwrap();
        prop_assert_eq!(&items[0].value, &Value::Text(text));
    }
}
