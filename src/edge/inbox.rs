//! How other threads reach the event loop: a bounded channel each, and one bell that ends its sleep.
//!
//! The loop never waits on a channel; it empties them in each turn, up to a cap.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use mio::{Registry, Token, Waker};

use crate::api::identity::Signer;
use crate::api::seal::Sealer;
use crate::base::id::CallId;
use crate::server::backups::BackupReport;
use crate::server::port::JobOutcome;
use crate::state::State;
use crate::wire::raft::KeyFile;

use super::reload::Reloaded;

/// Messages that may wait for the loop; a thread with one more waits. Few, as each may hold a large reply, and as
/// many handlers as there are cores keep the loop busy.
pub const INBOX_MESSAGES_MAX: usize = 32;

/// Ends the loop's sleep. One system call for any number of rings in a turn.
#[derive(Debug)]
pub struct Bell {
    waker: Waker,
    rung: AtomicBool,
}

impl Bell {
    /// A bell of a poll; only one may exist for each.
    ///
    /// # Errors
    /// When the system has no descriptor for it.
    pub fn new(registry: &Registry, token: Token) -> io::Result<Bell> {
        Ok(Bell { waker: Waker::new(registry, token)?, rung: AtomicBool::new(false) })
    }

    /// Makes the loop look into its channels. Call it after sending.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            // It fails only when the poll is gone, and then nobody is left to be woken.
            let _ = self.waker.wake();
        }
    }

    /// The loop is about to empty its channels: what is sent from here on rings again.
    pub(super) fn hush(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }
}

/// What other threads tell the loop.
#[derive(Debug)]
pub enum Told {
    /// A job has run.
    Ran {
        /// Which.
        job: CallId,
        /// What came of it.
        outcome: Box<JobOutcome>,
    },
    /// The key that signs identities is there, or why not.
    SigningKey {
        /// What was asked for.
        wanted: Option<String>,
        /// Whether a new one was.
        fresh: bool,
        /// The key.
        result: Result<(Arc<Signer>, Arc<Sealer>), String>,
    },
    /// What the system's resolver said of a name that is to be dialled.
    Resolved {
        /// The dial.
        ticket: u64,
        /// Its addresses, at least one; or why there is none, in Go's words.
        result: Result<Vec<SocketAddr>, String>,
    },
    /// What is remembered of the cluster is on disk.
    ClusterKept,
    /// Keys' files that were asked for.
    KeyFiles(Vec<(String, KeyFile)>),
    /// A key of another server is on disk, or why not.
    KeyKept {
        /// Which.
        key_id: String,
        /// A sentence, when it failed.
        error: Option<String>,
    },
    /// A chunk of a state that is sent.
    SnapshotChunk {
        /// Of which.
        ticket: u64,
        /// Counted from 0.
        number: u32,
        /// The chunk.
        bytes: Vec<u8>,
        /// Nothing follows.
        last: bool,
    },
    /// A snapshot that came in is whole, or what is wrong with it.
    SnapshotWhole {
        /// Which.
        ticket: u64,
        /// What it holds.
        result: Result<Arc<State>, String>,
    },
    /// What became of a wish for a backup.
    BackedUp(Box<BackupReport>),
    /// The configuration was read again, or all that is wrong with it, a line each.
    Reloaded(Result<Box<Reloaded>, Vec<String>>),
}

/// Puts messages into the loop's inbox; one for each thread.
#[derive(Clone, Debug)]
pub struct Post {
    sender: Sender<Told>,
    bell: Arc<Bell>,
}

impl Post {
    /// An inbox, and a way to reach it.
    pub fn new(bell: Arc<Bell>) -> (Post, Receiver<Told>) {
        let (sender, receiver) = crossbeam_channel::bounded(INBOX_MESSAGES_MAX);
        (Post { sender, bell }, receiver)
    }

    /// Tells the loop, waiting while its inbox is full. False when the loop has ended.
    pub fn tell(&self, what: Told) -> bool {
        let told = self.sender.send(what).is_ok();
        self.bell.ring();
        told
    }

    /// The bell, for channels of their own.
    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}
