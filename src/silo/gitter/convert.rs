//! Pure: Gitter messages ⇄ neutral messages.
