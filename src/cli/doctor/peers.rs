//! The other servers: each address of `cluster.join` and `[regions]` resolved, dialled and asked, side by side; then the
//! cluster as a whole, as a server that answers knows it.

use std::net::ToSocketAddrs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::base::time::{WallTime, format_duration};
use crate::cli::server::rpc_address;
use crate::cli::web;
use crate::client;
use crate::edge::clock;
use crate::wire::body::operator::OperatorHealthReply;
use crate::wire::body::query::{GenericRequest, QueryOptions};
use crate::wire::body::status::{Member, ServerMembersResponse};

use super::finding::Finding;
use super::ports::own_rpc;
use super::{GROUP_MAX, Site, WAIT_MAX};

/// What shows more.
const TOKEN_HINT: &str = "see --token-file and HOLDFAST_TOKEN";
/// Looking for a server that speaks for the cluster ends after this long.
const LOOKING_MAX: Duration = Duration::from_secs(6);
/// Addresses that are asked, at most; as many threads.
const ADDRESSES_MAX: usize = 64;
/// Clocks that differ by more lead to surprises, milliseconds.
const CLOCK_DIFFERENCE_MAX_MILLIS: i64 = 1_000;

/// Asks all of them.
pub(super) fn check_peers(site: &Site) -> Vec<Finding> {
    let config = &site.config;
    let own =
        |address: &String| config.advertise_rpc.as_ref() == Some(address) || *address == config.listen_rpc.to_string();
    let ours =
        config.join.iter().filter(|address| !own(address)).map(|address| (config.region.clone(), address.clone()));
    let others = config.regions.iter().flat_map(|(region, list)| list.iter().map(|one| (region.clone(), one.clone())));
    let asked: Vec<(String, String)> = ours.chain(others).take(ADDRESSES_MAX).collect();
    if let Some(why) = config.tls.rpc.then(|| site.tls(&config.region).err()).flatten().filter(|_| !asked.is_empty()) {
        return vec![Finding::note("peers", format!("cannot be asked with these files: {why}"), "")];
    }
    let deadline = Instant::now() + GROUP_MAX;
    let answers: Vec<_> = asked
        .into_iter()
        .map(|(region, address)| {
            let (sender, answer) = mpsc::channel();
            let (site, region, to) = (site.clone(), region, address.clone());
            let asking = thread::Builder::new().spawn(move || sender.send(look(&site, &region, &to)));
            (address, asking.is_ok().then_some(answer))
        })
        .collect();
    let late = |address: &String| Finding::fail(address, "no answer in time", "is its name server slow?");
    let wait = |answer: mpsc::Receiver<Vec<Finding>>| {
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()
    };
    answers
        .into_iter()
        .flat_map(|(address, answer)| answer.and_then(wait).unwrap_or_else(|| vec![late(&address)]))
        .collect()
}

/// One address: its name, its port, who answers there, and that one's clock.
fn look(site: &Site, region: &str, address: &str) -> Vec<Finding> {
    let began = Instant::now();
    let resolved: Vec<_> = match address.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(error) => return vec![Finding::fail(address, error.to_string(), "is the name right, and in the DNS?")],
    };
    let Some(first) = resolved.first() else {
        return vec![Finding::fail(address, "the name has no address", "is it right?")];
    };
    let resolving = began.elapsed();
    let dialling = Instant::now();
    if let Err(error) = web::connect(address, Instant::now() + WAIT_MAX) {
        let detail = format!("{first}: {}", web::said(&error));
        // Where a machine answers and no server, the server has perhaps not been started.
        return vec![if error.kind() == std::io::ErrorKind::ConnectionRefused {
            Finding::warn(address, detail, "is the server started there, and does it listen on that address?")
        } else {
            Finding::fail(address, detail, "is the machine up, and does a firewall let us through?")
        }];
    }
    let (dialling, asking) = (dialling.elapsed(), Instant::now());
    let members = match site.hear(address, region) {
        Ok(Some(members)) => members,
        Ok(None) => {
            return vec![Finding::note(address, "a server answers, and tells who it is with a token", TOKEN_HINT)];
        }
        Err(why) => return vec![Finding::fail(address, why, "do both sides have TLS on, and the same tls.ca_file?")],
    };
    let took = |time: Duration| format_duration(Duration::from_micros(u64::try_from(time.as_micros()).unwrap_or(0)));
    let times = format!("name {}, connection {}, answer {}", took(resolving), took(dialling), took(asking.elapsed()));
    let name = format!("{}.{}", members.server_name, members.server_region);
    if members.server_region != region {
        let detail = format!("{name} is of another region than {region}");
        return vec![Finding::fail(address, detail, "servers of other regions belong under [regions]")];
    }
    let member = members.members.iter().find(|member| member.name == name);
    let build = member.and_then(|member| member.tags.get("holdfast")).cloned().unwrap_or_default();
    let mut found = vec![judge_build(address, &build, format!("{name}, {times}"))];
    if let Some(http) = member.and_then(|member| member.tags.get("http_addr")).filter(|http| !http.is_empty()) {
        found.push(look_at_clock(site, region, address, http));
    }
    found
}

