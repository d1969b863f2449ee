//! A server for tests: threads that answer plain calls with what a closure says. Ends when its listener is dropped.

use std::fs;
use std::io;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::wire::msgpack::{Encoder, Msg, Scan, Scanner};
use crate::wire::rpc;

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
    let Some(tls) = tls else { return serve_rpc(&mut stream, act) };
    let mut first = [0];
    stream.read_exact(&mut first)?;
    assert_eq!(first, [0x04]);
    let session = rustls::ServerConnection::new(tls).unwrap();
    serve_rpc(&mut rustls::StreamOwned::new(session, stream), act)
}

fn serve_rpc(stream: &mut (impl Read + Write), act: &dyn Fn(&str, &[u8]) -> Act) -> io::Result<()> {
    let mut first = [0];
    stream.read_exact(&mut first)?;
    assert_eq!(first, [0x01]);
    loop {
        let head = rpc::decode_request_head(&value(stream)?).unwrap();
        let body = value(stream)?;
        let mut e = Encoder::new();
        let (error, body, close) = match act(&head.service_method, &body) {
            Act::Reply(body) => ("", body, false),
            Act::ReplyAndClose(body) => ("", body, true),
            Act::Refuse(error) => (error, vec![0x80], false),
            Act::RefuseAndClose(error) => (error, vec![0x80], true),
            Act::Close => return Ok(()),
            Act::Silence => {
                let _ = stream.read(&mut [0]);
                return Ok(());
            }
            Act::Bytes(bytes) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
                continue;
            }
        };
        rpc::encode_reply_head(&mut e, error, head.seq, &head.service_method);
        e.raw(&body);
        stream.write_all(&e.out)?;
        stream.flush()?;
        if close {
            return Ok(());
        }
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
