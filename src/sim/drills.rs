//! Drills: one kind of trouble again and again, each with all that it takes to show a certain mistake soon. A server
//! without mistakes goes through them as through any other trouble.

use std::time::Duration;

use crate::base::time::Instant;

use super::ground::{Event, Ground, Nemesis};
use super::nemesis::ClusterNemesis;
use super::network::Place;
use super::site::SiteNumber;
use super::world::World;

/// Between two of a kind, at least.
const EVERY: Duration = Duration::from_secs(4);
/// The first comes when a leader serves.
const FIRST: Duration = Duration::from_secs(6);
/// A follower that hears no leader for so long wants to lead, and asks for votes again and again.
const DEAF: Duration = Duration::from_secs(1);
/// Between two of [`Drill::FlipFlop`], at least.
const FLIP_EVERY: Duration = Duration::from_millis(400);
/// How long a leader is alone.
const ALONE: Duration = Duration::from_secs(3);

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// The leader is killed, with writes in its hands.
    KillLeader,
    /// The leader stands still for longer than an election takes.
    PauseLeader,
    /// The leader is cut off, and then asked to remove a member that is dead. Once in a world.
    ChangeAlone,
    /// One follower has not heard the leader for a while; then the leader is cut off, and all others begin anew at
    /// once.
    Restart,
    /// The power goes everywhere.
    Blackout,
    /// The leader and one follower are cut off from the others: of five they are too few.
    Minority,
    /// Leadership goes to another server, and soon to another again: often back.
    FlipFlop,
    /// Leadership goes to another server, and each server's calendar is set by up to an hour.
    Calendars,
}

/// When a world has its drills.
pub(super) fn plan(ground: &mut Ground) {
    let Some(drill) = ground.options.drill else { return };
    let end = ground.options.quiet_at();
    let mut at = Instant::ZERO + FIRST + ground.rng.jitter(EVERY / 2);
    while at + ALONE < end {
        ground.queue.push(at, Event::Cluster(ClusterNemesis::Drill(drill)));
        if drill == Drill::ChangeAlone {
            return;
        }
        let every = if drill == Drill::FlipFlop { FLIP_EVERY } else { EVERY };
        at += every + ground.rng.jitter(every / 2);
    }
}

impl World {
    /// One drill begins; without a leader there is none.
    pub(super) fn drill(&mut self, drill: Drill, leader: Option<SiteNumber>) {
        let Some(leader) = leader else { return };
        let servers = self.ground.options.servers;
        let other = (leader + 1 + self.ground.rng.below(servers as u64 - 1) as usize) % servers;
        match drill {
            Drill::KillLeader => self.nemesis(leader, Nemesis::Kill),
            Drill::PauseLeader => {
                let time = Duration::from_millis(1200) + self.ground.rng.jitter(Duration::from_secs(3));
                self.nemesis(leader, Nemesis::Pause(time));
            }
            Drill::Blackout => (0..servers).for_each(|site| self.nemesis(site, Nemesis::CutPower)),
            Drill::Minority => {
                self.ground.part("partitions", &[leader, other]);
                self.ground.after(ALONE, Event::Cluster(ClusterNemesis::Mend));
            }
            Drill::ChangeAlone => self.cluster_nemesis(ClusterNemesis::Retire(other)),
            Drill::FlipFlop => self.transfer(other),
            Drill::Calendars => {
                for site in 0..servers {
                    let set = self.ground.rng.below(7200) as i64 - 3600;
                    self.nemesis(site, Nemesis::SetCalendar(set * 1_000_000_000));
                }
                self.transfer(other);
            }
            Drill::Restart => {
                self.ground.injected_long("one-way cuts");
                self.ground.network.cut(Place::Site(leader), Place::Site(other));
                self.ground.network.cut(Place::Site(other), Place::Site(leader));
                let wait = DEAF + self.ground.rng.jitter(DEAF);
                self.ground.after(wait, Event::Cluster(ClusterNemesis::RestartAllBut(leader, other)));
            }
        }
    }

    /// A leader is cut off while it leads still: it is to lead nobody soon.
    pub(super) fn leave_alone(&mut self, leader: SiteNumber) {
        self.ground.part("leaders cut off", &[leader]);
        self.ground.after(ALONE, Event::Cluster(ClusterNemesis::Mend));
    }

    /// The second half of [`Drill::Restart`].
    pub(super) fn restart_all_but(&mut self, leader: SiteNumber, other: SiteNumber) {
        self.leave_alone(leader);
        for site in (0..self.ground.options.servers).filter(|site| *site != leader && *site != other) {
            self.ground.inject("kills");
            self.die(site);
            let wait = Duration::from_millis(10) + self.ground.rng.jitter(Duration::from_millis(30));
            self.ground.after(wait, Event::Nemesis(site, Nemesis::Start));
        }
    }
}
