//! What was answered to a write of a session, as it is kept until its owner acknowledges it.
//!
//! Kept as bytes: most are never read again. Items over a small size are left out: whoever asks again hears that the
//! write was done, or refused, all the same (R2.26).

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::ApplyResult;
use crate::state::snapshot::fields;
use crate::state::var::{Var, VarOutcome};
use crate::state::var_rows::{VAR_FIELDS, decode_var, encode_var};
use crate::wire::entry::Command;
use crate::wire::entry::var::Sealed;
use crate::wire::msgpack::{Decoder, Encoder, Result as Decoded};

/// Sealed items of more bytes are not kept.
const KEPT_ITEMS_BYTES: usize = 1024;

/// A write that was applied, and what the state said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    /// The index of its entry.
    pub index: Index,
    /// The tag of its command.
    pub tag: u64,
    /// What the state said.
    pub result: ApplyResult,
    /// How the answer is made from it ([`crate::wire::entry::session::SessionStamp::finish`]).
    pub finish: Arc<[u8]>,
}

/// Kinds of results. Never given out twice.
mod kind {
    pub(super) const DONE: u64 = 0;
    pub(super) const DRAIN_STARTED: u64 = 1;
    pub(super) const REFUSED: u64 = 2;
    pub(super) const VARS: u64 = 3;
    pub(super) const NO_MATCH: u64 = 4;
}

/// Kinds of outcomes of a variable's write. Never given out twice.
mod var_kind {
    pub(super) const OK: u64 = 0;
    pub(super) const CONFLICT: u64 = 1;
    pub(super) const REFUSED: u64 = 2;
    pub(super) const SKIPPED: u64 = 3;
}

impl Answered {
    /// The bytes to keep.
    pub(super) fn encode(index: Index, command: &Command, result: &ApplyResult, finish: &[u8]) -> Vec<u8> {
        let mut e = Encoder { out: Vec::with_capacity(64 + finish.len()) };
        e.array(4);
        e.u64(index.0);
        e.u64(command.tag());
        encode_result(&mut e, command, result);
        e.bytes(finish);
        e.out
    }

    /// Reads them.
    ///
    /// # Errors
    /// Anything else.
    pub(super) fn decode(bytes: &[u8]) -> Decoded<Answered> {
        let mut d = Decoder::new(bytes);
        fields(&mut d, 4, |d| {
            Ok(Answered { index: Index(d.u64()?), tag: d.u64()?, result: decode_result(d)?, finish: d.bytes()?.into() })
        })
    }
}

fn encode_result(e: &mut Encoder, command: &Command, result: &ApplyResult) {
    let mut kind = |kind| {
        e.array(2);
        e.u64(kind);
    };
    match result {
        ApplyResult::Done => kind(kind::DONE),
        ApplyResult::DrainStarted => kind(kind::DRAIN_STARTED),
        ApplyResult::NoMatch => kind(kind::NO_MATCH),
        ApplyResult::Refused(text) | ApplyResult::OutOfPlace(text) => {
            kind(kind::REFUSED);
            return e.str(text);
        }
        ApplyResult::Vars(outcomes) => {
            kind(kind::VARS);
            return encode_outcomes(e, command, outcomes);
        }
        // What is kept is the first answer, whose result this never is.
        ApplyResult::Repeated(answered) => return encode_result(e, command, &answered.result),
    }
    e.nil();
}

fn encode_outcomes(e: &mut Encoder, command: &Command, outcomes: &[VarOutcome]) {
    e.array(outcomes.len());
    for (nth, outcome) in outcomes.iter().enumerate() {
        let keeps_items = match command {
            Command::VarApply(apply) => apply.ops.get(nth).is_some_and(|op| op.keep_items),
            _ => false,
        };
        encode_outcome(e, outcome, keeps_items);
    }
}

fn decode_result(d: &mut Decoder<'_>) -> Decoded<ApplyResult> {
    let unknown = d.error("unknown kind of result");
    fields(d, 2, |d| {
        let kind = d.u64()?;
        let result = match kind {
            kind::DONE => ApplyResult::Done,
            kind::DRAIN_STARTED => ApplyResult::DrainStarted,
            kind::NO_MATCH => ApplyResult::NoMatch,
            kind::REFUSED => return Ok(ApplyResult::Refused(d.str()?.to_owned())),
            kind::VARS => {
                let len = d.array()?.unwrap_or(0);
                return Ok(ApplyResult::Vars((0..len).map(|_| decode_outcome(d)).collect::<Decoded<_>>()?));
            }
            _ => return Err(unknown),
        };
        d.skip()?;
        Ok(result)
    })
}

fn encode_outcome(e: &mut Encoder, outcome: &VarOutcome, keeps_items: bool) {
    let (kind, var) = match outcome {
        VarOutcome::Ok(var) => (var_kind::OK, var.as_deref()),
        // One whose items cannot be kept is shown as the peers' empty conflict.
        VarOutcome::Conflict(var) => {
            (var_kind::CONFLICT, var.as_deref().filter(|var| var.sealed.as_ref().is_none_or(is_small)))
        }
        VarOutcome::Refused(text) => {
            e.array(2);
            e.u64(var_kind::REFUSED);
            return e.str(text);
        }
        VarOutcome::Skipped => {
            e.array(2);
            e.u64(var_kind::SKIPPED);
            return e.nil();
        }
    };
    e.array(2);
    e.u64(kind);
    match var {
        None => e.nil(),
        // The request that comes again brings what it wrote.
        Some(var) if kind == var_kind::OK && !(keeps_items && var.sealed.as_ref().is_none_or(is_small)) => {
            encode_var(&Var { sealed: None, ..var.clone() }, e);
        }
        Some(var) => encode_var(var, e),
    }
}

fn is_small(sealed: &Sealed) -> bool {
    sealed.bytes.0.len() <= KEPT_ITEMS_BYTES
}

fn decode_outcome(d: &mut Decoder<'_>) -> Decoded<VarOutcome> {
    let unknown = d.error("unknown kind of outcome");
    fields(d, 2, |d| {
        Ok(match d.u64()? {
            var_kind::OK => VarOutcome::Ok(decode_kept(d)?),
            var_kind::CONFLICT => VarOutcome::Conflict(decode_kept(d)?),
            var_kind::REFUSED => VarOutcome::Refused(d.str()?.to_owned().into()),
            var_kind::SKIPPED => {
                d.skip()?;
                VarOutcome::Skipped
            }
            _ => return Err(unknown),
        })
    })
}

fn decode_kept(d: &mut Decoder<'_>) -> Decoded<Option<Arc<Var>>> {
    if d.nil()? {
        return Ok(None);
    }
    fields(d, VAR_FIELDS, decode_var).map(|var| Some(Arc::new(var)))
}
