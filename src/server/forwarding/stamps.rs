//! This server's own session: it stamps writes of callers that have none, so that it can send them again when a leader
//! dies between append and answer (R2.31, R2.32).
//!
//! A session is opened when the first write needs it, through whoever leads, and kept until nobody writes any more. A
//! stamp stays with its write for as long as the caller waits; a server that starts again has none of its old ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api;
use crate::base::id::{CallId, Index};
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::conn::Refusal;
use crate::consensus::Resolution;
use crate::wire::body::query::WriteRequest;
use crate::wire::body::session::{SessionKey, SessionOpenRequest, SessionReply, SessionRequest, WriteStamp};
use crate::wire::class::Class;
use crate::wire::entry::Command;
use crate::wire::entry::session::SessionOpen;
use crate::wire::msgpack::Msg;

use super::super::Server;
use super::super::writing::Internal;
use super::{Outgoing, Purpose};

/// How long a session of a server lives without a sign of life: longer than most stops of a whole cluster.
pub const OWN_TTL: Duration = Duration::from_secs(300);
/// A session that wrote nothing for so long gives a sign of life, if it is to be kept.
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// A session that wrote nothing for so long is let go.
const UNUSED: Duration = Duration::from_secs(1_800);
/// Numbers between the oldest write under way and the newest: beyond it another session is begun, as one write that
/// waits for long must not fill the session with answers that nobody can acknowledge.
const SPAN: u64 = 2_048;
/// Beyond it no write is stamped in that session.
const MAX_SPAN: u64 = 4_000;
/// So long no session is asked for again, after one was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// A session that was asked for is there within this, or is asked for again.
const OPEN_WAIT: Duration = Duration::from_secs(2);

/// The sessions of this server.
#[derive(Debug, Default)]
pub(in crate::server) struct Stamps {
    current: Option<Own>,
    /// Those with writes under way that no new ones are put into.
    retiring: Vec<Own>,
    /// Until when one that was asked for is waited for.
    opening: Option<Instant>,
    refused_until: Option<Instant>,
    keep_alive_at: Option<Instant>,
    key_seed: u64,
}

/// One of them.
#[derive(Debug)]
struct Own {
    id: u64,
    key: SessionKey,
    next: u64,
    /// Numbers of writes whose callers wait.
    in_flight: BTreeSet<u64>,
    used: Instant,
}

/// What a write gets.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::server) enum Stamping {
    /// Its place.
    Given(Arc<WriteStamp>),
    /// It is to wait until there is a session.
    Waits,
    /// None: it goes as it is.
    Without,
}

impl Own {
    fn lowest(&self) -> u64 {
        self.in_flight.first().copied().unwrap_or(self.next)
    }

    fn span(&self) -> u64 {
        self.next - self.lowest()
    }

    fn stamp(&mut self, now: Instant) -> Arc<WriteStamp> {
        let sequence = self.next;
        self.next += 1;
        self.in_flight.insert(sequence);
        self.used = now;
        let acknowledged_below = self.lowest();
        Arc::new(WriteStamp { id: self.id, key: self.key.clone(), sequence, acknowledged_below })
    }
}

impl Stamps {
    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.keep_alive_at
    }

    /// No session is to be had.
    #[cfg(test)]
    pub(super) fn refuse(&mut self) {
        self.refused_until = Some(Instant::from_nanos(u64::MAX));
    }

    /// A session is there.
    fn opened(&mut self, now: Instant, id: u64, key: SessionKey) {
        self.opening = None;
        let fresh = Own { id, key, next: 1, in_flight: BTreeSet::new(), used: now };
        self.retiring.extend(self.current.replace(fresh));
        self.keep_alive_at = Some(now + KEEP_ALIVE);
    }

    /// The caller of a write waits no longer. A session that this leaves empty and that gets no new ones is over.
    fn released(&mut self, stamp: &WriteStamp) -> Option<(u64, SessionKey)> {
        if let Some(own) = self.current.as_mut().filter(|own| own.id == stamp.id) {
            own.in_flight.remove(&stamp.sequence);
            return None;
        }
        let at = self.retiring.iter().position(|own| own.id == stamp.id)?;
        let own = self.retiring.get_mut(at)?;
        own.in_flight.remove(&stamp.sequence);
        let is_over = own.in_flight.is_empty();
        is_over.then(|| self.retiring.swap_remove(at)).map(|own| (own.id, own.key))
    }

    /// A session is not known any more: what is under way in it is not stamped again by it.
    fn forget(&mut self, id: u64) {
        self.current.take_if(|own| own.id == id);
        self.retiring.retain(|own| own.id != id);
    }
}

