//! Variables and locks in the world: what clients ask about them, how that is written and read back. Knows no
//! connection.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::api::seal::{Sealer, SealingKey};
use crate::wire::body::query::{GenericRequest, QueryOptions, WriteRequest};
use crate::wire::body::var::{
    TxnOp, TxnRequest, TxnResponse, Variable, VariableLock, VariablesApplyRequest, VariablesApplyResponse,
    VariablesListResponse, VariablesReadRequest, VariablesReadResponse, VariablesRenewLockRequest,
    VariablesRenewLockResponse,
};
use crate::wire::entry::var::{Sealed, VarOpKind};
use crate::wire::msgpack::Msg;

use super::options::REGION;

/// The paths of the world; locks are taken on the last two.
pub const PATHS: [&str; 6] = ["app/a", "app/b", "app", "web", "lock/x", "lock/y"];
/// Prefixes that are listed.
pub(super) const PREFIXES: [&str; 4] = ["", "app", "app/", "lock/"];
/// The first path with a lock.
pub(super) const FIRST_LOCK: usize = 4;
/// The namespace of all of it.
pub const NAMESPACE: &str = "default";
/// The item whose value is the nonce.
const ITEM: &str = "nonce";

/// A path, by its place in [`PATHS`].
pub type PathNumber = usize;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VarWrite {
    /// What it does.
    pub kind: VarOpKind,
    /// To which.
    pub path: PathNumber,
    /// The item's value; 0 for no items.
    pub nonce: u64,
    /// The ModifyIndex that it demands.
    pub check: u64,
    /// The lock's id.
    pub lock_id: String,
    /// Of a lock that is taken.
    pub ttl: Duration,
    /// Of a lock that is taken.
    pub delay: Duration,
    /// The fence that it demands.
    pub fence: u64,
    /// How long a lock-acquire waits for its turn.
    pub wait: Duration,
}

/// What was asked about variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VarAsked {
    /// Variables.Apply.
    Apply(VarWrite),
    /// Holdfast.VariablesTxn.
    Txn(Vec<VarWrite>),
    /// Variables.RenewLock.
    Renew {
        /// Of which.
        path: PathNumber,
        /// The lock's id.
        lock_id: String,
    },
    /// Variables.Read.
    Read {
        /// Which.
        path: PathNumber,
        /// MinQueryIndex.
        min: u64,
        /// MaxQueryTime, nanoseconds.
        wait_nanos: u64,
    },
    /// Variables.Read of whatever the server holds that is asked.
    Glance {
        /// Which.
        path: PathNumber,
    },
    /// Variables.List.
    List {
        /// How the paths begin.
        prefix: &'static str,
        /// MinQueryIndex.
        min: u64,
        /// MaxQueryTime, nanoseconds.
        wait_nanos: u64,
    },
}

/// A variable as a reply showed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenVar {
    /// Its ModifyIndex.
    pub modify_index: u64,
    /// The item's value; 0 for no items.
    pub nonce: u64,
    /// Whether it is locked.
    pub locked: bool,
}

/// What was answered about variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VarAnswered {
    /// Writes at this index: whether they were done, and the fence of the first where it has one.
    Written {
        /// The index.
        index: u64,
        /// Not a conflict.
        ok: bool,
        /// The variable's fence.
        fence: u64,
    },
    /// The lock was renewed.
    Renewed,
    /// The index, and the variable if there is one.
    Read(u64, Option<SeenVar>),
    /// The same from any server.
    Glanced {
        /// The index.
        index: u64,
        /// The variable, if there is one.
        seen: Option<SeenVar>,
        /// When the server last heard its leader, it says.
        last_contact: Duration,
    },
    /// The index, and the ModifyIndex of each.
    List(u64, BTreeMap<PathNumber, u64>),
}

