//! A lock as its holder sees it: taken, renewed, given back by calls to the server.
//!
//! The holder makes the lock's id itself, so that an acquire whose answer was lost can be asked for again, or given
//! back, without knowing whether it was granted. Items that the variable has are kept: a server of ours is told to
//! leave them alone, and gets them again for servers that know no such thing.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::base::time::Instant;
use crate::cli::args::LockArgs;
use crate::cli::under_lock::log_line;
use crate::cli::var::{query, write};
use crate::cli::{Context, Failure};
use crate::client::boot_now as now;
use crate::client::{self, Client};
use crate::wire::body::var::{
    Variable, VariableLock, VariablesApplyRequest, VariablesApplyResponse, VariablesReadRequest, VariablesReadResponse,
    VariablesRenewLockRequest, VariablesRenewLockResponse,
};

/// A lock is renewed this many times within its TTL.
pub(crate) const RENEWALS_A_TTL: u32 = 3;
/// What failed is tried again after this.
pub(crate) const RETRY: Duration = Duration::from_millis(250);
/// Servers let nobody wait longer for a turn.
const TURN_MAX: Duration = Duration::from_secs(300);

/// A lock that is wanted, and after [`Claim::acquire`] held.
pub(crate) struct Claim<'a> {
    context: &'a Context,
    args: &'a LockArgs,
    pub(crate) path: String,
    /// A bearer secret.
    pub(crate) id: String,
}

/// What a lock that was taken is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Rises with each holder; 0 with servers that have none.
    pub(crate) fence: u64,
    /// Before the request was sent that gave the time that is left.
    pub(crate) since: Instant,
}

/// Why a lock was not renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotRenewed {
    /// It is not ours any more.
    Lost(String),
    /// It may be ours, and can be tried again.
    Unknown(String),
}

impl<'a> Claim<'a> {
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn new(context: &'a Context, args: &'a LockArgs) -> Result<Claim<'a>, Failure> {
        Ok(Claim { context, args, path: args.path.clone().unwrap_or_default(), id: client::new_id()? })
    }

    /// Takes the lock; `None` when another holds it still after the time to wait.
    ///
    /// # Errors
    /// The client's. What the outcome of is unknown was given back.
    pub(crate) fn acquire(&self) -> Result<Option<Taken>, Failure> {
        let mut client = self.context.client();
        let give_up = now() + self.args.wait;
        let mut told = false;
        loop {
            let since = now();
            let failure = match self.ask(&mut client, give_up.since(since).min(TURN_MAX)) {
                Ok(Some(fence)) if self.args.wait.is_zero() => return Ok(Some(Taken { fence, since })),
                Ok(Some(fence)) => return self.after_a_wait(&mut client, fence).map(Some),
                Ok(None) => None,
                Err(failure) => Some(failure),
            };
            let is_over = now() + RETRY >= give_up;
            match failure {
                None if is_over => return Ok(None),
                Some(failure) if is_over || !passes(&failure) => {
                    if may_be_done(&failure) {
                        let _ = self.release();
                    }
                    return Err(failure);
                }
                Some(failure) if !told => {
                    log_line(&format!("{failure}: trying again"));
                    told = true;
                }
                _ => {}
            }
            thread::sleep(RETRY);
        }
    }

    /// How long its turn took is not known; a renewal counts from now.
    fn after_a_wait(&self, client: &mut Client, fence: u64) -> Result<Taken, Failure> {
        let since = now();
        match self.renew(client) {
            Ok(()) => Ok(Taken { fence, since }),
            Err(NotRenewed::Lost(text) | NotRenewed::Unknown(text)) => {
                let _ = self.release();
                Err(Failure::Lost(format!("the lock of {} was taken, and could not be renewed: {text}", self.path)))
            }
        }
    }

    /// Asks for the lock once; its fence, or `None` when another holds it.
    fn ask(&self, client: &mut Client, wait: Duration) -> Result<Option<u64>, Failure> {
        let lock = VariableLock {
            id: self.id.clone(),
            ttl: nanos(self.args.ttl),
            // 0 would stand for the server's default.
            lock_delay: nanos(self.args.delay).max(1),
        };
        let var = Variable { lock: Some(lock), items: Some(self.items(client)?), ..self.variable() };
        let request = VariablesApplyRequest {
            op: "lock-acquire".to_owned(),
            var: Some(var),
            owner: self.args.owner.clone().unwrap_or_else(default_owner),
            wait_time: nanos(wait),
            keep_items: true,
            write: write(self.context, &self.args.namespace),
            ..VariablesApplyRequest::default()
        };
        let limit = self.context.settings.timeout.saturating_add(wait);
        let reply: VariablesApplyResponse = client.call_within("Variables.Apply", &request, limit)?;
        Ok((reply.result == "ok").then_some(reply.fence))
    }

    /// The items that are there, for servers that put those of the request in their place.
    fn items(&self, client: &mut Client) -> Result<BTreeMap<String, String>, Failure> {
        let request =
            VariablesReadRequest { path: self.path.clone(), query: query(self.context, &self.args.namespace) };
        let reply: VariablesReadResponse = client.call("Variables.Read", &request)?;
        Ok(reply.data.and_then(|var| var.items).unwrap_or_default())
    }

    /// Asks for the whole TTL again.
    ///
    /// # Errors
    /// Whether it is lost, or may be tried again.
    pub(crate) fn renew(&self, client: &mut Client) -> Result<(), NotRenewed> {
        let request = VariablesRenewLockRequest {
            path: self.path.clone(),
            lock_id: self.id.clone(),
            write: write(self.context, &self.args.namespace),
        };
        let limit = (self.args.ttl / RENEWALS_A_TTL).min(self.context.settings.timeout);
        let reply = client.call_within::<_, VariablesRenewLockResponse>("Variables.RenewLock", &request, limit);
        reply.map(|_| ()).map_err(|error| match error {
            // Anything else, as that there is no leader, says nothing about the lock.
            client::Error::Answered { text, .. } if is_lost(&text) => {
                NotRenewed::Lost(Failure::words(&text).to_owned())
            }
            other => NotRenewed::Unknown(Failure::Call(other).to_string()),
        })
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// The client's.
    pub(crate) fn release(&self) -> Result<(), Failure> {
        let lock = VariableLock { id: self.id.clone(), ..VariableLock::default() };
        let request = VariablesApplyRequest {
            op: "lock-release".to_owned(),
            var: Some(Variable { lock: Some(lock), ..self.variable() }),
            write: write(self.context, &self.args.namespace),
            ..VariablesApplyRequest::default()
        };
        let reply: VariablesApplyResponse = self.context.client().call("Variables.Apply", &request)?;
        if reply.result == "ok" { Ok(()) } else { Err(Failure::Other("another holds it".to_owned())) }
    }

    fn variable(&self) -> Variable {
        Variable { namespace: self.args.namespace.clone(), path: self.path.clone(), ..Variable::default() }
    }

    /// Gives the lock back after the command; what goes wrong is only said.
    pub(crate) fn give_back(&self) {
        if let Err(error) = self.release() {
            log_line(&format!("the lock of {} was not given back, and ends by its TTL: {error}", self.path));
        }
    }
}

