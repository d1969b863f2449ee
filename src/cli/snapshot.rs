//! `holdfast operator snapshot`: save, inspect, restore.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use ring::digest;
use serde_json::json;

use crate::cli::args::SnapshotCommand;
use crate::cli::output;
use crate::cli::private_file::PrivateFile;
use crate::cli::{Context, Exit, Failure, read_bytes};
use crate::state;
use crate::wire::archive;
use crate::wire::body::operator::SnapshotSaveResponse;
use crate::wire::json::push_base64;
use crate::wire::msgpack::{Bytes, Msg};
use crate::wire::streaming::{StreamErrWrapper, StreamError};

/// A server packs the snapshot before it says a word.
const PACKING_TIME_MAX: Duration = Duration::from_secs(600);
/// Without a byte for this long the transfer has failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Bytes of one piece of a transfer.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes between two words about progress.
const PROGRESS_BYTES: u64 = 16 * 1024 * 1024;

/// Runs one of them.
///
/// # Errors
/// The client's, files', and whatever is wrong with an archive.
pub(crate) fn run(context: &Context, out: &mut dyn Write, command: &SnapshotCommand) -> Result<Exit, Failure> {
    match command {
        SnapshotCommand::Save { stale, file } => save(context, out, *stale, file),
        SnapshotCommand::Inspect { file } => inspect(context, out, file),
        SnapshotCommand::Restore { file } => restore(context, out, file),
    }
}

/// Tells a person who waits how far it is.
struct Progress {
    shown: bool,
    bytes: u64,
    told: u64,
}

impl Progress {
    fn new(context: &Context) -> Progress {
        Progress { shown: context.tells_progress && !context.json, bytes: 0, told: 0 }
    }

    #[allow(clippy::print_stderr)]
    fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.shown && self.bytes - self.told >= PROGRESS_BYTES {
            self.told = self.bytes;
            eprint!("\r{} MiB", self.bytes >> 20);
        }
    }

    #[allow(clippy::print_stderr)]
    fn end(&self) {
        if self.told > 0 {
            eprintln!("\r{} MiB", self.bytes >> 20);
        }
    }
}

fn save(context: &Context, out: &mut dyn Write, stale: bool, file: &Path) -> Result<Exit, Failure> {
    let mut query = context.query();
    query.allow_stale = stale;
    let mut stream = context.client().stream("Operator.SnapshotSave", &query)?;
    let head = stream.next(PACKING_TIME_MAX)?.ok_or_else(|| Failure::Lost("the server said nothing".to_owned()))?;
    let head = SnapshotSaveResponse::from_bytes(&head)
        .map_err(|error| Failure::Other(format!("answer cannot be read: {error}")))?;
    refused(&head)?;
    // Whole or not at all: it has its name only once its sum is right.
    let mut to = if file.as_os_str() == "-" { None } else { Some(PrivateFile::create(file)?) };
    let mut sum = digest::Context::new(&digest::SHA256);
    let mut progress = Progress::new(context);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let len = stream.read(&mut piece, SILENCE_MAX)?;
        let Some(bytes) = piece.get(..len).filter(|bytes| !bytes.is_empty()) else { break };
        sum.update(bytes);
        match &mut to {
            Some(to) => to.write_all(bytes)?,
            None => out.write_all(bytes)?,
        }
        progress.add(len);
    }
    progress.end();
    let mut text = "sha-256=".to_owned();
    push_base64(sum.finish().as_ref(), &mut text);
    if text != head.snapshot_checksum {
        return Err(Failure::Lost("the snapshot came damaged or cut short, and was not kept: try again".to_owned()));
    }
    let Some(to) = to else { return Ok(Exit::Done) };
    to.keep()?;
    if context.json {
        let value = json!({"file": file, "bytes": progress.bytes, "index": head.meta.index, "checksum": text});
        output::json(out, &value)?;
    } else {
        writeln!(out, "Saved {} bytes, index {}, to {}", progress.bytes, head.meta.index, file.display())?;
    }
    Ok(Exit::Done)
}

