//! What calls have in common: who asks, of which region and namespace; and that a session can stand for its client.

use std::fmt;
use std::time::Duration;

use crate::client::error::Error;
use crate::client::{Client, Session};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::msgpack::Msg;

/// Who asks, and of what.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    /// `global` by default, as servers are named that are not told otherwise. They refuse a call that names none.
    pub region: String,
    /// Empty for `default`.
    pub namespace: String,
    /// The secret of a token. Never printed.
    pub token: String,
}

impl Default for Scope {
    fn default() -> Scope {
        Scope { region: "global".to_owned(), namespace: String::new(), token: String::new() }
    }
}

impl Scope {
    /// Options of a read that any server may answer.
    pub(crate) fn query(&self) -> QueryOptions {
        QueryOptions {
            region: self.region.clone(),
            namespace: self.namespace.clone(),
            auth_token: self.token.clone(),
            allow_stale: true,
            ..QueryOptions::default()
        }
    }

    /// Options of a read by the leader.
    pub(crate) fn fresh(&self) -> QueryOptions {
        QueryOptions { allow_stale: false, ..self.query() }
    }

    /// Options of a write.
    pub(crate) fn write(&self) -> WriteRequest {
        WriteRequest {
            region: self.region.clone(),
            namespace: self.namespace.clone(),
            auth_token: self.token.clone(),
            ..WriteRequest::default()
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("region", &self.region)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

/// A client, or a session of one: through a session writes are carried out exactly once, and reads see them.
pub trait Caller: Clone + Send + Sync + 'static {
    /// Makes a call within this time.
    ///
    /// # Errors
    /// By class, see [`Error`].
    fn call_within<Q: Msg, R: Msg>(&self, method: &str, request: &Q, limit: Duration) -> Result<R, Error>;

    /// The client.
    fn client(&self) -> &Client;

    /// Makes a call, within the time of the settings.
    ///
    /// # Errors
    /// By class, see [`Error`].
    fn call<Q: Msg, R: Msg>(&self, method: &str, request: &Q) -> Result<R, Error> {
        self.call_within(method, request, self.client().settings().timeout)
    }
}

impl Caller for Client {
    fn call_within<Q: Msg, R: Msg>(&self, method: &str, request: &Q, limit: Duration) -> Result<R, Error> {
        Client::call_within(self, method, request, limit)
    }

    fn client(&self) -> &Client {
        self
    }
}

impl Caller for Session {
    fn call_within<Q: Msg, R: Msg>(&self, method: &str, request: &Q, limit: Duration) -> Result<R, Error> {
        Session::call_within(self, method, request, limit)
    }

    fn client(&self) -> &Client {
        Session::client(self)
    }
}
