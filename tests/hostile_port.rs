//! Peers that mean harm, against the real daemon over real sockets: it lives, serves others, gives back what they
//! took, and stays small.
//!
//! A few seconds as part of the suite. `HOLDFAST_HOSTILE_SECONDS` makes the noise longer, `HOLDFAST_SEED` repeats it.
//! Sources: requirements R1j (what hurt the running peer), R1.10, R1.29, R1.41, R1.42, R6.9; reliability goals 13, 14.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod hostile_rig;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use holdfast::base::rng::Rng;
use holdfast::wire::body::node_call::NodeListRequest;
use holdfast::wire::body::query::QueryOptions;
use holdfast::wire::msgpack::{Encoder, Msg};
use holdfast::wire::yamux::{ACK, FIN, FrameType, RST, SYN};

use hostile_rig::daemon::Daemon;
use hostile_rig::mutate::{conversations, http_requests, mutate, noise, place};
use hostile_rig::peer::{
    Frames, Plain, closes_within, connect, connect_from, data, frame, http, read_all, request, vanish,
};
use hostile_rig::{PATIENCE, nodes, number_from_env, seed, wait_until};

/// No limit of connections, so that a test can make many.
const NO_LIMIT: &str = "[limits]\nrpc_max_conns_per_client = 0\nhttp_max_conns_per_client = 0\n";

const MIB: u64 = 1 << 10;

/// Runs something against a daemon and says by how much its memory rose at most, KiB.
fn growth_kib(daemon: &Daemon, attack: impl FnOnce()) -> u64 {
    daemon.forget_peak();
    let before = daemon.rss_kib();
    attack();
    daemon.peak_kib().saturating_sub(before)
}

#[track_caller]
fn assert_growth(daemon: &Daemon, max_kib: u64, attack: impl FnOnce()) {
    let grown = growth_kib(daemon, attack);
    assert!(grown <= max_kib, "memory rose by {grown} KiB, more than {max_kib}");
}

/// A client that does no harm is served while all of this goes on.
struct Healthy<'a> {
    stop: &'a AtomicBool,
    calls: &'a AtomicU64,
}

impl Healthy<'_> {
    /// Calls until it is told to stop; the longest that a call took.
    fn run(&self, address: SocketAddr) -> Duration {
        let mut client = Plain::connect(address);
        let mut longest = Duration::ZERO;
        let registered = client.ask::<_, nodes::Registered>("Node.Register", &nodes::register(7777, 1, 10));
        registered.unwrap().unwrap();
        while !self.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            client.ping().unwrap();
            let node: nodes::One = client.ask("Node.GetNode", &nodes::get_node(7777)).unwrap().unwrap();
            assert_eq!(nodes::mark_of(&node).map(|(mark, _)| mark), Some(1));
            longest = longest.max(begin.elapsed());
            self.calls.fetch_add(2, Ordering::Relaxed);
            thread::park_timeout(Duration::from_millis(2));
        }
        longest
    }
}

/// Runs an attack while a healthy client is served; fails when one of its calls took over two seconds.
fn beside_a_healthy_client(address: SocketAddr, attack: impl FnOnce()) {
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let healthy = scope.spawn(|| Healthy { stop: &stop, calls: &calls }.run(address));
        let attacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attack));
        stop.store(true, Ordering::Relaxed);
        let longest = healthy.join().expect("the healthy client was served");
        if let Err(panic) = attacked {
            std::panic::resume_unwind(panic);
        }
        let calls = calls.load(Ordering::Relaxed);
        eprintln!("healthy client: {calls} calls, the slowest {longest:?}");
        assert!(calls > 0 && longest < Duration::from_secs(2), "{calls} calls, the slowest {longest:?}");
    });
}

