//! Manual pages and the sample file against the code: keys of the configuration, metrics, the protocol of sessions.
//! Reads files of the crate only.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use holdfast::api::{http, method, session as bounds};
use holdfast::base::time::format_duration;
use holdfast::config::keys::{KEYS, Key, Later, WhenUnset};
use holdfast::config::{Config, Overrides};
use holdfast::server::sessions::OWN_TTL;
use holdfast::state::sessions as limits;
use holdfast::wire::body::query::{CONSISTENT, HOP, QueryMeta, QueryOptions, WriteMeta, WriteRequest, route_fields};
use holdfast::wire::body::session::{
    KEY_BYTES, MAX_NAME_BYTES, SEEN, STAMP, SessionKey, SessionListReply, SessionOpenRequest, SessionOutcomeReply,
    SessionOutcomeRequest, SessionReply, SessionRequest, SessionStub, WriteStamp,
};
use holdfast::wire::body::var::VariablesApplyRequest;
use holdfast::wire::class::Class;
use holdfast::wire::msgpack::{Decoder, Msg};
use holdfast::wire::rpc::{decode_request_head, encode_classed_head};

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
    assert!(whole.acl_enabled && whole.audit_file.is_some() && whole.backup_dir.is_some());
    (whole.acl_enabled, whole.audit_file, whole.backup_dir) = (false, None, None);
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

/// Words of this text that are names of our metrics in Prometheus' form, without what a histogram adds to its own.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named = words.filter(|word| word.starts_with("holdfast_"));
    named
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    use holdfast::base::metric::ALL;
    let known: BTreeSet<String> = ALL.iter().map(|(_, metric)| metric.prometheus.to_owned()).collect();
    for path in ["packaging/prometheus/alerts.yml", "packaging/grafana/holdfast.json"] {
        let named = metrics_in(&read(path));
        assert!(named.len() > 10, "{path} names {named:?}");
        let unknown: Vec<&String> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{path} asks for what there is not: {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("packaging/grafana/holdfast.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "panels with an id of their own each");
}

/// The numbers that a page lists under EXIT STATUS.
fn statuses(path: &str) -> BTreeSet<u8> {
    let page = read(path);
    let section = page.split("\n.Sh EXIT STATUS\n").nth(1).unwrap().split("\n.Sh ").next().unwrap().to_owned();
    section.lines().filter_map(|line| line.strip_prefix(".It ")).map(|number| number.parse().unwrap()).collect()
}

// R6.23
#[test]
fn the_pages_have_the_exit_statuses() {
    use holdfast::cli::Exit;
    use holdfast::edge::daemon;
    let of_daemon = BTreeSet::from([daemon::STOPPED, daemon::BAD_CONFIGURATION, daemon::NO_START, daemon::LOST]);
    assert_eq!(statuses("man/holdfastd.8"), of_daemon);
    let of_client = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::Unreachable,
        Exit::OutcomeUnknown,
        Exit::NotLocked,
        Exit::LockLost,
    ];
    assert_eq!(statuses("man/holdfast.1"), of_client.iter().map(|exit| exit.status()).collect());
}

const PROTOCOL: &str = "man/holdfast-protocol.7";

/// What stands in the page between this heading and the next of its kind or higher.
fn section(page: &str, heading: &str) -> String {
    let rest = page.split(&format!("\n{heading}\n")).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let ends = if heading.starts_with(".Ss") { &["\n.Sh ", "\n.Ss "][..] } else { &["\n.Sh "] };
    let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// The names of items of this kind.
fn named(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix(".It Cm ")).map(str::to_owned).collect()
}

/// The names of the fields that this is written with.
fn fields(value: &impl Msg) -> BTreeSet<String> {
    let bytes = value.to_bytes();
    let mut d = Decoder::new(&bytes);
    let len = d.map().unwrap().unwrap();
    (0..len)
        .map(|_| {
            let name = d.str().unwrap().to_owned();
            d.skip().unwrap();
            name
        })
        .collect()
}

// R2.7, R2.13: client authors read of every class, and of no other.
#[test]
fn the_protocol_page_has_every_class_of_error() {
    let page = read(PROTOCOL);
    let words: BTreeSet<String> = Class::ALL.iter().map(|class| class.word().to_owned()).collect();
    let classes = section(&page, ".Sh CLASSES OF ERRORS");
    assert_eq!(named(&classes), words);
    // Every text that the page quotes has the class that it stands under.
    for item in classes.split(".It Cm ").skip(1) {
        let (word, text) = item.split_once('\n').unwrap();
        let text = text.split(".El").next().unwrap();
        for quoted in text.lines().filter_map(|line| line.strip_prefix(".Ql ")) {
            let quoted = quoted.trim_end_matches([' ', ',', '.']);
            assert_eq!(Class::of_text(quoted).word(), word, "{quoted}");
        }
    }
}

// R2.22, R2.23, R2.30
#[test]
fn the_protocol_page_has_every_field() {
    let page = read(PROTOCOL);
    let of_bodies: BTreeSet<String> = [STAMP, SEEN, HOP, CONSISTENT].map(str::to_owned).into();
    assert_eq!(named(&section(&page, ".Ss Fields of a body")), of_bodies);
    let mut head = holdfast::wire::msgpack::Encoder::new();
    encode_classed_head(&mut head, "", Class::Refused, 1, "");
    let of_head = named(&section(&page, ".Ss Field of a reply's head"));
    let head = String::from_utf8_lossy(&head.out).into_owned();
    assert!(of_head.len() == 1 && of_head.iter().all(|name| head.contains(name.as_str())), "{of_head:?}");
    let stamp = section(&page, ".Sh SESSIONS");
    assert_eq!(named(stamp.split(".El").next().unwrap()), fields(&WriteStamp::default()));

    let mut everywhere = fields(&QueryOptions::default());
    for common in [fields(&WriteRequest::default()), fields(&QueryMeta::default()), fields(&WriteMeta::default())] {
        everywhere.extend(common);
    }
    let own = |fields: BTreeSet<String>| -> BTreeSet<String> { fields.difference(&everywhere).cloned().collect() };
    let none = BTreeSet::new;
    for (name, request, reply) in [
        ("Open", fields(&SessionOpenRequest::default()), fields(&SessionReply::default())),
        ("KeepAlive", fields(&SessionRequest::default()), fields(&SessionReply::default())),
        ("Close", fields(&SessionRequest::default()), none()),
        ("Outcome", fields(&SessionOutcomeRequest::default()), fields(&SessionOutcomeReply::default())),
        ("List", none(), &fields(&SessionListReply::default()) | &fields(&SessionStub::default())),
    ] {
        assert!(method(&format!("Session.{name}")).is_ok());
        let text = section(&page, &format!(".Ss Session.{name}"));
        let (asked, told) = text.split_once("\nReply:\n").unwrap_or((text.as_str(), ""));
        assert_eq!((named(asked), named(told)), (own(request), own(reply)), "{name}");
    }
    for header in [http::SESSION, http::SEQUENCE, http::ACKNOWLEDGED_BELOW, http::SEEN] {
        assert!(section(&page, ".Ss Headers").contains(&format!(".It Li {header} : ")), "{header}");
    }
}

/// A number with commas.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let parts: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|part| std::str::from_utf8(part).unwrap()).collect();
    parts.join(",")
}

