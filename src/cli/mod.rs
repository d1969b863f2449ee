//! cli helper
