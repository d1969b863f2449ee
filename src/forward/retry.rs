//! What may be tried again after a call to another server has ended badly: a pure table (requirements R2.1, R3.10).

use crate::wire::class::Class;

/// What clients tell a plain write by that may or may not have happened; the HTTP API answers 504 for it.
pub const LOST_AFTER_SENT: &str = "outcome unknown: the leader was lost after the write was sent";

/// What is put before an error of another server, once for each hop (R1.77).
const PREFIX: &str = "rpc error: ";

/// How a call to another server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended<'a> {
    /// Surely not a byte of it has left: no connection, or none that took it.
    NotSent,
    /// Its stream or connection ended after some of it may have left.
    Lost,
    /// No answer came in time.
    TimedOut,
    /// The other server answered with this error, of this class.
    Error(&'a str, Class),
}

impl Ended<'_> {
    /// Whether the call may have been carried out, or may yet be.
    pub fn leaves_unsure(self) -> bool {
        match self {
            Ended::NotSent => false,
            Ended::Lost | Ended::TimedOut => true,
            Ended::Error(_, class) => !class.surely_not_applied(),
        }
    }
}

/// What making a call twice would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: it changes nothing.
    Read,
    /// Nothing: its place in a session makes it happen once (R2.31).
    Stamped,
    /// It may happen twice.
    Write,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait a little, and look again who leads.
    Again,
    /// [`LOST_AFTER_SENT`].
    Unknown,
    /// Tell the caller.
    Tell,
}

/// Decides.
pub fn after(ended: Ended<'_>, kind: Kind) -> Next {
    let repeatable = kind != Kind::Write;
    match ended {
        Ended::NotSent => Next::Again,
        Ended::Lost if repeatable => Next::Again,
        Ended::TimedOut if kind == Kind::Read => Next::Tell,
        Ended::Lost | Ended::TimedOut => Next::Unknown,
        Ended::Error(_, class) if class.may_try_again(repeatable) => Next::Again,
        Ended::Error(..) => Next::Tell,
    }
}

/// An error of another server, as the caller is told. One with a code stays as it is: its code must come first.
pub fn told(text: &str) -> String {
    if text.starts_with("RPC Error:: ") { text.to_owned() } else { format!("{PREFIX}{text}") }
}

/// The error of a call for which there is no connection.
pub fn no_connection(error: &str) -> String {
    format!("{PREFIX}failed to get conn: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_surely_changed_nothing_is_tried_again() {
        // R1.67, R2.20, R3.9, R3.10
        use Ended::*;
        use Next::*;
        let error = |text: &'static str| Error(text, Class::of_text(text));
        for (ended, read, stamped, write) in [
            (NotSent, Again, Again, Again),
            (Lost, Again, Again, Unknown),
            (TimedOut, Tell, Unknown, Unknown),
            (error("No cluster leader"), Again, Again, Again),
            (error("rpc error: No cluster leader"), Again, Again, Again),
            (error("Not ready to serve consistent reads"), Again, Again, Again),
            (error("Permission denied"), Tell, Tell, Tell),
            (error("leadership lost while committing log"), Again, Again, Tell),
            (error("outcome unknown: nobody knows"), Tell, Tell, Tell),
            // What the other server says itself goes before its text.
            (Error("no node is called \"No cluster leader\"", Class::Refused), Tell, Tell, Tell),
        ] {
            let kinds = [Kind::Read, Kind::Stamped, Kind::Write].map(|kind| after(ended, kind));
            assert_eq!(kinds, [read, stamped, write], "{ended:?}");
        }
    }

    #[test]
    fn a_hop_puts_its_words_before_an_error_but_not_before_a_code() {
        // R1.77
        assert_eq!(told("missing node ID"), "rpc error: missing node ID");
        assert_eq!(told(&told("missing node ID")), "rpc error: rpc error: missing node ID");
        assert_eq!(told("RPC Error:: 404,nope"), "RPC Error:: 404,nope");
    }
}
