//! The tables of a snapshot beside the nodes and the signing keys: each a section that says how its rows are written
//! and read.
//!
//! A new table is a new row of [`SECTIONS`]; tags are never given out twice. A build that meets a tag it does not know
//! refuses the snapshot: it would lose what is in it.

use crate::base::id::Index;
use crate::state::acl::stored;
use crate::state::{State, namespaces, operator, servers, session_rows, var_rows};
use crate::wire::msgpack::{Decoder, Result as Decoded};

/// One table in a snapshot.
pub(super) struct Section {
    /// Names it on disk.
    pub(super) tag: u64,
    /// The table's index.
    pub(super) index: fn(&State) -> Index,
    /// Its rows, each one msgpack value, always in the same order. An iterator whose `size_hint` is exact spares a walk
    /// through all of them.
    pub(super) rows: fn(&State) -> Box<dyn Iterator<Item = Vec<u8>> + '_>,
    /// Reads one row into the state: refuses one that comes out of order, and passes over values that a later build
    /// added to it (`snapshot::fields`).
    pub(super) restore_row: fn(&mut State, &mut Decoder<'_>) -> Decoded<()>,
    /// Comes after the last row: the table's index, and whatever follows from the rows as a whole.
    pub(super) restore_index: fn(&mut State, Index),
}

/// All of them, in the order in which they are written.
pub(super) const SECTIONS: &[Section] = &[
    var_rows::VARS,
    var_rows::FENCES,
    stored::TOKENS,
    stored::POLICIES,
    stored::ROLES,
    stored::BOOTSTRAP,
    namespaces::SECTION,
    operator::CONFIGURATIONS,
    operator::RESTORE,
    servers::SECTION,
    session_rows::SECTION,
];

/// Tags of sections.
#[allow(dead_code)]
pub(super) mod tag {
    /// Variables.
    pub(in crate::state) const VARS: u64 = 1;
    /// Fences of variables that were removed.
    pub(in crate::state) const FENCES: u64 = 2;
    /// Tokens.
    pub(in crate::state) const TOKENS: u64 = 3;
    /// Policies.
    pub(in crate::state) const POLICIES: u64 = 4;
    /// Roles.
    pub(in crate::state) const ROLES: u64 = 5;
    /// Namespaces.
    pub(in crate::state) const NAMESPACES: u64 = 6;
    /// What operators set.
    pub(in crate::state) const OPERATOR: u64 = 7;
    /// A restore that is under way.
    pub(in crate::state) const RESTORE: u64 = 8;
    /// When the first management token was made.
    pub(in crate::state) const ACL_BOOTSTRAP: u64 = 9;
    /// The cluster's servers.
    pub(in crate::state) const SERVERS: u64 = 10;
    /// Sessions and their answers.
    pub(in crate::state) const SESSIONS: u64 = 11;
}
