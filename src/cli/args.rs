//! Every command and every flag of `holdfast` once: name, default, meaning. `man/holdfast.1` is checked against it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::base::time;

/// Address that is called when neither a flag nor the environment names one.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:4647";
/// Environment variable that names the address.
pub const ADDRESS_VARIABLE: &str = "HOLDFAST_RPC_ADDR";
/// Environment variable that holds the token.
pub const TOKEN_VARIABLE: &str = "HOLDFAST_TOKEN";
/// What `--tls-server-name` says to mean that any name will do.
pub const ANY_NAME: &str = "none";

/// What `--version` says, after the name; `-V` says the first line only.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\nTLS: rustls with ring, 1.2 and 1.3",
    "\nprotocol: Nomad server RPC, first bytes 01 (calls), 04 (TLS), 06 (multiplexed)",
);

/// The whole command line.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(
    name = "holdfast",
    version,
    long_version = LONG_VERSION,
    about = "Asks, and loads, servers of the holdfast coordination service",
    after_help = "Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 no answer from the server. See holdfast(1)."
)]
pub struct Cli {
    /// How the server is reached.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(next_help_heading = "Connection and output")]
pub struct Global {
    /// RPC address of the server [default: HOLDFAST_RPC_ADDR, or 127.0.0.1:4647]
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// Region that is meant
    #[arg(long, global = true, value_name = "NAME", default_value = "global")]
    pub region: String,
    /// Connect with TLS; the server's chain must end in a certificate of this PEM file
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show to the server, PEM, with its chain
    #[arg(long, global = true, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Name the server's certificate must bear, or "none" for any [default: server.REGION.nomad]
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// File with the ACL token, "-" for standard input [default: HOLDFAST_TOKEN, or no token]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How long one call may take
    #[arg(long, global = true, value_name = "TIME", default_value = "10s", value_parser = time::parse_duration)]
    pub timeout: Duration,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Show servers, leader, regions and how many nodes are up
    Status,
    /// Show the machines of the fleet
    #[command(subcommand)]
    Node(NodeCommand),
    /// Look into one server
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Load a server and measure it
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// What to show of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    List {
        /// Only nodes whose id begins so
        #[arg(long, value_name = "HEX", default_value = "")]
        prefix: String,
    },
    /// Show one node
    Status {
        /// Its id, or as much of its beginning as no other node shares
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// What to look at in a server.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum OperatorCommand {
    /// List its connections: peer, protocol, TLS, certificate, node
    Connections,
}

/// What to load a server with.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum BenchCommand {
    /// Status.Ping on multiplexed streams, each the next as soon as the last is answered
    Ping {
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Status.Ping on plain connections, one call at a time on each: nothing to batch
    Raw {
        /// Connections held open
        #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
        connections: usize,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Connection set-up: connect, one stream, one ping, close
    Conn {
        /// Connections in the making at the same time
        #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
        concurrency: usize,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Idle connections: memory of each, and whether they live
    Idle {
        /// Connections to open
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
        count: usize,
        /// How far each connection goes before it falls silent
        #[arg(long, value_enum, default_value_t = Open::Stream)]
        open: Open,
        /// How long it waits.
        #[command(flatten)]
        waiting: Waiting,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Blocking queries: memory of each, and what waking them costs
    Park {
        /// What is asked: what all share, or what each has its own
        #[arg(long, value_enum, default_value_t = Query::List)]
        query: Query,
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it waits.
        #[command(flatten)]
        waiting: Waiting,
        /// Writes to wake them by, one after another
        #[arg(long, value_name = "N", default_value_t = 1)]
        wakes: usize,
        /// Leave the nodes that were registered
        #[arg(long)]
        keep: bool,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Registrations, then heartbeats, of many nodes
    Heartbeat {
        /// Nodes to register
        #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least_one)]
        nodes: usize,
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// Leave the nodes registered
        #[arg(long)]
        keep: bool,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Variables.Read of one variable after the other, by the leader
    Read {
        /// Which variables.
        #[command(flatten)]
        variables: Variables,
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Variables.List of all of them
    List {
        /// Which variables.
        #[command(flatten)]
        variables: Variables,
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Variables.Apply, one variable after the other: each is on disk before it is answered
    Write {
        /// Which variables.
        #[command(flatten)]
        variables: Variables,
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// How long it runs.
        #[command(flatten)]
        span: Span,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Subscribers of events: memory of each, and what telling them of a write costs
    Stream {
        /// Over what it is spread.
        #[command(flatten)]
        shape: Shape,
        /// Variables to write, one after another
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
        writes: usize,
        /// Let the server come to rest for this long before its memory is read
        #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::parse_duration)]
        settle: Duration,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
}

/// Variables to load a server with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Variables {
    /// Variables that are made, read or written in turn
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub vars: usize,
    /// Bytes of each one's value
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub size: usize,
}

/// Over what the calls are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Shape {
    /// Connections held open
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub connections: usize,
    /// Streams on each connection, with one call at a time on each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub streams: usize,
}

/// How long is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Span {
    /// Measure for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time::parse_duration)]
    pub duration: Duration,
    /// Stop after this many calls, when that comes first
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Load for this long before measuring
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time::parse_duration)]
    pub warmup: Duration,
}

/// How long is waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Waiting {
    /// Hold still for this long, and measure what that costs the server
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time::parse_duration)]
    pub hold: Duration,
    /// Let the server come to rest for this long before its memory is read
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time::parse_duration)]
    pub settle: Duration,
}

