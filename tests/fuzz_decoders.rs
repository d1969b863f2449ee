//! Every decoder that meets bytes from outside, fed with noise and with harmed bytes of real peers for a while:
//! nothing panics, nothing hangs, nothing grows.
//!
//! A second each as part of the suite; `HOLDFAST_FUZZ_SECONDS` for longer, `HOLDFAST_SEED` to see a run again. The
//! rooms have properties of their own beside their code; these are the bodies for long runs, over public functions.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

#[path = "fuzz_rig/links.rs"]
mod fuzz_links;
#[path = "fuzz_rig/server.rs"]
mod fuzz_server;
mod hostile_rig;

use std::sync::Arc;
use std::time::Duration;

use holdfast::api::identity::Signer;
use holdfast::api::outcome::{Effect, Outcome};
use holdfast::base::id::{Index, StreamId, Term};
use holdfast::base::time::{Instant, WallTime};
use holdfast::config::{Config, Overrides};
use holdfast::conn::{Answer, Conn, Event, Security};
use holdfast::mux::limits::{Limits as MuxLimits, Side};
use holdfast::mux::session::MuxSession;
use holdfast::state::State;
use holdfast::state::acl::rules::{Acl, Rules, VarCapability};
use holdfast::state::snapshot;
use holdfast::wire::body::node_call::{NodeListRequest, NodeUpdateStatusRequest};
use holdfast::wire::body::query::{QueryOptions, WriteRequest, route_fields};
use holdfast::wire::entry::{Command, Entry};
use holdfast::wire::http::{ChunkedBody, head_end, parse_request_head};
use holdfast::wire::json;
use holdfast::wire::msgpack::{Decoder, Encoder, Msg, Raw, Scan, Scanner};
use holdfast::wire::proxy::{HEADER_BYTES_MAX, ProxyReader, SIGNATURE};
use holdfast::wire::rpc;
use holdfast::wire::streaming::{EventStreamWrapper, StreamErrWrapper, StreamingAck, StreamingHeader};

use fuzz_server::{Rig, conn_limits, ctx, state_with_nodes};
use hostile_rig::kit::fuzz;
use hostile_rig::mutate::{conversations, http_requests};
use hostile_rig::nodes;

/// What this process may hold at any time while it does all of this, KiB. Most of it is what proptest, the recorded
/// conversations and the allocator of a debug build hold anyway.
const PEAK_KIB_MAX: u64 = 600 << 10;

fn assert_small() {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let peak_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kib < PEAK_KIB_MAX, "{peak_kib} KiB were in use");
}

/// What clients sent, each conversation as one piece.
fn samples() -> Vec<Vec<u8>> {
    conversations().into_iter().map(|turns| turns.concat()).collect()
}

