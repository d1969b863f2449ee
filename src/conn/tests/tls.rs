//! TLS: handshakes that succeed and fail, whole and byte by byte, and what runs within.

use super::*;
use crate::conn::Answer;
use crate::conn::Protocol;
use crate::conn::tls::TlsClient;
use crate::conn::tls::TlsServer;
use crate::wire::first_byte::FirstByte;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertifiedIssuer;
use rcgen::DnType;
use rcgen::IsCa;
use rcgen::KeyPair;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::server::WebPkiClientVerifier;
use std::io::Read;
use std::io::Write;

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Identity(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(issuer: &Issuer, common: &str, name: &str) -> Identity {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, common);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    Identity(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn roots(issuer: &Issuer) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(issuer.der().clone()).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(super) struct World {
    issuer: Issuer,
    pub(super) security: Security,
}

pub(super) fn world(verifies: bool) -> World {
    let issuer = authority();
    let Identity(chain, key) = identity(&issuer, "server", "server.global.nomad");
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(&issuer), provider()).build().unwrap();
    let builder =
        rustls::ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder =
        if verifies { builder.with_client_cert_verifier(verifier.clone()) } else { builder.with_no_client_auth() };
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let verifier = verifies.then_some(verifier as Arc<dyn rustls::server::danger::ClientCertVerifier>);
    let tls = Some(Arc::new(TlsServer { config, verifier }));
    World { issuer, security: Security { tls, require_tls: true, raft_name: Some("server.global.nomad".into()) } }
}

fn client(trusted: &Issuer, identity: Option<Identity>) -> ClientConnection {
    let config = client_config(trusted, identity);
    ClientConnection::new(config, ServerName::try_from("server.global.nomad").unwrap()).unwrap()
}

fn client_config(trusted: &Issuer, identity: Option<Identity>) -> Arc<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(trusted));
    let config = match identity {
        Some(Identity(chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    Arc::new(config)
}

impl World {
    pub(super) fn dialler(&self, name: &str) -> TlsClient {
        let own = identity(&self.issuer, "server", name);
        TlsClient { config: client_config(&self.issuer, Some(own)), verify_names: true }
    }

    pub(super) fn dialler_without_certificate(&self) -> TlsClient {
        TlsClient { config: client_config(&self.issuer, None), verify_names: true }
    }

    fn named(&self, name: &str) -> ClientConnection {
        client(&self.issuer, Some(identity(&self.issuer, "node", name)))
    }

    fn rig(&self) -> Rig {
        Rig::rpc(&self.security)
    }
}

/// Carries bytes both ways until neither side has more, `step` bytes at a time towards the connection; `prefix`
/// goes first. Says what the client saw go wrong.
fn carry(rig: &mut Rig, client: &mut ClientConnection, prefix: &[u8], step: usize) -> Option<rustls::Error> {
    let mut toward = prefix.to_vec();
    let mut wrong = None;
    loop {
        while client.wants_write() {
            client.write_tls(&mut toward).unwrap();
        }
        if toward.is_empty() && rig.sent.is_empty() {
            return wrong;
        }
        for piece in std::mem::take(&mut toward).chunks(step) {
            if !rig.is_closed() {
                rig.bytes(piece);
            }
        }
        let sent = std::mem::take(&mut rig.sent);
        let mut sent = sent.as_slice();
        while !sent.is_empty() && wrong.is_none() {
            if client.read_tls(&mut sent).unwrap() == 0 {
                break;
            }
            wrong = client.process_new_packets().err();
        }
    }
}

fn say(client: &mut ClientConnection, bytes: &[u8]) {
    client.writer().write_all(bytes).unwrap();
}

fn hear(client: &mut ClientConnection) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = client.reader().read_to_end(&mut heard);
    heard
}

// R1.22, R1.24, R1.25, R1.30: a call within TLS, the byte 0x04 and the hello in one segment or all byte by byte.
#[test]
fn calls_run_within_tls_however_they_are_cut() {
    let world = world(true);
    for step in [1, 7, 100_000] {
        let mut rig = world.rig();
        let mut client = world.named("client.global.nomad");
        say(&mut client, &[&[0x01][..], &call(1, "A.B", &[0x80])].concat());
        assert_eq!(carry(&mut rig, &mut client, &[0x04], step), None);
        let certificate = rig.conn.certificate().unwrap().clone();
        assert_eq!(certificate.names[..], ["node".to_owned(), "client.global.nomad".to_owned()]);
        assert_eq!(certificate.chain.len(), 1);
        let secured = [Event::Secured(Some(certificate)), Event::Protocol(Protocol::Rpc(FirstByte::Rpc))];
        assert_eq!(rig.events[..2], secured);
        assert_eq!(rig.methods(), ["A.B"]);
        let body = long_value(300_000);
        rig.conn.reply(rig.now, id(0), 1, "A.B", Answer::Body(&body));
        rig.settle();
        let mut heard = Vec::new();
        for piece in std::mem::take(&mut rig.sent).chunks(10_000) {
            let mut piece = piece;
            while !piece.is_empty() {
                client.read_tls(&mut piece).unwrap();
                client.process_new_packets().unwrap();
                heard.extend(hear(&mut client));
            }
        }
        assert_eq!(heard, reply(1, "A.B", "", &body));
        // The client closes; so do we, each with a word.
        client.send_close_notify();
        carry(&mut rig, &mut client, &[], step);
        assert!(rig.is_closed() && rig.causes().is_empty());
        assert_eq!(client.reader().read(&mut [0; 1]).unwrap(), 0, "closed in order");
    }
}

// R1.24: a peer that was verified may wait with the inner byte; another may not.
#[test]
fn the_inner_byte_has_a_deadline_unless_the_peer_was_verified() {
    let verified = world(true);
    let mut rig = verified.rig();
    let mut named = verified.named("client.global.nomad");
    carry(&mut rig, &mut named, &[0x04], 1000);
    assert_eq!(rig.conn.poll_timeout(), None);
    rig.pass(Duration::from_secs(3600));
    say(&mut named, &[0x06]);
    carry(&mut rig, &mut named, &[], 1000);
    assert_eq!(rig.conn.protocol(), Protocol::Rpc(FirstByte::MultiplexV2));

    let open = world(false);
    let mut rig = open.rig();
    let mut unnamed = client(&open.issuer, None);
    carry(&mut rig, &mut unnamed, &[0x04], 1000);
    assert_eq!(rig.events, [Event::Secured(None)]);
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.causes(), [Cause::FirstByte]);
    assert!(rig.is_closed());
}

