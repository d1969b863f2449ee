//! An authority of a test's own, certificates by it, revocation lists, and clients that show them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: rcgen::Certificate,
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
    pub serial: u64,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = name("test authority");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for a name, good for a year.
    pub fn issue(&self, common_name: &str, serial: u64) -> Identity {
        self.issue_for(common_name, serial, 365)
    }

    pub fn issue_for(&self, common_name: &str, serial: u64, days: u64) -> Identity {
        let mut params = CertificateParams::new(vec![common_name.to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name = name(common_name);
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_before = date_time_ymd(1970, 1, 1) + before_days(2);
        params.not_after = date_time_ymd(1970, 1, 1) + in_days(days);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate, key, serial }
    }

    /// The text of a list that revokes these.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let epoch = date_time_ymd(1970, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: epoch + before_days(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: epoch + before_days(1),
            next_update: epoch + in_days(30),
            crl_number: SerialNumber::from(serials.len() as u64 + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// A client that trusts this authority and shows a certificate, or none.
    pub fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        self.client_of(identity, rustls::ALL_VERSIONS)
    }

    pub fn client_of(
        &self,
        identity: Option<&Identity>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_webpki_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain: Vec<CertificateDer<'static>> = vec![identity.certificate.der().clone()];
                let key = PrivateKeyDer::try_from(identity.key.serialize_der()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Arc::new(config)
    }
}

/// The files that a daemon's configuration names.
pub struct Files {
    pub folder: PathBuf,
}

impl Files {
    pub fn write(folder: &Path, authority: &Authority, server: &Identity) -> Files {
        let files = Files { folder: folder.to_owned() };
        fs::write(folder.join("ca.pem"), authority.certificate.pem()).unwrap();
        files.show(server);
        files
    }

    /// The daemon is to show this one.
    pub fn show(&self, server: &Identity) {
        fs::write(self.folder.join("server.pem"), server.certificate.pem()).unwrap();
        fs::write(self.folder.join("server-key.pem"), server.key.serialize_pem()).unwrap();
    }

    pub fn revocations(&self, text: &str) {
        fs::write(self.folder.join("crl.pem"), text).unwrap();
    }

    /// The `[tls]` table for RPC, with more lines.
    pub fn table(&self, more: &str) -> String {
        let at = |file: &str| self.folder.join(file);
        format!(
            "[tls]\nrpc = true\nca_file = {:?}\ncert_file = {:?}\nkey_file = {:?}\n{more}\n",
            at("ca.pem"),
            at("server.pem"),
            at("server-key.pem")
        )
    }
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// So many days from now, counted from 1970.
fn in_days(days: u64) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(days * 86_400)
}

fn before_days(days: u64) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(days * 86_400)
}
