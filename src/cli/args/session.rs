//! The commands and flags of `holdfast session`.

use std::path::PathBuf;

use clap::Subcommand;

/// What to ask about sessions.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum SessionCommand {
    /// List the sessions that are open
    #[command(after_help = "Example: holdfast session ls --json | jq '.[].name'")]
    Ls,
    /// What became of a write whose outcome is unknown
    #[command(after_help = "Example: holdfast session outcome --secret-file key 4711 3")]
    Outcome {
        /// File with the session's key, or - for standard input
        #[arg(long, value_name = "FILE")]
        secret_file: PathBuf,
        /// The session
        #[arg(value_name = "ID")]
        id: u64,
        /// The number of the write
        #[arg(value_name = "SEQUENCE")]
        sequence: u64,
    },
}
