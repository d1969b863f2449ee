//! The log: one line an event on standard error, by `log` and `env_logger`.
//!
//! Nobody who logs ever waits: lines go through a bounded queue to a thread that writes them, and are counted where
//! the queue is full (requirement R6.27). Under journald each line carries its priority and no time. Monitors get
//! their lines by a tap before the filter of the operator.

use std::env;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender};
use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::base::time::{WallTime, format_rfc3339};
use crate::server::port::LogLine;

use super::clock;
use super::inbox::Bell;

/// Lines that may wait to be written; one more is lost and counted.
const QUEUED_LINES_MAX: usize = 4096;
/// Bytes of a line's text; the rest is cut off.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines for monitors that may wait for the loop; one more is lost to them.
const TAPPED_LINES_MAX: usize = 1024;
/// Lines that are written with one call.
const BATCH_LINES_MAX: usize = 256;
/// What is logged when nobody says.
pub const DEFAULT_FILTER: &str = "info";

/// How lines begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With the time and the level.
    Plain,
    /// With the priority that journald takes off again (`<6>`).
    Journald,
}

impl Style {
    /// What the reader of standard error wants, by `JOURNAL_STREAM` (`systemd.exec(5)`).
    pub fn detect() -> Style {
        let wanted = env::var("JOURNAL_STREAM").ok();
        let ours = std::fs::metadata("/proc/self/fd/2").ok().map(|file| format!("{}:{}", file.dev(), file.ino()));
        if wanted.is_some() && wanted == ours { Style::Journald } else { Style::Plain }
    }
}

enum Queued {
    Line(Vec<u8>),
    /// All lines before it are to be written; then this is dropped.
    Flush(Sender<()>),
}

struct Tap {
    lines: Sender<Arc<LogLine>>,
    bell: Arc<Bell>,
}

struct Inner {
    operator: ArcSwap<env_logger::Logger>,
    queue: Sender<Queued>,
    style: Style,
    lost: Arc<AtomicU64>,
    /// A `LevelFilter` as a number.
    tap_level: AtomicUsize,
    tap: OnceLock<Tap>,
}

/// The log of this process. Clones are the same log.
#[derive(Clone)]
pub struct Logs {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs").field("style", &self.inner.style).finish_non_exhaustive()
    }
}

/// The filter in force: the given one, else the environment's `RUST_LOG` when it is one, else [`DEFAULT_FILTER`].
pub fn filter_of(given: Option<&str>) -> String {
    let environment = || env::var("RUST_LOG").ok().filter(|filter| check_filter(filter).is_ok());
    given.map(str::to_owned).or_else(environment).unwrap_or_else(|| DEFAULT_FILTER.to_owned())
}

/// Checks a filter: `level`, `target`, `target=level`, parted by commas, and at last `/text`.
///
/// # Errors
/// A sentence that names the part.
pub fn check_filter(filter: &str) -> Result<(), String> {
    let directives = filter.split('/').next().unwrap_or_default();
    for part in directives.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((target, level)) = part.split_once('=') else { continue };
        let known = level.trim().is_empty() || level.trim().parse::<LevelFilter>().is_ok();
        if !known || target.trim().is_empty() || filter.matches('/').count() > 1 {
            return Err(format!("{part:?} is no log filter, write for example \"info,holdfast::server=debug\""));
        }
    }
    Ok(())
}

