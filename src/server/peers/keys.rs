//! Keys of the key ring between servers: a fresh one is on a majority's disks before the log names it, and a server
//! that lacks one asks for it.
//!
//! A leader needs a majority, and every majority has a server with the key, so that whoever leads can get it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api::identity::Signer;
use crate::api::seal::Sealer;
use crate::base::id::ConnId;
use crate::base::time::Instant;
use crate::wire::entry::Command;
use crate::wire::raft::{KeyFile, RaftFrame};

use super::super::Server;
use super::super::port::{ClusterOutput, Output};
use super::super::writing::Internal;

/// Keys that are not there are asked for again after this, and a fresh key is sent again.
const AGAIN: Duration = Duration::from_secs(1);
/// A key's file is not larger than this, bytes; it has some 100.
const FILE_BYTES_MAX: usize = 4096;
/// Keys that one frame asks for, and keys that are on their way to the disk, at most.
const KEYS_MAX: usize = 256;
/// Readings of files that wait, at most.
const READS_MAX: usize = 64;

/// Keys on their way between servers.
#[derive(Debug, Default)]
pub(in crate::server) struct Exchange {
    /// All keys that the log named when its keys had this index are on disk here.
    checked: Option<u64>,
    /// Those that are not.
    wanted: BTreeSet<String>,
    ask_at: Option<Instant>,
    reads: VecDeque<(Read, Vec<String>)>,
    /// The first of `reads` is being done.
    reading: bool,
    /// Keys on their way to the disk, and who is told.
    keeping: BTreeMap<String, Option<ConnId>>,
    spread: Option<Spread>,
}

/// What files are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// To see which are there, when the keys of the log had this index.
    Check(u64),
    /// For a server that asked.
    Give(ConnId),
    /// To spread a fresh one.
    Spread,
}

/// A fresh key on its way to a majority.
struct Spread {
    key_id: String,
    file: Option<KeyFile>,
    /// Replicas that have it on disk.
    kept: BTreeSet<u64>,
    again_at: Instant,
    /// Goes into the log then.
    command: Command,
    internal: Internal,
    /// Taken into use then.
    keys: Option<(Arc<Signer>, Arc<Sealer>)>,
}

impl std::fmt::Debug for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spread({}, kept by {:?})", self.key_id, self.kept)
    }
}

impl Exchange {
    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ask_at.into_iter().chain(self.spread.as_ref().map(|spread| spread.again_at)).min()
    }

    /// Leadership is lost: the next leader makes a key of its own, if one is needed.
    pub(in crate::server) fn stop_spreading(&mut self) {
        self.spread = None;
    }
}

impl Server {
    /// Whether keys are to be on other servers too.
    pub(in crate::server) fn shares_keys(&self) -> bool {
        self.peers.members.as_ref().is_some_and(|members| members.voters.len() + members.learners.len() > 1)
    }

    /// Sees to it that all keys which the log names are here, and that the newest is in use.
    pub(in crate::server) fn look_at_keys(&mut self, _now: Instant) {
        if !self.shares_keys() {
            return;
        }
        let state = self.root.load_full();
        let index = state.signing_keys_index().0;
        let exchange = &mut self.peers.keys;
        let is_checked = exchange.checked == Some(index) || !exchange.wanted.is_empty();
        let is_asked = exchange.reads.iter().any(|(what, _)| matches!(what, Read::Check(_)));
        if state.signing_keys().is_empty() || is_checked || is_asked {
            return;
        }
        let key_ids = state.signing_keys().iter().map(|key| key.key_id.clone()).collect();
        self.read_keys(Read::Check(index), key_ids);
    }

    /// A leader that shares its keys takes them into use as soon as they are here.
    pub(in crate::server) fn use_shared_keys(&mut self, now: Instant) {
        let state = self.root.load_full();
        let Some(newest) = state.signing_keys().last() else {
            return self.output(Output::MakeSigningKey { key_id: None, fresh: false });
        };
        if self.ctx.signer.as_ref().is_some_and(|signer| signer.key_id() == newest.key_id) {
            return self.begin_to_serve(now);
        }
        self.peers.keys.checked = None;
        self.look_at_keys(now);
    }

