//! `holdfast var lock`: runs a command while it holds a lock, and shows, lists and breaks locks.
//!
//! **Invariant:** the command is gone before the lock can pass to another holder. Times are counted from before each
//! renewal was sent, so that the server's deadline is never earlier than the one kept here. Requirement R8.2.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::cli::args::{LockArgs, LockCommand};
use crate::cli::output;
use crate::cli::under_lock;
use crate::cli::var::{query, time, write};
use crate::cli::{Context, Exit, Failure};
use crate::client;
use crate::wire::body::query::{GenericRequest, GenericResponse, QueryOptions};
use crate::wire::body::var::{
    LockBreakRequest, LockListResponse, LockReadRequest, LockReadResponse, LockStub, Variable, VariableLock,
    VariablesApplyRequest, VariablesApplyResponse, VariablesReadRequest, VariablesReadResponse,
    VariablesRenewLockRequest, VariablesRenewLockResponse,
};

/// A lock is renewed this many times within its TTL.
const RENEWALS_A_TTL: u32 = 3;
/// The command is gone this long before the lock can pass on, at most; a tenth of the TTL for short ones.
const MARGIN_MAX: Duration = Duration::from_secs(1);
/// A renewal that failed is tried again after this.
const RETRY: Duration = Duration::from_millis(250);

/// Signals that are handed on to the command.
const HANDED_ON: [(i32, Signal); 6] = [
    (SIGHUP, Signal::HUP),
    (SIGINT, Signal::INT),
    (SIGQUIT, Signal::QUIT),
    (SIGTERM, Signal::TERM),
    (SIGUSR1, Signal::USR1),
    (SIGUSR2, Signal::USR2),
];

/// Runs one of them.
///
/// # Errors
/// The client's, a lock that is not there, a command that cannot be started.
pub(crate) fn run(context: &Context, out: &mut dyn Write, args: &LockArgs) -> Result<Exit, Failure> {
    match &args.command {
        None => hold(context, args),
        Some(LockCommand::Ls { namespace, prefix }) => list(context, out, namespace, prefix),
        Some(LockCommand::Show { namespace, path }) => show(context, out, namespace, path),
        Some(LockCommand::Break { namespace, path }) => {
            let request = LockBreakRequest { path: path.clone(), write: write(context, namespace) };
            let reply: GenericResponse = context.client().call("Holdfast.LockBreak", &request)?;
            context.done(out, "Broke the lock of", path, reply.meta.index)
        }
    }
}

// Looking.

