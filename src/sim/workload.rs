//! What simulated clients do: a role decides what a lane asks next, and learns how it went.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::rng::Rng;
use crate::state::node::NodeStatus;

use super::ground::Ground;
use super::history::{Answered, Asked, NodeNumber, Outcome};
use super::keepers::{Follower, Keeper, Locker};
use super::options::{GRACE, MIN_TTL};
use super::sessions::Once;

/// What a lane is for.
#[derive(Clone, Debug)]
pub enum Role {
    /// Keeps one node registered and alive, with naps.
    Agent {
        /// Which.
        node: NodeNumber,
        /// The server knows the node.
        registered: bool,
        /// Between heartbeats, as last told.
        ttl: Duration,
    },
    /// Does things to any node.
    Operator,
    /// Follows one node, or all.
    Watcher {
        /// Which; `None` for all.
        node: Option<NodeNumber>,
        /// The index last seen.
        seen: u64,
    },
    /// Reads events.
    Subscriber {
        /// Only of this node.
        node: Option<NodeNumber>,
        /// The next stream begins here.
        from: i64,
    },
    /// Registers nodes, one after another, and leaves them alone.
    Registrar {
        /// The next one.
        node: NodeNumber,
    },
    /// Writes and reads variables.
    Keeper(Keeper),
    /// Follows variables.
    Follower(Follower),
    /// Takes turns at a lock.
    Locker(Locker),
    /// Connects and sends what is no protocol, or half of one.
    Noise,
    /// Changes the cluster, when the world wants that.
    Administrator(Administrator),
    /// Writes exactly once.
    Once(Once),
}

/// An operator of the cluster: asks any server, and again until a removal is done.
#[derive(Clone, Debug, Default)]
pub struct Administrator {
    /// What is to be asked, one after another.
    pub asks: VecDeque<Asked>,
}

/// Between two looks of an administrator whether there is something to do.
const ADMINISTRATOR_LOOKS: Duration = Duration::from_millis(100);

/// What a lane does next.
#[derive(Clone, Debug)]
pub enum Next {
    /// Asks.
    Ask(Asked),
    /// Opens an event stream.
    Subscribe {
        /// Only of this node.
        node: Option<NodeNumber>,
        /// From this index.
        from: i64,
    },
    /// Makes noise.
    Noise,
    /// Nothing for a while.
    Sleep(Duration),
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> Option<T> {
    from.get(rng.below(from.len() as u64) as usize).copied()
}

impl Role {
    /// What to do next.
    pub fn next(&mut self, ground: &mut Ground) -> Next {
        match self {
            Role::Agent { node, registered, .. } => {
                let node = *node;
                if !*registered {
                    return Next::Ask(Asked::Register { node, nonce: ground.nonce() });
                }
                match ground.rng.below(100) {
                    0..80 => Next::Ask(Asked::Status { node, status: NodeStatus::Ready }),
                    80..91 => Next::Ask(Asked::Emit { node, nonce: ground.nonce() }),
                    91..96 => Next::Ask(Asked::Register { node, nonce: ground.nonce() }),
                    _ => Next::Sleep(ground.rng.jitter(2 * MIN_TTL + 2 * GRACE)),
                }
            }
            Role::Operator => operator(ground),
            Role::Watcher { node, seen } => {
                let wait_nanos = pick(&mut ground.rng, &[2, 9, 20]).unwrap_or(2) * 1_000_000_000;
                let min = match ground.rng.below(20) {
                    0 => 0,
                    1 => *seen + 2,
                    _ => *seen,
                };
                match *node {
                    Some(node) => Next::Ask(Asked::Get { node, min, wait_nanos }),
                    None => Next::Ask(Asked::List { prefix: String::new(), min, wait_nanos }),
                }
            }
            Role::Subscriber { node, from } => Next::Subscribe { node: *node, from: *from },
            Role::Registrar { node } => match ground.fleet.get(*node) {
                Some(_) => Next::Ask(Asked::Register { node: *node, nonce: ground.nonce() }),
                None => Next::Sleep(ground.options.busy),
            },
            Role::Keeper(keeper) => keeper.next(ground),
            Role::Follower(follower) => follower.next(ground),
            Role::Locker(locker) => locker.next(ground),
            Role::Noise => Next::Noise,
            Role::Once(once) => once.next(ground),
            Role::Administrator(administrator) => match administrator.asks.front() {
                Some(asked) => Next::Ask(asked.clone()),
                None => Next::Sleep(ADMINISTRATOR_LOOKS),
            },
        }
    }