/// Messages within the streams of recorded conversations: heads and bodies.
fn messages() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for conversation in samples() {
        // Wherever a value begins that is a map, however the frames cut it.
        for (at, _) in conversation.iter().enumerate().filter(|(_, byte)| matches!(byte, 0x81..=0x8f | 0xde)) {
            if let Ok(Scan::Complete(length)) = Scanner::default().scan(&conversation[at..], 1 << 20)
                && length > 8
            {
                found.push(conversation[at..at + length].to_vec());
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 100);
    found
}

// Reliability goal 13, R1.17 to R1.42: whatever a peer says, whole and byte by byte.
#[test]
fn connections() {
    let mut samples = samples();
    samples.extend(http_requests());
    fuzz("connections", &samples, |input| {
        let Some((&how, bytes)) = input.split_first() else { return };
        let now = Instant::ZERO;
        let limits = Arc::new(conn_limits());
        for (is_http, proxied) in [(false, false), (true, false), (false, true), (true, true)] {
            let (limits, security) = (limits.clone(), Security::default());
            let mut conn = match (is_http, proxied) {
                (_, true) => Conn::accept_proxied(now, limits, &security, is_http),
                (true, false) => Conn::accept_http(now, limits, &security),
                (false, false) => Conn::accept_rpc(now, limits, &security),
            };
            if proxied {
                conn.handle_bytes(now, &proxy_headers()[0]);
                serve(&mut conn, now, 0);
            }
            // The samples begin with the first byte of the connection; so half the runs keep it.
            let bytes = if how & 1 == 0 || is_http { input } else { bytes };
            for (nth, piece) in bytes.chunks(1 + usize::from(how >> 1)).enumerate() {
                conn.handle_bytes(now, piece);
                serve(&mut conn, now, nth);
            }
            let late = now + Duration::from_secs(60);
            conn.handle_timeout(late);
            serve(&mut conn, late, 1);
            conn.handle_eof(late);
            serve(&mut conn, late, 1);
            conn.handle_failure(late, "reset");
            serve(&mut conn, late, 0);
        }
    });
    assert_small();
}

/// An owner who answers every other thing.
fn serve(conn: &mut Conn, now: Instant, turn: usize) {
    let mut events = 0;
    while let Some(event) = conn.poll_event() {
        events += 1;
        assert!(events < 100_000, "events without an end");
        match event {
            Event::Protocol(_) | Event::Proxied(_) => conn.admit(now),
            Event::Call(call) if turn.is_multiple_of(2) => {
                conn.reply(now, call.stream, call.seq, &call.method, Answer::Body(&[0x80]));
            }
            Event::Call(call) => conn.reply(now, call.stream, call.seq, &call.method, Answer::Error("no")),
            Event::Streaming { stream, method } => {
                conn.streaming_ack(now, stream, if method.is_empty() { "unknown" } else { "" });
            }
            Event::Argument { stream, .. } => {
                conn.send_bytes(now, stream, b"\x81\xa5Event\x80");
            }
            Event::Bytes { stream, bytes } => conn.consumed(now, stream, bytes.len()),
            Event::Finished(stream) => conn.finish(now, stream),
            Event::Http(request) => {
                let reply = holdfast::wire::http::HttpReply { status: 200, body: request.body, ..Default::default() };
                conn.http_reply(now, reply);
            }
            _ => {}
        }
    }
    if turn % 3 == 1 {
        let _ = conn.call(now, "NodeMeta.Read", &[0x80]);
        let _ = conn.open_streaming(now, "FileSystem.Logs");
        conn.reset(now, StreamId(2));
    }
    let waiting = conn.to_send().len();
    conn.sent(now, waiting - waiting / 3 * usize::from(turn % 4 == 3));
    assert!(conn.streams() <= 64);
}

// R1.42
#[test]
fn mux_sessions() {
    let limits = MuxLimits { window_bytes: 4096, max_streams: 32, accept_backlog: 8, ..MuxLimits::default() };
    // Without the connection's first byte the frames begin.
    let samples: Vec<Vec<u8>> = samples().into_iter().map(|sample| sample[1..].to_vec()).collect();
    fuzz("mux sessions", &samples, |input| {
        for side in [Side::Client, Side::Server] {
            let mut session = MuxSession::new(side, limits.clone(), Instant::ZERO);
            let mut output = Vec::new();
            for piece in input.chunks(97) {
                session.handle_bytes(Instant::ZERO, piece);
                while let Some(event) = session.poll_event() {
                    if let Some(stream) = event.stream() {
                        session.accept(stream);
                        let _ = session.send(stream, piece);
                        session.consume(stream, piece.len());
                    }
                }
                session.take_output(&mut output);
                assert!(session.streams() <= limits.max_streams);
            }
            session.handle_timeout(Instant::ZERO + Duration::from_secs(600));
            session.take_output(&mut output);
        }
    });
    assert_small();
}

#[test]
fn msgpack_values() {
    fuzz("msgpack values", &messages(), |input| {
        for cap in [64, 16 << 20] {
            let whole = Scanner::default().scan(input, cap);
            // Byte by byte it comes to the same.
            let mut scanner = Scanner::default();
            let mut found = Ok(Scan::Partial);
            for end in 0..=input.len().min(400) {
                found = scanner.scan(&input[..end], cap);
                if found != Ok(Scan::Partial) {
                    break;
                }
            }
            if input.len() <= 400 {
                assert_eq!(found.is_ok(), whole.is_ok());
                if let (Ok(a), Ok(b)) = (&found, &whole) {
                    assert_eq!(a, b);
                }
            }
            if let Ok(Scan::Complete(length)) = whole {
                let value = &input[..length];
                assert_eq!(Decoder::new(value).raw().map(<[u8]>::len), Ok(length));
                let _ = Raw::from_bytes(value).map(|raw| raw.to_bytes());
                let mut text = String::new();
                let _ = json::to_json(value, &mut text);
                assert!(text.len() <= 64 + 8 * value.len(), "{} characters of {} bytes", text.len(), value.len());
            }
        }
    });
    assert_small();
}

#[test]
fn rpc_heads_and_routing_fields() {
    fuzz("rpc heads", &messages(), |input| {
        let _ = rpc::decode_request_head(input);
        let _ = rpc::decode_reply_head(input);
        let _ = route_fields(input, u64::MAX - 3);
    });
    assert_small();
}

#[test]
fn streaming_messages() {
    fuzz("streaming messages", &messages(), |input| {
        let _ = StreamingHeader::from_bytes(input);
        let _ = StreamingAck::from_bytes(input);
        if let Ok(event) = EventStreamWrapper::from_bytes(input) {
            assert_eq!(EventStreamWrapper::from_bytes(&event.to_bytes()).unwrap(), event);
        }
        let _ = StreamErrWrapper::from_bytes(input).map(|message| message.to_bytes());
    });
    assert_small();
}

#[test]
fn http_heads_and_chunks() {
    let mut samples = http_requests();
    samples.push(b"4\r\nabcd\r\n1;x=\"y\"\r\ne\r\n0\r\nTrailer: a\r\n\r\nGET / HTTP/1.1\r\n\r\n".to_vec());
    samples.push(b"ffffffffffffffff\r\n".to_vec());
    fuzz("http", &samples, |input| {
        if let Ok(Some((head, length))) = parse_request_head(input) {
            assert!(length <= input.len());
            let _ = (head.body_length(), head.keeps_alive(), head.lists("connection", "close"));
        }
        let _ = head_end(input, input.len() / 2);
        let (mut whole, mut body) = (ChunkedBody::default(), Vec::new());
        let taken = whole.take(input, &mut body, 100);
        assert!(body.len() <= 100);
        let (mut pieces, mut joined, mut at) = (ChunkedBody::default(), Vec::new(), 0);
        let by_pieces = input.chunks(1).try_for_each(|piece| {
            at += pieces.take(piece, &mut joined, 100)?;
            Ok::<(), holdfast::wire::http::ChunkError>(())
        });
        assert_eq!(by_pieces.err(), taken.err());
        if let Ok(taken) = taken {
            assert_eq!((taken, body), (at, joined));
        }
    });
    assert_small();
}

/// Entries of all kinds, as the log has them.
/// Headers of balancers: with IPv4, IPv6 and further fields, and of the balancer itself.
fn proxy_headers() -> Vec<Vec<u8>> {
    let with = |version: u8, family: u8, block: &[u8]| {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, block].concat()
    };
    let ipv4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0x12, 0x27];
    let fields = [&ipv4[..], &[0x02, 0, 3], b"web", &[0x03, 0, 4, 0, 0, 0, 0], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
    vec![
        with(0x21, 0x11, &ipv4),
        with(0x21, 0x11, &fields),
        with(0x21, 0x21, &[7; 36]),
        with(0x21, 0x31, &[7; 216]),
        with(0x20, 0x00, &[]),
    ]
}

