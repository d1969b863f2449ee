//! Calls that we make on a stream, one at a time: on a session that we dialled the stream is kept for the next one, on
//! a peer's it is closed after the answer.
//!
//! Each call ends with one event, [`Event::Answer`] or [`Event::Lost`], unless its owner resets the stream first.
//! Source: transport notes, sections 3.8, 4 and 7: a stream is kept after a success only.

use crate::wire::class::Class;
use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Encoder;
use crate::wire::rpc;
use crate::wire::rpc::ReplyHead;

use super::message::Input;
use super::message::MessageScan;
use super::message::Output;
use super::report::Cause;
use super::stream::Context;
use super::stream::Fate;
use super::{Event, Refusal};

/// What is said of a stream on which more came than its answer.
pub(super) const STRAY: &str = "data on a stream without a call";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The call waits until its stream can be opened.
    Waiting,
    /// The answer is owed.
    Calling,
    /// The stream is kept for another call.
    Kept,
}

/// The calling side of a stream.
#[derive(Debug)]
pub(super) struct RpcClient {
    stage: Stage,
    /// The stream may be kept after the answer.
    keeps: bool,
    seq: u64,
    /// Where in all that goes to the socket the first byte of the call is, or before it; `None` while it has no place.
    place: Option<u64>,
    input: Input,
    scan: MessageScan<ReplyHead>,
    output: Option<Output>,
}

/// A call, as it goes out.
pub(super) struct Request<'a> {
    pub(super) seq: u64,
    pub(super) method: &'a str,
    pub(super) body: &'a [u8],
}

impl Request<'_> {
    fn bytes(&self, first: bool) -> Vec<u8> {
        let Request { seq, method, body } = self;
        let mut message = Encoder { out: Vec::with_capacity(48 + method.len() + body.len()) };
        if first {
            message.out.push(FirstByte::Rpc.byte());
        }
        rpc::encode_request_head(&mut message, *seq, method);
        message.raw(body);
        message.out
    }
}

impl RpcClient {
    /// Sends the stream's first byte and a call.
    pub(super) fn start(cx: &mut Context<'_>, request: &Request<'_>, keeps: bool) -> RpcClient {
        let mut client = RpcClient::new(Stage::Calling, request.seq, keeps);
        client.send(cx, request.bytes(true));
        client
    }

    /// Keeps a call whose stream cannot be opened so far.
    pub(super) fn wait(cx: &mut Context<'_>, request: &Request<'_>) -> RpcClient {
        let mut client = RpcClient::new(Stage::Waiting, request.seq, true);
        client.output = Some(Output::hold(cx, request.bytes(true)));
        client
    }

    fn new(stage: Stage, seq: u64, keeps: bool) -> RpcClient {
        let (input, scan) = Default::default();
        RpcClient { stage, keeps, seq, place: None, input, scan, output: None }
    }

    /// The stream is open now.
    pub(super) fn opened(&mut self, cx: &mut Context<'_>) -> Fate {
        self.stage = Stage::Calling;
        self.writable(cx)
    }

    /// Sends another call on a stream that was kept.
    pub(super) fn next(&mut self, cx: &mut Context<'_>, request: &Request<'_>) -> Fate {
        cx.tally.kept = cx.tally.kept.saturating_sub(1);
        *self = RpcClient::new(Stage::Calling, request.seq, self.keeps);
        self.send(cx, request.bytes(false));
        Fate::Open
    }

