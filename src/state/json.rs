//! A msgpack value of Go peers as JSON. Nesting is what registration let in, so recursion is bounded.

use crate::base::time::format_rfc3339;
use crate::wire::msgpack::{Decoder, Kind, Result};

/// Seconds from the first day of year 1 to the Unix epoch.
const YEAR_ONE_TO_UNIX: i64 = 62_135_596_800;

/// Appends the one value of `value` as JSON. Go's binary times become RFC 3339 in UTC.
///
/// # Errors
/// A value that JSON has no form for; `out` then ends anywhere within it.
pub(super) fn to_json(value: &[u8], out: &mut String) -> Result<()> {
    append(&mut Decoder::new(value), out)
}

fn append(d: &mut Decoder<'_>, out: &mut String) -> Result<()> {
    match d.kind()? {
        Kind::Nil => {
            d.nil()?;
            out.push_str("null");
        }
        Kind::Bool => out.push_str(if d.bool()? { "true" } else { "false" }),
        Kind::Int => match d.i64() {
            Ok(number) => out.push_str(&number.to_string()),
            Err(_) => out.push_str(&d.u64()?.to_string()),
        },
        Kind::Float => {
            let at = d.error("no number for JSON");
            let number = serde_json::Number::from_f64(d.f64()?).ok_or(at)?;
            out.push_str(&number.to_string());
        }
        Kind::Str => append_text(d, out)?,
        Kind::Array => {
            out.push('[');
            for nth in 0..d.array()?.unwrap_or(0) {
                if nth > 0 {
                    out.push(',');
                }
                append(d, out)?;
            }
            out.push(']');
        }
        Kind::Map => {
            out.push('{');
            for nth in 0..d.map()?.unwrap_or(0) {
                if nth > 0 {
                    out.push(',');
                }
                append_text(d, out)?;
                out.push(':');
                append(d, out)?;
            }
            out.push('}');
        }
        Kind::Ext => return Err(d.error("no extension in JSON")),
    }
    Ok(())
}

fn append_text(d: &mut Decoder<'_>, out: &mut String) -> Result<()> {
    let at = d.error("no text for JSON");
    let bytes = d.bytes()?;
    if let Some(time) = rfc3339(bytes) {
        out.push_str(&format!("\"{time}\""));
        return Ok(());
    }
    let quoted = std::str::from_utf8(bytes).ok().and_then(|text| serde_json::to_string(text).ok());
    out.push_str(&quoted.ok_or(at)?);
    Ok(())
}

/// The text of a time in Go's binary form: version 1, seconds since year 1, nanoseconds, zone.
fn rfc3339(bytes: &[u8]) -> Option<String> {
    let (&[1], rest) = bytes.split_first_chunk::<1>()? else { return None };
    let (seconds, rest) = rest.split_first_chunk::<8>()?;
    let (nanos, zone) = rest.split_first_chunk::<4>()?;
    let (seconds, nanos) = (i64::from_be_bytes(*seconds), u32::from_be_bytes(*nanos));
    let in_calendar = (0..YEAR_ONE_TO_UNIX * 10).contains(&seconds);
    (zone.len() == 2 && in_calendar && nanos < 1_000_000_000).then(|| format_rfc3339(seconds - YEAR_ONE_TO_UNIX, nanos))
}
