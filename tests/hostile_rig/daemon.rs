//! A daemon of its own for each test: started on ports of the kernel's choice, watched, killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, peer, wait_until};

/// Bytes of log that are kept to look at.
const LOG_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
struct Log {
    text: Mutex<(String, bool)>,
    grew: Condvar,
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    /// Its RPC port.
    pub rpc: SocketAddr,
    /// Its HTTP port.
    pub http: SocketAddr,
    log: Arc<Log>,
    folder: PathBuf,
    /// Removed at the end, when the daemon made it.
    _own: Option<tempfile::TempDir>,
    /// How long it took until it served.
    pub start_time: Duration,
}

/// How the daemon is started.
pub struct Setup {
    /// The folder with its file and its data.
    pub folder: PathBuf,
    /// More of the configuration file.
    pub config: String,
    /// What it logs.
    pub filter: String,
    /// Words before the program's own: `strace -f ...`.
    pub under: Vec<String>,
}

impl Setup {
    pub fn new(folder: &Path, config: &str) -> Setup {
        Setup { folder: folder.into(), config: config.into(), filter: "info".into(), under: Vec::new() }
    }

    /// Starts it and waits until it serves; or says how it ended, and with which log.
    pub fn start(&self) -> Result<Daemon, (ExitStatus, String)> {
        let begin = Instant::now();
        let file = self.folder.join("holdfastd.toml");
        let data = self.folder.join("data");
        let text = format!("name = \"hf1\"\ndata_dir = {:?}\n{}", data.display().to_string(), self.config);
        fs::write(&file, text).unwrap();
        let mut words = self.under.clone();
        words.push(env!("CARGO_BIN_EXE_holdfastd").to_owned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args([
                "-c",
                file.to_str().unwrap(),
                "--rpc",
                "127.0.0.1:0",
                "--http",
                "127.0.0.1:0",
                "--log",
                &self.filter,
            ])
            .env_remove("NOTIFY_SOCKET")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().unwrap();
        let into = log.clone();
        thread::spawn(move || collect(BufReader::new(stderr), &into));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let folder = self.folder.clone();
        let mut daemon = Daemon { child, rpc: nowhere, http: nowhere, log, folder, _own: None, start_time: PATIENCE };
        if !daemon.wait_for_log(|text| text.contains("serving requests")) {
            let status = daemon.child.wait().unwrap();
            return Err((status, daemon.log_text()));
        }
        let text = daemon.log_text();
        let line = text.lines().find(|line| line.contains("listening") && line.contains(" rpc=")).expect("says where");
        daemon.rpc = field(line, " rpc=");
        daemon.http = field(line, " http=");
        daemon.start_time = begin.elapsed();
        Ok(daemon)
    }
}

fn field(line: &str, name: &str) -> SocketAddr {
    let (_, rest) = line.split_once(name).unwrap_or_else(|| panic!("no{name} in {line:?}"));
    rest.split_whitespace().next().unwrap().trim_matches('"').parse().unwrap_or_else(|e| panic!("{line:?}: {e}"))
}

fn collect(mut from: impl BufRead, log: &Log) {
    let mut line = String::new();
    while from.read_line(&mut line).is_ok_and(|count| count > 0) {
        let mut held = log.text.lock().unwrap();
        if held.0.len() < LOG_BYTES_MAX {
            held.0.push_str(&line);
        }
        line.clear();
        log.grew.notify_all();
    }
    log.text.lock().unwrap().1 = true;
    log.grew.notify_all();
}

impl Daemon {
    /// A fresh one in a folder of its own.
    #[track_caller]
    pub fn start(config: &str) -> Daemon {
        let own = tempfile::tempdir().unwrap();
        let mut daemon = Daemon::start_in(own.path(), config);
        daemon._own = Some(own);
        daemon
    }

    /// One that must start, in a folder that may hold what an earlier one left.
    #[track_caller]
    pub fn start_in(folder: &Path, config: &str) -> Daemon {
        Setup::new(folder, config).start().unwrap_or_else(|(status, log)| panic!("did not start: {status}\n{log}"))
    }

    /// Waits until the log is as wanted; false when the daemon has ended first.
    fn wait_for_log(&self, is_so: impl Fn(&str) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut held = self.log.text.lock().unwrap();
        while !is_so(&held.0) {
            if held.1 {
                return false;
            }
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the log never came to it:\n{}", held.0);
            held = self.log.grew.wait_timeout(held, left).unwrap().0;
        }
        true
    }

    /// Waits until it has logged something.
    #[track_caller]
    pub fn expect_log(&self, what: &str) {
        assert!(self.wait_for_log(|text| text.contains(what)), "ended without logging {what:?}:\n{}", self.log_text());
    }

    /// All that it logged so far.
    pub fn log_text(&self) -> String {
        self.log.text.lock().unwrap().0.clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// SIGKILL, and gone when it returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, to the daemon itself when it runs under another program; how that ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let started = self.child.id();
        let below = fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap_or_default();
        let pid = below.split_whitespace().next().map_or(started, |pid| pid.parse().unwrap());
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut ended = None;
        wait_until("the end after SIGTERM", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap()
    }

    /// A line of `/proc/PID/status`, in KiB.
    fn status_kib(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("it is gone: {}", self.log_text()));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Memory in use, KiB.
    pub fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// Most memory in use since the start or since [`Daemon::forget_peak`], KiB.
    pub fn peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").unwrap();
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap().count()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /v1/metrics?format=prometheus HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        page
    }

    /// The sum of a metric over its labels; 0 when it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let lines = page.lines().filter_map(|line| line.strip_prefix(name));
        let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit(' ').next());
        values.map(|value| value.parse::<f64>().unwrap()).sum()
    }

    /// Open connections, but for the one that asks.
    pub fn connections(&self) -> u64 {
        (self.metric("holdfast_connections") - 1.0) as u64
    }

    /// It lives, has not panicked, and has met no broken invariant.
    #[track_caller]
    pub fn assert_sound(&mut self) {
        let ended = self.child.try_wait().unwrap();
        let log = self.log_text();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", tail(&log));
        // A peer may say that it has an internal error; ours come with these words.
        for bad in ["panicked", "please report", "cannot be used any more"] {
            let found = log.lines().find(|line| line.contains(bad));
            assert!(found.is_none(), "{found:?}\n{}", tail(&log));
        }
        assert_eq!(self.metric("holdfast_handler_panics_total"), 0.0);
    }

    /// No connection is left, and `limit` fresh ones of 127.0.0.`last` are let in and served (R1.10).
    #[track_caller]
    pub fn assert_places(&mut self, last: u8, limit: usize) {
        wait_until("all connection places given back", || self.connections() == 0);
        let fresh = |daemon: &Daemon| {
            let mut stream = peer::connect_from(last, daemon.rpc).unwrap();
            let _ = stream.write_all(&[1]);
            peer::Plain::over(stream)
        };
        let mut all: Vec<_> = (0..limit).map(|_| fresh(self)).collect();
        for (number, peer) in all.iter_mut().enumerate() {
            peer.ping().unwrap_or_else(|e| panic!("connection {number} of {limit}: {e}"));
        }
        assert!(fresh(self).ping().is_err(), "one over the limit is let in");
        drop(all);
        wait_until("those places given back", || self.connections() == 0);
    }
}

fn tail(log: &str) -> &str {
    let mut at = log.len().saturating_sub(4000);
    while !log.is_char_boundary(at) {
        at += 1;
    }
    &log[at..]
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("--- the daemon's log ends:\n{}", tail(&self.log_text()));
        }
    }
}
