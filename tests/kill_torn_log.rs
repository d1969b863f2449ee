//! A data directory that the daemon made, its log torn or damaged at each byte of its end: what was acknowledged before
//! the torn record is there, or the start is refused with the file named. Never a panic, never silently less.
//!
//! Opened by the recovery code itself, for speed, and some by the daemon. Sources: reliability goals 4, 15.

#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod hostile_rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use holdfast::base::id::Index;
use holdfast::consensus::LogEntry;
use holdfast::edge::log_store::RaftEngineLog;

use hostile_rig::daemon::{Daemon, Setup};
use hostile_rig::nodes;
use hostile_rig::peer::Plain;

/// Writes that were acknowledged one after the other, so that each has a record of its own.
const WRITES: u64 = 12;

/// Stands once in each record.
const STAMP: &[u8] = b"holdfast:stamp:1";

/// What the daemon left behind when it was killed.
struct Left {
    folder: tempfile::TempDir,
    /// Its newest log file, by name.
    name: String,
    bytes: Vec<u8>,
    /// All that is in it.
    entries: Vec<LogEntry>,
    /// Where the stamp of each record begins.
    stamps: Vec<usize>,
}

impl Left {
    /// A directory where the newest file holds these bytes.
    fn with(&self, bytes: &[u8]) -> tempfile::TempDir {
        // Only the original must be on a disk; thousands of copies are read faster from memory.
        let to = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        copy(&self.folder.path().join("data"), &to.path().join("data"));
        fs::write(to.path().join("data/raft").join(&self.name), bytes).unwrap();
        to
    }

    /// What the recovery code makes of such a directory.
    fn open(&self, bytes: &[u8]) -> Result<Vec<LogEntry>, String> {
        let folder = self.with(bytes);
        let opened = std::panic::catch_unwind(|| {
            let mut log = RaftEngineLog::open(&folder.path().join("data"))?;
            log.entries_after(Index(0))
        });
        opened.unwrap_or_else(|_| panic!("the recovery panicked"))
    }

    /// Where the last record's predecessor surely ends: its stamp.
    fn last_region(&self) -> usize {
        self.stamps[self.stamps.len() - 2] + STAMP.len() + 36
    }

    /// Writes that must be there when only the bytes before `at` are whole: those with a whole record after them.
    fn must_have(&self, at: usize) -> u64 {
        let later = |number: &u64| {
            let place = find(&self.bytes, mark(*number).as_bytes())[0];
            let own = self.stamps.iter().position(|stamp| *stamp > place).unwrap();
            self.stamps.get(own + 1).is_some_and(|next| *next <= at)
        };
        (1..=WRITES).filter(later).count() as u64
    }

    /// The entries are the first ones of what was there, with all writes that must be among them.
    #[track_caller]
    fn check(&self, at: usize, how: &str, entries: &[LogEntry]) {
        assert_eq!(entries, &self.entries[..entries.len().min(self.entries.len())], "{how} at {at}: other entries");
        let has = entries.iter().filter(|entry| !find(&entry.data, b"torn-").is_empty()).count() as u64;
        let must = self.must_have(at);
        assert!(has >= must, "{how} at {at}: {has} writes, {must} were acknowledged before");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &to.join(file.file_name()));
        } else {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Vec<usize> {
    bytes.windows(what.len()).enumerate().filter(|(_, window)| *window == what).map(|(at, _)| at).collect()
}

/// A text that stands in the record of one write only.
fn mark(number: u64) -> String {
    format!("torn-{number:04}-")
}

fn register(number: u64) -> Vec<u8> {
    use holdfast::wire::msgpack::{Encoder, Msg};
    let mut e = Encoder::new();
    e.map(1);
    e.str("mark");
    e.str(&mark(number));
    // The node of the rig, with a mark in words.
    let request = nodes::register(number, number, 0);
    let plain = request.to_bytes();
    let place = find(&plain, b"\xaaAttributes")[0] + 11;
    let old = holdfast::wire::msgpack::Decoder::new(&plain[place..]).raw().unwrap().len();
    [&plain[..place], &e.out, &plain[place + old..]].concat()
}

fn newest(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("data/raft")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|kind| kind == "raftlog")).max().unwrap()
}

