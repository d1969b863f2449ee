//! Streaming calls and time: heartbeats, log lines that were gathered, readers that read nothing.

use std::sync::Arc;

use crate::base::slab::Key;
use crate::base::time::Instant;

use super::super::Server;
use super::super::port::{LogLine, Output};
use super::super::{events, monitor};
use super::{EVENT_HEARTBEAT, Kind, MONITOR_BATCH, MONITOR_HEARTBEAT};

impl Server {
    pub(super) fn set_source_timer(&mut self, key: Key, at: Option<Instant>) {
        if let Some(source) = self.sources.get_mut(key) {
            source.due = at;
            self.set_timer(key);
        }
    }

    /// A source is looked at when something is due, and when its reader has taken nothing for too long.
    pub(super) fn set_timer(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        let blocked_until = source.http.as_ref().and_then(|http| http.blocked_until);
        let at = source.due.into_iter().chain(blocked_until).min();
        if at == source.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut source.timer, at) {
            self.source_timers.cancel(old, key);
        }
        if let Some(at) = at {
            self.source_timers.set(at, key);
        }
    }

    pub(in crate::server) fn on_source_due(&mut self, now: Instant, key: Key) {
        let Some(source) = self.sources.get_mut(key) else { return };
        source.timer = None;
        let is_due = source.due.is_some_and(|due| due <= now);
        if self.gave_up_reading(now, key) {
            return self.remove_source(now, key, None);
        }
        if !is_due {
            return self.set_timer(key);
        }
        let Some(source) = self.sources.get_mut(key) else { return };
        let is_behind = !source.unsent.is_empty() || source.http.as_ref().is_some_and(|http| !http.out.is_empty());
        let next = match &mut source.kind {
            Kind::Events { heartbeat_at, .. } => {
                if *heartbeat_at <= now {
                    *heartbeat_at = now + EVENT_HEARTBEAT;
                    // A reader that is behind needs no sign of life.
                    if !is_behind {
                        source.unsent.push_back((events::heartbeat_message(), 0));
                    }
                }
                Some(*heartbeat_at)
            }
            Kind::Monitor { options, lines, dropped, send_at, heartbeat_at } => {
                if !is_behind {
                    let due = send_at.is_some_and(|at| at <= now);
                    if due {
                        *send_at = None;
                        *heartbeat_at = now + MONITOR_HEARTBEAT;
                        let messages = monitor::messages(options, lines, std::mem::take(dropped));
                        source.unsent.extend(messages.into_iter().map(|message| (message, 0)));
                    } else if *heartbeat_at <= now {
                        *heartbeat_at = now + MONITOR_HEARTBEAT;
                        if !options.plain {
                            source.unsent.push_back((monitor::heartbeat(), 0));
                        }
                    }
                } else {
                    *heartbeat_at = now + MONITOR_HEARTBEAT;
                    *send_at = send_at.map(|_| now + MONITOR_BATCH);
                }
                Some(send_at.map_or(*heartbeat_at, |at| at.min(*heartbeat_at)))
            }
            Kind::Restore(_) => return self.with_upload(key, |server, upload| server.on_upload_due(now, key, upload)),
            _ => None,
        };
        self.set_source_timer(key, next);
        self.pump(now, key);
    }

    /// Asks the log for the most that any monitor wants.
    pub(super) fn update_monitor_level(&mut self) {
        let wanted = self
            .sources
            .iter()
            .filter_map(|(_, source)| match &source.kind {
                Kind::Monitor { options, .. } => Some(options.level),
                _ => None,
            })
            .max();
        if wanted != self.monitor_level {
            self.monitor_level = wanted;
            self.output(Output::Monitor(wanted));
        }
    }

    pub(in crate::server) fn on_log_line(&mut self, now: Instant, line: &Arc<LogLine>) {
        for key in self.sources.keys() {
            let Some(source) = self.sources.get_mut(key) else { continue };
            let Kind::Monitor { options, lines, dropped, send_at, heartbeat_at } = &mut source.kind else { continue };
            if line.level > options.level {
                continue;
            }
            if lines.push(line.clone()).is_err() {
                *dropped += 1;
            }
            if send_at.is_none() {
                let at = now + MONITOR_BATCH;
                *send_at = Some(at);
                let next = at.min(*heartbeat_at);
                self.set_source_timer(key, Some(next));
            }
        }
    }
}
