//! Signals → soft stop → deadline → hard stop.
