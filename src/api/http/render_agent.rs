//! Replies about servers and nodes whose JSON is not what msgpack says field by field.
//!
//! Source: HTTP notes, sections 2, 3 and 5.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::wire::body::keyring::{ListPublicResponse, PublicKey};
use crate::wire::body::operator::{AgentSelfResponse, AutopilotConfig, OperatorHealthReply, ServerHealth};
use crate::wire::body::status::{Member, ServerMembersResponse};
use crate::wire::http::HttpReply;
use crate::wire::json::{JsonStyle, go_time_text, push_base64, push_go_duration, push_json_string};
use crate::wire::msgpack::{Bytes, Decoder, Encoder, Msg, Result};

use super::render::{NIL, is_nil, json_of, split};
use super::reply::{json_reply, read_headers, text_reply};

/// Seconds that a reader may keep the key set (a new key is there long before it signs).
const JWKS_MAX_AGE_SECONDS: u32 = 300;

/// A JSON string of its own.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_string(text, &mut out);
    out
}

fn duration(nanos: i64) -> String {
    let mut out = String::new();
    push_go_duration(nanos, &mut out);
    out
}

/// `/v1/agent/health`. What is wrong is told as text, with the same JSON in it.
pub(super) fn health(leader: std::result::Result<(), &str>, client: bool, pretty: bool) -> HttpReply {
    match leader {
        Ok(()) if !client => json_reply(200, "{\"server\":{\"message\":\"ok\",\"ok\":true}}".to_owned(), pretty),
        _ => {
            let (message, ok) = leader.map_or_else(|text| (text, false), |()| ("ok", true));
            let client = if client { "\"client\":{\"ok\":false,\"message\":\"client not enabled\"}," } else { "" };
            let text = format!("{{{client}\"server\":{{\"ok\":{ok},\"message\":{}}}}}", quoted(message));
            text_reply(500, &text)
        }
    }
}

/// Status.Members: addresses as text.
pub(super) fn members(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = ServerMembersResponse::from_bytes(body)?;
    let members: Vec<String> = response.members.iter().map(member).collect();
    let json = format!(
        "{{\"Members\":[{}],\"ServerDC\":{},\"ServerName\":{},\"ServerRegion\":{}}}",
        members.join(","),
        quoted(&response.server_dc),
        quoted(&response.server_name),
        quoted(&response.server_region)
    );
    Ok(json_reply(200, json, pretty))
}

fn member(member: &Member) -> String {
    let tags: Vec<String> =
        member.tags.iter().map(|(name, value)| format!("{}:{}", quoted(name), quoted(value))).collect();
    format!(
        "{{\"Addr\":{},\"DelegateCur\":{},\"DelegateMax\":{},\"DelegateMin\":{},\"Name\":{},\"Port\":{},\
         \"ProtocolCur\":{},\"ProtocolMax\":{},\"ProtocolMin\":{},\"Status\":{},\"Tags\":{{{}}}}}",
        quoted(&ip_text(&member.addr)),
        member.delegate_cur,
        member.delegate_max,
        member.delegate_min,
        quoted(&member.name),
        member.port,
        member.protocol_cur,
        member.protocol_max,
        member.protocol_min,
        quoted(&member.status),
        tags.join(",")
    )
}

fn ip_text(bytes: &Bytes) -> String {
    let v4 = <[u8; 4]>::try_from(&*bytes.0).map(IpAddr::from);
    let ip = v4.or_else(|_| <[u8; 16]>::try_from(&*bytes.0).map(IpAddr::from));
    ip.map_or_else(|_| String::new(), |ip| ip.to_canonical().to_string())
}

/// Holdfast.AgentSelf. The keys that clients read are there even if the configuration does not name them.
pub(super) fn agent_self(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = AgentSelfResponse::from_bytes(body)?;
    let read = |text: &str| match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        _ => Map::new(),
    };
    let mut config = read(&response.config_json);
    // Without this clients print links to a web interface that is not here.
    config.entry("UI").or_insert_with(|| serde_json::json!({ "Enabled": false, "ShowCLIHints": false }));
    let own = config.remove("member").filter(Value::is_object).unwrap_or_else(|| member_of(&config));
    let whole = serde_json::json!({ "config": config, "member": own, "stats": read(&response.stats_json) });
    Ok(json_reply(200, whole.to_string(), pretty))
}

/// What the configuration says of the server as a member of its cluster.
fn member_of(config: &Map<String, Value>) -> Value {
    let text = |names: [&str; 2]| names.iter().find_map(|name| config.get(*name)?.as_str()).unwrap_or_default();
    let (name, region) = (text(["NodeName", "name"]), text(["Region", "region"]));
    let build = config.get("Version").and_then(|version| version.get("Version")).and_then(Value::as_str);
    let advertised = config.get("AdvertiseAddrs").or_else(|| config.get("advertise"));
    let rpc = advertised.and_then(|addrs| addrs.get("RPC").or_else(|| addrs.get("rpc"))).and_then(Value::as_str);
    let (addr, port) = rpc.and_then(|rpc| rpc.rsplit_once(':')).unwrap_or_default();
    serde_json::json!({
        "Addr": addr.trim_matches(['[', ']']),
        "DelegateCur": 4, "DelegateMax": 5, "DelegateMin": 2,
        "Name": format!("{name}.{region}"),
        "Port": port.parse::<u16>().unwrap_or(0),
        "ProtocolCur": 2, "ProtocolMax": 5, "ProtocolMin": 1,
        "Status": "alive",
        "Tags": {
            "role": "nomad",
            "region": region,
            "dc": text(["Datacenter", "datacenter"]),
            "build": build.unwrap_or_default(),
            "port": port,
            "raft_vsn": "3",
        },
    })
}

