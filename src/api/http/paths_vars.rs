//! `/v1/vars` and `/v1/var/`: variables, their locks, and our extensions to them.
//!
//! Source: HTTP notes, section 4; requirements R8.1 (`fence`), R8.10, R8.28 (`wait`, `owner`), R8.29.

use crate::wire::body::query::GenericRequest;
use crate::wire::body::var::{
    LockBreakRequest, LockReadRequest, TxnRequest, Variable, VariablesApplyRequest, VariablesReadRequest,
    VariablesRenewLockRequest,
};

use super::forms::{self, RenewBody};
use super::paths::{Ask, Path, Planned};
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, Refusal, refusal};

/// Below `/v1/vars`.
pub(super) static VARS: &[Path] = &[Path { pattern: "", plan: list }];

/// Below `/v1/var`.
pub(super) static VAR: &[Path] = &[Path { pattern: "*", plan: one }, Path { pattern: "", plan: one }];

fn list(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Variables.List", &GenericRequest { query: ask.read()? }, Show::Variables)
}

fn one(ask: &Ask<'_>) -> Planned {
    let path = ask.part(0);
    if path.is_empty() {
        return Err(refusal(400, "missing variable path"));
    }
    match ask.method() {
        "GET" => {
            let arguments = VariablesReadRequest { path: path.to_owned(), query: ask.read()? };
            ask.call("Variables.Read", &arguments, Show::Variable)
        }
        "PUT" | "POST" => put(ask, path),
        "DELETE" => delete(ask, path),
        // Not 405, as everywhere else.
        _ => Err(refusal(400, INVALID_METHOD)),
    }
}

/// Parameters that make a PUT an operation on the lock.
const LOCK_OPERATIONS: [&str; 3] = ["lock-acquire", "lock-renew", "lock-release"];

fn put(ask: &Ask<'_>, path: &str) -> Planned {
    let mut operations = LOCK_OPERATIONS.into_iter().filter(|name| ask.query.has(name));
    let operation = operations.next();
    if operation == Some("lock-renew") && operations.next().is_none() {
        return renew(ask, path);
    }
    let mut var: Variable = ask.body(forms::VARIABLE)?;
    if operations.next().is_some() || (operation == Some("lock-renew")) {
        return Err(refusal(400, "multiple lock operations"));
    }
    let cas = check_index(ask)?;
    if operation.is_some() && cas.is_some() {
        return Err(refusal(400, "CAS can't be used with lock operations"));
    }
    if operation.is_none() && var.items.as_ref().is_none_or(|items| items.is_empty()) {
        return Err(refusal(400, "variable missing required Items object"));
    }
    var.path = path.to_owned();
    if let Some(index) = cas {
        var.modify_index = index;
    }
    let op = operation.unwrap_or(if cas.is_some() { "cas" } else { "set" });
    let acquires = op == "lock-acquire";
    let arguments = VariablesApplyRequest {
        op: op.to_owned(),
        var: Some(var),
        fence: fence(ask)?,
        owner: if acquires { ask.query.text("owner") } else { String::new() },
        wait_time: if acquires { ask.query.wait()?.max(0) } else { 0 },
        keep_items: acquires && ask.query.flag("keep-items"),
        write: ask.write(),
    };
    ask.call("Variables.Apply", &arguments, Show::VariableWritten { lock: operation.is_some() })
}

fn renew(ask: &Ask<'_>, path: &str) -> Planned {
    let body: RenewBody = ask.body(forms::VARIABLE)?;
    if check_index(ask)?.is_some() {
        return Err(refusal(400, "CAS can't be used with lock operations"));
    }
    let mut write = ask.write();
    if !body.namespace.is_empty() {
        write.namespace = body.namespace;
    }
    let lock_id = body.lock.map(|lock| lock.id).unwrap_or_default();
    let arguments = VariablesRenewLockRequest { path: path.to_owned(), lock_id, write };
    ask.call("Variables.RenewLock", &arguments, Show::LockRenewed)
}

fn delete(ask: &Ask<'_>, path: &str) -> Planned {
    let cas = check_index(ask)?;
    let var = Variable { path: path.to_owned(), modify_index: cas.unwrap_or(0), ..Variable::default() };
    let arguments = VariablesApplyRequest {
        op: if cas.is_some() { "delete-cas" } else { "delete" }.to_owned(),
        var: Some(var),
        fence: fence(ask)?,
        write: ask.write(),
        ..VariablesApplyRequest::default()
    };
    ask.call("Variables.Apply", &arguments, Show::VariableDeleted)
}

fn check_index(ask: &Ask<'_>) -> Result<Option<u64>, Refusal> {
    ask.query.number("cas", "can not parse cas")
}

/// Extension: refuse the write below this fence (R8.1).
fn fence(ask: &Ask<'_>) -> Result<u64, Refusal> {
    Ok(ask.query.number("fence", "can not parse fence")?.unwrap_or(0))
}

/// PUT `/v1/holdfast/txn` (R8.29).
pub(super) fn txn(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let body: TxnRequest = ask.body(forms::TXN)?;
    ask.call("Holdfast.VariablesTxn", &TxnRequest { ops: body.ops, write: ask.write() }, Show::Txn)
}

/// GET `/v1/holdfast/locks` (R8.10).
pub(super) fn locks(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Holdfast.LockList", &GenericRequest { query: ask.read()? }, Show::List("Locks"))
}

/// `/v1/holdfast/lock/:path` (R8.10).
pub(super) fn lock(ask: &Ask<'_>) -> Planned {
    let path = ask.part(0).to_owned();
    if path.is_empty() {
        return Err(refusal(400, "missing variable path"));
    }
    match ask.method() {
        "GET" => {
            let shown = Show::Item("Lock", "lock not found");
            ask.call("Holdfast.LockRead", &LockReadRequest { path, query: ask.read()? }, shown)
        }
        "DELETE" => {
            let arguments = LockBreakRequest { path, write: ask.write() };
            ask.call("Holdfast.LockBreak", &arguments, Show::Empty(Heads::Write))
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}