fn judge_build(address: &str, build: &str, detail: String) -> Finding {
    match build {
        env!("CARGO_PKG_VERSION") => Finding::ok(address, detail),
        "" => Finding::note(address, format!("{detail}: it is no holdfast"), ""),
        other => {
            let hint = format!("this is {}; servers of a cluster are to be the same soon", env!("CARGO_PKG_VERSION"));
            Finding::note(address, format!("{detail}: version {other}"), hint)
        }
    }
}

fn look_at_clock(site: &Site, region: &str, address: &str, http: &str) -> Finding {
    let what = format!("clock of {address}");
    let asked = site.http_tls(region).and_then(|tls| {
        let before = clock::wall();
        let asked = web::Site { address: http, tls: tls.as_ref(), token: "" };
        let answer = web::get(asked, "/v1/agent/health", WAIT_MAX, 64 * 1024)?;
        Ok((answer.date, before, clock::wall()))
    });
    match asked {
        Ok((date, before, after)) => judge_clock(&what, &date, before, after),
        Err(why) => Finding::note(what, format!("cannot be seen, over HTTP at {http}: {why}"), ""),
    }
}

/// A date in an answer is of a second that lay between question and answer.
fn judge_clock(what: &str, date: &str, before: WallTime, after: WallTime) -> Finding {
    let millis = |time: WallTime| time.unix_nanos().div_euclid(1_000_000);
    let (from, to) = (millis(before), millis(after));
    // The seconds that a date may be of are few: they are written, and compared.
    let near = |seconds: i64| WallTime::from_unix_nanos(seconds.saturating_mul(1_000_000_000)).http_date() == date;
    let here = before.unix_seconds();
    let Some(theirs) = (0..86_400).flat_map(|off| [here - off, here + off]).find(|seconds| near(*seconds)) else {
        let hint = "set the clocks: locks, tokens and certificates go by them";
        return Finding::fail(what, format!("it says {date:?}: more than a day from ours"), hint);
    };
    let (begins, ends) = (theirs.saturating_mul(1000), theirs.saturating_mul(1000).saturating_add(999));
    let difference = if begins > to { begins - to } else { (from - ends).max(0) };
    let direction = if begins > to { "ahead of" } else { "behind" };
    if difference > CLOCK_DIFFERENCE_MAX_MILLIS {
        let detail = format!("at least {difference} ms {direction} ours");
        return Finding::warn(what, detail, "set the clocks: locks, tokens and certificates go by them");
    }
    Finding::ok(what, format!("within {CLOCK_DIFFERENCE_MAX_MILLIS} ms of ours, as far as a date in seconds tells"))
}

