//! A connection that calls are made on, whatever it speaks: what the pool keeps.

use std::time::Instant;

use crate::client::call;
use crate::client::call::Ended;
use crate::client::mux_link::MuxLink;
use crate::client::socket::{Channel, Seen};
use crate::conn::liveness;
use crate::conn::liveness::{Dead, Look, Meant};

/// A connection for one call at a time.
#[derive(Debug)]
pub(crate) enum Link {
    /// Calls straight on the connection.
    Plain(Channel),
    /// Calls on a stream of a yamux session.
    Mux(Box<MuxLink>),
}

/// A connection that was found dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) dead: Dead,
    /// The server ended it as servers do that stop, or that close what is idle (R2.4).
    pub(crate) orderly: bool,
}

impl Link {
    /// Makes a call.
    pub(crate) fn call(&mut self, method: &str, body: &[u8], seq: u64, deadline: Instant) -> Ended {
        let request = call::encode_request(seq, method, body);
        match self {
            Link::Plain(channel) => call::exchange(channel, &request, seq, deadline),
            Link::Mux(link) => link.call(&request, seq, deadline),
        }
    }

    /// One look, without waiting, at whether it may be used for another call.
    ///
    /// # Errors
    /// Why it must not be used.
    pub(crate) fn liveness(&mut self) -> Result<(), Found> {
        let seen = match self {
            Link::Plain(channel) => channel.look(),
            Link::Mux(link) => link.channel_mut().look(),
        };
        let orderly = !seen.failed && (seen.data.is_empty() || matches!(self, Link::Mux(_)));
        self.meaning(seen).map_err(|dead| Found { dead, orderly: orderly && dead != Dead::Stray })
    }

    fn meaning(&mut self, seen: Seen) -> Result<(), Dead> {
        if seen.any || !seen.data.is_empty() {
            let data = !seen.data.is_empty();
            let meant = match self {
                Link::Plain(channel) if channel.is_secure() => Meant::Tls { closed: seen.closed, data },
                Link::Plain(_) => Meant::Raw,
                Link::Mux(link) => link.take_in(&seen.data, seen.closed),
            };
            liveness::verdict(Look::Bytes(meant))?;
        }
        liveness::verdict(match (seen.ended, seen.failed) {
            (true, _) => Look::End,
            (_, true) => Look::Failed,
            _ => Look::Nothing,
        })
    }

    #[cfg(test)]
    pub(crate) fn channel(&mut self) -> &mut Channel {
        match self {
            Link::Plain(channel) => channel,
            Link::Mux(link) => link.channel_mut(),
        }
    }
}
