//! Where a channel is read from: the names of its cursors, and its first look.

use footbridge_store::{Batch, Error, Millis, Place};

use super::{
    api::Post,
    arrival,
    client::Range,
    listener::{ListenError, Listener},
};
use crate::server_clock::is_ahead;

impl Listener {
    /// The first look at a channel.
    pub(super) async fn begin(&mut self, channel: &str) -> Result<(), ListenError> {
        let now = self.now().0;
        let newest = self.read(channel, &Range::Newest(0)).await?;
        let (future, newest): (Vec<Post>, Vec<Post>) =
            newest.into_iter().partition(|post| post.create_at > now);
        let moment = newest
            .iter()
            .map(|post| post.create_at.max(post.update_at))
            .max();
        let mut moment = moment.unwrap_or(0).clamp(0, now.max(0));
        let Some(seat) = self.channel_states.get_mut(channel) else {
            return Ok(());
        };
        seat.anchor = newest
            .last()
            .map(|post| post.id.clone())
            .unwrap_or_default();
        let names = CursorNames::of(&seat.place);
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
        // These are history, too, although their dates say otherwise: they are noted, so that they are no news later.
        let future = future
            .iter()
            .map(|post| arrival::note_only(&seat.place, post, "before-link"));
        let batch = Batch {
            arrivals: future.collect(),
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

impl Listener {
    /// A cursor from the server's future, as earlier versions kept it when they read a post that was dated there, hides
    /// everything that is written until then: what was written since the channel was linked is read again. What is known
    /// already the journal recognises.
    pub(super) async fn repair_cursors(&mut self) -> Result<(), Error> {
        let now = self.now();
        let mut cursors = Vec::new();
        for seat in self.channel_states.values_mut() {
            if !is_ahead(Millis(seat.cursor), now) {
                continue;
            }
            tracing::warn!(silo.name = %self.silo, silo.channel = %seat.place.address(),
                "A channel was read up to a moment that the server has not reached; reading it again since it was linked");
            let names = CursorNames::of(&seat.place);
            seat.since = seat.since.min(now.0);
            seat.cursor = seat.since.max(0);
            seat.anchor.clear();
            cursors.push((names.cursor, seat.cursor.to_string()));
            cursors.push((names.since, seat.since.to_string()));
            cursors.push((names.anchor, String::new()));
        }
        if !cursors.is_empty() {
            let batch = Batch {
                cursors,
                ..Batch::default()
            };
            self.inbox.accept(batch).await?;
        }
        Ok(())
    }
}

/// The names of a channel's cursors.
pub(super) struct CursorNames {
    /// Up to which everything was read.
    pub cursor: String,
    /// Before which everything is history.
    pub since: String,
    /// Behind which reading can go on page by page.
    pub anchor: String,
}

impl CursorNames {
    /// Those of this channel.
    pub fn of(place: &Place) -> Self {
        Self {
            cursor: place.as_str().to_owned(),
            since: format!("{place}/since"),
            anchor: format!("{place}/anchor"),
        }
    }
}
