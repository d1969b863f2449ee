//! The program `holdfast` as the system sees it: exit status, which stream, environment. Everything else is tested
//! beside the code.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::process::{Command, Output};

fn holdfast(line: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for name in ["RPC_ADDR", "TOKEN", "CA_FILE", "CERT_FILE", "KEY_FILE", "TLS_SERVER_NAME"] {
        command.env_remove(format!("HOLDFAST_{name}"));
    }
    command.args(line).envs(environment.iter().copied()).output().unwrap()
}

/// An address where nobody listens: it was free a moment ago.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn help_and_version_go_to_standard_output() {
    for line in [&["--help"][..], &["--version"], &["-V"], &["bench", "ping", "--help"], &["node", "list", "-h"]] {
        let output = holdfast(line, &[]);
        assert_eq!(output.status.code(), Some(0), "{line:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{line:?}");
    }
}

#[test]
fn wrong_usage_goes_to_standard_error() {
    for line in [&[][..], &["bench"], &["status", "--nope"], &["status", "--timeout", "1"]] {
        let output = holdfast(line, &[]);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{line:?}");
    }
}

#[test]
fn the_environment_names_the_address_and_the_flag_goes_before_it() {
    let (one, other) = (nobody(), nobody());
    for (line, named) in [(&["status"][..], &one), (&["--address", &other, "status"], &other)] {
        let output = holdfast(line, &[("HOLDFAST_RPC_ADDR", &one)]);
        assert_eq!(output.status.code(), Some(3));
        assert!(String::from_utf8(output.stderr).unwrap().contains(named.as_str()));
    }
}

#[test]
fn the_environment_names_the_files_of_tls_and_the_flag_goes_before_it() {
    let (one, other) = ("/nowhere/one.pem", "/nowhere/other.pem");
    for (line, named) in [(&["status"][..], one), (&["--ca-file", other, "status"], other)] {
        let output = holdfast(line, &[("HOLDFAST_CA_FILE", one)]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8(output.stderr).unwrap().contains(named));
    }
    let output = holdfast(&["status"], &[("HOLDFAST_CA_FILE", one), ("HOLDFAST_CERT_FILE", one)]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("need each other"));
    let output = holdfast(&["status"], &[("HOLDFAST_TLS_SERVER_NAME", "none")]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("need --ca-file"));
}
