//! The first byte of a connection, and TLS: who is let in, who is refused, what the log says of it and what it does not
//! (R1.13 to R1.31, R1.102, R8.13, R8.14).

#![allow(clippy::unwrap_used)]

mod rig;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rig::peer::Read1;
use rig::tls::{Authority, Files, Identity};
use rig::{Daemon, PATIENCE, Peer, Setup, Talk, json, msgpack, patience, talk};
use rustls::{AlertDescription, ClientConfig};

const SERVER: &str = "server.global.nomad";
const CLIENT: &str = "client.global.nomad";

fn ping(talk: &mut Talk) {
    talk.call(0, "Status.Ping", &json!({})).ok();
}

/// Says these bytes and expects to be closed without an answer.
#[track_caller]
fn refused(daemon: &Daemon, bytes: &[u8]) {
    let mut peer = Peer::dial(daemon.rpc);
    let _ = peer.try_write(bytes);
    assert_eq!(peer.read_to_end(), b"", "after {bytes:02x?}");
}

/// The line with this text has this level and names its peer.
#[track_caller]
fn told(daemon: &Daemon, level: &str, text: &str) -> String {
    let line = daemon.log.until(text);
    assert!(line.contains(&format!(" {level} ")), "{line}");
    assert!(line.contains("remote_addr=127.0.0.1:"), "{line}");
    line
}

// R1.14, R1.15
#[test]
fn silence_has_an_end_and_a_line() {
    let daemon = Daemon::start("[rpc]\nhandshake_timeout = \"400ms\"");
    let from = Instant::now();
    refused(&daemon, b"");
    let took = from.elapsed();
    assert!(took >= Duration::from_millis(390), "{took:?}");
    let line = told(&daemon, "ERROR", "failed to read first RPC byte");
    assert!(line.contains("timeout"), "{line}");
    // R1.16: after the byte silence is legal.
    let mut talk = Talk::dial(daemon.rpc, 1);
    assert!(talk.peer.stays_silent(Duration::from_millis(1200)));
    ping(&mut talk);
    assert_eq!(daemon.log.errors().len(), 1);
}

// R1.14
#[test]
fn without_a_handshake_timeout_silence_has_no_end() {
    let daemon = Daemon::start("[rpc]\nhandshake_timeout = \"0s\"");
    let mut peer = Peer::dial(daemon.rpc);
    let mut stream = Talk::dial(daemon.rpc, 6);
    let silent = stream.fresh_stream();
    stream.peer.write(&rig::heard::frame(rig::heard::WINDOW, rig::heard::SYN, silent, 0));
    assert!(peer.stays_silent(Duration::from_millis(1500)));
    ping(&mut Talk::over(peer, 1));
    stream.listen(Duration::from_millis(1));
    assert!(!stream.heard.reset(silent));
}

// R1.15, R1.102
#[test]
fn an_end_is_no_error_and_a_reset_is_one() {
    let daemon = Daemon::start("");
    let beginnings: [&[u8]; 6] = [b"", &[1], &[3], &[5], &[6], &[6, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]];
    for bytes in beginnings {
        let mut peer = Peer::dial(daemon.rpc);
        peer.write(bytes);
        peer.finish();
        assert_eq!(peer.read_to_end(), b"");
    }
    ping(&mut Talk::dial(daemon.rpc, 1));
    daemon.until_metric("holdfast.rpc.request", 1.0);
    assert_eq!(daemon.log.errors(), Vec::<String>::new());
    Peer::dial(daemon.rpc).abort();
    told(&daemon, "ERROR", "failed to read first RPC byte");
}

