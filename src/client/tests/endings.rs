//! How connections end, plain and TLS, with yamux and without: one class for each, and the looks that find it.

use super::*;

const WRITE: &str = "Variables.Apply";

/// Both sides of TLS.
struct Tls {
    server: Arc<rustls::ServerConfig>,
    client: TlsSettings,
}

fn tls() -> Tls {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path(), &["server.global.nomad"]);
    let own = Some((folder.path().join("server.global.nomad.pem"), folder.path().join("server.global.nomad-key.pem")));
    let client = load_tls(&TlsFiles { ca_file: folder.path().join("ca.pem"), own }, &ServerName::Any).unwrap();
    Tls { server: server_tls(folder.path(), "server.global.nomad"), client }
}

/// A server whose nth call is answered so, and a client of it; and how many calls it heard.
fn rig(
    tls: Option<&Tls>,
    speech: Speech,
    act: impl Fn(usize) -> Act + Send + Sync + 'static,
) -> (Client, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = tls.map(|tls| Arc::clone(&tls.server));
    let address = serve(server, move |_, _| act(counted.fetch_add(1, Ordering::SeqCst)));
    let client = tls.map(|tls| tls.client.clone());
    (Client::new(Settings { tls: client, speech, ..settings(address) }), calls)
}

fn write(client: &Client) -> Result<Raw, Error> {
    client.call(WRITE, &GenericRequest::default())
}

// R2.1, R2.2, R2.3: whatever ends the connection while an answer is owed, it is one class; a write is sent once.
#[test]
fn every_ending_while_an_answer_is_owed_gives_one_class() {
    let tls = tls();
    let plain = [Ending::Fin, Ending::Rst];
    let secure = [Ending::Fin, Ending::Notify, Ending::Alert, Ending::Rst];
    let mux = [Ending::StreamRst, Ending::StreamFin, Ending::GoAwayFin];
    for (speech, with_tls) in
        [(Speech::Plain, false), (Speech::Plain, true), (Speech::Multiplexed, false), (Speech::Multiplexed, true)]
    {
        let of_connection = if with_tls { &secure[..] } else { &plain[..] };
        let of_session = if speech == Speech::Multiplexed { &mux[..] } else { &[] };
        for ending in of_connection.iter().chain(of_session).copied() {
            let name = format!("{ending:?} {speech:?} tls={with_tls}");
            let (client, calls) = rig(with_tls.then_some(&tls), speech, move |_| Act::Then(None, ending));
            let error = write(&client).unwrap_err();
            let Error::OutcomeUnknown { cause, place: None } = &error else { panic!("{name}: {error:?}") };
            assert_eq!(cause.class(), Class::Broken, "{name}: {cause:?}");
            assert_eq!(calls.load(Ordering::SeqCst), 1, "{name}");
            assert_eq!(ping(&client).unwrap_err().class(), Class::Broken, "{name}");
            assert_eq!(calls.load(Ordering::SeqCst), 4, "{name}: a read has three tries");
            let counters = client.counters();
            assert_eq!((counters.errors(Class::Broken), counters.errors(Class::OutcomeUnknown)), (4, 1), "{name}");
            assert_eq!(
                (counters.value("holdfast.pool.retry"), counters.value("holdfast.pool.fresh")),
                (2, 1),
                "{name}"
            );
        }
    }
}

// R2.4, R3.1, R3.4, R3.5: the same between two calls costs a new connection, or a new stream, and no error.
#[test]
fn every_ending_between_two_calls_is_found_before_the_next() {
    let tls = tls();
    for (speech, with_tls, ending, accepted, reason) in [
        (Speech::Plain, false, Ending::Fin, 2, "closed"),
        (Speech::Plain, false, Ending::Rst, 2, "closed"),
        (Speech::Plain, true, Ending::Notify, 2, "closed"),
        (Speech::Plain, true, Ending::Alert, 2, "closed"),
        (Speech::Multiplexed, false, Ending::Fin, 2, "closed"),
        (Speech::Multiplexed, true, Ending::Notify, 2, "closed"),
        (Speech::Multiplexed, false, Ending::GoAway, 2, "gone_away"),
        (Speech::Multiplexed, true, Ending::GoAway, 2, "gone_away"),
        (Speech::Multiplexed, false, Ending::Ping, 1, ""),
        (Speech::Multiplexed, true, Ending::Ping, 1, ""),
        (Speech::Multiplexed, false, Ending::StreamFin, 1, ""),
        (Speech::Multiplexed, true, Ending::StreamRst, 1, ""),
    ] {
        let name = format!("{ending:?} {speech:?} tls={with_tls}");
        let (client, calls) = rig(with_tls.then_some(&tls), speech, move |nth| match nth {
            0 => Act::Then(Some(vec![0x80]), ending),
            _ => Act::Reply(vec![0x80]),
        });
        write(&client).unwrap();
        if accepted > 1 {
            until_dead(&client);
        } else {
            // What came is awaited: a look at it changes nothing.
            std::thread::yield_now();
        }
        write(&client).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(calls.load(Ordering::SeqCst), 2, "{name}: sent once each");
        let counters = client.counters();
        if accepted > 1 {
            assert_eq!(counters.value(&format!("holdfast.pool.discard.{reason}")), 1, "{name}: {counters:?}");
        } else {
            assert_eq!(counters.iter().filter(|(name, _)| name.contains("discard")).count(), 0, "{name}: {counters:?}");
        }
        // What came together with the answer is known before the next look.
        assert!(counters.value("holdfast.pool.check_dead") < accepted, "{name}");
        assert_eq!(counters.value("holdfast.pool.open"), 1, "{name}");
    }
}

