//! What is done to servers: one at a time, as to a single one, and to several together: ways that are cut, members that
//! come and go, leadership that is handed over.

use std::time::Duration;

use crate::base::time::Instant;
use crate::server::port::Input;

use super::cuts::Slow;
use super::drills::{self, Drill};
use super::fault::Fault;
use super::ground::{Event, Ground, Nemesis};
use super::history::Asked;
use super::network::Place;
use super::site::SiteNumber;
use super::world::World;

/// After the last trouble all should be well again.
const RECOVERY: Duration = Duration::from_secs(12);
/// Nothing between servers lasts longer.
const LONGEST: Duration = Duration::from_secs(12);

/// What the world does to the cluster.
#[derive(Clone, Debug)]
pub enum ClusterNemesis {
    /// To the server that leads, or to this one when none does.
    ToLeader(SiteNumber, Nemesis),
    /// These servers and the others do not reach each other.
    Part(Vec<SiteNumber>),
    /// Whatever leads is alone.
    PartLeader,
    /// Nothing gets from one server to another.
    OneWay(SiteNumber, SiteNumber),
    /// Nothing gets to one server from any other, or from it.
    Deaf(SiteNumber, bool),
    /// A client does not reach a server.
    CutClient(usize, SiteNumber),
    /// All ways are open again.
    Mend,
    /// Ways from and to a server are slow.
    Slow(SiteNumber, Option<Slow>),
    /// Leadership is handed over.
    Transfer,
    /// A server dies for good, and is removed.
    Retire(SiteNumber),
    /// An operator takes it out of the configuration.
    Remove(SiteNumber),
    /// A drill.
    Drill(Drill),
    /// The first is cut off, and all but these two begin anew at once.
    RestartAllBut(SiteNumber, SiteNumber),
}

/// When what is done.
pub(super) fn plan(ground: &mut Ground) {
    if ground.options.servers == 1 {
        return plan_one(ground);
    }
    let busy = ground.options.busy;
    for spare in 0..ground.options.spares {
        let at = Instant::ZERO + Duration::from_secs(5) + ground.rng.jitter(busy / 2);
        let site = ground.options.servers + spare;
        ground.queue.push(at, Event::Nemesis(site, Nemesis::Start));
    }
    drills::plan(ground);
    let mut retired = ground.options.drill == Some(Drill::ChangeAlone);
    for _ in 0..ground.options.nemeses {
        let at = Instant::ZERO + Duration::from_secs(3) + ground.rng.jitter(busy - Duration::from_secs(4));
        let what = match ground.rng.below(13) {
            0..6 => one(ground, at),
            6..11 => several(ground, at),
            11 => Event::Cluster(ClusterNemesis::Transfer),
            _ if !retired => {
                retired = true;
                Event::Cluster(ClusterNemesis::Retire(any(ground)))
            }
            _ => Event::Cluster(ClusterNemesis::Transfer),
        };
        ground.queue.push(at, what);
    }
}

/// A server of those that the world began with.
fn any(ground: &mut Ground) -> SiteNumber {
    ground.rng.below(ground.options.servers as u64) as usize
}

/// Something that a single server may suffer too; in half of the cases it is the one that leads.
fn one(ground: &mut Ground, at: Instant) -> Event {
    let (site, leads) = (any(ground), ground.rng.chance(1, 2));
    let what = match ground.rng.below(9) {
        0..2 => Nemesis::CutPower,
        2 => Nemesis::Kill,
        3 => Nemesis::Terminate,
        4..6 => Nemesis::Pause(Duration::from_millis(200) + ground.rng.jitter(Duration::from_secs(4))),
        6 => Nemesis::SetCalendar((ground.rng.below(7200) as i64 - 3600) * 1_000_000_000),
        7 => Nemesis::FailDisk,
        _ => {
            let until = at + Duration::from_secs(1) + ground.rng.jitter(Duration::from_secs(6));
            for site in 0..ground.options.servers {
                let usual = Nemesis::SlowDisk(ground.options.sync_time);
                ground.queue.push(until, Event::Nemesis(site, usual));
            }
            Nemesis::SlowDisk(Duration::from_millis(300) + ground.rng.jitter(Duration::from_secs(5)))
        }
    };
    if leads { Event::Cluster(ClusterNemesis::ToLeader(site, what)) } else { Event::Nemesis(site, what) }
}

