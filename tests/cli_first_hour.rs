//! What an operator types in the first hour, against a real daemon: `holdfast tls`, `holdfast doctor`, `holdfast
//! operator debug`.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use rig::talk::call_once;
use rig::{Daemon, Setup, Value, eventually, json, nodes};

/// Runs `holdfast tls` in a folder.
fn tls(folder: &Path, line: &[&str]) {
    let output = rig::cli::program().arg("tls").args(line).arg("--dir").arg(folder).output().unwrap();
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The `[tls]` table of a server with these files.
fn table(folder: &Path, stem: &str) -> String {
    let at = |file: &str| folder.join(file);
    let (ca, cert, key) = (at("ca.pem"), at(&format!("{stem}.pem")), at(&format!("{stem}-key.pem")));
    let switches = "rpc = true\nhttp = true\nverify_server_hostname = true";
    format!("[tls]\n{switches}\nca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}\n")
}

fn closed(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).unwrap();
}

/// Runs `holdfast doctor` on a configuration with these lines, those outside of tables first.
fn doctor(folder: &Path, config: &str, change: impl Fn(&mut Command)) -> (Option<i32>, Value) {
    let file = folder.join("doctor.toml");
    fs::write(&file, config).unwrap();
    let mut command = rig::cli::program();
    command.args(["doctor", "--json", "-c"]).arg(&file);
    change(&mut command);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let told = serde_json::from_slice(&stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr)));
    (status.code(), told)
}

/// The checks of a group that have this verdict, as texts.
fn found(told: &Value, group: &str, verdict: &str) -> Vec<String> {
    let all = told["checks"].as_array().unwrap().iter();
    let wanted = all.filter(|one| one["group"] == group && one["verdict"] == verdict);
    wanted.map(|one| format!("{}: {} ({})", one["what"], one["detail"], one["hint"])).collect()
}

/// What is the same in every configuration here: where the data is, and where the server listens.
fn places(daemon: &Daemon) -> String {
    format!(
        "data_dir = {:?}\n[listen]\nrpc = \"{}\"\nhttp = \"{}\"\n",
        daemon.setup.data_dir(),
        daemon.rpc,
        daemon.http
    )
}