impl Logs {
    /// Starts the thread that writes lines to `to`. Nothing is logged before [`Logs::install`].
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(filter: &str, style: Style, to: impl Write + Send + 'static) -> io::Result<Logs> {
        let (queue, lines) = crossbeam_channel::bounded(QUEUED_LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lost);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || write_lines(&lines, to, style, &counter))?;
        let operator = ArcSwap::from_pointee(build(filter, style, &queue, &lost));
        let (tap_level, tap) = (AtomicUsize::new(LevelFilter::Off as usize), OnceLock::new());
        Ok(Logs { inner: Arc::new(Inner { operator, queue, style, lost, tap_level, tap }) })
    }

    /// Makes this the log of the whole process. Once; false when there is one already.
    pub fn install(&self) -> bool {
        let installed = log::set_boxed_logger(Box::new(self.clone())).is_ok();
        self.set_level();
        installed
    }

    /// Puts a new filter in force.
    pub fn set_filter(&self, filter: &str) {
        let inner = &self.inner;
        inner.operator.store(Arc::new(build(filter, inner.style, &inner.queue, &inner.lost)));
        self.set_level();
    }

    /// Where monitored lines go; they are sent once [`Logs::monitor`] says a level. Once in a process.
    pub fn connect_tap(&self, bell: &Arc<Bell>) -> Receiver<Arc<LogLine>> {
        let (lines, receiver) = crossbeam_channel::bounded(TAPPED_LINES_MAX);
        // A second tap would get nothing: its sender is dropped, and its receiver says so.
        let _ = self.inner.tap.set(Tap { lines, bell: Arc::clone(bell) });
        receiver
    }

    /// From which level on lines go to the tap; `None`: none.
    pub fn monitor(&self, level: Option<Level>) {
        let filter = level.map_or(LevelFilter::Off, |level| level.to_level_filter());
        self.inner.tap_level.store(filter as usize, Ordering::SeqCst);
        self.set_level();
    }

    /// Lines that were lost because nobody read standard error.
    pub fn lost(&self) -> u64 {
        self.inner.lost.load(Ordering::SeqCst)
    }

    /// Waits until all lines so far are written, but not longer than `wait`. True when they are.
    pub fn flush(&self, wait: Duration) -> bool {
        let (sender, receiver) = crossbeam_channel::bounded::<()>(0);
        let deadline = std::time::Instant::now() + wait;
        if self.inner.queue.send_deadline(Queued::Flush(sender), deadline).is_err() {
            return false;
        }
        receiver.recv_deadline(deadline) == Err(crossbeam_channel::RecvTimeoutError::Disconnected)
    }

    fn set_level(&self) {
        let operator = self.inner.operator.load().filter();
        let tap = self.inner.tap_level.load(Ordering::SeqCst);
        let tap = LevelFilter::iter().find(|level| *level as usize == tap).unwrap_or(LevelFilter::Off);
        log::set_max_level(operator.max(tap));
    }

    fn tapped(&self, metadata: &Metadata<'_>) -> bool {
        // Other crates' talk is for who debugs them; it is also what reading the tap could give rise to.
        let wanted = metadata.target().starts_with("holdfast") || metadata.level() <= Level::Warn;
        wanted && metadata.level() as usize <= self.inner.tap_level.load(Ordering::SeqCst)
    }
}

impl Log for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.inner.operator.load().enabled(metadata) || self.tapped(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        self.inner.operator.load().log(record);
        let Some(tap) = self.inner.tap.get() else { return };
        if self.tapped(record.metadata()) {
            let location = record.file().map(|file| format!("{file}:{}", record.line().unwrap_or(0)));
            let mut text = String::new();
            write_text(&mut text, record);
            let line = LogLine {
                unix_nanos: clock::wall().unix_nanos(),
                level: record.level(),
                target: record.target().to_owned(),
                text,
                location,
            };
            if tap.lines.try_send(Arc::new(line)).is_ok() {
                tap.bell.ring();
            }
        }
    }

    fn flush(&self) {}
}

/// What env_logger writes to: each write is one line.
struct LineQueue {
    queue: Sender<Queued>,
    lost: Arc<AtomicU64>,
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.queue.try_send(Queued::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::SeqCst);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn build(filter: &str, style: Style, queue: &Sender<Queued>, lost: &Arc<AtomicU64>) -> env_logger::Logger {
    let lines = LineQueue { queue: queue.clone(), lost: Arc::clone(lost) };
    Builder::new()
        .parse_filters(filter)
        .format(move |out, record| out.write_all(format_line(style, clock::wall(), record).as_bytes()))
        .target(Target::Pipe(Box::new(lines)))
        .build()
}

fn format_line(style: Style, wall: WallTime, record: &Record<'_>) -> String {
    let mut line = match style {
        Style::Journald => format!("<{}>", priority(record.level())),
        Style::Plain => {
            let seconds = format_rfc3339(wall.unix_seconds(), 0);
            let millis = wall.subsec_nanos() / 1_000_000;
            format!("{}.{millis:03}Z {:<5} ", seconds.trim_end_matches('Z'), record.level())
        }
    };
    line.push_str(record.target());
    line.push_str(": ");
    write_text(&mut line, record);
    line.push('\n');
    line
}

/// The priorities of syslog, which journald reads (`sd-daemon(3)`).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Appends the text of a record so that it stays on its line, whatever a peer put into it.
fn write_text(line: &mut String, record: &Record<'_>) {
    struct OneLine<'a>(&'a mut String, usize);
    impl std::fmt::Write for OneLine<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for c in text.chars() {
                if self.0.len() >= self.1 {
                    return Err(std::fmt::Error);
                }
                if c.is_control() { self.0.extend(c.escape_default()) } else { self.0.push(c) }
            }
            Ok(())
        }
    }
    let end = line.len() + LINE_BYTES_MAX;
    if write!(OneLine(line, end), "{}", record.args()).is_err() {
        line.push('…');
    }
}

