//! Connections captured between real peers, replayed against [`Conn`]: whole and cut anywhere, each time with the
//! same calls and the same answers, byte for byte on each stream.
//!
//! The server's part is played from the capture itself. What the peer of the capture did and holdfast does otherwise
//! is listed in [`DIFFERENT`], each with its reason.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast::base::id::StreamId;
use holdfast::base::time::Instant;
use holdfast::conn::report::Cause;
use holdfast::conn::{Answer, Conn, Event, Limits, Protocol, RpcCall, Security};
use holdfast::mux::session;
use holdfast::wire::first_byte::FirstByte;
use holdfast::wire::yamux::{FIN, FrameType, GoAway, HEADER_BYTES, Header, RST};
use serde_json::Value;

/// Vectors whose outcome differs on purpose, or that this level cannot play.
const DIFFERENT: [(&str, &str); 8] = [
    ("backlog_exceeded", "a silent stream stays in the backlog here (R1j R1.32)"),
    ("client_boot_v112", "the server calls the client, as it sees fit"),
    ("client_boot_v205", "the server calls the client, as it sees fit"),
    ("v2_silent_stream_blocks_accept", "a silent stream blocks no other (R1.40)"),
    ("v2_stream_closed_without_byte", "a stream without a byte is dropped alone (R1.40)"),
    ("viol_double_fin", "a second FIN is ignored (R1j R1.42)"),
    ("viol_even_stream_id", "an id of the wrong parity is a violation (R1j R1.42)"),
    ("viol_stream_id_zero", "id 0 is a violation (R1j R1.42)"),
];

fn limits() -> Arc<Limits> {
    Arc::new(Limits {
        handshake_timeout: Duration::from_secs(5),
        max_message_bytes: 16 << 20,
        max_partial_bytes: 32 << 20,
        idle_streams: 64,
        max_raft_unsent_bytes: 1 << 20,
        max_unsent_bytes: 16 << 20,
        mux: session::Limits::default(),
        http_max_head_bytes: 64 << 10,
        http_max_body_bytes: 1 << 20,
        http_head_timeout: Duration::from_secs(10),
        http_body_timeout: Duration::from_secs(60),
        http_idle_timeout: Duration::from_secs(120),
        http_uploads: &[],
    })
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// What the captured server said to a call.
struct Reply {
    head: Vec<u8>,
    error: String,
    body: Vec<u8>,
}

/// The captured server's part.
#[derive(Default)]
struct Script {
    replies: BTreeMap<(StreamId, u64), Reply>,
    acks: BTreeMap<StreamId, String>,
    messages: BTreeMap<StreamId, Vec<u8>>,
    /// The server closed before the client did.
    server_closes: bool,
}

impl Script {
    /// `None` when the vector does not hold all bytes.
    fn read(vector: &Value) -> Option<Script> {
        let mut script = Script::default();
        let plain = [vector.clone()];
        let streams = if vector["messages"].is_array() { &plain[..] } else { items(vector, "streams") };
        for stream in streams {
            let id = StreamId(stream["stream"].as_u64().unwrap_or(0) as u32);
            let mut head = None;
            for message in items(stream, "messages").iter().filter(|message| text(message, "dir") == "s2c") {
                let hex = text(message, "hex");
                if hex.contains("...") {
                    return None;
                }
                let (bytes, decoded) = (unhex(hex), &message["decoded"]);
                match text(message, "kind") {
                    "response-header" => head = Some((decoded["Seq"].as_u64()?, text(decoded, "Error"), bytes)),
                    "response-body" => {
                        let (seq, error, head) = head.take()?;
                        script.replies.insert((id, seq), Reply { head, error: error.to_owned(), body: bytes });
                    }
                    "streaming-ack" => {
                        script.acks.insert(id, text(decoded, "Error").to_owned());
                    }
                    "streaming-message" => script.messages.entry(id).or_default().extend(bytes),
                    _ => {}
                }
            }
        }
        let first_end = items(vector, "turns").iter().find(|turn| turn["end"].is_string());
        script.server_closes = first_end.is_some_and(|turn| text(turn, "dir") == "s2c");
        Some(script)
    }
}

/// What a connection did, as far as the peer and the owner can tell.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    calls: Vec<RpcCall>,
    streaming: Vec<(StreamId, String)>,
    arguments: Vec<(StreamId, Box<[u8]>, u64)>,
    causes: Vec<Cause>,
    gone: Vec<StreamId>,
    sent: Vec<u8>,
    closed: bool,
    closed_before_eof: bool,
}

