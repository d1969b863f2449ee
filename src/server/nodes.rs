//! Which connections lead to which node (requirements R1.55 to R1.59).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::id::ConnId;
use crate::base::time::WallTime;

/// Connections by node, the latest last.
#[derive(Clone, Debug, Default)]
pub struct NodeConns {
    by_node: BTreeMap<Arc<str>, Vec<(ConnId, WallTime)>>,
}

impl NodeConns {
    /// The connection leads to the node. One that is there already has its time renewed and becomes the latest.
    pub fn bind(&mut self, node_id: &Arc<str>, conn: ConnId, wall: WallTime) {
        let conns = self.by_node.entry(node_id.clone()).or_default();
        conns.retain(|(held, _)| *held != conn);
        conns.push((conn, wall));
    }

    /// The connection has ended. The node goes with its last one.
    pub fn unbind(&mut self, node_id: &str, conn: ConnId) {
        if let Some(conns) = self.by_node.get_mut(node_id) {
            conns.retain(|(held, _)| *held != conn);
            if conns.is_empty() {
                self.by_node.remove(node_id);
            }
        }
    }

    /// The node's connections, the latest first.
    pub fn of(&self, node_id: &str) -> impl Iterator<Item = (ConnId, WallTime)> + '_ {
        self.by_node.get(node_id).into_iter().flat_map(|conns| conns.iter().rev().copied())
    }

    /// How many nodes are connected.
    pub fn len(&self) -> usize {
        self.by_node.len()
    }

    /// True when none is.
    pub fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_connection_is_used_and_the_last_one_takes_the_node_along() {
        // R1.56, R1.57, R1.58
        let (node, wall): (Arc<str>, _) = ("n".into(), WallTime::from_unix_nanos);
        let mut conns = NodeConns::default();
        conns.bind(&node, ConnId(1), wall(1));
        conns.bind(&node, ConnId(2), wall(2));
        assert_eq!(conns.of("n").map(|c| c.0).collect::<Vec<_>>(), [ConnId(2), ConnId(1)]);
        conns.bind(&node, ConnId(1), wall(3));
        assert_eq!(conns.of("n").next(), Some((ConnId(1), wall(3))));
        conns.unbind("n", ConnId(1));
        assert_eq!(conns.of("n").next(), Some((ConnId(2), wall(2))));
        conns.unbind("n", ConnId(7));
        assert_eq!(conns.len(), 1);
        conns.unbind("n", ConnId(2));
        assert!(conns.is_empty());
    }
}
