//! The header of the PROXY protocol, version 2, that a balancer sends before a client's bytes: who the client is.
//!
//! Source: the PROXY protocol, sections 2.2 and 2.3 (HAProxy, `doc/proxy-protocol.txt`). Never decides who may send
//! one. Holds no more than [`HEADER_BYTES_MAX`], however long a header claims to be.

use std::fmt;
use std::net::IpAddr;
use std::net::SocketAddr;

use crate::base::crc32c::crc32c;

/// What every header of version 2 begins with: no first byte of ours, no TLS record, no HTTP request.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Bytes of a header, all of it. Addresses take 232 at most; certificates' names and the like come after them.
pub const HEADER_BYTES_MAX: usize = 4096;

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Two addresses and two ports.
const IPV4_BYTES: usize = 12;
const IPV6_BYTES: usize = 36;
/// Two paths.
const UNIX_BYTES: usize = 216;
/// The type of the field that holds a checksum of the whole header.
const CRC32C_TYPE: u8 = 0x03;

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// The first bytes are something else.
    NoSignature,
    /// A version that is not 2.
    Version(u8),
    /// A command that is neither LOCAL nor PROXY.
    Command(u8),
    /// A family or protocol without a meaning.
    Family(u8),
    /// Longer than [`HEADER_BYTES_MAX`].
    TooLong(usize),
    /// Too short for the addresses of its family.
    TooShort(usize),
    /// A field after the addresses goes over the end.
    TornField,
    /// The checksum is of other bytes.
    Checksum,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyError::NoSignature => f.write_str("no PROXY header of version 2"),
            ProxyError::Version(version) => write!(f, "version {version} is not 2"),
            ProxyError::Command(command) => write!(f, "command {command:#03x} is unknown"),
            ProxyError::Family(family) => write!(f, "address family {family:#04x} is unknown"),
            ProxyError::TooLong(bytes) => write!(f, "{bytes} bytes are more than {HEADER_BYTES_MAX}"),
            ProxyError::TooShort(bytes) => write!(f, "{bytes} bytes are too few for the addresses"),
            ProxyError::TornField => f.write_str("a field goes over the end"),
            ProxyError::Checksum => f.write_str("the checksum is wrong"),
        }
    }
}

/// A whole header: the client, or `None` where the balancer speaks for itself or of a client without an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address and port.
    pub client: Option<SocketAddr>,
}

/// Reads one header from bytes that come in pieces.
#[derive(Clone, Debug, Default)]
pub struct ProxyReader {
    held: Vec<u8>,
}

impl ProxyReader {
    /// Takes what belongs to the header off the front of `bytes`. `None`: more has to come.
    ///
    /// # Errors
    /// When it is no header; as soon as that can be told.
    pub fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
        loop {
            // What is there may be wrong already.
            let missing = self.wanted()?.saturating_sub(self.held.len());
            if missing == 0 {
                return decode(&self.held).map(Some);
            }
            let (ours, rest) = bytes.split_at(missing.min(bytes.len()));
            if ours.is_empty() {
                return Ok(None);
            }
            self.held.extend_from_slice(ours);
            *bytes = rest;
        }
    }

    /// Whether nothing has come so far.
    pub fn is_untouched(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that are held.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// How long the header is, as far as that is known.
    fn wanted(&self) -> Result<usize, ProxyError> {
        let seen = self.held.len().min(SIGNATURE.len());
        if self.held.get(..seen) != SIGNATURE.get(..seen) {
            return Err(ProxyError::NoSignature);
        }
        if let Some(byte) = self.held.get(12) {
            command(*byte)?;
        }
        let Some([_, _, high, low]) = self.held.get(12..FIXED_BYTES) else { return Ok(FIXED_BYTES) };
        let all = FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
        if all > HEADER_BYTES_MAX { Err(ProxyError::TooLong(all)) } else { Ok(all) }
    }
}

/// True for PROXY, false for LOCAL.
fn command(byte: u8) -> Result<bool, ProxyError> {
    match (byte >> 4, byte & 0x0f) {
        (2, 0) => Ok(false),
        (2, 1) => Ok(true),
        (2, command) => Err(ProxyError::Command(command)),
        (version, _) => Err(ProxyError::Version(version)),
    }
}

/// A whole header.
fn decode(header: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let none = ProxyHeader { client: None };
    let (Some([version, family, ..]), Some(block)) = (header.get(12..FIXED_BYTES), header.get(FIXED_BYTES..)) else {
        return Err(ProxyError::TooShort(header.len()));
    };
    // Of LOCAL and of UNSPEC nothing is used, so nothing is looked at.
    if !command(*version)? || *family == 0x00 {
        return Ok(none);
    }
    let address_bytes = match family {
        0x11 | 0x12 => IPV4_BYTES,
        0x21 | 0x22 => IPV6_BYTES,
        0x31 | 0x32 => UNIX_BYTES,
        // Among them halves such as TCP over nothing, which no sender may use.
        other => return Err(ProxyError::Family(*other)),
    };
    let Some((addresses, fields)) = block.split_at_checked(address_bytes) else {
        return Err(ProxyError::TooShort(block.len()));
    };
    check_fields(header, fields)?;
    let client = match family {
        0x11 => socket_of::<4>(addresses, 8),
        0x21 => socket_of::<16>(addresses, 32),
        // UDP and local sockets have no address that a connection of ours can have.
        _ => return Ok(none),
    };
    client.map(|client| ProxyHeader { client: Some(client) }).ok_or(ProxyError::TooShort(block.len()))
}

/// The source: the first address, and the first port, which stands at `port_at`.
fn socket_of<const BYTES: usize>(addresses: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; BYTES]>,
{
    let ip: [u8; BYTES] = *addresses.first_chunk()?;
    let port: [u8; 2] = *addresses.get(port_at..)?.first_chunk()?;
    Some(SocketAddr::new(IpAddr::from(ip).to_canonical(), u16::from_be_bytes(port)))
}

/// Walks over type, length and value up to the end, and looks at the checksum where there is one.
fn check_fields(header: &[u8], mut fields: &[u8]) -> Result<(), ProxyError> {
    let mut summed_before = false;
    while let [kind, rest @ ..] = fields {
        let (length, rest) = rest.split_first_chunk().ok_or(ProxyError::TornField)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, rest) = rest.split_at_checked(length).ok_or(ProxyError::TornField)?;
        if *kind == CRC32C_TYPE {
            let wanted: [u8; 4] = value.try_into().map_err(|_| ProxyError::Checksum)?;
            // One is work enough, and of two one would be wrong.
            if std::mem::replace(&mut summed_before, true) {
                return Err(ProxyError::Checksum);
            }
            let at = header.len() - rest.len() - value.len();
            let mut summed = header.to_vec();
            // The sum is made over the header with zeros in its own place.
            summed.iter_mut().skip(at).take(value.len()).for_each(|byte| *byte = 0);
            if crc32c(&summed) != u32::from_be_bytes(wanted) {
                return Err(ProxyError::Checksum);
            }
        }
        fields = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
