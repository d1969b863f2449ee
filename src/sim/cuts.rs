//! Ways that are cut or slow: what is sent on a cut one is held back, not lost, until it is mended or the system gives
//! the wire up, as with TCP.

use std::time::Duration;

use super::ground::{Event, Ground, Net};
use super::network::{LinkId, Network, Place, Side};

/// How long the system tries to get through, at least.
const GIVE_UP: Duration = Duration::from_secs(15);

/// What waits until a cut is mended.
#[derive(Debug)]
pub(super) enum Held {
    Bytes(Vec<u8>),
    Fin,
    Reset,
}

/// A way that is slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slow {
    /// Added to each piece.
    pub latency: Duration,
    /// Of each wire.
    pub bytes_per_second: Option<u64>,
}

impl Network {
    pub(super) fn is_cut(&self, from: Place, to: Place) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether nothing gets through in one direction, or in the other.
    pub fn is_apart(&self, one: Place, other: Place) -> bool {
        self.is_cut(one, other) || self.is_cut(other, one)
    }

    /// Nothing gets through any more.
    pub fn cut(&mut self, from: Place, to: Place) {
        self.cuts.insert((from, to));
    }

    /// Makes a way slow, or as quick as others.
    pub fn slow(&mut self, from: Place, to: Place, slow: Option<Slow>) {
        match slow {
            Some(slow) => drop(self.slow.insert((from, to), slow)),
            None => drop(self.slow.remove(&(from, to))),
        }
    }

    /// Whether nothing is held back that goes to an end.
    pub(super) fn holds_nothing(&mut self, id: LinkId, to: Side) -> bool {
        self.links.get_mut(&id).is_none_or(|link| link.held(to).is_empty())
    }
}

impl Ground {
    /// What goes to an end is held back when the way is cut, or something is held back already.
    pub(super) fn held_back(&mut self, id: LinkId, to: Side, what: Held) -> bool {
        let Some(link) = self.network.links.get(&id) else { return false };
        let (near, far) = (link.place(to.other()), link.place(to));
        let held = self.network.is_cut(near, far) || !self.network.holds_nothing(id, to);
        if held {
            self.hold(id, to, what);
        }
        held
    }

    pub(super) fn hold(&mut self, id: LinkId, to: Side, what: Held) {
        let Some(link) = self.network.links.get_mut(&id) else { return };
        link.held(to).push_back(what);
        if link.held(to).len() > 1 {
            return;
        }
        link.holds += 1;
        let holds = link.holds;
        let wait = GIVE_UP + self.rng.jitter(2 * GIVE_UP);
        self.after(wait, Event::Net(Net::GiveUp(id, holds)));
    }

    /// Whether the system gives a wire up that has held something back since then.
    pub fn gives_up(&mut self, id: LinkId, holds: u64) -> bool {
        let link = self.network.links.get(&id);
        link.is_some_and(|link| link.holds == holds && link.held.iter().any(|held| !held.is_empty()))
    }

    /// Mends cuts: what was held back goes on.
    pub fn mend(&mut self, which: impl Fn(Place, Place) -> bool) {
        self.network.cuts.retain(|(from, to)| !which(*from, *to));
        for id in self.network.ids() {
            for to in [Side::Client, Side::Server] {
                self.release(id, to);
            }
        }
    }

    fn release(&mut self, id: LinkId, to: Side) {
        let Some(link) = self.network.links.get(&id) else { return };
        if self.network.is_cut(link.place(to.other()), link.place(to)) {
            return;
        }
        let now = self.now;
        let Some(link) = self.network.links.get_mut(&id) else { return };
        let at = (now + link.latency).max(link.end(to).last_arrival);
        link.end(to).last_arrival = at;
        for held in std::mem::take(link.held(to)) {
            let net = match held {
                Held::Bytes(bytes) => Net::Arrive(id, to, bytes),
                Held::Fin => Net::Fin(id, to),
                Held::Reset => Net::Reset(id, to),
            };
            self.queue.push(at, Event::Net(net));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::network::{Fate, Got};
    use super::super::options::Options;
    use super::*;

    /// Runs the wires until a time, as the world does; says what the server's end got.
    fn run(ground: &mut Ground, until: Duration) -> (Vec<u8>, bool) {
        let (mut got, mut reset) = (Vec::new(), false);
        let end = ground.now + until;
        while ground.queue.next_at().is_some_and(|at| at <= end) {
            let Some((at, event)) = ground.queue.pop() else { break };
            ground.now = ground.now.max(at);
            match event {
                Event::Net(Net::Accept(id)) => ground.accepted(id),
                Event::Net(Net::Arrive(id, side, bytes)) => ground.arrive(id, side, &bytes),
                Event::Net(Net::Fin(id, side)) => ground.fin_arrives(id, side),
                Event::Net(Net::Reset(id, side)) => reset |= ground.reset_arrives(id, side),
                Event::Net(Net::GiveUp(id, holds)) => reset |= ground.gives_up(id, holds),
                Event::Net(Net::Read(id, Side::Server)) => {
                    if let Got::Bytes(bytes) = ground.read(id, Side::Server) {
                        got.extend(bytes);
                    }
                }
                _ => {}
            }
        }
        ground.now = end;
        (got, reset)
    }

    fn sent(ground: &mut Ground, id: LinkId, bytes: &[u8]) {
        let mut rest = bytes;
        while let super::super::network::Written::Took(count) = ground.write(id, Side::Client, rest) {
            rest = rest.get(count..).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
        }
    }

    #[test]
    fn what_is_sent_on_a_cut_way_comes_in_order_once_it_is_mended() {
        for seed in 0..20 {
            let mut ground = Ground::new(Options { seed, ..Options::cluster(seed) });
            let (from, to) = (Place::Site(0), Place::Site(1));
            let id = ground.dial(from, 1, Fate::default());
            run(&mut ground, Duration::from_secs(1));
            ground.network.cut(from, to);
            sent(&mut ground, id, b"one ");
            sent(&mut ground, id, b"two ");
            assert_eq!(run(&mut ground, Duration::from_secs(10)), (Vec::new(), false), "seed {seed}");
            ground.mend(|_, _| true);
            sent(&mut ground, id, b"three");
            assert_eq!(run(&mut ground, Duration::from_secs(1)), (b"one two three".to_vec(), false), "seed {seed}");
        }
    }

    #[test]
    fn only_one_direction_is_cut_and_the_system_gives_up_in_the_end() {
        let mut ground = Ground::new(Options::cluster(1));
        let (from, to) = (Place::Site(0), Place::Site(1));
        let id = ground.dial(from, 1, Fate::default());
        run(&mut ground, Duration::from_secs(1));
        ground.network.cut(to, from);
        sent(&mut ground, id, b"heard");
        assert_eq!(run(&mut ground, Duration::from_secs(1)), (b"heard".to_vec(), false));
        assert!(ground.network.is_apart(from, to));
        ground.network.cut(from, to);
        sent(&mut ground, id, b"lost");
        assert_eq!(run(&mut ground, 4 * GIVE_UP), (Vec::new(), true));
    }
}
