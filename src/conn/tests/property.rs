//! Whatever a peer sends, however it is cut, and whatever the owner does: nothing panics, no event is of a stream
//! that is gone, and no more is held than the limits permit.

use super::*;
use crate::conn::Answer;
use crate::conn::Protocol;
use crate::conn::single::STREAM;
use crate::conn::streaming::MAX_HEADER_BYTES;
use crate::wire::http::HttpReply;
use crate::wire::raft;
use crate::wire::raft::HELLO_BYTES_MAX;
use crate::wire::raft::RaftFrame;
use crate::wire::yamux::ACK;
use crate::wire::yamux::RST;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

/// What the owner knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    InCall,
    Acking,
    Acked,
    Open,
    PeerFinished,
    Calling,
    Opening,
}

/// An owner that does what it is told by dice, and holds the connection to what events promise.
struct Owner {
    conn: Conn,
    now: Instant,
    known: BTreeMap<StreamId, Known>,
    /// Streams of which nothing more may be told.
    dead: BTreeSet<StreamId>,
    http_in_hand: bool,
    dialled: bool,
    closed: bool,
    dice: u32,
    calls: usize,
}

const SMALL: usize = 20_000;

impl Owner {
    fn roll(&mut self) -> u32 {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.dice >> 16
    }

    fn settle(&mut self) {
        while let Some(event) = self.conn.poll_event() {
            assert!(!self.closed, "{event:?} after the end");
            self.event(event);
        }
        let waits = self.conn.to_send().len();
        let sent = if self.roll().is_multiple_of(4) { waits / 2 } else { waits };
        self.conn.sent(self.now, sent);
        while let Some(event) = self.conn.poll_event() {
            self.event(event);
        }
        if let Some(at) = self.conn.poll_timeout() {
            assert!(at + Duration::from_secs(1) > self.now);
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now;
        if let Some(stream) = event.stream() {
            assert!(!self.dead.contains(&stream), "{event:?} of a stream that is gone");
        }
        let state = |known: &BTreeMap<StreamId, Known>, stream| known.get(stream).copied();
        match event {
            Event::Raft(_) => {
                self.conn.send_raft(now, &RaftFrame::Refused { reason: "no".into() });
            }
            Event::Ready => assert!(self.dialled),
            Event::Lost { stream, .. } => {
                assert_eq!(self.known.remove(&stream), Some(Known::Calling));
                self.dead.insert(stream);
            }
            Event::Protocol(_) | Event::Proxied(_) => self.conn.admit(now),
            Event::Secured(_) | Event::Report(_) => {}
            Event::Call(call) => {
                assert_eq!(self.known.insert(call.stream, Known::InCall), None);
                self.calls += 1;
                let dice = self.roll();
                let answer = match dice % 8 {
                    0 => return,
                    1 => Answer::LastError("no"),
                    2 => Answer::Error("no"),
                    3 => Answer::Body(&[0x91; 5000]),
                    _ => Answer::Body(&[0xc0]),
                };
                self.known.remove(&call.stream);
                self.conn.reply(now, call.stream, call.seq, &call.method, answer);
            }
            Event::Streaming { stream, .. } => {
                assert_eq!(self.known.insert(stream, Known::Acking), None);
                if self.roll().is_multiple_of(4) {
                    self.known.remove(&stream);
                    self.conn.streaming_ack(now, stream, "no");
                } else {
                    self.known.insert(stream, Known::Acked);
                    self.conn.streaming_ack(now, stream, "");
                }
            }
            Event::Argument { stream, .. } => {
                assert_eq!(self.known.insert(stream, Known::Open), Some(Known::Acked));
                self.conn.send_bytes(now, stream, &[7; 9000]);
                if self.roll().is_multiple_of(4) {
                    self.conn.reset(now, stream);
                    self.known.remove(&stream);
                    self.dead.insert(stream);
                }
            }
            Event::Bytes { stream, bytes } => {
                assert_eq!(state(&self.known, &stream), Some(Known::Open));
                self.conn.consumed(now, stream, bytes.len());
            }
            Event::Finished(stream) => {
                let is_http = self.conn.protocol() == Protocol::Http;
                assert_eq!(self.known.insert(stream, Known::PeerFinished), Some(Known::Open));
                self.conn.finish(now, stream);
                self.known.remove(&stream);
                if is_http {
                    self.answer_http();
                }
            }
            Event::Gone(stream) => {
                assert_ne!(self.known.remove(&stream), Some(Known::Calling));
                self.http_in_hand = false;
                self.dead.insert(stream);
            }
            Event::Writable(stream) => {
                assert!(self.known.contains_key(&stream), "{stream} writable");
            }
            Event::Answer { stream, .. } => {
                assert_eq!(self.known.remove(&stream), Some(Known::Calling));
                if !self.dialled {
                    self.dead.insert(stream);
                }
            }
            Event::Acked { stream, error } => {
                assert_eq!(self.known.remove(&stream), Some(Known::Opening));
                if error.is_empty() {
                    self.known.insert(stream, Known::Open);
                } else {
                    self.dead.insert(stream);
                }
            }
            Event::Http(request) => {
                assert!(!std::mem::replace(&mut self.http_in_hand, true));
                if request.upload {
                    self.conn.http_continue(now);
                    self.known.insert(STREAM, Known::Open);
                }
                self.answer_http();
            }
            Event::Closed => {
                self.closed = true;
                // Each call has had one answer, or was lost once.
                assert!(!self.known.values().any(|known| *known == Known::Calling));
                assert_eq!(self.conn.unusable(), Some("closed"));
                assert!(!self.conn.wants_read());
                assert_eq!(self.conn.poll_timeout(), None);
            }
        }
    }

    /// Answers the request in hand, or not: whole, or in pieces.
    fn answer_http(&mut self) {
        let now = self.now;
        match self.roll() % 4 {
            0 => return,
            1 => {
                self.conn.http_begin(now, 200, &[]);
                self.conn.send_bytes(now, STREAM, &[7; 9000]);
                self.conn.finish(now, STREAM);
            }
            _ => self.conn.http_reply(now, HttpReply { status: 200, body: vec![1; 50], ..HttpReply::default() }),
        }
        self.http_in_hand = false;
        self.known.remove(&STREAM);
    }

    /// What the owner does of its own accord.
    fn act(&mut self) {
        let now = self.now;
        match self.roll() % if self.dialled { 6 } else { 24 } {
            0 => {
                if let Ok(stream) = self.conn.call(now, "A.B", &[0x80; 3]) {
                    assert!(!self.dead.contains(&stream));
                    assert_eq!(self.known.insert(stream, Known::Calling), None);
                }
            }
            1 => {
                if let Ok(stream) = self.conn.open_streaming(now, "A.B") {
                    self.known.insert(stream, Known::Opening);
                }
            }
            2 => self.now += Duration::from_secs(3),
            3 => {
                let dice = self.roll();
                let Some((&stream, &known)) = self.known.first_key_value() else { return };
                if known == Known::InCall && dice.is_multiple_of(2) {
                    self.known.remove(&stream);
                    self.conn.reply(now, stream, 1, "A.B", Answer::Body(&[0xc0]));
                } else if stream != STREAM {
                    self.known.remove(&stream);
                    self.conn.reset(now, stream);
                    self.dead.insert(stream);
                }
            }
            4 if self.roll().is_multiple_of(8) => self.conn.drain(now),
            _ => {}
        }
        if self.conn.poll_timeout().is_some_and(|at| at <= self.now) {
            self.conn.handle_timeout(self.now);
        }
        self.settle();
    }
}

fn small_limits() -> Limits {
    Limits {
        max_message_bytes: SMALL,
        max_partial_bytes: SMALL,
        max_unsent_bytes: SMALL,
        idle_streams: 2,
        max_raft_unsent_bytes: 8 * 1024 * 1024,
        mux: session::Limits { max_streams: 20, accept_backlog: 10, ..session::Limits::default() },
        ..limits()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Rpc,
    Http,
    Proxied,
    Dialled,
    DialledLink,
}

/// TCP over IPv4, from 192.0.2.7:8080.
pub(super) const PROXY_HEADER: [u8; 28] =
    *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x0a\0\0\x01\x1f\x90\x12\x27";

fn run(how: How, pieces: &[Vec<u8>], dice: u32, end: bool) -> usize {
    let security = Security::default();
    let limits = Arc::new(small_limits());
    let (is_http, dialled) = (
        how == How::Http || (how == How::Proxied && dice.is_multiple_of(2)),
        matches!(how, How::Dialled | How::DialledLink),
    );
    let conn = match how {
        How::Rpc => Conn::accept_rpc(Instant::ZERO, limits, &security),
        How::Http => Conn::accept_http(Instant::ZERO, limits, &security),
        How::Proxied => Conn::accept_proxied(Instant::ZERO, limits, &security, dice.is_multiple_of(2)),
        How::Dialled => Conn::dial_mux(Instant::ZERO, limits, None),
        How::DialledLink => Conn::dial_raft(Instant::ZERO, limits, None),
    };
    let (known, dead) = Default::default();
    let (now, http_in_hand, closed, calls) = (Instant::ZERO, false, false, 0);
    let mut owner = Owner { dead, conn, now, known, http_in_hand, dialled, closed, dice, calls };
    owner.settle();
    for piece in pieces {
        let wanted = owner.conn.wants_read();
        owner.conn.handle_bytes(owner.now, piece);
        owner.settle();
        owner.act();
        let replies = owner.conn.limits.mux.max_streams * 6000;
        assert!(owner.conn.outbox.len() <= SMALL + 300_000 + replies + MAX_HEADER_BYTES);
        // HTTP relies on not being read; what is read at once may go over.
        let most = if is_http { SMALL + piece.len() } else { SMALL.max(HELLO_BYTES_MAX) };
        assert!((is_http && !wanted) || owner.conn.held_bytes() <= most, "{} held", owner.conn.held_bytes());
        if !owner.conn.wants_read() && !owner.closed {
            // It is read again once it is served and sent.
            owner.conn.sent(owner.now, usize::MAX);
            owner.settle();
        }
    }
    if end {
        owner.conn.handle_eof(owner.now);
    } else {
        owner.conn.handle_failure(owner.now, "reset");
    }
    owner.settle();
    let waits = owner.known.values().any(|known| matches!(known, Known::InCall | Known::Acked));
    assert!(owner.closed || (end && (waits || owner.http_in_hand || !owner.known.is_empty())));
    owner.calls
}

/// What a peer does, good and bad.
#[derive(Clone, Debug)]
enum Does {
    /// Opens the next stream.
    Opens(Vec<u8>),
    /// Sends on one of the streams that were opened, by either side.
    Sends(u32, u16, Vec<u8>),
    Grants(u32, u16, u32),
    /// Sends what is no frame, or only by chance.
    Says(Vec<u8>),
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => Just(vec![0x01]),
        1 => Just(vec![0x05]),
        4 => Just([&[0x01][..], &call(1, "A.B", &[0x80])].concat()),
        4 => Just(call(2, "A.B", &[0x80])),
        2 => Just([call(3, "A.B", &[0x80]), call(4, "A.B", &long_value(100))].concat()),
        1 => Just(call(5, "A.B", &long_value(15_000))),
        1 => Just([&[0x01][..], &call(5, "A.B", &long_value(15_000))[..9_000]].concat()),
        1 => Just(call(5, "A.B", &long_value(25_000))),
        4 => Just(b"\x05\x81\xa6Method\xa1a\x80".to_vec()),
        1 => Just(b"\x81\xa6Method\xa1a".to_vec()),
        2 => Just(b"\x81\xa5Error\xa0more".to_vec()),
        1 => Just(b"\x81\xa5Error\xa1x".to_vec()),
        2 => (1..5u64).prop_map(|seq| reply(seq, "A.B", "", &[0xc0])),
        1 => proptest::collection::vec(any::<u8>(), 0..40),
    ]
}

fn does() -> impl Strategy<Value = Does> {
    let flags = || prop_oneof![12 => Just(0u16), 3 => Just(FIN), 1 => Just(RST), 1 => 0..16u16];
    let http = prop_oneof![
        Just(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        Just(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_vec()),
        Just(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()),
        Just(b"PUT /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()),
        Just(b"PUT /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n".to_vec()),
        Just(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ];
    prop_oneof![
        8 => payload().prop_map(Does::Opens),
        12 => (any::<u32>(), flags(), payload()).prop_map(|(s, f, p)| Does::Sends(s, f, p)),
        4 => (any::<u32>(), flags(), 0..300_000u32).prop_map(|(s, f, n)| Does::Grants(s, f, n)),
        4 => prop_oneof![payload(), http].prop_map(Does::Says),
    ]
}

/// The bytes of all that a peer does; to a connection that is no session it only says.
fn bytes_of(first: Option<u8>, dialled: bool, does: &[Does]) -> Vec<u8> {
    let is_session = dialled || matches!(first, Some(0x03 | 0x06));
    let mut bytes: Vec<u8> = first.into_iter().collect();
    let mut opened = 0;
    let pick = |opened: u32, dice: u32| match dice % (opened + 3) {
        n if n < opened => 2 * n + 1,
        n => 2 * (n - opened + 1),
    };
    for act in does {
        match act {
            Does::Opens(payload) if is_session => {
                opened += 1;
                // The odd ones are ours when we dialled.
                let flags = if dialled { ACK } else { SYN };
                bytes.extend(data(flags, 2 * opened - 1, payload));
            }
            Does::Sends(dice, flags, payload) if is_session => bytes.extend(data(*flags, pick(opened, *dice), payload)),
            Does::Grants(dice, flags, count) if is_session => {
                bytes.extend(frame(WINDOW, *flags, pick(opened, *dice), *count));
            }
            Does::Grants(..) => {}
            // Within a session it would be the end of it.
            Does::Says(_) if is_session && !bytes.len().is_multiple_of(16) => {}
            Does::Says(payload) | Does::Opens(payload) | Does::Sends(_, _, payload) => bytes.extend(payload),
        }
    }
    bytes
}

/// Cuts bytes at the places given, in thousandths.
fn cut(bytes: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = places.iter().map(|place| place * bytes.len() / 1000).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    // R1.30, R1.41, R1.42, R6.9
    #[test]
    fn nothing_a_peer_sends_breaks_a_connection(
        first in prop_oneof![1 => Just(None), 1 => Just(Some(0x01u8)), 1 => Just(Some(0x05)), 4 => Just(Some(0x06)), 2 => Just(Some(0x03))],
        does in proptest::collection::vec(does(), 0..30),
        places in proptest::collection::vec(0..1000usize, 0..12),
        dice in any::<u32>(),
        end in any::<bool>(),
    ) {
        let how = if first.is_none() { How::Http } else { How::Rpc };
        run(how, &cut(&bytes_of(first, false, &does), &places), dice, end);
        // R8.12: the same from a balancer, whose header may be harmed; an odd number makes it the RPC port.
        let dice = if first.is_none() { dice & !1 } else { dice | 1 };
        let mut header = PROXY_HEADER.to_vec();
        if dice % 16 > 11 {
            header[dice as usize / 16 % PROXY_HEADER.len()] ^= 0x11;
        }
        run(How::Proxied, &cut(&[header, bytes_of(first, false, &does)].concat(), &places), dice, end);
    }

    // R3.5, R3.9, R3.10: each call that we make ends once.
    #[test]
    fn nothing_a_server_that_we_dialled_sends_breaks_a_connection(
        does in proptest::collection::vec(does(), 0..30),
        places in proptest::collection::vec(0..1000usize, 0..20),
        dice in any::<u32>(),
        end in any::<bool>(),
    ) {
        run(How::Dialled, &cut(&bytes_of(None, true, &does), &places), dice, end);
    }

    // Any first frame, then noise.
    #[test]
    fn nothing_on_a_link_breaks_it(
        noise in proptest::collection::vec(any::<u8>(), 0..60),
        places in proptest::collection::vec(0..1000usize, 0..6),
        dialled in any::<bool>(),
        dice in any::<u32>(),
    ) {
        let mut bytes = if dialled { Vec::new() } else { vec![0x02] };
        assert!(raft::encode(&RaftFrame::Hello(Box::default()), &mut bytes));
        bytes.extend(noise);
        run(if dialled { How::DialledLink } else { How::Rpc }, &cut(&bytes, &places), dice, true);
    }

    #[test]
    fn any_bytes_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..200), how in 0..5usize, dice in any::<u32>()) {
        let how = [How::Rpc, How::Http, How::Proxied, How::Dialled, How::DialledLink][how];
        run(how, &[bytes], dice, true);
    }
}
