//! The flags of `holdfast doctor`.

use std::path::PathBuf;

use clap::Args;

/// Which server to look at.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DoctorArgs {
    /// The configuration of the server
    #[arg(short, long, value_name = "FILE", default_value = "/etc/holdfast/holdfastd.toml")]
    pub config: PathBuf,
}
