//! A daemon of a test's own: the real program, its configuration and data in a temporary folder, its log kept.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually, patience};

/// In the line that names the ports, ` rpc=HOST:PORT http=HOST:PORT`.
pub const LISTENING: &str = "listening";
/// In the line that says that it leads and can serve.
pub const SERVING: &str = "serving requests";

/// How to start one.
#[derive(Clone)]
pub struct Setup {
    config: String,
    filter: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    rpc: String,
    http: String,
    /// The text to wait for after the ports.
    ready: Option<&'static str>,
    folder: Arc<TempDir>,
    /// Another program than the one under test.
    program: Option<PathBuf>,
}

impl Setup {
    /// With these lines in the configuration, those outside of tables first.
    pub fn new(config: &str) -> Setup {
        let setup = Setup {
            config: String::new(),
            filter: "debug".to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            rpc: "127.0.0.1:0".to_owned(),
            http: "127.0.0.1:0".to_owned(),
            ready: Some(SERVING),
            folder: Arc::new(tempfile::tempdir().unwrap()),
            program: None,
        };
        setup.config(config)
    }

    /// Other lines, on the same data.
    pub fn config(mut self, config: &str) -> Setup {
        config.clone_into(&mut self.config);
        self.write_config();
        self
    }

    pub fn filter(mut self, filter: &str) -> Setup {
        filter.clone_into(&mut self.filter);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Setup {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn rpc(mut self, address: &str) -> Setup {
        address.clone_into(&mut self.rpc);
        self
    }

    /// Has this program run instead of the one under test, or that one again.
    pub fn program(mut self, program: Option<&Path>) -> Setup {
        self.program = program.map(Path::to_owned);
        self
    }

    /// It will not lead: the ports are all there is to wait for.
    pub fn without_leader(mut self) -> Setup {
        self.ready = None;
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub fn config_file(&self) -> PathBuf {
        self.folder().join("holdfastd.toml")
    }

    pub fn write_config(&self) {
        let text = format!("data_dir = {:?}\n{}\n", self.data_dir(), self.config);
        fs::write(self.config_file(), text).unwrap();
        fs::set_permissions(self.config_file(), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The command, ready to be run.
    pub fn command(&self) -> Command {
        let mut command = match &self.program {
            Some(program) => plain(Command::new(program)),
            None => program(),
        };
        command.arg("-c").arg(self.config_file());
        command.args(["--rpc", &self.rpc, "--http", &self.http, "--log", &self.filter]);
        command.args(&self.args).envs(self.env.iter().cloned());
        command
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.take_ports();
        if let Some(ready) = self.ready {
            daemon.log.until(ready);
        }
        daemon
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&self) -> Daemon {
        let mut command = self.command();
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).stdin(Stdio::null()).spawn().unwrap();
        let log = Log::read(child.stderr.take().unwrap());
        let nowhere: SocketAddr = ([127, 0, 0, 1], 0).into();
        Daemon { setup: self.clone(), child, log, rpc: nowhere, http: nowhere }
    }
}

/// The program under test, in an environment that holds nothing of the test's own.
pub fn program() -> Command {
    plain(Command::new(super::built("holdfastd", env!("CARGO_BIN_EXE_holdfastd"))))
}

fn plain(mut command: Command) -> Command {
    for name in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "JOURNAL_STREAM"] {
        command.env_remove(name);
    }
    command
}

/// One that runs. Killed when dropped.
pub struct Daemon {
    pub setup: Setup,
    pub child: Child,
    pub log: Log,
    pub rpc: SocketAddr,
    pub http: SocketAddr,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.log.lines();
            let last = lines.len().saturating_sub(60);
            let _ = writeln!(std::io::stderr(), "the daemon's last lines:\n{}", lines[last..].join("\n"));
        }
    }
}

impl Daemon {
    /// A server of one with these lines of configuration.
    #[track_caller]
    pub fn start(config: &str) -> Daemon {
        Setup::new(config).start()
    }

