//! `holdfast operator debug`: one archive with what support wants to know of servers (R8.26), and no secret in it.
//!
//! What cannot be had is an entry in the archive's index, not the end of the command.

mod bundle;
mod collect;
mod host;
mod redact;

use std::io::Write;
use std::path::PathBuf;
use std::thread;

use serde_json::json;

use crate::cli::args::DebugArgs;
use crate::cli::output;
use crate::cli::private_file::PrivateFile;
use crate::cli::server::rpc_address;
use crate::cli::{Context, Exit, Failure};
use crate::client;
use crate::edge::clock;
use crate::wire::body::query::GenericRequest;
use crate::wire::body::status::{Member, ServerMembersResponse};

use self::bundle::{Bundle, Content, Item};
use self::collect::{Listening, Target};

/// Servers that are asked at most, side by side.
const SERVERS_MAX: usize = 32;
/// Characters of a server's name in its folder: names in an archive are short.
const FOLDER_CHARS_MAX: usize = 40;

/// Asks and writes. Exit 3 when no server answered: the archive is written all the same.
///
/// # Errors
/// A file that cannot be written, and a server that is meant and not known.
pub(crate) fn run(context: &Context, out: &mut dyn Write, args: &DebugArgs) -> Result<Exit, Failure> {
    let began = clock::wall();
    let file = args.out.clone().unwrap_or_else(|| default_name(&began.rfc3339()));
    let members = context.client().call("Status.Members", &GenericRequest { query: context.query() });
    let targets = match &members {
        Ok(members) => targets(members, &args.servers)?,
        // It is there, and does not say to everybody who the others are.
        Err(client::Error::Answered { .. }) => asked_alone(context),
        Err(_) => Vec::new(),
    };
    let mut to = PrivateFile::create(&file)?;
    let mut bundle = Bundle::new(vec![context.token.clone()]);
    bundle.add(Item {
        file: "host.json".to_owned(),
        source: "this machine".to_owned(),
        content: Ok(Content::Json(host::facts())),
    });
    if let Err(error) = &members {
        let (file, source) = ("servers".to_owned(), "Status.Members".to_owned());
        bundle.add(Item { file, source, content: Err(error.to_string()) });
    }
    let listening = Listening { duration: args.duration, level: args.log_level.clone() };
    for item in collect_all(context, &targets, &listening) {
        bundle.add(item);
    }
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"), "commit": option_env!("HOLDFAST_COMMIT").unwrap_or("unknown"),
        "began": began.rfc3339(), "ended": clock::wall().rfc3339(), "address": context.settings.address,
        "region": context.region, "log_level": args.log_level, "servers": targets.iter().map(|one| &one.rpc).collect::<Vec<_>>(),
    });
    bundle.add(Item {
        file: "client.json".to_owned(),
        source: "this program".to_owned(),
        content: Ok(Content::Json(about)),
    });
    let (files, missing) = bundle.counts();
    let bytes = bundle.pack(u64::try_from(began.unix_seconds()).unwrap_or(0)).map_err(Failure::Other)?;
    to.write_all(&bytes)?;
    to.keep()?;
    if context.json {
        output::json(out, &json!({ "file": file, "bytes": bytes.len(), "files": files, "missing": missing }))?;
    } else {
        writeln!(
            out,
            "Wrote {} files of {} servers, {} bytes, to {}",
            files,
            targets.len(),
            bytes.len(),
            file.display()
        )?;
        if missing > 0 {
            writeln!(out, "{missing} things could not be had; index.json in it says why")?;
        }
    }
    Ok(if targets.is_empty() { Exit::Unreachable } else { Exit::Done })
}

/// Servers and the cluster, side by side.
fn collect_all(context: &Context, targets: &[Target], listening: &Listening) -> Vec<Item> {
    thread::scope(|scope| {
        let asked: Vec<_> =
            targets.iter().map(|one| scope.spawn(move || collect::server(context, one, listening))).collect();
        let mut items = if targets.is_empty() { Vec::new() } else { collect::cluster(context) };
        for (one, target) in asked.into_iter().zip(targets) {
            items.extend(one.join().unwrap_or_else(|_| {
                let (file, source) = (target.folder.clone(), target.rpc.clone());
                vec![Item { file, source, content: Err("asking it ended early".to_owned()) }]
            }));
        }
        items
    })
}

