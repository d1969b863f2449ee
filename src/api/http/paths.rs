//! Which path is served by what: a row a path, in groups by the segment behind `/v1`.
//!
//! A pattern is what follows the group's segment: words, `:` for one segment, `*` for all the rest, empty too; the
//! empty pattern is the group's segment alone. The first row that fits counts. Source: HTTP notes, sections 2 to 10.

use std::borrow::Cow;

use crate::api::{self, UnknownMethod};
use crate::wire::body::query::{QueryOptions, WriteRequest};
use crate::wire::http::HttpRequest;
use crate::wire::msgpack::Msg;

use super::body::{self, Fields};
use super::query::Query;
use super::render::Show;
use super::reply::{INVALID_METHOD, Refusal, refusal};
use super::{HttpFacts, Marks, Plan, StreamBody, View, not_served};
use super::{paths_acl, paths_agent, paths_nodes, paths_operator, paths_others, paths_vars};

/// What a path makes of a request, or the answer that refuses it.
pub(super) type Planned = Result<Plan, Refusal>;

/// One row.
pub(super) struct Path {
    /// See the module.
    pub(super) pattern: &'static str,
    /// What it makes of a request.
    pub(super) plan: fn(&Ask<'_>) -> Planned,
}

/// The rows of one segment behind `/v1`.
struct Group {
    segment: &'static str,
    paths: &'static [Path],
}

/// All rows; what is asked most stands first.
static GROUPS: &[Group] = &[
    Group { segment: "var", paths: paths_vars::VAR },
    Group { segment: "vars", paths: paths_vars::VARS },
    Group { segment: "node", paths: paths_nodes::NODE },
    Group { segment: "nodes", paths: paths_nodes::NODES },
    Group { segment: "client", paths: paths_nodes::CLIENT },
    Group { segment: "status", paths: paths_agent::STATUS },
    Group { segment: "agent", paths: paths_agent::AGENT },
    Group { segment: "regions", paths: paths_agent::REGIONS },
    Group { segment: "metrics", paths: paths_agent::METRICS },
    Group { segment: "event", paths: paths_agent::EVENT },
    Group { segment: "acl", paths: paths_acl::ACL },
    Group { segment: "namespace", paths: paths_acl::NAMESPACE },
    Group { segment: "namespaces", paths: paths_acl::NAMESPACES },
    Group { segment: "operator", paths: paths_operator::OPERATOR },
    Group { segment: "system", paths: paths_operator::SYSTEM },
    Group { segment: "search", paths: paths_others::SEARCH },
    Group { segment: "jobs", paths: paths_others::NONE_OF_THEM },
    Group { segment: "allocations", paths: paths_others::NONE_OF_THEM },
    Group { segment: "evaluations", paths: paths_others::NONE_OF_THEM },
    Group { segment: "deployments", paths: paths_others::NONE_OF_THEM },
];

/// Segments behind `/v1` of which the peer serves something and we nothing.
const PEERS_ONLY: &[&str] = &[
    "allocation",
    "deployment",
    "evaluation",
    "job",
    "plugin",
    "plugins",
    "quota",
    "quota-usage",
    "quota-usages",
    "quotas",
    "recommendation",
    "recommendations",
    "scaling",
    "sentinel",
    "service",
    "services",
    "validate",
    "volume",
    "volumes",
];

/// What there is at a path.
pub(super) enum Found<'p> {
    /// A row, and the parts that its `:` and `*` stand for, still percent-encoded.
    Here(&'static Path, Vec<&'p str>),
    /// Something that the peer serves and we do not.
    NotServed,
    /// Nothing.
    Nothing,
}

/// Looks a path up.
pub(super) fn find(path: &str) -> Found<'_> {
    let Some(below) = path.strip_prefix("/v1/") else {
        return match row(paths_others::ROOT, path.strip_prefix('/')) {
            Some((row, parts)) => Found::Here(row, parts),
            None if path == "/" => Found::Here(&paths_others::DOOR, Vec::new()),
            None if path == "/ui" || path.starts_with("/ui/") => Found::NotServed,
            None => Found::Nothing,
        };
    };
    let (segment, rest) = match below.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (below, None),
    };
    if segment == "holdfast" {
        return row(paths_others::HOLDFAST, rest).map_or(Found::Nothing, |(row, parts)| Found::Here(row, parts));
    }
    match GROUPS.iter().find(|group| group.segment == segment) {
        Some(group) => row(group.paths, rest).map_or(Found::NotServed, |(row, parts)| Found::Here(row, parts)),
        None if PEERS_ONLY.contains(&segment) => Found::NotServed,
        None => Found::Nothing,
    }
}

fn row<'p>(rows: &'static [Path], rest: Option<&'p str>) -> Option<(&'static Path, Vec<&'p str>)> {
    rows.iter().find_map(|row| Some((row, fits(row.pattern, rest)?)))
}

