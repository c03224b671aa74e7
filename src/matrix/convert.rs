//! Pure: Matrix events ⇄ neutral messages.