/// Keyring.ListPublic as a key set (RFC 7517, RFC 8037).
pub(super) fn jwks(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let response = ListPublicResponse::from_bytes(body)?;
    let keys: Vec<String> = response.public_keys.iter().map(jwk).collect();
    let mut reply = json_reply(200, format!("{{\"keys\":[{}]}}", keys.join(",")), pretty);
    reply.headers.push(("Cache-Control", format!("max-age={JWKS_MAX_AGE_SECONDS}")));
    reply.headers.extend(read_headers(&response.meta));
    Ok(reply)
}

fn jwk(key: &PublicKey) -> String {
    // base64url without padding (RFC 4648 section 5).
    let mut x = String::new();
    push_base64(&key.public_key.0, &mut x);
    let x = x.replace('+', "-").replace('/', "_").replace('=', "");
    format!(
        "{{\"use\":{},\"kty\":\"OKP\",\"kid\":{},\"crv\":\"Ed25519\",\"alg\":{},\"x\":\"{x}\"}}",
        quoted(&key.usage),
        quoted(&key.key_id),
        quoted(&key.algorithm)
    )
}

/// Node.GetNode: without its secret, and with whether it is drained.
pub(super) fn node(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let ([node], meta) = split(body, ["Node"])?;
    let mut reply = match node.filter(|_| !is_nil(node)) {
        Some(node) => json_reply(200, json_of(&with_drain(node)?, JsonStyle::PUBLIC)?, pretty),
        None => text_reply(404, "node not found"),
    };
    reply.headers.extend(read_headers(&meta));
    Ok(reply)
}

/// A node's map with a `Drain` that says what its DrainStrategy says.
fn with_drain(node: &[u8]) -> Result<Vec<u8>> {
    let mut d = Decoder::new(node);
    let (mut rest, mut count, mut drains) = (Encoder::new(), 1, false);
    for _ in 0..d.map()?.unwrap_or(0) {
        let (key, value) = (d.raw()?, d.raw()?);
        match Decoder::new(key).bytes()? {
            b"Drain" => continue,
            b"DrainStrategy" => drains = value != NIL,
            _ => {}
        }
        rest.raw(key);
        rest.raw(value);
        count += 1;
    }
    let mut whole = Encoder::new();
    whole.map(count);
    whole.str("Drain");
    whole.bool(drains);
    whole.raw(&rest.out);
    Ok(whole.out)
}

/// Operator.AutopilotGetConfiguration: durations in words, which come first.
pub(super) fn autopilot(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let config = AutopilotConfig::from_bytes(body)?;
    let json = format!(
        "{{\"LastContactThreshold\":\"{}\",\"ServerStabilizationTime\":\"{}\",\"CleanupDeadServers\":{},\
         \"MaxTrailingLogs\":{},\"MinQuorum\":{},\"EnableRedundancyZones\":{},\"DisableUpgradeMigration\":{},\
         \"EnableCustomUpgrades\":{},\"CreateIndex\":{},\"ModifyIndex\":{}}}",
        duration(config.last_contact_threshold),
        duration(config.server_stabilization_time),
        config.cleanup_dead_servers,
        config.max_trailing_logs,
        config.min_quorum,
        config.enable_redundancy_zones,
        config.disable_upgrade_migration,
        config.enable_custom_upgrades,
        config.create_index,
        config.modify_index
    );
    Ok(json_reply(200, json, pretty))
}

/// Operator.ServerHealth: 429 when not all is well.
pub(super) fn server_health(body: &[u8], pretty: bool) -> Result<HttpReply> {
    let health = OperatorHealthReply::from_bytes(body)?;
    let servers: Vec<String> = health.servers.iter().map(one_server).collect();
    let voters: Vec<String> = health.voters.iter().map(|id| quoted(id)).collect();
    let json = format!(
        "{{\"FailureTolerance\":{},\"Healthy\":{},\"Leader\":{},\"Servers\":[{}],\"Voters\":[{}]}}",
        health.failure_tolerance,
        health.healthy,
        quoted(&health.leader),
        servers.join(","),
        voters.join(",")
    );
    Ok(json_reply(if health.healthy { 200 } else { 429 }, json, pretty))
}

fn one_server(server: &ServerHealth) -> String {
    let status = match server.serf_status {
        1 => "alive",
        2 => "leaving",
        3 => "left",
        4 => "failed",
        _ => "none",
    };
    let since = go_time_text(&server.stable_since.0).unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned());
    format!(
        "{{\"LastContact\":\"{}\",\"ID\":{},\"Name\":{},\"Address\":{},\"SerfStatus\":\"{status}\",\"Version\":{},\
         \"Leader\":{},\"LastTerm\":{},\"LastIndex\":{},\"Healthy\":{},\"Voter\":{},\"StableSince\":\"{since}\"}}",
        duration(server.last_contact),
        quoted(&server.id),
        quoted(&server.name),
        quoted(&server.address),
        quoted(&server.version),
        server.leader,
        server.last_term,
        server.last_index,
        server.healthy,
        server.voter
    )
}
