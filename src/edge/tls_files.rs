//! TLS from files: certificates, keys, authorities and revocation lists to what rustls works by. An error names its file.
//!
//! RPC always demands a certificate of the client and checks it (transport notes, section 2; R1.24); HTTP does not.
//! Handshakes are TLS 1.2 or 1.3 by `ring`. Sessions are resumed from a small cache in memory, never from tickets that
//! hold the session themselves: a reload makes a new cache, so that nobody resumes past a new authority or revocation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::TlsConfig;
use crate::conn::Security;
use crate::conn::tls::TlsServer;

use super::certificates::{self, CertificateEnd};

/// Sessions that can be resumed, of each listener; the oldest makes room.
const RESUMABLE_SESSIONS_MAX: usize = 1024;
/// Tickets after a TLS 1.3 handshake, each a key into that cache.
const TICKETS: usize = 1;
/// A file above this is no certificate, key or list of ours, bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What the files gave.
#[derive(Clone, Debug, Default)]
pub struct TlsMaterial {
    /// For the RPC listener.
    pub rpc: Security,
    /// For the HTTP listener.
    pub http: Security,
    /// When each certificate and authority ends.
    pub ends: Vec<CertificateEnd>,
    /// Changes with the keys, the certificates and the authorities, not with the revocation list (R1.13, R8.13).
    pub fingerprint: [u8; 32],
}

/// Reads all files that the configuration names.
///
/// # Errors
/// A sentence that names the file, or the key where one is missing.
pub fn load(config: &TlsConfig, region: &str) -> Result<TlsMaterial, String> {
    let mut material = TlsMaterial::default();
    let mut digest = Context::new(&SHA256);
    digest.update(&[u8::from(config.rpc), u8::from(config.http), u8::from(config.rpc_upgrade_mode)]);
    if config.rpc || config.http {
        let identity = Identity::read(config, &mut digest)?;
        material.ends.extend(certificates::ends(&identity.cert_file, &identity.chain)?);
        if config.rpc {
            let ca_file = needed(config.ca_file.as_deref(), "tls.ca_file")?;
            let authorities = read_certificates(ca_file, &mut digest)?;
            material.ends.extend(certificates::ends(ca_file, &authorities)?);
            let verifier = client_verifier(ca_file, authorities, config.crl_file.as_deref())?;
            material.rpc = Security {
                tls: Some(Arc::new(identity.server(Some(verifier))?)),
                require_tls: !config.rpc_upgrade_mode,
                raft_name: (config.verify_server_hostname && !config.rpc_upgrade_mode)
                    .then(|| Arc::from(format!("server.{region}.nomad"))),
            };
        }
        if config.http {
            material.http =
                Security { tls: Some(Arc::new(identity.server(None)?)), require_tls: true, raft_name: None };
        }
    }
    material.fingerprint.copy_from_slice(digest.finish().as_ref());
    Ok(material)
}

/// What we show of ourselves.
struct Identity {
    cert_file: PathBuf,
    key_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    fn read(config: &TlsConfig, digest: &mut Context) -> Result<Identity, String> {
        let cert_file = needed(config.cert_file.as_deref(), "tls.cert_file")?.to_owned();
        let key_file = needed(config.key_file.as_deref(), "tls.key_file")?.to_owned();
        let chain = read_certificates(&cert_file, digest)?;
        let text = read(&key_file)?;
        digest.update(&text);
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            PemError::NoItemsFound => format!("{}: no private key in it", key_file.display()),
            error => format!("{}: {error}", key_file.display()),
        })?;
        Ok(Identity { cert_file, key_file, chain, key })
    }

    fn server(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) -> Result<TlsServer, String> {
        let wrong = |error: rustls::Error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "{}: the certificate is not of the key in {}",
                self.cert_file.display(),
                self.key_file.display()
            ),
            error => format!("{} with {}: {error}", self.cert_file.display(), self.key_file.display()),
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(wrong)?;
        let builder = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key()).map_err(wrong)?;
        config.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS_MAX);
        config.send_tls13_tickets = TICKETS;
        Ok(TlsServer { config: Arc::new(config), verifier })
    }
}

/// Checks chains against the authorities, and against the revocation list when there is one: then every certificate of
/// the chain must be covered by it.
fn client_verifier(
    ca_file: &Path,
    authorities: Vec<CertificateDer<'static>>,
    crl_file: Option<&Path>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let mut blamed = ca_file;
    if let Some(crl_file) = crl_file {
        builder = builder.with_crls(read_revocations(crl_file)?);
        blamed = crl_file;
    }
    builder.build().map_err(|error| format!("{}: {error}", blamed.display()))
}

fn read_certificates(path: &Path, digest: &mut Context) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    digest.update(&text);
    sections(path, &text, "certificate")
}

fn read_revocations(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    sections(path, &read(path)?, "revocation list")
}

/// All sections of a kind; none is an error.
fn sections<T: PemObject>(path: &Path, text: &[u8], what: &str) -> Result<Vec<T>, String> {
    let found: Result<Vec<T>, PemError> = T::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(format!("{}: no {what} in it", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = fs::metadata(path).map_err(|error| wrong(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes are too many, at most {FILE_BYTES_MAX} are read")));
    }
    fs::read(path).map_err(|error| wrong(&error))
}

fn needed<'a>(path: Option<&'a Path>, key: &str) -> Result<&'a Path, String> {
    path.ok_or_else(|| format!("{key} is missing, TLS needs it"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
