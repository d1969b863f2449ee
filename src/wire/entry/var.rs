//! Writes to variables and their locks, as the log holds them. Field names are short: every entry carries them.

use std::sync::Arc;

use crate::wire::msgpack::{Bytes, Decoder, Encoder, Msg, Result};
use crate::wire_structs;

/// What a write does to a variable (`Op` of Variables.Apply).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VarOpKind {
    /// Writes the items.
    #[default]
    Set,
    /// Writes them if the variable is as old as [`VarOp::check_index`] says; 0: if it is not there.
    Cas,
    /// Removes it.
    Delete,
    /// Removes it if it is as old as said.
    DeleteCas,
    /// Takes its lock, and writes the items.
    LockAcquire,
    /// Gives its lock back; the items stay.
    LockRelease,
}

impl VarOpKind {
    const ALL: [(VarOpKind, &'static str); 6] = [
        (VarOpKind::Set, "set"),
        (VarOpKind::Cas, "cas"),
        (VarOpKind::Delete, "delete"),
        (VarOpKind::DeleteCas, "delete-cas"),
        (VarOpKind::LockAcquire, "lock-acquire"),
        (VarOpKind::LockRelease, "lock-release"),
    ];

    /// The kind that a word of the API names.
    pub fn from_word(word: &str) -> Option<VarOpKind> {
        VarOpKind::ALL.iter().find(|(_, name)| *name == word).map(|(kind, _)| *kind)
    }

    /// Its word in the API.
    pub fn as_word(self) -> &'static str {
        VarOpKind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }
}

impl Msg for VarOpKind {
    fn encode(&self, e: &mut Encoder) {
        e.u64(VarOpKind::ALL.iter().position(|(kind, _)| kind == self).unwrap_or(0) as u64);
    }

    fn decode(d: &mut Decoder<'_>) -> Result<Self> {
        let unknown = d.error("unknown kind of write to a variable");
        let place = usize::try_from(d.u64()?).map_err(|_| unknown.clone())?;
        VarOpKind::ALL.get(place).map(|(kind, _)| *kind).ok_or(unknown)
    }
}

wire_structs! {
    /// Encrypted items of a variable.
    pub struct Sealed {
        /// The key of the key ring that sealed it.
        key_id: Arc<str> = "k",
        /// Nonce, ciphertext and tag.
        bytes: Bytes = "b",
    }
    /// One write to one variable.
    pub struct VarOp {
        /// What it does.
        kind: VarOpKind = "o",
        /// Never empty, never `*`.
        namespace: Arc<str> = "n",
        /// Never empty.
        path: Arc<str> = "p",
        /// The items, sealed; `None` for none.
        sealed: Option<Sealed> = "s",
        /// The ModifyIndex that a check-and-set demands.
        check_index: u64 = "c",
        /// The lock's id: of the one to take or to give back, or of the one under which a write is made.
        lock_id: String = "l",
        /// Nanoseconds that an acquired lock holds without being renewed.
        ttl: i64 = "t",
        /// Nanoseconds between its end by time and the next acquire.
        lock_delay: i64 = "d",
        /// What people call the holder.
        owner: String = "w",
        /// Above 0: refuse unless no higher fence was seen here (R8.1).
        fence: u64 = "f",
        /// An acquired lock leaves the items of a variable that is there as they are.
        keep_items: bool = "k",
    }
    /// Writes that happen all or not at all.
    pub struct VarApply {
        /// In order; each sees those before it.
        ops: Vec<VarOp> = "o",
    }
    /// Which lock of which variable.
    pub struct LockName {
        /// The variable's namespace.
        namespace: Arc<str> = "n",
        /// Its path.
        path: Arc<str> = "p",
        /// The lock's id.
        lock_id: String = "l",
    }
    /// Items of a variable under a new key: nothing else about the variable changes.
    pub struct Resealed {
        /// The variable's namespace.
        namespace: Arc<str> = "n",
        /// Its path.
        path: Arc<str> = "p",
        /// Left alone when the variable was written since.
        modify_index: u64 = "m",
        /// The same items under the new key.
        sealed: Sealed = "s",
    }
}