// R1.21, R1.25, R1.26, R1.29: the inner byte.
#[test]
fn the_inner_byte_is_judged() {
    let world = world(true);
    for (byte, name, cause) in [
        (0x04, "server.global.nomad", Some(Cause::InnerTls)),
        (0x47, "server.global.nomad", Some(Cause::UnknownByte)),
        (0x02, "client.global.nomad", Some(Cause::RaftName)),
        (0x02, "server.west.nomad", Some(Cause::RaftName)),
        (0x02, "server.global.nomad", None),
        (0x03, "client.global.nomad", None),
        (0x05, "client.global.nomad", None),
    ] {
        let mut rig = world.rig();
        let mut client = world.named(name);
        say(&mut client, &[byte]);
        carry(&mut rig, &mut client, &[0x04], 1000);
        assert_eq!(rig.causes(), cause.into_iter().collect::<Vec<_>>(), "{byte:#x} {name}");
        assert_eq!(rig.is_closed(), cause.is_some());
    }
}

// R1.23: told, and the peer gets an alert.
#[test]
fn a_failed_handshake_is_told_to_both() {
    let world = world(true);
    let stranger = authority();
    for (mut client, alerted) in [
        (client(&world.issuer, None), true),
        (client(&world.issuer, Some(identity(&stranger, "node", "client.global.nomad"))), true),
        // Here it is the client that refuses.
        (client(&stranger, Some(identity(&world.issuer, "node", "client.global.nomad"))), false),
    ] {
        let mut rig = world.rig();
        let wrong = carry(&mut rig, &mut client, &[0x04], 1000);
        assert_eq!(matches!(wrong, Some(rustls::Error::AlertReceived(_))), alerted, "{wrong:?}");
        assert_eq!(rig.causes(), [Cause::Handshake]);
        assert!(rig.is_closed());
    }
}

