//! TLS by rustls, fed from buffers. Never inside TLS; never touches a file.

use std::fmt;
use std::sync::Arc;

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

/// A verified certificate of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Common name and DNS names.
    pub names: Arc<[String]>,
    /// The chain in DER, the peer's own first.
    pub chain: Vec<Vec<u8>>,
}

impl TlsServer {
    /// Why a certificate that was let in before is refused now: revoked, run out, or of another CA.
    pub fn refuses(&self, certificate: &PeerCertificate, wall: crate::base::time::WallTime) -> Option<String> {
        let verifier = self.verifier.as_ref()?;
        let mut chain = certificate.chain.iter().map(|der| rustls_pki_types::CertificateDer::from(der.as_slice()));
        let own = chain.next()?;
        let rest: Vec<_> = chain.collect();
        let seconds = u64::try_from(wall.unix_seconds()).unwrap_or(0);
        let now = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        verifier.verify_client_cert(&own, &rest, now).err().map(|error| error.to_string())
    }
}
