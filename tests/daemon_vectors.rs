//! Every recorded session that has a client's side, replayed against the daemon: each turn whole, and again with each
//! byte in a write of its own. What the daemon answers must mean the same as what was recorded (R1.17, R1.30, R1.34,
//! R1.38, R1.42 to R1.50, R1.63, R1.72).
//!
//! Where holdfast deviates on purpose, or a session belongs to a part that is tested elsewhere, a table says so.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use rig::heard::{DATA, FIN, Item, PING, SYN, WINDOW, frame};
use rig::recorded::{self, Cut, Recorded, Replay};
use rig::{Daemon, Peer, Setup, Talk, Value, json};

/// Sessions that need nothing but a server that leads, and end by themselves.
const QUICK: &[&str] = &[
    "args_nil_body",
    "args_unknown_fields",
    "codec_garbage_header",
    "codec_header_array",
    "codec_header_seq_first",
    "codec_string_header",
    "error_bad_body",
    "error_bad_body__v112",
    "error_from_method",
    "error_from_method__name_order",
    "error_from_method__v112",
    "error_missing_region",
    "error_missing_target_region",
    "error_missing_target_region__v112",
    "error_no_path_to_node",
    "error_other_region",
    "error_other_region__v112",
    "goaway_internal_from_client",
    "goaway_normal_from_client",
    "goaway_proto_from_client",
    "goaway_unknown_from_client",
    "illformed_method",
    "mode_multiplex_v1",
    "mode_multiplex_v1__v112",
    "mode_rpcnomad",
    "region_list",
    "region_list__v112",
    "rst_from_client",
    "status_leader",
    "status_leader__name_order",
    "status_leader__v112",
    "status_members",
    "status_members__v112",
    "status_peers",
    "status_ping",
    "status_ping__v112",
    "status_version_unknown",
    "streaming_event_error",
    "streaming_fs_logs_error",
    "streaming_monitor",
    "streaming_monitor_error",
    "streaming_monitor_error__v112",
    "streaming_monitor_plain",
    "streaming_unknown_method",
    "streaming_unknown_method__v112",
    "syn_fin_in_data_frame",
    "syn_in_data_frame",
    "unknown_service",
    "unknown_service__v112",
    "v2_bad_stream_byte",
    "viol_dup_syn",
    "viol_dup_syn__v112",
    "viol_first_byte_idle",
    "viol_first_byte_unknown",
    "viol_ping_noflags",
    "viol_tls_not_configured",
    "viol_unknown_flags",
    "viol_unknown_stream_data",
    "viol_yamux_type",
    "viol_yamux_version",
];

/// Sessions that need a registered node, or wait for a while.
const WITH_NODE: &[&str] = &[
    "blocking_node_list",
    "codec_pipelined",
    "data_after_fin",
    "fin_during_query",
    "mode_multiplex_v2_mixed",
    "node_register",
    "node_register__name_order",
    "node_register__v112",
    "rst_during_query",
    "streaming_event_heartbeat",
    "streaming_event_index0",
    "streaming_event_stream",
    "streaming_event_stream__name_order",
    "streaming_event_stream__v112",
];

/// Sessions in which holdfast does something else on purpose; a test below says what.
const DEVIATIONS: &[(&str, &str)] = &[
    ("backlog_exceeded", "the backlog takes 256, silent ones among them (R1j R1.32, R1.40)"),
    ("status_version__v112", "a method of the older line only: unknown, as to the newer server (R1.47)"),
    ("v2_silent_stream_blocks_accept", "a silent stream blocks no other (R1.40)"),
    ("v2_stream_closed_without_byte", "only that stream is dropped (R1.40)"),
    ("viol_double_fin", "a second FIN is ignored (R1j R1.42)"),
    ("viol_even_stream_id", "the wrong parity is a violation (R1j R1.42)"),
    ("viol_stream_id_zero", "stream 0 is a violation (R1j R1.42)"),
    ("viol_window_exceeded", "recorded without its bytes, which are made below"),
];

