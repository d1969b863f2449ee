//! A persistent map that knows the index of its last change.
//!
//! Rows are kept by their key, a text. A clone shares everything with what it was cloned from and costs nothing.
//!
//! **Invariant:** the index never falls, but when a snapshot takes the place of the whole state.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use crate::base::id::Index;

/// Rows by key, and the index of the last change of any.
#[derive(Clone, Debug)]
pub struct Table<T> {
    rows: OrdMap<Arc<str>, Arc<T>>,
    index: Index,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { rows: OrdMap::new(), index: Index(0) }
    }
}

impl<T> Table<T> {
    /// The row of a key.
    pub fn row(&self, key: &str) -> Option<&Arc<T>> {
        self.rows.get(key)
    }

    /// A key as it is kept here, to be shared.
    pub(super) fn key(&self, key: &str) -> Option<&Arc<str>> {
        self.rows.get_key_value(key).map(|(key, _)| key)
    }

    /// The row of a key, to be changed. Whoever changes it calls [`Table::touch`] too, if it counts as a change.
    pub(super) fn row_mut(&mut self, key: &str) -> Option<&mut Arc<T>> {
        self.rows.get_mut(key)
    }

    /// Adds or replaces a row.
    pub fn put(&mut self, index: Index, key: Arc<str>, row: Arc<T>) {
        self.rows.insert(key, row);
        self.touch(index);
    }

    /// Removes a row, if it is there, and hands it back.
    pub fn remove(&mut self, index: Index, key: &str) -> Option<Arc<T>> {
        let removed = self.rows.remove(key)?;
        self.touch(index);
        Some(removed)
    }

    /// Notes a change at `index`.
    pub fn touch(&mut self, index: Index) {
        self.index = self.index.max(index);
    }

    /// The index of the last change; 0 when it was never written.
    pub fn index(&self) -> Index {
        self.index
    }

    /// Makes of each row what `lowered` makes of it, if it makes something of it, and sets the table's own index: the
    /// one change that may let it fall, when a snapshot takes the place of the state.
    pub(super) fn lower(&mut self, most: Index, lowered: impl Fn(&T) -> Option<T>) {
        let changed: Vec<(Arc<str>, Arc<T>)> =
            self.rows.iter().filter_map(|(key, row)| Some((Arc::clone(key), Arc::new(lowered(row)?)))).collect();
        self.rows.extend(changed);
        self.index = most;
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All rows in the order of their keys; knows how many they are.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = &Arc<T>> + DoubleEndedIterator {
        self.rows.values()
    }

    /// Rows in the order of their keys, from the first key at or after `from`.
    pub fn rows_from<'a>(&'a self, from: &str) -> impl DoubleEndedIterator<Item = &'a Arc<T>> + use<'a, T> {
        self.rows.range::<_, str>((Bound::Included(from), Bound::Unbounded)).map(|(_, row)| row)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn texts(table: &Table<u32>, from: &str) -> Vec<u32> {
        table.rows_from(from).map(|row| **row).collect()
    }

    #[test]
    fn rows_come_in_the_order_of_keys() {
        let mut table = Table::default();
        assert_eq!((table.index(), table.is_empty()), (Index(0), true));
        for (n, key) in ["c", "a", "b"].into_iter().enumerate() {
            table.put(Index(5 + n as u64), key.into(), Arc::new(n as u32));
        }
        assert_eq!(texts(&table, ""), [1, 2, 0]);
        assert_eq!(texts(&table, "aa"), [2, 0]);
        assert!(texts(&table, "d").is_empty());
        assert_eq!(table.rows_from("").next_back().map(|row| **row), Some(0));
        assert_eq!((table.index(), table.len()), (Index(7), 3));
    }

    #[test]
    fn a_clone_keeps_what_it_saw() {
        let mut table = Table::default();
        table.put(Index(1), "a".into(), Arc::new(1));
        let before = table.clone();
        assert_eq!(table.remove(Index(2), "x"), None);
        assert_eq!(table.index(), Index(1), "nothing was there, nothing changed");
        assert_eq!(table.remove(Index(2), "a"), Some(Arc::new(1)));
        assert_eq!((texts(&before, ""), before.index()), (vec![1], Index(1)));
        assert_eq!((texts(&table, ""), table.index()), (vec![], Index(2)));
        table.touch(Index(1));
        assert_eq!(table.index(), Index(2));
    }
}
