//! The system's source of randomness: the seed of every generator, and identities that must be unique.

use ring::rand::{SecureRandom, SystemRandom};

use crate::base::rng::Rng;

/// Sixty-four bits from the system.
///
/// # Errors
/// The system has no source of randomness; the text says so.
pub fn seed() -> Result<u64, String> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system's source of randomness fails".to_owned())?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Thirty-two bytes from the system, for secrets.
///
/// # Errors
/// As [`seed`].
pub fn bytes() -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system's source of randomness fails".to_owned())?;
    Ok(bytes)
}

/// A version 4 UUID made from a fresh seed. Unique, not secret.
///
/// # Errors
/// As [`seed`].
pub fn uuid() -> Result<String, String> {
    Ok(Rng::from_seed(seed()?).uuid())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_two_are_alike() {
        assert_ne!(seed().unwrap(), seed().unwrap());
        assert_ne!(uuid().unwrap(), uuid().unwrap());
    }
}
