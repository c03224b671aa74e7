//! Signals → soft stop → deadline → hard stop. Soft: listeners stop and the current attempts finish. Hard: everything
//! is dropped at once; the store is made for that.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a soft stop may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The two ways to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish the current attempts.
    pub soft: CancellationToken,
    /// Drop everything at once.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Turns signals into stops until the hard stop: the first SIGTERM or SIGINT is a soft stop; a second one, or the
    /// end of the [`DEADLINE`], is a hard stop.
    pub async fn watch(self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = self.soft.cancelled() => {}
        }
        if !self.soft.is_cancelled() {
            info!("Stopping: finishing the current work");
        }
        self.soft.cancel();
        tokio::select! {
            _ = terminate.recv() => warn!("Second signal: stopping at once"),
            _ = interrupt.recv() => warn!("Second signal: stopping at once"),
            () = tokio::time::sleep(DEADLINE) => warn!("Not everything stopped in time: stopping at once"),
            () = self.hard.cancelled() => {}
        }
        self.hard.cancel();
        Ok(())
    }
}
