//! A snapshot as operators keep it: gzip of a tar of `meta.json`, `state.bin` and `SHA256SUMS`, nothing else.
//!
//! The envelope is Nomad's (`helper/snapshot`), so that `nomad operator snapshot inspect` reads it; the state in it is
//! holdfast's own, and a foreign one is refused. Never looks into the state. The same state gives the same bytes: no
//! time and no name of a machine is in the envelope. Source: endpoint notes, section 5; POSIX.1-1988 (ustar);
//! RFC 1952 (gzip).

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

/// What `meta.json` names as its `Format`.
pub const FORMAT: &str = "holdfast-1";

/// What it names as its `Version`: a number, as Nomad's tools want one, and none that Raft's snapshots have.
pub const VERSION: u64 = 4801;

/// A longer archive is not taken, bytes.
pub const MAX_ARCHIVE_BYTES: usize = 1024 * 1024 * 1024;

/// A longer state is neither packed nor unpacked, bytes.
pub const MAX_STATE_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// `meta.json` and `SHA256SUMS` are no longer, bytes.
const MAX_SMALL_BYTES: u64 = 1024 * 1024;
/// Bytes of a name in a tar.
const NAME_BYTES_MAX: usize = 100;
/// The greatest number in eleven octal digits; no state is that long.
const OCTAL_MAX: u64 = (1 << 33) - 1;
/// Bytes of a tar block.
const BLOCK: usize = 512;
/// Zeros after the end of a tar, at most, bytes: some writers fill a record of 10 KiB.
const MAX_END_BYTES: u64 = 64 * 1024;
/// Bytes of one piece of a written archive, about.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes that are unpacked at a time.
const STEP_BYTES: u64 = 256 * 1024;
/// Bytes of the head of a gzip member that has no extra fields.
const GZIP_HEAD_BYTES: usize = 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

const META: &str = "meta.json";
const STATE: &str = "state.bin";
const SUMS: &str = "SHA256SUMS";

/// `meta.json`: what a snapshot is of. Named as the fields of Raft's snapshots are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Meta {
    /// [`VERSION`].
    pub version: u64,
    /// [`FORMAT`].
    pub format: String,
    /// Names the snapshot.
    #[serde(rename = "ID")]
    pub id: String,
    /// The last entry it holds.
    pub index: u64,
    /// The term it was saved in.
    pub term: u64,
    /// Always null.
    pub peers: Option<String>,
    /// The servers.
    pub configuration: Configuration,
    /// Always 0.
    pub configuration_index: u64,
    /// Bytes of `state.bin`.
    pub size: u64,
}

/// The servers of a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Configuration {
    /// All of them.
    pub servers: Vec<Server>,
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Server {
    /// 0 with a vote, 1 without.
    pub suffrage: u64,
    /// A UUID.
    #[serde(rename = "ID")]
    pub id: String,
    /// `ip:port`.
    pub address: String,
}

/// A written archive.
#[derive(Clone, PartialEq, Eq)]
pub struct Archive {
    /// Its bytes, in order.
    pub pieces: Vec<Arc<[u8]>>,
    /// SHA-256 over all of them.
    pub sha256: [u8; 32],
}

impl fmt::Debug for Archive {
    /// Says how much it is; never what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Archive({} pieces)", self.pieces.len())
    }
}

/// Why an archive was not read, or not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// The outer layer does not begin as gzip does.
    Decompress(&'static str),
    /// It cannot be read to its end.
    Read(String),
    /// Its parts are not what its sums say.
    Integrity(String),
    /// `meta.json` cannot be read.
    Metadata(String),
    /// Another program's, or a later version's.
    Foreign(String),
    /// The state is too long, bytes at most.
    TooLarge(u64),
}

impl fmt::Display for ArchiveError {
    /// In the words of the peers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArchiveError::Decompress(what) => write!(f, "failed to decompress snapshot: {what}"),
            ArchiveError::Read(what) => write!(f, "failed to read snapshot file: {what}"),
            ArchiveError::Integrity(what) => write!(f, "failed checking integrity of snapshot: {what}"),
            ArchiveError::Metadata(what) => write!(f, "failed to decode snapshot metadata: {what}"),
            ArchiveError::Foreign(what) => write!(f, "snapshot is not of holdfast: {what}"),
            ArchiveError::TooLarge(max) => write!(f, "state in snapshot is larger than {max} bytes"),
        }
    }
}

