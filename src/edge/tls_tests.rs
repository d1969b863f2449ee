//! TLS from files that are whole, damaged, missing or of somebody else, and handshakes with what they gave.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsConfig;

use super::tls_files::{TlsMaterial, load};

/// An authority.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key.
struct Leaf {
    pem: String,
    key: String,
}

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_after = date_time_ymd(2040, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Ca { issuer: Issuer::new(params, key), pem }
    }

    fn leaf(&self, name: &str, serial: u64) -> Leaf {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.not_after = date_time_ymd(2035, 6, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { pem, key: key.serialize_pem() }
    }

    fn revoke(&self, serial: u64) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2039, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

struct Folder {
    folder: tempfile::TempDir,
    config: TlsConfig,
}

impl Folder {
    fn new(ca: &Ca, leaf: &Leaf) -> Folder {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(folder.path().join(name));
        let config = TlsConfig {
            rpc: true,
            http: true,
            ca_file: path("ca.pem"),
            cert_file: path("server.pem"),
            key_file: path("server-key.pem"),
            verify_server_hostname: true,
            rpc_upgrade_mode: false,
            crl_file: None,
        };
        let this = Folder { folder, config };
        this.write("ca.pem", &ca.pem);
        this.write("server.pem", &leaf.pem);
        this.write("server-key.pem", &leaf.key);
        this
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn load(&self) -> Result<TlsMaterial, String> {
        load(&self.config, "global")
    }
}

/// Shakes hands in memory; the error of whichever side had one first.
fn handshake(server: &Arc<rustls::ServerConfig>, ca: &Ca, client: Option<&Leaf>) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match client {
        Some(leaf) => {
            let chain = vec![CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    shake(server, Arc::new(config), "server.global.nomad")
}

fn shake(server: &Arc<rustls::ServerConfig>, client: Arc<ClientConfig>, name: &str) -> Result<(), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn rpc(material: &TlsMaterial) -> Arc<rustls::ServerConfig> {
    Arc::clone(&material.rpc.tls.as_ref().unwrap().config)
}

// R1.18, R1.19, R1.24, R1.26
#[test]
fn rpc_demands_a_certificate_of_the_authority_and_http_takes_one() {
    let (ca, other) = (Ca::new("ours"), Ca::new("another"));
    let folder = Folder::new(&ca, &ca.leaf("server.global.nomad", 1));
    let material = folder.load().unwrap();
    let client = ca.leaf("client.global.nomad", 2);
    assert_eq!(handshake(&rpc(&material), &ca, Some(&client)), Ok(()));
    assert!(handshake(&rpc(&material), &ca, None).is_err());
    assert!(handshake(&rpc(&material), &ca, Some(&other.leaf("client.global.nomad", 2))).is_err());
    let http = material.http.tls.as_ref().unwrap();
    assert_eq!(handshake(&http.config, &ca, None), Ok(()));
    // R8.12: one that is shown is checked, since clients are counted by it.
    assert_eq!(handshake(&http.config, &ca, Some(&client)), Ok(()));
    assert!(handshake(&http.config, &ca, Some(&other.leaf("client.global.nomad", 2))).is_err());
    assert!(http.verifier.is_some() && material.rpc.tls.as_ref().unwrap().verifier.is_some());
    assert!(material.rpc.require_tls && material.http.require_tls);
    assert_eq!(material.rpc.raft_name.as_deref(), Some("server.global.nomad"));
}

#[test]
fn the_configuration_decides_what_is_demanded() {
    let ca = Ca::new("ours");
    let mut folder = Folder::new(&ca, &ca.leaf("server.global.nomad", 1));
    folder.config.rpc_upgrade_mode = true;
    folder.config.verify_server_hostname = false;
    folder.config.http = false;
    let material = folder.load().unwrap();
    assert!(!material.rpc.require_tls && material.rpc.raft_name.is_none() && material.http.tls.is_none());
    // HTTP alone needs no authority.
    folder.config.rpc = false;
    folder.config.http = true;
    folder.config.ca_file = None;
    let material = folder.load().unwrap();
    assert!(material.rpc.tls.is_none() && !material.rpc.require_tls);
    assert!(material.http.tls.is_some_and(|tls| tls.verifier.is_none()));
    // And without TLS no file is read.
    let none = load(&TlsConfig { ca_file: Some(PathBuf::from("/nowhere")), ..TlsConfig::default() }, "global").unwrap();
    assert!(none.rpc.tls.is_none() && none.ends.is_empty());
}

/// What a server with the material of the first would say to one with that of the second.
fn dial(server: &Folder, client: &Folder, name: &str) -> Result<(), rustls::Error> {
    let dial = client.load().unwrap().dial.unwrap();
    assert_eq!(dial.verify_names, client.config.verify_server_hostname);
    shake(&rpc(&server.load().unwrap()), dial.config, name)
}

// R1.24
#[test]
fn servers_that_are_dialled_show_a_certificate_of_the_authority_and_of_the_name() {
    let (ca, other) = (Ca::new("ours"), Ca::new("another"));
    let server = Folder::new(&ca, &ca.leaf("server.global.nomad", 1));
    let mut client = Folder::new(&ca, &ca.leaf("server.global.nomad", 2));
    let stranger = Folder::new(&other, &other.leaf("server.global.nomad", 1));
    assert_eq!(dial(&server, &client, "server.global.nomad"), Ok(()));
    assert!(dial(&server, &client, "server.west.nomad").is_err());
    assert!(dial(&stranger, &client, "server.global.nomad").is_err());
    // Without names the chain alone counts, and it counts all the more.
    client.config.verify_server_hostname = false;
    assert_eq!(dial(&server, &client, "server.west.nomad"), Ok(()));
    assert_eq!(dial(&server, &client, "127.0.0.1"), Ok(()));
    for name in ["server.global.nomad", "server.west.nomad", "127.0.0.1"] {
        assert!(dial(&stranger, &client, name).is_err(), "{name}");
    }
    // R8.13: nor is a revoked server reached, by whatever name.
    for verify in [true, false] {
        client.config.verify_server_hostname = verify;
        client.config.crl_file = Some(client.write("crl.pem", &ca.revoke(9)));
        assert_eq!(dial(&server, &client, "server.global.nomad"), Ok(()));
        client.write("crl.pem", &ca.revoke(1));
        let revoked = rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked);
        for name in ["server.global.nomad", "server.west.nomad"] {
            let error = dial(&server, &client, name).unwrap_err();
            assert!(error == revoked || verify && name == "server.west.nomad", "{name}: {error}");
        }
    }
    // Where RPC has no TLS, none is dialled with it.
    client.config.rpc = false;
    assert!(client.load().unwrap().dial.is_none());
}

// R8.13
#[test]
fn a_revoked_certificate_is_refused_and_a_new_list_is_no_new_identity() {
    let ca = Ca::new("ours");
    let mut folder = Folder::new(&ca, &ca.leaf("server.global.nomad", 1));
    let before = folder.load().unwrap();
    folder.config.crl_file = Some(folder.write("crl.pem", &ca.revoke(7)));
    let material = folder.load().unwrap();
    assert_eq!(handshake(&rpc(&material), &ca, Some(&ca.leaf("client.global.nomad", 8))), Ok(()));
    let stolen = ca.leaf("client.global.nomad", 7);
    assert_eq!(handshake(&rpc(&before), &ca, Some(&stolen)), Ok(()));
    let error = handshake(&rpc(&material), &ca, Some(&stolen)).unwrap_err();
    assert_eq!(error, rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked));
    assert_eq!(material.fingerprint, before.fingerprint);
    // The verifier says the same of a chain from before.
    let verifier = material.rpc.tls.as_ref().unwrap().verifier.clone().unwrap();
    let chain = CertificateDer::from_pem_slice(stolen.pem.as_bytes()).unwrap();
    let now = rustls_pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
    assert!(verifier.verify_client_cert(&chain, &[], now).is_err());
}

// R1.13, R8.14
#[test]
fn a_new_certificate_is_a_new_identity_and_ends_are_known() {
    let ca = Ca::new("ours");
    let folder = Folder::new(&ca, &ca.leaf("server.global.nomad", 1));
    let first = folder.load().unwrap();
    assert_eq!(folder.load().unwrap().fingerprint, first.fingerprint);
    let leaf = ca.leaf("server.global.nomad", 2);
    folder.write("server.pem", &leaf.pem);
    folder.write("server-key.pem", &leaf.key);
    assert_ne!(folder.load().unwrap().fingerprint, first.fingerprint);
    folder.write("ca.pem", &format!("{}{}", ca.pem, Ca::new("second").pem));
    let ends: Vec<(String, i64)> =
        folder.load().unwrap().ends.into_iter().map(|end| (file_name(&end.name), end.unix_seconds)).collect();
    let (leaf_end, ca_end) = (date_time_ymd(2035, 6, 1).unix_timestamp(), date_time_ymd(2040, 1, 1).unix_timestamp());
    assert_eq!(
        ends,
        [("server.pem".to_owned(), leaf_end), ("ca.pem".to_owned(), ca_end), ("ca.pem#2".to_owned(), ca_end)]
    );
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_error_names_its_file() {
    let ca = Ca::new("ours");
    let leaf = ca.leaf("server.global.nomad", 1);
    let garbled = leaf.pem.replace("MI", "!!");
    let cases: [(&str, &str, &str); 7] = [
        ("ca.pem", "", "no certificate in it"),
        ("server.pem", "no certificate at all", "no certificate in it"),
        ("server.pem", &garbled, ""),
        ("server-key.pem", &leaf.pem, "no private key in it"),
        ("server-key.pem", &ca.leaf("x", 3).key, "the certificate is not of the key in"),
        ("crl.pem", "", "no revocation list in it"),
        ("crl.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", ""),
    ];
    for (name, text, why) in cases {
        let mut folder = Folder::new(&ca, &leaf);
        if name == "crl.pem" {
            folder.config.crl_file = Some(folder.folder.path().join(name));
        }
        folder.write(name, text);
        let error = folder.load().unwrap_err();
        let path = folder.folder.path().join(name);
        assert!(error.contains(&path.display().to_string()) && error.contains(why), "{name}: {error}");
        assert!(!error.contains('\n'), "{error}");
        fs::remove_file(&path).unwrap();
        let error = folder.load().unwrap_err();
        assert_eq!(error, format!("{}: No such file or directory (os error 2)", path.display()));
    }
    for (key, forget) in [
        ("tls.ca_file", (|config| config.ca_file = None) as fn(&mut TlsConfig)),
        ("tls.cert_file", |config| config.cert_file = None),
        ("tls.key_file", |config| config.key_file = None),
    ] {
        let mut folder = Folder::new(&ca, &leaf);
        forget(&mut folder.config);
        assert_eq!(folder.load().unwrap_err(), format!("{key} is missing, TLS needs it"));
    }
}