/// The parts that a pattern's `:` and `*` stand for; `None` when it does not fit.
fn fits<'p>(pattern: &str, rest: Option<&'p str>) -> Option<Vec<&'p str>> {
    let Some(mut rest) = rest else { return pattern.is_empty().then(Vec::new) };
    if pattern.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    let mut wanted = pattern.split('/').peekable();
    while let Some(want) = wanted.next() {
        if want == "*" {
            parts.push(rest);
            return Some(parts);
        }
        let (segment, after) = if wanted.peek().is_some() { rest.split_once('/')? } else { (rest, "") };
        match want {
            ":" if !segment.is_empty() && !segment.contains('/') => parts.push(segment),
            ":" => return None,
            word if word == segment => {}
            _ => return None,
        }
        rest = after;
    }
    Some(parts)
}

/// A path without empty segments, `.` and `..`; `None` when it is so already. Escapes are not looked into: what they
/// hide is part of a name.
pub(super) fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') || !needs_cleaning(path) {
        return None;
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut clean = String::with_capacity(path.len());
    for segment in &kept {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    Some(clean)
}

fn needs_cleaning(path: &str) -> bool {
    path.contains("//") || path.split('/').any(|segment| matches!(segment, "." | ".."))
}

/// A request, as a row sees it.
pub(super) struct Ask<'a> {
    /// The request.
    pub(super) request: &'a HttpRequest,
    /// What is known of the server.
    pub(super) facts: &'a HttpFacts,
    /// Its parameters.
    pub(super) query: Query<'a>,
    /// What the pattern's `:` and `*` stand for.
    pub(super) parts: Vec<Cow<'a, str>>,
    /// How its answer is shown, but for its kind.
    pub(super) view: View,
}

impl Ask<'_> {
    /// `GET` and its like.
    pub(super) fn method(&self) -> &str {
        &self.request.method
    }

    /// What the nth `:` or `*` stands for.
    pub(super) fn part(&self, nth: usize) -> &str {
        self.parts.get(nth).map_or("", |part| part)
    }

    /// Refuses any method but GET.
    pub(super) fn get_only(&self) -> Result<(), Refusal> {
        if self.method() == "GET" { Ok(()) } else { Err(refusal(405, INVALID_METHOD)) }
    }

    /// Refuses writes to what the peer lets be written and we do not, and other methods.
    pub(super) fn only_read_here(&self) -> Result<(), Refusal> {
        match self.method() {
            "PUT" | "POST" | "DELETE" => Err(not_served(self.request).into()),
            _ => self.get_only(),
        }
    }

    /// Refuses any method but PUT and POST, which mean the same.
    pub(super) fn put_only(&self) -> Result<(), Refusal> {
        if matches!(self.method(), "PUT" | "POST") { Ok(()) } else { Err(refusal(405, INVALID_METHOD)) }
    }

    /// What a read takes.
    pub(super) fn read(&self) -> Result<QueryOptions, Refusal> {
        self.query.read_options(self.request, &self.facts.region)
    }

    /// What a read takes that never waits.
    pub(super) fn unwaiting(&self) -> Result<QueryOptions, Refusal> {
        self.query.unwaiting_options(self.request, &self.facts.region)
    }

    /// What a read takes that this server answers itself, whatever region is named.
    pub(super) fn local(&self) -> Result<QueryOptions, Refusal> {
        let mut options = self.read()?;
        options.region = self.facts.region.as_ref().to_owned();
        Ok(options)
    }

    /// What a write takes.
    pub(super) fn write(&self) -> WriteRequest {
        self.query.write_request(self.request, &self.facts.region)
    }

    /// The body.
    pub(super) fn body<T: Msg>(&self, fields: Fields) -> Result<T, Refusal> {
        self.body_or("", fields)
    }

    /// The same; the answer to a bad one begins with `what`.
    pub(super) fn body_or<T: Msg>(&self, what: &str, fields: Fields) -> Result<T, Refusal> {
        body::decode(fields, &self.request.body).map_err(|error| refusal(400, &format!("{what}{error}")))
    }

    /// A call.
    pub(super) fn call(&self, name: &str, arguments: &impl Msg, kind: Show) -> Planned {
        let method = api::method(name).map_err(|UnknownMethod(text)| refusal(500, &text))?;
        let (body, marks) = (arguments.to_bytes(), Marks::default());
        Ok(Plan::Call { method, body, marks, view: View { kind, ..self.view } })
    }

    /// A streaming call.
    pub(super) fn stream(&self, name: &str, argument: &impl Msg, body: StreamBody) -> Planned {
        let method = api::streaming_method(name).map_err(|UnknownMethod(text)| refusal(500, &text))?;
        Ok(Plan::Stream { method, argument: argument.to_bytes(), body })
    }
}
