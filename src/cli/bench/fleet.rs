//! Nodes that do not exist: ids, secrets, and a body as an agent on a small machine registers it.
//!
//! Source: the captured registration of a Nomad 2.0.5 agent, whose size and kinds of fields these have. The secrets
//! come from a plain generator, good for a test and for nothing else.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::base::rng::Rng;
use crate::cli::bench::closed_loop::Source;
use crate::cli::{Context, Failure};
use crate::client;
use crate::client::Client;
use crate::wire::body::node_call::{
    NodeArgument, NodeBatchDeregisterRequest, NodeRegisterRequest, NodeUpdateResponse, NodeUpdateStatusRequest,
};
use crate::wire::body::query::WriteRequest;
use crate::wire::msgpack::{Encoder, Msg, Raw};

/// Nodes deregistered by one call.
const DEREGISTER_BATCH: usize = 500;

/// A node that the bench plays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BenchNode {
    /// A UUID.
    pub(crate) id: String,
    /// A UUID; the node's token.
    pub(crate) secret: String,
    /// `bench-<number>`.
    pub(crate) name: String,
}

/// Makes nodes; no two runs make the same.
pub(crate) fn invent(count: usize) -> Vec<BenchNode> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    let seed = u64::try_from(nanos & u128::from(u64::MAX)).unwrap_or(0) ^ u64::from(std::process::id()) << 40;
    let mut rng = Rng::from_seed(seed);
    let node = |number| BenchNode { id: rng.uuid(), secret: rng.uuid(), name: format!("bench-{number}") };
    (0..count).map(node).collect()
}

impl BenchNode {
    /// The request that registers it.
    pub(crate) fn registration(&self, region: &str) -> NodeRegisterRequest {
        let mut e = Encoder::new();
        encode_json(&self.body(), &mut e);
        let node = NodeArgument { head: None, raw: Raw(e.out.into()) };
        NodeRegisterRequest { node, write: write_request(region, ""), ..NodeRegisterRequest::default() }
    }

    /// The request that sets its status, the heartbeat.
    pub(crate) fn heartbeat(&self, region: &str, status: &str) -> NodeUpdateStatusRequest {
        NodeUpdateStatusRequest {
            node_id: self.id.clone(),
            status: status.to_owned(),
            write: write_request(region, &self.secret),
            ..NodeUpdateStatusRequest::default()
        }
    }

    /// As an agent describes its machine.
    fn body(&self) -> Value {
        let core = |id: u8| {
            json!({"SocketID": 0, "NodeID": 0, "ID": id, "Grade": true, "Disable": false, "BaseSpeed": 2596,
                   "MaxSpeed": 0, "GuessSpeed": 0})
        };
        json!({
            "ID": self.id, "SecretID": self.secret, "Datacenter": "dc1", "Name": self.name,
            "CgroupParent": "nomad.slice", "HTTPAddr": "127.0.0.1:4646", "TLSEnabled": false,
            "Attributes": attributes(),
            "NodeResources": {
                "Cpu": {"CpuShares": 4000, "TotalCpuCores": 2, "ReservableCpuCores": [0, 1]},
                "Processors": {"Topology": {
                    "BusAssociativity": {}, "Cores": [core(0), core(1)], "Distances": null, "Nodes": "\u{0}",
                    "OverrideTotalCompute": 4000, "OverrideWitholdCompute": 0,
                }},
                "Memory": {"MemoryMB": 4096}, "Disk": {"DiskMB": 0}, "Devices": null,
                "NodeNetworks": [
                    {"Mode": "bridge", "Device": "", "MacAddress": "", "Speed": 0, "Addresses": null},
                    {"Mode": "host", "Device": "lo", "MacAddress": "", "Speed": 1000, "Addresses": [
                        {"Family": "ipv4", "Alias": "default", "Address": "127.0.0.1", "ReservedPorts": "",
                         "Gateway": ""}]},
                ],
                "Networks": [
                    {"Mode": "bridge"}, {"Mode": "host", "Device": "lo", "CIDR": "127.0.0.1/32", "IP": "127.0.0.1",
                     "MBits": 1000}],
                "MinDynamicPort": 20000, "MaxDynamicPort": 32000,
            },
            "ReservedResources": {
                "Cpu": {"CpuShares": 0, "ReservedCpuCores": null}, "Memory": {"MemoryMB": 0},
                "Disk": {"DiskMB": 0}, "Networks": {"ReservedHostPorts": ""},
            },
            "Links": {},
            "Meta": {
                "connect.log_level": "info", "connect.proxy_concurrency": "1",
                "connect.gateway_image": "docker.io/envoyproxy/envoy:v${NOMAD_envoy_version}",
                "connect.sidecar_image": "docker.io/envoyproxy/envoy:v${NOMAD_envoy_version}",
            },
            "NodeClass": "", "NodePool": "default", "ComputedClass": "", "DrainStrategy": null,
            "SchedulingEligibility": "eligible", "Status": "initializing", "StatusDescription": "",
            "IdentitySigningKeyID": "", "StatusUpdatedAt": 0, "Events": null,
            "Drivers": {"mock_driver": {
                "Attributes": {"driver.mock_driver": "true"}, "Detected": true, "Healthy": true,
                "HealthDescription": "healthy",
            }},
            "CSIControllerPlugins": {}, "CSINodePlugins": {}, "HostVolumes": {}, "GCVolumesOnNodeGC": false,
            "HostNetworks": null, "LastDrain": null, "NodeMaxAllocs": 0,
            "LastMissedHeartbeatIndex": 0, "LastAllocUpdateIndex": 0, "CreateIndex": 0, "ModifyIndex": 0,
        })
    }
}

