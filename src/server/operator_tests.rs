//! What operators do, on a server whose edge is a few lines of memory: keys that are made and taken into use, and
//! snapshots that go out and come back.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::port::Input;
use super::rig::{Log, Rig};
use crate::base::id::ConnId;
use crate::state::State;
use crate::wire::body::keyring::{KeyringDeleteRequest, KeyringRotateRequest, KeyringRotateResponse};
use crate::wire::body::operator::{SchedulerConfiguration, SnapshotSaveResponse};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::entry::Command;
use crate::wire::entry::var::{VarApply, VarOp};
use crate::wire::msgpack::{Bytes, Decoder, Msg};
use crate::wire::streaming::{StreamErrWrapper, StreamError, StreamingAck, StreamingHeader};

impl Rig {
    fn rotate(&mut self, full: bool) -> ConnId {
        self.call("Keyring.Rotate", &KeyringRotateRequest { full, write: write(), ..Default::default() })
    }

    fn put(&mut self, path: &str, key_id: &str, plain: &[u8]) {
        let sealed = Some(self.sealer(key_id).seal("default", path, 1, plain).unwrap());
        let op = VarOp { namespace: "default".into(), path: path.into(), sealed, ..VarOp::default() };
        self.apply(Command::VarApply(VarApply { ops: vec![op] }));
    }

    fn newest(&self) -> String {
        self.root.load().signing_keys().last().unwrap().key_id.clone()
    }

    /// How many variables are not under a key.
    fn others(&self, key_id: &str) -> usize {
        self.root.load().vars_not_under(key_id, usize::MAX).len()
    }

    /// Begins a streaming call, past its ack.
    pub(super) fn stream(&mut self, method: &str, argument: &impl Msg) -> ConnId {
        let conn = self.dial(5);
        let header = StreamingHeader { method: method.to_owned() }.to_bytes();
        self.say(conn, &header);
        assert_eq!(StreamingAck::from_bytes(&self.heard(conn)).unwrap().error, "");
        self.say(conn, &argument.to_bytes());
        conn
    }

    /// Saves a snapshot.
    fn save(&mut self) -> Vec<u8> {
        let options = QueryOptions { region: "global".to_owned(), ..QueryOptions::default() };
        let conn = self.stream("Operator.SnapshotSave", &options);
        let bytes = self.heard(conn);
        let mut d = Decoder::new(&bytes);
        let first = SnapshotSaveResponse::decode(&mut d).unwrap();
        assert_eq!((first.error_code, first.error_msg.as_str()), (0, ""));
        assert!(first.snapshot_checksum.starts_with("sha-256="), "{}", first.snapshot_checksum);
        assert_eq!(first.meta.index, self.root.load().index().0);
        bytes[d.position()..].to_vec()
    }

    /// Begins a restore.
    fn begin_restore(&mut self) -> ConnId {
        self.stream("Operator.SnapshotRestore", &write())
    }

    fn answered(&mut self, conn: ConnId) -> Option<SnapshotSaveResponse> {
        let bytes = self.heard(conn);
        (!bytes.is_empty()).then(|| SnapshotSaveResponse::from_bytes(&bytes).unwrap())
    }

    /// Restores, in frames of so many bytes.
    fn restore(&mut self, archive: &[u8], frame_bytes: usize) -> SnapshotSaveResponse {
        let conn = self.begin_restore();
        for part in archive.chunks(frame_bytes) {
            self.say(conn, &frame(part));
        }
        self.say(conn, &last_frame("EOF"));
        self.answered(conn).unwrap()
    }
}

fn write() -> WriteRequest {
    WriteRequest { region: "global".to_owned(), ..WriteRequest::default() }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    StreamErrWrapper { error: None, payload: Some(Bytes(bytes.to_vec())) }.to_bytes()
}

fn last_frame(text: &str) -> Vec<u8> {
    StreamErrWrapper { error: Some(StreamError { message: text.to_owned(), code: None }), payload: None }.to_bytes()
}

