//! The cursors of a channel: their names, their start and their repair.

use footbridge_core::inbox::Batch;
use footbridge_store::{Error, Millis, Place, SkipRule};

use super::{
    api::Post,
    arrival,
    client::Range,
    listener::{ChannelState, ListenError, Listener},
};
use crate::server_clock::is_ahead;

impl Listener {
    /// Sets the cursors when a channel is read for the first time.
    pub(super) async fn begin(&mut self, channel: &str) -> Result<(), ListenError> {
        let wants_history = |state: &ChannelState| state.history.wanted > 0;
        let wants_history = self.channel_states.get(channel).is_some_and(wants_history);
        // The known time is up to a second early. Without a backfill what was written since is recorded as from before the link.
        let early = if wants_history { 1_000 } else { 0 };
        let now = self.now().0.saturating_add(early);
        let newest = self.read(channel, &Range::Newest(0)).await?;
        let (future, newest): (Vec<Post>, Vec<Post>) =
            newest.into_iter().partition(|post| post.create_at > now);
        let moment = newest
            .iter()
            .map(|post| post.create_at.max(post.update_at))
            .max();
        let mut moment = moment.unwrap_or(0).clamp(0, now.max(0));
        let Some(state) = self.channel_states.get_mut(channel) else {
            return Ok(());
        };
        state.anchor = newest
            .last()
            .map(|post| post.id.clone())
            .unwrap_or_default();
        let names = CursorNames::of(&state.place);
        let mut linked = None;
        if wants_history {
            let written = newest.iter().filter(|post| post.is_said());
            let written = written.map(|post| Millis(post.create_at));
            let (begin, cursor) = state.history.begin(&state.place, written, Millis(moment));
            (moment, linked) = (begin.0, Some(cursor));
            // Pages would begin after the backfill.
            state.anchor.clear();
        }
        (state.cursor, state.since) = (moment, moment);
        // These posts are from before the link as well, although they are dated later: they are recorded, so that they
        // are not new later.
        let future = future
            .iter()
            .map(|post| arrival::note_only(&state.place, post, SkipRule::BeforeLink));
        let batch = Batch {
            arrivals: future.collect(),
            cursors: linked
                .into_iter()
                .chain([
                    (names.cursor, moment.to_string()),
                    (names.since, moment.to_string()),
                    (names.anchor, state.anchor.clone()),
                ])
                .collect(),
            ..Batch::default()
        };
        self.inbox.accept(batch).await?;
        Ok(())
    }
}

impl Listener {
    /// Earlier versions stored a cursor in the server's future when they read a post that was dated there, and such a
    /// cursor hides everything written until then: the posts since the link are read again. The journal recognises the
    /// known ones.
    pub(super) async fn repair_cursors(&mut self) -> Result<(), Error> {
        let now = self.now();
        let mut cursors = Vec::new();
        for state in self.channel_states.values_mut() {
            if !is_ahead(Millis(state.cursor), now) {
                continue;
            }
            tracing::warn!(silo.name = %self.silo, silo.channel = %state.place.address(),
                "The cursor of a channel is in the server's future; reading the channel again from when it was linked");
            let names = CursorNames::of(&state.place);
            state.since = state.since.min(now.0);
            state.cursor = state.since.max(0);
            state.anchor.clear();
            cursors.push((names.cursor, state.cursor.to_string()));
            cursors.push((names.since, state.since.to_string()));
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
    /// The time up to which everything was read.
    pub cursor: String,
    /// The time of the link: earlier posts are not relayed.
    pub since: String,
    /// The post after which reading page by page can continue.
    pub anchor: String,
}

impl CursorNames {
    /// The names for this channel.
    pub fn of(place: &Place) -> Self {
        Self {
            cursor: place.as_str().to_owned(),
            since: format!("{place}/since"),
            anchor: format!("{place}/anchor"),
        }
    }
}