// R8.12: in one piece and in small ones; of what is too long nothing is kept.
#[test]
fn headers_of_balancers() {
    fuzz("proxy headers", &proxy_headers(), |input| {
        let whole = ProxyReader::default().take(&mut &input[..]);
        let (mut reader, mut found) = (ProxyReader::default(), Ok(None));
        for mut piece in input.chunks(3) {
            found = reader.take(&mut piece);
            assert!(reader.held_bytes() <= HEADER_BYTES_MAX);
            if found != Ok(None) {
                break;
            }
        }
        assert_eq!(found, whole);
    });
    assert_small();
}

fn entries() -> Vec<Vec<u8>> {
    let command = |command| Entry { time_unix_nanos: 5, session: None, command }.encode();
    let raw = nodes::register(1, 2, 30).node.raw;
    let mut found = vec![
        command(Command::Noop),
        command(Command::NodeRegister { node: raw }),
        command(Command::NodeDrainComplete { node_id: nodes::node_id(1) }),
        command(Command::SigningKeyAdd { key_id: "k".into(), public_key: vec![1; 32], create_time: 1 }),
    ];
    // The rest from what handlers propose for recorded bodies.
    let (state, ctx) = (state_with_nodes(), ctx());
    for body in messages() {
        for name in fuzz_server::METHODS {
            let method = holdfast::api::method(name).unwrap();
            let caller = fuzz_server::caller();
            if let Outcome::Propose { command: proposed, .. } =
                holdfast::api::run_call(method, &body, 0, &caller, true, &state, &ctx)
            {
                found.push(command(proposed));
            }
        }
    }
    found.sort();
    found.dedup();
    assert!(found.len() > 5, "only {} entries", found.len());
    found
}

