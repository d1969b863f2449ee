//! The checkers can fail: each mistake that is planted in the simulated edge is caught, and in how many seeds
//! (reliability notes, goal 2).

#[macro_use]
mod sim_rig;

use holdfast::sim::{Fault, Options};

use sim_rig::Worlds;

const ONE: Worlds = Worlds { seeds: 0, of: Options::from_seed, planted: Options::planted_in_one };

faults! {
    ONE, all of Fault::ALL;
    an_answer_before_the_sync: AckBeforeSync;
    a_sync_that_does_nothing: SkipSync;
    a_lost_wake_up: DropWakeUp;
    a_lost_key: LoseTouchedKey;
    a_write_proposed_twice: ProposeTwice;
    a_read_of_an_old_root: OldRoot;
    a_notice_before_the_root: NotifyBeforePublish;
    timers_that_follow_the_calendar: SkewedTimers;
    a_torn_record_that_is_believed: ForgetTornTail;
    an_event_told_twice: DuplicateEvent;
    a_lost_event: DropEvent;
    outcomes_exchanged: SwapOutcomes;
    a_lost_outcome: LoseOutcome;
    a_lost_resolution: LoseResolution;
    a_short_write_taken_for_whole: ForgetShortWrite;
    bytes_on_the_wrong_socket: WrongSocket;
    late_deadlines: LateTimeouts;
    a_socket_left_open: LeakSocket;
    a_log_compacted_too_far: CompactTooFar;
    a_hard_state_that_is_not_written: ForgetHardState;
    a_failed_sync_taken_for_a_success: IgnoreDiskError;
    an_end_that_is_not_told: LoseEof;
    a_prefix_that_is_not_woken: LosePrefixTouch;
    a_variable_whose_readers_sleep_on: LoseVariableTouch;
    a_lock_given_back_by_anybody: ReleaseAnybodysLock;
    a_stale_lock_that_is_accepted: AcceptStaleLock;
    a_fence_that_is_not_looked_at: ForgetFence;
    a_fence_lost_with_its_variable: LoseFenceOnDelete;
    a_lock_given_out_in_its_delay: AcquireInDelay;
    half_a_transaction: HalfTransaction;
    turns_out_of_order: QueueOutOfOrder;
    a_renewal_that_is_forgotten: ForgetRenewal;
    a_grace_that_is_not_given: ForgetGrace;
    a_lock_that_never_ends: ForgetExpiry;
}
