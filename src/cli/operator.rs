//! `holdfast operator connections`: who is connected to the server that is asked, and how.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::OperatorCommand;
use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::operator::{ConnectionStub, ConnectionsResponse};
use crate::wire::body::query::GenericRequest;

/// Runs it.
///
/// # Errors
/// The client's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &OperatorCommand) -> Result<Exit, Failure> {
    let OperatorCommand::Connections = command;
    let request = GenericRequest { query: context.query() };
    let reply: ConnectionsResponse = context.client().call("Holdfast.Connections", &request)?;
    if context.json {
        output::json(out, &Value::from(reply.connections.iter().map(to_json).collect::<Vec<_>>()))?;
    } else {
        print(out, &reply)?;
    }
    Ok(Exit::Done)
}

fn to_json(stub: &ConnectionStub) -> Value {
    json!({
        "peer": stub.peer, "protocol": stub.protocol, "tls": stub.tls, "certificate_names": stub.certificate_names,
        "node_id": stub.node_id, "streams": stub.streams, "calls": stub.calls,
    })
}

fn print(out: &mut dyn Write, reply: &ConnectionsResponse) -> Result<(), Failure> {
    let head = ["Peer", "Protocol", "TLS", "Certificate", "Node", "Streams", "Calls"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(reply.connections.iter().map(|stub| {
        vec![
            output::clean(&stub.peer),
            output::clean(&stub.protocol),
            if stub.tls { "yes" } else { "no" }.to_owned(),
            output::or_dash(&stub.certificate_names.join(",")),
            output::or_dash(&output::short_id(&stub.node_id)),
            stub.streams.to_string(),
            stub.calls.to_string(),
        ]
    }));
    output::table(out, &rows)?;
    if reply.total > reply.connections.len() as u64 {
        writeln!(out, "... {} of {}", reply.connections.len(), reply.total)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_a_dash_and_what_is_cut_is_said() {
        let stub = ConnectionStub {
            peer: "127.0.0.1:5000".to_owned(),
            protocol: "multiplex_v2".to_owned(),
            node_id: "0123456789".to_owned(),
            streams: 2,
            ..ConnectionStub::default()
        };
        let mut out = Vec::new();
        print(&mut out, &ConnectionsResponse { connections: vec![stub], total: 3 }).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("127.0.0.1:5000  multiplex_v2  no   -            01234567  2        0"), "{text}");
        assert!(text.ends_with("... 1 of 3\n"), "{text}");
    }
}
