//! Runs a command while it holds a lock.
//!
//! **Invariant:** the command is gone before the lock can pass to another holder. Times are counted from before each
//! renewal was sent, so that the server's deadline is never earlier than the one kept here, and by a clock that goes on
//! while the machine sleeps. Requirement R8.2.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use crate::base::time::{Instant, format_duration};
use crate::cli::args::LockArgs;
use crate::cli::claim::{Claim, NotRenewed, RENEWALS_A_TTL, RETRY, Taken};
use crate::cli::under_lock::{self, Guard, HANDED_ON, log_line};
use crate::cli::{Context, Exit, Failure};
use crate::client::boot_now as now;

/// The command is gone this long before the lock can pass on, at most; a tenth of the TTL for short ones.
const MARGIN_MAX: Duration = Duration::from_secs(1);
/// What was killed is gone within this, or the system is in trouble.
const DYING_TIME_MAX: Duration = Duration::from_millis(500);
/// Between two looks at whether it is.
const DYING_STEP: Duration = Duration::from_millis(2);

/// What happened while the command runs.
enum News {
    Ended(std::io::Result<ExitStatus>),
    Signal(Signal),
    /// A renewal that was sent at this time was answered, or was not.
    Renewed(Instant, Result<(), NotRenewed>),
}

/// Takes the lock, runs the command, gives the lock back.
///
/// # Errors
/// The client's, times that do not go together, a command that cannot be started.
pub(crate) fn run(context: &Context, args: &LockArgs) -> Result<Exit, Failure> {
    check_times(args)?;
    let claim = Claim::new(context, args)?;
    let Some(taken) = claim.acquire()? else {
        log_line(&format!("the lock of {} is held by another: see \"holdfast var lock show\", and --wait", claim.path));
        return Ok(Exit::NotLocked);
    };
    let outcome = run_under(context, args, &claim, taken);
    // A lock that was lost is somebody else's, or soon will be.
    if outcome != Ok(Exit::LockLost) {
        claim.give_back();
    }
    outcome
}

/// When the command must be asked to end, and when it must be gone, for a lock that was renewed at `since`.
fn limits(args: &LockArgs, since: Instant) -> (Instant, Instant) {
    let last = since + last_of(args);
    let asked = last_of(args).saturating_sub(args.kill_after).min(args.ttl);
    (since + asked, last)
}

/// How long after a renewal the command must be gone.
fn last_of(args: &LockArgs) -> Duration {
    (args.ttl + args.delay).saturating_sub(MARGIN_MAX.min(args.ttl / 10))
}

/// Before the command is asked to end there must be time for all renewals but one.
fn check_times(args: &LockArgs) -> Result<(), Failure> {
    if args.ttl.is_zero() {
        return Err(Failure::Usage("--ttl must be longer than 0s".to_owned()));
    }
    let renewals = args.ttl / RENEWALS_A_TTL * (RENEWALS_A_TTL - 1);
    let longest = last_of(args).saturating_sub(renewals);
    if args.kill_after > longest {
        let longest = format_duration(Duration::from_millis(u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)));
        return Err(Failure::Usage(format!(
            "--kill-after is too long for this --ttl and --delay: {longest} at most, or the command could outlive its lock"
        )));
    }
    Ok(())
}

fn run_under(context: &Context, args: &LockArgs, claim: &Claim<'_>, taken: Taken) -> Result<Exit, Failure> {
    let (news, heard) = unbounded();
    let signals = listen(&news)?;
    let mut guard = under_lock::start_guard()?;
    guard.gone_by(limits(args, taken.since).1);
    // This thread lives as long as the command: the system ties the command's life to the thread that started it.
    let child = start(args, claim, taken, &guard)?;
    let group = guard.group();
    let exit = thread::scope(|scope| {
        let (ask, asked) = unbounded::<()>();
        let ended = news.clone();
        scope.spawn(move || {
            let mut child: Child = child;
            let _ = ended.send(News::Ended(child.wait()));
        });
        scope.spawn(move || {
            let mut client = context.client();
            for () in asked {
                let sent = now();
                let renewed = claim.renew(&mut client);
                if news.send(News::Renewed(sent, renewed)).is_err() {
                    return;
                }
            }
        });
        Watch::new(args, claim, taken, &mut guard).run(&heard, &ask)
    });
    signals.close();
    // What the command left behind in its group does not outlive the lock either.
    signal_group(group, Signal::KILL);
    guard.wait();
    let deadline = now() + DYING_TIME_MAX;
    while test_kill_process_group(group).is_ok() && now() < deadline {
        thread::sleep(DYING_STEP);
    }
    exit
}

