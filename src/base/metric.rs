//! Every metric once.
