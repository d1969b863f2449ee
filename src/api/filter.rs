//! Filters of lists: the expression language of go-bexpr, evaluated over a row's msgpack form.
//!
//! `==`, `!=`, `in`, `not in`, `contains`, `not contains`, `is empty`, `is not empty`, `matches`, `not matches`, `and`,
//! `or`, `not`, parentheses, selectors `A.B["c"]` and `"/A/B"`. No `any` or `all`: they are refused when the expression
//! is read. Regular expressions are matched in time that grows with the text alone, as those of the peers are. Source:
//! endpoint notes, section 1.5; go-bexpr `grammar/grammar.peg`, `evaluate.go`.

use regex::bytes::{Regex, RegexBuilder};

use crate::wire::msgpack::{Decoder, Kind};

use super::filter_parse::parse;

/// Longer expressions are refused, bytes.
pub(super) const MAX_FILTER_BYTES: usize = 16 * 1024;

/// Deeper nesting of parentheses and `not` is refused.
pub(super) const MAX_FILTER_DEPTH: usize = 64;

/// A regular expression that takes more memory than this once it is compiled is refused, bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// Fields of a node whose value may be left out by older agents: a selector may name them all the same.
const NODE_FIELDS: &[&str] = &[
    "ID",
    "SecretID",
    "Datacenter",
    "Name",
    "CgroupParent",
    "HTTPAddr",
    "TLSEnabled",
    "Attributes",
    "NodeResources",
    "ReservedResources",
    "Resources",
    "Reserved",
    "Links",
    "Meta",
    "NodeClass",
    "NodePool",
    "ComputedClass",
    "DrainStrategy",
    "SchedulingEligibility",
    "Status",
    "StatusDescription",
    "IdentitySigningKeyID",
    "StatusUpdatedAt",
    "Events",
    "Drivers",
    "CSIControllerPlugins",
    "CSINodePlugins",
    "HostVolumes",
    "GCVolumesOnNodeGC",
    "HostNetworks",
    "LastDrain",
    "NodeMaxAllocs",
    "LastMissedHeartbeatIndex",
    "LastAllocUpdateIndex",
    "CreateIndex",
    "ModifyIndex",
];

/// Fields that are maps in Go, where a key that is not there is no error.
const MAPS: &[&str] = &[
    "Attributes",
    "Meta",
    "Links",
    "Drivers",
    "CSIControllerPlugins",
    "CSINodePlugins",
    "HostVolumes",
    "HostNetworks",
    "Details",
    "Topologies",
];

/// What is known of the rows of a list beyond what each of them holds.
struct Shape {
    /// Fields that a selector may name although a row has none: their zero.
    fields: &'static [&'static str],
    /// Fields that are maps in Go, where a key that is not there is no error.
    maps: &'static [&'static str],
}

/// Nodes.
const NODE: Shape = Shape { fields: NODE_FIELDS, maps: MAPS };

/// Rows that hold all of their fields.
const WHOLE: Shape = Shape { fields: &[], maps: &[] };

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter(Expr);

/// A part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    /// True when one of them is.
    Or(Vec<Expr>),
    /// True when all of them are.
    And(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A comparison.
    Match {
        /// What is looked at.
        selector: Vec<String>,
        /// How.
        op: Op,
        /// Whether the answer is turned round.
        negated: bool,
        /// With what.
        value: String,
    },
    /// A text that a regular expression is found in.
    Matches {
        /// What is looked at.
        selector: Vec<String>,
        /// Whether the answer is turned round.
        negated: bool,
        /// What is looked for.
        pattern: Pattern,
    },
}