#[test]
fn a_new_key_signs_and_seals_once_it_is_in_the_log() {
    let mut rig = Rig::new();
    let first = rig.newest();
    rig.disk = Ok(false);
    let waiting = rig.rotate(false);
    assert_eq!(rig.wanted, [(None, true)]);
    assert!(rig.heard(waiting).is_empty());
    // One at a time.
    let second = rig.rotate(false);
    let error = rig.answer::<KeyringRotateResponse>(second).unwrap_err();
    assert_eq!(error, "RPC Error:: 429,a new key is being made already");
    let keys = rig.answer_keys();
    rig.log = Log::Loses;
    for input in keys {
        rig.feed(input);
    }
    let error = rig.answer::<KeyringRotateResponse>(waiting).unwrap_err();
    assert_eq!(error, "leadership lost while committing log");
    assert_eq!(rig.newest(), first, "what is not in the log is not in use");
    assert_eq!(**rig.server.ctx.sealer.as_ref().unwrap().active_id(), *first);
    rig.log = Log::Applies;
    rig.disk = Ok(true);
    let conn = rig.rotate(false);
    let reply: KeyringRotateResponse = rig.answer(conn).unwrap();
    let key = reply.key.unwrap();
    assert_eq!(
        (key.state.as_str(), key.algorithm.as_str(), key.create_index),
        ("active", "aes256-gcm", reply.meta.index)
    );
    assert_eq!(rig.newest(), key.key_id);
    assert_eq!(**rig.server.ctx.sealer.as_ref().unwrap().active_id(), *key.key_id);
    assert_eq!(rig.server.ctx.signer.as_ref().unwrap().key_id(), key.key_id);
}

#[test]
fn a_key_that_cannot_be_made_is_an_error_and_not_a_wait() {
    let mut rig = Rig::new();
    rig.disk = Err("/var/lib/holdfast/keyring: no space left");
    let conn = rig.rotate(true);
    for input in rig.answer_keys() {
        rig.feed(input);
    }
    let error = rig.answer::<KeyringRotateResponse>(conn).unwrap_err();
    assert_eq!(error, "a new key could not be made: /var/lib/holdfast/keyring: no space left");
    // A disk that never answers.
    rig.disk = Ok(false);
    let conn = rig.rotate(true);
    rig.wait(Duration::from_secs(29));
    assert!(rig.heard(conn).is_empty());
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.answer::<KeyringRotateResponse>(conn).unwrap_err(), "a new key was not made in time");
    // Whoever is gone is not answered, and the key is there all the same.
    rig.wanted.clear();
    let first = rig.newest();
    let conn = rig.rotate(false);
    rig.feed(Input::Failed { conn, error: "reset".to_owned() });
    for input in rig.answer_keys() {
        rig.feed(input);
    }
    assert_ne!(rig.newest(), first);
}

#[test]
fn all_variables_are_put_under_a_new_key_and_the_old_one_can_go() {
    let mut rig = Rig::new();
    let old = rig.newest();
    for nth in 0..300 {
        rig.put(&format!("app/{nth:03}"), &old, format!("items {nth}").as_bytes());
    }
    // More than one entry holds, though they are few.
    rig.put("large/1", &old, &[1; 400 * 1024]);
    rig.put("large/2", &old, &[2; 400 * 1024]);
    let before = rig.root.load_full();
    let conn = rig.rotate(true);
    let key = rig.answer::<KeyringRotateResponse>(conn).unwrap().key.unwrap();
    assert_eq!(key.state, "rekeying");
    assert_eq!(rig.others(&key.key_id), 0);
    assert!(rig.lines.iter().any(|line| line == "all variables are under the newest key"), "{:?}", rig.lines);
    let (state, sealer) = (rig.root.load_full(), rig.sealer(&key.key_id));
    for var in state.vars_from("", "") {
        let was = before.var(&var.namespace, &var.path).unwrap();
        let open = |var: &crate::state::var::Var| {
            sealer.open(&var.namespace, &var.path, var.sealed.as_ref().unwrap()).unwrap()
        };
        assert_eq!(open(var), open(was), "{}", var.path);
        assert_eq!((var.modify_index, var.modify_time), (was.modify_index, was.modify_time), "nobody sees a change");
    }
    assert!(state.index().0 > before.index().0 + 4, "in several entries");
    let delete = |key_id: &str| KeyringDeleteRequest { key_id: key_id.to_owned(), write: write() };
    let conn = rig.call("Keyring.Delete", &delete(&key.key_id));
    let error = rig.answer::<KeyringRotateResponse>(conn).unwrap_err();
    assert_eq!(error, "RPC Error:: 400,active root key cannot be deleted - call rotate first");
    let conn = rig.call("Keyring.Delete", &delete(&old));
    rig.answer::<KeyringRotateResponse>(conn).unwrap();
    assert_eq!(rig.forgotten, [old]);
}

