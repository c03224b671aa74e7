//! Other bridges of our kind, as far as members of rooms say that they are some: which accounts in a channel speak for
//! others. Anybody can say so, so that only a few are believed at a time, and one of each who says it.

use rusqlite::params;

use crate::{
    Error, Place, Store,
    database::{Desk, Fault},
};

/// So many accounts of a channel may be another bridge's.
const MOST: i64 = 8;

/// What somebody claims of an account in a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct Rival {
    /// The channel.
    pub place: Place,
    /// The account there, hashed as bridges do it for each other.
    pub account: String,
    /// Who claims it: a user of the room.
    pub claimant: String,
}

impl std::fmt::Debug for Rival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rival(..)")
    }
}

impl Store {
    /// Whether one of these accounts of a channel is said to be another bridge's.
    pub async fn is_rival(&self, place: &Place, accounts: Vec<String>) -> Result<bool, Error> {
        if accounts.is_empty() {
            return Ok(false);
        }
        let place = place.clone();
        self.read("look for another bridge", move |desk| {
            let mut known = desk
                .sql
                .prepare_cached("SELECT 1 FROM rival WHERE place = ?1 AND account = ?2")?;
            for account in &accounts {
                if known.exists(params![place, desk.seal.rival_key(&place, account)])? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}

/// Writes down what somebody claims, in the place of what the same user claimed before.
pub(crate) fn keep(desk: &Desk<'_>, rival: &Rival) -> Result<(), Fault> {
    let place = &rival.place;
    desk.sql
        .prepare_cached(
            "INSERT INTO rival (place, claimant, account)
             SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM rival WHERE place = ?1) < ?4
                 OR EXISTS (SELECT 1 FROM rival WHERE place = ?1 AND claimant = ?2)
             ON CONFLICT (place, claimant) DO UPDATE SET account = excluded.account",
        )?
        .execute(params![
            place,
            desk.seal.person_key(Place::MATRIX, &rival.claimant),
            desk.seal.rival_key(place, &rival.account),
            MOST
        ])?;
    Ok(())
}
