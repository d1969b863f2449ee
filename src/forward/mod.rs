//! Carries a call to another party and its answer back.
