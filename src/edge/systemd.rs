//! The service manager: what it is told (`sd_notify(3)`), its watchdog, and sockets that it opened for us
//! (`sd_listen_fds(3)`).
//!
//! Telling never blocks: a datagram that the manager has no room for waits, and a later one replaces it where that
//! loses nothing. Without a manager everything here does nothing.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::server::port::Listener;

use super::os;

/// Datagrams that may wait for the manager; the oldest makes room.
const WAITING_MAX: usize = 16;

/// How many turns of the watchdog a start is given more time for.
const TURNS_OF_A_LONG_START: u32 = 4;

/// Tells the service manager how we are.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    waiting: VecDeque<String>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From the environment that the manager gave us.
    pub fn from_environment() -> Notifier {
        let watchdog = sd_notify::watchdog_enabled();
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Notifier::default() };
        match Notifier::to(&address, watchdog) {
            Ok(notifier) => notifier,
            Err(error) => {
                log::warn!("service manager cannot be told: socket={} error=\"{error}\"", address.display());
                Notifier::default()
            }
        }
    }

    /// Tells the socket at this address; one that begins with `@` is an abstract name.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn to(address: &OsStr, watchdog: Option<Duration>) -> io::Result<Notifier> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        match address.as_bytes() {
            [b'@', name @ ..] => socket.connect_addr(&UnixAddress::from_abstract_name(name)?)?,
            _ => socket.connect(address)?,
        }
        Ok(Notifier { socket: Some(socket), waiting: VecDeque::new(), watchdog })
    }

    /// How often the watchdog wants to be fed; half of what would end us.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|interval| self.socket.is_some() && !interval.is_zero()).map(|interval| interval / 2)
    }

    /// `READY=1`: also the end of a reload.
    pub fn ready(&mut self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// `RELOADING=1`, with the time that the manager compares the end with.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(_) => self.tell(&[NotifyState::Reloading]),
        }
    }

    /// `STOPPING=1`
    pub fn stopping(&mut self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// `STATUS=`, one line.
    pub fn status(&mut self, text: &str) {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        // Only the last one counts.
        self.waiting.retain(|waiting| !waiting.starts_with("STATUS="));
        self.tell(&[NotifyState::Status(&line)]);
    }

    /// `WATCHDOG=1`
    pub fn feed_watchdog(&mut self) {
        // One that waits says as much as two.
        if self.waiting.is_empty() {
            self.tell(&[NotifyState::Watchdog]);
        }
    }

    /// `EXTEND_TIMEOUT_USEC=`: a start that takes long, and that ending it would not make shorter. It holds for some turns of
    /// the watchdog, and is to be said at each.
    pub fn still_starting(&mut self) {
        let Some(interval) = self.watchdog_interval() else { return };
        let micros = u32::try_from((interval * TURNS_OF_A_LONG_START).as_micros()).unwrap_or(u32::MAX);
        if self.waiting.is_empty() {
            self.tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
        }
    }

    fn tell(&mut self, states: &[NotifyState<'_>]) {
        if self.socket.is_none() {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(states.iter().map(|state| format!("{state}\n")).collect());
        self.send_waiting();
    }

    /// Sends what waits, as far as there is room. True when something still waits.
    pub fn send_waiting(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        while let Some(text) = self.waiting.front() {
            match socket.send(text.as_bytes()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A manager that is gone needs to be told nothing.
                Ok(_) | Err(_) => drop(self.waiting.pop_front()),
            }
        }
        false
    }
}

/// Sockets that the service manager opened, by name: `rpc` and `http` (`FileDescriptorName=`).
///
/// # Errors
/// A sentence, when the environment is malformed, a name is unknown, or a descriptor is no listening TCP socket.
pub fn inherited_listeners() -> Result<Vec<(Listener, TcpListener)>, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("socket activation: {why}");
    let mut sockets = Vec::new();
    for (descriptor, name) in sd_notify::listen_fds_with_names().map_err(|error| wrong(&error))? {
        let listener = match name.as_str() {
            "rpc" => Listener::Rpc,
            "http" => Listener::Http,
            _ => return Err(wrong(&format!("descriptor {descriptor} is named {name:?}, not \"rpc\" or \"http\""))),
        };
        let socket = os::inherited_listener(descriptor)
            .map_err(|error| wrong(&format!("descriptor {descriptor} ({name}): {error}")))?;
        sockets.push((listener, socket));
    }
    Ok(sockets)
}

/// The address of an inherited socket, for what we tell others.
///
/// # Errors
/// Whatever the system says.
pub fn address_of(socket: &TcpListener) -> io::Result<SocketAddr> {
    socket.local_addr()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    // R6.21
    #[test]
    fn datagrams_come_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::to(path.as_os_str(), Some(Duration::from_secs(30))).unwrap();
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(15)));
        notifier.still_starting();
        notifier.status("leader\nhf1");
        notifier.ready();
        notifier.feed_watchdog();
        notifier.reloading();
        notifier.ready();
        notifier.stopping();
        assert_eq!(receive(&manager), "EXTEND_TIMEOUT_USEC=60000000\n");
        assert_eq!(receive(&manager), "STATUS=leader hf1\n");
        assert_eq!(receive(&manager), "READY=1\n");
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
        let reloading = receive(&manager);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(usec.parse::<u64>().unwrap() > 0);
        assert_eq!(receive(&manager), "READY=1\n");
        assert_eq!(receive(&manager), "STOPPING=1\n");
    }

    #[test]
    fn an_abstract_name_is_reached_too() {
        let name = format!("holdfast-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&UnixAddress::from_abstract_name(&name).unwrap()).unwrap();
        let mut notifier = Notifier::to(OsStr::new(&format!("@{name}")), None).unwrap();
        notifier.ready();
        assert_eq!(receive(&manager), "READY=1\n");
    }

    // R6.8
    #[test]
    fn a_manager_that_does_not_read_blocks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::to(path.as_os_str(), None).unwrap();
        for number in 0..10_000 {
            notifier.status(&format!("{number}"));
        }
        notifier.ready();
        assert_eq!(notifier.waiting, ["STATUS=9999\n", "READY=1\n"]);
        assert!(notifier.send_waiting(), "the queue of a socket has a cap");
        while receive(&manager) != "READY=1\n" {
            notifier.send_waiting();
        }
        assert!(!notifier.send_waiting());
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let mut notifier = Notifier::default();
        notifier.ready();
        assert_eq!(notifier.watchdog_interval(), None);
        assert!(!notifier.send_waiting());
    }
}
