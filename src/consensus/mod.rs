//! Who leads and what is agreed: a machine that takes proposals, ticks and what the disk has promised, and gives
//! entries to write, entries applied, and who leads. Knows no connection, no file and no clock.
//!
//! Two engines fit behind [`Replica`]: raft, and a lease in PostgreSQL.

pub mod log;
pub mod proposals;
pub mod raft;

use std::sync::Arc;

use crate::base::id::{CallId, Index, ReplicaId, Term};
use crate::base::time::{Instant, WallTime};
use crate::state::ApplyResult;
use crate::state::State;
use crate::state::events::Event;
use crate::state::watch::Touched;
use crate::wire::entry::Command;
use crate::wire::entry::session::SessionStamp;
use crate::wire::raft::RaftMessage;

/// A replica: one server's part in the agreement.
pub trait Replica {
    /// Takes an input. Then poll outputs until there is none.
    fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input);
    /// The next thing to do, in order.
    fn poll_output(&mut self) -> Option<Output>;
    /// When [`Input::Timeout`] is wanted next.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// A write to be agreed on.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Names it in [`Notice::Resolved`].
    pub id: CallId,
    /// The place in the writer's session, when it has one.
    pub session: Option<SessionStamp>,
    /// What to write.
    pub command: Command,
}

/// All that can be told to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// Proposals that came together; they share a sync.
    Propose(Vec<Proposal>),
    /// What [`Output::Persist`] asked for is on disk.
    Persisted {
        /// Which request.
        ticket: u64,
    },
    /// What [`Output::WriteSnapshot`] asked for is on disk.
    SnapshotWritten {
        /// The last index it holds.
        index: Index,
    },
    /// Messages of other replicas, in the order in which they came.
    Messages(Vec<RaftMessage>),
    /// This replica cannot be reached: what was sent to it last is lost.
    Unreachable(ReplicaId),
    /// What became of the snapshot of [`Notice::SendSnapshot`].
    SnapshotSent {
        /// To whom.
        to: ReplicaId,
        /// Whether it was taken.
        ok: bool,
    },
    /// A whole snapshot came, with the message that announced it. Ignored when this replica is past it.
    SnapshotReceived {
        /// Of type snapshot, with its place.
        message: Box<RaftMessage>,
        /// What it holds.
        state: Arc<State>,
    },
    /// Founds the group with these voters, the same on each of them; only an empty replica takes it.
    Bootstrap(Vec<ReplicaId>),
    /// Wants to read what is true now: answered with [`Notice::ReadReady`].
    ReadIndex {
        /// Names it.
        id: CallId,
    },
    /// Changes who is a member; answered with [`Notice::Resolved`], [`Resolution::Rejected`] when it makes no sense.
    ChangeMember {
        /// Names it.
        id: CallId,
        /// How.
        change: MemberChange,
    },
    /// Hands leadership over; answered with [`Notice::Resolved`] once another leads (Applied, at any index), or not in
    /// time (Rejected). Nothing is proposed meanwhile.
    Transfer {
        /// Names it.
        id: CallId,
        /// To whom; the member that is farthest along when it does not matter.
        to: Option<ReplicaId>,
    },
    /// A deadline may be due.
    Timeout,
    /// Stop leading and settle what can be settled: the server is about to end.
    Stop,
}

/// All that a replica can ask for.
#[derive(Clone, Debug)]
pub enum Output {
    /// Write to the log and sync once, then answer with [`Input::Persisted`].
    Persist(Persist),
    /// Write this snapshot to disk and sync, then drop the whole log and begin it anew behind the snapshot; answer with
    /// [`Input::Persisted`]. Nothing of the old state is read any more.
    Install {
        /// Names the request.
        ticket: u64,
        /// What the snapshot stands for.
        meta: SnapshotMeta,
        /// What it holds.
        state: Arc<State>,
        /// Goes to the new log in the same breath: no entries, and a hard state.
        hard_state: HardState,
    },
    /// Publish the root, then tell the notices, in this order: no reader may be woken before it can see the change.
    Publish {
        /// The new root, when entries were applied.
        root: Option<Arc<State>>,
        /// For the server.
        notices: Vec<Notice>,
    },
    /// Write this snapshot to disk, beside everything else; answer with [`Input::SnapshotWritten`].
    WriteSnapshot(SnapshotMeta, Arc<State>),
    /// The log up to this index is in a snapshot on disk and can be dropped.
    Compact(Index),
}

