//! The client library against a real daemon, over real sockets: calls from many threads, watches, locks, events.

#![allow(clippy::print_stderr, unreachable_pub)]
#![allow(clippy::unwrap_used)]

mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::Duration;

use holdfast::client::{
    Class, Client, Error, Events, Heard, LockOptions, Nodes, Scope, Settings, Speech, Variables, Written,
};
use holdfast::wire::body::query::{GenericRequest, WriteRequest};
use holdfast::wire::body::var::LockBreakRequest;
use holdfast::wire::msgpack::Raw;
use rig::{Daemon, PATIENCE, Setup, eventually};

const SHORT_LOCKS: &str = "[locks]\nmin_ttl = \"2s\"";

/// A daemon whose address stays when it is started again.
fn started() -> (Daemon, String) {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    (Setup::new(SHORT_LOCKS).rpc(&address).start(), address)
}

fn client(address: &str) -> Client {
    Client::new(Settings { timeout: PATIENCE, ..Settings::new(address) })
}

/// Variables that can be written: the key ring is there.
fn variables(client: &Client) -> Variables<Client> {
    let vars = Variables::new(client, Scope::default());
    eventually("a key ring", || vars.put("before", items("x")).ok());
    vars
}

fn items(value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("k".to_owned(), value.to_owned())])
}

fn value(var: &holdfast::wire::body::var::Variable) -> String {
    var.items.as_ref().unwrap()["k"].clone()
}

// R2.10, R3.1: one client, many threads, yamux and plain; what is refused costs no connection.
#[test]
fn many_threads_share_a_client() {
    let (_daemon, address) = started();
    for speech in [Speech::Multiplexed, Speech::Plain] {
        let client = Client::new(Settings { timeout: PATIENCE, speech, ..Settings::new(&*address) });
        let vars = variables(&client);
        let indexes = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (vars, indexes) = (&vars, &indexes);
                scope.spawn(move || {
                    for nth in 0..20 {
                        let path = format!("t/{thread}");
                        let index = vars.put(&path, items(&nth.to_string())).unwrap().index().unwrap();
                        assert!(indexes.lock().unwrap().insert(index));
                        assert_eq!(value(&vars.get(&path).unwrap().unwrap()), nth.to_string());
                    }
                });
            }
        });
        assert_eq!(vars.list("t/").unwrap().len(), 8);
        for _ in 0..50 {
            let refused = vars.put("", items("x")).unwrap_err();
            assert_eq!(refused.class(), Class::Refused, "{refused:?}");
        }
        let counters = client.counters();
        assert!(counters.value("holdfast.pool.open") <= 8, "{counters:?}");
        assert_eq!(counters.iter().filter(|(name, _)| name.contains("discard")).count(), 0, "{counters:?}");
        let there = vars.get("t/0").unwrap().unwrap().modify_index;
        assert!(matches!(vars.put_if("t/0", there + 1, items("y")).unwrap(), Written::Conflict(Some(_))));
        assert!(matches!(vars.delete_if("t/0", there).unwrap(), Written::Done(_)));
        assert_eq!(vars.get("t/0").unwrap(), None);
        assert!(Nodes::new(&client, Scope::default()).list().unwrap().is_empty());
    }
}

// R3.1: a server that was killed and came back costs a read nothing.
#[test]
fn a_server_that_comes_back_is_called_again() {
    let (daemon, address) = started();
    let client = client(&address);
    client.call::<_, Raw>("Status.Ping", &GenericRequest::default()).unwrap();
    let _daemon = daemon.killed_and_again();
    client.call::<_, Raw>("Status.Ping", &GenericRequest::default()).unwrap();
    assert_eq!(client.counters().value("holdfast.pool.check_dead"), 1);
    assert_eq!(client.counters().errors(Class::Broken), 0);
}

