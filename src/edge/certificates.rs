//! When certificates end, and when to say so (requirement R8.14: at 30, 7 and 1 days).
//!
//! Reads no clock: time is an argument.

use std::path::Path;
use std::time::Duration;

use log::Level;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::base::time::{WallTime, format_rfc3339};

const DAY_SECONDS: i64 = 86_400;
/// Days before the end at which a line is logged, and how severe it is.
const WARNINGS: [(i64, Level); 3] = [(30, Level::Warn), (7, Level::Warn), (1, Level::Error)];

/// When one certificate ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// The file, and `#2` and so on for those after the first in it.
    pub name: String,
    /// Seconds since the Unix epoch.
    pub unix_seconds: i64,
}

/// The ends of all certificates of a file.
///
/// # Errors
/// A sentence that names the file.
pub fn ends(file: &Path, certificates: &[CertificateDer<'_>]) -> Result<Vec<CertificateEnd>, String> {
    certificates.iter().enumerate().map(|(at, certificate)| end(file, at, certificate)).collect()
}

fn end(file: &Path, at: usize, certificate: &CertificateDer<'_>) -> Result<CertificateEnd, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| format!("{}: {error}", file.display()))?;
    let name = match at {
        0 => file.display().to_string(),
        _ => format!("{}#{}", file.display(), at + 1),
    };
    Ok(CertificateEnd { name, unix_seconds: parsed.validity().not_after.timestamp() })
}

/// How far each certificate's end was announced; says what is to be announced next.
#[derive(Debug, Default)]
pub struct Expiry {
    ends: Vec<(CertificateEnd, Stage)>,
}

/// Which of the warnings was given: 0 none, then one a step; the last one is that it has ended.
type Stage = usize;

fn stage(seconds_left: i64) -> Stage {
    let passed = WARNINGS.iter().filter(|(days, _)| seconds_left <= days * DAY_SECONDS).count();
    passed + usize::from(seconds_left <= 0)
}

impl Expiry {
    /// Watches these from now on, in the place of others.
    pub fn watch(&mut self, ends: &[CertificateEnd]) {
        self.ends = ends.iter().map(|end| (end.clone(), 0)).collect();
    }

    /// The ends, as [`crate::server::port::ProcessFacts`] wants them.
    pub fn facts(&self) -> Vec<(String, i64)> {
        self.ends.iter().map(|(end, _)| (end.name.clone(), end.unix_seconds)).collect()
    }

    /// The lines that are due.
    pub fn due(&mut self, now: WallTime) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        for (end, announced) in &mut self.ends {
            let left = end.unix_seconds - now.unix_seconds();
            let reached = stage(left);
            if reached > *announced {
                lines.push(line(end, left));
            }
            *announced = reached;
        }
        lines
    }

    /// How long until the next line; `None` when none will come.
    pub fn next(&self, now: WallTime) -> Option<Duration> {
        let steps = WARNINGS.iter().map(|(days, _)| days * DAY_SECONDS).chain([0]);
        let left = |end: &CertificateEnd| end.unix_seconds - now.unix_seconds();
        let waits = steps.flat_map(|step| self.ends.iter().map(move |(end, _)| left(end) - step));
        let seconds = waits.filter(|wait| *wait > 0).min()?;
        Some(Duration::from_secs(seconds.unsigned_abs()))
    }
}

fn line(end: &CertificateEnd, seconds_left: i64) -> (Level, String) {
    let when = format_rfc3339(end.unix_seconds, 0);
    if seconds_left <= 0 {
        return (Level::Error, format!("certificate has expired: file={} expired={when}", end.name));
    }
    let level = WARNINGS.iter().rev().find(|(days, _)| seconds_left <= days * DAY_SECONDS);
    let level = level.map_or(Level::Warn, |(_, level)| *level);
    let hours = seconds_left / 3600;
    (level, format!("certificate expires soon: file={} expires={when} left={}d{}h", end.name, hours / 24, hours % 24))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> WallTime {
        WallTime::from_unix_nanos(seconds * 1_000_000_000)
    }

    // R8.14
    #[test]
    fn each_step_is_said_once() {
        let mut expiry = Expiry::default();
        expiry.watch(&[CertificateEnd { name: "server.pem".to_owned(), unix_seconds: 100 * DAY_SECONDS }]);
        let mut now = 0;
        let mut said = Vec::new();
        loop {
            for (level, text) in expiry.due(at(now)) {
                said.push((now / DAY_SECONDS, level, text));
            }
            assert!(expiry.due(at(now)).is_empty(), "a line comes once");
            let Some(wait) = expiry.next(at(now)) else { break };
            now += i64::try_from(wait.as_secs()).unwrap();
        }
        let days: Vec<_> = said.iter().map(|(day, level, _)| (*day, *level)).collect();
        assert_eq!(days, [(70, Level::Warn), (93, Level::Warn), (99, Level::Error), (100, Level::Error)]);
        assert_eq!(said[0].2, "certificate expires soon: file=server.pem expires=1970-04-11T00:00:00Z left=30d0h");
        assert_eq!(said[3].2, "certificate has expired: file=server.pem expired=1970-04-11T00:00:00Z");
    }

    #[test]
    fn a_certificate_of_six_days_is_said_at_once_and_only_at_its_step() {
        let mut expiry = Expiry::default();
        expiry.watch(&[CertificateEnd { name: "a".to_owned(), unix_seconds: 6 * DAY_SECONDS }]);
        assert_eq!(expiry.due(at(0)).len(), 1);
        assert_eq!(expiry.next(at(0)), Some(Duration::from_secs(5 * 86_400)));
        assert_eq!(expiry.facts(), [("a".to_owned(), 6 * DAY_SECONDS)]);
    }
}
