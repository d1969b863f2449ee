//! The public halves of the keys that sign node identities.

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
