//! Signals → soft stop → deadline → hard stop. Soft: stop listening, finish the attempt in hand. Hard: drop
//! everything now; the store is made for it.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a soft stop may take.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The two ways to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Finish what is in hand.
    pub soft: CancellationToken,
    /// Drop it.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Turns signals into stops until the hard stop: the first SIGTERM or SIGINT is soft, a second is hard,
    /// and so is the end of the [`DEADLINE`].
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
            info!("Stopping: finishing what is in hand");
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