/// A regular expression; two with the same text are the same.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Reads one.
    ///
    /// # Errors
    /// Text that is none, in one line, or one that is too large.
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let built = RegexBuilder::new(text).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build();
        built.map(Pattern).map_err(|error| {
            let last = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("failed to compile regular expression {text:?}: {last}")
        })
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// `==`
    Equal,
    /// `value in selector`, `selector contains value`
    In,
    /// `is empty`
    Empty,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// Where it is none, in one line.
    pub(super) fn parse(text: &str) -> Result<Filter, String> {
        parse(text).map(Filter)
    }

    /// Whether a node passes. `node` is its msgpack form.
    ///
    /// # Errors
    /// A selector that names no field, or a comparison that the field's kind does not have.
    pub(super) fn matches(&self, node: &[u8]) -> Result<bool, String> {
        evaluate(&self.0, node, &NODE)
    }

    /// Whether a row passes that holds all of its fields. `row` is its msgpack form.
    ///
    /// # Errors
    /// As [`Filter::matches`].
    pub(super) fn matches_row(&self, row: &[u8]) -> Result<bool, String> {
        evaluate(&self.0, row, &WHOLE)
    }
}

/// Recurses no deeper than [`MAX_FILTER_DEPTH`] lets an expression nest.
fn evaluate(expr: &Expr, node: &[u8], shape: &Shape) -> Result<bool, String> {
    match expr {
        Expr::Or(parts) => {
            for part in parts {
                if evaluate(part, node, shape)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Expr::And(parts) => {
            for part in parts {
                if !evaluate(part, node, shape)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Expr::Not(part) => evaluate(part, node, shape).map(|is| !is),
        Expr::Match { selector, op, negated, value } => {
            let found = find(selector, node, shape)?;
            let is = match op {
                Op::Equal => equal(found, value),
                Op::In => holds(found, value),
                Op::Empty => empty(found),
            };
            is.map(|is| is != *negated)
        }
        Expr::Matches { selector, negated, pattern } => {
            matched(find(selector, node, shape)?, pattern).map(|is| is != *negated)
        }
    }
}

/// What a selector leads to.
#[derive(Clone, Copy)]
enum Found<'a> {
    /// A value.
    Value(&'a [u8]),
    /// A field without a value: the zero of its type.
    Zero,
    /// A map without that key: nothing equals it, and it holds nothing.
    Absent,
}

fn find<'a>(selector: &[String], node: &'a [u8], shape: &Shape) -> Result<Found<'a>, String> {
    let wrong =
        |at: usize, what: String| format!("error finding value in datum: /{} at part {at}: {what}", selector.join("/"));
    let mut value = node;
    for (at, part) in selector.iter().enumerate() {
        let mut d = Decoder::new(value);
        let kind = d.kind().map_err(|error| error.to_string())?;
        let inner = match kind {
            Kind::Map => key(&mut d, part),
            Kind::Array => element(&mut d, part),
            Kind::Nil => return Ok(Found::Absent),
            _ => return Err(wrong(at, format!("couldn't find key: struct field with name {part:?}"))),
        };
        let parent = at.checked_sub(1).and_then(|before| selector.get(before));
        match inner {
            Some(inner) => value = inner,
            None if at == 0 && shape.fields.contains(&part.as_str()) => {
                return Ok(if selector.len() == 1 { Found::Zero } else { Found::Absent });
            }
            None if parent.is_some_and(|parent| shape.maps.contains(&parent.as_str())) => return Ok(Found::Absent),
            None if kind == Kind::Array => return Err(wrong(at, format!("index {part} is out of range"))),
            None => return Err(wrong(at, format!("couldn't find key: struct field with name {part:?}"))),
        }
    }
    Ok(Found::Value(value))
}

fn key<'a>(d: &mut Decoder<'a>, wanted: &str) -> Option<&'a [u8]> {
    for _ in 0..d.map().ok()?? {
        let is = d.bytes().ok()? == wanted.as_bytes();
        let value = d.raw().ok()?;
        if is {
            return Some(value);
        }
    }
    None
}

fn element<'a>(d: &mut Decoder<'a>, wanted: &str) -> Option<&'a [u8]> {
    let wanted: usize = wanted.parse().ok()?;
    let len = d.array().ok()??;
    for nth in 0..len {
        let value = d.raw().ok()?;
        if nth == wanted {
            return Some(value);
        }
    }
    None
}

