//! Records when each message appeared in a channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::broadcast::error::RecvError;
use tokio::task::AbortHandle;

use footbridge_simulators::gitter::{GitterSim, Operation};

/// The times of new messages by message id. Dropping it ends the recording.
pub struct ChannelObserver {
    times: Arc<Mutex<HashMap<String, Instant>>>,
    task: AbortHandle,
}

impl ChannelObserver {
    /// Starts to record, for all channels.
    #[must_use]
    pub fn open(sim: &GitterSim) -> Self {
        let times = Arc::new(Mutex::new(HashMap::new()));
        let into = times.clone();
        let mut changes = sim.subscribe();
        let task = tokio::spawn(async move {
            loop {
                match changes.recv().await {
                    Ok(change) if change.operation == Operation::Create => {
                        let mut times = into.lock().unwrap_or_else(PoisonError::into_inner);
                        times.insert(change.message.id, change.at);
                    }
                    // Missed changes only mean missing times; the messages themselves are read from the channel.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        });
        Self {
            times,
            task: task.abort_handle(),
        }
    }

    /// When this message appeared.
    #[must_use]
    pub fn time_of(&self, message: &str) -> Option<Instant> {
        self.times
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(message)
            .copied()
    }
}

impl Drop for ChannelObserver {
    fn drop(&mut self) {
        self.task.abort();
    }
}
