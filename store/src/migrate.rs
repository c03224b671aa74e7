//! Brings a database to the present schema, one numbered step at a time, each in its own transaction.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::{
    Error,
    database::{TxError, into_store_error},
    seal::{Cell, Seal},
};

/// The steps. The schema's number is how many of them were taken. A step that was released never changes.
const STEPS: [&str; 1] = [include_str!("../migrations/001_schema.sql")];

/// Marks the file as ours: `FtBr`.
const APPLICATION: i64 = 0x4674_4272;

/// Sealed with the store's key, to recognise the right one.
const CHECK: Cell = Cell {
    table: "meta",
    column: "value",
    row: 1,
};
const CHECK_NAME: &str = "key_check";
const CHECK_PLAINTEXT: &[u8] = b"footbridge";

/// What a file is, as found before anything in it is changed.
pub(crate) enum FileState {
    /// Nothing is written in it yet.
    Empty,
    /// A store of this program with this schema.
    Store(usize),
}

/// Inspects a file without changing it: whether it is a store, undamaged, and of no newer program.
pub(crate) fn inspect(connection: &Connection, path: &Path) -> Result<FileState, Error> {
    let (version, application, tables) = marks(connection)
        .map_err(|source| into_store_error(path, "read its schema", source.into()))?;
    let damaged = || Error::CorruptFile {
        path: path.to_owned(),
    };
    if version == 0 && application == 0 && tables == 0 {
        return Ok(FileState::Empty);
    }
    if application != APPLICATION {
        return Err(damaged());
    }
    match usize::try_from(version) {
        Ok(known) if (1..=STEPS.len()).contains(&known) => Ok(FileState::Store(known)),
        Ok(0) | Err(_) => Err(damaged()),
        Ok(_) => Err(Error::SchemaTooNew {
            found: version,
            known: i64::try_from(STEPS.len()).unwrap_or(i64::MAX),
        }),
    }
}

fn marks(connection: &Connection) -> rusqlite::Result<(i64, i64, i64)> {
    connection.query_row(
        "SELECT (SELECT user_version FROM pragma_user_version),
                (SELECT application_id FROM pragma_application_id),
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )
}

/// Finds torn or overwritten pages before the file is used.
pub(crate) fn check_pages(connection: &Connection, path: &Path) -> Result<(), Error> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| into_store_error(path, "check its pages", source.into()))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(Error::CorruptFile {
        path: path.to_owned(),
    })
}

/// Proves that the key is the one this store was sealed with.
pub(crate) fn verify_key(connection: &Connection, seal: &Seal, path: &Path) -> Result<(), Error> {
    let sealed: Option<Vec<u8>> = connection
        .query_row(
            "SELECT value FROM meta WHERE name = ?1",
            [CHECK_NAME],
            |row| row.get(0),
        )
        .optional()
        .map_err(|source| into_store_error(path, "read its key check", source.into()))?;
    let sealed = sealed.ok_or_else(|| Error::CorruptFile {
        path: path.to_owned(),
    })?;
    match seal.open(CHECK, &sealed) {
        Ok(plaintext) if plaintext == CHECK_PLAINTEXT => Ok(()),
        _ => Err(Error::WrongKey),
    }
}

/// Takes the steps that are missing.
pub(crate) fn migrate(
    connection: &mut Connection,
    seal: &Seal,
    from: usize,
) -> Result<(), TxError> {
    take_steps(connection, seal, from, &STEPS)
}

