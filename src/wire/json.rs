//! One msgpack value as JSON text, the way Nomad's HTTP API shows it. Never reads JSON and never buffers a value.
//!
//! Maps become objects, byte strings base64, Go's binary times RFC 3339. The wire does not tell strings from byte
//! strings, nor times from either, so text is what is valid UTF-8, and a time is what has the shape of one under a
//! name that holds times. Source: HTTP notes, section 1.2; transport notes, section 5.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use crate::base::time::format_rfc3339;
use crate::wire::msgpack::{DecodeError, Decoder, Kind, Result};

/// Values may nest less deep than this; what peers send nests some ten deep.
pub const MAX_JSON_DEPTH: usize = 128;

/// Names of fields that hold times (`time.Time` of Go) in the structures of Nomad.
///
/// Others of the same name hold integers (CreateTime of a variable): a value that has not the shape of a time is
/// written as what it is.
pub const TIME_FIELDS: &[&str] = &[
    "CreateTime",
    "Date",
    "Established",
    "ExpirationTime",
    "ExpiresAt",
    "FinishedAt",
    "ForceDeadline",
    "LastRestart",
    "LeaseExpiration",
    "ModifyTime",
    "RequireProgressBy",
    "StableSince",
    "StartedAt",
    "SubmitTime",
    "Time",
    "Timestamp",
    "UpdateTime",
    "UpdatedAt",
];

/// Names of fields whose keys and values are their owner's words: within them nothing is taken for a time, a duration
/// or a secret, whatever it is called and looks like.
pub const OWNERS_WORDS: &[&str] =
    &["Attributes", "Details", "Dynamic", "Items", "Links", "Matches", "Meta", "Static", "Tags"];

/// How a value is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonStyle {
    /// Keys sorted by name; otherwise in the order of the input.
    pub sorted: bool,
    /// Fields shown as the empty string wherever they lie, but within [`JsonStyle::opaque`] ones.
    pub blanked: &'static [&'static str],
    /// Fields within which strings are strings and keys mean nothing.
    pub opaque: &'static [&'static str],
    /// Fields whose integers are nanoseconds, shown as Go's durations in words; 0 as the empty text.
    pub durations: &'static [&'static str],
    /// Fields that hold bytes, shown in base64 even where they are text.
    pub bytes: &'static [&'static str],
    /// Fields of the outermost object, or of the objects of the outermost list, that are left out when nil.
    pub omitted: &'static [&'static str],
}

impl JsonStyle {
    /// As the HTTP API shows a registered object: keys by name, no secrets.
    pub const PUBLIC: JsonStyle = JsonStyle {
        sorted: true,
        blanked: &["SecretID"],
        opaque: OWNERS_WORDS,
        durations: &[],
        bytes: &["Hash"],
        omitted: &[],
    };
    /// Everything as it came.
    pub const PLAIN: JsonStyle =
        JsonStyle { sorted: false, blanked: &[], opaque: &[], durations: &[], bytes: &[], omitted: &[] };
}

/// Appends a value in [`JsonStyle::PUBLIC`].
///
/// # Errors
/// Bytes that are not one whole value, an extension, a key that is a container, or nesting of [`MAX_JSON_DEPTH`] or
/// deeper. What `out` holds beyond its old end is then of no use.
pub fn to_json(value: &[u8], out: &mut String) -> Result<()> {
    to_json_in_style(value, JsonStyle::PUBLIC, out)
}

/// Appends a value in a style of choice.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_in_style(value: &[u8], style: JsonStyle, out: &mut String) -> Result<()> {
    let mut writer = Writer { d: Decoder::new(value), style, opaque: false, out };
    writer.value("", 0)?;
    if writer.d.at_end() { Ok(()) } else { Err(writer.d.error("bytes after the value")) }
}

/// Appends a JSON string. `<`, `>` and `&` are written as they are.
pub fn push_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut written = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(text.get(written..at).unwrap_or_default());
        written = at + 1;
        if escape.is_empty() {
            push_fmt(out, format_args!("\\u{byte:04x}"));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(text.get(written..).unwrap_or_default());
    out.push('"');
}