/// Something between servers.
fn several(ground: &mut Ground, at: Instant) -> Event {
    let (site, other) = (any(ground), any(ground));
    let until = at + Duration::from_millis(300) + ground.rng.jitter(Duration::from_secs(10));
    let what = match ground.rng.below(6) {
        0 => ClusterNemesis::Part(if site == other { vec![site] } else { vec![site, other] }),
        1 => ClusterNemesis::PartLeader,
        2 if site != other => ClusterNemesis::OneWay(site, other),
        3 => ClusterNemesis::CutClient(ground.rng.below(4) as usize, site),
        4 => {
            let slow = Slow {
                latency: ground.rng.jitter(Duration::from_millis(300)),
                bytes_per_second: Some(2_000 << ground.rng.below(8)),
            };
            ground.queue.push(until, Event::Cluster(ClusterNemesis::Slow(site, None)));
            return Event::Cluster(ClusterNemesis::Slow(site, Some(slow)));
        }
        _ => ClusterNemesis::Deaf(site, ground.rng.chance(1, 2)),
    };
    ground.queue.push(until, Event::Cluster(ClusterNemesis::Mend));
    Event::Cluster(what)
}

fn plan_one(ground: &mut Ground) {
    let busy = ground.options.busy;
    for _ in 0..ground.options.nemeses {
        let at = Instant::ZERO + Duration::from_millis(500) + ground.rng.jitter(busy - Duration::from_secs(1));
        let what = match ground.rng.below(9) {
            0..3 => Nemesis::CutPower,
            3 => Nemesis::Kill,
            4 => Nemesis::Terminate,
            5 => Nemesis::Pause(ground.rng.jitter(Duration::from_secs(2))),
            6 => Nemesis::SetCalendar((ground.rng.below(7200) as i64 - 3600) * 1_000_000_000),
            7 => Nemesis::FailDisk,
            _ => {
                let until = at + ground.rng.jitter(Duration::from_secs(6));
                ground.queue.push(until, Event::Nemesis(0, Nemesis::SlowDisk(ground.options.sync_time)));
                Nemesis::SlowDisk(Duration::from_secs(1) + ground.rng.jitter(Duration::from_secs(1)))
            }
        };
        ground.queue.push(at, Event::Nemesis(0, what));
    }
}

impl Ground {
    /// Something is done to the cluster that lasts so long.
    pub(super) fn trouble(&mut self, lasts: Duration) {
        if self.options.servers > 1 {
            self.history.troubles.push((self.now, self.now + lasts + RECOVERY));
        }
    }

    fn all_sites(&self) -> std::ops::Range<SiteNumber> {
        0..self.sites.len()
    }

    /// Something is done that lasts as long as anything of its kind.
    pub(super) fn injected_long(&mut self, kind: &'static str) {
        self.inject(kind);
        self.trouble(LONGEST);
    }

    pub(super) fn part(&mut self, kind: &'static str, some: &[SiteNumber]) {
        self.injected_long(kind);
        for one in self.all_sites().filter(|one| some.contains(one)) {
            for other in self.all_sites().filter(|other| !some.contains(other)) {
                self.network.cut(Place::Site(one), Place::Site(other));
                self.network.cut(Place::Site(other), Place::Site(one));
            }
        }
    }
}

impl World {
    /// Something is done to one server.
    pub(super) fn nemesis(&mut self, site: SiteNumber, nemesis: Nemesis) {
        self.ground.note(&format!("server {site}: {nemesis:?}"));
        let now = self.ground.now;
        match nemesis {
            Nemesis::Start => self.start(site),
            Nemesis::CutPower => {
                self.ground.inject("power cuts");
                let offset = self.ground.torn_at(site);
                self.die(site);
                // What cannot be read is found, and told, when the next process begins.
                let _ = self.ground.site(site).disk.crash(offset);
            }
            Nemesis::Kill => {
                self.ground.inject("kills");
                self.die(site);
            }
            Nemesis::Terminate => {
                self.ground.inject("stops");
                self.ground.trouble(Duration::from_secs(15));
                if let Some(process) = self.process_mut(site) {
                    let life = process.life;
                    if let Some(life) = self.ground.history.lives.get_mut(life) {
                        life.stopping.get_or_insert(now);
                    }
                    self.feed(site, Input::Stop);
                }
            }
            Nemesis::Pause(time) => {
                self.ground.inject("pauses");
                self.ground.trouble(time);
                if self.ground.fault(Fault::ClockStopsInPause, 100) {
                    self.ground.site(site).clock.lost += u64::try_from(time.as_nanos()).unwrap_or(0);
                }
                self.ground.history.pauses.push((site, now, now + time));
                if let Some(process) = self.process_mut(site) {
                    process.paused_until = now + time;
                }
            }
            Nemesis::SetCalendar(nanos) => {
                self.ground.inject("calendars set");
                self.ground.site(site).calendar_offset = nanos;
            }
            Nemesis::FailDisk => {
                self.ground.inject("disk errors");
                self.ground.site(site).disk_fails = self.process(site).is_some();
            }
            Nemesis::SlowDisk(time) => {
                if time != self.ground.options.sync_time {
                    self.ground.inject("disk stalls");
                    self.ground.trouble(Duration::from_secs(8));
                }
                self.ground.site(site).sync_time = time;
            }
            Nemesis::Quiet => self.quiet(),
            Nemesis::HangUp => self.hang_up(),
        }
    }

