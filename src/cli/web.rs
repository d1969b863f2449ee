//! One GET over HTTP/1.1, whose every wait ends at a deadline: for what servers tell only that way.

use std::io;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::client::{TimedSocket, TlsSettings};

/// Heads of an answer at most.
const HEADERS_MAX: usize = 64;
/// Bytes that an answer's head may have.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server's clock, as it came.
    pub(crate) date: String,
    pub(crate) body: Vec<u8>,
    /// Whether there was more than was wanted.
    pub(crate) is_cut: bool,
}

/// Who is asked, and how.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) address: &'a str,
    pub(crate) tls: Option<&'a TlsSettings>,
    pub(crate) token: &'a str,
}

/// Asks for a path, and takes at most so many bytes of the answer's body.
///
/// # Errors
/// In words: no address, no connection, no answer in time, or bytes that are none.
pub(crate) fn get(site: Site<'_>, path: &str, limit: Duration, bytes_max: usize) -> Result<Answer, String> {
    let deadline = Instant::now() + limit;
    let stream = connect(site.address, deadline).map_err(|error| said(&error))?;
    let mut socket = TimedSocket::new(stream, deadline).map_err(|error| said(&error))?;
    let token = if site.token.is_empty() { String::new() } else { format!("X-Nomad-Token: {}\r\n", site.token) };
    let address = site.address;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}\r\n");
    let bytes = match site.tls {
        None => exchange(&mut socket, request.as_bytes(), bytes_max),
        Some(tls) => {
            let session = tls.connection().map_err(|error| error.to_string())?;
            exchange(&mut rustls::StreamOwned::new(session, socket), request.as_bytes(), bytes_max)
        }
    };
    parse(&bytes.map_err(|error| said(&error))?, bytes_max)
}

/// Dials one address after another until the deadline.
///
/// # Errors
/// The last one's, or that there is none.
pub(crate) fn connect(address: &str, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for one in address.to_socket_addrs()? {
        match dial(&one, deadline) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn dial(address: &SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    TcpStream::connect_timeout(address, left)
}

/// What went wrong, in few words.
pub(crate) fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused: nothing listens there".to_owned(),
        _ => error.to_string(),
    }
}

/// Writes the request and reads to the end, or to one byte more than is wanted.
fn exchange<S: Read + Write>(stream: &mut S, request: &[u8], bytes_max: usize) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    stream.flush()?;
    let most = u64::try_from(bytes_max.saturating_add(HEAD_BYTES_MAX)).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    match stream.take(most).read_to_end(&mut bytes) {
        // Some servers do not say goodbye in TLS.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !bytes.is_empty() => Ok(bytes),
        Err(error) => Err(error),
        Ok(_) => Ok(bytes),
    }
}

fn parse(bytes: &[u8], bytes_max: usize) -> Result<Answer, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let len = match head.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Err("the answer ended within its head".to_owned()),
        Err(error) => return Err(format!("what answers does not speak HTTP: {error}")),
    };
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        header.and_then(|header| std::str::from_utf8(header.value).ok()).unwrap_or_default()
    };
    if !value("Transfer-Encoding").is_empty() {
        return Err("the answer comes in chunks, which was not asked for".to_owned());
    }
    let rest = bytes.get(len..).unwrap_or_default();
    let whole = value("Content-Length").parse::<usize>().unwrap_or(rest.len());
    let body = rest.get(..whole.min(bytes_max).min(rest.len())).unwrap_or_default().to_vec();
    if whole <= bytes_max && body.len() < whole {
        return Err(format!("the answer ended after {} of {whole} bytes", body.len()));
    }
    let (status, date) = (head.code.unwrap_or(0), value("Date").to_owned());
    Ok(Answer { status, date, is_cut: body.len() < whole, body })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_cut_or_none() {
        let text = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 5\r\n\r\nhello";
        let answer = parse(text, 100).unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.is_cut), (200, &b"hello"[..], false));
        assert_eq!(answer.date, "Sun, 06 Nov 1994 08:49:37 GMT");
        let cut = parse(text, 3).unwrap();
        assert_eq!((cut.body.as_slice(), cut.is_cut), (&b"hel"[..], true));
        for end in 0..text.len() {
            assert!(parse(&text[..end], 100).is_err(), "{end}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 9).is_err());
        assert!(parse(b"SSH-2.0-OpenSSH_9.2\r\n", 9).unwrap_err().contains("does not speak HTTP"));
    }
}
