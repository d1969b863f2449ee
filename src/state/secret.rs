//! Whose a SecretID is, a node's or a token's, found without comparing secrets byte by byte.
//!
//! The map's key is a hash of the secret, so that the time a lookup takes tells nothing about how much of a guess
//! was right. Never holds the secrets themselves.

use std::sync::Arc;

use imbl::OrdMap;
use ring::digest;

/// Ids (of nodes, or accessors of tokens) by the hash of their secret.
///
/// Cloned machines may share a secret under two ids: both are kept, in the order of the ids, and the first is found.
#[derive(Clone, Debug, Default)]
pub(super) struct SecretIndex {
    ids: OrdMap<u128, Arc<[Arc<str>]>>,
}

impl SecretIndex {
    /// The ids of those that may have this secret: the caller compares it once more, with [`same_secret`].
    pub(super) fn candidates(&self, secret: &str) -> &[Arc<str>] {
        self.ids.get(&key_of(secret)).map_or(&[], |ids| ids)
    }

    /// Notes that this id has this secret.
    pub(super) fn add(&mut self, secret: &str, id: &Arc<str>) {
        let key = key_of(secret);
        let mut ids = self.ids.get(&key).map_or_else(Vec::new, |ids| ids.to_vec());
        if let Err(place) = ids.binary_search(id) {
            ids.insert(place, Arc::clone(id));
            self.ids.insert(key, ids.into());
        }
    }

    /// Forgets that this id has this secret.
    pub(super) fn remove(&mut self, secret: &str, id: &str) {
        let key = key_of(secret);
        let Some(ids) = self.ids.get(&key) else { return };
        let left: Arc<[Arc<str>]> = ids.iter().filter(|known| &***known != id).cloned().collect();
        if left.is_empty() {
            self.ids.remove(&key);
        } else {
            self.ids.insert(key, left);
        }
    }

    /// How many pairs of secret and id there are.
    #[cfg(test)]
    pub(super) fn pairs(&self) -> usize {
        self.ids.values().map(|ids| ids.len()).sum()
    }
}

/// The first half of SHA-256, the same on every replica.
fn key_of(secret: &str) -> u128 {
    let hash = digest::digest(&digest::SHA256, secret.as_bytes());
    hash.as_ref().iter().take(16).fold(0, |key, byte| key << 8 | u128::from(*byte))
}

/// Whether two secrets are the same, in a time that depends on their lengths alone.
pub(super) fn same_secret(a: &str, b: &str) -> bool {
    same_secret_bytes(a.as_bytes(), b.as_bytes())
}

/// The same for secrets that are no text.
pub(super) fn same_secret_bytes(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_secret_leads_to_its_ids() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut index = SecretIndex::default();
        assert_eq!(index.pairs(), 0);
        index.add("s", &b);
        index.add("s", &a);
        index.add("s", &a);
        index.add("t", &b);
        assert_eq!(index.candidates("s"), [Arc::clone(&a), Arc::clone(&b)]);
        assert_eq!(index.candidates("u"), []);
        assert_eq!(index.pairs(), 3);
        index.remove("s", "a");
        index.remove("u", "a");
        assert_eq!(index.candidates("s"), [b]);
        index.remove("s", "b");
        index.remove("t", "b");
        assert_eq!(index.pairs(), 0);
    }

    #[test]
    fn only_equal_secrets_are_the_same() {
        for (a, b, same) in [("", "", true), ("ab", "ab", true), ("ab", "ac", false), ("ab", "abc", false)] {
            assert_eq!(same_secret(a, b), same, "{a} {b}");
        }
    }
}
