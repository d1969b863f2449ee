//! The event loop over real sockets on loopback, with a double of the server machine.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use log::Level;
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

use crate::config::Overrides;
use crate::server::port::Output;

use super::double::{Rig, RigParts};
use super::logging::{Logs, Style};
use super::reload::{ConfigSource, Reloader};
use super::signals::Signals;

/// More than the buffers of both ends of a loopback connection hold.
const MUCH_BYTES: usize = 24 * 1024 * 1024;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes);
}

#[test]
fn bytes_come_back_and_ends_are_told() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    echo(&mut stream, b"hello");
    // Longer than a turn reads, and than the buffer of one read.
    let much = pattern(3_000_000);
    let mut writer = stream.try_clone().unwrap();
    let sent = much.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; much.len()];
    stream.read_exact(&mut back).unwrap();
    thread.join().unwrap();
    assert!(back == much);
    stream.shutdown(Shutdown::Write).unwrap();
    rig.wait("the end", |seen| seen.ended == [conn]);
    // The other half stays open.
    rig.send(conn, b"more".to_vec());
    let mut more = [0; 4];
    stream.read_exact(&mut more).unwrap();
    assert_eq!(&more, b"more");
    assert_eq!(rig.stop(), 0);
}

// R6.8, R6.9
#[test]
fn a_peer_that_never_reads_holds_up_nobody() {
    let rig = Rig::start();
    let (mut slow, conn) = rig.connect();
    let (mut other, _) = rig.connect();
    rig.send(conn, pattern(MUCH_BYTES));
    rig.wait("a first write", |seen| seen.sent.contains_key(&conn));
    for _ in 0..100 {
        echo(&mut other, b"ping");
    }
    assert!(rig.seen().sent.get(&conn).is_some_and(|sent| *sent < MUCH_BYTES));
    let mut all = vec![0; MUCH_BYTES];
    slow.read_exact(&mut all).unwrap();
    assert!(all == pattern(MUCH_BYTES));
    rig.stop();
}

#[test]
fn reading_stops_and_goes_on() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    let (mut other, _) = rig.connect();
    echo(&mut stream, b"on");
    rig.perform(Output::Read { conn, on: false });
    echo(&mut other, b"performed");
    stream.write_all(b"while off").unwrap();
    echo(&mut other, b"later");
    assert_eq!(rig.seen().received.get(&conn), Some(&2));
    rig.perform(Output::Read { conn, on: true });
    let mut back = [0; 9];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"while off");
    rig.stop();
}

#[test]
fn a_socket_that_breaks_is_told_also_while_it_is_not_read() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    echo(&mut stream, b"x");
    rig.perform(Output::Read { conn, on: false });
    let (mut other, _) = rig.connect();
    echo(&mut other, b"performed");
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    rig.wait("the failure", |seen| seen.failed == [conn]);
    rig.stop();
}

// R1.23: what is said last arrives, also when the peer has sent what nobody read.
#[test]
fn a_lingering_close_writes_all_that_waits() {
    let rig = Rig::start();
    rig.seen().echo = false;
    let (mut stream, conn) = rig.connect();
    stream.write_all(b"first").unwrap();
    rig.wait("the bytes", |seen| seen.received.get(&conn) == Some(&5));
    rig.perform(Output::Read { conn, on: false });
    rig.send(conn, pattern(MUCH_BYTES));
    rig.perform(Output::Close { conn, linger: true, abort: false });
    rig.wait("the hand-over", |seen| seen.sent.get(&conn) == Some(&MUCH_BYTES));
    stream.write_all(b"nobody reads this").unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all == pattern(MUCH_BYTES));
    // Nothing of it reaches the machine any more.
    assert_eq!(rig.seen().received.get(&conn), Some(&5));
    assert!(rig.seen().ended.is_empty() && rig.seen().failed.is_empty());
    rig.stop();
}

#[test]
fn a_lingering_close_does_not_wait_for_a_peer_that_stays() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    rig.send(conn, b"bye".to_vec());
    rig.perform(Output::Close { conn, linger: true, abort: false });
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"bye");
    // Our half is closed by the time; then a write is answered by a reset.
    let mut alive = true;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while alive && std::time::Instant::now() < deadline {
        alive = stream.write_all(b"still here?").is_ok();
        std::thread::yield_now();
    }
    assert!(!alive, "the socket is closed after its time");
    rig.stop();
}

