//! What single people chose or were told: whose messages stay where they are written, and who entered a room. People are
//! kept as keyed hashes.

use rusqlite::{OptionalExtension, params};

use crate::{
    DeliveryId, EntryId, Error, Millis, Place, PortalId, RemoteId, Store, changes,
    database::{Desk, Fault},
    journal, notices,
    settle::{self, End},
};

/// The rule for messages of people who do not want them to cross.
const OPTED_OUT: &str = "opted-out";

/// Where a person's choice counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the place where it was made.
    Here,
    /// In every place of the network.
    Everywhere,
}

/// What is known of something that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screened {
    /// It was taken in before.
    Known,
    /// Its author wants it to stay where it was written.
    Stays,
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
    /// This person's messages stay in the place from now on, those that wait among them; `is_theirs` tells of a letter whether
    /// it says something, and of whom. Of those that failed nothing is kept. Answers how many waited.
    pub async fn opt_out(
        &self,
        place: &Place,
        user: &str,
        scope: Scope,
        is_theirs: fn(&[u8], &str) -> bool,
        now: Millis,
    ) -> Result<usize, Error> {
        let (place, user) = (place.clone(), user.to_owned());
        self.transaction("keep a person's messages here", move |desk| {
            let person = desk.seal.person_key(place.network(), &user);
            desk.sql
                .prepare_cached(
                    "INSERT INTO optout (person, place, since) VALUES (?1, ?2, ?3)
                     ON CONFLICT (person, place) DO NOTHING",
                )?
                .execute(params![person, scope.key(&place), now])?;
            name_no_more(desk, (&place, scope), &user)?;
            drop_theirs(desk, &place, scope, |letter| is_theirs(letter, &user))
        })
        .await
    }

    /// This person's messages cross again. Answers whether they did not before.
    pub async fn opt_in(&self, place: &Place, user: &str, scope: Scope) -> Result<bool, Error> {
        let (place, user) = (place.clone(), user.to_owned());
        self.transaction("let a person's messages cross", move |desk| {
            let person = desk.seal.person_key(place.network(), &user);
            let rows = desk
                .sql
                .prepare_cached("DELETE FROM optout WHERE person = ?1 AND place = ?2")?
                .execute(params![person, scope.key(&place)])?;
            Ok(rows > 0)
        })
        .await
    }

    /// Which of these people, of the given places, want their messages to stay there.
    pub async fn opted_out(&self, written: Vec<(Place, String)>) -> Result<Vec<bool>, Error> {
        self.read("look who keeps their messages", move |desk| {
            written
                .iter()
                .map(|(place, user)| stays(desk, place, user))
                .collect()
        })
        .await
    }

    /// What is known of these before they are taken in: place, fact, who wrote it.
    pub async fn screen(
        &self,
        written: Vec<(Place, RemoteId, String)>,
    ) -> Result<Vec<Screened>, Error> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        self.read("look at what arrives", move |desk| {
            let nobody = !desk
                .sql
                .prepare_cached("SELECT 1 FROM optout LIMIT 1")?
                .exists([])?;
            let mut known = desk
                .sql
                .prepare_cached("SELECT 1 FROM journal WHERE place = ?1 AND fact = ?2")?;
            let mut screened = Vec::new();
            for (place, fact, user) in &written {
                let fact = desk.seal.readable_id(place, fact);
                screened.push(if known.exists(params![place, fact])? {
                    Screened::Known
                } else if !nobody && stays(desk, place, user)? {
                    Screened::Stays
                } else {
                    Screened::New
                });
            }
            Ok(screened)
        })
        .await
    }

    /// Whether an entry of this person is to stay where it was written.
    pub async fn entry_stays(&self, entry: EntryId, user: &str) -> Result<bool, Error> {
        let user = user.to_owned();
        self.read("look who keeps their messages", move |desk| {
            let place: Place = desk
                .sql
                .prepare_cached("SELECT place FROM journal WHERE id = ?1")?
                .query_row([entry], |row| row.get(0))?;
            stays(desk, &place, &user)
        })
        .await
    }

    /// The same of an entry whose delivery has failed.
    pub async fn failure_stays(&self, failed: DeliveryId, user: &str) -> Result<bool, Error> {
        let user = user.to_owned();
        self.read("look who keeps their messages", move |desk| {
            let place: Option<Place> = desk
                .sql
                .prepare_cached(
                    "SELECT j.place FROM parked p JOIN journal j ON j.id = p.entry_id WHERE p.id = ?1",
                )?
                .query_row([failed], |row| row.get(0))
                .optional()?;
            place.map_or(Ok(false), |place| stays(desk, &place, &user))
        })
        .await
    }

    /// Portals of rooms that somebody has entered who was not told, with when somebody was told last; and notes that
    /// all of them are told now if that was `before`.
    pub async fn tell_newcomers(
        &self,
        before: Millis,
        now: Millis,
    ) -> Result<Vec<PortalId>, Error> {
        self.transaction("tell newcomers", move |desk| {
            let due: Vec<PortalId> = desk
                .sql
                .prepare_cached(
                    "SELECT portal_id FROM newcomer GROUP BY portal_id
                     HAVING sum(told_at IS NULL) > 0 AND coalesce(max(told_at), 0) <= ?1",
                )?
                .query_map([before], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for portal in &due {
                desk.sql
                    .prepare_cached(
                        "UPDATE newcomer SET told_at = ?2 WHERE portal_id = ?1 AND told_at IS NULL",
                    )?
                    .execute(params![portal, now])?;
            }
            Ok(due)
        })
        .await
    }
}

