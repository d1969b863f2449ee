//! What people type: `holdfast` and its commands, their output and their exit statuses.
//!
//! Answers go to standard output, everything else to standard error. To a terminal long transfers show progress, and
//! the verdicts of `doctor` are coloured; nothing else.

mod acl;
pub mod args;
mod bench;
mod claim;
mod debug;
mod doctor;
mod follow;
mod hold;
mod keyring;
mod lock;
mod namespace;
mod node;
mod operator;
mod output;
mod private_file;
mod recover;
mod server;
mod session;
mod snapshot;
mod status;
mod tls;
mod under_lock;
mod var;
mod web;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;

use crate::cli::args::{Cli, Command, Global};
use crate::client;
use crate::client::{Client, ServerName, Settings, Speech, TlsFiles};
use crate::wire::body::query::{QueryOptions, WriteRequest};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The server refused, or what was asked for is not there.
    Failed,
    /// The command line, or a file it names, is wrong.
    Usage,
    /// No answer from the server: not reached, lost, or late.
    Unreachable,
    /// A write that may have been carried out, or not.
    OutcomeUnknown,
    /// A lock was not to be had.
    NotLocked,
    /// A lock was lost while its command ran.
    LockLost,
    /// What a command under a lock ended with.
    Of(u8),
}

impl Exit {
    /// The exit status.
    pub fn status(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::OutcomeUnknown => 4,
            Exit::NotLocked => 75,
            Exit::LockLost => 76,
            Exit::Of(status) => status,
        }
    }
}

/// Why a command ended without its result.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// The command line, or a file it names, is wrong.
    Usage(String),
    /// The client's error.
    Call(client::Error),
    /// Anything else, in words.
    Other(String),
    /// No answer from the server, in words.
    Lost(String),
    /// Standard output is gone; whoever read it has seen enough.
    OutputClosed,
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Call(error) if error.is_outcome_unknown() => Exit::OutcomeUnknown,
            Failure::Call(client::Error::Answered { .. } | client::Error::Malformed(_)) | Failure::Other(_) => {
                Exit::Failed
            }
            Failure::Call(_) | Failure::Lost(_) => Exit::Unreachable,
            Failure::OutputClosed => Exit::Done,
        }
    }
}

impl Failure {
    /// What to do about it, where the text does not say.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Failure::Call(client::Error::Connect { .. }) => {
                Some("is it up, and is --address or HOLDFAST_RPC_ADDR right?")
            }
            Failure::Call(client::Error::Deadline { .. }) => Some("see --timeout"),
            Failure::Call(client::Error::OutcomeUnknown { .. }) => {
                Some("it may have been done, or not: look before doing it again")
            }
            Failure::Call(client::Error::Answered { text, .. }) | Failure::Other(text)
                if text.ends_with("Permission denied") =>
            {
                Some("see --token-file, HOLDFAST_TOKEN and \"holdfast acl token self\"")
            }
            Failure::Call(client::Error::Answered { text, .. }) if text.ends_with("ACL support disabled") => {
                Some("see acl.enabled in holdfastd.toml(5)")
            }
            Failure::Call(client::Error::Answered { text, .. }) if text.contains("can't find") => {
                Some("this server has no such method: it may be another program, or an older one")
            }
            _ => None,
        }
    }

    /// For programs: the text, and what it means by [`client::Class`] where a call failed.
    fn to_json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({ "error": self.to_string() });
        if let (Failure::Call(error), Some(fields)) = (self, json.as_object_mut()) {
            fields.insert("class".to_owned(), error.class().word().into());
        }
        if let (Some(hint), Some(fields)) = (self.hint(), json.as_object_mut()) {
            fields.insert("hint".to_owned(), hint.into());
        }
        json
    }

    /// A server's text as people read it: without the number that marks its kind for programs, and without the frame
    /// of a list of errors around a single one.
    pub(crate) fn words(text: &str) -> &str {
        let numbered = text.strip_prefix("RPC Error:: ").and_then(|rest| rest.split_once(','));
        let text = numbered.filter(|(number, _)| number.parse::<u16>().is_ok()).map_or(text, |(_, words)| words);
        text.strip_prefix("1 error occurred:\n\t* ").unwrap_or(text).trim_end()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Other(text) | Failure::Lost(text) => f.write_str(text),
            Failure::Call(client::Error::Answered { text, .. }) => f.write_str(Failure::words(text)),
            Failure::Call(error) => error.fmt(f),
            Failure::OutputClosed => f.write_str("standard output is closed"),
        }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        Failure::Call(error)
    }
}