#[test]
fn a_watch_tells_each_change_and_outlives_the_server() {
    let (daemon, address) = started();
    let client = client(&address);
    let vars = variables(&client);
    let mut watch = vars.watch("w");
    assert_eq!(watch.next().unwrap().unwrap(), None);
    vars.put("w", items("1")).unwrap();
    assert_eq!(value(&watch.next().unwrap().unwrap().unwrap()), "1");
    // A change of something else, and a write of the same, are none of this.
    vars.put("other", items("1")).unwrap();
    assert_eq!(watch.next_within(Duration::from_millis(300)).unwrap(), None);
    let before = watch.index();
    let _daemon = daemon.killed_and_again();
    let writer = variables(&client);
    writer.put("w", items("2")).unwrap();
    assert_eq!(value(&watch.next().unwrap().unwrap().unwrap()), "2");
    assert!(watch.index() > before);
    let mut list = vars.watch_list("w");
    assert_eq!(list.next().unwrap().unwrap().len(), 1);
    vars.delete("w").unwrap();
    assert_eq!(list.next().unwrap().unwrap().len(), 0);
    assert_eq!(watch.next().unwrap().unwrap(), None);
}

// R8.1, R8.2: one holder at a time; who loses it is told.
#[test]
fn a_lock_has_one_holder_who_hears_of_its_loss() {
    let (_daemon, address) = started();
    let client = client(&address);
    let vars = variables(&client);
    let second = Duration::from_secs(1);
    let options = LockOptions { ttl: 3 * second, delay: Duration::ZERO, ..LockOptions::default() };
    vars.put("jobs", items("kept")).unwrap();
    let guard = vars.lock("jobs", options.clone()).unwrap().unwrap();
    assert!(vars.lock("jobs", options.clone()).unwrap().is_none());
    // Longer than its TTL: it is renewed.
    assert!(!guard.wait_lost(4 * second));
    let first = guard.fence();
    guard.release().unwrap();
    let guard = vars.lock("jobs", options.clone()).unwrap().unwrap();
    assert!(guard.fence() > first);
    drop(guard);
    let waiting = LockOptions { wait: PATIENCE, ..options.clone() };
    let guard = vars.lock("jobs", options).unwrap().unwrap();
    let next = std::thread::scope(|scope| {
        let next = scope.spawn(|| vars.lock("jobs", waiting).unwrap().unwrap());
        assert!(!guard.is_lost());
        guard.release().unwrap();
        next.join().unwrap()
    });
    let request = LockBreakRequest {
        path: "jobs".to_owned(),
        write: WriteRequest { region: "global".to_owned(), ..WriteRequest::default() },
    };
    client.call::<_, Raw>("Holdfast.LockBreak", &request).unwrap();
    assert!(next.wait_lost(PATIENCE) && next.is_lost());
    assert!(next.why_lost().unwrap().contains("lock"), "{:?}", next.why_lost());
    assert!(next.release().is_err());
    assert_eq!(value(&vars.get("jobs").unwrap().unwrap()), "kept");
}

#[test]
fn events_go_on_where_they_broke_off() {
    let (daemon, address) = started();
    let client = client(&address);
    let vars = variables(&client);
    let mut events = Events::new(&client, Scope::default(), &[("Variable", "*")], 0);
    let mut heard = |path: &str| {
        let mut indexes = Vec::new();
        loop {
            match events.next().unwrap() {
                Ok(Heard::Events { index, events }) => {
                    indexes.push(index);
                    if events.iter().any(|event| event.to_string().contains(path)) {
                        return indexes;
                    }
                }
                Ok(Heard::Gap { from, to }) => assert!(from <= to),
                Err(error) => assert!(matches!(error, Error::Answered { .. }), "{error:?}"),
            }
        }
    };
    vars.put("e/one", items("1")).unwrap();
    let first = heard("e/one");
    let _daemon = daemon.killed_and_again();
    let vars = variables(&client);
    vars.put("e/two", items("2")).unwrap();
    let second = heard("e/two");
    assert!(second.first() > first.last(), "{first:?} {second:?}: told twice");
}
