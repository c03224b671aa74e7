//! Consent: that what is said in an encrypted room may leave it. And linking, which in an encrypted room is one
//! transaction with it.

use rusqlite::params;

use crate::{
    Error, LaneId, Millis, Place, Portal, PortalId, RemoteId, Store, commands,
    database::{Desk, Fault},
    desks, notices, openings,
    paths::Net,
    peek,
    portals::{self, Graph, Origin, PortalSpec},
    progress,
};

/// Whether the delay of a consent, which has not begun, was over at that moment, and nothing of its room is to be fetched.
const DUE: &str = "begun = 0 AND effective_at <= ?1 AND NOT EXISTS (
    SELECT 1 FROM portal p JOIN gap g ON g.place = p.room_place WHERE p.id = portal_id)";

/// What somebody agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Who.
    pub by: String,
    /// Which version of the disclosure they were shown.
    pub text_version: u32,
    /// When the first message may cross.
    pub effective_at: Millis,
}

/// What is written down when a wish comes true.
#[derive(Clone, Debug)]
pub struct Linking {
    /// The wish.
    pub wish: i64,
    /// That its room agrees, where it is encrypted.
    pub consent: Option<Consent>,
    /// The question that this answers.
    pub question: Option<crate::EntryId>,
    /// What is said in the room.
    pub told: Vec<u8>,
    /// Whether all that was said in the room by now has been taken in.
    pub heard: bool,
}

impl Store {
    /// Somebody agreed for a portal. Agreed before, nothing changes, so that the delay does not begin anew. Answers
    /// what holds now, and the lanes to ring.
    pub async fn agree(
        &self,
        portal: PortalId,
        consent: Consent,
        now: Millis,
    ) -> Result<(Consent, Vec<LaneId>), Error> {
        self.transaction("write a consent down", move |desk| {
            write(desk, portal, &consent, now)?;
            let holds = desk
                .sql
                .prepare_cached(
                    "SELECT given_by, text_version, effective_at FROM consent WHERE portal_id = ?1",
                )?
                .query_row([portal], |row| {
                    Ok(Consent {
                        by: row.get(0)?,
                        text_version: row.get(1)?,
                        effective_at: row.get(2)?,
                    })
                })?;
            Ok((holds, Net::load(desk.sql, now)?.around(portal)))
        })
        .await
    }

    /// All that was said in rooms before `heard` has been taken in. Consents whose delay was over then begin: what is
    /// taken in from now on was said after it. Not those of rooms of which something is still to be fetched.
    pub async fn begin_consents(&self, heard: Millis) -> Result<(), Error> {
        if !self.is_consent_due(heard).await? {
            return Ok(());
        }
        self.transaction("begin a consent", move |desk| {
            let begin = format!("UPDATE consent SET begun = 1 WHERE {DUE}");
            desk.sql.prepare_cached(&begin)?.execute([heard])?;
            Ok(())
        })
        .await
    }

    /// Whether a consent begins that has not begun, if all that was said before `heard` has been taken in.
    pub async fn is_consent_due(&self, heard: Millis) -> Result<bool, Error> {
        self.read("look for consents that begin", move |desk| {
            let due = format!("SELECT 1 FROM consent WHERE {DUE}");
            Ok(desk.sql.prepare_cached(&due)?.exists([heard])?)
        })
        .await
    }

