//! Conversations about variables that were recorded from real servers, asked again here: every value is the same,
//! indexes too, but for times and for ids of locks, which are made anew.

use std::collections::BTreeMap;

use super::variables::{applied, changed, get, items, set, world, write};
use super::vectors::exchanges;
use super::*;
use crate::wire::body::var::{VariablesApplyResponse, VariablesReadRequest};
use crate::wire::msgpack::{Decoder, Kind};

/// A value as text; maps by the names of their keys.
fn shape(d: &mut Decoder<'_>, path: &str, into: &mut BTreeMap<String, String>) {
    match d.kind().unwrap() {
        Kind::Map => {
            let len = d.map().unwrap().unwrap_or(0);
            into.insert(path.to_owned(), "map".to_owned());
            for _ in 0..len {
                let key = d.str().unwrap().to_owned();
                shape(d, &format!("{path}/{key}"), into);
            }
        }
        Kind::Array => {
            let len = d.array().unwrap().unwrap_or(0);
            into.insert(path.to_owned(), format!("{len} elements"));
            (0..len).for_each(|nth| shape(d, &format!("{path}/{nth}"), into));
        }
        Kind::Str => drop(into.insert(path.to_owned(), d.str().unwrap().to_owned())),
        _ => drop(into.insert(path.to_owned(), format!("{:02x?}", d.raw().unwrap()))),
    }
}

/// Values by their paths, without those that are a clock's.
fn values(body: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    shape(&mut Decoder::new(body), "", &mut found);
    found.retain(|path, _| !path.ends_with("/CreateTime") && !path.ends_with("/ModifyTime"));
    found
}

/// Keys in the order in which they were written.
fn keys(body: &[u8]) -> Vec<String> {
    let mut d = Decoder::new(body);
    (0..d.map().unwrap().unwrap_or(0))
        .map(|_| {
            let key = d.str().unwrap().to_owned();
            d.skip().unwrap();
            key
        })
        .collect()
}

fn replace(bytes: &[u8], ids: &[(String, String)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (recorded, ours) in ids {
        assert_eq!(recorded.len(), ours.len());
        for at in 0..bytes.len().saturating_sub(recorded.len()) {
            if bytes[at..].starts_with(recorded.as_bytes()) {
                bytes[at..at + ours.len()].copy_from_slice(ours.as_bytes());
            }
        }
    }
    bytes
}

fn index_of(body: &[u8]) -> u64 {
    GenericIndex::from_bytes(body).unwrap().index
}

crate::wire_structs! {
    /// Of any reply.
    pub struct GenericIndex {
        /// Its index.
        index: u64 = "Index",
    }
}

/// Brings the state to an index.
fn up_to(world: &mut World, index: u64) {
    while world.state.index().0 < index {
        world.write(Command::Noop);
    }
}

/// Where holdfast does otherwise: a write under a lock leaves the lock's times as they are, so that its holder keeps
/// the time it was promised. The peers put the defaults of the request in their place.
const KEPT: (&str, &str) = ("set", "/Output/Lock/LockDelay");

fn replay(vector: &str, in_order: bool) -> usize {
    let mut world = world();
    let mut ids: Vec<(String, String)> = Vec::new();
    let exchanges = exchanges(vector);
    let first = exchanges.iter().filter_map(|call| call.answer.as_ref()).map(|(_, body)| index_of(body));
    up_to(&mut world, first.filter(|index| *index > 0).min().unwrap() - 1);
    let mut answered = 0;
    for exchange in exchanges {
        world.ctx.seed += 1;
        let body = replace(&exchange.body, &ids);
        let before = world.state.clone();
        let came = world.call_bytes(&exchange.method, &body);
        if exchange.method == "Variables.RenewLock" {
            // A renewal takes an index here, and none with the peers; it changes nothing else that is seen.
            world.state = before;
        }
        let (error, theirs) = exchange.answer.unwrap();
        answered += 1;
        if !error.is_empty() {
            // Wrapped once (endpoint notes, section 4).
            let twice = "RPC Error:: 400,";
            let once = error.strip_prefix(twice).filter(|rest| rest.starts_with(twice)).unwrap_or(&error);
            assert_eq!(came.error(), once);
            continue;
        }
        let Came::Body(ours) = came else { panic!("{}: {came:?}", exchange.method) };
        let is_apply = exchange.method == "Variables.Apply";
        if is_apply {
            let (mine, other) = (
                VariablesApplyResponse::from_bytes(&ours).unwrap(),
                VariablesApplyResponse::from_bytes(&theirs).unwrap(),
            );
            let id = |reply: &VariablesApplyResponse| Some(reply.input.clone()?.lock?.id);
            ids.extend(
                id(&other)
                    .zip(id(&mine))
                    .filter(|(other, mine)| other != mine && !ids.iter().any(|(known, _)| known == other)),
            );
        }
        let theirs = replace(&theirs, &ids);
        let (mut a, mut b) = (values(&ours), values(&theirs));
        let mut names = keys(&ours);
        if a.remove("/Fence").is_some() {
            assert_eq!(names.pop().as_deref(), Some("Fence"), "the extension is the last key");
        }
        if is_apply && a["/Op"] == KEPT.0 && a.contains_key(KEPT.1) {
            assert_ne!(a.remove(KEPT.1), b.remove(KEPT.1));
        }
        assert_eq!(a, b, "{}", exchange.method);
        if in_order {
            assert_eq!(names, keys(&theirs), "{}", exchange.method);
        }
    }
    answered
}

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../../tests/vectors/", $name, ".json"))
    };
}

#[test]
fn variables_are_as_recorded() {
    for (vector, in_order, calls) in [
        (vector!("variables"), true, 12),
        (vector!("variables__name_order"), false, 12),
        (vector!("variables_errors"), true, 10),
        (vector!("variables_lock"), true, 15),
    ] {
        assert_eq!(replay(vector, in_order), calls);
    }
}

/// The variable is made, then removed, by another connection while the reader waits.
#[test]
fn a_waiting_read_is_as_recorded() {
    let mut world = world();
    up_to(&mut world, 28);
    set(&mut world, "", "golden/other");
    applied(&mut world, &write("delete", "golden/other"));
    let mut changes = vec![
        write("delete", "golden/block"),
        changed(write("set", "golden/block"), |var| var.items = items(&[("a", "b")])),
    ];
    let mut parked = 0;
    for exchange in exchanges(vector!("blocking_variable_read")) {
        assert_eq!(exchange.method, "Variables.Read");
        let mut came = world.call_bytes(&exchange.method, &exchange.body);
        if matches!(came, Came::Park(_)) {
            parked += 1;
            match changes.pop() {
                Some(change) => drop(applied(&mut world, &change)),
                None => world.last_run = true,
            }
            came = world.call_bytes(&exchange.method, &exchange.body);
        }
        let Came::Body(ours) = came else { panic!("{came:?}") };
        let theirs = exchange.answer.unwrap().1;
        assert_eq!((values(&ours), keys(&ours)), (values(&theirs), keys(&theirs)));
    }
    assert_eq!(parked, 3);
    assert!(matches!(get(&mut world, "golden/block", 0), Came::Body(_)));
}

/// The keys of a body are as the peers send them: a client of theirs and one of ours ask alike.
#[test]
fn arguments_are_as_recorded() {
    let call = exchanges(vector!("blocking_variable_read")).remove(1);
    let args = VariablesReadRequest::from_bytes(&call.body).unwrap();
    assert_eq!(args.to_bytes(), call.body);
}
