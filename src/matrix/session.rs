//! A session that the homeserver no longer accepts (D21): it has expired, and the device lives on with its keys; or
//! the device was logged out, and its keys are of no use any more. Sessions of a login by password have no refresh
//! token, so that an expired one needs the password once more.

use footbridge_store::Account;
use matrix_sdk::{Client, authentication::matrix::MatrixSession};
use serde::Deserialize;
use tracing::info;

use super::{
    Boxed, Homeserver, MatrixConfig, MatrixError,
    account::{self, Login},
};

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
struct Refusal {
    errcode: String,
    #[serde(default)]
    soft_logout: bool,
}

/// Asks the homeserver about the session that is kept. Opens none of the SDK's stores.
#[must_use]
pub fn ask<'a>(
    account: &'a Account,
    config: &'a MatrixConfig,
    http: &'a reqwest::Client,
) -> Boxed<'a, Result<SessionState, MatrixError>> {
    Box::pin(async move {
        let Homeserver::Url(server) = account::homeserver(&account.face, config)? else {
            return Ok(SessionState::Unknown);
        };
        let session: MatrixSession = serde_json::from_slice(&account.session.0)
            .map_err(|_| MatrixError::Keys("the kept session cannot be read".into()))?;
        let Ok(address) = server.join("/_matrix/client/v3/account/whoami") else {
            return Ok(SessionState::Unknown);
        };
        let request = http
            .get(address)
            .bearer_auth(&session.tokens.access_token)
            .timeout(std::time::Duration::from_secs(30));
        let Ok(answer) = request.send().await else {
            return Ok(SessionState::Unknown);
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(SessionState::Accepted);
        }
        // What is no answer of a homeserver says nothing of a session.
        Ok(match answer.json::<Refusal>().await {
            Ok(refusal) if status == 401 && refusal.errcode == "M_UNKNOWN_TOKEN" => {
                if refusal.soft_logout {
                    SessionState::Expired
                } else {
                    SessionState::Gone
                }
            }
            _ => SessionState::Unknown,
        })
    })
}

/// Logs in once more on the device that is kept, whose keys stay as they are, and keeps the new session.
pub(super) async fn sign_in_again(
    client: &Client,
    with: &Login<'_>,
    account: &Account,
) -> Result<(), MatrixError> {
    (with.progress)("The session has expired: logging in again, on the same device");
    let session = account::password_session(client, with, Some(&account.face.device_id)).await?;
    if session.meta.device_id.as_str() != account.face.device_id {
        return Err(MatrixError::Keys(
            "the homeserver made another device than the one it was asked for".into(),
        ));
    }
    with.store.save_session(&account::sealed(&session)?).await?;
    info!("Logged in again");
    Ok(())
}
