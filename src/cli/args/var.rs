//! The commands and flags of `holdfast var`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::base::time;

/// What to do with variables.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum VarCommand {
    /// Write a variable: refused when it is there, but with --force or --check-index
    #[command(after_help = "\
Examples:
  holdfast var put app/db user=web password=@/run/secrets/db
  holdfast var put --force app/db --in items.json
  pass show db | tr -d '\\n' | holdfast var put --check-index 42 app/db user=web password=-")]
    Put(PutArgs),
    /// Show a variable, or one of its items
    #[command(after_help = "Example: holdfast var get --item password app/db")]
    Get {
        /// Its namespace
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// Print the value of this item and nothing else
        #[arg(long, value_name = "KEY")]
        item: Option<String>,
        /// Write to this file instead, which only its owner may read
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Its path
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// List variables, without their items
    #[command(after_help = "Example: holdfast var list --namespace \"*\" app/")]
    List {
        /// Their namespace, "*" for all
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// A go-bexpr expression, as in: Path contains "db"
        #[arg(long, value_name = "EXPRESSION", default_value = "")]
        filter: String,
        /// Only paths that begin so
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,
    },
    /// Remove a variable
    #[command(after_help = "Example: holdfast var purge --check-index 42 app/db")]
    Purge {
        /// Its namespace
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// Only if this is its ModifyIndex
        #[arg(long, value_name = "N")]
        check_index: Option<u64>,
        /// Its path
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// Write and remove several variables, all or nothing
    #[command(after_help = "\
The file holds a list: [{\"Op\":\"cas\",\"Var\":{\"Path\":\"a\",\"ModifyIndex\":7,\"Items\":{\"k\":\"v\"}}}, ...]
Example: holdfast var txn transfer.json")]
    Txn {
        /// Their namespace, where the file names none
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// JSON; "-" for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Run a command while holding a variable's lock; or look at locks
    Lock(LockArgs),
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PutArgs {
    /// Its namespace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Write it whether it is there or not
    #[arg(long, conflicts_with = "check_index")]
    pub force: bool,
    /// Write it only if this is its ModifyIndex
    #[arg(long, value_name = "N")]
    pub check_index: Option<u64>,
    /// Write it only if no higher fence was seen there
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub fence: u64,
    /// File with the id of the lock that is held on it
    #[arg(long, value_name = "FILE")]
    pub lock_file: Option<PathBuf>,
    /// JSON file with an object of names and values; "-" for standard input
    #[arg(long = "in", value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Its path
    #[arg(value_name = "PATH")]
    pub path: String,
    /// Items; a value that begins with "@" is a file to read, "-" is standard input
    #[arg(value_name = "KEY=VALUE")]
    pub items: Vec<String>,
}

/// Which lock, and what to run under it.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
The command runs in a process group of its own, which is ended (TERM, and KILL after --kill-after)
before the lock can pass to another holder, and with this process.
HOLDFAST_LOCK_FENCE in its environment is a number that rises with each holder: see put --fence.
Exit status: that of the command; 75 when the lock was not to be had, 76 when it was lost.

Examples:
  holdfast var lock --wait 1m jobs/nightly /usr/local/bin/nightly
  holdfast var lock ls jobs/"
)]
pub struct LockArgs {
    /// Look at locks instead.
    #[command(subcommand)]
    pub command: Option<LockCommand>,
    /// The variable's namespace
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// How long the lock lasts without a renewal
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time::parse_duration)]
    pub ttl: Duration,
    /// How long nobody has it after it ran out
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = time::parse_duration)]
    pub delay: Duration,
    /// Wait for one's turn this long
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time::parse_duration)]
    pub wait: Duration,
    /// What others see as the holder (default: user at host)
    #[arg(long, value_name = "TEXT")]
    pub owner: Option<String>,
    /// Between TERM and KILL
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time::parse_duration)]
    pub kill_after: Duration,
    /// The variable's path
    #[arg(value_name = "PATH", required = true)]
    pub path: Option<String>,
    /// What to run
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub run: Vec<OsString>,
}

/// What to do with locks.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum LockCommand {
    /// List locks: who holds them, since when and until when
    #[command(after_help = "Example: holdfast var lock ls --namespace \"*\" jobs/")]
    Ls {
        /// The variables' namespace, "*" for all
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// Only paths that begin so
        #[arg(value_name = "PREFIX", default_value = "")]
        prefix: String,
    },
    /// Show one lock
    #[command(after_help = "Example: holdfast var lock show jobs/nightly")]
    Show {
        /// The variable's namespace
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// The variable's path
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// End a lock, whoever holds it
    #[command(after_help = "Example: holdfast var lock break jobs/nightly")]
    Break {
        /// The variable's namespace
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// The variable's path
        #[arg(value_name = "PATH")]
        path: String,
    },
}