impl Server {
    /// A place for a write that brought none. `waits` for one that nobody serves yet.
    pub(in crate::server) fn stamp(&mut self, now: Instant, may_wait: bool) -> Stamping {
        let stamps = &mut self.forwarding.stamps;
        let span = stamps.current.as_ref().map(Own::span);
        if span.is_none_or(|span| span >= SPAN)
            && stamps.opening.is_none_or(|until| until <= now)
            && stamps.refused_until.is_none_or(|until| until <= now)
        {
            stamps.opening = Some(now + OPEN_WAIT);
            self.open_session(now);
        }
        let stamps = &mut self.forwarding.stamps;
        match &mut stamps.current {
            Some(own) if own.span() < MAX_SPAN => {
                self.metrics.count(Id::Stamped);
                Stamping::Given(own.stamp(now))
            }
            None if may_wait && stamps.opening.is_some() => Stamping::Waits,
            _ => Stamping::Without,
        }
    }

    /// Whether writes at this server are worth a stamp: there is somebody else who could lead.
    pub(in crate::server) fn stamps_here(&self) -> bool {
        self.peers.members.as_ref().is_some_and(|members| members.voters.len() > 1)
    }

    /// The place of a write that is served here: its caller's, or our own, which keeps it when leadership is lost.
    pub(in crate::server) fn stamp_for_here(&mut self, now: Instant, id: CallId) -> Option<Arc<WriteStamp>> {
        if self.stamps_here()
            && self.can_be_stamped(id)
            && let Stamping::Given(stamp) = self.stamp(now, false)
        {
            // A number that is new was never answered.
            self.active(id)?.stamp = Some(stamp);
            return None;
        }
        self.active(id)?.stamp.clone()
    }

    /// The caller of a stamped write waits no longer.
    pub(in crate::server) fn release_stamp(&mut self, now: Instant, stamp: &WriteStamp) {
        if let Some((id, key)) = self.forwarding.stamps.released(stamp) {
            self.tell_session(now, "Session.Close", id, key);
        }
    }

    /// The session of a stamp is over.
    pub(in crate::server) fn own_session_is_over(&mut self, id: u64) {
        self.forwarding.stamps.forget(id);
    }

    fn open_session(&mut self, now: Instant) {
        let ttl = i64::try_from(OWN_TTL.as_nanos()).unwrap_or(i64::MAX);
        if self.known_leader(now).here {
            self.fresh_ctx(false);
            self.forwarding.stamps.key_seed += 1;
            let key = api::session_key(&self.ctx);
            let server_id = self.settings.server_id.clone();
            let name = self.settings.name.clone();
            let open = SessionOpen { key: key.clone(), ttl, name, server_id, accessor_id: String::new() };
            return self.propose_internal(Command::SessionOpen(open), Internal::OwnSession(key));
        }
        let request = SessionOpenRequest {
            ttl,
            name: self.settings.name.clone(),
            server_id: self.settings.server_id.clone(),
            cluster_id: self.ctx.cluster_id.to_string(),
            write: self.forwarded_write(),
        };
        self.send_to_leader(now, Purpose::Session, "Session.Open", &request);
    }

    fn forwarded_write(&self) -> WriteRequest {
        WriteRequest { region: self.settings.region.clone(), forwarded: true, ..WriteRequest::default() }
    }

    fn send_to_leader(&mut self, now: Instant, purpose: Purpose, method: &str, request: &impl Msg) {
        let Some(address) = self.leader_address() else { return self.on_session_unsent() };
        let out = Outgoing { purpose, method: method.into(), body: request.to_bytes().into(), fresh: false };
        self.send_out(now, &address, out);
    }

    /// Keeps or closes one of our sessions, without waiting for what becomes of it.
    fn tell_session(&mut self, now: Instant, method: &'static str, id: u64, key: SessionKey) {
        if self.known_leader(now).here {
            let command = match method {
                "Session.Close" => Command::SessionClose { id },
                _ => Command::SessionKeepAlive { id },
            };
            return self.propose_internal(command, Internal::Other);
        }
        let request = SessionRequest { id, key, write: self.forwarded_write() };
        self.send_to_leader(now, Purpose::SessionSign { id }, method, &request);
    }

    /// One could not be asked for: again when the next write wants it.
    pub(super) fn on_session_unsent(&mut self) {
        self.forwarding.stamps.opening = None;
    }

