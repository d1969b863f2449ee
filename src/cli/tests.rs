//! `holdfast` as people call it, against a server made of threads: output, exit statuses, what goes where.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use super::{Exit, run};
use crate::client::body::Node;
use crate::client::fake::{Act, reply, serve};
use crate::wire::body::node::{NodeEvent, go_time};
use crate::wire::body::node_call::{NodeListItem, NodeListResponse, NodeSpecificRequest, SingleNodeResponse};
use crate::wire::body::query::{GenericRequest, QueryMeta};
use crate::wire::body::status::{Member, RaftStatsResponse, ServerMembersResponse};
use crate::wire::msgpack::{Bytes, Encoder, Msg, Raw};

const IDS: [&str; 3] = [
    "ebc06cfe-8ba6-088e-1a46-ea3a33814912",
    "ebc1aaaa-0000-0000-0000-000000000001",
    "f0000000-0000-0000-0000-000000000002",
];

fn holdfast(line: &[&str]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = std::iter::once("holdfast").chain(line.iter().copied());
    let exit = run(words.map(Into::into), &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn stub(id: &str) -> NodeListItem {
    let status = if id.starts_with('f') { "down" } else { "ready" };
    NodeListItem {
        id: id.into(),
        name: "n".into(),
        status: status.into(),
        datacenter: "dc1".into(),
        ..NodeListItem::default()
    }
}

/// A server as a Go peer behaves: prefixes of an odd number of digits are refused.
fn fleet() -> String {
    serve(None, |method, body| match method {
        "Node.List" => {
            let prefix = GenericRequest::from_bytes(body).unwrap().query.prefix;
            if prefix.replace('-', "").len() % 2 == 1 {
                return Act::Refuse("node lookup failed: index error: Input (without hyphens) must be even length");
            }
            let nodes = IDS.iter().filter(|id| id.starts_with(&prefix)).map(|id| stub(id)).collect();
            reply(&NodeListResponse { nodes, meta: QueryMeta::default() })
        }
        "Node.GetNode" => {
            let id = NodeSpecificRequest::from_bytes(body).unwrap().node_id;
            let node = IDS.contains(&id.as_str()).then(|| node(&id));
            let node = node.map_or_else(Raw::default, |node| Raw(node.to_bytes().into()));
            reply(&SingleNodeResponse { node, meta: QueryMeta::default() })
        }
        "Status.Leader" => reply(&"127.0.0.1:24647".to_owned()),
        "Status.Peers" => reply(&vec!["127.0.0.1:24647".to_owned()]),
        "Status.Members" => reply(&members()),
        "Status.RaftStats" => reply(&RaftStatsResponse { last_contact: "0".into(), last_term: 2, last_index: 31 }),
        "Region.List" => reply(&vec!["global".to_owned(), "west".to_owned()]),
        _ => Act::RefuseAndClose("rpc: can't find method X"),
    })
}

fn node(id: &str) -> Node {
    Node {
        id: id.into(),
        name: "golden".into(),
        status: "ready".into(),
        status_updated_at: 1_700_000_000,
        attributes: BTreeMap::from([("os.name".into(), "debian\u{1b}[2J".into())]),
        events: vec![NodeEvent {
            message: "Node registered".into(),
            subsystem: "Cluster".into(),
            timestamp: go_time(1_700_000_000_000_000_000),
            ..NodeEvent::default()
        }],
        ..Node::default()
    }
}

fn members() -> ServerMembersResponse {
    let tags = [("port", "24647"), ("region", "global"), ("dc", "dc1"), ("build", "2.0.5")];
    ServerMembersResponse {
        server_name: "golden".into(),
        server_region: "global".into(),
        server_dc: "dc1".into(),
        members: vec![Member {
            name: "golden.global".into(),
            addr: Bytes([vec![0; 10], vec![0xff, 0xff, 127, 0, 0, 1]].concat()),
            port: 24648,
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            status: "alive".into(),
            ..Member::default()
        }],
    }
}

#[test]
fn status_shows_it_all() {
    let (exit, out, err) = holdfast(&["status", "--address", &fleet()]);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert_eq!(
        out,
        "Server   golden (region global, datacenter dc1)\n\
         Leader   127.0.0.1:24647\n\
         Cluster  1 server: 1 alive; 1 with a vote\n\
         Peers    127.0.0.1:24647\n\
         Regions  global west\n\
         Raft     term 2, index 31\n\
         Nodes    3: 1 down, 2 ready\n\
         \n\
         Name           Address          Status  Voter  Leader  Region  Datacenter  Build\n\
         golden.global  127.0.0.1:24647  alive   yes    yes     global  dc1         2.0.5\n"
    );
}

#[test]
fn status_is_json_when_asked() {
    let (exit, out, _) = holdfast(&["status", "--json", "--address", &fleet()]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exit, Exit::Done);
    assert_eq!(value["leader"], "127.0.0.1:24647");
    assert_eq!(value["members"][0]["leader"], true);
    assert_eq!(value["nodes"]["ready"], 2);
    assert_eq!(value["raft"]["last_index"], 31);
}

#[test]
fn a_refused_part_leaves_the_rest_and_fails() {
    let address = serve(None, |method, _| match method {
        "Status.Members" | "Node.List" => Act::Refuse("Permission denied"),
        "Region.List" => Act::RefuseAndClose("rpc: can't find service Region.List"),
        "Status.Leader" => reply(&String::new()),
        "Status.Peers" => reply(&Vec::<String>::new()),
        _ => reply(&RaftStatsResponse::default()),
    });
    let (exit, out, _) = holdfast(&["status", "--address", &address]);
    assert_eq!(exit, Exit::Failed);
    for line in
        ["Leader   none\n", "Nodes    refused: Permission denied\n", "Regions  refused: rpc: can't find service"]
    {
        assert!(out.contains(line), "{line} in {out}");
    }
    let (exit, out, _) = holdfast(&["status", "--json", "--address", &address]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &value["nodes"]["refused"]), (Exit::Failed, &Value::from("Permission denied")));
}

#[test]
fn lists_take_prefixes_of_any_length() {
    let address = fleet();
    for (prefix, expected) in [("", &IDS[..]), ("e", &IDS[..2]), ("EBC", &IDS[..2]), ("ebc06", &IDS[..1]), ("aa", &[])]
    {
        let (exit, out, err) = holdfast(&["node", "list", "--prefix", prefix, "--json", "--address", &address]);
        assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{prefix}");
        let value: Vec<Value> = serde_json::from_str(&out).unwrap();
        let ids: Vec<&str> = value.iter().map(|node| node["id"].as_str().unwrap()).collect();
        assert_eq!(ids, expected, "{prefix}");
    }
    let (exit, out, _) = holdfast(&["node", "list", "--address", &address]);
    assert_eq!(exit, Exit::Done);
    assert_eq!(out.lines().count(), 4);
    assert!(out.lines().nth(3).unwrap().starts_with("f0000000  n     -        dc1"), "{out}");
    assert_eq!(holdfast(&["node", "list", "--prefix", "xyz", "--address", &address]).0, Exit::Usage);
}

#[test]
fn a_node_is_found_by_its_beginning() {
    let address = fleet();
    for id in [IDS[0], "ebc0", "ebc06cfe-8"] {
        let (exit, out, err) = holdfast(&["node", "status", id, "--address", &address]);
        assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{id}");
        assert!(out.contains(IDS[0]) && out.contains("2023-11-14T22:13:20Z  Cluster  Node registered"), "{out}");
        assert!(!out.contains('\u{1b}'), "{out}");
    }
    let (exit, out, err) = holdfast(&["node", "status", "ebc", "--address", &address]);
    assert_eq!((exit, err.as_str()), (Exit::Failed, "holdfast: 2 nodes have ids that begin with \"ebc\"\n"));
    assert!(out.contains("ebc06cfe") && out.contains("ebc1aaaa") && !out.contains("f0000000"), "{out}");
    for missing in ["ab", "ebc06cfe-8ba6-088e-1a46-ea3a33814900"] {
        assert_eq!(holdfast(&["node", "status", missing, "--address", &address]).0, Exit::Failed);
    }
}

/// A body of Go's in which every field that is named is nil.
fn nils(keys: &[&str]) -> Vec<u8> {
    let mut e = Encoder::new();
    e.map(keys.len());
    for key in keys {
        e.str(key);
        e.nil();
    }
    e.out
}

fn listed(key: &str, item: Vec<u8>) -> Act {
    reply(&BTreeMap::from([(key.to_owned(), vec![Raw(item.into())])]))
}

#[test]
fn lists_and_maps_that_go_leaves_nil_are_empty() {
    let address = serve(None, |method, _| match method {
        "Status.Leader" => reply(&String::new()),
        "Status.Peers" | "Region.List" => Act::Reply(vec![0xc0]),
        "Status.Members" => listed("Members", nils(&["Addr", "Tags", "ProtocolMin", "DelegateCur"])),
        "Node.List" => listed("Nodes", nils(&["Attributes", "Drivers", "HostVolumes", "NodeResources", "LastDrain"])),
        "Node.GetNode" => {
            let node = nils(&["Attributes", "Meta", "DrainStrategy", "Events"]);
            reply(&SingleNodeResponse { node: Raw(node.into()), meta: QueryMeta::default() })
        }
        _ => Act::Reply(nils(&["LastContact", "LastTerm", "LastIndex"])),
    });
    for line in [&["status"][..], &["node", "list"], &["node", "status", IDS[0]]] {
        let (exit, out, err) = holdfast(&[line, &["--address", &address]].concat());
        assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{line:?}: {out}");
    }
}

#[test]
fn help_and_version_are_answers_and_wrong_usage_is_not() {
    for line in [&["--help"][..], &["node", "--help"], &["bench", "park", "--help"], &["--version"], &["help"]] {
        let (exit, out, err) = holdfast(line);
        assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{line:?}");
        assert!(out.contains("holdfast") && !out.contains('\u{1b}'), "{line:?}");
    }
    for line in [&[][..], &["nod"], &["node", "status"], &["status", "--timeout", "soon"]] {
        let (exit, out, err) = holdfast(line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line:?}");
        assert!(!err.is_empty() && !err.contains('\u{1b}'), "{line:?}");
    }
    for line in [
        &["status", "--cert-file", "a", "--ca-file", "b"][..],
        &["status", "--tls-server-name", "a"],
        &["status", "--ca-file", "/nonexistent/ca.pem"],
        &["status", "--token-file", "/nonexistent/token"],
    ] {
        assert_eq!(holdfast(line).0, Exit::Usage, "{line:?}");
    }
}

#[test]
fn nobody_there_is_status_three() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (exit, out, err) = holdfast(&["status", "--address", &address]);
    assert_eq!((exit, out.as_str()), (Exit::Unreachable, ""));
    assert!(err.starts_with(&format!("holdfast: cannot reach {address}: ")), "{err}");
}

