//! Requests and what they stand for, replies and how they look.
