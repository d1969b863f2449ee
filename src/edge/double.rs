//! A double of the server machine for tests: it echoes, records what it is told, and does what a test has it do.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use mio::Poll;

use crate::base::id::ConnId;
use crate::base::time::{Instant, WallTime};
use crate::server::port::{Input, Listener, Output};
use crate::state::State;

use super::certificates::Expiry;
use super::clock::SystemClock;
use super::consensus_lane::ConsensusLane;
use super::doors::listen;
use super::event_loop::{BELL_TOKEN, Channels, EventLoop, Hands, Parts};
use super::handler_pool::HandlerPool;
use super::inbox::{Bell, Post};
use super::machine::Machine;
use super::proposals::Proposals;
use super::systemd::Notifier;

/// No test waits longer for what must come.
const DEADLINE: Duration = Duration::from_secs(60);

/// What the double has seen, and what it is to do next.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) accepted: Vec<(ConnId, SocketAddr)>,
    pub(super) received: BTreeMap<ConnId, usize>,
    pub(super) ended: Vec<ConnId>,
    pub(super) failed: Vec<ConnId>,
    pub(super) dialled: Vec<(u64, ConnId, SocketAddr)>,
    pub(super) dial_failed: Vec<(u64, String)>,
    /// The disk's free room, each time that facts were told.
    pub(super) disk_looks: Vec<Option<u64>>,
    /// Every other input, as `Debug` prints it.
    pub(super) others: Vec<String>,
    pub(super) echo: bool,
    /// Bytes that the sockets have taken.
    pub(super) sent: BTreeMap<ConnId, usize>,
    to_do: VecDeque<ToDo>,
}

enum ToDo {
    Output(Output),
    Send(ConnId, Vec<u8>),
}

type Shared = Arc<(Mutex<Seen>, Condvar)>;

fn lock(shared: &Shared) -> MutexGuard<'_, Seen> {
    shared.0.lock().unwrap()
}

/// The double.
pub(super) struct Double {
    shared: Shared,
    outputs: VecDeque<Output>,
    out: BTreeMap<ConnId, (Vec<u8>, usize)>,
}

impl Double {
    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.out.entry(conn).or_default().0.extend_from_slice(bytes);
        self.outputs.push_back(Output::Flush(conn));
    }
}

impl Machine for Double {
    fn handle_input(&mut self, _: Instant, _: WallTime, input: Input<'_>) {
        let shared = Arc::clone(&self.shared);
        let mut seen = lock(&shared);
        match input {
            Input::Accepted { conn, peer, .. } => seen.accepted.push((conn, peer)),
            Input::Received { conn, bytes } => {
                *seen.received.entry(conn).or_default() += bytes.len();
                if seen.echo {
                    self.send(conn, bytes);
                }
            }
            Input::Eof { conn } => seen.ended.push(conn),
            Input::Failed { conn, .. } => seen.failed.push(conn),
            Input::Dialled { ticket, conn, peer } => seen.dialled.push((ticket, conn, peer)),
            Input::DialFailed { ticket, error } => seen.dial_failed.push((ticket, error)),
            Input::Timeout => {
                for to_do in std::mem::take(&mut seen.to_do) {
                    match to_do {
                        ToDo::Output(output) => self.outputs.push_back(output),
                        ToDo::Send(conn, bytes) => self.send(conn, &bytes),
                    }
                }
            }
            Input::Process(facts) => seen.disk_looks.push(facts.disk_free_bytes),
            other => seen.others.push(format!("{other:?}")),
        }
        shared.1.notify_all();
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (!lock(&self.shared).to_do.is_empty()).then_some(Instant::ZERO)
    }

    fn to_send(&self, conn: ConnId) -> &[u8] {
        self.out.get(&conn).map_or(&[], |(bytes, at)| &bytes[*at..])
    }

