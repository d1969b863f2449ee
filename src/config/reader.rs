//! The file and the command line against the table of keys: gathers what is set and all that is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Checked, check, check_text, refused};
use super::keys::{self, KEYS, Key, Kind, WhenUnset};
use super::{ConfigError, Overrides};
use crate::base::network::Network;

/// The name of the command line where the name of the file would stand in an error.
const COMMAND_LINE: &str = "command line";

/// Backups are not taken more often.
const BACKUP_EVERY_MIN: Duration = Duration::from_secs(1);

/// What is set, by dotted name.
#[derive(Debug, Default)]
pub(super) struct Values {
    set: BTreeMap<String, Set>,
}

#[derive(Debug)]
struct Set {
    value: Checked,
    /// 0 for the command line.
    line: usize,
}

/// Gathers values and errors.
#[derive(Debug)]
pub(super) struct Reader {
    file: String,
    pub(super) values: Values,
    pub(super) errors: Vec<ConfigError>,
    /// Keys whose values were refused for themselves: the rules between keys leave them out.
    refused: BTreeSet<String>,
}

impl Reader {
    pub(super) fn new(file: &str) -> Reader {
        Reader { file: file.to_owned(), values: Values::default(), errors: Vec::new(), refused: BTreeSet::new() }
    }

    fn error(&mut self, line: usize, key: &str, what: impl Into<String>) {
        let error = ConfigError { file: self.file.clone(), line, key: key.to_owned(), what: what.into() };
        self.errors.push(error);
    }

    /// Reads the file. Where it is no TOML, only that is said: what else seems wrong may come of it.
    pub(super) fn read_file(&mut self, text: &str) {
        let (table, broken) = DeTable::parse_recoverable(text);
        for error in &broken {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            self.error(line, "", error.message().replace('\n', "; "));
        }
        if broken.is_empty() {
            self.read_table(text, "", table.get_ref());
        }
    }