#[test]
fn certificates_of_ours_secure_a_server_and_the_doctor_agrees() {
    let setup = Setup::new("");
    let folder = setup.folder().to_owned();
    closed(&setup.data_dir());
    tls(&folder, &["ca"]);
    tls(&folder, &["cert", "--server"]);
    tls(&folder, &["cert", "--server", "--region", "west", "--name", "west"]);
    tls(&folder, &["cert", "--cli"]);
    let daemon = setup.config(&table(&folder, "server")).start();
    let at = |file: &str| folder.join(file).to_str().unwrap().to_owned();
    let (ca, cert, key) = (at("ca.pem"), at("cli.pem"), at("cli-key.pem"));
    let secure = ["--ca-file", &ca, "--cert-file", &cert, "--key-file", &key];
    let status = daemon.holdfast(&[&secure[..], &["status"]].concat()).ok();
    assert!(status.contains("1 server: 1 alive"), "{status}");
    // Who has no certificate is nobody, and a server of another region is not the one that is meant.
    daemon.holdfast(&["--ca-file", &ca, "status"]).failed(3);
    daemon.holdfast(&["status"]).failed(3);
    let named = daemon.holdfast(&[&secure[..], &["--tls-server-name", "server.west.nomad", "status"]].concat());
    assert!(named.failed(3).contains("server.global.nomad"), "the name that it has is told");

    let (status, told) = doctor(&folder, &format!("{}{}", places(&daemon), table(&folder, "server")), |_| ());
    assert_eq!((status, &told["fail"]), (Some(0), &json!(0)), "{told:#}");
    assert_eq!(found(&told, "ports", "ok").len(), 2, "{told:#}");
    assert!(found(&told, "ports", "ok")[0].contains("which answers"), "{told:#}");
    assert_eq!(found(&told, "certificates", "ok").len(), 4, "{told:#}");
    assert!(found(&told, "data", "fail").is_empty() && !found(&told, "data", "ok").is_empty(), "{told:#}");
    assert!(found(&told, "limits", "ok").iter().any(|one| one.contains(" open")), "{told:#}");
    assert!(found(&told, "cluster", "ok").iter().any(|one| one.contains("all are well")), "{told:#}");

    // The certificate of the wrong region: nobody would take this server for one of its region.
    let (status, told) = doctor(&folder, &format!("{}{}", places(&daemon), table(&folder, "west")), |_| ());
    assert_eq!(status, Some(1));
    let failed = found(&told, "certificates", "fail");
    assert!(failed.len() == 1 && failed[0].contains("not good for server.global.nomad"), "{told:#}");
    // A key that everybody can read.
    fs::set_permissions(at("server-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (status, told) = doctor(&folder, &format!("{}{}", places(&daemon), table(&folder, "server")), |_| ());
    assert_eq!((status, found(&told, "secrets", "fail").len()), (Some(1), 1), "{told:#}");
}

#[test]
fn the_doctor_tells_what_is_taken_gone_or_silent() {
    let daemon = Daemon::start("");
    let folder = daemon.setup.folder();
    // Takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = silent.local_addr().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "data_dir = \"/nowhere/at/all\"\n[listen]\nrpc = \"{taken}\"\nhttp = \"127.0.0.1:0\"\n\
         [cluster]\nbootstrap_expect = 3\njoin = [\"{}\", \"{gone}\", \"nowhere.invalid:4647\"]\n\
         [regions]\nwest = [\"{}\"]\n",
        daemon.rpc, daemon.rpc
    );
    let (status, told) = doctor(folder, &config, |_| ());
    assert_eq!(status, Some(1));
    let ports = found(&told, "ports", "fail");
    assert!(ports.len() == 1 && ports[0].contains("not by a server of ours") && ports[0].contains("ss -"), "{told:#}");
    assert_eq!(found(&told, "data", "fail").len(), 1, "{told:#}");
    let up = found(&told, "peers", "ok");
    assert!(up.iter().any(|one| one.contains(".global, name")), "{told:#}");
    assert!(up.iter().any(|one| one.contains("clock of")), "{told:#}");
    let refused = found(&told, "peers", "warn");
    assert!(refused.len() == 1 && refused[0].contains(&gone.to_string()), "{told:#}");
    let failed = found(&told, "peers", "fail");
    assert!(failed.iter().any(|one| one.contains("nowhere.invalid")), "{told:#}");
    assert!(failed.iter().any(|one| one.contains("of another region than west")), "{told:#}");
    // What answers first speaks for the cluster.
    assert!(found(&told, "cluster", "warn").iter().any(|one| one.contains("3 expected")), "{told:#}");

    // With ACLs on a server is known to be one, and who it is only with a token.
    let shut = Daemon::start("[acl]\nenabled = true\n");
    let config = format!("{}[acl]\nenabled = true\n", places(&shut));
    let (_, told) = doctor(shut.setup.folder(), &config, |_| ());
    assert_eq!(found(&told, "ports", "ok").len(), 2, "{told:#}");
    assert!(found(&told, "cluster", "note").iter().any(|one| one.contains("Permission denied")), "{told:#}");
    let root = shut.holdfast(&["acl", "bootstrap", "--json"]).json()["secret"].as_str().unwrap().to_owned();
    let (_, told) = doctor(shut.setup.folder(), &config, |command| {
        command.env("HOLDFAST_TOKEN", &root);
    });
    assert!(found(&told, "cluster", "ok").iter().any(|one| one.contains("all are well")), "{told:#}");

    let output = rig::cli::program().args(["doctor", "-c", "/nowhere/at/all.toml"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn what_a_caller_may_not_see_is_no_fault_of_the_thing() {
    const NOBODY: u32 = 65_534;
    let setup = Setup::new("");
    let folder = setup.folder();
    closed(&setup.data_dir());
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if !root {
        // Its owner sees a folder that is closed to him as others do.
        fs::set_permissions(setup.data_dir(), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let config =
        format!("data_dir = {:?}\n[listen]\nrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n", setup.data_dir());
    // The program may lie where nobody else looks.
    let copy = folder.join("holdfast");
    fs::copy(rig::cli::program().get_program(), &copy).unwrap();
    fs::write(folder.join("doctor.toml"), config).unwrap();
    let mut command = Command::new(&copy);
    command.args(["doctor", "--json", "-c"]).arg(folder.join("doctor.toml"));
    if root {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    let unseen = found(&told, "data", "note");
    assert!(unseen.len() == 1 && unseen[0].contains("cannot be measured by this user"), "{told:#}");
}

/// Every file below a folder.
fn files(folder: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, into) } else { into.push(path) }
    }
}

// R8.26
#[test]
fn an_archive_for_support_holds_facts_and_no_secret() {
    const VALUE: &str = "the-value-of-a-variable";
    const LOCK: &str = "10c40001-0000-4000-8000-000000000001";
    let daemon = Daemon::start("[acl]\nenabled = true\n");
    let root = daemon.holdfast(&["acl", "bootstrap", "--json"]).json()["secret"].as_str().unwrap().to_owned();
    eventually("a key ring", || {
        let ran = daemon.holdfast_as(&root, &["var", "put", "--force", "app/db", &format!("password={VALUE}")]);
        (ran.status == Some(0)).then_some(())
    });
    let made =
        daemon.holdfast_as(&root, &["acl", "token", "create", "--management", "--name", "second", "--json"]).json();
    let second = made["secret"].as_str().unwrap().to_owned();
    let lock = json!({ "ID": LOCK, "TTL": 3_600_000_000_000_u64, "LockDelay": 0 });
    let var = json!({ "Path": "jobs/nightly", "Lock": lock, "Items": { "k": VALUE } });
    let body = json!({ "Region": "global", "AuthToken": root, "Op": "lock-acquire", "Var": var, "Owner": "tester" });
    call_once(daemon.rpc, "Variables.Apply", &body).ok();
    let open = json!({ "Region": "global", "AuthToken": root, "Name": "billing", "TTL": 3_600_000_000_000_u64 });
    let opened = call_once(daemon.rpc, "Session.Open", &open).ok();
    let id = nodes::id(7);
    let _node = nodes::session(daemon.rpc, &id);

    let archive = daemon.setup.folder().join("debug.tar.gz");
    let line = ["operator", "debug", "--json", "--duration", "1s", "-o", archive.to_str().unwrap()];
    let told = daemon.holdfast_as(&root, &line).json();
    assert_eq!(told["missing"], 0, "{told}");
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let unpacked = tempfile::tempdir().unwrap();
    let tar = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(unpacked.path()).output().unwrap();
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));

    let read = |name: &str| fs::read_to_string(unpacked.path().join(name)).unwrap();
    let index: Value = serde_json::from_str(&read("index.json")).unwrap();
    let listed = index["files"].as_array().unwrap();
    let names: Vec<&str> = listed.iter().map(|entry| entry["file"].as_str().unwrap()).collect();
    assert_eq!(listed.len(), told["files"].as_u64().unwrap() as usize);
    for entry in listed {
        let name = entry["file"].as_str().unwrap();
        assert_eq!(read(name).len() as u64, entry["bytes"].as_u64().unwrap(), "{name}");
        if name.ends_with(".json") {
            let _: Value = serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
    // The things are there, only their secrets are not.
    assert!(read("cluster/locks.json").contains("jobs/nightly") && read("cluster/locks.json").contains("tester"));
    assert!(read("cluster/sessions.json").contains("billing") && read("cluster/nodes.json").contains(&id));
    let of = |end: &str| read(names.iter().find(|name| name.ends_with(end)).unwrap());
    let told: Value = serde_json::from_str(&of("agent-self.json")).unwrap();
    assert_eq!(told["config"]["ACL"]["Enabled"], true);
    assert!(told["stats"]["holdfast"]["digest_index"].is_string(), "{told:#}");
    assert!(of("metrics-end.prom").contains("# TYPE holdfast_") && of("connections.json").contains(&id));
    assert!(of("log.txt").contains("DEBUG") || of("log.txt").contains("TRACE") || of("log.txt").is_empty());

    let mut secrets = vec![root, second, VALUE.to_owned(), LOCK.to_owned(), nodes::SECRET.to_owned()];
    secrets.push(key_of(&opened));
    let mut all = Vec::new();
    files(unpacked.path(), &mut all);
    assert_eq!(all.len(), names.len() + 1);
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{}: {secret}", file.display());
        }
    }
}

/// The key of a session that was opened, in hexadecimal digits.
fn key_of(opened: &Value) -> String {
    match opened["Key"].as_str() {
        Some(text) => rig::hex(text.as_bytes()),
        None => opened["Key"]["$raw_hex"].as_str().unwrap().to_owned(),
    }
}

#[test]
fn without_a_token_or_a_server_there_is_an_archive_that_says_so() {
    let daemon = Daemon::start("[acl]\nenabled = true\n");
    let archive = daemon.setup.folder().join("debug.tar.gz");
    let line = ["operator", "debug", "--json", "--duration", "100ms", "--out", archive.to_str().unwrap()];
    let told = daemon.holdfast(&line).json();
    assert!(told["missing"].as_u64().unwrap() > 3 && told["files"].as_u64().unwrap() > 3, "{told}");
    let index = Command::new("tar").arg("-xOzf").arg(&archive).arg("index.json").output().unwrap().stdout;
    let index: Value = serde_json::from_slice(&index).unwrap();
    let refused = index["files"].as_array().unwrap().iter().filter(|entry| entry["error"] == "Permission denied");
    assert!(refused.count() > 3, "{index:#}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = rig::cli::program().args(["--address", &nobody]).args(line).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["files"], &told["missing"]), (&json!(2), &json!(1)));
}