/// An entry that is read is applied too: a log may hold what an older or newer build let in.
#[test]
fn entries_of_the_log() {
    let begin = state_with_nodes();
    fuzz("entries", &entries(), |input| {
        let _ = Entry::version_and_tag(input);
        if let Ok(entry) = Entry::decode(input) {
            // Not the same bytes: unknown fields are passed over. But the same entry.
            assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry));
            let mut state = begin.clone();
            let index = Index(state.index().0 + 1);
            state.apply(index, Term(1), &entry);
            assert_eq!(state.index(), index);
            let _ = state.digest();
        }
    });
    assert_small();
}

#[test]
fn snapshots() {
    let samples: Vec<Vec<u8>> =
        [State::new(), state_with_nodes()].iter().map(|state| snapshot::write(state).flatten().collect()).collect();
    fuzz("snapshots", &samples, |input| {
        if let Ok(state) = snapshot::read(input) {
            // Only a whole one is taken.
            assert!(snapshot::write(&state).flatten().collect::<Vec<u8>>() == input);
        }
    });
    assert_small();
}

#[test]
fn configurations() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/holdfastd.toml");
    let sample = std::fs::read(path).unwrap();
    // The sample's keys are comments: with and without their marks.
    let set = String::from_utf8(sample.clone()).unwrap().replace("\n#", "\n").into_bytes();
    let small = b"data_dir = \"/x\"\n[rpc]\nhold_timeout = \"5s\"\nmax_message = \"16MiB\"\n[regions]\nw=[]\n".to_vec();
    fuzz("configurations", &[sample, set, small], |input| {
        let text = String::from_utf8_lossy(input);
        if let Err(errors) = Config::parse("f.toml", &text, &Overrides::default(), "host") {
            assert!(!errors.is_empty());
            errors.iter().for_each(|error| drop(error.to_string()));
        }
    });
    assert_small();
}

