//! Variables.Apply, and Holdfast.VariablesTxn, which writes several variables or none.
//!
//! Whatever is well formed is proposed, refused or not: the state alone decides, and a refusal takes an index, as with
//! the peers. Source: endpoint notes, section 4; requirements R8.1, R8.25, R8.28, R8.29.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::state::acl::rules::VarCapability;
use crate::state::var::{Var, VarLock, VarOutcome};
use crate::state::{ApplyResult, State};
use crate::wire::body::var::{TxnRequest, Variable, VariableLock, VariablesApplyRequest};
use crate::wire::entry::Command;
use crate::wire::entry::var::{VarApply, VarOp, VarOpKind};
use crate::wire::msgpack::{Encoder, Msg};

use super::access::{Access, access};
use super::answer::{Answer, Failure, PERMISSION_DENIED, arguments, coded};
use super::auth::same_secret;
use super::outcome::{Finish, Outcome, Queue, Resolved, VarFinish};
use super::secrets::secret_uuid;
use super::var::{LockView, NIL, NO_ITEMS, NO_KEY_RING, namespace_or_default, open, push_metadata, push_var, reply};
use super::var_check::{MAX_OWNER_BYTES, check, or_default};
use super::{Ctx, Request};

/// The longest wait for one's turn at a lock.
const MAX_LOCK_WAIT: Duration = Duration::from_secs(300);

/// Writes of one Holdfast.VariablesTxn.
pub(super) const MAX_TXN_WRITES: usize = 64;

/// The error when the state answers a write with something that is no answer to it.
const NO_ANSWER: &str = "the write was applied, but its result is not known";

/// What became of a write.
const OK: &str = "ok";
/// Refused; what stands in the way is shown.
const CONFLICT: &str = "conflict";
/// Refused; of what stands in the way the items are not shown.
const REDACTED: &str = "conflict-redacted";
/// It could have been done, but another write of the same call was refused.
const SKIPPED: &str = "skipped";

/// A write as it was asked for.
struct Asked {
    /// The word.
    op: String,
    var: Option<Variable>,
    fence: u64,
    /// What to call the holder; empty for the caller's accessor.
    owner: String,
    /// How long a lock-acquire waits for its turn.
    wait: Duration,
    /// Whether a lock-acquire leaves the items as they are.
    keep_items: bool,
    /// Its number within the request.
    nth: u64,
}

/// Variables.Apply.
pub(super) fn apply(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: VariablesApplyRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    let wait = Duration::from_nanos(u64::try_from(args.wait_time).unwrap_or(0)).min(MAX_LOCK_WAIT);
    let asked = Asked {
        op: args.op,
        var: args.var,
        fence: args.fence,
        owner: args.owner,
        wait: if request.last_run { Duration::ZERO } else { wait },
        keep_items: args.keep_items,
        nth: 0,
    };
    let (op, finish) = prepare(asked, &args.write.namespace, &access, ctx)?;
    if let Some(queue) = turn(&finish, state) {
        return Ok(Outcome::Queue(queue));
    }
    Ok(Outcome::Propose {
        command: Command::VarApply(VarApply { ops: vec![op] }),
        finish: Finish::VarApply(Box::new(finish)),
    })
}