fn list(context: &Context, out: &mut dyn Write, namespace: &str, prefix: &str) -> Result<Exit, Failure> {
    let query = QueryOptions { prefix: prefix.to_owned(), ..query(context, namespace) };
    let reply: LockListResponse = context.client().call("Holdfast.LockList", &GenericRequest { query })?;
    if context.json {
        output::json(out, &Value::from(reply.locks.iter().map(to_json).collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    let head = ["Namespace", "Path", "Owner", "Since", "Until", "Fence"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(reply.locks.iter().map(|lock| {
        vec![
            output::clean(&lock.namespace),
            output::clean(&lock.path),
            output::or_dash(&lock.owner),
            time(lock.since),
            time(lock.deadline),
            lock.fence.to_string(),
        ]
    }));
    output::table(out, &rows)?;
    Ok(Exit::Done)
}

fn show(context: &Context, out: &mut dyn Write, namespace: &str, path: &str) -> Result<Exit, Failure> {
    let request = LockReadRequest { path: path.to_owned(), query: query(context, namespace) };
    let reply: LockReadResponse = context.client().call("Holdfast.LockRead", &request)?;
    let lock = reply.lock.ok_or_else(|| Failure::Other(format!("{path} has no lock, and never had one")))?;
    if context.json {
        output::json(out, &to_json(&lock))?;
        return Ok(Exit::Done);
    }
    output::pairs(
        out,
        &[
            ("Path", output::clean(&lock.path)),
            ("Held", if lock.held { "yes" } else { "no" }.to_owned()),
            ("Owner", output::or_dash(&lock.owner)),
            ("Since", time(lock.since)),
            ("Until", time(lock.deadline)),
            ("Fence", lock.fence.to_string()),
            ("Waiting", lock.waiters.to_string()),
        ],
    )?;
    Ok(Exit::Done)
}

fn to_json(lock: &LockStub) -> Value {
    json!({
        "namespace": lock.namespace, "path": lock.path, "held": lock.held, "owner": lock.owner,
        "since": time(lock.since), "until": time(lock.deadline), "fence": lock.fence, "waiting": lock.waiters,
    })
}

// Holding.

/// What happened while the command runs.
enum News {
    Ended(std::io::Result<ExitStatus>),
    Signal(Signal),
    /// A renewal that was sent at this time was answered, or was not.
    Renewed(Instant, Result<(), client::Error>),
}

/// The lock that is held.
struct Held {
    path: String,
    id: String,
    fence: u64,
    /// Before the request was sent that gave the time that is left.
    since: Instant,
}

fn hold(context: &Context, args: &LockArgs) -> Result<Exit, Failure> {
    let path = args.path.clone().unwrap_or_default();
    let Some(held) = acquire(context, args, path)? else { return Ok(Exit::NotLocked) };
    let outcome = run_under(context, args, &held);
    // A lock that was lost is somebody else's, or soon will be.
    if outcome != Ok(Exit::LockLost)
        && let Err(error) = release(context, args, &held)
    {
        log_line(&format!("the lock was not given back, and ends by itself: {error}"));
    }
    outcome
}

/// Takes the lock; `None` when another holds it.
fn acquire(context: &Context, args: &LockArgs, path: String) -> Result<Option<Held>, Failure> {
    let mut client = context.client();
    // An acquire replaces the items: those that are there are given again.
    let read = VariablesReadRequest { path: path.clone(), query: query(context, &args.namespace) };
    let there: Result<VariablesReadResponse, _> = client.call("Variables.Read", &read);
    let items = match there {
        Ok(reply) => reply.data.and_then(|var| var.items).unwrap_or_default(),
        Err(client::Error::Refused(_)) => BTreeMap::new(),
        Err(other) => return Err(other.into()),
    };
    let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    let lock = VariableLock { id: String::new(), ttl: nanos(args.ttl), lock_delay: nanos(args.delay) };
    let var = Variable {
        namespace: args.namespace.clone(),
        path: path.clone(),
        lock: Some(lock),
        items: Some(items),
        ..Variable::default()
    };
    let request = VariablesApplyRequest {
        op: "lock-acquire".to_owned(),
        var: Some(var),
        owner: args.owner.clone().unwrap_or_else(default_owner),
        wait_time: nanos(args.wait),
        write: write(context, &args.namespace),
        ..VariablesApplyRequest::default()
    };
    let mut since = Instant::now();
    let limit = context.settings.timeout.saturating_add(args.wait);
    let reply: VariablesApplyResponse = client.call_within("Variables.Apply", &request, limit)?;
    let id = reply.output.and_then(|var| var.lock).map(|lock| lock.id).unwrap_or_default();
    if reply.result != "ok" || id.is_empty() {
        log_line(&format!("{path} is locked by another"));
        return Ok(None);
    }
    let held = Held { path, id, fence: reply.fence, since };
    if !args.wait.is_zero() {
        // How long the turn took is not known; a renewal counts from now.
        since = Instant::now();
        renew(context, args, &held, &mut client)?;
    }
    Ok(Some(Held { since, ..held }))
}

/// `user@host`, as far as it is known.
fn default_owner() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

fn release(context: &Context, args: &LockArgs, held: &Held) -> Result<(), client::Error> {
    let lock = VariableLock { id: held.id.clone(), ..VariableLock::default() };
    let var = Variable {
        namespace: args.namespace.clone(),
        path: held.path.clone(),
        lock: Some(lock),
        ..Variable::default()
    };
    let request = VariablesApplyRequest {
        op: "lock-release".to_owned(),
        var: Some(var),
        write: write(context, &args.namespace),
        ..VariablesApplyRequest::default()
    };
    context.client().call::<_, VariablesApplyResponse>("Variables.Apply", &request).map(|_| ())
}

fn renew(context: &Context, args: &LockArgs, held: &Held, client: &mut client::Client) -> Result<(), client::Error> {
    let request = VariablesRenewLockRequest {
        path: held.path.clone(),
        lock_id: held.id.clone(),
        write: write(context, &args.namespace),
    };
    let limit = (args.ttl / RENEWALS_A_TTL).min(context.settings.timeout);
    client.call_within::<_, VariablesRenewLockResponse>("Variables.RenewLock", &request, limit).map(|_| ())
}

/// When the command must be asked to end, and when it must be gone, for a lock that was renewed at `since`.
fn limits(args: &LockArgs, since: Instant) -> (Instant, Instant) {
    let margin = MARGIN_MAX.min(args.ttl / 10);
    let gone = since + (args.ttl + args.delay).saturating_sub(margin);
    let last_call = gone.checked_sub(args.kill_after).unwrap_or(since);
    ((since + args.ttl).min(last_call), gone)
}

fn run_under(context: &Context, args: &LockArgs, held: &Held) -> Result<Exit, Failure> {
    let (news, heard) = unbounded();
    let signals = listen(&news)?;
    // This thread lives as long as the command: the system ties the command's life to the thread that started it.
    let child = start(args, held)?;
    let group = Pid::from_child(&child);
    let exit = thread::scope(|scope| {
        let (ask, asked) = unbounded::<()>();
        let ended = news.clone();
        scope.spawn(move || {
            let mut child = child;
            let _ = ended.send(News::Ended(child.wait()));
        });
        scope.spawn(move || {
            let mut client = context.client();
            for () in asked {
                let sent = Instant::now();
                let renewed = renew(context, args, held, &mut client);
                if news.send(News::Renewed(sent, renewed)).is_err() {
                    return;
                }
            }
        });
        watch(args, held, group, &heard, &ask)
    });
    signals.close();
    exit
}

/// Starts the command in a process group of its own.
fn start(args: &LockArgs, held: &Held) -> Result<Child, Failure> {
    let failed = |error: std::io::Error| Failure::Other(format!("the command cannot be started: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.arg(under_lock::MARK).arg(std::process::id().to_string()).args(&args.run);
    command.env("HOLDFAST_LOCK_PATH", &held.path).env("HOLDFAST_LOCK_FENCE", held.fence.to_string());
    command.process_group(0);
    command.spawn().map_err(failed)
}

/// Hands signals over, on a thread of its own, until the handle is closed.
fn listen(news: &Sender<News>) -> Result<signal_hook::iterator::Handle, Failure> {
    let wanted = HANDED_ON.map(|(number, _)| number);
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

/// Renews the lock while the command runs, and ends it when the lock is lost.
fn watch(args: &LockArgs, held: &Held, group: Pid, heard: &Receiver<News>, ask: &Sender<()>) -> Result<Exit, Failure> {
    let signal_group = |signal| {
        // A group that is gone needs no signal.
        let _ = kill_process_group(group, signal);
    };
    let pause = args.ttl / RENEWALS_A_TTL;
    let (mut ask_to_end, mut gone) = limits(args, held.since);
    let mut next_renewal = Some(held.since + pause);
    let mut lost = false;
    let mut killed = false;
    loop {
        let now = Instant::now();
        if !lost && now >= ask_to_end {
            log_line(&format!("the lock of {} was not renewed in time: ending the command", held.path));
            lost = true;
            signal_group(Signal::TERM);
        }
        if lost && !killed && now >= gone {
            killed = true;
            signal_group(Signal::KILL);
        }
        if !lost && next_renewal.is_some_and(|at| now >= at) {
            next_renewal = None;
            let _ = ask.send(());
        }
        let wake = match (lost, killed) {
            (false, _) => next_renewal.unwrap_or(ask_to_end).min(ask_to_end),
            (true, false) => gone,
            (true, true) => now + MARGIN_MAX,
        };
        match heard.recv_timeout(wake.saturating_duration_since(now)) {
            Ok(News::Signal(signal)) => signal_group(signal),
            Ok(News::Renewed(sent, Ok(()))) if !lost => {
                (ask_to_end, gone) = limits(args, sent);
                next_renewal = Some(sent + pause);
            }
            Ok(News::Renewed(_, Err(client::Error::Refused(text)))) if !lost => {
                log_line(&format!("the lock of {} was lost ({text}): ending the command", held.path));
                lost = true;
                signal_group(Signal::TERM);
                gone = gone.min(Instant::now() + args.kill_after);
            }
            Ok(News::Renewed(_, Err(_))) => next_renewal = Some(Instant::now() + RETRY),
            Ok(News::Renewed(_, Ok(()))) | Err(_) => {}
            Ok(News::Ended(status)) => {
                // What it left behind in its group does not outlive the lock either.
                signal_group(Signal::KILL);
                let status = status.map_err(|error| Failure::Other(format!("the command was lost: {error}")))?;
                return Ok(if lost { Exit::LockLost } else { Exit::Of(status_of(status)) });
            }
        }
    }
}

/// The status as shells show it: 128 and the signal's number for a command that was killed.
fn status_of(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(number).unwrap_or(1)
}

/// A line for whoever runs this; standard output is the command's.
#[allow(clippy::print_stderr)]
fn log_line(text: &str) {
    eprintln!("holdfast: {text}");
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
        let since = Instant::now();
        for (ttl, delay, kill_after, asked, gone) in
            [(15, 15, 5, 15_000, 29_000), (10, 0, 5, 4_000, 9_000), (10, 2, 5, 6_000, 11_000), (2, 0, 5, 0, 1_800)]
        {
            let (ask, end) = limits(&args(ttl, delay, kill_after), since);
            let millis = |at: Instant| at.saturating_duration_since(since).as_millis();
            assert_eq!((millis(ask), millis(end)), (asked, gone), "{ttl} {delay} {kill_after}");
        }
    }
}
