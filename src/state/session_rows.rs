//! Sessions and the answers that are kept for them, as rows of a snapshot.

use std::sync::Arc;

use imbl::OrdMap;

use crate::state::State;
use crate::state::answers::Answered;
use crate::state::sections::{Section, tag};
use crate::state::sessions::{MAX_ANSWERS, Session};
use crate::state::snapshot::{encode, fields};
use crate::wire::entry::session::SessionOpen;
use crate::wire::msgpack::{Decoder, Encoder, Msg, Result as Decoded};

/// Values of a row.
const FIELDS: usize = 6;

/// The sessions in the order of their ids.
pub(super) const SECTION: Section = Section {
    tag: tag::SESSIONS,
    index: State::sessions_index,
    rows: |state| Box::new(state.sessions().map(|session| encode(|e| encode_session(session, e)))),
    restore_row: |state, d| {
        let disorder = d.error("sessions are out of order");
        let session = fields(d, FIELDS, decode_session)?;
        if state.sessions.restore(session) { Ok(()) } else { Err(disorder) }
    },
    restore_index: |state, index| state.sessions.set_index(index),
};

fn encode_session(session: &Session, e: &mut Encoder) {
    e.array(FIELDS);
    e.u64(session.id);
    session.open.encode(e);
    e.i64(session.opened);
    e.i64(session.active);
    e.u64(session.acknowledged_below);
    e.array(2 * session.answers.len());
    for (sequence, answer) in &session.answers {
        e.u64(*sequence);
        e.bytes(answer);
    }
}

fn decode_session(d: &mut Decoder<'_>) -> Decoded<Session> {
    let id = d.u64()?;
    let open = Arc::new(SessionOpen::decode(d)?);
    let (opened, active, acknowledged_below) = (d.i64()?, d.i64()?, d.u64()?);
    let wrong = d.error("answers of a session are too many, or out of order");
    let len = d.array()?.unwrap_or(0) / 2;
    if len > MAX_ANSWERS {
        return Err(wrong);
    }
    let mut answers = OrdMap::new();
    let mut last = 0;
    for _ in 0..len {
        let sequence = d.u64()?;
        let bytes: Arc<[u8]> = d.bytes()?.into();
        Answered::decode(&bytes)?;
        if sequence <= last || sequence < acknowledged_below {
            return Err(wrong);
        }
        last = sequence;
        answers.insert(sequence, bytes);
    }
    Ok(Session::restored(id, open, (opened, active), acknowledged_below, answers))
}