    fn read_keys(&mut self, what: Read, key_ids: Vec<String>) {
        if self.peers.keys.reads.len() < READS_MAX {
            self.peers.keys.reads.push_back((what, key_ids));
            self.read_next_keys();
        }
    }

    fn read_next_keys(&mut self) {
        let exchange = &mut self.peers.keys;
        if exchange.reading {
            return;
        }
        if let Some((_, key_ids)) = exchange.reads.front() {
            exchange.reading = true;
            let key_ids = key_ids.clone();
            self.output_for_cluster(ClusterOutput::ReadKeys(key_ids));
        }
    }

    /// Keys' files were read.
    pub(in crate::server) fn on_key_files(&mut self, now: Instant, files: Vec<(String, KeyFile)>) {
        self.peers.keys.reading = false;
        let Some((what, key_ids)) = self.peers.keys.reads.pop_front() else { return };
        match what {
            Read::Check(index) => self.on_checked(now, index, &key_ids, &files),
            Read::Give(conn) => {
                for (key_id, secret) in files {
                    self.send_frame(now, conn, &RaftFrame::Key { key_id, secret });
                }
            }
            Read::Spread => {
                if let Some(spread) = &mut self.peers.keys.spread {
                    let file = files.into_iter().find(|(key_id, _)| *key_id == spread.key_id);
                    spread.file = file.map(|(_, file)| file);
                    spread.again_at = now;
                    self.spread_on(now);
                }
            }
        }
        self.read_next_keys();
    }

    /// It is known which keys are here.
    fn on_checked(&mut self, now: Instant, index: u64, key_ids: &[String], files: &[(String, KeyFile)]) {
        let has = |id: &&String| files.iter().any(|(there, _)| there == *id);
        let missing: BTreeSet<String> = key_ids.iter().filter(|id| !has(id)).cloned().collect();
        let exchange = &mut self.peers.keys;
        exchange.ask_at = (!missing.is_empty()).then_some(now);
        exchange.checked = missing.is_empty().then_some(index);
        exchange.wanted = missing;
        if !exchange.wanted.is_empty() {
            let text = format!("keys are not on this server, asking for them: keys={}", exchange.wanted.len());
            self.log(Level::Info, text);
            return self.ask_for_keys(now);
        }
        if let Some(newest) = key_ids.last() {
            // Loading takes in all others too, for what is still sealed with them.
            self.output(Output::MakeSigningKey { key_id: Some(newest.clone()), fresh: false });
        }
    }

    fn ask_for_keys(&mut self, now: Instant) {
        if self.peers.keys.ask_at.is_none_or(|at| now < at) {
            return;
        }
        self.peers.keys.ask_at = Some(now + AGAIN);
        let key_ids: Vec<String> = self.peers.keys.wanted.iter().take(KEYS_MAX).cloned().collect();
        for conn in self.peers.machine.links.usable() {
            self.send_frame(now, conn, &RaftFrame::KeysWanted { key_ids: key_ids.clone() });
        }
    }

    /// A frame about keys came; `conn` is the link that is answered.
    pub(super) fn on_key_frame(&mut self, now: Instant, conn: ConnId, replica: u64, frame: RaftFrame) {
        match frame {
            RaftFrame::KeysWanted { key_ids } => {
                // Only what the log names is given away.
                let state = self.root.load_full();
                let named = |id: &String| state.signing_keys().iter().any(|key| key.key_id == *id);
                let key_ids: Vec<String> = key_ids.into_iter().take(KEYS_MAX).filter(named).collect();
                if !key_ids.is_empty() {
                    self.read_keys(Read::Give(conn), key_ids);
                }
            }
            RaftFrame::Key { key_id, secret } => {
                let exchange = &mut self.peers.keys;
                let fits = secret.0.len() <= FILE_BYTES_MAX && key_id.len() == 36 && exchange.keeping.len() < KEYS_MAX;
                if fits && !exchange.keeping.contains_key(&key_id) {
                    exchange.keeping.insert(key_id.clone(), Some(conn));
                    self.output_for_cluster(ClusterOutput::KeepKey { key_id, secret });
                }
            }
            RaftFrame::KeyKept { key_id } => {
                if let Some(spread) = &mut self.peers.keys.spread
                    && spread.key_id == key_id
                {
                    spread.kept.insert(replica);
                    self.spread_on(now);
                }
            }
            _ => {}
        }
    }

