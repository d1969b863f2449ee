//! Seals the items of variables, and opens them: AES-256-GCM under keys that are never in the log.
//!
//! A key's bytes are derived (HKDF-SHA-256, RFC 5869) from a root key that stays on the servers' disks. The nonce is a
//! MAC of what is sealed and of some chance, so that even chance that comes twice repeats a nonce for the same text at
//! the same place only. The place (namespace and path) is authenticated: sealed items cannot be moved elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Salt};
use ring::hmac;

use crate::wire::entry::var::Sealed;
use crate::wire::msgpack::Bytes;

/// What the derived keys are for.
const INFO: &[u8] = b"holdfast variables 1";

/// Derived bytes: an AES key and a key for nonces.
const DERIVED_BYTES: usize = 64;

/// One key of the key ring.
pub struct SealingKey {
    id: Arc<str>,
    key: LessSafeKey,
    nonces: hmac::Key,
}

struct Derived;

impl KeyType for Derived {
    fn len(&self) -> usize {
        DERIVED_BYTES
    }
}

impl SealingKey {
    /// The key that belongs to a root key: its id, and its secret bytes.
    ///
    /// # Errors
    /// A sentence, when the secret cannot be used.
    pub fn derive(id: &str, secret: &[u8]) -> Result<SealingKey, String> {
        let fail = |_| "a key cannot be derived from this secret".to_owned();
        let mut derived = [0; DERIVED_BYTES];
        let root = Salt::new(HKDF_SHA256, id.as_bytes()).extract(secret);
        root.expand(&[INFO], Derived).and_then(|okm| okm.fill(&mut derived)).map_err(fail)?;
        let (cipher, nonces) = derived.split_at(DERIVED_BYTES / 2);
        Ok(SealingKey {
            id: id.into(),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, cipher).map_err(fail)?),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, nonces),
        })
    }

    fn nonce(&self, place: &[u8], seed: u64, plain: &[u8]) -> [u8; NONCE_LEN] {
        let mut context = hmac::Context::with_key(&self.nonces);
        context.update(&(place.len() as u64).to_be_bytes());
        context.update(place);
        context.update(&seed.to_be_bytes());
        context.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.iter_mut().zip(context.sign().as_ref()).for_each(|(to, from)| *to = *from);
        nonce
    }
}

/// All keys that this server has.
pub struct Sealer {
    keys: BTreeMap<Arc<str>, SealingKey>,
    active: Arc<str>,
}

impl fmt::Debug for Sealer {
    /// Never shows a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys)", self.keys.len())
    }
}

/// Why items cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// This server does not have the key with this id.
    NoKey(String),
    /// They were not sealed with that key for this place, or were changed since.
    Damaged,
}

/// How [`OpenError::NoKey`] ends in words.
pub(super) const NOT_IN_RING: &str = ", which is not in this key ring";

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::NoKey(id) => write!(f, "variable is encrypted with key {id}{NOT_IN_RING}"),
            OpenError::Damaged => f.write_str("variable cannot be decrypted: its bytes were changed"),
        }
    }
}

impl Sealer {
    /// A key ring in which new items are sealed with the key `active`. `None` when that one is not among the keys.
    pub fn new(keys: Vec<SealingKey>, active: &str) -> Option<Sealer> {
        let keys: BTreeMap<Arc<str>, SealingKey> = keys.into_iter().map(|key| (Arc::clone(&key.id), key)).collect();
        let active = Arc::clone(keys.get_key_value(active)?.0);
        Some(Sealer { keys, active })
    }

    /// The key that new items are sealed with.
    pub fn active_id(&self) -> &Arc<str> {
        &self.active
    }

    /// Whether this key is here.
    pub fn has(&self, key_id: &str) -> bool {
        self.keys.contains_key(key_id)
    }

