//! The commands and flags of `holdfast acl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::base::time;

/// What to do about access.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AclCommand {
    /// Make the first management token
    Bootstrap {
        /// File with the secret to give it, "-" for standard input [default: one is made]
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// Tokens: who may call
    #[command(subcommand)]
    Token(TokenCommand),
    /// Policies: what may be done
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Roles: policies under one name
    #[command(subcommand)]
    Role(RoleCommand),
}

/// What to do with tokens.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum TokenCommand {
    /// List tokens, without their secrets
    List,
    /// Show the token of this caller
    #[command(name = "self")]
    Own,
    /// Show a token, its secret too
    Info {
        /// Its accessor
        #[arg(value_name = "ACCESSOR")]
        accessor: String,
    },
    /// Make a token
    #[command(after_help = "Example: holdfast acl token create --name web --policy app-read --ttl 8h")]
    Create {
        /// What people call it
        #[arg(long, value_name = "TEXT", default_value = "")]
        name: String,
        /// A policy; may be given again
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// A role, by id or name; may be given again
        #[arg(long, value_name = "ROLE")]
        role: Vec<String>,
        /// Allow everything
        #[arg(long, conflicts_with_all = ["policy", "role"])]
        management: bool,
        /// It counts in every region
        #[arg(long)]
        global: bool,
        /// It ends after this time
        #[arg(long, value_name = "TIME", value_parser = time::parse_duration)]
        ttl: Option<Duration>,
    },
    /// Change a token's name, policies or roles
    Update {
        /// What people call it [default: as it is]
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        /// A policy; may be given again [default: as they are]
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// A role, by id or name; may be given again [default: as they are]
        #[arg(long, value_name = "ROLE")]
        role: Vec<String>,
        /// Its accessor
        #[arg(value_name = "ACCESSOR")]
        accessor: String,
    },
    /// Remove a token
    Delete {
        /// Its accessor
        #[arg(value_name = "ACCESSOR")]
        accessor: String,
    },
}

/// What to do with policies.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum PolicyCommand {
    /// List policies
    List,
    /// Show a policy
    Info {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a policy, or change one
    #[command(after_help = "Example: holdfast acl policy apply --description \"Reads app/\" app-read app-read.hcl")]
    Apply {
        /// Words for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Its rules, HCL or JSON; "-" for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove a policy
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// What to do with roles.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum RoleCommand {
    /// List roles
    List,
    /// Show a role
    Info {
        /// Its id or its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
    /// Make a role
    Create {
        /// Its name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Words for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// A policy; may be given again
        #[arg(long, value_name = "NAME", required = true)]
        policy: Vec<String>,
    },
    /// Change a role
    Update {
        /// Its name [default: as it is]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Words for people [default: as they are]
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// A policy; may be given again [default: as they are]
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// Its id or its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
    /// Remove a role
    Delete {
        /// Its id or its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
}
