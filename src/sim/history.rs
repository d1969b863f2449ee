//! What clients asked and what they were told, with the times of both. Written down by the world, read by the
//! checkers; decides nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::time::Instant;
use crate::state::node::NodeStatus;
use crate::wire::body::session::SessionKey;

use super::sessions::{SessionAsked, Stamped};
use super::site::SiteNumber;
use super::variables::{VarAnswered, VarAsked};
use super::watch::Reign;

/// A node of the simulated fleet, by its place in the list.
pub type NodeNumber = usize;

/// An operation, by its place in the history.
pub type OperationId = usize;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Status.Ping.
    Ping,
    /// Node.Register; the nonce lies in the node's Meta.
    Register {
        /// Which.
        node: NodeNumber,
        /// Found again in the entry.
        nonce: u64,
    },
    /// Node.UpdateStatus.
    Status {
        /// Which.
        node: NodeNumber,
        /// To what.
        status: NodeStatus,
    },
    /// Node.EmitEvents with one event; the nonce is its message.
    Emit {
        /// Which.
        node: NodeNumber,
        /// Found again in the entry.
        nonce: u64,
    },
    /// Node.UpdateDrain with a strategy; the nonce lies in its Meta.
    Drain {
        /// Which.
        node: NodeNumber,
        /// Found again in the entry.
        nonce: u64,
    },
    /// Node.UpdateDrain without one.
    EndDrain {
        /// Which.
        node: NodeNumber,
        /// MarkEligible.
        mark: bool,
        /// Found again in the entry.
        nonce: u64,
    },
    /// Node.UpdateEligibility.
    Eligibility {
        /// Which.
        node: NodeNumber,
        /// To what.
        eligible: bool,
    },
    /// Node.Deregister.
    Deregister {
        /// Which.
        node: NodeNumber,
    },
    /// Node.GetNode.
    Get {
        /// Which.
        node: NodeNumber,
        /// MinQueryIndex.
        min: u64,
        /// MaxQueryTime, nanoseconds.
        wait_nanos: u64,
    },
    /// Node.List of the nodes whose ids begin like that of this one.
    List {
        /// How the ids begin.
        prefix: String,
        /// MinQueryIndex.
        min: u64,
        /// MaxQueryTime, nanoseconds.
        wait_nanos: u64,
    },
    /// ClientStats.Stats, which goes on to the node; it answers with its id and the nonce.
    CallNode {
        /// Which.
        node: NodeNumber,
        /// To be answered.
        nonce: u64,
    },
    /// Operator.TransferLeadershipToPeer.
    Transfer {
        /// To the server of this machine.
        to: SiteNumber,
    },
    /// Operator.RaftRemovePeerByID.
    Remove {
        /// The server of this machine.
        site: SiteNumber,
    },
    /// About variables and locks.
    Var(VarAsked),
    /// A write of variables with a place in a session.
    Stamped(Stamped),
    /// About a session itself.
    Session(SessionAsked),
    /// The server's own: a node was not heard in time.
    Expire {
        /// Which.
        node: NodeNumber,
        /// Written only when the node was not written since.
        expected: u64,
    },
    /// The server's own: a drain has nothing left to move.
    DrainComplete {
        /// Which.
        node: NodeNumber,
    },
}

impl Asked {
    /// The one node it is about; `None` for a list or for none.
    pub fn node(&self) -> Option<NodeNumber> {
        match self {
            Asked::Ping | Asked::List { .. } | Asked::Var(_) | Asked::Transfer { .. } | Asked::Remove { .. } => None,
            Asked::Stamped(_) | Asked::Session(_) => None,
            Asked::Register { node, .. }
            | Asked::Status { node, .. }
            | Asked::Emit { node, .. }
            | Asked::Drain { node, .. }
            | Asked::EndDrain { node, .. }
            | Asked::Eligibility { node, .. }
            | Asked::Deregister { node }
            | Asked::Get { node, .. }
            | Asked::CallNode { node, .. }
            | Asked::Expire { node, .. }
            | Asked::DrainComplete { node } => Some(*node),
        }
    }

    /// Whether it may change something.
    pub fn writes(&self) -> bool {
        match self {
            Asked::Var(asked) => asked.writes(),
            Asked::Ping | Asked::Get { .. } | Asked::List { .. } | Asked::CallNode { .. } => false,
            // They change who is a member, and nothing that anybody reads.
            Asked::Transfer { .. } | Asked::Remove { .. } | Asked::Session(_) => false,
            _ => true,
        }
    }

    /// The number that its entry carries.
    pub fn nonce(&self) -> Option<u64> {
        match self {
            Asked::Register { nonce, .. }
            | Asked::Emit { nonce, .. }
            | Asked::Drain { nonce, .. }
            | Asked::EndDrain { nonce, .. } => Some(*nonce),
            _ => None,
        }
    }

    /// How long the server may take by the caller's own wish.
    pub fn wait(&self) -> Duration {
        match self {
            Asked::Var(asked) => asked.wait(),
            asked => asked.query().map_or(Duration::ZERO, |(_, nanos)| Duration::from_nanos(nanos / 16 * 17)),
        }
    }

    /// MinQueryIndex and MaxQueryTime in nanoseconds of a read.
    pub fn query(&self) -> Option<(u64, u64)> {
        match self {
            Asked::Get { min, wait_nanos, .. } | Asked::List { min, wait_nanos, .. } => Some((*min, *wait_nanos)),
            Asked::Var(asked) => asked.query(),
            _ => None,
        }
    }
}

