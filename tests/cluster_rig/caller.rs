//! An HTTP client that takes trouble as an answer: it never panics because of what a server does, and tells whether a
//! request can have reached it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Why there is no answer.
#[derive(Debug)]
pub enum Trouble {
    /// Nobody listens: it was surely not sent.
    NotSent(io::Error),
    /// The connection ended before the answer was whole: it may have been done.
    NoAnswer(io::Error),
    /// Nothing came in time.
    TooLate,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// X-Nomad-Index; 0 where there is none.
    pub index: u64,
    pub known_leader: Option<bool>,
    /// Milliseconds.
    pub last_contact: Option<u64>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `Null` where it is no document.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// A client of one server at a time.
#[derive(Default)]
pub struct Caller {
    held: Option<(SocketAddr, TcpStream)>,
}

impl Caller {
    /// A request and its answer.
    pub fn ask(
        &mut self,
        to: SocketAddr,
        method: &str,
        target: &str,
        body: &[u8],
        time: Duration,
    ) -> Result<Answer, Trouble> {
        let deadline = Instant::now() + time;
        let kept = self.held.take().filter(|(at, stream)| *at == to && is_open(stream));
        let mut stream = match kept {
            Some((_, stream)) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&to, time).map_err(Trouble::NotSent)?;
                let _ = stream.set_nodelay(true);
                stream
            }
        };
        let request = format!("{method} {target} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len());
        let bytes = [request.as_bytes(), body].concat();
        stream.write_all(&bytes).map_err(Trouble::NoAnswer)?;
        let (answer, keeps) = read_answer(&mut stream, deadline)?;
        if keeps {
            self.held = Some((to, stream));
        }
        Ok(answer)
    }

    pub fn get(&mut self, to: SocketAddr, target: &str) -> Result<Answer, Trouble> {
        self.ask(to, "GET", target, b"", Duration::from_secs(10))
    }

    /// What a variable holds under the key `n`, and its modify index; `None` where there is no such variable.
    pub fn read_var(
        &mut self,
        to: SocketAddr,
        path: &str,
        query: &str,
    ) -> Result<(Option<(u64, u64)>, Answer), Trouble> {
        let answer = self.ask(to, "GET", &format!("/v1/var/{path}{query}"), b"", Duration::from_secs(15))?;
        Ok((number_of(&answer), answer))
    }

    /// Writes a number into a variable.
    pub fn write_var(&mut self, to: SocketAddr, path: &str, number: u64, query: &str) -> Result<Answer, Trouble> {
        let body = serde_json::json!({ "Path": path, "Items": { "n": number.to_string() } }).to_string();
        self.ask(to, "PUT", &format!("/v1/var/{path}{query}"), body.as_bytes(), Duration::from_secs(15))
    }
}

/// The number in a variable that was read or written, and its modify index.
pub fn number_of(answer: &Answer) -> Option<(u64, u64)> {
    let var = if answer.status == 200 { answer.json() } else { Value::Null };
    let number = var["Items"]["n"].as_str().and_then(|text| text.parse().ok());
    number.map(|number| (number, var["ModifyIndex"].as_u64().unwrap_or(0)))
}

/// Whether the server has not closed a connection on which nothing is due.
fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let peeked = stream.peek(&mut [0]);
    let quiet = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    quiet && stream.set_nonblocking(false).is_ok()
}

fn read_answer(stream: &mut TcpStream, deadline: Instant) -> Result<(Answer, bool), Trouble> {
    let mut held = Vec::new();
    let end = loop {
        if let Some(at) = held.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, deadline, &mut held)?;
    };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    held.drain(..end);
    let header = |name: &str| {
        let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
    };
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    if header("transfer-encoding").as_deref() == Some("chunked") {
        held = read_chunks(stream, deadline, held)?;
    } else {
        let length = header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while held.len() < length {
            more(stream, deadline, &mut held)?;
        }
    }
    let number = |name: &str| header(name).and_then(|text| text.parse().ok());
    let answer = Answer {
        status,
        index: number("x-nomad-index").unwrap_or(0),
        known_leader: header("x-nomad-knownleader").map(|text| text == "true"),
        last_contact: number("x-nomad-lastcontact"),
        body: held,
    };
    Ok((answer, header("connection").is_none_or(|text| !text.eq_ignore_ascii_case("close"))))
}

fn read_chunks(stream: &mut TcpStream, deadline: Instant, mut held: Vec<u8>) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    loop {
        let Some(end) = held.windows(2).position(|two| two == b"\r\n") else {
            more(stream, deadline, &mut held)?;
            continue;
        };
        let size = std::str::from_utf8(&held[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let Some(size) = size else { return Err(Trouble::NoAnswer(ErrorKind::InvalidData.into())) };
        while held.len() < end + 2 + size + 2 {
            more(stream, deadline, &mut held)?;
        }
        body.extend_from_slice(&held[end + 2..end + 2 + size]);
        held.drain(..end + 2 + size + 2);
        if size == 0 {
            return Ok(body);
        }
    }
}

fn more(stream: &mut TcpStream, deadline: Instant, held: &mut Vec<u8>) -> Result<(), Trouble> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Trouble::TooLate);
        }
        stream.set_read_timeout(Some(left)).map_err(Trouble::NoAnswer)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(Trouble::NoAnswer(ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                held.extend_from_slice(&buffer[..count]);
                return Ok(());
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Trouble::NoAnswer(error)),
        }
    }
}
