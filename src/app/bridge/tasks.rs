//! How a task starts, and what its end means for the house.

use std::future::Future;

use anyhow::Context;
use tokio::task::JoinSet;

/// Tasks, and what each ended with.
pub(super) type Tasks = JoinSet<anyhow::Result<()>>;

/// The one way a task starts.
pub(super) fn start(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { task.await.context(name) });
}

/// What the end of a task means for the house: a panic or an error is the end of it.
pub(super) fn task_result(
    ended: Result<anyhow::Result<()>, tokio::task::JoinError>,
) -> anyhow::Result<()> {
    match ended {
        Ok(result) => result,
        Err(fault) if fault.is_cancelled() => Ok(()),
        Err(fault) => Err(fault).context("a task panicked"),
    }
}
