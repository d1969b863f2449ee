//! `holdfast status`: the servers, who leads, the regions, how far the log is and how the nodes fare, all as the server
//! that is asked knows it.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};

use crate::cli::output;
use crate::cli::server::{is_voter, leads, rpc_address, yes_no};
use crate::cli::{Context, Exit, Failure};
use crate::client;
use crate::client::Client;
use crate::wire::body::node_call::NodeListResponse;
use crate::wire::body::query::GenericRequest;
use crate::wire::body::status::{Member, RaftStatsResponse, ServerMembersResponse};
use crate::wire::msgpack::Msg;

/// A part of the answer, or the server's text when it refused just that part.
type Part<T> = Result<T, String>;

/// All that is shown.
struct Overview {
    leader: Part<String>,
    peers: Part<Vec<String>>,
    members: Part<ServerMembersResponse>,
    regions: Part<Vec<String>>,
    raft: Part<RaftStatsResponse>,
    nodes: Part<BTreeMap<String, usize>>,
}

/// Asks and prints. Exit 1 when the server refused a part; the other parts are printed all the same.
///
/// # Errors
/// No answer from the server.
pub(crate) fn run(context: &Context, out: &mut dyn Write) -> Result<Exit, Failure> {
    let overview = ask(context)?;
    if context.json {
        output::json(out, &overview.to_json(&context.settings.address))?;
    } else {
        print(out, &overview)?;
    }
    Ok(if overview.is_whole() { Exit::Done } else { Exit::Failed })
}

fn ask(context: &Context) -> Result<Overview, Failure> {
    let mut client = context.client();
    let request = GenericRequest { query: context.query() };
    Ok(Overview {
        leader: part(&mut client, "Status.Leader", &request)?,
        peers: part(&mut client, "Status.Peers", &request)?,
        members: part(&mut client, "Status.Members", &request)?,
        regions: part(&mut client, "Region.List", &request)?,
        raft: part(&mut client, "Status.RaftStats", &request)?,
        nodes: part::<NodeListResponse>(&mut client, "Node.List", &request)?.map(|list| count(&list)),
    })
}

fn part<R: Msg>(client: &mut Client, method: &str, request: &GenericRequest) -> Result<Part<R>, Failure> {
    match client.call(method, request) {
        Ok(reply) => Ok(Ok(reply)),
        Err(client::Error::Answered { text, .. }) => Ok(Err(text)),
        Err(error) => Err(error.into()),
    }
}

fn count(list: &NodeListResponse) -> BTreeMap<String, usize> {
    let mut by_status = BTreeMap::new();
    for node in &list.nodes {
        *by_status.entry(node.status.clone()).or_insert(0) += 1;
    }
    by_status
}

impl Overview {
    fn is_whole(&self) -> bool {
        self.leader.is_ok()
            && self.peers.is_ok()
            && self.members.is_ok()
            && self.regions.is_ok()
            && self.raft.is_ok()
            && self.nodes.is_ok()
    }

    fn leads(&self, member: &Member) -> bool {
        self.leader.as_ref().is_ok_and(|leader| leads(member, leader))
    }

    fn to_json(&self, address: &str) -> Value {
        let members = self.members.as_ref().map(|members| {
            let each = |member: &Member| {
                json!({
                    "name": member.name, "address": rpc_address(member), "status": member.status,
                    "leader": self.leads(member), "voter": is_voter(member), "tags": member.tags,
                })
            };
            members.members.iter().map(each).collect::<Vec<_>>()
        });
        let raft = self.raft.as_ref().map(|raft| {
            json!({"last_term": raft.last_term, "last_index": raft.last_index, "last_contact": raft.last_contact})
        });
        json!({
            "address": address,
            "server": self.members.as_ref().ok().map(|members| {
                json!({"name": members.server_name, "region": members.server_region, "datacenter": members.server_dc})
            }),
            "leader": known(&self.leader.as_ref()),
            "peers": known(&self.peers.as_ref()),
            "members": known(&members),
            "regions": known(&self.regions.as_ref()),
            "raft": known(&raft),
            "nodes": known(&self.nodes.as_ref()),
        })
    }
}

/// The value, or an object that holds the refusal.
fn known<T: serde::Serialize>(part: &Result<T, &String>) -> Value {
    match part {
        Ok(value) => json!(value),
        Err(text) => json!({"refused": text}),
    }
}

/// How many servers there are, how they are, and how many have a vote.
fn cluster(members: &[Member]) -> String {
    let mut by_status: BTreeMap<&str, usize> = BTreeMap::new();
    for member in members {
        *by_status.entry(&member.status).or_insert(0) += 1;
    }
    let each: Vec<String> =
        by_status.iter().map(|(status, count)| format!("{count} {}", output::clean(status))).collect();
    let (count, voters) = (members.len(), members.iter().filter(|member| is_voter(member)).count());
    let servers = if count == 1 { "server" } else { "servers" };
    format!("{count} {servers}: {}; {voters} with a vote", each.join(", "))
}

fn print(out: &mut dyn Write, overview: &Overview) -> Result<(), Failure> {
    let refused = |text: &String| format!("refused: {}", output::clean(text));
    let say = |part: &Part<String>| match part {
        Ok(text) if text.is_empty() => "none".to_owned(),
        Ok(text) => output::clean(text),
        Err(text) => refused(text),
    };
    let server = match &overview.members {
        Ok(members) => {
            let (name, region, dc) = (&members.server_name, &members.server_region, &members.server_dc);
            format!("{} (region {}, datacenter {})", output::clean(name), output::clean(region), output::clean(dc))
        }
        Err(_) => "unknown".to_owned(),
    };
    let list = |part: &Part<Vec<String>>| say(&part.clone().map(|items| items.join(" ")));
    let raft = overview.raft.as_ref().map(|raft| {
        let contact = match raft.last_contact.as_str() {
            "0" => String::new(),
            contact => format!(", leader heard {contact} ago"),
        };
        format!("term {}, index {}{contact}", raft.last_term, raft.last_index)
    });
    let nodes = overview.nodes.as_ref().map(|by_status| {
        let total: usize = by_status.values().sum();
        let each: Vec<String> = by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        if total == 0 { "none".to_owned() } else { format!("{total}: {}", each.join(", ")) }
    });
    output::pairs(
        out,
        &[
            ("Server", server),
            ("Leader", say(&overview.leader)),
            ("Cluster", overview.members.as_ref().map(|members| cluster(&members.members)).unwrap_or_else(refused)),
            ("Peers", list(&overview.peers)),
            ("Regions", list(&overview.regions)),
            ("Raft", raft.unwrap_or_else(refused)),
            ("Nodes", nodes.map(|text| output::clean(&text)).unwrap_or_else(refused)),
        ],
    )?;
    writeln!(out)?;
    match &overview.members {
        Err(text) => writeln!(out, "Members  {}", refused(text))?,
        Ok(members) => {
            let head = ["Name", "Address", "Status", "Voter", "Leader", "Region", "Datacenter", "Build"];
            let mut rows = vec![head.map(str::to_owned).to_vec()];
            for member in &members.members {
                let tag = |name: &str| output::or_dash(member.tags.get(name).map_or("", String::as_str));
                rows.push(vec![
                    output::or_dash(&member.name),
                    output::clean(&rpc_address(member)),
                    output::or_dash(&member.status),
                    yes_no(is_voter(member)),
                    yes_no(overview.leads(member)),
                    tag("region"),
                    tag("dc"),
                    tag("build"),
                ]);
            }
            output::table(out, &rows)?;
        }
    }
    Ok(())
}
