//! Query planner statistics of databases that are not ours: the SDK's. It used to run `PRAGMA optimize` when it opened
//! a database that held one device, and `SQLite` then took the table `device` for a table of one row and scanned it for
//! each look-up, however many devices there were later. Without statistics it takes the index.

use std::path::Path;

use crate::{
    Error,
    database::{Fault, explain, off_thread, open_foreign},
};

/// Removes the query planner statistics (tables `sqlite_stat1` to `sqlite_stat4`) from a `SQLite` database, if it
/// has any. Statistics are in the clear in a database whose values are sealed, so no key is needed. To be called while
/// nobody has the database open: an open connection goes on with the statistics that it has read.
///
/// # Errors
/// The database cannot be opened or written.
pub async fn forget_statistics(database: &Path) -> Result<(), Error> {
    let path = database.to_owned();
    off_thread(move || {
        forget(&path).map_err(|fault| explain(&path, "remove the statistics of a database", fault))
    })
    .await
}

fn forget(path: &Path) -> Result<(), Fault> {
    open_foreign(path)?.execute_batch(
        "DROP TABLE IF EXISTS sqlite_stat1;
         DROP TABLE IF EXISTS sqlite_stat2;
         DROP TABLE IF EXISTS sqlite_stat3;
         DROP TABLE IF EXISTS sqlite_stat4;",
    )?;
    Ok(())
}