/// Filters (go-bexpr), run over a list of nodes.
#[test]
fn filters() {
    let samples: Vec<Vec<u8>> = [
        "Status == \"ready\"",
        "Attributes[\"mark\"] != `2` and not (Name matches \"no.*\" or ID contains \"-\")",
        "Attributes.mark is empty or \"x\" not in Name",
        "((((((((Status == ready))))))))",
        "not not not not Status == ready",
        "Name matches \"(a+)+$\"",
        "Drivers.ballast.x.y == 1 and ModifyIndex > 3",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    let (state, ctx, caller) = (state_with_nodes(), ctx(), fuzz_server::caller());
    let list = holdfast::api::method("Node.List").unwrap();
    fuzz("filters", &samples, |input| {
        let filter = String::from_utf8_lossy(input).into_owned();
        let query = QueryOptions { filter, ..nodes::options() };
        let body = NodeListRequest { query, ..NodeListRequest::default() }.to_bytes();
        holdfast::api::run_call(list, &body, 0, &caller, true, &state, &ctx);
    });
    // One that nests deep: parentheses and negations.
    for filter in ["(".repeat(200_000), "not ".repeat(200_000), "a.".repeat(200_000), "a == b or ".repeat(100_000)] {
        let query = QueryOptions { filter, ..nodes::options() };
        let body = NodeListRequest { query, ..NodeListRequest::default() }.to_bytes();
        holdfast::api::run_call(list, &body, 0, &caller, true, &state, &ctx);
    }
    assert_small();
}

/// Node identities (JSON Web Tokens), shown as a token by somebody who says to be a node.
#[test]
fn identities() {
    let state = state_with_nodes();
    let mut ctx = ctx();
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let signer = Arc::new(Signer::new("key-1", pkcs8.as_ref()).unwrap());
    ctx.signer = Some(signer.clone());
    let node = state.node(&nodes::node_id(1)).unwrap();
    let token = signer.sign(node, "global", WallTime::from_unix_nanos(1_795_261_300_000_000_000), 7);
    let method = holdfast::api::method("Node.UpdateStatus").unwrap();
    let caller = fuzz_server::caller();
    let run = |token: String| {
        let request = NodeUpdateStatusRequest {
            write: WriteRequest { auth_token: token, region: "global".into(), ..WriteRequest::default() },
            ..nodes::update_status(1, "ready")
        };
        holdfast::api::run_call(method, &request.to_bytes(), 0, &caller, true, &state, &ctx)
    };
    let proves = |outcome: &Outcome| match outcome {
        Outcome::Reply(reply) => reply.effects.iter().any(|effect| matches!(effect, Effect::ProveNode(_))),
        Outcome::Propose { .. } => true,
        _ => false,
    };
    assert!(proves(&run(token.clone())) && proves(&run(nodes::secret_id(1))));
    let (signed, _) = token.rsplit_once('.').unwrap();
    let samples = [token.clone().into_bytes(), b"a.b.c".to_vec(), b"eyJhbGciOiJub25lIn0.e30.".to_vec()];
    fuzz("identities", &samples, |input| {
        let shown = String::from_utf8_lossy(input).into_owned();
        // The signature is over the token as it stands: no other one is taken for it. (The last character of the
        // signature itself holds bits that say nothing.)
        let may_prove = shown.rsplit_once('.').is_some_and(|(begin, _)| begin == signed);
        assert!(may_prove || !proves(&run(shown)));
    });
    assert_small();
}

/// The handlers of all methods with harmed bodies; what they propose is applied.
#[test]
fn handlers() {
    let (begin, ctx, caller) = (state_with_nodes(), ctx(), fuzz_server::caller());
    let mut samples = messages();
    samples.push(nodes::register(1, 2, 10).to_bytes());
    samples.push(nodes::update_status(1, "ready").to_bytes());
    samples.push(nodes::get_node(1).to_bytes());
    fuzz("handlers", &samples, |input| {
        let mut state = begin.clone();
        for name in fuzz_server::METHODS {
            let method = holdfast::api::method(name).unwrap();
            let outcome =
                holdfast::api::run_call(method, input, 7, &caller, input.len().is_multiple_of(2), &state, &ctx);
            if let Outcome::Propose { command, finish } = outcome {
                let index = Index(state.index().0 + 1);
                let entry = Entry { time_unix_nanos: 9, session: None, command };
                // What is proposed can be written and read.
                assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry), "{name}");
                let result = state.apply(index, Term(1), &entry).result;
                let resolved = holdfast::api::outcome::Resolved { index, result };
                holdfast::api::finish(&finish, &resolved, &state, &ctx);
            }
        }
        for name in ["Agent.Monitor", "Event.Stream", "FileSystem.Logs"] {
            let method = holdfast::api::streaming_method(name).unwrap();
            holdfast::api::run_streaming(method, input, 7, &caller, &state, &ctx);
        }
        if state.index() > begin.index() {
            // Whatever got in comes through a snapshot.
            let written: Vec<u8> = snapshot::write(&state).flatten().collect();
            assert_eq!(snapshot::read(&written).map(|read| read.digest()).ok(), Some(state.digest()));
        }
    });
    assert_small();
}

