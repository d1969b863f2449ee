//! A node as its agent sent it, taken apart: what the server owns or compares, and the rest as it came.
//!
//! Refuses what no agent sends: no map, ids that are no text, nesting without end. Source: endpoint notes, 3.1.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::state::node;
use crate::wire::msgpack::{Decoder, Encoder, Kind, Result};

/// Maps and lists within each other in one field of a node. Agents send eight at most.
const MAX_FIELD_DEPTH: usize = 64;

/// What a Node.Register says of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Registration<'a> {
    pub(super) id: &'a str,
    pub(super) secret_id: &'a str,
    pub(super) name: &'a str,
    pub(super) datacenter: &'a str,
    pub(super) node_pool: &'a str,
    pub(super) node_class: &'a str,
    pub(super) http_addr: &'a str,
    pub(super) status: &'a str,
    pub(super) status_description: &'a str,
    pub(super) eligibility: &'a str,
    pub(super) identity_signing_key_id: &'a str,
    attributes: BTreeMap<&'a str, &'a str>,
    meta: BTreeMap<&'a str, &'a str>,
    rest: BTreeMap<(usize, &'a str), &'a [u8]>,
}

impl<'a> Registration<'a> {
    /// Reads the node. Of a key that comes twice, the last counts.
    ///
    /// # Errors
    /// Bytes that are no map from texts, a known field of another kind, nesting deeper than [`MAX_FIELD_DEPTH`], a
    /// value without a JSON form, or bytes after the map.
    pub(super) fn read(node: &'a [u8]) -> Result<Registration<'a>> {
        let mut d = Decoder::new(node);
        let len = d.map()?.ok_or_else(|| d.error("a node is a map"))?;
        let mut read = Registration::default();
        for _ in 0..len {
            let key = d.str()?;
            read.take(key, &mut d)?;
        }
        if !d.at_end() {
            return Err(d.error("bytes after the node"));
        }
        Ok(read)
    }

    fn take(&mut self, key: &'a str, d: &mut Decoder<'a>) -> Result<()> {
        let text = match key {
            "ID" => &mut self.id,
            "SecretID" => &mut self.secret_id,
            "Name" => &mut self.name,
            "Datacenter" => &mut self.datacenter,
            "NodePool" => &mut self.node_pool,
            "NodeClass" => &mut self.node_class,
            "HTTPAddr" => &mut self.http_addr,
            "Status" => &mut self.status,
            "StatusDescription" => &mut self.status_description,
            "SchedulingEligibility" => &mut self.eligibility,
            "IdentitySigningKeyID" => &mut self.identity_signing_key_id,
            _ => return self.take_other(key, d),
        };
        *text = d.str()?;
        Ok(())
    }

    fn take_other(&mut self, key: &'a str, d: &mut Decoder<'a>) -> Result<()> {
        check_value(d.clone())?;
        if node::is_column(key) {
            // The server's own; what an agent thinks of them does not count.
            return d.skip();
        }
        match key {
            "Attributes" => self.attributes = texts(d.clone())?,
            "Meta" => self.meta = texts(d.clone())?,
            _ => {}
        }
        self.rest.insert(node::rest_place(key), d.raw()?);
        Ok(())
    }

    /// Every key that the server does not own, with its value, and how many there are.
    pub(super) fn rest(&self) -> (Arc<[u8]>, usize) {
        let mut e = Encoder::new();
        for ((_, key), value) in &self.rest {
            e.str(key);
            e.raw(value);
        }
        (e.out.into(), self.rest.len())
    }

    /// The agent's version, empty when it says none.
    pub(super) fn version(&self) -> &'a str {
        self.attributes.get("nomad.version").copied().unwrap_or_default()
    }

    /// Whether the agent is of the 1.1 line or older, which sets its status as it registers.
    pub(super) fn registers_its_status(&self) -> bool {
        let mut parts = self.version().split('.').map(str::parse::<u32>);
        matches!((parts.next(), parts.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) < (1, 2))
    }

    /// A hash of what schedulers compare: nodes that differ only in their `unique.` keys have the same.
    pub(super) fn computed_class(&self) -> Arc<str> {
        let mut hash = Fnv::default();
        hash.text(self.datacenter);
        hash.text(self.node_class);
        for map in [&self.attributes, &self.meta] {
            for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("unique.")) {
                hash.text(key);
                hash.text(value);
            }
            // No text has this length, so the end of one map is never taken for a pair of it.
            hash.number(u64::MAX);
        }
        format!("v1:{}", hash.0).into()
    }
}

fn texts<'a>(mut d: Decoder<'a>) -> Result<BTreeMap<&'a str, &'a str>> {
    let len = d.map()?.unwrap_or(0);
    (0..len).map(|_| Ok((d.str()?, d.str()?))).collect()
}

/// Looks at one value, without recursion: whether it nests too deeply, and whether JSON has a form for it.
fn check_value(mut d: Decoder<'_>) -> Result<()> {
    // What is still to come of each open map or list, and whether it is a map: there every other value is a key.
    let mut open = vec![(1usize, false)];
    while let Some((left, is_map)) = open.last_mut() {
        let Some(fewer) = left.checked_sub(1) else {
            open.pop();
            continue;
        };
        let is_key = *is_map && *left % 2 == 0;
        *left = fewer;
        let kind = d.kind()?;
        let at = d.error("no agent sends this");
        if is_key && !matches!(kind, Kind::Str | Kind::Int) {
            return Err(at);
        }
        let children = match kind {
            Kind::Map => d.map()?.map(|pairs| (pairs * 2, true)),
            Kind::Array => d.array()?.map(|values| (values, false)),
            Kind::Str => d.bytes().map(|_| None)?,
            Kind::Ext => return Err(at),
            _ => d.skip().map(|()| None)?,
        };
        open.extend(children);
        if open.len() > MAX_FIELD_DEPTH + 1 {
            return Err(d.error("nested too deeply"));
        }
    }
    Ok(())
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Fnv {
        Fnv(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn number(&mut self, number: u64) {
        for byte in number.to_le_bytes() {
            self.byte(byte);
        }
    }

    /// With its length in front, so that two texts are never taken for one.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        text.bytes().for_each(|byte| self.byte(byte));
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}
