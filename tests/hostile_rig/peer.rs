//! Peers written by hand: plain net/rpc, raw yamux frames, raw HTTP.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use holdfast::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use holdfast::wire::rpc::{self, ReplyHead};
use holdfast::wire::yamux::{FrameType, HEADER_BYTES, Header};
use socket2::SockRef;

use super::PATIENCE;

/// A reply is never larger in these tests.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A connected socket that gives up after [`PATIENCE`].
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = try_connect(address).unwrap_or_else(|e| panic!("connecting to {address}: {e}"));
    stream.set_nodelay(true).unwrap();
    stream
}

pub fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The same from another address of this machine: 127.0.0.`last`.
pub fn connect_from(last: u8, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Ends a connection as a machine that vanished does: RST.
pub fn vanish(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Reads until the peer closes; whether it did so within the limit.
pub fn closes_within(mut stream: &TcpStream, limit: Duration) -> bool {
    stream.set_read_timeout(Some(limit)).unwrap();
    let end = std::time::Instant::now() + limit;
    let mut buffer = vec![0; 64 << 10];
    while std::time::Instant::now() < end {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
    false
}

/// A request, head and body.
pub fn request(seq: u64, method: &str, body: &[u8]) -> Vec<u8> {
    let mut e = Encoder::new();
    rpc::encode_request_head(&mut e, seq, method);
    e.raw(body);
    e.out
}

/// A plain net/rpc connection, first byte 0x01.
pub struct Plain {
    pub stream: TcpStream,
    seq: u64,
    input: Vec<u8>,
}

impl Plain {
    pub fn connect(address: SocketAddr) -> Plain {
        let mut stream = connect(address);
        // A connection over the limit may be closed already.
        let _ = stream.write_all(&[1]);
        Plain { stream, seq: 0, input: Vec::new() }
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Plain> {
        let mut stream = try_connect(address)?;
        stream.set_nodelay(true)?;
        stream.write_all(&[1])?;
        Ok(Plain::over(stream))
    }

    /// Over a connection whose first byte was sent.
    pub fn over(stream: TcpStream) -> Plain {
        Plain { stream, seq: 0, input: Vec::new() }
    }

    /// A call; the reply's body, or the text of its error within.
    pub fn call(&mut self, method: &str, body: &[u8]) -> io::Result<Result<Vec<u8>, String>> {
        self.send(method, body)?;
        self.receive()
    }

    pub fn send(&mut self, method: &str, body: &[u8]) -> io::Result<()> {
        self.seq += 1;
        self.stream.write_all(&request(self.seq, method, body))
    }

    pub fn receive(&mut self) -> io::Result<Result<Vec<u8>, String>> {
        let head = self.value()?;
        let head: ReplyHead = rpc::decode_reply_head(&head).map_err(|e| io::Error::other(e.to_string()))?;
        let body = self.value()?;
        assert!(head.seq <= self.seq);
        Ok(if head.error.is_empty() { Ok(body) } else { Err(head.error) })
    }

    /// A call with arguments and a reply of our own types.
    pub fn ask<Q: Msg, R: Msg>(&mut self, method: &str, question: &Q) -> io::Result<Result<R, String>> {
        let body = self.call(method, &question.to_bytes())?;
        Ok(body.map(|body| R::from_bytes(&body).unwrap()))
    }

    pub fn ping(&mut self) -> io::Result<()> {
        self.call("Status.Ping", &[0x80])?.map(|_| ()).map_err(io::Error::other)
    }

    fn value(&mut self) -> io::Result<Vec<u8>> {
        let mut scanner = Scanner::default();
        let mut buffer = vec![0; 16 << 10];
        loop {
            let found = scanner.scan(&self.input, REPLY_BYTES_MAX).map_err(|e| io::Error::other(e.to_string()))?;
            if let Scan::Complete(length) = found {
                return Ok(self.input.drain(..length).collect());
            }
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&buffer[..count]);
        }
    }
}

/// A frame.
pub fn frame(frame_type: FrameType, flags: u16, stream: u32, length: u32) -> [u8; HEADER_BYTES] {
    Header { frame_type, flags, stream, length }.encode()
}

/// A data frame with its payload.
pub fn data(flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
    [&frame(FrameType::Data, flags, stream, u32::try_from(payload.len()).unwrap())[..], payload].concat()
}

/// A yamux connection of raw frames, first byte 0x06.
pub struct Frames {
    pub stream: TcpStream,
}

impl Frames {
    pub fn connect(address: SocketAddr) -> Frames {
        let mut stream = connect(address);
        stream.write_all(&[6]).unwrap();
        Frames { stream }
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame: header and payload.
    pub fn next(&mut self) -> io::Result<(Header, Vec<u8>)> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        let header = Header::decode(&head).map_err(|e| io::Error::other(format!("{e:?}")))?;
        let mut payload = Vec::new();
        if header.frame_type == FrameType::Data {
            payload.resize(header.length as usize, 0);
            self.stream.read_exact(&mut payload)?;
        }
        Ok((header, payload))
    }

    /// Reads on until a frame is as wanted, or the connection ends.
    pub fn until(&mut self, is_it: impl Fn(&Header) -> bool) -> io::Result<(Header, Vec<u8>)> {
        loop {
            let (header, payload) = self.next()?;
            if is_it(&header) {
                return Ok((header, payload));
            }
        }
    }

    /// The code of the GoAway that comes before the end; `None` when the end comes without one.
    pub fn end_code(&mut self) -> Option<u32> {
        let code = self.until(|header| header.frame_type == FrameType::GoAway).ok().map(|(header, _)| header.length);
        assert!(closes_within(&self.stream, PATIENCE), "still open");
        code
    }
}

/// Sends raw HTTP, says that no more comes, and reads all that is answered.
pub fn http(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may refuse before all was sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    read_all(stream)
}

/// All that comes until the end, also when that is a reset.
pub fn read_all(mut stream: TcpStream) -> String {
    let mut all = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        all.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&all).into_owned()
}
