//! The program `holdfast`, run against a daemon of a test's own.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::daemon::{Daemon, Log};
use super::{PATIENCE, breathe, eventually, patience};

/// The program, in an environment that holds nothing of the test's own.
pub fn program() -> Command {
    let mut command = Command::new(super::built("holdfast", env!("CARGO_BIN_EXE_holdfast")));
    for name in ["HOLDFAST_TOKEN", "HOLDFAST_LOCK_ID", "HOLDFAST_LOCK_PATH", "HOLDFAST_LOCK_NAMESPACE"] {
        command.env_remove(name);
    }
    command.env("USER", "tester").stdin(Stdio::null());
    command
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    fn of(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What it printed; it must have ended well and silently.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.status, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// What it said when it ended with this status.
    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(!self.err.is_empty(), "a failure says why");
        self.err
    }
}

impl Daemon {
    /// The program, told where this daemon is.
    pub fn cli(&self) -> Command {
        let mut command = program();
        command.env("HOLDFAST_RPC_ADDR", self.rpc.to_string());
        command
    }

    /// Runs a command line.
    #[track_caller]
    pub fn holdfast(&self, line: &[&str]) -> Ran {
        Ran::of(self.cli().args(line).output().unwrap())
    }

    /// Runs it with a token.
    #[track_caller]
    pub fn holdfast_as(&self, token: &str, line: &[&str]) -> Ran {
        Ran::of(self.cli().env("HOLDFAST_TOKEN", token).args(line).output().unwrap())
    }

    /// Runs it with this on standard input.
    #[track_caller]
    pub fn holdfast_reads(&self, input: &[u8], line: &[&str]) -> Ran {
        let mut command = self.cli();
        command.args(line).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Starts a command line that goes on.
    #[track_caller]
    pub fn follow(&self, line: &[&str]) -> Follow {
        Follow::start(self.cli().args(line))
    }

    /// Waits until variables can be written.
    #[track_caller]
    pub fn with_keys(self) -> Daemon {
        eventually("a key ring", || {
            let ran = self.holdfast(&["var", "put", "--force", "rig/first", "k=v"]);
            assert!(ran.status == Some(0) || ran.err.contains("key ring is not ready"), "{ran:?}");
            (ran.status == Some(0)).then_some(())
        });
        self.holdfast(&["var", "purge", "rig/first"]).ok();
        self
    }
}

/// A run that goes on, its output and what it says kept line by line. Killed when dropped.
pub struct Follow {
    pub child: Child,
    pub out: Log,
    pub err: Log,
}

impl Drop for Follow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Follow {
    #[track_caller]
    pub fn start(command: &mut Command) -> Follow {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (Log::read(child.stdout.take().unwrap()), Log::read(child.stderr.take().unwrap()));
        Follow { child, out, err }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// The status with which it ends.
    #[track_caller]
    pub fn status(&mut self) -> Option<i32> {
        let deadline = patience();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(std::time::Instant::now() < deadline, "still running; it said {:?}", self.err.lines());
            breathe();
        }
    }
}

/// Whether a process runs: it is there, and no zombie.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !matches!(stat.rsplit(") ").next().and_then(|rest| rest.chars().next()), Some('Z' | 'X')))
}

/// Waits until a process is gone.
#[track_caller]
pub fn until_gone(pid: u32) {
    eventually("the end of a process", || (!runs(pid)).then_some(()));
}

/// How much longer than a deadline a machine under load may take.
pub const SLACK: Duration = Duration::from_secs(5);

const _: () = assert!(SLACK.as_secs() < PATIENCE.as_secs());
