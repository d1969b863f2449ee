//! What a token may do to variables and locks while ACLs are on, and what it may see of them.

use super::variable_lists::paths;
use super::variables::{ID, OTHER_ID, applied, apply, changed, lock, world, write};
use super::*;
use crate::wire::body::acl::{AclPolicy, AclToken};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::{
    LockBreakRequest, LockListResponse, LockReadRequest, TxnOp, TxnRequest, VariablesApplyRequest,
    VariablesApplyResponse, VariablesListResponse, VariablesReadRequest, VariablesReadResponse,
    VariablesRenewLockRequest,
};

const MANAGER: &str = "a0c40000-0001-4002-8003-0000000000aa";
const TOKEN: &str = "b0c40000-0001-4002-8003-0000000000bb";

const RULES: &str = r#"
namespace "default" {
  variables {
    path "app/*" { capabilities = ["list", "read", "write", "destroy"] }
    path "ro/*" { capabilities = ["read"] }
    path "wo/*" { capabilities = ["write"] }
    path "li/*" { capabilities = ["list"] }
    path "lk/*" { capabilities = ["lock-read"] }
    path "de/*" { capabilities = ["destroy"] }
  }
}
"#;

const PARTS: [&str; 7] = ["app", "ro", "wo", "li", "lk", "de", "no"];

fn token(secret: &str, kind: &str, policies: &[&str]) -> AclToken {
    AclToken {
        accessor_id: secret.replace("0000-0001", "ffff-0001"),
        secret_id: secret.to_owned(),
        kind: kind.to_owned(),
        policies: Some(policies.iter().map(|name| (*name).to_owned()).collect()),
        ..AclToken::default()
    }
}

/// A world with ACLs, and in each part of the tree one variable that is locked.
fn guarded() -> World {
    let mut world = world();
    for part in PARTS {
        let path = format!("{part}/x");
        let request = changed(write("lock-acquire", &path), |var| var.lock = lock(ID));
        assert_eq!(applied(&mut world, &request).result, "ok");
    }
    world.ctx.server = Arc::new(ServerFacts { acl_enabled: true, ..(*world.ctx.server).clone() });
    let policy = AclPolicy { name: "p".to_owned(), rules: RULES.to_owned(), ..AclPolicy::default() };
    world.write(Command::AclUpsertPolicies { policies: vec![policy] });
    let tokens = vec![token(MANAGER, "management", &[]), token(TOKEN, "client", &["p"])];
    world.write(Command::AclUpsertTokens { tokens });
    world
}

fn query(secret: &str) -> QueryOptions {
    QueryOptions { auth_token: secret.to_owned(), ..QueryOptions::default() }
}

fn by(secret: &str, request: VariablesApplyRequest) -> VariablesApplyRequest {
    let write = WriteRequest { auth_token: secret.to_owned(), ..request.write.clone() };
    VariablesApplyRequest { write, ..request }
}

/// Parts of the tree in which a call is not refused for want of a right.
fn allowed(world: &mut World, call: impl Fn(&mut World, &str) -> Came) -> Vec<&'static str> {
    PARTS
        .into_iter()
        .filter(|part| call(world, &format!("{part}/x")) != Came::Error("Permission denied".to_owned()))
        .collect()
}

#[test]
fn each_method_wants_its_right() {
    let mut world = guarded();
    for (op, parts) in [
        ("set", &["app", "wo"][..]),
        ("cas", &["app", "wo"]),
        ("lock-acquire", &["app", "wo"]),
        ("lock-release", &["app", "wo"]),
        ("delete", &["app", "de"]),
        ("delete-cas", &["app", "de"]),
    ] {
        let call = |world: &mut World, path: &str| {
            apply(world, &by(TOKEN, changed(write(op, path), |var| var.lock = lock(OTHER_ID))))
        };
        assert_eq!(allowed(&mut world, call), parts, "{op}");
        // Several at once: one without the right is enough.
        let txn = |world: &mut World, path: &str| {
            let ops = ["app/y", path].map(|path| write(op, path)).map(|op| TxnOp { op: op.op, var: op.var, fence: 0 });
            let write = WriteRequest { auth_token: TOKEN.to_owned(), ..WriteRequest::default() };
            world.call_bytes("Holdfast.VariablesTxn", &TxnRequest { ops: ops.to_vec(), write }.to_bytes())
        };
        if !op.starts_with("lock") {
            assert_eq!(allowed(&mut world, txn), parts, "{op}");
        }
    }
    let write = || WriteRequest { auth_token: TOKEN.to_owned(), ..WriteRequest::default() };
    let renew = |world: &mut World, path: &str| {
        let args = VariablesRenewLockRequest { path: path.to_owned(), lock_id: OTHER_ID.to_owned(), write: write() };
        world.call_bytes("Variables.RenewLock", &args.to_bytes())
    };
    assert_eq!(allowed(&mut world, renew), ["app", "wo"]);
    let read = |world: &mut World, path: &str| {
        let args = VariablesReadRequest { path: path.to_owned(), query: query(TOKEN) };
        world.call_bytes("Variables.Read", &args.to_bytes())
    };
    assert_eq!(allowed(&mut world, read), ["app", "ro"]);
    // R8.10: implied by read.
    let lock_read = |world: &mut World, path: &str| {
        let args = LockReadRequest { path: path.to_owned(), query: query(TOKEN) };
        world.call_bytes("Holdfast.LockRead", &args.to_bytes())
    };
    assert_eq!(allowed(&mut world, lock_read), ["app", "ro", "lk"]);
    let lock_break = |world: &mut World, path: &str| {
        let args = LockBreakRequest { path: path.to_owned(), write: write() };
        world.call_bytes("Holdfast.LockBreak", &args.to_bytes())
    };
    assert_eq!(allowed(&mut world, lock_break), ["app", "de"]);
}

