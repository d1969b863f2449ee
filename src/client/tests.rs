//! The client against a server made of threads: every class of failure, and what is sent again.

mod endings;
mod sessions;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fake::{Act, Ending, certificates, reply, serve, server_tls};
use super::link::Link;
use super::*;
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::Raw;

const PING: &str = "Status.Ping";

/// Patience with the fake; no test waits for it.
const LONG: Duration = Duration::from_secs(20);

fn settings(address: impl Into<String>) -> Settings {
    Settings { timeout: LONG, speech: Speech::Plain, ..Settings::new(address) }
}

fn client(address: impl Into<String>) -> Client {
    Client::new(settings(address))
}

/// Waits until a kept connection is found dead.
fn until_dead(client: &Client) {
    while client.core.pool.peek(|link| link.liveness().is_ok()) == Some(true) {
        std::thread::yield_now();
    }
}

fn ping(client: &Client) -> Result<Raw, Error> {
    client.call(PING, &GenericRequest::default())
}

#[test]
fn replies_are_matched_and_connections_are_kept() {
    let address = serve(None, |method, _| match method {
        "Status.Leader" => reply(&"127.0.0.1:4647".to_owned()),
        _ => Act::Reply(vec![0x80]),
    });
    let client = client(address);
    ping(&client).unwrap();
    let leader: String = client.call("Status.Leader", &GenericRequest::default()).unwrap();
    assert_eq!(leader, "127.0.0.1:4647");
    assert_eq!(client.counters().value("holdfast.pool.idle"), 1);
    assert_eq!(client.core.last_seq.load(Ordering::Relaxed), 2);
}

#[test]
fn a_refusal_is_the_servers_text_and_the_next_call_connects_again() {
    let address = serve(None, |method, _| match method {
        "Status.Version" => Act::RefuseAndClose("rpc: can't find method Status.Version"),
        "Node.List" => Act::Refuse("Permission denied"),
        _ => Act::Reply(vec![0x80]),
    });
    let client = client(address);
    for (method, text) in
        [("Status.Version", "rpc: can't find method Status.Version"), ("Node.List", "Permission denied")]
    {
        let refused = client.call::<_, Raw>(method, &GenericRequest::default()).unwrap_err();
        assert_eq!(refused.refusal(), Some(text));
        ping(&client).unwrap();
    }
}

#[test]
fn nobody_there_is_told_apart() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert!(matches!(ping(&client(address)).unwrap_err(), Error::Connect { .. }));
    assert!(matches!(ping(&client("no port".to_owned())).unwrap_err(), Error::Connect { .. }));
}

fn closed() -> String {
    // A port that was free a moment ago.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn of_several_addresses_the_first_that_answers_is_asked_and_kept() {
    let server = serve(None, |_, _| Act::ReplyAndClose(vec![0x80]));
    let client = client(format!("{},{server}, {}", closed(), closed()));
    for _ in 0..2 {
        ping(&client).unwrap();
        assert_eq!(client.address(), server);
    }
    let (one, other) = (closed(), closed());
    let Error::Connect { address, cause } = ping(&self::client(format!("{one},{other}"))).unwrap_err() else {
        panic!("connected")
    };
    assert_eq!(address, format!("{one}, {other}"));
    assert!(cause.starts_with(&format!("{one}: ")) && cause.contains(&format!("; {other}: ")), "{cause}");
}

#[test]
fn a_read_goes_on_to_the_next_server_and_a_write_does_not() {
    let dying = serve(None, |_, _| Act::Close);
    let well = serve(None, |_, _| Act::Reply(vec![0x80]));
    let both = format!("{dying},{well}");
    ping(&client(both.clone())).unwrap();
    for write in ["Variables.Apply", "Unknown.Method"] {
        let client = client(both.clone());
        let outcome = client.call::<_, Raw>(write, &GenericRequest::default());
        assert!(matches!(outcome, Err(Error::OutcomeUnknown { place: None, .. })), "{write}: {outcome:?}");
        assert_eq!(client.counters().errors(Class::OutcomeUnknown), 1);
        // What is asked next goes there again: it may be well by now.
        assert_eq!(client.address(), dying);
    }
}

// R2.1, R2.21, R3.10, R3.11: a write is sent once, a read three times.
#[test]
fn a_connection_that_ends_after_the_request_leaves_a_writes_outcome_unknown() {
    for (method, sent) in [("Variables.Apply", 1), (PING, 3)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        let address = serve(None, move |_, _| {
            seen.fetch_add(1, Ordering::SeqCst);
            Act::Close
        });
        let error = client(address).call::<_, Raw>(method, &GenericRequest::default()).unwrap_err();
        assert_eq!(error.is_outcome_unknown(), method != PING, "{error:?}");
        assert_eq!(calls.load(Ordering::SeqCst), sent, "{method}");
    }
}

#[test]
fn a_kept_connection_found_dead_costs_a_new_one_and_no_error() {
    let address = serve(None, |_, _| Act::ReplyAndClose(vec![0x80]));
    let client = client(address);
    for _ in 0..3 {
        ping(&client).unwrap();
        // Until the server's end has arrived, the look cannot see it.
        until_dead(&client);
    }
    assert_eq!(client.core.last_seq.load(Ordering::Relaxed), 3);
    let counters = client.counters();
    assert_eq!((counters.value("holdfast.pool.check_dead"), counters.value("holdfast.pool.discard.closed")), (2, 2));
}