/// The thread that writes. It alone may be blocked by whoever reads.
fn write_lines(lines: &Receiver<Queued>, mut to: impl Write, style: Style, lost: &AtomicU64) {
    let mut told = 0;
    let mut batch = Vec::new();
    while let Ok(first) = lines.recv() {
        batch.clear();
        let mut flushes = Vec::new();
        for queued in std::iter::once(first).chain(lines.try_iter().take(BATCH_LINES_MAX)) {
            match queued {
                Queued::Line(line) => batch.extend_from_slice(&line),
                Queued::Flush(done) => flushes.push(done),
            }
        }
        let total = lost.load(Ordering::SeqCst);
        if total > told {
            let line = format_line(
                style,
                clock::wall(),
                &Record::builder()
                    .level(Level::Warn)
                    .target("holdfast::log")
                    .args(format_args!("log lines lost, nobody read them: count={}", total - told))
                    .build(),
            );
            batch.extend_from_slice(line.as_bytes());
            told = total;
        }
        // Nothing can be said about a standard error that takes nothing.
        let _ = to.write_all(&batch).and_then(|()| to.flush());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    fn log(logs: &Logs, level: Level, target: &str, text: &str) {
        logs.log(&Record::builder().level(level).target(target).args(format_args!("{text}")).build());
    }

    // R6.27
    #[test]
    fn a_line_has_a_time_or_a_priority() {
        for (style, wanted) in [
            (Style::Plain, "1970-01-01T00:00:01.250Z WARN  holdfast::edge: a\\nb\\u{1b}c\n"),
            (Style::Journald, "<4>holdfast::edge: a\\nb\\u{1b}c\n"),
        ] {
            let record = "a\nb\u{1b}c";
            let line = format_line(
                style,
                WallTime::from_unix_nanos(1_250_000_000),
                &Record::builder().level(Level::Warn).target("holdfast::edge").args(format_args!("{record}")).build(),
            );
            assert_eq!(line, wanted);
        }
    }

    #[test]
    fn a_line_has_a_cap() {
        let text = "x".repeat(3 * LINE_BYTES_MAX);
        let mut line = String::new();
        write_text(&mut line, &Record::builder().args(format_args!("{text}")).build());
        assert!(line.len() <= LINE_BYTES_MAX + 4 && line.ends_with('…'));
    }

    #[test]
    fn the_filter_can_be_changed_and_a_monitor_sees_more() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let logs = Logs::start("warn", Style::Journald, ours).unwrap();
        let poll = mio::Poll::new().unwrap();
        let bell = Arc::new(Bell::new(poll.registry(), mio::Token(0)).unwrap());
        let tapped = logs.connect_tap(&bell);
        let mut read = BufReader::new(theirs);
        let mut next = || {
            let mut line = String::new();
            read.read_line(&mut line).unwrap();
            line
        };
        log(&logs, Level::Info, "holdfast", "hidden");
        log(&logs, Level::Warn, "holdfast", "seen");
        assert_eq!(next(), "<4>holdfast: seen\n");
        assert!(tapped.is_empty());
        logs.monitor(Some(Level::Debug));
        log(&logs, Level::Debug, "holdfast", "for the monitor");
        log(&logs, Level::Debug, "mio", "not ours");
        logs.set_filter("holdfast=info");
        log(&logs, Level::Info, "holdfast", "for both");
        assert_eq!(next(), "<6>holdfast: for both\n");
        let texts: Vec<String> = tapped.try_iter().map(|line| line.text.clone()).collect();
        assert_eq!(texts, ["for the monitor", "for both"]);
        logs.monitor(None);
        log(&logs, Level::Error, "holdfast", "for the operator");
        assert_eq!(next(), "<3>holdfast: for the operator\n");
        assert!(tapped.is_empty());
    }

    // R6.27
    #[test]
    fn a_pipe_that_nobody_reads_blocks_nobody_and_the_lost_are_counted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let logs = Logs::start("info", Style::Journald, ours).unwrap();
        let text = "x".repeat(1000);
        let mut sent = 0;
        while logs.lost() < 10 {
            log(&logs, Level::Info, "holdfast", &text);
            sent += 1;
        }
        assert!(!logs.flush(Duration::from_millis(1)), "nothing can be written");
        let (mut got, mut lost) = (0, 0);
        for line in BufReader::new(theirs).lines() {
            let line = line.unwrap();
            if let Some((_, count)) = line.split_once("count=") {
                lost += count.parse::<u64>().unwrap();
            } else {
                got += 1;
            }
            if got + lost == sent {
                break;
            }
        }
        assert_eq!(lost, logs.lost());
        log(&logs, Level::Info, "holdfast", "again");
        assert!(logs.flush(Duration::from_secs(30)));
    }

    #[test]
    fn filters_are_checked() {
        for good in ["info", "holdfast=debug", "warn,holdfast::server=trace,mio=off", "", "info/text", "holdfast="] {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["holdfast=loud", "=debug", "info,x=y"] {
            assert!(check_filter(bad).unwrap_err().contains("no log filter"), "{bad}");
        }
    }
}
