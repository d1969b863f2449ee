//! More than a server can take: it says so to whoever asks for too much, and goes on for all others (R6.7, R6.8, R6.9,
//! R8.23).

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod cluster_rig;
mod rig;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster_rig::{Cluster, Shape};
use rig::nodes::{SECRET, beat, id, registration, session};
use rig::peer::Read1;
use rig::talk::call_once;
use rig::{Daemon, Peer, Setup, Talk, Value, eventually, json, patience};

/// An index that no state reaches.
const FAR: u64 = 1 << 40;
/// Far above what any answer here takes, and far below what a thread that waits would.
const AT_ONCE: Duration = Duration::from_secs(5);

const NO_LIMITS: &str = "[limits]\nrpc_max_conns_per_client = 0\nhttp_max_conns_per_client = 0\n";

/// A session with so many streams on which this was asked, and no answer is there.
fn asked(rpc: SocketAddr, count: u32, method: &str, body: &Value) -> (Talk, Vec<u32>) {
    let mut talk = Talk::dial(rpc, 6);
    let mut streams = Vec::new();
    for number in 0..count {
        let stream = talk.open();
        talk.request(stream, method, body);
        streams.push(stream);
        // Never more than a backlog of streams that were not taken.
        if number % 128 == 127 {
            talk.ping(number);
        }
    }
    (talk, streams)
}

/// Calls that need nobody are answered at once, on a connection that is there and on new ones.
#[track_caller]
fn answers_at_once(rpc: SocketAddr, talk: &mut Talk, stream: u32) {
    for _ in 0..50 {
        let from = Instant::now();
        talk.call(stream, "Status.Ping", &json!({})).ok();
        call_once(rpc, "Status.Ping", &json!({})).ok();
        assert!(from.elapsed() < AT_ONCE, "{:?}", from.elapsed());
    }
}

// R6.7: nothing of this waits on a thread, of which there are two.
#[test]
fn what_waits_holds_up_no_handler() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let west = silent.local_addr().unwrap();
    let config = format!(
        "[rpc]\nhold_timeout = \"60s\"\nhandler_threads = 2\n[cluster]\nbootstrap_expect = 3\n\
         [regions]\nwest = [\"{west}\"]\n{NO_LIMITS}"
    );
    let daemon = Setup::new(&config).without_leader().start();
    let mut pinging = Talk::dial(daemon.rpc, 6);
    let ping = pinging.open();
    answers_at_once(daemon.rpc, &mut pinging, ping);
    let threads = daemon.threads();

    let parks = json!({ "Region": "global", "AllowStale": true, "MinQueryIndex": FAR });
    let mut parked: Vec<_> = (0..4).map(|_| asked(daemon.rpc, 2_500, "Node.List", &parks)).collect();
    daemon.until_metric("holdfast.parked", 10_000.0);
    let (holding, held) = asked(daemon.rpc, 500, "Node.List", &json!({ "Region": "global" }));
    daemon.until_metric("holdfast.held", 500.0);
    let (far, forwarded) = asked(daemon.rpc, 100, "Node.List", &json!({ "Region": "west" }));
    daemon.until_metric("holdfast.forwarded", 100.0);
    let (_taken, _) = silent.accept().unwrap();

    answers_at_once(daemon.rpc, &mut pinging, ping);
    let stale = json!({ "Region": "global", "AllowStale": true });
    for _ in 0..20 {
        let from = Instant::now();
        assert_eq!(pinging.call(ping, "Node.List", &stale).ok()["Nodes"], json!([]), "handlers are free");
        assert!(from.elapsed() < AT_ONCE, "{:?}", from.elapsed());
    }
    assert!(daemon.threads() <= threads, "{} threads, {threads} before", daemon.threads());
    // Nothing came of what waits.
    for (talk, streams) in parked.iter_mut().chain([&mut (holding, held), &mut (far, forwarded)]) {
        talk.ping(u32::MAX);
        assert!(streams.iter().all(|stream| !talk.has_item(*stream)));
    }
}

// R6.9: the queue of the handlers. What is over it is refused by itself, and the rest is answered.
#[test]
fn handlers_that_have_too_much_to_do_refuse_the_rest() {
    let daemon = Daemon::start(&format!("[rpc]\nhandler_threads = 1\n{NO_LIMITS}"));
    let mut writer = Talk::dial(daemon.rpc, 6);
    let writing = writer.open();
    for number in 0..200 {
        writer.call(writing, "Node.Register", &registration(&id(number))).ok();
    }
    let mut pinging = Talk::dial(daemon.rpc, 6);
    let ping = pinging.open();
    // Much to look at, and nothing to answer.
    let never = r#"Name contains "never" and Datacenter matches "^d.+1x$" and Status != "ready""#;
    let search = json!({ "Region": "global", "Filter": never });
    let mut talks: Vec<(Talk, Vec<u32>)> = (0..8)
        .map(|_| {
            let mut talk = Talk::dial(daemon.rpc, 6);
            let streams: Vec<u32> = (0..1_000)
                .map(|number| {
                    let stream = talk.open();
                    if number % 128 == 127 {
                        talk.ping(number);
                    }
                    stream
                })
                .collect();
            (talk, streams)
        })
        .collect();
    for (talk, streams) in &mut talks {
        for stream in streams {
            talk.request(*stream, "Node.List", &search);
        }
    }
    answers_at_once(daemon.rpc, &mut pinging, ping);
    let mut texts: BTreeMap<String, usize> = BTreeMap::new();
    for (talk, streams) in &mut talks {
        for stream in streams {
            *texts.entry(talk.reply(*stream).error).or_default() += 1;
        }
    }
    let refused = texts.remove("server is overloaded: too many requests wait for a handler").unwrap_or(0);
    let served = texts.remove("").unwrap_or(0);
    assert!(texts.is_empty(), "{texts:?}");
    assert!(refused > 0 && served >= 4096, "{served} served, {refused} refused");
    assert_eq!(daemon.metric("holdfast.handler.overload"), refused as f64);
    // It is over.
    assert_eq!(pinging.call(ping, "Node.List", &search).ok()["Nodes"], json!([]));
}

