//! The closed loop: every channel sends its next request as soon as its last is answered.

use std::time::Duration;

use crate::base::time::Instant;
use crate::cli::Failure;
use crate::cli::bench::link::{After, Answer, Link, Load};
use crate::cli::bench::meter::{Meter, Usage};
use crate::cli::bench::net::Net;
use crate::cli::bench::report::Latencies;

/// Connections that are being made at the same time; servers queue few.
const OPENING_MAX: usize = 100;

/// Where requests come from.
pub(crate) trait Source {
    /// Puts the body of the next request into `body`, which is empty, and names its method; a tag comes back with the
    /// answer. `None`: there is nothing more to ask.
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)>;

    /// Looks at an answer.
    ///
    /// # Errors
    /// One that ends the run.
    fn answered(&mut self, _tag: usize, _body: &[u8]) -> Result<(), Failure> {
        Ok(())
    }
}

/// The same request again and again.
pub(crate) struct Repeat {
    /// `Service.Method`.
    pub(crate) method: &'static str,
    /// One msgpack value.
    pub(crate) body: Vec<u8>,
}

impl Source for Repeat {
    fn next(&mut self, body: &mut Vec<u8>) -> Option<(&'static str, usize)> {
        body.extend_from_slice(&self.body);
        Some((self.method, 0))
    }
}

/// How long the loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Before anything is counted.
    pub(crate) warmup: Duration,
    /// While it is counted; `None`: until the source has no more.
    pub(crate) duration: Option<Duration>,
    /// Answers to count at most.
    pub(crate) count: Option<u64>,
    /// Without an answer for this long, the run has failed.
    pub(crate) patience: Duration,
}

/// What the loop measured.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Of every counted call.
    pub(crate) latencies: Latencies,
    /// Counted calls.
    pub(crate) count: u64,
    /// What they cost.
    pub(crate) usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Warm,
    Counting,
    Over,
}

struct ClosedLoop<'a, S> {
    source: &'a mut S,
    phase: Phase,
    latencies: Latencies,
    count_max: u64,
    under_way: usize,
    dry: bool,
    answers: u64,
    streams: usize,
    /// Tag of each channel's request.
    tags: Vec<usize>,
    body: Vec<u8>,
}

impl<S: Source> ClosedLoop<'_, S> {
    /// Fills the body of a channel's next request.
    fn next(&mut self, link: usize, channel: usize) -> Option<&'static str> {
        self.body.clear();
        let next = if self.phase == Phase::Over { None } else { self.source.next(&mut self.body) };
        let Some((method, tag)) = next else {
            self.dry = true;
            return None;
        };
        let slot = link * self.streams + channel;
        if self.tags.len() <= slot {
            self.tags.resize(slot + 1, 0);
        }
        if let Some(kept) = self.tags.get_mut(slot) {
            *kept = tag;
        }
        self.under_way += 1;
        Some(method)
    }
}

impl<S: Source> Load for ClosedLoop<'_, S> {
    fn up(&mut self, _link: &mut Link, _now: Instant) -> Result<(), Failure> {
        Ok(())
    }

    fn answer(&mut self, link: &mut Link, answer: Answer<'_>) -> Result<After, Failure> {
        self.under_way -= 1;
        self.answers += 1;
        if self.phase == Phase::Counting {
            self.latencies.record(answer.now - answer.sent);
            if self.latencies.len() >= self.count_max {
                self.phase = Phase::Over;
            }
        }
        let tag = self.tags.get(link.id * self.streams + answer.channel).copied().unwrap_or(0);
        self.source.answered(tag, answer.body)?;
        if let Some(method) = self.next(link.id, answer.channel) {
            link.call(answer.channel, method, &self.body, answer.now)?;
        }
        Ok(After::Keep)
    }
}

/// Opens connections, some at a time, and waits until all stand.
///
/// # Errors
/// One that cannot be made.
pub(crate) fn connect(net: &mut Net, connections: usize, patience: Duration) -> Result<(), Failure> {
    struct Opening {
        up: usize,
    }
    impl Load for Opening {
        fn up(&mut self, _link: &mut Link, _now: Instant) -> Result<(), Failure> {
            self.up += 1;
            Ok(())
        }
        fn answer(&mut self, _link: &mut Link, _answer: Answer<'_>) -> Result<After, Failure> {
            Ok(After::Keep)
        }
    }
    let mut opening = Opening { up: 0 };
    for begun in 1..=connections {
        net.open()?;
        let until = net.now() + patience;
        let allowed = if begun == connections { 0 } else { OPENING_MAX };
        net.turn_while(&mut opening, until, "connecting", |opening| begun - opening.up > allowed)?;
    }
    Ok(())
}

/// Runs the loop over the connections that stand, then lets what is under way end.
///
/// # Errors
/// A server's refusal, a lost connection, silence.
pub(crate) fn run(
    net: &mut Net,
    streams: usize,
    source: &mut impl Source,
    stretch: &Stretch,
    meter: &Meter,
) -> Result<Outcome, Failure> {
    let mut load = ClosedLoop {
        source,
        phase: if stretch.warmup.is_zero() { Phase::Counting } else { Phase::Warm },
        latencies: Latencies::new()?,
        count_max: stretch.count.unwrap_or(u64::MAX).max(1),
        under_way: 0,
        dry: false,
        answers: 0,
        streams,
        tags: Vec::new(),
        body: Vec::new(),
    };
    let mut start = meter.read()?;
    let warm_until = net.now() + stretch.warmup;
    for link in net.ids() {
        for channel in 0..streams {
            if let Some(method) = load.next(link, channel) {
                net.call(link, channel, method, &load.body)?;
            }
        }
    }
    if load.phase == Phase::Warm {
        turn_until(net, &mut load, warm_until, stretch.patience)?;
        load.phase = Phase::Counting;
        start = meter.read()?;
    }
    let end = stretch.duration.map_or(Instant::from_nanos(u64::MAX), |duration| net.now() + duration);
    turn_until(net, &mut load, end, stretch.patience)?;
    let usage = meter.since(&start)?;
    load.phase = Phase::Over;
    let until = net.now() + stretch.patience;
    net.turn_while(&mut load, until, "at the end", |load| load.under_way > 0)?;
    let count = load.latencies.len();
    Ok(Outcome { latencies: load.latencies, count, usage })
}

/// Turns until the time, the count or the source is used up; fails when the server falls silent.
fn turn_until<S: Source>(
    net: &mut Net,
    load: &mut ClosedLoop<'_, S>,
    until: Instant,
    patience: Duration,
) -> Result<(), Failure> {
    let mut heard = (load.answers, net.now());
    while load.phase != Phase::Over && !(load.dry && load.under_way == 0) {
        let now = net.now();
        if now >= until {
            return Ok(());
        }
        if load.answers != heard.0 {
            heard = (load.answers, now);
        } else if now >= heard.1 + patience {
            return Err(Failure::Lost("no answer in time".to_owned()));
        }
        net.turn(load, until.min(heard.1 + patience))?;
    }
    Ok(())
}