#[test]
fn a_key_in_use_stays() {
    let mut rig = Rig::new();
    let old = rig.newest();
    rig.put("a", &old, b"x");
    rig.rotate(false);
    assert_eq!(rig.others(&rig.newest()), 1, "only when it is asked for");
    let conn = rig.call("Keyring.Delete", &KeyringDeleteRequest { key_id: old, write: write() });
    let error = rig.answer::<KeyringRotateResponse>(conn).unwrap_err();
    assert_eq!(error, "RPC Error:: 400,root key in use, cannot delete");
    assert!(rig.forgotten.is_empty());
}

#[test]
fn what_cannot_be_opened_stays_and_holds_up_nothing() {
    let mut rig = Rig::new();
    let old = rig.newest();
    // Whatever is under it cannot be opened here.
    rig.keys.insert("lost".to_owned(), [99; 32]);
    for nth in 0..200 {
        rig.put(&format!("a/{nth:03}"), "lost", b"x");
    }
    rig.put("b/behind", &old, b"x");
    rig.keys.remove("lost");
    rig.rotate(true);
    let newest = rig.newest();
    assert_eq!(rig.others(&newest), 200);
    let state = rig.root.load_full();
    assert_eq!(*state.var("default", "b/behind").unwrap().sealed.as_ref().unwrap().key_id, *newest);
    let line = rig.lines.iter().find(|line| line.contains("could not be put under")).unwrap();
    assert!(line.contains("count=200") && line.contains("key lost"), "{line}");
}

#[test]
fn the_next_leader_goes_on_with_what_was_half_done() {
    let mut rig = Rig::new();
    let old = rig.newest();
    (0..150).for_each(|nth| rig.put(&format!("a/{nth:03}"), &old, b"x"));
    // No handler has time.
    rig.runs = false;
    rig.rotate(true);
    assert_eq!(rig.others(&rig.newest()), 150);
    let mut next = Rig::on(State::clone(&rig.root.load()), rig.keys.clone());
    assert_eq!(next.newest(), rig.newest());
    assert_eq!(next.others(&next.newest()), 0);
    // And this one, once one has.
    rig.runs = true;
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.others(&rig.newest()), 0);
    // One that was not asked to leaves things as they are.
    next.rotate(false);
    let mut third = Rig::on(State::clone(&next.root.load()), next.keys.clone());
    third.lead(3);
    assert_eq!(third.others(&third.newest()), 150);
}

fn scheduler(algorithm: &str) -> Command {
    let config = SchedulerConfiguration { scheduler_algorithm: algorithm.to_owned(), ..Default::default() };
    Command::SchedulerSet { config, cas: false }
}

// R1.95
#[test]
fn what_was_saved_comes_back() {
    let mut rig = Rig::new();
    let key = rig.newest();
    rig.put("a", &key, &[5; 60_000]);
    (0..30).for_each(|nth| rig.put(&format!("many/{nth}"), &key, &[nth; 60_000]));
    rig.apply(scheduler("spread"));
    let saved = rig.save();
    assert_eq!(rig.save(), saved, "the same state, the same bytes");
    rig.apply(scheduler("binpack"));
    rig.put("later", &key, b"x");
    for frame_bytes in [900_000, 1000] {
        let before = rig.root.load().index();
        let reply = rig.restore(&saved, frame_bytes);
        assert_eq!((reply.error_code, reply.error_msg.as_str()), (0, ""));
        let state = rig.root.load_full();
        assert_eq!(reply.meta.index, state.index().0);
        assert!(reply.meta.index > before.0 + 4, "in several entries");
        assert!(state.var("default", "later").is_none() && state.var("default", "many/29").is_some());
        assert_eq!(state.scheduler_config().scheduler_algorithm, "spread");
    }
    // The server goes on: a key can be made, and the next snapshot is of now.
    let conn = rig.rotate(true);
    rig.answer::<KeyringRotateResponse>(conn).unwrap();
    assert_ne!(rig.save(), saved);
}

#[test]
fn what_is_damaged_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    let saved = rig.save();
    let index = rig.root.load().index();
    let garbage = b"garbage".as_slice();
    let mut bent = saved.clone();
    let middle = bent.len() / 2;
    bent[middle] ^= 0xff;
    let eof = "failed to restore from snapshot: failed to decompress snapshot: unexpected EOF";
    for (bytes, words) in [
        (garbage, eof),
        (b"garbage that is longer", "failed to decompress snapshot: gzip: invalid header"),
        (&saved[..saved.len() - 9], "unexpected EOF"),
        (&bent, "failed to restore from snapshot: "),
        (b"", "failed to decompress snapshot: EOF"),
    ] {
        let reply = rig.restore(bytes, 100);
        assert_eq!(reply.error_code, 500);
        assert!(reply.error_msg.contains(words), "{}", reply.error_msg);
        assert_eq!(rig.root.load().index(), index, "nothing is written");
    }
    // A good one goes through afterwards.
    assert_eq!(rig.restore(&saved, 100).error_code, 0);
}