/// One connection's worth of harm.
fn harm(rng: &mut Rng, samples: &[Vec<Vec<u8>>], requests: &[Vec<u8>], rpc: SocketAddr, http: SocketAddr) {
    let to_http = rng.chance(1, 3);
    // Over the limit of an address connections are refused, which is one more way to be treated badly.
    let Ok(mut stream) = connect_from(2, if to_http { http } else { rpc }) else { return };
    let _ = stream.set_read_timeout(Some(Duration::from_millis(1 + rng.below(20))));
    let mut turns = match rng.below(6) {
        0 => vec![noise(rng, 4000)],
        1 => vec![[vec![rng.below(8) as u8], noise(rng, 4000)].concat()],
        _ if to_http => vec![requests[rng.below(requests.len() as u64) as usize].clone()],
        _ => samples[rng.below(samples.len() as u64) as usize].clone(),
    };
    if rng.chance(9, 10) {
        let nth = rng.below(turns.len() as u64) as usize;
        mutate(rng, &mut turns[nth]);
    }
    let mut buffer = [0; 4096];
    for turn in &turns {
        let cut = if rng.chance(1, 4) && !turn.is_empty() { place(rng, turn) } else { turn.len() };
        if stream.write_all(&turn[..cut]).is_err() || stream.write_all(&turn[cut..]).is_err() {
            break;
        }
        if rng.chance(1, 2) {
            let _ = std::io::Read::read(&mut stream, &mut buffer);
        }
    }
    match rng.below(4) {
        0 => vanish(stream),
        1 => {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = std::io::Read::read(&mut stream, &mut buffer);
        }
        _ => {}
    }
}

