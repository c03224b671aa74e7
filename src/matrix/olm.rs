//! Inspecting an Olm session: whether it received a message since it was last stored, and a copy of it that no longer
//! changes while others keep using it.

use matrix_sdk_crypto::Session;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// The part of a stored session that receiving changes and sending does not.
#[derive(Deserialize)]
struct ReceivingState<'a> {
    #[serde(borrow)]
    receiving_chains: &'a RawValue,
}

/// The session in its current state.
///
/// # Errors
/// The session's own device keys are incomplete, which the SDK never leaves them.
pub(super) async fn snapshot(session: &Session) -> Result<Session, String> {
    let keys = session.our_device_keys.clone();
    Session::from_pickle(keys, session.pickle().await).map_err(|error| error.to_string())
}

/// Whether the session has received a message that the stored one, if there is one, has not.
///
/// # Errors
/// The session cannot be serialized as JSON, which does not happen.
pub(super) async fn received_since(
    session: &Session,
    stored: Option<&Session>,
) -> Result<bool, String> {
    let Some(stored) = stored else {
        return Ok(session.inner.lock().await.has_received_message());
    };
    let (now, then) = (written(session).await?, written(stored).await?);
    let (now, then) = (read(&now)?, read(&then)?);
    Ok(now.receiving_chains.get() != then.receiving_chains.get())
}

async fn written(session: &Session) -> Result<Zeroizing<Vec<u8>>, String> {
    let pickle = session.pickle().await.pickle;
    let json = serde_json::to_vec(&pickle).map_err(|error| error.to_string())?;
    Ok(Zeroizing::new(json))
}

fn read(written: &[u8]) -> Result<ReceivingState<'_>, String> {
    serde_json::from_slice(written).map_err(|error| error.to_string())
}