    /// Another server answered Session.Open.
    pub(super) fn on_session_opened(&mut self, now: Instant, result: Result<Box<[u8]>, Refusal>) {
        let refusal = match result {
            Ok(body) => match SessionReply::from_bytes(&body) {
                Ok(reply) => {
                    self.forwarding.stamps.opened(now, reply.id, reply.key);
                    return self.retry_held(now);
                }
                Err(error) => Refusal::from(error.to_string().as_str()),
            },
            Err(refusal) => refusal,
        };
        self.forwarding.stamps.opening = None;
        if refusal.class != Class::NotLeader {
            self.forwarding.stamps.refused_until = Some(now + REFUSED_PAUSE);
            self.log(Level::Debug, format!("no session for writes that are passed on: error={:?}", refusal.text));
        }
        self.retry_held(now);
    }

    /// The entry of our own session was settled.
    pub(in crate::server) fn on_own_session(&mut self, now: Instant, key: SessionKey, resolution: &Resolution) {
        match resolution {
            Resolution::Applied { index: Index(id), .. } => self.forwarding.stamps.opened(now, *id, key),
            _ => self.forwarding.stamps.opening = None,
        }
        self.retry_held(now);
    }

    /// Another server answered Session.KeepAlive.
    pub(super) fn on_session_sign(&mut self, id: u64, result: &Result<Box<[u8]>, Refusal>) {
        if result.as_ref().is_err_and(|refusal| refusal.class == Class::SessionExpired) {
            self.own_session_is_over(id);
        }
    }

    pub(super) fn on_stamps_due(&mut self, now: Instant) {
        let stamps = &mut self.forwarding.stamps;
        if stamps.keep_alive_at.is_none_or(|at| at > now) {
            return;
        }
        stamps.keep_alive_at = Some(now + KEEP_ALIVE);
        let is_unused = |own: &mut Own| own.in_flight.is_empty() && now.since(own.used) >= UNUSED;
        if let Some(own) = stamps.current.take_if(is_unused) {
            stamps.keep_alive_at = None;
            return self.tell_session(now, "Session.Close", own.id, own.key);
        }
        let silent = |own: &&Own| now.since(own.used) >= KEEP_ALIVE;
        let silent: Vec<(u64, SessionKey)> =
            stamps.current.iter().chain(&stamps.retiring).filter(silent).map(|own| (own.id, own.key.clone())).collect();
        for (id, key) in silent {
            self.tell_session(now, "Session.KeepAlive", id, key);
        }
    }

    /// Whether a call is a write that can be given a stamp: it is a plain one, of this region, and is answered by an
    /// entry of its own.
    pub(in crate::server) fn can_be_stamped(&mut self, id: CallId) -> bool {
        self.active(id)
            .is_some_and(|active| active.stamp.is_none() && !active.fields.hop && active.query.method.takes_stamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(stamps: &mut Stamps, id: u64) {
        stamps.opened(Instant::ZERO, id, SessionKey(vec![1]));
    }

    // R2.25, R2.31
    #[test]
    fn numbers_rise_and_what_is_answered_is_acknowledged() {
        let mut stamps = Stamps::default();
        open(&mut stamps, 7);
        let mut stamp = || stamps.current.as_mut().map(|own| own.stamp(Instant::ZERO)).unwrap_or_default();
        let (one, two, three) = (stamp(), stamp(), stamp());
        assert_eq!((one.sequence, two.sequence, three.acknowledged_below), (1, 2, 1));
        assert_eq!(stamps.released(&two), None);
        assert_eq!(stamps.released(&one), None);
        let mut stamp = || stamps.current.as_mut().map(|own| own.stamp(Instant::ZERO)).unwrap_or_default();
        assert_eq!((stamp().acknowledged_below, stamp().sequence), (3, 5));
    }

    // R2.25: one write that waits for long does not fill the session.
    #[test]
    fn a_session_with_a_wide_span_is_replaced_and_ends_with_its_last_write() {
        let mut stamps = Stamps::default();
        open(&mut stamps, 7);
        let slow = stamps.current.as_mut().map(|own| own.stamp(Instant::ZERO)).unwrap_or_default();
        for _ in 0..SPAN {
            let quick = stamps.current.as_mut().map(|own| own.stamp(Instant::ZERO)).unwrap_or_default();
            stamps.released(&quick);
        }
        assert!(stamps.current.as_ref().is_some_and(|own| own.span() > SPAN));
        open(&mut stamps, 9);
        assert_eq!(stamps.retiring.len(), 1);
        assert_eq!(stamps.released(&slow), Some((7, SessionKey(vec![1]))));
        assert!(stamps.retiring.is_empty() && stamps.current.as_ref().is_some_and(|own| own.id == 9));
        stamps.forget(9);
        assert!(stamps.current.is_none());
    }
}
