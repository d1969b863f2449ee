//! `/v1/nodes`, `/v1/node/` and `/v1/client/`: the registry, and calls that go on to a node.
//!
//! Source: HTTP notes, section 3.

use crate::wire::body::node::DrainStrategy;
use crate::wire::body::node::go_zero_time;
use crate::wire::body::node_call::{
    NodeDeregisterRequest, NodeEvaluateRequest, NodeItemFields, NodeListFields, NodeListRequest, NodeSpecificRequest,
    NodeUpdateDrainRequest, NodeUpdateEligibilityRequest,
};
use crate::wire::body::query::QueryMeta;

use super::Plan;
use super::forms::{self, DrainBody, NodeMetaApplyRequest};
use super::paths::{Ask, Path, Planned};
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, Refusal, json_reply, read_headers, refusal};

/// Below `/v1/nodes`.
pub(super) static NODES: &[Path] = &[Path { pattern: "", plan: list }];

/// Below `/v1/node`.
pub(super) static NODE: &[Path] = &[
    Path { pattern: "pools", plan: pools },
    Path { pattern: "pool/:", plan: pool },
    Path { pattern: ":/allocations", plan: allocations },
    Path { pattern: ":/drain", plan: drain },
    Path { pattern: ":/eligibility", plan: eligibility },
    Path { pattern: ":/purge", plan: purge },
    Path { pattern: ":/evaluate", plan: evaluate },
    Path { pattern: ":", plan: one },
];

/// Below `/v1/client`.
pub(super) static CLIENT: &[Path] = &[
    Path { pattern: "stats", plan: stats },
    Path { pattern: "metadata", plan: metadata },
    Path { pattern: "identity", plan: identity },
    Path { pattern: "identity/renew", plan: renew_identity },
    Path { pattern: "gc", plan: collect_garbage },
];

fn list(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    let wanted = |name: &str| match ask.query.bool(name) {
        Ok(wanted) => Ok(wanted.unwrap_or(false)),
        Err(error) => {
            let value = ask.query.text(name);
            let text = format!(
                "Failed to parse node list fields: Failed to parse value of {name:?} ({value}) as a bool: {error}"
            );
            Err(refusal(400, &text))
        }
    };
    let query = ask.read()?;
    let fields = NodeItemFields { resources: wanted("resources")?, os: wanted("os")? };
    let arguments = NodeListRequest { query, list: NodeListFields { fields: Some(fields) } };
    ask.call("Node.List", &arguments, Show::List("Nodes"))
}

fn of_node(ask: &Ask<'_>, node_id: &str) -> Result<NodeSpecificRequest, Refusal> {
    Ok(NodeSpecificRequest { node_id: node_id.to_owned(), secret_id: String::new(), query: ask.read()? })
}

fn one(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Node.GetNode", &of_node(ask, ask.part(0))?, Show::Node)
}

fn allocations(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Node.GetAllocs", &of_node(ask, ask.part(0))?, Show::List("Allocs"))
}

fn drain(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let body: DrainBody = ask.body(forms::DRAIN)?;
    let drain_strategy = body.drain_spec.map(|spec| DrainStrategy {
        deadline: spec.deadline,
        ignore_system_jobs: spec.ignore_system_jobs,
        force_deadline: go_zero_time(),
        started_at: go_zero_time(),
    });
    let arguments = NodeUpdateDrainRequest {
        node_id: ask.part(0).to_owned(),
        drain_strategy,
        mark_eligible: body.mark_eligible,
        meta: body.meta,
        write: ask.write(),
        ..NodeUpdateDrainRequest::default()
    };
    ask.call("Node.UpdateDrain", &arguments, Show::Whole(Heads::Write))
}

fn eligibility(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let mut arguments: NodeUpdateEligibilityRequest = ask.body(forms::ELIGIBILITY)?;
    if arguments.node_id.is_empty() {
        arguments.node_id = ask.part(0).to_owned();
    }
    arguments.write = ask.write();
    ask.call("Node.UpdateEligibility", &arguments, Show::Whole(Heads::Write))
}

