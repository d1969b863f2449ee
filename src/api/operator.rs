//! What operators ask of one server: who is connected to it.

use crate::state::State;
use crate::wire::body::operator::ConnectionsResponse;
use crate::wire::body::query::GenericRequest;

use super::answer::{Answer, arguments, body};
use super::{Ctx, Request};

/// Holdfast.Connections (R1.3). The list is the server's own; it comes with the context.
pub(super) fn connections(request: &Request<'_>, _: &State, ctx: &Ctx) -> Answer {
    arguments::<GenericRequest>(request)?;
    Ok(match &ctx.connections {
        Some(connections) => body(&**connections),
        None => body(&ConnectionsResponse::default()),
    })
}
