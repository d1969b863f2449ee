//! Sessions recorded between real Go peers (`tests/vectors/index.json` describes them), replayed by a client of our
//! own, and what the daemon says compared by its meaning.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::heard::{Heard, Item};
use super::peer::{Peer, Read1};
use super::{msgpack, patience, unhex};

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
    ClientEnds,
    ServerEnds,
}

/// A recorded session.
#[derive(Clone)]
pub struct Recorded {
    pub name: String,
    pub vector: Value,
    pub turns: Vec<Turn>,
}

pub fn names() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = files.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.retain(|name| name != "index");
    names.sort();
    names
}

impl Recorded {
    pub fn load(name: &str) -> Recorded {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{name}.json"));
        let vector: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let turns = vector["turns"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|turn| {
            match (turn["dir"].as_str().unwrap(), turn["hex"].as_str()) {
                ("c2s", Some(hex)) => Turn::Client(unhex(hex)),
                ("c2s", None) => Turn::ClientEnds,
                (_, Some(hex)) => Turn::Server(unhex(hex)),
                (_, None) => Turn::ServerEnds,
            }
        });
        Recorded { name: name.to_owned(), turns: turns.collect(), vector }
    }

    pub fn first_byte(&self) -> Option<u8> {
        self.turns.iter().find_map(|turn| if let Turn::Client(bytes) = turn { bytes.first().copied() } else { None })
    }
}

impl Recorded {
    /// The messages of a stream, decoded.
    pub fn messages(&self, stream: u32) -> Vec<Value> {
        let streams = self.vector["streams"].as_array().unwrap();
        let found = streams.iter().find(|found| found["stream"] == stream).unwrap();
        found["messages"].as_array().unwrap().iter().map(|message| message["decoded"].clone()).collect()
    }

    /// Keeps only so many of the server's messages, on a connection without yamux.
    pub fn first_messages(&self, count: usize) -> Recorded {
        let mut kept = self.clone();
        let mut left = count;
        for turn in &mut kept.turns {
            let Turn::Server(bytes) = turn else { continue };
            let mut end = 0;
            while left > 0 && end < bytes.len() {
                end += msgpack::unpack(&bytes[end..]).unwrap().1;
                left -= 1;
            }
            bytes.truncate(end);
        }
        kept
    }

    /// Keeps only so many turns; then the client ends.
    pub fn first_turns(&self, count: usize) -> Recorded {
        let mut kept = self.clone();
        kept.turns.truncate(count);
        kept.turns.push(Turn::ClientEnds);
        kept
    }
}

/// How the client's bytes are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Each turn is one write.
    Whole,
    /// Each byte is one write.
    Bytes,
}

/// How a session is replayed.
pub struct Replay<'a> {
    pub session: &'a Recorded,
    pub cut: Cut,
    /// Done again and again while an answer is waited for; is told the number of its turn.
    pub meanwhile: &'a dyn Fn(usize),
    /// Keys whose values are the server's own, beside those that always are.
    pub own: &'a [&'a str],
    /// Texts of errors that differ on purpose: recorded, expected.
    pub texts: &'a [(&'a str, &'a str)],
    /// The answers of an older server have fewer fields: those it has must be there.
    pub older: bool,
    /// More messages may follow those recorded.
    pub more: bool,
    /// Events are overheard, their stream's heartbeats are not.
    pub deaf_to_events: bool,
    /// What the client says instead, knowing what it heard so far: as many bytes as were recorded.
    pub rewrite: &'a dyn Fn(&Heard, &[u8]) -> Vec<u8>,
}

/// Keys that holdfast adds to answers, where it has something to say with them (R8.1).
const EXTENSIONS: &[&str] = &["Fence"];

