//! Clients that share an address: behind a balancer that says who they are, and with certificates of their own (R8.12).

#![allow(clippy::print_stderr)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rig::http::Web;
use rig::peer::Read1;
use rig::tls::{Authority, Files};
use rig::{Daemon, Peer, Setup, Talk, eventually, json, msgpack, patience};
use rustls::ClientConfig;

const LIMITS: &str = "[limits]\nrpc_max_conns_per_client = 26\nhttp_max_conns_per_client = 26\n";
const SERVER: &str = "server.global.nomad";
const BALANCER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
const TOO_MANY_RPC: &str = "rejecting client for exceeding maximum RPC connections";
const TOO_MANY_HTTP: &str = "rejecting client for exceeding maximum HTTP connections";
const NO_HEADER: &str = "no PROXY header from a source that has to send one";

/// A daemon behind a balancer at 127.0.0.9.
fn behind_balancer(more: &str) -> Daemon {
    Daemon::start(&format!("[listen]\nproxy_protocol_from = [\"127.0.0.8/31\"]\n{LIMITS}{more}"))
}

/// A header of version 2 for a client.
fn header(client: &str) -> Vec<u8> {
    let client: SocketAddr = client.parse().unwrap();
    let (family, ips) = match client.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), [0; 16]].concat()),
    };
    let block = [&ips[..], &client.port().to_be_bytes(), &4647u16.to_be_bytes()].concat();
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &length, &block].concat()
}

fn from_balancer(address: SocketAddr) -> Peer {
    Peer::dial_from(BALANCER, address).unwrap()
}

/// A connection that the balancer passes on for a client.
fn passed_on(address: SocketAddr, client: &str) -> Peer {
    let mut peer = from_balancer(address);
    peer.write(&header(client));
    peer
}

fn ping(talk: &mut Talk) {
    talk.call(0, "Status.Ping", &json!({})).ok();
}

/// So many connections for a client that all answer.
fn open(daemon: &Daemon, client: &str, count: usize) -> Vec<Talk> {
    let mut talks: Vec<Talk> = (0..count).map(|_| Talk::over(passed_on(daemon.rpc, client), 1)).collect();
    talks.iter_mut().for_each(ping);
    talks
}

/// Whether a connection is closed without a byte.
fn is_rejected(mut peer: Peer) -> bool {
    matches!(peer.read(patience()), Read1::End(_))
}

#[test]
fn clients_of_one_balancer_have_places_of_their_own() {
    let daemon = behind_balancer("");
    let mut talks = open(&daemon, "192.0.2.7:1000", 26);
    assert!(is_rejected(passed_on(daemon.rpc, "192.0.2.7:1001")));
    let line = daemon.log.until(TOO_MANY_RPC);
    let wanted = "remote_addr=192.0.2.7:1001 limit=26 option=limits.rpc_max_conns_per_client key=\"address 192.0.2.7\"";
    assert!(line.contains(" ERROR ") && line.contains(wanted), "{line}");
    // An IPv4-mapped address is the same client; another client has as many again.
    assert!(is_rejected(passed_on(daemon.rpc, "[::ffff:192.0.2.7]:1002")));
    talks.extend(open(&daemon, "192.0.2.8:1000", 26));
    talks.extend(open(&daemon, "[2001:db8::7]:1000", 26));
    assert_eq!(daemon.metric("holdfast.rpc.accept_conn"), 78.0);
    assert_eq!(daemon.metric("holdfast.rpc.reject_conn"), 2.0);
    // Those whose header has not come take no place of a client's.
    let silent: Vec<Peer> = (0..60).map(|_| from_balancer(daemon.rpc)).collect();
    talks.extend(open(&daemon, "192.0.2.9:1000", 26));
    talks.iter_mut().for_each(ping);
    drop(silent);
    // A place that is given back is free.
    drop(talks.remove(0));
    eventually("a free place", || {
        let mut talk = Talk::over(passed_on(daemon.rpc, "192.0.2.7:1003"), 1);
        let _ = talk.peer.try_write(&rig::talk::call_bytes(1, "Status.Ping", &json!({})));
        talk.pump(patience(), |heard| heard.values(0).len() == 2).then_some(())
    });
}

