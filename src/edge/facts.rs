//! What the loop reads of the process and its disk, and tells the machine: in turns that happen anyway, so that it is
//! fresh in the answer to whoever asks and costs nothing while nobody does. Only while the disk is short of room is it
//! read without a cause, so that writes are taken again soon after there is more (requirement R8.17).

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::time::Clock;
use crate::server::port::{Input, ProcessFacts};

use super::audit::Audit;
use super::bootstrap_reset::BootstrapReset;
use super::event_loop::{Alarm, EventLoop};
use super::logging::Logs;
use super::machine::Machine;
use super::process_facts;

/// How old facts of the process may be before they are read again.
const FACTS_AGE: Duration = Duration::from_secs(10);
/// The same where a reset file is among them, or while the disk is short of room.
const FACTS_AGE_SHORT: Duration = Duration::from_secs(1);

/// The disk of the data folder.
#[derive(Debug)]
pub struct DiskSpace {
    path: PathBuf,
    /// Below it the disk is short of room, bytes.
    floor_bytes: u64,
}

impl DiskSpace {
    /// Watches the disk that holds this folder.
    pub fn new(data_dir: &Path, floor_bytes: u64) -> DiskSpace {
        DiskSpace { path: data_dir.to_owned(), floor_bytes }
    }

    /// Bytes that this process may still write. The file system has them in memory.
    fn free_bytes(&self) -> Option<u64> {
        free_bytes(&self.path)
    }
}

/// Bytes that this process may still write on the file system of a folder; `None` when it cannot be told.
pub(super) fn free_bytes(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

impl<M: Machine> EventLoop<M> {
    pub(super) fn tell_facts(&mut self) {
        let now = self.clock.now();
        // Who has just written a reset file does not wait for it.
        let is_short = self.hands.bootstrap_reset.is_some() || self.disk_is_short;
        let age = if is_short { FACTS_AGE_SHORT } else { FACTS_AGE };
        if self.facts_at.is_some_and(|at| now.since(at) < age) {
            return;
        }
        self.facts_at = Some(now);
        let disk_free_bytes = self.hands.disk.as_ref().and_then(DiskSpace::free_bytes);
        let floor = self.hands.disk.as_ref().map_or(0, |disk| disk.floor_bytes);
        self.disk_is_short = disk_free_bytes.is_some_and(|free| free < floor);
        if self.disk_is_short {
            self.timers.set(now + FACTS_AGE_SHORT, Alarm::Facts);
        }
        let facts = ProcessFacts {
            resident_bytes: process_facts::resident_bytes(),
            descriptors: process_facts::descriptors(),
            certificates: self.hands.expiry.facts(),
            handler_queue: self.hands.pool.queued(),
            log_lines_lost: self.hands.logs.as_ref().map_or(0, Logs::lost),
            audit_lines_lost: self.hands.audit.as_ref().map_or(0, Audit::lost),
            disk_free_bytes,
            acl_bootstrap_reset: self.hands.bootstrap_reset.as_ref().and_then(BootstrapReset::read),
        };
        self.feed(Input::Process(facts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R8.17
    #[test]
    fn a_disk_has_room_and_a_folder_that_is_gone_has_none_to_tell_of() {
        let here = DiskSpace::new(&std::env::temp_dir(), 0);
        assert!(here.free_bytes().is_some_and(|free| free > 0));
        assert_eq!(DiskSpace::new(Path::new("/nowhere/at/all"), 0).free_bytes(), None);
    }
}
