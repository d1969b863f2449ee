//! Small files of the data folder that the server asks for: what it remembers of its cluster, and keys of the key ring.
//! Written and read on one thread, in order, so that no disk holds up the loop.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};

use crate::server::port::ClusterFile;
use crate::wire::raft::KeyFile;

use super::cluster_file;
use super::inbox::{Post, Told};
use super::keyring::Keyring;

/// Wishes that may wait.
const WAITING_MAX: usize = 256;
/// Between two tries to keep what others rest on.
const RETRY: Duration = Duration::from_secs(1);
/// Keys that are read for one wish.
const KEYS_MAX: usize = 64;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Wish {
    /// Answered with [`Told::ClusterKept`], once it is on disk: never before, and not at all when it never is.
    KeepCluster(ClusterFile),
    /// Answered with [`Told::KeyFiles`].
    ReadKeys(Vec<String>),
    /// Answered with [`Told::KeyKept`].
    KeepKey(String, KeyFile),
}

/// The thread, from outside. It ends with this value.
#[derive(Debug)]
pub struct FileWorker {
    wishes: Sender<Wish>,
    /// Ends a wait of the thread by being dropped.
    _stop: Sender<()>,
}

impl FileWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub fn start(data_dir: &Path, post: &Post) -> io::Result<FileWorker> {
        let (wishes, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let worker =
            Worker { data_dir: data_dir.to_owned(), keyring: Keyring::new(data_dir), post: post.clone(), stopped };
        thread::Builder::new().name("files".to_owned()).spawn(move || worker.run(&receiver))?;
        Ok(FileWorker { wishes, _stop: stop })
    }

    /// Asks for something; gives it back when too much waits.
    pub(super) fn ask(&self, wish: Wish) -> Result<(), Wish> {
        self.wishes.try_send(wish).map_err(|error| match error {
            TrySendError::Full(wish) | TrySendError::Disconnected(wish) => wish,
        })
    }
}

struct Worker {
    data_dir: PathBuf,
    keyring: Keyring,
    post: Post,
    stopped: Receiver<()>,
}

impl Worker {
    fn run(&self, wishes: &Receiver<Wish>) {
        for wish in wishes {
            let Some(told) = self.perform(wish) else { return };
            if !self.post.tell(told) {
                return;
            }
        }
    }

    fn perform(&self, wish: Wish) -> Option<Told> {
        Some(match wish {
            Wish::KeepCluster(file) => {
                self.keep_cluster(&file)?;
                Told::ClusterKept
            }
            Wish::ReadKeys(key_ids) => Told::KeyFiles(self.read_keys(key_ids)),
            Wish::KeepKey(key_id, secret) => {
                let error = self.keyring.keep(&key_id, &secret.0).err();
                if let Some(error) = &error {
                    log::error!("key is not kept: key_id={key_id} error=\"{error}\"");
                }
                Told::KeyKept { key_id, error }
            }
        })
    }

    /// Tries until it is on disk; `None` when the daemon ends before.
    fn keep_cluster(&self, file: &ClusterFile) -> Option<()> {
        loop {
            match cluster_file::keep(&self.data_dir, file) {
                Ok(()) => return Some(()),
                Err(error) => {
                    log::error!("what is known of the cluster is not kept: error=\"{error}\" retry={RETRY:?}")
                }
            }
            if self.stopped.recv_timeout(RETRY) != Err(RecvTimeoutError::Timeout) {
                return None;
            }
        }
    }

    fn read_keys(&self, key_ids: Vec<String>) -> Vec<(String, KeyFile)> {
        let mut files = Vec::new();
        for key_id in key_ids.into_iter().take(KEYS_MAX) {
            match self.keyring.read(&key_id) {
                Ok(Some(bytes)) => files.push((key_id, KeyFile(bytes))),
                Ok(None) => {}
                Err(error) => log::error!("key cannot be read: key_id={key_id} error=\"{error}\""),
            }
        }
        files
    }
}
