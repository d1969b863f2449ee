//! A command that does harm at intervals, while others work.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a command ended, or the load is over.
const LOOK: Duration = Duration::from_millis(20);
/// How long a command may go on when the load is over.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) begun: u64,
    /// Those that could not be begun, ended with a status other than 0, or were killed in the end.
    pub(crate) failed: u64,
}

/// Runs a shell command each time that the interval is over, one at a time, until the load is. The command learns its
/// number from `HOLDFAST_FAULT`.
pub(crate) fn run(command: &str, every: Duration, over: &AtomicBool) -> Faults {
    let mut faults = Faults::default();
    let mut due = Instant::now() + every;
    while !over.load(Ordering::Relaxed) {
        if Instant::now() < due {
            thread::sleep(LOOK.min(due.saturating_duration_since(Instant::now())));
            continue;
        }
        due += every;
        faults.begun += 1;
        let child = Command::new("/bin/sh")
            .args(["-c", command])
            .env("HOLDFAST_FAULT", faults.begun.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let done = child.map(|child| ended_well(child, over));
        faults.failed += u64::from(!done.unwrap_or(false));
    }
    faults
}

/// Waits for a command; one that does not end although the load is over is killed.
fn ended_well(mut child: Child, over: &AtomicBool) -> bool {
    let mut until = None;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => {}
            Err(_) => return false,
        }
        if over.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
            if Instant::now() >= until {
                // It may have ended meanwhile, which is as well.
                let _ = child.kill();
                return child.wait().is_ok_and(|status| status.success());
            }
        }
        thread::sleep(LOOK);
    }
}
