//! What a server said on one connection, understood: per stream its messages and how it ended, and what is the
//! session's own. Fed with bytes however they come.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::{hex, msgpack};

pub const DATA: u8 = 0;
pub const WINDOW: u8 = 1;
pub const PING: u8 = 2;
pub const GO_AWAY: u8 = 3;

pub const SYN: u16 = 1;
pub const ACK: u16 = 2;
pub const FIN: u16 = 4;
pub const RST: u16 = 8;

/// A frame's header.
pub fn frame(kind: u8, flags: u16, stream: u32, length: u32) -> Vec<u8> {
    let mut header = vec![0, kind];
    header.extend(flags.to_be_bytes());
    header.extend(stream.to_be_bytes());
    header.extend(length.to_be_bytes());
    header
}

/// One thing said on a stream.
#[derive(Clone, PartialEq)]
pub enum Item {
    /// The first byte of a stream that the server opened.
    Kind(u8),
    /// A msgpack value.
    Value(Value),
    Fin,
    Rst,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Kind(byte) => write!(f, "kind {byte:#04x}"),
            Item::Value(value) => write!(f, "{value}"),
            Item::Fin => f.write_str("FIN"),
            Item::Rst => f.write_str("RST"),
        }
    }
}

/// One stream, as far as the server's side of it goes.
#[derive(Clone, Default)]
pub struct Stream {
    pub items: Vec<Item>,
    pub acked: bool,
    /// All bytes of its data frames.
    pub bytes: Vec<u8>,
    /// Credit that the server granted on top of the first window.
    pub granted: u64,
    /// Of `bytes`, those that are in `items`.
    understood: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// No yamux: everything is stream 0.
    Single,
    /// No values either.
    Raw,
    Yamux {
        kinds: bool,
    },
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let items: Vec<String> =
            self.items.iter().map(|item| format!("{item:?}").chars().take(160).collect()).collect();
        let torn = self.bytes.len() - self.understood;
        write!(f, "acked={} torn={torn} {}", self.acked, items.join(" "))
    }
}

/// All that was heard on a connection.
#[derive(Clone, Debug)]
pub struct Heard {
    layer: Layer,
    waiting: Vec<u8>,
    pub streams: BTreeMap<u32, Stream>,
    /// Values of the server's pings.
    pub pings: Vec<u32>,
    /// Values of its answers to ours.
    pub pongs: Vec<u32>,
    pub go_aways: Vec<u32>,
    /// A header that is none; nothing is understood from there on.
    pub nonsense: Option<String>,
    /// Bytes in all.
    pub total: usize,
    /// The server closed.
    pub ended: bool,
}

impl Heard {
    /// What is said after a client's first byte.
    pub fn after(first_byte: Option<u8>) -> Heard {
        let layer = match first_byte {
            Some(1 | 5) => Layer::Single,
            Some(3) => Layer::Yamux { kinds: false },
            Some(6) => Layer::Yamux { kinds: true },
            _ => Layer::Raw,
        };
        Heard {
            layer,
            waiting: Vec::new(),
            streams: BTreeMap::new(),
            pings: Vec::new(),
            pongs: Vec::new(),
            go_aways: Vec::new(),
            nonsense: None,
            total: 0,
            ended: false,
        }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        self.total += bytes.len();
        match self.layer {
            Layer::Raw => self.streams.entry(0).or_default().bytes.extend_from_slice(bytes),
            Layer::Single => {
                let stream = self.streams.entry(0).or_default();
                stream.bytes.extend_from_slice(bytes);
                stream.understand(false);
            }
            Layer::Yamux { kinds } => {
                self.waiting.extend_from_slice(bytes);
                while self.frame(kinds) {}
            }
        }
    }

    /// Takes one frame; false while it is not whole.
    fn frame(&mut self, kinds: bool) -> bool {
        let Some(header) = self.waiting.get(..12) else { return false };
        if header[0] != 0 || header[1] > GO_AWAY {
            self.nonsense = Some(hex(header));
            return false;
        }
        let (kind, flags) = (header[1], u16::from_be_bytes([header[2], header[3]]));
        let stream = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let length = u32::from_be_bytes(header[8..12].try_into().unwrap());
        let end = 12 + if kind == DATA { length as usize } else { 0 };
        if self.waiting.len() < end {
            return false;
        }
        let frame: Vec<u8> = self.waiting.drain(..end).collect();
        match kind {
            DATA | WINDOW => {
                let said = self.streams.entry(stream).or_default();
                said.acked |= flags & ACK != 0;
                if kind == WINDOW {
                    said.granted += u64::from(length);
                }
                said.bytes.extend_from_slice(&frame[12..]);
                said.understand(kinds && stream.is_multiple_of(2));
                if flags & RST != 0 {
                    said.items.push(Item::Rst);
                } else if flags & FIN != 0 {
                    said.items.push(Item::Fin);
                }
            }
            PING if flags & SYN != 0 => self.pings.push(length),
            PING => self.pongs.push(length),
            _ => self.go_aways.push(length),
        }
        true
    }

    /// What was said on a stream.
    pub fn items(&self, stream: u32) -> &[Item] {
        self.streams.get(&stream).map_or(&[], |stream| &stream.items)
    }

    /// The messages of a stream, without how it ended.
    pub fn values(&self, stream: u32) -> Vec<&Value> {
        let values = self.items(stream).iter();
        values.filter_map(|item| if let Item::Value(value) = item { Some(value) } else { None }).collect()
    }

    pub fn acked(&self, stream: u32) -> bool {
        self.streams.get(&stream).is_some_and(|stream| stream.acked)
    }

    pub fn finished(&self, stream: u32) -> bool {
        self.items(stream).contains(&Item::Fin)
    }

    pub fn reset(&self, stream: u32) -> bool {
        self.items(stream).contains(&Item::Rst)
    }

    /// Bytes of all streams that are no whole message.
    pub fn torn(&self) -> usize {
        self.waiting.len() + self.streams.values().map(|stream| stream.bytes.len() - stream.understood).sum::<usize>()
    }
}

impl Stream {
    fn understand(&mut self, begins_with_kind: bool) {
        if begins_with_kind && self.understood == 0 && !self.bytes.is_empty() {
            self.items.push(Item::Kind(self.bytes[0]));
            self.understood = 1;
        }
        while let Some((value, length)) = msgpack::unpack(&self.bytes[self.understood..]) {
            self.items.push(Item::Value(value));
            self.understood += length;
        }
    }
}
