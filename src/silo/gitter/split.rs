//! Cuts a text into parts that fit, at safe places.
