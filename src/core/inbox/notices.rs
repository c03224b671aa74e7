//! What the bridge itself says at the door: once for each fact, and no more of a kind than a place can bear.

use footbridge_store::{Error, LaneId, Place, RemoteId, Resolved, Side, Telling};

use super::{Inbox, Unreadable, pace};
use crate::message::Message;

impl Inbox {
    /// How many notices were put off since the start because there were too many of them.
    #[must_use]
    pub fn withheld(&self) -> u64 {
        self.pace.withheld()
    }

    /// The bridge itself says something in a room, or in the one that a channel is joined to, once for each fact. Too
    /// many of a kind in one place are not said; the fact may be said later.
    pub async fn say(&self, place: &Place, fact: &str, text: &str) -> Result<(), Error> {
        let kind = pace::kind(fact);
        if self.pace.has_room(place, kind) {
            self.say_at_once(place, fact, text, &[kind]).await?;
        }
        Ok(())
    }

    /// The same of what one person can bring about again and again: besides, that person gets few of them. Answers
    /// whether it need not be said later.
    pub async fn say_about(
        &self,
        place: &Place,
        who: &str,
        fact: &str,
        text: &str,
    ) -> Result<bool, Error> {
        let kind = pace::kind(fact);
        let personal = pace::personal(kind, who);
        let has_room = self.pace.has_room(place, &personal) && self.pace.has_room(place, kind);
        if has_room {
            self.say_at_once(place, fact, text, &[kind, &personal])
                .await?;
        }
        Ok(has_room)
    }

    async fn say_at_once(
        &self,
        place: &Place,
        fact: &str,
        text: &str,
        kinds: &[&str],
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let Ok(letter) = Message::notice(text, now).to_bytes() else {
            return Ok(());
        };
        let portals = self.store.portals().await?;
        // One of several portals of a room is enough: all of them lead to the same people.
        let Some(portal) = portals
            .iter()
            .find(|portal| portal.active && (portal.room == *place || portal.channel == *place))
        else {
            return Ok(());
        };
        let lane = LaneId {
            portal: portal.id,
            toward: Side::Matrix,
        };
        let fact = RemoteId::from(fact);
        if let Some(lane) = self.store.notice(lane, &fact, &letter, now).await? {
            for kind in kinds {
                self.pace.said(place, kind);
            }
            self.bells.ring(lane);
        }
        Ok(())
    }

    /// People are told this of entries that cannot be read. Of too many senders in one place they are told later. Answers
    /// whether anybody was.
    pub async fn tell(&self, telling: Telling, words: Unreadable) -> Result<bool, Error> {
        let place = telling.place.clone();
        if !self.pace.has_room(&place, pace::UNREADABLE) {
            return Ok(false);
        }
        let now = self.clock.now();
        let lanes = self.store.tell(telling, words.letters(now), now).await?;
        let told = !lanes.is_empty();
        if told {
            self.pace.said(&place, pace::UNREADABLE);
        }
        self.ring(lanes);
        Ok(told)
    }

    /// People are told how it ended, instead of what they were told before.
    pub async fn tell_end(&self, group: Resolved, words: Unreadable) -> Result<(), Error> {
        let now = self.clock.now();
        let lanes = self.store.tell_end(group, words.letters(now), now).await?;
        self.ring(lanes);
        Ok(())
    }

    /// The same where nothing waited any more and the notices were left as they were.
    pub async fn no_longer(&self, group: Resolved, words: Unreadable) -> Result<(), Error> {
        let now = self.clock.now();
        let lanes = self.store.no_longer(group, words.letters(now), now).await?;
        self.ring(lanes);
        Ok(())
    }
}
