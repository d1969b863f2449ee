//! Several variables written at once: all of them, or none (R8.29).

use proptest::prelude::*;

use super::variables::{applied, changed, get, items, world, write};
use super::*;
use crate::wire::body::var::{TxnOp, TxnRequest, TxnResponse, VariablesApplyRequest, VariablesReadResponse};

fn txn(world: &mut World, ops: Vec<VariablesApplyRequest>) -> Came {
    let ops = ops.into_iter().map(|op| TxnOp { op: op.op, var: op.var, fence: op.fence }).collect();
    world.call_bytes("Holdfast.VariablesTxn", &TxnRequest { ops, ..TxnRequest::default() }.to_bytes())
}

fn cas(path: &str, index: u64, value: u64) -> VariablesApplyRequest {
    changed(write("cas", path), |var| (var.modify_index, var.items) = (index, items(&[("n", &value.to_string())])))
}

/// R8.29
#[test]
fn several_writes_happen_or_none() {
    let mut world = world();
    let reply: TxnResponse = txn(&mut world, vec![cas("a", 0, 5), write("set", "b"), write("delete", "c")]).body();
    assert_eq!((reply.result.as_str(), reply.meta.index, reply.results.len()), ("ok", 1, 3));
    assert!(reply.results.iter().all(|one| one.result == "ok" && one.conflict.is_none()));
    let output = reply.results[0].output.clone().unwrap();
    assert_eq!((output.path.as_str(), output.create_index, output.modify_index), ("a", 1, 1));
    assert_eq!(reply.results[2].output, None);

    let reply: TxnResponse = txn(&mut world, vec![cas("a", 1, 6), cas("b", 9, 6), write("delete", "c")]).body();
    let results: Vec<&str> = reply.results.iter().map(|one| one.result.as_str()).collect();
    assert_eq!((reply.result.as_str(), results), ("conflict", vec!["skipped", "conflict", "skipped"]));
    let conflict = reply.results[1].conflict.clone().unwrap();
    assert_eq!((conflict.modify_index, conflict.items), (1, items(&[("k", "v")])));
    let read: VariablesReadResponse = get(&mut world, "a", 0).body();
    assert_eq!(read.data.unwrap().items, items(&[("n", "5")]));
}

#[test]
fn several_writes_are_checked_each() {
    let mut world = world();
    let twice = vec![write("set", "a"), write("set", "b"), write("delete", "a")];
    let many = (0..65).map(|nth| write("set", &format!("p{nth}"))).collect();
    let nil = VariablesApplyRequest { var: None, ..write("set", "a") };
    for (ops, text) in [
        (vec![], "RPC Error:: 400,no writes were given"),
        (many, "RPC Error:: 400,65 writes were given, 64 is the limit"),
        (twice, "RPC Error:: 400,write 3: a in namespace default is written twice"),
        (vec![write("set", "a"), write("set", "")], "RPC Error:: 400,write 2: variable requires path"),
        (vec![write("lock-acquire", "a")], "RPC Error:: 400,write 1: lock-acquire cannot be one write of several"),
        (vec![write("lock-release", "a")], "RPC Error:: 400,write 1: lock-release cannot be one write of several"),
        (vec![write("frob", "a")], "write 1: svPreApply: unexpected VarOp received: \"frob\""),
        (vec![write("set", "b"), nil], "write 2: variable must not be nil"),
    ] {
        assert_eq!(txn(&mut world, ops).error(), text);
    }
    assert_eq!(world.written, []);
    let most: Vec<_> = (0..64).map(|nth| write("set", &format!("p{nth}"))).collect();
    let reply: TxnResponse = txn(&mut world, most).body();
    assert_eq!((reply.results.len(), world.state.var_count(), world.written.len()), (64, 64, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// R8.29: transfers between accounts, each seen by its writer some writes ago, keep the sum.
    #[test]
    fn transfers_keep_the_sum(transfers in prop::collection::vec((0..4_usize, 0..4_usize, 0..40_u64, 0..3_usize), 1..40)) {
        let mut world = world();
        let names = ["a", "b", "c", "d"];
        for name in names {
            prop_assert_eq!(applied(&mut world, &cas(name, 0, 100)).result, "ok");
        }
        let balance = |world: &mut World, name: &str| {
            let read: VariablesReadResponse = get(world, name, 0).body();
            let var = read.data.unwrap();
            (var.modify_index, var.items.unwrap()["n"].parse::<u64>().unwrap())
        };
        let look = |world: &mut World| names.map(|name| balance(world, name));
        let mut seen = vec![look(&mut world)];
        for (from, to, amount, age) in transfers {
            if from == to {
                continue;
            }
            let known = seen[seen.len().saturating_sub(1 + age)];
            let amount = amount.min(known[from].1);
            let ops = vec![
                cas(names[from], known[from].0, known[from].1 - amount),
                cas(names[to], known[to].0, known[to].1 + amount),
            ];
            let reply: TxnResponse = txn(&mut world, ops).body();
            let now = look(&mut world);
            let fresh = known[from] == seen[seen.len() - 1][from] && known[to] == seen[seen.len() - 1][to];
            prop_assert_eq!(reply.result == "ok", fresh);
            prop_assert_eq!(now.iter().map(|(_, amount)| amount).sum::<u64>(), 400);
            seen.push(now);
        }
    }
}
