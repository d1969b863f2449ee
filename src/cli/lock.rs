//! `holdfast var lock`: shows, lists and breaks locks. What holds one is in [`super::hold`].

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::{LockArgs, LockCommand};
use crate::cli::hold;
use crate::cli::output;
use crate::cli::var::{query, time, write};
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::query::{GenericRequest, GenericResponse, QueryOptions};
use crate::wire::body::var::{LockBreakRequest, LockListResponse, LockReadRequest, LockReadResponse, LockStub};

/// Runs one of them.
///
/// # Errors
/// The client's, a lock that is not there, a command that cannot be started.
pub(crate) fn run(context: &Context, out: &mut dyn Write, args: &LockArgs) -> Result<Exit, Failure> {
    match &args.command {
        None => hold::run(context, args),
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