/// Sessions that are tested elsewhere, or not at all.
const ELSEWHERE: &[(&str, &str)] = &[
    ("blocking_variable_read", "daemon_variables"),
    ("client_boot_v112", "daemon_boot"),
    ("client_boot_v205", "daemon_boot"),
    ("connlimit", "no bytes; daemon_limits"),
    ("empty_tables", "lists of jobs and the like are of a later part"),
    ("forward_dead_region", "other regions are of a later part"),
    ("forward_other_region", "other regions are of a later part"),
    ("large_body", "no bytes; daemon_variables"),
    ("msgpack_values", "no session; vectors"),
    ("nolead", "below, with a server that has no leader"),
    ("raft_get_configuration", "names and ids of its own; tests of the api room"),
    ("raft_get_configuration__v112", "the older line's protocol of raft"),
    ("tls_observations", "no bytes; daemon_first_byte"),
    ("variables", "daemon_variables"),
    ("variables__name_order", "daemon_variables"),
    ("variables_errors", "daemon_variables"),
    ("variables_lock", "daemon_variables"),
    ("yamux_close_timeout_rst", "between two Go libraries, with times of their own; the mux room"),
    ("yamux_early_data_fin", "between two Go libraries; the mux room"),
    ("yamux_echo", "between two Go libraries; the mux room"),
    ("yamux_frames", "no session; vectors"),
    ("yamux_goaway", "between two Go libraries; the mux room"),
    ("yamux_goaway_syn_rst", "between two Go libraries; the mux room"),
    ("yamux_keepalive", "between two Go libraries, with times of their own; the mux room"),
    ("yamux_open_timeout", "between two Go libraries, with times of their own; the mux room"),
    ("yamux_ping", "between two Go libraries; the mux room"),
    ("yamux_server_opens", "between two Go libraries; the mux room"),
    ("yamux_window", "between two Go libraries; the mux room"),
];

#[test]
fn every_recorded_session_has_its_place() {
    let tables = [DEVIATIONS, ELSEWHERE].concat();
    let listed = QUICK.iter().chain(WITH_NODE).copied().chain(tables.iter().map(|(name, _)| *name));
    let mut seen = BTreeSet::new();
    for name in listed {
        assert!(seen.insert(name.to_owned()), "{name} is listed twice");
    }
    let recorded: BTreeSet<String> = recorded::names().into_iter().collect();
    assert_eq!(seen, recorded);
}

/// Texts that differ on purpose. An agent whose node is unknown is told so, as by the older line: it registers again at
/// that text only, which is what it has to do (endpoint notes, 3.2).
const TEXTS: &[(&str, &str)] = &[("Permission denied", "node not found")];
/// What Nomad says of its gossip layer, which holdfast has not.
const MEMBERS: &[&str] = &[
    "ServerName",
    "Name",
    "Addr",
    "Port",
    "Tags",
    "ProtocolMin",
    "ProtocolMax",
    "ProtocolCur",
    "DelegateMin",
    "DelegateMax",
    "DelegateCur",
];

fn play_quick(daemon: &Daemon, name: &str, cut: Cut) {
    let session = Recorded::load(name);
    let unknown_byte = |_: usize| drop(Peer::dial(daemon.rpc).try_write(&[0x63]));
    let mut replay = Replay::new(&session, cut);
    replay.texts = TEXTS;
    let violation = name.starts_with("viol_dup_syn") || name.starts_with("viol_yamux");
    let heard = match name {
        "status_members" | "status_members__v112" => Replay { own: MEMBERS, ..replay }.play(daemon.rpc),
        "streaming_monitor" | "streaming_monitor_plain" => {
            let session = session.first_messages(2);
            let replay = Replay { session: &session, meanwhile: &unknown_byte, own: &["Data", "Payload"], ..replay };
            let heard = Replay { more: true, ..replay }.play(daemon.rpc);
            let plain = name.ends_with("plain");
            let payload = heard.values(0)[1]["Payload"].as_str().unwrap().to_owned();
            assert_eq!(payload.contains("unrecognized RPC byte"), plain, "{payload}");
            assert_eq!(payload.contains("\"FileEvent\":\"log\""), !plain, "{payload}");
            heard
        }
        _ => replay.play(daemon.rpc),
    };
    assert_eq!(heard.go_aways, if violation { vec![1] } else { vec![] }, "{name}: GoAway (R1j R1.42)");
}

