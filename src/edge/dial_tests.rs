//! Dials over real sockets on loopback, with a double of the server machine.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::base::id::ConnId;
use crate::server::port::ClusterOutput;

use super::double::Rig;

const LONG: Duration = Duration::from_secs(60);

fn dial(rig: &Rig, ticket: u64, address: &str, timeout: Duration) {
    rig.perform(ClusterOutput::Dial { ticket, address: address.to_owned(), timeout }.into());
}

fn reached(rig: &Rig, wanted: u64) -> (ConnId, SocketAddr) {
    let mut found = None;
    rig.wait("the connection", |seen| {
        found = seen.dialled.iter().find(|(ticket, ..)| *ticket == wanted).map(|(_, conn, peer)| (*conn, *peer));
        found.is_some()
    });
    found.unwrap()
}

fn failed(rig: &Rig, wanted: u64) -> String {
    let mut found = None;
    rig.wait("the failure", |seen| {
        found = seen.dial_failed.iter().find(|(ticket, _)| *ticket == wanted).map(|(_, error)| error.clone());
        found.is_some()
    });
    found.unwrap()
}

fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A listener that takes nobody: its backlog is full. Gives back what fills it.
fn black_hole() -> (Socket, Vec<Socket>, SocketAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..8 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        filler.set_nonblocking(true).unwrap();
        let _ = filler.connect(&address);
        fillers.push(filler);
    }
    (listener, fillers, address.as_socket().unwrap())
}

// R8.19
#[test]
fn a_dialled_connection_is_driven_like_any_other() {
    let rig = Rig::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    dial(&rig, 1, &address.to_string(), LONG);
    let (conn, peer) = reached(&rig, 1);
    assert_eq!(peer, address);
    let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    // It echoes what comes, and sends what it is given.
    stream.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
    rig.send(conn, b"first".to_vec());
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"first");
    drop(stream);
    rig.wait("the end", |seen| seen.ended == [conn] || seen.failed == [conn]);
    rig.stop();
}

// R8.19: by name, also when the first of its addresses takes nobody.
#[test]
fn names_are_resolved() {
    let rig = Rig::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    dial(&rig, 1, &format!("localhost:{port}"), LONG);
    assert_eq!(reached(&rig, 1).1.port(), port);
    let no_name = "x".repeat(64);
    dial(&rig, 2, &format!("{no_name}:1"), LONG);
    assert!(failed(&rig, 2).starts_with(&format!("dial tcp: lookup {no_name}: ")));
    rig.stop();
}

#[test]
fn failures_are_told_in_the_words_of_go() {
    let rig = Rig::start();
    let closed = closed_port();
    dial(&rig, 1, &closed.to_string(), LONG);
    assert_eq!(failed(&rig, 1), format!("dial tcp {closed}: connect: connection refused"));
    dial(&rig, 2, "nowhere", LONG);
    assert_eq!(failed(&rig, 2), "dial tcp: address nowhere: missing port in address");
    // The loop is as before.
    let (mut stream, _) = rig.connect();
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    rig.stop();
}

// R1.76
#[test]
fn a_dial_that_nobody_answers_ends_in_time_and_holds_up_nobody() {
    let rig = Rig::start();
    let (_listener, _fillers, address) = black_hole();
    dial(&rig, 1, &address.to_string(), Duration::from_millis(50));
    assert_eq!(failed(&rig, 1), format!("dial tcp {address}: i/o timeout"));
    assert!(rig.seen().dialled.is_empty());
    rig.stop();
}

#[test]
fn dials_are_bounded_and_given_up_at_the_end() {
    let rig = Rig::start();
    let (_listener, _fillers, address) = black_hole();
    for ticket in 0..300 {
        dial(&rig, ticket, &address.to_string(), LONG);
    }
    let last = failed(&rig, 299);
    assert_eq!(last, format!("dial tcp {address}: too many connections are being dialled"));
    // It does not wait for the others.
    assert_eq!(rig.stop(), 0);
}
