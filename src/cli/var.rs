//! `holdfast var`: variables, read and written. Locks are in [`super::lock`].

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::base::time::format_rfc3339;
use crate::cli::args::{PutArgs, VarCommand};
use crate::cli::lock;
use crate::cli::output;
use crate::cli::private_file::PrivateFile;
use crate::cli::{Context, Exit, Failure, read_input};
use crate::wire::body::query::{GenericRequest, QueryOptions, WriteRequest};
use crate::wire::body::var::{
    TxnOp, TxnRequest, TxnResponse, Variable, VariableLock, VariableMetadata, VariablesApplyRequest,
    VariablesApplyResponse, VariablesListResponse, VariablesReadRequest, VariablesReadResponse,
};

/// Items of one page of a list.
const PAGE_ITEMS: i32 = 1000;

/// Runs one of them.
///
/// # Errors
/// The client's, a refused check, a variable that is not there.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &VarCommand) -> Result<Exit, Failure> {
    match command {
        VarCommand::Put(args) => put(context, out, args),
        VarCommand::Get { namespace, item, out: file, path } => {
            get(context, out, namespace, path, item.as_deref(), file.as_deref())
        }
        VarCommand::List { namespace, filter, prefix } => list(context, out, namespace, filter, prefix),
        VarCommand::Purge { namespace, check_index, path } => purge(context, out, namespace, *check_index, path),
        VarCommand::Txn { namespace, file } => txn(context, out, namespace, file),
        VarCommand::Lock(args) => lock::run(context, out, args),
    }
}

/// Options of a read of this namespace, by the leader.
pub(crate) fn query(context: &Context, namespace: &str) -> QueryOptions {
    QueryOptions { namespace: namespace.to_owned(), ..context.fresh_query() }
}

/// Options of a write to this namespace.
pub(crate) fn write(context: &Context, namespace: &str) -> WriteRequest {
    WriteRequest { namespace: namespace.to_owned(), ..context.write() }
}

fn put(context: &Context, out: &mut dyn Write, args: &PutArgs) -> Result<Exit, Failure> {
    let items = items_of(args)?;
    let lock = lock_id(args)?.map(|id| VariableLock { id, ..VariableLock::default() });
    let var = Variable {
        namespace: args.namespace.clone(),
        path: args.path.clone(),
        lock,
        modify_index: args.check_index.unwrap_or(0),
        items: Some(items),
        ..Variable::default()
    };
    let request = VariablesApplyRequest {
        op: if args.force { "set" } else { "cas" }.to_owned(),
        var: Some(var),
        fence: args.fence,
        write: write(context, &args.namespace),
        ..VariablesApplyRequest::default()
    };
    let reply: VariablesApplyResponse = context.client().call("Variables.Apply", &request)?;
    if reply.result != "ok" {
        return Err(Failure::Other(format!("{} was not written: {}", args.path, conflict(args, &reply))));
    }
    context.done(out, "Wrote", &args.path, reply.meta.index)
}

/// The id of the lock under which is written: of the file that was named, or of the lock that this process runs under
/// when it is that of this variable.
fn lock_id(args: &PutArgs) -> Result<Option<String>, Failure> {
    if let Some(file) = &args.lock_file {
        return Ok(Some(read_input(file)?.trim().to_owned()));
    }
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|held| held == value);
    let ours = is("HOLDFAST_LOCK_PATH", &args.path) && is("HOLDFAST_LOCK_NAMESPACE", &args.namespace);
    Ok(std::env::var("HOLDFAST_LOCK_ID").ok().filter(|id| ours && !id.is_empty()))
}

/// Why a write was refused, in words. A refusal that shows a variable is for its index or its fence, one that shows
/// none for its lock, or because there is none.
fn conflict(args: &PutArgs, reply: &VariablesApplyResponse) -> String {
    let there = reply.conflict.as_ref().map_or(0, |there| there.modify_index);
    match (there, args.check_index) {
        (0, Some(index)) if index > 0 && args.fence == 0 => {
            "it is not there any more, or it is locked by another; see \"holdfast var lock show\"".to_owned()
        }
        (0, _) if args.fence > 0 => {
            "a higher fence was seen there, or it is locked by another; see \"holdfast var lock show\"".to_owned()
        }
        (0, _) => "it is locked by another; see \"holdfast var lock show\"".to_owned(),
        (_, None) if args.force => format!("a higher fence than {} was seen there: the lock has passed on", args.fence),
        (there, None) => format!("it is there, with index {there}; see --check-index and --force"),
        (there, Some(index)) if there == index => {
            format!("a higher fence than {} was seen there: the lock has passed on", args.fence)
        }
        (there, Some(index)) => format!("its index is {there}, not {index}: read it again"),
    }
}

