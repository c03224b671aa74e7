//! The session (D21, F29): renewed with its refresh token where the homeserver gives one; and what becomes of one that
//! is no longer accepted: it has expired, and the device lives on with its keys; or the device was logged out, and its
//! keys are of no use any more.
//!
//! By the specification a refresh takes the old pair of tokens away only when the new one is first used, so a kill before
//! the new pair is kept goes on with the old one. The SDK lets the request that found the session expired go on only
//! after the new pair is kept. A request of another task may be quicker by the time that the write takes; a kill in just
//! these milliseconds needs the password once more.
//!
//! Some homeservers remove the device when a spent refresh token comes once more after a few seconds (Tuwunel: 15). So a
//! session is renewed before it expires, when nothing waits for it, where the login told how long it lasts; a renewal
//! whose answer does not come is asked for again at once, within those seconds; and a start renews what is due first.

mod tokens;

use std::time::Duration;

use footbridge_core::{bounded, clock::Clock};
use footbridge_store::{Account, Store};
use matrix_sdk::{Client, authentication::matrix::MatrixSession};
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use tracing::info;
use url::Url;

use super::{
    Boxed, Homeserver, MatrixConfig, MatrixError,
    account::{self, Login},
};

pub(super) use tokens::{SessionKeeper, TokenLifetime};

/// How long a homeserver may take to renew a session, and how often it is asked at once: all of it within the seconds for
/// which homeservers take a spent refresh token.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(4);
const REFRESH_ATTEMPTS: usize = 3;
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// The longest answer about a session.
const MAX_RESPONSE: usize = 64 << 10;
/// How long the homeserver may take for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the homeserver says of the session that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It is accepted.
    Accepted,
    /// It has expired; the device has not. A login on the same device goes on with it.
    Expired,
    /// The device was logged out.
    Gone,
    /// Nobody could be asked.
    Unknown,
}

/// The answer to a request with a token that is not accepted.
#[derive(Deserialize)]
struct ErrorBody {
    errcode: String,
    #[serde(default)]
    soft_logout: bool,
}

/// The answer to a refresh token.
#[derive(Deserialize)]
struct RefreshResponse {
    access_token: String,
    refresh_token: Option<String>,
    expires_in_ms: Option<u64>,
}

/// Asks the homeserver about the session that is kept, and renews one that has expired if that needs no password.
/// Opens none of the SDK's stores.
#[must_use]
pub fn ask<'a>(
    store: &'a Store,
    config: &'a MatrixConfig,
    http: &'a reqwest::Client,
) -> Boxed<'a, Result<SessionState, MatrixError>> {
    Box::pin(async move {
        let account = store.account().await?.ok_or(MatrixError::NoAccount)?;
        let Homeserver::Url(server) = account::homeserver(&account.info, config)? else {
            return Ok(SessionState::Unknown);
        };
        let session = read(&account)?;
        match whoami(&server, &session.tokens.access_token, http).await {
            SessionState::Expired => renew(store, &server, session, http).await,
            state => Ok(state),
        }
    })
}

pub(super) fn read(account: &Account) -> Result<MatrixSession, MatrixError> {
    serde_json::from_slice(&account.session.0)
        .map_err(|_| MatrixError::CryptoStore("the kept session cannot be read".into()))
}

async fn whoami(server: &Url, token: &str, http: &reqwest::Client) -> SessionState {
    let Ok(address) = server.join("/_matrix/client/v3/account/whoami") else {
        return SessionState::Unknown;
    };
    let request = http
        .get(address)
        .bearer_auth(token)
        .timeout(REQUEST_TIMEOUT);
    let Ok(answer) = request.send().await else {
        return SessionState::Unknown;
    };
    let status = answer.status();
    if status.is_success() {
        return SessionState::Accepted;
    }
    // What is no answer of a homeserver says nothing of a session.
    match bounded::json::<ErrorBody>(answer, MAX_RESPONSE).await {
        Ok(refusal) if status == 401 && refusal.errcode == "M_UNKNOWN_TOKEN" => {
            if refusal.soft_logout {
                SessionState::Expired
            } else {
                SessionState::Gone
            }
        }
        _ => SessionState::Unknown,
    }
}