/// Checks a write, and makes what is proposed and what the reply will need.
fn prepare(asked: Asked, namespace: &str, access: &Access, ctx: &Ctx) -> Result<(VarOp, VarFinish), Failure> {
    let mut var = asked.var.ok_or("variable must not be nil")?;
    if var.namespace.is_empty() {
        var.namespace = namespace_or_default(namespace).to_owned();
    }
    let unknown = || format!("svPreApply: unexpected VarOp received: {:?}", asked.op);
    let kind = VarOpKind::from_word(&asked.op).ok_or_else(unknown)?;
    let capability = match kind {
        VarOpKind::Delete | VarOpKind::DeleteCas => VarCapability::Destroy,
        _ => VarCapability::Write,
    };
    let allows = |capability| access.acl.allows_variable(&var.namespace, &var.path, capability);
    access.require(allows(capability))?;
    let may_read = allows(VarCapability::Read);
    check(kind, &var, &ctx.server).map_err(|text| coded(400, text))?;
    let owner = if kind == VarOpKind::LockAcquire { owner(asked.owner, access)? } else { String::new() };
    fill_lock(kind, &mut var, || secret_uuid(ctx, asked.nth));

    let given = var.items.as_ref().filter(|items| !items.is_empty());
    let items: Arc<[u8]> = given.map_or_else(Vec::new, Msg::to_bytes).into();
    let (namespace, path): (Arc<str>, Arc<str>) = (var.namespace.as_str().into(), var.path.as_str().into());
    let sealed = match (&ctx.sealer, items.is_empty()) {
        (_, true) => None,
        (None, false) => return Err(NO_KEY_RING.into()),
        (Some(sealer), false) => {
            Some(sealer.seal(&namespace, &path, ctx.seed, &items).map_err(|error| error.to_string())?)
        }
    };
    let finish = VarFinish {
        kind,
        namespace: Arc::clone(&namespace),
        path: Arc::clone(&path),
        input: var.to_bytes().into(),
        items,
        keep_items: kind == VarOpKind::LockAcquire && asked.keep_items,
        may_read,
        management: access.acl.management,
        lock_id: var.lock.as_ref().map_or_else(String::new, |lock| lock.id.clone()),
        fence: asked.fence,
        wait: if kind == VarOpKind::LockAcquire { asked.wait } else { Duration::ZERO },
    };
    // A delete never carries a lock: whoever holds it gives it back first.
    let lock = var.lock.filter(|_| capability == VarCapability::Write).unwrap_or_default();
    let op = VarOp {
        kind,
        namespace,
        path,
        sealed,
        check_index: var.modify_index,
        lock_id: lock.id,
        ttl: lock.ttl,
        lock_delay: lock.lock_delay,
        owner,
        fence: asked.fence,
        keep_items: finish.keep_items,
    };
    Ok((op, finish))
}

/// What people call the holder.
fn owner(asked: String, access: &Access) -> Result<String, Failure> {
    if asked.is_empty() {
        return Ok(access.accessor());
    }
    if asked.len() > MAX_OWNER_BYTES {
        return Err(coded(400, format_args!("lock owner is limited to {MAX_OWNER_BYTES} bytes")));
    }
    Ok(asked)
}

/// Gives a lock what it was left to the server to choose. Where a lock is taken none is needed in the request; in
/// other writes one without an id stands for no lock.
fn fill_lock(kind: VarOpKind, var: &mut Variable, new_id: impl FnOnce() -> String) {
    match kind {
        VarOpKind::LockAcquire => {
            let lock = var.lock.get_or_insert_with(VariableLock::default);
            if lock.id.is_empty() {
                lock.id = new_id();
            }
        }
        VarOpKind::Set | VarOpKind::Cas => var.lock = var.lock.take().filter(|lock| !lock.id.is_empty()),
        VarOpKind::LockRelease | VarOpKind::Delete | VarOpKind::DeleteCas => return,
    }
    if let Some(lock) = &mut var.lock {
        lock.ttl = or_default(lock.ttl);
        lock.lock_delay = or_default(lock.lock_delay);
    }
}

/// The turn to wait for: somebody else holds the lock. Whose fence is too low would wait for nothing.
fn turn(finish: &VarFinish, state: &State) -> Option<Queue> {
    if finish.wait.is_zero() {
        return None;
    }
    let var = state.var(&finish.namespace, &finish.path)?;
    let held = var.lock.as_deref()?;
    let waits = !is_holder(finish, held) && (finish.fence == 0 || finish.fence >= var.fence);
    waits.then(|| queue(finish))
}

/// The turn to wait for once the state has refused a lock-acquire: somebody was faster. Without a fence nothing else
/// can have stood in the way; else the fence may have, for ever, so the lock must be seen to be held.
fn turn_after(finish: &VarFinish, outcome: &VarOutcome, state: &State) -> Option<Queue> {
    match outcome {
        VarOutcome::Conflict(None) if finish.wait.is_zero() => None,
        VarOutcome::Conflict(None) if finish.fence == 0 => Some(queue(finish)),
        VarOutcome::Conflict(None) => turn(finish, state),
        _ => None,
    }
}

