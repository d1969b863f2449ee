//! What callers did and what they were told: a line of JSON for each call.

use std::collections::BTreeMap;
use std::io::{BufRead, Read, Write};

use serde::{Deserialize, Serialize};

/// Bytes of one line at most.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// Calls of one history at most.
pub(crate) const RECORDS_MAX: usize = 2_000_000;
/// Bytes of one history at most.
const HISTORY_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// One element more at the end of a list, if the variable still has the index that was named.
    Append,
    /// This value, whatever was there.
    Set,
    /// What is there.
    Read,
}

/// What the caller knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// It was carried out.
    Ok,
    /// It was surely not.
    Fail,
    /// It may have been carried out, or may yet be, or not.
    Unknown,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Who made it; one call at a time each.
    pub(crate) process: u32,
    pub(crate) kind: Kind,
    /// The variable.
    pub(crate) key: String,
    /// Of a write the element, of a read what was seen: elements with a space between; nothing when nothing was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
    /// The index that an append named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<u64>,
    /// When it was asked, nanoseconds from the begin of the run.
    pub(crate) call_ns: u64,
    /// When the caller had its answer, or gave up.
    pub(crate) return_ns: u64,
    pub(crate) outcome: Outcome,
    /// The variable's modify index, as it was told; 0 when it was not, or nothing is there.
    #[serde(default)]
    pub(crate) index: u64,
    /// The variable's create index, as a read was told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) create_index: u64,
    /// What the error meant; `conflict` when another write came first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) class: String,
    /// Whether it was made after the load was over.
    #[serde(default, rename = "final", skip_serializing_if = "is_false")]
    pub(crate) is_final: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The class of a write that another came before.
pub(crate) const CONFLICT: &str = "conflict";

impl Record {
    /// Writes it as a line.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        out.write_all(b"\n")
    }

    /// Whether another write came first, so that this one did nothing.
    pub(crate) fn is_conflict(&self) -> bool {
        self.outcome == Outcome::Fail && self.class == CONFLICT
    }

    /// The elements that a read saw.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &str> {
        self.value.as_deref().unwrap_or_default().split(' ').filter(|element| !element.is_empty())
    }

    /// The element that a write brought.
    pub(crate) fn element(&self) -> Option<&str> {
        self.value.as_deref().filter(|_| self.kind != Kind::Read)
    }

    fn check(&self) -> Result<(), String> {
        if self.key.is_empty() {
            return Err("a call without a key".to_owned());
        }
        if self.return_ns < self.call_ns {
            return Err(format!("returned at {} ns, before it was asked at {} ns", self.return_ns, self.call_ns));
        }
        match (self.kind, self.outcome) {
            (Kind::Read, Outcome::Unknown) => Err("a read has no unknown outcome".to_owned()),
            (Kind::Read, _) => Ok(()),
            _ if self.value.as_deref().is_none_or(|value| value.is_empty() || value.contains(char::is_whitespace)) => {
                Err("a write needs a value without spaces".to_owned())
            }
            (_, Outcome::Ok) if self.index == 0 => Err("a write that was carried out needs its index".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Reads a history.
///
/// # Errors
/// The line that is none, in words; one that is too long, or too many.
pub(crate) fn read(from: &mut dyn BufRead) -> Result<Vec<Record>, String> {
    let (mut records, mut bytes, mut number) = (Vec::new(), 0u64, 0u64);
    let mut writers: BTreeMap<String, u64> = BTreeMap::new();
    let mut line = Vec::new();
    loop {
        number += 1;
        line.clear();
        let wrong = |what: &dyn std::fmt::Display| format!("line {number}: {what}");
        let count = Read::take(&mut *from, LINE_BYTES_MAX + 1).read_until(b'\n', &mut line).map_err(|e| wrong(&e))?;
        bytes += u64::try_from(count).unwrap_or(u64::MAX);
        if count == 0 {
            return Ok(records);
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(wrong(&format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        if records.len() >= RECORDS_MAX || bytes > HISTORY_BYTES_MAX {
            return Err(wrong(&format!("more than {RECORDS_MAX} calls, or than {HISTORY_BYTES_MAX} bytes")));
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record: Record = serde_json::from_slice(&line).map_err(|error| wrong(&error))?;
        record.check().map_err(|error| wrong(&error))?;
        if let Some(element) = record.element()
            && let Some(first) = writers.insert(format!("{} {element}", record.key), number)
        {
            return Err(wrong(&format!("writes the same as line {first}: nobody could tell them apart")));
        }
        records.push(record);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = r#"{"process":1,"kind":"append","key":"k","value":"a","base":0,"call_ns":5,"return_ns":9,"outcome":"ok","index":3}"#;

    fn parse(text: &str) -> Result<Vec<Record>, String> {
        read(&mut text.as_bytes())
    }

    #[test]
    fn a_record_is_one_line_and_comes_back() {
        let records = parse(&format!("{LINE}\n\n")).unwrap();
        let mut out = Vec::new();
        records[0].write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{LINE}\n"));
    }

    #[test]
    fn what_is_no_history_is_told_with_its_line() {
        for (from, to, text) in [
            (r#""append""#, r#""delete""#, "line 2: unknown variant `delete`"),
            (r#""return_ns":9"#, r#""return_ns":4"#, "line 2: returned at 4 ns, before it was asked at 5 ns"),
            (r#""value":"a","#, "", "line 2: a write needs a value without spaces"),
            (r#""value":"a""#, r#""value":"a b""#, "line 2: a write needs a value without spaces"),
            (r#""index":3"#, r#""index":0"#, "line 2: a write that was carried out needs its index"),
            (r#""index":3}"#, r#""index":3"#, "line 2: EOF"),
            (r#""key":"k""#, r#""key":"""#, "line 2: a call without a key"),
            (r#""value":"a""#, r#""value":"z""#, "line 2: writes the same as line 1"),
            (r#""process":1"#, r#""process":-1"#, "line 2: invalid value"),
        ] {
            let told = parse(&format!("{}\n{}", LINE.replace(r#""a""#, r#""z""#), LINE.replace(from, to))).unwrap_err();
            assert!(told.starts_with(text), "{told}");
        }
        let long = format!("{LINE}\n{}", " ".repeat(2 * 1024 * 1024));
        assert!(parse(&long).unwrap_err().starts_with("line 2: longer than"));
        assert!(read(&mut &[0xff, 0xfe, b'\n'][..]).unwrap_err().starts_with("line 1: "));
    }

    proptest! {
        // Garbage is refused, and never ends the program.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in 0usize..100) {
            let _ = read(&mut &bytes[..]);
            let mut line = LINE.as_bytes().to_vec();
            for (slot, byte) in line.iter_mut().skip(at).zip(bytes.iter().take(3)) {
                *slot = *byte;
            }
            if let Ok(records) = read(&mut &line[..]) {
                let _ = super::super::judge::judge(&records);
            }
        }
    }
}
