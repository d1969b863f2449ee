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