    /// Takes the ports from the log.
    #[track_caller]
    pub fn take_ports(&mut self) {
        let line = self.log.until(LISTENING);
        let port = |key: &str| -> SocketAddr {
            let at = line.find(key).unwrap_or_else(|| panic!("no {key} in {line}")) + key.len();
            line[at..].split_whitespace().next().unwrap().parse().unwrap()
        };
        (self.rpc, self.http) = (port(" rpc="), port(" http="));
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Changes its limit of descriptors.
    pub fn limit_descriptors(&self, count: u64) {
        let old = rustix::process::getrlimit(Resource::Nofile);
        let limit = Rlimit { current: Some(count), maximum: old.maximum };
        rustix::process::prlimit(Some(self.pid()), Resource::Nofile, limit).unwrap();
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().count()
    }

    /// Time that it computed, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Its resident memory, bytes.
    pub fn resident(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// Has it read its configuration again, and waits until it has.
    #[track_caller]
    pub fn reload(&self) {
        let before = self.log.count("configuration reloaded");
        self.signal(Signal::HUP);
        eventually("reload", || (self.log.count("configuration reloaded") > before).then_some(()));
    }

    /// The status with which it ends.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        self.exit_within(PATIENCE)
    }

    #[track_caller]
    pub fn exit_within(&mut self, time: Duration) -> ExitStatus {
        let deadline = Instant::now() + time;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {time:?}");
            super::breathe();
        }
    }

    /// Stops it in order; it must say that all was well.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit().code(), Some(0));
    }

    /// Kills it and starts it again on the same data, at other ports.
    #[track_caller]
    pub fn killed_and_again(mut self) -> Daemon {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.setup.start()
    }

    /// An HTTP request; gives status, head and body.
    pub fn http(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_owned(), body.to_owned())
    }

    pub fn metrics(&self) -> Metrics {
        let (status, _, body) = self.http("GET /v1/metrics");
        assert_eq!(status, 200, "{body}");
        Metrics(serde_json::from_str(&body).unwrap())
    }

    /// A counter's or gauge's value.
    pub fn metric(&self, name: &str) -> f64 {
        self.metrics().get(name)
    }

    /// Waits until a metric has this value.
    #[track_caller]
    pub fn until_metric(&self, name: &str, value: f64) {
        let deadline = patience();
        loop {
            let now = self.metric(name);
            if now == value {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {now}, not {value}");
            super::breathe();
        }
    }
}

/// All metrics at one time.
pub struct Metrics(pub Value);

impl Metrics {
    /// The value under a name, all labels together; panics when there is none.
    #[track_caller]
    pub fn get(&self, name: &str) -> f64 {
        self.find(name, |_| true).unwrap_or_else(|| panic!("no metric {name}"))
    }

    /// The value under a name and a label's text; 0 when there is none.
    pub fn labelled(&self, name: &str, label: &str) -> f64 {
        let is_it = |labels: &Value| labels.as_object().is_some_and(|map| map.values().any(|text| text == label));
        self.find(name, is_it).unwrap_or(0.0)
    }

    fn find(&self, name: &str, labels: impl Fn(&Value) -> bool) -> Option<f64> {
        let lists = [("Counters", "Count"), ("Gauges", "Value"), ("Samples", "Count")];
        let values = lists.iter().flat_map(|(list, key)| {
            self.0[*list].as_array().unwrap().iter().map(move |metric| (metric, metric[*key].as_f64().unwrap()))
        });
        let found: Vec<f64> = values
            .filter(|(metric, _)| metric["Name"] == name && labels(&metric["Labels"]))
            .map(|(_, value)| value)
            .collect();
        (!found.is_empty()).then(|| found.iter().sum())
    }
}

/// The lines on standard error so far.
#[derive(Clone)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    pub fn read(from: impl Read + Send + 'static) -> Log {
        let log = Log(Arc::default());
        let ours = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                ours.all().lines.push(String::from_utf8_lossy(&line).into_owned());
                ours.0.1.notify_all();
            }
            ours.all().ended = true;
            ours.0.1.notify_all();
        });
        log
    }

    /// Also after a test has failed with them in hand.
    fn all(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first line with this text, once there is one.
    #[track_caller]
    pub fn until(&self, text: &str) -> String {
        self.until_count(text, 1)
    }

    /// The line with which there are so many with this text.
    #[track_caller]
    pub fn until_count(&self, text: &str, count: usize) -> String {
        let deadline = patience();
        let mut lines = self.all();
        loop {
            let mut with = lines.lines.iter().filter(|line| line.contains(text));
            if let Some(line) = with.nth(count - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let over = left.is_zero() || lines.ended;
            assert!(!over, "no line {count} with {text:?} in the log, ended={}", lines.ended);
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until standard error is closed.
    pub fn until_end(&self) {
        let deadline = patience();
        let mut lines = self.all();
        while !lines.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "standard error stays open");
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.all().lines.clone()
    }

    pub fn count(&self, text: &str) -> usize {
        self.all().lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Lines of a level or worse.
    pub fn errors(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect()
    }
}
