//! HTTP requests as the calls they stand for, and replies as JSON.
//!
//! Source: http notes, sections 1, 2 and 8.

use crate::api;
use crate::base::id::{ConnId, StreamId};
use crate::base::metric::Id;
use crate::base::time::{Instant, WallTime, parse_duration};
use crate::wire::body::keyring::{ListPublicResponse, PublicKey};
use crate::wire::body::query::{GenericRequest, QueryMeta, QueryOptions};
use crate::wire::http::{HttpReply, HttpRequest};
use crate::wire::json;
use crate::wire::msgpack::Msg;

use super::Server;
use super::calls::Origin;
use super::links::Busy;
use crate::api::outcome::ReplyResult;

/// What a request asks for, as far as its answer must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HttpKind {
    page: Page,
    pretty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    /// The reply's body as JSON, without index headers.
    Plain,
    /// `/v1/agent/health`
    Health,
    /// `/.well-known/jwks.json`
    Jwks,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Seconds that a reader may keep the key set (a new key is there long before it signs).
const JWKS_MAX_AGE_SECONDS: u32 = 300;

impl Server {
    pub(super) fn on_http(&mut self, now: Instant, conn: ConnId, request: HttpRequest) {
        self.metrics.count(Id::HttpRequest);
        match self.http_route(now, conn, &request) {
            Ok(None) => {}
            Ok(Some(reply)) => self.http_send(now, conn, reply),
            Err(reply) => self.http_send(now, conn, *reply),
        }
    }

    fn http_send(&mut self, now: Instant, conn: ConnId, reply: HttpReply) {
        self.with_conn(now, conn, |now, c| c.http_reply(now, reply));
    }

    /// The reply, or `None` when a call was begun whose answer will be it.
    fn http_route(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: &HttpRequest,
    ) -> Result<Option<HttpReply>, Box<HttpReply>> {
        let query = Query::parse(&request.query)?;
        let pretty = query.flag("pretty");
        let (method, page) = match request.path.as_str() {
            "/v1/metrics" => {
                get_only(request)?;
                return Ok(Some(self.http_metrics(&query, pretty)));
            }
            "/v1/agent/health" => {
                get_only(request)?;
                if let Some(reply) = health_of_other_roles(&query) {
                    return Ok(Some(reply));
                }
                ("Status.Leader", Page::Health)
            }
            "/v1/status/leader" => ("Status.Leader", Page::Plain),
            "/v1/status/peers" => ("Status.Peers", Page::Plain),
            "/v1/regions" => ("Region.List", Page::Plain),
            "/.well-known/jwks.json" => ("Keyring.ListPublic", Page::Jwks),
            "/" => {
                let suffix = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
                let headers = vec![("Location", format!("/ui/{suffix}"))];
                return Ok(Some(HttpReply { status: 307, headers, body: Vec::new() }));
            }
            _ => return Ok(Some(HttpReply { status: 404, ..HttpReply::default() })),
        };
        get_only(request)?;
        let options = query.options(&self.settings.region)?;
        self.http_call(now, conn, method, options, HttpKind { page, pretty });
        Ok(None)
    }

    fn http_call(&mut self, now: Instant, conn: ConnId, name: &str, options: QueryOptions, kind: HttpKind) {
        let (Ok(method), Some(caller)) = (api::method(name), self.caller_of(conn)) else {
            return self.http_send(now, conn, text_reply(500, &format!("no such method: {name}")));
        };
        let body = GenericRequest { query: options }.to_bytes();
        let id = self.begin(now, Origin::Http { conn, kind }, method, body.into(), 0, caller);
        self.set_busy(conn, StreamId(0), Some(Busy::Call(id)));
        self.route_call(now, id);
    }

    pub(super) fn http_answer(&mut self, now: Instant, conn: ConnId, kind: HttpKind, result: &ReplyResult) {
        let reply = match (result, kind.page) {
            (ReplyResult::Body(body), Page::Plain) => json_of(body, kind.pretty),
            (ReplyResult::Body(body), Page::Health) => health_reply(leader_known(body)),
            (ReplyResult::Body(body), Page::Jwks) => jwks(body, kind.pretty),
            (ReplyResult::Error(text) | ReplyResult::BadArguments(text), Page::Health) => health_reply(Err(text)),
            (ReplyResult::Error(text) | ReplyResult::BadArguments(text), _) => error_reply(text),
        };
        self.http_send(now, conn, reply);
    }

