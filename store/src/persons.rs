//! Which accounts on silos belong to which Matrix users, and the codes by which users prove it.

use rusqlite::{OptionalExtension, params};

use crate::{Error, Millis, Place, Store};

/// An account on a silo that belongs to a Matrix user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonAccount {
    /// The silo, by its name in the configuration.
    pub silo: String,
    /// The immutable id of the account there.
    pub silo_user: String,
    /// Its name when it was proved.
    pub silo_name: String,
    /// The Matrix user.
    pub user_id: String,
    /// When it was proved.
    pub proved_at: Millis,
    /// The place in which the user is told what becomes of it.
    pub told_in: Place,
}

/// A code that a Matrix user must post on a silo.
#[derive(Clone, PartialEq, Eq)]
pub struct PersonCode {
    /// The Matrix user.
    pub user_id: String,
    /// The silo, by its name in the configuration.
    pub silo: String,
    /// The code.
    pub code: String,
    /// The place that gets the answer.
    pub asked_in: Place,
    /// When it no longer counts.
    pub expires_at: Millis,
    /// The name of the account that posted it, once one did.
    pub proved: Option<String>,
}

impl std::fmt::Debug for PersonCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PersonCode")
            .field("silo", &self.silo)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// The accounts on silos that belong to Matrix users.
    pub async fn person_accounts(&self) -> Result<Vec<PersonAccount>, Error> {
        self.read("read the persons", |tx| {
            let mut query = tx.sql.prepare(
                "SELECT silo, silo_user, silo_name, user_id, proved_at, told_in FROM person
                 ORDER BY silo, silo_user",
            )?;
            let rows = query.query_map([], |row| {
                Ok(PersonAccount {
                    silo: row.get(0)?,
                    silo_user: row.get(1)?,
                    silo_name: row.get(2)?,
                    user_id: row.get(3)?,
                    proved_at: row.get(4)?,
                    told_in: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// A Matrix user must post this code; an earlier one for the same silo no longer counts.
    pub async fn save_person_code(&self, code: PersonCode) -> Result<(), Error> {
        self.transaction("save a code", move |tx| {
            tx.sql.execute(
                "INSERT OR REPLACE INTO person_code (user_id, silo, code, asked_in, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    code.user_id,
                    code.silo,
                    code.code,
                    code.asked_in,
                    code.expires_at
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// The codes: those that may still be posted, and those whose users have not been answered yet.
    pub async fn person_codes(&self) -> Result<Vec<PersonCode>, Error> {
        self.read("read the codes", |tx| {
            let mut query = tx.sql.prepare(
                "SELECT user_id, silo, code, asked_in, expires_at, proved FROM person_code ORDER BY code",
            )?;
            let rows = query.query_map([], |row| {
                Ok(PersonCode {
                    user_id: row.get(0)?,
                    silo: row.get(1)?,
                    code: row.get(2)?,
                    asked_in: row.get(3)?,
                    expires_at: row.get(4)?,
                    proved: row.get(5)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The user of a code was answered, or it has expired.
    pub async fn delete_person_code(&self, code: &str) -> Result<(), Error> {
        let code = code.to_owned();
        self.transaction("delete a code", move |tx| {
            tx.sql
                .execute("DELETE FROM person_code WHERE code = ?1", [&code])?;
            Ok(())
        })
        .await
    }

    /// This account on a silo has posted a text. If it is a code that counts, the account belongs to the user of the code now, and
    /// to nobody else. Returns whether it was one; a code counts once.
    pub async fn prove_person(
        &self,
        silo: &str,
        silo_user: &str,
        silo_name: &str,
        code: &str,
        now: Millis,
    ) -> Result<bool, Error> {
        let (silo, silo_user) = (silo.to_owned(), silo_user.to_owned());
        let (silo_name, code) = (silo_name.to_owned(), code.to_owned());
        self.transaction("save a proved account", move |tx| {
            let user: Option<(String, Place)> = tx
                .sql
                .query_row(
                    "UPDATE person_code SET proved = ?4
                     WHERE code = ?1 AND silo = ?2 AND expires_at > ?3 AND proved IS NULL
                     RETURNING user_id, asked_in",
                    params![code, silo, now, silo_name],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some((user, told_in)) = &user {
                tx.sql.execute(
                    "INSERT OR REPLACE INTO person (silo, silo_user, silo_name, user_id, proved_at, told_in)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![silo, silo_user, silo_name, user, now, told_in],
                )?;
            }
            Ok(user.is_some())
        })
        .await
    }

    /// The accounts of a Matrix user on a silo no longer belong to the user. Returns their names.
    pub async fn forget_person(&self, user: &str, silo: &str) -> Result<Vec<String>, Error> {
        let (user, silo) = (user.to_owned(), silo.to_owned());
        self.transaction("forget the accounts of a person", move |tx| {
            tx.sql.execute(
                "DELETE FROM person_code WHERE user_id = ?1 AND silo = ?2",
                params![user, silo],
            )?;
            let mut query = tx.sql.prepare(
                "DELETE FROM person WHERE user_id = ?1 AND silo = ?2 RETURNING silo_name",
            )?;
            let rows = query.query_map(params![user, silo], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }
}
