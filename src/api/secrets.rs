//! Secrets that the server makes for callers: token secrets and lock ids.
//!
//! Made by a MAC under a key from the system's source of randomness, since the generator that ids are drawn from can be
//! foretold by whoever sees some of them.

use std::fmt;

use ring::hmac;

use super::Ctx;

/// Bytes of randomness that a server begins with; never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Entropy(pub [u8; 32]);

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entropy")
    }
}

/// Bits that cannot be guessed: the `nth` of this request. A write of a session gets the same on whichever server it
/// is run again; its key is as secret as what is made from it.
pub(super) fn secret_bits(ctx: &Ctx, nth: u64) -> u128 {
    let (secret, seed) = match &ctx.stamp {
        Some(stamp) => (stamp.key.0.as_slice(), stamp.sequence),
        None => (ctx.server.entropy.0.as_slice(), ctx.seed),
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(&seed.to_be_bytes());
    context.update(&nth.to_be_bytes());
    let tag = context.sign();
    tag.as_ref().iter().take(16).fold(0u128, |bits, byte| bits << 8 | u128::from(*byte))
}

/// A UUID that cannot be guessed: the `nth` of this request.
pub(super) fn secret_uuid(ctx: &Ctx, nth: u64) -> String {
    let mut bits = secret_bits(ctx, nth);
    // Version 4, variant 1 (RFC 9562 section 5.4).
    bits = bits & !(0xf << 76) | 4 << 76;
    bits = bits & !(3 << 62) | 2 << 62;
    let text = format!("{bits:032x}");
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::World;

    #[test]
    fn each_request_and_each_number_has_its_own() {
        let mut ctx = World::new().ctx;
        let first = secret_uuid(&ctx, 0);
        assert!(crate::api::auth::is_uuid(&first), "{first}");
        assert_eq!((first.as_bytes()[14], secret_uuid(&ctx, 0) == first), (b'4', true));
        assert_ne!(secret_uuid(&ctx, 1), first);
        ctx.seed += 1;
        assert_ne!(secret_uuid(&ctx, 0), first);
        assert_eq!(format!("{:?}", Entropy([7; 32])), "Entropy");
    }
}
