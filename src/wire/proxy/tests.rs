//! Headers as balancers send them, whole and cut anywhere, and everything that is none.

#![allow(clippy::unwrap_used)]

use std::net::Ipv6Addr;

use proptest::prelude::*;

use super::*;

/// A header of these parts, its length right.
fn header(version: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&SIGNATURE[..], &[version, family], &length, block].concat()
}

fn ipv4_block() -> Vec<u8> {
    [&[192, 0, 2, 7, 10, 0, 0, 1][..], &[0x1f, 0x90, 0x12, 0x27]].concat()
}

fn field(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind][..], &u16::try_from(value.len()).unwrap().to_be_bytes(), value].concat()
}

/// With a checksum as the last field.
fn summed(family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = header(0x21, family, &[block, &field(CRC32C_TYPE, &[0; 4])].concat());
    let sum = crc32c(&bytes).to_be_bytes();
    let at = bytes.len() - sum.len();
    bytes[at..].copy_from_slice(&sum);
    bytes
}

/// What comes of bytes that come in one piece, and what is left of them.
fn read(mut bytes: &[u8]) -> (Result<Option<ProxyHeader>, ProxyError>, &[u8]) {
    let found = ProxyReader::default().take(&mut bytes);
    (found, bytes)
}

fn client(bytes: &[u8]) -> Option<SocketAddr> {
    let more = [bytes, b"\x01rest"].concat();
    let (found, rest) = read(&more);
    assert_eq!(rest, b"\x01rest", "what follows is not the header's");
    found.unwrap().unwrap().client
}

// R8.12
#[test]
fn the_client_is_who_the_balancer_says() {
    let some = |text: &str| Some(text.parse().unwrap());
    let ipv6 = |ip: Ipv6Addr| [&ip.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &[0x1f, 0x90, 0x12, 0x27]].concat();
    assert_eq!(client(&header(0x21, 0x11, &ipv4_block())), some("192.0.2.7:8080"));
    assert_eq!(client(&header(0x21, 0x21, &ipv6("2001:db8::7".parse().unwrap()))), some("[2001:db8::7]:8080"));
    // An IPv4-mapped address is the IPv4 one.
    assert_eq!(client(&header(0x21, 0x21, &ipv6("::ffff:192.0.2.7".parse().unwrap()))), some("192.0.2.7:8080"));
    // What follows the addresses is passed over, and a checksum is looked at.
    let fields = [ipv4_block(), field(0x01, b"h2"), field(0x04, &[0; 9]), field(0xea, b"")].concat();
    assert_eq!(client(&header(0x21, 0x11, &fields)), some("192.0.2.7:8080"));
    assert_eq!(client(&summed(0x11, &fields)), some("192.0.2.7:8080"));
}

#[test]
fn the_socket_s_address_stands_where_there_is_no_other() {
    for bytes in [
        header(0x20, 0x00, &[]),
        // LOCAL counts whatever else is there.
        header(0x20, 0x11, &ipv4_block()),
        header(0x20, 0xff, &[0xff; 3]),
        header(0x21, 0x00, &[]),
        header(0x21, 0x00, &[0xff; 50]),
        header(0x21, 0x12, &ipv4_block()),
        header(0x21, 0x22, &[0; IPV6_BYTES]),
        header(0x21, 0x31, &[0; UNIX_BYTES]),
        summed(0x32, &[0; UNIX_BYTES]),
    ] {
        assert_eq!(client(&bytes), None, "{bytes:x?}");
    }
}