/// The items of a file and of the command line, which wins.
fn items_of(args: &PutArgs) -> Result<BTreeMap<String, String>, Failure> {
    let mut items = BTreeMap::new();
    if let Some(file) = &args.input {
        let text = read_input(file)?;
        items = serde_json::from_str::<BTreeMap<String, String>>(&text).map_err(|error| {
            Failure::Usage(format!("{}: an object of names and texts is wanted: {error}", file.display()))
        })?;
    }
    for pair in &args.items {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Failure::Usage(format!("{pair:?}: KEY=VALUE is wanted")));
        };
        let value = match value.strip_prefix('@') {
            Some(file) => read_input(Path::new(file))?,
            None if value == "-" => read_input(Path::new("-"))?,
            None => value.to_owned(),
        };
        items.insert(key.to_owned(), value);
    }
    if items.is_empty() {
        return Err(Failure::Usage("a variable has at least one item: KEY=VALUE, or --in".to_owned()));
    }
    Ok(items)
}

fn get(
    context: &Context,
    out: &mut dyn Write,
    namespace: &str,
    path: &str,
    item: Option<&str>,
    file: Option<&Path>,
) -> Result<Exit, Failure> {
    let request = VariablesReadRequest { path: path.to_owned(), query: query(context, namespace) };
    let reply: VariablesReadResponse = context.client().call("Variables.Read", &request)?;
    let var = reply
        .data
        .ok_or_else(|| Failure::Other(format!("there is no variable {path:?}; see \"holdfast var list\"")))?;
    let mut text = Vec::new();
    match item {
        Some(item) => {
            let value = var.items.as_ref().and_then(|items| items.get(item));
            let value = value.ok_or_else(|| Failure::Other(format!("{path} has no item {item:?}")))?;
            // As it is, for whoever reads it; a line's end only for people.
            text.extend_from_slice(value.as_bytes());
            if file.is_none() && context.is_terminal {
                text.push(b'\n');
            }
        }
        None if context.json => output::json(&mut text, &to_json(&var))?,
        None => print(&mut text, &var)?,
    }
    match file {
        None => out.write_all(&text)?,
        Some(file) => {
            let mut file = PrivateFile::create(file)?;
            file.write_all(&text)?;
            file.keep()?;
        }
    }
    Ok(Exit::Done)
}

fn print(out: &mut dyn Write, var: &Variable) -> Result<(), Failure> {
    output::pairs(
        out,
        &[
            ("Namespace", output::clean(&var.namespace)),
            ("Path", output::clean(&var.path)),
            ("Made", format!("{} (index {})", time(var.create_time), var.create_index)),
            ("Changed", format!("{} (index {})", time(var.modify_time), var.modify_index)),
        ],
    )?;
    Ok(output::map(out, "Items", var.items.as_ref())?)
}

/// Nanoseconds since the Unix epoch as text, in whole seconds.
pub(crate) fn time(unix_nanos: i64) -> String {
    if unix_nanos == 0 { "-".to_owned() } else { format_rfc3339(unix_nanos.div_euclid(1_000_000_000), 0) }
}

fn to_json(var: &Variable) -> Value {
    json!({
        "namespace": var.namespace, "path": var.path, "items": var.items, "create_index": var.create_index,
        "create_time": time(var.create_time), "modify_index": var.modify_index, "modify_time": time(var.modify_time),
    })
}

fn list(context: &Context, out: &mut dyn Write, namespace: &str, filter: &str, prefix: &str) -> Result<Exit, Failure> {
    let client = context.client();
    let mut all: Vec<VariableMetadata> = Vec::new();
    let mut next = String::new();
    loop {
        let asked = next.clone();
        let query = QueryOptions {
            prefix: prefix.to_owned(),
            filter: filter.to_owned(),
            per_page: PAGE_ITEMS,
            next_token: next,
            ..query(context, namespace)
        };
        let reply: VariablesListResponse = client.call("Variables.List", &GenericRequest { query })?;
        all.extend(reply.data);
        if reply.meta.next_token.is_empty() {
            break;
        }
        if reply.meta.next_token == asked {
            return Err(Failure::Other("the server gives the same page again and again".to_owned()));
        }
        next = reply.meta.next_token;
    }
    if context.json {
        let row = |var: &VariableMetadata| {
            json!({
                "namespace": var.namespace, "path": var.path, "create_index": var.create_index,
                "modify_index": var.modify_index, "modify_time": time(var.modify_time),
            })
        };
        output::json(out, &Value::from(all.iter().map(row).collect::<Vec<_>>()))?;
    } else {
        let mut rows = vec![["Namespace", "Path", "Index", "Changed"].map(str::to_owned).to_vec()];
        rows.extend(all.iter().map(|var| {
            vec![
                output::clean(&var.namespace),
                output::clean(&var.path),
                var.modify_index.to_string(),
                time(var.modify_time),
            ]
        }));
        output::table(out, &rows)?;
    }
    Ok(Exit::Done)
}

