//! conn helper
