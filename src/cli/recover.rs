//! `holdfast operator recover`: begins a cluster anew from the folder of one stopped server. Calls no server.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::edge::recover;
use crate::edge::recover::{Dropped, Plan};

/// Says what would be done, and does it with `yes`.
///
/// # Errors
/// A folder that is in use, is damaged, or is not a server's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, data_dir: &Path, yes: bool) -> Result<Exit, Failure> {
    let plan = recover::plan(data_dir).map_err(Failure::Other)?;
    let mut told = to_json(&plan);
    if !context.json {
        print(out, &plan)?;
        // What is done next cannot be undone: it is said before, whatever happens then.
        out.flush()?;
    }
    if !yes {
        if context.json {
            output::json(out, &told)?;
        } else {
            writeln!(out, "\nNothing was changed. With --yes it is done.")?;
        }
        return Ok(Exit::Done);
    }
    let done = recover::perform(plan).map_err(Failure::Other)?;
    if context.json {
        if let Value::Object(fields) = &mut told {
            fields.insert("done".to_owned(), json!({ "cluster_id": done.cluster_id, "index": done.index.0 }));
        }
        output::json(out, &told)?;
    } else {
        writeln!(out, "\nDone: cluster {}, index {}.", output::clean(&done.cluster_id), done.index.0)?;
        writeln!(out, "Start this server, then others with empty data folders.")?;
    }
    Ok(Exit::Done)
}

fn to_json(plan: &Plan) -> Value {
    let dropped = |one: &Dropped| {
        json!({
            "id": one.server_id, "replica": one.replica.0, "name": one.name, "address": one.rpc_addr, "voter": one.voter,
        })
    };
    json!({
        "server": plan.server_id, "cluster_id": plan.cluster_id, "last_index": plan.last.0,
        "last_term": plan.last_term.0, "committed": plan.committed.0, "uncertain": plan.uncertain(),
        "dropped": plan.dropped.iter().map(dropped).collect::<Vec<_>>(), "warnings": plan.warnings,
    })
}

fn print(out: &mut dyn Write, plan: &Plan) -> Result<(), Failure> {
    output::pairs(
        out,
        &[
            ("Server", output::clean(&plan.server_id)),
            ("Cluster", output::or_dash(&plan.cluster_id)),
            ("Log", format!("to index {}, term {}; committed to {}", plan.last.0, plan.last_term.0, plan.committed.0)),
        ],
    )?;
    for warning in &plan.warnings {
        writeln!(out, "Warning: {}", output::clean(warning))?;
    }
    writeln!(out, "\nThis server becomes the only member of a cluster with a new id.")?;
    if plan.uncertain() > 0 {
        writeln!(out, "Kept, although it is not known here that a majority had them: {} entries.", plan.uncertain())?;
    }
    writeln!(out, "Lost: whatever was written after index {}, if only the others have it.", plan.last.0)?;
    if plan.dropped.is_empty() {
        writeln!(out, "No other member is dropped.")?;
        return Ok(());
    }
    writeln!(out, "Dropped, and never let in again with the data they have:\n")?;
    let mut rows = vec![["ID", "Name", "Address", "Voter"].map(str::to_owned).to_vec()];
    rows.extend(plan.dropped.iter().map(|one| {
        // A member that the table of servers does not know has raft's name only.
        let id =
            if one.server_id.is_empty() { format!("{:016x}", one.replica.0) } else { output::clean(&one.server_id) };
        let voter = if one.voter { "yes" } else { "no" }.to_owned();
        vec![id, output::or_dash(&one.name), output::or_dash(&one.rpc_addr), voter]
    }));
    output::table(out, &rows)?;
    Ok(())
}