/// Rights are asked for before anything is said of the variable or of the arguments.
#[test]
fn whoever_may_not_learns_nothing() {
    let mut world = guarded();
    for path in ["no/x", "no/missing", "no path!", ""] {
        assert_eq!(apply(&mut world, &by(TOKEN, write("set", path))).error(), "Permission denied", "{path}");
        let args = VariablesReadRequest { path: path.to_owned(), query: query(TOKEN) };
        assert_eq!(world.call_bytes("Variables.Read", &args.to_bytes()).error(), "Permission denied");
    }
    for secret in ["", "c0c40000-0001-4002-8003-0000000000cc", "no token"] {
        assert_eq!(apply(&mut world, &by(secret, write("set", "app/x"))).error(), "Permission denied", "{secret}");
    }
}

#[test]
fn lists_leave_out_what_may_not_be_seen() {
    let mut world = guarded();
    let listed = |world: &mut World, query: QueryOptions| -> VariablesListResponse {
        world.call_bytes("Variables.List", &query.to_bytes()).body()
    };
    assert_eq!(listed(&mut world, query(MANAGER)).data.len(), PARTS.len());
    let reply = listed(&mut world, query(TOKEN));
    assert_eq!(paths(&reply), ["default.app/x", "default.li/x", "default.ro/x"]);
    assert!(reply.data.iter().all(|var| var.lock.is_none()), "locks are management's to see");
    // Pages and filters know nothing of the others.
    let reply = listed(&mut world, QueryOptions { per_page: 1, ..query(TOKEN) });
    assert_eq!(reply.meta.next_token, "default.li/x");
    for filter in ["Lock.ID contains \"1\"", "Lock is not empty", "Lock.ID == \"\" or Lock.TTL == 15000000000"] {
        let reply = listed(&mut world, QueryOptions { filter: filter.to_owned(), ..query(TOKEN) });
        assert_eq!(reply.data, [], "{filter}");
    }
    let reply = listed(&mut world, query(""));
    assert_eq!((reply.data.len(), reply.meta.index), (0, 7), "anonymous");

    let locks = |world: &mut World, query: QueryOptions| {
        let reply: LockListResponse = world.call_bytes("Holdfast.LockList", &query.to_bytes()).body();
        reply.locks.into_iter().map(|lock| lock.path).collect::<Vec<_>>()
    };
    assert_eq!(locks(&mut world, query(TOKEN)), ["app/x", "lk/x", "ro/x"]);
    assert_eq!(locks(&mut world, query(MANAGER)).len(), PARTS.len());
    assert!(locks(&mut world, query("")).is_empty());
}

#[test]
fn what_is_shown_depends_on_who_asks() {
    let mut world = guarded();
    let read = |world: &mut World, secret: &str| -> VariablesReadResponse {
        let args = VariablesReadRequest { path: "app/x".to_owned(), query: query(secret) };
        world.call_bytes("Variables.Read", &args.to_bytes()).body()
    };
    assert_eq!(read(&mut world, MANAGER).data.unwrap().lock.unwrap().id, ID);
    assert_eq!(read(&mut world, TOKEN).data.unwrap().lock, None);

    let refused = |world: &mut World, secret: &str, path: &str| -> VariablesApplyResponse {
        applied(world, &by(secret, write("cas", path)))
    };
    let reply = refused(&mut world, TOKEN, "app/x");
    let conflict = reply.conflict.unwrap();
    assert_eq!(
        (reply.result.as_str(), conflict.items.is_some(), conflict.lock.unwrap().id.as_str()),
        ("conflict", true, "")
    );
    let reply = refused(&mut world, TOKEN, "wo/x");
    let conflict = reply.conflict.unwrap();
    assert_eq!((reply.result.as_str(), conflict.items, conflict.modify_index), ("conflict-redacted", None, 3));
    let reply = refused(&mut world, MANAGER, "wo/x");
    assert_eq!(reply.conflict.unwrap().lock.unwrap().id, ID);

    // Its own write is shown to a writer that may not read, and the lock to whoever shows its id.
    let under = changed(write("set", "wo/x"), |var| var.lock = lock(ID));
    let output = applied(&mut world, &by(TOKEN, under)).output.unwrap();
    assert_eq!((output.items.is_some(), output.lock.unwrap().id.as_str()), (true, ID));
}

/// People are told an accessor, never a secret.
#[test]
fn a_holder_is_called_by_its_accessor() {
    let mut world = guarded();
    assert_eq!(applied(&mut world, &by(TOKEN, write("lock-acquire", "app/new"))).result, "ok");
    let held = world.state.var("default", "app/new").unwrap().lock.clone().unwrap();
    assert_eq!(&*held.owner, token(TOKEN, "client", &[]).accessor_id);
    assert_ne!(&*held.owner, TOKEN);
}
