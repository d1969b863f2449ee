//! `holdfast node list` and `holdfast node status`.

use std::io::Write;

use serde_json::{Value, json};

use crate::base::time;
use crate::cli::args::NodeCommand;
use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::client::Client;
use crate::client::body::Node;
use crate::wire::body::node::{NodeEvent, go_zero_time};
use crate::wire::body::node_call::{NodeListItem, NodeListResponse, NodeSpecificRequest, SingleNodeResponse};
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::msgpack::{Bytes, Msg};

/// Characters of a whole node id.
const ID_LEN: usize = 36;
/// Seconds from year 1, where Go counts from, to 1970.
const GO_EPOCH_SECONDS: i64 = 62_135_596_800;

/// Runs one of the two.
///
/// # Errors
/// The client's, and a node that is not there.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &NodeCommand) -> Result<Exit, Failure> {
    match command {
        NodeCommand::List { prefix } => list(context, out, prefix),
        NodeCommand::Status { id } => status(context, out, id),
    }
}

fn list(context: &Context, out: &mut dyn Write, prefix: &str) -> Result<Exit, Failure> {
    let nodes = nodes_with(context, &mut context.client(), prefix)?;
    if context.json {
        output::json(out, &Value::from(nodes.iter().map(stub_json).collect::<Vec<_>>()))?;
    } else {
        print_stubs(out, &nodes)?;
    }
    Ok(Exit::Done)
}

/// Nodes whose id begins with `prefix`, by id.
///
/// Go servers take whole bytes of hexadecimal only, so the server is asked for as much of the prefix as that is, and
/// the rest is compared here.
fn nodes_with(context: &Context, client: &mut Client, prefix: &str) -> Result<Vec<NodeListItem>, Failure> {
    let prefix = prefix.to_ascii_lowercase();
    if let Some(odd) = prefix.chars().find(|c| !c.is_ascii_hexdigit() && *c != '-') {
        return Err(Failure::Usage(format!("{odd:?} is in no node id: it is made of hexadecimal digits and hyphens")));
    }
    let query = QueryOptions { prefix: whole_bytes(&prefix), ..context.query() };
    let mut list: NodeListResponse = client.call("Node.List", &GenericRequest { query })?;
    list.nodes.retain(|node| node.id.starts_with(&prefix));
    Ok(list.nodes)
}

/// As much of a prefix as has an even number of digits.
fn whole_bytes(prefix: &str) -> String {
    let mut asked = prefix.to_owned();
    while asked.chars().filter(char::is_ascii_hexdigit).count() % 2 == 1 {
        asked.pop();
    }
    asked
}

fn status(context: &Context, out: &mut dyn Write, id: &str) -> Result<Exit, Failure> {
    let mut client = context.client();
    let id = if id.len() == ID_LEN {
        id.to_ascii_lowercase()
    } else {
        match nodes_with(context, &mut client, id)?.as_slice() {
            [] => return Err(Failure::Other(format!("no node's id begins with {id:?}"))),
            [only] => only.id.clone(),
            several => return ambiguous(context, out, id, several),
        }
    };
    let request = NodeSpecificRequest { node_id: id.clone(), secret_id: String::new(), query: context.query() };
    let reply: SingleNodeResponse = client.call("Node.GetNode", &request)?;
    if reply.node.is_nil() {
        return Err(Failure::Other(format!("there is no node {id:?}")));
    }
    let node =
        Node::from_bytes(&reply.node.0).map_err(|error| Failure::Other(format!("the node cannot be read: {error}")))?;
    if context.json {
        output::json(out, &node_json(&node))?;
    } else {
        print_node(out, &node)?;
    }
    Ok(Exit::Done)
}

/// Lists the candidates, as the result, and fails.
fn ambiguous(context: &Context, out: &mut dyn Write, id: &str, several: &[NodeListItem]) -> Result<Exit, Failure> {
    if context.json {
        output::json(out, &Value::from(several.iter().map(stub_json).collect::<Vec<_>>()))?;
    } else {
        print_stubs(out, several)?;
    }
    Err(Failure::Other(format!("{} nodes have ids that begin with {id:?}", several.len())))
}

