//! A streaming call over HTTP: its messages, unwrapped, are the body of the reply. Knows no connection.
//!
//! Nothing is begun before the first message says that it can be: an error in it is the whole answer, with a status of
//! its own. Source: http notes, sections 5 to 7.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::api::http::{StreamBody, render_stream_error};
use crate::base::time::Instant;
use crate::wire::body::operator::SnapshotSaveResponse;
use crate::wire::http::HttpReply;
use crate::wire::msgpack::{DecodeError, Msg, Scan, Scanner};
use crate::wire::streaming::{EventStreamWrapper, StreamErrWrapper};

/// A reader that takes nothing for so long is given up.
pub(super) const BLOCKED_MAX: Duration = Duration::from_secs(40);

/// What the messages become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A body without a known end, or an archive.
    Body(StreamBody),
    /// The one message of Operator.SnapshotRestore.
    Restored,
}

/// What is to be done with a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Begin a reply with these headers.
    Begin(Vec<(&'static str, String)>),
    /// Go on with these bytes.
    Body(Arc<[u8]>),
    /// This is the whole answer.
    Reply(HttpReply),
    /// End without an end: what was begun is not whole.
    BreakOff,
}

/// One such call.
#[derive(Debug)]
pub(super) struct HttpStream {
    pub(super) form: Form,
    max_message_bytes: usize,
    scanner: Scanner,
    /// Of a message that is not all there.
    held: Vec<u8>,
    begun: bool,
    /// Whether anything that comes is still of use.
    over: bool,
    /// Bytes of the body that the client has no room for.
    pub(super) out: VecDeque<(Arc<[u8]>, usize)>,
    /// The client took nothing so far; until when that goes on.
    pub(super) blocked_until: Option<Instant>,
}

impl HttpStream {
    /// One of which nothing has come. No message of it is larger than `max_message_bytes`.
    pub(super) fn new(form: Form, max_message_bytes: usize) -> HttpStream {
        HttpStream {
            form,
            max_message_bytes,
            scanner: Scanner::default(),
            held: Vec::new(),
            begun: false,
            over: false,
            out: VecDeque::new(),
            blocked_until: None,
        }
    }

    /// Whether the reply goes on for as long as its client listens.
    pub(super) fn is_endless(&self) -> bool {
        !matches!(self.form, Form::Restored | Form::Body(StreamBody::Snapshot))
    }

    /// Whether the reply has begun, or is whole.
    pub(super) fn is_answered(&self) -> bool {
        self.begun || self.over
    }

    /// The headers to begin with, when that is not done.
    pub(super) fn begin(&mut self) -> Option<Act> {
        if self.is_answered() {
            return None;
        }
        self.begun = true;
        let content_type = match self.form {
            Form::Body(StreamBody::Events | StreamBody::MonitorJson) => "application/json",
            Form::Body(StreamBody::MonitorPlain) => "text/plain",
            Form::Body(StreamBody::Snapshot) | Form::Restored => "application/x-gzip",
        };
        let mut headers = vec![("Content-Type", content_type.to_owned())];
        if self.is_endless() {
            headers.push(("Cache-Control", "no-cache".to_owned()));
        }
        Some(Act::Begin(headers))
    }

    /// Takes bytes of messages, in any pieces.
    pub(super) fn take(&mut self, bytes: &Arc<[u8]>) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.over {
            return acts;
        }
        if self.begun && self.form == Form::Body(StreamBody::Snapshot) {
            return vec![Act::Body(Arc::clone(bytes))];
        }
        let mut held = std::mem::take(&mut self.held);
        let mut rest: &[u8] = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        while !rest.is_empty() && !self.over {
            let taken = match self.scanner.scan(rest, self.max_message_bytes) {
                Ok(Scan::Partial) => break,
                Ok(Scan::Complete(len)) => {
                    self.scanner = Scanner::default();
                    let (message, after) = rest.split_at(len);
                    rest = after;
                    self.message(message, &mut acts)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                self.fail(500, &error.to_string(), &mut acts);
            }
            if self.begun && self.form == Form::Body(StreamBody::Snapshot) {
                acts.extend((!rest.is_empty()).then(|| Act::Body(rest.into())));
                rest = &[];
            }
        }
        if !self.over {
            self.held = rest.to_vec();
        }
        acts
    }

    fn message(&mut self, message: &[u8], acts: &mut Vec<Act>) -> Result<(), DecodeError> {
        match self.form {
            Form::Body(StreamBody::Events) => {
                let EventStreamWrapper { error, event } = EventStreamWrapper::from_bytes(message)?;
                match error {
                    Some(error) => self.fail(error.code.unwrap_or(500), &error.message, acts),
                    None => {
                        let mut document = event.unwrap_or_default().data.0;
                        document.push(b'\n');
                        self.body(document, acts);
                    }
                }
            }
            Form::Body(StreamBody::MonitorPlain | StreamBody::MonitorJson) => {
                let StreamErrWrapper { error, payload } = StreamErrWrapper::from_bytes(message)?;
                match error {
                    Some(error) => self.fail(error.code.unwrap_or(500), &error.message, acts),
                    None => self.body(payload.unwrap_or_default().0, acts),
                }
            }
            Form::Body(StreamBody::Snapshot) => {
                let first = SnapshotSaveResponse::from_bytes(message)?;
                if first.error_code != 0 || !first.error_msg.is_empty() {
                    self.fail(first.error_code, &first.error_msg, acts);
                } else if let Some(Act::Begin(mut headers)) = self.begin() {
                    headers.push(("Digest", first.snapshot_checksum));
                    acts.push(Act::Begin(headers));
                }
            }
            Form::Restored => {
                let last = SnapshotSaveResponse::from_bytes(message)?;
                if last.error_code != 0 || !last.error_msg.is_empty() {
                    self.fail(last.error_code, &last.error_msg, acts);
                } else {
                    self.over = true;
                    let headers = vec![("X-Nomad-Index", last.meta.index.to_string())];
                    acts.push(Act::Reply(HttpReply { status: 200, headers, body: Vec::new() }));
                }
            }
        }
        Ok(())
    }

    fn body(&mut self, bytes: Vec<u8>, acts: &mut Vec<Act>) {
        acts.extend(self.begin());
        acts.push(Act::Body(bytes.into()));
    }

    fn fail(&mut self, code: i64, text: &str, acts: &mut Vec<Act>) {
        self.over = true;
        acts.push(if self.begun { Act::BreakOff } else { Act::Reply(render_stream_error(code, text)) });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api;
    use crate::wire::msgpack::Bytes;

    const EVENTS: Form = Form::Body(StreamBody::Events);
    const MONITOR: Form = Form::Body(StreamBody::MonitorPlain);
    const SNAPSHOT: Form = Form::Body(StreamBody::Snapshot);

    fn stream(form: Form) -> HttpStream {
        HttpStream::new(form, 1000)
    }

    fn payload(text: &str) -> Vec<u8> {
        StreamErrWrapper { error: None, payload: Some(Bytes(text.into())) }.to_bytes()
    }

    /// Headers, body, answer, broken off.
    type Came = (Vec<String>, Vec<u8>, Option<(u16, Vec<u8>)>, bool);

    /// What comes of messages that arrive in pieces.
    fn run(form: Form, messages: &[u8], cut: usize) -> Came {
        let mut stream = stream(form);
        let (mut headers, mut body, mut answer, mut broken) = (Vec::new(), Vec::new(), None, false);
        for piece in [&messages[..cut], &messages[cut..]] {
            for act in stream.take(&piece.into()) {
                match act {
                    Act::Begin(with) => headers.extend(with.iter().map(|(name, value)| format!("{name}: {value}"))),
                    Act::Body(bytes) => body.extend_from_slice(&bytes),
                    Act::Reply(reply) => answer = Some((reply.status, reply.body)),
                    Act::BreakOff => broken = true,
                }
            }
        }
        (headers, body, answer, broken)
    }

    #[test]
    fn messages_are_unwrapped_however_they_are_cut() {
        let events =
            [super::super::events::heartbeat_message().to_vec(), super::super::events::gap_message(1, 2).to_vec()];
        let save = SnapshotSaveResponse { snapshot_checksum: "sha-256=x".into(), ..SnapshotSaveResponse::default() };
        for (form, messages, headers, body) in [
            (
                EVENTS,
                events.concat(),
                vec!["Content-Type: application/json", "Cache-Control: no-cache"],
                "{}\n{\"Index\":2,\"Events\":[],\"Gap\":{\"From\":1,\"To\":2}}\n",
            ),
            (
                MONITOR,
                [payload("a\n"), payload(""), payload("b\n")].concat(),
                vec!["Content-Type: text/plain", "Cache-Control: no-cache"],
                "a\nb\n",
            ),
            (
                Form::Body(StreamBody::MonitorJson),
                [payload("{}"), payload("{}")].concat(),
                vec!["Content-Type: application/json", "Cache-Control: no-cache"],
                "{}{}",
            ),
            (
                SNAPSHOT,
                [save.to_bytes(), b"\x1f\x8bwhatever".to_vec()].concat(),
                vec!["Content-Type: application/x-gzip", "Digest: sha-256=x"],
                "",
            ),
        ] {
            for cut in 0..=messages.len() {
                let (got_headers, got_body, answer, broken) = run(form, &messages, cut);
                assert_eq!(
                    (got_headers, answer, broken),
                    (headers.iter().map(|h| h.to_string()).collect(), None, false)
                );
                let body = if form == SNAPSHOT { b"\x1f\x8bwhatever" } else { body.as_bytes() };
                assert_eq!(got_body, body, "{form:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn an_error_in_the_first_message_is_the_answer_and_a_later_one_breaks_off() {
        for (form, method) in [
            (EVENTS, "Event.Stream"),
            (MONITOR, "Agent.Monitor"),
            (SNAPSHOT, "Operator.SnapshotSave"),
            (Form::Restored, "Operator.SnapshotRestore"),
        ] {
            let error = api::stream_error(method, "RPC Error:: 403,Permission denied");
            for cut in 0..=error.len() {
                let (headers, body, answer, broken) = run(form, &error, cut);
                assert_eq!(answer, Some((403, b"Permission denied".to_vec())), "{method}");
                assert_eq!((headers, body, broken), (vec![], vec![], false));
            }
        }
        let late = [payload("a\n"), api::stream_error("Agent.Monitor", "no more"), payload("b\n")].concat();
        let (_, body, answer, broken) = run(MONITOR, &late, 5);
        assert_eq!((body, answer, broken), (b"a\n".to_vec(), None, true));
    }

    #[test]
    fn what_is_no_message_is_an_error_and_a_message_has_a_cap() {
        for bytes in [&[0xc1][..], &[0xdb, 0, 1, 0, 0], &payload("x")[..1]] {
            let mut stream = stream(MONITOR);
            let acts = stream.take(&bytes.into());
            let is_error = matches!(acts.as_slice(), [Act::Reply(HttpReply { status: 500, .. })]);
            assert_eq!(is_error, bytes.len() != 1 || bytes[0] == 0xc1, "{bytes:?}");
            assert!(!stream.is_answered() || stream.take(&payload("x").into()).is_empty());
        }
    }

    #[test]
    fn the_end_of_a_restore_is_an_empty_answer_with_its_index() {
        let mut done = SnapshotSaveResponse::default();
        done.meta.index = 7;
        let mut stream = stream(Form::Restored);
        let acts = stream.take(&done.to_bytes().into());
        let [Act::Reply(reply)] = acts.as_slice() else { panic!("{acts:?}") };
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(reply.headers, [("X-Nomad-Index", "7".to_owned())]);
    }
}
