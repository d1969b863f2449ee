//! The benches, whole, against a server made of threads: what they ask, what they leave behind, how they end.

use serde_json::Value;

use crate::cli::bench::fake;
use crate::cli::{Exit, run};
use crate::client::fake as plain;

/// Runs `holdfast bench ...` against an address; gives exit status, standard output and standard error.
pub(super) fn bench(address: &str, line: &str) -> (Exit, String, String) {
    let mut words: Vec<String> = vec!["holdfast".to_owned(), "bench".to_owned()];
    words.extend(line.split_whitespace().map(str::to_owned));
    words.extend(["--address".to_owned(), address.to_owned()]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run(words.into_iter().map(Into::into), &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// The same with JSON, which must have worked.
fn results(address: &str, line: &str) -> Value {
    let (exit, out, err) = bench(address, &format!("{line} --json --pid {}", std::process::id()));
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    report["results"].clone()
}

pub(super) fn figure(results: &Value, key: &str) -> f64 {
    results[key].as_f64().unwrap_or_else(|| panic!("{key} is missing in {results:#}"))
}

#[test]
fn ping_counts_calls_over_all_streams() {
    for batch in ["--batch", "--no-batch"] {
        let (address, world) = fake::start();
        let line = format!("ping --connections 3 --streams 5 --count 600 --warmup 0 {batch}");
        let results = results(&address, &line);
        assert_eq!(figure(&results, "count"), 600.0);
        assert!(figure(&results, "rate_per_s") > 0.0);
        assert!(figure(&results, "latency_p50_us") <= figure(&results, "latency_p999_us"));
        assert!(figure(&results, "server_cpu_us") >= 0.0);
        let world = world.lock().unwrap();
        assert_eq!(world.connections, 3);
        // The last of each stream may be under way when the count is reached.
        assert!((600..=615).contains(&world.calls["Status.Ping"]));
    }
}

#[test]
fn ping_text_names_parameters_and_machine() {
    let (address, _world) = fake::start();
    let (exit, out, err) = bench(&address, "ping --streams 2 --duration 30ms --warmup 5ms");
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    for part in ["bench ping of 127.0.0.1:", "connections 1, streams 2", "cores; the generator used", "latency p99.9"] {
        assert!(out.contains(part), "{part} in {out}");
    }
}

#[test]
fn raw_speaks_plain_calls_also_inside_tls() {
    let (address, world) = fake::start();
    let seen = results(&address, "raw --connections 4 --count 100 --warmup 0s");
    assert_eq!(figure(&seen, "count"), 100.0);
    assert_eq!(world.lock().unwrap().connections, 4);

    let folder = tempfile::tempdir().unwrap();
    plain::certificates(folder.path(), &["server.global.nomad", "cli.global.nomad"]);
    let tls = plain::server_tls(folder.path(), "server.global.nomad");
    let address = plain::serve(Some(tls), |_, _| plain::Act::Reply(vec![0x80]));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let line = format!(
        "raw --connections 2 --count 50 --warmup 0s --ca-file {} --cert-file {} --key-file {}",
        path("ca.pem"),
        path("cli.global.nomad.pem"),
        path("cli.global.nomad-key.pem"),
    );
    assert_eq!(figure(&results(&address, &line), "count"), 50.0);
}

#[test]
fn conn_makes_a_connection_for_each_ping() {
    let (address, world) = fake::start();
    let seen = results(&address, "conn --concurrency 3 --count 40 --warmup 0s");
    assert!(figure(&seen, "count") >= 40.0);
    let world = world.lock().unwrap();
    assert!(world.calls["Status.Ping"] >= 40);
    assert!(world.connections >= 40);
}

#[test]
fn idle_connections_are_counted_and_found_alive() {
    for (open, pings) in [("byte", 12), ("stream", 24)] {
        let (address, world) = fake::start();
        let line = format!("idle --count 12 --open {open} --hold 5ms --settle 5ms --sources 3");
        let seen = results(&address, &line);
        assert_eq!(figure(&seen, "alive"), 12.0);
        assert!(seen["memory_per_connection_bytes"].is_number());
        let world = world.lock().unwrap();
        assert_eq!((world.connections, world.calls["Status.Ping"]), (12, pings));
    }
}

#[test]
fn park_parks_wakes_and_removes_its_nodes() {
    // More streams than a session lets wait for their opening at once.
    for (query, nodes, line) in [
        ("list", 1, "--connections 2 --streams 300 --wakes 3"),
        ("node", 1, "--connections 2 --streams 5"),
        ("nodes", 10, "--connections 2 --streams 5 --wakes 4"),
        ("allocs", 10, "--connections 2 --streams 5"),
    ] {
        let (address, world) = fake::start();
        let seen = results(&address, &format!("park --query {query} {line} --hold 5ms --settle 5ms"));
        let parked = if query == "list" { 600 } else { 10 };
        assert_eq!(figure(&seen, "queries"), f64::from(parked));
        assert_eq!(figure(&seen, "hold_early_answers"), 0.0, "{query}");
        let world = world.lock().unwrap();
        assert_eq!(world.most_waiting, usize::try_from(parked).unwrap());
        assert!(world.nodes.is_empty());
        let wakes = match query {
            "list" => 3,
            "node" => 1,
            "nodes" => 4,
            _ => 0,
        };
        assert_eq!(world.calls["Node.Register"], nodes + wakes);
        match query {
            "list" => assert!(figure(&seen, "last_answer_max_us") >= figure(&seen, "first_answer_p50_us")),
            "node" => assert!(figure(&seen, "last_answer_us") >= figure(&seen, "first_answer_us")),
            "nodes" => assert!(figure(&seen, "first_answer_p50_us") > 0.0),
            _ => assert!(seen["write_latency_us"].is_null()),
        }
    }
}

#[test]
fn heartbeats_follow_registrations() {
    for (flag, left) in [("", 0), ("--keep", 20)] {
        let (address, world) = fake::start();
        let line = format!("heartbeat --nodes 20 --connections 2 --streams 3 --count 100 --warmup 0s {flag}");
        let seen = results(&address, &line);
        assert_eq!(figure(&seen, "registration_count"), 20.0);
        assert_eq!(figure(&seen, "heartbeat_count"), 100.0);
        let world = world.lock().unwrap();
        assert_eq!(world.calls["Node.Register"], 20);
        assert!(world.calls["Node.UpdateStatus"] >= 120);
        assert_eq!(world.nodes.len(), left);
    }
}

#[test]
fn a_refusal_ends_the_run_with_its_text_and_nodes_are_removed() {
    let (address, world) = fake::start();
    world.lock().unwrap().refuse = Some(("Node.UpdateStatus", "Permission denied"));
    let (exit, out, err) = bench(&address, "heartbeat --nodes 3 --warmup 0s --count 1");
    assert_eq!((exit, out.as_str()), (Exit::Failed, ""));
    assert!(err.starts_with("holdfast: Permission denied; see --token-file"), "{err}");
    assert!(world.lock().unwrap().nodes.is_empty());
}

#[test]
fn a_server_that_never_lets_queries_wait_is_told_so() {
    let (address, world) = fake::start();
    world.lock().unwrap().never_blocks = true;
    let (exit, _, err) = bench(&address, "park --streams 4 --hold 1s --settle 1s");
    assert_eq!((exit, err.as_str()), (Exit::Failed, "holdfast: the server answers blocking queries at once\n"));
}

#[test]
fn silence_and_absence_are_no_answer() {
    let address = plain::serve(None, |_, _| plain::Act::Silence);
    let (exit, _, err) = bench(&address, "raw --connections 1 --timeout 20ms --warmup 0s");
    assert_eq!((exit, err.as_str()), (Exit::Unreachable, "holdfast: no answer in time\n"));
    let address = plain::serve(None, |_, _| plain::Act::Close);
    let (exit, _, err) = bench(&address, "raw --connections 1 --warmup 0s");
    assert_eq!((exit, err.as_str()), (Exit::Unreachable, "holdfast: connection lost: closed by the server\n"));
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(bench(&address, "ping --warmup 0s").0, Exit::Unreachable);
    assert_eq!(bench(&address, "idle --pid 4294967295").0, Exit::Failed);
    assert_eq!(bench("10.0.0.1:4647", "idle --sources 2").0, Exit::Usage);
}

/// A server with variables for check-and-set that does this harm at each twentieth write.
pub(super) fn variables(planted: Harm) -> String {
    use crate::client::fake::Act;
    use crate::wire::body::var::*;
    use crate::wire::msgpack::Msg;
    type Held = std::collections::BTreeMap<String, Variable>;
    let held: std::sync::Mutex<(Held, u64)> = std::sync::Mutex::default();
    plain::serve(None, move |method, body| {
        let mut held = held.lock().unwrap();
        if method == "Variables.Read" {
            let path = VariablesReadRequest::from_bytes(body).unwrap().path;
            let data = held.0.get(&path).cloned();
            return plain::reply(&VariablesReadResponse { data, ..VariablesReadResponse::default() });
        }
        let request = VariablesApplyRequest::from_bytes(body).unwrap();
        let mut var = request.var.unwrap();
        if !var.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_~/".contains(&byte)) {
            return Act::Refuse("invalid path");
        }
        held.1 += 1;
        let (index, harm) =
            (held.1, if held.1.is_multiple_of(20) && request.op == "cas" { planted } else { Harm::None });
        let known = held.0.get(&var.path).map_or(0, |known| known.modify_index);
        let mut answer = VariablesApplyResponse { op: request.op.clone(), ..VariablesApplyResponse::default() };
        if request.op == "cas" && known != var.modify_index {
            answer.result = "conflict".to_owned();
            return plain::reply(&answer);
        }
        (var.modify_index, var.create_index) = (index, held.0.get(&var.path).map_or(index, |known| known.create_index));
        if harm != Harm::Lose {
            held.0.insert(var.path.clone(), var.clone());
        }
        if harm == Harm::Double {
            held.1 += 1;
            let again = held.1;
            held.0.entry(var.path.clone()).and_modify(|var| var.modify_index = again);
        }
        (answer.result, answer.output) = ("ok".to_owned(), Some(var));
        if harm == Harm::Drop { Act::Close } else { plain::reply(&answer) }
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Harm {
    None,
    /// Applied, and the connection is closed without an answer.
    Drop,
    /// Acknowledged, and not applied.
    Lose,
    /// Applied twice.
    Double,
}

// A checker that finds nothing proves nothing: each kind of harm is planted once in a while.
#[test]
fn failover_tells_broken_promises_from_bad_luck() {
    let every = [
        (Harm::None, "", Exit::Done),
        (Harm::Drop, "writes_unknown_applied", Exit::Done),
        (Harm::Lose, "writes_lost", Exit::Failed),
        (Harm::Double, "writes_doubled", Exit::Failed),
    ];
    for (harm, found, exit) in every {
        let line = "failover --writers 2 --readers 1 --duration 300ms --json";
        let (ended, out, err) = bench(&variables(harm), line);
        assert_eq!((ended, err.as_str()), (exit, ""), "{found} {out}");
        let report: Value = serde_json::from_str(&out).unwrap();
        for key in ["writes_unknown_applied", "writes_lost", "writes_doubled", "writes_failed"] {
            // A write that was lost also makes the readers' answers stale, and a conflict.
            assert_eq!(figure(&report["results"], key) > 0.0, key == found, "{found}: {key} in {out}");
        }
        assert!(figure(&report["results"], "writes_acknowledged") > 2.0, "{out}");
    }
}

// R3.16: with the look and without, side by side.
#[test]
fn pool_measures_with_the_check_and_without() {
    use crate::client::fake::Act;
    for plain in ["", "--plain"] {
        let address = plain::serve(None, |_, _| Act::Reply(vec![0x80]));
        let results = results(&address, &format!("pool --connections 2 --duration 100ms --warmup 1ms {plain}"));
        for key in ["check_rate_per_s", "no_check_rate_per_s", "check_latency_p50_us", "no_check_count"] {
            assert!(figure(&results, key) > 0.0, "{key}");
        }
        assert!(figure(&results, "check_cost_percent") < 100.0);
    }
}
