//! What a server asks of its machine beside the log: connections to other servers, the cluster file, keys, and
//! snapshots that come and go in chunks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::base::id::ConnId;
use crate::consensus;
use crate::server::port::{ClusterFile, ClusterOutput, Input};
use crate::state::State;
use crate::state::snapshot;
use crate::wire::raft::KeyFile;

use super::disk::snapshot_bytes;
use super::fault::Fault;
use super::ground::{Event, Ground, Inner};
use super::network::{Fate, LinkId, Place, Side};
use super::process::Process;
use super::site::{address, site_of};
use super::sockets::Socket;

/// Something that takes a while.
#[derive(Debug)]
pub enum Errand {
    /// The cluster file is on disk.
    Cluster(ClusterFile),
    /// The next chunk of a snapshot is made.
    Chunk(u64),
    /// The chunks that were kept are read as one.
    Whole(u64),
    /// Keys' files are read.
    ReadKeys(Vec<String>),
    /// A key's file is on disk.
    KeepKey(String, KeyFile),
}

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Errands {
    /// Dials by wire: their tickets, and to whom.
    dials: BTreeMap<LinkId, (u64, usize)>,
    /// Snapshots that are sent: their chunks, and which is next.
    reading: BTreeMap<u64, (Vec<Vec<u8>>, usize)>,
    /// Snapshots that come in.
    kept: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Process {
    /// Performs one of the outputs that are about other servers.
    pub(super) fn run_errand(&mut self, ground: &mut Ground, output: ClusterOutput) {
        match output {
            ClusterOutput::Consensus(inputs) => self.on_lane(ground, inputs),
            ClusterOutput::Dial { ticket, address, timeout } => self.dial(ground, ticket, &address, timeout),
            ClusterOutput::KeepCluster(file) => {
                ground.watch_cluster(&file.cluster_id);
                let forgets = ground.fault(Fault::ForgetCluster, 100);
                if forgets {
                    self.follow_ups.push_back(Input::ClusterKept);
                    return;
                }
                self.after_sync(ground, Errand::Cluster(file));
            }
            ClusterOutput::ReadSnapshot { ticket, state, from } => {
                let chunks = chunks(&state, ground.options.chunk_bytes);
                self.errands.reading.insert(ticket, (chunks, from as usize));
            }
            ClusterOutput::NextChunk { ticket } => self.after_a_while(ground, Errand::Chunk(ticket)),
            ClusterOutput::EndSnapshot { ticket } => drop(self.errands.reading.remove(&ticket)),
            ClusterOutput::KeepChunk { ticket, number, bytes, last } => {
                let kept = self.errands.kept.entry(ticket).or_default();
                kept.truncate(number as usize);
                if kept.len() != number as usize {
                    return ground.wrong(format!("chunk {number} of a snapshot comes after {} others", kept.len()));
                }
                kept.push(bytes);
                if last {
                    self.after_a_while(ground, Errand::Whole(ticket));
                }
            }
            ClusterOutput::ForgetChunks { ticket } => drop(self.errands.kept.remove(&ticket)),
            ClusterOutput::ReadKeys(ids) => self.after_a_while(ground, Errand::ReadKeys(ids)),
            ClusterOutput::KeepKey { key_id, secret } => self.after_sync(ground, Errand::KeepKey(key_id, secret)),
        }
    }

    fn after_a_while(&mut self, ground: &mut Ground, errand: Errand) {
        let wait = ground.a_while(ground.options.thread_delay);
        ground.after(wait, Event::Process(self.life, Inner::Done(errand)));
    }

    fn after_sync(&mut self, ground: &mut Ground, errand: Errand) {
        let wait = ground.site(self.site).sync_time + ground.a_while(Duration::from_millis(50));
        ground.after(wait, Event::Process(self.life, Inner::Done(errand)));
    }

    /// An errand is done: only now is its work on the disk.
    pub(super) fn errand_done(&mut self, ground: &mut Ground, errand: Errand) {
        let input = match errand {
            Errand::Cluster(file) => {
                ground.note(&format!("server {} keeps {file:?}", self.site));
                ground.site(self.site).cluster = file;
                Input::ClusterKept
            }
            Errand::Chunk(ticket) => {
                let Some((chunks, next)) = self.errands.reading.get_mut(&ticket) else { return };
                let Some(bytes) = chunks.get(*next).cloned() else { return };
                let (number, last) = (u32::try_from(*next).unwrap_or(u32::MAX), *next + 1 == chunks.len());
                *next += 1;
                Input::SnapshotChunk { ticket, number, bytes, last }
            }
            Errand::Whole(ticket) => {
                let Some(kept) = self.errands.kept.get(&ticket) else { return };
                let read = snapshot::read(&kept.concat()).map_err(|error| error.to_string());
                let result = read.map(|state| Arc::new(self.cluster_harm.snapshot(ground, state)));
                Input::SnapshotWhole { ticket, result }
            }
            Errand::ReadKeys(ids) => {
                let keys = &ground.site(self.site).signing_keys;
                let file = |id: String| keys.get(&id).map(|seed| KeyFile(seed.to_vec())).map(|file| (id, file));
                Input::KeyFiles(ids.into_iter().filter_map(file).collect())
            }
            Errand::KeepKey(key_id, secret) => {
                let error = match secret.0.first_chunk::<32>() {
                    Some(seed) => {
                        ground.site(self.site).signing_keys.insert(key_id.clone(), *seed);
                        None
                    }
                    None => Some("the key is no key".to_owned()),
                };
                Input::KeyKept { key_id, error }
            }
        };
        self.feed(ground, input);
    }

    // The lane to the consensus thread.

    fn on_lane(&mut self, ground: &mut Ground, inputs: Vec<consensus::Input>) {
        let mut inputs = inputs;
        self.cluster_harm.inputs(ground, self.site, &mut inputs);
        for input in &inputs {
            if let consensus::Input::Bootstrap(voters) = input {
                ground.watch_founding(voters);
            }
        }
        ground.trace.step("lane", &[self.site as u64, inputs.len() as u64]);
        self.push_lane(ground, inputs);
    }

    /// Inputs go to the replica before any proposal that waits.
    pub(super) fn push_lane(&mut self, ground: &mut Ground, inputs: Vec<consensus::Input>) {
        let wait = ground.a_while(ground.options.thread_delay);
        let at = (ground.now + wait).max(self.last_lane_at);
        self.last_lane_at = at;
        ground.queue.push(at, Event::Process(self.life, Inner::Lane(inputs)));
    }

    // Connections to other servers.

    fn dial(&mut self, ground: &mut Ground, ticket: u64, to: &str, timeout: Duration) {
        ground.trace.step("dial", &[self.site as u64, ticket]);
        match site_of(to).filter(|site| *site < ground.sites.len()) {
            Some(site) => {
                let link = ground.dial(Place::Site(self.site), site, Fate::default());
                self.errands.dials.insert(link, (ticket, site));
                ground.after(timeout, Event::Process(self.life, Inner::DialTimeout(link)));
            }
            None => self.follow_ups.push_back(dial_failed(ticket, to, "no route to host")),
        }
    }

    /// A connection that was dialled is there.
    pub(super) fn connected(&mut self, ground: &mut Ground, link: LinkId) {
        let Some((ticket, to)) = self.errands.dials.remove(&link) else { return };
        let conn = ConnId(self.ids.insert(()));
        self.sockets.insert(conn, Socket::new(link, Side::Client));
        self.by_link.insert((link, Side::Client), conn);
        let peer = ([10, 0, 0, (to + 1) as u8], 4647).into();
        self.feed(ground, Input::Dialled { ticket, conn, peer });
    }

    /// A wire broke that was dialled and was not there yet; false when it is no such wire.
    pub(super) fn dial_broken(&mut self, ground: &mut Ground, link: LinkId, why: &str) -> bool {
        let Some((ticket, to)) = self.errands.dials.remove(&link) else { return false };
        self.feed(ground, dial_failed(ticket, &address(to), why));
        true
    }

    /// A dial has had its time.
    pub(super) fn dial_timeout(&mut self, ground: &mut Ground, link: LinkId) {
        if self.errands.dials.contains_key(&link) {
            ground.abort(link, Side::Client);
            self.dial_broken(ground, link, "i/o timeout");
        }
    }

    /// The process has ended, and with it what it dialled.
    pub(super) fn end_errands(&mut self, ground: &mut Ground) {
        for link in std::mem::take(&mut self.errands).dials.into_keys() {
            ground.abort(link, Side::Client);
        }
    }
}

fn dial_failed(ticket: u64, to: &str, why: &str) -> Input<'static> {
    Input::DialFailed { ticket, error: format!("dial tcp {to}: {why}") }
}

/// A snapshot in small chunks: the receiver reads the same bytes, however they are cut.
fn chunks(state: &State, most: usize) -> Vec<Vec<u8>> {
    snapshot_bytes(state).chunks(most.max(1)).map(<[u8]>::to_vec).collect()
}
