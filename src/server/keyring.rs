//! The key ring of this server: which key signs and seals, a new one when operators ask, and variables that are put
//! under it.
//!
//! A fresh key is on disk first, then in the log, then in use: whatever is lost in between, no variable is under a key
//! that is not there. Old variables are taken over in the background, some at a time, so that no entry grows with them.
//!
//! **Invariant:** what is sealed with is the newest key of the log, or the one that will be it.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::api::identity::Signer;
use crate::api::outcome::{Finish, Resolved};
use crate::api::seal::Sealer;
use crate::api::{self, Caller, Ctx};
use crate::base::id::CallId;
use crate::base::time::Instant;
use crate::consensus::Resolution;
use crate::state::{ApplyResult, State};
use crate::wire::class::{LEADERSHIP_LOST, NO_LEADER};
use crate::wire::entry::Command;
use crate::wire::entry::key::RootKey;
use crate::wire::entry::var::Resealed;
use crate::wire::msgpack::Bytes;

use super::Server;
use super::calls::Step;
use super::port::{Job, Output, Work};
use super::writing::Internal;

/// Whoever asked for a key hears by then.
const KEY_WAIT: Duration = Duration::from_secs(30);
/// Variables that are put under another key by one entry, at most.
const BATCH_VARS: usize = 128;
/// Bytes of items in one such entry, about.
const BATCH_BYTES: usize = 512 * 1024;
/// Variables that cannot be opened are passed over up to so many; then those behind them stay as they are.
const DAMAGED_MAX: usize = 4096;
/// After a step that could not be done.
const RESEAL_RETRY: Duration = Duration::from_secs(1);

/// What is going on with keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    making: Option<Making>,
    resealing: Option<Resealing>,
}

/// A key that was asked for.
#[derive(Debug)]
struct Making {
    call: CallId,
    finish: Finish,
    deadline: Instant,
    /// It is on disk, and on its way into the log.
    fresh: Option<(Arc<Signer>, Arc<Sealer>)>,
}

/// Variables are put under the newest key.
#[derive(Debug)]
struct Resealing {
    step: ResealStep,
    /// That could not be opened when last looked at.
    damaged: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResealStep {
    Running(CallId),
    Proposing,
    Waiting(Instant),
}

/// Some variables under their new key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// They, for [`Command::VarReseal`].
    pub items: Vec<Resealed>,
    /// How many could not be opened.
    pub damaged: usize,
    /// Why one of them could not.
    pub why: String,
}

impl Keys {
    /// When something is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let making = self.making.as_ref().map(|making| making.deadline);
        let waiting = self.resealing.as_ref().and_then(|resealing| match resealing.step {
            ResealStep::Waiting(until) => Some(until),
            _ => None,
        });
        making.into_iter().chain(waiting).min()
    }

    /// Whether this job of the pool is one of these.
    pub(super) fn is_job(&self, job: CallId) -> bool {
        self.resealing.as_ref().is_some_and(|resealing| resealing.step == ResealStep::Running(job))
    }
}

/// Opens variables that are not under the sealer's key, and seals them with it: as many of the first `most` as fit an
/// entry.
pub(super) fn reseal(most: usize, state: &State, ctx: &Ctx) -> Batch {
    let Some(sealer) = &ctx.sealer else { return Batch::default() };
    let mut batch = Batch::default();
    let mut bytes = 0;
    for (nth, var) in (0u64..).zip(state.vars_not_under(sealer.active_id(), most)) {
        let Some(old) = &var.sealed else { continue };
        if batch.items.len() == BATCH_VARS || bytes > 0 && bytes + old.bytes.0.len() > BATCH_BYTES {
            break;
        }
        let again = sealer
            .open(&var.namespace, &var.path, old)
            .and_then(|plain| sealer.seal(&var.namespace, &var.path, ctx.seed.wrapping_add(nth), &plain));
        match again {
            Ok(sealed) => {
                bytes += sealed.bytes.0.len();
                let (namespace, path) = (Arc::clone(&var.namespace), Arc::clone(&var.path));
                batch.items.push(Resealed { namespace, path, modify_index: var.modify_index, sealed });
            }
            Err(error) => {
                batch.damaged += 1;
                batch.why = error.to_string();
            }
        }
    }
    batch
}