/// The literal is read as the field's kind.
fn equal(found: Found<'_>, literal: &str) -> Result<bool, String> {
    let bytes = match found {
        Found::Absent => return Ok(false),
        Found::Zero => return Ok(matches!(literal, "" | "0" | "false")),
        Found::Value(bytes) => bytes,
    };
    let mut d = Decoder::new(bytes);
    let wrong = |kind: &str| format!("error getting match value in expression: {literal:?} is no {kind}");
    let text = |error: crate::wire::msgpack::DecodeError| error.to_string();
    match d.kind().map_err(text)? {
        Kind::Nil => Ok(literal.is_empty()),
        Kind::Str => Ok(d.bytes().map_err(text)? == literal.as_bytes()),
        Kind::Bool => {
            let wanted = match literal {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => return Err(wrong("truth value")),
            };
            Ok(d.bool().map_err(text)? == wanted)
        }
        Kind::Int => {
            let wanted: i128 = literal.parse().map_err(|_| wrong("number"))?;
            let is = d.clone().i64().map(i128::from).or_else(|_| d.u64().map(i128::from)).map_err(text)?;
            Ok(is == wanted)
        }
        Kind::Float => {
            let wanted: f64 = literal.parse().map_err(|_| wrong("number"))?;
            Ok(d.f64().map_err(text)? == wanted)
        }
        Kind::Array | Kind::Map | Kind::Ext => {
            Err("unable to find suitable primitive comparison function for matching".to_owned())
        }
    }
}

/// A text that a regular expression is found in.
fn matched(found: Found<'_>, pattern: &Pattern) -> Result<bool, String> {
    let bytes = match found {
        Found::Absent => return Ok(false),
        Found::Zero => return Ok(pattern.0.is_match(b"")),
        Found::Value(bytes) => bytes,
    };
    let mut d = Decoder::new(bytes);
    let text = |error: crate::wire::msgpack::DecodeError| error.to_string();
    match d.kind().map_err(text)? {
        Kind::Nil => Ok(pattern.0.is_match(b"")),
        Kind::Str => Ok(pattern.0.is_match(d.bytes().map_err(text)?)),
        _ => Err("only texts can be matched with a regular expression".to_owned()),
    }
}

/// A text within a text, an element of a list, a key of a map.
fn holds(found: Found<'_>, literal: &str) -> Result<bool, String> {
    let Found::Value(bytes) = found else { return Ok(false) };
    let mut d = Decoder::new(bytes);
    let text = |error: crate::wire::msgpack::DecodeError| error.to_string();
    match d.kind().map_err(text)? {
        Kind::Nil => Ok(false),
        Kind::Str => {
            let whole = d.bytes().map_err(text)?;
            let part = literal.as_bytes();
            Ok(part.is_empty() || whole.windows(part.len()).any(|window| window == part))
        }
        Kind::Array => {
            for _ in 0..d.array().map_err(text)?.unwrap_or(0) {
                if equal(Found::Value(d.raw().map_err(text)?), literal)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Kind::Map => Ok(key(&mut d, literal).is_some()),
        _ => Err("cannot perform in/contains operations on this field: it holds a single value".to_owned()),
    }
}

fn empty(found: Found<'_>) -> Result<bool, String> {
    let Found::Value(bytes) = found else { return Ok(true) };
    let mut d = Decoder::new(bytes);
    let text = |error: crate::wire::msgpack::DecodeError| error.to_string();
    match d.kind().map_err(text)? {
        Kind::Nil => Ok(true),
        Kind::Str => Ok(d.bytes().map_err(text)?.is_empty()),
        Kind::Array => Ok(d.array().map_err(text)?.unwrap_or(0) == 0),
        Kind::Map => Ok(d.map().map_err(text)?.unwrap_or(0) == 0),
        _ => Err("cannot perform is empty operations on this field: it holds a single value".to_owned()),
    }
}
