//! Every key of the configuration once: name, type, bounds, default, meaning, and what this build lacks.
//!
//! The parser, the manual page and the sample file are all held to this table (`tests/docs.rs`). It reads nothing.
//! Source: design.md, "What an operator meets".

use std::time::Duration;

use crate::base::time::format_duration;

/// One key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// Dotted: table and key. A last part of `*` stands for any name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// What holds when it does not stand there.
    pub default: WhenUnset,
    /// A sentence, without a full stop.
    pub meaning: &'static str,
    /// Which use of it this build refuses.
    pub later: Later,
}

/// The type of a value, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A name without spaces.
    Name,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A file or folder.
    Path,
    /// `IP:PORT`; port 0 lets the kernel choose.
    Listen,
    /// `HOST:PORT` that others dial.
    Address,
    /// A list of `HOST:PORT`.
    Addresses,
    /// A list of IP addresses and networks.
    Networks,
    /// `postgres://...`
    Url,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Count(u64, u64),
    /// Connections of one client address: 0, or above 25 (the limit for streaming connections is 20 lower).
    Conns,
    /// Bytes, within bounds, both included.
    Size(u64, u64),
    /// A duration within bounds, both included.
    Span(Duration, Duration),
    /// A number within bounds, both included.
    Rate(f64, f64),
}

impl Kind {
    /// The name of the type, as the manual page has it.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Name | Kind::Choice(_) | Kind::Url => "string",
            Kind::Path => "path",
            Kind::Listen | Kind::Address => "address",
            Kind::Addresses => "addresses",
            Kind::Networks => "networks",
            Kind::Flag => "boolean",
            Kind::Count(..) | Kind::Conns => "integer",
            Kind::Size(..) => "size",
            Kind::Span(..) => "duration",
            Kind::Rate(..) => "number",
        }
    }

    /// The bounds in words, `1 to 7`; `None` for types that have none.
    pub fn bounds(self) -> Option<String> {
        match self {
            Kind::Count(min, max) => Some(format!("{min} to {max}")),
            Kind::Size(min, max) => Some(format!("{} to {}", format_size(min), format_size(max))),
            Kind::Span(min, max) => Some(format!("{} to {}", format_duration(min), format_duration(max))),
            Kind::Rate(min, max) => Some(format!("{min} to {max}")),
            _ => None,
        }
    }
}

/// The shortest text of a size that the parser reads back to the same number of bytes.
fn format_size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// What holds for a key that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnset {
    /// A value as it would stand in the file.
    Value(&'static str),
    /// Nothing, or what other settings make of it: words for the manual page.
    Words(&'static str),
}

/// Uses of a key that this build refuses: `not in this build: ...`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// All of it is here.
    No,
    /// Being set at all is such a use; what it belongs to.
    Set(&'static str),
    /// This word.
    Word(&'static str, &'static str),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const DAY: Duration = secs(86_400);

const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default: WhenUnset::Value(default), meaning, later: Later::No }
}

const fn unset(name: &'static str, kind: Kind, words: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default: WhenUnset::Words(words), meaning, later: Later::No }
}

const fn later(key: Key, later: Later) -> Key {
    Key { later, ..key }
}

