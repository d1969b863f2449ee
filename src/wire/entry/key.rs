//! A new key of the key ring, as the log holds it: never the key itself, which is on the servers' disks.

use crate::wire::msgpack::Bytes;
use crate::wire_structs;

wire_structs! {
    /// A key that operators asked for.
    pub struct RootKey {
        /// A UUID.
        key_id: String = "i",
        /// Raw Ed25519 public key, 32 bytes.
        public_key: Bytes = "p",
        /// Nanoseconds since the Unix epoch.
        create_time: i64 = "t",
        /// All variables are to be put under it.
        rekey: bool = "r",
    }
}
