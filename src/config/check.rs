//! One value of the file against the type and the bounds of its key. Knows no other keys.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use toml::de::{DeArray, DeFloat, DeInteger, DeValue};

use super::keys::{Key, Kind, Later};
use crate::base::network::{Network, NotANetwork};
use crate::base::time::parse_duration;

/// Limits of connections in 1..=25 are refused: the limit for streaming connections is 20 lower and must leave room.
const CONNS_TOO_FEW_MAX: i64 = 25;
/// Beyond any number of sockets a process can hold.
const CONNS_MAX: i64 = 1_000_000;
/// Each accepted connection is held against all of them.
const NETWORKS_MAX: usize = 256;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;

/// A value that passed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Checked {
    Text(String),
    Path(PathBuf),
    Listen(SocketAddr),
    List(Vec<String>),
    Networks(Vec<Network>),
    Flag(bool),
    /// Counts, and sizes in bytes.
    Number(u64),
    Span(Duration),
    Rate(f64),
}

/// Checks a value of the file.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn check(key: &Key, value: &DeValue<'_>) -> Result<Checked, String> {
    match (key.kind, value) {
        (Kind::Size(..), DeValue::String(text)) => size(key.kind, text),
        (kind @ (Kind::Size(..) | Kind::Count(..)), DeValue::Integer(number)) => {
            let number = integer(number)?;
            let found = number.to_string();
            within(kind, u64::try_from(number).map_err(|_| out_of_bounds(kind, &found))?, &found)
        }
        (Kind::Conns, DeValue::Integer(number)) => conns(key.name, integer(number)?),
        (Kind::Rate(..), DeValue::Float(number)) => rate(key.kind, float(number)?),
        (Kind::Rate(..), DeValue::Integer(number)) => rate(key.kind, integer(number)? as f64),
        (Kind::Flag, DeValue::Boolean(flag)) => Ok(Checked::Flag(*flag)),
        (Kind::Addresses, DeValue::Array(list)) => addresses(list),
        (Kind::Networks, DeValue::Array(list)) => networks(list),
        (Kind::Size(..) | Kind::Count(..) | Kind::Conns | Kind::Rate(..) | Kind::Flag, other) => {
            Err(wrong_type(key.kind, other.type_str()))
        }
        (Kind::Addresses | Kind::Networks, other) => Err(wrong_type(key.kind, other.type_str())),
        (kind, DeValue::String(text)) => check_text(kind, text),
        (kind, other) => Err(wrong_type(kind, other.type_str())),
    }
}

/// Checks a text, from the file or from the command line, for a key that takes one.
///
/// # Errors
/// A sentence that says what is wrong.
pub(super) fn check_text(kind: Kind, text: &str) -> Result<Checked, String> {
    match kind {
        Kind::Name => name(text),
        Kind::Choice(words) if words.contains(&text) => Ok(Checked::Text(text.to_owned())),
        Kind::Choice(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
            Err(format!("must be {}; found: {text:?}", words.join(" or ")))
        }
        Kind::Path if text.is_empty() => Err("must not be empty".to_owned()),
        Kind::Path => Ok(Checked::Path(PathBuf::from(text))),
        Kind::Listen => text.parse().map(Checked::Listen).map_err(|_| {
            format!("{text:?} is not an address to listen on: write IP:PORT, for example \"127.0.0.1:4647\"")
        }),
        Kind::Address => address(text).map(|()| Checked::Text(text.to_owned())),
        Kind::Url if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
            Ok(Checked::Text(text.to_owned()))
        }
        // The text may hold a password, so it is not repeated.
        Kind::Url => Err("must begin with postgres://".to_owned()),
        Kind::Span(min, max) => {
            let span = parse_duration(text)?;
            if (min..=max).contains(&span) {
                return Ok(Checked::Span(span));
            }
            Err(out_of_bounds(kind, text))
        }
        Kind::Addresses
        | Kind::Networks
        | Kind::Flag
        | Kind::Count(..)
        | Kind::Conns
        | Kind::Size(..)
        | Kind::Rate(..) => Err(wrong_type(kind, "string")),
    }
}

/// What about a checked value this build lacks.
pub(super) fn refused(key: &Key, value: &Checked) -> Option<&'static str> {
    match (key.later, value) {
        (Later::Set(what), _) => Some(what),
        (Later::Word(word, what), Checked::Text(text)) if text == word => Some(what),
        _ => None,
    }
}

fn wrong_type(kind: Kind, found: &str) -> String {
    let wanted = match kind {
        Kind::Name | Kind::Choice(_) | Kind::Url => "a string",
        Kind::Path => "a path in quotes",
        Kind::Listen | Kind::Address => "an address such as \"127.0.0.1:4647\"",
        Kind::Networks => "a list of addresses and networks such as [\"10.0.0.10\", \"fd00:1::/64\"]",
        Kind::Addresses => "a list of addresses such as [\"10.0.0.2:4647\"]",
        Kind::Flag => "true or false",
        Kind::Count(..) | Kind::Conns => "a whole number",
        Kind::Size(..) => "a size such as \"64KiB\" or \"1MiB\", or a number of bytes",
        Kind::Span(..) => "a duration such as \"5s\" or \"1m30s\"",
        Kind::Rate(..) => "a number",
    };
    let article = if found.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("must be {wanted}; found {article} {found}")
}

