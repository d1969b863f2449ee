//! TLS from files: certificates, keys, authorities and revocation lists to what rustls works by. An error names its file.
//!
//! Servers that are dialled are checked against the same authorities and the same list, and are shown our certificate.
//! RPC always demands a certificate of the client and checks it (transport notes, section 2; R1.24). HTTP asks for one,
//! to count clients by (R8.12), and does without; one that is shown is checked.
//! Handshakes are TLS 1.2 or 1.3 by `ring`. Sessions are resumed from a small cache in memory, never from tickets that
//! hold the session themselves: a reload makes a new cache, so that nobody resumes past a new authority or revocation.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::TlsConfig;
use crate::conn::Security;
use crate::conn::tls::{TlsClient, TlsServer};

use super::any_name::AnyName;
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
    /// How other servers are dialled, with [`TlsMaterial::rpc`].
    pub dial: Option<TlsClient>,
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
        let trust = match config.ca_file.as_deref() {
            Some(ca_file) => {
                let authorities = read_certificates(ca_file, &mut digest)?;
                material.ends.extend(certificates::ends(ca_file, &authorities)?);
                Some(Trust::read(ca_file, authorities, config.crl_file.as_deref())?)
            }
            None => None,
        };
        if config.rpc {
            let trust = needed(trust.as_ref(), "tls.ca_file")?;
            material.dial = Some(identity.client(trust.of_servers()?, config.verify_server_hostname)?);
            let verifier = trust.of_clients(Demand::Always)?;
            material.rpc = Security {
                tls: Some(Arc::new(identity.server(Some(verifier))?)),
                require_tls: !config.rpc_upgrade_mode,
                raft_name: (config.verify_server_hostname && !config.rpc_upgrade_mode)
                    .then(|| Arc::from(format!("server.{region}.nomad"))),
            };
        }
        if config.http {
            let verifier = trust.map(|trust| trust.of_clients(Demand::WhereShown)).transpose()?;
            material.http =
                Security { tls: Some(Arc::new(identity.server(verifier)?)), require_tls: true, raft_name: None };
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

    fn wrong(&self, error: &rustls::Error) -> String {
        let (cert, key) = (self.cert_file.display(), self.key_file.display());
        match error {
            rustls::Error::InconsistentKeys(_) => format!("{cert}: the certificate is not of the key in {key}"),
            error => format!("{cert} with {key}: {error}"),
        }
    }

    /// For connections that we dial: our certificate is shown there too, and a session that was resumed is one that
    /// this configuration has checked.
    fn client(&self, verifier: Arc<WebPkiServerVerifier>, verify_names: bool) -> Result<TlsClient, String> {
        let wrong = |error: rustls::Error| self.wrong(&error);
        let verifier: Arc<dyn ServerCertVerifier> =
            if verify_names { verifier } else { Arc::new(AnyName { chain: verifier }) };
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(wrong)?;
        Ok(TlsClient { config: Arc::new(config), verify_names })
    }

    fn server(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) -> Result<TlsServer, String> {
        let wrong = |error: rustls::Error| self.wrong(&error);
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

/// Whether a client may come without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Demand {
    /// It may not.
    Always,
    /// It may; but one that it shows must be good.
    WhereShown,
}

/// Whom chains are checked against: the authorities, and the revocation list when there is one; then every certificate
/// of the chain must be covered by it.
struct Trust<'a> {
    roots: Arc<RootCertStore>,
    revoked: Vec<CertificateRevocationListDer<'static>>,
    /// The file to name when they do not fit together.
    blamed: &'a Path,
}

impl<'a> Trust<'a> {
    fn read(
        ca_file: &'a Path,
        authorities: Vec<CertificateDer<'static>>,
        crl_file: Option<&'a Path>,
    ) -> Result<Trust<'a>, String> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).map_err(|error| format!("{}: {error}", ca_file.display()))?;
        }
        let revoked = crl_file.map(read_revocations).transpose()?.unwrap_or_default();
        Ok(Trust { roots: Arc::new(roots), revoked, blamed: crl_file.unwrap_or(ca_file) })
    }

    fn of_clients(&self, demand: Demand) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        let builder = match demand {
            Demand::Always => builder,
            Demand::WhereShown => builder.allow_unauthenticated(),
        };
        let built = builder.with_crls(self.revoked.clone()).build();
        built.map_err(|error| format!("{}: {error}", self.blamed.display()))
    }

    fn of_servers(&self) -> Result<Arc<WebPkiServerVerifier>, String> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider());
        let built = builder.with_crls(self.revoked.clone()).build();
        built.map_err(|error| format!("{}: {error}", self.blamed.display()))
    }
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

fn needed<'a, T: ?Sized>(given: Option<&'a T>, key: &str) -> Result<&'a T, String> {
    given.ok_or_else(|| format!("{key} is missing, TLS needs it"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
