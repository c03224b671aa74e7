//! axum on loopback: health and metrics.
