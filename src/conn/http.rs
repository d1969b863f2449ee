//! One HTTP/1.1 exchange after another (RFC 9112).

/// A request, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRequest {
    /// `GET` and its like.
    pub method: String,
    /// The path as it came, still percent-encoded, without the query.
    pub path: String,
    /// What follows `?`; empty when nothing does.
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpReply {
    /// The status.
    pub status: u16,
    /// Beside Content-Length, Connection, Date and Vary, which are added.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}