/// All keys, in the order of the manual page.
pub const KEYS: &[Key] = &[
    unset("name", Kind::Name, "the host name", "The server's name, unique in its region"),
    key("region", Kind::Name, "\"global\"", "The region that the server belongs to"),
    key("datacenter", Kind::Name, "\"dc1\"", "The datacenter that the server says it is in"),
    unset(
        "data_dir",
        Kind::Path,
        "none; needed unless --dev is given",
        "The folder of the log, the snapshots and the signing keys",
    ),
    later(
        key("role", Kind::Choice(&["server", "relay"]), "\"server\"", "Whether the daemon keeps state or only relays"),
        Later::Word("relay", "role \"relay\""),
    ),
    key("listen.rpc", Kind::Listen, "\"127.0.0.1:4647\"", "Where the RPC port listens"),
    key("listen.http", Kind::Listen, "\"127.0.0.1:4646\"", "Where the HTTP port listens"),
    key(
        "listen.proxy_protocol_from",
        Kind::Networks,
        "[]",
        "Balancers, whose connections to either port must begin with a PROXY header of version 2",
    ),
    unset("advertise.rpc", Kind::Address, "what listen.rpc is", "The RPC address that others are told"),
    unset("advertise.http", Kind::Address, "what listen.http is", "The HTTP address that others are told"),
    later(
        key("cluster.engine", Kind::Choice(&["raft", "postgres"]), "\"raft\"", "How servers agree"),
        Later::Word("postgres", "engine \"postgres\""),
    ),
    key("cluster.bootstrap_expect", Kind::Count(1, 7), "1", "How many servers found the cluster"),
    key("cluster.join", Kind::Addresses, "[]", "RPC addresses of other servers of the region"),
    key(
        "cluster.election_timeout",
        Kind::Span(Duration::from_millis(100), secs(60)),
        "\"500ms\"",
        "How long a leader may be silent before another is elected; the same on all servers",
    ),
    key(
        "cluster.dead_server_after",
        Kind::Span(Duration::ZERO, secs(8760 * 3600)),
        "\"72h\"",
        "How long a server may be silent before it is removed, where the others can do without it; 0s for ever",
    ),
    key(
        "cluster.stalled_sync",
        Kind::Span(Duration::from_millis(100), secs(3600)),
        "\"10s\"",
        "How long a write to the disk may take before a leader hands over",
    ),
    key(
        "cluster.min_free_space",
        Kind::Size(0, 1024 * GIB),
        "\"64MiB\"",
        "Room on the disk of data_dir below which writes are refused; 0 for none",
    ),
    key(
        "cluster.digest_entries",
        Kind::Count(0, 1_000_000_000),
        "100000",
        "Entries of the log between two comparisons of the servers' states; 0 for none",
    ),
    later(
        unset("cluster.postgres.url", Kind::Url, "none", "The database of the postgres engine"),
        Later::Set("[cluster.postgres]"),
    ),
    later(
        key(
            "cluster.postgres.lease_duration",
            Kind::Span(secs(1), DAY),
            "\"10s\"",
            "How long a lease of leadership lasts",
        ),
        Later::Set("[cluster.postgres]"),
    ),
    later(
        key(
            "cluster.postgres.lease_refresh",
            Kind::Span(Duration::from_millis(10), DAY),
            "\"1s\"",
            "How often the leader renews its lease; at most half of lease_duration",
        ),
        Later::Set("[cluster.postgres]"),
    ),
    unset("regions.*", Kind::Addresses, "none", "RPC addresses of servers of the region of that name"),
    key(
        "rpc.hold_timeout",
        Kind::Span(Duration::ZERO, secs(600)),
        "\"5s\"",
        "How long a request waits for a leader before it fails",
    ),
    key(
        "rpc.max_query_time",
        Kind::Span(Duration::from_millis(1), DAY),
        "\"300s\"",
        "How long a blocking query waits at most, whatever it asks for",
    ),
    key(
        "rpc.default_query_time",
        Kind::Span(Duration::from_millis(1), DAY),
        "\"300s\"",
        "How long a blocking query waits that names no time",
    ),
    key(
        "rpc.handshake_timeout",
        Kind::Span(Duration::ZERO, secs(600)),
        "\"5s\"",
        "How long a connection may take to say what it speaks, and again for TLS; 0s for ever",
    ),
    key("rpc.handler_threads", Kind::Count(0, 1024), "0", "Threads that run handlers; 0 for one a core"),
    key("rpc.max_message", Kind::Size(64 * KIB, 64 * MIB), "\"16MiB\"", "The size of one request or reply"),
    key("rpc.drain_timeout", Kind::Span(Duration::ZERO, secs(3600)), "\"10s\"", "How long an orderly stop may take"),
    key(
        "rpc.pool_idle_timeout",
        Kind::Span(secs(1), DAY),
        "\"2m\"",
        "How long a connection to another server is kept without a call",
    ),
    key("variables.max_size", Kind::Size(KIB, 512 * KIB), "\"64KiB\"", "The size of one variable"),
    key("locks.min_ttl", Kind::Span(secs(2), DAY), "\"10s\"", "The shortest TTL of a lock"),
    key(
        "events.buffer",
        Kind::Size(MIB, 4 * GIB),
        "\"32MiB\"",
        "How much is kept of past events; never fewer than 20,000 events",
    ),
    key(
        "limits.rpc_max_conns_per_client",
        Kind::Conns,
        "100",
        "RPC connections of one client address, or of one certificate there; 0 for no limit",
    ),
    key(
        "limits.http_max_conns_per_client",
        Kind::Conns,
        "100",
        "HTTP connections of one client address, or of one certificate there; 0 for no limit",
    ),
    key("tls.rpc", Kind::Flag, "false", "Whether the RPC port demands TLS"),
    key("tls.http", Kind::Flag, "false", "Whether the HTTP port speaks TLS only"),
    unset("tls.ca_file", Kind::Path, "none", "Certificates of the authorities that peers are checked against, PEM"),
    unset("tls.cert_file", Kind::Path, "none", "The server's certificate and those between it and the authority, PEM"),
    unset("tls.key_file", Kind::Path, "none", "The key of that certificate, PEM"),
    unset(
        "tls.verify_server_hostname",
        Kind::Flag,
        "what tls.rpc is",
        "Whether servers must show a certificate for server.REGION.nomad to one another",
    ),
    key("tls.rpc_upgrade_mode", Kind::Flag, "false", "Whether plain connections are let in beside TLS for a while"),
    unset("tls.crl_file", Kind::Path, "none", "Revoked certificates, PEM"),
    key("acl.enabled", Kind::Flag, "false", "Whether callers need a token"),
    key(
        "heartbeat.min_ttl",
        Kind::Span(Duration::from_millis(100), DAY),
        "\"10s\"",
        "The shortest time after which a node is asked to beat again",
    ),
    key("heartbeat.grace", Kind::Span(Duration::ZERO, DAY), "\"10s\"", "How late a heartbeat may be"),
    key(
        "heartbeat.max_per_second",
        Kind::Rate(0.0, 1e6),
        "50.0",
        "Heartbeats a second that the whole fleet is spread over, where min_ttl allows",
    ),
    key(
        "heartbeat.failover_ttl",
        Kind::Span(Duration::from_millis(100), DAY),
        "\"300s\"",
        "How long a new leader waits for each node's first heartbeat",
    ),
    key("telemetry.prometheus", Kind::Flag, "true", "Whether /v1/metrics?format=prometheus is served"),
    unset("audit.file", Kind::Path, "none", "Where audit records go; \"stderr\" for standard error"),
    key(
        "backup.every",
        Kind::Span(Duration::ZERO, secs(8760 * 3600)),
        "\"0s\"",
        "How often the leader takes a backup, at least 1s; 0s for never",
    ),
    key("backup.keep", Kind::Count(1, 1000), "7", "How many good backups are kept"),
    unset("backup.dir", Kind::Path, "the folder backups in data_dir", "Where backups are kept"),
];

