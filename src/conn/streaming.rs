//! A streaming call, of either side: header, ack, argument, then bytes both ways as credit allows.
//!
//! Source: transport notes, section 6. Never looks into what flows after the argument.

use crate::base::time::Instant;
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Msg;
use crate::wire::msgpack::Scanner;
use crate::wire::streaming::StreamingAck;
use crate::wire::streaming::StreamingHeader;

use super::Event;
use super::message::Input;
use super::message::Malformed;
use super::message::TOO_MUCH;
use super::message::scan_value;
use super::report::Cause;
use super::stream::Context;
use super::stream::Fate;

/// Bytes of a header or of an ack.
pub(super) const MAX_HEADER_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Of the peer's call.
    Header,
    /// The owner has the header and owes the ack.
    Acking,
    Argument,
    /// Of our call: the peer owes the ack.
    Opening,
    Open,
}

/// One streaming call.
#[derive(Debug)]
pub(super) struct Streaming {
    stage: Stage,
    /// We opened it.
    ours: bool,
    peer_finished: bool,
    we_finished: bool,
    /// For the header, and then for the argument.
    pub(super) deadline: Option<Instant>,
    scanner: Scanner,
    input: Input,
    position: u64,
    /// Bytes of [`Event::Bytes`] that the owner has not used.
    pub(super) unused_bytes: usize,
}

impl Streaming {
    /// A call of the peer, whose header comes next.
    pub(super) fn accept(cx: &Context<'_>) -> Streaming {
        Streaming { deadline: deadline(cx), ..Streaming::new(Stage::Header, false) }
    }

    /// Sends the stream's first byte and a header.
    pub(super) fn start(cx: &mut Context<'_>, method: &str) -> Option<Streaming> {
        let mut message = vec![FirstByte::Streaming.byte()];
        message.extend(StreamingHeader { method: method.to_owned() }.to_bytes());
        (cx.send(&message) == message.len()).then(|| Streaming::new(Stage::Opening, true))
    }

    fn new(stage: Stage, ours: bool) -> Streaming {
        Streaming {
            stage,
            ours,
            peer_finished: false,
            we_finished: false,
            deadline: None,
            scanner: Scanner::default(),
            input: Input::default(),
            position: 0,
            unused_bytes: 0,
        }
    }

    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Fate {
        if bytes.is_empty() || self.peer_finished {
            return Fate::Open;
        }
        if self.stage == Stage::Open {
            self.pass_on(cx, bytes);
            return Fate::Open;
        }
        if self.input.hold(cx, bytes).is_err() {
            self.failed(cx, TOO_MUCH);
            return Fate::Reset;
        }
        self.advance(cx)
    }

    pub(super) fn finished(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.stage == Stage::Open && !self.peer_finished {
            cx.event(Event::Finished(cx.stream));
        }
        self.peer_finished = true;
        self.advance(cx)
    }

    /// Acknowledges the call. With an error the stream ends after it.
    pub(super) fn ack(&mut self, cx: &mut Context<'_>, error: &str) -> Fate {
        if self.stage != Stage::Acking {
            return Fate::Open;
        }
        let ack = StreamingAck { error: error.to_owned() }.to_bytes();
        if cx.send(&ack) < ack.len() {
            self.failed(cx, "the acknowledgement does not fit the window");
            return Fate::Reset;
        }
        if !error.is_empty() {
            return Fate::Finish;
        }
        self.stage = Stage::Argument;
        self.deadline = deadline(cx);
        self.advance(cx)
    }

    /// The owner has used bytes: says how many of them were really passed on.
    pub(super) fn consumed(&mut self, cx: &mut Context<'_>, count: usize) {
        let count = count.min(self.unused_bytes);
        self.unused_bytes -= count;
        cx.consume(count);
    }

    /// True when bytes may be sent.
    pub(super) fn can_send(&self) -> bool {
        !self.we_finished && matches!(self.stage, Stage::Argument | Stage::Open)
    }

    /// We send no more. False when that was said before.
    pub(super) fn finish(&mut self) -> bool {
        !std::mem::replace(&mut self.we_finished, true)
    }

    pub(super) fn lost(&mut self, cx: &mut Context<'_>, error: Option<&str>) {
        // Once the handler has the stream, its end is the handler's affair and no failure of the request.
        if let Some(error) = error.filter(|_| matches!(self.stage, Stage::Header | Stage::Acking)) {
            cx.report(Cause::StreamingRpc, error);
        }
        self.tell_gone(cx);
    }

