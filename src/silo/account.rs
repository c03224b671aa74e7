//! The bridge's account in a silo, as every kind of silo needs it: whether the silo accepts it, and the state of its feed.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    FeedState, SiloError,
    feed_health::FeedHealth,
    request_error::{RequestError, Service},
};

/// The state of one account.
pub struct Account {
    /// The silo's name in the configuration.
    pub silo: String,
    /// The state of its feed.
    pub(crate) health: Arc<FeedHealth>,
    service: &'static Service,
    /// Whether the bridge runs: other commands report a sign-out themselves.
    runs: AtomicBool,
    /// Whether the sign-out was logged.
    logged: AtomicBool,
}

impl Account {
    /// An account of which nothing is known yet.
    pub(crate) fn new(silo: String, service: &'static Service) -> Self {
        Self {
            silo,
            health: Arc::default(),
            service,
            runs: AtomicBool::new(false),
            logged: AtomicBool::new(false),
        }
    }

    /// Whether the silo refuses the token.
    pub fn is_signed_out(&self) -> bool {
        self.health.is_signed_out()
    }

    /// The silo accepts the token again: lanes and listeners may use it.
    pub fn note_signed_in(&self) {
        self.health.note_signed_in();
    }

    /// The silo has accepted the account for a while: the next refusal is logged again.
    pub fn note_stable(&self) {
        self.logged.store(false, Ordering::Relaxed);
    }

    /// How often a connection of the feed ended: two equal counts mean that it was live in between, if it was at both.
    pub fn interruptions(&self) -> u64 {
        self.health.interruptions()
    }

    /// Whether messages arrive as they are written.
    pub(crate) fn is_live(&self) -> bool {
        self.health.state() == FeedState::Live
    }

    /// An error if the silo refuses the token: not every lane retries a refused token.
    pub(crate) fn usable(&self) -> Result<(), RequestError> {
        if self.is_signed_out() {
            return Err(RequestError::SignedOut(self.service));
        }
        Ok(())
    }

    /// The result of a request. An error that concerns the whole account is recorded, and logged once.
    pub(crate) fn noted<T>(&self, result: Result<T, RequestError>) -> Result<T, RequestError> {
        if let Err(error @ RequestError::SignedOut(_)) = &result {
            self.health.signed_out();
            self.log(error);
        }
        result
    }

    /// Listens until `listen` ends.
    pub(crate) async fn listening(
        &self,
        listen: impl Future<Output = Result<(), SiloError>> + Send,
    ) -> Result<(), SiloError> {
        self.runs.store(true, Ordering::Relaxed);
        let ended = listen.await;
        self.health.stopped();
        if matches!(ended, Err(SiloError::SignedOut(_))) {
            drop(self.noted::<()>(Err(RequestError::SignedOut(self.service))));
        }
        ended
    }

    /// Logs a sign-out with the remedy from its error. Returns whether it did.
    fn log(&self, error: &RequestError) -> bool {
        let logs = self.runs.load(Ordering::Relaxed) && !self.logged.swap(true, Ordering::Relaxed);
        if logs {
            tracing::error!(silo.name = %self.silo,
                "{error}, then restart the bridge. If the account was only deactivated, activate it: the bridge \
                 checks periodically and continues by itself. Until then this silo's messages wait");
        }
        logs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SERVICE: Service = Service {
        name: "Chat",
        signed_out: "renew the token",
        address_key: "url",
    };

    #[tokio::test]
    async fn a_sign_out_is_logged_once_and_only_by_a_running_bridge() {
        let account = Account::new("chat".to_owned(), &SERVICE);
        let refused = || RequestError::SignedOut(&SERVICE);
        assert!(!account.log(&refused()));
        account.listening(async { Ok(()) }).await.unwrap();
        assert!(account.log(&refused()));
        assert!(!account.log(&refused()));
        account.note_stable();
        assert!(account.log(&refused()));
    }

    #[test]
    fn a_refused_token_is_not_used_again_before_somebody_checked_it() {
        let account = Account::new("chat".to_owned(), &SERVICE);
        assert!(account.noted(Ok(())).is_ok() && account.usable().is_ok());
        let gone: Result<(), _> = Err(RequestError::Gone(&SERVICE));
        assert!(account.noted(gone).is_err() && account.usable().is_ok());
        let refused: Result<(), _> = Err(RequestError::SignedOut(&SERVICE));
        assert!(account.noted(refused).is_err());
        assert!(matches!(account.usable(), Err(RequestError::SignedOut(_))));
        account.note_signed_in();
        assert!(account.usable().is_ok());
    }
}