#[test]
fn region_and_token_travel_with_every_call() {
    let right = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&right);
    let address = serve(None, move |_, body| {
        let query = GenericRequest::from_bytes(body).unwrap().query;
        seen.store(query.region == "west" && query.auth_token == "secret" && query.allow_stale, Ordering::SeqCst);
        reply(&NodeListResponse::default())
    });
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let line = ["node", "list", "--region", "west", "--token-file", token.to_str().unwrap(), "--address", &address];
    assert_eq!(holdfast(&line).0, Exit::Done);
    assert!(right.load(Ordering::SeqCst));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut err = Vec::new();
    let line = ["holdfast", "node", "list", "--address", &fleet()].map(Into::into);
    assert_eq!(run(line, &mut Closed, &mut err), Exit::Done);
    assert!(err.is_empty());
}

#[test]
fn a_servers_errors_are_words() {
    for (text, words) in [
        ("RPC Error:: 400,variable requires path", "variable requires path"),
        ("RPC Error:: 400,1 error occurred:\n\t* TTL is wrong\n\n", "TTL is wrong"),
        ("2 errors occurred:\n\t* a\n\t* b\n\n", "2 errors occurred:\n\t* a\n\t* b"),
        ("RPC Error:: soon, perhaps", "RPC Error:: soon, perhaps"),
        ("No cluster leader", "No cluster leader"),
    ] {
        assert_eq!(super::Failure::words(text), words);
    }
}

