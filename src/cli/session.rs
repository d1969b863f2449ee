//! `holdfast session`: the sessions that clients have open, and what became of a write in one of them.

use std::io::Write;

use serde_json::{Value, json};

use crate::base::time::format_duration;
use crate::cli::args::SessionCommand;
use crate::cli::output;
use crate::cli::var::time;
use crate::cli::{Context, Exit, Failure, read_input};
use crate::wire::body::query::GenericRequest;
use crate::wire::body::session::{
    KEY_BYTES, SessionKey, SessionListReply, SessionOutcomeReply, SessionOutcomeRequest, SessionStub,
};

/// Runs one of them.
///
/// # Errors
/// The client's, and a key that is none.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &SessionCommand) -> Result<Exit, Failure> {
    match command {
        SessionCommand::Ls => list(context, out),
        SessionCommand::Outcome { secret_file, id, sequence } => {
            let key = read_key(&read_input(secret_file)?)?;
            outcome(context, out, key, *id, *sequence)
        }
    }
}

fn list(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let reply: SessionListReply =
        context.client().call("Session.List", &GenericRequest { query: context.fresh_query() })?;
    if context.json {
        let row = |session: &SessionStub| {
            json!({
                "id": session.id, "name": session.name, "server_id": session.server_id,
                "accessor_id": session.accessor_id, "ttl": ttl(session), "opened": time(session.opened),
                "deadline": time(session.deadline), "acknowledged_below": session.acknowledged_below,
                "replies": session.replies, "reply_bytes": session.reply_bytes,
            })
        };
        output::json(out, &Value::from(reply.sessions.iter().map(row).collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    let head = ["ID", "Name", "Server", "TTL", "Opened", "Until", "Acknowledged below", "Replies", "Bytes"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for session in &reply.sessions {
        rows.push(vec![
            session.id.to_string(),
            output::or_dash(&session.name),
            output::or_dash(&session.server_id),
            ttl(session),
            time(session.opened),
            time(session.deadline),
            session.acknowledged_below.to_string(),
            session.replies.to_string(),
            session.reply_bytes.to_string(),
        ]);
    }
    output::table(out, &rows)?;
    Ok(Exit::Done)
}

fn ttl(session: &SessionStub) -> String {
    format_duration(std::time::Duration::from_nanos(u64::try_from(session.ttl).unwrap_or(0)))
}

fn outcome(context: &Context, out: &mut dyn Write, key: SessionKey, id: u64, sequence: u64) -> Result<Exit, Failure> {
    let request = SessionOutcomeRequest { id, key, sequence, query: context.fresh_query() };
    let reply: SessionOutcomeReply = context.client().call("Session.Outcome", &request)?;
    if context.json {
        let (index, error) = (reply.write_index, &reply.error);
        output::json(out, &json!({ "outcome": reply.outcome, "index": index, "error": error }))?;
    } else {
        let mut rows = vec![("Outcome", output::clean(&reply.outcome))];
        if reply.write_index > 0 {
            rows.push(("Index", reply.write_index.to_string()));
        }
        if !reply.error.is_empty() {
            rows.push(("Error", output::clean(&reply.error)));
        }
        output::pairs(out, &rows)?;
    }
    Ok(Exit::Done)
}

/// A key in hexadecimal digits.
fn read_key(text: &str) -> Result<SessionKey, Failure> {
    let wrong = || Failure::Usage(format!("a session's key is {} hexadecimal digits", 2 * KEY_BYTES));
    SessionKey::from_hex(text.trim()).ok_or_else(wrong)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::body::session::SessionListReply;
    use crate::wire::msgpack::Msg;

    #[test]
    fn a_key_is_read_from_digits() {
        let digits = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(read_key(&format!("{digits}\n")).unwrap(), SessionKey((0..16).collect()));
        for wrong in
            ["", "00", "zz0102030405060708090a0b0c0d0e0f", &format!("{digits}0"), "é00102030405060708090a0b0c0d0e0"]
        {
            assert!(read_key(wrong).is_err(), "{wrong:?}");
        }
    }

    // R2.12: what became of a write can be asked from a shell; the list shows no key.
    #[test]
    fn sessions_and_outcomes_are_shown() {
        use crate::client::fake::{reply, serve};
        let address = serve(None, |method, body| match method {
            "Session.List" => {
                let name = "billing".to_owned();
                let session = SessionStub { id: 7, name, ttl: 60_000_000_000, replies: 2, ..SessionStub::default() };
                reply(&SessionListReply { sessions: vec![session], ..SessionListReply::default() })
            }
            _ => {
                let request = SessionOutcomeRequest::from_bytes(body).unwrap();
                assert_eq!((request.id, request.sequence, request.key.0.len()), (7, 3, 16));
                let outcome = "applied".to_owned();
                reply(&SessionOutcomeReply { outcome, write_index: 41, ..SessionOutcomeReply::default() })
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "00".repeat(16)).unwrap();
        let holdfast = |line: &[&str]| {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let words = [&["holdfast", "--address", &address], line].concat();
            let exit = crate::cli::run(words.into_iter().map(Into::into), &mut out, &mut err);
            assert_eq!((exit, err.as_slice()), (Exit::Done, &b""[..]));
            String::from_utf8(out).unwrap()
        };
        let listed = holdfast(&["session", "ls"]);
        assert!(listed.contains("billing") && listed.contains("1m"), "{listed}");
        let json: Value = serde_json::from_str(&holdfast(&["session", "ls", "--json"])).unwrap();
        assert_eq!((&json[0]["id"], &json[0]["replies"]), (&json!(7), &json!(2)));
        let told = holdfast(&["session", "outcome", "--secret-file", key.to_str().unwrap(), "7", "3"]);
        assert!(told.contains("applied") && told.contains("41"), "{told}");
    }
}
