//! Places of connections from a balancer, in numbers that sockets would be too many for (R8.12, R1.10).

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::base::id::ConnId;
use crate::base::metric::Id;
use crate::base::network::Network;
use crate::base::time::Instant;
use crate::base::time::WallTime;
use crate::server::Server;
use crate::server::port::Input;
use crate::server::port::Listener;
use crate::server::port::Output;
use crate::server::rig::settings;
use crate::state::State;

/// TCP over IPv4, from 192.0.2.7:8080.
const HEADER: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x1f\x90\x12\x27";

/// A server with balancers at 10.0.0.8 and 10.0.0.9, and what it does to connections.
struct Rig {
    server: Server,
    now: Instant,
    closed: usize,
    lines: Vec<String>,
}

impl Rig {
    fn new() -> Rig {
        let mut settings = settings();
        settings.proxy_protocol_from = vec![Network::parse("10.0.0.8/31").unwrap()];
        settings.rpc_max_conns_per_client = 26;
        settings.conn.handshake_timeout = Duration::from_secs(5);
        let root = Arc::new(ArcSwap::from_pointee(State::new()));
        let server = Server::new(settings, root, Instant::ZERO, WallTime::from_unix_nanos(0));
        Rig { server, now: Instant::ZERO, closed: 0, lines: Vec::new() }
    }

    fn feed(&mut self, input: Input<'_>) {
        self.server.handle_input(self.now, WallTime::from_unix_nanos(0), input);
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Close { .. } => self.closed += 1,
                Output::Log { text, .. } => self.lines.push(text),
                _ => {}
            }
        }
    }

    fn accept(&mut self, number: u64, from: &str) -> ConnId {
        let conn = ConnId(number);
        let peer: SocketAddr = from.parse().unwrap();
        self.feed(Input::Accepted { conn, listener: Listener::Rpc, peer });
        conn
    }
}

#[test]
fn a_balancer_never_runs_out_of_places_by_what_has_ended() {
    let mut rig = Rig::new();
    let call = [HEADER, &[0x01]].concat();
    let ways: [&[u8]; 6] = [b"", &HEADER[..20], &[0xff; 16], HEADER, &[HEADER, &[0xff]].concat(), &call];
    for number in 0..30_000u64 {
        let conn = rig.accept(0, "10.0.0.9:1000");
        let way = ways[usize::try_from(number % 6).unwrap()];
        rig.feed(Input::Received { conn, bytes: way });
        match number / 6 % 3 {
            0 => rig.feed(Input::Eof { conn }),
            1 => rig.feed(Input::Failed { conn, error: "reset".to_owned() }),
            _ => {
                rig.now += Duration::from_secs(5);
                rig.feed(Input::Timeout);
                rig.feed(Input::Eof { conn });
            }
        }
        assert_eq!(rig.server.link_count(), 0, "{number}");
    }
    assert_eq!(rig.server.metrics().counter(Id::RpcRejectConn), 0);
    assert!(rig.server.rpc_places.is_empty());
}

#[test]
fn headers_that_do_not_come_have_a_cap_of_their_own() {
    let mut rig = Rig::new();
    for number in 0..4096 {
        rig.accept(number, "10.0.0.9:1000");
    }
    assert_eq!(rig.closed, 0);
    rig.accept(4096, "10.0.0.9:2000");
    assert_eq!(rig.closed, 1);
    let line = rig.lines.last().unwrap();
    let wanted = "remote_addr=10.0.0.9:2000 limit=4096 key=\"address 10.0.0.9 before its PROXY headers\"";
    assert!(line.ends_with(wanted), "{line}");
    // Another balancer, and who comes without one, is let in.
    rig.accept(4096, "10.0.0.8:1000");
    rig.accept(4097, "10.0.0.7:1000");
    // A header makes room again: for its client, who has places of his own.
    for number in 0..26 {
        rig.feed(Input::Received { conn: ConnId(number), bytes: HEADER });
    }
    assert_eq!(rig.closed, 1);
    rig.feed(Input::Received { conn: ConnId(26), bytes: HEADER });
    assert_eq!(rig.closed, 2);
    assert!(rig.lines.last().unwrap().ends_with("key=\"address 192.0.2.7\""));
    rig.accept(4098, "10.0.0.9:3000");
    assert_eq!(rig.closed, 2);
    // All that say nothing have their end.
    rig.now += Duration::from_secs(5);
    rig.feed(Input::Timeout);
    assert_eq!(rig.server.link_count(), 0);
    assert!(rig.server.rpc_places.is_empty());
}
