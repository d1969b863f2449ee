//! The addresses that the server listens on: free, held by a server that answers, or held by something else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use crate::cli::web;

use super::finding::Finding;
use super::{Site, WAIT_MAX};

/// Looks at both.
pub(super) fn check(site: &Site) -> Vec<Finding> {
    let (config, tls) = (&site.config, &site.config.tls);
    // Without the files nobody can be asked who he is.
    let blind = |is_on: bool| is_on.then(|| site.tls(&config.region).err()).flatten();
    let rpc = listener("listen.rpc", config.listen_rpc, blind(tls.rpc), |address| answers_rpc(site, address));
    let http = listener("listen.http", config.listen_http, blind(tls.http), |address| answers_http(site, address));
    vec![rpc, http]
}

fn listener(
    what: &str,
    address: SocketAddr,
    blind: Option<String>,
    asks: impl Fn(&str) -> Result<String, String>,
) -> Finding {
    if address.port() == 0 {
        return Finding::note(what, format!("{address}: the system chooses a port"), "");
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(what, format!("{address} is free: no server runs here")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match (blind, asks(&reached_at(address))) {
            (Some(why), _) => {
                Finding::note(what, format!("{address} is held by somebody who cannot be asked: {why}"), "")
            }
            (_, Ok(who)) => Finding::ok(what, format!("{address} is held by {who}")),
            (_, Err(why)) => {
                let hint = format!("who holds it: ss -Hltnp 'sport = :{}'", address.port());
                Finding::fail(what, format!("{address} is taken, and not by a server of ours: {why}"), hint)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Finding::note(what, format!("{address} cannot be tried by this user: {error}"), "run it as root")
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
            Finding::fail(what, format!("{address}: this machine has no such address"), "see ip -brief address")
        }
        Err(error) => Finding::fail(what, format!("{address}: {error}"), ""),
    }
}

/// Who listens everywhere is reached on loopback too.
fn reached_at(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port()).to_string()
}

/// Where the server's own RPC listener is reached from here.
pub(super) fn own_rpc(site: &Site) -> String {
    reached_at(site.config.listen_rpc)
}

fn answers_rpc(site: &Site, address: &str) -> Result<String, String> {
    Ok(match site.hear(address, &site.config.region)? {
        Some(members) => format!("{}.{}, which answers", members.server_name, members.server_region),
        None => "a server, which answers".to_owned(),
    })
}

fn answers_http(site: &Site, address: &str) -> Result<String, String> {
    let tls = site.http_tls(&site.config.region)?;
    let asked = web::Site { address, tls: tls.as_ref(), token: "" };
    let answer = web::get(asked, "/v1/agent/health?type=server", WAIT_MAX, 64 * 1024)?;
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    match answer.status {
        // Without a leader it says so, and is there all the same.
        200 | 500 if text.contains("\"server\"") => Ok("a server, which answers".to_owned()),
        status => Err(format!("its answer is {status}")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_port_is_free_or_ours_or_taken() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let taken = listener("rpc", address, None, |_| Err("it says nothing".to_owned()));
        assert_eq!(taken.verdict, Verdict::Fail);
        assert!(taken.hint.contains(&address.port().to_string()), "{taken:?}");
        let blind = listener("rpc", address, Some("key.pem: no".to_owned()), |_| Err(String::new()));
        assert_eq!(blind.verdict, Verdict::Note);
        assert_eq!(listener("rpc", address, None, |_| Ok("hf1.global".to_owned())).verdict, Verdict::Ok);
        drop(held);
        assert_eq!(listener("rpc", address, None, |_| unreachable!()).verdict, Verdict::Ok);
        let elsewhere: SocketAddr = "192.0.2.1:4647".parse().unwrap();
        assert_eq!(listener("rpc", elsewhere, None, |_| unreachable!()).verdict, Verdict::Fail);
        assert_eq!(reached_at("0.0.0.0:4647".parse().unwrap()), "127.0.0.1:4647");
        assert_eq!(reached_at("[::]:4647".parse().unwrap()), "[::1]:4647");
    }
}