/// The shells that are tried where they are installed; all scripts are at least made.
#[test]
fn completions_are_scripts_and_tell_no_secrets() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (exit, out, err) = holdfast(&["completion", shell]);
        assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{shell}");
        assert!(out.contains("keyring") && out.contains("kill-after"), "{shell}");
        assert!(!out.contains("__under-lock"), "{shell}");
        if !["bash", "zsh", "fish"].contains(&shell) {
            continue;
        }
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), &out).unwrap();
        // A shell that is not there cannot say anything about it; bash always is.
        match std::process::Command::new(shell).arg("-n").arg(script.path()).output() {
            Ok(output) => assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => assert_ne!(shell, "bash", "{error}"),
        }
    }
    assert_eq!(holdfast(&["completion", "cmd"]).0, Exit::Usage);
}

#[test]
fn help_shows_every_command_and_none_that_is_hidden() {
    for line in [&["--help"][..], &["var", "--help"], &["var", "lock", "--help"], &["help", "operator"]] {
        let (exit, out, _) = holdfast(line);
        assert_eq!(exit, Exit::Done);
        assert!(!out.contains("__under-lock"), "{line:?}");
        // As wide as a terminal that wraps nothing.
        assert!(out.lines().all(|line| line.chars().count() <= 100), "{line:?}: {out}");
    }
    assert_eq!(holdfast(&["__under-lock"]).0, Exit::Usage);
}

