//! Runs one job: from what a handler is to do to what it wants. A pure function of the job and a root of the state.
//!
//! The handler pool calls it for heavy work, the server for light work. A handler that panics harms its own request
//! and nothing else.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::api;
use crate::api::Request;
use crate::state::State;

use super::http::show;
use super::keyring::reseal;
use super::port::{Job, JobOutcome, Work};
use super::restore::unpack;

/// Runs a job against a root of the state.
///
/// Never panics: a handler's panic comes back as [`JobOutcome::Panicked`].
pub fn run_job(job: &Job, state: &State) -> JobOutcome {
    // A handler takes everything by shared reference and the state is immutable, so that nothing half-changed can be
    // seen after a panic.
    match catch_unwind(AssertUnwindSafe(|| run_work(job, state))) {
        Ok(outcome) => outcome,
        Err(payload) => JobOutcome::Panicked(panic_text(payload.as_ref())),
    }
}

fn run_work(job: &Job, state: &State) -> JobOutcome {
    match &job.work {
        Work::Call { method, body, base, last_run } => {
            let request = Request { method: method.name, body, base: *base, caller: &job.caller, last_run: *last_run };
            JobOutcome::Call((method.run)(&request, state, &job.ctx))
        }
        Work::Streaming { method, body, base } => {
            let request = Request { method: method.name, body, base: *base, caller: &job.caller, last_run: true };
            JobOutcome::Streaming((method.run)(&request, state, &job.ctx))
        }
        Work::Show { view, result } => JobOutcome::Shown(show(view, result)),
        Work::Reseal { most } => JobOutcome::Resealed(reseal(*most, state, &job.ctx)),
        Work::Digest { index, state } => JobOutcome::Digested { index: *index, digest: state.table_digests() },
        Work::Restore { archive } => JobOutcome::Unpacked(unpack(archive).map(Arc::new)),
        Work::Finish { finish, resolved } => JobOutcome::Call(api::finish(finish, resolved, state, &job.ctx)),
    }
}

pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a text".to_owned())
}
