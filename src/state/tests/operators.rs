//! What operators set, keys that come and go, and a snapshot that takes the place of the state (R1.95).

use proptest::prelude::*;
use ring::digest::{SHA256, digest};

use super::*;
use crate::state::keyring::{ACTIVE_KEY, KEY_IN_USE};
use crate::state::snapshot::{read, write};
use crate::state::watch::{Touched, WatchKey};
use crate::wire::body::namespace::Namespace;
use crate::wire::body::operator::{AutopilotConfig, SchedulerConfiguration};
use crate::wire::entry::key::RootKey;
use crate::wire::entry::restore::{RestoreBegin, RestoreChunk, RestoreEnd};
use crate::wire::entry::var::{Sealed, VarApply, VarOp};
use crate::wire::msgpack::Bytes;

fn bytes(state: &State) -> Vec<u8> {
    write(state).flatten().collect()
}

fn root_key(id: &str, rekey: bool) -> Command {
    Command::RootKeyAdd(RootKey { key_id: id.into(), public_key: Bytes(vec![1; 32]), create_time: 5, rekey })
}

fn variable(path: &str, key_id: &str) -> Command {
    let sealed = Some(Sealed { key_id: key_id.into(), bytes: Bytes(vec![7; 40]) });
    let op = VarOp { namespace: "default".into(), path: path.into(), sealed, ..VarOp::default() };
    Command::VarApply(VarApply { ops: vec![op] })
}

fn delete(id: &str) -> Command {
    Command::RootKeyDelete { key_id: id.into() }
}

fn autopilot(max_trailing_logs: u64, cas: Option<u64>) -> Command {
    let modify_index = cas.unwrap_or(0);
    let config = AutopilotConfig { max_trailing_logs, modify_index, ..AutopilotConfig::default() };
    Command::AutopilotSet { config, cas: cas.is_some() }
}

fn scheduler(algorithm: &str, cas: Option<u64>) -> Command {
    let (scheduler_algorithm, modify_index) = (algorithm.to_owned(), cas.unwrap_or(0));
    let config = SchedulerConfiguration { scheduler_algorithm, modify_index, ..SchedulerConfiguration::default() };
    Command::SchedulerSet { config, cas: cas.is_some() }
}

#[test]
fn configurations_are_compared_and_set() {
    let mut world = World::default();
    let first = world.state.autopilot_config();
    assert!(first.cleanup_dead_servers && first.server_stabilization_time == 10_000_000_000);
    assert_eq!((first.last_contact_threshold, first.max_trailing_logs), (200_000_000, 250));
    assert_eq!((first.create_index, first.modify_index), (1, 1));
    let touched: Touched = vec![WatchKey::operator()].into();
    for (command, result) in [
        (autopilot(9, Some(0)), ApplyResult::NoMatch),
        (autopilot(10, Some(1)), ApplyResult::Done),
        (autopilot(11, Some(1)), ApplyResult::NoMatch),
        (autopilot(12, None), ApplyResult::Done),
    ] {
        let applied = world.apply(command);
        let expected = if result == ApplyResult::Done { touched.clone() } else { Touched::default() };
        assert_eq!((applied.result, applied.touched, applied.events), (result, expected, vec![]));
    }
    let now = world.state.autopilot_config();
    assert_eq!((now.max_trailing_logs, now.create_index, now.modify_index), (12, 1, 4));
    assert!(world.state.scheduler_config().preemption_config.system);
    assert_eq!(world.apply(scheduler("spread", Some(7))).result, ApplyResult::NoMatch);
    assert_eq!(world.apply(scheduler("spread", Some(1))).result, ApplyResult::Done);
    let now = world.state.scheduler_config();
    assert_eq!((&*now.scheduler_algorithm, now.create_index, now.modify_index), ("spread", 1, 6));
    let again = read(&bytes(&world.state)).unwrap();
    assert_eq!((again.autopilot_config(), again.scheduler_config()), (world.state.autopilot_config(), now));
}

