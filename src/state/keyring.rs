//! The key ring as it is replicated: the public halves of the keys that sign node identities, and the ids of those that
//! seal variables, which are the same.
//!
//! Never holds a private key: those are on the servers' disks. Source: endpoint notes, section 11; Nomad
//! `nomad/keyring_endpoint.go`.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::watch::WatchKey;
use crate::state::{Applied, ApplyResult};

/// Bytes of a raw Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// Why the newest key stays.
pub const ACTIVE_KEY: &str = "active root key cannot be deleted - call rotate first";
/// Why a key stays that variables are under.
pub const KEY_IN_USE: &str = "root key in use, cannot delete";

/// A public key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigningKey {
    /// A UUID, the `kid` of tokens.
    pub key_id: String,
    /// Raw Ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// Nanoseconds since the Unix epoch.
    pub create_time: i64,
    /// When it was added.
    pub create_index: u64,
    /// When it was added, or became old.
    pub modify_index: u64,
    /// All variables are to be put under it.
    pub rekey: bool,
}

/// The keys, newest last. There are few.
#[derive(Clone, Debug)]
pub(super) struct SigningKeys {
    keys: Arc<[Arc<SigningKey>]>,
    index: Index,
}

impl Default for SigningKeys {
    fn default() -> SigningKeys {
        SigningKeys { keys: Arc::new([]), index: Index(0) }
    }
}

impl SigningKeys {
    pub(super) fn all(&self) -> &[Arc<SigningKey>] {
        &self.keys
    }

    pub(super) fn index(&self) -> Index {
        self.index
    }

    /// What a snapshot holds.
    pub(super) fn restored(keys: Vec<SigningKey>, index: Index) -> SigningKeys {
        SigningKeys { keys: keys.into_iter().map(Arc::new).collect(), index }
    }

    /// Adds a key. One that is known stays as it is: whoever added it did not hear so, and asked again.
    pub(super) fn add(&mut self, index: Index, key: SigningKey) -> Applied {
        if key.key_id.is_empty() || key.public_key.len() != PUBLIC_KEY_BYTES {
            let why = format!("a signing key has an id and {PUBLIC_KEY_BYTES} bytes");
            return Applied { result: ApplyResult::Refused(why), ..Applied::default() };
        }
        if self.keys.iter().any(|known| known.key_id == key.key_id) {
            return Applied::default();
        }
        let mut keys = self.keys.to_vec();
        if let Some(before) = keys.last_mut() {
            Arc::make_mut(before).modify_index = index.0;
        }
        keys.push(Arc::new(SigningKey { create_index: index.0, modify_index: index.0, ..key }));
        self.changed(index, keys)
    }

    /// Forgets a key, unless it is the newest, or in use. One that is not known is gone already.
    pub(super) fn delete(&mut self, index: Index, key_id: &str, is_used: bool) -> Applied {
        let refused = |why: &str| Applied { result: ApplyResult::Refused(why.to_owned()), ..Applied::default() };
        let Some(at) = self.keys.iter().position(|key| key.key_id == key_id) else { return Applied::default() };
        if at + 1 == self.keys.len() {
            return refused(ACTIVE_KEY);
        }
        if is_used {
            return refused(KEY_IN_USE);
        }
        let mut keys = self.keys.to_vec();
        keys.remove(at);
        self.changed(index, keys)
    }

    fn changed(&mut self, index: Index, keys: Vec<Arc<SigningKey>>) -> Applied {
        self.keys = keys.into();
        self.index = index;
        Applied { touched: vec![WatchKey::signing_keys()].into(), ..Applied::default() }
    }

    /// Puts the keys that are here behind those of a snapshot: all stay known, and the newest here is the newest.
    pub(super) fn join(&mut self, here: &SigningKeys) {
        let is_here = |key: &Arc<SigningKey>| here.keys.iter().any(|other| other.key_id == key.key_id);
        self.keys = self.keys.iter().filter(|key| !is_here(key)).chain(&*here.keys).cloned().collect();
    }

    /// Makes every index above `most` that one, and the table's own too.
    pub(super) fn lower_indexes(&mut self, most: Index) {
        let lowered = |key: &Arc<SigningKey>| {
            let mut key = SigningKey::clone(key);
            key.create_index = key.create_index.min(most.0);
            key.modify_index = key.modify_index.min(most.0);
            Arc::new(key)
        };
        self.keys = self.keys.iter().map(lowered).collect();
        self.index = most;
    }
}
