//! How long to wait after the n-th failure.