    /// How it went; says how long to wait before the next.
    pub fn learn(&mut self, ground: &mut Ground, asked: &Asked, outcome: &Outcome) -> Duration {
        match self {
            Role::Agent { registered, ttl, .. } => match (asked, outcome) {
                (Asked::Register { .. }, Outcome::Done(Answered::Heard(..))) => {
                    *registered = true;
                    ground.rng.jitter(Duration::from_millis(300))
                }
                (Asked::Status { .. }, Outcome::Done(Answered::Heard(_, told))) => {
                    *ttl = Duration::from_nanos(*told);
                    ttl.mul_f64(0.1) + ground.rng.jitter(ttl.mul_f64(0.7))
                }
                (_, Outcome::Refused(_)) => {
                    *registered = false;
                    ground.rng.jitter(Duration::from_secs(1))
                }
                _ => ground.rng.jitter(Duration::from_millis(500)),
            },
            Role::Watcher { seen, .. } => {
                if let Outcome::Done(Answered::Node(index, _) | Answered::Nodes(index, _)) = outcome {
                    *seen = *index;
                }
                ground.rng.jitter(Duration::from_millis(100))
            }
            Role::Registrar { node } => {
                *node += usize::from(matches!(outcome, Outcome::Done(_)));
                ground.rng.jitter(Duration::from_millis(20))
            }
            Role::Keeper(keeper) => match asked {
                Asked::Var(asked) => keeper.learn(ground, asked, outcome),
                _ => Duration::ZERO,
            },
            Role::Follower(follower) => follower.learn(ground, outcome),
            Role::Locker(locker) => match asked {
                Asked::Var(asked) => locker.learn(ground, asked, outcome),
                _ => Duration::ZERO,
            },
            Role::Administrator(administrator) => {
                // A removal is asked for until the server is no member: what became of the last try may be unknown.
                let again = match (asked, outcome) {
                    (_, Outcome::Done(_)) | (Asked::Transfer { .. }, _) => false,
                    (_, Outcome::Refused(text)) => !text.contains("was not found"),
                    _ => true,
                };
                if !again {
                    administrator.asks.pop_front();
                }
                // A transfer is not asked for again, whatever became of it.
                if matches!(asked, Asked::Transfer { .. }) { ADMINISTRATOR_LOOKS } else { Duration::from_secs(1) }
            }
            Role::Once(once) => once.learn(ground, asked, outcome),
            Role::Operator => ground.rng.jitter(Duration::from_millis(1500)),
            Role::Subscriber { .. } | Role::Noise => ground.rng.jitter(Duration::from_secs(3)),
        }
    }
}

fn operator(ground: &mut Ground) -> Next {
    let node = ground.rng.below(ground.options.nodes as u64) as usize;
    Next::Ask(match ground.rng.below(100) {
        0..12 => Asked::Drain { node, nonce: ground.nonce() },
        12..22 => Asked::EndDrain { node, mark: ground.rng.chance(1, 2), nonce: ground.nonce() },
        22..37 => Asked::Eligibility { node, eligible: ground.rng.chance(1, 2) },
        37..43 => Asked::Deregister { node },
        43..60 => Asked::Get { node, min: 0, wait_nanos: 0 },
        60..75 => {
            let letters = ground.rng.below(3) as usize;
            let id = ground.fleet.get(node).map_or("", |node| node.id.as_str());
            Asked::List { prefix: id.chars().take(letters).collect(), min: 0, wait_nanos: 0 }
        }
        75..92 => Asked::CallNode { node, nonce: ground.nonce() },
        _ => Asked::Ping,
    })
}
