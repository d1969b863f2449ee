//! Event streams: in the order of indexes, nothing twice, nothing missing without an announced gap, and each document
//! is what the log says. (Goal 7; R8.6.)

use std::collections::BTreeMap;

use super::super::history::{Document, Subscription};
use super::super::subscriber::hash_of;
use super::{Case, SLACK};

/// The documents of the log: index to kind, key and hash of the payload, each.
type Told = BTreeMap<u64, Vec<(String, String, u64)>>;

pub(super) fn check(case: &Case<'_>, wrongs: &mut Vec<String>) {
    let mut told = Told::new();
    for step in case.steps.iter().filter(|step| !step.events.is_empty()) {
        let one = |event: &crate::state::events::Event| {
            let payload: Option<serde_json::Value> = serde_json::from_str(&event.payload.json()).ok();
            (event.kind.to_owned(), event.key.to_string(), hash_of(payload.as_ref()))
        };
        told.insert(step.index, step.events.iter().map(one).collect());
    }
    for subscription in &case.history.subscriptions {
        if let Err(what) = check_one(case, &told, subscription) {
            let Subscription { client, life, node, from, ended, .. } = subscription;
            wrongs.push(format!("client {client} life {life} node {node:?} from {from} ended {ended:?}: {what}"));
        }
    }
}

fn check_one(case: &Case<'_>, told: &Told, subscription: &Subscription) -> Result<(), String> {
    let id = subscription.node.and_then(|node| case.history.nodes.get(node));
    let wanted = |index: u64| -> Vec<&(String, String, u64)> {
        let events = told.get(&index).map_or(&[][..], Vec::as_slice);
        events.iter().filter(|(_, key, _)| id.is_none_or(|id| id == key)).collect()
    };
    // Everything up to here came, or was announced to be missing.
    let mut upto = match subscription.from {
        0 => None,
        from => u64::try_from(from).ok().map(|from| from - 1),
    };
    let mut last = 0;
    for document in &subscription.documents {
        let Document { index, events, gap, .. } = document;
        if let Some((from, to)) = gap {
            if *from > *to || *index != *to {
                return Err(format!("a gap from {from} to {to} with the index {index}"));
            }
            if upto.is_some_and(|upto| *from > upto + 1 && (upto + 1..*from).any(|index| !wanted(index).is_empty())) {
                return Err(format!("events before the gap from {from} are missing"));
            }
            upto = Some((*to).max(upto.unwrap_or(0)));
            last = last.max(*to);
            continue;
        }
        if *index <= last {
            return Err(format!("the index {index} after {last}"));
        }
        last = *index;
        if u64::try_from(subscription.from).is_ok_and(|from| *index < from) {
            return Err(format!("the index {index}, which was not asked for"));
        }
        if let Some(upto) = upto
            && let Some(missing) = (upto + 1..*index).find(|index| !wanted(*index).is_empty())
        {
            return Err(format!("the events of {missing} are missing before {index}"));
        }
        upto = Some(*index);
        if events.iter().collect::<Vec<_>>() != wanted(*index) {
            return Err(format!("at {index} came {events:?}, the log has {:?}", wanted(*index)));
        }
    }
    check_end(case, subscription, upto, &wanted)
}

/// A stream on a wire that was whole to its end has everything that happened a while before that.
fn check_end<'a>(
    case: &Case<'_>,
    subscription: &Subscription,
    upto: Option<u64>,
    wanted: &dyn Fn(u64) -> Vec<&'a (String, String, u64)>,
) -> Result<(), String> {
    let Some(life) = case.history.lives.get(subscription.life) else { return Ok(()) };
    if case.history.is_cluster && !case.history.is_calm(subscription.opened, subscription.ended.unwrap_or(case.end)) {
        return Ok(());
    }
    let never = subscription.begun.is_none() && subscription.ended.is_some_and(|at| at > subscription.opened + SLACK);
    if never && subscription.whole {
        return Err("no message ever came".to_owned());
    }
    let (Some(begun), Some(ended), true) = (subscription.begun, subscription.ended, subscription.whole) else {
        return Ok(());
    };
    for (index, at) in &life.applied {
        let due = upto.map_or(*at > begun, |upto| *index > upto);
        if due && *at + SLACK < ended && !wanted(*index).is_empty() {
            return Err(format!("the events of {index} never came"));
        }
    }
    Ok(())
}
