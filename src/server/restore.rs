//! A snapshot that comes back: its bytes are gathered, unpacked and looked through as a whole, and only then carried
//! to every replica by the log (R1.95).
//!
//! One at a time. Until the last entry nothing is changed, so whatever fails before it has changed nothing. Knows
//! nothing of how the bytes come: a caller is the key of a source, and hears the end by `Server::restore_ended`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use log::Level;
use ring::digest::{SHA256, digest};

use crate::api::snapshot::{self, RESTORE_FAILED};
use crate::base::id::{CallId, Index};
use crate::base::metric::Id;
use crate::base::slab::Key;
use crate::base::time::Instant;
use crate::consensus::Resolution;
use crate::state::ApplyResult;
use crate::wire::archive::{self, MAX_ARCHIVE_BYTES, Meta};
use crate::wire::class::NO_LEADER;
use crate::wire::entry::Command;
use crate::wire::entry::restore::{RestoreBegin, RestoreChunk, RestoreEnd};
use crate::wire::msgpack::{Bytes, Msg, Scan, Scanner};
use crate::wire::streaming::StreamErrWrapper;

use super::Server;
use super::port::{Job, Output, Work};
use super::writing::Internal;

/// Bytes of the state in one entry.
const CHUNK_BYTES: usize = 512 * 1024;
/// Entries of a restore that are on their way at once.
const IN_FLIGHT: usize = 4;
/// An upload of which nothing comes for so long is given up.
pub(super) const UPLOAD_IDLE: Duration = Duration::from_secs(60);
/// The last frame of an upload says so in its error.
const LAST_FRAME: &str = "EOF";
const LOST: &str = "leadership lost while restoring the snapshot: nothing was changed";
const UNKNOWN: &str = "leadership lost while restoring the snapshot: whether it was restored is not known";

/// A restore: an HTTP status and a text for whoever asked, when it fails.
pub(super) type Restored<T> = Result<T, (u16, String)>;

/// A restore that is under way.
pub(super) struct Restore {
    /// Who hears the end, while it is there.
    caller: Option<Key>,
    phase: Phase,
}

enum Phase {
    /// The archive comes in.
    Receiving(Vec<u8>),
    /// It is looked through.
    Unpacking(CallId),
    /// The state goes into the log.
    Writing(Writing),
}

struct Writing {
    id: u64,
    unpacked: Arc<Unpacked>,
    begun: bool,
    offset: usize,
    in_flight: usize,
    ending: bool,
}

/// A whole state, as a snapshot holds it.
#[derive(PartialEq, Eq)]
pub struct Unpacked {
    /// Its bytes: they were read once and are a state.
    pub state: Vec<u8>,
    /// SHA-256 over them.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Unpacked {
    /// Says how much it is; never what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Unpacked({} bytes)", self.state.len())
    }
}

/// Reads an archive and the state in it to their ends, as a restore does: what it is of, and the state's bytes.
///
/// # Errors
/// Why it cannot be restored.
pub fn look_through(bytes: &[u8]) -> Result<(Meta, Vec<u8>), String> {
    if bytes.len() > MAX_ARCHIVE_BYTES {
        return Err(format!("snapshot is larger than {MAX_ARCHIVE_BYTES} bytes"));
    }
    let (meta, state) = archive::read(bytes).map_err(|error| error.to_string())?;
    let read = crate::state::snapshot::read(&state).map_err(|error| error.to_string())?;
    if read.index().0 != meta.index {
        return Err(format!("state is of index {}, not {}", read.index(), meta.index));
    }
    Ok((meta, state))
}

/// Unpacks an archive, and reads the state in it to its end.
///
/// # Errors
/// Why it cannot be restored, as the caller is told.
pub(super) fn unpack(bytes: &[u8]) -> Result<Unpacked, String> {
    let (_, state) = look_through(bytes).map_err(|error| format!("{RESTORE_FAILED}{error}"))?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, &state).as_ref());
    Ok(Unpacked { state, sha256 })
}

impl Server {
    /// Begins to gather an archive.
    ///
    /// # Errors
    /// Another restore is under way, or this server does not lead.
    pub(super) fn restore_begin(&mut self, caller: Key) -> Restored<()> {
        if self.restore.is_some() {
            return Err((429, "another snapshot is being restored".to_owned()));
        }
        if !self.ctx.is_leader {
            return Err((500, NO_LEADER.to_owned()));
        }
        self.restore = Some(Restore { caller: Some(caller), phase: Phase::Receiving(Vec::new()) });
        Ok(())
    }

    fn restore_of(&mut self, caller: Key) -> Option<&mut Restore> {
        self.restore.as_mut().filter(|restore| restore.caller == Some(caller))
    }

