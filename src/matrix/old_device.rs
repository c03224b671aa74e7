//! What is left to do after a device reset: the old device's keys are removed, and it is logged out.

use footbridge_store::{AccountId, Store};
use matrix_sdk::authentication::matrix::MatrixSession;
use tracing::{info, warn};
use url::Url;

use super::{
    MatrixError, saved_account,
    session::{self, SessionState},
};

/// Finishes what a reset began: removes the old keys. Called before anything is stored in their place.
pub(super) async fn discard_keys(store: &Store, account: AccountId) -> Result<(), MatrixError> {
    if let Some(former) = store.former_device(account).await?
        && former.store_in_place
    {
        saved_account::remove_keys(store, account)?;
        store.mark_former_store_moved(account).await?;
    }
    Ok(())
}

/// Finishes what a reset began: logs the old device out.
pub(super) async fn log_out(
    store: &Store,
    account: AccountId,
    http: &reqwest::Client,
) -> Result<(), MatrixError> {
    let Some(former) = store.former_device(account).await? else {
        return Ok(());
    };
    let session: Option<MatrixSession> = serde_json::from_slice(&former.session.0).ok();
    let server = Url::parse(&former.homeserver).ok();
    if let (Some(session), Some(server)) = (session, server) {
        match session::log_out(&server, session, http).await {
            SessionState::Unknown => {
                warn!(
                    "The old device could not be logged out: the homeserver does not answer. `footbridge login` tries again"
                );
                return Ok(());
            }
            SessionState::Expired => warn!(
                matrix.device = former.device_id,
                "The old device's session has expired, so it cannot log itself out: remove it with another client"
            ),
            SessionState::Accepted | SessionState::Gone => info!("The old device is logged out"),
        }
    }
    Ok(store.forget_former_device(account).await?)
}
