//! HTTP/1.1 on the wire: request heads, the length of a body, chunks, reply heads. Never decides what to answer.
//!
//! Source: RFC 9112 (messages) and RFC 9110 (fields). Where a lenient reading would let two parties see different
//! requests (section 11.2 of RFC 9112), the request is refused.

use std::fmt;

use httparse::Status;

/// Header fields in one request.
pub const MAX_HEADERS: usize = 100;
/// Bytes of chunk extensions and trailer fields in one body.
pub const MAX_CHUNK_OVERHEAD_BYTES: usize = 16 * 1024;
/// Digits of one chunk's length, leading zeros too.
pub const MAX_CHUNK_DIGITS: usize = 16;

/// The request line and the header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// `GET` and its like.
    pub method: String,
    /// What follows the method, as it came.
    pub target: String,
    /// 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub minor_version: u8,
    /// Names in lower case; bytes of values that are no UTF-8 are replaced.
    pub headers: Vec<(String, String)>,
}

/// Why bytes are no request head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// They break the grammar.
    Syntax,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Over [`MAX_HEADERS`].
    TooManyHeaders,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes.
    Bytes(u64),
    /// Chunks.
    Chunked,
}

/// Why it cannot be said where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthError {
    /// A Content-Length that is no number, or several that differ.
    BadContentLength,
    /// Content-Length beside Transfer-Encoding, or Transfer-Encoding in HTTP/1.0.
    Ambiguous,
    /// A transfer coding other than `chunked`.
    UnknownCoding,
}

impl RequestHead {
    /// The values of the header fields called `name` (in lower case), in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated field lists `token`, without regard to case.
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.values(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the peer keeps the connection after this request (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        !self.lists("connection", "close") && (self.minor_version > 0 || self.lists("connection", "keep-alive"))
    }

    /// How the body is delimited (RFC 9112 section 6.3); without either field there is none.
    ///
    /// # Errors
    /// See [`LengthError`].
    pub fn body_length(&self) -> Result<BodyLength, LengthError> {
        let mut codings = self.values("transfer-encoding").peekable();
        let mut lengths = self.values("content-length").peekable();
        if codings.peek().is_some() {
            if lengths.peek().is_some() || self.minor_version == 0 {
                return Err(LengthError::Ambiguous);
            }
            let only = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
            return if only && codings.next().is_none() {
                Ok(BodyLength::Chunked)
            } else {
                Err(LengthError::UnknownCoding)
            };
        }
        let Some(first) = lengths.next() else { return Ok(BodyLength::Bytes(0)) };
        if first.is_empty() || !first.bytes().all(|b| b.is_ascii_digit()) || lengths.any(|other| other != first) {
            return Err(LengthError::BadContentLength);
        }
        first.parse().map(BodyLength::Bytes).map_err(|_| LengthError::BadContentLength)
    }
}

/// Reads a request head that begins `bytes`: the head and its length in bytes, or `None` while it is cut short.
///
/// # Errors
/// See [`HeadError`]. What is wrong early is found before the head is whole.
pub fn parse_request_head(bytes: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::Version) => return Err(HeadError::Version),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(_) => return Err(HeadError::Syntax),
    };
    let head = RequestHead {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        minor_version: request.version.unwrap_or_default(),
        headers: request
            .headers
            .iter()
            .map(|h| (h.name.to_ascii_lowercase(), String::from_utf8_lossy(h.value).trim().to_owned()))
            .collect(),
    };
    Ok(Some((head, len)))
}

/// Path and query of a request's target. A proxy's form of it names the authority too (RFC 9112 section 3.2.2).
/// `None` when it is neither a path nor a whole address nor `*`.
pub fn split_target(target: &str) -> Option<(&str, &str)> {
    let whole = |scheme: &str| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/"))
    };
    let target = whole("http://").or_else(|| whole("https://")).unwrap_or(target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "" => Some(("/", query)),
        "*" => Some((path, query)),
        _ => path.starts_with('/').then_some((path, query)),
    }
}

