//! Locks: who gets one, who waits for one, what is shown of one and to whom.

use super::super::outcome::{Finish, Hidden, Outcome, Queue};
use super::variables::{ID, OTHER_ID, applied, apply, changed, finish_as, get, items, lock, set, world, write};
use super::*;
use crate::state::watch::WatchKey;
use crate::wire::body::query::{GenericResponse, QueryOptions, WriteRequest};
use crate::wire::body::var::{
    LockBreakRequest, LockListResponse, LockReadRequest, LockReadResponse, LockStub, VariableLock,
    VariablesApplyRequest, VariablesListResponse, VariablesReadResponse, VariablesRenewLockRequest,
    VariablesRenewLockResponse,
};

const SECOND: i64 = 1_000_000_000;

fn acquire(path: &str, id: &str) -> VariablesApplyRequest {
    changed(write("lock-acquire", path), |var| var.lock = lock(id))
}

fn release(path: &str, id: &str) -> VariablesApplyRequest {
    changed(write("lock-release", path), |var| var.lock = lock(id))
}

fn renew(world: &mut World, path: &str, id: &str) -> Came {
    let request = VariablesRenewLockRequest {
        path: path.to_owned(),
        lock_id: id.to_owned(),
        write: WriteRequest { region: "global".to_owned(), ..WriteRequest::default() },
    };
    world.call_bytes("Variables.RenewLock", &request.to_bytes())
}

fn show(world: &mut World, path: &str) -> LockReadResponse {
    let request = LockReadRequest { path: path.to_owned(), ..LockReadRequest::default() };
    world.call_bytes("Holdfast.LockRead", &request.to_bytes()).body()
}

fn list(world: &mut World, query: &QueryOptions) -> Came {
    world.call_bytes("Holdfast.LockList", &query.to_bytes())
}

fn break_lock(world: &mut World, path: &str) -> Came {
    let request = LockBreakRequest { path: path.to_owned(), ..LockBreakRequest::default() };
    world.call_bytes("Holdfast.LockBreak", &request.to_bytes())
}

/// An acquire that keeps items: what was written meanwhile is not undone by whoever read it before, and who may not
/// read the variable needs no items.
#[test]
fn a_lock_may_leave_the_items_alone() {
    let mut world = world();
    let newer = changed(write("set", "p"), |var| var.items = items(&[("k", "newer")]));
    assert_eq!(applied(&mut world, &newer).result, "ok");
    let keeping = VariablesApplyRequest { keep_items: true, ..acquire("p", ID) };
    let stale = changed(keeping, |var| var.items = items(&[("k", "stale")]));
    let taken = applied(&mut world, &stale);
    assert_eq!((taken.result.as_str(), taken.output.unwrap().items.unwrap()["k"].as_str()), ("ok", "newer"));
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!(read.data.unwrap().items.unwrap()["k"], "newer");
    // Of what is not there nothing can be kept.
    let fresh = changed(stale, |var| var.path = "q".to_owned());
    assert_eq!(applied(&mut world, &fresh).output.unwrap().items.unwrap()["k"], "stale");
    // Whoever may not read it takes the lock, and sees nothing.
    let blind = VariablesApplyRequest { keep_items: true, ..acquire("p", ID) };
    let taken = finish_as(&mut world, &blind, |of| (of.may_read, of.management) = (false, false));
    assert_eq!((taken.result.as_str(), taken.output.unwrap().items), ("ok", None));
    // Other writes never keep anything.
    let set = VariablesApplyRequest { keep_items: true, ..write("set", "r") };
    for value in ["1", "2"] {
        let set = changed(set.clone(), |var| var.items = items(&[("k", value)]));
        assert_eq!(applied(&mut world, &set).output.unwrap().items.unwrap()["k"], value);
    }
}

