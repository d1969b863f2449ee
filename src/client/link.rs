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
pub(crate) struct Link {
    way: Way,
    /// What was found once stays so.
    found: Option<Found>,
}

/// How it speaks.
#[derive(Debug)]
enum Way {
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
    /// Calls straight on a channel.
    pub(crate) fn plain(channel: Channel) -> Link {
        Link { way: Way::Plain(channel), found: None }
    }

    /// Calls on a stream of a yamux session.
    pub(crate) fn mux(channel: Channel) -> Link {
        Link { way: Way::Mux(Box::new(MuxLink::new(channel))), found: None }
    }

    /// Makes a call.
    pub(crate) fn call(&mut self, method: &str, body: &[u8], seq: u64, deadline: Instant) -> Ended {
        let request = call::encode_request(seq, method, body);
        match &mut self.way {
            Way::Plain(channel) => call::exchange(channel, &request, seq, deadline),
            Way::Mux(link) => link.call(&request, seq, deadline),
        }
    }

    /// One look, without waiting, at whether it may be used for another call.
    ///
    /// # Errors
    /// Why it must not be used.
    pub(crate) fn liveness(&mut self) -> Result<(), Found> {
        if let Some(found) = self.found {
            return Err(found);
        }
        let seen = match &mut self.way {
            Way::Plain(channel) => channel.look(),
            Way::Mux(link) => link.channel_mut().look(),
        };
        let is_whole = !seen.failed;
        self.meaning(seen).map_err(|dead| {
            let found = Found { dead, orderly: is_whole && dead != Dead::Stray };
            self.found = Some(found);
            found
        })
    }

    fn meaning(&mut self, seen: Seen) -> Result<(), Dead> {
        let data = !seen.data.is_empty();
        if seen.any || data {
            let meant = match &mut self.way {
                Way::Plain(channel) if channel.is_secure() => Meant::Tls { closed: seen.closed, data },
                Way::Plain(_) => Meant::Raw,
                Way::Mux(link) => link.take_in(&seen.data, seen.closed),
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
        match &mut self.way {
            Way::Plain(channel) => channel,
            Way::Mux(link) => link.channel_mut(),
        }
    }
}
