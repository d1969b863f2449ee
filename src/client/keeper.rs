//! The one thread of a client: it keeps sessions alive and closes connections that were idle for too long.
//!
//! It begins with the first session and ends with the last.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::error::Error;
use crate::client::session::SessionCore;

/// A session that could not be kept alive is tried again after this.
const RETRY: Duration = Duration::from_millis(250);

/// Who is kept.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    list: Mutex<List>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct List {
    sessions: Vec<Weak<SessionCore>>,
    runs: bool,
}

impl Keeper {
    /// Keeps a session alive while it has handles.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn keep(&self, session: &Arc<SessionCore>) -> Result<(), Error> {
        let mut list = self.inner.list();
        list.sessions.push(Arc::downgrade(session));
        if !list.runs {
            let inner = Arc::clone(&self.inner);
            let thread = thread::Builder::new().name("holdfast-keeper".to_owned()).spawn(move || inner.run());
            thread.map_err(|error| Error::System(format!("no thread can be started: {error}")))?;
            list.runs = true;
        }
        drop(list);
        self.wake();
        Ok(())
    }

    /// Has the thread look again.
    pub(crate) fn wake(&self) {
        // Whoever is about to wait has looked before this, and hears it.
        drop(self.inner.list());
        self.inner.woken.notify_all();
    }

    #[cfg(test)]
    pub(crate) fn runs(&self) -> bool {
        self.inner.list().runs
    }
}

impl Inner {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut list = self.list();
        loop {
            list.sessions.retain(|session| session.strong_count() > 0);
            if list.sessions.is_empty() {
                list.runs = false;
                return;
            }
            let sessions = list.sessions.clone();
            drop(list);
            let next = keep_all(&sessions);
            list = self.list();
            if list.sessions.iter().all(|session| session.strong_count() > 0) && list.sessions.len() == sessions.len() {
                let wait = next.saturating_duration_since(Instant::now());
                list = self.woken.wait_timeout(list, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

/// Keeps alive whatever is due; says when the next is.
fn keep_all(sessions: &[Weak<SessionCore>]) -> Instant {
    let mut next = Instant::now() + Duration::from_secs(60);
    for session in sessions.iter().filter_map(Weak::upgrade) {
        if session.renewal_due() <= Instant::now() {
            session.keep_alive();
            session.sweep();
            next = next.min(session.renewal_due().max(Instant::now() + RETRY));
        } else {
            next = next.min(session.renewal_due());
        }
    }
    next
}