fn integer(number: &DeInteger<'_>) -> Result<i64, String> {
    i64::from_str_radix(number.as_str(), number.radix())
        .map_err(|_| format!("{} is too large a number", number.as_str()))
}

fn float(number: &DeFloat<'_>) -> Result<f64, String> {
    number.as_str().parse().map_err(|_| format!("{} is not a number", number.as_str()))
}

fn rate(kind: Kind, number: f64) -> Result<Checked, String> {
    match kind {
        Kind::Rate(min, max) if (min..=max).contains(&number) => Ok(Checked::Rate(number)),
        _ => Err(out_of_bounds(kind, &number.to_string())),
    }
}

/// R1.2: the words are those of the peer.
fn conns(name: &str, number: i64) -> Result<Checked, String> {
    let last = name.rsplit('.').next().unwrap_or(name);
    if number < 0 || (1..=CONNS_TOO_FEW_MAX).contains(&number) {
        return Err(format!("{last} must be > {CONNS_TOO_FEW_MAX}; found: {number}"));
    }
    let within = u64::try_from(number).ok().filter(|_| number <= CONNS_MAX);
    within.map(Checked::Number).ok_or_else(|| format!("{last} must be <= {CONNS_MAX}; found: {number}"))
}

fn size(kind: Kind, text: &str) -> Result<Checked, String> {
    let wrong = |why: &str| format!("{text:?} is not a size: {why}, write for example \"64KiB\" or \"1MiB\"");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "" => return Err(wrong("a unit is missing")),
        _ => return Err(wrong("the unit is unknown")),
    };
    if number.is_empty() {
        return Err(wrong("a number is missing"));
    }
    let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(scale));
    within(kind, bytes.ok_or_else(|| wrong("it is too large"))?, text)
}

/// A count or a size within its bounds.
fn within(kind: Kind, number: u64, found: &str) -> Result<Checked, String> {
    match kind {
        Kind::Count(min, max) | Kind::Size(min, max) if (min..=max).contains(&number) => Ok(Checked::Number(number)),
        _ => Err(out_of_bounds(kind, found)),
    }
}

/// What to say about a value outside of its bounds.
fn out_of_bounds(kind: Kind, found: &str) -> String {
    format!("must be from {}; found: {found}", kind.bounds().unwrap_or_default())
}

fn name(text: &str) -> Result<Checked, String> {
    let wrong = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '*' | '"');
    if text.is_empty() {
        Err("must not be empty".to_owned())
    } else if text.len() > NAME_BYTES_MAX {
        Err(format!("must not be longer than {NAME_BYTES_MAX} bytes"))
    } else if text.contains(wrong) {
        Err(format!("{text:?} is not a name: no spaces, quotes, \"/\" or \"*\""))
    } else {
        Ok(Checked::Text(text.to_owned()))
    }
}

fn addresses(list: &DeArray<'_>) -> Result<Checked, String> {
    let texts = list.iter().map(|item| match item.get_ref() {
        DeValue::String(text) => address(text).map(|()| text.as_ref().to_owned()),
        other => Err(format!("{} in the list", wrong_type(Kind::Address, other.type_str()))),
    });
    texts.collect::<Result<_, _>>().map(Checked::List)
}

fn networks(list: &DeArray<'_>) -> Result<Checked, String> {
    if list.len() > NETWORKS_MAX {
        return Err(format!("must not name more than {NETWORKS_MAX} networks; found: {}", list.len()));
    }
    let networks = list.iter().map(|item| match item.get_ref() {
        DeValue::String(text) => network(text),
        other => Err(format!("must be an address or network in quotes; found in the list: {}", other.type_str())),
    });
    networks.collect::<Result<_, _>>().map(Checked::Networks)
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|wrong| match wrong {
        NotANetwork::Address => {
            format!("{text:?} is not an address or network: write for example \"10.0.0.10\" or \"fd00:1::/64\"")
        }
        NotANetwork::Bits(most) => format!("{text:?} is not a network: write 0 to {most} after the slash"),
        NotANetwork::HostBits(meant) => {
            format!("{text:?} has bits set after the first ones that count: write {:?}", meant.to_string())
        }
    })
}

/// An address that others dial: a host name or IP, and a port.
fn address(text: &str) -> Result<(), String> {
    let wrong = |why: &str| format!("{text:?} is not an address: {why}, write for example \"10.0.0.1:4647\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    if port.parse::<u16>().is_ok_and(|port| port > 0) {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip = match inner {
            Some(inner) => {
                Some(IpAddr::V6(inner.parse::<Ipv6Addr>().map_err(|_| wrong("the host is no IPv6 address"))?))
            }
            None => host.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4),
        };
        if ip.is_some_and(|ip| ip.is_unspecified()) {
            return Err(wrong("nobody can dial it"));
        }
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if ip.is_none() && (host.is_empty() || !host.chars().all(named)) {
            return Err(wrong("the host is wrong"));
        }
        return Ok(());
    }
    Err(wrong("the port is wrong"))
}