    /// Takes the next bytes of it.
    ///
    /// # Errors
    /// More than [`MAX_ARCHIVE_BYTES`]: the restore is over.
    pub(super) fn restore_bytes(&mut self, caller: Key, bytes: &[u8]) -> Restored<()> {
        let Some(Restore { phase: Phase::Receiving(held), .. }) = self.restore_of(caller) else { return Ok(()) };
        if held.len() + bytes.len() > MAX_ARCHIVE_BYTES {
            self.restore = None;
            return Err((413, format!("{RESTORE_FAILED}snapshot is larger than {MAX_ARCHIVE_BYTES} bytes")));
        }
        held.extend_from_slice(bytes);
        Ok(())
    }

    /// All of it is there: looks through it, then has it restored. The end comes by `Server::restore_ended`.
    pub(super) fn restore_end(&mut self, caller: Key) {
        self.next_group_job -= 1;
        let id = CallId(self.next_group_job);
        let Some(restore) = self.restore_of(caller) else { return };
        let Phase::Receiving(bytes) = &mut restore.phase else { return };
        let archive = Arc::new(std::mem::take(bytes));
        restore.phase = Phase::Unpacking(id);
        self.fresh_ctx(false);
        let work = Work::Restore { archive };
        let job = Job { id, work, caller: self.own_caller(), ctx: Arc::new(self.ctx.clone()) };
        self.output(Output::Run(job));
    }

    /// The caller is gone, or gave up. What is all there is restored all the same.
    pub(super) fn restore_abandoned(&mut self, caller: Key) {
        let Some(restore) = self.restore_of(caller) else { return };
        restore.caller = None;
        if matches!(restore.phase, Phase::Receiving(_)) {
            self.restore = None;
        }
    }

    /// Whether the archive is all there, and the caller waits for the end.
    pub(super) fn restore_is_running(&mut self, caller: Key) -> bool {
        self.restore_of(caller).is_some_and(|restore| !matches!(restore.phase, Phase::Receiving(_)))
    }

    pub(super) fn is_restore_job(&self, job: CallId) -> bool {
        matches!(self.restore, Some(Restore { phase: Phase::Unpacking(id), .. }) if id == job)
    }

    /// The archive was looked through.
    pub(super) fn on_unpacked(&mut self, now: Instant, result: Result<Arc<Unpacked>, String>) {
        let id = self.rng.next_u64();
        let Some(restore) = self.restore.as_mut().filter(|restore| matches!(restore.phase, Phase::Unpacking(_))) else {
            return;
        };
        match result {
            Ok(unpacked) => {
                restore.phase =
                    Phase::Writing(Writing { id, unpacked, begun: false, offset: 0, in_flight: 0, ending: false });
                self.write_restore();
            }
            Err(text) => self.end_restore(now, Err((500, text))),
        }
    }

    /// Hands the next entries over.
    fn write_restore(&mut self) {
        let Some(Restore { phase: Phase::Writing(writing), .. }) = &mut self.restore else { return };
        let (id, unpacked) = (writing.id, Arc::clone(&writing.unpacked));
        let mut commands = Vec::new();
        if !writing.begun {
            writing.begun = true;
            commands.push(Command::RestoreBegin(RestoreBegin { id, total_bytes: unpacked.state.len() as u64 }));
        }
        while writing.in_flight + commands.len() < IN_FLIGHT && writing.offset < unpacked.state.len() {
            let end = unpacked.state.len().min(writing.offset + CHUNK_BYTES);
            let bytes = Bytes(unpacked.state[writing.offset..end].to_vec());
            commands.push(Command::RestoreChunk(RestoreChunk { id, offset: writing.offset as u64, bytes }));
            writing.offset = end;
        }
        writing.in_flight += commands.len();
        // Whatever came before it is known to be there.
        if writing.in_flight == 0 && !writing.ending {
            writing.ending = true;
            writing.in_flight = 1;
            commands.push(Command::RestoreEnd(RestoreEnd { id, sha256: Bytes(unpacked.sha256.to_vec()) }));
        }
        for command in commands {
            self.propose_internal(command, Internal::Restore(id));
        }
    }

    /// What became of one of its entries.
    pub(super) fn on_restore_resolved(&mut self, now: Instant, id: u64, resolution: Resolution) {
        let Some(Restore { phase: Phase::Writing(writing), .. }) = &mut self.restore else { return };
        if writing.id != id {
            return;
        }
        writing.in_flight -= 1;
        let ending = writing.ending;
        match resolution {
            Resolution::Applied { result: ApplyResult::Refused(why), .. } => {
                self.end_restore(now, Err((500, format!("{RESTORE_FAILED}{why}"))));
            }
            Resolution::Applied { index, .. } if ending => self.end_restore(now, Ok(index)),
            Resolution::Applied { .. } => self.write_restore(),
            Resolution::Unknown if ending => self.end_restore(now, Err((500, UNKNOWN.to_owned()))),
            Resolution::NotLeader | Resolution::Unknown => self.end_restore(now, Err((500, LOST.to_owned()))),
            Resolution::Rejected(text) => self.end_restore(now, Err((500, format!("{RESTORE_FAILED}{text}")))),
        }
    }

