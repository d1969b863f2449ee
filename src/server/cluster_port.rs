//! What a server asks of the outside for the sake of other servers.

use std::sync::Arc;
use std::time::Duration;

use crate::consensus;
use crate::state::State;
use crate::wire::raft::KeyFile;

use super::port::{ClusterFile, Output};

/// About other servers: connections to them, what is kept of them, and snapshots that come and go.
#[derive(Debug)]
pub enum ClusterOutput {
    /// Tell the consensus thread, before any proposal that waits (R8.23).
    Consensus(Vec<consensus::Input>),
    /// Dial an address; a name is resolved each time (R8.19). Answered with
    /// [`Input::Dialled`](super::port::Input::Dialled) or
    /// [`Input::DialFailed`](super::port::Input::DialFailed).
    Dial {
        /// Names the wish.
        ticket: u64,
        /// `HOST:PORT`.
        address: String,
        /// For all of it.
        timeout: Duration,
    },
    /// Keep this on disk before anything rests on it; answered with
    /// [`Input::ClusterKept`](super::port::Input::ClusterKept).
    KeepCluster(ClusterFile),
    /// Make the chunks of a snapshot, from this one on; each is given when [`ClusterOutput::NextChunk`] asks for it.
    ReadSnapshot {
        /// Names it.
        ticket: u64,
        /// What it holds.
        state: Arc<State>,
        /// The first one that is wanted.
        from: u32,
    },
    /// Give the next chunk, as [`Input::SnapshotChunk`](super::port::Input::SnapshotChunk).
    NextChunk {
        /// Of which snapshot.
        ticket: u64,
    },
    /// No more chunks of it are wanted.
    EndSnapshot {
        /// Which.
        ticket: u64,
    },
    /// Keep a chunk of a snapshot that comes in, beside what is in force; number 0 begins it anew.
    KeepChunk {
        /// Names the snapshot.
        ticket: u64,
        /// Counted from 0.
        number: u32,
        /// The chunk.
        bytes: Vec<u8>,
        /// Nothing follows: answer with [`Input::SnapshotWhole`](super::port::Input::SnapshotWhole).
        last: bool,
    },
    /// Forget the chunks that were kept.
    ForgetChunks {
        /// Of which snapshot.
        ticket: u64,
    },
    /// Read keys' files; answered with [`Input::KeyFiles`](super::port::Input::KeyFiles).
    ReadKeys(Vec<String>),
    /// Keep a key that another server gave; answered with [`Input::KeyKept`](super::port::Input::KeyKept).
    KeepKey {
        /// Which.
        key_id: String,
        /// The file's bytes.
        secret: KeyFile,
    },
}

impl From<ClusterOutput> for Output {
    fn from(output: ClusterOutput) -> Output {
        Output::Cluster(output)
    }
}
