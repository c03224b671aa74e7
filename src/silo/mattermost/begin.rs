//! Where a channel is read from: the names of its cursors, and its first look.

use footbridge_store::{Batch, Millis, Place};

use super::{
    client::Range,
    listener::{Failure, Listener},
};

impl Listener {
    /// The first look at a channel.
    pub(super) async fn begin(&mut self, channel: &str) -> Result<(), Failure> {
        let newest = self.read(channel, &Range::Newest(0)).await?;
        let moment = newest
            .iter()
            .map(|post| post.create_at.max(post.update_at))
            .max();
        let mut moment = moment.unwrap_or(0);
        let Some(seat) = self.seats.get_mut(channel) else {
            return Ok(());
        };
        seat.anchor = newest
            .last()
            .map(|post| post.id.clone())
            .unwrap_or_default();
        let names = Names::of(&seat.place);
        let mut linked = None;
        if seat.history.wanted > 0 {
            let said = newest.iter().filter(|post| post.is_said());
            let said = said.map(|post| Millis(post.create_at));
            let (begin, cursor) = seat.history.begin(&seat.place, said, Millis(moment));
            (moment, linked) = (begin.0, Some(cursor));
            // Pages would begin behind what is still to be read.
            seat.anchor.clear();
        }
        (seat.cursor, seat.since) = (moment, moment);
        let batch = Batch {
            cursors: linked
                .into_iter()
                .chain([
                    (names.cursor, moment.to_string()),
                    (names.since, moment.to_string()),
                    (names.anchor, seat.anchor.clone()),
                ])
                .collect(),
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        Ok(())
    }
}

/// The names of a channel's cursors.
pub(super) struct Names {
    /// Up to which everything was read.
    pub cursor: String,
    /// Before which everything is history.
    pub since: String,
    /// Behind which reading can go on page by page.
    pub anchor: String,
}

impl Names {
    /// Those of this channel.
    pub fn of(place: &Place) -> Self {
        Self {
            cursor: place.as_str().to_owned(),
            since: format!("{place}/since"),
            anchor: format!("{place}/anchor"),
        }
    }
}