/// Appends bytes in base64 (RFC 4648 section 4, padded), without quotes.
pub fn push_base64(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0usize, |bits, byte| bits << 8 | usize::from(*byte)) << (8 * (3 - chunk.len()));
        for nth in 0..4 {
            let digit = ALPHABET[bits >> (18 - 6 * nth) & 63];
            out.push(if nth <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
}

/// The text of a Go binary time; `None` when the bytes are none, or of a year that RFC 3339 cannot hold.
///
/// A time in a zone keeps its offset, as Go prints it.
pub fn go_time_text(bytes: &[u8]) -> Option<String> {
    const UNIX_OF_YEAR_1: i64 = -62_135_596_800;
    const UNIX_OF_YEAR_10000: i64 = 253_402_300_800;
    let ([1, s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, z0, z1], []) = bytes.split_first_chunk()? else {
        return None;
    };
    let nanos = u32::from_be_bytes([*n0, *n1, *n2, *n3]);
    // Minutes east of Greenwich; -1 says UTC.
    let offset = match i16::from_be_bytes([*z0, *z1]) {
        -1 => 0,
        minutes => i64::from(minutes),
    };
    let since_year_1 = i64::from_be_bytes([*s0, *s1, *s2, *s3, *s4, *s5, *s6, *s7]);
    let local = since_year_1.checked_add(UNIX_OF_YEAR_1)?.checked_add(offset * 60)?;
    if nanos > 999_999_999 || !(UNIX_OF_YEAR_1..UNIX_OF_YEAR_10000).contains(&local) || offset.abs() >= 24 * 60 {
        return None;
    }
    let mut text = format_rfc3339(local, nanos);
    if offset != 0 {
        text.pop();
        let sign = if offset < 0 { '-' } else { '+' };
        push_fmt(&mut text, format_args!("{sign}{:02}:{:02}", offset.abs() / 60, offset.abs() % 60));
    }
    Some(text)
}

/// The text of a Go duration, given in nanoseconds: `1h0m0s`, `1.5s`, `-250ms`.
pub fn go_duration_text(nanos: i64) -> String {
    let mut text = String::new();
    push_go_duration(nanos, &mut text);
    text
}

/// Appends a duration as Go's `time.Duration.String` prints it: `15s`, `1m30s`, `24h0m0s`, `1.5ms`, `0s`.
pub fn push_go_duration(nanos: i64, out: &mut String) {
    if nanos < 0 {
        out.push('-');
    }
    let all = nanos.unsigned_abs();
    let (unit, name) = match all {
        0 => (1_000_000_000, "s"),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let (hours, minutes) = (all / 3_600_000_000_000, all / 60_000_000_000 % 60);
    if hours > 0 {
        push_fmt(out, format_args!("{hours}h"));
    }
    if hours > 0 || minutes > 0 {
        push_fmt(out, format_args!("{minutes}m"));
    }
    let rest = all % 60_000_000_000;
    push_fmt(out, format_args!("{}", rest / unit));
    let fraction = rest % unit;
    if fraction > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        out.push('.');
        out.push_str(digits.trim_end_matches('0'));
    }
    out.push_str(name);
}

/// Appends JSON text with line breaks: four spaces a level, a space behind each colon, and a line break at the end, as
/// Go's encoder indents. Text that is no JSON comes out as other text that is none.
pub fn push_pretty(json: &str, out: &mut String) {
    let mut depth = 0usize;
    let mut rest = json.chars().peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(c) = rest.next() {
        match c {
            '{' | '[' => {
                out.push(c);
                if let Some(close) = rest.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(out, depth);
            }
            ':' => out.push_str(": "),
            '"' => {
                out.push(c);
                let mut escaped = false;
                for c in rest.by_ref() {
                    out.push(c);
                    if c == '"' && !escaped {
                        break;
                    }
                    escaped = c == '\\' && !escaped;
                }
            }
            ' ' | '\n' | '\r' | '\t' => {}
            _ => out.push(c),
        }
    }
    out.push('\n');
}

fn push_fmt(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

struct Writer<'a, 'o> {
    d: Decoder<'a>,
    style: JsonStyle,
    /// Within a field of [`JsonStyle::opaque`].
    opaque: bool,
    out: &'o mut String,
}

/// An object's entry within the output: its key's bytes in the input and its text.
struct Entry<'a> {
    key: &'a [u8],
    start: usize,
    end: usize,
}

impl<'a> Writer<'a, '_> {
    /// Writes the next value, the one called `name`.
    fn value(&mut self, name: &str, depth: usize) -> Result<()> {
        if depth >= MAX_JSON_DEPTH {
            return Err(self.d.error("nested too deeply"));
        }
        match self.d.kind()? {
            Kind::Nil => {
                self.d.nil()?;
                self.out.push_str("null");
            }
            Kind::Bool => {
                let text = if self.d.bool()? { "true" } else { "false" };
                self.out.push_str(text);
            }
            Kind::Int => {
                let number = self.d.integer()?;
                match i64::try_from(number) {
                    Ok(nanos) if self.is(self.style.durations, name) => {
                        self.out.push('"');
                        if nanos != 0 {
                            push_go_duration(nanos, self.out);
                        }
                        self.out.push('"');
                    }
                    _ => push_fmt(self.out, format_args!("{number}")),
                }
            }
            Kind::Float => {
                let number = self.d.f64()?;
                self.float(number);
            }
            Kind::Str => {
                let bytes = self.d.bytes()?;
                self.text_or_bytes(name, bytes);
            }
            Kind::Array => self.array(name, depth)?,
            Kind::Map => self.object(depth)?,
            Kind::Ext => return Err(self.d.error("extensions have no JSON form")),
        }
        Ok(())
    }

    fn float(&mut self, number: f64) {
        if !number.is_finite() {
            self.out.push_str("null");
        } else if number == 0.0 || (1e-6..1e21).contains(&number.abs()) {
            // Whole numbers without a fraction, and very small and very large ones short, as Go writes them.
            push_fmt(self.out, format_args!("{number}"));
        } else {
            push_fmt(self.out, format_args!("{number:e}"));
        }
    }

    /// Whether a field has a meaning of its own by its name.
    fn is(&self, names: &[&str], name: &str) -> bool {
        !self.opaque && names.contains(&name)
    }

    fn text_or_bytes(&mut self, name: &str, bytes: &[u8]) {
        let time = if self.is(TIME_FIELDS, name) { go_time_text(bytes) } else { None };
        let text = if self.is(self.style.bytes, name) { None } else { std::str::from_utf8(bytes).ok() };
        match (time, text) {
            (Some(time), _) => push_json_string(&time, self.out),
            (None, Some(text)) => push_json_string(text, self.out),
            (None, None) => {
                self.out.push('"');
                push_base64(bytes, self.out);
                self.out.push('"');
            }
        }
    }

    fn array(&mut self, name: &str, depth: usize) -> Result<()> {
        let len = self.d.array()?.unwrap_or(0);
        self.out.push('[');
        for nth in 0..len {
            if nth > 0 {
                self.out.push(',');
            }
            self.value(name, depth + 1)?;
        }
        self.out.push(']');
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<()> {
        let len = self.d.map()?.unwrap_or(0);
        self.out.push('{');
        let body = self.out.len();
        let mut entries: Vec<Entry<'a>> = Vec::new();
        for _ in 0..len {
            let before = self.out.len();
            if before > body {
                self.out.push(',');
            }
            let start = self.out.len();
            let Some(key) = self.entry(depth)? else {
                self.out.truncate(before);
                continue;
            };
            if self.style.sorted {
                entries.push(Entry { key, start, end: self.out.len() });
            }
        }
        if !entries.is_sorted_by_key(|entry| entry.key) {
            self.sort(body, entries);
        }
        self.out.push('}');
        Ok(())
    }

    /// Writes a key and its value, and hands back the key's bytes; `None` when the entry is to be left out.
    fn entry(&mut self, depth: usize) -> Result<Option<&'a [u8]>> {
        let (key, name) = self.key()?;
        if depth <= 1 && self.is(self.style.omitted, &name) && self.d.nil()? {
            return Ok(None);
        }
        push_json_string(&name, self.out);
        self.out.push(':');
        if self.is(self.style.blanked, &name) {
            self.d.skip()?;
            self.out.push_str("\"\"");
        } else {
            let outside = self.opaque;
            self.opaque |= self.is(self.style.opaque, &name);
            self.value(&name, depth + 1)?;
            self.opaque = outside;
        }
        Ok(Some(key))
    }

    /// Reads a key: its bytes, and how it is written. Numbers become text, as Go's encoder does with such maps.
    fn key(&mut self) -> Result<(&'a [u8], std::borrow::Cow<'a, str>)> {
        match self.d.kind()? {
            Kind::Str => self.d.bytes().map(|bytes| (bytes, String::from_utf8_lossy(bytes))),
            Kind::Int => {
                let raw = self.d.clone().raw()?;
                Ok((raw, self.d.integer()?.to_string().into()))
            }
            _ => Err(self.key_error()),
        }
    }

    fn key_error(&self) -> DecodeError {
        self.d.error("only strings and integers can be keys")
    }

    /// Puts the entries that stand at the end of the output, from `body` on, in the order of their keys.
    fn sort(&mut self, body: usize, mut entries: Vec<Entry<'a>>) {
        entries.sort_by_key(|entry| entry.key);
        let sorted: Vec<&str> =
            entries.iter().map(|entry| self.out.get(entry.start..entry.end).unwrap_or_default()).collect();
        let sorted = sorted.join(",");
        self.out.truncate(body);
        self.out.push_str(&sorted);
    }
}
