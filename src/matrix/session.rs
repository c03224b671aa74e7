//! The session (D21, F29): its tokens are refreshed where the homeserver gives a refresh token. A session that is no
//! longer accepted has either expired by a soft logout, and the device still exists with its keys; or the device was
//! logged out, and its keys are useless.
//!
//! By the specification a refresh invalidates the old pair of tokens only when the new one is first used, so after a
//! kill before the new pair is saved the old one is still valid. The SDK continues the request that found the session
//! expired only after the new pair is saved. A request of another task may be earlier, by the time that the save takes;
//! after a kill within these milliseconds the password is needed once more.
//!
//! Some homeservers remove the device when a used refresh token is sent again after a few seconds (Tuwunel: 15). So a
//! session is refreshed before it expires, when no request waits for it, if the login response named its lifetime; a
//! refresh without a response is repeated at once, within those seconds; and a start refreshes an expired session
//! first.

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
    password_login::{Login, log_in_with_password},
    saved_account,
};

pub(super) use tokens::{SessionKeeper, TokenLifetime, sealed};

/// How long the homeserver may take to refresh a session, and how often the request is repeated at once: all of it
/// within the seconds in which homeservers accept a used refresh token.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(4);
const REFRESH_ATTEMPTS: usize = 3;
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// The longest response about a session, in bytes.
const MAX_RESPONSE: usize = 64 << 10;
/// How long the homeserver may take to respond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the saved session, by the homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// It is accepted.
    Accepted,
    /// It has expired by a soft logout. A login on the same device continues with it.
    Expired,
    /// The device was logged out.
    Gone,
    /// The homeserver did not answer.
    Unknown,
}

/// The error response to a request whose token is not accepted.
#[derive(Deserialize)]
struct ErrorBody {
    errcode: String,
    #[serde(default)]
    soft_logout: bool,
}

/// The response to a refresh.
#[derive(Deserialize)]
struct RefreshResponse {
    access_token: String,
    refresh_token: Option<String>,
    expires_in_ms: Option<u64>,
}

/// Asks the homeserver about the saved session, and refreshes an expired one if that needs no password. Opens none of
/// the SDK's databases.
#[must_use]
pub fn ask<'a>(
    store: &'a Store,
    config: &'a MatrixConfig,
    http: &'a reqwest::Client,
) -> Boxed<'a, Result<SessionState, MatrixError>> {
    Box::pin(async move {
        let account = store.relay_account().await?.ok_or(MatrixError::NoAccount)?;
        let Homeserver::Url(server) = saved_account::homeserver(&account.info, config)? else {
            return Ok(SessionState::Unknown);
        };
        let session = read(&account)?;
        match whoami(&server, &session.tokens.access_token, http).await {
            SessionState::Expired => renew(store, &account, &server, http).await,
            state => Ok(state),
        }
    })
}

pub(super) fn read(account: &Account) -> Result<MatrixSession, MatrixError> {
    serde_json::from_slice(&account.session.0)
        .map_err(|_| MatrixError::CryptoStore("the saved session could not be read".into()))
}

pub(super) async fn whoami(server: &Url, token: &str, http: &reqwest::Client) -> SessionState {
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
    // A response that is not from a homeserver says nothing about the session.
    match bounded::json::<ErrorBody>(answer, MAX_RESPONSE).await {
        Ok(body) if status == 401 && body.errcode == "M_UNKNOWN_TOKEN" => {
            if body.soft_logout {
                SessionState::Expired
            } else {
                SessionState::Gone
            }
        }
        _ => SessionState::Unknown,
    }
}

/// Logs a device out by its session. [`SessionState::Accepted`]: it was logged out now; [`SessionState::Gone`]: it had
/// been before. An expired session is refreshed for it if possible.
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

/// A new pair of tokens for a refresh token, or the state of the session. A request whose response is lost is repeated
/// at once.
async fn refresh_tokens(
    server: &Url,
    token: &str,
    http: &reqwest::Client,
) -> Result<RefreshResponse, SessionState> {
    let mut response = request_refresh(server, token, http).await;
    for _ in 1..REFRESH_ATTEMPTS {
        if !matches!(response, Err(SessionState::Unknown)) {
            break;
        }
        sleep(REFRESH_PAUSE).await;
        response = request_refresh(server, token, http).await;
    }
    response
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
            Ok(body) if body.errcode != "M_LIMIT_EXCEEDED" => SessionState::Expired,
            _ => SessionState::Unknown,
        },
    )
}

/// No other process uses the session meanwhile: the caller holds the store's lock.
pub(super) async fn renew(
    store: &Store,
    account: &Account,
    server: &Url,
    http: &reqwest::Client,
) -> Result<SessionState, MatrixError> {
    let mut session = read(account)?;
    let Some(token) = &session.tokens.refresh_token else {
        return Ok(SessionState::Expired);
    };
    let renewed = match refresh_tokens(server, token, http).await {
        Ok(renewed) => renewed,
        // The homeserver may have removed the device because of the refresh token.
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
        .save_session(account.id, &sealed(&session, life)?)
        .await?;
    info!("The session was renewed");
    Ok(SessionState::Accepted)
}

/// Logs in again on the saved device, whose keys stay as they are, and saves the new session.
pub(super) async fn log_in_again(
    client: &Client,
    with: &Login<'_>,
    account: &Account,
) -> Result<(), MatrixError> {
    (with.progress)("The session has expired: logging in again, on the same device");
    let (session, life) =
        log_in_with_password(client, &with.into(), Some(&account.info.device_id)).await?;
    if session.meta.device_id.as_str() != account.info.device_id {
        return Err(MatrixError::CryptoStore(
            "the homeserver created another device than the requested one".into(),
        ));
    }
    with.store
        .save_session(account.id, &sealed(&session, life)?)
        .await?;
    info!("Logged in again");
    Ok(())
}