// R2.36, R3.5: bytes that nobody asked for, behind an answer or later.
#[test]
fn stray_bytes_end_a_connection() {
    for speech in [Speech::Plain, Speech::Multiplexed] {
        let (client, _) = rig(None, speech, |nth| match nth {
            0 => Act::Then(Some(vec![0x80]), Ending::Stray),
            _ => Act::Reply(vec![0x80]),
        });
        write(&client).unwrap();
        if client.counters().value("holdfast.pool.idle") == 1 {
            until_dead(&client);
        }
        write(&client).unwrap();
        assert_eq!(client.counters().value("holdfast.pool.discard.stray"), 1, "{speech:?}");
    }
}

// R2.9: an answer with another number, or that is none.
#[test]
fn answers_that_are_none_break_the_connection() {
    let other_seq = b"\x83\xa5Error\xa0\xa3Seq\x63\xadServiceMethod\xa1x\x80";
    for speech in [Speech::Plain, Speech::Multiplexed] {
        for bytes in [&b"\xc1"[..], other_seq, b"\x05\x80"] {
            let (client, calls) = rig(None, speech, move |_| Act::Bytes(bytes.to_vec()));
            let error = write(&client).unwrap_err();
            let Error::OutcomeUnknown { cause, .. } = error else { panic!("{error:?}") };
            assert!(matches!(*cause, Error::Malformed(_)), "{cause:?}");
            assert_eq!((calls.load(Ordering::SeqCst), client.counters().value("holdfast.pool.open")), (1, 0));
        }
    }
}

// R2.10: a server that says no is well; the connection stays, and each call is sent once.
#[test]
fn a_thousand_refusals_are_one_connection() {
    for speech in [Speech::Plain, Speech::Multiplexed] {
        let (client, calls) = rig(None, speech, |_| Act::Refuse("Permission denied"));
        for _ in 0..1000 {
            assert_eq!(write(&client).unwrap_err().refusal(), Some("Permission denied"));
        }
        let counters = client.counters();
        assert_eq!((calls.load(Ordering::SeqCst), counters.errors(Class::Refused)), (1000, 1000));
        assert_eq!((counters.value("holdfast.pool.open"), counters.value("holdfast.pool.check")), (1, 999));
        assert_eq!(counters.iter().filter(|(name, _)| name.contains("discard")).count(), 0, "{counters:?}");
    }
}

// R2.11: no answer in time; nothing was sent, or nobody knows. A yamux connection that lives outlives the call.
#[test]
fn a_deadline_says_what_is_known() {
    for (speech, open) in [(Speech::Plain, 0), (Speech::Multiplexed, 1)] {
        let (client, calls) = rig(None, speech, |nth| if nth == 0 { Act::Silence } else { Act::Reply(vec![0x80]) });
        let short = Duration::from_millis(300);
        let error = client.call_within::<_, Raw>(WRITE, &GenericRequest::default(), short).unwrap_err();
        let Error::OutcomeUnknown { cause, .. } = error else { panic!("{error:?}") };
        assert_eq!(*cause, Error::Deadline { sent: true });
        assert_eq!(client.counters().value("holdfast.pool.open"), open, "{speech:?}");
        write(&client).unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2);
    }
}

