//! Follows a feed over all its connections: a pause that grows with the failures in a row, and the ends that a new connection
//! does not cure.

use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use footbridge_core::{backoff, error_chain};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    SiloError,
    request_error::{RequestError, Service},
};

/// A connection that lasted this long resets the failure count.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// The most failures that count after a connection that the silo accepted.
const MAX_SHORT_FAILURES: u32 = 3;
/// The most failures that count: a pause of a minute at most.
const MAX_FAILURES: u32 = 7;

/// Why a connection ended.
pub enum ConnectionEnd {
    /// The bridge stops.
    Stopped,
    /// The silo refuses the token.
    SignedOut,
    /// An error of the network or of the silo.
    Lost(anyhow::Error),
    /// The silo asks for a new connection, not before this.
    Again(Duration),
    /// A new connection is needed at once: events were lost.
    AtOnce,
    /// The bridge's own store failed.
    Store(footbridge_store::Error),
}

impl From<RequestError> for ConnectionEnd {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::SignedOut(_) => Self::SignedOut,
            RequestError::Unavailable { source, .. } => Self::Lost(source),
            other => Self::Lost(anyhow!(other)),
        }
    }
}

impl From<footbridge_store::Error> for ConnectionEnd {
    fn from(error: footbridge_store::Error) -> Self {
        Self::Store(error)
    }
}

/// A feed that is followed by one connection at a time.
#[async_trait]
pub trait Connect: Send {
    /// Opens a connection and follows it to its end. Returns also whether the silo accepted the connection.
    async fn connection(&mut self, stop: &CancellationToken) -> (ConnectionEnd, bool);
}

/// Opens one connection after the other. Returns only when stopped, signed out, or when the store fails.
pub async fn follow(
    feed: &mut impl Connect,
    silo: &str,
    service: &'static Service,
    stop: &CancellationToken,
) -> Result<(), SiloError> {
    let mut failures = Failures::default();
    loop {
        let began = Instant::now();
        let (end, accepted) = feed.connection(stop).await;
        let asked = match end {
            ConnectionEnd::Stopped => return Ok(()),
            ConnectionEnd::SignedOut => return Err(RequestError::SignedOut(service).into()),
            ConnectionEnd::Store(error) => return Err(SiloError::Store(error)),
            ConnectionEnd::AtOnce => continue,
            ConnectionEnd::Again(asked) => asked,
            ConnectionEnd::Lost(error) => {
                tracing::warn!(silo.name = %silo, error = error_chain::format(error.as_ref()),
                    attempt = failures.count() + 1, "Lost the connection to {}", service.name);
                Duration::ZERO
            }
        };
        failures.note(began.elapsed(), accepted);
        tokio::select! {
            () = tokio::time::sleep(failures.pause().max(asked)) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Repeats a request until it succeeds; `None` when stopped. `what` completes "Failed to read …".
pub async fn until_answered<T, F: Future<Output = Result<T, RequestError>> + Send>(
    what: &str,
    request: impl Fn() -> F + Send,
    stop: &CancellationToken,
) -> Result<Option<T>, SiloError> {
    let mut failures = Failures::default();
    loop {
        let error = tokio::select! {
            answer = request() => match answer {
                Ok(answer) => return Ok(Some(answer)),
                Err(error @ RequestError::SignedOut(_)) => return Err(error.into()),
                Err(error) => error,
            },
            () = stop.cancelled() => return Ok(None),
        };
        failures.note(Duration::ZERO, false);
        tracing::warn!(error = %error, attempt = failures.count(), "Failed to read {what}; retrying");
        tokio::select! {
            () = tokio::time::sleep(error.wait().unwrap_or_else(|| failures.pause())) => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
}

/// How many connections in a row failed.
#[derive(Default)]
pub struct Failures(u32);

impl Failures {
    /// A connection ended that lasted `lasted`, and that the silo accepted or not.
    pub fn note(&mut self, lasted: Duration, accepted: bool) {
        self.0 = if lasted > STABLE_AFTER {
            0
        } else {
            let most = if accepted {
                MAX_SHORT_FAILURES
            } else {
                MAX_FAILURES
            };
            (self.0 + 1).min(most)
        };
    }

    /// How many they are, as far as they count.
    pub fn count(&self) -> u32 {
        self.0
    }

    /// How long to wait before the next connection.
    pub fn pause(&self) -> Duration {
        backoff::after(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_lasted_resets_the_failures_and_one_that_was_accepted_bounds_them() {
        let mut failures = Failures::default();
        for _ in 0..20 {
            failures.note(Duration::from_secs(1), false);
        }
        assert_eq!(failures.0, MAX_FAILURES);
        failures.note(Duration::from_secs(1), true);
        assert_eq!(failures.0, MAX_SHORT_FAILURES);
        failures.note(Duration::from_secs(31), true);
        assert_eq!(failures.0, 0);
    }
}
