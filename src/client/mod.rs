//! client helper
