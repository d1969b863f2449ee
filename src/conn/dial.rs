//! Connections that we dial, to other servers: TLS where it is on, the byte that says what follows, then calls and
//! streams or raft frames.

use std::sync::Arc;
use std::time::Duration;

use crate::base::time::Instant;
use crate::wire::first_byte::FirstByte;
use crate::wire::raft::RaftFrame;

use super::Conn;
use super::Event;
use super::Limits;
use super::Protocol;
use super::Security;
use super::layers::Layer;
use super::liveness;
use super::liveness::Look;
use super::raft_link::RaftLink;
use super::report::Cause;
use super::streams::Streams;
use super::tls::Tls;
use super::tls::TlsClient;

/// A connection that we dialled and whose TLS handshake is not done by then is given up.
pub const DIAL_HANDSHAKE: Duration = Duration::from_secs(10);

impl Conn {
    /// A connection that we dialled for calls and streams: 0x04 and a TLS handshake where there is TLS, then 0x06.
    /// [`Event::Ready`] comes once it can be used; nothing is served to the peer.
    pub fn dial_mux(now: Instant, limits: Arc<Limits>, tls: Option<(&TlsClient, &str)>) -> Conn {
        Conn::dial(now, limits, tls, FirstByte::MultiplexV2)
    }

    /// A connection that we dialled for raft: 0x04 and a TLS handshake where there is TLS, then 0x02 and frames.
    /// [`Event::Ready`] comes once they can be sent.
    pub fn dial_raft(now: Instant, limits: Arc<Limits>, tls: Option<(&TlsClient, &str)>) -> Conn {
        Conn::dial(now, limits, tls, FirstByte::Raft)
    }

    fn dial(now: Instant, limits: Arc<Limits>, tls: Option<(&TlsClient, &str)>, speaks: FirstByte) -> Conn {
        let mut conn = Conn::new(limits, &Security::default(), false);
        match tls {
            None => conn.begin_dialled(now, speaks),
            Some((client, name)) => {
                conn.layer = Layer::Dialling { deadline: now + DIAL_HANDSHAKE, speaks };
                conn.outbox.tail().push(FirstByte::Tls.byte());
                match Tls::dial(client, name) {
                    Ok(tls) => conn.tls = Some(Box::new(tls)),
                    Err(error) => {
                        conn.outbox.clear();
                        conn.refuse(Cause::Handshake, &error);
                    }
                }
            }
        }
        conn.settle(now);
        conn
    }

    /// Says what follows, and goes on with it.
    pub(super) fn begin_dialled(&mut self, now: Instant, speaks: FirstByte) {
        self.protocol = Protocol::Rpc(speaks);
        let (world, layer) = self.parts(now);
        world.out.push(speaks.byte());
        *layer = match speaks {
            FirstByte::Raft => Layer::Raft(Box::new(RaftLink::new(now))),
            _ => Layer::Streams(Box::new(Streams::dialled(now, &world.limits.mux))),
        };
        self.events.push_back(Event::Ready);
    }

    /// Sends a frame on a raft link, dialled or accepted and admitted. False, and nothing is sent, while more than
    /// [`Limits::max_raft_unsent_bytes`] wait: who is behind is told again. False too when there is no link (any
    /// more).
    pub fn send_raft(&mut self, now: Instant, frame: &RaftFrame) -> bool {
        let (mut world, Layer::Raft(link)) = self.parts(now) else { return false };
        let sent = link.send(&mut world, frame);
        self.settle(now);
        sent
    }

    /// Why a pooled connection should not be used for another call, if so (R3.5): it is over, the peer said that it
    /// goes away, bytes came that nobody asked for, or stream ids are used up. Such a connection ends by itself once
    /// no call is under way on it, but for the last case: that one is for its owner to drain.
    pub fn unusable(&self) -> Option<&'static str> {
        let look = match &self.layer {
            Layer::Over => Look::End,
            _ if self.peer_finished => Look::End,
            Layer::Streams(streams) if !streams.has_ids() => return Some("ids_used"),
            Layer::Streams(streams) => Look::Bytes(streams.meant()),
            _ => Look::Nothing,
        };
        liveness::verdict(look).err().map(liveness::Dead::text)
    }
}