#[test]
fn http_takes_the_same_headers_and_names_the_client_everywhere() {
    let audit_folder = tempfile::tempdir().unwrap();
    let audit = audit_folder.path().join("audit.json");
    let daemon = behind_balancer(&format!("[audit]\nfile = {audit:?}\n"));
    let mut held: Vec<Web> = (0..26).map(|_| Web::over(passed_on(daemon.http, "192.0.2.7:1000"))).collect();
    assert!(held.iter_mut().all(|web| web.get("/v1/status/leader").status == 200));
    let refused = String::from_utf8(passed_on(daemon.http, "192.0.2.7:1001").read_to_end()).unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 ") && refused.ends_with("please rate limit your calls"), "{refused}");
    let line = daemon.log.until(TOO_MANY_HTTP);
    let wanted =
        "remote_addr=192.0.2.7:1001 limit=26 option=limits.http_max_conns_per_client key=\"address 192.0.2.7\"";
    assert!(line.contains(" WARN ") && line.contains(wanted), "{line}");

    let mut web = Web::over(passed_on(daemon.http, "192.0.2.8:2000"));
    let body = json!({ "Namespace": "default", "Path": "a", "Items": { "k": "v" } }).to_string();
    assert_eq!(web.ask("PUT", "/v1/var/a", &[], body.as_bytes()).status, 200);
    let line = eventually("an audit line", || {
        fs::read_to_string(&audit).ok()?.lines().find(|line| line.contains("Variables.Apply")).map(str::to_owned)
    });
    assert!(line.contains("\"192.0.2.8:2000\""), "{line}");
    let listed = web.get("/v1/holdfast/connections").text();
    assert!(listed.contains("192.0.2.8:2000") && !listed.contains("127.0.0.9"), "{listed}");
    // What is wrong on the connection is told of the client.
    let _rpc = passed_on(daemon.rpc, "192.0.2.8:3000").try_write(&[0xff]);
    assert!(daemon.log.until("unrecognized RPC byte").contains("remote_addr=192.0.2.8:3000 "));
}