#[test]
fn a_lock_lives() {
    let mut world = world();
    let taken = applied(&mut world, &changed(write("lock-acquire", "p"), |_| ()));
    let (input, output) = (taken.input.unwrap(), taken.output.unwrap());
    let held = output.lock.clone().unwrap();
    assert!(auth::is_uuid(&held.id), "an id was made");
    assert_eq!((held.ttl, held.lock_delay), (15 * SECOND, 15 * SECOND));
    assert_eq!(input.lock.unwrap(), held, "the request is repeated with what was filled in");
    assert_eq!((taken.result.as_str(), taken.fence, output.items.unwrap()["k"].as_str()), ("ok", 1, "v"));
    let Command::VarApply(body) = &world.written[0] else { panic!() };
    assert_eq!(body.ops[0].owner, "acls-disabled");

    // Another has its own id each time.
    let other = applied(&mut world, &write("lock-acquire", "q")).output.unwrap().lock.unwrap();
    world.ctx.seed += 1;
    let again = applied(&mut world, &write("lock-acquire", "r")).output.unwrap().lock.unwrap();
    assert_ne!(other.id, again.id);

    for refused in [acquire("p", ""), acquire("p", OTHER_ID), write("set", "p"), write("delete", "p"), release("p", ID)]
    {
        let reply = applied(&mut world, &refused);
        let conflict = reply.conflict.unwrap();
        assert_eq!((reply.result.as_str(), reply.output, reply.fence), ("conflict", None, 0));
        assert_eq!(
            (conflict.path.as_str(), conflict.create_index, conflict.lock, conflict.items),
            ("p", 0, None, None)
        );
    }

    let under = changed(write("set", "p"), |var| var.lock = lock(&held.id));
    let reply = applied(&mut world, &under);
    assert_eq!((reply.result.as_str(), reply.fence), ("ok", 1));
    assert_eq!(reply.input.unwrap().lock.unwrap(), held, "defaults are filled in");
    assert_eq!(reply.output.unwrap().lock.unwrap(), held);

    let renewed: VariablesRenewLockResponse = renew(&mut world, "p", &held.id).body();
    let shown = renewed.var_meta.unwrap();
    assert_eq!((shown.lock.unwrap(), renewed.meta.index), (held.clone(), shown.modify_index));
    assert!(world.state.index().0 > shown.modify_index, "a renewal is a write that changes no index");

    let given_back = applied(&mut world, &release("p", &held.id));
    let output = given_back.output.unwrap();
    assert_eq!((given_back.result.as_str(), output.lock, output.items.unwrap().len()), ("ok", None, 0));
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!(read.data.unwrap().items.unwrap()["k"], "v", "the items stay");
    assert_eq!(apply(&mut world, &release("p", &held.id)).error(), "variable doesn't hold a lock");
    assert_eq!(apply(&mut world, &release("none", &held.id)).error(), "variable doesn't exist");
    assert_eq!(applied(&mut world, &write("delete", "p")).result, "ok");
}

#[test]
fn a_lock_without_items_empties_its_variable() {
    let mut world = world();
    set(&mut world, "", "p");
    let reply = applied(&mut world, &changed(acquire("p", ID), |var| var.items = None));
    assert_eq!((reply.input.unwrap().items, reply.output.unwrap().items.unwrap().len()), (None, 0));
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!(read.data.unwrap().items.unwrap().len(), 0);
}

#[test]
fn renewals_are_refused_in_the_words_of_the_peers() {
    let mut world = world();
    set(&mut world, "", "free");
    applied(&mut world, &acquire("p", ID));
    let both = "2 errors occurred:\n\t* missing path\n\t* missing lock ID\n\n";
    for (path, id, text) in [
        ("", ID, "1 error occurred:\n\t* missing path\n\n"),
        ("p", "", "1 error occurred:\n\t* missing lock ID\n\n"),
        ("", "", both),
        ("none", ID, "RPC Error:: 404,variable doesn't exist"),
        ("free", ID, "RPC Error:: 409,variable doesn't hold a lock"),
        ("p", OTHER_ID, "RPC Error:: 409,attempting to modify locked variable"),
    ] {
        assert_eq!(renew(&mut world, path, id).error(), text, "{path} {id}");
    }
}

/// The state may be ahead of the write that is answered: the lock of somebody else is never shown.
#[test]
fn a_renewal_that_was_overtaken_shows_nothing() {
    let mut world = world();
    let then = Finish::LockRenew { namespace: "default".into(), path: "p".into(), lock_id: Hidden(ID.to_owned()) };
    let resolved = Resolved { index: Index(1), result: Default::default() };
    let mut goes_on = |change: Option<VariablesApplyRequest>| {
        if let Some(request) = change {
            assert_eq!(applied(&mut world, &request).result, "ok");
        }
        let Outcome::Reply(reply) = finish(&then, &resolved, &world.state, &world.ctx) else { panic!() };
        let ReplyResult::Error(text) = reply.result else { panic!("{reply:?}") };
        text
    };
    assert_eq!(goes_on(None), "RPC Error:: 404,variable doesn't exist");
    assert_eq!(goes_on(Some(write("set", "p"))), "RPC Error:: 409,variable doesn't hold a lock");
    assert_eq!(goes_on(Some(acquire("p", OTHER_ID))), "RPC Error:: 409,attempting to modify locked variable");
    assert!(!format!("{then:?}").contains(ID));
}

