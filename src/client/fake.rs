//! A server for tests: threads that answer calls, plain or on yamux streams, with what a closure says.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::base::id::StreamId;
use crate::base::time::Instant;
use crate::mux::session::{Event, Limits, MuxSession, Side};
use crate::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use crate::wire::rpc;
use crate::wire::yamux::GoAway;

/// What the fake does with a call.
pub(crate) enum Act {
    /// Answers with this body.
    Reply(Vec<u8>),
    /// Answers with this error and goes on.
    Refuse(&'static str),
    /// Answers with this error, then hangs up, as Go servers do for an unknown method.
    RefuseAndClose(&'static str),
    /// Answers, then hangs up.
    ReplyAndClose(Vec<u8>),
    /// Hangs up without an answer.
    Close,
    /// Says nothing more, and keeps the connection.
    Silence,
    /// Answers with these bytes, whatever they are.
    Bytes(Vec<u8>),
    /// Answers with a body, or not at all, and then does this.
    Then(Option<Vec<u8>>, Ending),
}

/// What a server does to a connection, or to a stream of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Ends its bytes; under TLS without a word.
    Fin,
    /// Says so under TLS, then as [`Ending::Fin`].
    Notify,
    /// Sends an alert that nobody sealed.
    Alert,
    /// Resets it.
    Rst,
    /// Resets the stream.
    StreamRst,
    /// Ends the stream.
    StreamFin,
    /// Says that it goes away, and stays.
    GoAway,
    /// Says that it goes away and ends its bytes.
    GoAwayFin,
    /// Pings.
    Ping,
    /// Sends a byte more on the stream.
    Stray,
}

/// A connection as the server sees it.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

impl Wire {
    fn socket(&mut self) -> &mut TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => &mut tls.sock,
        }
    }

    /// Ends the connection; false when it is none of its endings.
    fn end(&mut self, how: Ending) -> io::Result<bool> {
        match (how, &mut *self) {
            (Ending::Notify, Wire::Tls(tls)) => {
                tls.conn.send_close_notify();
                tls.flush()?;
            }
            (Ending::Alert, _) => self.socket().write_all(&[21, 3, 3, 0, 2, 2, 80])?,
            (Ending::Rst, _) => socket2::SockRef::from(&*self.socket()).set_linger(Some(Duration::ZERO))?,
            (Ending::Fin | Ending::Notify | Ending::GoAwayFin, _) => {}
            _ => return Ok(false),
        }
        if how != Ending::Rst {
            self.socket().shutdown(std::net::Shutdown::Write)?;
        }
        Ok(true)
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(into),
            Wire::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.write(bytes),
            Wire::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.flush(),
            Wire::Tls(tls) => tls.flush(),
        }
    }
}

/// A reply with this value.
pub(crate) fn reply(value: &impl Msg) -> Act {
    Act::Reply(value.to_bytes())
}

/// Starts a server on a free port; every connection has a thread. Returns its address.
pub(crate) fn serve(
    tls: Option<Arc<rustls::ServerConfig>>,
    act: impl Fn(&str, &[u8]) -> Act + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let act = Arc::new(act);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (tls, act) = (tls.clone(), Arc::clone(&act));
            thread::spawn(move || {
                // A client that goes away in the middle is part of the tests.
                let _ = greet(stream, tls, &*act);
            });
        }
    });
    address
}

fn greet(
    mut stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    act: &dyn Fn(&str, &[u8]) -> Act,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    let mut wire = match tls {
        None => Wire::Plain(stream),
        Some(tls) => {
            stream.read_exact(&mut first)?;
            assert_eq!(first, [0x04]);
            let session = rustls::ServerConnection::new(tls).unwrap();
            Wire::Tls(Box::new(rustls::StreamOwned::new(session, stream)))
        }
    };
    wire.read_exact(&mut first)?;
    match first {
        [0x01] => serve_rpc(wire, act),
        [0x06] => Mux::new(wire).serve(act),
        other => panic!("first byte {other:?}"),
    }
}

/// What goes out for what is to be done: bytes, and what happens then.
fn answer(act: Act, seq: u64, method: &str) -> (Vec<u8>, Option<Ending>, bool) {
    let encode = |error: &str, body: &[u8]| {
        let mut e = Encoder::new();
        rpc::encode_reply_head(&mut e, error, seq, method);
        e.raw(body);
        e.out
    };
    match act {
        Act::Reply(body) => (encode("", &body), None, false),
        Act::ReplyAndClose(body) => (encode("", &body), Some(Ending::Fin), false),
        Act::Refuse(error) => (encode(error, &[0x80]), None, false),
        Act::RefuseAndClose(error) => (encode(error, &[0x80]), Some(Ending::Fin), false),
        Act::Close => (Vec::new(), Some(Ending::Fin), false),
        Act::Silence => (Vec::new(), None, true),
        Act::Bytes(bytes) => (bytes, None, false),
        Act::Then(body, ending) => (body.map(|body| encode("", &body)).unwrap_or_default(), Some(ending), false),
    }
}

