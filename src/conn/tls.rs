//! TLS by rustls, fed from buffers. Never inside TLS; never touches a file.
//!
//! Source: requirements R1.22 to R1.24. rustls keeps a read buffer of 4 KiB for each connection once bytes have
//! come; what is to be sent is moved out of it at once, so that it holds nothing else while idle.

use std::fmt;
use std::io::Read;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::prelude::X509Certificate;

use crate::base::time::WallTime;

/// What stands for a name that nothing looks at.
const UNVERIFIED_NAME: &str = "server.invalid";

/// Bytes of a name that connections are counted by: no DNS name is longer.
const COUNTED_NAME_BYTES_MAX: usize = 253;

/// How connections are secured on a listener, made from files by the edge.
#[derive(Clone)]
pub struct TlsServer {
    /// What rustls works by.
    pub config: Arc<rustls::ServerConfig>,
    /// Checks a client's chain again, after a reload of the revocation list; `None` when clients are not verified.
    pub verifier: Option<Arc<dyn rustls::server::danger::ClientCertVerifier>>,
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServer").field("verifies_clients", &self.verifier.is_some()).finish()
    }
}

impl TlsServer {
    /// Why a certificate that was let in before is refused now: revoked, run out, or of another CA.
    pub fn refuses(&self, certificate: &PeerCertificate, wall: WallTime) -> Option<String> {
        let verifier = self.verifier.as_ref()?;
        let mut chain = certificate.chain.iter().map(|der| CertificateDer::from(der.as_slice()));
        let own = chain.next()?;
        let rest: Vec<_> = chain.collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(wall.unix_seconds()).unwrap_or(0)));
        verifier.verify_client_cert(&own, &rest, now).err().map(|error| error.to_string())
    }
}

/// How a server is dialled with TLS, made from files by the edge.
#[derive(Clone)]
pub struct TlsClient {
    /// What rustls works by.
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the other's certificate must carry (`server.<region>.nomad`), by region; the address when names
    /// are not verified.
    pub verify_names: bool,
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").field("verify_names", &self.verify_names).finish()
    }
}

/// A verified certificate of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name and DNS names.
    pub names: Arc<[String]>,
    /// What connections are counted by: the first DNS name, else the common name.
    pub counted_name: Option<Arc<str>>,
    /// The chain in DER, the peer's own first.
    pub chain: Vec<Vec<u8>>,
}

impl PeerCertificate {
    /// From a chain in DER. A certificate that cannot be read has no names.
    pub fn from_chain(chain: Vec<Vec<u8>>) -> PeerCertificate {
        let (common, dns) = chain.first().map(|own| names(own)).unwrap_or_default();
        let counted_name = dns.first().or(common.first()).and_then(|name| counted(name));
        let mut names: Vec<String> = Vec::new();
        for name in common.into_iter().chain(dns) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        PeerCertificate { names: names.into(), counted_name, chain }
    }
}

/// Common names and DNS names.
fn names(der: &[u8]) -> (Vec<String>, Vec<String>) {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Default::default() };
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let dns = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    (common.map(str::to_owned).collect(), dns.collect())
}

/// A name as it is counted by and logged: of one case, without what is no letter, and not too long. Those that are the
/// same then share their places.
fn counted(name: &str) -> Option<Arc<str>> {
    let plain = |c: char| if c.is_control() || c.is_whitespace() { '?' } else { c.to_ascii_lowercase() };
    let mut counted = String::new();
    for c in name.chars().map(plain) {
        if counted.len() + c.len_utf8() > COUNTED_NAME_BYTES_MAX {
            break;
        }
        counted.push(c);
    }
    (!counted.is_empty()).then(|| counted.into())
}

/// What came of bytes that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Received {
    /// The handshake was completed by them.
    pub(super) established: bool,
    /// The peer sends no more.
    pub(super) finished: bool,
}

