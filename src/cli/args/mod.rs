//! Every command and every flag of `holdfast` once: name, default, meaning. `man/holdfast.1` is checked against it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::base::time;

mod acl;
mod bench;
mod doctor;
mod operator;
mod server;
mod session;
mod tls;
mod var;

pub use self::acl::{AclCommand, PolicyCommand, RoleCommand, TokenCommand};
pub use self::bench::{
    BenchCommand, CheckLoad, CheckMode, Common, Open, Query, Shape, Span, Variables, Waiting, Workers,
};
pub use self::doctor::DoctorArgs;
pub use self::operator::{DebugArgs, KeyringCommand, OperatorCommand, RaftCommand, SnapshotCommand};
pub use self::server::ServerCommand;
pub use self::session::SessionCommand;
pub use self::tls::{CaArgs, CertArgs, CrlArgs, Signer, TlsCommand};
pub use self::var::{LockArgs, LockCommand, PutArgs, VarCommand};

/// Address that is called when neither a flag nor the environment names one.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:4647";
/// Environment variable that names the address.
pub const ADDRESS_VARIABLE: &str = "HOLDFAST_RPC_ADDR";
/// Environment variable that names the authorities' certificates, and with that turns TLS on.
pub const CA_VARIABLE: &str = "HOLDFAST_CA_FILE";
/// Environment variable that names the certificate to show.
pub const CERT_VARIABLE: &str = "HOLDFAST_CERT_FILE";
/// Environment variable that names its key.
pub const KEY_VARIABLE: &str = "HOLDFAST_KEY_FILE";
/// Environment variable that holds the name of the server's certificate.
pub const SERVER_NAME_VARIABLE: &str = "HOLDFAST_TLS_SERVER_NAME";
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
    after_help = "\
Exit status: 0 done, 1 refused or failed, 2 wrong usage or file, 3 no answer from the server, 4 outcome
of a write unknown; for var lock 75 not to be had, 76 lost, else that of the command. See holdfast(1).

Examples:
  holdfast status
  holdfast var put app/db user=web password=@/run/secrets/db
  holdfast var lock --wait 1m jobs/nightly /usr/local/bin/nightly"
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
    /// RPC address of the server, or of several: the first that can be reached is asked [default: HOLDFAST_RPC_ADDR, or
    /// 127.0.0.1:4647]
    #[arg(long, global = true, value_name = "HOST:PORT,...")]
    pub address: Option<String>,
    /// Region that is meant
    #[arg(long, global = true, value_name = "NAME", default_value = "global")]
    pub region: String,
    /// Connect with TLS; the server's chain must end in a certificate of this PEM file [default: HOLDFAST_CA_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show to the server, PEM, with its chain [default: HOLDFAST_CERT_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub cert_file: Option<PathBuf>,
    /// Key of that certificate, PEM [default: HOLDFAST_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Name the server's certificate must bear, or "none" for any [default: HOLDFAST_TLS_SERVER_NAME, or
    /// server.REGION.nomad]
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
    #[command(after_help = "Example: holdfast --address 10.0.0.1:4647 status")]
    Status,
    /// Show the machines of the fleet
    #[command(subcommand)]
    Node(NodeCommand),
    /// Read and write variables, and hold their locks
    #[command(subcommand)]
    Var(VarCommand),
    /// Look after tokens, policies and roles
    #[command(subcommand)]
    Acl(AclCommand),
    /// Look after namespaces
    #[command(subcommand)]
    Namespace(NamespaceCommand),
    /// Print what happens, a JSON document a line, until interrupted
    #[command(after_help = "Example: holdfast events --topic Variable:app/config --topic Node --index -1")]
    Events(EventsArgs),
    /// Print a server's or a node's log as it is written, until interrupted
    #[command(after_help = "Example: holdfast monitor --level debug")]
    Monitor(MonitorArgs),
    /// Show the servers
    #[command(subcommand)]
    Server(ServerCommand),
    /// Sessions of clients, and what became of a write in one
    #[command(subcommand)]
    Session(SessionCommand),
    /// Look into servers, and look after them
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Make an authority, and certificates and revocation lists by it; asks no server
    #[command(subcommand)]
    Tls(TlsCommand),
    /// Look at the machine of a server: files, disk, ports, certificates, clock, limits, peers
    #[command(after_help = "\
Exit status: 0 when nothing failed, 1 when something did, 2 for wrong usage.
Example: sudo holdfast doctor || echo \"look into it\"")]
    Doctor(DoctorArgs),
    /// Print a script that completes these commands
    #[command(after_help = "Example: holdfast completion bash > /etc/bash_completion.d/holdfast")]
    Completion {
        /// For which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Load a server and measure it
    #[command(subcommand)]
    Bench(BenchCommand),
}

