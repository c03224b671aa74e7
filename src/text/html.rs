//! HTML → the neutral tree. Untrusted input: only what the tree knows gets through.