/// The TLS layer of a connection.
pub(super) struct Tls {
    session: rustls::Connection,
    verifies: bool,
    /// The first two bytes: whether the peer speaks TLS at all.
    first: [Option<u8>; 2],
    pub(super) established: bool,
    pub(super) certificate: Option<Arc<PeerCertificate>>,
    /// What the layers above want sent.
    pub(super) plain: Vec<u8>,
}

impl Tls {
    pub(super) fn accept(server: &TlsServer) -> Result<Tls, rustls::Error> {
        Ok(Tls {
            session: rustls::ServerConnection::new(server.config.clone())?.into(),
            verifies: server.verifier.is_some(),
            first: [None; 2],
            established: false,
            certificate: None,
            plain: Vec::new(),
        })
    }

    /// The dialling side, which expects a certificate of this name.
    pub(super) fn dial(client: &TlsClient, name: &str) -> Result<Tls, String> {
        // Where names are not verified, nothing looks at what stands in for one that cannot be written.
        let name = match ServerName::try_from(name.to_owned()) {
            Err(_) if !client.verify_names => ServerName::try_from(UNVERIFIED_NAME),
            other => other,
        };
        let name = name.map_err(|error| error.to_string())?;
        let session = rustls::ClientConnection::new(client.config.clone(), name).map_err(|error| error.to_string())?;
        Ok(Tls {
            session: session.into(),
            verifies: true,
            first: [None; 2],
            established: false,
            certificate: None,
            plain: Vec::new(),
        })
    }

    /// Nothing came so far.
    pub(super) fn is_untouched(&self) -> bool {
        self.first[0].is_none()
    }

    /// The peer's first bytes were those of a handshake record.
    pub(super) fn speaks_tls(&self) -> bool {
        self.first == [Some(0x16), Some(0x03)]
    }

    /// Takes some of `bytes`, and appends to `plain` what they hold for the layers above.
    pub(super) fn receive(&mut self, bytes: &mut &[u8], plain: &mut Vec<u8>) -> Result<Received, String> {
        for (seen, byte) in self.first.iter_mut().filter(|seen| seen.is_none()).zip(bytes.iter()) {
            *seen = Some(*byte);
        }
        let taken = self.session.read_tls(bytes).map_err(|error| error.to_string())?;
        let state = self.session.process_new_packets().map_err(|error| error.to_string())?;
        if state.plaintext_bytes_to_read() > 0 {
            // The reader gives what there is, then says that there is no more as yet.
            let _ = self.session.reader().take(state.plaintext_bytes_to_read() as u64).read_to_end(plain);
        }
        let established = !self.established && !self.session.is_handshaking();
        if established {
            self.established = true;
            self.certificate = self.peer_certificate();
        }
        Ok(Received { established, finished: taken == 0 || state.peer_has_closed() })
    }

    /// Encrypts what the layers above want sent, and appends it and what the handshake wants sent to `out`.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>) {
        let plain = std::mem::take(&mut self.plain);
        let mut rest = plain.as_slice();
        loop {
            // The session takes as much as its own buffer may hold, which is emptied each time.
            let taken = self.session.writer().write(rest).unwrap_or(0);
            rest = rest.get(taken..).unwrap_or_default();
            self.flush(out);
            if rest.is_empty() || taken == 0 {
                break;
            }
        }
    }

    /// Tells the peer that we send no more, when it can be told.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if self.established {
            self.session.send_close_notify();
            self.flush(out);
        }
    }

    /// Moves what the session wants sent, an alert too, to `out`.
    pub(super) fn flush(&mut self, out: &mut Vec<u8>) {
        while self.session.wants_write() {
            if self.session.write_tls(out).is_err() {
                break;
            }
        }
    }

    fn peer_certificate(&self) -> Option<Arc<PeerCertificate>> {
        let chain = self.session.peer_certificates().filter(|chain| self.verifies && !chain.is_empty())?;
        Some(Arc::new(PeerCertificate::from_chain(chain.iter().map(|der| der.to_vec()).collect())))
    }
}
