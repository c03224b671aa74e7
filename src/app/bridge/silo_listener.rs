//! Hears one silo: as long as it lets us, and again where it had refused our account.

use footbridge_core::inbox::Inbox;
use footbridge_silo::{Channel, Silo, SiloError};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::account_recovery;

/// Listens until told to stop. An error is one of the store: without it nothing goes on.
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
            Err(SiloError::Store(fault)) => return Err(fault.into()),
            // It said so itself, once.
            Err(SiloError::SignedOut(_)) => {
                if !account_recovery::wait_not_refused(silo, stop).await {
                    return Ok(());
                }
            }
            Err(fault) => {
                // One silo out of order is no reason to stop the others.
                error!(
                    error = format!("{fault:#}"),
                    "Silo stopped: it needs the operator; its messages wait"
                );
                return Ok(());
            }
        }
    }
}
