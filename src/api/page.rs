//! Lists in pages: order, filter, and where the next page begins.
//!
//! A page's token names the first row that is not on the page before, so that a row removed meanwhile does no harm.
//! Source: endpoint notes, section 1.5; Nomad `nomad/state/paginator`.

use crate::wire::body::query::QueryOptions;

use super::answer::{Failure, coded};
use super::filter::Filter;

/// The filter that a list was asked for with.
pub(super) fn filter(query: &QueryOptions) -> Result<Option<Filter>, Failure> {
    match query.filter.trim() {
        "" => Ok(None),
        text => Filter::parse(text).map(Some).map_err(|error| {
            coded(400, format_args!("failed to create result paginator: failed to read filter expression: {error}"))
        }),
    }
}

/// The error when a filter cannot be evaluated.
pub(super) fn unreadable(error: String) -> Failure {
    coded(400, format_args!("failed to read result page: {error}"))
}

/// Rows in the order that was asked for. Given are all of them upward, from the page's begin on; for a list downward
/// from the very first, of which those that are `beyond` the page's begin are left out.
pub(super) fn in_order<'a, T: 'a>(
    query: &'a QueryOptions,
    rows: impl Iterator<Item = T> + 'a,
    beyond: impl Fn(&T) -> bool + 'a,
) -> Box<dyn Iterator<Item = T> + 'a> {
    if !query.reverse {
        return Box::new(rows);
    }
    let all: Vec<T> = rows.collect();
    let begins = !query.next_token.is_empty();
    Box::new(all.into_iter().rev().skip_while(move |row| begins && beyond(row)))
}

/// The rows of a page, and the first that is not on it.
pub(super) fn page<T>(
    query: &QueryOptions,
    rows: impl Iterator<Item = T>,
    mut wanted: impl FnMut(&T) -> Result<bool, Failure>,
) -> Result<(Vec<T>, Option<T>), Failure> {
    let most = page_size(query);
    let mut page = Vec::new();
    for row in rows {
        if !wanted(&row)? {
            continue;
        }
        if page.len() == most {
            return Ok((page, Some(row)));
        }
        page.push(row);
    }
    Ok((page, None))
}

/// Rows on a page.
fn page_size(query: &QueryOptions) -> usize {
    usize::try_from(query.per_page).ok().filter(|n| *n > 0).unwrap_or(usize::MAX)
}
