//! Bodies of Keyring.*.
//!
//! Source: endpoint notes, section 11.

use crate::wire::body::query::{QueryMeta, WriteMeta, WriteRequest};
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
    /// A key of the key ring, without the key.
    pub struct RootKeyMeta {
        /// A UUID.
        key_id: String = "KeyID",
        /// `aes256-gcm`.
        algorithm: String = "Algorithm",
        /// Nanoseconds since the Unix epoch.
        create_time: i64 = "CreateTime",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
        /// `active`, `inactive` or `rekeying`.
        state: String = "State",
        /// Always 0: keys are in use as soon as they are there.
        publish_time: i64 = "PublishTime",
    }
    /// Reply of Keyring.List.
    pub struct KeyringListResponse {
        /// Newest first.
        keys: Vec<RootKeyMeta> = "Keys",
        ..meta: QueryMeta,
    }
    /// Arguments of Keyring.Rotate.
    pub struct KeyringRotateRequest {
        /// `aes256-gcm` or empty.
        algorithm: String = "Algorithm",
        /// Also put all variables under the new key.
        full: bool = "Full",
        /// Must be 0.
        publish_time: i64 = "PublishTime",
        ..write: WriteRequest,
    }
    /// Reply of Keyring.Rotate.
    pub struct KeyringRotateResponse {
        /// The new key.
        key: Option<RootKeyMeta> = "Key",
        ..meta: WriteMeta,
    }
    /// Arguments of Keyring.Delete.
    pub struct KeyringDeleteRequest {
        /// Which.
        key_id: String = "KeyID",
        ..write: WriteRequest,
    }
}
