//! The commands and flags of `holdfast tls`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

/// Days of a certificate at most: a century.
const DAYS_MAX: i64 = 36_500;

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TlsCommand {
    /// Make an authority: a certificate that the others are signed by, and its key
    #[command(after_help = "Example: holdfast tls ca --dir /root/holdfast-ca")]
    Ca(CaArgs),
    /// Make a certificate that is signed by an authority, and its key
    #[command(after_help = "\
Examples:
  holdfast tls cert --server --dns hf1.example.com --ip 10.0.0.1
  holdfast tls cert --cli --name operator")]
    Cert(CertArgs),
    /// Make a list of certificates that are no longer to be trusted, or add to one
    #[command(after_help = "Example: holdfast tls crl --revoke server.pem --out /etc/holdfast/tls/crl.pem")]
    Crl(CrlArgs),
}

/// An authority that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CaArgs {
    /// How long it is good for
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    pub days: u32,
    /// What it is called
    #[arg(long, value_name = "TEXT", default_value = "holdfast authority")]
    pub name: String,
    /// Where ca.pem and ca-key.pem are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Replace files that are there: what the old authority signed is not trusted by the new one
    #[arg(long)]
    pub force: bool,
}

/// The files of the authority that signs.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Signer {
    /// The authority's certificate, PEM [default: ca.pem in --dir]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The authority's key, PEM [default: ca-key.pem beside the certificate]
    #[arg(long, value_name = "FILE")]
    pub ca_key: Option<PathBuf>,
}

/// A certificate that is to be made.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(group = ArgGroup::new("role").required(true).args(["server", "client", "cli"]))]
pub struct CertArgs {
    /// For a server, named server.REGION.nomad
    #[arg(long)]
    pub server: bool,
    /// For a node's agent, named client.REGION.nomad
    #[arg(long)]
    pub client: bool,
    /// For people and programs that only call, named cli.REGION.nomad
    #[arg(long)]
    pub cli: bool,
    /// One more name it is good for; may be given again
    #[arg(long, value_name = "NAME")]
    pub dns: Vec<String>,
    /// One more address it is good for; may be given again
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// How long it is good for, and no longer than its authority
    #[arg(long, value_name = "N", default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    pub days: u32,
    /// What the files are called: STEM.pem and STEM-key.pem [default: server, client or cli]
    #[arg(long, value_name = "STEM")]
    pub name: Option<String>,
    /// Where they are written
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Replace files that are there
    #[arg(long)]
    pub force: bool,
    /// Who signs.
    #[command(flatten)]
    pub signer: Signer,
}

/// A revocation list that is to be made, or made longer.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CrlArgs {
    /// A certificate of the authority that is to be trusted no longer, PEM; may be given again
    #[arg(long, value_name = "FILE")]
    pub revoke: Vec<PathBuf>,
    /// The list: what is in it already stays in it
    #[arg(long, value_name = "FILE", default_value = "crl.pem")]
    pub out: PathBuf,
    /// In how many days a newer list is to be expected
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
    pub days: u32,
    /// Where the authority's files are
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Who signs.
    #[command(flatten)]
    pub signer: Signer,
}
