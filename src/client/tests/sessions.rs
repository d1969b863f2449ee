//! Sessions against a server that remembers, loses answers and forgets sessions, as servers do.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use super::*;
use crate::base::rng::Rng;
use crate::wire::body::query::{GenericResponse, WriteMeta};
use crate::wire::body::session::{
    SEEN, STAMP, SessionKey, SessionOpenRequest, SessionOutcomeReply, SessionOutcomeRequest, SessionReply,
    SessionRequest, WriteStamp,
};
use crate::wire::msgpack::Decoder;

const WRITE: &str = "Variables.Apply";

/// What the server knows.
#[derive(Default)]
struct World {
    index: u64,
    /// By session: replies by sequence, and below which they are dropped.
    sessions: BTreeMap<u64, (BTreeMap<u64, u64>, u64)>,
    applied: u64,
    closed: Vec<u64>,
    kept_alive: u64,
    seen: Vec<u64>,
    opened: u64,
}

/// The value of a field of a body.
fn field(body: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut d = Decoder::new(body);
    for _ in 0..d.map().ok()?? {
        let (key, value) = (d.bytes().ok()?.to_vec(), d.raw().ok()?.to_vec());
        if key == name.as_bytes() {
            return Some(value);
        }
    }
    None
}

impl World {
    fn call(&mut self, method: &str, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        self.index += 1;
        let meta = WriteMeta { index: self.index };
        match method {
            "Session.Open" => {
                let request = SessionOpenRequest::from_bytes(body).unwrap();
                self.opened += 1;
                self.sessions.insert(self.index, (BTreeMap::new(), 1));
                let key = SessionKey(vec![7; 16]);
                Ok(SessionReply { id: self.index, key, ttl: request.ttl, meta }.to_bytes())
            }
            "Session.KeepAlive" | "Session.Close" => {
                let request = SessionRequest::from_bytes(body).unwrap();
                assert_eq!(request.key, SessionKey(vec![7; 16]));
                if !self.sessions.contains_key(&request.id) {
                    return Err("session expired");
                }
                if method == "Session.Close" {
                    self.sessions.remove(&request.id);
                    self.closed.push(request.id);
                } else {
                    self.kept_alive += 1;
                }
                Ok(GenericResponse { meta }.to_bytes())
            }
            "Session.Outcome" => {
                let request = SessionOutcomeRequest::from_bytes(body).unwrap();
                let Some((replies, _)) = self.sessions.get(&request.id) else { return Err("session expired") };
                let index = replies.get(&request.sequence).copied();
                let outcome = if index.is_some() { "applied" } else { "not-applied" }.to_owned();
                Ok(SessionOutcomeReply { outcome, write_index: index.unwrap_or(0), ..Default::default() }.to_bytes())
            }
            WRITE => self.write(body),
            _ => {
                self.seen.extend(field(body, SEEN).map(|value| Decoder::new(&value).u64().unwrap()));
                Ok(vec![0x80])
            }
        }
    }

    fn write(&mut self, body: &[u8]) -> Result<Vec<u8>, &'static str> {
        let stamp = WriteStamp::from_bytes(&field(body, STAMP).expect("a stamp")).unwrap();
        let index = self.index;
        let Some((replies, below)) = self.sessions.get_mut(&stamp.id) else { return Err("session expired") };
        assert!(stamp.sequence >= *below, "write {} was acknowledged: below {below}", stamp.sequence);
        *below = (*below).max(stamp.acknowledged_below);
        *replies = replies.split_off(below);
        let index = *replies.entry(stamp.sequence).or_insert_with(|| {
            self.applied += 1;
            index
        });
        Ok(GenericResponse { meta: WriteMeta { index } }.to_bytes())
    }
}

/// A server of this world; `lose` says which answers to writes are lost.
fn server(lose: impl Fn(u64) -> bool + Send + Sync + 'static) -> (String, Arc<Mutex<World>>) {
    let world = Arc::new(Mutex::new(World::default()));
    let (shared, heard) = (Arc::clone(&world), AtomicU64::new(0));
    let address = serve(None, move |method, body| {
        let answer = shared.lock().unwrap().call(method, body);
        if method == WRITE && lose(heard.fetch_add(1, Ordering::SeqCst)) {
            return Act::Then(None, Ending::Rst);
        }
        answer.map_or_else(Act::Refuse, Act::Reply)
    });
    (address, world)
}

fn muxed(address: &str) -> Client {
    Client::new(Settings { speech: Speech::Multiplexed, ..settings(address) })
}

fn options(ttl: Duration) -> SessionOptions {
    SessionOptions { name: "test".to_owned(), ttl, ..SessionOptions::default() }
}

fn write(session: &Session) -> Result<GenericResponse, Error> {
    session.call(WRITE, &GenericRequest::default())
}

