//! The loop's work for the cluster: what the machine asks of the consensus thread, of files and of snapshots, and what
//! their threads answer.

use crate::base::time::Clock;
use crate::consensus;
use crate::server::port::{ClusterOutput, Input};

use super::event_loop::{Alarm, EventLoop};
use super::file_worker::Wish;
use super::inbox::Told;
use super::machine::Machine;

impl<M: Machine> EventLoop<M> {
    /// Performs what is about other servers.
    pub(super) fn perform_for_cluster(&mut self, output: ClusterOutput) {
        match output {
            ClusterOutput::Consensus(inputs) => self.tell_consensus(inputs),
            ClusterOutput::Dial { ticket, address, timeout } => self.dial(ticket, &address, timeout),
            ClusterOutput::KeepCluster(file) => self.ask_files(Wish::KeepCluster(file)),
            ClusterOutput::ReadKeys(key_ids) => self.ask_files(Wish::ReadKeys(key_ids)),
            ClusterOutput::KeepKey { key_id, secret } => self.ask_files(Wish::KeepKey(key_id, secret)),
            ClusterOutput::ReadSnapshot { ticket, state, from } => self.snapshot_readers.begin(ticket, state, from),
            ClusterOutput::NextChunk { ticket } => self.snapshot_readers.next(ticket),
            ClusterOutput::EndSnapshot { ticket } => self.snapshot_readers.end(ticket),
            ClusterOutput::KeepChunk { ticket, number, bytes, last } => self.keep_chunk(ticket, number, bytes, last),
            ClusterOutput::ForgetChunks { ticket } => {
                if let Some(keeper) = &self.hands.snapshot_keeper
                    && !keeper.forget(ticket)
                {
                    log::warn!("chunks of a snapshot stay until others come: ticket={ticket}");
                }
            }
        }
    }

    fn tell_consensus(&mut self, inputs: Vec<consensus::Input>) {
        self.hands.consensus.send(inputs);
        self.set_consensus_alarm();
    }

    /// Tries to hand over what the consensus thread had no room for.
    pub(super) fn retry_consensus(&mut self) {
        self.hands.consensus.retry();
        self.set_consensus_alarm();
    }

    fn set_consensus_alarm(&mut self) {
        if let Some(old) = self.consensus_alarm.take() {
            self.timers.cancel(old, Alarm::Consensus);
        }
        self.consensus_alarm = self.hands.consensus.next_retry(self.clock.now());
        if let Some(at) = self.consensus_alarm {
            self.timers.set(at, Alarm::Consensus);
        }
    }

    fn ask_files(&mut self, wish: Wish) {
        let refused = match &self.hands.files {
            Some(files) => files.ask(wish).err(),
            None => Some(wish),
        };
        match refused {
            None => {}
            // What rests on it waits: it is tried again once the thread has answered something.
            Some(Wish::KeepCluster(file)) => self.cluster_to_keep = Some(file),
            Some(Wish::ReadKeys(_)) => self.follow_ups.push_back(Input::KeyFiles(Vec::new())),
            Some(Wish::KeepKey(key_id, _)) => {
                let error = Some("too many files wait to be written".to_owned());
                self.follow_ups.push_back(Input::KeyKept { key_id, error });
            }
        }
    }

    fn files_have_room(&mut self) {
        if let Some(file) = self.cluster_to_keep.take() {
            self.ask_files(Wish::KeepCluster(file));
        }
    }

    fn keep_chunk(&mut self, ticket: u64, number: u32, bytes: Vec<u8>, last: bool) {
        let kept = match &self.hands.snapshot_keeper {
            Some(keeper) => keeper.keep(ticket, number, bytes, last),
            None => Err("there is no folder for snapshots".to_owned()),
        };
        if let Err(error) = kept {
            self.follow_ups.push_back(Input::SnapshotWhole { ticket, result: Err(error) });
        }
    }

    /// Hands on what a thread said of dials, files and snapshots.
    pub(super) fn hear_for_cluster(&mut self, told: Told) {
        match told {
            Told::Resolved { ticket, result } => self.resolved(ticket, result),
            Told::ClusterKept => {
                self.files_have_room();
                self.feed(Input::ClusterKept);
            }
            Told::KeyFiles(files) => {
                self.files_have_room();
                self.feed(Input::KeyFiles(files));
            }
            Told::KeyKept { key_id, error } => {
                self.files_have_room();
                self.feed(Input::KeyKept { key_id, error });
            }
            Told::SnapshotChunk { ticket, number, bytes, last } => {
                self.feed(Input::SnapshotChunk { ticket, number, bytes, last });
            }
            Told::SnapshotWhole { ticket, result } => self.feed(Input::SnapshotWhole { ticket, result }),
            Told::Ran { .. } | Told::SigningKey { .. } | Told::Reloaded(_) | Told::BackedUp(_) => {}
        }
    }
}
