//! Signed node identities: JSON Web Tokens by Ed25519, made and checked.
//!
//! Never reads a clock and never draws chance: both are handed in. Source: endpoint notes, section 3.3; RFC 7515
//! (compact form), RFC 8037 (EdDSA).

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::base::rng::Rng;
use crate::base::time::WallTime;
use crate::state::State;
use crate::state::node::Node;

/// How long an identity holds, seconds (24 h, the default of a node pool).
pub const IDENTITY_TTL_SECONDS: i64 = 86_400;

/// A longer token is no identity, bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// How far the clocks of two servers may be apart, seconds.
const LEEWAY_SECONDS: i64 = 60;

/// Whom tokens are for.
const AUDIENCE: &str = "nomadproject.io";

/// The key that signs identities.
pub struct Signer {
    key_id: String,
    pair: Ed25519KeyPair,
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
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|e| format!("not an Ed25519 key in PKCS#8 v2: {e}"))?;
        Ok(Signer { key_id: key_id.to_owned(), pair })
    }

    /// The key's id.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The raw public key, 32 bytes.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// An identity for a node, from now on for [`IDENTITY_TTL_SECONDS`]. `seed` makes its id.
    pub fn sign(&self, node: &Node, region: &str, now: WallTime, seed: u64) -> String {
        let seconds = now.unix_seconds();
        let claims = Claims {
            aud: AUDIENCE.to_owned(),
            exp: seconds.saturating_add(IDENTITY_TTL_SECONDS),
            iat: seconds,
            jti: Rng::from_seed(seed).uuid(),
            nbf: seconds,
            node_class: node.node_class.to_string(),
            node_datacenter: node.datacenter.to_string(),
            node_id: node.id.to_string(),
            node_pool: node.node_pool.to_string(),
            sub: format!("node:{region}:{}:{}:default", node.node_pool, node.id),
        };
        let header = Header { alg: "EdDSA".to_owned(), kid: self.key_id.clone(), typ: "JWT".to_owned() };
        let mut token = part(&header);
        token.push('.');
        token.push_str(&part(&claims));
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        token.push_str(&base64url(signature.as_ref()));
        token
    }
}

/// One part of a token.
fn part(value: &impl Serialize) -> String {
    base64url(&serde_json::to_vec(value).expect("a struct of strings and numbers is always JSON"))
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default)]
    typ: String,
}

/// What a token says, in the order Nomad writes it.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: String,
    exp: i64,
    iat: i64,
    jti: String,
    nbf: i64,
    #[serde(rename = "nomad_node_class", default, skip_serializing_if = "String::is_empty")]
    node_class: String,
    #[serde(rename = "nomad_node_datacenter", default)]
    node_datacenter: String,
    #[serde(rename = "nomad_node_id")]
    node_id: String,
    #[serde(rename = "nomad_node_pool", default)]
    node_pool: String,
    sub: String,
}

/// A token that has the form of a node's identity. Nothing it says is proven before [`Identity::check`].
#[derive(Debug)]
pub(super) struct Identity<'a> {
    header: Header,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// Signed by a key of this region, and in its time.
    Valid,
    /// Signed by a key of this region, but over.
    Expired,
    /// By a key or a kind of key that this region does not know: nothing can be said.
    UnknownKey,
    /// Signed by nobody.
    Forged,
}

impl<'a> Identity<'a> {
    /// Reads a token. `None` for what is none, or none of a node.
    pub(super) fn parse(token: &'a str) -> Option<Identity<'a>> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Header = serde_json::from_slice(&from_base64url(header)?).ok()?;
        let claims: Claims = serde_json::from_slice(&from_base64url(claims)?).ok()?;
        Some(Identity { header, claims, signed, signature: from_base64url(signature)? })
    }

    /// The node it speaks of.
    pub(super) fn node_id(&self) -> &str {
        &self.claims.node_id
    }

    /// Whether the signature holds and it is in its time.
    pub(super) fn check(&self, state: &State, signer: Option<&Signer>, now: WallTime) -> Checked {
        let Some(key) = self.key(state, signer) else { return Checked::UnknownKey };
        let holds = UnparsedPublicKey::new(&ED25519, key).verify(self.signed.as_bytes(), &self.signature).is_ok();
        let now = now.unix_seconds();
        let region_wide = self.claims.aud == AUDIENCE && self.claims.sub.starts_with("node:");
        if !holds || !region_wide || self.claims.nbf > now.saturating_add(LEEWAY_SECONDS) {
            Checked::Forged
        } else if self.claims.exp.saturating_add(LEEWAY_SECONDS) < now {
            Checked::Expired
        } else {
            Checked::Valid
        }
    }

    /// Whether it is to be replaced: less than a third of its time is left, or its key is not known here. Does not
    /// look at the signature: it decides only whether somebody who is known already gets a new one.
    pub(super) fn is_due(&self, state: &State, signer: Option<&Signer>, now: WallTime) -> bool {
        let left = self.claims.exp.saturating_sub(now.unix_seconds());
        let whole = self.claims.exp.saturating_sub(self.claims.iat);
        left < whole / 3 || whole <= 0 || self.key(state, signer).is_none()
    }

    /// From then on [`Identity::is_due`], seconds since the Unix epoch, as long as its key is known.
    pub(super) fn due_at(&self) -> i64 {
        self.claims.exp.saturating_sub(self.claims.exp.saturating_sub(self.claims.iat) / 3)
    }

    fn key<'k>(&self, state: &'k State, signer: Option<&'k Signer>) -> Option<&'k [u8]> {
        if self.header.alg != "EdDSA" {
            return None;
        }
        let known = state.signing_keys().iter().find(|key| key.key_id == self.header.kid);
        let own = || signer.filter(|signer| signer.key_id == self.header.kid).map(Signer::public_key);
        known.map(|key| key.public_key.as_slice()).or_else(own)
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with the URL alphabet, without padding (RFC 4648, section 5).
pub(super) fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let sextet = (bits >> (18 - 6 * place)) & 0x3f;
            text.push(char::from(ALPHABET[sextet as usize]));
        }
    }
    text
}

/// The bytes of such a text; `None` for any other.
pub(super) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for byte in chunk {
            bits = bits << 6 | sextet(*byte)?;
        }
        let unused = match chunk.len() {
            4 => 0,
            3 => 2,
            2 => 4,
            _ => return None,
        };
        // One text for one value: bits that carry nothing are 0.
        if bits & ((1 << unused) - 1) != 0 {
            return None;
        }
        let whole = bits >> unused;
        let len = chunk.len() * 6 / 8;
        bytes.extend_from_slice(&whole.to_be_bytes()[4 - len..]);
    }
    Some(bytes)
}

/// The value of a digit.
fn sextet(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    }))
}
