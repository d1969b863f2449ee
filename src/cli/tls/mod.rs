//! `holdfast tls`: an authority, certificates with the right names, revocation lists. Asks no server; a file that is
//! there is never replaced unless that was asked for.

mod authority;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::base::time::format_rfc3339;
use crate::cli::args::{CaArgs, CertArgs, CrlArgs, Signer, TlsCommand};
use crate::cli::output;
use crate::cli::private_file::PrivateFile;
use crate::cli::{Context, Exit, Failure};
use crate::edge::clock;

use self::authority::{Authority, AuthorityError, Made, Role, Wanted};

/// A file above this is no certificate, key or list, bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Runs one of them.
///
/// # Errors
/// Files that are there already, cannot be read or written, or are not what they should be.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &TlsCommand) -> Result<Exit, Failure> {
    match command {
        TlsCommand::Ca(args) => ca(context, out, args),
        TlsCommand::Cert(args) => cert(context, out, args),
        TlsCommand::Crl(args) => crl(context, out, args),
    }
}

fn ca(context: &Context, out: &mut dyn Write, args: &CaArgs) -> Result<Exit, Failure> {
    let files = Files::new(&args.dir, "ca", args.force)?;
    let made = authority::make_authority(&args.name, args.days, clock::wall()).map_err(Failure::Usage)?;
    files.write(&made)?;
    if context.json {
        return files.tell_json(out, &made);
    }
    writeln!(out, "{}  the authority: on every server and client, tls.ca_file; until {}", files.cert(), until(&made))?;
    writeln!(out, "{}  its key: keep it away from servers, who has it can make certificates", files.key())?;
    Ok(Exit::Done)
}

fn cert(context: &Context, out: &mut dyn Write, args: &CertArgs) -> Result<Exit, Failure> {
    let role = match (args.server, args.client) {
        (true, _) => Role::Server,
        (_, true) => Role::Client,
        _ => Role::Cli,
    };
    let (authority, ca_file) = signer(&args.signer, &args.dir)?;
    let files = Files::new(&args.dir, args.name.as_deref().unwrap_or(role.word()), args.force)?;
    let (region, dns, ip, days) = (context.region.as_str(), args.dns.as_slice(), args.ip.as_slice(), args.days);
    let made = authority.issue(&Wanted { role, region, dns, ip, days }, clock::wall()).map_err(Failure::Usage)?;
    files.write(&made)?;
    if context.json {
        return files.tell_json(out, &made);
    }
    writeln!(out, "{}  good for {}; until {}", files.cert(), made.names.join(", "), until(&made))?;
    writeln!(out, "{}  its key: only whoever runs the program may read it", files.key())?;
    writeln!(out)?;
    let (ca, cert, key) = (absolute(&ca_file), absolute(&files.cert_file), absolute(&files.key_file));
    let three = format!("ca_file = {ca:?}\ncert_file = {cert:?}\nkey_file = {key:?}");
    match role {
        Role::Server => writeln!(out, "In holdfastd.toml:\n\n[tls]\nrpc = true\nhttp = true\n{three}")?,
        Role::Client => {
            let three = three.replace('\n', "\n  ");
            writeln!(out, "In the agent's configuration:\n\ntls {{\n  rpc = true\n  {three}")?;
            writeln!(out, "  verify_server_hostname = true\n}}")?;
        }
        Role::Cli => {
            let (ca, cert, key) = (ca.display(), cert.display(), key.display());
            let region = if region == "global" { String::new() } else { format!(" --region {region}") };
            writeln!(out, "holdfast --ca-file {ca} --cert-file {cert} --key-file {key}{region} status")?;
        }
    }
    Ok(Exit::Done)
}

fn crl(context: &Context, out: &mut dyn Write, args: &CrlArgs) -> Result<Exit, Failure> {
    let (authority, _) = signer(&args.signer, &args.dir)?;
    let read_one = |file: &PathBuf| Ok((file.display().to_string(), read(file)?));
    let certificates = args.revoke.iter().map(read_one).collect::<Result<Vec<_>, Failure>>()?;
    let before = if is_there(&args.out) { Some(read(&args.out)?) } else { None };
    let name = args.out.display().to_string();
    let before = before.as_deref().map(|text| (name.as_str(), text));
    let list = authority.revoke(&certificates, before, args.days, clock::wall()).map_err(Failure::Usage)?;
    let mut file = PrivateFile::create_readable(&args.out)?;
    file.write_all(list.text.as_bytes())?;
    file.keep()?;
    let next = format_rfc3339(list.next_update, 0);
    if context.json {
        output::json(out, &json!({ "file": args.out, "revoked": list.count, "next_update": next }))?;
        return Ok(Exit::Done);
    }
    writeln!(out, "{name}  certificates revoked: {}; a newer one by {next}", list.count)?;
    writeln!(out, "Each server: tls.crl_file = {:?}, then systemctl reload holdfastd", absolute(&args.out))?;
    Ok(Exit::Done)
}

