//! What an error means for whoever made the call: did nothing happen, did it happen, or does nobody know?
//!
//! One table for the client library, for servers that pass calls on, and for relays. A server says the class of an error
//! in a field of its own in the reply's head to whoever shows that it knows it ([`crate::wire::body::session`]); where
//! the field is missing, as from other peers, the class is read from the text. holdfast-protocol(7) says the same to
//! authors of clients, and the tests of the pages hold it to this table. Source: requirements R2.1 to R2.13,
//! R2.38.

/// How a call that has no result ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Surely not a byte of the request has left, or none that anybody acted on: it can be made anew.
    NotSent,
    /// The connection broke, or the answer was no answer, after bytes of the request had left.
    Broken,
    /// The server that was asked does not lead, or cannot serve yet: nothing was appended.
    NotLeader,
    /// The write was appended, and the leader lost its office before it was committed: it may yet be applied.
    LeadershipLost,
    /// It was bound to a leadership that is over: nothing happened.
    StaleBinding,
    /// The session is over, or was never there: nothing happened now.
    SessionExpired,
    /// Said no, for good: nothing happened.
    Refused,
    /// Whether the write was applied is not known, and nobody will find out by waiting.
    OutcomeUnknown,
}

/// Begins the text of every error whose outcome is unknown.
pub const OUTCOME_UNKNOWN: &str = "outcome unknown";

/// The text of a write in a session that is over.
pub const SESSION_EXPIRED: &str = "session expired";

/// The text where state bound to a leadership outlived it.
pub const STALE_BINDING: &str = "stale binding";

/// The text of whoever knows no leader, and of one that does not lead.
pub const NO_LEADER: &str = "No cluster leader";

/// The text of a leader that has not caught up.
pub const NOT_READY: &str = "Not ready to serve consistent reads";

/// The text of a write whose leader lost its office before it was committed (R1.71).
pub const LEADERSHIP_LOST: &str = "leadership lost while committing log";

/// The text for whoever shows a key that is not the session's.
pub const WRONG_SESSION_KEY: &str = "session key is wrong";

/// The text of a heartbeat that was written by a leader which could not set the node's timer any more.
pub const HEARTBEAT_NOT_RESET: &str = "failed to reset heartbeat since server is not leader";

/// What each hop, and some layers between, put before an error (R1.77, R2.38).
const PREFIX: &str = "rpc error: ";

/// The ends and beginnings by which texts are known: ours and those of other peers.
const TEXTS: [(&str, At, Class); 13] = [
    (OUTCOME_UNKNOWN, At::Start, Class::OutcomeUnknown),
    (SESSION_EXPIRED, At::Start, Class::SessionExpired),
    (STALE_BINDING, At::Start, Class::StaleBinding),
    (LEADERSHIP_LOST, At::End, Class::LeadershipLost),
    ("raft is already shutdown", At::End, Class::LeadershipLost),
    (HEARTBEAT_NOT_RESET, At::End, Class::LeadershipLost),
    (NO_LEADER, At::End, Class::NotLeader),
    (NOT_READY, At::End, Class::NotLeader),
    ("node is not the leader", At::End, Class::NotLeader),
    ("leadership transfer in progress", At::End, Class::NotLeader),
    ("failed to get conn", At::Start, Class::NotSent),
    ("lead thread didn't get connection", At::End, Class::NotSent),
    ("timed out enqueuing operation", At::End, Class::Refused),
];