fn refused(head: &SnapshotSaveResponse) -> Result<(), Failure> {
    if head.error_code == 0 && head.error_msg.is_empty() {
        return Ok(());
    }
    Err(Failure::Other(head.error_msg.clone()))
}

/// A file that is no whole snapshot of ours is a wrong file.
fn wrong(file: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::Usage(format!("{}: {why}", file.display()))
}

fn inspect(context: &Context, out: &mut dyn Write, file: &Path) -> Result<Exit, Failure> {
    let bytes = read_bytes(file)?;
    let (meta, state) = archive::read(&bytes).map_err(|error| wrong(file, &error))?;
    let held = state::snapshot::read(&state).map_err(|error| wrong(file, &error))?;
    let figures = [
        ("Nodes", held.node_count()),
        ("Variables", held.var_count()),
        ("Locks", held.lock_count()),
        ("Tokens", held.tokens_from("").count()),
        ("Policies", held.policies_from("").count()),
        ("Namespaces", held.namespaces_from("").count()),
    ];
    let keys: Vec<String> = held.signing_keys().iter().map(|key| key.key_id.clone()).collect();
    if context.json {
        let counts: serde_json::Map<String, serde_json::Value> =
            figures.iter().map(|(name, count)| (name.to_lowercase(), json!(count))).collect();
        let value = json!({
            "id": meta.id, "index": meta.index, "term": meta.term, "state_bytes": state.len(),
            "archive_bytes": bytes.len(), "holds": counts, "keys": keys,
        });
        output::json(out, &value)?;
        return Ok(Exit::Done);
    }
    let mut pairs = vec![
        ("ID", output::clean(&meta.id)),
        ("Index", meta.index.to_string()),
        ("Term", meta.term.to_string()),
        ("Bytes", format!("{} ({} packed)", state.len(), bytes.len())),
    ];
    pairs.extend(figures.iter().map(|(name, count)| (*name, count.to_string())));
    // Without these keys its variables cannot be read.
    pairs.push(("Needs keys", output::or_dash(&keys.join(", "))));
    output::pairs(out, &pairs)?;
    Ok(Exit::Done)
}

fn restore(context: &Context, out: &mut dyn Write, file: &Path) -> Result<Exit, Failure> {
    let bytes = read_bytes(file)?;
    // What cannot be read here is not sent.
    archive::read(&bytes).map_err(|error| wrong(file, &error))?;
    let mut stream = context.client().stream("Operator.SnapshotRestore", &context.write())?;
    let mut progress = Progress::new(context);
    let mut sent = Ok(());
    for piece in bytes.chunks(PIECE_BYTES) {
        let frame = StreamErrWrapper { error: None, payload: Some(Bytes(piece.to_vec())) };
        sent = stream.send_within(&frame.to_bytes(), SILENCE_MAX);
        if sent.is_err() {
            break;
        }
        progress.add(piece.len());
    }
    progress.end();
    let end = StreamErrWrapper { error: Some(StreamError { message: "EOF".to_owned(), code: None }), payload: None };
    let sent = sent.and_then(|()| stream.send_within(&end.to_bytes(), SILENCE_MAX));
    // A server that takes no more has said why, most likely.
    let reply = match (stream.next(PACKING_TIME_MAX), sent) {
        (Ok(Some(reply)), _) => reply,
        (_, Err(error)) | (Err(error), Ok(())) => return Err(error.into()),
        (Ok(None), Ok(())) => return Err(Failure::Lost("the server said nothing".to_owned())),
    };
    let reply = SnapshotSaveResponse::from_bytes(&reply)
        .map_err(|error| Failure::Other(format!("answer cannot be read: {error}")))?;
    refused(&reply)?;
    context.done(out, "Restored", &file.display().to_string(), reply.meta.index)
}