    /// The peer did not send what it should have, or not in time.
    pub(super) fn failed(&mut self, cx: &mut Context<'_>, error: &str) {
        if !self.ours {
            cx.report(Cause::StreamingRpc, error);
        }
        self.tell_gone(cx);
    }

    /// The call is running: the peer's until we have finished, ours until both have.
    pub(super) fn is_busy(&self) -> bool {
        if self.ours {
            !(self.we_finished && self.peer_finished)
        } else {
            self.stage != Stage::Header && !self.we_finished
        }
    }

    /// What comes is needed at once: nobody else has the stream in hand.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.stage, Stage::Header | Stage::Argument)
    }

    /// Bytes held of header and argument.
    pub(super) fn held(&self) -> usize {
        self.input.len()
    }

    /// Goes as far as the bytes that wait permit.
    fn advance(&mut self, cx: &mut Context<'_>) -> Fate {
        loop {
            let max_bytes = match self.stage {
                Stage::Header | Stage::Opening => MAX_HEADER_BYTES,
                Stage::Argument => cx.limits.max_message_bytes,
                Stage::Acking | Stage::Open => return Fate::Open,
            };
            let len = match scan_value(&mut self.scanner, self.input.bytes(), max_bytes, self.position) {
                Ok(Some(len)) => len,
                Ok(None) if self.peer_finished => return self.cut_short(cx),
                Ok(None) => {
                    self.input.consume_all(cx);
                    return Fate::Open;
                }
                Err(wrong) => return self.refuse(cx, &wrong),
            };
            let fate = self.value(cx, len);
            if fate != Fate::Open {
                return fate;
            }
        }
    }

    /// The value of this stage is there: the first `len` bytes.
    fn value(&mut self, cx: &mut Context<'_>, len: usize) -> Fate {
        let stream = cx.stream;
        let value = self.input.bytes().get(..len).unwrap_or_default();
        let wrong = match self.stage {
            Stage::Header => match StreamingHeader::from_bytes(value) {
                Ok(header) => {
                    cx.event(Event::Streaming { stream, method: header.method });
                    self.stage = Stage::Acking;
                    None
                }
                Err(error) => Some(error),
            },
            Stage::Opening => match StreamingAck::from_bytes(value) {
                Ok(StreamingAck { error }) => {
                    let refused = !error.is_empty();
                    cx.event(Event::Acked { stream, error });
                    if refused {
                        return Fate::Finish;
                    }
                    self.stage = Stage::Open;
                    None
                }
                Err(error) => Some(error),
            },
            Stage::Argument => {
                cx.event(Event::Argument { stream, body: value.into(), base: self.position });
                self.stage = Stage::Open;
                None
            }
            Stage::Acking | Stage::Open => None,
        };
        if let Some(error) = wrong {
            return self.refuse(cx, &Malformed::Value(error));
        }
        self.scanner = Scanner::default();
        self.deadline = None;
        self.position = self.position.saturating_add(len as u64);
        self.input.take(cx, len);
        if self.stage == Stage::Open {
            self.open(cx);
        }
        Fate::Open
    }

    /// What came together with the argument, or with the ack, belongs to the handler (R1.52).
    fn open(&mut self, cx: &mut Context<'_>) {
        let rest = std::mem::take(&mut self.input);
        cx.tally.partial_bytes = cx.tally.partial_bytes.saturating_sub(rest.len());
        if !rest.is_empty() {
            self.pass_on(cx, rest.bytes());
        }
        if self.peer_finished {
            cx.event(Event::Finished(cx.stream));
        }
    }

    fn pass_on(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        self.unused_bytes += bytes.len();
        cx.event(Event::Bytes { stream: cx.stream, bytes: bytes.to_vec() });
    }

    /// The peer finished within a value: silent (R1.49), but its owner is told if it has one.
    fn cut_short(&mut self, cx: &mut Context<'_>) -> Fate {
        self.tell_gone(cx);
        Fate::Finish
    }

    fn refuse(&mut self, cx: &mut Context<'_>, wrong: &Malformed) -> Fate {
        self.failed(cx, &wrong.text());
        if *wrong == Malformed::TooLarge { Fate::Reset } else { Fate::Finish }
    }

    /// Tells the owner, if it knows of the call.
    fn tell_gone(&mut self, cx: &mut Context<'_>) {
        if self.stage != Stage::Header {
            cx.event(Event::Gone(cx.stream));
        }
    }
}

fn deadline(cx: &Context<'_>) -> Option<Instant> {
    (!cx.limits.handshake_timeout.is_zero()).then(|| cx.now + cx.limits.handshake_timeout)
}