/// What the disk is to hold before the ticket is answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Persist {
    /// Names the request.
    pub ticket: u64,
    /// Entries to append; they overwrite what is at their indexes and after.
    pub entries: Vec<LogEntry>,
    /// Term, vote and commit index, when they changed.
    pub hard_state: Option<HardState>,
}

/// An entry as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: Index,
    /// The term it was proposed in.
    pub term: Term,
    /// What kind of entry the engine made of it (raft: 0 normal, 1 and 2 membership).
    pub kind: u8,
    /// The bytes; empty for a barrier of the engine's own.
    pub data: Vec<u8>,
}

/// What a replica must never forget beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest term seen.
    pub term: Term,
    /// Who got the vote in it; 0 for nobody.
    pub vote: ReplicaId,
    /// The highest index known to be committed.
    pub commit: Index,
}

/// What a snapshot stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry it holds.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The members with a vote, at that index.
    pub voters: Vec<ReplicaId>,
    /// The members without one.
    pub learners: Vec<ReplicaId>,
}

/// What the server is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Entries up to this index are in the root; these keys changed, and this happened.
    Applied {
        /// The entry.
        index: Index,
        /// What changed.
        touched: Touched,
        /// What happened.
        events: Vec<Event>,
    },
    /// A [`Command::DigestMark`] was applied, and this is the state at it: to be compared with that of other replicas.
    Marked {
        /// The entry.
        index: Index,
        /// Shares all with the root; later entries do not change it.
        state: Arc<State>,
    },
    /// A proposal has come to its end.
    Resolved {
        /// Which.
        id: CallId,
        /// How.
        resolution: Resolution,
    },
    /// Who leads, as far as this replica knows, changed.
    Leadership(Leadership),
    /// To be sent to another replica, in this order among those to the same one. What cannot be sent is dropped, and
    /// told with [`Input::Unreachable`].
    Send(Box<RaftMessage>),
    /// To be sent in chunks: a replica that is too far behind gets the state. One at a time to each.
    SendSnapshot {
        /// Of type snapshot, with its place.
        message: Box<RaftMessage>,
        /// The state at that place.
        state: Arc<State>,
    },
    /// Who is a member, as far as entries were applied here. Told first when the replica begins, and at each change.
    Members(Membership),
    /// How far each member is; on the leader of a group of several, about once a second and when one becomes, or stops
    /// to be, active.
    Progress(Vec<Progress>),
    /// The leader knows that nobody else can lead before this time: until then its state answers reads (Raft
    /// dissertation 6.4.1). A group of one has it for ever: [`LEASE_FOR_EVER`].
    Lease(Instant),
    /// What [`Input::ReadIndex`] asked for: the root that is published holds all that was true when it was asked.
    ReadReady {
        /// Which.
        id: CallId,
        /// False when no leader answered in time.
        ok: bool,
    },
    /// The state was replaced by a leader's snapshot, and is published: everything that waits for a change is to be
    /// run again (R1.95).
    Installed {
        /// The last entry in it.
        index: Index,
    },
    /// A sync took longer than [`Limits::stalled_sync`]; a leader has stepped down for it (R8.4).
    DiskStalled {
        /// How long.
        took: std::time::Duration,
    },
    /// An entry above [`Limits::warn_entry_bytes`] was let through: to be logged, `attempting to apply large raft
    /// entry` in Nomad.
    LargeEntry {
        /// What it does, as Nomad names it in `raft_type`.
        kind: &'static str,
        /// Its encoded length.
        bytes: usize,
    },
    /// The replica cannot go on: a disk that failed, or a broken invariant. Nothing follows; the process is to end.
    Fatal(String),
}

