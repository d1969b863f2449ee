//! The msgpack that Go peers write, to and from JSON in the notation of the recorded sessions: raw strings as text, or
//! `{"$raw_hex": ..}` where they are none.

use serde_json::{Map, Value, json};

use super::{hex, unhex};

pub fn pack(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    pack_into(value, &mut out);
    out
}

fn pack_into(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(flag) => out.push(0xc2 | u8::from(*flag)),
        Value::Number(number) => pack_number(number, out),
        Value::String(text) => pack_raw(text.as_bytes(), out),
        Value::Array(items) => {
            head(items.len(), 0x90, 0xdc, out);
            items.iter().for_each(|item| pack_into(item, out));
        }
        Value::Object(map) if map.len() == 1 && map.contains_key("$raw_hex") => {
            pack_raw(&unhex(map["$raw_hex"].as_str().unwrap()), out);
        }
        Value::Object(map) => {
            head(map.len(), 0x80, 0xde, out);
            for (key, item) in map {
                pack_raw(key.as_bytes(), out);
                pack_into(item, out);
            }
        }
    }
}

fn pack_number(number: &serde_json::Number, out: &mut Vec<u8>) {
    match (number.as_u64(), number.as_i64()) {
        (Some(small @ 0..=127), _) => out.push(small as u8),
        (Some(large), _) => {
            out.push(0xcf);
            out.extend(large.to_be_bytes());
        }
        (None, Some(negative)) => {
            out.push(0xd3);
            out.extend(negative.to_be_bytes());
        }
        (None, None) => {
            out.push(0xcb);
            out.extend(number.as_f64().unwrap().to_be_bytes());
        }
    }
}

fn pack_raw(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len() {
        short @ 0..=31 => out.push(0xa0 | short as u8),
        long @ 32..=0xffff => {
            out.push(0xda);
            out.extend((long as u16).to_be_bytes());
        }
        huge => {
            out.push(0xdb);
            out.extend((huge as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(bytes);
}

fn head(count: usize, fixed: u8, two_bytes: u8, out: &mut Vec<u8>) {
    match count {
        0..=15 => out.push(fixed | count as u8),
        _ => {
            out.push(two_bytes);
            out.extend(u16::try_from(count).unwrap().to_be_bytes());
        }
    }
}

/// The first value, and how long it is; `None` while it is not whole, or none at all.
pub fn unpack(bytes: &[u8]) -> Option<(Value, usize)> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value()?;
    Some((value, reader.at))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn uint(&mut self, width: usize) -> Option<u64> {
        Some(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn int(&mut self, width: usize) -> Option<Value> {
        let shift = 64 - 8 * width as u32;
        Some(json!(((self.uint(width)? << shift) as i64) >> shift))
    }

    fn raw(&mut self, count: usize) -> Option<Value> {
        let bytes = self.take(count)?;
        Some(match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({ "$raw_hex": hex(bytes) }),
        })
    }

    fn array(&mut self, count: usize) -> Option<Value> {
        (0..count).map(|_| self.value()).collect()
    }

    fn map(&mut self, count: usize) -> Option<Value> {
        let mut map = Map::new();
        for _ in 0..count {
            let key = self.value()?;
            let value = self.value()?;
            map.insert(key.as_str().map_or_else(|| key.to_string(), str::to_owned), value);
        }
        Some(map.into())
    }

    fn value(&mut self) -> Option<Value> {
        let first = self.uint(1)? as u8;
        Some(match first {
            0..=0x7f => json!(first),
            0x80..=0x8f => self.map(usize::from(first & 15))?,
            0x90..=0x9f => self.array(usize::from(first & 15))?,
            0xa0..=0xbf => self.raw(usize::from(first & 31))?,
            0xc0 => Value::Null,
            0xc2 => false.into(),
            0xc3 => true.into(),
            0xca => json!(f64::from(f32::from_bits(self.uint(4)? as u32))),
            0xcb => json!(f64::from_bits(self.uint(8)?)),
            0xcc => json!(self.uint(1)?),
            0xcd => json!(self.uint(2)?),
            0xce => json!(self.uint(4)?),
            0xcf => json!(self.uint(8)?),
            0xd0 => self.int(1)?,
            0xd1 => self.int(2)?,
            0xd2 => self.int(4)?,
            0xd3 => self.int(8)?,
            0xda => {
                let count = self.uint(2)? as usize;
                self.raw(count)?
            }
            0xdb => {
                let count = self.uint(4)? as usize;
                self.raw(count)?
            }
            0xdc => {
                let count = self.uint(2)? as usize;
                self.array(count)?
            }
            0xdd => {
                let count = self.uint(4)? as usize;
                self.array(count)?
            }
            0xde => {
                let count = self.uint(2)? as usize;
                self.map(count)?
            }
            0xdf => {
                let count = self.uint(4)? as usize;
                self.map(count)?
            }
            0xe0.. => json!(i64::from(first as i8)),
            // No Go peer of this protocol writes anything else.
            _ => return None,
        })
    }
}
