//! Reading the configuration, at the start and again at SIGHUP. Again it is read on a thread of its own, so that no disk
//! holds up the loop; what is wrong with it changes nothing.

use std::fs;
use std::path::PathBuf;
use std::thread;

use crate::config::{Config, Overrides};
use crate::server::port::Reload;

use super::inbox::{Post, Told};
use super::tls_files::{self, TlsMaterial};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    /// `-c`; none with `--dev` alone.
    pub file: Option<PathBuf>,
    /// What the command line sets over it.
    pub overrides: Overrides,
    /// The name of this machine.
    pub host_name: String,
}

/// The configuration and what its files hold.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The settings.
    pub config: Config,
    /// Certificates and keys.
    pub tls: TlsMaterial,
}

impl ConfigSource {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// All that is wrong with it, a line each, with the file's name.
    pub fn read(&self) -> Result<Config, Vec<String>> {
        let (name, text) = match &self.file {
            Some(path) => {
                let name = path.display().to_string();
                let text = fs::read_to_string(path).map_err(|error| vec![format!("{name}: {error}")])?;
                (name, text)
            }
            None => ("command line".to_owned(), String::new()),
        };
        Config::parse(&name, &text, &self.overrides, &self.host_name)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    /// Reads the file and all that it names.
    ///
    /// # Errors
    /// As [`ConfigSource::read`]; also what is wrong with a certificate, a key or a log filter.
    pub fn read_all(&self) -> Result<Reloaded, Vec<String>> {
        let config = self.read()?;
        if let Some(filter) = &config.log_filter {
            super::logging::check_filter(filter).map_err(|error| vec![format!("--log: {error}")])?;
        }
        let tls = tls_files::load(&config.tls, &config.region).map_err(|error| vec![error])?;
        Ok(Reloaded { config, tls })
    }
}

/// Reads the configuration again when it is asked to, one reading at a time.
#[derive(Debug)]
pub struct Reloader {
    source: ConfigSource,
    in_force: Reloaded,
    reading: bool,
    /// Asked for once more while a reading was under way.
    again: bool,
}

impl Reloader {
    /// Begins with what is in force.
    pub fn new(source: ConfigSource, in_force: Reloaded) -> Reloader {
        Reloader { source, in_force, reading: false, again: false }
    }

    /// Starts a reading, or notes that another is wanted after the one under way. True when one was started.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn start(&mut self, post: &Post) -> std::io::Result<bool> {
        if self.reading {
            self.again = true;
            return Ok(false);
        }
        let (source, post) = (self.source.clone(), post.clone());
        thread::Builder::new().name("reload".to_owned()).spawn(move || {
            post.tell(Told::Reloaded(source.read_all().map(Box::new)));
        })?;
        self.reading = true;
        Ok(true)
    }

    /// A reading has ended. True when another one is wanted.
    pub fn ended(&mut self) -> bool {
        self.reading = false;
        std::mem::take(&mut self.again)
    }

    /// Takes new settings over. Gives what the server is to be told, and whether something changed that only a restart
    /// puts in force.
    pub fn take(&mut self, new: Reloaded) -> (Reload, bool) {
        let reload = Reload {
            rpc_security: new.tls.rpc.clone(),
            http_security: new.tls.http.clone(),
            tls_changed: new.tls.fingerprint != self.in_force.tls.fingerprint,
            rpc_max_conns_per_client: new.config.rpc_max_conns_per_client,
            http_max_conns_per_client: new.config.http_max_conns_per_client,
            proxy_protocol_from: new.config.proxy_protocol_from.clone(),
            dial_tls: new.tls.dial.clone(),
            backup_every: new.config.backup_every,
            backup_keep: new.config.backup_keep,
        };
        // What can change while running is made equal; a difference that is left needs a restart.
        let mut rest = self.in_force.config.clone();
        rest.tls = new.config.tls.clone();
        rest.log_filter.clone_from(&new.config.log_filter);
        rest.rpc_max_conns_per_client = new.config.rpc_max_conns_per_client;
        rest.http_max_conns_per_client = new.config.http_max_conns_per_client;
        rest.proxy_protocol_from.clone_from(&new.config.proxy_protocol_from);
        rest.backup_every = new.config.backup_every;
        rest.backup_keep = new.config.backup_keep;
        let needs_restart = rest != new.config;
        self.in_force.config = rest;
        self.in_force.tls = new.tls;
        (reload, needs_restart)
    }
}