// R1.23, R1j R1.23: to a peer that does not speak TLS not a byte is sent.
#[test]
fn garbage_and_silence_get_no_alert() {
    let world = world(true);
    let garbage: [&[u8]; 3] = [b"GET / HTTP/1.1\r\n\r\n", &[0; 40], &[0x16, 0x02, 0, 0, 9, 1, 2, 3, 4]];
    for bytes in garbage {
        let mut rig = world.rig();
        rig.bytes(&[&[0x04], bytes].concat());
        assert_eq!(rig.causes(), [Cause::Handshake], "{bytes:?}");
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
    // R1.22: the deadline covers all of the handshake, dripped or not begun.
    for dripped in [0, 200] {
        let mut rig = world.rig();
        let mut hello = vec![0x04];
        world.named("client.global.nomad").write_tls(&mut hello).unwrap();
        rig.pass(Duration::from_secs(4));
        for byte in &hello[..=dripped] {
            rig.bytes(&[*byte]);
            rig.pass(Duration::from_millis(20));
        }
        rig.pass(Duration::from_millis(5000 - 20 * (dripped as u64 + 1)));
        assert_eq!(rig.causes(), [Cause::Handshake]);
        assert_eq!(rig.fields(), ["error=\"i/o timeout\""]);
        assert!(rig.is_closed() && rig.sent.is_empty());
    }
}

// A broken record after a good handshake: the peer speaks TLS and gets the alert.
#[test]
fn a_broken_record_ends_the_connection_with_an_alert() {
    let world = world(true);
    let mut rig = world.rig();
    let mut client = world.named("client.global.nomad");
    say(&mut client, &[&[0x01][..], &call(1, "A.B", &[0x80])].concat());
    carry(&mut rig, &mut client, &[0x04], 1000);
    rig.bytes(&[0x17, 0x03, 0x03, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    assert_eq!(rig.causes(), [Cause::Rpc]);
    assert!(rig.events.ends_with(&[Event::Gone(id(0)), Event::Closed]));
    let mut sent = rig.sent.as_slice();
    client.read_tls(&mut sent).unwrap();
    assert!(matches!(client.process_new_packets(), Err(rustls::Error::AlertReceived(_))));
}

// R1.102: an end before the handshake begins is nobody's fault.
#[test]
fn an_end_before_the_handshake_is_silent() {
    let world = world(true);
    let mut rig = world.rig();
    rig.bytes(&[0x04]);
    rig.eof();
    assert_eq!(rig.events, [Event::Closed]);
    let mut rig = world.rig();
    rig.bytes(&[0x04, 0x16]);
    rig.eof();
    assert_eq!(rig.causes(), [Cause::Handshake]);
}

// R1.18, R1.19
#[test]
fn upgrade_mode_serves_plain_and_secured() {
    let world = world(true);
    let mixed = Security { require_tls: false, ..world.security.clone() };
    let mut rig = Rig::rpc(&mixed);
    rig.bytes(&[&[0x01][..], &call(1, "A.B", &[0x80])].concat());
    assert_eq!(rig.calls().len(), 1);
    let mut rig = Rig::rpc(&mixed);
    let mut client = world.named("client.global.nomad");
    say(&mut client, &[&[0x01][..], &call(1, "A.B", &[0x80])].concat());
    carry(&mut rig, &mut client, &[0x04], 1000);
    assert_eq!(rig.calls().len(), 1);
    let mut rig = world.rig();
    rig.bytes(&[0x01]);
    assert_eq!(rig.causes(), [Cause::NonTls]);
}

#[test]
fn http_begins_with_the_handshake() {
    let world = world(true);
    let mut rig = Rig::http(limits(), &world.security);
    let mut client = world.named("client.global.nomad");
    say(&mut client, b"GET /v1/nodes HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(carry(&mut rig, &mut client, &[], 3), None);
    assert!(matches!(rig.events[..], [Event::Secured(Some(_)), Event::Protocol(Protocol::Http), Event::Http(_)]));
    rig.conn.http_reply(rig.now, crate::wire::http::HttpReply { status: 200, ..Default::default() });
    rig.settle();
    carry(&mut rig, &mut client, &[], 1000);
    assert!(rig.is_closed());
    assert!(hear(&mut client).starts_with(b"HTTP/1.1 200 OK\r\n"));
}

// R8.12: within TLS too, after a header, and whoever is turned away is told so within TLS.
#[test]
fn a_header_comes_before_tls_and_a_refusal_within_it() {
    let world = world(true);
    for step in [1, 7, 1 << 20] {
        let mut rig = Rig::of(Conn::accept_proxied(Instant::ZERO, Arc::new(limits()), &world.security, true));
        let mut client = world.named("web-1");
        rig.bytes(&property::PROXY_HEADER);
        rig.conn.admit(rig.now);
        assert_eq!(carry(&mut rig, &mut client, b"", step), None);
        assert_eq!(rig.conn.certificate().and_then(|held| held.counted_name.clone()).as_deref(), Some("web-1"));
        rig.conn.turn_away(rig.now, b"HTTP/1.1 429 ");
        rig.settle();
        assert_eq!(carry(&mut rig, &mut client, b"", step), None);
        assert_eq!(hear(&mut client), b"HTTP/1.1 429 ");
        assert!(rig.is_closed());
    }
}

// R8.12: the first DNS name, else the common name; cut, of one case, and fit for a log.
#[test]
fn connections_are_counted_by_one_name_of_a_certificate() {
    let issuer = authority();
    let counted = |common: Option<&str>, dns: &[&str]| {
        let mut params = CertificateParams::new(dns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let held = crate::conn::tls::PeerCertificate::from_chain(vec![certificate.der().to_vec()]);
        held.counted_name.map(|name| name.to_string())
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(counted(Some("node"), &["Web-1.example.org", "other"]), some("web-1.example.org"));
    assert_eq!(counted(Some("node 7\n"), &[]), some("node?7?"));
    // An IP address is no DNS name.
    assert_eq!(counted(Some("node"), &["192.0.2.7"]), some("node"));
    assert_eq!(counted(Some(&"\u{e4}".repeat(200)), &[]), Some("\u{e4}".repeat(126)));
    assert_eq!(counted(None, &[]), None);
}