/// R8.28
#[test]
fn whoever_waits_gets_in_line() {
    let mut world = world();
    let waiting = |wait_time: i64| VariablesApplyRequest { wait_time, ..acquire("p", OTHER_ID) };
    let queue = |wait| Came::Other(Outcome::Queue(Queue { namespace: "default".into(), path: "p".into(), wait }));
    // Free: taken at once.
    assert_eq!(applied(&mut world, &VariablesApplyRequest { wait_time: SECOND, ..acquire("p", ID) }).result, "ok");
    let written = world.written.len();
    assert_eq!(apply(&mut world, &waiting(SECOND)), queue(Duration::from_secs(1)));
    assert_eq!(apply(&mut world, &waiting(i64::MAX)), queue(Duration::from_secs(300)));
    assert_eq!(world.written.len(), written, "whoever waits writes nothing");
    // The holder itself does not wait, nor does who has no time, or asks for something else.
    assert_eq!(applied(&mut world, &VariablesApplyRequest { wait_time: SECOND, ..acquire("p", ID) }).result, "ok");
    for wait in [0, -1] {
        assert_eq!(applied(&mut world, &waiting(wait)).result, "conflict");
    }
    let other = VariablesApplyRequest { wait_time: SECOND, ..write("set", "p") };
    assert_eq!(applied(&mut world, &other).result, "conflict");
    // At the end of the wait there is an answer.
    world.last_run = true;
    assert_eq!(applied(&mut world, &waiting(SECOND)).result, "conflict");
    world.last_run = false;
    applied(&mut world, &release("p", ID));
    assert_eq!(applied(&mut world, &waiting(SECOND)).result, "ok");
}

/// Somebody was faster between the look at the state and the write.
#[test]
fn whoever_came_second_waits() {
    let overtaken = |fence: u64, wait_time: i64, holder: Option<VariablesApplyRequest>| {
        let mut world = world();
        let request = VariablesApplyRequest { wait_time, fence, ..acquire("p", OTHER_ID) };
        let method = method("Variables.Apply").unwrap();
        let outcome = run_call(method, &request.to_bytes(), 0, &world.caller, false, &world.state, &world.ctx);
        let Outcome::Propose { command, finish: then } = outcome else { panic!("{outcome:?}") };
        if let Some(holder) = holder {
            assert_eq!(applied(&mut world, &holder).result, "ok");
        }
        let resolved = world.write(command);
        finish(&then, &resolved, &world.state, &world.ctx)
    };
    let wait = Duration::from_secs(1);
    let queue = Outcome::Queue(Queue { namespace: "default".into(), path: "p".into(), wait });
    assert_eq!(overtaken(0, SECOND, Some(acquire("p", ID))), queue);
    assert_eq!(overtaken(5, SECOND, Some(acquire("p", ID))), queue);
    // No wait, or a fence that will never do.
    let fenced = |op: &str| VariablesApplyRequest { fence: 9, ..write(op, "p") };
    for (fence, wait, holder) in [
        (0, 0, acquire("p", ID)),
        (5, SECOND, fenced("set")),
        (5, SECOND, fenced("delete")),
        (5, SECOND, VariablesApplyRequest { fence: 9, ..acquire("p", ID) }),
    ] {
        let outcome = overtaken(fence, wait, Some(holder));
        let Outcome::Reply(reply) = outcome else { panic!("{outcome:?}") };
        let ReplyResult::Body(body) = reply.result else { panic!("{reply:?}") };
        let reply = crate::wire::body::var::VariablesApplyResponse::from_bytes(&body).unwrap();
        assert_eq!(reply.result, "conflict");
    }
    assert!(matches!(overtaken(0, SECOND, None), Outcome::Reply(_)));
}

