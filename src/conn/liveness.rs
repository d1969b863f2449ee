//! Whether a connection that was kept for another call may be used: the verdict on what one look at it gave.
//!
//! A pure function, for the event loop (which reads all the time, and decides by state) and for a blocking client
//! (which makes one non-blocking read before its first byte). Source: requirements R3.1 to R3.7; `conncheck.go` of
//! go-sql-driver/mysql, with what TLS and yamux add: their own bytes are no answer that nobody asked for.

/// What one look gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// The end of the peer's bytes.
    End,
    /// There is nothing to read, which is as it should be.
    Nothing,
    /// Reading failed.
    Failed,
    /// Bytes; what they were.
    Bytes(Meant),
    /// The connection has no descriptor to look at (R3.7).
    Unseen,
}

/// What bytes meant that came while no answer was owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meant {
    /// There is no layer that has bytes of its own.
    Raw,
    /// TLS took them: tickets and key updates leave neither.
    Tls {
        /// The peer has closed, or sent an alert or what is no TLS.
        closed: bool,
        /// Bytes came out of it.
        data: bool,
    },
    /// A session took them: pings, grants and ends of single streams leave nothing.
    Session {
        /// It has ended.
        over: bool,
        /// The peer takes no more streams.
        gone_away: bool,
        /// Bytes came on a stream that owed none.
        data: bool,
    },
}

/// Why a connection is not to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// The peer has closed it, or it failed.
    Closed,
    /// The peer said that it goes away.
    GoneAway,
    /// Bytes came that nobody asked for.
    Stray,
}

impl Dead {
    /// For the log, and as the name of a metric's reason.
    pub const fn text(self) -> &'static str {
        match self {
            Dead::Closed => "closed",
            Dead::GoneAway => "gone_away",
            Dead::Stray => "stray",
        }
    }
}

/// Decides.
///
/// # Errors
/// Why the connection must not be used.
pub fn verdict(look: Look) -> Result<(), Dead> {
    match look {
        Look::Nothing | Look::Unseen => Ok(()),
        Look::End | Look::Failed => Err(Dead::Closed),
        Look::Bytes(Meant::Raw) => Err(Dead::Stray),
        Look::Bytes(Meant::Tls { closed, data } | Meant::Session { over: closed, data, gone_away: false }) => {
            match (closed, data) {
                (true, _) => Err(Dead::Closed),
                (false, true) => Err(Dead::Stray),
                (false, false) => Ok(()),
            }
        }
        Look::Bytes(Meant::Session { over: true, .. }) => Err(Dead::Closed),
        Look::Bytes(Meant::Session { .. }) => Err(Dead::GoneAway),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R3.1, R3.4, R3.5, R3.7
    #[test]
    fn bytes_of_a_layer_are_no_sign_of_death() {
        let tls = |closed, data| Look::Bytes(Meant::Tls { closed, data });
        let session = |over, gone_away, data| Look::Bytes(Meant::Session { over, gone_away, data });
        for (look, expected) in [
            (Look::End, Err(Dead::Closed)),
            (Look::Failed, Err(Dead::Closed)),
            (Look::Nothing, Ok(())),
            (Look::Unseen, Ok(())),
            (Look::Bytes(Meant::Raw), Err(Dead::Stray)),
            (tls(false, false), Ok(())),
            (tls(true, false), Err(Dead::Closed)),
            (tls(false, true), Err(Dead::Stray)),
            (tls(true, true), Err(Dead::Closed)),
            (session(false, false, false), Ok(())),
            (session(true, true, true), Err(Dead::Closed)),
            (session(true, false, false), Err(Dead::Closed)),
            (session(false, true, false), Err(Dead::GoneAway)),
            (session(false, true, true), Err(Dead::GoneAway)),
            (session(false, false, true), Err(Dead::Stray)),
        ] {
            assert_eq!(verdict(look), expected, "{look:?}");
        }
    }
}
