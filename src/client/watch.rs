//! Changes, one after another, by blocking queries: resumed after errors, and never going back in index.

use std::time::{Duration, Instant};

use crate::client::Client;
use crate::client::error::{Class, Error};
use crate::client::retry::Pauses;
use crate::wire::body::query::QueryOptions;

/// What a server is asked to wait at most; it adds up to a sixteenth of its own.
const WAIT: Duration = Duration::from_secs(60);
/// Beyond that, an answer is late.
const GRACE: Duration = Duration::from_secs(15);
/// An iterator bears with errors that pass for so long before it says so.
const TROUBLE: Duration = Duration::from_secs(60);

type Ask<T> = Box<dyn FnMut(QueryOptions, Duration) -> Result<(T, u64), Error> + Send>;

/// An iterator over the states of something: the first at once, each other when it changed.
///
/// It holds a connection while it waits. What changes twice while nobody looks is seen once. Errors that pass, as that
/// no server can be reached, are borne for a minute; then they are told, and the next call goes on.
pub struct Watch<T> {
    ask: Ask<T>,
    query: QueryOptions,
    client: Client,
    last: Option<T>,
    index: u64,
}

impl<T: Clone + PartialEq> Watch<T> {
    pub(crate) fn new(
        query: QueryOptions,
        client: &Client,
        ask: impl FnMut(QueryOptions, Duration) -> Result<(T, u64), Error> + Send + 'static,
    ) -> Watch<T> {
        Watch { ask: Box::new(ask), query, client: client.clone(), last: None, index: 0 }
    }

    /// The index of the state that was seen last; it never falls.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The next state; `None` when nothing changed within `limit`.
    ///
    /// # Errors
    /// A server's refusal, and errors that did not pass within `limit`.
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<T>, Error> {
        let deadline = Instant::now() + limit;
        let client = self.client.clone();
        let mut pauses = Pauses::new(&client.core.rng);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            match self.ask_once(left) {
                Ok(Some(state)) => return Ok(Some(state)),
                Ok(None) => pauses = Pauses::new(&client.core.rng),
                Err(Error::Deadline { .. }) if Instant::now() >= deadline => return Ok(None),
                Err(error) if !passes(error.class()) || !pauses.wait(deadline) => return Err(error),
                Err(error) => log::debug!("watching goes on after: {error}"),
            }
        }
    }

    /// Asks once; `None` when nothing new was heard.
    fn ask_once(&mut self, left: Duration) -> Result<Option<T>, Error> {
        let wait = WAIT.min(left);
        let mut query = QueryOptions { min_query_index: self.index, ..self.query.clone() };
        if self.index > 0 {
            query.max_query_time = i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        }
        let patience = if self.index > 0 { wait + GRACE } else { self.client.settings().timeout };
        let (state, index) = (self.ask)(query, patience)?;
        // A server that is behind, or a state that was restored from an older one, is not gone back to.
        if index < self.index {
            return Ok(None);
        }
        self.index = index.max(1);
        if self.last.as_ref() == Some(&state) {
            return Ok(None);
        }
        self.last = Some(state.clone());
        Ok(Some(state))
    }
}

impl<T: Clone + PartialEq> Iterator for Watch<T> {
    type Item = Result<T, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(TROUBLE) {
                Ok(None) => {}
                Ok(Some(state)) => return Some(Ok(state)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<T> std::fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Whether asking again may help.
fn passes(class: Class) -> bool {
    class.may_try_again(true)
}