/// R8.1: a fence rises with each holder, and whoever comes with an older one is refused.
#[test]
fn fences_rise_and_are_demanded() {
    let mut world = world();
    let first = applied(&mut world, &acquire("p", ID)).fence;
    applied(&mut world, &release("p", ID));
    let second = applied(&mut world, &acquire("p", OTHER_ID)).fence;
    assert!(0 < first && first < second);
    applied(&mut world, &release("p", OTHER_ID));
    let fenced = |fence| VariablesApplyRequest { fence, ..write("set", "p") };
    assert_eq!(applied(&mut world, &fenced(first)).result, "conflict");
    let reply = applied(&mut world, &fenced(second));
    assert_eq!((reply.result.as_str(), reply.fence), ("ok", second));
    let reply = applied(&mut world, &fenced(second + 9));
    assert_eq!((reply.result.as_str(), reply.fence), ("ok", second + 9));
    assert_eq!(applied(&mut world, &fenced(second)).result, "conflict");
    assert_eq!(applied(&mut world, &write("set", "p")).fence, second + 9, "it is told in later writes too");
    assert_eq!(show(&mut world, "p").lock.unwrap().fence, second + 9);
}

/// The id is a bearer secret.
#[test]
fn ids_are_shown_to_holders_and_management_only() {
    let mut world = world();
    let reply = finish_as(&mut world, &acquire("p", ID), |of| of.management = false);
    assert_eq!(reply.output.unwrap().lock.unwrap().id, ID, "its holder");
    let under = changed(write("set", "p"), |var| var.lock = lock(ID));
    let reply = finish_as(&mut world, &under, |of| of.management = false);
    assert_eq!(reply.output.unwrap().lock.unwrap().id, ID);
    let other = changed(write("cas", "p"), |var| var.lock = lock(OTHER_ID));
    let reply = finish_as(&mut world, &other, |of| of.management = false);
    let stands_in_the_way = reply.conflict.unwrap().lock.unwrap();
    assert_eq!(stands_in_the_way, VariableLock { id: String::new(), ttl: 15 * SECOND, lock_delay: 15 * SECOND });
    // With ACLs off everybody is management.
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!(read.data.unwrap().lock.unwrap().id, ID);
    let listed: VariablesListResponse = world.call_bytes("Variables.List", &QueryOptions::default().to_bytes()).body();
    assert_eq!(listed.data[0].lock.clone().unwrap().id, ID);
    // These methods show it to nobody.
    let request = LockReadRequest { path: "p".to_owned(), ..LockReadRequest::default() };
    for (method, bytes) in
        [("Holdfast.LockRead", request.to_bytes()), ("Holdfast.LockList", QueryOptions::default().to_bytes())]
    {
        let Came::Body(bytes) = world.call_bytes(method, &bytes) else { panic!() };
        assert!(!bytes.windows(ID.len()).any(|word| word == ID.as_bytes()), "{method}");
    }
    for command in &world.written {
        let Command::VarApply(body) = command else { continue };
        assert!(body.ops.iter().all(|op| op.owner != ID));
    }
}

/// R8.10
#[test]
fn locks_are_shown_without_their_ids() {
    let mut world = world();
    world.ctx.lock_waiters = 3;
    let owned = VariablesApplyRequest { owner: "job 7".to_owned(), ..acquire("a/1", ID) };
    let fence = applied(&mut world, &owned).fence;
    let shown = LockStub {
        namespace: "default".to_owned(),
        path: "a/1".to_owned(),
        held: true,
        owner: "job 7".to_owned(),
        since: NOW,
        deadline: NOW + 15 * SECOND,
        ttl: 15 * SECOND,
        lock_delay: 15 * SECOND,
        fence,
        waiters: 3,
    };
    let reply = show(&mut world, "a/1");
    assert_eq!((reply.lock, reply.meta.index), (Some(shown.clone()), 1));
    let empty = LockReadRequest::default().to_bytes();
    assert_eq!(world.call_bytes("Holdfast.LockRead", &empty).error(), "RPC Error:: 400,missing path");

    set(&mut world, "", "never");
    assert_eq!(show(&mut world, "never").lock, None);
    let missing = show(&mut world, "none");
    assert_eq!((missing.lock, missing.meta.index), (None, 2));

    let query = QueryOptions { min_query_index: 1, ..QueryOptions::default() };
    let waiting = LockReadRequest { path: "a/1".to_owned(), query }.to_bytes();
    let Came::Park(park) = world.call_bytes("Holdfast.LockRead", &waiting) else { panic!() };
    assert_eq!(park.keys, [WatchKey::var("default", "a/1")]);
    applied(&mut world, &release("a/1", ID));
    let reply: LockReadResponse = world.call_bytes("Holdfast.LockRead", &waiting).body();
    let free = LockStub { namespace: "default".to_owned(), path: "a/1".to_owned(), fence, ..LockStub::default() };
    assert_eq!(reply.lock, Some(LockStub { waiters: 3, ..free }));
}

