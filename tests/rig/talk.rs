//! A conversation in the daemon's protocol over one [`Peer`]: streams, calls, answers. Says nothing by itself but
//! answers to pings and grants of window, and these can be turned off.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::heard::{ACK, DATA, FIN, GO_AWAY, Heard, Item, PING, RST, SYN, WINDOW, frame};
use super::peer::{Peer, Read1};
use super::{PATIENCE, msgpack, patience};

/// Half of a window: what is granted again at once.
const GRANT_BYTES: usize = 128 * 1024;

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub error: String,
    pub seq: u64,
    pub method: String,
    pub body: Value,
}

impl Reply {
    /// The body of an answer that is no error.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.error, "", "{}", self.method);
        self.body
    }

    /// The text of an answer that is an error; its body is an empty map.
    #[track_caller]
    pub fn err(self) -> String {
        assert_ne!(self.error, "", "{}: {}", self.method, self.body);
        assert_eq!(self.body, json!({}), "{}", self.error);
        self.error
    }
}

/// The bytes of a call.
pub fn call_bytes(seq: u64, method: &str, body: &Value) -> Vec<u8> {
    let mut bytes = msgpack::pack(&json!({ "Seq": seq, "ServiceMethod": method }));
    bytes.extend(msgpack::pack(body));
    bytes
}

/// A conversation.
pub struct Talk {
    pub peer: Peer,
    pub heard: Heard,
    first: u8,
    next_stream: u32,
    next_seq: u64,
    /// Items of each stream that were looked at.
    taken: BTreeMap<u32, usize>,
    /// Bytes of each stream that were granted again.
    granted: BTreeMap<u32, usize>,
    answered_pings: usize,
    /// Answers pings.
    pub pongs: bool,
    /// Grants window.
    pub grants: bool,
}

impl Talk {
    /// Opens a connection with this first byte.
    pub fn dial(address: SocketAddr, first: u8) -> Talk {
        Talk::over(Peer::dial(address), first)
    }

    pub fn over(mut peer: Peer, first: u8) -> Talk {
        peer.write(&[first]);
        Talk::after(peer, first)
    }

    /// On a connection whose first byte was said.
    pub fn after(peer: Peer, first: u8) -> Talk {
        Talk {
            peer,
            heard: Heard::after(Some(first)),
            first,
            next_stream: 1,
            next_seq: 1,
            taken: BTreeMap::new(),
            granted: BTreeMap::new(),
            answered_pings: 0,
            pongs: true,
            grants: true,
        }
    }

    fn is_mux(&self) -> bool {
        matches!(self.first, 3 | 6)
    }

    /// A stream number nobody used.
    pub fn fresh_stream(&mut self) -> u32 {
        self.next_stream += 2;
        self.next_stream - 2
    }

    /// Opens a stream for calls.
    pub fn open(&mut self) -> u32 {
        self.open_kind(1)
    }

    /// Opens a stream; its kind is said on v2 only.
    pub fn open_kind(&mut self, kind: u8) -> u32 {
        if !self.is_mux() {
            return 0;
        }
        let stream = self.fresh_stream();
        let mut bytes = frame(WINDOW, SYN, stream, 0);
        if self.first == 6 {
            bytes.extend(frame(DATA, 0, stream, 1));
            bytes.push(kind);
        }
        self.peer.write(&bytes);
        stream
    }

    /// Sends bytes on a stream.
    pub fn say(&mut self, stream: u32, bytes: &[u8]) {
        if self.is_mux() {
            let mut framed = frame(DATA, 0, stream, u32::try_from(bytes.len()).unwrap());
            framed.extend_from_slice(bytes);
            self.peer.write(&framed);
        } else {
            self.peer.write(bytes);
        }
    }

    pub fn fin(&mut self, stream: u32) {
        self.peer.write(&frame(WINDOW, FIN, stream, 0));
    }

    pub fn rst(&mut self, stream: u32) {
        self.peer.write(&frame(WINDOW, RST, stream, 0));
    }

    pub fn go_away(&mut self, code: u32) {
        self.peer.write(&frame(GO_AWAY, 0, 0, code));
    }

    /// Sends a ping and waits for its answer: all before it was taken by then.
    #[track_caller]
    pub fn ping(&mut self, value: u32) {
        self.peer.write(&frame(PING, SYN, 0, value));
        self.until("an answer to a ping", |heard| heard.pongs.contains(&value));
    }

