//! The configuration's table of keys against its manual page and its sample file. Reads files of the crate only.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use holdfast::config::keys::{KEYS, Key, Later, WhenUnset};
use holdfast::config::{Config, Overrides};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn parse(text: &str) -> Config {
    match Config::parse("sample", text, &Overrides::default(), "host1") {
        Ok(config) => config,
        Err(errors) => panic!("{}", errors.iter().map(|error| format!("{error}\n")).collect::<String>()),
    }
}

/// What the manual page says of each key: the type, and the text up to the next item.
fn items() -> BTreeMap<String, (String, String)> {
    let page = read("man/holdfastd.toml.5");
    let mut items = BTreeMap::new();
    let mut current: Option<String> = None;
    for line in page.lines() {
        if let Some(item) = line.strip_prefix(".It Cm ") {
            let (name, kind) = item.split_once(" Ar ").unwrap();
            let twice = items.insert(name.to_owned(), (kind.to_owned(), String::new()));
            assert!(twice.is_none(), "{name} stands twice");
            current = Some(name.to_owned());
        } else if line.starts_with(".It") || line.starts_with(".El") || line.starts_with(".Sh") {
            current = None;
        } else if let Some((_, text)) = current.as_ref().and_then(|name| items.get_mut(name)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    items
}

/// The name as the page writes it, where any name will do.
fn page_name(key: &Key) -> String {
    key.name.replace('*', "NAME")
}

// R6.25: every key of the manual is accepted and every accepted key is in the manual.
#[test]
fn the_manual_has_the_keys_of_the_parser() {
    let on_page: Vec<String> = items().into_keys().collect();
    let mut known: Vec<String> = KEYS.iter().map(page_name).collect();
    known.sort();
    assert_eq!(on_page, known);
}

#[test]
fn the_manual_has_their_types_bounds_and_defaults() {
    let items = items();
    for key in KEYS {
        let (kind, text) = &items[&page_name(key)];
        assert_eq!(kind, key.kind.name(), "{}", key.name);
        let default = match key.default {
            WhenUnset::Value(value) => format!("Default:\n.Ql {} .\n", value.replace('"', "\\(dq")),
            WhenUnset::Words(words) => format!("Default: {words}.\n"),
        };
        assert!(text.ends_with(&default), "{}: {text}", key.name);
        if let Some(bounds) = key.kind.bounds() {
            assert!(text.contains(&format!("\nFrom {bounds}.\n")), "{}: {text}", key.name);
        }
        let lacking = text.contains("not in this build");
        assert_eq!(lacking, key.later != Later::No, "{}", key.name);
    }
}

#[test]
fn the_examples_of_the_manual_are_accepted() {
    let page = read("man/holdfastd.toml.5");
    let section = page.split(".Sh EXAMPLES\n").nth(1).unwrap().split(".Sh ").next().unwrap();
    let examples: Vec<&str> = section
        .split(".Bd -literal -offset indent\n")
        .skip(1)
        .map(|rest| rest.split(".Ed\n").next().unwrap())
        .collect();
    assert_eq!(examples.len(), 2);
    assert_eq!(parse(examples[0]).bootstrap_expect, 1);
    let full = parse(examples[1]);
    assert_eq!((full.name.as_str(), full.tls.rpc), ("hf1", true));
    // The full one leaves out only what this build refuses; a table whose keys may have any name has one of them.
    for key in KEYS.iter().filter(|key| key.later == Later::No) {
        let (table, last) = key.name.rsplit_once('.').unwrap_or(("", key.name));
        let last = last.trim_end_matches('*');
        let of_table = if table.is_empty() {
            examples[1]
        } else {
            examples[1].split(&format!("[{table}]\n")).nth(1).unwrap().split("\n[").next().unwrap()
        };
        assert!(of_table.lines().any(|line| names(line, last)), "{}", key.name);
    }
}

/// Whether a line sets this key; any key where the name is empty.
fn names(line: &str, last: &str) -> bool {
    line.split_once(" = ").is_some_and(|(name, _)| name == last || last.is_empty())
}

#[test]
fn the_sample_file_is_accepted_as_it_is_and_with_all_its_lines() {
    let sample = read("packaging/holdfastd.toml");
    let as_it_is = parse(&sample);
    let data_dir_alone = parse("data_dir = \"/var/lib/holdfast\"");
    assert_eq!(as_it_is, data_dir_alone);
    assert!(as_it_is.listen_rpc.ip().is_loopback() && as_it_is.listen_http.ip().is_loopback());

    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(name, _)| !name.contains([' ', '#']));
    let uncommented: Vec<&str> =
        sample.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).collect();
    let mut whole = parse(&uncommented.join("\n"));
    for key in KEYS.iter().filter(|key| key.later == Later::No) {
        let last = key.name.rsplit('.').next().unwrap().trim_end_matches('*');
        assert!(uncommented.iter().any(|line| names(line, last)), "{}", key.name);
    }
    // What is commented out is the default, but for these.
    assert!(whole.tls.rpc && whole.tls.http && whole.advertise_rpc.is_some() && whole.advertise_http.is_some());
    assert_eq!((whole.bootstrap_expect, whole.join.len(), whole.regions.len()), (3, 2, 1));
    (whole.bootstrap_expect, whole.join, whole.regions) = (1, Vec::new(), Vec::new());
    whole.tls = as_it_is.tls.clone();
    (whole.advertise_rpc, whole.advertise_http) = (None, None);
    assert!(whole.acl_enabled && whole.audit_file.is_some());
    (whole.acl_enabled, whole.audit_file) = (false, None);
    whole.name = as_it_is.name.clone();
    assert_eq!(whole, as_it_is);
}

#[test]
fn every_metric_is_in_its_page_and_the_other_way_round() {
    // R1.101
    use holdfast::base::metric::ALL;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/holdfast-metrics.7")).expect("the page");
    let mut named: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix(".It Ic ")).collect();
    for (_, metric) in ALL {
        assert!(named.contains(&metric.name), "{} is not in the page", metric.name);
        assert!(page.contains(&format!(".Sy {} .", metric.prometheus)), "{} is not in the page", metric.prometheus);
        named.retain(|name| *name != metric.name);
    }
    assert!(named.is_empty(), "in the page only: {named:?}");
}
