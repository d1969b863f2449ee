//! Log lines as Agent.Monitor sends them (endpoint notes, section 7).

use std::sync::Arc;

use crate::api::outcome::MonitorOptions;
use crate::base::bounded::Queue;
use crate::base::time::WallTime;
use crate::wire::json;
use crate::wire::msgpack::{Bytes, Msg};
use crate::wire::streaming::StreamErrWrapper;

use super::port::LogLine;

/// Bytes of log in one frame.
const FRAME_BYTES: usize = 1024;

/// All lines that wait, as messages.
pub(super) fn messages(options: &MonitorOptions, lines: &mut Queue<Arc<LogLine>>, dropped: u64) -> Vec<Arc<[u8]>> {
    let mut text = String::new();
    while let Some(line) = lines.pop() {
        text.push_str(&format_line(options, &line));
        text.push('\n');
    }
    if dropped > 0 {
        text.push_str(&format!("[WARN] Monitor dropped {dropped} logs during monitor request\n"));
    }
    if options.plain {
        return vec![wrap(text.into_bytes())];
    }
    let mut messages = Vec::new();
    for piece in text.as_bytes().chunks(FRAME_BYTES) {
        let mut frame = "{\"Data\":\"".to_owned();
        json::push_base64(piece, &mut frame);
        frame.push_str("\",\"FileEvent\":\"log\"}");
        messages.push(wrap(frame.into_bytes()));
    }
    messages
}

/// The sign that the stream lives.
pub(super) fn heartbeat() -> Arc<[u8]> {
    wrap(b"{}".to_vec())
}

/// The first message of a plain monitor, which has no sign of life: there are no lines yet.
pub(super) fn begun() -> Arc<[u8]> {
    wrap(Vec::new())
}

fn wrap(payload: Vec<u8>) -> Arc<[u8]> {
    StreamErrWrapper { error: None, payload: Some(Bytes(payload)) }.to_bytes().into()
}

/// One line; API tests look for the level in brackets.
fn format_line(options: &MonitorOptions, line: &LogLine) -> String {
    let time = WallTime::from_unix_nanos(line.unix_nanos).rfc3339();
    let level = line.level.as_str();
    let location = if options.location { line.location.as_deref() } else { None };
    if options.json {
        let mut object = serde_json::json!({
            "@level": level.to_ascii_lowercase(), "@message": line.text, "@module": line.target, "@timestamp": time,
        });
        if let Some(location) = location {
            object["@caller"] = location.into();
        }
        return object.to_string();
    }
    let location = location.map(|at| format!(" {at}:")).unwrap_or_default();
    format!("{time} [{level}]{location} {}: {}", line.target, line.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    #[test]
    fn lines_carry_the_bracketed_level_and_dropped_ones_are_told() {
        let line = LogLine {
            unix_nanos: 0,
            level: Level::Warn,
            target: "holdfast::server".to_owned(),
            text: "something: key=1".to_owned(),
            location: None,
        };
        let options = MonitorOptions { level: Level::Info, json: false, plain: true, location: false };
        let mut lines = Queue::new(4);
        lines.push(Arc::new(line)).expect("fits");
        let messages = messages(&options, &mut lines, 3);
        let text = String::from_utf8_lossy(&messages[0]).into_owned();
        assert!(text.contains("1970-01-01T00:00:00Z [WARN] holdfast::server: something: key=1\n"), "{text}");
        assert!(text.contains("[WARN] Monitor dropped 3 logs during monitor request\n"), "{text}");
    }
}