fn start(args: &LockArgs, claim: &Claim<'_>, taken: Taken, guard: &Guard) -> Result<Child, Failure> {
    let mut command = guard.command(&args.run)?;
    command.env("HOLDFAST_LOCK_PATH", &claim.path).env("HOLDFAST_LOCK_NAMESPACE", &args.namespace);
    command.env("HOLDFAST_LOCK_ID", &claim.id).env("HOLDFAST_LOCK_FENCE", taken.fence.to_string());
    command.spawn().map_err(|error| Failure::Other(format!("the command cannot be started: {error}")))
}

/// Hands signals over, on a thread of its own, until the handle is closed.
fn listen(news: &Sender<News>) -> Result<signal_hook::iterator::Handle, Failure> {
    // What was ignored from the start, as HUP under nohup(1), stays so, also for the command.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let wanted = HANDED_ON.map(|(number, _)| number).into_iter().filter(|number| !is_ignored(&status, *number));
    let mut signals = signal_hook::iterator::Signals::new(wanted)
        .map_err(|error| Failure::Other(format!("signals cannot be caught: {error}")))?;
    let handle = signals.handle();
    let news = news.clone();
    thread::spawn(move || {
        for number in &mut signals {
            if let Some((_, signal)) = HANDED_ON.iter().find(|(known, _)| *known == number)
                && news.send(News::Signal(*signal)).is_err()
            {
                return;
            }
        }
    });
    Ok(handle)
}

/// Whether a process with this status (proc(5)) ignores a signal.
fn is_ignored(status: &str, number: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    u32::try_from(number - 1).is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
}

/// A group that is gone needs no signal.
fn signal_group(group: Pid, signal: Signal) {
    let _ = kill_process_group(group, signal);
}

/// Renews the lock while the command runs, and ends the command when the lock is lost.
struct Watch<'a> {
    args: &'a LockArgs,
    path: &'a str,
    guard: &'a mut Guard,
    ask_to_end: Instant,
    gone: Instant,
    /// `None` while one is on its way.
    next_renewal: Option<Instant>,
    /// Why the last renewal failed, as far as is known.
    trouble: String,
    lost: bool,
    killed: bool,
}