#[test]
fn one_restore_at_a_time_and_none_for_ever() {
    let mut rig = Rig::new();
    let saved = rig.save();
    let first = rig.begin_restore();
    rig.say(first, &frame(&saved[..10]));
    let second = rig.begin_restore();
    let reply = rig.answered(second).unwrap();
    assert_eq!((reply.error_code, reply.error_msg.as_str()), (429, "another snapshot is being restored"));
    // Nothing comes any more.
    rig.wait(Duration::from_secs(59));
    assert!(rig.answered(first).is_none());
    rig.wait(Duration::from_secs(1));
    let reply = rig.answered(first).unwrap();
    assert_eq!(reply.error_code, 408);
    assert!(reply.error_msg.contains("nothing of it came for 60s"), "{}", reply.error_msg);
    // A caller that gives up, one that breaks, one that ends early, one that sends what is no frame.
    let conn = rig.begin_restore();
    rig.say(conn, &last_frame("the disk failed"));
    let reply = rig.answered(conn).unwrap();
    assert_eq!((reply.error_code, reply.error_msg.as_str()), (400, "the disk failed"));
    let conn = rig.begin_restore();
    rig.say(conn, &frame(&saved));
    rig.feed(Input::Failed { conn, error: "reset".to_owned() });
    let conn = rig.begin_restore();
    rig.say(conn, &frame(&saved));
    rig.feed(Input::Eof { conn });
    let conn = rig.begin_restore();
    rig.say(conn, &[0xc1, 0xc1]);
    assert_eq!(rig.answered(conn).unwrap().error_code, 400);
    assert_eq!(rig.restore(&saved, 1 << 20).error_code, 0, "each of them left room for the next");
}

#[test]
fn a_leader_that_is_lost_says_so() {
    let mut rig = Rig::new();
    let saved = rig.save();
    rig.put("later", &rig.newest(), b"x");
    rig.log = Log::Loses;
    let reply = rig.restore(&saved, 1000);
    assert_eq!(reply.error_code, 500);
    assert_eq!(reply.error_msg, "leadership lost while restoring the snapshot: nothing was changed");
    assert!(rig.root.load().var("default", "later").is_some());
    rig.log = Log::Applies;
    // No handler has time to look through it.
    rig.runs = true;
    let conn = rig.begin_restore();
    rig.runs = false;
    rig.say(conn, &[frame(&saved), last_frame("EOF")].concat());
    let reply = rig.answered(conn).unwrap();
    assert!(reply.error_msg.contains("overloaded"), "{}", reply.error_msg);
    rig.runs = true;
    assert_eq!(rig.restore(&saved, 1000).error_code, 0);
}

#[test]
fn frames_that_come_with_the_argument_are_kept() {
    let mut rig = Rig::new();
    let saved = rig.save();
    let conn = rig.dial(5);
    let header = StreamingHeader { method: "Operator.SnapshotRestore".to_owned() }.to_bytes();
    rig.say(conn, &[header, write().to_bytes(), frame(&saved), last_frame("EOF")].concat());
    let bytes = rig.heard(conn);
    let mut d = Decoder::new(&bytes);
    StreamingAck::decode(&mut d).unwrap();
    assert_eq!(SnapshotSaveResponse::decode(&mut d).unwrap().error_code, 0);
}

#[test]
fn who_asks_wrongly_hears_it_in_the_methods_own_words() {
    let mut rig = Rig::new();
    for (region, code, text) in [("", 400, "missing target region"), ("mars", 500, "No path to region")] {
        for method in ["Operator.SnapshotSave", "Operator.SnapshotRestore"] {
            let request = WriteRequest { region: region.to_owned(), ..WriteRequest::default() };
            let conn = rig.stream(method, &request);
            let reply = rig.answered(conn).unwrap();
            assert_eq!((reply.error_code, reply.error_msg.as_str()), (code, text), "{method}");
        }
    }
    rig.runs = false;
    let conn = rig.stream("Operator.SnapshotSave", &write());
    let reply = rig.answered(conn).unwrap();
    assert_eq!(reply.error_code, 500);
    assert!(reply.error_msg.contains("overloaded"), "{}", reply.error_msg);
}