/// A node as a reply showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its status.
    pub status: NodeStatus,
    /// Whether work may be placed on it.
    pub eligible: bool,
    /// Whether it is drained.
    pub draining: bool,
    /// Index of its first registration.
    pub create_index: u64,
    /// Index of its last change.
    pub modify_index: u64,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// An answer whose body does not matter.
    Fine,
    /// A write, at this index; 0 when nothing was written.
    Written(u64),
    /// A heartbeat or a registration: the index as above, and the TTL in nanoseconds.
    Heard(u64, u64),
    /// One node, or none, and the index.
    Node(u64, Option<Seen>),
    /// About variables and locks.
    Var(VarAnswered),
    /// A session is there: its id and key; the key is empty where it is not told.
    Session(u64, SessionKey),
    /// Nodes by number, and the index.
    Nodes(u64, BTreeMap<NodeNumber, Seen>),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did not.
    Pending,
    /// With an answer.
    Done(Answered),
    /// With an error: the text.
    Refused(String),
    /// The connection ended first.
    Unknown,
    /// The client waited in vain on a connection that was whole.
    TimedOut,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Who asked; the server itself is `usize::MAX`.
    pub client: usize,
    /// Which process of the server was running.
    pub life: usize,
    /// What.
    pub asked: Asked,
    /// When.
    pub invoked: Instant,
    /// When it ended; the end of the world for one that never did.
    pub returned: Instant,
    /// How.
    pub outcome: Outcome,
}

/// A document of an event stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// When it came.
    pub at: Instant,
    /// Its index.
    pub index: u64,
    /// Kind, key and a hash of the payload, each.
    pub events: Vec<(String, String, u64)>,
    /// Announced to be missing: from, to.
    pub gap: Option<(u64, u64)>,
}

/// One event stream, as its subscriber saw it.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Who.
    pub client: usize,
    /// Which process of the server was running.
    pub life: usize,
    /// The node it was limited to.
    pub node: Option<NodeNumber>,
    /// The index asked for.
    pub from: i64,
    /// When it was asked for.
    pub opened: Instant,
    /// When the first message came; `None` for none.
    pub begun: Option<Instant>,
    /// What came.
    pub documents: Vec<Document>,
    /// When it ended; `None` while it is open.
    pub ended: Option<Instant>,
    /// The client ended it, on a wire that was whole until then.
    pub whole: bool,
}

/// One process of a server.
#[derive(Clone, Debug, Default)]
pub struct Life {
    /// On which machine.
    pub site: SiteNumber,
    /// When it began.
    pub started: Instant,
    /// When it said that it was ready.
    pub ready: Option<Instant>,
    /// When it was asked to stop.
    pub stopping: Option<Instant>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// When each entry was applied.
    pub applied: BTreeMap<u64, Instant>,
    /// When its loop was given something of the server that it took for the leader.
    pub heard: Vec<Instant>,
    /// From when to when its loop took itself for the leader.
    pub led: Vec<(Instant, Option<Instant>)>,
}

/// All that is written down.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Ids of nodes.
    pub nodes: Vec<String>,
    /// In the order in which they were asked.
    pub operations: Vec<Operation>,
    /// In the order in which they were opened.
    pub subscriptions: Vec<Subscription>,
    /// In order.
    pub lives: Vec<Life>,
    /// In the order in which they began.
    pub reigns: Vec<Reign>,
    /// When something was done to the cluster, and when all should be well again. Empty in a world of one server.
    pub troubles: Vec<(Instant, Instant)>,
    /// Machines whose process stood still: from and to.
    pub pauses: Vec<(SiteNumber, Instant, Instant)>,
    /// There are several servers.
    pub is_cluster: bool,
    /// What was seen to be wrong where it happened: bytes that no server sends, for example.
    pub wrongs: Vec<String>,
}

/// Whose operations the server's own are.
pub const SERVER: usize = usize::MAX;

impl History {
    /// Writes down that something is asked of a process.
    pub fn ask(&mut self, client: usize, life: usize, now: Instant, asked: Asked) -> OperationId {
        let outcome = Outcome::Pending;
        let returned = Instant::from_nanos(u64::MAX);
        self.operations.push(Operation { client, life, asked, invoked: now, returned, outcome });
        self.operations.len() - 1
    }

    /// The process on a machine that what is asked now can reach: the one that runs, or else the next.
    pub fn current_life(&self, site: SiteNumber) -> usize {
        let runs = |life: &&(usize, &Life)| life.1.site == site && life.1.ended.is_none();
        self.lives.iter().enumerate().rev().find(|life| runs(&life)).map_or(self.lives.len(), |(number, _)| number)
    }

    /// Writes down how it ended. The first end counts.
    pub fn end(&mut self, id: OperationId, now: Instant, outcome: Outcome) {
        if let Some(operation) = self.operations.get_mut(id)
            && operation.outcome == Outcome::Pending
        {
            operation.returned = now;
            operation.outcome = outcome;
        }
    }

    /// How many operations are so.
    pub fn count(&self, is: impl Fn(&Operation) -> bool) -> usize {
        self.operations.iter().filter(|operation| is(operation)).count()
    }

    /// Whether nothing was done to the cluster in this time, nor so shortly before that it may still suffer.
    pub fn is_calm(&self, from: Instant, to: Instant) -> bool {
        !self.troubles.iter().any(|(begin, end)| *begin <= to && from <= *end)
    }

    /// Whether the same server led all the time.
    pub fn is_one_reign(&self, from: Instant, to: Instant) -> bool {
        let all = |reign: &&Reign| reign.from <= from && reign.to.is_none_or(|end| end >= to);
        !self.is_cluster || self.reigns.iter().any(|reign| all(&reign))
    }

    /// The number of a node.
    pub fn number(&self, id: &str) -> Option<NodeNumber> {
        self.nodes.iter().position(|known| known == id)
    }
}
