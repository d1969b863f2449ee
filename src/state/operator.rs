//! What operators set, and a snapshot that comes back through the log.
//!
//! A restore is gathered chunk by chunk, on every replica alike, and takes the state's place at its end or not at all.
//! Source: endpoint notes, section 5; requirement R1.95.
//!
//! **Invariant:** a restored state has no index above that of the entry that ended the restore.

use std::sync::Arc;

use imbl::Vector;
use ring::digest::{SHA256, digest};

use crate::base::id::Index;
use crate::state::nodes::At;
use crate::state::sections::{Section, tag};
use crate::state::watch::{Touched, WatchKey};
use crate::state::{Applied, ApplyResult, State, snapshot};
use crate::wire::archive::MAX_STATE_BYTES;
use crate::wire::body::operator::{AutopilotConfig, SchedulerConfiguration};
use crate::wire::entry::Command;
use crate::wire::entry::restore::{RestoreBegin, RestoreChunk, RestoreEnd};
use crate::wire::msgpack::{Decoder, Encoder, Msg, Result as Decoded};

/// What configurations that nobody set have as their indexes: those who compare take 0 for none.
const DEFAULT_INDEX: u64 = 1;

/// The operator's configurations, and a restore that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Operator {
    autopilot: Option<Arc<AutopilotConfig>>,
    scheduler: Option<Arc<SchedulerConfiguration>>,
    index: Index,
    restore: Option<Staged>,
}

/// The part of a snapshot that has come so far. A clone shares the bytes.
#[derive(Clone)]
struct Staged {
    id: u64,
    total_bytes: u64,
    received_bytes: u64,
    chunks: Vector<Arc<[u8]>>,
}

impl std::fmt::Debug for Staged {
    /// Says how far it is; never what it holds.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Staged({} of {} bytes)", self.received_bytes, self.total_bytes)
    }
}

impl State {
    /// Applies a command about keys, configurations and restores.
    pub(super) fn apply_to_operator(&mut self, at: At, command: &Command) -> Applied {
        match command {
            Command::RootKeyDelete { key_id } => {
                let is_used = self.is_key_used(key_id);
                self.signing_keys.delete(at.index, key_id, is_used)
            }
            Command::AutopilotSet { config, cas } => {
                let stored = self.autopilot_config();
                let (create_index, modify_index) = (stored.create_index, stored.modify_index);
                if *cas && config.modify_index != modify_index {
                    return no_match();
                }
                let config = AutopilotConfig { create_index, modify_index: at.index.0, ..config.clone() };
                self.operator.autopilot = Some(Arc::new(config));
                self.configured(at)
            }
            Command::SchedulerSet { config, cas } => {
                let stored = self.scheduler_config();
                let (create_index, modify_index) = (stored.create_index, stored.modify_index);
                if *cas && config.modify_index != modify_index {
                    return no_match();
                }
                let config = SchedulerConfiguration { create_index, modify_index: at.index.0, ..config.clone() };
                self.operator.scheduler = Some(Arc::new(config));
                self.configured(at)
            }
            Command::RestoreBegin(begin) => self.operator.begin(begin),
            Command::RestoreChunk(chunk) => self.operator.take(chunk),
            Command::RestoreEnd(end) => self.end_restore(at, end),
            _ => Applied::default(),
        }
    }

    fn configured(&mut self, at: At) -> Applied {
        self.operator.index = at.index;
        Applied { touched: vec![WatchKey::operator()].into(), ..Applied::default() }
    }

    /// How servers are looked after; the defaults until somebody set it.
    pub fn autopilot_config(&self) -> Arc<AutopilotConfig> {
        let default = || {
            Arc::new(AutopilotConfig {
                cleanup_dead_servers: true,
                server_stabilization_time: 10_000_000_000,
                last_contact_threshold: 200_000_000,
                max_trailing_logs: 250,
                create_index: DEFAULT_INDEX,
                modify_index: DEFAULT_INDEX,
                ..AutopilotConfig::default()
            })
        };
        self.operator.autopilot.clone().unwrap_or_else(default)
    }