    fn sent(&mut self, _: Instant, conn: ConnId, bytes: usize) {
        if let Some((waiting, at)) = self.out.get_mut(&conn) {
            *at += bytes;
            if *at == waiting.len() {
                (*waiting, *at) = (Vec::new(), 0);
            }
        }
        *lock(&self.shared).sent.entry(conn).or_default() += bytes;
        self.shared.1.notify_all();
    }
}

/// A running loop with a double in it.
pub(super) struct Rig {
    shared: Shared,
    bell: Arc<Bell>,
    pub(super) address: SocketAddr,
    thread: Option<JoinHandle<io::Result<u8>>>,
}

/// The parts of a loop with a double in it, for a test to change before they run.
pub(super) struct RigParts {
    shared: Shared,
    pub(super) parts: Parts<Double>,
    address: SocketAddr,
}

impl RigParts {
    pub(super) fn new() -> RigParts {
        let shared: Shared = Arc::default();
        lock(&shared).echo = true;
        let poll = Poll::new().unwrap();
        let bell = Arc::new(Bell::new(poll.registry(), BELL_TOKEN).unwrap());
        let (post, told) = Post::new(Arc::clone(&bell));
        let root = Arc::new(ArcSwap::from_pointee(State::default()));
        let pool = HandlerPool::start(1, 4, &root, &post).unwrap();
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let machine = Double { shared: Arc::clone(&shared), outputs: VecDeque::new(), out: BTreeMap::new() };
        let hands = Hands {
            audit: None,
            pool,
            proposals: Proposals::new(Box::new(Err)),
            consensus: ConsensusLane::new().0,
            files: None,
            snapshot_keeper: None,
            disk: None,
            logs: None,
            notifier: Notifier::default(),
            keyring: None,
            reloader: None,
            expiry: Expiry::default(),
            bootstrap_reset: None,
            backups: None,
            post,
        };
        let channels = Channels { told, notices: crossbeam_channel::never(), log_lines: crossbeam_channel::never() };
        let parts = Parts {
            machine,
            poll,
            bell,
            clock: SystemClock::start(),
            listeners: vec![(Listener::Rpc, listener)],
            signals: None,
            channels,
            hands,
        };
        RigParts { shared, parts, address }
    }

    pub(super) fn start(self) -> Rig {
        let RigParts { shared, parts, address } = self;
        let bell = Arc::clone(&parts.bell);
        let thread = std::thread::spawn(move || {
            let (status, hands) = EventLoop::new(parts)?.run()?;
            assert!(hands.pool.stop());
            Ok(status)
        });
        Rig { shared, bell, address, thread: Some(thread) }
    }
}

impl Rig {
    pub(super) fn start() -> Rig {
        RigParts::new().start()
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.shared)
    }

    /// Has the double do something.
    pub(super) fn perform(&self, output: Output) {
        self.seen().to_do.push_back(ToDo::Output(output));
        self.bell.ring();
    }

    pub(super) fn send(&self, conn: ConnId, bytes: Vec<u8>) {
        self.seen().to_do.push_back(ToDo::Send(conn, bytes));
        self.bell.ring();
    }

    /// Waits until something was seen.
    pub(super) fn wait(&self, what: &str, mut happened: impl FnMut(&Seen) -> bool) {
        let waited = self.shared.1.wait_timeout_while(self.seen(), DEADLINE, |seen| !happened(seen)).unwrap();
        assert!(!waited.1.timed_out(), "{what} did not happen");
    }

    /// A connection, and the id that the loop gave it.
    pub(super) fn connect(&self) -> (TcpStream, ConnId) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let ours = stream.local_addr().unwrap();
        let mut conn = None;
        self.wait("the accept", |seen| {
            conn = seen.accepted.iter().find(|(_, peer)| *peer == ours).map(|(conn, _)| *conn);
            conn.is_some()
        });
        (stream, conn.unwrap())
    }

    pub(super) fn stop(mut self) -> u8 {
        self.perform(Output::Exit { status: 0 });
        self.thread.take().unwrap().join().unwrap().unwrap()
    }
}
