//! What the process uses: memory and descriptors, from `/proc` (`proc(5)`).
//!
//! These files are made by the kernel as they are read, and wait for no disk. A system without them gives zeros.

use std::fs;

/// Resident memory, bytes.
pub(super) fn resident_bytes() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Open descriptors.
pub(super) fn descriptors() -> u64 {
    const FOLDER: &str = "/proc/self/fd";
    // Linux 6.2 and later say it as the folder's size; before, the entries are counted, less the one that counts.
    match fs::metadata(FOLDER).map(|folder| folder.len()) {
        Ok(count) if count > 0 => count,
        _ => fs::read_dir(FOLDER).map_or(0, |entries| (entries.count() as u64).saturating_sub(1)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_process_uses_something() {
        assert!(resident_bytes() > 100_000);
        let before = descriptors();
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors() >= before.min(3) + 50);
        drop(held);
    }
}
