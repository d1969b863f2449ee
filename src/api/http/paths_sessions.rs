//! `/v1/holdfast/session` and `/v1/holdfast/sessions`. The key of a session is shown in a header and nowhere else, since
//! addresses end up in logs.
//!
//! Source: requirements R2.12, R2.22 to R2.28.

use crate::wire::body::query::GenericRequest;
use crate::wire::body::session::{SessionOpenRequest, SessionOutcomeRequest, SessionRequest};

use super::forms;
use super::paths::{Ask, Planned};
use super::query::parse_uint;
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, Refusal, refusal};
use super::session_heads::{Owner, SESSION, SessionHeads};

/// PUT `/v1/holdfast/session`: all that is in its body may be left out, and the body too.
pub(super) fn open(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let body = if ask.request.body.is_empty() { SessionOpenRequest::default() } else { ask.body(forms::SESSION)? };
    ask.call("Session.Open", &SessionOpenRequest { write: ask.write(), ..body }, Show::Session)
}

/// PUT and DELETE `/v1/holdfast/session/:id`.
pub(super) fn one(ask: &Ask<'_>) -> Planned {
    let (name, kind) = match ask.method() {
        "PUT" | "POST" => ("Session.KeepAlive", Show::Session),
        "DELETE" => ("Session.Close", Show::Empty(Heads::Write)),
        _ => return Err(refusal(405, INVALID_METHOD)),
    };
    let Owner { id, key } = owner(ask)?;
    ask.call(name, &SessionRequest { id, key, write: ask.write() }, kind)
}

/// GET `/v1/holdfast/session/:id/outcome/:sequence` (R2.12).
pub(super) fn outcome(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let Owner { id, key } = owner(ask)?;
    let sequence = number(ask.part(1), "sequence")?;
    let arguments = SessionOutcomeRequest { id, key, sequence, query: ask.unwaiting()? };
    ask.call("Session.Outcome", &arguments, Show::SessionOutcome)
}

/// GET `/v1/holdfast/sessions`.
pub(super) fn list(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Session.List", &GenericRequest { query: ask.read()? }, Show::List("Sessions"))
}

/// The session that the path names, with the key that the header shows for it.
fn owner(ask: &Ask<'_>) -> Result<Owner, Refusal> {
    let id = number(ask.part(0), "session id")?;
    let heads = SessionHeads::read(&ask.request.headers).map_err(|text| refusal(400, &text))?;
    match heads.owner {
        Some(owner) if owner.id == id => Ok(owner),
        Some(_) => Err(refusal(400, &format!("{SESSION} is of another session than the path"))),
        None => Err(refusal(400, &format!("{SESSION} is missing"))),
    }
}

fn number(text: &str, what: &str) -> Result<u64, Refusal> {
    parse_uint(text).map_err(|error| refusal(400, &format!("{what}: {error}")))
}
