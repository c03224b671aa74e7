//! How a task starts, and what its end means for the bridge.

use std::future::Future;

use anyhow::Context;
use tokio::task::JoinSet;

/// Running tasks, with the result of each.
pub(super) type Tasks = JoinSet<anyhow::Result<()>>;

/// Starts a task; no task starts in another way.
pub(super) fn start(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { task.await.context(name) });
}

/// What the end of a task means for the bridge: a panic or an error stops it.
pub(super) fn task_result(
    ended: Result<anyhow::Result<()>, tokio::task::JoinError>,
) -> anyhow::Result<()> {
    match ended {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(error).context("a task panicked"),
    }
}
