//! The commands and flags of `holdfast operator`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::base::time;

/// What to look at in servers, and what to do to them.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum OperatorCommand {
    /// List a server's connections: peer, protocol, TLS, certificate, node
    #[command(after_help = "Example: holdfast operator connections --json | jq length")]
    Connections,
    /// Say how the servers are
    #[command(after_help = "Example: holdfast operator health || echo \"look into it\"")]
    Health,
    /// The servers that agree on what is written
    #[command(subcommand)]
    Raft(RaftCommand),
    /// Begin a cluster anew from the data folder of one stopped server, when the majority is lost for good
    #[command(after_help = "Example: holdfast operator recover /var/lib/holdfast")]
    Recover {
        /// Do it; without this it is only said what would be done
        #[arg(long)]
        yes: bool,
        /// The data folder; of the server whose log reaches farthest
        #[arg(value_name = "DIR")]
        data_dir: PathBuf,
    },
    /// Copies of everything that is stored
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// The keys that variables are encrypted with
    #[command(subcommand)]
    Keyring(KeyringCommand),
    /// Write an archive with what support wants to know of the servers, and no secret
    #[command(after_help = "Example: holdfast operator debug --duration 30s --out /tmp/holdfast-debug.tar.gz")]
    Debug(DebugArgs),
}

/// What is to be in the archive.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DebugArgs {
    /// Where to [default: holdfast-debug-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long logs are listened to, and figures may change
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time::parse_duration)]
    pub duration: Duration,
    /// The least severe level of log lines
    #[arg(long, value_name = "LEVEL", default_value = "debug", ignore_case = true, value_parser = ["trace", "debug", "info", "warn", "error"])]
    pub log_level: String,
    /// Only these, by name or RPC address [default: all that the server that is asked knows of]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub servers: Vec<String>,
}

/// What to ask of raft.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RaftCommand {
    /// List the servers of the group
    #[command(after_help = "Example: holdfast operator raft list-peers")]
    ListPeers,
    /// Remove a server that is gone for good
    #[command(after_help = "Example: holdfast operator raft remove-peer 677c8919-51f9-466c-a688-76cf391a2d31")]
    RemovePeer {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Have another server lead
    #[command(after_help = "Example: holdfast operator raft transfer-leadership 677c8919-51f9-466c-a688-76cf391a2d31")]
    TransferLeadership {
        /// Its id, or its RPC address
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// What to do with snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SnapshotCommand {
    /// Save a snapshot to a file; the keys of the key ring are not in it
    #[command(after_help = "Example: holdfast operator snapshot save /var/backups/holdfast.snap")]
    Save {
        /// From whichever server is asked, although it may be a little behind
        #[arg(long)]
        stale: bool,
        /// Where to; "-" for standard output
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Check a snapshot file and say what it is; asks no server
    #[command(after_help = "Example: holdfast operator snapshot inspect /var/backups/holdfast.snap")]
    Inspect {
        /// Which; "-" for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Replace everything that is stored by a snapshot
    #[command(after_help = "Example: holdfast operator snapshot restore /var/backups/holdfast.snap")]
    Restore {
        /// Which; "-" for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// What to do with the key ring.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum KeyringCommand {
    /// List keys, never their bytes
    #[command(after_help = "Example: holdfast operator keyring list")]
    List,
    /// Make a new key, and encrypt with it from now on
    #[command(after_help = "Example: holdfast operator keyring rotate --full")]
    Rotate {
        /// Also put everything that is stored under the new key
        #[arg(long)]
        full: bool,
    },
    /// Forget a key that nothing is encrypted with
    #[command(after_help = "Example: holdfast operator keyring remove ff8f32df-8ce2-40c2-936c-ec6e7877037c")]
    Remove {
        /// Which
        #[arg(value_name = "ID")]
        key_id: String,
    },
}
