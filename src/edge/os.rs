//! What the system offers only by way of `unsafe`: descriptors that a parent process left open for us.

#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};

/// The listening TCP socket that a service manager passed under this number (3 and up, `sd_listen_fds(3)`).
///
/// The number stays open as long as the process; what is given back is a descriptor of its own, closed on exec.
///
/// # Errors
/// The number is not open, or is no listening stream socket of IPv4 or IPv6.
pub(super) fn inherited_listener(number: RawFd) -> io::Result<TcpListener> {
    if number < 3 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a standard stream"));
    }
    // SAFETY: the number is not -1. Nothing in this process closes numbers that it did not open, so that it stays what
    // it is for the length of the borrow; a number that is not open gives EBADF in the call below and nothing worse.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let owned = borrowed.try_clone_to_owned()?;
    let inet = matches!(sockopt::socket_domain(&owned)?, AddressFamily::INET | AddressFamily::INET6);
    if !inet || sockopt::socket_type(&owned)? != SocketType::STREAM || !sockopt::socket_acceptconn(&owned)? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no listening TCP socket"));
    }
    Ok(TcpListener::from(owned))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_a_listening_socket_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = inherited_listener(listener.as_raw_fd()).unwrap();
        assert_eq!(taken.local_addr().unwrap(), listener.local_addr().unwrap());
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(inherited_listener(peer.as_raw_fd()).is_err());
        assert!(inherited_listener(1_000_000).is_err());
        assert!(inherited_listener(0).is_err());
    }
}
