//! An HTTP client that reads answers by hand: whole, chunked, in pieces as they come.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Instant;

use serde_json::Value;

use super::peer::{Peer, Read1};
use super::{PATIENCE, patience};

/// One connection.
pub struct Web {
    pub peer: Peer,
    held: Vec<u8>,
    ended: bool,
    /// Of a chunked body: what was read of it and not looked at.
    pieces: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body, unpacked when it is packed.
    pub fn unpacked(&self) -> Vec<u8> {
        if self.header("content-encoding") != Some("gzip") {
            return self.body.clone();
        }
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(self.body.as_slice()).read_to_end(&mut body).unwrap();
        body
    }
}

/// The bytes of a request with a body of known length.
pub fn request(method: &str, target: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: test\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    [text.as_bytes(), b"\r\n", body].concat()
}

impl Web {
    pub fn dial(address: SocketAddr) -> Web {
        Web::over(Peer::dial(address))
    }

    pub fn over(peer: Peer) -> Web {
        Web { peer, held: Vec::new(), ended: false, pieces: Vec::new() }
    }

    /// A GET and its answer.
    #[track_caller]
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    /// A request and its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Answer {
        self.peer.write(&request(method, target, headers, body));
        self.answer_to(method)
    }

    #[track_caller]
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// The next answer, whole.
    #[track_caller]
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        if method == "HEAD" || matches!(answer.status, 100 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.header("content-length") {
            answer.body = self.take(length.parse().unwrap());
        } else {
            while self.more() {}
            answer.body = std::mem::take(&mut self.held);
        }
        answer
    }

    /// The head of the next answer.
    #[track_caller]
    pub fn head(&mut self) -> Answer {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(), "no answer: {:?}", String::from_utf8_lossy(&self.held));
        };
        let head = String::from_utf8(self.take(end)).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        });
        Answer { status, headers: headers.collect(), body: Vec::new() }
    }

    /// The next chunk of the answer; `None` for the last one.
    #[track_caller]
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.held.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            assert!(self.more(), "it ends within its body");
        };
        let size = usize::from_str_radix(std::str::from_utf8(&self.held[..end]).unwrap(), 16).unwrap();
        self.take(end + 2);
        let chunk = self.take(size);
        assert_eq!(self.take(2), b"\r\n");
        (size > 0).then_some(chunk)
    }

    /// The next line of a chunked answer; `None` at its end.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.pieces.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pieces.drain(..=at).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let chunk = self.chunk()?;
            self.pieces.extend(chunk);
        }
    }

    /// The next line that is more than a sign of life.
    #[track_caller]
    pub fn document(&mut self) -> Option<Value> {
        loop {
            let line = self.line()?;
            if line != "{}" {
                return Some(serde_json::from_str(&line).unwrap());
            }
        }
    }

    /// Reads until the daemon closes, or fails to in time; gives what came.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.held)
    }

    #[track_caller]
    fn take(&mut self, count: usize) -> Vec<u8> {
        while self.held.len() < count {
            assert!(self.more(), "it ends {} bytes early", count - self.held.len());
        }
        self.held.drain(..count).collect()
    }

    /// Reads more; false at the end.
    #[track_caller]
    fn more(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let deadline: Instant = patience();
        match self.peer.read(deadline) {
            Read1::Bytes(bytes) => self.held.extend(bytes),
            Read1::End(_) => self.ended = true,
            Read1::Nothing => panic!("nothing in {PATIENCE:?}: {:?}", String::from_utf8_lossy(&self.held)),
        }
        !self.ended
    }
}
