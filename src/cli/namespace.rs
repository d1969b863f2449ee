//! `holdfast namespace`: list, status, apply, delete.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::NamespaceCommand;
use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::namespace::{
    Namespace, NamespaceDeleteRequest, NamespaceListResponse, NamespaceSpecificRequest, NamespaceUpsertRequest,
    SingleNamespaceResponse,
};
use crate::wire::body::query::{GenericRequest, GenericResponse, QueryOptions};

/// Runs one of them.
///
/// # Errors
/// The client's, and a namespace that is not there.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &NamespaceCommand) -> Result<Exit, Failure> {
    match command {
        NamespaceCommand::List { prefix } => list(context, out, prefix),
        NamespaceCommand::Status { name } => status(context, out, name),
        NamespaceCommand::Apply { description, meta, name } => apply(context, out, name, description.as_ref(), meta),
        NamespaceCommand::Delete { name } => {
            let request = NamespaceDeleteRequest { namespaces: vec![name.clone()], write: context.write() };
            let reply: GenericResponse = context.client().call("Namespace.DeleteNamespaces", &request)?;
            context.done(out, "Removed", name, reply.meta.index)
        }
    }
}

fn list(context: &Context, out: &mut dyn Write, prefix: &str) -> Result<Exit, Failure> {
    let query = QueryOptions { prefix: prefix.to_owned(), ..context.query() };
    let reply: NamespaceListResponse = context.client().call("Namespace.ListNamespaces", &GenericRequest { query })?;
    if context.json {
        output::json(out, &Value::from(reply.namespaces.iter().map(to_json).collect::<Vec<_>>()))?;
    } else {
        let mut rows = vec![["Name", "Description"].map(str::to_owned).to_vec()];
        let row = |one: &Namespace| vec![output::clean(&one.name), output::or_dash(&one.description)];
        rows.extend(reply.namespaces.iter().map(row));
        output::table(out, &rows)?;
    }
    Ok(Exit::Done)
}

fn fetch(context: &Context, name: &str) -> Result<Option<Namespace>, Failure> {
    let request = NamespaceSpecificRequest { name: name.to_owned(), query: context.query() };
    let reply: SingleNamespaceResponse = context.client().call("Namespace.GetNamespace", &request)?;
    Ok(reply.namespace)
}

fn status(context: &Context, out: &mut dyn Write, name: &str) -> Result<Exit, Failure> {
    let one = fetch(context, name)?.ok_or_else(|| Failure::Other(format!("there is no namespace {name:?}")))?;
    if context.json {
        output::json(out, &to_json(&one))?;
        return Ok(Exit::Done);
    }
    output::pairs(
        out,
        &[
            ("Name", output::clean(&one.name)),
            ("Description", output::or_dash(&one.description)),
            ("Made at index", one.create_index.to_string()),
            ("Changed at index", one.modify_index.to_string()),
        ],
    )?;
    output::map(out, "Meta", one.meta.as_ref())?;
    Ok(Exit::Done)
}

/// What is not said stays as it is.
fn apply(
    context: &Context,
    out: &mut dyn Write,
    name: &str,
    description: Option<&String>,
    meta: &[String],
) -> Result<Exit, Failure> {
    let mut one = fetch(context, name)?.unwrap_or_else(|| Namespace { name: name.to_owned(), ..Namespace::default() });
    if let Some(description) = description {
        one.description.clone_from(description);
    }
    if !meta.is_empty() {
        let pair = |text: &String| match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Failure::Usage(format!("--meta {text:?}: KEY=VALUE is wanted"))),
        };
        one.meta = Some(meta.iter().map(pair).collect::<Result<BTreeMap<_, _>, _>>()?);
    }
    let request = NamespaceUpsertRequest { namespaces: vec![one], write: context.write() };
    let reply: GenericResponse = context.client().call("Namespace.UpsertNamespaces", &request)?;
    context.done(out, "Applied", name, reply.meta.index)
}

fn to_json(one: &Namespace) -> Value {
    json!({
        "name": one.name, "description": one.description, "meta": one.meta, "create_index": one.create_index,
        "modify_index": one.modify_index,
    })
}
