//! The result of a bench: what was run, on what, and the figures, as text or JSON from one list.

use std::io;
use std::io::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::cli::Failure;
use crate::cli::bench::meter::Usage;
use crate::cli::output;

/// Longest latency that is told apart, nanoseconds: an hour.
const LONGEST_NANOS: u64 = 3_600_000_000_000;
/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Latencies.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    nanos: Histogram<u64>,
}

impl Latencies {
    /// None yet.
    ///
    /// # Errors
    /// Never with these bounds; the library has the error.
    pub(crate) fn new() -> Result<Latencies, Failure> {
        let nanos = Histogram::new_with_bounds(1, LONGEST_NANOS, DIGITS);
        Ok(Latencies { nanos: nanos.map_err(|error| Failure::Other(error.to_string()))? })
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        self.nanos.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts what another one counted.
    pub(crate) fn add(&mut self, other: &Latencies) {
        // Both have the same bounds, so that nothing can be out of them.
        let _ = self.nanos.add(&other.nanos);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.nanos.reset();
    }

    /// How many were counted.
    pub(crate) fn len(&self) -> u64 {
        self.nanos.len()
    }

    /// The latency, in microseconds, that this share of the calls did not exceed.
    pub(crate) fn micros(&self, quantile: f64) -> f64 {
        self.nanos.value_at_quantile(quantile) as f64 / 1e3
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// Name in JSON, with the unit.
    key: String,
    /// Name in text.
    words: String,
    value: f64,
    unit: &'static str,
}

/// The result of a bench.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report {
    bench: &'static str,
    address: String,
    tls: bool,
    parameters: Vec<(&'static str, String)>,
    rows: Vec<Row>,
    notes: Vec<String>,
    generator_cores: f64,
    bottleneck: bool,
}

impl Report {
    /// For a bench run against an address.
    pub(crate) fn new(bench: &'static str, address: &str, tls: bool) -> Report {
        Report {
            bench,
            address: address.to_owned(),
            tls,
            parameters: Vec::new(),
            rows: Vec::new(),
            notes: Vec::new(),
            generator_cores: 0.0,
            bottleneck: false,
        }
    }

    /// Names what the bench was run with.
    pub(crate) fn parameter(&mut self, name: &'static str, value: impl ToString) {
        self.parameters.push((name, value.to_string()));
    }

    /// Adds a figure. `key` ends in its unit.
    pub(crate) fn row(&mut self, key: &str, words: &str, value: f64, unit: &'static str) {
        self.rows.push(Row { key: key.to_owned(), words: words.to_owned(), value, unit });
    }

    /// Adds a figure when there is one.
    pub(crate) fn row_if(&mut self, key: &str, words: &str, value: Option<f64>, unit: &'static str) {
        if let Some(value) = value {
            self.row(key, words, value, unit);
        }
    }

    /// Adds a sentence for the reader.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds rate, latencies and CPU of `count` things that were done.
    pub(crate) fn calls(&mut self, prefix: &str, thing: &str, count: u64, latencies: &Latencies, usage: &Usage) {
        let key = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}_{name}") };
        let words = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix} {name}") };
        self.row(&key("count"), &words("count"), count as f64, "");
        let rate = count as f64 / usage.wall.as_secs_f64().max(1e-9);
        self.row(&key("rate_per_s"), &words("rate"), rate, "/s");
        self.quantiles(&key("latency"), &words("latency"), latencies);
        let each = usage.server_micros_each(count);
        self.row_if(&key("server_cpu_us"), &format!("server CPU a {thing}"), each, "us");
        for (nth, micros) in usage.each_servers_micros(count).into_iter().enumerate() {
            let (nth, words) = (nth + 1, format!("  of server {}", nth + 1));
            self.row(&key(&format!("server_{nth}_cpu_us")), &words, micros, "us");
        }
        self.row_if(&key("server_cores"), &words("server CPU"), usage.server_cores(), "cores");
        self.generator(usage);
    }