/// Where in an error its text lies.
#[derive(Clone, Copy)]
enum At {
    Start,
    End,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 8] = [
        Class::NotSent,
        Class::Broken,
        Class::NotLeader,
        Class::LeadershipLost,
        Class::StaleBinding,
        Class::SessionExpired,
        Class::Refused,
        Class::OutcomeUnknown,
    ];

    /// Its name on the wire, in metrics and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Class::NotSent => "not-sent",
            Class::Broken => "broken",
            Class::NotLeader => "not-leader",
            Class::LeadershipLost => "leadership-lost",
            Class::StaleBinding => "stale-binding",
            Class::SessionExpired => "session-expired",
            Class::Refused => "refused",
            Class::OutcomeUnknown => "outcome-unknown",
        }
    }

    /// The class of that name.
    pub fn from_word(word: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.word() == word)
    }

    /// The class of an error that a server answered with: as it said itself in `word`, else by the text.
    pub fn of(word: &str, text: &str) -> Class {
        Class::from_word(word).unwrap_or_else(|| Class::of_text(text))
    }

    /// The class of a server's error by its text alone, whatever hops have put before it.
    pub fn of_text(text: &str) -> Class {
        let bare = without_prefixes(text);
        let known = TEXTS.iter().find(|(known, at, _)| match at {
            At::Start => bare.starts_with(known),
            At::End => bare.ends_with(known),
        });
        known.map_or(Class::Refused, |(_, _, class)| *class)
    }

    /// The class of an error that a handler gave: a refusal, whatever words of its caller are in it, but for a few whole
    /// texts.
    pub fn of_handler(text: &str) -> Class {
        match text {
            SESSION_EXPIRED => Class::SessionExpired,
            HEARTBEAT_NOT_RESET => Class::LeadershipLost,
            text if text.starts_with(OUTCOME_UNKNOWN) => Class::OutcomeUnknown,
            _ => Class::Refused,
        }
    }

    /// Whether the call surely changed nothing, so that making it again cannot do it twice.
    pub fn surely_not_applied(self) -> bool {
        !matches!(self, Class::Broken | Class::LeadershipLost | Class::OutcomeUnknown)
    }

    /// Whether another try may end better: a call that changes nothing, or a write with a place in a session
    /// (`repeatable`), may be made again after all of these; any other write only when surely nothing happened.
    pub fn may_try_again(self, repeatable: bool) -> bool {
        match self {
            Class::NotSent | Class::NotLeader => true,
            Class::Broken | Class::LeadershipLost => repeatable,
            Class::StaleBinding | Class::SessionExpired | Class::Refused | Class::OutcomeUnknown => false,
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// An error without what hops have put before it, and without the code of a coded one.
pub fn without_prefixes(text: &str) -> &str {
    let mut bare = text;
    while let Some(rest) = bare.strip_prefix(PREFIX) {
        bare = rest;
    }
    bare.strip_prefix("RPC Error:: ").and_then(|coded| coded.split_once(',')).map_or(bare, |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // R2.5, R2.6, R2.10, R2.12, R2.13, R2.28, R2.38
    #[test]
    fn a_text_gives_the_same_class_however_many_hops_it_came() {
        for (text, class) in [
            ("No cluster leader", Class::NotLeader),
            ("node is not the leader", Class::NotLeader),
            ("Not ready to serve consistent reads", Class::NotLeader),
            ("leadership transfer in progress", Class::NotLeader),
            ("leadership lost while committing log", Class::LeadershipLost),
            ("raft is already shutdown", Class::LeadershipLost),
            ("failed to reset heartbeat since server is not leader", Class::LeadershipLost),
            ("failed to get conn: connection refused", Class::NotSent),
            ("lead thread didn't get connection", Class::NotSent),
            ("outcome unknown: the leader was lost after the write was sent", Class::OutcomeUnknown),
            ("session expired", Class::SessionExpired),
            ("stale binding: the leader that began this leads no longer", Class::StaleBinding),
            ("Permission denied", Class::Refused),
            ("variable \"No cluster leader\" has no items", Class::Refused),
            ("the text outcome unknown is somewhere in it", Class::Refused),
            ("timed out enqueuing operation", Class::Refused),
            ("", Class::Refused),
        ] {
            for hops in 0..3 {
                let told = format!("{}{text}", PREFIX.repeat(hops));
                assert_eq!(Class::of_text(&told), class, "{told}");
                assert_eq!(Class::of("", &told), class, "{told}");
                assert_eq!(Class::of("no-such-class", &told), class, "{told}");
                // What a server says itself goes before any reading of texts.
                assert_eq!(Class::of("refused", &told), Class::Refused, "{told}");
            }
        }
        assert_eq!(Class::of_text("RPC Error:: 503,No cluster leader"), Class::NotLeader);
    }

    #[test]
    fn what_a_handler_says_is_a_refusal_but_for_a_few_texts() {
        assert_eq!(Class::of_handler("No cluster leader"), Class::Refused);
        assert_eq!(Class::of_handler("session expired"), Class::SessionExpired);
        assert_eq!(Class::of_handler("outcome unknown: its answer is lost"), Class::OutcomeUnknown);
        assert_eq!(Class::of_handler(HEARTBEAT_NOT_RESET), Class::LeadershipLost);
    }

    #[test]
    fn every_class_has_a_word_and_is_found_by_it() {
        for class in Class::ALL {
            assert_eq!(Class::from_word(class.word()), Some(class));
        }
        assert_eq!(Class::from_word(""), None);
    }

    // R2.1, R2.5, R2.6, R3.10
    #[test]
    fn only_what_may_be_made_again_is() {
        for (class, plain_write, repeatable) in [
            (Class::NotSent, true, true),
            (Class::Broken, false, true),
            (Class::NotLeader, true, true),
            (Class::LeadershipLost, false, true),
            (Class::StaleBinding, false, false),
            (Class::SessionExpired, false, false),
            (Class::Refused, false, false),
            (Class::OutcomeUnknown, false, false),
        ] {
            assert_eq!((class.may_try_again(false), class.may_try_again(true)), (plain_write, repeatable), "{class}");
            assert!(class.surely_not_applied() || !plain_write, "{class}");
        }
    }
}
