//! Backfill: messages from before a channel was linked, where the portal wants some. They are read once and marked with
//! their time.

use footbridge_core::{
    inbox::{Arrival, ArrivalContent},
    message::Action,
};
use footbridge_store::{Error, Millis, Place, Store};

/// How much of a channel's history is relayed, and where it ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backfill {
    /// How many messages are still to be found.
    pub wanted: usize,
    /// Every message up to this time of the silo's clock is backfill.
    pub until: Option<Millis>,
}

impl Backfill {
    /// The stored state of a channel's backfill.
    pub async fn open(place: &Place, store: &Store) -> Result<Self, Error> {
        let until = store.cursor(&cursor_of(place)).await?;
        Ok(Self {
            wanted: 0,
            until: until.and_then(|until| until.parse().ok()).map(Millis),
        })
    }

    /// Starts the backfill, which ends at `now`. `shown` are the times of all messages that the silo shows, oldest
    /// first. Returns the time after which the wanted messages begin, and the cursor to be stored.
    pub fn begin(
        &mut self,
        place: &Place,
        shown: impl DoubleEndedIterator<Item = Millis>,
        now: Millis,
    ) -> (Millis, (String, String)) {
        let wanted = std::mem::take(&mut self.wanted);
        let first = shown.rev().take(wanted).last();
        let begin = first.map_or(now, |first| Millis(first.0.saturating_sub(1)));
        self.until = Some(now);
        (begin, (cursor_of(place), now.0.to_string()))
    }

    /// Adds the time to the name of the author of each message of the backfill.
    pub fn mark(&self, arrivals: &mut [Arrival]) {
        for arrival in arrivals {
            let ArrivalContent::Message(message) = &mut arrival.payload else {
                continue;
            };
            if self.until.is_none_or(|until| arrival.sent_at > until) {
                continue;
            }
            let moment = jiff::Timestamp::from_millisecond(message.sent_at.0).unwrap_or_default();
            if matches!(message.action, Action::Post { .. }) {
                let name = message.sender.name.trim();
                message.sender.name = format!("{name} ({})", moment.strftime("%Y-%m-%d %H:%M UTC"));
            }
        }
    }
}

fn cursor_of(place: &Place) -> String {
    format!("{place}/linked")
}

#[cfg(test)]
mod tests {
    use footbridge_core::{
        message::{Message, Sender, Style},
        text::Body,
    };
    use footbridge_store::RemoteId;

    use super::*;

    fn arrival(sent_at: i64) -> Arrival {
        let message = Message {
            sender: Sender {
                id: "1".to_owned(),
                name: "Bob".to_owned(),
                avatar: None,
            },
            sent_at: Millis(sent_at),
            action: Action::Post {
                body: Body::plain("hi"),
                style: Style::Text,
                reply_to: None,
                thread: None,
            },
            files: Vec::new(),
        };
        Arrival {
            place: Place::new("gitter", "a"),
            event_id: RemoteId::from("m"),
            message: None,
            thread: None,
            sent_at: Millis(sent_at),
            payload: message.into(),
        }
    }

    fn name(arrival: &Arrival) -> String {
        match &arrival.payload {
            ArrivalContent::Message(message) => message.sender.name.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_newest_ones_are_relayed_with_their_time() {
        let mut backfill = Backfill {
            wanted: 2,
            until: None,
        };
        let place = Place::new("gitter", "a");
        let shown = [10_000, 20_000, 30_000].map(Millis);
        let (begin, cursor) = backfill.begin(&place, shown.into_iter(), Millis(60_000));
        assert_eq!((begin, cursor.1.as_str()), (Millis(19_999), "60000"));
        let mut arrivals = [arrival(20_000), arrival(60_001)];
        backfill.mark(&mut arrivals);
        assert_eq!(name(&arrivals[0]), "Bob (1970-01-01 00:00 UTC)");
        assert_eq!(name(&arrivals[1]), "Bob");
        // No message was found, and none is searched for again.
        let empty = std::iter::empty::<Millis>();
        assert_eq!(
            backfill.begin(&place, empty, Millis(70_000)).0,
            Millis(70_000)
        );
        assert_eq!(backfill.wanted, 0);
    }
}