// R1.17, R1.20, R1.27, R1.29
#[test]
fn what_is_no_protocol_is_closed_without_a_byte() {
    let daemon = Daemon::start("");
    for byte in [0x00, 0x07, 0x16, 0x47, 0x53, 0xff] {
        refused(&daemon, &[byte]);
        let line = told(&daemon, "ERROR", &format!("byte={byte:#04x}"));
        assert!(line.contains("unrecognized RPC byte"), "{line}");
    }
    refused(&daemon, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    refused(&daemon, &[4]);
    refused(&daemon, &[4, 0x16, 3, 1]);
    told(&daemon, "WARN", "TLS connection attempted, server not configured for TLS");
    refused(&daemon, &[2, 1, 2, 3, 4]);
    told(&daemon, "WARN", "raft link failed");
    assert_eq!(daemon.metric("holdfast.rpc.raft_handoff"), 1.0);
    ping(&mut Talk::dial(daemon.rpc, 1));
}

// R1.29
#[test]
fn a_flood_of_unknown_bytes_makes_few_lines() {
    let daemon = Daemon::start("");
    let from = Instant::now();
    for _ in 0..1000 {
        refused(&daemon, &[0x53]);
    }
    ping(&mut Talk::dial(daemon.rpc, 1));
    let lines = daemon.log.count("unrecognized RPC byte") as u64;
    assert!(lines <= 10 * (from.elapsed().as_secs() + 2), "{lines} lines");
    let suppressed = daemon.metric("holdfast.log.suppressed");
    assert!(suppressed >= 1000.0 - lines as f64 - 10.0, "{suppressed}");
    // The next line says how many were left out.
    rig::eventually("left_out", || {
        refused(&daemon, &[0x53]);
        (daemon.log.count("left_out=") > 0).then_some(())
    });
}

// R1.35, R1.36, R1.39, R1.45, R1.49, R1.102: broken input, each with its line and level.
#[test]
fn broken_input_is_told_in_the_words_of_the_protocol() {
    let frame = rig::heard::frame;
    let header = msgpack::pack(&json!({ "Method": "Event.Stream" }));
    let call = talk::call_bytes(1, "Status.Ping", &json!({}));
    let syn = frame(1, 1, 1, 0);
    let cut = [&[6][..], &syn[..5]].concat();
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("version", vec![3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "multiplex conn accept failed"),
        ("type", vec![6, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "multiplex_v2 conn accept failed"),
        ("cut within a frame", cut, "multiplex_v2 conn accept failed"),
        ("kind", [&[6][..], &syn, &frame(0, 0, 1, 1), &[2]].concat(), "multiplex_v2 unrecognized first RPC byte"),
        ("call", vec![1, 0xc1, 0xc1], "RPC error"),
        ("call in a stream", [&[3][..], &syn, &frame(0, 0, 1, 2), &[0xc1, 0xc1]].concat(), "RPC error"),
        ("streaming header", vec![5, 0xc1, 0xc1], "streaming RPC error"),
        ("streaming header of another shape", vec![5, 0x01], "streaming RPC error"),
        (
            "unknown streaming method",
            [&[5][..], &msgpack::pack(&json!({ "Method": "A.B" }))].concat(),
            "streaming RPC error",
        ),
    ];
    for (what, bytes, text) in cases {
        // A daemon each: what the last one said must not be taken for this one's.
        let daemon = Daemon::start("");
        let mut peer = Peer::dial(daemon.rpc);
        peer.write(&bytes);
        if what.contains("stream") && bytes[0] == 3 {
            // Only that stream ends.
            let mut talk = Talk::after(peer, 3);
            talk.until("end of the stream", |heard| heard.finished(1) || heard.reset(1));
            talk.ping(3);
        } else {
            peer.finish();
            peer.read_to_end();
        }
        let line = daemon.log.until(text);
        assert!(line.contains(" ERROR "), "{what}: {line}");
        let (rpc, streaming) = (text == "RPC error", text == "streaming RPC error");
        assert_eq!(daemon.metric("holdfast.rpc.request_error"), f64::from(u8::from(rpc)), "{what}");
        assert_eq!(daemon.metric("holdfast.streaming_rpc.request_error"), f64::from(u8::from(streaming)), "{what}");
    }
    // Half a header and an end is nothing to tell (R1.45, R1.49).
    let daemon = Daemon::start("");
    for bytes in [[&[5][..], &header[..6]].concat(), [&[1][..], &call[..9]].concat()] {
        let mut peer = Peer::dial(daemon.rpc);
        peer.write(&bytes);
        peer.finish();
        peer.read_to_end();
    }
    ping(&mut Talk::dial(daemon.rpc, 1));
    daemon.until_metric("holdfast.rpc.request", 1.0);
    assert_eq!(daemon.log.errors(), Vec::<String>::new());
}

/// A daemon with TLS, and who may talk to it.
struct Secure {
    daemon: Daemon,
    authority: Authority,
    files: Files,
    client: Identity,
}

impl Secure {
    fn start(more: &str, tables: &str) -> Secure {
        Secure::start_for(more, tables, 365)
    }

    fn start_for(more: &str, tables: &str, days: u64) -> Secure {
        let authority = Authority::new();
        let setup = Setup::new("");
        let files = Files::write(setup.folder(), &authority, &authority.issue_for(SERVER, 1, days));
        files.revocations(&authority.revoke(&[]));
        let client = authority.issue(CLIENT, 100);
        let daemon = setup.config(&format!("{tables}\n{}", files.table(more))).start();
        Secure { daemon, authority, files, client }
    }

    fn config(&self) -> Arc<ClientConfig> {
        self.authority.client(Some(&self.client))
    }

    fn dial(&self) -> Peer {
        Peer::dial(self.daemon.rpc).secure(&self.config(), SERVER).unwrap()
    }
}

/// Whether a protocol serves, over a connection that has said nothing.
fn served(peer: Peer, first: u8) {
    let mut talk = Talk::over(peer, first);
    match first {
        5 => {
            talk.peer.write(&msgpack::pack(&json!({ "Method": "Event.Stream" })));
            assert_eq!(talk.value(0), json!({ "Error": "" }));
        }
        _ => {
            let stream = talk.open();
            talk.call(stream, "Status.Ping", &json!({})).ok();
        }
    }
}

// R1.18, R1.24, R1.25
#[test]
fn with_tls_nobody_plain_is_let_in() {
    let secure = Secure::start("", "[rpc]\nhandshake_timeout = \"500ms\"");
    for byte in [1, 2, 3, 5, 6, 0xff] {
        refused(&secure.daemon, &[byte]);
    }
    told(&secure.daemon, "WARN", "non-TLS connection attempted with RequireTLS set");
    let peer = secure.dial();
    for first in [1, 3, 5, 6] {
        served(secure.dial(), first);
    }
    // R1.24: a verified peer may take its time.
    let mut peer = peer;
    assert!(peer.stays_silent(Duration::from_millis(1000)));
    served(peer, 1);
    // R1.21
    let mut nested = secure.dial();
    nested.write(&[4]);
    assert_eq!(nested.read_to_end(), b"");
    told(&secure.daemon, "ERROR", "TLS connection attempting to establish inner TLS connection");
    // R1.29 inside.
    let mut unknown = secure.dial();
    unknown.write(&[0x53]);
    assert_eq!(unknown.read_to_end(), b"");
    told(&secure.daemon, "ERROR", "unrecognized RPC byte");
    // R1.26, R1.27: raft's byte is for servers.
    let mut raft = secure.dial();
    raft.write(&[2]);
    assert_eq!(raft.read_to_end(), b"");
    told(&secure.daemon, "WARN", "raft connection attempted with a certificate that is no server's");
    assert_eq!(secure.daemon.metric("holdfast.rpc.raft_handoff"), 0.0);
    let server = secure.authority.client(Some(&secure.authority.issue(SERVER, 101)));
    let mut raft = Peer::dial(secure.daemon.rpc).secure(&server, SERVER).unwrap();
    raft.write(&[2]);
    raft.read_to_end();
    assert_eq!(secure.daemon.metric("holdfast.rpc.raft_handoff"), 1.0);
}

// R1.19
#[test]
fn in_upgrade_mode_both_are_let_in() {
    let secure = Secure::start("rpc_upgrade_mode = true", "");
    for first in [1, 3, 5, 6] {
        served(Peer::dial(secure.daemon.rpc), first);
        served(secure.dial(), first);
    }
    assert_eq!(secure.daemon.log.errors(), Vec::<String>::new());
}

/// A handshake that writes one byte at a time.
struct Drip(TcpStream);

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Drip {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

// R1.30: no byte is lost where TLS begins, nor at the byte within.
#[test]
fn tls_in_single_bytes_and_in_one_piece() {
    let secure = Secure::start("", "");
    let name = rustls_pki_types::ServerName::try_from(SERVER).unwrap();
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13][..]] {
        let config = secure.authority.client_of(Some(&secure.client), versions);
        // Byte 0x04 and the hello in one segment, then everything byte by byte.
        for dripping in [false, true] {
            let mut stream = TcpStream::connect(secure.daemon.rpc).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut tls = rustls::ClientConnection::new(config.clone(), name.clone()).unwrap();
            let mut hello = vec![4];
            tls.write_tls(&mut hello).unwrap();
            let mut wire = Drip(stream.try_clone().unwrap());
            if dripping {
                wire.write_all(&hello).unwrap()
            } else {
                stream.write_all(&hello).unwrap()
            }
            let call = [&[1][..], &talk::call_bytes(7, "Status.Ping", &json!({}))].concat();
            let mut answer = Vec::new();
            let mut read = |secured: &mut dyn Read| {
                while !answer.ends_with(&[0x80]) {
                    let mut buffer = [0; 256];
                    let count = secured.read(&mut buffer).unwrap();
                    assert_ne!(count, 0);
                    answer.extend_from_slice(&buffer[..count]);
                }
            };
            if dripping {
                let mut secured = rustls::Stream::new(&mut tls, &mut wire);
                secured.write_all(&call).unwrap();
                read(&mut secured);
            } else {
                let mut secured = rustls::Stream::new(&mut tls, &mut stream);
                secured.write_all(&call).unwrap();
                read(&mut secured);
            }
            let (head, length) = msgpack::unpack(&answer).unwrap();
            assert_eq!((&head["Error"], &head["Seq"], &answer[length..]), (&json!(""), &json!(7), &[0x80][..]));
        }
    }
}

/// The alert that the daemon sent: at the handshake, or at the first read after it.
fn alert(daemon: &Daemon, config: &Arc<ClientConfig>) -> AlertDescription {
    let error = match Peer::dial(daemon.rpc).secure(config, SERVER) {
        Err(error) => error,
        Ok(mut peer) => {
            let _ = peer.try_write(&[1]);
            peer.read_error().expect("an alert")
        }
    };
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error}"),
    }
}