    /// The scheduler's configuration; the defaults until somebody set it.
    pub fn scheduler_config(&self) -> Arc<SchedulerConfiguration> {
        let default = || {
            let mut config = SchedulerConfiguration {
                scheduler_algorithm: "binpack".to_owned(),
                create_index: DEFAULT_INDEX,
                modify_index: DEFAULT_INDEX,
                ..SchedulerConfiguration::default()
            };
            config.preemption_config.system = true;
            Arc::new(config)
        };
        self.operator.scheduler.clone().unwrap_or_else(default)
    }

    /// Names the restore that is under way, if one is.
    pub fn restore_under_way(&self) -> Option<u64> {
        self.operator.restore.as_ref().map(|staged| staged.id)
    }

    /// Takes the place of the whole state, if all bytes are there and are a state.
    ///
    /// Its keys are joined with those that are here, so that what this server seals and signs with stays the newest.
    fn end_restore(&mut self, at: At, end: &RestoreEnd) -> Applied {
        let bytes = match self.operator.staged(end) {
            Ok(bytes) => bytes,
            Err(why) => return refused(&why),
        };
        let mut restored = match snapshot::read(&bytes) {
            Ok(restored) => restored,
            Err(error) => return refused(&error.to_string()),
        };
        restored.signing_keys.join(&self.signing_keys);
        // Who the servers are is a fact of this cluster, not of the one that was saved.
        restored.servers = self.servers.clone();
        restored.sessions.join(&self.sessions, at.index);
        restored.lower_indexes(at.index);
        restored.operator.restore = None;
        restored.index = self.index;
        restored.time_unix_nanos = self.time_unix_nanos;
        *self = restored;
        Applied { touched: Touched { everything: true, ..Touched::default() }, ..Applied::default() }
    }

    /// Makes every index above `most` that one, and every table's own too: all of it changed there.
    fn lower_indexes(&mut self, most: Index) {
        self.nodes.lower_indexes(most);
        self.signing_keys.lower_indexes(most);
        self.vars.lower_indexes(most);
        self.acl.lower_indexes(most);
        self.namespaces.lower_indexes(most);
        self.operator.lower_indexes(most);
        self.servers.lower_indexes(most);
    }
}

impl Operator {
    fn begin(&mut self, begin: &RestoreBegin) -> Applied {
        if begin.total_bytes > MAX_STATE_BYTES {
            return refused(&format!("state in snapshot is larger than {MAX_STATE_BYTES} bytes"));
        }
        self.restore =
            Some(Staged { id: begin.id, total_bytes: begin.total_bytes, received_bytes: 0, chunks: Vector::new() });
        Applied::default()
    }

    fn take(&mut self, chunk: &RestoreChunk) -> Applied {
        let Some(staged) = self.restore.as_mut().filter(|staged| staged.id == chunk.id) else {
            return refused(NOT_UNDER_WAY);
        };
        let after = staged.received_bytes.saturating_add(chunk.bytes.0.len() as u64);
        if chunk.offset != staged.received_bytes || after > staged.total_bytes {
            return refused("bytes of the snapshot are missing or too many");
        }
        staged.received_bytes = after;
        staged.chunks.push_back(chunk.bytes.0.as_slice().into());
        Applied::default()
    }

    /// All bytes of the restore that ends here, which is over whatever comes of it.
    fn staged(&mut self, end: &RestoreEnd) -> Result<Vec<u8>, String> {
        let staged = self.restore.take_if(|staged| staged.id == end.id).ok_or(NOT_UNDER_WAY)?;
        if staged.received_bytes != staged.total_bytes {
            return Err(format!("snapshot has {} of {} bytes", staged.received_bytes, staged.total_bytes));
        }
        let bytes = staged.chunks.iter().map(|chunk| &**chunk).collect::<Vec<_>>().concat();
        if digest(&SHA256, &bytes).as_ref() != end.sha256.0 {
            return Err("checksum of the snapshot is wrong".to_owned());
        }
        Ok(bytes)
    }