/// The authority that signs, and the file of its certificate.
fn signer(signer: &Signer, dir: &Path) -> Result<(Authority, PathBuf), Failure> {
    let ca = signer.ca.clone().unwrap_or_else(|| below(dir, "ca.pem"));
    let ca_key = signer.ca_key.clone().unwrap_or_else(|| ca.with_file_name("ca-key.pem"));
    let with_hint = |failure| match failure {
        Failure::Usage(text) if !is_there(&ca) => {
            Failure::Usage(format!("{text}; make an authority with \"holdfast tls ca\", or name it with --ca"))
        }
        failure => failure,
    };
    let authority = Authority::read(&read(&ca).map_err(with_hint)?, &read(&ca_key)?);
    let authority = authority.map_err(|error| match error {
        AuthorityError::Certificate(why) => Failure::Usage(format!("{}: {why}", ca.display())),
        AuthorityError::Key(why) => Failure::Usage(format!("{}: {why}", ca_key.display())),
    })?;
    Ok((authority, ca))
}

/// The two files of one certificate.
struct Files {
    cert_file: PathBuf,
    key_file: PathBuf,
}

impl Files {
    /// Their names.
    ///
    /// # Errors
    /// One of them is there and is not to be replaced; a stem that leads elsewhere.
    fn new(dir: &Path, stem: &str, replaces: bool) -> Result<Files, Failure> {
        if stem.is_empty() || stem.starts_with('.') || stem.contains('/') {
            return Err(Failure::Usage(format!("--name {stem:?} is not a name for files; --dir says where they are")));
        }
        let files =
            Files { cert_file: below(dir, &format!("{stem}.pem")), key_file: below(dir, &format!("{stem}-key.pem")) };
        for file in [&files.cert_file, &files.key_file] {
            if !replaces && is_there(file) {
                let file = file.display();
                return Err(Failure::Usage(format!("{file}: it is there already, and was left as it is; see --force")));
            }
        }
        Ok(files)
    }

    fn cert(&self) -> String {
        self.cert_file.display().to_string()
    }

    fn key(&self) -> String {
        self.key_file.display().to_string()
    }

    /// Both or none, as far as a disk can promise that: the first is named once the second is whole.
    fn write(&self, made: &Made) -> Result<(), Failure> {
        let mut key = PrivateFile::create(&self.key_file)?;
        let mut cert = PrivateFile::create_readable(&self.cert_file)?;
        key.write_all(made.key.as_bytes())?;
        cert.write_all(made.certificate.as_bytes())?;
        key.keep()?;
        cert.keep()
    }

    fn tell_json(&self, out: &mut dyn Write, made: &Made) -> Result<Exit, Failure> {
        let (cert, key, names, until) = (self.cert(), self.key(), &made.names, until(made));
        output::json(out, &json!({ "cert_file": cert, "key_file": key, "names": names, "until": until }))?;
        Ok(Exit::Done)
    }
}

fn until(made: &Made) -> String {
    format_rfc3339(made.ends, 0)
}

/// A file in a folder; here it has its bare name.
fn below(dir: &Path, name: &str) -> PathBuf {
    if dir == Path::new(".") { PathBuf::from(name) } else { dir.join(name) }
}

/// Whether there is anything of that name, were it a link to nowhere.
fn is_there(file: &Path) -> bool {
    fs::symlink_metadata(file).is_ok()
}

fn read(file: &Path) -> Result<String, Failure> {
    let wrong = |why: &dyn std::fmt::Display| Failure::Usage(format!("{}: {why}", file.display()));
    let bytes = fs::metadata(file).map_err(|error| wrong(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(wrong(&format!("{bytes} bytes are too many, at most {FILE_BYTES_MAX} are read")));
    }
    fs::read_to_string(file).map_err(|error| wrong(&error))
}

/// As a program in another folder finds it.
fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}
