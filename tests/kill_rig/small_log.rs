//! The consensus thread over a real disk, in a child process of the test program, with a snapshot every few entries.
//!
//! The child says on standard output what it has after its start, then what is acknowledged; the parent kills it and
//! compares.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use holdfast::base::id::{CallId, ReplicaId};
use holdfast::base::rng::Rng;
use holdfast::base::time::Clock;
use holdfast::consensus::raft::RaftReplica;
use holdfast::consensus::{Limits, Notice, Proposal, Resolution};
use holdfast::edge::clock::SystemClock;
use holdfast::edge::consensus_thread::{ConsensusCommand, ConsensusParts, spawn};
use holdfast::edge::data_dir::DataDir;
use holdfast::wire::entry;
use holdfast::wire::msgpack::{Encoder, Raw};

use crate::hostile_rig::nodes;

const FOLDER: &str = "HOLDFAST_TEST_CHILD_FOLDER";
const NODES: u64 = 40;
/// Proposals that are handed over together.
const BATCH: u64 = 8;

fn limits() -> Limits {
    Limits {
        max_entry_bytes: 1 << 20,
        warn_entry_bytes: 1 << 20,
        snapshot_entries: 25,
        snapshot_bytes: 1 << 20,
        tick: Duration::from_millis(100),
        election_ticks: 10,
        heartbeat_ticks: 2,
        stalled_sync: Duration::from_secs(10),
        max_waiting_proposals: 1000,
    }
}

/// Starts children and kills them at chosen moments.
pub fn parent(kills: u64, seed: u64) {
    let mut rng = Rng::from_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let mut writes = 0;
    for round in 0..=kills {
        let (have, acks) = run_child(folder.path(), &mut rng);
        for (number, (mark, index)) in &acknowledged {
            let found = have.get(number).unwrap_or_else(|| panic!("round {round}: node {number} is lost"));
            assert!(
                found.0 >= *mark && found.1 >= *index,
                "round {round}: node {number}: {found:?}, not {mark} {index}"
            );
            assert_eq!(found.0 == *mark, found.1 == *index, "round {round}: node {number}");
        }
        writes += acks.len();
        acknowledged.extend(have);
        for (number, mark, index) in acks {
            let before = acknowledged.insert(number, (mark, index));
            assert!(before.is_none_or(|(_, before)| before < index), "round {round}: an index went backward");
        }
    }
    let snapshots = std::fs::read_dir(folder.path().join("snapshots")).unwrap().count();
    eprintln!("{kills} kills, {writes} acknowledged writes, none lost; {snapshots} snapshots are kept");
    assert!((1..=3).contains(&snapshots), "{snapshots} snapshots");
}

type Have = BTreeMap<u64, (u64, u64)>;

/// What a child had when it began, and what it then said was written.
fn run_child(folder: &Path, rng: &mut Rng) -> (Have, Vec<(u64, u64, u64)>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "small_log_child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (mut have, mut acks, mut ready) = (Have::new(), Vec::new(), false);
    let until = rng.below(200);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut killed = false;
    // What is still in the pipe after the kill was said before it.
    while let Some(Ok(line)) = lines.next() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "have" => drop(have.insert(number(1), (number(2), number(3)))),
            "ready" => ready = true,
            "ack" if words.len() == 4 => acks.push((number(1), number(2), number(3))),
            _ => {}
        }
        if ready && acks.len() as u64 >= until && !killed {
            std::thread::park_timeout(Duration::from_micros(rng.below(2000)));
            child.kill().unwrap();
            killed = true;
        }
    }
    let status = child.wait().unwrap();
    assert!(killed, "the child ended by itself: {status}");
    (have, acks)
}

/// Opens what is there, tells it, then writes until it is killed.
pub fn child() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let dir = DataDir::open(Path::new(&folder)).unwrap_or_else(|why| panic!("{why}"));
    assert!(dir.warnings.is_empty(), "{:?}", dir.warnings);
    let clock = SystemClock::start();
    let replica =
        RaftReplica::new(ReplicaId(1), 1, limits(), dir.recovered, Some(vec![ReplicaId(1)]), clock.now()).unwrap();
    let root = Arc::new(ArcSwap::new(replica.root().clone()));
    let (commands, receiver) = crossbeam_channel::bounded(16);
    let (sender, notices) = crossbeam_channel::bounded(16);
    let snapshots = dir.snapshots;
    let thread = spawn(ConsensusParts {
        replica: Box::new(replica),
        log: Box::new(dir.log),
        write_snapshot: Arc::new(move |meta, state| snapshots.write(meta, state)),
        commands: receiver,
        inputs: crossbeam_channel::never(),
        root: root.clone(),
        notices: sender,
        wake: Box::new(|| ()),
        clock: Box::new(clock),
    });
    let mut out = std::io::stdout().lock();
    // The test program has begun a line of its own.
    writeln!(out).unwrap();
    let mut first = 0;
    let mut waiting = 0;
    loop {
        for notice in notices.recv().unwrap() {
            match notice {
                Notice::Leadership(leadership) if leadership.ready => first = tell(&root, &mut out),
                Notice::Resolved { id, resolution: Resolution::Applied { index, .. } } => {
                    writeln!(out, "ack {} {} {index}", id.0 % NODES, id.0).unwrap();
                    out.flush().unwrap();
                    waiting -= 1;
                }
                Notice::Resolved { resolution, .. } => panic!("{resolution:?}"),
                Notice::Fatal(why) => panic!("{why}"),
                _ => {}
            }
        }
        if first > 0 && waiting == 0 {
            let proposals = (first..first + BATCH).map(|mark| {
                let node = nodes::register(mark % NODES, mark, 100).node.raw;
                Proposal { id: CallId(mark), session: None, command: entry::Command::NodeRegister { node } }
            });
            commands.send(ConsensusCommand::Propose(clock.now(), proposals.collect())).unwrap();
            (first, waiting) = (first + BATCH, BATCH);
        }
        assert!(thread.as_ref().is_ok_and(|thread| !thread.is_finished()));
    }
}

/// Says what there is; gives the first mark to write next.
fn tell(root: &ArcSwap<holdfast::state::State>, out: &mut impl Write) -> u64 {
    let state = root.load();
    let mut newest = 0;
    for number in 0..NODES {
        let Some(node) = state.node(&nodes::node_id(number)) else { continue };
        let mut e = Encoder::new();
        e.map(node.rest_len);
        e.raw(&node.rest);
        let mark = nodes::mark_in(&Raw(e.out.into())).expect("a node keeps its mark");
        writeln!(out, "have {number} {mark} {}", node.modify_index).unwrap();
        newest = newest.max(mark);
    }
    writeln!(out, "ready").unwrap();
    out.flush().unwrap();
    newest + 1
}