// R3.4: what a TLS 1.3 server sends after the handshake is no reason to dial again; its end is.
#[test]
fn tickets_do_not_end_a_kept_connection() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["server.global.nomad"]);
    let calls = AtomicUsize::new(0);
    let own = Some((folder.path().join("server.global.nomad.pem"), folder.path().join("server.global.nomad-key.pem")));
    let tls = load_tls(&TlsFiles { ca_file: folder.path().join("ca.pem"), own }, &ServerName::Any).unwrap();
    let address = serve(Some(server_tls(folder.path(), "server.global.nomad")), move |_, _| {
        match calls.fetch_add(1, Ordering::SeqCst) {
            2 => Act::ReplyAndClose(vec![0x80]),
            _ => Act::Reply(vec![0x80]),
        }
    });
    let client = Client::new(Settings { tls: Some(tls), ..settings(address) });
    for _ in 0..2 {
        ping(&client).unwrap();
        assert_eq!(client.core.pool.peek(|link| link.liveness().is_ok() && link.liveness().is_ok()), Some(true));
    }
    ping(&client).unwrap();
    until_dead(&client);
    ping(&client).unwrap();
    assert_eq!(client.counters().value("holdfast.pool.check_dead"), 1);
}

// R3.2, R3.3: one look when it is taken, which neither waits nor leaves the descriptor in another mode.
#[test]
fn a_look_at_a_quiet_connection_changes_nothing() {
    let address = serve(None, |_, _| Act::Reply(vec![0x80]));
    let client = client(address);
    ping(&client).unwrap();
    let flags = |link: &mut Link| rustix::fs::fcntl_getfl(link.channel().descriptor()).unwrap();
    let before = client.core.pool.peek(flags).unwrap();
    client.core.pool.peek(|link| (0..100).for_each(|_| link.liveness().unwrap()));
    assert_eq!(client.core.pool.peek(flags), Some(before));
    assert!(!before.contains(rustix::fs::OFlags::NONBLOCK));
    ping(&client).unwrap();
}

// R3.11: a server that resets every connection is tried three times at most, whatever is asked.
#[test]
fn a_server_that_resets_all_connections_is_not_dialled_for_ever() {
    for method in [PING, "Variables.Apply"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        });
        assert!(client(address).call::<_, Raw>(method, &GenericRequest::default()).is_err());
        assert!((1..=3).contains(&accepted.load(Ordering::SeqCst)));
    }
}

// R3.1: a byte that nobody asked for.
#[test]
fn a_kept_connection_that_speaks_out_of_turn_is_not_used() {
    let stray = [&[0x83][..], b"\xa5Error\xa0\xa3Seq\x01\xadServiceMethod\xabStatus.Ping\x80", &[0x80]].concat();
    let address = serve(None, move |_, _| Act::Bytes(stray.clone()));
    let client = client(address);
    ping(&client).unwrap();
    assert_eq!(client.counters().value("holdfast.pool.discard.stray"), 1);
}

#[test]
fn silence_ends_at_the_deadline() {
    let address = serve(None, |_, _| Act::Silence);
    let outcome = client(address).call_within::<_, Raw>(PING, &GenericRequest::default(), Duration::from_millis(30));
    assert_eq!(outcome.unwrap_err(), Error::Deadline { sent: true });
}

#[test]
fn bytes_that_are_no_reply_are_named_so() {
    for bytes in [&b"\xc1"[..], b"\x80\x80", b"\x05\x80", b"\x83\xa5Error\xa0\xa3Seq\x63\xadServiceMethod\xa1x\x80"] {
        let address = serve(None, move |_, _| Act::Bytes(bytes.to_vec()));
        assert!(matches!(ping(&client(address)).unwrap_err(), Error::Malformed(_)), "{bytes:?}");
    }
}

#[test]
fn tls_checks_chain_and_name_and_shows_its_own_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["server.global.nomad", "cli.global.nomad"]);
    certificates(other.path(), &["server.global.nomad"]);
    let address = serve(Some(server_tls(folder.path(), "server.global.nomad")), |_, _| Act::Reply(vec![0x80]));
    let own = Some((folder.path().join("cli.global.nomad.pem"), folder.path().join("cli.global.nomad-key.pem")));
    let expect = |name: &str| ServerName::Expect(name.to_owned());
    let attempt = |ca: &std::path::Path, own: Option<(PathBuf, PathBuf)>, name: ServerName| {
        let tls = load_tls(&TlsFiles { ca_file: ca.join("ca.pem"), own }, &name).unwrap();
        ping(&Client::new(Settings { tls: Some(tls), ..settings(address.clone()) }))
    };
    attempt(folder.path(), own.clone(), expect("server.global.nomad")).unwrap();
    attempt(folder.path(), own.clone(), ServerName::Any).unwrap();
    let wrong_name = attempt(folder.path(), own.clone(), expect("server.west.nomad")).unwrap_err();
    assert!(matches!(wrong_name, Error::Connect { .. }), "{wrong_name:?}");
    for name in [expect("server.global.nomad"), ServerName::Any] {
        let wrong_chain = attempt(other.path(), own.clone(), name).unwrap_err();
        assert!(matches!(wrong_chain, Error::Connect { .. }), "{wrong_chain:?}");
    }
    // With TLS 1.3 the server's refusal comes after our side of the handshake is done, with the first read.
    assert!(attempt(folder.path(), None, expect("server.global.nomad")).is_err());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["a"]);
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty.pem"), "").unwrap();
    for (ca, own, named) in [
        ("none.pem", None, "none.pem"),
        ("empty.pem", None, "empty.pem"),
        ("ca.pem", Some((path("gone.pem"), path("a-key.pem"))), "gone.pem"),
        ("ca.pem", Some((path("a.pem"), path("empty.pem"))), "empty.pem"),
    ] {
        let error = load_tls(&TlsFiles { ca_file: path(ca), own }, &ServerName::Any).unwrap_err();
        assert!(error.0.contains(named), "{error}");
    }
}
