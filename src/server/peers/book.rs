//! The book of servers: who is known in the region, where each is reached, and what it said of itself last.
//!
//! What a server says of itself, and what others pass on, carries the time since when it holds: the newer one counts,
//! so that a server that moved is found again (R8.19).

use std::collections::BTreeMap;

use crate::base::time::{Instant, WallTime};
use crate::wire::raft::{Beat, Hello, ServerHello};

/// Servers in the book, at most.
const SERVERS_MAX: usize = 64;

/// Another server.
#[derive(Clone, Debug, Default)]
pub(in crate::server) struct Peer {
    /// Who it is.
    pub(in crate::server) server: ServerHello,
    /// What it said of itself in its last hello to this process; `None` while only others told of it.
    pub(in crate::server) told: Option<Told>,
    /// When anything came from it.
    pub(in crate::server) heard: Option<Instant>,
    /// What it said last of how it is.
    pub(in crate::server) beat: Beat,
    /// Since when it is reached and keeps up, as a leader sees it.
    pub(in crate::server) stable: Option<(Instant, WallTime)>,
}

/// What only the server itself can say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Told {
    pub(in crate::server) cluster_id: String,
    pub(in crate::server) bootstrap_expect: u64,
    pub(in crate::server) founders: Vec<String>,
    pub(in crate::server) removed: bool,
}

/// All servers of the region that are known.
#[derive(Debug)]
pub(in crate::server) struct Book {
    own: ServerHello,
    peers: BTreeMap<String, Peer>,
}

impl Book {
    pub(super) fn new(own: ServerHello) -> Book {
        Book { own, peers: BTreeMap::new() }
    }

    /// This server.
    pub(in crate::server) fn own(&self) -> &ServerHello {
        &self.own
    }

    /// The others, by id.
    pub(in crate::server) fn peers(&self) -> impl Iterator<Item = (&String, &Peer)> {
        self.peers.iter()
    }

    pub(in crate::server) fn peer(&self, id: &str) -> Option<&Peer> {
        self.peers.get(id)
    }

    /// Changes what is noted of each.
    pub(super) fn each(&mut self, change: impl FnMut(&mut Peer)) {
        self.peers.values_mut().for_each(change);
    }

    pub(super) fn peer_mut(&mut self, id: &str) -> Option<&mut Peer> {
        self.peers.get_mut(id)
    }

    pub(in crate::server) fn by_replica(&self, replica: u64) -> Option<&Peer> {
        self.peers.values().find(|peer| peer.server.replica == replica)
    }

    /// Whom this address leads to, as far as is known: of two who claim it, the later one.
    pub(super) fn at_address(&self, address: &str) -> Option<&str> {
        let there = self.peers.values().filter(|peer| peer.server.rpc_addr == address);
        there.max_by_key(|peer| peer.server.since).map(|peer| peer.server.id.as_str())
    }

    /// Takes what was said of a server, by itself or by others. True when that was news.
    pub(super) fn learn(&mut self, server: &ServerHello) -> bool {
        let useless = server.id.is_empty() || server.replica == 0 || server.rpc_addr.is_empty();
        if useless || server.id == self.own.id || server.region != self.own.region {
            return false;
        }
        let is_full = self.peers.len() >= SERVERS_MAX;
        match self.peers.get_mut(&server.id) {
            Some(known) if known.server.since < server.since => known.server = server.clone(),
            Some(_) => return false,
            None if is_full => return false,
            None => {
                self.peers.insert(server.id.clone(), Peer { server: server.clone(), ..Peer::default() });
            }
        }
        true
    }

    /// Takes a hello of the server itself. True when that was news.
    pub(super) fn hear(&mut self, now: Instant, hello: &Hello) -> bool {
        let mut news = self.learn(&hello.server);
        for other in &hello.known {
            news |= self.learn(other);
        }
        let Some(peer) = self.peers.get_mut(&hello.server.id) else { return news };
        let told = Told {
            cluster_id: hello.cluster_id.clone(),
            bootstrap_expect: hello.bootstrap_expect,
            founders: hello.founders.clone(),
            removed: hello.removed,
        };
        peer.told = Some(told);
        peer.heard = Some(now);
        // A hello comes from a process that runs: it has stopped to leave.
        peer.beat.leaving = false;
        news
    }