#[test]
fn a_header_is_read_however_it_comes_and_local_keeps_the_address() {
    let daemon = behind_balancer("");
    let mut peer = from_balancer(daemon.rpc);
    let call = [&header("192.0.2.7:1000")[..], &[1], &rig::talk::call_bytes(1, "Status.Ping", &json!({}))].concat();
    peer.drip(&call);
    assert!(Talk::after(peer, 1).pump(patience(), |heard| heard.values(0).len() == 2));
    let mut peer = from_balancer(daemon.http);
    peer.drip(&[&header("192.0.2.7:1000")[..], b"GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert_eq!(Web::over(peer).answer().status, 200);
    // The balancer's own looks are its own.
    let mut peer = from_balancer(daemon.http);
    peer.write(b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    let own = peer.local;
    assert!(Web::over(peer).get("/v1/holdfast/connections").text().contains(&own.to_string()));
    // One that looks whether the port is open is no fault.
    drop(from_balancer(daemon.rpc));
    passed_on(daemon.rpc, "192.0.2.7:1000");
    assert_eq!((daemon.log.count(NO_HEADER), daemon.metric("holdfast.proxy.reject")), (0, 0.0));
}

#[test]
fn without_a_header_a_listed_source_is_not_served_and_an_unlisted_one_has_none() {
    let daemon = behind_balancer("[rpc]\nhandshake_timeout = \"500ms\"\n");
    for (nth, (address, bytes, error)) in [
        (daemon.rpc, &b"\x01\x02"[..], "no PROXY header of version 2"),
        (daemon.http, b"GET /v1/status/leader HTTP/1.1\r\n\r\n", "no PROXY header of version 2"),
        (daemon.rpc, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01a", "1 bytes are too few for the addresses"),
        // And one that does not come in time.
        (daemon.http, b"\r\n\r\n", "i/o timeout"),
        (daemon.rpc, b"", "i/o timeout"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut peer = from_balancer(address);
        let _ = peer.try_write(bytes);
        let local = peer.local;
        assert!(is_rejected(peer), "{error}");
        let line = daemon.log.until_count(NO_HEADER, nth + 1);
        assert!(line.contains(&format!("remote_addr={local} error=\"{error}\"")) && line.contains(" WARN "), "{line}");
    }
    daemon.until_metric("holdfast.proxy.reject", 5.0);
    // From elsewhere nothing in a header is believed.
    let mut peer = Peer::dial(daemon.rpc);
    let local = peer.local;
    let _ = peer.try_write(&header("192.0.2.7:1000"));
    assert!(is_rejected(peer));
    let line = daemon.log.until("unrecognized RPC byte");
    assert!(line.contains(&format!("remote_addr={local} byte=0x0d")), "{line}");
    let mut peer = Peer::dial(daemon.http);
    let _ = peer.try_write(&[&header("192.0.2.7:1000")[..], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    assert!(String::from_utf8(peer.read_to_end()).unwrap().starts_with("HTTP/1.1 400 "));
    ping(&mut Talk::dial(daemon.rpc, 1));
}

// R1.10
#[test]
fn every_way_out_gives_the_place_back() {
    let daemon = behind_balancer("");
    let named = header("192.0.2.7:1000");
    let call = [&named[..], &[1], &rig::talk::call_bytes(1, "Status.Ping", &json!({}))].concat();
    let ways: [&[u8]; 6] = [b"", &named[..9], &[0xff; 16], &named, &[&named[..], &[0xff]].concat(), &call];
    for way in ways {
        for number in 0..100 {
            let mut peer = from_balancer(daemon.rpc);
            let _ = peer.try_write(way);
            match number % 3 {
                0 => peer.abort(),
                1 => drop(peer),
                _ => {
                    // Some are closed by the daemon, and some by us.
                    peer.finish();
                    peer.read_to_end();
                }
            }
        }
    }
    eventually("no connections", || {
        (daemon.metrics().labelled("holdfast.connections", "unknown") == 0.0).then_some(())
    });
    open(&daemon, "192.0.2.7:1000", 26);
}

#[test]
fn balancers_are_listed_anew_by_a_reload() {
    let daemon = behind_balancer("");
    let _ = daemon.setup.clone().config(LIMITS);
    daemon.reload();
    ping(&mut Talk::over(from_balancer(daemon.rpc), 1));
    let _ = daemon.setup.clone().config("[listen]\nproxy_protocol_from = [\"127.0.0.9\"]\n");
    daemon.reload();
    assert!(is_rejected({
        let mut peer = from_balancer(daemon.rpc);
        peer.write(&[1]);
        peer
    }));
    assert_eq!(daemon.log.count("need a restart"), 0);
    open(&daemon, "192.0.2.7:1000", 1);
}

/// A daemon with TLS on both ports, and who may come.
struct Secure {
    daemon: Daemon,
    authority: Authority,
}

impl Secure {
    fn start(tables: &str) -> Secure {
        let authority = Authority::new();
        let setup = Setup::new("");
        let files = Files::write(setup.folder(), &authority, &authority.issue(SERVER, 1));
        let daemon = setup.config(&format!("{tables}{LIMITS}{}", files.table("http = true"))).start();
        Secure { daemon, authority }
    }

    /// Shows a certificate of this name.
    fn named(&self, name: &str, serial: u64) -> Arc<ClientConfig> {
        self.authority.client(Some(&self.authority.issue(name, serial)))
    }

    fn rpc(&self, config: &Arc<ClientConfig>) -> Peer {
        Peer::dial(self.daemon.rpc).secure(config, SERVER).unwrap()
    }

    fn http(&self, config: &Arc<ClientConfig>) -> Peer {
        Peer::dial(self.daemon.http).shake_hands(config, SERVER).unwrap()
    }

    fn open(&self, config: &Arc<ClientConfig>, count: usize) -> Vec<Talk> {
        let mut talks: Vec<Talk> = (0..count).map(|_| Talk::over(self.rpc(config), 1)).collect();
        talks.iter_mut().for_each(ping);
        talks
    }
}

/// Opens an event stream; false when the connection is closed without an ack.
fn event_stream(talk: &mut Talk) -> bool {
    let _ = talk.peer.try_write(&msgpack::pack(&json!({ "Method": "Event.Stream" })));
    talk.pump(patience(), |heard| !heard.values(0).is_empty())
}

#[test]
fn certificates_of_their_own_are_places_of_their_own() {
    let secure = Secure::start("");
    let (one, two) = (secure.named("web-1", 100), secure.named("web-2", 101));
    let mut talks = secure.open(&one, 26);
    assert!(is_rejected(secure.rpc(&one)));
    let line = secure.daemon.log.until(TOO_MANY_RPC);
    let wanted = "limit=26 option=limits.rpc_max_conns_per_client key=\"certificate web-1 at 127.0.0.1\"";
    assert!(line.contains(wanted), "{line}");
    talks.extend(secure.open(&two, 26));
    // Another certificate with the same name shares the places of the first.
    assert!(is_rejected(secure.rpc(&secure.named("web-1", 102))));
    // Nor do they take places of those without: of a handshake that is under way.
    let waiting: Vec<Peer> = (0..26).map(|_| Peer::dial(secure.daemon.rpc)).collect();
    assert!(is_rejected(Peer::dial(secure.daemon.rpc)));
    assert!(secure.daemon.log.until("key=\"address 127.0.0.1\"").contains("limit=26 "));
    talks.iter_mut().for_each(ping);
    drop(waiting);

    // The same on the HTTP port, and there the refusal is within TLS.
    let mut held: Vec<Web> = (0..26).map(|_| Web::over(secure.http(&one))).collect();
    assert!(held.iter_mut().all(|web| web.get("/v1/status/leader").status == 200));
    let refused = Web::over(secure.http(&one)).answer();
    assert_eq!(refused.status, 429);
    assert!(refused.text().ends_with("please rate limit your calls"), "{}", refused.text());
    let line = secure.daemon.log.until(TOO_MANY_HTTP);
    assert!(line.contains("option=limits.http_max_conns_per_client key=\"certificate web-1 at 127.0.0.1\""), "{line}");
    assert_eq!(Web::over(secure.http(&two)).get("/v1/status/leader").status, 200);
    // A place that is given back is free.
    drop(talks.remove(0));
    eventually("a free place", || {
        let mut talk = Talk::over(secure.rpc(&one), 1);
        let _ = talk.peer.try_write(&rig::talk::call_bytes(1, "Status.Ping", &json!({})));
        talk.pump(patience(), |heard| heard.values(0).len() == 2).then_some(())
    });
}

#[test]
fn streaming_places_are_of_a_certificate_too() {
    let secure = Secure::start("");
    let (one, two) = (secure.named("web-1", 100), secure.named("web-2", 101));
    let streams = |config: &Arc<ClientConfig>| -> Vec<Talk> {
        let mut talks: Vec<Talk> = (0..6).map(|_| Talk::over(secure.rpc(config), 5)).collect();
        assert!(talks.iter_mut().all(event_stream));
        talks
    };
    let _held = (streams(&one), streams(&two));
    assert!(!event_stream(&mut Talk::over(secure.rpc(&one), 5)));
    let line = secure.daemon.log.until("rejecting client for exceeding maximum streaming RPC connections");
    let wanted = "stream_limit=6 option=limits.rpc_max_conns_per_client key=\"certificate web-1 at 127.0.0.1\"";
    assert!(line.contains(wanted), "{line}");
}

#[test]
fn a_header_comes_before_tls_and_a_certificate_counts_at_the_client_s_address() {
    let secure = Secure::start("[listen]\nproxy_protocol_from = [\"127.0.0.9\"]\n");
    let one = secure.named("web-1", 100);
    let rpc = |client: &str| passed_on(secure.daemon.rpc, client).secure(&one, SERVER).unwrap();
    let mut talks: Vec<Talk> = (0..26).map(|_| Talk::over(rpc("192.0.2.7:1000"), 1)).collect();
    talks.iter_mut().for_each(ping);
    assert!(is_rejected(rpc("192.0.2.7:1000")));
    assert!(secure.daemon.log.until(TOO_MANY_RPC).contains("key=\"certificate web-1 at 192.0.2.7\""));
    ping(&mut Talk::over(rpc("192.0.2.8:1000"), 1));
    let web = passed_on(secure.daemon.http, "192.0.2.7:2000").shake_hands(&one, SERVER).unwrap();
    let listed = Web::over(web).get("/v1/holdfast/connections").text();
    assert!(listed.contains("192.0.2.7:2000") && listed.contains("web-1"), "{listed}");
}