    fn http_metrics(&mut self, query: &Query, pretty: bool) -> HttpReply {
        self.refresh_gauges();
        if query.get("format") == Some("prometheus") {
            if !self.settings.prometheus {
                return text_reply(415, "Prometheus is not enabled");
            }
            let headers = vec![("Content-Type", "text/plain; version=0.0.4; charset=utf-8".to_owned())];
            return HttpReply { status: 200, headers, body: self.metrics.prometheus().into_bytes() };
        }
        json_reply(200, &self.metrics.json(&go_time_text(self.wall)), pretty)
    }
}

/// A calendar time as Go's `time.Time.String` prints it, in whole seconds.
fn go_time_text(wall: WallTime) -> String {
    let text = WallTime::from_unix_nanos(wall.unix_seconds() * 1_000_000_000).rfc3339();
    text.replace('T', " ").replace('Z', " +0000 UTC")
}

fn get_only(request: &HttpRequest) -> Result<(), Box<HttpReply>> {
    if request.method == "GET" { Ok(()) } else { Err(Box::new(text_reply(405, "Invalid method"))) }
}

fn text_reply(status: u16, text: &str) -> HttpReply {
    HttpReply { status, headers: vec![("Content-Type", TEXT.to_owned())], body: text.as_bytes().to_vec() }
}

/// The status of an RPC error by its text (http notes, section 1.3).
fn error_reply(text: &str) -> HttpReply {
    if let Some((code, rest)) = text.strip_prefix("RPC Error:: ").and_then(|rest| rest.split_once(','))
        && let Ok(status @ 400..=599) = code.parse()
    {
        return text_reply(status, rest);
    }
    for denied in ["Permission denied", "ACL token not found"] {
        if text.ends_with(denied) {
            return text_reply(403, denied);
        }
    }
    text_reply(500, text)
}

fn json_reply(status: u16, value: &serde_json::Value, pretty: bool) -> HttpReply {
    let body = if pretty { pretty_json(value) } else { value.to_string() };
    HttpReply { status, headers: vec![("Content-Type", JSON.to_owned())], body: body.into_bytes() }
}

/// Four spaces and a final newline, as Go's encoder indents.
fn pretty_json(value: &serde_json::Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        return value.to_string();
    }
    out.push(b'\n');
    String::from_utf8_lossy(&out).into_owned()
}

fn json_of(body: &[u8], pretty: bool) -> HttpReply {
    let mut text = String::new();
    match json::to_json(body, &mut text) {
        Ok(()) if pretty => match serde_json::from_str(&text) {
            Ok(value) => json_reply(200, &value, true),
            Err(error) => text_reply(500, &error.to_string()),
        },
        Ok(()) => HttpReply { status: 200, headers: vec![("Content-Type", JSON.to_owned())], body: text.into_bytes() },
        Err(error) => text_reply(500, &error.to_string()),
    }
}

fn leader_known(body: &[u8]) -> Result<(), &'static str> {
    match String::from_bytes(body) {
        Ok(leader) if !leader.is_empty() => Ok(()),
        _ => Err("no leader"),
    }
}

fn health_reply(leader: Result<(), &str>) -> HttpReply {
    match leader {
        Ok(()) => json_reply(200, &serde_json::json!({ "server": { "message": "ok", "ok": true } }), false),
        Err(text) => {
            let value = serde_json::json!({ "server": { "message": text, "ok": false } });
            text_reply(500, &value.to_string())
        }
    }
}

/// `type=client` asks for a role that no server has.
fn health_of_other_roles(query: &Query) -> Option<HttpReply> {
    if !query.0.iter().any(|(name, value)| name == "type" && value == "client") {
        return None;
    }
    let value = serde_json::json!({ "client": { "message": "client not enabled", "ok": false } });
    Some(text_reply(500, &value.to_string()))
}

fn jwks(body: &[u8], pretty: bool) -> HttpReply {
    let reply = match ListPublicResponse::from_bytes(body) {
        Ok(reply) => reply,
        Err(error) => return text_reply(500, &error.to_string()),
    };
    let keys: Vec<serde_json::Value> = reply.public_keys.iter().map(jwk).collect();
    let mut answer = json_reply(200, &serde_json::json!({ "keys": keys }), pretty);
    answer.headers.push(("Cache-Control", format!("max-age={JWKS_MAX_AGE_SECONDS}")));
    answer.headers.extend(read_headers(&reply.meta));
    answer
}

