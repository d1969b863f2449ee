//! What may be tried again after a call to another server has ended badly: a pure table (requirements R2.1, R3.10).

/// What clients tell a write by that may or may not have happened; the HTTP API answers 504 for it.
pub const OUTCOME_UNKNOWN: &str = "outcome unknown: the leader was lost after the write was sent";

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
    /// The other server answered with this error.
    Error(&'a str),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Wait a little, and look again who leads.
    Again,
    /// [`OUTCOME_UNKNOWN`].
    Unknown,
    /// Tell the caller.
    Tell,
}

/// Decides. `repeatable` for calls that change nothing, so that twice is as good as once.
pub fn after(ended: Ended<'_>, repeatable: bool) -> Next {
    match ended {
        Ended::NotSent => Next::Again,
        Ended::Lost if repeatable => Next::Again,
        Ended::Lost => Next::Unknown,
        Ended::TimedOut if repeatable => Next::Tell,
        Ended::TimedOut => Next::Unknown,
        // Both are said before anything is done.
        Ended::Error(text) if text.ends_with("No cluster leader") => Next::Again,
        Ended::Error(text) if text.ends_with("Not ready to serve consistent reads") => Next::Again,
        Ended::Error(_) => Next::Tell,
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
        for (ended, read, write) in [
            (NotSent, Next::Again, Next::Again),
            (Lost, Next::Again, Next::Unknown),
            (TimedOut, Next::Tell, Next::Unknown),
            (Error("No cluster leader"), Next::Again, Next::Again),
            (Error("rpc error: No cluster leader"), Next::Again, Next::Again),
            (Error("Not ready to serve consistent reads"), Next::Again, Next::Again),
            (Error("Permission denied"), Next::Tell, Next::Tell),
            (Error("leadership lost while committing log"), Next::Tell, Next::Tell),
        ] {
            assert_eq!((after(ended, true), after(ended, false)), (read, write), "{ended:?}");
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