/// The servers that the command line names.
fn asked_alone(context: &Context) -> Vec<Target> {
    let target = |(nth, address): (usize, &str)| Target {
        folder: format!("servers/{:02}-{}", nth + 1, folder_name(address)),
        rpc: address.to_owned(),
        http: String::new(),
    };
    context.settings.addresses().into_iter().take(SERVERS_MAX).enumerate().map(target).collect()
}

/// The servers that are meant: all, or those named by name or address.
fn targets(members: &ServerMembersResponse, wanted: &[String]) -> Result<Vec<Target>, Failure> {
    let name = |member: &Member| {
        member.name.strip_suffix(&format!(".{}", members.server_region)).unwrap_or(&member.name).to_owned()
    };
    let means =
        |one: &String, member: &Member| *one == member.name || *one == name(member) || *one == rpc_address(member);
    if let Some(unknown) = wanted.iter().find(|one| !members.members.iter().any(|member| means(one, member))) {
        let known: Vec<String> = members.members.iter().map(name).collect();
        return Err(Failure::Usage(format!("--servers {unknown:?}: no such server; there are {}", known.join(", "))));
    }
    let chosen =
        members.members.iter().filter(|member| wanted.is_empty() || wanted.iter().any(|one| means(one, member)));
    let target = |(nth, member): (usize, &Member)| Target {
        folder: format!("servers/{:02}-{}", nth + 1, folder_name(&name(member))),
        rpc: rpc_address(member),
        http: member.tags.get("http_addr").cloned().unwrap_or_default(),
    };
    Ok(chosen.take(SERVERS_MAX).enumerate().map(target).collect())
}

/// A name that leads nowhere else.
fn folder_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' };
    name.chars().map(plain).take(FOLDER_CHARS_MAX).collect()
}

/// Named by the time, which no later run has.
fn default_name(rfc3339: &str) -> PathBuf {
    let seconds = rfc3339.split('.').next().unwrap_or(rfc3339);
    let plain: String = seconds.chars().filter(|c| c.is_ascii_digit() || *c == 'T').collect();
    PathBuf::from(format!("holdfast-debug-{plain}Z.tar.gz"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::msgpack::Bytes;

    #[test]
    fn servers_are_meant_by_name_or_address() {
        let member = |nth: u8| Member {
            name: format!("hf{nth}.global"),
            addr: Bytes(vec![10, 0, 0, nth]),
            tags: [("port", "4647"), ("http_addr", "10.0.0.9:4646")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            ..Member::default()
        };
        let members = (1..=3).map(member).collect();
        let known =
            ServerMembersResponse { server_region: "global".into(), members, ..ServerMembersResponse::default() };
        let chosen = |wanted: &[&str]| -> Vec<String> {
            let wanted: Vec<String> = wanted.iter().map(|one| (*one).to_owned()).collect();
            targets(&known, &wanted).unwrap().into_iter().map(|one| one.rpc).collect()
        };
        assert_eq!(chosen(&[]).len(), 3);
        assert_eq!(chosen(&["hf2", "10.0.0.3:4647"]), ["10.0.0.2:4647", "10.0.0.3:4647"]);
        assert_eq!(chosen(&["hf1.global"]), ["10.0.0.1:4647"]);
        assert!(matches!(targets(&known, &["hf9".to_owned()]), Err(Failure::Usage(_))));
    }

    #[test]
    fn names_in_the_archive_are_tame() {
        assert_eq!(folder_name("../a b/ä"), "___a_b__");
        assert_eq!(folder_name(&"x".repeat(200)).len(), FOLDER_CHARS_MAX);
        assert_eq!(default_name("2026-11-22T04:05:06.789Z"), PathBuf::from("holdfast-debug-20261122T040506Z.tar.gz"));
        assert_eq!(default_name("2026-11-22T04:05:06Z"), PathBuf::from("holdfast-debug-20261122T040506Z.tar.gz"));
    }
}