fn queue(finish: &VarFinish) -> Queue {
    Queue { namespace: Arc::clone(&finish.namespace), path: Arc::clone(&finish.path), wait: finish.wait }
}

fn is_holder(finish: &VarFinish, held: &VarLock) -> bool {
    same_secret(&finish.lock_id, &held.id)
}

/// The reply of Variables.Apply.
pub(super) fn finish_apply(finish: &VarFinish, resolved: &Resolved, state: &State, ctx: &Ctx) -> Answer {
    let outcome = outcomes(resolved)?.first().ok_or(NO_ANSWER)?;
    if let VarOutcome::Refused(text) = outcome {
        return Err(text.as_ref().into());
    }
    if let Some(queue) = turn_after(finish, outcome, state) {
        return Ok(Outcome::Queue(queue));
    }
    let written = match outcome {
        VarOutcome::Ok(written) => written.as_deref(),
        _ => None,
    };
    let fence = written.map_or(0, |var| var.fence);
    let mut conflict = Encoder::new();
    let result = push_conflict(&mut conflict, outcome, finish, ctx);

    let mut e = Encoder { out: Vec::with_capacity(512 + finish.input.len() + finish.items.len() + conflict.out.len()) };
    e.map(if fence > 0 { 8 } else { 7 });
    e.raw(b"\xa2Op");
    e.str(finish.kind.as_word());
    e.raw(b"\xa5Input");
    e.raw(&finish.input);
    e.raw(b"\xa6Result");
    e.str(result);
    e.raw(b"\xa5Error\xc0\xa8Conflict");
    e.raw(&conflict.out);
    e.raw(b"\xa6Output");
    match written {
        Some(var) => {
            let given = if finish.items.is_empty() { NO_ITEMS } else { &finish.items };
            // What was kept is not what its writer brought: whoever may not read it does not see it so. The lock is
            // held all the same when it cannot be opened here.
            let kept = finish.keep_items.then(|| finish.may_read.then(|| open(var, ctx).ok()).flatten());
            let items = match &kept {
                None => given,
                Some(kept) => kept.as_deref().unwrap_or(NIL),
            };
            push_var(&mut e, var, output_lock(finish, var), items);
        }
        None => e.nil(),
    }
    e.raw(b"\xa5Index");
    e.u64(resolved.index.0);
    if fence > 0 {
        e.raw(b"\xa5Fence");
        e.u64(fence);
    }
    Ok(reply(e))
}

/// What the state said of each write.
fn outcomes(resolved: &Resolved) -> Result<&[VarOutcome], Failure> {
    match &resolved.result {
        ApplyResult::Vars(outcomes) => Ok(outcomes),
        _ => Err(NO_ANSWER.into()),
    }
}

/// Its writer sees the lock that it named.
fn output_lock(finish: &VarFinish, var: &Var) -> LockView {
    let holds = var.lock.as_deref().is_some_and(|held| is_holder(finish, held));
    if finish.management || holds { LockView::Whole } else { LockView::Hidden }
}

/// Writes what stood in the way of a write, or nil, and says what became of it.
fn push_conflict(e: &mut Encoder, outcome: &VarOutcome, finish: &VarFinish, ctx: &Ctx) -> &'static str {
    let lock = if finish.management { LockView::Whole } else { LockView::WithoutId };
    match outcome {
        VarOutcome::Conflict(None) => {
            let (namespace, path) = (Arc::clone(&finish.namespace), Arc::clone(&finish.path));
            push_var(e, &Var { namespace, path, ..Var::default() }, lock, NIL);
            CONFLICT
        }
        // What cannot be opened here is not shown: that nothing was written is the answer all the same.
        VarOutcome::Conflict(Some(var)) => match finish.may_read.then(|| open(var, ctx)) {
            Some(Ok(items)) => {
                push_var(e, var, lock, &items);
                CONFLICT
            }
            _ => {
                push_var(e, var, lock, NIL);
                REDACTED
            }
        },
        VarOutcome::Ok(_) => {
            e.nil();
            OK
        }
        VarOutcome::Skipped | VarOutcome::Refused(_) => {
            e.nil();
            SKIPPED
        }
    }
}

