//! Client agents, as many as wanted: each says what a real one said in the captured first minute of its life, on one
//! connection, and goes on with its heartbeats. One whose server is gone goes to the next, as real ones do.
//!
//! Source: `tests/vectors/client_boot_v205.json`; ids, names and secrets are the agent's own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::rig::heard::{DATA, Item, SYN, WINDOW, frame};
use crate::rig::nodes::{SECRET, id};
use crate::rig::talk::call_bytes;
use crate::rig::{Peer, Talk, Value, eventually, json, quiet_for};

/// How long an agent waits for an answer before it takes its server for lost.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// After an error, and before it goes to the next server.
const PAUSE: Duration = Duration::from_secs(1);
/// When the captured agent had found out all about its machine, and registered again.
const SETTLED: Duration = Duration::from_millis(5_766);
/// Within so long each looks whether it is to end.
const LOOK: Duration = Duration::from_secs(2);
/// Room on a thread's stack: a read's buffer and little more.
const STACK_BYTES: usize = 256 << 10;

/// The captured bodies of one method, in order.
fn captured(method: &str) -> Vec<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/client_boot_v205.json");
    let whole: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let messages = whole["streams"].as_array().unwrap().iter().flat_map(|said| said["messages"].as_array().unwrap());
    let messages: Vec<&Value> = messages.filter(|message| message["dir"] == "c2s").collect();
    let is_call = |two: &&[&Value]| two[0]["decoded"]["ServiceMethod"] == method;
    messages.windows(2).filter(is_call).map(|two| two[1]["decoded"].clone()).collect()
}

/// What all of them share.
struct Shared {
    servers: Vec<SocketAddr>,
    /// The two registrations, the query for allocations, the heartbeat.
    registrations: Vec<Value>,
    query: Value,
    beat: Value,
    begun: Instant,
    ends: AtomicBool,
    /// Each with a first heartbeat that was taken.
    ready: AtomicU64,
    /// When the last one of these came, milliseconds.
    ready_at: AtomicU64,
    beats: AtomicU64,
    moves: AtomicU64,
    errors: Mutex<BTreeMap<String, u64>>,
}

/// All of them, each on a thread.
pub struct Fleet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Fleet {
    /// Starts so many at once, spread over these servers.
    pub fn start(servers: Vec<SocketAddr>, count: u64) -> Fleet {
        let mut query = captured("Node.GetClientAllocs").remove(1);
        // Whoever has no signed identity shows the node's secret.
        (query["AuthToken"], query["SecretID"]) = (SECRET.into(), SECRET.into());
        let mut beat = captured("Node.UpdateStatus").remove(1);
        beat["AuthToken"] = SECRET.into();
        let shared = Arc::new(Shared {
            servers,
            registrations: captured("Node.Register"),
            query,
            beat,
            begun: Instant::now(),
            ends: AtomicBool::new(false),
            ready: AtomicU64::new(0),
            ready_at: AtomicU64::new(0),
            beats: AtomicU64::new(0),
            moves: AtomicU64::new(0),
            errors: Mutex::default(),
        });
        let start = |number| {
            let agent = Agent { shared: shared.clone(), number, is_known: false, settles: None };
            thread::Builder::new().stack_size(STACK_BYTES).spawn(move || agent.live()).unwrap()
        };
        Fleet { threads: (0..count).map(start).collect(), shared }
    }

    /// How many are ready.
    pub fn ready(&self) -> u64 {
        self.shared.ready.load(Ordering::Relaxed)
    }

    /// When the last of them became ready, from the start of all.
    pub fn ready_at(&self) -> Duration {
        Duration::from_millis(self.shared.ready_at.load(Ordering::Relaxed))
    }

    /// Heartbeats that were taken so far.
    pub fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::Relaxed)
    }

    /// How often one went to another server.
    pub fn moves(&self) -> u64 {
        self.shared.moves.load(Ordering::Relaxed)
    }

    /// Errors that they were answered with, by text.
    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.shared.errors.lock().unwrap().clone()
    }

    /// Waits until so many more heartbeats are taken.
    #[track_caller]
    pub fn until_more(&self, count: u64) {
        let before = self.beats();
        eventually("heartbeats", || (self.beats() >= before + count).then_some(()));
    }

    /// Ends all.
    pub fn end(mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
    }
}

struct Agent {
    shared: Arc<Shared>,
    number: u64,
    /// It was ready once.
    is_known: bool,
    /// When it registers a second time, once it has registered.
    settles: Option<Instant>,
}

/// One connection of an agent: its query for allocations on the first stream, the rest on the second.
struct Session {
    talk: Talk,
    /// Answers that were taken, by stream.
    taken: BTreeMap<u32, usize>,
}

impl Session {
    fn dial(to: SocketAddr) -> Option<Session> {
        let mut peer = Peer::dial_from(IpAddr::V4(Ipv4Addr::LOCALHOST), to).ok()?;
        peer.try_write(&[6]).ok()?;
        Some(Session { talk: Talk::after(peer, 6), taken: BTreeMap::new() })
    }

    /// `None` when the connection is gone.
    fn open(&mut self) -> Option<u32> {
        let stream = self.talk.fresh_stream();
        let bytes = [frame(WINDOW, SYN, stream, 0), frame(DATA, 0, stream, 1), vec![1]].concat();
        self.talk.peer.try_write(&bytes).ok()?;
        Some(stream)
    }