    /// Adds p50, p99, p99.9 and the longest.
    pub(crate) fn quantiles(&mut self, key: &str, words: &str, latencies: &Latencies) {
        for (name, suffix, quantile) in
            [("p50", "p50", 0.5), ("p99", "p99", 0.99), ("p99.9", "p999", 0.999), ("longest", "max", 1.0)]
        {
            let micros = latencies.micros(quantile);
            self.row(&format!("{key}_{suffix}_us"), &format!("{words} {name}"), micros, "us");
        }
    }

    /// Takes note of what the generator itself used; of several stretches the fullest counts.
    pub(crate) fn generator(&mut self, usage: &Usage) {
        self.generator_cores = self.generator_cores.max(usage.own_cores());
        self.bottleneck |= usage.generator_was_full();
    }

    /// Writes the report.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn print(&self, out: &mut dyn Write, as_json: bool) -> io::Result<()> {
        if as_json { output::json(out, &self.to_json()) } else { self.print_text(out) }
    }

    fn print_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let parameters: Vec<String> = self.parameters.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let tls = if self.tls { " with TLS" } else { "" };
        writeln!(out, "bench {} of {}{tls}: {}", self.bench, self.address, parameters.join(", "))?;
        writeln!(out, "machine: {} cores; the generator used {:.2} of one", cores(), self.generator_cores)?;
        if self.bottleneck {
            writeln!(out, "the generator itself was the bottleneck: the server could have done more")?;
        }
        for note in &self.notes {
            writeln!(out, "{note}")?;
        }
        writeln!(out)?;
        let widths = |text: fn(&Row) -> usize| self.rows.iter().map(text).max().unwrap_or(0);
        let words = widths(|row| row.words.chars().count());
        let digits = widths(|row| number(row.value).len());
        for row in &self.rows {
            let line = format!("{:<words$}  {:>digits$} {}", row.words, number(row.value), row.unit);
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let parameters: Map<String, Value> =
            self.parameters.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let figures: Map<String, Value> = self.rows.iter().map(|row| (row.key.clone(), json!(row.value))).collect();
        json!({
            "bench": self.bench,
            "address": self.address,
            "tls": self.tls,
            "parameters": parameters,
            "machine": {"cores": cores()},
            "generator": {"cores_used": self.generator_cores, "was_bottleneck": self.bottleneck},
            "notes": self.notes,
            "results": figures,
        })
    }
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A figure with as many decimals as it is worth.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn report(own: Duration) -> Report {
        let mut latencies = Latencies::new().unwrap();
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let usage = Usage { wall: Duration::from_secs(2), own, servers: vec![Duration::from_millis(10)] };
        let mut report = Report::new("ping", "127.0.0.1:4647", false);
        report.parameter("connections", 8);
        report.calls("", "call", 1000, &latencies, &usage);
        report
    }

    #[test]
    fn text_and_json_have_the_same_figures() {
        let report = report(Duration::from_secs(1));
        let mut out = Vec::new();
        report.print(&mut out, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("connections 8"), "{text}");
        assert!(text.contains("rate                 500 /s"), "{text}");
        assert!(text.contains("server CPU a call     10 us"), "{text}");
        assert!(!text.contains("bottleneck"), "{text}");
        let mut out = Vec::new();
        report.print(&mut out, true).unwrap();
        let value: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["results"]["rate_per_s"], 500.0);
        assert_eq!(value["results"]["server_cpu_us"], 10.0);
        let p50 = value["results"]["latency_p50_us"].as_f64().unwrap();
        assert!((p50 - 500.0).abs() < 1.0, "{p50}");
        assert_eq!(value["generator"]["was_bottleneck"], false);
    }

    #[test]
    fn a_generator_at_its_limit_is_said() {
        let mut out = Vec::new();
        report(Duration::from_millis(1990)).print(&mut out, false).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("the generator itself was the bottleneck"));
    }

    #[test]
    fn figures_have_fitting_decimals() {
        for (value, text) in [(5.0, "5"), (12.34, "12.3"), (1.23456, "1.235"), (123_456.7, "123457")] {
            assert_eq!(number(value), text);
        }
    }
}
