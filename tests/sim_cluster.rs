//! A cluster in a seeded world: partitions (one-way too), crashes with torn disks, pauses, stalled disks, clocks that go
//! wrong, slow ways, members that come and go, leadership handed over, snapshots installed (reliability notes, goals 1
//! to 4, 7 to 9, 11, 15 to 17). What the environment says is in `sim_rig`.

#![allow(clippy::print_stdout)]

#[macro_use]
mod sim_rig;

use holdfast::sim::drills::Drill;
use holdfast::sim::{Fault, Options, World};

use sim_rig::Worlds;

const CLUSTER: Worlds = Worlds { seeds: 16, of: Options::cluster, planted: Options::planted };

// R8.3, R8.4, R8.5
#[test]
fn all_is_well_in_even_seeds() {
    CLUSTER.try_seeds(0);
}

#[test]
fn all_is_well_in_odd_seeds() {
    CLUSTER.try_seeds(1);
}

#[test]
fn one_seed_shows_what_happened() {
    CLUSTER.show_one();
}

// Goal 3.
#[test]
fn the_same_seed_gives_the_same_trace() {
    CLUSTER.replay(4);
}

// R2.14 to R2.18: one leader after another, often the same one again, under locks, sessions, writes and parked queries.
// Whoever asked is answered in full, or refused; the checkers would see a mix.
#[test]
fn a_hundred_leaders_lose_nothing() {
    let busy = std::time::Duration::from_secs(110);
    let calm = Options { nemeses: 0, spares: 0, lockers: 2, keepers: 2, sessions: 1, ..Options::cluster(7) };
    let report = World::new(Options { busy, drill: Some(Drill::FlipFlop), ..calm }).run();
    assert!(report.wrongs.is_empty(), "{}", report.wrongs.join("\n"));
    assert!(report.reigns >= 100, "{} leaderships", report.reigns);
    assert_eq!(report.unknown, 0);
    println!("{} leaderships, {} answered, {} in sessions", report.reigns, report.answered, report.stamped);
}

// Goal 2.
faults! {
    CLUSTER, all of Fault::OF_CLUSTER;
    two_votes_in_a_term: VoteTwice;
    an_acknowledgement_counted_for_another: SwapSender;
    entries_agreed_on_by_the_leader_alone: CommitEarly;
    a_follower_that_serves: ServeAsFollower;
    a_lease_that_does_not_end: EndlessLease;
    a_clock_that_stands_still_in_a_pause: ClockStopsInPause;
    a_cluster_founded_by_one: FoundAlone;
    a_snapshot_without_its_tail: SnapshotWithoutTail;
    an_install_that_is_forgotten: ForgetInstall;
    a_state_that_was_damaged: FlipState;
    entries_that_were_not_written: AckUnwritten;
    a_term_that_is_forgotten: ForgetTerm;
    an_unknown_end_told_as_a_refusal: UnknownAsRefused;
    a_cluster_that_is_forgotten: ForgetCluster;
    heartbeats_that_nobody_answered: LeadAlone;
    an_entry_that_came_as_another: AlterEntry;
    // R1.67, R2.20
    a_sent_write_that_is_sent_again: RetrySentWrite;
    a_change_of_members_before_it_is_agreed_on: ChangeAtOnce;
    a_vote_against_a_promise_of_before_the_restart: VoteAtOnce;
    // R1.89, R1.99
    an_old_answer_at_a_deadline: StaleAtDeadline;
    // R1.83
    a_leader_that_was_never_heard_just_now: SayJustHeard;
    // R2.25, R2.32
    a_second_try_with_a_new_number: NewSequence;
    // R2.29
    places_that_the_leader_alone_remembers: LeaderMemory;
    // R2.27
    sessions_that_end_by_the_calendar_of_one_server: LocalExpiry;
    sessions_that_end_by_the_calendars_of_leaders: CalendarExpiry;
    // R2.25
    an_answer_that_is_dropped_too_early: DropReplies;
    // R2.32
    a_write_that_is_passed_on_with_a_new_number: Restamp;
    // R2.22
    a_key_that_nobody_looks_at: AnyKey;
}

// What a single server's machine can do wrong is found among several too.
#[test]
fn a_write_proposed_twice() {
    CLUSTER.catch(Fault::ProposeTwice);
}

#[test]
fn an_answer_before_the_sync() {
    CLUSTER.catch(Fault::AckBeforeSync);
}

#[test]
fn a_lost_event() {
    CLUSTER.catch(Fault::DropEvent);
}
