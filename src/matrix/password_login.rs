//! What a login needs, and login by password.

use footbridge_core::{clock::Clock, secret::Secret};
use footbridge_store::{AccountInfo, Store, StoreKey};
use matrix_sdk::{
    Client,
    authentication::matrix::MatrixSession,
    ruma::{UserId, api::client::session::get_login_types},
};

use super::{MatrixConfig, MatrixError, request_error::RequestError, session::TokenLifetime};

/// What a login needs.
pub struct Login<'a> {
    /// Where the session is saved.
    pub store: Store,
    /// The key of the SDK's stores.
    pub key: &'a StoreKey,
    /// `[matrix]`.
    pub config: MatrixConfig,
    /// The password.
    pub password: Secret,
    /// The recovery key, for an account that has a cross-signing identity already.
    pub recovery_key: Option<Secret>,
    /// The one HTTP client.
    pub http: reqwest::Client,
    /// The time.
    pub clock: Clock,
    /// Called with one short line for each step.
    pub progress: &'a (dyn Fn(&str) + Sync),
}

/// The result of a login.
#[derive(Debug)]
pub struct LoggedIn {
    /// The account that is logged in.
    pub face: AccountInfo,
    /// The recovery key, when this login created the account's cross-signing identity: shown once.
    pub recovery_key: Option<Secret>,
}

/// Who logs in by password.
pub(super) struct Credentials<'a> {
    pub user: &'a UserId,
    pub password: &'a Secret,
    /// The name of a new device.
    pub device_name: &'a str,
    pub clock: Clock,
}

impl<'a> From<&'a Login<'_>> for Credentials<'a> {
    fn from(with: &'a Login<'_>) -> Self {
        Self {
            user: &with.config.user,
            password: &with.password,
            device_name: &with.config.device_name,
            clock: with.clock,
        }
    }
}

/// Logs in by password: on a new device, or on the device with this id.
pub(super) async fn log_in_with_password(
    client: &Client,
    with: &Credentials<'_>,
    device: Option<&str>,
) -> Result<(MatrixSession, TokenLifetime), MatrixError> {
    let login = client
        .matrix_auth()
        .login_username(with.user, with.password.expose())
        .request_refresh_token();
    let login = match device {
        Some(device) => login.device_id(device),
        None => login.initial_device_display_name(with.device_name),
    };
    offers_password(client).await?;
    let answer = login
        .send()
        .await
        .map_err(|error| match RequestError::from(&error) {
            RequestError::Forbidden(_) => {
                MatrixError::Refused("it does not accept this user name and password".into())
            }
            RequestError::SignedOut(reason) | RequestError::Invalid(reason) => {
                MatrixError::Refused(reason)
            }
            error => error.into_matrix_error("log in"),
        })?;
    let life = TokenLifetime::of(answer.expires_in, with.clock.now());
    let session = client.matrix_auth().session();
    Ok((session.ok_or(MatrixError::NoAccount)?, life))
}

/// Checks that the homeserver offers login by password. It is also the first request, so that a server that does not
/// answer or is not a homeserver is reported here.
async fn offers_password(client: &Client) -> Result<(), MatrixError> {
    use get_login_types::v3::LoginType;
    let offered = client
        .matrix_auth()
        .get_login_types()
        .await
        .map_err(|error| {
            let (RequestError::Forbidden(why)
            | RequestError::NotFound(why)
            | RequestError::Invalid(why)
            | RequestError::NotSent(why)
            | RequestError::Unknown(why)) = RequestError::from(&error)
            else {
                return RequestError::from(&error).into_matrix_error("ask how to log in");
            };
            MatrixError::Unavailable(anyhow::anyhow!(
                "{} does not answer as a Matrix homeserver: {why}",
                client.homeserver()
            ))
        })?;
    let flows = offered.flows;
    if flows
        .iter()
        .any(|flow| matches!(flow, LoginType::Password(_)))
    {
        return Ok(());
    }
    let mut instead: Vec<&str> = flows
        .iter()
        .filter_map(|flow| match flow {
            LoginType::Sso(_) => Some("single sign-on"),
            LoginType::ApplicationService(_) => Some("login for application services"),
            _ => None,
        })
        .collect();
    instead.dedup();
    Err(MatrixError::PasswordLoginDisabled(
        match instead.as_slice() {
            [] => "no login type that the bridge supports".to_owned(),
            known => known.join(" and "),
        },
    ))
}
