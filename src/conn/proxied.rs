//! Before everything else on a connection from a balancer: the PROXY header, then the owner's leave to go on.
//!
//! Never decides who has to send a header. No byte after it is understood before the owner, who counts connections by
//! the client's address, has let the connection in.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::proxy::ProxyReader;

use super::Conn;
use super::Event;
use super::Limits;
use super::Security;
use super::layers::Layer;
use super::report::Cause;
use super::stream::TIMEOUT;

/// How long a header may take where `handshake_timeout` sets no limit: a balancer sends it at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A header on its way, and until when it has to be whole.
#[derive(Debug)]
pub(super) struct Awaited {
    reader: ProxyReader,
    pub(super) deadline: Instant,
}

impl Awaited {
    /// Bytes that are held.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        self.reader.held_bytes()
    }
}

impl Conn {
    /// A connection accepted from a balancer, on the HTTP port or on the RPC port. [`Event::Proxied`] comes first, and
    /// what follows the header waits for [`Conn::admit`].
    pub fn accept_proxied(now: Instant, limits: Arc<Limits>, security: &Security, is_http: bool) -> Conn {
        let mut conn = Conn::new(limits, security, is_http);
        let deadline = conn.handshake_deadline(now).unwrap_or(now + HEADER_TIMEOUT);
        conn.layer = Layer::Proxied(Box::new(Awaited { reader: ProxyReader::default(), deadline }));
        conn
    }

    /// Bytes of a header, and perhaps of what follows it.
    pub(super) fn take_proxied(&mut self, mut bytes: &[u8]) {
        let Layer::Proxied(awaited) = &mut self.layer else { return };
        match awaited.reader.take(&mut bytes) {
            Ok(None) => {}
            Ok(Some(header)) => {
                self.layer = Layer::Introduced(bytes.to_vec());
                self.events.push_back(Event::Proxied(header.client));
            }
            Err(error) => self.refuse(Cause::Proxy, &error.to_string()),
        }
    }

    /// The owner lets the connection in whose header was told.
    pub(super) fn introduced(&mut self, now: Instant) {
        let Layer::Introduced(held) = &mut self.layer else { return };
        let held = std::mem::take(held);
        self.begin_accepted(now);
        self.take_plain_bytes(now, &held);
        if self.peer_finished {
            self.pass_eof(now);
        }
    }

    /// No more comes. Balancers look whether the port is open and say nothing: that is nobody's mistake.
    pub(super) fn proxied_ended(&mut self, error: &str) {
        match &self.layer {
            Layer::Proxied(awaited) if !awaited.reader.is_untouched() => self.refuse(Cause::Proxy, error),
            Layer::Proxied(_) => self.end(),
            _ => {}
        }
    }

    /// The time for the header may be over.
    pub(super) fn proxied_timeout(&mut self, now: Instant) {
        if matches!(&self.layer, Layer::Proxied(awaited) if awaited.deadline <= now) {
            self.refuse(Cause::Proxy, TIMEOUT);
        }
    }
}
