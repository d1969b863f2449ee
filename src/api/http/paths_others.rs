//! `/v1/search`, lists of what there is none of, our own `/v1/holdfast`, and what lies outside `/v1`.
//!
//! Source: HTTP notes, sections 2 and 5.

use crate::wire::body::query::{GenericRequest, QueryMeta};
use crate::wire::body::search::SearchRequest;

use super::forms::{self, SearchBody};
use super::paths::{Ask, Path, Planned};
use super::render::{Heads, Show};
use super::reply::{INVALID_METHOD, empty_reply, json_reply, read_headers, refusal, text_reply};
use super::{Plan, not_served, paths_agent, paths_sessions, paths_vars};

/// Below `/v1/search`.
pub(super) static SEARCH: &[Path] = &[Path { pattern: "", plan: search }];

/// Below `/v1/jobs` and its like: there are none, and tools that ask are told so.
pub(super) static NONE_OF_THEM: &[Path] = &[Path { pattern: "", plan: none_of_them }];

/// Below `/v1/holdfast`.
pub(super) static HOLDFAST: &[Path] = &[
    Path { pattern: "locks", plan: paths_vars::locks },
    Path { pattern: "lock/*", plan: paths_vars::lock },
    Path { pattern: "txn", plan: paths_vars::txn },
    Path { pattern: "connections", plan: connections },
    Path { pattern: "session", plan: paths_sessions::open },
    Path { pattern: "session/:", plan: paths_sessions::one },
    Path { pattern: "session/:/outcome/:", plan: paths_sessions::outcome },
    Path { pattern: "sessions", plan: paths_sessions::list },
];

/// Outside `/v1`.
pub(super) static ROOT: &[Path] = &[
    Path { pattern: ".well-known/jwks.json", plan: jwks },
    Path { pattern: "livez", plan: alive },
    Path { pattern: "readyz", plan: paths_agent::ready },
];

/// `/` itself.
pub(super) static DOOR: Path = Path { pattern: "", plan: door };

fn search(ask: &Ask<'_>) -> Planned {
    ask.put_only()?;
    let body: SearchBody = ask.body(forms::SEARCH)?;
    let mut query = ask.read()?;
    // What stands in the address counts before what stands in the body.
    for (name, given, field) in [
        ("prefix", body.prefix, &mut query.prefix),
        ("namespace", body.namespace, &mut query.namespace),
        ("region", body.region, &mut query.region),
    ] {
        if ask.query.filled(name).is_none() && !given.is_empty() {
            *field = given;
        }
    }
    ask.call("Search.PrefixSearch", &SearchRequest { context: body.context, query }, Show::Whole(Heads::Read))
}

fn none_of_them(ask: &Ask<'_>) -> Planned {
    if ask.method() != "GET" {
        return Err(Box::new(not_served(ask.request)));
    }
    ask.read()?;
    let mut reply = json_reply(200, "[]".to_owned(), ask.view.pretty);
    reply.headers.extend(read_headers(&QueryMeta { known_leader: true, ..QueryMeta::default() }));
    Ok(Plan::Reply(reply))
}

fn connections(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Holdfast.Connections", &GenericRequest { query: ask.local()? }, Show::Whole(Heads::None))
}

fn jwks(ask: &Ask<'_>) -> Planned {
    ask.get_only()?;
    ask.call("Keyring.ListPublic", &GenericRequest { query: ask.read()? }, Show::Jwks)
}

/// Whoever can answer lives.
fn alive(ask: &Ask<'_>) -> Planned {
    match ask.method() {
        "GET" | "HEAD" => Ok(Plan::Reply(text_reply(200, "ok"))),
        _ => Err(refusal(405, INVALID_METHOD)),
    }
}

/// Where browsers arrive.
fn door(ask: &Ask<'_>) -> Planned {
    let query = &ask.request.query;
    let location = if query.is_empty() { "/ui/".to_owned() } else { format!("/ui/?{query}") };
    let mut reply = empty_reply(307);
    reply.headers.push(("Location", location));
    Ok(Plan::Reply(reply))
}
