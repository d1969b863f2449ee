//! A daemon with ACLs on: the first token, what callers may do with and without one, the reset file, what a restart and
//! the log keep and do not show (R1.26, R8.15).

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;

use rig::talk::call_once;
use rig::{Daemon, Talk, Value, eventually, json};

const NODE: &str = "a1b2c3d4-0001-0002-0003-00000000abcd";
const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";

fn call(daemon: &Daemon, token: &str, method: &str, mut body: Value) -> rig::Reply {
    body["Region"] = json!("global");
    body["AuthToken"] = json!(token);
    call_once(daemon.rpc, method, &body)
}

fn bootstrap(daemon: &Daemon) -> Value {
    call(daemon, "", "ACL.Bootstrap", json!({})).ok()["Tokens"][0].clone()
}

fn secret_of(token: &Value) -> String {
    token["SecretID"].as_str().unwrap().to_owned()
}

#[test]
fn the_first_token_opens_the_rest_and_survives_a_restart() {
    let daemon = Daemon::start("[acl]\nenabled = true\n");
    assert_eq!(call(&daemon, "", "Node.List", json!({})).err(), "Permission denied");
    let root = secret_of(&bootstrap(&daemon));
    let policy = json!({ "Policies": [{ "Name": "readers", "Rules": "node {\n  policy = \"read\"\n}\n" }] });
    call(&daemon, &root, "ACL.UpsertPolicies", policy).ok();
    let asked = json!({ "Tokens": [{ "Name": "r", "Type": "client", "Policies": ["readers"] }] });
    let reader = secret_of(&call(&daemon, &root, "ACL.UpsertTokens", asked).ok()["Tokens"][0]);
    let check = |daemon: &Daemon| {
        call(daemon, &reader, "Node.List", json!({})).ok();
        assert_eq!(call(daemon, &reader, "Node.Deregister", json!({ "NodeID": NODE })).err(), "Permission denied");
        assert_eq!(call(daemon, &reader, "ACL.ListTokens", json!({})).err(), "Permission denied");
        assert_eq!(call(daemon, &root, "ACL.ListTokens", json!({})).ok()["Tokens"].as_array().unwrap().len(), 2);
        let who = call(daemon, &reader, "ACL.WhoAmI", json!({})).ok();
        assert_eq!(who["Identity"]["ACLToken"]["Name"], json!("r"));
    };
    check(&daemon);
    let daemon = daemon.killed_and_again();
    check(&daemon);
    // R8.15: no secret is ever in the log.
    let lines = daemon.log.lines();
    for secret in [&root, &reader] {
        assert!(lines.iter().all(|line| !line.contains(secret)), "{lines:?}");
    }
}

#[test]
fn a_lost_first_token_is_replaced_with_the_file() {
    let daemon = Daemon::start("[acl]\nenabled = true\n");
    let made = bootstrap(&daemon)["CreateIndex"].as_u64().unwrap();
    let refused = format!("RPC Error:: 400,ACL bootstrap already done (reset index: {made})");
    assert_eq!(call(&daemon, "", "ACL.Bootstrap", json!({})).err(), refused);
    let folder = daemon.setup.data_dir().join("server");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("acl-bootstrap-reset"), format!("{made}\n")).unwrap();
    let second = eventually("a second first token", || {
        let reply = call(&daemon, "", "ACL.Bootstrap", json!({}));
        assert!(reply.error.is_empty() || reply.error == refused, "{}", reply.error);
        reply.error.is_empty().then(|| secret_of(&reply.ok()["Tokens"][0]))
    });
    call(&daemon, &second, "ACL.ListTokens", json!({})).ok();
    // The file counts once.
    let error = call(&daemon, "", "ACL.Bootstrap", json!({})).err();
    assert!(error.starts_with("RPC Error:: 400,Invalid bootstrap reset index"), "{error}");
}

/// R1.26: an agent of the 1.1 line shows no token, only its secret where the method has a place for it.
#[test]
fn agents_go_on_with_acls_on() {
    let daemon = Daemon::start("[acl]\nenabled = true\n");
    let mut talk = Talk::dial(daemon.rpc, 1);
    let node = json!({
        "ID": NODE, "SecretID": SECRET, "Name": "n", "Datacenter": "dc1", "Status": "initializing",
        "HTTPAddr": "127.0.0.1:1", "Attributes": { "nomad.version": "1.1.2" },
    });
    let reply = talk.call(0, "Node.Register", &json!({ "Region": "global", "Node": node })).ok();
    assert!(reply["HeartbeatTTL"].as_u64().unwrap() > 0);
    let beat = json!({ "Region": "global", "NodeID": NODE, "Status": "ready" });
    assert!(talk.call(0, "Node.UpdateStatus", &beat).ok()["HeartbeatTTL"].as_u64().unwrap() > 0);
    let ask = json!({ "Region": "global", "NodeID": NODE, "SecretID": SECRET });
    assert!(talk.call(0, "Node.GetClientAllocs", &ask).ok()["Index"].as_u64().unwrap() > 0);
    // Whoever knows no more than the node's id is nobody.
    assert_eq!(call(&daemon, "", "Node.UpdateStatus", beat).err(), "node not found");
    assert_eq!(call(&daemon, "", "Node.GetNode", json!({ "NodeID": NODE })).err(), "Permission denied");
    call(&daemon, SECRET, "Node.GetNode", json!({ "NodeID": NODE })).ok();
}
