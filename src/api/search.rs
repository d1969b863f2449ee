//! Search.PrefixSearch: completes names for shells.
//!
//! Source: HTTP notes, section 5.

use crate::state::State;

use super::answer::Answer;
use super::{Ctx, Request};

/// Search.PrefixSearch.
pub(super) fn prefix(_: &Request<'_>, _: &State, _: &Ctx) -> Answer {
    todo!("search")
}
