//! Calls in, replies out, one at a time and in order on each stream.
//!
//! Source: transport notes, sections 4.1 to 4.3. A stream that waits for its next call, or for the reply to the one
//! in hand, holds no buffer.

use crate::wire::msgpack::Encoder;
use crate::wire::rpc;
use crate::wire::rpc::RequestHead;

use super::Answer;
use super::Event;
use super::RpcCall;
use super::message::Input;
use super::message::Malformed;
use super::message::MessageScan;
use super::message::Output;
use super::message::TOO_MUCH;
use super::report::Cause;
use super::stream::Context;
use super::stream::Fate;

/// The error of a call whose reply found no room.
const UNREAD: &str = "too many replies wait to be read on the connection";

/// The serving side of a stream of calls.
#[derive(Debug, Default)]
pub(super) struct RpcServer {
    /// Bytes of the stream that were used, counted from its codec's start.
    position: u64,
    in_hand: bool,
    peer_finished: bool,
    /// The stream ends once the reply is out.
    last: bool,
    more: Option<Box<More>>,
}

/// What most streams do not have at most times.
#[derive(Debug, Default)]
struct More {
    input: Input,
    scan: MessageScan<RequestHead>,
    output: Option<Output>,
}

impl RpcServer {
    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Fate {
        if bytes.is_empty() || self.last || self.peer_finished {
            return Fate::Open;
        }
        if self.more.is_some() || self.in_hand || !cx.takes_calls {
            return if self.hold(cx, bytes) { self.advance(cx) } else { self.overflow(cx) };
        }
        // A message that came whole is never buffered.
        let mut scan = MessageScan::default();
        match scan.scan(bytes, cx.limits.max_message_bytes, self.position) {
            Ok(Some(end)) => {
                let (message, rest) = bytes.split_at(end.min(bytes.len()));
                cx.consume(message.len());
                self.emit(cx, scan.take(), message);
                if rest.is_empty() || self.hold(cx, rest) { Fate::Open } else { self.overflow(cx) }
            }
            Ok(None) => {
                if !self.hold(cx, bytes) {
                    return self.overflow(cx);
                }
                if let Some(more) = &mut self.more {
                    more.input.consume_all(cx);
                    more.scan = scan;
                }
                Fate::Open
            }
            Err(wrong) => self.refuse(cx, &wrong, scan.head.map(|(head, _)| head)),
        }
    }

    /// The peer sends no more: what is in hand is still answered, and so is what came whole before (R1.42).
    pub(super) fn finished(&mut self, cx: &mut Context<'_>) -> Fate {
        self.peer_finished = true;
        self.advance(cx)
    }

    /// More of a reply may go out, or calls are taken again.
    pub(super) fn writable(&mut self, cx: &mut Context<'_>) -> Fate {
        let more = self.more.as_deref_mut();
        if let Some(more) = more.filter(|more| more.output.is_some()) {
            if !more.output.as_mut().is_none_or(|output| output.send_more(cx)) {
                return Fate::Open;
            }
            more.output = None;
        }
        self.advance(cx)
    }

    pub(super) fn reply(&mut self, cx: &mut Context<'_>, seq: u64, method: &str, answer: Answer<'_>) -> Fate {
        if !self.in_hand {
            return Fate::Open;
        }
        self.in_hand = false;
        self.send(cx, seq, method, answer);
        self.advance(cx)
    }

    pub(super) fn lost(&mut self, cx: &mut Context<'_>, error: Option<&str>) {
        if let Some(error) = error {
            cx.report(Cause::Rpc, error);
        }
        if std::mem::take(&mut self.in_hand) {
            cx.event(Event::Gone(cx.stream));
        }
    }

    /// A call is in hand, or its reply is not out.
    pub(super) fn is_busy(&self) -> bool {
        self.in_hand || self.is_sending()
    }

    /// Calls wait that may be taken once [`Context::takes_calls`] says so.
    pub(super) fn is_stalled(&self) -> bool {
        !self.is_busy() && self.more.as_deref().is_some_and(|more| more.input.is_waiting())
    }

