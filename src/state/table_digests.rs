//! Digests of the tables, for servers that compare themselves: where two differ, the table is known by name.

use ring::digest::{Context, SHA256};

use super::sections::{SECTIONS, tag};
use super::{State, snapshot};

/// Bytes of a table's digest: the first half of SHA-256.
const DIGEST_BYTES: usize = 16;
/// The nodes, which have no section.
const NODES: u8 = 254;
/// The signing keys, which have none.
const SIGNING_KEYS: u8 = 255;

impl State {
    /// A digest of each table: its tag, then 16 bytes, one table after another. Reads the whole state.
    pub fn table_digests(&self) -> Vec<u8> {
        let mut all = Vec::new();
        let mut add = |tag: u8, index: u64, rows: &mut dyn Iterator<Item = Vec<u8>>| {
            let mut context = Context::new(&SHA256);
            context.update(&index.to_be_bytes());
            for row in rows {
                context.update(&(row.len() as u64).to_be_bytes());
                context.update(&row);
            }
            all.push(tag);
            all.extend(context.finish().as_ref().iter().take(DIGEST_BYTES));
        };
        let nodes = &mut self.nodes_from("").map(|node| snapshot::encode(|e| snapshot::encode_node(node, e)));
        add(NODES, self.nodes_index().0, nodes);
        let keys = &mut self.signing_keys().iter().map(|key| snapshot::encode(|e| snapshot::encode_key(key, e)));
        add(SIGNING_KEYS, self.signing_keys_index().0, keys);
        for section in SECTIONS {
            let tag = u8::try_from(section.tag).unwrap_or(0);
            add(tag, (section.index)(self).0, &mut (section.rows)(self));
        }
        all
    }
}

/// Names of the tables in which two such digests differ.
pub fn differing_tables(a: &[u8], b: &[u8]) -> Vec<&'static str> {
    let tables = a.chunks(1 + DIGEST_BYTES).zip(b.chunks(1 + DIGEST_BYTES));
    let named = tables.filter(|(a, b)| a != b).filter_map(|(a, _)| a.first().map(|tag| table_name(*tag)));
    let mut names: Vec<&str> = named.collect();
    if a.len() != b.len() {
        names.push("unknown tables");
    }
    names
}

fn table_name(of: u8) -> &'static str {
    match of {
        NODES => return "nodes",
        SIGNING_KEYS => return "signing keys",
        _ => {}
    }
    match u64::from(of) {
        tag::VARS => "variables",
        tag::FENCES => "fences",
        tag::TOKENS => "ACL tokens",
        tag::POLICIES => "ACL policies",
        tag::ROLES => "ACL roles",
        tag::NAMESPACES => "namespaces",
        tag::OPERATOR => "configurations",
        tag::RESTORE => "restore",
        tag::ACL_BOOTSTRAP => "ACL bootstrap",
        tag::SERVERS => "servers",
        tag::SESSIONS => "sessions",
        _ => "unknown table",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::{Index, Term};
    use crate::wire::entry::server::ServerRecord;
    use crate::wire::entry::{Command, Entry};

    #[test]
    fn a_difference_names_its_table() {
        // R8.18
        let apply = |state: &mut State, index, command| {
            let _ = state.apply(Index(index), Term(1), &Entry { time_unix_nanos: 1, session: None, command });
        };
        let (mut one, mut other) = (State::new(), State::new());
        assert!(differing_tables(&one.table_digests(), &other.table_digests()).is_empty());
        apply(&mut one, 1, Command::DigestMark);
        apply(&mut other, 1, Command::DigestMark);
        let record = |name: &str| ServerRecord { id: "a".to_owned(), name: name.to_owned(), ..ServerRecord::default() };
        apply(&mut one, 2, Command::ServerUpsert(record("x")));
        apply(&mut other, 2, Command::ServerUpsert(record("y")));
        assert_eq!(differing_tables(&one.table_digests(), &other.table_digests()), ["servers"]);
        assert_eq!(differing_tables(&one.table_digests(), &[]), ["unknown tables"]);
    }
}