    /// Something is done to several.
    pub(super) fn cluster_nemesis(&mut self, nemesis: ClusterNemesis) {
        if self.ground.quiet && !matches!(nemesis, ClusterNemesis::Mend | ClusterNemesis::Remove(_)) {
            return;
        }
        self.ground.note(&format!("{nemesis:?}"));
        let leader = self.ground.watch.leader();
        match nemesis {
            ClusterNemesis::ToLeader(site, what) => self.nemesis(leader.unwrap_or(site), what),
            ClusterNemesis::Part(some) => self.ground.part("partitions", &some),
            ClusterNemesis::PartLeader => self.ground.part("leaders cut off", &[leader.unwrap_or(0)]),
            ClusterNemesis::OneWay(from, to) => {
                self.ground.injected_long("one-way cuts");
                self.ground.network.cut(Place::Site(from), Place::Site(to));
            }
            ClusterNemesis::Deaf(site, hears) => {
                self.ground.injected_long("one-way cuts");
                for other in self.ground.all_sites().filter(|other| *other != site) {
                    let (from, to) = if hears { (site, other) } else { (other, site) };
                    self.ground.network.cut(Place::Site(from), Place::Site(to));
                }
            }
            ClusterNemesis::CutClient(client, site) => {
                self.ground.injected_long("clients cut off");
                self.ground.network.cut(Place::Client(client), Place::Site(site));
                self.ground.network.cut(Place::Site(site), Place::Client(client));
            }
            ClusterNemesis::Mend => self.ground.mend(|_, _| true),
            ClusterNemesis::Slow(site, slow) => {
                if slow.is_some() {
                    self.ground.injected_long("slow links");
                }
                for other in self.ground.all_sites() {
                    self.ground.network.slow(Place::Site(site), Place::Site(other), slow);
                    self.ground.network.slow(Place::Site(other), Place::Site(site), slow);
                }
            }
            ClusterNemesis::Transfer => {
                let to = any(&mut self.ground);
                self.transfer(to);
            }
            ClusterNemesis::Retire(site) => {
                self.ground.injected_long("members removed");
                self.ground.site(site).gone = true;
                self.die(site);
                self.ground.after(Duration::from_secs(2), Event::Cluster(ClusterNemesis::Remove(site)));
            }
            ClusterNemesis::Remove(site) => {
                let alone = leader.filter(|_| self.ground.options.drill == Some(Drill::ChangeAlone));
                if let Some(leader) = alone {
                    self.leave_alone(leader);
                }
                self.administer(Asked::Remove { site }, alone);
            }
            ClusterNemesis::Drill(drill) => self.drill(drill, leader),
            ClusterNemesis::RestartAllBut(first, other) => self.restart_all_but(first, other),
        }
    }

    /// Leadership is to go to this server.
    pub(super) fn transfer(&mut self, to: SiteNumber) {
        self.ground.inject("leadership transfers");
        self.ground.trouble(Duration::ZERO);
        self.administer(Asked::Transfer { to }, None);
    }

    /// Clients begin nothing new, and all that was done to servers is over.
    fn quiet(&mut self) {
        self.ground.quiet = true;
        let sync_time = self.ground.options.sync_time;
        for site in &mut self.ground.sites {
            site.disk_fails = false;
            site.sync_time = sync_time;
        }
        self.ground.mend(|_, _| true);
        for site in self.ground.all_sites() {
            for other in self.ground.all_sites() {
                self.ground.network.slow(Place::Site(site), Place::Site(other), None);
            }
        }
    }
}