// R2.5, R2.6, R2.21: not the leader: another server is asked; leadership lost: nobody knows, and nobody asks again.
#[test]
fn a_server_that_does_not_lead_is_passed_over() {
    let other = serve(None, |_, _| Act::Reply(vec![0x80]));
    let deposed = serve(None, |_, _| Act::Refuse("rpc error: node is not the leader"));
    let client = Client::new(Settings { speech: Speech::Multiplexed, ..settings(format!("{deposed},{other}")) });
    write(&client).unwrap();
    assert_eq!((client.address(), client.counters().errors(Class::NotLeader)), (other.as_str(), 1));
    let (client, calls) = rig(None, Speech::Multiplexed, |_| Act::Refuse("leadership lost while committing log"));
    assert!(write(&client).unwrap_err().is_outcome_unknown());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

// R3.11: of five kept connections that pass the look and then end, two are tried, and then a new one.
#[test]
fn two_kept_connections_are_tried_and_then_a_new_one() {
    const KEPT: usize = 5;
    let gate = Arc::new(std::sync::Barrier::new(KEPT));
    let (client, calls) = rig(None, Speech::Plain, move |nth| match nth {
        _ if nth < KEPT => {
            gate.wait();
            Act::Reply(vec![0x80])
        }
        _ if nth < KEPT + 2 => Act::Then(None, Ending::Rst),
        _ => Act::Reply(vec![0x80]),
    });
    std::thread::scope(|scope| {
        for _ in 0..KEPT {
            scope.spawn(|| ping(&client).unwrap());
        }
    });
    assert_eq!(client.counters().value("holdfast.pool.idle"), KEPT as u64);
    ping(&client).unwrap();
    let counters = client.counters();
    assert_eq!(calls.load(Ordering::SeqCst), KEPT + 3);
    assert_eq!((counters.value("holdfast.pool.retry"), counters.value("holdfast.pool.fresh")), (2, 1));
    assert_eq!(counters.value("holdfast.pool.idle"), 4, "two were lost, one is new");
}

// R3.12: nobody there is told at once, and once.
#[test]
fn a_closed_port_is_one_error() {
    let client = client(closed());
    let error = write(&client).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }) && error.class() == Class::NotSent);
    assert_eq!(client.counters().errors(Class::NotSent), 1);
}

// R3.14: an idle connection ends at its limit; one that is too old when its call is over.
#[test]
fn connections_have_their_time() {
    for (limits, reason) in [
        (PoolLimits { idle_limit: Duration::ZERO, ..PoolLimits::default() }, "idle"),
        (PoolLimits { max_lifetime: Some(Duration::ZERO), ..PoolLimits::default() }, "lifetime"),
    ] {
        let address = serve(None, |_, _| Act::Reply(vec![0x80]));
        let client = Client::new(Settings { pool: limits, ..settings(address) });
        ping(&client).unwrap();
        ping(&client).unwrap();
        client.core.pool.sweep();
        let counters = client.counters();
        assert_eq!(counters.value(&format!("holdfast.pool.discard.{reason}")), 2, "{counters:?}");
        assert_eq!((counters.value("holdfast.pool.open"), counters.value("holdfast.pool.idle")), (0, 0));
    }
}

// More callers than connections: they wait for their turn, and for no longer than they may.
#[test]
fn a_call_waits_for_a_connection_that_is_free() {
    let address = serve(None, |_, _| Act::Reply(vec![0x80]));
    let pool = PoolLimits { max_open: 2, ..PoolLimits::default() };
    let client = Client::new(Settings { pool, speech: Speech::Multiplexed, ..settings(address) });
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..50).for_each(|_| drop(ping(&client).unwrap())));
        }
    });
    assert!(client.counters().value("holdfast.pool.open") <= 2);
    let lease = (
        client.core.pool.take(0, false, Instant::now() + LONG).unwrap(),
        client.core.pool.take(0, false, Instant::now() + LONG).unwrap(),
    );
    let short = Duration::from_millis(20);
    let late = client.call_within::<_, Raw>(PING, &GenericRequest::default(), short).unwrap_err();
    assert_eq!(late, Error::Deadline { sent: false });
    drop(lease);
    ping(&client).unwrap();
}

// Requests and answers beyond a yamux window.
#[test]
fn large_bodies_pass_a_stream() {
    let large = "x".repeat(1 << 20);
    let echoed = large.clone();
    let (client, _) = rig(None, Speech::Multiplexed, move |_| reply(&echoed));
    for _ in 0..2 {
        let back: String = client.call(PING, &large).unwrap();
        assert_eq!(back.len(), large.len());
    }
}
