//! Text to settings. An error names the file, the line and the key, and for an unknown key the nearest known one.
//!
//! Never opens a file: whether a path exists is the edge's to find out. Source: design.md, "What an operator meets".

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod check;
pub mod keys;
mod reader;
#[cfg(test)]
mod tests;

use crate::base::network::Network;
use reader::{Reader, Values};

/// Everything that can be set, checked, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `name`; default: the host name, which the caller hands in.
    pub name: String,
    /// `region`
    pub region: String,
    /// `datacenter`
    pub datacenter: String,
    /// `data_dir`; `None` only with `--dev`.
    pub data_dir: Option<PathBuf>,
    /// `listen.rpc`
    pub listen_rpc: SocketAddr,
    /// `listen.http`
    pub listen_http: SocketAddr,
    /// `listen.proxy_protocol_from`
    pub proxy_protocol_from: Vec<Network>,
    /// `advertise.rpc`; `None`: what is listened on.
    pub advertise_rpc: Option<String>,
    /// `advertise.http`
    pub advertise_http: Option<String>,
    /// `cluster.bootstrap_expect`
    pub bootstrap_expect: u64,
    /// `cluster.join`
    pub join: Vec<String>,
    /// `cluster.election_timeout`
    pub election_timeout: Duration,
    /// `cluster.dead_server_after`; zero: never.
    pub dead_server_after: Duration,
    /// `cluster.stalled_sync`
    pub stalled_sync: Duration,
    /// `cluster.min_free_space`, bytes; 0: no floor.
    pub min_free_bytes: u64,
    /// `cluster.digest_entries`; 0: never.
    pub digest_entries: u64,
    /// `[regions]`: names and addresses, in the order of the names.
    pub regions: Vec<(String, Vec<String>)>,
    /// `rpc.hold_timeout`
    pub hold_timeout: Duration,
    /// `rpc.max_query_time`
    pub max_query_time: Duration,
    /// `rpc.default_query_time`
    pub default_query_time: Duration,
    /// `rpc.handshake_timeout`; zero: none.
    pub handshake_timeout: Duration,
    /// `rpc.handler_threads`; 0: one a core.
    pub handler_threads: usize,
    /// `rpc.max_message`, bytes.
    pub max_message_bytes: usize,
    /// `rpc.drain_timeout`
    pub drain_timeout: Duration,
    /// `rpc.pool_idle_timeout`
    pub pool_idle_timeout: Duration,
    /// `variables.max_size`, bytes.
    pub variables_max_size_bytes: usize,
    /// `locks.min_ttl`
    pub locks_min_ttl: Duration,
    /// `events.buffer`, bytes.
    pub events_buffer_bytes: usize,
    /// `limits.rpc_max_conns_per_client`; 0: no limit.
    pub rpc_max_conns_per_client: usize,
    /// `limits.http_max_conns_per_client`; 0: no limit.
    pub http_max_conns_per_client: usize,
    /// `[tls]`
    pub tls: TlsConfig,
    /// `acl.enabled`
    pub acl_enabled: bool,
    /// `heartbeat.min_ttl`
    pub heartbeat_min_ttl: Duration,
    /// `heartbeat.grace`
    pub heartbeat_grace: Duration,
    /// `heartbeat.max_per_second`
    pub heartbeat_max_per_second: f64,
    /// `heartbeat.failover_ttl`
    pub heartbeat_failover_ttl: Duration,
    /// `telemetry.prometheus`
    pub prometheus: bool,
    /// `audit.file`; `None`: no audit log.
    pub audit_file: Option<PathBuf>,
    /// `backup.every`; zero: never.
    pub backup_every: Duration,
    /// `backup.keep`
    pub backup_keep: usize,
    /// `backup.dir`; `None`: a folder in the data folder.
    pub backup_dir: Option<PathBuf>,
    /// `--log`; `None`: RUST_LOG, or `info`.
    pub log_filter: Option<String>,
    /// `--dev`
    pub dev: bool,
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// `tls.rpc`
    pub rpc: bool,
    /// `tls.http`
    pub http: bool,
    /// `tls.ca_file`
    pub ca_file: Option<PathBuf>,
    /// `tls.cert_file`
    pub cert_file: Option<PathBuf>,
    /// `tls.key_file`
    pub key_file: Option<PathBuf>,
    /// `tls.verify_server_hostname`
    pub verify_server_hostname: bool,
    /// `tls.rpc_upgrade_mode`
    pub rpc_upgrade_mode: bool,
    /// `tls.crl_file`
    pub crl_file: Option<PathBuf>,
}

