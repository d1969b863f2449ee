//! What a process cost: CPU time and memory, from `/proc`; and what this process cost itself.

use std::fs;
use std::time::{Duration, Instant};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::time::{ClockId, clock_gettime};

use crate::cli::Failure;

/// Above this share of one core, the generator is what limited the run.
const GENERATOR_FULL: f64 = 0.9;

/// Reads the clocks of this process and, where they are known, of the servers'.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pids: Vec<u32>,
}

/// Clocks at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    at: Instant,
    own: Duration,
    servers: Vec<ServerClock>,
}

/// CPU time of a process, from two sources.
#[derive(Clone, Debug)]
struct ServerClock {
    /// User and system time, of all its threads that ever were; in ticks of some 10 ms.
    ticks: Duration,
    /// Time on a CPU of each thread that lives, in nanoseconds, by thread id.
    threads: Vec<(u32, Duration)>,
}

/// What passed between two readings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Time.
    pub(crate) wall: Duration,
    /// CPU time of this process.
    pub(crate) own: Duration,
    /// CPU time of each server, user and system.
    pub(crate) servers: Vec<Duration>,
}

impl Usage {
    /// Share of one core that this process used.
    pub(crate) fn own_cores(&self) -> f64 {
        self.own.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// CPU time of all servers, when one is known.
    pub(crate) fn server(&self) -> Option<Duration> {
        (!self.servers.is_empty()).then(|| self.servers.iter().sum())
    }

    /// The same of the servers together.
    pub(crate) fn server_cores(&self) -> Option<f64> {
        Some(self.server()?.as_secs_f64() / self.wall.as_secs_f64().max(1e-9))
    }

    /// Microseconds of the servers' CPU time for each of `count` things.
    pub(crate) fn server_micros_each(&self, count: u64) -> Option<f64> {
        (count > 0).then_some(())?;
        Some(self.server()?.as_secs_f64() * 1e6 / count as f64)
    }

    /// The same for each server by itself, where there are several.
    pub(crate) fn each_servers_micros(&self, count: u64) -> Vec<f64> {
        if count == 0 || self.servers.len() < 2 {
            return Vec::new();
        }
        self.servers.iter().map(|spent| spent.as_secs_f64() * 1e6 / count as f64).collect()
    }

    /// Whether the generator, not the server, set the pace.
    pub(crate) fn generator_was_full(&self) -> bool {
        self.own_cores() > GENERATOR_FULL
    }
}

impl Meter {
    /// For the servers with these process ids.
    ///
    /// # Errors
    /// A process that cannot be looked at.
    pub(crate) fn new(pids: Vec<u32>) -> Result<Meter, Failure> {
        let meter = Meter { pids };
        meter.read()?;
        meter.memory()?;
        Ok(meter)
    }

    /// Reads the clocks.
    ///
    /// # Errors
    /// The server's process is gone.
    pub(crate) fn read(&self) -> Result<Reading, Failure> {
        let servers = self.pids.iter().map(|pid| server_clock(*pid)).collect::<Result<_, _>>()?;
        Ok(Reading { at: Instant::now(), own: own_time(), servers })
    }

    /// What passed since a reading.
    ///
    /// # Errors
    /// As [`Meter::read`].
    pub(crate) fn since(&self, start: &Reading) -> Result<Usage, Failure> {
        let end = self.read()?;
        Ok(Usage {
            wall: end.at - start.at,
            own: end.own.saturating_sub(start.own),
            servers: start.servers.iter().zip(&end.servers).map(|(start, end)| spent(start, end)).collect(),
        })
    }