/// Holdfast.VariablesTxn (R8.29).
pub(super) fn txn(request: &Request<'_>, state: &State, ctx: &Ctx) -> Answer {
    let args: TxnRequest = arguments(request)?;
    let access = access(&args.write.auth_token, request, state, ctx)?;
    if args.ops.is_empty() {
        return Err(coded(400, "no writes were given"));
    }
    if args.ops.len() > MAX_TXN_WRITES {
        let text = format_args!("{} writes were given, {MAX_TXN_WRITES} is the limit", args.ops.len());
        return Err(coded(400, text));
    }
    let (mut ops, mut finishes, mut places) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (nth, op) in (0..).zip(args.ops) {
        let asked = Asked {
            op: op.op,
            var: op.var,
            fence: op.fence,
            owner: String::new(),
            wait: Duration::ZERO,
            keep_items: false,
            nth,
        };
        let prepared = prepare_of_txn(asked, &args.write.namespace, &access, ctx);
        let (op, finish) = prepared.map_err(|failure| numbered(nth, failure))?;
        if !places.insert((Arc::clone(&op.namespace), Arc::clone(&op.path))) {
            let text = format!("{} in namespace {} is written twice", op.path, op.namespace);
            return Err(numbered(nth, coded(400, text)));
        }
        ops.push(op);
        finishes.push(finish);
    }
    Ok(Outcome::Propose {
        command: Command::VarApply(VarApply { ops }),
        finish: Finish::VarTxn(finishes.into_boxed_slice()),
    })
}

fn prepare_of_txn(asked: Asked, namespace: &str, access: &Access, ctx: &Ctx) -> Result<(VarOp, VarFinish), Failure> {
    match VarOpKind::from_word(&asked.op) {
        Some(VarOpKind::LockAcquire | VarOpKind::LockRelease) => {
            Err(coded(400, format_args!("{} cannot be one write of several", asked.op)))
        }
        _ => prepare(asked, namespace, access, ctx),
    }
}

/// An error that says which write is meant, counted from 1. Whoever may not write one hears no more than that.
fn numbered(nth: u64, failure: Failure) -> Failure {
    let Failure::Text(text) = failure else { return failure };
    if text == PERMISSION_DENIED {
        return text.into();
    }
    let number = nth.saturating_add(1);
    match text.strip_prefix("RPC Error:: 400,") {
        Some(text) => coded(400, format_args!("write {number}: {text}")),
        None => format!("write {number}: {text}").into(),
    }
}

/// The reply of Holdfast.VariablesTxn.
pub(super) fn finish_txn(finishes: &[VarFinish], resolved: &Resolved, ctx: &Ctx) -> Answer {
    let outcomes = outcomes(resolved)?;
    if outcomes.len() != finishes.len() {
        return Err(NO_ANSWER.into());
    }
    for (nth, outcome) in (0..).zip(outcomes) {
        if let VarOutcome::Refused(text) = outcome {
            return Err(numbered(nth, text.as_ref().into()));
        }
    }
    let done = outcomes.iter().all(|outcome| matches!(outcome, VarOutcome::Ok(_)));
    let mut e = Encoder::new();
    e.map(3);
    e.str("Result");
    e.str(if done { OK } else { CONFLICT });
    e.str("Results");
    e.array(finishes.len());
    for (finish, outcome) in finishes.iter().zip(outcomes) {
        let mut conflict = Encoder::new();
        let result = push_conflict(&mut conflict, outcome, finish, ctx);
        e.map(3);
        e.str("Result");
        e.str(result);
        e.str("Conflict");
        e.raw(&conflict.out);
        e.str("Output");
        match outcome {
            VarOutcome::Ok(Some(var)) => push_metadata(&mut e, var, output_lock(finish, var)),
            _ => e.nil(),
        }
    }
    e.str("Index");
    e.u64(resolved.index.0);
    Ok(reply(e))
}
