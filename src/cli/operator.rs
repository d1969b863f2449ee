//! `holdfast operator`: connections, health, raft. Snapshots and the key ring have files of their own.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::{OperatorCommand, RaftCommand};
use crate::cli::debug;
use crate::cli::keyring;
use crate::cli::output;
use crate::cli::recover;
use crate::cli::server;
use crate::cli::server::yes_no;
use crate::cli::snapshot;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::operator::{
    ConnectionStub, ConnectionsResponse, LeadershipTransferResponse, RaftConfigurationResponse, RaftPeerByIdRequest,
    RaftPeerRequest,
};
use crate::wire::body::query::GenericRequest;
use crate::wire::msgpack::Raw;

/// Runs one of them.
///
/// # Errors
/// The client's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &OperatorCommand) -> Result<Exit, Failure> {
    match command {
        OperatorCommand::Connections => connections(context, out),
        OperatorCommand::Health => server::health(context, out),
        OperatorCommand::Raft(command) => raft(context, out, command),
        OperatorCommand::Recover { yes, data_dir } => recover::run(context, out, data_dir, *yes),
        OperatorCommand::Snapshot(command) => snapshot::run(context, out, command),
        OperatorCommand::Keyring(command) => keyring::run(context, out, command),
        OperatorCommand::Debug(args) => debug::run(context, out, args),
    }
}

fn connections(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let request = GenericRequest { query: context.query() };
    let reply: ConnectionsResponse = context.client().call("Holdfast.Connections", &request)?;
    if context.json {
        output::json(out, &Value::from(reply.connections.iter().map(to_json).collect::<Vec<_>>()))?;
    } else {
        print(out, &reply)?;
    }
    Ok(Exit::Done)
}

fn raft(context: &Context, out: &mut dyn Write, command: &RaftCommand) -> Result<Exit, Failure> {
    let client = context.client();
    match command {
        RaftCommand::ListPeers => {
            let request = GenericRequest { query: context.query() };
            let reply: RaftConfigurationResponse = client.call("Operator.RaftGetConfiguration", &request)?;
            if context.json {
                let rows = reply.servers.iter().map(|one| {
                    json!({
                        "id": one.id, "name": one.node, "address": one.address, "leader": one.leader,
                        "voter": one.voter,
                    })
                });
                output::json(out, &Value::from(rows.collect::<Vec<_>>()))?;
            } else {
                let mut rows = vec![["ID", "Name", "Address", "Leader", "Voter"].map(str::to_owned).to_vec()];
                rows.extend(reply.servers.iter().map(|one| {
                    vec![
                        output::clean(&one.id),
                        output::clean(&one.node),
                        output::clean(&one.address),
                        yes_no(one.leader),
                        yes_no(one.voter),
                    ]
                }));
                output::table(out, &rows)?;
            }
            Ok(Exit::Done)
        }
        RaftCommand::RemovePeer { id } => {
            let request = RaftPeerByIdRequest { id: id.clone(), write: context.write() };
            client.call::<_, Raw>("Operator.RaftRemovePeerByID", &request)?;
            if context.json {
                output::json(out, &json!({ "name": id }))?;
            } else {
                writeln!(out, "Removed {}", output::clean(id))?;
            }
            Ok(Exit::Done)
        }
        RaftCommand::TransferLeadership { id } => {
            // An id has no colon, an address always has one.
            let (id, address) = if id.contains(':') { ("", id.as_str()) } else { (id.as_str(), "") };
            let request = RaftPeerRequest { id: id.to_owned(), address: address.to_owned(), write: context.write() };
            let reply: LeadershipTransferResponse = client.call("Operator.TransferLeadershipToPeer", &request)?;
            if context.json {
                output::json(out, &json!({"id": reply.to.id, "address": reply.to.address, "led_already": reply.noop}))?;
                return Ok(Exit::Done);
            }
            let what = if reply.noop { "It leads already:" } else { "It leads now:" };
            writeln!(out, "{what} {}", output::clean(&reply.to.address))?;
            Ok(Exit::Done)
        }
    }
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
