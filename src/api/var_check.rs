//! What a write to a variable must look like: pure checks, with the texts that the peers' clients know.
//!
//! Source: endpoint notes, section 4; Nomad `nomad/structs/variables.go`.

use std::time::Duration;

use crate::wire::body::var::{Variable, VariableLock};
use crate::wire::entry::var::VarOpKind;

use super::ServerFacts;
use super::answer::nanos;
use super::var::ALL_NAMESPACES;

/// The TTL and the delay of a lock that names none.
pub(super) const DEFAULT_LOCK_TIME: Duration = Duration::from_secs(15);

/// The longest TTL.
const MAX_LOCK_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest path, bytes.
const MAX_PATH_BYTES: usize = 128;

/// The longest name of a namespace, bytes: as for namespaces that are made.
const MAX_NAMESPACE_BYTES: usize = 128;

/// The longest label of a lock's owner, bytes.
pub(super) const MAX_OWNER_BYTES: usize = 128;

/// Of a wrong name, so much is repeated in the error, characters.
const MAX_SHOWN: usize = 200;

/// What is wrong with a write, without its code. The lock's times may be 0 for the defaults.
pub(super) fn check(kind: VarOpKind, var: &Variable, server: &ServerFacts) -> Result<(), String> {
    if var.namespace == ALL_NAMESPACES {
        return Err("can not target wildcard (\"*\")namespace".to_owned());
    }
    // Other names than those of namespaces that are made are let through, as by the peers.
    if var.namespace.len() > MAX_NAMESPACE_BYTES || var.namespace.contains(char::is_control) {
        return Err(format!("invalid namespace {}", shown(&var.namespace)));
    }
    match kind {
        VarOpKind::Set | VarOpKind::Cas => {
            if var.items.as_ref().is_none_or(|items| items.is_empty()) {
                return Err("empty variables are invalid".to_owned());
            }
            check_content(var, server)?;
            match &var.lock {
                Some(lock) if lock.ttl != 0 || lock.lock_delay != 0 => {
                    Err("variable should not contain lock definition".to_owned())
                }
                _ => Ok(()),
            }
        }
        VarOpKind::LockAcquire => {
            check_content(var, server)?;
            var.lock.as_ref().map_or(Ok(()), |lock| check_lock(lock, server.locks_min_ttl))
        }
        VarOpKind::LockRelease => {
            if var.lock.as_ref().is_none_or(|lock| lock.id.is_empty()) {
                return Err("missing lock information".to_owned());
            }
            if var.items.as_ref().is_some_and(|items| !items.is_empty()) {
                return Err("lock release operation doesn't take variable items".to_owned());
            }
            if var.path.is_empty() { Err("variable requires path".to_owned()) } else { Ok(()) }
        }
        VarOpKind::Delete | VarOpKind::DeleteCas => {
            if var.path.is_empty() {
                Err("delete requires a Path".to_owned())
            } else {
                Ok(())
            }
        }
    }
}

/// Size and path.
fn check_content(var: &Variable, server: &ServerFacts) -> Result<(), String> {
    let bytes: usize = var.items.iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > server.variables_max_bytes {
        return Err(format!("variables are limited to {} in total size", size(server.variables_max_bytes)));
    }
    check_path(&var.path)
}

/// A number of bytes as the error names it: `64KiB`.
fn size(bytes: usize) -> String {
    if bytes.is_multiple_of(1024) { format!("{}KiB", bytes / 1024) } else { format!("{bytes} bytes") }
}

fn check_path(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Err("variable requires path".to_owned());
    }
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~' | b'/');
    if path.len() > MAX_PATH_BYTES || !path.bytes().all(fits) {
        return Err(format!("invalid path {}", shown(path)));
    }
    let mut parts = path.split('/');
    if parts.next() != Some("nomad") {
        return Ok(());
    }
    match (parts.next(), parts.count()) {
        (Some("jobs" | "sentinel"), _) | (Some("job-templates"), 1) => Ok(()),
        (Some("job-templates"), _) => Err("\"nomad/job-templates\" is a reserved directory path, but you may write \
                                           variables at the level below it, for example, \
                                           \"nomad/job-templates/template-name\""
            .to_owned()),
        (Some(_), _) => Err("only paths at \"nomad/jobs\" or \"nomad/job-templates\" and below are valid paths under \
                             the top-level \"nomad\" directory"
            .to_owned()),
        (None, _) => Err("\"nomad\" is a reserved top-level directory path, but you may write variables to \
                          \"nomad/jobs\", \"nomad/job-templates\", \"nomad/sentinel\", or below"
            .to_owned()),
    }
}

/// In quotes, and not too much of it.
fn shown(name: &str) -> String {
    match name.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}...", &name[..end]),
        None => format!("{name:?}"),
    }
}

/// A lock's times; zero stands for the default.
fn check_lock(lock: &VariableLock, min_ttl: Duration) -> Result<(), String> {
    let mut wrong = Vec::new();
    if lock.ttl < 0 || lock.lock_delay < 0 {
        wrong.push("Lock delay and TTL must be positive".to_owned());
    }
    let ttl = or_default(lock.ttl);
    if ttl < nanos(min_ttl) || ttl > nanos(MAX_LOCK_TTL) {
        wrong.push(format!("TTL must be between {} and 24 hours", least(min_ttl)));
    }
    if wrong.is_empty() { Ok(()) } else { Err(errors(&wrong)) }
}

/// A lock's time, nanoseconds: the default for 0.
pub(super) fn or_default(time: i64) -> i64 {
    if time == 0 { nanos(DEFAULT_LOCK_TIME) } else { time }
}

fn least(time: Duration) -> String {
    if time.subsec_nanos() == 0 {
        format!("{} seconds", time.as_secs())
    } else {
        format!("{} milliseconds", time.as_millis())
    }
}

/// Several errors in one text, as the peers' library writes them.
pub(super) fn errors(texts: &[impl AsRef<str>]) -> String {
    let head = match texts.len() {
        1 => "1 error occurred:".to_owned(),
        many => format!("{many} errors occurred:"),
    };
    let lines: String = texts.iter().map(|text| format!("\t* {}\n", text.as_ref())).collect();
    format!("{head}\n{lines}\n")
}
