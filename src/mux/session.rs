//! A yamux session. It moves no bytes itself, buffers no payload, and does not know what the streams carry.
//!
//! Source: yamux `spec.md`; `session.go` and `stream.go` of yamux 0.1.2 for what Go peers do. Where it is stricter
//! than they are (ids, windows, floods, the GoAway before the end), requirements R1j says so.
//!
//! Over 500 lines by a few: one method for each frame and each wish of the owner; the parts are in the files beside it.

mod opening;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::base::timers::Timers;
use crate::wire::yamux::{ACK, FIN, FrameType, GoAway, Header, HeaderError, RST, SYN};

use super::deframe::{Deframer, Piece};
use super::keepalive::{Due, Keepalive, NEVER, deadline};
use super::peer_ids::{IdError, PeerIds};
use super::stream::{PeerHalf, Stream, Streams, Uptake};

pub use super::event::{EndReason, Event, OpenError, StreamGone};
pub use super::limits::{Limits, Side};

const VERSION: &str = "invalid protocol version";
const MSG_TYPE: &str = "invalid msg type";
const RECV_WINDOW: &str = "recv window exceeded";
const SEND_WINDOW: &str = "send window overflow";
const DUPLICATE: &str = "duplicate stream initiated";
const ID_ZERO: &str = "stream id zero";
const ID_SIDE: &str = "stream id of the wrong side";
const ID_USED: &str = "stream id already used";
const PINGS: &str = "too many pings";
const REFUSALS: &str = "too many refused streams";

/// Value of the ping that asks whether the peer has read so far; our other pings count up from 0.
const PROBE: u32 = u32::MAX;

/// Output of more than this is handed over by exchanging buffers, less by copying; in bytes.
const COPIED_OUTPUT_BYTES: usize = 4 * 1024;

/// Places for events that are kept when all are taken.
const KEPT_EVENTS: usize = 64;

/// One yamux session: a state machine without I/O.
///
/// Hand in bytes, then take all events before the next bytes (they point into them), then take the output.
/// Outgoing frames collect in one buffer; the owner takes it with [`MuxSession::take_output`] and holds back further
/// sends while its own outbox is full.
///
/// **Invariants:** no payload is held here; what a stream costs is 32 bytes; the peer alone cannot make the output
/// grow beyond 12 bytes a frame it sent, nor beyond `max_waiting_pongs` frames while the owner is blocked.
pub struct MuxSession {
    limits: Limits,
    streams: Streams,
    /// Deadlines of streams, by id.
    timers: Timers<u32>,
    events: VecDeque<Event>,
    /// Streams that we reset while events of theirs may wait.
    muted: BTreeSet<u32>,
    output: Vec<u8>,
    deframer: Deframer,
    keepalive: Keepalive,
    peer_ids: PeerIds,
    /// The id of the next stream that we open.
    next_id: u32,
    /// Streams that are [`Uptake::Proposed`].
    proposed: usize,
    /// Streams that are [`Uptake::Backlog`].
    backlog: usize,
    /// Answers given to the peer since the owner is blocked.
    waiting_answers: usize,
    blocked: bool,
    ended: bool,
    /// We sent a GoAway.
    local_gone: bool,
    /// The peer sent one.
    peer_gone: bool,
    /// A probe was sent, and whether it was answered.
    probed: Option<bool>,
}

impl MuxSession {
    /// A fresh session.
    pub fn new(side: Side, limits: Limits, now: Instant) -> MuxSession {
        let (first_own, first_of_peer) = match side {
            Side::Client => (1, 2),
            Side::Server => (2, 1),
        };
        MuxSession {
            streams: Streams::default(),
            timers: Timers::default(),
            events: VecDeque::new(),
            muted: BTreeSet::new(),
            output: Vec::new(),
            deframer: Deframer::default(),
            keepalive: Keepalive::new(now, limits.keepalive_interval),
            peer_ids: PeerIds::new(first_of_peer),
            next_id: first_own,
            proposed: 0,
            backlog: 0,
            waiting_answers: 0,
            blocked: false,
            ended: false,
            local_gone: false,
            peer_gone: false,
            probed: None,
            limits,
        }
    }

