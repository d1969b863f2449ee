//! mux helper