    /// Resident memory of the servers in bytes.
    ///
    /// # Errors
    /// The server's process is gone.
    pub(crate) fn memory(&self) -> Result<Option<u64>, Failure> {
        let each = self.pids.iter().map(|pid| resident_bytes(*pid)).collect::<Result<Vec<u64>, _>>()?;
        Ok((!each.is_empty()).then(|| each.iter().sum()))
    }
}

fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Exact while no thread of the server ended meanwhile, to a tick otherwise.
fn spent(start: &ServerClock, end: &ServerClock) -> Duration {
    let lives = |thread: u32| end.threads.iter().any(|(id, _)| *id == thread);
    if end.threads.is_empty() || !start.threads.iter().all(|(id, _)| lives(*id)) {
        return end.ticks.saturating_sub(start.ticks);
    }
    let sum = |clock: &ServerClock| clock.threads.iter().map(|(_, time)| *time).sum::<Duration>();
    sum(end).saturating_sub(sum(start))
}

fn server_clock(pid: u32) -> Result<ServerClock, Failure> {
    let stat = proc_file(pid, "stat")?;
    let ticks = cpu_ticks(&stat).ok_or_else(|| Failure::Other(format!("/proc/{pid}/stat cannot be read")))?;
    let mut threads = Vec::new();
    if let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) {
        for task in tasks.flatten() {
            // A thread may end between the listing and the reading.
            let nanos = fs::read_to_string(task.path().join("schedstat")).ok().and_then(|text| first_number(&text));
            let id = task.file_name().to_str().and_then(|name| name.parse().ok());
            threads.extend(id.zip(nanos.map(Duration::from_nanos)));
        }
    }
    let per_second = clock_ticks_per_second().max(1);
    Ok(ServerClock { ticks: Duration::from_secs_f64(ticks as f64 / per_second as f64), threads })
}

/// `utime + stime` of a `stat` line (proc(5)): the 14th and 15th field; the name, the 2nd, may hold anything but ends
/// at the last parenthesis.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    // Exact, but not everybody's to read; `statm` is, and is late by some pages for each CPU.
    let exact = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| rollup_bytes(&text));
    match exact {
        Some(bytes) => Ok(bytes),
        None => {
            let statm = proc_file(pid, "statm")?;
            let pages: Option<u64> = statm.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
            let pages = pages.ok_or_else(|| Failure::Other(format!("/proc/{pid}/statm cannot be read")))?;
            Ok(pages * page_size() as u64)
        }
    }
}

fn rollup_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(first_number(line)? * 1024)
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn proc_file(pid: u32, name: &str) -> Result<String, Failure> {
    let path = format!("/proc/{pid}/{name}");
    fs::read_to_string(&path).map_err(|error| Failure::Other(format!("{path}: {error}")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_are_read_behind_any_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 30 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some(730));
        assert_eq!(cpu_ticks("42 (short) S 1"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(rollup_bytes("55-56 ---p 0 0 [rollup]\nRss:     12 kB\nPss:  7 kB\n"), Some(12 * 1024));
        assert_eq!(rollup_bytes("Pss: 1 kB\n"), None);
    }

    #[test]
    fn threads_count_exactly_and_ticks_step_in_when_one_ended() {
        let ms = Duration::from_millis;
        let start = ServerClock { ticks: ms(10), threads: vec![(1, ms(11)), (2, ms(5))] };
        let more = ServerClock { ticks: ms(30), threads: vec![(1, ms(21)), (2, ms(6)), (3, ms(4))] };
        assert_eq!(spent(&start, &more), ms(15));
        let fewer = ServerClock { ticks: ms(30), threads: vec![(1, ms(21))] };
        assert_eq!(spent(&start, &fewer), ms(20));
    }

    #[test]
    fn this_process_can_be_measured() {
        let meter = Meter::new(vec![std::process::id()]).unwrap();
        assert!(meter.memory().unwrap().unwrap() > 100_000);
        let start = meter.read().unwrap();
        let mut n = 0u64;
        while own_time() == start.own {
            n = std::hint::black_box(n + 1);
        }
        let usage = meter.since(&start).unwrap();
        assert!(usage.own > Duration::ZERO);
        assert!(usage.server_micros_each(0).is_none());
        assert!(Meter::new(vec![u32::MAX]).is_err());
    }

    #[test]
    fn a_full_generator_is_noticed() {
        let usage = |own| Usage {
            wall: Duration::from_secs(10),
            own,
            servers: vec![Duration::from_secs(4), Duration::from_secs(1)],
        };
        assert!(usage(Duration::from_millis(9500)).generator_was_full());
        assert!(!usage(Duration::from_millis(7000)).generator_was_full());
        assert_eq!(usage(Duration::ZERO).server_micros_each(1_000_000), Some(5.0));
        assert_eq!(usage(Duration::ZERO).server_cores(), Some(0.5));
        assert_eq!(usage(Duration::ZERO).each_servers_micros(1_000_000), [4.0, 1.0]);
    }
}