impl<'a> Replay<'a> {
    pub fn new(session: &'a Recorded, cut: Cut) -> Replay<'a> {
        let older = session.name.ends_with("__v112") || session.name.ends_with("_v112");
        Replay {
            session,
            cut,
            meanwhile: &|_| {},
            own: &[],
            texts: &[],
            older,
            more: false,
            deaf_to_events: false,
            rewrite: &|_, bytes| bytes.to_vec(),
        }
    }

    /// Plays the session; panics at the first difference.
    #[track_caller]
    pub fn play(&self, address: SocketAddr) -> Heard {
        let mut peer = Peer::dial(address);
        let mut wanted = Heard::after(self.session.first_byte());
        // What the client said so far, by the same means.
        let mut said = wanted.clone();
        let mut heard = wanted.clone();
        for (number, turn) in self.session.turns.iter().enumerate() {
            if let Turn::Client(bytes) = turn {
                said.feed(&bytes[usize::from(said.total == 0).min(bytes.len())..]);
                said.total += 1;
            }
            match turn {
                Turn::Client(bytes) if heard.ended => {
                    panic!("{}: closed before turn {number}: {bytes:?}", self.place())
                }
                Turn::Client(bytes) if self.cut == Cut::Bytes => peer.drip(&(self.rewrite)(&heard, bytes)),
                Turn::Client(bytes) => drop(peer.try_write(&(self.rewrite)(&heard, bytes))),
                Turn::Server(bytes) => {
                    wanted.feed(bytes);
                    self.hear(&mut peer, &mut heard, &wanted, &said, number);
                }
                Turn::ServerEnds => {
                    wanted.ended = true;
                    self.hear(&mut peer, &mut heard, &wanted, &said, number);
                }
                Turn::ClientEnds => peer.finish(),
            }
        }
        self.nothing_more(&heard, &wanted);
        heard
    }

    fn place(&self) -> String {
        format!("{} ({:?})", self.session.name, self.cut)
    }

    /// Waits until all that is wanted so far was heard, and compares.
    fn hear(&self, peer: &mut Peer, heard: &mut Heard, wanted: &Heard, said: &Heard, turn: usize) {
        let deadline = patience();
        while !covers(heard, wanted, said) {
            assert!(!heard.ended, "{}, turn {turn}: closed\nheard  {heard:?}\nwanted {wanted:?}", self.place());
            let step = Instant::now() + std::time::Duration::from_millis(50);
            match peer.read(step.min(deadline)) {
                Read1::Bytes(bytes) => {
                    heard.feed(&bytes);
                    let deaf = |item: &Item| is_gap(item) || (self.deaf_to_events && is_event(item));
                    heard.streams.values_mut().for_each(|stream| stream.items.retain(|item| !deaf(item)));
                }
                Read1::End(_) => heard.ended = true,
                Read1::Nothing => {
                    let late = Instant::now() >= deadline;
                    assert!(!late, "{}, turn {turn}: not said\nheard  {heard:?}\nwanted {wanted:?}", self.place());
                    (self.meanwhile)(turn);
                }
            }
        }
        for (stream, wanted) in &wanted.streams {
            for (at, wanted) in wanted.items.iter().enumerate() {
                let heard = &heard.items(*stream)[at];
                if let Err(why) = self.same_item(wanted, heard) {
                    panic!("{}, stream {stream}, item {at}: {why}", self.place());
                }
            }
        }
    }

    /// No message beyond those wanted. Halves of streams may have been closed that the recording ended too early for.
    fn nothing_more(&self, heard: &Heard, wanted: &Heard) {
        for (stream, heard) in &heard.streams {
            let extra = &heard.items[wanted.items(*stream).len()..];
            let allowed = |item: &Item| *item == Item::Fin || (self.more && matches!(item, Item::Value(_)));
            assert!(extra.iter().all(allowed), "{}, stream {stream}: {extra:?}", self.place());
        }
        assert!(self.more || heard.torn() == 0, "{}: part of a message", self.place());
        assert_eq!(heard.nonsense, None, "{}", self.place());
        // Their order is free.
        let sorted = |pongs: &[u32]| BTreeSet::from_iter(pongs.iter().copied());
        assert_eq!(sorted(&heard.pongs), sorted(&wanted.pongs), "{}", self.place());
        assert_eq!(heard.pongs.len(), wanted.pongs.len(), "{}", self.place());
    }

    fn same_item(&self, wanted: &Item, heard: &Item) -> Result<(), String> {
        match (wanted, heard) {
            (Item::Value(wanted), Item::Value(heard)) => self.same(wanted, heard, ""),
            (wanted, heard) if wanted == heard => Ok(()),
            _ => Err("another kind of thing".to_owned()),
        }
    }

    /// Compares by meaning: keys and values, but for those that are the server's own.
    fn same(&self, wanted: &Value, heard: &Value, at: &str) -> Result<(), String> {
        let brief = |value: &Value| value.to_string().chars().take(600).collect::<String>();
        let wrong = |why: &str| Err(format!("{at}: {why}: wanted {}, heard {}", brief(wanted), brief(heard)));
        match (wanted, heard) {
            (Value::Object(w), Value::Object(h)) if !w.contains_key("$raw_hex") => {
                let missing: Vec<&String> = w.keys().filter(|key| !h.contains_key(*key)).collect();
                let added = |key: &&String| !w.contains_key(*key) && !EXTENSIONS.contains(&key.as_str());
                let extra: Vec<&String> = h.keys().filter(added).collect();
                // A field that a server of the older line had and the newer one has not is in its table.
                if !missing.is_empty() || (!extra.is_empty() && !self.older) {
                    return wrong(&format!("missing {missing:?}, extra {extra:?}"));
                }
                for (key, w) in w {
                    // The two lines of servers differ in it.
                    let path = format!("{at}.{key}");
                    if key.starts_with("RPCM") && key.ends_with("orVersion") {
                        continue;
                    }
                    if self.is_own(key) {
                        own_value(w, &h[key]).map_err(|why| format!("{path}: {why}: {}", h[key]))?;
                    } else {
                        self.same(w, &h[key], &path)?;
                    }
                }
                Ok(())
            }
            (Value::Array(w), Value::Array(h)) => {
                if w.len() != h.len() {
                    return wrong("another length");
                }
                w.iter().zip(h).enumerate().try_for_each(|(n, (w, h))| self.same(w, h, &format!("{at}[{n}]")))
            }
            (Value::String(w), Value::String(h)) => self.same_text(w, h, at),
            (w, h) if w == h => Ok(()),
            _ => wrong("another value"),
        }
    }

    fn same_text(&self, wanted: &str, heard: &str, at: &str) -> Result<(), String> {
        let expected = self.texts.iter().find(|(recorded, _)| *recorded == wanted).map_or(wanted, |(_, ours)| ours);
        // An event's data is JSON.
        if let (Ok(w @ Value::Object(_)), Ok(h)) = (serde_json::from_str(expected), serde_json::from_str(heard)) {
            return self.same(&w, &h, at);
        }
        let is_address = |text: &str| text.parse::<SocketAddr>().is_ok();
        if expected == heard || (is_address(expected) && is_address(heard)) {
            return Ok(());
        }
        Err(format!("{at}: wanted {expected:?}, heard {heard:?}"))
    }

    fn is_own(&self, key: &str) -> bool {
        const OWN: &[&str] = &[
            "Index",
            "CreateIndex",
            "ModifyIndex",
            "NodeModifyIndex",
            "LastMissedHeartbeatIndex",
            "LastAllocUpdateIndex",
            "HeartbeatTTL",
            "Timestamp",
            "StatusUpdatedAt",
            "LastContact",
            "NumNodes",
            "SignedIdentity",
            "IdentitySigningKeyID",
            "ComputedClass",
            "NodeResources",
        ];
        OWN.contains(&key) || self.own.contains(&key)
    }
}

/// A value that is the server's own: of the same kind, and as near to nothing as the recorded one.
fn own_value(wanted: &Value, heard: &Value) -> Result<(), &'static str> {
    match (wanted, heard) {
        (Value::Number(w), Value::Number(h)) => {
            let (w, h) = (w.as_f64().unwrap(), h.as_f64().unwrap());
            if h < 0.0 || (w > 0.0 && h == 0.0) { Err("nothing") } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

/// What holdfast says beyond the recordings of events that it does not hold (R8.6).
fn is_gap(item: &Item) -> bool {
    matches!(item, Item::Value(value) if value["Event"]["Data"].as_str().is_some_and(|data| data.contains("\"Gap\"")))
}

fn is_event(item: &Item) -> bool {
    matches!(item, Item::Value(value) if value["Event"]["Data"].as_str().is_some_and(|data| data != "{}"))
}

/// Whether all that is wanted was heard, as far as its amount goes.
fn covers(heard: &Heard, wanted: &Heard, said: &Heard) -> bool {
    let streams = wanted.streams.iter().all(|(stream, wanted)| {
        // A silent stream waits for its first byte without an answer (R1.40).
        let spoke = said.streams.get(stream).is_some_and(|said| !said.bytes.is_empty());
        heard.items(*stream).len() >= wanted.items.len() && (heard.acked(*stream) || !wanted.acked || !spoke)
    });
    streams && heard.pongs.len() >= wanted.pongs.len() && (heard.ended || !wanted.ended)
}