    /// Seals `plain` for a place. `seed` is chance, which need not be good.
    ///
    /// # Errors
    /// Text of a length that no variable has (64 GiB).
    pub fn seal(&self, namespace: &str, path: &str, seed: u64, plain: &[u8]) -> Result<Sealed, OpenError> {
        let key = self.keys.get(&self.active).ok_or_else(|| OpenError::NoKey(self.active.to_string()))?;
        let place = place(namespace, path);
        let nonce = key.nonce(&place, seed, plain);
        let mut bytes = Vec::with_capacity(NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        bytes.extend(nonce);
        bytes.extend(plain);
        let body = &mut bytes[NONCE_LEN..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.key.seal_in_place_separate_tag(nonce, Aad::from(&place), body).map_err(|_| OpenError::Damaged)?;
        bytes.extend(tag.as_ref());
        Ok(Sealed { key_id: Arc::clone(&self.active), bytes: Bytes(bytes) })
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// A key that is not here, or bytes that were not sealed for this place with it.
    pub fn open(&self, namespace: &str, path: &str, sealed: &Sealed) -> Result<Vec<u8>, OpenError> {
        let key = self.keys.get(&sealed.key_id).ok_or_else(|| OpenError::NoKey(sealed.key_id.to_string()))?;
        let (nonce, body) = sealed.bytes.0.split_first_chunk::<NONCE_LEN>().ok_or(OpenError::Damaged)?;
        let mut plain = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key
            .key
            .open_in_place(nonce, Aad::from(&place(namespace, path)), &mut plain)
            .map_err(|_| OpenError::Damaged)?;
        let len = opened.len();
        plain.truncate(len);
        Ok(plain)
    }
}

/// What is authenticated beside the items.
fn place(namespace: &str, path: &str) -> Vec<u8> {
    [namespace.as_bytes(), b"\0", path.as_bytes()].concat()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sealer(ids: &[&str]) -> Sealer {
        let keys = ids.iter().map(|id| SealingKey::derive(id, b"secret").unwrap()).collect();
        Sealer::new(keys, ids.last().unwrap()).unwrap()
    }

    #[test]
    fn what_was_sealed_is_opened_at_its_place_only() {
        let sealer = sealer(&["a", "b"]);
        let sealed = sealer.seal("default", "app/x", 7, b"items").unwrap();
        assert_eq!((&*sealed.key_id, sealed.bytes.0.len()), ("b", 12 + 5 + 16));
        assert_eq!(sealer.open("default", "app/x", &sealed).unwrap(), b"items");
        for (namespace, path) in [("default", "app/y"), ("other", "app/x"), ("defaul", "tapp/x")] {
            assert_eq!(sealer.open(namespace, path, &sealed), Err(OpenError::Damaged));
        }
        for at in 0..sealed.bytes.0.len() {
            let mut bent = sealed.clone();
            bent.bytes.0[at] ^= 1;
            assert_eq!(sealer.open("default", "app/x", &bent), Err(OpenError::Damaged), "byte {at}");
        }
        let short = Sealed { bytes: Bytes(vec![1; 11]), ..sealed };
        assert_eq!(sealer.open("default", "app/x", &short), Err(OpenError::Damaged));
    }

    #[test]
    fn each_key_and_each_chance_gives_other_bytes() {
        let (one, two) = (sealer(&["a"]), sealer(&["a", "b"]));
        let by_a = one.seal("n", "p", 1, b"x").unwrap();
        assert_eq!(two.open("n", "p", &by_a).unwrap(), b"x");
        assert_ne!(by_a, one.seal("n", "p", 2, b"x").unwrap());
        assert_ne!(by_a.bytes.0[..12], one.seal("n", "p", 1, b"y").unwrap().bytes.0[..12]);
        let by_b = two.seal("n", "p", 1, b"x").unwrap();
        assert_eq!(one.open("n", "p", &by_b), Err(OpenError::NoKey("b".to_owned())));
        assert_eq!(format!("{two:?}"), "Sealer(2 keys)");
    }
}
