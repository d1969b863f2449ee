//! `holdfast server`: who the servers of the region are, and how they are.

use std::io::Write;

use serde_json::{Value, json};

use crate::base::time::{WallTime, format_duration};
use crate::cli::args::ServerCommand;
use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::wire::body::node::{go_time_unix_nanos, go_zero_time};
use crate::wire::body::operator::{OperatorHealthReply, ServerHealth};
use crate::wire::body::query::GenericRequest;
use crate::wire::body::status::{Member, ServerMembersResponse};

/// Runs one of them.
///
/// # Errors
/// The client's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: ServerCommand) -> Result<Exit, Failure> {
    match command {
        ServerCommand::Members => members(context, out),
        ServerCommand::Health => health(context, out),
    }
}

/// `yes` or `no`.
pub(crate) fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn members(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let client = context.client();
    let request = GenericRequest { query: context.query() };
    let reply: ServerMembersResponse = client.call("Status.Members", &request)?;
    // Whoever is asked says who leads as far as it knows; members are listed without it too.
    let leader: String = client.call("Status.Leader", &request)?;
    if context.json {
        let rows = reply.members.iter().map(|member| {
            json!({
                "name": member.name, "id": tag(member, "id"), "address": rpc_address(member),
                "http_address": tag(member, "http_addr"), "status": member.status, "voter": is_voter(member),
                "leader": leads(member, &leader), "region": tag(member, "region"), "datacenter": tag(member, "dc"),
                "build": tag(member, "holdfast"), "asked": asked(member, &reply),
            })
        });
        output::json(out, &Value::from(rows.collect::<Vec<_>>()))?;
        return Ok(Exit::Done);
    }
    let head = ["Name", "ID", "Address", "Status", "Voter", "Leader", "Datacenter", "Build"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(reply.members.iter().map(|member| {
        vec![
            output::or_dash(&member.name),
            output::or_dash(tag(member, "id")),
            output::clean(&rpc_address(member)),
            output::or_dash(&member.status),
            yes_no(is_voter(member)),
            yes_no(leads(member, &leader)),
            output::or_dash(tag(member, "dc")),
            output::or_dash(tag(member, "holdfast")),
        ]
    }));
    output::table(out, &rows)?;
    Ok(Exit::Done)
}

fn tag<'a>(member: &'a Member, name: &str) -> &'a str {
    member.tags.get(name).map_or("", String::as_str)
}

/// Whether it is said to have a vote.
pub(crate) fn is_voter(member: &Member) -> bool {
    !member.tags.contains_key("nonvoter")
}

/// Whether `leader`, `ip:port`, is this member.
pub(crate) fn leads(member: &Member, leader: &str) -> bool {
    !leader.is_empty() && leader == rpc_address(member)
}

/// Whether it is the server that answered.
fn asked(member: &Member, reply: &ServerMembersResponse) -> bool {
    member.name == format!("{}.{}", reply.server_name, reply.server_region)
}

/// `ip:port` of a member's RPC listener, as Status.Leader names it.
pub(crate) fn rpc_address(member: &Member) -> String {
    let port = tag(member, "port");
    let ip = match <[u8; 4]>::try_from(member.addr.0.as_slice()) {
        Ok(v4) => std::net::Ipv4Addr::from(v4).to_string(),
        Err(_) => match <[u8; 16]>::try_from(member.addr.0.as_slice()) {
            Ok(v6) => match std::net::Ipv6Addr::from(v6).to_ipv4_mapped() {
                Some(v4) => v4.to_string(),
                None => format!("[{}]", std::net::Ipv6Addr::from(v6)),
            },
            Err(_) => tag(member, "rpc_addr").to_owned(),
        },
    };
    format!("{ip}:{port}")
}