    /// Takes bytes from the peer, all of them.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        debug_assert!(
            !self.events.iter().any(|event| matches!(event, Event::Data(..))),
            "events point into the bytes before these"
        );
        let mut at = 0;
        while !self.ended {
            match self.deframer.next_piece(bytes, &mut at) {
                Ok(None) => break,
                Ok(Some(Piece::Header(header))) => self.handle_header(now, header),
                Ok(Some(Piece::Payload { stream, range, last })) => self.handle_payload(stream, range, last),
                Err(HeaderError::Version(_)) => self.violation(VERSION),
                Err(HeaderError::Type(_)) => self.violation(MSG_TYPE),
            }
        }
        self.check_invariants();
    }

    /// Acts on deadlines that are due; early is harmless. Buffers that hold nothing are given back, so that a session
    /// which is idle from one ping to the next has none.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        self.release_memory();
        match self.keepalive.handle_timeout(now, self.limits.ping_timeout) {
            Due::Nothing => {}
            Due::Ping(value) => self.write(FrameType::Ping, SYN, 0, value),
            Due::Dead => self.end(EndReason::KeepaliveTimeout),
        }
        while let Some((_, id)) = self.timers.pop_due(now) {
            let Some(stream) = self.streams.find_mut(id) else { continue };
            stream.deadline = NEVER;
            if stream.uptake == Uptake::Proposed {
                self.end(EndReason::OpenTimeout);
            } else {
                self.drop_stream(id);
                self.write(FrameType::WindowUpdate, RST, id, 0);
                self.events.push_back(Event::Reset(StreamId(id)));
            }
        }
        self.check_invariants();
    }

    /// The next event, if any.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(event) = self.events.pop_front() {
            if self.muted.is_empty() || event.stream().is_none_or(|stream| !self.muted.contains(&stream.0)) {
                return Some(event);
            }
        }
        self.muted.clear();
        self.events.shrink_to(KEPT_EVENTS);
        None
    }

    /// When [`MuxSession::handle_timeout`] is wanted next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        self.keepalive.poll_timeout().into_iter().chain(self.timers.next()).min()
    }

    /// Frames to be sent, in order; appended to `into`. When that is empty and the frames are many, the buffers are
    /// exchanged.
    pub fn take_output(&mut self, into: &mut Vec<u8>) {
        if into.is_empty() && self.output.len() > COPIED_OUTPUT_BYTES {
            std::mem::swap(into, &mut self.output);
        } else {
            // An idle session must not end up with the large buffer of a busy owner.
            into.extend_from_slice(&self.output);
            self.output.clear();
        }
    }

    /// True when [`MuxSession::take_output`] would give something.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Says to the session whether the owner's outbox is backed up: while it is, answers to pings are counted
    /// against `max_waiting_pongs`.
    pub fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
        if !blocked {
            self.waiting_answers = 0;
        }
    }

    /// Gives back all memory that holds nothing.
    pub fn release_memory(&mut self) {
        self.events.shrink_to_fit();
        self.output.shrink_to_fit();
        self.streams.release_memory();
        self.peer_ids.release_memory();
    }

    /// Takes a stream that the peer opened out of the backlog and acknowledges it.
    pub fn accept(&mut self, stream: StreamId) {
        let Some(found) = self.streams.find_mut(stream.0).filter(|found| found.uptake == Uptake::Backlog) else {
            return;
        };
        found.uptake = Uptake::Taken;
        self.backlog -= 1;
        self.write(FrameType::WindowUpdate, ACK, stream.0, 0);
        self.check_invariants();
    }

    /// Bytes of frames that wait for [`MuxSession::take_output`].
    pub fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Sends as much of `bytes` as the peer's window permits and says how much that was. When it is not all, an
    /// [`Event::Writable`] comes with the next credit.
    ///
    /// # Errors
    /// The stream was reset, closed, or finished by us.
    pub fn send(&mut self, stream: StreamId, bytes: &[u8]) -> Result<usize, StreamGone> {
        let found = self.streams.find_mut(stream.0).filter(|found| !found.finished).ok_or(StreamGone)?;
        let length = found.send.take(bytes.len());
        let (now, later) = bytes.split_at(length as usize);
        found.starved |= !later.is_empty();
        if !now.is_empty() {
            self.write(FrameType::Data, 0, stream.0, length);
            self.output.extend_from_slice(now);
        }
        Ok(now.len())
    }

    /// How many bytes [`MuxSession::send`] would take; 0 for a stream that is gone.
    pub fn credit(&self, stream: StreamId) -> usize {
        self.streams.find(stream.0).filter(|found| !found.finished).map_or(0, |found| found.send.credit() as usize)
    }

    /// The application has read `bytes` bytes of the stream's data: grants them back once half of the window is due.
    pub fn consume(&mut self, stream: StreamId, bytes: usize) {
        let Some(found) = self.streams.find_mut(stream.0) else { return };
        found.recv.read(bytes, self.limits.window_bytes);
        if found.peer == PeerHalf::Open
            && let Some(delta) = found.recv.next_grant(self.limits.window_bytes)
        {
            self.write(FrameType::WindowUpdate, 0, stream.0, delta);
        }
    }

    /// Half-closes: we send no more on this stream.
    pub fn finish(&mut self, now: Instant, stream: StreamId) {
        let Some(found) = self.streams.find_mut(stream.0).filter(|found| !found.finished) else { return };
        found.finished = true;
        found.starved = false;
        if found.peer == PeerHalf::Finished {
            self.drop_stream(stream.0);
            self.events.push_back(Event::Closed(stream));
        } else if found.uptake != Uptake::Proposed {
            arm(&mut self.timers, found, deadline(now, self.limits.stream_close_timeout));
        }
        self.write(FrameType::WindowUpdate, FIN, stream.0, 0);
        self.check_invariants();
    }

    /// Resets a stream. No further event comes of it.
    pub fn reset(&mut self, stream: StreamId) {
        if !self.events.is_empty() {
            self.muted.insert(stream.0);
        }
        if self.drop_stream(stream.0) {
            self.write(FrameType::WindowUpdate, RST, stream.0, 0);
        }
        self.check_invariants();
    }

    /// Tells the peer that we take no new streams; those open go on. Its later SYNs are reset. Said once; a code
    /// other than [`GoAway::Normal`] is said again.
    pub fn go_away(&mut self, code: GoAway) {
        if self.ended || (self.local_gone && code == GoAway::Normal) {
            return;
        }
        self.local_gone = true;
        self.write(FrameType::GoAway, 0, 0, code as u32);
    }

    /// Open streams, of both sides.
    pub fn streams(&self) -> usize {
        self.streams.count()
    }

    /// Whether the bytes so far end within a frame.
    pub fn is_within_frame(&self) -> bool {
        self.deframer.is_within_frame()
    }

    fn handle_header(&mut self, now: Instant, header: Header) {
        match header.frame_type {
            FrameType::Data | FrameType::WindowUpdate => {
                if let Err(what) = self.handle_stream_frame(now, header) {
                    self.violation(what);
                }
            }
            FrameType::Ping if header.flags & SYN != 0 => {
                if self.may_answer() {
                    self.write(FrameType::Ping, ACK, 0, header.length);
                } else {
                    self.violation(PINGS);
                }
            }
            FrameType::Ping if header.length == PROBE && self.probed.is_some() => self.probed = Some(true),
            FrameType::Ping => self.keepalive.answered(now, header.length, self.limits.keepalive_interval),
            FrameType::GoAway if header.length == GoAway::Normal as u32 => {
                if !self.peer_gone {
                    self.peer_gone = true;
                    self.events.push_back(Event::GoAway);
                }
            }
            FrameType::GoAway => self.end(EndReason::PeerError(header.length)),
        }
    }

    /// A data frame's header, or a window update. The order of the flags is Go's: SYN, ACK, FIN, RST.
    fn handle_stream_frame(&mut self, now: Instant, header: Header) -> Result<(), &'static str> {
        let Header { frame_type, flags, stream: id, length } = header;
        if flags & SYN != 0 {
            self.handle_syn(id)?;
        }
        let Some(stream) = self.streams.find_mut(id) else { return Ok(()) };
        let untaken = stream.uptake == Uptake::Proposed;
        if untaken {
            // An ACK or not: Go acceptors that see our FIN first never send one.
            stream.uptake = Uptake::Taken;
            self.proposed -= 1;
            let close = if stream.finished { deadline(now, self.limits.stream_close_timeout) } else { NEVER };
            arm(&mut self.timers, stream, close);
        }
        let is_data = frame_type == FrameType::Data;
        if is_data && length > stream.recv.credit() {
            return Err(RECV_WINDOW);
        }
        if flags & RST != 0 {
            self.drop_stream(id);
            let stream = StreamId(id);
            self.events.push_back(if untaken { Event::Refused(stream) } else { Event::Reset(stream) });
            return Ok(());
        }
        if !is_data && length > 0 {
            stream.send.grant(length).map_err(|_| SEND_WINDOW)?;
            if std::mem::take(&mut stream.starved) {
                self.events.push_back(Event::Writable(StreamId(id)));
            }
        }
        if flags & FIN != 0 {
            if is_data && length > 0 {
                if stream.peer == PeerHalf::Open {
                    stream.peer = PeerHalf::Finishing;
                }
            } else {
                self.peer_finished(id);
            }
        }
        Ok(())
    }

    fn handle_syn(&mut self, id: u32) -> Result<(), &'static str> {
        if self.streams.find(id).is_some() {
            return Err(DUPLICATE);
        }
        self.peer_ids.claim(id, self.limits.max_skipped_ids).map_err(|error| match error {
            IdError::Zero => ID_ZERO,
            IdError::WrongSide => ID_SIDE,
            IdError::Used => ID_USED,
        })?;
        if self.local_gone
            || self.backlog >= self.limits.accept_backlog
            || self.streams.count() >= self.limits.max_streams
        {
            if !self.may_answer() {
                return Err(REFUSALS);
            }
            self.write(FrameType::WindowUpdate, RST, id, 0);
            return Ok(());
        }
        self.streams.insert(Stream::new(id, self.limits.window_bytes, Uptake::Backlog));
        self.backlog += 1;
        self.events.push_back(Event::Opened(StreamId(id)));
        Ok(())
    }

    fn handle_payload(&mut self, id: u32, range: Range<usize>, last: bool) {
        // Of a stream that is not there, because it never was or was reset meanwhile, it is skipped.
        let Some(stream) = self.streams.find_mut(id) else { return };
        stream.recv.arrived(u32::try_from(range.len()).unwrap_or(u32::MAX));
        let finishing = stream.peer == PeerHalf::Finishing;
        self.events.push_back(Event::Data(StreamId(id), range));
        if last && finishing {
            self.peer_finished(id);
        }
    }

    /// The peer's FIN, once all before it has come. A second one is ignored.
    fn peer_finished(&mut self, id: u32) {
        let Some(stream) = self.streams.find_mut(id).filter(|stream| stream.peer != PeerHalf::Finished) else { return };
        stream.peer = PeerHalf::Finished;
        let both = stream.finished;
        self.events.push_back(Event::Finished(StreamId(id)));
        if both {
            self.drop_stream(id);
            self.events.push_back(Event::Closed(StreamId(id)));
        }
    }

    /// Counts an answer to the peer; false when too many wait for it to read.
    fn may_answer(&mut self) -> bool {
        if !self.blocked {
            return true;
        }
        self.waiting_answers += 1;
        self.waiting_answers <= self.limits.max_waiting_pongs
    }

    /// Forgets a stream; false when it was not there.
    fn drop_stream(&mut self, id: u32) -> bool {
        let Some(mut stream) = self.streams.remove(id) else { return false };
        arm(&mut self.timers, &mut stream, NEVER);
        match stream.uptake {
            Uptake::Proposed => self.proposed -= 1,
            Uptake::Backlog => self.backlog -= 1,
            Uptake::Taken => {}
        }
        true
    }

    fn violation(&mut self, what: &'static str) {
        self.write(FrameType::GoAway, 0, 0, GoAway::ProtocolError as u32);
        self.end(EndReason::Violation(what));
    }

    fn end(&mut self, reason: EndReason) {
        self.ended = true;
        self.streams.clear();
        self.timers.clear();
        self.proposed = 0;
        self.backlog = 0;
        self.events.push_back(Event::Ended(reason));
    }

    fn write(&mut self, frame_type: FrameType, flags: u16, stream: u32, length: u32) {
        let header = Header { frame_type, flags, stream, length };
        self.output.extend_from_slice(&header.encode());
    }

    /// Checks in debug builds what must hold between any two calls.
    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        let count = |uptake| self.streams.iter().filter(|stream| stream.uptake == uptake).count();
        assert_eq!(self.proposed, count(Uptake::Proposed), "streams that we proposed");
        assert_eq!(self.backlog, count(Uptake::Backlog), "streams in the backlog");
        assert!(self.backlog <= self.limits.accept_backlog && self.proposed <= self.limits.accept_backlog);
        assert!(self.streams.count() <= self.limits.max_streams);
        let armed = self.streams.iter().filter(|stream| stream.deadline != NEVER).count();
        assert_eq!(self.timers.len(), armed, "timers of streams");
        for stream in self.streams.iter() {
            stream.recv.check_invariants(self.limits.window_bytes);
            assert!(!(stream.finished && stream.peer == PeerHalf::Finished), "stream {} is closed", stream.id);
            assert!(!(stream.starved && stream.finished), "stream {} has nothing to write", stream.id);
        }
        self.peer_ids.check_invariants();
        assert!(!self.ended || self.streams.count() == 0, "streams of a session that is over");
    }

    #[cfg(not(debug_assertions))]
    #[inline(always)]
    fn check_invariants(&self) {}
}

/// Moves a stream's one deadline; [`NEVER`] takes it away.
fn arm(timers: &mut Timers<u32>, stream: &mut Stream, deadline: Instant) {
    if stream.deadline != NEVER {
        timers.cancel(stream.deadline, stream.id);
    }
    stream.deadline = deadline;
    if deadline != NEVER {
        timers.set(deadline, stream.id);
    }
}
