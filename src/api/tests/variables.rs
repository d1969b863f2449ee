//! Variables: what is written and read, and what each caller may see of it.

use proptest::prelude::*;

use super::super::outcome::{Finish, Outcome, Reply, VarFinish};
use super::super::seal::{Sealer, SealingKey};
use super::super::var::{LockView, push_metadata, push_var};
use super::variable_lists::list;
use super::*;
use crate::state::ApplyResult;
use crate::state::var::{Var, VarLock, VarOutcome};
use crate::state::watch::WatchKey;
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::body::var::{
    TxnOp, TxnRequest, Variable, VariableLock, VariableMetadata, VariablesApplyRequest, VariablesApplyResponse,
    VariablesListResponse, VariablesReadRequest, VariablesReadResponse,
};
use crate::wire::entry::var::VarOpKind;

pub(super) const ID: &str = "10c40000-0001-4002-8003-00000000abcd";
pub(super) const OTHER_ID: &str = "20c40000-0001-4002-8003-00000000abcd";

/// A world with a key ring.
pub(super) fn world() -> World {
    let mut world = World::new();
    world.ctx.sealer = Some(Arc::new(sealer("k1")));
    world
}

fn sealer(id: &str) -> Sealer {
    Sealer::new(vec![SealingKey::derive(id, b"secret").unwrap()], id).unwrap()
}

pub(super) fn items(pairs: &[(&str, &str)]) -> Option<std::collections::BTreeMap<String, String>> {
    Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
}

pub(super) fn lock(id: &str) -> Option<VariableLock> {
    Some(VariableLock { id: id.to_owned(), ..VariableLock::default() })
}

/// A write of one item, in the namespace of the request.
pub(super) fn write(op: &str, path: &str) -> VariablesApplyRequest {
    let given = if op.contains("delete") || op == "lock-release" { None } else { items(&[("k", "v")]) };
    VariablesApplyRequest {
        op: op.to_owned(),
        var: Some(Variable { path: path.to_owned(), items: given, ..Variable::default() }),
        write: WriteRequest { region: "global".to_owned(), ..WriteRequest::default() },
        ..VariablesApplyRequest::default()
    }
}

/// The same with another variable.
pub(super) fn changed(mut request: VariablesApplyRequest, change: impl FnOnce(&mut Variable)) -> VariablesApplyRequest {
    change(request.var.as_mut().unwrap());
    request
}

pub(super) fn apply(world: &mut World, request: &VariablesApplyRequest) -> Came {
    world.call_bytes("Variables.Apply", &request.to_bytes())
}

#[track_caller]
pub(super) fn applied(world: &mut World, request: &VariablesApplyRequest) -> VariablesApplyResponse {
    apply(world, request).body()
}

#[track_caller]
pub(super) fn set(world: &mut World, namespace: &str, path: &str) -> VariablesApplyResponse {
    let reply = applied(world, &changed(write("set", path), |var| var.namespace = namespace.to_owned()));
    assert_eq!(reply.result, "ok", "{reply:?}");
    reply
}

pub(super) fn get(world: &mut World, path: &str, min_query_index: u64) -> Came {
    let query = QueryOptions { min_query_index, max_query_time: 5, ..QueryOptions::default() };
    world.call_bytes("Variables.Read", &VariablesReadRequest { path: path.to_owned(), query }.to_bytes())
}

/// The finish of a write as the server goes on with it, for a caller with fewer rights.
pub(super) fn finish_as(
    world: &mut World,
    request: &VariablesApplyRequest,
    caller: impl FnOnce(&mut VarFinish),
) -> VariablesApplyResponse {
    let method = method("Variables.Apply").unwrap();
    let outcome = run_call(method, &request.to_bytes(), 0, &world.caller, false, &world.state, &world.ctx);
    let Outcome::Propose { command, finish: Finish::VarApply(mut of) } = outcome else { panic!("{outcome:?}") };
    caller(&mut of);
    let resolved = world.write(command);
    let outcome = finish(&Finish::VarApply(of), &resolved, &world.state, &world.ctx);
    let Outcome::Reply(Reply { result: ReplyResult::Body(body), .. }) = outcome else { panic!("{outcome:?}") };
    VariablesApplyResponse::from_bytes(&body).unwrap()
}