fn purge(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let arguments = NodeDeregisterRequest { node_id: ask.part(0).to_owned(), write: ask.write() };
    ask.call("Node.Deregister", &arguments, Show::Whole(Heads::Write))
}

fn evaluate(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let arguments = NodeEvaluateRequest { node_id: ask.part(0).to_owned(), write: ask.write() };
    ask.call("Node.Evaluate", &arguments, Show::Whole(Heads::Write))
}

/// The node of a call that goes on to one.
fn wanted_node(ask: &Ask<'_>, in_body: &str) -> Result<String, Refusal> {
    match ask.query.filled("node_id").unwrap_or(in_body) {
        "" => Err(refusal(400, "No local Node and node_id not provided")),
        id => Ok(id.to_owned()),
    }
}

fn stats(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("ClientStats.Stats", &of_node(ask, &wanted_node(ask, "")?)?, Show::HostStats)
}

const METADATA: Show = Show::OfNode(&["Dynamic", "Meta", "Static"]);

fn metadata(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" => ask.call("NodeMeta.Read", &of_node(ask, &wanted_node(ask, "")?)?, METADATA),
        "PUT" | "POST" => {
            let mut arguments: NodeMetaApplyRequest = ask.body(forms::NODE_META)?;
            arguments.node_id = wanted_node(ask, &arguments.node_id)?;
            arguments.query = ask.read()?;
            ask.call("NodeMeta.Apply", &arguments, METADATA)
        }
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

fn identity(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("NodeIdentity.Get", &of_node(ask, &wanted_node(ask, "")?)?, Show::OfNode(&["Claims"]))
}

fn renew_identity(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let in_body = if ask.request.body.is_empty() {
        String::new()
    } else {
        ask.body::<NodeSpecificRequest>(forms::NODE_ONLY)?.node_id
    };
    ask.call("NodeIdentity.Renew", &of_node(ask, &wanted_node(ask, &in_body)?)?, Show::OfNode(&[]))
}

fn collect_garbage(ask: &Ask<'_>) -> Planned {
    if !matches!(ask.method(), "GET" | "PUT" | "POST") {
        return Err(refusal(405, INVALID_METHOD));
    }
    ask.call("ClientAllocations.GarbageCollectAll", &of_node(ask, &wanted_node(ask, "")?)?, Show::OfNodeEmpty)
}

/// The pools that are there from the start; there are no others.
const POOLS: [(&str, &str); 2] =
    [("all", "Node pool with all nodes in the cluster."), ("default", "Default node pool.")];

fn pools(ask: &Ask<'_>) -> Planned {
    ask.only_read_here()?;
    let prefix = ask.read()?.prefix;
    let pools: Vec<String> = POOLS.iter().filter(|(name, _)| name.starts_with(&prefix)).map(pool_json).collect();
    Ok(fixed(ask, format!("[{}]", pools.join(","))))
}

fn pool(ask: &Ask<'_>) -> Planned {
    ask.only_read_here()?;
    ask.read()?;
    match POOLS.iter().find(|(name, _)| *name == ask.part(0)) {
        Some(pool) => Ok(fixed(ask, pool_json(pool))),
        None => Err(refusal(404, "node pool not found")),
    }
}

fn pool_json((name, description): &(&str, &str)) -> String {
    format!(
        "{{\"CreateIndex\":1,\"Description\":\"{description}\",\"Hash\":null,\"Meta\":null,\"ModifyIndex\":1,\
         \"Name\":\"{name}\",\"SchedulerConfiguration\":null}}"
    )
}

/// Something that never changes.
fn fixed(ask: &Ask<'_>, json: String) -> Plan {
    let mut reply = json_reply(200, json, ask.view.pretty);
    reply.headers.extend(read_headers(&QueryMeta { index: 1, known_leader: true, ..QueryMeta::default() }));
    Plan::Reply(reply)
}
