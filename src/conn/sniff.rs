//! The first byte of a connection, plain or within TLS: what it asks for, and whether it is granted.
//!
//! Source: transport notes, section 1; requirements R1.17 to R1.29. A table without state; that no byte after it is
//! lost is [`super::Conn`]'s.

use crate::wire::first_byte::FirstByte;

use super::Security;
use super::report::Cause;
use super::report::Report;
use super::tls::PeerCertificate;

/// What a first byte asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A TLS handshake, then another first byte.
    Handshake,
    /// One of the other protocols.
    Protocol(FirstByte),
    /// Nothing that is granted: the connection is closed without a byte.
    Refused(Report),
}

/// Within what a first byte came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Within<'a> {
    /// Nothing.
    Plain,
    /// TLS, with the certificate that was verified.
    Tls(Option<&'a PeerCertificate>),
}

/// Decides on a first byte.
pub(super) fn judge(byte: u8, within: Within<'_>, security: &Security) -> Verdict {
    let refused = |cause, fields| Verdict::Refused(Report { cause, fields });
    let plain = matches!(within, Within::Plain);
    match FirstByte::from_byte(byte) {
        Some(FirstByte::Tls) if !plain => refused(Cause::InnerTls, String::new()),
        Some(FirstByte::Tls) if security.tls.is_none() => refused(Cause::TlsNotConfigured, String::new()),
        Some(FirstByte::Tls) => Verdict::Handshake,
        _ if plain && security.require_tls => refused(Cause::NonTls, String::new()),
        None => refused(Cause::UnknownByte, format!("byte={byte:#04x}")),
        Some(FirstByte::Raft) if !is_server(within, security) => refused(Cause::RaftName, String::new()),
        Some(protocol) => Verdict::Protocol(protocol),
    }
}

/// Raft is for servers: where names are verified, one of the certificate's must say so (R1.26).
fn is_server(within: Within<'_>, security: &Security) -> bool {
    let Some(wanted) = &security.raft_name else { return true };
    match within {
        Within::Tls(Some(certificate)) => certificate.names.iter().any(|name| name.eq_ignore_ascii_case(wanted)),
        _ => false,
    }
}