impl VarAsked {
    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        matches!(self, VarAsked::Apply(_) | VarAsked::Txn(_) | VarAsked::Renew { .. })
    }

    /// MinQueryIndex and MaxQueryTime in nanoseconds of a read.
    pub fn query(&self) -> Option<(u64, u64)> {
        match self {
            VarAsked::Read { min, wait_nanos, .. } | VarAsked::List { min, wait_nanos, .. } => {
                Some((*min, *wait_nanos))
            }
            _ => None,
        }
    }

    /// How long the server may take by the caller's own wish.
    pub fn wait(&self) -> Duration {
        match self {
            VarAsked::Apply(write) => write.wait,
            other => other.query().map_or(Duration::ZERO, |(_, nanos)| Duration::from_nanos(nanos / 16 * 17)),
        }
    }

    /// All of its writes.
    pub fn all_writes(&self) -> &[VarWrite] {
        match self {
            VarAsked::Apply(write) => std::slice::from_ref(write),
            VarAsked::Txn(writes) => writes,
            _ => &[],
        }
    }

    /// Whether a change of this path concerns it.
    pub fn reads(&self, path: &str) -> bool {
        match self {
            VarAsked::Read { path: own, .. } => PATHS.get(*own) == Some(&path),
            VarAsked::List { prefix, .. } => path.starts_with(prefix),
            _ => false,
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn variable(write: &VarWrite) -> Variable {
    let lock = VariableLock { id: write.lock_id.clone(), ttl: nanos(write.ttl), lock_delay: nanos(write.delay) };
    Variable {
        namespace: NAMESPACE.to_owned(),
        path: PATHS.get(write.path).copied().unwrap_or_default().to_owned(),
        lock: (!write.lock_id.is_empty()).then_some(lock),
        modify_index: write.check,
        items: (write.nonce > 0).then(|| BTreeMap::from([(ITEM.to_owned(), write.nonce.to_string())])),
        ..Variable::default()
    }
}

/// Method and body.
pub fn request(asked: &VarAsked) -> (&'static str, Vec<u8>) {
    let write = || WriteRequest { region: REGION.to_owned(), ..WriteRequest::default() };
    let query = |min: u64, wait_nanos: u64, prefix: &str| QueryOptions {
        region: REGION.to_owned(),
        min_query_index: min,
        max_query_time: i64::try_from(wait_nanos).unwrap_or(i64::MAX),
        prefix: prefix.to_owned(),
        ..QueryOptions::default()
    };
    let path_of = |path: &PathNumber| PATHS.get(*path).copied().unwrap_or_default().to_owned();
    match asked {
        VarAsked::Apply(one) => {
            let request = VariablesApplyRequest {
                op: one.kind.as_word().to_owned(),
                var: Some(variable(one)),
                fence: one.fence,
                wait_time: nanos(one.wait),
                write: write(),
                ..VariablesApplyRequest::default()
            };
            ("Variables.Apply", request.to_bytes())
        }
        VarAsked::Txn(writes) => {
            let op = |one: &VarWrite| TxnOp {
                op: one.kind.as_word().to_owned(),
                var: Some(variable(one)),
                fence: one.fence,
            };
            let request = TxnRequest { ops: writes.iter().map(op).collect(), write: write() };
            ("Holdfast.VariablesTxn", request.to_bytes())
        }
        VarAsked::Renew { path, lock_id } => {
            let request = VariablesRenewLockRequest { path: path_of(path), lock_id: lock_id.clone(), write: write() };
            ("Variables.RenewLock", request.to_bytes())
        }
        VarAsked::Read { path, min, wait_nanos } => {
            let request = VariablesReadRequest { path: path_of(path), query: query(*min, *wait_nanos, "") };
            ("Variables.Read", request.to_bytes())
        }
        VarAsked::Glance { path } => {
            let query = QueryOptions { allow_stale: true, ..query(0, 0, "") };
            ("Variables.Read", VariablesReadRequest { path: path_of(path), query }.to_bytes())
        }
        VarAsked::List { prefix, min, wait_nanos } => {
            ("Variables.List", GenericRequest { query: query(*min, *wait_nanos, prefix) }.to_bytes())
        }
    }
}

/// Reads the answer.
///
/// # Errors
/// A body that no server gives to this request: says why.
pub fn answer(asked: &VarAsked, body: &[u8]) -> Result<VarAnswered, String> {
    let wrong = |error: crate::wire::msgpack::DecodeError| format!("the answer to {asked:?}: {error}");
    match asked {
        VarAsked::Apply(_) => {
            let reply = VariablesApplyResponse::from_bytes(body).map_err(wrong)?;
            Ok(VarAnswered::Written { index: reply.meta.index, ok: reply.result == "ok", fence: reply.fence })
        }
        VarAsked::Txn(writes) => {
            let reply = TxnResponse::from_bytes(body).map_err(wrong)?;
            if reply.results.len() != writes.len() {
                return Err(format!("the answer to {asked:?} has {} results", reply.results.len()));
            }
            Ok(VarAnswered::Written { index: reply.meta.index, ok: reply.result == "ok", fence: 0 })
        }
        VarAsked::Renew { .. } => {
            VariablesRenewLockResponse::from_bytes(body).map(|_| VarAnswered::Renewed).map_err(wrong)
        }
        VarAsked::Read { path, .. } => {
            let reply = VariablesReadResponse::from_bytes(body).map_err(wrong)?;
            Ok(VarAnswered::Read(reply.meta.index, seen_in(*path, reply.data)?))
        }
        VarAsked::Glance { path } => {
            let reply = VariablesReadResponse::from_bytes(body).map_err(wrong)?;
            let last_contact = Duration::from_nanos(u64::try_from(reply.meta.last_contact).unwrap_or(0));
            Ok(VarAnswered::Glanced { index: reply.meta.index, seen: seen_in(*path, reply.data)?, last_contact })
        }
        VarAsked::List { prefix, .. } => {
            let reply = VariablesListResponse::from_bytes(body).map_err(wrong)?;
            let mut vars = BTreeMap::new();
            for var in reply.data {
                let number = PATHS.iter().position(|path| *path == var.path && path.starts_with(prefix));
                let number = number.ok_or_else(|| format!("a list of {prefix:?} holds {}", var.path))?;
                vars.insert(number, var.modify_index);
            }
            Ok(VarAnswered::List(reply.meta.index, vars))
        }
    }
}

fn seen_in(path: PathNumber, var: Option<Variable>) -> Result<Option<SeenVar>, String> {
    match var {
        None => Ok(None),
        Some(var) if Some(&var.path.as_str()) != PATHS.get(path) => {
            Err(format!("a read of {:?} was answered with {}", PATHS.get(path), var.path))
        }
        Some(var) => Ok(Some(SeenVar {
            modify_index: var.modify_index,
            nonce: var.items.as_ref().map_or(0, nonce_in),
            locked: var.lock.is_some(),
        })),
    }
}

fn nonce_in(items: &BTreeMap<String, String>) -> u64 {
    items.get(ITEM).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The world's own key ring: a key's secret is its id.
pub fn sealer(key_id: &str) -> Option<Sealer> {
    Sealer::new(vec![SealingKey::derive(key_id, key_id.as_bytes()).ok()?], key_id)
}

/// The nonce in the items of an entry; 0 for no items.
pub fn sealed_nonce(path: &str, sealed: Option<&Sealed>) -> Option<u64> {
    let Some(sealed) = sealed else { return Some(0) };
    let plain = sealer(&sealed.key_id)?.open(NAMESPACE, path, sealed).ok()?;
    let items: BTreeMap<String, String> = Msg::from_bytes(&plain).ok()?;
    Some(nonce_in(&items))
}