#[test]
fn a_variable_lives() {
    let mut world = world();
    let made = applied(&mut world, &write("set", "app/x"));
    let (input, output) = (made.input.clone().unwrap(), made.output.clone().unwrap());
    assert_eq!((made.op.as_str(), made.result.as_str(), made.meta.index, made.fence), ("set", "ok", 1, 0));
    assert_eq!(
        (input.namespace.as_str(), input.create_index, input.items.clone()),
        ("default", 0, items(&[("k", "v")]))
    );
    let stored = Variable {
        namespace: "default".to_owned(),
        path: "app/x".to_owned(),
        lock: None,
        create_index: 1,
        create_time: NOW,
        modify_index: 1,
        modify_time: NOW,
        items: items(&[("k", "v")]),
    };
    assert_eq!(output, stored);
    assert!(made.error.is_nil() && made.conflict.is_none());
    // Nothing of it is readable in the log.
    let Command::VarApply(body) = &world.written[0] else { panic!() };
    assert!(body.ops[0].sealed.is_some());

    let read: VariablesReadResponse = get(&mut world, "app/x", 0).body();
    assert_eq!((read.data, read.meta.index, read.meta.known_leader), (Some(stored.clone()), 1, true));

    let cas = |index: u64, value: &str| {
        changed(write("cas", "app/x"), |var| (var.modify_index, var.items) = (index, items(&[("k", value)])))
    };
    for index in [0, 7] {
        let reply = applied(&mut world, &cas(index, "w"));
        assert_eq!((reply.result.as_str(), reply.conflict, reply.output), ("conflict", Some(stored.clone()), None));
    }
    let reply = applied(&mut world, &cas(1, "w"));
    let output = reply.output.unwrap();
    assert_eq!((output.create_index, output.modify_index, output.items), (1, 4, items(&[("k", "w")])));
    assert_eq!(reply.meta.index, 4, "refusals take an index");

    let removed = applied(&mut world, &changed(write("delete-cas", "app/x"), |var| var.modify_index = 3));
    assert_eq!((removed.result.as_str(), removed.conflict.unwrap().modify_index), ("conflict", 4));
    let removed = applied(&mut world, &changed(write("delete-cas", "app/x"), |var| var.modify_index = 4));
    assert_eq!((removed.result.as_str(), removed.output, removed.conflict), ("ok", None, None));
    let read: VariablesReadResponse = get(&mut world, "app/x", 0).body();
    assert_eq!((read.data, read.meta.index), (None, 6));
    assert_eq!(applied(&mut world, &write("delete", "app/x")).result, "ok");

    // A check against a variable that is not there: the peers' empty conflict.
    let reply = applied(&mut world, &cas(9, "w"));
    let empty = Variable { namespace: "default".to_owned(), path: "app/x".to_owned(), ..Variable::default() };
    assert_eq!((reply.result.as_str(), reply.conflict), ("conflict", Some(empty)));
}

#[test]
fn the_namespace_is_the_variables_or_the_requests() {
    let mut world = world();
    for (of_var, of_request, namespace) in
        [("", "", "default"), ("", "n1", "n1"), ("n2", "n1", "n2"), ("no such", "", "no such")]
    {
        let mut request = changed(write("set", "p"), |var| var.namespace = of_var.to_owned());
        request.write.namespace = of_request.to_owned();
        let reply = applied(&mut world, &request);
        assert_eq!(reply.output.unwrap().namespace, namespace);
        assert_eq!(reply.input.unwrap().namespace, namespace);
        assert!(world.state.var(namespace, "p").is_some());
    }
}

#[test]
fn without_keys_nothing_is_written_or_read_and_the_rest_works() {
    let mut world = world();
    set(&mut world, "", "p");
    let keys = world.ctx.sealer.take();
    assert_eq!(apply(&mut world, &write("set", "p")).error(), "key ring is not ready");
    assert_eq!(get(&mut world, "p", 0).error(), "key ring is not ready");
    let listed: VariablesListResponse = list(&mut world, &QueryOptions::default()).body();
    assert_eq!(listed.data.len(), 1);
    assert_eq!(applied(&mut world, &write("delete", "gone")).result, "ok");
    // A conflict is told all the same.
    let refused = applied(&mut world, &changed(write("delete-cas", "p"), |var| var.modify_index = 77));
    assert_eq!((refused.result.as_str(), refused.conflict.unwrap().items), ("conflict-redacted", None));

    world.ctx.sealer = Some(Arc::new(sealer("k2")));
    let text = "variable is encrypted with key k1, which is not in this key ring";
    assert_eq!(get(&mut world, "p", 0).error(), text);
    world.ctx.sealer = keys;
    assert!(matches!(get(&mut world, "p", 0), Came::Body(_)));
}

