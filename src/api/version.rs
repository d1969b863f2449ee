//! Versions of agents, compared as go-version compares them: numbers first, a pre-release before its release.

use std::cmp::Ordering;

/// The least version whose agents can be called (Nomad `nomad/client_rpc.go`).
pub(super) const CALLS: &str = "0.8.0-rc1";

/// The least version whose agents take a signed identity (Nomad `nomad/node_endpoint.go`).
pub(super) const IDENTITY: &str = "1.11.0-beta.1";

/// Longer ones are no versions, bytes.
const MAX_BYTES: usize = 64;

/// A version, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: [u64; 3],
    pre: &'a str,
}

/// How `version` stands to `other`; `None` when either is no version.
pub(super) fn compare(version: &str, other: &str) -> Option<Ordering> {
    let (a, b) = (parse(version)?, parse(other)?);
    Some(a.numbers.cmp(&b.numbers).then_with(|| match (a.pre.is_empty(), b.pre.is_empty()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => compare_pre(a.pre, b.pre),
    }))
}

/// Whether `version` is `least` or later; false for what is no version.
pub(super) fn at_least(version: &str, least: &str) -> bool {
    compare(version, least).is_some_and(Ordering::is_ge)
}

fn parse(text: &str) -> Option<Version<'_>> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split_once('+').map_or(text, |(version, _)| version);
    let (core, pre) = match text.split_once('-') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let mut numbers = [0; 3];
    for (nth, part) in core.split('.').enumerate() {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        // A fourth number and what follows it makes no difference to any rule here.
        let number = digits.then(|| part.parse().ok()).flatten()?;
        if let Some(place) = numbers.get_mut(nth) {
            *place = number;
        }
    }
    Some(Version { numbers, pre })
}

fn compare_pre(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (left, right) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(left), Some(right)) => (left, right),
        };
        let order = match (left.parse::<u64>(), right.parse::<u64>()) {
            (Ok(left), Ok(right)) => left.cmp(&right),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => left.cmp(right),
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_releases_come_before_their_release() {
        let rising =
            ["0.7.9", "0.8.0-beta", "0.8.0-rc1", "0.8", "0.8.1", "1.1.2", "1.11.0-beta.1", "1.11.0-beta.2", "v2.0.5"];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Some(Ordering::Less), "{pair:?}");
        }
        assert_eq!(compare("1.2.3+ent", "v1.2.3"), Some(Ordering::Equal));
        assert!(at_least("0.8.0", CALLS) && !at_least("0.8.0-dev", CALLS));
        assert!(at_least("1.11.0-dev.x", "1.11.0-beta.1") && !at_least("1.11.0-alpha", IDENTITY));
    }

    #[test]
    fn what_is_no_version_is_told_apart() {
        for bad in ["", "x", "1..2", "1.2.", "1.2.3-", "-1", "1.99999999999999999999", &"1".repeat(65)] {
            assert_eq!(compare(bad, "1.0.0"), None, "{bad}");
        }
    }
}