#[test]
fn keys_come_and_go_and_the_newest_stays() {
    let mut world = World::of([signing_key("a"), root_key("b", false), root_key("c", true)]);
    let keys = |state: &State| -> Vec<_> {
        let said = |key: &Arc<SigningKey>| (key.key_id.clone(), key.create_index, key.modify_index, key.rekey);
        state.signing_keys().iter().map(said).collect()
    };
    let all = [("a".to_owned(), 1, 2, false), ("b".to_owned(), 2, 3, false), ("c".to_owned(), 3, 3, true)];
    assert_eq!(keys(&world.state), all);
    world.apply(root_key("b", true));
    assert_eq!(keys(&world.state), all, "a known key stays as it is");
    world.apply(variable("x", "a"));
    assert_eq!(world.refuse(delete("c")), ACTIVE_KEY);
    assert_eq!(world.refuse(delete("a")), KEY_IN_USE);
    let unknown = world.apply(delete("z"));
    assert_eq!((unknown.result, unknown.touched), (ApplyResult::Done, Touched::default()));
    let applied = world.apply(delete("b"));
    assert_eq!((applied.result, applied.touched), (ApplyResult::Done, vec![WatchKey::signing_keys()].into()));
    assert_eq!(world.state.signing_keys_index(), world.state.index());
    world.apply(variable("x", "c"));
    assert_eq!(world.apply(delete("a")).result, ApplyResult::Done);
    assert_eq!(keys(&world.state), all[2..]);
    let again = read(&bytes(&world.state)).unwrap();
    assert_eq!(keys(&again), all[2..]);
}

/// A restore of these bytes, in pieces of so many.
fn restore_of(id: u64, state: &[u8], piece: usize) -> Vec<Command> {
    let begin = Command::RestoreBegin(RestoreBegin { id, total_bytes: state.len() as u64 });
    let chunks = state.chunks(piece).enumerate().map(|(nth, part)| {
        let offset = (nth * piece) as u64;
        Command::RestoreChunk(RestoreChunk { id, offset, bytes: Bytes(part.to_vec()) })
    });
    let sum = digest(&SHA256, state).as_ref().to_vec();
    let end = Command::RestoreEnd(RestoreEnd { id, sha256: Bytes(sum) });
    [begin].into_iter().chain(chunks).chain([end]).collect()
}

/// A state at a high index with a little of everything.
fn high() -> State {
    let mut world = World::of((0..100).map(|_| Command::Noop));
    let namespace = Namespace { name: "apps".into(), ..Namespace::default() };
    for command in [
        signing_key("theirs"),
        sent("a").command(),
        heartbeat("a", "ready"),
        emit("a", &["one"]),
        variable("app/x", "theirs"),
        Command::NamespaceUpsert { namespaces: vec![namespace] },
        autopilot(77, None),
    ] {
        world.apply(command);
    }
    world.state
}

/// A state at a low index with a key of its own.
fn low() -> World {
    World::of([signing_key("ours"), sent("b").command(), variable("gone", "ours")])
}

// R1.95
#[test]
fn a_snapshot_takes_the_place_of_the_state() {
    let (saved, mut world) = (high(), low());
    let commands = restore_of(3, &bytes(&saved), 1000);
    let (last, before) = commands.split_last().unwrap();
    for command in before {
        let applied = world.apply(command.clone());
        assert_eq!((applied.result, applied.touched), (ApplyResult::Done, Touched::default()));
        assert_eq!(world.state.restore_under_way(), Some(3));
        assert!(world.state.node("b").is_some(), "nothing is changed before the end");
    }
    let time = world.state.time_unix_nanos();
    let applied = world.apply(last.clone());
    let everything = Touched { everything: true, ..Touched::default() };
    assert_eq!((applied.result, applied.touched, applied.events), (ApplyResult::Done, everything, vec![]));
    let state = &world.state;
    let index = before.len() as u64 + 4;
    assert_eq!((state.index(), state.restore_under_way()), (Index(index), None));
    assert!(state.time_unix_nanos() > time && state.time_unix_nanos() == time_at(index));
    assert!(state.node("b").is_none() && state.var("default", "gone").is_none());
    // Theirs, with no index above the entry's own; what was read before is older than all of it.
    let node = state.node("a").unwrap();
    assert_eq!((node.status.as_str(), node.create_index, node.modify_index), ("ready", index, index));
    assert!(node.events.iter().all(|event| event.create_index <= index));
    assert_eq!(state.node_by_secret("secret-a"), Some(node));
    let var = state.var("default", "app/x").unwrap();
    assert_eq!((var.create_index, var.modify_index), (index, index));
    assert!(state.is_key_used("theirs") && !state.is_key_used("ours"));
    assert_eq!(state.namespace("apps").unwrap().modify_index, index);
    assert_eq!(state.namespace("default").unwrap().modify_index, 1, "a lower one stays");
    let config = state.autopilot_config();
    assert_eq!((config.max_trailing_logs, config.modify_index), (77, index));
    for table in [state.nodes_index(), state.vars_index(), state.namespaces_index(), state.signing_keys_index()] {
        assert_eq!(table, Index(index));
    }
    // Keys of both: this server goes on with its own.
    let keys: Vec<&str> = state.signing_keys().iter().map(|key| &*key.key_id).collect();
    assert_eq!(keys, ["theirs", "ours"]);
    state.nodes.check_invariants();
    state.vars.check_invariants();
    assert_eq!(bytes(&read(&bytes(state)).unwrap()), bytes(state));
    // Life goes on, on top of it.
    world.apply(sent("c").command());
    world.apply(variable("app/x", "ours"));
    world.state.vars.check_invariants();
}