// R2.25, R2.26, R2.27
#[test]
fn the_protocol_page_has_the_bounds() {
    let page = read(PROTOCOL);
    let text = section(&page, ".Ss Bounds");
    for sentence in [
        format!("{} sessions of clients;", grouped(limits::MAX_SESSIONS)),
        format!("{} sessions for each server;", limits::MAX_SERVER_SESSIONS),
        format!(
            "{} kept answers in a session, or {} bytes",
            grouped(limits::MAX_ANSWERS),
            grouped(limits::MAX_ANSWER_BYTES)
        ),
        format!("{} bytes of kept answers in all sessions together", grouped(limits::MAX_ALL_ANSWER_BYTES)),
        format!("keeps {} bytes.", grouped(limits::MIN_ANSWER_BYTES)),
        format!("{MAX_NAME_BYTES} bytes of name."),
    ] {
        assert!(text.contains(&sentence), "{sentence}");
    }
    let words = |time: Duration| format_duration(time);
    assert_eq!((words(bounds::MIN_TTL), words(bounds::MAX_TTL)), ("5s".to_owned(), words(Duration::from_secs(86_400))));
    let seconds = |time: Duration| time.as_secs();
    let ttl = format!(
        "From {} s to {} h; 0 for {} s.",
        seconds(bounds::MIN_TTL),
        seconds(bounds::MAX_TTL) / 3_600,
        seconds(bounds::DEFAULT_TTL)
    );
    assert!(section(&page, ".Ss Session.Open").contains(&ttl), "{ttl}");
    assert!(section(&page, ".Sh SESSIONS").contains(&format!("gave: {KEY_BYTES} bytes.")));
    let own = format!("with a TTL of {}\nseconds", seconds(OWN_TTL));
    assert!(section(&page, ".Sh PLAIN WRITES").contains(&own), "{own}");
}

// R2.23: the bytes of the page are a request in a session.
#[test]
fn the_example_of_the_protocol_page_is_a_write_in_a_session() {
    let page = read(PROTOCOL);
    let examples = section(&page, ".Sh EXAMPLES");
    let block = examples.rsplit(".Bd -literal -offset indent\n").next().unwrap().split(".Ed").next().unwrap();
    // The explanations begin where every line has them, or nothing.
    let bytes: Vec<u8> = block
        .lines()
        .flat_map(|line| line.get(..43.min(line.len())).unwrap().split_whitespace())
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect();
    let mut d = Decoder::new(&bytes);
    let head = decode_request_head(d.raw().unwrap()).unwrap();
    assert_eq!((head.seq, head.service_method.as_str()), (7, "Variables.Apply"));
    let body = d.raw().unwrap();
    assert!(d.at_end());
    let key = SessionKey((0..16).collect());
    let stamp = WriteStamp { id: 1234, key, sequence: 5, acknowledged_below: 3 };
    let fields = route_fields(body, 0).unwrap();
    assert_eq!(fields.stamp.as_deref(), Some(&stamp));
    let stamp_bytes = stamp.to_bytes();
    assert!(body.windows(stamp_bytes.len()).any(|window| window == stamp_bytes));
    let request = VariablesApplyRequest::from_bytes(body).unwrap();
    let var = request.var.unwrap();
    assert_eq!((request.op.as_str(), request.write.region.as_str(), var.path.as_str()), ("set", "global", "a"));
    assert_eq!(var.items.unwrap(), BTreeMap::from([("k".to_owned(), "v".to_owned())]));
}
