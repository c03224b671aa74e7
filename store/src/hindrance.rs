//! What keeps the store from working for now and passes by itself: a full disk (D14), or somebody else who holds
//! the file (D15). The work is tried again until it succeeds: whoever waits for it waits with it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::ErrorCode;

use crate::{
    Error, Store,
    database::{Database, off_thread},
};

/// The first wait after the disk was found full; each is twice the one before.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);
/// With less space than this, an error of the file system is one of space.
const NEXT_TO_NOTHING: u64 = 1 << 20;

/// Why the store does not work for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// The disk is full.
    Full,
    /// Another process holds the file.
    Busy,
}

impl Hindrance {
    /// One word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Busy => "busy",
        }
    }
}

/// Who is hindered at the moment: how many pieces of work, and the last one by what.
#[derive(Debug, Default)]
pub(crate) struct State(Mutex<(usize, Option<Hindrance>)>);

impl State {
    fn lock(&self) -> MutexGuard<'_, (usize, Option<Hindrance>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of work that is hindered, until it is done or given up.
struct Hindered<'a>(&'a State);

impl<'a> Hindered<'a> {
    fn begin(state: &'a State) -> Self {
        state.lock().0 += 1;
        Self(state)
    }
}

impl Drop for Hindered<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.0 = state.0.saturating_sub(1);
        if state.0 == 0 {
            state.1 = None;
            tracing::info!("The store works again, or nobody waits for it any more");
        }
    }
}

impl Error {
    /// Whether this passes by itself, and what it is.
    #[must_use]
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self {
            Self::Sqlite { source, .. } => match source.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(Hindrance::Full),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Hindrance::Busy),
                _ => None,
            },
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    Some(Hindrance::Full)
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// The same where the file is known: without space other errors are errors of space, too.
    fn hindrance_at(&self, directory: &Path) -> Option<Hindrance> {
        let told = self.hindrance();
        let failed = matches!(self, Self::Sqlite { source, .. }
            if source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure));
        let nothing_left = || free_space(directory).is_ok_and(|free| free < NEXT_TO_NOTHING);
        told.or_else(|| (failed && nothing_left()).then_some(Hindrance::Full))
    }
}

impl Store {
    /// What hinders the store at the moment, if anything does.
    #[must_use]
    pub fn hindrance(&self) -> Option<Hindrance> {
        self.database.state.lock().1
    }

    /// Does a piece of work, again and again while something hinders it that passes by itself. It has changed
    /// nothing as long as it has not succeeded.
    pub(crate) async fn persist<T: Send + 'static>(
        &self,
        work: impl Fn(&Database) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<T, Error> {
        let work = Arc::new(work);
        let database = self.database.clone();
        let (mut wait, mut hindered) = (FIRST, None);
        loop {
            let (there, work) = (self.database.clone(), work.clone());
            let error = match off_thread(move || work(&there)).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(hindrance) = error.hindrance_at(&self.database.directory) else {
                return Err(error);
            };
            if hindered.is_none() {
                tracing::error!(%error, "The store does not work for now; it is tried again until it does");
                hindered = Some(Hindered::begin(&database.state));
            }
            database.state.lock().1 = Some(hindrance);
            // Somebody busy has been waited for already.
            if hindrance == Hindrance::Full {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
        }
    }
}

/// How many bytes may still be written to the file system of this path.
pub fn free_space(path: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
