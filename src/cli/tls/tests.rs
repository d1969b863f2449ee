//! `holdfast tls` as it is typed: what rustls and openssl's readers make of the files, and what is refused.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use serde_json::Value;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::cli::run as run_line;

fn holdfast(line: &[&str]) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run_line(["holdfast"].iter().chain(line).map(Into::into), &mut out, &mut err);
    (exit, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

/// Runs `holdfast tls` in a folder; it must end well.
fn tls(folder: &Path, line: &[&str]) -> String {
    let words = [&["tls"], line, &["--dir", folder.to_str().unwrap()]].concat();
    let (exit, out, err) = holdfast(&words);
    assert_eq!((exit, err.as_str()), (Exit::Done, ""), "{line:?}");
    out
}

fn der(file: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file).unwrap()
}

fn roots(folder: &Path) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&folder.join("ca.pem"))).unwrap();
    Arc::new(roots)
}

/// What a rustls client says of a server that shows this file and is called by this name, so many days from now.
fn judged(folder: &Path, file: &str, name: &str, days: i64) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let crls = CertificateRevocationListDer::from_pem_file(folder.join("crl.pem")).ok();
    let builder = WebPkiServerVerifier::builder_with_provider(roots(folder), provider);
    let verifier = builder.with_crls(crls).build().unwrap();
    let seconds = u64::try_from(clock::wall().unix_seconds() + days * 86_400).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(&der(&folder.join(file)), &[], &name, &[], now).map(|_| ())
}

fn as_client(folder: &Path, file: &str) -> Result<(), Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(folder), provider).build().unwrap();
    verifier.verify_client_cert(&der(&folder.join(file)), &[], UnixTime::now()).map(|_| ())
}

fn mode(file: PathBuf) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn certificates_are_good_for_their_names_and_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let told = tls(at, &["ca"]);
    assert!(told.contains("ca.pem") && told.contains("ca-key.pem"), "{told}");
    let told = tls(at, &["cert", "--server", "--dns", "hf1.example.com", "--ip", "10.0.0.1"]);
    assert!(told.contains("server.global.nomad, localhost, hf1.example.com, 127.0.0.1, ::1, 10.0.0.1"), "{told}");
    assert!(told.contains("[tls]\nrpc = true\n") && told.contains("server-key.pem\""), "{told}");

    for name in ["server.global.nomad", "localhost", "127.0.0.1", "::1", "hf1.example.com", "10.0.0.1"] {
        assert_eq!(judged(at, "server.pem", name, 0), Ok(()), "{name}");
    }
    for name in ["server.west.nomad", "client.global.nomad", "hf2.example.com", "10.0.0.2"] {
        let refused = judged(at, "server.pem", name, 0).unwrap_err();
        assert!(
            matches!(refused, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
            "{name}"
        );
    }
    assert_eq!(judged(at, "server.pem", "localhost", 824), Ok(()));
    assert!(judged(at, "server.pem", "localhost", 826).is_err(), "it has ended");
    assert!(judged(at, "server.pem", "localhost", -1).is_err(), "it has not begun");
    assert_eq!(as_client(at, "server.pem"), Ok(()), "servers dial each other");
    for (file, open) in [("ca.pem", 0o444), ("server.pem", 0o444)] {
        assert_eq!(mode(at.join(file)) & 0o444, open & mode(at.join(file)), "{file}");
    }
    assert_eq!((mode(at.join("ca-key.pem")), mode(at.join("server-key.pem"))), (0o600, 0o600));
}

#[test]
fn each_role_can_do_what_it_must_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    tls(at, &["ca", "--days", "10"]);
    tls(at, &["cert", "--client", "--region", "west"]);
    let told = tls(at, &["cert", "--cli", "--name", "anna", "--region", "west"]);
    assert!(told.contains("--region west status"), "{told}");
    assert_eq!(judged(at, "client.pem", "client.west.nomad", 0), Ok(()));
    assert_eq!((as_client(at, "client.pem"), as_client(at, "anna.pem")), (Ok(()), Ok(())));
    assert!(judged(at, "anna.pem", "cli.west.nomad", 0).is_err(), "a caller cannot pose as a server");
    // No longer than its authority.
    assert!(judged(at, "client.pem", "localhost", 9).is_ok() && judged(at, "client.pem", "localhost", 11).is_err());

    let authority = der(&at.join("ca.pem"));
    let (_, authority) = X509Certificate::from_der(&authority).unwrap();
    let constraints = authority.basic_constraints().unwrap().unwrap().value;
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    let usage = authority.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    let serials: Vec<Vec<u8>> = ["ca.pem", "client.pem", "anna.pem"]
        .iter()
        .map(|file| X509Certificate::from_der(&der(&at.join(file))).unwrap().1.raw_serial().to_vec())
        .collect();
    assert!(serials.iter().all(|serial| serial.len() == 16 && serial[0] < 0x80), "{serials:?}");
    assert!(serials[0] != serials[1] && serials[1] != serials[2]);
}

