//! Signed node identities: JSON Web Tokens by Ed25519, made and checked.

/// The key that signs identities.
pub struct Signer {
    // api helper: ring Ed25519KeyPair, key id
}

impl std::fmt::Debug for Signer {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// A signer from a private key in PKCS#8 v2 form (as [`ring::signature::Ed25519KeyPair::generate_pkcs8`] makes it).
    ///
    /// # Errors
    /// Bytes that are no such key.
    pub fn new(key_id: &str, pkcs8: &[u8]) -> Result<Signer, String> {
        let _ = (key_id, pkcs8);
        todo!("api helper")
    }

    /// The key's id.
    pub fn key_id(&self) -> &str {
        todo!("api helper")
    }

    /// The raw public key, 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        todo!("api helper")
    }
}