    /// A key that another server gave is on disk, or could not be written.
    pub(in crate::server) fn on_key_kept(&mut self, now: Instant, key_id: &str, error: Option<String>) {
        let conn = self.peers.keys.keeping.remove(key_id).flatten();
        if let Some(error) = error {
            return self.log(Level::Error, format!("key not kept: key_id={key_id} error={error:?}"));
        }
        if let Some(conn) = conn {
            self.send_frame(now, conn, &RaftFrame::KeyKept { key_id: key_id.to_owned() });
        }
        let exchange = &mut self.peers.keys;
        if exchange.wanted.remove(key_id) {
            exchange.checked = None;
            if exchange.wanted.is_empty() {
                exchange.ask_at = None;
                self.look_at_keys(now);
            }
        }
    }

    /// A fresh key goes into the log, on a server that is not alone only after a majority has it on disk. `keys` are
    /// taken into use then.
    pub(in crate::server) fn propose_key(
        &mut self,
        now: Instant,
        key_id: &str,
        command: Command,
        internal: Internal,
        keys: Option<(Arc<Signer>, Arc<Sealer>)>,
    ) {
        if self.peers.keys.spread.as_ref().is_some_and(|spread| spread.key_id == key_id) {
            return;
        }
        let spread = Spread {
            key_id: key_id.to_owned(),
            file: None,
            kept: [self.settings.replica.0].into(),
            again_at: now + AGAIN,
            command,
            internal,
            keys,
        };
        if !self.shares_keys() {
            return self.end_spread(now, spread);
        }
        self.peers.keys.spread = Some(spread);
        self.read_keys(Read::Spread, vec![key_id.to_owned()]);
    }

    /// Sends the fresh key to whoever has not got it, and goes on once a majority has.
    fn spread_on(&mut self, now: Instant) {
        let Some(spread) = &mut self.peers.keys.spread else { return };
        let voters: Vec<u64> = match &self.peers.members {
            Some(members) => members.voters.iter().map(|replica| replica.0).collect(),
            None => Vec::new(),
        };
        let kept = voters.iter().filter(|replica| spread.kept.contains(replica)).count();
        if kept * 2 > voters.len() {
            if let Some(spread) = self.peers.keys.spread.take() {
                self.end_spread(now, spread);
            }
            return;
        }
        if now < spread.again_at {
            return;
        }
        spread.again_at = now + AGAIN;
        let (key_id, lacking) = (spread.key_id.clone(), voters.into_iter().filter(|one| !spread.kept.contains(one)));
        let lacking: Vec<u64> = lacking.collect();
        let Some(secret) = spread.file.clone() else { return self.read_keys(Read::Spread, vec![key_id]) };
        for replica in lacking {
            if let Some(conn) = self.peers.machine.links.to_replica(replica) {
                let frame = RaftFrame::Key { key_id: key_id.clone(), secret: secret.clone() };
                self.send_frame(now, conn, &frame);
            }
        }
    }

    fn end_spread(&mut self, now: Instant, spread: Spread) {
        self.propose_internal(spread.command, spread.internal);
        if let Some((signer, sealer)) = spread.keys {
            self.use_keys(signer, sealer);
            self.begin_to_serve(now);
        }
    }

    /// Something about keys may be due.
    pub(super) fn on_exchange_due(&mut self, now: Instant) {
        self.ask_for_keys(now);
        if self.peers.keys.spread.as_ref().is_some_and(|spread| spread.again_at <= now) {
            self.spread_on(now);
        }
    }
}
