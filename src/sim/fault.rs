//! Faults planted in the simulated edge, never in the product: each stands for a mistake that an edge could make, and
//! shows that the checkers can fail (reliability notes, goal 2).

/// A mistake of the simulated edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The replica is told that a write is on disk before it was synced.
    AckBeforeSync,
    /// Some syncs do nothing, and say that they did.
    SkipSync,
    /// The notice of an applied entry is lost; the writer is answered all the same.
    DropWakeUp,
    /// The key of the changed object is missing from what an entry touched.
    LoseTouchedKey,
    /// Proposals are handed over twice.
    ProposeTwice,
    /// Handler jobs read a root that is some entries old.
    OldRoot,
    /// Notices are told before the root is published.
    NotifyBeforePublish,
    /// The monotonic clock of the loop follows the calendar when that is set.
    SkewedTimers,
    /// Recovery takes the last record without looking at its checksum.
    ForgetTornTail,
    /// The events of an entry are told twice.
    DuplicateEvent,
    /// The events of an entry are lost.
    DropEvent,
    /// The outcomes of two jobs are exchanged.
    SwapOutcomes,
    /// The outcome of a job is lost.
    LoseOutcome,
    /// The resolution of a proposal is lost.
    LoseResolution,
    /// After a short write the rest is taken for written too.
    ForgetShortWrite,
    /// Bytes for one connection are written to another.
    WrongSocket,
    /// Deadlines of the server are told a minute late.
    LateTimeouts,
    /// A socket that the server closed stays open.
    LeakSocket,
    /// The log is compacted up to its end, beyond what was asked.
    CompactTooFar,
    /// Term, vote and commit index are not written.
    ForgetHardState,
    /// A failed sync is taken for a success.
    IgnoreDiskError,
    /// The end of a connection is not told.
    LoseEof,
    /// A write to a variable wakes its own readers, and nobody who waits for a prefix.
    LosePrefixTouch,
    /// A write to a variable wakes nobody.
    LoseVariableTouch,
    /// A lock is given back by whoever asks, whatever id it names.
    ReleaseAnybodysLock,
    /// A write under a lock that is over counts as one under the lock that is held now.
    AcceptStaleLock,
    /// A fence that a write demands is not looked at.
    ForgetFence,
    /// With a variable its fence is forgotten.
    LoseFenceOnDelete,
    /// A lock whose time is over is given to the next without its delay.
    AcquireInDelay,
    /// Of several writes that belong together only the first is done.
    HalfTransaction,
    /// Who waits for a lock last gets it first.
    QueueOutOfOrder,
    /// A lock ends by its first time, whatever was renewed.
    ForgetRenewal,
    /// A process that begins gives locks no grace.
    ForgetGrace,
    /// Locks whose time is over are not ended.
    ForgetExpiry,
    /// A server votes for a second candidate of the same term.
    VoteTwice,
    /// The word that entries are on a disk counts for another server than the one that sent it.
    SwapSender,
    /// Entries count as agreed on once they are on the leader's own disk.
    CommitEarly,
    /// A follower is told that it leads.
    ServeAsFollower,
    /// A lease does not end.
    EndlessLease,
    /// The monotonic clock stands still while the process does, so that a lease outlives the pause.
    ClockStopsInPause,
    /// A server founds a cluster of its own.
    FoundAlone,
    /// A leader's snapshot is taken over without its last part.
    SnapshotWithoutTail,
    /// A leader's snapshot is told to be on disk, and is not.
    ForgetInstall,
    /// A piece of the state in memory is lost.
    FlipState,
    /// Entries are told to be on disk, and were not written.
    AckUnwritten,
    /// Term and vote are written as those of the beginning.
    ForgetTerm,
    /// A write of which nobody knows what became of it is told to have been refused.
    UnknownAsRefused,
    /// The cluster's file is told to be on disk, and is not.
    ForgetCluster,
    /// A leader takes its heartbeats for answered as soon as they are sent.
    LeadAlone,
    /// What a leader sends to be written comes as something else.
    AlterEntry,
    /// A write that was passed on, and lost with its connection, counts as one that was never sent.
    RetrySentWrite,
    /// A change of members is in force as soon as it is in a log.
    ChangeAtOnce,
    /// A server that has just begun gives its vote, whatever it promised before.
    VoteAtOnce,
    /// A leader whose lease is over answers parked queries at their deadlines all the same.
    StaleAtDeadline,
    /// A server says of every answer that it has just heard its leader.
    SayJustHeard,
    /// A client that got no answer sends its write again with a new number.
    NewSequence,
    /// Places in sessions are known to the leader alone, and are not in the log.
    LeaderMemory,
    /// One server ends sessions by its own calendar.
    LocalExpiry,
    /// Leaders end sessions by their own calendars.
    CalendarExpiry,
    /// Stored answers are dropped that nobody has acknowledged.
    DropReplies,
    /// A server that passes a write on once more gives it another number.
    Restamp,
    /// Nobody looks at the keys of sessions.
    AnyKey,
}

impl Fault {
    /// All that one server can make.
    pub const ALL: [Fault; 34] = [
        Fault::AckBeforeSync,
        Fault::SkipSync,
        Fault::DropWakeUp,
        Fault::LoseTouchedKey,
        Fault::ProposeTwice,
        Fault::OldRoot,
        Fault::NotifyBeforePublish,
        Fault::SkewedTimers,
        Fault::ForgetTornTail,
        Fault::DuplicateEvent,
        Fault::DropEvent,
        Fault::SwapOutcomes,
        Fault::LoseOutcome,
        Fault::LoseResolution,
        Fault::ForgetShortWrite,
        Fault::WrongSocket,
        Fault::LateTimeouts,
        Fault::LeakSocket,
        Fault::CompactTooFar,
        Fault::ForgetHardState,
        Fault::IgnoreDiskError,
        Fault::LoseEof,
        Fault::LosePrefixTouch,
        Fault::LoseVariableTouch,
        Fault::ReleaseAnybodysLock,
        Fault::AcceptStaleLock,
        Fault::ForgetFence,
        Fault::LoseFenceOnDelete,
        Fault::AcquireInDelay,
        Fault::HalfTransaction,
        Fault::QueueOutOfOrder,
        Fault::ForgetRenewal,
        Fault::ForgetGrace,
        Fault::ForgetExpiry,
    ];

    /// Those of a cluster.
    pub const OF_CLUSTER: [Fault; 28] = [
        Fault::VoteTwice,
        Fault::SwapSender,
        Fault::CommitEarly,
        Fault::ServeAsFollower,
        Fault::EndlessLease,
        Fault::ClockStopsInPause,
        Fault::FoundAlone,
        Fault::SnapshotWithoutTail,
        Fault::ForgetInstall,
        Fault::FlipState,
        Fault::AckUnwritten,
        Fault::ForgetTerm,
        Fault::UnknownAsRefused,
        Fault::ForgetCluster,
        Fault::LeadAlone,
        Fault::AlterEntry,
        Fault::RetrySentWrite,
        Fault::ChangeAtOnce,
        Fault::VoteAtOnce,
        Fault::StaleAtDeadline,
        Fault::SayJustHeard,
        Fault::NewSequence,
        Fault::LeaderMemory,
        Fault::LocalExpiry,
        Fault::CalendarExpiry,
        Fault::DropReplies,
        Fault::Restamp,
        Fault::AnyKey,
    ];

    /// Whether it takes several servers to make it.
    pub fn is_of_cluster(self) -> bool {
        Fault::OF_CLUSTER.contains(&self)
    }
}
