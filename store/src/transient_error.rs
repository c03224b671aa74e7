//! Errors that keep the store from working for now and pass by themselves: a full disk (D14), or another process that locks the
//! file (D15). The work is retried until it succeeds, and the caller waits for that.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::ErrorCode;

use crate::{
    Error, Store,
    database::{Database, run_blocking},
};

/// The first wait after the disk was found full; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// With less space than this, an I/O error is taken for a full disk.
const ALMOST_FULL: u64 = 1 << 20;

/// Why the store does not work for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransientError {
    /// The disk is full.
    DiskFull,
    /// Another process locks the file.
    Busy,
}

impl TransientError {
    /// One word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DiskFull => "full",
            Self::Busy => "busy",
        }
    }
}

/// How many pieces of work are being retried at the moment, and the last error of one.
#[derive(Debug, Default)]
pub(crate) struct State(Mutex<(usize, Option<TransientError>)>);

impl State {
    fn lock(&self) -> MutexGuard<'_, (usize, Option<TransientError>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of work that is being retried, until it succeeds or fails.
struct RetryGuard<'a>(&'a State);

impl<'a> RetryGuard<'a> {
    fn begin(state: &'a State) -> Self {
        state.lock().0 += 1;
        Self(state)
    }
}

impl Drop for RetryGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0 = state.0.saturating_sub(1);
        if state.0 == 0 {
            state.1 = None;
            tracing::info!("The store works again");
        }
    }
}

impl Error {
    /// Whether this error is transient, and what it is.
    #[must_use]
    pub fn transient_error(&self) -> Option<TransientError> {
        match self {
            Self::Sqlite { source, .. } => match source.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(TransientError::DiskFull),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(TransientError::Busy),
                _ => None,
            },
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Some(TransientError::DiskFull)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The same where the file is known: without space other I/O errors mean a full disk, too.
    fn transient_error_at(&self, directory: &Path) -> Option<TransientError> {
        let told = self.transient_error();
        let failed = matches!(self, Self::Sqlite { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure));
        let nothing_left = || free_space(directory).is_ok_and(|free| free < ALMOST_FULL);
        told.or_else(|| (failed && nothing_left()).then_some(TransientError::DiskFull))
    }
}

impl Store {
    /// Why the store does not work at the moment, if it does not.
    #[must_use]
    pub fn transient_error(&self) -> Option<TransientError> {
        self.database.state.lock().1
    }

    /// Does a piece of work, and retries it after errors that pass by themselves. It has changed nothing as long as it has not
    /// succeeded.
    pub(crate) async fn retry_transient<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let work = Arc::new(work);
        let database = self.database.clone();
        let (mut wait, mut guard) = (FIRST_WAIT, None);
        loop {
            let (there, work) = (self.database.clone(), work.clone());
            let error = match run_blocking(move || work(&there)).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(transient_error) = error.transient_error_at(&self.database.directory) else {
                return Err(error);
            };
            if guard.is_none() {
                tracing::error!(%error, "The store cannot write; retrying until it can");
                guard = Some(RetryGuard::begin(&database.state));
            }
            database.state.lock().1 = Some(transient_error);
            // The busy timeout was the wait already.
            if transient_error == TransientError::DiskFull {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// How many bytes may still be written to the file system of this path.
pub fn free_space(path: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
