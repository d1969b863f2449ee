//! An authority: makes itself, certificates with the names that servers and agents look for, and revocation lists.
//!
//! Opens no file and prints nothing; texts in, texts out. Keys are ECDSA on P-256, which every peer's TLS takes. Source:
//! RFC 5280; Nomad's `tls cert create` for names and uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData, RevokedCertParams,
    SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, DnsName};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use crate::base::time::WallTime;

const DAY_SECONDS: i64 = 86_400;
/// Clocks of machines that have just started are allowed to be this late.
const EARLY_SECONDS: i64 = 3_600;
/// The beginning of the year 9999, seconds since the Unix epoch: the last year that a certificate can name.
const LAST_SECONDS: i64 = 253_370_764_800;
/// Bytes of a serial number; its first bit is 0, so that it is a positive number (RFC 5280 section 4.1.2.2).
const SERIAL_BYTES: usize = 16;
/// Bytes of an authority's name (RFC 5280, ub-common-name).
const NAME_BYTES_MAX: usize = 64;

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A server: is called, and calls other servers.
    Server,
    /// A node's agent: calls, and is called on the connection it made.
    Client,
    /// A person or a program that only calls.
    Cli,
}

impl Role {
    /// The first label of its name, and the stem of its files.
    pub(super) fn word(self) -> &'static str {
        match self {
            Role::Server => "server",
            Role::Client => "client",
            Role::Cli => "cli",
        }
    }
}

/// A certificate and its key, both PEM.
pub(super) struct Made {
    pub(super) certificate: String,
    pub(super) key: String,
    /// What it is good for, as people read it.
    pub(super) names: Vec<String>,
    /// Seconds since the Unix epoch.
    pub(super) ends: i64,
}

/// What a certificate is to say.
pub(super) struct Wanted<'a> {
    pub(super) role: Role,
    pub(super) region: &'a str,
    pub(super) dns: &'a [String],
    pub(super) ip: &'a [IpAddr],
    pub(super) days: u32,
}

/// A revocation list.
pub(super) struct Revocations {
    pub(super) text: String,
    /// How many certificates are in it.
    pub(super) count: usize,
    /// Seconds since the Unix epoch.
    pub(super) next_update: i64,
}

/// Makes a new authority.
///
/// # Errors
/// A name that cannot be in a certificate, and no randomness.
pub(super) fn make_authority(name: &str, days: u32, now: WallTime) -> Result<Made, String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(format!("{name:?} is no name for an authority: write 1 to {NAME_BYTES_MAX} bytes of text"));
    }
    let ends = now.unix_seconds() + i64::from(days) * DAY_SECONDS;
    let mut params = params(name, now, ends)?;
    // It signs certificates of servers and clients, never of other authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let certificate = params.self_signed(&key).map_err(|error| error.to_string())?;
    Ok(Made { certificate: certificate.pem(), key: key.serialize_pem(), names: vec![name.to_owned()], ends })
}

/// An authority that can sign.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// Reads it from its two files' texts.
    ///
    /// # Errors
    /// A certificate that is no authority's, and a key that is not its own. The key's text is never repeated.
    pub(super) fn read(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| AuthorityError::Certificate("no certificate in it (PEM)".to_owned()))?;
        let wrong = |why: &str| AuthorityError::Certificate(why.to_owned());
        let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| wrong("the certificate cannot be read"))?;
        if !parsed.is_ca() {
            return Err(wrong("it is no authority's certificate: it may not sign others"));
        }
        let key = KeyPair::from_pem(key)
            .map_err(|_| AuthorityError::Key("no private key in it that can sign (PEM, PKCS #8)".to_owned()))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(AuthorityError::Key("it is not the key of the authority's certificate".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| wrong(&error.to_string()))?;
        Ok(Authority { issuer, certificate: der })
    }

    /// Makes a certificate.
    ///
    /// # Errors
    /// A region or a name that no certificate can bear; an authority that has ended.
    pub(super) fn issue(&self, wanted: &Wanted<'_>, now: WallTime) -> Result<Made, String> {
        let (_, authority) = X509Certificate::from_der(&self.certificate).map_err(|error| error.to_string())?;
        let authority_ends = authority.validity().not_after.timestamp();
        if authority_ends <= now.unix_seconds() {
            return Err("the authority's certificate has expired: make a new one with \"holdfast tls ca\"".to_owned());
        }
        let name = format!("{}.{}.nomad", wanted.role.word(), wanted.region);
        if DnsName::try_from(name.as_str()).is_err() {
            return Err(format!("--region {:?} cannot be part of a name in a certificate", wanted.region));
        }
        let ends = (now.unix_seconds() + i64::from(wanted.days) * DAY_SECONDS).min(authority_ends);
        let mut params = params(&name, now, ends)?;
        (params.subject_alt_names, params.is_ca) = (alternative_names(&name, wanted)?, IsCa::ExplicitNoCa);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Servers dial each other, and agents of Nomad show theirs where they listen.
        params.extended_key_usages = match wanted.role {
            Role::Server | Role::Client => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
            Role::Cli => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate().map_err(|error| error.to_string())?;
        let names = params.subject_alt_names.iter().map(shown).collect();
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| error.to_string())?;
        Ok(Made { certificate: certificate.pem(), key: key.serialize_pem(), names, ends })
    }

    /// Makes a list of these certificates and of what `before`, an older list, holds.
    ///
    /// # Errors
    /// A certificate or a list that is not this authority's; names which by its place.
    pub(super) fn revoke(
        &self,
        certificates: &[(String, String)],
        before: Option<(&str, &str)>,
        days: u32,
        now: WallTime,
    ) -> Result<Revocations, String> {
        let (_, authority) = X509Certificate::from_der(&self.certificate).map_err(|error| error.to_string())?;
        let mut revoked = before.map(|(file, text)| known(file, text, &authority)).transpose()?.unwrap_or_default();
        for (file, text) in certificates {
            let der = CertificateDer::from_pem_slice(text.as_bytes())
                .map_err(|_| format!("{file}: no certificate in it (PEM)"))?;
            let (_, parsed) =
                X509Certificate::from_der(&der).map_err(|_| format!("{file}: the certificate cannot be read"))?;
            if parsed.verify_signature(Some(authority.public_key())).is_err() {
                return Err(format!("{file}: another authority signed it: {}", parsed.issuer()));
            }
            if !revoked.iter().any(|(serial, _)| serial == parsed.raw_serial()) {
                revoked.push((parsed.raw_serial().to_vec(), now.unix_seconds()));
            }
        }
        let next_update = now.unix_seconds() + i64::from(days) * DAY_SECONDS;
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since_1970(now.unix_seconds() - EARLY_SECONDS),
            next_update: date_time_ymd(1970, 1, 1) + since_1970(next_update),
            // Later lists have higher numbers, whoever makes them.
            crl_number: SerialNumber::from(u64::try_from(now.unix_seconds()).unwrap_or(0)),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(|(serial, at)| entry(serial, *at)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(|error| error.to_string())?;
        let text = list.pem().map_err(|error| error.to_string())?;
        Ok(Revocations { text, count: revoked.len(), next_update })
    }
}

