//! TLS as a client of the RPC port needs it: a CA, perhaps a certificate of one's own, and the server's name or none.
//!
//! Source: transport notes, section 2 (`helper/tlsutil/config.go`: without a name to expect, only the chain is
//! checked).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

/// Files that TLS is made from, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates that a server's chain must end in.
    pub ca_file: PathBuf,
    /// Our own certificate, with its key.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// The name that a server must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// This one.
    Expect(String),
    /// Any: a chain to the CA is enough.
    Any,
}

/// TLS, ready to connect.
#[derive(Clone)]
pub struct TlsSettings {
    config: Arc<ClientConfig>,
    name: rustls_pki_types::ServerName<'static>,
}

impl fmt::Debug for TlsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSettings").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A file that TLS cannot be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsError(pub String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl TlsSettings {
    /// A session that has not begun.
    ///
    /// # Errors
    /// A configuration that rustls cannot work with.
    pub fn connection(&self) -> Result<rustls::ClientConnection, rustls::Error> {
        rustls::ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

/// Reads the files and makes the settings.
///
/// # Errors
/// Names the file that cannot be read or used.
pub fn load_tls(files: &TlsFiles, name: &ServerName) -> Result<TlsSettings, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = load_roots(files)?;
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?;
    // Without a name to expect, the connection still needs one to be made with; nothing looks at it.
    let (builder, name) = match name {
        ServerName::Expect(name) => (builder.with_root_certificates(roots), name.clone()),
        ServerName::Any => {
            let verifier = Arc::new(ChainOnly { roots, provider });
            (builder.dangerous().with_custom_certificate_verifier(verifier), "server.invalid".to_owned())
        }
    };
    let config = match &files.own {
        None => builder.with_no_client_auth(),
        Some((cert_file, key_file)) => {
            let chain = load_certificates(cert_file)?;
            let key = PrivateKeyDer::from_pem_file(key_file)
                .map_err(|error| TlsError(format!("{}: {error}", key_file.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| TlsError(format!("{}: {error}", cert_file.display())))?
        }
    };
    let name = rustls_pki_types::ServerName::try_from(name.clone())
        .map_err(|_| TlsError(format!("{name} is not a server's name")))?;
    Ok(TlsSettings { config: Arc::new(config), name })
}

fn load_roots(files: &TlsFiles) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in load_certificates(&files.ca_file)? {
        roots.add(certificate).map_err(|error| TlsError(format!("{}: {error}", files.ca_file.display())))?;
    }
    Ok(roots)
}

fn load_certificates(file: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = |what: String| TlsError(format!("{}: {what}", file.display()));
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error: rustls_pki_types::pem::Error| named(error.to_string()))?;
    if certificates.is_empty() {
        return Err(named("holds no certificate".to_owned()));
    }
    Ok(certificates)
}

/// Accepts every server whose chain ends in the roots, whatever its name.
#[derive(Debug)]
struct ChainOnly {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ChainOnly {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