impl std::error::Error for ArchiveError {}

// Writing.

/// Packs a state. `state` gives its chunks, the same ones each time it is asked: it is asked twice, so that the whole
/// need not be held. `Version`, `Format` and `Size` of the meta are filled in here.
///
/// # Errors
/// A state above [`MAX_STATE_BYTES`].
pub fn write<C: Iterator<Item = Vec<u8>>>(meta: Meta, state: impl Fn() -> C) -> Result<Archive, ArchiveError> {
    let (mut size, mut state_sum) = (0u64, Context::new(&SHA256));
    for chunk in state() {
        size = size.saturating_add(chunk.len() as u64);
        state_sum.update(&chunk);
    }
    if size > MAX_STATE_BYTES {
        return Err(ArchiveError::TooLarge(MAX_STATE_BYTES));
    }
    let meta = Meta { version: VERSION, format: FORMAT.to_owned(), size, ..meta };
    let meta = serde_json::to_vec(&meta).map_err(|error| ArchiveError::Metadata(error.to_string()))?;
    let mut meta_sum = Context::new(&SHA256);
    meta_sum.update(&meta);
    let sums = format!("{}  {META}\n{}  {STATE}\n", hex(meta_sum), hex(state_sum));

    let mut out = GzEncoder::new(Pieces::default(), Compression::fast());
    let mut put = |bytes: &[u8]| out.write_all(bytes).expect("memory takes every byte");
    put(&header(META, meta.len() as u64));
    put(&meta);
    put(padding(meta.len() as u64));
    put(&header(STATE, size));
    for chunk in state() {
        put(&chunk);
    }
    put(padding(size));
    put(&header(SUMS, sums.len() as u64));
    put(sums.as_bytes());
    put(padding(sums.len() as u64));
    put(&[0; 2 * BLOCK]);
    Ok(out.finish().expect("memory takes every byte").end())
}

/// Packs plain files of any kind, for people to unpack: gzip of a tar, each file for its owner only and of this time.
/// Names are paths of at most 100 bytes.
///
/// # Errors
/// A name that is longer, or empty.
pub fn pack(files: &[(String, Vec<u8>)], unix_seconds: u64) -> Result<Vec<u8>, ArchiveError> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    let mut put = |bytes: &[u8]| out.write_all(bytes).expect("memory takes every byte");
    for (name, content) in files {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Err(ArchiveError::Metadata(format!("{name:?} is no name for a file in an archive")));
        }
        put(&header_at(name, content.len() as u64, unix_seconds));
        put(content);
        put(padding(content.len() as u64));
    }
    put(&[0; 2 * BLOCK]);
    Ok(out.finish().expect("memory takes every byte"))
}

/// Takes bytes and keeps them in pieces.
struct Pieces {
    pieces: Vec<Arc<[u8]>>,
    open: Vec<u8>,
    sum: Context,
}