/// What to show of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    #[command(after_help = "Example: holdfast node list --prefix 4f")]
    List {
        /// Only nodes whose id begins so
        #[arg(long, value_name = "HEX", default_value = "")]
        prefix: String,
    },
    /// Show one node
    #[command(after_help = "Example: holdfast node status 4f29")]
    Status {
        /// Its id, or as much of its beginning as no other node shares
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// What to do with namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum NamespaceCommand {
    /// List namespaces
    #[command(after_help = "Example: holdfast namespace list --prefix web")]
    List {
        /// Only those whose name begins so
        #[arg(long, value_name = "TEXT", default_value = "")]
        prefix: String,
    },
    /// Show one namespace
    #[command(after_help = "Example: holdfast namespace status web")]
    Status {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a namespace, or change one
    #[command(
        after_help = "Example: holdfast namespace apply --description \"The web team\" --meta contact=web@example.com web"
    )]
    Apply {
        /// Words for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// A note about it; may be given again
        #[arg(long, value_name = "KEY=VALUE")]
        meta: Vec<String>,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove a namespace that has no variables
    #[command(after_help = "Example: holdfast namespace delete web")]
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// Which events.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct EventsArgs {
    /// A topic (Node, Variable, ACLToken, ACLPolicy), with a key or "*"; may be given again [default: everything]
    #[arg(long, value_name = "TOPIC[:KEY]")]
    pub topic: Vec<String>,
    /// Begin at this index: 0 with the oldest that is held, -1 with the next to come
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub index: i64,
    /// Of things in this namespace, "*" for all
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
}

/// Whose log, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct MonitorArgs {
    /// The least severe level that is shown
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["trace", "debug", "info", "warn", "error"])]
    pub level: String,
    /// The log of this node's agent instead of a server's
    #[arg(long, value_name = "ID", default_value = "")]
    pub node: String,
    /// Of this server: its name, its id, or "leader" [default: the one that is asked]
    #[arg(long, value_name = "NAME", default_value = "", conflicts_with = "node")]
    pub server: String,
}

/// Reads a count that may not be zero.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
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

    #[test]
    fn every_command_shows_an_example() {
        fn walk(command: &clap::Command, path: &str) {
            let mut leaf = true;
            for sub in command.get_subcommands().filter(|sub| !["help", "bench"].contains(&sub.get_name())) {
                leaf = false;
                walk(sub, &format!("{path} {}", sub.get_name()));
            }
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                !leaf || after.contains("Example") && after.contains(path.trim_start_matches("holdfast ")),
                "{path}: {after}"
            );
        }
        walk(&Cli::command(), "holdfast");
    }

    /// Long flags and names of subcommands, of the commands that stand at the top and are wanted.
    fn defined(wanted: impl Fn(&str) -> bool) -> (BTreeSet<String>, BTreeSet<String>) {
        fn walk(command: &clap::Command, path: &str, flags: &mut BTreeSet<String>, names: &mut BTreeSet<String>) {
            flags.extend(command.get_arguments().filter_map(|arg| arg.get_long()).map(str::to_owned));
            names.insert(path.to_owned());
            for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
                walk(sub, &format!("{path} {}", sub.get_name()), flags, names);
            }
        }
        let (mut flags, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut root = Cli::command();
        root.build();
        for top in root.get_subcommands().filter(|top| top.get_name() != "help" && wanted(top.get_name())) {
            walk(top, top.get_name(), &mut flags, &mut names);
        }
        // Groups of commands do nothing by themselves.
        let all = names.clone();
        names.retain(|name| name == "var lock" || !all.iter().any(|other| other.starts_with(&format!("{name} "))));
        (flags, names)
    }

    /// Flags are `Fl -name`, commands `Ss name` heads.
    fn on_page(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut flags, mut names) = (BTreeSet::new(), BTreeSet::new());
        for line in page.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            for pair in words.windows(2).filter(|pair| pair[0] == "Fl") {
                flags.extend(pair[1].strip_prefix('-').map(str::to_owned));
            }
            names.extend(line.strip_prefix(".Ss ").map(str::to_owned));
        }
        (flags, names)
    }

    /// Commands with a page of their own, holdfast-NAME(1).
    const PAGES: [(&str, &str); 2] = [
        ("doctor", include_str!("../../../man/holdfast-doctor.1")),
        ("tls", include_str!("../../../man/holdfast-tls.1")),
    ];

    // R6.26
    #[test]
    fn the_manual_and_the_definition_name_the_same() {
        let (flags, names) = on_page(include_str!("../../../man/holdfast.1"));
        let (mut defined_flags, defined_names) = defined(|top| PAGES.iter().all(|(name, _)| *name != top));
        defined_flags.extend(["help", "version"].map(str::to_owned));
        assert_eq!((flags, names), (defined_flags, defined_names));
    }

    // R6.26: flags of every command may be named there as well.
    #[test]
    fn commands_with_a_page_of_their_own_have_it_whole() {
        let mut root = Cli::command();
        root.build();
        let everywhere: BTreeSet<String> =
            root.get_arguments().filter_map(|arg| arg.get_long()).map(Into::into).collect();
        for (name, page) in PAGES {
            let ((flags, names), (defined_flags, defined_names)) = (on_page(page), defined(|top| top == name));
            let own: BTreeSet<String> = defined_flags.difference(&everywhere).cloned().collect();
            let told: BTreeSet<String> = flags.difference(&everywhere).cloned().collect();
            assert_eq!((told, names), (own, defined_names), "holdfast-{name}(1)");
        }
    }
}