fn attributes() -> Value {
    json!({
        "cpu.arch": "amd64", "cpu.frequency": "2596", "cpu.modelname": "AMD EPYC", "cpu.numcores": "2",
        "cpu.reservablecores": "2", "cpu.totalcompute": "4000", "cpu.usablecompute": "4000",
        "driver.mock_driver": "1", "kernel.name": "linux", "memory.totalbytes": "4294967296",
        "nomad.bridge.hairpin_mode": "false", "nomad.service_discovery": "true", "nomad.version": "2.0.5",
        "numa.node.count": "1", "numa.node0.cores": "0-1", "os.cgroups.version": "1", "os.name": "debian",
        "os.signals": "SIGINT,SIGIO,SIGIOT,SIGSTOP,SIGSYS,SIGTERM,SIGALRM,SIGKILL,SIGQUIT,SIGTTIN,SIGUSR1,SIGXCPU,\
                       SIGXFSZ,SIGNULL,SIGBUS,SIGCONT,SIGHUP,SIGILL,SIGPIPE,SIGTRAP,SIGTTOU,SIGPROF,SIGSEGV,SIGTSTP",
        "plugins.host_volume.mkdir.version": "0.0.1", "plugins.secrets.nomad.version": "1.0.0",
        "unique.advertise.address": "127.0.0.1:4646", "unique.network.ip-address": "127.0.0.1",
    })
}

fn write_request(region: &str, token: &str) -> WriteRequest {
    WriteRequest { region: region.to_owned(), auth_token: token.to_owned(), ..WriteRequest::default() }
}

/// Writes a JSON value as Go peers would write the same.
fn encode_json(value: &Value, e: &mut Encoder) {
    match value {
        Value::Null => e.nil(),
        Value::Bool(yes) => e.bool(*yes),
        Value::Number(number) => e.i64(number.as_i64().unwrap_or(0)),
        Value::String(text) => e.str(text),
        Value::Array(values) => {
            e.array(values.len());
            values.iter().for_each(|value| encode_json(value, e));
        }
        Value::Object(fields) => {
            e.map(fields.len());
            for (key, value) in fields {
                e.str(key);
                encode_json(value, e);
            }
        }
    }
}

/// Registers nodes, each once.
pub(crate) struct Registrations<'a> {
    /// Who.
    pub(crate) nodes: &'a [BenchNode],
    /// Where.
    pub(crate) region: &'a str,
    begun: usize,
}

impl<'a> Registrations<'a> {
    /// None registered yet.
    pub(crate) fn new(nodes: &'a [BenchNode], region: &'a str) -> Registrations<'a> {
        Registrations { nodes, region, begun: 0 }
    }
}

impl Source for Registrations<'_> {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        let node = self.nodes.get(self.begun)?;
        self.begun += 1;
        append(&node.registration(self.region), body);
        Some(("Node.Register", self.begun - 1))
    }
}

/// Sends one status for every node, once.
pub(crate) struct StatusChanges<'a> {
    nodes: &'a [BenchNode],
    region: &'a str,
    status: &'static str,
    begun: usize,
    /// Index of each node's change, as answered.
    pub(crate) indexes: Vec<u64>,
}

