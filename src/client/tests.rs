//! The client against a server made of threads: every class of failure, and what is sent again.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fake::{Act, certificates, reply, serve, server_tls};
use super::*;
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::Raw;

const PING: &str = "Status.Ping";

fn client(address: String) -> Client {
    Client::new(Settings { address, tls: None, timeout: Duration::from_secs(20) })
}

fn ping(client: &mut Client) -> Result<Raw, Error> {
    client.call(PING, &GenericRequest::default())
}

#[test]
fn replies_are_matched_and_connections_are_kept() {
    let address = serve(None, |method, _| match method {
        "Status.Leader" => reply(&"127.0.0.1:4647".to_owned()),
        _ => Act::Reply(vec![0x80]),
    });
    let mut client = client(address);
    ping(&mut client).unwrap();
    let leader: String = client.call("Status.Leader", &GenericRequest::default()).unwrap();
    assert_eq!(leader, "127.0.0.1:4647");
    assert!(client.connection.is_some());
    assert_eq!(client.last_seq, 2);
}

#[test]
fn a_refusal_is_the_servers_text_and_the_next_call_connects_again() {
    let address = serve(None, |method, _| match method {
        "Status.Version" => Act::RefuseAndClose("rpc: can't find method Status.Version"),
        "Node.List" => Act::Refuse("Permission denied"),
        _ => Act::Reply(vec![0x80]),
    });
    let mut client = client(address);
    for (method, text) in
        [("Status.Version", "rpc: can't find method Status.Version"), ("Node.List", "Permission denied")]
    {
        let refused = client.call::<_, Raw>(method, &GenericRequest::default()).unwrap_err();
        assert_eq!(refused, Error::Refused(text.to_owned()));
        ping(&mut client).unwrap();
    }
}

#[test]
fn nobody_there_is_told_apart() {
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert!(matches!(ping(&mut client(address)).unwrap_err(), Error::Connect { .. }));
    assert!(matches!(ping(&mut client("no port".to_owned())).unwrap_err(), Error::Connect { .. }));
}

fn closed() -> String {
    // A port that was free a moment ago.
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn of_several_addresses_the_first_that_answers_is_asked_and_kept() {
    let server = serve(None, |_, _| Act::ReplyAndClose(vec![0x80]));
    let mut client = client(format!("{},{server}, {}", closed(), closed()));
    for _ in 0..2 {
        ping(&mut client).unwrap();
        assert_eq!((client.address(), client.preferred), (server.as_str(), 1));
    }
    let (one, other) = (closed(), closed());
    let Error::Connect { address, cause } = ping(&mut self::client(format!("{one},{other}"))).unwrap_err() else {
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
    ping(&mut client(both.clone())).unwrap();
    for write in ["Variables.Apply", "Unknown.Method"] {
        let mut client = client(both.clone());
        let outcome = client.call::<_, Raw>(write, &GenericRequest::default());
        assert!(matches!(outcome, Err(Error::Broken(_))), "{write}: {outcome:?}");
        // What is asked next goes there again: it may be well by now.
        assert_eq!(client.preferred, 0);
    }
}

#[test]
fn a_connection_that_ends_after_the_request_leaves_the_outcome_unknown_and_is_not_retried() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let address = serve(None, move |_, _| {
        seen.fetch_add(1, Ordering::SeqCst);
        Act::Close
    });
    assert!(matches!(ping(&mut client(address)).unwrap_err(), Error::Broken(_)));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_kept_connection_found_dead_costs_a_new_one_and_no_error() {
    let address = serve(None, |_, _| Act::ReplyAndClose(vec![0x80]));
    let mut client = client(address);
    for _ in 0..3 {
        ping(&mut client).unwrap();
        // Until the server's end has arrived, the look cannot see it.
        while client.connection.as_mut().is_some_and(Channel::looks_alive) {
            std::thread::yield_now();
        }
    }
    assert_eq!(client.last_seq, 3);
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
    let mut client = Client::new(Settings { address, tls: Some(tls), timeout: Duration::from_secs(20) });
    for _ in 0..2 {
        ping(&mut client).unwrap();
        assert!(client.connection.as_mut().unwrap().looks_alive());
        assert!(client.connection.as_mut().unwrap().looks_alive());
    }
    ping(&mut client).unwrap();
    while client.connection.as_mut().is_some_and(Channel::looks_alive) {
        std::thread::yield_now();
    }
    ping(&mut client).unwrap();
}

// R3.2, R3.3: one look when it is taken, which neither waits nor leaves the descriptor in another mode.
#[test]
fn a_look_at_a_quiet_connection_changes_nothing() {
    let address = serve(None, |_, _| Act::Reply(vec![0x80]));
    let mut client = client(address);
    ping(&mut client).unwrap();
    let mut kept = client.take_kept().unwrap();
    let flags = |channel: &Channel| rustix::fs::fcntl_getfl(channel.descriptor()).unwrap();
    let before = flags(&kept);
    for _ in 0..100 {
        kept.liveness().unwrap();
    }
    assert_eq!(flags(&kept), before);
    assert!(!before.contains(rustix::fs::OFlags::NONBLOCK));
    client.connection = Some(kept);
    ping(&mut client).unwrap();
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
    let mut client = client(address);
    ping(&mut client).unwrap();
    while client.connection.as_mut().is_some_and(Channel::looks_alive) {
        std::thread::yield_now();
    }
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
        assert!(matches!(ping(&mut client(address)).unwrap_err(), Error::Malformed(_)), "{bytes:?}");
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
        ping(&mut Client::new(Settings { address: address.clone(), tls: Some(tls), timeout: Duration::from_secs(20) }))
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
