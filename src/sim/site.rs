//! A machine that a server runs on: its disk, its keys, its clock and its address. It outlives the server's processes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ring::digest::{SHA256, digest};

use crate::base::id::ReplicaId;
use crate::base::time::Instant;
use crate::server::port::ClusterFile;

use super::disk::Disk;
use super::truth::Truth;

/// A machine, by its place in the list.
pub type SiteNumber = usize;

/// A monotonic clock that goes a little wrong, and began at another time than the world.
#[derive(Clone, Copy, Debug, Default)]
pub struct SiteClock {
    /// What it showed when the world began, nanoseconds.
    pub offset: u64,
    /// How much faster than the world it goes, millionths.
    pub ppm: i64,
    /// How long it stood still, nanoseconds (a planted fault).
    pub lost: u64,
}

const MILLION: i128 = 1_000_000;

impl SiteClock {
    /// What the clock shows at a time of the world.
    pub fn read(&self, world: Instant) -> Instant {
        let gone = i128::from(world.as_nanos()) * (MILLION + i128::from(self.ppm)) / MILLION;
        let shown = i128::from(self.offset) + gone - i128::from(self.lost);
        Instant::from_nanos(u64::try_from(shown.max(0)).unwrap_or(u64::MAX))
    }

    /// The first time of the world at which the clock shows this, or more.
    pub fn when(&self, shown: Instant) -> Instant {
        let gone = i128::from(shown.as_nanos()) - i128::from(self.offset) + i128::from(self.lost);
        let rate = MILLION + i128::from(self.ppm);
        let world = (gone.max(0) * MILLION + rate - 1) / rate;
        Instant::from_nanos(u64::try_from(world).unwrap_or(u64::MAX))
    }
}

/// A machine.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The log and the snapshots.
    pub disk: Disk,
    /// Private signing keys on it: id and seed.
    pub signing_keys: BTreeMap<String, [u8; 32]>,
    /// What the server remembers of its cluster.
    pub cluster: ClusterFile,
    /// The entries that were written here since the last snapshot that was installed; never compacted.
    pub log: Truth,
    /// Applied before they were seen to be written.
    pub unseen: BTreeSet<u64>,
    /// What a sync takes at least.
    pub sync_time: Duration,
    /// The next sync fails.
    pub disk_fails: bool,
    /// How far the calendar was set, nanoseconds.
    pub calendar_offset: i64,
    /// The monotonic clock.
    pub clock: SiteClock,
    /// The process that runs here, by its place in the history.
    pub life: Option<usize>,
    /// No process begins here any more.
    pub gone: bool,
}

/// The server's id.
pub fn server_id(site: SiteNumber) -> String {
    format!("00000000-0000-4000-8000-{:012x}", site + 1)
}

/// As raft names the server of a cluster: of its id (the first bytes of SHA-256).
pub fn replica_id(site: SiteNumber) -> ReplicaId {
    let hash = digest(&SHA256, server_id(site).as_bytes());
    let number = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    ReplicaId(number.max(1))
}

/// Where the server is reached.
pub fn address(site: SiteNumber) -> String {
    format!("10.0.0.{}:4647", site + 1)
}

/// Whose address this is.
pub fn site_of(address: &str) -> Option<SiteNumber> {
    address.strip_prefix("10.0.0.")?.strip_suffix(":4647")?.parse::<usize>().ok()?.checked_sub(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_and_turned_back() {
        for (offset, ppm) in [(0, 0), (5_000_000_000, 0), (77, 500), (1 << 40, -500)] {
            let clock = SiteClock { offset, ppm, lost: 0 };
            for nanos in [0, 1, 999, 1_000_000_007, 86_400_000_000_000] {
                let world = Instant::from_nanos(nanos);
                let shown = clock.read(world);
                let back = clock.when(shown);
                assert!(back <= world && clock.read(back) >= shown, "{offset} {ppm} {nanos}");
            }
        }
        assert_eq!(SiteClock::default().read(Instant::from_nanos(9)), Instant::from_nanos(9));
    }

    #[test]
    fn addresses_lead_back_to_their_sites() {
        assert_eq!((0..9).map(|site| site_of(&address(site)).unwrap()).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
        assert!(["", "10.0.0.0:4647", "10.0.0.x:4647", "10.0.0.1:4646"].iter().all(|text| site_of(text).is_none()));
        assert_ne!(replica_id(0), replica_id(1));
    }
}