    /// All others, as they are told of.
    pub(super) fn known(&self) -> Vec<ServerHello> {
        self.peers.values().map(|peer| peer.server.clone()).collect()
    }

    /// Why a server that says hello is none of ours, if so.
    pub(super) fn objection(&self, hello: &Hello, version: u64, cluster_id: &str) -> Option<String> {
        let server = &hello.server;
        if hello.version != version {
            return Some(format!("it speaks version {} of the servers' protocol, not {version}", hello.version));
        }
        if server.region != self.own.region {
            return Some(format!("it is of region {:?}, not {:?}", server.region, self.own.region));
        }
        if !hello.cluster_id.is_empty() && !cluster_id.is_empty() && hello.cluster_id != cluster_id {
            return Some(format!("it belongs to cluster {}, not {cluster_id}", hello.cluster_id));
        }
        if server.id.is_empty() || server.replica == 0 || server.rpc_addr.is_empty() {
            return Some("it does not say who it is".to_owned());
        }
        let clash = |other: &ServerHello| other.replica == server.replica && other.id != server.id;
        if clash(&self.own) || self.peers.values().any(|peer| clash(&peer.server)) {
            return Some(format!("replica {} is another server", server.replica));
        }
        if self.peers.len() >= SERVERS_MAX && !self.peers.contains_key(&server.id) && server.id != self.own.id {
            return Some(format!("more than {SERVERS_MAX} servers are known"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str, replica: u64, address: &str, since: i64) -> ServerHello {
        ServerHello {
            id: id.to_owned(),
            replica,
            region: "global".to_owned(),
            rpc_addr: address.to_owned(),
            since,
            ..ServerHello::default()
        }
    }

    #[test]
    fn the_newer_address_counts() {
        // R8.19
        let mut book = Book::new(server("a", 1, "a:1", 1));
        for (said, news, address) in [
            (server("b", 2, "b:1", 5), true, "b:1"),
            (server("b", 2, "b:0", 4), false, "b:1"),
            (server("b", 2, "b:2", 6), true, "b:2"),
            (server("b", 2, "", 7), false, "b:2"),
            (server("b", 0, "b:3", 7), false, "b:2"),
        ] {
            assert_eq!(book.learn(&said), news, "{said:?}");
            assert_eq!(book.peer("b").map(|peer| peer.server.rpc_addr.as_str()), Some(address));
        }
        assert!(!book.learn(&server("a", 1, "other:1", 9)), "of itself it knows best");
        assert!(book.learn(&server("c", 3, "b:2", 9)));
        assert_eq!(book.at_address("b:2"), Some("c"), "who came later is there");
    }

    #[test]
    fn the_book_is_bounded() {
        // R6.9
        let mut book = Book::new(server("a", 1, "a:1", 1));
        for n in 2..200 {
            book.learn(&server(&format!("s{n}"), n, "x:1", 1));
        }
        assert_eq!(book.peers().count(), SERVERS_MAX);
    }

    #[test]
    fn strangers_are_refused() {
        let mut book = Book::new(server("a", 1, "a:1", 1));
        book.learn(&server("c", 3, "c:1", 1));
        let hello = |change: fn(&mut Hello)| {
            let mut hello =
                Hello { version: 1, cluster_id: "x".to_owned(), server: server("b", 2, "b:1", 1), ..Hello::default() };
            change(&mut hello);
            hello
        };
        type Case = (&'static str, fn(&mut Hello), Option<&'static str>);
        let cases: [Case; 7] = [
            ("fine", |_| {}, None),
            ("no cluster yet", |h| h.cluster_id.clear(), None),
            ("version", |h| h.version = 2, Some("version 2")),
            ("region", |h| h.server.region = "mars".to_owned(), Some("region \"mars\"")),
            ("cluster", |h| h.cluster_id = "y".to_owned(), Some("cluster y, not x")),
            ("nobody", |h| h.server.id.clear(), Some("who it is")),
            ("clash", |h| h.server.replica = 3, Some("another server")),
        ];
        for (name, change, expected) in cases {
            let got = book.objection(&hello(change), 1, "x");
            match expected {
                None => assert_eq!(got, None, "{name}"),
                Some(part) => assert!(got.as_ref().is_some_and(|text| text.contains(part)), "{name}: {got:?}"),
            }
        }
    }
}
