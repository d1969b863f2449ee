//! The root to bytes and back, in chunks, each with its checksum.
//!
//! A chunk: magic, version, kind, number, length of the payload, CRC-32C of these, payload, CRC-32C of it; numbers
//! big-endian. The payloads of all data chunks together are msgpack values: the head of the state, the nodes in the
//! order of their ids, the signing keys in theirs, and the sections that the head names. A last chunk says how much came before it. Never reads past a
//! length whose checksum was wrong.

use crate::base::crc32c::crc32c;
use crate::base::id::Index;
use crate::state::State;
use crate::state::keyring::{SigningKey, SigningKeys};
use crate::state::node::{Node, NodeStatus};
use crate::state::sections::{SECTIONS, Section};
use crate::wire::msgpack::{DecodeError, Decoder, Encoder, Msg, Result as Decoded};

/// Bytes of a chunk's content at most; every chunk but the last two has as many.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// Version of the format.
pub const SNAPSHOT_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"HFSN";
/// Bytes in front of a payload: 4 magic, 2 version, 2 kind, 4 number, 4 length, 4 checksum.
const HEAD_BYTES: usize = 20;
/// Bytes of a checksum.
const SUM_BYTES: usize = 4;
const KIND_DATA: u16 = 1;
const KIND_END: u16 = 2;
/// Sections that a head may name.
const MAX_SECTIONS: usize = 64;

/// Writes the state as chunks. The same state gives the same bytes.
pub fn write(state: &State) -> impl Iterator<Item = Vec<u8>> + '_ {
    let nodes = state.nodes_from("").map(|node| encode(|e| encode_node(node, e)));
    let keys = state.signing_keys().iter().map(|key| encode(|e| encode_key(key, e)));
    let sections = SECTIONS.iter().flat_map(|section| (section.rows)(state));
    let records = std::iter::once(encode(|e| encode_head(state, e))).chain(nodes).chain(keys).chain(sections);
    Chunks { records, pending: Vec::new(), number: 0, payload_bytes: 0, ended: false }
}

/// Cuts records into chunks.
struct Chunks<I> {
    records: I,
    pending: Vec<u8>,
    number: u32,
    payload_bytes: u64,
    ended: bool,
}

impl<I: Iterator<Item = Vec<u8>>> Iterator for Chunks<I> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        while self.pending.len() < CHUNK_BYTES {
            let Some(record) = self.records.next() else { break };
            self.pending.extend(record);
        }
        if self.ended {
            return None;
        }
        if self.pending.is_empty() {
            self.ended = true;
            let end = encode(|e| {
                e.array(2);
                e.u64(u64::from(self.number));
                e.u64(self.payload_bytes);
            });
            return Some(chunk(KIND_END, self.number, &end));
        }
        let rest = self.pending.split_off(self.pending.len().min(CHUNK_BYTES));
        let payload = std::mem::replace(&mut self.pending, rest);
        let made = chunk(KIND_DATA, self.number, &payload);
        self.number += 1;
        self.payload_bytes += payload.len() as u64;
        Some(made)
    }
}