fn left() -> &'static Left {
    static LEFT: OnceLock<Left> = OnceLock::new();
    LEFT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start_in(folder.path(), "");
        let mut client = Plain::connect(daemon.rpc);
        for number in 1..=WRITES {
            client.call("Node.Register", &register(number)).unwrap().unwrap();
        }
        daemon.kill();
        let path = newest(folder.path());
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut bytes = fs::read(&path).unwrap();
        let stamps = find(&bytes, STAMP);
        // Space laid out ahead is no part of a record.
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes.truncate(end.max(stamps.last().unwrap() + STAMP.len() + 36));
        let mut left = Left { folder, name, bytes, entries: Vec::new(), stamps };
        left.entries = left.open(&left.bytes).unwrap();
        assert!(left.entries.len() as u64 >= WRITES && left.stamps.len() as u64 >= WRITES, "{}", left.stamps.len());
        left.check(left.bytes.len(), "whole", &left.entries);
        assert!(left.must_have(left.bytes.len()) >= WRITES - 1);
        left
    })
}

// Goal 4: a power cut tears the last record at each byte, and the space behind it may hold zeros or what was there.
#[test]
fn a_log_torn_at_each_byte_of_its_last_record() {
    let left = left();
    let mut opened = 0;
    for at in left.last_region()..=left.bytes.len() {
        let kept = &left.bytes[..at];
        for (how, torn) in [
            ("cut", kept.to_vec()),
            ("cut, then zeros", [kept, &[0; 4096]].concat()),
            ("cut, then what was there before", [kept, &left.bytes[200..600]].concat()),
        ] {
            match left.open(&torn) {
                Ok(entries) => {
                    left.check(at, how, &entries);
                    opened += 1;
                }
                Err(why) => {
                    assert!(why.contains(&left.name) && why.contains("damaged"), "{how} at {at}: {why}");
                    assert!(how.contains("before"), "{how} at {at} is what a power cut does: {why}");
                }
            }
        }
    }
    assert!(opened > 100, "only {opened} could be opened");
}

// Goal 15: in the last record a flipped byte looks like a torn one; before it, it is found and named.
#[test]
fn a_log_with_a_flipped_byte() {
    let left = left();
    let (begin, mut refused) = (left.last_region(), 0);
    // All of the end, and each seventh byte before it.
    for at in (0..begin).step_by(7).chain(begin..left.bytes.len()) {
        let mut damaged = left.bytes.clone();
        damaged[at] ^= 0x10;
        match left.open(&damaged) {
            Ok(entries) => left.check(at, "flipped", &entries),
            Err(why) => {
                assert!(why.contains(&left.name) && why.contains("damaged"), "flipped at {at}: {why}");
                refused += 1;
            }
        }
    }
    assert!(refused * 7 > begin * 8 / 10, "only {refused} of {} were refused", begin / 7);
}

// Goals 4, 15: the same through the whole daemon.
#[test]
fn the_daemon_starts_on_a_torn_log_and_refuses_a_damaged_one() {
    let left = left();
    let (begin, end) = (left.last_region(), left.bytes.len());
    for at in [begin + 1, (begin + end) / 2, end - 1, end] {
        let folder = left.with(&left.bytes[..at]);
        let mut daemon = Daemon::start_in(folder.path(), "");
        let mut client = Plain::connect(daemon.rpc);
        let nodes: nodes::Listed = client.ask("Node.List", &nodes::list_all()).unwrap().unwrap();
        let (has, must) = (nodes.nodes.len() as u64, left.must_have(at));
        assert!(has >= must, "cut at {at}: {has} nodes, {must} were acknowledged before");
        // And it goes on from there.
        client.call("Node.Register", &register(77)).unwrap().unwrap();
        daemon.kill();
        let mut daemon = Daemon::start_in(folder.path(), "");
        let mut client = Plain::connect(daemon.rpc);
        let again: nodes::Listed = client.ask("Node.List", &nodes::list_all()).unwrap().unwrap();
        assert_eq!(again.nodes.len() as u64, has + 1);
        daemon.assert_sound();
    }
    for at in [begin / 3, begin / 2] {
        let mut damaged = left.bytes.clone();
        damaged[at] ^= 1;
        let folder = left.with(&damaged);
        let Err((status, log)) = Setup::new(folder.path(), "").start() else { panic!("started with damage at {at}") };
        assert_eq!(status.code(), Some(2), "{log}");
        let line = log.lines().find(|line| line.contains(&left.name)).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("damaged") && line.contains("byte"), "{line}");
        assert!(!log.contains("panicked"), "{log}");
    }
}
