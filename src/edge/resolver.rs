//! Names to addresses, by the system's resolver, on threads of their own: it blocks, and has no limit but its own
//! (requirement R8.19: each dial asks again).
//!
//! A name that is asked for too late, or while too many wait, is an error at once and never holds up the loop.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::base::time::{Clock, Instant};

use super::clock::SystemClock;
use super::inbox::{Post, Told};

/// Threads that ask the system. More than one, so that a name whose servers are silent holds up no other.
const THREADS: usize = 2;
/// Names that wait for a thread.
const WAITING_MAX: usize = 64;

/// A name to be resolved.
struct Question {
    ticket: u64,
    host: String,
    port: u16,
    /// Nobody waits for the answer any longer.
    deadline: Instant,
}

/// Asks the system. Its threads end with it, or with the process while they wait for the system.
#[derive(Debug)]
pub(super) struct Resolver {
    questions: Sender<Question>,
}

impl Resolver {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has no more of them.
    pub(super) fn start(clock: SystemClock, post: &Post) -> io::Result<Resolver> {
        let (questions, receiver) = crossbeam_channel::bounded(WAITING_MAX);
        for _ in 0..THREADS {
            let (receiver, post): (Receiver<Question>, Post) = (receiver.clone(), post.clone());
            thread::Builder::new().name("resolver".to_owned()).spawn(move || {
                for question in receiver {
                    let Some(told) = answer(question, clock.now()) else { continue };
                    if !post.tell(told) {
                        return;
                    }
                }
            })?;
        }
        Ok(Resolver { questions })
    }

    /// Asks for a name; the loop is told [`Told::Resolved`].
    ///
    /// # Errors
    /// Too many names wait.
    pub(super) fn ask(&self, ticket: u64, host: &str, port: u16, deadline: Instant) -> Result<(), &'static str> {
        let question = Question { ticket, host: host.to_owned(), port, deadline };
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => "too many names wait to be resolved",
            TrySendError::Disconnected(_) => "the resolver has ended",
        })
    }
}

/// `None` when it is too late.
fn answer(question: Question, now: Instant) -> Option<Told> {
    if now >= question.deadline {
        return None;
    }
    let found = (question.host.as_str(), question.port).to_socket_addrs();
    let result = match found.map(Iterator::collect::<Vec<SocketAddr>>) {
        Ok(addresses) if addresses.is_empty() => Err("no such host".to_owned()),
        Ok(addresses) => Ok(addresses),
        Err(error) => Err(words(&error)),
    };
    Some(Told::Resolved { ticket: question.ticket, result })
}

/// The resolver's texts as Go's `net` has them.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    let none = ["Name or service not known", "No address associated", "Name does not resolve", "nodename nor servname"];
    if none.iter().any(|known| text.contains(known)) {
        "no such host".to_owned()
    } else if text.contains("Temporary failure") || text.contains("Try again") {
        "server misbehaving".to_owned()
    } else {
        text.strip_prefix("failed to lookup address information: ").unwrap_or(&text).to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    fn ask(host: &str, now: Instant) -> Option<Result<Vec<SocketAddr>, String>> {
        let deadline = Instant::ZERO + Duration::from_secs(1);
        let question = Question { ticket: 7, host: host.to_owned(), port: 4647, deadline };
        answer(question, now).map(|told| match told {
            Told::Resolved { ticket: 7, result } => result,
            other => panic!("{other:?}"),
        })
    }

    // R8.19
    #[test]
    fn names_are_asked_for_in_time_only() {
        let found = ask("localhost", Instant::ZERO).unwrap().unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback() && address.port() == 4647));
        assert!(ask("localhost", Instant::ZERO + Duration::from_secs(1)).is_none());
        // A label of 64 bytes is no name: no server is asked for it.
        assert!(ask(&"x".repeat(64), Instant::ZERO).unwrap().is_err());
    }

    #[test]
    fn errors_are_in_the_words_of_go() {
        let wrapped = |text: &str| io::Error::other(format!("failed to lookup address information: {text}"));
        for (text, wanted) in [
            ("Name or service not known", "no such host"),
            ("No address associated with hostname", "no such host"),
            ("Temporary failure in name resolution", "server misbehaving"),
            ("Memory allocation failure", "Memory allocation failure"),
        ] {
            assert_eq!(words(&wrapped(text)), wanted);
        }
    }
}