    fn lower_indexes(&mut self, most: Index) {
        if let Some(config) = &mut self.autopilot {
            let config = Arc::make_mut(config);
            config.create_index = config.create_index.min(most.0);
            config.modify_index = config.modify_index.min(most.0);
        }
        if let Some(config) = &mut self.scheduler {
            let config = Arc::make_mut(config);
            config.create_index = config.create_index.min(most.0);
            config.modify_index = config.modify_index.min(most.0);
        }
        self.index = most;
    }
}

const NOT_UNDER_WAY: &str = "this restore is not under way any more";

fn refused(why: &str) -> Applied {
    Applied { result: ApplyResult::Refused(why.to_owned()), ..Applied::default() }
}

fn no_match() -> Applied {
    Applied { result: ApplyResult::NoMatch, ..Applied::default() }
}

// In snapshots.

/// Kinds of rows. Never given out twice.
const ROW_AUTOPILOT: u64 = 1;
const ROW_SCHEDULER: u64 = 2;
const ROW_RESTORE: u64 = 3;
const ROW_CHUNK: u64 = 4;

/// A row: its kind and a value.
fn row(kind: u64, body: &impl Msg) -> Vec<u8> {
    let mut e = Encoder::new();
    e.array(2);
    e.u64(kind);
    body.encode(&mut e);
    e.out
}

/// The configurations that were set.
pub(super) const CONFIGURATIONS: Section = Section {
    tag: tag::OPERATOR,
    index: |state| state.operator.index,
    rows,
    restore_row,
    restore_index: |state, index| state.operator.index = index,
};

/// A restore that is under way: what it is, and its chunks.
pub(super) const RESTORE: Section = Section {
    tag: tag::RESTORE,
    index: |_| Index(0),
    rows: staged_rows,
    restore_row: restore_staged_row,
    restore_index: |_, _| {},
};

fn rows(state: &State) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
    let autopilot = state.operator.autopilot.iter().map(|config| row(ROW_AUTOPILOT, &**config));
    let scheduler = state.operator.scheduler.iter().map(|config| row(ROW_SCHEDULER, &**config));
    Box::new(autopilot.chain(scheduler))
}

fn restore_row(state: &mut State, d: &mut Decoder<'_>) -> Decoded<()> {
    let unknown = d.error("unknown row of operators");
    snapshot::fields(d, 2, |d| {
        match d.u64()? {
            ROW_AUTOPILOT => state.operator.autopilot = Some(Arc::new(Msg::decode(d)?)),
            ROW_SCHEDULER => state.operator.scheduler = Some(Arc::new(Msg::decode(d)?)),
            _ => return Err(unknown),
        }
        Ok(())
    })
}

fn staged_rows(state: &State) -> Box<dyn Iterator<Item = Vec<u8>> + '_> {
    let begin = state
        .operator
        .restore
        .iter()
        .map(|staged| row(ROW_RESTORE, &RestoreBegin { id: staged.id, total_bytes: staged.total_bytes }));
    let chunks = state.operator.restore.iter().flat_map(|staged| &staged.chunks).map(|chunk| {
        let mut e = Encoder::new();
        e.array(2);
        e.u64(ROW_CHUNK);
        e.bytes(chunk);
        e.out
    });
    Box::new(begin.chain(chunks))
}

fn restore_staged_row(state: &mut State, d: &mut Decoder<'_>) -> Decoded<()> {
    let malformed = d.error("a row of a restore is malformed");
    let operator = &mut state.operator;
    let applied = snapshot::fields(d, 2, |d| {
        Ok(match d.u64()? {
            ROW_RESTORE => operator.begin(&Msg::decode(d)?),
            ROW_CHUNK => {
                let Some(staged) = &operator.restore else { return Err(malformed.clone()) };
                let (id, offset) = (staged.id, staged.received_bytes);
                operator.take(&RestoreChunk { id, offset, bytes: Msg::decode(d)? })
            }
            _ => return Err(malformed.clone()),
        })
    })?;
    if applied.result == ApplyResult::Done { Ok(()) } else { Err(malformed) }
}
