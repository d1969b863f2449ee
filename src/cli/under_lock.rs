//! The processes that run under a lock, in one group: a guard, which kills the group when the holder of the lock is
//! gone or stands still, and the command.
//!
//! Both begin as this program once more. The guard hears from the holder over a pipe by when the group must be gone,
//! and takes the end of the pipe for the holder's death. It leads the group, so that the group's number is nobody
//! else's as long as it lives. The command asks the system, before it becomes itself, to be killed with the holder:
//! only the process itself can ask (prctl(2), `PR_SET_PDEATHSIG`; the wish outlives execve(2)).

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, unbounded};
use rustix::process::{Pid, Signal, getpgrp, getppid, kill_process_group, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::base::time::Instant;
use crate::cli::{Exit, Failure};
use crate::client::boot_now as now;

/// First argument of this use of the program.
pub(crate) const MARK: &str = "__under-lock";
/// Second argument of the guard.
const GUARD: &str = "guard";
/// Second argument of the command; the holder's process id follows.
const RUN: &str = "run";

/// Signals that the holder hands on to the group. The guard ignores them.
pub(crate) const HANDED_ON: [(i32, Signal); 6] = [
    (SIGHUP, Signal::HUP),
    (SIGINT, Signal::INT),
    (SIGQUIT, Signal::QUIT),
    (SIGTERM, Signal::TERM),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// Status of a command that is not there, as shells say it.
const NOT_FOUND: u8 = 127;
/// Status of a command that cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// What the guard says once it guards.
const READY: u8 = b'!';
/// The guard looks at the clock at least this often: the wait for the pipe does not count the time that the machine
/// sleeps, the clock does.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// A line for whoever runs this; standard output is the command's.
#[allow(clippy::print_stderr)]
pub(crate) fn log_line(text: &str) {
    eprintln!("holdfast: {text}");
}

/// The arguments behind the mark.
pub(crate) fn wanted(line: &[OsString]) -> Option<&[OsString]> {
    line.get(1).filter(|first| *first == MARK).and_then(|_| line.get(2..))
}

/// Guards, or becomes the command; comes back only when that fails.
pub(crate) fn become_one(line: &[OsString], err: &mut dyn Write) -> Exit {
    match line {
        [what] if what == GUARD => guard(),
        [what, holder, command, arguments @ ..] if what == RUN => become_command(holder, command, arguments, err),
        _ => Exit::Usage,
    }
}

fn become_command(holder: &OsString, command: &OsString, arguments: &[OsString], err: &mut dyn Write) -> Exit {
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

// The guard as the holder knows it.

/// The guard process, which leads the group of the command.
pub(crate) struct Guard {
    child: Child,
    pipe: ChildStdin,
    program: std::path::PathBuf,
}

/// Starts the guard, and waits until it guards.
///
/// # Errors
/// A process that cannot be started.
pub(crate) fn start_guard() -> Result<Guard, Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("the lock's guard cannot be started: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(&program);
    command.args([MARK, GUARD]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let lost = || failed(ErrorKind::BrokenPipe.into());
    let pipe = child.stdin.take().ok_or_else(lost)?;
    let mut ready = [0];
    child.stdout.take().ok_or_else(lost)?.read_exact(&mut ready).map_err(failed)?;
    // A guard that is stopped must not stop its holder.
    rustix::io::ioctl_fionbio(&pipe, true).map_err(|error| failed(error.into()))?;
    Ok(Guard { child, pipe, program })
}

impl Guard {
    /// The group that it leads.
    pub(crate) fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The command, ready to be started in the group.
    ///
    /// # Errors
    /// The guard's number is no process id.
    pub(crate) fn command(&self, run: &[OsString]) -> Result<Command, Failure> {
        let group = i32::try_from(self.child.id()).map_err(|error| Failure::Other(error.to_string()))?;
        let mut command = Command::new(&self.program);
        command.args([MARK, RUN]).arg(std::process::id().to_string()).args(run).process_group(group);
        Ok(command)
    }

    /// Tells by when the group must be gone, unless a later call says otherwise. A guard that is dead is no reason to
    /// end the command: the holder is there.
    pub(crate) fn gone_by(&mut self, time: Instant) {
        let _ = self.pipe.write_all(format!("{}\n", time.as_nanos()).as_bytes());
    }

    /// Waits for its end; it was killed with the group.
    pub(crate) fn wait(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// The guard itself.

/// Kills its own group once the last time that it heard is over, or the holder is gone.
fn guard() -> Exit {
    let ignored = Arc::new(AtomicBool::new(false));
    for (number, _) in HANDED_ON {
        if signal_hook::flag::register(number, Arc::clone(&ignored)).is_err() {
            return Exit::Failed;
        }
    }
    let (heard, hears) = unbounded();
    thread::spawn(move || {
        for line in BufReader::new(std::io::stdin()).lines() {
            let Some(time) = line.ok().and_then(|line| line.parse().ok()) else { return };
            if heard.send(Instant::from_nanos(time)).is_err() {
                return;
            }
        }
    });
    let mut out = std::io::stdout();
    if out.write_all(&[READY]).and_then(|()| out.flush()).is_err() {
        return Exit::Failed;
    }
    let mut gone_by: Option<Instant> = None;
    loop {
        let left = gone_by.map_or(LOOK_PAUSE, |by| by.since(now()).min(LOOK_PAUSE));
        match hears.recv_timeout(left) {
            Ok(time) => gone_by = Some(time),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if gone_by.is_some_and(|by| now() >= by) {
            log_line("the lock ran out while its holder stood still: killing the command");
            break;
        }
    }
    let _ = kill_process_group(getpgrp(), Signal::KILL);
    Exit::LockLost
}
