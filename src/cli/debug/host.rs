//! Facts of the machine that this program runs on.

use std::fs;
use std::path::Path;
use std::thread;

use serde_json::{Map, Value, json};

/// Places whose room is told.
const PLACES: [&str; 3] = ["/", "/var/lib/holdfast", "/tmp"];
/// Lines of `/proc/meminfo` that are told.
const MEMORY: [&str; 4] = ["MemTotal", "MemFree", "MemAvailable", "SwapFree"];

/// The facts.
pub(super) fn facts() -> Value {
    let name = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    let space: Map<String, Value> =
        PLACES.iter().filter_map(|place| Some(((*place).to_owned(), room(place)?))).collect();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    json!({
        "host": text(name.nodename()), "system": text(name.sysname()), "kernel": text(name.release()),
        "machine": text(name.machine()), "cpus": thread::available_parallelism().map_or(0, usize::from),
        "load": load.split_whitespace().take(3).collect::<Vec<_>>(),
        "memory": memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()), "disks": space,
    })
}

fn room(place: &str) -> Option<Value> {
    if !Path::new(place).is_dir() {
        return None;
    }
    let found = rustix::fs::statvfs(place).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(json!({ "bytes": bytes(found.f_blocks), "free_bytes": bytes(found.f_bavail) }))
}

fn memory(info: &str) -> Value {
    let lines = info.lines().filter_map(|line| line.split_once(':'));
    let told = lines.filter(|(name, _)| MEMORY.contains(name));
    Value::Object(told.map(|(name, value)| (name.to_owned(), value.trim().into())).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let facts = facts();
        assert!(facts["cpus"].as_u64().unwrap() > 0 && facts["kernel"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(facts["disks"]["/"]["bytes"].as_u64().unwrap() > 0, "{facts}");
        assert_eq!(memory("MemTotal:  8 kB\nBuffers: 1 kB\n"), json!({ "MemTotal": "8 kB" }));
    }
}