/// Logs a device out by its session: [`SessionState::Accepted`] when it was, [`SessionState::Gone`] when it had been
/// before. One that has expired is renewed for it where that can be done.
pub(super) async fn log_out(
    server: &Url,
    session: MatrixSession,
    http: &reqwest::Client,
) -> SessionState {
    let mut token = session.tokens.access_token;
    if whoami(server, &token, http).await == SessionState::Expired {
        let Some(refresh) = session.tokens.refresh_token else {
            return SessionState::Expired;
        };
        match refresh_tokens(server, &refresh, http).await {
            Ok(renewed) => token = renewed.access_token,
            Err(state) => return state,
        }
    }
    let Ok(address) = server.join("/_matrix/client/v3/logout") else {
        return SessionState::Unknown;
    };
    let request = http
        .post(address)
        .bearer_auth(&token)
        .timeout(REQUEST_TIMEOUT);
    match request.send().await {
        Ok(answer) if answer.status().is_success() => SessionState::Accepted,
        Ok(answer) if answer.status() == 401 => SessionState::Gone,
        _ => SessionState::Unknown,
    }
}

/// A new pair for a refresh token; without one, what that says of the session. Where the answer is lost it is asked for
/// again at once.
async fn refresh_tokens(
    server: &Url,
    token: &str,
    http: &reqwest::Client,
) -> Result<RefreshResponse, SessionState> {
    let mut asked = request_refresh(server, token, http).await;
    for _ in 1..REFRESH_ATTEMPTS {
        if !matches!(asked, Err(SessionState::Unknown)) {
            break;
        }
        sleep(REFRESH_PAUSE).await;
        asked = request_refresh(server, token, http).await;
    }
    asked
}

async fn request_refresh(
    server: &Url,
    token: &str,
    http: &reqwest::Client,
) -> Result<RefreshResponse, SessionState> {
    let Ok(address) = server.join("/_matrix/client/v3/refresh") else {
        return Err(SessionState::Unknown);
    };
    let request = http
        .post(address)
        .json(&json!({ "refresh_token": token }))
        .timeout(REFRESH_TIMEOUT);
    let Ok(answer) = request.send().await else {
        return Err(SessionState::Unknown);
    };
    if answer.status().is_success() {
        return bounded::json(answer, MAX_RESPONSE)
            .await
            .map_err(|_| SessionState::Unknown);
    }
    Err(
        match bounded::json::<ErrorBody>(answer, MAX_RESPONSE).await {
            Ok(refusal) if refusal.errcode != "M_LIMIT_EXCEEDED" => SessionState::Expired,
            _ => SessionState::Unknown,
        },
    )
}

/// Nobody else uses the session meanwhile: whoever asks holds the store.
async fn renew(
    store: &Store,
    server: &Url,
    mut session: MatrixSession,
    http: &reqwest::Client,
) -> Result<SessionState, MatrixError> {
    let Some(token) = &session.tokens.refresh_token else {
        return Ok(SessionState::Expired);
    };
    let renewed = match refresh_tokens(server, token, http).await {
        Ok(renewed) => renewed,
        // The homeserver may have removed the device for it.
        Err(SessionState::Expired) => {
            let state = whoami(server, &session.tokens.access_token, http).await;
            return Ok(if state == SessionState::Gone {
                state
            } else {
                SessionState::Expired
            });
        }
        Err(state) => return Ok(state),
    };
    let lasts = renewed.expires_in_ms.map(Duration::from_millis);
    session.tokens.access_token = renewed.access_token;
    if renewed.refresh_token.is_some() {
        session.tokens.refresh_token = renewed.refresh_token;
    }
    let life = TokenLifetime::of(lasts, Clock::start().now());
    store
        .save_session(&account::sealed(&session, life)?)
        .await?;
    info!("The session was renewed");
    Ok(SessionState::Accepted)
}

/// Logs in once more on the device that is kept, whose keys stay as they are, and keeps the new session.
pub(super) async fn log_in_again(
    client: &Client,
    with: &Login<'_>,
    account: &Account,
) -> Result<(), MatrixError> {
    (with.progress)("The session has expired: logging in again, on the same device");
    let (session, life) =
        account::log_in_with_password(client, with, Some(&account.info.device_id)).await?;
    if session.meta.device_id.as_str() != account.info.device_id {
        return Err(MatrixError::CryptoStore(
            "the homeserver made another device than the one it was asked for".into(),
        ));
    }
    with.store
        .save_session(&account::sealed(&session, life)?)
        .await?;
    info!("Logged in again");
    Ok(())
}
