//! What operators set, and a snapshot that comes back through the log.
//!
//! Source: endpoint notes, section 5.

use std::sync::Arc;

use crate::state::nodes::At;
use crate::state::{Applied, State};
use crate::wire::body::operator::{AutopilotConfig, SchedulerConfiguration};
use crate::wire::entry::Command;

/// The operator's configurations, and a restore that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {}

#[allow(unused_variables)]
impl State {
    /// Applies a command about keys, configurations and restores.
    pub(super) fn apply_to_operator(&mut self, at: At, command: &Command) -> Applied {
        todo!("operator")
    }

    /// How servers are looked after; the defaults until somebody set it.
    pub fn autopilot_config(&self) -> Arc<AutopilotConfig> {
        todo!("operator")
    }

    /// The scheduler's configuration; the defaults until somebody set it.
    pub fn scheduler_config(&self) -> Arc<SchedulerConfiguration> {
        todo!("operator")
    }

    /// Names the restore that is under way, if one is.
    pub fn restore_under_way(&self) -> Option<u64> {
        None
    }
}
