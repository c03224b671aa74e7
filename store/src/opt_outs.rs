//! What is stored about single people: who has opted out, and who got a notice after joining a room. People are kept as keyed
//! hashes.

use rusqlite::{OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Millis, Place, PortalId, RemoteId, SkipRule, Store,
    counters::{self, DeliveryEnd},
    database::{Tx, TxError},
    journal, notices, pending_changes,
};

/// Where an opt-out applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the place where the person opted out.
    Here,
    /// In every place of the network.
    Everywhere,
}

/// What is known of an arriving event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenResult {
    /// It was accepted before.
    Known,
    /// Its author opted out.
    OptedOut,
    /// Neither.
    New,
}

impl Scope {
    fn key(self, place: &Place) -> String {
        match self {
            Self::Here => place.as_str().to_owned(),
            Self::Everywhere => String::new(),
        }
    }
}

impl Store {
    /// This person's messages are not relayed from now on, pending ones included; `is_theirs` says of a payload whether it has a
    /// text of that person. Failed ones can no longer be retried. Returns how many were pending.
    pub async fn opt_out(
        &self,
        place: &Place,
        user: &str,
        scope: Scope,
        is_theirs: fn(&[u8], &str) -> bool,
        now: Millis,
    ) -> Result<usize, Error> {
        let (place, user) = (place.clone(), user.to_owned());
        self.transaction("opt a person out", move |tx| {
            let person = tx.seal.person_hash(place.network(), &user);
            tx.sql
                .prepare_cached(
                    "INSERT INTO opt_out (person_hash, place, since) VALUES (?1, ?2, ?3)
                     ON CONFLICT (person_hash, place) DO NOTHING",
                )?
                .execute(params![person, scope.key(&place), now])?;
            cancel_notices_naming(tx, &place, scope, &user)?;
            cancel_messages_of(tx, &place, scope, |payload| is_theirs(payload, &user))
        })
        .await
    }

    /// This person's messages are relayed again. Returns whether they were not before.
    pub async fn opt_in(&self, place: &Place, user: &str, scope: Scope) -> Result<bool, Error> {
        let (place, user) = (place.clone(), user.to_owned());
        self.transaction("opt a person in", move |tx| {
            let person = tx.seal.person_hash(place.network(), &user);
            let rows = tx
                .sql
                .prepare_cached("DELETE FROM opt_out WHERE person_hash = ?1 AND place = ?2")?
                .execute(params![person, scope.key(&place)])?;
            Ok(rows > 0)
        })
        .await
    }

    /// Which of these people have opted out, for each given place.
    pub async fn opted_out(&self, written: Vec<(Place, String)>) -> Result<Vec<bool>, Error> {
        self.read("look who has opted out", move |tx| {
            written
                .iter()
                .map(|(place, user)| is_opted_out(tx, place, user))
                .collect()
        })
        .await
    }

    /// What is known of these events before they are accepted: place, event id, author.
    pub async fn screen(
        &self,
        written: Vec<(Place, RemoteId, String)>,
    ) -> Result<Vec<ScreenResult>, Error> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        self.read("screen arrivals", move |tx| {
            let nobody = !tx
                .sql
                .prepare_cached("SELECT 1 FROM opt_out LIMIT 1")?
                .exists([])?;
            let mut known = tx
                .sql
                .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND event_id = ?2")?;
            let mut screened = Vec::new();
            for (place, event_id, user) in &written {
                let event_id = tx.seal.stored_id(place, event_id);
                screened.push(if known.exists(params![place, event_id])? {
                    ScreenResult::Known
                } else if !nobody && is_opted_out(tx, place, user)? {
                    ScreenResult::OptedOut
                } else {
                    ScreenResult::New
                });
            }
            Ok(screened)
        })
        .await
    }

    /// Whether the author of an entry opted out.
    pub async fn is_author_opted_out(&self, entry: EntryId, user: &str) -> Result<bool, Error> {
        let user = user.to_owned();
        self.read("look who has opted out", move |tx| {
            let place: Place = tx
                .sql
                .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                .query_row([entry], |row| row.get(0))?;
            is_opted_out(tx, &place, &user)
        })
        .await
    }

    /// The same of an entry whose delivery has failed.
    pub async fn is_failed_author_opted_out(
        &self,
        failed: DeliveryId,
        user: &str,
    ) -> Result<bool, Error> {
        let user = user.to_owned();
        self.read("look who has opted out", move |tx| {
            let place: Option<Place> = tx
                .sql
                .prepare_cached(
                    "SELECT j.place FROM parked_delivery p JOIN journal j ON j.id = p.entry_id WHERE p.id = ?1",
                )?
                .query_row([failed], |row| row.get(0))
                .optional()?;
            place.map_or(Ok(false), |place| is_opted_out(tx, &place, &user))
        })
        .await
    }

    /// Portals whose room somebody joined who was not notified, where the last notification was before `before`. Marks all of
    /// them as notified now.
    pub async fn take_unnotified_newcomers(
        &self,
        before: Millis,
        now: Millis,
    ) -> Result<Vec<PortalId>, Error> {
        self.transaction("notify newcomers", move |tx| {
            let due: Vec<PortalId> = tx
                .sql
                .prepare_cached(
                    "SELECT portal_id FROM newcomer GROUP BY portal_id
                     HAVING sum(notified_at IS NULL) > 0 AND coalesce(max(notified_at), 0) <= ?1",
                )?
                .query_map([before], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for portal in &due {
                tx.sql
                    .prepare_cached(
                        "UPDATE newcomer SET notified_at = ?2 WHERE portal_id = ?1 AND notified_at IS NULL",
                    )?
                    .execute(params![portal, now])?;
            }
            Ok(due)
        })
        .await
    }
}