impl Default for Pieces {
    fn default() -> Pieces {
        Pieces { pieces: Vec::new(), open: Vec::new(), sum: Context::new(&SHA256) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sum.update(bytes);
        self.open.extend_from_slice(bytes);
        if self.open.len() >= PIECE_BYTES {
            self.pieces.push(std::mem::take(&mut self.open).into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Pieces {
    fn end(mut self) -> Archive {
        if !self.open.is_empty() {
            self.pieces.push(self.open.into());
        }
        Archive { pieces: self.pieces, sha256: bytes_of(self.sum) }
    }
}

fn bytes_of(sum: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(sum.finish().as_ref());
    bytes
}

fn hex(sum: Context) -> String {
    bytes_of(sum).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of a plain file, for its owner only, of no time.
fn header(name: &str, size: u64) -> [u8; BLOCK] {
    header_at(name, size, 0)
}

/// The same of a time.
fn header_at(name: &str, size: u64, unix_seconds: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", size.min(OCTAL_MAX)));
    put(136, &format!("{:011o}\0", unix_seconds.min(OCTAL_MAX)));
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The sum of a header's bytes, its own place taken for spaces.
fn checksum(block: &[u8; BLOCK]) -> u64 {
    let byte = |(at, byte): (usize, &u8)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte });
    block.iter().enumerate().map(byte).sum()
}

/// Zeros up to the next block.
fn padding(size: u64) -> &'static [u8] {
    const ZEROS: [u8; BLOCK] = [0; BLOCK];
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 { &[] } else { &ZEROS[over..] }
}

// Reading.

/// Unpacks an archive: what it is of, and the state. Every sum in it was checked.
///
/// # Errors
/// Anything but what [`write()`] writes; nothing of it is worth a use then.
pub fn read(bytes: &[u8]) -> Result<(Meta, Vec<u8>), ArchiveError> {
    read_within(bytes, MAX_STATE_BYTES)
}

fn read_within(bytes: &[u8], max_state_bytes: u64) -> Result<(Meta, Vec<u8>), ArchiveError> {
    match bytes {
        [] => return Err(ArchiveError::Decompress("EOF")),
        short if short.len() < GZIP_HEAD_BYTES => return Err(ArchiveError::Decompress("unexpected EOF")),
        other if !other.starts_with(&GZIP_MAGIC) => return Err(ArchiveError::Decompress("gzip: invalid header")),
        _ => {}
    }
    let mut tar = Tar { gzip: GzDecoder::new(bytes) };
    let mut files = Files::default();
    while let Some((name, size)) = tar.next_header()? {
        let (place, max) = match name.as_str() {
            META => (&mut files.meta, MAX_SMALL_BYTES),
            STATE => (&mut files.state, max_state_bytes),
            SUMS => (&mut files.sums, MAX_SMALL_BYTES),
            _ => return Err(ArchiveError::Read(format!("unexpected file {name:?} in snapshot"))),
        };
        if place.is_some() {
            return Err(ArchiveError::Read(format!("file {name:?} comes twice in snapshot")));
        }
        if size > max {
            return Err(if name == STATE {
                ArchiveError::TooLarge(max)
            } else {
                ArchiveError::Read(format!("file {name:?} is larger than {max} bytes"))
            });
        }
        *place = Some(tar.content(size)?);
    }
    tar.end()?;
    files.check()
}

/// The three files, with the sums of what came.
#[derive(Default)]
struct Files {
    meta: Option<(Vec<u8>, String)>,
    state: Option<(Vec<u8>, String)>,
    sums: Option<(Vec<u8>, String)>,
}

impl Files {
    fn check(self) -> Result<(Meta, Vec<u8>), ArchiveError> {
        let missing = |name: &str| ArchiveError::Integrity(format!("file missing for {name:?}"));
        let (meta, meta_sum) = self.meta.ok_or_else(|| missing(META))?;
        let (state, state_sum) = self.state.ok_or_else(|| missing(STATE))?;
        let (sums, _) = self.sums.ok_or_else(|| missing(SUMS))?;
        let sums = String::from_utf8(sums).map_err(|_| ArchiveError::Integrity("sums are no text".to_owned()))?;
        let mut said: Vec<(&str, &str)> = Vec::new();
        for line in sums.lines() {
            let (sum, name) = line
                .split_once("  ")
                .ok_or_else(|| ArchiveError::Integrity(format!("a line of the sums is malformed: {line:?}")))?;
            if name != META && name != STATE || said.iter().any(|(known, _)| *known == name) {
                return Err(ArchiveError::Integrity(format!("a sum too many for {name:?}")));
            }
            said.push((name, sum));
        }
        for (name, is) in [(META, &meta_sum), (STATE, &state_sum)] {
            match said.iter().find(|(known, _)| *known == name) {
                None => return Err(ArchiveError::Integrity(format!("list missing hash for {name:?}"))),
                Some((_, sum)) if !sum.eq_ignore_ascii_case(is) => {
                    return Err(ArchiveError::Integrity(format!("hash check failed for {name:?}")));
                }
                Some(_) => {}
            }
        }
        let meta: Meta = serde_json::from_slice(&meta).map_err(|error| ArchiveError::Metadata(error.to_string()))?;
        if meta.format != FORMAT || meta.version != VERSION {
            let what = match meta.format.as_str() {
                "" => format!("its version is {}, known is {FORMAT} only", meta.version),
                other => {
                    format!("its format is {other:?} version {}, known is {FORMAT} version {VERSION}", meta.version)
                }
            };
            return Err(ArchiveError::Foreign(what));
        }
        if meta.size != state.len() as u64 {
            return Err(ArchiveError::Integrity(format!("state is of {} bytes, not {}", state.len(), meta.size)));
        }
        Ok((meta, state))
    }
}

/// A tar inside a gzip, read block by block. Nothing is allocated for a length before its bytes are there.
struct Tar<'a> {
    gzip: GzDecoder<&'a [u8]>,
}

impl Tar<'_> {
    /// Appends `count` bytes to `into`.
    fn take(&mut self, count: u64, into: &mut Vec<u8>) -> Result<(), ArchiveError> {
        let got = self.gzip.by_ref().take(count).read_to_end(into).map_err(|error| read_error(&error))?;
        if (got as u64) < count { Err(ArchiveError::Read("unexpected EOF".to_owned())) } else { Ok(()) }
    }

    fn block(&mut self) -> Result<[u8; BLOCK], ArchiveError> {
        let mut bytes = Vec::with_capacity(BLOCK);
        self.take(BLOCK as u64, &mut bytes)?;
        bytes.try_into().map_err(|_| ArchiveError::Read("unexpected EOF".to_owned()))
    }

    /// Name and size of the next file; `None` at the end.
    fn next_header(&mut self) -> Result<Option<(String, u64)>, ArchiveError> {
        let malformed = |what: &str| ArchiveError::Read(format!("archive/tar: {what}"));
        let block = self.block()?;
        if block == [0; BLOCK] {
            return if self.block()? == [0; BLOCK] { Ok(None) } else { Err(malformed("one block of zeros")) };
        }
        if octal(&block[148..156]) != Some(checksum(&block)) || !block[257..].starts_with(b"ustar") {
            return Err(malformed("invalid tar header"));
        }
        let name = block[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| malformed("a name is no text"))?;
        if !matches!(block[156], b'0' | 0) {
            return Err(ArchiveError::Read(format!("file {name:?} in snapshot is no plain file")));
        }
        let size = octal(&block[124..136]).ok_or_else(|| malformed("invalid tar header"))?;
        Ok(Some((name.to_owned(), size)))
    }

    /// The bytes of a file, and their sum.
    fn content(&mut self, size: u64) -> Result<(Vec<u8>, String), ArchiveError> {
        let mut bytes = Vec::new();
        let mut left = size;
        while left > 0 {
            let step = left.min(STEP_BYTES);
            self.take(step, &mut bytes)?;
            left -= step;
        }
        let mut rest = Vec::new();
        self.take(padding(size).len() as u64, &mut rest)?;
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Read("archive/tar: bytes between files".to_owned()));
        }
        let mut sum = Context::new(&SHA256);
        sum.update(&bytes);
        Ok((bytes, hex(sum)))
    }

    /// Nothing but zeros may follow, and the gzip's own sum must be right.
    fn end(mut self) -> Result<(), ArchiveError> {
        let mut rest = Vec::new();
        self.gzip.by_ref().take(MAX_END_BYTES + 1).read_to_end(&mut rest).map_err(|error| read_error(&error))?;
        let left_over = rest.len() as u64 > MAX_END_BYTES || rest.iter().any(|byte| *byte != 0);
        if left_over || !self.gzip.into_inner().is_empty() {
            return Err(ArchiveError::Read("bytes after the end of the snapshot".to_owned()));
        }
        Ok(())
    }
}

fn read_error(error: &std::io::Error) -> ArchiveError {
    ArchiveError::Read(match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
        _ => format!("gzip: {error}"),
    })
}

/// A number of a tar header: octal digits, then a space or a NUL.
fn octal(field: &[u8]) -> Option<u64> {
    let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    let digits = std::str::from_utf8(&field[..end]).ok().filter(|text| !text.is_empty())?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