// R2.25, R2.31: answers lost at random under 64 writes in flight: each is carried out once, and answered.
#[test]
fn writes_whose_answers_are_lost_are_carried_out_once() {
    const WRITERS: u64 = 64;
    const EACH: u64 = 8;
    let rng = Mutex::new(Rng::from_seed(5));
    let (one, world) = server(move |_| rng.lock().unwrap().chance(1, 3));
    let session = muxed(&one).session(options(Duration::from_secs(60))).unwrap();
    let indexes = Mutex::new(std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let index = write(&session).unwrap().meta.index;
                    assert!(indexes.lock().unwrap().insert(index), "two writes with one answer");
                }
            });
        }
    });
    let highest = *indexes.lock().unwrap().last().unwrap();
    assert_eq!(session.seen(), highest);
    assert_eq!(world.lock().unwrap().applied, WRITERS * EACH);
    // All is acknowledged with the next write.
    write(&session).unwrap();
    assert_eq!(world.lock().unwrap().sessions[&session.id().unwrap()].0.len(), 1);
}

// R2.28: a session that ends under a write leaves its outcome unknown; a later write has a new session.
#[test]
fn an_unanswered_write_of_a_session_that_is_over_is_unknown() {
    let (address, world) = server(|nth| nth == 1);
    let killer = Arc::clone(&world);
    let client = muxed(&address);
    let session = client.session(options(Duration::from_secs(60))).unwrap();
    let first = session.id().unwrap();
    write(&session).unwrap();
    // The next answer is lost, and with it the session.
    let forget = std::thread::spawn(move || {
        while killer.lock().unwrap().applied < 2 {
            std::thread::yield_now();
        }
        killer.lock().unwrap().sessions.clear();
    });
    let outcome = write(&session);
    forget.join().unwrap();
    match outcome {
        Err(error) => {
            assert_eq!(error.place(), Some(Place { session: first, sequence: 2 }), "{error:?}");
            assert_eq!(session.outcome(error.place().unwrap()).unwrap(), Outcome::Expired);
            assert_eq!(client.counters().errors(Class::OutcomeUnknown), 1);
        }
        // The second try came before the session was gone: then it was answered, and surely once.
        Ok(_) => assert_eq!(world.lock().unwrap().applied, 2),
    }
    if let Err(error) = write(&session) {
        assert!(error.is_outcome_unknown(), "{error:?}");
        write(&session).unwrap();
    }
    write(&session).unwrap();
    assert_ne!(session.id(), Some(first));
}

// R2.12: a write that no answer came to in time names its place, and can be asked for.
#[test]
fn a_write_of_unknown_outcome_can_be_asked_for() {
    let (address, world) = server(|nth| nth < 1_000_000);
    let session = muxed(&address).session(options(Duration::from_secs(60))).unwrap();
    let short = Duration::from_millis(200);
    let error = session.call_within::<_, Raw>(WRITE, &GenericRequest::default(), short).unwrap_err();
    assert!(error.is_outcome_unknown() && error.to_string().starts_with("outcome unknown: "), "{error}");
    let place = error.place().unwrap();
    assert_eq!(place.sequence, 1);
    let Outcome::Applied { index } = session.outcome(place).unwrap() else { panic!("not applied") };
    assert!(index > 0 && world.lock().unwrap().applied == 1);
    assert_eq!(session.outcome(Place { sequence: 9, ..place }).unwrap(), Outcome::NotApplied);
    assert!(session.outcome(Place { session: 99_999, sequence: 1 }).is_err());
}

// R2.21: what was surely not applied is no unknown outcome, and its number is free.
#[test]
fn a_write_that_was_never_sent_is_told_so() {
    let (address, _) = server(|_| false);
    let client = muxed(&address);
    let session = client.session(options(Duration::from_secs(60))).unwrap();
    let refusing = serve(None, |_, _| Act::Refuse("Permission denied"));
    let refused = muxed(&refusing).session(options(Duration::ZERO)).unwrap_err();
    assert_eq!(refused.refusal(), Some("Permission denied"));
    let nothing = session.call_within::<_, Raw>(WRITE, &GenericRequest::default(), Duration::ZERO).unwrap_err();
    assert!(nothing.class().surely_not_applied(), "{nothing:?}");
    write(&session).unwrap();
}

// R2.30: a read through a session says what it is to have seen.
#[test]
fn a_read_sees_the_last_write() {
    let (address, world) = server(|_| false);
    let session = muxed(&address).session(options(Duration::from_secs(60))).unwrap();
    let index = write(&session).unwrap().meta.index;
    session.call::<_, Raw>(PING, &GenericRequest::default()).unwrap();
    assert_eq!(world.lock().unwrap().seen, [index]);
}

// R2.27: a session that nobody writes in is kept alive, and closed with its last handle; the thread ends with it.
#[test]
fn a_session_is_kept_alive_and_closed() {
    let (address, world) = server(|_| false);
    let client = muxed(&address);
    let session = client.session(options(Duration::from_millis(300))).unwrap();
    let id = session.id();
    let end = Instant::now() + LONG;
    while world.lock().unwrap().kept_alive < 3 {
        assert!(Instant::now() < end, "it is not kept alive");
        std::thread::yield_now();
    }
    assert_eq!(session.id(), id);
    let other = session.clone();
    drop(session);
    assert!(world.lock().unwrap().closed.is_empty());
    drop(other);
    while client.core.keeper.runs() || world.lock().unwrap().closed.is_empty() {
        assert!(Instant::now() < end, "it goes on");
        std::thread::yield_now();
    }
    assert_eq!(world.lock().unwrap().closed, [id.unwrap()]);
}