/// Somebody joined a place: new members may need a notice of where its messages are relayed to.
pub(crate) fn note_join(tx: &Tx<'_>, place: &Place, user: &str) -> Result<(), TxError> {
    let person = tx.seal.person_hash(place.network(), user);
    tx.sql
        .prepare_cached(
            "INSERT INTO newcomer (portal_id, person_hash)
             SELECT id, ?2 FROM portal WHERE room_place = ?1 AND active = 1 AND source <> 'management'
             ON CONFLICT (portal_id, person_hash) DO NOTHING",
        )?
        .execute(params![place, person])?;
    Ok(())
}

fn is_opted_out(tx: &Tx<'_>, place: &Place, user: &str) -> Result<bool, TxError> {
    let person = tx.seal.person_hash(place.network(), user);
    Ok(tx
        .sql
        .prepare_cached("SELECT 1 FROM opt_out WHERE person_hash = ?1 AND place IN (?2, '')")?
        .exists(params![person, place])?)
}

impl Scope {
    /// Whether an opt-out in `said_in` applies to `place`, too.
    fn includes(self, said_in: &Place, place: &Place) -> bool {
        match self {
            Self::Here => place == said_in,
            Self::Everywhere => place.network() == said_in.network(),
        }
    }
}

/// Somebody opted out: pending notices that name them elsewhere are not sent. Later notices about their messages leave their name
/// out.
fn cancel_notices_naming(
    tx: &Tx<'_>,
    said_in: &Place,
    scope: Scope,
    user: &str,
) -> Result<(), TxError> {
    let groups: Vec<(i64, Place)> = tx
        .sql
        .prepare_cached("SELECT id, place FROM undecryptable_group WHERE sender = ?1")?
        .query_map([user], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (group, _) in groups
        .iter()
        .filter(|(_, place)| scope.includes(said_in, place))
    {
        let named: Vec<EntryId> = tx
            .sql
            .prepare_cached(
                "SELECT DISTINCT j.id FROM journal j JOIN outbox o ON o.entry_id = j.id
                 WHERE j.place = ?1 AND j.event_id GLOB ?2 AND NOT j.event_id GLOB ?3",
            )?
            .query_map(
                params![
                    notices::notice_place(),
                    format!("unread-{group}-*"),
                    format!("unread-{group}-here*")
                ],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        for entry in named {
            for pending in counters::pending_of_entry(tx.sql, entry)? {
                counters::settle(tx, &pending, DeliveryEnd::Skipped(SkipRule::OptedOut))?;
            }
        }
    }
    Ok(())
}

/// Ends the pending deliveries of a person's messages.
fn cancel_messages_of(
    tx: &Tx<'_>,
    place: &Place,
    scope: Scope,
    is_theirs: impl Fn(&[u8]) -> bool,
) -> Result<usize, TxError> {
    let pending: Vec<(EntryId, Place)> = tx
        .sql
        .prepare_cached(
            "SELECT DISTINCT j.id, j.place FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE j.missing_session IS NULL ORDER BY j.id",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut dropped = 0;
    let is_opted_out = |entry: EntryId, from: &Place| -> Result<bool, TxError> {
        let payload = if scope.includes(place, from) {
            journal::open_payload(tx, entry)?
        } else {
            None
        };
        Ok(payload.is_some_and(|payload| is_theirs(&payload)))
    };
    let failed: Vec<(EntryId, Place, Place)> = tx
        .sql
        .prepare_cached(
            "SELECT j.id, j.place, p.to_place FROM parked_delivery p JOIN journal j ON j.id = p.entry_id
             WHERE p.retryable = 1 AND j.missing_session IS NULL",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let mut theirs = Vec::new();
    for (entry, from, to) in failed {
        if is_opted_out(entry, &from)? {
            theirs.push((entry, to));
        }
    }
    for (entry, from) in pending {
        if !is_opted_out(entry, &from)? {
            continue;
        }
        dropped += 1;
        for pending in counters::pending_of_entry(tx.sql, entry)? {
            counters::settle(tx, &pending, DeliveryEnd::Skipped(SkipRule::OptedOut))?;
        }
    }
    for (entry, to) in theirs {
        let why = "its author has opted out";
        pending_changes::cancel_failed(tx, entry, None, &to, pending_changes::Cancelled::All, why)?;
    }
    Ok(dropped)
}
