//! Two sessions on a lossless pipe that delivers when told, and a model of what each must have seen.

use super::*;
use std::collections::BTreeMap;

pub(super) const WINDOW: u32 = 64;

/// One thing that happens to an end (0 is the client).
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Open,
    Accept(usize),
    Send(usize, usize),
    Consume(usize, usize),
    Finish(usize),
    Reset(usize),
    /// So many bytes of what the other end wrote arrive.
    Deliver(usize),
}

/// What one end knows of a stream, and what it did to it.
#[derive(Clone, Debug, Default)]
struct Half {
    sent: usize,
    received: usize,
    consumed: usize,
    cut_short: bool,
    /// It has seen the stream: opened it, or was told.
    knows: bool,
    finished: bool,
    peer_finished: bool,
    reset: bool,
    told_reset: bool,
    closed: bool,
}

impl Half {
    fn gone(&self) -> bool {
        self.reset || self.told_reset || self.closed
    }
}

pub(super) struct Pair {
    ends: [MuxSession; 2],
    /// What each end wrote and the other has not got.
    pipes: [Vec<u8>; 2],
    streams: BTreeMap<u32, [Half; 2]>,
}

/// The byte at an offset of what an end sends on a stream: wrong order, loss and doubling all show.
fn byte_at(end: usize, stream: u32, offset: usize) -> u8 {
    u8::try_from((offset * 7 + stream as usize * 31 + end * 101) % 251).unwrap()
}

impl Pair {
    pub(super) fn new() -> Pair {
        let limits = Limits { window_bytes: WINDOW, accept_backlog: 3, max_streams: 6, ..Limits::default() };
        Pair {
            ends: [Side::Client, Side::Server].map(|side| MuxSession::new(side, limits.clone(), at(0))),
            pipes: [Vec::new(), Vec::new()],
            streams: BTreeMap::new(),
        }
    }

    /// The ids that an end knows, and has not seen go.
    fn known(&self, end: usize) -> Vec<u32> {
        let alive = |halves: &[Half; 2]| halves[end].knows && !halves[end].gone();
        self.streams.iter().filter(|(_, halves)| alive(halves)).map(|(stream, _)| *stream).collect()
    }

    pub(super) fn act(&mut self, end: usize, act: Act) {
        let pick = match act {
            Act::Open => {
                if let Ok(stream) = self.ends[end].open(at(0)) {
                    let halves: [Half; 2] = Default::default();
                    assert!(self.streams.insert(stream.0, halves).is_none(), "id {stream} twice");
                    self.half(end, stream.0).knows = true;
                }
                return self.flush(end);
            }
            Act::Deliver(bytes) => return self.deliver(end, bytes),
            Act::Accept(pick) | Act::Finish(pick) | Act::Reset(pick) => pick,
            Act::Send(pick, _) | Act::Consume(pick, _) => pick,
        };
        let known = self.known(end);
        if known.is_empty() {
            return;
        }
        let stream = known[pick % known.len()];
        match act {
            Act::Accept(_) => self.ends[end].accept(id(stream)),
            Act::Finish(_) => {
                self.ends[end].finish(at(0), id(stream));
                self.half(end, stream).finished = true;
            }
            Act::Reset(_) => {
                self.ends[end].reset(id(stream));
                self.half(end, stream).reset = true;
            }
            Act::Send(_, length) => self.send(end, stream, length),
            Act::Consume(_, bytes) => {
                self.ends[end].consume(id(stream), bytes);
                let half = self.half(end, stream);
                half.consumed = half.received.min(half.consumed.saturating_add(bytes));
            }
            Act::Open | Act::Deliver(_) => {}
        }
        self.events(end, &[]);
        self.flush(end);
    }

    fn send(&mut self, end: usize, stream: u32, length: usize) {
        let half = self.half(end, stream).clone();
        let bytes: Vec<u8> = (0..length).map(|n| byte_at(end, stream, half.sent + n)).collect();
        let credit = self.ends[end].credit(id(stream));
        let sent = self.ends[end].send(id(stream), &bytes);
        assert_eq!(sent.is_err(), half.finished, "stream {stream}");
        let sent = sent.unwrap_or(0);
        assert_eq!(sent, credit.min(length));
        let half = self.half(end, stream);
        half.sent += sent;
        half.cut_short |= sent < length && !half.finished;
        // R1.41: never more under way or unread than the window.
        let (sent, consumed) = (half.sent, self.half(1 - end, stream).consumed);
        assert!(sent <= consumed + WINDOW as usize, "stream {stream}: {sent} sent, {consumed} read");
    }