/// Which of an authority's two texts is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthorityError {
    /// The certificate.
    Certificate(String),
    /// The key.
    Key(String),
}

fn entry(serial: &[u8], at: i64) -> RevokedCertParams {
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(serial),
        revocation_time: date_time_ymd(1970, 1, 1) + since_1970(at),
        reason_code: None,
        invalidity_date: None,
    }
}

/// Serial numbers of an older list, and since when they are in it.
fn known(file: &str, text: &str, authority: &X509Certificate<'_>) -> Result<Vec<(Vec<u8>, i64)>, String> {
    let der = CertificateRevocationListDer::from_pem_slice(text.as_bytes())
        .map_err(|_| format!("{file}: no revocation list in it (PEM)"))?;
    let (_, list) =
        CertificateRevocationList::from_der(&der).map_err(|_| format!("{file}: the revocation list cannot be read"))?;
    if list.verify_signature(authority.public_key()).is_err() {
        return Err(format!("{file}: it is the list of another authority: {}", list.issuer()));
    }
    let each = list.iter_revoked_certificates();
    Ok(each.map(|one| (one.raw_serial().to_vec(), one.revocation_date.timestamp())).collect())
}

fn params(common_name: &str, now: WallTime, ends: i64) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.serial_number = Some(serial()?);
    params.not_before = date_time_ymd(1970, 1, 1) + since_1970(now.unix_seconds() - EARLY_SECONDS);
    params.not_after = date_time_ymd(1970, 1, 1) + since_1970(ends);
    Ok(params)
}

/// A random positive number.
fn serial() -> Result<SerialNumber, String> {
    let mut bytes = [0; SERIAL_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system's source of randomness fails".to_owned())?;
    // Neither negative nor with leading zeros.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// What is to be added to 1970, never past the years that a certificate can name.
fn since_1970(unix_seconds: i64) -> Duration {
    Duration::from_secs(unix_seconds.clamp(0, LAST_SECONDS).unsigned_abs())
}

/// The name of the role first, then the machine itself, then what was asked for, each once.
fn alternative_names(name: &str, wanted: &Wanted<'_>) -> Result<Vec<SanType>, String> {
    let mut names = Vec::new();
    for dns in [name, "localhost"].into_iter().chain(wanted.dns.iter().map(String::as_str)) {
        let bare = dns.strip_prefix("*.").unwrap_or(dns);
        if DnsName::try_from(bare).is_err() || bare.parse::<IpAddr>().is_ok() {
            return Err(format!("--dns {dns:?} is no name; an address is given with --ip"));
        }
        let text = Ia5String::try_from(dns.to_owned()).map_err(|error| error.to_string())?;
        names.push(SanType::DnsName(text));
    }
    let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    names.extend(here.iter().chain(wanted.ip).map(|ip| SanType::IpAddress(*ip)));
    let mut once = Vec::with_capacity(names.len());
    for name in names {
        if !once.contains(&name) {
            once.push(name);
        }
    }
    Ok(once)
}

fn shown(name: &SanType) -> String {
    match name {
        SanType::DnsName(name) => name.as_str().to_owned(),
        SanType::IpAddress(ip) => ip.to_string(),
        _ => String::new(),
    }
}