    /// When the next delay is over.
    pub async fn next_consent(&self, now: Millis) -> Result<Option<Millis>, Error> {
        self.read("look when a consent begins", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT min(effective_at) FROM consent WHERE begun = 0 AND effective_at > ?1",
                )?
                .query_row([now], |row| row.get(0))?)
        })
        .await
    }

    /// How many messages wait to leave the room of a portal through it.
    pub async fn waiting_to_leave(&self, portal: PortalId) -> Result<u64, Error> {
        self.read("count what waits in a room", move |desk| {
            Ok(desk
                .sql
                .prepare_cached(
                    "SELECT count(*) FROM outbox o JOIN journal j ON j.id = o.entry_id
                     WHERE o.portal_id = ?1 AND o.toward = 'silo' AND j.place <> ?2",
                )?
                .query_row(params![portal, notices::home()], |row| row.get(0))?)
        })
        .await
    }

    /// The portals whose encrypted room has not agreed.
    pub async fn lacking_consent(&self) -> Result<Vec<Portal>, Error> {
        self.read("look for portals without consent", |desk| {
            peek::lacking_consent(desk.sql)
        })
        .await
    }

    /// The room stands in the clear although it is linked: its encryption, when it comes, will be news.
    pub async fn seen_in_clear(&self, room: &Place) -> Result<(), Error> {
        let room = room.clone();
        self.transaction("note that a room is in the clear", move |desk| {
            mark_clear(desk, &room)
        })
        .await
    }

    /// A wish comes true: its portal is opened, the room told, the question answered. Gone already, nothing happens.
    /// Answers the portal and the lanes to ring.
    pub async fn link(
        &self,
        linking: Linking,
        now: Millis,
    ) -> Result<Option<(Portal, Vec<LaneId>)>, Error> {
        self.transaction("link a room", move |desk| {
            let wish = desk
                .sql
                .prepare_cached(
                    "DELETE FROM wish WHERE id = ?1
                     RETURNING room_place, channel_place, room, silo, channel, asked_in",
                )?
                .query_map([linking.wish], |row| {
                    let spec = PortalSpec {
                        room: row.get(2)?,
                        silo: row.get(3)?,
                        channel: row.get(4)?,
                    };
                    let ends: (Place, Place) = (row.get(0)?, row.get(1)?);
                    Ok((spec, ends, row.get::<_, Place>(5)?))
                })?
                .next()
                .transpose()?;
            let Some((spec, (room, channel), asked_in)) = wish else {
                return Ok(None);
            };
            if Graph::load(desk.sql)?.lane_to(&channel).is_none() {
                // Whatever was read of it before was not said to this room.
                progress::forget(desk, &channel)?;
            }
            let portal = portals::open(desk, Origin::Chat, &spec, (&room, &channel), now)?;
            if linking.heard {
                openings::is_heard(desk, portal.id, &room)?;
            }
            if let Some(consent) = &linking.consent {
                write(desk, portal.id, consent, now)?;
            }
            let mut lanes = Net::load(desk.sql, now)?.around(portal.id);
            let fact = RemoteId(format!("linked-{}-{}", portal.id, now.0));
            lanes.extend(desks::say(desk, &room, &fact, &linking.told, now)?);
            if asked_in != room {
                let fact = RemoteId(format!("linked-{}-{}-elsewhere", portal.id, now.0));
                lanes.extend(desks::say(desk, &asked_in, &fact, &linking.told, now)?);
            }
            if let Some(question) = linking.question {
                commands::close(desk, question)?;
            }
            Ok(Some((portal, lanes)))
        })
        .await
    }
}

fn write(desk: &Desk<'_>, portal: PortalId, consent: &Consent, now: Millis) -> Result<(), Fault> {
    desk.sql
        .prepare_cached(
            "INSERT INTO consent (portal_id, given_by, given_at, text_version, effective_at, begun)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (portal_id) DO NOTHING",
        )?
        .execute(params![
            portal,
            consent.by,
            now,
            consent.text_version,
            consent.effective_at,
            consent.effective_at <= now
        ])?;
    Ok(())
}

/// See [`Store::seen_in_clear`].
pub(crate) fn mark_clear(desk: &Desk<'_>, room: &Place) -> Result<(), Fault> {
    desk.sql
        .prepare_cached("UPDATE portal SET seen_clear = 1 WHERE room_place = ?1 AND active = 1")?
        .execute([room])?;
    Ok(())
}