#[test]
fn nothing_is_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let dir = at.to_str().unwrap();
    tls(at, &["ca"]);
    tls(at, &["cert", "--server"]);
    let all = || ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"].map(|file| fs::read(at.join(file)).unwrap());
    let before = all();
    fs::remove_file(at.join("server.pem")).unwrap();
    for line in [&["tls", "ca", "--dir", dir][..], &["tls", "cert", "--server", "--dir", dir]] {
        let (exit, out, err) = holdfast(line);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""));
        assert!(err.contains("it is there already") && err.contains("--force"), "{err}");
    }
    assert!(!at.join("server.pem").exists(), "the key that was there is of no other certificate");
    tls(at, &["cert", "--server", "--force"]);
    assert!(before.iter().zip(all()).skip(2).all(|(old, new)| *old != new));
    assert_eq!(fs::read_dir(at).unwrap().count(), 4, "nothing is left lying about");
    assert!(judged(at, "server.pem", "server.global.nomad", 0).is_ok());
}

#[test]
fn what_no_certificate_can_be_made_of_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let dir = at.to_str().unwrap();
    let (exit, _, err) = holdfast(&["tls", "cert", "--server", "--dir", dir]);
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("ca.pem") && err.contains("holdfast tls ca"), "{err}");
    tls(at, &["ca"]);
    tls(at, &["cert", "--server"]);
    let foreign = tempfile::tempdir().unwrap();
    tls(foreign.path(), &["ca", "--name", "another"]);
    let foreign_key = foreign.path().join("ca-key.pem");
    let server = at.join("server.pem");
    let (foreign_key, server) = (foreign_key.to_str().unwrap(), server.to_str().unwrap());
    for (line, said) in [
        (&["cert", "--cli", "--dns", "10.0.0.1"][..], "--ip"),
        (&["cert", "--cli", "--dns", "not a name"], "is no name"),
        (&["cert", "--cli", "--region", "a b"], "--region"),
        (&["cert", "--cli", "--name", "../x"], "--dir"),
        (&["cert", "--cli", "--ca-key", foreign_key], "not the key of"),
        (&["cert", "--cli", "--ca", server], "no authority's"),
        (&["cert", "--cli", "--ca-key", server], "no private key"),
        (&["cert", "--cli", "--server"], "cannot be used with"),
        (&["cert"], "required"),
        (&["cert", "--cli", "--days", "0"], "0"),
        (&["ca", "--force", "--name", ""], "no name"),
    ] {
        let words = [&["tls"], line, &["--dir", dir]].concat();
        let (exit, out, err) = holdfast(&words);
        assert_eq!((exit, out.as_str()), (Exit::Usage, ""), "{line:?}");
        assert!(err.contains(said), "{line:?}: {err}");
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), 4);
}

// R8.13
#[test]
fn a_revoked_certificate_is_refused_and_the_list_forgets_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    tls(at, &["ca"]);
    for name in ["one", "two", "three"] {
        tls(at, &["cert", "--server", "--name", name]);
    }
    let path = |file: &str| at.join(file).to_str().unwrap().to_owned();
    let crl = path("crl.pem");
    tls(at, &["crl", "--revoke", &path("one.pem"), "--out", &crl]);
    let json: Value =
        serde_json::from_str(&tls(at, &["crl", "--json", "--revoke", &path("two.pem"), "--out", &crl])).unwrap();
    assert_eq!(json["revoked"], 2);
    for (file, revoked) in [("one.pem", true), ("two.pem", true), ("three.pem", false)] {
        let refused = judged(at, file, "localhost", 0) == Err(Error::InvalidCertificate(CertificateError::Revoked));
        assert_eq!(refused, revoked, "{file}");
    }
    // Another authority of the same name is another one.
    let foreign = tempfile::tempdir().unwrap();
    tls(foreign.path(), &["ca"]);
    let dir = foreign.path().to_str().unwrap();
    for (line, said) in [
        (&["--revoke", &path("one.pem"), "--out", "/nowhere"][..], "another authority"),
        (&["--out", &crl], "list of another authority"),
    ] {
        let words = [&["tls", "crl", "--dir", dir], line].concat();
        let (exit, _, err) = holdfast(&words);
        assert_eq!(exit, Exit::Usage);
        assert!(err.contains(said), "{err}");
    }
}