#[test]
fn an_abort_is_a_reset_and_a_plain_close_an_end() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    rig.perform(Output::Close { conn, linger: false, abort: true });
    assert_eq!(stream.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (mut stream, conn) = rig.connect();
    rig.perform(Output::Close { conn, linger: false, abort: false });
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    // The slot is used again, with another id.
    assert_ne!(rig.connect().1, conn);
    rig.stop();
}

#[test]
fn nobody_is_accepted_any_more_once_that_is_asked() {
    let rig = Rig::start();
    let (mut stream, _) = rig.connect();
    rig.perform(Output::StopAccepting);
    echo(&mut stream, b"still served");
    assert_eq!(TcpStream::connect(rig.address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(rig.stop(), 0);
}

#[test]
fn the_last_bytes_are_written_before_the_end() {
    let rig = Rig::start();
    let (mut stream, conn) = rig.connect();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    rig.send(conn, pattern(MUCH_BYTES));
    rig.perform(Output::Close { conn, linger: true, abort: false });
    assert_eq!(rig.stop(), 0);
    assert_eq!(reader.join().unwrap(), MUCH_BYTES);
}

#[test]
fn a_thousand_connections() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let rig = Rig::start();
    let mut streams: Vec<TcpStream> = (0..1000).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"all at once").unwrap();
    }
    for stream in &mut streams {
        let mut back = [0; 11];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"all at once");
    }
    drop(streams);
    rig.wait("the ends", |seen| seen.ended.len() == 1000);
    rig.stop();
}

#[test]
fn a_full_way_to_consensus_is_answered_once_nothing_can_wait() {
    use crate::base::id::CallId;
    use crate::consensus::Proposal;
    let rig = Rig::start();
    let proposal = |id| Proposal { id: CallId(id), session: None, command: crate::wire::entry::Command::Noop };
    rig.perform(Output::Propose((0..65_536).map(proposal).collect()));
    rig.perform(Output::Propose(vec![proposal(70_000)]));
    rig.wait("the refusal", |seen| seen.others == ["NotEnqueued { id: CallId(70000) }"]);
    rig.stop();
}

/// This program, also when a newer build has taken its place in the folder.
const OURSELVES: &str = "/proc/self/exe";

/// Runs one test of this file alone in a process of its own, where it may change what all threads share.
fn in_a_child(name: &str) {
    let test = format!("edge::loop_tests::{name}");
    let mut child = Command::new(OURSELVES);
    child.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env("HOLDFAST_TEST_CHILD", name);
    let output = child.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

fn is_child(name: &str) -> bool {
    std::env::var("HOLDFAST_TEST_CHILD").is_ok_and(|child| child == name)
}

/// Delays in the log, up to and with the first that equals `last`.
fn delays(log: &mut impl BufRead, last: &str) -> Vec<String> {
    let mut delays = Vec::new();
    for line in log.lines() {
        let line = line.unwrap();
        let Some((_, delay)) = line.split_once("delay=") else { continue };
        assert!(line.starts_with("<3>") && line.contains("failed to accept RPC conn: error=\"Too many open files"));
        delays.push(delay.to_owned());
        if delay == last {
            break;
        }
    }
    delays
}

// R1.5, R1.6, R1.7
#[test]
fn without_descriptors_accepting_waits_longer_and_longer_and_forgets_nobody() {
    if !is_child("without_descriptors_accepting_waits_longer_and_longer_and_forgets_nobody") {
        return in_a_child("without_descriptors_accepting_waits_longer_and_longer_and_forgets_nobody");
    }
    let (ours, theirs) = UnixStream::pair().unwrap();
    assert!(Logs::start("holdfast=info", Style::Journald, ours).unwrap().install());
    let mut log = BufReader::new(theirs);
    let rig = Rig::start();
    let _ = rig.connect();
    let mut peers: Vec<Socket> = (0..20).map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()).collect();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(128), maximum: limit.maximum }).unwrap();
    for _ in 0..2 {
        let mut hoard = Vec::new();
        while let Ok(file) = std::fs::File::open("/dev/null") {
            hoard.push(file);
        }
        let waiting: Vec<Socket> = peers.drain(..10).collect();
        for peer in &waiting {
            peer.connect(&rig.address.into()).unwrap();
        }
        let seen = delays(&mut log, "1s");
        assert_eq!(seen, ["5ms", "10ms", "20ms", "40ms", "80ms", "160ms", "320ms", "640ms", "1s"]);
        assert_eq!(delays(&mut log, "1s"), ["1s"], "and stays there");
        drop(hoard);
        for peer in waiting {
            echo(&mut peer.into(), b"served without another event");
        }
    }
    assert_eq!(rig.stop(), 0);
}

