//! api helper