fn print_stubs(out: &mut dyn Write, nodes: &[NodeListItem]) -> Result<(), Failure> {
    let head = ["ID", "Name", "Address", "Datacenter", "Pool", "Class", "Version", "Drain", "Eligibility", "Status"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    // Short ids when they tell the nodes apart: they are sorted, so equal ones are neighbours.
    let apart = nodes.windows(2).all(|pair| match pair {
        [one, next] => output::short_id(&one.id) != output::short_id(&next.id),
        _ => true,
    });
    for node in nodes {
        rows.push(vec![
            if apart { output::short_id(&node.id) } else { output::clean(&node.id) },
            output::or_dash(&node.name),
            output::or_dash(&node.address),
            output::or_dash(&node.datacenter),
            output::or_dash(&node.node_pool),
            output::or_dash(&node.node_class),
            output::or_dash(&node.version),
            yes_no(node.drain),
            output::or_dash(&node.scheduling_eligibility),
            output::or_dash(&node.status),
        ]);
    }
    Ok(output::table(out, &rows)?)
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn stub_json(node: &NodeListItem) -> Value {
    json!({
        "id": node.id, "name": node.name, "address": node.address, "datacenter": node.datacenter,
        "node_pool": node.node_pool, "node_class": node.node_class, "version": node.version, "drain": node.drain,
        "eligibility": node.scheduling_eligibility, "status": node.status,
        "status_description": node.status_description, "create_index": node.create_index,
        "modify_index": node.modify_index,
    })
}

fn print_node(out: &mut dyn Write, node: &Node) -> Result<(), Failure> {
    output::pairs(
        out,
        &[
            ("ID", output::clean(&node.id)),
            ("Name", output::or_dash(&node.name)),
            ("Agent", output::or_dash(&node.http_addr)),
            ("Datacenter", output::or_dash(&node.datacenter)),
            ("Pool", output::or_dash(&node.node_pool)),
            ("Class", output::or_dash(&node.node_class)),
            ("Status", output::or_dash(&node.status)),
            ("Since", time::format_rfc3339(node.status_updated_at, 0)),
            ("Eligibility", output::or_dash(&node.scheduling_eligibility)),
            ("Drain", yes_no(!node.drain.is_nil())),
            ("Registered at index", node.create_index.to_string()),
            ("Changed at index", node.modify_index.to_string()),
        ],
    )?;
    for (title, map) in [("Attributes", &node.attributes), ("Meta", &node.meta)] {
        if !map.is_empty() {
            writeln!(out, "\n{title}")?;
            let rows: Vec<_> = map.iter().map(|(key, value)| vec![output::clean(key), output::clean(value)]).collect();
            output::table(out, &rows)?;
        }
    }
    if !node.events.is_empty() {
        writeln!(out, "\nEvents")?;
        let row = |event: &NodeEvent| {
            vec![go_time_text(&event.timestamp), output::or_dash(&event.subsystem), output::clean(&event.message)]
        };
        output::table(out, &node.events.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn node_json(node: &Node) -> Value {
    let event = |event: &NodeEvent| json!({"time": go_time_text(&event.timestamp), "subsystem": event.subsystem, "message": event.message});
    json!({
        "id": node.id, "name": node.name, "agent": node.http_addr, "datacenter": node.datacenter,
        "node_pool": node.node_pool, "node_class": node.node_class, "status": node.status,
        "status_description": node.status_description,
        "status_updated_at": time::format_rfc3339(node.status_updated_at, 0),
        "eligibility": node.scheduling_eligibility, "drain": !node.drain.is_nil(),
        "attributes": node.attributes, "meta": node.meta,
        "events": node.events.iter().map(event).collect::<Vec<_>>(),
        "create_index": node.create_index, "modify_index": node.modify_index,
    })
}

/// Go's binary time as text; its zone is not shown, the instant is the same in UTC.
fn go_time_text(time: &Bytes) -> String {
    let read = || {
        let seconds = i64::from_be_bytes(time.0.get(1..9)?.try_into().ok()?);
        let nanos = u32::from_be_bytes(time.0.get(9..13)?.try_into().ok()?);
        Some((seconds.checked_sub(GO_EPOCH_SECONDS)?, nanos))
    };
    match read() {
        Some((seconds, nanos)) if *time != go_zero_time() && nanos < 1_000_000_000 => {
            time::format_rfc3339(seconds, nanos)
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::body::node::go_time;

    #[test]
    fn prefixes_are_cut_to_whole_bytes() {
        for (prefix, asked) in [("", ""), ("a", ""), ("ab", "ab"), ("abc", "ab"), ("abcdef01-2", "abcdef01-")] {
            assert_eq!(whole_bytes(prefix), asked);
        }
    }

    #[test]
    fn go_times_are_shown_in_utc() {
        assert_eq!(go_time_text(&go_time(1_700_000_000_500_000_000)), "2023-11-14T22:13:20.5Z");
        assert_eq!(go_time_text(&go_zero_time()), "-");
        assert_eq!(go_time_text(&Bytes(vec![1, 2])), "-");
    }
}
