//! The links between servers: each server advertises a door of the test's, which passes bytes on to it. The door finds
//! out which server dials it, so that any pair can be cut, held or slowed, in either direction.
//!
//! A door whose server is down is shut: who dials it is refused, as by a machine on which nothing listens.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What becomes of connections that one server dials to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Bytes pass.
    Pass,
    /// New ones are reset, and so are those that were there.
    Cut,
    /// They stay, and nothing passes: `there` from the dialler, `back` to it. What was said comes when it is over.
    Hold { there: bool, back: bool },
    /// Each piece of bytes waits so long, both ways.
    Slow(Duration),
}

/// Of whom: the dialler and the one who is dialled.
type Pair = (usize, usize);

/// All doors of a cluster, and what holds for them.
#[derive(Default)]
pub struct Net {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: BTreeMap<Pair, Rule>,
    /// Which process is which server.
    processes: BTreeMap<u32, usize>,
    /// Connections that are there.
    open: BTreeMap<u64, Open>,
    next: u64,
    /// How many were let in, by pair.
    let_in: BTreeMap<Pair, u64>,
    ended: bool,
}

struct Open {
    pair: Option<Pair>,
    ends: [TcpStream; 2],
}

impl Open {
    fn reset(&self) {
        for end in &self.ends {
            let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Net {
    pub fn new() -> Arc<Net> {
        Arc::new(Net::default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process is this server from now on.
    pub fn runs(&self, process: u32, server: usize) {
        self.lock().processes.insert(process, server);
    }

    /// What holds for connections that one dials to another, from now on.
    pub fn rule(&self, from: usize, to: usize, rule: Rule) {
        let mut state = self.lock();
        state.rules.insert((from, to), rule);
        if rule == Rule::Cut {
            state.open.values().filter(|open| open.pair == Some((from, to))).for_each(Open::reset);
        }
        self.changed.notify_all();
    }

    /// Nothing of what one says reaches the other, whoever dialled; what the other says comes through.
    pub fn mute(&self, from: usize, to: usize) {
        self.rule(from, to, Rule::Hold { there: true, back: false });
        self.rule(to, from, Rule::Hold { there: false, back: true });
    }

    /// All pass again.
    pub fn heal(&self) {
        self.lock().rules.clear();
        self.changed.notify_all();
    }

    /// Connections that were let in from one to another so far.
    pub fn let_in(&self, from: usize, to: usize) -> u64 {
        self.lock().let_in.get(&(from, to)).copied().unwrap_or(0)
    }

    /// Ends all connections: nothing passes any more.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.open.values().for_each(Open::reset);
        self.changed.notify_all();
    }

    /// Which server has the other end of a connection: its socket is among the process's.
    fn dialler(&self, local: SocketAddr, remote: SocketAddr) -> Option<usize> {
        let processes = self.lock().processes.clone();
        let socket = format!("socket:[{}]", socket_number(remote, local)?);
        let has = |process: u32| {
            let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
            files.map(|file| file.path()).any(|file| fs::read_link(file).is_ok_and(|at| at.as_os_str() == &*socket))
        };
        processes.into_iter().find(|(process, _)| has(*process)).map(|(_, server)| server)
    }

    /// Waits until bytes may pass; false when it is over.
    fn may_pass(&self, pair: Option<Pair>, there: bool) -> bool {
        let mut state = self.lock();
        let mut slow_until = None;
        loop {
            let rule = pair.and_then(|pair| state.rules.get(&pair)).copied().unwrap_or(Rule::Pass);
            if state.ended || rule == Rule::Cut {
                return false;
            }
            let left = match rule {
                Rule::Hold { there: true, .. } if there => None,
                Rule::Hold { back: true, .. } if !there => None,
                Rule::Slow(time) => {
                    let until = *slow_until.get_or_insert_with(|| Instant::now() + time);
                    Some(until.saturating_duration_since(Instant::now()))
                }
                _ => Some(Duration::ZERO),
            };
            state = match left {
                Some(Duration::ZERO) => return true,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn carry(self: &Arc<Net>, dialled: TcpStream, server: usize, to: SocketAddr) {
        let addresses = (dialled.local_addr(), dialled.peer_addr());
        let (Ok(local), Ok(remote)) = addresses else { return };
        let pair = self.dialler(local, remote).map(|from| (from, server));
        let is_cut = pair.is_some_and(|pair| self.lock().rules.get(&pair) == Some(&Rule::Cut));
        let target = if is_cut { None } else { TcpStream::connect_timeout(&to, Duration::from_secs(5)).ok() };
        let Some(target) = target else {
            let _ = socket2::SockRef::from(&dialled).set_linger(Some(Duration::ZERO));
            return;
        };
        let _ = (dialled.set_nodelay(true), target.set_nodelay(true));
        let copies =
            [(&dialled, &target), (&dialled, &target)].map(|(a, b)| Some((a.try_clone().ok()?, b.try_clone().ok()?)));
        let [Some((a, b)), Some((c, d))] = copies else { return };
        let number = {
            let mut state = self.lock();
            state.next += 1;
            let number = state.next;
            state.open.insert(number, Open { pair, ends: [a, b] });
            if let Some(pair) = pair {
                *state.let_in.entry(pair).or_default() += 1;
            }
            number
        };
        let net = self.clone();
        let back = thread::spawn(move || net.pump(pair, false, &d, &c));
        self.pump(pair, true, &dialled, &target);
        let _ = back.join();
        self.lock().open.remove(&number);
    }

    fn pump(&self, pair: Option<Pair>, there: bool, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer);
            if !self.may_pass(pair, there) {
                break;
            }
            match read {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(count) if to.write_all(&buffer[..count]).is_ok() => {}
                _ => break,
            }
        }
        for end in [from, to] {
            let _ = socket2::SockRef::from(end).set_linger(Some(Duration::ZERO));
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// The number of the socket that is bound to one address and connected to another.
fn socket_number(local: SocketAddr, remote: SocketAddr) -> Option<String> {
    let (SocketAddr::V4(local), SocketAddr::V4(remote)) = (local, remote) else { return None };
    let shown =
        |address: SocketAddrV4| format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let (local, remote) = (shown(local), shown(remote));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&local.as_str()) && fields.get(2) == Some(&remote.as_str());
        is_it.then(|| fields.get(9).map(|number| (*number).to_owned())).flatten()
    })
}

/// The door of one server.
pub struct Door {
    pub address: SocketAddr,
    server: usize,
    net: Arc<Net>,
    listener: Option<TcpListener>,
}

impl Door {
    /// One that is shut, at an address that nobody else has.
    pub fn new(net: &Arc<Net>, server: usize) -> Door {
        Door { address: own_address(), server, net: net.clone(), listener: None }
    }

    /// Who dials it reaches this address.
    pub fn open(&mut self, to: SocketAddr) {
        self.shut();
        let listener = TcpListener::bind(self.address).unwrap();
        self.listener = Some(listener.try_clone().unwrap());
        let (net, server) = (self.net.clone(), self.server);
        thread::spawn(move || {
            while let Ok((dialled, _)) = listener.accept() {
                let net = net.clone();
                thread::spawn(move || net.carry(dialled, server, to));
            }
        });
    }

    /// Who dials it is refused. Connections that are there go on.
    pub fn shut(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Wakes the thread that accepts, which then lets go of the socket.
            let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.shut();
    }
}

/// An address of this process alone: no other process takes it between two uses, not even for a moment, since what is
/// dialled without a choice of address comes from 127.0.0.1.
pub fn own_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let [_, a, b, c] = std::process::id().to_be_bytes();
    let port = 20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
    SocketAddr::from(([127, 1 + a % 200, b, c], u16::try_from(port).unwrap()))
}
