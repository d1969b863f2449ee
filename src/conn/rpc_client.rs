//! A call that we make on a stream of the peer's session: one call, one answer, then the stream is closed.

use crate::wire::first_byte::FirstByte;
use crate::wire::msgpack::Encoder;
use crate::wire::rpc;
use crate::wire::rpc::ReplyHead;

use super::Event;
use super::message::Input;
use super::message::MessageScan;
use super::message::Output;
use super::stream::Context;
use super::stream::Fate;

/// The calling side of a stream.
#[derive(Debug, Default)]
pub(super) struct RpcClient {
    seq: u64,
    input: Input,
    scan: MessageScan<ReplyHead>,
    output: Option<Output>,
}

impl RpcClient {
    /// Sends the stream's first byte and a call.
    pub(super) fn start(cx: &mut Context<'_>, seq: u64, method: &str, body: &[u8]) -> RpcClient {
        let mut message = Encoder { out: Vec::with_capacity(48 + method.len() + body.len()) };
        message.out.push(FirstByte::Rpc.byte());
        rpc::encode_request_head(&mut message, seq, method);
        message.raw(body);
        RpcClient { seq, output: Output::send(cx, message.out), ..RpcClient::default() }
    }

    pub(super) fn data(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Fate {
        if self.input.hold(cx, bytes).is_err() {
            return gone(cx);
        }
        self.input.consume_all(cx);
        let end = match self.scan.scan(self.input.bytes(), cx.limits.max_message_bytes, 0) {
            Ok(Some(end)) => end,
            Ok(None) => return Fate::Open,
            Err(_) => return gone(cx),
        };
        match self.scan.take() {
            Some((head, head_len)) if head.seq == self.seq => {
                let result = if head.error.is_empty() {
                    Ok(self.input.bytes().get(head_len..end).unwrap_or_default().into())
                } else {
                    Err(head.error)
                };
                cx.event(Event::Answer { stream: cx.stream, result });
                // A call that was answered before it was read whole is not sent to its end.
                if self.output.is_some() { Fate::Reset } else { Fate::Finish }
            }
            _ => gone(cx),
        }
    }

    pub(super) fn finished(&mut self, cx: &mut Context<'_>) -> Fate {
        gone(cx)
    }

    pub(super) fn writable(&mut self, cx: &mut Context<'_>) -> Fate {
        if self.output.as_mut().is_some_and(|output| output.send_more(cx)) {
            self.output = None;
        }
        Fate::Open
    }

    /// Bytes held of the answer, and of the call.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.input.len(), self.output.as_ref().map_or(0, Output::len))
    }
}

fn gone(cx: &mut Context<'_>) -> Fate {
    cx.event(Event::Gone(cx.stream));
    Fate::Reset
}