/// Takes the steps from number `from` on, each in its own transaction. A step that fails changes nothing, and neither do the
/// steps after it.
fn take_steps(
    connection: &mut Connection,
    seal: &Seal,
    from: usize,
    steps: &[&str],
) -> Result<(), TxError> {
    for (number, step) in steps.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        if number == 0 {
            transaction.execute(
                "INSERT INTO meta (name, value) VALUES (?1, ?2)",
                params![CHECK_NAME, seal.seal(CHECK, CHECK_PLAINTEXT)?],
            )?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
        }
        transaction.pragma_update(
            None,
            "user_version",
            i64::try_from(number + 1).unwrap_or(i64::MAX),
        )?;
        transaction.commit()?;
        tracing::debug!(schema = number + 1, "Applied a schema migration");
    }
    // A new store had no earlier schema.
    if (1..steps.len()).contains(&from) {
        tracing::info!(
            from,
            to = steps.len(),
            "The store was migrated to a new schema"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreKey;

    const SECOND: &str = "ALTER TABLE cursor ADD COLUMN read_at INTEGER NOT NULL DEFAULT 7;";

    /// A store with the first step taken and one row in it.
    fn store() -> (tempfile::TempDir, Seal, Connection) {
        let home = tempfile::tempdir().unwrap();
        let seal = Seal::new(&StoreKey::read_or_create(&home.path().join("key")).unwrap());
        let mut connection = Connection::open(home.path().join("footbridge.db")).unwrap();
        migrate(&mut connection, &seal, 0).unwrap();
        connection
            .execute("INSERT INTO cursor (name, value) VALUES ('sync', 's1')", [])
            .unwrap();
        (home, seal, connection)
    }

    fn version(connection: &Connection) -> i64 {
        let (version, application, _) = marks(connection).unwrap();
        assert_eq!(application, APPLICATION);
        version
    }

    fn schema(connection: &Connection) -> Vec<String> {
        let mut query = connection
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .unwrap();
        let found = query.query_map([], |row| row.get(0)).unwrap();
        found.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_second_step_changes_an_older_store_and_keeps_its_rows_and_its_key() {
        let (home, seal, mut connection) = store();
        let path = home.path().join("footbridge.db");
        assert_eq!(version(&connection), 1);
        take_steps(&mut connection, &seal, 1, &[STEPS[0], SECOND]).unwrap();
        assert_eq!(version(&connection), 2);
        let row: (String, i64) = connection
            .query_row(
                "SELECT value, read_at FROM cursor WHERE name = 'sync'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(row, ("s1".to_owned(), 7));
        verify_key(&connection, &seal, &path).unwrap();
        // Every step was taken: nothing happens.
        take_steps(&mut connection, &seal, 2, &[STEPS[0], SECOND]).unwrap();
        assert_eq!(version(&connection), 2);
    }

    #[test]
    fn a_new_store_takes_all_steps_in_order() {
        let home = tempfile::tempdir().unwrap();
        let seal = Seal::new(&StoreKey::read_or_create(&home.path().join("key")).unwrap());
        let mut connection = Connection::open_in_memory().unwrap();
        let third = "UPDATE cursor SET read_at = 8;";
        take_steps(&mut connection, &seal, 0, &[STEPS[0], SECOND, third]).unwrap();
        assert_eq!(version(&connection), 3);
    }

    #[test]
    fn a_step_that_fails_is_rolled_back_and_the_steps_before_it_stay() {
        let (_home, seal, mut connection) = store();
        let before = schema(&connection);
        let broken = "ALTER TABLE cursor ADD COLUMN another TEXT; DELETE FROM cursor; INSERT INTO nowhere VALUES (1);";
        let failed = take_steps(&mut connection, &seal, 1, &[STEPS[0], broken, SECOND]);
        assert!(matches!(failed, Err(TxError::Sqlite(_))), "{failed:?}");
        assert_eq!((version(&connection), schema(&connection)), (1, before));
        let rows: i64 = connection
            .query_row("SELECT count(*) FROM cursor", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 1);
        let failed = take_steps(&mut connection, &seal, 1, &[STEPS[0], SECOND, broken]);
        assert!(failed.is_err());
        assert_eq!(version(&connection), 2);
        // Repaired, the step is taken the next time.
        take_steps(
            &mut connection,
            &seal,
            2,
            &[STEPS[0], SECOND, "DELETE FROM cursor;"],
        )
        .unwrap();
        assert_eq!(version(&connection), 3);
    }

    #[test]
    fn only_a_store_with_a_known_schema_is_taken_for_one() {
        let (home, _seal, connection) = store();
        let path = home.path().join("footbridge.db");
        assert!(matches!(
            inspect(&connection, &path),
            Ok(FileState::Store(1))
        ));
        connection.pragma_update(None, "user_version", 2).unwrap();
        assert!(matches!(
            inspect(&connection, &path),
            Err(Error::SchemaTooNew { found: 2, known: 1 })
        ));
        connection.pragma_update(None, "user_version", 0).unwrap();
        assert!(matches!(
            inspect(&connection, &path),
            Err(Error::CorruptFile { .. })
        ));
        // The right number, but another program's file.
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection.pragma_update(None, "application_id", 1).unwrap();
        assert!(matches!(
            inspect(&connection, &path),
            Err(Error::CorruptFile { .. })
        ));
        let empty = Connection::open_in_memory().unwrap();
        assert!(matches!(inspect(&empty, &path), Ok(FileState::Empty)));
        empty
            .execute_batch("CREATE TABLE recipes (name TEXT)")
            .unwrap();
        assert!(matches!(
            inspect(&empty, &path),
            Err(Error::CorruptFile { .. })
        ));
    }
}
