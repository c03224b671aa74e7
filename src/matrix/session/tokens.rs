//! Saving each new pair of tokens, and refreshing it in time.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use footbridge_core::{clock::Clock, crash_points};
use footbridge_store::{Account, AccountId, Millis, SecretBytes, Store};
use matrix_sdk::{Client, SessionChange, authentication::matrix::MatrixSession};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::broadcast::error::RecvError,
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    super::{MatrixError, request_error::RequestError},
    REFRESH_ATTEMPTS, REFRESH_PAUSE, REFRESH_TIMEOUT,
};

/// The shortest time between two refreshes.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// The wait after all attempts failed, and after a rate limit.
const REFRESH_RETRY: Duration = Duration::from_secs(30);

/// How long the session's access tokens are valid, and when the current one was received. Saved beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenLifetime {
    /// In milliseconds, as the homeserver said at the login or at a refresh; none where it did not.
    #[serde(default)]
    lasts_ms: Option<u64>,
    /// When the pair was received, by the local clock.
    #[serde(default)]
    since: Millis,
}

impl TokenLifetime {
    /// For a pair that was received now.
    pub(crate) fn of(lasts: Option<Duration>, now: Millis) -> Self {
        let lasts_ms = lasts.map(|lasts| u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
        Self {
            lasts_ms,
            since: now,
        }
    }

    fn read(session: &footbridge_store::SecretBytes) -> Self {
        serde_json::from_slice(&session.0).unwrap_or_default()
    }

    /// When to refresh the pair: after three quarters of its lifetime.
    fn due(self) -> Option<Millis> {
        let after = self.lasts_ms? / 4 * 3;
        Some(self.since.plus(Duration::from_millis(after)))
    }
}

/// Saves each new pair of tokens of a client, and refreshes the session in time.
#[derive(Debug)]
pub(crate) struct SessionKeeper {
    client: Client,
    store: Store,
    account: AccountId,
    clock: Clock,
    life: Arc<Mutex<TokenLifetime>>,
    /// Whether the newest pair could not be saved.
    unsaved: Arc<AtomicBool>,
}

impl SessionKeeper {
    /// For a client with this session. Called once per client.
    pub(crate) fn of(
        client: &Client,
        store: &Store,
        account: &Account,
        clock: Clock,
    ) -> Result<Self, MatrixError> {
        let unsaved = Arc::new(AtomicBool::new(false));
        let life = Arc::new(Mutex::new(TokenLifetime::read(&account.session)));
        let account = account.id;
        let (writer, failed, lives) = (store.clone(), unsaved.clone(), life.clone());
        let kept = client.set_session_callbacks(
            Box::new(|client| {
                client
                    .session_tokens()
                    .ok_or_else(|| "there is no session".into())
            }),
            Box::new(move |client| {
                crash_points::point("session.refreshed");
                // If this fails, `keep` saves the pair later.
                failed.store(true, Ordering::SeqCst);
                let life = {
                    let mut life = lives.lock().unwrap_or_else(PoisonError::into_inner);
                    life.since = clock.now();
                    *life
                };
                writer.save_session_now(account, &present(&client, life)?)?;
                failed.store(false, Ordering::SeqCst);
                info!("The session was renewed");
                crash_points::point("session.saved");
                Ok(())
            }),
        );
        kept.map_err(|error| {
            MatrixError::CryptoStore(format!("the session changes cannot be watched: {error}"))
        })?;
        Ok(Self {
            client: client.clone(),
            store: store.clone(),
            account,
            clock,
            life,
            unsaved,
        })
    }

    /// Refreshes the session before it expires, and at once where the refresh of a request failed because a response
    /// was lost. Returns when it cannot be refreshed any more.
    pub(crate) async fn maintain(&self) -> MatrixError {
        let mut changes = self.client.subscribe_to_session_changes();
        loop {
            let due = async {
                match self.due_in() {
                    Some(wait) => sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let needed = tokio::select! {
                () = due => true,
                change = changes.recv() => match change {
                    Ok(SessionChange::UnknownToken(_)) | Err(RecvError::Lagged(_)) => true,
                    Ok(SessionChange::TokensRefreshed) => false,
                    // The client was dropped.
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            };
            // Without a refresh token the request that failed reports the error.
            let tokens = self.client.session_tokens();
            let renewable = tokens.is_some_and(|tokens| tokens.refresh_token.is_some());
            if !needed || !renewable {
                continue;
            }
            match self.renew().await {
                // However short a lifetime the homeserver names.
                Ok(()) => sleep(MIN_REFRESH_INTERVAL).await,
                Err(error @ RequestError::SignedOut(_)) => {
                    return error.into_matrix_error("renew the session");
                }
                Err(error) => {
                    let error = format!("{:#}", error.into_matrix_error("renew the session"));
                    warn!(error, "Failed to renew the session; trying again");
                    sleep(REFRESH_RETRY).await;
                }
            }
            // A report about the old tokens that came meanwhile no longer matters.
            changes = changes.resubscribe();
        }
    }

    /// Refreshes the session. If the response is lost, it is unknown whether the old tokens are used up, so the request
    /// is repeated at once.
    async fn renew(&self) -> Result<(), RequestError> {
        let mut error = RequestError::NotSent("the homeserver does not answer".to_owned());
        let auth = self.client.matrix_auth();
        for _ in 0..REFRESH_ATTEMPTS {
            error = match timeout(REFRESH_TIMEOUT, auth.refresh_access_token()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => RequestError::from_refresh(&error),
                Err(_) => RequestError::NotSent("the homeserver does not answer".to_owned()),
            };
            if !matches!(error, RequestError::NotSent(_)) {
                break;
            }
            sleep(REFRESH_PAUSE).await;
        }
        Err(error)
    }

    /// How long until the session is to be refreshed.
    fn due_in(&self) -> Option<Duration> {
        let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        Some(life.due()?.since(self.clock.now()))
    }

    /// Saves a pair that could not be saved when it was received. Waits for a store that is locked or full.
    pub(crate) async fn keep(&self) -> Result<(), MatrixError> {
        if !self.unsaved.load(Ordering::SeqCst) {
            return Ok(());
        }
        error!("A renewed session could not be saved; trying again");
        let life = *self.life.lock().unwrap_or_else(PoisonError::into_inner);
        self.store
            .save_session(self.account, &present(&self.client, life)?)
            .await?;
        self.unsaved.store(false, Ordering::SeqCst);
        Ok(())
    }
}

fn present(client: &Client, life: TokenLifetime) -> Result<SecretBytes, MatrixError> {
    let session = client.matrix_auth().session();
    sealed(&session.ok_or(MatrixError::NoAccount)?, life)
}

/// A session as the store keeps it, with its token lifetime.
pub(in super::super) fn sealed(
    session: &MatrixSession,
    life: TokenLifetime,
) -> Result<SecretBytes, MatrixError> {
    #[derive(Serialize)]
    struct Kept<'a> {
        #[serde(flatten)]
        session: &'a MatrixSession,
        #[serde(flatten)]
        life: TokenLifetime,
    }
    let session = serde_json::to_vec(&Kept { session, life })
        .context("the session could not be serialized")
        .map_err(MatrixError::Unavailable)?;
    Ok(SecretBytes(session))
}