fn jwk(key: &PublicKey) -> serde_json::Value {
    // base64url without padding (RFC 8037, RFC 4648 section 5).
    let mut x = String::new();
    json::push_base64(&key.public_key.0, &mut x);
    let x = x.replace('+', "-").replace('/', "_").replace('=', "");
    serde_json::json!({ "use": key.usage, "kty": "OKP", "crv": "Ed25519", "kid": key.key_id, "alg": key.algorithm, "x": x })
}

/// What every read says about itself (http notes, section 1.2).
fn read_headers(meta: &QueryMeta) -> Vec<(&'static str, String)> {
    let mut headers = vec![
        ("X-Nomad-Index", meta.index.to_string()),
        ("X-Nomad-LastContact", (meta.last_contact / 1_000_000).to_string()),
        ("X-Nomad-KnownLeader", meta.known_leader.to_string()),
    ];
    if !meta.next_token.is_empty() {
        headers.push(("X-Nomad-NextToken", meta.next_token.clone()));
    }
    headers
}

/// A whole reply for a connection whose request is not read.
pub(super) fn bare_reply(status: u16, text: &str) -> Vec<u8> {
    let reason = if status == 429 { "Too Many Requests" } else { "Error" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// The parameters of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Query, Box<HttpReply>> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (percent_decode(name), percent_decode(value)) {
                (Some(name), Some(value)) => pairs.push((name, value)),
                _ => return Err(Box::new(text_reply(400, "invalid URL escape in query"))),
            }
        }
        Ok(Query(pairs))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "0")
    }

    fn options(&self, own_region: &str) -> Result<QueryOptions, Box<HttpReply>> {
        let bad = |text: &str| Box::new(text_reply(400, text));
        let allow_stale = match self.get("stale") {
            None | Some("false") => false,
            Some("" | "true") => true,
            Some(_) => return Err(bad("Expect `true` or `false` for `stale` query string parameter")),
        };
        let min_query_index = match self.get("index") {
            None => 0,
            Some(text) => text.parse().map_err(|_| bad("Invalid index"))?,
        };
        let max_query_time = match self.get("wait") {
            None => 0,
            Some(text) => {
                let wait = parse_duration(text).map_err(|_| bad("Invalid wait time"))?;
                i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)
            }
        };
        let region = self.get("region").filter(|region| !region.is_empty()).unwrap_or(own_region).to_owned();
        Ok(QueryOptions { region, allow_stale, min_query_index, max_query_time, ..QueryOptions::default() })
    }
}

/// `%41` and `+` to what they stand for; `None` for a broken escape or text that is not UTF-8.
fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (hi, lo) = (char::from(rest.next()?).to_digit(16)?, char::from(rest.next()?).to_digit(16)?);
                bytes.push((hi << 4 | lo) as u8);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_get_the_status_that_clients_expect() {
        for (text, status, body) in [
            ("RPC Error:: 404,No path to node", 404, "No path to node"),
            ("RPC Error:: 400,RPC Error:: 400,invalid", 400, "RPC Error:: 400,invalid"),
            ("rpc error: Permission denied", 403, "Permission denied"),
            ("No cluster leader", 500, "No cluster leader"),
            ("RPC Error:: 99999,x", 500, "RPC Error:: 99999,x"),
        ] {
            let reply = error_reply(text);
            assert_eq!((reply.status, reply.body.as_slice()), (status, body.as_bytes()), "{text}");
        }
    }

    #[test]
    fn parameters_are_read_as_the_peers_read_them() {
        let query = |text: &str| {
            Query::parse(text).map_err(|r| r.status).and_then(|q| q.options("global").map_err(|r| r.status))
        };
        let options = query("stale&index=7&wait=1500ms&region=").expect("reads");
        assert_eq!((options.allow_stale, options.min_query_index), (true, 7));
        assert_eq!((options.max_query_time, options.region.as_str()), (1_500_000_000, "global"));
        assert_eq!(query("region=m%61rs").expect("reads").region, "mars");
        for bad in ["stale=maybe", "index=-1", "index=x", "wait=5", "region=%4", "region=%ff"] {
            assert_eq!(query(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn timestamps_look_like_gos() {
        assert_eq!(go_time_text(WallTime::from_unix_nanos(1_795_261_910_500_000_000)), "2026-11-21 11:51:50 +0000 UTC");
    }
}
