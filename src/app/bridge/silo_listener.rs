//! Runs the listener of one silo, and runs it again when the silo accepts an account that it had refused.

use footbridge_core::inbox::Inbox;
use footbridge_silo::{Channel, Silo, SiloError};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::account_recovery;

/// Listens until it is stopped. An error is one of the store: the bridge cannot continue without it.
pub(super) async fn listen(
    silo: &dyn Silo,
    channels: Vec<Channel>,
    inbox: &Inbox,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let ended = silo.listen(channels.clone(), inbox.clone(), stop.clone());
        match ended.await {
            Ok(()) => return Ok(()),
            Err(SiloError::Store(error)) => return Err(error.into()),
            // The silo's own code has logged it, once.
            Err(SiloError::SignedOut(_)) => {
                if !account_recovery::wait_not_refused(silo, stop).await {
                    return Ok(());
                }
            }
            Err(error) => {
                // One silo that fails is no reason to stop the others.
                error!(
                    error = format!("{error:#}"),
                    "Silo stopped: it needs the operator; its messages wait"
                );
                return Ok(());
            }
        }
    }
}