/// Who may not read sees metadata; nobody but management sees a lock's id in a conflict.
#[test]
fn conflicts_show_what_the_caller_may_see() {
    let mut world = world();
    let held = changed(write("lock-acquire", "p"), |var| var.lock = lock(ID));
    assert_eq!(applied(&mut world, &held).result, "ok");
    let refused = write("cas", "p");
    for (may_read, management, result, shown, id) in [
        (true, true, "conflict", items(&[("k", "v")]), ID),
        (true, false, "conflict", items(&[("k", "v")]), ""),
        (false, false, "conflict-redacted", None, ""),
    ] {
        let reply = finish_as(&mut world, &refused, |of| (of.may_read, of.management) = (may_read, management));
        let conflict = reply.conflict.unwrap();
        assert_eq!((reply.result.as_str(), conflict.items, conflict.path.as_str()), (result, shown, "p"));
        assert_eq!(
            conflict.lock.unwrap(),
            VariableLock { ttl: 15_000_000_000, lock_delay: 15_000_000_000, id: id.to_owned() }
        );
        assert_eq!((conflict.create_index, reply.output), (1, None));
    }
}

/// A writer reads its own write, also without the right to read.
#[test]
fn a_writer_sees_what_it_wrote() {
    let mut world = world();
    let reply = finish_as(&mut world, &write("set", "p"), |of| (of.may_read, of.management) = (false, false));
    assert_eq!(reply.output.unwrap().items, items(&[("k", "v")]));
}

#[test]
fn results_that_are_no_answer_are_an_error() {
    let mut world = world();
    set(&mut world, "", "p");
    let of = VarFinish {
        keep_items: false,
        kind: VarOpKind::Set,
        namespace: "default".into(),
        path: "p".into(),
        input: Arc::from([0xc0]),
        items: Arc::from([]),
        may_read: true,
        management: true,
        lock_id: ID.to_owned(),
        fence: 0,
        wait: Duration::ZERO,
    };
    for result in [ApplyResult::Done, ApplyResult::Vars(Vec::new())] {
        let resolved = Resolved { index: Index(9), result };
        for then in [Finish::VarApply(Box::new(of.clone())), Finish::VarTxn(Box::new([of.clone()]))] {
            let Outcome::Reply(reply) = finish(&then, &resolved, &world.state, &world.ctx) else { panic!() };
            assert!(matches!(reply.result, ReplyResult::Error(_)), "{reply:?}");
            assert!(!format!("{then:?}").contains(ID), "{then:?}");
        }
    }
    let refused =
        Resolved { index: Index(9), result: ApplyResult::Vars(vec![VarOutcome::Refused("no such thing".into())]) };
    for (then, text) in [
        (Finish::VarApply(Box::new(of.clone())), "no such thing"),
        (Finish::VarTxn(Box::new([of])), "write 1: no such thing"),
    ] {
        let Outcome::Reply(reply) = finish(&then, &refused, &world.state, &world.ctx) else { panic!() };
        assert_eq!(reply.result, ReplyResult::Error(text.to_owned()));
    }
}

/// R1.84 to R1.89.
#[test]
fn a_read_waits_for_its_variable() {
    let mut world = world();
    let read: VariablesReadResponse = get(&mut world, "p", 0).body();
    assert_eq!((read.data, read.meta.index), (None, 1), "an index that can be waited for");
    let Came::Park(park) = get(&mut world, "p", 1) else { panic!() };
    assert_eq!(park.keys, [WatchKey::var("default", "p")]);
    assert_eq!(park.max_query_time, Duration::from_nanos(5));
    set(&mut world, "", "other");
    set(&mut world, "", "p");
    let read: VariablesReadResponse = get(&mut world, "p", 1).body();
    assert_eq!((read.meta.index, read.data.unwrap().modify_index), (2, 2));
    assert!(matches!(get(&mut world, "p", 2), Came::Park(_)));
    world.last_run = true;
    let read: VariablesReadResponse = get(&mut world, "p", 2).body();
    assert_eq!((read.meta.index, read.data.is_some()), (2, true));
    world.last_run = false;
    applied(&mut world, &write("delete", "p"));
    let read: VariablesReadResponse = get(&mut world, "p", 2).body();
    assert_eq!((read.meta.index, read.data), (3, None));

    let query = QueryOptions { namespace: "n".to_owned(), min_query_index: 9, ..QueryOptions::default() };
    let bytes = VariablesReadRequest { path: "p".to_owned(), query }.to_bytes();
    let Came::Park(park) = world.call_bytes("Variables.Read", &bytes) else { panic!() };
    assert_eq!(park.keys, [WatchKey::var("n", "p")]);
}

