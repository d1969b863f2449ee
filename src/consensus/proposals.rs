//! What was proposed and is not resolved yet.