impl Server {
    // A new key.

    /// Keyring.Rotate: one at a time.
    pub(super) fn make_key(&mut self, now: Instant, id: CallId, finish: Finish) {
        if self.keys.making.is_some() {
            return self.answer_error(now, id, "RPC Error:: 429,a new key is being made already");
        }
        let Some(active) = self.active(id) else { return };
        active.step = Step::MakingKey;
        self.keys.making = Some(Making { call: id, finish, deadline: now + KEY_WAIT, fresh: None });
        self.output(Output::MakeSigningKey { key_id: None, fresh: true });
    }

    /// Keys are on disk. A fresh one goes into the log before it is used; of others the newest is used at once, and is
    /// made known unless it is.
    pub(super) fn on_keys(&mut self, now: Instant, signer: Arc<Signer>, sealer: Arc<Sealer>) {
        let state = self.root.load_full();
        let place = |id: &str| state.signing_keys().iter().position(|key| key.key_id == id);
        let known = place(signer.key_id());
        if known.is_none()
            && let Some(making) = self.keys.making.as_mut().filter(|making| making.fresh.is_none())
        {
            let rekey = making.finish == Finish::KeyringRotate { full: true };
            let key = RootKey {
                key_id: signer.key_id().to_owned(),
                public_key: Bytes(signer.public_key().to_vec()),
                create_time: self.wall.unix_nanos(),
                rekey,
            };
            making.fresh = Some((signer, sealer));
            let key_id = key.key_id.clone();
            return self.propose_key(now, &key_id, Command::RootKeyAdd(key), Internal::NewKey, None);
        }
        if known.is_none() {
            if self.shares_keys() && !self.leader.known.is_self {
                return;
            }
            let command = Command::SigningKeyAdd {
                key_id: signer.key_id().to_owned(),
                public_key: signer.public_key().to_vec(),
                create_time: self.wall.unix_nanos(),
            };
            let key_id = signer.key_id().to_owned();
            self.propose_key(now, &key_id, command, Internal::Other, Some((signer, sealer)));
            return self.resume_resealing();
        }
        // An answer to an earlier question may come after a newer key is in use.
        let held = self.ctx.signer.as_ref().and_then(|held| place(held.key_id()));
        if known >= held {
            self.use_keys(signer, sealer);
        }
        self.begin_to_serve(now);
        self.resume_resealing();
    }

    pub(super) fn use_keys(&mut self, signer: Arc<Signer>, sealer: Arc<Sealer>) {
        self.ctx.signer = Some(signer);
        self.ctx.sealer = Some(sealer);
    }

    /// A fresh key could not be put on disk.
    pub(super) fn on_no_key(&mut self, now: Instant, error: &str) {
        if let Some(making) = self.keys.making.take_if(|making| making.fresh.is_none()) {
            self.answer_key_error(now, making.call, &format!("a new key could not be made: {error}"));
        }
    }

    /// What became of a fresh key in the log.
    pub(super) fn on_new_key_resolved(&mut self, now: Instant, resolution: Resolution) {
        let Some(Making { call, finish, fresh, .. }) = self.keys.making.take() else { return };
        match resolution {
            Resolution::Applied { index, result } => {
                if let Some((signer, sealer)) = fresh.filter(|_| result == ApplyResult::Done) {
                    let key_id = signer.key_id();
                    self.log(Level::Info, format!("a new key signs and seals: key_id={key_id} index={index}"));
                    self.use_keys(signer, sealer);
                }
                // Whether somebody still waits for the answer or not.
                if finish == (Finish::KeyringRotate { full: true }) {
                    self.start_resealing();
                }
                if self.is_making(call) {
                    self.fresh_ctx(false);
                    let resolved = Resolved { index, result };
                    let outcome = api::finish(&finish, &resolved, &self.root.load(), &self.ctx);
                    self.on_outcome(now, call, outcome);
                }
            }
            Resolution::NotLeader => self.answer_key_error(now, call, NO_LEADER),
            Resolution::Rejected(text) => self.answer_key_error(now, call, &text),
            Resolution::Unknown => self.answer_key_error(now, call, LEADERSHIP_LOST),
        }
    }