// R6.24, R8.8
#[test]
fn signals_become_inputs_and_a_reload_waits_until_ready() {
    if !is_child("signals_become_inputs_and_a_reload_waits_until_ready") {
        return in_a_child("signals_become_inputs_and_a_reload_waits_until_ready");
    }
    let send = |signal| kill_process(getpid(), signal).unwrap();
    let signals = Signals::catch().unwrap();
    send(Signal::HUP);
    send(Signal::PIPE);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("holdfastd.toml");
    std::fs::write(&file, "name = \"a\"\ndata_dir = \"/x\"\n").unwrap();
    let source =
        ConfigSource { file: Some(file.clone()), overrides: Overrides::default(), host_name: "host".to_owned() };
    let in_force = source.read_all().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let logs = Logs::start("info", Style::Journald, ours).unwrap();
    assert!(logs.install());
    let mut rig = RigParts::new();
    rig.parts.signals = Some(signals);
    rig.parts.hands.reloader = Some(Reloader::new(source, in_force));
    let rig = rig.start();
    send(Signal::USR1);
    rig.wait("the dump", |seen| seen.others == ["DumpMetrics"]);
    std::fs::write(&file, "name = \"b\"\ndata_dir = \"/x\"\n[limits]\nrpc_max_conns_per_client = 77\n").unwrap();
    rig.perform(Output::Ready);
    rig.wait("the reload", |seen| seen.others.iter().any(|input| input.contains("rpc_max_conns_per_client: 77")));
    std::fs::write(&file, "nam = \"b\"\n").unwrap();
    send(Signal::HUP);
    let mut lines = BufReader::new(theirs).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("<4>") && line.contains("need a restart")));
    let refused = lines.find(|line| line.starts_with("<3>")).unwrap();
    assert!(refused.contains("the old one stays in force") && refused.contains("holdfastd.toml:1: nam"), "{refused}");
    send(Signal::TERM);
    rig.wait("the stop", |seen| seen.others.iter().filter(|input| *input == "Stop").count() == 1);
    send(Signal::INT);
    rig.wait("the second", |seen| seen.others.iter().filter(|input| *input == "Stop").count() == 2);
    assert_eq!(rig.stop(), 0);
}

#[test]
fn a_second_signal_ends_at_once_also_when_nobody_looks() {
    let name = "a_second_signal_ends_at_once_also_when_nobody_looks";
    if !is_child(name) {
        let test = format!("edge::loop_tests::{name}");
        let mut child = Command::new(OURSELVES);
        child.args(["--exact", &test, "--nocapture"]).env("HOLDFAST_TEST_CHILD", name);
        let output = child.output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        return;
    }
    let mut signals = Signals::catch().unwrap();
    kill_process(getpid(), Signal::TERM).unwrap();
    while signals.take().stop == 0 {}
    // This one was looked at; the next are not. Two that come together are one to the kernel, so it takes several.
    loop {
        kill_process(getpid(), Signal::TERM).unwrap();
        std::thread::yield_now();
    }
}

#[test]
fn lines_of_the_log_reach_the_machine_while_a_monitor_asks() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let logs = Logs::start("off", Style::Journald, ours).unwrap();
    let mut rig = RigParts::new();
    rig.parts.channels.log_lines = logs.connect_tap(&rig.parts.bell);
    rig.parts.hands.logs = Some(logs.clone());
    let rig = rig.start();
    let (mut stream, _) = rig.connect();
    let line = |text: &str| {
        let args = format_args!("{text}").to_string();
        log::Log::log(
            &logs,
            &log::Record::builder().level(Level::Info).target("holdfast").args(format_args!("{args}")).build(),
        );
    };
    line("before");
    rig.perform(Output::Monitor(Some(Level::Info)));
    echo(&mut stream, b"performed");
    line("while");
    rig.wait("the line", |seen| seen.others.iter().any(|input| input.contains("text: \"while\"")));
    assert_eq!(rig.seen().others.len(), 1);
    rig.stop();
}
