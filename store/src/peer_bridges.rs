//! Other bridges, as far as members of rooms claim them: which accounts in a channel are another bridge's. Anybody can claim
//! that, so only a few claims are accepted at a time, and one of each claimant.

use rusqlite::params;

use crate::{
    Error, Place, Store,
    database::{Tx, TxError},
};

/// How many accounts of a channel may count as another bridge's.
const MAX_PEER_ACCOUNTS: i64 = 8;

/// What somebody claims of an account in a channel.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerClaim {
    /// The channel.
    pub place: Place,
    /// The account there, hashed as bridges do it for each other.
    pub account: String,
    /// Who claims it: a user of the room.
    pub claimant: String,
}

impl std::fmt::Debug for PeerClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerClaim(..)")
    }
}

impl Store {
    /// Whether one of these accounts of a channel is claimed to be another bridge's.
    pub async fn is_peer_account(
        &self,
        place: &Place,
        accounts: Vec<String>,
    ) -> Result<bool, Error> {
        if accounts.is_empty() {
            return Ok(false);
        }
        let place = place.clone();
        self.read("look for another bridge", move |tx| {
            let mut known = tx.sql.prepare_cached(
                "SELECT 1 FROM peer_account WHERE place = ?1 AND account_hash = ?2",
            )?;
            for account in &accounts {
                if known.exists(params![place, tx.seal.peer_account_hash(&place, account)])? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
        .await
    }
}

/// Writes a claim, and replaces the same user's earlier one.
pub(crate) fn save(tx: &Tx<'_>, claim: &PeerClaim) -> Result<(), TxError> {
    let place = &claim.place;
    tx.sql
        .prepare_cached(
            "INSERT INTO peer_account (place, claimant_hash, account_hash)
             SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM peer_account WHERE place = ?1) < ?4
                 OR EXISTS (SELECT 1 FROM peer_account WHERE place = ?1 AND claimant_hash = ?2)
             ON CONFLICT (place, claimant_hash) DO UPDATE SET account_hash = excluded.account_hash",
        )?
        .execute(params![
            place,
            tx.seal.person_hash(Place::MATRIX, &claim.claimant),
            tx.seal.peer_account_hash(place, &claim.account),
            MAX_PEER_ACCOUNTS
        ])?;
    Ok(())
}