    /// Whether the call still waits: its caller may be gone, and its place be another's.
    fn is_making(&mut self, call: CallId) -> bool {
        self.active(call).is_some_and(|active| matches!(active.step, Step::MakingKey))
    }

    fn answer_key_error(&mut self, now: Instant, call: CallId, text: &str) {
        if self.is_making(call) {
            self.answer_error(now, call, text);
        }
    }

    /// A deadline of these may be due.
    pub(super) fn on_keys_due(&mut self, now: Instant) {
        if let Some(making) = self.keys.making.take_if(|making| making.deadline <= now) {
            self.answer_key_error(now, making.call, "a new key was not made in time");
        }
        if let Some(Resealing { step: ResealStep::Waiting(until), .. }) = self.keys.resealing
            && until <= now
        {
            self.run_resealing();
        }
    }

    // Variables that are put under it.

    /// Puts all variables under the newest key, unless that is going on.
    pub(super) fn start_resealing(&mut self) {
        if self.keys.resealing.is_none() {
            self.keys.resealing = Some(Resealing { step: ResealStep::Proposing, damaged: 0 });
            self.run_resealing();
        }
    }

    /// Goes on with what another leader, or this server before it was started again, has left half done.
    fn resume_resealing(&mut self) {
        let state = self.root.load_full();
        let Some(newest) = state.signing_keys().last().filter(|key| key.rekey) else { return };
        let is_used = self.ctx.sealer.as_ref().is_some_and(|sealer| **sealer.active_id() == *newest.key_id);
        if is_used && self.ctx.is_leader && !state.vars_not_under(&newest.key_id, 1).is_empty() {
            self.start_resealing();
        }
    }

    /// The next leader goes on.
    pub(super) fn stop_resealing(&mut self) {
        self.keys.resealing = None;
    }

    /// Who asks for what the server does on its own account.
    pub(super) fn own_caller(&self) -> Arc<Caller> {
        let peer = ([0, 0, 0, 0], 0).into();
        Arc::new(Caller { peer, tls_names: None, proven_node: None, good_token: None })
    }

    fn run_resealing(&mut self) {
        self.next_group_job -= 1;
        let id = CallId(self.next_group_job);
        let Some(resealing) = &mut self.keys.resealing else { return };
        resealing.step = ResealStep::Running(id);
        let most = BATCH_VARS + resealing.damaged;
        self.fresh_ctx(false);
        let job = Job { id, work: Work::Reseal { most }, caller: self.own_caller(), ctx: Arc::new(self.ctx.clone()) };
        self.output(Output::Run(job));
    }

    /// Some are under the new key, and go into the log.
    pub(super) fn on_resealed(&mut self, now: Instant, batch: Batch) {
        let Some(resealing) = &mut self.keys.resealing else { return };
        let before = resealing.damaged;
        resealing.damaged = before.max(batch.damaged).min(DAMAGED_MAX);
        if !batch.items.is_empty() {
            resealing.step = ResealStep::Proposing;
            return self.propose_internal(Command::VarReseal { items: batch.items }, Internal::Reseal);
        }
        let Batch { damaged, why, .. } = batch;
        if damaged > before && damaged < DAMAGED_MAX {
            // All that were looked at are damaged: behind them others may wait.
            resealing.step = ResealStep::Waiting(now);
            return;
        }
        self.keys.resealing = None;
        let line = match damaged {
            0 => (Level::Info, "all variables are under the newest key".to_owned()),
            _ => (
                Level::Error,
                format!("variables could not be put under the newest key: count={damaged} error={why:?}"),
            ),
        };
        self.log(line.0, line.1);
    }

    /// What became of some.
    pub(super) fn on_reseal_resolved(&mut self, now: Instant, resolution: &Resolution) {
        match resolution {
            Resolution::Applied { .. } => self.run_resealing(),
            Resolution::NotLeader => self.stop_resealing(),
            Resolution::Rejected(_) | Resolution::Unknown => self.retry_resealing(now),
        }
    }

    /// After a while.
    pub(super) fn retry_resealing(&mut self, now: Instant) {
        if let Some(resealing) = &mut self.keys.resealing {
            resealing.step = ResealStep::Waiting(now + RESEAL_RETRY);
        }
    }
}
