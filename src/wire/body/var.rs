//! Bodies of Variables.*, and of this project's own methods for locks and for writes to several variables.
//!
//! Source: endpoint notes, section 4. Fields that are extensions are `Fence`, `Owner`, `WaitTime`, `KeepItems`; other peers ignore
//! them, and they are written only by replies that differ from the peers' without them anyway, or when they are not 0.

use std::collections::BTreeMap;

use crate::wire::body::query::{QueryMeta, QueryOptions, WriteMeta, WriteRequest};
use crate::wire::msgpack::Raw;
use crate::wire_structs;

wire_structs! {
    /// A lock, as a variable carries it.
    pub struct VariableLock {
        /// A bearer secret; empty for whoever does not hold it.
        id: String = "ID",
        /// Nanoseconds.
        ttl: i64 = "TTL",
        /// Nanoseconds.
        lock_delay: i64 = "LockDelay",
    }
    /// A variable in a request. In replies it is written by hand, its items as they were sealed.
    pub struct Variable {
        /// Empty means the request's.
        namespace: String = "Namespace",
        /// The path.
        path: String = "Path",
        /// Its lock.
        lock: Option<VariableLock> = "Lock",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// Nanoseconds since the Unix epoch.
        create_time: i64 = "CreateTime",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
        /// Nanoseconds since the Unix epoch.
        modify_time: i64 = "ModifyTime",
        /// Names and values.
        items: Option<BTreeMap<String, String>> = "Items",
    }
    /// What a list shows of a variable, and what RenewLock answers: no items.
    pub struct VariableMetadata {
        /// Its namespace.
        namespace: String = "Namespace",
        /// The path.
        path: String = "Path",
        /// Its lock.
        lock: Option<VariableLock> = "Lock",
        /// When it was made.
        create_index: u64 = "CreateIndex",
        /// Nanoseconds since the Unix epoch.
        create_time: i64 = "CreateTime",
        /// When it last changed.
        modify_index: u64 = "ModifyIndex",
        /// Nanoseconds since the Unix epoch.
        modify_time: i64 = "ModifyTime",
    }
    /// Arguments of Variables.Apply.
    pub struct VariablesApplyRequest {
        /// `set`, `cas`, `delete`, `delete-cas`, `lock-acquire` or `lock-release`.
        op: String = "Op",
        /// The variable.
        var: Option<Variable> = "Var",
        /// Extension: above 0, refuse below this fence (R8.1).
        fence: u64 = "Fence",
        /// Extension: what people call whoever acquires the lock.
        owner: String = "Owner",
        /// Extension: nanoseconds that a lock-acquire waits for its turn; 0 answers at once (R8.28).
        wait_time: i64 = "WaitTime",
        /// Extension: a lock-acquire leaves the items of a variable that is there as they are, whatever it brings, so
        /// that its holder need not have read them before.
        keep_items: bool = "KeepItems",
        ..write: WriteRequest,
    }
    /// Reply of Variables.Apply, as clients read it. `Fence` is an extension, left out when 0.
    pub struct VariablesApplyResponse {
        /// As asked.
        op: String = "Op",
        /// As asked.
        input: Option<Variable> = "Input",
        /// `ok`, `conflict` or `conflict-redacted`.
        result: String = "Result",
        /// Always nil.
        error: Raw = "Error",
        /// What stood in the way.
        conflict: Option<Variable> = "Conflict",
        /// As written.
        output: Option<Variable> = "Output",
        /// Extension: the variable's fence after the write.
        fence: u64 = "Fence",
        ..meta: WriteMeta,
    }
    /// Arguments of Variables.Read.
    pub struct VariablesReadRequest {
        /// The path.
        path: String = "Path",
        ..query: QueryOptions,
    }
    /// Reply of Variables.Read, as clients read it.
    pub struct VariablesReadResponse {
        /// nil when there is none.
        data: Option<Variable> = "Data",
        ..meta: QueryMeta,
    }
    /// Reply of Variables.List.
    pub struct VariablesListResponse {
        /// In the order of namespace and path.
        data: Vec<VariableMetadata> = "Data",
        ..meta: QueryMeta,
    }
    /// Arguments of Variables.RenewLock.
    pub struct VariablesRenewLockRequest {
        /// The path.
        path: String = "Path",
        /// The lock's id.
        lock_id: String = "LockID",
        ..write: WriteRequest,
    }
    /// Reply of Variables.RenewLock.
    pub struct VariablesRenewLockResponse {
        /// The variable.
        var_meta: Option<VariableMetadata> = "VarMeta",
        ..meta: WriteMeta,
    }
    /// One write of a `Holdfast.VariablesTxn`.
    pub struct TxnOp {
        /// `set`, `cas`, `delete` or `delete-cas`.
        op: String = "Op",
        /// The variable.
        var: Option<Variable> = "Var",
        /// Above 0: refuse below this fence.
        fence: u64 = "Fence",
    }
    /// Arguments of `Holdfast.VariablesTxn`: all or nothing (R8.29).
    pub struct TxnRequest {
        /// In order; at most 64, each of another variable.
        ops: Vec<TxnOp> = "Ops",
        ..write: WriteRequest,
    }
    /// What became of one write of it.
    pub struct TxnResult {
        /// `ok`, `conflict`, `conflict-redacted`, or `skipped` beside a conflict.
        result: String = "Result",
        /// What stood in the way.
        conflict: Option<Variable> = "Conflict",
        /// As written; nil for deletes.
        output: Option<VariableMetadata> = "Output",
    }
    /// Reply of `Holdfast.VariablesTxn`.
    pub struct TxnResponse {
        /// `ok` when all was written, `conflict` when nothing was.
        result: String = "Result",
        /// One for each write.
        results: Vec<TxnResult> = "Results",
        ..meta: WriteMeta,
    }
    /// A lock, for whoever may see that it is held (capability `lock-read`, R8.10). Never its id.
    pub struct LockStub {
        /// The variable's namespace.
        namespace: String = "Namespace",
        /// Its path.
        path: String = "Path",
        /// Whether it is held; a fence outlives its lock.
        held: bool = "Held",
        /// What the holder is called.
        owner: String = "Owner",
        /// Nanoseconds since the Unix epoch when it was acquired.
        since: i64 = "Since",
        /// Nanoseconds since the Unix epoch when it ends unless it is renewed.
        deadline: i64 = "Deadline",
        /// Nanoseconds.
        ttl: i64 = "TTL",
        /// Nanoseconds.
        lock_delay: i64 = "LockDelay",
        /// Rises with each acquire and never repeats.
        fence: u64 = "Fence",
        /// Callers that wait for their turn, on the server that answers.
        waiters: u64 = "Waiters",
    }
    /// Reply of `Holdfast.LockList` (arguments: the options of a list).
    pub struct LockListResponse {
        /// In the order of namespace and path.
        locks: Vec<LockStub> = "Locks",
        ..meta: QueryMeta,
    }
    /// Arguments of `Holdfast.LockRead`.
    pub struct LockReadRequest {
        /// The variable's path.
        path: String = "Path",
        ..query: QueryOptions,
    }
    /// Reply of `Holdfast.LockRead`.
    pub struct LockReadResponse {
        /// nil when the variable is not there or never had a lock.
        lock: Option<LockStub> = "Lock",
        ..meta: QueryMeta,
    }
    /// Arguments of `Holdfast.LockBreak` (capability `destroy`).
    pub struct LockBreakRequest {
        /// The variable's path.
        path: String = "Path",
        ..write: WriteRequest,
    }
}
