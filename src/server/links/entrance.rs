//! Who is let in, and as whom: a connection is counted by the address it comes from, by the client's own once a
//! balancer has named it, and by the name in a certificate at that address once TLS has verified one.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::Caller;
use crate::base::id::ConnId;
use crate::base::metric::Id;
use crate::base::time::Instant;
use crate::conn::Conn;
use crate::conn::report::Cause;
use crate::conn::tls::PeerCertificate;
use crate::server::Server;
use crate::server::admit::Place;
use crate::server::admit::Places;
use crate::server::http;
use crate::server::port::Listener;
use crate::server::port::Output;

use super::Closing;
use super::Link;
use super::Via;

/// The answer to a connection over a limit (http notes, section 1.2).
const TOO_MANY_TEXT: &str = "Your IP is issuing too many concurrent connections, please rate limit your calls";

/// The option that limits the connections of a listener.
const fn option_of(listener: Listener) -> &'static str {
    match listener {
        Listener::Rpc => "limits.rpc_max_conns_per_client",
        Listener::Http => "limits.http_max_conns_per_client",
    }
}

impl Server {
    fn places(&mut self, listener: Listener) -> &mut Places {
        match listener {
            Listener::Rpc => &mut self.rpc_places,
            Listener::Http => &mut self.http_places,
        }
    }

    fn count_accepted(&mut self, listener: Listener) {
        self.metrics.count(match listener {
            Listener::Rpc => Id::RpcAcceptConn,
            Listener::Http => Id::HttpAcceptConn,
        });
    }

    pub(in crate::server) fn on_accepted(&mut self, now: Instant, id: ConnId, listener: Listener, peer: SocketAddr) {
        let proxied = self.settings.proxy_protocol_from.iter().any(|network| network.contains(peer.ip()));
        let place = if proxied { Place::Unnamed(peer.ip()) } else { Place::Address(peer.ip()) };
        if !self.places(listener).enter(&place) {
            self.tell_crowded(now, listener, peer, &place);
            let answers = listener == Listener::Http;
            if answers {
                self.closing.insert(id, Closing::Bytes(http::bare_reply(429, TOO_MANY_TEXT), 0));
                self.output(Output::Flush(id));
            }
            return self.output(Output::Close { conn: id, linger: answers, abort: false });
        }
        let limits = self.conn_limits.clone();
        let conn = match (listener, proxied) {
            (Listener::Rpc, false) => Conn::accept_rpc(now, limits, &self.settings.rpc_security),
            (Listener::Rpc, true) => Conn::accept_proxied(now, limits, &self.settings.rpc_security, false),
            (Listener::Http, false) => Conn::accept_http(now, limits, &self.settings.http_security),
            (Listener::Http, true) => Conn::accept_proxied(now, limits, &self.settings.http_security, true),
        };
        if !proxied {
            self.count_accepted(listener);
        }
        self.keep_link(id, Link::new(id, Via::Accepted(listener), peer, conn, Some(place)));
        if self.draining.is_some() {
            self.with_conn(now, id, |now, c| c.drain(now));
        }
        self.settle(now, id);
    }

    /// A balancer has said who its client is: from here on the connection is the client's in everything.
    pub(super) fn on_proxied(&mut self, now: Instant, id: ConnId, client: Option<SocketAddr>) {
        let Some(link) = self.link(id) else { return };
        let Via::Accepted(listener) = link.via else { return };
        let peer = client.unwrap_or(link.peer);
        link.peer = peer;
        link.caller = Arc::new(Caller { peer, ..(*link.caller).clone() });
        if self.take_place(now, id, listener, Place::Address(peer.ip())) {
            self.count_accepted(listener);
            self.with_conn(now, id, |now, c| c.admit(now));
        }
    }

    /// TLS is done: a client with a certificate is counted by its name at its address, so that it shares no places with
    /// others behind the same address.
    pub(super) fn on_secured(&mut self, now: Instant, id: ConnId, certificate: Option<&PeerCertificate>) {
        let Some(link) = self.link(id) else { return };
        let tls_names = certificate.map(|certificate| certificate.names.clone());
        link.caller = Arc::new(Caller { tls_names, ..(*link.caller).clone() });
        let name = certificate.and_then(|certificate| certificate.counted_name.clone());
        if let (Via::Accepted(listener), Some(name)) = (&link.via, name) {
            let (listener, place) = (*listener, Place::Certificate(link.peer.ip(), name));
            self.take_place(now, id, listener, place);
        }
    }

    /// Moves a connection to another place, or turns it away when there is none.
    fn take_place(&mut self, now: Instant, id: ConnId, listener: Listener, place: Place) -> bool {
        if !self.places(listener).enter(&place) {
            let Some(peer) = self.link(id).map(|link| link.peer) else { return false };
            self.tell_crowded(now, listener, peer, &place);
            self.with_conn(now, id, |now, c| match listener {
                Listener::Rpc => c.close(now),
                Listener::Http => c.turn_away(now, &http::bare_reply(429, TOO_MANY_TEXT)),
            });
            return false;
        }
        let old = self.link(id).and_then(|link| link.place.replace(place));
        if let Some(old) = old {
            self.places(listener).leave(&old, false);
        }
        true
    }

    /// Gives back the place of a connection that has ended.
    pub(super) fn leave_place(&mut self, link: &Link) {
        if let (Via::Accepted(listener), Some(place)) = (&link.via, &link.place) {
            self.places(*listener).leave(place, link.streaming_place);
        }
    }

    /// A connection that asks for streaming takes one of the fewer places for that, or is closed.
    pub(super) fn admit_streaming(&mut self, now: Instant, id: ConnId) {
        let Some(link) = self.link(id) else { return };
        let (peer, Some(place)) = (link.peer, link.place.clone()) else { return };
        if self.rpc_places.enter_streaming(&place) {
            if let Some(link) = self.link(id) {
                link.streaming_place = true;
            }
            self.with_conn(now, id, |now, c| c.admit(now));
            return;
        }
        let limit = self.rpc_places.streaming_limit().unwrap_or_default();
        let (cause, option, key) = (Cause::StreamingCrowded, option_of(Listener::Rpc), place.to_string());
        let text = format!("{}: remote_addr={peer} stream_limit={limit} option={option} key={key:?}", cause.text());
        self.log_limited(now, cause, cause.level(), text);
        self.with_conn(now, id, |now, c| c.close(now));
    }

    /// Says which limit was met, and whose.
    fn tell_crowded(&mut self, now: Instant, listener: Listener, peer: SocketAddr, place: &Place) {
        let (cause, rejected) = match listener {
            Listener::Rpc => (Cause::RpcCrowded, Id::RpcRejectConn),
            Listener::Http => (Cause::HttpCrowded, Id::HttpRejectConn),
        };
        self.metrics.count(rejected);
        let (limit, key) = (self.places(listener).limit_of(place), place.to_string());
        let option = match place {
            Place::Unnamed(_) => String::new(),
            Place::Address(_) | Place::Certificate(..) => format!(" option={}", option_of(listener)),
        };
        let text = format!("{}: remote_addr={peer} limit={limit}{option} key={key:?}", cause.text());
        self.log_limited(now, cause, cause.level(), text);
    }
}
