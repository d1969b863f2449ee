//! The loop's work beside sockets: each output that is not about bytes, and what other threads answer to it.

use crate::base::time::Clock;
use crate::server::backups::BackupReport;
use crate::server::port::{Input, Output};

use super::event_loop::{Alarm, EventLoop};
use super::logging;
use super::machine::Machine;
use super::reload::Reloaded;

impl<M: Machine> EventLoop<M> {
    pub(super) fn perform(&mut self, output: Output) {
        match output {
            Output::Flush(conn) => self.connections.queue_write(conn),
            Output::Close { conn, linger, abort } => self.close(conn, linger, abort),
            Output::Read { conn, on } => self.set_reading(conn, on),
            Output::Cluster(output) => self.perform_for_cluster(output),
            Output::Run(job) => {
                if let Some((job, outcome)) = self.hands.pool.run(job) {
                    self.follow_ups.push_back(Input::Ran { job: job.id, outcome });
                }
            }
            Output::Propose(proposals) => {
                let refused = self.hands.proposals.propose(self.clock.now(), proposals);
                self.follow_ups.extend(refused.into_iter().map(|id| Input::NotEnqueued { id }));
                self.set_proposals_alarm();
            }
            Output::Audit(line) => {
                if let Some(audit) = &self.hands.audit {
                    audit.line(line);
                }
            }
            Output::Backup(wish) => {
                let started = match &self.hands.backups {
                    Some(backups) => backups.start(wish, &self.hands.post),
                    None => Err("there is no folder for backups".to_owned()),
                };
                if let Err(error) = started {
                    let report = BackupReport { error: Some(error), ..BackupReport::default() };
                    self.follow_ups.push_back(Input::BackedUp(report));
                }
            }
            Output::MakeSigningKey { key_id, fresh } => self.fetch_signing_key(key_id, fresh),
            Output::ForgetKey { key_id } => self.lay_key_aside(key_id),
            Output::Reload => {
                self.reopen_audit();
                self.reload_wanted = true;
                self.start_reload();
            }
            Output::Log { level, target, text } => log::log!(target: target, level, "{text}"),
            Output::Monitor(level) => {
                if let Some(logs) = &self.hands.logs {
                    logs.monitor(level);
                }
            }
            Output::StopAccepting => self.close_doors(),
            Output::Status(text) => {
                self.hands.notifier.status(&text);
                self.notify_waiting();
            }
            Output::Ready => self.become_ready(),
            Output::Exit { status } => self.exit = Some(status),
        }
    }

    pub(super) fn retry_proposals(&mut self) {
        let late = self.hands.proposals.retry(self.clock.now());
        self.follow_ups.extend(late.into_iter().map(|id| Input::NotEnqueued { id }));
        self.set_proposals_alarm();
    }

    /// One alarm at a time is enough: when it rings, or in any turn before, all that waits is tried.
    fn set_proposals_alarm(&mut self) {
        if let Some(old) = self.proposals_alarm.take() {
            self.timers.cancel(old, Alarm::Proposals);
        }
        self.proposals_alarm = self.hands.proposals.next_retry(self.clock.now());
        if let Some(at) = self.proposals_alarm {
            self.timers.set(at, Alarm::Proposals);
        }
    }

    pub(super) fn fetch_signing_key(&mut self, key_id: Option<String>, fresh: bool) {
        let Some(keyring) = &self.hands.keyring else { return };
        if let Err(error) = keyring.fetch(key_id, fresh, &self.hands.post) {
            log::error!("no signing key: error=\"{error}\"");
            if fresh {
                self.follow_ups.push_back(Input::NoKey { error: error.to_string() });
            }
        }
    }

    fn lay_key_aside(&self, key_id: String) {
        let Some(keyring) = &self.hands.keyring else { return };
        if let Err(error) = keyring.lay_aside(key_id) {
            log::error!("deleted key stays on disk: error=\"{error}\"");
        }
    }

    /// Closing the sockets is dropping them; the machine has its line about it (R1.4).
    fn close_doors(&mut self) {
        for mut door in self.doors.drain(..) {
            // One that the service manager opened stays open with it, and would go on to wake us.
            if let Err(error) = self.poll.registry().deregister(&mut door.socket) {
                log::debug!("listener is watched no more: error=\"{error}\"");
            }
        }
    }

    fn become_ready(&mut self) {
        self.ready = true;
        self.hands.notifier.ready();
        self.notify_waiting();
        log::info!("ready");
        self.start_reload();
    }

    /// Starts a reload that is wanted, once the daemon is ready (R8.8).
    pub(super) fn start_reload(&mut self) {
        if !self.ready || !self.reload_wanted {
            return;
        }
        self.reload_wanted = false;
        let Some(reloader) = &mut self.hands.reloader else { return };
        match reloader.start(&self.hands.post) {
            Ok(true) => {
                log::info!("reloading the configuration");
                self.hands.notifier.reloading();
            }
            Ok(false) => {}
            Err(error) => log::error!("configuration not reloaded: error=\"{error}\""),
        }
        self.notify_waiting();
    }

    /// The audit log may have been moved away: a new file takes its place.
    pub(super) fn reopen_audit(&self) {
        if let Some(audit) = &self.hands.audit {
            audit.reopen();
        }
    }

    pub(super) fn end_reload(&mut self, result: Result<Box<Reloaded>, Vec<String>>) {
        let Some(reloader) = &mut self.hands.reloader else { return };
        self.reload_wanted |= reloader.ended();
        match result {
            Ok(new) => {
                if let Some(logs) = &self.hands.logs {
                    logs.set_filter(&logging::filter_of(new.config.log_filter.as_deref()));
                }
                self.hands.expiry.watch(&new.tls.ends);
                self.timers.set(self.clock.now(), Alarm::Certificates);
                let (reload, needs_restart) = reloader.take(*new);
                self.feed(Input::Reload(Box::new(reload)));
                log::info!("configuration reloaded");
                if needs_restart {
                    log::warn!("some settings that changed need a restart");
                }
            }
            Err(errors) => {
                log::error!("configuration not reloaded, the old one stays in force: {}", errors.join("; "));
            }
        }
        self.hands.notifier.ready();
        self.notify_waiting();
        self.start_reload();
    }
}
