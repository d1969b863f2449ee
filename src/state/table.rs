//! A persistent map that knows the index of its last change.