#[test]
fn an_older_snapshot_of_the_same_state_brings_it_back() {
    let mut world = low();
    let saved = world.state.clone();
    world.apply(deregister(&["b"]));
    world.apply(variable("later", "ours"));
    for command in restore_of(1, &bytes(&saved), 300) {
        assert_eq!(world.apply(command).result, ApplyResult::Done);
    }
    assert!(world.state.var("default", "later").is_none());
    assert_eq!(world.node("b").create_index, 2, "what is below the entry's index stays");
    assert_eq!(world.state.signing_keys().len(), 1);
}

#[test]
fn a_restore_that_is_not_whole_changes_nothing() {
    let saved = bytes(&high());
    let good = restore_of(5, &saved, 800);
    let (begin, end) = (good[0].clone(), good[good.len() - 1].clone());
    let chunk =
        |id, offset, bytes: &[u8]| Command::RestoreChunk(RestoreChunk { id, offset, bytes: Bytes(bytes.to_vec()) });
    let mut bent = saved.clone();
    bent[500] ^= 1;
    let total = |id, total_bytes| Command::RestoreBegin(RestoreBegin { id, total_bytes });
    let garbage = restore_of(5, b"no state at all", 100);
    let flipped = restore_of(5, &bent, 800);
    let wrong_sum = |commands: &[Command]| [&commands[..commands.len() - 1], std::slice::from_ref(&end)].concat();
    for (commands, words) in [
        (vec![end.clone()], "not under way"),
        (vec![chunk(5, 0, b"x")], "not under way"),
        (vec![begin.clone(), chunk(6, 0, b"x")], "not under way"),
        (vec![begin.clone(), chunk(5, 1, b"x")], "missing or too many"),
        (vec![begin.clone(), chunk(5, 0, &[0; 99_999])], "missing or too many"),
        (vec![total(5, u64::MAX)], "larger than"),
        (vec![begin.clone(), good[1].clone(), end.clone()], "snapshot has 800 of"),
        (wrong_sum(&flipped), "checksum of the snapshot is wrong"),
        (flipped, "snapshot is damaged in chunk 0"),
        (garbage, "snapshot ends early"),
        // The first is dropped by the second.
        (vec![begin.clone(), total(6, 1), good[1].clone()], "not under way"),
    ] {
        let mut world = low();
        let before = (nodes(&world.state), world.state.var_count());
        let (last, first) = commands.split_last().unwrap();
        for command in first {
            assert_eq!(world.apply(command.clone()).result, ApplyResult::Done, "{words}");
        }
        let why = world.refuse(last.clone());
        assert!(why.contains(words), "{why:?} is not about {words:?}");
        assert_eq!((nodes(&world.state), world.state.var_count()), before);
    }
}

#[test]
fn a_restore_under_way_is_in_the_snapshot() {
    let saved = bytes(&high());
    let commands = restore_of(9, &saved, 1500);
    for cut in 0..=commands.len() {
        let mut whole = low();
        commands[..cut].iter().for_each(|command| drop(whole.apply(command.clone())));
        let mut again = World { state: read(&bytes(&whole.state)).unwrap() };
        assert_eq!(again.state.restore_under_way(), whole.state.restore_under_way());
        for command in &commands[cut..] {
            assert_eq!(again.apply(command.clone()).result, ApplyResult::Done);
            whole.apply(command.clone());
        }
        assert_eq!(again.state.digest(), whole.state.digest(), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn the_size_of_pieces_changes_nothing(piece in 1usize..5000) {
        let mut world = low();
        let commands = restore_of(1, &bytes(&high()), piece);
        let count = commands.len();
        for command in commands {
            prop_assert_eq!(world.apply(command).result, ApplyResult::Done);
        }
        prop_assert_eq!(world.state.index(), Index(3 + count as u64));
        prop_assert_eq!(world.node("a").modify_index, (103u64).min(world.state.index().0));
    }
}