/// Whether the answer to a renewal says that the lock is gone: no variable, no lock, or another one.
fn is_lost(text: &str) -> bool {
    text.starts_with("RPC Error:: 404,") || text.starts_with("RPC Error:: 409,")
}

/// Whether it is worth to ask again: the server was not there, or had no leader.
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Call(client::Error::OutcomeUnknown { cause, .. }) => !matches!(**cause, client::Error::Malformed(_)),
        Failure::Call(client::Error::Malformed(_)) => false,
        Failure::Call(error) => error.class().may_try_again(true),
        _ => false,
    }
}

/// Whether the server may have done what it was asked for.
fn may_be_done(failure: &Failure) -> bool {
    matches!(failure, Failure::Call(error) if error.is_outcome_unknown())
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// `user@host`, as far as it is known.
fn default_owner() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = named.unwrap_or_else(|| format!("uid{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    // R8.2: that nobody leads, or that a token has ended, does not say that somebody else has the lock.
    #[test]
    fn only_an_answer_about_the_lock_loses_it() {
        for (text, lost) in [
            ("RPC Error:: 404,variable doesn't exist", true),
            ("RPC Error:: 409,variable doesn't hold a lock", true),
            ("RPC Error:: 409,attempting to modify locked variable", true),
            ("No cluster leader", false),
            ("Not ready to serve consistent reads", false),
            ("Permission denied", false),
            ("rpc error: failed to get conn: dial tcp 10.0.0.1:4647: connect: connection refused", false),
        ] {
            assert_eq!(is_lost(text), lost, "{text}");
        }
    }

    #[test]
    fn what_passes_is_asked_for_again() {
        let refused = |text: &str| Failure::Call(client::Error::answered(text));
        assert!(passes(&refused("rpc error: No cluster leader")));
        assert!(passes(&Failure::Call(client::Error::Broken("reset".to_owned()))));
        assert!(!passes(&refused("Permission denied")));
        assert!(!passes(&Failure::Usage("wrong".to_owned())));
    }
}