// R1.10, R1.29, R1.42, R6.9, goal 13
#[test]
fn noise_and_harmed_conversations() {
    let config = "[limits]\nrpc_max_conns_per_client = 26\nhttp_max_conns_per_client = 26\n\
                  [rpc]\nhandshake_timeout = \"1s\"\n[events]\nbuffer = \"1MiB\"\n";
    let mut daemon = Daemon::start(config);
    let seconds = number_from_env("HOLDFAST_HOSTILE_SECONDS", 5);
    let seed = seed("noise and harmed conversations");
    let (samples, requests) = (conversations(), http_requests());
    let (rpc, http) = (daemon.rpc, daemon.http);
    let connections = AtomicU64::new(0);
    let rounds = 5;
    let mut first_kib = None;
    beside_a_healthy_client(rpc, || {
        for round in 0..rounds {
            let end = Instant::now() + Duration::from_secs(seconds) / rounds;
            thread::scope(|scope| {
                for attacker in 0..4u64 {
                    let (samples, requests, connections) = (&samples, &requests, &connections);
                    scope.spawn(move || {
                        let mut rng = Rng::from_seed(seed ^ attacker << 32 ^ u64::from(round) << 48);
                        while Instant::now() < end {
                            harm(&mut rng, samples, requests, rpc, http);
                            connections.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
            });
            // The healthy one stays.
            wait_until("all connection places given back", || daemon.connections() <= 1);
            daemon.assert_sound();
            // Nodes that got registered by harmed calls are data, not leaks; each is held by some events too.
            let data_kib =
                64 * daemon.metric("holdfast_nodes") as u64 + daemon.metric("holdfast_raft_applied_index") as u64;
            let kib = daemon.rss_kib();
            let first = *first_kib.get_or_insert(kib);
            eprintln!("round {round}: {kib} KiB");
            assert!(kib < first + 24 * MIB + data_kib, "{kib} KiB in use, {first} after the first round");
        }
    });
    eprintln!("{} connections", connections.load(Ordering::Relaxed));
    daemon.assert_places(2, 26);
    daemon.assert_sound();
}

// R1j R1.42: "an unread ping flood costs the peer 1.5 GiB in seconds".
#[test]
fn an_unread_ping_flood_ends_the_session() {
    let mut daemon = Daemon::start("");
    assert_growth(&daemon, 16 * MIB, || {
        let mut peer = Frames::connect(daemon.rpc);
        let pings: Vec<u8> = (0..8192).flat_map(|value| frame(FrameType::Ping, SYN, 0, value)).collect();
        // 200 MiB, unless the session ends before.
        let ended = (0..2048).any(|_| peer.send(&pings).is_err());
        assert!(ended, "the flood was taken to its end");
    });
    wait_until("the place given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

/// A body with a binary of so many bytes, told before it comes.
fn declared(bytes: u32) -> Vec<u8> {
    let mut body = b"\x81\xa6Region\xc6".to_vec();
    body.extend(bytes.to_be_bytes());
    body
}

/// Sends a body in pieces until it is all gone or nobody takes it any more.
fn pour(stream: &mut TcpStream, piece: &[u8], bytes: usize) -> bool {
    (0..bytes / piece.len()).all(|_| stream.write_all(piece).is_ok())
}

// R1j decoder, R1.45: a message is capped, before it is taken where it says its length.
#[test]
fn a_body_of_64_mib_is_refused() {
    let mut daemon = Daemon::start("");
    // Told at once.
    assert_growth(&daemon, 4 * MIB, || {
        let mut peer = Plain::connect(daemon.rpc);
        peer.stream.write_all(&request(1, "Node.GetNode", &declared(64 << 20))).unwrap();
        pour(&mut peer.stream, &[b'x'; 1 << 16], 64 << 20);
        assert!(closes_within(&peer.stream, PATIENCE));
    });
    // Never told: a map of many small pairs. It grows to the cap of 16 MiB, and no buffer is over twice that.
    let pairs: Vec<u8> = b"\xa3abc\xa3def".repeat(8192);
    assert_growth(&daemon, 64 * MIB, || {
        let mut peer = Plain::connect(daemon.rpc);
        peer.stream.write_all(&request(1, "Node.GetNode", b"\xdf\x00\x40\x00\x00")).unwrap();
        assert!(!pour(&mut peer.stream, &pairs, 64 << 20), "64 MiB were taken");
        assert!(closes_within(&peer.stream, PATIENCE));
    });
    // In a session only the stream ends.
    let mut peer = Frames::connect(daemon.rpc);
    peer.send(&data(SYN, 1, &[&[1][..], &request(1, "Node.GetNode", &declared(64 << 20))].concat())).unwrap();
    let ended = peer.until(|header| header.stream == 1 && header.flags & (FIN | RST) != 0).unwrap();
    assert_eq!(ended.0.stream, 1);
    peer.send(&data(SYN, 3, &[&[1][..], &request(1, "Status.Ping", b"\x80")].concat())).unwrap();
    peer.until(|header| header.stream == 3 && header.frame_type == FrameType::Data).unwrap();
    daemon.assert_sound();
}

// R1j HTTP: refused by what it says, and at the cap where it says nothing.
#[test]
fn an_http_body_of_64_mib_is_refused() {
    let mut daemon = Daemon::start("");
    assert_growth(&daemon, 4 * MIB, || {
        let mut stream = connect(daemon.http);
        let head = format!("PUT /v1/regions HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 64 << 20);
        stream.write_all(head.as_bytes()).unwrap();
        let reply = read_all(stream);
        assert!(reply.starts_with("HTTP/1.1 413"), "{reply}");
    });
    assert_growth(&daemon, 64 * MIB, || {
        let mut stream = connect(daemon.http);
        stream.write_all(b"PUT /v1/regions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
        assert!((0..1024).any(|_| stream.write_all(&chunk).is_err()), "64 MiB were taken");
    });
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

// R1j R1.32: "20,000 SYNs cost it over 100 MiB".
#[test]
fn twenty_thousand_syns_cost_little() {
    let mut daemon = Daemon::start("");
    let syns = |count: u32, payload: &[u8]| -> Vec<u8> {
        (0..count).flat_map(|nth| data(SYN, 2 * nth + 1, payload)).collect()
    };
    // Nobody reads the resets: the session ends, or waits.
    assert_growth(&daemon, 8 * MIB, || {
        let mut peer = Frames::connect(daemon.rpc);
        let _ = peer.send(&syns(20_000, b""));
        let _ = peer.send(&frame(FrameType::Ping, SYN, 0, 1));
        wait_until("silent streams stay in the backlog", || daemon.metric("holdfast_streams") <= 256.0);
    });
    // They are read, and each stream says what it speaks: streams up to the cap, and no more.
    assert_growth(&daemon, 16 * MIB, || {
        let mut peer = Frames::connect(daemon.rpc);
        let mut writer = peer.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                let _ = writer.write_all(&syns(20_000, b"\x01"));
                let _ = writer.write_all(&frame(FrameType::Ping, SYN, 0, 7));
            });
            let mut resets = 0;
            // The connection may end, if resets came faster than they were read.
            while let Ok((header, _)) = peer.next() {
                resets += usize::from(header.flags & RST != 0);
                if header.frame_type == FrameType::Ping && header.flags & ACK != 0 {
                    assert_eq!(resets, 20_000 - 4096);
                    break;
                }
            }
        });
        assert!(daemon.metric("holdfast_streams") <= 4096.0);
    });
    wait_until("the places given back", || daemon.connections() == 0 && daemon.metric("holdfast_streams") == 0.0);
    daemon.assert_sound();
}

/// A session with stream 1 open for calls.
fn open_stream(daemon: &Daemon) -> Frames {
    let mut peer = Frames::connect(daemon.rpc);
    peer.send(&data(SYN, 1, b"\x01")).unwrap();
    peer.until(|header| header.stream == 1 && header.flags & ACK != 0).unwrap();
    peer
}

// R1j R1.41, R1.42: GoAway(1) is flushed before the close.
#[test]
fn violations_end_the_session_with_goaway_1() {
    let mut daemon = Daemon::start("");
    let too_much = data(0, 1, &vec![b'x'; 256 * 1024 + 1]);
    let nearly = [data(0, 1, b"\x81\xa1x\xdb\x00\x10\x00\x00"), data(0, 1, &vec![b'x'; 256 * 1024])].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a window over 2^32", frame(FrameType::WindowUpdate, 0, 1, u32::MAX).to_vec()),
        ("data beyond the window", too_much),
        ("data beyond the window in two frames", nearly),
        ("a second SYN", frame(FrameType::WindowUpdate, SYN, 1, 0).to_vec()),
        ("an even stream", frame(FrameType::WindowUpdate, SYN, 2, 0).to_vec()),
        ("stream 0", frame(FrameType::WindowUpdate, SYN, 0, 0).to_vec()),
        ("an unknown version", vec![9; 12]),
        ("an unknown type", [&[0, 9][..], &[0; 10]].concat()),
        ("data of 4 GiB", frame(FrameType::Data, 0, 1, u32::MAX).to_vec()),
    ];
    for (what, bytes) in cases {
        let mut peer = open_stream(&daemon);
        // What is beyond the window may be refused while it is being sent.
        let _ = peer.send(&bytes);
        assert_eq!(peer.end_code(), Some(1), "{what}");
    }
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

/// Registers a node of 0.9 MiB, and a hundred smaller ones that are as much together.
fn register_much(daemon: &Daemon) {
    let mut client = Plain::connect(daemon.rpc);
    client.ask::<_, nodes::Registered>("Node.Register", &nodes::register(1, 1, 900 << 10)).unwrap().unwrap();
    for number in 2..102 {
        client.ask::<_, nodes::Registered>("Node.Register", &nodes::register(number, 1, 9 << 10)).unwrap().unwrap();
    }
}

/// A list of all nodes, with what they were registered with: 1.8 MiB.
fn list_request() -> Vec<u8> {
    NodeListRequest { query: nodes::options(), ..NodeListRequest::default() }.to_bytes()
}

// R1j replies, R1.41: what waits for a reader is capped per stream and session.
#[test]
fn replies_that_nobody_reads_do_not_pile_up() {
    let mut daemon = Daemon::start("");
    register_much(&daemon);
    for (what, method, body, streams, max_kib) in [
        ("light", "Node.GetNode", nodes::get_node(1).to_bytes(), 1000u32, 64 * MIB),
        // And what handlers have made and the loop has not taken.
        ("heavy", "Node.List", list_request(), 1000, 128 * MIB),
    ] {
        let grown = growth_kib(&daemon, || {
            let mut peer = Frames::connect(daemon.rpc);
            // At once, so that many are taken before the first is answered.
            let call = [&[1][..], &request(1, method, &body)].concat();
            let calls: Vec<u8> = (0..streams).flat_map(|nth| data(SYN, 2 * nth + 1, &call)).collect();
            peer.send(&calls).unwrap();
            // Each stream's window takes 256 KiB, which is read; no more is granted.
            let mut seen = 0u64;
            peer.stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
            while let Ok((_, payload)) = peer.next() {
                seen += payload.len() as u64;
            }
            assert!(seen > 0);
        });
        eprintln!("{what}: {grown} KiB for {streams} replies");
        assert!(grown < max_kib, "{what}: memory rose by {grown} KiB");
    }
    // One plain connection that asks and never reads.
    let grown = growth_kib(&daemon, || {
        let mut peer = Plain::connect(daemon.rpc);
        peer.stream.set_write_timeout(Some(Duration::from_millis(1000))).unwrap();
        let calls = request(1, "Node.GetNode", &nodes::get_node(1).to_bytes()).repeat(1000);
        for _ in 0..100 {
            if peer.stream.write_all(&calls).is_err() {
                break;
            }
        }
    });
    eprintln!("plain: {grown} KiB");
    assert!(grown < 24 * MIB, "plain: memory rose by {grown} KiB");
    // One HTTP connection that pipelines and never reads.
    let grown = growth_kib(&daemon, || {
        let mut stream = connect(daemon.http);
        stream.set_write_timeout(Some(Duration::from_millis(1000))).unwrap();
        let calls = b"GET /v1/metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
        for _ in 0..100 {
            if stream.write_all(&calls).is_err() {
                break;
            }
        }
    });
    eprintln!("http: {grown} KiB");
    assert!(grown < 24 * MIB, "HTTP: memory rose by {grown} KiB");
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

// R1j R1.97: queries of whoever is gone are freed, whatever the connection spoke.
#[test]
fn clients_that_vanish_take_their_parked_queries_along() {
    let mut daemon = Daemon::start(NO_LIMIT);
    let query = QueryOptions { min_query_index: 1 << 40, ..nodes::options() };
    let body = NodeListRequest { query, ..NodeListRequest::default() }.to_bytes();
    let call = request(1, "Node.List", &body);
    for round in 0..3 {
        let mut gone = Vec::new();
        // A plain connection that is closed in order looks like one that is half-closed and waits for its answer:
        // the system finds out when it asks whether the peer is there, after a minute.
        let kinds: &[u8] = if round == 1 { &[3, 6] } else { &[1, 3, 6] };
        for first in kinds.iter().copied() {
            for _ in 0..10 {
                let mut stream = connect(daemon.rpc);
                let per_stream = if first == 6 { [&[1][..], &call].concat() } else { call.clone() };
                let mut bytes = vec![first];
                match first {
                    1 => bytes.extend(&call),
                    _ => (0..40).for_each(|nth| bytes.extend(data(SYN, 2 * nth + 1, &per_stream))),
                }
                stream.write_all(&bytes).unwrap();
                gone.push(stream);
            }
        }
        wait_until("all parked", || daemon.metric("holdfast_parked_queries") == if round == 1 { 800.0 } else { 810.0 });
        match round {
            0 => gone.into_iter().for_each(vanish),
            1 => drop(gone),
            // Half-closed: net/rpc still answers, so the queries stay; then they are gone.
            _ => {
                for stream in &gone {
                    stream.shutdown(std::net::Shutdown::Write).unwrap();
                }
                gone.into_iter().for_each(vanish);
            }
        }
        wait_until("no query parked", || daemon.metric("holdfast_parked_queries") == 0.0);
        wait_until("the places given back", || daemon.connections() == 0);
    }
    daemon.assert_sound();
}

// Goal 14, R1.14, R1.22, R1.40: slow peers cost no thread, little memory, and are closed in time.
#[test]
fn slow_peers_are_closed_and_harm_nobody() {
    let authority = tempfile::tempdir().unwrap();
    let tls = tls_config(authority.path());
    let each = usize::try_from(number_from_env("HOLDFAST_SLOW_PEERS", 40)).unwrap();
    let mut daemon = Daemon::start(&format!("{NO_LIMIT}[rpc]\nhandshake_timeout = \"2s\"\n{tls}"));
    // Those that were needed to start have ended when it has answered.
    assert_eq!(daemon.metric("holdfast_parked_queries"), 0.0);
    let (threads, rpc, http) = (daemon.threads(), daemon.rpc, daemon.http);
    let many = |address: SocketAddr, bytes: &[u8]| -> Vec<TcpStream> {
        let open = |_| {
            let mut stream = connect(address);
            stream.write_all(bytes).unwrap();
            stream
        };
        (0..each).map(open).collect()
    };
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let head = b"GET /v1/regions HTTP/1.1\r\nHost: a\r\nX-A: bbbbbbbbbbbbbbb";
    let body = b"PUT /v1/regions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n";
    beside_a_healthy_client(rpc, || {
        // What they say at first, what they drip, and in which time they are closed.
        let limited: Vec<(&str, Vec<TcpStream>, &[u8])> = vec![
            ("first byte", many(rpc, b""), b""),
            ("TLS hello", many(rpc, b"\x04"), b""),
            ("TLS hello in drips", many(rpc, b"\x04"), hello),
            ("streaming header", many(rpc, b"\x05"), b"\x81\xa6Method"),
            ("HTTP head in drips", many(http, b""), head),
        ];
        let endless: Vec<(&str, Vec<TcpStream>)> = vec![
            ("HTTP body", many(http, body)),
            ("an RPC head", many(rpc, b"\x01\x82\xa3Se")),
            ("a window never granted", many(rpc, &[&[6][..], &data(SYN, 1, b"\x01\x82\xa3Se")].concat())),
        ];
        assert!(daemon.threads() <= threads);
        let begin = Instant::now();
        let mut dripped = 0;
        let all: usize = limited.iter().map(|(_, streams, _)| streams.len()).sum();
        let longest = Duration::from_secs(15);
        while begin.elapsed() < longest && daemon.connections() > (endless.len() * each + 1) as u64 {
            for (_, streams, drips) in &limited {
                let Some(drip) = drips.get(dripped..dripped + 1) else { continue };
                streams.iter().for_each(|mut stream| drop(stream.write_all(drip)));
            }
            dripped += 1;
            thread::park_timeout(Duration::from_millis(250));
        }
        eprintln!("{all} slow peers closed after {:?}", begin.elapsed());
        for (what, streams, _) in &limited {
            for stream in streams {
                assert!(
                    closes_within(stream, Duration::from_secs(1)),
                    "{what}: still open after {:?}",
                    begin.elapsed()
                );
            }
        }
        assert!(daemon.threads() <= threads);
    });
    daemon.assert_sound();
    wait_until("the places given back", || daemon.connections() == 0);
    // A kibibyte or so for each plain one, and what TLS takes.
    assert!(daemon.rss_kib() < 64 * MIB + each as u64 * 8 * 32, "{} KiB", daemon.rss_kib());
}

/// An authority, a certificate of the server, and the lines that name them.
fn tls_config(folder: &std::path::Path) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(params, key);
    let server_key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["server.global.nomad".to_owned(), "localhost".to_owned()];
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
    for (name, text) in [("ca.pem", ca.pem()), ("cert.pem", certificate.pem()), ("key.pem", server_key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "[tls]\nrpc = true\nrpc_upgrade_mode = true\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n",
        path("ca.pem"),
        path("cert.pem"),
        path("key.pem")
    )
}

/// A map of so many different small keys.
fn small_pairs(count: u32) -> Vec<u8> {
    let mut e = Encoder::new();
    e.map(count as usize);
    for number in 0..count {
        e.raw(
            &[&[0xa4][..], &std::array::from_fn::<u8, 4, _>(|at| b'A' + (number >> (6 * at) & 63) as u8 % 57)].concat(),
        );
        e.raw(b"\xc0");
    }
    e.out
}

/// The lines of harm that msgpack can do in few bytes.
fn bodies_of_harm() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let nested = |depth: usize, marker: &[u8]| [marker.repeat(depth), vec![0xc0]].concat();
    let array = |of: &[u8], count: u32| [&[0xdd][..], &count.to_be_bytes(), &of.repeat(count as usize)].concat();
    let within = |key: &str, value: Vec<u8>| {
        let mut e = Encoder::new();
        e.map(2);
        e.str("Region");
        e.str("global");
        e.str(key);
        e.raw(&value);
        e.out
    };
    let (many, some) = (8 << 20, 2 << 20);
    // A sound node, but for one of its fields.
    let node_with = |key: &str, value: Vec<u8>| {
        let plain = nodes::register(5, 5, 0).node.raw;
        let mut e = Encoder::new();
        e.map(plain.0[0] as usize - 0x80 + 1);
        e.raw(&plain.0[1..]);
        e.str(key);
        e.raw(&value);
        within("Node", e.out)
    };
    vec![
        ("10,000 arrays deep", "Node.GetNode", nested(10_000, &[0x91])),
        ("10,000 maps deep", "Node.GetNode", nested(10_000, b"\x81\xa1a")),
        ("1,000 arrays deep in a field", "Node.GetNode", within("X", nested(1000, &[0x91]))),
        ("1,000 maps deep in a node", "Node.Register", within("Node", nested(1000, b"\x81\xa1a"))),
        ("8 Mi nils", "Node.GetNode", array(b"\xc0", many)),
        ("8 Mi nils where one is unknown", "Node.GetNode", within("X", array(b"\xc0", many))),
        ("8 Mi nils for ids", "Node.BatchDeregister", within("NodeIDs", array(b"\xc0", many))),
        ("2 Mi empty ids", "Node.BatchDeregister", within("NodeIDs", array(b"\xa0", some))),
        ("2 Mi nils for allocations", "Node.UpdateAlloc", within("Alloc", array(b"\xc0", some))),
        ("2 Mi empty allocations", "Node.UpdateAlloc", within("Alloc", array(b"\x80", some))),
        ("8 Mi nils for evaluations", "Node.UpdateAlloc", within("Evals", array(b"\xc0", many))),
        ("2 Mi nils for a node's events", "Node.Register", node_with("Events", array(b"\xc0", some))),
        ("2 Mi nils for a node's meta", "Node.Register", node_with("Meta", array(b"\xc0", some))),
        ("512 Ki small attributes", "Node.Register", node_with("Attributes", small_pairs(1 << 19))),
        (
            "2 Mi nils for events",
            "Node.EmitEvents",
            within("NodeEvents", [&b"\x81\xa1a"[..], &array(b"\xc0", some)].concat()),
        ),
    ]
}

// R1j decoder: "8 Mi nils [cost it] 224 MiB"; holdfast decodes within the message's own size.
#[test]
fn messages_are_decoded_within_their_own_size() {
    for (what, method, body) in bodies_of_harm() {
        // A fresh one each time: memory that an earlier case has left free would hide what this one takes.
        let mut daemon = Daemon::start("");
        let grown = growth_kib(&daemon, || {
            let mut peer = Plain::connect(daemon.rpc);
            // Refused, answered or closed: all are fine.
            let _ = peer.send(method, &body).and_then(|()| peer.receive());
        });
        eprintln!("{what}: {} KiB sent, {grown} KiB more in use", body.len() >> 10);
        // The bytes as they come (a buffer that doubles), the body, and what the entry of a write needs.
        let max_kib = 8 * MIB + 10 * (body.len() as u64 >> 10);
        assert!(grown < max_kib, "{what}: memory rose by {grown} KiB for {} KiB", body.len() >> 10);
        daemon.assert_sound();
    }
}

// R1.30: bytes that come one by one are looked at once each.
#[test]
fn dripping_heads_are_read_like_whole_ones() {
    let mut daemon = Daemon::start("");
    let mut peer = Plain::connect(daemon.rpc);
    for byte in request(0, "Status.Ping", b"\x80") {
        peer.stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(peer.receive().unwrap(), Ok(vec![0x80]));
    // A head with a method's name of 100,000 bytes, one segment each: no time that grows with what came before.
    let mut e = Encoder::new();
    holdfast::wire::rpc::encode_request_head(&mut e, 1, &"x".repeat(100_000));
    e.raw(b"\x80");
    let begin = Instant::now();
    for byte in &e.out {
        if peer.stream.write_all(&[*byte]).is_err() {
            break;
        }
    }
    assert!(closes_within(&peer.stream, PATIENCE), "an unknown method is the stream's last");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let text = b"GET /v1/regions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = connect(daemon.http);
    for byte in text {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(read_all(stream).starts_with("HTTP/1.1 200"));
    daemon.assert_sound();
}

// R1.8, R1.10: 10,000 come and go at once, on both ports.
#[test]
fn ten_thousand_connects_and_resets() {
    let config = "[limits]\nrpc_max_conns_per_client = 26\nhttp_max_conns_per_client = 26\n";
    let mut daemon = Daemon::start(config);
    let descriptors = daemon.descriptors();
    let (rpc, http) = (daemon.rpc, daemon.http);
    assert_growth(&daemon, 8 * MIB, || {
        beside_a_healthy_client(rpc, || {
            thread::scope(|scope| {
                for (attacker, address) in [(2u8, rpc), (2, http)] {
                    scope.spawn(move || {
                        for nth in 0..5000u32 {
                            let mut stream = connect_from(attacker, address).unwrap();
                            let first = [0u8, 1, 2, 3, 5, 6, b'G'][nth as usize % 7];
                            if nth % 3 > 0 {
                                let _ = stream.write_all(&[first]);
                            }
                            if nth.is_multiple_of(2) { vanish(stream) } else { drop(stream) }
                        }
                    });
                }
            });
        });
    });
    daemon.assert_places(2, 26);
    wait_until("descriptors given back", || daemon.descriptors() <= descriptors + 2);
    daemon.assert_sound();
}

// R1.42, R1.97: streams that are reset take along what was in hand.
#[test]
fn streams_opened_and_reset_in_a_loop() {
    let mut daemon = Daemon::start("");
    register_much(&daemon);
    let query = QueryOptions { min_query_index: 1 << 40, ..nodes::options() };
    let parked = NodeListRequest { query, ..NodeListRequest::default() }.to_bytes();
    let calls = [
        request(1, "Node.List", &parked),
        request(1, "Node.List", &list_request()),
        request(1, "Node.Register", &nodes::register(1, 1, 10).to_bytes()),
        request(1, "Status.Ping", b"\x80"),
        request(1, "No.Such", b"\x80"),
    ];
    let round = || {
        let mut peer = Frames::connect(daemon.rpc);
        let mut reader = peer.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || while matches!(std::io::Read::read(&mut reader, &mut [0; 1 << 16]), Ok(1..)) {});
            for nth in 0..5000u32 {
                let stream = 2 * nth + 1;
                let first = if nth.is_multiple_of(9) { 5 } else { 1 };
                let mut bytes = data(SYN, stream, &[&[first][..], &calls[nth as usize % 5]].concat());
                bytes.extend(frame(FrameType::WindowUpdate, RST, stream, 0));
                peer.send(&bytes).unwrap();
            }
            wait_until("no stream is left", || daemon.metric("holdfast_streams") == 0.0);
            wait_until("no query parked", || daemon.metric("holdfast_parked_queries") == 0.0);
            wait_until("no call in hand", || daemon.metric("holdfast_calls_in_flight") == 0.0);
            peer.stream.shutdown(std::net::Shutdown::Both).unwrap();
        });
    };
    round();
    // Lists of 1.8 MiB that were made for streams that are gone.
    assert_growth(&daemon, 64 * MIB, || {
        round();
        round();
    });
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

// R1j HTTP: one request is one request (RFC 9112, 6.3, 11.2).
#[test]
fn http_requests_are_not_smuggled() {
    let mut daemon = Daemon::start("");
    let inner = "GET /v1/status/leader HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        |headers: &str, body: &str| format!("POST /v1/regions HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}{inner}");
    let cases = [
        ("CL and TE", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("TE and CL", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n")),
        ("two lengths", post("Content-Length: 0\r\nContent-Length: 5\r\n", "")),
        ("a list of lengths", post("Content-Length: 0, 5\r\n", "")),
        ("a signed length", post("Content-Length: +0\r\n", "")),
        ("a hexadecimal length", post("Content-Length: 0x0\r\n", "")),
        ("a negative length", post("Content-Length: -1\r\n", "")),
        ("an empty length", post("Content-Length:\r\n", "")),
        ("a huge length", post("Content-Length: 18446744073709551616\r\n", "")),
        ("an unknown coding", post("Transfer-Encoding: cow\r\n", "")),
        ("chunked and more", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n")),
        ("chunked twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        ("a space before the colon", post("Transfer-Encoding : chunked\r\n", "0\r\n\r\n")),
        ("a folded line", post("X-A: b\r\n Content-Length: 5\r\n", "")),
        ("a signed chunk", post("Transfer-Encoding: chunked\r\n", "+0\r\n\r\n")),
        ("a chunk without its end", post("Transfer-Encoding: chunked\r\n", "1\r\nabc")),
        ("a huge chunk", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n")),
        ("a bare CR", post("X-A: b\rContent-Length: 5\r\n", "")),
        ("a NUL", post("X-A: b\0\r\n", "")),
        ("a method of controls", format!("G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n{inner}")),
        ("HTTP/2", format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{inner}")),
        ("version 1.2", format!("GET / HTTP/1.2\r\nHost: a\r\n\r\n{inner}")),
    ];
    for (what, bytes) in cases {
        let reply = http(daemon.http, bytes.as_bytes());
        let answers = reply.match_indices("HTTP/1.1 ").filter(|(at, _)| reply[at + 9..].starts_with(char::is_numeric));
        let answers = answers.count();
        assert!(answers <= 1, "{what}: {answers} answers:\n{reply}");
        assert!(!reply.contains("HTTP/1.1 200"), "{what}:\n{reply}");
        assert!(!reply.contains(&daemon.rpc.to_string()), "{what}: the second was answered:\n{reply}");
    }
    // What is not smuggled is served, also behind another.
    let reply = http(daemon.http, format!("{inner}{inner}").as_bytes());
    assert_eq!(reply.matches("HTTP/1.1 200").count(), 2, "{reply}");
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}

// R6.9
#[test]
fn a_giant_http_head_is_refused() {
    let mut daemon = Daemon::start("");
    assert_growth(&daemon, 4 * MIB, || {
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX-A: {}\r\n\r\n", "b".repeat(8 << 20));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-A: b\r\n".repeat(100_000));
        let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "b".repeat(8 << 20));
        let endless = "b".repeat(8 << 20);
        let lines = "\r\n".repeat(4 << 20);
        for (what, bytes) in
            [("long", long), ("many", many), ("target", target), ("endless", endless), ("lines", lines)]
        {
            let reply = http(daemon.http, bytes.as_bytes());
            assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{what}: {reply}");
        }
    });
    wait_until("the places given back", || daemon.connections() == 0);
    daemon.assert_sound();
}