/// Asks the leader. Fails when not all servers are healthy, so that scripts can tell.
///
/// # Errors
/// The client's.
pub(crate) fn health(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let request = GenericRequest { query: context.fresh_query() };
    let reply: OperatorHealthReply = context.client().call("Operator.ServerHealth", &request)?;
    if context.json {
        let value = json!({
            "healthy": reply.healthy, "failure_tolerance": reply.failure_tolerance, "leader": reply.leader,
            "voters": reply.voters, "servers": reply.servers.iter().map(to_json).collect::<Vec<_>>(),
        });
        output::json(out, &value)?;
    } else {
        writeln!(out, "Healthy: {}, servers that may fail: {}\n", yes_no(reply.healthy), reply.failure_tolerance)?;
        let head = ["Name", "Address", "Status", "Healthy", "Leader", "Voter", "Heard", "Term", "Index", "So since"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(reply.servers.iter().map(|one| {
            vec![
                output::clean(&one.name),
                output::clean(&one.address),
                status(one.serf_status).to_owned(),
                yes_no(one.healthy),
                yes_no(one.leader),
                yes_no(one.voter),
                heard(one.last_contact),
                one.last_term.to_string(),
                one.last_index.to_string(),
                since(one).unwrap_or_else(|| "-".to_owned()),
            ]
        }));
        output::table(out, &rows)?;
    }
    Ok(if reply.healthy { Exit::Done } else { Exit::Failed })
}

fn to_json(one: &ServerHealth) -> Value {
    json!({
        "id": one.id, "name": one.name, "address": one.address, "status": status(one.serf_status),
        "healthy": one.healthy, "leader": one.leader, "voter": one.voter,
        "last_contact": (one.last_contact != i64::MAX).then(|| heard(one.last_contact)),
        "last_term": one.last_term, "last_index": one.last_index, "stable_since": since(one),
    })
}

/// The number of the gossip layer in words.
fn status(number: i64) -> &'static str {
    match number {
        1 => "alive",
        2 => "leaving",
        3 => "left",
        4 => "failed",
        _ => "unknown",
    }
}

fn heard(nanos: i64) -> String {
    match u64::try_from(nanos) {
        Ok(nanos) if nanos < i64::MAX as u64 => format_duration(std::time::Duration::from_nanos(nanos)),
        _ => "never".to_owned(),
    }
}

/// When it became as it is; `None` when nobody knows.
fn since(one: &ServerHealth) -> Option<String> {
    let is_known = one.stable_since != go_zero_time();
    let nanos = go_time_unix_nanos(&one.stable_since.0).filter(|_| is_known)?;
    Some(WallTime::from_unix_nanos(nanos.div_euclid(1_000_000_000).saturating_mul(1_000_000_000)).rfc3339())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::msgpack::Bytes;

    #[test]
    fn a_member_is_found_by_address_or_by_name() {
        let tags = [("port", "4647"), ("rpc_addr", "hf1.example.com")];
        let member = |addr: Vec<u8>| Member {
            addr: Bytes(addr),
            tags: tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            ..Member::default()
        };
        let v6: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        for (addr, address) in [
            (vec![10, 0, 0, 1], "10.0.0.1:4647"),
            (v6.octets().to_vec(), "[2001:db8::1]:4647"),
            ([vec![0; 10], vec![0xff, 0xff, 10, 0, 0, 1]].concat(), "10.0.0.1:4647"),
            (vec![], "hf1.example.com:4647"),
        ] {
            let member = member(addr);
            assert_eq!(rpc_address(&member), address);
            assert!(leads(&member, address) && !leads(&member, "") && is_voter(&member));
        }
    }

    #[test]
    fn silence_is_told_in_words() {
        for (nanos, text) in [(0, "0s"), (20_000_000, "20ms"), (i64::MAX, "never"), (-1, "never")] {
            assert_eq!(heard(nanos), text);
        }
        assert_eq!((status(1), status(4), status(9)), ("alive", "failed", "unknown"));
        assert_eq!(since(&ServerHealth::default()), None);
    }
}