/// The key of that dotted name; any name fits a last part of `*`.
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| match key.name.strip_suffix('*') {
        Some(table) => name.strip_prefix(table).is_some_and(|rest| !rest.is_empty() && !rest.contains('.')),
        None => key.name == name,
    })
}

/// True for the dotted name of a table that has keys.
pub fn is_table(name: &str) -> bool {
    KEYS.iter().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The known name of a key or table that is nearest to an unknown one.
///
/// Nearest is by edit distance, of the whole dotted names or of their last parts: a key in the wrong table is told
/// the right one.
pub fn nearest(name: &str) -> &'static str {
    let distance = |known: &str| {
        let whole = edit_distance(name, known);
        match (name.rsplit('.').next(), known.rsplit('.').next()) {
            // Only where the last part says something: short ones are near to anything.
            (Some(ours), Some(theirs)) if ours.len() > 4 => whole.min(edit_distance(ours, theirs) + 1),
            _ => whole,
        }
    };
    names().min_by_key(|known| distance(known)).unwrap_or_default()
}

/// Names of all tables and keys.
fn names() -> impl Iterator<Item = &'static str> {
    let tables = KEYS.iter().flat_map(|key| key.name.match_indices('.').map(|(dot, _)| &key.name[..dot]));
    tables.chain(KEYS.iter().map(|key| key.name).filter(|name| !name.ends_with('*')))
}

/// How many characters must be inserted, removed or replaced to make one text the other.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (nth, from) in a.chars().enumerate() {
        let mut corner = nth;
        let mut left = nth + 1;
        for (to, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (corner + usize::from(from != *to)).min(left + 1).min(above + 1);
            corner = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = nth + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        for (a, b, distance) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("rpc", "rcp", 2), ("a", "a", 0)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
            assert_eq!(edit_distance(b, a), distance, "{b} {a}");
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for (nth, key) in KEYS.iter().enumerate() {
            assert!(KEYS[nth + 1..].iter().all(|other| other.name != key.name), "{}", key.name);
            assert_eq!(find(key.name).map(|found| found.name), Some(key.name));
            assert!(!key.meaning.ends_with('.'), "{}", key.name);
        }
        assert_eq!(find("regions.west").map(|key| key.name), Some("regions.*"));
        assert!(find("regions.").is_none() && find("regions.a.b").is_none() && find("regions").is_none());
        assert!(is_table("rpc") && is_table("cluster.postgres") && is_table("regions"));
        assert!(!is_table("rp") && !is_table("name") && !is_table("rpc.hold_timeout"));
    }

    // R6.25: the nearest known key is named.
    #[test]
    fn the_nearest_name_is_the_one_meant() {
        for (unknown, known) in [
            ("rpc.hold_timout", "rpc.hold_timeout"),
            ("hold_timeout", "rpc.hold_timeout"),
            ("limits.max_query_time", "rpc.max_query_time"),
            ("dataDir", "data_dir"),
            ("rcp", "rpc"),
            ("cluster.postgres.uri", "cluster.postgres.url"),
            ("tls.cafile", "tls.ca_file"),
            ("telemetry.prometeus", "telemetry.prometheus"),
            ("heartbeats", "heartbeat"),
        ] {
            assert_eq!(nearest(unknown), known, "{unknown}");
        }
        for far in ["", "server", "x.y.z", "\u{e4}.\u{e4}"] {
            assert!(find(nearest(far)).is_some() || is_table(nearest(far)), "{far}");
        }
    }
}