/// What the command line sets over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--name`
    pub name: Option<String>,
    /// `--region`
    pub region: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--rpc`
    pub rpc: Option<String>,
    /// `--http`
    pub http: Option<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--dev`
    pub dev: bool,
}

/// Why a configuration is refused. Prints as `FILE:LINE: KEY: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name, or `command line`.
    pub file: String,
    /// Counted from 1; 0 where no line is to blame.
    pub line: usize,
    /// The key, dotted (`rpc.hold_timeout`), or the option.
    pub key: String,
    /// A sentence.
    pub what: String,
}

impl fmt::Display for ConfigError {
    /// `FILE:LINE: KEY: what is wrong`, without what does not apply.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads a configuration. `text` is empty when there is no file (`--dev`).
    ///
    /// # Errors
    /// All that is wrong, in the order of the lines; never empty.
    pub fn parse(file: &str, text: &str, overrides: &Overrides, host_name: &str) -> Result<Config, Vec<ConfigError>> {
        let mut reader = Reader::new(file);
        reader.read_file(text);
        reader.read_overrides(overrides);
        reader.check_together(overrides.dev, host_name);
        let Reader { values, mut errors, .. } = reader;
        if errors.is_empty() {
            return Ok(assemble(&values, overrides, host_name));
        }
        errors.sort_by_key(|error| error.line);
        Err(errors)
    }
}

/// Puts checked values and defaults in their places.
fn assemble(values: &Values, overrides: &Overrides, host_name: &str) -> Config {
    let max_query_time = values.span("rpc.max_query_time");
    let tls_rpc = values.flag("tls.rpc");
    Config {
        name: values.text("name").unwrap_or_else(|| host_name.to_owned()),
        region: values.text("region").unwrap_or_default(),
        datacenter: values.text("datacenter").unwrap_or_default(),
        data_dir: values.path("data_dir"),
        listen_rpc: values.listen("listen.rpc"),
        listen_http: values.listen("listen.http"),
        proxy_protocol_from: values.networks("listen.proxy_protocol_from"),
        advertise_rpc: values.text("advertise.rpc"),
        advertise_http: values.text("advertise.http"),
        bootstrap_expect: values.number("cluster.bootstrap_expect"),
        join: values.list("cluster.join"),
        election_timeout: values.span("cluster.election_timeout"),
        dead_server_after: values.span("cluster.dead_server_after"),
        stalled_sync: values.span("cluster.stalled_sync"),
        min_free_bytes: values.number("cluster.min_free_space"),
        digest_entries: values.number("cluster.digest_entries"),
        regions: values.lists_below("regions."),
        hold_timeout: values.span("rpc.hold_timeout"),
        max_query_time,
        // Only a default can be above the maximum here.
        default_query_time: values.span("rpc.default_query_time").min(max_query_time),
        handshake_timeout: values.span("rpc.handshake_timeout"),
        handler_threads: values.size("rpc.handler_threads"),
        max_message_bytes: values.size("rpc.max_message"),
        drain_timeout: values.span("rpc.drain_timeout"),
        pool_idle_timeout: values.span("rpc.pool_idle_timeout"),
        variables_max_size_bytes: values.size("variables.max_size"),
        locks_min_ttl: values.span("locks.min_ttl"),
        events_buffer_bytes: values.size("events.buffer"),
        rpc_max_conns_per_client: values.size("limits.rpc_max_conns_per_client"),
        http_max_conns_per_client: values.size("limits.http_max_conns_per_client"),
        tls: TlsConfig {
            rpc: tls_rpc,
            http: values.flag("tls.http"),
            ca_file: values.path("tls.ca_file"),
            cert_file: values.path("tls.cert_file"),
            key_file: values.path("tls.key_file"),
            verify_server_hostname: values.set_flag("tls.verify_server_hostname").unwrap_or(tls_rpc),
            rpc_upgrade_mode: values.flag("tls.rpc_upgrade_mode"),
            crl_file: values.path("tls.crl_file"),
        },
        acl_enabled: values.flag("acl.enabled"),
        heartbeat_min_ttl: values.span("heartbeat.min_ttl"),
        heartbeat_grace: values.span("heartbeat.grace"),
        heartbeat_max_per_second: values.rate("heartbeat.max_per_second"),
        heartbeat_failover_ttl: values.span("heartbeat.failover_ttl"),
        prometheus: values.flag("telemetry.prometheus"),
        audit_file: values.path("audit.file"),
        backup_every: values.span("backup.every"),
        backup_keep: values.size("backup.keep"),
        backup_dir: values.path("backup.dir"),
        log_filter: overrides.log.clone(),
        dev: overrides.dev,
    }
}