impl<'a> StatusChanges<'a> {
    /// None sent yet.
    pub(crate) fn new(nodes: &'a [BenchNode], region: &'a str, status: &'static str) -> StatusChanges<'a> {
        StatusChanges { nodes, region, status, begun: 0, indexes: vec![0; nodes.len()] }
    }
}

impl Source for StatusChanges<'_> {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        let node = self.nodes.get(self.begun)?;
        self.begun += 1;
        append(&node.heartbeat(self.region, self.status), body);
        Some(("Node.UpdateStatus", self.begun - 1))
    }

    fn answered(&mut self, tag: usize, body: &[u8]) -> Result<(), Failure> {
        let reply = NodeUpdateResponse::from_bytes(body).map_err(|error| Failure::Other(error.to_string()))?;
        if let Some(index) = self.indexes.get_mut(tag) {
            *index = reply.node_modify_index.max(reply.meta.index);
        }
        Ok(())
    }
}

/// Heartbeats of all nodes in turn, without end.
pub(crate) struct Heartbeats {
    bodies: Vec<Vec<u8>>,
    next: usize,
}

impl Heartbeats {
    /// Heartbeats that say `ready`.
    pub(crate) fn new(nodes: &[BenchNode], region: &str) -> Heartbeats {
        Heartbeats { bodies: nodes.iter().map(|node| node.heartbeat(region, "ready").to_bytes()).collect(), next: 0 }
    }
}

impl Source for Heartbeats {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        let beat = self.bodies.get(self.next)?;
        body.extend_from_slice(beat);
        self.next = (self.next + 1) % self.bodies.len();
        Some(("Node.UpdateStatus", 0))
    }
}

/// Puts a request's bytes behind those that are there.
pub(crate) fn append(request: &impl Msg, body: &mut Vec<u8>) {
    let mut e = Encoder { out: std::mem::take(body) };
    request.encode(&mut e);
    *body = e.out;
}

/// Removes nodes. Each that is not there any more makes the rest of its batch be tried one by one, as a server refuses
/// a batch whole.
///
/// # Errors
/// The last refusal, when a node could not be removed.
pub(crate) fn deregister(context: &Context, client: &mut Client, nodes: &[BenchNode]) -> Result<(), Failure> {
    let mut outcome: Result<(), client::Error> = Ok(());
    let remove = |nodes: &[BenchNode]| {
        let node_ids = nodes.iter().map(|node| node.id.clone()).collect();
        let request = NodeBatchDeregisterRequest { node_ids, write: write_request(&context.region, &context.token) };
        client.call::<_, Raw>("Node.BatchDeregister", &request)
    };
    for batch in nodes.chunks(DEREGISTER_BATCH) {
        if remove(batch).is_err() {
            for node in batch {
                outcome = remove(std::slice::from_ref(node)).map(|_| ()).or(outcome);
            }
        }
    }
    outcome.map_err(Failure::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nodes_differ_and_are_as_large_as_real_ones() {
        let nodes = invent(3);
        assert!(nodes[0].id != nodes[1].id && nodes[0].id != nodes[0].secret);
        assert_eq!(nodes[0].id.len(), 36);
        let bytes = nodes[0].registration("global").to_bytes();
        // The captured one has 2,763 bytes.
        assert!((2000..3500).contains(&bytes.len()), "{}", bytes.len());
        let node = NodeRegisterRequest::from_bytes(&bytes).unwrap().node.head.unwrap();
        assert_eq!((node.id, node.status.as_str()), (nodes[0].id.clone(), "initializing"));
        assert_eq!(node.attributes["nomad.version"], "2.0.5");
    }

    #[test]
    fn each_node_registers_once_and_heartbeats_go_round() {
        let nodes = invent(2);
        let mut registrations = Registrations::new(&nodes, "global");
        let mut body = Vec::new();
        let tags: Vec<_> = std::iter::from_fn(|| registrations.next(&mut body)).map(|(_, tag)| tag).collect();
        assert_eq!(tags, [0, 1]);
        let mut beats = Heartbeats::new(&nodes, "global");
        let mut who = Vec::new();
        for _ in 0..3 {
            body.clear();
            beats.next(&mut body).unwrap();
            let beat = NodeUpdateStatusRequest::from_bytes(&body).unwrap();
            assert_eq!(beat.status, "ready");
            who.push((beat.node_id, beat.write.auth_token));
        }
        assert_eq!(who[0], (nodes[0].id.clone(), nodes[0].secret.clone()));
        assert_eq!(who[1].0, nodes[1].id);
        assert_eq!(who[2], who[0]);
    }
}
