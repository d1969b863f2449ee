//! The files of TLS: whether they fit together, whom a caller would take this server for, and how long they last.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::base::time::{WallTime, format_rfc3339};
use crate::config::TlsConfig;
use crate::edge::certificates::{CertificateEnd, ends};
use crate::edge::{clock, tls_files};

use super::Site;
use super::finding::Finding;

const DAY_SECONDS: i64 = 86_400;
/// Fewer days than these are few (R8.14).
const FEW_DAYS: i64 = 30;
/// What makes new ones.
const HINT: &str = "see holdfast-tls(1)";

/// Looks at all of them.
pub(super) fn check(site: &Site) -> Vec<Finding> {
    let config = &site.config;
    if !config.tls.rpc && !config.tls.http {
        let detail = "off: whoever can reach the ports can read and write";
        if config.listen_rpc.ip().is_loopback() && config.listen_http.ip().is_loopback() {
            return vec![Finding::note("tls", "off, and only this machine can reach the ports", HINT)];
        }
        return vec![Finding::warn("tls", detail, HINT)];
    }
    look(&config.tls, &config.region, clock::wall())
}

fn look(tls: &TlsConfig, region: &str, now: WallTime) -> Vec<Finding> {
    let named = [("tls.ca_file", &tls.ca_file), ("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)];
    for (what, file) in named.iter().filter_map(|(what, file)| Some((what, file.as_deref()?))) {
        match fs::File::open(file) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return vec![Finding::unseen(*what, &error)];
            }
            _ => {}
        }
    }
    let material = match tls_files::load(tls, region) {
        Ok(material) => material,
        Err(why) => return vec![Finding::fail("tls files", why, HINT)],
    };
    let mut found = vec![Finding::ok("tls files", "readable, and the key is the certificate's")];
    found.push(chain(tls, region, now).unwrap_or_else(|why| Finding::fail("chain", why, HINT)));
    found.extend(material.ends.iter().map(|end| judge_end(end, now)));
    if let Some(file) = tls.crl_file.as_deref() {
        found.push(list(file, now).unwrap_or_else(|why| Finding::fail("tls.crl_file", why, HINT)));
    }
    found
}

/// What a caller makes of the certificate, asking for the name that it asks for.
fn chain(tls: &TlsConfig, region: &str, now: WallTime) -> Result<Finding, String> {
    let (Some(ca_file), Some(cert_file)) = (tls.ca_file.as_deref(), tls.cert_file.as_deref()) else {
        return Ok(Finding::note("chain", "cannot be checked without tls.ca_file", ""));
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca_file)? {
        roots.add(authority).map_err(|error| format!("{}: {error}", ca_file.display()))?;
    }
    let lists: Vec<CertificateRevocationListDer<'_>> = match tls.crl_file.as_deref() {
        Some(file) => CertificateRevocationListDer::pem_file_iter(file)
            .and_then(Iterator::collect)
            .map_err(|error| format!("{}: {error}", file.display()))?,
        None => Vec::new(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    let verifier = builder.build().map_err(|error| error.to_string())?;
    let chain = certificates(cert_file)?;
    let (first, rest) = chain.split_first().ok_or_else(|| format!("{}: no certificate", cert_file.display()))?;
    let name = format!("server.{region}.nomad");
    let asked = ServerName::try_from(name.clone()).map_err(|_| format!("{name} is not a server's name"))?;
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_seconds()).unwrap_or(0)));
    let verdict = verifier.verify_server_cert(first, rest, &asked, &[], at);
    Ok(judge_chain(&verdict.map(|_| ()), tls.verify_server_hostname, &name))
}

fn judge_chain(verdict: &Result<(), Error>, name_matters: bool, name: &str) -> Finding {
    let why = match verdict {
        Ok(()) => return Finding::ok("chain", format!("ends in tls.ca_file, and is good for {name}")),
        Err(Error::InvalidCertificate(why)) => why,
        Err(error) => return Finding::fail("chain", error.to_string(), HINT),
    };
    let hint = "holdfast tls cert --server";
    match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let detail = format!("ends in tls.ca_file, and is not good for {name}");
            if name_matters {
                return Finding::fail("chain", format!("{detail}: tls.verify_server_hostname wants it"), hint);
            }
            Finding::note("chain", format!("{detail}; nobody asks: tls.verify_server_hostname is off"), hint)
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            Finding::fail("chain", "no certificate of tls.ca_file has signed it", HINT)
        }
        CertificateError::Revoked => Finding::fail("chain", "tls.crl_file revokes this very certificate", hint),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            Finding::fail("chain", "has expired", hint)
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Finding::fail("chain", "is not good yet", "is the clock right?")
        }
        other => Finding::fail("chain", Error::InvalidCertificate(other.clone()).to_string(), HINT),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| format!("{}: {error}", file.display()))?;
    // That each can be read is found here, and which one cannot.
    ends(file, &read).map(|_| read)
}

fn judge_end(end: &CertificateEnd, now: WallTime) -> Finding {
    let (left, when) = (end.unix_seconds - now.unix_seconds(), format_rfc3339(end.unix_seconds, 0));
    let days = left.div_euclid(DAY_SECONDS);
    match left {
        i64::MIN..=0 => Finding::fail("expiry", format!("{} ended {when}", end.name), HINT),
        _ if days < FEW_DAYS => Finding::warn("expiry", format!("{} ends in {days} days, {when}", end.name), HINT),
        _ => Finding::ok("expiry", format!("{} ends in {days} days, {when}", end.name)),
    }
}