// R1.22, R1.23
#[test]
fn a_handshake_that_fails_is_told_on_both_sides() {
    let secure = Secure::start("", "[rpc]\nhandshake_timeout = \"700ms\"");
    let (daemon, failed) = (&secure.daemon, "failed TLS handshake");
    let mut lines = 0;
    let mut one_more = |what: &str| {
        lines += 1;
        let line = daemon.log.until_count(failed, lines);
        assert!(line.contains(" WARN ") && line.contains("error="), "{what}: {line}");
    };
    // Those who speak TLS hear why.
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13][..]] {
        let none = alert(daemon, &secure.authority.client_of(None, versions));
        assert!(matches!(none, AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure), "{none:?}");
        one_more("no certificate");
    }
    let stranger = Authority::new().issue(CLIENT, 1);
    let unknown = alert(daemon, &secure.authority.client(Some(&stranger)));
    assert!(matches!(unknown, AlertDescription::UnknownCA | AlertDescription::DecryptError), "{unknown:?}");
    one_more("another authority");
    // A client that does not like our name tells us.
    let other_name = Peer::dial(daemon.rpc).secure(&secure.config(), "server.mars.nomad");
    assert!(other_name.err().unwrap().to_string().contains("not valid for name"));
    one_more("another name");
    // TLS 1.1: a hello without the extension that newer ones have.
    let mut old = vec![4, 0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    old.extend([7; 32]);
    old.extend([0, 0, 2, 0xc0, 0x13, 1, 0]);
    let mut peer = Peer::dial(daemon.rpc);
    peer.write(&old);
    let said = peer.read_to_end();
    assert_eq!(said.first(), Some(&0x15), "an alert: {said:02x?}");
    one_more("TLS 1.1");
    // Those who do not, hear nothing (R1j).
    refused(daemon, b"\x04GET / HTTP/1.1\r\n\r\n");
    one_more("garbage");
    // R1.22: the time counts from byte 0x04, whatever drips in after it.
    let from = Instant::now();
    refused(daemon, &[4]);
    assert!(from.elapsed() >= Duration::from_millis(690), "{:?}", from.elapsed());
    one_more("silence");
    let from = Instant::now();
    let mut peer = Peer::dial(daemon.rpc);
    let deadline = patience();
    let mut rest = [&[4, 0x16, 3, 1, 2, 0][..], &[1; 500]].concat().into_iter();
    loop {
        let _ = peer.try_write(&[rest.next().unwrap()]);
        match peer.read(Instant::now() + Duration::from_millis(50)) {
            Read1::Nothing => assert!(Instant::now() < deadline),
            Read1::End(_) => break,
            // It may say why, since this looked like TLS.
            Read1::Bytes(_) => {}
        }
    }
    assert!(from.elapsed() >= Duration::from_millis(690), "{:?}", from.elapsed());
    one_more("dripping");
    served(secure.dial(), 6);
}

