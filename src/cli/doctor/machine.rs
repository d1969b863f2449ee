//! The machine: whether its clock is set, how many files the server may open, how much memory there is.
//!
//! Whether the clock is set is asked of the kernel only by way of files that time services keep: the system call for it
//! is not to be had without `unsafe`.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::config::Config;

use super::finding::Finding;

/// A server with fewer descriptors than these soon refuses somebody: connections, log files, and some to spare.
const FEW_DESCRIPTORS: u64 = 4_096;
/// A server alone needs little; its State grows with what is stored.
const LITTLE_MEMORY_BYTES: u64 = 256 << 20;
/// What `timesyncd` makes once it has set the clock (`systemd-timesyncd.service(8)`).
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";
/// Where other time services say that they run.
const SERVICES: [&str; 4] = ["/run/chrony/chronyd.pid", "/run/chronyd.pid", "/run/ntpd.pid", "/run/ntpd-rs/observe"];

/// Whether something sets the clock.
pub(super) fn check_clock(_: &Config) -> Vec<Finding> {
    vec![judge_clock(Path::new(TIMESYNC_MARK).exists(), SERVICES.iter().find(|file| Path::new(file).exists()).copied())]
}

fn judge_clock(is_set: bool, service: Option<&str>) -> Finding {
    match (is_set, service) {
        (true, _) => Finding::ok("time service", "systemd-timesyncd has set the clock"),
        (_, Some(file)) => Finding::ok("time service", format!("one runs, {file}")),
        _ => Finding::note(
            "time service",
            "none was found: whether something sets the clock cannot be seen",
            "timedatectl says more; locks, tokens and certificates go by the clock",
        ),
    }
}

/// Descriptors and memory.
pub(super) fn check_limits(config: &Config) -> Vec<Finding> {
    let mut found = vec![descriptors(config)];
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    found.extend(available_bytes(&info).map(|bytes| judge_memory(bytes, config.events_buffer_bytes)));
    found
}

fn descriptors(config: &Config) -> Finding {
    let lock = config.data_dir.as_ref().map(|dir| dir.join("lock"));
    let pid = lock.and_then(|lock| fs::read_to_string(lock).ok()).and_then(|text| text.trim().parse::<u32>().ok());
    let proc = pid.map(|pid| format!("/proc/{pid}"));
    // The file stays when a server ends, and the number may be another program's by now.
    let is_server =
        |proc: &String| fs::read_to_string(format!("{proc}/comm")).is_ok_and(|name| name.trim() == "holdfastd");
    if let Some(proc) = proc.filter(is_server) {
        let limits = fs::read_to_string(format!("{proc}/limits")).unwrap_or_default();
        if let Some(limit) = limit_of(&limits) {
            let open = fs::read_dir(format!("{proc}/fd")).ok().map(|entries| entries.count() as u64);
            return judge_descriptors(limit, open, config);
        }
    }
    let own = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let detail = format!("no server runs; {own} in this shell");
    Finding::note("open files", detail, "the unit sets LimitNOFILE; started in another way it has what it is given")
}

/// The soft limit in `/proc/PID/limits` (`proc(5)`).
fn limit_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn judge_descriptors(limit: u64, open: Option<u64>, config: &Config) -> Finding {
    let used = open.map_or_else(|| "how many are open cannot be seen".to_owned(), |open| format!("{open} open"));
    let detail = format!("{limit} at most, {used}");
    // Two callers that use up what each may must not shut the door for all others.
    let callers = config.rpc_max_conns_per_client.saturating_add(config.http_max_conns_per_client) as u64;
    let enough = FEW_DESCRIPTORS.max(callers.saturating_mul(2));
    let hint = format!("a descriptor a connection: LimitNOFILE of at least {enough}, better 262144");
    match open {
        Some(open) if open.saturating_mul(10) > limit.saturating_mul(9) => Finding::fail("open files", detail, hint),
        _ if limit < enough => Finding::warn("open files", detail, hint),
        _ => Finding::ok("open files", detail),
    }
}

fn available_bytes(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn judge_memory(bytes: u64, events_buffer_bytes: usize) -> Finding {
    let detail = format!("{} MiB to be had", bytes >> 20);
    if bytes < LITTLE_MEMORY_BYTES.saturating_add(events_buffer_bytes as u64) {
        return Finding::warn("memory", detail, "everything that is stored is held in memory");
    }
    Finding::ok("memory", detail)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;
    use crate::config::Overrides;

    fn config(conns: u64) -> Config {
        let text = format!("data_dir = \"/nowhere\"\n[limits]\nrpc_max_conns_per_client = {conns}\n");
        Config::parse("file", &text, &Overrides::default(), "host").unwrap()
    }

    #[test]
    fn descriptors_are_measured_against_what_callers_may_hold() {
        let judged = |limit, open, conns| judge_descriptors(limit, open, &config(conns)).verdict;
        assert_eq!(judged(262_144, Some(100), 100), Verdict::Ok);
        assert_eq!(judged(1_024, None, 100), Verdict::Warn);
        assert_eq!(judged(8_192, Some(10), 8_000), Verdict::Warn);
        assert_eq!(judged(8_192, Some(8_000), 100), Verdict::Fail);
        assert_eq!(limit_of("Limit   Soft Hard\nMax open files            1024      4096     files\n"), Some(1024));
        assert_eq!(limit_of("Max open files  unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(limit_of(""), None);
        assert_eq!(descriptors(&config(100)).verdict, Verdict::Note, "nobody runs there");
    }

    #[test]
    fn memory_and_clock_are_read() {
        assert_eq!(available_bytes("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(judge_memory(1 << 30, 1 << 20).verdict, Verdict::Ok);
        assert_eq!(judge_memory(100 << 20, 1 << 20).verdict, Verdict::Warn);
        assert_eq!(judge_clock(true, None).verdict, Verdict::Ok);
        assert_eq!(judge_clock(false, Some("/run/chronyd.pid")).verdict, Verdict::Ok);
        assert_eq!(judge_clock(false, None).verdict, Verdict::Note, "what cannot be seen is no fault");
    }
}