fn serve_rpc(mut stream: Wire, act: &dyn Fn(&str, &[u8]) -> Act) -> io::Result<()> {
    loop {
        let head = rpc::decode_request_head(&value(&mut stream)?).unwrap();
        let body = value(&mut stream)?;
        let (bytes, ending, is_silent) = answer(act(&head.service_method, &body), head.seq, &head.service_method);
        if is_silent {
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        stream.write_all(&bytes)?;
        stream.flush()?;
        match ending {
            Some(Ending::Stray) => stream.write_all(&[0x80]).and_then(|()| stream.flush())?,
            Some(ending) if stream.end(ending)? => return Ok(()),
            _ => {}
        }
    }
}

/// The server's side of a yamux session.
struct Mux {
    wire: Wire,
    session: MuxSession,
    /// What came on each stream; the first byte too.
    incoming: BTreeMap<StreamId, Vec<u8>>,
    /// What the client's windows have no room for.
    outgoing: BTreeMap<StreamId, Vec<u8>>,
}

impl Mux {
    fn new(wire: Wire) -> Mux {
        let session = MuxSession::new(Side::Server, Limits::default(), Instant::ZERO);
        Mux { wire, session, incoming: BTreeMap::new(), outgoing: BTreeMap::new() }
    }

    fn serve(mut self, act: &dyn Fn(&str, &[u8]) -> Act) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = self.wire.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            self.session.handle_bytes(Instant::ZERO, &buffer[..count]);
            while let Some(event) = self.session.poll_event() {
                match event {
                    Event::Opened(stream) => {
                        self.session.accept(stream);
                        self.incoming.insert(stream, Vec::new());
                    }
                    Event::Data(stream, range) => {
                        self.session.consume(stream, range.len());
                        self.incoming.entry(stream).or_default().extend_from_slice(&buffer[range]);
                    }
                    Event::Writable(stream) => self.send(stream, &[]),
                    Event::Reset(stream) | Event::Closed(stream) => drop(self.incoming.remove(&stream)),
                    _ => {}
                }
            }
            self.flush()?;
            let streams: Vec<StreamId> = self.incoming.keys().copied().collect();
            for stream in streams {
                if self.serve_stream(stream, act)? {
                    return Ok(());
                }
            }
        }
    }

    /// Answers what is whole; true when the connection is over.
    fn serve_stream(&mut self, stream: StreamId, act: &dyn Fn(&str, &[u8]) -> Act) -> io::Result<bool> {
        while let Some(bytes) = self.incoming.get(&stream) {
            let Some((0x01, rest)) = bytes.split_first() else { return Ok(false) };
            let Some((head, rest)) = split(rest) else { return Ok(false) };
            let Some((body, rest)) = split(rest) else { return Ok(false) };
            let (head, body) = (rpc::decode_request_head(head).unwrap(), body.to_vec());
            let rest = [&[0x01], rest].concat();
            self.incoming.insert(stream, rest);
            let (bytes, ending, _) = answer(act(&head.service_method, &body), head.seq, &head.service_method);
            self.send(stream, &bytes);
            match ending {
                Some(Ending::StreamRst) => self.session.reset(stream),
                Some(Ending::StreamFin) => self.session.finish(Instant::ZERO, stream),
                Some(Ending::GoAway | Ending::GoAwayFin) => self.session.go_away(GoAway::Normal),
                Some(Ending::Ping) => self.session.probe(),
                Some(Ending::Stray) => drop(self.session.send(stream, &[0x80])),
                _ => {}
            }
            self.flush()?;
            if let Some(ending) = ending
                && self.wire.end(ending)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&mut self, stream: StreamId, bytes: &[u8]) {
        let waiting = self.outgoing.entry(stream).or_default();
        waiting.extend_from_slice(bytes);
        let taken = self.session.send(stream, waiting).unwrap_or(waiting.len());
        waiting.drain(..taken);
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        self.session.take_output(&mut out);
        self.wire.write_all(&out)?;
        self.wire.flush()
    }
}

/// One whole msgpack value, and what follows.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    match Scanner::default().scan(bytes, usize::MAX - 1).unwrap() {
        Scan::Complete(len) => Some(bytes.split_at(len)),
        Scan::Partial => None,
    }
}

/// One msgpack value, read byte by byte.
fn value(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let (mut bytes, mut scanner) = (Vec::new(), Scanner::default());
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        if let Scan::Complete(_) = scanner.scan(&bytes, usize::MAX - 1).unwrap() {
            return Ok(bytes);
        }
    }
}

/// A CA, and what it signed: `<name>.pem` and `<name>-key.pem` in a folder, `ca.pem` beside them.
pub(crate) fn certificates(folder: &Path, names: &[&str]) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    fs::write(folder.join("ca.pem"), ca_certificate.pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![(*name).to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
}

/// A server's side of TLS that demands a certificate of the same CA.
pub(crate) fn server_tls(folder: &Path, name: &str) -> Arc<rustls::ServerConfig> {
    let load = |file: String| CertificateDer::from_pem_file(folder.join(file)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(load("ca.pem".to_owned())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}-key.pem"))).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(vec![load(format!("{name}.pem"))], key)
        .unwrap();
    Arc::new(config)
}
