//! Links, one at a time: redials, dead links, aliases and strangers.

use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn links() -> Links {
    Links::new(Pace::of(Duration::from_millis(500)), Rng::from_seed(1), "own:1")
}

#[test]
fn an_address_is_dialled_again_with_growing_waits() {
    // R8.19
    let mut links = links();
    links.add_target(at(0), "own:1", None, true);
    assert!(links.is_empty(), "the own address is none");
    links.add_target(at(0), "b:1", None, true);
    let address: Arc<str> = "b:1".into();
    let mut waits = Vec::new();
    let mut now = at(0);
    for _ in 0..8 {
        let Some(due) = links.next() else { panic!("nothing due") };
        waits.push(due.since(now));
        now = due;
        assert_eq!(links.due(now), [Want::Dial(Arc::clone(&address))]);
        assert_eq!(links.next(), None, "one dial at a time");
        links.on_dial_failed(now, &address);
    }
    assert_eq!(waits[0], Duration::ZERO);
    assert!(waits[1] >= REDIAL_MIN / 2 && waits[1] < REDIAL_MIN);
    assert!(waits.iter().all(|wait| *wait <= REDIAL_MAX) && waits[7] >= REDIAL_MAX / 2, "{waits:?}");
}

#[test]
fn a_link_without_an_answer_is_closed_and_dialled_anew() {
    let mut links = links();
    links.add_target(at(0), "b:1", None, true);
    let address: Arc<str> = "b:1".into();
    let _ = links.due(at(0));
    links.on_ready(at(0), ConnId(7), &address);
    assert!(links.settle_outgoing(at(1), ConnId(7), "b", 2));
    assert_eq!(links.due(at(250)), [Want::Beat(ConnId(7), 1)]);
    links.on_heard(at(251), ConnId(7));
    assert_eq!(links.due(at(500)), [Want::Beat(ConnId(7), 2)]);
    assert_eq!(links.due(at(1251)), [Want::Close(ConnId(7), "no answer in time")]);
    assert_eq!(links.kind(ConnId(7)), None);
    assert_eq!(links.on_closed(at(1252), ConnId(7), Some(&address)), Some("b".to_owned()));
    assert_eq!(links.to_replica(2), None);
    assert!(links.next().is_some_and(|next| next <= at(1252 + 50)), "at once, nearly");
}

#[test]
fn two_addresses_of_one_server_make_one_link() {
    let mut links = links();
    links.add_target(at(0), "b:1", None, true);
    links.add_target(at(0), "name-of-b:1", None, true);
    assert_eq!(links.due(at(0)).len(), 2);
    let (first, second): (Arc<str>, Arc<str>) = ("b:1".into(), "name-of-b:1".into());
    links.on_ready(at(0), ConnId(1), &first);
    links.on_ready(at(0), ConnId(2), &second);
    assert!(links.settle_outgoing(at(1), ConnId(1), "b", 2));
    assert!(!links.settle_outgoing(at(1), ConnId(2), "b", 2));
    assert_eq!(links.on_closed(at(2), ConnId(2), Some(&second)), None);
    assert_eq!(links.to_server("b"), Some(ConnId(1)));
    assert!(links.due(at(100)).is_empty(), "it rests while the other is there");
    links.on_closed(at(200), ConnId(1), Some(&first));
    assert_eq!(links.due(at(300)).len(), 2, "both are tried");
}

#[test]
fn whoever_connects_says_who_it_is_in_time() {
    let mut links = links();
    assert!(links.on_accepted(at(0), ConnId(1)));
    assert_eq!(links.due(at(9_999)), []);
    assert_eq!(links.due(at(10_000)), [Want::Close(ConnId(1), "nothing heard in time")]);
    for n in 2..=INCOMING_MAX as u64 {
        assert!(links.on_accepted(at(0), ConnId(n)));
    }
    assert!(!links.on_accepted(at(0), ConnId(999)), "R6.9");
}