/// Somebody entered a place: whoever is new there may have to be told where it leads.
pub(crate) fn entered(desk: &Desk<'_>, place: &Place, user: &str) -> Result<(), Fault> {
    let person = desk.seal.person_key(place.network(), user);
    desk.sql
        .prepare_cached(
            "INSERT INTO newcomer (portal_id, person)
             SELECT id, ?2 FROM portal WHERE room_place = ?1 AND active = 1 AND origin <> 'desk'
             ON CONFLICT (portal_id, person) DO NOTHING",
        )?
        .execute(params![place, person])?;
    Ok(())
}

fn stays(desk: &Desk<'_>, place: &Place, user: &str) -> Result<bool, Fault> {
    let person = desk.seal.person_key(place.network(), user);
    Ok(desk
        .sql
        .prepare_cached("SELECT 1 FROM optout WHERE person = ?1 AND place IN (?2, '')")?
        .exists(params![person, place])?)
}

impl Scope {
    /// Whether somebody who says it in `said_in` means what they say in `place`, too.
    fn covers(self, said_in: &Place, place: &Place) -> bool {
        match self {
            Self::Here => place == said_in,
            Self::Everywhere => place.network() == said_in.network(),
        }
    }
}

/// Somebody keeps their messages where they write: what is owed elsewhere and names them is not said. What is told of their
/// messages from now on leaves their name out.
fn name_no_more(
    desk: &Desk<'_>,
    (said_in, scope): (&Place, Scope),
    user: &str,
) -> Result<(), Fault> {
    let groups: Vec<(i64, Place)> = desk
        .sql
        .prepare_cached("SELECT id, place FROM missing WHERE sender = ?1")?
        .query_map([user], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (group, _) in groups
        .iter()
        .filter(|(_, place)| scope.covers(said_in, place))
    {
        let owed: Vec<EntryId> = desk
            .sql
            .prepare_cached(
                "SELECT DISTINCT j.id FROM journal j JOIN outbox o ON o.entry_id = j.id
                 WHERE j.place = ?1 AND j.fact GLOB ?2 AND NOT j.fact GLOB ?3",
            )?
            .query_map(
                params![
                    notices::home(),
                    format!("unread-{group}-*"),
                    format!("unread-{group}-here*")
                ],
                |row| row.get(0),
            )?
            .collect::<Result<_, _>>()?;
        for entry in owed {
            for debt in settle::debts_of_entry(desk.sql, entry)? {
                settle::settle(desk, &debt, End::Skipped(OPTED_OUT))?;
            }
        }
    }
    Ok(())
}

/// Ends what is owed of a person's messages.
fn drop_theirs(
    desk: &Desk<'_>,
    place: &Place,
    scope: Scope,
    is_theirs: impl Fn(&[u8]) -> bool,
) -> Result<usize, Fault> {
    let owed: Vec<(EntryId, Place)> = desk
        .sql
        .prepare_cached(
            "SELECT DISTINCT j.id, j.place FROM outbox o JOIN journal j ON j.id = o.entry_id
             WHERE j.session IS NULL ORDER BY j.id",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut dropped = 0;
    let stays = |entry: EntryId, from: &Place| -> Result<bool, Fault> {
        let letter = if scope.covers(place, from) {
            journal::open_letter(desk, entry)?
        } else {
            None
        };
        Ok(letter.is_some_and(|letter| is_theirs(&letter)))
    };
    let failed: Vec<(EntryId, Place, Place)> = desk
        .sql
        .prepare_cached(
            "SELECT j.id, j.place, p.to_place FROM parked p JOIN journal j ON j.id = p.entry_id
             WHERE p.kept = 1 AND j.session IS NULL",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    let mut theirs = Vec::new();
    for (entry, from, to) in failed {
        if stays(entry, &from)? {
            theirs.push((entry, to));
        }
    }
    for (entry, from) in owed {
        if !stays(entry, &from)? {
            continue;
        }
        dropped += 1;
        for debt in settle::debts_of_entry(desk.sql, entry)? {
            settle::settle(desk, &debt, End::Skipped(OPTED_OUT))?;
        }
    }
    for (entry, to) in theirs {
        let why = "its author does not want it to cross";
        changes::take_back_failed(desk, (entry, None), &to, why)?;
    }
    Ok(dropped)
}
