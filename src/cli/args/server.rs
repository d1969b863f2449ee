//! The commands of `holdfast server`.

use clap::Subcommand;

/// What to ask about servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum ServerCommand {
    /// List the servers that the one that is asked knows of
    #[command(after_help = "Example: holdfast --address 10.0.0.1:4647,10.0.0.2:4647 server members")]
    Members,
    /// Say how the servers are, as their leader sees them; exit 1 unless all are well
    #[command(after_help = "Example: holdfast server health || echo \"look into it\"")]
    Health,
}
