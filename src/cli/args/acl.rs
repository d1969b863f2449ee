//! The commands and flags of `holdfast acl`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;

use crate::base::time;

/// What to do about access.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AclCommand {
    /// Make the first management token
    #[command(after_help = "Example: holdfast acl bootstrap --json | jq -r .secret")]
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
    #[command(after_help = "Example: holdfast acl token list")]
    List,
    /// Show the token of this caller
    #[command(name = "self", after_help = "Example: HOLDFAST_TOKEN=$(cat token) holdfast acl token self")]
    Own,
    /// Show a token, its secret too
    #[command(after_help = "Example: holdfast acl token info a42f1bb7-e831-4c9a-a34d-1205c4615129")]
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
    #[command(
        after_help = "Example: holdfast acl token update --policy app-read --policy app-write a42f1bb7-e831-4c9a-a34d-1205c4615129"
    )]
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
    #[command(after_help = "Example: holdfast acl token delete a42f1bb7-e831-4c9a-a34d-1205c4615129")]
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
    #[command(after_help = "Example: holdfast acl policy list")]
    List,
    /// Show a policy
    #[command(after_help = "Example: holdfast acl policy info app-read")]
    Info {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a policy, or change one
    #[command(after_help = "Example: holdfast acl policy apply --description \"Reads app/\" app-read app-read.hcl")]
    Apply {
        /// Words for people [default: those it has]
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Its rules, HCL or JSON; "-" for standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove a policy
    #[command(after_help = "Example: holdfast acl policy delete app-read")]
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
    #[command(after_help = "Example: holdfast acl role list")]
    List,
    /// Show a role
    #[command(after_help = "Example: holdfast acl role info web-team")]
    Info {
        /// Its id or its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
    /// Make a role
    #[command(after_help = "Example: holdfast acl role create --name web-team --policy app-read --policy app-write")]
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
    #[command(after_help = "Example: holdfast acl role update --policy app-read web-team")]
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
    #[command(after_help = "Example: holdfast acl role delete web-team")]
    Delete {
        /// Its id or its name
        #[arg(value_name = "ROLE")]
        role: String,
    },
}