/// Where the head that begins `bytes` ends, looking no further back than `from`: just after its empty line.
pub fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    let from = from.saturating_sub(3);
    let tail = bytes.get(from..)?;
    tail.iter().enumerate().filter(|(_, b)| **b == b'\n').find_map(|(at, _)| match tail.get(at + 1..)? {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// Why a chunked body cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkError {
    /// It breaks the grammar.
    Syntax,
    /// The body is larger than permitted.
    TooLarge,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    FirstDigit,
    Digits,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    Done,
}

/// A chunked body that arrives piece by piece (RFC 9112 section 7.1). Extensions and trailer fields are dropped.
#[derive(Clone, Debug, Default)]
pub struct ChunkedBody {
    state: ChunkState,
    /// Bytes left of the current chunk.
    left: u64,
    /// Digits of its length.
    digits: usize,
    overhead_bytes: usize,
}

impl ChunkedBody {
    /// Takes bytes, appends what is data to `body`, and says how many bytes were taken: fewer than there are only
    /// when the body has ended.
    ///
    /// # Errors
    /// Bad grammar, or a body of more than `max_bytes`.
    pub fn take(&mut self, bytes: &[u8], body: &mut Vec<u8>, max_bytes: usize) -> Result<usize, ChunkError> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.state {
                ChunkState::Done => break,
                ChunkState::Data => {
                    let len = rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    let (data, after) = rest.split_at(len);
                    body.extend_from_slice(data);
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = ChunkState::DataCr;
                    }
                    rest = after;
                }
                _ => {
                    self.step(byte, body.len(), max_bytes)?;
                    rest = after;
                }
            }
        }
        Ok(bytes.len() - rest.len())
    }

    /// Whether the last chunk and its trailer are past.
    pub fn is_done(&self) -> bool {
        self.state == ChunkState::Done
    }

    fn step(&mut self, byte: u8, held: usize, max_bytes: usize) -> Result<(), ChunkError> {
        self.state = match (self.state, byte) {
            (ChunkState::FirstDigit | ChunkState::Digits, b) if b.is_ascii_hexdigit() => {
                self.digits = if self.state == ChunkState::FirstDigit { 1 } else { self.digits + 1 };
                if self.digits > MAX_CHUNK_DIGITS {
                    return Err(ChunkError::TooLarge);
                }
                let digit = (b as char).to_digit(16).map_or(0, u64::from);
                self.left = self.left.checked_mul(16).ok_or(ChunkError::TooLarge)? | digit;
                if self.left > max_bytes.saturating_sub(held) as u64 {
                    return Err(ChunkError::TooLarge);
                }
                ChunkState::Digits
            }
            (ChunkState::Digits | ChunkState::Extension, b'\r') => ChunkState::SizeLf,
            (ChunkState::Digits, b';' | b' ' | b'\t') => ChunkState::Extension,
            (ChunkState::Extension | ChunkState::Trailer, b) if b != b'\n' && b != b'\r' => {
                self.count_overhead()?;
                self.state
            }
            (ChunkState::SizeLf, b'\n') if self.left == 0 => ChunkState::TrailerStart,
            (ChunkState::SizeLf, b'\n') => ChunkState::Data,
            (ChunkState::DataCr, b'\r') => ChunkState::DataLf,
            (ChunkState::DataLf, b'\n') => ChunkState::FirstDigit,
            (ChunkState::TrailerStart, b'\r') => ChunkState::LastLf,
            (ChunkState::TrailerStart, b) if b != b'\n' => {
                self.count_overhead()?;
                ChunkState::Trailer
            }
            (ChunkState::Trailer, b'\r') => ChunkState::TrailerLf,
            (ChunkState::TrailerLf, b'\n') => ChunkState::TrailerStart,
            (ChunkState::LastLf, b'\n') => ChunkState::Done,
            _ => return Err(ChunkError::Syntax),
        };
        Ok(())
    }

    fn count_overhead(&mut self) -> Result<(), ChunkError> {
        self.overhead_bytes += 1;
        if self.overhead_bytes > MAX_CHUNK_OVERHEAD_BYTES { Err(ChunkError::TooLarge) } else { Ok(()) }
    }
}

/// Ends a chunked body that has no trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends one chunk; nothing for no bytes, since an empty chunk is the last one.
pub fn encode_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(bytes);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a status line and header fields, and the empty line after them. Line breaks within a value become
/// spaces, so that no value can begin a field of its own.
pub fn encode_reply_head<'a>(out: &mut Vec<u8>, status: u16, headers: impl IntoIterator<Item = (&'a str, &'a str)>) {
    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason(status)).as_bytes());
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend(value.bytes().map(|b| if matches!(b, b'\r' | b'\n' | 0) { b' ' } else { b }));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// The words of a status (RFC 9110 section 15); empty for one that has none here.
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Headers whose values are secrets, in lower case.
const SECRET_HEADERS: [&str; 3] = ["authorization", "x-holdfast-session", "x-nomad-token"];

/// A request, whole.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET` and its like.
    pub method: String,
    /// The path as it came, still percent-encoded, without the query.
    pub path: String,
    /// What follows `?`; empty when nothing does.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined; empty for an upload.
    pub body: Vec<u8>,
    /// The body is not here: it comes in pieces, since it may be larger than what a request may hold.
    pub upload: bool,
}

impl fmt::Debug for HttpRequest {
    /// Without values of secret headers, and without the body.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): &(String, String)| match SECRET_HEADERS.contains(&name.as_str()) {
            true => format!("{name}: <secret>"),
            false => format!("{name}: {value}"),
        };
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("query", &self.query)
            .field("headers", &self.headers.iter().map(shown).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("upload", &self.upload)
            .finish()
    }
}

impl HttpRequest {
    /// The first value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Beside Content-Length, Connection and Vary, which are added; a Date is the owner's, who has a clock.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

#[cfg(test)]
mod tests;