/// A whole server without sockets: several connections at once, writes applied, jobs run, time passing.
#[test]
fn a_whole_server() {
    let mut samples: Vec<Vec<u8>> = samples();
    samples.extend(http_requests());
    for body in [nodes::register(3, 1, 10).to_bytes(), nodes::update_status(3, "ready").to_bytes()] {
        let mut e = Encoder::new();
        e.raw(&[1]);
        rpc::encode_request_head(&mut e, 1, "Node.Register");
        e.raw(&body);
        rpc::encode_request_head(&mut e, 2, "Node.UpdateStatus");
        e.raw(&body);
        samples.push(e.out);
    }
    let mut rig = Rig::new();
    fuzz("a whole server", &samples, |input| rig.feed(input));
    rig.assert_empty();
    assert_small();
}

// Reliability goal 13: the text of a policy is read whole or refused, and what it says can be asked and shown.
#[test]
fn policies() {
    let hcl = r#"
        # A comment, // another, /* and one more */
        namespace "dev-*" {
          policy = "read" capabilities = ["submit-job", "read-fs",]
          variables { path "app/*" { capabilities = ["read", "write"] } path "\u0041b" { capabilities = [] } }
        }
        "node" { policy = <<-WORD
          read
          WORD
        }
        operator = { capabilities = ["snapshot-save"] }
    "#;
    let json = r#"{"namespace": [{"default": {"policy": "write", "variables": {"path": {"*": {"capabilities": ["list"]}}}}}],
        "agent": {"policy": "read"}, "node": [{"policy": "deny"}]}"#;
    let samples = [hcl.as_bytes().to_vec(), json.as_bytes().to_vec()];
    fuzz("policies", &samples, |input| {
        if let Ok(rules) = Rules::parse(&String::from_utf8_lossy(input)) {
            json::to_json(&rules.to_rules_json().0, &mut String::new()).unwrap();
            let acl = Acl { management: false, policies: vec![Arc::new(rules)] };
            acl.allows_variable("dev-1", "app/x", VarCapability::Read);
        }
    });
    for deep in ["a {".repeat(200_000), "a = [".repeat(200_000), "{\"a\":".repeat(200_000), "[".repeat(200_000)] {
        assert!(Rules::parse(&deep).is_err());
    }
    assert_small();
}

// R1.10, R6.24: a peer that breaks with an answer unwritten does not hold up the end.
#[test]
fn a_broken_peer_does_not_hold_up_the_end() {
    for ping in [
        &b"\x01\x82\xa3Seq\x01\xadServiceMethod\xabStatus.Ping\x80"[..],
        b"\x06\x00\x02\x00\x01\x00\x00\x00\x00\x00\x00\x00\x07",
        b"\x05\x81\xa6Method\xabNope.Stream",
    ] {
        assert!(Rig::new().ends_at_once_after_a_break(ping), "{ping:02x?}");
    }
}