    fn end_restore(&mut self, now: Instant, result: Restored<Index>) {
        let Some(restore) = self.restore.take() else { return };
        match &result {
            Ok(index) => {
                self.metrics.count(Id::SnapshotRestored);
                let nodes = self.root.load().node_count();
                self.log(Level::Info, format!("snapshot restored: index={index} nodes={nodes}"));
                // Nodes are others, keys may be: as if leadership began.
                self.heartbeats.clear_all();
                if self.ctx.is_leader {
                    self.begin_to_lead(now);
                }
            }
            Err((_, text)) => self.log(Level::Warn, format!("snapshot not restored: error={text:?}")),
        }
        if let Some(caller) = restore.caller {
            self.restore_ended(now, caller, result);
        }
    }

    /// Tells the caller the end, by the source that the archive came by.
    pub(super) fn restore_ended(&mut self, now: Instant, caller: Key, result: Restored<Index>) {
        let message = match result {
            Ok(index) => {
                self.fresh_ctx(false);
                snapshot::restored(&self.ctx, index.0)
            }
            Err((code, text)) => snapshot::response(code, &text),
        };
        self.send_last(now, caller, message.into());
    }

    // Frames, as they come by RPC.

    /// More of the frames of an upload.
    pub(super) fn on_upload(&mut self, now: Instant, caller: Key, upload: &mut Upload, bytes: &[u8]) {
        if upload.ended {
            return;
        }
        let max_bytes = self.settings.conn.max_message_bytes;
        upload.held.extend_from_slice(bytes);
        loop {
            let frame = match upload.next_frame(max_bytes) {
                Ok(None) => return,
                Ok(Some(frame)) => frame,
                Err(text) => return self.give_up_upload(now, caller, upload, 400, &text),
            };
            match frame.error {
                Some(error) if error.message == LAST_FRAME => {
                    upload.ended = true;
                    upload.held = Vec::new();
                    return self.restore_end(caller);
                }
                Some(error) => return self.give_up_upload(now, caller, upload, 400, &error.message),
                None => {
                    let payload = frame.payload.unwrap_or_default();
                    if let Err((code, text)) = self.restore_bytes(caller, &payload.0) {
                        return self.give_up_upload(now, caller, upload, code, &text);
                    }
                }
            }
        }
    }

    /// Nothing came of an upload for too long.
    pub(super) fn on_upload_due(&mut self, now: Instant, caller: Key, upload: &mut Upload) {
        if !upload.ended {
            let text = format!("{RESTORE_FAILED}nothing of it came for {UPLOAD_IDLE:?}");
            self.give_up_upload(now, caller, upload, 408, &text);
        }
    }

    /// The sender closed its half: what is not all there by now never will be.
    pub(super) fn on_upload_finished(&mut self, now: Instant, caller: Key, upload: &mut Upload) {
        if !upload.ended {
            let text = format!("{RESTORE_FAILED}unexpected EOF");
            self.give_up_upload(now, caller, upload, 400, &text);
        }
    }

    /// More of an archive that comes as it is, without frames.
    pub(super) fn on_archive(&mut self, now: Instant, caller: Key, upload: &mut Upload, bytes: &[u8]) {
        if upload.ended {
            return;
        }
        if let Err((code, text)) = self.restore_bytes(caller, bytes) {
            self.give_up_upload(now, caller, upload, code, &text);
        }
    }

    /// All of such an archive is there.
    pub(super) fn on_archive_finished(&mut self, caller: Key, upload: &mut Upload) {
        if !std::mem::replace(&mut upload.ended, true) {
            self.restore_end(caller);
        }
    }

    /// The caller hears why, and nothing is changed.
    pub(super) fn give_up_upload(&mut self, now: Instant, caller: Key, upload: &mut Upload, code: u16, text: &str) {
        upload.ended = true;
        upload.held = Vec::new();
        self.restore_abandoned(caller);
        self.restore_ended(now, caller, Err((code, text.to_owned())));
    }
}

/// The frames of an upload.
#[derive(Default)]
pub(super) struct Upload {
    held: Vec<u8>,
    /// Bytes of these that were frames.
    used: usize,
    scanner: Scanner,
    /// The last frame was seen, or the upload was given up: what still comes means nothing.
    pub(super) ended: bool,
}

impl Upload {
    /// The next frame, once all of it is there.
    fn next_frame(&mut self, max_bytes: usize) -> Result<Option<StreamErrWrapper>, String> {
        let wrong = |error: &dyn fmt::Display| format!("{RESTORE_FAILED}{error}");
        let rest = self.held.get(self.used..).unwrap_or_default();
        let len = match self.scanner.scan(rest, max_bytes).map_err(|error| wrong(&error))? {
            Scan::Partial => {
                self.held.drain(..std::mem::take(&mut self.used));
                return Ok(None);
            }
            Scan::Complete(len) => len,
        };
        self.scanner = Scanner::default();
        let frame = StreamErrWrapper::from_bytes(&rest[..len]).map_err(|error| wrong(&error))?;
        self.used += len;
        Ok(Some(frame))
    }
}