impl From<io::Error> for Failure {
    /// Only writing to standard output gives these.
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Other(format!("cannot write: {error}")),
        }
    }
}

/// What every command works with.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) region: String,
    pub(crate) token: String,
    pub(crate) json: bool,
    /// Whether a person reads the output.
    pub(crate) is_terminal: bool,
    /// Whether a person reads what is said beside it.
    pub(crate) tells_progress: bool,
}

impl Context {
    /// A client that is not connected.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.settings.clone())
    }

    /// Options of a read that any server may answer.
    pub(crate) fn query(&self) -> QueryOptions {
        QueryOptions {
            region: self.region.clone(),
            auth_token: self.token.clone(),
            allow_stale: true,
            ..QueryOptions::default()
        }
    }

    /// Options of a read that a write will follow: by the leader, so that nothing newer is undone.
    pub(crate) fn fresh_query(&self) -> QueryOptions {
        QueryOptions { allow_stale: false, ..self.query() }
    }

    /// Options of a write.
    pub(crate) fn write(&self) -> WriteRequest {
        WriteRequest { region: self.region.clone(), auth_token: self.token.clone(), ..WriteRequest::default() }
    }

    /// Says that something was done, and at which index.
    pub(crate) fn done(&self, out: &mut dyn Write, what: &str, name: &str, index: u64) -> Result<Exit, Failure> {
        if self.json {
            output::json(out, &serde_json::json!({ "name": name, "index": index }))?;
        } else {
            writeln!(out, "{what} {}, index {index}", output::clean(name))?;
        }
        Ok(Exit::Done)
    }
}

/// Runs a command line, the program's name first.
pub fn run(line: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let line: Vec<OsString> = line.into_iter().collect();
    // This program again, as one of the processes under a lock.
    if let Some(rest) = under_lock::wanted(&line) {
        return under_lock::become_one(rest, err);
    }
    let (outcome, as_json) = match Cli::try_parse_from(line) {
        Ok(cli) => {
            let as_json = cli.global.json;
            (execute(cli, out), as_json)
        }
        Err(error) => return report_usage(&error, out, err),
    };
    match outcome.and_then(|exit| Ok(out.flush().map(|()| exit)?)) {
        Ok(exit) => exit,
        Err(failure) => {
            if failure != Failure::OutputClosed {
                // Nobody is left to tell when this fails too; the exit status still says it.
                let _ = match failure.hint() {
                    _ if as_json => output::json(err, &failure.to_json()),
                    Some(hint) => writeln!(err, "holdfast: {failure}; {hint}"),
                    None => writeln!(err, "holdfast: {failure}"),
                };
            }
            failure.exit()
        }
    }
}

/// Help and version are answers; everything else that clap says is wrong usage.
fn report_usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
    let text = error.render();
    let _ = if error.use_stderr() { write!(err, "{text}") } else { write!(out, "{text}").and_then(|()| out.flush()) };
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}