/// Variables are written by hand: as the structs that clients read them with.
#[test]
fn what_is_written_by_hand_is_what_clients_read() {
    let held = VarLock { id: ID.into(), ttl: 1 << 40, delay: 3, owner: "o".into(), ..VarLock::default() };
    let mut var = Var {
        namespace: "n".into(),
        path: "a/b".into(),
        lock: Some(Arc::new(held)),
        create_index: 300,
        create_time: NOW,
        modify_index: 70_000,
        modify_time: NOW + 1,
        ..Var::default()
    };
    for view in [LockView::Whole, LockView::WithoutId, LockView::Hidden, LockView::Whole] {
        let shown = match view {
            LockView::Whole => lock(ID),
            LockView::WithoutId => lock(""),
            LockView::Hidden => None,
        };
        let shown =
            shown.filter(|_| var.lock.is_some()).map(|lock| VariableLock { ttl: 1 << 40, lock_delay: 3, ..lock });
        let metadata = VariableMetadata {
            namespace: "n".to_owned(),
            path: "a/b".to_owned(),
            lock: shown.clone(),
            create_index: 300,
            create_time: NOW,
            modify_index: 70_000,
            modify_time: NOW + 1,
        };
        let whole = Variable {
            namespace: "n".to_owned(),
            path: "a/b".to_owned(),
            lock: shown,
            create_index: 300,
            create_time: NOW,
            modify_index: 70_000,
            modify_time: NOW + 1,
            items: items(&[("k", "v"), ("l", "")]),
        };
        let (mut e, mut f) = (Encoder::new(), Encoder::new());
        push_metadata(&mut e, &var, view);
        push_var(&mut f, &var, view, &items(&[("k", "v"), ("l", "")]).to_bytes());
        assert_eq!((e.out, f.out), (metadata.to_bytes(), whole.to_bytes()));
        if view == LockView::Hidden {
            var.lock = None;
        }
    }
    let mut world = world();
    set(&mut world, "", "p");
    let Came::Body(bytes) = get(&mut world, "p", 0) else { panic!() };
    assert_eq!(VariablesReadResponse::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    let Came::Body(bytes) = list(&mut world, &QueryOptions::default()) else { panic!() };
    assert_eq!(VariablesListResponse::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    let Came::Body(bytes) = apply(&mut world, &write("lock-acquire", "p")) else { panic!() };
    let mut meta_first = VariablesApplyResponse::from_bytes(&bytes).unwrap();
    assert!(meta_first.fence > 0);
    meta_first.fence = 0;
    let Came::Body(bytes) = apply(&mut world, &write("set", "q")) else { panic!() };
    assert!(!bytes.windows(5).any(|word| word == b"Fence"), "no extension where there is no fence");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No arguments make a handler or the state panic, and nothing is written in the open.
    #[test]
    fn any_write_is_answered(
        op in prop::sample::select(vec!["set", "cas", "delete", "delete-cas", "lock-acquire", "lock-release", "x"]),
        path in prop_oneof![Just("p".to_owned()), "\\PC{0,6}"],
        namespace in prop_oneof![Just(String::new()), "\\PC{0,3}"],
        given in prop::option::of(prop::collection::btree_map("[a-z]{0,3}", "secret[a-z]{0,3}", 0..3)),
        held in prop::option::of((prop::sample::select(vec!["", ID, OTHER_ID]), any::<i64>(), any::<i64>())),
        (fence, wait_time, modify_index) in any::<(u64, i64, u64)>(),
        owner in "\\PC{0,9}",
    ) {
        let mut world = world();
        applied(&mut world, &changed(write("lock-acquire", "p"), |var| var.lock = lock(ID)));
        let lock = held.map(|(id, ttl, lock_delay)| VariableLock { id: id.to_owned(), ttl, lock_delay });
        let var = Variable { namespace, path: path.clone(), lock, items: given, modify_index, ..Variable::default() };
        let request = VariablesApplyRequest { op: op.to_owned(), var: Some(var.clone()), fence, owner, wait_time, ..Default::default() };
        match apply(&mut world, &request) {
            Came::Body(bytes) => {
                let reply = VariablesApplyResponse::from_bytes(&bytes).unwrap();
                prop_assert!(matches!(reply.result.as_str(), "ok" | "conflict"), "{reply:?}");
            }
            Came::Error(text) => prop_assert!(!text.is_empty()),
            Came::Other(Outcome::Queue(queue)) => {
                prop_assert!(op == "lock-acquire" && wait_time > 0 && queue.wait <= Duration::from_secs(300));
            }
            other => prop_assert!(false, "{other:?}"),
        }
        let ops = vec![TxnOp { op: op.to_owned(), var: Some(var), fence }];
        world.call_bytes("Holdfast.VariablesTxn", &TxnRequest { ops, ..TxnRequest::default() }.to_bytes());
        for command in &world.written {
            let bytes = Entry { time_unix_nanos: NOW, session: None, command: command.clone() }.encode();
            prop_assert!(!bytes.windows(6).any(|word| word == b"secret"));
        }
        get(&mut world, &path, 0);
    }
}