struct Player<'a> {
    conn: Conn,
    now: Instant,
    script: &'a Script,
    pending: Vec<RpcCall>,
    outcome: Outcome,
}

impl Player<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        assert!(self.conn.wants_read());
        self.conn.handle_bytes(self.now, bytes);
        self.settle();
    }

    fn settle(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            assert!(!self.outcome.closed, "{event:?} after the end");
            self.serve(event);
        }
        let len = self.conn.to_send().len();
        self.outcome.sent.extend_from_slice(self.conn.to_send());
        self.conn.sent(self.now, len);
        assert_eq!(self.conn.to_send().len(), 0);
        assert_eq!(self.conn.poll_event(), None);
    }

    fn serve(&mut self, event: Event) {
        let (conn, now) = (&mut self.conn, self.now);
        match event {
            Event::Lost { .. } | Event::Raft(_) | Event::Ready => {}
            Event::Protocol(Protocol::Rpc(FirstByte::Streaming)) => conn.admit(now),
            Event::Protocol(_) | Event::Writable(_) => {}
            Event::Call(call) => {
                self.outcome.calls.push(call.clone());
                self.pending.push(call);
            }
            Event::Streaming { stream, method } => {
                self.outcome.streaming.push((stream, method));
                conn.streaming_ack(now, stream, &self.script.acks[&stream]);
            }
            Event::Argument { stream, body, base } => {
                self.outcome.arguments.push((stream, body, base));
                let messages = self.script.messages.get(&stream).map_or(&[][..], Vec::as_slice);
                assert_eq!(conn.send_bytes(now, stream, messages), messages.len());
                if self.script.server_closes {
                    conn.finish(now, stream);
                }
            }
            Event::Bytes { stream, bytes } => conn.consumed(now, stream, bytes.len()),
            Event::Finished(stream) => conn.finish(now, stream),
            Event::Gone(stream) => {
                self.pending.retain(|call| call.stream != stream);
                self.outcome.gone.push(stream);
            }
            Event::Report(report) => self.outcome.causes.push(report.cause),
            Event::Closed => self.outcome.closed = true,
            Event::Proxied(_) | Event::Secured(_) | Event::Answer { .. } | Event::Acked { .. } | Event::Http(_) => {
                panic!("{event:?}")
            }
        }
    }

    /// Answers the calls whose answers `permitted` holds.
    fn answer(&mut self, permitted: impl Fn(&Reply) -> bool) {
        while let Some(at) = self
            .pending
            .iter()
            .position(|call| self.script.replies.get(&(call.stream, call.seq)).is_some_and(&permitted))
        {
            let call = self.pending.remove(at);
            let reply = &self.script.replies[&(call.stream, call.seq)];
            let last = ["rpc: can't find", "rpc: service/method", "msgpack decode error"];
            let answer = if reply.error.is_empty() {
                Answer::Body(&reply.body)
            } else if last.iter().any(|start| reply.error.starts_with(start)) {
                Answer::LastError(&reply.error)
            } else {
                Answer::Error(&reply.error)
            };
            self.conn.reply(self.now, call.stream, call.seq, &call.method, answer);
            self.settle();
        }
    }
}

