//! `holdfast operator keyring`: list, rotate, remove.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::KeyringCommand;
use crate::cli::output;
use crate::cli::var::time;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::keyring::{
    KeyringDeleteRequest, KeyringListResponse, KeyringRotateRequest, KeyringRotateResponse, RootKeyMeta,
};
use crate::wire::body::query::{GenericRequest, GenericResponse};

/// Runs one of them.
///
/// # Errors
/// The client's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &KeyringCommand) -> Result<Exit, Failure> {
    match command {
        KeyringCommand::List => {
            let request = GenericRequest { query: context.query() };
            let reply: KeyringListResponse = context.client().call("Keyring.List", &request)?;
            show(context, out, &reply.keys)
        }
        KeyringCommand::Rotate { full } => {
            let request =
                KeyringRotateRequest { full: *full, write: context.write(), ..KeyringRotateRequest::default() };
            let reply: KeyringRotateResponse = context.client().call("Keyring.Rotate", &request)?;
            show(context, out, &reply.key.into_iter().collect::<Vec<_>>())
        }
        KeyringCommand::Remove { key_id } => {
            let request = KeyringDeleteRequest { key_id: key_id.clone(), write: context.write() };
            let reply: GenericResponse = context.client().call("Keyring.Delete", &request)?;
            // Nothing was written: there was nothing to forget.
            if reply.meta.index == 0 {
                let text = format!("there is no key {key_id:?}; see \"holdfast operator keyring list\"");
                return Err(Failure::Other(text));
            }
            context.done(out, "Removed", key_id, reply.meta.index)
        }
    }
}

fn show(context: &Context, out: &mut dyn Write, keys: &[RootKeyMeta]) -> Result<Exit, Failure> {
    if context.json {
        let row = |key: &RootKeyMeta| json!({"id": key.key_id, "state": key.state, "created": time(key.create_time)});
        output::json(out, &Value::from(keys.iter().map(row).collect::<Vec<_>>()))?;
    } else {
        let mut rows = vec![["ID", "State", "Created"].map(str::to_owned).to_vec()];
        let row =
            |key: &RootKeyMeta| vec![output::clean(&key.key_id), output::clean(&key.state), time(key.create_time)];
        rows.extend(keys.iter().map(row));
        output::table(out, &rows)?;
    }
    Ok(Exit::Done)
}
