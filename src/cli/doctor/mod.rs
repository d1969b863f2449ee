//! `holdfast doctor`: looks at a server's machine, and at what it reaches from there, before or while the server runs.
//!
//! Changes nothing but a file of 8 KiB that it removes. Checks run side by side and each has its time; what cannot be
//! seen is said, and is no fault of the thing.

mod certificates;
mod disk;
mod finding;
mod machine;
mod peers;
mod ports;
mod settings;

use std::io::Write;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::args::DoctorArgs;
use crate::cli::output;
use crate::cli::{Context, Exit, Failure};
use crate::client;
use crate::client::{Client, ServerName, Settings, Speech, TlsFiles, TlsSettings};
use crate::config::Config;
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::body::status::ServerMembersResponse;
use crate::wire::msgpack::Raw;

use self::finding::{Finding, Report};

/// One wait on a network.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// All waits of the peers, which are asked side by side.
const GROUP_MAX: Duration = Duration::from_secs(12);
/// The whole run.
const RUN_MAX: Duration = Duration::from_secs(14);

/// The server that is looked at, and who looks.
#[derive(Clone)]
struct Site {
    config: Arc<Config>,
    token: String,
}

impl Site {
    /// How servers of a region are dialled with this server's files.
    fn tls(&self, region: &str) -> Result<TlsSettings, String> {
        let tls = &self.config.tls;
        let ca_file = tls.ca_file.clone().ok_or_else(|| "tls.ca_file is not set".to_owned())?;
        let own = tls.cert_file.clone().zip(tls.key_file.clone());
        let name = match tls.verify_server_hostname {
            true => ServerName::Expect(format!("server.{region}.nomad")),
            false => ServerName::Any,
        };
        client::load_tls(&TlsFiles { ca_file, own }, &name).map_err(|error| error.0)
    }

    /// The same for HTTP, where it is on.
    fn http_tls(&self, region: &str) -> Result<Option<TlsSettings>, String> {
        self.config.tls.http.then(|| self.tls(region)).transpose()
    }

    /// A client of these servers, as this server would be one.
    fn client(&self, address: &str, region: &str) -> Result<Client, String> {
        Ok(Client::new(Settings {
            tls: self.config.tls.rpc.then(|| self.tls(region)).transpose()?,
            timeout: WAIT_MAX,
            speech: Speech::Plain,
            waits_for_leader: false,
            ..Settings::new(address)
        }))
    }

    /// Who answers there, and whom it knows; `None` when it says that only to whoever has a token.
    fn hear(&self, address: &str, region: &str) -> Result<Option<ServerMembersResponse>, String> {
        let client = self.client(address, region)?;
        // The token is shown only to who speaks the protocol.
        client.call::<_, Raw>("Status.Ping", &GenericRequest::default()).map_err(|error| error.to_string())?;
        let query = QueryOptions { auth_token: self.token.clone(), ..QueryOptions::default() };
        match client.call("Status.Members", &GenericRequest { query }) {
            Ok(members) => Ok(Some(members)),
            Err(client::Error::Answered { .. }) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Looks, and says what it found.
///
/// # Errors
/// A configuration that is not there; the writer's.
pub(crate) fn run(context: &Context, out: &mut dyn Write, args: &DoctorArgs) -> Result<Exit, Failure> {
    let mut report = Report::default();
    let (config, found) = settings::read(&args.config)?;
    report.add("configuration", found);
    if let Some(config) = config {
        let site = Site { config: Arc::new(config), token: context.token.clone() };
        look(&site, &mut report);
    }
    if context.json {
        output::json(out, &report.to_json())?;
    } else {
        let coloured = context.is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        report.print(out, coloured)?;
    }
    Ok(if report.has_failed() { Exit::Failed } else { Exit::Done })
}

type Check = fn(&Site) -> Vec<Finding>;

/// Groups of checks, as they are shown.
const CHECKS: [(&str, Check); 8] = [
    ("secrets", |site| settings::check(&site.config)),
    ("data", |site| disk::check(&site.config)),
    ("ports", ports::check),
    ("certificates", certificates::check),
    ("clock", |site| machine::check_clock(&site.config)),
    ("limits", |site| machine::check_limits(&site.config)),
    ("peers", peers::check_peers),
    ("cluster", peers::check_cluster),
];

/// Runs all checks side by side, and waits for each until the time is up.
fn look(site: &Site, report: &mut Report) {
    let deadline = Instant::now() + RUN_MAX;
    let running = CHECKS.map(|(group, check)| {
        let (sender, answer) = mpsc::channel();
        let site = site.clone();
        // One that hangs, as on a disk that is gone, ends with the process.
        let spawned = thread::Builder::new().spawn(move || sender.send(check(&site)));
        (group, spawned.is_ok().then_some(answer))
    });
    for (group, answer) in running {
        let wait = |answer: mpsc::Receiver<Vec<Finding>>| {
            answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
        };
        let late = || vec![Finding::fail(group, format!("not done within {} s", RUN_MAX.as_secs()), "it hangs")];
        report.add(group, answer.and_then(wait).unwrap_or_else(late));
    }
}
