//! Acknowledged writes are in the log, each once; what was refused did nothing. (Goals 4 and 5.)

use std::collections::BTreeMap;

use crate::state::ApplyResult;
use crate::wire::body::node_call::NodeHead;
use crate::wire::entry::Command;
use crate::wire::msgpack::{Decoder, Msg};

use super::super::history::{Answered, Asked, Operation, Outcome};
use super::super::requests::NONCE;
use super::super::truth::Step;
use super::{Case, is_unsure};

/// One more error after which a write may have happened all the same.
const UNSURE: &str = "node not found";

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let by_index: BTreeMap<u64, &Step> = case.steps.iter().map(|step| (step.index, step)).collect();
    let mut by_nonce: BTreeMap<u64, Vec<&Step>> = BTreeMap::new();
    for step in case.steps {
        if let Some(nonce) = nonce_of(&step.command) {
            by_nonce.entry(nonce).or_default().push(step);
        }
    }
    for (nonce, steps) in by_nonce.iter().filter(|(_, steps)| steps.len() > 1) {
        let indexes: Vec<u64> = steps.iter().map(|step| step.index).collect();
        wrongs.push(format!("the write with the nonce {nonce} was applied at {indexes:?}"));
    }
    for operation in case.history.operations.iter().filter(|operation| operation.asked.writes()) {
        match &operation.outcome {
            Outcome::Done(Answered::Written(index) | Answered::Heard(index, _)) if *index > 0 => {
                let there = by_index.get(index).is_some_and(|step| is_of(case, operation, step));
                if !there {
                    wrongs.push(format!("an acknowledged write is lost: {operation:?}"));
                }
            }
            Outcome::Refused(text) if !is_unsure(text) && !text.starts_with(UNSURE) => {
                let steps = operation.asked.nonce().and_then(|nonce| by_nonce.get(&nonce));
                if steps.is_some_and(|steps| steps.iter().any(|step| did_something(step))) {
                    wrongs.push(format!("a refused write happened: {operation:?}"));
                }
            }
            _ => {}
        }
    }
}

fn did_something(step: &Step) -> bool {
    !matches!(step.result, ApplyResult::Refused(_))
}

/// Whether an entry is that of an operation.
fn is_of(case: &Case<'_>, operation: &Operation, step: &Step) -> bool {
    let id = operation.asked.node().and_then(|node| case.history.nodes.get(node));
    let Some(id) = id else { return false };
    let same_nonce = nonce_of(&step.command) == operation.asked.nonce();
    same_nonce
        && did_something(step)
        && match (&operation.asked, &step.command) {
            (Asked::Register { .. }, Command::NodeRegister { .. })
            | (Asked::Emit { .. }, Command::NodeEmitEvents { .. }) => true,
            (Asked::Status { status, .. }, Command::NodeUpdateStatus { node_id, status: written, .. }) => {
                node_id == id && written == status.as_str()
            }
            (Asked::Expire { .. }, Command::NodeUpdateStatus { node_id, status, .. }) => {
                node_id == id && status == "down"
            }
            (Asked::Deregister { .. }, Command::NodeDeregister { node_ids }) => node_ids == std::slice::from_ref(id),
            (Asked::Drain { .. }, Command::NodeUpdateDrain { node_id, strategy: Some(_), .. })
            | (Asked::EndDrain { .. }, Command::NodeUpdateDrain { node_id, strategy: None, .. })
            | (Asked::DrainComplete { .. }, Command::NodeDrainComplete { node_id }) => node_id == id,
            (Asked::Eligibility { eligible, .. }, Command::NodeUpdateEligibility { node_id, eligibility }) => {
                node_id == id && (eligibility == "eligible") == *eligible
            }
            _ => false,
        }
}

/// The nonce that an entry carries.
fn nonce_of(command: &Command) -> Option<u64> {
    match command {
        Command::NodeRegister { node } => {
            NodeHead::from_bytes(&node.0).ok()?;
            let mut d = Decoder::new(&node.0);
            for _ in 0..d.map().ok()?.unwrap_or(0) {
                if d.bytes().ok()? != b"Meta" {
                    d.skip().ok()?;
                    continue;
                }
                let meta: BTreeMap<String, String> = Msg::decode(&mut d).ok()?;
                return meta.get(NONCE)?.parse().ok();
            }
            None
        }
        Command::NodeEmitEvents { events } => {
            let event = events.values().next()?.first()?;
            event.message.strip_prefix(NONCE)?.trim().parse().ok()
        }
        Command::NodeUpdateDrain { meta, .. } => meta.get(NONCE)?.parse().ok(),
        _ => None,
    }
}
