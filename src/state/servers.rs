//! The table of the cluster's servers: who they are and where they are reached. Raft's own configuration says who has
//! a vote.

use std::sync::Arc;

use crate::base::id::Index;
use crate::state::nodes::At;
use crate::state::sections::{Section, tag};
use crate::state::table::Table;
use crate::state::watch::WatchKey;
use crate::state::{Applied, State};
use crate::wire::entry::Command;
use crate::wire::entry::server::ServerRecord;
use crate::wire::msgpack::Msg;

/// The servers, by id.
#[derive(Clone, Debug, Default)]
pub(super) struct Servers {
    table: Table<ServerRecord>,
}

impl Servers {
    fn put(&mut self, at: At, record: &ServerRecord) -> Applied {
        let mut record = record.clone();
        record.create_index = self.table.row(&record.id).map_or(at.index.0, |known| known.create_index);
        record.modify_index = at.index.0;
        self.table.put(at.index, record.id.as_str().into(), Arc::new(record));
        changed()
    }

    fn remove(&mut self, at: At, id: &str) -> Applied {
        if self.table.remove(at.index, id).is_some() { changed() } else { Applied::default() }
    }

    /// Makes every index above `most` that one, and the table's own too.
    pub(super) fn lower_indexes(&mut self, most: Index) {
        self.table.lower(most, |record| {
            let (create_index, modify_index) = (record.create_index.min(most.0), record.modify_index.min(most.0));
            let is_low = (create_index, modify_index) == (record.create_index, record.modify_index);
            (!is_low).then(|| ServerRecord { create_index, modify_index, ..record.clone() })
        });
    }
}

/// The servers in a snapshot.
pub(super) const SECTION: Section = Section {
    tag: tag::SERVERS,
    index: State::servers_index,
    rows: |state| Box::new(state.servers.table.rows().map(|record| record.to_bytes())),
    restore_row: |state, d| {
        let disorder = d.error("servers are out of order");
        let record = ServerRecord::decode(d)?;
        if state.servers.table.rows_from(&record.id).next().is_some() {
            return Err(disorder);
        }
        let index = Index(record.modify_index);
        state.servers.table.put(index, record.id.as_str().into(), Arc::new(record));
        Ok(())
    },
    restore_index: |state, index| state.servers.table.touch(index),
};

fn changed() -> Applied {
    Applied { touched: vec![WatchKey::servers()].into(), ..Applied::default() }
}

impl State {
    /// Applies a command about servers.
    pub(super) fn apply_to_servers(&mut self, at: At, command: &Command) -> Applied {
        match command {
            Command::ServerUpsert(record) => self.servers.put(at, record),
            Command::ServerRemove { id } => self.servers.remove(at, id),
            _ => Applied::default(),
        }
    }

    /// The servers in the order of their ids. A server that was always alone is not among them.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<ServerRecord>> {
        self.servers.table.rows()
    }

    /// The server with this id.
    pub fn server(&self, id: &str) -> Option<&Arc<ServerRecord>> {
        self.servers.table.row(id)
    }

    /// The index of the last change of the servers; 0 when it was never written.
    pub fn servers_index(&self) -> Index {
        self.servers.table.index()
    }
}
