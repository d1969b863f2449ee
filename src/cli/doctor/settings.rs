//! The configuration as the server would read it, and who may read and write the files that it names.

use std::fs;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::cli::Failure;
use crate::config::{Config, Overrides};
use crate::edge::daemon;
use crate::edge::reload::ConfigSource;

use super::finding::Finding;

/// Reads the configuration; without one nothing else can be looked at.
///
/// # Errors
/// A file that is not there.
pub(super) fn read(file: &Path) -> Result<(Option<Config>, Vec<Finding>), Failure> {
    let meta = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::Usage(format!("{}: {error}; see --config", file.display())));
        }
        Err(error) => return Ok((None, vec![Finding::unseen("file", &error)])),
        Ok(meta) => meta,
    };
    if let Err(error) = fs::File::open(file) {
        return Ok((None, vec![Finding::unseen("file", &error)]));
    }
    let overrides = Overrides::default();
    let source = ConfigSource { file: Some(file.to_owned()), overrides, host_name: daemon::host_name() };
    match source.read() {
        Ok(config) => {
            let mut found = vec![Finding::ok("file", file.display().to_string())];
            if meta.mode() & 0o022 != 0 {
                let detail = format!("mode {:03o}: more than its owner may change it", meta.mode() & 0o777);
                found.push(Finding::warn("file mode", detail, format!("chmod go-w {}", file.display())));
            }
            Ok((Some(config), found))
        }
        Err(errors) => {
            let one = |error: &String| Finding::fail("file", error, "see holdfastd.toml(5)");
            Ok((None, errors.iter().map(one).collect()))
        }
    }
}

/// Who may read the secrets on disk: the key of the certificate and the key ring.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut found = Vec::from_iter(open_to_all(config));
    let data_dir = config.data_dir.as_deref();
    let server = data_dir.and_then(|dir| fs::metadata(dir).ok()).map(|meta| (meta.uid(), meta.gid()));
    if let Some(key_file) = config.tls.key_file.as_deref() {
        found.push(key_finding("tls.key_file", key_file, server));
    }
    if let Some(dir) = data_dir {
        let ring = dir.join("keyring");
        match fs::metadata(&ring) {
            Ok(meta) if meta.mode() & 0o007 != 0 => found.push(Finding::fail(
                "key ring",
                format!(
                    "{} has mode {:03o}: others can read the keys of variables",
                    ring.display(),
                    meta.mode() & 0o777
                ),
                format!("chmod -R go= {}", ring.display()),
            )),
            Ok(_) => found.push(Finding::ok("key ring", format!("{} is closed to others", ring.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.push(Finding::unseen("key ring", &error)),
        }
    }
    found
}

/// Without ACLs whoever reaches the ports may do everything.
fn open_to_all(config: &Config) -> Option<Finding> {
    let is_here_only = config.listen_rpc.ip().is_loopback() && config.listen_http.ip().is_loopback();
    if config.acl_enabled || is_here_only {
        return None;
    }
    let detail = "off, and other machines can reach the ports: whoever does may do everything";
    Some(Finding::warn("acl", detail, "see acl.enabled, and \"holdfast acl bootstrap\""))
}

/// `server` is the user and the group that own the data folder: who runs the server.
fn key_finding(what: &str, file: &Path, server: Option<(u32, u32)>) -> Finding {
    let name = file.display();
    let meta = match fs::metadata(file) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Finding::unseen(what, &error),
        Err(error) => return Finding::fail(what, format!("{name}: {error}"), "see \"holdfast tls cert\""),
    };
    let mode = meta.mode() & 0o777;
    if mode & 0o007 != 0 {
        let detail = format!("{name} has mode {mode:03o}: everybody on this machine can use it");
        return Finding::fail(what, detail, format!("chmod o= {name}"));
    }
    match server {
        Some((user, group)) if !may_read(&meta, user, group) => Finding::warn(
            what,
            format!("{name} may be unreadable for user {user}, who owns data_dir"),
            format!("chgrp it to the server's group and chmod 0640 {name}"),
        ),
        _ => Finding::ok(what, format!("{name} is closed to others")),
    }
}

/// As far as owner and group say; more groups of the user are not known.
fn may_read(meta: &Metadata, user: u32, group: u32) -> bool {
    let mode = meta.mode();
    user == 0 || (meta.uid() == user && mode & 0o400 != 0) || (meta.gid() == group && mode & 0o040 != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_wrong_configuration_is_told_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("holdfastd.toml");
        assert!(matches!(read(&file), Err(Failure::Usage(_))));
        fs::write(&file, "data_dir = \"/tmp\"\nnome = \"x\"\n[rpc]\nhold_timeout = 5\n").unwrap();
        let (config, found) = read(&file).unwrap();
        assert!(config.is_none());
        assert!(found.len() == 2 && found.iter().all(|one| one.verdict == Verdict::Fail), "{found:?}");
        assert!(found[0].detail.contains(":2: nome"), "{found:?}");
        fs::write(&file, "data_dir = \"/tmp\"\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let (config, found) = read(&file).unwrap();
        assert!(config.is_some());
        assert_eq!(found.iter().map(|one| one.verdict).collect::<Vec<_>>(), [Verdict::Ok, Verdict::Warn]);
    }

    #[test]
    fn an_open_door_is_told() {
        let with = |lines: &str| {
            let text = format!("data_dir = \"/nowhere/at/all\"\n{lines}");
            let config = Config::parse("file", &text, &Overrides::default(), "host").unwrap();
            check(&config).iter().filter(|one| one.what == "acl").map(|one| one.verdict).collect::<Vec<_>>()
        };
        assert_eq!(with(""), []);
        assert_eq!(with("[listen]\nrpc = \"0.0.0.0:4647\"\n"), [Verdict::Warn]);
        assert_eq!(with("[listen]\nrpc = \"0.0.0.0:4647\"\n[acl]\nenabled = true\n"), []);
    }

    #[test]
    fn a_key_is_for_the_server_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pem");
        assert_eq!(key_finding("key", &file, None).verdict, Verdict::Fail);
        fs::write(&file, "").unwrap();
        let (user, group) = fs::metadata(&file).map(|meta| (meta.uid(), meta.gid())).unwrap();
        let stranger = Some((user + 1, group + 1));
        for (mode, server, verdict) in [
            (0o644, None, Verdict::Fail),
            (0o600, Some((user, group)), Verdict::Ok),
            (0o640, Some((user + 1, group)), Verdict::Ok),
            (0o600, stranger, Verdict::Warn),
            (0o640, stranger, Verdict::Warn),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(key_finding("key", &file, server).verdict, verdict, "{mode:o} {server:?}");
        }
    }
}
