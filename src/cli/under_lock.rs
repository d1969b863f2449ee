//! The process that becomes a command under a lock: it asks the system to be killed when the holder of the lock dies,
//! and then is the command.
//!
//! `holdfast var lock` starts this program once more for that, since only the process itself can ask (prctl(2),
//! `PR_SET_PDEATHSIG`; the wish outlives execve(2)).

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::cli::Exit;

/// First argument of this use of the program.
pub(crate) const MARK: &str = "__under-lock";

/// Status of a command that is not there, as shells say it.
const NOT_FOUND: u8 = 127;
/// Status of a command that cannot be run.
const NOT_RUNNABLE: u8 = 126;

/// The arguments behind the mark: the holder's process id, the command, and its own arguments.
pub(crate) fn wanted(line: &[OsString]) -> Option<&[OsString]> {
    line.get(1).filter(|first| *first == MARK).and_then(|_| line.get(2..))
}

/// Becomes the command; comes back only when that fails.
pub(crate) fn become_command(line: &[OsString], err: &mut dyn Write) -> Exit {
    let [holder, command, arguments @ ..] = line else { return Exit::Usage };
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    // The holder may have died before that: then nobody holds the lock.
    let is_held = getppid().is_some_and(|parent| holder.to_str() == Some(&parent.as_raw_nonzero().to_string()));
    if asked.is_err() || !is_held {
        return Exit::LockLost;
    }
    let error = Command::new(command).args(arguments).exec();
    let _ = writeln!(err, "holdfast: {}: {error}", command.to_string_lossy());
    Exit::Of(if error.kind() == ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE })
}