    /// A request has come in part, with nothing but its rest owed.
    pub(super) fn is_partial(&self) -> bool {
        let more = self.more.as_deref();
        !self.is_busy() && more.is_some_and(|more| !more.input.is_empty() && !more.input.is_waiting())
    }

    /// Bytes held of requests, and of replies.
    pub(super) fn held(&self) -> (usize, usize) {
        self.more.as_deref().map_or((0, 0), |more| (more.input.len(), more.output.as_ref().map_or(0, Output::len)))
    }

    fn is_sending(&self) -> bool {
        self.more.as_deref().is_some_and(|more| more.output.is_some())
    }

    /// Takes the next call if nothing is in hand, and ends the stream when nothing can follow.
    fn advance(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.is_busy() {
            return Fate::Open;
        }
        if self.last {
            return Fate::Finish;
        }
        if !cx.takes_calls && self.is_stalled() {
            return Fate::Open;
        }
        if let Some(mut more) = self.more.take() {
            match more.scan.scan(more.input.bytes(), cx.limits.max_message_bytes, self.position) {
                Ok(Some(end)) => {
                    self.emit(cx, more.scan.take(), more.input.bytes().get(..end).unwrap_or_default());
                    more.input.take(cx, end);
                }
                Ok(None) => more.input.consume_all(cx),
                Err(wrong) => {
                    let head = more.scan.head.take().map(|(head, _)| head);
                    self.more = Some(more);
                    return self.refuse(cx, &wrong, head);
                }
            }
            if !more.input.is_empty() {
                self.more = Some(more);
            }
        }
        // A request that was cut short by the peer's end is dropped without a word (R1j R1.45).
        if self.peer_finished && !self.in_hand { Fate::Finish } else { Fate::Open }
    }

    fn emit(&mut self, cx: &mut Context<'_>, head: Option<(RequestHead, usize)>, message: &[u8]) {
        let Some((head, head_len)) = head else { return };
        let base = self.position.saturating_add(head_len as u64);
        self.position = self.position.saturating_add(message.len() as u64);
        self.in_hand = true;
        cx.event(Event::Call(RpcCall {
            stream: cx.stream,
            seq: head.seq,
            method: head.service_method,
            body: message.get(head_len..).unwrap_or_default().into(),
            base,
        }));
    }

    fn hold(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> bool {
        self.more.get_or_insert_default().input.hold(cx, bytes).is_ok()
    }

    fn send(&mut self, cx: &mut Context<'_>, seq: u64, method: &str, answer: Answer<'_>) {
        let (error, body) = match answer {
            Answer::Body(body) if body.len() > cx.reply_room => (UNREAD, rpc::EMPTY_BODY),
            Answer::Body(body) => ("", body),
            Answer::Error(error) | Answer::Classed(error, _) | Answer::LastError(error) => (error, rpc::EMPTY_BODY),
        };
        self.last |= matches!(answer, Answer::LastError(_));
        // Names of fields and lengths take 41 bytes at most.
        let mut message = Encoder { out: Vec::with_capacity(48 + error.len() + method.len() + body.len()) };
        match answer {
            Answer::Classed(_, class) => rpc::encode_classed_head(&mut message, error, class, seq, method),
            _ => rpc::encode_reply_head(&mut message, error, seq, method),
        }
        message.raw(body);
        if let Some(output) = Output::send(cx, message.out) {
            self.more.get_or_insert_default().output = Some(output);
        }
    }

    /// A head that is none ends the stream without a reply; a body that is none gets a reply first (R1j R1.45).
    fn refuse(&mut self, cx: &mut Context<'_>, wrong: &Malformed, head: Option<RequestHead>) -> Fate {
        cx.report(Cause::Rpc, &wrong.text());
        match (wrong, head) {
            (Malformed::TooLarge, _) => Fate::Reset,
            (Malformed::Value(_), None) => Fate::Finish,
            (Malformed::Value(_), Some(head)) => {
                self.send(cx, head.seq, &head.service_method, Answer::LastError(&wrong.text()));
                self.advance(cx)
            }
        }
    }

    fn overflow(&mut self, cx: &mut Context<'_>) -> Fate {
        self.lost(cx, Some(TOO_MUCH));
        Fate::Reset
    }
}
