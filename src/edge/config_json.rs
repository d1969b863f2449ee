//! The configuration in force as `/v1/agent/self` shows it: the keys that Nomad's clients read, and holdfast's own.
//!
//! Nothing secret is in it: of keys and certificates only the files' names. Source: HTTP notes, section 2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::status::NOMAD_BUILD;
use crate::base::time::format_duration;
use crate::config::Config;

/// The configuration as JSON. `rpc` and `http` are what this server is reached at.
pub(super) fn config_json(config: &Config, rpc: &str, http: &str, acl_enabled: bool) -> String {
    json!({
        "Addresses": { "HTTP": config.listen_http.ip().to_string(), "RPC": config.listen_rpc.ip().to_string() },
        "AdvertiseAddrs": { "HTTP": http, "RPC": rpc },
        "BindAddr": config.listen_rpc.ip().to_string(),
        "Ports": { "HTTP": config.listen_http.port(), "RPC": config.listen_rpc.port() },
        "Region": config.region,
        "Datacenter": config.datacenter,
        "NodeName": config.name,
        "DataDir": config.data_dir.as_deref().map(file),
        "DevMode": config.dev,
        "LogLevel": config.log_filter.as_deref().unwrap_or("info"),
        "Server": {
            "Enabled": true,
            "BootstrapExpect": config.bootstrap_expect,
            "ServerJoin": { "RetryJoin": config.join },
            "MinHeartbeatTTL": span(config.heartbeat_min_ttl),
            "HeartbeatGrace": span(config.heartbeat_grace),
            "MaxHeartbeatsPerSecond": config.heartbeat_max_per_second,
            "FailoverHeartbeatTTL": span(config.heartbeat_failover_ttl),
        },
        "Client": { "Enabled": false },
        "ACL": { "Enabled": acl_enabled },
        // There is no such interface: without these two the `nomad` CLI prints links to it.
        "UI": { "Enabled": false, "ShowCLIHints": false },
        "TLSConfig": {
            "EnableRPC": config.tls.rpc,
            "EnableHTTP": config.tls.http,
            "VerifyServerHostname": config.tls.verify_server_hostname,
            "RPCUpgradeMode": config.tls.rpc_upgrade_mode,
            "CAFile": path(&config.tls.ca_file),
            "CertFile": path(&config.tls.cert_file),
            "KeyFile": path(&config.tls.key_file),
        },
        "Telemetry": { "PrometheusMetrics": config.prometheus },
        "Limits": {
            "HTTPMaxConnsPerClient": config.http_max_conns_per_client,
            "RPCMaxConnsPerClient": config.rpc_max_conns_per_client,
        },
        "Version": {
            "Version": NOMAD_BUILD,
            "Revision": option_env!("HOLDFAST_COMMIT").unwrap_or(""),
            "VersionPrerelease": "",
            "VersionMetadata": "holdfast",
            "BuildDate": "0001-01-01T00:00:00Z",
        },
        "Holdfast": own(config),
    })
    .to_string()
}

/// What Nomad does not have.
fn own(config: &Config) -> Value {
    json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "HoldTimeout": span(config.hold_timeout),
        "MaxQueryTime": span(config.max_query_time),
        "DefaultQueryTime": span(config.default_query_time),
        "ProxyProtocolFrom": config.proxy_protocol_from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "HandshakeTimeout": span(config.handshake_timeout),
        "HandlerThreads": config.handler_threads,
        "MaxMessageBytes": config.max_message_bytes,
        "DrainTimeout": span(config.drain_timeout),
        "VariablesMaxBytes": config.variables_max_size_bytes,
        "LocksMinTTL": span(config.locks_min_ttl),
        "EventsBufferBytes": config.events_buffer_bytes,
        "CRLFile": path(&config.tls.crl_file),
        "ElectionTimeout": span(config.election_timeout),
        "DeadServerAfter": span(config.dead_server_after),
        "StalledSync": span(config.stalled_sync),
        "MinFreeBytes": config.min_free_bytes,
        "DigestEntries": config.digest_entries,
        "PoolIdleTimeout": span(config.pool_idle_timeout),
        "BackupEvery": span(config.backup_every),
        "BackupKeep": config.backup_keep,
        "BackupDir": path(&config.backup_dir),
        "Regions": config.regions.iter().cloned().collect::<BTreeMap<_, _>>(),
    })
}

fn span(duration: Duration) -> String {
    format_duration(duration)
}

fn file(path: &Path) -> String {
    path.display().to_string()
}

fn path(path: &Option<PathBuf>) -> String {
    path.as_deref().map(file).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn clients_find_what_they_read() {
        let text = "name = \"hf1\"\nregion = \"west\"\ndatacenter = \"dc7\"\ndata_dir = \"/var/lib/holdfast\"\n";
        let config = Config::parse("file", text, &Overrides::default(), "host").unwrap();
        let json = config_json(&config, "10.0.0.1:4647", "10.0.0.1:4646", true);
        let json: Value = serde_json::from_str(&json).unwrap();
        for (place, value) in [
            ("/Datacenter", json!("dc7")),
            ("/Region", json!("west")),
            ("/NodeName", json!("hf1")),
            ("/UI/Enabled", json!(false)),
            ("/UI/ShowCLIHints", json!(false)),
            ("/ACL/Enabled", json!(true)),
            ("/TLSConfig/EnableRPC", json!(false)),
            ("/Version/Version", json!("2.0.5")),
            ("/AdvertiseAddrs/RPC", json!("10.0.0.1:4647")),
            ("/Holdfast/HoldTimeout", json!("5s")),
        ] {
            assert_eq!(json.pointer(place), Some(&value), "{place}");
        }
    }
}