#[test]
fn everything_else_is_refused_with_its_reason() {
    let v4 = ipv4_block();
    let mut wrong_sum = summed(0x11, &v4);
    wrong_sum[16] ^= 1;
    let twice = summed(0x11, &summed(0x11, &v4)[16..]);
    for (bytes, wanted) in [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 4647\r\n".to_vec(), ProxyError::NoSignature),
        (vec![0x01], ProxyError::NoSignature),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), ProxyError::NoSignature),
        (header(0x11, 0x11, &v4), ProxyError::Version(1)),
        (header(0x31, 0x11, &v4), ProxyError::Version(3)),
        (header(0x22, 0x11, &v4), ProxyError::Command(2)),
        (header(0x21, 0x13, &v4), ProxyError::Family(0x13)),
        (header(0x21, 0x10, &v4), ProxyError::Family(0x10)),
        (header(0x21, 0x41, &v4), ProxyError::Family(0x41)),
        (header(0x21, 0x11, &v4[..11]), ProxyError::TooShort(11)),
        (header(0x21, 0x21, &[0; 35]), ProxyError::TooShort(35)),
        (header(0x21, 0x31, &[0; 215]), ProxyError::TooShort(215)),
        (header(0x21, 0x11, &[&v4[..], &[1]].concat()), ProxyError::TornField),
        (header(0x21, 0x11, &[&v4[..], &[1, 0, 3, 0, 0]].concat()), ProxyError::TornField),
        (header(0x21, 0x11, &[&v4[..], &field(CRC32C_TYPE, &[0; 4])].concat()), ProxyError::Checksum),
        (header(0x21, 0x11, &[&v4[..], &field(CRC32C_TYPE, &[0; 3])].concat()), ProxyError::Checksum),
        (wrong_sum, ProxyError::Checksum),
        (twice, ProxyError::Checksum),
        // Of one that is too long only the beginning is waited for.
        (header(0x21, 0x11, &[0; 4081])[..16].to_vec(), ProxyError::TooLong(4097)),
        (header(0x20, 0x00, &[0; 65535])[..16].to_vec(), ProxyError::TooLong(65551)),
    ] {
        assert_eq!(read(&bytes).0, Err(wanted), "{bytes:x?}");
    }
    assert_eq!(client(&header(0x20, 0x00, &[0; 4080])), None);
}

#[test]
fn what_is_wrong_is_told_by_the_byte_that_is() {
    let bytes = header(0x51, 0x11, &ipv4_block());
    let mut reader = ProxyReader::default();
    for (at, byte) in bytes.iter().enumerate().take(12) {
        assert_eq!(reader.take(&mut &[*byte][..]), Ok(None), "{at}");
    }
    assert_eq!(reader.take(&mut &bytes[12..13]), Err(ProxyError::Version(5)));
}

fn any_header() -> impl Strategy<Value = Vec<u8>> {
    let family = prop_oneof![Just(0x11u8), Just(0x21), Just(0x00), Just(0x31), any::<u8>()];
    let version = prop_oneof![4 => Just(0x21u8), 1 => Just(0x20), 1 => any::<u8>()];
    let block = proptest::collection::vec(any::<u8>(), 0..300);
    (version, family, block, any::<bool>()).prop_map(|(version, family, block, with_sum)| match with_sum {
        true => summed(family, &block),
        false => header(version, family, &block),
    })
}

proptest! {
    // Whatever comes, however it is cut: no panic, little held, and the same answer.
    #[test]
    fn pieces_and_the_whole_are_read_alike(
        bytes in prop_oneof![any_header(), proptest::collection::vec(any::<u8>(), 0..80)],
        cuts in proptest::collection::vec(0usize..40, 0..30),
    ) {
        let (whole, rest) = read(&bytes);
        let (mut reader, mut left, mut cuts) = (ProxyReader::default(), &bytes[..], cuts.into_iter().cycle());
        let mut found = Ok(None);
        while found == Ok(None) && !left.is_empty() {
            let (mut piece, after) = left.split_at(cuts.next().unwrap_or(1).clamp(1, left.len()));
            found = reader.take(&mut piece);
            prop_assert!(reader.held_bytes() <= HEADER_BYTES_MAX);
            left = &left[left.len() - after.len() - piece.len()..];
        }
        prop_assert_eq!(found, whole);
        if found.is_ok() {
            prop_assert_eq!(left, rest);
        }
    }

    // Of a header that carries its checksum no address is believed that is another.
    #[test]
    fn a_changed_address_is_found(at in 16..FIXED_BYTES + IPV4_BYTES, flip in 1u8..) {
        let mut bad = summed(0x11, &[ipv4_block(), field(0x02, b"web-1.example.org")].concat());
        bad[at] ^= flip;
        prop_assert_eq!(read(&bad).0, Err(ProxyError::Checksum));
    }
}
