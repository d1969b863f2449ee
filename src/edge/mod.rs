//! edge helper