    fn send(&mut self, cx: &mut Context<'_>, message: Vec<u8>) {
        let place = cx.position();
        self.output = Output::send(cx, message);
        if !self.output.as_ref().is_some_and(Output::is_whole) {
            self.place = Some(place);
        }
    }

    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Fate {
        if bytes.is_empty() {
            return Fate::Open;
        }
        match self.stage {
            Stage::Calling => {}
            Stage::Kept => return stray(cx),
            Stage::Waiting => return Fate::Open,
        }
        if self.input.is_empty() {
            // An answer that came whole is never buffered.
            match self.scan.scan(bytes, cx.limits.max_message_bytes, 0) {
                Ok(Some(end)) => {
                    cx.consume(bytes.len());
                    let head = self.scan.take();
                    return self.answered(cx, head, bytes, end);
                }
                Ok(None) => {}
                Err(_) => return self.broken(cx),
            }
        }
        if self.input.hold(cx, bytes).is_err() {
            return self.broken(cx);
        }
        self.input.consume_all(cx);
        match self.scan.scan(self.input.bytes(), cx.limits.max_message_bytes, 0) {
            Ok(Some(end)) => {
                let mut input = std::mem::take(&mut self.input);
                let head = self.scan.take();
                let fate = self.answered(cx, head, input.bytes(), end);
                let held = input.len();
                input.take(cx, held);
                fate
            }
            Ok(None) => Fate::Open,
            Err(_) => self.broken(cx),
        }
    }

    /// A whole answer is there, the first `end` of `bytes`.
    fn answered(&mut self, cx: &mut Context<'_>, head: Option<(ReplyHead, usize)>, bytes: &[u8], end: usize) -> Fate {
        let Some((head, head_len)) = head.filter(|(head, _)| head.seq == self.seq) else { return self.broken(cx) };
        let failed = !head.error.is_empty();
        let result = if failed {
            Err(Refusal { class: Class::of(&head.class, &head.error), text: head.error })
        } else {
            Ok(bytes.get(head_len..end).unwrap_or_default().into())
        };
        cx.event(Event::Answer { stream: cx.stream, result });
        self.keeps &= !failed;
        if self.keeps && bytes.len() > end {
            // The call is over, but the stream is of no further use.
            cx.report(Cause::Stray, STRAY);
            cx.tally.stray = true;
            return Fate::Reset;
        }
        // A call that was answered before it was read whole is not sent to its end.
        if self.output.is_some() {
            return Fate::Reset;
        }
        if !self.keeps || cx.tally.kept >= cx.limits.idle_streams {
            return Fate::Finish;
        }
        cx.tally.kept += 1;
        self.stage = Stage::Kept;
        Fate::Open
    }

    pub(super) fn finished(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.stage == Stage::Kept {
            return Fate::Finish;
        }
        self.lost(cx);
        Fate::Reset
    }

    pub(super) fn writable(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.stage != Stage::Calling {
            return Fate::Open;
        }
        let place = cx.position();
        let Some(output) = &mut self.output else { return Fate::Open };
        let done = output.send_more(cx);
        if self.place.is_none() && (done || !output.is_whole()) {
            self.place = Some(place);
        }
        if done {
            self.output = None;
        }
        Fate::Open
    }

    /// The stream is gone. What of the call is on its way, in whatever buffer, may reach the peer.
    pub(super) fn lost(&mut self, cx: &mut Context<'_>) {
        self.tell_lost(cx, self.place.is_some());
    }

    /// The peer did not take the stream: it has read nothing of the call.
    pub(super) fn refused(&mut self, cx: &mut Context<'_>) -> Fate {
        self.tell_lost(cx, false);
        Fate::Open
    }

    /// The connection is over, `sent` bytes of all were taken by the socket, and the rest is dropped.
    pub(super) fn cut(&mut self, cx: &mut Context<'_>, sent: u64) {
        self.tell_lost(cx, self.place.is_some_and(|place| place < sent));
    }

    /// The stream is kept for another call, and none is under way.
    pub(super) fn is_kept(&self) -> bool {
        self.stage == Stage::Kept
    }

    /// The call waits for its stream.
    pub(super) fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// A call is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.stage != Stage::Kept
    }

    /// Bytes held of the answer, and of the call.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.input.len(), self.output.as_ref().map_or(0, Output::len))
    }

    /// What came is no answer to this call.
    fn broken(&mut self, cx: &mut Context<'_>) -> Fate {
        self.tell_lost(cx, true);
        Fate::Reset
    }

    fn tell_lost(&mut self, cx: &mut Context<'_>, written: bool) {
        if self.is_busy() {
            cx.event(Event::Lost { stream: cx.stream, written });
        }
    }
}

fn stray(cx: &mut Context<'_>) -> Fate {
    cx.report(Cause::Stray, STRAY);
    cx.tally.stray = true;
    Fate::Reset
}