fn list(file: &Path, now: WallTime) -> Result<Finding, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    let der = CertificateRevocationListDer::from_pem_file(file).map_err(|error| wrong(&error))?;
    let (_, list) = CertificateRevocationList::from_der(&der).map_err(|error| wrong(&error))?;
    let count = list.iter_revoked_certificates().count();
    let name = file.display();
    let Some(next) = list.next_update().map(|time| time.timestamp()) else {
        return Ok(Finding::ok("tls.crl_file", format!("{name} revokes {count}")));
    };
    let detail = format!("{name} revokes {count}, a newer one is due {}", format_rfc3339(next, 0));
    if next > now.unix_seconds() {
        return Ok(Finding::ok("tls.crl_file", detail));
    }
    Ok(Finding::warn("tls.crl_file", detail, "who was revoked since then is let in: holdfast tls crl"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::super::finding::Verdict;
    use super::*;

    /// Files made by `holdfast tls`.
    fn made(folder: &Path, lines: &[&[&str]]) -> TlsConfig {
        for line in lines {
            let words = [&["holdfast", "tls"], *line, &["--dir", folder.to_str().unwrap()]].concat();
            let exit = crate::cli::run(words.into_iter().map(Into::into), &mut Vec::new(), &mut Vec::new());
            assert_eq!(exit, crate::cli::Exit::Done, "{line:?}");
        }
        let at = |file: &str| -> Option<PathBuf> { Some(folder.join(file)) };
        TlsConfig {
            rpc: true,
            ca_file: at("ca.pem"),
            cert_file: at("server.pem"),
            key_file: at("server-key.pem"),
            verify_server_hostname: true,
            ..TlsConfig::default()
        }
    }

    fn worst(found: &[Finding]) -> Verdict {
        found.iter().map(|one| one.verdict).max().unwrap()
    }

    fn later(days: i64) -> WallTime {
        WallTime::from_unix_nanos(clock::wall().unix_nanos() + days * DAY_SECONDS * 1_000_000_000)
    }

    // R8.14
    #[test]
    fn good_files_are_good_until_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let tls = made(folder.path(), &[&["ca"], &["cert", "--server", "--days", "90"]]);
        for (days, verdict) in [(0, Verdict::Ok), (65, Verdict::Warn), (91, Verdict::Fail), (-2, Verdict::Fail)] {
            let found = look(&tls, "global", later(days));
            assert_eq!(worst(&found), verdict, "{days}: {found:?}");
        }
    }

    #[test]
    fn a_name_matters_where_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut tls = made(folder.path(), &[&["ca"], &["cert", "--server", "--region", "west"]]);
        let found = look(&tls, "global", later(0));
        assert_eq!(worst(&found), Verdict::Fail);
        assert!(found.iter().any(|one| one.detail.contains("not good for server.global.nomad")), "{found:?}");
        tls.verify_server_hostname = false;
        assert_eq!(worst(&look(&tls, "global", later(0))), Verdict::Note);
        assert_eq!(worst(&look(&tls, "west", later(0))), Verdict::Ok);
    }

    #[test]
    fn files_that_do_not_fit_together_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let good = made(folder.path(), &[&["ca"], &["cert", "--server"], &["cert", "--server", "--name", "other"]]);
        let foreign = tempfile::tempdir().unwrap();
        made(foreign.path(), &[&["ca"]]);
        let other_key = TlsConfig { key_file: Some(folder.path().join("other-key.pem")), ..good.clone() };
        let other_ca = TlsConfig { ca_file: Some(foreign.path().join("ca.pem")), ..good.clone() };
        let gone = TlsConfig { cert_file: Some(folder.path().join("gone.pem")), ..good.clone() };
        for (tls, said) in [(other_key, "not of the key"), (other_ca, "has signed it"), (gone, "gone.pem")] {
            let found = look(&tls, "global", later(0));
            assert_eq!(worst(&found), Verdict::Fail);
            assert!(found.iter().any(|one| one.detail.contains(said)), "{said}: {found:?}");
        }
        assert_eq!(worst(&look(&good, "global", later(0))), Verdict::Ok);
    }

    // R8.13
    #[test]
    fn an_old_list_is_told_and_so_is_one_that_revokes_ourselves() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (crl, other, own) = (file("crl.pem"), file("other.pem"), file("server.pem"));
        let mut tls = made(
            folder.path(),
            &[
                &["ca"],
                &["cert", "--server"],
                &["cert", "--server", "--name", "other"],
                &["crl", "--out", &crl, "--revoke", &other, "--days", "10"],
            ],
        );
        tls.crl_file = Some(folder.path().join("crl.pem"));
        assert_eq!(worst(&look(&tls, "global", later(0))), Verdict::Ok);
        assert_eq!(worst(&look(&tls, "global", later(11))), Verdict::Warn);
        made(folder.path(), &[&["crl", "--out", &crl, "--revoke", &own]]);
        let found = look(&tls, "global", later(0));
        assert!(found.iter().any(|one| one.detail.contains("this very certificate")), "{found:?}");
    }
}
