//! Raft frames to bytes, and bytes that come in pieces to frames.
//!
//! A frame that came whole is read where it lies; one that came in pieces is gathered first. The bytes of an entry are
//! copied once more, into the entry. Nothing is allocated for bytes that have not come.

use std::fmt;

use crate::wire::msgpack::{DecodeError, Decoder, Encoder};

use super::tags::{self, HELLO, REFUSED};
use super::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, RaftFrame};

/// Bytes of a frame's length.
const HEAD_BYTES: usize = 4;

/// Appends a frame. False, and nothing is appended, when it would be longer than [`FRAME_BYTES_MAX`].
#[must_use]
pub fn encode(frame: &RaftFrame, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    out.reserve(HEAD_BYTES + payload_bytes(frame));
    let mut e = Encoder { out: std::mem::take(out) };
    e.raw(&[0; HEAD_BYTES]);
    tags::put(frame, &mut e);
    *out = e.out;
    let len = out.len() - start - HEAD_BYTES;
    let digits = u32::try_from(len).ok().filter(|_| len <= FRAME_BYTES_MAX).map(u32::to_be_bytes);
    match (digits, out.get_mut(start..start + HEAD_BYTES)) {
        (Some(digits), Some(head)) => head.copy_from_slice(&digits),
        _ => out.truncate(start),
    }
    digits.is_some()
}

/// About how long a frame gets, so that it is not moved while it grows.
fn payload_bytes(frame: &RaftFrame) -> usize {
    match frame {
        RaftFrame::Message(message) => {
            message.entries.iter().map(|entry| entry.data.len() + 32).sum::<usize>() + message.context.len() + 128
        }
        RaftFrame::SnapshotChunk { bytes, .. } => bytes.len() + 64,
        _ => 128,
    }
}

/// Bytes of a link that are no frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The frame's tag, once that was read.
    pub tag: Option<u64>,
    /// Where, counted in bytes from the link's first frame.
    pub at: u64,
    /// What was wrong there.
    pub what: &'static str,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Some(tag) => write!(f, "raft frame of tag {tag}, byte {}: {}", self.at, self.what),
            None => write!(f, "raft frame, byte {}: {}", self.at, self.what),
        }
    }
}

impl std::error::Error for FrameError {}

/// The frames of one direction of a link, from bytes that come in pieces of any size.
///
/// The first one must be a hello or its refusal, of [`HELLO_BYTES_MAX`] at most. After an error it is of no further
/// use.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// The beginning of a frame, its length included.
    pub(super) held: Vec<u8>,
    /// Bytes of the frames before.
    position: u64,
    greeted: bool,
}

impl Frames {
    /// Takes bytes up to the end of the next frame; `None` when all are taken and none has ended.
    ///
    /// # Errors
    /// A length over the cap, an unknown tag, and an array that is not what its tag says.
    pub fn next_frame(&mut self, bytes: &mut &[u8]) -> Result<Option<RaftFrame>, FrameError> {
        if self.held.is_empty()
            && let Some(len) = self.length(bytes)?
            && let Some((whole, rest)) = bytes.split_at_checked(HEAD_BYTES + len)
        {
            *bytes = rest;
            return self.frame(whole.get(HEAD_BYTES..).unwrap_or_default()).map(Some);
        }
        if self.held.len() < HEAD_BYTES {
            self.hold(bytes, HEAD_BYTES);
        }
        let Some(len) = self.length(&self.held)? else { return Ok(None) };
        self.hold(bytes, HEAD_BYTES + len);
        if self.held.len() < HEAD_BYTES + len {
            return Ok(None);
        }
        let held = std::mem::take(&mut self.held);
        self.frame(held.get(HEAD_BYTES..).unwrap_or_default()).map(Some)
    }

    /// Whether part of a frame has come, and the rest has not.
    pub fn is_within_frame(&self) -> bool {
        !self.held.is_empty()
    }

    /// Bytes that wait for the rest of their frame.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Moves bytes to those held until there are `wanted`.
    fn hold(&mut self, bytes: &mut &[u8], wanted: usize) {
        let count = wanted.saturating_sub(self.held.len()).min(bytes.len());
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        // Twice what is there, but never beyond the frame.
        if self.held.capacity() < self.held.len() + count {
            let room = (self.held.len() + count).saturating_mul(2).min(wanted);
            self.held.reserve_exact(room.saturating_sub(self.held.len()));
        }
        self.held.extend_from_slice(taken);
    }

    /// The length of the frame that begins in `bytes`, once it can be read.
    fn length(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(digits) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*digits)).unwrap_or(usize::MAX);
        let refused = |what| Err(FrameError { tag: None, at: self.position, what });
        match len {
            0 => refused("frame is empty"),
            _ if len > FRAME_BYTES_MAX => refused("frame is too large"),
            _ if !self.greeted && len > HELLO_BYTES_MAX => refused("frame before the hello is too large"),
            _ => Ok(Some(len)),
        }
    }

    fn frame(&mut self, body: &[u8]) -> Result<RaftFrame, FrameError> {
        let base = self.position.saturating_add(HEAD_BYTES as u64);
        let mut d = Decoder::with_base(body, base).within_own_size();
        let wrong = |tag| move |DecodeError { pos, what, .. }| FrameError { tag, at: pos, what };
        let (tag, len) = tags::take_tag(&mut d).map_err(wrong(None))?;
        if !self.greeted && !matches!(tag, HELLO | REFUSED) {
            return Err(FrameError { tag: Some(tag), at: base, what: "the first frame is no hello" });
        }
        let frame = tags::take(tag, len, &mut d).map_err(wrong(Some(tag)))?;
        self.greeted = true;
        self.position = base.saturating_add(body.len() as u64);
        Ok(frame)
    }
}
