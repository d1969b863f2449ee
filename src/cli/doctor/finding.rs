//! What a check found, and how it is shown. Looks at nothing itself.

use std::io;
use std::io::Write;

use serde_json::{Value, json};

use crate::cli::output::clean;

/// What to think of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing, or not to be seen from here.
    Note,
    /// It works, and will hurt.
    Warn,
    /// It does not work.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Note => "note",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }

    /// Of a terminal (ECMA-48, SGR).
    fn colour(self) -> &'static str {
        match self {
            Verdict::Ok => "32",
            Verdict::Note => "36",
            Verdict::Warn => "33",
            Verdict::Fail => "31",
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    /// What was looked at.
    pub(super) what: String,
    /// What it is like.
    pub(super) detail: String,
    /// What to do; may be empty.
    pub(super) hint: String,
}

impl Finding {
    fn new(verdict: Verdict, what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding { verdict, what: what.into(), detail: detail.into(), hint: hint.into() }
    }

    pub(super) fn ok(what: impl Into<String>, detail: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, what, detail, "")
    }

    pub(super) fn note(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(Verdict::Note, what, detail, hint)
    }

    pub(super) fn warn(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(Verdict::Warn, what, detail, hint)
    }

    pub(super) fn fail(what: impl Into<String>, detail: impl Into<String>, hint: impl Into<String>) -> Finding {
        Finding::new(Verdict::Fail, what, detail, hint)
    }

    /// What this user may not look at is no fault of the thing.
    pub(super) fn unseen(what: impl Into<String>, error: &io::Error) -> Finding {
        let hint = "run it as root, or as the user that the server runs as";
        Finding::note(what, format!("cannot be seen by this user: {error}"), hint)
    }
}

/// All that was found, by group.
#[derive(Debug, Default)]
pub(super) struct Report {
    groups: Vec<(&'static str, Vec<Finding>)>,
}

impl Report {
    pub(super) fn add(&mut self, group: &'static str, findings: Vec<Finding>) {
        self.groups.push((group, findings));
    }

    fn all(&self) -> impl Iterator<Item = &Finding> {
        self.groups.iter().flat_map(|(_, findings)| findings)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.all().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether something does not work.
    pub(super) fn has_failed(&self) -> bool {
        self.count(Verdict::Fail) > 0
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let one = |group: &str, finding: &Finding| {
            json!({
                "group": group, "verdict": finding.verdict.word(), "what": finding.what, "detail": finding.detail,
                "hint": finding.hint,
            })
        };
        let rows = self.groups.iter().flat_map(|(group, found)| found.iter().map(move |finding| one(group, finding)));
        let rows: Vec<Value> = rows.collect();
        let [ok, note, warn, fail] =
            [Verdict::Ok, Verdict::Note, Verdict::Warn, Verdict::Fail].map(|verdict| self.count(verdict));
        json!({ "checks": rows, "ok": ok, "note": note, "warn": warn, "fail": fail })
    }

    /// For people.
    ///
    /// # Errors
    /// The writer's.
    pub(super) fn print(&self, out: &mut dyn Write, coloured: bool) -> io::Result<()> {
        let width = self.all().map(|finding| clean(&finding.what).chars().count()).max().unwrap_or(0);
        for (group, findings) in self.groups.iter().filter(|(_, findings)| !findings.is_empty()) {
            writeln!(out, "{group}")?;
            for finding in findings {
                let verdict = format!("{:<4}", finding.verdict.word());
                let verdict =
                    if coloured { format!("\x1b[{}m{verdict}\x1b[0m", finding.verdict.colour()) } else { verdict };
                let (what, detail) = (clean(&finding.what), clean(&finding.detail));
                writeln!(out, "{}", format!("  {verdict}  {what:<width$}  {detail}").trim_end())?;
                if !finding.hint.is_empty() {
                    writeln!(out, "        {}", clean(&finding.hint))?;
                }
            }
        }
        let (ok, note) = (self.count(Verdict::Ok), self.count(Verdict::Note));
        writeln!(
            out,
            "\n{ok} ok, {note} notes, {} warnings, {} failures",
            self.count(Verdict::Warn),
            self.count(Verdict::Fail)
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_a_line_a_check_and_says_what_to_do() {
        let mut report = Report::default();
        report.add("disk", vec![Finding::ok("space", "9 GiB free"), Finding::warn("sync", "20ms", "a faster disk")]);
        report.add("empty", Vec::new());
        let text = |coloured| {
            let mut out = Vec::new();
            report.print(&mut out, coloured).unwrap();
            String::from_utf8(out).unwrap()
        };
        let plain = "disk\n  ok    space  9 GiB free\n  warn  sync   20ms\n        a faster disk\n\n\
                     1 ok, 0 notes, 1 warnings, 0 failures\n";
        assert_eq!(text(false), plain);
        assert!(text(true).contains("\x1b[33mwarn\x1b[0m") && !report.has_failed());
        report.add("ports", vec![Finding::fail("rpc\x1b[2J", "taken", "")]);
        assert!(report.has_failed());
        let json = report.to_json();
        assert_eq!((&json["fail"], &json["checks"][2]["group"]), (&json!(1), &json!("ports")));
        let mut out = Vec::new();
        report.print(&mut out, false).unwrap();
        assert!(!String::from_utf8(out).unwrap().contains('\x1b'), "a name cannot steer the terminal");
    }
}