/// The cluster, as whoever answers first knows it.
pub(super) fn check_cluster(site: &Site) -> Vec<Finding> {
    let (own, joined) = (own_rpc(site), site.config.join.iter().cloned());
    let query = QueryOptions {
        region: site.config.region.clone(),
        auth_token: site.token.clone(),
        allow_stale: true,
        ..QueryOptions::default()
    };
    let request = GenericRequest { query: query.clone() };
    let began = Instant::now();
    let mut last = "there is none to ask".to_owned();
    let answers =
        std::iter::once(own).chain(joined).take_while(|_| began.elapsed() < LOOKING_MAX).find_map(|address| {
            let client = site.client(&address, &site.config.region).map_err(|why| last = why).ok()?;
            let leader = client.call::<_, String>("Status.Leader", &request);
            leader.map_err(|error| last = error.to_string()).ok().map(|leader| (client, leader))
        });
    let Some((client, leader)) = answers else {
        return vec![Finding::note("cluster", format!("no server answers: {last}"), "")];
    };
    let mut found = match client.call::<_, ServerMembersResponse>("Status.Members", &request) {
        Ok(members) => judge_members(&members.members, site.config.bootstrap_expect),
        Err(client::Error::Answered { text, .. }) => vec![Finding::note("servers", text, TOKEN_HINT)],
        Err(error) => vec![Finding::note("servers", format!("cannot be seen: {error}"), "")],
    };
    found.push(match leader.as_str() {
        "" => Finding::fail("leader", "none is known", "a majority of the servers must be up and reach each other"),
        leader => Finding::ok("leader", leader),
    });
    let request = GenericRequest { query: QueryOptions { allow_stale: false, ..query } };
    found.push(match client.call::<_, OperatorHealthReply>("Operator.ServerHealth", &request) {
        Ok(reply) => judge_health(&reply),
        Err(client::Error::Answered { text, .. }) if text.contains("Permission denied") => {
            Finding::note("health", "cannot be seen without a token", TOKEN_HINT)
        }
        Err(error) => Finding::note("health", format!("cannot be seen: {error}"), ""),
    });
    found
}

fn judge_members(members: &[Member], expected: u64) -> Vec<Finding> {
    let mut found: Vec<Finding> = members
        .iter()
        .filter(|member| member.status != "alive")
        .map(|member| {
            let detail = format!("{} is {}", rpc_address(member), member.status);
            Finding::warn(&member.name, detail, "see \"holdfast server health\"")
        })
        .collect();
    let (count, alive) = (members.len(), members.iter().filter(|member| member.status == "alive").count());
    let detail = format!("{alive} of {count} alive, {expected} expected");
    found.insert(
        0,
        match u64::try_from(count) {
            Ok(count) if count < expected => {
                Finding::warn("servers", detail, "cluster.bootstrap_expect of them found the cluster")
            }
            _ => Finding::ok("servers", detail),
        },
    );
    found
}

fn judge_health(reply: &OperatorHealthReply) -> Finding {
    let detail = format!("servers that may fail: {}", reply.failure_tolerance);
    if reply.healthy {
        return Finding::ok("health", format!("all are well; {detail}"));
    }
    let sick: Vec<&str> = reply.servers.iter().filter(|one| !one.healthy).map(|one| one.name.as_str()).collect();
    Finding::warn("health", format!("not well: {}; {detail}", sick.join(", ")), "see \"holdfast server health\"")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    fn at(millis: i64) -> WallTime {
        WallTime::from_unix_nanos(1_700_000_000_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn a_clock_is_wrong_when_no_moment_between_question_and_answer_fits() {
        for (theirs, verdict) in [
            (0, Verdict::Ok),
            (1_000, Verdict::Ok),
            (-1_000, Verdict::Ok),
            (3_000, Verdict::Warn),
            (-3_000, Verdict::Warn),
            (40_000_000, Verdict::Warn),
            (100_000_000, Verdict::Fail),
        ] {
            let found = judge_clock("clock", &at(theirs).http_date(), at(10), at(300));
            assert_eq!(found.verdict, verdict, "{theirs}: {found:?}");
        }
        let found = judge_clock("clock", &at(5_000).http_date(), at(10), at(300));
        assert!(found.detail.contains("4700 ms ahead"), "{found:?}");
        assert_eq!(judge_clock("clock", "yesterday", at(0), at(1)).verdict, Verdict::Fail);
    }

    #[test]
    fn versions_members_and_health_are_judged() {
        assert_eq!(judge_build("a:1", env!("CARGO_PKG_VERSION"), String::new()).verdict, Verdict::Ok);
        assert_eq!(judge_build("a:1", "9.9.9", String::new()).verdict, Verdict::Note);
        let member = |status: &str| Member { status: status.to_owned(), ..Member::default() };
        let verdicts =
            |members: &[Member]| -> Vec<Verdict> { judge_members(members, 3).iter().map(|one| one.verdict).collect() };
        assert_eq!(verdicts(&[member("alive"), member("alive"), member("alive")]), [Verdict::Ok]);
        assert_eq!(verdicts(&[member("alive"), member("failed")]), [Verdict::Warn, Verdict::Warn]);
        assert_eq!(judge_health(&OperatorHealthReply::default()).verdict, Verdict::Warn);
        let well = OperatorHealthReply { healthy: true, ..OperatorHealthReply::default() };
        assert_eq!(judge_health(&well).verdict, Verdict::Ok);
    }
}