fn execute(cli: Cli, out: &mut dyn Write) -> Result<Exit, Failure> {
    let context = Context {
        settings: settings(&cli.global)?,
        token: token(cli.global.token_file.as_deref())?,
        region: cli.global.region,
        json: cli.global.json,
        is_terminal: io::stdout().is_terminal(),
        tells_progress: io::stderr().is_terminal(),
    };
    match cli.command {
        Command::Status => status::run(&context, out),
        Command::Node(command) => node::run(&context, out, &command),
        Command::Var(command) => var::run(&context, out, &command),
        Command::Acl(command) => acl::run(&context, out, &command),
        Command::Namespace(command) => namespace::run(&context, out, &command),
        Command::Events(args) => follow::events(&context, out, &args),
        Command::Monitor(args) => follow::monitor(&context, out, &args),
        Command::Server(command) => server::run(&context, out, command),
        Command::Session(command) => session::run(&context, out, &command),
        Command::Operator(command) => operator::run(&context, out, &command),
        Command::Tls(command) => tls::run(&context, out, &command),
        Command::Doctor(args) => doctor::run(&context, out, &args),
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "holdfast", &mut &mut *out);
            Ok(Exit::Done)
        }
        Command::Bench(command) => bench::run(&context, out, &command),
    }
}

/// What a variable of the environment says, unless that is nothing.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Address and TLS from flags, environment and defaults.
fn settings(global: &Global) -> Result<Settings, Failure> {
    let address = global.address.clone().or_else(|| environment(args::ADDRESS_VARIABLE));
    let address = address.unwrap_or_else(|| args::DEFAULT_ADDRESS.to_owned());
    if address.split(',').all(|address| address.trim().is_empty()) {
        return Err(Failure::Usage("--address names no server".to_owned()));
    }
    let file = |flag: &Option<PathBuf>, name| flag.clone().or_else(|| environment(name).map(PathBuf::from));
    let ca_file = file(&global.ca_file, args::CA_VARIABLE);
    let own = match (file(&global.cert_file, args::CERT_VARIABLE), file(&global.key_file, args::KEY_VARIABLE)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return Err(Failure::Usage("--cert-file and --key-file need each other".to_owned())),
    };
    let server_name = global.tls_server_name.clone().or_else(|| environment(args::SERVER_NAME_VARIABLE));
    let tls = match ca_file {
        Some(ca_file) => {
            let name = match server_name.as_deref() {
                Some(args::ANY_NAME) => ServerName::Any,
                Some(name) => ServerName::Expect(name.to_owned()),
                None => ServerName::Expect(format!("server.{}.nomad", global.region)),
            };
            Some(client::load_tls(&TlsFiles { ca_file, own }, &name).map_err(|error| Failure::Usage(error.0))?)
        }
        None if own.is_some() || server_name.is_some() => {
            return Err(Failure::Usage("--cert-file, --key-file and --tls-server-name need --ca-file".to_owned()));
        }
        None => None,
    };
    Ok(Settings {
        tls,
        timeout: global.timeout,
        // A command makes a call or two, and says at once what it was told.
        speech: Speech::Plain,
        waits_for_leader: false,
        ..Settings::new(address)
    })
}

/// The token, without the line's end.
fn token(file: Option<&Path>) -> Result<String, Failure> {
    let text = match file {
        None => environment(args::TOKEN_VARIABLE).unwrap_or_default(),
        Some(file) => read_input(file)?,
    };
    Ok(text.trim().to_owned())
}

/// Whether standard input was read: there is no second one.
static INPUT_READ: AtomicBool = AtomicBool::new(false);

/// The bytes of a file, or of standard input for `-`.
///
/// # Errors
/// A file that cannot be read, and standard input a second time.
pub(crate) fn read_bytes(file: &Path) -> Result<Vec<u8>, Failure> {
    if file.as_os_str() != "-" {
        return fs::read(file).map_err(|error| Failure::Usage(format!("{}: {error}", file.display())));
    }
    if INPUT_READ.swap(true, Ordering::Relaxed) {
        return Err(Failure::Usage("standard input is named twice, and can be read once".to_owned()));
    }
    let mut bytes = Vec::new();
    let read = io::stdin().read_to_end(&mut bytes);
    read.map(|_| bytes).map_err(|error| Failure::Usage(format!("standard input: {error}")))
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// As [`read_bytes`], and bytes that are no text.
pub(crate) fn read_input(file: &Path) -> Result<String, Failure> {
    let not_text = |_| Failure::Usage(format!("{}: it is not text (UTF-8)", file.display()));
    String::from_utf8(read_bytes(file)?).map_err(not_text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