// R1.13
#[test]
fn a_new_certificate_is_shown_to_the_next_and_the_old_finish_their_call() {
    let secure = Secure::start("", "");
    let old = secure.dial();
    let old_certificate = old.server_certificate();
    let mut session = Talk::over(old, 6);
    let (query, idle) = (session.open(), session.open());
    session.call(idle, "Status.Ping", &json!({})).ok();
    let body = json!({ "Region": "global", "MinQueryIndex": 1u64 << 40, "MaxQueryTime": 1_500_000_000 });
    session.request(query, "Node.List", &body);
    let mut plain = Talk::over(secure.dial(), 1);
    plain.request(0, "Node.List", &body);
    secure.daemon.until_metric("holdfast.parked", 2.0);
    // Nothing has changed: nobody is put out.
    secure.daemon.reload();
    session.call(idle, "Status.Ping", &json!({})).ok();
    secure.files.show(&secure.authority.issue(SERVER, 2));
    secure.daemon.reload();
    let new = secure.dial();
    assert_ne!(new.server_certificate(), old_certificate);
    served(new, 6);
    session.until("GoAway", |heard| heard.go_aways == [0]);
    session.reply(query).ok();
    session.until_closed();
    plain.reply(0).ok();
    plain.until_closed();
}

// R8.13
#[test]
fn a_revoked_certificate_is_out_at_once() {
    let authority = Authority::new();
    let setup = Setup::new("");
    let files = Files::write(setup.folder(), &authority, &authority.issue(SERVER, 1));
    files.revocations(&authority.revoke(&[]));
    let crl = setup.folder().join("crl.pem");
    let daemon = setup.config(&files.table(&format!("crl_file = {crl:?}"))).start();
    let (good, stolen) = (authority.issue(CLIENT, 100), authority.issue(CLIENT, 666));
    let dial = |identity: &Identity| Peer::dial(daemon.rpc).secure(&authority.client(Some(identity)), SERVER);
    let mut session = Talk::over(dial(&stolen).unwrap(), 6);
    let stream = session.open();
    session.call(stream, "Status.Ping", &json!({})).ok();
    let mut other = Talk::over(dial(&good).unwrap(), 1);
    ping(&mut other);
    files.revocations(&authority.revoke(&[666]));
    daemon.reload();
    session.until_closed();
    assert_eq!(told(&daemon, "WARN", "its certificate is refused now").matches("remote_addr").count(), 1);
    assert_eq!(alert(&daemon, &authority.client(Some(&stolen))), AlertDescription::CertificateRevoked);
    // Nobody else is harmed.
    ping(&mut other);
    served(dial(&good).unwrap(), 6);
}

