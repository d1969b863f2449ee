//! Why a call failed, shaped by what the caller asks next: was anything sent, and may it be tried again?

use std::fmt;

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No connection could be made. Nothing was sent.
    Connect {
        /// What was dialled.
        address: String,
        /// In the system's or the TLS library's words.
        cause: String,
    },
    /// The connection broke before a byte of the request was written. Trying again is safe.
    NotSent(String),
    /// The connection broke after bytes of the request were written: whether it was carried out is unknown.
    Broken(String),
    /// The server answered with an error, in its own words.
    Refused(String),
    /// No reply in time.
    Deadline {
        /// Whether bytes of the request were written; then the outcome is unknown.
        sent: bool,
    },
    /// The server's bytes are no reply to this request.
    Malformed(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { address, cause } => write!(f, "cannot reach {address}: {cause}"),
            Error::NotSent(cause) => write!(f, "connection broke before the request was sent: {cause}"),
            Error::Broken(cause) => write!(f, "connection broke before the answer, outcome unknown: {cause}"),
            Error::Refused(text) => f.write_str(text),
            Error::Deadline { sent: false } => f.write_str("no connection in time"),
            Error::Deadline { sent: true } => f.write_str("no answer in time, outcome unknown"),
            Error::Malformed(what) => write!(f, "answer cannot be read: {what}"),
        }
    }
}

impl std::error::Error for Error {}
