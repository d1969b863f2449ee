//! `holdfastd`: arguments and configuration in, an exit status out; see holdfastd(8).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use holdfast::config::Overrides;
use holdfast::edge::daemon;
use holdfast::edge::reload::ConfigSource;
use holdfast::edge::signals::Signals;

/// Coordination server for fleets of machines.
#[derive(Parser, Debug)]
#[command(name = "holdfastd", disable_version_flag = true)]
struct Args {
    /// Run a server of one on loopback, with its data in a temporary folder
    #[arg(long)]
    dev: bool,
    /// Read the configuration from FILE
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(short = 't', long = "test")]
    test: bool,
    /// Name of this server
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Region of this server
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Where the data is kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Listen for RPC here
    #[arg(long, value_name = "ADDR:PORT")]
    rpc: Option<String>,
    /// Listen for HTTP here
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// What is logged: a level, or TARGET=LEVEL, separated by commas
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Print the version and what it is made of
    #[arg(short = 'V', long)]
    version: bool,
}

fn main() -> ExitCode {
    // First of all, so that a signal during the start is kept and not deadly.
    let signals = Signals::catch();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { daemon::BAD_CONFIGURATION } else { daemon::STOPPED });
        }
    };
    ExitCode::from(run(args, signals))
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn run(args: Args, signals: std::io::Result<Signals>) -> u8 {
    if args.version {
        print!("{}", daemon::version_text());
        return daemon::STOPPED;
    }
    if args.config.is_none() && !args.dev {
        eprintln!("holdfastd: give --dev or --config FILE; holdfastd --help says more");
        return daemon::BAD_CONFIGURATION;
    }
    let overrides = Overrides {
        name: args.name,
        region: args.region,
        data_dir: args.data_dir,
        rpc: args.rpc,
        http: args.http,
        log: args.log,
        dev: args.dev,
    };
    let source = ConfigSource { file: args.config, overrides, host_name: daemon::host_name() };
    if args.test {
        return check(&source);
    }
    match signals {
        Ok(signals) => daemon::run(&source, signals),
        Err(error) => {
            eprintln!("holdfastd: signals cannot be caught: {error}");
            daemon::NO_START
        }
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn check(source: &ConfigSource) -> u8 {
    let name = source.file.as_ref().map_or("command line".to_owned(), |file| file.display().to_string());
    match source.read_all() {
        Ok(_) => {
            println!("{name}: ok");
            daemon::STOPPED
        }
        Err(errors) => {
            for error in errors {
                eprintln!("{error}");
            }
            daemon::BAD_CONFIGURATION
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;
    use std::collections::BTreeSet;

    /// Options that a line of the manual's list names: `.It Fl c , Fl -config Ar file`.
    fn options_of_the_manual() -> BTreeSet<String> {
        let page = include_str!("../../man/holdfastd.8");
        let list = page.split(".Sh OPTIONS").nth(1).unwrap().split(".Sh ").next().unwrap();
        let items = list.lines().filter_map(|line| line.strip_prefix(".It "));
        let words = items.flat_map(|item| item.split("Fl ").skip(1).map(|rest| rest.split(' ').next().unwrap()));
        words.map(|word| format!("-{word}")).collect()
    }

    #[test]
    fn the_manual_has_the_options_of_the_program() {
        let mut command = Args::command();
        command.build();
        let mut options = BTreeSet::new();
        for argument in command.get_arguments() {
            options.extend(argument.get_short().map(|short| format!("-{short}")));
            options.extend(argument.get_long().map(|long| format!("--{long}")));
        }
        assert_eq!(options_of_the_manual(), options);
    }
}