    /// Sends a call and gives its number.
    pub fn request(&mut self, stream: u32, method: &str, body: &Value) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.say(stream, &call_bytes(seq, method, body));
        seq
    }

    /// The next answer on a stream.
    #[track_caller]
    pub fn reply(&mut self, stream: u32) -> Reply {
        self.reply_within(stream, PATIENCE)
    }

    #[track_caller]
    pub fn reply_within(&mut self, stream: u32, time: Duration) -> Reply {
        let head = self.value_within(stream, time);
        let body = self.value_within(stream, time);
        Reply {
            error: head["Error"].as_str().unwrap().to_owned(),
            seq: head["Seq"].as_u64().unwrap(),
            method: head["ServiceMethod"].as_str().unwrap().to_owned(),
            body,
        }
    }

    /// A call and its answer.
    #[track_caller]
    pub fn call(&mut self, stream: u32, method: &str, body: &Value) -> Reply {
        let seq = self.request(stream, method, body);
        let reply = self.reply(stream);
        assert_eq!((reply.seq, reply.method.as_str()), (seq, method));
        reply
    }

    /// The next message on a stream.
    #[track_caller]
    pub fn value(&mut self, stream: u32) -> Value {
        self.value_within(stream, PATIENCE)
    }

    #[track_caller]
    pub fn value_within(&mut self, stream: u32, time: Duration) -> Value {
        match self.item_within(stream, time) {
            Item::Value(value) => value,
            other => panic!("stream {stream}: {other:?} in the place of a message"),
        }
    }

    /// The next thing on a stream, message or end.
    #[track_caller]
    pub fn item(&mut self, stream: u32) -> Item {
        self.item_within(stream, PATIENCE)
    }

    #[track_caller]
    pub fn item_within(&mut self, stream: u32, time: Duration) -> Item {
        let at = self.taken.get(&stream).copied().unwrap_or(0);
        let came = self.pump(Instant::now() + time, |heard| heard.items(stream).len() > at);
        assert!(came, "stream {stream}: nothing in {time:?}, ended={}", self.heard.ended);
        self.taken.insert(stream, at + 1);
        self.heard.items(stream)[at].clone()
    }

    /// Whether anything on a stream waits to be looked at.
    pub fn has_item(&self, stream: u32) -> bool {
        self.heard.items(stream).len() > self.taken.get(&stream).copied().unwrap_or(0)
    }

    /// Reads until the condition holds; false when the deadline came first, or the end.
    pub fn pump(&mut self, deadline: Instant, mut until: impl FnMut(&Heard) -> bool) -> bool {
        loop {
            if until(&self.heard) {
                return true;
            }
            if self.heard.ended {
                return false;
            }
            match self.peer.read(deadline) {
                Read1::Bytes(bytes) => {
                    self.heard.feed(&bytes);
                    self.be_polite();
                }
                Read1::End(_) => self.heard.ended = true,
                Read1::Nothing if Instant::now() >= deadline => return until(&self.heard),
                Read1::Nothing => {}
            }
        }
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, until: impl FnMut(&Heard) -> bool) {
        let came = self.pump(patience(), until);
        assert!(came, "no {what}; heard {:?}", self.heard);
    }

    /// Waits until the daemon closes.
    #[track_caller]
    pub fn until_closed(&mut self) {
        self.until("end of the connection", |heard| heard.ended);
    }

    /// Reads for a time, for what must not come.
    pub fn listen(&mut self, time: Duration) {
        self.pump(Instant::now() + time, |_| false);
    }

    fn be_polite(&mut self) {
        let mut bytes = Vec::new();
        while self.pongs && self.answered_pings < self.heard.pings.len() {
            bytes.extend(frame(PING, ACK, 0, self.heard.pings[self.answered_pings]));
            self.answered_pings += 1;
        }
        if self.grants && self.is_mux() {
            for (stream, said) in &self.heard.streams {
                let granted = self.granted.entry(*stream).or_default();
                let due = said.bytes.len() - *granted;
                if due >= GRANT_BYTES {
                    *granted += due;
                    bytes.extend(frame(WINDOW, 0, *stream, u32::try_from(due).unwrap()));
                }
            }
        }
        if !bytes.is_empty() {
            let _ = self.peer.try_write(&bytes);
        }
    }
}

/// A call on a connection of its own, with the least options of a read or write.
#[track_caller]
pub fn call_once(address: SocketAddr, method: &str, body: &Value) -> Reply {
    let mut talk = Talk::dial(address, 1);
    talk.call(0, method, body)
}
