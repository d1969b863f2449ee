//! Why a call has no reply, and what that means for whoever made it.
//!
//! The variants say what happened; [`Error::class`] says what it means, by the one table of [`crate::wire::class`].

use std::fmt;

pub use crate::wire::class::Class;
use crate::wire::class::{OUTCOME_UNKNOWN, without_prefixes};

/// Where a write stands: its session, and its number in it. With it one can ask later what became of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The session.
    pub session: u64,
    /// The number of the write.
    pub sequence: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}, write {}", self.session, self.sequence)
    }
}

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
    /// The connection broke after bytes of a request that changes nothing were written.
    Broken(String),
    /// The server answered with an error.
    Answered {
        /// What it means.
        class: Class,
        /// In the server's own words.
        text: String,
    },
    /// No reply in time.
    Deadline {
        /// Whether bytes of the request were written.
        sent: bool,
    },
    /// The server's bytes are no reply to this request.
    Malformed(String),
    /// A write that may have been carried out, or may not; nobody will find out by waiting.
    OutcomeUnknown {
        /// Its place, when it was made in a session: see [`crate::client::Session::outcome`].
        place: Option<Place>,
        /// Why nobody knows.
        cause: Box<Error>,
    },
    /// The library cannot work: the system gives no thread, or no random numbers.
    System(String),
}

impl Error {
    /// A server's error, its class read from the text.
    pub fn answered(text: impl Into<String>) -> Error {
        let text = text.into();
        Error::Answered { class: Class::of_text(&text), text }
    }

    /// What it means.
    pub fn class(&self) -> Class {
        match self {
            Error::Connect { .. } | Error::NotSent(_) | Error::Deadline { sent: false } | Error::System(_) => {
                Class::NotSent
            }
            Error::Broken(_) | Error::Deadline { sent: true } | Error::Malformed(_) => Class::Broken,
            Error::Answered { class, .. } => *class,
            Error::OutcomeUnknown { .. } => Class::OutcomeUnknown,
        }
    }

    /// Whether a write that ended so may have been carried out, and nobody knows.
    pub fn is_outcome_unknown(&self) -> bool {
        self.class() == Class::OutcomeUnknown
    }

    /// The session and the number of a write whose outcome is unknown.
    pub fn place(&self) -> Option<Place> {
        match self {
            Error::OutcomeUnknown { place, .. } => *place,
            _ => None,
        }
    }

    /// The text of a server that said no for good.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Error::Answered { class: Class::Refused, text } => Some(text),
            _ => None,
        }
    }

    /// The text of a server, whatever it means.
    pub fn answer(&self) -> Option<&str> {
        match self {
            Error::Answered { text, .. } => Some(text),
            _ => None,
        }
    }

    /// As the caller of a write is told that cannot be made again: what may have happened has an unknown outcome.
    pub(crate) fn of_write(self, place: Option<Place>) -> Error {
        match self {
            Error::OutcomeUnknown { cause, place: known } => Error::OutcomeUnknown { place: place.or(known), cause },
            error if error.class().surely_not_applied() => error,
            error => Error::OutcomeUnknown { place, cause: Box::new(error) },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Connect { address, cause } => write!(f, "cannot reach {address}: {cause}"),
            Error::NotSent(cause) => write!(f, "connection broke before the request was sent: {cause}"),
            Error::Broken(cause) => write!(f, "connection broke before the answer: {cause}"),
            Error::Answered { text, .. } | Error::System(text) => f.write_str(text),
            Error::Deadline { sent: false } => f.write_str("no connection in time"),
            Error::Deadline { sent: true } => f.write_str("no answer in time"),
            Error::Malformed(what) => write!(f, "answer cannot be read: {what}"),
            Error::OutcomeUnknown { place, cause } => {
                let cause = cause.to_string();
                let bare = without_prefixes(&cause);
                let bare = bare.strip_prefix(OUTCOME_UNKNOWN).map_or(bare, |rest| rest.trim_start_matches([':', ' ']));
                write!(f, "{OUTCOME_UNKNOWN}: {bare}")?;
                place.map_or(Ok(()), |place| write!(f, " ({place})"))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::OutcomeUnknown { cause, .. } => Some(&**cause),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R2.11, R2.12: the type, the text and the place of a write whose outcome nobody knows.
    #[test]
    fn an_unknown_outcome_names_its_place_and_its_cause_once() {
        let place = Place { session: 12, sequence: 3 };
        let error = Error::Broken("reset".to_owned()).of_write(Some(place));
        assert_eq!(
            error.to_string(),
            "outcome unknown: connection broke before the answer: reset (session 12, write 3)"
        );
        assert_eq!((error.class(), error.place()), (Class::OutcomeUnknown, Some(place)));
        let told = Error::answered("rpc error: outcome unknown: the leader was lost").of_write(None);
        assert_eq!(told.to_string(), "outcome unknown: the leader was lost");
        assert!(told.is_outcome_unknown() && std::error::Error::source(&told).is_some());
        for sure in [
            Error::NotSent(String::new()),
            Error::Deadline { sent: false },
            Error::answered("Permission denied"),
            Error::answered("No cluster leader"),
        ] {
            assert_eq!(sure.clone().of_write(Some(place)), sure);
        }
        for unsure in [
            Error::Deadline { sent: true },
            Error::Malformed(String::new()),
            Error::answered("leadership lost while committing log"),
        ] {
            assert!(unsure.of_write(None).is_outcome_unknown());
        }
    }
}
