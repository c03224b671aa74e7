//! Query planner statistics of databases that are not ours: the SDK's. It used to run `PRAGMA optimize` when it opened
//! a database that held one device, and `SQLite` then took the table `device` for a table of one row and scanned it for
//! each look-up, however many devices there were later. Without statistics it takes the index.

use std::path::Path;

use crate::{
    Error,
    database::{TxError, into_store_error, open_foreign, run_blocking},
};

/// Removes the query planner statistics (tables `sqlite_stat1` to `sqlite_stat4`) from a `SQLite` database, if it has any.
/// Statistics are unencrypted even in a database whose values are sealed, so no key is needed. To be called while nobody has the
/// database open: an open connection continues to use the statistics that it has read.
///
/// # Errors
/// The database cannot be opened or written.
pub async fn forget_statistics(database: &Path) -> Result<(), Error> {
    let path = database.to_owned();
    run_blocking(move || {
        forget(&path)
            .map_err(|error| into_store_error(&path, "remove the statistics of a database", error))
    })
    .await
}

fn forget(path: &Path) -> Result<(), TxError> {
    open_foreign(path)?.execute_batch(
        "DROP TABLE IF EXISTS sqlite_stat1;
         DROP TABLE IF EXISTS sqlite_stat2;
         DROP TABLE IF EXISTS sqlite_stat3;
         DROP TABLE IF EXISTS sqlite_stat4;",
    )?;
    Ok(())
}