fn quick(cut: Cut) {
    let daemon = Daemon::start("[rpc]\nhandshake_timeout = \"1s\"");
    // A node that cannot be called back: it came on a plain connection (R1.62).
    let node = node("a1b2c3d4-0001-0002-0003-00000000abce");
    rig::talk::call_once(daemon.rpc, "Node.Register", &json!({ "Region": "global", "Node": node })).ok();
    for name in QUICK {
        play_quick(&daemon, name, cut);
    }
}

// R1.30
#[test]
fn quick_sessions_whole() {
    quick(Cut::Whole);
}

// R1.30
#[test]
fn quick_sessions_in_single_bytes() {
    quick(Cut::Bytes);
}

const NODE: &str = "a1b2c3d4-0001-0002-0003-00000000abcd";
const SECRET: &str = "5ec7e700-0001-0002-0003-00000000abcd";

fn node(id: &str) -> Value {
    json!({
        "ID": id, "SecretID": SECRET, "Datacenter": "dc1", "Name": "golden-node", "Status": "initializing",
        "Attributes": { "nomad.version": "1.1.2" },
    })
}

/// Changes the node without changing what lists show of it.
fn touch(daemon: &Daemon) {
    let event = json!({ "Message": "touched", "Subsystem": "test", "Timestamp": Value::Null });
    let body = json!({ "Region": "global", "AuthToken": SECRET, "NodeEvents": { NODE: [event] } });
    rig::talk::call_once(daemon.rpc, "Node.EmitEvents", &body).ok();
}

/// The node as the recordings have it, by the recording of its registration.
fn register(daemon: &Daemon) {
    let session = Recorded::load("node_register").first_turns(4);
    Replay::new(&session, Cut::Whole).play(daemon.rpc);
}

fn play_with_node(name: &str, cut: Cut) {
    let daemon = Daemon::start("");
    let session = Recorded::load(name);
    let replay = Replay { texts: TEXTS, ..Replay::new(&session, cut) };
    match name {
        "node_register" | "node_register__name_order" => drop(replay.play(daemon.rpc)),
        // The older line has another node, and goes by the secret where the newer one goes by the token: its last answer.
        "node_register__v112" => {
            let session = session.first_turns(14);
            Replay { session: &session, own: &["Node"], ..replay }.play(daemon.rpc);
        }
        "blocking_node_list" => {
            register(&daemon);
            Replay { meanwhile: &|_| touch(&daemon), ..replay }.play(daemon.rpc);
        }
        "mode_multiplex_v2_mixed" => {
            register(&daemon);
            // The recording ended before any event was there.
            Replay { deaf_to_events: true, ..replay }.play(daemon.rpc);
        }
        "codec_pipelined" | "data_after_fin" => {
            register(&daemon);
            // The node was down when these were recorded.
            Replay { own: &["Status"], ..replay }.play(daemon.rpc);
        }
        _ if name.starts_with("streaming_event_") && name != "streaming_event_heartbeat" => {
            register(&daemon);
            let session = session.first_messages(4);
            Replay { session: &session, more: true, own: &["Node", "FilterKeys"], ..replay }.play(daemon.rpc);
        }
        _ => {
            register(&daemon);
            replay.play(daemon.rpc);
        }
    }
}

fn with_node(cut: Cut) {
    // Most of the time they wait.
    for names in WITH_NODE.chunks(5) {
        thread::scope(|scope| {
            for name in names {
                scope.spawn(move || play_with_node(name, cut));
            }
        });
    }
}

// R1.30, R1.87, R1.89, R1.92
#[test]
fn sessions_with_a_node_whole() {
    with_node(Cut::Whole);
}

// R1.30
#[test]
fn sessions_with_a_node_in_single_bytes() {
    with_node(Cut::Bytes);
}

/// A server that waits for others to found a cluster with.
fn leaderless() -> Daemon {
    Setup::new("[cluster]\nbootstrap_expect = 3\n[rpc]\nhold_timeout = \"400ms\"").without_leader().start()
}

// R1.65, R1.69, R1.72
#[test]
fn the_session_with_a_server_without_a_leader() {
    let daemon = leaderless();
    for cut in [Cut::Whole, Cut::Bytes] {
        // Before there is a cluster a server knows itself, so that its Status.Peers says more: left out.
        let session = Recorded::load("nolead").first_turns(8);
        Replay::new(&session, cut).play(daemon.rpc);
    }
}

/// Deviations. Each is held against its recording in its place in the table above.
fn session(daemon: &Daemon, first: u8) -> Talk {
    Talk::dial(daemon.rpc, first)
}