    fn read_table(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            self.read_value(text, &name, line_of(text, key.span().start), value);
        }
    }

    fn read_value(&mut self, text: &str, name: &str, line: usize, value: &Spanned<DeValue<'_>>) {
        match (keys::find(name), value.get_ref()) {
            (Some(key), value) => self.read_key(key, name, line, value),
            (None, DeValue::Table(table)) if keys::is_table(name) => {
                self.read_table(text, &format!("{name}."), table);
            }
            (None, other) if keys::is_table(name) => {
                self.error(line, name, format!("must be a table; found a value of type {}", other.type_str()));
            }
            (None, other) => {
                let what = if other.is_table() { "table" } else { "key" };
                let nearest = keys::nearest(name);
                self.error(line, name, format!("unknown {what}; the nearest known name is {nearest}"));
            }
        }
    }

    fn read_key(&mut self, key: &Key, name: &str, line: usize, value: &DeValue<'_>) {
        match check(key, value) {
            Ok(value) => {
                self.refuse_later(key, name, line, &value);
                self.values.set.insert(name.to_owned(), Set { value, line });
            }
            Err(what) => {
                self.refused.insert(name.to_owned());
                self.error(line, name, what);
            }
        }
    }

    /// Says what this build lacks, once for each thing.
    fn refuse_later(&mut self, key: &Key, name: &str, line: usize, value: &Checked) {
        let Some(lacking) = refused(key, value) else { return };
        let what = format!("not in this build: {lacking}");
        let said = self.errors.iter_mut().find(|error| error.what == what);
        match said {
            // Tables are walked by name: the first line is the one to name.
            Some(said) if said.line > line => (said.line, said.key) = (line, name.to_owned()),
            Some(_) => {}
            None => self.error(line, name, what),
        }
    }

    /// Lets the command line win over the file.
    pub(super) fn read_overrides(&mut self, overrides: &Overrides) {
        let texts = [
            ("--name", "name", &overrides.name),
            ("--region", "region", &overrides.region),
            ("--rpc", "listen.rpc", &overrides.rpc),
            ("--http", "listen.http", &overrides.http),
        ];
        for (option, name, text) in texts {
            if let (Some(text), Some(key)) = (text, keys::find(name)) {
                self.read_option(option, name, check_text(key.kind, text));
            }
        }
        if let Some(path) = &overrides.data_dir {
            let empty = path.as_os_str().is_empty();
            let value = if empty { Err("must not be empty".to_owned()) } else { Ok(Checked::Path(path.clone())) };
            self.read_option("--data-dir", "data_dir", value);
        }
    }

    fn read_option(&mut self, option: &str, name: &str, value: Result<Checked, String>) {
        match value {
            Ok(value) => {
                self.values.set.insert(name.to_owned(), Set { value, line: 0 });
            }
            Err(what) => {
                let error = ConfigError { file: COMMAND_LINE.to_owned(), line: 0, key: option.to_owned(), what };
                self.errors.push(error);
                self.refused.insert(name.to_owned());
            }
        }
    }

    /// Rules between keys.
    pub(super) fn check_together(&mut self, dev: bool, host_name: &str) {
        // Without a file that could be read, what is missing in it cannot be told.
        if self.errors.iter().any(|error| error.key.is_empty()) {
            return;
        }
        self.check_needed(dev, host_name);
        self.check_listen();
        self.check_founders();
        self.check_regions();
        self.check_query_times();
        self.check_lease();
        self.check_tls();
        self.check_backup();
    }

    fn is_refused(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.refused.contains(*name))
    }

    fn check_needed(&mut self, dev: bool, host_name: &str) {
        if !dev && self.values.path("data_dir").is_none() && !self.is_refused(&["data_dir"]) {
            self.error(0, "data_dir", "is needed, in the file or as --data-dir, unless --dev is given");
        }
        if self.values.text("name").is_none()
            && !self.is_refused(&["name"])
            && let Err(what) = check_text(Kind::Name, host_name)
        {
            self.error(0, "name", format!("is needed, since the host name will not do: {what}"));
        }
    }

    fn check_listen(&mut self) {
        let names = ["listen.rpc", "listen.http"];
        let (rpc, http) = (self.values.listen("listen.rpc"), self.values.listen("listen.http"));
        if rpc == http && rpc.port() != 0 && !self.is_refused(&names) {
            self.error(self.values.last_line(&names), "listen.http", format!("is the same as listen.rpc, {rpc}"));
        }
    }

    /// Two sets of servers that know nothing of each other must not both found a cluster: each set has to be more than
    /// half of all that are named.
    fn check_founders(&mut self) {
        let names = ["cluster.bootstrap_expect", "cluster.join", "advertise.rpc"];
        if self.is_refused(&names) {
            return;
        }
        let own = self.values.text("advertise.rpc").unwrap_or_else(|| self.values.listen("listen.rpc").to_string());
        let others: BTreeSet<String> = self.values.list("cluster.join").into_iter().filter(|one| *one != own).collect();
        let (expect, servers) = (self.values.number("cluster.bootstrap_expect"), others.len() as u64 + 1);
        if expect * 2 > servers {
            return;
        }
        let what = format!(
            "must be more than half of the servers, or two halves could each found a cluster: with this one \
             cluster.join names {servers}, so at least {} are needed; found: {expect}",
            servers / 2 + 1
        );
        self.error(self.values.last_line(&names[..2]), "cluster.bootstrap_expect", what);
    }

    fn check_regions(&mut self) {
        let own = self.values.text("region").unwrap_or_default();
        let name = format!("regions.{own}");
        let line = self.values.last_line(&[&name]);
        if line > 0 {
            self.error(line, &name, "is this server's own region: its servers are named by cluster.join");
        }
    }

    fn check_query_times(&mut self) {
        let (max, default) = (self.values.span("rpc.max_query_time"), self.values.span("rpc.default_query_time"));
        // The default follows a lower maximum; only what is written must be right.
        let line = self.values.last_line(&["rpc.default_query_time"]);
        if line > 0 && default > max && !self.is_refused(&["rpc.max_query_time"]) {
            self.error(line, "rpc.default_query_time", "must be <= rpc.max_query_time");
        }
    }

    /// R5.6: the words are those of the peer.
    fn check_lease(&mut self) {
        let names = ["cluster.postgres.lease_duration", "cluster.postgres.lease_refresh"];
        let [duration, refresh] = names.map(|name| self.values.span(name));
        if refresh > duration / 2 && !self.is_refused(&names) {
            let what = "refresh interval must be <= half the lease duration";
            self.error(self.values.last_line(&names), "cluster.postgres.lease_refresh", what);
        }
    }

    fn check_backup(&mut self) {
        let every = self.values.span("backup.every");
        if !every.is_zero() && every < BACKUP_EVERY_MIN {
            let line = self.values.last_line(&["backup.every"]);
            self.error(line, "backup.every", "must be at least 1s, or 0s for no backups");
        }
    }

    fn check_tls(&mut self) {
        let Some(wanted_by) = ["tls.rpc", "tls.http"].into_iter().find(|name| self.values.flag(name)) else { return };
        for name in ["tls.ca_file", "tls.cert_file", "tls.key_file"] {
            if self.values.path(name).is_none() && !self.is_refused(&[name]) {
                let line = self.values.last_line(&[wanted_by]);
                self.error(line, name, format!("is needed, since {wanted_by} is true"));
            }
        }
    }
}

