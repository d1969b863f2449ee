//! Bodies of Keyring.*.
//!
//! Source: endpoint notes, section 11.

use crate::wire::body::query::QueryMeta;
use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// A public signing key.
    pub struct PublicKey {
        /// A UUID, the `kid` of tokens.
        key_id: String = "KeyID",
        /// Raw Ed25519 public key.
        public_key: Bytes = "PublicKey",
        /// `EdDSA`.
        algorithm: String = "Algorithm",
        /// `sig`.
        usage: String = "Use",
        /// Nanoseconds since the Unix epoch.
        create_time: i64 = "CreateTime",
    }
    /// Reply of Keyring.ListPublic.
    pub struct ListPublicResponse {
        /// Every key that tokens may be signed with.
        public_keys: Vec<PublicKey> = "PublicKeys",
        /// Nanoseconds after which a key is replaced.
        rotation_threshold: i64 = "RotationThreshold",
        ..meta: QueryMeta,
    }
}
