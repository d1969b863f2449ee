//! The audit log's own thread: lines come through a bounded queue and are appended to a file, or go to standard error
//! (R8.15).
//!
//! Nobody who writes a line ever waits. A line for which there is no room, or that the disk does not take, is lost and
//! counted. The file is opened anew at SIGHUP, so that it can be moved away before.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};

/// Lines that may wait to be written; one more is lost and counted.
const QUEUED_LINES_MAX: usize = 8192;
/// Lines that are written with one call.
const BATCH_LINES_MAX: u64 = 256;
/// The target that is no file.
const STANDARD_ERROR: &str = "stderr";
/// What lines may say is not for everybody.
const FILE_MODE: u32 = 0o600;

enum Queued {
    Line(String),
    Reopen,
}

/// The way to the audit log.
#[derive(Debug)]
pub struct Audit {
    queue: Sender<Queued>,
    lost: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

enum Target {
    StandardError,
    File(PathBuf, File),
}

impl Target {
    fn open(path: &Path) -> io::Result<Target> {
        if path == Path::new(STANDARD_ERROR) {
            return Ok(Target::StandardError);
        }
        let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)?;
        Ok(Target::File(path.to_owned(), file))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::StandardError => io::stderr().lock().write_all(bytes),
            Target::File(_, file) => file.write_all(bytes),
        }
    }
}

impl Audit {
    /// Opens the log and starts its thread. `path` is a file, or `stderr`.
    ///
    /// # Errors
    /// The file cannot be opened, or the system has no more threads: names the key.
    pub fn start(path: &Path) -> Result<Audit, String> {
        let wrong = |error: io::Error| format!("audit.file = {path:?}: {error}");
        let target = Target::open(path).map_err(wrong)?;
        let (queue, lines) = crossbeam_channel::bounded(QUEUED_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        let thread = thread::Builder::new().name("audit-writer".to_owned());
        let thread = thread.spawn(move || write_lines(&lines, target, &counter)).map_err(wrong)?;
        Ok(Audit { queue, lost, thread })
    }

    /// Writes a line, some time soon.
    pub fn line(&self, line: String) {
        if self.queue.try_send(Queued::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file anew, after the lines that were written before.
    pub fn reopen(&self) {
        // A queue that is full is written out first; the next signal finds room.
        if self.queue.try_send(Queued::Reopen).is_err() {
            log::warn!("audit log not opened anew: too many lines wait");
        }
    }

    /// Lines that were lost.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes what waits, and ends the thread.
    pub fn finish(self) {
        drop(self.queue);
        // A panic there has left its own line in the log.
        let _ = self.thread.join();
    }
}

/// Writes lines until nobody can send any more.
fn write_lines(lines: &Receiver<Queued>, mut target: Target, lost: &AtomicU64) {
    let mut failing = false;
    let mut reopen = false;
    while let Ok(first) = lines.recv() {
        let mut batch = Vec::new();
        let mut count: u64 = 0;
        let mut next = Some(first);
        while let Some(queued) = next.take() {
            match queued {
                Queued::Reopen => reopen = true,
                Queued::Line(line) => {
                    batch.extend_from_slice(line.as_bytes());
                    batch.push(b'\n');
                    count += 1;
                }
            }
            if !reopen && count < BATCH_LINES_MAX {
                next = lines.try_recv().ok();
            }
        }
        match target.write(&batch) {
            Ok(()) => failing = false,
            Err(error) => {
                lost.fetch_add(count, Ordering::Relaxed);
                // Once, not for every line.
                if !std::mem::replace(&mut failing, true) {
                    log::error!("audit log not written: error=\"{error}\"");
                }
            }
        }
        if std::mem::take(&mut reopen)
            && let Target::File(path, _) = &target
        {
            match Target::open(path) {
                Ok(new) => target = new,
                Err(error) => log::error!("audit log not opened anew, the old file is kept: error=\"{error}\""),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // R8.15
    #[test]
    fn lines_are_appended_and_the_file_can_be_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit.json"), folder.path().join("audit.json.1"));
        fs::write(&path, "before\n").unwrap();
        let audit = Audit::start(&path).unwrap();
        audit.line("one".to_owned());
        fs::rename(&path, &old).unwrap();
        audit.reopen();
        audit.line("two".to_owned());
        assert_eq!(audit.lost(), 0);
        audit.finish();
        assert_eq!(fs::read_to_string(&old).unwrap(), "before\none\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none").join("audit.json");
        let error = Audit::start(&path).unwrap_err();
        assert!(error.starts_with("audit.file = ") && error.contains("No such file"), "{error}");
    }

    #[test]
    fn lines_that_the_disk_does_not_take_are_counted() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let audit = Audit::start(full).unwrap();
        for _ in 0..10 {
            audit.line("x".to_owned());
        }
        let lost = Arc::clone(&audit.lost);
        audit.finish();
        assert_eq!(lost.load(Ordering::Relaxed), 10);
    }
}