    fn half(&mut self, end: usize, stream: u32) -> &mut Half {
        &mut self.streams.get_mut(&stream).expect("a stream that somebody opened")[end]
    }

    fn deliver(&mut self, end: usize, bytes: usize) {
        let pipe = &mut self.pipes[1 - end];
        let bytes: Vec<u8> = pipe.drain(..bytes.min(pipe.len())).collect();
        self.ends[end].handle_bytes(at(0), &bytes);
        self.events(end, &bytes);
        self.flush(end);
    }

    fn flush(&mut self, end: usize) {
        self.ends[end].take_output(&mut self.pipes[end]);
    }

    /// Takes the events of an end and holds them to what the other did.
    fn events(&mut self, end: usize, bytes: &[u8]) {
        while let Some(event) = self.ends[end].poll_event() {
            let stream = event.stream().unwrap_or_else(|| panic!("{event:?}")).0;
            let other = self.half(1 - end, stream).clone();
            let half = self.half(end, stream);
            assert!(!half.gone(), "{event:?} for a stream that is gone");
            match event {
                Event::Opened(_) => assert!(!std::mem::replace(&mut half.knows, true) && other.knows),
                Event::Data(_, range) => {
                    assert!(half.knows && !half.peer_finished && !range.is_empty());
                    for byte in &bytes[range] {
                        assert_eq!(*byte, byte_at(1 - end, stream, half.received), "at {}", half.received);
                        half.received += 1;
                    }
                    assert!(half.received <= other.sent && half.received <= half.consumed + WINDOW as usize);
                }
                Event::Finished(_) => {
                    assert!(half.knows && other.finished && half.received == other.sent);
                    assert!(!std::mem::replace(&mut half.peer_finished, true));
                }
                Event::Closed(_) => {
                    assert!(half.finished && half.peer_finished);
                    half.closed = true;
                }
                Event::Reset(_) | Event::Refused(_) => {
                    assert!(half.knows && (other.reset || !other.knows), "nobody reset {stream}");
                    half.told_reset = true;
                }
                Event::Writable(_) => assert!(std::mem::take(&mut half.cut_short) && !half.finished),
                Event::GoAway | Event::Ended(_) => panic!("{event:?}"),
            }
        }
    }

    /// Lets everything arrive and be read, ends all streams, and compares what both ends saw.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "it does not come to rest");
            let mut idle = true;
            for end in [0, 1] {
                idle &= self.pipes[1 - end].is_empty();
                self.act(end, Act::Deliver(usize::MAX));
                for pick in 0..self.known(end).len() {
                    self.act(end, Act::Accept(pick));
                    self.act(end, Act::Consume(pick, usize::MAX));
                }
                for stream in self.known(end) {
                    if !self.half(end, stream).finished {
                        // Reading gives credit, so that two windows and more get through in these rounds.
                        let sent = self.half(end, stream).sent;
                        assert!(round < 8 || sent >= 2 * WINDOW as usize, "stream {stream} is starved: {sent}");
                        self.send(end, stream, 100);
                        self.flush(end);
                    }
                }
            }
            if round > 8 {
                for end in [0, 1] {
                    for pick in (0..self.known(end).len()).rev() {
                        self.act(end, Act::Finish(pick));
                    }
                }
            }
            if idle && round > 12 {
                break;
            }
        }
        for (stream, [client, server]) in &self.streams {
            let touched = client.reset || server.reset || client.told_reset || server.told_reset;
            let over = [client, server].iter().all(|half| half.gone() || !half.knows);
            assert!(over, "stream {stream}: {client:?} {server:?}");
            if !touched {
                assert!(client.closed && server.closed, "stream {stream}: {client:?} {server:?}");
                assert_eq!((client.received, server.received), (server.sent, client.sent), "stream {stream}");
            }
        }
        assert_eq!((self.ends[0].streams(), self.ends[1].streams()), (0, 0));
    }
}