    fn ask(&mut self, stream: u32, method: &str, body: &Value) -> Option<()> {
        let call = call_bytes(1, method, body);
        let header = frame(DATA, 0, stream, u32::try_from(call.len()).unwrap());
        self.talk.peer.try_write(&[header, call].concat()).ok()
    }

    /// The next answer on a stream, if it comes until then: its body, or the text of an error.
    fn answer(&mut self, stream: u32, until: Instant) -> Option<Result<Value, String>> {
        let at = self.taken.get(&stream).copied().unwrap_or(0);
        if !self.talk.pump(until, |heard| heard.items(stream).len() >= at + 2) {
            return None;
        }
        self.taken.insert(stream, at + 2);
        let [Item::Value(head), Item::Value(body)] = &self.talk.heard.items(stream)[at..at + 2] else { return None };
        let error = head["Error"].as_str().unwrap_or("no error's text");
        Some(if error.is_empty() { Ok(body.clone()) } else { Err(error.to_owned()) })
    }

    fn call(&mut self, stream: u32, method: &str, body: &Value) -> Option<Result<Value, String>> {
        self.ask(stream, method, body)?;
        self.answer(stream, Instant::now() + ANSWER_MAX)
    }
}

impl Agent {
    fn live(mut self) {
        // Real ones have machines of their own: these take what the servers leave. It holds for this thread alone.
        let _ = rustix::process::nice(19);
        let mut home = usize::try_from(self.number).unwrap();
        while self.goes_on() {
            let server = self.shared.servers[home % self.shared.servers.len()];
            if let Some(session) = Session::dial(server) {
                self.talk_to(session);
            }
            if self.goes_on() {
                self.shared.moves.fetch_add(1, Ordering::Relaxed);
                home += 1;
                self.pause();
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.shared.ends.load(Ordering::Relaxed)
    }

    /// Not all at the same moment.
    fn pause(&self) {
        quiet_for(PAUSE.mul_f64(0.5 + (self.number % 97) as f64 / 97.0));
    }

    fn registration(&self, nth: usize) -> Value {
        let mut body = self.shared.registrations[nth].clone();
        (body["Node"]["ID"], body["Node"]["SecretID"]) = (id(self.number).into(), SECRET.into());
        body["Node"]["Name"] = format!("agent-{}", self.number).into();
        body["AuthToken"] = if nth == 0 { "".into() } else { SECRET.into() };
        body
    }

    fn of_mine(&self, body: &Value) -> Value {
        let mut body = body.clone();
        body["NodeID"] = id(self.number).into();
        body
    }

    /// A call that is tried until it is answered; `None` when the connection is gone or all is over.
    fn surely(&self, session: &mut Session, stream: u32, method: &str, body: &Value) -> Option<Value> {
        loop {
            match session.call(stream, method, body)? {
                Ok(body) => return Some(body),
                Err(text) => {
                    *self.shared.errors.lock().unwrap().entry(format!("{method}: {text}")).or_default() += 1;
                    self.pause();
                    if !self.goes_on() {
                        return None;
                    }
                }
            }
        }
    }

    /// All that is said on one connection, until it is gone.
    fn talk_to(&mut self, mut session: Session) -> Option<()> {
        let first = session.open()?;
        session.call(first, "Status.Ping", &json!({}))?.ok()?;
        if self.settles.is_none() {
            self.surely(&mut session, first, "Node.Register", &self.registration(0))?;
            self.settles = Some(Instant::now() + SETTLED);
        }
        let mut query = self.of_mine(&self.shared.query);
        (query["AllowStale"], query["MinQueryIndex"]) = (false.into(), 0.into());
        let mut allocations = self.surely(&mut session, first, "Node.GetClientAllocs", &query)?;
        query["AllowStale"] = true.into();
        let second = session.open()?;
        let mut is_asked = false;
        while self.goes_on() {
            if !is_asked {
                query["MinQueryIndex"] = allocations["Index"].clone();
                session.ask(first, "Node.GetClientAllocs", &query)?;
                is_asked = true;
            }
            let ttl = self.beat(&mut session, second)?;
            let next = Instant::now() + ttl;
            while Instant::now() < next && self.goes_on() {
                let settles = self.settles.filter(|at| *at <= Instant::now());
                if settles.is_some() {
                    self.surely(&mut session, second, "Node.Register", &self.registration(1))?;
                    self.settles = Some(Instant::now() + Duration::from_secs(1 << 30));
                    break;
                }
                let until = next.min(Instant::now() + LOOK);
                match session.answer(first, until) {
                    Some(Ok(answer)) => (allocations, is_asked) = (answer, false),
                    // It is asked again with the next heartbeat.
                    Some(Err(_)) => is_asked = false,
                    None if session.talk.heard.ended => return None,
                    None => {}
                }
            }
        }
        Some(())
    }

    /// A heartbeat; gives the time until the next.
    fn beat(&mut self, session: &mut Session, stream: u32) -> Option<Duration> {
        let beat = self.of_mine(&self.shared.beat);
        let answer = self.surely(session, stream, "Node.UpdateStatus", &beat)?;
        self.shared.beats.fetch_add(1, Ordering::Relaxed);
        if !self.is_known {
            self.is_known = true;
            self.shared.ready.fetch_add(1, Ordering::Relaxed);
            let at = u64::try_from(self.shared.begun.elapsed().as_millis()).unwrap();
            self.shared.ready_at.fetch_max(at, Ordering::Relaxed);
        }
        let ttl = Duration::from_nanos(answer["HeartbeatTTL"].as_u64().unwrap_or(0));
        Some(ttl.max(Duration::from_millis(200)))
    }
}