fn purge(
    context: &Context,
    out: &mut dyn Write,
    namespace: &str,
    check_index: Option<u64>,
    path: &str,
) -> Result<Exit, Failure> {
    let var = Variable {
        namespace: namespace.to_owned(),
        path: path.to_owned(),
        modify_index: check_index.unwrap_or(0),
        ..Variable::default()
    };
    let request = VariablesApplyRequest {
        op: if check_index.is_some() { "delete-cas" } else { "delete" }.to_owned(),
        var: Some(var),
        write: write(context, namespace),
        ..VariablesApplyRequest::default()
    };
    let reply: VariablesApplyResponse = context.client().call("Variables.Apply", &request)?;
    if reply.result != "ok" {
        return Err(Failure::Other(format!("{path} was not removed: {}", standing(&reply, check_index))));
    }
    context.done(out, "Removed", path, reply.meta.index)
}

/// Why a removal was refused, in words.
fn standing(reply: &VariablesApplyResponse, check_index: Option<u64>) -> String {
    match (reply.conflict.as_ref().map_or(0, |there| there.modify_index), check_index) {
        (0, Some(_)) => "it is not there, or it is locked; see \"holdfast var lock show\"".to_owned(),
        (0, None) => "it is locked; see \"holdfast var lock show\"".to_owned(),
        (there, _) => format!("its index is {there}: read it again"),
    }
}

fn txn(context: &Context, out: &mut dyn Write, namespace: &str, file: &Path) -> Result<Exit, Failure> {
    let text = read_input(file)?;
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", file.display()));
    let ops: Vec<Value> =
        serde_json::from_str(&text).map_err(|error| wrong(format!("a list of writes is wanted: {error}")))?;
    let ops = ops
        .iter()
        .enumerate()
        .map(|(nth, op)| txn_op(op, namespace).map_err(|what| wrong(format!("write {}: {what}", nth + 1))));
    let ops = ops.collect::<Result<Vec<_>, _>>()?;
    let paths: Vec<String> = ops.iter().filter_map(|op| op.var.as_ref().map(|var| var.path.clone())).collect();
    let request = TxnRequest { ops, write: write(context, namespace) };
    let reply: TxnResponse = context.client().call("Holdfast.VariablesTxn", &request)?;
    let results: Vec<(&String, &str)> = paths.iter().zip(reply.results.iter().map(|one| one.result.as_str())).collect();
    if context.json {
        let row = |(path, result): &(&String, &str)| json!({"path": path, "result": result});
        let rows: Vec<Value> = results.iter().map(row).collect();
        output::json(out, &json!({"result": reply.result, "index": reply.meta.index, "results": rows}))?;
    } else {
        let rows: Vec<_> =
            results.iter().map(|(path, result)| vec![output::clean(path), (*result).to_owned()]).collect();
        output::table(out, &rows)?;
    }
    if reply.result == "ok" {
        Ok(Exit::Done)
    } else {
        Err(Failure::Other(
            "nothing was written: another write came first, or a lock is held; read them again".to_owned(),
        ))
    }
}

/// One write of the file.
fn txn_op(op: &Value, namespace: &str) -> Result<TxnOp, String> {
    let var = op.get("Var").ok_or("it has no \"Var\"")?;
    let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |of: &Value, key: &str| of.get(key).and_then(Value::as_u64).unwrap_or(0);
    let items = match var.get("Items") {
        None | Some(Value::Null) => None,
        Some(items) => Some(
            serde_json::from_value::<BTreeMap<String, String>>(items.clone())
                .map_err(|error| format!("\"Items\": {error}"))?,
        ),
    };
    let lock = var.get("Lock").and_then(|lock| text(lock, "ID"));
    Ok(TxnOp {
        op: text(op, "Op").ok_or("it has no \"Op\"")?,
        fence: number(op, "Fence"),
        var: Some(Variable {
            namespace: text(var, "Namespace").unwrap_or_else(|| namespace.to_owned()),
            path: text(var, "Path").ok_or("its variable has no \"Path\"")?,
            modify_index: number(var, "ModifyIndex"),
            lock: lock.map(|id| VariableLock { id, ..VariableLock::default() }),
            items,
            ..Variable::default()
        }),
    })
}
