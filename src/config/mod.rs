//! Text to settings. An error names the file, the line and the key, and for an unknown key the nearest known one.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

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
    /// `advertise.rpc`; `None`: what is listened on.
    pub advertise_rpc: Option<String>,
    /// `advertise.http`
    pub advertise_http: Option<String>,
    /// `cluster.bootstrap_expect`
    pub bootstrap_expect: u64,
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

impl Config {
    /// Reads a configuration. `text` is empty when there is no file (`--dev`).
    ///
    /// # Errors
    /// All that is wrong, in the order of the lines; never empty.
    pub fn parse(file: &str, text: &str, overrides: &Overrides, host_name: &str) -> Result<Config, Vec<ConfigError>> {
        let _ = (file, text, overrides, host_name);
        todo!("config helper")
    }
}