// R6.9: links of servers that say nothing have a number and a time; a frame has a length.
#[test]
fn strangers_that_would_be_servers_are_few_and_brief() {
    let daemon = Daemon::start(NO_LIMITS);
    let mut links: Vec<Peer> = (0..160).map(|_| Peer::dial(daemon.rpc)).collect();
    links.iter_mut().for_each(|link| link.write(&[2]));
    let raft = || daemon.metrics().labelled("holdfast.connections", "raft");
    eventually("the most links that there may be", || (raft() == 128.0).then_some(()));
    call_once(daemon.rpc, "Status.Ping", &json!({})).ok();
    // 300 KiB before it has said who it is; no byte of them is waited for.
    drop(links.split_off(64));
    eventually("room", || (raft() <= 64.0).then_some(()));
    let mut loud = Peer::dial(daemon.rpc);
    loud.write(&[&[2][..], &(300u32 << 10).to_be_bytes()].concat());
    assert!(matches!(loud.read(patience()), Read1::End(_)));
    let line = daemon.log.until("frame before the hello is too large");
    assert!(line.contains("127.0.0.1:"), "{line}");
    // Who never says who it is, is let go.
    links.iter_mut().for_each(|link| assert!(matches!(link.read(patience()), Read1::End(_))));
    eventually("the end of all", || (raft() == 0.0).then_some(()));
}

/// Each with one write of 700 KiB under way: together nearly twice of what may wait to be agreed on.
const FLOODERS: u64 = 160;

/// What a flood of large writes came to.
#[derive(Default)]
struct Flood {
    ends: AtomicBool,
    done: AtomicU64,
    refused: Mutex<BTreeMap<String, u64>>,
}

/// Registers a large node again and again without a pause.
fn flood(rpc: SocketAddr, number: u64, flood: &Flood) {
    let large = "x".repeat(700 << 10);
    let mut talk = Talk::dial(rpc, 1);
    let mut turn = 0u64;
    while !flood.ends.load(Ordering::Relaxed) {
        turn += 1;
        let id = id(1_000_000 + number);
        let node = json!({
            "ID": id, "SecretID": SECRET, "Datacenter": "dc1", "Name": id, "Status": "ready",
            "Attributes": { "nomad.version": "2.0.5", "large": large, "turn": turn.to_string() },
        });
        let reply = talk.call(0, "Node.Register", &json!({ "Region": "global", "Node": node }));
        if reply.error.is_empty() {
            flood.done.fetch_add(1, Ordering::Relaxed);
        } else {
            *flood.refused.lock().unwrap().entry(reply.error).or_default() += 1;
        }
    }
}

// R8.23: far more is written than the log takes. Nobody is elected, nodes are heard, and refusals say why.
#[test]
fn a_flood_of_writes_costs_neither_the_leader_nor_a_heartbeat() {
    let tables = "[heartbeat]\nmin_ttl = \"2s\"\ngrace = \"4s\"\nmax_per_second = 1000.0\n";
    let cluster = Cluster::start(Shape::of(3).tables(tables));
    let leader = cluster.until_leader();
    let follower = cluster.running_but(leader)[0];
    let term = || cluster.daemon(leader).metric("holdfast.raft.term");
    let before = term();
    let (mut node, all) = (session(cluster.daemon(follower).rpc, &id(1)), Flood::default());
    let stream = node.open();
    node.call(stream, "Node.UpdateStatus", &beat(&id(1))).ok();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for number in 0..FLOODERS {
            let (rpc, all) = (cluster.daemon(leader).rpc, &all);
            scope.spawn(move || flood(rpc, number, all));
        }
        let until = Instant::now() + Duration::from_secs(4);
        while Instant::now() < until || all.done.load(Ordering::Relaxed) < 60 {
            let from = Instant::now();
            node.call(stream, "Node.UpdateStatus", &beat(&id(1))).ok();
            slowest = slowest.max(from.elapsed());
            rig::quiet_for(Duration::from_millis(100));
            assert!(Instant::now() < until + rig::PATIENCE);
        }
        all.ends.store(true, Ordering::Relaxed);
    });
    let refused = all.refused.into_inner().unwrap();
    eprintln!("{} done, refused {refused:?}, slowest heartbeat {slowest:?}", all.done.load(Ordering::Relaxed));
    assert_eq!((term(), cluster.until_leader()), (before, leader), "an election");
    assert!(!refused.is_empty(), "more is written than may wait");
    for text in refused.keys() {
        assert!(text.starts_with("the writes that wait to be agreed on are over "), "{text}");
    }
    let seen = call_once(cluster.daemon(leader).rpc, "Node.GetNode", &json!({ "Region": "global", "NodeID": id(1) }));
    assert_eq!(seen.ok()["Node"]["Status"], "ready");
    cluster.put(follower, "after/flood", 1).unwrap();
}
