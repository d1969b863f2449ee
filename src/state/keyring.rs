//! The public halves of the keys that sign node identities.
//!
//! Never holds a private key: those are on the servers' disks.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::watch::WatchKey;
use crate::state::{Applied, ApplyResult};

/// Bytes of a raw Ed25519 public key.
const PUBLIC_KEY_BYTES: usize = 32;

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKey {
    /// A UUID, the `kid` of tokens.
    pub key_id: String,
    /// Raw Ed25519 public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// Nanoseconds since the Unix epoch.
    pub create_time: i64,
    /// When it was added.
    pub create_index: u64,
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
    pub(super) fn add(&mut self, index: Index, key_id: &str, public_key: &[u8], create_time: i64) -> Applied {
        if key_id.is_empty() || public_key.len() != PUBLIC_KEY_BYTES {
            let why = format!("a signing key has an id and {PUBLIC_KEY_BYTES} bytes");
            return Applied { result: ApplyResult::Refused(why), ..Applied::default() };
        }
        if self.keys.iter().any(|known| known.key_id == key_id) {
            return Applied::default();
        }
        let key = SigningKey {
            key_id: key_id.to_owned(),
            public_key: public_key.to_vec(),
            create_time,
            create_index: index.0,
        };
        self.keys = self.keys.iter().cloned().chain([Arc::new(key)]).collect();
        self.index = index;
        Applied { touched: vec![WatchKey::signing_keys()].into(), ..Applied::default() }
    }
}
