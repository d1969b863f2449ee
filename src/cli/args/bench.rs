//! The commands and flags of `holdfast bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::base::time;
use crate::cli::args::at_least_one;

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
    /// The client library's look at a kept connection before each call: calls with it and without, turn by turn
    Pool {
        /// Threads, with a connection in use each
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
        connections: usize,
        /// Speak plain calls, not yamux
        #[arg(long)]
        plain: bool,
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
    /// Writers and readers that go on while a leader is killed or stopped from outside: what they see, and whether
    /// what was acknowledged is there
    Failover {
        /// Who works, and for how long.
        #[command(flatten)]
        workers: Workers,
        /// What all benches have.
        #[command(flatten)]
        common: Common,
    },
    /// Writers and readers whose every call is written down while the cluster comes to harm, and a judge of what was
    /// written down: is there one order of all calls that fits, and was each write carried out once
    Check {
        /// Who works, how, and for how long.
        #[command(flatten)]
        load: CheckLoad,
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

/// Who works, and for how long; the workers are spread over the addresses and stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Workers {
    /// Writers, each with a variable and a connection of its own
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub writers: usize,
    /// Readers of those variables
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub readers: usize,
    /// Go on for this long
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time::parse_duration)]
    pub duration: Duration,
}

/// Who works, how, and for how long, or what is judged; the workers are spread over the addresses.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CheckLoad {
    /// How many work, and for how long
    #[command(flatten)]
    pub workers: Workers,
    /// How the workers call
    #[arg(long, value_enum, default_value_t = CheckMode::Library)]
    pub mode: CheckMode,
    /// Write each call to this file, a line of JSON each
    #[arg(long, value_name = "FILE")]
    pub history: Option<PathBuf>,
    /// Run this shell command at intervals while the load goes on
    #[arg(long, value_name = "COMMAND")]
    pub exec_fault: Option<String>,
    /// The interval
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = time::parse_duration)]
    pub every: Duration,
    /// Make no call: judge a file that --history wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["history", "exec_fault"])]
    pub verify: Option<PathBuf>,
}

/// How the workers of a check call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckMode {
    /// One try at one server
    Plain,
    /// The client library: other servers are tried, and never a write that may have been carried out
    Library,
    /// The client library in a session: writes are made again and are carried out once
    Session,
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
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Common {
    /// Process id of the server, on this machine, to measure its CPU time and memory; of several, their sum and each
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub pid: Vec<u32>,
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