#[test]
fn held_locks_are_listed() {
    let mut world = world();
    let reply: LockListResponse = list(&mut world, &QueryOptions::default()).body();
    assert_eq!((reply.locks.len(), reply.meta.index), (0, 1));
    for (namespace, path) in [("", "b"), ("", "a/1"), ("", "a/2"), ("n", "a/3"), ("n", "free")] {
        let request = changed(acquire(path, ID), |var| var.namespace = namespace.to_owned());
        assert_eq!(applied(&mut world, &request).result, "ok");
    }
    set(&mut world, "", "a/0");
    applied(&mut world, &changed(release("free", ID), |var| var.namespace = "n".to_owned()));
    let paths = |reply: &LockListResponse| {
        reply.locks.iter().map(|lock| format!("{}.{}", lock.namespace, lock.path)).collect::<Vec<_>>()
    };
    for (namespace, prefix, expected) in [
        ("", "", &["default.a/1", "default.a/2", "default.b"][..]),
        ("", "a/", &["default.a/1", "default.a/2"]),
        ("n", "", &["n.a/3"]),
        ("*", "a", &["default.a/1", "default.a/2", "n.a/3"]),
        ("none", "", &[]),
    ] {
        for reverse in [false, true] {
            let mut expected: Vec<_> = expected.iter().map(|path| (*path).to_owned()).collect();
            if reverse {
                expected.reverse();
            }
            let query = QueryOptions {
                namespace: namespace.to_owned(),
                prefix: prefix.to_owned(),
                reverse,
                ..QueryOptions::default()
            };
            let reply: LockListResponse = list(&mut world, &query).body();
            assert_eq!((paths(&reply), reply.meta.index), (expected.clone(), 7), "{namespace} {prefix}");
            // Page by page.
            let mut query = QueryOptions { per_page: 1, ..query };
            let mut found = Vec::new();
            for _ in 0..=expected.len() {
                let reply: LockListResponse = list(&mut world, &query).body();
                found.extend(paths(&reply));
                query.next_token = reply.meta.next_token;
                if query.next_token.is_empty() {
                    break;
                }
            }
            assert_eq!(found, expected);
        }
    }
    let filtered = QueryOptions { filter: "Path contains \"2\"".to_owned(), ..QueryOptions::default() };
    assert_eq!(paths(&list(&mut world, &filtered).body()), ["default.a/2"]);
    let unknown = QueryOptions { filter: "ID == x".to_owned(), ..QueryOptions::default() };
    assert!(list(&mut world, &unknown).error().starts_with("RPC Error:: 400,failed to read result page: "));
    let waiting = QueryOptions { prefix: "a".to_owned(), min_query_index: 7, ..QueryOptions::default() };
    let Came::Park(park) = list(&mut world, &waiting) else { panic!() };
    assert_eq!(park.keys, [WatchKey::vars_under("default", "a")]);
}

/// R8.10
#[test]
fn a_lock_is_broken() {
    let mut world = world();
    applied(&mut world, &acquire("p", ID));
    let reply: GenericResponse = break_lock(&mut world, "p").body();
    assert_eq!(reply.meta.index, 2);
    assert_eq!(renew(&mut world, "p", ID).error(), "RPC Error:: 409,variable doesn't hold a lock");
    assert_eq!(applied(&mut world, &acquire("p", OTHER_ID)).result, "ok", "without its delay");
    for (path, text) in [("", "RPC Error:: 400,missing path"), ("none", "variable doesn't exist")] {
        assert_eq!(break_lock(&mut world, path).error(), text);
    }
    set(&mut world, "", "free");
    assert_eq!(break_lock(&mut world, "free").error(), "variable doesn't hold a lock");
}