// R1.32
#[test]
fn the_backlog_takes_256_streams_and_resets_the_rest() {
    let daemon = Daemon::start("");
    for first in [3, 6] {
        let mut talk = session(&daemon, first);
        let syns: Vec<u8> = (0..260).flat_map(|n| frame(WINDOW, SYN, 2 * n + 1, 0)).collect();
        talk.peer.write(&syns);
        talk.ping(7);
        let reset: Vec<u32> = talk.heard.streams.keys().copied().filter(|id| talk.heard.reset(*id)).collect();
        assert_eq!(reset, [513, 515, 517, 519], "first byte {first}");
    }
}

// R1.47
#[test]
fn a_method_of_the_older_line_is_unknown() {
    let daemon = Daemon::start("");
    let mut talk = session(&daemon, 6);
    let stream = talk.open();
    let reply = talk.call(stream, "Status.Version", &json!({ "Region": "global" }));
    assert_eq!(reply.err(), "rpc: can't find method Status.Version");
    assert_eq!(talk.item(stream), Item::Fin);
}

// R1.40
#[test]
fn a_silent_stream_blocks_no_other_and_one_that_ends_first_is_dropped_alone() {
    let daemon = Daemon::start("[rpc]\nhandshake_timeout = \"700ms\"");
    let mut talk = session(&daemon, 6);
    let silent = talk.fresh_stream();
    talk.peer.write(&frame(WINDOW, SYN, silent, 0));
    for (flags, name) in [(FIN, "FIN"), (rig::heard::RST, "RST")] {
        let gone = talk.fresh_stream();
        talk.peer.write(&frame(WINDOW, SYN, gone, 0));
        talk.peer.write(&frame(WINDOW, flags, gone, 0));
        let calls = talk.open();
        talk.call(calls, "Status.Ping", &json!({})).ok();
        assert!(!talk.heard.ended, "after {name}");
    }
    talk.until("reset of the silent stream", |heard| heard.reset(silent));
    let calls = talk.open();
    talk.call(calls, "Status.Ping", &json!({})).ok();
}

// R1.42
#[test]
fn a_second_fin_is_ignored() {
    let daemon = Daemon::start("");
    let mut talk = session(&daemon, 6);
    let stream = talk.open();
    let body = json!({ "Region": "global", "MinQueryIndex": 1u64 << 40, "MaxQueryTime": 300_000_000 });
    talk.request(stream, "Node.List", &body);
    talk.fin(stream);
    talk.fin(stream);
    talk.reply(stream).ok();
    assert_eq!(talk.item(stream), Item::Fin);
    talk.ping(1);
}

// R1.42, R1.41
#[test]
fn violations_end_the_session_with_a_word() {
    let daemon = Daemon::start("");
    let mut too_much = frame(WINDOW, SYN, 1, 0);
    too_much.extend(frame(DATA, 0, 1, (256 << 10) + 1));
    too_much.extend([1; 4096]);
    let cases = [
        ("stream 2", frame(WINDOW, SYN, 2, 0)),
        ("stream 0", frame(WINDOW, SYN, 0, 0)),
        ("a used stream", [frame(WINDOW, SYN, 1, 0), frame(WINDOW, FIN, 1, 0), frame(WINDOW, SYN, 1, 0)].concat()),
        ("more than the window", too_much),
        ("a window that overflows", [frame(WINDOW, SYN, 1, 0), frame(WINDOW, 0, 1, u32::MAX)].concat()),
    ];
    for (what, bytes) in &cases {
        for cut in [Cut::Whole, Cut::Bytes] {
            let mut talk = session(&daemon, 6);
            match cut {
                Cut::Whole => drop(talk.peer.try_write(bytes)),
                Cut::Bytes => talk.peer.drip(bytes),
            }
            talk.until_closed();
            assert_eq!(talk.heard.go_aways, [1], "{what} {cut:?}");
        }
    }
    daemon.log.until_count("multiplex_v2 conn accept failed", 2 * cases.len());
    // Another session was never harmed.
    let mut talk = session(&daemon, 6);
    talk.peer.write(&frame(PING, SYN, 0, 9));
    talk.until("pong", |heard| heard.pongs == [9]);
    talk.listen(Duration::ZERO);
}