#[test]
fn what_a_file_or_a_flag_says_wrongly_is_status_two() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (list, latin, number) = (file("list", b"[1]"), file("latin", b"\xe4"), file("number", b"{\"k\": 1}"));
    let no_op = file("no_op", b"[{\"Var\": {\"Path\": \"a\"}}]");
    let (in_latin, missing) = (format!("k=@{latin}"), folder.path().join("missing"));
    let missing = missing.to_str().unwrap();
    // Nobody listens there: a line that was right would be status three.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (line, says) in [
        (&["var", "put", "p"][..], "at least one item"),
        (&["var", "put", "p", "k"], "KEY=VALUE"),
        (&["var", "put", "p", "=v"], "KEY=VALUE"),
        (&["var", "put", "p", "k=@/nonexistent"], "/nonexistent: "),
        (&["var", "put", "p", &in_latin], "UTF-8"),
        (&["var", "put", "p", "--in", &list], "an object of names and texts"),
        (&["var", "put", "p", "--in", &number], "an object of names and texts"),
        (&["var", "put", "p", "k=v", "--force", "--check-index", "1"], "--check-index"),
        (&["var", "put", "p", "k=v", "--lock-file", missing], "missing: "),
        (&["var", "txn", missing], "missing: "),
        (&["var", "txn", &number], "a list of writes"),
        (&["var", "txn", &no_op], "write 1: it has no \"Op\""),
        (&["var", "lock", "p"], "COMMAND"),
        (&["var", "lock", "--ttl", "0s", "p", "true"], "--ttl"),
        (&["var", "lock", "--kill-after", "1h", "p", "true"], "--kill-after is too long"),
        (&["acl", "bootstrap", "--secret-file", missing], "missing: "),
        (&["acl", "token", "create", "--management", "--policy", "a"], "--policy"),
        (&["acl", "policy", "apply", "name", missing], "missing: "),
        (&["acl", "role", "create", "--name", "r"], "--policy"),
        (&["operator", "snapshot", "inspect", missing], "missing: "),
        (&["operator", "snapshot", "inspect", &list], "list: "),
        (&["operator", "snapshot", "restore", &list], "list: "),
        (&["monitor", "--level", "loud"], "loud"),
        (&["events", "--index", "now"], "now"),
    ] {
        let (exit, out, err) = holdfast(&[line, &["--address", &address]].concat());
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line:?}: {err}");
        assert!(err.contains(says), "{line:?}: {err}");
    }
    let right = ["var", "put", "p", "k=v", "--address", &address];
    let (exit, _, err) = holdfast(&right);
    assert!(exit == Exit::Unreachable && err.contains("--address"), "{err}");
}

// R2.3, R2.12: a write that was sent and not answered has an exit status and a class of its own.
#[test]
fn an_unknown_outcome_is_told_apart() {
    for act in [|| Act::Close, || Act::Refuse("leadership lost while committing log")] {
        let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let address = serve(None, move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            act()
        });
        let put = ["var", "put", "--force", "a/b", "k=v", "--address", &address];
        let (exit, out, err) = holdfast(&put);
        assert_eq!((exit, exit.status(), out.as_str()), (Exit::OutcomeUnknown, 4, ""));
        assert!(err.starts_with("holdfast: outcome unknown: "), "{err}");
        let (exit, _, err) = holdfast(&[&put[..], &["--json"]].concat());
        let json: Value = serde_json::from_str(&err).unwrap();
        assert_eq!((exit, &json["class"]), (Exit::OutcomeUnknown, &Value::from("outcome-unknown")));
        assert_eq!(calls.load(Ordering::SeqCst), 2, "each was sent once");
    }
    let refusing = serve(None, |_, _| Act::Refuse("Permission denied"));
    let (exit, _, err) = holdfast(&["node", "list", "--json", "--address", &refusing]);
    let json: Value = serde_json::from_str(&err).unwrap();
    assert_eq!((exit, &json["class"], &json["error"]), (Exit::Failed, &"refused".into(), &"Permission denied".into()));
}