fn chunk(kind: u16, number: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a payload is no longer than CHUNK_BYTES");
    let mut bytes = Vec::with_capacity(HEAD_BYTES + payload.len() + SUM_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(SNAPSHOT_VERSION.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(crc32c(&bytes).to_be_bytes());
    bytes.extend(payload);
    bytes.extend(crc32c(payload).to_be_bytes());
    bytes
}

/// Why a snapshot was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// A chunk is damaged; its number and the byte offset in the whole.
    Damaged {
        /// Counted from 0.
        chunk: usize,
        /// Bytes from the beginning.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A version that this build does not know.
    Version(u64),
    /// It holds a section that this build does not know, by its tag: reading it would lose what is in it.
    Section(u64),
    /// It ends early.
    Truncated,
}

impl std::fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SnapshotError::Damaged { chunk, offset, what } => {
                write!(f, "snapshot is damaged in chunk {chunk} at byte {offset}: {what}")
            }
            SnapshotError::Version(version) => {
                write!(f, "snapshot is of version {version}, known is {SNAPSHOT_VERSION}")
            }
            SnapshotError::Section(tag) => {
                write!(f, "snapshot holds section {tag}, which this build does not know: a later build wrote it")
            }
            SnapshotError::Truncated => f.write_str("snapshot ends early"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// Reads what [`write()`] wrote, all its chunks one after another.
///
/// # Errors
/// Anything but exactly that.
pub fn read(bytes: &[u8]) -> Result<State, SnapshotError> {
    let payload = read_chunks(bytes)?;
    let mut d = Decoder::new(&payload);
    let damaged = |error: DecodeError| {
        // Every data chunk but the last is full.
        let pos = usize::try_from(error.pos).unwrap_or(payload.len());
        let chunk = pos / CHUNK_BYTES;
        let offset = chunk * (HEAD_BYTES + CHUNK_BYTES + SUM_BYTES) + HEAD_BYTES + pos % CHUNK_BYTES;
        SnapshotError::Damaged { chunk, offset: offset as u64, what: error.what.to_owned() }
    };
    let head = StateHead::decode(&mut d).map_err(damaged)?;
    let mut sections = Vec::with_capacity(head.sections.len());
    for said in &head.sections {
        let known = SECTIONS.iter().find(|section| section.tag == said.tag);
        sections.push((known.ok_or(SnapshotError::Section(said.tag))?, said));
    }
    decode_state(&mut d, &head, &sections).map_err(damaged)
}

/// The payloads of all data chunks, checked, one after another.
fn read_chunks(bytes: &[u8]) -> Result<Vec<u8>, SnapshotError> {
    let mut payload = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut number = 0;
    loop {
        let damaged = |what: &str| SnapshotError::Damaged {
            chunk: number as usize,
            offset: (bytes.len() - rest.len()) as u64,
            what: what.to_owned(),
        };
        let head = Head::read(rest, number).map_err(|fault| fault.at(&damaged))?;
        let Some((body, after)) = rest[HEAD_BYTES..].split_at_checked(head.len + SUM_BYTES) else {
            return Err(SnapshotError::Truncated);
        };
        let (part, sum) = body.split_at(head.len);
        if sum != crc32c(part).to_be_bytes() {
            return Err(damaged("checksum of the content is wrong"));
        }
        match head.kind {
            KIND_DATA => payload.extend_from_slice(part),
            KIND_END if !after.is_empty() => return Err(damaged("bytes after the last chunk")),
            KIND_END => {
                let said = (u64::from(number), payload.len() as u64);
                return if decode_end(part) == Ok(said) { Ok(payload) } else { Err(damaged("chunks are missing")) };
            }
            _ => return Err(damaged("unknown kind of chunk")),
        }
        rest = after;
        number += 1;
    }
}

/// What is wrong with a head.
enum HeadFault {
    Short,
    Version(u16),
    Other(&'static str),
}

impl HeadFault {
    fn at(self, damaged: &dyn Fn(&str) -> SnapshotError) -> SnapshotError {
        match self {
            HeadFault::Short => SnapshotError::Truncated,
            HeadFault::Version(version) => SnapshotError::Version(u64::from(version)),
            HeadFault::Other(what) => damaged(what),
        }
    }
}

/// The head of a chunk, checked.
struct Head {
    kind: u16,
    len: usize,
}

impl Head {
    /// Reads the head that begins `bytes`, of the chunk with this number. Every later version keeps this layout.
    fn read(bytes: &[u8], number: u32) -> Result<Head, HeadFault> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or(HeadFault::Short)?;
        let [m0, m1, m2, m3, v0, v1, k0, k1, n0, n1, n2, n3, l0, l1, l2, l3, sum @ ..] = head;
        if [*m0, *m1, *m2, *m3] != MAGIC {
            return Err(HeadFault::Other("no chunk begins here"));
        }
        if *sum != crc32c(&head[..HEAD_BYTES - SUM_BYTES]).to_be_bytes() {
            return Err(HeadFault::Other("checksum of the head is wrong"));
        }
        let version = u16::from_be_bytes([*v0, *v1]);
        if version != SNAPSHOT_VERSION {
            return Err(HeadFault::Version(version));
        }
        if u32::from_be_bytes([*n0, *n1, *n2, *n3]) != number {
            return Err(HeadFault::Other("chunk is out of order"));
        }
        let len = u32::from_be_bytes([*l0, *l1, *l2, *l3]) as usize;
        if len > CHUNK_BYTES {
            return Err(HeadFault::Other("chunk is too long"));
        }
        Ok(Head { kind: u16::from_be_bytes([*k0, *k1]), len })
    }
}

fn decode_end(payload: &[u8]) -> Decoded<(u64, u64)> {
    let mut d = Decoder::new(payload);
    fields(&mut d, 2, |d| Ok((d.u64()?, d.u64()?)))
}

/// What is written, as bytes.
pub(super) fn encode(write: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut e = Encoder::new();
    write(&mut e);
    e.out
}

/// Reads a list of `known` values; a later build may have written more, which are passed over.
pub(super) fn fields<'a, T>(
    d: &mut Decoder<'a>,
    known: usize,
    read: impl FnOnce(&mut Decoder<'a>) -> Decoded<T>,
) -> Decoded<T> {
    let len = d.array()?.unwrap_or(0);
    let later = len.checked_sub(known).ok_or_else(|| d.error("a field is missing"))?;
    let value = read(d)?;
    (0..later).try_for_each(|_| d.skip())?;
    Ok(value)
}

fn encode_head(state: &State, e: &mut Encoder) {
    e.array(StateHead::FIRST_FIELDS + 1);
    e.u64(state.index().0);
    e.i64(state.time_unix_nanos());
    e.u64(state.nodes_index().0);
    e.u64(state.signing_keys_index().0);
    e.u64(state.node_count() as u64);
    e.u64(state.signing_keys().len() as u64);
    let sections = SECTIONS.iter().map(|section| SectionHead::of(section, state));
    let sections: Vec<_> = sections.filter(|section| section.index != Index(0) || section.rows != 0).collect();
    e.array(sections.len());
    for section in sections {
        e.array(3);
        e.u64(section.tag);
        e.u64(section.index.0);
        e.u64(section.rows);
    }
}

/// What comes first in a state: how much of what follows.
struct StateHead {
    index: Index,
    time_unix_nanos: i64,
    nodes_index: Index,
    keys_index: Index,
    nodes: u64,
    keys: u64,
    sections: Vec<SectionHead>,
}

/// What the head says of a section.
struct SectionHead {
    tag: u64,
    index: Index,
    rows: u64,
}

impl SectionHead {
    fn of(section: &Section, state: &State) -> SectionHead {
        let rows = (section.rows)(state);
        // Most tables know how many rows they have, without going through them.
        let rows = match rows.size_hint() {
            (least, Some(most)) if least == most => least,
            _ => rows.count(),
        };
        SectionHead { tag: section.tag, index: (section.index)(state), rows: rows as u64 }
    }
}

impl StateHead {
    /// Values that it had when there were no sections; such a head is still read.
    const FIRST_FIELDS: usize = 6;

    fn decode(d: &mut Decoder<'_>) -> Decoded<StateHead> {
        let len = d.array()?.unwrap_or(0);
        let later = len.checked_sub(StateHead::FIRST_FIELDS).ok_or_else(|| d.error("a field is missing"))?;
        let mut head = StateHead {
            index: Index(d.u64()?),
            time_unix_nanos: d.i64()?,
            nodes_index: Index(d.u64()?),
            keys_index: Index(d.u64()?),
            nodes: d.u64()?,
            keys: d.u64()?,
            sections: Vec::new(),
        };
        if later == 0 {
            return Ok(head);
        }
        let at = d.error("too many sections");
        let sections = d.array()?.unwrap_or(0);
        if sections > MAX_SECTIONS {
            return Err(at);
        }
        for _ in 0..sections {
            let at = d.error("a section comes twice");
            let section = fields(d, 3, |d| Ok(SectionHead { tag: d.u64()?, index: Index(d.u64()?), rows: d.u64()? }))?;
            if head.sections.iter().any(|other| other.tag == section.tag) {
                return Err(at);
            }
            head.sections.push(section);
        }
        (1..later).try_for_each(|_| d.skip())?;
        Ok(head)
    }
}

fn decode_state(d: &mut Decoder<'_>, head: &StateHead, sections: &[(&Section, &SectionHead)]) -> Decoded<State> {
    let mut state = State::new();
    state.index = head.index;
    state.time_unix_nanos = head.time_unix_nanos;
    let mut last = String::new();
    for nth in 0..head.nodes {
        let at = d.error("nodes are out of order");
        let node = fields(d, 23, decode_node)?;
        if nth > 0 && *last >= *node.id {
            return Err(at);
        }
        last = (*node.id).to_owned();
        state.nodes.restore(node);
    }
    state.nodes.restore_index(head.nodes_index);
    let mut signing_keys = Vec::new();
    for _ in 0..head.keys {
        signing_keys.push(decode_key(d)?);
    }
    state.signing_keys = SigningKeys::restored(signing_keys, head.keys_index);
    for (section, said) in sections {
        (0..said.rows).try_for_each(|_| (section.restore_row)(&mut state, d))?;
        (section.restore_index)(&mut state, said.index);
    }
    if !d.at_end() {
        return Err(d.error("bytes after the last record"));
    }
    Ok(state)
}

pub(super) fn encode_node(node: &Node, e: &mut Encoder) {
    e.array(23);
    let texts = [
        &node.id,
        &node.secret_id,
        &node.name,
        &node.datacenter,
        &node.node_pool,
        &node.node_class,
        &node.computed_class,
        &node.http_addr,
        &node.version,
    ];
    texts.into_iter().for_each(|text| e.str(text));
    e.str(node.status.as_str());
    e.str(&node.status_description);
    e.i64(node.status_updated_at);
    e.bool(node.eligible);
    node.drain.encode(e);
    node.last_drain.encode(e);
    node.events.encode(e);
    e.u64(node.last_missed_heartbeat_index);
    e.u64(node.last_alloc_update_index);
    e.str(&node.identity_signing_key_id);
    e.u64(node.create_index);
    e.u64(node.modify_index);
    e.bytes(&node.rest);
    e.u64(node.rest_len as u64);
}

fn decode_node(d: &mut Decoder<'_>) -> Decoded<Node> {
    let mut node = Node {
        id: Msg::decode(d)?,
        secret_id: Msg::decode(d)?,
        name: Msg::decode(d)?,
        datacenter: Msg::decode(d)?,
        node_pool: Msg::decode(d)?,
        node_class: Msg::decode(d)?,
        computed_class: Msg::decode(d)?,
        http_addr: Msg::decode(d)?,
        version: Msg::decode(d)?,
        status: decode_status(d)?,
        status_description: Msg::decode(d)?,
        status_updated_at: d.i64()?,
        eligible: d.bool()?,
        drain: Msg::decode(d)?,
        last_drain: Msg::decode(d)?,
        events: Msg::decode(d)?,
        last_missed_heartbeat_index: d.u64()?,
        last_alloc_update_index: d.u64()?,
        identity_signing_key_id: Msg::decode(d)?,
        create_index: d.u64()?,
        modify_index: d.u64()?,
        rest: [].into(),
        rest_len: 0,
    };
    let at = d.error("the fields of a node are not as many as said");
    let rest = d.bytes()?;
    node.rest_len = count_pairs(rest)?;
    node.rest = rest.into();
    if d.u64()? != node.rest_len as u64 {
        return Err(at);
    }
    Ok(node)
}

fn decode_status(d: &mut Decoder<'_>) -> Decoded<NodeStatus> {
    let at = d.error("unknown status");
    NodeStatus::from_word(d.str()?).ok_or(at)
}

/// How many pairs of text and value these bytes are.
fn count_pairs(bytes: &[u8]) -> Decoded<usize> {
    let mut d = Decoder::new(bytes);
    let mut pairs = 0;
    while !d.at_end() {
        d.str()?;
        d.skip()?;
        pairs += 1;
    }
    Ok(pairs)
}

pub(super) fn encode_key(key: &SigningKey, e: &mut Encoder) {
    e.array(6);
    e.str(&key.key_id);
    e.bytes(&key.public_key);
    e.i64(key.create_time);
    e.u64(key.create_index);
    e.u64(key.modify_index);
    e.bool(key.rekey);
}

fn decode_key(d: &mut Decoder<'_>) -> Decoded<SigningKey> {
    let len = d.array()?.unwrap_or(0);
    let later = len.checked_sub(4).ok_or_else(|| d.error("a field is missing"))?;
    let mut key = SigningKey {
        key_id: Msg::decode(d)?,
        public_key: d.bytes()?.to_vec(),
        create_time: d.i64()?,
        create_index: d.u64()?,
        ..SigningKey::default()
    };
    // The first builds wrote the fields up to here.
    key.modify_index = if later > 0 { d.u64()? } else { key.create_index };
    key.rekey = later > 1 && d.bool()?;
    (2..later).try_for_each(|_| d.skip())?;
    Ok(key)
}
