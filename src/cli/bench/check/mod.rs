//! `bench check`: every call of writers and readers is written down while the cluster comes to harm, and what was
//! written down is judged: is there one order of all calls that fits, and was each write carried out once (R2.34).
//!
//! [`load`] makes the calls, by the client library, and [`history`] is what they leave; [`judge`] and [`order`] know
//! nothing but the history. [`fault`] does the harm that a command line asks for.

mod fault;
mod history;
mod judge;
mod load;
mod order;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use crate::cli::args::{CheckLoad, CheckMode};
use crate::cli::bench::Bench;
use crate::cli::bench::check::history::{Outcome, Record};
use crate::cli::bench::check::judge::{Judgement, judge};
use crate::cli::bench::report::{Latencies, Report};
use crate::cli::{Exit, Failure};

/// Runs it, or judges a file.
///
/// # Errors
/// A server that cannot be reached at the beginning, a file that cannot be written, or is no history.
pub(crate) fn run(bench: &Bench<'_>, ask: &CheckLoad) -> Result<(Report, Exit), Failure> {
    if let Some(path) = &ask.verify {
        let records = read_history(path)?;
        let mut report = Report::new("check", &path.display().to_string(), false);
        let judgement = judge(&records);
        calls(&mut report, &judgement, &records)?;
        promises(&mut report, &judgement);
        return Ok((report, exit(&judgement)));
    }
    let loaded = load::run(bench, ask)?;
    let mut report = bench.report("check");
    report.parameter("mode", word(ask.mode));
    report.parameter("writers", ask.workers.writers);
    report.parameter("readers", ask.workers.readers);
    report.parameter("duration", format!("{:?}", ask.workers.duration));
    loaded.notes.iter().for_each(|note| report.note(note));
    let judgement = judge(&loaded.records);
    calls(&mut report, &judgement, &loaded.records)?;
    // A server that was killed meanwhile has no figures.
    if let Some(usage) = &loaded.usage {
        report.generator(usage);
        report.row_if("server_cpu_us", "server CPU a call", usage.server_micros_each(judgement.calls), "us");
        report.row_if("server_cores", "server CPU", usage.server_cores(), "cores");
    }
    if ask.exec_fault.is_some() {
        report.row("faults", "faults", loaded.faults.begun as f64, "");
        report.row("faults_failed", "  of them failed", loaded.faults.failed as f64, "");
    }
    promises(&mut report, &judgement);
    Ok((report, exit(&judgement)))
}

fn word(mode: CheckMode) -> &'static str {
    match mode {
        CheckMode::Plain => "plain",
        CheckMode::Library => "library",
        CheckMode::Session => "session",
    }
}

fn read_history(path: &Path) -> Result<Vec<Record>, Failure> {
    let wrong = |what: &dyn std::fmt::Display| Failure::Usage(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error))?;
    history::read(&mut BufReader::new(file)).map_err(|error| wrong(&error))
}

/// What is not judged is not proven.
fn exit(judgement: &Judgement) -> Exit {
    if judgement.is_broken() || !judgement.is_whole() { Exit::Failed } else { Exit::Done }
}

/// How many calls there were, how fast, and how they ended.
fn calls(report: &mut Report, judgement: &Judgement, records: &[Record]) -> Result<(), Failure> {
    let seconds = Duration::from_nanos(judgement.span_ns).as_secs_f64();
    let mut latencies = Latencies::new()?;
    for record in records.iter().filter(|record| record.outcome == Outcome::Ok && !record.is_final) {
        latencies.record(Duration::from_nanos(record.return_ns.saturating_sub(record.call_ns)));
    }
    report.row("calls", "calls", judgement.calls as f64, "");
    report.row("writes", "  of them writes", judgement.writes as f64, "");
    report.row("reads", "  of them reads", judgement.reads as f64, "");
    report.row("rate_per_s", "rate", judgement.calls as f64 / seconds.max(1e-9), "/s");
    report.quantiles("latency", "latency", &latencies);
    report.row("longest_gap_ms", "longest gap of one caller", judgement.longest_gap_ns as f64 / 1e6, "ms");
    report.row("conflicts", "refused because another came first", judgement.conflicts as f64, "");
    report.row("failed", "failed", judgement.failed as f64, "");
    report.row("unknown", "of unknown outcome", judgement.unknown as f64, "");
    for ((outcome, class), count) in &judgement.classes {
        let what = if *outcome == Outcome::Unknown { "unknown" } else { "failed" };
        report.row(&format!("{what}_{}", class.replace('-', "_")), &format!("  {what}: {class}"), *count as f64, "");
    }
    report.row("unknown_applied", "of unknown outcome and there", judgement.unknown_applied as f64, "");
    Ok(())
}

/// What was promised.
fn promises(report: &mut Report, judgement: &Judgement) {
    for (key, words, count) in [
        ("lost", "acknowledged or seen, and lost", judgement.lost),
        ("doubled", "doubled", judgement.doubled),
        ("stale", "stale reads", judgement.stale),
        ("refused_there", "refused, and there", judgement.refused_there),
        ("invented", "there, and written by nobody", judgement.invented),
        ("keys", "variables", judgement.keys),
        ("keys_unordered", "  without an order that fits", judgement.unordered),
        ("keys_undecided", "  with too many orders", judgement.undecided),
        ("keys_unread", "  not read back", judgement.unread),
    ] {
        report.row(key, words, count as f64, "");
    }
    judgement.examples.iter().for_each(|example| report.note(example));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
