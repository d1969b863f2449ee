//! Tables and JSON, as text; knows nothing of what is in them.

use std::collections::BTreeMap;
use std::io;
use std::io::Write;

use serde_json::Value;

/// Rows of cells in columns as wide as their widest cell, two spaces apart. The first row is the head.
///
/// # Errors
/// The writer's.
pub(crate) fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// Names and values, the values in one column.
///
/// # Errors
/// The writer's.
pub(crate) fn pairs(out: &mut dyn Write, pairs: &[(&str, String)]) -> io::Result<()> {
    let rows: Vec<Vec<String>> = pairs.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect();
    table(out, &rows)
}

/// A title and its names and values, below an empty line; nothing when there are none.
///
/// # Errors
/// The writer's.
pub(crate) fn map(out: &mut dyn Write, title: &str, map: Option<&BTreeMap<String, String>>) -> io::Result<()> {
    let rows: Vec<_> = map.into_iter().flatten().map(|(key, value)| vec![clean(key), clean(value)]).collect();
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    table(out, &rows)
}

/// One JSON document, indented, with a line's end.
///
/// # Errors
/// The writer's.
pub(crate) fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// Text that came from a server, fit for a terminal: control characters are shown, not obeyed.
pub(crate) fn clean(text: &str) -> String {
    if text.chars().any(char::is_control) {
        text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
    } else {
        text.to_owned()
    }
}

/// What stands in a cell for an empty text.
pub(crate) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text) }
}

/// The first eight characters of an id.
pub(crate) fn short_id(id: &str) -> String {
    clean(&id.chars().take(8).collect::<String>())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let rows = [["a", "bb", ""], ["ccc", "d", ""]].map(|row| row.map(str::to_owned).to_vec());
        let mut out = Vec::new();
        table(&mut out, &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a    bb\nccc  d\n");
    }

    #[test]
    fn a_servers_text_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(or_dash(""), "-");
        assert_eq!(short_id("12345678-abcd"), "12345678");
    }
}