impl<'a> Watch<'a> {
    fn new(args: &'a LockArgs, claim: &'a Claim<'_>, taken: Taken, guard: &'a mut Guard) -> Watch<'a> {
        let (ask_to_end, gone) = limits(args, taken.since);
        let next_renewal = Some(taken.since + args.ttl / RENEWALS_A_TTL);
        let trouble = "no answer".to_owned();
        Watch { args, path: &claim.path, guard, ask_to_end, gone, next_renewal, trouble, lost: false, killed: false }
    }

    fn run(mut self, heard: &Receiver<News>, ask: &Sender<()>) -> Result<Exit, Failure> {
        loop {
            let time = now();
            if !self.lost && time >= self.ask_to_end {
                self.lose(&format!("was not renewed in time ({})", self.trouble));
            }
            if self.lost && !self.killed && time >= self.gone {
                self.killed = true;
                signal_group(self.guard.group(), Signal::KILL);
            }
            if !self.lost && self.next_renewal.is_some_and(|at| time >= at) {
                self.next_renewal = None;
                let _ = ask.send(());
            }
            let wake = match (self.lost, self.killed) {
                (false, _) => self.next_renewal.unwrap_or(self.ask_to_end).min(self.ask_to_end),
                (true, false) => self.gone,
                (true, true) => time + MARGIN_MAX,
            };
            match heard.recv_timeout(wake.since(time)) {
                Ok(News::Signal(signal)) => signal_group(self.guard.group(), signal),
                Ok(News::Renewed(sent, answer)) if !self.lost => self.on_renewed(sent, answer),
                Ok(News::Renewed(..)) | Err(_) => {}
                Ok(News::Ended(status)) => return self.on_ended(status),
            }
        }
    }

    fn on_renewed(&mut self, sent: Instant, answer: Result<(), NotRenewed>) {
        match answer {
            Ok(()) => {
                (self.ask_to_end, self.gone) = limits(self.args, sent);
                self.next_renewal = Some(sent + self.args.ttl / RENEWALS_A_TTL);
                self.guard.gone_by(self.gone);
            }
            Err(NotRenewed::Lost(text)) => {
                self.gone = self.gone.min(now() + self.args.kill_after);
                self.guard.gone_by(self.gone);
                self.lose(&format!("is lost ({text})"));
            }
            Err(NotRenewed::Unknown(text)) => {
                self.trouble = text;
                self.next_renewal = Some(now() + RETRY);
            }
        }
    }

    fn lose(&mut self, why: &str) {
        log_line(&format!("the lock of {} {why}: ending the command", self.path));
        self.lost = true;
        signal_group(self.guard.group(), Signal::TERM);
    }

    fn on_ended(&mut self, status: std::io::Result<ExitStatus>) -> Result<Exit, Failure> {
        let status = status.map_err(|error| Failure::Other(format!("the command was lost: {error}")))?;
        if !self.lost && now() >= self.gone {
            // This process stood still, and cannot say whether the command ended in time or was killed by the guard.
            log_line(&format!("the lock of {} ran out while this process stood still", self.path));
            self.lost = true;
        }
        Ok(if self.lost { Exit::LockLost } else { Exit::Of(status_of(status)) })
    }
}

/// The status as shells show it: 128 and the signal's number for a command that was killed.
fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(ttl: u64, delay: u64, kill_after: u64) -> LockArgs {
        LockArgs {
            command: None,
            namespace: String::new(),
            ttl: Duration::from_secs(ttl),
            delay: Duration::from_secs(delay),
            wait: Duration::ZERO,
            owner: None,
            kill_after: Duration::from_secs(kill_after),
            path: None,
            run: Vec::new(),
        }
    }

    // R8.2: gone before ttl + delay, asked before that, and never asked after the deadline.
    #[test]
    fn the_command_is_asked_and_gone_in_time() {
        let since = Instant::from_nanos(7);
        for (ttl, delay, kill_after, asked, gone) in
            [(15, 15, 5, 15_000, 29_000), (10, 0, 2, 7_000, 9_000), (10, 2, 4, 7_000, 11_000), (2, 1, 1, 1_800, 2_800)]
        {
            let (ask, end) = limits(&args(ttl, delay, kill_after), since);
            let millis = |at: Instant| at.since(since).as_millis();
            assert_eq!((millis(ask), millis(end)), (asked, gone), "{ttl} {delay} {kill_after}");
            assert_eq!(check_times(&args(ttl, delay, kill_after)), Ok(()));
        }
    }

    #[test]
    fn times_that_leave_no_room_for_renewals_are_refused() {
        for (ttl, delay, kill_after, longest) in [(10, 0, 3, "2.333s"), (2, 0, 5, "466ms"), (2, 1, 2, "1.466s")] {
            let Err(Failure::Usage(text)) = check_times(&args(ttl, delay, kill_after)) else {
                panic!("{ttl} {delay} {kill_after}")
            };
            assert!(text.contains(&format!("{longest} at most")), "{text}");
        }
        assert!(check_times(&args(0, 10, 0)).is_err());
    }

    #[test]
    fn signals_that_were_ignored_stay_ignored() {
        let status = "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let ignored: Vec<i32> = (1..=64).filter(|number| is_ignored(status, *number)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_ignored("", 1) && !is_ignored(status, 0) && !is_ignored(status, 65));
    }

    #[test]
    fn a_status_is_what_shells_say() {
        for (raw, status) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(status_of(ExitStatus::from_raw(raw)), status);
        }
    }
}
