//! The headers that give a request its place in a session. Read strictly: a write whose number was lost on the way
//! could be made twice, and nobody would know.
//!
//! Source: requirements R2.23, R2.25, R2.30.

use crate::api::{Access, Method};
use crate::wire::body::session::{SessionKey, WriteStamp};

use super::query::parse_uint;

/// The session and its key, `ID:KEY`, the key in hexadecimal digits.
pub const SESSION: &str = "X-Holdfast-Session";
/// The number of the write.
pub const SEQUENCE: &str = "X-Holdfast-Sequence";
/// The lowest number that may be asked for again; the write's own when it is left out.
pub const ACKNOWLEDGED_BELOW: &str = "X-Holdfast-Acknowledged-Below";
/// The index up to which a read is to see all.
pub const SEEN: &str = "X-Holdfast-Seen";

/// What goes into the body of a call beside its arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    /// The place of a write in a session.
    pub stamp: Option<WriteStamp>,
    /// The index up to which a read is to see all.
    pub seen: Option<u64>,
}

/// Which session, and what its owner shows for it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owner {
    /// Its id.
    pub(super) id: u64,
    /// Its key.
    pub(super) key: SessionKey,
}

/// What the headers of one request say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct SessionHeads {
    /// [`SESSION`].
    pub(super) owner: Option<Owner>,
    sequence: Option<u64>,
    acknowledged_below: Option<u64>,
    seen: Option<u64>,
}

impl SessionHeads {
    /// Reads them. What an error says never holds a value: it may be a key in the wrong place.
    ///
    /// # Errors
    /// Which header is wrong, and what it has to be.
    pub(super) fn read(headers: &[(String, String)]) -> Result<SessionHeads, String> {
        Ok(SessionHeads {
            owner: one(headers, SESSION, "ID:KEY, a number and 32 hexadecimal digits", owner)?,
            sequence: one(headers, SEQUENCE, "a number from 1 on", |text| number(text).filter(|number| *number > 0))?,
            acknowledged_below: one(headers, ACKNOWLEDGED_BELOW, "a number", number)?,
            seen: one(headers, SEEN, "a number", number)?,
        })
    }

    /// What they mean for a call.
    ///
    /// # Errors
    /// One of them is missing, or the method does not take it.
    pub(super) fn marks(self, method: &Method) -> Result<Marks, String> {
        let seen = match method.access {
            Access::Read | Access::LocalRegion => self.seen,
            // A write sees all that was written before it.
            Access::Write => None,
            Access::Local | Access::AnyServer if self.seen.is_some() => return Err(not_taken(SEEN, method.name)),
            Access::Local | Access::AnyServer => None,
        };
        if !method.takes_stamp() {
            // These are about the session itself.
            let owned = matches!(method.name, "Session.Close" | "Session.KeepAlive" | "Session.Outcome");
            self.refuse_stamp(method.name, owned)?;
            return Ok(Marks { stamp: None, seen });
        }
        let stamp = match (self.owner, self.sequence) {
            (Some(Owner { id, key }), Some(sequence)) => {
                let acknowledged_below = self.acknowledged_below.unwrap_or(sequence);
                if acknowledged_below > sequence {
                    return Err(format!("{ACKNOWLEDGED_BELOW} is above {SEQUENCE}"));
                }
                Some(WriteStamp { id, key, sequence, acknowledged_below })
            }
            (None, None) if self.acknowledged_below.is_none() => None,
            (Some(_), None) => return Err(format!("{SEQUENCE} is missing beside {SESSION}")),
            (None, Some(_)) => return Err(format!("{SESSION} is missing beside {SEQUENCE}")),
            (None, None) => return Err(format!("{SESSION} and {SEQUENCE} are missing beside {ACKNOWLEDGED_BELOW}")),
        };
        Ok(Marks { stamp, seen })
    }

    /// Refuses all of them for what takes none.
    ///
    /// # Errors
    /// The first that is there.
    pub(super) fn refuse_all(&self, name: &str) -> Result<(), String> {
        self.refuse_stamp(name, false)?;
        if self.seen.is_some() { Err(not_taken(SEEN, name)) } else { Ok(()) }
    }

    fn refuse_stamp(&self, name: &str, takes_owner: bool) -> Result<(), String> {
        for (header, there) in [
            (SESSION, self.owner.is_some() && !takes_owner),
            (SEQUENCE, self.sequence.is_some()),
            (ACKNOWLEDGED_BELOW, self.acknowledged_below.is_some()),
        ] {
            if there {
                return Err(not_taken(header, name));
            }
        }
        Ok(())
    }
}

fn not_taken(header: &str, name: &str) -> String {
    format!("{header} is not taken by {name}")
}

/// The value of a header that may be there once.
fn one<T>(
    headers: &[(String, String)],
    name: &str,
    wanted: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, String> {
    let mut values = headers.iter().filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(format!("{name} is there twice"));
    }
    read(value.trim()).map(Some).ok_or_else(|| format!("{name} is malformed: it has to be {wanted}"))
}

fn number(text: &str) -> Option<u64> {
    parse_uint(text).ok()
}

fn owner(text: &str) -> Option<Owner> {
    let (id, key) = text.split_once(':')?;
    let id = number(id).filter(|id| *id > 0)?;
    Some(Owner { id, key: SessionKey::from_hex(key)? })
}