/// Flags of every bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Common {
    /// Process id of the server, on this machine, to measure its CPU time and memory
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Write the requests that one read sets off together (the default)
    #[arg(long, overrides_with = "no_batch")]
    pub batch: bool,
    /// Write each request by itself
    #[arg(long, overrides_with = "batch")]
    pub no_batch: bool,
    /// Spread connections over this many addresses, 127.0.0.1 and up (servers on loopback only)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=250))]
    pub sources: u8,
}

/// How far an idle connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Open {
    /// Its first byte (06), no stream
    Byte,
    /// One stream, left open after one call
    Stream,
}

/// What is asked by blocking queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Query {
    /// Node.List: equal queries, a write wakes all
    List,
    /// Node.GetNode of one node: equal queries, a write wakes all
    Node,
    /// Node.GetNode, each query of a node of its own: a write wakes one
    Nodes,
    /// Node.GetClientAllocs, each query of a node of its own: no write wakes any
    Allocs,
    /// Variables.Read of one variable: equal queries, a write wakes all
    Var,
    /// Variables.Read, each query of a variable of its own: a write wakes one
    Vars,
}

/// Reads a count that may not be zero.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 is needed".to_owned()),
        Ok(count) => Ok(count),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_before_or_after_the_command() {
        let before = Cli::try_parse_from(["holdfast", "--address", "a:1", "--json", "status"]).unwrap();
        let after = Cli::try_parse_from(["holdfast", "status", "--address", "a:1", "--json"]).unwrap();
        assert_eq!(before, after);
        assert_eq!(before.global.timeout, Duration::from_secs(10));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            &["holdfast"][..],
            &["holdfast", "stat"],
            &["holdfast", "status", "--timeout", "5"],
            &["holdfast", "node", "status"],
            &["holdfast", "bench", "ping", "--streams", "0"],
            &["holdfast", "bench", "raw", "--streams", "2"],
            &["holdfast", "bench", "idle", "--sources", "251"],
        ] {
            assert!(Cli::try_parse_from(line).is_err(), "{line:?}");
        }
    }

    /// Long flags and names of subcommands, of the whole tree.
    fn defined() -> (BTreeSet<String>, BTreeSet<String>) {
        fn walk(command: &clap::Command, path: &str, flags: &mut BTreeSet<String>, names: &mut BTreeSet<String>) {
            flags.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                let path = format!("{path}{}{}", if path.is_empty() { "" } else { " " }, sub.get_name());
                names.insert(path.clone());
                walk(sub, &path, flags, names);
            }
        }
        let (mut flags, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut root = Cli::command();
        root.build();
        walk(&root, "", &mut flags, &mut names);
        (flags, names)
    }

    // R6.26: flags are `Fl -name`, commands `Ss Cm name` heads, in man/holdfast.1.
    #[test]
    fn the_manual_and_the_definition_name_the_same() {
        let manual = include_str!("../../man/holdfast.1");
        let (flags, names) = defined();
        let mut manual_flags = BTreeSet::new();
        let mut manual_names = BTreeSet::new();
        for line in manual.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "Fl") {
                manual_flags.extend(pair[1].strip_prefix('-').map(str::to_owned));
            }
            if let Some(name) = line.strip_prefix(".Ss ") {
                manual_names.insert(name.to_owned());
            }
        }
        let groups: BTreeSet<String> = ["node", "operator", "bench"].map(str::to_owned).into();
        assert_eq!(manual_flags, flags);
        assert_eq!(manual_names, names.difference(&groups).cloned().collect());
        for group in groups {
            assert!(names.contains(&group));
        }
    }
}