/// How a proposal ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// Applied.
    Applied {
        /// At this index.
        index: Index,
        /// With this result.
        result: ApplyResult,
    },
    /// Surely not applied: this replica does not lead.
    NotLeader,
    /// Surely not applied, for a reason of its own (`entry of N bytes is over the limit of M`).
    Rejected(String),
    /// Leadership was lost between append and commit: applied or not, nobody here knows.
    Unknown,
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: Term,
    /// The leader, when one is known.
    pub leader: Option<ReplicaId>,
    /// Whether it is this replica.
    pub is_self: bool,
    /// Whether this replica leads and has applied an entry of its own term, so that its reads are consistent.
    pub ready: bool,
}

/// The end of a lease that has none.
pub const LEASE_FOR_EVER: Instant = Instant::from_nanos(u64::MAX);

/// Who is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// With a vote; of a joint configuration, those of the new one.
    pub voters: Vec<ReplicaId>,
    /// Without one.
    pub learners: Vec<ReplicaId>,
    /// Voters of the configuration that is being left, while it is.
    pub voters_outgoing: Vec<ReplicaId>,
}

/// How far a member is, as the leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub replica: ReplicaId,
    /// The last entry known to be on its disk.
    pub matched: Index,
    /// When it was heard last; `None` when not since this leadership began.
    pub heard: Option<Instant>,
    /// It gets a snapshot just now.
    pub snapshot: bool,
}

/// A change of one member. The new configuration is entered by joint consensus (Raft dissertation 4.3), so that any of
/// these is safe at any time; a second one is rejected while one is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It gets the log and has no vote.
    AddLearner(ReplicaId),
    /// A learner gets a vote; rejected while it is too far behind.
    Promote(ReplicaId),
    /// It is no member any more. The last voter cannot be removed.
    Remove(ReplicaId),
    /// A voter is replaced by a learner that is caught up, in one step.
    Replace {
        /// Who goes.
        old: ReplicaId,
        /// Who gets the vote.
        new: ReplicaId,
    },
}

/// The log and the snapshots on a disk, as the consensus thread uses them. Blocking; every call is synced when it
/// returns. After an error the log is not used again in this process.
pub trait Log {
    /// Appends and stores, with one sync.
    ///
    /// # Errors
    /// Whatever the disk said, with the path.
    fn persist(&mut self, what: &Persist) -> Result<(), String>;

    /// Drops entries up to an index.
    ///
    /// # Errors
    /// Whatever the disk said, with the path.
    fn compact(&mut self, up_to: Index) -> Result<(), String>;

    /// Drops all entries, and stores this: the log begins anew behind a snapshot that is on disk.
    ///
    /// # Errors
    /// Whatever the disk said, with the path.
    fn begin_anew(&mut self, hard_state: HardState) -> Result<(), String>;
}

/// What the disk held when the process began.
#[derive(Clone, Default)]
pub struct Recovered {
    /// The newest whole snapshot.
    pub snapshot: Option<(SnapshotMeta, State)>,
    /// The entries after it, or after the beginning.
    pub entries: Vec<LogEntry>,
    /// The last one stored.
    pub hard_state: HardState,
}

/// Settings of a replica, as plain numbers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A larger encoded entry is rejected where it is proposed.
    pub max_entry_bytes: usize,
    /// An entry above this is let through with a warning (1 MiB, as in Nomad).
    pub warn_entry_bytes: usize,
    /// Entries between snapshots.
    pub snapshot_entries: u64,
    /// Bytes of log between snapshots.
    pub snapshot_bytes: u64,
    /// Length of a raft tick.
    pub tick: std::time::Duration,
    /// Ticks without a leader before an election.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// A sync that takes longer makes a leader step down, while others could lead.
    pub stalled_sync: std::time::Duration,
    /// Proposals that may wait to be resolved; one more is rejected.
    pub max_waiting_proposals: usize,
}