/// Plays a vector; each turn of the client is cut by `cut`, which gets the offset of its first byte.
fn play(vector: &Value, script: &Script, cut: impl Fn(usize, &[u8]) -> Vec<Vec<u8>>) -> Outcome {
    let conn = Conn::accept_rpc(Instant::ZERO, limits(), &Security::default());
    let outcome = Outcome::default();
    let mut player = Player { conn, now: Instant::ZERO, script, pending: Vec::new(), outcome };
    let mut offset = 0;
    let mut eof = false;
    for turn in items(vector, "turns") {
        let bytes = unhex(text(turn, "hex"));
        match (text(turn, "dir"), turn["end"].is_string()) {
            ("c2s", false) => {
                for piece in cut(offset, &bytes) {
                    if !player.outcome.closed {
                        player.bytes(&piece);
                    }
                }
                offset += bytes.len();
            }
            ("s2c", false) => player.answer(|reply| holds(&bytes, &reply.head)),
            ("s2c", true) => {}
            _ => {
                player.outcome.closed_before_eof |= player.outcome.closed && !std::mem::replace(&mut eof, true);
                player.answer(|_| true);
                if !player.outcome.closed {
                    player.conn.handle_eof(player.now);
                    player.settle();
                }
            }
        }
    }
    player.outcome
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// By stream: its bytes, and whether it was finished and reset. Pings, grants and accepts are left out; a GoAway is
/// on stream 0.
fn by_stream(bytes: &[u8]) -> BTreeMap<u32, (Vec<u8>, bool, bool)> {
    let mut streams: BTreeMap<u32, (Vec<u8>, bool, bool)> = BTreeMap::new();
    let mut rest = bytes;
    while let Some((head, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).unwrap();
        rest = after;
        if header.frame_type == FrameType::GoAway {
            streams.entry(0).or_default().0.push(header.length as u8);
        }
        if !matches!(header.frame_type, FrameType::Data | FrameType::WindowUpdate) {
            continue;
        }
        let stream = streams.entry(header.stream).or_default();
        if header.frame_type == FrameType::Data {
            let (data, after) = rest.split_at(header.length as usize);
            stream.0.extend_from_slice(data);
            rest = after;
        }
        stream.1 |= header.flags & FIN != 0;
        stream.2 |= header.flags & RST != 0;
    }
    streams.retain(|_, stream| *stream != (Vec::new(), false, false));
    assert_eq!(rest, b"");
    streams
}

fn captured(vector: &Value) -> Vec<u8> {
    items(vector, "turns")
        .iter()
        .filter(|turn| text(turn, "dir") == "s2c")
        .flat_map(|t| unhex(text(t, "hex")))
        .collect()
}

fn vectors() -> Vec<(String, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &Path| -> (String, Value) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_slice(&fs::read(path).unwrap()).unwrap())
    };
    paths.iter().map(|path| read(path)).collect()
}

// R1.17, R1.30, R1.34, R1.38, R1.39, R1.42, R1.43, R1.45, R1.47, R1.48, R1.50 as the peer does them.
#[test]
fn captured_connections_are_served_as_they_were_however_they_are_cut() {
    let mut played = Vec::new();
    for (name, vector) in vectors() {
        let first = text(&vector, "first_byte");
        if !["01", "03", "05", "06"].contains(&first) || DIFFERENT.iter().any(|(other, _)| *other == name) {
            continue;
        }
        let Some(script) = Script::read(&vector).filter(|_| vector["turns"].is_array()) else { continue };
        let whole = play(&vector, &script, |_, turn| vec![turn.to_vec()]);
        assert!(whole.closed, "{name} ends");
        assert_eq!(whole.closed_before_eof, script.server_closes, "{name}: {:?}", whole.causes);
        if matches!(first, "01" | "05") {
            assert_eq!(whole.sent, captured(&vector), "{name}");
        } else {
            let mut sent = by_stream(&whole.sent);
            // Ours is sent before the close, the peer's loses the race with it (R1j R1.42).
            if sent.remove(&0).is_some_and(|away| away.0 == [GoAway::ProtocolError as u8]) {
                assert_eq!(whole.causes, [Cause::MultiplexV2Accept], "{name}");
            }
            assert_eq!(sent, by_stream(&captured(&vector)), "{name}");
        }
        let same = |mut cut: Outcome, how: &str| {
            // How frames of several streams follow each other depends on the cuts.
            if !matches!(first, "01" | "05") {
                assert_eq!(by_stream(&cut.sent), by_stream(&whole.sent), "{name} {how}");
                cut.sent.clone_from(&whole.sent);
            }
            assert_eq!(cut, whole, "{name} {how}");
        };
        let drip = play(&vector, &script, |_, turn| turn.iter().map(|byte| vec![*byte]).collect());
        same(drip, "byte by byte");
        let len = items(&vector, "turns").iter().filter(|t| text(t, "dir") == "c2s").map(|t| text(t, "hex").len() / 2);
        for at in 1..len.sum::<usize>().min(1200) {
            let cut = play(&vector, &script, |offset, turn| {
                let (a, b) = turn.split_at(at.saturating_sub(offset).min(turn.len()));
                [a, b].iter().filter(|piece| !piece.is_empty()).map(|piece| piece.to_vec()).collect()
            });
            same(cut, &format!("cut at {at}"));
        }
        played.push(name);
    }
    assert!(played.len() >= 60, "{played:?}");
    for name in ["status_ping", "fin_during_query", "rst_during_query", "codec_garbage_header", "v2_bad_stream_byte"] {
        assert!(played.iter().any(|other| other == name), "{name} was played");
    }
}