// R8.14
#[test]
fn the_end_of_a_certificate_is_told_in_time() {
    let secure = Secure::start_for("", "", 6);
    let line = secure.daemon.log.until("certificate expires soon");
    let left = line.contains("left=6d0h") || line.contains("left=5d23h");
    assert!(line.contains(" WARN ") && line.contains("server.pem") && left, "{line}");
    assert_eq!(secure.daemon.log.count("certificate expires soon"), 1, "the authority is good for long");
    let metrics = secure.daemon.metrics();
    let file = secure.files.folder.join("server.pem");
    let ends = metrics.labelled("holdfast.tls.certificate_expiry", file.to_str().unwrap());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((ends - now) / 86_400.0 > 5.9 && (ends - now) / 86_400.0 < 6.1, "{ends}");
    // Replaced in time, nothing more is said.
    secure.files.show(&secure.authority.issue(SERVER, 2));
    secure.daemon.reload();
    served(secure.dial(), 6);
    assert_eq!(secure.daemon.log.count("certificate expires soon"), 1);
}

// HTTP within TLS does without a certificate.
#[test]
fn http_speaks_tls_too() {
    let authority = Authority::new();
    let setup = Setup::new("");
    let files = Files::write(setup.folder(), &authority, &authority.issue(SERVER, 1));
    let daemon = setup.config(&files.table("").replace("rpc = true", "http = true")).start();
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut tls = rustls::ClientConnection::new(authority.client(None), name).unwrap();
    let mut secured = rustls::Stream::new(&mut tls, &mut stream);
    secured.write_all(b"GET /v1/status/leader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    secured.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(&format!("{:?}", daemon.rpc.to_string())), "{text}");
    ping(&mut Talk::dial(daemon.rpc, 1));
}
