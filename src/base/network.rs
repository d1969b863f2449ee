//! Networks of IP addresses, as text and as a question: is this address within?
//!
//! An IPv4-mapped IPv6 address is the IPv4 address, here as everywhere in this program.

use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

/// Bits of an IPv6 prefix that make it one of IPv4-mapped addresses.
const MAPPED_BITS: u8 = 96;

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotANetwork {
    /// What stands before the slash is no IP address.
    Address,
    /// What stands after the slash is no number, or more than this many bits.
    Bits(u8),
    /// The address has bits beyond those that count; the network that may be meant.
    HostBits(Network),
}

impl Network {
    /// Reads `10.0.0.1`, `10.0.0.0/8` or `fd00::/64`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Network, NotANetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork::Address)?;
        let width = width(address);
        let bits = match bits {
            None => width,
            // A sign or a leading zero is a slip that other programs read in their own ways.
            Some(bits) if bits.starts_with('+') || (bits.len() > 1 && bits.starts_with('0')) => {
                return Err(NotANetwork::Bits(width));
            }
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or(NotANetwork::Bits(width))?,
        };
        let first = Network { address: masked(address, bits), bits };
        if first.address == address { Ok(first.plain()) } else { Err(NotANetwork::HostBits(first)) }
    }

    /// A network of IPv4-mapped addresses as the IPv4 network.
    fn plain(self) -> Network {
        match (self.address.to_canonical(), self.bits.checked_sub(MAPPED_BITS)) {
            (address @ IpAddr::V4(_), Some(bits)) if self.address.is_ipv6() => Network { address, bits },
            _ => self,
        }
    }

    /// Whether an address is one of it. IPv4 and IPv6 are never in one another, not even in `::/0`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Network { address, bits } = self;
        if *bits == width(*address) { write!(f, "{address}") } else { write!(f, "{address}/{bits}") }
    }
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address with all but its first bits cleared.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // R8.12
    #[test]
    fn an_address_is_within_or_not() {
        for (network, inside, outside) in [
            ("10.0.0.1", &["10.0.0.1", "::ffff:10.0.0.1"][..], &["10.0.0.2", "::10.0.0.1"][..]),
            ("10.0.0.1/32", &["10.0.0.1"], &["10.0.0.0"]),
            ("10.64.0.0/10", &["10.64.0.0", "10.127.255.255"], &["10.63.255.255", "10.128.0.0", "::1"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], &["::", "fd00::1"]),
            ("::/0", &["::", "fd00::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("fd00:1::/64", &["fd00:1::", "fd00:1::ffff:ffff:ffff:ffff"], &["fd00:1:0:1::", "fd00::1"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.255.0.1", "::ffff:10.0.0.1"], &["11.0.0.0"]),
            ("::ffff:10.0.0.7", &["10.0.0.7"], &["10.0.0.8"]),
        ] {
            let network = Network::parse(network).unwrap();
            assert!(inside.iter().all(|address| network.contains(address.parse().unwrap())), "{network}");
            assert!(!outside.iter().any(|address| network.contains(address.parse().unwrap())), "{network}");
            assert_eq!(Network::parse(&network.to_string()), Ok(network));
        }
    }

    #[test]
    fn what_is_wrong_with_a_text_is_said() {
        for text in ["", "/", "/8", "10.0.0", "10.0.0.1:80", "[::1]", "balancer", "10.0.0.0/8/8x", "fe80::1%eth0"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
        for (text, bits) in [("10.0.0.0/33", 32), ("10.0.0.0/", 32), ("10.0.0.0/+8", 32), ("10.0.0.0/08", 32)] {
            assert_eq!(Network::parse(text), Err(NotANetwork::Bits(bits)), "{text}");
        }
        assert_eq!(Network::parse("::/129"), Err(NotANetwork::Bits(128)));
        assert_eq!(Network::parse("0.0.0.0/-1"), Err(NotANetwork::Bits(32)));
        let Err(NotANetwork::HostBits(meant)) = Network::parse("10.0.0.1/8") else { panic!("taken") };
        assert_eq!(meant.to_string(), "10.0.0.0/8");
    }

    proptest::proptest! {
        #[test]
        fn a_network_holds_its_own_addresses(bits in 0u8..=32, address: u32, other: u32) {
            let first = masked(Ipv4Addr::from_bits(address).into(), bits);
            let network = Network::parse(&format!("{first}/{bits}")).unwrap();
            proptest::prop_assert!(network.contains(Ipv4Addr::from_bits(address).into()));
            let same = (address ^ other).leading_zeros() >= u32::from(bits);
            proptest::prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), same);
        }
    }
}
