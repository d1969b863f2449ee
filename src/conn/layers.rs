//! From the socket's bytes to the layer that understands them, and back: the part of [`Conn`] that moves bytes.
//! Decides nothing that a layer can decide.

use crate::base::time::Instant;
use crate::wire::first_byte::FirstByte;

use super::Conn;
use super::Event;
use super::Protocol;
use super::http::Http;
use super::proxied::Awaited;
use super::raft_link::LINK_IDLE;
use super::raft_link::RaftLink;
use super::report::Cause;
use super::single::Single;
use super::sniff;
use super::sniff::Verdict;
use super::sniff::Within;
use super::stream::TIMEOUT;
use super::stream::World;
use super::stream::report;
use super::streams::Streams;
use super::tls::Tls;
use super::tls::TlsServer;

/// What the bytes of a connection mean now, TLS apart.
pub(super) enum Layer {
    /// A PROXY header, before everything else.
    Proxied(Box<Awaited>),
    /// It is whole; the owner has to admit the connection. What came meanwhile is kept.
    Introduced(Vec<u8>),
    /// The next byte says what comes; until then.
    Sniff(Option<Instant>),
    /// A TLS handshake; until then.
    Handshake(Option<Instant>),
    /// A TLS handshake with a server that we dialled; until then. Afterwards this is spoken.
    Dialling { deadline: Instant, speaks: FirstByte },
    /// The owner has to admit it first; a raft link until then, since its peer may be none of ours. What came meanwhile
    /// is kept.
    Waiting { byte: FirstByte, held: Vec<u8>, deadline: Option<Instant> },
    /// One stream without yamux.
    Single(Box<Single>),
    /// A raft link.
    Raft(Box<RaftLink>),
    /// A yamux session.
    Streams(Box<Streams>),
    /// HTTP.
    Http(Box<Http>),
    /// Nothing any more.
    Over,
}

impl Conn {
    /// What a layer works with, and the layer.
    pub(super) fn parts(&mut self, now: Instant) -> (World<'_>, &mut Layer) {
        let (waiting_bytes, sent_bytes) = (self.outbox.len(), self.outbox.total_sent());
        let out = match &mut self.tls {
            Some(tls) => &mut tls.plain,
            None => self.outbox.tail(),
        };
        let world = World { now, limits: &self.limits, events: &mut self.events, out, waiting_bytes, sent_bytes };
        (world, &mut self.layer)
    }

    pub(super) fn handshake_deadline(&self, now: Instant) -> Option<Instant> {
        (!self.limits.handshake_timeout.is_zero()).then(|| now + self.limits.handshake_timeout)
    }

    pub(super) fn take_bytes(&mut self, now: Instant, bytes: &[u8]) {
        match self.layer {
            Layer::Over => {}
            _ if self.peer_finished => {}
            Layer::Proxied(_) => self.take_proxied(bytes),
            _ => self.take_plain_bytes(now, bytes),
        }
    }