/// The line, counted from 1, that holds the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

impl Values {
    /// The last line that sets one of the keys; 0 when none does.
    fn last_line(&self, names: &[&str]) -> usize {
        names.iter().filter_map(|name| self.set.get(*name)).map(|set| set.line).max().unwrap_or_default()
    }

    /// What is set, or else the default.
    fn value(&self, name: &str) -> Option<Checked> {
        self.set.get(name).map(|set| set.value.clone()).or_else(|| default(name))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Checked::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        match self.value(name) {
            Some(Checked::Path(path)) => Some(path),
            _ => None,
        }
    }

    pub(super) fn listen(&self, name: &str) -> SocketAddr {
        match self.value(name) {
            Some(Checked::Listen(address)) => address,
            _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        }
    }

    pub(super) fn set_flag(&self, name: &str) -> Option<bool> {
        match self.value(name) {
            Some(Checked::Flag(flag)) => Some(flag),
            _ => None,
        }
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.set_flag(name).unwrap_or_default()
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Checked::List(list)) => list,
            _ => Vec::new(),
        }
    }

    pub(super) fn networks(&self, name: &str) -> Vec<Network> {
        match self.value(name) {
            Some(Checked::Networks(networks)) => networks,
            _ => Vec::new(),
        }
    }

    /// The lists of a table whose keys may have any name; empty ones left out.
    pub(super) fn lists_below(&self, prefix: &str) -> Vec<(String, Vec<String>)> {
        let names = self.set.keys().filter_map(|name| name.strip_prefix(prefix).map(|last| (name, last)));
        let lists = names.map(|(name, last)| (last.to_owned(), self.list(name)));
        lists.filter(|(_, list)| !list.is_empty()).collect()
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Checked::Number(number)) => number,
            _ => 0,
        }
    }

    pub(super) fn size(&self, name: &str) -> usize {
        usize::try_from(self.number(name)).unwrap_or(usize::MAX)
    }

    pub(super) fn span(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Checked::Span(span)) => span,
            _ => Duration::ZERO,
        }
    }

    pub(super) fn rate(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Checked::Rate(rate)) => rate,
            _ => 0.0,
        }
    }
}

/// The checked default of a key that has one.
pub(super) fn default(name: &str) -> Option<Checked> {
    let key = KEYS.iter().find(|key| key.name == name)?;
    let WhenUnset::Value(text) = key.default else { return None };
    let value = DeValue::parse(text).ok()?;
    check(key, value.get_ref()).ok()
}