    /// Bytes after the header that a balancer sends.
    pub(super) fn take_plain_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.tls.is_some() { self.decrypt(now, bytes) } else { self.understand(now, bytes) }
    }

    /// What a listener expects of a client at first.
    pub(super) fn begin_accepted(&mut self, now: Instant) {
        match (self.is_http, self.security.tls.clone()) {
            (false, _) => self.layer = Layer::Sniff(self.handshake_deadline(now)),
            (true, Some(server)) => self.begin_tls(now, &server),
            (true, None) => self.begin_http(now),
        }
    }

    fn decrypt(&mut self, now: Instant, mut bytes: &[u8]) {
        let mut plain = Vec::new();
        while !bytes.is_empty() && !matches!(self.layer, Layer::Over) {
            let Some(tls) = &mut self.tls else { return };
            let received = match tls.receive(&mut bytes, &mut plain) {
                Ok(received) => received,
                Err(error) => return self.tls_failed(now, &error),
            };
            if received.established {
                self.secured(now);
            }
            if !plain.is_empty() {
                self.understand(now, &plain);
                plain.clear();
            }
            if received.finished {
                return self.finished(now);
            }
        }
    }

    /// Passes bytes, out of TLS if that is on, to whoever they are for.
    fn understand(&mut self, now: Instant, bytes: &[u8]) {
        let bytes = match (&self.layer, bytes.split_first()) {
            (Layer::Sniff(_), Some((&byte, rest))) => {
                let was_plain = self.tls.is_none();
                self.first_byte(now, byte);
                if was_plain && self.tls.is_some() {
                    return self.decrypt(now, rest);
                }
                rest
            }
            _ => bytes,
        };
        if bytes.is_empty() {
            return;
        }
        let max_held_bytes = self.limits.max_partial_bytes;
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Waiting { held, .. } | Layer::Introduced(held) if held.len() + bytes.len() > max_held_bytes => {
                self.end();
            }
            Layer::Waiting { held, .. } | Layer::Introduced(held) => held.extend_from_slice(bytes),
            Layer::Single(single) => single.bytes(&mut world, bytes),
            Layer::Streams(streams) => streams.bytes(&mut world, bytes),
            Layer::Raft(link) => link.bytes(&mut world, bytes),
            Layer::Http(http) => http.bytes(&mut world, bytes),
            Layer::Sniff(_) | Layer::Handshake(_) | Layer::Dialling { .. } | Layer::Proxied(_) | Layer::Over => {}
        }
    }

    fn first_byte(&mut self, now: Instant, byte: u8) {
        let within = match &self.tls {
            Some(tls) => Within::Tls(tls.certificate.as_deref()),
            None => Within::Plain,
        };
        match (sniff::judge(byte, within, &self.security), self.security.tls.clone()) {
            (Verdict::Refused(report), _) => {
                self.events.push_back(Event::Report(report));
                self.end();
            }
            (Verdict::Handshake, Some(server)) => self.begin_tls(now, &server),
            (Verdict::Handshake, None) => self.end(),
            (Verdict::Protocol(byte), _) => self.begin(now, byte),
        }
    }

    fn begin(&mut self, now: Instant, byte: FirstByte) {
        self.speaks(Protocol::Rpc(byte));
        let deadline = (byte == FirstByte::Raft).then(|| self.handshake_deadline(now).unwrap_or(now + LINK_IDLE));
        let mux = &self.limits.mux;
        self.layer = match byte {
            FirstByte::Rpc => Layer::Single(Box::new(Single::rpc())),
            FirstByte::MultiplexV1 => Layer::Streams(Box::new(Streams::new(now, mux, false))),
            FirstByte::MultiplexV2 => Layer::Streams(Box::new(Streams::new(now, mux, true))),
            FirstByte::Raft | FirstByte::Streaming | FirstByte::Tls => {
                Layer::Waiting { byte, held: Vec::new(), deadline }
            }
        };
    }

    pub(super) fn admitted(&mut self, now: Instant) {
        if matches!(self.layer, Layer::Introduced(_)) {
            return self.introduced(now);
        }
        let Layer::Waiting { byte: byte @ (FirstByte::Streaming | FirstByte::Raft), held, .. } = &mut self.layer else {
            return;
        };
        let (byte, held) = (*byte, std::mem::take(held));
        let (mut world, layer) = self.parts(now);
        *layer = match byte {
            FirstByte::Raft => Layer::Raft(Box::new(RaftLink::new(now))),
            _ => Layer::Single(Box::new(Single::streaming(&mut world))),
        };
        self.understand(now, &held);
        if self.peer_finished {
            self.pass_eof(now);
        }
    }

    pub(super) fn begin_http(&mut self, now: Instant) {
        self.speaks(Protocol::Http);
        let (world, layer) = self.parts(now);
        *layer = Layer::Http(Box::new(Http::new(&world)));
    }

    fn speaks(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.events.push_back(Event::Protocol(protocol));
    }

    /// The handshake has a deadline of its own, that covers all of it (R1.22).
    pub(super) fn begin_tls(&mut self, now: Instant, server: &TlsServer) {
        self.layer = Layer::Handshake(self.handshake_deadline(now));
        match Tls::accept(server) {
            Ok(tls) => self.tls = Some(Box::new(tls)),
            Err(error) => self.refuse(Cause::Handshake, &error.to_string()),
        }
    }

    /// A peer that was verified may take its time for the inner byte; another may not (R1.24).
    fn secured(&mut self, now: Instant) {
        let certificate = self.certificate().cloned();
        let verified = certificate.is_some();
        self.events.push_back(Event::Secured(certificate));
        if self.is_http {
            return self.begin_http(now);
        }
        if let Layer::Dialling { speaks, .. } = self.layer {
            return self.begin_dialled(now, speaks);
        }
        let Layer::Handshake(deadline) = self.layer else { return };
        self.layer = Layer::Sniff(deadline.filter(|_| !verified));
    }

    /// TLS broke. rustls has an alert ready, which only a peer that speaks TLS gets (R1j R1.23).
    fn tls_failed(&mut self, now: Instant, error: &str) {
        if let Some(tls) = self.tls.as_mut().filter(|tls| tls.speaks_tls()) {
            tls.flush(self.outbox.tail());
        }
        if matches!(self.layer, Layer::Handshake(_) | Layer::Dialling { .. }) {
            self.refuse(Cause::Handshake, error);
        } else {
            self.failure(now, error);
        }
    }

    pub(super) fn eof(&mut self, now: Instant) {
        if !self.peer_finished {
            self.finished(now);
        }
    }

    /// The peer sends no more, by TLS or by the socket.
    fn finished(&mut self, now: Instant) {
        self.peer_finished = true;
        self.pass_eof(now);
    }

    pub(super) fn pass_eof(&mut self, now: Instant) {
        let untouched = self.tls.as_ref().is_none_or(|tls| tls.is_untouched());
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Single(single) => single.eof(&mut world),
            Layer::Streams(streams) => streams.eof(&mut world),
            Layer::Raft(link) => link.eof(&mut world),
            Layer::Http(http) => http.eof(&mut world),
            Layer::Proxied(_) => self.proxied_ended("EOF"),
            Layer::Dialling { .. } => self.refuse(Cause::Handshake, "EOF"),
            Layer::Handshake(_) if !untouched => self.refuse(Cause::Handshake, "EOF"),
            Layer::Sniff(_) | Layer::Handshake(_) => self.end(),
            Layer::Waiting { byte: FirstByte::Raft, .. } => self.end(),
            // The call may still be acknowledged and answered.
            Layer::Waiting { .. } | Layer::Introduced(_) | Layer::Over => {}
        }
    }

    pub(super) fn failure(&mut self, now: Instant, error: &str) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Sniff(_) => self.refuse(Cause::FirstByte, error),
            Layer::Handshake(_) | Layer::Dialling { .. } => self.refuse(Cause::Handshake, error),
            Layer::Raft(link) => link.fail(&mut world, error),
            Layer::Proxied(_) => self.proxied_ended(error),
            Layer::Waiting { .. } | Layer::Introduced(_) => self.end(),
            Layer::Single(single) => single.failure(&mut world, error),
            Layer::Streams(streams) => streams.failure(&mut world, error),
            Layer::Http(http) => http.failure(&mut world),
            Layer::Over => {}
        }
    }

    pub(super) fn timeout(&mut self, now: Instant) {
        let (mut world, layer) = self.parts(now);
        match layer {
            Layer::Sniff(Some(deadline)) if *deadline <= now => self.refuse(Cause::FirstByte, TIMEOUT),
            Layer::Handshake(Some(deadline)) if *deadline <= now => self.refuse(Cause::Handshake, TIMEOUT),
            Layer::Dialling { deadline, .. } if *deadline <= now => self.refuse(Cause::Handshake, TIMEOUT),
            Layer::Waiting { deadline: Some(deadline), .. } if *deadline <= now => self.end(),
            Layer::Proxied(_) => self.proxied_timeout(now),
            Layer::Raft(link) => link.timeout(&mut world),
            Layer::Single(single) => single.timeout(&mut world),
            Layer::Streams(streams) => streams.timeout(&mut world),
            Layer::Http(http) => http.timeout(&mut world),
            Layer::Sniff(_) | Layer::Handshake(_) | Layer::Dialling { .. } | Layer::Waiting { .. } => {}
            Layer::Introduced(_) | Layer::Over => {}
        }
    }

    /// After every step: what the layer wants sent goes to the outbox, and a layer that has ended ends the
    /// connection.
    pub(super) fn settle(&mut self, now: Instant) {
        let (world, layer) = self.parts(now);
        if let Layer::Streams(streams) = layer {
            streams.take_output(world.out);
        }
        let (over, drops_unsent) = match layer {
            Layer::Single(single) => (single.is_over(), false),
            Layer::Streams(streams) => (streams.is_over(), streams.drops_unsent()),
            Layer::Raft(link) => (link.is_over(), false),
            Layer::Http(http) => (http.is_over(), false),
            _ => (false, false),
        };
        if let Some(tls) = &mut self.tls
            && !matches!(self.layer, Layer::Over)
        {
            tls.seal(self.outbox.tail());
        }
        if over {
            self.end();
        }
        if drops_unsent {
            self.outbox.clear();
        }
    }

    pub(super) fn refuse(&mut self, cause: Cause, error: &str) {
        self.events.push_back(report(cause, error));
        self.end();
    }

    /// Says these last bytes, within TLS if that is on, and no more; what was told and not taken is not to be done.
    pub(super) fn end_with(&mut self, now: Instant, bytes: &[u8]) {
        if matches!(self.layer, Layer::Over) {
            return;
        }
        self.events.retain(|event| matches!(event, Event::Report(_)));
        let (world, _) = self.parts(now);
        world.out.extend_from_slice(bytes);
        if let Some(tls) = &mut self.tls {
            tls.seal(self.outbox.tail());
        }
        self.end();
    }

    /// Bytes that came and wait to be understood or answered.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        match &self.layer {
            Layer::Waiting { held, .. } | Layer::Introduced(held) => held.len(),
            Layer::Proxied(awaited) => awaited.held_bytes(),
            Layer::Single(single) => single.held_bytes(),
            Layer::Raft(link) => link.held_bytes(),
            Layer::Streams(streams) => streams.held_bytes(),
            Layer::Http(http) => http.held_bytes(),
            _ => 0,
        }
    }

    /// The connection is over, once what waits is sent.
    pub(super) fn end(&mut self) {
        if matches!(self.layer, Layer::Over) {
            return;
        }
        if let Some(tls) = &mut self.tls {
            tls.close(self.outbox.tail());
        }
        self.layer = Layer::Over;
        self.events.push_back(Event::Closed);
    }
}
